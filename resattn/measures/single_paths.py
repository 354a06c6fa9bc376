"""The receptive field along single paths to a unit: the narrowest and the widest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from resattn.graph.graph import INPUT, Graph, Op, Operand
from resattn.measures.receptive import NoReceptiveFieldError, ReceptiveField, Sight, spread
from resattn.rules.intervals import MOST_POSITIONS, NOTHING, Extent

MOST_COMPARED = 2**16  # positions of a line that is compared with others
MOST_INTERVALS = 64  # kept at an operator, none of which contains another
MOST_KEPT, MOST_KEPT_OF_ONE = 2**24, 2**17  # bytes of the cached steps and lines, and of one step
MOST_STEPS = 50_000  # from an interval to the one before it: some seconds; recurrent layers over an image take more

Interval = tuple[np.ndarray, np.ndarray]  # first and last position, for each of the units
Result = tuple[int, int]  # an operator and which of its results


@dataclass(frozen=True)
class PathFields:
    """Sides in pixels of what a unit sees along its narrowest and along its widest single path.

    Both are computed for each unit that no border clips; the result is the largest over the units, as for the field
    over all paths.
    """

    narrowest: ReceptiveField
    widest: ReceptiveField


def path_fields(sight: Sight | Graph, target: int) -> PathFields | None:
    """The narrowest and the widest receptive field over single paths to an operator's units; None if all are clipped.

    Paths are paths of operators, as `paths` counts them, whether or not all channels meet. The result is exact: from a
    unit back to the input, an interval that contains another sees more along any further path, so that at each operator
    only the minimal (for the widest: the maximal) intervals are kept.
    Raises: NoReceptiveFieldError.
    """
    sight = Sight(sight) if isinstance(sight, Graph) else sight
    found: tuple[list[int], list[int]] = [], []
    for axis in sight.axes_to(target):
        union = sight.extent(axis, target)
        lines, edges = _lines(sight, axis, target)
        units = lines[target, 0].labels_of(union)
        if units.size == 0:
            return None
        for sides, is_widest in zip(found, (False, True), strict=True):
            intervals = _back(sight.ancestors(target), target, edges, units, is_widest)
            each = np.stack([hi - lo + 1 for lo, hi in intervals])
            each = each[:, (each > 0).any(0)]
            best = each.max(0) if is_widest else np.where(each > 0, each, NOTHING).min(0)
            sides.append(int(best.max()))
    return PathFields(*(ReceptiveField(sight.sides(sides)) for sides in found))


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the positions of a tensor lie along the image's axis: each has the number of a place on a line of `n`.

    `numbers`: an axis for each dimension of `dims`, along which positions differ. Positions that lie in the same place
    see the same; a view of a tensor, however it is cut into windows or patches, has the line of that tensor.
    """

    dims: tuple[int, ...]
    numbers: np.ndarray
    n: int

    @property
    def extent(self) -> Extent:
        return Extent(self.dims, self.numbers, self.numbers, np.zeros(self.numbers.shape, dtype=bool))

    def labels_of(self, union: Extent) -> np.ndarray:
        """The places of the positions that no border clips; where there are none, of those that it clips in part."""
        axes = tuple(k for k, d in enumerate(union.dims) if d not in self.dims)
        shape = [union.size(d) if d in union.dims else 1 for d in self.dims]
        for is_clipped in (np.any, np.all):
            free = ~is_clipped(union.clipped, axis=axes).reshape(shape)
            free = np.broadcast_to(free, self.numbers.shape)
            if free.any():
                break
        return np.unique(self.numbers[free])


