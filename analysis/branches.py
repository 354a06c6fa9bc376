"""Which part of a network an operator belongs to: trunk, mask or shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.graph import Graph, Op
from analysis.ops import rule_for

TRUNK, MASK, SHORTCUT = "trunk", "mask", "shortcut"
ROLES = (TRUNK, MASK, SHORTCUT)

# What ends a gate: the values that a multiplicative mask takes.
GATES = frozenset(f"aten.{name}" for name in ("sigmoid", "hardsigmoid", "_softmax", "softmax", "tanh"))


@dataclass(frozen=True)
class Roles:
    """The role of each operator, by index, and how masks and shortcuts were told from the rest."""

    of: tuple[str, ...]
    how: str

    def ops(self, role: str) -> list[int]:
        return [i for i, r in enumerate(self.of) if r == role]


def roles(graph: Graph, is_layer: Sequence[bool]) -> Roles:
    """Trunk, mask or shortcut for every operator: from module names where they tell, else from the data flow.

    By data flow, mask is what reaches the outputs through a multiplicative gate alone, and shortcut is a single
    1x1 convolution on one side of a sum, where the other side passes more layers from the same place.
    """
    named = [_named_role(op.module) for op in graph.ops]
    if MASK in named:
        masks, how = {i for i, r in enumerate(named) if r == MASK}, "module names"
    else:
        masks, how = _gate_only(graph, is_layer), "data flow"
    shortcuts = {i for i, r in enumerate(named) if r == SHORTCUT} or _projections(graph, is_layer)
    return Roles(
        tuple(MASK if i in masks else SHORTCUT if i in shortcuts else TRUNK for i in range(len(graph.ops))), how
    )


def _named_role(module: str) -> str | None:
    parts = module.split(".")
    return MASK if "mask" in parts else SHORTCUT if "shortcut" in parts else None


def _gate_only(graph: Graph, is_layer: Sequence[bool]) -> set[int]:
    """Operators from which every way to an output leads through the gate operand of a product.

    A gate without a weighted layer behind it (x * sigmoid(x)) is an activation, not a mask.
    """
    gated: set[tuple[int, int]] = set()
    for op in graph.ops:
        if op.name in ("aten.mul", "aten.mul_") and len(op.inputs) == 2:
            gates = [i for i in op.inputs if _is_gate(graph, i)]
            if len(gates) == 1:
                gated.add((op.index, gates[0]))
    reached = set(graph.outputs)
    for op in reversed(graph.ops):
        if op.index in reached:
            reached.update(i for i in op.inputs if (op.index, i) not in gated)
    used = {i for output in graph.outputs for i in graph.ancestors(output)}
    masks: set[int] = set()
    for _, gate in gated:
        branch = {i for i in graph.ancestors(gate) if i in used and i not in reached}
        if any(is_layer[i] for i in branch):
            masks |= branch
    return masks


def _is_gate(graph: Graph, index: int) -> bool:
    """A bounded activation, or what only rescales, reshapes or shifts one (1 + M, an up-sampled M)."""
    op = graph.ops[index]
    while op.name.removesuffix("_") not in GATES:
        rule = rule_for(op)
        if rule is None or rule.kind not in ("pointwise", "view", "resize") or len(op.inputs) != 1:
            return False
        op = graph.ops[op.inputs[0]]
    return True


def _projections(graph: Graph, is_layer: Sequence[bool]) -> set[int]:
    found = set()
    for op in graph.ops:
        if op.name in ("aten.add", "aten.add_") and len(op.inputs) == 2:
            for side, other in (op.inputs, op.inputs[::-1]):
                projection = _lone_layer(graph, is_layer, side)
                if projection is not None and _is_deeper(graph, is_layer, other, projection.inputs[0]):
                    found.add(projection.index)
    return found


def _lone_layer(graph: Graph, is_layer: Sequence[bool], index: int) -> Op | None:
    """The 1x1 convolution at the end of this side of a sum, with nothing but a norm between."""
    op = graph.ops[index]
    while not is_layer[op.index]:
        rule = rule_for(op)
        if rule is None or rule.kind != "norm" or len(op.inputs) != 1:
            return None
        op = graph.ops[op.inputs[0]]
    weight = op.arguments.get("weight")
    is_1x1 = weight is not None and len(weight.shape) > 2 and set(weight.shape[2:]) == {1}
    return op if is_1x1 and len(op.inputs) == 1 else None


def _is_deeper(graph: Graph, is_layer: Sequence[bool], index: int, source: int) -> bool:
    """Whether this side passes at least two layers since it left the place from which the projection reads."""
    most = {source: 0}
    for op in graph.ops[source + 1 : index + 1]:
        reached = [most[i] for i in op.inputs if i in most]
        if reached:
            most[op.index] = max(reached) + is_layer[op.index]
    return most.get(index, 0) >= 2
