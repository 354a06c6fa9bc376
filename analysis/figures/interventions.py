"""Figures of trained networks: errors with masks replaced, ROC areas of mask channels, and gradient depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import INK, ROLES, styled
from analysis.tables.formats import display_name, part_name
from analysis.trained.interventions import ALL, AS_THEY_ARE, RE_ESTIMATED, UNCHANGED

# No role's colours: both are states of the whole network.
NORMS: Mapping[str, tuple[str, str]] = {AS_THEY_ARE: ("#853DD5", "o"), RE_ESTIMATED: ("#17717A", "s")}
GRADIENT = "#853DD5"
NULL_LINES: Mapping[str, Any] = {"other image": (0, (1, 1)), "constant": (0, (4, 2)), "brightness": "-"}


@styled
def intervention_dots(ax: Axes, interventions: pd.DataFrame) -> str:
    """The increase of the test error under each intervention on all masks of one network: dots are runs, a line the
    mean.

    `interventions`: of `analysis.trained.interventions.intervention_frame`, of one network.
    """
    network = display_name(interventions["network"].iloc[0])
    part = interventions[(interventions["module"] == ALL) & (interventions["intervention"] != UNCHANGED)]
    kinds = list(part["intervention"].unique())
    alt = []
    for norms, (colour, marker) in NORMS.items():
        own = part[part["norms"] == norms]
        for row, kind in enumerate(kinds):
            changes = own.loc[own["intervention"] == kind, "change"]
            if changes.empty:
                continue
            y = -row - (0.15 if norms == RE_ESTIMATED else -0.15)
            label = f"batch norms {norms}" if row == 0 else None
            ax.scatter(changes, [y] * len(changes), s=14, color=colour, marker=marker, alpha=0.7, lw=0, label=label)
            ax.plot([changes.mean()] * 2, [y - 0.14, y + 0.14], color=colour, lw=2)
            alt.append(f"{kind}, norms {norms}: {changes.mean():+.1f}.")
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(-np.arange(len(kinds)), kinds)
    ax.grid(axis="x")
    ax.set_xlabel("change of the test error (percentage points)")
    ax.set_title(network)
    ax.legend(loc="best")
    return f"Change of the test error of {network}, in percentage points, when its masks are replaced. " + " ".join(alt)


@styled
def channel_dots(ax: Axes, channels: pd.DataFrame, masks: pd.DataFrame) -> str:
    """The area under the ROC curve of every mask channel of one network by stage, with lines at the baselines.

    `channels`, `masks`: of `analysis.trained.mask_maps.channel_frame` and `mask_frame`, of one network. Seeds are side
    by side.
    """
    network = display_name(channels["network"].iloc[0])
    stages, seeds = sorted(channels["stage"].unique()), sorted(channels["seed"].unique())
    known = masks[(masks["state"] == "after") & (masks["quantity"] == "auc")]
    alt = []
    for k, stage in enumerate(stages):
        for s, seed in enumerate(seeds):
            own = channels[(channels["stage"] == stage) & (channels["seed"] == seed)]["auc"]
            x = k + (s - (len(seeds) - 1) / 2) * 0.7 / len(seeds)
            ax.scatter([x] * len(own), own, s=8, color=ROLES["mask"], alpha=0.4, lw=0)
        areas = channels.loc[channels["stage"] == stage, "auc"]
        alt.append(f"{part_name(stage)}: channels from {areas.min():.2f} to {areas.max():.2f}.")
        for name, line in NULL_LINES.items():
            value = known.loc[(known["map"] == name) & (known["stage"] == stage), "value"].mean()
            ax.plot([k - 0.45, k + 0.45], [value] * 2, color=INK, ls=line, lw=1.2, label=name if not k else None)
            alt.append(f"{name} {value:.2f}.")
    ax.set_xticks(range(len(stages)), [part_name(stage) for stage in stages])
    ax.set_ylim(0, 1)
    ax.grid(axis="y")
    ax.set_ylabel("area under the ROC curve")
    ax.set_title(network)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncol=3)
    return f"Area under the ROC curve of every channel of the masks of {network}. " + " ".join(alt)


@styled
def used_depth(ax: Axes, used: pd.DataFrame, title: str) -> str:
    """Shares against path length: of the paths (filled), and of the gradient's energy (a line for each state and run).

    `used`: rows of one network with length, share, share_of_paths, and state and seed if it is trained.
    """
    states = list(used["state"].unique()) if "state" in used else [""]
    seeds = used["seed"] if "seed" in used else pd.Series(0, index=used.index)
    first = used[(seeds == seeds.iloc[0]) & (used["state"] == states[0] if "state" in used else True)]
    n = int(used["length"].max()) + 1
    ax.stairs(_by_length(first, "share_of_paths", n), np.arange(n + 1) - 0.5, fill=True, color=INK, alpha=0.2, lw=0,
              label="paths")  # fmt: skip
    paths = float((first["length"] * first["share_of_paths"]).sum())
    alt = [f"The mean path has {paths:.1f} layers."]
    for state in states:
        means = []
        for k, (_, run) in enumerate((used[used["state"] == state] if state else used).groupby(seeds)):
            ax.plot(
                np.arange(n), _by_length(run, "share", n), color=GRADIENT, lw=1.3,
                ls=(0, (2, 2)) if state == "before" else "-",
                label=None if k else f"gradient {state} training" if state else "gradient",
            )  # fmt: skip
            means.append(float((run["length"] * run["share"]).sum()))
        when = f" {state} training" if state else ""
        alt.append(f"The gradient{when} passes {' and '.join(f'{m:.1f}' for m in means)} layers on average.")
    ax.set_xlabel("weighted layers")
    ax.set_ylabel("share")
    ax.set_title(title)
    ax.legend(loc="upper right")
    return f"{title}: shares of paths and of the gradient's energy by the number of weighted layers. " + " ".join(alt)


def _by_length(rows: pd.DataFrame, column: str, n: int) -> np.ndarray:
    """The share at each length, spread over pairs of lengths so that parity leaves no comb."""
    shares = np.zeros(n)
    shares[rows["length"].to_numpy()] = rows[column]
    return (shares + np.roll(shares, 1)) / 2
