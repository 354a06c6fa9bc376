"""The classic networks, each written from its published definition.

`resattn audit resattn.networks.classic:vgg16 --input 3,224,224`. Each function makes its network on torch's current
device, with torch's own initialisation from a fixed seed; no count depends on the weights.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from resattn.networks import catalog
from resattn.networks.network import GlobalMean, build
from resattn.networks.residual import Concat, sequence
from resattn.networks.spec import NetworkSpec

CLASSES = 1000  # ImageNet
Make = Callable[[], nn.Module]


def _seeded(make: Make) -> Make:
    """The same weights at every call; torch's global random state does not change."""

    @functools.wraps(make)
    def made() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return make()

    return made


# -- shared parts


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution without bias, batch norm and an activation; padding keeps the size by default."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    kept = (sides[0] // 2, sides[1] // 2) if padding is None else padding
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, out_channels, sides, stride, kept, groups=groups, bias=False),
        norm=nn.BatchNorm2d(out_channels, eps=eps),
    )
    if activation is not None:
        parts["act"] = activation()
    return nn.Sequential(parts)


def norm_conv(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """Batch norm, ReLU, then a convolution without bias."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(in_channels), nn.ReLU(), conv]


class Residual(nn.Module):
    """The branch plus the shortcut (by default the input itself), then an optional activation."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.shortcut, self.act = branch, shortcut, act

    def forward(self, x: Tensor) -> Tensor:
        total = self.branch(x) + (x if self.shortcut is None else self.shortcut(x))
        return total if self.act is None else self.act(total)


class SqueezeExcitation(nn.Module):
    """Each channel times a gate in (0, 1), computed from the means of all channels. Source: hu2018, figure 2."""

    def __init__(self, channels: int, squeezed: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.squeeze = GlobalMean()
        self.excite = nn.Sequential(
            nn.Linear(channels, squeezed), activation(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x))[:, :, None, None]


class Dense(nn.Module):
    """The input and the output of the branch, concatenated along the channels. Source: huang2017, equation 2."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], dim=1)


def classifier(channels: int, dropout: float = 0.0) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(pool=GlobalMean())
    if dropout:
        parts["dropout"] = nn.Dropout(dropout)
    parts["fc"] = nn.Linear(channels, CLASSES)
    return nn.Sequential(parts)


# -- VGG


def _vgg(*convolutions: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for n, width in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        for _ in range(n):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head: list[nn.Module] = [nn.Flatten()]
    for inputs in (channels * 7 * 7, 4096):
        head += [nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout()]
    head.append(nn.Linear(4096, CLASSES))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=nn.Sequential(*head)))


@_seeded
def vgg16() -> nn.Module:
    """VGG-16, 3x224x224 alone. Source: simonyan2015, table 1, configuration D."""
    return _vgg(2, 2, 3, 3, 3)


@_seeded
def vgg19() -> nn.Module:
    """VGG-19, 3x224x224 alone. Source: simonyan2015, table 1, configuration E."""
    return _vgg(2, 2, 4, 4, 4)


# -- ResNet and its descendants


def _basic_resnet(depth: int, *units: int) -> NetworkSpec:
    like = catalog.named("resnet50")
    return replace(like, name=f"resnet{depth}", claimed_depth=depth, unit="basic", units=units)


def _resnet(spec: NetworkSpec) -> nn.Module:
    return build(spec, device=torch.get_default_device())


def resnet18() -> nn.Module:
    """ResNet-18 with projections where shapes change (option B). Source: he2016, table 1."""
    return _resnet(_basic_resnet(18, 2, 2, 2, 2))


def resnet34() -> nn.Module:
    """ResNet-34 with projections where shapes change (option B). Source: he2016, table 1."""
    return _resnet(_basic_resnet(34, 3, 4, 6, 3))


def resnet50() -> nn.Module:
    """ResNet-50 as the catalogue reads it: stride on the 3x3. Source: he2016, table 1."""
    return _resnet(catalog.named("resnet50"))


def resnet101() -> nn.Module:
    """ResNet-101 as the catalogue reads it: stride on the 3x3. Source: he2016, table 1."""
    return _resnet(catalog.named("resnet101"))


def resnet152() -> nn.Module:
    """ResNet-152 as the catalogue reads it: stride on the 3x3. Source: he2016, table 1."""
    return _resnet(catalog.named("resnet152"))


def _bottlenecks(*, base: int = 64, groups: int = 1, reduction: int | None = None) -> nn.Module:
    """ResNet-50 with a different inner width, groups in the 3x3, or a gate before every sum; stride on the 3x3."""
    stem = nn.Sequential(OrderedDict(conv=conv_norm(3, 64, 7, 2, padding=3), pool=nn.MaxPool2d(3, 2, padding=1)))
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    channels = 64
    for k, n in enumerate((3, 4, 6, 3)):
        inner, out = base * 2**k, 256 * 2**k
        units = []
        for i in range(n):
            stride = 2 if k and not i else 1
            branch: OrderedDict[str, nn.Module] = OrderedDict(
                conv1=conv_norm(channels, inner, 1),
                conv2=conv_norm(inner, inner, 3, stride, groups=groups),
                conv3=conv_norm(inner, out, 1, activation=None),
            )
            if reduction is not None:
                branch["gate"] = SqueezeExcitation(out, out // reduction)
            shortcut = None if channels == out else conv_norm(channels, out, 1, stride, activation=None)
            units.append(Residual(nn.Sequential(branch), shortcut, nn.ReLU()))
            channels = out
        parts[f"stage{k + 1}"] = sequence("unit", units)
    parts["head"] = classifier(channels)
    return nn.Sequential(parts)


@_seeded
def se_resnet50() -> nn.Module:
    """SE-ResNet-50, reduction 16, biases in the gate. Source: hu2018, table 1; stride as in `resnet50`."""
    return _bottlenecks(reduction=16)


@_seeded
def resnext50_32x4d() -> nn.Module:
    """ResNeXt-50 (32x4d) in its grouped form. Source: xie2017, table 1, right, and figure 3(c)."""
    return _bottlenecks(base=128, groups=32)


@_seeded
def wide_resnet50_2() -> nn.Module:
    """WRN-50-2-bottleneck: twice the inner widths of ResNet-50. Source: wrn2016, table 8."""
    return _bottlenecks(base=128)


# -- DenseNet


@_seeded
def densenet121() -> nn.Module:
    """DenseNet-121: growth 32, 1x1 bottlenecks of 128, compression 0.5. Source: huang2017, table 1."""
    growth, channels = 32, 64
    stem = [*conv_norm(3, channels, 7, 2), nn.MaxPool2d(3, 2, padding=1)]
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*stem))
    for k, n in enumerate((6, 12, 24, 16), start=1):
        if k > 1:
            transition = [*norm_conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            parts[f"transition{k - 1}"] = nn.Sequential(*transition)
            channels //= 2
        layers = []
        for _ in range(n):
            layer = norm_conv(channels, 4 * growth, 1) + norm_conv(4 * growth, growth, 3)
            layers.append(Dense(nn.Sequential(*layer)))
            channels += growth
        parts[f"block{k}"] = sequence("layer", layers)
    parts["last"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
    parts["head"] = classifier(channels)
    return nn.Sequential(parts)


# -- inverted bottlenecks

Row = tuple[int, int, int, int, int]  # expansion, kernel, channels, units, stride of the first


def _inverted(
    in_channels: int, out: int, row: Row, stride: int, activation: Callable[[], nn.Module], squeezes: bool
) -> nn.Module:
    """Expansion, depthwise convolution, linear projection. Source: sandler2018, table 1."""
    expansion, kernel = row[:2]
    inner = expansion * in_channels
    branch: OrderedDict[str, nn.Module] = OrderedDict()
    if expansion > 1:
        branch["expand"] = conv_norm(in_channels, inner, 1, activation=activation)
    branch["depthwise"] = conv_norm(inner, inner, kernel, stride, groups=inner, activation=activation)
    if squeezes:
        # A quarter of the unit's input channels, not of its inner channels (tan2019's release).
        branch["gate"] = SqueezeExcitation(inner, in_channels // 4, activation)
    branch["project"] = conv_norm(inner, out, 1, activation=None)
    unit = nn.Sequential(branch)
    return Residual(unit) if stride == 1 and in_channels == out else unit


def _mobile(rows: Iterable[Row], activation: Callable[[], nn.Module], *, squeezes: bool) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_norm(3, 32, 3, 2, activation=activation))
    channels = 32
    for k, row in enumerate(rows, start=1):
        _, _, out, n, stride = row
        units = []
        for i in range(n):
            units.append(_inverted(channels, out, row, 1 if i else stride, activation, squeezes))
            channels = out
        parts[f"stage{k}"] = sequence("unit", units)
    parts["last"] = conv_norm(channels, 1280, 1, activation=activation)
    parts["head"] = classifier(1280, dropout=0.2)
    return nn.Sequential(parts)


@_seeded
def mobilenet_v2() -> nn.Module:
    """MobileNetV2, width 1. Source: sandler2018, table 2."""
    rows: list[Row] = [
        (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 3, 32, 3, 2), (6, 3, 64, 4, 2), (6, 3, 96, 3, 1),
        (6, 3, 160, 3, 2), (6, 3, 320, 1, 1),
    ]  # fmt: skip
    return _mobile(rows, nn.ReLU6, squeezes=False)


@_seeded
def efficientnet_b0() -> nn.Module:
    """EfficientNet-B0. Source: tan2019, table 1."""
    rows: list[Row] = [
        (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2), (6, 3, 320, 1, 1),
    ]  # fmt: skip
    return _mobile(rows, nn.SiLU, squeezes=True)


# -- Inception-v3


def _tower(in_channels: int, *layers: tuple[int, int | tuple[int, int]], stride: int = 1) -> nn.Sequential:
    """Convolutions of (channels, kernel), in order; the last has the stride and, if it is above 1, no padding."""
    convs = []
    for i, (out, kernel) in enumerate(layers, start=1):
        strided = stride > 1 and i == len(layers)
        convs.append(
            conv_norm(in_channels, out, kernel, stride if strided else 1, padding=0 if strided else None, eps=1e-3)
        )
        in_channels = out
    return sequence("conv", convs)


def _pooled(in_channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(pool=nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), conv=_tower(in_channels, (out, 1)))
    )


def _inception_35(channels: int, pooled: int) -> nn.Module:
    """Source: szegedy2016, figure 5."""
    return Concat(
        one=_tower(channels, (64, 1)),
        five=_tower(channels, (48, 1), (64, 5)),
        three=_tower(channels, (64, 1), (96, 3), (96, 3)),
        pool=_pooled(channels, pooled),
    )


def _inception_17(channels: int, inner: int) -> nn.Module:
    """Source: szegedy2016, figure 6 with n = 7."""
    row, column = (1, 7), (7, 1)
    return Concat(
        one=_tower(channels, (192, 1)),
        once=_tower(channels, (inner, 1), (inner, row), (192, column)),
        twice=_tower(channels, (inner, 1), (inner, column), (inner, row), (inner, column), (192, row)),
        pool=_pooled(channels, 192),
    )


def _inception_8(channels: int) -> nn.Module:
    """Source: szegedy2016, figure 7."""

    def split() -> nn.Module:
        return Concat(row=_tower(384, (384, (1, 3))), column=_tower(384, (384, (3, 1))))

    return Concat(
        one=_tower(channels, (320, 1)),
        three=nn.Sequential(_tower(channels, (384, 1)), split()),
        threes=nn.Sequential(_tower(channels, (448, 1), (384, 3)), split()),
        pool=_pooled(channels, 192),
    )


class InceptionV3(nn.Module):
    """In (N, 3, H, W), out (N, 1000); in training also the auxiliary classifier's output, (N, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _tower(3, (32, 3), stride=2),
            conv_norm(32, 32, 3, padding=0, eps=1e-3),
            _tower(32, (64, 3)),
            nn.MaxPool2d(3, 2),
            _tower(64, (80, 1)),
            conv_norm(80, 192, 3, padding=0, eps=1e-3),
            nn.MaxPool2d(3, 2),
        )
        self.grid35 = sequence("mixed", (_inception_35(c, p) for c, p in ((192, 32), (256, 64), (288, 64))))
        self.reduce17 = Concat(
            three=_tower(288, (384, 3), stride=2),
            threes=_tower(288, (64, 1), (96, 3), (96, 3), stride=2),
            pool=nn.MaxPool2d(3, 2),
        )
        self.grid17 = sequence("mixed", (_inception_17(768, inner) for inner in (128, 160, 160, 192)))
        self.auxiliary = nn.Sequential(
            nn.AvgPool2d(5, 3), _tower(768, (128, 1)), conv_norm(128, 768, 5, padding=0, eps=1e-3), classifier(768)
        )
        self.reduce8 = Concat(
            three=_tower(768, (192, 1), (320, 3), stride=2),
            seven=_tower(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2),
            pool=nn.MaxPool2d(3, 2),
        )
        self.grid8 = sequence("mixed", (_inception_8(channels) for channels in (1280, 2048)))
        self.head = classifier(2048, dropout=0.2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.grid17(self.reduce17(self.grid35(self.stem(x))))
        scores = self.head(self.grid8(self.reduce8(x)))
        return (scores, self.auxiliary(x)) if self.training else scores


@_seeded
def inception_v3() -> nn.Module:
    """Inception-v3 with its auxiliary classifier, which does not run at inference.

    Source: szegedy2016, table 1 and figures 5 to 7; the widths of the branches are those of its release (tf-slim,
    inception_v3.py), where no table gives them.
    """
    return InceptionV3()


# -- U-Net


class Level(nn.Module):
    """Two unpadded 3x3 convolutions; except in the lowest level, then all deeper levels and two more on the way up.

    In (N, in_channels, H, W), out (N, channels, H', W') with H' < H: the skip is cropped to the size of the map from
    below.
    """

    def __init__(self, in_channels: int, channels: int, deeper: int) -> None:
        super().__init__()
        self.down = self._convolutions(in_channels, channels)
        self.is_bottom = deeper == 0
        if deeper:
            self.pool = nn.MaxPool2d(2)
            self.inner = Level(channels, 2 * channels, deeper - 1)
            self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
            self.merge = self._convolutions(2 * channels, channels)

    @staticmethod
    def _convolutions(in_channels: int, channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        if self.is_bottom:
            return x
        below = self.up(self.inner(self.pool(x)))
        height, width = below.shape[2:]
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return self.merge(torch.cat([x[:, :, top : top + height, left : left + width], below], dim=1))


def unet_of(width: int) -> nn.Module:
    """The U-Net with a given width of its first level."""
    return nn.Sequential(OrderedDict(levels=Level(1, width, 4), head=nn.Conv2d(width, 2, 1)))


@_seeded
def unet() -> nn.Module:
    """The U-Net of 2015: one grey channel, two classes, unpadded convolutions (572x572 in, 388x388 out).

    Every pooling gets an even map for sides n = 16 k + 124, such as 572.
    Source: ronneberger2015, figure 1.
    """
    return unet_of(64)


# -- all of them


@dataclass(frozen=True)
class Classic:
    """A network of the zoo, its nominal depth, the source of that depth, and the input for which it was published."""

    make: Make
    named_depth: int | None
    named_by: str | None = "name"
    input_shape: tuple[int, int, int] = (3, 224, 224)

    @property
    def name(self) -> str:
        return self.make.__name__


ZOO: dict[str, Classic] = {
    classic.name: classic
    for classic in (
        Classic(vgg16, 16),
        Classic(vgg19, 19),
        Classic(resnet18, 18),
        Classic(resnet34, 34),
        Classic(resnet50, 50),
        Classic(resnet101, 101),
        Classic(resnet152, 152),
        Classic(se_resnet50, 50),
        Classic(resnext50_32x4d, 50),
        Classic(wide_resnet50_2, 50),
        Classic(densenet121, 121),
        Classic(mobilenet_v2, None, None),
        Classic(efficientnet_b0, None, None),
        Classic(inception_v3, 42, "szegedy2016, section 6", (3, 299, 299)),
        Classic(unet, 23, "ronneberger2015, section 2", (1, 572, 572)),
    )
}
