"""What a comparison of trained networks shows: which sizes differ, what it cost, and what print says beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.ledger import ledger
from analysis.claims.trained import measured_runs, subject_of
from analysis.statistics.stats import compare, mean_interval
from analysis.tables import schemas
from analysis.tables.files import FrameError, read_table
from analysis.tables.formats import display_name, name_and_settings
from analysis.tables.quantities import quantity
from analysis.tables.runs import run_frame
from resattn.claims.measured import spec_of

COMPARED = ("test_error_pct", "images_per_s", "s_per_epoch", "peak_memory_bytes", "training_macs")
# What the error may be drawn against; time always differs.
SIZES = ("trunk_depth", "longest_path", "weighted_layers", "params", "macs")
PER_ROW = 3


def comparison_frame(runs: pd.DataFrame, quantities: Sequence[str] = COMPARED) -> pd.DataFrame:
    """Mean, interval and range of each quantity over the runs of each network: `schemas.COMPARISON`.

    The interval is empty where the runs allow none. A quantity that the runs did not record has no row.
    """
    rows = []
    for (network, dataset, noise), part in runs.groupby(["network", "dataset", "label_noise"], sort=False):
        for q in quantities:
            if part[q].isna().any():
                continue
            values = part[q].astype(float)
            interval = mean_interval(list(values))
            rows.append(
                {
                    "network": network, "dataset": dataset, "label_noise": noise, "quantity": q, "n": interval.n,
                    "mean": interval.mean, "low": interval.low, "high": interval.high, "least": values.min(),
                    "largest": values.max(), "unit": quantity(q).unit,
                }
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"low": float, "high": float})


def pair_frame(runs: pd.DataFrame, reference: str = "") -> pd.DataFrame:
    """Columns network, reference, label_noise, seed, difference: error of the reference minus that of a network.

    In points of %; of every seed that both were trained with, on the same data with the same noise and budget.
    Without a reference each network is paired with its twin: the one that lacks some of its settings.
    Raises: FrameError where the reference has no run, or no network a twin.
    """
    if not reference:
        networks = list(runs["network"].unique())
        twins = {name: twin for name in networks if (twin := _twin(name, networks))}
        if not twins:
            raise FrameError(f"no network has a twin without its settings (there are runs of: {', '.join(networks)})")
        parts = (pair_frame(runs[runs["network"].isin([name, twin])], twin) for name, twin in twins.items())
        return pd.concat(parts, ignore_index=True)
    if reference not in set(runs["network"]):
        raise FrameError(f"no run of {reference!r} (there are runs of: {', '.join(runs['network'].unique())})")
    same = ["dataset", "epochs", "images", "label_noise", "seed"]
    ours = runs[runs["network"] == reference]
    pairs = runs[runs["network"] != reference].merge(ours, on=same, suffixes=("", "_reference"))
    pairs["difference"] = pairs["test_error_pct_reference"] - pairs["test_error_pct"]
    return pairs.assign(reference=reference)[["network", "reference", "label_noise", "seed", "difference"]]


def _twin(network: str, networks: Iterable[str]) -> str | None:
    """Of the networks of the same name the one with the most of its settings, and no other."""
    name, own = name_and_settings(network)
    others = ((other, *name_and_settings(other)) for other in networks)
    twins = [(len(theirs), other) for other, base, theirs in others if base == name and theirs < own]
    return max(twins)[1] if twins else None


def difference_frame(pairs: pd.DataFrame, margin: float = 1.0) -> pd.DataFrame:
    """The pairs of each network summed up: `schemas.DIFFERENCES`. Negative: the reference has the lower error.

    Interval and test are those of `analysis.statistics.stats.compare`. `margin`: of the equivalence, in points of %.
    """
    rows = []
    for (network, reference, noise), part in pairs.groupby(["network", "reference", "label_noise"], sort=False):
        compared = compare(dict(zip(part["seed"], part["difference"], strict=True)), dict.fromkeys(part["seed"], 0.0))
        rows.append(
            {
                "network": network, "reference": reference, "label_noise": noise, "n": compared.interval.n,
                "mean": compared.interval.mean, "low": compared.interval.low, "high": compared.interval.high,
                "p_value": compared.p_value, "unit": "points of %",
                "note": " ".join(filter(None, [compared.note, compared.interval.note])),
                "equivalence": compared.equivalence(margin),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.DIFFERENCES.names).astype({"low": float, "high": float, "p_value": float})


def differing_sizes(runs: pd.DataFrame, sizes: Sequence[str] = SIZES) -> list[str]:
    """Those of the sizes in which the networks of some runs differ, and the time of a run."""
    return [size for size in sizes if runs.groupby("network")[size].first().nunique() > 1] + ["elapsed_s"]


def panel_rows(sizes: Sequence[str]) -> int:
    """Rows of panels, of so many at most, that hold one panel for each size."""
    return -(-len(sizes) // PER_ROW)


def file_name(stem: str, noise: float) -> str:
    """The file of a figure: of the runs without label noise, or with so much."""
    return f"{stem}_noise{100 * noise:.0f}.svg" if noise else f"{stem}.svg"


def noise_levels(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs, if they differ in label noise; else nothing to draw by it."""
    return [runs] if runs["label_noise"].nunique() > 1 else []


