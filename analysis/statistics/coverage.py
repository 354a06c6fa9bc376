"""How often the intervals contain the true value: a simulation of the rule with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics import dunnett
from analysis.statistics.comparisons import difference_error
from analysis.statistics.intervals import bootstrap_interval, t_reach

N_NETWORKS = 4  # three simultaneous comparisons
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
# Errors of single runs about their true mean of 0: distribution -> draws of a shape.
DISTRIBUTIONS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t, 5 degrees of freedom": lambda rng, shape: rng.standard_t(5, shape),
    "skewed (exponential)": lambda rng, shape: rng.standard_exponential(shape) - 1,
}


@dataclass(frozen=True)
class Coverage:
    """Shares of simulated studies whose 95 % intervals contain the true value."""

    distribution: str
    n_seeds: int
    mean: float  # of one network, t interval
    difference: float  # of two networks
    simultaneous: float  # all three of four networks
    bootstrap: float | None  # of one network, BCa interval


def coverages(n_seeds: tuple[int, ...] = (6, 8, 10, 20), studies: int = 20_000, boots: int = 0) -> Iterator[Coverage]:
    """One row for each distribution and number of seeds. `boots`: studies for the slower bootstrap, 0 for none."""
    rng = np.random.default_rng(0)
    for name, draw in DISTRIBUTIONS.items():
        for n in n_seeds:
            table = draw(rng, (studies, N_NETWORKS, n))
            means = table.mean(-1)
            pair = np.abs(means[:, 0] - means[:, 1]) <= dunnett.critical(1, n - 1) * difference_error(table[:, :2])
            reach = dunnett.critical(N_NETWORKS - 1, (N_NETWORKS - 1) * (n - 1)) * difference_error(table)
            every = (np.abs(means[:, :1] - means[:, 1:]) <= reach[:, None]).all(1)
            alone = np.abs(means[:, 0]) <= t_reach(table[:, 0])
            held = None
            if boots:
                low, high = bootstrap_interval(table[:boots, 0], resamples=999)
                held = float(((low <= 0) & (high >= 0)).mean())
            yield Coverage(name, n, float(alone.mean()), float(pair.mean()), float(every.mean()), held)
