"""The layout of a network's drawing: each operator to scale, branch by branch, repeated blocks once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resattn.graph.graph import Op
from resattn.measures.captured import Captured
from resattn.measures.roles import MASK, SHORTCUT, TRUNK
from resattn.views.tree import FUNCTIONAL, Node

# Kinds of operators that are drawn although they are no layers; others are parts of a line.
SHOWN = ("input", "pool", "resize", "join", "reduce", "attention", "convolution", "matmul")
ROOM = 0.3  # of a step of one layer, in front of it: for what is no layer
MOST_BEFORE = 4  # such operators that get a place of their own there


@dataclass(frozen=True)
class Block:
    """A module that stands for `times` equal consecutive ones, drawn from `start` to `stop`."""

    path: str
    times: int
    start: float
    stop: float


@dataclass(frozen=True)
class Mark:
    """One drawn operator: a weighted layer is one unit long, its thickness shows its multiply-adds; others are points.

    `x`: weighted layers on the longest way to it. `lane`: 0 is the trunk, masks and branches are below, shortcuts
    above. `before`: the marks that its data comes from.
    """

    op: int
    x: float
    lane: int
    is_layer: bool
    macs: int
    role: str
    is_on_longest: bool
    before: tuple[int, ...]


@dataclass(frozen=True)
class Drawing:
    """Marks in order of execution. `before` of a mark holds numbers of marks, `op` the number of an operator."""

    marks: tuple[Mark, ...]
    blocks: tuple[Block, ...]

    @property
    def length(self) -> int:
        """Length in weighted layers."""
        return max((int(m.x) + m.is_layer for m in self.marks), default=0)


def drawing(network: Captured, root: Node | None = None) -> Drawing:
    """The drawing of a captured network. `root`: its module tree; consecutive equal modules are drawn once."""
    graph, is_layer = network.graph, network.is_layer
    repeats = dict(_repeats(root)) if root is not None else {}
    hidden_modules = {path for paths in repeats.values() for path in paths}
    hidden = {op.index for op in graph.ops if any(above in hidden_modules for above in _above(op.module))}
    readers: dict[int, int] = defaultdict(int)
    for op in graph.ops:
        for i in set(op.inputs):
            readers[i] += 1
    needed = {i for output in graph.outputs for i in graph.ancestors(output)}
    ends = set(graph.outputs)
    longest = set(network.longest.ops) if network.longest else set()
    reached: dict[int, tuple[int, ...]] = {}  # operator -> the drawn ones that its result comes from
    drawn: list[Op] = []
    for op in graph.ops:
        before = tuple(dict.fromkeys(i for p in op.inputs for i in reached[p]))
        is_shown = op.index in needed and op.index not in hidden and (
            is_layer[op.index] or op.kind in SHOWN or op.rule is None or len(before) > 1 or op.index in ends
        )  # fmt: skip
        if is_shown:
            drawn.append(op)
        reached[op.index] = (op.index,) if is_shown else before
    number = {op.index: k for k, op in enumerate(drawn)}
    before_of = [
        tuple(number[i] for i in dict.fromkeys(i for p in op.inputs for i in reached[p] if i in number)) for op in drawn
    ]
    xs = _positions(drawn, before_of, is_layer)
    roles = [network.role_of(op) for op in drawn]
    lanes = _lanes(xs, before_of, roles, [is_layer[op.index] for op in drawn])
    marks = tuple(
        Mark(op.index, x, lane, is_layer[op.index], network.macs[op.index], role, op.index in longest, before)
        for op, x, lane, role, before in zip(drawn, xs, lanes, roles, before_of, strict=True)
    )
    return Drawing(marks, tuple(_blocks(repeats, drawn, marks)))


def _above(path: str) -> Iterator[str]:
    """The module and all that hold it."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _repeats(root: Node) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The last of equal modules in a row, and those before it."""
    row: list[Node] = []
    for child in (*(c for c in root.children if c.kind != FUNCTIONAL), None):
        if child is not None and child.runs and row and row[-1].signature == child.signature:
            row.append(child)
            continue
        if row:
            if len(row) > 1:
                yield row[-1].path, tuple(n.path for n in row[:-1])
            yield from _repeats(row[-1])
        row = [child] if child is not None else []


