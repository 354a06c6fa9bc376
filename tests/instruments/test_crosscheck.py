"""Other instruments agree once their definitions are taken apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from resattn.instruments.crosscheck import crosscheck
from resattn.targets import TargetError


@pytest.mark.parametrize("name", ["attention56", "cifar-attention92", "resnet50", "cifar-resnet20-basic"])
def test_every_difference_is_explained(name: str) -> None:
    checks = crosscheck(name)
    assert {c.tool for c in checks} == {"fvcore", "torchinfo", "torch FlopCounterMode"}
    assert [c.unexplained for c in checks] == [0] * len(checks)


def test_the_causes_are_the_ones_known_for_attention_56() -> None:
    by_tool = {(c.tool, c.quantity): c for c in crosscheck("attention56")}
    # fvcore's own by-operator table for this network.
    assert by_tool["fvcore", "macs"].causes == {
        "batch norms, 2 per element, 1 without scale": 34_345_472,
        "bilinear up-sampling, 4 per output": 7_024_640,
    }
    assert by_tool["torch FlopCounterMode", "flops"].difference == 0


def test_parameters_that_never_run_are_named_as_the_cause() -> None:
    checks = {(c.tool, c.quantity): c for c in crosscheck("port:tengshaofeng:cifar-attention56")}
    dead = checks["torchinfo", "params"]
    # 11.41 M defined, 7.20 M live.
    assert round(dead.reported / 1e6, 2) == 11.41
    assert round(dead.ours / 1e6, 2) == 7.20
    assert dead.unexplained == 0


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight)


class ChannelsLast(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*self.qkv(x)[:, None].chunk(3, -1))


class Tied(nn.Module):
    """The embedding's matrix is the head's, and a layer never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head, self.unused = nn.Embedding(10, 4), nn.Linear(4, 10), nn.Linear(3, 3)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class Noisy(nn.Module):
    """Products of noise, whose result nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.bmm(torch.randn(3, 4, 5), torch.randn(3, 5, 6))
        return self.conv(x)


class ByName(nn.Module):
    """An argument by keyword alone, one in a dictionary, and one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, batch: dict[str, Tensor], *, scale: Tensor) -> dict[str, Tensor]:
        return {"scores": self.fc(self.embedding(batch["ids"])) * scale}


