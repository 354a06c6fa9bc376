"""Effective fields of attention modules: random weights beside those of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.figures import plots
from analysis.trained.effective_frames import RANDOM, TRAINED, effective_fields, effective_frame
from resattn.networks.catalog import named
from resattn.training.config import TrainConfig
from resattn.training.loop import train

SMALL = "cifar-attention56[width=2]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(
        spec=named(SMALL), dataset="cluttered-digits", epochs=1, images=64, test_images=32, batch_size=32
    )
    for seed in (0, 1):
        train(replace(config, seed=seed), folder / f"s{seed}" / "run", say=lambda line: None)
    train(replace(config, spec=named("cifar-resnet20")), folder / "other" / "run", say=lambda line: None)
    return folder


def test_every_module_has_both_branches_and_trained_weights_where_there_are_runs(runs: Path) -> None:
    found = effective_fields(SMALL, n_seeds=3, runs_dir=runs)
    modules = [f"stage{i}.module1" for i in (1, 2, 3)]
    assert [(e.weights, e.module, e.branch) for e in found] == [
        (weights, module, branch) for weights in (RANDOM, TRAINED) for module in modules for branch in ("trunk", "mask")
    ]
    assert {e.weights: e.n_seeds for e in found} == {RANDOM: 3, TRAINED: 2}
    assert {e.field.energy.shape for e in found} == {(32, 32)}
    frame = effective_frame(found)
    assert (frame["side_68_px"] <= frame["side_95_px"]).all()
    assert (frame["side_95_px"] <= frame["support_px"]).all()
    trunk = frame["branch"] == "trunk"
    assert (frame.loc[trunk, "in_trunk_side"] >= 0.95).all()
    random = frame["weights"] == RANDOM
    assert (frame.loc[~trunk & random, "in_trunk_side"].to_numpy() < frame.loc[trunk & random, "in_trunk_side"]).all()
    _, axes = plots.figure(2.0, 1, 2)
    assert "68 % of its energy in a square of" in plots.effective_map(axes[0, 0], found[0])
    sides = frame.iloc[1]
    said = f"random weights, stage 1, module 1, mask: {sides['side_68_px']} and {sides['side_95_px']} px"
    assert said in plots.effective_sides(axes[0, 1], frame)


def test_runs_of_another_width_are_measured_at_theirs(runs: Path) -> None:
    found = effective_fields("cifar-attention56", n_seeds=1, runs_dir=runs)
    assert {e.network for e in found} == {SMALL}


def test_without_runs_there_are_random_weights_alone(tmp_path: Path) -> None:
    for folder in ("", tmp_path):
        found = effective_fields(SMALL, n_seeds=1, runs_dir=folder)
        assert {e.weights for e in found} == {RANDOM}
