"""CIFAR-10 and CIFAR-100, read from an archive or a folder with every file checked. Archives are not extracted."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
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
    """(N, 3, 32, 32) uint8 images, (N,) labels, and their source: None unless a published digest confirms it.

    `remark`: what the SOURCE.txt beside the files says.
    """

    source: str | None
    remark: str
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels


def read(layout: Layout, place: Path) -> Raw:
    """The dataset in an archive or folder that `find` returned.

    Raises: DataError naming the file that is missing, truncated or altered.
    """
    if place.name == layout.archive:
        return _from_records(layout, place, _archive_files(layout, place), f"{layout.title} (official binary)")
    if place.name == layout.python_archive:
        members_ = {f"{layout.python_folder}/{file}": _most_bytes(layout, file) for file in layout.python_md5}
        found = members(place, members_, exact=False)
        return _from_pickles(layout, place, {PurePosixPath(name).name: raw for name, raw in found.items()})
    if place.name == layout.python_folder:
        return _from_pickles(layout, place, {file: _pickle(place / file, layout) for file in layout.python_md5})
    files = {file: _file(place / file, layout.file_bytes(file)) for file in (*layout.train, *layout.test)}
    return _from_records(layout, place, files, _source_of(layout, place, files), _remark(place))


def _from_records(layout: Layout, place: Path, files: Mapping[str, bytes], source: str | None, remark: str = "") -> Raw:
    parts = {file: _records(layout, f"{place}: {file}", raw) for file, raw in files.items()}
    return _raw(source, remark if source is None else "", parts, layout)


def _records(layout: Layout, where: str, raw: bytes) -> tuple[Images, Labels]:
    records = np.frombuffer(raw, np.uint8).reshape(-1, layout.label_bytes + PIXEL_BYTES)
    labels = records[:, layout.label_bytes - 1]
    _check_labels(layout, where, labels)
    return records[:, layout.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels


def _raw(source: str | None, remark: str, parts: Mapping[str, tuple[Images, Labels]], layout: Layout) -> Raw:
    (images, labels), (test_images, test_labels) = (
        (np.concatenate([parts[file][0] for file in split]), np.concatenate([parts[file][1] for file in split]))
        for split in (layout.train, layout.test)
    )
    return Raw(source, remark, images, labels, test_images, test_labels)


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
    """The source of a folder's files, as published digests confirm it; None if they confirm no source."""
    found = {file: hashlib.sha256(raw).hexdigest() for file, raw in files.items()}
    _match(folder, _sums(folder), found, "SHA256SUMS")
    for label, expected in layout.copies.items():
        if any(found[file] == digest for file, digest in expected.items()):
            _match(folder, expected, found, label)
            return label
    return None


def _remark(folder: Path) -> str:
    """The first line of SOURCE.txt, quoted: anyone can write this file, so it does not become the label."""
    note = folder / "SOURCE.txt"
    if not note.is_file():
        return ""
    with note.open(encoding="utf-8", errors="replace") as file:
        line = "".join(c if c.isprintable() else " " for c in file.readline(200)).strip()
    return f"its SOURCE.txt says {line!r}" if line else ""


def _sums(folder: Path) -> dict[str, str]:
    """File -> digest from SHA256SUMS, the output of `sha256sum *.bin`; empty if the folder has no such file."""
    path, sums = folder / "SHA256SUMS", {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        digest, _, file = line.strip().partition(" ")
        if digest and not file:
            raise DataError(f"{path}, line {number}: expected a digest and the name of a file, found {line[:80]!r}")
        sums[file.strip().lstrip("*")] = digest
    return sums


def _match(folder: Path, expected: Mapping[str, str], found: Mapping[str, str], who: str) -> None:
    for file, digest in expected.items():
        if file in found and found[file] != digest:
            raise DataError(f"{folder / file}: altered: expected {digest} ({who}), found {found[file]}")


# ---- the archive


def _archive_files(layout: Layout, path: Path) -> dict[str, bytes]:
    check_archive(layout, path)
    wanted = {f"{layout.binary_folder}/{file}": layout.file_bytes(file) for file in (*layout.train, *layout.test)}
    return {PurePosixPath(member).name: raw for member, raw in members(path, wanted).items()}


def members(archive: Path, wanted: Mapping[str, int], *, exact: bool = True) -> dict[str, bytes]:
    """The wanted members of a .tar.gz, name -> content, read in memory. `wanted`: name -> size in bytes, or the largest
    allowed size if not `exact`.

    Raises: DataError for a path that is absolute or contains "..", a link, a device, a wrong size, a duplicate, a
    missing member, or a truncated archive.
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
                if member.size > wanted[name] or (exact and member.size < wanted[name]):
                    most = "" if exact else "at most "
                    raise DataError(
                        f"{archive}: member {name!r}: expected {most}{wanted[name]} bytes, found {member.size}"
                    )
                stream = tar.extractfile(member)
                assert stream is not None  # a regular file has a stream
                contents[name] = stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive}: truncated or altered: {error}") from error
    missing = sorted(set(wanted) - set(contents))
    if missing:
        raise DataError(f"{archive}: member {missing[0]!r} is missing")
    return contents


# ---- the pickles


def _most_bytes(layout: Layout, file: str) -> int:
    # The official files are at most 1 % larger than their pixels; the limit keeps a forged file from filling memory.
    return 2 * layout.records(f"{file}.bin") * PIXEL_BYTES


def _pickle(path: Path, layout: Layout) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: missing")
    if path.stat().st_size > (most := _most_bytes(layout, path.name)):
        raise DataError(f"{path}: altered: expected at most {most} bytes, found {path.stat().st_size}")
    return path.read_bytes()


def _from_pickles(layout: Layout, folder: Path, raws: Mapping[str, bytes]) -> Raw:
    found = {file: hashlib.md5(raw, usedforsecurity=False).hexdigest() for file, raw in raws.items()}
    official = any(found[file] == digest for file, digest in layout.python_md5.items())
    if official:
        _match(folder, layout.python_md5, found, "official md5")
    parts = {f"{file}.bin": _pickled_batch(layout, folder / file, raw) for file, raw in raws.items()}
    return _raw(f"{layout.title} (official python)" if official else None, "", parts, layout)


def _pickled_batch(layout: Layout, path: Path, raw: bytes) -> tuple[Images, Labels]:
    batch = unpickle(raw, str(path))
    if not isinstance(batch, dict):
        raise DataError(f"{path}: expected a dictionary, found a {type(batch).__name__}")
    batch = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
    n = layout.records(f"{path.name}.bin")
    data, labels = batch.get(b"data"), batch.get(layout.python_labels)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (n, PIXEL_BYTES)):
        raise DataError(f"{path}: expected 'data' as a ({n}, {PIXEL_BYTES}) array of uint8, found {_described(data)}")
    if not (isinstance(labels, list) and len(labels) == n and all(type(v) is int for v in labels)):
        raise DataError(f"{path}: expected {n} integers as labels, found {_described(labels)}")
    if not all(0 <= v < layout.classes for v in labels):
        wrong = next(i for i, v in enumerate(labels) if not 0 <= v < layout.classes)
        raise DataError(f"{path}: altered: label of record {wrong}, expected labels in [0, {layout.classes})")
    return data.reshape(-1, 3, SIDE, SIDE), np.array(labels, np.uint8)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.shape} array of {value.dtype}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list) else "")
