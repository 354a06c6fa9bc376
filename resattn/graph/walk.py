"""The modules, parameters and tensors of a model, wherever it keeps them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from resattn.graph.errors import CaptureError

# Their parameters of several dimensions scale or are looked up: they multiply no data.
WEIGHTLESS = (nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)


def modules_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, those in plain lists and dictionaries too, under the first path that leads to it."""
    seen: set[int] = set()
    own = vars(nn.Module()).keys()
    waiting = [("", model)]  # not by recursion: models are nested more deeply than Python's stack allows
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        children = [(f"{path}.{n}" if path else n, m) for n, m in module._modules.items() if m is not None]
        for name, value in vars(module).items():
            if name not in own and isinstance(value, CONTAINERS):
                found = _contained(value)
                children += [(f"{path}.{name}{key}" if path else f"{name}{key}", item) for key, item in found]
        waiting += reversed(children)


CONTAINERS = (dict, list, tuple, set, frozenset)


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
        elif isinstance(item, CONTAINERS):
            yield from ((f"[{key}]{rest}", module) for rest, module in _contained(item))


def parameters_of(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    for path, module in modules:
        for name, param in module._parameters.items():
            if param is not None and is_lazy(param):
                raise CaptureError(f"{path}.{name} has no shape yet: call the lazy module once before".lstrip("."))
            if param is not None:
                yield f"{path}.{name}".lstrip("."), param


def leaves_of(result: Any) -> list[Tensor]:
    """The tensors in what a model returns, containers of its own included.

    Raises: TypeError for a generator and its like, whose items have not run.
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
