"""One training run: a plain loop around lightning-fabric, with a checkpoint after every epoch.

The same config gives the same bits on the same processor and number of threads, also when the run was killed at any
moment and started again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
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
from resattn.training.config import ADDED, FIELDS, TrainConfig
from resattn.training.data import Dataset, Feed
from resattn.training.record import CORRECT, RUN, OtherRecordError, RecordError, identity, read_record
from resattn.training.run import (
    CheckpointError,
    DivergedError,
    Run,
    TrainError,
    alone_in,
    cpu_capabilities,
    device_name,
    first_weights,
    packed,
    peak_memory_bytes,
    read_run,
    read_runs,
    score,
    sgd,
    weights_digest,
    write_tables,
    write_whole,
)

__all__ = [
    "CheckpointError", "DivergedError", "OtherRunError", "Run", "TrainConfig", "TrainError",
    "read_run", "read_runs", "train", "trained",
]  # fmt: skip

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_VERSION = 1
_PARTS = {"identity", "config", "model", "optimizer", "generators", "rows", "timing"}  # of it, that are read
ROW = ("epoch", "step", "lr", "train_loss", "train_error_pct", "test_loss", "test_error_pct")
TIMING_ROW = ("epoch", "train_s", "images_per_s", "elapsed_s", "peak_memory_bytes")
# Steps between two looks at the loss: each makes an accelerator wait.
LOOK_EVERY = 32


class OtherRunError(CheckpointError):
    """A checkpoint of another run."""


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

    A finished run whose weights are not kept is finished all the same.

    Writes checkpoint.pt, metrics.csv, timing.csv, correct.bin (one bit for each test image) and run.json, each whole
    or not at all. `dataset` saves loading the one that the config names. With several processes the others are started
    here, unless torchrun or Slurm did.

    A damaged checkpoint is set aside, which is said, and the run starts again. `on_other`: what is done with a whole
    one of another run; a folder that only ever holds one run, as in a study, can set it aside too.

    Raises: ConfigError, DataError before anything is trained; RunInUseError where another process trains in the
    folder; OtherRunError; CheckpointError for a full disk; DivergedError naming epoch and step. The checkpoint of the
    last good epoch stays.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    dataset = dataset if dataset is not None else data.load(config.dataset)
    say(f"dataset: {dataset}")
    with alone_in(out, say) if _is_first(config) else nullcontext():
        return _train_alone(config, out, dataset, on_other, say)


def _is_first(config: TrainConfig) -> bool:
    """Whether this process is the first of those that torchrun, Slurm or Fabric started for one run."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return config.n_processes == 1 or all(os.environ.get(name, "0") == "0" for name in ranks)


