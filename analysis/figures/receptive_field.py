"""Receptive fields: by stage, over an image, and by intervals beside gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis.figures import svg
from analysis.figures.style import INK, ON_ROLE, ROLES, apart, axis_label, styled
from analysis.tables.formats import display_name, listed, part_name


@styled
def receptive_by_stage(ax: Axes, fields: pd.DataFrame, input_px: int) -> str:
    """The side of the receptive field at each stage's end, with and without the masks.

    `fields`: of `analysis.tables.receptive_field.receptive_frame`, of one network. `input_px`: side of its own input.
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
    """The receptive fields of a central unit at the end of each stage, over an image at the same scale.

    `fields`: of `receptive_frame`, of one network; its largest square, of any branch, sets the scale. `image`: (height,
    width, 3) uint8. `input_px`: side of the part that the network gets.
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
    beside = apart(list(fields.loc[is_small, "low_px"]), half_px * 0.1)
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
def gradient_support(ax: Axes, fields: pd.DataFrame, share: float) -> str:
    """For each stage and branch: the field by intervals, the field by gradient, and the range with most of the weight.

    `fields`: of `analysis.tables.receptive_field.gradient_frame`, of one network, made with the same `share`.
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


# -- as text


def receptive_field_sketch(stages: Mapping[str, Mapping[str, int]], input_px: int) -> str:
    """The receptive fields at each stage's end, with the trunk alone and with the masks, over the square of the input.

    `stages`: stage -> branch ("trunk", "mask") -> side in px.
    """
    branches = [b for b in ("trunk", "mask") if any(b in sides for sides in stages.values())]
    most = max(input_px, *(side for sides in stages.values() for side in sides.values()))
    panel, beside, top = 190.0, 142.0, 30.0
    parts, notes = [], []
    for k, branch in enumerate(branches):
        x0 = k * (panel + beside)
        cx, cy = x0 + panel / 2, top + panel / 2
        inner = panel * input_px / most
        words = "along the trunk alone" if branch == "trunk" else "through the masks"
        parts.append(svg.text(x0, 16, words, font_weight=600))
        parts.append(svg.rect(cx - inner / 2, cy - inner / 2, inner, inner, fill="currentColor", fill_opacity=0.16))
        for stage, sides in stages.items():
            side = panel * sides[branch] / most
            at = (cx - side / 2, cy - side / 2, side, side)
            parts.append(svg.rect(*at, fill="none", stroke=ROLES[branch], stroke_width=1.8))
            notes.append(f"{stage}, {branch}: {sides[branch]}")
        for i, (stage, sides) in enumerate(stages.items()):
            y = top + 20 + 22 * i
            parts.append(svg.text(x0 + panel + 14, y, f"{stage.replace('stage', 'stage ')}: {sides[branch]:,} px"))
        y = top + 20 + 22 * len(stages)
        parts.append(svg.rect(x0 + panel + 14, y - 10, 11, 11, fill="currentColor", fill_opacity=0.16))
        parts.append(svg.text(x0 + panel + 31, y, f"the input, {input_px} px"))
    label = f"Sides in px of what a unit at each stage's end sees. {'; '.join(notes)}."
    return svg.drawing(top + panel + 6, parts, label, width=2 * (panel + beside))
