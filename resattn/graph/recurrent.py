"""Runs recurrent layers as separate products, in the order of torch's CPU kernels (aten/src/ATen/native/RNN.cpp).

The inputs of all steps are multiplied by their matrix in one product; the state is multiplied by its own at every step.
Torch's own calls do so on the CPU only: fused kernels show no product, and on other devices each step has two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]


@contextmanager
def separate_products() -> Iterator[None]:
    """Inside the block `nn.LSTM`, `nn.GRU` and `nn.RNN` run as separate products."""
    with ExitStack() as patches:
        for name, cell in CELLS.items():
            patches.enter_context(mock.patch.object(torch._VF, name, partial(_run, cell)))
        yield


def _run(cell: Callable[..., State], x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """The output and the last states, as torch's functions give them for a padded or a packed input.

    Arguments: (x, states, weights ..., batch_first), or (x, batch_sizes, states, weights ...) where it is packed.
    """
    sizes: list[int] | None = None
    if not isinstance(args[2], bool):
        sizes, args = args[0].tolist(), (*args[1:], False)
    given, weights, has_biases, n_layers, dropout, is_training, is_bidirectional, is_first = args
    states = (given,) if isinstance(given, Tensor) else tuple(given)
    directions = 2 if is_bidirectional else 1
    each = len(weights) // (n_layers * directions)
    x = x.transpose(0, 1) if is_first else x
    last: list[State] = []
    for layer in range(n_layers):
        if layer and dropout and is_training:
            x = F.dropout(x, dropout)
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            own = weights[k * each : (k + 1) * each]
            output, state = _direction(cell, x, sizes, tuple(s[k] for s in states), own, has_biases, direction == 1)
            outputs.append(output)
            last.append(state)
        x = torch.cat(outputs, -1) if is_bidirectional else outputs[0]
    return (x.transpose(0, 1) if is_first else x, *(torch.stack(kind) for kind in zip(*last, strict=True)))


def _direction(
    cell: Callable[..., State], x: Tensor, sizes: list[int] | None, state: State, weights: Sequence[Tensor],
    has_biases: bool, is_reverse: bool,
) -> tuple[Tensor, State]:  # fmt: skip
    """One direction of one layer: its output at every step, and its last state."""
    of_x, of_state = weights[:2]
    of_output = weights[-1] if len(weights) % 2 else None  # the projection of an LSTM
    biases = weights[2:4] if has_biases else (None, None)
    gates = F.linear(x, of_x, biases[0])
    steps = list(gates.unbind(0) if sizes is None else gates.split(sizes))
    first, ended, outputs = state, [], []
    n = (sizes[-1] if is_reverse else sizes[0]) if sizes is not None else 0
    if sizes is not None:  # only the longest sequences have a last step
        state = tuple(s[:n] for s in first)
    for step in reversed(steps) if is_reverse else steps:
        if sizes is not None and (now := len(step)) != n:
            if is_reverse:  # more sequences begin
                state = tuple(torch.cat((s, f[n:now])) for s, f in zip(state, first, strict=True))
            else:  # some have ended
                ended.append(tuple(s[now:] for s in state))
                state = tuple(s[:now] for s in state)
            n = now
        state = cell(step, state, partial(F.linear, weight=of_state, bias=biases[1]), of_output)
        outputs.append(state[0])
    if is_reverse:
        outputs.reverse()
    if ended:
        state = tuple(torch.cat(kind) for kind in zip(state, *reversed(ended), strict=True))
    return torch.stack(outputs) if sizes is None else torch.cat(outputs), state


def _lstm(x: Tensor, state: State, product: Callable[[Tensor], Tensor], of_output: Tensor | None) -> State:
    i, f, g, o = (product(state[0]) + x).chunk(4, 1)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    output = o.sigmoid() * memory.tanh()
    return output if of_output is None else F.linear(output, of_output), memory


def _gru(x: Tensor, state: State, product: Callable[[Tensor], Tensor], of_output: Tensor | None) -> State:
    of_x, of_state = x.chunk(3, 1), product(state[0]).chunk(3, 1)
    reset, keep = ((a + b).sigmoid() for a, b in zip(of_x[:2], of_state, strict=False))
    new = (of_x[2] + of_state[2] * reset).tanh()
    return ((state[0] - new) * keep + new,)


def _rnn(
    activation: Callable[[Tensor], Tensor], x: Tensor, state: State, product: Callable[[Tensor], Tensor],
    of_output: Tensor | None,
) -> State:  # fmt: skip
    return (activation(product(state[0]) + x),)


CELLS: dict[str, Callable[..., State]] = {
    "lstm": _lstm, "gru": _gru, "rnn_tanh": partial(_rnn, Tensor.tanh), "rnn_relu": partial(_rnn, Tensor.relu),
}  # fmt: skip
