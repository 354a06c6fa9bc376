"""Errors of a capture, and the line of the user's code where an error arose."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from resattn.graph.graph import Graph

TRY_CPU = ": capture on the device 'cpu'"
NEEDS_VALUES = f"the forward needs the value of a tensor, which the meta device does not have{TRY_CPU}"
OURS = str(Path(__file__).resolve().parents[1])
TORCH = str(Path(torch.__file__).resolve().parent)


def is_foreign(file: str) -> bool:
    """Whether a source file belongs neither to this package nor to torch."""
    is_own = file.startswith(("<", f"{OURS}/", f"{TORCH}/"))
    return not is_own and Path(file).name not in ("contextlib.py", "functools.py")


def line_of(error: BaseException) -> str:
    """The innermost file and line of an error outside this package and torch; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_foreign(frame.filename):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""


# What torch says where it hands values to Python without an operator (tolist, numpy).
NO_VALUES = ("meta tensor", "meta device type tensor", "unallocated storage", "on meta device")


MOST_LETTERS = 100


def shortened(path: str) -> str:
    """A module path short enough for one line: only both ends of a long one."""
    half = MOST_LETTERS // 2
    return path if len(path) <= MOST_LETTERS else f"{path[:half]}...{path[-half:]}"


class CaptureError(RuntimeError):
    """The model's forward raised an exception; the message gives it and the path of the module where it arose.

    `graph`: what ran until then.
    """

    def __init__(self, message: str, graph: Graph | None = None) -> None:
        super().__init__(message)
        self.graph = graph


class NeedsValuesError(CaptureError):
    """The forward asks for the value of a tensor that depends on the input; a meta tensor has no values."""
