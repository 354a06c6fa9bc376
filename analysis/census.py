"""Named depth beside every depth there is, for the classic networks and the project's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import pandas as pd

from analysis.measures import audit, cached_audit
from analysis.zoo import ZOO
from resattn import catalog

MEASURED = (
    "trunk_depth", "longest_path", "shortest_path", "weighted_layers", "params", "macs",
    "receptive_field_px", "receptive_field_trunk_px", "n_paths",
)  # fmt: skip
COLUMNS = ("network", "named_depth", "named_by", *MEASURED, "status", "notes")

MOST_DIGITS = 15  # of a number of paths that is printed in full


def census(networks: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a network: the depth it goes by and where that is said, and what is counted on its own input.

    Without names: the zoo, then the catalogue. The numbers are exact integers, None where there is none.
    Raises: UnknownNetworkError.
    """
    names = [*ZOO, *(n for n in catalog.names() if n not in ZOO)] if networks is None else networks
    return pd.DataFrame(list(map(_row, names)), columns=list(COLUMNS), dtype=object)


def _row(name: str) -> dict[str, Any]:
    if name in ZOO:
        classic = ZOO[name]
        depth, by = classic.named_depth, classic.named_by
        found = audit(f"{classic.make.__module__}:{name}", input_shape=classic.input_shape)
    else:
        depth, by, found = catalog.named(name).claimed_depth, "name", cached_audit(name)
    measured = {quantity: found.quantities.get(quantity) for quantity in MEASURED}
    said = {"status": found.status, "notes": "; ".join(found.notes) or None}
    return {"network": name, "named_depth": depth, "named_by": by, **measured, **said}


def report_census(as_json: bool) -> None:
    """The census on standard output: a table, or a list with one object a network."""
    frame = census()
    if as_json:
        print(json.dumps(frame.to_dict(orient="records"), indent=2))
    else:
        print("\n".join(_lines(frame)))


def _lines(frame: pd.DataFrame) -> Iterator[str]:
    yield from frame.map(_text).to_string(index=False).splitlines()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}" if value < 10**MOST_DIGITS else f"{Decimal(value):.2e}"
    return str(value)
