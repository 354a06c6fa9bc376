"""Tiles stitched together are the whole image, and not one pixel of overlap is too much."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.measures.captured import Captured
from resattn.tiling.tiling import Tiling, TilingError, tiling
from tests.authors import UNet, ViT


def conv(i: int, o: int, k: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=more.pop("padding", k // 2 * more.get("dilation", 1)), **more)


def seq(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts)


class Up(nn.Module):
    def __init__(self, **how: object) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.how)  # type: ignore[arg-type]


class Skip(nn.Module):
    """Down and up again to the size of the other branch, which is added."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode, self.down, self.up = mode, conv(4, 4, 3, stride=2), conv(4, 4)
        self.stem = conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.up(F.interpolate(self.down(x), size=x.shape[-2:], mode=self.mode))


class Valid(nn.Module):
    """Without padding: pooled, up-sampled and added to the cropped map (ronneberger2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4, padding=0), conv(4, 4, padding=0), conv(4, 4, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = F.interpolate(self.b(F.max_pool2d(x, 2)), scale_factor=2)
        return self.c(y + x[:, :, 2:-2, 2:-2])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "conv": (lambda: seq(conv(3, 4), conv(4, 2, 5)), (50, 61)),
    "dilated": (lambda: seq(conv(3, 4, dilation=2), conv(4, 2, dilation=4)), (64, 50)),
    "uneven": (lambda: seq(nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), nn.Conv2d(4, 2, (1, 4))), (40, 64)),
    "stride": (lambda: seq(conv(3, 4, stride=2), conv(4, 4), conv(4, 2, stride=2)), (80, 96)),
    "stride, odd size": (lambda: seq(conv(3, 4, stride=2), conv(4, 2, stride=2)), (81, 95)),
    "pooled": (lambda: seq(conv(3, 4), nn.MaxPool2d(3, 2, 1), conv(4, 4), nn.AvgPool2d(2)), (96, 64)),
    "ceil": (lambda: seq(conv(3, 4), nn.MaxPool2d(3, 2, ceil_mode=True), conv(4, 4)), (61, 80)),
    "transposed": (lambda: seq(conv(3, 4, stride=2), nn.ConvTranspose2d(4, 2, 4, 2, 1)), (64, 64)),
    "transposed 3": (lambda: seq(conv(3, 4, 5, stride=3, padding=1), nn.ConvTranspose2d(4, 2, 3, 3)), (60, 63)),
    "super-resolution": (lambda: seq(conv(3, 8), conv(8, 8), nn.PixelShuffle(2), conv(2, 3)), (40, 44)),
    "unshuffled": (lambda: seq(nn.PixelUnshuffle(2), conv(12, 8), nn.PixelShuffle(2)), (48, 64)),
    "nearest": (lambda: seq(conv(3, 4, stride=2), Up(scale_factor=2), conv(4, 2)), (64, 64)),
    "bilinear": (lambda: seq(conv(3, 4, stride=2), Up(scale_factor=2, mode="bilinear"), conv(4, 2)), (64, 80)),
    "bicubic": (lambda: seq(conv(3, 4, stride=2), Up(scale_factor=2, mode="bicubic"), conv(4, 2)), (64, 80)),
    "bilinear 4": (lambda: seq(conv(3, 4, 7, stride=4), Up(scale_factor=4, mode="bilinear"), conv(4, 2)), (96, 96)),
    "skip, nearest": (lambda: Skip("nearest"), (64, 64)),
    "skip, bilinear": (lambda: Skip("bilinear"), (64, 72)),
    "valid": (Valid, (62, 78)),
    "U-Net": (lambda: UNet(4, 2), (128, 144)),
    "U-Net, three levels": (lambda: UNet(2, 3), (256, 256)),
    "U-Net, nearest": (lambda: UNet(4, 2, mode="nearest"), (128, 144)),
    "U-Net, bilinear": (lambda: UNet(4, 2, mode="bilinear"), (128, 160)),
    "reflect": (lambda: seq(nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 5), conv(4, 2)), (40, 50)),
}  # fmt: skip


def case(name: str) -> tuple[nn.Module, Tensor, Tiling]:
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval().double()
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    return model, image, tiling(Captured.of(model, image, name=name))


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_stitched_together_are_the_whole_image(name: str) -> None:
    model, image, found = case(name)
    with torch.no_grad():
        whole = model(image)
        for more in (0, found.axes[0].phase_px + 5):
            plan = found.plan((found.axes[0].least + more, found.axes[1].least + more))
            assert len(plan) > 1
            stitched = plan.run(model, image)
            assert stitched.shape == whole.shape
            assert (stitched - whole).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_halo_is_minimal(name: str) -> None:
    model, image, found = case(name)
    for k, axis in enumerate(found.axes):
        # An aligned stretch of outputs in the middle, with room on both sides for the halo.
        middle = axis.n_out // 2 // axis.grid.period * axis.grid.period
        stop = middle + axis.grid.period
        low, high = axis.grid.seen(middle, stop)
        own = middle * axis.grid.stride
        assert low == own - axis.halo_before_px or axis.halo_before_px == 0
        assert high == stop * axis.grid.stride - 1 + axis.halo_after_px or axis.halo_after_px == 0
        assert 0 < low <= high < axis.size - 1
        for before, after, arrives in ((low, high, False), (low + 1, high, True), (low, high - 1, True)):
            soiled = image.transpose(-1, -2) if k else image
            soiled = soiled.clone()
            soiled[:, :, :before] = torch.nan
            soiled[:, :, after + 1 :] = torch.nan
            with torch.no_grad():
                seen = model(soiled.transpose(-1, -2) if k else soiled)
            seen = seen.transpose(-1, -2) if k else seen
            assert bool(seen[:, :, middle:stop].isnan().any()) is arrives, (before, after)


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = conv(3, 4), conv(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


@pytest.mark.parametrize(("make", "message"), [
    (Squeezed, "aten.mean in the model reads the whole height"),
    (lambda: seq(conv(3, 4), nn.GroupNorm(2, 4)), "aten.native_group_norm in 1 reads the whole height"),
    (lambda: UNet(2, 2, mode="aligned"), "aten.upsample_bilinear2d in the model: up-sampling with aligned corners"),
    (lambda: ViT(16, 1, 2, 16, 64, 4), "its output is not a map of positions"),
    (lambda: seq(conv(3, 4), nn.AdaptiveAvgPool2d(7), Up(size=(64, 64))), "adaptive_avg_pool2d in 1 makes a map of a fixed size"),
    (lambda: seq(conv(3, 4, stride=2), Up(size=(64, 64))), "upsample_nearest2d in 1 makes a map of a fixed size"),
])  # fmt: skip
def test_what_forbids_tiling_is_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(TilingError, match=message):
        tiling(Captured.of(make().eval(), (1, 3, 64, 64)))


def test_a_ratio_that_the_size_of_the_image_changes_is_named() -> None:
    with pytest.raises(TilingError, match="its ratio depends on the size, 33x32 to 65x64 here"):
        tiling(Captured.of(Skip("bilinear").eval(), (1, 3, 65, 64)))


def test_a_tile_that_is_too_small_says_how_large_it_must_be() -> None:
    _, _, found = case("U-Net")
    with pytest.raises(TilingError, match=f"too small: at least {found.axes[0].least} px"):
        found.plan(8)


def test_a_tile_as_large_as_the_image_is_one_tile() -> None:
    _, _, found = case("conv")
    assert len(found.plan(512)) == 1


def test_the_command_prints_halo_and_plan_or_what_forbids_it(capsys: pytest.CaptureFixture[str]) -> None:
    from resattn.cli import main

    assert main(["tile", "resattn.networks.classic:unet", "--input", "1,572,572", "--tile", "412", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    # ronneberger2015, figure 1: 572 in, 388 out; four poolings by two.
    assert (record["axes"]["height"]["outputs"], record["axes"]["height"]["start_multiple_px"]) == (388, 16)
    assert record["axes"]["height"]["length_px"] == "12 + 16k"
    assert len(record["tiles"]) > 1
    assert main(["tile", "resnet50", "--input", "3,224,224"]) == 1
    assert "its output is not a map of positions" in capsys.readouterr().err
