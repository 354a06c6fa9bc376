"""A row of the operator table, and the functions that evaluate it for one executed operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from resattn.graph.graph import Op, Operand
from resattn.rules.intervals import Extent, NoIntervalError

Read = tuple[Operand, Extent]
Spread = Callable[[Op, Sequence[Read]], Extent | list[Extent]]  # a list: one for each of several results

Kind = Literal[
    "input", "convolution", "matmul", "attention", "norm", "pool", "resize", "pad", "reduce", "along", "join", "view",
    "index", "pointwise", "shape", "other",
]  # fmt: skip

# The part of an operator in the data flow, from which roles are derived.
Flow = Literal["", "sum", "product", "quotient", "gate", "signed gate", "vector norm"]


class RuleError(ValueError):
    """An invalid row: an unknown operator, an unknown kind, or a function that raised an exception."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the operator table. A user's row needs `macs` only; without `spread` the receptive field is unknown.

    `macs`: multiply-adds of one execution, bias excluded. `is_layer`: whether it multiplies data by parameters.
    `spread`: computes what the positions of the results see from what those of the operands see. `flow` and `factors`:
    its part in the data flow, and the names of the operands that a product multiplies. `is_replacing`: its in-place
    form overwrites the tensor without reading it. `indices`: arguments whose constant values decide which positions are
    read. `matrices`: the operands that also make it a layer if data made them from parameters (see `weights`). A row of
    kind "shape" reads no value of its argument: its result is a constant.
    """

    kind: Kind = "other"
    spread: Spread | None = None
    macs: Callable[[Op], int] = lambda op: 0
    is_layer: Callable[[Op], bool] = lambda op: False
    flow: Flow = ""
    factors: tuple[str, ...] = ()
    is_replacing: bool = False
    indices: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, get_args(Kind)), ("flow", self.flow, get_args(Flow))):
            if value not in known:
                raise RuleError(f"unknown {name} {value!r} of a rule (one of: {', '.join(filter(None, known))})")


Rules = Mapping[str, Rule]


def find(rules: Rules, name: str) -> Rule | None:
    """The row of an operator by its name; `relu_` has the row of `relu`. None if there is no row."""
    return rules.get(name) or rules.get(name.removesuffix("_"))


def macs_of(op: Op) -> int:
    """Multiply-adds of one executed operator; 0 without a row. Raises: RuleError if the row's function fails."""
    if op.rule is None:
        return 0
    try:
        return op.rule.macs(op)
    except Exception as error:
        raise _failed(op, "macs", error) from error


def is_layer(op: Op) -> bool:
    """Whether an executed operator is a weighted layer. Raises: RuleError if the row's function fails."""
    if op.rule is None:
        return False
    try:
        return op.rule.is_layer(op)
    except Exception as error:
        raise _failed(op, "is_layer", error) from error


def is_packed(op: Op) -> bool:
    """Whether an argument is an opaque object, such as the packed weights of quantised layers."""
    values = (v for value in op.arguments.values() for v in (value if isinstance(value, tuple) else (value,)))
    return any("ScriptObject" in type(v).__name__ for v in values)


def holds_weights(op: Op) -> bool:
    """Whether an operator may read weights: parameters, packed weights, or a constant matrix."""
    return bool(op.params) or is_packed(op) or any(o.producer is None and len(o.shape) > 1 for o in op.operands)


def spread_of(op: Op, reads: Sequence[Read]) -> Extent | list[Extent]:
    """What each position of the results sees, for an operator whose row has a `spread`.

    Raises: NoIntervalError if there is no interval; RuleError if the row's function fails.
    """
    assert op.rule is not None
    assert op.rule.spread is not None
    try:
        return op.rule.spread(op, reads)
    except NoIntervalError:
        raise
    except Exception as error:
        raise _failed(op, "spread", error) from error


def _failed(op: Op, what: str, error: Exception) -> RuleError:
    where = op.module or "the model"
    return RuleError(f"{what} of the rule for {op.name} raised {type(error).__name__}: {error} (in {where})")
