"""Backward intervals along one image axis: the range of the input that each position of a tensor can see.

Every function computes the extent of an operator's result from the extents of its operands. Intervals are exact: they
run from the first to the last input index with a non-zero weight on some path, provided that the kernel has no zeros (a
mask on a kernel depends on values) and branches do not cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from resattn.graph.graph import Shape

NOTHING = np.int64(2**40)  # the lower end of an empty interval; its upper end is -NOTHING

# Arrays beyond this many positions are not made: a hull is widened instead, anything else is refused.
MOST_POSITIONS = 4_000_000
MOST_WRITTEN = 2**14  # positions; up to here results are computed without a check whether all are equal


class NoIntervalError(ValueError):
    """The operator mixes positions in a way that has no interval along one axis; the message says how."""


@dataclass(frozen=True, slots=True)
class Extent:
    """For each position of a tensor the interval [lo, hi] that it sees, along one axis of the input.

    `dims`: the dimensions along which the intervals differ, in order; `lo`, `hi` and `clipped` have one axis for each.
    Along all other dimensions every position sees the same. `clipped`: the positions whose windows reach over a border.
    `is_bound`: the intervals contain what is seen, and may be larger.
    """

    dims: tuple[int, ...]
    lo: np.ndarray
    hi: np.ndarray
    clipped: np.ndarray
    is_bound: bool = False

    @classmethod
    def of_input(cls, size: int, dim: int) -> Extent:
        at = np.arange(size, dtype=np.int64)
        return cls((dim,), at, at, np.zeros(size, dtype=bool))

    @classmethod
    def nothing(cls) -> Extent:
        """The extent of a constant: empty intervals."""
        return cls((), np.array(NOTHING), np.array(-NOTHING), np.array(False))

    def changed(self, **new: Any) -> Extent:
        """A copy with new values of some fields; a `Joined` becomes a plain `Extent`."""
        kept = {name: getattr(self, name) for name in FIELDS if name not in new}
        return Extent(**kept, **new)

    @property
    def shape(self) -> Shape:
        return self.lo.shape

    @property
    def sides(self) -> np.ndarray:
        return np.maximum(self.hi - self.lo + 1, 0)

    def __len__(self) -> int:
        return self.lo.size

    @property
    def nbytes(self) -> int:
        """Of its arrays as they lie in memory."""
        return sum([_once(array).nbytes for array in (self.lo, self.hi, self.clipped)])

    def size(self, dim: int) -> int:
        return self.shape[self.dims.index(dim)]

    def take(self, dim: int, index: Any) -> Extent:
        """The extent of a slice or of an index array along one of `dims`."""
        key = (slice(None),) * self.dims.index(dim) + (index,)
        return self.changed(lo=self.lo[key], hi=self.hi[key], clipped=self.clipped[key])

    def moved(self, dims: Mapping[int, int]) -> Extent:
        """The same positions in a tensor with its dimensions renumbered: old to new number."""
        new = [dims[d] for d in self.dims]
        if new == list(self.dims):
            return self
        order = sorted(range(len(new)), key=new.__getitem__)
        lo = self.lo.transpose(order)
        hi = lo if self.hi is self.lo else self.hi.transpose(order)
        return Extent(tuple(sorted(new)), lo, hi, self.clipped.transpose(order), self.is_bound)

    def _relaid(self, dims: Iterable[int], change: Callable[[np.ndarray], np.ndarray]) -> Extent:
        return Extent(tuple(dims), change(self.lo), change(self.hi), change(self.clipped), self.is_bound)

    def shifted(self, by: int, since: int = 0) -> Extent:
        """With `by` added to the number of each dimension from `since` on."""
        if not by:
            return self
        return self.changed(dims=tuple(d + by if d >= since else d for d in self.dims))

    def over(self, dims: Collection[int], *, is_local: bool = False, is_window: bool = False) -> Extent:
        """One interval over all positions along these dimensions, for a reduction or a read of all of them.

        The result is not clipped, since it sees everything. It stays clipped if a unit only mixes channels
        (`is_local`), or if a unit reads a window (`is_window`) and not every window covers everything.
        """
        axes = tuple(k for k, d in enumerate(self.dims) if d in dims)
        if not axes:
            return self
        kept = tuple(d for d in self.dims if d not in dims)
        lo, hi = np.asarray(_once(self.lo).min(axis=axes)), np.asarray(_once(self.hi).max(axis=axes))
        lo, hi = (np.broadcast_to(end, [self.size(d) for d in kept]) for end in (lo, hi))
        is_clipped = is_local or (is_window and _are_windows(lo, hi))
        clipped = self.clipped.any(axis=axes) if is_clipped else np.zeros(lo.shape, dtype=bool)
        return Extent(kept, lo, hi, np.asarray(clipped), self.is_bound)

    def laid_over(self, dims: Sequence[int]) -> Extent:
        """With an axis for each of these dimensions, of length 1 where all positions see the same."""
        if tuple(dims) == self.dims:
            return self
        shape = [self.size(d) if d in self.dims else 1 for d in dims]
        return self._relaid(dims, lambda a: a.reshape(shape))

    def widened(self, sizes: Sequence[int]) -> Extent:
        """With these sizes: each axis of length 1 is repeated."""
        return self._relaid(self.dims, lambda a: np.broadcast_to(a, sizes))

    def without_single(self) -> Extent:
        """Without the axes of length 1."""
        if 1 not in self.shape:
            return self
        shape = [n for n in self.shape if n > 1]
        dims = [d for d, n in zip(self.dims, self.shape, strict=True) if n > 1]
        return self._relaid(dims, lambda a: a.reshape(shape))


FIELDS = tuple(field.name for field in fields(Extent))


class Lazy(Extent):
    """An extent whose arrays are computed on first use. A subclass sets `dims`, `is_bound` and `_shape`, and computes
    the arrays in `_made`.
    """

    __slots__ = ("_shape",)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in ("lo", "hi", "clipped"):
            raise AttributeError(name)
        self._set(**self._made())
        return getattr(self, name)

    def _made(self) -> dict[str, np.ndarray]:
        """`lo`, `hi` and `clipped`."""
        raise NotImplementedError

    @property
    def shape(self) -> Shape:
        return self._shape

    @property
    def nbytes(self) -> int:
        return 0  # those of its parts


class Joined(Lazy):
    """The extent of concatenated parts. Its arrays are made when they are first used: a convolution over channels needs
    only the union of the parts, and the concatenated maps of a dense network are large.
    """

    __slots__ = ("_before", "_dim", "_over", "_parts")

    def __init__(self, dims: tuple[int, ...], dim: int, parts: Sequence[tuple[Extent, Shape]], shape: Shape) -> None:
        first = parts[0][0]
        # Of the first part, where that is joined too, what is known already.
        before = (0, None)
        if isinstance(first, Joined) and (first.dims, first._dim) == (dims, dim):
            before = len(first._parts), first._over
            parts = (*first._parts, *parts[1:])
        self._set(dims=dims, is_bound=False, _shape=shape, _dim=dim, _parts=parts, _before=before, _over=None)

    def _made(self) -> dict[str, np.ndarray]:
        axis = self.dims.index(self._dim)
        parts = [(e.laid_over(self.dims), shape) for e, shape in self._parts]
        return {
            name: np.concatenate([np.broadcast_to(getattr(e, name), shape) for e, shape in parts], axis)
            for name in ("lo", "hi", "clipped")
        }

    def over(self, dims: Collection[int], *, is_local: bool = False, is_window: bool = False) -> Extent:
        if not is_local or set(dims) != {self._dim}:
            return super().over(dims, is_local=is_local, is_window=is_window)
        if self._over is None:
            n, before = self._before
            kept = tuple(d for d in self.dims if d != self._dim)
            each = [e.over(dims, is_local=True).laid_over(kept) for e, _ in self._parts[n if before else 0 :]]
            together = _union([*([before] if before else []), *each])
            sizes = [self.size(d) for d in kept]
            object.__setattr__(self, "_over", together if together.shape == tuple(sizes) else together.widened(sizes))
        return self._over


class Crossed(Lazy):
    """The hull of extents along different dimensions, such as those of queries and keys in a matrix of attention
    scores. A reduction along one dimension, as in a softmax, needs only the parts.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Extent]) -> None:
        """`parts`: laid over the same dimensions."""
        shape = np.broadcast_shapes(*(part.shape for part in parts))
        self._set(dims=parts[0].dims, is_bound=False, _shape=shape, _parts=parts)

    def _made(self) -> dict[str, np.ndarray]:
        union = _union(self._parts)
        return {"lo": union.lo, "hi": union.hi, "clipped": union.clipped}

    def moved(self, dims: Mapping[int, int]) -> Extent:
        return Crossed([part.moved(dims) for part in self._parts])

    def shifted(self, by: int, since: int = 0) -> Extent:
        return Crossed([part.shifted(by, since) for part in self._parts])

    def over(self, dims: Collection[int], *, is_local: bool = False, is_window: bool = False) -> Extent:
        if not set(dims) & set(self.dims):
            return self
        # The minimum over all pairs is the minimum of the parts' minima.
        found = _union([part.over(dims, is_local=True) for part in self._parts])
        is_clipped = is_local or (is_window and _are_windows(found.lo, found.hi))
        return found if is_clipped else found.changed(clipped=np.zeros(found.shape, dtype=bool))


