"""Formulas of cost: at other sizes they are what a fresh capture counts, or they refuse."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn import audit
from resattn.forecast.scaling import Scaling, ScalingError, axes_of, scaling
from resattn.graph.graph import Indices
from resattn.measures.captured import Captured
from resattn.networks.catalog import named
from resattn.networks.network import build
from tests.authors import UNet, ViT
from tests.nets import NETS

# Of each network; docs/reference/forecast.md has the table of 500.
N_SIZES = int(os.environ.get("RESATTN_SIZES", "8"))


class InPython(nn.Module):
    """A size that is rounded in Python's floats."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(F.interpolate(x, size=(int(x.shape[2] * 0.7), x.shape[3] // 2)))


class Branching(nn.Module):
    """Other layers run on large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.small(x) if x.shape[2] < 40 else self.large(x)


MADE: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "cifar-attention56": (lambda: build(named("cifar-attention56"), device="meta"), ((1, 3, 32, 32),)),
    "U-Net": (lambda: UNet(8, 2, mode="nearest"), ((1, 3, 32, 48),)),
    "ViT": (lambda: ViT(32, 2, 2, 8, 32, 10), ((1, 3, 32, 32),)),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), ((1, 9, 16),)),
    "in Python": (InPython, ((1, 3, 33, 41),)),
    "branching": (Branching, ((1, 3, 32, 32),)),
    "ceil": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 3)), ((1, 3, 33, 41),)),
    "signal": (lambda: nn.Sequential(nn.Conv1d(2, 4, 5, stride=3), nn.Conv1d(4, 4, 3)), ((2, 2, 50),)),
    "volume": (lambda: nn.Conv3d(2, 4, 3, stride=2), ((2, 2, 9, 11, 13),)),
    **{n: (NETS[n].make, NETS[n].shapes) for n in ("MiniRAN", "SeveralInputs", "ShapeLoop", "WeightNorm", "SqueezeExcitation",
       "CBAM", "MatMul", "DynamicConv", "RunTwice")},
}  # fmt: skip


def captured(name: str) -> Captured:
    make, shapes = MADE[name]
    return Captured.of(make(), *shapes, name=name)


def fresh(network: Captured, found: Scaling, sizes: dict[str, int]) -> dict[str, int]:
    shapes = [list(shape) for shape in network.shapes]
    for shape, named_axes in zip(shapes, axes_of(network.inputs, found.length_dim), strict=True):
        for dim, letter in named_axes:
            shape[dim] = {**found.sizes, **sizes}[letter]
    other = Captured.of(network.model, *map(tuple, shapes), name=network.name)
    products = (op for op in (*other.graph.ops, *other.graph.constants)
                if op.kind in ("convolution", "matmul", "attention"))  # fmt: skip
    return {
        "macs": sum(other.macs) + other.macs_constant,
        "activations": sum(int(torch.Size(op.shape).numel()) for op in products),
    }


@pytest.mark.parametrize("name", MADE)
def test_at_random_sizes_the_formula_is_a_fresh_capture_or_refuses(name: str) -> None:
    network = captured(name)
    found = scaling(network)
    draw, n_reached = random.Random(name), 0
    for k in range(N_SIZES):
        step = 4 if k % 2 else 1  # a decoder without resizing takes multiples alone
        sizes = {
            letter: draw.randint(1, 5) if letter[0] == "B" else step * draw.randint(1, 3 * n // step)
            for letter, n in found.sizes.items() if letter not in found.fixed
        }  # fmt: skip
        try:
            counted = found.at(**sizes)
        except ScalingError:
            continue
        assert counted == fresh(network, found, sizes), sizes
        n_reached += 1
    assert n_reached or name in ("ViT", "branching", "ShapeLoop", "in Python"), "no size was reached"


def test_the_formula_by_hand() -> None:
    found = audit(nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 20, 30)).scaling()
    assert str(found.macs) == "216 * B * (floor((H - 1)/2) + 1) * (floor((W - 1)/2) + 1)"
    assert str(found.activations) == "8 * B * (floor((H - 1)/2) + 1) * (floor((W - 1)/2) + 1)"
    assert found.at(B=2, H=7, W=9) == {"macs": 216 * 2 * 4 * 5, "activations": 8 * 2 * 4 * 5}
    assert found.at() == {"macs": 216 * 10 * 15, "activations": 8 * 150}


def test_attention_grows_with_the_square_of_the_length() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = audit(layer, torch.empty(2, 9, 16)).scaling()
    length = sympy.Symbol("L")
    shown = sum(
        term.times * sympy.prod([sympy.sympify(f.replace("B", "1")) for f in term.factors]) for term in found.macs.terms
    )
    # Projections 4 d^2, two layers of 2 d h, and two products of d L^2 (vaswani2017).
    assert sympy.expand(shown - ((4 * 16 * 16 + 2 * 16 * 32) * length + 2 * 16 * length**2)) == 0


def test_token_ids_have_a_length() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 6))
    found = audit(model, Indices((7,))).scaling()
    assert found.at(B=3, L=11)["macs"] == 3 * 11 * 24


def test_a_condition_is_named_with_its_line() -> None:
    found = scaling(captured("branching"))
    assert found.at(H=39)["macs"] == 12 * 39 * 32
    with pytest.raises(ScalingError, match=r"does not reach H = 40.*needs H < 40 \(test_scaling.py, line \d+\)"):
        found.at(H=40)
    assert "only where" not in str(found) or "H < 40" in str(found)


def test_the_length_of_a_tensor_is_a_size_and_a_size_that_the_forward_fixes_is_named() -> None:
    network = captured("ViT")
    found = scaling(network)  # its forward calls len(x)
    assert set(found.fixed) <= {"H", "W"}
    assert found.at(B=3) == fresh(network, found, {"B": 3})
    with pytest.raises(ScalingError, match=r"does not reach .*H = 64.*== 17 \(authors.py, line \d+\)"):
        found.at(H=64)


@pytest.mark.parametrize(
    "take", [lambda x: range(x.shape[0]), lambda x: x.unbind(0), lambda x: [*x], lambda x: [0] * int(x.shape[0])]
)
def test_a_size_that_python_takes_as_a_number_is_fixed_and_named(take: Callable[[Tensor], Any]) -> None:
    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            take(x)
            return super().forward(x)

    found = scaling(Captured.of(Counted(3, 2), (4, 3)))
    assert set(found.fixed) == {"B"}
    assert re.search(r"fixed: B = 4 only, decided in test_scaling.py, line \d+", str(found))
    with pytest.raises(ScalingError, match="it needs B == 4"):
        found.at(B=5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"Q": 3}, "no size Q"), ({"H": 0}, "H takes a number of at least 1"), ({"H": 1}, "holds from 2 on|not reach")],
)
def test_a_wrong_size_is_one_line(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(ScalingError, match=words):
        scaling(captured("MiniRAN")).at(**sizes)


def test_a_forward_that_needs_values_has_no_formula() -> None:
    class Chosen(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[x[:, 0] > 0])

    model = Chosen(3, 2)
    network = Captured.of(model, torch.ones(4, 3), device="cpu")
    with pytest.raises(ScalingError, match="no formula"):
        scaling(network)
