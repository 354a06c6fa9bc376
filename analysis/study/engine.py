"""A study: snakemake runs the jobs of a profile, this decides which and watches.

What is done is read from the jobs' own results, never from snakemake's records: a job is run again if its result is
missing or altered, or if anything that it follows from has changed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from analysis.study.dependencies import run_inputs
from analysis.study.notebook import (
    AT_WORK,
    FAILURE,
    INPUTS,
    LOCK,
    LOG,
    NOTEBOOK,
    RESULT,
    FolderError,
    check_folder,
    keeps_state,
    read_result,
    record_failure,
    remove,
)
from analysis.study.notebook_parameters import check_parameters, parameter_text
from analysis.study.processes import PARENT, PLACES, FolderInUseError, exclusive, signal_group
from analysis.study.profiles import PROFILES, WORKFLOW, Job, Study, StudyError, read_study
from analysis.tables.files import digest, write_json
from analysis.tables.provenance import ROOT, provenance, usable_cpus
from resattn.training import cifar
from resattn.training.cifar import LAYOUTS

VERSION = 1  # of a results folder
RESULTS = ROOT / "results"
STUDY, PLAN, SNAKEMAKE_LOG, ASIDE = "study.json", "plan.json", "snakemake.log", ".superseded"
KERNELS = ".kernels"  # the places for them
AHEAD = 2  # jobs that are begun and wait, all imports done, for the kernel of another to end
SNAKEMAKE_RECORDS = ".snakemake"  # nothing is taken from them
DONE, FAILED, NOT_RUN, RUNNING = "done", "failed", "not run", "running"


# --- what there is to do --------------------------------------------------------------------------------------------


def stale_jobs(study: Study, out: Path) -> dict[str, str]:
    """The jobs that have to run, each with the reason, in order."""
    stale: dict[str, str] = {}
    for name, job in study.jobs.items():
        result = read_result(out / name)
        if waits := [other for other in study.needs(job) if other in stale]:
            stale[name] = f"follows {waits[0]}" + (f" and {len(waits) - 1} more" if len(waits) > 1 else "")
        elif result is None:
            stale[name] = "its files were altered" if (out / name / RESULT).exists() else "no result yet"
        elif changed := _changes(result.get("inputs"), _inputs(job, out)):
            stale[name] = f"changed: {changed}"
    return stale


def _inputs(job: Job, out: Path) -> dict[str, Any]:
    return run_inputs(job.notebook, check_parameters(job.notebook, job.given(out)))


def _changes(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, Mapping):
        return "everything"
    changed = []
    for kind in now:
        old, new = before.get(kind), now[kind]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        elif old != new:
            changed.append(kind)
    return ", ".join(changed)


def macs_of(study: Study) -> dict[str, int]:
    """The expected cost of the training jobs: multiply-adds of an image, times images, epochs and 3.

    The factor counts the backward pass as twice the forward one. Tests and other notebooks are not in it.
    """
    training = {name: job.training for name, job in study.jobs.items() if job.training}
    if not training:
        return {}
    from resattn.measures.audit import captured
    from resattn.measures.cost import op_macs

    # Neither merge nor gate has a layer: networks that differ in these alone are captured once.
    plain = {name: replace(config.spec, name="", merge="residual", gate="mixed") for name, config in training.items()}
    macs = {spec: sum(op_macs(captured(spec)[1])) for spec in dict.fromkeys(plain.values())}
    return {name: 3 * macs[plain[name]] * config.steps * config.batch_size for name, config in training.items()}


def describe(study: Study, out: Path) -> str:
    """The plan: each job, whether it has to run and why, and what training will cost."""
    stale, cost = stale_jobs(study, out), macs_of(study)
    trained = {name for name in stale if (out / name / RESULT).exists() and _keeps_state(study.jobs[name], out)}
    width = max(map(len, study.jobs), default=0)
    lines = []
    for name in study.jobs:
        price = f"{cost[name] / 1e12:9.1f} TMACs" if name in cost else ""
        what = f"run: {stale[name]}" if name in stale else "done"
        lines.append(
            f"{name:{width}}  {price:15}  {what}" + (" (trained already)" if name in cost and name in trained else "")
        )
    total = sum(macs for name, macs in cost.items() if name in stale and name not in trained) / 1e12
    lines.append(f"{len(stale)} of {len(study.jobs)} jobs to run; training: {total:.1f} TMACs (forward and backward)")
    return "\n".join(lines)


def _keeps_state(job: Job, out: Path) -> bool:
    return keeps_state(out / job.name, _inputs(job, out))


# --- running it -----------------------------------------------------------------------------------------------------


def run_study(
    profile: str | Path,
    *,
    cores: int | None = None,
    dry_run: bool = False,
    out: Path | str | None = None,
    dataset: str | None = None,
    scale: str | None = None,
    on: str | None = None,
    snakemake_args: Sequence[str] = (),
) -> int:
    """0 if every job of the profile is done and the report made; 1 if not; 130 if interrupted.

    Goes on where an earlier run stopped. A failed job stops only those that follow from it. `cores`: jobs at a time,
    one thread each (default: all of this machine, or as many as the cluster's profile says). `dry_run`: only print
    what would run. `out`: default `results/<profile>`. `on`: where the jobs run, if not here: the name or folder of a
    snakemake profile, such as `slurm`.

    Raises: ProfileError, StudyError, FolderInUseError.
    """
    study = read_study(profile, dataset=dataset, scale=scale)
    out = Path(out or RESULTS / study.name).resolve()
    _refuse_other(out, study)
    if cores is not None and cores < 1:
        raise StudyError(f"a study needs at least 1 core, not {cores}")
    engine = _engine(out, cores, on, snakemake_args)
    if dry_run:
        print(describe(_with_dataset(study, _settled(out)), out))
        return 0
    try:
        with exclusive(out / ".study.lock", what=f"the study in {out}") as lock:
            return _run(study, out, engine, lock)
    except OSError as error:
        raise StudyError(f"{error.filename or out}: {error.strerror or error}") from error


def _refuse_other(out: Path, study: Study) -> None:
    """Results of another version or another profile are never mixed with these."""
    known = _read_json(out / STUDY)
    made_by = (known.get("version", VERSION), known.get("profile", study.name))
    if made_by != (VERSION, study.name):
        raise StudyError(
            f"{out} holds the study {made_by[1]} in version {made_by[0]} of the format, "
            f"this is {study.name} in {VERSION}; move it away, or give another folder with --out"
        )


def _read_json(path: Path) -> dict[str, Any]:
    """What a file of ours holds; nothing, where it is not there or is not ours."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Engine(NamedTuple):
    """Where the jobs run."""

    words: Sequence[str]  # for snakemake
    kernels: int | None  # that run here at a time; None: as many as snakemake begins jobs


def _engine(out: Path, cores: int | None, on: str | None, options: Sequence[str]) -> Engine:
    """Where the jobs run, and how many at a time."""
    words = [*([] if on is None else _engine_profile(on, out)), *options]
    if _is_away(words):
        return Engine(words if cores is None else [*words, "--cores", str(cores)], None)
    kernels = cores or usable_cpus()
    return Engine(["--cores", str(kernels + AHEAD), *words], kernels)


def _is_away(words: Sequence[str]) -> bool:
    return any(word.split("=")[0] in ("--profile", "--executor", "-e") for word in words)


def _engine_profile(name: str, out: Path) -> list[str]:
    """The words for a snakemake profile, whose executor is installed."""
    folder = PROFILES / name if "/" not in name else Path(name)
    if not (folder / "config.yaml").is_file():
        known = sorted(file.parent.name for file in PROFILES.glob("*/config.yaml"))
        near = get_close_matches(name, known) or known
        raise StudyError(f"no snakemake profile {name!r} (a folder with a config.yaml, or one of: {', '.join(near)})")
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        executor = settings.get("executor", "local")
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise StudyError(f"{folder / 'config.yaml'} is no snakemake profile: {error}") from error
    plugin = f"snakemake_executor_plugin_{executor}".replace("-", "_")
    if executor not in ("local", "dryrun", "touch") and not find_spec(plugin):
        raise StudyError(
            f"snakemake has no executor {executor!r} here: pip install --constraint constraints.txt -e '.[{executor}]'"
        )
    # A pod works in a folder of its own, and has the results folder mounted where it is here.
    mounted = ["--config", f"results={out}"] if executor == "kubernetes" else []
    return ["--profile", str(folder.resolve()), *mounted]


def _run(study: Study, out: Path, engine: Engine, lock: int) -> int:
    start = datetime.now(UTC)
    study = _settle_dataset(study, out)
    stale = stale_jobs(study, out)
    _check_dataset(study, stale)
    _prepare(study, out, stale)
    _write_study(study, out, start)
    interrupted, code = False, 0
    if stale:
        progress = Progress(study, out)
        try:
            code = _run_jobs(study, out, engine, lock, progress)
        except KeyboardInterrupt:
            interrupted = True
        progress.close()
    states = _write_study(study, out, start)
    for name, row in states.items():
        if row["state"] == DONE and (lost := [n for n in study.needs(study.jobs[name]) if states[n]["state"] != DONE]):
            print(f"done     {name}, without {' and '.join(lost)}", file=sys.stderr)
        if row["state"] == FAILED:
            print(f"failed   {name}: {row['message']}\n         {_shown(out / name / NOTEBOOK)}", file=sys.stderr)
        elif row["state"] == NOT_RUN and not interrupted:
            print(f"not run  {name}, which follows from a failed one", file=sys.stderr)
    if interrupted:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if code not in (0, 1):
        print(f"snakemake ended with {code}; see {_shown(out / SNAKEMAKE_LOG)}", file=sys.stderr)
    from analysis.report.build import build_report

    print(build_report(out))
    return int(code != 0 or any(row["state"] != DONE for row in states.values()))


def _run_jobs(study: Study, out: Path, engine: Engine, lock: int, progress: Progress) -> int:
    """snakemake's exit status. Raises: KeyboardInterrupt.

    A job that follows from a sweep goes on with the runs of it that are done: what one run came to, such as a loss
    that is no number, does not withhold the others. The next study makes it again, with those that were lost.
    """
    remove(out / SNAKEMAKE_LOG)
    code, follows = 0, _all_jobs(study)
    while True:
        ended = _snakemake(study, out, engine, lock, progress)
        code = code or ended
        _record_silent_failures(out, follows)
        follows = _possible(study, _states(study, out))
        if not follows:
            return code
        _write_plan(study, out, follows)


def _all_jobs(study: Study) -> dict[str, list[str]]:
    """Each job and those that it follows from."""
    return {name: study.needs(job) for name, job in study.jobs.items()}


def _possible(study: Study, states: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The jobs that did not run though of each step that they follow from a job is done, or possible too."""
    found: dict[str, list[str]] = {}
    for name, job in study.jobs.items():
        if states[name]["state"] == NOT_RUN:
            there = [other for other in study.needs(job) if states[other]["state"] == DONE or other in found]
            if {study.jobs[other].step for other in there} == set(job.after.values()):
                found[name] = there
    return found


def _prepare(study: Study, out: Path, stale: Mapping[str, str]) -> None:
    """Leave in the results folder the results that stand, and the plan."""
    _set_aside(study, out)
    for name in stale:  # what stands in these folders from here on is of this study
        try:
            check_folder(out / name)
        except FolderError:
            _move_aside(out, name, "was not made by a run")
        for file in (RESULT, FAILURE, LOG, NOTEBOOK, AT_WORK):
            remove(out / name / file)
    _date_back(study, out)
    if not (out / SNAKEMAKE_RECORDS).is_dir():
        remove(out / SNAKEMAKE_RECORDS)
    _write_plan(study, out, _all_jobs(study))


def _date_back(study: Study, out: Path) -> None:
    """Give results from the future, which a clock that jumps back leaves, the time that it is now.

    For us a file's time means nothing; snakemake fails a job whose result is older than one that it follows from.
    """
    now = time.time()
    for name in study.jobs:
        with suppress(FileNotFoundError):
            if (out / name / RESULT).stat().st_mtime > now:
                os.utime(out / name / RESULT)


def _settle_dataset(study: Study, out: Path) -> Study:
    """The study with `auto` decided once for all its jobs, and what it needs of the network fetched.

    What `auto` came to in this folder stands, also if the network comes back; CIFAR-10 on disk goes before it.
    """
    if study.dataset not in ("auto", *LAYOUTS):
        return study
    from resattn.training import data

    name, here = study.dataset, data.home()
    if name == "auto":
        keep = _settled(out) == "cluttered-digits" and cifar.find(LAYOUTS["cifar10"], here) is None
        name = "cluttered-digits" if keep else data.resolve("auto")[0]
    elif cifar.find(LAYOUTS[name], here) is None:
        data.fetch(name)
    return _with_dataset(study, name)


def _settled(out: Path) -> str | None:
    known = _read_json(out / STUDY)
    return known.get("dataset_used") if known.get("dataset") == "auto" else None


def _with_dataset(study: Study, used: str | None) -> Study:
    if study.dataset != "auto" or used is None:
        return study
    jobs = {}
    for name, job in study.jobs.items():
        if job.parameters.get("dataset") == "auto":
            training = job.training and replace(job.training, dataset=used)
            job = replace(job, parameters={**job.parameters, "dataset": used}, training=training)
        jobs[name] = job
    return replace(study, jobs=jobs)


def _check_dataset(study: Study, stale: Mapping[str, str]) -> None:
    """Read what the jobs will train on, so that an altered file stops the study and not each job; and say what it is.

    Raises: DataError.
    """
    names = {str(study.jobs[name].parameters.get("dataset", "")) for name in stale}
    if names := names - {""}:
        from resattn.training import data

        for name in sorted(names):
            print(data.load(name), file=sys.stderr)


def _set_aside(study: Study, out: Path) -> None:
    """Jobs that the profile no longer names must not meet notebooks that read all jobs of a step."""
    for file in sorted([*out.glob("*/" + INPUTS), *out.glob("*/*/" + INPUTS)]):
        name = file.parent.relative_to(out)
        if name.parts[0] != ASIDE and str(name) not in study.jobs:
            _move_aside(out, str(name), "is not in this profile")


def _move_aside(out: Path, name: str, why: str) -> None:
    aside = out / ASIDE / name
    remove(aside)
    aside.parent.mkdir(parents=True, exist_ok=True)
    (out / name).rename(aside)
    print(f"{name} {why}: moved to {_shown(aside)}", file=sys.stderr)


def _write_plan(study: Study, out: Path, follows: Mapping[str, Sequence[str]]) -> None:
    """What the Snakefile reads: all jobs, and as targets those that are wanted, each with what it waits for."""
    rows = {name: _plan_row(study, job, out) for name, job in study.jobs.items()}
    for name, others in follows.items():
        rows[name]["after"] = list(others)
    write_json(out / PLAN, {"version": VERSION, "targets": list(follows), "jobs": rows})


def _plan_row(study: Study, job: Job, out: Path) -> dict[str, Any]:
    """What the Snakefile needs of a job; paths are relative to the results folder, where snakemake works."""
    arguments = [os.path.relpath(job.notebook, out)]
    for name, value in job.given(out).items():
        arguments += ["-p", f"{name}={parameter_text(value)}"]
    return {
        "arguments": [*arguments, "--out", job.name],
        "after": study.needs(job),
        "inputs": digest(json.dumps(_inputs(job, out), sort_keys=True).encode()),
        "training": job.training is not None,
        "gpu": int(study.gpus > 0 and job.training is not None),
        "timeout_s": job.timeout_s,
    }


def snakemake_command(study: Study, out: Path, engine: Engine) -> list[str]:
    """What runs the plan in a results folder."""
    # GPUs of this machine are counted by snakemake, those of a cluster by the cluster.
    gpus = [f"--resources=gpu={study.gpus}"] if study.gpus and engine.kernels is not None else []
    # As `python -m snakemake`, but ending when it is done, and not outliving this process. Its lock is superseded by
    # ours, which it inherits.
    return [
        sys.executable, "-P", "-c",
        "from analysis.study.processes import end_with, follow_parent; follow_parent(); "
        "from snakemake.cli import main; end_with(main)",
        "--snakefile", str(WORKFLOW / "Snakefile"), "--directory", str(out), "--nolock", "--keep-going",
        "--rerun-incomplete", "--rerun-triggers", "params", "--scheduler", "greedy", *gpus, *engine.words,
    ]  # fmt: skip


def _snakemake(study: Study, out: Path, engine: Engine, lock: int, progress: Progress) -> int:
    """snakemake's exit status; its own talk goes to a file. Raises: KeyboardInterrupt once it is down."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())}
    if engine.kernels is not None:
        environment[PLACES] = f"{engine.kernels}:{out / KERNELS}"
    with (out / SNAKEMAKE_LOG).open("a") as log:
        process = subprocess.Popen(
            snakemake_command(study, out, engine), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
        try:
            import analysis.report.build  # noqa: F401 while snakemake starts and this has nothing else to do

            while (code := process.poll()) is None:
                progress.update()
                _date_back(study, out)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
            progress.update()
            return code
        except KeyboardInterrupt:
            signal_group(process.pid)
            try:
                process.wait(timeout=30)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
            raise


def _states(study: Study, out: Path) -> dict[str, dict[str, Any]]:
    """What became of each job."""
    return {name: _state(out / name) for name in study.jobs}


def _state(folder: Path, *, begun: str = NOT_RUN) -> dict[str, Any]:
    """What became of a job, from its own files. `begun`: what it is when it began and has not said how it ended."""
    if (folder / RESULT).exists():
        return {"state": DONE, "message": None, "elapsed_s": _read_json(folder / RESULT).get("elapsed_s")}
    if (folder / FAILURE).exists():
        return {"state": FAILED, "message": _read_json(folder / FAILURE).get("message"), "elapsed_s": None}
    return {"state": begun if (folder / AT_WORK).exists() else NOT_RUN, "message": None, "elapsed_s": None}


def _record_silent_failures(out: Path, follows: Mapping[str, Sequence[str]]) -> None:
    """Write down what became of the jobs that were killed, or refused to start: they had no chance to do so.

    `follows`: what each job that was to run waited for.
    """
    for name, others in follows.items():
        if _state(out / name)["state"] == NOT_RUN and all(_state(out / other)["state"] == DONE for other in others):
            log = out / name / LOG
            began = log.exists() and log.stat().st_size > 0
            if began:
                _await_end(out / name)
            why = "its process ended without a word (killed?)" if began else "it did not start"
            record_failure(out / name, "KilledError" if began else "StartError", f"{why}; see {SNAKEMAKE_LOG}")


def _await_end(folder: Path) -> None:
    """Let a job whose snakemake was killed wind down, so that it does not write over what is said of it."""
    for _ in range(150):
        try:
            with exclusive(folder / LOCK, what=str(folder), wait_s=0):
                return
        except FolderInUseError:
            time.sleep(0.1)


def _write_study(study: Study, out: Path, start: datetime) -> dict[str, dict[str, Any]]:
    """The states of the jobs, which go to study.json with what else the report needs to know of the study."""
    states = _states(study, out)
    record = provenance(start=start)
    used = {job.parameters["dataset"] for job in study.jobs.values() if "dataset" in job.parameters}
    write_json(
        out / STUDY,
        {
            "version": VERSION,
            "profile": study.name,
            "dataset": study.dataset,
            "dataset_used": min(map(str, used), default=None),
            "jobs": states,
            "elapsed_s": record["elapsed_s"],
            "provenance": record,
        },
    )
    return states


def _shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


class Progress:
    """One line on a terminal, rewritten; elsewhere a line for each job that ends."""

    def __init__(self, study: Study, out: Path) -> None:
        self.study, self.out = study, out
        self.states = _states(study, out)
        self.width = 0

    def update(self) -> None:
        for name, before in self.states.items():
            if before["state"] != DONE:  # one that failed may be tried again
                now = self.states[name] = _state(self.out / name, begun=RUNNING)
                if now["state"] in {DONE, FAILED} - {before["state"]} and not sys.stderr.isatty():
                    self._say_ended(name, now)
        if sys.stderr.isatty():
            count = Counter(row["state"] for row in self.states.values())
            line = f"{count[DONE]} of {len(self.states)} done, {count[RUNNING]} running, {count[FAILED]} failed"
            line += self._left(count[RUNNING])
            print(f"\r{line:{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(line)

    def close(self) -> None:
        if self.width:
            print(file=sys.stderr)

    def _say_ended(self, name: str, row: Mapping[str, Any]) -> None:
        ended = sum(row["state"] in (DONE, FAILED) for row in self.states.values())
        took = f" in {row['elapsed_s']:.0f} s" if row["elapsed_s"] is not None else ""
        print(f"{ended}/{len(self.states)} {name} {row['state']}{took}", file=sys.stderr, flush=True)

    def _left(self, n_running: int) -> str:
        """What is left, if each job takes as long as those of its notebook, or of all, have taken.

        As many at a time as are running now: how many a cluster will run is not known.
        """
        took: dict[str, list[float]] = {}
        for name, row in self.states.items():
            if row["elapsed_s"] is not None:
                took.setdefault(self.study.jobs[name].step, []).append(row["elapsed_s"])
        everything = [elapsed_s for each in took.values() for elapsed_s in each]
        if not everything:
            return ""
        left = [self.study.jobs[name].step for name, row in self.states.items() if row["state"] in (RUNNING, NOT_RUN)]
        left_s = sum(fmean(took.get(step, everything)) for step in left) / max(n_running, 1)
        return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"
