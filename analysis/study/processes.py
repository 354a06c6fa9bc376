"""Rules for the processes of one study: one at a time in a folder, and none outlives its parent."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from analysis.tables.provenance import ROOT
from resattn.training.layouts import chosen_home

PARENT = "RESATTN_PARENT"  # environment: the process that this one must not outlive
PLACES = "RESATTN_PLACES"  # environment: how many kernels may run at a time, and the file that they agree by
# Environment meant for other Pythons: what runs first, what leaves assertions out, what waits for a person at the end.
FOREIGN = ("PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONBREAKPOINT")


class FolderInUseError(RuntimeError):
    """Another process works in the folder."""


def chosen_data() -> dict[str, str]:
    """The folder of datasets in the environment, for a process that starts in another folder."""
    home = chosen_home()
    return {} if home is None else {"RESATTN_DATA": str(home)}


def own_environment() -> dict[str, str]:
    """The environment of this process without what is meant for other Pythons, for a process that it starts."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def python_path() -> str:
    """PYTHONPATH for a process that starts in another folder: this checkout, then its value here as absolute paths.

    A relative or empty entry would mean the other folder.
    """
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(os.path.abspath(place) for place in places if place)])


def pack(message: Any) -> bytes:
    """A kernel message as ASCII JSON: Jupyter's own packer stops a kernel's output at a lone surrogate.

    As there, values that JSON does not have, such as NaN or a set, become text or a list.
    """
    from jupyter_client.jsonutil import json_clean, json_default

    try:
        text = json.dumps(message, default=json_default, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(json_clean(message), default=json_default, allow_nan=False)
    return text.encode()


def load_ipython_extension(shell: Any) -> None:
    """A kernel's streams and session are put back after a cell that took them away: without one it answers no cell.

    IPython calls this in the kernel before the first cell.
    """
    kept = [(of, name, getattr(of, name)) for of, name in ((sys, "stdout"), (sys, "stderr"), (shell.kernel, "session"))]

    def put_back(result: Any) -> None:
        for of, name, value in kept:
            if getattr(of, name, None) is None:
                setattr(of, name, value)

    shell.events.register("post_run_cell", put_back)


@contextmanager
def exclusive(lock: Path, *, what: str, wait_s: float = 20.0) -> Iterator[int]:
    """Holds `lock` until the block ends; yields its file descriptor.

    A child that inherits the descriptor holds the lock too, so a folder stays closed while orphans of a killed holder
    end; they are waited for, at most `wait_s`. If the holder is alive, the lock is refused at once.

    Raises: FolderInUseError.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                if _alive(holder) or time.monotonic() > deadline:
                    raise FolderInUseError(
                        f"{what} is in use by process {holder or 'unknown'}; wait for it, or stop it, and run again"
                    ) from None
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def follow_parent() -> None:
    """Interrupts this process, or its group if it leads one, when the parent named in the environment ends.

    Does nothing if none is named. The name is removed from the environment, since it is for one child and not for its
    children, which may run on another machine.
    """
    parent = int(os.environ.pop(PARENT, 0))
    if not parent:
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Inherited from a study that was begun in a shell's background, where the keyboard is none of its business.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if os.getpgrp() == os.getpid():
            signal_group(os.getpid())
        else:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        os._exit(1)  # stuck where no interrupt reaches

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()


@contextmanager
def place() -> Iterator[None]:
    """Holds one of the slots that the environment names, and waits for one; without the variable there is no limit.

    A slot is a locked byte of a file: it becomes free however its holder ends.
    """
    count, _, file = os.environ.pop(PLACES, "").partition(":")
    if not count:
        yield
        return
    with open(file, "ab") as places:
        while not any(_taken(places.fileno(), number) for number in range(int(count))):
            time.sleep(0.02)
        yield


def _taken(descriptor: int, number: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def end_with(main: Callable[[], object]) -> NoReturn:
    """Calls `main` and ends this process with its status, whatever threads are left (snakemake's timers take a second).

    Any exception except SystemExit is raised.
    """
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def signal_group(leader: int, number: int = signal.SIGINT) -> None:
    """Sends a signal to a process group if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
