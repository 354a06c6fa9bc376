"""The module tree of a captured network: what each module contains, costs and sees. Costs sum to the totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from typing import Any

from resattn.graph.graph import INPUT, Graph, Op, Shape
from resattn.measures import cost, depth, receptive
from resattn.measures.captured import Captured, PartError
from resattn.measures.grid import grid
from resattn.measures.receptive import NoReceptiveFieldError
from resattn.rules.intervals import Extent
from resattn.rules.rule import is_layer, macs_of

DEAD = "dead"
FUNCTIONAL = "functional"
# Operators that move values and compute none: functional work of these alone has no row of its own.
MOVES = ("view", "shape", "index", "input")


@dataclass(frozen=True, slots=True)
class Seen:
    """The receptive field of a module's units along one axis of the image; None for a value that cannot be given."""

    side_px: int
    is_whole: bool = False
    stride: Fraction | None = None
    offset: int | None = None


@dataclass(frozen=True)
class Node:
    """One module, or the functional operators of a module with children (kind `functional`).

    `params`, `macs`: of the subtree; `own_params`, `own_macs`: without the children. A shared parameter counts once,
    where it is defined; `unread`: parameters that no execution reads. `unknown`: operators without a rule, for which
    `macs` is a lower bound. `layers`: weighted layers in it; `depth`: the most on any path from the input to its end.
    `is_pointwise`: only element-wise operators. `times`: the number of equal consecutive modules that it stands for; it
    is the last of them, and `name` names all.
    """

    path: str
    name: str
    kind: str
    role: str = ""
    output: Shape | None = None
    params: int = 0
    own_params: int = 0
    macs: int = 0
    own_macs: int = 0
    own_unknown: bool = False
    layers: int = 0
    depth: int = 0
    height: Seen | None = None
    width: Seen | None = None
    runs: int = 0
    unread: int = 0
    unknown: tuple[str, ...] = ()
    is_pointwise: bool = False
    times: int = 1
    children: tuple[Node, ...] = ()

    def walk(self, depth: int | None = None, level: int = 0) -> Iterator[tuple[int, Node]]:
        """The nodes with their level, parents first, down to `depth`."""
        yield level, self
        if depth is None or level < depth:
            for child in self.children:
                yield from child.walk(depth, level + 1)

    @property
    def height_of_tree(self) -> int:
        return max(level for level, _ in self.walk())

    def find(self, path: str) -> Node:
        """The node of a module. Raises: PartError with the nearest names."""
        nodes = {node.path: node for _, node in self.walk() if node.kind != FUNCTIONAL}
        if path not in nodes:
            near = get_close_matches(path, nodes, n=3) or list(nodes)[1:4]
            raise PartError(f"no module {path!r}" + (f" (nearest: {', '.join(near)})" if near else ""))
        return nodes[path]

    @cached_property
    def signature(self) -> tuple[Any, ...]:
        """A key that is equal for modules that can be shown as one."""
        numbers = (self.params, self.macs, self.layers, self.runs, self.unread, self.times)
        own = (self.kind, self.role, self.output, *numbers)
        return (*own, *(((c.kind == FUNCTIONAL and c.name) or c.path[len(self.path) :], c.signature)
                        for c in self.children))  # fmt: skip

    def folded(self) -> Node:
        """The tree with equal consecutive modules as one node with `times`: the last of them."""
        children: list[Node] = []
        firsts: list[Node] = []
        for child in (c.folded() for c in self.children):
            if children and child.kind != FUNCTIONAL and children[-1].signature == replace(
                child, times=children[-1].times
            ).signature:  # fmt: skip
                n = children[-1].times + 1
                children[-1] = replace(child, times=n, name=_range(firsts[-1].name, child.name))
            else:
                children.append(child)
                firsts.append(child)
        return replace(self, children=tuple(children))


def _range(first: str, last: str) -> str:
    """unit2..3 for unit2 to unit3."""
    stem = first.rstrip("0123456789")
    return f"{first}..{last.removeprefix(stem)}" if last.removeprefix(stem).isdigit() else f"{first}..{last}"


def tree(network: Captured, *, with_fields: bool = True) -> Node:
    """The root of the module tree. `with_fields`: False leaves out receptive fields, which take most of the time."""
    return _Tree(network, with_fields).node("", network.name)[0]


