"""The depth of the gradient in trained networks, and the effect of removing one unit.

The gradient is that of the loss of the true class, for the first test images; see `resattn.measures.used`. Removing a
unit at test time shows cause: the gradient may pass a layer that the network does not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.statistics.intervals import mean_interval
from analysis.tables import schemas
from analysis.trained.interventions import AS_THEY_ARE, BATCH, UNCHANGED
from analysis.trained.mask_maps import STATES, AttendingError, Trained
from resattn.measures.captured import captured, is_in
from resattn.measures.used import used
from resattn.networks.network import Network

ALL_PATHS, TRUNK_PATHS = "all", "past the masks"
DROPPED = "unit dropped"
USED_IMAGES = 16


def used_frame(runs: Iterable[Trained], images: int = USED_IMAGES) -> pd.DataFrame:
    """The share of the gradient's energy by path length, before and after training: `schemas.USED`.

    Before: the initial weights, with norms that have the statistics of some batches. For networks with masks also along
    the paths that pass no mask. Raises: UsedError.
    """
    rows = []
    for run in runs:
        inputs, labels = run.images(images), run.labels(images)
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed, "n_images": len(inputs)}
        for state in STATES:
            network = run.network(state)
            chosen = {ALL_PATHS: True} | ({TRUNK_PATHS: False} if captured(network.spec).masks else {})
            for paths, through_masks in chosen.items():
                found = used(network, inputs, labels=labels, through_masks=through_masks)
                n_paths = sum(found.counts.values())
                rows += [
                    {**about, "state": state, "paths": paths, "length": length, "share": share,
                     "share_of_paths": found.counts[length] / n_paths}
                    for length, share in found.share.items()
                ]  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.USED.names)


def used_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean length of the gradient over seeds, with its interval, beside that of the paths: `schemas.USED_MEANS`."""
    keys = ["network", "dataset", "state", "paths"]
    rows = []
    for values, part in frame.groupby(keys, sort=False):
        weighted = part.assign(used=part["length"] * part["share"], counted=part["length"] * part["share_of_paths"])
        of_seeds = weighted.groupby("seed")[["used", "counted"]].sum()
        found = mean_interval(list(of_seeds["used"]))
        pooled = part.groupby("length")["share"].mean().cumsum()
        rows.append(
            {**dict(zip(keys, values, strict=True)), "n": found.n, "mean": found.mean, "low": found.low,
             "high": found.high, "least": of_seeds["used"].min(), "largest": of_seeds["used"].max(),
             "from_length": int(pooled.index[pooled >= 0.05][0]), "to_length": int(pooled.index[pooled >= 0.95][0]),
             "mean_of_paths": float(of_seeds["counted"].mean()), "longest": int(part["length"].max())}
        )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.USED_MEANS.names).astype({"low": float, "high": float})


def lesion_frame(runs: Iterable[Trained], images: int) -> pd.DataFrame:
    """The test error of each run with the branch of one residual unit set to 0, for every unit: `schemas.LESIONS`.

    The unit's shortcut stays. Raises: AttendingError for a network without residual units.
    """
    rows = []
    for run in runs:
        network = run.network("after")
        inputs, labels = run.images(images), run.labels(images)
        units = captured(network.spec).units
        if not units:
            raise AttendingError(f"{run.name} has no residual unit to drop")
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed, "n_images": len(inputs)}
        wrong = _wrong_without(network, units, inputs, labels)
        errors = {unit: 100 * n / len(inputs) for unit, n in wrong.items()}
        rows += [
            {**about, "intervention": DROPPED if unit else UNCHANGED, "module": unit or ALL_PATHS,
             "norms": AS_THEY_ARE, "test_error_pct": error, "change": error - errors[""]}
            for unit, error in errors.items()
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.LESIONS.names)


@torch.no_grad()
def _wrong_without(network: Network, units: Sequence[str], images: Tensor, labels: Tensor) -> dict[str, int]:
    """Number of wrong predictions with the branch of each unit set to 0; under "" that of the whole network.

    The stages before a unit are computed once for all units.
    """
    parts = [(f"{a}.{b}", part) for a, outer in network.named_children() for b, part in outer.named_children()]
    wrong = dict.fromkeys(("", *units), 0)
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        for k, (path, part) in enumerate(parts):
            rest = nn.Sequential(*(later for _, later in parts[k:]))
            for unit in (unit for unit in units if is_in(unit, path)):
                handle = network.get_submodule(f"{unit}.branch").register_forward_hook(_nothing)
                try:
                    wrong[unit] += int((rest(x).argmax(1) != y).sum())
                finally:
                    handle.remove()
            x = part(x)
        wrong[""] += int((x.argmax(1) != y).sum())
    return wrong


def _nothing(_branch: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return torch.zeros_like(output)
