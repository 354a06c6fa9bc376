"""How a write through one view of a storage affects another view of it. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from operator import mul

# Positions along one dimension: (written dim or None, read dim, positions there, positions here).
Match = tuple[int | None, int, Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class View:
    """The elements of a storage that a tensor shows: offset, sizes and strides, in elements."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a write leaves of a view: nothing (`is_all`), or the positions outside the product of `matches`.

    `matches` is None if both views show the same elements in the same order but in other shapes (`is_reshaped`), or if
    their positions cannot be paired.
    """

    is_all: bool
    matches: tuple[Match, ...] | None
    is_reshaped: bool = False


def overlap(written: View, read: View) -> Overlap | None:
    """The effect of a write through one view on another view; None if they share no element.

    Both views are placed on one grid whose levels are their strides: the address of an element has one coordinate on
    each level.
    """
    if written.offset == read.offset and prod(written.shape) == prod(read.shape):
        if written == read:
            return Overlap(True, tuple((d, d, range(n), range(n)) for d, n in enumerate(read.shape)))
        if _is_contiguous(written) and _is_contiguous(read):
            return Overlap(True, None, True)
    found: Overlap | None = Overlap(False, None)
    for views in ((read,), (written,), (written, read)):
        levels, base = _levels(*views), min(written.offset, read.offset)
        grids = [_coordinates(view, levels, view.offset - base) for view in (written, read)]
        if grids[0] is not None and grids[1] is not None:
            found = _met(grids[0], grids[1])
            if found is None or found.matches is not None:
                break
    return found


# For each level the dimensions along it, and the coordinates in their order: a range where they have one step, so that
# a slice costs the same however long it is.
Grid = list[tuple[list[int], Sequence[int]]]


def _met(written: Grid, read: Grid) -> Overlap | None:
    matches: list[Match] = []
    is_all = is_paired = True
    for (w_dims, w_at), (r_dims, r_at) in zip(written, read, strict=True):
        of, to = _shared(w_at, r_at)
        if not to:
            return None
        is_all &= len(to) == len(r_at)
        if not r_dims:
            is_paired &= not w_dims or len(w_at) == len(to) == 1
        elif len(r_dims) > 1 or len(w_dims) > 1:
            is_paired = False
        else:
            matches.append((w_dims[0] if w_dims else None, r_dims[0], of, to))
    # A dimension that runs along several levels meets several of the other's.
    for side in (0, 1):
        found = [match[side] for match in matches if match[side] is not None]
        is_paired &= len(found) == len(set(found))
    return Overlap(is_all, tuple(matches) if is_paired else None)


def _shared(a: Sequence[int], b: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The places in `a` and in `b` of the coordinates that both have, in ascending order of these."""
    if isinstance(a, range) and isinstance(b, range) and (max(a.step, b.step) % min(a.step, b.step) == 0):
        step, coarse = max(a.step, b.step), a if a.step >= b.step else b
        start = coarse.start + max(0, -(-(max(a.start, b.start) - coarse.start) // step)) * step
        if (start - a.start) % a.step or (start - b.start) % b.step:
            return (), ()
        met = range(start, min(a.stop, b.stop), step)
        places = (range((start - r.start) // r.step, (met[-1] - r.start) // r.step + 1, step // r.step) for r in (a, b))
        return tuple(places) if met else ((), ())  # type: ignore[return-value]
    places_of = [{at: k for k, at in enumerate(side)} for side in (a, b)]
    shared = sorted(places_of[0].keys() & places_of[1].keys())
    return tuple(places_of[0][at] for at in shared), tuple(places_of[1][at] for at in shared)


def _is_contiguous(view: View) -> bool:
    steps = accumulate(reversed(view.shape), mul, initial=1)
    pairs = zip(reversed(view.shape), reversed(view.strides), strict=True)
    return all(n == 1 or stride == step for (n, stride), step in zip(pairs, steps, strict=False))


def _levels(*views: View) -> list[int]:
    """Strides of the grid, each a multiple of the next, down to 1."""
    strides = {s for view in views for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s > 0}
    levels: list[int] = []
    for stride in sorted({1, *strides}, reverse=True):
        if not levels or levels[-1] % stride == 0:
            levels.append(stride)
    return levels


def _coordinates(view: View, levels: Sequence[int], offset: int) -> Grid | None:
    """For each level the view's dimensions that run along it, and its coordinates there in their order.

    None where one of its dimensions is spread over several elements of a level and back again.
    """
    grid: Grid = []
    for level in levels:
        start, offset = divmod(offset, level)
        grid.append(([], range(start, start + 1)))
    sizes = [0, *(a // b for a, b in pairwise(levels))]  # 0: the first level has no end
    for dim, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        if n == 1:
            continue
        if stride <= 0:
            return None
        k = next(k for k, level in enumerate(levels) if stride % level == 0)
        step = stride // levels[k]
        # A dimension that fills a level goes on along the next: rows laid end to end.
        while k and n * step > sizes[k] and sizes[k] % step == 0 and n * step % sizes[k] == 0:
            inner = sizes[k] // step
            grid[k] = _extended(grid[k], dim, inner, step)
            n, step, k = n // inner, 1, k - 1
        grid[k] = _extended(grid[k], dim, n, step)
    for (_, at), size in zip(grid, sizes, strict=True):
        if size and (at[-1] if isinstance(at, range) else max(at)) >= size:
            return None
    if prod(len(at) for _, at in grid) != prod(view.shape):
        return None
    return grid


def _extended(place: tuple[list[int], Sequence[int]], dim: int, n: int, step: int) -> tuple[list[int], Sequence[int]]:
    dims, at = place
    if isinstance(at, range) and (len(at) == 1 or at.step == n * step):
        return [*dims, dim], range(at.start, at.start + len(at) * n * step, step)
    return [*dims, dim], [a + k * step for a in at for k in range(n)]
