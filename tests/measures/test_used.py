"""The gradient by path length, against enumeration of paths, backward hooks, and models that are hard to follow."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resattn import audit, build, named
from resattn.graph.graph import Indices
from resattn.measures.used import Used, UsedError, used


class Residual(nn.Module):
    """y = x + branch(x), several times; a branch has one or two layers."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.branches = nn.ModuleList(
            nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(5, 5), nn.Tanh()))) for depth in depths
        )

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return x


def energy_by_enumeration(model: Residual, depths: tuple[int, ...], x: Tensor, cotangent: Tensor) -> dict[int, float]:
    """Every path on its own: through a branch or past it at each unit, its product of Jacobians, summed by length."""
    jacobians, at = [], x.double()
    model = model.double()
    for branch in model.branches:
        jacobians.append(torch.autograd.functional.jacobian(lambda v, b=branch: b(v), at))
        at = (at + branch(at)).detach()
    by_length: dict[int, Tensor] = {}
    for taken in itertools.product((False, True), repeat=len(depths)):
        gradient = cotangent.double()
        for jacobian, is_taken in reversed(list(zip(jacobians, taken, strict=True))):
            gradient = gradient @ jacobian if is_taken else gradient
        length = sum(depth for depth, is_taken in zip(depths, taken, strict=True) if is_taken)
        by_length[length] = by_length.get(length, torch.zeros(5, dtype=torch.float64)) + gradient
    return {length: float(g.square().sum()) for length, g in by_length.items()}


@pytest.mark.parametrize("depths", [(1,), (1, 2), (2, 2, 1), (1, 2, 1, 2, 1), (3, 1, 1, 2)])
def test_parts_are_those_of_enumerated_paths(depths: tuple[int, ...]) -> None:
    model, x = Residual(depths), torch.randn(5, generator=torch.Generator().manual_seed(3))
    cotangent = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = used(model, x)
    energy = energy_by_enumeration(model, depths, x, cotangent)
    total = sum(energy.values())
    assert found.share == pytest.approx({k: e / total for k, e in sorted(energy.items())}, rel=1e-9, abs=1e-15)
    assert found.counts == {k: found.counts[k] for k in sorted(energy)}
    assert found.mean == pytest.approx(sum(k * e for k, e in energy.items()) / total)
    assert found.n_passes == sum(depths) + 1


def by_hooks(network: nn.Module, x: Tensor, labels: Tensor, n: int) -> Tensor:
    """(n,) mean share by length from module hooks: the batch twice, the halves real and imaginary part."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    half, turn = len(x), [1.0, 0.0]

    def rotate(_layer: nn.Module, gradient: tuple[Tensor, ...], _out: Any) -> tuple[Tensor, ...]:
        re, im = gradient[0][:half], gradient[0][half:]
        return (torch.cat([turn[0] * re - turn[1] * im, turn[1] * re + turn[0] * im]),)

    handles = [layer.register_full_backward_hook(rotate) for layer in layers]
    spectrum = []
    for j in range(n):
        turn[:] = math.cos(2 * math.pi * j / n), math.sin(2 * math.pi * j / n)
        both = torch.cat([x, x]).requires_grad_()
        loss = F.cross_entropy(network(both)[:half], labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, both)
        spectrum.append(torch.complex(gradient[:half], gradient[half:]))
    for handle in handles:
        handle.remove()
    parts = torch.fft.fft(torch.stack(spectrum), dim=0) / n
    energy = parts.abs().square().flatten(2).sum(2)
    return (energy / energy.sum(0)).mean(1)


@pytest.mark.parametrize("name", ["cifar-resnet20-basic", "cifar-resnet11", "cifar-attention56"])
def test_module_hooks_give_the_same_shares(name: str) -> None:
    network = build(replace(named(name), width=2), seed=4).double().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([3, 7])
    found = used(network, x, labels=labels)
    expected = by_hooks(network, x, labels, found.n_passes)
    assert found.share == pytest.approx({k: float(expected[k]) for k in found.counts}, abs=1e-12)


def test_counts_are_those_of_the_audit() -> None:
    a = audit("cifar-attention56", settings={"width": 2})
    found = a.used()
    assert found.counts == a.path_lengths
    assert found.counts_mean == pytest.approx(float(a.quantities["mean_path_length"] or 0))
    assert sum(found.share.values()) == pytest.approx(1)
    assert found == a.used() or found.share == a.used().share


def test_without_masks_no_path_is_longer_than_the_trunk() -> None:
    a = audit("cifar-attention56", settings={"width": 2})
    found = a.used(through_masks=False)
    assert max(found.counts) == a.quantities["trunk_depth"]
    assert found.mean < a.used().mean
    with pytest.raises(UsedError, match="no masks"):
        used("cifar-resnet11", through_masks=False)


# -- models that are hard to follow: each a chain of `n` layers, or with the counts given


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.matrix = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(F.conv2d(x, self.kernel))
        y = F.dropout(y, 0.5, training=True)
        return y.mean((2, 3)) @ self.matrix.t()


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(torch.relu(self.layer(x)))))


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x += 1  # its input
        y = self.a(x).relu_() + 0
        y[:, :2] = self.b(y[:, 2:].clone())
        y.mul_(2)
        return y


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", x, self.w).softmax(1)


class Hyper(nn.Module):
    """A kernel that the data makes: that convolution is a layer on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(3, 9)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.make(x.mean((0, 2, 3))).view(3, 3, 1, 1)
        return F.conv2d(x, kernel)


