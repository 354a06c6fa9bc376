"""From a model and input shapes to the graph of what one forward pass executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resattn.graph.errors import NEEDS_VALUES, NO_VALUES, CaptureError, NeedsValuesError
from resattn.graph.graph import Graph, Indices, Shape
from resattn.graph.recorder import Recorder
from resattn.graph.walk import leaves_of

if TYPE_CHECKING:
    from resattn.rules.rule import Rule


def capture(
    model: nn.Module,
    *input_shapes: Sequence[int],
    rule_of: Callable[[str], Rule | None],
    device: str = "meta",
    inputs: Sequence[Tensor] = (),
) -> Graph:
    """The graph of one forward pass in evaluation mode, each input shape with its batch dimension.

    `rule_of` gives an operator's row in the operator table by its name, which the graph keeps with the operator.
    An input whose shape is `Indices` holds integers (on "cpu": zeros, which index every table).
    On "meta" nothing is computed and no memory is used: parameters on other devices are replaced by meta tensors of
    the same shape and strides. On "cpu" the pass is real and the graph holds for this input alone (drawn from a fixed
    seed unless `inputs` are given). Parameters, buffers and training flags are left as they were.

    Raises: CaptureError if the forward fails, NeedsValuesError if it needs values that "meta" lacks.
    """
    shapes = tuple(tuple(int(n) for n in shape) for shape in input_shapes)
    recorder = Recorder(model, rule_of, device)
    tensors = tuple(inputs) or tuple(
        _input(shape, device, torch.int64 if isinstance(asked, Indices) else recorder.dtype)
        for asked, shape in zip(input_shapes, shapes, strict=True)
    )
    for tensor in tensors:
        recorder.start(tensor)
    torch.clear_autocast_cache()  # it would hand out casts of the parameters that no one saw being made
    try:
        with recorder.restoring(), torch.no_grad(), _no_fast_path(), recorder.watching_calls(), recorder:
            result = model(*tensors)
            outputs = dict.fromkeys((o.producer, o.slot) for o in map(recorder.operand, leaves_of(result)))
    except Exception as error:
        where = recorder.failed_at or type(model).__name__
        if isinstance(error, NeedsValuesError) or (recorder.is_meta and any(s in str(error) for s in NO_VALUES)):
            raise NeedsValuesError(f"{NEEDS_VALUES} (in {where})") from error
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise CaptureError(f"{reason} (in {where}, input {_shapes(shapes)})", recorder.graph([], shapes)) from error
    return recorder.graph([producer for producer, _ in outputs if producer is not None], shapes)


def _input(shape: Shape, device: str, dtype: torch.dtype) -> Tensor:
    if device == "meta":
        return torch.empty(shape, device="meta", dtype=dtype)
    if dtype == torch.int64:
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Attention is captured as the operators it stands for, not as one fused call."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _shapes(shapes: Sequence[Shape]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)
