"""The effective receptive field: where the gradient of one central unit really comes from.

Source: luo2016, section 2: the energy of the input's gradient, averaged over random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BRANCHES = ("both", "trunk", "mask")


class EffectiveFieldError(ValueError):
    """No gradient can be measured there; the message says why."""


@dataclass(frozen=True)
class EffectiveField:
    """Gradient energy over the input, summed over channels and normalised to 1: (H, W), and where it is centred."""

    energy: np.ndarray
    centre: tuple[int, int]

    def side_px(self, share: float) -> int:
        """Side of the smallest centred square that holds this share of the energy.

        Raises: ValueError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"a share of the energy lies in (0, 1], found {share}")
        y, x = (np.abs(np.arange(n) - c) for n, c in zip(self.energy.shape, self.centre, strict=True))
        rings = np.maximum.outer(y, x)
        held = np.bincount(rings.ravel(), weights=self.energy.ravel()).cumsum()
        return 2 * int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))) + 1

    def share_within(self, side_px: int) -> float:
        """The share of the energy inside a centred square of an odd side."""
        reach = side_px // 2
        rows, columns = (slice(max(c - reach, 0), c + reach + 1) for c in self.centre)
        return float(self.energy[rows, columns].sum() / self.energy.sum())

    @property
    def support_px(self) -> int:
        """Side of the smallest centred square outside of which the gradient is exactly zero."""
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
    """The mean gradient energy at the input of the central unit of a module's output, over seeds.

    `make(seed)` gives the model: random weights, or a checkpoint for every seed. Each seed also draws the input,
    standard normal, of shape (C, H, W). `branch`: at an attention module, the gradient through its trunk or its mask
    alone. The model is in evaluation mode: batch statistics would connect all positions.

    Raises: EffectiveFieldError for an unknown module or branch, or an output that is no map.
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
