"""What is known of an operator from its schema, and its results on meta, which are kept."""

from __future__ import annotations

import functools
from collections.abc import Mapping
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
META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Signature:
    function: Any  # held, so that its id stays its own
    name: str
    names: tuple[str, ...]
    defaults: dict[str, Any]
    written: tuple[str, ...]
    outputs: tuple[str, ...]  # of those written, arguments that only take a result
    needs_values: bool
    is_repeatable: bool  # its results are new tensors, or its first argument; their shapes do not depend on values
    results: dict[Any, Again] = field(default_factory=dict, compare=False, repr=False)

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
        defaults={a.name: a.default_value if a.has_default_value() else None for a in schema.arguments},
        written=tuple(a.name for a in written),
        outputs=tuple(a.name for a in written if a.kwarg_only),
        needs_values=not VALUE_TAGS.isdisjoint(func.tags),
        is_repeatable=tags.isdisjoint(func.tags) and name not in READ_ON_CPU and _returns_new_or_first(schema),
    )


def _returns_new_or_first(schema: Any) -> bool:
    shared = [k for k, a in enumerate(schema.arguments) if a.alias_info is not None]
    if not shared:
        return not any(r.alias_info is not None for r in schema.returns)
    return shared == [0] and schema.arguments[0].alias_info.is_write and len(schema.returns) == 1


class Given:
    """The arguments of one call: those that are no plain values, and what its result on meta follows from."""

    __slots__ = ("key", "lists", "others", "tensors")

    def __init__(self, arguments: Mapping[str, Any], is_meta: bool) -> None:
        self.lists: list[tuple[str, tuple[Any, ...]]] = []  # of plain values
        self.others: list[tuple[str, Any]] = []  # tensors, lists with tensors, and objects
        self.tensors: list[Tensor] = []
        self.key: tuple[Any, ...] | None = None  # None where it is not certain that nothing else decides
        key: list[Any] = [torch.get_default_dtype()]
        is_certain = is_meta
        for name, value in arguments.items():
            kind = type(value)
            if kind in PLAIN:
                key.append(value)
                if kind is not int:  # 1, 1.0 and True are equal
                    key.append(kind)
            elif kind in TENSORS:
                self.others.append((name, value))
                self.tensors.append(value)
                is_certain = is_certain and self._add(key, value)
            elif kind is list or kind is tuple:
                kinds = set(map(type, value))
                if kinds <= PLAIN:
                    plain = tuple(value)
                    self.lists.append((name, plain))
                    key += (kind, plain) if kinds == {int} else (kind, plain, *map(type, plain))
                    continue
                self.others.append((name, value))
                inside = tensors_in(value)
                self.tensors += inside
                key += kind, len(inside)
                is_certain = is_certain and kinds <= TENSORS and all(self._add(key, each) for each in inside)
            elif isinstance(value, SETTINGS):
                key.append(value)
            else:
                self.others.append((name, value))
                self.tensors += tensors_in(value)
                is_certain = False
        if is_certain:
            self.key = tuple(key)

    @staticmethod
    def _add(key: list[Any], tensor: Tensor) -> bool:
        if not tensor.is_meta:
            return False
        try:
            key += tensor.shape, tensor.stride(), tensor.dtype
        except RuntimeError:  # no strides
            return False
        return True


class Again:
    """Makes a result on meta again."""

    __slots__ = ("is_first", "is_tuple", "metas", "shapes")

    def __init__(self, result: Any, results: tuple[Tensor, ...], is_first: bool) -> None:
        self.is_first = is_first  # it is the first argument itself
        self.is_tuple = isinstance(result, tuple)
        self.metas = [(t.shape, t.stride(), t.dtype) for t in results]
        self.shapes: tuple[Shape, ...] = tuple(tuple(t.shape) for t in results)

    def make(self) -> list[Tensor]:
        return [torch.empty_strided(shape, strides, dtype=dtype, device=META) for shape, strides, dtype in self.metas]


def repeated(result: Any, args: Any) -> Again | None:
    """What makes an equal result again; None where it shares memory with an argument or is no plain tensor."""
    if isinstance(result, Tensor) and args and result is args[0]:
        return Again(result, (result,), True)
    results = result if isinstance(result, tuple) else (result,)
    read = {storage_of(t) for t in tensors_in(args)}
    for t in results:
        is_plain = type(t) is Tensor and t.is_meta and t.layout is torch.strided and not t.storage_offset()
        if not is_plain or t.is_conj() or t.is_neg() or storage_of(t) in read:
            return None
    return Again(result, results, False)
