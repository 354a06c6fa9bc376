"""What a unit sees along single paths to it: the one that sees least, and the one that sees most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resattn.graph.graph import INPUT, Graph, Op, Operand
from resattn.measures.receptive import NoReceptiveFieldError, ReceptiveField, extents, spread
from resattn.rules.intervals import NOTHING, Extent

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
    spans = spread(op, [(operand, own)])
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
