"""One training run: a plain loop around lightning-fabric, with a checkpoint after every epoch.

The same config gives the same bits on the same processor and number of threads, also when the run was killed at any
moment and started again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import math
import os
import platform
import resource
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from tqdm import tqdm

from resattn.networks.network import Network, build
from resattn.networks.spec import NetworkSpec
from resattn.training import data
from resattn.training.config import TrainConfig
from resattn.training.data import Dataset, Feed
from resattn.training.record import (
    METRICS,
    RUN,
    TIMING,
    TRAINING_VERSION,
    OtherRecordError,
    RecordError,
    identity,
    read_record,
)

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_VERSION = 1
_PARTS = {"identity", "config", "model", "optimizer", "generators", "rows", "timing"}  # of it, that are read
# Steps between two looks at the loss: each makes an accelerator wait.
LOOK_EVERY = 32


class TrainError(Exception):
    """A run that cannot go on; the message says where it stopped and what is left of it."""


class DivergedError(TrainError):
    """A loss that is no number any more."""


class CheckpointError(TrainError):
    """A checkpoint that cannot be read or written."""


class OtherRunError(CheckpointError):
    """A checkpoint of another run."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run came to. `rows` has the columns of metrics.csv, one entry per epoch; `timing` those of timing.csv.

    `config` is the one that was run: nothing in it says "auto" any more.
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
        """Of the last epoch, never of the best one."""
        return float(self.rows[-1]["test_error_pct"])

    @property
    def images_per_s(self) -> float:
        """Training images over the time of the training steps, of all epochs."""
        n_images = self.config.steps_per_epoch * self.config.batch_size
        return len(self.timing) * n_images / sum(row["train_s"] for row in self.timing)

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


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def train(
    config: TrainConfig,
    out_dir: Path | str,
    *,
    dataset: Dataset | None = None,
    on_other: Literal["refuse", "set aside"] = "refuse",
    say: Callable[[str], None] = _on_stderr,
) -> Run:
    """Train a network, or go on from the checkpoint in `out_dir`; one that is finished is only read.

    A finished run without its checkpoint, whose weights are not kept, is finished all the same.

    Writes checkpoint.pt, metrics.csv, timing.csv and run.json, each whole or not at all. `dataset` saves loading the
    one that the config names. With several processes the others are started here, unless torchrun or Slurm did.

    A damaged checkpoint is set aside, which is said, and the run starts again. `on_other`: what is done with a whole
    one of another run; a folder that only ever holds one run, as in a study, can set it aside too.

    Raises: ConfigError, DataError before anything is trained; OtherRunError; CheckpointError for a full disk;
    DivergedError naming epoch and step. The checkpoint of the last good epoch stays.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    dataset = dataset if dataset is not None else data.load(config.dataset)
    say(f"dataset: {dataset}")
    if not (out / CHECKPOINT).exists() and (record := _finished(out, config, dataset, on_other == "set aside", say)):
        say(f"finished earlier, not trained again; its weights are not kept: {out / RUN}")
        return Run.from_json(record)
    config = settled(config, dataset)
    _set_aside_unusable(out / CHECKPOINT, identity(config, dataset.digest), on_other == "set aside", say)
    if not (out / CHECKPOINT).exists():
        (out / RUN).unlink(missing_ok=True)  # of the checkpoint that was set aside
    # Bound by keyword: Fabric hands itself over as the only argument, and looks into those it is given.
    # Processes that are started here take nothing along that may not be copied; they talk on their own stderr.
    job = partial(_train, config=config, dataset=dataset, out=out, say=say if config.n_processes == 1 else _on_stderr)
    try:
        with _quiet():
            return Run.from_json(fabric_for(config).launch(job))
    except ProcessRaisedException as error:  # from a process started here; its last line is the error
        raise TrainError(str(error).strip().splitlines()[-1]) from error


def read_run(out_dir: Path | str) -> Run:
    """The finished run in a folder. Raises: OSError where there is none."""
    return Run.from_json(json.loads((Path(out_dir) / RUN).read_text(encoding="utf-8")))


def read_runs(folder: Path | str) -> list[tuple[Path, Run]]:
    """The finished runs of the jobs below a folder, each with its own folder, in the order of their names."""
    places = sorted(path.parent for path in Path(folder).glob(f"*/run/{RUN}"))
    return [(place, read_run(place)) for place in places]


def trained(out_dir: Path | str) -> Network:
    """The network of a run with the weights of its last checkpoint, on the CPU, set to evaluate.

    Raises: CheckpointError, also where the weights of a finished run are not kept, or are not those of its record.
    """
    path, record = Path(out_dir) / CHECKPOINT, Path(out_dir) / RUN
    if record.exists() and not path.exists():
        raise CheckpointError(
            f"{out_dir}: the weights of this finished run are not kept; to train it again, delete this folder "
            "(in a study: the folder of its job) and run the same command"
        )
    saved = _read(path)
    network = build(NetworkSpec.from_json(saved["config"]["spec"]))
    network.load_state_dict(saved["model"])
    if record.exists() and read_run(out_dir).weights_digest != _weights_digest(network):
        raise CheckpointError(f"{path}: these are not the weights of the run that {RUN} records")
    return network.eval()


# ---- where it runs


def settled(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with every auto replaced by what it means here."""
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    elif accelerator == "cuda" and not torch.cuda.is_available():
        raise TrainError("accelerator=cuda, but torch finds no CUDA device here (use auto or cpu)")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _gains_from_bf16(accelerator) else "fp32"
    strategy = "ddp" if config.n_processes > 1 else config.strategy
    return replace(config, dataset=dataset.name, accelerator=accelerator, precision=precision, strategy=strategy)


