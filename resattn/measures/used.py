"""How deep the gradient goes: its energy by the number of weighted layers that it passed, exactly.

The gradient is a sum over all paths. Multiply it by exp(i theta) at every weighted layer: the part that passed k layers
is multiplied by exp(i k theta). Gradients at L + 1 angles, L the longest path, give every part by an inverse discrete
Fourier transform. Real gradients at theta and -theta are conjugate, so half of the angles are enough.
"""

from __future__ import annotations

import functools
import math
import textwrap
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resattn.graph.tape import DTYPE, Tape, TapeError, record
from resattn.measures import paths, roles
from resattn.measures.captured import extended
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec
from resattn.rules.rule import Rule, find, is_layer
from resattn.rules.table import RULES, layer_flags, unknown_ops
from resattn.targets import resolved

COLUMNS = 2**16  # of the inputs, transformed at a time
TAIL = 0.05  # of the energy, left out at either end of the stated range
TOLERANCE = 1e-9  # relative: of the sum of the parts, and of parts of lengths that no path has
LINES = 20


class UsedError(ValueError):
    """The gradient of a model cannot be separated by path length; the message says why."""


@dataclass(frozen=True)
class Parts:
    """The gradient with respect to a model's inputs, by path length.

    `energy`: (L + 1, rows) float64, the squared norm of the part that passed k weighted layers; one row for each image
    of the batch, or a single one if the inputs share no batch. `whole`: (rows,), the squared norm of the gradient
    itself. `counts`: the number of paths by length.
    """

    energy: Tensor
    whole: Tensor
    counts: Mapping[int, int]

    @property
    def shares(self) -> Tensor:
        """(L + 1, rows) the share of each length in the energy of a row; NaN for a row without a gradient."""
        return self.energy / self.energy.sum(0)

    @property
    def share(self) -> Tensor:
        """(L + 1,) the mean of `shares` over the rows that have a gradient."""
        return self.shares.nanmean(1)


