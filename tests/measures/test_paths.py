"""How many paths, and how long: against enumeration, and the laws of series and parallel."""

from __future__ import annotations

import pytest
import torch
from drawn import networks
from hypothesis import assume, given
from hypothesis import settings as limited
from hypothesis import strategies as st
from nets import NETS, Apply, Branches, conv, made
from oracles import enumerated_paths, walked_paths
from torch import Tensor, nn

from resattn.graph.graph import INPUT, Graph, Op, Operand
from resattn.measures.captured import capture
from resattn.measures.depth import longest_path, shortest_path
from resattn.measures.paths import mean_length, path_lengths
from resattn.rules.table import layer_flags

X = (1, 4, 8, 8)

MINI_RAN = {3: 1, 5: 3, 6: 4, 7: 2, 8: 12, 9: 6, 10: 8, 11: 18, 12: 4, 13: 12, 14: 12, 15: 1, 16: 8, 17: 3, 19: 2}


def lengths(model: nn.Module, *shapes: tuple[int, ...]) -> dict[int, int]:
    graph = capture(model, *(shapes or (X,)))
    return path_lengths(graph, layer_flags(graph))


def test_mini_ran() -> None:
    model, shapes = made("MiniRAN")
    assert lengths(model, *shapes) == MINI_RAN
    assert sum(MINI_RAN.values()) == 96


@pytest.mark.parametrize("name", sorted(set(NETS) - {"DataDependent"}))
def test_every_path_of_the_tiny_nets_is_walked(name: str) -> None:
    model, shapes = made(name)
    graph = capture(model, *shapes)
    layers = layer_flags(graph)
    assert path_lengths(graph, layers) == walked_paths(graph, layers)


@limited(max_examples=40)
@given(networks(10))
def test_every_path_of_random_networks_is_walked(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = drawn
    graph = capture(model, shape)
    layers = layer_flags(graph)
    found = path_lengths(graph, layers)
    assume(sum(found.values()) < 500)
    assert found == walked_paths(graph, layers)
    assert longest_path(graph, layers).n_layers == max(found)
    assert shortest_path(graph, layers).n_layers == min(found)


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[Graph, list[bool], list[tuple[int, int]]]:
    """An acyclic multigraph: operators in order, each reading some of those before it, also twice."""
    n = draw(st.integers(1, 9))
    n_inputs = draw(st.integers(1, min(2, n)))
    ops = [Op(i, INPUT, "", {}, ((1,),)) for i in range(n_inputs)]
    edges = []
    for i in range(n_inputs, n):
        reads = draw(st.lists(st.integers(0, i - 1), max_size=3))
        edges += [(r, i) for r in reads]
        ops.append(Op(i, "aten.add", "", {"x": tuple(Operand((1,), r) for r in reads)}, ((1,),)))
    outputs = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2, unique=True))
    layers = [False] * n_inputs + draw(st.lists(st.booleans(), min_size=n - n_inputs, max_size=n - n_inputs))
    return Graph(tuple(ops), tuple(outputs), {}, (), ((1,),)), layers, edges


@given(random_graphs())
def test_random_graphs_are_walked(drawn: tuple[Graph, list[bool], list[tuple[int, int]]]) -> None:
    graph, layers, edges = drawn
    sources = [op.index for op in graph.ops if op.name == INPUT]
    wanted = enumerated_paths(len(graph.ops), edges, sources, graph.outputs, layers.__getitem__)
    assert path_lengths(graph, layers) == wanted
    longest, shortest = longest_path(graph, layers), shortest_path(graph, layers)
    assert (longest.n_layers if longest else None) == max(wanted, default=None)
    assert (shortest.n_layers if shortest else None) == min(wanted, default=None)


def multiplied(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
    product: dict[int, int] = {}
    for n, count in a.items():
        for m, other in b.items():
            product[n + m] = product.get(n + m, 0) + count * other
    return product


PARTS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def ways(depths: list[int]) -> nn.Module:
    """Beside each other, so many convolutions in a row."""
    return Branches(*(nn.Sequential(*(conv(4, 4) for _ in range(n))) for n in depths))


@limited(max_examples=15)
@given(PARTS, PARTS)
def test_paths_multiply_in_series_and_add_in_parallel(first: list[int], second: list[int]) -> None:
    a, b = lengths(ways(first)), lengths(ways(second))
    assert lengths(nn.Sequential(ways(first), ways(second))) == dict(sorted(multiplied(a, b).items()))
    assert lengths(ways(first + second)) == {n: a.get(n, 0) + b.get(n, 0) for n in sorted({*a, *b})}


def test_the_merge_has_three_operands_or_two() -> None:
    def trunk_plus_product(x: Tensor) -> Tensor:
        t, m = x * 2, torch.sigmoid(x)
        return t + m * t

    def product_of_one_plus(x: Tensor) -> Tensor:
        t, m = x * 2, torch.sigmoid(x)
        return (1 + m) * t

    assert lengths(Apply(trunk_plus_product)) == {0: 3}
    assert lengths(Apply(product_of_one_plus)) == {0: 2}


def test_a_tensor_read_for_its_shape_is_no_path() -> None:
    model, shapes = made("PhantomShape")
    assert lengths(model, *shapes) == {1: 1}


@pytest.mark.parametrize("name", ["MiniRAN", "CBAM", "Interleaved"])
def test_wrapping_and_renaming_change_nothing(name: str) -> None:
    model, shapes = made(name)
    wrapped = nn.Sequential(nn.Identity(), nn.ModuleDict({"other": made(name)[0]})["other"])
    assert lengths(wrapped, *shapes) == lengths(model, *shapes)


def test_counts_are_exact_however_large() -> None:
    block = Branches(*(nn.Identity() for _ in range(3)), conv(4, 4, 1))
    found = lengths(nn.Sequential(*(block for _ in range(100))))
    assert sum(found.values()) == 4**100
    assert found[100] == 1
    assert found[1] == 100 * 3**99
    assert mean_length(found) == 25


def test_without_a_path_there_is_no_length() -> None:
    graph = capture(Apply(lambda x: torch.ones(3)), X)
    assert path_lengths(graph, layer_flags(graph)) == {}
    assert mean_length({}) is None
    assert longest_path(graph, layer_flags(graph)) is None
