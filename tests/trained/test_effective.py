"""Effective receptive fields: energy where the gradient is, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analysis.trained.effective import EffectiveField, EffectiveFieldError, effective_field
from resattn.networks import catalog
from resattn.networks.network import build


def single(kernel: int):
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, kernel, padding=kernel // 2))

    return make


def test_the_energy_of_one_convolution_fills_its_kernel() -> None:
    field = effective_field(single(5), "0", (3, 21, 21), seeds=range(2))
    assert field.energy.sum() == pytest.approx(1)
    assert np.count_nonzero(field.energy) == 25
    assert field.support_px == 5
    assert field.side_px(1.0) == 5


def test_a_share_of_uniform_energy_has_the_side_of_its_square() -> None:
    field = EffectiveField(np.full((21, 21), 1 / 441), (10, 10))
    assert field.side_px(0.68) == 19  # 17 * 17 / 441 is 0.655, 19 * 19 / 441 is 0.819
    assert field.side_px(1.0) == 21


def test_a_square_holds_its_share() -> None:
    field = EffectiveField(np.full((21, 21), 1 / 441), (10, 10))
    assert field.share_within(19) == pytest.approx(361 / 441)
    assert field.share_within(99) == pytest.approx(1)
    cornered = EffectiveField(np.full((4, 4), 1 / 16), (0, 0))
    assert cornered.share_within(3) == pytest.approx(4 / 16)


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_a_share_outside_of_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        EffectiveField(np.ones((3, 3)), (1, 1)).side_px(share)


@pytest.fixture(scope="module")
def fields():
    spec = catalog.named("cifar-attention56")
    return {
        branch: effective_field(
            lambda seed: build(spec, seed=seed), "stage1.module1.merge", (3, 96, 96), seeds=range(3), branch=branch
        )
        for branch in ("both", "trunk", "mask")
    }


def test_the_mask_sees_farther_than_the_trunk(fields) -> None:
    for share in (0.68, 0.95):
        assert fields["mask"].side_px(share) > fields["trunk"].side_px(share)


def test_the_effective_field_lies_within_the_theoretical_one(fields) -> None:
    # Stem, one unit, p = 1 and t = 2 units, one 3x3 each: 11 pixels.
    assert fields["trunk"].support_px == 11
    assert fields["trunk"].side_px(0.95) < 11
    assert fields["both"].support_px == fields["mask"].support_px > 11


def test_the_same_seeds_give_the_same_map() -> None:
    a, b = (effective_field(single(3), "0", (3, 9, 9), seeds=[1, 2]).energy for _ in range(2))
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("module", "branch", "message"),
    [
        ("9", "both", "no module '9'"),
        ("0", "root", "unknown branch 'root'"),
        ("0", "mask", "has no trunk to leave out"),
    ],
)
def test_what_cannot_be_measured_says_why(module: str, branch: str, message: str) -> None:
    with pytest.raises(EffectiveFieldError, match=message):
        effective_field(single(3), module, (3, 9, 9), seeds=[0], branch=branch)


def test_at_least_one_seed_is_needed() -> None:
    with pytest.raises(EffectiveFieldError, match="at least one seed"):
        effective_field(single(3), "0", (3, 9, 9), seeds=[])
