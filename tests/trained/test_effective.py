"""Effective receptive fields: energy where the gradient is, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analysis.figures import effective_field as drawn
from analysis.figures.style import figure
from analysis.tables import schemas
from analysis.tables.files import check_frame
from analysis.trained.effective import (
    RANDOM,
    TRAINED,
    Effective,
    EffectiveField,
    EffectiveFieldError,
    effective_field,
    effective_fields,
    effective_frame,
)
from resattn.networks import catalog
from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.training.config import TrainConfig
from resattn.training.loop import train


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


# -- of the attention modules of a network: random weights beside those of runs

SMALL = "cifar-attention56[width=2]"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Effective]:
    """Of a network of another width than that of the two runs in the folder."""
    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(
        spec=named(SMALL), dataset="cluttered-digits", epochs=1, images=64, test_images=32, batch_size=32
    )
    for seed in (0, 1):
        train(replace(config, seed=seed), folder / f"s{seed}" / "run", say=lambda line: None)
    train(replace(config, spec=named("cifar-resnet11[width=2]")), folder / "other" / "run", say=lambda line: None)
    return effective_fields("cifar-attention56", n_seeds=3, runs_dir=folder)


def test_runs_of_another_width_are_measured_at_theirs(found: list[Effective]) -> None:
    assert {e.network for e in found} == {SMALL}


def test_every_module_has_both_branches_and_trained_weights_where_there_are_runs(found: list[Effective]) -> None:
    modules = [f"stage{i}.module1" for i in (1, 2, 3)]
    assert [(e.weights, e.module, e.branch) for e in found] == [
        (weights, module, branch) for weights in (RANDOM, TRAINED) for module in modules for branch in ("trunk", "mask")
    ]
    assert {e.weights: e.n_seeds for e in found} == {RANDOM: 3, TRAINED: 2}
    assert {e.field.energy.shape for e in found} == {(32, 32)}
    frame = effective_frame(found)
    check_frame(frame, schemas.EFFECTIVE)
    assert (frame["side_68_px"] <= frame["side_95_px"]).all()
    assert (frame["side_95_px"] <= frame["support_px"]).all()
    trunk = frame["branch"] == "trunk"
    assert (frame.loc[trunk, "in_trunk_side"] >= 0.95).all()
    random = frame["weights"] == RANDOM
    assert (frame.loc[~trunk & random, "in_trunk_side"].to_numpy() < frame.loc[trunk & random, "in_trunk_side"]).all()


def test_figures_state_the_sides(found: list[Effective]) -> None:
    frame = effective_frame(found)
    _, axes = figure(2.0, 1, 2)
    assert "68 % of its energy in a square of" in drawn.effective_map(axes[0, 0], found[0])
    sides = frame.iloc[1]
    words = f"random weights, stage 1, module 1, mask: {sides['side_68_px']} and {sides['side_95_px']} px"
    assert words in drawn.effective_sides(axes[0, 1], frame)


@pytest.mark.parametrize("is_named", [True, False])
def test_without_runs_there_are_random_weights_alone(is_named: bool, tmp_path: Path) -> None:
    measured = effective_fields(SMALL, n_seeds=1, runs_dir=tmp_path if is_named else "")
    assert {e.weights for e in measured} == {RANDOM}
