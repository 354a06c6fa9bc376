"""Figures: each a function of an axes and a frame, or of a few plain values, and one way to save them.

A function that draws returns what it has drawn in words, its first sentence a title: the `alt` of `save`.
Words, axes and traces are drawn in INK, which becomes `currentColor` in the file: a page gives it its own text
colour, light or dark, and a file opened alone shows a grey that reads on both. Grounds are transparent.
"""

from __future__ import annotations

import functools
import io
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis.tables.files import write_atomic
from analysis.tables.frames import quantity
from analysis.tables.names import display_name, listed, part_name
from analysis.trained.effective_frames import SHARES, Effective

INK = "#757575"  # 4.6 to 1 on white, 4.1 to 1 on #111

# One colour per role in all figures. Source: okabe2008, and a neutral for what is small; all keep 3 to 1 on white and
# on #111, and differ from each other for every common colour vision.
ROLES = {"trunk": "#0072B2", "mask": "#D55E00", "shortcut": "#8A8A8A"}

# Words on a role's colour, 4.5 to 1 or more on it, whatever the page.
ON_ROLE = {"trunk": "#fdfdfd", "mask": "#111111", "shortcut": "#111111"}

# One colour and marker per network in all figures; a network of CIFAR shares those of its namesake.
NETWORKS = {
    "attention56": ("#853DD5", "o"),
    "attention92": ("#A37CEE", "D"),
    "resnet50": ("#2EA395", "s"),
    "resnet56": ("#2EA395", "s"),
    "resnet74": ("#17717A", "^"),
    "resnet80": ("#17717A", "^"),
    "resnet101": ("#5B7DB1", "<"),
    "resnet110": ("#B58225", "v"),
    "resnet152": ("#8A5A50", "P"),
    "resnet164": ("#5B7DB1", "<"),
    "resnet200": ("#7A7A2E", "X"),
}

FINDINGS = {
    "confirmed": "#009E73",
    "matches under another definition": "#0072B2",
    "depends on the reading": "#CC79A7",
    "refuted": "#D55E00",
    "not testable here": "#8A8A8A",
}

STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "font.family": ["DejaVu Sans"], "text.color": INK, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "grid.color": INK,
    "grid.alpha": 0.22, "grid.linewidth": 0.6, "axes.linewidth": 0.7, "xtick.major.width": 0.7,
    "ytick.major.width": 0.7, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titlepad": 8, "legend.frameon": False, "legend.handlelength": 1.4,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.edgecolor": "none",
    "svg.hashsalt": "resattn", "svg.fonttype": "none", "path.simplify": False,
}  # fmt: skip

WIDTH_IN = 9.0

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """The function under our style, whatever the session's is; the session's stays as it was."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@styled
def figure(height_in: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure that no session shows twice, and its axes, shape (rows, columns). `options`: of `Figure.subplots`."""
    fig = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def axis_label(id: str) -> str:
    """Label and unit of a quantity, as on every axis."""
    q = quantity(id)
    return q.label if q.unit in ("", q.label.lower()) else f"{q.label} ({q.unit})"


def network_style(network: str) -> tuple[str, str]:
    """Colour and marker of a network, the same in all figures; one that has none of its own gets one by its name."""
    base = network.partition("[")[0].removeprefix("cifar-").removesuffix("-basic")
    if base in NETWORKS:
        return NETWORKS[base]
    styles = list(NETWORKS.values())
    return styles[zlib.crc32(base.encode()) % len(styles)]