class OnConstants(nn.Module):
    """Modules that run on a parameter alone, and on the input with another number of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.kernels = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(1, 2, 5, 5))
        self.fc = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        self.recurrent, self.conv = nn.GRU(4, 4), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.recurrent(self.fc(self.query)[None])[0].sum() + self.conv(self.kernels).sum()
        return self.fc(x) + made + self.conv(self.kernels).mean()


def blocks() -> nn.Module:
    """Blocks that share one activation."""
    shared = nn.ReLU()
    return nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared) for _ in range(3)))


IMAGE, TOKENS = torch.ones(1, 3, 8, 8), torch.zeros(2, 7, dtype=torch.int64)
KINDS: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {
    "functional": (Functional(), (IMAGE,), {}),
    "group norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), (IMAGE,), {}),
    "instance norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True)), (IMAGE,), {}),
    "layer norm": (ChannelsLast(nn.LayerNorm(4)), (IMAGE,), {}),
    "layer norm without weights": (ChannelsLast(nn.LayerNorm(4, elementwise_affine=False)), (IMAGE,), {}),
    "rms norm": (ChannelsLast(nn.RMSNorm(4)), (IMAGE,), {}),
    "transposed": (nn.ConvTranspose2d(3, 6, 4, stride=2, groups=3), (IMAGE,), {}),
    "one dimension": (nn.Sequential(nn.Conv1d(2, 4, 3, padding="same"), nn.PReLU(4)), (torch.ones(2, 2, 9),), {}),
    "three dimensions": (nn.Conv3d(1, 2, 3), (torch.ones(1, 1, 5, 5, 5),), {}),
    "recurrent": (nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3), (torch.ones(7, 2, 4),), {}),
    "gru": (nn.GRU(4, 5, batch_first=True), (torch.ones(2, 7, 4),), {}),
    "recurrent in one kernel": (nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True), (torch.ones(2, 7, 4),), {}),
    "on constants too": (OnConstants(), (torch.ones(2, 7, 4),), {}),
    "exported": (torch.export.export(nn.Conv2d(3, 4, 3), (torch.ones(1, 3, 8, 8),)).module(), (IMAGE,), {}),
    "attention": (Attention(), (torch.ones(2, 5, 8),), {}),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (torch.ones(2, 5, 8),), {}),
    "bilinear": (nn.Sequential(nn.Linear(4, 4), nn.Identity()), (torch.ones(5, 4),), {}),
    "tied": (Tied(), (TOKENS,), {}),
    "noise": (Noisy(), (IMAGE,), {}),
    "shared activation": (blocks(), (torch.ones(1, 4),), {}),
    "keywords": (ByName(), ({"ids": TOKENS},), {"scale": torch.ones(1)}),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3)), (IMAGE,), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_every_kind_are_explained(kind: str) -> None:
    model, args, kwargs = KINDS[kind]
    checks = crosscheck(model, *args, **kwargs)
    # torchinfo calls `train`, which an exported module refuses.
    assert [bool(c.error) for c in checks] == [False, kind == "exported", False, False]
    assert {f"{c.tool} {c.quantity}": c.unexplained for c in checks if c.unexplained} == {}
    # A cause is no row without a number.
    assert all(n for c in checks for n in c.causes.values())
    assert all(p.requires_grad for p in model.parameters())


def causes(kind: str, tool: str) -> dict[str, int]:
    model, args, kwargs = KINDS[kind]
    return dict(next(c.causes for c in crosscheck(model, *args, **kwargs) if c.tool == tool and c.quantity != "params"))


def test_the_causes_are_the_instruments_own_rules() -> None:
    # fvcore, jit_handles.py: 5 per element of a norm with weights that makes its own statistics, 4 without.
    norms, own = (f"{what}, 5 per element, 4 without scale" for what in ("layer and group norms", "instance norms"))
    assert causes("group norm", "fvcore") == {norms: 5 * 4 * 36}
    assert causes("layer norm", "fvcore") == {norms: 5 * 4 * 36}
    assert causes("layer norm without weights", "fvcore") == {norms: 4 * 4 * 36}
    assert causes("instance norm", "fvcore") == {own: 5 * 4 * 36}
    assert causes("gru", "fvcore") == {"GRU, not counted": -2 * 7 * 3 * 5 * 9}
    # 7 steps of 2 sequences, 2 directions: 20 gates meet 4 inputs (10 in the second layer) and 5 states.
    steps = 2 * 2 * 7 * 2 * 20
    kernel = "recurrent in one kernel"
    assert causes(kernel, "torch FlopCounterMode") == {"LSTM in one kernel, not counted": -steps * (4 + 5 + 10 + 5)}
    assert causes("noise", "fvcore") == {"bmm, not counted": -3 * 4 * 5 * 6}
    assert causes("one dimension", "fvcore") == {"Conv1d, not counted": -2 * 9 * 4 * 2 * 3}
    attended = 2 * 2 * 5 * 5 * 8
    assert causes("attention", "fvcore") == {"scaled_dot_product_attention, not counted": -attended}
    assert causes("attention", "torch FlopCounterMode") == {"scaled_dot_product_attention, not counted": -2 * attended}
    assert causes("functional", "torchinfo") == {"convolution, not counted": -36 * 4 * 27}
    # torchinfo, layer_info.py: each weight at each position of the output; a position of the input meets it once.
    per = "positions of the output (convolutions) or batch for each"
    assert causes("transposed", "torchinfo") == {
        f"ConvTranspose2d: weights of modules, {per}": 96 * (18 * 18 - 8 * 8),
        f"biases of modules, {per}": 6 * 18 * 18,
    }


def test_a_difference_without_a_cause_stays_unexplained(monkeypatch: pytest.MonkeyPatch) -> None:
    total = FlopCountAnalysis.total
    monkeypatch.setattr(FlopCountAnalysis, "total", lambda self: total(self) + 17)
    check = next(c for c in crosscheck(Functional(), IMAGE) if c.tool == "fvcore")
    assert check.unexplained == check.difference == 17


def test_an_instrument_that_fails_is_a_row_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any) -> int:
        raise ValueError("no trace\nof it")

    monkeypatch.setattr("fvcore.nn.FlopCountAnalysis.total", fails)
    first, *others = crosscheck(Functional(), IMAGE)
    assert (first.error, first.reported, first.difference, first.unexplained) == (
        "ValueError: no trace",
        None,
        None,
        None,
    )
    assert [c.error for c in others] == [""] * 3
    assert all(c.reported is not None for c in others)
    assert first.to_json()["unexplained"] is None


def test_a_callable_needs_an_input_shape() -> None:
    with pytest.raises(TargetError, match="needs an input"):
        crosscheck("torch.nn:Identity")
