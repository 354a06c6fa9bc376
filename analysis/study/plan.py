"""Which jobs have to run and why, from the results of the jobs and not from snakemake's records.

A job runs again if its result is missing or altered, or if something it depends on has changed. A training run does
not: it is finished when its record says so, and its job only reads it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.study.dependencies import changes, run_inputs
from analysis.study.job_folder import RESULT, RUN, read_inputs, read_result
from analysis.study.notebook_parameters import check_parameters, is_place, parameter_text
from analysis.study.profiles import Profile, Task
from analysis.study.progress import DONE, NOT_RUN
from analysis.tables.files import digest, read_json, write_json
from analysis.tables.provenance import ROOT
from resattn.training.record import RecordError, read_record

VERSION = 1  # of a results folder
PLAN = "plan.json"
SHOWN = 3  # names of what changed


def stale_jobs(profile: Profile, out: Path) -> dict[str, str]:
    """The jobs that have to run, each with the reason, in order."""
    stale: dict[str, str] = {}
    for name, task in profile.tasks.items():
        result = read_result(out / name)
        if waits := [other for other in profile.needs(task) if other in stale]:
            stale[name] = f"after {waits[0]}" if len(waits) == 1 else f"after {len(waits)} jobs"
        elif result is None:
            stale[name] = "its files were altered" if (out / name / RESULT).exists() else "no result yet"
        elif changed := changes(result.get("inputs"), inputs_of(task, out)):
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            stale[name] = f"changed: {', '.join(changed[:SHOWN])}{more}"
    return stale


def inputs_of(task: Task, out: Path) -> dict[str, Any]:
    """What a task depends on, as its run would record it now."""
    return run_inputs(task.notebook, check_parameters(task.notebook, task.given(out)))


def macs_of(profile: Profile) -> dict[str, int]:
    """The expected cost of the training jobs: multiply-adds of an image, times images, epochs and 3.

    The factor 3 counts the backward pass as twice the forward pass. Tests and other notebooks are not included.
    """
    training = {name: task.training for name, task in profile.tasks.items() if task.training}
    if not training:
        return {}
    from resattn.measures.captured import captured
    from resattn.measures.quantities import count

    # Neither merge nor gate has a layer: networks that differ in these alone are captured once.
    plain = {name: replace(config.spec, name="", merge="residual", gate="mixed") for name, config in training.items()}
    macs = {spec: count(captured(spec), "macs") for spec in dict.fromkeys(plain.values())}
    return {name: 3 * macs[plain[name]] * config.steps * config.batch_size for name, config in training.items()}


def is_trained(task: Task, out: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether the training run of a task is finished in its folder, with the same images as now on disk."""
    if task.training is None or read_inputs(out / task.name).get("data") != inputs["data"]:
        return False
    try:
        return read_record(out / task.name / RUN, task.training) is not None
    except RecordError:
        return False


KEPT = ROOT / "results" / "reference"  # a study that ran: how long its jobs took


@dataclass(frozen=True)
class Speed:
    """The speed of a finished study: seconds of each step without training, and multiply-adds a second in training."""

    step_s: Mapping[str, float]
    macs_per_s: float

    @classmethod
    def of(cls, folder: Path) -> Speed:
        times: dict[str, list[float]] = {}
        for name, row in (read_json(folder / "study.json").get("jobs") or {}).items():
            if isinstance(elapsed := row.get("elapsed_s"), int | float):
                times.setdefault(name.partition("/")[0], []).append(elapsed)
        macs, elapsed_s = 0.0, 0.0
        for path in folder.glob("60_compare/tables/runs.csv"):
            with path.open(encoding="utf-8", newline="") as file:
                for run in csv.DictReader(file):
                    macs += float(run["training_macs"])
                    elapsed_s += float(run["elapsed_s"])
        return cls({step: fmean(taken) for step, taken in times.items()}, macs / elapsed_s if elapsed_s else 0.0)

    def job_s(self, task: Task, macs: int) -> float:
        """Expected seconds of a job; a training job takes its multiply-adds at the speed of training."""
        if macs and self.macs_per_s:
            return macs / self.macs_per_s
        return self.step_s.get(task.notebook.stem, fmean(self.step_s.values()) if self.step_s else 0.0)


