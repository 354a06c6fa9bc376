"""Roles: from names where they tell, from the data flow where there are none, and the two agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nets import Apply, conv, made
from torch import Tensor, nn

from resattn.graph.graph import Graph
from resattn.measures.captured import capture
from resattn.measures.roles import MASK, SHORTCUT, TRUNK, Roles, roles
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec, override
from resattn.rules.table import layer_flags

X = (1, 4, 8, 8)


def layers_of(model: nn.Module, role: str, *shapes: tuple[int, ...]) -> list[str]:
    graph = capture(model, *(shapes or (X,)))
    is_layer = layer_flags(graph)
    return [graph.ops[i].module for i in roles(graph, is_layer).ops(role) if is_layer[i]]


def nameless(graph: Graph) -> Graph:
    return replace(graph, ops=tuple(replace(op, module="") for op in graph.ops))


CIFAR = catalog.named("cifar-attention56")
OWN = [
    *map(catalog.named, ("attention56", "attention92", "attentionnext56", "attentioninception56", "resnet50")),
    *map(catalog.named, ("resnet200", "cifar-resnet164", "cifar-resnet20-basic", "wrn-16-8")),
    *(
        override(CIFAR, {"gate": gate, "merge": merge})
        for gate in ("channel", "spatial")
        for merge in ("naive", "residual")
    ),
    override(CIFAR, {"mask": "local"}),
    override(CIFAR, {"poolings": "0"}),
    catalog.named("port:tengshaofeng:attention56"),
    catalog.named("port:imgclsmob:attention92"),
]


@pytest.mark.parametrize("spec", OWN, ids=lambda s: s.name)
def test_names_and_data_flow_agree_on_our_own_networks(spec: NetworkSpec) -> None:
    graph = capture(build(spec, device="meta"), (1, *spec.input_shape))
    is_layer = layer_flags(graph)
    by_name, by_flow = roles(graph, is_layer), roles(nameless(graph), is_layer)
    assert by_flow.how == ("data flow" if spec.has_masks else "none")
    assert by_name.how == ("module names" if spec.has_masks else "none")
    assert [r == MASK for r in by_name.of] == [r == MASK for r in by_flow.of]
    layers = [i for i, flag in enumerate(is_layer) if flag]
    assert [by_name.of[i] for i in layers] == [by_flow.of[i] for i in layers]
    assert bool(by_name.ops(MASK)) is spec.has_masks


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("SqueezeExcitation", ["gate.fc1", "gate.fc2"]),
        ("CBAM", ["fc1", "fc2", "fc1", "fc2", "spatial"]),
        ("GatedUnit", ["gate"]),
        ("WaveNet", ["gate"]),
        ("OneConvGLU", []),
        ("Swish", []),
        ("MaskOutput", []),
        ("MiniRAN", [
            "a.soft.1.conv1", "a.soft.1.conv2", "a.soft.1.conv3", "a.soft.2.conv1", "a.soft.2.conv2", "a.soft.2.conv3",
            "a.conv1", "a.conv2",
        ]),
    ],
)  # fmt: skip
def test_what_feeds_only_a_gate_is_mask(name: str, mask: list[str]) -> None:
    model, shapes = made(name)
    assert layers_of(model, MASK, *shapes) == mask


class Gated(nn.Module):
    """A map of one convolution times a gate of another, as a function makes it."""

    def __init__(self, gated: object) -> None:
        super().__init__()
        self.body, self.soft, self.gated = conv(4, 4), conv(4, 4), gated

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.body(x), self.soft(x))


@pytest.mark.parametrize(
    "gated",
    [
        lambda t, m: t * m.sigmoid(),
        lambda t, m: m.sigmoid() * t,
        lambda t, m: (1 + m.sigmoid()) * t,
        lambda t, m: t + m.sigmoid() * t,
        lambda t, m: t.mul_(m.sigmoid_()),
        lambda t, m: torch.addcmul(t, t, m.sigmoid()),
        lambda t, m: torch.lerp(t, torch.zeros_like(t), m.sigmoid()),
        lambda t, m: t * torch.softmax(m.flatten(2), -1).view(m.shape),
        lambda t, m: t * torch.nn.functional.hardsigmoid(m),
        lambda t, m: t * (torch.nn.functional.relu6(m + 3) / 6),
        lambda t, m: t * m.clamp(0, 1),
        lambda t, m: t * torch.nn.functional.normalize(m, dim=1),
        lambda t, m: t * m.tanh(),
        lambda t, m: t * torch.nn.functional.interpolate(m[:, :, ::2, ::2].sigmoid(), size=t.shape[2:]),
        lambda t, m: t.tanh() * m.sigmoid(),
    ],
)
def test_gates_of_every_kind(gated: object) -> None:
    assert layers_of(Gated(gated), MASK) == ["soft"]


@pytest.mark.parametrize(
    "gated",
    [
        lambda t, m: t * m,  # which of the two is the gate?
        lambda t, m: t + m.sigmoid(),
        lambda t, m: torch.cat([t * m.sigmoid(), m], 1),  # it reaches the output beside its gate
        lambda t, m: t.sigmoid() * m.sigmoid(),
        lambda t, m: t / (1 + m.sigmoid()) * m,
    ],
)
def test_what_is_no_gate_alone_is_trunk(gated: object) -> None:
    assert layers_of(Gated(gated), MASK) == []


def test_a_mask_inside_a_mask_is_mask() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.outer, self.inner = conv(4, 4), conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) * torch.sigmoid(self.outer(x) * torch.sigmoid(self.inner(x)))

    assert layers_of(Nested(), MASK) == ["outer", "inner"]


@pytest.mark.parametrize("kind", ["Block", "Pooled", "Normed"])
def test_projections_on_identity_paths_are_shortcuts(kind: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.down = conv(4, 4, 3, 2), conv(4, 8), conv(4, 8, 1, 2 if kind != "Pooled" else 1)
            self.norm = nn.BatchNorm2d(8) if kind == "Normed" else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            identity = nn.functional.avg_pool2d(x, 2) if kind == "Pooled" else x
            return self.norm(self.down(identity)) + self.b(self.a(x))

    assert layers_of(Block(), SHORTCUT) == ["down"]
    assert layers_of(Block(), TRUNK) == ["a", "b"]


@pytest.mark.parametrize(
    "ways",
    [
        (lambda m, x: m.one(x) + m.a(x)),  # two layers beside each other
        (lambda m, x: m.one(x) + m.two(x)),
        (lambda m, x: m.b(m.a(x)) + x),
        (lambda m, x: m.one(m.a(x)) + m.b(x)),  # the other way does not come from where it reads
        (lambda m, x: torch.cat([m.one(x), m.b(m.a(x))], 1)),
    ],
)
def test_other_sums_have_no_shortcut(ways: object) -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.a, self.b = conv(4, 4, 1), conv(4, 4, 1), conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return ways(self, x)

    assert layers_of(Sums(), SHORTCUT) == []


class Bottleneck(nn.Module):
    """y = p(x); y + b(y): p is on every path."""

    def __init__(self, after: object = lambda y: y) -> None:
        super().__init__()
        self.stem, self.p, self.a, self.b = conv(4, 4), conv(4, 4, 1), conv(4, 8, 1), conv(8, 4, 1)
        self.after, self.norm = after, nn.BatchNorm2d(4)

    def body(self, y: Tensor) -> Tensor:
        return self.b(self.a(y).relu())

    def forward(self, x: Tensor) -> Tensor:
        y = self.after(self.norm(self.p(self.stem(x).relu())))
        return y + self.body(y)


class Twice(Bottleneck):
    """y + b(y) + c(y), as cells that were searched for sum up several ways."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.p(self.stem(x).relu())
        return y + (self.body(y) + y) + self.body(y)


