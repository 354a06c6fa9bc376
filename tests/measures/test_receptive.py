"""Receptive fields equal the support of the gradient at every output position, and the numbers that others published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import networks
from golden_rows import derived
from hypothesis import event, given
from hypothesis import settings as limited
from hypothesis import strategies as st
from nets import (
    Apply,
    Branches,
    Hourglass,
    LastShortcut,
    Resize,
    SmallMask,
    Squeeze,
    conv,
    made,
)
from oracles import gradient_support, positive, sides_of_release, single_paths, told
from torch import Tensor, nn

from resattn.claims.claims import Subject
from resattn.claims.measured import measure
from resattn.graph.graph import Graph
from resattn.measures import receptive
from resattn.measures import single_paths as module
from resattn.measures.audit import audit
from resattn.measures.captured import Captured, capture, captured
from resattn.measures.fields import Fields
from resattn.measures.receptive import NoReceptiveFieldError, ReceptiveField, extents, image_dims, receptive_field
from resattn.measures.single_paths import _Alive, _alive, _Spans, path_fields
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import override
from resattn.rules.intervals import MOST_POSITIONS, Extent, hull, nearest_resize
from resattn.rules.rule import Rule
from resattn.rules.spreads import over_map


def assert_equal_to_gradient(model: nn.Module, *shapes: tuple[int, ...], axes: tuple[int, ...] = (0, 1)) -> None:
    """At every position along each image axis: the intervals are the support's first and last pixel."""
    model = positive(model)
    graph = capture(model, *shapes)
    target = graph.outputs[0]
    for axis in axes:
        extent = extents(graph, axis, [target])[target]
        assert not extent.is_bound
        # Along every other dimension the positions are taken together.
        own = extent.over(set(extent.dims) - {2 + axis})
        dims = [2 + axis] if 2 + axis < len(graph.ops[target].shape) else []
        lo, hi = gradient_support(model, *shapes, axis=axis, dims=dims)
        told_lo, told_hi = told(own)
        assert (told_lo == lo).all()
        assert (told_hi == hi).all()


