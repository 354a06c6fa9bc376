"""The spec of a network: a frozen record. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from html import escape
from typing import Any

from resattn.networks.units import UNITS


class SpecError(ValueError):
    """An impossible network or an unknown field; the message names it and the allowed values."""


# Limits far above any known network: beyond them a capture takes hours, or sizes overflow.
MOST_UNITS, MOST_CHANNELS, MOST_PX = 10_000, 1_000_000, 100_000

# The kernel and stride of every pooling in the networks of the paper: the stem's and the mask's.
POOL_KERNEL, POOL_STRIDE = 3, 2


def choice(default: str, *others: str, doc: str, **extra: Any) -> Any:
    """A field with a few allowed values, the default first."""
    return field(default=default, metadata={"choices": (default, *others), "doc": doc, **extra})


def _value(default: Any = MISSING, *, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of a network, derived from its spec: the units at one resolution and width."""

    number: int
    size: int
    channels: int
    inner: int
    stride: int
    units: int
    modules: int
    tail: int
    poolings: int
    last_stride: int = 1  # of the last unit

    @property
    def name(self) -> str:
        return f"stage{self.number}"


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A residual network, with attention modules or without, as a flat record.

    A tuple has one entry per stage. Stage k has inner width `round(width * widen * 2**k)` and, after a bottleneck,
    four times as many output channels. `dataclasses.replace` makes a variant; `resattn.networks.network.build` makes
    the module. A field under "readings" is a choice that the paper does not state, or on which
    two sources disagree.

    Source: wang2017, section 3 and table 2; released prototxts of Attention-56 and -92.
    Raises: SpecError if no such network exists.
    """

    name: str = _value(doc="the name of the network")
    claimed_depth: int | None = _value(None, doc="the number in the name")
    input_shape: tuple[int, int, int] = _value(doc="channels, height, width")
    classes: int = _value(doc="number of classes")
    stem: str = choice("imagenet", "cifar", doc="7x7 stride 2 and a pooling, or 3x3 stride 1")
    width: float = _value(doc="channels of the stem and inner width of the first stage")
    widen: int = _value(1, doc="factor on every width but the stem's (wrn2016, k)")
    unit: str = choice(*UNITS, doc="the residual unit")
    order: str = choice("pre", "post", doc="normalisation and ReLU before or after each convolution")
    units: tuple[int, ...] = _value(doc="residual units of each stage before its attention modules")
    tail: tuple[int, ...] = _value(doc="residual units of each stage after its attention modules")
    modules: tuple[int, ...] = _value(doc="attention modules of each stage")
    p: int = _value(1, doc="units before the split into trunk and mask, and again after the merge")
    t: int = _value(2, doc="units in the trunk branch")
    r: int = _value(1, doc="units between two poolings of the mask branch")
    poolings: tuple[int, ...] = _value(doc="max poolings in the masks of each stage")
    strides: tuple[int, ...] = _value((), doc="stride of the first unit of each stage; default: 1, then 2")
    merge: str = choice("residual", "naive", doc="(1 + M) * T, or M * T (wang2017, equations 3 and 1)")
    gate: str = choice("mixed", "channel", "spatial", doc="f1, f2, f3 (wang2017, equations 4 to 6)")
    mask: str = choice(
        "hourglass", "local", "constant",
        doc="down- and up-sampling; units at one size (table 4); or no attention: one learned value per channel",
    )  # fmt: skip
    # readings
    pool_padding: str = choice(
        "ceil", "padded", doc="poolings: no padding and ceil mode (Caffe, the release), or padding 1 (the ports)"
    )
    corners: str = choice(
        "aligned", "half-pixel", doc="bilinear up-sampling: (h1-1)/(h2-1) as in the release's Interp, or h1/h2"
    )
    stride_on: str = choice(
        "3x3", "1x1", doc="stride of a bottleneck: on its 3x3 (the release, torchvision) or first 1x1 (he2016)"
    )
    stride_at: str = choice(
        "first", "last", doc="unit of a stage that has the stride: its first, or (TF-slim) the last of the stage before"
    )
    shortcut: str = choice(
        "projection", "zero-pad", "convolution",
        doc="where shapes change: a 1x1 convolution, or option A of he2016 (3.3); or a convolution in every unit",
    )  # fmt: skip
    projection: str = choice(
        "needed", "always", doc="define the projection where shapes change, or in every unit, even if it never runs"
    )
    after_merge: str = choice(
        "p", "one", doc="units after the merge: p (as the 452 of table 6 needs), or one (gluon-cv)"
    )
    upsampling: str = choice("bilinear", "nearest", doc="in the mask (the paper: bilinear; several ports: nearest)")
    interp: str = choice(
        "size", "sum", doc="the release's two-input Interp: its second input gives the size, or (misread) is added"
    )
    head: str = choice("activated", "linear", doc="the mask's two 1x1: each after batch norm and ReLU, or alone")
    descent: str = choice(
        "nested", "half", doc="each pooling reads the level above, or (pytorch-cifar100) the module's input"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            if isinstance(getattr(self, f.name), list):
                object.__setattr__(self, f.name, tuple(getattr(self, f.name)))
            choices = f.metadata.get("choices")
            if choices and getattr(self, f.name) not in choices:
                found = f"unknown {f.name} {getattr(self, f.name)!r} in {self.name}"
                raise SpecError(f"{found} (one of: {', '.join(choices)})")
        if isinstance(self.width, float) and self.width.is_integer():
            object.__setattr__(self, "width", int(self.width))
        self._check_numbers()
        if self.strides == _usual_strides(len(self.units)):
            object.__setattr__(self, "strides", ())
        self._check_masks()

    def _check_numbers(self) -> None:
        for name in ("units", "tail", "modules", "poolings", "strides"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or any(type(v) is not int or v < 0 for v in values):
                raise SpecError(
                    f"{name} of {self.name} must be integers of at least 0, one for each stage, found {values!r}"
                )
            if name == "strides" and not values:
                continue
            if len(values) != len(self.units):
                found = f"{name} of {self.name} has {len(values)} entries"
                raise SpecError(f"{found} for {len(self.units)} stages: {values}")
        if not self.units:
            raise SpecError(f"{self.name} has no stage: units gives the residual units of each")
        size = self.input_shape
        if not isinstance(size, tuple) or len(size) != 3 or any(type(v) is not int or v < 1 for v in size):
            raise SpecError(f"input_shape of {self.name} must be channels, height, width, found {size}")
        for name, least in (("classes", 1), ("widen", 1), ("p", 0), ("t", 1), ("r", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SpecError(f"{name} of {self.name} must be an integer of at least {least}, found {value!r}")
        is_number = isinstance(self.width, int | float) and not isinstance(self.width, bool)
        if not is_number or not math.isfinite(self.width) or self.width < 1:
            raise SpecError(f"width of {self.name} must be a number of at least 1, found {self.width!r}")
        if 0 in self.strides:
            raise SpecError(f"strides of {self.name} must be at least 1, found {self.strides}")
        self._check_bounds()
        row = UNITS[self.unit]
        for name, allowed in (("shortcut", row.shortcuts), ("stride_on", row.strides_on), ("order", row.orders)):
            value = getattr(self, name)
            if value not in allowed:
                found = f"{name} {value!r} of {self.name} is not defined for {self.unit} units"
                raise SpecError(f"{found} (one of: {', '.join(allowed)})")
        if self.stride_at == "last" and (
            self.has_masks or 0 in (u + t for u, t in zip(self.units, self.tail, strict=True))
        ):
            raise SpecError(f"stride_at 'last' of {self.name} is for networks of residual units alone")
        least = LEAST_POOLED[self.pool_padding]
        if self.stem == "imagenet" and -(-min(self.input_shape[1:]) // 2) < least:
            raise SpecError(
                f"input_shape of {self.name} is too small for its stem, a stride of 2 and a pooling: {self.input_shape}"
            )
        for stage in self.stages:
            if stage.units + stage.tail + stage.modules == 0:
                raise SpecError(f"{stage.name} of {self.name} is empty: give it units, modules or a tail")
            if stage.units == 0 and stage.modules and self.p == 0:
                raise SpecError(
                    f"{stage.name} of {self.name} begins with an attention module with p=0: "
                    "no unit is left to change the number of channels (units or p must be at least 1)"
                )

    def _check_bounds(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if f.name != "claimed_depth" and any(n > MOST_CHANNELS for n in numbers if isinstance(n, int | float)):
                raise SpecError(f"{f.name} of {self.name} may be at most {MOST_CHANNELS:,}, found {value!r:.40}")
        in_module = [2 * self.p + self.t + 2 * self.r * (poolings + 1) for poolings in self.poolings]
        units = sum(self.units) + sum(self.tail) + sum(n * m for n, m in zip(in_module, self.modules, strict=True))
        channels = round(self.width * self.widen * 2 ** min(len(self.units) - 1, 64)) * self.expansion
        for what, found, most in (
            ("residual units", max(units, len(self.units)), MOST_UNITS),
            ("channels", channels, MOST_CHANNELS),
            ("pixels or poolings on a side", max(*self.input_shape[1:], *self.poolings), MOST_PX),
        ):
            if found > most:
                raise SpecError(f"{self.name} would have {found:,} {what}; at most {most:,} are built")

    def _check_masks(self) -> None:
        if not self.has_masks:
            changed = [n for n in MASK_FIELDS if getattr(self, n) != FIELDS[n].default]
            if changed:
                raise SpecError(f"{changed[0]} of {self.name} has no meaning: the network has no attention module")
            return
        if self.mask == "constant" and self.gate != "mixed":
            raise SpecError(
                f"gate {self.gate!r} of {self.name}: a constant mask has one value per channel, "
                "which only gate 'mixed', a sigmoid of each value, leaves independent"
            )
        for stage in self.stages:
            if stage.modules and stage.size == 1 and self.gate == "spatial":
                raise SpecError(
                    f"{stage.name} of {self.name} has a map of one position, which gate 'spatial' cannot standardise"
                )
            sizes = pooled_sizes(stage.size, self.pool_padding)
            if stage.modules and stage.poolings >= len(sizes):
                raise SpecError(
                    f"{stage.name} of {self.name}: {stage.poolings} poolings in the mask of a "
                    f"{stage.size}x{stage.size} map, which allows at most {len(sizes) - 1} "
                    f"({' -> '.join(map(str, sizes))})"
                )

    @property
    def has_masks(self) -> bool:
        return any(self.modules)

    @property
    def expansion(self) -> int:
        return UNITS[self.unit].expansion

    @property
    def stem_channels(self) -> int:
        return round(self.width)

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        return tuple(self._derive_stages())

    def _derive_stages(self) -> Iterator[StageSpec]:
        size = min(self.input_shape[1:])
        if self.stem == "imagenet":
            size = pooled_size(-(-size // 2), self.pool_padding)
        strides = self.strides or _usual_strides(len(self.units))
        for k, (units, modules, tail, poolings, stride) in enumerate(
            zip(self.units, self.modules, self.tail, self.poolings, strides, strict=True)
        ):
            last = 1
            if self.stride_at == "last":
                stride, last = (stride if k == 0 else 1), (strides[k + 1] if k + 1 < len(strides) else 1)
            for step in (stride, last):
                size = -(-size // step)
            inner = round(self.width * self.widen * 2**k)
            yield StageSpec(
                number=k + 1, size=size, channels=inner * self.expansion, inner=inner, stride=stride,
                units=units, modules=modules, tail=tail, poolings=poolings, last_stride=last,
            )  # fmt: skip

    @property
    def digest(self) -> str:
        """16 hex digits that identify the structure: the record without its name.

        Defaults are omitted, so a field that is added later does not change the digests of older networks.
        """
        named = ("name", "claimed_depth")
        record = self.to_json().items()
        structure = {k: v for k, v in record if k not in named and getattr(self, k) != FIELDS[k].default}
        text = json.dumps(structure, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    def _repr_html_(self) -> str:
        """For a notebook: a table of the stages, then every field that differs from its default."""
        columns = ("stage", "map", "channels", "units", "modules", "tail", "poolings")
        rows = [(s.number, f"{s.size} px", s.channels, s.units, s.modules, s.tail, s.poolings) for s in self.stages]
        head = "".join(f'<th scope="col">{column}</th>' for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        shown = ("name", "units", "tail", "modules", "poolings")
        changed = [
            f"{escape(f.name)} = {escape(_text(getattr(self, f.name)))}"
            for f in fields(self)
            if f.name not in shown and getattr(self, f.name) != f.default
        ]
        return (
            f"<b>{escape(self.name)}</b> <small>{self.digest}</small>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><small>{'; '.join(changed)}</small>"
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> NetworkSpec:
        for key in record:
            _known_field(key, str(record.get("name", "the spec")))
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in record]
        if missing:
            raise SpecError(f"the spec of {record.get('name', 'a network')} lacks {', '.join(missing)}")
        return cls(**record)


FIELDS = {f.name: f for f in fields(NetworkSpec)}
# Fields of networks with attention modules only.
MASK_FIELDS = (
    "p", "t", "r", "merge", "gate", "mask", "corners", "after_merge", "upsampling", "interp", "head", "descent"
)  # fmt: skip


def _usual_strides(n_stages: int) -> tuple[int, ...]:
    return (1, *(2,) * (n_stages - 1))


# Side of the smallest map that can be pooled.
LEAST_POOLED = {"ceil": 2, "padded": 1}


def pooled_size(size: int, pool_padding: str) -> int:
    """Side of the map after a 3x3 pooling with stride 2: in ceil mode (7 -> 3), or padded by 1 (7 -> 4)."""
    if pool_padding == "padded":
        return (size - 1) // POOL_STRIDE + 1
    return max(-(-(size - POOL_KERNEL) // POOL_STRIDE), 0) + 1


def pooled_sizes(size: int, pool_padding: str) -> list[int]:
    """Side of the map after 0, 1, 2, ... poolings, down to 1."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(pooled_size(sizes[-1], pool_padding))
    return sizes


