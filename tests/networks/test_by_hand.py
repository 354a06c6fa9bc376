"""Attention networks counted by hand, with formulas that share nothing with the package.

Layout of ImageNet networks: the released prototxts (fwang91, model/Attention-56-deploy.prototxt and Attention-92-,
AttentionNeXt-56-, AttentionNeXt-92-deploy.prototxt). Layout of CIFAR networks: wang2017, section 4.1 and table 2, with
the readings of docs/concepts.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import pytest
from golden_rows import BY_HAND

from resattn.claims.claims import parse_subject
from resattn.claims.measured import measure
from resattn.measures.audit import audit
from resattn.networks.catalog import named
from resattn.networks.spec import override


@dataclass(frozen=True)
class Layout:
    """Stage by stage; a stage without modules holds units alone."""

    modules: tuple[int, ...]
    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    sides: tuple[int, ...] = (56, 28, 14, 7)
    units: tuple[int, ...] = (1, 1, 1, 3)  # the first of a stage with a projection; those after the modules, too
    poolings: tuple[int, ...] = (3, 2, 1, 0)
    stem: tuple[int, int, int] = (64, 7, 112)  # channels, kernel, side of the output
    classes: int = 1000
    p: int = 1
    t: int = 2
    r: int = 1
    is_next: bool = False  # units of ResNeXt: half the channels inside, 32 groups, norms behind the convolutions

    def unit(self, c_in: int, c: int) -> tuple[int, int, int]:
        """Weights of a unit's three convolutions."""
        inner = c // 2 if self.is_next else c // 4
        return c_in * inner, 9 * inner * inner // (32 if self.is_next else 1), inner * c

    def norm(self, c_in: int, c: int) -> int:
        """Channels of a unit's norms; of ResNeXt's the projection has one, too."""
        return (c // 2 * 2 + c + (c if c_in != c else 0)) if self.is_next else c_in + c // 4 * 2

    def mask_units(self, poolings: int) -> Iterator[tuple[int, int]]:
        """Level of each group of units (1 after the first pooling) and how many: down, skip and up; 2r at the bottom."""
        for level in range(1, poolings):
            yield level, self.r + 1 + self.r
        yield poolings, 2 * self.r


CIFAR = Layout(
    modules=(1, 1, 1), channels=(64, 128, 256), sides=(32, 16, 8), units=(1, 1, 4), poolings=(2, 2, 1),
    stem=(16, 3, 32), classes=10,
)  # fmt: skip
IMAGENET = Layout(modules=(1, 1, 1, 0))
LAYOUTS = {
    "attention56": IMAGENET,
    "attention92": replace(IMAGENET, modules=(1, 2, 3, 0)),
    "attentionnext56": replace(IMAGENET, is_next=True),
    "attentionnext92": replace(IMAGENET, modules=(1, 2, 3, 0), is_next=True),
    "cifar-attention56": CIFAR,
    "cifar-attention92": replace(CIFAR, modules=(2, 2, 2)),
    "cifar-attention236": replace(CIFAR, modules=(6, 6, 6)),
    "cifar-attention452": replace(CIFAR, modules=(6, 6, 6), p=2, t=4, r=3),
    "cifar-attention56 poolings=3,2,1": replace(CIFAR, poolings=(3, 2, 1)),
    "cifar-attention92 poolings=3,2,1": replace(CIFAR, modules=(2, 2, 2), poolings=(3, 2, 1)),
    "cifar-attention452 poolings=3,2,1": replace(CIFAR, modules=(6, 6, 6), p=2, t=4, r=3, poolings=(3, 2, 1)),
    "cifar-attention92 poolings=2,2,2 units=2,2,2 tail=0,0,0": replace(
        CIFAR, modules=(2, 2, 2), poolings=(2, 2, 2), units=(2, 2, 2)
    ),
}


def weights_and_macs(x: Layout) -> dict[str, int]:
    width, kernel, side = x.stem
    conv, macs = 3 * width * kernel**2, 3 * width * kernel**2 * side**2
    norm = width if kernel == 7 else 0  # that of CIFAR stands in the first unit
    mask = {"conv": 0, "norm": 0, "macs": 0}
    before, c_in = x.sides[0], width
    for n, c, side, units, poolings in zip(x.modules, x.channels, x.sides, x.units, x.poolings, strict=True):
        first, second, third = x.unit(c_in, c)
        conv += first + second + third + c_in * c
        macs += first * before**2 + (second + third + c_in * c) * side**2  # the stride is on the 3x3
        norm += x.norm(c_in, c)
        plain = units - 1 + n * (2 * x.p + x.t)
        conv, macs = conv + plain * sum(x.unit(c, c)), macs + plain * sum(x.unit(c, c)) * side**2
        norm += plain * x.norm(c, c)
        if n:
            for level, n_units in x.mask_units(poolings):
                mask["conv"] += n * n_units * sum(x.unit(c, c))
                mask["norm"] += n * n_units * x.norm(c, c)
                mask["macs"] += n * n_units * sum(x.unit(c, c)) * (-(-side // 2**level)) ** 2
            mask["conv"] += n * 2 * c * c  # two 1x1, each behind a norm; of ResNeXt's the first follows a unit's own
            mask["norm"] += n * c * (1 if x.is_next else 2)
            mask["macs"] += n * 2 * c * c * side**2
        before, c_in = side, c
    norm += 0 if x.is_next else c_in
    linear = c_in * x.classes
    conv, norm = conv + mask["conv"], norm + mask["norm"]
    return {
        "params_conv": conv, "params_norm": 2 * norm, "norm_statistics": 2 * norm, "params_linear": linear + x.classes,
        "params": conv + 2 * norm + linear + x.classes, "macs": macs + mask["macs"] + linear,
        "params_conv_mask": mask["conv"], "params_mask": mask["conv"] + 2 * mask["norm"], "macs_mask": mask["macs"],
    }  # fmt: skip


def layers_and_paths(x: Layout) -> dict[str, int]:
    stages = list(zip(x.modules, x.units, x.poolings, strict=True))
    outside = sum(units for _, units, _ in stages)
    n_modules = sum(x.modules)
    mask = sum(n * (3 * sum(k for _, k in x.mask_units(q)) + 2) for n, _, q in stages if n)
    trunk = 1 + 3 * (outside + n_modules * (2 * x.p + x.t))
    return {
        "conv_layers_trunk": trunk,
        "conv_layers_mask": mask,
        "conv_layers_shortcut": len(stages),
        "conv_layers": trunk + mask + len(stages),
        "weighted_layers": trunk + mask + len(stages) + 1,
        "trunk_depth": trunk + 1,
        # The mask goes down and up again: 2r units for each pooling, and two convolutions.
        "longest_path": 2 + 3 * outside + sum(n * (6 * x.p + 6 * x.r * q + 2) for n, _, q in stages if n),
        "shortest_path": 2 + len(stages),  # every projection, and no other unit
        "n_paths": 2**outside * prod(module_paths(x, q) ** n for n, _, q in stages if n),
    }


def module_paths(x: Layout, poolings: int) -> int:
    """Ways through a module: (1 + M) T is T and M T, whose factors are both read."""

    def below(level: int, ways: int) -> int:
        if level == poolings:
            return ways * 2 ** (2 * x.r)
        down = ways * 2**x.r
        return (below(level + 1, down) + 2 * down) * 2**x.r  # the skip unit

    return 2 ** (2 * x.p) * (2 * 2**x.t + below(1, 1))


@pytest.mark.parametrize("name", LAYOUTS)
def test_layers_paths_parameters_and_cost(name: str) -> None:
    network, _, settings = name.partition(" ")
    spec = override(named(network), dict(item.split("=") for item in settings.split()))
    expected = weights_and_macs(LAYOUTS[name]) | layers_and_paths(LAYOUTS[name])
    found = audit(spec).quantities
    subject = parse_subject(name)
    assert {q: found[q] if q in found else measure(subject, q) for q in expected} == expected


def test_by_hand_the_release_has_what_others_count() -> None:
    # osmr/imgclsmob, gluon/gluoncv2/models/resattnet.py asserts these.
    assert weights_and_macs(LAYOUTS["attention56"])["params"] == 31_810_728
    assert weights_and_macs(LAYOUTS["attention92"])["params"] == 52_466_344


@pytest.mark.parametrize("name", ["attention56", "attention92"])
def test_the_trunks_receptive_field(name: str) -> None:
    # 7x7 of stride 2 and 3x3 of stride 2; then each 3x3 adds twice the stride that it works at.
    side, stride = 7 + 2 * 2, 4
    for stage, n in enumerate(LAYOUTS[name].modules, start=1):
        side += 2 * stride  # the unit that opens the stage
        stride *= 2 if stage > 1 else 1
        side += 2 * stride * (4 * n if n else 2)
        if n:
            found = measure(parse_subject(f"{name} @stage{stage}.module{n}"), "receptive_field_trunk_px")
            assert found == side
    assert measure(parse_subject(name), "receptive_field_trunk_px") == side


@pytest.mark.parametrize(("stage", "poolings", "units"), [(1, 3, 8), (2, 2, 5), (3, 1, 2)])
def test_a_module_of_attention56(stage: int, poolings: int, units: int) -> None:
    subject = parse_subject(f"attention56 @stage{stage}.module1")
    expected = {
        "module_trunk_path": 12,  # 1 + 2 + 1 units of 3
        "module_longest_path": 6 + 6 * poolings + 2,
        "mask_longest_path": 6 * poolings + 2,
        "mask_units_on_path": 2 * poolings,
        "mask_units": units,
        "mask_conv_layers": 3 * units + 2,
        "poolings": poolings,
    }
    assert {q: measure(subject, q) for q in expected} == expected


def test_a_port_that_counts_p_once() -> None:
    # gluon-cv's attention452: 18 modules of 2 + 4 units and one after the merge.
    assert measure(parse_subject("port:gluoncv:attention452"), "trunk_depth") == 2 + 18 + 18 * (2 + 4 + 1) * 3


def test_the_receptive_field_of_resnet50_with_the_stride_on_the_3x3() -> None:
    side, stride = 7 + 2 * 2, 4
    for stage, units in enumerate((3, 4, 6, 3)):
        first, stride = stride, stride * (2 if stage else 1)
        side += 2 * first + (units - 1) * 2 * stride
    assert measure(parse_subject("resnet50"), "receptive_field_px") == side


def test_what_nobody_prints_is_counted_here() -> None:
    of_modules = {"module_longest_path", "module_trunk_path", "mask_longest_path", "mask_units_on_path"}
    of_modules |= {"receptive_field_least_px"}  # tests/measures/test_receptive.py
    assert set(weights_and_macs(IMAGENET)) | of_modules >= BY_HAND
