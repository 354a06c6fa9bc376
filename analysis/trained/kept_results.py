"""Kept results for a notebook that finds no training runs; it then says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown, display

from analysis.tables.files import INTERACTIVE, read_table
from analysis.tables.provenance import ROOT, about
from analysis.tables.schemas import Schema
from analysis.trained.mask_maps import Trained, runs_below
from resattn.training.run import read_runs

KEPT = ROOT / "results" / "reference"


def is_default_without_runs(runs_dir: str) -> bool:
    """Whether `runs_dir` is the notebook's default and holds no runs. Kept results never replace a folder that the
    caller named."""
    return runs_dir.startswith(INTERACTIVE) and not read_runs(runs_dir)


def folder(runs_dir: str, step: str, kept: Path = KEPT) -> str:
    """The folder; if it is the default and holds no runs, that of a step of the kept study, and a line says so."""
    if not is_default_without_runs(runs_dir):
        return runs_dir
    _say(runs_dir, kept / step)
    return str(kept / step)


def runs(runs_dir: str, step: str, kept: Path = KEPT, **options: Any) -> list[Trained]:
    """The trained runs below a folder; none if it is the default and holds none: `table` then reads kept results.

    Raises: FrameError, AttendingError if a folder named by the caller has none.
    """
    if not is_default_without_runs(runs_dir):
        return list(runs_below(runs_dir, **options))
    _say(runs_dir, kept / step)
    return []


def table(schema: Schema, made: Callable[..., pd.DataFrame], of: list[Trained], *rest: Any, kept: Path = KEPT) -> (
    pd.DataFrame
):  # fmt: skip
    """The result of `made` for the runs; without runs the kept study's table, empty if it has none."""
    if of:
        return made(of, *rest)
    path = kept / schema.notebook / "tables" / schema.file
    return read_table(path, schema) if path.is_file() else pd.DataFrame(columns=schema.names)


def origin(of: list[Trained]) -> dict[str, Any]:
    """The provenance of what is computed from some runs, or copied from the kept study."""
    if not of:
        return about([], kept=KEPT.name)
    return about([], runs=[run.run.config.digest for run in of], dataset=of[0].dataset.digest)


def unless_empty(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The frame, once; for an empty frame nothing, with a line that says so."""
    if frame.empty:
        display(Markdown("*There are no runs and no kept result: nothing to show.*"))
    else:
        yield frame


def _say(runs_dir: str, place: Path) -> None:
    shown = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
    display(Markdown(
        f"*No training run lies in `{runs_dir}`, so this shows the results kept in `{shown}`. To see your own, "
        "run `50_train` (or `make report`) and set `runs_dir`.*"
    ))  # fmt: skip
