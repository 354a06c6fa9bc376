"""Sentences of a notebook whose numbers depend on its parameters.

Each function takes frames of `analysis.tables` or `analysis.trained` and returns Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.tables.formats import counted, display_name, listed, name_and_settings
from resattn.networks.catalog import named


def depths(frame: pd.DataFrame) -> str:
    """How much longer than its trunk the longest path of each network is. `frame`: of `depth_frame`."""
    wide = frame.pivot(index="network", columns="quantity", values="value").loc[frame["network"].unique()]
    deeper = wide[wide["longest_path"] > wide["trunk_depth"]]
    plain = [display_name(str(name)) for name in wide.index if name not in deeper.index]
    sentences = []
    if plain:
        sentences.append(f"The longest path of {listed(plain)} is the trunk.")
    for network, row in deeper.iterrows():
        more, times = 100 * (row["longest_path"] / row["trunk_depth"] - 1), row["weighted_layers"] / row["trunk_depth"]
        sentences.append(
            f"The longest path of {display_name(str(network))} passes through the masks and is {more:.0f} % longer "
            f"than its trunk; the network has {times:.1f} times as many weighted layers as its trunk."
        )
    return " ".join(sentences)


def modules(frame: pd.DataFrame) -> str:
    """The depth of the modules of each network, beside the article's numbers. `frame`: of `module_frame`."""
    sentences = ["A mask with more poolings is deeper."]
    for network, part in frame.groupby("network", sort=False):
        deep, given = list(part["longest_path"]), part["stated"].iloc[0]
        met = sum(n == given for n in deep)
        share = "each of them" if met == len(deep) else f"{met or 'none'} of the {len(deep)}"
        sentences.append(
            f"The modules of {display_name(str(network))} are {listed(deep)} layers deep; the article's {given} is "
            f"correct for {share}."
        )
    return " ".join(sentences)


def article(frame: pd.DataFrame, *, is_short: bool = False) -> str:
    """Where the article's arithmetic agrees with the counts, in the sum and in its parts.

    `frame`: of `article_steps`. `is_short`: only the number of parts that agree.
    """
    sentences = []
    for network, part in frame.groupby("network", sort=False):
        *steps, total = part.to_dict("records")
        wrong = [f"{row['step']} is {row['counted']}, not {row['stated']}" for row in steps if not row["holds"]]
        if total["holds"]:
            end = f"The sum for {display_name(str(network))} is correct"
            few = f"{len(wrong)} of its {len(steps)} terms are wrong"
            which = few if is_short else f"{few}: {listed(wrong)}"
            sentences.append(f"{end}, but {which}." if wrong else f"{end}.")
        else:
            sentences.append(
                f"For {display_name(str(network))} the same rule gives {total['stated']}, "
                f"and {total['counted']} are counted."
            )
    return " ".join(sentences)


def ratios(frame: pd.DataFrame, shorter: str, longer: str) -> str:
    """The depth of one network relative to another, by notion. `frame`: of `depth_ratios`."""
    shares = {row.quantity: (row.share, row.share_of_name) for row in frame.itertuples()}
    trunk, path, layers = (shares[q] for q in ("trunk_depth", "longest_path", "weighted_layers"))
    other = f", or {layers[1]:.0%} of the number in its name" if round(layers[0], 2) != round(layers[1], 2) else ""
    return (
        f"{display_name(shorter)} has {trunk[0]:.0%} of the trunk depth of {display_name(longer)}. The trunk is only a "
        f"part of it: by the longest path the share is {path[0]:.0%}, and by weighted layers {layers[0]:.0%}{other}."
    ).replace("%", " %")


def interventions(means: pd.DataFrame, filtering: Iterable[Any] = ()) -> str:
    """The effect of replaced masks on the test error of each network, and the result of the rule for article.6.

    `means`: of `intervention_summary`; `filtering`: of `analysis.claims.background.filtering`.
    """
    sentences = []
    whole = means[(means["module"] == "all") & (means["norms"] == "as they are")]
    for network in simplest_first(whole["network"]):
        by = whole[whole["network"] == network].set_index("intervention")
        n = int(by["n"].iloc[0])
        changes = [
            f"{by.loc[kind, 'mean']:+.1f} with {words}" + (f" ({_range(by.loc[kind])})" if n > 1 else "")
            for kind, words in INTERVENED.items()
            if kind in by.index
        ]
        ends = f" (in parentheses {'95 % intervals' if by['low'].notna().any() else TOO_FEW})" if n > 1 else ""
        sentences.append(
            f"{display_name(str(network))}, test error {by.loc['none', 'test_error_pct']:.1f} %, "
            f"{counted(n, 'seed')}: the error changes by {', '.join(changes)}, in percentage points{ends}."
        )
    sentences += [f"Article, claim 6, {display_name(found.network)}: {found.why}." for found in filtering]
    return " ".join(sentences)


def simplest_first(networks: Iterable[str]) -> list[str]:
    """Each network once, by increasing number of settings that differ from the catalog."""
    return sorted(dict.fromkeys(map(str, networks)), key=lambda name: len(name_and_settings(name)[1]))


