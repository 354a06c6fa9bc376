"""Follows the calls of a model's modules during a pass, and restores the model after it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator

from resattn.graph.plain_sizes import plain_sizes
from resattn.graph.recurrent import separate_products
from resattn.graph.signature import Given
from resattn.graph.values import EMPTY, Values
from resattn.graph.walk import OWN, Contents, tensors_in


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """A deep copy by an operator: torch's own copies the memory, and no operator would lead to the copy."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.clone()
    return memo[id(tensor)]


Change = tuple[Any, str, Any]  # an object, the name of an attribute, and its new value
MISSING = object()


@contextmanager
def changed(changes: Sequence[Change]) -> Iterator[None]:
    """Attributes have other values inside the block. As `mock.patch.object`, in a tenth of the time."""
    before = [(owner, name, vars(owner).get(name, MISSING)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            if value is not MISSING:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


watching: list[Callable[..., Any]] = []  # for each running pass the function that calls a module; the last is used


@contextmanager
def calling_through() -> Iterator[None]:
    """Inside the block, calls of modules go to the last function of `watching`.

    An audit opens one block for all its passes: each replacement of `nn.Module.__call__` makes Python drop its method
    caches for every subclass.
    """
    before = nn.Module.__call__
    if _original() is not before:
        yield
        return

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (watching[-1] if watching else before)(module, *args, **kwargs)

    call._resattn_original = before  # type: ignore[attr-defined]
    with changed([(nn.Module, "__call__", call)]):
        yield


def _original() -> Callable[..., Any]:
    return getattr(nn.Module.__call__, "_resattn_original", nn.Module.__call__)


class Calls(Values):
    """A pass that knows which module's forward is running."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.runs: Counter[int] = Counter()
        self.training = [m for _, m in self.modules if m.training]
        self.failed_at: str | None = None

    def returned_by(self, module: nn.Module, result: Any) -> None:
        """Records what a module's forward returned."""

    @contextmanager
    def watching_calls(self) -> Iterator[None]:
        original, recorder = _original(), self
        runs, stack, paths = self.runs, self.stack, self.paths

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            key = id(module)
            runs[key] = runs.get(key, 0) + 1
            if module.training:  # held where no walk over the model finds it
                recorder.training.append(module)
                module.training = False
            stack.append(paths.get(key) or recorder._nameless(module))
            try:
                if isinstance(module, nn.RNNBase):
                    with separate_products():
                        result = original(module, *args, **kwargs)
                else:
                    result = original(module, *args, **kwargs)
                recorder.returned_by(module, result)
                return result
            except Exception:
                recorder.failed_at = recorder.failed_at or recorder.path
                raise
            finally:
                stack.pop()

        changes = self._with_known_values() if self.is_meta else []
        with (
            plain_sizes() if self.is_meta else nullcontext(),
            changed([*changes, (Tensor, "__deepcopy__", _copied)]),
            calling_through(),
        ):
            watching.append(call)
            try:
                yield
            finally:
                watching.pop()

    def _with_known_values(self) -> list[Change]:
        """Functions of torch that make constants, or arrays from them, without an operator on the meta device."""
        numpy, recorder = Tensor.numpy, self

        def to_numpy(data: Tensor, **kwargs: Any) -> Any:
            value = recorder._value(data) if data.is_meta else data
            return numpy(data if value is None else value, **kwargs)

        return [
            (torch, "tensor", _made(torch.tensor)),
            (torch, "as_tensor", _made(torch.as_tensor)),
            (Tensor, "__getitem__", _with_index(Tensor.__getitem__)),
            (Tensor, "__setitem__", _with_index(Tensor.__setitem__)),
            (Tensor, "new_tensor", _new_tensor),
            (Tensor, "numpy", to_numpy),
        ]

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Evaluation mode inside the block. Afterwards the model is as before, and no tensor refers to this capture."""
        contents = self.index.contents if self.is_meta else []
        for module in self.training:
            module.training = False
        try:
            if self.is_meta:
                self._to_meta()
            yield
        finally:
            for module in self.training:
                module.training = True
            if True in [_restore(each) for each in contents]:
                self.index.is_whole = False
            self.finish()
            with torch.no_grad():
                for own, value in self.saved.values():
                    own.copy_(value)

    def finish(self) -> None:
        """Called after the pass."""

    def _nameless(self, module: nn.Module) -> str:
        if module is self.model:
            return ""
        self.index.is_whole = False
        return f"{self.path}.{type(module).__name__}".lstrip(".")


class Replay(Calls):
    """A pass that writes its log but no graph."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is EMPTY and args[0] == [0]:
            return self._nothing(kwargs)
        plan = self.plans.get(id(func))
        if plan is None:
            if isinstance(func, HigherOrderOperator):
                return self.of_functions(func, args)
            plan = self.plan(func)
        signature, rule = plan.signature, plan.rule
        given = Given(args, kwargs, True)
        if (known := self.kept(plan, given)) is not None:
            self.log.append((signature.name, self.path, known.shapes))
            return self.once_more(known, func, args, kwargs)[0]
        result = self.run_on_meta(func, plan, given, args, kwargs)
        if rule is not None and rule.kind == "shape":
            return self._filled(signature, signature.arguments(args, kwargs), result)
        self.log.append((signature.name, self.path, tuple([tuple(t.shape) for t in tensors_in(result)])))
        return result


@functools.lru_cache(maxsize=8)
def _made(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> Tensor:
        device = kwargs.get("device")
        is_meta = device is not None and torch.device(device).type == "meta"
        return function(*args, **{**kwargs, "device": "cpu"} if is_meta else kwargs)

    return make


def _new_tensor(like: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> Tensor:
    return torch.tensor(data, dtype=dtype or like.dtype, **more)


def _with_index(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda data, index, *value: function(data, _index(index), *value)


def _index(index: Any) -> Any:
    """An index with lists of numbers as tensors: torch would make them on the device of the indexed tensor."""
    if isinstance(index, tuple):
        return tuple(_index(i) for i in index) if any(isinstance(i, list) for i in index) else index
    is_numbers = isinstance(index, list) and index and all(type(i) in (int, bool) for i in index)
    return torch.tensor(index) if is_numbers else index


def _restore(contents: Contents) -> bool:
    """Takes meta tensors out of a module: those that replaced its own, and those that its forward kept there. Whether
    the forward changed its attributes, or what its containers hold."""
    module, names, values, filled = contents
    now = vars(module)
    try:
        # One object is equal to itself without a question; two tensors on meta raise.
        is_changed = tuple(now.values()) != values
    except Exception:
        is_changed = True
    if is_changed:
        before = dict(zip(names, values, strict=True))
        for name in [n for n, value in now.items() if value is not before.get(n, now) and n not in OWN]:
            if any(t.is_meta for t in tensors_in(now[name])):
                if name in before:
                    now[name] = before[name]
                else:
                    del now[name]
        for name in before.keys() - now.keys():
            now[name] = before[name]
    for name, value, items in filled:
        if not (value or items) or name not in now or now[name] is not value or not _differ(value, items):
            continue
        if name in ("_parameters", "_buffers") or _holds_other_meta(value, items):
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)
        else:
            is_changed = True
    return is_changed


def _differ(now: Any, before: Any) -> bool:
    """Whether two lists or dictionaries hold other objects, or the same in another order."""
    if len(now) != len(before):
        return True
    if isinstance(now, dict):
        return not all(map(is_, now.values(), before.values())) or list(now) != list(before)
    return not all(map(is_, now, before))


def _holds_other_meta(value: Any, items: Any) -> bool:
    before = {id(t) for t in tensors_in(items)}
    return any(t.is_meta and id(t) not in before for t in tensors_in(value))
