"""The checkpoint of a run: written after every epoch, fully checked before any part is used."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from resattn.networks.network import Network, build
from resattn.networks.spec import NetworkSpec
from resattn.training.config import ADDED, FIELDS, TrainConfig
from resattn.training.data import Dataset
from resattn.training.record import RUN, OtherRecordError, RecordError, identity, read_record
from resattn.training.run import CheckpointError, Run, read_run, weights_digest, write_tables, write_whole

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_VERSION = 1
_PARTS = {"identity", "config", "model", "optimizer", "generators", "rows", "timing"}  # the required ones
ROW = ("epoch", "step", "lr", "train_loss", "train_error_pct", "test_loss", "test_error_pct")
TIMING_ROW = ("epoch", "train_s", "images_per_s", "elapsed_s", "peak_memory_bytes")


class OtherRunError(CheckpointError):
    """A checkpoint of another run."""


def trained(out_dir: Path | str) -> Network:
    """The network of a run with the weights of its last checkpoint, on the CPU, set to evaluate.

    Raises: CheckpointError, also if the weights of a finished run are not kept or do not match its record.
    """
    path, record = Path(out_dir) / CHECKPOINT, Path(out_dir) / RUN
    if record.exists() and not path.exists():
        raise CheckpointError(
            f"{out_dir}: the weights of this finished run are not kept; to train it again, delete this folder "
            "(in a study: the folder of its job) and run the same command"
        )
    saved = _read(path)
    with _refused(path):
        network = build(NetworkSpec.from_json(saved["config"]["spec"]))
        _check_tensors("model", saved["model"], network.state_dict())
        network.load_state_dict(saved["model"])
        if record.exists() and read_run(out_dir).weights_digest != weights_digest(network):
            raise CheckpointError(f"{path}: these are not the weights that {RUN} records")
    return network.eval()


@dataclass
class History:
    rows: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    correct: bytes | None = None  # after the last of these epochs


def save(
    out: Path, config: TrainConfig, dataset: Dataset, network: Network, optimizer: Optimizer, history: History
) -> None:
    content = io.BytesIO()
    torch.save(
        {
            "version": CHECKPOINT_VERSION,
            "identity": identity(config, dataset.digest),
            "config": config.to_json(),
            "config_digest": config.digest,
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": history.rows[-1]["step"],  # the schedule is a function of it
            # Batches and noise depend on seed and epoch alone; these states are for layers that draw random numbers.
            "generators": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if config.accelerator == "cuda" else None,
            },
            "rows": history.rows,
            "timing": history.timing,
            "correct": history.correct,
        },
        content,
    )
    write_whole(out / CHECKPOINT, content.getvalue())
    write_tables(out, history.rows, history.timing)


def finished(
    out: Path, config: TrainConfig, dataset: Dataset, also_others: bool, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The record of this run if it is finished. A damaged record is renamed. Raises: OtherRunError."""
    try:
        record = read_record(out, config, dataset.digest)
        if record is not None:
            Run.from_json(record).to_json()  # checks that every field is present and usable
        return record
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError) as error:
        if isinstance(error, OtherRecordError) and not also_others:
            raise OtherRunError(f"{error} (give another folder, or delete its files to start again)") from error
        why = str(error) if isinstance(error, RecordError) else f"{out / RUN} is damaged ({error!r:.200})"
        set_aside(out / RUN, why, say)
        return None


def set_aside(path: Path, why: str, say: Callable[[str], None]) -> None:
    aside = path.with_name(f"{path.stem}-{_file_digest(path)[:8]}.aside")  # one name for each content
    os.replace(path, aside)
    say(f"{why}; it is now {aside.name}, and the run starts again")


def set_aside_unusable(
    path: Path, config: TrainConfig, dataset: Dataset, also_others: bool, say: Callable[[str], None]
) -> None:
    """Rename a checkpoint from which this run cannot resume. Raises: OtherRunError."""
    if not path.exists():
        return
    try:
        _read_checked(path, config, dataset, build(config.spec, device="meta"))
    except CheckpointError as error:
        if isinstance(error, OtherRunError) and not also_others:
            raise
        set_aside(path, str(error), say)


def _file_digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def resume(path: Path, config: TrainConfig, dataset: Dataset, network: Network, optimizer: Optimizer) -> History:
    """The history in a checkpoint, or an empty one if there is no checkpoint. Network and optimiser get its state."""
    if not path.exists():
        return History([], [])
    saved = _read_checked(path, config, dataset, network)
    with _refused(path):
        network.load_state_dict(saved["model"])
        # The fused step needs a momentum for every parameter, in the parameter's memory order. A parameter that no
        # forward pass reads has none in a checkpoint: zeros are what the first step starts from.
        there = {number: of_one["momentum_buffer"] for number, of_one in saved["optimizer"]["state"].items()}
        state = {
            number: {"momentum_buffer": torch.zeros_like(parameter).copy_(there.get(number, torch.zeros(())))}
            for number, parameter in enumerate(network.parameters() if config.momentum else ())
        }
        # The settings come from the config; the learning rate is set before every step.
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(saved["generators"]["cpu"])
        if config.accelerator == "cuda" and saved["generators"]["cuda"] is not None:
            torch.cuda.set_rng_state(saved["generators"]["cuda"])
    return History(saved["rows"], saved["timing"], saved.get("correct"))


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn every error that a forged checkpoint causes into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint of this run ({reason})") from error


