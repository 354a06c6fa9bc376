"""The classic networks against what was printed about them, and by others counted: tests/golden/zoo.csv."""

from __future__ import annotations

import functools
import json
from decimal import Decimal

import pytest
import torch
from golden_rows import rows
from oracles import gradient_support, positive
from torch import nn

from resattn import cli
from resattn.graph.graph import Graph
from resattn.measures.audit import Audit, audit
from resattn.measures.captured import Captured, capture
from resattn.measures.receptive import receptive_field
from resattn.measures.roles import MASK
from resattn.networks import catalog
from resattn.networks.classic import (
    ZOO,
    efficientnet_b0,
    inception_v3,
    mobilenet_v2,
    unet,
    unet_of,
)
from resattn.networks.spec import override
from resattn.targets import model_of

GOLDEN = rows("zoo.csv")
GATED = {"se_resnet50": 16, "efficientnet_b0": 16}  # squeeze-and-excitation gates: one in each unit


@functools.cache
def audited(name: str) -> Audit:
    """The audit of a network of the zoo, or of one of the catalogue with a field set (`resnet50 stride_on=1x1`)."""
    name, *settings = name.split()
    if settings:
        return audit(override(catalog.named(name), dict(s.split("=") for s in settings)))
    return audit(f"resattn.networks.classic:{name}", ZOO[name].input_shape)


def said(row: dict[str, str]) -> str:
    return " ".join(filter(None, (row["network"], row["module"], row["quantity"], row["value"])))


def matches(value: int, printed: str) -> bool:
    """Equal within half of the last printed digit."""
    number = Decimal(printed)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(value - number) <= Decimal(5).scaleb(exponent - 1)


@pytest.mark.parametrize("row", [r for r in GOLDEN if not r["module"]], ids=said)
def test_counts_are_the_published_ones(row: dict[str, str]) -> None:
    quantities = dict(audited(row["network"]).quantities)
    assert quantities["defined_params"] == quantities["params"] + quantities["dead_params"]
    found = quantities[row["quantity"]]
    assert matches(found, row["value"]), f"{found:,} for {row['value']} ({row['source']})"


@functools.cache
def large_graph(name: str) -> Graph:
    return Captured.of(model_of(f"resattn.networks.classic:{name}"), (1, *ZOO[name].input_shape)).large


@pytest.mark.parametrize("row", [r for r in GOLDEN if r["module"]], ids=said)
def test_receptive_fields_along_the_way_are_the_published_ones(row: dict[str, str]) -> None:
    graph, module = large_graph(row["network"]), row["module"]
    last = max(op.index for op in graph.ops if f"{op.module}.".startswith(f"{module}."))
    field = receptive_field(graph, last)
    assert field is not None
    assert {str(field.height_px), str(field.width_px)} == {row["value"]}, row["source"]


@pytest.mark.parametrize("name", ZOO)
def test_every_audit_is_complete(name: str) -> None:
    found = audited(name)
    assert found.status == "complete"
    assert found.unknown_ops == ()
    assert all(value is not None for value in found.quantities.values())
    auxiliary = name == "inception_v3"
    assert found.quantities["dead_layers"] == (3 if auxiliary else 0)
    assert all(path.startswith("auxiliary.") for path in found.dead_modules)


@pytest.mark.parametrize("name", [n for n, classic in ZOO.items() if classic.named_by == "name"])
def test_a_network_is_as_deep_as_its_name_says_without_its_gates(name: str) -> None:
    found = audited(name).quantities
    assert found["trunk_depth"] == ZOO[name].named_depth
    # Each gate has two layers of its own, one behind the other, on the way of a signal that takes every gate.
    assert found["longest_path"] == ZOO[name].named_depth + 2 * GATED.get(name, 0)


def test_inception_v3_is_deeper_than_its_paper_says() -> None:
    # Stem, three grids, the reductions between them by their longest branch, and the classifier.
    by_hand = 5 + 3 * 3 + 3 + 4 * 5 + 4 + 2 * 3 + 1
    assert audited("inception_v3").quantities["longest_path"] == by_hand
    assert ZOO["inception_v3"].named_depth == 42


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("vgg16", 1),
        ("resnet50", 2**16),  # a unit: its branch and its identity
        ("se_resnet50", 3**16),  # and its gate, which reads the branch
        ("densenet121", 2**58),  # a layer: what it reads is kept beside what it makes
        ("mobilenet_v2", 2**10),  # ten units have an identity
        ("efficientnet_b0", 3**9 * 2**7),  # nine have one; all have a gate
        ("inception_v3", 4**3 * 3 * 4**4 * 3 * 6**2),  # branches of each module; two of the last split in two
        ("unet", 5),  # one at each level
    ],
)
def test_paths_multiply_in_series_and_add_in_parallel(name: str, paths: int) -> None:
    found = audited(name)
    assert found.quantities["n_paths"] == paths
    assert sum(found.path_lengths.values()) == paths


