"""What is known on the meta device: constants, inputs of integers, and recurrent modules that live on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import Apply, conv
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from resattn.graph.errors import CaptureError, NeedsValuesError
from resattn.graph.graph import Graph, Indices
from resattn.graph.recurrent import separate_products
from resattn.graph.walk import tensors_in
from resattn.measures.audit import audit
from resattn.measures.captured import capture
from resattn.measures.cost import all_macs, n_params, read_params
from resattn.rules.table import unknown_ops

X = (1, 4, 8, 8)


def passes(is_true: Callable[[Tensor], Any]) -> nn.Module:
    """A convolution, and a second one where a constant of the forward has the right value."""
    first, second = conv(4, 4), conv(4, 4)

    def forward(x: Tensor) -> Tensor:
        y = first(x)
        return second(y) if is_true(y) else y

    model = Apply(forward)
    model.first, model.second = first, second
    return model


def filled(x: Tensor) -> Tensor:
    steps = torch.empty(4, device=x.device)
    steps.fill_(2)
    steps[1:] = 3
    return steps


@pytest.mark.parametrize(
    "is_true",
    [
        lambda x: (torch.arange(x.shape[-1], device=x.device) >= 0).all(),
        lambda x: torch.tensor([1, 2], device=x.device).sum() == 3,
        lambda x: torch.as_tensor([1, 2], device=x.device)[1].item() == 2,
        lambda x: x.new_tensor([2.0]).item() == 2,
        lambda x: x.new_ones(3).tolist() == [1, 1, 1] and not torch.zeros_like(x).any(),
        lambda x: x.new_full((2,), 5)[0] == 5,
        lambda x: torch.full((2, 2), -1.0, device=x.device).triu(1).numpy()[0, 1] == -1,
        lambda x: np.asarray(torch.eye(2, device=x.device)).trace() == 2,
        lambda x: torch.arange(5, device=x.device)[[-1, 0]].tolist() == [4, 0],
        lambda x: filled(x).tolist() == [2, 3, 3, 3],
        lambda x: len(torch.ones(3, 3, device=x.device).tril().nonzero()) == 6,
        lambda x: torch.linspace(0, 1, 3).to(x.device)[1].item() == 0.5,
        lambda x: torch.arange(3, device=x.device).cpu().tolist() == [0, 1, 2],
    ],
)
def test_a_constant_on_the_inputs_device_has_its_value(is_true: Callable[[Tensor], Any]) -> None:
    for device in ("meta", "cpu"):
        graph = capture(passes(is_true), X, device=device)
        assert sum(op.kind == "convolution" for op in graph.ops) == 2


def test_a_constant_over_which_data_was_written_has_no_value() -> None:
    def asks(x: Tensor) -> Tensor:
        kept = torch.zeros(4, device=x.device)
        view = kept[:2]
        kept[0] = x.sum()
        return x * view.sum().item()

    with pytest.raises(NeedsValuesError):
        capture(Apply(asks), X)


def test_a_constant_too_large_to_compute_has_no_value() -> None:
    # 4 TB of zeros.
    graph = capture(Apply(lambda x: x.sum() + torch.zeros(10**6, 10**6, device=x.device)), X)
    assert graph.ops[-1].shape == (10**6, 10**6)


class Tokens(nn.Module):
    """Looks for an end of its text before it reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        if (ids[:, [-1, 0]] == 9).any() and (mask is None or not mask.all()):
            x = self.fc(x)
        return x


def test_inputs_of_integers_have_values() -> None:
    def layers(*args: Any) -> int:
        return sum(op.kind == "matmul" for op in capture(Tokens(), *args).ops)

    assert layers(Indices((1, 5))) == 0
    ids = torch.tensor([[1, 2, 9]])
    assert layers(ids) == 1
    assert layers(ids, torch.ones(1, 3, dtype=torch.bool)) == 0
    assert not vars(ids)


# -- recurrent modules: of one step, one direction and one layer, every gate is two products


