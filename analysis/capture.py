"""From a model and an input shape to the graph of what one forward pass executed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from analysis.graph import INPUT, OVERWRITE, Graph, Module, Op, Operand, Shape

# Their result depends on the shape of their argument, not on what is in it.
SHAPE_ONLY = frozenset(
    f"aten.{name}"
    for name in (
        "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
        "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "sym_size", "sym_numel",
    )
)  # fmt: skip


class CaptureError(RuntimeError):
    """The model's forward raised; the message gives its error and the module path at which it arose."""

    def __init__(self, message: str, graph: Graph | None = None) -> None:
        super().__init__(message)
        self.graph = graph


class NeedsValuesError(CaptureError):
    """The forward asks for the value of a tensor that depends on the input, which a meta tensor does not have."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a tensor came from. It hangs on the tensor itself, so it lives exactly as long."""

    recorder: Any
    producer: int | None
    slot: int
    params: tuple[str, ...]


def capture(
    model: nn.Module, *input_shapes: Sequence[int], device: str = "meta", inputs: Sequence[Tensor] = ()
) -> Graph:
    """The graph of one forward pass in evaluation mode, each input shape with its batch dimension.

    On "meta" nothing is computed and no memory taken: parameters elsewhere are stood in for. On "cpu" the pass is
    real and the graph holds for this input alone (drawn from a fixed seed unless `inputs` are given).

    Raises: CaptureError if the forward fails, NeedsValuesError if it needs values that "meta" lacks.
    """
    shapes = tuple(tuple(int(n) for n in shape) for shape in input_shapes)
    tensors = tuple(inputs) or tuple(_input(shape, device) for shape in shapes)
    recorder = _Recorder(model, device)
    for tensor in tensors:
        recorder.start(tensor)
    try:
        with _evaluating(recorder.modules), torch.no_grad(), _no_fast_path(), recorder.watching_calls(), recorder:
            result = model(*tensors)
    except Exception as error:
        where = recorder.failed_at or type(model).__name__
        if isinstance(error, NeedsValuesError):
            raise NeedsValuesError(f"{error} (in {where})") from error
        said = f"{type(error).__name__}: {error}".strip().splitlines()
        raise CaptureError(f"{said[0]} (in {where}, input {_shapes(shapes)})", recorder.graph([], shapes)) from error
    outputs = [o.producer for o in map(recorder.operand, _leaves(result)) if o.producer is not None]
    return recorder.graph(outputs, shapes)


