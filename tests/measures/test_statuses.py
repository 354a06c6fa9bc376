"""What an audit says of quantities that it cannot give: a lower bound, or that they are unavailable, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from nets import Apply, conv
from torch import Tensor, nn

from resattn.measures import audit as audits
from resattn.measures.audit import FIELDS, audit
from resattn.measures.quantities import QUANTITIES, Quantity
from resattn.rules.rule import Rule

SHAPE = (4, 8, 8)
NAME = "resattn_status_tests::mystery"
PRODUCT = "resattn_status_tests::mystery_product"


@torch.library.custom_op(NAME, mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x * 2


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op(PRODUCT, mutates_args=())
def mystery_product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("nchw,dc->ndhw", x, weight)


@mystery_product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))


class Product(nn.Module):
    """A product that has no rule, with a matrix that is a parameter, or a buffer as those of quantised models are."""

    def __init__(self, is_parameter: bool) -> None:
        super().__init__()
        weight = torch.ones(4, 4)
        if is_parameter:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return mystery_product(x, self.weight)


def with_status(found: audits.Audit, status: str) -> set[str]:
    return {name for name, each in found.statuses.items() if each == status}


LAYERS = {
    "weighted_layers", "conv_layers", "conv_layers_trunk", "trunk_depth", "longest_path", "shortest_path",
    "mean_path_length",
}  # fmt: skip


def test_what_an_unknown_operator_hides_has_a_lower_bound() -> None:
    found = audit(nn.Sequential(conv(4, 4), Apply(mystery), conv(4, 4)), SHAPE)
    # Two 3x3 convolutions from 4 to 4 channels, on 8 x 8 positions.
    assert found.at_least == {"macs": 2 * 64 * 4 * 36, "flops": 4 * 64 * 4 * 36}
    assert with_status(found, "partial") == {"macs", "flops"}
    assert with_status(found, "unavailable") == set(FIELDS)
    assert found.status == "partial"
    assert all(found.quantities[name] is None for name in found.at_least)
    assert f"at least {2 * 64 * 4 * 36:,}" in str(found)
    assert "unavailable" in str(found)


@pytest.mark.parametrize("is_parameter", [True, False])
def test_what_may_be_weights_makes_layers_unknown_and_not_0(is_parameter: bool) -> None:
    found = audit(nn.Sequential(conv(4, 4), Product(is_parameter), conv(4, 4)), SHAPE)
    assert with_status(found, "partial") == LAYERS | {"macs", "flops"}
    assert {name: found.at_least[name] for name in LAYERS} == dict.fromkeys(LAYERS, 2)
    assert found.quantities["n_paths"] == 1
    assert found.quantities["params"] == 2 * 144 + 16 * is_parameter


def quantised() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_make_layers_and_parameters_unknown() -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of torch has no quantised layers")
    found = audit(quantised(), (8,))
    assert "quantized.linear_dynamic does not run on the meta device" in found.notes[0]
    assert {"params", "defined_params", "weighted_layers", "longest_path", "macs"} <= with_status(found, "partial")
    assert found.at_least["weighted_layers"] == 0
    assert found.quantities["n_paths"] == 1
    assert found.status == "partial"


def test_a_field_that_cannot_be_given_leaves_the_status_alone() -> None:
    row = Rule(macs=lambda op: 0)
    found = audit(nn.Sequential(conv(4, 4), Apply(mystery), conv(4, 4)), SHAPE, rules={NAME: row})
    assert found.status == "complete"
    assert with_status(found, "unavailable") == set(FIELDS)
    assert found.at_least == {}


@pytest.mark.parametrize("name", ["cifar-attention56", "resnet50"])
def test_every_quantity_of_a_known_network_is_complete(name: str) -> None:
    found = audit(name)
    assert set(found.statuses) == set(found.quantities)
    assert set(found.statuses.values()) == {"complete"}
    assert found.at_least == {}


def test_an_output_that_depends_on_no_input_has_no_path() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(3)

    found = audit(Constant(), SHAPE)
    assert {"longest_path", "shortest_path", "mean_path_length"} <= with_status(found, "unavailable")
    assert found.status == "partial"
    assert "no output depends on an input: there is no path" in found.notes


def failing(make: Callable[[Any], Any]) -> Quantity:
    return Quantity("dead_layers", "layers", "Dead layers", "", make)


def test_a_quantity_that_fails_is_unavailable_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: object) -> int:
        raise IndexError("nothing there")

    before = audit("cifar-resnet20-basic")
    monkeypatch.setitem(QUANTITIES, "dead_layers", failing(fails))  # type: ignore[arg-type]
    found = audit("cifar-resnet20-basic")
    assert with_status(found, "unavailable") == {"dead_layers"}
    assert found.notes == ("dead_layers: IndexError: nothing there",)
    assert found.status == "partial"
    assert {**found.quantities, "dead_layers": before.quantities["dead_layers"]} == before.quantities


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(conv(4, 4), Apply(mystery)),
        nn.Sequential(conv(4, 4), Product(True)),
        nn.Sequential(nn.Conv2d(4, 2, (3, 5)), nn.Flatten()),
    ],
)
def test_the_json_of_incomplete_audits_is_what_the_schema_says(model: nn.Module) -> None:
    schema = json.loads(Path(audits.__file__).with_name("audit.schema.json").read_text(encoding="utf-8"))
    found = json.loads(json.dumps([audit(model, SHAPE, at=["0"]).to_json()]))
    jsonschema.validate(found, schema)
    (record,) = found
    assert set(record["at_least"]) == {name for name, status in record["statuses"].items() if status == "partial"}


def test_a_network_without_masks_says_so() -> None:
    found = audit(nn.Sequential(conv(4, 4)), SHAPE)
    assert found.roles_found_by == "none"
    assert "no masks" in str(found)
    assert "found by" not in str(found)
    assert "masks found by module names" in str(audit("cifar-attention56"))


def test_a_port_at_another_size_than_its_own_is_noted() -> None:
    assert audit("port:tengshaofeng:cifar-attention92").notes == ()
    (note,) = audit("port:tengshaofeng:cifar-attention92", (3, 64, 64)).notes
    assert note.startswith("the code of this port has sizes of maps that are fixed for an input of 3x32x32")
    assert audit("cifar-attention92", (3, 64, 64)).notes == ()
