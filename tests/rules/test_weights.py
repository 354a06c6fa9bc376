"""Which matrix products are weighted layers: those with parameters, be it that data selects, scales or mixes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.measures.audit import audit


class Made(nn.Module):
    """A function of the input and of some layers and parameters: a bank of 4 matrices 5 x 8, and layers 8 -> n."""

    def __init__(self, function: Callable[[Made, Tensor], Tensor], n: int = 8) -> None:
        super().__init__()
        self.function, self.fc, self.other = function, nn.Linear(8, n), nn.Linear(8, 8)
        self.bank, self.matrix, self.row = (nn.Parameter(torch.zeros(s)) for s in ((4, 5, 8), (5, 8), (8,)))
        self.up, self.down = nn.Parameter(torch.zeros(4, 8, 16)), nn.Parameter(torch.zeros(4, 16, 8))
        self.positions, self.table = nn.Parameter(torch.zeros(6, 8)), nn.Embedding(10, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)

    def of_all(self, x: Tensor) -> Tensor:
        """One vector of the fc for the whole batch."""
        return self.fc(x.mean((0, 1)))


def scaled_in_place(m: Made, x: Tensor) -> Tensor:
    """Learned positions, half of them scaled by what a layer makes of a constant; data meets the same layer."""
    h = m.fc(torch.zeros(1, 6, 8, device=x.device))
    places = m.positions.sigmoid().expand_as(h).clone()
    places[..., :4] *= h[..., :4]
    return m.fc(x + places)


def experts(m: Made, x: Tensor) -> Tensor:
    """Two of four experts for each token, by a gather (AI-Hypercomputer/maxtext, issue 678)."""
    x = x.flatten(0, 1)
    weights, chosen = torch.topk(m.fc(x).softmax(-1), 2, dim=-1)
    h = torch.relu(torch.einsum("td,tkdh->tkh", x, m.up[chosen]))
    return (torch.einsum("tkh,tkhd->tkd", h, m.down[chosen]) * weights[..., None]).sum(1)


def mixed_by_sum(m: Made, x: Tensor) -> Tensor:
    return F.linear(x, (m.of_all(x).softmax(-1)[:, None, None] * m.bank).sum(0))


def mixed_by_einsum(m: Made, x: Tensor) -> Tensor:
    kernels = torch.einsum("be,eod->bod", m.fc(x.mean(1)).softmax(-1), m.bank)
    return torch.einsum("bnd,bod->bno", x, kernels)


def low_rank(m: Made, x: Tensor) -> Tensor:
    return F.linear(x, m.matrix + m.of_all(x).sigmoid().mean() * m.matrix.flip(0))


def attention(m: Made, x: Tensor) -> Tensor:
    q, k = m.fc(x), m.other(x)
    return (q @ k.transpose(1, 2)).softmax(-1) @ x


def heads(m: Made, x: Tensor) -> Tensor:
    q, k = (f(x).view(1, 6, 2, 4).transpose(1, 2) * m.row[:4] for f in (m.fc, m.other))
    return (q @ k.transpose(2, 3)).softmax(-1) @ q


def without_batch(m: Made, x: Tensor) -> Tensor:
    q, k = m.fc(x[0]), m.other(x[0])
    return q @ k.t()


# Layers in all, and on the longest path.
LAYERS: dict[str, tuple[Made, int, int]] = {
    "experts by gather": (Made(experts, 4), 3, 3),
    "one expert": (Made(lambda m, x: F.linear(x, m.bank.index_select(0, m.of_all(x).argmax(-1, True))[0]), 4), 2, 2),
    "rows scaled": (Made(lambda m, x: F.linear(x, m.matrix * m.of_all(x).unsqueeze(1)), 5), 2, 2),
    "columns scaled": (Made(lambda m, x: F.linear(x, m.matrix * m.of_all(x))), 2, 2),
    "normalised afterwards": (
        Made(lambda m, x: F.linear(x, F.normalize(m.matrix * m.of_all(x), dim=1))), 2, 2),
    "elements scaled": (Made(lambda m, x: F.linear(x, m.matrix * m.of_all(x).view(5, 8).sigmoid()), 40), 2, 2),
    "a low rank that data scales": (Made(low_rank), 2, 2),
    "a hyper-network": (Made(lambda m, x: F.linear(x, m.of_all(x).view(5, 8)), 40), 2, 2),
    "a hyper-network, batched": (Made(lambda m, x: torch.bmm(x, m.fc(x.mean(1)).view(-1, 8, 5).tanh()), 40), 2, 2),
    "a hyper-network of a learned vector": (Made(lambda m, x: F.linear(x, m.fc(m.row).view(5, 8)), 40), 2, 1),
    "its kernel": (Made(lambda m, x: F.conv1d(x.transpose(1, 2), m.fc(m.row).view(5, 8, 1)), 40), 2, 1),
    "scaled by its norm": (
        Made(lambda m, x: F.linear(x, m.matrix / (m.matrix @ torch.ones(8, device=x.device)).norm())), 1, 1),
    "a mixture by a product": (
        Made(lambda m, x: x @ (m.fc(x.mean(1)).sigmoid() @ m.bank.flatten(1)).view(5, 8).t(), 4), 3, 3),
    "a mixture by a sum": (Made(mixed_by_sum, 4), 2, 2),
    "a mixture by einsum": (Made(mixed_by_einsum, 4), 3, 3),
    "a table's row as a matrix": (
        Made(lambda m, x: x @ m.table(x.mean((0, 1)).argmax(-1, True)).view(5, 8).t()), 1, 1),
    # What is no matrix of parameters:
    "attention": (Made(attention), 2, 1),
    "attention with heads and a scale": (Made(heads), 2, 1),
    "attention without a batch": (Made(without_batch), 2, 1),
    "learned queries": (Made(lambda m, x: m.fc(m.positions) @ m.other(x[0]).t()), 2, 1),
    "positions scaled by a layer": (Made(scaled_in_place), 2, 1),
    "positions scaled by a layer, in one piece": (
        Made(lambda m, x: m.fc(x + m.positions * m.fc(torch.zeros(1, 6, 8, device=x.device)))), 2, 1),
    "positions added": (Made(lambda m, x: (x + m.positions) @ (x + m.positions).transpose(1, 2)), 0, 0),
    "positions scaled": (Made(lambda m, x: (x * m.positions) @ (x * m.positions).transpose(1, 2)), 0, 0),
    "features scaled": (Made(lambda m, x: (x * m.row) @ (x * m.row).transpose(1, 2)), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_of_parameters_is_a_layer_whatever_data_does_with_it(name: str) -> None:
    model, n_layers, longest = LAYERS[name]
    found = audit(model, (6, 8)).quantities
    assert (found["weighted_layers"], found["longest_path"]) == (n_layers, longest)


def test_a_convolution_is_counted_by_the_same_rule() -> None:
    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.style = nn.Parameter(torch.zeros(5, 8, 3, 3)), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel * self.style(x.mean((0, 2, 3))).view(5, 1, 1, 1), padding=1)

    found = audit(Modulated(), (8, 6, 6)).quantities
    assert (found["weighted_layers"], found["shortest_path"]) == (2, 1)


def test_the_active_experts_alone_are_multiplied() -> None:
    # Router 6 * 8 * 4; of 4 experts 8 -> 16 -> 8 two for each of 6 tokens.
    found = audit(Made(experts, 4), (6, 8)).quantities
    assert found["macs"] == 6 * 8 * 4 + 6 * 2 * (8 * 16 + 16 * 8)


def test_a_long_chain_of_sums_takes_no_longer_than_its_length() -> None:
    # Each operand is asked once: without, a diamond of 60 sums would be walked 2 ** 60 times.
    def chained(m: Made, x: Tensor) -> Tensor:
        y = m.matrix * m.of_all(x)
        for _ in range(60):
            y = y + y.tanh()
        return F.linear(x, y)

    assert audit(Made(chained), (6, 8)).quantities["weighted_layers"] == 2
