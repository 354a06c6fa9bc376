"""Interventions on masks and units: what meets in the merge, and what the rule says of made-up runs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from analysis.claims.background import GROUND, OBJECT
from analysis.tables import schemas
from analysis.tables.files import check_frame
from analysis.trained import gradient_depth, interventions, mask_maps
from analysis.trained.interventions import INTERVENTIONS, PLACES, Seen
from analysis.trained.mask_maps import AttendingError, attended
from resattn.networks.catalog import named
from resattn.networks.network import Network, build
from resattn.training import data
from resattn.training.config import TrainConfig, override
from resattn.training.loop import train

SMALL = "cifar-attention56[width=2]"
N = 6


def network_of(name: str) -> Network:
    network = build(named(name)).eval()
    mask_maps.settle(network, [torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))])
    return network


@pytest.fixture(scope="module", params=[SMALL, "cifar-attention56[width=2, merge=naive]"])
def network(request: pytest.FixtureRequest) -> Network:
    return network_of(request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(N, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def foreground() -> Tensor:
    inside = torch.zeros(N, 32, 32, dtype=torch.bool)
    inside[:, 4:12, 6:10] = True
    return inside


def met_under(network: Network, kind: str, images: Tensor, foreground: Tensor) -> list[mask_maps.Attended]:
    changed, modules = copy.deepcopy(network), interventions.merge_modules(network)
    means = interventions.mean_masks(network, [images])
    with interventions.replaced(changed, network, means, kind, modules, lambda: foreground) as see:
        see(images)
        return attended(changed, images)


@pytest.mark.parametrize("kind", [*INTERVENTIONS, *PLACES])
def test_what_reaches_the_merge(network: Network, kind: str, images: Tensor, foreground: Tensor) -> None:
    clean, changed = attended(network, images), met_under(network, kind, images, foreground)
    first, before = changed[0].mask, clean[0].mask  # what is in front of the first mask is untouched
    constant = before.mean((0, 2, 3), keepdim=True)
    expected = {
        "none": before,
        "mean over images": before.mean(0, keepdim=True).expand_as(before),
        "mean over positions": before.mean((2, 3), keepdim=True).expand_as(before),
        "mean over channels": before.mean(1, keepdim=True).expand_as(before),
        "constant per channel": constant.expand_as(before),
        "another image's": before[[-1, *range(N - 1)]],
        "inverse about the mean": constant - (before - constant),
        OBJECT: torch.where(foreground[:, None], constant, before),
    }
    if kind in expected:
        assert torch.allclose(first, expected[kind], atol=1e-5)
    if kind == "off":
        assert all(torch.allclose(met.output, met.trunk) for met in changed)
    if kind == "another image's":  # also behind it: the masks of the untouched network
        assert torch.allclose(changed[2].mask, clean[2].mask.roll(1, 0), atol=1e-5)
    if kind == GROUND:
        replaced = (first - constant).abs().amax(1) < 1e-6
        assert (replaced.flatten(1).sum(1) == foreground.flatten(1).sum(1)).all()
        assert not (replaced & foreground).any()
    assert not any(part._forward_hooks for part in network.modules())


def test_a_ground_smaller_than_the_object_is_taken_whole() -> None:
    inside = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    inside[:, :, 0, :2] = False
    own = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = Seen(own, own, torch.full((1, 3, 4, 4), 9.0), inside, 0.0)
    assert torch.equal(PLACES[GROUND](seen) == 9.0, (~inside).expand_as(own))


def test_norms_are_estimated_with_the_masks_replaced(images: Tensor) -> None:
    network = network_of(SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    labels = torch.zeros(N, dtype=torch.int64)
    modules, means = interventions.merge_modules(network), interventions.mean_masks(network, [images])

    def error(kind: str, settling: list[Tensor]) -> float:
        return interventions.error_pct(network, network, means, kind, modules, images, labels, settling=settling)

    plain = 100 * float((network(images).argmax(1) != 0).float().mean())
    assert error("none", []) == pytest.approx(plain)
    other = copy.deepcopy(network)
    with interventions.replaced(other, network, means, "off", modules) as see:
        mask_maps.settle(other, [images])
        see(images)
        expected = 100 * float((other(images).argmax(1) != 0).float().mean())
    assert error("off", [images]) == pytest.approx(expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["cifar-resnet11", "cifar-attention56[width=2, mask=constant]"])
def test_a_network_without_masks_is_refused(name: str) -> None:
    with pytest.raises(AttendingError, match="has no mask that depends on the image: there is nothing to replace"):
        interventions.merge_modules(build(named(name), device="meta"))


def test_a_dropped_unit_gives_its_shortcut(images: Tensor) -> None:
    network = network_of("cifar-resnet11")
    unit = "stage2.unit1"
    whole = copy.deepcopy(network)
    part = whole.get_submodule(unit)
    part.branch = Nothing(part.branch)
    labels = network(images).argmax(1)
    expected = int((whole(images).argmax(1) != labels).sum())
    assert gradient_depth._wrong_without(network, [unit], images, labels) == {"": 0, unit: expected}


class Nothing(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.inner = branch

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.inner(x)


# ---- tables


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[mask_maps.Trained]:
    digits, folder = data.digits(train=40, test=20), tmp_path_factory.mktemp("runs")
    config = TrainConfig(spec=named(SMALL), epochs=1, dataset="cluttered-digits", threads=1)
    config = override(config, "images=40 batch_size=20 test_images=20 accelerator=cpu")
    train(config, folder / "a-s0" / "run", dataset=digits, say=lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name: digits)
        return list(mask_maps.runs_below(folder))


def test_the_table_of_interventions(runs: list[mask_maps.Trained]) -> None:
    frame = interventions.intervention_frame(runs, 20)
    check_frame(frame, schemas.INTERVENTIONS)
    unchanged = frame[frame["intervention"] == "none"].set_index("norms")
    assert unchanged.loc["as they are", "test_error_pct"] == pytest.approx(runs[0].run.test_error_pct)
    assert (unchanged["change"] == 0).all()
    single = frame[frame["module"] != "all"]
    assert set(single["module"]) == {f"stage{k}.module1" for k in (1, 2, 3)}
    summary = interventions.intervention_summary(frame)
    check_frame(summary, schemas.INTERVENTION_MEANS)
    assert summary["low"].isna().all()  # one run has no interval
    with pytest.raises(AttendingError, match="no trained run"):
        interventions.intervention_frame([], 20)


def test_the_table_of_channels_holds_every_channel(runs: list[mask_maps.Trained]) -> None:
    channels = mask_maps.channel_frame(runs, 20)
    check_frame(channels, schemas.CHANNELS)
    assert list(channels.groupby("stage").size()) == [8, 16, 32]
    assert channels["mean_map_share"].between(0, 1).all()


def test_the_tables_of_used_depth_and_lesions(runs: list[mask_maps.Trained]) -> None:
    frame = gradient_depth.used_frame(runs, 2)
    check_frame(frame, schemas.USED)
    assert frame.groupby(["state", "paths"])["share"].sum().tolist() == pytest.approx([1.0] * 4)
    summary = gradient_depth.used_summary(frame)
    check_frame(summary, schemas.USED_MEANS)
    assert summary.set_index(["state", "paths"])["longest"].to_dict() == {
        ("before", "all"): 74, ("before", "past the masks"): 56, ("after", "all"): 74, ("after", "past the masks"): 56,
    }  # fmt: skip
    lesions = gradient_depth.lesion_frame(runs, 20)
    check_frame(lesions, schemas.LESIONS)
    assert lesions.iloc[0]["intervention"] == "none"
    assert lesions["module"].str.contains("mask").any()
