"""Does a mask attend to the object? Maps of attention modules against a known foreground.

A map has one number for each position of a module: of the mask, the trunk, the output of their merge, or random. It is
resized to the image and scored by how well it separates the object's pixels from the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.tables import schemas, steps
from analysis.tables.formats import display_name, part_name
from resattn.measures.captured import captured
from resattn.networks.network import Network, build
from resattn.training import data
from resattn.training.checkpoint import trained
from resattn.training.data import Dataset, Feed
from resattn.training.kept import WEIGHTS, kept_network
from resattn.training.run import Run, TrainError, read_runs

BATCH = 100  # images at a time: the maps of a wide network are large
SETTLING = 20  # batches that give an untrained network the statistics of its norms
STATES = ("before", "after")
# What is scored, the mask first and then its controls.
MAPS: Mapping[str, str] = {
    "mask": "mask, mean over channels",
    "trunk": "trunk, mean magnitude over channels",
    "output": "what the merge gives, mean magnitude over channels",
    "random": "a random mask of the same size",
}
# Beside every score: maps that know nothing of the image, or nothing of the network.
NULLS: Mapping[str, str] = {
    "other image": "the mask of another image",
    "constant": "the mean foreground of the training images, for every image",
    "brightness": "mean of the image's colours",
}

Maps = NDArray[np.float32]


class AttendingError(ValueError):
    """There is no mask, or nothing to compare it with; the message says what was found."""


# -- scores


def auc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N,) area under the ROC curve of each row of scores, (N, K), by ranks; ties count half.

    NaN for a row with pixels of one kind only. Source: Mann and Whitney 1947, section 2 (U over the number of pairs).
    """
    n_positive = positive.sum(1)
    n_pairs = n_positive * (positive.shape[1] - n_positive)
    # A sort and a search for the positive ones take a quarter of the time of ranks for all.
    rows = [(np.sort(row), np.sort(row[chosen])) for row, chosen in zip(scores, positive, strict=True)]
    ranks = [(row.searchsorted(own, "left") + row.searchsorted(own, "right") + 1).sum() / 2 for row, own in rows]
    wins = np.where(np.isnan(scores).any(1), np.nan, ranks - n_positive * (n_positive + 1) / 2)
    return np.divide(wins, n_pairs, out=np.full(len(scores), np.nan), where=n_pairs > 0)


def energy_share(values: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N,) share of the sum of squares of each row, (N, K), that lies inside; NaN for a row of zeros."""
    energy = np.asarray(values, dtype=np.float64) ** 2
    total = energy.sum(1)
    return np.divide((energy * inside).sum(1), total, out=np.full(len(energy), np.nan), where=total > 0)


def contrast(values: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Mean of all values inside over the mean of all outside, minus 1; NaN if the latter is 0."""
    ground = float(values[~inside].mean(dtype=np.float64))
    return float(values[inside].mean(dtype=np.float64)) / ground - 1 if ground else float("nan")


# -- maps


@dataclass(frozen=True, eq=False)
class Attended:
    """The inputs and the output of the merge of one attention module: (N, C, H, W) each."""

    module: str
    trunk: Tensor
    mask: Tensor
    output: Tensor

    @property
    def stage(self) -> str:
        return self.module.partition(".")[0]

    def maps(self) -> dict[str, Tensor]:
        """(N, H, W) of the mask, the trunk and the output, averaged over channels."""
        return {"mask": self.mask.mean(1), "trunk": self.trunk.abs().mean(1), "output": self.output.abs().mean(1)}


