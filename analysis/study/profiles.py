"""A study's profile: which notebooks run with which parameters, checked before anything runs."""

from __future__ import annotations

import itertools
import json
import math
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from analysis.study.dependencies import INPUTS, KINDS, OUT_DIR, RESULT
from analysis.study.job_folder import FAILURE, LOG, NOTEBOOK
from analysis.study.light_imports import light_imports
from analysis.study.notebook_parameters import NotebookError, Value, check_parameters, read_parameters
from analysis.tables.files import read_regular
from analysis.tables.provenance import ROOT
from resattn.networks.catalog import named
from resattn.networks.spec import SpecError
from resattn.training.config import FIELDS, ConfigError, TrainConfig, override

WORKFLOW, NOTEBOOKS = ROOT / "workflow", ROOT / "notebooks"
PROFILES = WORKFLOW / "profiles"
MOST_CHARACTERS, DEEPEST = 100_000, 20  # of a profile
MOST_JOBS, LONGEST_NAME = 2_000, 200  # of a profile; of a folder, in bytes
# What a results folder and the folder of a step hold beside those of jobs.
RESERVED = ("report", "plan.json", "study.json", "snakemake.log")
RESERVED_IN_STEP = (RESULT, INPUTS, FAILURE, NOTEBOOK, LOG, *KINDS)
SCALES = ("quick", "small", "paper")  # that a profile may have, the default first
IN_FOLDER = str.maketrans({"[": "+", "]": "", "=": "-", ",": "+", " ": ""})  # a network's settings in a folder's name


class StudyError(Exception):
    """A study that cannot be run."""


class ProfileError(StudyError, ValueError):
    """An invalid profile; the message gives file, line and the allowed values."""

    is_usage = True


@dataclass(frozen=True)
class Task:
    """One execution of a notebook that a profile asks for. `name` is its folder in the results."""

    name: str
    notebook: Path
    parameters: Mapping[str, Value]
    after: Mapping[str, str]  # parameter -> step whose folder it is
    timeout_s: int
    training: TrainConfig | None = None

    @property
    def step(self) -> str:
        return self.name.partition("/")[0]

    def given(self, out: Path) -> dict[str, Value]:
        """Its parameters in a results folder; folders are relative, so that the checkout can be moved."""
        return {
            **self.parameters,
            **{p: os.path.relpath(out / step, self.notebook.parent) for p, step in self.after.items()},
        }


@dataclass(frozen=True)
class Profile:
    """A checked profile: its tasks, each after those that it depends on."""

    name: str
    dataset: str | None
    gpus: int  # 0: no task asks for one
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def needs(self, task: Task) -> list[str]:
        return [name for name, other in self.tasks.items() if other.step in task.after.values()]


def read_profile(profile: str | Path, *, dataset: str | None = None, scale: str | None = None) -> Profile:
    """The checked profile of a name such as `quick`, or of a file. `dataset` replaces that of the profile.

    `scale`: for a profile with `scales`, such as `gates`: the settings under this scale replace those of the profile.
    Default: the first of SCALES that it has. `gates-small` is `gates` at scale `small`, and the study has this name.

    Raises: ProfileError, one line for each mistake, before anything runs.
    """
    if not WORKFLOW.is_dir():
        raise ProfileError("a study needs the notebooks and the workflow, which an installed package does not have: "
                           "clone the repository and run `make report` there")  # fmt: skip
    path, named_scale = _profile_path(str(profile))
    tree, data = _load(path)
    scales = data.pop("scales", None)
    mistakes = list(_scales_mistakes(scales))
    if not mistakes:
        scale = _scale(path, scales, scale, named_scale)
        data = data if scale is None else _over(data, scales[scale])
        mistakes = list(_schema_mistakes(data))
    if not mistakes:
        if dataset is not None:
            try:
                _dataset(dataset)
            except ConfigError as error:
                raise ProfileError(str(error)) from error
            data.setdefault("shared", {})["dataset"] = dataset
        tasks, mistakes = _tasks(data, path)
    if mistakes:
        lines = sorted({(_line_of(tree, place, scale), message) for place, message in mistakes})
        raise ProfileError("\n".join(f"{path.name}, line {line}: {message}" for line, message in lines))
    gpus = data.get("gpus", 1) if data.get("device") == "cuda" else 0
    name = path.stem if scale is None else f"{path.stem}-{scale}"
    return Profile(name, data.get("shared", {}).get("dataset"), gpus, tasks)


