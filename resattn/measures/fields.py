"""The receptive fields of an operator's units, on an input so large that no border clips them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from math import log, prod

from resattn.graph.errors import CaptureError, NeedsValuesError
from resattn.graph.graph import Graph, Op
from resattn.graph.inputs import Inputs
from resattn.measures.positionwise import positionwise
from resattn.measures.receptive import (
    NoReceptiveFieldError,
    ReceptiveField,
    Sight,
    estimated_side,
    is_of_fixed_size,
    receptive_field,
)
from resattn.measures.single_paths import path_fields
from resattn.rules import spreads
from resattn.rules.intervals import MOST_POSITIONS, groups
from resattn.rules.spreads import over_map


@dataclass(frozen=True)
class Fields:
    """Receptive fields of a unit: over all paths, without masks, and along the narrowest and the widest single path.

    None if a field cannot be given; the notes say why.
    """

    union: ReceptiveField | None = None
    trunk: ReceptiveField | None = None
    narrowest: ReceptiveField | None = None
    widest: ReceptiveField | None = None
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[ReceptiveField | None, ...]:
        return self.union, self.trunk, self.narrowest, self.widest


@dataclass(frozen=True, eq=False)
class Enlarged:
    """A model captured on an enlarged input.

    `n_alike`: the number of operators, from the first on, that also ran on the original input. `has_room`: whether the
    model took an input of the requested size. `otherwise`: graph and inputs, if the model runs to its end through other
    operators. `is_cut`: whether it was run on meta up to where it needs values.
    """

    sight: Sight
    n_alike: int
    has_room: bool
    otherwise: tuple[Graph, Inputs] | None = None
    is_cut: bool = False


def fields_at(own: Sight, target: int, masks: Collection[int], enlarged: Callable[[int, int], Enlarged]) -> Fields:
    """The receptive fields of an operator's units, on an input so large that no border clips them.

    `own`: the model on its own input. `masks`: the operators of the mask branches. `enlarged`: gives the model on an
    input enlarged for a target, by a multiple of the estimated side.
    """
    room = ROOM
    while True:
        large = enlarged(target, room)
        if target >= large.n_alike or _is_resized_to_a_size(own.graph, large.sight.graph, target):
            # On a larger input the windows would be parts of it.
            large = Enlarged(own, len(own.graph.ops), False)
        try:
            if _grows(large, room) and not _is_clear_along(large.sight, target, large.sight.axes_to(target)[0], room):
                _refuse_crowded(own, large.sight, target)
                room *= MORE_ROOM
                continue
            union = receptive_field(large.sight, target)
        except NoReceptiveFieldError as error:
            return Fields(notes=(str(error),))
        bare, trunk, notes = _without(large.sight, masks), None, []
        if target in masks:
            notes.append("part of a mask: without the masks it does not exist")
        else:
            try:
                trunk = receptive_field(bare, target) if masks else union
            except NoReceptiveFieldError as error:
                notes.append(f"without the masks: {error}")
        pairs = [(large.sight, union)] + ([] if trunk is None and notes else [(bare, trunk)])
        is_clear = all(_is_clear(sight, target, field, room) for sight, field in pairs)
        if is_clear or not _grows(large, room):
            break
        room *= MORE_ROOM
    if union is None:
        notes.append("every position is clipped, and the model takes no larger input")
        return Fields(trunk=_reported(trunk, large, own), notes=tuple(notes))
    narrowest = widest = None
    try:
        single = path_fields(large.sight, target)
        if single is not None:
            narrowest, widest = single.narrowest, single.widest
        else:
            notes.append("along single paths: every position is clipped")
    except NoReceptiveFieldError as error:
        notes.append(f"along single paths: {error}")
    fields = (_reported(field, large, own) for field in (union, trunk, narrowest, widest))
    union, trunk, narrowest, widest = fields
    return Fields(union, trunk, narrowest, widest, tuple(notes))


def _grows(large: Enlarged, room: int) -> bool:
    return large.has_room and room <= MOST_ROOM


def _is_clear_along(sight: Sight, target: int, axis: int, room: int) -> bool:
    """As `_is_clear`, along one axis: where it is not clear, the others need not be known."""
    extent = sight.extent(axis, target)
    free = extent.sides[~extent.clipped]
    n = sight.sizes[sight.axes.index(axis)]
    side = int(free.max()) if free.size else 0
    return side > 0 and (2 * side <= n or (side == n and (room > ROOM or _is_everywhere(sight, axis, target, n))))


def _refuse_crowded(own: Sight, large: Sight, target: int) -> None:
    """Raises: NoReceptiveFieldError where, on an input that is larger once more, a map that is laid out as rows has too
    many positions to tell apart."""
    times = large.sizes[0] / own.sizes[0]
    for index in large.ancestors(target):
        op, small = large.graph.ops[index], own.graph.ops[index]
        if op.rule is None or op.rule.spread is not spreads.reshape or len(op.shape) != len(small.shape):
            continue
        for olds, news in groups(op.operands[0].shape, op.shape):
            if len(olds) == len(news) == 1:
                continue
            now, before = prod(op.shape[d] for d in news), prod(small.shape[d] for d in news)
            n = now * MORE_ROOM ** round(log(now / before, times)) if now > before else now
            if now > times * before and n > MOST_POSITIONS:
                where = f"{op.name} in {op.module or 'the model'}"
                raise NoReceptiveFieldError(f"{where}: a reshape of a map with {n} positions to tell apart")


def reported_for(fields: Fields, sizes: Sequence[int], own: Sequence[int]) -> Fields:
    """The fields for an input of these sizes; a field that is the whole enlarged input is that of the own input."""

    def on_own(field: ReceptiveField | None) -> ReceptiveField | None:
        if field is None or not field.is_whole:
            return field
        sides = (mine if side == n else side for side, n, mine in zip(field.sides, sizes, own, strict=True))
        return ReceptiveField(tuple(sides), True)

    union, trunk, narrowest, widest = map(on_own, fields.fields)
    return Fields(union, trunk, narrowest, widest, fields.notes)


def _is_resized_to_a_size(small: Graph, large: Graph, target: int) -> bool:
    resizes = (i for i in small.ancestors(target) if small.ops[i].kind == "resize")
    return any(is_of_fixed_size(small.ops[i], large.ops[i]) for i in resizes)


def _without(sight: Sight, masks: Collection[int]) -> Sight:
    return sight.of(sight.graph.without(masks)) if masks else sight


def _is_clear(sight: Sight, target: int, field: ReceptiveField | None, room: int) -> bool:
    """A window takes a small part of an input with room, a global operator all of it; between the two, more room.

    Where some units see all of it and others do not, windows may have its size by chance: more room tells.
    """
    if field is None:
        return False
    for axis, side, n in zip(sight.axes, field.sides, sight.sizes, strict=True):
        if 2 * side > n and (side < n or (room == ROOM and not _is_everywhere(sight, axis, target, n))):
            return False
    return True


def _is_everywhere(sight: Sight, axis: int, target: int, n: int) -> bool:
    axis = axis if axis in sight.axes_to(target) else sight.axes[0]
    extent = sight.extent(axis, target)
    sides = extent.sides
    is_seeing = sides > 0  # a learned token sees nothing of any input
    is_free = is_seeing & ~extent.clipped  # behind a global operator most units are
    return bool((sides[is_free] == n).all()) and 2 * int(is_free.sum()) > int(is_seeing.sum())


def _reported(field: ReceptiveField | None, large: Enlarged, own: Sight) -> ReceptiveField | None:
    if field is None:
        return None
    sizes = large.sight.sizes
    whole = [side == n or (large.has_room and 2 * side > n) for side, n in zip(field.sides, sizes, strict=True)]
    sides = (n if w else side for w, side, n in zip(whole, field.sides, own.sizes, strict=True))
    return ReceptiveField(tuple(sides), any(whole))


# A receptive field is looked for on an input this many times its rough bound: enough positions stay free of the
# border to meet every phase of an up-sampling that drifts against its map (align-corners).
ROOM = 3
MOST_ROOM = 48
MORE_ROOM = 4  # so many times larger, where that was not enough
# The bound takes a grid of windows for a map that was down-sampled: a side beyond this is tried where a smaller one had
# no room. Fields through up-sampling with aligned corners depend a little on the side: the bounds of the largest
# networks of the explorer, three times 42,000 px, lie below it.
MOST_FIRST_PX = 2**18


def times_for(own: Sight, targets: Collection[int], room: int) -> int:
    """The factor to enlarge an input by, so that units in the middle of these operators' results see no border."""
    side = min(room * estimated_side(own, targets), MOST_FIRST_PX)
    return max(-(-side // min(own.sizes)), 2)


def enlarged_by(times: int, own: Sight, inputs: Inputs, places: Sequence[str], again: Callable[..., Graph]) -> Enlarged:
    """The model on inputs `times` as large; all inputs that are images grow by the same factor.

    A model that takes its own input size alone is captured up to the operator that refuses. `places`: devices to try;
    on "meta" a large input costs nothing.
    """
    grown = inputs.with_shapes([_grown(shape, own, times) for shape in inputs.shapes])
    for place in dict.fromkeys(places):
        otherwise, is_cut = None, False
        try:
            large = again(grown, place)
            otherwise = large, grown
        except CaptureError as error:
            if error.graph is None:
                continue
            large, is_cut = error.graph, isinstance(error, NeedsValuesError)
        large = positionwise(large)
        n_alike = _n_alike(own.graph, large)
        if n_alike > 1:
            sight = own.of(_with_whole_grids(own.graph, large, n_alike))
            return Enlarged(sight, n_alike, True, otherwise if n_alike < len(own.graph.ops) else None, is_cut)
    return Enlarged(own, len(own.graph.ops), False)


def _grown(shape: Sequence[int], own: Sight, times: int) -> tuple[int, ...]:
    first = own.graph.input_shapes[0]
    dims = own.dims if len(shape) == len(first) else range(2, len(shape)) if len(shape) > 3 else ()
    return tuple(times * n if d in dims else n for d, n in enumerate(shape))


def _n_alike(small: Graph, large: Graph) -> int:
    pairs = zip(small.ops, large.ops, strict=False)
    differ = (k for k, (a, b) in enumerate(pairs) if (a.name, a.module) != (b.name, b.module))
    return next(differ, min(len(small.ops), len(large.ops)))


def _with_whole_grids(small: Graph, large: Graph, n_alike: int) -> Graph:
    """Poolings to a fixed number of positions read the whole map: each window grows with the input."""

    def changed(op: Op) -> Op:
        if op.kind != "pool" or op.rule is None or op.index >= n_alike or not is_of_fixed_size(small.ops[op.index], op):
            return op
        return Op(op.index, op.name, op.module, op.arguments, op.shapes, replace(op.rule, spread=over_map))

    if not any(op.kind == "pool" for op in large.ops):
        return large
    return replace(large, ops=tuple(map(changed, large.ops)))
