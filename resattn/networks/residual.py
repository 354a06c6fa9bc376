"""Residual units as modules: the table of units gives the convolutions, `order` where batch norm and ReLU are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.networks.spec import NetworkSpec
from resattn.networks.units import UNITS, Convolution


def convolutions(
    spec: NetworkSpec, in_channels: int, inner: int, stride: int, out_channels: int | None = None
) -> list[Convolution]:
    """The convolutions of one unit, in order; `out_channels` is by default `inner` times the unit's expansion."""
    strides = (stride, 1) if spec.stride_on == "1x1" else (1, stride)
    return UNITS[spec.unit].convolutions(in_channels, inner, out_channels or inner * spec.expansion, strides)


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _built(layer: Convolution) -> nn.Conv2d:
    return conv(layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.groups)


def norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))


def sequence(prefix: str, modules: Iterable[nn.Module]) -> nn.Sequential:
    """The modules in order, addressed as prefix1, prefix2, ..."""
    return nn.Sequential(OrderedDict((f"{prefix}{i}", m) for i, m in enumerate(modules, start=1)))


class Add(nn.Module):
    """x + y, as a module so that the sum has an address."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class ZeroPad(nn.Module):
    """Every stride-th position, with zero channels appended: option A of he2016, section 3.3."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Residual(nn.Module):
    """The part that all units share: the shortcut, an identity, or a module if the shape changes."""

    shortcut: nn.Module | None

    def __init__(self, spec: NetworkSpec, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        is_needed = in_channels != out_channels or stride != 1 or spec.shortcut == "convolution"
        is_defined = is_needed or spec.projection == "always"
        self.shortcut = _shortcut(spec, in_channels, out_channels, stride) if is_defined else None
        self.projects = is_needed
        self.add = Add()


class PreActivationUnit(Residual):
    """Branch plus identity, batch norm and ReLU before each convolution; a projection reads the activated input.

    Source: he2016identity, figure 4(e); the release's `pre_res_*` and `trunk/res*` (fwang91).
    """

    def __init__(self, spec: NetworkSpec, in_channels: int, inner: int, stride: int, out: int) -> None:
        super().__init__(spec, in_channels, out, stride)
        self.act1 = norm_relu(in_channels)
        row = UNITS[spec.unit].is_in_a_row
        self.branch = (
            activated(convolutions(spec, in_channels, inner, stride, out))
            if row
            else BRANCHES[spec.unit](in_channels, inner, stride, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(x)
        identity = self.shortcut(active) if self.projects and self.shortcut is not None else x
        return self.add(self.branch(active), identity)


class Concat(nn.ModuleDict):
    """The outputs of branches that read the same input, concatenated along the channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], dim=1)


def inception_branch(in_channels: int, inner: int, stride: int, out: int) -> nn.Module:
    """A branch at two scales: a 1x1 beside a 1x1 and a 3x3, concatenated and projected.

    Our reading: wang2017 names AttentionInception in table 7 but publishes no structure. This one has three layers in
    a row, as the depth of 56 needs, and nearly the bottleneck's cost.
    """
    point = [Convolution(in_channels, inner // 2, 1, stride)]
    area = [Convolution(in_channels, 3 * inner // 4, 1), Convolution(3 * inner // 4, inner, 3, stride)]
    joined = point[-1].out_channels + area[-1].out_channels
    return nn.Sequential(
        OrderedDict(
            scales=Concat(point=activated(point), area=activated(area)),
            act=norm_relu(joined),
            conv=conv(joined, out, 1),
        )
    )


# Branches that are not a plain sequence of convolutions: input channels, inner width, stride, output channels.
BRANCHES: Mapping[str, Callable[[int, int, int, int], nn.Module]] = {"inception": inception_branch}


class PostActivationUnit(Residual):
    """Batch norm after each convolution, ReLU after the sum. Source: he2016, figure 5."""

    def __init__(self, spec: NetworkSpec, in_channels: int, inner: int, stride: int, out: int) -> None:
        super().__init__(spec, in_channels, out, stride)
        layers = convolutions(spec, in_channels, inner, stride, out)
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        for i, layer in enumerate(layers, start=1):
            branch[f"conv{i}"] = _built(layer)
            branch[f"norm{i}"] = nn.BatchNorm2d(layer.out_channels)
            if i < len(layers):
                branch[f"relu{i}"] = nn.ReLU(inplace=True)
        self.branch = nn.Sequential(branch)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = self.shortcut(x) if self.projects and self.shortcut is not None else x
        return self.relu(self.add(self.branch(x), identity))


def activated(layers: Sequence[Convolution]) -> nn.Sequential:
    """Convolutions in order, with batch norm and ReLU between them."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, layer in enumerate(layers, start=1):
        if i > 1:
            parts[f"act{i}"] = norm_relu(layer.in_channels)
        parts[f"conv{i}"] = _built(layer)
    return nn.Sequential(parts)


def unit(
    spec: NetworkSpec, in_channels: int, inner: int, stride: int = 1, out_channels: int | None = None
) -> nn.Module:
    """One residual unit, `in_channels` to `inner * spec.expansion` channels by default."""
    out = out_channels or inner * spec.expansion
    kind = PreActivationUnit if spec.order == "pre" else PostActivationUnit
    return kind(spec, in_channels, inner, stride, out)


def _shortcut(spec: NetworkSpec, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    # TF-slim subsamples the identity in a unit with a stride and the same number of channels.
    if spec.shortcut == "zero-pad" or (spec.stride_at == "last" and in_channels == out_channels):
        return ZeroPad(in_channels, out_channels, stride)
    projection: OrderedDict[str, nn.Module] = OrderedDict(conv=conv(in_channels, out_channels, 1, stride))
    if spec.order == "post":
        projection["norm"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(projection)


def pooling(spec: NetworkSpec) -> nn.MaxPool2d:
    """3x3 max pooling with stride 2, padded as the spec says."""
    padded = spec.pool_padding == "padded"
    return nn.MaxPool2d(3, 2, padding=1 if padded else 0, ceil_mode=not padded)