def network_styles(networks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each network of a study, no two alike: variants of one network share no style.

    The same networks get the same styles in any order, so in all figures of a study.
    """
    found: dict[str, tuple[str, str]] = {}
    for network in sorted(set(networks), key=lambda name: (name.count(","), "[" in name, name)):
        wanted = network_style(network)
        free = [style for style in NETWORKS.values() if style not in found.values()]
        found[network] = wanted if wanted not in found.values() or not free else free[0]
    return found


# -- what a network is


@styled
def network_drawing(ax: Axes, layers: pd.DataFrame) -> str:
    """A network to scale: a layer is one step long and as wide as its multiply-adds, so that area is cost.

    The mask hangs below its trunk, a step lower at each halving of its map; a projection stands above. The longest
    path is traced; layers that are not on it are pale. `layers`: of `analysis.tables.frames.layer_frame`.
    """
    layers = layers.assign(y=heights(layers))
    unit = layers["macs"].max()
    height = layers["macs"] / unit
    end = int((layers["start"] + 1).max())
    ax.plot([0, end], [0, 0], color=INK, lw=0.8, alpha=0.6, zorder=1, solid_capstyle="butt")
    for _, mask in layers[layers["role"] == "mask"].groupby("module", sort=False):
        for _, level in mask.groupby("level"):
            ends = [level["start"].min(), level["start"].max() + 1]
            ax.plot(ends, [level["y"].iloc[0]] * 2, color=INK, lw=0.8, alpha=0.6, zorder=1, solid_capstyle="butt")
    for layer, tall in zip(layers.itertuples(), height, strict=True):
        tall = max(tall, 0.012)
        ax.add_patch(
            Rectangle(
                (layer.start + 0.06, layer.y - tall / 2), 0.88, tall, facecolor=ROLES[layer.role],
                alpha=1.0 if layer.on_longest else 0.45, linewidth=0, zorder=2,
            )
        )  # fmt: skip
    path = layers[layers["on_longest"]].sort_values("start")
    xs = np.column_stack([path["start"], path["start"] + 1]).ravel()
    ax.plot(xs, np.repeat(path["y"], 2), color=INK, lw=1.1, zorder=3, solid_joinstyle="round")
    _label_parts(ax, layers, height, end)
    ax.set_xlim(-0.5, end + 0.5)
    ax.set_ylim(layers["y"].min() - 0.55, max(layers["y"].max(), 0) + 0.75)
    ax.yaxis.set_major_locator(NullLocator())
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("weighted layers passed on the longest path", loc="left")
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    name = display_name(layers["network"].iloc[0])
    trunk, longest = int(layers["on_trunk"].sum()), int(layers["on_longest"].sum())
    ax.set_title(f"{name}: {trunk} layers along the trunk, {longest} along the longest path, {len(layers)} in all")
    handles: list[Any] = [Rectangle((0, 0), 1, 1, color=ROLES[r], lw=0) for r in ROLES if (layers["role"] == r).any()]
    labels = [r for r in ROLES if (layers["role"] == r).any()]
    handles += [Line2D([], [], color=INK, lw=1.1), Rectangle((0, 0), 1, 1, color=ROLES["trunk"], alpha=0.45, lw=0)]
    ax.legend(
        handles, [*labels, "longest path", "not on it"], loc="upper right", bbox_to_anchor=(1, -0.09), ncol=5,
        borderaxespad=0, columnspacing=1.4,
    )  # fmt: skip
    alt = [
        f"{name} to scale: {trunk} weighted layers along the trunk, {longest} along the longest path, "
        f"{len(layers)} in all.",
        "Length is layers, width is multiply-adds.",
    ]
    if (layers["role"] == "mask").any():
        _scale(ax, unit, end, layers["y"].min())
        share = layers.loc[layers["role"] == "mask", "macs"].sum() / layers["macs"].sum()
        modules = layers[layers["module"] != ""].groupby("module", sort=False)[["on_longest", "on_trunk"]].sum()
        alt += [
            f"The longest path leads through the masks, which take {_percent(share)} of the multiply-adds:",
            f"the modules are {listed(modules['on_longest'])} layers long on it,",
            f"and {listed(modules['on_trunk'])} along the trunk.",
        ]
    return " ".join(alt)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %" if share >= 1e-4 else "under 0.01 %"


def heights(layers: pd.DataFrame) -> list[float]:
    """The height of each layer's middle: trunk 0, shortcuts above it, the masks below, each halving a row lower."""
    unit, gap = layers["macs"].max(), 0.09

    def tallest(part: pd.DataFrame) -> float:
        return float(part["macs"].max()) / unit if len(part) else 0.0

    trunk = tallest(layers[(layers["role"] == "trunk") & (layers["module"] != "")]) or tallest(layers)
    above = tallest(layers[layers["role"] == "trunk"]) / 2 + gap + tallest(layers[layers["role"] == "shortcut"]) / 2
    rows, below = {}, trunk / 2
    mask = layers[layers["role"] == "mask"]
    for level in sorted(mask["level"].unique()):
        tall = max(tallest(mask[mask["level"] == level]), 0.06)
        rows[level] = -(below + gap + tall / 2)
        below += gap + tall
    return [
        above if role == "shortcut" else rows[level] if role == "mask" else 0.0
        for role, level in zip(layers["role"], layers["level"], strict=True)
    ]


def _label_parts(ax: Axes, layers: pd.DataFrame, height: pd.Series, end: int) -> None:
    top = max((layers["y"] + height / 2).max(), 0) + 0.1
    stages = [stage for stage in layers["stage"].unique() if stage.startswith("stage")]
    for stage in stages:
        part = layers[layers["stage"] == stage]
        x0, x1 = part["start"].min(), part["start"].max() + 1
        ax.plot([x0 + 0.15, x1 - 0.15], [top + 0.06] * 2, color=INK, lw=0.7, alpha=0.6)
        size = part.loc[part["role"] == "trunk", "size_px"].iloc[-1]
        text = f"stage {stage.removeprefix('stage')}" + (f", {size} px" if x1 - x0 > end / 10 else "")
        ax.text((x0 + x1) / 2, top + 0.12, text, ha="center", va="bottom", fontsize=8.5)
    bottom = layers["y"].min() - 0.12
    for _, part in layers[layers["module"] != ""].groupby("module", sort=False):
        x0, x1 = part["start"].min(), part["start"].max() + 1
        ax.plot([x0 + 0.15, x0 + 0.15, x1 - 0.15, x1 - 0.15], bottom + np.array([0.05, 0, 0, 0.05]), color=INK, lw=0.7)
        n_trunk, n_longest = int(part["on_trunk"].sum()), int(part["on_longest"].sum())
        text = f"{n_longest} layers, {n_trunk} by the trunk" if (x1 - x0) > end / 5 else f"{n_longest} ({n_trunk})"
        ax.text((x0 + x1) / 2, bottom - 0.06, text, ha="center", va="top", fontsize=8.5)


def _scale(ax: Axes, unit: float, end: int, lowest: float) -> None:
    """A layer of a round number of multiply-adds, where the last stage leaves room below it."""
    macs = 10.0 ** np.floor(np.log10(unit))
    tall = macs / unit
    ax.add_patch(Rectangle((end - 0.94, lowest), 0.88, tall, facecolor="none", edgecolor=INK, lw=0.8))
    words = f"one layer of\n{macs / 1e6:g} M multiply-adds"
    ax.text(end - 1.6, lowest + tall / 2, words, ha="right", va="center", fontsize=8)


# -- depth

NOTIONS = {"claimed_depth": "in the name", "longest_path": "longest path", "weighted_layers": "all weighted layers"}


@styled
def depth_bars(ax: Axes, depths: pd.DataFrame) -> str:
    """Three bars for each network: the number in its name, its longest path, all its layers, the last two by role.

    `depths`: of `analysis.tables.frames.depth_by_role`.
    """
    networks = list(depths["network"].unique())
    alt = ["Layers in the name, on the longest path, and in all."]
    most = depths.groupby(["network", "notion"])["value"].sum().max()
    for row, network in enumerate(networks):
        for k, (notion, words) in enumerate(NOTIONS.items()):
            part = depths[(depths["network"] == network) & (depths["notion"] == notion)]
            y, total = row + (k - 1) * 0.27, int(part["value"].sum())
            left = 0
            for bar in part.itertuples():
                colour = ROLES.get(bar.role, "none")
                ax.barh(
                    y, bar.value, left=left, height=0.2, color=colour, edgecolor=INK if colour == "none" else "none",
                    linewidth=0.8,
                )  # fmt: skip
                left += bar.value
            ax.text(left + most * 0.008, y, f"{total} {words}" if row == 0 else f"{total}", va="center", fontsize=8)
        counts = depths[depths["network"] == network].groupby("notion", sort=False)["value"].sum()
        alt.append(f"{display_name(network)}: {listed(int(counts[notion]) for notion in NOTIONS)}.")
    ax.set_yticks(range(len(networks)), [display_name(n) for n in networks])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, most * 1.16)
    ax.set_xlabel("layers")
    ax.grid(axis="x")
    return " ".join(alt)


