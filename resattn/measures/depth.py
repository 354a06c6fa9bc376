"""Depth of a captured graph: the number of weighted layers on its paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from resattn.graph.graph import INPUT, Graph, Op


@dataclass(frozen=True)
class Path:
    """Operators from an input to an output, and the number of weighted layers among them."""

    ops: tuple[int, ...]
    n_layers: int


def longest_path(graph: Graph, is_layer: Sequence[bool]) -> Path | None:
    """A path with the most weighted layers (the first found among equals); None if no output depends on an input."""
    return _extreme(graph, is_layer, max)


def shortest_path(graph: Graph, is_layer: Sequence[bool]) -> Path | None:
    return _extreme(graph, is_layer, min)


def _extreme(graph: Graph, is_layer: Sequence[bool], choose: Callable[..., int]) -> Path | None:
    layers: dict[int, int] = {}
    came_from: dict[int, int] = {}
    for op in graph.ops:
        reached = [i for i in op.inputs if i in layers]
        if op.name != INPUT and not reached:
            continue
        before = 0
        if reached:
            came_from[op.index] = choose(reached, key=layers.__getitem__)
            before = layers[came_from[op.index]]
        layers[op.index] = before + is_layer[op.index]
    ends = [o for o in graph.outputs if o in layers]
    if not ends:
        return None
    at = choose(ends, key=layers.__getitem__)
    n_layers, walk = layers[at], [at]
    while at in came_from:
        at = came_from[at]
        walk.append(at)
    return Path(tuple(reversed(walk)), n_layers)


def longest_within(ops: Iterable[Op], is_layer: Sequence[bool]) -> int:
    """The largest number of weighted layers on a path within `ops`, which are in order of execution."""
    layers: dict[int, int] = {}
    for op in ops:
        layers[op.index] = is_layer[op.index] + max((layers.get(i, 0) for i in op.inputs), default=0)
    return max(layers.values(), default=0)


def layers_ahead(graph: Graph, is_layer: Sequence[bool]) -> list[int]:
    """For each operator the largest number of weighted layers on a path that ends just before it."""
    after: list[int] = []
    ahead: list[int] = []
    for op in graph.ops:
        ahead.append(max((after[i] for i in op.inputs), default=0))
        after.append(ahead[-1] + is_layer[op.index])
    return ahead
