"""Imports run one way: read from the sources, not from what happens to be imported."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((*ROOT.glob("resattn/**/*.py"), *ROOT.glob("analysis/**/*.py")))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in FILES}


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Modules that a file imports when it is loaded, and with `lazy` those inside of functions too."""
    return {name for node in _import_nodes(ast.parse(path.read_text(encoding="utf-8")), lazy) for name in _named(node)}


def _import_nodes(tree: ast.AST, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _import_nodes(node, lazy)


def _named(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, "imports say the whole name"
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        yield whole if whole in NAMES else str(node.module)


def packages(path: Path, *, lazy: bool = True) -> set[str]:
    return {name.split(".")[0] for name in imports(path, lazy=lazy)}


def room(name: str) -> str:
    """The folder of a module inside its package; a module that lies in no folder is its own."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


# Which rooms of its own package a room may import from. Every folder and every single module stands here.
RESATTN: dict[str, set[str]] = {
    "extras": set(),
    "networks": set(),
    "graph": set(),
    "rules": {"graph"},
    "conventions": {"graph", "rules"},
    "targets": {"conventions", "extras", "graph", "networks"},
    "measures": {"graph", "rules", "networks", "targets"},
    "instruments": {"graph", "rules", "measures", "networks", "targets", "extras"},
    "views": {"graph", "rules", "measures"},
    "compare": {"graph", "rules", "measures", "networks", "targets"},
    "claims": {"extras", "graph", "measures", "networks", "rules", "targets"},
    "training": {"networks"},
    "tiling": {"graph", "measures", "networks", "targets"},
    "forecast": {"graph", "measures", "rules", "views"},
    "testing": {"measures", "compare"},
    "cli": {
        "extras",
        "graph",
        "measures",
        "instruments",
        "compare",
        "claims",
        "networks",
        "training",
        "views",
        "tiling",
    },
    "__main__": {"cli"},
}
ANALYSIS: dict[str, set[str]] = {
    "tables": set(),
    "experiment": set(),
    "statistics": {"tables", "experiment"},
    "claims": {"tables", "statistics"},
    "study": {"tables"},
    "trained": {"tables", "experiment", "statistics", "claims"},
    "report": {"tables", "study", "statistics"},
    "figures": {"tables", "trained"},
    "explore": {"tables", "figures"},
    "zoo": {"tables"},
    "site": {"explore", "tables", "zoo"},
    "commands": {"study", "report", "explore"},
    "docs": {"tables", "statistics", "trained", "report", "figures", "explore", "zoo"},
}
STANDARD_LIBRARY = ("resattn.graph.graph", "resattn.graph.aliasing", "resattn.measures.quantities",
                    "resattn.networks.spec", "resattn.networks.catalog", "resattn.compare.diff")  # fmt: skip
FOLDS = ("cost", "depth", "paths", "receptive", "roles")  # of measures
HEAVY = {"pandas", "matplotlib", "scipy", "lightning_fabric", "fvcore", "torchinfo", "papermill", "snakemake", "jinja2"}


def test_there_are_files_to_read() -> None:
    assert {"resattn.networks.spec", "resattn.graph.graph", "resattn.measures.audit", "analysis.docs"} <= set(NAMES)


def test_every_room_is_in_the_tables() -> None:
    rooms = {package: {room(n) for n in NAMES if n.startswith(f"{package}.")} for package in ("resattn", "analysis")}
    assert rooms == {"resattn": set(RESATTN), "analysis": set(ANALYSIS)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_module_imports_from_the_rooms_before_its_own(name: str) -> None:
    package, own = name.split(".")[0], room(name)
    allowed = {"resattn": RESATTN, "analysis": ANALYSIS}[package].get(own, set()) | {own, ""}
    assert {room(i) for i in imports(NAMES[name]) if i.split(".")[0] == package} <= allowed


def test_the_page_on_design_has_the_same_tables() -> None:
    rows = re.findall(r"^\| `(\w+)/(\w+)` \|.*\|(.*)\|$", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE)
    written = {(package, name): set(filter(None, below.strip().split(", "))) for package, name, below in rows}
    tables = {"resattn": RESATTN, "analysis": ANALYSIS}
    assert written == {
        (p, n): below for p, table in tables.items() for n, below in table.items() if (ROOT / p / n).is_dir()
    }


def names_of_the_study(tree: ast.AST) -> Iterator[str]:
    """What a source says of the package `analysis`: imports of it, and texts that name it or a module of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in _named(node) if name.split(".")[0] == "analysis")
        elif isinstance(node, ast.Constant) and str(node.value).split(".")[0] == "analysis":
            yield str(node.value)


@pytest.mark.parametrize("name", [n for n in sorted(NAMES) if n.split(".")[0] == "resattn"])
def test_what_the_wheel_holds_knows_nothing_of_the_study(name: str) -> None:
    tree = ast.parse(NAMES[name].read_text(encoding="utf-8"))
    if name == "resattn.cli.door":  # its one function opens the study's commands
        door = [n for n in tree.body if isinstance(n, ast.FunctionDef) and list(names_of_the_study(n))]
        assert [n.name for n in door] == ["of_the_study"]
        tree.body.remove(door[0])
    assert not list(names_of_the_study(tree))


def test_a_folder_holds_at_most_fourteen_modules() -> None:
    folders = {path.parent for path in FILES}
    assert {str(f): n for f in folders if (n := len([p for p in f.glob("*.py") if p.stem != "__init__"])) > 14} == {}


@pytest.mark.parametrize("name", STANDARD_LIBRARY)
def test_records_are_standard_library_only(name: str) -> None:
    assert packages(NAMES[name]) <= set(sys.stdlib_module_names) | {"resattn"}


@pytest.mark.parametrize("name", [f"resattn.measures.{fold}" for fold in FOLDS] + ["resattn.rules.table"])
def test_a_fold_imports_nothing_heavier_than_numpy(name: str) -> None:
    assert packages(NAMES[name]) <= set(sys.stdlib_module_names) | {"resattn", "numpy"}


CORE = [n for n in sorted(NAMES) if n.startswith("resattn.") and room(n) not in ("training", "claims")]


@pytest.mark.parametrize("name", CORE)
def test_the_core_loads_without_tables_and_plots(name: str) -> None:
    assert not packages(NAMES[name], lazy=False) & HEAVY


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_there_is_no_torchvision_at_load(path: Path) -> None:
    # There is no CPU build of it on every machine: importing it beside a CPU torch raises.
    assert not packages(path, lazy=False) & {"torchvision", "timm"}


def test_no_module_imports_itself_in_a_circle() -> None:
    reached = {name: {i for i in imports(path, lazy=False) if i in NAMES} for name, path in NAMES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in reached[name] - {name}:
                visit(other, (*above, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())
