"""What this suite counts, in the form in which the ledger asks: a number for a subject and a quantity.

The audit gives the numbers of a whole network. A printed number may be about one part of it, or split it otherwise;
each such number is one row of `WHOLE` or `PART` here, a fold over the same captured graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import TYPE_CHECKING

from resattn.claims.claims import ClaimError, Runs, Subject, parse_subject
from resattn.claims.vocabulary import TRAINING_RESULTS
from resattn.graph.capture import capture
from resattn.graph.graph import Graph, Op
from resattn.measures import cost, depth, receptive, roles
from resattn.measures.audit import cached_audit, unclipped
from resattn.networks.catalog import UnknownNetworkError, named
from resattn.networks.network import Network, build
from resattn.networks.spec import NetworkSpec, override
from resattn.rules.table import layer_flags, rule_for

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Body:
    """A captured network and what its folds share."""

    spec: NetworkSpec
    network: Network
    graph: Graph

    @functools.cached_property
    def is_layer(self) -> list[bool]:
        return layer_flags(self.graph)

    @functools.cached_property
    def roles(self) -> roles.Roles:
        return roles.roles(self.graph, self.is_layer)

    @functools.cached_property
    def units(self) -> tuple[str, ...]:
        """Module paths of the residual units."""
        return tuple(m.path for m in self.graph.modules if m.kind.endswith("Unit") and m.is_executed)

    @functools.cached_property
    def attention_modules(self) -> tuple[str, ...]:
        return tuple(m.path for m in self.graph.modules if m.kind == "AttentionModule" and m.is_executed)

    @functools.cached_property
    def unclipped(self) -> Graph:
        """The same network on an input so large that no unit in its middle sees a border."""
        shape = (1, *self.spec.input_shape)
        target = receptive.feature_map(self.graph)
        assert target is not None
        return unclipped(self.network, self.graph, target, [shape])

    def ops(self, kind: str, role: str | None = None) -> list[Op]:
        wanted = (op for op in self.graph.ops if (rule := rule_for(op)) and rule.kind == kind)
        return [op for op in wanted if role is None or self.roles.of[op.index] == role]

    def params(self, ops: Iterable[Op]) -> int:
        return cost.n_params(self.graph, cost.read_params(self.graph, [op.index for op in ops]))

    def inside(self, part: str, *roles: str) -> list[Op]:
        """The operators of a part of the network, in order; of all roles, or of those given."""
        found = [op for op in self.graph.ops if _is_in(op.module, part)]
        if not found:
            raise self.unknown(part)
        return [op for op in found if not roles or self.roles.of[op.index] in roles]

    def last(self, part: str) -> Op:
        """The operator that gives what a part of the network gives."""
        return self.inside(part)[-1]

    def unknown(self, part: str) -> ClaimError:
        near = get_close_matches(part, [m.path for m in self.graph.modules], n=3)
        return ClaimError(f"{self.spec.name} has no part {part!r}" + (f" (nearest: {', '.join(near)})" if near else ""))


def _is_in(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


# A graph has thousands of operators: the numbers are kept (below), the graphs only while rows ask about them in turn.
@functools.lru_cache(maxsize=8)
def _body(spec: NetworkSpec) -> Body:
    network = build(spec, device="meta")
    return Body(spec, network, capture(network, (1, *spec.input_shape), device="meta"))


# ------------------------------------------------------------------------------------------------ of a whole network


def _longest_path(body: Body, graph: Graph) -> int:
    path = depth.longest_path(graph, body.is_layer)
    assert path is not None
    return path.n_layers


def _norm_statistics(body: Body) -> int:
    operands = (op.arguments[name] for op in body.ops("norm") for name in ("running_mean", "running_var"))
    return sum(prod(operand.shape) for operand in operands)


def _macs_linear(body: Body) -> int:
    return sum(cost.op_macs(body.graph)) - sum(cost.op_macs(body.graph)[op.index] for op in body.ops("convolution"))


def _params_linear(body: Body) -> int:
    return body.params(body.graph.ops) - body.params(body.ops("convolution")) - body.params(body.ops("norm"))


def _trunk_units(body: Body) -> int:
    return sum("mask" not in unit.split(".") for unit in body.units)


# The first four are the audit's own, by the same folds: most rows ask for nothing else, and an audit takes longer.
WHOLE: Mapping[str, Callable[[Body], int]] = {
    "params": lambda body: body.params(body.graph.ops),
    "macs": lambda body: sum(cost.op_macs(body.graph)),
    "longest_path": lambda body: _longest_path(body, body.graph),
    "trunk_depth": lambda body: _longest_path(body, body.graph.without(body.roles.ops(roles.MASK))),
    "norm_statistics": _norm_statistics,
    "params_conv": lambda body: body.params(body.ops("convolution")),
    "params_conv_mask": lambda body: body.params(body.ops("convolution", roles.MASK)),
    "params_norm": lambda body: body.params(body.ops("norm")),
    "params_linear": _params_linear,
    "macs_linear": _macs_linear,
    "trunk_units": _trunk_units,
    "units_outside_modules": lambda body: _units_outside_modules(body, ""),
}


# ------------------------------------------------------------------------------------------------ of a part


def _units_outside_modules(body: Body, part: str) -> int:
    if part:
        body.inside(part)
    inside = [unit for unit in body.units if not part or _is_in(unit, part)]
    return sum(not any(_is_in(unit, module) for module in body.attention_modules) for unit in inside)


def _units_inside(body: Body, part: str) -> int:
    body.inside(part)
    return sum(_is_in(unit, part) for unit in body.units)


def _mask_units_on_path(body: Body, part: str) -> int:
    # One flag for each unit, on its first layer: the longest path then counts units instead of layers.
    mask = body.inside(f"{part}.mask")
    units = [unit for unit in body.units if _is_in(unit, f"{part}.mask")]
    first = {next(op.index for op in mask if body.is_layer[op.index] and _is_in(op.module, unit)) for unit in units}
    return depth.longest_within(mask, [index in first for index in range(len(body.graph.ops))])


def _poolings(body: Body, part: str) -> int:
    return sum((rule := rule_for(op)) is not None and rule.kind == "pool" for op in body.inside(part, roles.MASK))


def _modules(body: Body, part: str) -> int:
    body.inside(part)
    return sum(_is_in(module, part) for module in body.attention_modules)


def _longest(*roles: str) -> Callable[[Body, str], int]:
    return lambda body, part: depth.longest_within(body.inside(part, *roles), body.is_layer)


def _map_size(body: Body, part: str) -> int:
    return body.last(part).shape[-1] if len(body.last(part).shape) > 2 else 1


def _sides(body: Body, part: str, *, masks: bool = True) -> list[int]:
    """What each unclipped unit of a part's output sees, vertically, in pixels."""
    last, graph = body.last(part), body.unclipped
    seen = graph if masks else graph.without(body.roles.ops(roles.MASK))
    extent = receptive.extents(seen, 0, [last.index])[last.index]
    return [int(side) for side in extent.sides[~extent.clipped]]