# -- gates


@pytest.mark.parametrize("name", GATED)
def test_squeeze_and_excitation_is_found_by_data_flow(name: str) -> None:
    found = audited(name)
    mask = next(row for row in found.roles if row["role"] == MASK)
    assert found.roles_found_by == "data flow"
    assert mask["weighted_layers"] == 2 * GATED[name]
    graph = capture(model_of(f"resattn.networks.classic:{name}"), (1, *ZOO[name].input_shape))
    gates = {param for param in graph.params if ".gate." in param}
    assert mask["params"] == sum(graph.params[param] for param in gates)


def test_a_gate_costs_what_its_paper_says() -> None:
    # hu2018, equation 5: 2/r times the sum of N C^2 over the stages; the biases, which it leaves out, add C/r + C.
    stages = [(3, 256), (4, 512), (6, 1024), (3, 2048)]
    weights = sum(2 * n * c * c // 16 for n, c in stages)
    biases = sum(n * (c // 16 + c) for n, c in stages)
    found = audited("se_resnet50").quantities
    assert found["macs_mask"] == weights
    assert found["params_mask"] == weights + biases


def test_without_its_gates_se_resnet50_is_resnet50() -> None:
    gated, plain = audited("se_resnet50").quantities, audited("resnet50").quantities
    for quantity in ("params", "macs"):
        assert gated[quantity] - gated[f"{quantity}_mask"] == plain[quantity]
    assert gated["receptive_field_trunk_px"] == plain["receptive_field_px"]
    assert "receptive field: the whole input" in audited("se_resnet50").notes


@pytest.mark.parametrize("name", [n for n in ZOO if n not in GATED])
def test_what_has_no_gate_has_no_mask(name: str) -> None:
    found = audited(name).quantities
    assert found["params_mask"] == found["macs_mask"] == found["conv_layers_mask"] == 0
    assert found["trunk_depth"] == found["longest_path"]
    assert found["receptive_field_trunk_px"] == found["receptive_field_px"]


# -- the U-Net, whose units differ by position


def test_unet_sees_what_gradients_see() -> None:
    rows = 16 * 6 + 124
    first, last = gradient_support(positive(unet_of(1)), (1, 1, rows, rows), axis=0)
    sides = last - first + 1
    assert len(set(sides)) > 1
    assert audited("unet").quantities["receptive_field_px"] == max(sides)


@pytest.mark.parametrize(("rows", "left"), [(572, 388), (188, 4)])
def test_unet_shrinks_as_its_figure_says(rows: int, left: int) -> None:
    with torch.device("meta"):
        assert unet()(torch.empty(1, 1, rows, rows)).shape == (1, 2, left, left)


# -- a video


def test_the_receptive_field_of_a_video_is_that_of_its_images() -> None:
    field = audit(nn.Sequential(nn.Conv3d(1, 1, (9, 3, 5))), (1, 16, 32, 32)).quantities
    assert (field["receptive_field_h_px"], field["receptive_field_w_px"]) == (3, 5)


# -- they run


def test_inception_v3_trains_with_its_auxiliary_classifier() -> None:
    with torch.device("meta"):
        model, x = inception_v3(), torch.empty(2, 3, 299, 299)
    scores, auxiliary = model.train()(x)
    assert scores.shape == auxiliary.shape == (2, 1000)


def test_weights_are_the_same_at_every_call_and_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    first, second = mobilenet_v2(), mobilenet_v2()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_real_tensors_take_the_same_way_as_meta_tensors() -> None:
    model, shape = efficientnet_b0(), (1, 3, 64, 64)
    assert capture(model, shape, device="cpu") == capture(model, shape)
    assert model.eval()(torch.zeros(shape)).isfinite().all()


def test_the_command_line_audits_a_classic_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "resattn.networks.classic:vgg16", "--input", "3,224,224", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["quantities"]["trunk_depth"] == 16