def parts(tape: Tape, cotangents: Sequence[Tensor], layers: Collection[int], *, closed: Collection[int] = ()) -> Parts:
    """The parts of the gradient that passed 0, 1, ... L operators of `layers`; no part passes those of `closed`.

    Takes L + 1 backward passes of real numbers. `cotangents`: the gradient of each output of the tape.
    Raises: UsedError if the parts do not sum to autograd's gradient, or a length has a part but no path.
    """
    if all(root is None for root in tape.roots):
        raise UsedError("no output depends on the inputs through a gradient")
    n = tape.longest(layers) + 1
    turned = [tape.turned(cotangents, _turn(j, n), layers, closed) for j in range(n // 2 + 1)]
    batches = {leaf.shape[0] if leaf.dim() > 1 else 1 for leaf in tape.leaves}
    rows = batches.pop() if len(batches) == 1 else 1
    energy, whole = torch.zeros(n, rows, dtype=DTYPE), torch.zeros(rows, dtype=DTYPE)
    gradients = tape.gradient(cotangents) if not closed else [g.real for g in turned[0]]
    for k, gradient in enumerate(gradients):
        # The transform of a sum of exp(+i k theta): the conjugate of numpy's and torch's convention.
        spectrum = torch.stack([at[k].conj() for at in turned]).reshape(n // 2 + 1, rows, -1)
        for columns in spectrum.split(COLUMNS, dim=2):
            energy += torch.fft.irfft(columns, n=n, dim=0).square().sum(2)
        whole += gradient.reshape(rows, -1).square().sum(1)
        if not (turned[0][k].real - gradient).abs().max() <= TOLERANCE * gradient.abs().max():
            raise UsedError("the parts do not sum to autograd's gradient: the model changes gradients by hooks")
    if not (whole.sum() > 0 and whole.isfinite().all()):
        raise UsedError(f"the gradient of the inputs is {'zero' if whole.isfinite().all() else 'not finite'}")
    counts = paths.path_lengths(tape.graph.without(closed), [op.index in layers for op in tape.graph.ops])
    for length in range(n):
        if length not in counts and energy[length].sum() > TOLERANCE * energy.sum():
            raise UsedError(f"a part of the gradient passed {length} layers and no path does: a backward is not linear")
    return Parts(energy, whole, counts)


def _turn(j: int, n: int) -> complex:
    """exp(2 pi i j / n), exactly real where it is."""
    if j == 0 or 2 * j == n:
        return complex(-1 if j else 1)
    return complex(math.cos(2 * math.pi * j / n), math.sin(2 * math.pi * j / n))


def loss_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy of the true classes, (N, classes)."""
    scores = scores.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(scores, labels, reduction="sum"), scores)[0]


def directions(outputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """A random direction for each output, drawn from N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]


# -- of a model


@dataclass(frozen=True, repr=False)
class Used:
    """How deep the gradient of one network goes, beside the lengths of its paths.

    `share`: of the gradient's energy, by number of weighted layers; `counts`: number of paths by number of layers.
    `energy_ratio`: the sum of the energies of the parts over the energy of their sum; above 1 the parts cancel, below 1
    they reinforce each other. `saved_bytes`: what autograd keeps of the forward pass.
    """

    target: str
    n_images: int
    inputs: str
    cotangent: str
    through_masks: bool
    share: Mapping[int, float]
    mean: float
    low: int
    high: int
    counts: Mapping[int, int]
    counts_mean: float
    counts_low: int
    counts_high: int
    energy_ratio: float
    n_passes: int
    saved_bytes: int
    elapsed_s: float
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        as_text = {name: {str(k): v for k, v in getattr(self, name).items()} for name in ("share", "counts")}
        return {**asdict(self), **as_text}

    def __repr__(self) -> str:
        return f"Used({self.target}: {self.mean:.1f} layers, {self.low} to {self.high})"

    def __str__(self) -> str:
        """The two distributions side by side, at most 80 columns wide."""
        longest, width = max(self.counts), -(-(max(self.counts) + 1) // LINES)
        n_paths = sum(self.counts.values())
        about = f"{self.target}: depth that the gradient uses; {self.inputs}; {self.cotangent}" + (
            "" if self.through_masks else "; without paths through masks"
        )
        lines = [
            *textwrap.wrap(about, 80, subsequent_indent="  "),
            f"  gradient  mean {self.mean:6.1f}  5 to 95 %: {self.low:3} to {self.high:3} weighted layers",
            f"  paths     mean {self.counts_mean:6.1f}  5 to 95 %: {self.counts_low:3} to {self.counts_high:3}"
            f"  ({_large(n_paths)} paths, longest {longest})",
            "  layers     energy    paths",
        ]
        for first in range(min(self.counts) // width * width, longest + 1, width):
            of_bin = range(first, min(first + width, longest + 1))
            energy = 100 * sum(self.share.get(k, 0.0) for k in of_bin)
            count = 100 * (sum(self.counts.get(k, 0) for k in of_bin) / n_paths)
            name = f"{first}-{of_bin[-1]}" if len(of_bin) > 1 else f"{first}"
            lines.append(f"  {name:9} {energy:5.1f} %  {count:5.1f} %  {'#' * round(energy / 2)}".rstrip())
        cost = (
            f"{self.n_passes} backward passes in {self.elapsed_s:.1f} s; "
            f"one forward pass keeps {self.saved_bytes / 2**20:,.1f} MiB"
        )
        notes = (textwrap.fill(text, 80, initial_indent="  ", subsequent_indent="    ") for text in (cost, *self.notes))
        return "\n".join([*lines, *notes])


def used(
    target: str | NetworkSpec | nn.Module,
    *args: Any,
    settings: Mapping[str, Any] | None = None,
    rules: Mapping[str, Rule] | None = None,
    labels: Tensor | None = None,
    through_masks: bool = True,
    seed: int = 0,
    **kwargs: Any,
) -> Used:
    """The gradient's energy by path length, for a model in evaluation mode and float64.

    `args`, `kwargs`, `settings`, `rules`: as for `audit`; a shape is an input drawn from N(0, 1). `labels`: the true
    classes, (N,), for the gradient of their loss; without them, of a random direction of the outputs. `through_masks`:
    False takes only paths that pass no mask; the values of the masks stay. `seed`: of random weights, inputs and
    directions. For integer inputs the gradient is that of the first real tensors made from them.
    Raises: UsedError, TargetError, SpecError, RuleError.
    """
    start, table = time.monotonic(), extended(rules) if rules else RULES
    with resolved(target, args, kwargs, settings=settings) as found, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(found.spec, seed=seed) if found.spec else found.make("cpu")
        try:
            tape = record(model, found.inputs, rule_of=functools.partial(find, table), is_layer=is_layer, seed=seed)
            if unknown := [op for op in unknown_ops(tape.graph) if op.params]:
                raise UsedError(f"{unknown[0].place} has no rule: is it a layer?")
            flags = layer_flags(tape.graph)
            layers = {op.index for op in tape.graph.ops if flags[op.index]}
            masks = roles.roles(tape.graph, flags).ops(roles.MASK)
            if not through_masks and not masks:
                raise UsedError("there are no masks to leave out")
            found_parts = parts(
                tape, _cotangents(tape, labels, seed), layers, closed=() if through_masks else frozenset(masks)
            )
        except (TapeError, UsedError) as error:
            raise UsedError(f"{found.name}: {error}") from error
    is_given = all(isinstance(leaf, Tensor) for leaf in found.inputs.leaves)
    weights = "" if isinstance(target, nn.Module) else f", untrained weights of seed {seed}"
    share, counts = found_parts.share, found_parts.counts
    low, high = _range({k: float(v) for k, v in enumerate(share)})
    counts_low, counts_high = _range(counts)
    mean_count = paths.mean_length(dict(counts))
    assert mean_count is not None
    passed = len(layers & tape.ops)
    return Used(
        target=found.name,
        n_images=found_parts.energy.shape[1],
        inputs=("example inputs" if is_given else f"inputs drawn from N(0, 1) with seed {seed}") + weights,
        cotangent="loss of the true class" if labels is not None else f"random direction of the outputs, seed {seed}",
        through_masks=through_masks,
        share={k: float(v) for k, v in enumerate(share) if k in counts},
        mean=float((share * torch.arange(len(share))).sum()),
        low=low,
        high=high,
        counts=counts,
        counts_mean=float(mean_count),
        counts_low=counts_low,
        counts_high=counts_high,
        energy_ratio=float(found_parts.energy.sum() / found_parts.whole.sum()),
        n_passes=len(share),
        saved_bytes=tape.n_bytes,
        elapsed_s=time.monotonic() - start,
        notes=() if passed == len(layers) else (f"the gradient passes {passed} of {len(layers)} weighted layers",),
    )


def _cotangents(tape: Tape, labels: Tensor | None, seed: int) -> list[Tensor]:
    if labels is None:
        return directions(tape.outputs, seed)
    if len(tape.outputs) != 1 or tape.outputs[0].dim() != 2 or len(labels) != len(tape.outputs[0]):
        shapes = " and ".join("x".join(map(str, o.shape)) for o in tape.outputs)
        raise UsedError(f"{len(labels)} labels need one output of {len(labels)} x classes, found {shapes}")
    return [loss_gradient(tape.outputs[0], labels)]


def _range(weights: Mapping[int, float]) -> tuple[int, int]:
    """The lengths at which TAIL, and 1 - TAIL, of the weight is reached."""
    total, below = sum(weights.values()), 0.0
    reached: list[int] = []
    for length in sorted(weights):
        below += weights[length] / total
        reached += [length] * ((below >= TAIL) + (below >= 1 - TAIL) - len(reached))
    return reached[0], reached[-1]


def _large(n: int) -> str:
    return f"{n:,}" if n < 10**9 else f"{Decimal(n):.1e}"