def rows(root: Node) -> list[dict[str, Any]]:
    """The modules that contain or cost something of their own, without their children: they sum to the total."""
    found = []
    for _, node in root.walk():
        layers = node.layers - sum(c.layers for c in node.children if c.kind != FUNCTIONAL)
        unread = node.unread - sum(c.unread for c in node.children if c.kind != FUNCTIONAL)
        if node.kind != FUNCTIONAL and (node.own_params or node.own_macs or layers or unread or node.own_unknown):
            found.append(
                {
                    "module": node.path, "kind": node.kind, "output": list(node.output or ()),
                    "params": node.own_params, "macs": None if node.own_unknown else node.own_macs, "layers": layers,
                    "runs": node.runs,
                    "unread": unread,
                }
            )  # fmt: skip
    return found


class _Tree:
    def __init__(self, network: Captured, with_fields: bool) -> None:
        self.network, self.graph = network, network.graph
        self.modules = {m.path: m for m in self.graph.modules}
        self.own: dict[str, list[Op]] = defaultdict(list)
        for op in self.graph.ops:
            if op.name != INPUT:
                self.own[op.module].append(op)
        # Products that no input reaches: their cost and layers are the module's, on no path.
        self.constants: dict[str, list[Op]] = defaultdict(list)
        for op in self.graph.constants:
            self.constants[op.module].append(op)
        ahead = depth.layers_ahead(self.graph, network.is_layer)
        self.after = [n + own for n, own in zip(ahead, network.is_layer, strict=True)]
        read = cost.read_params(self.graph)
        owner: dict[str, str] = {}
        for m in self.graph.modules:
            for p in m.params:
                owner.setdefault(p, m.path)
        self.read: dict[str, int] = defaultdict(int)
        self.unread: dict[str, int] = defaultdict(int)
        for name, n in self.graph.params.items():
            (self.read if name in read else self.unread)[owner.get(name, name.rpartition(".")[0])] += n
        self.below: dict[str, list[str]] = defaultdict(list)
        for path in dict.fromkeys([*self.modules, *self.own, *self.constants, *owner.values()]):
            while path and path not in self.below[path.rpartition(".")[0]]:
                self.below[path.rpartition(".")[0]].append(path)
                path = path.rpartition(".")[0]
        targets = {path: at for path in ("", *self.modules, *self.own) if (at := self._last(path)) is not None}
        asked = {*targets.values(), *(ops[-1].index for ops in self.own.values())}
        self.seen = _seen(network, asked) if with_fields else {}
        self.targets = targets

    def _last(self, path: str) -> int | None:
        """The operator whose result a module returns: that of its last run."""
        module = self.modules.get(path)
        if module is not None and module.result is not None and module.result.producer is not None:
            return module.result.producer
        ops = self.own.get(path)
        return ops[-1].index if ops else None

    def node(self, path: str, name: str) -> tuple[Node, list[int]]:
        """The node of a module, and the operators that ran in it."""
        module, own = self.modules.get(path), [op.index for op in self.own.get(path, [])]
        below = [self.node(p, p[len(path) :].lstrip(".")) for p in self.below.get(path, [])]
        # In order of execution; a module without operators comes after what it returns.
        below.sort(key=lambda pair: min(pair[1], default=self.targets.get(pair[0].path, len(self.graph.ops)) + 0.5))
        children, inside = [child for child, _ in below], sorted([*own, *(i for _, ops in below for i in ops)])
        constants = self.constants.get(path, [])
        mine = self._numbers(own, constants, self.read[path], self.unread[path])
        total = {k: mine[k] + sum(getattr(c, k) for c in children) for k in ("params", "macs", "layers", "unread")}
        work = [op for op in (*(self.graph.ops[i] for i in own), *constants) if op.kind not in MOVES]
        if children and (self.read[path] or work):
            label = ", ".join(dict.fromkeys(map(_plain, work))) or "parameters"
            last = own[-1] if own else None
            after = max((self.after[i] for i in own), default=0)
            about = {**mine, **self._place(last)}
            children.append(Node(path, f"({label})", FUNCTIONAL, self._role(own), runs=1, depth=after, **about))
        runs = module.n_runs if module else int(bool(own))
        is_dead = not inside and not runs and total["unread"] > 0 and not total["params"]
        target = self.targets.get(path)
        place = self._place(target)
        if module and module.result:
            place["output"] = module.result.shape
        is_unknown = bool(mine["unknown"])
        unknown = dict.fromkeys((*mine.pop("unknown"), *(u for c in children for u in c.unknown)))
        node = Node(
            path, name, module.kind if module else "", DEAD if is_dead else self._role(inside), runs=runs,
            own_params=self.read[path], own_macs=mine["macs"], own_unknown=is_unknown,
            # A module that returns its input has no operators: what it returns is as deep as before it.
            depth=max((self.after[i] for i in inside), default=0 if target is None else self.after[target]),
            is_pointwise=mine["is_pointwise"] and all(c.is_pointwise for c in children),
            unknown=tuple(unknown), children=tuple(children), **total, **place,
        )  # fmt: skip
        return node, inside

    def _numbers(self, ops: Sequence[int], constants: Sequence[Op], params: int, unread: int) -> dict[str, Any]:
        network, run = self.network, [*(self.graph.ops[i] for i in ops), *constants]
        return {
            "params": params,
            "unread": unread,
            "macs": sum(network.macs[i] for i in ops) + sum(map(macs_of, constants)),
            "layers": sum(network.is_layer[i] for i in ops) + sum(map(is_layer, constants)),
            "is_pointwise": all(op.kind in (*MOVES, "pointwise") for op in run),
            "unknown": tuple(dict.fromkeys(op.name for op in run if op.rule is None)),
        }

    def _place(self, op: int | None) -> dict[str, Any]:
        if op is None:
            return {}
        height, width = self.seen.get(op, (None, None))
        return {"output": self.graph.ops[op].shape, "height": height, "width": width}

    def _role(self, ops: Sequence[int]) -> str:
        found = {self.network.roles.of[i] for i in ops}
        return found.pop() if len(found) == 1 else ""


