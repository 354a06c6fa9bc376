"""How much two series of runs differ, and how sure that is. Runs are paired by seed; nothing is claimed from few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# An exact two-sided sign-flip test of n pairs cannot give less than 2 / 2**n: 0.0625 for five, 0.031 for six.
LEAST_PAIRS = 6
# Up to here every sign pattern is tried, beyond it so many drawn ones.
MOST_EXACT_PAIRS, DRAWN_PATTERNS = 16, 99_999
RESAMPLES = 9_999


class StatsError(ValueError):
    """Series that cannot be compared; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and, where the values allow one, its confidence interval; `note` says why there is none."""

    n: int
    mean: float
    low: float | None
    high: float | None
    confidence: float
    note: str = ""

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3g} (n={self.n}; {self.note})"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}] ({self.confidence:.0%} BCa, n={self.n})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """first - second, seed by seed. `p_value` is that of the exact sign-flip test, absent below six pairs."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    interval: Interval
    p_value: float | None
    note: str

    def equivalence(self, margin: float) -> str:
        """Whether the interval lies within +-margin, as a sentence: equivalence is an interval, not a missing p-value.

        Raises: StatsError for a margin that is not above 0.
        """
        if not margin > 0:
            raise StatsError(f"the margin must be above 0, found {margin}")
        low, high = self.interval.low, self.interval.high
        if low is None or high is None:
            return (
                f"The difference has no interval ({self.interval.note}): nothing is said about a margin of {margin:g}."
            )
        if self.interval.n < LEAST_PAIRS:
            return (
                f"{self.interval.n} pairs: nothing is said about a margin of {margin:g}, since the interval of fewer "
                f"than {LEAST_PAIRS} is narrower than it should be."
            )
        where = f"The {self.interval.confidence:.0%} interval of the difference, [{low:.3g}, {high:.3g}],"
        if -margin <= low and high <= margin:
            return f"{where} lies within +-{margin:g}: equivalent within that margin."
        if low > margin or high < -margin:
            return f"{where} lies outside +-{margin:g}: not equivalent within that margin."
        return f"{where} reaches beyond +-{margin:g}: neither equivalence nor a difference of that size is shown."


def mean_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean with its BCa bootstrap interval; the same values and seed give the same one.

    Source: Efron 1987, Better bootstrap confidence intervals (as scipy.stats.bootstrap).
    Raises: StatsError for no value or one that is no number.
    """
    x = _finite(values)
    mean = float(x.mean())
    # Up to rounding: the bootstrap is not defined for values without spread.
    is_flat = np.ptp(x) <= 1e-12 * np.abs(x).max()
    missing = "one run has no spread" if len(x) == 1 else "all values are equal" if is_flat else ""
    if missing:
        return Interval(n=len(x), mean=mean, low=None, high=None, confidence=confidence, note=missing)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(n=len(x), mean=mean, low=float(found.low), high=float(found.high), confidence=confidence)


def sign_flip_p(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of 0: the share of sign patterns with a mean at least as far from 0.

    Exact up to 16 pairs; beyond, an estimate from 99,999 drawn patterns.

    Source: Fisher 1935, The Design of Experiments, section 21.
    Raises: StatsError for no value or one that is no number.
    """
    x = _finite(differences)
    if len(x) == 1 or not x.any():  # every pattern is as far from 0
        return 1.0
    n_patterns = 2 ** len(x) if len(x) <= MOST_EXACT_PAIRS else DRAWN_PATTERNS
    found = stats.permutation_test(
        (x,), _distance_from_zero, permutation_type="samples", vectorized=True, alternative="greater",
        n_resamples=n_patterns, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def compare(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """first - second over the seeds that both have; each maps a seed to the result of its run.

    Raises: StatsError where no seed is shared, or for a value that is no number.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise StatsError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    differences = tuple(float(first[s] - second[s]) for s in seeds)
    interval = mean_interval(differences, confidence=confidence, resamples=resamples, seed=seed)
    left_out = len(first.keys() ^ second.keys())
    notes = [f"Left out for want of a partner of the same seed: {left_out}."] if left_out else []
    if len(seeds) < LEAST_PAIRS:
        p_value = None
        least = 2 / 2 ** len(seeds)
        notes.append(
            f"No p-value: with {len(seeds)} pairs the sign-flip test cannot give less than {least:g}; "
            f"{LEAST_PAIRS} pairs are the fewest that could tell."
        )
    else:
        p_value = sign_flip_p(differences, seed=seed)
        kind = "exact" if len(seeds) <= MOST_EXACT_PAIRS else "estimated"
        notes.append(f"Sign-flip test, {kind}, two-sided, {len(seeds)} pairs: p = {p_value:.3g}.")
    return Comparison(seeds=seeds, differences=differences, interval=interval, p_value=p_value, note=" ".join(notes))


def _distance_from_zero(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.abs(np.mean(x, axis=axis))


def _finite(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x):
        raise StatsError(f"at least one value is needed, found {list(np.shape(x))}")
    if not np.isfinite(x).all():
        raise StatsError(f"value {int(np.flatnonzero(~np.isfinite(x))[0])} is {x[~np.isfinite(x)][0]}, not a number")
    return x
