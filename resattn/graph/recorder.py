"""Records the operators of one forward pass, and what data ran between them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import weakref
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
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
from resattn.graph.plain_sizes import plain_sizes
from resattn.graph.recurrent import separate_products
from resattn.graph.walk import WEIGHTLESS, modules_of, parameters_of, tensors_in

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

# Operators whose result, or its shape, is a matter of values.
VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# Elements of a tensor up to which its values are computed, where all that it is made from has values.
MOST_VALUES = 2**22
# Results on meta that are kept of one operator.
MOST_RESULTS = 4096
# Kinds of operators that multiply: what they make of parameters is an activation.
PRODUCTS = ("convolution", "matmul", "attention")
# Arguments that an operator reads on the CPU whatever the device of the others.
READ_ON_CPU = {"aten._pack_padded_sequence": "lengths", "aten._pad_packed_sequence": "batch_sizes"}
EMPTY = torch.ops.aten.empty.memory_format
# What fills the constants that have the shape of another tensor.
FILLS = {"zeros_like": 0, "new_zeros": 0, "ones_like": 1, "new_ones": 1}


@dataclass(slots=True)  # not frozen, which would take several times as long to make: there is one for each result
class _Origin:
    """The origin of a tensor. It is an attribute of the tensor, so it has the same lifetime."""

    capture: object  # which one: a token, so that a tensor that a model keeps does not keep the capture
    producer: int | None
    slot: int
    params: tuple[str, ...]
    is_activation: bool = False  # of what no input reaches: the result of a product of parameters, or made from one
    constant: int = 0  # the index of the recorded operator that made it, where no input reaches it
    operand: Operand | None = None  # what describes it as an argument, once it has been one


@dataclass(frozen=True, slots=True)
class _Write:
    """An operator's write in place to a view. The weak reference keeps the storage's address from being used again."""

    index: int
    view: View
    storage: StorageWeakRef


class Recorder(TorchDispatchMode):
    """Records what runs while it is active.

    On the meta device every tensor that the forward meets is on meta: inputs, and what replaces parameters, buffers
    and constants. Of those that no parameter and no input of real numbers reaches, the values are known: they are
    computed beside, on the CPU, and are attributes of the tensors.
    """

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
        self.constants: list[Op] = []
        self.unread: set[int] = set()
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
        self.returned: dict[int, Operand] = {}
        self.stack: list[str] = []
        self.failed_at: str | None = None
        self.stand_ins: dict[int, Tensor] = {}
        self.results: dict[Any, dict[Any, Callable[[], Any]]] = {}  # of operators outside of torch: see `_Signature`
        self.stale: dict[int, StorageWeakRef] = {}  # storages of values over which data was written
        self.stages: dict[tuple[int, torch.dtype], tuple[Tensor, StorageWeakRef]] = {}
        self.stands_for: dict[int, int] = {}
        self.operands_of: dict[int, Operand] = {}  # of parameters
        self.writes: dict[int, list[_Write]] = {}
        self.last_write = -1
        self.params_in: dict[int, tuple[str, ...]] = {}
        self.held: list[StorageWeakRef] = []
        self.marked: list[weakref.ref[Tensor]] = []

    # -- tensors and where they came from

    def start(self, tensor: Tensor, value: Tensor | None = None) -> None:
        """An input; on the meta device with its values, where it is one of integers."""
        if value is not None and self.is_meta and value.numel() <= MOST_VALUES:
            tensor._resattn_value = value  # type: ignore[attr-defined]
        op = Op(len(self.ops), INPUT, "", {}, (tuple(tensor.shape),), self.rule_of(INPUT))
        self.ops.append(op)
        self._mark(tensor, op.index)
        self.marked.append(weakref.ref(tensor))

    def _mark(
        self, tensor: Tensor, producer: int | None, slot: int = 0, params: tuple[str, ...] = (),
        is_activation: bool = False, constant: int = 0,
    ) -> None:  # fmt: skip
        origin = _Origin(self.token, producer, slot, params, is_activation, constant)
        tensor._resattn_origin = origin  # type: ignore[attr-defined]

    def _origin(self, tensor: Tensor) -> _Origin | None:
        origin = getattr(tensor, "_resattn_origin", None)
        return origin if origin is not None and origin.capture is self.token else None

    def operand(self, tensor: Tensor) -> Operand:
        origin = self._origin(tensor)
        since = -1 if origin is None or origin.producer is None else origin.producer
        if since < self.last_write and (writes := self.writes.get(self._storage(tensor))):
            for write in writes[bisect_right(writes, since, key=lambda write: write.index) :]:
                self._overwrite(tensor, write)
            origin = self._origin(tensor)
        found = self._unwritten(tensor, origin)
        if self.params_in and (more := self.params_in.get(self._storage(tensor))):
            found = dataclasses.replace(found, params=tuple(dict.fromkeys((*found.params, *more))))
        return found

    def _unwritten(self, tensor: Tensor, origin: _Origin | None) -> Operand:
        if origin is not None:
            self.unread.discard(origin.constant)
            known = origin.operand
            if known is None or known.shape != tensor.shape:
                known = origin.operand = Operand(tuple(tensor.shape), origin.producer, origin.slot, origin.params)
            return known
        shape = tuple(tensor.shape)
        if id(tensor) in self.named or isinstance(tensor, nn.Parameter):
            known = self.operands_of.get(id(tensor))
            if known is None or known.shape != shape:
                known = self.operands_of[id(tensor)] = Operand(shape, None, 0, (self._name(tensor),))
            return known
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
        if (value := getattr(tensor, "_resattn_value", None)) is not None:
            self.stale[_storage(value)] = StorageWeakRef(value.untyped_storage())
        self.last_write = index
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
        if func is EMPTY and self.is_meta and args[0] == [0]:
            return self._nothing(kwargs)
        signature = signature_of(func)
        rule = self.rule_of(signature.name)
        arguments: dict[str, Any] = signature.defaults.copy()
        arguments.update(zip(signature.names, args, strict=False))
        arguments.update(kwargs)
        operands: dict[str, Any] = {}
        found: list[Operand] = []
        for name, value in arguments.items():
            if type(value) in PLAIN:
                operands[name] = value
            elif type(value) in TENSORS:
                operands[name] = operand = self.operand(value)
                found.append(operand)
            else:
                operands[name] = described = self._described(value)
                found += [
                    o for o in (described if isinstance(described, tuple) else (described,)) if type(o) is Operand
                ]
        has_data = any(o.producer is not None for o in found)
        if self.is_meta:
            try:
                result = self._run_on_meta(func, signature, rule, args, kwargs)
            except (NotImplementedError, RuntimeError) as error:
                if not signature.needs_values:
                    raise
                raise NeedsValuesError(NEEDS_VALUES) from error
        else:
            self._save(signature, arguments)
            result = func(*args, **kwargs)
        if rule is not None and rule.kind == "shape":
            return self._filled(signature, arguments, result) if self.is_meta else result
        outputs = tensors_in(result)
        if has_data and (outputs or signature.written):
            self._record(signature, rule, operands, arguments, outputs)
        elif outputs or signature.written:
            self._keep_constant(signature, rule, operands, arguments, outputs, found)
        return result

    def _keep_constant(
        self, signature: _Signature, rule: Rule | None, operands: dict, arguments: dict, outputs: list[Tensor],
        found: list[Operand],
    ) -> None:  # fmt: skip
        """An operator that no input reaches: it is recorded if it multiplies, or reads what a product made."""
        params = tuple(dict.fromkeys(p for o in found for p in o.params))
        is_product = rule.kind in PRODUCTS if rule is not None else not signature.name.startswith("aten.")
        origins = [o for v in arguments.values() for t in tensors_in(v) if (o := self._origin(t)) is not None]
        is_made = any(o.is_activation for o in origins)
        made_by = -1 - len(self.constants) if is_product or is_made else 0
        if made_by:
            self.unread.add(made_by)
            shapes = tuple(tuple(t.shape) for t in outputs)
            self.constants.append(Op(made_by, signature.name, self.path, operands, shapes, rule))
        if is_product and (params or is_made):
            params, is_made = (), True
        elif is_made:
            # A bias or a scale is read here; a matrix to which a product is added (LoRA) is still that matrix.
            whole = max((t.numel() for t in outputs), default=0)
            params = tuple(dict.fromkeys(p for o in found if prod(o.shape) == whole for p in o.params))
        elif not params and not made_by:
            return
        for tensor in outputs:
            if id(tensor) not in self.named:
                self._mark(tensor, None, 0, params, is_made, made_by)
        for tensor in (t for name in signature.written for t in tensors_in(arguments.get(name))):
            # A kernel that is put together by parts is made of parameters through all of its views.
            place = self._storage(tensor)
            self.params_in[place] = (*self.params_in.get(place, ()), *params)
            self.held.append(StorageWeakRef(tensor.untyped_storage()))
            self._forget(tensor)

    def _record(
        self, signature: _Signature, rule: Rule | None, operands: dict, arguments: dict, outputs: list[Tensor]
    ) -> None:
        is_replacing = rule is not None and rule.is_replacing and signature.name.endswith("_")
        for name in signature.written if is_replacing else signature.outputs:
            operands[name] = _blank(operands[name])
        if rule is not None and rule.indices:
            operands |= {k: _with_values(operands[k], self._known(arguments[k])) for k in rule.indices if k in operands}
        shapes = tuple([tuple(t.shape) for t in outputs])
        op = Op(len(self.ops), signature.name, self.path, operands, shapes, rule)
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

    def _run_on_meta(self, func: Any, signature: _Signature, rule: Rule | None, args: Any, kwargs: Any) -> Any:
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        if (rule is None or rule.kind != "shape") and self._has_values(func, tensors, args, kwargs):
            return self._run_on_values(func, signature, tensors, args, kwargs)
        if signature.name in READ_ON_CPU:
            at = signature.names.index(READ_ON_CPU[signature.name])
            return func(*[self._known(a) if i == at else self._on_meta(a) for i, a in enumerate(args)])
        if rule is not None and rule.indices:
            args = [_positions(self._known(a)) if i else a for i, a in enumerate(args)]
        key = _key(args, kwargs) if signature.is_repeatable else None
        results = signature.results
        if not signature.name.startswith("aten."):  # an operator of a user may be defined anew
            results = self.results.setdefault(func, {})
        if key is not None and (known := results.get(key)) is not None:
            if not signature.written:
                return known()
            self._forget(args[0])
            return args[0]
        if (quick := QUICK.get(func)) and (result := quick(*args, **kwargs)) is not None:
            return self._repeatable(result, args, results, key)
        written = {id(t) for t in tensors if t.device.type != "meta"}
        result = func(*self._on_meta(args), **self._on_meta(kwargs))
        for tensor in (t for n in signature.written for t in tensors_in(_argument(signature, n, args, kwargs))):
            self._forget(tensor)
        if written and signature.written:
            return self._same_objects(func, args, kwargs, result)
        return self._repeatable(result, args, results, key)

    def _repeatable(self, result: Any, args: Any, results: dict[Any, Callable[[], Any]], key: Any) -> Any:
        """The result, kept for the next time that the same is asked."""
        if key is not None and (again := _repeated(result, args)) is not None:
            if len(results) >= MOST_RESULTS:
                results.clear()
            results[key] = again
        return result

    # -- values beside the meta device

    def _value(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor where they are known."""
        value = getattr(tensor, "_resattn_value", None)
        if value is None and tensor.is_meta:
            return None
        if value is None and id(tensor) not in self.named:
            # A constant that nothing replaced by a meta tensor, such as one in a list of the model's.
            value = None if isinstance(tensor, nn.Parameter) or self._is_parameter_data(tensor) else tensor
        return None if value is None or (self.stale and _storage(value) in self.stale) else value

    def _is_parameter_data(self, tensor: Tensor) -> bool:
        origin = self._origin(tensor)
        return bool(origin.params) if origin is not None else bool(self._unwritten(tensor, None).params)

    def _forget(self, tensor: Tensor) -> None:
        if (value := getattr(tensor, "_resattn_value", None)) is not None:
            self.stale[_storage(value)] = StorageWeakRef(value.untyped_storage())

    def _known(self, value: Any) -> Any:
        """The same argument with the values of each tensor that has them."""
        if isinstance(value, Tensor):
            known = self._value(value)
            return value if known is None else known
        return [self._known(v) for v in value] if isinstance(value, list | tuple) else value

    def _has_values(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> bool:
        if tensors:
            for tensor in tensors:
                if (value := self._value(tensor)) is None or value.numel() > MOST_VALUES:
                    return False
            return True
        made = func(*args, **self._on_meta(kwargs))  # a constant that is made from nothing, such as a range
        return isinstance(made, Tensor) and made.numel() <= MOST_VALUES

    def _run_on_values(self, func: Any, signature: _Signature, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """The result computed on the CPU, each tensor in it as a meta tensor that has it as its values."""
        self._save(signature, dict(zip(signature.names, args, strict=False)) | kwargs)
        values = [(t, self._value(t)) for t in tensors]
        real_args, real_kwargs = self._on_cpu(args), self._on_cpu(kwargs)
        result = func(*real_args, **real_kwargs)
        if torch.Tag.inplace_view in func.tags:
            func(*args, **kwargs)
        if signature.name in ("aten._to_copy", "aten.empty") and kwargs.get("device") == torch.device("cpu"):
            return result  # a list or an array is about to be made of it, or torch itself writes to its memory
        own = {id(value): tensor for tensor, value in values}
        return self._presented(result, own)

    def _on_cpu(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._value(value)
        if isinstance(value, list | tuple):
            return type(value)(self._on_cpu(v) for v in value)
        if isinstance(value, dict):
            return {k: self._on_cpu(v) for k, v in value.items()}
        return torch.device("cpu") if isinstance(value, torch.device) else value

    def _presented(self, result: Any, own: Mapping[int, Tensor]) -> Any:
        if isinstance(result, Tensor):
            return own[id(result)] if id(result) in own else self._with_value(result)
        if isinstance(result, list | tuple):
            return type(result)(self._presented(r, own) for r in result)
        return result

    def _nothing(self, kwargs: Mapping[str, Any]) -> Tensor:
        """A tensor without elements: each batch norm makes one."""
        real = EMPTY([0], **self._on_cpu(kwargs))
        if kwargs.get("device") == torch.device("cpu"):
            return real
        shown = torch.empty(0, dtype=real.dtype, device="meta")
        shown._resattn_value = real  # type: ignore[attr-defined]
        return shown

    def _with_value(self, real: Tensor) -> Tensor:
        shown = self._stand_in(real)
        shown._resattn_value = real  # type: ignore[attr-defined]
        return shown

    def _filled(self, signature: _Signature, arguments: Mapping[str, Any], result: Any) -> Any:
        """A constant of another tensor's shape, with its values."""
        name = signature.name.removeprefix("aten.")
        fill = FILLS.get(name, arguments.get("fill_value", 0 if name.startswith(("new_empty", "empty_like")) else None))
        if fill is None or not isinstance(result, Tensor) or not result.is_meta or result.numel() > MOST_VALUES:
            return result
        if isinstance(fill, Tensor):
            return result
        return self._with_value(torch.empty_strided(result.shape, result.stride(), dtype=result.dtype).fill_(fill))

    # -- meta tensors in place of the model's own

    def _to_meta(self) -> None:
        """Replaces the model's parameters and buffers by meta tensors, so that all that the forward meets is there."""
        for _, module in self.modules:
            tables: list[dict[str, Any]] = [t for t in (module._parameters, module._buffers) if isinstance(t, dict)]
            for table in tables:
                for name, tensor in table.items():
                    if tensor is not None and self._is_plain(tensor):
                        table[name] = self._replacement(tensor)
            if isinstance(module, nn.RNNBase) and tables:
                weights: list[Any] = module._flat_weights
                flat = [self._replacement(w) if self._is_plain(w) else w for w in weights]
                vars(module)["_flat_weights"] = flat

    def _is_plain(self, tensor: Tensor) -> bool:
        is_real = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
        return is_real and tensor.layout is torch.strided and not tensor.is_quantized

    def _replacement(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.stand_ins:
            if id(tensor) in self.named:
                shown: Tensor = nn.Parameter(self._stand_in(tensor.detach()), tensor.requires_grad)
                self.named[id(shown)] = self.named[id(tensor)]
            else:
                shown = self._with_value(tensor)
            self.stand_ins[id(tensor)] = shown
        return self.stand_ins[id(tensor)]

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
        arguments = dict(zip(signature_of(func).names, args)) | kwargs  # noqa: B905
        targets = [arguments[name] for name in signature_of(func).written if isinstance(arguments.get(name), Tensor)]
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
                with separate_products() if isinstance(module, nn.RNNBase) else nullcontext():
                    result = original(module, *args, **kwargs)
                if tensors := tensors_in(result):
                    recorder.returned[id(module)] = recorder._unwritten(tensors[0], recorder._origin(tensors[0]))
                return result
            except Exception:
                recorder.failed_at = recorder.failed_at or recorder.path
                raise
            finally:
                recorder.stack.pop()

        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(nn.Module, "__call__", call))
            if self.is_meta:
                patches.enter_context(plain_sizes())
                for owner, name, function in self._with_known_values():
                    patches.enter_context(mock.patch.object(owner, name, function))
            yield

    def _with_known_values(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        """Functions of torch that make constants, or arrays from them, without an operator on the meta device."""

        def made(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            @functools.wraps(function)
            def make(*args: Any, **kwargs: Any) -> Tensor:
                device = kwargs.get("device")
                is_meta = device is not None and torch.device(device).type == "meta"
                return function(*args, **{**kwargs, "device": "cpu"} if is_meta else kwargs)

            return make

        tensor, numpy, recorder = torch.tensor, Tensor.numpy, self
        yield torch, "tensor", made(tensor)
        yield torch, "as_tensor", made(torch.as_tensor)

        def new_tensor(like: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> Tensor:
            return torch.tensor(data, dtype=dtype or like.dtype, **more)

        def to_numpy(data: Tensor, **kwargs: Any) -> Any:
            value = recorder._value(data) if data.is_meta else data
            return numpy(data if value is None else value, **kwargs)

        def with_index(function: Callable[..., Any]) -> Callable[..., Any]:
            return lambda data, index, *value: function(data, _index(index), *value)

        yield Tensor, "__getitem__", with_index(Tensor.__getitem__)
        yield Tensor, "__setitem__", with_index(Tensor.__setitem__)
        yield Tensor, "new_tensor", new_tensor
        yield Tensor, "numpy", to_numpy

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Evaluation mode; afterwards the model is restored, and no tensor refers to this capture."""
        contents = [(m, _contents(m)) for _, m in self.modules] if self.is_meta else []
        for module in self.training:
            module.training = False
        try:
            if self.is_meta:
                self._to_meta()
            yield
        finally:
            for module, own_contents in contents:
                _restore(module, own_contents)
            for module in self.training:
                module.training = True
            for tensor in (t for ref in self.marked if (t := ref()) is not None):
                vars(tensor).pop("_resattn_origin", None)
            with torch.no_grad():
                for own, before in self.saved.values():
                    own.copy_(before)

    def _nameless(self, module: nn.Module) -> str:
        return "" if module is self.model else f"{self.path}.{type(module).__name__}".lstrip(".")

    def graph(self, outputs: Sequence[int], shapes: tuple[Shape, ...], returned: frozenset[str] = frozenset()) -> Graph:
        modules = tuple(
            Module(
                path=path,
                kind=type(m).__name__,
                params=tuple(dict.fromkeys([self._adopt(p, f"{path}.{n}".lstrip(".")) for n, p in own])),
                is_executed=id(m) in self.runs,
                is_weighted=not isinstance(m, WEIGHTLESS) and any(p.dim() >= 2 for _, p in own),
                n_runs=self.runs[id(m)],
                result=self.returned.get(id(m)),
            )
            for path, m in self.modules
            for own in [[(n, p) for n, p in m._parameters.items() if p is not None]]
        )
        return Graph(
            tuple(self.ops),
            tuple(outputs),
            dict(self.sizes),
            modules,
            shapes,
            tuple(self.constants),
            frozenset(self.unread),
            returned,
        )


@dataclass(frozen=True, slots=True)
class _Signature:
    name: str
    names: tuple[str, ...]
    defaults: dict[str, Any]
    written: tuple[str, ...]
    outputs: tuple[str, ...]  # of those written, arguments that only take a result
    needs_values: bool
    is_repeatable: bool  # its results are new tensors, or its first argument; their shapes do not depend on values
    # What makes its result on meta again, by shapes, strides, types and constants.
    results: dict[Any, Callable[[], Any]] = field(default_factory=dict, compare=False, repr=False)


@functools.cache
def signature_of(func: Any) -> _Signature:
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
        is_repeatable={*VALUE_TAGS, torch.Tag.inplace_view}.isdisjoint(func.tags) and _returns_new_or_first(schema),
    )


def _index(index: Any) -> Any:
    """An index with lists of numbers as tensors: torch would make them on the device of the indexed tensor."""
    if isinstance(index, tuple):
        return tuple(_index(i) for i in index) if any(isinstance(i, list) for i in index) else index
    is_numbers = isinstance(index, list) and index and all(type(i) in (int, bool) for i in index)
    return torch.tensor(index) if is_numbers else index


def _argument(signature: _Signature, name: str, args: Any, kwargs: Any) -> Any:
    at = signature.names.index(name)
    return args[at] if at < len(args) else kwargs.get(name)


OWN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers"}
CONTAINERS = frozenset((dict, list, OrderedDict))


def _contents(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """A module's attributes, and of those that are containers the items."""
    before = vars(module).copy()
    kept = {n: copy.copy(v) for n, v in before.items() if type(v) in CONTAINERS and n not in OWN}
    return before, kept


def _restore(module: nn.Module, contents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Takes meta tensors out of a module: those that replaced its own, and those that its forward kept there."""
    (before, kept), now = contents, vars(module)
    for name in [n for n, value in now.items() if value is not before.get(n, now) and n not in OWN]:
        if any(t.is_meta for t in tensors_in(now[name])):
            if name in before:
                now[name] = before[name]
            else:
                del now[name]
    for name, items in kept.items():
        value = now.get(name)
        if value is before[name] and (name in ("_parameters", "_buffers") or _holds_other_meta(value, items)):
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)
    for name in before.keys() - now.keys():
        now[name] = before[name]


def _holds_other_meta(value: Any, items: Any) -> bool:
    before = {id(t) for t in tensors_in(items)}
    return any(t.is_meta and id(t) not in before for t in tensors_in(value))


def _returns_new_or_first(schema: Any) -> bool:
    shared = [k for k, a in enumerate(schema.arguments) if a.alias_info is not None]
    if not shared:
        return not any(r.alias_info is not None for r in schema.returns)
    return shared == [0] and schema.arguments[0].alias_info.is_write and len(schema.returns) == 1


PLAIN = frozenset((int, float, bool, str, complex, type(None)))
TENSORS = frozenset((Tensor, nn.Parameter))
SETTINGS = (torch.dtype, torch.layout, torch.memory_format, torch.device)


def _key(args: Any, kwargs: Any) -> Any:
    """What the result on meta follows from, apart from the data; None where that is not certain."""
    key: list[Any] = [torch.get_default_dtype()]
    for value in (*args, *kwargs, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind in PLAIN:
            key += kind, value
        elif kind in TENSORS:
            if not value.is_meta or value.layout is not torch.strided:
                return None
            key += value.shape, value.stride(), value.dtype
        elif kind is list or kind is tuple:
            if not all(type(v) in PLAIN for v in value):
                return None
            key.append(tuple((type(v), v) for v in value))
        elif isinstance(value, SETTINGS):
            key.append(value)
        else:
            return None
    return tuple(key)


def _repeated(result: Any, args: Any) -> Callable[[], Any] | None:
    """What makes an equal result again; None where it shares memory with an argument or is no plain tensor."""
    if isinstance(result, Tensor) and args and result is args[0]:
        return tuple
    results = result if isinstance(result, tuple) else (result,)
    read = {_storage(t) for t in tensors_in(args)}
    for t in results:
        is_plain = type(t) is Tensor and t.is_meta and t.layout is torch.strided and not t.storage_offset()
        if not is_plain or t.is_conj() or t.is_neg() or _storage(t) in read:
            return None
    metas = [(t.shape, t.stride(), t.dtype) for t in results]

    def again() -> Any:
        made = [torch.empty_strided(shape, strides, dtype=dtype, device="meta") for shape, strides, dtype in metas]
        return tuple(made) if isinstance(result, tuple) else made[0]

    return again


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
        found = [_positions(i) for i in index]
        return [p for i in found for p in (i if isinstance(i, tuple) else (i,))]
    if not isinstance(index, Tensor) or index.is_meta or index.dtype is not torch.bool or not index.dim():
        return index
    return index.nonzero().flatten() if index.dim() == 1 else index.nonzero().unbind(1)


def _with_values(operand: Any, index: Any) -> Any:
    """A constant index with its values; a mask becomes the positions where it is true."""
    if isinstance(operand, tuple):
        return tuple(map(_with_values, operand, index))
    is_known = isinstance(index, Tensor) and not index.is_meta and index.dim() == 1 and operand.producer is None
    if not is_known or operand.params or index.is_floating_point():
        return operand
    return dataclasses.replace(operand, values=tuple(_positions(index).tolist()))