def _read_checked(path: Path, config: TrainConfig, dataset: Dataset, network: Network) -> dict[str, Any]:
    """The content of a checkpoint of this run, with every part checked for names, shapes and types.

    `network`: only its shapes are read. Raises: CheckpointError, OtherRunError.
    """
    saved = _read(path)
    with _refused(path):
        _check_same_run(path, saved, identity(config, dataset.digest))
        _check_tensors("model", saved["model"], network.state_dict())
        parameters = list(network.parameters())
        state = saved["optimizer"]["state"]
        for number, of_one in state.items():
            if type(number) is not int or not 0 <= number < len(parameters):
                raise ValueError("its optimizer has a state that belongs to no parameter")
            if config.momentum:
                _check_tensors("optimizer", of_one, {"momentum_buffer": parameters[number]})
            elif of_one != {"momentum_buffer": None}:
                raise ValueError("its optimizer has a momentum, but this run uses none")
        generators = {name: state for name, state in saved["generators"].items() if state is not None}
        wanted = {"cpu": torch.get_rng_state(), "cuda": torch.empty(16, dtype=torch.uint8)}
        _check_tensors("generators", generators, {name: wanted[name] for name in {"cpu", *generators}})
        torch.Generator().set_state(generators["cpu"])  # raises an error for an invalid state
        _check_history(saved, config)
    return saved


def _check_tensors(part: str, there: Any, here: Mapping[str, Tensor]) -> None:
    """Raises: ValueError unless `there` has plain tensors of the names, shapes and types of `here`."""
    if not isinstance(there, dict) or there.keys() != here.keys():
        raise ValueError(f"the names in its {part} differ from those of this network")
    for name, tensor in here.items():
        found = there[name]
        is_tensor = type(found) in (Tensor, nn.Parameter)
        is_plain = is_tensor and found.layout == torch.strided and found.device.type == "cpu" and not found.is_quantized
        if not is_plain or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            expected = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"{name} in its {part} is not a plain tensor of shape {expected}")
        if not found.isfinite().all():
            raise ValueError(f"{name} in its {part} has values that are not finite")
        if name.endswith("running_var") and (found < 0).any():
            raise ValueError(f"{name} in its {part} is a negative variance")


def _check_history(saved: Mapping[str, Any], config: TrainConfig) -> None:
    """Raises: ValueError unless there is a row for each of the first epochs and one bit for each test image."""
    rows, timing, correct = saved["rows"], saved["timing"], saved.get("correct")
    if not (isinstance(rows, list) and isinstance(timing, list) and 1 <= len(rows) == len(timing) <= config.epochs):
        raise ValueError("it does not have one row for each epoch")
    for table, columns in ((rows, ROW), (timing, TIMING_ROW)):
        for epoch, row in enumerate(table):
            numbers = [row[name] for name in columns]
            is_finite = all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
            if list(row) != list(columns) or not is_finite:
                raise ValueError(
                    f"the row of epoch {epoch + 1} has wrong columns or values that are not finite numbers"
                )
            if row["epoch"] != epoch + 1:
                raise ValueError(f"row {epoch + 1} is of epoch {row['epoch']}")
    for row in rows:
        if not all(0 <= row[name] <= 100 for name in ("train_error_pct", "test_error_pct")):
            raise ValueError(f"the row of epoch {row['epoch']} has an error that is not between 0 and 100 %")
    if any(row["train_s"] <= 0 for row in timing):
        raise ValueError("an epoch took no time")
    if [row["step"] for row in rows] != [e * config.steps_per_epoch + config.steps_in(e) for e in range(len(rows))]:
        raise ValueError("the steps in its rows differ from those of this run")
    if correct is not None and (type(correct) is not bytes or len(correct) != -(-config.n_test_images // 8)):
        raise ValueError(f"it does not have one bit for each of the {config.n_test_images} test images")


def _check_same_run(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    identity = saved["identity"]
    for name in (*wanted, *(name for name in identity if name not in wanted)):
        default = FIELDS[name].default if name in ADDED else None
        there, here = identity.get(name, default), wanted.get(name, default)
        if there != here:
            if not isinstance(there, int | float | str | list | None):
                raise ValueError(f"{name} of its identity is not a plain value")
            raise OtherRunError(
                f"{path} is of another run: {name} is {there!r:.200} there and {here!r} here "
                "(give another folder, or delete the checkpoint to start again)"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        # torch does not verify the checksums: a flipped bit would become part of a weight.
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its parts are compressed, but torch writes them uncompressed")
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint found") from None
    except Exception as error:  # the type of the error depends on where the file is damaged
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not readable as a checkpoint ({reason})") from error
    version = saved.get("version") if isinstance(saved, dict) else None
    if type(version) is not int or version != CHECKPOINT_VERSION:
        raise OtherRunError(f"{path}: a checkpoint of version {version!r:.20}, expected {CHECKPOINT_VERSION}")
    if missing := _PARTS - saved.keys():
        raise CheckpointError(f"{path}: not readable as a checkpoint (without {', '.join(sorted(missing))})")
    return saved
