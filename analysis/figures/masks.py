"""Masks of trained networks: scores by stage, and masks over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.style import INK, ROLES, WIDTH_IN, styled
from analysis.tables.formats import display_name, part_name
from analysis.tables.quantities import SCORES
from analysis.trained.mask_maps import MAPS, STATES

# The roles' own colours; the sum of both is a colour of its own, chance is grey.
MAP_STYLES: Mapping[str, tuple[str, str]] = {
    "mask": (ROLES["mask"], "o"), "trunk": (ROLES["trunk"], "s"), "output": ("#009E73", "D"),
    "random": (INK, "x"),
}  # fmt: skip
STATE_LINES: Mapping[str, Any] = {"before": (0, (2, 2)), "after": "-"}
HEAT = "magma"  # even in lightness, dark to light: it reads in grey and for every common colour vision


@styled
def mask_scores(ax: Axes, masks: pd.DataFrame, quantity: str) -> str:
    """One score of each map by stage, before training (dashed) and after: a dot for each run, a line at the mean.

    `masks`: of `analysis.trained.mask_maps.mask_frame`, of one network. Modules of a stage are averaged.
    """
    q = SCORES[quantity]
    network = display_name(masks["network"].iloc[0])
    part = masks[masks["quantity"] == quantity]
    stages = sorted(part["stage"].unique())
    at = np.arange(len(stages), dtype=float)
    means = part.groupby(["map", "state", "seed", "stage"])["value"].mean()
    alt = [f"{q.label} of the masks of {network} by stage, before and after training."]
    for k, name in enumerate(MAPS):
        colour, marker = MAP_STYLES[name]
        for state in STATES:
            x = at + (k - 1.5) * 0.06
            of_runs = means[name, state].unstack("stage")[stages]
            for _, run in of_runs.iterrows():
                ax.scatter(x, run, s=10, color=colour, alpha=0.55, linewidths=0)
            mean = of_runs.mean()
            line: dict[str, Any] = {"mfc": "none", "mew": 1.5} if marker != "x" else {"mew": 1.5}
            width = 1.8 if state == "after" else 1.0
            ax.plot(x, mean, color=colour, ls=STATE_LINES[state], lw=width, marker=marker, ms=6, **line)
            alt.append(f"{name} {state}: {', '.join(f'{v:.2f}' for v in mean)}.")
    ax.set_xticks(at, [part_name(stage) for stage in stages])
    ax.set_xlim(-0.4, len(stages) - 0.6)
    ax.grid(axis="y")
    ax.set_title(network)
    if (place := ax.get_subplotspec()) is None or place.is_first_col():
        ax.set_ylabel(q.label)
    return " ".join(alt)


@styled
def map_legend(fig: Figure) -> None:
    """The colours of the maps and the line styles of the states, once for all panels."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=6, mfc="none", mew=1.5, lw=0)
        for colour, marker in MAP_STYLES.values()
    ]
    handles += [Line2D([], [], color=INK, ls=ls) for ls in STATE_LINES.values()]
    words = [*MAPS.values(), *(f"{state} training" for state in STATE_LINES)]
    fig.legend(handles, words, loc="outside upper left", ncol=3)


def sheet(pictures: NDArray[np.uint8], columns: Mapping[str, NDArray[Any]]) -> tuple[float, int, int]:
    """Height in inches, rows and columns of a figure with images and the maps beside them."""
    rows, across = len(pictures), 1 + len(columns)
    return 0.6 + rows * min(1.5, WIDTH_IN / across), rows, across


@styled
def mask_heat(
    axes: NDArray[Any],
    pictures: NDArray[np.uint8],
    columns: Mapping[str, NDArray[Any]],
    outlines: Any = None,
    *,
    title: str,
) -> str:
    """Images in rows, with one map for each column; each map is scaled from its minimum (dark) to its maximum (light).

    `axes`: (rows, 1 + columns). `pictures`: (rows, H, W, 3). `columns`: title -> (rows, H, W). `outlines`: (rows, H, W)
    bool, drawn as an outline on every map.
    """
    side = pictures.shape[1]
    for row, picture in enumerate(pictures):
        _image(axes[row, 0], picture)
        for column, (words, maps) in enumerate(columns.items(), start=1):
            ax = axes[row, column]
            _image(ax, maps[row], cmap=HEAT, extent=(-0.5, side - 0.5, side - 0.5, -0.5))
            if outlines is not None:
                ax.contour(np.asarray(outlines[row], float), levels=[0.5], colors="#ffffff", linewidths=0.7)
            if row == 0:
                ax.set_title(words, fontsize=8.5)
    axes[0, 0].set_title("image", fontsize=8.5)
    axes[0, 0].figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    outlined = ", the true foreground outlined" if outlines is not None else ""
    return (
        f"Masks of {title}. {len(pictures)} images, and beside each as heat maps: {', '.join(columns)}{outlined}. "
        "Each map is scaled from its minimum (dark) to its maximum (light)."
    )


def _image(ax: Axes, values: NDArray[Any], **options: Any) -> None:
    ax.imshow(values, interpolation="none", **options)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
