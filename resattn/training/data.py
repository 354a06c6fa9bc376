"""Datasets, and the batches of a run: cropped, mirrored and normalised on its device, determined by seeds alone."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resattn.training import cifar, download
from resattn.training.config import DATASETS, SIDE, ConfigError, Scene, TrainConfig
from resattn.training.download import DownloadError
from resattn.training.layouts import LAYOUTS, DataError, Layout, chosen_home, find

__all__ = ["DataError", "Dataset", "DownloadError", "Feed", "fetch", "home", "load", "prepare", "resolve", "verify"]

PAD = 4
TEST_BATCH = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images (N, 3, 32, 32) uint8 with labels (N,) int64, for training and for testing.

    `label`: the name printed beside results. `note`: why `auto` chose this dataset, if it did.
    `foreground`, (N, 32, 32) bool: the pixels of the object, if known.
    """

    name: str
    label: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    digest: str
    mirrors: bool
    foreground: Tensor | None = None
    test_foreground: Tensor | None = None
    note: str = ""

    def __str__(self) -> str:
        return (
            f"{self.label}: {len(self.labels)} training and {len(self.test_labels)} test images, "
            f"{self.classes} classes, sha256 {self.digest}" + (f" ({self.note})" if self.note else "")
        )


def home() -> Path:
    """The folder that holds the datasets: RESATTN_DATA, else the user's cache folder."""
    if folder := chosen_home():
        return folder
    import pooch

    return Path(pooch.os_cache("resattn"))


def load(name: str = "auto", folder: Path | str | None = None) -> Dataset:
    """A dataset by name: cifar10, cifar100, cluttered-digits or auto.

    CIFAR is read from `folder` (default: `home()`), or downloaded into it. For auto, see `resolve`.

    Raises: ConfigError for an unknown name; DataError for a missing, truncated or altered file, also under auto.
    """
    where = Path(folder) if folder is not None else home()
    name, note = resolve(name, where)
    if DATASETS[name].make:
        return made(name, note=note)
    layout = LAYOUTS[name]
    return _cifar(layout, find(layout, where) or _fetched(layout, where), note)


def _fetched(layout: Layout, where: Path) -> Path:
    try:
        return download.fetch(layout, where)
    except DownloadError as error:
        looked = f"no {layout.title} in {where} (looked for {', '.join(layout.places)}; RESATTN_DATA names the folder)"
        raise DownloadError(f"{looked}, and {error}") from error


def resolve(name: str, folder: Path | str | None = None) -> tuple[str, str]:
    """The name of the dataset, and the reason for it if `name` is auto.

    auto: CIFAR-10 if it is on disk or can be downloaded within the time limits of `fetch`, else cluttered-digits. The
    download is tried once; a study calls this once for all its runs.

    Raises: ConfigError for an unknown name; DataError for an altered archive.
    """
    if name in DATASETS:
        return name, ""
    if name != "auto":
        raise ConfigError(f"unknown dataset {name!r} (one of: auto, {', '.join(DATASETS)})")
    where, layout = Path(folder) if folder is not None else home(), LAYOUTS["cifar10"]
    if place := find(layout, where):
        return layout.name, f"auto: found in {place}"
    try:
        return layout.name, f"auto: downloaded to {download.fetch(layout, where)}"
    except DownloadError as error:
        return "cluttered-digits", f"auto: no CIFAR-10 in {where}, and {error}"


