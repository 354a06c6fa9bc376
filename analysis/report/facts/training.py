"""Training runs, as the report shows them, and their conclusions about the order of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from analysis.report.gaps import part
from analysis.report.reading import Study
from analysis.tables import schemas, steps
from resattn.training.config import DATASETS


@dataclass(frozen=True)
class Result:
    """All runs of one network: errors in percent by seed, and what the network is."""

    network: str
    errors: Mapping[int, float]
    facts: Mapping[str, Any]
    label_noise: float

    @property
    def mean(self) -> float:
        return sum(self.errors.values()) / len(self.errors)

    @property
    def low(self) -> float:
        return min(self.errors.values())

    @property
    def high(self) -> float:
        return max(self.errors.values())


@dataclass(frozen=True)
class Training:
    """The runs that were compared."""

    datasets: tuple[str, ...]
    results: tuple[Result, ...]
    epochs: tuple[int, ...]
    images: tuple[int, ...]
    n_planned: int
    chance_pct: float | None  # the error at chance level, where the number of classes is known

    @property
    def n_seeds(self) -> int:
        """The number of seeds with which every network was trained."""
        return len(set.intersection(*(set(result.errors) for result in self.results)))

    @property
    def n_runs(self) -> int:
        return sum(len(result.errors) for result in self.results)


def training(study: Study) -> Training:
    """The runs gathered by 60_compare; without it, those that each job left. Raises: MissingError."""
    if (compared := part(study.rows, schemas.RUNS).facts) is not None:
        rows = compared
    else:
        left = (part(study.rows, schemas.RUN, job.name) for job in study.of(steps.TRAIN))
        rows = [row for run in left if run.facts is not None for row in run.facts]
    if not rows:
        raise study.missing(schemas.RUN, next((job.name for job in study.of(steps.TRAIN)), steps.TRAIN))
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["label_noise"]), []).append(row)
    results = tuple(
        Result(name, {row["seed"]: row["test_error_pct"] for row in group}, group[0], noise)
        for (name, noise), group in groups.items()
    )
    return Training(
        tuple(dict.fromkeys(row["dataset"] for row in rows)),
        # The attention network first, then by how deep it is.
        tuple(sorted(results, key=lambda r: (r.label_noise, "attention" not in r.network, r.facts["longest_path"]))),
        tuple(sorted({row["epochs"] for row in rows})),
        tuple(sorted({row["images"] for row in rows})),
        len(study.of(steps.TRAIN)),
        _chance_pct(study),
    )


def _chance_pct(study: Study) -> float | None:
    given = {str(job.parameters.get("dataset")) for job in study.of(steps.TRAIN) if job.result}
    classes = {DATASETS[name].classes for name in given if name in DATASETS}
    return 100 * (1 - 1 / classes.pop()) if len(given) == len(classes) == 1 else None


@dataclass(frozen=True)
class Difference:
    """Test error of the reference minus that of a network, in percentage points, and the conclusion of 60_compare."""

    network: str
    reference: str
    label_noise: float
    n: int
    mean: float | None
    low: float | None
    high: float | None
    p_value: float | None
    conclusion: str
    scope: str


def differences(study: Study) -> tuple[Difference, ...]:
    """Differences between networks with the conclusions of 60_compare. Raises: MissingError."""
    names = [f.name for f in fields(Difference)]
    rows: list[dict[str, Any]] = [
        {name: None if row[name] != row[name] else row[name] for name in names}
        for row in study.rows(schemas.DIFFERENCES)
    ]
    return tuple(Difference(**row) for row in rows)


def pays(trained: Training, concluded: Sequence[Difference] | None) -> str:
    """Which network has the lower error: the conclusions of 60_compare, each once."""
    if len(trained.results) < 2:
        return "One network alone allows no comparison."
    if not concluded:
        return "The networks were not compared, so no order of them is claimed."
    # Where nothing is claimed there is no interval whose scope could be stated.
    rows = [row.conclusion for row in concluded] + [row.scope for row in concluded if row.low is not None]
    return " ".join(dict.fromkeys(rows))


def images_words(images: Sequence[int]) -> str:
    return " or ".join("all images" if n == 0 else f"{n:,} images" for n in images)