@styled
def role_legend(fig: Figure, roles: Sequence[str] = tuple(ROLES)) -> None:
    """The colours of the roles, once for all panels of a figure."""
    handles = [Rectangle((0, 0), 1, 1, color=ROLES[role], lw=0) for role in roles]
    fig.legend(handles, roles, loc="outside upper left", ncol=len(roles))


@styled
def module_depths(ax: Axes, modules: pd.DataFrame) -> str:
    """Each attention module by its longest path, the p units and the mask apart; a line where the article has it.

    `modules`: of `analysis.tables.frames.module_frame`, of one network.
    """
    at = np.arange(len(modules))
    units = modules["longest_path"] - modules["mask_path"]
    ax.bar(at - 0.2, modules["trunk_path"], 0.34, color=ROLES["trunk"])
    ax.bar(at + 0.2, units, 0.34, color=ROLES["trunk"])
    ax.bar(at + 0.2, modules["mask_path"], 0.34, bottom=units, color=ROLES["mask"])
    for x, row in zip(at, modules.itertuples(), strict=True):
        ax.text(x - 0.2, row.trunk_path + 0.4, f"{row.trunk_path}", ha="center", va="bottom")
        ax.text(x + 0.2, row.longest_path + 0.4, f"{row.longest_path}", ha="center", va="bottom", weight="bold")
    said = modules["said"].iloc[0]
    ax.axhline(said, color=INK, lw=1, ls=(0, (4, 3)))
    ax.annotate(
        f"article: {said}", (1, said), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
        ha="right", va="bottom",
    )  # fmt: skip
    ax.set_xticks(at, [part_name(m).replace(", ", ",\n") for m in modules["module"]])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(modules) - 0.2)
    ax.set_ylim(0, modules["longest_path"].max() * 1.14)
    ax.set_ylabel("layers, by the trunk and by the mask")
    name = display_name(modules["network"].iloc[0])
    ax.set_title(name)
    ax.grid(axis="y")
    return (
        f"The modules of {name} are {listed(modules['longest_path'])} layers deep through the mask and "
        f"{listed(modules['trunk_path'])} through the trunk. The article gives {said} to each."
    )