def _are_windows(lo: np.ndarray, hi: np.ndarray) -> bool:
    """Whether not every interval covers everything."""
    return bool((lo > lo.min()).any() or (hi < hi.max()).any())


def hull(extents: Sequence[Extent]) -> Extent:
    """The smallest intervals that contain all of the given ones, position by position."""
    first = extents[0]
    if all(e is first for e in extents[1:]):
        return first
    if any(e.dims != first.dims for e in extents):
        extents = _aligned(extents)
        is_large = prod(np.broadcast_shapes(*(e.shape for e in extents))) > MOST_WRITTEN
        if is_large and not any(e.is_bound for e in extents):
            return Crossed(extents)
    result = _union(extents)
    if any(e.is_bound for e in extents):
        # What is known exactly may reach as far as all of it: then all of it is exact.
        exact = [e for e in extents if not e.is_bound]
        is_exact = bool(exact) and _same(_union(exact), result)
        result = result.changed(is_bound=not is_exact)
    return result


def _union(extents: Sequence[Extent]) -> Extent:
    return Extent(
        extents[0].dims,
        _merged(np.minimum, [e.lo for e in extents]),
        _merged(np.maximum, [e.hi for e in extents]),
        _merged(np.logical_or, [e.clipped for e in extents]),
    )


def _merged(function: Callable[..., np.ndarray], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """`function` over the arrays, broadcast. If each array has one value throughout, so has the result, as a view.

    After the first attention every token sees all tokens, and each matrix of scores would hold their number squared.
    """
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    if prod(shape) > MOST_WRITTEN and all(a.size < prod(shape) and (a == a.flat[0]).all() for a in arrays):
        return np.broadcast_to(reduce(function, [a.flat[0] for a in arrays]), shape)
    return reduce(function, arrays)


def _once(array: np.ndarray) -> np.ndarray:
    """The array with one position along each axis along which it was broadcast."""
    if 0 not in array.strides:
        return array
    return array[tuple(slice(1) if step == 0 else slice(None) for step in array.strides)]


def _same(a: Extent, b: Extent) -> bool:
    return bool((a.lo == b.lo).all() and (a.hi == b.hi).all())


def _aligned(extents: Sequence[Extent]) -> list[Extent]:
    dims = sorted({d for e in extents for d in e.dims})
    sizes = {d: e.size(d) for e in extents for d in e.dims}
    if prod(sizes.values()) > MOST_POSITIONS:
        # Position (i, j) sees i of one operand and j of another (attention scores): j is widened to all.
        kept = next(e.dims for e in extents if e.dims)
        widened = set(dims) - set(kept)
        extents = [e.over(widened).changed(is_bound=True) if widened & set(e.dims) else e for e in extents]
        dims = list(kept)
    return [e.laid_over(dims) for e in extents]


def window(extent: Extent, dim: int, n_out: int, kernel: int, stride: int, before: int, dilation: int = 1) -> Extent:
    """Output i reads inputs i * stride - before + k * dilation, k < kernel; indices outside the input do not exist."""
    n_in, axis = extent.size(dim), extent.dims.index(dim)
    if kernel == 1 and stride == 1 and before == 0 and n_out == n_in:
        return extent
    after = max((n_out - 1) * stride - before + (kernel - 1) * dilation - n_in + 1, 0)
    lo = _padded(extent.lo, axis, before, after, NOTHING)
    hi = _padded(extent.hi, axis, before, after, -NOTHING)
    clipped = _padded(extent.clipped, axis, before, after, True)
    reach = (n_out - 1) * stride + 1
    taps = [(slice(None),) * axis + (slice(k, k + reach, stride),) for k in range(0, kernel * dilation, dilation)]
    return extent.changed(
        lo=reduce(np.minimum, [lo[tap] for tap in taps]),
        hi=reduce(np.maximum, [hi[tap] for tap in taps]),
        clipped=reduce(np.logical_or, [clipped[tap] for tap in taps]),
    )


def _padded(array: np.ndarray, axis: int, before: int, after: int, value: Any) -> np.ndarray:
    # numpy.pad does the same in ten times the time.
    if not before and not after:
        return array
    n = array.shape[axis]
    shape = list(array.shape)
    shape[axis] = before + n + after
    padded = np.full(shape, value, dtype=array.dtype)
    padded[(slice(None),) * axis + (slice(before, before + n),)] = array
    return padded


def taps(extent: Extent, dim: int, index: np.ndarray, exists: np.ndarray, clipped: np.ndarray) -> Extent:
    """Output i reads inputs index[i, k] where exists[i, k]. Shapes (n_out, K), (n_out, K), (n_out,)."""
    axis = extent.dims.index(dim)
    at = np.clip(index, 0, extent.size(dim) - 1)
    rest = (1,) * (extent.lo.ndim - axis - 1)
    there, border = exists.reshape(*exists.shape, *rest), clipped.reshape(*clipped.shape, *rest)
    return extent.changed(
        lo=np.where(there, extent.lo.take(at, axis), NOTHING).min(axis=axis + 1),
        hi=np.where(there, extent.hi.take(at, axis), -NOTHING).max(axis=axis + 1),
        clipped=border | (extent.clipped.take(at, axis) & there).any(axis=axis + 1),
    )


def transposed_window(
    extent: Extent, dim: int, n_out: int, kernel: int, stride: int, padding: int, dilation: int = 1
) -> Extent:
    """Input j writes outputs j * stride - padding + k * dilation, k < kernel."""
    reach = np.arange(n_out)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    index, on_grid = reach // stride, reach % stride == 0
    inside = (index >= 0) & (index < extent.size(dim))
    return taps(extent, dim, index, on_grid & inside, (on_grid & ~inside).any(axis=1))


def _source(n_in: int, n_out: int, aligned: bool, scale: float | None) -> tuple[np.ndarray, int]:
    """Where each output falls on the input's grid, as an exact fraction: numerators and their denominator."""
    i = np.arange(n_out, dtype=np.int64)
    if aligned:
        return i * (n_in - 1), max(n_out - 1, 1)
    step = _step(n_in, n_out, scale)
    return (2 * i + 1) * step.numerator - step.denominator, 2 * step.denominator


def _step(n_in: int, n_out: int, scale: float | None) -> Fraction:
    # A scale factor that was given is used as it is, also where the sizes have another ratio (torch, UpSample.h).
    return 1 / Fraction(scale).limit_denominator(10_000) if scale else Fraction(n_in, n_out)


def linear_resize(extent: Extent, dim: int, n_out: int, aligned: bool, scale: float | None = None) -> Extent:
    """Reads the two neighbours of the source position, or one input if on it. Source: interp.cpp (aligned)."""
    n_in = extent.size(dim)
    numerator, denominator = _source(n_in, n_out, aligned, scale)
    most = (n_in - 1) * denominator
    left, rest = np.divmod(np.clip(numerator, 0, most), denominator)
    exists = np.stack([np.ones_like(rest, dtype=bool), rest > 0], axis=1)
    return taps(extent, dim, np.stack([left, left + 1], axis=1), exists, (numerator < 0) | (numerator > most))


def cubic_resize(extent: Extent, dim: int, n_out: int, aligned: bool, scale: float | None = None) -> Extent:
    """Reads four neighbours, or one input if the source is on it; outside the input the nearest pixel is read."""
    n_in = extent.size(dim)
    numerator, denominator = _source(n_in, n_out, aligned, scale)
    left, rest = np.divmod(numerator, denominator)
    offsets = np.arange(-1, 3)
    index = left[:, None] + offsets
    exists = (rest > 0)[:, None] | (offsets == 0)
    beyond = (((index < 0) | (index >= n_in)) & exists).any(axis=1)
    return taps(extent, dim, np.clip(index, 0, n_in - 1), exists, beyond)


def smoothed_resize(
    extent: Extent, dim: int, n_out: int, radius: int, aligned: bool, scale: float | None = None
) -> Extent:
    """Anti-aliased: reads every pixel within the filter's radius, which grows as the map shrinks. Source: pillow."""
    n_in = extent.size(dim)
    aligned_step = Fraction(n_in - 1, n_out - 1) if n_out > 1 else Fraction(0)
    step = aligned_step if aligned else _step(n_in, n_out, scale)
    reach = radius * max(step, Fraction(1))
    scaled = 2 * step.denominator * reach.denominator
    # In units of 1 / scaled, so that all values are integers: the centres of outputs and inputs.
    centres = (2 * np.arange(n_out) + 1) * int(step * scaled / 2)
    inputs = (2 * np.arange(n_in) + 1) * (scaled // 2)
    index = np.broadcast_to(np.arange(n_in), (n_out, n_in))
    apart = np.abs(inputs[None, :] - centres[:, None])
    exists = apart < int(reach * scaled)
    if radius == 2:
        exists &= 2 * apart != int(reach * scaled)  # the cubic filter is zero at 1
    beyond = (centres < int(reach * scaled)) | (centres + int(reach * scaled) > n_in * scaled)
    return taps(extent, dim, index, exists, beyond)


def nearest_resize(extent: Extent, dim: int, n_out: int, exact: bool, scale: float | None = None) -> Extent:
    """Reads one input: floor(i * step), or the pixel that contains the output's centre (`exact`).

    The first is computed in single precision, as torch does: rounding decides which pixel is read (UpSample.h).
    """
    n_in = extent.size(dim)
    if exact:
        centres, denominator = _source(n_in, n_out, False, scale)
        at = (2 * centres + denominator) // (2 * denominator)
    elif n_out in (n_in, 2 * n_in) and not scale:
        at = np.arange(n_out) * n_in // n_out
    else:
        step = np.float32(1 / scale) if scale else np.float32(n_in) / np.float32(n_out)
        at = (np.arange(n_out, dtype=np.float32) * step).astype(np.int64)
    return extent.take(dim, np.minimum(at, n_in - 1))


def adaptive_window(extent: Extent, dim: int, n_out: int) -> Extent:
    """Output i reads inputs floor(i * n_in / n_out) to ceil((i + 1) * n_in / n_out) - 1."""
    n_in = extent.size(dim)
    if n_out == 1:
        return extent.over([dim])
    i = np.arange(n_out)
    start, stop = i * n_in // n_out, -(-(i + 1) * n_in // n_out)
    index = start[:, None] + np.arange((stop - start).max())[None, :]
    return taps(extent, dim, index, index < stop[:, None], np.zeros(n_out, dtype=bool))


def pad(extent: Extent, dim: int, before: int, after: int, mode: str) -> Extent:
    """Constant padding sees nothing; reflection, replication and circular padding see what they copy."""
    n, axis = extent.size(dim), extent.dims.index(dim)
    if mode == "constant":
        return extent.changed(
            lo=_padded(extent.lo, axis, before, after, NOTHING),
            hi=_padded(extent.hi, axis, before, after, -NOTHING),
            clipped=_padded(extent.clipped, axis, before, after, True),
        )
    how = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    result = extent.take(dim, np.pad(np.arange(n), (before, after), mode=how))  # type: ignore[call-overload]
    at = np.arange(-before, n + after)
    beyond = ((at < 0) | (at >= n)).reshape(-1, *(1,) * (extent.lo.ndim - axis - 1))
    return result.changed(clipped=result.clipped | beyond)


def running(extent: Extent, dim: int) -> Extent:
    """Output i reads inputs 0 to i, as cumulative sums do."""
    axis = extent.dims.index(dim)
    return extent.changed(lo=np.minimum.accumulate(extent.lo, axis), hi=np.maximum.accumulate(extent.hi, axis))


def joined(parts: Iterable[tuple[Extent | None, int]], dim: int) -> Extent:
    """Parts concatenated along one dimension; None is a part that sees nothing."""
    pieces = [(Extent.nothing() if e is None else e, size) for e, size in parts]
    first = pieces[0][0]
    if dim not in first.dims and all(e is first or (e.dims == first.dims and _same(e, first)) for e, _ in pieces):
        return first.changed(clipped=reduce(np.logical_or, [e.clipped for e, _ in pieces]))
    dims = sorted({dim, *(d for e, _ in pieces for d in e.dims)})
    sizes = {d: e.size(d) for e, _ in pieces for d in e.dims}
    shapes = [[n if d == dim else sizes[d] for d in dims] for _, n in pieces]
    _refuse_large(sum(map(prod, shapes)), "joined tensors")
    total = tuple(sum(n for _, n in pieces) if d == dim else sizes[d] for d in dims)
    joined = Joined(tuple(dims), dim, list(zip([e for e, _ in pieces], map(tuple, shapes), strict=True)), total)
    return joined.changed(is_bound=True) if any(e.is_bound for e, _ in pieces) else joined


def grouped(extent: Extent, dim: int, n_groups: int, n_out: int) -> Extent:
    """Each of the n_out outputs along `dim` reads all inputs of its group and no others."""
    if dim not in extent.dims:
        return extent
    if n_groups == 1:
        return extent.over([dim], is_local=True)
    axis = extent.dims.index(dim)
    shape = list(extent.lo.shape)
    shape[axis : axis + 1] = [n_groups, shape[axis] // n_groups]
    split = extent._relaid(extent.dims, lambda a: a.reshape(shape))
    lo, hi, clipped = split.lo.min(axis + 1), split.hi.max(axis + 1), np.asarray(split.clipped.any(axis + 1))
    each = n_out // n_groups
    return Extent(extent.dims, lo, hi, clipped, extent.is_bound)._relaid(
        extent.dims, lambda a: np.repeat(a, each, axis)
    )


def unfolded(extent: Extent, dim: int, index: np.ndarray, new_dim: int) -> Extent:
    """Position (w, k) of `dim` and a new dimension reads input index[w, k]."""
    axis = extent.dims.index(dim)
    last = len(extent.dims)
    moved = extent._relaid(range(last + 1), lambda a: np.moveaxis(a.take(index, axis), axis + 1, last))
    return moved.moved(dict(enumerate([*extent.dims, new_dim])))


def folded(extent: Extent, dim: int, index: np.ndarray, n_out: int) -> Extent:
    """Output i reads grid position w (dimension dim + 2) and kernel element k (dimension dim) if index[w, k] = i."""
    dims = sorted({*extent.dims, dim, dim + 2})
    axes = dims.index(dim), dims.index(dim + 2)
    sizes = [{dim: index.shape[1], dim + 2: index.shape[0]}.get(d) or extent.size(d) for d in dims]

    def fold(array: np.ndarray, nothing: Any, join: np.ufunc) -> np.ndarray:
        each = np.moveaxis(np.broadcast_to(array, sizes), axes, (1, 0)).reshape(index.size, *rest)
        out = np.full((n_out, *rest), nothing, dtype=each.dtype)
        at = index.reshape(-1)
        there = (at >= 0) & (at < n_out)
        join.at(out, at[there], each[there])
        return np.moveaxis(out, 0, axes[0])

    rest = [n for d, n in zip(dims, sizes, strict=True) if d not in (dim, dim + 2)]
    laid = extent.laid_over(dims)
    lo, hi = fold(laid.lo, NOTHING, np.minimum), fold(laid.hi, -NOTHING, np.maximum)
    clipped = fold(laid.clipped, False, np.logical_or)
    return Extent(tuple(d for d in dims if d != dim + 2), lo, hi, clipped, extent.is_bound)


def overwritten(
    kept: Extent, written: Extent, matches: Sequence[tuple[int | None, int, Sequence[int], Sequence[int]]], shape: Shape
) -> Extent:
    """A tensor after a write to some of its positions.

    Each match (written dim or None, dim, written positions, positions) pairs positions along one dimension; the write
    covers the product of the matches.
    """
    partial = {dim for _, dim, _, to in matches if len(to) < shape[dim]}
    pairs = {w: (dim, of) for w, dim, of, _ in matches if w is not None}
    carried = {pairs[w][0] for w in written.dims if w in pairs}
    if len(carried) < len(written.dims):
        raise NoIntervalError("a write in place through a view of other dimensions")
    for w in written.dims:
        written = written.take(w, _numbers(pairs[w][1]))
    written = written.moved({w: pairs[w][0] for w in written.dims})
    whole = {dim: to for _, dim, _, to in matches}
    under = kept
    for d in set(kept.dims) & whole.keys():
        under = under.take(d, _numbers(whole[d]))
    if written.dims == under.dims and _same(written, under) and bool((written.clipped == under.clipped).all()):
        return kept.changed(is_bound=kept.is_bound or written.is_bound)  # what was there sees the same
    dims = sorted(partial | carried | set(kept.dims))
    sizes = [shape[d] for d in dims]
    _refuse_large(prod(sizes), "a write in place")
    written = written.laid_over(dims)
    region = np.ix_(*(_numbers(whole.get(d, range(shape[d]))) for d in dims))
    result = kept.laid_over(dims)._relaid(dims, lambda a: np.array(np.broadcast_to(a, sizes)))
    result.lo[region], result.hi[region], result.clipped[region] = written.lo, written.hi, written.clipped
    return result.changed(is_bound=kept.is_bound or written.is_bound)


def _numbers(numbers: Sequence[int]) -> np.ndarray:
    """As an array: a range at once, not number by number."""
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step)
    return np.asarray(numbers)


def _refuse_large(n_positions: int, what: str) -> None:
    if n_positions > MOST_POSITIONS:
        raise NoIntervalError(f"{what} with {n_positions} different positions")


def reshaped(extent: Extent, old: Shape, new: Shape) -> Extent:
    """The extent after a reshape: dimensions are kept, merged or split."""
    if not extent.dims or 0 in old:
        return extent
    where: dict[int, int] = {}
    for olds, news in groups(old, new):
        if not any(d in olds for d in extent.dims):
            continue
        if len(olds) == len(news) == 1:
            where[olds[0]] = news[0]
            continue
        # Until all groups are done, a new dimension goes under a number that no old one has.
        extent = _regrouped(extent, olds, news, old, new)
        where.update({-1 - d: d for d in news})
    return extent.moved({d: where.get(d, d) for d in extent.dims})


def _regrouped(extent: Extent, olds: list[int], news: list[int], old: Shape, new: Shape) -> Extent:
    """One group of dimensions in a new layout; the new ones are numbered -1 - d."""
    others = [d for d in extent.dims if d not in olds]
    rest = [extent.size(d) for d in others]
    sizes = [old[d] for d in olds]
    _refuse_large(prod(sizes) * prod(rest), f"a reshape of {old} to {new}")
    order = [extent.dims.index(d) for d in (*others, *(d for d in olds if d in extent.dims))]
    held = [old[d] if d in extent.dims else 1 for d in olds]

    def lay(array: np.ndarray) -> np.ndarray:
        full = np.broadcast_to(array.transpose(order).reshape(*rest, *held), (*rest, *sizes))
        return full.reshape(*rest, *(new[d] for d in news))

    numbers = [*others, *(-1 - d for d in news)]
    laid = extent._relaid(range(len(numbers)), lay)
    # Where nothing differs along a new dimension, it is not kept.
    for axis in reversed(range(len(others), len(numbers))):
        if all(_is_constant(a, axis) for a in (laid.lo, laid.hi, laid.clipped)):
            del numbers[axis]
            laid = laid._relaid(range(len(numbers)), lambda a, axis=axis: a.take(0, axis))  # type: ignore[misc]
    return laid.moved(dict(enumerate(numbers)))


def _is_constant(array: np.ndarray, axis: int) -> bool:
    """Does nothing differ along the axis? Its ends are compared first: where something does, they nearly always do."""
    lead = (slice(None),) * axis
    first = array[(*lead, slice(1))]
    return bool((first == array[(*lead, slice(-1, None))]).all() and (array == first).all())


def varied(extent: Extent) -> list[int]:
    """The dimensions along which positions that see something see different stretches."""
    is_seen = extent.hi >= extent.lo
    ends = [(np.where(is_seen, end, NOTHING), np.where(is_seen, end, -NOTHING)) for end in (extent.lo, extent.hi)]
    return [
        dim
        for axis, dim in enumerate(extent.dims)
        if any((least.min(axis) < most.max(axis)).any() for least, most in ends)
    ]


def groups(old: Shape, new: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """Runs of old and new dimensions that hold the same elements."""
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news, a, b = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                olds.append(i)
                a *= old[i]
                i += 1
            else:
                news.append(j)
                b *= new[j]
                j += 1
        yield olds, news
