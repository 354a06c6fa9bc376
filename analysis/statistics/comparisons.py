"""Several networks against a reference with the same seeds: differences, simultaneous intervals, equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import dunnett
from analysis.statistics.intervals import CONFIDENCE, StatsError, finite, least_seeds, mean_interval
from analysis.tables.formats import counted

NEAR_CHANCE = 0.75  # of the chance level: a network whose mean error is above that has hardly learned


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Error of the reference minus that of a network: the mean over the seeds that all networks share.

    `low`, `high` and `p_value` are corrected for all `n_comparisons`. If they are None, `note` says why.
    """

    network: str
    reference: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    n_comparisons: int
    left_out: tuple[int, ...] = ()  # seeds that not all networks have
    df: int = 0
    least: int = 0  # seeds that so many comparisons need
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    note: str = ""

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences)) if self.differences else float("nan")

    @property
    def order(self) -> str:
        """`lower` or `higher`: the error of the reference; empty if neither is shown."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return ""
        return "lower" if self.high < 0 else "higher"

    def equivalence(self, margin: float) -> str:
        """Whether the two are equal within `margin` by two one-sided tests at 5 %, as a sentence.

        Both tests reject if the 90 % t interval of the paired differences lies within the margin. It is not corrected
        for other comparisons.

        Source: Schuirmann 1987, A comparison of the two one-sided tests procedure and the power approach.
        Raises: StatsError for a margin that is not above 0.
        """
        if not margin > 0:
            raise StatsError(f"the margin must be above 0, found {margin}")
        if self.note:
            return f"Equivalence within {margin:g} is not judged: {self.note}."
        found = mean_interval(self.differences, confidence=2 * CONFIDENCE - 1)
        if found.low is None or found.high is None:
            return f"Equivalence within {margin:g} is not judged: {found.note}."
        where = f"90 % interval of the difference: {found.low:.2f} to {found.high:.2f}"
        if -margin < found.low and found.high < margin:
            return f"Equivalent within {margin:g} ({where})."
        return f"Equivalence within {margin:g} is not shown ({where})."


def compare_networks(
    errors: Mapping[str, Mapping[int, float]], reference: str, *, chance: float | None = None,
    least: int | None = None,
) -> tuple[Comparison, ...]:  # fmt: skip
    """The reference against each other network, under the two-way additive model error ~ network + seed.

    `errors`: network -> seed -> error of its run (a frame with a column for each network: `frame.to_dict()`). Only
    seeds that all networks have are used. With k networks and n seeds the residual has (k-1)(n-1) degrees of freedom,
    and k-1 comparisons are corrected for, whichever network is the reference: a pair has one p-value. No order is
    given for fewer than `least` seeds (`least_seeds(k-1)`), nor of a network whose mean error is above three quarters
    of the `chance` level.

    Raises: StatsError for an unknown reference, or an error that is not a number.
    """
    if reference not in errors:
        raise StatsError(f"no run of {reference!r} (there are runs of: {', '.join(errors)})")
    shared = sorted(set.intersection(*(set(by_seed) for by_seed in errors.values())))
    left_out = tuple(sorted(set().union(*errors.values()) - set(shared)))
    table = np.array([finite([errors[name][s] for s in shared]) if shared else [] for name in errors], dtype=float)
    k, n = table.shape
    row = {name: i for i, name in enumerate(errors)}
    least = least_seeds(k - 1) if least is None else least
    comparisons = "1 comparison needs" if k == 2 else f"{k - 1} comparisons need"
    few = f"all networks share {counted(n, 'seed')}, and {comparisons} at least {least}" if n < least else ""
    found = []
    for network in errors:
        if network == reference:
            continue
        differences = table[row[reference]] - table[row[network]]
        note = few or _near_chance([table[row[name]].mean() for name in (reference, network)], chance)
        df = (k - 1) * (n - 1)
        low = high = p_value = None
        if not note:
            error = float(difference_error(table))
            if error <= 1e-12 * np.abs(table).max():
                note = "the differences have no spread"
            else:
                mean, reach = float(differences.mean()), dunnett.critical(k - 1, df, CONFIDENCE) * error
                low, high = mean - reach, mean + reach
                p_value = dunnett.tail(abs(mean) / error, k - 1, df)
        found.append(
            Comparison(
                network=network, reference=reference, seeds=tuple(shared), differences=tuple(map(float, differences)),
                n_comparisons=k - 1, left_out=left_out, df=df, least=least, low=low, high=high,
                p_value=p_value, note=note,
            )
        )  # fmt: skip
    return tuple(found)


def is_near_chance(mean_error: float, chance: float | None) -> bool:
    """Whether a network is near chance level; its order then says nothing about trained networks."""
    return chance is not None and mean_error > NEAR_CHANCE * chance


def _near_chance(means: Sequence[float], chance: float | None) -> str:
    near = [
        f"the mean error of the {name} ({mean:.1f} %) is near chance level ({chance:g} %)"
        for name, mean in zip(("first", "second"), means, strict=True)
        if is_near_chance(mean, chance)
    ]
    return " and ".join(near)


def difference_error(table: np.ndarray) -> np.ndarray:
    """Standard error of the difference between two networks' means; `table`: (..., networks, seeds).

    Computed from the residual of error ~ network + seed; for two networks it is that of the paired t test.
    """
    k, n = table.shape[-2:]
    means = table.mean(-1, keepdims=True) + table.mean(-2, keepdims=True) - table.mean((-2, -1), keepdims=True)
    return np.sqrt(2 * ((table - means) ** 2).sum((-2, -1)) / ((k - 1) * (n - 1)) / n)
