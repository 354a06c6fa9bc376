"""The study's commands, as `resattn study` and `resattn report` call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def study(profile: str, **options: Any) -> int:
    """Runs a study and builds its report; options and exit status of `analysis.study.batch.run_study`."""
    from analysis.study.batch import run_study

    return run_study(profile, report=_report, **options)


def _report() -> Callable[[Path], Path]:
    from analysis.explore.page import block
    from analysis.report.build import build_report

    return lambda folder: build_report(folder, block())


def report(folder: Path) -> Path:
    """Builds the report of a study's folder. Raises: ReportError, before anything is written, for another folder."""
    from analysis.report.build import ReportError
    from analysis.report.reading import NOT_RUN, STUDY, read_study

    if folder.is_dir():
        found = read_study(folder)
        if not (found.record or found.planned):
            if inside := sorted(path.parent.name for path in folder.glob(f"*/{STUDY}")):
                raise ReportError(f"{folder} is not a study; it holds these: {', '.join(inside)}. Give one of them")
            if all(job.state == NOT_RUN for job in found.jobs):
                raise ReportError(f"{folder} holds no study; give a folder that `resattn study` made, with its {STUDY}")
    return _report()(folder)