def describe(profile: Profile, out: Path, cores: int = 1) -> str:
    """The plan as text: each job, whether it has to run and why, the cost of training, and the expected time."""
    stale, cost = stale_jobs(profile, out), macs_of(profile)
    trained = {name for name in stale if is_trained(profile.tasks[name], out, inputs_of(profile.tasks[name], out))}
    width, lines = max(map(len, profile.tasks), default=0), []
    for name in profile.tasks:
        price = f"{cost[name] / 1e12:.1f} TMACs" if name in cost else ""
        what = f"run: {stale[name]}" if name in stale else "done"
        lines.append(f"{name:{width}}  {price:>10}  {what}" + (" (trained already)" if name in trained else ""))
    total = sum(macs for name, macs in cost.items() if name in stale and name not in trained) / 1e12
    lines.append(f"{len(stale)} of {len(profile.tasks)} jobs to run; training: {total:,.1f} TMACs (forward, backward)")
    if stale and (speed := Speed.of(KEPT)).step_s:
        seconds = {n: speed.job_s(profile.tasks[n], 0 if n in trained else cost.get(n, 0)) for n in stale}
        at_once = max(1, min(cores, len(stale)))
        jobs = f"{at_once} job{'s' if at_once > 1 else ''} at a time"
        trains = f" ({speed.macs_per_s / 1e9:.0f} GMACs/s in training)" if cost else ""
        lines.append(f"about {_span(max(sum(seconds.values()) / at_once, *seconds.values()))}, {jobs}, on a machine")
        lines.append(f"as fast as the one of results/reference{trains}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    """A time to wait, in minutes below an hour and a half, else in hours, from two days on in days too."""
    hours = seconds / 3600
    if hours < 1.5:
        return f"{max(round(seconds / 60), 1)} min"
    days = f" ({hours / 24:.1f} days)" if hours >= 48 else ""
    return f"{hours:,.1f} hours{days}" if hours < 10 else f"{hours:,.0f} hours{days}"


def all_tasks(profile: Profile) -> dict[str, list[str]]:
    """Each job with the jobs that it depends on."""
    return {name: profile.needs(task) for name, task in profile.tasks.items()}


def possible(profile: Profile, states: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The jobs that did not run although for each step they depend on a job is done, or possible too."""
    found: dict[str, list[str]] = {}
    for name, task in profile.tasks.items():
        if states[name]["state"] == NOT_RUN:
            there = [other for other in profile.needs(task) if states[other]["state"] == DONE or other in found]
            if {profile.tasks[other].step for other in there} == set(task.after.values()):
                found[name] = there
    return found


def write_plan(profile: Profile, out: Path, follows: Mapping[str, Sequence[str]]) -> None:
    """Writes the plan for the Snakefile: all jobs, and as targets the wanted ones, each with its dependencies."""
    rows = {name: _plan_row(profile, task, out) for name, task in profile.tasks.items()}
    for name, others in follows.items():
        rows[name]["after"] = list(others)
    write_json(out / PLAN, {"version": VERSION, "targets": list(follows), "jobs": rows})


def _plan_row(profile: Profile, task: Task, out: Path) -> dict[str, Any]:
    """What the Snakefile needs of a task; paths are relative to the results folder, where snakemake works."""
    arguments = [os.path.relpath(task.notebook, out)]
    for name, value in task.given(out).items():
        if is_place(name, value):  # the job starts in the results folder, and its notebook in its own
            value = os.path.relpath(task.notebook.parent / str(value), out)
        arguments += ["-p", f"{name}={parameter_text(value)}"]
    return {
        "arguments": [*arguments, "--out", task.name],
        "after": profile.needs(task),
        # What a job reads of others is made by the same study: it may not be there yet.
        "inputs": digest(json.dumps(inputs_of(task, out) | {"read": {}}, sort_keys=True).encode()),
        "training": task.training is not None,
        "gpu": int(profile.gpus > 0 and task.training is not None),
        "timeout_s": task.timeout_s,
    }
