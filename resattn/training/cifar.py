"""CIFAR-10 and CIFAR-100 read from an archive or a folder, every file checked. No archive is extracted."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resattn.training.config import SIDE
from resattn.training.layouts import PIXEL_BYTES, DataError, Layout, check_archive
from resattn.training.pickles import unpickle

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]


class Raw(NamedTuple):
    """What was read: (N, 3, 32, 32) uint8 images and (N,) labels, and where from.

    A source without a name is one that no published digest vouches for.
    """

    source: str | None
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels


def read(layout: Layout, place: Path) -> Raw:
    """The dataset in an archive or folder that `find` gave.

    Raises: DataError naming the file that is missing, truncated or altered.
    """
    if place.name == layout.archive:
        return _from_records(layout, place, _archive_files(layout, place), f"{layout.title} (official binary)")
    if place.name == layout.python_folder:
        return _read_pickles(layout, place)
    files = {file: _file(place / file, layout.file_bytes(file)) for file in (*layout.train, *layout.test)}
    return _from_records(layout, place, files, _source_of(layout, place, files))


def _from_records(layout: Layout, place: Path, files: Mapping[str, bytes], source: str | None) -> Raw:
    parts = {file: _records(layout, f"{place}: {file}", raw) for file, raw in files.items()}
    return _raw(source, [parts[f] for f in layout.train], [parts[f] for f in layout.test])


def _records(layout: Layout, where: str, raw: bytes) -> tuple[Images, Labels]:
    records = np.frombuffer(raw, np.uint8).reshape(-1, layout.label_bytes + PIXEL_BYTES)
    labels = records[:, layout.label_bytes - 1]
    _check_labels(layout, where, labels)
    return records[:, layout.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels


def _raw(source: str | None, train: list[tuple[Images, Labels]], test: list[tuple[Images, Labels]]) -> Raw:
    (images, labels), (test_images, test_labels) = (
        (np.concatenate([part[0] for part in split]), np.concatenate([part[1] for part in split]))
        for split in (train, test)
    )
    return Raw(source, images, labels, test_images, test_labels)


def _check_labels(layout: Layout, where: str, labels: NDArray[Any]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if wrong.size:
        raise DataError(
            f"{where}: altered: label {labels[wrong[0]]} in record {wrong[0]}, expected labels in [0, {layout.classes})"
        )


def _file(path: Path, n_bytes: int) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: missing, expected a file of {n_bytes} bytes")
    if path.stat().st_size != n_bytes:
        raise DataError(f"{path}: truncated or altered: expected {n_bytes} bytes, found {path.stat().st_size}")
    return path.read_bytes()


def _source_of(layout: Layout, folder: Path, files: Mapping[str, bytes]) -> str | None:
    """The name of the source of a folder: by a published digest, else as its SOURCE.txt says, else unknown."""
    found = {file: hashlib.sha256(raw).hexdigest() for file, raw in files.items()}
    _match(folder, _sums(folder), found, "SHA256SUMS")
    for label, expected in layout.copies.items():
        if any(found[file] == digest for file, digest in expected.items()):
            _match(folder, expected, found, label)
            return label
    note = folder / "SOURCE.txt"
    if note.is_file():
        lines = note.read_text(encoding="utf-8", errors="replace")[:1000].splitlines()
        return lines[0].strip() or None if lines else None
    return None


def _sums(folder: Path) -> dict[str, str]:
    """File -> digest, as `sha256sum *.bin > SHA256SUMS` wrote them beside the files; empty where nobody did."""
    path = folder / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {file.lstrip("*"): digest for digest, file in pairs}


def _match(folder: Path, expected: Mapping[str, str], found: Mapping[str, str], who: str) -> None:
    for file, digest in expected.items():
        if file in found and found[file] != digest:
            raise DataError(f"{folder / file}: altered: expected {digest} ({who}), found {found[file]}")


# ---- the archive


def _archive_files(layout: Layout, path: Path) -> dict[str, bytes]:
    check_archive(layout, path)
    wanted = {f"{layout.binary_folder}/{file}": layout.file_bytes(file) for file in (*layout.train, *layout.test)}
    return {PurePosixPath(member).name: raw for member, raw in members(path, wanted).items()}


def members(archive: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """The wanted members of a .tar.gz, name -> content, read in memory; `wanted` gives each one's size in bytes.

    Raises: DataError for a member with an absolute or climbing path, a link, a device, a wrong size, a second copy,
    one that is missing, or an archive that breaks off.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise DataError(f"{archive}: refused: member {member.name!r} would lie outside its folder")
                if not (member.isfile() or member.isdir()):
                    raise DataError(f"{archive}: refused: member {member.name!r} is a link or a device")
                name = str(path)
                if name not in wanted or member.isdir():
                    continue
                if name in contents:
                    raise DataError(f"{archive}: refused: member {name!r} occurs twice")
                if member.size != wanted[name]:
                    raise DataError(f"{archive}: member {name!r}: expected {wanted[name]} bytes, found {member.size}")
                stream = tar.extractfile(member)
                assert stream is not None  # a regular file has a stream
                contents[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive}: truncated or altered: {error}") from error
    missing = sorted(set(wanted) - set(contents))
    if missing:
        raise DataError(f"{archive}: member {missing[0]!r} is missing")
    return contents


# ---- the pickles


def _read_pickles(layout: Layout, folder: Path) -> Raw:
    raws = {}
    for file in layout.python_md5:
        path = folder / file
        if not path.is_file():
            raise DataError(f"{path}: missing")
        # The official ones are within 1 % of their pixels; the bound keeps a hostile one from filling the memory.
        most = 2 * layout.records(_binary_name(layout, file)) * PIXEL_BYTES
        if path.stat().st_size > most:
            raise DataError(f"{path}: altered: expected at most {most} bytes, found {path.stat().st_size}")
        raws[file] = path.read_bytes()
    found = {file: hashlib.md5(raw, usedforsecurity=False).hexdigest() for file, raw in raws.items()}
    official = any(found[file] == digest for file, digest in layout.python_md5.items())
    if official:
        _match(folder, layout.python_md5, found, "official md5")
    parts = {_binary_name(layout, file): _pickled_batch(layout, folder / file, raw) for file, raw in raws.items()}
    source = f"{layout.title} (official python)" if official else None
    return _raw(source, [parts[f] for f in layout.train], [parts[f] for f in layout.test])


def _binary_name(layout: Layout, python_file: str) -> str:
    return f"{python_file}.bin"


def _pickled_batch(layout: Layout, path: Path, raw: bytes) -> tuple[Images, Labels]:
    batch = unpickle(raw, str(path))
    if not isinstance(batch, dict):
        raise DataError(f"{path}: expected a dictionary, found a {type(batch).__name__}")
    batch = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
    n = layout.records(_binary_name(layout, path.name))
    data, labels = batch.get(b"data"), batch.get(layout.python_labels)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (n, PIXEL_BYTES)):
        raise DataError(f"{path}: expected 'data' as a ({n}, {PIXEL_BYTES}) array of uint8, found {_described(data)}")
    if not (isinstance(labels, list) and len(labels) == n and all(type(v) is int for v in labels)):
        raise DataError(f"{path}: expected {n} whole numbers as labels, found {_described(labels)}")
    if not all(0 <= v < layout.classes for v in labels):
        wrong = next(i for i, v in enumerate(labels) if not 0 <= v < layout.classes)
        raise DataError(f"{path}: altered: label of record {wrong}, expected labels in [0, {layout.classes})")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.uint8)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.shape} array of {value.dtype}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list) else "")