def assert_equal_in_every_dimension(model: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    """The same where positions lie along several dimensions, or along another than the image's."""
    model = positive(model)
    graph = capture(model, shape)
    target = graph.outputs[0]
    extent = extents(graph, axis, [target])[target]
    lo, hi = gradient_support(model, shape, axis=axis, dims=extent.dims)
    assert (told(extent)[0] == lo).all()
    assert (told(extent)[1] == hi).all()


# -- random networks


@limited(max_examples=60)
@given(networks(8))
def test_random_networks(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    assert_equal_to_gradient(drawn[0], drawn[1])


# -- nested down- and up-sampling


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    ("mode", "aligned"), [("bilinear", True), ("bilinear", False), ("nearest", False), ("bicubic", False)]
)
@pytest.mark.parametrize("ceil", [True, False], ids=["ceil", "padded"])
def test_nested_hourglasses(depth: int, mode: str, aligned: bool, ceil: bool) -> None:
    hourglass = Hourglass(1, depth, mode=mode, aligned=aligned, ceil=ceil)
    assert_equal_to_gradient(hourglass, (1, 1, 23, 17))


@pytest.mark.parametrize("settings", [{}, {"merge": "naive"}, {"corners": "half-pixel", "pool_padding": "padded"}])
def test_a_small_network_of_our_own(settings: dict[str, str]) -> None:
    tiny = {"width": "2", "input_shape": "1,20,20", "classes": "2", "units": "1,0,0", "tail": "0,0,1"}
    spec = override(catalog.named("cifar-attention56"), tiny | settings)
    network = build(spec)
    network.head = nn.Identity()
    assert_equal_to_gradient(network, (1, 1, 20, 26))


# -- one operator each, on odd and even sizes


def kernels() -> list[nn.Module]:
    made = []
    for kernel, stride, padding, dilation in product([1, 2, 3, 4], [1, 2, 3], [0, 1], [1, 2]):
        if padding <= dilation * (kernel - 1):
            made.append(nn.Conv2d(1, 1, (kernel, 3), (stride, 1), (padding, 1), (dilation, 1), bias=False))
    return made


@pytest.mark.parametrize("model", kernels(), ids=str)
def test_convolutions(model: nn.Module) -> None:
    for size in (11, 12):
        assert_equal_to_gradient(model, (1, 1, size, 9))


@pytest.mark.parametrize(
    "model",
    [
        nn.ConvTranspose2d(1, 1, k, s, p, o, bias=False, dilation=d)
        for k, s, p, o, d in product([1, 2, 3, 4], [1, 2, 3], [0, 1], [0, 1], [1, 2])
        if o < max(s, d) and p <= d * (k - 1)
    ],
    ids=str,
)
def test_transposed_convolutions(model: nn.Module) -> None:
    for size in (5, 6):
        assert_equal_to_gradient(model, (1, 1, size, size + 1))


@pytest.mark.parametrize(
    "model",
    [
        kind(k, s, p, ceil_mode=ceil)
        for kind, k, s, p, ceil in product([nn.MaxPool2d, nn.AvgPool2d], [2, 3, 4], [1, 2, 3], [0, 1], [True, False])
    ]
    + [nn.MaxPool2d(3, 2, 1, dilation=2), nn.LPPool2d(2, 3, 2), nn.MaxPool2d((3, 2), (1, 2))],
    ids=str,
)
def test_poolings(model: nn.Module) -> None:
    for size in (10, 11):
        assert_equal_to_gradient(model, (1, 1, size, 9))


RESIZES: list[dict[str, Any]] = [
    *({"mode": "bilinear", "align_corners": a} for a in (True, False)),
    *({"mode": "bicubic", "align_corners": a} for a in (True, False)),
    {"mode": "nearest"}, {"mode": "nearest-exact"}, {"mode": "area"},
    *({"mode": m, "antialias": True, "align_corners": a} for m in ("bilinear", "bicubic") for a in (True, False)),
]  # fmt: skip


@pytest.mark.parametrize("how", RESIZES, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize(("n_in", "n_out"), [(7, 14), (7, 13), (7, 15), (8, 5), (12, 4), (9, 9), (1, 6), (6, 1)])
def test_resizes_to_a_size(how: dict[str, Any], n_in: int, n_out: int) -> None:
    assert_equal_to_gradient(Apply(lambda x: F.interpolate(x, (n_out, 6), **how)), (1, 1, n_in, 5))


@pytest.mark.parametrize("how", RESIZES[:6], ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("scale", [0.3, 0.5, 0.75, 1.3, 1.5, 2.0, 2.5, 1 / 3])
def test_resizes_by_a_factor_that_is_not_the_ratio(how: dict[str, Any], scale: float) -> None:
    # floor(9 * 1.3) / 9 is not 1.3: torch samples at the factor's own step.
    assert_equal_to_gradient(Apply(lambda x: F.interpolate(x, scale_factor=scale, **how)), (1, 1, 9, 11))


@given(st.integers(1, 80), st.integers(1, 160))
def test_nearest_takes_the_very_pixel_that_torch_takes(n_in: int, n_out: int) -> None:
    # In single precision: exact arithmetic differs from torch in some of these.
    x = torch.arange(n_in, dtype=torch.float32)[None, None]
    taken = F.interpolate(x, size=n_out, mode="nearest")[0, 0].to(torch.int64).numpy()
    assert (nearest_resize(Extent.of_input(n_in, 2), 2, n_out, False).lo == taken).all()


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("pads", [(2, 1, 0, 3), (1, 2, 3, 1)])
def test_paddings(mode: str, pads: tuple[int, ...]) -> None:
    assert_equal_to_gradient(nn.Sequential(Apply(lambda x: F.pad(x, pads, mode)), conv(1, 1)), (1, 1, 7, 8))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_of_convolutions(mode: str) -> None:
    assert_equal_to_gradient(nn.Sequential(conv(1, 2, 5, padding_mode=mode), conv(2, 1)), (1, 1, 8, 9))


def test_negative_padding_cuts() -> None:
    assert_equal_to_gradient(Apply(lambda x: F.pad(x, (-1, 2, 1, -2))), (1, 1, 8, 9))


def assigned(x: Tensor, at: Any, value: Tensor) -> Tensor:
    y = x.clone()
    y[at] = value
    return y


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "strided slice": lambda x: x[:, :, 1::2, :-2:3],
    "flip": lambda x: x.flip(2) + x,
    "roll": lambda x: x.roll((1, -2), (2, 3)) + x,
    "index": lambda x: x[:, :, torch.tensor([3, 0, 2])],
    "channel index": lambda x: x[:, [3, 0, 2]],
    "index_select": lambda x: x.index_select(3, torch.tensor([5, 1, 1])),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([1, 6]), x[:, :, 2:4].roll(2, 3)),
    "index_add": lambda x: x.index_add(3, torch.tensor([0, 0, 5]), x[..., 2:5]),
    "index_fill": lambda x: x.index_fill(2, torch.tensor([3, 4]), 0.0),
    "rows assigned": lambda x: assigned(x, (..., [1, -1], slice(None)), x[:, :, :1]),
    "channels assigned": lambda x: assigned(x, (slice(None), [2, 1, 0]), x[:, :3].roll(3, 2)),
    "index_put of a sum": lambda x: x[0].index_put((torch.arange(2),), x[0, 1:3].roll(3, 1), accumulate=True)[None],
    "mask": lambda x: x[:, :, torch.tensor([True, False] * 4)],
    "halves swapped": lambda x: torch.cat(x.chunk(2, 2)[::-1], 2),
    "split": lambda x: x.split([3, 5], 2)[1] * 2,
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "space to depth by views": lambda x: x.view(1, 4, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 16, 4, 4),
    "depth to space by views": lambda x: x.view(1, 1, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(1, 1, 16, 16),
    "focus": lambda x: torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, ::2]], 1),
    "unfold": lambda x: x.unfold(2, 3, 2).mean(-1),
    "cumsum": lambda x: x.cumsum(2),
    "maximum": lambda x: torch.max(x, x.roll(1, 2)),
    "max over channels": lambda x: x.amax(1, keepdim=True) + x,
    "mean along one axis": lambda x: x.mean(2, keepdim=True) + x,
    "mean along the other": lambda x: x.mean(3, keepdim=True) * x,
    "squeezed and back": lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(1) + x,
    "flattened and back": lambda x: x.flatten(2).view(1, 4, 8, 8),
    "tokens and back": lambda x: x.flatten(2).transpose(1, 2).reshape(1, 8, 8, 4).permute(0, 3, 1, 2),
    "rotated": lambda x: x.rot90(2, (2, 3)),
    "shuffled halves": lambda x: torch.cat([x[:, :2].roll(1, 2), x[:, 2:]], 1)[:, 2:],
    "glu along the axis": lambda x: F.glu(x, 2),
    "einsum over channels": lambda x: torch.einsum("bchw,dc->bdhw", x, torch.ones(3, 4, dtype=x.dtype)),
    "channel shuffle": lambda x: F.channel_shuffle(torch.cat([x[:, :2].roll(2, 2), x[:, 2:]], 1), 2)[:, :2],
    "stack and unbind": lambda x: torch.stack([x, x.roll(3, 2)], 2).unbind(2)[0],
    "broadcast rows": lambda x: x + x[:, :, :1],
    "product with a constant map": lambda x: x * torch.arange(1, 9, dtype=x.dtype)[:, None],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_views_and_moves(name: str) -> None:
    for axis in (0, 1):
        assert_equal_in_every_dimension(Apply(FUNCTIONS[name]), (1, 4, 8, 8), axis)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(conv(4, 4), nn.GroupNorm(2, 4), conv(4, 4)),
        nn.Sequential(conv(4, 4), nn.InstanceNorm2d(4), conv(4, 4)),
        nn.Sequential(conv(4, 4), nn.LayerNorm([8, 8])),
        nn.Sequential(conv(4, 4), nn.LayerNorm(8)),
        nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.LocalResponseNorm(3)),
        nn.Sequential(conv(4, 4), Squeeze(4), conv(4, 4)),
        nn.Sequential(conv(4, 8), conv(8, 8, groups=2), conv(8, 8, groups=8), conv(8, 2, 1)),
        nn.Sequential(conv(4, 4), nn.AdaptiveAvgPool2d((3, 5)), conv(4, 4)),
        nn.Sequential(conv(4, 4), nn.AdaptiveMaxPool2d((None, 1))),
    ],
    ids=lambda m: type(m[1]).__name__,
)
def test_norms_gates_and_groups(model: nn.Module) -> None:
    assert_equal_to_gradient(model, (1, 4, 8, 8))


