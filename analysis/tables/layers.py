"""Every weighted layer of a network with its position, for drawings and counts by stage."""

from __future__ import annotations

from math import log2
from typing import Any

import pandas as pd

from resattn.measures import depth, roles
from resattn.measures.captured import captured
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec


def layer_frame(network: str | NetworkSpec) -> pd.DataFrame:
    """One row for each weighted layer that is executed, in order of execution.

    Columns: network, layer (module path), role, stage ("stem", "stage1", ..., "head"), module (of the attention
    module that holds it, else empty), level (how often the map was halved since the module's input), start (most
    layers on a path ahead of it), size_px (side of its map), macs, on_longest and on_trunk (is it on the longest
    path of the network; of the network without its masks).
    """
    spec = named(network) if isinstance(network, str) else network
    body = captured(spec)
    start = depth.layers_ahead(body.graph, body.is_layer)
    on_longest, on_trunk = (set(path.ops) if path else set() for path in (body.longest, body.longest_in_trunk))
    rows: list[dict[str, Any]] = []
    for op in body.graph.ops:
        if not body.is_layer[op.index]:
            continue
        rows.append(
            {
                "network": spec.name, "layer": op.module, "role": body.roles.of[op.index],
                "stage": op.module.split(".", 1)[0], "module": body.attention_module(op.module),
                "size_px": op.shape[-1] if len(op.shape) > 2 else 1, "start": start[op.index],
                "macs": body.macs[op.index],
                "on_longest": op.index in on_longest, "on_trunk": op.index in on_trunk,
            }
        )  # fmt: skip
    # The mask's last layers stand at the size of the module's input, whatever stride its first unit has.
    full = {row["module"]: row["size_px"] for row in rows if row["role"] == roles.MASK}
    for row in rows:
        is_mask = row["role"] == roles.MASK
        row["level"] = round(log2(full[row["module"]] / row["size_px"])) if is_mask else 0
    return pd.DataFrame(rows)
