"""CIFAR-10 and CIFAR-100: found on disk, checked, read; or downloaded. No pickle is run and no archive extracted."""

from __future__ import annotations

import hashlib
import pickletools
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resattn.training.config import DATASETS, SIDE

PIXEL_BYTES = 3 * SIDE * SIDE
SITE = "https://www.cs.toronto.edu/~kriz/"
# Seconds: until the site has answered at all (together well within the 10 s an offline machine may lose), and until
# the whole archive is here.
ANSWER_LIMIT_S, STALL_LIMIT_S, DOWNLOAD_LIMIT_S = 8.0, 5.0, 300.0


class DataError(Exception):
    """A dataset that is missing, truncated or altered; the message says which file, expected and found."""


class DownloadError(DataError):
    """A dataset that could not be downloaded, or not in time."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of one dataset are and what is known of them."""

    name: str
    title: str
    archive: str
    archive_sha256: str
    binary_folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    python_folder: str
    python_md5: Mapping[str, str]
    python_labels: bytes
    # Label of a copy that is not the official one -> sha256 of its binary files.
    copies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return DATASETS[self.name].classes

    def records(self, file: str) -> int:
        split, files = (
            (DATASETS[self.name].test, self.test) if file in self.test else (DATASETS[self.name].train, self.train)
        )
        return split // len(files)

    def file_bytes(self, file: str) -> int:
        return self.records(file) * (self.label_bytes + PIXEL_BYTES)


# sha256 of the archives: tensorflow/datasets, url_checksums/cifar10.txt and cifar100.txt. md5 of the pickled files:
# pytorch/vision, torchvision/datasets/cifar.py. Digests of the binary files by themselves were never published.
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
    python_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    python_labels=b"labels",
    # A copy that was compressed as JPEG of quality 75 on its way, in an order of its own.
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
    python_md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    python_labels=b"fine_labels",
)
LAYOUTS = {layout.name: layout for layout in (CIFAR10, CIFAR100)}

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


def find(layout: Layout, home: Path) -> Path | None:
    """The archive or folder of the dataset under `home`: archive, then binary folder, then pickles."""
    places = (home / place for place in (layout.archive, layout.binary_folder, layout.python_folder))
    return next((place for place in places if place.exists()), None)


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
    _check_archive(layout, path)
    wanted = {f"{layout.binary_folder}/{file}": layout.file_bytes(file) for file in (*layout.train, *layout.test)}
    return {PurePosixPath(member).name: raw for member, raw in members(path, wanted).items()}


def _check_archive(layout: Layout, path: Path) -> None:
    with path.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != layout.archive_sha256:
        raise DataError(
            f"{path}: truncated or altered: expected sha256 {layout.archive_sha256}, "
            f"found {found} ({path.stat().st_size} bytes)"
        )


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


@dataclass(eq=False)
class _Noted:
    """What a pickle says about an object that is not built: the name it calls, with what, and the state it sets."""

    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None


# What the pickle of an array names, by numpy 1, numpy 2 and each protocol.
_OF_AN_ARRAY = {
    **{f"numpy.{core}.multiarray _reconstruct": "array" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}
# fmt: off
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))
# fmt: on
_PYTHON_2_BYTES = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MOST_OPCODES = 1_000_000  # the official files have about 40,000 (CIFAR-10) and 250,000 (CIFAR-100)


def unpickle(raw: bytes, where: str) -> Any:
    """The value of a pickle that holds nothing but arrays, lists, tuples, dictionaries, text, bytes and numbers.

    The opcodes are read one by one and no pickle machine is started, so nothing can be called: a name that belongs to
    an array is noted, any other is refused, and an array is made from its own bytes afterwards. So it takes no more
    memory than the file has. Strings written by Python 2 come back as bytes.

    Raises: DataError for anything else.
    """
    try:
        value = _value(raw, where)
        if isinstance(value, dict):
            return {k: _array(v, where) if isinstance(v, _Noted) else v for k, v in value.items()}
        return _array(value, where) if isinstance(value, _Noted) else value
    except DataError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        raise DataError(f"{where}: no readable pickle: {error!r}") from error


def _value(raw: bytes, where: str) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if count > MOST_OPCODES:
            raise DataError(f"{where}: refused: a pickle of more than {MOST_OPCODES} parts")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                stack.pop()
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _PYTHON_2_BYTES:
                stack.append(str(argument).encode("latin1"))
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}[opcode.name]())
            case "LIST":
                stack.append(since_mark())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "DICT":
                stack.append(_filled({}, since_mark(), where))
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _filled(stack[-1], items, where)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(str(argument), where))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_named(f"{stack.pop()} {name}", where))
            case "REDUCE":
                arguments, callee = stack.pop(), stack.pop()
                stack.append(_called(callee, tuple(arguments)))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name:
                raise DataError(f"{where}: refused: the pickle does more than hold data ({name})")
    raise DataError(f"{where}: no readable pickle: it breaks off")


