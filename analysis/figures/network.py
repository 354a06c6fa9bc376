"""A network to scale: every weighted layer in its place, with the longest path marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.figures import svg
from analysis.figures.style import INK, ROLES, percent, styled
from analysis.tables.formats import display_name, listed

LEAST = 0.08  # height of a layer that is to be seen, of the largest


@styled
def network_drawing(ax: Axes, layers: pd.DataFrame) -> str:
    """A network to scale: each layer has unit length and a width proportional to its multiply-adds: area is cost.

    Very small layers are drawn thicker, to be visible. The mask is below its trunk, one step lower at each halving of
    its map; a projection is above. The longest path is marked; layers outside it are pale. `layers`: of
    `analysis.tables.layers.layer_frame`.
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
        tall = max(tall, LEAST)
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
            f"The longest path passes through the masks, which take {percent(share)} of the multiply-adds:",
            f"the modules are {listed(modules['on_longest'])} layers long on it,",
            f"and {listed(modules['on_trunk'])} along the trunk.",
        ]
    return " ".join(alt)


def heights(layers: pd.DataFrame) -> list[float]:
    """The vertical position of each layer: trunk 0, shortcuts above, masks below, a row lower at each halving."""
    unit, gap = layers["macs"].max(), 0.09

    def tallest(part: pd.DataFrame) -> float:
        return float(part["macs"].max()) / unit if len(part) else 0.0

    trunk = tallest(layers[(layers["role"] == "trunk") & (layers["module"] != "")]) or tallest(layers)
    above = tallest(layers[layers["role"] == "trunk"]) / 2 + gap + tallest(layers[layers["role"] == "shortcut"]) / 2
    rows, below = {}, trunk / 2
    mask = layers[layers["role"] == "mask"]
    for level in sorted(mask["level"].unique()):
        tall = max(tallest(mask[mask["level"] == level]), 1.5 * LEAST)
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
        text = f"{n_longest} layers, {n_trunk} on the trunk" if (x1 - x0) > end / 5 else f"{n_longest} ({n_trunk})"
        ax.text((x0 + x1) / 2, bottom - 0.06, text, ha="center", va="top", fontsize=8.5)


def _scale(ax: Axes, unit: float, end: int, lowest: float) -> None:
    """A layer of a round number of multiply-adds, where the last stage leaves room below it."""
    macs = 10.0 ** np.floor(np.log10(unit))
    tall = macs / unit
    ax.add_patch(Rectangle((end - 0.94, lowest), 0.88, tall, facecolor="none", edgecolor=INK, lw=0.8))
    words = f"one layer of\n{macs / 1e6:g} M multiply-adds"
    ax.text(end - 1.6, lowest + tall / 2, words, ha="right", va="center", fontsize=8)


# -- as text


PALE = 0.45


def network_sketch(layers: pd.DataFrame) -> str:
    """As `network_drawing`, as SVG text. `layers`: of `layers.layer_frame`."""
    rows = layers.assign(y=heights(layers)).to_dict("records")
    unit = max(row["macs"] for row in rows)
    for row in rows:
        row["tall"] = max(row["macs"] / unit, LEAST)
    end = max(row["start"] for row in rows) + 1
    low = min(row["y"] - row["tall"] / 2 for row in rows)
    high = max(row["y"] + row["tall"] / 2 for row in rows)
    step, scale, above = svg.WIDTH / end, 74.0, 26.0

    def at(x: float, y: float) -> tuple[float, float]:
        return x * step, above + (high - y) * scale

    gap = min(0.06 * step, 1.0)
    parts = [svg.line([at(0, 0), at(end, 0)], stroke_opacity=0.5, stroke_width=0.8)]
    for row in rows:
        x, y = at(row["start"], row["y"] + row["tall"] / 2)
        alpha = {} if row["on_longest"] else {"fill_opacity": PALE}
        parts.append(svg.rect(x + gap, y, step - 2 * gap, row["tall"] * scale, fill=ROLES[row["role"]], **alpha))
    path = sorted((row for row in rows if row["on_longest"]), key=lambda row: row["start"])
    trace = [at(row["start"] + k, row["y"]) for row in path for k in (0, 1)]
    parts.append(svg.line(trace, stroke_width=1.3, stroke_linejoin="round"))
    parts += _stage_words(rows, at)
    bottom = above + (high - low) * scale + 8
    parts += _module_words(rows, step, bottom)
    height = bottom + 26
    parts += _network_key(rows, height)
    n_trunk, n_longest = sum(row["on_trunk"] for row in rows), len(path)
    share = sum(row["macs"] for row in rows if row["role"] == "mask") / sum(row["macs"] for row in rows)
    label = (
        f"{display_name(rows[0]['network'])} to scale: {n_trunk} weighted layers along the trunk, {n_longest} along "
        f"the longest path, {len(rows)} in all. The masks take {100 * share:.0f} % of the multiply-adds."
    )
    return svg.drawing(height + 22, parts, label)


def _stage_words(rows: Sequence[Mapping[str, Any]], at: Any) -> list[str]:
    parts = []
    for stage, group in groupby(rows, key=lambda row: row["stage"]):
        part = list(group)
        if not stage.startswith("stage"):
            continue
        (x0, _), (x1, _) = at(min(r["start"] for r in part), 0), at(max(r["start"] for r in part) + 1, 0)
        parts.append(svg.line([(x0 + 2, 19), (x1 - 2, 19)], stroke_opacity=0.6))
        size = next(r["size_px"] for r in reversed(part) if r["role"] == "trunk")
        words = f"stage {stage.removeprefix('stage')}" + (f", {size} px" if x1 - x0 > 96 else "")
        if x1 - x0 > 46:
            parts.append(svg.text((x0 + x1) / 2, 13, words, text_anchor="middle"))
    return parts


def _module_words(rows: Sequence[Mapping[str, Any]], step: float, bottom: float) -> list[str]:
    parts = []
    modules: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["module"]:
            modules.setdefault((row["stage"], row["module"]), []).append(row)
    for part in modules.values():
        x0 = min(r["start"] for r in part) * step
        x1 = (max(r["start"] for r in part) + 1) * step
        n_longest, n_trunk = sum(r["on_longest"] for r in part), sum(r["on_trunk"] for r in part)
        ends = [(x0 + 2, bottom - 5), (x0 + 2, bottom), (x1 - 2, bottom), (x1 - 2, bottom - 5)]
        parts.append(svg.line(ends, stroke_width=0.8))
        room = x1 - x0
        words = f"{n_longest} layers, {n_trunk} on the trunk" if room > 160 else f"{n_longest} ({n_trunk})"
        if room > 40:
            parts.append(svg.text((x0 + x1) / 2, bottom + 15, words, text_anchor="middle"))
    return parts


def _network_key(rows: Sequence[Mapping[str, Any]], y: float) -> list[str]:
    parts, x = [], 2.0
    for role in ROLES:
        if any(row["role"] == role for row in rows):
            parts += [svg.rect(x, y + 3, 11, 11, fill=ROLES[role]), svg.text(x + 16, y + 13, role)]
            x += 16 + 7.0 * len(role) + 18
    parts += [svg.line([(x, y + 9), (x + 20, y + 9)], stroke_width=1.3), svg.text(x + 26, y + 13, "longest path")]
    x += 26 + 7.0 * 12 + 16
    parts += [svg.rect(x, y + 3, 11, 11, fill=ROLES["trunk"], fill_opacity=PALE), svg.text(x + 16, y + 13, "not on it")]
    words = "length: layers; height: multiply-adds"
    return [*parts, svg.text(svg.WIDTH, y + 13, words, text_anchor="end")]
