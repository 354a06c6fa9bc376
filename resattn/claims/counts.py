"""Counted numbers, cached between runs in the user's cache folder.

A number depends on the structure of a network and on the code that counts; its key contains the digests of both, so a
change of either counts again. A cache file is complete or absent.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import platform
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import resattn
from resattn.claims.claims import Subject, is_classic

Count = Callable[[Subject, str], int | float | None]
Task = Callable[[Count], object]  # asks for the numbers that it needs
CODE = Path(resattn.__file__).parent
MOST_FILES = 4  # of older code
VERSION = 2  # of the form of a file, and of its keys


@contextmanager
def kept(count: Count, folder: Path | None = None, tasks: Sequence[Task] = ()) -> Iterator[Count]:
    """`count` with a cache on disk, for networks of the catalog.

    `folder`: of the cache; None is the user's cache folder. `tasks`: if the cache has no numbers yet, those that these
    ask for are counted first, on all cores. A damaged file is replaced. If a file cannot be written, one message on
    stderr says so. Numbers of other models are not cached, because their code is not in the key.
    """
    digest = code_digest()
    if digest is None:
        yield count
        return
    path = (folder or cache_folder()) / f"{digest}.json"
    numbers = _read(path)
    before = len(numbers)
    if not numbers:
        numbers |= _on_all_cores(count, tasks)
    yield _remembered(count, numbers)
    if len(numbers) > before and code_digest() == digest:
        _write(path, numbers)


def _remembered(count: Count, numbers: dict[str, int | float | None]) -> Count:
    def known_or_counted(subject: Subject, quantity: str) -> int | float | None:
        if (key := _key(subject, quantity)) is None:
            return count(subject, quantity)
        if key not in numbers:
            numbers[key] = count(subject, quantity)
        return numbers[key]

    return known_or_counted


def _on_all_cores(count: Count, tasks: Sequence[Task]) -> dict[str, int | float | None]:
    """What the tasks ask for, as far as it could be counted; nothing on one core, or where a process cannot fork.

    Forked processes have imported torch already. They lack the threads that torch had started, and would wait for them;
    so each of them computes with one thread.
    """
    numbers: dict[str, int | float | None] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if min(cores, len(tasks)) < 2:
        return numbers
    fork = multiprocessing.get_context("fork")
    at_once = ProcessPoolExecutor(min(cores, len(tasks)), fork, _begin, (count, tasks))
    with suppress(BrokenProcessPool), at_once as pool:  # one was killed: what is missing is counted where it is used
        for future in as_completed([pool.submit(_asked_by, index) for index in range(len(tasks))]):
            numbers |= future.result()
    return numbers


_TASKS: list[tuple[Count, Sequence[Task]]] = []  # of a forked process


def _begin(count: Count, tasks: Sequence[Task]) -> None:
    import torch

    torch.set_num_threads(1)
    _TASKS.append((count, tasks))


def _asked_by(index: int) -> dict[str, int | float | None]:
    count, tasks = _TASKS[0]
    numbers: dict[str, int | float | None] = {}
    with suppress(Exception):  # it is raised again, in its order, where the numbers are used
        tasks[index](_remembered(count, numbers))
    return numbers


def cache_folder() -> Path:
    """The user's cache folder for counted numbers, at the place usual for the operating system."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "resattn" / "counts"


def code_digest() -> str | None:
    """The digest of this package's files and of the versions of Python, NumPy and torch; None if a file is newer than
    this process, so that the code that runs may be older than the file.
    """
    found = hashlib.sha256(
        repr((VERSION, platform.python_version(), *map(metadata.version, ("numpy", "torch")))).encode()
    )
    for path in sorted(CODE.rglob("*.py")):
        if path.stat().st_mtime_ns > resattn.STARTED_NS:
            return None
        found.update(str(path.relative_to(CODE)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:32]


def _key(subject: Subject, quantity: str) -> str | None:
    if (digest := _network(subject)) is None:
        return None
    return json.dumps([digest, subject.network, subject.part, quantity])


@functools.lru_cache(maxsize=1024)
def _network(subject: Subject) -> str | None:
    from resattn.claims.measured import spec_of

    # The catalog first, as `measured.measure` does: resnet50 is of both, and there its settings count.
    if (spec := spec_of(subject)) is not None:
        return spec.digest
    return "classic" if is_classic(subject.network) else None


def _sum(numbers: dict[str, int | float | None]) -> str:
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, int | float | None]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["sum"] == _sum(record["numbers"]):
            return dict(record["numbers"])
        reason = "its numbers are not those that were written"
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    print(f"{path}: {reason}; everything is counted again", file=sys.stderr)
    return {}


def _write(path: Path, numbers: dict[str, int | float | None]) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("x", encoding="utf-8") as file:
            json.dump({"sum": _sum(numbers), "numbers": numbers}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        older = sorted(path.parent.glob("*.json"), key=lambda other: other.stat().st_mtime_ns, reverse=True)
        for other in older[MOST_FILES:]:
            other.unlink(missing_ok=True)
    except OSError as error:
        print(f"the counted numbers cannot be cached: {error}", file=sys.stderr)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