def _positions(drawn: Sequence[Op], before: Sequence[Sequence[int]], is_layer: Sequence[bool]) -> list[float]:
    layers: list[int] = []  # passed before
    points: list[int] = []  # that are no layers, since the last layer
    for op, reads in zip(drawn, before, strict=True):
        ahead = max((layers[i] + is_layer[drawn[i].index] for i in reads), default=0)
        same = [points[i] for i in reads if layers[i] + is_layer[drawn[i].index] == ahead]
        layers.append(ahead)
        points.append(0 if is_layer[op.index] else 1 + max(same, default=-1))
    return [
        n if is_layer[op.index] else n + ROOM * min(p, MOST_BEFORE) / (MOST_BEFORE + 1)
        for op, n, p in zip(drawn, layers, points, strict=True)
    ]


def _lanes(
    xs: Sequence[float], before: Sequence[Sequence[int]], roles: Sequence[str], is_layer: Sequence[bool]
) -> list[int]:
    """A lane for each mark: the longest way of the trunk is 0; a branch keeps its lane until it joins."""
    after: dict[int, list[int]] = defaultdict(list)
    for k, reads in enumerate(before):
        for i in reads:
            after[i].append(k)
    rest = [0] * len(xs)  # weighted layers behind a mark
    for k in range(len(xs) - 1, -1, -1):
        rest[k] = is_layer[k] + max((rest[n] for n in after[k]), default=0)
    order = {TRUNK: 0, SHORTCUT: 1, MASK: 2}
    heir = {k: min(nexts, key=lambda n: (order.get(roles[n], 0), -rest[n], n)) for k, nexts in after.items() if nexts}
    taken: dict[int, list[tuple[float, float]]] = defaultdict(list)
    lanes: list[int] = []

    def is_free(lane: int, start: float, stop: float) -> bool:
        spans = taken[lane]  # sorted, and none overlaps another
        at = bisect_left(spans, (start, stop))
        return all(stop <= a or b <= start for a, b in spans[max(at - 1, 0) : at + 1])

    ends = [x + own for x, own in zip(xs, is_layer, strict=True)]
    for k, reads in enumerate(before):
        begin = xs[k] + ROOM * is_layer[k]
        lane = None
        for i in sorted((i for i in reads if heir[i] == k), key=lambda i: (abs(lanes[i]), -xs[i])):
            if is_free(lanes[i], min(ends[i], begin), ends[k]):
                lane = lanes[i]
                insort(taken[lane], (min(ends[i], begin), ends[k]))
                break
        if lane is None:
            home = min((lanes[i] for i in reads), key=abs, default=0)
            # A branch takes its lane from where it leaves.
            start = min(begin, min((ends[i] for i in reads), default=begin))
            step = -1 if roles[k] == SHORTCUT else 1
            lane = home + step if reads or taken[home] else home
            while not is_free(lane, start, ends[k]):
                lane += step
            insort(taken[lane], (start, ends[k]))
        lanes.append(lane)
    return lanes


def _blocks(repeats: Mapping[str, Sequence[str]], drawn: Sequence[Op], marks: Sequence[Mark]) -> Iterator[Block]:
    spans: dict[str, tuple[float, float]] = {}
    for op, mark in zip(drawn, marks, strict=True):
        for path in _above(op.module):
            if path in repeats:
                start, stop = spans.get(path, (mark.x, mark.x))
                spans[path] = min(start, mark.x), max(stop, mark.x + mark.is_layer)
    for path, (start, stop) in spans.items():
        yield Block(path, len(repeats[path]) + 1, start, stop)
