"""The result of a training run, and the parts of training that need torch alone: weights, optimiser, score, files."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resattn.networks.network import Network, build
from resattn.training.config import TrainConfig
from resattn.training.data import TEST_BATCH, Feed
from resattn.training.record import CORRECT, METRICS, RUN, TIMING, TRAINING_VERSION


class TrainError(Exception):
    """A run cannot continue; the message says where it stopped and what remains."""


class DivergedError(TrainError):
    """The loss is infinite or NaN."""


class CheckpointError(TrainError):
    """A checkpoint cannot be read or written."""


class RunInUseError(TrainError):
    """Another process trains in the folder."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of a run. `rows` and `timing`: one entry per epoch, with the columns of metrics.csv and timing.csv.

    `config`: as it was run, with every "auto" replaced by the value used.
    """

    config: TrainConfig
    dataset_label: str
    dataset_note: str
    dataset_digest: str
    n_flipped_labels: int
    rows: tuple[dict[str, Any], ...]
    timing: tuple[dict[str, Any], ...]
    weights_digest: str
    execution: dict[str, Any]
    out_dir: str

    @property
    def test_error_pct(self) -> float:
        """Test error after the last epoch (not the best one)."""
        return float(self.rows[-1]["test_error_pct"])

    @property
    def images_per_s(self) -> float:
        """Training images per second of training, without evaluation, over all epochs."""
        return self.config.steps * self.config.batch_size / sum(row["train_s"] for row in self.timing)

    @property
    def elapsed_s(self) -> float:
        return float(sum(row["elapsed_s"] for row in self.timing))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Run:
        known = {f.name: record[f.name] for f in fields(cls)}
        config = TrainConfig.from_json(record["config"])
        return cls(**known | {"config": config, "rows": tuple(record["rows"]), "timing": tuple(record["timing"])})

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "config": self.config.to_json(),
            "rows": list(self.rows),
            "timing": list(self.timing),
            "config_digest": self.config.digest,
            "training_version": TRAINING_VERSION,
            "spec_digest": self.config.spec.digest,
            "test_error_pct": self.test_error_pct,
            "images_per_s": self.images_per_s,
            "elapsed_s": self.elapsed_s,
        }


# ---- shared by all training loops


def first_weights(config: TrainConfig) -> Network:
    """The network of a run before its first step, on the CPU, channels last."""
    network = build(config.spec, seed=config.seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def sgd(network: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """The optimiser of a run. The loop sets its learning rate before every step (`TrainConfig.lr_at`)."""
    return torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.momentum > 0, fused=True,
    )  # fmt: skip


@torch.no_grad()
def score(
    feed: Feed, model: nn.Module, *, rank: int = 0, world: int = 1, batch: int = TEST_BATCH,
    precision: AbstractContextManager[Any] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Summed loss, float64, and whether each test image of this process's share is classified correctly, (N,) bool.

    The images are not augmented; the model is set to evaluate. `precision`: the autocast around the forward pass.
    """
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=feed.test_labels.device)
    right = []
    for images, labels in feed.test_batches(rank=rank, world=world, batch=batch):
        with precision or nullcontext():
            scores = model(images)
        scores = scores.float()
        loss += cross_entropy(scores, labels, reduction="sum")
        right.append(scores.argmax(1) == labels)
    return loss, torch.cat(right)


def packed(right: Tensor) -> bytes:
    """One bit for each image, the first in the highest bit of the first byte; the last byte is padded with zeros."""
    return np.packbits(right.cpu().numpy()).tobytes()


def unpacked(bits: bytes, n: int) -> NDArray[np.bool_]:
    """The inverse of `packed`, (n,) bool. Raises: ValueError for a wrong number of bytes."""
    if len(bits) != -(-n // 8):
        raise ValueError(f"{len(bits)} bytes do not hold {n} bits")
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=n).astype(bool)


# ---- files

LOCK, WAIT_S = ".lock", 10.0
PARTIAL = ".partial"  # files that a killed process was writing


@contextmanager
def alone_in(out: Path, say: Callable[[str], None], is_ours: bool = False, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock of a run's folder, so that no other process writes there.

    Waits `wait_s` for the lock, because a process whose parent was killed may need a moment to end. Deletes the partial
    files of killed processes. `is_ours`: the folder is for runs only, so any file in it may be replaced.
    Raises: RunInUseError; CheckpointError for a folder with files that no run wrote.
    """
    if not (is_ours or _is_of_a_run(out)):
        foreign = [name for name in (RUN, METRICS, TIMING, CORRECT) if (out / name).exists()]
        foreign += [LOCK] if (out / LOCK).exists() and (out / LOCK).stat().st_size else []
        if foreign:
            raise CheckpointError(f"{out} holds {foreign[0]}, which no training run wrote; give another folder")
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + wait_s
        while not _locked(descriptor, out, say):
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise RunInUseError(
                    f"{out} is in use by process {holder}, which trains there; wait for it, or give another folder"
                )
            time.sleep(0.1)
        own = f"{os.getpid()}\n".encode()
        os.pwrite(descriptor, own, 0)  # before the truncation, so that a lock that was ever held is never empty
        os.ftruncate(descriptor, len(own))
        for left in out.glob(f".*.{'[0-9a-f]' * 8}{PARTIAL}"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _is_of_a_run(out: Path) -> bool:
    """Whether a run wrote the files, judged by their content, because files of a user may have the same names."""
    try:
        if re.match(rb"\d{1,20}\n", (out / LOCK).read_bytes()):
            return True
    except OSError:
        pass
    try:
        return json.loads((out / RUN).read_bytes()).keys() >= {"config", "config_digest", "rows"}
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _locked(descriptor: int, out: Path, say: Callable[[str], None]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        say(f"{out}: this file system has no locks; do not start a second training in this folder")
    return True


def read_run(out_dir: Path | str) -> Run:
    """The finished run in a folder. Raises: OSError if there is none."""
    return Run.from_json(json.loads((Path(out_dir) / RUN).read_text(encoding="utf-8")))


def read_runs(folder: Path | str) -> list[tuple[Path, Run]]:
    """The finished runs below a folder, each with its own folder, sorted by name.

    The job of a study has its run in `run/`; a kept run has its own folder.
    """
    places = sorted(path.parent for pattern in (f"*/run/{RUN}", f"*/{RUN}") for path in Path(folder).glob(pattern))
    return [(place, read_run(place)) for place in places]


def write_tables(out: Path, rows: Sequence[Mapping[str, Any]], timing: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.csv and timing.csv atomically; a table without rows is not written."""
    for name, table_rows in ((METRICS, rows), (TIMING, timing)):
        if not table_rows:
            continue
        text = io.StringIO()
        table = csv.DictWriter(text, list(table_rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(table_rows)
        write_whole(out / name, text.getvalue().encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file, synced to disk, renamed."""
    partial_path = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial_path.open("xb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial_path, path)
    except OSError as error:
        partial_path.unlink(missing_ok=True)
        kept = "; the earlier file is intact" if path.exists() else ""
        raise CheckpointError(f"{path}: not written: {error.strerror} ({len(content)} bytes){kept}") from error


def weights_digest(network: Network) -> str:
    """sha256 over names and values of parameters and buffers."""
    total = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(cpu_capabilities().get("cpu_name") or platform.machine())


def cpu_capabilities() -> dict[str, Any]:
    """What torch reports about the processor; empty before torch 2.11."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return dict(ask()) if ask is not None else {}
