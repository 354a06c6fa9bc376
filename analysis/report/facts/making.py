"""Provenance of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.report.reading import Study, mapping
from analysis.tables import steps


@dataclass(frozen=True)
class Making:
    """Commits, versions, machines and seeds of a study, each value once, in order of appearance."""

    commits: tuple[str, ...]
    dirty: bool
    versions: Mapping[str, tuple[str, ...]]
    machines: tuple[str, ...]
    devices: tuple[str, ...]
    threads: tuple[str, ...]
    seeds: tuple[int, ...]
    start: str
    job_time_s: float


def making(study: Study) -> Making | None:
    """The provenance of all jobs; None if no job left one."""
    records = [job.provenance for job in study.jobs if job.provenance]
    if not records:
        return None

    def once(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(record[name]) for record in records if record.get(name) not in (None, "")))

    versions: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in mapping(record.get("versions")).items():
            versions.setdefault(str(package), {})[str(version)] = None
    parameters = [job.parameters for job in study.of(steps.TRAIN)]
    return Making(
        commits=once("commit"),
        dirty=any(record.get("dirty") for record in records),
        versions={package: tuple(values) for package, values in versions.items()},
        machines=once("cpu"),
        devices=once("device"),
        threads=once("threads"),
        seeds=tuple(sorted({p["seed"] for p in parameters if isinstance(p.get("seed"), int)})),
        start=min(once("start"), default=""),
        job_time_s=sum(job.elapsed_s for job in study.jobs if job.elapsed_s is not None),
    )
