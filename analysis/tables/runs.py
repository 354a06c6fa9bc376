"""Training runs as tables: the table of each run, and all runs below a folder.

A folder holds runs of notebook 50, or kept runs (`resattn.training.kept`), which may come from another machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.tables import schemas, steps
from analysis.tables.files import FrameError, TableError, read_table
from analysis.tables.provenance import about
from analysis.tables.quantities import DEPTHS
from analysis.tables.schemas import Schema
from resattn.measures.audit import audit
from resattn.training.config import FIELDS
from resattn.training.kept import KeptRunError, read_all
from resattn.training.record import RUN

if TYPE_CHECKING:
    from resattn.training.run import Run


def about_run(run: Run) -> dict[str, Any]:
    """The provenance of a run's tables: its network, data, seed and weights, and its machine."""
    return about(
        [], network=run.config.spec.name, spec_digest=run.config.spec.digest, config_digest=run.config.digest,
        dataset=run.dataset_label, dataset_digest=run.dataset_digest, seed=run.config.seed,
        weights_digest=run.weights_digest, execution=run.execution,
    )  # fmt: skip


def run_row(run: Run) -> pd.DataFrame:
    """One row: network and data of the run, its result, and counts of the network: `schemas.RUN`."""
    quantities = audit(run.config.spec).quantities
    config = run.config
    row = {
        "network": config.spec.name, "dataset": run.dataset_label, "seed": config.seed, "epochs": config.epochs,
        "images": config.images or config.size.train, "label_noise": config.label_noise,
        "test_error_pct": run.test_error_pct, "train_error_pct": run.rows[-1]["train_error_pct"],
        "images_per_s": run.images_per_s, "elapsed_s": run.elapsed_s,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in run.timing),
        **{q: quantities[q] for q in ("params", "macs", *DEPTHS)},
        "batch_size": config.batch_size, "precision": config.precision, "device": run.execution["device"],
        "weights_digest": run.weights_digest,
    }  # fmt: skip
    return pd.DataFrame([row])


def epoch_rows(run: Run) -> pd.DataFrame:
    """The record of each epoch of a run, with times: `schemas.EPOCHS`."""
    frame = pd.DataFrame(run.rows).merge(pd.DataFrame(run.timing), on="epoch")
    config = run.config
    first = {
        "network": config.spec.name, "dataset": run.dataset_label, "seed": config.seed,
        "label_noise": config.label_noise,
    }  # fmt: skip
    return frame.assign(**first)[[*first, *frame.columns]]


def run_frame(folder: Path | str) -> pd.DataFrame:
    """Every run below a folder, sorted by noise, network and seed: `schemas.RUNS`.

    Columns of the recipe come from the record beside each table; those of a kept run all come from its record.
    Raises: FrameError if there is none; TableError for a table that does not fit its schema, or a damaged record.
    """
    runs = _concatenated(Path(folder), schemas.RUN, run_row)
    images = runs["images"] // runs["batch_size"] * runs["batch_size"]  # an incomplete batch is left out
    runs = runs.assign(
        s_per_epoch=runs["elapsed_s"] / runs["epochs"], training_macs=3 * runs["macs"] * images * runs["epochs"]
    )
    runs = runs[[*schemas.RUNS.names, *(name for name in runs if name not in schemas.RUNS.names)]]
    return runs.sort_values(["label_noise", "network", "seed"], ignore_index=True, kind="stable")


def epoch_frame(folder: Path | str) -> pd.DataFrame:
    """Every epoch of every run below a folder: `schemas.EPOCHS`. Raises: FrameError, TableError."""
    return _concatenated(Path(folder), schemas.EPOCHS, epoch_rows)


def recipe_value(value: Any) -> Any:
    """A field of a run's config as a table has it."""
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value


def _with_recipe(record: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """With the columns of `schemas.RECIPE`, empty where the run has no record."""
    try:
        config = json.loads(record.read_text(encoding="utf-8"))["config"] if record.is_file() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(record, f"no record of a run ({error!r})", "the run.json that training writes") from error
    # A field that the record of an earlier version lacks had its default.
    defaults = {name: FIELDS[name].default for name in schemas.RECIPE} if config else {}
    values = {n: recipe_value(config.get(n, defaults.get(n))) for n in schemas.RECIPE if n not in frame}
    return frame.assign(**{name: pd.Series([value] * len(frame), dtype=object) for name, value in values.items()})


def _concatenated(folder: Path, schema: Schema, of_run: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
    paths = {path: path.parents[1] / "run" / RUN for path in sorted(folder.glob(f"*/tables/{schema.file}"))}
    frames = {record: read_table(path, schema) for path, record in paths.items()}
    frames |= {record: of_run(run) for record, run in _kept(folder)}
    if not frames:
        raise FrameError(
            f"no run in {folder}: no */tables/{schema.file} (run {steps.TRAIN} with an out_dir below it), no kept run"
        )
    for path, frame in zip(paths, frames.values(), strict=False):
        if frame.empty:
            raise TableError(path, "no rows", "at least one")
    if schema == schemas.RUN:
        frames = {record: _with_recipe(record, frame) for record, frame in frames.items()}
    return pd.concat(frames.values(), ignore_index=True)


def _kept(folder: Path) -> list[tuple[Path, Run]]:
    """Kept runs with their records. Of runs that shared a device, the time is each one's share of it."""
    try:
        found = [(kept.folder / RUN, kept.run, kept.about.get("side_by_side", 1)) for kept in read_all(folder)]
    except KeptRunError as error:
        raise FrameError(str(error)) from error
    return [(record, _shared(run, n)) for record, run, n in found if run is not None]


def _shared(run: Run, side_by_side: int) -> Run:
    shares = {"train_s": 1 / side_by_side, "elapsed_s": 1 / side_by_side, "images_per_s": side_by_side}
    return replace(run, timing=tuple({k: v * shares.get(k, 1) for k, v in row.items()} for row in run.timing))


def budget(runs: pd.DataFrame) -> str:
    """Data, epochs, images and seeds of the runs, for the title of a figure."""
    parts = [", ".join(runs["dataset"].unique())]
    for column, words in (("epochs", "{} epochs"), ("images", "{} training images")):
        values = sorted(runs[column].unique())
        parts.append(words.format(" or ".join(f"{v:,}" for v in values)))
    if runs["label_noise"].any():
        parts.append(" or ".join(f"{100 * v:.0f} %" for v in sorted(runs["label_noise"].unique())) + " label noise")
    fewest = int(runs.groupby("network")["seed"].nunique().min())
    return ", ".join(parts) + f"; {fewest} seed{'s' if fewest > 1 else ''} of each network"