def fetch(name: str, folder: Path | str | None = None) -> Path:
    """The path of a dataset's official archive, downloaded if it is missing.

    Raises: ConfigError for a dataset without an archive; DataError, DownloadError.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"nothing to download for dataset {name!r} (one of: {', '.join(LAYOUTS)})")
    return download.fetch(LAYOUTS[name], Path(folder) if folder is not None else home())


def verify(path: Path | str) -> Dataset:
    """The dataset in an archive, in its folder, or in a folder that contains one of these; every file is checked.

    Raises: DataError naming the file, expected and found.
    """
    path = Path(os.path.abspath(os.path.expanduser(path)))  # `.` has no name
    for layout in LAYOUTS.values():
        if path.name in layout.places and path.exists():
            return _cifar(layout, path)
    for layout in LAYOUTS.values():
        if place := find(layout, path):
            return _cifar(layout, place)
    known = ", ".join(name for layout in LAYOUTS.values() for name in layout.places)
    raise DataError(f"{path}: no dataset found, expected one of {known}")


def _cifar(layout: Layout, place: Path, note: str = "") -> Dataset:
    source, remark, *arrays = cifar.read(layout, place)
    digest = _digest(*arrays)
    images, labels, test_images, test_labels = (torch.from_numpy(a) for a in arrays)
    return Dataset(
        name=layout.name,
        label=source or f"{layout.title} (not known to be the official pixels; digest {digest[:12]})",
        images=images,
        labels=labels.long(),
        test_images=test_images,
        test_labels=test_labels.long(),
        classes=layout.classes,
        digest=digest,
        mirrors=DATASETS[layout.name].mirrors,
        note="; ".join(filter(None, [note, remark])),
    )


def made(name: str, seed: int = 0, *, train: int | None = None, test: int | None = None, note: str = "") -> Dataset:
    """A dataset that a function makes (see `DatasetRow`), by default with the row's numbers of images."""
    row = DATASETS[name]
    module, _, function = row.make.partition(":")
    make: Callable[..., tuple[Scene, Scene]] = getattr(importlib.import_module(module), function)
    n, n_test = row.train if train is None else train, row.test if test is None else test
    (images, labels, foreground), (test_images, test_labels, test_foreground) = make(seed, train=n, test=n_test)
    return Dataset(
        name=name,
        label=name,
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels).long(),
        test_images=torch.from_numpy(test_images),
        test_labels=torch.from_numpy(test_labels).long(),
        classes=row.classes,
        digest=_digest(images, labels, test_images, test_labels),
        mirrors=row.mirrors,
        foreground=None if foreground is None else torch.from_numpy(foreground),
        test_foreground=None if test_foreground is None else torch.from_numpy(test_foreground),
        note=note,
    )


def digits(seed: int = 0, *, train: int | None = None, test: int | None = None) -> Dataset:
    """The built-in cluttered digits, by default 10,000 training and 2,000 test images."""
    return made("cluttered-digits", seed, train=train, test=test)


