"""The exact receptive field of a unit, including padding, ceil mode, up-sampling and gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from resattn.graph.graph import INPUT, Graph, Op, Operand, Shape
from resattn.rules.intervals import Extent, NoIntervalError, varied
from resattn.rules.rule import spread_of

MOST_ALIKE = 1024  # positions of a tensor that is compared with others
MOST_LIVE = 2**29  # bytes of all extents that later operators still read
MOST_KEPT, MOST_KEPT_OF_ONE = 2**24, 2**16  # bytes of the cached extents, and of one of them
Extents = Extent | list[Extent]  # of an operator's result, or of each of several results


class NoReceptiveFieldError(ValueError):
    """The receptive field cannot be given exactly; the message names the operator and the reason."""


def extents(graph: Graph, axis: int, targets: Collection[int], source: int = 0) -> dict[int, Extent]:
    """For each target operator, the interval of the input that each position sees, along one image axis (0: height).

    Raises: NoReceptiveFieldError if an operator on the way has no rule or no interval.
    """
    found: dict[int, Extent] = {}
    for op, extent in _followed(graph, axis, targets, source):
        if isinstance(extent, NoReceptiveFieldError):
            raise extent
        if op.index in targets:
            found[op.index] = _result(extent, 0)
    return found


def _followed(
    graph: Graph, axis: int, targets: Collection[int], source: int = 0
) -> Iterator[tuple[Op, Extents | NoReceptiveFieldError]]:
    """The operators that lead from an input to the targets, in order, with what their positions see along an axis.

    Where that cannot be given, there and behind, the reason takes its place.
    """
    wanted: set[int] = set(targets)
    for op in reversed(graph.ops):
        if op.index in wanted:
            wanted.update(op.inputs)
    unread = Counter(i for op in graph.ops if op.index in wanted for i in op.inputs)
    live: dict[int, Extents | NoReceptiveFieldError] = {}
    sizes: dict[int, int] = {}
    total = 0
    for op in graph.ops:
        if op.index not in wanted:
            continue
        extent: Extents | NoReceptiveFieldError | None
        try:
            if total > MOST_LIVE:
                raise NoReceptiveFieldError(f"{op.place}: more than {MOST_LIVE >> 20} MiB of positions")
            extent = _extent(op, axis, source, live)
        except NoReceptiveFieldError as error:
            extent = error
        if extent is not None and not isinstance(extent, NoReceptiveFieldError):
            sizes[op.index] = _nbytes(extent)
            total += sizes[op.index]
        for i in op.inputs:
            unread[i] -= 1
            if not unread[i]:
                live.pop(i, None)
                total -= sizes.pop(i, 0)
        if extent is not None:
            live[op.index] = extent
            yield op, extent


def _nbytes(extents: Extents) -> int:
    each = {id(e): e for e in extents}.values() if isinstance(extents, list) else (extents,)
    return sum([e.nbytes for e in each])


class _Alike:
    """A cache of extents by operator and operands, for layers and audits that repeat each other."""

    def __init__(self) -> None:
        self.inputs: dict[tuple[int, int], Extent] = {}
        self.equal: dict[Any, Extent] = {}
        self.known: dict[int, Extent] = {}  # all that are kept, by their ids
        # With the objects whose ids are in the key: while they live, no other object gets their ids.
        self.spread: dict[Any, tuple[Extents, Any]] = {}
        self.nbytes = 0

    def of_input(self, size: int, dim: int) -> Extent:
        if (size, dim) not in self.inputs:
            found = self.inputs[size, dim] = Extent.of_input(size, dim).without_single()
            self._keep(found, found.nbytes)
        return self.inputs[size, dim]

    def of(self, op: Op, reads: Sequence[tuple[Operand, Extent]]) -> Extents:
        """As `spread`."""
        key, known = None, self.known
        if known.keys() >= {id(extent) for _, extent in reads}:
            key = op.alike_all([(operand, id(extent)) for operand, extent in reads])
        if key is not None and (found := self.spread.get(key)) is not None:
            return found[0]
        result = spread(op, reads)
        if isinstance(result, list):
            result = [self._one_of(extent, key is not None) for extent in result]
            is_kept = known.keys() >= {id(extent) for extent in result}
        else:
            result = self._one_of(result, key is not None)
            is_kept = id(result) in known
        if key is not None and is_kept:
            self.spread[key] = result, (op.rule, reads)
        if self.nbytes > MOST_KEPT:
            vars(self).update(vars(_Alike()))
        return result

    def _one_of(self, found: Extent, is_repeated: bool) -> Extent:
        """The first extent that was equal to this one, where it is small: what was computed of it holds. A larger one
        is kept if it `is_repeated` as a whole."""
        if prod(found.shape) <= MOST_ALIKE:
            ends = found.lo.tobytes(), found.hi.tobytes(), found.clipped.tobytes()
            found = self.equal.setdefault((found.dims, found.shape, *ends, found.is_bound), found)
            self._keep(found, 2 * found.nbytes)
        elif is_repeated and type(found) is Extent and (n := found.nbytes) <= MOST_KEPT_OF_ONE:
            self._keep(found, n)
        return found

    def _keep(self, found: Extent, n: int) -> None:
        if id(found) not in self.known:
            self.known[id(found)] = found
            self.nbytes += n


_alike = _Alike()


def _extent(
    op: Op, axis: int, source: int, live: Mapping[int, Extents | NoReceptiveFieldError]
) -> Extents | NoReceptiveFieldError | None:
    if op.name == INPUT:
        has_axis = op.index == source and len(op.shape) > 2 + axis
        return _alike.of_input(op.shape[2 + axis], 2 + axis) if has_axis else None
    reads: list[tuple[Operand, Extent]] = []
    for o in op.operands:
        if o.producer is not None and o.producer in live:
            extent = live[o.producer]
            if isinstance(extent, NoReceptiveFieldError):
                return extent
            reads.append((o, _result(extent, o.slot)))
    return _alike.of(op, reads) if reads else None


def spread(op: Op, reads: Sequence[tuple[Operand, Extent]]) -> Extents:
    """What each position of an operator's result sees; a list if it has several results.

    Raises: NoReceptiveFieldError; RuleError if the row's function fails.
    """
    if op.rule is None or op.rule.spread is None:
        raise NoReceptiveFieldError(f"no rule {'' if op.rule is None else 'of its positions '}for {op.place}")
    try:
        extent = spread_of(op, reads)
    except NoIntervalError as error:
        raise NoReceptiveFieldError(f"{op.place}: {error}") from None
    if isinstance(extent, list):
        return [_checked(e, shape, op) for e, shape in zip(extent, op.shapes, strict=True)]
    return _checked(extent, op.shape, op)


def _result(extent: Extents, slot: int) -> Extent:
    return extent[slot] if isinstance(extent, list) else extent


def _checked(extent: Extent, shape: Shape, op: Op) -> Extent:
    sizes = tuple([shape[d] for d in extent.dims if d < len(shape)])
    if extent.shape != sizes:
        raise NoReceptiveFieldError(f"{op.place}: intervals for {extent.shape} positions, {sizes} exist")
    return extent.without_single()


@dataclass(frozen=True)
class ReceptiveField:
    """Sides of the input region that a unit sees, in pixels: height and width, or the one side of a signal.

    The largest over the positions whose windows meet no border. `is_whole`: one side is that of the input, whatever its
    size.
    """

    sides: tuple[int, ...]
    is_whole: bool = False

    @property
    def height_px(self) -> int:
        return self.sides[0]

    @property
    def width_px(self) -> int:
        return self.sides[-1]


# What comes between an input and the first convolution without a change of its positions; and what, before a map with
# the channels elsewhere, may be a product position by position.
PRELUDE = frozenset(("view", "pointwise", "norm", "pad", "index"))
PATCHES = frozenset(("join", "matmul"))


def image_dims(graph: Graph) -> tuple[int, ...]:
    """The dimensions of the first input that are spatial axes; empty for tokens and vectors.

    They are those that the first convolution or pooling slides along, in any layout; without one, and for an input with
    more than 3 dimensions, those after the channels.
    """
    n = len(graph.input_shapes[0]) if graph.input_shapes else 0
    reached, patches = {0}, set[int]()
    for op in graph.ops[1:]:
        if not (of_patches := patches.intersection(op.inputs)) and not reached.intersection(op.inputs):
            continue
        if op.kind in ("convolution", "pool"):
            dims = _slid_along(graph, op, reached | patches)
            if dims and (not of_patches or len(dims) == n - 2):
                return dims
            break
        if of_patches or op.kind in PATCHES:
            patches |= {op.index} if n > 3 and op.kind in PRELUDE | PATCHES else set()
        elif op.kind in PRELUDE:
            reached.add(op.index)
    return tuple(range(2, n)) if n > 3 else ()


def _slid_along(graph: Graph, op: Op, reached: Collection[int]) -> tuple[int, ...]:
    operand = next(o for o in op.operands if o.producer in reached)
    weight = op.arguments.get("weight")
    n_axes = len(weight.shape) - 2 if weight is not None else 1 if "pool1d" in op.name else len(operand.shape) - 2
    first = len(operand.shape) - n_axes
    if operand.producer == 0:
        return tuple(range(first, len(operand.shape)))
    assert operand.producer is not None
    found: list[tuple[int, int]] = []  # the first dimension of the map along which an input's shows, and that
    hidden: list[int] = []
    for dim in range(1, len(graph.input_shapes[0])):
        try:
            seen = extents(graph, dim - 2, [operand.producer]).get(operand.producer)
        except NoReceptiveFieldError:
            hidden.append(dim)
            continue
        if shown := [d for d in varied(seen) if d >= first] if seen is not None else []:
            found.append((shown[0], dim))
    # What cannot be followed is an axis where the map has more of them, and not without one that shows.
    missing = hidden[len(hidden) - max(n_axes - len(found), 0) :] if found else []
    return tuple(dim for _, dim in sorted(found + [(dim, dim) for dim in missing]))


@dataclass(frozen=True, eq=False)
class Sight:
    """A graph, and what the units of its operators see; each value is computed on first use, once."""

    graph: Graph
    _seen: dict[tuple[int, int], Extent | None] = field(default_factory=dict, repr=False)
    _squares: dict[int, bool] = field(default_factory=dict, repr=False)
    _ancestors: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @cached_property
    def dims(self) -> tuple[int, ...]:
        return image_dims(self.graph)

    def of(self, graph: Graph) -> Sight:
        """Another graph of the same model, whose input has the same axes."""
        other = Sight(graph)
        vars(other)["dims"] = self.dims
        return other

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes, as `extents` counts them: height and width, which are the last ones of a video."""
        return tuple(d - 2 for d in self.dims[-2:])

    def axes_to(self, target: int) -> tuple[int, ...]:
        """The axes along which an operator's units may see different sides; only the first if everything is square."""
        return self.axes[:1] if self.is_square(target) else self.axes

    def sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """One side for each spatial axis, from the sides along `axes_to`."""
        return tuple(sides[min(k, len(sides) - 1)] for k in range(len(self.axes)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the input along its spatial axes."""
        return tuple(self.graph.input_shapes[0][2 + axis] for axis in self.axes)

    def extent(self, axis: int, target: int) -> Extent:
        """What each position of an operator's result sees along an axis. Raises: NoReceptiveFieldError."""
        if (axis, target) not in self._seen:
            self._seen[axis, target] = extents(self.graph, axis, [target]).get(target)
        seen = self._seen[axis, target]
        if seen is None:
            raise NoReceptiveFieldError("it does not depend on the image")
        if seen.is_bound:
            module = self.graph.ops[target].module or "the model"
            raise NoReceptiveFieldError(f"{module}: positions that mix the axis with itself")
        return seen

    def keep(self, axis: int, target: int, extent: Extent) -> None:
        """Sets what each position of an operator's result sees, if it is already known."""
        self._seen[axis, target] = extent

    def is_square(self, target: int) -> bool:
        """Whether height and width are treated alike by every operator on the way to an operator."""
        if target not in self._squares:
            n = len(self.graph.input_shapes[0])
            is_square = self.dims == (2, 3)
            self._squares[target] = is_square and all(_is_square(self.graph.ops[i], n) for i in self.ancestors(target))
        return self._squares[target]

    def ancestors(self, target: int) -> list[int]:
        """As `Graph.ancestors`."""
        if target not in self._ancestors:
            self._ancestors[target] = self.graph.ancestors(target)
        return self._ancestors[target]


SQUARE = frozenset(("input", "convolution", "pool", "pointwise", "norm", "resize", "join"))


def _is_square(op: Op, n: int) -> bool:
    shapes = [*op.shapes, *(o.shape for o in op.operands)]
    if op.kind == "join" and op.arguments.get("dim") != 1:
        return False
    if op.kind not in SQUARE or any(len(shape) > 2 and shape[-1] != shape[-2] for shape in shapes):
        return False
    if op.kind == "norm" and "batch_norm" not in op.name:
        return False
    if any(o.producer is not None and len(o.shape) != n for o in op.operands):
        return False
    numbers = (v for v in op.arguments.values() if isinstance(v, tuple) and not any(isinstance(x, Operand) for x in v))
    scales = {op.arguments.get(name) for name in ("scales_h", "scales_w")}
    return len(scales) == 1 and all(len({x for x in v if not isinstance(x, bool)}) < 2 for v in numbers)


def receptive_field(sight: Sight | Graph, target: int) -> ReceptiveField | None:
    """The receptive field of an operator's units; None if every position is clipped (a larger input is needed).

    Source: araujo2019 for the definition. Intervals replace its formula, which does not cover up-sampling.
    Raises: NoReceptiveFieldError.
    """
    sight = Sight(sight) if isinstance(sight, Graph) else sight
    sides = []
    for axis in sight.axes_to(target):
        extent = sight.extent(axis, target)
        free = extent.sides[~extent.clipped]
        if free.size == 0:
            return None
        sides.append(int(free.max()))
    if not sides:
        raise NoReceptiveFieldError("the input is no image")
    return ReceptiveField(sight.sides(sides))


def feature_map(sight: Sight, needed: Collection[int], own: Graph, is_larger: bool) -> int | None:
    """The last operator before global pooling: the last one of `needed` whose units lie along a spatial axis.

    `own`: the same model on its original input. On a larger input a map must be larger: the result of a pooling to a
    fixed number of positions, as at the end of VGG, is not a map of the input. Behind an operator whose positions
    cannot be followed, a result whose shape has several positions is taken as a map.
    """
    end = next((i for i in sorted(needed) if _is_global_pooling(own, i, needed)), len(own.ops))
    last: dict[int, tuple[int, Extents | NoReceptiveFieldError]] = {}  # by axis: the last map and what it sees
    for axis in sight.axes:
        n_maps = 0
        for op, extent in _followed(sight.graph, axis, needed):
            if op.name == INPUT or "adaptive" in op.name:
                continue
            if isinstance(extent, NoReceptiveFieldError):
                is_map = sum(n > 1 for n in op.shape[1:]) > 1
            elif op.kind == "view":
                continue  # positions of the map before it
            else:
                before = own.ops[op.index].shape if is_larger else ()
                is_map = any(d >= len(before) or before[d] < op.shape[d] for d in _result(extent, 0).dims)
            if is_map:
                n_maps = op.index
                if op.index < end:
                    last[axis] = op.index, extent
        if n_maps and sight.is_square(n_maps):
            break
    chosen = max((index for index, _ in last.values()), default=None)
    for axis, (index, extent) in last.items():
        if index == chosen and not isinstance(extent, NoReceptiveFieldError):
            sight.keep(axis, index, _result(extent, 0))
    return chosen


def _is_global_pooling(own: Graph, index: int, needed: Collection[int]) -> bool:
    """Whether it takes the mean of the whole map, on the model's own input, and nothing behind it has a window."""
    op = own.ops[index]
    is_mean = op.kind == "pool" and "avg" in op.name and _n_positions(op) == 1
    if not is_mean or all(_n_positions(own.ops[i]) == 1 for i in op.inputs):
        return False
    return not any(_has_window(own.ops[i]) for i in needed if i > index)


def _has_window(op: Op) -> bool:
    weight = op.arguments.get("weight") if op.kind == "convolution" else None
    return op.kind == "pool" or (weight is not None and max(weight.shape[2:], default=1) > 1)


def is_of_fixed_size(before: Op, after: Op) -> bool:
    """Whether an operator gives the same number of positions, more than one, on a larger input as on a smaller one."""
    read = [[o.shape for o in op.operands if o.producer is not None] for op in (before, after)]
    return before.shape == after.shape and read[0] != read[1] and _n_positions(after) > 1


def _n_positions(op: Op) -> int:
    return prod(op.shape[2:])


def estimated_side(sight: Sight, targets: Collection[int]) -> int:
    """A rough upper bound of the receptive field at some operators, used to choose an input on which nothing is
    clipped.

    Source: araujo2019, equation 2, with the jump of each map taken from the sizes of the tensors.
    """
    graph, size = sight.graph, sight.sizes[-1]
    jumps: dict[int, float] = {0: 1.0}
    side: dict[int, float] = {}
    for index in sorted({i for target in targets for i in sight.ancestors(target)}):
        op = graph.ops[index]
        shape = op.shape
        if index:
            jumps[index] = size / max(shape[-1] if len(shape) >= 3 else 1, 1)
        before, jump = 1.0, 0.0
        for i in op.inputs:
            before, jump = max(before, side.get(i, 1.0)), max(jump, jumps[i])
        side[index] = before + _reach(op) * (jump or 1.0)
    return int(max((side[target] for target in targets), default=1))


def _reach(op: Op) -> int:
    """The positions of its map that an operator reads besides one."""
    weight = op.arguments.get("weight")
    kernel = op.arguments.get("kernel_size") or (weight.shape[2:] if weight is not None else ())
    if not isinstance(kernel, tuple) or not kernel or (op.kind == "pool" and _n_positions(op) == 1):
        return int(op.kind == "resize")
    dilation = op.arguments.get("dilation") or (1,)
    return (max(kernel) - 1) * (max(dilation) if isinstance(dilation, tuple) else 1) + (op.kind == "resize")
