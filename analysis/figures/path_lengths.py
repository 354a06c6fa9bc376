"""Path lengths: the share of paths against their number of weighted layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import svg
from analysis.figures.style import INK, ROLES, network_style, percent, styled
from analysis.tables.formats import display_name

BIN = 6  # layers; units of two and of three layers give paths that differ by 2 or by 3


@styled
def path_lengths(ax: Axes, paths: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The share of paths against their length, one row for each network, with the mean and a range of lengths marked.

    `paths`, `summary`: of `analysis.tables.depth.path_length_frame` and `path_summary`.
    """
    longest = int(paths["length"].max())
    edges = np.arange(0, longest + 2 * BIN, BIN)
    low, high = summary["low"].iloc[0], summary["high"].iloc[0]
    ax.axvspan(low, high + 1, color=INK, alpha=0.12, lw=0)
    shares = {n: np.histogram(p["length"], edges, weights=p["share"])[0] for n, p in paths.groupby("network")}
    tallest = max(share.max() for share in shares.values())
    rights: list[int] = []
    for row, about in enumerate(summary.itertuples()):
        colour, _ = network_style(about.network)
        base = -float(row)
        tall = shares[about.network] / tallest * 0.8
        inside = np.flatnonzero(tall > 1e-3)
        ax.stairs(tall + base, edges, baseline=base, fill=True, color=colour, alpha=0.85, lw=0)
        ax.axhline(base, color=INK, lw=0.6, alpha=0.5)
        ax.plot([about.mean_length + 0.5] * 2, [base, base + 0.86], color=INK, lw=1.4)
        rights.append(int(edges[inside[-1] + 1]))
        words = f"mean {about.mean_length:.1f}; {percent(about.share_between)} between {low} and {high}"
        ax.text(rights[-1] + 2, base + 0.3, words)
    ax.set_yticks(-np.arange(len(summary)), [display_name(n) for n in summary["network"]], va="bottom")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, max(longest + BIN, max(rights) / 0.62))
    ax.set_ylim(1 - len(summary) - 0.05, 1)
    ax.set_xlabel(f"weighted layers on a path (share of all paths in steps of {BIN} layers)")
    return "The share of paths by the number of weighted layers on them. " + "; ".join(
        f"{display_name(about.network)}: {about.mean_length:.1f} on the mean path, {percent(about.share_between)} of "
        f"the paths have {low} to {high}"
        for about in summary.itertuples()
    )


# -- as text


RIVAL = "#17717A"  # of a ResNet that a network is compared with


@dataclass(frozen=True)
class Paths:
    """The path lengths of one network: number of weighted layers -> number of paths, exact."""

    name: str
    lengths: Mapping[int, int]

    def shares(self, step: int, steps: int) -> list[float]:
        total = sum(self.lengths.values())
        counts = [0] * steps
        for length, count in self.lengths.items():
            counts[length // step] += count
        return [count / total for count in counts]

    @property
    def mean(self) -> float:
        return sum(n * c for n, c in self.lengths.items()) / sum(self.lengths.values())


def path_sketch(networks: Sequence[Paths]) -> str:
    """The share of paths against their number of weighted layers, a row for each network with its mean; ours first."""
    longest = max(max(paths.lengths) for paths in networks)
    steps = longest // BIN + 1
    row, left, wide = 74.0, 0.0, svg.WIDTH / steps
    shares = [paths.shares(BIN, steps) for paths in networks]
    tallest = max(map(max, shares))
    parts, notes = [], []
    for k, (paths, of_network) in enumerate(zip(networks, shares, strict=True)):
        base = 22 + row * (k + 1) - 24
        fill = ROLES["mask"] if k == 0 else RIVAL
        for i, share in enumerate(of_network):
            if (tall := share / tallest * (row - 40)) > 0.2:
                parts.append(svg.rect(left + i * wide, base - tall, max(wide - 0.6, 0.4), tall, fill=fill))
        parts.append(svg.line([(0, base), (svg.WIDTH, base)], stroke_opacity=0.5, stroke_width=0.7))
        x = left + (paths.mean + 0.5) / BIN * wide
        parts.append(svg.line([(x, base), (x, base - row + 20)], stroke_width=1.6))
        words = f"{display_name(paths.name)}: mean {paths.mean:.1f}"
        right = x < svg.WIDTH * 0.6
        parts.append(
            svg.text(x + (6 if right else -6), base - row + 28, words, text_anchor="start" if right else "end")
        )
        notes.append(f"{display_name(paths.name)}: {paths.mean:.1f} layers on the mean path")
    base = 22 + row * len(networks) - 24
    every = next(n for n in (10, 20, 50, 100, 200, 500) if longest / n <= 10)
    parts += [
        svg.text(left + n / BIN * wide, base + 15, f"{n}", text_anchor="middle" if n else "start")
        for n in range(0, longest + 1, every)
    ]
    parts.append(
        svg.text(svg.WIDTH, base + 30, "weighted layers on a path; height: share of all paths", text_anchor="end")
    )
    return svg.drawing(base + 36, parts, f"Path lengths. {'; '.join(notes)}.")
