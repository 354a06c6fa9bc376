"""The mean of a few runs with its confidence interval, and the smallest number of runs for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.tables.formats import counted

CONFIDENCE = 0.95
# Below, the bootstrap interval is too narrow: it covers 86 % at six runs. See docs/reference/statistics.md.
LEAST_BOOTSTRAP = 20
RESAMPLES = 9_999


class StatsError(ValueError):
    """Runs that cannot be compared; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its confidence interval; without an interval `note` says why."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def least_seeds(n_comparisons: int = 1) -> int:
    """The smallest number of seeds for so many simultaneous comparisons: 6 for 1, 7 for 2 or 3, 8 for 4 to 6.

    With fewer seeds, differences that all have one sign are not significant at 5 % by the exact sign test, corrected
    for all comparisons (Bonferroni). That test assumes nothing about the distribution of errors.
    """
    n = 1
    while n_comparisons * 2 ** (1 - n) > 1 - CONFIDENCE + 1e-12:
        n += 1
    return n


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The mean with its t interval; from 20 values on the BCa bootstrap interval. None below 6 values.

    The same values give the same interval.

    Source: Student 1908, The probable error of a mean; Efron 1987, Better bootstrap confidence intervals.
    Raises: StatsError for no value or one that is not a number.
    """
    x = finite(values)
    n, mean, least = len(x), float(x.mean()), least_seeds()
    if n < least:
        return Interval(n=n, mean=mean, note=f"{counted(n, 'run')}: an interval needs at least {least}")
    if np.ptp(x) <= 1e-12 * np.abs(x).max():  # up to rounding
        return Interval(n=n, mean=mean, note="all values are equal")
    if n < LEAST_BOOTSTRAP:
        reach = float(t_reach(x, confidence))
        return Interval(n=n, mean=mean, low=mean - reach, high=mean + reach)
    low, high = bootstrap_interval(x, confidence)
    return Interval(n=n, mean=mean, low=float(low), high=float(high))


def t_reach(x: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Half the width of the t interval of the mean, over the last axis."""
    n = x.shape[-1]
    return special.stdtrit(n - 1, (1 + confidence) / 2) * x.std(-1, ddof=1) / np.sqrt(n)


def bootstrap_interval(x: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> np.ndarray:
    """Both ends of the BCa interval of the mean, over the last axis; the same values give the same ends."""
    from scipy import stats

    found = stats.bootstrap(
        (x,), np.mean, axis=-1, confidence_level=confidence, n_resamples=resamples, rng=np.random.default_rng(0)
    ).confidence_interval
    return np.stack([found.low, found.high])


def finite(values: Sequence[float]) -> np.ndarray:
    """The values as an array. Raises: StatsError for no value or one that is not a number."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x):
        raise StatsError(f"at least one value is needed, found {list(np.shape(x))}")
    if not np.isfinite(x).all():
        raise StatsError(f"value {int(np.flatnonzero(~np.isfinite(x))[0])} is {x[~np.isfinite(x)][0]}, not a number")
    return x
