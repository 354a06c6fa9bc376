"""The specs of a study's networks side by side, and our totals beside torchinfo's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.tables import schemas
from resattn.measures.audit import audit
from resattn.measures.captured import captured
from resattn.networks.catalog import named


def with_masks(networks: Iterable[str]) -> list[str]:
    """The networks that have attention modules."""
    return [name for name in networks if named(name).has_masks]


def input_side(network: str) -> int:
    """The side of a network's own input, in pixels."""
    return max(named(network).input_shape[1:])


def by_input_side(networks: Iterable[str]) -> dict[int, list[str]]:
    """The networks by the side of their input in pixels, since one axis shows networks of one input size."""
    groups: dict[int, list[str]] = {}
    for name in networks:
        groups.setdefault(input_side(name), []).append(name)
    return groups


def spec_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Every field of every spec, the value as text: `schemas.SPECS`."""
    rows = [
        {"network": name, "field": field, "value": _text(value)}
        for name in networks
        for field, value in named(name).to_json().items()
        if field != "name"
    ]
    return pd.DataFrame(rows, columns=schemas.SPECS.names)


def differing(specs: pd.DataFrame) -> pd.DataFrame:
    """A frame of specs side by side: one row for each network, one column for each field that differs."""
    wide = specs.pivot(index="network", columns="field", values="value")
    wide = wide.loc[specs["network"].unique(), specs["field"].unique()]
    return wide.loc[:, wide.nunique() > 1].rename_axis(index=None, columns=None)


def summary_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Our totals beside torchinfo's: `schemas.SUMMARY`.

    `macs_torchinfo` counts norms and biases too; `resattn.instruments.crosscheck` takes that difference apart.
    """
    import torchinfo

    rows = []
    for name in networks:
        spec, quantities = named(name), audit(name).quantities
        theirs = torchinfo.summary(captured(spec).model, (1, *spec.input_shape), device="meta", verbose=0)
        rows.append(
            {
                "network": name, "layers": quantities["weighted_layers"], "params": quantities["params"],
                "params_torchinfo": int(theirs.total_params), "macs": quantities["macs"],
                "macs_torchinfo": int(theirs.total_mult_adds),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
