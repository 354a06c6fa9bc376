"""Printed numbers of the ledger as frames: beside our counts, by network, and by verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd

from analysis.claims.ledger import bibliography, ledger, measure
from analysis.tables import schemas
from analysis.tables.files import FrameError
from resattn.claims.forms import verdict_table
from resattn.claims.verdicts import judge


def published_frame(source: str, places: Collection[str]) -> pd.DataFrame:
    """The ledger's rows about parameters, cost and depth in some places of a source: `schemas.PUBLISHED`.

    Raises: FrameError if the ledger has none.
    """
    counted = [claim for claim in ledger() if claim.source == source and claim.quantity in ("params", "cost", "depth")]
    claims = [claim for claim in counted if set(claim.places) & set(places)]
    if not claims:
        raise FrameError(f"the ledger has no counted row from {source} in {', '.join(places)}")
    return verdict_table(judge(claims, measure, among=ledger()))[schemas.PUBLISHED.names]


def printed_params(source: str, place: str, networks: Iterable[str]) -> dict[str, str]:
    """The parameters, in millions, that a source prints for each network, as text, whose digits give the tolerance.

    Raises: FrameError if the ledger has no such row.
    """
    rows = {
        str(c.subject): c.value
        for c in ledger()
        if c.source == source and place in c.places and c.quantity == "params" and c.unit == "M"
    }
    missing = [name for name in networks if name not in rows]
    if missing:
        raise FrameError(f"the ledger has no parameters of {missing[0]} from {source}, {place}")
    return {name: rows[name] for name in networks}


def source_frame(keys: Iterable[str]) -> pd.DataFrame:
    """The sources of a verdict table, with those of most claims first: `schemas.SOURCES`."""
    known, counts = bibliography(), pd.Series(list(keys)).value_counts(sort=True)
    rows = [(key, known[key].text, known[key].url) for key in counts.index]
    return pd.DataFrame(rows, columns=schemas.SOURCES.names)


def finding_counts(claims: pd.DataFrame, least: int = 10) -> pd.DataFrame:
    """Columns source, verdict, n of a verdict table, the largest source first; small sources share one row."""
    sizes = claims["source"].value_counts()
    small = set(sizes[sizes < least].index)
    source = claims["source"].where(~claims["source"].isin(small), f"{len(small)} others")
    counts = claims.groupby([source, "verdict"]).size().rename("n").reset_index()
    order = [name for name in sizes.index if name not in small] + [f"{len(small)} others"]
    return counts.sort_values("source", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
