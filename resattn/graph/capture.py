"""From a model and an input shape to the graph of what one forward pass executed."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resattn.graph.aliasing import View, overlap
from resattn.graph.graph import INPUT, OVERWRITE, Graph, Module, Op, Operand, Shape
from resattn.graph.inputs import Inputs

# Their result depends on the shape of their argument, not on what is in it.
SHAPE_ONLY = frozenset(
    f"aten.{name}"
    for name in (
        "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
        "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "sym_size", "sym_numel",
        "_shape_as_tensor",
    )
)  # fmt: skip

# What they write takes the place of what was there, which they do not read.
REPLACING = frozenset(
    f"aten.{name}_" for name in ("copy", "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential")
)

# Where a constant index stands, its values decide which positions are read.
INDEXING = frozenset(("aten.index", "aten._unsafe_index", "aten.index_select"))

# Operators whose result, or its shape, is a matter of values.
VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


# Their parameters of several dimensions scale or are looked up: they multiply no data.
WEIGHTLESS = (nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)

NEEDS_VALUES = (
    "the forward needs the value of a tensor, which the meta device does not have: capture on the device 'cpu'"
)
# What torch says where it hands values to Python without an operator (tolist, numpy).
NO_VALUES = ("meta tensor", "meta device type tensor", "unallocated storage")


class CaptureError(RuntimeError):
    """The model's forward raised; the message gives its error and the module path at which it arose.

    `graph` is what ran until then.
    """

    def __init__(self, message: str, graph: Graph | None = None) -> None:
        super().__init__(message)
        self.graph = graph


class NeedsValuesError(CaptureError):
    """The forward asks for the value of a tensor that depends on the input, which a meta tensor does not have."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a tensor came from. It hangs on the tensor itself, so it lives exactly as long."""

    capture: object  # which one: a token, so that a tensor that a model keeps does not keep the capture
    producer: int | None
    slot: int
    params: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Write:
    """An operator's write in place to a view. The weak reference keeps the storage's address from being used again."""

    index: int
    view: View
    storage: StorageWeakRef


def capture(model: nn.Module, *args: Any, device: str = "meta", **kwargs: Any) -> Graph:
    """The graph of one forward pass in evaluation mode.

    `args`, `kwargs`: example tensors as the forward takes them, or shapes with their batch dimension; a shape that is
    `Indices` is that of whole numbers (on "cpu": zeros, which every table has).
    On "meta" nothing is computed and no memory taken: parameters on other devices are replaced by meta tensors of the
    same shape and strides. On "cpu" the pass is real and the graph holds for this input alone (drawn from a fixed seed
    where only a shape is given). Parameters, buffers and training flags are left as they were.

    Raises: CaptureError if the forward fails, NeedsValuesError if it needs values that "meta" lacks.
    """
    inputs = Inputs.of(args, kwargs)
    recorder = _Recorder(model, device)
    args, kwargs, tensors = inputs.on(device, recorder.dtype)
    shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    for tensor in tensors:
        recorder.start(tensor)
    torch.clear_autocast_cache()  # it would hand out casts of the parameters that no one saw being made
    try:
        with recorder.restoring(), torch.no_grad(), _no_fast_path(), recorder.watching_calls(), recorder:
            result = model(*args, **kwargs)
            outputs = dict.fromkeys((o.producer, o.slot) for o in map(recorder.operand, _leaves(result)))
    except Exception as error:
        where = recorder.failed_at or type(model).__name__
        if isinstance(error, NeedsValuesError) or (recorder.is_meta and any(s in str(error) for s in NO_VALUES)):
            raise NeedsValuesError(f"{NEEDS_VALUES} (in {where})") from error
        said = f"{type(error).__name__}: {error}".strip().splitlines()
        raise CaptureError(f"{said[0]} (in {where}, input {_shapes(shapes)})", recorder.graph([], shapes)) from error
    return recorder.graph([producer for producer, _ in outputs if producer is not None], shapes)


