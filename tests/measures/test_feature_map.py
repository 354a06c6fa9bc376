"""Which map a receptive field is of, on which input it is measured, and that it holds wherever the image's axis lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import settings as limited
from hypothesis import strategies as st
from nets import Apply, conv
from oracles import gradient_support, positive, single_paths
from torch import Tensor, nn

from resattn.graph.graph import Indices
from resattn.measures.audit import FIELDS, Audit, audit
from resattn.measures.captured import capture
from resattn.measures.receptive import NoReceptiveFieldError, extents
from resattn.measures.single_paths import path_fields
from resattn.networks import catalog
from resattn.networks.network import build

KINDS = ("", "_trunk", "_narrowest", "_widest")


def sides(found: Audit) -> list[Any]:
    return [found.quantities[f"receptive_field{kind}_px"] for kind in KINDS]


def last(c: int = 8) -> nn.Module:
    return nn.Conv2d(c, c, 3, padding=1)


# -- which map


class Head(nn.Module):
    """A convolution, and what is made of its map."""

    def __init__(self, head: Callable[[Tensor], Tensor], *more: nn.Module) -> None:
        super().__init__()
        self.conv, self.head, self.more = nn.Conv2d(3, 8, 3, padding=1), head, nn.ModuleList(more)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x), *self.more)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


# One 3x3 convolution: a unit of its map sees 3 pixels, whatever is done with each position, or after its pooling.
ONE_CONVOLUTION = {
    "channels last": Head(lambda x: x.permute(0, 2, 3, 1).relu()),
    "tokens": Head(lambda x: x.flatten(2).transpose(1, 2).relu()),
    "tokens first": Head(lambda x: x.flatten(2).permute(2, 0, 1).relu()),
    "a norm of the pooled vector, channels last": Head(
        lambda x, norm: norm(pooled(x).permute(0, 2, 3, 1)).flatten(1), nn.LayerNorm(8)
    ),
    "a norm of channels last": Head(lambda x, norm: norm(x.permute(0, 2, 3, 1)).mean((1, 2)), nn.LayerNorm(8)),
    "a matrix on channels last": Head(
        lambda x, fc: fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu(), nn.Linear(8, 8)
    ),
    "a matrix on tokens": Head(lambda x, fc: fc(x.flatten(2).transpose(1, 2)).mean(1), nn.Linear(8, 8)),
    "heads of one token": Head(lambda x, fc: fc(pooled(x).flatten(1)).view(1, 2, 2, 2).relu(), nn.Linear(8, 8)),
    "positions of a fixed grid are none": Head(
        lambda x, fc: fc(F.adaptive_avg_pool2d(x, 4).relu().flatten(1)), nn.Linear(128, 4)
    ),
}


def fourier(x: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x).mul(2), s=x.shape[-2:])


# Each unit of a map behind a Fourier transform sees all of the image, along the axes that are transformed; beside it, a
# path past the transform sees less.
BEHIND_A_TRANSFORM = {
    "of the input": (Head(lambda x, conv: conv(fourier(x)), last()), 16, 16),
    "of complex values": (Apply(lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real), 16, 16),
    "behind a stem": (nn.Sequential(nn.Conv2d(3, 8, 4, 4), Apply(fourier), last()), 16, 16),
    "past it too": (nn.Sequential(nn.Conv2d(3, 8, 4, 4), Apply(lambda x: x + fourier(x))), 16, 4),
}


@pytest.mark.parametrize("name", BEHIND_A_TRANSFORM)
def test_a_transform_of_the_image_sees_all_of_it(name: str) -> None:
    model, side, narrowest = BEHIND_A_TRANSFORM[name]
    found = audit(model, (3, 16, 16))
    assert sides(found) == [side, side, narrowest, side]
    assert any("whole input" in note for note in found.notes)


def test_a_transform_along_rows_sees_whole_rows() -> None:
    found = audit(nn.Sequential(Apply(lambda x: torch.fft.fft(x, dim=-1).real), last(3)), (3, 16, 24)).quantities
    assert (found["receptive_field_h_px"], found["receptive_field_w_px"]) == (3, 24)


@pytest.mark.parametrize("name", ONE_CONVOLUTION)
def test_the_last_map_is_the_last_whose_positions_lie_along_the_image(name: str) -> None:
    for shape in ((3, 32, 32), (3, 16, 24)):
        found = audit(ONE_CONVOLUTION[name], shape)
        assert sides(found) == [3, 3, 3, 3]
        assert set(found.statuses.values()) == {"complete"}
        assert found.notes == ()


def stages(*kernels: int) -> nn.Sequential:
    """Convolutions of these kernels, each followed by a pooling that halves the map."""
    made: list[nn.Module] = []
    for k, kernel in enumerate(kernels):
        made += [nn.Conv2d(3 if not k else 4, 4, kernel, padding=kernel // 2), nn.MaxPool2d(2)]
    return nn.Sequential(*made)


# VGG-16 (araujo2019, table 1: 212), and by equation 2 of that paper 1 + sum of (kernel - 1) * jump.
VGG16 = (3, 3, 0, 3, 3, 0, 3, 3, 3, 0, 3, 3, 3, 0, 3, 3, 3, 0)


def vgg16(*head: nn.Module) -> nn.Module:
    made: list[nn.Module] = []
    for kernel in VGG16:
        made += [nn.Conv2d(4 if made else 3, 4, kernel, padding=1)] if kernel else [nn.MaxPool2d(2)]
    return nn.Sequential(*made, *head)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_the_map_is_chosen_on_an_input_that_is_large_enough(side: int) -> None:
    pooled = vgg16(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert sides(audit(pooled, (3, side, side))) == [212] * 4
    flat = vgg16(nn.Flatten(), nn.Linear(4 * (side // 32) ** 2, 2))
    assert sides(audit(flat, (3, side, side))) == [212] * 4


@pytest.mark.parametrize("name", ["attention56", "resnet50", "attentionnext56", "port:imgclsmob:attention56"])
def test_the_size_of_the_input_changes_no_receptive_field(name: str) -> None:
    found = {side: sides(audit(name, (3, side, side))) for side in (32, 96, 224)}
    assert found[32] == found[96] == found[224]


def test_resnet50_sees_427_pixels_at_32() -> None:
    # 427 is what two independent derivations of ResNet-50 v1.5 give: stem 11, then (3 - 1) * jump of each 3x3.
    assert audit("resnet50", (3, 32, 32)).quantities["receptive_field_px"] == 427


@pytest.mark.parametrize("size", [32, 64])
def test_a_mean_of_the_whole_map_is_a_global_pooling_whatever_its_window(size: int) -> None:
    # Two 3x3 of stride 2 see 7; a mean over 8 positions would see 7 + 7 * 4 more, were it no global pooling.
    down = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)]
    head = [nn.Flatten(), nn.Linear(8, 4)]
    assert sides(audit(nn.Sequential(*down, nn.AvgPool2d(size // 4), *head), (3, size, size))) == [7] * 4
    # A mean that halves maps is a window like any other, also where the map has two positions: DenseNet at 32.
    halved = [nn.AvgPool2d(2), last(), nn.AvgPool2d(2), last(), nn.AdaptiveAvgPool2d(1)]
    expected = 7 + 4 + 2 * 8 + 8 + 2 * 16
    for side in (16, 64):
        assert sides(audit(nn.Sequential(*down, *halved, *head), (3, side, side))) == [expected] * 4


class ConvNeXt(nn.Module):
    """ConvNeXt-T with few channels: 3, 3, 9, 3 blocks of a 7x7 and a residual of matrices on channels last."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Conv2d(3, width, 4, 4)])
        for k, n in enumerate((3, 3, 9, 3)):
            if k:
                self.steps.append(nn.Conv2d(width, 2 * width, 2, 2))
                width *= 2
            self.steps.extend(
                nn.ModuleList([
                    nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width),
                    nn.Linear(width, 4 * width), nn.Linear(4 * width, width),
                ]) for _ in range(n)
            )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            if isinstance(step, nn.Conv2d):
                x = step(x)
            else:
                window, norm, up, down = step
                x = x + down(up(norm(window(x).permute(0, 2, 3, 1))).relu()).permute(0, 3, 1, 2)
        pooled = x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1)
        return self.head(self.norm(pooled).flatten(1))


