"""Fast shape functions for the operators that convolutional networks execute most often.

Torch's own meta kernels give the same shapes (a test compares them), but those of convolution, batch norm and addition
are written in Python and take most of the time of a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _like(tensors: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """An empty result, where the arguments are plain enough for dtype and strides to be certain."""
    first = tensors[0]
    # A map of one position is contiguous both with channels first and last; its own strides say which it is.
    is_plain = all(t.dtype is first.dtype and t.is_contiguous() and t.stride()[-1:] in ((), (1,)) for t in tensors)
    if is_plain and first.is_floating_point():
        return torch.empty(shape, dtype=first.dtype, device="meta")
    return None


def _convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> Any:
    n = weight.dim() - 2
    if transposed or x.dim() != n + 2 or not len(stride) == len(padding) == len(dilation) == n:
        return None
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    if min(sizes) < 1 or x.shape[1] != weight.shape[1] * _[-1]:
        return None  # the kernel's own error says it best
    return _like([x, weight], [x.shape[0], weight.shape[0], *sizes])


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *_: Any) -> Any:
    if training or any(t is not None and t.shape != (x.shape[1],) for t in (weight, bias, mean, var)):
        return None
    result = _like([x], x.shape)
    return None if result is None else (result, x.new_empty(0), x.new_empty(0))


def _broadcast(x: Tensor, y: Any, **_: Any) -> Any:
    if not isinstance(y, Tensor):
        return None if isinstance(y, complex) else _like([x], x.shape)
    return _like([x, y], x.shape) if x.shape == y.shape else None


def _resize(x: Tensor, output_size: Any, *_: Any) -> Any:
    return _like([x], [*x.shape[:-2], *output_size]) if x.dim() == 4 else None


def _max_pool(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    if x.dim() != 4 or len(kernel) != 2 or len(stride) != 2 or dilation not in (1, [1, 1]):
        return None
    pads = padding if isinstance(padding, list) else [padding] * 2
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        return None
    sizes = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, pads, strict=True):
        n = (size + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        # In ceil mode a window that would start in the right padding is left out.
        sizes.append(n - 1 if ceil_mode and (n - 1) * s >= size + p else n)
    values = _like([x], [*x.shape[:2], *sizes]) if min(sizes) >= 1 else None
    return None if values is None else (values, values.new_empty(values.shape, dtype=torch.int64))


def _mean(x: Tensor, dim: Any, keepdim: bool = False, **_: Any) -> Any:
    gone = {d % x.dim() for d in dim or range(x.dim())}
    shape = [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]
    return _like([x], shape) if not _ else None


def _addmm(bias: Tensor, x: Tensor, y: Tensor, **_: Any) -> Any:
    if x.shape[1] != y.shape[0] or bias.shape != y.shape[1:] or x.dtype is not y.dtype:
        return None
    return _like([x], [x.shape[0], y.shape[1]])


def _grouped_mm(x: Tensor, y: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    # Torch's own takes bfloat16 alone, because that is what its kernel for CUDA takes.
    if x.shape[-1] != y.shape[-2] or x.dtype is not y.dtype:
        return None
    sizes = [*x.shape[:-1], y.shape[-1]]
    if x.dim() == y.dim() == 2:
        sizes = [offs.shape[0], *sizes]
    elif x.dim() == 3 and y.dim() == 2:
        sizes = sizes[1:]
    return x.new_empty(sizes, dtype=out_dtype or x.dtype)


aten = torch.ops.aten
QUICK: dict[Any, Callable[..., Any]] = {
    aten.addmm.default: _addmm,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.mean.dim: _mean,
    aten.upsample_bilinear2d.default: _resize,
    aten.upsample_nearest2d.default: _resize,
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.add.Tensor: _broadcast,
    aten.mul.Tensor: _broadcast,
    aten.sigmoid.default: lambda x: _like([x], x.shape),
}
if hasattr(aten, "_grouped_mm"):  # from torch 2.7 on
    QUICK[aten._grouped_mm.default] = _grouped_mm