@torch.no_grad()
def attended(network: nn.Module, images: Tensor) -> list[Attended]:
    """The mask, trunk and output of each attention module for (N, C, H, W) images, in the order of the modules.

    Raises: AttendingError for a network without attention modules.
    """
    by_module: dict[str, Attended] = {}

    def keep(module: str) -> Any:
        def hook(_merge: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            by_module[module] = Attended(module, inputs[0].detach(), inputs[1].detach(), output.detach())

        return hook

    with ExitStack() as stack:
        for name in captured(network.spec).attention_modules:
            merge = network.get_submodule(f"{name}.merge")
            stack.callback(merge.register_forward_hook(keep(name)).remove)
        network(images)
    if not by_module:
        raise AttendingError(f"{_name_of(network)} has no attention module")
    return list(by_module.values())


def over_image(maps: Tensor, side: int) -> Tensor:
    """(N, H, W) maps resized to square images, (N, side, side), bilinear between the centres of positions."""
    return F.interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def settle(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets the norms of an untrained network to the statistics of some batches; its weights stay.

    With their initial statistics, its maps would depend on the error of these statistics instead of the image.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    network.train()
    for images in batches:
        network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def score_rows(
    network: nn.Module, images: Tensor, foreground: Tensor, *, seed: int = 0, nulls: Mapping[str, Tensor] | None = None
) -> list[dict[str, Any]]:
    """One row for each attention module, map and score: module, stage, map, quantity, value.

    `images`: as the network takes them; `foreground`: (N, H, W) bool, of the same height and width. `seed`: of the
    random mask, which is drawn at the size of the module's map. `nulls`: baseline maps, (N, H, W), for every module.
    Raises: AttendingError for a network without attention modules.
    """
    side = images.shape[-1]
    random = torch.Generator().manual_seed(seed)
    collected: dict[tuple[str, str], list[Maps]] = {}
    for start in range(0, len(images), BATCH):
        for met in attended(network, images[start : start + BATCH]):
            maps = met.maps()
            maps["random"] = torch.rand(maps["mask"].shape, generator=random)
            for name, values in maps.items():
                flat = over_image(values.float().cpu(), side).flatten(1).numpy()
                collected.setdefault((met.module, name), []).append(flat)
    inside = foreground.flatten(1).cpu().numpy()
    rows = []
    maps_of = {key: np.concatenate(parts) for key, parts in collected.items()}
    for module in dict.fromkeys(module for module, _ in collected):
        maps_of[module, "other image"] = np.roll(maps_of[module, "mask"], 1, axis=0)
        maps_of |= {(module, name): values.flatten(1).cpu().numpy() for name, values in (nulls or {}).items()}
    for (module, name), together in maps_of.items():
        scores = {
            "auc": float(np.nanmean(auc(together, inside))),
            "energy_share": float(np.nanmean(energy_share(together, inside))),
            "contrast": contrast(together, inside),
        }
        stage = module.partition(".")[0]
        rows += [{"module": module, "stage": stage, "map": name, "quantity": q, "value": v} for q, v in scores.items()]
    return rows


@torch.no_grad()
def channel_rows(network: nn.Module, images: Tensor, foreground: Tensor) -> list[dict[str, Any]]:
    """One row for each channel of each mask: module, stage, channel, auc, mean_map_share.

    `mean_map_share`: the share of the variance of the module's mask over images, channels and positions that its mean
    over channels has; the same for each channel of a module.
    Raises: AttendingError for a network without attention modules.
    """
    side, inside, rows = images.shape[-1], foreground.flatten(1).cpu().numpy(), []
    met = [attended(network, part) for part in images.split(BATCH)]
    for of_module in zip(*met, strict=True):
        mask = torch.cat([part.mask for part in of_module]).float()
        share = float(mask.mean(1).var(correction=0) / mask.var(correction=0))
        for channel in range(mask.shape[1]):
            area = float(np.nanmean(auc(over_image(mask[:, channel], side).flatten(1).numpy(), inside)))
            module = of_module[0].module
            rows.append(
                {"module": module, "stage": of_module[0].stage, "channel": channel, "auc": area,
                 "mean_map_share": share}
            )  # fmt: skip
    return rows


# -- trained runs


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run with its test images."""

    run: Run
    folder: Path
    dataset: Dataset
    feed: Feed

    @property
    def name(self) -> str:
        return self.run.config.spec.name

    @property
    def seed(self) -> int:
        return self.run.config.seed

    @property
    def title(self) -> str:
        return f"{display_name(self.name)}, trained on {self.run.dataset_label}, seed {self.seed}"

    @property
    def slug(self) -> str:
        """The name as part of a file name."""
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-")

    def network(self, state: str) -> Network:
        """The network before training, with settled norms, or after it."""
        if state == "after":
            return kept_network(self.folder) if (self.folder / WEIGHTS).exists() else trained(self.folder)
        network = build(self.run.config.spec, seed=self.seed)
        settle(network, (images for images, _ in islice(self.feed.batches(0), SETTLING)))
        return network.eval()

    def images(self, n: int) -> Tensor:
        """The first `n` test images as the network takes them; all if the run has fewer."""
        taken: list[Tensor] = []
        for images, _ in self.feed.test_batches():
            taken.append(images)
            if sum(map(len, taken)) >= n:
                break
        return torch.cat(taken)[:n]

    def pixels(self, n: int) -> NDArray[np.uint8]:
        """The first `n` test images for display: (n, H, W, 3)."""
        return np.asarray(self._tested(n, self.dataset.images, self.dataset.test_images).permute(0, 2, 3, 1).numpy())

    def labels(self, n: int) -> Tensor:
        """(n,) the classes of the first `n` test images."""
        return self.feed.test_labels[:n]

    def nulls(self, n: int) -> dict[str, Tensor]:
        """(n, H, W) the baseline maps of `NULLS`, which no network makes, for the first `n` test images."""
        known = self.dataset.foreground
        brightness = self._tested(n, self.dataset.images, self.dataset.test_images).float().mean(1)
        made = {} if known is None else {"constant": known.float().mean(0).expand(len(brightness), -1, -1)}
        return {**made, "brightness": brightness}

    def known_foreground(self, n: int) -> Tensor | None:
        """(n, H, W) bool: the object in the first `n` test images; None if unknown."""
        training, test = self.dataset.foreground, self.dataset.test_foreground
        return None if training is None or test is None else self._tested(n, training, test)

    def foreground(self, n: int) -> Tensor:
        """`known_foreground`. Raises: AttendingError if it is unknown."""
        if (known := self.known_foreground(n)) is None:
            raise AttendingError(f"the foreground of {self.dataset.label} is not known (train on cluttered-digits)")
        return known

    def _tested(self, n: int, training: Tensor, test: Tensor) -> Tensor:
        """What belongs to the first `n` images of the run's test, or to all where it has fewer."""
        held_out = self.run.config.holdout
        return (training[-held_out:] if held_out else test)[: min(n, len(self.feed.test_labels))]


def runs_below(folder: Path | str, *, with_masks: bool = True) -> Iterator[Trained]:
    """The trained runs below a folder, as notebook 50 leaves them, by name; of networks with masks, or of all.

    Empty for an empty name. Raises: AttendingError if there is none; TrainError, DataError.
    """
    if not str(folder):
        return
    datasets: dict[str, Dataset] = {}
    runs = read_runs(folder)
    if with_masks:
        runs = [(place, run) for place, run in runs if run.config.spec.has_masks]
    if not runs:
        what = "of a network with masks " if with_masks else ""
        raise AttendingError(
            f"no trained run {what}in {folder}: no */run/run.json (run {steps.TRAIN} with an out_dir in it)"
        )
    for place, run in runs:
        name = run.config.dataset
        if name not in datasets:
            datasets[name] = data.load(name)
        if datasets[name].digest != run.dataset_digest:
            raise TrainError(f"{place}: trained on other images than the {datasets[name].label} that is here")
        yield Trained(run, place, datasets[name], data.prepare(datasets[name], run.config))


def images_words(runs: Iterable[Trained], images: int) -> str:
    """The number of test images on which some runs are measured, in a sentence."""
    fewer = sorted({n for run in runs if (n := len(run.feed.test_labels)) < images})
    asked = f"Measured on the first {images} test images of each run"
    return f"{asked}." if not fewer else f"{asked}; of runs that have fewer, on all ({', '.join(map(str, fewer))})."


def first_of_each(runs: Iterable[Trained]) -> list[Trained]:
    """For each network the run with the smallest seed."""
    first: dict[str, Trained] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        first.setdefault(run.name, run)
    return list(first.values())


def mask_frame(runs: Iterable[Trained], images: int) -> pd.DataFrame:
    """The scores of all maps for the first test images, before and after training: `schemas.MASKS`.

    Raises: AttendingError if the foreground is unknown, or there are no such runs.
    """
    rows = []
    for run in runs:
        inputs, foreground = run.images(images), run.foreground(images)
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed}
        about["test_error_pct"] = run.run.test_error_pct
        for state in STATES:
            scored = score_rows(run.network(state), inputs, foreground, seed=run.seed, nulls=run.nulls(images))
            rows += [{**about, "state": state, **row} for row in scored]
    if not rows:
        raise AttendingError("no trained run of a network with masks")
    return pd.DataFrame(rows, columns=schemas.MASKS.names)


def channel_frame(runs: Iterable[Trained], images: int) -> pd.DataFrame:
    """The area under the ROC curve of each mask channel after training: `schemas.CHANNELS`. Raises: AttendingError."""
    rows = []
    for run in runs:
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed}
        found = channel_rows(run.network("after"), run.images(images), run.foreground(images))
        rows += [{**about, **row} for row in found]
    return pd.DataFrame(rows, columns=schemas.CHANNELS.names)


