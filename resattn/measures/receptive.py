"""The stretch of the input that a unit sees, exactly: through padding, ceil mode, up-sampling and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resattn.graph.graph import INPUT, Graph, Op, Operand, Shape
from resattn.rules.intervals import NOTHING, Extent, NoIntervalError
from resattn.rules.table import rule_for


class NoReceptiveFieldError(ValueError):
    """No exact receptive field can be given; the message says at which operator and why."""


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
    return _spread(op, reads) if reads else None


def _spread(op: Op, reads: Sequence[tuple[Operand, Extent]]) -> Extent | list[Extent]:
    rule = rule_for(op)
    where = f"{op.name} in {op.module or 'the model'}"
    if rule is None:
        raise NoReceptiveFieldError(f"no rule for {where}")
    try:
        extent = rule.spread(op, reads)
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
    image = len(graph.input_shapes[0]) - 4  # the first axis of the image: time stands ahead of it in a video
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
        rule = rule_for(op)
        is_map = op.name != INPUT and "adaptive" not in op.name and (rule is None or rule.kind != "view")
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
        rule = rule_for(small.ops[i])
        before, after = small.ops[i].shape, large.ops[i].shape
        is_fixed = rule is not None and rule.kind in ("pool", "resize") and before == after
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
        rule = rule_for(op)
        side[index] = before + (dilated + (rule is not None and rule.kind == "resize")) * jump
    return int(side[target])


# -- over the paths

MOST_INTERVALS = 64  # kept at an operator, none of which contains another

Interval = tuple[np.ndarray, np.ndarray]  # first and last position, for each of the units


@dataclass(frozen=True)
class PathFields:
    """Sides in pixels of what a unit sees along the one path that sees least, and the one that sees most.

    Both are taken for each unit that no border clips, and then the largest over the units, as the field over all
    paths is.
    """

    narrowest: ReceptiveField
    widest: ReceptiveField


def path_fields(graph: Graph, target: int) -> PathFields | None:
    """The narrowest and the widest receptive field over single paths to an operator's units; None if all are clipped.

    The paths are those that `paths` counts, of operators: that some of their channels may not meet does not matter.
    Exact: from a unit back to the input, an interval that contains another sees more along any path on from there,
    so that of all intervals at an operator only those are kept that contain (for the widest: are in) no other.
    Raises: NoReceptiveFieldError.
    """
    sides: list[tuple[int, int]] = []
    image = len(graph.input_shapes[0]) - 4
    for axis in (image, image + 1):
        union = extents(graph, axis, [target]).get(target)
        if union is None:
            raise NoReceptiveFieldError("the input is no image, or the operator does not depend on it")
        union = union.over([1], is_local=True)
        if len(union.dims) > 1:
            raise NoReceptiveFieldError(f"{graph.ops[target].module}: positions along more than one dimension")
        free = np.flatnonzero(~union.clipped)
        if free.size == 0:
            return None
        edges = _edges(graph, axis, target)
        found = []
        for is_widest in (False, True):
            intervals = _back(graph, target, edges, free, is_widest)
            each = np.stack([hi - lo + 1 for lo, hi in intervals])
            best = each.max(0) if is_widest else np.where(each > 0, each, NOTHING).min(0)
            found.append(int(best.max()))
        sides.append((found[0], found[1]))
    (low_h, high_h), (low_w, high_w) = sides
    return PathFields(ReceptiveField(low_h, low_w), ReceptiveField(high_h, high_w))


@dataclass(frozen=True, slots=True)
class _Edge:
    """What each position of an operator's result reads of one operand; `spans` is None where it is that position."""

    producer: tuple[int, int]
    spans: Extent | None
    is_rising: bool = True

    def back(self, interval: Interval) -> Interval:
        if self.spans is None:
            return interval
        lo, hi = interval
        first, last = self.spans.lo, self.spans.hi
        if not first.ndim:
            first, last = np.full_like(lo, first), np.full_like(hi, last)
        elif self.is_rising:
            first, last = first[np.minimum(lo, len(first) - 1)], last[np.maximum(hi, 0)]
        else:
            pairs = [(i, max(k, i) + 1) for i, k in zip(np.minimum(lo, len(first) - 1), hi, strict=True)]
            if not all(_is_ordered(first[i:k], last[i:k]) for i, k in pairs):
                # Of what lies within an interval some may not be read: no matter, as long as the ends are at the ends.
                raise NoReceptiveFieldError("positions out of order")
            first = np.array([first[i:k].min() for i, k in pairs])
            last = np.array([last[i:k].max() for i, k in pairs])
        is_empty = lo > hi
        return (np.where(is_empty, lo, first), np.where(is_empty, hi, last)) if is_empty.any() else (first, last)


def _is_ordered(first: np.ndarray, last: np.ndarray) -> bool:
    """Whether positions that see later ones follow each other, or the reverse; those that see nothing aside."""
    steps = [np.diff(ends[first <= last]) for ends in (first, last)]
    return all((s >= 0).all() for s in steps) or all((s <= 0).all() for s in steps)


