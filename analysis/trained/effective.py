"""The effective receptive field: where the gradient of a central unit comes from, before and after training.

Source: luo2016, section 2: the energy of the input's gradient, averaged over random weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from resattn.measures.captured import captured
from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec
from resattn.training.checkpoint import trained
from resattn.training.run import read_runs

SHARES = (0.68, 0.95)  # of the energy: those of one and two standard deviations in luo2016
RANDOM, TRAINED = "random", "trained"
BRANCHES = ("both", "trunk", "mask")


class EffectiveFieldError(ValueError):
    """No gradient can be measured for this module; the message says why."""


@dataclass(frozen=True)
class EffectiveField:
    """Gradient energy over the input, summed over channels and normalised to 1, (H, W), and its centre."""

    energy: np.ndarray
    centre: tuple[int, int]

    def side_px(self, share: float) -> int:
        """Side of the smallest centred square with this share of the energy.

        Raises: ValueError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"a share of the energy lies in (0, 1], found {share}")
        y, x = (np.abs(np.arange(n) - c) for n, c in zip(self.energy.shape, self.centre, strict=True))
        rings = np.maximum.outer(y, x)
        held = np.bincount(rings.ravel(), weights=self.energy.ravel()).cumsum()
        return 2 * int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))) + 1

    def share_within(self, side_px: int) -> float:
        """The share of the energy inside a centred square with an odd side."""
        reach = side_px // 2
        rows, columns = (slice(max(c - reach, 0), c + reach + 1) for c in self.centre)
        return float(self.energy[rows, columns].sum() / self.energy.sum())

    @property
    def support_px(self) -> int:
        """Side of the smallest centred square outside which the gradient is exactly zero."""
        ys, xs = np.nonzero(self.energy)
        reach = max(np.abs(ys - self.centre[0]).max(), np.abs(xs - self.centre[1]).max())
        return 2 * int(reach) + 1


def effective_field(
    make: Callable[[int], nn.Module],
    module: str,
    input_shape: Sequence[int],
    *,
    seeds: Iterable[int],
    branch: str = "both",
) -> EffectiveField:
    """The mean gradient energy at the input for the central unit of a module's output, over seeds.

    `make(seed)` gives the model: random weights, or a checkpoint for every seed. Each seed also draws the input,
    standard normal, of shape (C, H, W). `branch`: for an attention module, the gradient through its trunk or its mask
    only. The model is in evaluation mode, since batch statistics would connect all positions.

    Raises: EffectiveFieldError for an unknown module or branch, or an output that is not a map.
    """
    if branch not in BRANCHES:
        raise EffectiveFieldError(f"unknown branch {branch!r} (one of: {', '.join(BRANCHES)})")
    total: np.ndarray | None = None
    for seed in seeds:
        energy = _energy(make(seed), module, tuple(input_shape), seed, branch)
        total = energy if total is None else total + energy
    if total is None:
        raise EffectiveFieldError("at least one seed is needed")
    return EffectiveField(total / total.sum(), _centroid(total))


def _centroid(energy: np.ndarray) -> tuple[int, int]:
    # The middle unit of a strided map does not look at the middle pixel: its energy says where it looks.
    rows, columns = energy.sum(1), energy.sum(0)
    y, x = (np.average(np.arange(len(e)), weights=e) for e in (rows, columns))
    return round(float(y)), round(float(x))


def _energy(model: nn.Module, path: str, shape: tuple[int, ...], seed: int, branch: str) -> np.ndarray:
    model = model.eval().double()
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    image.requires_grad_(True)
    modules = dict(model.named_modules())
    if path not in modules:
        raise EffectiveFieldError(f"no module {path!r} in {type(model).__name__}")
    kept: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(_hooked(modules[path], lambda output: kept.append(output)))
        cut = {"trunk": "mask", "mask": "trunk"}.get(branch)
        if cut:
            owner = path.removesuffix(".merge")
            if f"{owner}.{cut}" not in modules:
                raise EffectiveFieldError(f"{path!r} has no {cut} to leave out")
            stack.enter_context(_hooked(modules[f"{owner}.{cut}"], lambda output: output.detach()))
        model(image)
    output = kept[0]
    if not isinstance(output, Tensor) or output.dim() != 4:
        raise EffectiveFieldError(f"the output of {path!r} is no (N, C, H, W) map")
    unit = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(unit, image)
    energy = gradient[0].square().sum(0).numpy()
    return energy / energy.sum() if energy.sum() > 0 else energy


@contextmanager
def _hooked(module: nn.Module, replace: Callable[[Any], Any]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _module, _inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


# -- of the attention modules of a network


@dataclass(frozen=True)
class Effective:
    """The effective field of the units of an attention module, along one branch, averaged over seeds."""

    network: str
    weights: str
    n_seeds: int
    module: str
    branch: str
    field: EffectiveField


def effective_fields(network: str, *, n_seeds: int, runs_dir: Path | str = "") -> list[Effective]:
    """The effective field of trunk and mask of each attention module, with random and, if there are runs, trained
    weights.

    `runs_dir`: a folder of training jobs; all its runs of the network are used, or, if it has none, those of another
    network with masks, which is then measured in its place. The input has the network's own size: a trained network
    sees nothing beyond it.
    """
    runs = _runs(runs_dir) if runs_dir else {}
    spec = next((s for s in runs if s.name == network), next(iter(runs), named(network)))
    folders = runs.get(spec, [])
    # Each network is built once for all its modules and branches; measuring changes nothing in it.
    makes: dict[str, tuple[Callable[[int], nn.Module], Sequence[int]]] = {
        RANDOM: (functools.cache(lambda seed: build(spec, seed=seed)), range(n_seeds))
    }
    if folders:
        makes[TRAINED] = (functools.cache(lambda run: trained(folders[run])), range(len(folders)))
    return [
        Effective(
            spec.name, weights, len(seeds), module, branch,
            effective_field(make, f"{module}.merge", spec.input_shape, seeds=seeds, branch=branch),
        )
        for weights, (make, seeds) in makes.items()
        for module in captured(spec).attention_modules
        for branch in ("trunk", "mask")
    ]  # fmt: skip


def _runs(folder: Path | str) -> dict[NetworkSpec, list[Path]]:
    """The folders of the runs of each network with masks, in the order of their names."""
    folders: dict[NetworkSpec, list[Path]] = {}
    for place, run in read_runs(folder):
        if run.config.spec.has_masks:
            folders.setdefault(run.config.spec, []).append(place)
    return folders


def effective_frame(fields: Sequence[Effective]) -> pd.DataFrame:
    """The sides that contain most of the energy; the branches of a module are also compared at an equal side.

    `analysis.tables.schemas.EFFECTIVE`.
    """
    trunk_side: Mapping[tuple[str, str], int] = {
        (e.weights, e.module): e.field.side_px(SHARES[-1]) for e in fields if e.branch == "trunk"
    }
    return pd.DataFrame(
        [
            {
                "network": e.network, "weights": e.weights, "n_seeds": e.n_seeds, "module": e.module,
                "branch": e.branch, **{f"side_{100 * s:.0f}_px": e.field.side_px(s) for s in SHARES},
                "support_px": e.field.support_px,
                "in_trunk_side": e.field.share_within(trunk_side[e.weights, e.module]),
            }
            for e in fields
        ]
    )  # fmt: skip
