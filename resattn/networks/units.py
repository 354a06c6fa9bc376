"""The kinds of residual unit, as data: a new kind is a row of `UNITS`. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

CARDINALITY = 32  # groups of the 3x3 of a ResNeXt unit (xie2017, table 1; the release of AttentionNeXt)


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a unit, without bias, padded to keep the size at stride 1."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds per position of the output."""
        return self.in_channels * self.out_channels * self.kernel**2 // self.groups


@dataclass(frozen=True, slots=True)
class Unit:
    """One kind of residual unit.

    `convolutions`: the convolutions of the branch, in the order in which they run, for input channels, inner width,
    output channels, and the strides of the first 1x1 and of the k x k. `expansion`: output channels over inner width.
    `orders`: allowed places of batch norm and ReLU. `strides_on`: the convolutions that may have the stride.
    `inner_step`: the inner width must be a multiple of this. `is_in_a_row`: False if convolutions run side by side;
    then a function in `resattn.networks.residual.BRANCHES` builds the branch.
    """

    convolutions: Callable[[int, int, int, tuple[int, int]], list[Convolution]]
    expansion: int = 1
    orders: tuple[str, ...] = ("pre", "post")
    strides_on: tuple[str, ...] = ("3x3",)
    shortcuts: tuple[str, ...] = ("projection", "convolution")
    inner_step: int = 1
    is_in_a_row: bool = True


def _basic(channels: int, inner: int, out: int, strides: tuple[int, int]) -> list[Convolution]:
    return [Convolution(channels, inner, 3, strides[1]), Convolution(inner, out, 3)]


def _bottleneck(channels: int, inner: int, out: int, strides: tuple[int, int], groups: int = 1) -> list[Convolution]:
    return [
        Convolution(channels, inner, 1, strides[0]),
        Convolution(inner, inner, 3, strides[1], groups),
        Convolution(inner, out, 1),
    ]


def _resnext(channels: int, inner: int, out: int, strides: tuple[int, int]) -> list[Convolution]:
    return _bottleneck(channels, 2 * inner, out, strides, CARDINALITY)


UNITS: Mapping[str, Unit] = {
    # he2016, figure 5, right.
    "bottleneck": Unit(_bottleneck, expansion=4, strides_on=("3x3", "1x1")),
    # he2016, figure 5, left; shortcuts without parameters (option A) on CIFAR-10, section 4.2.
    "basic": Unit(_basic, shortcuts=("projection", "zero-pad", "convolution")),
    # xie2017, figure 3(c): twice the inner width, in groups.
    "resnext": Unit(_resnext, expansion=4, strides_on=("3x3", "1x1"), inner_step=CARDINALITY // 2),
    # Our reading of wang2017, table 7: it costs nearly as much as the bottleneck, whose convolutions stand for it here.
    "inception": Unit(_bottleneck, expansion=4, orders=("pre",), is_in_a_row=False),
}
