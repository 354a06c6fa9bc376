"""Multiply-adds and parameters, folded over a captured graph."""

from __future__ import annotations

from collections.abc import Collection

from resattn.graph.graph import Graph
from resattn.rules.rule import macs_of


def op_macs(graph: Graph) -> list[int]:
    """Multiply-adds of each operator: convolutions and matrix products, bias excluded. 0 where there is no rule.

    The graph holds what data reaches: a product of parameters alone (a recomputed weight) is a constant and no cost.
    """
    return [macs_of(op) for op in graph.ops]


def read_params(graph: Graph, ops: Collection[int] | None = None) -> set[str]:
    """Names of the parameters that the execution reads (or that these operators do); a shared one stands once."""
    chosen = graph.ops if ops is None else (graph.ops[i] for i in ops)
    return {name for op in chosen for name in op.params}


def n_params(graph: Graph, names: Collection[str]) -> int:
    return sum(graph.params[name] for name in names)