class Stopped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = self.b(x).sigmoid()
        return self.a(x) * gate


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return factor * x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return 2 * ctx.factor * ctx.saved_tensors[0] * gradient, None


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(self.a(x), 3.0)


class Halves(nn.Module):
    """Two outputs, and results that are read by halves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        first, second = self.a(x).chunk(2, 1)
        return {"one": first, "two": [self.b(second)], "labels": second.argmax(1)}


IMAGES = (3, 8, 8)


@pytest.mark.parametrize(
    ("model", "lengths"),
    [
        (Functional, {2}), (Shared, {3}), (InPlace, {1, 2}), (Einsum, {1}), (Hyper, {1, 2}), (Stopped, {1}),
        (OwnFunction, {1}), (Halves, {1, 2}),
    ],
)  # fmt: skip
def test_lengths_with_a_part(model: type[nn.Module], lengths: set[int]) -> None:
    torch.manual_seed(0)
    own = model()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    found = used(own.train(), torch.randn(2, *IMAGES))
    assert {k for k, s in found.share.items() if s > 1e-12} == lengths
    assert sum(found.share.values()) == pytest.approx(1)
    assert own.training
    assert all(p.requires_grad and p.grad is None for p in own.parameters())
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in before.items())


def test_attention_and_token_inputs() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.block(self.embed(ids)).mean(1)

    found = used(Tokens(), Indices((5,)))
    assert set(found.share) == set(found.counts)
    assert min(found.counts) == 0
    # Values pass in-projection and out-projection, then the two layers of the network behind them.
    assert max(k for k, s in found.share.items() if s > 1e-12) == max(found.counts) == 4


def test_recurrent_layers_are_followed_step_by_step() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            h, c = x.new_zeros(len(x), 4), x.new_zeros(len(x), 4)
            for t in range(x.shape[1]):
                h, c = self.cell(x[:, t], (h, c))
            return h

    found = used(Steps(), torch.randn(2, 3, 3))
    assert {k for k, s in found.share.items() if s > 1e-12} == {1, 2, 3}


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda v: self.a(self.a(v)), x, use_reentrant=True)


class IntoView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)[:, :8].clone()
        y[:, :4].addmm_(y[:, 4:], self.w)
        return y


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y.register_hook(lambda g: 2 * g)
        return y


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.sign() * gradient.abs().sqrt()


class Nonlinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(Clip.apply(self.a(x)))


class Chosen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).argmax(1)


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.kept = nn.Conv2d(3, 3, 1), [torch.ones(3, 3, 1, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.a(x), self.kept[0].float())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Recomputed,
            r"aten.convolution in a runs inside an autograd function of its own \(CheckpointFunctionBackward\)",
        ),
        (IntoView, r"aten.addmm_ in the model writes in place into a part of a tensor"),
        (Hooked, "the parts do not sum to autograd's gradient"),
        (Nonlinear, "a backward is not linear"),
        (Chosen, "no output depends on the inputs through a gradient"),
        (Single, r"the forward fails in float64 with gradients: RuntimeError: .* \(in the model|Single\)"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(model: type[nn.Module], message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UsedError, match=message):
        used(model(), torch.randn(2, *IMAGES))


def test_refusals_of_the_call() -> None:
    with pytest.raises(UsedError, match="meta device"):
        used(nn.Linear(3, 3).to("meta"), (3,))
    with pytest.raises(UsedError, match="2 labels need one output of 2 x classes, found 1x3"):
        used(nn.Linear(3, 3), torch.randn(1, 3), labels=torch.tensor([0, 1]))


def test_text_fits_eighty_columns_and_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = audit("cifar-attention56", settings={"width": 2}).used()
    assert max(map(len, str(found).splitlines())) <= 80
    assert Used.__name__ in repr(found)
    assert json.loads(json.dumps(found.to_json()))["share"].keys() == found.to_json()["counts"].keys()

    from resattn.cli import main

    assert main(["audit", "cifar-resnet11", "--set", "width=2", "--used", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["used"]["mean"] == pytest.approx(audit("cifar-resnet11", settings={"width": 2}).used().mean)
    assert main(["audit", "cifar-resnet11", "--set", "width=2", "--used"]) == 0
    assert "depth that the gradient uses" in capsys.readouterr().out
