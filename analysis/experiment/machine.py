"""Checks that a machine can train runs in parallel, and sets how cuDNN chooses convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from resattn.training.data import Feed
from resattn.training.run import TrainError

LEAST_TORCH = (2, 8)
LEAST_CAPABILITY = (8, 0)  # bf16
BYTES_PER_RUN, BYTES_SHARED = 2**30, 4 * 2**30


class ManyError(TrainError):
    """The machine cannot train these runs, or its steps do not agree with those of the CPU."""


def check_machine(device: torch.device, side_by_side: int) -> None:
    """Raises: ManyError, before data are loaded, if torch is too old or the GPU too small."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < LEAST_TORCH:
        raise ManyError(f"torch {torch.__version__} is too old: at least {'.'.join(map(str, LEAST_TORCH))} is needed")
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ManyError("torch finds no CUDA device here (--device cpu trains one run after the other)")
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) < LEAST_CAPABILITY:
        raise ManyError(
            f"{found.name} has compute capability {found.major}.{found.minor}, without bf16: "
            f"at least {'.'.join(map(str, LEAST_CAPABILITY))} is needed"
        )
    needed = BYTES_SHARED + side_by_side * BYTES_PER_RUN
    if found.total_memory < needed:
        raise ManyError(
            f"{found.name} has {found.total_memory / 2**30:.0f} GiB of memory, {side_by_side} runs side by side need "
            f"{needed / 2**30:.0f} GiB"
        )


@contextmanager
def convolutions(*, search: bool, tf32: bool) -> Iterator[None]:
    """Inside the block: whether cuDNN searches for the fastest kernels, and whether float32 products may use TF32."""
    settings = torch.backends.cudnn
    before = settings.benchmark, settings.allow_tf32
    settings.benchmark, settings.allow_tf32 = search, tf32
    try:
        yield
    finally:
        settings.benchmark, settings.allow_tf32 = before


def moved(feed: Feed, device: torch.device) -> Feed:
    """The same feed on another device."""
    names = ("padded", "labels", "test", "test_labels", "mean")
    return replace(feed, **{name: getattr(feed, name).to(device) for name in names})


def execution(device: torch.device) -> dict[str, Any]:
    """The fields of a config that say where it runs; they do not identify the run."""
    return {"accelerator": device.type, "threads": 0 if device.type == "cuda" else 1}
