"""Every weighted layer of a network with its place: what drawings and counts by stage are made from."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any

import pandas as pd

from resattn.graph.graph import Graph
from resattn.measures import cost, depth, roles
from resattn.measures.audit import captured
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec
from resattn.rules.table import layer_flags


def layer_frame(network: str | NetworkSpec) -> pd.DataFrame:
    """One row for each weighted layer that is executed, in order of execution.

    Columns: network, layer (module path), role, stage ("stem", "stage1", ..., "head"), module (of the attention
    module that holds it, else empty), level (how often the map was halved since the module's input), start (most
    layers on a path ahead of it), size_px (side of its map), macs, on_longest and on_trunk (is it on the longest
    path of the network; of the network without its masks).
    """
    spec = named(network) if isinstance(network, str) else network
    _, graph = captured(spec)
    is_layer = layer_flags(graph)
    role = roles.roles(graph, is_layer)
    macs = cost.op_macs(graph)
    longest = depth.longest_path(graph, is_layer)
    trunk = depth.longest_path(graph.without(role.ops(roles.MASK)), is_layer)
    start = _layers_ahead(graph, is_layer)
    on_longest, on_trunk = (set(path.ops) if path else set() for path in (longest, trunk))
    rows: list[dict[str, Any]] = []
    for op in graph.ops:
        if not is_layer[op.index]:
            continue
        rows.append(
            {
                "network": spec.name, "layer": op.module, "role": role.of[op.index],
                "stage": op.module.split(".", 1)[0], "module": _attention_module(op.module),
                "size_px": op.shape[-1] if len(op.shape) > 2 else 1, "start": start[op.index], "macs": macs[op.index],
                "on_longest": op.index in on_longest, "on_trunk": op.index in on_trunk,
            }
        )  # fmt: skip
    # The mask's last layers stand at the size of the module's input, whatever stride its first unit has.
    full = {row["module"]: row["size_px"] for row in rows if row["role"] == roles.MASK}
    for row in rows:
        is_mask = row["role"] == roles.MASK
        row["level"] = round(log2(full[row["module"]] / row["size_px"])) if is_mask else 0
    return pd.DataFrame(rows)


def _attention_module(path: str) -> str:
    parts = path.split(".")
    return next((".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.startswith("module")), "")


def _layers_ahead(graph: Graph, is_layer: Sequence[bool]) -> list[int]:
    """For each operator the most weighted layers on any path that ends just before it."""
    after: list[int] = []
    ahead: list[int] = []
    for op in graph.ops:
        ahead.append(max((after[i] for i in op.inputs), default=0))
        after.append(ahead[-1] + is_layer[op.index])
    return ahead
