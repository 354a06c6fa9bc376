"""The ledger: what was printed about Residual Attention Networks, and what of it holds."""

from __future__ import annotations

import json
import sys


def report_claims(*, as_json: bool) -> None:
    """Prints every claim with its verdict: by source and verdict, or as a JSON list with every field.

    Raises: ClaimError where the ledger does not load.
    """
    from analysis.claims.claims import load
    from analysis.claims.measured import measure
    from analysis.claims.verdicts import judge, to_json, verdict_text

    claims = load()
    print(f"judging {len(claims)} claims: some hundred networks are counted", file=sys.stderr)
    verdicts = judge(claims, measure)
    print(json.dumps(to_json(verdicts), indent=2) if as_json else verdict_text(verdicts))
