"""Finished runs kept as small files, each run in its own folder, identified by config and data, not by the code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resattn.networks.network import Network, build
from resattn.training.config import TrainConfig
from resattn.training.record import CORRECT, RUN, TRAINING_VERSION
from resattn.training.run import Run, TrainError, unpacked, write_tables, write_whole

DIVERGED, WEIGHTS = "diverged.json", "weights.pt"
WEIGHTS_DIGEST = "weights_sha256"  # of the file, in the record


class KeptRunError(TrainError):
    """The files of a kept run contradict each other; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kept run. If it diverged, `run` is None and `about` says why."""

    folder: Path
    config: TrainConfig
    run: Run | None
    about: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.folder.name


def run_id(name: str, config: TrainConfig, dataset_digest: str, protocol: str) -> str:
    """`name` and 8 hex digits of a digest over config, data, training version and protocol."""
    parts = (config.digest, dataset_digest, str(TRAINING_VERSION), protocol)
    return f"{name}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:8]}"


def keep(folder: Path, run: Run, correct: bytes, about: Mapping[str, Any], *, weights: bytes | None = None) -> None:
    """Write a finished run into a new folder, all files or none.

    Files: run.json (the record of the run, and `about` under "kept"), metrics.csv, correct.bin, and weights.pt if
    given; its digest is in the record.
    """
    about = about if weights is None else {**about, WEIGHTS_DIGEST: hashlib.sha256(weights).hexdigest()}
    record = run.to_json() | {"out_dir": folder.name, "kept": {"training_version": TRAINING_VERSION, **about}}
    files = {RUN: _json(record), CORRECT: correct} | ({} if weights is None else {WEIGHTS: weights})
    _appear(folder, files, run)


def keep_diverged(folder: Path, config: TrainConfig, message: str, about: Mapping[str, Any]) -> None:
    """Record that a run diverged, so that it is not repeated."""
    kept = {"training_version": TRAINING_VERSION, "diverged": message, **about}
    _appear(folder, {DIVERGED: _json({"config": config.to_json(), "config_digest": config.digest, "kept": kept})})


def read_kept(folder: Path) -> Kept:
    """The kept run in a folder. Raises: KeptRunError if it is damaged."""
    diverged = folder / DIVERGED
    path = diverged if diverged.exists() else folder / RUN
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        about = record["kept"]
        config = TrainConfig.from_json(record["config"])
        if config.digest != record["config_digest"]:
            raise ValueError(f"its config has the digest {config.digest}, the record says {record['config_digest']}")
        if path == diverged:
            return Kept(folder=folder, config=config, run=None, about=about)
        run = Run.from_json(record)
        right = unpacked((folder / CORRECT).read_bytes(), config.n_test_images)
        if abs(100 * (1 - right.mean()) - run.test_error_pct) > 1e-6:
            raise ValueError(f"{CORRECT} has {right.sum()} images right, the record says {run.test_error_pct} % error")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeptRunError(f"{path}: not readable as a kept run ({error})") from error
    return Kept(folder=folder, config=config, run=run, about=about)


def read_all(folder: Path) -> list[Kept]:
    """The kept runs in a folder, sorted by name. Raises: KeptRunError."""
    places = sorted({path.parent for name in (RUN, DIVERGED) for path in folder.glob(f"*/{name}")})
    return [read_kept(place) for place in places if not place.name.startswith(".")]


def kept_network(folder: Path) -> Network:
    """The network of a kept run with its weights, in float32 on the CPU, set to evaluate.

    The weights are stored as bf16: outputs differ from those of the run by this rounding.
    Raises: KeptRunError if the run diverged, has no kept weights, or these do not match its record.
    """
    kept, path = read_kept(folder), folder / WEIGHTS
    if kept.run is None:
        raise KeptRunError(f"{folder}: this run diverged; it has no weights")
    network = build(kept.config.spec)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != kept.about[WEIGHTS_DIGEST]:
            raise ValueError(f"they are not those that {RUN} records")
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        for name, here in network.state_dict().items():
            found = saved[name]
            if not (type(found) in (torch.Tensor, torch.nn.Parameter) and found.layout == torch.strided
                    and found.device.type == "cpu" and not found.is_quantized and not found.is_complex()
                    and found.is_floating_point() == here.is_floating_point()):  # fmt: skip
                raise ValueError(f"{name} is not a plain tensor")
        network.load_state_dict(saved)
    except FileNotFoundError as error:
        raise KeptRunError(f"{folder}: no {WEIGHTS}: the weights of this run are not kept") from error
    except Exception as error:  # the type of the error depends on the content of the file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KeptRunError(f"{path}: not the weights of {kept.config.spec.name} ({reason})") from error
    return network.eval()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def _appear(folder: Path, files: Mapping[str, bytes], run: Run | None = None) -> None:
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, content in files.items():
        write_whole(beside / name, content)
    if run is not None:
        write_tables(beside, run.rows, ())
    os.replace(beside, folder)