@pytest.mark.parametrize(
    "name", ["Interleaved", "ShiftedHalves", "HalfWritten", "FlatWrite", "Overwritten", "ZeroedRows"]
)
def test_writes_through_views(name: str) -> None:
    model, shapes = made(name)
    assert_equal_to_gradient(model, *shapes)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_an_index_made_on_the_inputs_device_has_its_values(device: str) -> None:
    graph = capture(Apply(lambda x: x[:, :, torch.tensor([7, 0], device=x.device)]), (1, 2, 8, 8), device=device)
    assert extents(graph, 0, [graph.outputs[0]])[graph.outputs[0]].lo.tolist() == [7, 0]


def test_several_inputs_are_told_apart() -> None:
    model, shapes = made("SeveralInputs")
    assert_equal_to_gradient(model, *shapes)
    graph = capture(model, *shapes)
    own = extents(graph, 0, [graph.outputs[0]], source=1)[graph.outputs[0]]
    assert own.sides.tolist() == [2, 2, 3, 3, 3, 3, 2, 2]


class Windows(nn.Module):
    """Attention inside windows of 4 x 4, as a Swin block has it, beside an identity."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        t = x.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
        t = F.softmax(t @ t.transpose(1, 2), -1) @ t + t.mean(1, keepdim=True)
        t = t.view(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)
        return x + t


def test_attention_inside_windows() -> None:
    model = nn.Sequential(conv(2, 2), Windows(), conv(2, 2))
    assert_equal_to_gradient(model, (1, 2, 12, 8))
    assert audit(model, (2, 32, 32)).quantities["receptive_field_px"] == 10


class Attention(nn.Module):
    """Tokens of 2 x 2 pixels, one class token ahead, full self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.start = conv(2, 4, 2, 2, dilation_padding=0), nn.Parameter(torch.ones(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        t = self.embed(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.start.expand(len(t), -1, -1), t], 1)
        return t + F.scaled_dot_product_attention(t, t, t) + t.mean(1, keepdim=True)


def test_attention_over_all_tokens_sees_everything() -> None:
    for axis in (0, 1):
        assert_equal_in_every_dimension(Attention(), (1, 2, 8, 6), axis)


def test_learned_tokens_that_see_nothing_ask_for_no_larger_input() -> None:
    class Masked(Attention):
        def forward(self, x: Tensor) -> Tensor:
            t = super().forward(x)
            return torch.cat([t, self.start.expand_as(t)], 1)

    found = Captured.of(Masked(), (1, 2, 8, 8))
    assert found.fields.union == ReceptiveField((8, 8), True)
    assert list(found._larger) == [2]


def test_attention_with_too_many_tokens_to_tell_apart_is_exact_where_it_can_be() -> None:
    # The scores would have one interval a pair of tokens; each token sees all of the values in any case.
    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = x.flatten(2).transpose(1, 2)
            return F.softmax(t @ t.transpose(1, 2), -1) @ t

    side = int(MOST_POSITIONS**0.25) + 2
    graph = capture(Written(), (1, 2, side, side))
    extent = extents(graph, 0, [graph.outputs[0]])[graph.outputs[0]]
    assert not extent.is_bound
    assert set(extent.lo.flatten()) == {0}
    assert set(extent.hi.flatten()) == {side - 1}


def test_axial_attention_sees_its_own_row() -> None:
    def rows_only(x: Tensor) -> Tensor:
        t = x.permute(0, 2, 3, 1)  # height is a batch dimension
        return F.scaled_dot_product_attention(t, t, t).permute(0, 3, 1, 2)

    for device in ("meta", "cpu"):
        graph = capture(Apply(rows_only), (1, 2, 6, 5), device=device)
        target = graph.outputs[0]
        assert extents(graph, 0, [target])[target].sides.tolist() == [1] * 6
        assert extents(graph, 1, [target])[target].sides.max() == 5


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "how",
    [
        {"kernel_size": 3},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": (3, 2), "padding": (1, 0), "stride": (2, 1)},
        {"kernel_size": 2, "dilation": 3, "padding": 2},
        {"kernel_size": 3, "stride": 4, "padding": 1},
    ],
    ids=str,
)
def test_unfolded_patches_and_their_sum(how: dict[str, Any], axis: int) -> None:
    shape = (1, 2, 8, 6)
    if "padding" not in how:  # in a column a row of padding is nothing, whatever column of the image it is in
        mixed = Apply(lambda x: F.unfold(F.avg_pool2d(x, 3, 1, 1), **how))
        assert_equal_in_every_dimension(mixed, shape, axis)
    size = shape[2:]
    assert_equal_to_gradient(Apply(lambda x: F.fold(F.unfold(x, **how), size, **how)), shape, axes=(axis,))
    assert_equal_to_gradient(nn.Sequential(conv(2, 2), Apply(lambda x: F.fold(F.unfold(x, **how), size, **how))), shape)


