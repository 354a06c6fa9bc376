"""The committed table is of the faults that are tried here."""

import importlib
from pathlib import Path

from .conftest import read_table_of

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "reliability.md"


def _marked() -> dict[str, int]:
    """The faults of the suite and how often each is tried."""
    found = {}
    for file in sorted(FOLDER.glob("test_*.py")):
        for function in vars(importlib.import_module(f"{__package__}.{file.stem}")).values():
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == "fault":
                    assert mark.args[0] not in found
                    found[mark.args[0]] = mark.kwargs["tries"]
    return found


def test_the_table_has_every_fault_and_no_table_was_lost_or_wrong():
    rows = read_table_of(PAGE)
    assert {name: tries for name, (tries, _, _) in rows.items()} == _marked()
    assert {tuple(counts) for _, *counts in rows.values()} == {(0, 0)}