class _Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap every call in a guard against its compiler, whose import alone takes longer than a capture.
        return False

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__()
        self.is_meta = device == "meta"
        self.token = object()
        self.ops: list[Op] = []
        self.model = model
        self.modules = list(_modules(model))
        self.paths = {id(m): path for path, m in self.modules}
        self.params: dict[int, Tensor] = {}
        self.named: dict[int, str] = {}
        self.sizes: dict[str, int] = {}
        self.places: dict[tuple[int, int], int] = {}
        for name, param in _parameters(self.modules):
            self._adopt(param, name)
        floating = (p.dtype for p in self.params.values() if p.is_floating_point())
        self.dtype = next(floating, torch.get_default_dtype())
        buffers = (b for _, m in self.modules for b in m._buffers.values() if b is not None)
        self.state = {_storage(t): t for t in (*self.params.values(), *buffers)}
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}
        self.training = [m for _, m in self.modules if m.training]
        self.executed: set[int] = set()
        self.stack: list[str] = []
        self.failed_at: str | None = None
        self.stand_ins: dict[int, Tensor] = {}
        self.stages: dict[tuple[int, torch.dtype], tuple[Tensor, StorageWeakRef]] = {}
        self.stands_for: dict[int, int] = {}
        self.writes: dict[int, list[_Write]] = {}
        self.params_in: dict[int, tuple[str, ...]] = {}
        self.held: list[StorageWeakRef] = []
        self.marked: list[weakref.ref[Tensor]] = []

    # -- tensors and where they came from

    def start(self, tensor: Tensor) -> None:
        op = Op(len(self.ops), INPUT, "", {}, (tuple(tensor.shape),))
        self.ops.append(op)
        self._mark(tensor, op.index)
        self.marked.append(weakref.ref(tensor))

    def _mark(self, tensor: Tensor, producer: int | None, slot: int = 0, params: tuple[str, ...] = ()) -> None:
        tensor._resattn_origin = _Origin(self.token, producer, slot, params)  # type: ignore[attr-defined]

    def _origin(self, tensor: Tensor) -> _Origin | None:
        origin = getattr(tensor, "_resattn_origin", None)
        return origin if origin is not None and origin.capture is self.token else None

    def operand(self, tensor: Tensor) -> Operand:
        origin = self._origin(tensor)
        if self.writes and (writes := self.writes.get(self._storage(tensor))):
            since = -1 if origin is None or origin.producer is None else origin.producer
            for write in writes:
                if write.index > since:
                    self._overwrite(tensor, write)
            origin = self._origin(tensor)
        found = self._unwritten(tensor, origin)
        if self.params_in and (more := self.params_in.get(self._storage(tensor))):
            found = dataclasses.replace(found, params=tuple(dict.fromkeys((*found.params, *more))))
        return found

    def _unwritten(self, tensor: Tensor, origin: _Origin | None) -> Operand:
        shape = tuple(tensor.shape)
        if origin is not None:
            return Operand(shape, origin.producer, origin.slot, origin.params)
        if id(tensor) in self.named or isinstance(tensor, nn.Parameter):
            return Operand(shape, None, 0, (self._name(tensor),))
        # The data of a parameter, without the parameter (`weight.data`), lies where it lies.
        if param := self.places.get((self._storage(tensor), _offset(tensor))):
            return Operand(shape, None, 0, (self.named[param],))
        return Operand(shape)

    def _adopt(self, param: Tensor, name: str) -> str:
        """The parameter's name. It is held here, so that its id stays its own, also where no module registers it."""
        if id(param) not in self.named:
            self.params[id(param)], self.named[id(param)], self.sizes[name] = param, name, param.numel()
            self.places.setdefault((_storage(param), _offset(param)), id(param))
        return self.named[id(param)]

    def _name(self, param: Tensor) -> str:
        return self._adopt(param, f"{self.path}.parameter{len(self.params) + 1}".lstrip("."))

    # -- writes in place: every tensor that shares elements sees them

    def _written(self, tensor: Tensor, index: int) -> None:
        self._mark(tensor, index)
        self.marked.append(weakref.ref(tensor))
        storage, key = tensor.untyped_storage(), self._storage(tensor)
        write = _Write(index, _view(tensor), StorageWeakRef(storage))
        if tensor.numel() * tensor.element_size() == storage.nbytes():
            self.writes[key] = [write]  # nothing is left of what was there
        else:
            self.writes.setdefault(key, []).append(write)

    def _overwrite(self, tensor: Tensor, write: _Write) -> None:
        shared = overlap(write.view, _view(tensor))
        if shared is None:
            return
        arguments: dict[str, Any] = {"written": Operand(write.view.shape, write.index)}
        if not shared.is_all:
            arguments["kept"] = self._unwritten(tensor, self._origin(tensor))
        arguments |= {"matches": shared.matches, "is_reshaped": shared.is_reshaped}
        op = Op(len(self.ops), OVERWRITE, self.path, arguments, (tuple(tensor.shape),))
        self.ops.append(op)
        self._mark(tensor, op.index)
        self.marked.append(weakref.ref(tensor))

    def _save(self, signature: _Signature, arguments: Mapping[str, Any]) -> None:
        """Keeps what a real write in place would take from the model's own tensors."""
        for name in signature.written:
            for tensor in _tensors(arguments.get(name)):
                own = self.state.get(self._storage(tensor))
                if own is not None and not own.is_meta:
                    self.saved.setdefault(id(own), (own, own.detach().clone()))

    # -- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        signature = _signature(func)
        arguments = {**signature.defaults, **dict(zip(signature.names, args)), **kwargs}  # noqa: B905
        operands = {k: self._described(v) for k, v in arguments.items()}
        found = [o for v in operands.values() for o in (v if isinstance(v, tuple) else (v,)) if isinstance(o, Operand)]
        has_data = any(o.producer is not None for o in found)
        if self.is_meta:
            try:
                result = self._run_on_meta(func, args, kwargs)
            except (NotImplementedError, RuntimeError) as error:
                if not signature.needs_values:
                    raise
                raise NeedsValuesError(NEEDS_VALUES) from error
        else:
            self._save(signature, arguments)
            result = func(*args, **kwargs)
        if signature.name in SHAPE_ONLY:
            return result
        outputs = _tensors(result)
        if has_data and (outputs or signature.written):
            self._record(signature, operands, arguments, outputs)
        elif params := tuple(dict.fromkeys(p for o in found for p in o.params)):
            for tensor in outputs:
                if id(tensor) not in self.named:
                    self._mark(tensor, None, 0, params)
            for tensor in (t for name in signature.written for t in _tensors(arguments.get(name))):
                # A kernel that is put together by parts is made of parameters through all of its views.
                place = self._storage(tensor)
                self.params_in[place] = (*self.params_in.get(place, ()), *params)
                self.held.append(StorageWeakRef(tensor.untyped_storage()))
        return result

    def _record(self, signature: _Signature, operands: dict, arguments: dict, outputs: list[Tensor]) -> None:
        for name in signature.unread:
            operands[name] = _blank(operands[name])
        if signature.name in INDEXING:
            operands |= {k: _with_values(operands[k], arguments[k]) for k in ("index", "indices") if k in operands}
        op = Op(len(self.ops), signature.name, self.path, operands, tuple(tuple(t.shape) for t in outputs))
        self.ops.append(op)
        for slot, tensor in enumerate(outputs):
            self._mark(tensor, op.index, slot)
        for name in signature.written:
            for tensor in _tensors(arguments.get(name)):
                self._written(tensor, op.index)

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
            self._save(_signature(func), dict(zip(_signature(func).names, args, strict=False)) | kwargs)
            if tensors and kwargs.get("device") == torch.device("meta"):
                kwargs = {**kwargs, "device": tensors[0].device}  # a constant keeps its values
            return func(*args, **kwargs)
        if _signature(func).name in INDEXING:
            args = [_positions(a) for a in args]
        if (quick := QUICK.get(func)) and (result := quick(*args, **kwargs)) is not None:
            return result
        written = {id(t) for t in tensors if t.device.type != "meta"}
        result = func(*self._on_meta(args), **self._on_meta(kwargs))
        if written and _signature(func).written:
            return self._same_objects(func, args, kwargs, result)
        return result

    def _stands_for_data(self, tensor: Tensor) -> bool:
        return id(tensor) in self.named or isinstance(tensor, nn.Parameter) or self._origin(tensor) is not None

    def _on_meta(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.device.type == "meta":
                return value
            if id(value) not in self.named:
                return self._stand_in(value)
            if id(value) not in self.stand_ins:
                self.stand_ins[id(value)] = self._stand_in(value.detach())
            return self.stand_ins[id(value)]
        if isinstance(value, list | tuple):
            return type(value)(self._on_meta(v) for v in value)
        if isinstance(value, dict):
            return {k: self._on_meta(v) for k, v in value.items()}
        return torch.device("meta") if isinstance(value, torch.device) else value

    def _stand_in(self, tensor: Tensor) -> Tensor:
        """A meta tensor in its place; views of one storage have stand-ins that are views of one storage too."""
        if tensor.layout is not torch.strided or tensor.is_quantized:
            return tensor.to("meta")
        storage = tensor.untyped_storage()
        key = (storage._cdata, tensor.dtype)
        if key not in self.stages:
            whole = torch.empty(storage.nbytes() // tensor.element_size(), dtype=tensor.dtype, device="meta")
            self.stages[key] = whole, StorageWeakRef(storage)
            self.stands_for[_storage(whole)] = storage._cdata
        return self.stages[key][0].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _storage(self, tensor: Tensor) -> int:
        storage = _storage(tensor)
        return self.stands_for.get(storage, storage)

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
            if module.training:  # held where no walk over the model finds it
                recorder.training.append(module)
                module.training = False
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

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Evaluation mode; afterwards the model is as it was, and no tensor remembers this capture."""
        for module in self.training:
            module.training = False
        try:
            yield
        finally:
            for module in self.training:
                module.training = True
            for tensor in (t for ref in self.marked if (t := ref()) is not None):
                vars(tensor).pop("_resattn_origin", None)
            with torch.no_grad():
                for own, before in self.saved.values():
                    own.copy_(before)

    def _nameless(self, module: nn.Module) -> str:
        return "" if module is self.model else f"{self.path}.{type(module).__name__}".lstrip(".")

    def graph(self, outputs: Sequence[int], shapes: tuple[Shape, ...]) -> Graph:
        modules = tuple(
            Module(
                path=path,
                kind=type(m).__name__,
                params=tuple(self._adopt(p, f"{path}.{n}".lstrip(".")) for n, p in m.named_parameters(recurse=False)),
                is_executed=id(m) in self.executed,
                is_weighted=not isinstance(m, WEIGHTLESS) and any(p.dim() >= 2 for p in m.parameters(recurse=False)),
            )
            for path, m in self.modules
        )
        return Graph(tuple(self.ops), tuple(outputs), dict(self.sizes), modules, shapes)


# Shapes of the operators that convolutional networks repeat by the thousand. Torch's own meta kernels give the same (a
# test compares them), but those of convolution, batch norm and addition are Python and cost most of a capture.


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


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]
    unread: tuple[str, ...]
    needs_values: bool


@functools.cache
def _signature(func: Any) -> _Signature:
    schema = func._schema
    name = schema.name.replace("::", ".")
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return _Signature(
        name=name,
        names=tuple(a.name for a in schema.arguments),
        defaults={a.name: a.default_value if a.has_default_value() else None for a in schema.arguments},
        written=tuple(a.name for a in written),
        unread=tuple(a.name for a in written if a.kwarg_only or name in REPLACING),
        needs_values=not VALUE_TAGS.isdisjoint(func.tags),
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def _offset(tensor: Tensor) -> int:
    return int(tensor.storage_offset()) if tensor.layout is torch.strided else 0


def _view(tensor: Tensor) -> View:
    return View(int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _blank(operand: Any) -> Any:
    return tuple(map(_blank, operand)) if isinstance(operand, tuple) else Operand(operand.shape)


def _positions(index: Any) -> Any:
    """A constant mask as the positions where it is true: how many those are, a meta tensor cannot say."""
    if isinstance(index, list | tuple):
        return [_positions(i) for i in index]
    is_mask = isinstance(index, Tensor) and not index.is_meta and index.dtype is torch.bool and index.dim() == 1
    return index.nonzero().flatten() if is_mask else index


def _with_values(operand: Any, index: Any) -> Any:
    """A constant index with what it holds; a mask is the positions where it is true."""
    if isinstance(operand, tuple):
        return tuple(map(_with_values, operand, index))
    is_known = isinstance(index, Tensor) and not index.is_meta and index.dim() == 1 and operand.producer is None
    if not is_known or operand.params or index.is_floating_point():
        return operand
    return dataclasses.replace(operand, values=tuple(_positions(index).tolist()))


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
    own = vars(nn.Module()).keys()

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        yield path, module
        for name, child in module._modules.items():
            if child is not None:
                yield from walk(f"{path}.{name}".lstrip("."), child)
        for name, value in vars(module).items():
            if name not in own:
                for key, item in _contained(value):
                    yield from walk(f"{path}.{name}{key}".lstrip("."), item)

    yield from walk("", model)


def _contained(value: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a plain container and in the containers inside it."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        items = enumerate(value)
    for key, item in items:
        if isinstance(item, nn.Module):
            yield f"[{key}]", item
        else:
            yield from ((f"[{key}]{rest}", module) for rest, module in _contained(item))


def _parameters(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    for path, module in modules:
        for name, param in module._parameters.items():
            if param is not None and is_lazy(param):
                raise CaptureError(f"{path}.{name} has no shape yet: call the lazy module once before".lstrip("."))
            if param is not None:
                yield f"{path}.{name}".lstrip("."), param


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
