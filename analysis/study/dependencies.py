"""What a notebook run depends on: its cells, parameters, code, networks and data, each by its digest."""

from __future__ import annotations

import ast
import functools
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from analysis.study.notebook_parameters import Value, cells_of, source_of
from analysis.tables.files import digest, read_regular
from analysis.tables.provenance import ROOT
from resattn.networks.catalog import named
from resattn.networks.spec import SpecError
from resattn.training.config import DATASETS
from resattn.training.record import RUN as RECORD

VERSION = 1  # of what a run leaves; results of another version are never taken for this one's
INPUTS, RESULT = "inputs.json", "result.json"
KINDS = ("tables", "figures", "run")  # the folders of a job whose files its result lists
OTHERS = "others"  # what else a job left, which another may read
LONGEST_PATH = 1000
MOST_FILES = 1000  # of a folder that a parameter names: somebody may name their home
ENVIRONMENT = ("numpy", "torch")  # whose versions can change a table; and Python's
OUT_DIR = "out_dir"  # the one parameter that the runner sets, and that nothing follows from


def run_inputs(path: Path | str, parameters: Mapping[str, Value]) -> dict[str, Any]:
    """Everything that a run depends on, as plain JSON values; a run with equal inputs need not be repeated.

    Of the notebook, its cells' text and not its outputs; the parameters except `out_dir`; every file of `resattn`,
    of `analysis` and of the notebook's folder that the cells import, directly or not; the structure of each network
    that a parameter names; the files of the dataset that the parameter `dataset` names, unless code makes it; of each
    folder that a parameter names, what the jobs in it left, and the files that lie in it; and the versions of Python,
    NumPy and torch.
    """
    cells = cells_of(Path(path))
    given = {name: value for name, value in parameters.items() if name != OUT_DIR}
    code = [source_of(cell) for cell in cells if cell["cell_type"] == "code"]
    inputs = {
        "version": VERSION,
        "notebook": _cells_digest(cells),
        "parameters": given,
        "code": {name: _digest_now(file) for name, file in _code_files(code, Path(path).parent).items()},
        "networks": dict(sorted(_networks(given.values()))),
        "data": {file.name: _digest_now(file) for file in _data_files(given.get("dataset"))},
        "read": dict(_results_read(Path(path).parent, parameters)),
        "versions": _versions(),
    }
    return json.loads(json.dumps(inputs))  # tuples become lists, as in the file that this is compared with


def watched_files(path: Path, parameters: Mapping[str, Value]) -> dict[str, Path]:
    """The files that a run reads besides its notebook and the results of other jobs, each with its displayed name."""
    code = [source_of(cell) for cell in cells_of(path) if cell["cell_type"] == "code"]
    files = _code_files(code, path.parent)
    files |= {file.name: file for file in _data_files(parameters.get("dataset"))}
    return files | dict(_files_beside(path.parent, parameters))


def results_read(path: Path, parameters: Mapping[str, Value]) -> dict[str, Path]:
    """The folders of finished jobs within the folders that parameters of a run name."""
    return {inside: file.parent for inside, file in _results_in(path.parent, parameters)}


def notebook_digest(path: Path) -> str:
    """The digest of a notebook's cells, without their outputs."""
    return _cells_digest(cells_of(path))


def _cells_digest(cells: Sequence[Mapping[str, Any]]) -> str:
    return digest(json.dumps([[cell["cell_type"], source_of(cell)] for cell in cells]).encode())


def changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """The names of what differs between two inputs; what older results lack, `read` and `versions`, does not."""
    if not isinstance(before, Mapping):
        return ["everything"]
    changed = []
    for kind in now:
        old, new = before.get(kind, now[kind] if kind in ("read", "versions") else None), now[kind]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        elif old != new:
            changed.append(kind)
    return changed


def _code_files(code: Sequence[str], beside: Path) -> dict[str, Path]:
    """The files that the cells of a notebook import, each by its path in the checkout or in the notebook's folder."""
    found = imported_files(code, beside=beside)
    return {str(file.relative_to(ROOT if file.is_relative_to(ROOT) else beside)): file for file in found}


def imported_files(code: Sequence[str], root: Path = ROOT, *, beside: Path | None = None) -> list[Path]:
    """The files of our packages, and of modules in the folder `beside`, that `code` imports, directly or not, found
    without running anything.

    Imports inside functions count. An import by a name computed at run time is not found. Data files of a subpackage
    count with its modules.
    """
    found: set[Path] = set()
    door = _door(root / "resattn" / "__init__.py")
    todo = [name for source in code for name in _imported_names(source, "", door)]
    while todo:
        name = todo.pop()
        if (place := root if name.partition(".")[0] in ("analysis", "resattn") else beside) is None:
            continue
        for file in _files_of(name, place):
            if file not in found and file.suffix == ".py":
                package = ".".join(file.parent.relative_to(place).parts)
                todo += _imports_of(file, package, file_state(file), tuple(door.items()))
            found.add(file)
    return sorted(found)


