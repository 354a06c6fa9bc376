"""Responses of a network stage by stage: the mean absolute response of figure 4 of the paper.

The paper does not say which layer was read, nor whether after a normalisation, so each place is measured and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.tables import schemas
from analysis.trained.mask_maps import Trained
from resattn.measures.captured import captured, is_in
from resattn.networks.network import Network

# Where the response is read.
PLACES: Mapping[str, str] = {
    "output": "the stage's output, before any normalisation",
    "activated": "the same behind the batch norm and ReLU that read it",
    "merge": "what the merge of the stage's last attention module gives",
}


@torch.no_grad()
def stage_responses(network: Network, batches: Iterable[Tensor]) -> list[dict[str, Any]]:
    """One row for each stage and place: stage, place, response, the mean of |x| over images, channels and positions.

    A stage without an attention module has no row for its merge, one of post-activation units none for its activation.
    """
    sums: dict[tuple[str, str], float] = {}
    counts: dict[tuple[str, str], int] = {}
    outputs: dict[str, Tensor] = {}

    def add(stage: str, place: str, x: Tensor) -> None:
        sums[stage, place] = sums.get((stage, place), 0.0) + x.abs().sum(dtype=torch.float64).item()
        counts[stage, place] = counts.get((stage, place), 0) + x.numel()

    def of_stage(stage: str) -> Any:
        def hook(_part: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[stage] = output
            add(stage, "output", output)

        return hook

    def of_merge(stage: str) -> Any:
        return lambda _part, _inputs, output: add(stage, "merge", output)

    def of_activation(_part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Recognised by what it reads: the first unit of the next stage, or the head, holds it.
        for stage in [stage for stage, kept in outputs.items() if kept is inputs[0]]:
            add(stage, "activated", output)
            del outputs[stage]

    modules = captured(network.spec).attention_modules
    with ExitStack() as stack:
        for name, part in network.named_children():
            if not name.startswith("stage"):
                continue
            stack.callback(part.register_forward_hook(of_stage(name)).remove)
            for last in [path for path in modules if is_in(path, name)][-1:]:
                merge = network.get_submodule(f"{last}.merge")
                stack.callback(merge.register_forward_hook(of_merge(name)).remove)
        for part in network.modules():
            if _is_activation(part):
                stack.callback(part.register_forward_hook(of_activation).remove)
        network.eval()
        for images in batches:
            network(images)
            outputs.clear()
    order = list(PLACES)
    return [
        {"stage": stage, "place": place, "response": sums[stage, place] / counts[stage, place]}
        for stage, place in sorted(sums, key=lambda key: (order.index(key[1]), key[0]))
    ]


def _is_activation(part: nn.Module) -> bool:
    kinds = [type(child) for child in part.children()]
    return isinstance(part, nn.Sequential) and kinds == [nn.BatchNorm2d, nn.ReLU]


def response_frame(runs: Iterable[Trained], images: int) -> pd.DataFrame:
    """The responses to the first test images, absolute and relative to stage 1: `schemas.RESPONSES`."""
    rows = []
    for run in runs:
        measured = stage_responses(run.network("after"), run.images(images).split(100))
        first = {row["place"]: row["response"] for row in reversed(measured)}  # the first stage that has the place
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed}
        rows += [{**about, **row, "relative": row["response"] / first[row["place"]]} for row in measured]
    return pd.DataFrame(rows, columns=schemas.RESPONSES.names)
