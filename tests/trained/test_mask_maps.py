"""Masks against a known foreground: scores against scikit-learn's, maps against the modules they are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from analysis.tables import schemas
from analysis.tables.files import check_frame
from analysis.tables.quantities import SCORES
from analysis.trained import mask_maps, responses
from analysis.trained.mask_maps import AttendingError
from resattn.networks.catalog import named
from resattn.networks.network import Network, build
from resattn.training import data
from resattn.training.config import TrainConfig, override
from resattn.training.loop import train
from resattn.training.run import Run, TrainError

SMALL = "cifar-attention56[width=4]"


@pytest.fixture(scope="module")
def network() -> Network:
    return build(named(SMALL)).eval()


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.digits(train=40, test=20)


# ---- scores


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_scikit_learns_ties_included(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([[s for s, _ in pairs]], float), np.array([[p for _, p in pairs]])
    found = mask_maps.auc(scores, positive)[0]
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(positive[0], scores[0]))


def test_each_image_has_its_own_area() -> None:
    positive = np.array([[True, False, False], [False, False, True]])
    assert mask_maps.auc(np.array([[3.0, 1, 2], [3.0, 1, 2]]), positive).tolist() == [1.0, 0.5]


@given(st.integers(1, 15), st.floats(0.1, 10))
def test_a_map_without_structure_has_the_share_of_the_area(n_inside: int, level: float) -> None:
    inside = np.arange(16)[None] < n_inside
    assert mask_maps.energy_share(np.full((1, 16), level), inside)[0] == pytest.approx(n_inside / 16)
    assert mask_maps.energy_share(np.where(inside, -level, 0.0), inside)[0] == 1
    assert np.isnan(mask_maps.energy_share(np.zeros((1, 16)), inside)[0])


def test_contrast_is_over_the_ground() -> None:
    inside = np.array([[True, True, False, False]])
    assert mask_maps.contrast(np.array([[3.0, 1.0, 0.5, 1.5]]), inside) == pytest.approx(1.0)


# ---- maps


def test_what_meets_in_a_module_is_what_its_branches_gave(network: Network) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = mask_maps.attended(network, images)
    assert [a.module for a in found] == ["stage1.module1", "stage2.module1", "stage3.module1"]
    assert [a.mask.shape[-1] for a in found] == [32, 16, 8]
    with torch.no_grad():
        x = network.get_submodule("stage1.unit1")(network.stem(images))
        module = network.get_submodule("stage1.module1")
        x = module.pre(x)
        trunk = module.trunk(x)
        mask = module.mask(x, trunk)
    assert torch.allclose(found[0].trunk, trunk)
    assert torch.allclose(found[0].mask, mask)
    for attended in found:
        assert torch.allclose(attended.output, (1 + attended.mask) * attended.trunk, atol=1e-5)
        assert attended.maps()["trunk"].min() >= 0
    # Nothing stays behind on the network.
    assert not any(part._forward_hooks for part in network.modules())


def test_a_network_without_masks_is_refused() -> None:
    with pytest.raises(AttendingError, match="cifar-resnet11 has no attention module"):
        mask_maps.attended(build(named("cifar-resnet11")), torch.zeros(1, 3, 32, 32))


def test_laying_a_map_over_an_image_keeps_what_is_level_and_what_fits() -> None:
    assert torch.equal(mask_maps.over_image(torch.full((1, 4, 4), 2.5), 32), torch.full((1, 32, 32), 2.5))
    fits = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mask_maps.over_image(fits, 32), fits)


class Oracle(nn.Module):
    """A mask that knows the foreground."""

    def __init__(self, foreground: torch.Tensor, channels: int) -> None:
        super().__init__()
        self.register_buffer("network", foreground[:, None].expand(-1, channels, -1, -1).float())

    def forward(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self.network


def test_a_mask_that_knows_the_object_scores_full_and_chance_half(digits: data.Dataset) -> None:
    network = build(named(SMALL)).eval()
    assert digits.test_foreground is not None
    network.get_submodule("stage1.module1").mask = Oracle(digits.test_foreground, 16)
    images = digits.test_images.float() / 255
    rows = pd.DataFrame(mask_maps.score_rows(network, images, digits.test_foreground))
    scores = rows.set_index(["stage", "map", "quantity"])["value"]
    assert scores["stage1", "mask", "auc"] == 1
    assert scores["stage1", "mask", "energy_share"] == 1
    assert scores["stage1", "random", "auc"] == pytest.approx(0.5, abs=0.03)
    area = float(digits.test_foreground.float().mean())
    assert scores["stage1", "random", "energy_share"] == pytest.approx(area, rel=0.15)
    assert set(rows["map"]) == {*mask_maps.MAPS, "other image"}
    assert len(rows) == 3 * (len(mask_maps.MAPS) + 1) * len(SCORES)
    other = torch.stack([digits.test_foreground[k - 1] for k in range(len(images))]).flatten(1)
    inside = digits.test_foreground.flatten(1)
    areas = [roc_auc_score(i, o) for i, o in zip(inside.numpy(), other.numpy(), strict=True)]
    assert scores["stage1", "other image", "auc"] == pytest.approx(np.mean(areas))
    again = pd.DataFrame(mask_maps.score_rows(network, images, digits.test_foreground))
    pd.testing.assert_frame_equal(rows, again)


def test_settled_norms_have_the_statistics_of_the_batches_and_the_weights_stay() -> None:
    network = build(named("cifar-resnet11"))
    before = {name: p.clone() for name, p in network.named_parameters()}
    batches = [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    mask_maps.settle(network, batches)
    assert not network.training
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    norm = network.get_submodule("stage1.unit1.act1.norm")
    with torch.no_grad():
        means = [network.stem(batch).mean((0, 2, 3)) for batch in batches]
    assert torch.allclose(norm.running_mean, torch.stack(means).mean(0), atol=1e-5)
    assert norm.momentum == 0.1


def test_varied_channels_come_first() -> None:
    mask = torch.zeros(2, 3, 4, 4)
    mask[:, 1, 0, 0], mask[:, 2, 0, 0] = 5.0, 1.0
    assert mask_maps.varied_channels(mask, 2) == [1, 2]


# ---- responses


@pytest.mark.parametrize("name", [SMALL, "cifar-attention92[width=4]", "cifar-resnet11", "cifar-resnet20-basic"])
def test_responses_are_those_of_the_layers_one_by_one(name: str) -> None:
    network = build(named(name)).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = responses.stage_responses(network, images.split(2))
    found = {(row["stage"], row["place"]): row["response"] for row in rows}
    stages = [part for part, _ in network.named_children() if part.startswith("stage")]
    with torch.no_grad():
        x = network.stem(images)
        for k, stage in enumerate(stages):
            x = network.get_submodule(stage)(x)
            assert found[stage, "output"] == pytest.approx(x.abs().mean().item(), rel=1e-4)
            if named(name).order == "post":
                assert (stage, "activated") not in found
                continue
            after = network.head.act if k + 1 == len(stages) else next(network.get_submodule(stages[k + 1]).children())
            active = after(x) if k + 1 == len(stages) else after.act1(x)
            assert found[stage, "activated"] == pytest.approx(active.abs().mean().item(), rel=1e-4)
    assert ((stages[0], "merge") in found) == named(name).has_masks


# ---- runs


@pytest.fixture(scope="module")
def runs(digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with masks and one without, trained for a moment, as notebook 50 leaves them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in (SMALL, "cifar-resnet11"):
        config = TrainConfig(spec=named(name), epochs=1, dataset="cluttered-digits", threads=1)
        config = override(config, "images=40 batch_size=20 test_images=20 accelerator=cpu")
        train(config, folder / f"{name.partition('[')[0]}-s0" / "run", dataset=digits, say=lambda line: None)
    return folder


@pytest.fixture
def trained(runs: Path, digits: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data, "load", lambda name: digits)
    return runs


def test_masks_are_scored_before_and_after_training(trained: Path) -> None:
    found = list(mask_maps.runs_below(trained))
    assert [run.name for run in found] == [SMALL]
    masks = mask_maps.mask_frame(found, 20)
    check_frame(masks, schemas.MASKS)
    assert set(masks["state"]) == {"before", "after"}
    wide = masks.pivot_table(index=["module", "map", "quantity"], columns="state", values="value")
    assert (wide.loc[(slice(None), "random"), "before"] == wide.loc[(slice(None), "random"), "after"]).all()
    assert (wide.loc[(slice(None), "mask"), "before"] != wide.loc[(slice(None), "mask"), "after"]).any()
    summary = mask_maps.mask_summary(masks)
    assert list(summary.columns) == ["network", "quantity", "map", "state", "stage1", "stage2", "stage3"]
    assert list(summary["map"].unique()) == [*mask_maps.MAPS, *mask_maps.NULLS]
    of_mask = masks[(masks["map"] == "mask") & (masks["quantity"] == "auc") & (masks["state"] == "after")]
    value = of_mask.set_index("stage").loc["stage2", "value"]
    row = summary.set_index(["quantity", "map", "state"]).loc[("auc", "mask", "after"), "stage2"]
    assert row == f"{value:.2f} ({value:.2f} to {value:.2f})"  # one seed
    nulls = masks[masks["map"].isin(["constant", "brightness"])].groupby(["map", "quantity"])["value"].nunique()
    assert (nulls == 1).all()  # no network makes them
    gains = mask_maps.mask_gains(masks)
    check_frame(gains, schemas.GAINS)
    row = gains[gains["stage"] == "stage2"].iloc[0]
    auc = wide.xs("auc", level="quantity").loc["stage2.module1"]
    assert row["over_trunk"] == pytest.approx(auc.loc["mask", "after"] - auc.loc["trunk", "after"])
    assert row["over_before"] == pytest.approx(auc.loc["mask", "after"] - auc.loc["mask", "before"])


@pytest.mark.parametrize("holdout", [0, 10])
def test_a_run_with_fewer_images_is_measured_on_all(digits: data.Dataset, holdout: int) -> None:
    tested = {"holdout": 10, "test_images": 0} if holdout else {"test_images": 15}
    config = TrainConfig(spec=named(SMALL), dataset="cluttered-digits", epochs=1, batch_size=10, images=20, **tested)
    record = Run(
        config=config, dataset_label="", dataset_note="", dataset_digest="", n_flipped_labels=0, rows=(), timing=(),
        weights_digest="", execution={}, out_dir="",
    )  # fmt: skip
    run, n = mask_maps.Trained(record, Path(), digits, data.prepare(digits, config)), holdout or 15
    assert mask_maps.images_words([run], 400).endswith(f"of runs that have fewer, on all ({n}).")
    assert mask_maps.images_words([run], n) == f"Measured on the first {n} test images of each run."
    # A held-out image is one of the training images, and so are its pixels and its object.
    images, objects = (digits.images[-n:], digits.foreground[-n:]) if holdout else (digits.test_images[:n], digits.test_foreground[:n])  # fmt: skip
    assert torch.equal(torch.from_numpy(run.pixels(400)).permute(0, 3, 1, 2), images)
    assert torch.equal(run.foreground(400), objects)
    assert torch.equal(run.nulls(400)["brightness"], images.float().mean(1))
    assert len(run.images(400)) == len(run.labels(400)) == n


def test_a_view_has_the_stages_and_their_channels(trained: Path) -> None:
    (run,) = mask_maps.runs_below(trained)
    view = mask_maps.view(run, 3, 2)
    assert view.pixels.shape == (3, 32, 32, 3)
    assert list(view.columns) == ["mean", "stage1_channels", "stage2_channels", "stage3_channels"]
    assert list(view.columns["mean"]) == ["stage 1", "stage 2", "stage 3"]
    assert all(maps.shape[0] == 3 for columns in view.columns.values() for maps in columns.values())
    assert view.foreground is not None
    assert "trained on cluttered-digits, seed 0" in run.title
    assert run.slug == "cifar-attention56-width-4"


def test_responses_of_runs_are_relative_to_the_first_stage(trained: Path) -> None:
    frame = responses.response_frame(mask_maps.runs_below(trained, with_masks=False), 20)
    check_frame(frame, schemas.RESPONSES)
    assert set(frame["network"]) == {SMALL, "cifar-resnet11"}
    assert (frame.loc[frame["stage"] == "stage1", "relative"] == 1).all()
    assert set(frame.loc[frame["network"] == "cifar-resnet11", "place"]) == {"output", "activated"}


def test_runs_that_cannot_be_looked_at(runs: Path, digits: data.Dataset, tmp_path: Path, monkeypatch) -> None:
    assert list(mask_maps.runs_below("")) == []
    with pytest.raises(AttendingError, match=r"no trained run of a network with masks in .*run 50_train"):
        list(mask_maps.runs_below(tmp_path))
    monkeypatch.setattr(data, "load", lambda name: data.digits(1, train=40, test=20))
    with pytest.raises(TrainError, match="trained on other images than the cluttered-digits that is here"):
        list(mask_maps.runs_below(runs))
    with pytest.raises(AttendingError, match="no trained run of a network with masks"):
        mask_maps.mask_frame([], 10)