def mask_summary(masks: pd.DataFrame) -> pd.DataFrame:
    """Columns network, quantity, map, state, then each stage: mean over modules and seeds, and range over seeds.

    The maps of the network come first, then the baselines.
    """
    quantities = ("auc", "energy_share")
    kept = masks[masks["quantity"].isin(quantities)]
    order = {name: k for k, name in enumerate([*quantities, *MAPS, *NULLS, *STATES])}
    keys = ["network", "quantity", "map", "state"]
    of_seeds = kept.groupby([*keys, "stage", "seed"], sort=False)["value"].mean()
    spread = of_seeds.groupby([*keys, "stage"], sort=False).agg(["mean", "min", "max"])
    words = spread.apply(lambda row: f"{row['mean']:.2f} ({row['min']:.2f} to {row['max']:.2f})", axis=1)
    wide = words.unstack("stage").reset_index()
    return wide.rename_axis(columns=None).sort_values(
        keys, key=lambda column: column.map(order) if column.name != "network" else column, kind="stable",
        ignore_index=True,
    )  # fmt: skip


def mask_gains(masks: pd.DataFrame) -> pd.DataFrame:
    """The score of the trained mask minus that of its controls: `schemas.GAINS`."""
    kept = masks[masks["quantity"] == "auc"]
    wide = kept.pivot_table(index=["network", "stage", "seed"], columns=["map", "state"], values="value", sort=False)
    after = wide["mask", "after"]
    gains = {"over_trunk": after - wide["trunk", "after"], "over_before": after - wide["mask", "before"]}
    return pd.DataFrame(gains).reset_index()


