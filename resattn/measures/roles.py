"""The role of each operator: trunk, mask or shortcut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resattn.graph.graph import Graph, Op, Operand
from resattn.rules.rule import Flow

TRUNK, MASK, SHORTCUT = "trunk", "mask", "shortcut"
ROLES = (TRUNK, MASK, SHORTCUT)
NONE = "none"  # how masks were found where there are none

# What ends a gate, the values that a multiplicative mask takes.
GATES: tuple[Flow, ...] = ("gate", "signed gate")


@dataclass(frozen=True)
class Roles:
    """The role of each operator, by index, and how masks and shortcuts were identified."""

    of: tuple[str, ...]
    how: str

    def ops(self, role: str) -> list[int]:
        return [i for i, r in enumerate(self.of) if r == role]


def roles(graph: Graph, is_layer: Sequence[bool]) -> Roles:
    """Trunk, mask or shortcut for every operator: from module names if they say so, else from the data flow.

    By data flow, a mask consists of operators that reach the outputs only through the gate of a product; a shortcut is
    a single 1x1 convolution on one side of a sum whose other side passes more layers from the same place.
    """
    named = [_named_role(op.module) for op in graph.ops]
    masks, how = {i for i, r in enumerate(named) if r == MASK}, "module names"
    if not masks or not _multiplies_only(graph, masks):
        masks, how = _gate_only(graph, is_layer), "data flow"
    shortcuts = {i for i, r in enumerate(named) if r == SHORTCUT} or _projections(graph, is_layer)
    return Roles(
        tuple(MASK if i in masks else SHORTCUT if i in shortcuts else TRUNK for i in range(len(graph.ops))),
        how if masks else NONE,
    )


def _named_role(module: str) -> str | None:
    parts = module.split(".")
    return MASK if "mask" in parts else SHORTCUT if "shortcut" in parts else None


def _flow(op: Op) -> Flow:
    return op.rule.flow if op.rule is not None else ""


def _factors(op: Op) -> list[int]:
    """The operators whose results are multiplied with each other, position by position."""
    names = op.rule.factors if op.rule is not None else ()
    operands = (op.arguments.get(name) for name in names)
    return [o.producer for o in operands if isinstance(o, Operand) and o.producer is not None]


def _multiplies_only(graph: Graph, masks: set[int]) -> bool:
    """Whether what a name calls a mask leaves it through products alone: a network's mask output is none."""
    reached = set(graph.outputs)
    for op in reversed(graph.ops):
        if op.index in reached:
            if op.index in masks:
                return False
            factors = _factors(op)
            reached.update(i for i in op.inputs if not (i in masks and i in factors))
    return True


def _gate_only(graph: Graph, is_layer: Sequence[bool]) -> set[int]:
    """Operators from which every way to an output leads through the gate operand of a product.

    A gate without a weighted layer behind it (x * sigmoid(x)) is an activation, not a mask.
    """
    gated: set[tuple[int, int]] = set()
    for op in graph.ops:
        factors = _factors(op)
        if len(factors) > 1:
            # Where a sigmoid meets a tanh, the sigmoid is the gate.
            for flow in GATES:
                gates = [i for i in factors if _is_gate(graph, i, flow)]
                if gates:
                    gated.update((op.index, i) for i in gates if len(gates) == 1)
                    break
    reached = set(graph.outputs)
    for op in reversed(graph.ops):
        if op.index in reached:
            reached.update(i for i in op.inputs if (op.index, i) not in gated)
    free = {i for output in graph.outputs for i in graph.ancestors(output)} - reached
    has_layer: list[bool] = []
    for op in graph.ops:
        is_one = op.index in free and is_layer[op.index]
        has_layer.append(is_one or any(has_layer[i] for i in op.inputs))
    masks = {gate for _, gate in gated if has_layer[gate]}
    for op in reversed(graph.ops):
        if op.index in masks:
            masks.update(op.inputs)
    return masks & free


def _is_gate(graph: Graph, index: int, flow: Flow) -> bool:
    """A bounded activation, or what only rescales, reshapes or shifts one (1 + M, an up-sampled M).

    x / |x| is bounded too (wang2017, equation 5).
    """
    op = graph.ops[index]
    while _flow(op) != flow:
        if flow == "gate" and _is_normalised(graph, op):
            return True
        if op.kind not in ("pointwise", "view", "resize") or len(op.inputs) != 1:
            return False
        op = graph.ops[op.inputs[0]]
    return True


def _is_normalised(graph: Graph, op: Op) -> bool:
    """Whether it divides a tensor by a norm of that tensor."""
    if _flow(op) != "quotient" or len(op.inputs) != 2:
        return False
    above, below = op.inputs
    while below != above:
        under = graph.ops[below]
        if len(under.inputs) != 1:
            return False
        below = under.inputs[0]
        if _flow(under) == "vector norm" and below != above:
            return False
    return True


def _projections(graph: Graph, is_layer: Sequence[bool]) -> set[int]:
    found = set()
    for op in graph.ops:
        if _flow(op) == "sum" and len(op.inputs) == 2:
            for side, other in (op.inputs, op.inputs[::-1]):
                projection = _lone_layer(graph, is_layer, side)
                if projection is not None and any(
                    _is_deeper(graph, is_layer, other, fork, projection.index)
                    for fork in _back(graph, is_layer, projection.inputs[0])
                ):
                    found.add(projection.index)
    return found


def _lone_layer(graph: Graph, is_layer: Sequence[bool], index: int) -> Op | None:
    """The 1x1 convolution at the end of this side of a sum, with nothing but norms and copies between."""
    op = graph.ops[index]
    while not is_layer[op.index]:
        if op.kind not in ("norm", "view") or len(op.inputs) != 1:
            return None
        op = graph.ops[op.inputs[0]]
    weight = op.arguments.get("weight")
    is_1x1 = weight is not None and len(weight.shape) > 2 and set(weight.shape[2:]) == {1}
    return op if is_1x1 and len(op.inputs) == 1 else None


def _back(graph: Graph, is_layer: Sequence[bool], index: int) -> Iterator[int]:
    """This operator and those before it, as long as there is one way back and no layer: ResNet-D pools first."""
    yield index
    while not is_layer[index] and len(graph.ops[index].inputs) == 1:
        index = graph.ops[index].inputs[0]
        yield index


def _is_deeper(graph: Graph, is_layer: Sequence[bool], index: int, source: int, projection: int) -> bool:
    """Whether this side passes at least two layers since it left the place from which the projection reads.

    A way through the projection itself leaves a unit's identity behind it, as in y + b(y) with y = p(x). A way that is
    up-sampled comes back from a smaller map: a pyramid's, not a residual unit's.
    """
    most = {source: 0}
    for op in graph.ops[source + 1 : index + 1]:
        is_upward = op.kind == "resize" or bool(op.arguments.get("transposed"))
        reached = [most[i] for i in op.inputs if i in most]
        if reached and not is_upward and op.index != projection:
            most[op.index] = max(reached) + is_layer[op.index]
    return most.get(index, 0) >= 2