def _digest(*arrays: np.ndarray) -> str:
    """sha256 over dtypes, shapes and contents, independent of the files they were read from."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape};".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def generator(*key: object) -> torch.Generator:
    """A generator for one purpose: equal keys give equal numbers, different keys independent ones."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def noisy(labels: Tensor, classes: int, noise: float, seed: int) -> Tensor:
    """The labels, each replaced with probability `noise` by a wrong one; all wrong classes are equally likely.

    Source: wang2017, equation 7: Q with r = 1 - noise on the diagonal and (1 - r) / (classes - 1) off it.
    """
    draws = generator(seed, "label noise")
    wrong = torch.rand(len(labels), generator=draws) < noise
    shift = torch.randint(1, classes, (len(labels),), generator=draws)
    return torch.where(wrong, (labels + shift) % classes, labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Feed:
    """The images of one run, on its device, and their batches.

    The content of a batch depends only on seed and epoch, not on the network, the device or the number of processes:
    runs with the same seed see the same images in the same order, so they can be compared in pairs.
    """

    padded: Tensor  # (N, 40, 40, 3) uint8; channels last, so that batches are channels last
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    mean: Tensor
    scale: float
    seed: int
    batch_size: int
    moves: bool
    mirrors: bool
    n_flipped: int  # labels that the noise changed

    def batches(self, epoch: int, *, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's images (B / world, 3, 32, 32) and labels for each step of an epoch."""
        n, device = len(self.labels), self.padded.device
        order, rows, columns = self.drawn(epoch)
        order, rows, columns = (t.to(device) for t in (order, rows, columns))
        for start in range(0, n - self.batch_size + 1, self.batch_size):
            own = slice(start + rank, start + self.batch_size, world)
            chosen = order[own]
            yield self.cut(chosen, rows[own], columns[own]), self.labels[chosen]

    def drawn(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The order of the images in an epoch, (N,), and for each place in it the rows and the columns of the padded
        image that make the crop, (N, 32) each; the columns are reversed for a mirrored image. All on the CPU."""
        n = len(self.labels)
        draws = generator(self.seed, "epoch", epoch)
        order = torch.randperm(n, generator=draws)
        corner = torch.randint(0, 2 * PAD + 1, (n, 2), generator=draws)
        mirrored = torch.rand(n, generator=draws) < 0.5
        if not self.moves:
            corner.fill_(PAD)
        if not (self.moves and self.mirrors):
            mirrored.fill_(False)
        steps = torch.arange(SIDE)
        rows = corner[:, :1] + steps
        columns = corner[:, 1:] + torch.where(mirrored[:, None], steps.flip(0), steps)
        return order, rows, columns

    def cut(self, chosen: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The normalised crops (B, 3, 32, 32) of the chosen images, at rows and columns that `drawn` returned."""
        return self._normalised(self.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]])

    def test_batches(
        self, *, rank: int = 0, world: int = 1, batch: int = TEST_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the test images, normalised and not augmented, and their labels."""
        images, labels = self.test[rank::world], self.test_labels[rank::world]
        for start in range(0, len(labels), batch):
            own = slice(start, start + batch)
            yield self._normalised(images[own]), labels[own]

    def _normalised(self, pixels: Tensor) -> Tensor:
        return pixels.float().sub_(self.mean).mul_(self.scale).permute(0, 3, 1, 2)


def prepare(dataset: Dataset, config: TrainConfig, device: torch.device | str = "cpu") -> Feed:
    """The images that a run uses from a dataset, on its device.

    Order as in the paper: pad with zeros, crop, subtract the mean. The paper states no scale; we divide by one
    standard deviation over all pixels and colours, so that the input of the stem has unit variance. Held-out images
    replace the test images; the order and the mean of the others do not depend on them.

    Source: wang2017, section 4.1.
    Raises: ConfigError if the dataset has fewer images than the config asks for.
    """
    n, n_test = config.n_images, config.n_test_images
    test_images, test_labels = dataset.test_images, dataset.test_labels
    if config.holdout:
        test_images, test_labels = dataset.images[-config.holdout :], dataset.labels[-config.holdout :]
    n_free = len(dataset.labels) - config.holdout
    for name, asked, there in (("images", n, n_free), ("test_images", n_test, len(test_labels))):
        if asked > there:
            raise ConfigError(f"{name} must be in [1, {there}], as this {dataset.name} has {there}, found {asked}")
    pixels = dataset.images[:n].permute(0, 2, 3, 1)
    clean = dataset.labels[:n]
    labels = noisy(clean, dataset.classes, config.label_noise, config.seed)
    total, squares = _sums(dataset.images[:n])  # (3, 32, 32) and one number
    colour = total.mean((1, 2)) / n
    mean = total.permute(1, 2, 0) / n if config.normalise == "pixel-mean" else colour
    variance = squares / pixels.numel() - (colour**2).mean().item()
    return Feed(
        padded=torch.nn.functional.pad(pixels, (0, 0, PAD, PAD, PAD, PAD)).to(device),
        labels=labels.to(device),
        test=test_images[:n_test].permute(0, 2, 3, 1).contiguous().to(device),
        test_labels=test_labels[:n_test].to(device),
        mean=mean.float().to(device),
        scale=variance**-0.5 if variance > 0 else 1.0,
        seed=config.seed,
        batch_size=config.batch_size,
        moves=config.augment == "standard",
        mirrors=dataset.mirrors,
        n_flipped=int((labels != clean).sum()),
    )


def _sums(images: Tensor) -> tuple[Tensor, float]:
    """Sum over the images, and sum of all squares: exact, so the order of addition does not matter."""
    total, squares = torch.zeros(images.shape[1:], dtype=torch.float64), 0.0
    for chunk in images.split(1000):
        values = chunk.float()
        total += values.sum(0)  # integers below 2**24 are exact in float32
        squares += values.square_().sum(dtype=torch.float64).item()  # below 2**53
    return total, squares