Place = tuple[str | int, ...]  # of a value in the profile: keys and indices from the top
Mistake = tuple[Place, str]


def _profile_path(profile: str) -> tuple[Path, str | None]:
    """The file of a profile, and the scale that its name ends with."""
    if (path := Path(profile)).suffix in (".yaml", ".yml") or "/" in profile:
        if not path.is_file():
            raise ProfileError(f"no profile {profile}")
        return path.resolve(), None
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if profile in known:
        return PROFILES / f"{profile}.yaml", None
    name, dash, scale = profile.rpartition("-")
    if dash and name in known and scale in SCALES:
        return PROFILES / f"{name}.yaml", scale
    raise ProfileError(f"no profile {profile!r} ({_near(profile, known)}, or a .yaml file)")


def _scales_mistakes(scales: Any) -> Iterator[Mistake]:
    if scales is None:
        return
    if not isinstance(scales, dict) or not scales:
        yield ("scales",), "scales: not a mapping of a scale to what it changes"
        return
    for name, changes in scales.items():
        if name not in SCALES:
            yield ("scales", name), f"scales has no {name!r} ({_near(name, SCALES)})"
        elif not isinstance(changes, dict) or "scales" in changes:
            yield ("scales", name), f"scales.{name}: not a mapping of parts of a profile"


def _scale(path: Path, scales: Mapping[str, Any] | None, asked: str | None, named_scale: str | None) -> str | None:
    if named_scale and asked and asked != named_scale:
        raise ProfileError(f"{path.stem}-{named_scale} is a scale of {path.stem} already, --scale says {asked}")
    wanted = asked or named_scale
    if scales is None:
        if wanted is not None:
            others = sorted(p.stem for p in PROFILES.glob("*.yaml") if "\nscales:" in p.read_text(encoding="utf-8"))
            raise ProfileError(f"{path.name} has no scales (those of the project that have: {', '.join(others)})")
        return None
    if wanted is not None and wanted not in scales:
        raise ProfileError(f"{path.name} has no scale {wanted!r} ({_near(wanted, list(scales))})")
    return wanted or next(name for name in SCALES if name in scales)


def _over(data: Any, changes: Any) -> Any:
    """A profile with what a scale says laid over it: mappings are merged, everything else is replaced."""
    if not (isinstance(data, dict) and isinstance(changes, dict)):
        return changes
    return {**data, **{key: _over(data.get(key), value) for key, value in changes.items()}}


def _line_of(tree: yaml.Node, place: Place, scale: str | None) -> int:
    """The line of a place, in the part of the scale if it stands there."""
    line, is_there = _line(tree, ("scales", str(scale), *place))
    return line if is_there and scale is not None else _line(tree, place)[0]