def recurrent(
    kind: str, *, batch: int, steps: int, width: int, state: int, more: dict[str, Any]
) -> tuple[int, nn.Module]:
    """Multiply-adds counted from the definition (hochreiter1997, cho2014), and the module."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    out = more.get("proj_size") or state
    ways = 2 if more.get("bidirectional") else 1
    inputs = [width, *[out * ways] * (more.get("num_layers", 1) - 1)]
    a_step = sum(gates * state * (n + out) + (out * state if more.get("proj_size") else 0) for n in inputs)
    return batch * steps * ways * a_step, getattr(nn, kind)(width, state, batch_first=True, **more)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("LSTM", {}),
        ("GRU", {}),
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 3}),
        ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False}),
    ],
)
def test_recurrent_modules_count_every_step(kind: str, more: dict[str, Any], device: str) -> None:
    wanted, model = recurrent(kind, batch=2, steps=7, width=6, state=5, more=more)
    for module in (model, model.to("meta")) if device == "meta" else (model,):
        graph = capture(module, (2, 7, 6), device=device)
        assert all_macs(graph) == wanted
        assert n_params(graph, read_params(graph)) == sum(p.numel() for p in model.parameters())
        assert not unknown_ops(graph)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 5, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_packed_sequence_costs_its_own_steps(device: str) -> None:
    graph = capture(Packed(), torch.randn(2, 7, 6), torch.tensor([3, 7]), device=device)
    assert all_macs(graph) == (3 + 7) * 3 * 5 * (6 + 5)
    assert graph.ops[graph.outputs[0]].shape == (2, 7, 5)
    assert not unknown_ops(graph)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_separate_products_give_what_torch_gives(kind: str, is_packed: bool) -> None:
    more = {"proj_size": 3} if kind == "LSTM" else {}
    model = getattr(nn, kind)(6, 5, 2, bidirectional=True, batch_first=not is_packed, **more)
    x: Any = torch.randn(4, 7, 6)
    x = pack_padded_sequence(x, torch.tensor([7, 2, 4, 4]), batch_first=True, enforce_sorted=False) if is_packed else x
    with torch.no_grad():
        expected = model(x)
        with separate_products():
            found = model(x)
    expected, found = (list(tensors_in((r[0].data if is_packed else r[0], r[1]))) for r in (expected, found))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("kind", "chain"), [("LSTM", 1), ("GRU", 1), ("RNN", 1), ("LSTM", 2)])
def test_all_steps_of_an_input_are_one_layer_and_each_step_of_a_state_is_one(
    kind: str, chain: int, device: str
) -> None:
    """For T steps 1 + T; with projections 1 + 2T. The first state is zero, so T products lie on the longest chain: the
    input's and those of T - 1 states."""
    model = getattr(nn, kind)(6, 5, batch_first=True, **({"proj_size": 3} if chain == 2 else {}))
    for steps in (1, 4, 9):
        a = audit(model, (steps, 6), device=device)
        assert a.quantities["weighted_layers"] == 1 + chain * steps
        assert a.quantities["longest_path"] == chain * steps


def test_a_state_that_the_model_keeps_on_the_cpu_meets_the_input() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(6, 5, batch_first=True)
            self.register_buffer("state", torch.zeros(1, 2, 5))

        def forward(self, x: Tensor) -> Tensor:
            return F.grid_sample(self.rnn(x, self.state)[0][None], torch.zeros(1, 2, 2, 2), align_corners=False)

    assert all_macs(capture(Stateful(), (2, 7, 6))) == 2 * 7 * 3 * 5 * 11


# -- the model is left as it was


class Caches(nn.Module):
    """Keeps what it made in its first call: as an attribute, a buffer, in a dictionary and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None
        self.by_size: dict[int, Tensor] = {}
        self.maps: list[Tensor] = []
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(4.0, device=x.device)
            self.register_buffer("more", torch.ones(4, device=x.device))
        if 4 not in self.by_size:
            self.by_size[4] = torch.ones(4, device=x.device)
        self.maps.append(self.fc(x))
        return self.maps[-1] * self.table * self.by_size[4] * self.more


def test_a_model_that_keeps_constants_runs_after_a_capture() -> None:
    model = Caches()
    graphs: list[Graph] = [capture(model, (1, 4)) for _ in range(2)]
    assert graphs[0] == graphs[1]
    assert model.table is None
    assert not model.by_size
    assert not model.maps
    assert not any(p.is_meta for p in model.parameters())
    assert model(torch.ones(1, 4)).shape == (1, 4)


def test_weights_are_the_models_own_again_after_an_error() -> None:
    model = nn.Sequential(nn.LSTM(4, 5), Apply(lambda x: x + 1))  # an LSTM returns a tuple
    before = [*model.parameters()]
    with pytest.raises(CaptureError):
        capture(model, (1, 7, 4))
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert model[0](torch.ones(1, 7, 4))[0].shape == (1, 7, 5)
    assert all(not w.is_meta for w in model[0]._flat_weights)


@pytest.mark.parametrize(
    "output",
    [lambda x: (y for y in [x]), lambda x: {"maps": (y for y in [x]), "x": x}, lambda x: [x, (y for y in [x])]],
)
def test_a_generator_is_no_output(output: Callable[[Tensor], Any]) -> None:
    with pytest.raises(CaptureError, match="returned a generator, which has not run"):
        capture(Apply(output), X)


def test_modules_nested_more_deeply_than_the_stack_are_an_error_of_one_line() -> None:
    model: nn.Module = nn.Identity()
    for _ in range(3000):
        model = nn.Sequential(model)
    with pytest.raises(CaptureError, match=r"RecursionError: .* \(in 0\.0\..*\.\.\.") as error:
        capture(model, X)
    assert len(str(error.value)) < 300
