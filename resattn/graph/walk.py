"""The modules, parameters and tensors of a model, wherever it keeps them; found once for all passes."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from resattn.graph.errors import CaptureError

# Their parameters of several dimensions scale or are looked up: they multiply no data.
WEIGHTLESS = (nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)


def modules_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, also those in plain lists and dictionaries, by the first path that leads to it."""
    seen: set[int] = set()
    waiting = [("", model)]  # not by recursion: models are nested more deeply than Python's stack allows
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        dot = f"{path}." if path else ""
        children = [(dot + n, m) for n, m in module._modules.items() if m is not None]
        for name, value in vars(module).items():
            if type(value) not in PLAIN and name not in EVERY and isinstance(value, CONTAINERS):
                children += [(f"{dot}{name}{key}", item) for key, item in _contained(value)]
        waiting += reversed(children)


EVERY = frozenset(vars(nn.Module()))  # the attributes of every module
CONTAINERS = (dict, list, tuple, set, frozenset)
PLAIN = frozenset((int, float, bool, str, type(None)))


def _contained(value: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a plain container and in the containers inside it."""
    if PLAIN.issuperset(map(type, value.values() if isinstance(value, dict) else value)):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, nn.Module):
            yield f"[{key}]", item
        elif isinstance(item, CONTAINERS):
            yield from ((f"[{key}]{rest}", module) for rest, module in _contained(item))


def parameters_of(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    for path, module in modules:
        for name, param in module._parameters.items():
            if param is not None:
                full = f"{path}.{name}" if path else name
                if type(param) is not nn.Parameter and is_lazy(param):
                    raise CaptureError(f"{full} has no shape yet: call the lazy module once before")
                yield full, param


def leaves_of(result: Any) -> list[Tensor]:
    """The tensors in a model's result, also in containers of the model's own types.

    Raises: TypeError for a generator or similar object, whose items have not been computed.
    """
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Iterator):
        raise TypeError(f"the forward returned a {type(result).__name__}, which has not run: return its items")
    if isinstance(result, Mapping):
        parts: Iterable[Any] = result.values()
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        parts = [getattr(result, f.name) for f in dataclasses.fields(result)]
    elif isinstance(result, list | tuple):
        parts = result
    else:
        parts = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return [leaf for part in parts for leaf in leaves_of(part)]


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in arguments or results, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for v in value if isinstance(v, Tensor | list | tuple | dict) for tensor in tensors_in(v)]


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def offset_of(tensor: Tensor) -> int:
    return int(tensor.storage_offset()) if tensor.layout is torch.strided else 0


# The attributes of every module, without those that hold tensors; a forward has no business with them.
OWN = EVERY - {"_parameters", "_buffers"}
FILLED = frozenset((dict, list, OrderedDict))


@dataclass(frozen=True, slots=True)
class Defined:
    """A module as defined: the names of its own parameters, and whether one of them multiplies data."""

    path: str
    kind: str
    params: tuple[str, ...]
    is_weighted: bool


class Contents(NamedTuple):
    """A module, its attributes, and of those that a forward may fill the items: its tables and plain containers."""

    module: nn.Module
    names: tuple[str, ...]
    values: tuple[Any, ...]
    filled: list[tuple[str, Any, Any]]


def _contents(module: nn.Module) -> Contents:
    attributes = vars(module)
    filled = [
        (name, value, value.copy()) for name, value in attributes.items() if type(value) in FILLED and name not in OWN
    ]
    return Contents(module, tuple(attributes), tuple(attributes.values()), filled)


class Index:
    """The modules of a model by the first path to each, its parameters by name, and its buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = list(modules_of(model))
        self.paths = {id(module): path for path, module in self.modules}
        self.own = [list(parameters_of([each])) for each in self.modules]
        self.params = [param for own in self.own for param in own]
        self.held: dict[int, Tensor] = {}
        self.named: dict[int, str] = {}
        self.sizes: dict[str, int] = {}
        self.places: dict[tuple[int, int], int] = {}  # where its data lies -> the parameter
        for name, param in self.params:
            if id(param) not in self.named:
                self.held[id(param)], self.named[id(param)], self.sizes[name] = param, name, param.numel()
                self.places.setdefault((storage_of(param), offset_of(param)), id(param))
        self.buffers = [b for _, m in self.modules for b in m._buffers.values() if b is not None]
        self.is_whole = True  # until a module runs that is not here, or a pass leaves a module changed

    @cached_property
    def contents(self) -> list[Contents]:
        """The modules as they were before the first pass, to which every pass on meta restores them."""
        return [_contents(module) for _, module in self.modules]

    @property
    def current(self) -> Index:
        """This index, or a new one if the model has changed."""
        return self if self.is_whole else Index(self.model)

    @cached_property
    def state(self) -> dict[int, Tensor]:
        """The tensors that have values, by their place in memory."""
        return {storage_of(t): t for t in (*self.held.values(), *self.buffers) if not t.is_meta}

    @cached_property
    def dtype(self) -> torch.dtype:
        floating = (p.dtype for _, p in self.params if p.is_floating_point())
        return next(floating, torch.get_default_dtype())

    @cached_property
    def is_on_meta(self) -> bool:
        """Whether no parameter and no buffer has a value."""
        return all(t.is_meta for t in (*(p for _, p in self.params), *self.buffers))

    @cached_property
    def defined(self) -> list[Defined]:
        return [
            Defined(
                path,
                type(module).__name__,
                tuple(dict.fromkeys([self.named[id(p)] for _, p in own])) if own else (),
                any(p.dim() >= 2 for _, p in own) and not isinstance(module, WEIGHTLESS),
            )
            for (path, module), own in zip(self.modules, self.own, strict=True)
        ]