@dataclass(frozen=True, eq=False)
class View:
    """Images for display, (N, H, W, 3); maps beside them by part and title, (N, h, w); the foreground, if known."""

    pixels: NDArray[np.uint8]
    columns: Mapping[str, Mapping[str, Maps]]
    foreground: NDArray[np.bool_] | None


def view(run: Trained, n_images: int, n_channels: int) -> View:
    """The masks of a trained network for its first test images.

    For each stage, of its last module: the mean over channels, and the channels with the largest variance.
    """
    last = {last_of.stage: last_of for last_of in attended(run.network("after"), run.images(n_images))}
    means = {part_name(stage): last_of.mask.mean(1).numpy() for stage, last_of in last.items()}
    columns: dict[str, Mapping[str, Maps]] = {"mean": means}
    for stage, last_of in last.items():
        chosen = varied_channels(last_of.mask, n_channels)
        columns[f"{stage}_channels"] = {f"{part_name(stage)}, channel {c}": last_of.mask[:, c].numpy() for c in chosen}
    known = run.known_foreground(n_images)
    return View(run.pixels(n_images), columns, None if known is None else known.numpy())


def varied_channels(mask: Tensor, n: int) -> list[int]:
    """The channels of (N, C, H, W) masks with the largest variance over positions, the largest first."""
    spread = mask.float().flatten(2).std(2).mean(0)
    return [int(c) for c in spread.argsort(descending=True, stable=True)[:n]]


def _name_of(network: nn.Module) -> str:
    return network.spec.name if isinstance(network, Network) else type(network).__name__
