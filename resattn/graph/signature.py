"""The schema of an operator, and a cache of its results on meta."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resattn.graph.graph import Shape
from resattn.graph.walk import storage_of, tensors_in

# Operators whose result, or its shape, is a matter of values.
VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# Arguments that an operator reads on the CPU whatever the device of the others.
READ_ON_CPU = {"aten._pack_padded_sequence": "lengths", "aten._pad_packed_sequence": "batch_sizes"}
# Results on meta that are kept of one operator.
MOST_RESULTS = 4096
PLAIN = frozenset((int, float, bool, str, complex, type(None)))
TENSORS = frozenset((Tensor, nn.Parameter))
SETTINGS = (torch.dtype, torch.layout, torch.memory_format, torch.device)


@dataclass(frozen=True, slots=True)
class Signature:
    function: Any  # held, so that its id stays its own
    name: str
    names: tuple[str, ...]
    defaults: dict[str, Any]
    written: tuple[str, ...]
    outputs: tuple[str, ...]  # of those written, arguments that only take a result
    needs_values: bool
    is_repeatable: bool  # it writes to nothing, or to its first argument, which it returns; shapes depend on no values
    results: dict[Any, Known] = field(default_factory=dict, compare=False, repr=False)

    def arguments(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Every argument by its name, in the order of the schema."""
        found = self.defaults.copy()
        found.update(zip(self.names, args, strict=False))
        found.update(kwargs)
        return found


@functools.cache
def signature_of(func: Any) -> Signature:
    schema = func._schema
    name = schema.name.replace("::", ".")
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    tags = {*VALUE_TAGS, torch.Tag.inplace_view}
    return Signature(
        function=func,
        name=name,
        names=tuple(a.name for a in schema.arguments),
        defaults={a.name: _plain(a.default_value) if a.has_default_value() else None for a in schema.arguments},
        written=tuple(a.name for a in written),
        outputs=tuple(a.name for a in written if a.kwarg_only),
        needs_values=not VALUE_TAGS.isdisjoint(func.tags),
        is_repeatable=tags.isdisjoint(func.tags) and name not in READ_ON_CPU and _writes_first_or_nothing(schema),
    )


def _plain(default: Any) -> Any:
    return tuple(default) if isinstance(default, list) else default


def _writes_first_or_nothing(schema: Any) -> bool:
    shared = [k for k, a in enumerate(schema.arguments) if a.alias_info is not None]
    if any(schema.arguments[k].alias_info.is_write for k in shared):
        return shared == [0] and len(schema.returns) == 1
    return True


class Given:
    """The tensors among the arguments of one call, and the key that its result on meta depends on."""

    __slots__ = ("key", "tensors")

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], is_meta: bool) -> None:
        self.tensors: list[Tensor] = []
        key: list[Any] = [torch.get_default_dtype()]
        is_certain = self._add(key, args)
        if kwargs:
            key += kwargs
            is_certain = self._add(key, kwargs.values()) and is_certain
        # None where it is not certain that nothing else decides.
        self.key: tuple[Any, ...] | None = tuple(key) if is_certain and is_meta else None

    def _add(self, key: list[Any], values: Iterable[Any]) -> bool:
        is_certain = True
        for value in values:
            kind = type(value)
            if kind in PLAIN:
                key.append(value)
                if kind is not int:  # 1, 1.0 and True are equal
                    key.append(kind)
            elif kind in TENSORS:
                self.tensors.append(value)
                try:
                    key += value.shape, value.stride(), value.dtype
                except RuntimeError:  # no strides
                    is_certain = False
                is_certain = is_certain and value.is_meta
            elif kind is list or kind is tuple:
                kinds = tuple(map(type, value))
                if PLAIN.issuperset(kinds):
                    key += kind, kinds, tuple(value)
                elif TENSORS.issuperset(kinds):
                    key += kind, len(value)
                    is_certain = self._add(key, value) and is_certain
                else:
                    self.tensors += tensors_in(value)
                    is_certain = False
            elif isinstance(value, SETTINGS):
                key.append(value)
            else:
                self.tensors += tensors_in(value)
                is_certain = False
        return is_certain


class Known:
    """A cached call on meta: its arguments, the shapes of its results, and how to make them again."""

    __slots__ = ("arguments", "is_first", "is_tuple", "metas", "places", "shapes", "view")

    def __init__(self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        # As an operator of a graph has them; those with tensors, in order, are to be filled in.
        self.arguments = signature.arguments(args, kwargs)
        self.places: list[tuple[str, int | None]] = []  # their names; of a list, how many tensors it has
        for name, value in (*zip(signature.names, args, strict=False), *kwargs.items()):
            if type(value) in TENSORS:
                self.places.append((name, None))
            elif isinstance(value, list | tuple):
                self.arguments[name] = tuple(value)
                if tensors_in(value):
                    self.places.append((name, len(value)))
        self.shapes: tuple[Shape, ...] = tuple(tuple(t.shape) for t in tensors_in(result))
        self.is_tuple = isinstance(result, tuple)
        self.is_first = bool(args) and result is args[0]  # it is the first argument itself
        results = result if self.is_tuple else (result,)
        is_new = not self.is_first and _are_new(results, args)
        # None where the result shares memory with an argument, or is no plain tensor.
        self.metas = [(t.shape, t.stride(), t.dtype) for t in results] if is_new else None
        self.view = None if is_new or self.is_first else _view_of(args[0] if args else None, result)

    def filled(self, found: Sequence[Any]) -> dict[str, Any]:
        """The arguments with `found` in the places of the tensors."""
        arguments, at = self.arguments.copy(), 0
        for name, n in self.places:
            if n is None:
                arguments[name] = found[at]
                at += 1
            else:
                arguments[name] = tuple(found[at : at + n])
                at += n
        return arguments


def _view_of(first: Any, result: Any) -> tuple[Any, Any, int] | None:
    """The sizes and strides of a view of a tensor, and how far it begins behind that; None where it is no such view."""
    if type(result) is not Tensor or type(first) not in TENSORS or result.dtype is not first.dtype:
        return None
    is_plain = all(t.layout is torch.strided and not t.is_conj() and not t.is_neg() for t in (first, result))
    if not is_plain or storage_of(first) != storage_of(result):
        return None
    return result.shape, result.stride(), int(result.storage_offset() - first.storage_offset())


def _are_new(results: Sequence[Any], args: Any) -> bool:
    read = {storage_of(t) for t in tensors_in(args)}
    for t in results:
        is_plain = type(t) is Tensor and t.is_meta and t.layout is torch.strided and not t.storage_offset()
        if not is_plain or t.is_conj() or t.is_neg() or storage_of(t) in read:
            return False
    return True