@styled
def stage_depths(ax: Axes, stages: pd.DataFrame) -> str:
    """What each stage adds to the trunk's depth, to the longest path and to all layers, by role.

    `stages`: of `analysis.tables.frames.stage_frame`, of one network.
    """
    names, notions = list(stages["stage"].unique()), list(stages["notion"].unique())
    for k, notion in enumerate(notions):
        x = np.arange(len(names)) + (k - 1) * 0.28
        below = np.zeros(len(names))
        for role, colour in ROLES.items():
            part = stages[(stages["notion"] == notion) & (stages["role"] == role)]
            values = part.set_index("stage")["value"].reindex(names, fill_value=0).to_numpy()
            ax.bar(x, values, 0.24, bottom=below, color=colour)
            below += values
        for place, value in zip(x, below, strict=True):
            ax.text(place, value + 0.4, f"{value:.0f}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), list(map(part_name, names)))
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("layers")
    name = display_name(stages["network"].iloc[0])
    ax.set_title(f"{name}: trunk, longest path, all")
    ax.margins(y=0.1)
    ax.grid(axis="y")
    sums = stages.groupby(["stage", "notion"])["value"].sum()
    return f"What each stage of {name} adds to its trunk, to its longest path, and to all its layers. " + "; ".join(
        f"{stage}: {listed(sums[stage, notion] for notion in notions)}" for stage in names
    )


BIN = 6  # layers; units of two and of three layers give paths that differ by 2 or by 3


@styled
def path_lengths(ax: Axes, paths: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The share of paths against their length, one row for each network, with the mean and a stretch of lengths marked.

    `paths`, `summary`: of `analysis.tables.frames.path_length_frame` and `path_summary`.
    """
    longest = int(paths["length"].max())
    edges = np.arange(0, longest + 2 * BIN, BIN)
    low, high = summary["low"].iloc[0], summary["high"].iloc[0]
    ax.axvspan(low, high + 1, color=INK, alpha=0.12, lw=0)
    shares = {n: np.histogram(p["length"], edges, weights=p["share"])[0] for n, p in paths.groupby("network")}
    tallest = max(share.max() for share in shares.values())
    rights: list[int] = []
    for row, about in enumerate(summary.itertuples()):
        colour, _ = network_style(about.network)
        base = -float(row)
        tall = shares[about.network] / tallest * 0.8
        inside = np.flatnonzero(tall > 1e-3)
        ax.stairs(tall + base, edges, baseline=base, fill=True, color=colour, alpha=0.85, lw=0)
        ax.axhline(base, color=INK, lw=0.6, alpha=0.5)
        ax.plot([about.mean_length + 0.5] * 2, [base, base + 0.86], color=INK, lw=1.4)
        rights.append(int(edges[inside[-1] + 1]))
        words = f"mean {about.mean_length:.1f}; {_percent(about.share_between)} between {low} and {high}"
        ax.text(rights[-1] + 2, base + 0.3, words)
    ax.set_yticks(-np.arange(len(summary)), [display_name(n) for n in summary["network"]], va="bottom")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, max(longest + BIN, max(rights) / 0.62))
    ax.set_ylim(1 - len(summary) - 0.05, 1)
    ax.set_xlabel(f"weighted layers on a path (share of all paths in steps of {BIN} layers)")
    return "The share of paths by the number of weighted layers on them. " + "; ".join(
        f"{display_name(about.network)}: {about.mean_length:.1f} on the mean path, {_percent(about.share_between)} of "
        f"the paths have {low} to {high}"
        for about in summary.itertuples()
    )


# -- cost


@styled
def cost_bars(ax: Axes, costs: pd.DataFrame, id: str) -> str:
    """One quantity of each network, stacked by role. `costs`: of `analysis.tables.frames.cost_frame`."""
    part = costs[costs["quantity"] == id]
    networks = list(part["network"].unique())
    scale, label = _scaled_label(id, part.groupby("network")["value"].sum().max())
    most = part.groupby("network")["value"].sum().max() / scale
    alt = [f"{label} by role."]
    for row, network in enumerate(networks):
        left = 0.0
        for role in ROLES:
            value = part.loc[(part["network"] == network) & (part["role"] == role), "value"].sum() / scale
            ax.barh(row, value, left=left, height=0.62, color=ROLES[role])
            if role == "mask" and value > most * 0.055:
                share = _percent(value * scale / part.loc[part["network"] == network, "value"].sum())
                ax.text(left + value / 2, row, share, ha="center", va="center", color=ON_ROLE[role], fontsize=8)
            left += value
        ax.text(left + most * 0.012, row, f"{left:.{1 if left >= 10 else 2}f}", va="center", fontsize=8.5)
        mask = part.loc[(part["network"] == network) & (part["role"] == "mask"), "value"].sum() / scale
        in_masks = f", {_percent(mask / left)} in the masks" if mask else ""
        alt.append(f"{display_name(network)}: {left:.3g}{in_masks}.")
    ax.set_yticks(range(len(networks)), [display_name(n) for n in networks])
    ax.set_ylim(len(networks) - 0.5, -0.5)  # not inverted: panels may share the axis
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, most * 1.12)
    ax.set_xlabel(label)
    ax.grid(axis="x")
    return " ".join(alt)


def _scaled_label(id: str, most: float) -> tuple[float, str]:
    """What to divide large values by, and the axis label that says so."""
    for scale, prefix in ((1e9, "G"), (1e6, "M")):
        if most >= scale:
            return scale, f"{quantity(id).label} ({prefix})"
    return 1.0, axis_label(id)


# -- receptive field


@styled
def receptive_by_stage(ax: Axes, fields: pd.DataFrame, input_px: int) -> str:
    """The side of the square that a unit at each stage's end sees, with the masks and without.

    `fields`: of `analysis.tables.frames.receptive_frame`, of one network. `input_px`: side of the network's own input.
    """
    most = fields["value"].max()
    for branch in ("mask", "trunk"):
        part = fields[fields["branch"] == branch]
        at = np.arange(len(part))
        ax.plot(at, part["value"], color=ROLES[branch], lw=2, marker="o", ms=6)
        for x, value in zip(at, part["value"], strict=True):
            side = 1 if value < input_px else -1  # away from the line of the image
            ax.annotate(
                f"{value}", (x, value), xytext=(5 * side, -4 * side), textcoords="offset points",
                ha="left" if side > 0 else "right", va="top" if side > 0 else "bottom",
            )  # fmt: skip
        words = "through the masks" if branch == "mask" else "trunk alone"
        if len(part):
            ax.annotate(
                words, (at[-1], part["value"].iloc[-1]), xytext=(9, 0), textcoords="offset points", va="center",
            )  # fmt: skip
    ax.axhline(input_px, color=INK, lw=1, ls=(0, (4, 3)))
    ax.annotate(
        f"the image, {input_px}", (1, input_px), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center",
    )  # fmt: skip
    stages = list(fields["stage"].unique())
    ax.set_xticks(range(len(stages)), list(map(part_name, stages)))
    ax.set_xlim(-0.5, len(stages) - 0.1)
    ax.set_ylim(-most * 0.08, most * 1.14)
    ax.set_ylabel(axis_label("receptive_field_px"))
    name = display_name(fields["network"].iloc[0])
    ax.set_title(f"{name}, at the end of each stage")
    ax.grid(axis="y")
    sides = {branch: list(fields.loc[fields["branch"] == branch, "value"]) for branch in ("trunk", "mask")}
    through = f", and {listed(sides['mask'])} px through the masks" if sides["mask"] else ""
    return (
        f"What {name} sees at the end of each stage. A square of {listed(sides['trunk'])} px along the trunk alone"
        f"{through}; its input has {input_px} px."
    )


@styled
def receptive_over_image(ax: Axes, fields: pd.DataFrame, branch: str, image: np.ndarray, input_px: int) -> str:
    """The squares that a central unit sees at the end of each stage, over an image to the same scale.

    `fields`: of `receptive_frame`, of one network; the largest of its squares sets the scale, whatever the branch.
    `image`: (height, width, 3) uint8, one entry a pixel. `input_px`: side of the part that the network is given.
    """
    part = fields[fields["branch"] == branch]
    height, width = image.shape[:2]
    half, reach = input_px / 2, 1.04 * float(fields[["low_px", "high_px"]].abs().to_numpy().max())
    # What lies outside the network's input is dulled towards grey, which light and dark pages stand alike.
    y, x = np.ogrid[:height, :width]
    is_input = (abs(y - height / 2) < half) & (abs(x - width / 2) < half)
    ground = np.where(is_input[..., None], image, (0.4 * image + 0.6 * 128).astype(np.uint8))
    step = max(1, round(max(height, width) / 320))
    extent = (-width / 2, width / 2, height / 2, -height / 2)
    ax.imshow(ground[::step, ::step], extent=extent, interpolation="nearest")
    ax.add_patch(Rectangle((-half, -half), input_px, input_px, fill=False, ec="#fdfdfd", lw=1, ls=(0, (3, 2))))
    _squares(ax, part, branch, reach)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(reach, -reach)
    ax.set_axis_off()
    words = "trunk alone" if branch == "trunk" else "through the masks"
    name = display_name(part["network"].iloc[0])
    ax.set_title(f"{name}, {words}")
    return (
        f"What a central unit of {name} sees of an image, {words}. "
        f"At the ends of the stages squares of {listed(part['high_px'] - part['low_px'])} px, "
        f"over the {input_px} px that the network is given."
    )


def _squares(ax: Axes, fields: pd.DataFrame, role: str, half_px: float) -> None:
    """Each square with its label: on its upper edge if it is long enough, else beside the small ones, with a leader."""
    colour = ROLES[role]
    sides = fields["high_px"] - fields["low_px"]
    is_small = sides < half_px * 0.8
    beside = _apart(list(fields.loc[is_small, "low_px"]), half_px * 0.1)
    column = fields.loc[is_small, "high_px"].max() + half_px * 0.1
    box = {"boxstyle": "round,pad=0.25", "fc": colour, "ec": "none"}
    places = iter(beside)
    for field, side, small in zip(fields.itertuples(), sides, is_small, strict=True):
        low, high = field.low_px, field.high_px
        ax.add_patch(Rectangle((low, low), side, side, fill=False, ec=colour, lw=1.6))
        words = f"stage {field.stage.removeprefix('stage')}: {side} px"
        at = (column, next(places)) if small else (high, low)
        if small:
            ax.plot([high, at[0]], [low, at[1]], color=colour, lw=0.8)
        ax.text(
            at[0],
            at[1],
            words,
            color=ON_ROLE[role],
            ha="left" if small else "right",
            va="center",
            fontsize=7.5,
            bbox=box,
        )


@styled
def effective_map(ax: Axes, found: Effective) -> str:
    """Where the gradient of one unit comes from, and the squares that hold most of its energy."""
    energy = found.field.energy
    # The root of the energy is the size of the gradient: energy alone would show its centre only.
    size = np.sqrt(energy / energy.max())
    height, width = energy.shape
    ax.imshow(size, cmap="cividis", vmin=0, vmax=1, interpolation="none")
    y, x = found.field.centre
    sides = []
    for share, style in zip(SHARES, ("-", (0, (3, 2))), strict=True):
        side = found.field.side_px(share)
        sides.append(f"{100 * share:.0f} % of its energy in a square of {side} px")
        square = Rectangle((x - side / 2, y - side / 2), side, side, fill=False, ec="#fdfdfd", lw=1.3, ls=style)
        ax.add_patch(square)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_axis_off()
    ax.set_title(f"{part_name(found.module)}\n{found.branch}, {found.weights}", fontsize=8.5)
    return (
        f"The gradient of a unit of {display_name(found.network)} behind {found.module} along its {found.branch}, "
        f"{found.weights} weights, {found.n_seeds} seeds: {' and '.join(sides)}."
    )


@styled
def effective_sides(ax: Axes, frame: pd.DataFrame) -> str:
    """The squares that hold 68 and 95 % of the energy, trunk beside mask, for each module and kind of weights.

    `frame`: of `analysis.trained.effective_frames.effective_frame`.
    """
    rows = list(frame[["weights", "module"]].drop_duplicates().itertuples(index=False))
    said = []
    for k, (weights, module) in enumerate(rows):
        for branch, offset in (("trunk", -0.13), ("mask", 0.13)):
            part = frame[(frame["weights"] == weights) & (frame["module"] == module) & (frame["branch"] == branch)]
            inner, outer = (int(part[f"side_{100 * share:.0f}_px"].iloc[0]) for share in SHARES)
            ax.plot([inner, outer], [k + offset] * 2, color=ROLES[branch], lw=2)
            ax.plot([inner, outer], [k + offset] * 2, color=ROLES[branch], marker="o", ms=6, ls="none")
            if k == 0:
                ax.annotate(
                    branch, (outer, k + offset), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8.5
                )  # fmt: skip
            said.append(f"{weights} weights, {part_name(module)}, {branch}: {inner} and {outer} px")
    ax.set_yticks(range(len(rows)), [f"{part_name(module)}, {weights}" for weights, module in rows])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * frame[f"side_{100 * SHARES[-1]:.0f}_px"].max())
    ax.set_xlabel("side of the square that holds 68 and 95 % of the energy (px)")
    name = display_name(frame["network"].iloc[0])
    ax.set_title(f"{name}: where the gradient of a unit comes from")
    ax.grid(axis="x")
    return f"Effective receptive fields of {name}, sides of the squares with 68 and 95 % of the energy: " + "; ".join(
        said
    ) + "."  # fmt: skip


@styled
def gradient_support(ax: Axes, fields: pd.DataFrame, share: float) -> str:
    """For each stage and branch: what is seen by intervals, what by gradient, and where most of the weight lies.

    `fields`: of `analysis.tables.frames.gradient_frame`, of one network, made with the same `share`.
    """
    known = set(zip(fields["stage"], fields["branch"], strict=True))
    order = [(s, b) for s in fields["stage"].unique() for b in ("trunk", "mask") if (s, b) in known]
    rows = {key: i for i, key in enumerate(order)}
    for field in fields.itertuples():
        y, colour = rows[field.stage, field.branch], ROLES[field.branch]
        side = field.high_px - field.low_px
        ax.add_patch(Rectangle((field.low_px, y - 0.36), side, 0.72, fill=False, ec=INK, lw=0.9))
        width = field.gradient_high_px - field.gradient_low_px
        ax.barh(y, width, left=field.gradient_low_px, height=0.46, color=colour, alpha=0.4)
        ax.barh(y, field.central_high_px - field.central_low_px, left=field.central_low_px, height=0.46, color=colour)
        right = fields["high_px"].max() * 1.05
        ax.text(right, y, f"{field.side_px} = {field.gradient_side_px}" if field.agrees else
                f"{field.side_px}, not {field.gradient_side_px}", va="center", fontsize=8.5)  # fmt: skip
    ax.set_yticks(list(rows.values()), [f"stage {s.removeprefix('stage')}, {b}" for s, b in rows])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    reach = max(fields["high_px"].max(), -fields["low_px"].min())
    ax.set_xlim(-reach * 1.05, reach * 1.25)
    ax.set_xlabel("px from the middle of the input")
    ax.annotate("px by intervals = by gradient", (1, -0.17), xycoords="axes fraction", ha="right", va="center")
    ax.set_title(
        f"{display_name(fields['network'].iloc[0])}: by intervals (frame), by gradient (pale), "
        f"and where {100 * share:.0f} % of its weight lies (full)"
    )  # fmt: skip
    ax.grid(axis="x")
    name, n_agree = display_name(fields["network"].iloc[0]), int(fields["agrees"].sum())
    return f"Receptive fields of {name} by intervals and by gradient: {n_agree} of {len(fields)} agree. " + "; ".join(
        f"{field.stage}, {field.branch}: {field.side_px} px by intervals, {field.gradient_side_px} px by gradient, "
        f"{100 * share:.0f} % of the weight within {field.central_high_px - field.central_low_px} px"
        for field in fields.itertuples()
    )


# -- training


@styled
def training_curves(ax: Axes, epochs: pd.DataFrame, id: str) -> str:
    """A thin line for each run, a thick one for each network's mean. `epochs`: of `frames.epoch_frame`."""
    ends: dict[str, float] = {}
    styles = network_styles(epochs["network"].unique())
    for network, part in epochs.groupby("network", sort=False):
        colour, marker = styles[network]
        for _, run in part.groupby("seed"):
            ax.plot(run["epoch"], run[id], color=colour, lw=0.8, alpha=0.55)
        mean = part.groupby("epoch")[id].mean()
        ax.plot(mean.index, mean, color=colour, lw=2.2, marker=marker, ms=4)
        ends[network] = float(mean.iloc[-1])
    ax.set_xlabel("epoch")
    ax.set_ylabel(axis_label(id))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    low, high = ax.get_ylim()
    at_end = ax.get_yaxis_transform()  # x in the axes, y in the data
    for network, y in zip(ends, _apart(list(ends.values()), (high - low) * 0.075), strict=True):
        colour, marker = styles[network]
        ax.plot([1.02], [y], transform=at_end, clip_on=False, color=colour, marker=marker, ms=7, mfc="none", mew=1.8)
        ax.annotate(
            display_name(network), (1.02, y), xycoords=at_end, xytext=(8, 0), textcoords="offset points", va="center"
        )
    ax.set_ylim(low, high)
    datasets, n_seeds = ", ".join(epochs["dataset"].unique()), epochs["seed"].nunique()
    ax.set_title(datasets + (f": {n_seeds} seeds each, and their mean" if n_seeds > 1 else ""))
    lasts = "; ".join(f"{display_name(network)}: {value:.1f}" for network, value in ends.items())
    return f"{axis_label(id)} by epoch on {datasets}, every seed and the mean. Means after the last epoch: {lasts}."


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as keeps any two `gap` apart."""
    order = np.argsort(values)
    placed = np.asarray(values, dtype=float)
    for _ in range(100):
        for a, b in pairwise(order):
            if (short := gap - (placed[b] - placed[a])) > 1e-12:
                placed[a] -= short / 2
                placed[b] += short / 2
    return [float(v) for v in placed]


@styled
def error_against(ax: Axes, runs: pd.DataFrame, id: str) -> str:
    """Test error against one quantity: each run a dot, each network's mean a marker with the range of its runs.

    `runs`: of `analysis.tables.frames.run_frame`. Networks of equal size stand side by side.
    """
    scale, label = _scaled_label(id, runs[id].max())
    runs = runs.assign(**{id: runs[id].astype(float) / scale})
    sizes = runs.groupby("network", sort=False)[id].mean()
    # Of networks of one size the axis still shows where it lies.
    span = max(float(sizes.max() - sizes.min()), 0.1 * float(sizes.max()))
    styles = network_styles(sizes.index)
    for (network, part), nudge in zip(runs.groupby("network", sort=False), _nudges(sizes, span), strict=True):
        colour, marker = styles[network]
        ax.scatter(part[id] + nudge, part["test_error_pct"], s=14, color=colour, alpha=0.6, linewidths=0, zorder=2)
        x, y = part[id].mean() + nudge, part["test_error_pct"].mean()
        ax.vlines(x, part["test_error_pct"].min(), part["test_error_pct"].max(), color=colour, lw=1.2, zorder=1)
        ax.plot([x], [y], color=colour, marker=marker, ms=8, mfc="none", mew=1.8, zorder=3)
    ax.set_xlabel(label)
    middle = (float(runs[id].max()) + float(runs[id].min())) / 2
    half = max(float(runs[id].max()) - middle, span / 2) + 0.15 * span
    ax.set_xlim(middle - half, middle + half)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=quantity(id).unit == "layers"))
    ax.grid(axis="y")
    if (place := ax.get_subplotspec()) is None or place.is_first_col():
        ax.set_ylabel(axis_label("test_error_pct"))
    errors = runs.groupby("network", sort=False)["test_error_pct"].mean()
    said = "; ".join(f"{display_name(n)}: {errors[n]:.1f} % at {sizes[n]:.3g}" for n in errors.index)
    return f"Test error against {label[:1].lower() + label[1:]}, every run and the mean of each network. {said}."


@styled
def paired_differences(ax: Axes, pairs: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Error of the reference less that of each network: each seed a dot, the mean a marker.

    A bar is the mean's interval, where the seeds are enough for a test: one from fewer is too narrow to show.
    `pairs`, `differences`: of `analysis.tables.frames.pair_frame` and `difference_frame`.
    """
    references = list(differences["reference"].unique())
    reference = display_name(references[0]) if len(references) == 1 else "the first"
    styles = network_styles([*references, *differences["network"]])
    alt = [f"Test error of {reference} less that of another network, seed by seed, in points of %."]
    keys = ["network", "reference", "label_noise"]
    for row, about in enumerate(differences.itertuples()):
        colour, marker = styles[about.network]
        part = pairs[(pairs[keys] == [getattr(about, key) for key in keys]).all(axis=1)]
        ax.scatter(part["difference"], [row] * len(part), s=16, color=colour, alpha=0.6, linewidths=0)
        if pd.notna(about.p_value) and pd.notna(about.low) and pd.notna(about.high):
            ax.plot([about.low, about.high], [row, row], color=colour, lw=1.6)
        ax.plot([about.mean], [row], color=colour, marker=marker, ms=9, mfc="none", mew=1.8)
        test = f"p = {about.p_value:.2g}" if pd.notna(about.p_value) else f"{about.n} seeds: no test"
        ax.annotate(
            test, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center"
        )
        alt.append(f"{_compared(about)}: {about.mean:+.2f} in the mean of {about.n} seeds, {test}.")
    ax.axvline(0, color=INK, lw=0.8)
    firsts = ["" if len(references) == 1 else f"{display_name(name)}\n" for name in differences["reference"]]
    words = [f"{first}less {_compared(about)}" for first, about in zip(firsts, differences.itertuples(), strict=True)]
    ax.set_yticks(range(len(differences)), words)
    ax.set_ylim(max(len(differences), 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    if differences.empty:
        alt.append("No two networks were trained with one seed.")
        ax.text(0.5, 0.5, alt[-1], transform=ax.transAxes, ha="center", va="center")
    # 0.1 comes first: what is compared with NaN later does not go before it.
    reach = 1.15 * max(0.1, pairs["difference"].abs().max(), differences[["low", "high"]].abs().max().max())
    ax.set_xlim(-reach, reach)
    ax.set_xlabel(f"difference of test errors (points of %): left of 0, {reference} errs less")
    ax.grid(axis="x")
    return " ".join(alt)


def _compared(about: Any) -> str:
    """The network of a difference, and the label noise that both were trained with, if any."""
    noise = f", {100 * about.label_noise:.0f} % label noise" if about.label_noise else ""
    return f"{display_name(about.network)}{noise}"


def _nudges(sizes: pd.Series, span: float) -> list[float]:
    """How far each network is moved aside so that those of equal size are told apart."""
    nudges = []
    for i, size in enumerate(sizes):
        same = [j for j, other in enumerate(sizes) if abs(other - size) < 0.02 * span]
        nudges.append((same.index(i) - (len(same) - 1) / 2) * 0.05 * span)
    return nudges


@styled
def network_legend(fig: Figure, networks: Sequence[str], title: str) -> None:
    """The colours and markers of the networks, once for all panels of a figure, under a title."""
    handles = []
    styles = network_styles(networks)
    for network in networks:
        colour, marker = styles[network]
        handles.append(Line2D([], [], color=colour, marker=marker, ms=8, mfc="none", mew=1.8, lw=0))
    legend = fig.legend(
        handles, [display_name(n) for n in networks], loc="outside upper left", ncol=min(len(networks), 4), title=title,
        alignment="left", title_fontsize=10,
    )  # fmt: skip
    legend.get_title().set_color(INK)


# -- claims


@styled
def layout_scatter(ax: Axes, found: pd.DataFrame, printed: Mapping[str, str]) -> str:
    """Each layout as a point: its count of the first network against that of the last, where the print is a cross."""
    first, *_, last = [next(iter(printed)), *printed]  # one network is held against itself
    millions = found[list(printed)] / 1e6
    matched = found["n_matches"].to_numpy()
    levels = sorted(set(matched.tolist()))
    for n, colour in zip(levels, ("#8A8A8A", "#0072B2", "#D55E00", "#009E73"), strict=False):
        at = millions[matched == n]
        # Thousands of points: as a picture they weigh a tenth.
        ax.scatter(at[first], at[last], s=4 + 8 * n, color=colour, alpha=0.35 if n == levels[0] else 0.9, linewidth=0,
                   rasterized=len(at) > 1000, label=f"{n} of {len(printed)} printed numbers met")  # fmt: skip
    ax.plot(float(printed[first]), float(printed[last]), marker="+", markersize=14, color=INK, linestyle="none",
            label="as printed")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, name in ((ax.xaxis, first), (ax.yaxis, last)):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
        axis.set_label_text(f"{display_name(name)}: parameters (M)")
    ax.legend(loc="upper left")
    return (
        f"{len(found):,} layouts of the CIFAR networks by their parameters. "
        f"{int((matched == max(levels)).sum())} of them meet {max(levels)} of the {len(printed)} printed numbers. "
        f"The print is at {printed[first]} M for {display_name(first)} and {printed[last]} M for {display_name(last)}."
    )


@styled
def finding_bars(ax: Axes, counts: pd.DataFrame) -> str:
    """How many claims of each source came to which verdict. `counts`: source, verdict, n."""
    sources = list(counts["source"].unique())
    for row, source in enumerate(sources):
        left = 0
        for finding, colour in FINDINGS.items():
            n = int(counts.loc[(counts["source"] == source) & (counts["verdict"] == finding), "n"].sum())
            ax.barh(row, n, left=left, height=0.66, color=colour)
            left += n
        ax.text(left + counts.groupby("source")["n"].sum().max() * 0.01, row, f"{left}", va="center", fontsize=8)
    ax.set_yticks(range(len(sources)), sources)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("claims")
    ax.grid(axis="x")
    handles = [Rectangle((0, 0), 1, 1, color=colour, lw=0) for colour in FINDINGS.values()]
    totals = counts.groupby("verdict")["n"].sum()
    words = [f"{finding}: {totals.get(finding, 0)}" for finding in FINDINGS]
    ax.legend(handles, words, loc="lower right")
    return f"{totals.sum()} published numbers by source and verdict. {'; '.join(words)}."


# -- saving


@dataclass(frozen=True)
class Drawing:
    """A saved figure; a notebook shows it as it stands in the file, in the notebook's own text colour."""

    path: Path
    alt: str
    svg: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.svg, "text/plain": self.alt}


FIRST_SENTENCE = re.compile(r"(?<=[.!?]) ")


def joint_title(sentences: Sequence[str]) -> str:
    """One sentence for several panels: what they share once, and in its midst what each has of its own.

    Sentences that share little stand one after the other.
    """
    rows = [sentence.rstrip(".").split() for sentence in dict.fromkeys(sentences)]
    if len(rows) == 1:
        return sentences[0]
    shortest = min(map(len, rows))
    head = next((k for k in range(shortest) if len({row[k] for row in rows}) > 1), shortest - 1)
    room = shortest - head - 1  # a word at least is each one's own
    tail = next((k for k in range(room) if len({row[-1 - k] for row in rows}) > 1), room)
    middles = [" ".join(row[head : len(row) - tail]) for row in rows]
    if head + tail < 3 or max(map(len, middles)) > 40:
        return " ".join(dict.fromkeys(sentences))
    comma = "," if middles[0].endswith(",") else ""
    middle = listed(middle.removesuffix(",") for middle in middles) + comma
    return " ".join(filter(None, [*rows[0][:head], middle, *rows[0][len(rows[0]) - tail :]])) + "."


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@styled
def save(fig: Figure, path: Path | str, *, alt: str | Sequence[str]) -> Drawing:
    """Write a figure as SVG, atomically; the same figure gives the same bytes.

    `alt` says what the figure shows, for those who do not see it; of several panels, what each shows. The first
    sentence becomes the title; those of several panels are joined where they differ. The text stays text, in the
    reader's own font; ids begin with the file's name, so that many figures can share a page.
    """
    leads = [FIRST_SENTENCE.split(said, maxsplit=1)[0] for said in ([alt] if isinstance(alt, str) else alt)]
    alt = alt if isinstance(alt, str) else " ".join(alt)
    path = Path(path)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(buffer.getvalue().decode().replace(INK, "currentColor"))
    _tidy(root, path.stem)
    title, desc = ET.Element(f"{{{SVG}}}title"), ET.Element(f"{{{SVG}}}desc")
    title.set("id", f"{path.stem}-title")
    desc.set("id", f"{path.stem}-desc")
    title.text, desc.text = joint_title(leads), alt
    root.insert(0, title)
    root.insert(1, desc)
    inline = _text(root)
    style = ET.Element(f"{{{SVG}}}style")
    style.text = f"svg{{color:{INK}}}"  # for a file that stands alone; an inline figure takes the page's
    root.insert(2, style)
    write_atomic(path, '<?xml version="1.0" encoding="utf-8"?>\n' + _text(root) + "\n")
    return Drawing(path, alt, inline)


def _tidy(root: ET.Element, prefix: str) -> None:
    """Strip what only matplotlib reads, keep its rules to this drawing, and make the rest safe to share a page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {found for value in values for found in re.findall(r"^#(.+)$", value) + re.findall(r"url\(#(.+?)\)", value)}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                if value in used:
                    element.set(name, f"{prefix}-{value}")
                else:
                    del element.attrib[name]
            elif name in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
            elif name == "style" and "DejaVu" in value:
                element.set(name, re.sub(r"'DejaVu Sans'[^;]*", FONTS.replace('"', "'"), value))
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    root.set("style", "max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt")


def _text(root: ET.Element) -> str:
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")
