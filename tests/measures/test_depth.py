"""How many weighted layers a signal passes, and which."""

from __future__ import annotations

import pytest
from drawn import networks
from hypothesis import given
from hypothesis import settings as limited
from nets import Branches, PlainLists, conv, made
from torch import nn

from resattn.graph.graph import INPUT, Graph
from resattn.measures.captured import capture
from resattn.measures.depth import longest_path, longest_within, shortest_path
from resattn.rules.table import layer_flags

X = (1, 4, 8, 8)


def both(graph: Graph) -> tuple[int, int]:
    layers = layer_flags(graph)
    longest, shortest = longest_path(graph, layers), shortest_path(graph, layers)
    assert longest is not None
    assert shortest is not None
    return longest.n_layers, shortest.n_layers


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("MiniRAN", (19, 3)),
        ("RunTwice", (2, 2)),
        ("SeveralNames", (3, 3)),
        ("Identity", (1, 0)),
        ("DeadProjection", (2, 0)),
        ("PhantomShape", (1, 1)),
        ("SqueezeExcitation", (3, 1)),
        ("Interleaved", (2, 1)),
    ],
)
def test_the_tiny_nets(name: str, wanted: tuple[int, int]) -> None:
    model, shapes = made(name)
    assert both(capture(model, *shapes)) == wanted


@limited(max_examples=40)
@given(networks(10))
def test_a_longest_path_is_a_path_of_that_length(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = drawn
    graph = capture(model, shape)
    layers = layer_flags(graph)
    for path in (longest_path(graph, layers), shortest_path(graph, layers)):
        assert path is not None
        assert graph.ops[path.ops[0]].name == INPUT
        assert path.ops[-1] in graph.outputs
        assert all(a in graph.ops[b].inputs for a, b in zip(path.ops, path.ops[1:], strict=False))
        assert sum(layers[i] for i in path.ops) == path.n_layers


def test_the_layers_of_a_longest_path_are_named() -> None:
    graph = capture(PlainLists(), X)
    path = longest_path(graph, layer_flags(graph))
    assert path is not None
    named = [graph.ops[i].module for i in path.ops if layer_flags(graph)[i]]
    assert named == ["layers[0]", "by_name[head]", "_nested[0][0]"]


def test_depth_ignores_width() -> None:
    def net(c: int) -> nn.Module:
        return nn.Sequential(Branches(conv(c, c), nn.Sequential(conv(c, c), conv(c, c))), conv(c, 2 * c))

    assert both(capture(net(4), X)) == both(capture(net(8), (1, 8, 8, 8))) == (3, 2)


@limited(max_examples=20)
@given(networks(6))
def test_wrapping_changes_nothing(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = drawn
    assert both(capture(nn.Sequential(nn.Identity(), nn.Sequential(model)), shape)) == both(capture(model, shape))


def test_within_a_part_only_its_own_layers_count() -> None:
    model = nn.Sequential(conv(4, 4), nn.Sequential(conv(4, 4), Branches(conv(4, 4), nn.Identity())), conv(4, 4))
    graph = capture(model, X)
    layers = layer_flags(graph)
    inside = [op for op in graph.ops if op.module.startswith("1.")]
    assert longest_within(inside, layers) == 2
    assert longest_within([], layers) == 0


def test_without_what_is_removed_a_path_leads_elsewhere() -> None:
    model, shapes = made("SqueezeExcitation")
    graph = capture(model, *shapes)
    gate = [op.index for op in graph.ops if op.module.startswith("gate.fc")]
    assert both(graph.without(gate)) == (1, 1)
    assert [op.index for op in graph.without(gate).ops] == list(range(len(graph.ops)))
