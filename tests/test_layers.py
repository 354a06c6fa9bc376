"""Imports run one way: read from the sources, not from what happens to be imported."""

from __future__ import annotations

import ast
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


# STYLE.md 2. What each module may import of our own; its own package's parts are left to it.
CHAIN = ("spec", "catalog", "units", "mask", "attention", "network", "training")
CORE = {
    "graph": set(),
    "memory": set(),
    "quantities": set(),
    "intervals": {"graph"},
    "capture": {"graph", "memory"},
    "ops": {"graph", "intervals"},
    "cost": {"graph", "ops"},
    "depth": {"graph"},
    "paths": {"graph"},
    "receptive": {"graph", "intervals", "ops"},
    "branches": {"graph", "ops"},
    "measures": {
        "branches", "capture", "cost", "depth", "graph", "ops", "paths", "quantities", "receptive",
        "zoo",  # for the models of timm and torchvision, where they are asked for
    },
}  # fmt: skip
FOLDS = ("graph", "memory", "intervals", "ops", "cost", "depth", "paths", "receptive", "branches")


def test_there_are_files_to_read() -> None:
    assert {"resattn.spec", "analysis.graph", "analysis.measures"} <= set(NAMES)


@pytest.mark.parametrize("path", [p for n, p in NAMES.items() if n.startswith("resattn")], ids=name_of)
def test_the_networks_know_nothing_of_their_analysis(path: Path) -> None:
    assert "analysis" not in packages(path)


@pytest.mark.parametrize("name", CHAIN)
def test_the_networks_import_downwards_only(name: str) -> None:
    later = CHAIN[CHAIN.index(name) + 1 :]
    for path in (p for n, p in NAMES.items() if n == f"resattn.{name}" or n.startswith(f"resattn.{name}.")):
        found = {i.split(".")[1] for i in imports(path) if i.startswith("resattn.")}
        assert not found & set(later), path


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_imports_downwards_only(name: str) -> None:
    found = {i.split(".")[1] for i in imports(NAMES[f"analysis.{name}"]) if i.startswith("analysis.")}
    assert found <= CORE[name]


@pytest.mark.parametrize("name", ["graph", "memory", "quantities"])
def test_the_records_are_standard_library_only(name: str) -> None:
    assert packages(NAMES[f"analysis.{name}"]) <= set(sys.stdlib_module_names) | {"analysis"}


@pytest.mark.parametrize("name", ["spec", "catalog"])
def test_specs_are_standard_library_only(name: str) -> None:
    assert packages(NAMES[f"resattn.{name}"]) <= set(sys.stdlib_module_names) | {"resattn"}


@pytest.mark.parametrize("name", FOLDS)
def test_a_fold_imports_nothing_heavier_than_numpy(name: str) -> None:
    assert packages(NAMES[f"analysis.{name}"]) <= set(sys.stdlib_module_names) | {"analysis", "numpy"}


@pytest.mark.parametrize("name", sorted(CORE))
def test_only_the_measures_know_our_networks(name: str) -> None:
    assert ("resattn" in packages(NAMES[f"analysis.{name}"])) is (name == "measures")


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_loads_without_tables_and_plots(name: str) -> None:
    heavy = {"pandas", "matplotlib", "lightning", "lightning_fabric", "fvcore", "torchinfo", "papermill", "snakemake"}
    assert not packages(NAMES[f"analysis.{name}"], lazy=False) & heavy


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
