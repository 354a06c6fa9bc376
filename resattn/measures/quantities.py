"""The quantities: each is a row with name, unit, label, definition, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from resattn.measures.roles import MASK, SHORTCUT, TRUNK
from resattn.rules.rule import holds_weights, is_packed

if TYPE_CHECKING:
    from resattn.graph.graph import Op
    from resattn.measures.captured import Captured
    from resattn.measures.depth import Path
    from resattn.measures.receptive import ReceptiveField

Number = int | float


class Absent:
    """The value of a quantity that a network does not have, such as the claimed depth of a name without a number."""


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity. `of`: computes it from a captured network; None if the value cannot be given.

    `hidden_by`: which operators without a rule make it unknown: none, all ("cost"), those that may hold weights
    ("layers"), or those with packed weights ("params"). `of` then gives a lower bound. A quantity of one `role` is made
    unknown only by operators of that role.
    """

    id: str
    unit: str
    label: str
    definition: str
    of: Callable[[Captured], Number | Absent | None] = lambda network: None
    hidden_by: Literal["", "cost", "layers", "params"] = ""
    role: str = ""

    @property
    def is_field(self) -> bool:
        return self.unit == "px"

    def value(self, network: Captured) -> Number | Absent | None:
        """Its value; None if an operator without a rule makes it unknown."""
        return None if self.is_hidden(network) else self.of(network)

    def is_hidden(self, network: Captured) -> bool:
        """Whether an operator without a rule makes it unknown."""
        return any(self._is_hidden_by(op, network) for op in network.unknown)

    def _is_hidden_by(self, op: Op, network: Captured) -> bool:
        if not HIDES[self.hidden_by](op):
            return False
        return not self.role or network.role_of(op) == self.role


HIDES: Mapping[str, Callable[[Op], bool]] = {
    "": lambda op: False,
    "cost": lambda op: True,
    "layers": holds_weights,
    "params": is_packed,
}


def _by_name(rows: Iterable[Quantity]) -> Mapping[str, Quantity]:
    return {row.id: row for row in rows}


def _layers(path: Path | None) -> int | None:
    return None if path is None else path.n_layers


def _side(field: ReceptiveField | None) -> int | None:
    return None if field is None else max(field.sides)


def _claimed_depth(network: Captured) -> Number | Absent:
    claimed = network.spec.claimed_depth if network.spec else None
    return ABSENT if claimed is None else claimed


def _mean_path_length(network: Captured) -> float | None:
    counts = network.path_lengths
    total = sum(counts.values())
    return sum(n * count for n, count in counts.items()) / total if total else None


def _height(network: Captured) -> Number | Absent:
    field = network.fields.union
    return field.height_px if field and field.height_px != field.width_px else ABSENT


def _width(network: Captured) -> Number | Absent:
    field = network.fields.union
    return field.width_px if field and field.height_px != field.width_px else ABSENT


def _convolutions(role: str) -> Callable[[Captured], int]:
    def number(network: Captured) -> int:
        return sum(network.roles.of[i] == role for i in network.convolutions) + _constant_convolutions(network, role)

    return number


def _constant_convolutions(network: Captured, role: str = "") -> int:
    layers = network.constant_layers
    return sum(op.kind == "convolution" and role in ("", network.role_of(op)) for op in layers)


def _macs(network: Captured) -> int:
    return sum(network.macs) + network.macs_constant


