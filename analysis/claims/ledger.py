"""The ledger: what was printed about Residual Attention Networks, as a table of claims."""

from __future__ import annotations

from pathlib import Path

from resattn.claims.claims import Claim, bib_keys, load

LEDGER = Path(__file__).with_name("literature.csv")
REFERENCES = Path(__file__).with_name("references.bib")


def ledger() -> tuple[Claim, ...]:
    """The claims of the study, in the order of the file. Raises: ClaimError naming file, line and column."""
    return load(LEDGER, REFERENCES)


def sources() -> frozenset[str]:
    """The keys of the study's bibliography."""
    return bib_keys(REFERENCES)
