"""Dunnett's distribution: the largest of several |t| that share a control and a residual.

SciPy's `dunnett` estimates the residual within unblocked groups; here any residual can be given.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special  # not stats, whose import takes half as long as that of torch

NODES = 120  # of each quadrature: critical values agree with printed tables to their last digit


def tail(t: float, n_comparisons: int, df: float) -> float:
    """The probability that the largest |t| of comparisons with one control is at least `t`: the adjusted p-value.

    Numbers of runs are equal, so that two differences have correlation 1/2; the residual has `df` degrees of freedom.

    Source: Dunnett 1955, A multiple comparison procedure for comparing several treatments with a control.
    """
    z, weight = np.polynomial.hermite_e.hermegauss(NODES)
    u, share = np.polynomial.legendre.leggauss(NODES)
    scale = np.sqrt(2 * special.gammaincinv(df / 2, (u + 1) / 2) / df)[:, None]
    bound = np.sqrt(2) * t * scale
    inside = (special.ndtr(z + bound) - special.ndtr(z - bound)) ** n_comparisons
    return float(np.clip(1 - share / 2 @ (inside @ (weight / weight.sum())), 0, 1))


@lru_cache
def critical(n_comparisons: int, df: float, confidence: float = 0.95) -> float:
    """The |t| that the largest of the comparisons exceeds with probability 1 - confidence."""
    from scipy.optimize import brentq

    return float(brentq(lambda t: tail(t, n_comparisons, df) - (1 - confidence), 0.01, 1000))
