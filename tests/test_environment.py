"""The three places that name versions agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
EXTRA = [Requirement(text) for text in PROJECT["optional-dependencies"]["browser"]]
CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())


def test_every_direct_dependency_is_bounded_above() -> None:
    unbounded = [d.name for d in DIRECT + EXTRA if not any(s.operator in ("<", "<=", "==") for s in d.specifier)]
    assert not unbounded


def test_the_constraints_pin_every_direct_dependency_within_its_bounds() -> None:
    outside = [d.name for d in DIRECT + EXTRA if CONSTRAINTS.get(canonical(d.name), "") not in d.specifier]
    assert not outside


def test_the_conda_environment_has_the_pins_of_the_constraints() -> None:
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = pins(next(p["pip"] for p in parts if isinstance(p, dict)))
    assert conda == {canonical(d.name): CONSTRAINTS[canonical(d.name)] for d in DIRECT}


def test_no_file_that_installs_names_a_host() -> None:
    files = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run")]
    assert not [f.name for f in files if re.search(r"https?://|index-url|find-links", f.read_text())]
