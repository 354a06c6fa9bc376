"""Tiles of an image such that the stitched outputs equal the output for the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

from torch import Tensor, nn

from resattn.graph.errors import CaptureError
from resattn.graph.graph import Graph, Op
from resattn.measures import receptive
from resattn.measures.captured import Captured
from resattn.measures.grid import Grid, grid
from resattn.measures.receptive import NoReceptiveFieldError
from resattn.networks.spec import NetworkSpec
from resattn.targets import resolved

AXES = ("height", "width")


class TilingError(ValueError):
    """The network, or an image or tile of this size, cannot be tiled; the message names the reason."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiling along one axis of the image.

    `grid`: what the units of the output see. `phase_px`: a tile starts at a multiple of it, so that all poolings and
    up-samplings have the same phase as at pixel 0. `size`, `n_out`: of the whole image and of its output.
    """

    grid: Grid
    phase_px: int
    size: int
    n_out: int

    @property
    def halo_before_px(self) -> int:
        """Pixels before an aligned tile that its outputs depend on; one pixel less would change an output."""
        return max(-min(self.grid.first), 0)

    @property
    def halo_after_px(self) -> int:
        return max(max(self.grid.last) - self.grid.step + 1, 0)

    @property
    def residue_px(self) -> int:
        """The length of a tile is this plus a multiple of `phase_px`, so that sizes round as for the whole image."""
        return self.size % self.phase_px

    def length(self, at_most: int) -> int:
        """The longest valid tile. Raises: TilingError."""
        if at_most >= self.size:
            return self.size
        found = at_most - (at_most - self.residue_px) % self.phase_px
        if found < self.least:
            raise TilingError(f"a tile of {at_most} px is too small: at least {self.least} px are needed")
        return found

    @property
    def least(self) -> int:
        """The shortest tile that adds outputs at every start."""
        needed = self.grid.side + 2 * self.phase_px + self.grid.step
        return min(needed + (self.residue_px - needed) % self.phase_px, self.size)

    def spans(self, length: int) -> Iterator[Span]:
        """The tiles in order; together they give every output once."""
        done = 0
        while done < self.n_out:
            first, _ = self.grid.seen(done, min(done + self.grid.period, self.n_out))
            start = min(max(first, 0) // self.phase_px * self.phase_px, self.size - length)
            stop = start + length
            ready = self.n_out if stop == self.size else self._ready(stop)
            if ready <= done:
                raise TilingError(f"a tile of {length} px is too small: at least {self.least} px are needed")
            shift = start / self.grid.stride
            assert shift.denominator == 1
            yield Span(start, stop, done, ready, done - int(shift))
            done = ready

    def _ready(self, stop: int) -> int:
        """How many outputs, from the first on, see nothing from this pixel on."""
        low, high = 0, self.n_out
        while low < high:
            middle = (low + high + 1) // 2
            if self.grid.seen(max(middle - self.grid.period, 0), middle)[1] < stop:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis: pixels `start` to `stop` of the image give outputs `first` to `last` of the whole image,
    which begin at `own` in the tile's output.
    """

    start: int
    stop: int
    first: int
    last: int
    own: int


