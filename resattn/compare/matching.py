"""The ResNet that equals a network in depth, in parameters, or in multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from resattn.measures.audit import Audit, audit
from resattn.measures.captured import captured
from resattn.measures.quantities import count
from resattn.networks import catalog
from resattn.networks.spec import FIELDS, MASK_FIELDS, NetworkSpec
from resattn.targets import resolved

BY_UNITS = ("trunk_depth", "longest_path", "weighted_layers")
BY_WIDTH = ("params", "macs")
TOLERANCE_PCT = 1.0


class MatchError(ValueError):
    """No ResNet can be matched; the message says why."""


@dataclass(frozen=True)
class Match:
    """A ResNet, and the quantity in which it is to equal a network."""

    by: str
    network: str
    wanted: int
    spec: NetworkSpec
    found: int

    @property
    def is_exact(self) -> bool:
        return self.found == self.wanted

    @property
    def off_pct(self) -> float:
        return 100 * (self.found - self.wanted) / self.wanted

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by, "network": self.network, "wanted": self.wanted, "resnet": self.spec.name,
            "found": self.found, "is_exact": self.is_exact, "off_pct": round(self.off_pct, 4),
            "spec": self.spec.to_json(),
        }  # fmt: skip


def match(
    network: str | NetworkSpec | nn.Module, by: str, *inputs: Any, settings: Mapping[str, Any] | None = None
) -> Match:
    """The ResNet that equals a network in one quantity.

    `by` a notion of depth: the ResNet with as many units as give the same depth, or the nearest (9n+2 layers on CIFAR).
    `by` params or macs: the ResNet of the same trunk depth, with its width scaled until the quantity is within 1 %.
    `network`, `inputs`, `settings`: as `audit` takes them. For a spec the ResNet has the same units and layout. For
    another model, which must take an image, it has those of ResNet-50, or of the CIFAR ResNets if the image is smaller
    than 64 px.
    Raises: MatchError, UnknownNetworkError, TargetError.
    """
    if by not in BY_UNITS + BY_WIDTH:
        raise MatchError(f"cannot match by {by!r} (one of: {', '.join(BY_UNITS + BY_WIDTH)})")
    with resolved(network, inputs, settings=settings) as target:
        if (spec := target.spec) is not None:
            _, channels, height, width = target.inputs.shapes[0]
            spec = replace(spec, input_shape=(channels, height, width))
            wanted, trunk = count(captured(spec), by), count(captured(spec), "trunk_depth")
        else:
            foreign = audit(network, *inputs)
            spec = _like(foreign)
            wanted, trunk = _known(foreign, by), _known(foreign, "trunk_depth") if by in BY_WIDTH else 0
    if by in BY_UNITS:
        return _by_depth(spec, by, wanted)
    trunk_equal = _by_depth(spec, "trunk_depth", trunk).spec
    found = _nearest(spec, by, wanted, _by_width(trunk_equal, lambda s: count(captured(s), by), wanted))
    if abs(found.off_pct) > TOLERANCE_PCT:
        raise MatchError(
            f"no width of {trunk_equal.name} comes within {TOLERANCE_PCT:g} % of {wanted} {by} "
            f"(nearest: {found.found}, {found.off_pct:+.1f} %)"
        )
    return found


def _by_depth(spec: NetworkSpec, by: str, wanted: int) -> Match:
    return _nearest(spec, by, wanted, _by_units(spec, lambda s: count(captured(s), by), wanted))


SMALL_PX = 64  # images below this have the stem of the CIFAR networks


def _like(found: Audit) -> NetworkSpec:
    """The ResNet whose layout represents a model without a spec. Raises: MatchError."""
    shape = found.input_shape
    if len(shape) != 4 or found.more_inputs:
        raise MatchError(f"{found.target} takes {'x'.join(map(str, shape))}; a ResNet takes one image, C,H,W")
    base = catalog.named("cifar-resnet56" if min(shape[2:]) < SMALL_PX else "resnet50")
    _, channels, height, width = shape
    return replace(base, name=found.target, claimed_depth=None, input_shape=(channels, height, width))


def _known(found: Audit, quantity: str) -> int:
    value = found.quantities.get(quantity)
    if value is None:
        raise MatchError(f"{quantity} of {found.target} is not known: {found.shown(quantity) or 'it has none'}")
    return int(value)


def _nearest(spec: NetworkSpec, by: str, wanted: int, candidates: Iterable[tuple[NetworkSpec, int]]) -> Match:
    resnet, found = min(candidates, key=lambda c: abs(c[1] - wanted))
    return Match(by, spec.name, wanted, resnet, found)


def trunk_units(spec: NetworkSpec) -> tuple[int, ...]:
    """The number of units in each stage of the trunk: those outside modules, and 2p + t for each module."""
    per_module = 2 * spec.p + spec.t
    return tuple(u + m * per_module + e for u, m, e in zip(spec.units, spec.modules, spec.tail, strict=True))


def resnet_like(spec: NetworkSpec, units: tuple[int, ...], width: float | None = None) -> NetworkSpec:
    """A ResNet with the same stem, units and stages, and no attention modules; under its catalog name if it has one."""
    none = (0,) * len(units)
    plain: dict[str, Any] = {name: FIELDS[name].default for name in MASK_FIELDS}
    layers = len_unit(spec) * sum(units) + 2
    suffix = "" if width is None or width == spec.width else f"[width={width:g}]"
    kind = "cifar-resnet" if spec.stem == "cifar" else "resnet"
    made = replace(
        spec, name=f"{kind}{layers}{'-basic' if spec.unit == 'basic' else ''}{suffix}", claimed_depth=layers,
        units=units, modules=none, tail=none, poolings=none, width=spec.width if width is None else width, **plain,
    )  # fmt: skip
    known = (s for s in (_named_or_none(made.name),) if s is not None and s.digest == made.digest)
    layout = "-".join(map(str, units))
    return next(known, made if len(set(units)) == 1 or suffix else replace(made, name=f"{made.name}[units={layout}]"))


def len_unit(spec: NetworkSpec) -> int:
    """The number of weighted layers on the path through one unit."""
    return 2 if spec.unit == "basic" else 3


def _named_or_none(name: str) -> NetworkSpec | None:
    try:
        return catalog.named(name)
    except catalog.UnknownNetworkError:
        return None


def _by_units(spec: NetworkSpec, count: Callable[[NetworkSpec], int], wanted: int) -> Iterable[tuple[NetworkSpec, int]]:
    shares = trunk_units(spec)
    layers = len_unit(spec)
    # CIFAR ResNets have as many units in every stage (9n+2, 6n+2); others keep the proportions of the trunk.
    step = len(shares) if spec.stem == "cifar" else 1
    # A unit more is `layers` more, so one unit a stage says where that begins; the nearest is counted all the same.
    least = resnet_like(spec, (1,) * len(shares))
    total = len(shares) + (wanted - count(least)) / layers
    below = max(int(total // step), 1) * step
    nearest = below if total - below <= below + step - total else below + step
    for each in dict.fromkeys((nearest, below, below + step)):
        resnet = resnet_like(spec, _scaled(spec, shares, each))
        found = count(resnet)
        yield resnet, found
        if abs(found - wanted) * 2 <= step * layers:
            return


def _scaled(spec: NetworkSpec, shares: tuple[int, ...], total: int) -> tuple[int, ...]:
    """`total` units over the stages in these proportions, at least one each, by largest remainder."""
    if spec.stem == "cifar":
        return (max(total // len(shares), 1),) * len(shares)
    exact = [total * share / sum(shares) for share in shares]
    units = [max(int(e), 1) for e in exact]
    for k in sorted(range(len(units)), key=lambda k: units[k] - exact[k])[: max(total - sum(units), 0)]:
        units[k] += 1
    return tuple(units)


# Widths are tried in steps of one channel of the widest stage.
def _by_width(
    resnet: NetworkSpec, measure: Callable[[NetworkSpec], int], wanted: int
) -> Iterable[tuple[NetworkSpec, int]]:
    step = 1 / 2 ** (len(resnet.units) - 1)

    def at(n: int) -> tuple[NetworkSpec, int]:
        made = resnet_like(resnet, resnet.units, n * step)
        return made, measure(made)

    low, high = round(1 / step), round(resnet.width / step)
    while at(high)[1] < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle)[1] < wanted else (low, middle)
    yield from (at(n) for n in range(max(low - 4, round(1 / step)), high + 4))