def _train_alone(config: TrainConfig, out: Path, dataset: Dataset, on_other: str, say: Callable[[str], None]) -> Run:
    if not (out / CHECKPOINT).exists() and (record := _finished(out, config, dataset, on_other == "set aside", say)):
        say(f"finished earlier, not trained again; its weights are not kept: {out / RUN}")
        return Run.from_json(record)
    config = settled(config, dataset)
    _set_aside_unusable(out / CHECKPOINT, config, dataset, on_other == "set aside", say)
    if not (out / CHECKPOINT).exists() and (out / RUN).exists():
        _set_aside(out / RUN, f"{out / RUN} is of the checkpoint that was set aside", say)
    # Bound by keyword: Fabric hands itself over as the only argument, and looks into those it is given.
    # Processes that are started here take nothing along that may not be copied; they talk on their own stderr.
    job = partial(_train, config=config, dataset=dataset, out=out, say=say if config.n_processes == 1 else _on_stderr)
    try:
        with _quiet():
            return Run.from_json(fabric_for(config).launch(job))
    except ProcessRaisedException as error:  # from a process started here; its last line is the error
        raise TrainError(str(error).strip().splitlines()[-1]) from error


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
    with _refused(path):
        network = build(NetworkSpec.from_json(saved["config"]["spec"]))
        _check_tensors("model", saved["model"], network.state_dict())
        network.load_state_dict(saved["model"])
    if record.exists() and read_run(out_dir).weights_digest != weights_digest(network):
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
    units = cpu_capabilities()
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
                tested, history.correct = _evaluate(fabric, feed, model)
                step = epoch * config.steps_per_epoch + config.steps_in(epoch)
                if not math.isfinite(tested["test_loss"]):
                    raise _diverged("test loss", tested["test_loss"], epoch, step, out)
                bar.set_postfix(test_error_pct=f"{tested['test_error_pct']:.2f}")
                history.rows.append({"epoch": epoch + 1, "step": step, "lr": config.lr_at(step - 1), **seen, **tested})
                history.timing.append(
                    {
                        "epoch": epoch + 1,
                        "train_s": train_s,
                        "images_per_s": config.steps_in(epoch) * config.batch_size / train_s,
                        "elapsed_s": time.perf_counter() - start,
                        "peak_memory_bytes": peak_memory_bytes(fabric.device),
                    }
                )
                if fabric.is_global_zero:
                    _save(out, config, dataset, network, optimizer, history)
                    if bar.disable:  # no terminal: a line for each epoch in place of the bar
                        say(_epoch_words(config, history))
        if history.correct is None:  # a finished run of a version that did not keep it
            _, history.correct = _evaluate(fabric, feed, model)
        run = Run(
            config=config,
            dataset_label=dataset.label,
            dataset_note=dataset.note,
            dataset_digest=dataset.digest,
            n_flipped_labels=feed.n_flipped,
            rows=tuple(history.rows),
            timing=tuple(history.timing),
            weights_digest=weights_digest(network),
            execution={
                "device": device_name(fabric.device),
                "n_processes": fabric.world_size,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            out_dir=str(out),
        )
        if fabric.is_global_zero:
            write_tables(out, history.rows, history.timing)
            write_whole(out / CORRECT, history.correct)
            write_whole(out / RUN, json.dumps(run.to_json(), indent=1).encode())
        fabric.barrier()
        return run.to_json()


def prepared(fabric: Fabric, config: TrainConfig) -> tuple[Network, Any, Any]:
    """The network of a run with its first weights; and it and its optimiser as Fabric runs them."""
    network = first_weights(config)
    if fabric.world_size > 1:
        _with_global_statistics(network, config.accelerator)
    optimizer = sgd(network, config)
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
    n_steps, before = config.steps_in(epoch), epoch * config.steps_per_epoch
    losses = torch.zeros(n_steps, device=fabric.device)
    wrong = torch.zeros((), dtype=torch.int64, device=fabric.device)
    looked = 0
    model.train()
    batches = islice(feed.batches(epoch, rank=fabric.global_rank, world=fabric.world_size), n_steps)
    for i, (images, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(before + i)
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
                    raise _diverged("training loss", value, epoch, before + k + 1, out)
            looked = i + 1
    n_wrong = int(_over_all(fabric, wrong, "sum"))
    return {
        "train_loss": losses.double().mean().item(),
        "train_error_pct": 100 * n_wrong / (n_steps * config.batch_size),
    }


def _evaluate(fabric: Fabric, feed: Feed, model: nn.Module) -> tuple[dict[str, float], bytes]:
    """Loss and error on the test images as they are, and one bit for each of them."""
    loss, own = score(feed, model, rank=fabric.global_rank, world=fabric.world_size)
    n = len(feed.test_labels)
    right = torch.zeros(n, dtype=torch.int64, device=fabric.device)
    right[fabric.global_rank :: fabric.world_size] = own.long()
    right = _over_all(fabric, right, "sum")
    tested = {
        "test_loss": float(_over_all(fabric, loss, "sum")) / n,
        "test_error_pct": 100 * (n - int(right.sum())) / n,
    }
    return tested, packed(right.bool())


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
    correct: bytes | None = None  # after the last of these epochs


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
            "correct": history.correct,
        },
        content,
    )
    write_whole(out / CHECKPOINT, content.getvalue())
    write_tables(out, history.rows, history.timing)


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


def _set_aside_unusable(
    path: Path, config: TrainConfig, dataset: Dataset, also_others: bool, say: Callable[[str], None]
) -> None:
    """Rename a checkpoint that no run can go on from, or that this one cannot. Raises: OtherRunError."""
    if not path.exists():
        return
    try:
        _read_checked(path, config, dataset, build(config.spec, device="meta"))
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
    saved = _read_checked(path, config, dataset, network)
    with _refused(path):
        network.load_state_dict(saved["model"])
        parameters = list(network.parameters())
        # In the memory order of the parameters, which the fused step takes for granted.
        state = {
            number: {name: None if value is None else torch.empty_like(parameters[number]).copy_(value)}
            for number, of_one in saved["optimizer"]["state"].items()
            for name, value in of_one.items()
        }
        # Its settings are those of the config, and its learning rate is set before every step.
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(saved["generators"]["cpu"])
        if config.accelerator == "cuda" and saved["generators"]["cuda"] is not None:
            torch.cuda.set_rng_state(saved["generators"]["cuda"])
    return _History(saved["rows"], saved["timing"], saved.get("correct"))


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Whatever a forged checkpoint leads to is a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint of this run ({reason})") from error