def _edges(graph: Graph, axis: int, target: int) -> dict[int, dict[int, list[_Edge]]]:
    """For each operator that the target needs and each of its results, what it reads of the operands.

    Raises: NoReceptiveFieldError where a tensor on the way keeps the axis along more than one dimension.
    """
    dims: dict[tuple[int, int], int | None] = {}  # the dimension along which the image's axis lies, if any
    edges: dict[int, dict[int, list[_Edge]]] = {}
    known: dict[Any, _Edge] = {}
    for index in graph.ancestors(target):
        op = graph.ops[index]
        if op.name == INPUT:
            if index == 0 and op.shape[2 + axis] > 1:
                dims[index, 0] = 2 + axis
            continue
        edges[index] = {}
        for operand in op.operands():
            if operand.producer is None or (operand.producer, operand.slot) not in dims:
                continue
            producer = (operand.producer, operand.slot)
            for slot, spans in enumerate(_spans(op, operand, dims[producer])):
                where = f"{op.name} in {op.module or 'the model'}"
                if len(spans.dims) > 1 or spans.is_bound:
                    raise NoReceptiveFieldError(f"{where}: positions along more than one dimension")
                dim = spans.dims[0] if spans.dims else None
                if dims.get((index, slot)) is None:
                    dims[index, slot] = dim
                elif dim not in (None, dims[index, slot]):
                    raise NoReceptiveFieldError(f"{where}: positions that change their dimension")
                edges[index].setdefault(slot, []).append(_edge(producer, spans, known))
    return edges


def _spans(op: Op, operand: Operand, dim: int | None) -> list[Extent]:
    """What each result of an operator sees of one operand alone, whose positions are counted along one dimension."""
    own = Extent.of_input(operand.shape[dim], dim) if dim is not None else Extent.of_one()
    spans = _spread(op, [(operand, own)])
    return [_on_one_line(e, dim) for e in (spans if isinstance(spans, list) else [spans])]


def _on_one_line(spans: Extent, kept: int | None) -> Extent:
    """Without the dimensions along which a position sees either the same or nothing, as channels joined to others."""
    for dim in spans.dims:
        # A last dimension is that of the image, unless the operand had a single position there.
        if len(spans.dims) == 1 and (kept is not None or dim != 1):
            break
        axis = spans.dims.index(dim)
        is_empty = spans.lo > spans.hi
        together = spans.over([dim], is_local=True)
        if all(
            (is_empty | (each == np.expand_dims(of_all, axis))).all()
            for each, of_all in ((spans.lo, together.lo), (spans.hi, together.hi))
        ):
            spans = together
    return spans


def _edge(producer: tuple[int, int], spans: Extent, known: dict[Any, _Edge]) -> _Edge:
    """The same arrays for edges that read alike: hundreds of layers have the same kernel."""
    if spans.dims and np.array_equal(spans.lo, spans.hi) and np.array_equal(spans.lo, np.arange(len(spans))):
        return _Edge(producer, None)
    key = (spans.dims, spans.lo.tobytes(), spans.hi.tobytes())
    if key not in known:
        is_rising = not spans.dims or bool((np.diff(spans.lo) >= 0).all() and (np.diff(spans.hi) >= 0).all())
        known[key] = _Edge(producer, spans, is_rising)
    return replace(known[key], producer=producer)


def _back(
    graph: Graph, target: int, edges: Mapping[int, Mapping[int, Sequence[_Edge]]], units: np.ndarray, is_widest: bool
) -> list[Interval]:
    """What the units of the target see of the image along single paths: the intervals that are not dominated."""
    seen: dict[tuple[int, int], list[Interval]] = {(target, 0): [(units, units)]}
    for index in reversed(graph.ancestors(target)):
        for slot, into in edges.get(index, {}).items():
            for interval in seen.pop((index, slot), []):
                for edge in into:
                    _keep(seen.setdefault(edge.producer, []), edge.back(interval), is_widest)
    return seen[0, 0]


def _keep(kept: list[Interval], new: Interval, is_widest: bool) -> None:
    """Put an interval among those that do not dominate each other, unit by unit where one is enough for each.

    An empty one is that of a unit which this path does not reach: any other is better.
    """
    for k, old in enumerate(kept):
        if old[0] is new[0] and old[1] is new[1]:
            return
        inside = (new[0] >= old[0]) & (new[1] <= old[1])
        around = (new[0] <= old[0]) & (new[1] >= old[1])
        is_old = inside if is_widest else (around & (old[0] <= old[1])) | (new[0] > new[1])
        if is_old.all():
            return
        if (inside | around).all():
            kept[k] = np.where(is_old, old[0], new[0]), np.where(is_old, old[1], new[1])
            return
    if len(kept) == MOST_INTERVALS:
        raise NoReceptiveFieldError(f"more than {MOST_INTERVALS} kinds of path")
    kept.append(new)