def _gains_from_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    units = torch.cpu.get_capabilities()
    return bool(units.get("amx_bf16") or units.get("avx512_bf16"))


def fabric_for(config: TrainConfig) -> Fabric:
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if config.precision == "bf16" else "32-true"
    if config.n_processes == 1:
        # With an environment named, Fabric does not take a job of one process for a share of a cluster's.
        return Fabric(accelerator=config.accelerator, precision=precision, plugins=LightningEnvironment())
    with warnings.catch_warnings():
        # Where srun is installed, Lightning warns of processes that were started without it, as those here are.
        warnings.simplefilter("ignore", PossibleUserWarning)
        outside = any(e.detect() for e in (TorchElasticEnvironment, SLURMEnvironment))
    # "popen" would run the caller's whole script again in each process; with several nodes there is no other way.
    start: Literal["popen", "spawn"] = "popen" if outside or config.nodes > 1 else "spawn"
    # Buffers need no copying before a step: batch norm has the same statistics in all processes, see below.
    strategy = DDPStrategy(start_method=start, forward_sync_buffers=False)
    return Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        plugins=[] if start == "popen" else LightningEnvironment(),
        precision=precision,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the announcements of Fabric; its warnings stay."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _process_settings(config: TrainConfig) -> Iterator[None]:
    """Threads, convolution search and the global generator of this process, put back afterwards."""
    threads = torch.get_num_threads()
    is_cuda = config.accelerator == "cuda"
    search = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True) if is_cuda else nullcontext()
    with torch.random.fork_rng(), search:
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes together, each with an equal share, so that their number does not
    change the network that is trained. torch's SyncBatchNorm is the same for accelerators and has no form for the CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        values = x.float()
        mean = _SumOverProcesses.apply(values.mean((0, 2, 3))) / world
        centred = values - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().mean((0, 2, 3))) / world
        self._keep(mean.detach(), variance.detach(), world * x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, n: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _with_global_statistics(network: Network, accelerator: str) -> None:
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm2d):
                kind = nn.SyncBatchNorm if accelerator == "cuda" else GlobalBatchNorm2d
                wide = kind(module.num_features, eps=module.eps, momentum=module.momentum)
                wide.load_state_dict(module.state_dict())
                setattr(parent, name, wide)


# ---- the loop