@pytest.mark.parametrize("side", [32, 224])
def test_convnext_sees_1688_pixels(side: int) -> None:
    # The stem's 4, then 6 * jump of each 7x7 and one jump of each 2x2 of stride 2 (araujo2019, equation 2).
    expected = 4 + 3 * 6 * 4 + 4 + 3 * 6 * 8 + 8 + 9 * 6 * 16 + 16 + 3 * 6 * 32
    # Along the skips: the stem and the three 2x2, one patch of 32.
    assert sides(audit(ConvNeXt(), (3, side, side))) == [expected, expected, 32, expected]


class Tokens(nn.Module):
    """A small vision transformer: patches of 8, a learned class token, two blocks; at its own size or at any."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.embed, self.start = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, (size // 8) ** 2 + 1, 8)) if size else 0
        self.q, self.k, self.v = (nn.ModuleList(nn.Linear(8, 8) for _ in range(2)) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        t = self.embed(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.start.expand(len(t), -1, -1), t], 1) + self.positions
        for q, k, v in zip(self.q, self.k, self.v, strict=True):
            qs, ks, vs = (f(t).view(len(t), -1, 2, 4).transpose(1, 2) for f in (q, k, v))
            heads = (qs @ ks.transpose(2, 3)).softmax(-1) @ vs
            t = t + heads.transpose(1, 2).flatten(2)
        return self.head(t[:, 0])


@pytest.mark.parametrize("size", [None, 64])
def test_a_transformer_sees_everything_along_every_path_to_its_class_token(size: int | None) -> None:
    found = audit(Tokens(size), (3, 64, 64))
    # The class token sees nothing along the skips, and everything along any path through attention.
    assert sides(found) == [64, 64, 64, 64]
    assert set(found.statuses.values()) == {"complete"}


def test_positions_that_data_chooses_are_positions_that_see_everything() -> None:
    class Warped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.flow = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return F.grid_sample(x, self.flow(x).permute(0, 2, 3, 1).tanh(), align_corners=False)

    found = audit(Warped(), (3, 32, 32))
    assert sides(found) == [32, 32, None, None]
    assert found.status == "complete"


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.sampled_from([32, 64]))
@limited(max_examples=15)
def test_stages_add_up_as_the_formula_says_at_any_size(halves: list[int], side: int) -> None:
    kernels = [2 * k + 1 for k in halves]
    expected = 1 + sum((kernel - 1) * 2**k + 2**k for k, kernel in enumerate(kernels))
    assert sides(audit(stages(*kernels), (3, side, side))) == [expected] * 4


# -- where the axis lies


def own_axis(model: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    model = positive(model)
    graph = capture(model, shape)
    target = graph.outputs[0]
    extent = extents(graph, axis, [target])[target]
    lo, hi = gradient_support(model, shape, axis=axis, dims=extent.dims)
    assert (extent.lo == lo).all()
    assert (extent.hi == hi).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["channels last", "tokens", "tokens first"])
def test_it_is_where_the_gradient_says(name: str, axis: int) -> None:
    own_axis(ONE_CONVOLUTION[name], (1, 3, 7, 5), axis)


class Signal(nn.Module):
    """Dilated convolutions along one dimension, in two halves (frgfm/torch-scan, issue 27)."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x, channels: int = 2) -> None:
        super().__init__()
        self.before = before
        self.layers = nn.Sequential(
            *(nn.Conv1d(channels if not k else 2, 2, 3, dilation=d) for k, d in enumerate((1, 2, 3, 1, 2, 3)))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.before(x))


