"""The linear twin: where its gradient is, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.instruments.gradient import WitnessError, gradient_support, gradient_supports
from resattn.networks.catalog import named
from resattn.networks.network import build


def test_three_3x3_see_what_one_7x7_sees() -> None:
    three = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    seven = nn.Sequential(nn.Conv2d(1, 1, 7, padding=3))
    assert gradient_support(three, (1, 21), "2").side_px == gradient_support(seven, (1, 21), "0").side_px == 7


def test_stride_and_pooling() -> None:
    # araujo2019, equation 2: 3 + (3 - 1) * 2 + (3 - 1) * 4.
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, padding=1))
    support = gradient_support(net, (3, 65), "2")
    assert (support.side_px, support.low, support.high) == (15, 25, 39)
    assert support.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("position", [0, 3, 12])
def test_the_same_as_by_trying(position: int) -> None:
    """Against changing one input row after the other in the net itself, with its activations."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), nn.Conv2d(4, 1, 5, padding=2)).double()
    x = torch.rand(1, 1, 25, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = net(x)[0, 0, position]
    changed = []
    for row in range(25):
        other = x.clone()
        other[:, :, row] += 1
        if not torch.equal(net(other)[0, 0, position], before):
            changed.append(row)
    linear = nn.Sequential(net[0], nn.ReLU(), net[2])
    support = gradient_support(linear, (1, 25), "2", position=position)
    assert (support.low, support.high) == (changed[0], changed[-1])


def test_masks_can_be_left_out() -> None:
    network = build(named("cifar-attention56"), device="meta")
    without = gradient_support(network, (3, 320), "stage1", has_masks=False)
    assert without.side_px == 13
    assert gradient_support(network, (3, 320), "stage1").side_px == 45


def test_the_middle_holds_its_share() -> None:
    support = gradient_support(nn.Sequential(nn.Conv2d(1, 1, 101, padding=50)), (1, 301), "0")
    low, high = support.central(0.5)
    assert abs((high - low) - 50) <= 1


class ChannelsLast(nn.Module):
    """As in ConvNeXt: a depthwise convolution, then linear layers along channels that come last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.spread = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(out)))).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("net", "side_px"),
    [
        (nn.Sequential(ChannelsLast()), 4 + 6 * 4),
        # One position of the map is two of the input; a window of 2 over it, transposed, is one of its positions.
        (nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ConvTranspose2d(4, 2, 2, stride=2)), 2),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2)), 5),
        (nn.Sequential(nn.ZeroPad2d((1, 1, 1, 1)), nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), 4),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.BatchNorm2d(8), nn.Hardswish()), 3),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Hardswish()), 64),  # its statistics
    ],
)
def test_layers_of_public_models(net: nn.Module, side_px: int) -> None:
    last = str(len(list(net.children())) - 1)
    assert max(s.side_px for s in gradient_supports(net.to("meta"), (3, 64), last, n_middle=4)) == side_px


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:])


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_what_it_refuses() -> None:
    with pytest.raises(WitnessError, match="no linear twin for the function layer_norm"):
        gradient_support(nn.Sequential(Odd()), (1, 9), "0")
    with pytest.raises(WitnessError, match="no module 'other'"):
        gradient_support(Unused(), (1, 9), "other")
    with pytest.raises(WitnessError, match="'unused' is never executed"):
        gradient_support(Unused(), (1, 9), "unused")


def test_the_model_is_left_as_it_was() -> None:
    model = Unused()
    gradient_support(model, (1, 9), "used")
    assert not model.used._forward_hooks
    assert F.relu(torch.tensor(-1.0)) == 0
