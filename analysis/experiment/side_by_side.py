"""Trains runs of equal length in parallel on one device, and writes the records of finished runs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from analysis.experiment.protocol import Planned, Protocol, bf16_weights, keeps_weights
from analysis.experiment.trainee import Trainee, restart_all, start_all
from resattn.training.data import Dataset, Feed
from resattn.training.kept import keep, keep_diverged
from resattn.training.run import Run, device_name, peak_memory_bytes, weights_digest, write_whole

GRAPHS, EAGER = "graphs on their own streams", "no graphs"
BLOCK = 50  # steps that are queued at a time


@dataclass
class Session:
    """The measurements and decisions of one call; written to summary.json as they are made."""

    out: Path
    minutes: float
    say: Callable[[str], None]
    start: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.start

    @property
    def left_s(self) -> float:
        return 60 * self.minutes - self.elapsed_s

    def note(self, line: str, **values: Any) -> None:
        self.say(f"[{self.elapsed_s:6.1f} s] {line}")
        self.summary |= values
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self.out / "summary.json", json.dumps(self.summary, indent=1).encode() + b"\n")


def rounds_of_steps(runs: Sequence[Trainee], steps: int, how: str) -> None:
    """Queues `steps` steps of every run in turns, at most two blocks ahead of the device."""
    marks: list[list[torch.cuda.Event]] = []
    for first in range(0, steps, BLOCK):
        for _ in range(min(BLOCK, steps - first)):
            for run in runs:
                run.step()
        if how != EAGER:
            marks.append([(run.stream or torch.cuda.current_stream()).record_event() for run in runs])
            for mark in marks.pop(0) if len(marks) > 1 else ():
                mark.synchronize()
    if runs[0].is_cuda:
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Context:
    """What the runs of a block share. `folder`: receives finished runs."""

    session: Session
    folder: Path
    protocol: Protocol
    dataset: Dataset
    feed: Feed
    device: torch.device
    how: str
    code: str | None


def train_block(context: Context, block: Sequence[Planned], trainees: Sequence[Trainee]) -> int:
    """Trains runs of equal length in parallel, on trainees of the same networks, and keeps them; gives their number."""
    session, device = context.session, context.device
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    runs = list(trainees[: len(block)])
    restart_all(runs, [planned.config for planned in block], context.feed)
    rows: list[list[dict[str, Any]]] = [[] for _ in runs]
    timing: list[list[dict[str, Any]]] = [[] for _ in runs]
    bits = [b""] * len(runs)
    config = block[0].config
    for epoch in range(config.epochs):
        start = time.perf_counter()
        start_all(runs, epoch)
        rounds_of_steps(runs, config.steps_in(epoch), context.how)
        train_s = time.perf_counter() - start
        step = epoch * config.steps_per_epoch + config.steps_in(epoch)
        for i, run in enumerate(runs):
            seen = run.training_row()
            tested, bits[i] = run.test()
            rows[i].append({"epoch": epoch + 1, "step": step, "lr": run.config.lr_at(step - 1), **seen, **tested})
        elapsed_s = time.perf_counter() - start
        for times in timing:
            times.append(
                {
                    "epoch": epoch + 1,
                    "train_s": train_s,
                    "images_per_s": config.steps_in(epoch) * config.batch_size / train_s,
                    "elapsed_s": elapsed_s,
                    "peak_memory_bytes": peak_memory_bytes(device),
                }
            )
        # Of the training images alone: no comparison is looked at before it is complete.
        session.note(
            f"epoch {epoch + 1}/{config.epochs} of {len(runs)} runs ({block[0].id} ...): {train_s:.1f} s, "
            f"{len(runs) * config.steps_in(epoch) * config.batch_size / train_s:,.0f} images/s; training loss "
            + ", ".join(f"{row[-1]['train_loss']:.3f}" for row in rows[:4])
        )
    for i, (run, planned) in enumerate(zip(runs, block, strict=True)):
        about = {
            "protocol": context.protocol.digest,
            "part": planned.part,
            "network": planned.network,
            "start": begun,
            "commit": context.code,
            "side_by_side": len(runs),
        }
        losses = ((row, row["train_loss"] + row["test_loss"]) for row in rows[i])
        first_bad = next((row for row, loss in losses if not math.isfinite(loss)), None)
        if first_bad is None:
            _keep(context, planned, run, rows[i], timing[i], bits[i], about)
        else:
            message = f"the loss is no finite number in epoch {first_bad['epoch']}"
            keep_diverged(context.folder / planned.id, planned.config, message, about)
            session.note(f"{planned.id}: diverged")
    return len(block)


def _keep(
    context: Context, planned: Planned, trainee: Trainee, rows: list[dict[str, Any]], timing: list[dict[str, Any]],
    bits: bytes, about: Mapping[str, Any],
) -> None:  # fmt: skip
    dataset, network = context.dataset, trainee.finish()
    run = Run(
        config=trainee.config,
        dataset_label=dataset.label,
        dataset_note="",
        dataset_digest=dataset.digest,
        n_flipped_labels=0,
        rows=tuple(rows),
        timing=tuple(timing),
        weights_digest=weights_digest(network),
        execution={
            "device": device_name(context.device),
            "n_processes": 1,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "how": context.how,
        },
        out_dir=planned.id,
    )
    weights = bf16_weights(network) if keeps_weights(context.protocol, planned) else None
    keep(context.folder / planned.id, run, bits, about, weights=weights)