# 1 + 2 * 2 * (1 + 2 + 3).
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Signal(), (2, 100)),
        (Signal(), (2, 27)),
        (Signal(lambda x: x.transpose(1, 2)), (100, 2)),
        (Signal(lambda x: x.unsqueeze(1), 1), (100,)),
        (Signal(lambda x: x.flatten(1, 2)), (1, 2, 100)),
    ],
    ids=["channels first", "short", "channels last", "samples alone", "two dimensions of channels"],
)
def test_a_signal_has_a_receptive_field(model: nn.Module, shape: tuple[int, ...]) -> None:
    found = audit(model, shape)
    assert sides(found) == [25] * 4
    assert found.statuses["receptive_field_px"] == "complete"
    (field,) = audit(model, shape, at=["layers.2"]).fields
    assert field["receptive_field_px"] == [13]


def test_a_signal_sees_what_the_gradient_says() -> None:
    own_axis(Signal(), (1, 2, 40), 0)


def test_an_image_with_channels_last_is_measured_along_height_and_width() -> None:
    model = nn.Sequential(Apply(lambda x: x.permute(0, 3, 1, 2)), nn.Conv2d(3, 4, (3, 5)))
    found = audit(model, (24, 32, 3)).quantities
    assert (found["receptive_field_h_px"], found["receptive_field_w_px"]) == (3, 5)


