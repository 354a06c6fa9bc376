"""The three places that name versions agree."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from resattn import extras

ROOT = Path(__file__).parents[1]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
    """The direct requirements of the project with some extras; one that names extras of the project stands for them."""
    found = [Requirement(text) for text in [*PROJECT["dependencies"], *(text for e in extras for text in EXTRAS[e])]]
    named = sorted({extra for r in found if r.name == PROJECT["name"] for extra in r.extras} - {*extras})
    return requirements(*extras, *named) if named else [r for r in found if r.name != PROJECT["name"]]


DIRECT = requirements("suite", "test")
PINNED = requirements(*(extra for extra in EXTRAS if extra != "zoo"))
CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())


def test_the_core_needs_torch_and_numpy_alone() -> None:
    assert {r.name: str(r.specifier) for r in requirements()} == {"torch": "<2.15,>=2.6", "numpy": "<3,>=2.1"}


def test_an_extra_brings_what_its_error_names() -> None:
    for extra, packages in extras.EXTRAS.items():
        assert set(packages.values()) <= {r.name for r in requirements(extra)}, extra


def test_the_build_backend_is_pinned_and_installed_first() -> None:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    needed = [canonical(Requirement(text).name) for text in system["requires"]]
    assert {*needed, "editables", "packaging", "pathspec", "pluggy", "trove-classifiers"} <= set(CONSTRAINTS)
    recipe = re.search(r"^\$\(STAMP\):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    installs = re.findall(r"\$\(PIP\) (.*)", recipe[1])
    assert installs == ["hatchling editables", "--no-build-isolation --editable '.[suite,test]'"]


def test_what_the_pinned_packages_need_is_pinned_too() -> None:
    """Of those that are installed here: an installation with digests fetches nothing else."""
    missing = {}
    for name in CONSTRAINTS:
        with suppress(metadata.PackageNotFoundError):
            needs = [Requirement(text) for text in metadata.requires(name) or ()]
            needs = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
            missing |= {canonical(need.name): name for need in needs if canonical(need.name) not in CONSTRAINTS}
    assert not missing


def test_every_direct_dependency_is_bounded_above() -> None:
    unbounded = [d.name for d in requirements(*EXTRAS) if not any(s.operator in ("<", "<=", "==") for s in d.specifier)]
    assert not unbounded


def test_the_constraints_pin_every_direct_dependency_within_its_bounds() -> None:
    outside = [d.name for d in PINNED if CONSTRAINTS.get(canonical(d.name), "") not in d.specifier]
    assert not outside


def test_the_conda_environment_has_the_pins_of_the_constraints() -> None:
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = pins(next(p["pip"] for p in parts if isinstance(p, dict)))
    assert conda == {canonical(d.name): CONSTRAINTS[canonical(d.name)] for d in DIRECT}


def test_the_lock_has_the_versions_of_the_constraints_with_digests_and_no_torch() -> None:
    text = (ROOT / "requirements-hashes.txt").read_text()
    package = re.compile(r"^([\w.-]+==[\w.!+-]+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", re.MULTILINE)
    assert not package.sub("", text)
    assert pins(package.findall(text)) == {name: pin for name, pin in CONSTRAINTS.items() if name != "torch"}


def test_no_file_that_installs_names_a_host() -> None:
    names = ("pyproject.toml", "constraints.txt", "requirements-hashes.txt", "environment.yml", "Makefile", ".ci/run")
    files = [ROOT / name for name in names]
    assert not [f.name for f in files if re.search(r"https?://|index-url|find-links", f.read_text())]
