"""One training run: a plain loop around lightning-fabric, with a checkpoint after every epoch.

The same config gives the same bits on the same processor with the same number of threads, even if the run was killed
and started again.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from resattn.networks.network import Network
from resattn.training import data
from resattn.training.checkpoint import CHECKPOINT, History, finished, resume, save, set_aside, set_aside_unusable
from resattn.training.config import TrainConfig
from resattn.training.data import Dataset, Feed
from resattn.training.devices import (
    fabric_for,
    is_first,
    over_all,
    process_settings,
    quiet,
    settled,
    with_global_statistics,
)
from resattn.training.record import CORRECT, RUN
from resattn.training.run import (
    DivergedError,
    Run,
    TrainError,
    alone_in,
    device_name,
    first_weights,
    packed,
    peak_memory_bytes,
    score,
    sgd,
    weights_digest,
    write_tables,
    write_whole,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Steps between two checks of the loss: each makes an accelerator wait.
LOOK_EVERY = 32


def _on_stderr(line: str) -> None:
    with suppress(OSError, ValueError):  # the line is not essential: stderr may be closed
        print(line, file=sys.stderr, flush=True)


def train(
    config: TrainConfig,
    out_dir: Path | str,
    *,
    dataset: Dataset | None = None,
    on_other: Literal["refuse", "set aside"] = "refuse",
    say: Callable[[str], None] = _on_stderr,
) -> Run:
    """Train a network, resuming from a checkpoint in `out_dir` if there is one. A finished run is read, not repeated,
    even if its weights are not kept.

    Writes checkpoint.pt, metrics.csv, timing.csv, correct.bin (one bit for each test image) and run.json, each
    atomically. `dataset`: the dataset that the config names, if it is already loaded. With several processes, this
    function starts the others unless torchrun or Slurm did.

    A damaged checkpoint is renamed and reported, and the run starts again. `on_other`: whether an intact checkpoint of
    another run is an error or is renamed as well, as in the folders of a study, which hold one run each.

    Raises: ConfigError or DataError before training starts; RunInUseError if another process trains in the folder;
    OtherRunError; CheckpointError for a full disk; DivergedError naming epoch and step. The checkpoint of the last good
    epoch remains.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    dataset = dataset if dataset is not None else data.load(config.dataset)
    say(f"dataset: {dataset}")
    with alone_in(out, say, on_other == "set aside") if is_first(config) else nullcontext():
        return _train_alone(config, out, dataset, on_other, say)


def _train_alone(config: TrainConfig, out: Path, dataset: Dataset, on_other: str, say: Callable[[str], None]) -> Run:
    if not (out / CHECKPOINT).exists() and (record := finished(out, config, dataset, on_other == "set aside", say)):
        say(f"finished earlier, not trained again; its weights are not kept: {out / RUN}")
        return Run.from_json(record)
    config = settled(config, dataset)
    set_aside_unusable(out / CHECKPOINT, config, dataset, on_other == "set aside", say)
    if not (out / CHECKPOINT).exists() and (out / RUN).exists():
        set_aside(out / RUN, f"{out / RUN} belongs to the checkpoint that was set aside", say)
    # Bound by keyword, because Fabric passes itself as the only argument and inspects positional ones. Processes that
    # are started here get only arguments that can be pickled; each writes to its own stderr.
    job = partial(_train, config=config, dataset=dataset, out=out, say=say if config.n_processes == 1 else _on_stderr)
    try:
        with quiet():
            return Run.from_json(fabric_for(config).launch(job))
    except ProcessRaisedException as error:  # from a started process; the last line is the error
        raise TrainError(str(error).strip().splitlines()[-1]) from error


# ---- the loop


def _train(
    fabric: Fabric, *, config: TrainConfig, dataset: Dataset, out: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """The record of the run. Runs in every process; only the first one writes files."""
    with process_settings(config):
        feed = data.prepare(dataset, config, fabric.device)
        network, model, stepper = prepared(fabric, config)
        optimizer = stepper.optimizer
        history = resume(out / CHECKPOINT, config, dataset, network, optimizer)
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
                    save(out, config, dataset, network, optimizer, history)
                    if bar.disable:  # no terminal: one line for each epoch instead of the bar
                        say(_epoch_words(config, history))
        if history.correct is None:  # a finished run of a version that did not save it
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
    """The network of a run with its first weights, then the model and the optimiser that Fabric wraps around it."""
    network = first_weights(config)
    if fabric.world_size > 1:
        with_global_statistics(network, config.accelerator)
    optimizer = sgd(network, config)
    return (network, *fabric.setup(network, optimizer))


def _epoch_words(config: TrainConfig, history: History) -> str:
    row, timing = history.rows[-1], history.timing[-1]
    return (
        f"epoch {row['epoch']}/{config.epochs}: training loss {row['train_loss']:.3f}, "
        f"test error {row['test_error_pct']:.2f} %, {timing['elapsed_s']:.1f} s, {timing['images_per_s']:.0f} images/s"
    )


def train_epoch(
    fabric: Fabric, config: TrainConfig, feed: Feed, model: nn.Module, optimizer: Any, epoch: int, bar: Any, out: Path
) -> dict[str, float]:
    """Loss and error on the augmented images of the epoch, with noisy labels."""
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
            # The mean over processes is the loss of the whole batch, and all processes stop if one diverges.
            losses[looked : i + 1] = over_all(fabric, losses[looked : i + 1], "mean")
            for k, value in enumerate(losses[looked : i + 1].tolist(), looked):
                if not math.isfinite(value):
                    raise _diverged("training loss", value, epoch, before + k + 1, out)
            looked = i + 1
    n_wrong = int(over_all(fabric, wrong, "sum"))
    return {
        "train_loss": losses.double().mean().item(),
        "train_error_pct": 100 * n_wrong / (n_steps * config.batch_size),
    }


def _evaluate(fabric: Fabric, feed: Feed, model: nn.Module) -> tuple[dict[str, float], bytes]:
    """Loss and error on the test images, and one bit for each of them."""
    loss, own = score(feed, model, rank=fabric.global_rank, world=fabric.world_size)
    n = len(feed.test_labels)
    right = torch.zeros(n, dtype=torch.int64, device=fabric.device)
    right[fabric.global_rank :: fabric.world_size] = own.long()
    right = over_all(fabric, right, "sum")
    tested = {"test_loss": float(over_all(fabric, loss, "sum")) / n, "test_error_pct": 100 * (n - int(right.sum())) / n}
    return tested, packed(right.bool())


def _diverged(what: str, value: float, epoch: int, step: int, out: Path) -> DivergedError:
    kept = f"the checkpoint of epoch {epoch} is kept in {out}" if epoch else "no epoch was finished"
    return DivergedError(f"{what} is {value} in epoch {epoch + 1}, at step {step}: stopped; {kept} (try a lower lr)")