def _input(shape: Shape, device: str) -> Tensor:
    if device == "meta":
        return torch.empty(shape, device="meta")
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap every call in a guard against its compiler, whose import alone takes longer than a capture.
        return False

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__()
        self.is_meta = device == "meta"
        self.ops: list[Op] = []
        self.model = model
        self.modules = list(_modules(model))
        self.paths = {id(m): path for path, m in self.modules}
        self.named: dict[int, str] = {}
        self.sizes: dict[str, int] = {}
        for name, param in _parameters(self.modules):
            if id(param) not in self.named:
                self.named[id(param)], self.sizes[name] = name, param.numel()
        self.strays: list[Tensor] = []
        self.executed: set[int] = set()
        self.stack: list[str] = []
        self.failed_at: str | None = None
        self.stand_ins: dict[int, Tensor] = {}
        self.writes: dict[int, tuple[int, int]] = {}

    # -- tensors and where they came from

    def start(self, tensor: Tensor) -> None:
        op = Op(len(self.ops), INPUT, "", {}, (tuple(tensor.shape),))
        self.ops.append(op)
        self._mark(tensor, op.index)

    def _mark(self, tensor: Tensor, producer: int | None, slot: int = 0, params: tuple[str, ...] = ()) -> None:
        tensor._resattn_origin = _Origin(self, producer, slot, params)  # type: ignore[attr-defined]

    def operand(self, tensor: Tensor) -> Operand:
        origin = getattr(tensor, "_resattn_origin", None)
        shape = tuple(tensor.shape)
        if origin is not None and origin.recorder is self:
            if self.writes and origin.producer is not None:
                origin = self._after_writes(tensor, origin)
            return Operand(shape, origin.producer, origin.slot, origin.params)
        if self.writes and (write := self.writes.get(_storage(tensor))):
            return Operand(shape, self._overwrite(tensor, None, write).producer)
        if isinstance(tensor, nn.Parameter) or id(tensor) in self.named:
            return Operand(shape, None, 0, (self._name(tensor),))
        return Operand(shape)

    def _name(self, param: Tensor) -> str:
        # A parameter that no registered module holds is kept alive here, so that its id stays its own.
        if id(param) not in self.named:
            name = f"{self.path}.parameter{len(self.strays) + 1}".lstrip(".")
            self.strays.append(param)
            self.named[id(param)], self.sizes[name] = name, param.numel()
        return self.named[id(param)]

    # -- writes in place: a tensor that shares the storage sees them

    def _after_writes(self, tensor: Tensor, origin: _Origin) -> _Origin:
        write = self.writes.get(_storage(tensor))
        if write is None or origin.producer is None or write[0] <= origin.producer:
            return origin
        return self._overwrite(tensor, origin, write)

    def _overwrite(self, tensor: Tensor, origin: _Origin | None, write: tuple[int, int]) -> _Origin:
        index, numel = write
        shape = tuple(tensor.shape)
        arguments = {"written": Operand(self.ops[index].shape, index)}
        if numel < tensor.numel() and origin is not None:
            arguments["kept"] = Operand(shape, origin.producer, origin.slot, origin.params)
        op = Op(len(self.ops), OVERWRITE, self.path, arguments, (shape,))
        self.ops.append(op)
        self._mark(tensor, op.index)
        return tensor._resattn_origin  # type: ignore[attr-defined, no-any-return]

    # -- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        signature = _signature(func)
        arguments = {**signature.defaults, **dict(zip(signature.names, args)), **kwargs}  # noqa: B905
        operands = {k: self._described(v) for k, v in arguments.items()}
        found = [o for v in operands.values() for o in (v if isinstance(v, tuple) else (v,)) if isinstance(o, Operand)]
        has_data = any(o.producer is not None for o in found)
        if self.is_meta:
            if has_data and signature.name == "aten._local_scalar_dense":
                raise NeedsValuesError(
                    "the forward needs the value of a tensor, which the meta device does not have: capture on the device 'cpu'"
                )
            result = self._run_on_meta(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
        outputs = _tensors(result)
        if has_data and signature.name not in SHAPE_ONLY:
            self._record(signature, operands, arguments, outputs)
        elif params := tuple(dict.fromkeys(p for o in found for p in o.params)):
            for tensor in outputs:
                if id(tensor) not in self.named:
                    self._mark(tensor, None, 0, params)
        return result

    def _record(self, signature: _Signature, operands: dict, arguments: dict, outputs: list[Tensor]) -> None:
        op = Op(len(self.ops), signature.name, self.path, operands, tuple(tuple(t.shape) for t in outputs))
        self.ops.append(op)
        for slot, tensor in enumerate(outputs):
            self._mark(tensor, op.index, slot)
        for name in signature.written:
            for tensor in _tensors(arguments.get(name)):
                self._mark(tensor, op.index)
                self.writes[_storage(tensor)] = (op.index, tensor.numel())

    def _described(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.operand(value)
        if isinstance(value, list | tuple):
            return tuple(self._described(v) for v in value)
        return value

    def _run_on_meta(self, func: Any, args: Any, kwargs: Any) -> Any:
        # Constants that the model makes as it goes (index tables, masks) stay real and are computed, until they
        # meet data; parameters never are, whatever device they live on.
        tensors = [*_tensors(args), *_tensors(kwargs)]
        if all(t.device.type != "meta" and not self._stands_for_data(t) for t in tensors):
            return func(*args, **kwargs)
        if (quick := QUICK.get(func)) and (result := quick(*args, **kwargs)) is not None:
            return result
        written = {id(t) for t in tensors if t.device.type != "meta"}
        result = func(*self._on_meta(args), **self._on_meta(kwargs))
        if written and _signature(func).written:
            return self._same_objects(func, args, kwargs, result)
        return result

    def _stands_for_data(self, tensor: Tensor) -> bool:
        if id(tensor) in self.named or isinstance(tensor, nn.Parameter):
            return True
        origin = getattr(tensor, "_resattn_origin", None)
        return origin is not None and origin.recorder is self

    def _on_meta(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.device.type == "meta":
                return value
            if id(value) not in self.named:
                return value.to("meta")
            if id(value) not in self.stand_ins:
                self.stand_ins[id(value)] = value.detach().to("meta")
            return self.stand_ins[id(value)]
        if isinstance(value, list | tuple):
            return type(value)(self._on_meta(v) for v in value)
        if isinstance(value, dict):
            return {k: self._on_meta(v) for k, v in value.items()}
        return torch.device("meta") if isinstance(value, torch.device) else value

    def _same_objects(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        # An in-place operator returns its own argument: here that is the real tensor, not its stand-in.
        arguments = dict(zip(_signature(func).names, args)) | kwargs  # noqa: B905
        targets = [arguments[name] for name in _signature(func).written if isinstance(arguments.get(name), Tensor)]
        return targets[0] if isinstance(result, Tensor) and targets else result

    # -- modules

    @property
    def path(self) -> str:
        return self.stack[-1] if self.stack else ""

    @contextmanager
    def watching_calls(self) -> Iterator[None]:
        original, recorder = nn.Module.__call__, self

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            recorder.executed.add(id(module))
            recorder.stack.append(recorder.paths.get(id(module)) or recorder._nameless(module))
            try:
                return original(module, *args, **kwargs)
            except Exception:
                recorder.failed_at = recorder.failed_at or recorder.path
                raise
            finally:
                recorder.stack.pop()

        with mock.patch.object(nn.Module, "__call__", call):
            yield

    def _nameless(self, module: nn.Module) -> str:
        return "" if module is self.model else f"{self.path}.{type(module).__name__}".lstrip(".")

    def graph(self, outputs: Sequence[int], shapes: tuple[Shape, ...]) -> Graph:
        modules = tuple(
            Module(
                path=path,
                kind=type(m).__name__,
                params=tuple(self.named[id(p)] for p in m.parameters(recurse=False)),
                is_executed=id(m) in self.executed,
                is_weighted=any(p.dim() >= 2 for p in m.parameters(recurse=False)),
            )
            for path, m in self.modules
        )
        return Graph(tuple(self.ops), tuple(dict.fromkeys(outputs)), dict(self.sizes), modules, shapes)


# Shapes of the operators that convolutional networks repeat by the thousand. Torch's own meta kernels give the same (a
# test compares them), but those of convolution, batch norm and addition are Python and cost most of a capture.


def _like(tensors: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """An empty result, where the arguments are plain enough for dtype and strides to be certain."""
    first = tensors[0]
    if all(t.dtype is first.dtype and t.is_contiguous() for t in tensors) and first.is_floating_point():
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
        return _like([x], x.shape)
    return _like([x, y], x.shape) if x.shape == y.shape else None


def _resize(x: Tensor, output_size: Any, *_: Any) -> Any:
    return _like([x], [*x.shape[:-2], *output_size]) if x.dim() == 4 else None


def _max_pool(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    if x.dim() != 4 or len(kernel) != 2 or len(stride) != 2 or dilation not in (1, [1, 1]):
        return None
    pads = padding if isinstance(padding, list) else [padding] * 2
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


aten = torch.ops.aten
QUICK = {
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


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]


@functools.cache
def _signature(func: Any) -> _Signature:
    schema = func._schema
    return _Signature(
        name=schema.name.replace("::", "."),
        names=tuple(a.name for a in schema.arguments),
        defaults={a.name: a.default_value if a.has_default_value() else None for a in schema.arguments},
        written=tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write),
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _leaves(result: Any) -> list[Tensor]:
    """The tensors in what a model returns, containers of its own included."""
    if dataclasses.is_dataclass(result) and not isinstance(result, dict):
        result = [getattr(result, f.name) for f in dataclasses.fields(result)]
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in arguments or results, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for v in value if isinstance(v, Tensor | list | tuple | dict) for tensor in _tensors(v)]


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, those in plain lists and dictionaries too, under the first path that leads to it."""
    seen: set[int] = set()

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield path, module
        for name, child in module._modules.items():
            if child is not None:
                yield from walk(f"{path}.{name}".lstrip("."), child)
        for name, value in vars(module).items():
            if name.startswith("_"):
                continue
            items = (
                value.items()
                if isinstance(value, dict)
                else enumerate(value)
                if isinstance(value, list | tuple)
                else ()
            )
            for key, item in items:
                if isinstance(item, nn.Module):
                    yield from walk(f"{path}.{name}[{key}]".lstrip("."), item)

    yield from walk("", model)


def _parameters(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    for path, module in modules:
        for name, param in module._parameters.items():
            if param is not None:
                yield f"{path}.{name}".lstrip("."), param


@contextmanager
def _evaluating(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[None]:
    training = [m for _, m in modules if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


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