def _train(
    fabric: Fabric, *, config: TrainConfig, dataset: Dataset, out: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Runs in every process; only the first one writes. Returns the record of the run."""
    with _process_settings(config):
        feed = data.prepare(dataset, config, fabric.device)
        network, model, stepper = prepared(fabric, config)
        optimizer = stepper.optimizer
        history = _resume(out / CHECKPOINT, config, dataset, network, optimizer)
        bar = tqdm(
            total=config.steps, initial=len(history.rows) * config.steps_per_epoch, desc=config.spec.name, unit="step",
            leave=False, mininterval=1, disable=None if fabric.is_global_zero else True,
        )  # fmt: skip
        with bar:
            for epoch in range(len(history.rows), config.epochs):
                start = time.perf_counter()
                seen = train_epoch(fabric, config, feed, model, stepper, epoch, bar, out)
                train_s = time.perf_counter() - start
                tested = _evaluate(fabric, feed, model)
                step = (epoch + 1) * config.steps_per_epoch
                if not math.isfinite(tested["test_loss"]):
                    raise _diverged("test loss", tested["test_loss"], epoch, step, out)
                bar.set_postfix(test_error_pct=f"{tested['test_error_pct']:.2f}")
                history.rows.append({"epoch": epoch + 1, "step": step, "lr": config.lr_at(step - 1), **seen, **tested})
                history.timing.append(
                    {
                        "epoch": epoch + 1,
                        "train_s": train_s,
                        "images_per_s": config.steps_per_epoch * config.batch_size / train_s,
                        "elapsed_s": time.perf_counter() - start,
                        "peak_memory_bytes": _peak_memory_bytes(fabric.device),
                    }
                )
                if fabric.is_global_zero:
                    _save(out, config, dataset, network, optimizer, history)
                    if bar.disable:  # no terminal: a line for each epoch in place of the bar
                        say(_epoch_words(config, history))
        run = Run(
            config=config,
            dataset_label=dataset.label,
            dataset_note=dataset.note,
            dataset_digest=dataset.digest,
            n_flipped_labels=feed.n_flipped,
            rows=tuple(history.rows),
            timing=tuple(history.timing),
            weights_digest=_weights_digest(network),
            execution={
                "device": _device_name(fabric.device),
                "n_processes": fabric.world_size,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            out_dir=str(out),
        )
        if fabric.is_global_zero:
            _write_tables(out, history)
            _write(out / RUN, json.dumps(run.to_json(), indent=1).encode())
        fabric.barrier()
        return run.to_json()


def prepared(fabric: Fabric, config: TrainConfig) -> tuple[Network, Any, Any]:
    """The network of a run with its first weights; and it and its optimiser as Fabric runs them."""
    network = build(config.spec, seed=config.seed)
    if fabric.world_size > 1:
        _with_global_statistics(network, config.accelerator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.momentum > 0, fused=True,
    )  # fmt: skip
    return (network, *fabric.setup(network, optimizer))


def _epoch_words(config: TrainConfig, history: _History) -> str:
    row, timing = history.rows[-1], history.timing[-1]
    return (
        f"epoch {row['epoch']}/{config.epochs}: training loss {row['train_loss']:.3f}, "
        f"test error {row['test_error_pct']:.2f} %, {timing['elapsed_s']:.1f} s, {timing['images_per_s']:.0f} images/s"
    )


def train_epoch(
    fabric: Fabric, config: TrainConfig, feed: Feed, model: nn.Module, optimizer: Any, epoch: int, bar: Any, out: Path
) -> dict[str, float]:
    """Loss and error on the augmented images as they were seen, labels with their noise."""
    n_steps = config.steps_per_epoch
    losses = torch.zeros(n_steps, device=fabric.device)
    wrong = torch.zeros((), dtype=torch.int64, device=fabric.device)
    looked = 0
    model.train()
    for i, (images, labels) in enumerate(feed.batches(epoch, rank=fabric.global_rank, world=fabric.world_size)):
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(epoch * n_steps + i)
        scores = model(images)
        loss = cross_entropy(scores, labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses[i] = loss.detach()
        wrong += (scores.detach().argmax(1) != labels).sum()
        bar.update()
        if (i + 1) % LOOK_EVERY == 0 or i + 1 == n_steps:
            # The mean over processes is the loss of the whole batch, and every process stops where one has to.
            losses[looked : i + 1] = _over_all(fabric, losses[looked : i + 1], "mean")
            for k, value in enumerate(losses[looked : i + 1].tolist(), looked):
                if not math.isfinite(value):
                    raise _diverged("training loss", value, epoch, epoch * n_steps + k + 1, out)
            looked = i + 1
    n_wrong = int(_over_all(fabric, wrong, "sum"))
    return {
        "train_loss": losses.double().mean().item(),
        "train_error_pct": 100 * n_wrong / (n_steps * config.batch_size),
    }


@torch.no_grad()
def _evaluate(fabric: Fabric, feed: Feed, model: nn.Module) -> dict[str, float]:
    """Loss and error on the test images as they are."""
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=fabric.device)
    wrong = torch.zeros((), dtype=torch.int64, device=fabric.device)
    for images, labels in feed.test_batches(rank=fabric.global_rank, world=fabric.world_size):
        scores = model(images)
        loss += cross_entropy(scores, labels, reduction="sum")
        wrong += (scores.argmax(1) != labels).sum()
    n = len(feed.test_labels)
    return {
        "test_loss": float(_over_all(fabric, loss, "sum")) / n,
        "test_error_pct": 100 * int(_over_all(fabric, wrong, "sum")) / n,
    }


def _over_all(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced


def _diverged(what: str, value: float, epoch: int, step: int, out: Path) -> DivergedError:
    kept = f"the checkpoint of epoch {epoch} is kept in {out}" if epoch else "no epoch was finished"
    return DivergedError(f"{what} is {value} in epoch {epoch + 1}, at step {step}: stopped; {kept} (try a lower lr)")


# ---- what is kept


@dataclass
class _History:
    rows: list[dict[str, Any]]
    timing: list[dict[str, Any]]


def _save(
    out: Path, config: TrainConfig, dataset: Dataset, network: Network, optimizer: Optimizer, history: _History
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
            # Batches and noise are drawn from seed and epoch; these are for layers that would draw by themselves.
            "generators": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if config.accelerator == "cuda" else None,
            },
            "rows": history.rows,
            "timing": history.timing,
        },
        content,
    )
    _write(out / CHECKPOINT, content.getvalue())
    _write_tables(out, history)


def _finished(
    out: Path, config: TrainConfig, dataset: Dataset, also_others: bool, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The record of this run, if it is finished. A damaged one is set aside. Raises: OtherRunError."""
    try:
        return read_record(out, config, dataset.digest)
    except RecordError as error:
        if isinstance(error, OtherRecordError) and not also_others:
            raise OtherRunError(f"{error} (give another folder, or remove its files to start again)") from error
        _set_aside(out / RUN, f"{error}", say)
        return None


def _set_aside(path: Path, why: str, say: Callable[[str], None]) -> None:
    aside = path.with_name(f"{path.stem}-{_file_digest(path)[:8]}.aside")  # the same file never twice
    os.replace(path, aside)
    say(f"{why}; it is now {aside.name}, and the run starts again")


def _set_aside_unusable(path: Path, wanted: Mapping[str, Any], also_others: bool, say: Callable[[str], None]) -> None:
    """Rename a checkpoint that no run can go on from, or that this one cannot. Raises: OtherRunError."""
    if not path.exists():
        return
    try:
        _check_same_run(path, _read(path), wanted)
    except CheckpointError as error:
        if isinstance(error, OtherRunError) and not also_others:
            raise
        _set_aside(path, str(error), say)


def _file_digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _resume(path: Path, config: TrainConfig, dataset: Dataset, network: Network, optimizer: Optimizer) -> _History:
    """The history in a checkpoint, whose state the arguments take over; an empty one where there is none."""
    if not path.exists():
        return _History([], [])
    saved = _read(path)
    _check_same_run(path, saved, identity(config, dataset.digest))
    network.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["generators"]["cpu"])
    if config.accelerator == "cuda" and saved["generators"]["cuda"] is not None:
        torch.cuda.set_rng_state(saved["generators"]["cuda"])
    return _History(saved["rows"], saved["timing"])


