"""The ledger: what was printed about Residual Attention Networks, as a table of claims."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from resattn.claims.claims import Claim, bib_keys, load
from resattn.claims.measured import measure
from resattn.claims.verdicts import judge, to_json, verdict_text

LEDGER = Path(__file__).with_name("literature.csv")
REFERENCES = Path(__file__).with_name("references.bib")


def ledger() -> tuple[Claim, ...]:
    """The claims of the study, in the order of the file. Raises: ClaimError naming file, line and column."""
    return load(LEDGER, REFERENCES)


def sources() -> frozenset[str]:
    """The keys of the study's bibliography."""
    return bib_keys(REFERENCES)


def report_claims(*, as_json: bool) -> None:
    """Prints every claim with its verdict: by source and verdict, or as a JSON list with every field.

    Raises: ClaimError where the ledger does not load.
    """
    claims = ledger()
    print(f"judging {len(claims)} claims: some hundred networks are counted", file=sys.stderr)
    verdicts = judge(claims, measure)
    print(json.dumps(to_json(verdicts), indent=2) if as_json else verdict_text(verdicts))
