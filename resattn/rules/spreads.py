"""Receptive fields through operators: what the positions of a result see, from what those of the operands see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from resattn.graph.graph import Op, Operand, Shape
from resattn.rules import intervals
from resattn.rules.intervals import Extent, NoIntervalError, hull
from resattn.rules.rule import Read, Spread


def of_input(op: Op, reads: Sequence[Read]) -> Extent:
    raise NoIntervalError("an input has no operands")


def pointwise(op: Op, reads: Sequence[Read]) -> Extent:
    """Position by position, with broadcasting from the right."""
    n = len(op.shape)
    return hull([extent.shifted(n - len(operand.shape)) for operand, extent in reads])


def everywhere(op: Op, reads: Sequence[Read]) -> Extent:
    return hull([extent.over(extent.dims) for _, extent in reads])


def _per_axis(value: Any, k: int, default: int) -> int:
    if not isinstance(value, tuple | list):
        return default if value is None else int(value)
    return default if not value else int(value[k] if len(value) > 1 else value[0])


def _spatial(extent: Extent, first: int) -> list[int]:
    """The dimensions from `first` on along which positions differ."""
    return [d for d in extent.dims if d >= first]


def convolution(op: Op, reads: Sequence[Read]) -> Extent:
    a = op.arguments
    x, weight = a["input"], a["weight"]
    first = len(x.shape) - (len(weight.shape) - 2)
    groups = int(a.get("groups") or 1)
    extents = []
    for operand, extent in reads:
        if operand is not x:
            # A weight or bias that the data makes: each of its values meets every position.
            extents.append(extent.over(extent.dims))
            continue
        extent = intervals.grouped(extent, first - 1, groups, op.shape[first - 1])
        for d in _spatial(extent, first):
            k = d - first
            kernel, stride = weight.shape[2 + k], _per_axis(a["stride"], k, 1)
            padding, dilation = _per_axis(a["padding"], k, 0), _per_axis(a["dilation"], k, 1)
            spread = intervals.transposed_window if a.get("transposed") else intervals.window
            extent = spread(extent, d, op.shape[d], kernel, stride, padding, dilation)
        extents.append(extent)
    return hull(extents)


def pool(n: int) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        a = op.arguments
        operand, extent = reads[0]
        first = len(operand.shape) - n
        for d in _spatial(extent, first):
            kernel = _per_axis(a["kernel_size"], d - first, 1)
            stride, padding = _per_axis(a["stride"], d - first, kernel), _per_axis(a["padding"], d - first, 0)
            dilation = _per_axis(a.get("dilation"), d - first, 1)
            extent = intervals.window(extent, d, op.shape[d], kernel, stride, padding, dilation)
        return extent

    return spread


def adaptive(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    for d in _spatial(extent, len(operand.shape) - len(op.arguments["output_size"])):
        extent = intervals.adaptive_window(extent, d, op.shape[d])
    return extent


def over_map(op: Op, reads: Sequence[Read]) -> Extent:
    """A pooling over the whole map, whatever its size."""
    operand, extent = reads[0]
    return extent.over(range(2, len(operand.shape)))


def resize(n: int, resize: Callable[..., Extent], *fixed: Any, is_aligned: bool = False) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        operand, extent = reads[0]
        first = len(operand.shape) - n
        scales = [v for name, v in op.arguments.items() if name.startswith("scale")]
        factors = scales[0] if len(scales) == 1 and isinstance(scales[0], tuple) else scales
        arguments = (*fixed, bool(op.arguments["align_corners"])) if is_aligned else fixed
        for d in _spatial(extent, first):
            extent = resize(extent, d, op.shape[d], *arguments, factors[d - first] if factors else None)
        return extent

    return spread


def padding(op: Op, reads: Sequence[Read]) -> Extent:
    pads, mode = op.arguments.get("pad") or op.arguments["padding"], "constant"
    for name, written in (("reflect", "reflection"), ("replicate", "replication"), ("circular", "circular")):
        mode = name if written in op.name or op.arguments.get("mode") == name else mode
    operand, extent = reads[0]
    for d in extent.dims:
        k = len(operand.shape) - 1 - d
        if 2 * k < len(pads):
            before, after = pads[2 * k], pads[2 * k + 1]
            # Negative padding cuts.
            kept = extent.take(d, slice(max(-before, 0), operand.shape[d] - max(-after, 0)))
            extent = intervals.pad(kept, d, max(before, 0), max(after, 0), mode)
    return extent


def reduce(op: Op, reads: Sequence[Read]) -> Extent:
    if isinstance(op.arguments.get("other"), Operand):
        return pointwise(op, reads)  # max(x, y), min(x, y)
    operand, extent = reads[0]
    gone = _dims(op.arguments.get("dim"), len(operand.shape))
    extent = extent.over(gone)
    if op.arguments.get("keepdim"):
        return extent
    return extent.moved({d: d - sum(g < d for g in gone) for d in extent.dims})


def _dims(dim: Any, n: int) -> set[int]:
    if dim is None or dim == ():
        return set(range(n))
    return {d % n for d in (dim if isinstance(dim, tuple) else (dim,))} if n else set()


def _dim(op: Op, n: int, default: int = 0) -> int:
    dim = op.arguments.get("dim")
    return int(default if dim is None else dim) % max(n, 1)


def along(op: Op, reads: Sequence[Read]) -> Extent:
    """Every position along one dimension reads all of it: softmax, sorting."""
    operand, extent = reads[0]
    return extent.over(_dims(op.arguments.get("dim", -1), len(operand.shape)), is_window=True)


def transformed(op: Op, reads: Sequence[Read]) -> Extent:
    """A Fourier transform: each position along its dimensions reads all of them; their number may change."""
    operand, extent = reads[0]
    whole = extent.over(_dims(op.arguments["dim"], len(operand.shape)), is_window=True)
    return whole.laid_over(extent.dims).widened([op.shape[d] for d in extent.dims])


def cumulative(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape))
    return intervals.running(extent, dim) if dim in extent.dims else extent


def batch_norm(op: Op, reads: Sequence[Read]) -> Extent:
    # In evaluation a batch norm scales; without running statistics (an instance norm) it reads all positions.
    is_running = not op.arguments.get("training", False) and "no_stats" not in op.name
    operand, extent = reads[0]
    return extent if is_running else _with_statistics(extent, set(range(len(operand.shape))) - {1})


def group_norm(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    extent = _with_statistics(extent, range(2, len(operand.shape)))
    return intervals.grouped(extent, 1, int(op.arguments.get("group") or op.arguments["num_groups"]), operand.shape[1])


def layer_norm(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    n = len(operand.shape)
    return _with_statistics(extent, range(n - len(op.arguments["normalized_shape"]), n))


def _with_statistics(extent: Extent, dims: Collection[int]) -> Extent:
    """Each position, and all of those along some dimensions whose statistics scale it."""
    return hull([extent, extent.over(dims, is_window=True)])


def matmul(first: str, second: str) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        a, b = op.arguments[first], op.arguments[second]
        # With a matrix of parameters the contraction runs over channels: it mixes what one position sees.
        is_local = bool(a.params or b.params)
        extents = []
        for operand, extent in reads:
            n = len(operand.shape)
            behind = len(op.shape) - n
            if operand is a or operand is b:
                contracted = n - 1 if operand is a else max(n - 2, 0)
                extent = extent.over([contracted], is_local=is_local, is_window=True)
                behind += operand is a and len(b.shape) == 1  # a matrix times a vector loses its last dimension
                extent = extent.over(range(-behind))  # addbmm sums over the batch
            extents.append(extent.shifted(behind))
        return hull(extents)

    return spread


def linear(op: Op, reads: Sequence[Read]) -> Extent:
    x = op.arguments["input"]
    # A matrix or bias that the data makes: each of its values meets every position.
    return hull([e.over([len(o.shape) - 1], is_local=True) if o is x else e.over(e.dims) for o, e in reads])


def attention(op: Op, reads: Sequence[Read]) -> Extent:
    """Each query reads all keys and values of its batch and head."""
    extents = []
    for operand, extent in reads:
        n = len(operand.shape)
        seen = extent.over([n - 1] if operand is op.arguments["query"] else [n - 2, n - 1], is_window=True)
        extents.append(seen.shifted(len(op.shape) - n))
    return hull(extents)


def join(op: Op, reads: Sequence[Read]) -> Extent:
    """cat: concatenated along one dimension, position by position in all others."""
    parts = op.arguments["tensors"]
    found = {id(operand): extent for operand, extent in reads}
    dim = _dim(op, len(op.shape))
    return intervals.joined([(found.get(id(p)), p.shape[dim]) for p in parts if p.shape != (0,)], dim)


def stack(op: Op, reads: Sequence[Read]) -> Extent:
    found = {id(operand): extent for operand, extent in reads}
    dim = _dim(op, len(op.shape))
    parts = [found.get(id(p)) for p in op.arguments["tensors"]]
    return intervals.joined([(None if e is None else e.shifted(1, dim), 1) for e in parts], dim)


def reshape(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    return intervals.reshaped(extent, operand.shape, op.shape)


def permute(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    n = len(operand.shape)
    if "dims" in op.arguments:
        return extent.moved({d % n: k for k, d in enumerate(op.arguments["dims"])})
    a, b = (int(op.arguments[k]) % n for k in ("dim0", "dim1")) if "dim0" in op.arguments else (0, n - 1)
    return extent.moved({d: b if d == a else a if d == b else d for d in extent.dims})


def unsqueeze(op: Op, reads: Sequence[Read]) -> Extent:
    return reads[0][1].shifted(1, int(op.arguments["dim"]) % len(op.shape))


def repeat(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    extent = extent.shifted(len(op.shape) - len(operand.shape))
    for d in extent.dims:
        extent = extent.take(d, np.arange(op.shape[d]) % extent.size(d))
    return extent


def sliced(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape))
    if dim not in extent.dims:
        return extent
    start, stop, step = (op.arguments.get(k) for k in ("start", "end", "step"))
    return extent.take(dim, slice(*slice(start, stop, step or 1).indices(operand.shape[dim])))


def select(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape))
    index = int(op.arguments["index"]) % operand.shape[dim]
    return _selected(extent, dim, index)


def _selected(extent: Extent, dim: int, index: int) -> Extent:
    if dim in extent.dims:
        extent = extent.take(dim, slice(index, index + 1)).without_single()
    return extent.shifted(-1, dim)


def narrowed(op: Op, reads: Sequence[Read]) -> list[Extent]:
    """split, chunk: each result is a range of the dimension."""
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape))
    stops = list(accumulate(shape[dim] for shape in op.shapes))
    if dim not in extent.dims:
        return [extent] * len(stops)
    return [extent.take(dim, slice(a, b)) for a, b in zip([0, *stops], stops, strict=False)]


def unbound(op: Op, reads: Sequence[Read]) -> list[Extent]:
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape))
    return [_selected(extent, dim, k) for k in range(len(op.shapes))]


def flip(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    for d in _dims(op.arguments["dims"], len(operand.shape)).intersection(extent.dims):
        extent = extent.take(d, slice(None, None, -1))
    return extent


def roll(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    shifts, dims = op.arguments["shifts"], op.arguments.get("dims")
    if not dims:  # over all elements, laid in a row
        flat = (prod(operand.shape),)
        extent = intervals.reshaped(extent, operand.shape, flat)
        rolled = _rolled(extent, 0, shifts[0]) if extent.dims else extent
        return intervals.reshaped(rolled, flat, operand.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        d = dim % len(operand.shape)
        if d in extent.dims:
            extent = _rolled(extent, d, shift)
    return extent


def _rolled(extent: Extent, dim: int, shift: int) -> Extent:
    """What comes back at the other end is beyond a border, as it is in padding that wraps."""
    at = np.arange(extent.size(dim)) - shift
    beyond = (at < 0) | (at >= at.size)
    rolled = extent.take(dim, at % at.size)
    axis = extent.dims.index(dim)
    return rolled.changed(clipped=rolled.clipped | beyond.reshape(-1, *(1,) * (rolled.lo.ndim - axis - 1)))


def pixel_shuffle(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    *batch, c, h, w = operand.shape
    n = len(batch)
    if "unshuffle" in op.name:
        r = int(op.arguments["downscale_factor"])
        split, order = (*batch, c, h // r, r, w // r, r), (0, 2, 4, 1, 3)
    else:
        r = int(op.arguments["upscale_factor"])
        split, order = (*batch, c // r**2, r, r, h, w), (0, 3, 1, 4, 2)
    extent = intervals.reshaped(extent, operand.shape, split)
    extent = extent.moved({**{d: d for d in range(n)}, **{n + d: n + k for k, d in enumerate(order)}})
    permuted = (*batch, *(split[n + d] for d in order))
    return intervals.reshaped(extent, permuted, op.shape)


def channel_shuffle(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    if 1 not in extent.dims:
        return extent
    groups, c = int(op.arguments["groups"]), operand.shape[1]
    return extent.take(1, np.arange(c).reshape(groups, -1).T.ravel())


def halves(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = _dim(op, len(operand.shape), -1)
    if dim not in extent.dims:
        return extent
    n = op.shape[dim]
    return hull([extent.take(dim, slice(0, n)), extent.take(dim, slice(n, None))])


def unfold(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = int(op.arguments["dimension"]) % len(operand.shape)
    if dim not in extent.dims:
        return extent
    size, step = int(op.arguments["size"]), int(op.arguments["step"])
    index = np.arange(op.shape[dim])[:, None] * step + np.arange(size)
    return intervals.unfolded(extent, dim, index, len(op.shape) - 1)


def rotated(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    a, b = (d % len(operand.shape) for d in op.arguments["dims"])
    quarters = int(op.arguments.get("k") or 0) % 4
    for d in {0: (), 1: (b,), 2: (a, b), 3: (a,)}[quarters]:
        extent = extent.take(d, slice(None, None, -1)) if d in extent.dims else extent
    return extent.moved({d: b if d == a else a if d == b else d for d in extent.dims}) if quarters % 2 else extent


def triangle(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    if any(d >= len(operand.shape) - 2 for d in extent.dims):
        raise NoIntervalError("a triangle of positions")
    return extent


def diagonal(op: Op, reads: Sequence[Read]) -> Extent:
    raise NoIntervalError("a diagonal, whose positions share one dimension")


def _patches(op: Op, image: Shape, columns: Shape) -> tuple[Shape, list[np.ndarray]]:
    """The columns laid out as (N, C, kernel, grid) and, along height and width, which row each (place on the grid,
    kernel element) is, counted without the padding."""
    a = op.arguments
    kernel, index = [_per_axis(a["kernel_size"], k, 1) for k in (0, 1)], []
    for k, n in enumerate(image[-2:]):
        stride, padding, dilation = (_per_axis(a[name], k, 1) for name in ("stride", "padding", "dilation"))
        size = (n + 2 * padding - dilation * (kernel[k] - 1) - 1) // stride + 1
        index.append(np.arange(size)[:, None] * stride - padding + np.arange(kernel[k]) * dilation)
    channels = columns[-2] // prod(kernel)
    return (*columns[:-2], channels, *kernel, *(len(i) for i in index)), index


def im2col(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    n = len(operand.shape)
    split, index = _patches(op, operand.shape, op.shape)
    for k, d in enumerate((n - 2, n - 1)):
        if d in extent.dims:
            before, after = max(-int(index[k].min()), 0), max(int(index[k].max()) + 1 - operand.shape[d], 0)
            extent = intervals.pad(extent, d, before, after, "constant")
            extent = intervals.unfolded(extent, d, index[k] + before, n + k)
    extent = extent.moved({**{d: d for d in range(n - 2)}, n - 2: n, n - 1: n + 1, n: n - 2, n + 1: n - 1})
    return intervals.reshaped(extent, split, op.shape)


def col2im(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    n = len(op.shape)
    split, index = _patches(op, op.shape, operand.shape)
    extent = intervals.reshaped(extent, operand.shape, split)
    for k, d in enumerate((n - 2, n - 1)):
        if {d, d + 2} & set(extent.dims):
            extent = intervals.folded(extent, d, index[k], op.shape[d])
    return extent


def strided(op: Op, reads: Sequence[Read]) -> Extent:
    if not reads[0][1].dims:
        return reads[0][1]
    raise NoIntervalError("a view by strides")


def chosen(op: Op, reads: Sequence[Read]) -> Extent:
    """Data selects the positions, so that every one may be read."""
    if not any(extent.dims for _, extent in reads):
        return hull([extent for _, extent in reads])
    raise NoIntervalError("positions that depend on values")


def index(op: Op, reads: Sequence[Read]) -> Extent:
    """x[i, j, ...] and index_select, if the indices do not depend on data and the axis is not among several of them."""
    operand, extent = reads[0]
    single = "dim" in op.arguments
    indices: dict[int, Operand]
    if single:
        indices = {_dim(op, len(operand.shape)): op.arguments["index"]}
    else:
        indices = {d: i for d, i in enumerate(op.arguments["indices"]) if i is not None}
    if operand is not op.arguments["self"] or len(reads) > 1:
        return chosen(op, reads)
    if len(indices) == 1:
        ((dim, index),) = indices.items()
        if len(index.shape) <= 1 and (dim not in extent.dims or index.values is not None):
            return extent if dim not in extent.dims else extent.take(dim, np.asarray(index.values).reshape(-1))
    if indices.keys() & set(extent.dims):
        return chosen(op, reads)
    # Advanced indexing puts the indexed dimensions where the first of them stood, or in front if they are apart.
    n = max(len(i.shape) for i in indices.values())
    found = sorted(indices)
    at = found[0] if found == list(range(found[0], found[-1] + 1)) else 0
    left = [d for d in range(len(operand.shape)) if d not in indices]
    return extent.moved({d: k if k < at else k + n for k, d in enumerate(left)})


def put(op: Op, reads: Sequence[Read]) -> Extent:
    """x[i] = y, index_copy, index_fill; x[i] += y, index_add: one index without data says where y goes."""
    a = op.arguments
    kept, written = a["self"], next((a[name] for name in ("values", "source", "value") if name in a), None)
    places = {_dim(op, len(kept.shape)): a["index"]} if "dim" in a else dict(enumerate(a["indices"]))
    given = {d: i for d, i in places.items() if i is not None}
    ((dim, index),) = given.items() if len(given) == 1 else ((0, Operand(())),)
    if index.values is None or any(operand is not kept and operand is not written for operand, _ in reads):
        return chosen(op, reads)
    found = {id(operand): extent for operand, extent in reads}
    before, new = (found.get(id(operand), Extent.nothing()) for operand in (kept, written))
    n, at = len(op.shape), [i % op.shape[dim] for i in index.values]
    new = new.shifted(n - len(written.shape)) if isinstance(written, Operand) else new
    is_sum = bool(a.get("accumulate")) or "index_add" in op.name
    matches = [(d, d, range(m), at if d == dim else range(m)) for d, m in enumerate(op.shape)]
    matches[dim] = dim, dim, range(len(at)), at
    put = intervals.overwritten(Extent.nothing() if is_sum else before, new, matches, op.shape)
    return hull([before, put]) if is_sum else put


def embedding(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    return extent if len(reads) == 1 and operand is op.arguments["indices"] else everywhere(op, reads)


def gather(op: Op, reads: Sequence[Read]) -> Extent:
    """Every position of one dimension may be read; position by position in all others."""
    dim = _dim(op, len(op.shape))
    extents = []
    for operand, extent in reads:
        if operand is not op.arguments.get("index"):
            extent = extent.over([dim])
        for d in extent.dims:
            extent = extent.take(d, slice(0, op.shape[d]))
        extents.append(extent)
    return hull(extents)


def scatter(op: Op, reads: Sequence[Read]) -> Extent:
    dim = _dim(op, len(op.shape))
    if any(dim in e.dims or (e.dims and o.shape != op.shape) for o, e in reads):
        return chosen(op, reads)
    return pointwise(op, reads)


def sampled(op: Op, reads: Sequence[Read]) -> Extent:
    """grid_sample: every position may be read if the grid depends on data."""
    if len(reads) == 1 and reads[0][0] is op.arguments["input"]:
        return chosen(op, reads)
    extent, dim = everywhere(op, reads), len(op.shape) - 1
    # Each position reads anything, and is a position still.
    return extent.laid_over([dim]).take(dim, np.zeros(op.shape[dim], dtype=int))


def overwrite(op: Op, reads: Sequence[Read]) -> Extent:
    found = {id(operand): extent for operand, extent in reads}
    nothing = Extent.nothing()
    kept, written = (found.get(id(op.arguments.get(name)), nothing) for name in ("kept", "written"))
    if op.arguments["is_reshaped"]:
        return intervals.reshaped(written, op.arguments["written"].shape, op.shape)
    if op.arguments["matches"] is None:
        raise NoIntervalError("a write in place through a view that overlaps in an irregular way")
    return intervals.overwritten(kept, written, op.arguments["matches"], op.shape)


def loss(op: Op, reads: Sequence[Read]) -> Extent:
    """Position by position, or all positions if the result is reduced to one number."""
    return (pointwise if op.shape == op.arguments["self"].shape else everywhere)(op, reads)


def pairs(op: Op, reads: Sequence[Read]) -> Extent:
    """A last dimension of two numbers becomes a complex number, or the reverse."""
    operand, extent = reads[0]
    return extent.over([len(operand.shape) - 1]) if len(op.shape) < len(operand.shape) else extent