PART: Mapping[str, Callable[[Body, str], int]] = {
    "module_longest_path": _longest(),
    "module_trunk_path": _longest(roles.TRUNK, roles.SHORTCUT),
    "mask_longest_path": _longest(roles.MASK),
    "mask_conv_layers": lambda body, part: sum(body.is_layer[op.index] for op in body.inside(part, roles.MASK)),
    "mask_units": lambda body, part: _units_inside(body, f"{part}.mask"),
    "mask_units_on_path": _mask_units_on_path,
    "units_inside": _units_inside,
    "poolings": _poolings,
    "modules": _modules,
    "units_outside_modules": _units_outside_modules,
    "map_size_px": _map_size,
    "out_channels": lambda body, part: body.last(part).shape[1],
    "receptive_field_px": lambda body, part: max(_sides(body, part)),
    "receptive_field_least_px": lambda body, part: min(_sides(body, part)),
    "receptive_field_trunk_px": lambda body, part: max(_sides(body, part, masks=False)),
}


def measure(subject: Subject, quantity: str) -> int | float | None:
    """The counted number; None for a network outside the catalog, or a quantity that nothing here counts.

    Raises: ClaimError for a part that the network has not; SpecError for settings that make no network.
    """
    spec = spec_of(subject)
    return None if spec is None else _number(spec, subject.part, quantity)


@functools.lru_cache(maxsize=4096)
def _number(spec: NetworkSpec, part: str, quantity: str) -> int | float | None:
    if part:
        return PART[quantity](_body(spec), part) if quantity in PART else None
    if quantity in WHOLE:
        return WHOLE[quantity](_body(spec))
    return cached_audit(spec).quantities.get(quantity)


def spec_of(subject: Subject) -> NetworkSpec | None:
    """The network of a subject with its settings, whatever part is meant; None for one outside the catalog."""
    try:
        # The name is kept, so that settings that change nothing do not make another network to be captured.
        return override(named(subject.network), {**dict(subject.settings), "name": subject.network})
    except UnknownNetworkError:
        return None


# ------------------------------------------------------------------------------------------------ of training runs


RUN_COLUMNS = ("subject", "quantity", "seed", "value")


def runs_of_table(frame: DataFrame) -> Runs:
    """The training runs of a table, for `judge`.

    Columns: subject (`cifar-attention56 merge=naive`), quantity (`cifar10_error_final_epoch`), seed, value (errors and
    accuracies as fractions, not per cent). Only runs with the printed recipe belong in it; a shorter run tests nothing.
    Raises: ClaimError for a missing column, an unknown subject or quantity, or a value out of range.
    """
    if missing := [column for column in RUN_COLUMNS if column not in frame.columns]:
        raise ClaimError(f"the table of runs lacks {', '.join(missing)} (columns: {', '.join(RUN_COLUMNS)})")
    found: dict[tuple[NetworkSpec, str, str], dict[int, float]] = {}
    for n, row in enumerate(frame[list(RUN_COLUMNS)].to_dict("records"), start=1):
        where = f"row {n} of the table of runs"
        if row["quantity"] not in TRAINING_RESULTS:
            near = get_close_matches(str(row["quantity"]), TRAINING_RESULTS, n=3)
            raise ClaimError(f"{where}: unknown quantity {row['quantity']!r} (nearest: {', '.join(near)})")
        about = parse_subject(row["subject"])
        spec = spec_of(about)
        if spec is None:
            raise ClaimError(f"{where}: no network {row['subject']!r} in the catalog")
        if not math.isfinite(row["value"]) or (is_share(row["quantity"]) and not 0 <= row["value"] <= 1):
            raise ClaimError(f"{where}: value {row['value']!r} of {row['quantity']} is no fraction between 0 and 1")
        found.setdefault((spec, about.part, row["quantity"]), {})[int(row["seed"])] = float(row["value"])

    def runs(subject: Subject, quantity: str) -> Mapping[int, float]:
        spec = spec_of(subject)
        return {} if spec is None else found.get((spec, subject.part, quantity), {})

    return runs


def is_share(quantity: str) -> bool:
    return "_error" in quantity or "_accuracy" in quantity
