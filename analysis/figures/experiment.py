"""Figures of the experiment: its sweep of learning rates, and its errors by epochs, multiply-adds and time."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import axis_label, network_styles, scaled_label, styled
from analysis.tables.formats import display_name


@styled
def rate_sweep(ax: Axes, sweep: pd.DataFrame) -> str:
    """Error on held-out images against learning rate: each run a dot, the mean a line, the chosen rate filled.

    `sweep`: of `analysis.trained.experiment.sweep_frame`.
    """
    styles = network_styles(sweep["network"].unique())
    alt = ["Error on held-out training images against the learning rate, every run and the mean of each network."]
    for network, part in sweep[~sweep["diverged"]].groupby("network", sort=False):
        colour, marker = styles[network]
        ax.scatter(part["lr"], part["error_pct"], s=14, color=colour, alpha=0.6, linewidths=0)
        mean = part.groupby("lr")["error_pct"].mean()
        ax.plot(mean.index, mean, color=colour, marker=marker, ms=7, mfc="none", mew=1.6, lw=1.4)
        chosen = part.loc[part["chosen"], "lr"].unique()
        ax.plot(chosen, mean[chosen], color=colour, marker=marker, ms=7, ls="none")
        rates = ", ".join(f"{error:.1f} % at {lr:g}" for lr, error in mean.items())
        alt.append(f"{display_name(str(network))}: {rates}" + (f"; chosen: {chosen[0]:g}." if len(chosen) else "."))
    gone = sweep[sweep["diverged"]]
    if len(gone):
        alt.append(f"{len(gone)} runs diverged.")
    ticks = sorted(sweep["lr"].unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{lr:g}" for lr in ticks])
    ax.minorticks_off()
    ax.set_xlabel("learning rate")
    ax.set_ylabel("error on held-out images (%)")
    ax.grid(axis="y")
    return " ".join(alt)


@styled
def error_by_budget(ax: Axes, budgets: pd.DataFrame, id: str) -> str:
    """Test error against `epochs`, `training_macs` or `elapsed_s`: each run a dot, the mean of a network a line.

    Each budget has its own learning rate schedule. `budgets`: of `analysis.trained.experiment.budget_frame`.
    """
    styles = network_styles(budgets["network"].unique())
    scale, label = (1.0, "epochs of all training images") if id == "epochs" else scaled_label(id, budgets[id].max())
    alt = [f"Test error against {label}, every run and the mean of each network."]
    for network, part in budgets.groupby("network", sort=False):
        colour, marker = styles[network]
        ax.scatter(part[id] / scale, part["test_error_pct"], s=12, color=colour, alpha=0.5, linewidths=0)
        budget = part.groupby("epochs")
        mean = budget["test_error_pct"].mean()
        ax.plot(budget[id].mean() / scale, mean, color=colour, marker=marker, ms=7, mfc="none", mew=1.6, lw=1.4)
        ends = ", ".join(f"{error:.1f} % at {epochs}" for epochs, error in mean.items())
        alt.append(f"{display_name(str(network))}: {ends} epochs.")
    ax.set_xscale("log", base=2)
    ax.set_xlabel(label)
    if (place := ax.get_subplotspec()) is None or place.is_first_col():
        ax.set_ylabel(axis_label("test_error_pct"))
    ax.grid(axis="y")
    return " ".join(alt)
