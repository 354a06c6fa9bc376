"""The builder: from a spec to a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal
from unittest import mock

import torch
from torch import Tensor, nn

from resattn.networks.attention import AttentionModule
from resattn.networks.mask import Constant
from resattn.networks.residual import conv, norm_relu, pooling, unit
from resattn.networks.spec import NetworkSpec, StageSpec


class GlobalMean(nn.Module):
    """(N, C, H, W) to (N, C): the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Network(nn.Sequential):
    """The children stem, stage1, stage2, ..., head. In (N, C, H, W), out (N, classes)."""

    def __init__(self, spec: NetworkSpec) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(spec))
        channels = spec.stem_channels
        for stage in spec.stages:
            parts[stage.name] = _stage(spec, stage, channels)
            channels = stage.channels
        parts["head"] = _head(spec, channels)
        super().__init__(parts)
        self.spec = spec


def build(spec: NetworkSpec, *, seed: int = 0, device: str | torch.device = "cpu") -> Network:
    """The network of a spec, with weights that depend on the seed alone; on "meta" it has shapes but no values.

    Convolutions: He normal, fan-out; linear layers: He normal, fan-in, zero bias.
    Source: he2015delving, equation 10, which wang2017 section 4.1 names.
    """
    with torch.device("meta"), _undrawn():
        network = Network(spec)
    device = torch.device(device)
    if device.type != "meta":
        network.to_empty(device=device)
        _initialise(network, seed)
    return network


@contextmanager
def _undrawn() -> Iterator[None]:
    """Skip torch's own initialisation: on meta weights have no values, and `_initialise` draws them all."""
    with ExitStack() as patches:
        for kind, name in DRAWING:
            patches.enter_context(mock.patch.object(kind, name, _nothing))
        yield


def _nothing(module: nn.Module) -> None:
    pass


# The methods that initialise a module's tensors when it is made.
DRAWING = (
    (nn.modules.conv._ConvNd, "reset_parameters"),
    (nn.Linear, "reset_parameters"),
    (nn.modules.batchnorm._NormBase, "reset_parameters"),
    (nn.modules.batchnorm._NormBase, "reset_running_stats"),
)


def _initialise(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            mode: Literal["fan_in", "fan_out"] = "fan_out" if isinstance(module, nn.Conv2d) else "fan_in"
            # On the CPU, so that a seed gives the same weights on every device.
            weight = torch.empty(module.weight.shape)
            nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu", generator=generator)
            with torch.no_grad():
                module.weight.copy_(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | Constant):
            module.reset_parameters()


def _stem(spec: NetworkSpec) -> nn.Sequential:
    channels, out = spec.input_shape[0], spec.stem_channels
    if spec.stem == "imagenet":
        return nn.Sequential(OrderedDict(conv=conv(channels, out, 7, stride=2), act=norm_relu(out), pool=pooling(spec)))
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv(channels, out, 3))
    if spec.order == "post":
        parts["act"] = norm_relu(out)
    return nn.Sequential(parts)


def _stage(spec: NetworkSpec, stage: StageSpec, channels: int) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    stride = stage.stride
    kinds = ["unit"] * stage.units + ["module"] * stage.modules + ["tail"] * stage.tail
    for i, kind in enumerate(kinds):
        name = f"{kind}{i - kinds.index(kind) + 1}"
        stride *= stage.last_stride if i == len(kinds) - 1 else 1
        if kind == "module":
            parts[name] = AttentionModule(spec, stage, channels, stride)
        else:
            parts[name] = unit(spec, channels, stage.inner, stride)
        channels, stride = stage.channels, 1
    return nn.Sequential(parts)


def _head(spec: NetworkSpec, channels: int) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.order == "pre":
        parts["act"] = norm_relu(channels)
    parts["pool"] = GlobalMean()
    parts["fc"] = nn.Linear(channels, spec.classes)
    return nn.Sequential(parts)
