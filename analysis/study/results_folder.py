"""The results folder of a study: its content before jobs run, results that are set aside, and study.json."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.study.dependencies import INPUTS, KINDS, RESULT, changes
from analysis.study.engine import SNAKEMAKE_RECORDS
from analysis.study.job_folder import (
    AT_WORK,
    FAILURE,
    LOG,
    NOTEBOOK,
    RUN,
    FolderError,
    check_folder,
    is_of_a_run,
    read_inputs,
    read_result,
    remove,
)
from analysis.study.plan import PLAN, VERSION, all_tasks, inputs_of, write_plan
from analysis.study.profiles import RESERVED, Profile, StudyError
from analysis.study.progress import states_of
from analysis.tables.files import read_json, read_regular, write_json
from analysis.tables.provenance import provenance

STUDY, ASIDE, STUDY_LOCK = "study.json", ".superseded", ".study.lock"
QUESTION = ("parameters", "networks", "data")  # of the inputs of a job: what it trains


def refuse_other(out: Path, profile: Profile) -> None:
    """Results of another version or profile are not mixed with these, and a user's files are not replaced.

    Raises: StudyError.
    """
    known = read_json(out / STUDY)
    made_by = (known.get("version", VERSION), known.get("profile", profile.name))
    if made_by != (VERSION, profile.name):
        raise StudyError(
            f"{out} holds the study {made_by[1]} in version {made_by[0]} of the format, "
            f"this is {profile.name} in {VERSION}; move it away, or give another folder with --out"
        )
    is_ours = (
        _is_locked_once(out, profile)
        or "jobs" in known
        or read_json(out / PLAN).keys() >= {"version", "targets", "jobs"}
    )
    if is_ours:
        return
    others = sorted(name for name in (*RESERVED, STUDY_LOCK, SNAKEMAKE_RECORDS, ASIDE) if (out / name).exists())
    others += [name for name in (*_unnamed(profile, out), *profile.tasks) if not _may_be_moved(out / name)]
    if others:
        raise StudyError(f"{out} holds {others[0]!r}, which no study wrote; give a new folder with --out")


def _is_locked_once(out: Path, profile: Profile) -> bool:
    """Whether the lock of a study is there: one that was held, or is damaged and beside runs of ours."""
    try:
        text = read_regular(out / STUDY_LOCK)
    except OSError:
        return False
    return bool(re.fullmatch(rb"\d{0,20}\n?", text)) or any(is_of_a_run(out / name) for name in profile.tasks)


def _may_be_moved(folder: Path) -> bool:
    try:
        check_folder(folder)
    except FolderError:
        return is_of_a_run(folder)
    return True


def prepare(profile: Profile, out: Path, stale: Mapping[str, str]) -> None:
    """Leaves in the results folder the valid results and the plan. Other finished results are set aside."""
    _set_aside(profile, out)
    for name, why in stale.items():  # what stands in these folders from here on is of this study
        try:
            check_folder(out / name)
            if (out / name / RESULT).exists():
                _move_aside(profile, out, name, f"is made again ({why})")
        except FolderError:
            _move_aside(profile, out, name, "was not made by a run")
        for file in (FAILURE, LOG, NOTEBOOK, AT_WORK):
            remove(out / name / file)
        if not (out / name / RUN).exists():
            _keep_training(out, name, inputs_of(profile.tasks[name], out))
    date_back(profile, out)
    if not (out / SNAKEMAKE_RECORDS).is_dir():
        remove(out / SNAKEMAKE_RECORDS)
    write_plan(profile, out, all_tasks(profile))


def date_back(profile: Profile, out: Path) -> None:
    """Sets results with a time in the future, which a clock that was set back leaves, to the present time.

    File times have no meaning here, but snakemake fails a job whose result is older than one that it depends on.
    """
    now = time.time()
    for name in profile.tasks:
        with suppress(FileNotFoundError):
            if (out / name / RESULT).stat().st_mtime > now:
                os.utime(out / name / RESULT)


def _set_aside(profile: Profile, out: Path) -> None:
    """Jobs that the profile no longer names must not meet notebooks that read all jobs of a step."""
    for name in _unnamed(profile, out):
        if (out / name).exists():
            _move_aside(profile, out, name, "is not in this profile")


def _unnamed(profile: Profile, out: Path) -> list[str]:
    """The folders of jobs that the profile does not name: of its steps all that a notebook may take for one, elsewhere
    those that a run wrote."""
    jobs = {file.parent for level in ("*/", "*/*/") for mark in (INPUTS, RESULT) for file in out.glob(level + mark)}
    steps = {task.step for task in profile.tasks.values()}
    jobs = {folder for folder in jobs if folder.relative_to(out).parts[0] in steps or is_of_a_run(folder)}
    several = {task.step for name, task in profile.tasks.items() if name != task.step}
    jobs |= {file.parent for step in several for kind in KINDS for file in out.glob(f"{glob.escape(step)}/*/{kind}")}
    names = sorted(folder.relative_to(out) for folder in jobs)
    return [str(name) for name in names if name.parts[0] != ASIDE and str(name) not in profile.tasks]


def _move_aside(profile: Profile, out: Path, name: str, why: str) -> None:
    aside, number = out / ASIDE / name, 1
    while aside.exists():
        number += 1
        aside = (out / ASIDE / name).with_name(f"{Path(name).name}.{number}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    (out / name).rename(aside)
    for job in profile.tasks:  # a step of one job may have become one of several, and the other way round
        if job.startswith(f"{name}/") and (aside / Path(job).name).is_dir():
            (out / job).parent.mkdir(parents=True, exist_ok=True)
            (aside / Path(job).name).rename(out / job)
    print(f"{name} {why}: moved to {shown(aside)}", file=sys.stderr)


def aside_words(out: Path) -> str:
    """The number of results set aside and the disk space they take; empty if there are none."""
    jobs = [folder for folder in _asides(out) if (folder / RESULT).exists()]
    if not (out / ASIDE).exists():
        return ""
    files = [file.lstat() for file in (out / ASIDE).rglob("*") if not file.is_dir()]
    size = sum(about.st_size for about in files if about.st_nlink == 1)  # runs are linked where they are read again
    return f"{len(jobs)} finished results, {size / 1e6:,.1f} MB, are set aside in {shown(out / ASIDE)}"


def _asides(out: Path) -> list[Path]:
    """The folders of the jobs that were set aside, at whatever level."""
    return sorted({file.parent for name in (RESULT, INPUTS) for file in (out / ASIDE).rglob(name)})


def _recorded(aside: Path) -> Any:
    return read_json(aside / RESULT).get("inputs") or read_inputs(aside)


def take_back(profile: Profile, out: Path) -> None:
    """Restores finished results that were set aside and whose inputs equal the present inputs of their tasks."""
    _set_aside(profile, out)
    asides, standing = _asides(out), set[str]()
    for name, task in profile.tasks.items() if asides else ():
        if not standing.issuperset(profile.needs(task)):
            continue  # what it follows from is made first, so it follows from something else then
        now = inputs_of(task, out)
        if _is_of(out / name, now):
            standing.add(name)
            continue
        for aside in asides:
            if not changes(_recorded(aside), now) and _is_of(aside, now):
                if (out / name).exists():
                    _move_aside(profile, out, name, "has other inputs than its task")
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                aside.rename(out / name)
                print(f"{name} is done: restored from {shown(aside)}", file=sys.stderr)
                standing.add(name)
                break


def _is_of(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a folder holds a finished result of these inputs."""
    result = read_result(folder)
    return result is not None and not changes(result.get("inputs"), inputs)


def _keep_training(out: Path, name: str, inputs: Mapping[str, Any]) -> None:
    """Give a job that is made again the training run of the same question that was set aside with its result.

    The code of a notebook may change and its training run stand; `train` finds out whether it does. The files are
    linked: they are written anew, and never in place.
    """
    for aside in _asides(out):
        before = _recorded(aside)
        if (aside / RUN).is_dir() and not changes(before, {kind: inputs[kind] for kind in QUESTION}):
            beside = out / name / f".{RUN}.part"
            shutil.copytree(aside / RUN, beside, copy_function=_linked, dirs_exist_ok=True)
            write_json(out / name / INPUTS, before)  # it makes the folder ours
            beside.rename(out / name / RUN)
            return


def _linked(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def write_study(profile: Profile, out: Path, start: datetime) -> dict[str, dict[str, Any]]:
    """The states of the jobs; also written to study.json with what else the report needs to know of the study."""
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
    """The shortest form of a path, seen from the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