# What an audit reports, in this order.
QUANTITIES: Mapping[str, Quantity] = _by_name(
    (
        Quantity("claimed_depth", "layers", "Claimed depth", "the number in the name", _claimed_depth),
        Quantity(
            "weighted_layers", "layers", "Weighted layers",
            "executed convolutions and matrix products with parameters, of a matrix of parameters that data selects or "
            "scales too; a module run twice is two",
            lambda network: sum(network.is_layer) + len(network.constant_layers), "layers",
        ),
        Quantity(
            "conv_layers", "layers", "Convolutions", "executed convolutions",
            lambda network: len(network.convolutions) + _constant_convolutions(network), "layers",
        ),
        Quantity(
            "conv_layers_trunk", "layers", "Convolutions, trunk", "those outside mask and shortcut",
            _convolutions(TRUNK), "layers", TRUNK,
        ),
        Quantity(
            "conv_layers_mask", "layers", "Convolutions, mask", "those in a mask branch",
            _convolutions(MASK), "layers", MASK,
        ),
        Quantity(
            "conv_layers_shortcut", "layers", "Convolutions, shortcut",
            "projections on the identity path of a residual unit",
            _convolutions(SHORTCUT), "layers", SHORTCUT,
        ),
        Quantity(
            "trunk_depth", "layers", "Trunk depth", "most weighted layers on any path when the masks are removed",
            lambda network: _layers(network.longest_in_trunk), "layers",
        ),
        Quantity(
            "longest_path", "layers", "Longest path", "most weighted layers on any path from input to output",
            lambda network: _layers(network.longest), "layers",
        ),
        Quantity(
            "shortest_path", "layers", "Shortest path", "fewest weighted layers on any path from input to output",
            lambda network: _layers(network.shortest), "layers",
        ),
        Quantity(
            "n_paths", "paths", "Paths",
            "paths from input to output; the merge is T + M*T, and a gate's input counts as a path",
            lambda network: sum(network.path_lengths.values()),
        ),
        Quantity(
            "mean_path_length", "layers", "Mean path length", "weighted layers, each path weighing the same",
            _mean_path_length, "layers",
        ),
        Quantity(
            "params", "parameters", "Parameters", "parameters that the execution reads, a shared one once",
            lambda network: network.params(), "params",
        ),
        Quantity(
            "params_mask", "parameters", "Parameters, mask",
            "those that a mask branch reads; a constant scale of the trunk depends on no input and is no branch",
            lambda network: network.params(network.masks), "params", MASK,
        ),
        Quantity(
            "macs", "multiply-adds", "Multiply-adds",
            "of convolutions and matrix products, bias excluded, batch 1", _macs, "cost",
        ),
        Quantity(
            "macs_constant", "multiply-adds", "Multiply-adds, constant",
            "those that no input reaches (position tables, learned queries): the same at every call",
            lambda network: None if any(op.index < 0 for op in network.unknown) else network.macs_constant,
        ),
        Quantity(
            "macs_mask", "multiply-adds", "Multiply-adds, mask", "those in a mask branch",
            lambda network: sum(network.macs[i] for i in network.masks), "cost", MASK,
        ),
        Quantity(
            "flops", "FLOPs", "FLOPs", "2 * multiply-adds", lambda network: 2 * _macs(network), "cost"
        ),
        Quantity(
            "receptive_field_px", "px", "Receptive field",
            "side of the input square seen by a unit of the last feature map before global pooling, nothing clipped",
            lambda network: _side(network.fields.union),
        ),
        Quantity("receptive_field_h_px", "px", "Receptive field, height", "the same, vertically", _height),
        Quantity("receptive_field_w_px", "px", "Receptive field, width", "the same, horizontally", _width),
        Quantity(
            "receptive_field_trunk_px", "px", "Receptive field, trunk",
            "the receptive field when the masks are removed",
            lambda network: _side(network.fields.trunk),
        ),
        Quantity(
            "receptive_field_narrowest_px", "px", "Receptive field, narrowest path",
            "the receptive field along the one path to such a unit that sees least",
            lambda network: _side(network.fields.narrowest),
        ),
        Quantity(
            "receptive_field_widest_px", "px", "Receptive field, widest path",
            "the receptive field along the one path to such a unit that sees most",
            lambda network: _side(network.fields.widest),
        ),
        Quantity(
            "dead_layers", "layers", "Dead layers", "weighted modules defined but never executed",
            lambda network: len(network.dead),
        ),
        Quantity(
            "dead_params", "parameters", "Dead parameters", "parameters defined but never read",
            lambda network: sum(network.graph.params.values()) - network.params(),
        ),
        Quantity(
            "defined_params", "parameters", "Defined parameters", "all parameters, read or not",
            lambda network: sum(network.graph.params.values()), "params",
        ),
    )
)  # fmt: skip


def count(network: Captured, quantity: str) -> int:
    """A quantity that is an integer for every network of the catalog, such as depth or cost."""
    value = QUANTITIES[quantity].value(network)
    assert isinstance(value, int)  # every operator of these networks has a rule
    return value


def _norm_statistics(network: Captured) -> int:
    norms = (op for op in network.graph.ops if op.kind == "norm")
    return sum(prod(op.arguments[name].shape) for op in norms for name in ("running_mean", "running_var"))


def _params_of(kind: str, role: str = "") -> Callable[[Captured], int]:
    def params(network: Captured) -> int:
        ops = (op.index for op in network.graph.ops if op.kind == kind)
        return network.params([i for i in ops if not role or network.roles.of[i] == role])

    return params


def _linear_params(network: Captured) -> int:
    return network.params() - _params_of("convolution")(network) - _params_of("norm")(network)


def _linear_macs(network: Captured) -> int:
    return _macs(network) - sum(network.macs[op.index] for op in network.graph.ops if op.kind == "convolution")


# How a table may split a network: for claims; an audit does not report these.
SPLITS: Mapping[str, Quantity] = _by_name(
    (
        Quantity(
            "norm_statistics", "values", "Running statistics", "means and variances of all norms", _norm_statistics
        ),
        Quantity(
            "params_conv", "parameters", "Parameters, convolutions", "those of convolutions", _params_of("convolution")
        ),
        Quantity(
            "params_conv_mask", "parameters", "Parameters, convolutions of masks", "those of convolutions in a mask",
            _params_of("convolution", MASK),
        ),
        Quantity("params_norm", "parameters", "Parameters, norms", "scales and shifts of norms", _params_of("norm")),
        Quantity("params_linear", "parameters", "Parameters, linear", "those of matrix products", _linear_params),
        Quantity("macs_linear", "multiply-adds", "Multiply-adds, linear", "those of matrix products", _linear_macs),
        Quantity(
            "trunk_units", "units", "Trunk units", "residual units outside the masks",
            lambda network: sum("mask" not in unit.split(".") for unit in network.units),
        ),
        Quantity(
            "units_outside_modules", "units", "Units outside modules", "residual units outside attention modules",
            lambda network: sum(not network.attention_module(unit) for unit in network.units),
        ),
    )
)  # fmt: skip
