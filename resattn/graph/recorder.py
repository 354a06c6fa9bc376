"""Records the operators of one forward pass, and what data ran between them."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from resattn.graph.aliasing import View, overlap
from resattn.graph.errors import NEEDS_VALUES, NeedsValuesError
from resattn.graph.graph import INPUT, OVERWRITE, Graph, Module, Op, Operand, Shape
from resattn.graph.kernels import QUICK
from resattn.graph.walk import WEIGHTLESS, modules_of, parameters_of, tensors_in

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

# Operators whose result, or its shape, is a matter of values.
VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a tensor. It is an attribute of the tensor, so it has the same lifetime."""

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


class Recorder(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap every call in a guard against its compiler, whose import alone takes longer than a capture.
        return False

    def __init__(self, model: nn.Module, rule_of: Callable[[str], Rule | None], device: str) -> None:
        super().__init__()
        self.is_meta = device == "meta"
        self.rule_of = functools.cache(rule_of)
        self.token = object()
        self.ops: list[Op] = []
        self.model = model
        self.modules = list(modules_of(model))
        self.paths = {id(m): path for path, m in self.modules}
        self.params: dict[int, Tensor] = {}
        self.named: dict[int, str] = {}
        self.sizes: dict[str, int] = {}
        self.places: dict[tuple[int, int], int] = {}
        for name, param in parameters_of(self.modules):
            self._adopt(param, name)
        floating = (p.dtype for p in self.params.values() if p.is_floating_point())
        self.dtype = next(floating, torch.get_default_dtype())
        buffers = (b for _, m in self.modules for b in m._buffers.values() if b is not None)
        self.state = {_storage(t): t for t in (*self.params.values(), *buffers)}
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}
        self.training = [m for _, m in self.modules if m.training]
        self.runs: Counter[int] = Counter()
        self.results: dict[int, Operand] = {}
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
        op = Op(len(self.ops), INPUT, "", {}, (tuple(tensor.shape),), self.rule_of(INPUT))
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
        op = Op(len(self.ops), OVERWRITE, self.path, arguments, (tuple(tensor.shape),), self.rule_of(OVERWRITE))
        self.ops.append(op)
        self._mark(tensor, op.index)
        self.marked.append(weakref.ref(tensor))

    def _save(self, signature: _Signature, arguments: Mapping[str, Any]) -> None:
        """Keeps what a real write in place would take from the model's own tensors."""
        for name in signature.written:
            for tensor in tensors_in(arguments.get(name)):
                own = self.state.get(self._storage(tensor))
                if own is not None and not own.is_meta:
                    self.saved.setdefault(id(own), (own, own.detach().clone()))

    # -- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        signature = _signature(func)
        rule = self.rule_of(signature.name)
        arguments = {**signature.defaults, **dict(zip(signature.names, args)), **kwargs}  # noqa: B905
        operands = {k: self._described(v) for k, v in arguments.items()}
        found = [o for v in operands.values() for o in (v if isinstance(v, tuple) else (v,)) if isinstance(o, Operand)]
        has_data = any(o.producer is not None for o in found)
        if self.is_meta:
            try:
                result = self._run_on_meta(func, rule, args, kwargs)
            except (NotImplementedError, RuntimeError) as error:
                if not signature.needs_values:
                    raise
                raise NeedsValuesError(NEEDS_VALUES) from error
        else:
            self._save(signature, arguments)
            result = func(*args, **kwargs)
        if rule is not None and rule.kind == "shape":
            return result
        outputs = tensors_in(result)
        if has_data and (outputs or signature.written):
            self._record(signature, rule, operands, arguments, outputs)
        elif params := tuple(dict.fromkeys(p for o in found for p in o.params)):
            for tensor in outputs:
                if id(tensor) not in self.named:
                    self._mark(tensor, None, 0, params)
            for tensor in (t for name in signature.written for t in tensors_in(arguments.get(name))):
                # A kernel that is put together by parts is made of parameters through all of its views.
                place = self._storage(tensor)
                self.params_in[place] = (*self.params_in.get(place, ()), *params)
                self.held.append(StorageWeakRef(tensor.untyped_storage()))
        return result

    def _record(
        self, signature: _Signature, rule: Rule | None, operands: dict, arguments: dict, outputs: list[Tensor]
    ) -> None:
        is_replacing = rule is not None and rule.is_replacing and signature.name.endswith("_")
        for name in signature.written if is_replacing else signature.outputs:
            operands[name] = _blank(operands[name])
        if rule is not None and rule.indices:
            operands |= {k: _with_values(operands[k], arguments[k]) for k in rule.indices if k in operands}
        op = Op(len(self.ops), signature.name, self.path, operands, tuple(tuple(t.shape) for t in outputs), rule)
        self.ops.append(op)
        for slot, tensor in enumerate(outputs):
            self._mark(tensor, op.index, slot)
        for name in signature.written:
            for tensor in tensors_in(arguments.get(name)):
                self._written(tensor, op.index)

    def _described(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.operand(value)
        if isinstance(value, list | tuple):
            return tuple(self._described(v) for v in value)
        return value

    def _run_on_meta(self, func: Any, rule: Rule | None, args: Any, kwargs: Any) -> Any:
        # Constants that the model makes as it goes (index tables, masks) stay real and are computed, until they
        # meet data; parameters never are, whatever device they live on.
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        if all(t.device.type != "meta" and not self._stands_for_data(t) for t in tensors):
            self._save(_signature(func), dict(zip(_signature(func).names, args, strict=False)) | kwargs)
            if tensors and kwargs.get("device") == torch.device("meta"):
                kwargs = {**kwargs, "device": tensors[0].device}  # a constant keeps its values
            return func(*args, **kwargs)
        if rule is not None and rule.indices:
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
        """The meta tensor that replaces it; views of one storage are replaced by views of one storage."""
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
            recorder.runs[id(module)] += 1
            if module.training:  # held where no walk over the model finds it
                recorder.training.append(module)
                module.training = False
            recorder.stack.append(recorder.paths.get(id(module)) or recorder._nameless(module))
            try:
                result = original(module, *args, **kwargs)
                if tensors := tensors_in(result):
                    recorder.results[id(module)] = recorder._unwritten(tensors[0], recorder._origin(tensors[0]))
                return result
            except Exception:
                recorder.failed_at = recorder.failed_at or recorder.path
                raise
            finally:
                recorder.stack.pop()

        with mock.patch.object(nn.Module, "__call__", call):
            yield

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Evaluation mode; afterwards the model is restored, and no tensor refers to this capture."""
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
                is_executed=id(m) in self.runs,
                is_weighted=not isinstance(m, WEIGHTLESS) and any(p.dim() >= 2 for p in m.parameters(recurse=False)),
                n_runs=self.runs[id(m)],
                result=self.results.get(id(m)),
            )
            for path, m in self.modules
        )
        return Graph(tuple(self.ops), tuple(outputs), dict(self.sizes), modules, shapes)


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]
    outputs: tuple[str, ...]  # of those written, arguments that only take a result
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
        outputs=tuple(a.name for a in written if a.kwarg_only),
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
    """A constant index with its values; a mask becomes the positions where it is true."""
    if isinstance(operand, tuple):
        return tuple(map(_with_values, operand, index))
    is_known = isinstance(index, Tensor) and not index.is_meta and index.dim() == 1 and operand.producer is None
    if not is_known or operand.params or index.is_floating_point():
        return operand
    return dataclasses.replace(operand, values=tuple(_positions(index).tolist()))
