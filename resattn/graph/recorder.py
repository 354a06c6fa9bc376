"""Records the operators of one forward pass and the data between them."""

from __future__ import annotations

import dataclasses
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch._ops import HigherOrderOperator
from torch.multiprocessing.reductions import StorageWeakRef

from resattn.graph.aliasing import View, overlap
from resattn.graph.calls import Calls
from resattn.graph.graph import INPUT, OVERWRITE, Graph, Module, Op, Operand, Shape
from resattn.graph.signature import Given, Signature
from resattn.graph.values import EMPTY, positions
from resattn.graph.walk import Index, offset_of, storage_of, tensors_in

if TYPE_CHECKING:
    from resattn.rules.rule import Rule

# Kinds of operators that multiply: what they make of parameters is an activation.
PRODUCTS = ("convolution", "matmul", "attention")


@dataclass(slots=True)  # not frozen, which would take several times as long to make: there is one for each result
class _Origin:
    """The origin of a tensor. It is an attribute of the tensor, so it has the same lifetime."""

    capture: object  # which one: a token, so that a tensor that a model keeps does not keep the capture
    producer: int | None
    slot: int = 0
    params: tuple[str, ...] = ()
    is_activation: bool = False  # of what no input reaches: the result of a product of parameters, or made from one
    constant: int = 0  # the index of the recorded operator that made it, where no input reaches it
    operand: Operand | None = None  # what describes it as an argument, once it has been one


@dataclass(frozen=True, slots=True)
class _Write:
    """An operator's write in place to a view. The weak reference keeps the storage's address from being used again."""

    index: int
    view: View
    storage: StorageWeakRef