def side_by_side(comparison: pd.DataFrame) -> pd.DataFrame:
    """One row for each network (and noise), one column for each quantity: the mean, and for the error its interval.

    `comparison`: of `comparison_frame`.
    """
    rows = []
    for (network, noise), part in comparison.groupby(["network", "label_noise"], sort=False):
        by = {str(row["quantity"]): row for row in part.to_dict("records")}
        error = by["test_error_pct"]
        row = {"Network": display_name(str(network)), "Label noise (%)": 100 * float(noise), "Runs": error["n"]}
        row |= {_label(q): by[q]["mean"] / _per(q) for q in COMPARED if q in by}
        has = pd.notna(error["low"])
        row["95 % interval (BCa)"] = f"{error['low']:.2f} to {error['high']:.2f}" if has else "none"
        rows.append(row)
    return pd.DataFrame(rows)


SCALES = {"peak_memory_bytes": (2**20, "MiB"), "training_macs": (10**12, "T multiply-adds")}


def _per(id: str) -> float:
    return SCALES.get(id, (1, ""))[0]


def _label(id: str) -> str:
    q = quantity(id)
    return f"{q.label} ({SCALES[id][1] if id in SCALES else q.unit})"


def cost_words(runs: pd.DataFrame) -> str:
    """What all runs computed, and how long it took, in a sentence."""
    macs, elapsed_s = float(runs["training_macs"].sum()), float(runs["elapsed_s"].sum())
    return (
        f"{len(runs)} runs computed {macs / 1e12:,.3g} T multiply-adds in their training steps, "
        f"and took {elapsed_s / 60:,.3g} minutes of their processes, evaluation included."
    )


def printed_responses(networks: Iterable[str], *, figure: str = "wang2017 Figure 4") -> dict[str, list[float]]:
    """Network -> its mean absolute responses by stage over that of stage 1, as read off the paper's figure 4."""
    claims = [c for c in ledger() if c.quantity == "stage_response" and figure in c.place]
    responses: dict[str, list[float]] = {}
    for network in networks:
        spec = spec_of(subject_of(network))
        of_network = [c for c in claims if spec_of(c.subjects[0]) == spec]
        if of_network:
            by_stage = sorted((c.subjects[0].part, float(c.number)) for c in of_network)
            responses[network] = [1.0, *(value for _, value in by_stage)]  # stage 1 is what they are relative to
    return responses


def measured_in(runs_dir: str, masks_dir: str = "", responses_dir: str = "") -> pd.DataFrame:
    """What a study's tables say of the claims about training, by its folders of runs, masks and responses; "": none.

    Raises: FrameError, TableError.
    """
    return measured_runs(
        run_frame(runs_dir) if runs_dir else None,
        read_table(Path(masks_dir, "tables", schemas.MASKS.file), schemas.MASKS) if masks_dir else None,
        read_table(Path(responses_dir, "tables", schemas.RESPONSES.file), schemas.RESPONSES) if responses_dir else None,
    )