def mask_findings(means: pd.DataFrame, on: str) -> tuple[str, ...]:
    """A sentence for each network, the simplest first: the test error with the masks of other images.

    `means`: of `intervention_summary`; `on`: the data, and the budget where it matters.
    """
    sentences = []
    whole = means[(means["module"] == "all") & (means["norms"] == "as they are")].set_index(["network", "intervention"])
    for network in simplest_first(whole.index.get_level_values("network")):
        before, other = whole.loc[(network, "none")], whole.loc[(network, "another image's")]
        n, name = int(other["n"]), display_name(str(network))
        if pd.notna(other["low"]):
            is_needed = other["low"] > 0
            scope = f"95 % interval of the change {_range(other)} points, {n} seeds"
            word = "the network needs the masks of the image itself" if is_needed else "no effect is shown"
        else:
            scope = f"change in each seed {_range(other)} points, {n} seeds" if n > 1 else "1 seed"
            word = "too few seeds to conclude"
        sentences.append(
            f"On {on}, with the masks of other images, the test error of {name} is {other['test_error_pct']:.1f} % "
            f"instead of {before['test_error_pct']:.1f} % ({scope}): {word}."
        )
    return tuple(sentences)


def outline(areas: Mapping[str, float], on: str) -> str:
    """Whether the masks of the simplest network are higher on the object or beside it; empty without any.

    `areas`: network -> mean area under the ROC curve of its trained masks.
    """
    for network in simplest_first(areas)[:1]:
        side = "lower" if areas[network] < 0.5 else "higher"
        return (
            f"On {on}, averaged over channels, the masks are {side} on the object than on the background "
            f"(AUC {areas[network]:.2f})."
        )
    return ""


TOO_FEW = "the range over the seeds, which are too few for intervals"
INTERVENED = {
    "another image's": "the masks of another image",
    "mean over images": "the mean mask of all images",
    "mean over positions": "masks averaged over positions",
    "inverse about the mean": "masks inverted about their mean",
    "off": "the masks off",
}


def _range(row: Any) -> str:
    if pd.notna(row["low"]):
        return f"{row['low']:+.1f} to {row['high']:+.1f}"
    return f"{row['least']:+.1f} to {row['largest']:+.1f}"


@dataclass(frozen=True)
class Spread:
    """The distribution of the gradient's energy over weighted layers: its mean, and the range with 90 % of it."""

    longest: int
    mean: float
    low: int
    high: int
    mean_of_paths: float

    @staticmethod
    def of(rows: pd.DataFrame) -> Spread:
        """`rows`: of `schemas.USED_UNTRAINED`, of one network."""
        share, paths = rows.set_index("length")["share"], rows.set_index("length")["share_of_paths"]
        below = share.cumsum()
        low, high = (int(below.index[below >= edge][0]) for edge in (0.05, 0.95))
        return Spread(
            int(share.index.max()), float((share * share.index).sum()), low, high, float((paths * paths.index).sum())
        )


def used_depth(frame: pd.DataFrame) -> str:
    """For each network the number in its name, its longest path, and how many layers the gradient passes.

    `frame`: of `used_depth_frame`.
    """
    sentences = []
    for network, part in frame.groupby("network", sort=False):
        found = Spread.of(part)
        sentences.append(
            f"{display_name(str(network))} is named {named(str(network)).claimed_depth}; its longest path has "
            f"{found.longest} weighted layers, its mean path {found.mean_of_paths:.1f}. With random weights the "
            f"gradient passes {found.mean:.1f} on average; 90 % of its energy passes {found.low} to {found.high}."
        )
    return " ".join(sentences)


def path_lengths(frame: pd.DataFrame, summary: pd.DataFrame, network: str, short: str) -> str:
    """The network whose paths are as long as those of `network`, and the share of short paths of another.

    `frame`, `summary`: of `path_length_frame` and `path_summary`. `short`: the network whose short paths are also
    counted without its first and last layer, as veit2016 counts.
    """
    means = dict(zip(summary["network"], summary["mean_length"], strict=True))
    sentences = []
    if network in means and len(means) > 1:
        nearest = min((n for n in means if n != network), key=lambda n: abs(means[n] - means[network]))
        sentences.append(
            f"The mean path of {display_name(network)} has {means[network]:.1f} layers; nearest to that is "
            f"{display_name(nearest)} with {means[nearest]:.1f}."
        )
    if short in means:
        low, high = int(summary["low"].iloc[0]), int(summary["high"].iloc[0])
        part = frame[frame["network"] == short]
        counts = dict(zip(part["length"], part["n_paths"], strict=True))
        inner = sum(n for length, n in counts.items() if low <= length - 2 <= high) / sum(counts.values())
        sentences.append(
            f"Veit et al. measured most of the gradient of such a network on paths of {low} to {high} layers, not "
            f"counting the first and the last; {100 * inner:.2g} % of the paths of {display_name(short)} are that "
            f"short."
        )
    return " ".join(sentences)
