"""Runs a study from start to end: the jobs of a profile that have to run, and the report of their results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.study.engine import SNAKEMAKE_LOG, Engine, engine_for, run_snakemake
from analysis.study.job_folder import LOCK, LOG, NOTEBOOK, record_failure, remove
from analysis.study.plan import all_tasks, describe, possible, stale_jobs, write_plan
from analysis.study.processes import FolderInUseError, exclusive
from analysis.study.profiles import Profile, StudyError, Task, read_profile
from analysis.study.progress import DONE, FAILED, NOT_RUN, Progress, state_of, states_of
from analysis.study.results_folder import (
    ASIDE,
    STUDY,
    STUDY_LOCK,
    aside_words,
    date_back,
    prepare,
    refuse_other,
    shown,
    take_back,
    write_study,
)
from analysis.tables.files import read_json
from analysis.tables.provenance import ROOT
from resattn.training.layouts import LAYOUTS, find

RESULTS = ROOT / "results"
BuildReport = Callable[[Path], Path]  # of a results folder: its page


def run_study(
    profile: str | Path,
    *,
    report: Callable[[], BuildReport],
    cores: int | None = None,
    dry_run: bool = False,
    out: Path | str | None = None,
    dataset: str | None = None,
    scale: str | None = None,
    on: str | None = None,
    clean: bool = False,
    snakemake_args: Sequence[str] = (),
) -> int:
    """0 if every job of the profile is done and the report is written; 1 if not; 130 if interrupted.

    It resumes an earlier run. A failed job stops only the jobs that need it. `report`: returns the function that builds
    the report; called while snakemake starts, since its import takes a second. `cores`: parallel jobs, one thread each
    (default: all cores of this machine, or the number in the cluster's profile). `dry_run`: only print what would run.
    `out`: default `results/<profile>`. `on`: the name or folder of a snakemake profile, such as `slurm`, if the jobs
    run elsewhere. `clean`: run nothing; delete results that were set aside.

    Raises: ProfileError, StudyError, FolderInUseError.
    """
    asked = read_profile(profile, dataset=dataset, scale=scale)
    out = Path(out or RESULTS / asked.name).resolve()
    refuse_other(out, asked)
    if cores is not None and cores < 1:
        raise StudyError(f"a study needs at least 1 core, not {cores}")
    engine = engine_for(out, cores, on, snakemake_args)
    if dry_run:
        print(describe(_with_dataset(asked, _settled(out)), out, engine.kernels or cores or 1))
        return 0
    if clean and not (out / ASIDE).exists():
        print(f"nothing is set aside in {shown(out)}", file=sys.stderr)
        return 0
    try:
        with exclusive(out / STUDY_LOCK, what=f"the study in {out}") as lock:
            if clean:
                print(f"{aside_words(out)}: deleted", file=sys.stderr)
                remove(out / ASIDE)
                return 0
            return _run(asked, out, engine, lock, report)
    except OSError as error:
        raise StudyError(f"{error.filename or out}: {error.strerror or error}") from error


def _run(profile: Profile, out: Path, engine: Engine, lock: int, report: Callable[[], BuildReport]) -> int:
    start = datetime.now(UTC)
    profile = _settle_dataset(profile, out)
    take_back(profile, out)
    stale = stale_jobs(profile, out)
    _check_dataset(profile, stale)
    prepare(profile, out, stale)
    write_study(profile, out, start)
    interrupted, code = False, 0
    if stale:
        progress = Progress(profile, out)
        try:
            code = _run_jobs(profile, out, engine, lock, progress, report)
        except KeyboardInterrupt:
            interrupted = True
        progress.close()
    states = write_study(profile, out, start)
    _say_what_is_missing(profile, out, states, interrupted)
    if interrupted:
        return 130
    if code not in (0, 1):
        print(f"snakemake ended with {code}; see {shown(out / SNAKEMAKE_LOG)}", file=sys.stderr)
    if aside := aside_words(out):
        print(f"{aside}; the option --clean deletes them", file=sys.stderr)
    print(report()(out))
    return int(code != 0 or any(row["state"] != DONE for row in states.values()))


def _say_what_is_missing(
    profile: Profile, out: Path, states: Mapping[str, Mapping[str, Any]], interrupted: bool
) -> None:
    for name, row in states.items():
        lost = [n for n in profile.needs(profile.tasks[name]) if states[n]["state"] != DONE]
        if row["state"] == DONE and lost:
            print(f"done     {name}, without {' and '.join(lost)}", file=sys.stderr)
        if row["state"] == FAILED:
            print(f"failed   {name}: {row['message']}\n         {shown(out / name / NOTEBOOK)}", file=sys.stderr)
        elif row["state"] == NOT_RUN and not interrupted:
            print(f"not run  {name}, which needs a failed job", file=sys.stderr)
    if interrupted:
        print("interrupted; the same command resumes", file=sys.stderr)


def _run_jobs(
    profile: Profile, out: Path, engine: Engine, lock: int, progress: Progress, report: Callable[[], BuildReport]
) -> int:
    """snakemake's exit status. Raises: KeyboardInterrupt.

    A job that follows from a sweep goes on with the runs of it that are done: what one run came to, such as a loss
    that is no number, does not withhold the others. The next study makes it again, with those that were lost.
    """
    remove(out / SNAKEMAKE_LOG)
    code, follows = 0, all_tasks(profile)

    def watch() -> None:
        progress.update()
        date_back(profile, out)

    while True:
        ended = run_snakemake(profile, out, engine, lock, once=report, often=watch)
        code = code or ended
        _record_silent_failures(out, follows)
        follows = possible(profile, states_of(profile, out))
        if not follows:
            return code
        write_plan(profile, out, follows)


def _settle_dataset(profile: Profile, out: Path) -> Profile:
    """The study with `auto` decided once for all its jobs, and what it needs of the network fetched.

    What `auto` came to in this folder stands, also if the network comes back; CIFAR-10 on disk goes before it.
    """
    if profile.dataset not in ("auto", *LAYOUTS):
        return profile
    from resattn.training import data

    name, here = profile.dataset, data.home()
    if name == "auto":
        keep = _settled(out) == "cluttered-digits" and find(LAYOUTS["cifar10"], here) is None
        name = "cluttered-digits" if keep else data.resolve("auto")[0]
    elif find(LAYOUTS[name], here) is None:
        data.fetch(name)
    return _with_dataset(profile, name)


def _settled(out: Path) -> str | None:
    known = read_json(out / STUDY)
    return known.get("dataset_used") if known.get("dataset") == "auto" else None


def _with_dataset(profile: Profile, used: str | None) -> Profile:
    if profile.dataset != "auto" or used is None:
        return profile
    tasks: dict[str, Task] = {}
    for name, task in profile.tasks.items():
        if task.parameters.get("dataset") == "auto":
            training = task.training and replace(task.training, dataset=used)
            task = replace(task, parameters={**task.parameters, "dataset": used}, training=training)
        tasks[name] = task
    return replace(profile, tasks=tasks)


def _check_dataset(profile: Profile, stale: Mapping[str, str]) -> None:
    """Read what the jobs will train on, so that an altered file stops the study and not each job; and say what it is.

    Raises: DataError.
    """
    names = {str(profile.tasks[name].parameters.get("dataset", "")) for name in stale}
    if names := names - {""}:
        from resattn.training import data

        for name in sorted(names):
            print(data.load(name), file=sys.stderr)


def _record_silent_failures(out: Path, follows: Mapping[str, Sequence[str]]) -> None:
    """Write down what became of the jobs that were killed, or refused to start: they had no chance to do so.

    `follows`: what each job that was to run waited for.
    """
    for name, others in follows.items():
        if state_of(out / name)["state"] == NOT_RUN and all(state_of(out / other)["state"] == DONE for other in others):
            log = out / name / LOG
            began = log.exists() and log.stat().st_size > 0
            if began:
                _await_end(out / name)
            why = "its process ended without a message (killed?)" if began else "it did not start"
            record_failure(out / name, "KilledError" if began else "StartError", f"{why}; see {SNAKEMAKE_LOG}")


def _await_end(folder: Path) -> None:
    """Let a job whose snakemake was killed wind down, so that it does not overwrite the record of its end."""
    for _ in range(150):
        try:
            with exclusive(folder / LOCK, what=str(folder), wait_s=0):
                return
        except FolderInUseError:
            time.sleep(0.1)
