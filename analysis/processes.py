"""What the processes of one study owe each other: one at a time in a folder, and none outlives its parent."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARENT = "RESATTN_PARENT"  # environment: the process that this one must not outlive


class FolderInUseError(RuntimeError):
    """Another process works in the folder."""


@contextmanager
def exclusive(lock: Path, *, what: str, wait_s: float = 20.0) -> Iterator[int]:
    """Hold `lock` until the block ends; yields its file descriptor.

    A child that inherits the descriptor holds the lock too, so a folder stays closed while orphans of a killed
    holder wind down: they are waited for, `wait_s` at most. A living holder is refused at once.

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
    """Interrupt this process (its group, where it leads one) once the parent named in the environment is gone.

    Does nothing where no parent is named. The name is taken out of the environment: it binds one child, not its
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


def signal_group(leader: int, number: int = signal.SIGINT) -> None:
    """Send a signal to a process group, if it is still there."""
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