def override(spec: NetworkSpec, settings: Mapping[str, Any]) -> NetworkSpec:
    """The spec with some fields changed, given as values or as text (`modules=2,2,2`, `width=8`).

    A single number for a field with one entry per stage applies to every stage with attention modules.
    Raises: SpecError for an unknown field, an unreadable value, or an impossible network.
    """
    changes = {}
    for name, value in settings.items():
        _known_field(name, spec.name)
        if name in MASK_FIELDS and not spec.has_masks:
            raise SpecError(f"{name} of {spec.name} has no meaning: the network has no attention module")
        changes[name] = _parse(spec, name, value)
    changed = replace(spec, **changes)
    if "name" in changes or not changes:
        return changed
    text = ", ".join(f"{k}={_text(v)}" for k, v in changes.items())
    return replace(changed, name=f"{spec.name}[{text}]")


def _parse(spec: NetworkSpec, name: str, value: Any) -> Any:
    kind = FIELDS[name].type
    if isinstance(value, str) and kind != "str":
        try:
            numbers = [float(v) if kind == "float" else int(v) for v in value.split(",")]
        except ValueError:
            raise SpecError(f"{name} of {spec.name} takes numbers, found {value!r}") from None
        value = numbers[0] if len(numbers) == 1 else tuple(numbers)
    if kind == "tuple[int, ...]" and isinstance(value, int):
        return tuple(value if has else old for has, old in zip(spec.modules, getattr(spec, name), strict=True))
    return value


def _known_field(name: str, owner: str) -> None:
    if name not in FIELDS:
        near = get_close_matches(name, FIELDS, n=3) or FIELDS
        raise SpecError(f"unknown field {name!r} of {owner} (nearest: {', '.join(near)})")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
