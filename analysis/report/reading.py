"""A study's folder as a value: which jobs there are, how each ended, and the tables and figures that it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.study.job_folder import FAILURE, INPUTS, LOG, NOTEBOOK, RESULT, read_result
from analysis.tables.files import read_table
from analysis.tables.provenance import scrub

if TYPE_CHECKING:
    import pandas as pd

STUDY, PLAN, REPORT = "study.json", "plan.json", "report"

# What a whole study consists of; a folder that holds less is told what it lacks.
STEPS: Mapping[str, str] = {
    "10_variants": "the networks",
    "20_depth": "depth",
    "30_cost": "cost",
    "40_receptive_field": "receptive field",
    "50_train": "training runs",
    "60_compare": "the comparison",
    "70_masks": "the masks",
    "80_claims": "the claims",
}

DONE, FAILED, ALTERED, UNFINISHED, NOT_RUN = "done", "failed", "altered", "unfinished", "not run"


class MissingError(LookupError):
    """Something that the page would show is not in the folder; `remedy` says how to get it."""

    def __init__(self, what: str, remedy: str, *, job: str | None = None) -> None:
        super().__init__(what)
        self.what, self.remedy, self.job = what, remedy, job


@dataclass(frozen=True)
class Job:
    """One execution of a notebook, or the lack of it. `name` is its folder in the study."""

    name: str
    folder: Path
    state: str
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> str:
        return self.name.partition("/")[0]

    @property
    def notebook(self) -> Path | None:
        path = self.folder / NOTEBOOK
        return path if path.is_file() else None

    @property
    def log(self) -> Path | None:
        path = self.folder / LOG
        return path if path.is_file() else None

    @property
    def figures(self) -> tuple[Path, ...]:
        return tuple(sorted((self.folder / "figures").glob("*.svg")))

    @property
    def elapsed_s(self) -> float | None:
        value = self.result.get("elapsed_s")
        return float(value) if isinstance(value, int | float) else None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of the run; where it did not come to its end, of a table that it wrote."""
        if isinstance(found := self.result.get("provenance"), dict):
            return found
        for path in sorted((self.folder / "tables").glob("*.provenance.json")):
            if isinstance(found := read_json(path).get("provenance"), dict):
                return found
        return {}


@dataclass(frozen=True)
class Study:
    """What a folder holds; `record` is its study.json, empty where there is none."""

    folder: Path
    jobs: tuple[Job, ...]
    record: Mapping[str, Any]
    planned: frozenset[str] = frozenset()  # steps; empty where the folder holds no plan

    @property
    def name(self) -> str:
        return str(self.record.get("profile") or self.record.get("name") or self.folder.name)

    @property
    def remedy(self) -> str:
        """The command that makes what is missing."""
        return f"resattn study {self.name}"

    def of(self, step: str) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs if job.step == step)

    def job(self, name: str) -> Job:
        """The job of that name; one that did not run, if the folder has none."""
        return next((job for job in self.jobs if job.name == name), Job(name, self.folder / name, NOT_RUN))

    def table(self, job: str, name: str, columns: Sequence[str] | Mapping[str, type]) -> pd.DataFrame:
        """A table of a job. Raises: MissingError; TableError where it is not what the page needs."""
        path = self.job(job).folder / "tables" / f"{name}.csv"
        if not path.is_file():
            raise self.missing(job, name)
        return read_table(path, columns)

    def missing(self, job: str, table: str) -> MissingError:
        """Why a table is not there, and what would make it."""
        found, notebook = self.job(job), f"{job.partition('/')[0]}.ipynb"
        if found.state == NOT_RUN and self.planned and found.step not in self.planned:
            return MissingError(f"{notebook} is not part of this study.", "`resattn study quick` runs it.", job=job)
        if found.state == NOT_RUN:
            return MissingError(f"{notebook} has not run.", f"`{self.remedy}` runs it.", job=job)
        if found.state == DONE:
            return MissingError(
                f"{notebook} ran, but left no table {table}.csv.", "Its page shows what it did.", job=job
            )
        why = f": {found.message.rstrip('.')}" if found.message else ""
        return MissingError(
            f"{notebook} is {found.state}, without a table {table}.csv{why}.",
            f"Mend the cause and run `{self.remedy}` again: it goes on where it stopped.",
            job=job,
        )


def read_study(folder: Path) -> Study:
    """The study in a folder, whatever state it is in: empty, half run, or failed throughout."""
    record, plan = read_json(folder / STUDY), read_json(folder / PLAN)
    listed = [name for source in (plan, record) for name in _mapping(source.get("jobs"))]
    found = [
        str(mark.parent.relative_to(folder))
        for pattern in ("*/", "*/*/")
        for name in (RESULT, FAILURE, INPUTS, NOTEBOOK)
        for mark in sorted(folder.glob(pattern + name))
    ]
    names = dict.fromkeys(name for name in [*listed, *found] if _is_job(name))
    planned = frozenset(name.partition("/")[0] for name in _mapping(plan.get("jobs")))
    lacking = [step for step in STEPS if not any(name.partition("/")[0] == step for name in names)]
    names |= dict.fromkeys(step for step in lacking if not planned or step in planned)
    said = {name: _mapping(row) for name, row in _mapping(record.get("jobs")).items()}
    # By step, in the order of the plan within one.
    order = sorted(names, key=lambda name: name.partition("/")[0])
    return Study(folder, tuple(_read_job(folder, name, said.get(name, {})) for name in order), record, planned)


def _is_job(name: str) -> bool:
    parts = Path(name).parts
    plain = all(not part.startswith((".", "/")) for part in parts)
    return plain and 1 <= len(parts) <= 2 and parts[0] != REPORT


def _read_job(folder: Path, name: str, said: Mapping[str, Any]) -> Job:
    place = folder / name
    result, failure = read_result(place), read_json(place / FAILURE)
    message = str(failure.get("message") or said.get("message") or "")
    if result is not None:
        return Job(name, place, DONE, result=result)
    if (place / RESULT).exists():
        return Job(
            name, place, ALTERED, "a file that its result lists is missing or was altered", read_json(place / RESULT)
        )
    if failure or said.get("state") == FAILED:
        return Job(name, place, FAILED, scrub(message))
    if any((place / mark).exists() for mark in (INPUTS, LOG, NOTEBOOK)):
        return Job(name, place, UNFINISHED, "it was interrupted, or is still running")
    return Job(name, place, NOT_RUN, scrub(message))


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file; an empty one where there is no file, or no mapping in it."""
    try:
        return _mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
