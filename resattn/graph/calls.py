"""Follows the calls of a model's modules during a pass, and restores the model after it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from operator import is_
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator

from resattn.graph.plain_sizes import plain_sizes
from resattn.graph.recurrent import separate_products
from resattn.graph.signature import Given
from resattn.graph.values import EMPTY, Values
from resattn.graph.walk import OWN, tensors_in


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """A deep copy by an operator: torch's own copies the memory, and no operator would lead to the copy."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.clone()
    return memo[id(tensor)]


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
        original, recorder = nn.Module.__call__, self
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

        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(nn.Module, "__call__", call))
            patches.enter_context(mock.patch.object(Tensor, "__deepcopy__", _copied))
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
        """Evaluation mode inside the block. Afterwards the model is as before, and no tensor refers to this capture."""
        contents = list(map(_contents, self.index.containers, self.modules)) if self.is_meta else []
        for module in self.training:
            module.training = False
        try:
            if self.is_meta:
                self._to_meta()
            yield
        finally:
            for module in self.training:
                module.training = True
            for module, before, kept in contents:
                if _restore(module, before, kept):
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


def _index(index: Any) -> Any:
    """An index with lists of numbers as tensors: torch would make them on the device of the indexed tensor."""
    if isinstance(index, tuple):
        return tuple(_index(i) for i in index) if any(isinstance(i, list) for i in index) else index
    is_numbers = isinstance(index, list) and index and all(type(i) in (int, bool) for i in index)
    return torch.tensor(index) if is_numbers else index


Contents = tuple[nn.Module, dict[str, Any], list[tuple[str, Any]]]


def _contents(names: tuple[str, ...], named: tuple[str, nn.Module]) -> Contents:
    """A module, its attributes, and of those that are containers the items."""
    attributes = vars(named[1])
    return named[1], attributes.copy(), [(name, attributes[name].copy()) for name in names]


def _restore(module: nn.Module, before: dict[str, Any], kept: list[tuple[str, Any]]) -> bool:
    """Takes meta tensors out of a module: those that replaced its own, and those that its forward kept there. Whether
    the forward changed its attributes."""
    now = vars(module)
    is_changed = _differ(now, before)
    if is_changed:
        for name in [n for n, value in now.items() if value is not before.get(n, now) and n not in OWN]:
            if any(t.is_meta for t in tensors_in(now[name])):
                if name in before:
                    now[name] = before[name]
                else:
                    del now[name]
        for name in before.keys() - now.keys():
            now[name] = before[name]
    for name, items in kept:
        value = now.get(name)
        if not (value or items) or value is not before[name] or not _differ(value, items):
            continue
        if name in ("_parameters", "_buffers") or _holds_other_meta(value, items):
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(items)
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
