"""The record of a finished run: what identifies it, and whether its files are consistent. Standard library only."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resattn.training.config import TrainConfig

METRICS, TIMING, RUN, CORRECT = "metrics.csv", "timing.csv", "run.json", "correct.bin"
# Version of the training semantics: what a step does to the weights for a given config. It changes when the same
# config would give another result on the same machine, and not when code is moved or renamed.
TRAINING_VERSION = 1


class RecordError(ValueError):
    """The record of a finished run is damaged."""


class OtherRecordError(RecordError):
    """The record is of another run."""


def identity(config: TrainConfig, dataset_digest: str | None) -> dict[str, Any]:
    """What identifies a run, independent of code and machine: equal for two runs means that they are the same run."""
    return {"spec digest": config.spec.digest, "dataset digest": dataset_digest, **config.settings}


def read_record(out_dir: Path | str, config: TrainConfig, dataset_digest: str | None = None) -> dict[str, Any] | None:
    """The checked record of the finished run in a folder; None if there is none.

    A field that is `auto` in `config` matches any value. Without `dataset_digest` the images are not compared.

    Raises: RecordError if the record is damaged, OtherRecordError if it is of another run.
    """
    path = Path(out_dir) / RUN
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error})") from error
    try:
        ran = TrainConfig.from_json(record["config"])
        is_whole = (
            ran.digest == record["config_digest"]
            and len(record["rows"]) == ran.epochs
            and record["rows"][-1]["test_error_pct"] == record["test_error_pct"]
            and _is_table(path.with_name(METRICS), record["rows"])
            and _is_table(path.with_name(TIMING), record["timing"])
        )
        version = record.get("training_version", 1)
        there = {"training version": version, **identity(ran, record["dataset_digest"])}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged ({error!r})") from error
    if not is_whole:
        raise RecordError(f"{path} is damaged: {METRICS} or {TIMING} differs from it")
    asked = {"training version": TRAINING_VERSION, **identity(config, dataset_digest or record["dataset_digest"])}
    for name, value in asked.items():
        if value not in ("auto", there[name]):
            raise OtherRecordError(f"{path} is of another run: {name} is {there[name]!r} there and {value!r} here")
    return dict(record)


def _is_table(path: Path, rows: list[Mapping[str, Any]]) -> bool:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) == [{name: str(value) for name, value in row.items()} for row in rows]
