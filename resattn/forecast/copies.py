"""A copy of a model that can be trained or run on other sizes, with values only where they are needed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from resattn.graph.walk import modules_of, tensors_in


def copied(model: nn.Module, device: str) -> nn.Module:
    """A copy of the model. On "meta" its tensors have shapes and no values. Shared parameters stay shared.

    Raises: the exception of a module that cannot be copied.
    """
    memo: dict[int, Any] = {}
    if device == "meta":
        for _, module in modules_of(model):
            held = [*module._parameters.values(), *module._buffers.values(), *tensors_in(list(vars(module).values()))]
            for tensor in (t for t in held if isinstance(t, Tensor)):
                if id(tensor) not in memo:
                    memo[id(tensor)] = _empty(tensor)
    return copy.deepcopy(model, memo)


def _empty(tensor: Tensor) -> Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
