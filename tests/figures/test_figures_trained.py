"""Figures of trained networks: they say what they show, and are the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.axes
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures import masks, responses, style, training
from analysis.statistics.conclusions import comparison_frame, difference_frame, pair_frame
from analysis.trained import comparisons
from analysis.trained.mask_maps import MAPS, STATES
from resattn.training.digits import cluttered_digits

NET = "cifar-attention56[width=4]"
MASKS = pd.DataFrame(
    [
        {"network": NET, "seed": seed, "state": state, "stage": f"stage{k}", "map": name, "quantity": "auc",
         "value": 0.5 if name == "random" else 0.6 + 0.1 * (state == "after") + 0.01 * k + 0.02 * seed}
        for seed in (0, 1) for state in STATES for k in (1, 2, 3) for name in MAPS
    ]
)  # fmt: skip
RESPONSES = pd.DataFrame(
    [
        {"network": network, "seed": seed, "place": "output", "stage": f"stage{k}", "relative": 0.5 ** (k - 1) + seed / 50}
        for network in ("cifar-attention164", "cifar-resnet164") for seed in (0, 1) for k in (1, 2, 3)
    ]
)  # fmt: skip
RUNS = pd.DataFrame(
    [
        {"network": network, "dataset": "cluttered-digits", "seed": seed, "epochs": 2, "images": 100, "label_noise": noise,
         "test_error_pct": 20.0 + 50 * noise + seed, "trunk_depth": depth, "longest_path": 110, "weighted_layers": depth,
         "params": 5, "macs": 7, "elapsed_s": 30.0, "images_per_s": 200.0 / 3, "s_per_epoch": 15.0,
         "peak_memory_bytes": 2.0**30, "training_macs": 4_200}
        for network, depth in (("cifar-attention92", 92), ("cifar-resnet164", 164)) for noise in (0.1, 0.7)
        for seed in (0, 1)
    ]
)  # fmt: skip


def _draw(name: str, fig: Figure, ax: matplotlib.axes.Axes) -> str:
    match name:
        case "mask_scores":
            masks.map_legend(fig)
            return masks.mask_scores(ax, MASKS, "auc")
        case "responses":
            printed = {"cifar-attention164": [1.0, 0.524, 0.299]}
            return responses.response_lines(ax, RESPONSES, "output", printed)
        case "error_by_noise":
            return training.error_by_noise(ax, RUNS)
        case _:
            pairs = pair_frame(RUNS, "cifar-attention92")
            return training.paired_differences(ax, pairs, difference_frame(RUNS, "cifar-attention92"))


SAYS = {
    "mask_scores": ("CIFAR Attention-56 (width=4) by stage, before and after", "mask after: 0.72, 0.73, 0.74",
                    "random before: 0.50, 0.50, 0.50"),
    "responses": ("before any normalisation", "CIFAR ResNet-164: 1.01, 0.51, 0.26"),
    "error_by_noise": ("CIFAR ResNet-164: 25.5 % at 10 %, 55.5 % at 70 %",),
    "paired_differences": ("CIFAR ResNet-164, 10 % label noise: +0.00", "CIFAR ResNet-164, 70 % label noise: +0.00"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAYS)
def test_every_figure_says_what_it_shows_and_is_the_same_twice(name: str, tmp_path: Path) -> None:
    saved = []
    for folder in ("one", "two"):
        fig, axes = style.figure(3.4)
        saved.append(style.save(fig, tmp_path / folder / f"{name}.svg", alt=_draw(name, fig, axes[0, 0])))
    assert all(words in saved[0].alt for words in SAYS[name]), saved[0].alt
    first, second = (drawing.path.read_bytes() for drawing in saved)
    assert first == second
    title = ET.fromstring(first).findtext("{http://www.w3.org/2000/svg}title")
    assert title
    assert len(title) < 130


def test_heat_maps_stand_beside_their_images(tmp_path: Path) -> None:
    _, scene = cluttered_digits(0, train=1, test=3)
    pixels = np.ascontiguousarray(scene.images.transpose(0, 2, 3, 1))
    columns = {f"stage {k}": np.random.default_rng(k).random((3, 32 // 2**k, 32 // 2**k)) for k in range(3)}
    shape = masks.sheet(pixels, columns)
    assert shape[1:] == (3, 4)
    fig, axes = style.figure(*shape)
    alt = masks.mask_heat(axes, pixels, columns, scene.foreground, title="some network")
    path = style.save(fig, tmp_path / "heat.svg", alt=alt).path
    assert alt.startswith("Masks of some network. 3 images")
    assert "stage 0, stage 1, stage 2, the true foreground outlined" in alt
    assert path.read_text().count("<image") == 12
    assert path.stat().st_size < 400_000


def test_only_sizes_that_differ_are_drawn() -> None:
    runs = RUNS.assign(elapsed_s=range(len(RUNS)))
    assert comparisons.differing_sizes(runs) == ["trunk_depth", "weighted_layers", "elapsed_s"]
    one = RUNS[RUNS["network"] == "cifar-attention92"]
    assert comparisons.differing_sizes(one) == ["elapsed_s"]
    assert [comparisons.panel_rows(["a"] * n) for n in (1, 3, 4, 6)] == [1, 1, 2, 2]
    assert comparisons.file_name("error", 0.3) == "error_noise30.svg"
    assert comparisons.file_name("error", 0.0) == "error.svg"
    assert len(comparisons.noise_levels(RUNS)) == 1
    assert comparisons.noise_levels(RUNS[RUNS["label_noise"] == 0.1]) == []


def test_error_stands_beside_speed_memory_and_cost() -> None:
    table = comparisons.side_by_side(comparison_frame(RUNS))
    row = table.iloc[0]
    assert (row["Network"], row["Label noise (%)"], row["Runs"]) == ("CIFAR Attention-92", 10.0, 2)
    assert row["Test error (%)"] == 25.5
    assert row["Training speed (images/s)"] == pytest.approx(200 / 3)
    assert row["Time of an epoch (s)"] == 15.0
    assert row["Peak memory (MiB)"] == 1024.0
    assert row["Training cost (T multiply-adds)"] == pytest.approx(4.2e-9)
    assert row["95 % interval"] == "\N{EN DASH}"  # of two runs
    assert comparisons.cost_words(RUNS) == (
        "The training steps of all 8 runs computed 33.6\N{NO-BREAK SPACE}k multiply-adds; the runs took "
        "4\N{NO-BREAK SPACE}min, evaluation included."
    )
