"""Receptive fields by autograd: the support of a unit's gradient in a positive, linear, one-dimensional twin.

The model's own forward runs; only single functions are replaced by linear ones. This check therefore uses neither the
operator table nor the intervals that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from resattn.measures.roles import MASK


class WitnessError(ValueError):
    """There is no linear twin of the model; the message names the function or module."""


@dataclass(frozen=True)
class Support:
    """The weight of each input row for one output row: `weights` (rows,), summing to 1, zero for unseen rows."""

    weights: np.ndarray
    position: int

    @property
    def low(self) -> int:
        """The first input row that is seen."""
        return int(np.flatnonzero(self.weights)[0])

    @property
    def high(self) -> int:
        """The last input row that is seen."""
        return int(np.flatnonzero(self.weights)[-1])

    @property
    def side_px(self) -> int:
        return self.high - self.low + 1

    def central(self, share: float) -> tuple[int, int]:
        """First and last row of the middle range that leaves (1 - share) / 2 of the weight outside on either side."""
        total = np.cumsum(self.weights)
        tail = (1 - share) / 2
        return int(np.searchsorted(total, tail)), int(np.searchsorted(total, 1 - tail))


def gradient_support(
    model: nn.Module, input_shape: tuple[int, int], path: str, *, position: int | None = None, has_masks: bool = True
) -> Support:
    """The input rows that one row of the output of module `path` sees.

    `input_shape`: channels and rows. The input of the twin has one column, and one column of each square kernel is
    kept. `position`: the row of the output (default: the middle one). Without masks, each module named `mask` gives 0.
    The model may be on the meta device: its weights are not read. Convolutions and max poolings become means;
    activations, gates and norms the identity; a product of two tensors their sum; all in float64. Group and instance
    norms add the mean of all rows, which their statistics read.

    Raises: WitnessError.
    """
    positions = None if position is None else (position,)
    return gradient_supports(model, input_shape, path, positions=positions, has_masks=has_masks)[0]


def gradient_supports(
    model: nn.Module,
    input_shape: tuple[int, int],
    path: str,
    *,
    positions: Sequence[int] | None = None,
    n_middle: int = 1,
    has_masks: bool = True,
) -> list[Support]:
    """As `gradient_support`, for several rows of the output: `positions`, or `n_middle` rows around the middle one."""
    x = torch.ones(1, *input_shape, 1, dtype=torch.float64, requires_grad=True)
    out = _output_of(model, x, path, has_masks)
    low = max(0, out.shape[2] // 2 - n_middle // 2)
    supports = []
    for at in range(low, min(low + n_middle, out.shape[2])) if positions is None else positions:
        (gradient,) = torch.autograd.grad(out[:, :, at].sum(), x, retain_graph=True)
        weights = gradient.sum((0, 1, 3)).numpy()
        if not weights.any():
            raise WitnessError(f"row {at} of {path} depends on no row of the input")
        supports.append(Support(weights / weights.sum(), at))
    return supports


class _ReachedError(Exception):
    """The forward pass came to the module whose output is wanted; not an error of anyone."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _output_of(model: nn.Module, x: Tensor, path: str, has_masks: bool) -> Tensor:
    try:
        wanted = model.get_submodule(path)
    except AttributeError as error:
        raise WitnessError(f"the model has no module {path!r}") from error

    def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise _ReachedError(output)

    def nothing(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    masks = [] if has_masks else [m for name, m in model.named_modules() if name.rpartition(".")[2] == MASK]
    hooks = [wanted.register_forward_hook(stop), *(mask.register_forward_hook(nothing) for mask in masks)]
    try:
        with _LinearTwin():
            model(x)
    except _ReachedError as reached:
        return reached.output
    finally:
        for hook in hooks:
            hook.remove()
    raise WitnessError(f"module {path!r} is never executed")


class _LinearTwin(TorchFunctionMode):
    """Every torch function that a forward pass calls, replaced by its row in `TWINS`; one without a row is refused."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        if name in AS_IT_IS or all(t.is_meta for t in tensors):  # what only prepares weights has no values
            return func(*args, **(kwargs or {}))
        if name not in TWINS:
            raise WitnessError(f"no linear twin for the function {name}")
        return TWINS[name](*args, **(kwargs or {}))


def _first(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _sum(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    """In place of a product: a gate's value is no constant, and both sides are seen; a weight by itself is not."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return y if x.is_meta else x if y.is_meta else x + y
    return x * y


def _added(x: Any, y: Any, *_: Any, **__: Any) -> Any:
    """A sum, never in place: what a convolution gives here is one channel, seen many times."""
    return _sum(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x + y


def _convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """Every output channel is the mean over the window in all input channels."""
    rows, channels = weight.shape[2], x.shape[1]
    mean = torch.full((1, channels, rows, 1), 1 / (channels * rows), dtype=x.dtype)
    if isinstance(padding, str):
        reach = _row(dilation) * (rows - 1) if padding == "same" else 0
        x, padding = F.pad(x, (0, 0, reach // 2, reach - reach // 2)), 0
    out = F.conv2d(x, mean, None, (_row(stride), 1), (_row(padding), 0), (_row(dilation), 1))
    return out.expand(-1, weight.shape[0], -1, -1)


def _transposed(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    rows, channels = weight.shape[2], x.shape[1]
    mean = torch.full((channels, 1, rows, 1), 1 / (channels * rows), dtype=x.dtype)
    out = F.conv_transpose2d(
        x, mean, None, (_row(stride), 1), (_row(padding), 0), (_row(output_padding), 0), 1, (_row(dilation), 1)
    )
    return out.expand(-1, weight.shape[1] * groups, -1, -1)


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    return x.mean(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[0])


def _padded(x: Tensor, pad: Sequence[int], *_: Any, **__: Any) -> Tensor:
    """Rows and channels alone are padded: the one column stays one. Any mode pads alike: no row is seen by more."""
    return F.pad(x, (0, 0, *pad[2:])) if x.dim() == 4 else F.pad(x, list(pad))


def _layer_norm(x: Tensor, normalized_shape: Sequence[int], *_: Any, **__: Any) -> Tensor:
    if len(normalized_shape) != 1:
        raise WitnessError("no linear twin for the function layer_norm over positions")
    return x


def _by_its_statistics(x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Mean and variance of all rows scale each."""
    return x + x.mean(tuple(range(2, x.dim())), keepdim=True)


def _resized(x: Tensor, size: Any = None, scale_factor: Any = None, *rest: Any, **options: Any) -> Tensor:
    """Rows alone are resized: the one column stays one."""
    sizes = None if size is None else (_row(size), x.shape[3])
    scales = None if scale_factor is None else (float(_first_of(scale_factor)), 1.0)
    return F.interpolate(x, sizes, scales, *rest, **options)


def _gridded(x: Tensor, output_size: Any) -> Tensor:
    return F.adaptive_avg_pool2d(x, (_first_of(output_size) or x.shape[2], 1))


def _averaged(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, *_: Any, **__: Any
) -> Tensor:
    return _pooling(x, kernel_size, stride, padding, 1, ceil_mode)


def _pooling(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    **_: Any,
) -> Tensor:  # fmt: skip
    if _row(dilation) != 1:
        raise WitnessError("no linear twin for a dilated pooling")
    kernel = _row(kernel_size)
    step = kernel if stride is None or stride == [] else _row(stride)
    return F.avg_pool2d(x, (kernel, 1), (step, 1), (_row(padding), 0), ceil_mode)


def _row(value: Any) -> int:
    return int(_first_of(value))


def _first_of(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


# What moves, joins or averages values without weighing them; the shape and device of a tensor.
AS_IT_IS = frozenset(
    (
        "__get__", "__getitem__", "__len__", "size", "dim", "numel", "contiguous", "clone", "detach", "zeros_like",
        "cat", "concat", "stack", "permute", "transpose", "reshape", "view", "flatten", "unsqueeze",
        "squeeze", "split", "chunk", "unbind", "expand", "channel_shuffle", "mean", "sum", "to",
        "type", "type_as", "float", "stride", "is_floating_point", "repeat", "roll",
    )
)  # fmt: skip
TWINS: Mapping[str, Callable[..., Any]] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "linear": _linear,
    "pad": _padded,
    "interpolate": _resized,
    "adaptive_avg_pool2d": _gridded,
    "layer_norm": _layer_norm,
    **dict.fromkeys(("group_norm", "instance_norm"), _by_its_statistics),
    "avg_pool2d": _averaged,
    "norm": lambda x, p=2, dim=None, keepdim=False, **_: x.mean(dim, keepdim),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _pooling),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "mul_", "__imul__"), _sum),
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__"), _added),
    **dict.fromkeys(
        (
            "batch_norm", "normalize", "dropout", "relu", "relu_", "relu6",
            "leaky_relu", "leaky_relu_", "hardtanh", "hardtanh_", "gelu", "silu", "elu", "prelu", "hardswish",
            "softplus", "mish", "sigmoid", "sigmoid_", "hardsigmoid", "tanh", "dropout2d", "__truediv__", "div",
            "clamp",
        ),
        _first,
    ),
}  # fmt: skip
