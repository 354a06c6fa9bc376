"""Images per second of our training loop, beside the limit and beside the usual way, in one process on one thread.

The limit: forward, backward and step on one batch that never changes, of the same network in the same precision. The
usual way: a DataLoader that transforms each image by itself, float32, contiguous tensors, the loss read at every step.
The three take turns, so that a busy machine slows all of them; only the ratios of the medians are worth quoting.
"""

from __future__ import annotations

import logging
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from benchmarks.audits import Turn, take_turns
from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.training import data, devices, loop
from resattn.training.config import SIDE, TrainConfig

NETWORK, BATCH, STEPS, ROUNDS = "cifar-attention56", 64, 2, 9
LEAST_OF_LIMIT, LEAST_OF_USUAL = 0.97, 1.5


class PerSample(TorchDataset[tuple[Tensor, int]]):
    """Images transformed one by one, as torchvision's ToTensor, RandomCrop, RandomHorizontalFlip and Normalize do."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        pixels = images.float().div(255)
        self.mean, self.std = pixels.mean((0, 2, 3))[:, None, None], pixels.std((0, 2, 3))[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).contiguous().float().div(255)
        padded = torch.nn.functional.pad(image, (data.PAD,) * 4)
        top, left = (random.randint(0, 2 * data.PAD) for _ in "yx")
        image = padded[:, top : top + SIDE, left : left + SIDE]
        if random.random() < 0.5:
            image = image.flip(-1)
        return image.sub(self.mean).div(self.std), self.labels[index]


def bench_training() -> dict[str, Any]:
    """Median images per second of each way, and our ratio to the others; `STEPS` batches in each of `ROUNDS` turns."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            config, ways = _ways(Path(folder))
            times = take_turns(ways, ROUNDS, time.perf_counter)
    finally:
        torch.set_num_threads(threads)
    speeds = {name: [STEPS * BATCH / s for s in each] for name, each in times.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "network": NETWORK, "batch_size": BATCH, "steps": STEPS, "rounds": ROUNDS, "precision": config.precision,
        "images_per_s": medians, "of_limit": medians["ours"] / medians["limit"],
        "of_usual": medians["ours"] / medians["usual"], "rounds_images_per_s": speeds,
    }  # fmt: skip


def _ways(out: Path) -> tuple[TrainConfig, dict[str, Turn]]:
    n = STEPS * BATCH
    dataset = replace(data.digits(train=n, test=1), mirrors=True)  # as CIFAR, which is mirrored
    asked = TrainConfig(
        spec=named(NETWORK), epochs=10**6, batch_size=BATCH, dataset="cluttered-digits", images=n, test_images=1,
        accelerator="cpu", threads=1,
    )  # fmt: skip
    config = loop.settled(asked, dataset)
    return config, {
        "ours": _ours(config, dataset, out), "limit": _limit(config, dataset), "usual": _usual(config, dataset)
    }  # fmt: skip


def _ours(config: TrainConfig, dataset: data.Dataset, out: Path) -> Turn:
    """An epoch of the loop itself: batches, schedule, steps, running loss and error, progress, looks for a NaN."""
    fabric = devices.fabric_for(config)
    feed = data.prepare(dataset, config)
    model, optimizer = loop.prepared(fabric, config)[1:]
    bar = tqdm(total=config.steps, disable=True)
    epoch = iter(range(config.epochs))
    return lambda: _discard(loop.train_epoch(fabric, config, feed, model, optimizer, next(epoch), bar, out))


def _limit(config: TrainConfig, dataset: data.Dataset) -> Turn:
    fabric = devices.fabric_for(config)
    images, labels = next(data.prepare(dataset, config).batches(0))
    _, model, optimizer = loop.prepared(fabric, config)
    model.train()

    def turn() -> None:
        for _ in range(config.steps_per_epoch):
            fabric.backward(cross_entropy(model(images), labels))
            optimizer.step()
            optimizer.zero_grad()

    return turn


def _usual(config: TrainConfig, dataset: data.Dataset) -> Turn:
    model = build(config.spec, seed=config.seed).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    # In this process: a worker beside it would be a second thread.
    loader = DataLoader(PerSample(dataset.images, dataset.labels), batch_size=BATCH, shuffle=True, drop_last=True)

    def turn() -> None:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return turn


def _discard(_value: object) -> None:
    pass


def report(result: dict[str, Any]) -> str:
    """The ratios in words, each beside its target."""
    speeds = result["images_per_s"]
    has_bf16 = result["precision"] == "bf16"
    usual = f"(at least {LEAST_OF_USUAL:g} where there are bf16 units" + (")" if has_bf16 else ": there are none here)")
    return (
        f"training {result['network']}, one thread, {result['precision']}: {speeds['ours']:.1f} images/s, "
        f"{result['of_limit']:.3f} of bare forward+backward+step (at least {LEAST_OF_LIMIT:g}), "
        f"{result['of_usual']:.2f} times the usual way {usual}"
    )


if __name__ == "__main__":
    print(report(bench_training()), file=sys.stdout)
