"""Receptive fields at the ends of stages: by intervals, and by the gradient of a linear twin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from analysis.tables import schemas
from analysis.tables.specs import input_side
from resattn.graph.graph import Graph
from resattn.instruments.gradient import gradient_support
from resattn.measures import receptive, roles
from resattn.measures.captured import captured
from resattn.measures.quantities import QUANTITIES
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec
from resattn.rules.intervals import Extent
from resattn.training.config import SIDE


def receptive_frame(networks: Iterable[str | NetworkSpec]) -> pd.DataFrame:
    """The receptive field at each stage's end, with and without the masks: `schemas.RECEPTIVE_FIELD`.

    For positions whose windows meet no border, on an input large enough to have such.
    """
    rows = []
    for seen in _views(networks):
        for stage, extent in seen.extents.items():
            free = extent.sides[~extent.clipped]
            centre = len(extent) // 2
            rows.append(
                {
                    "network": seen.network, "stage": stage, "branch": seen.branch, "value": int(free.max()),
                    "least": int(free.min()), "low_px": int(extent.lo[centre]) - seen.middle,
                    "high_px": int(extent.hi[centre]) + 1 - seen.middle, "unit": QUANTITIES["receptive_field_px"].unit,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.RECEPTIVE_FIELD.names)


def gradient_frame(networks: Iterable[str], share: float = 0.95) -> pd.DataFrame:
    """The field of the central unit at each stage's end, by intervals and by a linear twin: `schemas.GRADIENT`.

    The central range contains `share` of the weight in the gradient of the positive linear twin.
    """
    rows = []
    for seen in _views(networks):
        for stage, extent in seen.extents.items():
            centre = len(extent) // 2
            support = gradient_support(
                seen.model, (seen.channels, seen.rows), stage, position=centre, has_masks=seen.branch == roles.MASK
            )
            low, high = int(extent.lo[centre]), int(extent.hi[centre])
            central = support.central(share)
            rows.append(
                {
                    "network": seen.network, "stage": stage, "branch": seen.branch,
                    "low_px": low - seen.middle, "high_px": high + 1 - seen.middle,
                    "gradient_low_px": support.low - seen.middle, "gradient_high_px": support.high + 1 - seen.middle,
                    "side_px": high + 1 - low, "gradient_side_px": support.side_px,
                    "central_low_px": central[0] - seen.middle, "central_high_px": central[1] + 1 - seen.middle,
                    "agrees": (low, high) == (support.low, support.high),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _View:
    """The vertical extents at each stage's end of a network, with its masks or without, on a large input."""

    network: str
    model: nn.Module
    branch: str
    channels: int
    rows: int
    extents: Mapping[str, Extent]

    @property
    def middle(self) -> int:
        return self.rows // 2


def _views(networks: Iterable[str | NetworkSpec]) -> Iterator[_View]:
    for network in networks:
        spec = named(network) if isinstance(network, str) else network
        body = captured(spec)
        ends = _stage_ends(body.large, spec)
        seen = {roles.TRUNK: body.large.without(body.masks)} | ({roles.MASK: body.large} if spec.has_masks else {})
        for branch, view in seen.items():
            by_op = receptive.extents(view, 0, list(ends.values()))
            extents = {stage: by_op[index] for stage, index in ends.items()}
            yield _View(spec.name, body.model, branch, spec.input_shape[0], view.input_shapes[0][2], extents)


def _stage_ends(graph: Graph, spec: NetworkSpec) -> dict[str, int]:
    """The operator that gives what each stage gives."""
    last = {op.module.split(".", 1)[0]: op.index for op in graph.ops}
    return {stage.name: last[stage.name] for stage in spec.stages}


def scene(network: str, photo: str) -> np.ndarray:
    """An image as background, (height, width, 3) uint8: scikit-learn's photo, or a cluttered digit at CIFAR's size."""
    if input_side(network) <= SIDE:
        from resattn.training.digits import cluttered_digits

        (images, _, _), _ = cluttered_digits(0, train=1, test=1)
        return np.ascontiguousarray(images[0].transpose(1, 2, 0))
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(photo))
