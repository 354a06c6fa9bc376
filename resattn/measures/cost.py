"""Multiply-adds and parameters, summed over a captured graph."""

from __future__ import annotations

from collections.abc import Collection

from resattn.graph.graph import Graph
from resattn.rules.rule import macs_of


def op_macs(graph: Graph) -> list[int]:
    """Multiply-adds of each operator: convolutions and matrix products, bias excluded; 0 without a rule."""
    return [macs_of(op) for op in graph.ops]


def constant_macs(graph: Graph) -> int:
    """Multiply-adds of the products that depend on no input; every call executes them."""
    return sum(map(macs_of, graph.constants))


def all_macs(graph: Graph) -> int:
    """Multiply-adds that one forward executes, including constants."""
    return sum(op_macs(graph)) + constant_macs(graph)


def read_params(graph: Graph, ops: Collection[int] | None = None) -> set[str]:
    """Names of the parameters that the execution reads, or that these operators read; a shared one is listed once."""
    chosen = (*graph.ops, *graph.constants) if ops is None else (graph.ops[i] for i in ops)
    # An output may be a parameter, or made from parameters alone, such as the scale that CLIP returns.
    return {name for op in chosen for name in op.params} | (graph.returned if ops is None else frozenset())


def n_params(graph: Graph, names: Collection[str]) -> int:
    return sum(graph.params[name] for name in names)
