"""The soft mask branch: a recursive hourglass, two 1x1 convolutions and a gate."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from resattn.spec import NetworkSpec, StageSpec
from resattn.units import Add, conv, norm_relu, pooling, sequence, unit


class MixedGate(nn.Module):
    """f1: the sigmoid of each value. Source: wang2017, equation 4."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()


class ChannelGate(nn.Module):
    """f2: x over its L2 norm across channels, at each position; no sigmoid. Source: wang2017, equation 5."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class SpatialGate(nn.Module):
    """f3: each channel standardised over its positions, then the sigmoid. Source: wang2017, equation 6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x).sigmoid()


GATES = {"mixed": MixedGate, "channel": ChannelGate, "spatial": SpatialGate}


class Resize(nn.Module):
    """Bilinear resizing of one map to the size of another, whose values are not read.

    The release's Interp layer takes its second bottom for the size alone (caffe, interp.cpp).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.align_corners = spec.corners == "aligned"

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class Hourglass(nn.Module):
    """Pool, r units, the next hourglass beside one unit on the skip, r units, back to the input's size.

    At the bottom 2r units stand instead. In and out: (N, C, H, W).
    Source: wang2017, figure 2; the release's `AttentionA`, `AttentionB` and `AttentionC` (3, 2, 1 poolings).
    """

    def __init__(self, spec: NetworkSpec, stage: StageSpec, poolings: int) -> None:
        super().__init__()
        self.pool = pooling(spec)
        self.down = mask_units(spec, stage, spec.r)
        if poolings > 1:
            self.skip = mask_units(spec, stage, 1)
            self.inner = Hourglass(spec, stage, poolings - 1)
            self.add = Add()
        self.up = mask_units(spec, stage, spec.r)
        self.is_bottom = poolings == 1
        self.resize = Resize(spec)

    def forward(self, x: Tensor) -> Tensor:
        down = self.down(self.pool(x))
        if not self.is_bottom:
            down = self.add(self.skip(down), self.inner(down))
        return self.resize(self.up(down), x)


class Mask(nn.Module):
    """The attention mask M(x) of the same shape as x: (N, C, H, W).

    Source: wang2017, section 3.2; batch norm and ReLU ahead of both 1x1 convolutions as in the release.
    """

    def __init__(self, spec: NetworkSpec, stage: StageSpec) -> None:
        super().__init__()
        channels = stage.channels
        self.body: nn.Module
        if spec.mask == "local":
            self.body = mask_units(spec, stage, LOCAL_UNITS)
        elif stage.poolings == 0:
            self.body = mask_units(spec, stage, 2 * spec.r)
        else:
            self.body = Hourglass(spec, stage, stage.poolings)
        self.head = nn.Sequential(
            OrderedDict(
                act1=norm_relu(channels),
                conv1=conv(channels, channels, 1),
                act2=norm_relu(channels),
                conv2=conv(channels, channels, 1),
            )
        )
        self.gate = GATES[spec.gate]()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.head(self.body(x)))


LOCAL_UNITS = 3  # residual units in a mask without down- and up-sampling (wang2017, section 4.1, table 4)


def mask_units(spec: NetworkSpec, stage: StageSpec, n: int) -> nn.Sequential:
    return sequence("unit", (unit(spec, stage.channels, stage.inner) for _ in range(n)))
