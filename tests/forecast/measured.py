"""The tables of docs/reference/forecast.md: formulas against fresh captures, training against torch's counters, tiles
against whole images.

    python -m tests.forecast.measured scaling > tests/forecast/scaling.csv
    python -m tests.forecast.measured training > tests/forecast/training.csv
    python -m tests.forecast.measured tiling > tests/forecast/tiling.csv

`cuda.csv` beside them holds what CUDA's allocator reported for the same steps (torch 2.11, one H200, bytes requested);
where there is a GPU, `python -m tests.forecast.measured cuda` measures `peak_bytes` again.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from resattn.forecast.scaling import ScalingError, scaling
from resattn.forecast.training import training
from resattn.measures.captured import Captured
from resattn.networks.catalog import named
from resattn.networks.classic import ZOO
from resattn.networks.network import build
from resattn.tiling.tiling import tiling
from tests.authors import UNet, ViT
from tests.forecast.test_scaling import MADE, fresh
from tests.tiling.test_tiling import NETWORKS

CUDA = Path(__file__).parent / "cuda.csv"
BATCH = 8  # of the steps
SCALED = ("cifar-attention56", "U-Net", "encoder", "in Python", "ceil", "signal", "volume", "MiniRAN", "SqueezeExcitation",
          "resnet18", "mobilenet_v2")  # fmt: skip
N_SIZES = 500  # of each
LARGER: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "UNet": (lambda: UNet(64, 4), (3, 256, 256)),
    "ViT": (lambda: ViT(768, 12, 12, 16, 224, 1000), (3, 224, 224)),
}


def made(name: str) -> Captured:
    with torch.device("meta"):
        if name in LARGER:
            make, shape = LARGER[name]
            return Captured.of(make(), (1, *shape), name=name)
        if name in ZOO:
            return Captured.of(ZOO[name].make(), (1, *ZOO[name].input_shape), name=name)
        if name in MADE and name not in ("cifar-attention56",):
            return Captured.of(MADE[name][0](), *MADE[name][1], name=name)
        return Captured.of(build(named(name), device="meta"), (1, *named(name).input_shape), name=name)


def scaled() -> Iterator[dict[str, object]]:
    for name in SCALED:
        network = made(name)
        found, draw = scaling(network), random.Random(name)
        reached = worst = 0
        for i in range(N_SIZES):
            step = 4 if i % 2 else 1
            sizes = {
                letter: draw.randint(1, 4) if letter[0] == "B" else step * draw.randint(1, max(1, 2 * size // step))
                for letter, size in found.sizes.items() if letter not in found.fixed
            }  # fmt: skip
            try:
                counted = found.at(**sizes)
            except ScalingError:
                continue
            reached += 1
            worst = max(worst, *(abs(counted[q] - v) for q, v in fresh(network, found, sizes).items()))
        yield {"network": name, "terms": len(found.macs.terms), "conditions": len(found.conditions), "sizes": N_SIZES,
               "reached": reached, "refused": N_SIZES - reached, "largest_difference": worst}  # fmt: skip


def trained() -> Iterator[dict[str, object]]:
    for row in csv.DictReader(CUDA.open(encoding="utf-8")):
        found = training(made(row["network"]), batch=BATCH)
        yield training_row(row["network"], found)


def on_cuda() -> Iterator[dict[str, object]]:
    for row in csv.DictReader(CUDA.open(encoding="utf-8")):
        found = training(made(row["network"]), batch=BATCH, cuda=True)
        if found.cuda_peak_bytes is None:
            raise SystemExit(found.cuda_note)
        yield {"network": row["network"], "peak_bytes": found.cuda_peak_bytes}


def training_row(name: str, found: object) -> dict[str, object]:
    t = found
    return {
        "network": name, "batch": BATCH, "macs_forward": t.macs["forward"], "macs_backward": t.macs["backward"],  # type: ignore[attr-defined]
        "flopcounter_backward": t.flopcounter["backward"], "named_difference": sum(t.differences.values()),  # type: ignore[attr-defined]
        "kept_bytes": t.kept_bytes, "peak_bytes": t.peak_bytes,  # type: ignore[attr-defined]
    }  # fmt: skip


def tiled() -> Iterator[dict[str, object]]:
    for name, (make, size) in NETWORKS.items():
        torch.manual_seed(0)
        model = make().double().eval()
        found = tiling(Captured.of(model, (1, 3, *size), name=name))
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        plan = found.plan((found.axes[0].least, found.axes[1].least))
        with torch.no_grad():
            whole, parts = model(image), plan.run(model, image)
        y = found.axes[0]
        yield {
            "network": name, "image": "x".join(map(str, size)), "stride": str(y.grid.stride),
            "halo": f"{y.halo_before_px}, {y.halo_after_px}", "lengths": f"{y.residue_px} + {y.phase_px}k",
            "tiles": len(plan), "relative_difference": float((whole - parts).abs().max() / whole.abs().max()),
        }  # fmt: skip


if __name__ == "__main__":
    writer = None
    for line in {"scaling": scaled, "training": trained, "tiling": tiled, "cuda": on_cuda}[sys.argv[1]]():
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
        sys.stdout.flush()
