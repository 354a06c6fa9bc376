"""The soft mask branch: a recursive hourglass, two 1x1 convolutions and a gate."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.networks.residual import Add, conv, convolutions, norm_relu, pooling, sequence, unit
from resattn.networks.spec import NetworkSpec, StageSpec, pooled_sizes
from resattn.networks.units import UNITS


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
    """A map resized to the size of another, whose values are used only if the spec misreads `interp` as a sum.

    Source: wang2017, section 3.2 (bilinear). The release's Interp layer uses its second input for the size alone
    (caffe, interp.cpp); several ports add it.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.mode = spec.upsampling
        self.align_corners = spec.corners == "aligned" if spec.upsampling == "bilinear" else None
        self.adds = spec.interp == "sum"

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        resized = F.interpolate(x, size=like.shape[-2:], mode=self.mode, align_corners=self.align_corners)
        return resized + like if self.adds else resized


class Hourglass(nn.Module):
    """Pooling, r units, the next hourglass beside a skip of one unit, r units, and a resize to the map `like`.

    The lowest level has 2r units instead. x, like and the result: (N, C, H, W).
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
        self.is_nested = spec.descent == "nested"
        self.resize = Resize(spec)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        down = self.down(self.pool(x))
        if not self.is_bottom:
            below = self.inner(down if self.is_nested else x, down)
            down = self.add(self.skip(down), below)
        return self.resize(self.up(down), like)


class Local(nn.Module):
    """Three units at full resolution, narrower, with the same cost as the hourglass of the stage.

    Source: wang2017, section 4.1 and table 4 ("same number of FLOPs"); the width is not published.
    """

    def __init__(self, spec: NetworkSpec, stage: StageSpec) -> None:
        super().__init__()
        inner = local_width(spec, stage)
        units = (unit(spec, stage.channels, inner, out_channels=stage.channels) for _ in range(LOCAL_UNITS))
        self.units = sequence("unit", units)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.units(x)


class Flat(nn.Module):
    """An hourglass without pooling: 2r units at full resolution."""

    def __init__(self, spec: NetworkSpec, stage: StageSpec) -> None:
        super().__init__()
        self.units = mask_units(spec, stage, 2 * spec.r)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.units(x)


class Constant(nn.Module):
    """One learned value per channel, (1, C, 1, 1), the same for every image: the control for attention.

    The values start at 0, where the sigmoid is 0.5, the mean of an untrained mask.
    """

    def __init__(self, stage: StageSpec) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1, stage.channels, 1, 1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.value)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.value.to(like.dtype)  # else the output of the merge would have another precision than the trunk


LOCAL_UNITS = 3


def local_width(spec: NetworkSpec, stage: StageSpec) -> int:
    """Inner width at which three units at full resolution cost most nearly as many multiply-adds as the hourglass."""

    def cost(inner: int) -> int:
        return sum(c.macs for c in convolutions(spec, stage.channels, inner, 1, stage.channels))

    sizes = pooled_sizes(stage.size, spec.pool_padding)[: stage.poolings + 1]
    # Every level has r units down, r up and one on the skip, except the last, which has 2r; without pooling only these.
    units = [2 * spec.r + 1] * (stage.poolings - 1) + [2 * spec.r]
    positions = sum(n * size**2 for n, size in zip(units, sizes[1:] or sizes, strict=True))
    wanted = positions * cost(stage.inner)
    step = UNITS[spec.unit].inner_step
    widths = range(step, 2 * stage.inner + 1, step)
    return min(widths, key=lambda inner: abs(LOCAL_UNITS * stage.size**2 * cost(inner) - wanted))


class Mask(nn.Module):
    """The attention mask M(x), (N, C, H, W), the shape of x and of the trunk's output `like`.

    A constant mask has the shape (1, C, 1, 1), no convolution, and the same gate.
    Source: wang2017, section 3.2; batch norm and ReLU before both 1x1 convolutions as in the release.
    """

    def __init__(self, spec: NetworkSpec, stage: StageSpec) -> None:
        super().__init__()
        channels = stage.channels
        self.body: nn.Module
        if spec.mask == "constant":
            self.body = Constant(stage)
        elif spec.mask == "local":
            self.body = Local(spec, stage)
        elif stage.poolings == 0:
            self.body = Flat(spec, stage)
        else:
            self.body = Hourglass(spec, stage, stage.poolings)
        head: OrderedDict[str, nn.Module] = OrderedDict()
        for i in (1, 2) if spec.mask != "constant" else ():
            # After a post-activation unit the map is already activated: the release of AttentionNeXt activates it once.
            if spec.head == "activated" and (i > 1 or spec.order == "pre"):
                head[f"act{i}"] = norm_relu(channels)
            head[f"conv{i}"] = conv(channels, channels, 1)
        self.head = nn.Sequential(head)
        self.gate = GATES[spec.gate]()

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return self.gate(self.head(self.body(x, like)))


def mask_units(spec: NetworkSpec, stage: StageSpec, n: int) -> nn.Sequential:
    return sequence("unit", (unit(spec, stage.channels, stage.inner) for _ in range(n)))
