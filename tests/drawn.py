"""Random small networks for hypothesis: branches, merges, pooling, up-sampling, views and writes in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from nets import Apply
from torch import Tensor, nn

Draw = Callable[[st.SearchStrategy[Any]], Any]
MOST_POSITIONS = 24  # along one axis: the oracle takes a gradient for each


class Step(nn.Module):
    """What a module makes of some of the maps before it; each by its place in the list of all maps."""

    def __init__(self, module: nn.Module, *reads: int) -> None:
        super().__init__()
        self.module, self.reads = module, reads

    def extra_repr(self) -> str:
        return f"reads {self.reads}"


class Drawn(nn.Module):
    """Steps in order; the last map is the output."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for step in self.steps:
            assert isinstance(step, Step)
            maps.append(step.module(*(maps[i] for i in step.reads)))
        return maps[-1]


def _sized(y: Tensor, x: Tensor) -> Tensor:
    return y if y.shape[-2:] == x.shape[-2:] else F.interpolate(y, size=x.shape[-2:])


class Meet(nn.Module):
    """Two maps made to agree in channels and size, then joined by an operation."""

    def __init__(self, c_x: int, c_y: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.match = nn.Conv2d(c_y, c_x, 1, bias=False) if c_x != c_y and how != "cat" else nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y = _sized(self.match(y), x)
        match self.how:
            case "add":
                return x + y
            case "add in place":
                return x.clone().add_(y)
            case "cat":
                return torch.cat([x, y], 1)
            case "maximum":
                return torch.max(x, y)
            case "product":
                return (1 + x) * (1 + torch.sigmoid(y))  # where x is zero, its factor would not be seen
            case "rows":
                out = x.clone()
                out[:, :, 1::2] = y[:, :, 1::2]
                return out
        raise ValueError(self.how)

    def extra_repr(self) -> str:
        return self.how


def _pair(draw: Draw, low: int, high: int) -> tuple[int, int]:
    numbers = st.integers(low, high)
    return draw(numbers), draw(numbers)


def _conv(draw: Draw, c: int) -> nn.Module:
    kernel, stride, dilation = _pair(draw, 1, 4), _pair(draw, 1, 2), _pair(draw, 1, 2)
    # Every window meets the map: along the other axis positions are not told apart.
    padding = tuple(draw(st.integers(0, min(2, d * (k - 1)))) for k, d in zip(kernel, dilation, strict=True))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    groups = draw(st.sampled_from([1, 1, 2])) if c % 2 == 0 else 1
    c_out = 2 * draw(st.integers(1, 2))
    return nn.Conv2d(c, c_out, kernel, stride, padding, dilation, groups, False, mode)


def _transposed(draw: Draw, c: int) -> nn.Module:
    # No holes: along the other axis positions are not told apart.
    stride = _pair(draw, 1, 3)
    kernel = tuple(s + draw(st.integers(0, 2)) for s in stride)
    padding = _pair(draw, 0, 1)
    extra = tuple(draw(st.integers(0, min(p, s - 1))) for p, s in zip(padding, stride, strict=True))
    return nn.ConvTranspose2d(c, 2, kernel, stride, padding, extra, bias=False)


def _pool(draw: Draw, c: int) -> nn.Module:
    kernel = _pair(draw, 1, 4)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride, ceil = _pair(draw, 1, 3), draw(st.booleans())
    made = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    return made(kernel, stride, padding, ceil_mode=ceil)


def _resize(draw: Draw, c: int) -> nn.Module:
    mode = draw(st.sampled_from(["bilinear", "bilinear", "nearest", "bicubic", "area"]))
    aligned = draw(st.booleans()) if mode in ("bilinear", "bicubic") else None
    smooth = draw(st.booleans()) if mode in ("bilinear", "bicubic") and not aligned else False
    if draw(st.booleans()):
        size = _pair(draw, 1, MOST_POSITIONS)
        return Apply(lambda x: F.interpolate(x, size, mode=mode, align_corners=aligned, antialias=smooth))
    scale = draw(st.sampled_from([0.5, 0.75, 1.5, 2.0, 2.5, 1 / 3]))
    return Apply(lambda x: F.interpolate(x, None, scale, mode, align_corners=aligned, antialias=smooth))


def _pad(draw: Draw, c: int) -> nn.Module:
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    low = -1 if mode == "constant" else 0
    pads = (*_pair(draw, low, 2), *_pair(draw, low, 2))
    return Apply(lambda x: F.pad(x, pads, mode))


def _slice(draw: Draw, c: int) -> nn.Module:
    starts, ends, steps = _pair(draw, 0, 2), _pair(draw, 0, 2), _pair(draw, 1, 3)
    return Apply(lambda x: x[:, :, starts[0] : x.shape[2] - ends[0] : steps[0], starts[1] :: steps[1]])


def _moved(draw: Draw, c: int) -> nn.Module:
    shift, dim = draw(st.integers(-3, 3)), draw(st.sampled_from([2, 3]))
    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.flip(dim),
        lambda x: x.roll(shift, dim),
        lambda x: torch.cat(x.chunk(2, dim)[::-1], dim),
        lambda x: x.flatten(2).view(x.shape),
        lambda x: x.repeat_interleave(2, dim),
        lambda x: x.unfold(dim, 2, 1).amax(-1),
        lambda x: x.cumsum(dim),
    ]
    return Apply(draw(st.sampled_from(moves)))