def _load(path: Path) -> tuple[yaml.Node, dict[str, Any]]:
    """The profile as nodes, which know their lines, and as plain values."""
    try:
        text = read_regular(path, 4 * MOST_CHARACTERS).decode()
        _refuse_hostile(path, text)
        loader = yaml.SafeLoader(text)
        tree = loader.get_single_node()
        if not isinstance(tree, yaml.MappingNode):
            raise ProfileError(f"{path.name}: no mapping of names to values")
        _refuse_repeated(path, tree)
        return tree, loader.construct_document(tree)
    except OSError as error:
        raise ProfileError(f"{path.name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ProfileError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ProfileError(f"{path.name}{where}: no YAML ({getattr(error, 'problem', None) or error})") from error


def _refuse_hostile(path: Path, text: str) -> None:
    """A small file can stand for a huge one, by aliases of aliases, and a deep one costs the square of its depth."""
    depth = 0
    for event in yaml.parse(text[:MOST_CHARACTERS], yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ProfileError(f"{path.name}, line {line}: an alias, or more levels than a profile has")
    if len(text) > MOST_CHARACTERS:
        raise ProfileError(f"{path.name}: more than the {MOST_CHARACTERS} characters that a profile may have")


def _refuse_repeated(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ProfileError(f"{path.name}, line {key.start_mark.line + 1}: a name that is no text")
            if key.value in seen:
                raise ProfileError(f"{path.name}, line {key.start_mark.line + 1}: {key.value!r} occurs a second time")
            seen.add(str(key.value))
            _refuse_repeated(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated(path, item)


def _line(node: yaml.Node, place: Place) -> tuple[int, bool]:
    """The line of a place in the profile, or of the nearest thing around it; and whether the place is there."""
    line = node.start_mark.line
    for step in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        if not (found := [(key, value) for key, value in pairs if key.value == str(step)]):
            return line + 1, False
        line, node = found[0][0].start_mark.line, found[0][1]
    return line + 1, True


def _schema_mistakes(data: dict[str, Any]) -> Iterator[Mistake]:
    with light_imports():
        import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    checker.checks("dataset", raises=ConfigError)(lambda name: bool(not isinstance(name, str) or _dataset(name)))
    checker.checks("network", raises=SpecError)(lambda name: bool(not isinstance(name, str) or named(name)))
    schema = json.loads((WORKFLOW / "profile.schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft202012Validator(schema, format_checker=checker).iter_errors(data):
        place = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            for name in error.instance.keys() - known.keys():
                what = ".".join(map(str, place)) or "a profile"
                yield (*place, name), f"{what} has no {name!r} ({_near(name, known)})"
        elif error.validator == "format":
            yield place, str(error.cause)
        elif error.validator == "dependentRequired":  # the one case of the schema
            yield place, f"{'.'.join(map(str, place))}: `each` and `folder` are given together or not at all"
        else:
            yield place, f"{'.'.join(map(str, place))}: {error.message}"


def _dataset(name: str) -> str:
    known = FIELDS["dataset"].metadata["choices"]
    if name not in known:
        raise ConfigError(f"unknown dataset {name!r} ({_near(name, known)})")
    return name


def _near(name: object, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(str(name), list(known), n=2, cutoff=0.5)
    return f"nearest: {' or '.join(near)}" if near else f"one of: {', '.join(known) or 'none'}"


def _tasks(data: dict[str, Any], path: Path) -> tuple[dict[str, Task], list[Mistake]]:
    try:
        folder = path.parent.joinpath(data["notebooks_dir"]).resolve() if "notebooks_dir" in data else NOTEBOOKS
        folder.is_dir()  # which fails for a name that no file can have
    except (OSError, ValueError) as error:
        return {}, [(("notebooks_dir",), f"notebooks_dir is no folder ({error})"[:300])]
    shared = data.get("shared", {})
    tasks: dict[str, Task] = {}
    mistakes: list[Mistake] = []
    unused = set(shared)
    for step, row in data["notebooks"].items():
        row = row or {}
        place: Place = ("notebooks", step)
        name = row.get("notebook", step)
        notebook = folder / f"{name}.ipynb"
        if not notebook.is_file():
            where = (*place, "notebook") if "notebook" in row else place
            known = sorted(path.stem for path in folder.glob("*.ipynb"))
            mistakes.append((where, f"no notebook {name!r} ({_near(name, known)})"))
            continue
        try:
            defaults = read_parameters(notebook)
        except NotebookError as error:
            mistakes.append((place, str(error)))
            continue
        unused -= defaults.keys()
        common = {name: value for name, value in shared.items() if name in defaults}
        asked: list[tuple[Place, str, Any]] = [(("shared", name), name, value) for name, value in common.items()]
        for part in ("parameters", "budget"):
            asked += [((*place, part, name), name, value) for name, value in row.get(part, {}).items()]
        for name, values in row.get("each", {}).items():
            asked += [((*place, "each", name, index), name, value) for index, value in enumerate(values)]
        found = list(_parameter_mistakes(notebook, asked))
        for name, earlier in row.get("after", {}).items():
            above = list(data["notebooks"])[: list(data["notebooks"]).index(step)]
            where = (*place, "after", name)
            if earlier not in above:
                found.append((where, f"no notebook {earlier!r} above {step} ({_near(earlier, above)})"))
            found += _parameter_mistakes(notebook, [(where, name, "")])
        if not found:
            fixed = {**common, **row.get("parameters", {}), **row.get("budget", {})}
            n_jobs = math.prod(map(len, row.get("each", {}).values()))
            if len(tasks) + n_jobs > MOST_JOBS:
                found.append((place, f"{len(tasks) + n_jobs:,} jobs; a profile has at most {MOST_JOBS:,}"))
                mistakes += found
                continue
            for values in itertools.product(*row.get("each", {}).values()):
                each = dict(zip(row.get("each", {}), values, strict=True))
                try:
                    task = _task(step, notebook, row, each, fixed, data)
                    if task.name in tasks:
                        raise ProfileError(f"two jobs would share the folder {task.name!r}; name more of `each` in it")
                    tasks[task.name] = task
                except (ProfileError, ConfigError, SpecError) as error:
                    at = "budget" if isinstance(error, ConfigError) else "folder"
                    found.append(((*place, at), str(error)))
                    break  # the others have the same, in other words
        mistakes += found
    if not mistakes:
        mistakes = [
            (("shared", name), f"no notebook of this profile has a parameter {name!r}") for name in sorted(unused)
        ]
    return tasks, mistakes


def _parameter_mistakes(notebook: Path, asked: Sequence[tuple[Place, str, Any]]) -> Iterator[Mistake]:
    for place, name, value in asked:
        try:
            if name == OUT_DIR:
                raise NotebookError(f"{OUT_DIR} is set by the study")
            check_parameters(notebook, {name: value})
        except NotebookError as error:
            yield place, str(error)


def _task(
    step: str, notebook: Path, row: Mapping[str, Any], each: Mapping[str, Value], fixed: Mapping[str, Value], data: Any
) -> Task:
    try:
        name = step if not each else f"{step}/{_folder(row['folder'], each)}"
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ProfileError(f"folder {row['folder']!r} names something that is not in `each` ({error})") from error
    own = name.partition("/")[2]
    if not all(c.isalnum() or c in "_.+-" for c in own) or own.startswith(".") or name.endswith("."):
        raise ProfileError(f"{name!r:.300} is no folder name: letters, digits and _ . + - only, no . at an end")
    for part, reserved in zip(name.split("/"), (RESERVED, RESERVED_IN_STEP), strict=False):
        if part in reserved:
            raise ProfileError(f"{part!r} cannot be a folder of jobs: a study keeps something else under this name")
        if len(part.encode()) > LONGEST_NAME:
            raise ProfileError(f"{part[:40]!r}... is no folder name: it has more than {LONGEST_NAME} bytes")
    values = check_parameters(notebook, {**fixed, **each})
    given = {name: values[name] for name in {**fixed, **each}}
    training = _training(values) if "budget" in row else None
    limit = row.get("timeout_s", data.get("timeout_s", 3600))
    return Task(name, notebook, given, row.get("after", {}), limit, training)


def _folder(pattern: str, each: Mapping[str, Value]) -> str:
    """The folder of a job. A format in the pattern, such as {n:0>9}, is refused: it may ask for any width."""
    for _, field_, spec, conversion in string.Formatter().parse(pattern):
        if spec or conversion or (field_ is not None and not field_.isidentifier()):
            raise ValueError(f"{{{field_}}} is written without a format")
    return pattern.format(**each).translate(IN_FOLDER)


def _training(values: Mapping[str, Any]) -> TrainConfig:
    """The run that a training notebook will make of its parameters. Raises: ConfigError, SpecError."""
    known = {name: values.get(name) for name in ("dataset", "epochs", "images", "batch_size", "seed", "label_noise")}
    known = {name: value for name, value in known.items() if value is not None}
    settings = dict(item.partition("=")[::2] for item in str(values.get("settings", "")).split())
    return override(TrainConfig(spec=named(values["model"]), epochs=1), {**known, **settings})
