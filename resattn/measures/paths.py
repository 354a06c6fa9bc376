"""The number of paths from input to output and their lengths, in exact integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from resattn.graph.graph import INPUT, Graph


def path_lengths(graph: Graph, is_layer: Sequence[bool]) -> dict[int, int]:
    """The number of input-to-output paths for each number of weighted layers.

    Paths add where branches meet and multiply in series: T + M * T has three operands, T twice. A distribution over
    lengths is a polynomial with one coefficient for each length. It is stored as one integer with its coefficients side
    by side, each with as many bits as the number of all paths needs, so that adding two is one addition.
    Source: veit2016, section 3 (unravelled view).
    """
    totals = _totals(graph)
    bits = max(totals.values(), default=0).bit_length() + 1
    unread = Counter(i for op in graph.ops if op.index in totals for i in op.inputs)
    unread.update(graph.outputs)
    packed: dict[int, int] = {}
    found = 0
    for op in graph.ops:
        if op.index not in totals:
            continue
        polynomial = 1 if op.name == INPUT else sum(packed[i] for i in op.inputs if i in totals)
        for i in op.inputs:
            unread[i] -= 1
            if not unread[i]:
                packed.pop(i, None)  # a large network's polynomials would fill the memory together
        packed[op.index] = polynomial << (bits if is_layer[op.index] else 0)
    for output in graph.outputs:
        found += packed.get(output, 0)
    mask, lengths, length = (1 << bits) - 1, {}, 0
    while found:
        if count := found & mask:
            lengths[length] = count
        found >>= bits
        length += 1
    return lengths


def _totals(graph: Graph) -> dict[int, int]:
    """Paths from the inputs to each operator that an output depends on."""
    wanted = {i for output in graph.outputs for i in graph.ancestors(output)}
    totals: dict[int, int] = {}
    for op in graph.ops:
        if op.index in wanted:
            totals[op.index] = 1 if op.name == INPUT else sum(totals.get(i, 0) for i in op.inputs)
    if graph.outputs:
        # All outputs together are the largest sum that a coefficient can hold.
        totals[-1] = sum(totals[o] for o in graph.outputs)
    return totals


def mean_length(lengths: dict[int, int]) -> Fraction | None:
    """The mean number of weighted layers over all paths, each with the same weight; None without paths."""
    total = sum(lengths.values())
    return Fraction(sum(n * c for n, c in lengths.items()), total) if total else None
