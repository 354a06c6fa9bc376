"""Interventions on masks: the test error of a trained network whose masks are replaced.

The weights stay. If it matters that a mask depends on the image, depends on the position, or exists, the error rises
when that property is removed. The rule for claim 6 of the article is in `analysis.claims.background`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.claims.background import GROUND, OBJECT
from analysis.statistics.interventions import intervention_summary as intervention_summary  # used by 70_masks
from analysis.tables import schemas
from analysis.trained.mask_maps import SETTLING, AttendingError, Trained, attended, settle
from resattn.measures.captured import captured
from resattn.networks.attention import NaiveMerge
from resattn.networks.network import Network

AS_THEY_ARE, RE_ESTIMATED = "as they are", "re-estimated"
ALL = "all"
UNCHANGED = "none"
BATCH = 100


@dataclass(frozen=True)
class Seen:
    """The data of an intervention, (N, C, H, W) or broadcastable to it.

    These are: the mask that the module computes now, that of the untouched network, the mean over training images at
    each position, the images' foreground at the mask's size (None if unknown), and the mask value at which the merge
    gives the trunk.
    """

    own: Tensor
    clean: Tensor
    mean: Tensor
    inside: Tensor | None
    neutral: float

    @property
    def constant(self) -> Tensor:
        """(1, C, 1, 1) the mean over training images and positions."""
        return self.mean.mean((2, 3), keepdim=True)


def _where(seen: Seen, chosen: Tensor) -> Tensor:
    """The channel's constant at the chosen positions, (N, 1, H, W) bool, the mask elsewhere."""
    return torch.where(chosen, seen.constant, seen.own)


def _object(seen: Seen) -> Tensor:
    assert seen.inside is not None
    return seen.inside


def _as_much_ground(seen: Seen) -> Tensor:
    """As many positions of the ground of each image as its object has, or all where the ground has fewer.

    Drawn from a fixed seed, so every network loses the same positions."""
    inside = _object(seen)
    n, _, h, w = inside.shape
    order = torch.rand(n, h * w, generator=torch.Generator().manual_seed(0))
    order[inside.flatten(1)] = 2.0  # behind every position of the ground
    rank = order.argsort(1).argsort(1).view(n, 1, h, w)
    return (rank < inside.sum((1, 2, 3)).view(n, 1, 1, 1)) & ~inside


# What replaces a mask: its words and the function. Those of `PLACES` need a known foreground.
INTERVENTIONS: Mapping[str, Callable[[Seen], Tensor]] = {
    UNCHANGED: lambda seen: seen.own,
    "mean over images": lambda seen: seen.mean.expand_as(seen.own),
    "mean over positions": lambda seen: seen.own.mean((2, 3), keepdim=True).expand_as(seen.own),
    "mean over channels": lambda seen: seen.own.mean(1, keepdim=True).expand_as(seen.own),
    "constant per channel": lambda seen: seen.constant.expand_as(seen.own),
    "another image's": lambda seen: seen.clean.roll(1, 0),
    "inverse about the mean": lambda seen: 2 * seen.constant - seen.own,
    "off": lambda seen: torch.full_like(seen.own, seen.neutral),
}
PLACES: Mapping[str, Callable[[Seen], Tensor]] = {
    OBJECT: lambda seen: _where(seen, _object(seen)),
    GROUND: lambda seen: _where(seen, _as_much_ground(seen)),
}
# Those that are also made in one module alone: lesions of one mask path.
LESIONS = ("another image's", "off")


def merge_modules(network: nn.Module) -> tuple[str, ...]:
    """Paths of the attention modules whose mask depends on the image. Raises: AttendingError if there is none."""
    paths = captured(network.spec).attention_modules if isinstance(network, Network) else ()
    if not paths:
        name = network.spec.name if isinstance(network, Network) else type(network).__name__
        raise AttendingError(f"{name} has no mask that depends on the image: there is nothing to replace")
    return paths


