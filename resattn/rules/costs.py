"""Multiply-adds of the operators that have any, bias excluded, and which of them are weighted layers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from resattn.graph.graph import Op


def convolution_macs(op: Op) -> int:
    x, weight = op.arguments["input"], op.arguments["weight"]
    # Each output of a convolution, and each input of a transposed one, meets one slice of the weight.
    meets = x.shape if op.arguments.get("transposed") else op.shape
    return prod(meets) * prod(weight.shape[1:])


def matmul_macs(first: str, second: str) -> Callable[[Op], int]:
    def macs(op: Op) -> int:
        a, b = op.arguments[first].shape, op.arguments[second].shape
        return prod(a) * (b[-1] if len(b) > 1 else 1)

    return macs


def linear_macs(op: Op) -> int:
    return prod(op.arguments["input"].shape) * prod(op.arguments["weight"].shape[:-1])


def attention_macs(op: Op) -> int:
    query, key, value = (op.arguments[n].shape for n in ("query", "key", "value"))
    return prod(query) * key[-2] + prod(query[:-1]) * key[-2] * value[-1]


def reads_params(*names: str) -> Callable[[Op], bool]:
    def is_layer(op: Op) -> bool:
        return any(op.arguments[name].params for name in names)

    return is_layer


def is_weighted_convolution(op: Op) -> bool:
    weight = op.arguments["weight"]
    # A weight that data or a hyper-network makes counts too; a constant one (a blur, a Sobel filter) does not.
    return bool(weight.params or weight.constant) or weight.producer is not None


def grouped_macs(op: Op) -> int:
    """Multiply-adds of a product in which each row is multiplied by one matrix of a stack."""
    a, b = op.arguments["self"].shape, op.arguments["mat2"].shape
    return prod(a[1:] if len(a) == 3 and len(b) == 2 else a) * b[-1]


def bilinear_macs(op: Op) -> int:
    """Multiply-adds of x W y for a batch of x and y: each weight once for each sample."""
    return prod(op.shape) * prod(op.arguments["i2"].shape[-2:])


def deformed_macs(op: Op) -> int:
    return prod(op.shape) * prod(op.arguments["weight"].shape[1:])


def recurrent_macs(op: Op) -> int:
    """Multiply-adds of one direction of one layer: at every step input and state are multiplied by their matrices."""
    steps = op.arguments["input"].shape[:-1]
    return prod(steps) * sum(prod(op.arguments[name].shape) for name in ("weight0", "weight1"))
