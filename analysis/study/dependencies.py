"""What a notebook run follows from: its cells, parameters, code, networks and data, each by its digest."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.study.notebook_parameters import Value, cells_of, source_of
from analysis.tables.files import digest
from analysis.tables.provenance import ROOT
from resattn.networks.catalog import named
from resattn.networks.spec import SpecError
from resattn.training.config import DATASETS

VERSION = 1  # of what a run leaves; results of another version are never taken for this one's
TRAINING_CODE = ("resattn/networks/", "resattn/training/")  # what the state of a training run follows from
OUT_DIR = "out_dir"  # the one parameter that the runner sets, and that nothing follows from


def run_inputs(path: Path | str, parameters: Mapping[str, Value]) -> dict[str, Any]:
    """All that a run follows from, as plain JSON values: two runs with equal inputs need not both be made.

    Of the notebook, its cells' text and not its outputs; the parameters except `out_dir`; every file of `resattn`
    and `analysis` that the cells import, directly or not; the structure of each network that a parameter names; the
    files of the dataset that the parameter `dataset` names, unless code makes it.
    """
    cells = cells_of(Path(path))
    given = {name: value for name, value in parameters.items() if name != OUT_DIR}
    code = [source_of(cell) for cell in cells if cell["cell_type"] == "code"]
    inputs = {
        "version": VERSION,
        "notebook": digest(json.dumps([[cell["cell_type"], source_of(cell)] for cell in cells]).encode()),
        "parameters": given,
        "code": {str(file.relative_to(ROOT)): digest(file) for file in imported_files(code)},
        "networks": dict(sorted(_networks(given.values()))),
        "data": _data_files(given.get("dataset")),
    }
    return json.loads(json.dumps(inputs))  # tuples become lists, as in the file that this is compared with


def imported_files(
    code: Sequence[str], root: Path = ROOT, packages: Sequence[str] = ("analysis", "resattn")
) -> list[Path]:
    """The files of our packages that `code` imports, directly or not, found without running anything.

    An import inside a function counts. What is imported by a name made at run time is not seen. A subpackage's data
    files count with its modules.
    """
    found: set[Path] = set()
    door = _door(root / "resattn" / "__init__.py")
    todo = [(source, "") for source in code]
    while todo:
        source, package = todo.pop()
        for name in _imported_names(source, package, door):
            if name.partition(".")[0] not in packages:
                continue
            for file in _files_of(name, root):
                if file not in found and file.suffix == ".py":
                    inside = file.parent.relative_to(root).parts
                    todo.append((file.read_text(encoding="utf-8"), ".".join(inside)))
                found.add(file)
    return sorted(found)


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
    except SyntaxError:
        return  # the run itself will say so
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


def _data_files(name: Any) -> dict[str, str]:
    if name not in DATASETS:
        return {}
    from resattn.training import cifar

    if name not in cifar.LAYOUTS:
        return {}
    from resattn.training.data import home

    place = cifar.find(cifar.LAYOUTS[name], home())
    files = [] if place is None else sorted(place.iterdir()) if place.is_dir() else [place]
    return {file.name: _digest_of_state(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@functools.cache
def _digest_of_state(file: Path, size: int, mtime_ns: int) -> str:
    """The digest of a large file, taken once for each state that it is in."""
    return digest(file)
