"""The attention module that the article quotes, rebuilt from its description: trunk and mask are found unaided."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.measures.audit import Audit, audit


class Unit(nn.Module):
    """The port's residual unit: pre-activation, 1x1, 3x3, 1x1, at equal channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.steps = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, channels, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x) + x  # type: ignore[no-any-return]


def units(n: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(Unit(channels) for _ in range(n)))


class AttentionModulePre(nn.Module):
    """`AttentionModule_pre` of the port. No name says which branch is the mask, and the sizes are constructor arguments.

    Source: article2021, claim 4; tengshaofeng.
    """

    def __init__(self, channels: int = 256, sizes: tuple[int, int, int] = (56, 28, 14)) -> None:
        super().__init__()
        self.sizes = sizes
        self.first, self.branch1 = units(1, channels), units(2, channels)
        self.down1, self.across1, self.down2, self.across2 = (units(1, channels) for _ in range(4))
        self.bottom, self.up1, self.up2 = units(2, channels), units(1, channels), units(1, channels)
        self.end = nn.Sequential(
            *(part for _ in range(2) for part in (nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False))),
            nn.Sigmoid(),
        )  # fmt: skip
        self.last = units(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        def pooled(x: Tensor) -> Tensor:
            return F.max_pool2d(x, 3, 2, 1)

        def resized(x: Tensor, size: int) -> Tensor:
            return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=True)

        x = self.first(x)
        along = self.branch1(x)
        a = self.down1(pooled(x))
        b = self.down2(pooled(a))
        c = resized(self.bottom(pooled(b)), self.sizes[2]) + self.across2(b)
        d = resized(self.up1(c), self.sizes[1]) + self.across1(a)
        gate = self.end(resized(self.up2(d), self.sizes[0]))
        return self.last((1 + gate) * along)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def found() -> Audit:
    with torch.device("meta"):
        return audit(AttentionModulePre(), (256, 56, 56))


def test_the_mask_is_found_and_counted(found: Audit) -> None:
    # By hand: the trunk is 1 + 2 + 1 units of three; the longest path takes 1 unit, 6 units and two 1x1 of the mask,
    # and 1 unit; the mask has 8 units and two 1x1.
    assert found.quantities["trunk_depth"] == 4 * 3
    assert found.quantities["longest_path"] == 3 + 6 * 3 + 2 + 3
    assert found.quantities["conv_layers_trunk"] == 12
    assert found.quantities["conv_layers_mask"] == 8 * 3 + 2


def test_the_article_counts_six_units_in_a_row_where_the_paper_says_four(found: Audit) -> None:
    in_mask = [layer for layer in found.longest_path_layers if not layer.startswith(("first", "last"))]
    assert len({layer.rpartition(".steps")[0] for layer in in_mask if ".steps" in layer}) == 6
