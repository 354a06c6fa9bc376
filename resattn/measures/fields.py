"""The receptive fields of an operator's units, on an input with enough room that no border clips them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resattn.graph.errors import CaptureError
from resattn.graph.graph import Graph
from resattn.graph.inputs import Inputs
from resattn.measures import receptive
from resattn.measures.receptive import ReceptiveField
from resattn.measures.single_paths import path_fields


@dataclass(frozen=True)
class Fields:
    """What a unit sees: over all paths, with the masks removed, and along the paths that see least and most.

    None is what cannot be given; the notes say why.
    """

    union: ReceptiveField | None = None
    trunk: ReceptiveField | None = None
    narrowest: ReceptiveField | None = None
    widest: ReceptiveField | None = None
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[ReceptiveField | None, ...]:
        return self.union, self.trunk, self.narrowest, self.widest


def fields_at(graph: Graph, target: int, masks: Sequence[int], enlarged: Callable[[int], Graph]) -> Fields:
    """The receptive fields of an operator's units, on an input large enough that no border clips them.

    `masks`: the operators of the mask branches. `enlarged`: the model captured with this much room (see `unclipped`).
    """
    try:
        large, union, trunk = _over_all_paths(graph, target, masks, enlarged)
    except receptive.NoReceptiveFieldError as error:
        return Fields(notes=(str(error),))
    if union is None:
        return Fields(trunk=trunk, notes=("every position is clipped, and the model takes no larger input",))
    try:
        single = path_fields(large, target)
        assert single is not None  # the field over all paths was found at some position that is not clipped
    except receptive.NoReceptiveFieldError as error:
        return Fields(union, trunk, notes=(f"along single paths: {error}",))
    sizes, own = large.input_shapes[0][-2:], graph.input_shapes[0][-2:]
    narrowest, widest = (_reported(f, sizes, own, large is not graph) for f in (single.narrowest, single.widest))
    return Fields(union, trunk, narrowest, widest)


def _over_all_paths(
    graph: Graph, target: int, masks: Sequence[int], enlarged: Callable[[int], Graph]
) -> tuple[Graph, ReceptiveField | None, ReceptiveField | None]:
    """A graph of the model on an input with room, and what a unit sees there, with the masks and without."""
    room = ROOM
    while True:
        large = enlarged(room)
        seen, trunk = (receptive.receptive_field(g, target) for g in (large, large.without(masks)))
        sizes = large.input_shapes[0][-2:]
        if (_is_reported(seen, sizes) and _is_reported(trunk, sizes)) or large is graph or room > MOST_ROOM:
            break
        room *= 4
    has_room = large is not graph
    own = graph.input_shapes[0][-2:]
    return large, _reported(seen, sizes, own, has_room), _reported(trunk, sizes, own, has_room)


def _is_reported(field: ReceptiveField | None, sizes: Sequence[int]) -> bool:
    """A window takes a small part of an input with room, a global operator all of it; between the two, more room."""
    return field is not None and all(s == n or 2 * s <= n for s, n in zip(field.sides, sizes, strict=True))


def _reported(
    field: ReceptiveField | None, sizes: Sequence[int], own: Sequence[int], has_room: bool
) -> ReceptiveField | None:
    if field is None:
        return None
    whole = [side == n or (has_room and 2 * side > n) for side, n in zip(field.sides, sizes, strict=True)]
    height, width = (n if w else side for w, side, n in zip(whole, field.sides, own, strict=True))
    return ReceptiveField(height, width, any(whole))


# A receptive field is looked for on an input this many times its rough bound: enough positions stay free of the
# border to meet every phase of an up-sampling that drifts against its map (align-corners).
ROOM = 3
MOST_ROOM = 48


def unclipped(
    again: Callable[[Inputs, str], Graph], graph: Graph, target: int, inputs: Inputs, device: str, room: int = ROOM
) -> Graph:
    """The model captured again, on inputs large enough that the target's central units see no border.

    All inputs that are images grow alike. A model that takes its own input size alone is captured up to where it
    refuses. If that is before the target, or if something else runs on a larger input, the graph as it was comes
    back. A model that was run on values is first tried without: a large input costs nothing then.
    """
    shapes = inputs.shapes
    need = room * receptive.estimated_side(graph, target)
    times = max(-(-need // min(shapes[0][2:])), 1)
    grown = inputs.with_shapes([(*s[:2], *(times * n for n in s[2:])) if len(s) > 3 else s for s in shapes])
    for place in dict.fromkeys(("meta", device)):
        try:
            large = again(grown, place)
        except CaptureError as error:
            if error.graph is None:
                continue
            large = error.graph
        ran = [[(op.name, op.module) for op in g.ops[: target + 1]] for g in (graph, large)]
        if ran[0] == ran[1] and receptive.grows_with_input(graph, large, target):
            return large
    return graph