@dataclass(frozen=True, eq=False)
class _Spans:
    """What each place of a line reads of another line: first and last place there; first > last where it is nothing."""

    first: np.ndarray
    last: np.ndarray

    @cached_property
    def is_rising(self) -> bool:
        """Of the places that read anything: padding reads nothing."""
        ends = (end[~self.is_empty] if self.has_empty else end for end in (self.first, self.last))
        return all(bool((np.diff(end) >= 0).all()) for end in ends)

    @cached_property
    def is_empty(self) -> np.ndarray:
        return self.first > self.last

    @cached_property
    def has_empty(self) -> bool:
        return bool(self.is_empty.any())

    @cached_property
    def is_itself(self) -> bool:
        return np.array_equal(self.first, self.last) and np.array_equal(self.first, np.arange(self.first.size))

    @cached_property
    def _tables(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The least first and the greatest last over stretches of 1, 2, 4 ... places."""
        firsts, lasts, step = [self.first], [self.last], 1
        while 2 * step <= self.first.size:
            firsts.append(np.minimum(firsts[-1][:-step], firsts[-1][step:]))
            lasts.append(np.maximum(lasts[-1][:-step], lasts[-1][step:]))
            step *= 2
        return firsts, lasts

    @cached_property
    def _reading(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place the next one and the one before that reads anything; an end where there is none."""
        at, reads = np.arange(self.first.size), ~self.is_empty
        after = np.minimum.accumulate(np.where(reads, at, at.size - 1)[::-1])[::-1]
        return after, np.maximum.accumulate(np.where(reads, at, 0))

    def back(self, interval: Interval) -> Interval:
        """What stretches of places read. Raises: NoReceptiveFieldError where the ends of a stretch do not tell."""
        lo, hi = interval
        if self.is_itself:
            return interval
        most = self.first.size - 1
        start, stop = np.minimum(lo, most), np.clip(hi, 0, most)
        if self.is_rising and self.has_empty:
            after, before = self._reading[0][start], self._reading[1][stop]
            is_nothing = after > before
            first = np.where(is_nothing, NOTHING, self.first[after])
            last = np.where(is_nothing, -NOTHING, self.last[before])
        elif self.is_rising:
            first, last = self.first[start], self.last[stop]
        else:
            first, last = self._over(start, np.maximum(start, stop))
        is_empty = lo > hi
        return (np.where(is_empty, lo, first), np.where(is_empty, hi, last)) if is_empty.any() else (first, last)

    def _over(self, start: np.ndarray, stop: np.ndarray) -> Interval:
        (firsts, lasts), (after, before) = self._tables, self._reading
        level = np.frexp(stop - start + 1)[1] - 1
        first, last = np.empty_like(start), np.empty_like(start)
        for k in np.unique(level):
            at = level == k
            i, j = start[at], stop[at] - (1 << int(k)) + 1
            first[at] = np.minimum(firsts[k][i], firsts[k][j])
            last[at] = np.maximum(lasts[k][i], lasts[k][j])
        # Of what lies within a stretch some may not be read, but its ends are.
        ends = np.minimum(after[start], stop), np.maximum(before[stop], start)
        is_told = np.minimum(*(self.first[e] for e in ends)) == first
        is_told &= np.maximum(*(self.last[e] for e in ends)) == last
        if not is_told.all():
            raise NoReceptiveFieldError("positions out of order")
        return first, last


@dataclass(frozen=True, eq=False)
class _Alive:
    """Of the places of a line, those to which a path from the image leads."""

    places: np.ndarray

    @cached_property
    def before(self) -> np.ndarray:
        """How many come before each place."""
        return np.concatenate([[0], np.cumsum(self.places)])

    def has_any(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        n, before = self.places.size, self.before
        return before[np.clip(last + 1, 0, n)] > before[np.clip(first, 0, n)]


@dataclass(frozen=True, slots=True)
class _Edge:
    """What the places of a result read of one operand's."""

    producer: Result
    spans: _Spans | None  # None: the same place
    alive: _Alive | None = None  # of the producer's places

    def back(self, interval: Interval) -> Interval:
        lo, hi = read = interval if self.spans is None else self.spans.back(interval)
        if self.alive is None:
            return read
        # What no path leads to is nothing, and nothing is not less than a part of the image.
        is_seen = (lo <= hi) & self.alive.has_any(lo, hi)
        return read if is_seen.all() else (np.where(is_seen, lo, NOTHING), np.where(is_seen, hi, -NOTHING))


def _alive(reads: Sequence[tuple[_Spans | None, _Alive | None]], n: int) -> _Alive | None:
    """Of the `n` places of a result, those to which a path from the image leads: a learned token is none. None: all.

    `reads`: what they read of each operand, and which places of that are alive.
    """
    (spans, alive), *others = reads
    if spans is None and alive is not None and not others and alive.places.size == n:
        return alive
    found = None
    for spans, alive in reads:
        if alive is None and (spans is None or not spans.has_empty):
            return None
        if spans is None:
            assert alive is not None
            each = alive.places[:n]  # the operand may have more places
        else:
            each = ~spans.is_empty if alive is None else ~spans.is_empty & alive.has_any(spans.first, spans.last)
        found = each if found is None else found | each
    return None if found is None or found.all() else _Alive(found)


Edges = dict[int, dict[int, list[_Edge]]]  # for each operator and each of its results, what it reads of the operands


# For each of an operator's results its line, and what its places read of some of the operands, by their numbers.
Step = dict[int, tuple[_Line, list[tuple[int, _Spans | None]]]]


class _Kept:
    """A cache of lines and steps, for layers and audits that repeat each other."""

    def __init__(self) -> None:
        self.lines: dict[Any, _Line] = {}
        self.equal: dict[Any, _Line] = {}
        # With the objects whose ids are in the key: while they live, no other object gets their ids.
        self.steps: dict[Any, tuple[Step, Any]] = {}
        self.nbytes = 0

    def keep(self, key: Any, found: Step, op: Op, live: Sequence[tuple[Operand, _Line]]) -> bool:
        """Whether a step is cached: not if its arrays, or those that it reads, are large."""
        arrays = [line.numbers for _, line in live]
        for line, reads in found.values():
            arrays += line.numbers, *(end for _, spans in reads if spans for end in (spans.first, spans.last))
        n = sum([array.size * array.itemsize for array in arrays])
        if n > MOST_KEPT_OF_ONE:
            return False
        self.steps[key] = found, (op.rule, live)
        self.nbytes += n
        return True


_kept = _Kept()


class _Known:
    """A cache for the paths to one target, in front of `_kept`; it also holds large steps."""

    def __init__(self) -> None:
        if _kept.nbytes > MOST_KEPT:
            vars(_kept).update(vars(_Kept()))
        self.lines, self.equal = _kept.lines, _kept.equal
        self.spans: dict[Any, list[Extent]] = {}
        self.joints: dict[Any, tuple[_Line, list[_Spans | None]]] = {}
        self.steps: dict[Any, Step] = {}

    def along(self, dim: int | None, n: int) -> _Line:
        if (dim, n) not in self.lines:
            self.lines[dim, n] = _Line((), np.array(0), 1) if dim is None else _Line((dim,), np.arange(n), n)
        return self.lines[dim, n]

    def read(self, op: Op, operand: Operand, line: _Line, is_kept: bool) -> list[Extent]:
        """What each result of an operator reads of one operand alone; itself, place by place, where that is known."""
        key = ("kept", id(line)) if is_kept else (op.alike(operand), id(line))
        if key not in self.spans:
            spans = line.extent if is_kept else spread(op, [(operand, line.extent)])
            self.spans[key] = spans if isinstance(spans, list) else [spans]
            if any(e.is_bound for e in self.spans[key]):
                raise NoReceptiveFieldError(f"{op.place}: positions in more than one place")
        return self.spans[key]

    def joint(self, reads: Sequence[tuple[_Line, Extent]]) -> tuple[_Line, list[_Spans | None]]:
        """The line of a result, and what its places read of each operand's line."""
        read, extent = reads[0]
        is_itself = extent.lo is read.numbers and extent.hi is read.numbers and extent.dims == read.dims
        if is_itself and len(reads) == len(read.dims) == 1:
            return read, [None]
        key = tuple((id(line), id(spans)) for line, spans in reads)
        if key not in self.joints:
            line, spans = _joint(reads, self)
            self.joints[key] = self._one_of(line), spans
        return self.joints[key]

    def step(self, op: Op, live: Sequence[tuple[Operand, _Line]]) -> Step:
        """For each of an operator's results its line, and what its places read of which of the operands."""
        key = op.alike_all([(operand, id(line)) for operand, line in live])
        if key is None:
            return self._step(op, live)
        if (kept := _kept.steps.get(key)) is not None:
            return kept[0]
        if (found := self.steps.get(key)) is None:
            found = self._step(op, live)
            if not _kept.keep(key, found, op, live):
                self.steps[key] = found
        return found

    def _step(self, op: Op, live: Sequence[tuple[Operand, _Line]]) -> Step:
        joined = op.arguments.get("dim") if op.kind == "join" else None
        # Joined channels stay where they are; that some of them do not meet does not matter.
        is_kept = isinstance(joined, int) and "cat" in op.name
        is_kept &= not any(int(joined or 0) % len(op.shape) in line.dims for _, line in live)
        parts: dict[int, list[tuple[int, Extent]]] = {}
        for k, (operand, line) in enumerate(live):
            for slot, spans in enumerate(self.read(op, operand, line, is_kept)):
                parts.setdefault(slot, []).append((k, spans))
        found: Step = {}
        for slot, reads in parts.items():
            try:
                line, read = self.joint([(live[k][1], spans) for k, spans in reads])
            except NoReceptiveFieldError as error:
                raise NoReceptiveFieldError(f"{op.place}: {error}") from None
            found[slot] = line, [(k, spans) for (k, _), spans in zip(reads, read, strict=True)]
        return found

    def _one_of(self, line: _Line) -> _Line:
        """The first line that was equal to this one: what was computed of it holds."""
        if line.numbers.size > MOST_COMPARED:
            return line
        numbers = np.ascontiguousarray(line.numbers)
        found = self.equal.setdefault((line.dims, line.n, numbers.shape, numbers.tobytes()), line)
        if found is line:
            _kept.nbytes += 2 * numbers.nbytes
        return found


def _lines(sight: Sight, axis: int, target: int) -> tuple[dict[Result, _Line], Edges]:
    """The line of each result that the target needs, and what its places read of those of the operands.

    Raises: NoReceptiveFieldError.
    """
    known = _Known()
    lines: dict[Result, _Line] = {}
    alive: dict[Result, _Alive | None] = {}
    edges: Edges = {}
    for index in sight.ancestors(target):
        op = sight.graph.ops[index]
        if op.name == INPUT:
            if index == 0:
                n = op.shape[2 + axis]
                lines[index, 0], alive[index, 0] = known.along(2 + axis if n > 1 else None, n), None
            continue
        # Results that see the same, as maxima and their places do, have one line.
        given = [(o, (o.producer, o.slot)) for o in op.operands if o.producer is not None]
        live = [(o, result if result in lines else (result[0], 0)) for o, result in given]
        live = [(o, result) for o, result in live if result in lines]
        edges[index] = {}
        for slot, (line, reads) in known.step(op, [(o, lines[result]) for o, result in live]).items():
            pairs = [(live[k][1], spans) for k, spans in reads]
            lines[index, slot] = line
            edges[index][slot] = [_Edge(result, spans, alive[result]) for result, spans in pairs]
            alive[index, slot] = _alive([(spans, alive[result]) for result, spans in pairs], line.n)
    return lines, edges


def _joint(reads: Sequence[tuple[_Line, Extent]], known: _Known) -> tuple[_Line, list[_Spans | None]]:
    extents = [_without_parts(spans, bool(line.dims)) for line, spans in reads]
    dims = tuple(sorted({d for e in extents for d in e.dims}))
    shape = tuple(max(e.size(d) for e in extents if d in e.dims) for d in dims)
    if prod(shape) > MOST_POSITIONS:
        raise NoReceptiveFieldError(f"{prod(shape)} different positions")
    laid = [e.laid_over(dims) for e in extents]
    if len(dims) < 2:
        ends = [tuple(np.broadcast_to(end, shape) for end in (e.lo, e.hi)) for e in laid]
        every = [_Spans(first.reshape(-1), last.reshape(-1)) for first, last in ends]
        if all(spans.is_rising for spans in every) and _differ(every):
            return known.along(dims[0] if dims else None, prod(shape)), [None if s.is_itself else s for s in every]
    if len(laid) == 1 and (laid[0].lo is laid[0].hi or np.array_equal(laid[0].lo, laid[0].hi)):
        return _Line(dims, laid[0].lo, reads[0][0].n), [None]
    at, numbers = _told_apart(laid, shape)
    if len(dims) == 1 and 2 * at.size > numbers.size:
        return known.along(dims[0], numbers.size), list(every)
    places = np.unravel_index(at, shape)
    ends = [tuple(np.broadcast_to(end, shape)[places] for end in (e.lo, e.hi)) for e in laid]
    return _Line(dims, numbers, at.size), [_Spans(first, last) for first, last in ends]


def _differ(every: Sequence[_Spans]) -> bool:
    """Whether most neighbours read different places."""
    steps = np.logical_or.reduce([(np.diff(s.first) != 0) | (np.diff(s.last) != 0) for s in every])
    return 2 * int(steps.sum()) >= steps.size


def _told_apart(laid: Sequence[Extent], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions that read the same of every operand have one place. For each place the first position in it; for each
    position its place, in the order of what is read first.

    `laid`: what they read, with an axis for each dimension. Operands that have no dimension in common (attention's
    scores) are told apart each along its own.
    """
    at, numbers = np.zeros(1, dtype=np.int64), np.zeros((1,) * len(shape), dtype=np.int64)
    steps = np.array([prod(shape[k + 1 :]) for k in range(len(shape))], dtype=np.int64)
    for spans in laid:
        first, last = spans.lo, spans.hi
        most = int(max(last.max(), 0)) + 2
        # What reads nothing comes first where it is padding in front, else last: places stay in order.
        is_nothing = first > last
        of_nothing = 0 if is_nothing.flat[0] else most * most
        found, ranks = _ranked(np.where(is_nothing, of_nothing, first * most + last + 1))
        together = numbers * found.size + ranks
        if all(1 in sizes for sizes in zip(numbers.shape, ranks.shape, strict=True)):
            where = np.stack(np.unravel_index(found, ranks.shape), axis=-1)
            at, numbers = np.add.outer(at, where @ steps).reshape(-1), together
        else:
            places, numbers = _ranked(together)
            at = np.stack(np.unravel_index(places, together.shape), axis=-1) @ steps
    return at, np.broadcast_to(numbers, shape)


def _ranked(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first place of each value, in the order of the values, and the rank of each place: `np.unique`, without a
    sort where few values are possible."""
    n, flat = int(codes.max()) + 1, codes.reshape(-1)
    steps = np.diff(flat)
    if (steps >= 0).all():
        is_new = np.concatenate([[True], steps > 0])
        return np.flatnonzero(is_new), (np.cumsum(is_new) - 1).reshape(codes.shape)
    if n > flat.size:
        _, at, ranks = np.unique(flat, return_index=True, return_inverse=True)
        return at, ranks.reshape(codes.shape)
    first = np.full(n, -1)
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    is_met = first >= 0
    return first[is_met], (np.cumsum(is_met) - 1)[codes]


def _without_parts(spans: Extent, has_line: bool) -> Extent:
    """Without the dimensions along which a position sees either the same or nothing, as channels joined to others."""
    for dim in spans.dims:
        # A last dimension is that of the image, unless the operand had a single position there.
        if len(spans.dims) == 1 and (has_line or dim != 1):
            break
        axis = spans.dims.index(dim)
        ends = [(slice(None),) * axis + (k,) for k in (0, -1)]
        if (
            all((spans.lo[end] <= spans.hi[end]).all() for end in ends)
            and (spans.lo[ends[0]] != spans.lo[ends[1]]).any()
        ):
            continue  # most often they differ
        is_empty = spans.lo > spans.hi
        together = spans.over([dim], is_local=True)
        if all(
            (is_empty | (each == np.expand_dims(of_all, axis))).all()
            for each, of_all in ((spans.lo, together.lo), (spans.hi, together.hi))
        ):
            spans = together
    return spans


def _back(
    ancestors: Sequence[int],
    target: int,
    edges: Mapping[int, Mapping[int, Sequence[_Edge]]],
    units: np.ndarray,
    is_widest: bool,
) -> list[Interval]:
    """What the units of the target see of the image along single paths: the intervals that are not dominated."""
    seen: dict[tuple[int, int], list[Interval]] = {(target, 0): [(units, units)]}
    steps = 0
    for index in reversed(ancestors):
        for slot, into in edges.get(index, {}).items():
            for interval in seen.pop((index, slot), []):
                steps += len(into)
                if steps > MOST_STEPS:
                    raise NoReceptiveFieldError(f"more than {MOST_STEPS} steps back to the input")
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
