"""The operator table: for each operator its cost, whether it is a weighted layer, and how it spreads positions.

A new operator is a new row. One without a row makes a result partial and is named: nothing is free by omission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from analysis import intervals
from analysis.graph import INPUT, OVERWRITE, Graph, Op, Operand
from analysis.intervals import Extent, NoIntervalError, hull, whole

Read = tuple[Operand, Extent]
Spread = Callable[[Op, Sequence[Read]], Extent]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: multiply-adds, whether it multiplies data by parameters, and how its operands' extents spread."""

    kind: str
    spread: Spread
    macs: Callable[[Op], int] = lambda op: 0
    is_layer: Callable[[Op], bool] = lambda op: False


def rule_for(op: Op) -> Rule | None:
    """The operator's row; None where it has none."""
    return RULES.get(op.name) or RULES.get(op.name.removesuffix("_"))


def unknown_ops(graph: Graph) -> list[Op]:
    return [op for op in graph.ops if rule_for(op) is None]


def layer_flags(graph: Graph) -> list[bool]:
    """For each operator whether it is a weighted layer: a convolution, or a matrix product with parameters."""
    return [(rule := rule_for(op)) is not None and rule.is_layer(op) for op in graph.ops]


# -- multiply-adds


def _convolution_macs(op: Op) -> int:
    x, weight = op.arguments["input"], op.arguments["weight"]
    # Each output of a convolution, and each input of a transposed one, meets one slice of the weight.
    meets = x.shape if op.arguments.get("transposed") else op.shape
    return prod(meets) * prod(weight.shape[1:])


def _matmul_macs(first: str, second: str) -> Callable[[Op], int]:
    def macs(op: Op) -> int:
        a, b = op.arguments[first].shape, op.arguments[second].shape
        return prod(a) * (b[-1] if len(b) > 1 else 1)

    return macs


def _linear_macs(op: Op) -> int:
    return prod(op.arguments["input"].shape) * prod(op.arguments["weight"].shape[:-1])


def _attention_macs(op: Op) -> int:
    query, key, value = (op.arguments[n].shape for n in ("query", "key", "value"))
    return prod(query) * key[-2] + prod(query[:-1]) * key[-2] * value[-1]


# -- weighted layers


def _reads_params(*names: str) -> Callable[[Op], bool]:
    def is_layer(op: Op) -> bool:
        return any(op.arguments[name].params for name in names)

    return is_layer


def _is_weighted_convolution(op: Op) -> bool:
    weight = op.arguments["weight"]
    # A weight that the data makes counts too; a constant one (a blur, a Sobel filter) does not.
    return bool(weight.params) or weight.producer is not None


# -- how positions spread


def _input_spread(op: Op, reads: Sequence[Read]) -> Extent:
    raise NoIntervalError("an input has no operands")


def _pointwise(op: Op, reads: Sequence[Read]) -> Extent:
    """Position by position, with broadcasting from the right."""
    extents = []
    for operand, extent in reads:
        if extent.dim is not None:
            extent = extent.moved_to(extent.dim + len(op.shape) - len(operand.shape))
            if len(extent) == 1 and op.shape[extent.dim] > 1:  # type: ignore[index]
                extent = extent.moved_to(None)
        extents.append(extent)
    return hull(extents)


def _everywhere(op: Op, reads: Sequence[Read]) -> Extent:
    return hull([whole(extent) for _, extent in reads])


def _spatial(op: Op, reads: Sequence[Read], n: int) -> tuple[Extent, int]:
    """The extent of the only operand that carries the axis, and which of its last n dimensions that is."""
    (operand, extent), *rest = reads
    if rest:
        return _everywhere(op, reads), -1
    return extent, -1 if extent.dim is None else extent.dim - (len(operand.shape) - n)


def _per_axis(value: Any, k: int, default: int) -> int:
    if not isinstance(value, tuple | list):
        return default if value is None else int(value)
    return default if not value else int(value[k] if len(value) > 1 else value[0])


