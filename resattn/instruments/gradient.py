"""What a unit sees, by autograd: the support of its gradient in a positive, linear, one-dimensional twin of a model.

The model's own forward runs; only what single functions compute is replaced. So this knows nothing of the operator
table and the intervals that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resattn.measures.roles import MASK


class WitnessError(ValueError):
    """A model that the twin cannot stand for; the message names the function or module."""


@dataclass(frozen=True)
class Support:
    """The weight that each input row has for one output row: `weights` (rows,), summing to 1, zero where unseen."""

    weights: np.ndarray
    position: int

    @property
    def low(self) -> int:
        """The first row that is seen."""
        return int(np.flatnonzero(self.weights)[0])

    @property
    def high(self) -> int:
        """The last row that is seen."""
        return int(np.flatnonzero(self.weights)[-1])

    @property
    def side_px(self) -> int:
        return self.high - self.low + 1

    def central(self, share: float) -> tuple[int, int]:
        """First and last row of the middle stretch that leaves (1 - share) / 2 of the weight outside on either side."""
        total = np.cumsum(self.weights)
        tail = (1 - share) / 2
        return int(np.searchsorted(total, tail)), int(np.searchsorted(total, 1 - tail))


def gradient_support(
    model: nn.Module,
    input_shape: tuple[int, int],
    path: str,
    *,
    position: int | None = None,
    has_masks: bool = True,
) -> Support:
    """What one row of the map that module `path` gives sees of the input's rows.

    `input_shape`: channels and rows; the twin's input has one column, and of square kernels one column is kept.
    `position`: the row of the map (default: the middle one). Without masks, each module called `mask` gives nothing.
    The model may be on the meta device: its weights are not read. Convolutions and max poolings become means,
    activations, gates and norms the identity, a product of two tensors their sum; all in float64.

    Raises: WitnessError.
    """
    x = torch.ones(1, *input_shape, 1, dtype=torch.float64, requires_grad=True)
    out = _output_of(model, x, path, has_masks)
    at = out.shape[2] // 2 if position is None else position
    (gradient,) = torch.autograd.grad(out[:, :, at].sum(), x)
    weights = gradient.sum((0, 1, 3)).numpy()
    if not weights.any():
        raise WitnessError(f"row {at} of {path} depends on no row of the input")
    return Support(weights / weights.sum(), at)


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
        if name in AS_IT_IS:
            return func(*args, **(kwargs or {}))
        if name not in TWINS:
            raise WitnessError(f"no linear twin for the function {name}")
        return TWINS[name](*args, **(kwargs or {}))


def _first(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _sum(x: Any, y: Any) -> Any:
    """In place of a product: a gate's value is no constant, and both sides are seen."""
    return x + y if isinstance(x, Tensor) and isinstance(y, Tensor) else x * y


def _convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    if isinstance(padding, str):
        raise WitnessError(f"no linear twin for a convolution with padding {padding!r}")
    rows, channels = weight.shape[2], x.shape[1]
    mean = torch.full((1, channels, rows, 1), 1 / (channels * rows), dtype=x.dtype)
    return F.conv2d(x, mean, None, (_row(stride), 1), (_row(padding), 0), (_row(dilation), 1))


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
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)


# What moves or joins values without weighing them; the shape and device of a tensor.
AS_IT_IS = frozenset(
    (
        "__get__", "__getitem__", "__len__", "size", "dim", "numel", "contiguous", "clone", "detach", "zeros_like",
        "add", "__add__", "__radd__", "__iadd__", "add_", "cat", "pad", "interpolate",
    )
)  # fmt: skip
TWINS: Mapping[str, Callable[..., Any]] = {
    "conv2d": _convolution,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _pooling),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "mul_"), _sum),
    **dict.fromkeys(
        (
            "batch_norm", "normalize", "dropout", "relu", "relu_", "relu6", "leaky_relu", "hardtanh", "gelu", "silu",
            "sigmoid", "sigmoid_", "tanh",
        ),
        _first,
    ),
}  # fmt: skip
