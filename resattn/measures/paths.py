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
    outputs = set(graph.outputs)
    n_bytes = max(totals.values(), default=0).bit_length() // 8 + 1  # of a coefficient
    unread = Counter(i for op in graph.ops if op.index in totals for i in op.inputs)
    unread.update(graph.outputs)
    packed: dict[int, int] = {}
    factors: list[int] = []
    last_input = max((i for i in totals if i >= 0 and graph.ops[i].name == INPUT), default=-1)
    for op in graph.ops:
        if op.index not in totals:
            continue
        polynomial = 1 if op.name == INPUT else sum(packed[i] for i in op.inputs if i in totals)
        for i in op.inputs:
            unread[i] -= 1
            if not unread[i]:
                packed.pop(i, None)  # a large network's polynomials would fill the memory together
        packed[op.index] = polynomial << (8 * n_bytes if is_layer[op.index] else 0)
        if len(packed) == 1 and op.index >= last_input and op.index not in outputs:
            # Every path passes this operator: the polynomial is the product of those before and behind it.
            factors.append(packed[op.index])
            packed[op.index] = 1
    found = sum(packed.get(output, 0) for output in graph.outputs)
    each = [_unpacked(polynomial, n_bytes) for polynomial in (*factors, found)]
    return {length: count for length, count in enumerate(_product(each)) if count}


def _product(factors: list[list[int]]) -> list[int]:
    """The product of polynomials, multiplied in pairs; the width of a coefficient grows with the product."""
    while len(factors) > 1:
        factors = [*map(_times, factors[::2], factors[1::2]), *factors[len(factors) & ~1 :]]
    return factors[0]


def _times(a: list[int], b: list[int]) -> list[int]:
    n = (sum(a) * sum(b)).bit_length() // 8 + 1
    return _unpacked(_packed(a, n) * _packed(b, n), n)


def _packed(coefficients: list[int], n_bytes: int) -> int:
    return int.from_bytes(b"".join(c.to_bytes(n_bytes, "little") for c in coefficients), "little")


def _unpacked(polynomial: int, n_bytes: int) -> list[int]:
    n = -(-polynomial.bit_length() // (8 * n_bytes))
    data = polynomial.to_bytes(n * n_bytes, "little")
    return [int.from_bytes(data[k : k + n_bytes], "little") for k in range(0, len(data), n_bytes)]


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
