"""Depth and cost against numbers from outside: the counts of the released prototxts and of published tables."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from analysis.tables.cost import cost_frame
from analysis.tables.depth import (
    article_steps,
    depth_by_role,
    depth_ratios,
    module_frame,
    path_length_frame,
    path_summary,
    stage_frame,
)
from analysis.tables.layers import layer_frame
from resattn.measures.audit import audit
from resattn.networks.catalog import named
from resattn.networks.spec import override

# fwang91, Attention-56 and -92 deploy.prototxt: multiply-adds by arithmetic on the files.
RELEASED = {
    "attention56": {"layers": 111, "mask": 51, "macs": 6_270_836_736, "macs_mask": 1_744_920_576, "params": 31_810_728},
    "attention92": {
        "layers": 180,
        "mask": 84,
        "macs": 10_533_789_696,
        "macs_mask": 3_387_482_112,
        "params": 52_466_344,
    },
}


@pytest.mark.parametrize("network", RELEASED)
def test_a_row_for_each_layer_and_nothing_lost(network: str) -> None:
    layers, released = layer_frame(network), RELEASED[network]
    mask = layers[layers["role"] == "mask"]
    assert len(layers) == released["layers"]
    assert len(mask) == released["mask"]
    assert layers["macs"].sum() == released["macs"]
    assert mask["macs"].sum() == released["macs_mask"]


def test_layers_of_the_longest_path_stand_one_after_the_other() -> None:
    layers = layer_frame("attention56")
    assert sorted(layers.loc[layers["on_longest"], "start"]) == list(range(80))
    assert layers["on_trunk"].sum() == 56
    assert set(layers.loc[layers["on_trunk"], "role"]) == {"trunk"}


def test_levels_are_the_halvings_of_the_masks() -> None:
    layers = layer_frame("attention56")
    mask = layers[layers["role"] == "mask"]
    # wang2017, section 4.2: 3, 2 and 1 poolings.
    assert mask.groupby("stage")["level"].max().to_dict() == {"stage1": 3, "stage2": 2, "stage3": 1}
    assert set(mask.loc[mask["layer"].str.contains(".head."), "level"]) == {0}
    assert (layers.loc[layers["role"] != "mask", "level"] == 0).all()


def test_a_mask_without_poolings_has_one_level() -> None:
    layers = layer_frame(override(named("cifar-attention56"), {"mask": "local"}))
    assert set(layers["level"]) == {0}


def test_depth_by_role_sums_to_the_audit() -> None:
    counts = depth_by_role(["attention56", "resnet50"]).groupby(["network", "notion"])["value"].sum()
    for network in ("attention56", "resnet50"):
        for notion in ("claimed_depth", "longest_path", "weighted_layers"):
            assert counts[network, notion] == audit(network).quantities[notion]


def test_stages_sum_to_the_whole() -> None:
    stages = stage_frame(["attention92"])
    sums = stages.groupby("notion")["value"].sum().to_dict()
    assert sums == {"trunk_depth": 92, "longest_path": 128, "weighted_layers": 180}


def test_modules_are_not_what_the_article_says() -> None:
    modules = module_frame(["attention56", "attention92"])
    assert set(modules["stated"]) == {20}
    of_56 = modules[modules["network"] == "attention56"]
    assert list(of_56["longest_path"]) == [26, 20, 14]
    assert list(of_56["trunk_path"]) == [12, 12, 12]
    assert list(modules.loc[modules["network"] == "attention92", "longest_path"]) == [26, 20, 20, 14, 14, 14]


def test_the_article_step_by_step() -> None:
    steps = article_steps(["attention56", "attention92"])
    assert list(steps["stated"]) == [18, 36, 2, 56, *(12, 14, 20) * 3, 80, 140]
    assert list(steps["counted"]) == [18, 36, 2, 56, 12, 20, 26, 12, 14, 20, 12, 8, 14, 80, 128]
    assert list(steps.loc[~steps["holds"], "network"]) == ["attention56"] * 4 + ["attention92"]


def test_the_ratios_of_the_abstract_by_each_notion() -> None:
    ratios = depth_ratios("attention92", "resnet200").set_index("quantity")
    assert ratios.loc["trunk_depth", "share"] == 0.46  # wang2017, abstract
    assert ratios.loc["longest_path", "share"] == 0.64
    # ResNet-200 has four projections beside the 200 layers of its name.
    assert ratios.loc["weighted_layers", "share"] == 180 / 204
    assert ratios.loc["weighted_layers", "share_of_name"] == 0.9


def test_paths_of_a_basic_resnet_are_binomial() -> None:
    # 54 units of two layers between the first and the last layer (veit2016, section 3: unravelled view).
    paths = path_length_frame(["cifar-resnet110-basic"])
    assert dict(zip(paths["length"], paths["n_paths"], strict=True)) == {2 + 2 * k: comb(54, k) for k in range(55)}
    assert paths["share"].sum() == pytest.approx(1)
    # veit2016: 5 to 17 of 54 units are 0.45 % of all paths; the first and the last layer are counted here.
    summary = path_summary(paths, 2 + 2 * 5, 2 + 2 * 17).iloc[0]
    assert summary["share_between"] == float(Fraction(sum(comb(54, k) for k in range(5, 18)), 2**54))
    assert round(100 * summary["share_between"], 2) == 0.45
    assert summary["mean_length"] == 2 + 54
    assert summary["n_paths"] == 2**54


def test_path_counts_stay_exact() -> None:
    paths = path_length_frame(["attention92"])
    assert sum(paths["n_paths"]) == 51_951_924_412_416


def test_costs_are_those_of_the_release() -> None:
    costs = cost_frame(list(RELEASED)).groupby(["network", "quantity"])["value"].sum()
    for network, released in RELEASED.items():
        assert costs[network, "params"] == released["params"]
        assert costs[network, "macs"] == released["macs"]
        assert costs[network, "flops"] == 2 * released["macs"]
