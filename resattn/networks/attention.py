"""The attention module: a trunk of units, a mask beside it, and their merge."""

from __future__ import annotations

from torch import Tensor, nn

from resattn.networks.mask import Mask
from resattn.networks.residual import sequence, unit
from resattn.networks.spec import NetworkSpec, StageSpec


class ResidualMerge(nn.Module):
    """(1 + M) * T, computed as the release does: the product, then the sum. Source: wang2017, equation 3."""

    def forward(self, trunk: Tensor, mask: Tensor) -> Tensor:
        return trunk + mask * trunk


class NaiveMerge(nn.Module):
    """M * T. Source: wang2017, equation 1."""

    def forward(self, trunk: Tensor, mask: Tensor) -> Tensor:
        return mask * trunk


MERGES = {"residual": ResidualMerge, "naive": NaiveMerge}


class AttentionModule(nn.Module):
    """p units, then t units of trunk beside the mask, their merge, and p units again.

    In (N, in_channels, H, W), out (N, C, H/stride, W/stride). The mask reads what the trunk reads.
    Source: wang2017, section 3 and figure 2.
    """

    def __init__(self, spec: NetworkSpec, stage: StageSpec, in_channels: int, stride: int) -> None:
        super().__init__()
        firsts = [(in_channels, stride)] + [(stage.channels, 1)] * (spec.p - 1) if spec.p else []
        self.pre = sequence("unit", (unit(spec, c, stage.inner, s) for c, s in firsts))
        self.trunk = sequence("unit", (unit(spec, stage.channels, stage.inner) for _ in range(spec.t)))
        self.mask = Mask(spec, stage)
        self.merge = MERGES[spec.merge]()
        after = spec.p if spec.after_merge == "p" else 1
        self.post = sequence("unit", (unit(spec, stage.channels, stage.inner) for _ in range(after)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        trunk = self.trunk(x)
        return self.post(self.merge(trunk, self.mask(x, trunk)))
