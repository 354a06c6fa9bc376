"""Figures: readable on light and dark, described in words, and the same bytes each time."""

from __future__ import annotations

import functools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.claims.printed import finding_counts
from analysis.figures import claims, cost, depth, network, path_lengths, receptive_field, style, training
from analysis.statistics.conclusions import difference_frame, pair_frame
from analysis.tables.cost import cost_frame
from analysis.tables.depth import depth_by_role, module_frame, path_length_frame, path_summary, stage_frame
from analysis.tables.layers import layer_frame
from analysis.tables.receptive_field import gradient_frame, receptive_frame, scene
from analysis.tables.runs import budget

SVG = "{http://www.w3.org/2000/svg}"


RUNS = pd.DataFrame(
    [
        {
            "network": network, "dataset": "cluttered-digits", "seed": seed, "epoch": epoch,
            "test_error_pct": 50.0 - epoch - seed, "trunk_depth": 56, "params": 10**6 + k, "elapsed_s": 10.0 + seed,
            "epochs": 2, "images": 100, "label_noise": 0.0,
        }
        for k, network in enumerate(("cifar-attention56", "cifar-resnet56"))
        for seed in (0, 1)
        for epoch in (1, 2)
    ]
)  # fmt: skip
LAST = RUNS[RUNS["epoch"] == 2]
CLAIMS = pd.DataFrame({"source": ["a", "a", "b"], "verdict": ["confirmed", "off", "confirmed"]})


@functools.cache
def _gradients() -> pd.DataFrame:
    return gradient_frame(["cifar-attention56"], 0.9)


def _draw(name: str, fig: Figure, ax: matplotlib.axes.Axes) -> str:
    match name:
        case "network_drawing":
            return network.network_drawing(ax, layer_frame("attention56"))
        case "network_drawing_without_masks":
            return network.network_drawing(ax, layer_frame("cifar-resnet20-basic"))
        case "depth_bars":
            style.role_legend(fig)
            return depth.depth_bars(ax, depth_by_role(["attention56", "resnet50"]))
        case "module_depths":
            return depth.module_depths(ax, module_frame(["attention56"]))
        case "stage_depths":
            return depth.stage_depths(ax, stage_frame(["attention56"]))
        case "path_lengths":
            paths = path_length_frame(["attention56", "resnet152"])
            return path_lengths.path_lengths(ax, paths, path_summary(paths, 10, 34))
        case "cost_bars":
            return cost.cost_bars(ax, cost_frame(["attention56", "resnet50"]), "macs")
        case "receptive_by_stage":
            return receptive_field.receptive_by_stage(ax, receptive_frame(["attention56"]), 224)
        case "receptive_over_image":
            fields = receptive_frame(["attention56"])
            return receptive_field.receptive_over_image(ax, fields, "mask", scene("attention56", "china.jpg"), 224)
        case "gradient_support":
            return receptive_field.gradient_support(ax, _gradients(), 0.9)
        case "training_curves":
            return training.training_curves(ax, RUNS, "test_error_pct")
        case "error_against":
            style.network_legend(fig, LAST["network"].unique(), budget(LAST))
            return training.error_against(ax, LAST, "trunk_depth")
        case "paired_differences":
            pairs = pair_frame(LAST, "cifar-attention56")
            return training.paired_differences(ax, pairs, difference_frame(LAST, "cifar-attention56"))
        case _:
            return claims.finding_bars(ax, finding_counts(CLAIMS, least=1))


