"""The conclusions that training runs allow: the one rule for every order of networks.

The comparison notebook, the report, the docs and the ledger's verdicts all use these functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from analysis.statistics.comparisons import Comparison, compare_networks
from analysis.statistics.intervals import StatsError, mean_interval
from analysis.tables import schemas
from analysis.tables.files import FrameError
from analysis.tables.formats import counted, display_name, listed, name_and_settings, signed
from analysis.tables.quantities import quantity
from resattn.training.config import DATASETS

COMPARED = ("test_error_pct", "images_per_s", "s_per_epoch", "peak_memory_bytes", "training_macs")
# Runs are compared where all else is equal; these each network may have of its own.
OWN = ("lr", "momentum", "weight_decay", "milestones", "decay")
BUDGET = tuple(column.name for column in schemas.BUDGET) + tuple(n for n in schemas.RECIPE if n not in OWN)
SHOWN_BUDGET = tuple(column.name for column in schemas.BUDGET)
PAIR_COLUMNS = ("network", "reference", *SHOWN_BUDGET, "seed", "difference")


def comparison_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, interval and range of each quantity over the runs of each network: `schemas.COMPARISON`.

    The interval is empty if there are too few runs. A quantity that no run recorded has no row.
    """
    rows = []
    for (network, dataset, noise), part in runs.groupby(["network", "dataset", "label_noise"], sort=False):
        for q in COMPARED:
            if part[q].isna().any():
                continue
            values = part[q].astype(float)
            found = mean_interval(list(values))
            rows.append(
                {
                    "network": network, "dataset": dataset, "label_noise": noise, "quantity": q, "n": found.n,
                    "mean": found.mean, "low": found.low, "high": found.high, "least": values.min(),
                    "largest": values.max(), "unit": quantity(q).unit,
                }
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"low": float, "high": float})


def pair_frame(runs: pd.DataFrame, reference: str = "") -> pd.DataFrame:
    """Columns `PAIR_COLUMNS`: by seed, the error of the reference minus that of a network.

    In percentage points, for every seed that both were trained with, at one budget. Without a reference each network is
    paired with its twin, the network that lacks some of its settings.
    Raises: FrameError if the reference has no run, or no network has a twin.
    """
    same = [*_budget_columns(runs), "seed"]
    parts = []
    for first, second in _pairs(runs, reference):
        ours, theirs = (runs[runs["network"] == name] for name in (first, second))
        pairs = theirs.merge(ours, on=same, suffixes=("", "_reference"))
        pairs["difference"] = pairs["test_error_pct_reference"] - pairs["test_error_pct"]
        parts.append(pairs.assign(reference=first)[list(PAIR_COLUMNS)])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(PAIR_COLUMNS))


def difference_frame(runs: pd.DataFrame, reference: str = "", margin: float = 1.0) -> pd.DataFrame:
    """Each network compared with the reference, or with its twin if there is no reference: `schemas.DIFFERENCES`.

    `margin`: of the equivalence, in percentage points. Model and conditions are those of
    `analysis.statistics.comparisons.compare_networks`, for all networks of one budget.
    Raises: FrameError if the reference has no run, no network has a twin, or a run occurs twice.
    """
    return _concluded(runs, _pairs(runs, reference), margin)


def headline(differences: pd.DataFrame) -> str:
    """The conclusions of `schemas.DIFFERENCES` in one or two sentences; empty without rows."""
    found = differences[differences["n"] > 0]
    if found.empty:
        return ""
    sentences: list[str] = []
    for (reference, noise), part in found.groupby(["reference", "label_noise"], sort=False):
        first, rows = f"{display_name(str(reference))}{_noise_words(float(noise))}", list(part.itertuples())
        ordered = [row for row in rows if isinstance(row.order, str) and row.order]
        judged = [row for row in rows if pd.notna(row.low)]
        sentences += [
            f"The test error of {first} is {abs(row.mean):.2g} points {row.order} than that of {_second([row])}."
            for row in ordered
        ]
        if none := [row for row in judged if row not in ordered]:
            sentences.append(f"No difference in test error is shown between {first} and {_second(none)}.")
        if open_ := [row for row in rows if row not in judged and row not in ordered]:
            sentences.append(f"No order of {first} and {_second(open_)} is claimed.")
        within = [re.match(r"Equivalent within (\S+) ", str(row.equivalence)) for row in rows]
        if equal := [row for row, met in zip(rows, within, strict=True) if met]:
            margin = next(met[1] for met in within if met)
            verb = "is" if len(equal) == 1 else "are"
            sentences.append(f"{_second(equal, 'and')} {verb} equivalent to {first} within {margin} points.")
    return " ".join(sentences)


def _second(rows: Sequence[Any], word: str = "or") -> str:
    return listed((display_name(row.network) for row in rows), word)


def _noise_words(label_noise: float) -> str:
    return f" with {100 * label_noise:.0f} % label noise" if label_noise else ""


def every_order(runs: pd.DataFrame) -> pd.DataFrame:
    """`difference_frame` for every pair of networks, each pair once, for the ledger."""
    return _concluded(runs, combinations(runs["network"].unique(), 2), 1.0)