def _convolution_spread(op: Op, reads: Sequence[Read]) -> Extent:
    a = op.arguments
    n = len(a["weight"].shape) - 2
    extent, k = _spatial(op, reads, n)
    if extent.dim is None:
        return extent
    if k < 0:
        return whole(extent) if k == -1 else extent
    kernel, stride = a["weight"].shape[2 + k], _per_axis(a["stride"], k, 1)
    padding, dilation = _per_axis(a["padding"], k, 0), _per_axis(a["dilation"], k, 1)
    n_out = op.shape[extent.dim]
    if a.get("transposed"):
        return intervals.transposed_window(extent, n_out, kernel, stride, padding, dilation)
    return intervals.window(extent, n_out, kernel, stride, padding, dilation)


def _pool(n: int) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        a = op.arguments
        extent, k = _spatial(op, reads, n)
        if k < 0:
            return extent
        kernel = _per_axis(a["kernel_size"], k, 1)
        stride, padding = _per_axis(a["stride"], k, kernel), _per_axis(a["padding"], k, 0)
        dilation = _per_axis(a.get("dilation"), k, 1)
        return intervals.window(extent, op.shape[extent.dim], kernel, stride, padding, dilation)  # type: ignore[index]

    return spread


def _adaptive(op: Op, reads: Sequence[Read]) -> Extent:
    extent, k = _spatial(op, reads, len(op.arguments["output_size"]))
    return extent if k < 0 else intervals.adaptive_window(extent, op.shape[extent.dim])  # type: ignore[index]


def _resize(n: int, resize: Callable[..., Extent], *fixed: Any) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        extent, k = _spatial(op, reads, n)
        if k < 0:
            return extent
        scales = [v for name, v in op.arguments.items() if name.startswith("scale")]
        factors = scales[0] if len(scales) == 1 and isinstance(scales[0], tuple) else scales
        arguments = fixed or (bool(op.arguments["align_corners"]),)
        return resize(extent, op.shape[extent.dim], *arguments, factors[k] if factors else None)  # type: ignore[index]

    return spread


def _padding(op: Op, reads: Sequence[Read]) -> Extent:
    pads, mode = op.arguments.get("pad") or op.arguments["padding"], "constant"
    for name in ("reflect", "replicate", "circular"):
        mode = name if name.replace("reflect", "reflection") in op.name or name in op.name else mode
    (operand, extent), *_ = reads
    if extent.dim is None:
        return extent
    k = len(operand.shape) - 1 - extent.dim
    if 2 * k >= len(pads):
        return extent
    before, after = pads[2 * k], pads[2 * k + 1]
    # Negative padding cuts.
    kept = extent.take(slice(max(-before, 0), len(extent) - max(-after, 0)))  # type: ignore[arg-type]
    return intervals.pad(kept, max(before, 0), max(after, 0), mode)


def _reduce(op: Op, reads: Sequence[Read]) -> Extent:
    if isinstance(op.arguments.get("other"), Operand):
        return _pointwise(op, reads)  # max(x, y), min(x, y)
    operand, extent = reads[0]
    gone = _dims(op.arguments.get("dim"), len(operand.shape))
    if extent.dim is None or extent.dim in gone:
        return whole(extent)
    kept = bool(op.arguments.get("keepdim"))
    return extent if kept else extent.moved_to(extent.dim - sum(d < extent.dim for d in gone))


def _dims(dim: Any, n: int) -> set[int]:
    if dim is None or dim == ():
        return set(range(n))
    return {d % n for d in (dim if isinstance(dim, tuple) else (dim,))}


def _along(op: Op, reads: Sequence[Read]) -> Extent:
    """Reads everything along one dimension and keeps its shape: softmax, cumulative sums, sorting."""
    operand, extent = reads[0]
    if extent.dim is not None and extent.dim in _dims(op.arguments.get("dim", -1), len(operand.shape)):
        return replace(whole(extent).stretched(len(extent)), dim=extent.dim)
    return extent


def _batch_norm(op: Op, reads: Sequence[Read]) -> Extent:
    # In evaluation a batch norm scales; without running statistics (an instance norm) it reads all positions.
    is_running = not op.arguments.get("training", False) and "no_stats" not in op.name
    extent = _pointwise(op, reads[:1])
    return extent if is_running or extent.dim == 1 else whole(extent)