# -- what is published


TABLE: dict[str, nn.Module] = {
    "stack": nn.Sequential(conv(2, 2), conv(2, 2, 3, 2), conv(2, 2)),
    "dilated": nn.Sequential(conv(2, 2), nn.Conv2d(2, 2, 3, padding=4, dilation=4)),
    "shortcut_last": LastShortcut(),
    "parallel": Branches(conv(2, 2, 7), conv(2, 2)),
    "functional_pool": nn.Sequential(conv(2, 2), Apply(lambda x: F.max_pool2d(x, 2)), conv(2, 2)),
    "module_pool": nn.Sequential(conv(2, 2), nn.MaxPool2d(2), conv(2, 2)),
    "up_nearest": nn.Sequential(nn.MaxPool2d(2), conv(2, 2), Resize(2), conv(2, 2)),
    "up_bilinear": nn.Sequential(nn.MaxPool2d(2), conv(2, 2), Resize(2, "bilinear"), conv(2, 2)),
    "squeeze": nn.Sequential(conv(2, 2), Squeeze(2)),
    "mask": SmallMask(),
}


@pytest.mark.parametrize("row", derived("receptive_fields.csv"), ids=lambda r: r["net"])
def test_the_side_derived_by_hand(row: dict[str, str]) -> None:
    found = audit(TABLE[row["net"]], (2, 64, 64))
    is_whole = row["side"] == "whole"
    assert found.quantities["receptive_field_px"] == (64 if is_whole else int(row["side"]))
    assert ("receptive field: the whole input" in found.notes) is is_whole


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_table_equals_the_gradient(name: str) -> None:
    assert_equal_to_gradient(TABLE[name], (1, 2, 24, 24))


