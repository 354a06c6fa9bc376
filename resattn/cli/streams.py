"""Standard streams that work after their reader has closed, and that pass no control characters to a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from resattn.views.table import Coloured, plain


class _Stream:
    """A standard stream whose reader may be gone: what is printed from then on is lost, and the work goes on.

    What it shows cannot drive a terminal: control characters, which a name, a path or the text of a notebook may hold,
    are written out. So is what its encoding does not have.
    """

    lost: tuple[type[Exception], ...]  # how a stream fails that nobody reads

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        shown = text if isinstance(text, Coloured) else plain(text)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return self._try(lambda: self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding)))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except self.lost:
            with suppress(OSError, ValueError):  # what it still holds is written when the process ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = io.StringIO()
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Messages(_Stream):
    """The stream of messages. If it is closed or broken the messages are lost; the command goes on."""

    lost = (OSError, ValueError)  # a pipe that nobody reads, a terminal that is gone, a closed stream


class Data(_Stream):
    """The stream of data. A reader that stops early (`head`) changes no exit status; a full disk is an error."""

    lost = (BrokenPipeError,)


def replace_closed_streams() -> None:
    """Opens the null device in place of closed streams, or the next opened file would get printed text."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Inside the block, what a target's code prints goes to stderr, also if it writes to the file descriptor."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed
        kept = None
    try:
        if kept is not None:
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