def _layer_norm(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    normalised = len(op.arguments["normalized_shape"])
    return whole(extent) if extent.dim is not None and extent.dim >= len(operand.shape) - normalised else extent


def _matmul_spread(first: str, second: str) -> Spread:
    def spread(op: Op, reads: Sequence[Read]) -> Extent:
        extents = []
        for operand, extent in reads:
            n, dim = len(operand.shape), extent.dim
            is_first = operand is op.arguments.get(first)
            is_second = operand is op.arguments.get(second)
            if dim is None or not (is_first or is_second):
                extents.append(extent)  # an addend: as broadcast below
                continue
            contracted = n - 1 if is_first else max(n - 2, 0)
            if dim == contracted:
                extents.append(whole(extent))
            else:
                extents.append(extent.moved_to(dim + len(op.shape) - n))
        return hull(extents)

    return spread


def _join(op: Op, reads: Sequence[Read]) -> Extent:
    """cat: end to end along the joined dimension, position by position in all others."""
    parts = op.arguments["tensors"]
    dim = int(op.arguments.get("dim") or 0) % len(op.shape)
    found = {id(operand): extent for operand, extent in reads}
    if not any(e.dim == dim for e in found.values()):
        return _pointwise(op, reads)
    if any(e.dim not in (dim, None) for e in found.values()):
        raise NoIntervalError("joined tensors carry the axis in different dimensions")
    return intervals.joined([(found.get(id(p)), p.shape[dim]) for p in parts if p.shape != (0,)], dim)


def _stack(op: Op, reads: Sequence[Read]) -> Extent:
    dim = int(op.arguments.get("dim") or 0) % len(op.shape)
    return hull([_inserted(extent, dim) for _, extent in reads])


def _inserted(extent: Extent, dim: int) -> Extent:
    return extent if extent.dim is None or extent.dim < dim else extent.moved_to(extent.dim + 1)


def _reshape(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    return intervals.reshaped(extent, operand.shape, op.shape)


def _permute(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    n = len(operand.shape)
    if extent.dim is None:
        return extent
    if "dims" in op.arguments:
        return extent.moved_to([d % n for d in op.arguments["dims"]].index(extent.dim))
    dims = list(range(n))
    a, b = (int(op.arguments[k]) % n for k in ("dim0", "dim1")) if "dim0" in op.arguments else (0, n - 1)
    dims[a], dims[b] = dims[b], dims[a]
    return extent.moved_to(dims.index(extent.dim))


def _unsqueeze(op: Op, reads: Sequence[Read]) -> Extent:
    return _inserted(reads[0][1], int(op.arguments["dim"]) % len(op.shape))


def _expand(op: Op, reads: Sequence[Read]) -> Extent:
    return _pointwise(op, reads)


def _slice(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = int(op.arguments.get("dim") or 0) % len(operand.shape)
    if extent.dim != dim:
        return extent
    n = len(extent)
    start, stop, step = (op.arguments.get(k) for k in ("start", "end", "step"))
    return extent.take(slice(*slice(start, stop, step or 1).indices(n)))  # type: ignore[arg-type]


def _select(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    dim = int(op.arguments.get("dim") or 0) % len(operand.shape)
    if extent.dim is None or dim > extent.dim:
        return extent
    if dim < extent.dim:
        return extent.moved_to(extent.dim - 1)
    index = int(op.arguments["index"]) % len(extent)
    return extent.take(slice(index, index + 1)).moved_to(None)  # type: ignore[arg-type]


def _narrowed(op: Op, reads: Sequence[Read]) -> Extent:
    """split, chunk, unbind: several results, of which the first's shape is known here."""
    operand, extent = reads[0]
    dim = int(op.arguments.get("dim") or 0) % len(operand.shape)
    if extent.dim is None or extent.dim != dim:
        gone = op.name == "aten.unbind" and extent.dim is not None and extent.dim > dim
        return extent.moved_to(extent.dim - 1) if gone else extent  # type: ignore[operator]
    raise NoIntervalError("a split along the axis itself")


def _flip(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    is_flipped = extent.dim in _dims(op.arguments["dims"], len(operand.shape))
    return extent.take(slice(None, None, -1)) if is_flipped else extent  # type: ignore[arg-type]


def _roll(op: Op, reads: Sequence[Read]) -> Extent:
    import numpy as np

    operand, extent = reads[0]
    for shift, dim in zip(op.arguments["shifts"], op.arguments["dims"], strict=True):
        if extent.dim == dim % len(operand.shape):
            extent = extent.take(np.roll(np.arange(len(extent)), shift))
    return extent


def _pixel_shuffle(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    if extent.dim is None or extent.dim < len(operand.shape) - 2:
        return whole(extent)
    factor = int(op.arguments.get("upscale_factor") or op.arguments.get("downscale_factor"))
    if "unshuffle" in op.name:
        return intervals.window(extent, len(extent) // factor, factor, factor, 0)
    return intervals.nearest_resize(extent, len(extent) * factor, False)


def _halves(op: Op, reads: Sequence[Read]) -> Extent:
    operand, extent = reads[0]
    if extent.dim in _dims(op.arguments.get("dim", -1), len(operand.shape)):
        raise NoIntervalError("a gate between two halves of the axis")
    return extent


def _im2col(op: Op, reads: Sequence[Read]) -> Extent:
    raise NoIntervalError("unfolded patches, whose positions share one dimension")


def _overwrite_spread(op: Op, reads: Sequence[Read]) -> Extent:
    if any(operand.shape != op.shape for operand, _ in reads):
        raise NoIntervalError("a write in place through a view of another shape")
    return _pointwise(op, reads)


# -- the table


def _rows(names: str, rule: Rule) -> Iterable[tuple[str, Rule]]:
    return ((f"aten.{name}", rule) for name in names.split())


def _matmul(first: str, second: str) -> Rule:
    macs = _matmul_macs(first, second)
    return Rule("matmul", _matmul_spread(first, second), macs, _reads_params(first, second))


RULES: dict[str, Rule] = {
    INPUT: Rule("input", _input_spread),
    OVERWRITE: Rule("view", _overwrite_spread),
    **dict(
        row
        for rows in (
            _rows(
                "convolution conv1d conv2d conv3d _convolution mkldnn_convolution cudnn_convolution miopen_convolution",
                Rule("convolution", _convolution_spread, _convolution_macs, _is_weighted_convolution),
            ),
            _rows("mm", _matmul("self", "mat2")),
            _rows("bmm", _matmul("self", "mat2")),
            _rows("mv", _matmul("self", "vec")),
            _rows("dot", _matmul("self", "tensor")),
            _rows("addmm", _matmul("mat1", "mat2")),
            _rows("_addmm_activation", _matmul("mat1", "mat2")),
            _rows("addmv", _matmul("mat", "vec")),
            _rows("baddbmm addbmm", _matmul("batch1", "batch2")),
            _rows("linear", Rule("matmul", _matmul_spread("input", "weight"), _linear_macs, _reads_params("weight"))),
            _rows(
                "scaled_dot_product_attention _scaled_dot_product_flash_attention "
                "_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_cudnn_attention "
                "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math",
                Rule("attention", _everywhere, _attention_macs),
            ),
            _rows(
                "native_batch_norm batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training miopen_batch_norm "
                "_native_batch_norm_legit _batch_norm_with_update _batch_norm_no_update instance_norm",
                Rule("norm", _batch_norm),
            ),
            _rows("native_layer_norm layer_norm rms_norm _fused_rms_norm", Rule("norm", _layer_norm)),
            _rows("native_group_norm group_norm", Rule("norm", _everywhere)),
            _rows("max_pool1d avg_pool1d max_pool1d_with_indices", Rule("pool", _pool(1))),
            _rows("max_pool2d max_pool2d_with_indices avg_pool2d mkldnn_max_pool2d", Rule("pool", _pool(2))),
            _rows("max_pool3d max_pool3d_with_indices avg_pool3d", Rule("pool", _pool(3))),
            _rows(
                "adaptive_avg_pool1d _adaptive_avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool3d "
                "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
                Rule("pool", _adaptive),
            ),
            _rows("upsample_linear1d", Rule("resize", _resize(1, intervals.linear_resize))),
            _rows("upsample_bilinear2d", Rule("resize", _resize(2, intervals.linear_resize))),
            _rows("upsample_trilinear3d", Rule("resize", _resize(3, intervals.linear_resize))),
            _rows("upsample_bicubic2d", Rule("resize", _resize(2, intervals.cubic_resize))),
            _rows("upsample_nearest1d", Rule("resize", _resize(1, intervals.nearest_resize, False))),
            _rows("upsample_nearest2d", Rule("resize", _resize(2, intervals.nearest_resize, False))),
            _rows("upsample_nearest3d", Rule("resize", _resize(3, intervals.nearest_resize, False))),
            _rows("_upsample_nearest_exact1d", Rule("resize", _resize(1, intervals.nearest_resize, True))),
            _rows("_upsample_nearest_exact2d", Rule("resize", _resize(2, intervals.nearest_resize, True))),
            _rows("_upsample_nearest_exact3d", Rule("resize", _resize(3, intervals.nearest_resize, True))),
            _rows(
                "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
                "replication_pad2d replication_pad3d",
                Rule("pad", _padding),
            ),
            _rows(
                "mean sum amax amin max min prod std var std_mean var_mean logsumexp norm linalg_vector_norm all any "
                "argmax argmin median count_nonzero",
                Rule("reduce", _reduce),
            ),
            _rows(
                "_softmax _log_softmax softmax log_softmax cumsum cumprod sort topk argsort logcumsumexp",
                Rule("along", _along),
            ),
            _rows("_safe_softmax", Rule("along", _along)),
            _rows("cat concat", Rule("join", _join)),
            _rows("stack", Rule("join", _stack)),
            _rows(
                "view _unsafe_view reshape _reshape_alias flatten unflatten view_copy squeeze", Rule("view", _reshape)
            ),
            _rows("permute transpose t swapaxes", Rule("view", _permute)),
            _rows("unsqueeze", Rule("view", _unsqueeze)),
            _rows("expand broadcast_to", Rule("view", _expand)),
            _rows("slice narrow", Rule("view", _slice)),
            _rows("select", Rule("view", _select)),
            _rows("split split_with_sizes chunk unbind unsafe_split unsafe_chunk", Rule("view", _narrowed)),
            _rows("flip", Rule("view", _flip)),
            _rows("roll", Rule("view", _roll)),
            _rows("pixel_shuffle pixel_unshuffle", Rule("view", _pixel_shuffle)),
            _rows("channel_shuffle native_channel_shuffle", Rule("view", _pointwise)),
            _rows("im2col col2im unfold", Rule("view", _im2col)),
            _rows(
                "index index_select gather take embedding scatter scatter_add index_put index_add masked_select "
                "grid_sampler_2d grid_sampler_3d",
                Rule("index", _everywhere),
            ),
            _rows(
                # arithmetic
                "add sub rsub mul div addcmul addcdiv pow sqrt rsqrt square reciprocal neg abs sign exp exp2 expm1 log "
                "log2 log10 log1p sin cos tan atan atan2 asin acos floor ceil round trunc frac remainder fmod "
                "floor_divide maximum minimum fmax fmin clamp clamp_min clamp_max lerp where masked_fill "
                "eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not "
                "isnan isinf isfinite nan_to_num erf erfc "
                # activations
                "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid log_sigmoid_forward tanh hardtanh "
                "hardsigmoid hardswish hardshrink softshrink softplus threshold _prelu_kernel rrelu_with_noise "
                "native_dropout dropout sinh cosh asinh acosh atanh "
                # the same values elsewhere
                "clone copy contiguous _to_copy to alias detach lift_fresh resolve_conj resolve_neg "
                "fill zero bernoulli _conj view_as",
                Rule("pointwise", _pointwise),
            ),
            _rows("glu", Rule("pointwise", _halves)),
        )
        for row in rows
    ),
}
