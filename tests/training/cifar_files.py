"""A small CIFAR of random pixels, in each layout of the official one, and archives made by hand."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from resattn.training.layouts import Layout


def pixels(layout: Layout, file: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(sum(file.encode()))
    n = layout.records(file)
    return rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8), rng.integers(layout.classes, size=n, dtype=np.uint8)


def binary(layout: Layout, file: str) -> bytes:
    images, labels = pixels(layout, file)
    coarse = [np.zeros_like(labels)[:, None]] if layout.label_bytes == 2 else []
    return np.hstack([*coarse, labels[:, None], images.reshape(len(images), -1)]).tobytes()


def write_binary(layout: Layout, home: Path) -> Path:
    folder = home / layout.binary_folder
    folder.mkdir(parents=True)
    for file in (*layout.train, *layout.test):
        (folder / file).write_bytes(binary(layout, file))
    return folder


def write_python(layout: Layout, home: Path, protocol: int = 2) -> Path:
    folder = home / layout.python_folder
    folder.mkdir(parents=True)
    for file in layout.python_md5:
        images, labels = pixels(layout, f"{file}.bin")
        batch = {
            "data": images.reshape(len(images), -1),
            layout.python_labels.decode(): labels.tolist(),
            "filenames": ["é"],
        }
        (folder / file).write_bytes(pickle.dumps(batch, protocol=protocol))
    return folder


def tar_gz(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for member, raw in members:
            tar.addfile(member, io.BytesIO(raw))
    return content.getvalue()


def member(name: str, raw: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, raw
