"""Finds matrices of parameters that data selects, scales or generates: a product with one is a weighted layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resattn.graph.graph import Graph, Op, Operand, Shape
from resattn.rules.intervals import Extent, NoIntervalError
from resattn.rules.rule import RuleError, is_layer, spread_of

# The operators that keep a weight a weight: what they do is element by element, or moves, selects or sums elements.
FOLLOWED = frozenset(("view", "pointwise", "index", "join", "reduce"))

# Beyond so many operators back a tensor is taken for data.
MOST_STEPS = 64


@dataclass(frozen=True)
class _Dims:
    """The dimensions along which a tensor's values differ as weights do, and those of positions or of data."""

    weights: set[int]
    data: set[int]


class Weights:
    """Which tensors of a graph are weights. `is_layer`: for the operators so far; it may grow."""

    def __init__(self, graph: Graph, is_layer: Sequence[bool]) -> None:
        self.graph, self.is_layer = graph, is_layer
        self.known: dict[tuple[int, int], _Dims] = {}
        self.carried: dict[Any, list[tuple[int, ...]]] = {}  # by operators that are alike: see `_carried`

    def is_matrix(self, operand: Operand, steps: int = MOST_STEPS) -> bool:
        """Whether an operand that an operator made is a matrix of parameters: data selects, scales or mixes them, or
        both of its dimensions are features of layers (a hyper-network).
        """
        n = len(operand.shape)
        is_made = operand.producer is not None or operand.constant
        return bool(is_made) and n > 1 and {n - 2, n - 1} <= self._dims(operand, steps).weights

    def _dims(self, operand: Operand, steps: int) -> _Dims:
        if operand.producer is None and not operand.constant:
            return _Dims(_wide(operand.shape) if operand.params else set(), set())
        place = operand.constant if operand.producer is None else operand.producer, operand.slot
        if place not in self.known:
            made_by = self.graph.constants[~place[0]] if place[0] < 0 else self.graph.ops[place[0]]
            self.known[place] = self._of_result(made_by, operand, steps)
        return self.known[place]

    def _of_result(self, op: Op, result: Operand, steps: int) -> _Dims:
        wide = _wide(result.shape)
        if (is_layer(op) if op.index < 0 else self.is_layer[op.index]) or op.name == "aten.embedding":
            features = self._features(op, len(result.shape), steps)
            return _Dims(features & wide, wide - features)
        if op.kind not in FOLLOWED or not steps:
            return _Dims(set(), wide)
        weights: set[int] = set()
        data: set[int] = set()
        for read in op.operands:
            dims = self._dims(read, steps - 1)
            if op.kind == "index" and dims.weights and not dims.data:
                # Whatever is selected, each value is a parameter.
                return _Dims(self._carried(op, read, dims.weights, result.slot) & wide, set())
            weights |= self._carried(op, read, dims.weights, result.slot)
            data |= self._carried(op, read, dims.data, result.slot)
        return _Dims((weights - data) & wide, data & wide)

    def _features(self, op: Op, n: int, steps: int) -> set[int]:
        """The dimensions of a layer's result along which its weights differ."""
        if op.kind == "convolution" or op.name == "aten.embedding":
            return {1 if op.kind == "convolution" else n - 1}
        found: set[int] = set()
        # Of learned vectors that a matrix of parameters multiplies, the vectors are not features.
        names = op.rule.matrices if op.rule is not None else ()
        for name in names[-1:] if op.index < 0 else names:
            weight = op.arguments[name]
            if weight.params or (steps and self.is_matrix(weight, steps - 1)):
                last = range(max(len(weight.shape) - 2, 0), len(weight.shape))
                found |= self._carried(op, weight, set(last), 0)
        return found

    def _carried(self, op: Op, read: Operand, dims: set[int], slot: int) -> set[int]:
        """The dimensions of an operator's result along which it differs because an operand does along these."""
        found: set[int] = set()
        alike = op.alike(read) if dims else None
        for dim in dims:
            key = alike, dim
            if key not in self.carried:
                try:
                    extent = spread_of(op, [(read, Extent.of_input(read.shape[dim], dim))])
                    self.carried[key] = [e.dims for e in (extent if isinstance(extent, list) else [extent])]
                except (NoIntervalError, RuleError):
                    self.carried[key] = []
            of_results = self.carried[key]
            found.update(of_results[slot if len(of_results) > 1 else 0] if of_results else ())
        return found


def _wide(shape: Shape) -> set[int]:
    return {d for d, n in enumerate(shape) if n > 1}