def unclipped_sides(name: str, *, masks: bool) -> dict[str, set[int]]:
    """The sides that units at the end of each stage see, over positions that see no border."""
    spec = catalog.named(name)
    network = captured(spec)
    large = network.large if masks else network.large.without(network.masks)
    ends = {s.name: [o.index for o in large.ops if o.module.startswith(f"{s.name}.")][-1] for s in spec.stages}
    found = extents(large, 0, list(ends.values()))
    return {stage: set(found[i].sides[~found[i].clipped].tolist()) for stage, i in ends.items()}


@pytest.mark.parametrize(("name", "modules"), [("attention56", (1, 1, 1)), ("attention92", (1, 2, 3))])
@pytest.mark.parametrize("masks", [True, False], ids=["with masks", "trunk"])
def test_what_every_stage_of_the_release_sees(name: str, modules: tuple[int, ...], masks: bool) -> None:
    wanted = {f"stage{k}": sides for k, sides in enumerate(sides_of_release(modules, masks=masks), start=1)}
    assert unclipped_sides(name, masks=masks) == wanted
    if masks:
        assert measure(Subject(name), "receptive_field_px") == max(wanted["stage4"])
        first = Subject(name, (), "stage1.module1")
        sides = [measure(first, f"receptive_field_{which}px") for which in ("least_", "")]
        assert sides == [min(wanted["stage1"]), max(wanted["stage1"])]


# -- definitions


def sides_of(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any]:
    return {k: v for k, v in audit(model, shape).quantities.items() if k.startswith("receptive")}


