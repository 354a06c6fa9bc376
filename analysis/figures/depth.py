"""Depth of networks: by notion, by module and by stage; and which layers each notion counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import svg
from analysis.figures.style import INK, ROLES, styled
from analysis.tables.formats import display_name, listed, part_name

NOTIONS = {"claimed_depth": "in the name", "longest_path": "longest path", "weighted_layers": "all weighted layers"}


@styled
def depth_bars(ax: Axes, depths: pd.DataFrame) -> str:
    """Three bars for each network: the number in its name, its longest path, all its layers; the last two by role.

    `depths`: of `analysis.tables.depth.depth_by_role`.
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
def module_depths(ax: Axes, modules: pd.DataFrame) -> str:
    """The longest path of each attention module, its p units and its mask apart; a line at the article's number.

    `modules`: of `analysis.tables.depth.module_frame`, of one network.
    """
    at = np.arange(len(modules))
    units = modules["longest_path"] - modules["mask_path"]
    ax.bar(at - 0.2, modules["trunk_path"], 0.34, color=ROLES["trunk"])
    ax.bar(at + 0.2, units, 0.34, color=ROLES["trunk"])
    ax.bar(at + 0.2, modules["mask_path"], 0.34, bottom=units, color=ROLES["mask"])
    for x, row in zip(at, modules.itertuples(), strict=True):
        ax.text(x - 0.2, row.trunk_path + 0.4, f"{row.trunk_path}", ha="center", va="bottom")
        ax.text(x + 0.2, row.longest_path + 0.4, f"{row.longest_path}", ha="center", va="bottom", weight="bold")
    stated = modules["stated"].iloc[0]
    ax.axhline(stated, color=INK, lw=1, ls=(0, (4, 3)))
    ax.annotate(
        f"article: {stated}", (1, stated), xycoords=("axes fraction", "data"), xytext=(0, 3),
        textcoords="offset points", ha="right", va="bottom",
    )  # fmt: skip
    ax.set_xticks(at, [part_name(m).replace(", ", ",\n") for m in modules["module"]])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(modules) - 0.2)
    ax.set_ylim(0, modules["longest_path"].max() * 1.14)
    ax.set_ylabel("layers")
    name = display_name(modules["network"].iloc[0])
    ax.set_title(f"{name}: trunk, longest path")
    ax.grid(axis="y")
    return (
        f"The modules of {name} are {listed(modules['longest_path'])} layers deep through the mask and "
        f"{listed(modules['trunk_path'])} through the trunk. The article gives {stated} to each."
    )


@styled
def stage_depths(ax: Axes, stages: pd.DataFrame) -> str:
    """What each stage contributes to trunk depth, longest path and all layers, by role.

    `stages`: of `analysis.tables.depth.stage_frame`, of one network.
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


# -- which layers a notion of depth counts


BOX, ROW = 34.0, 62.0


def notion_sketch(layers: pd.DataFrame, chosen: frozenset[str], words: str) -> str:
    """The layers of a small network as boxes; those that count are filled, and the path through them is drawn.

    The trunk is at the top, the mask below it; an arc is the identity path of a residual unit, bold if the path uses
    it. `layers`: of `layers.layer_frame`. `chosen`: layer paths that count.
    """
    rows = layers.to_dict("records")
    end = max(row["start"] for row in rows) + 1
    step, left = 41.0, 30.0
    top = 62.0
    width = left + end * step + 30

    def middle(row: Mapping[str, Any]) -> tuple[float, float]:
        below = row["role"] == "mask"
        return left + (row["start"] + 0.5) * step, top + (ROW if below else 0)

    masks = [row for row in rows if row["role"] == "mask"]
    parts = [svg.line([(left - 22, top), (width - 8, top)], stroke_opacity=0.45)]
    if masks:
        x0, x1 = middle(masks[0])[0] - step / 2, middle(masks[-1])[0] + step / 2
        ends = [(x0 - 2, top), (x0 - 2, top + ROW), (x1 + 2, top + ROW), (x1 + 2, top)]
        parts.append(svg.line(ends, stroke_opacity=0.45))
    is_all = len(chosen) == len(rows)
    passed: list[tuple[float, float]] = []
    for unit, group in groupby(rows, key=lambda row: _unit(row["layer"])):
        part = list(group)
        if unit:
            taken = not is_all and not chosen & {row["layer"] for row in part} and _is_passed(part, rows, chosen)
            x0, x1, y = middle(part[0])[0] - BOX / 2 - 2, middle(part[-1])[0] + BOX / 2 + 2, middle(part[0])[1]
            parts.append(_arc(x0, x1, y, taken))
            passed += [(x0, x1)] if taken else []
    for row in rows:
        x, y = middle(row)
        full = row["layer"] in chosen
        style = {"fill": ROLES[row["role"]], "fill_opacity": 1 if full else 0.22, "rx": 3}
        parts.append(svg.rect(x - BOX / 2, y - 13, BOX, 26, **style))
    if passed:  # the way is level between the arcs
        marks = [left - 22, *(x for arc in passed for x in arc), width - 8]
        parts += [
            svg.line([(a, top), (b, top)], stroke_width=1.8) for a, b in zip(marks[::2], marks[1::2], strict=True)
        ]
    elif not is_all:
        way = [middle(row) for row in sorted(rows, key=lambda row: row["start"]) if row["layer"] in chosen]
        parts.append(svg.line(_steps([(left - 22, top), *way, (width - 8, top)], step), stroke_width=1.8))
    parts.append(svg.text(left - 22, 18, words, font_size=14, font_weight=600))
    return svg.drawing(top + ROW + 24, parts, words, width=width)


def _unit(layer: str) -> str:
    """The residual unit that a layer belongs to, by its path; empty for a layer of none."""
    parts = layer.split(".")
    at = max((i for i, part in enumerate(parts[:-1]) if part.startswith("unit")), default=-1)
    return ".".join(parts[: at + 1])


def _is_passed(part: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], chosen: frozenset[str]) -> bool:
    """Does the way pass a unit that it has no layer in, rather than run beside the branch that holds it?"""
    on_mask = any(row["role"] == "mask" and row["layer"] in chosen for row in rows)
    return (part[0]["role"] == "mask") is on_mask or not part[0]["module"]


def _arc(x0: float, x1: float, y: float, is_taken: bool) -> str:
    up = y - 34
    style = {"stroke_width": 1.8} if is_taken else {"stroke_opacity": 0.45}
    path = f"M{x0:.1f} {y:.1f}C{x0 + 6:.1f} {up:.1f} {x1 - 6:.1f} {up:.1f} {x1:.1f} {y:.1f}"
    return f'<path d="{path}"{svg.attributes({"fill": "none", "stroke": "currentColor", **style})}/>'


def _steps(points: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """The points joined by level stretches and upright ones, as a signal runs."""
    way = [points[0]]
    for x, y in points[1:]:
        before_x, before_y = way[-1]
        if y != before_y:
            turn = x - step / 2 - 2 if y > before_y else before_x + step / 2 + 2
            way += [(turn, before_y), (turn, y)]
        way.append((x, y))
    return way
