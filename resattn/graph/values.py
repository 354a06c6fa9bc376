"""Runs operators on the meta device, and computes values of tensors that depend on no parameter and no real input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from resattn.graph.errors import NEEDS_VALUES, TRY_CPU, NeedsValuesError
from resattn.graph.kernels import QUICK
from resattn.graph.signature import MOST_RESULTS, READ_ON_CPU, Given, Known, Signature, signature_of
from resattn.graph.walk import Index, offset_of, storage_of, tensors_in

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

# Elements of a tensor up to which its values are computed, where all that it is made from has values.
MOST_VALUES = 2**22
EMPTY = torch.ops.aten.empty.memory_format
META = torch.device("meta")
# What fills the constants that have the shape of another tensor.
FILLS = {"zeros_like": 0, "new_zeros": 0, "ones_like": 1, "new_ones": 1}


class FunctionsError(NotImplementedError):
    """An operator that takes functions, other than a condition with two branches."""


class Plan:
    """How a pass runs one operator."""

    __slots__ = ("is_quick", "results", "rule", "signature")

    def __init__(self, signature: Signature, rule: Rule | None, results: dict[Any, Known]) -> None:
        self.signature, self.rule, self.results = signature, rule, results
        # Nothing but shapes decides what it gives.
        self.is_quick = signature.is_repeatable and (rule is None or (rule.kind != "shape" and not rule.indices))


class Values(TorchDispatchMode):
    """A pass that runs the operators of a model.

    On the meta device every tensor of the forward is on meta: inputs, and replacements of parameters, buffers and
    constants. The values of tensors that depend on no parameter and no real input are known: they are computed on the
    CPU as well and kept as attributes of the tensors.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap every call in a guard against its compiler, whose import alone takes longer than a capture.
        return False

    supports_higher_order_operators = True

    def of_functions(self, func: Any, args: Any) -> Any:
        """What an operator that takes functions gives; of two branches, the one that its condition chooses runs.

        Raises: FunctionsError for any other.
        """
        if func.__name__ != "cond":
            raise FunctionsError(f"{func.__name__} takes functions, and what it runs of them is not recorded")
        condition, *branches, operands = args
        with self:
            return branches[0 if bool(condition) else 1](*operands)

    def __init__(self, index: Index, rule_of: Callable[[str], Rule | None], device: str) -> None:
        super().__init__()
        self.is_meta = device == "meta"
        self.rule_of = functools.cache(rule_of)
        self.plans: dict[int, Plan] = {}
        self.index = index
        self.model, self.modules, self.paths = index.model, index.modules, index.paths
        # Of the parameters, by the ids of them and of what replaces them.
        self.params, self.named = index.held.copy(), index.named.copy()
        self.sizes, self.places = index.sizes.copy(), index.places.copy()
        self.dtype = index.dtype
        self.state = index.state
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}
        self.stack: list[str] = []
        self.stand_ins: dict[int, Tensor] = {}
        self.stale: dict[int, StorageWeakRef] = {}  # storages of values over which data was written
        self.stages: dict[tuple[int, torch.dtype], tuple[Tensor, StorageWeakRef]] = {}
        self.stands_for: dict[int, int] = {}
        self.nothings: dict[Any, Tensor] = {}
        # What ran: the name of each operator, its module and the shapes of its results.
        self.log: list[tuple[str, str, Any]] = []

    @property
    def path(self) -> str:
        return self.stack[-1] if self.stack else ""

    def plan(self, func: Any) -> Plan:
        signature = signature_of(func)
        # An operator of a user may be defined anew.
        results: dict[Any, Known] = signature.results if signature.name.startswith("aten.") else {}
        plan = self.plans[id(func)] = Plan(signature, self.rule_of(signature.name), results)
        return plan

    def _adopt(self, param: Tensor, name: str) -> str:
        """The parameter's name. It is held here, so that its id stays its own, also where no module registers it."""
        if (known := self.named.get(id(param))) is not None:
            return known
        self.params[id(param)], self.named[id(param)], self.sizes[name] = param, name, param.numel()
        self.places.setdefault((storage_of(param), offset_of(param)), id(param))
        return name

    # -- operators

    def kept(self, plan: Plan, given: Given) -> Known | None:
        """The cached result of a call on meta in which no tensor has values; None if there is none."""
        if not plan.is_quick or given.key is None or (known := plan.results.get(given.key)) is None:
            return None
        for tensor in given.tensors:
            if getattr(tensor, "_resattn_value", None) is None:
                return known
        return None

    def once_more(self, known: Known, func: Any, args: Any, kwargs: Any) -> tuple[Any, list[Tensor]]:
        """A cached result made again, and the tensors in it."""
        if known.metas is not None:
            made = [
                torch.empty_strided(shape, strides, dtype=dtype, device=META) for shape, strides, dtype in known.metas
            ]
            return tuple(made) if known.is_tuple else made[0], made
        if known.is_first:
            self._forget(args[0])
            return args[0], [args[0]]
        if known.view is not None:
            shape, strides, offset = known.view
            result = args[0].as_strided(shape, strides, args[0].storage_offset() + offset)
            return result, [result]
        result = func(*args, **self._on_meta(kwargs))
        return result, [result] if type(result) is Tensor else tensors_in(result)

    def run_on_meta(self, func: Any, plan: Plan, given: Given, args: Any, kwargs: Any) -> Any:
        try:
            return self._run_on_meta(func, plan, given, args, kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if plan.signature.needs_values:
                raise NeedsValuesError(NEEDS_VALUES) from error
            if isinstance(error, NotImplementedError):
                raise NeedsValuesError(f"{plan.signature.name} does not run on the meta device{TRY_CPU}") from error
            raise

    def _run_on_meta(self, func: Any, plan: Plan, given: Given, args: Any, kwargs: Any) -> Any:
        signature, rule, tensors = plan.signature, plan.rule, given.tensors
        if (rule is None or rule.kind != "shape") and self._has_values(func, tensors, args, kwargs):
            return self._run_on_values(func, signature, tensors, args, kwargs)
        if signature.name in READ_ON_CPU:
            at = signature.names.index(READ_ON_CPU[signature.name])
            return func(*[self._known(a) if i == at else self._on_meta(a) for i, a in enumerate(args)])
        key = given.key if signature.is_repeatable else None
        if rule is not None and rule.indices:
            args = [
                positions(self._known(a)) if name in rule.indices else a
                for name, a in zip(signature.names, args, strict=False)
            ]
            key = Given(args, kwargs, True).key if key is not None else None
        if key is not None and (known := plan.results.get(key)) is not None:
            return self.once_more(known, func, args, kwargs)[0]
        if (quick := QUICK.get(func)) and (result := quick(*args, **kwargs)) is not None:
            return _kept(plan, key, args, kwargs, result)
        written = {id(t) for t in tensors if t.device.type != "meta"}
        result = func(*self._on_meta(args), **self._on_meta(kwargs))
        for tensor in (t for n in signature.written for t in tensors_in(_argument(signature, n, args, kwargs))):
            self._forget(tensor)
        if written and signature.written:
            return self._same_objects(func, args, kwargs, result)
        return _kept(plan, key, args, kwargs, result)

    def _save(self, signature: Signature, arguments: Mapping[str, Any]) -> None:
        """Keeps what a real write in place would take from the model's own tensors."""
        for name in signature.written:
            for tensor in tensors_in(arguments.get(name)):
                own = self.state.get(self._storage(tensor))
                if own is not None and not own.is_meta:
                    self.saved.setdefault(id(own), (own, own.detach().clone()))

    # -- values beside the meta device

    def know(self, tensor: Tensor, value: Tensor | None) -> None:
        """Sets the values of an input of integers."""
        if value is not None and self.is_meta and value.numel() <= MOST_VALUES:
            tensor._resattn_value = value  # type: ignore[attr-defined]

    def _value(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor where they are known."""
        value = getattr(tensor, "_resattn_value", None)
        if value is None and tensor.is_meta:
            return None
        if value is None and id(tensor) not in self.named:
            # A constant that nothing replaced by a meta tensor, such as one in a list of the model's.
            value = None if isinstance(tensor, nn.Parameter) or self._is_parameter_data(tensor) else tensor
        return None if value is None or (self.stale and storage_of(value) in self.stale) else value

    def _is_parameter_data(self, tensor: Tensor) -> bool:
        return (self._storage(tensor), offset_of(tensor)) in self.places

    def _forget(self, tensor: Tensor) -> None:
        if (value := getattr(tensor, "_resattn_value", None)) is not None:
            self.stale[storage_of(value)] = StorageWeakRef(value.untyped_storage())

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

    def _run_on_values(self, func: Any, signature: Signature, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
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
        """A tensor without elements: each batch norm makes one, which nothing writes to."""
        key = tuple(kwargs.items())
        shown = self.nothings.get(key)
        if shown is None or shown.numel():
            real = EMPTY([0], **self._on_cpu(kwargs))
            if kwargs.get("device") == torch.device("cpu"):
                return real
            shown = torch.empty(0, dtype=real.dtype, device="meta")
            shown._resattn_value = real  # type: ignore[attr-defined]
            if real.dtype is torch.uint8:
                self.nothings[key] = shown
        return shown

    def _with_value(self, real: Tensor) -> Tensor:
        shown = self._stand_in(real)
        shown._resattn_value = real  # type: ignore[attr-defined]
        return shown

    def _filled(self, signature: Signature, arguments: Mapping[str, Any], result: Any) -> Any:
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
        if self.index.is_on_meta:
            return
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
            self.stands_for[storage_of(whole)] = storage._cdata
        return self.stages[key][0].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _storage(self, tensor: Tensor) -> int:
        storage = storage_of(tensor)
        return self.stands_for.get(storage, storage)

    def _same_objects(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        # An in-place operator returns its own argument: here that is the real tensor, not its stand-in.
        arguments = dict(zip(signature_of(func).names, args)) | kwargs  # noqa: B905
        targets = [arguments[name] for name in signature_of(func).written if isinstance(arguments.get(name), Tensor)]
        return targets[0] if isinstance(result, Tensor) and targets else result


def _kept(plan: Plan, key: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """The result; what is known of it is kept for the next time that the same is asked."""
    if key is not None:
        if len(plan.results) >= MOST_RESULTS:
            plan.results.clear()
        plan.results[key] = Known(plan.signature, args, kwargs, result)
    return result


def _argument(signature: Signature, name: str, args: Any, kwargs: Any) -> Any:
    at = signature.names.index(name)
    return args[at] if at < len(args) else kwargs.get(name)


def positions(index: Any) -> Any:
    """A constant mask as the positions where it is true, since a meta tensor does not know their number."""
    if isinstance(index, list | tuple):
        found = [positions(i) for i in index]
        return [p for i in found for p in (i if isinstance(i, tuple) else (i,))]
    if not isinstance(index, Tensor) or index.is_meta or index.dtype is not torch.bool or not index.dim():
        return index
    return index.nonzero().flatten() if index.dim() == 1 else index.nonzero().unbind(1)