def test_the_frames_of_a_video_are_no_axis_where_each_is_an_image() -> None:
    model = nn.Sequential(Apply(lambda x: x.flatten(0, 1)), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 5))
    assert sides(audit(model, (4, 3, 32, 32))) == [7] * 4


@pytest.mark.parametrize("shape", [(6, 8), (8,), Indices((6,))])
def test_tokens_and_vectors_have_none(shape: Sequence[int]) -> None:
    model = nn.Sequential(nn.Embedding(10, 8) if isinstance(shape, Indices) else nn.Identity(), nn.Linear(8, 4))
    found = audit(model, shape)
    assert {found.statuses[f"receptive_field{kind}_px"] for kind in KINDS} == {"unavailable"}
    assert found.status == "complete"
    assert found.notes == ("receptive field: the input is no image",)


# -- along single paths: windows, patches, tokens


def enumerated(model: nn.Module, shape: tuple[int, ...], axis: int) -> list[int] | None:
    """Narrowest and widest side from every path by itself; None where a path is not to be told."""
    graph = capture(model, shape)
    target = graph.outputs[0]
    union = extents(graph, axis, [target])[target]
    found = []
    for path in single_paths(graph, target):
        seen = extents(path, axis, [target]).get(target)
        if seen is None or seen.is_bound or set(seen.dims) - set(union.dims):
            return None
        found.append(np.broadcast_to(seen.laid_over(union.dims).sides, union.sides.shape)[~union.clipped])
    return [int(np.min(found, axis=0).max()), int(np.max(found, axis=0).max())]


