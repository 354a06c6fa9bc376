"""Networks outside the catalog, from torch alone: dilated, dense, U-Net, inverted residuals, transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _unit(n_in: int, n_out: int, kernel: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


def dilated() -> nn.Module:
    """Five units, each with twice the dilation of the last."""
    return nn.Sequential(_unit(3, 64), *(_unit(64, 64, dilation=2**k) for _ in range(5) for k in range(6)))


class _DenseLayer(nn.Module):
    def __init__(self, n_in: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_unit(n_in, 4 * growth, 1), _unit(4 * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def dense() -> nn.Module:
    """The layout of DenseNet-121."""
    parts: list[nn.Module] = [_unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    n = 64
    for k, layers in enumerate((6, 12, 24, 16)):
        parts += [_DenseLayer(n + 32 * i, 32) for i in range(layers)]
        n += 32 * layers
        if k < 3:
            parts += [_unit(n, n // 2, 1), nn.AvgPool2d(2)]
            n //= 2
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 1000))


class _UNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(_unit(a, b), _unit(b, b)) for a, b in [(3, widths[0]), *pairs])
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(nn.Sequential(_unit(2 * a, a), _unit(a, a)) for a, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for down in self.down:
            x = down(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        for up, merge, skip in zip(self.up, self.merge, maps[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)  # type: ignore[no-any-return]


class _Inverted(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        wide = 6 * n_in
        self.expand, self.depthwise = _unit(n_in, wide, 1), _unit(wide, wide, stride=stride, groups=wide)
        self.gate = nn.Sequential(nn.Conv2d(wide, n_in // 4, 1), nn.SiLU(), nn.Conv2d(n_in // 4, wide, 1), nn.Sigmoid())
        self.project, self.adds = nn.Conv2d(wide, n_out, 1), n_in == n_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.gate(y.mean((2, 3), keepdim=True)))
        return x + y if self.adds else y  # type: ignore[no-any-return]


def inverted() -> nn.Module:
    """Inverted residuals with squeeze and excitation, as EfficientNet's."""
    widths = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192)
    strides = (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1)
    parts = [_Inverted(a, b, s) for a, b, s in zip(widths, widths[1:], strides, strict=False)]
    return nn.Sequential(_unit(3, 16, 3, 2), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 1000))


class _Transformer(nn.Module):
    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        layer = nn.TransformerEncoderLayer(width, 12, 4 * width, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layers(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(tokens.mean(1))  # type: ignore[no-any-return]


FOREIGN: Mapping[str, Callable[[], nn.Module]] = {
    "dilated": dilated,
    "dense": dense,
    "unet": _UNet,
    "inverted residuals": inverted,
    "transformer": _Transformer,
}
SHAPE = (3, 224, 224)
