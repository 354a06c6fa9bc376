"""The named networks, as data. Standard library only."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from resattn.networks.spec import NetworkSpec, SpecError, override


class UnknownNetworkError(SpecError):
    """An unknown network name; the message gives the nearest names."""


# Weighted layers that one more unit in each of three stages adds: the 9 of 9n+2 and the 6 of 6n+2.
LAYERS_PER_STAGE_UNIT = {"bottleneck": 9, "basic": 6}

# wang2017, table 2, and the released prototxts: one unit before the modules of each stage, three at the end;
# 3, 2, 1 poolings on maps of 56, 28, 14 (section 4.2).
ATTENTION_56 = NetworkSpec(
    name="attention56", claimed_depth=56, input_shape=(3, 224, 224), classes=1000, stem="imagenet", width=64,
    units=(1, 1, 1, 3), modules=(1, 1, 1, 0), tail=(0, 0, 0, 0), poolings=(3, 2, 1, 0),
)  # fmt: skip

# For CIFAR the paper gives only the depth, 36m + 20. This layout follows the ImageNet release with the widths of
# ResNet-164; with 2, 2, 1 poolings two of the three printed parameter counts match (table 6).
CIFAR_ATTENTION_56 = NetworkSpec(
    name="cifar-attention56", claimed_depth=56, input_shape=(3, 32, 32), classes=10, stem="cifar", width=16,
    units=(1, 1, 1), modules=(1, 1, 1), tail=(0, 0, 3), poolings=(2, 2, 1),
)  # fmt: skip


def _cifar_attention(depth: int, modules: int, **changes: Any) -> NetworkSpec:
    name = f"cifar-attention{depth}"
    return replace(CIFAR_ATTENTION_56, name=name, claimed_depth=depth, modules=(modules,) * 3, **changes)


def _resnet(depth: int, *units: int, order: str = "post") -> NetworkSpec:
    # he2016, table 1: post-activation. ResNet-200 was published only in pre-activation form (he2016identity).
    return NetworkSpec(
        name=f"resnet{depth}", claimed_depth=depth, input_shape=(3, 224, 224), classes=1000, stem="imagenet", width=64,
        order=order, units=units, modules=(0,) * 4, tail=(0,) * 4, poolings=(0,) * 4, pool_padding="padded",
    )  # fmt: skip


def _cifar_resnet(depth: int, *, unit: str) -> NetworkSpec:
    # Bottlenecks in pre-activation form: he2016identity. Basic units with free shortcuts: he2016, section 4.2.
    basic = unit == "basic"
    units = (depth - 2) // LAYERS_PER_STAGE_UNIT[unit]
    return NetworkSpec(
        name=f"cifar-resnet{depth}" + ("-basic" if basic else ""), claimed_depth=depth, input_shape=(3, 32, 32),
        classes=10, stem="cifar", width=16, unit=unit, order="post" if basic else "pre",
        shortcut="zero-pad" if basic else "projection", units=(units,) * 3, modules=(0,) * 3, tail=(0,) * 3,
        poolings=(0,) * 3,
    )  # fmt: skip


def _wrn(depth: int, widen: int) -> NetworkSpec:
    # wrn2016, table 1: 6n + 4 layers, counting the three projections but not the linear layer.
    basic = _cifar_resnet(depth - 2, unit="basic")
    return replace(
        basic, name=f"wrn-{depth}-{widen}", claimed_depth=depth, widen=widen, order="pre", shortcut="projection"
    )  # fmt: skip


ATTENTION_92 = replace(ATTENTION_56, name="attention92", claimed_depth=92, modules=(1, 2, 3, 0))

NETWORKS: dict[str, NetworkSpec] = {
    spec.name: spec
    for spec in (
        ATTENTION_56,
        ATTENTION_92,
        # Released prototxts: ResNeXt units in post-activation form.
        replace(ATTENTION_56, name="attentionnext56", unit="resnext", order="post"),
        replace(ATTENTION_92, name="attentionnext92", unit="resnext", order="post"),
        # Our reading: the paper publishes a result (table 7) but no structure.
        replace(ATTENTION_56, name="attentioninception56", unit="inception"),
        CIFAR_ATTENTION_56,
        _cifar_attention(92, 2),
        _cifar_attention(128, 3),
        _cifar_attention(164, 4),
        _cifar_attention(236, 6),
        _cifar_attention(452, 6, p=2, t=4, r=3),  # wang2017, table 6, footnote
        _resnet(50, 3, 4, 6, 3),
        _resnet(101, 3, 4, 23, 3),
        _resnet(152, 3, 8, 36, 3),
        _resnet(200, 3, 24, 36, 3, order="pre"),
        replace(_resnet(101, 3, 4, 23, 3), name="resnext101", unit="resnext"),  # 32x4d: xie2017, table 1
        *(_cifar_resnet(n, unit="bottleneck") for n in (56, 74, 92, 110, 128, 164, 236, 452, 1001)),
        *(_cifar_resnet(n, unit="basic") for n in (20, 32, 44, 56, 80, 110, 1202)),
        _wrn(16, 8),
        _wrn(28, 10),
    )
}


def _modules_around(depth: int, m: int, **changes: Any) -> NetworkSpec:
    return replace(
        ATTENTION_56, name=f"attention{depth}", claimed_depth=depth, modules=(m - 1, m, m + 1, 0), **changes
    )  # fmt: skip


# How each port differs from the release, according to public threads; `port:NAME:NETWORK` is the network that the port
# builds.
# tengshaofeng: the release's two-input Interp misread as a sum; a projection defined in every unit; padded pooling;
# half-pixel corners (torch's default); on CIFAR four stages from 32 channels, the last at stride 1.
_MISREAD: dict[str, Any] = {"interp": "sum", "pool_padding": "padded"}
_TENGSHAOFENG: dict[str, Any] = {**_MISREAD, "corners": "half-pixel", "projection": "always"}
_WIDE_CIFAR: dict[str, Any] = {
    "input_shape": (3, 32, 32), "classes": 10, "stem": "cifar", "width": 32, "strides": (1, 2, 2, 1),
    "poolings": (2, 1, 0, 0),
}  # fmt: skip
_BEYOND_92 = tuple(_modules_around(depth, m) for depth, m in ((128, 3), (164, 4), (200, 5), (236, 6)))
_ONE_POST_UNIT = (
    ATTENTION_56, ATTENTION_92, *_BEYOND_92, _modules_around(452, 6, p=2, t=4, r=3),
)  # fmt: skip

PORTS: dict[str, NetworkSpec] = {
    f"port:{port}:{spec.name}": replace(spec, name=f"port:{port}:{spec.name}")
    for port, specs in {
        "tengshaofeng": [
            *(replace(s, **_TENGSHAOFENG) for s in (ATTENTION_56, ATTENTION_92)),
            *(
                replace(s, **{**_TENGSHAOFENG, **_WIDE_CIFAR}, name=f"cifar-{s.name}")
                for s in (ATTENTION_56, ATTENTION_92)
            ),
        ],
        # The same network, with projections only where they are needed.
        "pistony": [
            *(replace(s, **_MISREAD, corners="half-pixel") for s in (ATTENTION_56, ATTENTION_92)),
            replace(ATTENTION_92, **{**_MISREAD, "corners": "half-pixel", **_WIDE_CIFAR}, name="cifar-attention92"),
        ],
        # m-1, m, m+1 modules beyond 92, and one unit after every merge for any p.
        "gluoncv": [replace(s, **_MISREAD, after_merge="one") for s in _ONE_POST_UNIT],
        "imgclsmob": [replace(s, **_MISREAD, after_merge="one") for s in _ONE_POST_UNIT],
    }.items()
    for spec in specs
}

_CIFAR_RESNET = re.compile(r"cifar-resnet(\d{1,12})(-basic)?")
_SETTINGS = re.compile(r"(?P<name>.+)\[(?P<settings>\w+=[^\[\]]*)\]", re.DOTALL)


def names() -> tuple[str, ...]:
    """The networks of `resattn list`; `named` also accepts every other `cifar-resnetN` and `cifar-resnetN-basic`."""
    return (*NETWORKS, *PORTS)


def is_name(target: str) -> bool:
    """Whether a target is the name of a network, not `module:callable`."""
    return ":" not in target or target.startswith("port:")


def named(name: str) -> NetworkSpec:
    """The spec of a named network, or of one with settings: `cifar-resnet56[width=19, merge=naive]`.

    Raises: UnknownNetworkError with the nearest names; SpecError for an impossible setting.
    """
    if match := _SETTINGS.fullmatch(name):
        settings = dict(item.split("=", 1) for item in re.split(r",\s*(?=[a-z_]+=)", match["settings"]))
        return override(named(match["name"]), settings)
    known = NETWORKS | PORTS
    if name in known:
        return known[name]
    if match := _CIFAR_RESNET.fullmatch(name):
        unit = "basic" if match[2] else "bottleneck"
        return _cifar_resnet(_layers(int(match[1]), unit, name), unit=unit)
    if len(name) == 1:  # a text was given where a list of names is expected
        raise UnknownNetworkError(
            f"unknown network {name!r}; to give a list, write -y 'networks: [NAME, NAME]' for papermill "
            "or -p networks=NAME,NAME for resattn notebook"
        )
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    raise UnknownNetworkError(
        f"unknown network {name!r} ({'nearest: ' + ', '.join(near) if near else '`resattn list` shows all'})"
    )


def _layers(depth: int, unit: str, name: str) -> int:
    step = LAYERS_PER_STAGE_UNIT[unit]
    if depth >= step + 2 and (depth - 2) % step == 0:
        return depth
    below = max((depth - 2) // step, 1) * step + 2
    raise UnknownNetworkError(f"no {name}: {unit} networks have {step}n+2 layers (nearest: {below}, {below + step})")
