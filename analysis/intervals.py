"""Backward intervals along one image axis: which stretch of the input each position of a tensor can see.

Every function maps the extents of an operator's operands to the extent of its result. What is here is exact: a
position's interval runs from the first to the last input index that has a non-zero weight on some path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from analysis.graph import Shape

NOTHING = np.int64(2**40)  # the lower end of an empty interval; its upper end is -NOTHING


class NoIntervalError(ValueError):
    """The operator mixes positions in a way that has no interval along one axis; the message says how."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The intervals [lo, hi] along one axis of the input, for every index of one dimension of a tensor.

    `dim` is the dimension that carries the axis; None where every position sees the same, and the arrays have one
    entry. `clipped` marks positions whose windows reach over a border. `is_whole`: some operator on the way reads
    all positions at once. `is_bound`: the intervals contain what is seen, and may be larger.
    """

    dim: int | None
    lo: np.ndarray
    hi: np.ndarray
    clipped: np.ndarray
    is_whole: bool = False
    is_bound: bool = False

    @classmethod
    def of_input(cls, size: int, dim: int) -> Extent:
        at = np.arange(size, dtype=np.int64)
        return cls(dim, at, at, np.zeros(size, dtype=bool))

    def __len__(self) -> int:
        return len(self.lo)

    @property
    def sides(self) -> np.ndarray:
        return np.maximum(self.hi - self.lo + 1, 0)

    def take(self, index: np.ndarray) -> Extent:
        return replace(self, lo=self.lo[index], hi=self.hi[index], clipped=self.clipped[index])

    def moved_to(self, dim: int | None) -> Extent:
        return self if dim == self.dim else replace(self, dim=dim)

    def stretched(self, size: int) -> Extent:
        """The same interval at each of `size` positions, where there was one position."""
        if len(self) == size:
            return self
        return self.take(np.zeros(size, dtype=np.intp))


def hull(extents: Sequence[Extent]) -> Extent:
    """The smallest intervals that contain all of the given ones, position by position."""
    first = extents[0]
    if all(e is first for e in extents[1:]):
        return first
    dims = {e.dim for e in extents if e.dim is not None}
    is_bound = any(e.is_bound for e in extents)
    if len(dims) > 1:
        # Position (i, j) sees i of one operand and j of another (attention scores): j is widened to all.
        keep = next(e.dim for e in extents if e.dim is not None)
        extents = [e if e.dim in (keep, None) else whole(e) for e in extents]
        dims, is_bound = {keep}, True
    size = max(len(e) for e in extents)
    extents = [e.stretched(size) for e in extents]
    return Extent(
        dims.pop() if dims else None,
        np.minimum.reduce([e.lo for e in extents]),
        np.maximum.reduce([e.hi for e in extents]),
        np.logical_or.reduce([e.clipped for e in extents]),
        any(e.is_whole for e in extents),
        is_bound,
    )


def whole(extent: Extent) -> Extent:
    """One interval over all positions: a reduction, or any other operator that reads them all at once."""
    if extent.dim is None:
        return extent
    return Extent(None, extent.lo.min(keepdims=True), extent.hi.max(keepdims=True), np.zeros(1, dtype=bool), True)


def window(extent: Extent, n_out: int, kernel: int, stride: int, before: int, dilation: int = 1) -> Extent:
    """Output i reads inputs i * stride - before + k * dilation, k < kernel; taps beyond the border do not exist."""
    n_in = len(extent)
    if kernel == 1 and stride == 1 and before == 0 and n_out == n_in:
        return extent
    last = (n_out - 1) * stride - before + (kernel - 1) * dilation
    pads = (before, max(last - n_in + 1, 0))
    lo = np.pad(extent.lo, pads, constant_values=NOTHING)
    hi = np.pad(extent.hi, pads, constant_values=-NOTHING)
    clipped = np.pad(extent.clipped, pads, constant_values=True)
    taps = [slice(k * dilation, k * dilation + (n_out - 1) * stride + 1, stride) for k in range(kernel)]
    return replace(
        extent,
        lo=np.minimum.reduce([lo[tap] for tap in taps]),
        hi=np.maximum.reduce([hi[tap] for tap in taps]),
        clipped=np.logical_or.reduce([clipped[tap] for tap in taps]),
    )


def taps(extent: Extent, index: np.ndarray, exists: np.ndarray, clipped: np.ndarray) -> Extent:
    """Output i reads inputs index[i, k] where exists[i, k]. Shapes (n_out, K), (n_out, K), (n_out,)."""
    at = np.clip(index, 0, len(extent) - 1)
    return replace(
        extent,
        lo=np.where(exists, extent.lo[at], NOTHING).min(axis=1),
        hi=np.where(exists, extent.hi[at], -NOTHING).max(axis=1),
        clipped=clipped | (extent.clipped[at] & exists).any(axis=1),
    )


def transposed_window(extent: Extent, n_out: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Extent:
    """Input j writes outputs j * stride - padding + k * dilation, k < kernel."""
    reach = np.arange(n_out)[:, None] + padding - np.arange(kernel)[None, :] * dilation
    index, on_grid = reach // stride, reach % stride == 0
    inside = (index >= 0) & (index < len(extent))
    return taps(extent, index, on_grid & inside, (on_grid & ~inside).any(axis=1))


def _source(n_in: int, n_out: int, aligned: bool, scale: float | None) -> tuple[np.ndarray, int]:
    """Where each output falls on the input's grid, as an exact fraction: numerators and their denominator."""
    i = np.arange(n_out, dtype=np.int64)
    if aligned:
        return i * (n_in - 1), max(n_out - 1, 1)
    if scale is not None and scale * n_in != n_out:
        raise NoIntervalError(f"a scale factor of {scale} that is not the ratio of the sizes {n_in} and {n_out}")
    return (2 * i + 1) * n_in - n_out, 2 * n_out


