"""Effective receptive fields of a network's attention modules as a frame, before training and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from analysis.trained.effective import EffectiveField, effective_field
from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec
from resattn.training.loop import read_runs, trained

SHARES = (0.68, 0.95)  # of the energy: those of one and two standard deviations in luo2016
RANDOM, TRAINED = "random", "trained"


@dataclass(frozen=True)
class Effective:
    """The effective field of the units that an attention module gives, along one branch, averaged over seeds."""

    network: str
    weights: str
    n_seeds: int
    module: str
    branch: str
    field: EffectiveField


def effective_fields(network: str, *, n_seeds: int, runs_dir: Path | str = "") -> list[Effective]:
    """Along trunk and mask of each attention module, with random weights and, where there are runs, with trained ones.

    `runs_dir`: a folder of training jobs; the weights are those of all its runs of the network, or, where it has none,
    of another network with masks, which is then measured in its place. The input has the network's own size: beyond it
    a trained network sees nothing.
    """
    runs = _runs(runs_dir) if runs_dir else {}
    spec = next((s for s in runs if s.name == network), next(iter(runs), named(network)))
    folders = runs.get(spec, [])
    makes: dict[str, tuple[Callable[[int], nn.Module], Sequence[int]]] = {
        RANDOM: (lambda seed: build(spec, seed=seed), range(n_seeds))
    }
    if folders:
        makes[TRAINED] = (lambda run: trained(folders[run]), range(len(folders)))
    return [
        Effective(
            spec.name, weights, len(seeds), module, branch,
            effective_field(make, f"{module}.merge", spec.input_shape, seeds=seeds, branch=branch),
        )
        for weights, (make, seeds) in makes.items()
        for module in _attention_modules(spec)
        for branch in ("trunk", "mask")
    ]  # fmt: skip


def _attention_modules(spec: NetworkSpec) -> list[str]:
    model = build(spec, device="meta")
    return [path.removesuffix(".merge") for path, _ in model.named_modules() if path.endswith(".merge")]


def _runs(folder: Path | str) -> dict[NetworkSpec, list[Path]]:
    """The folders of the runs of each network with masks, in the order of their names."""
    found: dict[NetworkSpec, list[Path]] = {}
    for place, run in read_runs(folder):
        if run.config.spec.has_masks:
            found.setdefault(run.config.spec, []).append(place)
    return found


def effective_frame(found: Sequence[Effective]) -> pd.DataFrame:
    """Columns network, weights, n_seeds, module, branch, side_68_px, side_95_px, support_px, in_trunk_side.

    `side_68_px` and `side_95_px`: of the centred square that holds so much of the gradient's energy. `in_trunk_side`:
    the share that lies in the square of side `side_95_px` of the same module's trunk, which compares the two branches
    at an equal side.
    """
    trunk_side: Mapping[tuple[str, str], int] = {
        (e.weights, e.module): e.field.side_px(SHARES[-1]) for e in found if e.branch == "trunk"
    }
    return pd.DataFrame(
        [
            {
                "network": e.network, "weights": e.weights, "n_seeds": e.n_seeds, "module": e.module,
                "branch": e.branch, **{f"side_{100 * s:.0f}_px": e.field.side_px(s) for s in SHARES},
                "support_px": e.field.support_px,
                "in_trunk_side": e.field.share_within(trunk_side[e.weights, e.module]),
            }
            for e in found
        ]
    )  # fmt: skip