def _named(name: str, where: str) -> _Noted:
    if name not in _OF_AN_ARRAY:
        raise DataError(f"{where}: refused: the pickle asks for {name.replace(' ', '.')}; nothing was run")
    return _Noted(_OF_AN_ARRAY[name])


def _called(callee: _Noted, arguments: tuple[Any, ...]) -> _Noted | bytes:
    # Up to protocol 2, Python 3 writes bytes as a call of _codecs.encode(text, "latin1"), or of bytes().
    match callee.name, arguments:
        case "encode", (str(text), "latin1"):
            return text.encode("latin1")
        case "bytes", ():
            return b""
    return _Noted(callee.name, arguments)


def _filled(target: dict[Any, Any], items: list[Any], where: str) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int):
            raise DataError(f"{where}: refused: a dictionary with a {type(key).__name__} as key")
        target[key] = value
    return target


def _array(noted: _Noted, where: str) -> NDArray[Any]:
    match noted:
        case _Noted("array", state=(_, tuple(shape), _Noted("dtype") as kind, bool(fortran), content)):
            pass
        case _Noted("frombuffer", arguments=(content, _Noted("dtype") as kind, tuple(shape), str(order))):
            fortran = order == "F"
        case _:
            raise DataError(f"{where}: refused: the pickle holds {noted.name!r} where an array may stand")
    dtype = _dtype(kind, where)
    if not isinstance(content, bytes | bytearray) or not all(type(n) is int and n >= 0 for n in shape):
        raise DataError(f"{where}: refused: an array without a shape or without bytes")
    expected = dtype.itemsize
    for n in shape:
        expected *= n
    if len(content) != expected:
        raise DataError(
            f"{where}: refused: an array of shape {shape} needs {expected} bytes, the pickle has {len(content)}"
        )
    return np.frombuffer(bytes(content), dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(noted: _Noted, where: str) -> np.dtype[Any]:
    match noted:
        case _Noted("dtype", arguments=(str() | bytes() as code, *_), state=None | (_, _, None, None, None, _, _, _)):
            pass
        case _:
            raise DataError(f"{where}: refused: a dtype that is no plain number")
    code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
    if code not in {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}:
        raise DataError(f"{where}: refused: an array of dtype {code!r}; only numbers are read")
    order = noted.state[1] if noted.state else "="
    return np.dtype(code).newbyteorder(">" if order in (">", b">") else "<")


# ---- the download


def fetch(layout: Layout, home: Path, *, limit_s: float = DOWNLOAD_LIMIT_S) -> Path:
    """The official archive under `home`, downloaded where it is not there yet.

    Given up when the site does not answer within 8 s, when the download stalls, and after `limit_s`. The file is put
    into place only once its sha256 is right.

    Raises: DataError for an archive that is there and altered; DownloadError.
    """
    # Imported here, as most runs download nothing.
    import pooch
    from tqdm import tqdm

    target = home / layout.archive
    if target.exists():
        _check_archive(layout, target)
        return target
    url = SITE + layout.archive
    deadline = time.monotonic() + limit_s

    class Bar(tqdm):  # type: ignore[type-arg]
        def __bool__(self) -> bool:  # pooch asks; for tqdm a bar of unknown length is none
            return True

        def update(self, n: float | None = 1) -> bool | None:
            if time.monotonic() > deadline:
                raise DownloadError(f"{url}: not downloaded within {limit_s:.0f} s")
            return super().update(n)

    bar = Bar(desc=layout.archive, unit="B", unit_scale=True, leave=False, disable=None)
    download = pooch.HTTPDownloader(progressbar=bar, timeout=STALL_LIMIT_S, chunk_size=1 << 16)
    try:
        _within(min(ANSWER_LIMIT_S, limit_s), url, lambda: download(url, None, None, check_only=True))
        pooch.retrieve(
            url, known_hash=f"sha256:{layout.archive_sha256}", fname=layout.archive, path=home, downloader=download
        )
    except (OSError, ValueError) as error:
        raise DownloadError(f"{url}: not downloaded: {error}") from error
    finally:
        bar.close()
    return target


def _within(limit_s: float, url: str, ask: Callable[[], bool]) -> None:
    # In a thread of its own: a name server that does not answer cannot be timed out in any other way.
    answers: list[bool | Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    match answers:
        case []:
            raise DownloadError(f"{url}: no answer within {limit_s:.0f} s")
        case [Exception() as error]:
            raise DownloadError(f"{url}: not reached: {_root(error)}") from error
        case [False]:
            raise DownloadError(f"{url}: the site does not have it")


def _root(error: BaseException) -> BaseException:
    # The messages of requests repeat every layer below; the innermost says it.
    while error.__context__ is not None:
        error = error.__context__
    return error
