"""Results of training runs: errors by epoch, against size and label noise, and paired differences."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import INK, apart, axis_label, network_styles, scaled_label, styled
from analysis.tables.formats import display_name, signed
from analysis.tables.quantities import quantity


@styled
def training_curves(ax: Axes, epochs: pd.DataFrame, id: str) -> str:
    """A thin line for each run, a thick one for the mean of each network. `epochs`: of `runs.epoch_frame`."""
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
    for network, y in zip(ends, apart(list(ends.values()), (high - low) * 0.075), strict=True):
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


@styled
def error_against(ax: Axes, runs: pd.DataFrame, id: str) -> str:
    """Test error against one quantity: each run a dot, the mean of each network a marker with the range of its runs.

    `runs`: of `analysis.tables.runs.run_frame`. Networks of equal size share a position and differ in marker.
    """
    scale, label = scaled_label(id, runs[id].max())
    runs = runs.assign(**{id: runs[id].astype(float) / scale})
    sizes = runs.groupby("network", sort=False)[id].mean()
    # Of networks of one size the axis still shows where it lies.
    span = max(float(sizes.max() - sizes.min()), 0.1 * float(sizes.max()))
    styles = network_styles(sizes.index)
    for network, part in runs.groupby("network", sort=False):
        colour, marker = styles[network]
        ax.scatter(part[id], part["test_error_pct"], s=14, color=colour, alpha=0.6, linewidths=0, zorder=2)
        x, y = part[id].mean(), part["test_error_pct"].mean()
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
    notes = "; ".join(f"{display_name(n)}: {errors[n]:.1f} % at {sizes[n]:.3g}" for n in errors.index)
    return f"Test error against {label[:1].lower() + label[1:]}, every run and the mean of each network. {notes}."


@styled
def paired_differences(ax: Axes, pairs: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Error of the reference minus error of each network: each seed a dot, the mean a marker.

    A bar is the simultaneous interval, if an order may be concluded. `pairs`, `differences`: of
    `analysis.statistics.conclusions.pair_frame` and `difference_frame`.
    """
    differences = differences[differences["n"] > 0]
    references = list(differences["reference"].unique())
    reference = display_name(references[0]) if len(references) == 1 else "the first"
    styles = network_styles([*references, *differences["network"]])
    alt = [f"Test error of {reference} minus that of another network, seed by seed, in percentage points."]
    keys = ["network", "reference", "dataset", "epochs", "images", "label_noise"]
    for row, about in enumerate(differences.itertuples()):
        colour, marker = styles[about.network]
        part = pairs[(pairs[keys] == [getattr(about, key) for key in keys]).all(axis=1)]
        ax.scatter(part["difference"], [row] * len(part), s=16, color=colour, alpha=0.6, linewidths=0)
        if pd.notna(about.p_value) and pd.notna(about.low) and pd.notna(about.high):
            ax.plot([about.low, about.high], [row, row], color=colour, lw=1.6)
        ax.plot([about.mean], [row], color=colour, marker=marker, ms=9, mfc="none", mew=1.8)
        test = f"p = {about.p_value:.2g}" if pd.notna(about.p_value) else f"\N{EN DASH} ({about.n} seeds)"
        ax.annotate(
            test, (1, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center"
        )
        alt.append(f"{_compared(about)}: {signed(about.mean)} (mean of {about.n} seeds), {test}.")
    ax.axvline(0, color=INK, lw=0.8)
    firsts = ["" if len(references) == 1 else f"{display_name(name)}\n" for name in differences["reference"]]
    words = [f"{first}minus {_compared(about)}" for first, about in zip(firsts, differences.itertuples(), strict=True)]
    ax.set_yticks(range(len(differences)), words)
    ax.set_ylim(max(len(differences), 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    if differences.empty:
        alt.append("No two networks were trained with the same seed.")
        ax.text(0.5, 0.5, alt[-1], transform=ax.transAxes, ha="center", va="center")
    # 0.1 comes first: what is compared with NaN later does not go before it.
    reach = 1.15 * max(0.1, pairs["difference"].abs().max(), differences[["low", "high"]].abs().max().max())
    ax.set_xlim(-reach, reach)
    ax.set_xlabel(f"difference of test errors (percentage points): left of 0, {reference} has the lower error")
    ax.grid(axis="x")
    return " ".join(alt)


def _compared(about: Any) -> str:
    """The network of a difference, and the label noise that both were trained with, if any."""
    noise = f", {100 * about.label_noise:.0f} % label noise" if about.label_noise else ""
    return f"{display_name(about.network)}{noise}"


@styled
def error_by_noise(ax: Axes, runs: pd.DataFrame) -> str:
    """Test error against the share of wrong training labels: each run a dot, the mean of each network a line.

    `runs`: of `analysis.tables.runs.run_frame`.
    """
    styles = network_styles(runs["network"].unique())
    alt = ["Test error against label noise, every run and the mean of each network."]
    for network, part in runs.groupby("network", sort=False):
        colour, marker = styles[network]
        ax.scatter(100 * part["label_noise"], part["test_error_pct"], s=14, color=colour, alpha=0.6, linewidths=0)
        mean = part.groupby("label_noise")["test_error_pct"].mean()
        ax.plot(100 * mean.index, mean, color=colour, marker=marker, ms=8, mfc="none", mew=1.8, lw=1.4)
        notes = ", ".join(f"{v:.1f} % at {100 * noise:.0f} %" for noise, v in mean.items())
        alt.append(f"{display_name(network)}: {notes}.")
    ax.set_xlabel("wrong training labels (%)")
    ax.set_ylabel(axis_label("test_error_pct"))
    ax.xaxis.set_major_locator(MaxNLocator(8))
    ax.grid(axis="y")
    return " ".join(alt)