def _check_same_run(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if saved["identity"].get(name) != value:
            raise OtherRunError(
                f"{path} is of another run: {name} is {saved['identity'].get(name)!r} there and {value!r} here "
                "(give another folder, or remove the checkpoint to start again)"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        # torch leaves out the checksums of what it reads: a flipped bit would become a weight.
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint") from None
    except Exception as error:  # what a broken file raises depends on where it is broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not readable as a checkpoint ({reason})") from error
    version = saved.get("version") if isinstance(saved, dict) else None
    if version != CHECKPOINT_VERSION:
        raise OtherRunError(f"{path}: a checkpoint of version {version}, expected {CHECKPOINT_VERSION}")
    if missing := _PARTS - saved.keys():
        raise CheckpointError(f"{path}: not readable as a checkpoint (without {', '.join(sorted(missing))})")
    return saved


def _write_tables(out: Path, history: _History) -> None:
    for name, rows in ((METRICS, history.rows), (TIMING, history.timing)):
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        _write(out / name, text.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: beside, to the disk, renamed."""
    partial_path = path.with_name(path.name + ".partial")
    try:
        with partial_path.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial_path, path)
    except OSError as error:
        partial_path.unlink(missing_ok=True)
        kept = "; the earlier one is whole" if path.exists() else ""
        raise CheckpointError(f"{path}: not written: {error.strerror} ({len(content)} bytes){kept}") from error


def _weights_digest(network: Network) -> str:
    """sha256 over names and values of parameters and buffers."""
    total = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
