"""The results folder of a study: what stands in it before its jobs run, what is set aside, and study.json."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from analysis.study.dependencies import RESULT, changes
from analysis.study.job_folder import (
    AT_WORK,
    FAILURE,
    INPUTS,
    LOG,
    NOTEBOOK,
    FolderError,
    check_folder,
    read_inputs,
    read_result,
    remove,
)
from analysis.study.plan import VERSION, all_tasks, inputs_of, write_plan
from analysis.study.profiles import Profile, StudyError, Task
from analysis.study.progress import read_json, states_of
from analysis.tables.files import write_json
from analysis.tables.provenance import provenance

STUDY, ASIDE = "study.json", ".superseded"
SNAKEMAKE_RECORDS = ".snakemake"  # nothing is taken from them


def refuse_other(out: Path, profile: Profile) -> None:
    """Results of another version or another profile are never mixed with these."""
    known = read_json(out / STUDY)
    made_by = (known.get("version", VERSION), known.get("profile", profile.name))
    if made_by != (VERSION, profile.name):
        raise StudyError(
            f"{out} holds the study {made_by[1]} in version {made_by[0]} of the format, "
            f"this is {profile.name} in {VERSION}; move it away, or give another folder with --out"
        )


def prepare(profile: Profile, out: Path, stale: Mapping[str, str]) -> None:
    """Leave in the results folder the results that stand, and the plan."""
    _set_aside(profile, out)
    for name in stale:  # what stands in these folders from here on is of this study
        try:
            check_folder(out / name)
            if _is_of_another_question(profile.tasks[name], out):
                _move_aside(out, name, "has other parameters or data now")
        except FolderError:
            _move_aside(out, name, "was not made by a run")
        for file in (RESULT, FAILURE, LOG, NOTEBOOK, AT_WORK):
            remove(out / name / file)
    date_back(profile, out)
    if not (out / SNAKEMAKE_RECORDS).is_dir():
        remove(out / SNAKEMAKE_RECORDS)
    write_plan(profile, out, all_tasks(profile))


def date_back(profile: Profile, out: Path) -> None:
    """Give results from the future, which a clock that jumps back leaves, the time that it is now.

    For us a file's time means nothing; snakemake fails a job whose result is older than one that it follows from.
    """
    now = time.time()
    for name in profile.tasks:
        with suppress(FileNotFoundError):
            if (out / name / RESULT).stat().st_mtime > now:
                os.utime(out / name / RESULT)


def _set_aside(profile: Profile, out: Path) -> None:
    """Jobs that the profile no longer names must not meet notebooks that read all jobs of a step."""
    for file in sorted([*out.glob("*/" + INPUTS), *out.glob("*/*/" + INPUTS)]):
        name = file.parent.relative_to(out)
        if name.parts[0] != ASIDE and str(name) not in profile.tasks:
            _move_aside(out, str(name), "is not in this profile")


def _is_of_another_question(task: Task, out: Path) -> bool:
    """Whether a finished result has other parameters, networks or data than its task has now: it is not made again."""
    if read_result(out / task.name) is None:
        return False
    before, now = read_inputs(out / task.name), inputs_of(task, out)
    return any(before.get(kind) != now[kind] for kind in ("parameters", "networks", "data"))


def _move_aside(out: Path, name: str, why: str) -> None:
    aside, number = out / ASIDE / name, 1
    while aside.exists():
        number += 1
        aside = (out / ASIDE / name).with_name(f"{Path(name).name}.{number}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    (out / name).rename(aside)
    print(f"{name} {why}: moved to {shown(aside)}", file=sys.stderr)


def take_back(profile: Profile, out: Path) -> None:
    """Put finished results that were set aside, and that follow from what their tasks follow from now, in place."""
    for name, task in profile.tasks.items():
        kept = (out / ASIDE / name).parent
        for aside in sorted(kept.glob(f"{escape(Path(name).name)}*")) if kept.is_dir() else ():
            if aside.name.removeprefix(Path(name).name).strip(".0123456789"):
                continue  # of another job
            result, now = read_result(aside), inputs_of(task, out)
            standing = read_result(out / name)
            if result is None or changes(result.get("inputs"), now):
                continue
            if standing is not None and not changes(standing.get("inputs"), now):
                break
            if (out / name).exists():
                _move_aside(out, name, "has other inputs than its task")
            aside.rename(out / name)
            print(f"{name} is done: taken back from {shown(aside)}", file=sys.stderr)
            break


def write_study(profile: Profile, out: Path, start: datetime) -> dict[str, dict[str, Any]]:
    """The states of the jobs, which go to study.json with what else the report needs to know of the study."""
    states = states_of(profile, out)
    record = provenance(start=start)
    used = {task.parameters["dataset"] for task in profile.tasks.values() if "dataset" in task.parameters}
    write_json(
        out / STUDY,
        {
            "version": VERSION,
            "profile": profile.name,
            "dataset": profile.dataset,
            "dataset_used": min(map(str, used), default=None),
            "jobs": states,
            "elapsed_s": record["elapsed_s"],
            "provenance": record,
        },
    )
    return states


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
