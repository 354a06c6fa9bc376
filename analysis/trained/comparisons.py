"""Comparisons of trained networks: the sizes that differ, their cost, and printed results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.ledger import ledger
from analysis.claims.trained import measured_background, measured_depth, measured_runs, subject_of
from analysis.experiment.protocol import EXTRA, TRAINED
from analysis.statistics.conclusions import COMPARED, every_order
from analysis.tables import schemas
from analysis.tables.files import read_table
from analysis.tables.formats import display_name, duration, short
from analysis.tables.quantities import quantity
from analysis.tables.runs import run_frame
from analysis.tables.schemas import Schema
from resattn.claims.measured import spec_of

# What the error may be drawn against; time always differs.
SIZES = ("trunk_depth", "longest_path", "weighted_layers", "params", "macs")
PER_ROW = 3


def differing_sizes(runs: pd.DataFrame) -> list[str]:
    """The sizes in which the networks of some runs differ, and the time of a run.

    Runs that shared a device have equal times, which are left out.
    """
    is_shared = runs["network"].nunique() > 1 and runs.groupby("seed")["elapsed_s"].nunique().max() == 1
    differing = [size for size in SIZES if runs.groupby("network")[size].first().nunique() > 1]
    return differing + ["elapsed_s"] * (not is_shared)


def panel_rows(sizes: Sequence[str]) -> int:
    """The number of rows of panels, with one panel for each size."""
    return -(-len(sizes) // PER_ROW)


def file_name(stem: str, noise: float) -> str:
    """The file name of a figure of the runs with this label noise."""
    return f"{stem}_noise{100 * noise:.0f}.svg" if noise else f"{stem}.svg"


def noise_levels(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs if they differ in label noise, else nothing."""
    return [runs] if runs["label_noise"].nunique() > 1 else []


def side_by_side(comparison: pd.DataFrame) -> pd.DataFrame:
    """One row for each network (and noise), one column for each quantity: its mean, and for the error its interval.

    `comparison`: of `analysis.statistics.conclusions.comparison_frame`.
    """
    rows = []
    for (network, noise), part in comparison.groupby(["network", "label_noise"], sort=False):
        by = {str(row["quantity"]): row for row in part.to_dict("records")}
        error = by["test_error_pct"]
        row = {"Network": display_name(str(network)), "Label noise (%)": 100 * float(noise), "Runs": error["n"]}
        row |= {_label(q): by[q]["mean"] / SCALES.get(q, (1, ""))[0] for q in COMPARED if q in by}
        has = pd.notna(error["low"])
        row["95 % interval"] = f"{error['low']:.2f} to {error['high']:.2f}" if has else "\N{EN DASH}"
        rows.append(row)
    return pd.DataFrame(rows)


SCALES = {"peak_memory_bytes": (2**20, "MiB"), "training_macs": (10**12, "T multiply-adds")}


def _label(id: str) -> str:
    q = quantity(id)
    return f"{q.label} ({SCALES[id][1] if id in SCALES else q.unit})"


def cost_words(runs: pd.DataFrame) -> str:
    """The cost of all runs and the time that they took, in a sentence."""
    macs, elapsed_s = float(runs["training_macs"].sum()), float(runs["elapsed_s"].sum())
    return (
        f"The training steps of all {len(runs)} runs computed {short(macs)} multiply-adds; the runs took "
        f"{duration(elapsed_s)}, evaluation included."
    )


def printed_responses(networks: Iterable[str]) -> dict[str, list[float]]:
    """Network -> mean absolute responses by stage relative to stage 1, read off the paper's figure 4."""
    claims = [c for c in ledger() if (c.quantity, c.source) == ("stage_response", "wang2017") and "Figure 4" in c.place]
    responses: dict[str, list[float]] = {}
    for network in networks:
        spec = spec_of(subject_of(network))
        of_network = [c for c in claims if spec_of(c.subjects[0]) == spec]
        if of_network:
            by_stage = sorted((c.subjects[0].part, float(c.number)) for c in of_network)
            responses[network] = [1.0, *(value for _, value in by_stage)]  # stage 1 is what they are relative to
    return responses


def measured_in(
    runs_dir: str = "", masks_dirs: Sequence[str] = (), responses_dir: str = "", kept_dir: str = ""
) -> pd.DataFrame:
    """A study's measurements for claims about training, from its folders of runs, masks and responses ("": none).

    `kept_dir`: the folder of runs beside the protocol, with the tables of their trained weights.
    Raises: FrameError, TableError.
    """
    responses = _table(responses_dir, schemas.RESPONSES) if responses_dir else None
    parts = [measured_runs(run_frame(runs_dir) if runs_dir else None, responses)]
    if folders := [folder for folder in masks_dirs if folder]:
        tables = [[_table(folder, s) for folder in folders] for s in (schemas.INTERVENTIONS, schemas.MASKS)]
        parts.append(measured_background(*(pd.concat(frames, ignore_index=True) for frames in tables)))
    if kept_dir and (used := Path(kept_dir, TRAINED, EXTRA, schemas.USED.file)).is_file():
        parts.append(measured_depth(run_frame(Path(kept_dir, EXTRA)), read_table(used, schemas.USED)))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _table(folder: str, schema: Schema) -> pd.DataFrame:
    return read_table(Path(folder, "tables") / schema.file, schema)


def orders_in(runs_dir: str, kept_dir: str = "") -> pd.DataFrame:
    """Every pair of networks compared, for the runs of a study and for those beside the protocol: `schemas.ORDERS`.

    Runs of the two are never compared with each other. Raises: FrameError, TableError.
    """
    folders = [runs_dir] * bool(runs_dir) + [str(Path(kept_dir, EXTRA))] * bool(kept_dir)
    found = [every_order(run_frame(folder)) for folder in folders]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=schemas.ORDERS.names)