@contextmanager
def replaced(
    network: Network, clean: Network, means: Mapping[str, Tensor], kind: str, modules: Sequence[str],
    inside: Callable[[], Tensor | None] = lambda: None,
) -> Iterator[Callable[[Tensor], None]]:  # fmt: skip
    """The network with the masks of some modules replaced, and a function to call with each batch before it.

    `clean`: the untouched network, which gives the masks of other images. `inside`: the foreground of the batch.
    """
    make = INTERVENTIONS.get(kind) or PLACES[kind]
    masks: dict[str, Tensor] = {}

    def see(images: Tensor) -> None:
        if kind == "another image's":
            masks.update({met.module: met.mask for met in attended(clean, images)})

    def hook(module: str) -> Any:
        neutral = 1.0 if isinstance(network.get_submodule(f"{module}.merge"), NaiveMerge) else 0.0

        def change(_mask: nn.Module, _inputs: Any, own: Tensor) -> Tensor:
            at = inside()
            small = None if at is None else F.adaptive_max_pool2d(at[:, None].float(), own.shape[-2:]) > 0
            return make(Seen(own, masks.get(module, own), means[module], small, neutral))

        return change

    with ExitStack() as stack:
        for module in modules:
            stack.callback(network.get_submodule(f"{module}.mask").register_forward_hook(hook(module)).remove)
        yield see


@torch.no_grad()
def mean_masks(network: Network, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """(1, C, H, W) the mean mask of each attention module over images."""
    sums: dict[str, Tensor] = {}
    n = 0
    for images in batches:
        n += len(images)
        for met in attended(network, images):
            total = met.mask.double().sum(0, keepdim=True)
            sums[met.module] = sums.get(met.module, torch.zeros_like(total)) + total
    return {module: (total / n).float() for module, total in sums.items()}


@torch.no_grad()
def error_pct(
    network: Network, clean: Network, means: Mapping[str, Tensor], kind: str, modules: Sequence[str],
    images: Tensor, labels: Tensor, foreground: Tensor | None = None, settling: Sequence[Tensor] = (),
) -> float:  # fmt: skip
    """Wrong predictions in percent, with the masks of some modules replaced.

    `settling`: batches of training images from which the statistics of batch norms are estimated again with the masks
    replaced; without them they stay. The network is left as it was.
    """
    changed, at = copy.deepcopy(network), [0, 0]

    def inside() -> Tensor | None:
        return None if foreground is None else foreground[at[0] : at[1]]

    wrong = 0
    with replaced(changed, clean, means, kind, modules, inside) as see:
        if settling:
            settle(changed, _after(see, settling))
        for start in range(0, len(images), BATCH):
            at[:] = start, start + BATCH
            batch = images[start : start + BATCH]
            see(batch)
            wrong += int((changed(batch).argmax(1) != labels[start : start + BATCH]).sum())
    return 100 * wrong / len(images)


def _after(see: Callable[[Tensor], None], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        see(batch)
        yield batch


def intervention_frame(runs: Iterable[Trained], images: int) -> pd.DataFrame:
    """The test error of each run under each intervention, and its change: `schemas.INTERVENTIONS`.

    For the first test images, with the statistics of batch norms as they are and estimated again. If the foreground is
    known, also with the mask constant on the object and on the background.
    Raises: AttendingError for a run of a network without masks.
    """
    rows = []
    for run in runs:
        network = run.network("after")
        modules = merge_modules(network)
        inputs, labels, foreground = run.images(images), run.labels(images), run.known_foreground(images)
        training = [batch for batch, _ in islice(run.feed.batches(0), SETTLING)]
        means = mean_masks(network, training)
        about = {"network": run.name, "dataset": run.run.dataset_label, "seed": run.seed, "n_images": len(inputs)}
        asked = [(kind, ALL, norms) for norms in (AS_THEY_ARE, RE_ESTIMATED) for kind in INTERVENTIONS]
        asked += [(kind, ALL, AS_THEY_ARE) for kind in PLACES if foreground is not None]
        asked += [(kind, module, AS_THEY_ARE) for kind in LESIONS for module in modules]
        before: dict[str, float] = {}
        for kind, where, norms in asked:
            error = error_pct(
                network, network, means, kind, modules if where == ALL else [where], inputs, labels,
                foreground if kind in PLACES else None, training if norms == RE_ESTIMATED else (),
            )  # fmt: skip
            if kind == UNCHANGED:
                before[norms] = error
            rows.append(
                {**about, "intervention": kind, "module": where, "norms": norms, "test_error_pct": error,
                 "change": error - before[norms]}
            )  # fmt: skip
    if not rows:
        raise AttendingError("no trained run of a network with masks")
    return pd.DataFrame(rows, columns=schemas.INTERVENTIONS.names)
