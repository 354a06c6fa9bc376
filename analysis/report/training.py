"""What the page says of training runs, and what they allow to say about which network is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from analysis.report.gaps import part
from analysis.report.reading import Study
from analysis.tables import schemas, steps
from analysis.tables.formats import display_name
from resattn.training.config import DATASETS

LEAST_SEEDS = 6  # as `analysis.statistics.stats.LEAST_PAIRS`; a test compares them
SIGNIFICANT = 0.05


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
        """Seeds that every network was trained with."""
        return len(set.intersection(*(set(result.errors) for result in self.results)))

    @property
    def n_runs(self) -> int:
        return sum(len(result.errors) for result in self.results)

    @property
    def decides(self) -> bool:
        """Are there runs enough for any claim about which network is better?"""
        return self.n_seeds >= LEAST_SEEDS and len(self.datasets) == 1 and len(self.results) > 1


def training(study: Study) -> Training:
    """The runs that 60_compare gathered; where it did not, those that each run left. Raises: MissingError."""
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
    """Test error of the reference minus that of a network, in points of %, seed by seed."""

    network: str
    reference: str
    n: int
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    note: str
    label_noise: float

    @property
    def is_shown(self) -> bool:
        """Do enough runs show that the two differ?"""
        if self.n < LEAST_SEEDS or self.p_value is None or self.low is None or self.high is None:
            return False
        return self.p_value < SIGNIFICANT and not self.low <= 0 <= self.high


def differences(study: Study) -> tuple[Difference, ...]:
    """Paired differences between networks, as 60_compare tested them. Raises: MissingError."""
    names = [f.name for f in fields(Difference)]
    rows: list[dict[str, Any]] = [
        {name: None if row[name] != row[name] else row[name] for name in names}
        for row in study.rows(schemas.DIFFERENCES)
    ]
    return tuple(Difference(**row) for row in rows)


def pays(trained: Training, tested: Sequence[Difference] | None) -> str:
    """What the runs allow to say about which network is better; with few seeds, nothing."""
    if len(trained.results) < 2:
        return "One network alone allows no comparison."
    if len(trained.datasets) > 1:
        return "The runs used different data, so they are not compared."
    if not trained.decides:
        return f"With fewer than {LEAST_SEEDS} seeds no order of the networks is claimed, whatever the means are."
    if not tested:
        return "The paired differences were not tested, so no order of the networks is claimed."
    sentences = [_difference_words(row) for row in tested]
    if len(tested) > 1 and any(row.is_shown for row in tested):
        least = min(row.p_value for row in tested if row.p_value is not None)
        is_kept = least * len(tested) < SIGNIFICANT
        sentences.append(
            f"Each p is that of one comparison alone; corrected for all {len(tested)} (Bonferroni), "
            f"{'the least is' if is_kept else 'none is'} below {SIGNIFICANT:g}."
        )
    return " ".join(sentences)


def _difference_words(tested: Difference) -> str:
    reference, network = display_name(tested.reference), display_name(tested.network)
    if tested.label_noise:
        network += f" with {100 * tested.label_noise:.0f} % of the labels wrong"
    if not tested.is_shown:
        return f"No difference between {reference} and {network} is shown."
    order = "lower" if tested.mean < 0 else "higher"
    by = f"{abs(tested.mean):.2g} points {order} than that of {network}"
    return f"The test error of {reference} is {by} (p = {tested.p_value:.2g})."


def images_words(images: Sequence[int]) -> str:
    return " or ".join("all images" if n == 0 else f"{n:,} images" for n in images)