class Recorder(Calls):
    """A mode that records every operator that runs inside it."""

    def __init__(
        self, model: nn.Module, rule_of: Callable[[str], Rule | None], device: str, index: Index | None = None
    ) -> None:
        super().__init__(Index(model) if index is None else index, rule_of, device)
        self.token = object()
        self.ops: list[Op] = []
        self.constants: list[Op] = []
        self.unread: set[int] = set()
        self.returned: dict[int, Operand] = {}
        self.operands_of: dict[int, Operand] = {}  # of parameters
        self.writes: dict[int, list[_Write]] = {}
        self.last_write = -1
        self.params_in: dict[int, tuple[str, ...]] = {}
        self.held: list[StorageWeakRef] = []
        self.marked: list[weakref.ref[Tensor]] = []

    # -- tensors and where they came from

    def start(self, tensor: Tensor, value: Tensor | None = None) -> None:
        """Marks a tensor as an input. `value`: its values on the meta device, if it holds integers."""
        self.know(tensor, value)
        op = Op(len(self.ops), INPUT, "", {}, (tuple(tensor.shape),), self.rule_of(INPUT))
        self.ops.append(op)
        self._mark(tensor, op.index)
        self.marked.append(weakref.ref(tensor))

    def _mark(self, tensor: Tensor, *origin: Any) -> None:
        """`origin`: the fields of `_Origin` behind the capture."""
        tensor._resattn_origin = _Origin(self.token, *origin)  # type: ignore[attr-defined]

    def _origin(self, tensor: Tensor) -> _Origin | None:
        origin = getattr(tensor, "_resattn_origin", None)
        return origin if origin is not None and origin.capture is self.token else None

    def operand(self, tensor: Tensor) -> Operand:
        origin = self._origin(tensor)
        if self.last_write < 0 and not self.params_in:
            return self._unwritten(tensor, origin)
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
        shape = tensor.shape
        if origin is not None:
            if origin.constant:
                self.unread.discard(origin.constant)
            known = origin.operand
            if known is None or known.shape != shape:
                made_by = origin.constant if origin.is_activation else 0
                known = Operand(tuple(shape), origin.producer, origin.slot, origin.params, None, made_by)
                origin.operand = known
            return known
        known = self.operands_of.get(id(tensor))
        if known is not None and known.shape == shape:
            return known
        if id(tensor) in self.named or isinstance(tensor, nn.Parameter):
            known = self.operands_of[id(tensor)] = Operand(tuple(shape), None, 0, (self._name(tensor),))
            return known
        # The data of a parameter, without the parameter (`weight.data`), lies where it lies.
        if param := self.places.get((self._storage(tensor), offset_of(tensor))):
            return Operand(tuple(shape), None, 0, (self.named[param],))
        return Operand(tuple(shape))

    def _name(self, param: Tensor) -> str:
        return self._adopt(param, f"{self.path}.parameter{len(self.params) + 1}".lstrip("."))

    # -- writes in place: every tensor that shares elements sees them

    def _written(self, tensor: Tensor, index: int) -> None:
        self._mark(tensor, index)
        self.marked.append(weakref.ref(tensor))
        storage, key = tensor.untyped_storage(), self._storage(tensor)
        if (value := getattr(tensor, "_resattn_value", None)) is not None:
            self.stale[storage_of(value)] = StorageWeakRef(value.untyped_storage())
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

    # -- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is EMPTY and self.is_meta and args[0] == [0]:
            return self._nothing(kwargs)
        plan = self.plans.get(id(func))
        if plan is None:
            if isinstance(func, HigherOrderOperator):
                return self.of_functions(func, args)
            plan = self.plan(func)
        signature, rule = plan.signature, plan.rule
        given = Given(args, kwargs, self.is_meta)
        if (known := self.kept(plan, given)) is not None:
            found = tuple(map(self.operand, given.tensors))
            operands, shapes = known.filled(found), known.shapes
            result, outputs = self.once_more(known, func, args, kwargs)
            arguments = signature.arguments(args, kwargs) if signature.written else {}
        else:
            arguments = signature.arguments(args, kwargs)
            operands = {name: self._described(value) for name, value in arguments.items()}
            found = tuple(
                operand
                for value in operands.values()
                for operand in (value if type(value) is tuple else (value,))
                if type(operand) is Operand
            )
            if self.is_meta:
                result = self.run_on_meta(func, plan, given, args, kwargs)
                known = plan.results.get(given.key) if plan.is_quick else None
            else:
                self._save(signature, arguments)
                result = func(*args, **kwargs)
            if rule is not None and rule.kind == "shape":
                return self._filled(signature, arguments, result) if self.is_meta else result
            outputs = tensors_in(result)
            shapes = tuple([tuple(t.shape) for t in outputs])
        self.log.append((signature.name, self.path, shapes))
        if outputs or signature.written:
            for operand in found:
                if operand.producer is not None:
                    self._record(signature, rule, operands, arguments, outputs, shapes, known, found)
                    break
            else:
                self._keep_constant(signature, rule, operands, arguments, given.tensors, outputs, found)
        return result

    def _keep_constant(
        self, signature: Signature, rule: Rule | None, operands: dict, arguments: dict, given: list[Tensor],
        outputs: list[Tensor], found: tuple[Operand, ...],
    ) -> None:  # fmt: skip
        """An operator that no input reaches: it is recorded if it multiplies, or reads what a product made."""
        params = tuple(dict.fromkeys(p for o in found for p in o.params))
        is_product = rule.kind in PRODUCTS if rule is not None else not signature.name.startswith("aten.")
        origins = [o for t in given if (o := self._origin(t)) is not None]
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
        self, signature: Signature, rule: Rule | None, operands: dict[str, Any], arguments: dict[str, Any],
        outputs: list[Tensor], shapes: tuple[Shape, ...], call: Any, found: tuple[Operand, ...],
    ) -> None:  # fmt: skip
        if signature.written:
            found = ()
            is_replacing = rule is not None and rule.is_replacing and signature.name.endswith("_")
            for name in signature.written if is_replacing else signature.outputs:
                operands[name] = _blank(operands[name])
        if rule is not None and rule.indices:
            found = ()
            operands |= {k: _with_values(operands[k], self._known(arguments[k])) for k in rule.indices if k in operands}
        index = len(self.ops)
        self.ops.append(Op(index, signature.name, self.path, operands, shapes, rule, call, found))
        for slot, tensor in enumerate(outputs):
            self._mark(tensor, index, slot)
        for name in signature.written:
            for tensor in tensors_in(arguments.get(name)):
                self._written(tensor, index)

    def _described(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.operand(value)
        if isinstance(value, list | tuple):
            return tuple([self._described(v) for v in value])
        return value

    def _is_parameter_data(self, tensor: Tensor) -> bool:
        origin = self._origin(tensor)
        return bool(origin.params) if origin is not None else bool(self._unwritten(tensor, None).params)

    # -- modules

    def returned_by(self, module: nn.Module, result: Any) -> None:
        first = result if type(result) is Tensor else next(iter(tensors_in(result)), None)
        if first is not None and not is_functorch_wrapped_tensor(first):
            self.returned[id(module)] = self._unwritten(first, self._origin(first))

    def finish(self) -> None:
        """Afterwards no tensor refers to this pass."""
        for tensor in (t for ref in self.marked if (t := ref()) is not None):
            vars(tensor).pop("_resattn_origin", None)

    def graph(self, outputs: Sequence[int], shapes: tuple[Shape, ...], returned: frozenset[str] = frozenset()) -> Graph:
        modules: list[Module] = []
        for own, (_, module) in zip(self.index.defined, self.modules, strict=True):
            n, result = self.runs.get(id(module), 0), self.returned.get(id(module))
            modules.append(Module(own.path, own.kind, own.params, n > 0, own.is_weighted, n, result))
        return Graph(
            tuple(self.ops),
            tuple(outputs),
            dict(self.sizes),
            tuple(modules),
            shapes,
            tuple(self.constants),
            frozenset(self.unread),
            returned,
        )


def _view(tensor: Tensor) -> View:
    return View(int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _blank(operand: Any) -> Any:
    return tuple(map(_blank, operand)) if isinstance(operand, tuple) else Operand(operand.shape)


def _with_values(operand: Any, index: Any) -> Any:
    """A constant index with its values; a mask becomes the positions where it is true."""
    if isinstance(operand, tuple):
        return tuple(map(_with_values, operand, index))
    is_known = isinstance(index, Tensor) and not index.is_meta and index.dim() == 1 and operand.producer is None
    if not is_known or operand.params or index.is_floating_point():
        return operand
    return dataclasses.replace(operand, values=tuple(positions(index).tolist()))