def chance_pct(dataset: str) -> float | None:
    """The error at chance level for the label of a dataset, in percent; None for an unknown one."""
    key = dataset.partition(" (")[0].replace("-", "").lower()
    found = next((size for name, size in DATASETS.items() if name.replace("-", "") == key), None)
    return 100 * (1 - 1 / found.classes) if found else None


def _concluded(runs: pd.DataFrame, pairs: Iterable[tuple[str, str]], margin: float) -> pd.DataFrame:
    pairs, rows = list(pairs), []
    for _, part in runs.groupby(_budget_columns(runs), sort=False, dropna=False):
        errors = _errors(part)
        about = part.iloc[0][list(SHOWN_BUDGET)].to_dict()
        for first in dict.fromkeys(first for first, second in pairs if {first, second} <= set(errors)):
            try:
                found = compare_networks(errors, first, chance=chance_pct(about["dataset"]))
            except StatsError as error:
                raise FrameError(f"test_error_pct of {about['dataset']}: {error}") from error
            rows += [
                {
                    "network": c.network, "reference": first, **about, "n": c.n, "mean": c.mean, "low": c.low,
                    "high": c.high, "p_value": c.p_value, "unit": "percentage points", "order": c.order,
                    "conclusion": _sentence(c, about["label_noise"]), "scope": _scope(c, about),
                    "equivalence": c.equivalence(margin),
                }
                for c in found
                if (first, c.network) in pairs
            ]  # fmt: skip
    compared = {(row["reference"], row["network"]) for row in rows}
    rows += [
        {
            "network": second, "reference": first,
            **runs.loc[runs["network"] == first, list(SHOWN_BUDGET)].iloc[0].to_dict(),
            "n": 0, "unit": "percentage points", "order": "",
            "conclusion": f"{display_name(first)} and {display_name(second)} are not compared: no runs of both with "
            "the same data and budget.", "scope": "No model.", "equivalence": "Equivalence is not judged.",
        }
        for first, second in pairs if (first, second) not in compared
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.DIFFERENCES.names).astype(
        {"low": float, "high": float, "p_value": float, "mean": float}
    )


def _errors(part: pd.DataFrame) -> dict[str, dict[int, float]]:
    twice = part[part.duplicated(["network", "seed"])]
    if not twice.empty:
        row = twice.iloc[0]
        raise FrameError(f"two runs of {row['network']} with seed {row['seed']} and one budget: which one is compared?")
    return {
        str(name): dict(zip(own["seed"], own["test_error_pct"], strict=True))
        for name, own in part.groupby("network", sort=False)
    }


def _budget_columns(runs: pd.DataFrame) -> list[str]:
    return [column for column in BUDGET if column in runs]


def _pairs(runs: pd.DataFrame, reference: str) -> list[tuple[str, str]]:
    """Reference and network of every comparison."""
    networks = list(runs["network"].unique())
    if not reference:
        pairs = [(twin, name) for name in networks if (twin := _twin(name, networks))]
        if not pairs:
            raise FrameError(f"no network has a twin without its settings (there are runs of: {', '.join(networks)})")
        return pairs
    if reference not in networks:
        raise FrameError(f"no run of {reference!r} (there are runs of: {', '.join(networks)})")
    return [(reference, name) for name in networks if name != reference]


def _twin(network: str, networks: Iterable[str]) -> str | None:
    """Of the networks of the same name the one with the most of its settings, and no other."""
    name, own = name_and_settings(network)
    others = ((other, *name_and_settings(other)) for other in networks)
    twins = [(len(theirs), other) for other, base, theirs in others if base == name and theirs < own]
    return max(twins)[1] if twins else None


# -- in words


def _sentence(c: Comparison, label_noise: float) -> str:
    first, second = display_name(c.reference), display_name(c.network)
    noise = _noise_words(label_noise)
    if c.n < c.least:  # the same sentence for every pair
        return f"No order{noise} is claimed: {c.note}."
    if c.note:
        return f"No order of {first} and {second}{noise} is claimed: {c.note}."
    found = f"95 % simultaneous interval {c.low:+.2f} to {c.high:+.2f}, adjusted p = {c.p_value:.2g}"
    if c.order:
        return (
            f"{first}'s test error{noise} is {abs(c.mean):.2g} points {c.order} than {second}'s: "
            f"{first} - {second} = {signed(c.mean)} points ({found})."
        )
    return (
        f"No difference{noise} between {first} and {second} is shown: "
        f"{first} - {second} = {signed(c.mean)} points ({found})."
    )


def _scope(c: Comparison, about: dict[str, Any]) -> str:
    left = f" (left out, as not every network has them: {', '.join(map(str, c.left_out))})" if c.left_out else ""
    return (
        f"Model: test error ~ network + seed, {c.n_comparisons + 1} networks, {counted(c.n, 'seed')}{left}, corrected "
        f"for {counted(c.n_comparisons, 'comparison')}. It holds for training {counted(about['epochs'], 'epoch')} on "
        f"the first {about['images']:,} images of {about['dataset']}. All runs share the "
        "test images, whose sampling is not part of the intervals."
    )
