"""Rows and tables made from the schemas. Every number is made up; only columns and types are those of real tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.tables import schemas
from analysis.tables.schemas import Schema

SAMPLES: Mapping[type, Any] = {str: "made up", int: 1, float: 0.5, bool: True}


def row(schema: Schema, **values: Any) -> dict[str, Any]:
    """A row of a table: the values that are given, and made-up ones of the stated types."""
    assert not values.keys() - set(schema.names), values.keys() - set(schema.names)
    missing = {c.name: None if c.may_be_empty else SAMPLES[c.kind] for c in schema.columns if not c.is_pattern}
    return missing | values


def run(network: str, seed: int, error: float, **changes: Any) -> dict[str, Any]:
    """A row of `schemas.RUNS`."""
    values = {
        "dataset": "cluttered-digits", "epochs": 4, "images": 2000, "batch_size": 32, "label_noise": 0.0,
        "images_per_s": 100.0, "elapsed_s": 80.0, "params": 10, "macs": 20, "trunk_depth": 56, "longest_path": 74,
        "weighted_layers": 101, "s_per_epoch": 20.0, "training_macs": 480_000,
    }  # fmt: skip
    return row(schemas.RUNS, network=network, seed=seed, test_error_pct=error, **values | changes)


def runs() -> pd.DataFrame:
    """Three runs each of two networks."""
    ours = [run("ours", seed, error) for seed, error in enumerate([10.0, 12.0, 11.0])]
    theirs = [run("theirs", seed, error) for seed, error in enumerate([13.0, 12.5, 12.0])]
    return pd.DataFrame(ours + theirs)