def _plain(op: Op) -> str:
    """The name of an operator as its author knows it: `max_pool2d`, not `max_pool2d_with_indices`."""
    name = op.name.rpartition(".")[2].strip("_")
    return name.removeprefix("native_").removeprefix("safe_").removesuffix("_with_indices").removesuffix("_no_training")


# -- receptive fields of every module, from one enlarged capture


def _seen(network: Captured, targets: set[int]) -> dict[int, tuple[Seen | None, Seen | None]]:
    """For each operator what its units see along height and width, on an input with room; on the network's own input
    from the operator on that refuses a larger one (a position table)."""
    if not network.is_image or network.feature_map is None:
        return {}
    large, small = network.large, network.graph
    same = _same_prefix(small, large)
    last = len(large.input_shapes[0]) - 1  # in a video time comes before height; a signal has only one axis
    found: list[dict[int, Seen | None]] = []
    for dim in range(max(last - 1, 2), last + 1):
        along: dict[int, Seen | None] = {}
        for graph, part in ((large, {i for i in targets if i < same}), (small, {i for i in targets if i >= same})):
            extents = _extents(graph, dim - 2, sorted(part)) if part else {}
            size, own = graph.input_shapes[0][dim], small.input_shapes[0][dim]
            along |= {i: _along(e, dim, size, own, graph is not small) for i, e in extents.items()}
        found.append(along)
    return {i: (found[0].get(i), found[-1].get(i) if len(found) > 1 else None) for i in {*found[0], *found[-1]}}


def _extents(graph: Graph, axis: int, targets: Sequence[int]) -> dict[int, Extent]:
    """The extents of as many of the operators as have one, in order of execution."""
    try:
        return receptive.extents(graph, axis, targets)
    except NoReceptiveFieldError:
        if len(targets) < 2:
            return {}
        half = len(targets) // 2
        found = _extents(graph, axis, targets[:half])
        # Where the first half fails, so does what follows from it.
        return {**found, **_extents(graph, axis, targets[half:])} if len(found) == half else found


def _along(extent: Extent, dim: int, size: int, own: int, has_room: bool) -> Seen | None:
    free = extent.sides[~extent.clipped]
    if extent.is_bound or free.size == 0:
        return None
    side = int(free.max())
    if side == size or (has_room and 2 * side > size):
        return Seen(own, True)
    regular = grid(extent, dim)
    return Seen(side) if regular is None else Seen(side, False, regular.stride, regular.offset)


def _same_prefix(a: Graph, b: Graph) -> int:
    for i, (x, y) in enumerate(zip(a.ops, b.ops, strict=False)):
        if (x.name, x.module) != (y.name, y.module):
            return i
    return min(len(a.ops), len(b.ops))
