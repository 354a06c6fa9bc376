"""The CIFAR layouts that the paper's text allows, with their parameters by arithmetic: which ones match the print?

The text fixes 36m + 20 layers, equal numbers of modules per stage and ResNet's widths (wang2017, sections 3.1 and 4.1).
It leaves open what the fields of `Layout` name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from resattn.networks.spec import NetworkSpec

N_STAGES = 3
MOST_POOLINGS = 3  # an 8x8 map allows three


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to read the text. `follows_release`: the mask is built by the rules of the ImageNet prototxts."""

    width: int
    poolings: tuple[int, ...]
    extra_units: str  # "tail": one before each stage's modules and three at the end; "per stage": two in each
    bottom: int  # units at the lowest level, in r
    skip: str  # units on each skip: "none", "one", "r"
    outputs: int  # 1x1 convolutions at the mask's end
    counts_norm: bool  # whether the printed number counts the scales and shifts of batch norm

    @property
    def follows_release(self) -> bool:
        return self.bottom == 2 and self.skip == "one" and self.outputs == 2 and self.counts_norm


def layouts() -> Iterator[Layout]:
    """All layouts that the text allows, the narrowest first."""
    poolings = product(range(MOST_POOLINGS + 1), repeat=N_STAGES)
    choices: tuple[Sequence[Any], ...] = (
        (16, 32), list(poolings), ("tail", "per stage"), (1, 2), ("none", "one", "r"), (1, 2), (True, False),
    )  # fmt: skip
    return (Layout(*values) for values in product(*choices))


def params(layout: Layout, modules: int, p: int, t: int, r: int, classes: int = 10) -> int:
    """Parameters of a network in this layout, by arithmetic on widths: no module is built."""
    before, after = {"tail": ((1, 1, 1), (0, 0, 3)), "per stage": ((2, 2, 2), (0, 0, 0))}[layout.extra_units]
    norm = 2 if layout.counts_norm else 0
    channels, total = layout.width, 27 * layout.width
    for stage in range(N_STAGES):
        inner = layout.width * 2**stage
        out = 4 * inner
        plain = before[stage] + after[stage] + modules * (2 * p + t)
        total += _unit(channels, inner, out, norm) + (plain - 1) * _unit(out, inner, out, norm)
        units = _mask_units(layout, layout.poolings[stage], r)
        head = layout.outputs * (out * out + norm * out)
        total += modules * (units * _unit(out, inner, out, norm) + head)
        channels = out
    return total + norm * channels + channels * classes + classes


def _unit(in_channels: int, inner: int, out: int, norm: int) -> int:
    projection = in_channels * out if in_channels != out else 0
    return in_channels * inner + 9 * inner**2 + inner * out + projection + norm * (in_channels + 2 * inner)


def _mask_units(layout: Layout, poolings: int, r: int) -> int:
    levels = max(poolings - 1, 0)
    skip = {"none": 0, "one": 1, "r": r}[layout.skip]
    return levels * (2 * r + skip) + layout.bottom * r


def search(networks: Mapping[str, tuple[NetworkSpec, str]]) -> list[dict[str, Any]]:
    """One row for each layout: the count of every network, whether it matches the printed text, and the largest miss.

    `networks`: name to spec and the printed number in millions, as text. Keys: the fields of `Layout`,
    `follows_release`, for every network NAME and `NAME_matches`, `n_matches`, and `worst_miss_m` in millions.
    """
    rows = []
    for layout in layouts():
        row: dict[str, Any] = {f.name: getattr(layout, f.name) for f in fields(Layout)}
        row["poolings"] = ",".join(map(str, layout.poolings))
        row["follows_release"] = layout.follows_release
        misses = []
        for name, (spec, printed) in networks.items():
            count = params(layout, max(spec.modules), spec.p, spec.t, spec.r, spec.classes)
            row[name] = count
            decimals = len(printed.partition(".")[2])
            row[f"{name}_matches"] = f"{count / 1e6:.{decimals}f}" == printed
            misses.append(abs(count / 1e6 - float(printed)))
        row["n_matches"] = sum(row[f"{name}_matches"] for name in networks)
        row["worst_miss_m"] = max(misses)
        rows.append(row)
    return rows


def verdict(found: Sequence[Mapping[str, Any]], printed: Mapping[str, str]) -> str:
    """The result of a search, in two sentences."""
    most, n = max(row["n_matches"] for row in found), len(printed)
    best = [row for row in found if row["n_matches"] == most]
    rest = "which is all of them" if most == n else "and none meets all"
    by_release = [row["poolings"] for row in best if row["follows_release"]]
    nearest = min(row["worst_miss_m"] for row in found)
    return (
        f"Of {len(found):,} layouts, {len(best)} meet {most} of the {n} printed numbers, {rest}; "
        f"the least of their largest misses is {nearest:.2f} M. "
        f"By the rules of the release {len(by_release)} meet {most}: poolings {' and '.join(by_release)}."
    )