@dataclass(frozen=True)
class Tiling:
    """The tiling of a network on an image: one `Axis` for height and one for width."""

    name: str
    axes: tuple[Axis, Axis]
    network: Captured

    def plan(self, tile: int | tuple[int, int]) -> Plan:
        """Tiles of at most this size in pixels, halo included. Raises: TilingError."""
        most = (tile, tile) if isinstance(tile, int) else tile
        lengths = [axis.length(n) for axis, n in zip(self.axes, most, strict=True)]
        self._check(lengths)
        rows, columns = (tuple(axis.spans(n)) for axis, n in zip(self.axes, lengths, strict=True))
        return Plan(rows, columns, (self.axes[0].n_out, self.axes[1].n_out))

    def _check(self, lengths: Sequence[int]) -> None:
        """A tile of this size runs as the whole image does: the same operators, ratios and number of outputs."""
        network, whole = self.network, self.network.graph
        shapes = [(*s[:2], *lengths) if len(s) == 4 else s for s in network.shapes]
        size = "x".join(map(str, lengths))
        try:
            part = network.again(network.inputs.with_shapes(shapes), network.device)
        except CaptureError as error:
            raise TilingError(f"a tile of {size} px is refused: {error}") from None
        if [(op.name, op.module) for op in whole.ops] != [(op.name, op.module) for op in part.ops]:
            raise TilingError(f"on a tile of {size} px other operators run than on the whole image")
        for a, b in zip(whole.ops, part.ops, strict=True):
            if a.kind == "resize" and _ratios(a) != _ratios(b):
                raise TilingError(
                    f"{a.place}: its ratio depends on the size: {_sizes(a)} on the whole image, {_sizes(b)} on a tile"
                )
        for axis, n, at in zip(self.axes, lengths, part.ops[part.outputs[0]].shape[-2:], strict=True):
            if Fraction(axis.size - n) != (axis.n_out - at) * axis.grid.stride:
                raise TilingError(
                    f"a tile of {size} px has {at} outputs along an axis, which do not match those of the whole image"
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.name,
            "axes": {
                name: {
                    "size": a.size, "outputs": a.n_out, "stride": str(a.grid.stride), "offset_px": a.grid.offset,
                    "receptive_field_px": a.grid.side, "halo_before_px": a.halo_before_px,
                    "halo_after_px": a.halo_after_px, "start_multiple_px": a.phase_px,
                    "length_px": f"{a.residue_px} + {a.phase_px}k", "least_px": a.least,
                }
                for name, a in zip(AXES, self.axes, strict=True)
            },
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Tiles whose stitched outputs are the output for the whole image."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return ((y, x) for y in self.rows for x in self.columns)

    def run(self, model: nn.Module, image: Tensor) -> Tensor:
        """The model's output for an image (N, C, H, W), computed tile by tile."""
        whole: Tensor | None = None
        for y, x in self:
            part = model(image[..., y.start : y.stop, x.start : x.stop])
            if whole is None:
                whole = part.new_empty((*part.shape[:-2], *self.size))
            inside = part[..., y.own : y.own + y.last - y.first, x.own : x.own + x.last - x.first]
            whole[..., y.first : y.last, x.first : x.last] = inside
        assert whole is not None
        return whole


def tiling_of(target: str | NetworkSpec | nn.Module, *args: Any, **kwargs: Any) -> Tiling:
    """The tiling of a model, a spec, a named network or `module:callable`; `args`, `kwargs` as for `audit`.

    Raises: TilingError, TargetError, CaptureError.
    """
    with resolved(target, args, kwargs) as found:
        network = Captured.of(found.make("meta"), *found.inputs.args, name=found.name, **found.inputs.kwargs)
        return tiling(network)


def tiling(network: Captured) -> Tiling:
    """The tiling of a captured network on its own input.

    Source: the intervals of `resattn.rules.intervals`, on an enlarged input.
    Raises: TilingError, which names the operator that prevents it.
    """
    graph = network.graph
    if len(network.shapes[0]) != 4 or len(network.shapes) != 1:
        raise TilingError(f"{network.name}: only a network whose input is one image can be tiled")
    if len(graph.outputs) != 1 or len(graph.ops[graph.outputs[0]].shape) != 4:
        raise TilingError(f"{network.name}: its output is not a map of positions")
    target = graph.outputs[0]
    ancestors = graph.ancestors(target)
    for i in ancestors:
        op = graph.ops[i]
        if op.rule is None:
            raise TilingError(f"{op.place} has no rule")
        if op.kind == "resize" and op.arguments.get("align_corners") and _ratios(op) != ((1, 1), (1, 1)):
            raise TilingError(f"{op.place}: up-sampling with aligned corners, whose ratio depends on the size")
    large = _large(network, target)
    height, width = (
        Axis(*_axis(large, k, ancestors, target), network.shapes[0][2 + k], graph.ops[target].shape[2 + k])
        for k in (0, 1)
    )
    return Tiling(network.name, (height, width), network)


def _axis(large: Graph, axis: int, ancestors: Sequence[int], target: int) -> tuple[Grid, int]:
    try:
        extents = receptive.extents(large, axis, ancestors)
    except NoReceptiveFieldError as error:
        raise TilingError(str(error)) from None
    size = large.input_shapes[0][2 + axis]
    phase = 1
    for i in ancestors:
        extent = extents.get(i)
        if extent is None:
            continue
        free = extent.sides[~extent.clipped]
        if not extent.dims or (free.size and int(free.max()) == size):
            raise TilingError(f"{large.ops[i].place} reads the whole {AXES[axis]}")
        found = grid(extent, 2 + axis)
        phase = lcm(phase, found.step if found else 1)
    found = grid(extents[target], 2 + axis) if target in extents else None
    if found is None or found.step <= 0:
        raise TilingError(f"{large.ops[target].place}: what its units see has no pattern along the {AXES[axis]}")
    return found, phase


# Larger by a multiple of every stride that networks have, so that a size that is valid stays so; and by more than any
# window that a tile could hold.
STEP_PX = 64 * 3 * 5 * 7


def _large(network: Captured, target: int) -> Graph:
    """The network on an input on which most outputs are free of the border. Raises: TilingError."""
    shapes = [(*s[:2], s[2] + STEP_PX, s[3] + STEP_PX) for s in network.shapes]
    try:
        large = network.again(network.inputs.with_shapes(shapes), network.device)
    except CaptureError as error:
        raise TilingError(f"{network.name} accepts only its own input size: {error}") from None
    for a, b in zip(network.graph.ops[: target + 1], large.ops, strict=False):
        if (a.name, a.module) != (b.name, b.module):
            raise TilingError(f"other operators run on a larger input, from {b.place} on")
        if a.kind in ("pool", "resize") and a.shape == b.shape:
            raise TilingError(f"{a.place} makes a map of a fixed size: its windows are parts of the whole image")
        if a.kind == "resize" and _ratios(a) != _ratios(b):
            raise TilingError(
                f"{a.place}: its ratio depends on the size, {_sizes(a)} here, {_sizes(b)} on a larger input"
            )
    return large


def _ratios(op: Op) -> tuple[tuple[int, int], ...]:
    """Output to input positions along height and width, in lowest terms."""
    (before,) = (o.shape for o in list(op.operands)[:1])
    return tuple(Fraction(b, a).as_integer_ratio() for a, b in zip(before[-2:], op.shape[-2:], strict=True))


def _sizes(op: Op) -> str:
    (before,) = (o.shape for o in list(op.operands)[:1])
    return f"{before[-2]}x{before[-1]} to {op.shape[-2]}x{op.shape[-1]}"