def linear_resize(extent: Extent, n_out: int, aligned: bool, scale: float | None = None) -> Extent:
    """Two neighbours of the source position, or the one on which it falls exactly. Source: interp.cpp (aligned)."""
    n_in = len(extent)
    numerator, denominator = _source(n_in, n_out, aligned, scale)
    most = (n_in - 1) * denominator
    left, rest = np.divmod(np.clip(numerator, 0, most), denominator)
    exists = np.stack([np.ones_like(rest, dtype=bool), rest > 0], axis=1)
    return taps(extent, np.stack([left, left + 1], axis=1), exists, (numerator < 0) | (numerator > most))


def cubic_resize(extent: Extent, n_out: int, aligned: bool, scale: float | None = None) -> Extent:
    """Four neighbours; beyond the border the nearest pixel stands in, and on a grid point one has all the weight."""
    n_in = len(extent)
    numerator, denominator = _source(n_in, n_out, aligned, scale)
    left, rest = np.divmod(numerator, denominator)
    offsets = np.arange(-1, 3)
    index = left[:, None] + offsets
    exists = (rest > 0)[:, None] | (offsets == 0)
    beyond = (((index < 0) | (index >= n_in)) & exists).any(axis=1)
    return taps(extent, np.clip(index, 0, n_in - 1), exists, beyond)


def nearest_resize(extent: Extent, n_out: int, exact: bool, scale: float | None = None) -> Extent:
    """One input: floor(i * n_in / n_out), or the same from the middle of the pixel (`exact`)."""
    centres, denominator = _source(len(extent), n_out, False, scale)
    if exact:
        return extent.take((centres + n_out) // denominator)
    return extent.take(np.arange(n_out) * len(extent) // n_out)


def adaptive_window(extent: Extent, n_out: int) -> Extent:
    """Output i reads inputs floor(i * n_in / n_out) to ceil((i + 1) * n_in / n_out) - 1."""
    n_in = len(extent)
    if n_out == 1:
        return replace(whole(extent), dim=extent.dim)
    i = np.arange(n_out)
    start, stop = i * n_in // n_out, -(-(i + 1) * n_in // n_out)
    index = start[:, None] + np.arange((stop - start).max())[None, :]
    return taps(extent, index, index < stop[:, None], np.zeros(n_out, dtype=bool))


def pad(extent: Extent, before: int, after: int, mode: str) -> Extent:
    """Constant padding sees nothing; reflection, replication and wrapping see what they copy."""
    n = len(extent)
    if mode == "constant":
        index = np.arange(-before, n + after)
        inside = (index >= 0) & (index < n)
        return taps(extent, index[:, None], inside[:, None], np.zeros(len(index), dtype=bool) | ~inside)
    index = np.pad(
        np.arange(n), (before, after), mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    )
    result = extent.take(index)
    at = np.arange(-before, n + after)
    return replace(result, clipped=result.clipped | (at < 0) | (at >= n))


def joined(parts: Iterable[tuple[Extent | None, int]], dim: int) -> Extent:
    """Parts laid end to end along the dimension that carries the axis; None is a part that sees nothing."""
    pieces = list(parts)
    los, his, clipped = [], [], []
    for extent, size in pieces:
        e = extent.stretched(size) if extent is not None else None
        los.append(e.lo if e else np.full(size, NOTHING))
        his.append(e.hi if e else np.full(size, -NOTHING))
        clipped.append(e.clipped if e else np.zeros(size, dtype=bool))
    seen_whole = any(e.is_whole for e, _ in pieces if e is not None)
    return Extent(dim, np.concatenate(los), np.concatenate(his), np.concatenate(clipped), seen_whole)


MOST_POSITIONS = 4_000_000


def reshaped(extent: Extent, old: Shape, new: Shape) -> Extent:
    """The axis followed through a reshape: where its dimension is kept, merged with others, or split evenly."""
    if extent.dim is None or len(extent) == 1:
        return replace(extent, dim=None)
    for olds, news in _groups(old, new):
        if extent.dim not in olds:
            continue
        sizes = [old[d] for d in olds]
        at = olds.index(extent.dim)
        total = prod(sizes)
        if total > MOST_POSITIONS:
            raise NoIntervalError(f"a reshape of {old} to {new} merges {total} positions")
        inner = prod(sizes[at + 1 :])
        index = np.tile(np.repeat(np.arange(len(extent)), inner), prod(sizes[:at]))
        return _split(extent, index.reshape([new[d] for d in news]), news, old, new)
    raise NoIntervalError(f"a reshape of {old} to {new} loses the axis")


def _split(extent: Extent, index: np.ndarray, dims: list[int], old: Shape, new: Shape) -> Extent:
    carriers = [k for k in range(index.ndim) if (np.diff(index, axis=k) != 0).any()]
    if len(carriers) != 1:
        # A merge into one dimension, or a split into dimensions each of which moves along the axis.
        if len(dims) == 1:
            return extent.take(index.ravel()).moved_to(dims[0])
        raise NoIntervalError(f"a reshape of {old} to {new} splits the axis over {len(carriers)} dimensions")
    k = carriers[0]
    return extent.take(np.moveaxis(index, k, 0).reshape(index.shape[k], -1)[:, 0]).moved_to(dims[k])


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new dimensions that hold the same elements."""
    groups, i, j = [], 0, 0
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
        groups.append((olds, news))
    return groups
