"""The depth in the name beside the counted depths, for classic networks and the networks of this project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resattn.measures.audit import audit
from resattn.networks import catalog
from resattn.networks.classic import ZOO

MEASURED = (
    "trunk_depth", "longest_path", "shortest_path", "weighted_layers", "params", "macs",
    "receptive_field_px", "receptive_field_trunk_px", "n_paths",
)  # fmt: skip
COLUMNS = ("network", "named_depth", "named_by", *MEASURED, "status", "notes")


def census(networks: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """One row for each network: its nominal depth with source, and the depths counted on its own input.

    `networks`: names; None for the classic networks and the catalog. The keys of a row are `COLUMNS`; values are exact
    integers, or None if the network has no such number. Raises: UnknownNetworkError.
    """
    names = [*ZOO, *(n for n in catalog.names() if n not in ZOO)] if networks is None else networks
    return [_row(name) for name in names]


def _row(name: str) -> dict[str, Any]:
    if name in ZOO:
        classic = ZOO[name]
        depth, by = classic.named_depth, classic.named_by
        found = audit(f"{classic.make.__module__}:{name}", classic.input_shape)
    else:
        depth, by, found = catalog.named(name).claimed_depth, "name", audit(name)
    measured = {quantity: found.quantities.get(quantity) for quantity in MEASURED}
    about = {"status": found.status, "notes": "; ".join(found.notes) or None}
    return {"network": name, "named_depth": depth, "named_by": by, **measured, **about}