def _read_checked(path: Path, config: TrainConfig, dataset: Dataset, network: Network) -> dict[str, Any]:
    """The content of a checkpoint of this run, of which every part has the form that it is used in.

    `network`: of the run, only its shapes are read. Raises: CheckpointError, OtherRunError.
    """
    saved = _read(path)
    with _refused(path):
        _check_same_run(path, saved, identity(config, dataset.digest))
        _check_tensors("model", saved["model"], network.state_dict())
        parameters = list(network.parameters())
        for number, of_one in saved["optimizer"]["state"].items():
            if type(number) is not int or not 0 <= number < len(parameters) or list(of_one) != ["momentum_buffer"]:
                raise ValueError("its optimizer has a state that is not one momentum for each parameter")
            if of_one["momentum_buffer"] is not None:
                _check_tensors("optimizer", of_one, {"momentum_buffer": parameters[number]})
        generators = {name: state for name, state in saved["generators"].items() if state is not None}
        wanted = {"cpu": torch.get_rng_state(), "cuda": torch.empty(16, dtype=torch.uint8)}
        _check_tensors("generators", generators, {name: wanted[name] for name in {"cpu", *generators}})
        _check_history(saved, config)
    return saved


def _check_tensors(part: str, there: Any, here: Mapping[str, Tensor]) -> None:
    """Raises: ValueError unless `there` has plain tensors of the names, shapes and types of `here`."""
    if not isinstance(there, dict) or there.keys() != here.keys():
        raise ValueError(f"its {part} has other names than those of this network")
    for name, tensor in here.items():
        found = there[name]
        is_tensor = type(found) in (Tensor, nn.Parameter)
        is_plain = is_tensor and found.layout == torch.strided and found.device.type == "cpu" and not found.is_quantized
        if not is_plain or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            expected = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise ValueError(f"{name} in its {part} is no plain tensor of shape {expected}")


def _check_history(saved: Mapping[str, Any], config: TrainConfig) -> None:
    """Raises: ValueError unless the rows are those of the first epochs, and the bits as many as test images."""
    rows, timing, correct = saved["rows"], saved["timing"], saved.get("correct")
    if not (isinstance(rows, list) and isinstance(timing, list) and 1 <= len(rows) == len(timing) <= config.epochs):
        raise ValueError("its rows are not one for each epoch")
    for table, columns in ((rows, ROW), (timing, TIMING_ROW)):
        for epoch, row in enumerate(table):
            numbers = [row[name] for name in columns]
            if list(row) != list(columns) or not all(type(value) in (int, float) for value in numbers):
                raise ValueError(f"the row of epoch {epoch + 1} has other columns, or no numbers in them")
            if row["epoch"] != epoch + 1:
                raise ValueError(f"the row of epoch {row['epoch']} stands in place {epoch + 1}")
    if [row["step"] for row in rows] != [e * config.steps_per_epoch + config.steps_in(e) for e in range(len(rows))]:
        raise ValueError("its rows have other steps than this run")
    if correct is not None and (type(correct) is not bytes or len(correct) != -(-config.n_test_images // 8)):
        raise ValueError(f"it has no bit for each of the {config.n_test_images} test images")


def _check_same_run(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    identity = saved["identity"]
    for name in (*wanted, *(name for name in identity if name not in wanted)):
        default = FIELDS[name].default if name in ADDED else None
        there, here = identity.get(name, default), wanted.get(name, default)
        if there != here:
            if not isinstance(there, int | float | str | list | None):
                raise ValueError(f"{name} of its identity is no plain value")
            raise OtherRunError(
                f"{path} is of another run: {name} is {there!r:.200} there and {here!r} here "
                "(give another folder, or remove the checkpoint to start again)"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        # torch leaves out the checksums of what it reads: a flipped bit would become a weight.
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its parts are compressed, which torch does not do")
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
