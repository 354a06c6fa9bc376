"""The files of CIFAR-10 and CIFAR-100: names, sizes, published digests, and where they are on this disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from resattn.training.config import DATASETS, SIDE

PIXEL_BYTES = 3 * SIDE * SIDE


class DataError(Exception):
    """A dataset is missing, truncated or altered; the message names the file and says what was expected and found."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names, sizes and digests of the files of one dataset."""

    name: str
    title: str
    archive: str
    archive_sha256: str
    binary_folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    python_folder: str
    python_archive: str
    python_md5: Mapping[str, str]
    python_labels: bytes
    # Label of a copy that is not the official one -> sha256 of its binary files.
    copies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return DATASETS[self.name].classes

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the archives and folders that may hold the dataset; the first that exists is used."""
        return self.archive, self.binary_folder, self.python_folder, self.python_archive

    def records(self, file: str) -> int:
        split, files = (
            (DATASETS[self.name].test, self.test) if file in self.test else (DATASETS[self.name].train, self.train)
        )
        return split // len(files)

    def file_bytes(self, file: str) -> int:
        return self.records(file) * (self.label_bytes + PIXEL_BYTES)


# sha256 of the archives: tensorflow/datasets, url_checksums/cifar10.txt and cifar100.txt. md5 of the pickled files:
# pytorch/vision, torchvision/datasets/cifar.py. Digests of the single binary files were never published.
CIFAR10 = Layout(
    name="cifar10",
    title="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    binary_folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
    python_folder="cifar-10-batches-py",
    python_archive="cifar-10-python.tar.gz",
    python_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    python_labels=b"labels",
    # A copy whose images were once compressed as JPEG of quality 75; its order differs from the official one.
    copies={
        "CIFAR-10 (JPEG q75 copy)": {
            "data_batch_1.bin": "8612e9e56cdf547a966c79889c7334205ecec294370ef23a68a57d7ba8854526",
            "data_batch_2.bin": "03d59f2cc6dd7346474fd512eac14e61677a70df38461f60a4b720c87d85e044",
            "data_batch_3.bin": "b0223e3d0a710a0381090b92c5d8407e0539c31b09dbbfc2efc59c86409a79f4",
            "data_batch_4.bin": "b23a4d07b190e50ab1e07b2ccb5d6441233c11a95d5561d19b73b4fe0ae5d198",
            "data_batch_5.bin": "d0da5e2ccec46a2f3cd2eff84a0bcdef5809567c4c2c5c300980c84db0aa6721",
            "test_batch.bin": "89086d93886b7c153b9e82b6408ef4dac5512d30ba14d3c2f19059a57373d92f",
        }
    },
)
CIFAR100 = Layout(
    name="cifar100",
    title="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    archive_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    binary_folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,  # coarse, then fine
    python_folder="cifar-100-python",
    python_archive="cifar-100-python.tar.gz",
    python_md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    python_labels=b"fine_labels",
)
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}


def find(layout: Layout, home: Path) -> Path | None:
    """The first of `Layout.places` that exists in `home`."""
    return next((home / place for place in layout.places if (home / place).exists()), None)


def chosen_home() -> Path | None:
    """RESATTN_DATA as an absolute path, from the current folder if relative; `~` is the user's home."""
    folder = os.environ.get("RESATTN_DATA")
    return Path(os.path.abspath(os.path.expanduser(folder))) if folder else None


def check_archive(layout: Layout, path: Path) -> None:
    """Raises: DataError unless the archive has its published digest."""
    with path.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != layout.archive_sha256:
        raise DataError(
            f"{path}: truncated or altered: expected sha256 {layout.archive_sha256}, "
            f"found {found} ({path.stat().st_size} bytes)"
        )