# What the words of each figure must say: the numbers that it shows.
SAYS = {
    "network_drawing": ("Attention-56", "80 along the longest path", "26, 20 and 14", "28 %"),
    "network_drawing_without_masks": ("ResNet-20", "20 weighted layers along the trunk"),
    "depth_bars": ("Attention-56: 56, 80 and 111", "ResNet-50: 50, 50 and 54"),
    "module_depths": ("26, 20 and 14", "12, 12 and 12", "article gives 20"),
    "stage_depths": ("stage1: 15, 29 and 42",),
    "path_lengths": ("41.7 on the mean path", "17 % of the paths have 10 to 34"),
    "cost_bars": ("Multiply-adds (G)", "6.27", "28 % in the masks", "4.09"),
    "receptive_by_stage": ("51, 123, 267 and 427 px", "387, 707, 995 and 1155 px", "224 px"),
    "receptive_over_image": ("through the masks", "1155 px"),
    "gradient_support": ("6 of 6 agree", "90 % of the weight"),
    "training_curves": ("Test error (%) by epoch on cluttered-digits", "47.5"),
    "error_against": ("trunk depth", "CIFAR ResNet-56: 47.5 %"),
    "paired_differences": ("CIFAR ResNet-56: +0.00", "2 seeds"),
    "finding_bars": ("3 published numbers", "confirmed: 2", "off: 1"),
}


@pytest.mark.parametrize("name", SAYS)
def test_every_figure_draws_says_what_it_shows_and_is_the_same_twice(name: str, tmp_path: Path) -> None:
    saved = []
    for folder in ("one", "two"):
        fig, axes = style.figure(3.0)
        alt = _draw(name, fig, axes[0, 0])
        saved.append(style.save(fig, tmp_path / folder / f"{name}.svg", alt=alt))
    for words in SAYS[name]:
        assert words in saved[0].alt
    first, second = (drawing.path.read_bytes() for drawing in saved)
    assert first == second
    assert len(first) < 200_000
    root = ET.fromstring(first)
    assert root.findtext(f"{SVG}desc") == saved[0].alt
    title = root.findtext(f"{SVG}title")
    assert title
    assert saved[0].alt.startswith(title)
    assert len(title) < 130
    assert root.get("role") == "img"


def test_a_file_can_share_a_page(tmp_path: Path) -> None:
    fig, axes = style.figure(3.0)
    drawing = style.save(fig, tmp_path / "some.svg", alt=_draw("depth_bars", fig, axes[0, 0]))
    text = drawing.path.read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("some-") for name in ids)
    for target in re.findall(r'(?:href="|url\()#([^")]+)', text):
        assert target in ids
    assert "<metadata" not in text
    assert "DejaVu" not in text
    inline = drawing._repr_mimebundle_()["text/html"]
    assert inline.startswith("<svg")
    assert "<style" not in inline  # a rule of an inline figure would hold for the whole page


def test_ink_takes_the_pages_colour_and_has_its_own_alone(tmp_path: Path) -> None:
    fig, axes = style.figure(3.0)
    drawing = style.save(fig, tmp_path / "some.svg", alt=_draw("module_depths", fig, axes[0, 0]))
    assert "currentColor" in drawing.svg
    assert style.INK not in drawing.svg
    assert f"svg{{color:{style.INK}}}" in drawing.path.read_text()
    assert "#000000" not in drawing.svg  # a colour that was left to matplotlib would be lost on a dark page


def test_the_sessions_own_style_is_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    fig, axes = style.figure(3.0)
    _draw("cost_bars", fig, axes[0, 0])
    assert dict(matplotlib.rcParams) == before


def test_a_comparison_without_a_pair_says_so() -> None:
    # As where each seed of a study came to an end with one network only.
    runs = LAST[(LAST["network"] == "cifar-attention56") == (LAST["seed"] == 0)]
    pairs = pair_frame(runs, "cifar-attention56")
    assert pairs.empty
    _, axes = style.figure(1.0)
    words = training.paired_differences(axes[0, 0], pairs, difference_frame(runs, "cifar-attention56"))
    assert words.endswith("No two networks were trained with the same seed.")
    assert [text.get_text() for text in axes[0, 0].texts] == ["No two networks were trained with the same seed."]


def test_one_printed_number_is_enough_for_a_scatter() -> None:
    found = pd.DataFrame({"cifar-attention92": [1_500_000, 1_900_000], "n_matches": [0, 1]})
    _, axes = style.figure(2.0)
    words = claims.layout_scatter(axes[0, 0], found, {"cifar-attention92": "1.9"})
    assert words.startswith("2 layouts of the CIFAR networks by their parameters. 1 of them meet 1 of the 1 printed")
    assert axes[0, 0].collections[1].get_offsets().tolist() == [[1.9, 1.9]]