@pytest.mark.parametrize("model", [Bottleneck(), Bottleneck(lambda y: y.contiguous()), Twice()])
def test_what_comes_before_a_residual_unit_is_no_shortcut(model: nn.Module) -> None:
    assert layers_of(model, SHORTCUT) == []


def test_a_projection_beside_a_deeper_way_is_a_shortcut_whatever_follows() -> None:
    class Both(Bottleneck):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.p(x) + self.body(x)
            return y + self.body(y)

    assert layers_of(Both(), SHORTCUT) == ["p"]


def test_a_lateral_of_a_pyramid_is_no_shortcut() -> None:
    model, shapes = made("Pyramid")
    assert layers_of(model, SHORTCUT, *shapes) == []


def test_a_mask_of_that_name_that_gates_nothing_is_trunk() -> None:
    model, shapes = made("MaskOutput")
    graph = capture(model, *shapes)
    found = roles(graph, layer_flags(graph))
    assert found.how == "none"
    assert found.ops(MASK) == []


def test_every_operator_has_one_role() -> None:
    model, shapes = made("MiniRAN")
    graph = capture(model, *shapes)
    found: Roles = roles(graph, layer_flags(graph))
    assert sorted(i for role in (TRUNK, MASK, SHORTCUT) for i in found.ops(role)) == list(range(len(graph.ops)))


def test_a_graph_of_one_function_has_roles() -> None:
    graph = capture(Apply(lambda x: x), X)
    assert roles(graph, layer_flags(graph)).of == (TRUNK,)
