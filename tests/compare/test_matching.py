"""The ResNet that equals a network."""

from __future__ import annotations

import pytest

from resattn.compare.matching import MatchError, match, trunk_units
from resattn.measures.audit import audit
from resattn.networks import catalog
from resattn.networks.spec import override


@pytest.mark.parametrize(
    ("name", "by", "resnet"),
    [
        # The bottleneck ResNets of 56 and 74 layers equal Attention-56 in trunk and longest path.
        ("cifar-attention56", "trunk_depth", "cifar-resnet56"),
        ("cifar-attention56", "longest_path", "cifar-resnet74"),
        ("cifar-attention92", "trunk_depth", "cifar-resnet92"),
        ("cifar-attention164", "trunk_depth", "cifar-resnet164"),
    ],
)
def test_a_depth_of_9n_plus_2_is_met_by_a_named_resnet(name: str, by: str, resnet: str) -> None:
    found = match(catalog.named(name), by)
    assert found.spec == catalog.named(resnet)
    assert found.is_exact


def test_weighted_layers_of_no_resnet_give_the_nearest_and_say_so() -> None:
    found = match(catalog.named("cifar-attention56"), "weighted_layers")
    assert not found.is_exact
    assert abs(found.found - found.wanted) < 9  # one more or one fewer unit a stage would be farther


@pytest.mark.parametrize("by", ["trunk_depth", "longest_path", "weighted_layers"])
def test_an_imagenet_trunk_is_met_exactly_in_its_own_proportions(by: str) -> None:
    found = match(catalog.named("attention56"), by)
    assert found.is_exact
    assert audit(found.spec).quantities["params_mask"] == 0


@pytest.mark.parametrize("by", ["params", "macs"])
@pytest.mark.parametrize("name", ["cifar-attention56", "attention56"])
def test_a_scaled_width_comes_within_one_percent(name: str, by: str) -> None:
    found = match(catalog.named(name), by)
    assert abs(found.off_pct) <= 1
    assert audit(found.spec).quantities[by] == found.found
    assert audit(found.spec).quantities["trunk_depth"] == audit(catalog.named(name)).quantities["trunk_depth"]


def test_the_trunk_of_attention_56_has_18_units_as_the_paper_says() -> None:
    assert sum(trunk_units(catalog.named("attention56"))) == 18
    assert sum(trunk_units(catalog.named("resnet152"))) == 50


def test_basic_units_are_matched_by_basic_units() -> None:
    basic = override(catalog.named("cifar-attention56"), {"unit": "basic"})
    found = match(basic, "trunk_depth")
    assert found.spec.unit == "basic"
    assert found.is_exact


def test_an_unknown_quantity_is_refused() -> None:
    with pytest.raises(MatchError, match=r"cannot match by 'flops' \(one of: trunk_depth"):
        match(catalog.named("cifar-attention56"), "flops")
