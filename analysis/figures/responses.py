"""Responses of trained networks, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import network_styles, styled
from analysis.tables.formats import display_name, part_name
from analysis.trained.responses import PLACES


@styled
def response_lines(ax: Axes, frame: pd.DataFrame, place: str, printed: Mapping[str, Sequence[float]]) -> str:
    """Mean absolute response of each stage relative to stage 1, read at one place, on a logarithmic axis.

    `frame`: of `responses.response_frame`. `printed`: network -> values of the paper's figure 4, drawn as crosses.
    """
    part = frame[frame["place"] == place]
    stages = sorted(part["stage"].unique())
    styles = network_styles(frame["network"].unique())
    alt = [f"Mean absolute response by stage, relative to stage 1: {PLACES[place]}."]
    for network, of_network in part.groupby("network", sort=False):
        colour, marker = styles[network]
        for _, run in of_network.groupby("seed"):
            ax.plot(range(len(run)), run["relative"], color=colour, lw=0.7, alpha=0.5)
        mean = of_network.groupby("stage")["relative"].mean()[stages]
        ax.plot(range(len(stages)), mean, color=colour, marker=marker, ms=7, mfc="none", mew=1.6, lw=1.6)
        if network in printed:
            ax.plot(range(len(printed[network])), printed[network], color=colour, marker="+", ms=9, mew=1.6, lw=0)
        alt.append(f"{display_name(network)}: {', '.join(f'{v:.3g}' for v in mean)}.")
    ax.set_yscale("log")
    ax.set_xticks(range(len(stages)), [part_name(stage) for stage in stages])
    ax.set_title(PLACES[place], fontsize=8.5)
    ax.grid(axis="y")
    if (spot := ax.get_subplotspec()) is None or spot.is_first_col():
        ax.set_ylabel("mean |x| over that of stage 1")
    return " ".join(alt)
