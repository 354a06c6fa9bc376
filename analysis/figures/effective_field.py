"""The effective receptive field: where the gradient of a unit comes from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis.figures.style import ROLES, styled
from analysis.tables.formats import display_name, part_name
from analysis.trained.effective import SHARES, Effective


@styled
def effective_map(ax: Axes, effective: Effective) -> str:
    """The gradient energy of one unit over the input, with the squares that contain most of it."""
    energy = effective.field.energy
    # The root of the energy is the size of the gradient: energy alone would show its centre only.
    size = np.sqrt(energy / energy.max())
    height, width = energy.shape
    ax.imshow(size, cmap="cividis", vmin=0, vmax=1, interpolation="none")
    y, x = effective.field.centre
    sides = []
    for share, style in zip(SHARES, ("-", (0, (3, 2))), strict=True):
        side = effective.field.side_px(share)
        sides.append(f"{100 * share:.0f} % of its energy in a square of {side} px")
        square = Rectangle((x - side / 2, y - side / 2), side, side, fill=False, ec="#fdfdfd", lw=1.3, ls=style)
        ax.add_patch(square)
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_axis_off()
    ax.set_title(f"{part_name(effective.module)}\n{effective.branch}, {effective.weights}", fontsize=8.5)
    return (
        f"The gradient of a unit of {display_name(effective.network)} behind {effective.module} along its "
        f"{effective.branch}, {effective.weights} weights, {effective.n_seeds} seeds: {' and '.join(sides)}."
    )


@styled
def effective_sides(ax: Axes, frame: pd.DataFrame) -> str:
    """The squares that contain 68 and 95 % of the energy, for trunk and mask of each module and both kinds of weights.

    `frame`: of `analysis.trained.effective.effective_frame`.
    """
    rows = list(frame[["weights", "module"]].drop_duplicates().itertuples(index=False))
    notes = []
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
            notes.append(f"{weights} weights, {part_name(module)}, {branch}: {inner} and {outer} px")
    ax.set_yticks(range(len(rows)), [f"{part_name(module)}, {weights}" for weights, module in rows])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * frame[f"side_{100 * SHARES[-1]:.0f}_px"].max())
    ax.set_xlabel("side of the square that holds 68 and 95 % of the energy (px)")
    name = display_name(frame["network"].iloc[0])
    ax.set_title(f"{name}: where the gradient of a unit comes from")
    ax.grid(axis="x")
    return f"Effective receptive fields of {name}, sides of the squares with 68 and 95 % of the energy: " + "; ".join(
        notes
    ) + "."  # fmt: skip