def _pointwise(draw: Draw, c: int) -> nn.Module:
    return draw(st.sampled_from([nn.ReLU(), nn.Sigmoid(), nn.BatchNorm2d(c), Apply(lambda x: 2 * x + 1)]))


def _shuffle(draw: Draw, c: int) -> nn.Module:
    kinds: list[nn.Module] = [nn.PixelUnshuffle(2), Apply(lambda x: torch.cat([x[:, 1:], x[:, :1]], 1))]
    if c % 4 == 0:
        kinds.append(nn.PixelShuffle(2))
    return draw(st.sampled_from(kinds))


ONE_MAP = (
    _conv, _conv, _transposed, _pool, _pool, _resize, _resize, _pad, _slice, _moved, _pointwise, _shuffle,
)  # fmt: skip


@st.composite
def networks(draw: Draw, most_steps: int = 6) -> tuple[Drawn, tuple[int, int, int, int]]:
    """A network and the shape of its input."""
    shape = (1, 2, draw(st.integers(6, 12)), draw(st.integers(6, 12)))
    steps: list[Step] = []
    maps = [torch.empty(shape, device="meta")]
    for _ in range(draw(st.integers(1, most_steps))):
        at = draw(st.integers(0, len(maps) - 1)) if draw(st.booleans()) else len(maps) - 1
        c = maps[at].shape[1]
        if len(maps) > 1 and draw(st.integers(0, 3)) == 0:
            other = draw(st.integers(0, len(maps) - 1))
            how = draw(st.sampled_from(["add", "add in place", "cat", "maximum", "product", "rows"]))
            step = Step(Meet(c, maps[other].shape[1], how), at, other)
        else:
            step = Step(draw(st.sampled_from(ONE_MAP))(draw, c), at)
        made = _tried(step, maps)
        if made is not None:
            steps.append(step)
            maps.append(made)
    if not steps:
        steps = [Step(nn.Conv2d(2, 2, 3, bias=False), 0)]
    return Drawn(steps).eval(), shape


def _tried(step: Step, maps: Sequence[Tensor]) -> Tensor | None:
    """What the step gives, if it can be taken from there and leaves a map that the oracle can walk."""
    try:
        with torch.no_grad():
            made = step.eval().to("meta").module(*(maps[i] for i in step.reads))
    except RuntimeError:  # a window larger than its map, a padding that would reflect too much
        return None
    finally:
        step.to_empty(device="cpu")
    return made if 0 not in made.shape and max(made.shape[2:]) <= MOST_POSITIONS else None
