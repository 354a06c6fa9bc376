"""Why a forward pass could not be captured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resattn.graph.graph import Graph

NEEDS_VALUES = (
    "the forward needs the value of a tensor, which the meta device does not have: capture on the device 'cpu'"
)
# What torch says where it hands values to Python without an operator (tolist, numpy).
NO_VALUES = ("meta tensor", "meta device type tensor", "unallocated storage")


class CaptureError(RuntimeError):
    """The model's forward raised; the message gives its error and the module path at which it arose.

    `graph` is what ran until then.
    """

    def __init__(self, message: str, graph: Graph | None = None) -> None:
        super().__init__(message)
        self.graph = graph


class NeedsValuesError(CaptureError):
    """The forward asks for the value of a tensor that depends on the input, which a meta tensor does not have."""
