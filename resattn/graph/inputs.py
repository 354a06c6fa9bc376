"""The arguments of a forward: example tensors or shapes, possibly nested, on any device."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from resattn.graph.graph import Indices, Shape


@dataclass(frozen=True)
class Blank:
    """An input given by its shape only. `dtype`: its type; None for the type of the model's parameters."""

    shape: Shape
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Inputs:
    """The arguments of a forward; each tensor in them is an example (`Tensor`) or a shape (`Blank`).

    `batch`: the batch of inputs whose shape comes from the target.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch: Shape = field(default=(1,), compare=False)

    @classmethod
    def of(cls, args: Sequence[Any] | Inputs, kwargs: Mapping[str, Any] | None = None, *, batch: Shape = ()) -> Inputs:
        """Arguments as given if they contain a tensor; otherwise sequences of integers are shapes.

        `batch` is put in front of each shape. An `Indices` is the shape of integers. `Inputs` are returned as they are.
        """
        if isinstance(args, Inputs):
            return args
        if len(args) == 1 and isinstance(args[0], Inputs) and not kwargs:
            return args[0]
        given = cls(tuple(args), dict(kwargs or {}))
        if any(True for _ in _leaves((given.args, given.kwargs))):
            return given
        blanks = (_blank(arg, batch) if _is_shape(arg) else arg for arg in given.args)
        return cls(tuple(blanks), given.kwargs)

    @property
    def leaves(self) -> tuple[Tensor | Blank, ...]:
        """The tensors and shapes in the order of the arguments; a tensor that is passed twice is listed once."""
        return tuple({id(leaf): leaf for leaf in _leaves((self.args, self.kwargs))}.values())

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(
            Indices(leaf.shape) if isinstance(leaf, Blank) and leaf.dtype is torch.int64 else tuple(leaf.shape)
            for leaf in self.leaves
        )

    def with_shapes(self, shapes: Sequence[Shape]) -> Inputs:
        """The same arguments, each tensor replaced by a shape of the same type. `shapes`: one for each of `leaves`."""
        pairs = zip(self.leaves, shapes, strict=True)
        return self._replaced({id(leaf): Blank(tuple(shape), leaf.dtype) for leaf, shape in pairs})

    def on(self, device: str, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
        """Arguments and keyword arguments for one call.

        On "meta" each tensor has the shape, strides and type of its example. Elsewhere it is a copy of the example; if
        only a shape is given, real numbers are drawn from a fixed seed and integers are zero.
        """
        made = {id(leaf): _made(leaf, device, dtype) for leaf in self.leaves}
        call = self._replaced(made)
        return call.args, dict(call.kwargs), list(made.values())

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and keyword arguments with these tensors in place of `leaves`."""
        call = self._replaced({id(leaf): t for leaf, t in zip(self.leaves, tensors, strict=True)})
        return call.args, dict(call.kwargs)

    def integers(self, dtype: torch.dtype) -> dict[int, Tensor]:
        """The values of those of `leaves` that are integers or booleans, on the CPU."""
        kinds = {k: leaf.dtype or dtype for k, leaf in enumerate(self.leaves)}
        return {
            k: _made(self.leaves[k], "cpu", dtype)
            for k, kind in kinds.items()
            if not kind.is_floating_point and not kind.is_complex and not getattr(self.leaves[k], "is_meta", False)
        }

    def _replaced(self, made: Mapping[int, Any]) -> Inputs:
        args, kwargs = _mapped((self.args, dict(self.kwargs)), lambda leaf: made[id(leaf)])
        return Inputs(args, kwargs)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    )


def _blank(shape: Sequence[int], batch: Shape) -> Blank:
    whole = tuple(int(n) for n in (*batch, *shape))
    return Blank(whole, torch.int64 if isinstance(shape, Indices) else None)


def _made(leaf: Tensor | Blank, device: str, dtype: torch.dtype) -> Tensor:
    if isinstance(leaf, Tensor):
        if device != "meta":
            return leaf.detach().to(device, copy=True)
        if leaf.layout is not torch.strided:
            return leaf.detach().to("meta")
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")
    wanted = leaf.dtype or dtype
    if device == "meta":
        return torch.empty(leaf.shape, device="meta", dtype=wanted)
    if not (wanted.is_floating_point or wanted.is_complex):
        return torch.zeros(leaf.shape, device=device, dtype=wanted)
    return torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0)).to(device, wanted)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """What a container holds, by key; None for what is no container."""
    if isinstance(value, dict | UserDict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Blank):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return None


def _leaves(value: Any) -> Iterator[Tensor | Blank]:
    if isinstance(value, Tensor | Blank):
        yield value
    elif parts := _parts(value):
        for part in parts.values():
            yield from _leaves(part)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with every tensor changed; a container without any stays the object that it is."""
    if isinstance(value, Tensor | Blank):
        return change(value)
    parts = _parts(value)
    if not parts or next(_leaves(value), None) is None:
        return value
    made = {key: _mapped(part, change) for key, part in parts.items()}
    if isinstance(value, tuple):
        return type(value)(*made.values()) if hasattr(value, "_fields") else type(value)(made.values())
    if isinstance(value, list):
        return type(value)(made.values())
    changed = copy.copy(value)
    for key, part in made.items():
        if isinstance(value, dict | UserDict):
            changed[key] = part
        else:
            object.__setattr__(changed, key, part)
    return changed
