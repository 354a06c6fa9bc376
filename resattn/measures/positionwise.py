"""Matrix products on maps with channels last, as one step instead of three: to rows, multiply, back to a map."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from math import prod

from resattn.graph.graph import Graph, Op, Operand, Shape
from resattn.rules import spreads
from resattn.rules.rule import Rule, Spread

RESHAPES = frozenset(("aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias"))


def positionwise(graph: Graph) -> Graph:
    """The graph with a map kept as a map where it is only reshaped to rows for a product with parameters.

    Every position sees the same as before; rows of height times width need not be split again. Indices stay.
    """
    readers: defaultdict[int, list[Op]] = defaultdict(list)
    for op in graph.ops:
        for i in op.inputs:
            readers[i].append(op)
    ops = list(graph.ops)
    for op in graph.ops:
        rows = op.arguments.get("mat1" if op.name == "aten.addmm" else "self") if op.name in PRODUCTS else None
        if rows is None or op.rule is None or rows.producer is None or op.inputs != (rows.producer,):
            continue
        before, after = graph.ops[rows.producer], readers[op.index]
        lead = _lead(before)
        if lead is None or not after or not all(_lays_back(each, lead) for each in after) or op.index in graph.outputs:
            continue
        if readers[before.index] != [op]:
            continue
        map_operand = before.operands[0]
        ops[before.index] = _kept(before, map_operand, map_operand.shape)
        read = Operand(map_operand.shape, before.index)
        others = {name: value for name, value in op.arguments.items() if value is not rows}
        shape, rule = (*lead, op.shape[-1]), _with_spread(op.rule, spreads.linear)
        call = None if op.call is None else (op.call, shape)
        ops[op.index] = Op(op.index, op.name, op.module, {"input": read, **others}, (shape,), rule, call)
        for each in after:
            ops[each.index] = _kept(each, Operand((*lead, op.shape[-1]), op.index), each.shape)
    return replace(graph, ops=tuple(ops))


PRODUCTS = frozenset(("aten.mm", "aten.addmm"))


def _lead(op: Op) -> Shape | None:
    """The dimensions before the channels of a map that an operator lays out as rows; None where it does not."""
    if op.name not in RESHAPES:
        return None
    shape = op.operands[0].shape
    is_rows = len(op.shape) == 2 < len(shape) and shape[-1] == op.shape[-1] and prod(shape[:-1]) == op.shape[0]
    return shape[:-1] if is_rows else None


def _lays_back(op: Op, lead: Shape) -> bool:
    return op.name in RESHAPES and op.shape[:-1] == lead


def _kept(op: Op, operand: Operand, shape: Shape) -> Op:
    rule = None if op.rule is None else _with_spread(op.rule, spreads.pointwise)
    call = None if op.call is None else (op.call, shape)
    return Op(op.index, op.name, op.module, {"self": operand}, (shape,), rule, call)


@lru_cache
def _with_spread(rule: Rule, spread: Spread) -> Rule:
    """The same object each time, by which operators are told to be alike."""
    return replace(rule, spread=spread)
