"""A study's folder as a value: its jobs, how each ended, and the tables and figures of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.report.gaps import Gap, MissingError, part
from analysis.study.job_folder import FAILURE, INPUTS, LOG, NOTEBOOK, RESULT, listed, read_listing, read_result
from analysis.tables import steps
from analysis.tables.files import TableError, digest, read_json, read_table
from analysis.tables.formats import LONGEST_S
from analysis.tables.provenance import scrub
from analysis.tables.schemas import Schema, by_notebook

if TYPE_CHECKING:
    import pandas as pd

STUDY, PLAN, REPORT = "study.json", "plan.json", "report"

DONE, FAILED, ALTERED, UNFINISHED, NOT_RUN = "done", "failed", "altered", "unfinished", "not run"


@dataclass(frozen=True)
class Job:
    """One execution of a notebook, or its absence. `name` is its folder in the study."""

    name: str
    folder: Path
    state: str
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> str:
        return self.name.partition("/")[0]

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The schemas of the tables that its notebook writes."""
        return by_notebook().get(Path(str(self.result.get("notebook", self.step))).stem, ())

    @property
    def parameters(self) -> Mapping[str, Any]:
        return mapping(self.result.get("parameters"))

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

    def problem(self, file: str) -> str:
        """Why a file may not be shown: the result of its run does not list it as it is. Empty if it may."""
        try:
            found = digest(self.folder / file)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        recorded = listed(self.result).get(file) if self.result else None
        if recorded is None:
            return "no result lists it"
        return (
            "" if found == recorded else f"found sha256 {found[:12]}; expected {str(recorded)[:12]}, as its result says"
        )

    @property
    def elapsed_s(self) -> float | None:
        value = self.result.get("elapsed_s")
        return float(value) if isinstance(value, int | float) and 0 <= value < LONGEST_S else None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The provenance of the run; of an unfinished run, that of a table that it wrote."""
        if isinstance(record := self.result.get("provenance"), dict):
            return record
        for path in sorted((self.folder / "tables").glob("*.provenance.json")):
            if isinstance(record := read_json(path).get("provenance"), dict):
                return record
        return {}


@dataclass(frozen=True)
class Study:
    """The content of a folder; `record` is its study.json, empty if there is none."""

    folder: Path
    jobs: tuple[Job, ...]
    record: Mapping[str, Any]
    planned: frozenset[str] = frozenset()  # steps; empty where the folder holds no plan
    _read: dict[tuple[str, Schema], pd.DataFrame | Gap] = field(default_factory=dict, compare=False, repr=False)

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
        """The job with this name; if the folder has none, a job that did not run."""
        return next((job for job in self.jobs if job.name == name), Job(name, self.folder / name, NOT_RUN))

    def table(self, schema: Schema, job: str = "") -> pd.DataFrame:
        """A table of a job (default: the job named as the table's notebook); read once. Raises: MissingError."""
        key = (job or schema.notebook, schema)
        if key not in self._read:
            self._read[key] = self._table(schema, key[0])
        result = self._read[key]
        if isinstance(result, Gap):
            raise MissingError(result)
        return result

    def rows(self, schema: Schema, job: str = "") -> list[dict[str, Any]]:
        """The rows of a table. Raises: MissingError."""
        return [{str(k): v for k, v in row.items()} for row in self.table(schema, job).to_dict("records")]

    def gaps(self, section: Collection[str]) -> list[Gap]:
        """Every table that a finished job of these steps should have and that is missing, altered or invalid."""
        finished = (job for job in self.jobs if job.step in section and job.state in (DONE, ALTERED))
        read = (part(self.table, schema, job.name) for job in finished for schema in job.schemas)
        return [read_part.gap for read_part in read if read_part.gap is not None]

    def _table(self, schema: Schema, job: str) -> pd.DataFrame | Gap:
        of_job, path = self.job(job), self.job(job).folder / "tables" / schema.file
        if not path.is_file() or of_job.state not in (DONE, ALTERED):
            return self.missing(schema, job).gap
        if problem := of_job.problem(f"tables/{schema.file}"):
            return Gap(f"{job}, {schema.file}: {problem}.", f"`{self.remedy}` makes it again.", job)
        try:
            return read_table(path, schema)
        except TableError as error:
            what = f"{job}, {error.path.name}: found {error.actual}; expected {error.expected}."
            return Gap(what, f"`{self.remedy}` makes it again.", job)

    def no_rows(self, schema: Schema) -> MissingError:
        """Why an existing table shows nothing."""
        return MissingError(
            Gap(f"{schema.notebook}, {schema.file}: no rows.", "Its page shows what it did.", schema.notebook)
        )

    def missing(self, schema: Schema, job: str) -> MissingError:
        """Why a table is missing, and what would make it."""
        of_job = self.job(job)
        notebook = job if "/" in job else f"{job}.ipynb"
        if of_job.state == NOT_RUN and self.planned and of_job.step not in self.planned:
            gap = Gap(f"{notebook} is not part of this study.", "`resattn study quick` runs it.", job)
        elif of_job.state == NOT_RUN:
            gap = Gap(f"{notebook} has not run.", f"`{self.remedy}` runs it.", job)
        elif of_job.state == DONE:
            gap = Gap(f"{notebook} ran, but left no table {schema.file}.", "Its page shows what it did.", job)
        elif of_job.state == ALTERED:
            gap = Gap(f"{notebook}: its table {schema.file} is missing.", f"`{self.remedy}` makes it again.", job)
        else:
            why = f": {of_job.message.rstrip('.')}" if of_job.message else ""
            what = f"{notebook} {'failed' if of_job.state == FAILED else f'is {of_job.state}'}{why}."
            gap = Gap(what, f"Fix the cause and rerun `{self.remedy}`; it resumes.", job)
        return MissingError(gap)


def read_study(folder: Path) -> Study:
    """The study in a folder in any state: empty, incomplete, or failed."""
    record, plan = read_json(folder / STUDY), read_json(folder / PLAN)
    listed = [name for source in (plan, record) for name in mapping(source.get("jobs"))]
    seen = [
        str(mark.parent.relative_to(folder))
        for pattern in ("*/", "*/*/")
        for name in (RESULT, FAILURE, INPUTS, NOTEBOOK)
        for mark in sorted(folder.glob(pattern + name))
    ]
    names = dict.fromkeys(name for name in [*listed, *seen] if _is_job(name))
    planned = frozenset(name.partition("/")[0] for name in mapping(plan.get("jobs")))
    lacking = [step for step in steps.COMPLETE if not any(name.partition("/")[0] == step for name in names)]
    names |= dict.fromkeys(step for step in lacking if not planned or step in planned)
    recorded = {name: mapping(row) for name, row in mapping(record.get("jobs")).items()}
    # By step, in the order of the plan within one.
    order = sorted(names, key=lambda name: name.partition("/")[0])
    return Study(folder, tuple(_read_job(folder, name, recorded.get(name, {})) for name in order), record, planned)


def _is_job(name: str) -> bool:
    parts = Path(name).parts
    plain = all(not part.startswith((".", "/")) and "\0" not in part and len(os.fsencode(part)) < 256 for part in parts)
    return plain and 1 <= len(parts) <= 2 and parts[0] != REPORT


def _read_job(folder: Path, name: str, recorded: Mapping[str, Any]) -> Job:
    place = folder / name
    result, failure = read_result(place), read_json(place / FAILURE)
    message = str(failure.get("message") or recorded.get("message") or "")
    if result is not None:
        return Job(name, place, DONE, result=result)
    if (place / RESULT).exists():
        why = "a file that its result lists is missing or was altered"
        return Job(name, place, ALTERED, why, read_listing(place))
    if failure or recorded.get("state") == FAILED:
        return Job(name, place, FAILED, scrub(message))
    if any((place / mark).exists() for mark in (INPUTS, LOG, NOTEBOOK)):
        return Job(name, place, UNFINISHED, "it was interrupted, or is still running")
    return Job(name, place, NOT_RUN, scrub(message))


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, dict) else {}
