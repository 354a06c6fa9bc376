"""Multiply-adds, layers and parameters against derivations by hand and against torch's own counter."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from drawn import networks
from golden_rows import derived
from hypothesis import given
from hypothesis import settings as limited
from nets import NETS, Apply, conv, made
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resattn.measures.audit import Audit, audit
from resattn.measures.captured import capture
from resattn.measures.cost import n_params, op_macs, read_params
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.rules.table import layer_flags, unknown_ops


@functools.cache
def audited(name: str) -> Audit:
    model, shapes = made(name)
    return audit(model, shapes[0][1:])


@pytest.mark.parametrize("row", derived("mechanisms.csv"), ids=lambda r: f"{r['net']} {r['quantity']}")
def test_the_true_value_of_each_mechanism(row: dict[str, str]) -> None:
    assert audited(row["net"]).quantities[row["quantity"]] == int(row["value"])


@pytest.mark.parametrize("name", sorted({row["net"] for row in derived("mechanisms.csv")}))
def test_every_mechanism_is_known_whole(name: str) -> None:
    assert audited(name).unknown_ops == ()


def macs(model: nn.Module, *shapes: tuple[int, ...], device: str = "meta") -> int:
    return sum(op_macs(capture(model, *shapes, device=device)))


def flops_by_torch(model: nn.Module, *shapes: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta").eval()(*(torch.empty(shape, device="meta") for shape in shapes))
    return int(counter.get_total_flops())


# Those that need values, and those that `to("meta")` leaves with tensors elsewhere: constants, and modules it cannot see.
WITHOUT_TORCH = {
    "DataDependent", "ConstantItem", "KernelFromParts", "Interleaved", "Autocast", "HiddenModule", "PlainLists",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(NETS) - WITHOUT_TORCH))
def test_torchs_counter_gives_twice_the_multiply_adds(name: str) -> None:
    model, shapes = made(name)
    assert flops_by_torch(made(name)[0], *shapes) == 2 * macs(model, *shapes)


@pytest.mark.parametrize("name", ["attention56", "cifar-attention92", "resnet152", "attentionnext56"])
def test_torchs_counter_agrees_on_the_networks_of_the_paper(name: str) -> None:
    spec = catalog.named(name)
    shape = (1, *spec.input_shape)
    assert flops_by_torch(build(spec, device="meta"), shape) == 2 * macs(build(spec, device="meta"), shape)


@limited(max_examples=50)
@given(networks(8))
def test_torchs_counter_agrees_on_random_networks(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    model, shape = drawn
    graph = capture(model, shape)
    assert not unknown_ops(graph)
    assert flops_by_torch(model, shape) == 2 * sum(op_macs(graph))


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", ["FusedAttention", "WrittenAttention"])
def test_attention_costs_the_same_fused_and_written_on_every_device(name: str, device: str) -> None:
    # 12,582,912 FLOPs, of which FlopCounterMode sees none on the CPU. 2 x 12 heads x 64 x 64 x 64.
    model, shapes = made(name)
    assert macs(model, *shapes, device=device) == 12_582_912 // 2 == 2 * 12 * 64**3


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("by", [{"size": (16, 16)}, {"scale_factor": 2.0}], ids=["size", "scale"])
def test_resizing_and_normalising_are_no_multiply_adds(mode: str, by: dict) -> None:
    # Tools give 0, 256, 2048, 6400 or 8192 for these; the definition counts convolutions and products.
    model = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), Apply(lambda x: F.interpolate(x, **by, mode=mode)))
    assert macs(model, (1, 8, 8, 8)) == 0


def test_every_image_of_a_batch_costs_as_much() -> None:
    model, (shape,) = made("MiniRAN")
    assert macs(model, (4, *shape[1:])) == 4 * macs(model, shape)


def test_a_bias_costs_nothing() -> None:
    with_bias, without = (nn.Conv2d(3, 4, 3, bias=bias) for bias in (True, False))
    assert macs(with_bias, (1, 3, 8, 8)) == macs(without, (1, 3, 8, 8)) == 36 * 4 * 27


@pytest.mark.parametrize(
    ("model", "shape", "wanted"),
    [
        (nn.Linear(8, 3), (1, 8), 24),
        (nn.Linear(8, 3), (1, 5, 7, 8), 35 * 24),
        (nn.Conv1d(4, 6, 5, stride=2), (1, 4, 16), 6 * 6 * 20),
        (nn.ConvTranspose1d(4, 6, 3), (1, 4, 10), 10 * 4 * 6 * 3),
        (nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 3, 3), 27 * 2 * 3 * 8),
        (Apply(lambda x: torch.tensordot(x, x, ([2, 3], [2, 3]))), (1, 4, 6, 6), 4 * 4 * 36),
        (Apply(lambda x: x[0, 0] @ x[0, 0, 0]), (1, 1, 6, 6), 36),
        (Apply(lambda x: x[0, 0, 0] @ x[0, 0, 1]), (1, 1, 6, 6), 6),
        (Apply(lambda x: torch.baddbmm(x[0], x[0], x[0])), (1, 3, 6, 6), 3 * 216),
        (Apply(lambda x: torch.addbmm(x[0, 0], x[0], x[0])), (1, 3, 6, 6), 3 * 216),
        # Torch's own check of devices wants the weights of a recurrent net where its input is. No data reaches the
        # state ahead of the first step: its product with the weights is a constant.
        (nn.LSTM(4, 5, batch_first=True, device="meta"), (1, 7, 4), 7 * 20 * 4 + 6 * 20 * 5),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_products_by_hand(model: nn.Module, shape: tuple[int, ...], wanted: int) -> None:
    assert macs(model, shape) == wanted


def test_a_shared_parameter_is_counted_once_and_an_unread_one_not() -> None:
    model = nn.Sequential(conv(4, 4), conv(4, 4))
    model[1].weight = model[0].weight
    model.spare = nn.Parameter(torch.ones(100))
    graph = capture(model, (1, 4, 8, 8))
    assert n_params(graph, read_params(graph)) == 144
    assert sum(graph.params.values()) == 244
    assert sum(layer_flags(graph)) == 2


def test_wrapping_changes_no_count() -> None:
    model, (shape,) = made("MiniRAN")
    wrapped = nn.Sequential(nn.Sequential(made("MiniRAN")[0]), nn.Identity())
    a, b = capture(model, shape), capture(wrapped, shape)
    assert op_macs(a) == op_macs(b)
    assert layer_flags(a) == layer_flags(b)
    assert n_params(a, read_params(a)) == n_params(b, read_params(b))


def test_the_same_tensor_twice_is_two_operands() -> None:
    def squared(x: Tensor) -> Tensor:
        return torch.einsum("bchw,bdhw->bcd", x, x)

    assert macs(Apply(squared), (1, 4, 6, 6)) == 4 * 4 * 36


# -- what no input reaches: executed at every call, counted, and on no path


class PositionTable(nn.Module):
    """Weights from a small network over coordinates, as in continuous position biases (liu2022swinv2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.table = nn.Linear(6, 6, bias=False), nn.Linear(2, 6)
        self.register_buffer("at", torch.ones(50, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) @ self.table(self.at).T


class Queries(nn.Module):
    """Learned queries that attend to themselves, and then to the input, as DETR's do (carion2020)."""

    def __init__(self, d: int = 8, n: int = 3) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(n, d))
        self.norm = nn.LayerNorm(d)
        self.q, self.k, self.cross = (nn.Linear(d, d, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.q(self.query) @ self.norm(self.k(self.query)).T
        return self.cross(self.query + scores @ self.query) @ x.mT


class LowRank(nn.Module):
    """A weight and the product of two thin matrices, which is added to it (hu2021lora)."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.a, self.b = (nn.Parameter(torch.zeros(s)) for s in ((6, 5), (6, 2), (2, 5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.w + self.a @ self.b)


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.bmm(torch.randn(3, 4, 5), torch.randn(3, 5, 6))
        return self.conv(x)


@pytest.mark.parametrize(
    ("model", "shape", "constant", "layers", "longest"),
    [
        (PositionTable(), (7, 6), 50 * 2 * 6, 2, 1),
        # q, k, scores, scores @ query (a matrix of parameters), cross; the input meets what they made.
        (Queries(), (4, 8), 3 * 8 * 8 * 3 + 2 * 3 * 3 * 8, 4, 0),
        (LowRank(), (7, 6), 6 * 2 * 5, 2, 1),
        (Noise(), (2, 6, 6), 3 * 4 * 5 * 6, 1, 1),
        (nn.Linear(3, 4), (3,), 0, 1, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_no_input_reaches_counts_beside_the_rest(
    model: nn.Module, shape: tuple[int, ...], constant: int, layers: int, longest: int
) -> None:
    found = audit(model, shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    assert found.quantities["macs"] * 2 == counter.get_total_flops()
    assert found.quantities["macs_constant"] == constant
    assert found.quantities["weighted_layers"] == layers
    assert found.quantities["longest_path"] == longest
    assert found.quantities["params"] == sum(p.numel() for p in model.parameters())
    # Roles sum up to the whole.
    assert sum(row["macs"] for row in found.roles) == found.quantities["macs"]
    assert sum(row["weighted_layers"] for row in found.roles) == layers


def test_what_prepares_a_weight_by_element_wise_work_is_no_constant_product() -> None:
    found = audit(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), (2, 8, 8))
    assert (found.quantities["macs_constant"], found.quantities["weighted_layers"]) == (0, 1)


class Clip(nn.Module):
    """As CLIP: its outputs are features, a scale made from a parameter alone, and a parameter as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.scale, self.bias = (
            nn.Linear(4, 4),
            nn.Parameter(torch.ones(())),
            nn.Parameter(torch.ones(3)),
        )
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.features(x), self.scale.exp(), self.bias


def test_a_parameter_that_is_returned_is_read() -> None:
    a = audit(Clip(), (4,))
    assert a.quantities["params"] == 20 + 1 + 3
    assert sum(role["params"] for role in a.roles) == a.tree.params == 24
