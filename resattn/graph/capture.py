"""Captures a model: one forward pass gives the graph of executed operators."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from resattn.graph.calls import Calls, Replay, changed
from resattn.graph.errors import NEEDS_VALUES, NO_VALUES, CaptureError, NeedsValuesError, line_of, shortened
from resattn.graph.graph import Graph, Shape
from resattn.graph.inputs import Inputs
from resattn.graph.recorder import Recorder
from resattn.graph.walk import Index, leaves_of

if TYPE_CHECKING:
    from resattn.rules.rule import Rule


# What a pass ran: the name of each operator, its module and the shapes of its results, in order.
Log = list[tuple[str, str, Any]]


def capture(
    model: nn.Module, *args: Any, rule_of: Callable[[str], Rule | None], device: str = "meta",
    index: Index | None = None, log: Log | None = None, **kwargs: Any,
) -> Graph:  # fmt: skip
    """The graph of one forward pass in evaluation mode.

    `args`, `kwargs`: example tensors as the forward takes them, or shapes with their batch dimension. An `Indices` is
    the shape of an input of integers (on "cpu" filled with zeros, which every table has a row for). `rule_of`: from an
    operator's name to its row in the operator table; the graph keeps the row with the operator.
    On "meta" nothing is computed and no memory is used: parameters on other devices are replaced by meta tensors of the
    same shape and strides. On "cpu" the pass is real, and the graph holds for this input alone (drawn from a fixed seed
    if only a shape is given). Parameters, buffers and training flags are left as they were.
    `index`: the index of the model, if it is known. `log`: receives what ran, including constants; see `replay`.

    Raises: CaptureError if the forward fails, NeedsValuesError if it needs values that "meta" does not have.
    """
    with without_collection() if device == "meta" else nullcontext():
        return _captured(model, Inputs.of(args, kwargs), rule_of, device, index, log)


def _captured(
    model: nn.Module, inputs: Inputs, rule_of: Callable[[str], Rule | None], device: str, index: Index | None,
    log: Log | None,
) -> Graph:  # fmt: skip
    recorder = Recorder(model, rule_of, device, index)
    args, kwargs, tensors = inputs.on(device, recorder.dtype)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    values = inputs.integers(recorder.dtype) if recorder.is_meta else {}
    for k, tensor in enumerate(tensors):
        recorder.start(tensor, values.get(k))
    try:
        with _passing(recorder, device):
            result = model(*args, **kwargs)
            results = [recorder.operand(t) for t in leaves_of(result)]
    except Exception as error:
        where = shortened(recorder.failed_at or type(model).__name__)
        if line := line_of(error):
            where += f", {line}"
        if isinstance(error, NeedsValuesError) or (recorder.is_meta and any(s in str(error) for s in NO_VALUES)):
            reason = str(error) if isinstance(error, NeedsValuesError) else NEEDS_VALUES
            raise NeedsValuesError(f"{reason} (in {where})", recorder.graph([], shapes)) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = ": ".join([type(error).__name__, *lines[:1]])
        raise CaptureError(f"{reason} (in {where}, input {_shapes(shapes)})", recorder.graph([], shapes)) from error
    if log is not None:
        log[:] = recorder.log
    outputs = dict.fromkeys((o.producer, o.slot) for o in results)
    returned = frozenset(name for o in results for name in o.params)
    return recorder.graph([producer for producer, _ in outputs if producer is not None], shapes, returned)


def replay(index: Index, inputs: Inputs, rule_of: Callable[[str], Rule | None]) -> Log:
    """The log of one more pass on meta, without a graph. Two passes with equal logs have equal graphs.

    Raises: any exception of the forward.
    """
    replayed = Replay(index, rule_of, "meta")
    args, kwargs, tensors = inputs.on("meta", replayed.dtype)
    for k, value in inputs.integers(replayed.dtype).items():
        replayed.know(tensors[k], value)
    with _passing(replayed, "meta"):
        index.model(*args, **kwargs)
    return replayed.log


@contextmanager
def _passing(recorder: Calls, device: str) -> Iterator[None]:
    torch.clear_autocast_cache()  # it would hand out casts of the parameters that no one saw being made
    with (
        recorder.restoring(),
        torch.no_grad(),
        without_fast_path(),
        without_compiler(),
        recorder.watching_calls(),
        recorder,
    ):
        yield


@contextmanager
def without_compiler() -> Iterator[None]:
    """What torch.compile wraps runs as it was written: compiled, it would run the capture's own code through it."""

    def unchanged(model: Any = None, **options: Any) -> Any:
        return model if model is not None else unchanged

    # Only a model that is compiled already has imported the compiler, which takes seconds.
    is_imported = "torch._dynamo" in sys.modules
    with (
        torch.compiler.set_stance("force_eager") if is_imported else nullcontext(),
        changed([(torch, "compile", unchanged)]),
    ):
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection in the block: a capture makes little garbage, and a collection walks the whole graph."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Inside the block, attention runs as its separate operators and not as one fused call."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _shapes(shapes: Sequence[Shape]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)
