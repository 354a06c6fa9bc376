"""Replaced masks: from runs to means over the seeds."""

from __future__ import annotations

import pandas as pd

from analysis.statistics.intervals import mean_interval
from analysis.tables import schemas


def intervention_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean change of the error over seeds in percentage points, with 95 % interval: `schemas.INTERVENTION_MEANS`."""
    keys = ["network", "dataset", "intervention", "module", "norms"]
    rows = []
    for values, part in frame.groupby(keys, sort=False):
        found = mean_interval(list(part["change"]))
        rows.append(
            {**dict(zip(keys, values, strict=True)), "n": found.n, "test_error_pct": part["test_error_pct"].mean(),
             "mean": found.mean, "low": found.low, "high": found.high, "least": part["change"].min(),
             "largest": part["change"].max()}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.INTERVENTION_MEANS.names).astype({"low": float, "high": float})
