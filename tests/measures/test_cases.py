"""Small models, one for each kind of fault that was seen on public models, with values counted by hand.

Kinds that have a law or a table of their own elsewhere (recurrent modules, dynamic weights, the choice of the map,
roles, what an instrument counts) are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resattn.measures.audit import audit


class Net(nn.Module):
    """Modules by name, and a forward that is given them and the inputs."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Case:
    model: nn.Module
    shape: tuple[int, ...]
    values: dict[str, Any] = field(default_factory=dict)


def conv(c_in: int = 3, c_out: int = 8, kernel: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False, **more)


def linear(n: int, m: int) -> nn.Linear:
    return nn.Linear(n, m, bias=False)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def attention(m: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    return m.o(attend(m.q(x), m.k(memory), m.v(memory)))


def decoder() -> nn.Module:
    """Learned queries that attend to themselves and then to the input (DETR)."""

    def forward(m: nn.Module, memory: Tensor) -> Tensor:
        x = m.query.weight[None]
        x = x + m.own(x, x)
        return m.head(x + m.cross(x, memory))

    own, cross = (Net(attention, **{name: linear(16, 16) for name in "qkvo"}) for _ in range(2))
    return Net(forward, query=nn.Embedding(5, 16), own=own, cross=cross, head=linear(16, 4))


def written(m: nn.Module, x: Tensor) -> Tensor:
    y = m.q(x)
    y[:, 1:].add_(1.0)
    return y.relu()


def written_twice(m: nn.Module, x: Tensor) -> Tensor:
    y = torch.zeros(1, len(x[0]), 8)
    y[:, ::2] = m.q(x[:, ::2])
    y[:, 1::2] = m.p(x[:, 1::2])
    return y


def pooled_to_a_grid(m: nn.Module, x: Tensor) -> Tensor:
    x = m.c(x)
    y = F.interpolate(F.adaptive_avg_pool2d(x, 2), size=x.shape[2:], mode="bilinear")
    return m.d(torch.cat([x, y], 1))


def experts(m: nn.Module, x: Tensor) -> Tensor:
    """Of four experts the two best for each token, in a loop over experts (Mixtral)."""
    x, out = x[0], torch.zeros_like(x[0])
    weights, chosen = torch.topk(m.gate(x).softmax(-1), 2, dim=-1)
    mask = F.one_hot(chosen, 4).permute(2, 1, 0)
    for k, expert in enumerate(m.experts):
        rank, token = torch.where(mask[k])
        out.index_add_(0, token, expert(x[token]) * weights[token, rank, None])
    return out


def asked(m: nn.Module, x: Tensor) -> Tensor:
    steps = torch.arange(x.shape[-1], device=x.device)
    return m.c(x) if bool((steps >= 0).all()) else x


def crnn(m: nn.Module, x: Tensor) -> Tensor:
    return m.fc(m.rnn(m.c(x).flatten(1, 2).transpose(1, 2))[0])


def noise(m: nn.Module, x: Tensor) -> Tensor:
    F.conv1d(torch.randn(20, 16, 50), torch.randn(33, 16, 3))
    torch.bmm(torch.randn(10, 3, 4), torch.randn(10, 4, 5))
    return m.c(x)


class Elsewhere(nn.Module):
    """A forward that moves its constants to a device."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.c, self.device = conv(3, 3), device

    def forward(self, x: Tensor) -> Tensor:
        return self.c(x) + torch.ones(1, 3, 1, 1).to(self.device)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(512, 4, 512, batch_first=True), 1).requires_grad_(False)


def heads(n: int) -> nn.Module:
    return Net(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(448, n, batch_first=True))


def position_table(m: nn.Module, x: Tensor) -> Tensor:
    return m.c(x) @ m.p(m.pos).T


def dilated() -> nn.Module:
    half = [nn.Conv1d(1, 1, 3, dilation=d) for d in (1, 2, 3)]
    return nn.Sequential(
        nn.Sequential(*half), nn.ReLU(), nn.Sequential(*[nn.Conv1d(1, 1, 3, dilation=d) for d in (1, 2, 3)])
    )


MASKED_ENCODER = Net(
    lambda m, x: m.e(x, src_key_padding_mask=torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)), e=encoder()
)
ENCODER = 64 * 512 * 1536 + 2 * 64 * 64 * 512 + 64 * 512 * 512 + 2 * 64 * 512 * 512
OWN = 4 * 5 * 16 * 16 + 2 * 5 * 5 * 16  # queries, keys, values and outputs of 5 tokens, and the two products
CROSS = 2 * 5 * 16 * 16 + 2 * 9 * 16 * 16 + 2 * 5 * 9 * 16

CASES: dict[str, Case] = {
    # what no input reaches runs at every call
    "a position table": Case(
        Net(position_table, c=linear(8, 8), p=linear(8, 8), pos=torch.zeros(100, 8)), (16, 8),
        {"macs": 16 * 64 + 100 * 64 + 16 * 8 * 100, "macs_constant": 100 * 64, "weighted_layers": 2},
    ),
    "a position table in two layers": Case(
        Net(position_table, c=linear(8, 8), p=nn.Sequential(linear(8, 4), nn.ReLU(), linear(4, 8)),
            pos=nn.Parameter(torch.zeros(10, 8))), (16, 8),
        {"macs": 16 * 64 + 10 * 64 + 16 * 8 * 10, "macs_constant": 10 * 64, "weighted_layers": 3, "longest_path": 1},
    ),
    "learned queries": Case(
        decoder(), (9, 16),
        {"macs": OWN + CROSS + 5 * 16 * 4, "macs_constant": OWN + 5 * 16 * 16, "longest_path": 3, "weighted_layers": 9},
    ),
    "products of noise that nothing reads": Case(
        Net(noise, c=conv()), (3, 12, 12),
        {"macs": 144 * 8 * 27 + 20 * 33 * 48 * 48 + 10 * 3 * 4 * 5, "macs_constant": 20 * 33 * 48 * 48 + 600,
         "params": 8 * 27},
    ),
    # what constants decide
    "a constant that the forward asks for": Case(Net(asked, c=conv()), (3, 8, 8), {"macs": 64 * 8 * 27, "n_paths": 1}),
    "constants on another device": Case(Elsewhere(), (3, 8, 8), {"macs": 5184}),
    "a wrapped model": Case(nn.DataParallel(Elsewhere()), (3, 8, 8), {"macs": 5184}),
    "a traced model": Case(torch.fx.symbolic_trace(Elsewhere()), (3, 8, 8), {"macs": 5184}),
    # writes in place
    "a slice that is written": Case(Net(written, q=linear(8, 8)), (10_000, 8), {"macs": 640_000, "n_paths": 2}),
    "two slices of one tensor": Case(
        Net(written_twice, q=linear(8, 8), p=linear(8, 8)), (10, 8), {"macs": 640, "weighted_layers": 2, "n_paths": 2}
    ),
    # experts
    "experts in a loop": Case(
        Net(experts, gate=linear(8, 4),
            experts=nn.ModuleList(nn.Sequential(linear(8, 16), nn.ReLU(), linear(16, 8)) for _ in range(4))), (6, 8),
        {"macs": 6 * 8 * 4 + 6 * 2 * 2 * 8 * 16, "longest_path": 3},
    ),
    # attention, whose heads change no number
    "a frozen encoder": Case(encoder(), (64, 512), {"macs": ENCODER, "params": 1_577_984}),
    "a frozen encoder with a mask": Case(MASKED_ENCODER, (64, 512), {"macs": ENCODER, "longest_path": 4}),
    **{
        f"{n} heads": Case(
            heads(n), (300, 448), {"macs": 300 * 448 * 448 * 4 + 2 * 300 * 300 * 448, "weighted_layers": 2}
        )
        for n in (1, 4, 8)
    },
    # an activation that all blocks share
    "one activation": Case(
        Net(lambda m, x: m.act(m.b(m.act(m.a(x)))), a=nn.Linear(4, 4), b=nn.Linear(4, 4), act=nn.PReLU()), (4,),
        {"params": 41, "macs": 32, "longest_path": 2, "shortest_path": 2},
    ),
    # transposed convolutions: each input meets one slice of the weight
    "one position": Case(nn.ConvTranspose2d(32, 1, 3), (32, 1, 1), {"macs": 288}),
    "groups": Case(nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2), (4, 8, 8), {"macs": 64 * 4 * 3 * 16}),
    "depthwise": Case(
        nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=4), (4, 8, 8), {"macs": 64 * 4 * 9}
    ),
    # signals
    "dilated convolutions of a signal": Case(
        dilated(), (1, 100),
        {"receptive_field_px": 1 + 2 * 2 * (1 + 2 + 3), "macs": 3 * (98 + 94 + 88 + 86 + 82 + 76)},
    ),
    # every position of a coarse grid sees the whole image
    "pooling to a fixed grid": Case(
        Net(pooled_to_a_grid, c=conv(), d=conv(16)), (3, 32, 32),
        {"receptive_field_px": 32, "receptive_field_narrowest_px": 5, "longest_path": 2},
    ),
    # a recurrent head: 100 steps of 4 gates, 256 inputs and 16 states
    "text in an image": Case(
        Net(crnn, c=conv(1, 8), rnn=nn.LSTM(256, 16, batch_first=True), fc=linear(16, 11)), (1, 32, 100),
        {"macs": 8 * 9 * 3200 + 100 * 64 * 272 + 100 * 16 * 11, "weighted_layers": 2 + 101},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_values_are_those_counted_by_hand(name: str) -> None:
    case = CASES[name]
    found = audit(case.model, case.shape)
    assert {quantity: found.quantities[quantity] for quantity in case.values} == case.values
    assert found.status == "complete"


def test_a_device_that_is_not_there_is_named_with_its_line() -> None:
    with pytest.raises(Exception, match=r"in Elsewhere, .*test_cases.py, line \d+, input 1x3x8x8"):
        audit(Elsewhere("cuda:99"), (3, 8, 8))