def test_height_and_width_are_told_where_they_differ() -> None:
    found = sides_of(nn.Sequential(conv(2, 2), nn.Conv2d(2, 2, (1, 5))), (2, 16, 16))
    assert found == {
        "receptive_field_px": 7, "receptive_field_h_px": 3, "receptive_field_w_px": 7, "receptive_field_trunk_px": 7,
        "receptive_field_narrowest_px": 7, "receptive_field_widest_px": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "shape", "dims"),
    [
        (lambda x: torch.cat([x[..., :2], x.flip(-1)[..., 2:]], -1), (3, 32, 32), (2, 3)),
        (lambda x: x.clone().index_fill_(3, torch.arange(4), 0.0), (3, 32, 32), (2, 3)),
        (lambda x: x[..., x.mean((0, 1, 2)).argsort()], (3, 32, 32), (2, 3)),
        (lambda x: x.view(1, 16, 2, 16, 2, 3).permute(0, 5, 2, 4, 1, 3).reshape(1, 12, 16, 16), (32, 32, 3), (1, 2)),
        (lambda x: x.flatten(2).unsqueeze(2), (3, 32, 32), (2, 3)),
        (lambda x: torch.cat([x[:, ::2], x[:, 1::2]], -1).repeat(1, 1, 1, 2).movedim(-1, 1), (32, 32, 3), (1, 2)),
    ],
)
def test_the_axes_of_an_image_are_those_that_the_first_convolution_slides_along(
    before: Callable[[Tensor], Tensor], shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    n = 12 if shape[-1] == 3 else 3
    assert image_dims(capture(nn.Sequential(Apply(before), conv(n, 4)), (1, *shape))) == dims


def test_a_volume_is_measured_along_height_and_width() -> None:
    found = sides_of(nn.Sequential(nn.Conv3d(2, 2, (3, 1, 1)), nn.Conv3d(2, 2, (1, 3, 5))), (2, 8, 16, 16))
    assert (found["receptive_field_h_px"], found["receptive_field_w_px"]) == (3, 5)


def test_what_is_read_whole_along_one_axis_is_whole_along_it() -> None:
    found = sides_of(nn.Sequential(conv(2, 2), Apply(lambda x: x + x.mean(3, keepdim=True))), (2, 16, 20))
    assert found["receptive_field_h_px"] == 3
    assert found["receptive_field_w_px"] == 20


def test_almost_all_of_the_input_grows_with_it_and_is_the_whole_input() -> None:
    model = nn.Sequential(conv(2, 2), Apply(lambda x: x + x[:, :, 1:-1, 1:-1].mean((2, 3), keepdim=True)))
    found = audit(model, (2, 16, 16))
    assert found.quantities["receptive_field_px"] == 16
    assert "receptive field: the whole input" in found.notes


def test_the_masks_are_taken_away_for_the_trunk() -> None:
    found = sides_of(SmallMask(), (2, 32, 32))
    assert (found["receptive_field_px"], found["receptive_field_trunk_px"]) == (11, 7)


def test_the_last_map_before_a_pooling_to_fixed_positions() -> None:
    model = nn.Sequential(
        conv(2, 2), nn.MaxPool2d(2), conv(2, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 2)
    )
    assert sides_of(model, (2, 16, 16))["receptive_field_px"] == 8


def test_a_model_that_takes_one_size_only_is_measured_as_far_as_it_goes() -> None:
    model = nn.Sequential(conv(2, 2), conv(2, 2), nn.Flatten(), nn.Linear(200, 2))
    assert sides_of(model, (2, 10, 10))["receptive_field_px"] == 5


def test_where_every_unit_meets_a_border_and_no_larger_input_is_taken_there_is_no_number() -> None:
    positions = nn.Parameter(torch.zeros(1, 2, 4, 4))
    model = nn.Sequential(Apply(lambda x: x + positions), *(conv(2, 2, 5) for _ in range(3)))
    found = audit(model, (2, 4, 4))
    assert found.quantities["receptive_field_px"] is None
    assert any("every position is clipped" in note for note in found.notes)


def test_a_resize_to_a_fixed_size_is_measured_on_the_input_itself() -> None:
    # On a larger input the first map would be the same, and every unit would see more of it.
    model = nn.Sequential(Apply(lambda x: F.interpolate(x, (16, 16))), conv(2, 2), conv(2, 2))
    assert sides_of(model, (2, 16, 16))["receptive_field_px"] == 5


def test_an_input_without_positions_has_no_receptive_field() -> None:
    found = audit(nn.Linear(4, 2), (4,))
    assert found.status == "complete"
    assert found.quantities["receptive_field_px"] is None
    assert found.notes == ("receptive field: the input is no image",)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.diagonal(0, 2, 3), "a diagonal"),
        (lambda x: x.tril(), "a triangle of positions"),
        (lambda x: x.as_strided((1, 2, 4, 4), (128, 64, 16, 2)), "a view by strides"),
        (lambda x: x.take(torch.tensor([0])), "depend on values"),
        (lambda x: x[:, :, x[0, 0, :, 0].long()], "depend on values"),
        (lambda x: x.index_fill(2, x[0, 0, :2, 0].long(), 0.0), "depend on values"),
        (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), "depend on values"),
    ],
)
def test_what_has_no_interval_says_so(function: Callable[[Tensor], Tensor], said: str) -> None:
    model = nn.Sequential(conv(2, 2), Apply(function))
    graph = capture(model, (1, 2, 8, 8))
    with pytest.raises(NoReceptiveFieldError, match=f"in 1: .*{said}"):
        extents(graph, 0, [graph.outputs[0]])


