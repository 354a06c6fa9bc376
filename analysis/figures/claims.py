"""Figures of the claims: verdicts by source, and CIFAR layouts beside the printed parameters."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from analysis.figures.style import INK, styled
from analysis.tables.formats import display_name

# Blue, orange and grey are the roles' in every figure; no verdict has their colours.
FINDINGS = {
    "confirmed": "#009E73",
    "built so": "#4F8F7A",
    "other definition": "#6C79C9",
    "by reading": "#CC79A7",
    "off": "#C2304A",
    "contradicts itself": "#A4456B",
    "misquotes": "#B58225",
    "superseded": "#853DD5",
    "not testable": "#948D80",
}


@styled
def layout_scatter(ax: Axes, layouts: pd.DataFrame, printed: Mapping[str, str]) -> str:
    """Each layout as a point: parameters of the first network against those of the last; a cross where printed."""
    first, *_, last = [next(iter(printed)), *printed]  # one network is held against itself
    millions = layouts[list(printed)] / 1e6
    matched = layouts["n_matches"].to_numpy()
    levels = sorted(set(matched.tolist()))
    for n, colour in zip(levels, ("#948D80", "#6C79C9", "#B58225", "#009E73"), strict=False):
        at = millions[matched == n]
        # Thousands of points: as a picture they weigh a tenth.
        ax.scatter(at[first], at[last], s=4 + 8 * n, color=colour, alpha=0.35 if n == levels[0] else 0.9, linewidth=0,
                   rasterized=len(at) > 1000, label=f"{n} of {len(printed)} printed numbers matched")  # fmt: skip
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
        f"{len(layouts):,} layouts of the CIFAR networks by their parameters. "
        f"{int((matched == max(levels)).sum())} of them meet {max(levels)} of the {len(printed)} printed numbers. "
        f"The print is at {printed[first]} M for {display_name(first)} and {printed[last]} M for {display_name(last)}."
    )


@styled
def finding_bars(ax: Axes, counts: pd.DataFrame) -> str:
    """The number of claims by verdict, for each source. `counts`: source, verdict, n."""
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
