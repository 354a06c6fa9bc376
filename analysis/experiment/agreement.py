"""Compares the first training steps of a run on two devices; on the CPU they are those of the loop, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from analysis.experiment.machine import convolutions
from analysis.experiment.protocol import Planned
from analysis.experiment.side_by_side import EAGER, GRAPHS, Session, rounds_of_steps
from analysis.experiment.trainee import Trainee, restart_all
from resattn.training.config import TrainConfig
from resattn.training.data import Feed

AGREEMENT_STEPS = 4
# Relative difference of the first loss, of any of the first losses; least cosine between the changes of all weights.
# At their first steps these networks amplify a rounding error some 10^5 times in four steps: two processors give losses
# that differ by 1 % in float32. So the steps themselves are compared in float64, and in the other precisions the first
# loss, which no step has moved yet; the others are to be of the same size.
TOLERANCE = {"fp64": (1e-12, 1e-6, 0.999999), "fp32": (1e-5, 5e-2, -1.0), "bf16": (1e-2, 5e-2, -1.0)}


def agreement(config: TrainConfig, feeds: Mapping[torch.device, Feed], precision: str, graphed: bool) -> dict[str, Any]:
    """The first steps of a run on two devices; the first device is the CPU.

    Gives the losses of each, the largest relative difference of a loss, and the cosine of the changes of all weights.
    """
    seen = []
    config = replace(config, precision="bf16" if precision == "bf16" else "fp32")
    for device, feed in feeds.items():
        run = Trainee(config, feed, device, torch.float64 if precision == "fp64" else torch.float32)
        if run.is_cuda and graphed:
            run.capture(torch.cuda.Stream())
        restart_all([run], [config], feed)
        before = torch.cat([p.detach().cpu().flatten() for p in run.masters])
        images = run.batch()[0].cpu()
        rounds_of_steps([run], AGREEMENT_STEPS, GRAPHS if graphed else EAGER)
        after = torch.cat([p.detach().cpu().flatten() for p in run.masters])
        seen.append((images, run.losses[:AGREEMENT_STEPS].tolist(), (after - before).double()))
    (images, losses, change), (our_images, our_losses, our_change) = seen[0], seen[-1]
    differences = [abs(a - b) / abs(b) for a, b in zip(our_losses, losses, strict=True)]
    cosine = torch.nn.functional.cosine_similarity(our_change, change, dim=0).item()
    first, worst, least = TOLERANCE[precision]
    return {
        "precision": precision,
        "same_images": bool(torch.allclose(our_images, images, rtol=0, atol=1e-5)),
        "cpu_losses": losses,
        "losses": our_losses,
        "first_relative_difference": differences[0],
        "largest_relative_difference": max(differences),
        "cosine_of_changes": cosine,
        "agrees": differences[0] <= first and max(differences) <= worst and cosine >= least,
    }


def check_agreement(
    session: Session, block: Sequence[Planned], feeds: Mapping[torch.device, Feed], precisions: Sequence[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """`agreement` for each network of a block in each precision; each result is written at once."""
    checks = []
    is_cuda = any(device.type == "cuda" for device in feeds)

    def exact() -> AbstractContextManager[None]:
        return convolutions(search=False, tf32=False) if is_cuda else nullcontext()

    for short, config in ((planned.network, planned.config) for planned in block):
        for precision in precisions:
            graphed = is_cuda
            try:
                with exact() if precision != "bf16" else nullcontext():
                    check = agreement(config, feeds, precision, graphed)
            except RuntimeError as error:
                if not graphed:
                    raise
                session.note(f"{short}: the step is not captured as a graph: {_first_line(error)}")
                graphed = False
                with exact() if precision != "bf16" else nullcontext():
                    check = agreement(config, feeds, precision, graphed)
            checks.append({"network": short, "graph": graphed, **check})
            session.note(
                f"{short} {precision}: the first loss differs by {check['first_relative_difference']:.1e}, the first "
                f"{AGREEMENT_STEPS} by {check['largest_relative_difference']:.1e} at most, cosine of the changes of "
                f"the weights {check['cosine_of_changes']:.6f}, "
                f"{'the same images' if check['same_images'] else 'OTHER IMAGES'}: "
                f"{'agrees' if check['agrees'] else 'DOES NOT AGREE'}",
                agreement=checks,
            )
    return checks


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