def test_an_operator_without_a_rule_says_so() -> None:
    graph = capture(Apply(torch.relu), (1, 2, 8, 8))
    graph = replace(graph, ops=[*graph.ops[:-1], replace(graph.ops[-1], rule=None)])
    with pytest.raises(NoReceptiveFieldError, match="no rule for aten.relu in the model"):
        receptive_field(graph, graph.outputs[0])


# -- laws


@limited(max_examples=25)
@given(networks(6))
def test_a_consumer_sees_what_it_reads(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = drawn
    graph: Graph = capture(model, shape)
    found = extents(graph, 0, range(len(graph.ops)))
    for op in graph.ops:
        for i in op.inputs:
            if op.name in ("aten.add", "aten.mul", "aten.relu", "aten.sigmoid") and i in found:
                a, b = found[op.index], found[i]
                both = hull([a, b.shifted(len(op.shape) - len(graph.ops[i].shape))])
                assert (both.lo == a.laid_over(both.dims).lo).all()
                assert (both.hi == a.laid_over(both.dims).hi).all()


@given(st.integers(1, 6), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_stack_adds_up_as_the_formula_says(kernel: int, strides: list[int]) -> None:
    # araujo2019, equation 2: without branches the side is 1 + sum of (kernel - 1) * jump.
    model = nn.Sequential(*(nn.Conv2d(1, 1, kernel, stride, bias=False) for stride in strides))
    jump, side = 1, 1
    for stride in strides:
        side += (kernel - 1) * jump
        jump *= stride
    graph = capture(model, (1, 1, side + 5 * jump, side + 5 * jump))
    found = extents(graph, 0, [graph.outputs[0]])[graph.outputs[0]]
    assert set(np.unique(found.sides)) == {side}


# -- over single paths


def enumerated_fields(graph: Graph, target: int) -> tuple[list[int], list[int]] | None:
    """Narrowest and widest side along height and width, from every path by itself; None where it is not to be told."""
    narrowest, widest = [], []
    for axis in (0, 1):
        union = extents(graph, axis, [target])[target].over([1], is_local=True)
        if set(union.dims) - {2 + axis}:
            return None
        free = ~union.clipped
        sides = []
        for path in single_paths(graph, target):
            found = extents(path, axis, [target]).get(target)
            if found is None or found.is_bound or (set(found.dims) - {1, 2 + axis}):
                return None
            of_units = found.laid_over((1, 2 + axis))
            if (of_units.sides == 0).any():  # channels that the path does not lead to: joined to others
                of_units = found.over([1]).laid_over((1, 2 + axis))
                if not np.isin(found.sides, (0, of_units.sides.max())).all():
                    return None
            shape = np.broadcast_shapes(of_units.sides.shape, (free.size,))
            is_free = np.broadcast_to(free.reshape(-1), shape[-1:])
            sides.append(np.broadcast_to(of_units.sides, shape)[:, is_free])
        if not free.any() or any((each == 0).any() for each in sides):
            return None
        sides = np.broadcast_arrays(*sides)
        narrowest.append(int(np.min(sides, axis=0).max()))
        widest.append(int(np.max(sides, axis=0).max()))
    return narrowest, widest


@limited(deadline=None, max_examples=150)
@given(networks(most_steps=7))
def test_the_narrowest_and_the_widest_path_are_those_of_an_enumeration(
    drawn: tuple[nn.Module, tuple[int, ...]],
) -> None:
    model, shape = drawn
    graph = capture(model, shape)
    target = graph.outputs[0]
    try:
        expected = enumerated_fields(graph, target)
        found = path_fields(graph, target)
    except NoReceptiveFieldError:
        return
    if expected is not None and found is not None:
        event("compared")
        assert ([*found.narrowest.sides], [*found.widest.sides]) == expected


def test_an_operand_may_have_more_places_than_its_result() -> None:
    at = np.arange(7)
    nothing, last = _Spans(at + 1, at), _Alive(np.arange(8) == 6)
    found = _alive([(None, last), (nothing, None)], 7)
    assert found is not None
    assert found.places.tolist() == [False] * 6 + [True]


def test_the_narrowest_path_is_the_shortcut_and_the_widest_the_branch() -> None:
    found = audit(Branches(nn.Identity(), nn.Conv2d(3, 3, 5, padding=2)), (3, 32, 32)).quantities
    fields = [found[f"receptive_field{which}_px"] for which in ("", "_narrowest", "_widest")]
    assert fields == [5, 1, 5]


@pytest.mark.parametrize("before", [4, 0, 1])
def test_padding_in_front_or_behind_or_both_changes_no_path(before: int) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(3, 4, 3), nn.Conv1d(4, 4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(F.pad(x, (before // 2, 2 - before // 2)))
            return x + self.second(F.pad(x, (before, 4 - before)))

    found = audit(Padded(), (3, 32)).quantities
    assert [found[f"receptive_field{which}_px"] for which in ("", "_narrowest", "_widest")] == [7, 3, 7]


def test_of_two_branches_that_look_aside_no_single_path_sees_as_much_as_both() -> None:
    # Three pixels to the left on one path, three to the right on the other: 7 together, 4 each; the skip sees 1.
    def aside(x: Tensor) -> Tensor:
        left = F.avg_pool2d(F.pad(x, (3, 0, 3, 0)), 4, 1)
        right = F.avg_pool2d(F.pad(x, (0, 3, 0, 3)), 4, 1)
        return x + left + right

    found = audit(Apply(aside), (3, 32, 32)).quantities
    fields = [found[f"receptive_field{which}_px"] for which in ("", "_narrowest", "_widest")]
    assert fields == [7, 1, 4]


@pytest.mark.parametrize(
    ("name", "narrowest"),
    # The stem alone, and its pooling: 7 + 2 * 2. Every unit has a shortcut of one pixel, every module a trunk of them.
    [("resnet50", 11), ("attention56", 11), ("cifar-attention56", 3), ("cifar-resnet56", 3)],
)
def test_a_residual_network_has_a_path_that_sees_its_stem_alone(name: str, narrowest: int) -> None:
    found = audit(name).quantities
    assert found["receptive_field_narrowest_px"] == narrowest
    assert found["receptive_field_widest_px"] == found["receptive_field_px"]


def test_a_gate_over_everything_is_the_widest_path() -> None:
    found = audit(nn.Sequential(conv(4, 4), Squeeze(4)), (4, 32, 32)).quantities
    assert found["receptive_field_widest_px"] == found["receptive_field_px"] == 32
    assert found["receptive_field_narrowest_px"] == 3


def test_what_is_kept_for_the_next_audit_is_bounded_and_follows_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [catalog.named(name) for name in ("cifar-attention56", "cifar-resnet83")]
    models = [build(spec, device="meta") for spec in specs]

    def fields(**options: Any) -> list[Fields]:
        return [
            audit(model, spec.input_shape, **options).captured.fields for model, spec in zip(models, specs, strict=True)
        ]

    first = fields()
    assert fields(rules={"aten::relu_": Rule("pointwise", over_map)}) != first
    assert fields() == first
    for place, name, kept in ((receptive, "_alike", receptive._Alike()), (module, "_kept", module._Kept())):
        monkeypatch.setattr(place, name, kept)
        monkeypatch.setattr(place, "MOST_KEPT", 2**14)
    assert fields() == first
    assert receptive._alike.nbytes <= 2**14
