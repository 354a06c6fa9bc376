"""Residual units. The kind is a list of convolutions, the order says where norm and ReLU stand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from resattn.spec import NetworkSpec

Convolution = tuple[int, int, int, int]  # in channels, out channels, kernel, stride


def convolutions(spec: NetworkSpec, in_channels: int, inner: int, stride: int) -> list[Convolution]:
    """The convolutions of one unit: (in channels, out channels, kernel, stride) each.

    Source: he2016, figure 5 (basic left, bottleneck right).
    """
    out = inner * spec.expansion
    if spec.unit == "basic":
        return [(in_channels, inner, 3, stride), (inner, out, 3, 1)]
    first, second = (stride, 1) if spec.stride_on == "1x1" else (1, stride)
    return [(in_channels, inner, 1, first), (inner, inner, 3, second), (inner, out, 1, 1)]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


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


class PreActivationUnit(nn.Module):
    """Branch plus identity, each convolution behind batch norm and ReLU; projects the activated input.

    Source: he2016identity, figure 4(e); the release's `pre_res_*` and `trunk/res*` (fwang91).
    """

    def __init__(self, spec: NetworkSpec, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        layers = convolutions(spec, in_channels, inner, stride)
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        for i, layer in enumerate(layers, start=1):
            if i > 1:
                branch[f"act{i}"] = norm_relu(layer[0])
            branch[f"conv{i}"] = conv(*layer)
        self.act1 = norm_relu(in_channels)
        self.branch = nn.Sequential(branch)
        self.shortcut = shortcut(spec, in_channels, layers[-1][1], stride)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        activated = self.act1(x)
        identity = x if self.shortcut is None else self.shortcut(activated)
        return self.add(self.branch(activated), identity)


class PostActivationUnit(nn.Module):
    """Batch norm after each convolution, ReLU after the sum. Source: he2016, figure 5."""

    def __init__(self, spec: NetworkSpec, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        layers = convolutions(spec, in_channels, inner, stride)
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        for i, layer in enumerate(layers, start=1):
            branch[f"conv{i}"] = conv(*layer)
            branch[f"norm{i}"] = nn.BatchNorm2d(layer[1])
            if i < len(layers):
                branch[f"relu{i}"] = nn.ReLU(inplace=True)
        self.branch = nn.Sequential(branch)
        self.shortcut = shortcut(spec, in_channels, layers[-1][1], stride)
        self.add = Add()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        return self.relu(self.add(self.branch(x), identity))


UNITS = {"pre": PreActivationUnit, "post": PostActivationUnit}


def unit(spec: NetworkSpec, in_channels: int, inner: int, stride: int = 1) -> nn.Module:
    """One residual unit, `in_channels` to `inner * spec.expansion` channels."""
    return UNITS[spec.order](spec, in_channels, inner, stride)


def shortcut(spec: NetworkSpec, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """What stands on the identity path where shapes change; None where the identity itself does."""
    if in_channels == out_channels and stride == 1:
        return None
    if spec.shortcut == "zero-pad":
        return ZeroPad(in_channels, out_channels, stride)
    projection: OrderedDict[str, nn.Module] = OrderedDict(conv=conv(in_channels, out_channels, 1, stride))
    if spec.order == "post":
        projection["norm"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(projection)


def pooling(spec: NetworkSpec) -> nn.MaxPool2d:
    """3x3 max pooling with stride 2, as the spec reads its padding."""
    padded = spec.pool_padding == "padded"
    return nn.MaxPool2d(3, 2, padding=1 if padded else 0, ceil_mode=not padded)
