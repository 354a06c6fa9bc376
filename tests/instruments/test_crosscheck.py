"""Other instruments agree once their definitions are taken apart."""

from __future__ import annotations

import pytest
from torch import nn

from resattn.instruments.crosscheck import crosscheck
from resattn.targets import TargetError


@pytest.mark.parametrize("name", ["attention56", "cifar-attention92", "resnet50", "cifar-resnet20-basic"])
def test_every_difference_is_explained(name: str) -> None:
    checks = crosscheck(name)
    assert {c.tool for c in checks} == {"fvcore", "torchinfo", "torch FlopCounterMode"}
    assert [c.unexplained for c in checks] == [0] * len(checks)


def test_the_causes_are_the_ones_known_for_attention_56() -> None:
    by_tool = {(c.tool, c.quantity): c for c in crosscheck("attention56")}
    # fvcore's own by-operator table for this network.
    assert by_tool["fvcore", "macs"].causes == {
        "batch norm, 2 per element": 34_345_472,
        "bilinear up-sampling, 4 per output": 7_024_640,
    }
    assert by_tool["torch FlopCounterMode", "flops"].difference == 0


def test_parameters_that_never_run_are_named_as_the_cause() -> None:
    checks = {(c.tool, c.quantity): c for c in crosscheck("port:tengshaofeng:cifar-attention56")}
    dead = checks["torchinfo", "params"]
    # 11.41 M defined, 7.20 M live.
    assert round(dead.reported / 1e6, 2) == 11.41
    assert round(dead.ours / 1e6, 2) == 7.20
    assert dead.unexplained == 0


def test_a_difference_without_a_cause_stays_unexplained() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, x):
            return nn.functional.conv2d(x, self.conv.weight)

    checks = {c.tool: c for c in crosscheck(Functional(), (3, 8, 8)) if c.quantity == "macs"}
    # Torchinfo sees no functional call.
    assert checks["torchinfo"].reported == 0
    assert checks["torchinfo"].unexplained == -checks["torchinfo"].ours != 0


def test_a_callable_needs_an_input_shape() -> None:
    with pytest.raises(TargetError, match="needs an input"):
        crosscheck("torch.nn:Identity")