def split(x: Tensor, w: int) -> Tensor:
    """(N, C, H, W) in windows: (windows, w * w, C)."""
    n, c, height, width = x.shape
    cut = x.view(n, c, height // w, w, width // w, w).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(-1, w * w, c)


def joined(t: Tensor, like: Tensor, w: int) -> Tensor:
    n, c, height, width = like.shape
    return t.view(n, height // w, width // w, w, w, c).permute(0, 5, 1, 3, 2, 4).reshape(like.shape)


class Windows(nn.Module):
    """A matrix on each position of a window, or attention inside it, and the window back in its place."""

    def __init__(self, inside: Callable[[Tensor], Tensor], shift: int = 0, has_skip: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.fc = last(4), last(4), nn.Linear(4, 4)
        self.inside, self.shift, self.has_skip = inside, shift, has_skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = x.roll((-self.shift, -self.shift), (2, 3)) if self.shift else x
        y = joined(self.inside(self.fc(split(y, 4))), y, 4)
        y = y.roll((self.shift, self.shift), (2, 3)) if self.shift else y
        return self.b(x + y if self.has_skip else y)


class Patches(nn.Module):
    """Patches of 4 x 4 by a view, a matrix on each, and the map of patches again; or pixels again."""

    def __init__(self, is_back: bool) -> None:
        super().__init__()
        self.a, self.b, self.fc, self.is_back = last(2), last(32), nn.Linear(32, 32), is_back
        self.c = last(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, height, width = x.shape
        t = x.view(n, c, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 16 * c)
        t = self.fc(t)
        if not self.is_back:
            return self.b(t.transpose(1, 2).reshape(n, -1, height // 4, width // 4))
        t = t.view(n, height // 4, width // 4, c, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(n, c, height, width)
        return self.c(x + t)


class Grid(nn.Module):
    """Positions that are apart, in one group (grid attention), as MaxViT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = last(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        n, c, height, width = x.shape
        t = x.view(n, c, 4, height // 4, 4, width // 4).permute(0, 3, 5, 2, 4, 1).reshape(-1, 16, c)
        t = self.fc(t).view(n, height // 4, width // 4, 4, 4, c).permute(0, 5, 3, 1, 4, 2).reshape(x.shape)
        return x + t


def attention(t: Tensor) -> Tensor:
    return F.softmax(t @ t.transpose(1, 2), -1) @ t


SINGLE = {
    "windows": Windows(lambda t: t.relu()),
    "windows without a skip": Windows(lambda t: t.relu(), has_skip=False),
    "windows that are mixed": Windows(lambda t: t + t.mean(1, keepdim=True)),
    "attention in windows": Windows(attention),
    "shifted windows": Windows(lambda t: t.relu(), shift=2),
    "patches": Patches(False),
    "patches and back": Patches(True),
    "a grid": Grid(),
    "tokens": nn.Sequential(
        last(4), Apply(lambda x: x.flatten(2).transpose(1, 2)), nn.Linear(4, 4),
        Apply(lambda t: t.transpose(1, 2).reshape(1, 4, 16, 16)), last(4),
    ),
    "a flip": nn.Sequential(last(4), Apply(lambda x: x.flip(2)), last(4)),
    "patches by pixel unshuffle": nn.Sequential(
        last(2), nn.PixelUnshuffle(2), last(8), nn.PixelShuffle(2), last(2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", SINGLE)
def test_single_paths_through_views_are_those_of_an_enumeration(name: str, axis: int) -> None:
    model = SINGLE[name]
    side = 32 if name == "patches" else 16
    shape = (1, next(p for p in model.parameters() if p.dim() == 4).shape[1], side, side)
    expected = enumerated(model, shape, axis)
    graph = capture(model, shape)
    found = path_fields(graph, graph.outputs[0])
    assert expected is not None
    assert found is not None
    assert [found.narrowest.sides[axis], found.widest.sides[axis]] == expected


@pytest.mark.parametrize("name", ["windows", "attention in windows", "patches", "patches and back"])
def test_windows_and_patches_of_an_image_have_every_field(name: str) -> None:
    model = SINGLE[name]
    channels = next(p for p in model.parameters() if p.dim() == 4).shape[1]
    found = audit(model, (channels, 32, 32))
    assert set(found.statuses.values()) == {"complete"}
    # 3x3, then patches: 4 and a border; then 3x3 over patches: 3 * 4 and the border.
    expected = {"windows": [5, 5, 5, 5], "attention in windows": [10, 10, 5, 10], "patches": [14] * 4}
    assert sides(found) == expected.get(name, [10, 10, 5, 10])


class Dilated(nn.Module):
    """x + l(x) with dilations that double, as WaveNet's: order is lost at every border."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=2**k, dilation=2**k) for k in range(n))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_a_stack_of_dilated_layers_has_every_field() -> None:
    # 1 + 2 * (1 + 2 + 4 + ... + 2048); the skips see one pixel.
    assert sides(audit(Dilated(12), (1, 64, 64))) == [8191, 8191, 1, 8191]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=5))
@limited(max_examples=30, deadline=None)
def test_dilated_stacks_equal_an_enumeration(layers: list[tuple[int, int, bool]]) -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Conv1d(1, 1, 2 * k + 1, padding=k * d, dilation=d) for k, d, _ in layers
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            for layer, (_, _, has_skip) in zip(self.layers, layers, strict=True):
                x = x + layer(x) if has_skip else layer(x)
            return x

    model = Stack()
    reach = sum(2 * k * d for k, d, _ in layers)
    shape = (1, 1, 2 * reach + 9)
    graph = capture(model, shape)
    try:
        found = path_fields(graph, graph.outputs[0])
    except NoReceptiveFieldError:
        assume(False)
        return
    expected = enumerated(model, shape, 0)
    assert found is not None
    assert [found.narrowest.sides[0], found.widest.sides[0]] == expected


# -- poolings to a fixed grid, masks, sizes of their own


class FixedGrid(nn.Module):
    """Pooled to a grid of its own, resized to the map beside it: any input is taken, and each window grows with it."""

    def __init__(self, *grids: int) -> None:
        super().__init__()
        self.grids = grids
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8 * (1 + len(grids)), 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        grids = (F.adaptive_avg_pool2d(x, n) for n in self.grids)
        resized = [F.interpolate(y, size=x.shape[2:], mode="bilinear") for y in grids]
        return self.last(torch.cat([x, *resized], 1))


@pytest.mark.parametrize("grids", [(2,), (6,), (1, 2, 3, 6)], ids=str)
def test_a_pooling_to_a_fixed_grid_sees_the_whole_input(grids: tuple[int, ...]) -> None:
    found = audit(FixedGrid(*grids), (3, 32, 32))
    # Beside it the map alone: two 3x3 convolutions.
    assert sides(found) == [32, 32, 5, 32]
    assert found.status == "complete"
    assert "receptive field: the whole input" in found.notes


def test_a_mask_has_the_field_of_what_it_sees_and_none_without_masks() -> None:
    # Stage 1 of Attention-56: 387 px, by the gradient of its positive linear twin (below) and by hand.
    (mask, merge) = audit("attention56", at=["stage1.module1.mask", "stage1.module1.merge"]).fields
    assert mask["receptive_field_px"] == [387, 387]
    assert mask["receptive_field_trunk_px"] is None
    assert mask["notes"] == ["part of a mask: without the masks it does not exist"]
    assert merge["receptive_field_trunk_px"] is not None
    assert merge["notes"] == []


def test_the_masks_field_is_that_of_the_gradient() -> None:
    from resattn.instruments.gradient import gradient_support as twin

    spec = catalog.named("attention56")
    model = build(spec, device="meta")
    seen = {twin(model, (3, 1600), "stage1.module1.mask", position=200 + k).side_px for k in range(8)}
    assert max(seen) == audit(spec, at=["stage1.module1.mask"]).fields[0]["receptive_field_px"][0]


VNET_DOWN = {"L1": 5, "L2": 22, "L3": 72, "L4": 172, "L5": 372}  # milletari2016, table 1


class VNet(nn.Module):
    """The convolutions of V-Net, with one channel: 1, 2, 3, 3, 3 of 5 each on the way down, 3, 3, 2, 1 on the way up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        kernel, up = ((nn.Conv1d, nn.ConvTranspose1d), (None, None), (nn.Conv3d, nn.ConvTranspose3d))[dim - 1 and 2]
        for k, n in enumerate((1, 2, 3, 3, 3), start=1):
            self.add_module(f"L{k}", nn.Sequential(*(kernel(1, 1, 5, padding=2) for _ in range(n))))
        for k, n in ((4, 3), (3, 3), (2, 2), (1, 1)):
            self.add_module(f"down{k}", kernel(1, 1, 2, 2))
            self.add_module(f"up{k}", up(1, 1, 2, 2))
            self.add_module(f"R{k}", nn.Sequential(*(kernel(1, 1, 5, padding=2) for _ in range(n))))

    def forward(self, x: Tensor) -> Tensor:
        parts = dict(self.named_children())
        maps = [parts["L1"](x)]
        for k in (1, 2, 3, 4):
            maps.append(parts[f"L{k + 1}"](parts[f"down{k}"](maps[-1])))
        y = maps.pop()
        for k in (4, 3, 2, 1):
            y = parts[f"R{k}"](parts[f"up{k}"](y) + maps.pop())
        return y


@pytest.mark.parametrize("dim", [1, 3])
def test_v_net_sees_what_is_printed_on_the_way_down(dim: int) -> None:
    shape = (1, 2048) if dim == 1 else (1, 64, 64, 64)
    found = {f["module"]: f["receptive_field_px"] for f in audit(VNet(dim), shape, at=list(VNET_DOWN)).fields}
    assert {name: set(side) for name, side in found.items()} == {name: {side} for name, side in VNET_DOWN.items()}


def test_v_net_sees_on_the_way_up_what_the_gradient_says() -> None:
    # The paper prints 476 to 551 there; the support of the gradient is 548 at the end.
    model = positive(VNet(1))
    x = torch.ones(1, 1, 1280, dtype=torch.float64, requires_grad=True)
    out = model(x)
    seen = []
    for k in range(640, 656):
        (gradient,) = torch.autograd.grad(out[0, 0, k], x, retain_graph=True)
        at = gradient[0, 0].nonzero()
        seen.append(int(at.max() - at.min() + 1))
    assert sides(audit(VNet(1), (1, 64)))[0] == max(seen)


# -- nothing else is lost


class Broken(nn.Module):
    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.how = conv(4, 4), how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.conv(x))


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x.diagonal(0, 2, 3).relu(),
        lambda x: x.tril().relu(),
        lambda x: x[:, :, x[0, 0, :, 0].long()],
    ],
)
def test_a_field_that_cannot_be_given_takes_nothing_with_it(how: Callable[[Tensor], Tensor]) -> None:
    found = audit(Broken(how), (4, 8, 8))
    assert found.quantities["longest_path"] == 1
    assert {found.statuses[name] for name in FIELDS} == {"unavailable"}
    assert any(note.startswith("receptive field: ") for note in found.notes)


def test_a_failure_of_ours_is_the_status_of_that_quantity_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError

    before = audit(Broken(torch.relu), (4, 8, 8))
    monkeypatch.setattr("resattn.measures.captured.fields_at", fails)
    found = audit(Broken(torch.relu), (4, 8, 8))
    assert {name for name, status in found.statuses.items() if status != "complete"} == set(FIELDS)
    assert {**found.quantities, **{name: before.quantities[name] for name in FIELDS}} == before.quantities
    assert found.notes == ("receptive field: AssertionError",)


class Shifted(nn.Module):
    """Attention in windows of 4 patches, then in windows that are shifted by 2, masked where they wrap: Swin's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    @staticmethod
    def attend(t: Tensor, fc: nn.Module, apart: Tensor | None) -> Tensor:
        keys = fc(t)
        scores = t @ keys.transpose(1, 2) / 1e7  # so that no weight of the positive twin rounds to 0
        return t + F.softmax(scores if apart is None else scores.masked_fill(apart, -torch.inf), -1) @ keys

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = joined(self.attend(split(x, 4), self.a, None), x, 4)
        height, width = x.shape[2:]
        part = [(torch.arange(n) >= n - 4).int() + (torch.arange(n) >= n - 2).int() for n in (height, width)]
        parts = split((3 * part[0][:, None] + part[1][None, :])[None, None].to(torch.float64), 4)
        apart = (parts != parts.transpose(1, 2)).to(x.device)
        y = x.roll((-2, -2), (2, 3))
        return joined(self.attend(split(y, 4), self.b, apart), y, 4).roll((2, 2), (2, 3))


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 128, 96)])
def test_shifted_windows_see_their_windows_and_not_what_wraps(shape: tuple[int, ...]) -> None:
    # A shifted window of 4 patches lies over two windows of 4: 8 patches of 4 pixels; along the skips one patch.
    found = audit(Shifted(), shape)
    assert sides(found)[:3] == [32, 32, 4]
    assert found.notes == ()


def test_shifted_windows_see_what_the_gradient_says_wherever_nothing_wraps() -> None:
    model = positive(Shifted())
    graph = capture(model, (1, 3, 64, 16))
    target = graph.outputs[0]
    extent = extents(graph, 0, [target])[target]
    lo, hi = gradient_support(model, (1, 3, 64, 16), axis=0, dims=[2])
    free = ~extent.over(set(extent.dims) - {2}, is_local=True).clipped
    assert free.sum() == 12
    assert (extent.lo[free] == lo[free]).all()
    assert (extent.hi[free] == hi[free]).all()


def test_a_model_that_runs_otherwise_on_a_larger_input_is_measured_there() -> None:
    class Fitting(Shifted):
        """As Swin's last stage: where one window fits, it is not shifted, and one block is left out."""

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] > 16:
                return super().forward(x)
            x = self.embed(x)
            return joined(self.attend(split(x, 4), self.a, None), x, 4)

    for side in (16, 64):
        found = audit(Fitting(), (3, side, side))
        assert sides(found)[:3] == [32, 32, 4]


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(2, 8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8), nn.LayerNorm([8, 16, 16]), nn.BatchNorm2d(8)],
    ids=lambda norm: type(norm).__name__,
)
def test_statistics_of_the_map_let_each_of_its_units_see_the_whole_input(norm: nn.Module) -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.Conv2d(8, 8, 3, padding=1))
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    body.eval()(image)[0, :, 8, 8].sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    seen = int(rows.max() - rows.min() + 1)
    assert seen in (5, 16)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert sides(audit(nn.Sequential(body, *head), (3, 16, 16))) == [seen] * 4
