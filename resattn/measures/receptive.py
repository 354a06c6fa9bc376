"""The exact receptive field of a unit: through padding, ceil mode, up-sampling and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from resattn.graph.graph import INPUT, Graph, Op, Operand, Shape
from resattn.rules.intervals import Extent, NoIntervalError
from resattn.rules.rule import spread_of


class NoReceptiveFieldError(ValueError):
    """The receptive field cannot be given exactly; the message names the operator and the reason."""


def extents(graph: Graph, axis: int, targets: Collection[int], source: int = 0) -> dict[int, Extent]:
    """For each target operator, the input interval along one image axis (0: height) that each position sees.

    Raises: NoReceptiveFieldError where an operator on the way has no rule or keeps no interval.
    """
    wanted: set[int] = set(targets)
    for op in reversed(graph.ops):
        if op.index in wanted:
            wanted.update(op.inputs)
    unread = Counter(i for op in graph.ops if op.index in wanted for i in op.inputs)
    live: dict[int, Extent | list[Extent]] = {}
    found: dict[int, Extent] = {}
    for op in graph.ops:
        if op.index not in wanted:
            continue
        extent = _extent(op, axis, source, live)
        for i in op.inputs:
            unread[i] -= 1
            if not unread[i]:
                live.pop(i, None)
        if extent is not None:
            live[op.index] = extent
            if op.index in targets:
                found[op.index] = extent[0] if isinstance(extent, list) else extent
    return found


def _extent(op: Op, axis: int, source: int, live: Mapping[int, Extent | list[Extent]]) -> Extent | list[Extent] | None:
    if op.name == INPUT:
        has_axis = op.index == source and len(op.shape) > 2 + axis
        return Extent.of_input(op.shape[2 + axis], 2 + axis).without_single() if has_axis else None
    reads = [
        (o, _result(live[o.producer], o.slot)) for o in op.operands() if o.producer is not None and o.producer in live
    ]
    return spread(op, reads) if reads else None


def spread(op: Op, reads: Sequence[tuple[Operand, Extent]]) -> Extent | list[Extent]:
    """What each position of an operator's result sees, or of each of several results.

    Raises: NoReceptiveFieldError; RuleError if the row's function fails.
    """
    where = f"{op.name} in {op.module or 'the model'}"
    if op.rule is None or op.rule.spread is None:
        raise NoReceptiveFieldError(f"no rule {'' if op.rule is None else 'of its positions '}for {where}")
    try:
        extent = spread_of(op, reads)
    except NoIntervalError as error:
        raise NoReceptiveFieldError(f"{where}: {error}") from None
    if isinstance(extent, list):
        return [_checked(e, shape, where) for e, shape in zip(extent, op.shapes, strict=True)]
    return _checked(extent, op.shape, where)


def _result(extent: Extent | list[Extent], slot: int) -> Extent:
    return extent[slot] if isinstance(extent, list) else extent


def _checked(extent: Extent, shape: Shape, where: str) -> Extent:
    sizes = tuple(shape[d] for d in extent.dims if d < len(shape))
    if extent.lo.shape != sizes:
        raise NoReceptiveFieldError(f"{where}: intervals for {extent.lo.shape} positions, {sizes} exist")
    return extent.without_single()


@dataclass(frozen=True)
class ReceptiveField:
    """Sides of the input that a unit sees, in pixels: the largest over positions where no window meets a border.

    `is_whole`: one of them is the input's, however large that is.
    """

    height_px: int
    width_px: int
    is_whole: bool = False

    @property
    def sides(self) -> tuple[int, int]:
        return self.height_px, self.width_px


def receptive_field(graph: Graph, target: int) -> ReceptiveField | None:
    """The receptive field of an operator's units; None where every position is clipped (a larger input is needed).

    Source: araujo2019 for the definition; the intervals replace its formula, which knows no up-sampling.
    Raises: NoReceptiveFieldError.
    """
    sides = []
    image = len(graph.input_shapes[0]) - 4  # the first axis of the image: in a video, time comes before it
    for axis in (image, image + 1):
        extent = extents(graph, axis, [target]).get(target)
        if extent is None:
            raise NoReceptiveFieldError("the input is no image, or the operator does not depend on it")
        if extent.is_bound:
            raise NoReceptiveFieldError(f"{graph.ops[target].module}: positions that mix the axis with itself")
        free = extent.sides[~extent.clipped]
        if free.size == 0:
            return None
        sides.append(int(free.max()))
    return ReceptiveField(sides[0], sides[1])


def feature_map(graph: Graph) -> int | None:
    """The last operator before global pooling: the last one an output needs whose result still has positions.

    An adaptive pooling to several positions, with which VGG ends, is a global pooling too: its windows are parts of
    the map, however large that is.
    """
    needed = {i for output in graph.outputs for i in graph.ancestors(output)}
    for op in reversed(graph.ops):
        is_map = op.name != INPUT and "adaptive" not in op.name and op.kind != "view"
        if op.index in needed and is_map and _has_positions(graph, op):
            return op.index
    return None


def _has_positions(graph: Graph, op: Op) -> bool:
    n = len(graph.input_shapes[0])
    return n >= 3 and len(op.shape) == n and int(np.prod(op.shape[2:])) > 1


def grows_with_input(small: Graph, large: Graph, target: int) -> bool:
    """Whether every map on the way to the target is larger on a larger input, so that a window stays a window.

    A pooling or resizing to a fixed size is not: its windows are parts of the map.
    """
    for i in small.ancestors(target):
        before, after = small.ops[i].shape, large.ops[i].shape
        is_fixed = small.ops[i].kind in ("pool", "resize") and before == after
        if is_fixed and int(np.prod(before[2:])) > 1:
            return False
    return True


def estimated_side(graph: Graph, target: int) -> int:
    """A rough upper bound of the receptive field: enough to choose an input on which nothing is clipped.

    Source: araujo2019, equation 2, with the jump of each map read off the sizes of the tensors.
    """
    sizes = {op.index: (op.shape[-1] if len(op.shape) >= 3 else 1) for op in graph.ops}
    side: dict[int, float] = {}
    for index in graph.ancestors(target):
        op = graph.ops[index]
        before = max((side[i] for i in op.inputs if i in side), default=1.0)
        jump = max((sizes[0] / max(sizes[i], 1) for i in op.inputs), default=1.0)
        weight = op.arguments.get("weight")
        kernel = op.arguments.get("kernel_size") or (weight.shape[2:] if weight is not None else ())
        dilation = op.arguments.get("dilation") or (1,)
        reach = max(kernel, default=1) - 1 if isinstance(kernel, tuple) else 0
        dilated = reach * (max(dilation) if isinstance(dilation, tuple) else 1)
        side[index] = before + (dilated + (op.kind == "resize")) * jump
    return int(side[target])
