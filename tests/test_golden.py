"""Every number from outside names a source that a stranger can open, and the place in it."""

from __future__ import annotations

import pytest
from golden_rows import DERIVED, GOLDEN, derived, rows

from analysis.claims.ledger import REFERENCES
from resattn.claims.claims import bib_keys

OPEN = bib_keys(REFERENCES) | bib_keys(GOLDEN / "sources.bib")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.csv")), ids=lambda path: path.stem)
def test_a_golden_row_cites_a_source_and_a_place(path) -> None:
    for row in rows(path.name):
        assert row["source"] in OPEN, row
        assert row["place"].strip(), row


def test_every_source_is_cited() -> None:
    cited = {row["source"] for path in GOLDEN.glob("*.csv") for row in rows(path.name)}
    assert bib_keys(GOLDEN / "sources.bib") <= cited


@pytest.mark.parametrize("path", sorted(DERIVED.glob("*.csv")), ids=lambda path: path.stem)
def test_a_derived_row_states_its_derivation(path) -> None:
    assert all(row["derivation"].strip() for row in derived(path.name))