State = tuple[int, int, int, int]


def file_state(file: Path) -> State:
    """The size, times and inode of a file. The time of the last change of the inode cannot be put back.

    Raises: OSError.
    """
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@functools.lru_cache(maxsize=1024)
def _imports_of(file: Path, package: str, state: State, door: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """What a module imports, read once for each state that it is in."""
    return tuple(_imported_names(file.read_text(encoding="utf-8"), package, dict(door)))


def _door(file: Path) -> dict[str, str]:
    """The table DOOR of `resattn`: the names that it imports when they are used, to the modules that define them."""
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOOR":
            return {f"resattn.{name}": module for name, module in ast.literal_eval(node.value).items()}
    return {}


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """What importing a dotted name reads: each package on the way, and the module if the name is one."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:depth])
        files = [base / "__init__.py", base.with_suffix(".py")]
        if depth > 1 and base.is_dir():
            files += [file for file in base.iterdir() if file.suffix in (".csv", ".bib", ".json", ".yaml")]
        yield from (file for file in files if file.is_file())


def _imported_names(source: str, package: str, door: Mapping[str, str]) -> Iterator[str]:
    """The modules that a source imports; of names behind the door of `resattn`, the modules that define them."""
    if source.lstrip().startswith("%%"):
        return  # a cell in another language
    plain = re.sub(r"^[ \t]*[%!].*$", "", source, flags=re.MULTILINE)  # IPython's own lines
    try:
        tree = ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # no Python, or too deep to be read: the run itself will say so
    packages = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "resattn"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            yield from filter(None, [door.get(f"resattn.{node.attr}")])
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from door.values() if names == ["resattn.*"] else (door.get(name, name) for name in names)


def _networks(values: Any) -> Iterator[tuple[str, str]]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _networks(value)
        elif isinstance(value, str):
            try:
                yield value, named(value).digest
            except SpecError:
                continue  # text that names no network


def _data_files(name: Any) -> list[Path]:
    if name not in DATASETS:
        return []
    from resattn.training.layouts import LAYOUTS, find

    if name not in LAYOUTS:
        return []
    from resattn.training.data import home

    place = find(LAYOUTS[name], home())
    return [] if place is None else sorted(place.iterdir()) if place.is_dir() else [place]


def _results_read(folder: Path, parameters: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    """What the folders hold that parameters name: each finished job, with the digest of what it left, and files."""
    for inside, file in _results_in(folder, parameters):
        yield inside, _left(file, file_state(file))
    for inside, file in _files_beside(folder, parameters):
        yield inside, _digest_now(file)


def _named_folders(folder: Path, parameters: Mapping[str, Value]) -> Iterator[tuple[str, Path]]:
    for name, value in parameters.items():
        if name != OUT_DIR and isinstance(value, str) and 0 < len(value) < LONGEST_PATH and "\0" not in value:
            yield name, folder / value


def _results_in(folder: Path, parameters: Mapping[str, Value]) -> Iterator[tuple[str, Path]]:
    for name, step in _named_folders(folder, parameters):
        own = os.path.abspath(folder / str(parameters.get(OUT_DIR, ".")))
        for file in sorted([*step.glob(RESULT), *step.glob(f"*/{RESULT}")]):
            if os.path.abspath(file.parent) != own:
                yield "/".join([name, *file.parent.relative_to(step).parts]), file


def _files_beside(folder: Path, parameters: Mapping[str, Value]) -> Iterator[tuple[str, Path]]:
    """The records of kept runs in the folders that parameters name, and the files that lie in a `_dir`, as photos."""
    for name, step in _named_folders(folder, parameters):
        for file in sorted(step.glob(f"*/{RECORD}")):
            inside = [name, file.parent.name, *([RECORD] if (file.parent / RESULT).exists() else [])]
            yield "/".join(inside), file
        if name.endswith("_dir") and step.is_dir() and not any((step / of_job).exists() for of_job in (RESULT, INPUTS)):
            files = (file for file in step.iterdir() if file.is_file() and not file.name.startswith("."))
            yield from ((f"{name}/{file.name}", file) for file in sorted(files)[:MOST_FILES])


@functools.lru_cache(maxsize=4096)
def _left(file: Path, state: State) -> str:
    try:
        result = json.loads(read_regular(file))
        listed = {kind: result.get(kind, {}) for kind in KINDS}
        listed |= {OTHERS: others} if (others := result.get(OTHERS)) else {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return "not readable"
    return digest(json.dumps(listed, sort_keys=True).encode())


@functools.cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ENVIRONMENT}


def _digest_now(file: Path) -> str:
    return _digest_of_state(file, file_state(file))


@functools.lru_cache(maxsize=4096)
def _digest_of_state(file: Path, state: State) -> str:
    """The digest of a file, taken once for each state that it is in."""
    return digest(file)
