"""The protocol's sweep in numbers: spread of a run, difference that the budgets can detect, time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from analysis.experiment.protocol import SWEEP, State
from analysis.statistics import dunnett


def detectable(
    n_seeds: int, *, k: int = 3, n_networks: int = 4, sd: float = 1.0, power: float = 0.8, confidence: float = 0.95
) -> float:
    """The true difference of two networks that one of k simultaneous comparisons detects with this power.

    In the unit of `sd`, the residual standard deviation of a run in the model error ~ network + seed.
    """
    from scipy import stats
    from scipy.optimize import brentq

    df = (n_networks - 1) * (n_seeds - 1)
    critical = dunnett.critical(k, df, confidence)
    # A difference found with the wrong sign has a probability far below any power that is asked for.
    shift = brentq(lambda d: stats.nct.sf(critical, df, d) - power, 0, critical + 10)
    return float(shift * sd * np.sqrt(2 / n_seeds))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The sweep in numbers. `sd_points`: the residual of error ~ (network, rate) + seed, with `df` degrees of freedom;
    `detectable_points`: the difference that the full budgets detect with the protocol's power.
    """

    rates: Mapping[str, float]
    at_edge: tuple[str, ...]
    sd_points: float
    df: int
    detectable_points: float
    images_per_s: Mapping[str, float]
    equal_time: bool


def sweep_of(state: State) -> Sweep | None:
    """The sweep in numbers; None before it is complete."""
    if not state.rates:
        return None
    data: Mapping[str, Any] = state.protocol.data
    found = state.errors(SWEEP)
    seeds, grid = data["sweep"]["seeds"], data["sweep"]["lr"]
    table = np.array([[found[short, lr, s] for s in seeds] for short in state.protocol.networks for lr in grid])
    table = table[np.isfinite(table).all(1)]  # a rate at which a run diverged has no spread
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    sd = float(np.sqrt((residual**2).sum() / df))
    speed = {
        short: median(
            kept.run.images_per_s
            for run in state.protocol.sweep
            if run.network == short and (kept := state.kept[run.id]).run
        )
        for short in state.protocol.networks
    }
    first = data["comparisons"]["first"]
    return Sweep(
        rates=state.rates,
        at_edge=tuple(short for short, lr in state.rates.items() if lr in (min(grid), max(grid))),
        sd_points=sd,
        df=df,
        detectable_points=detectable(
            len(data["budgets"]["seeds"]),
            k=len(data["comparisons"]["minus"]),
            n_networks=len(state.protocol.networks),
            sd=sd,
            power=data["statistics"]["power"],
            confidence=data["statistics"]["confidence"],
        ),
        images_per_s=speed,
        equal_time=abs(speed["resnet74"] / speed[first] - 1) <= 0.05,
    )
