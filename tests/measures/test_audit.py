"""The audit: what it says of our networks and of anyone's, what it leaves open, and what it costs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jsonschema
import pytest
import torch
from nets import NETS, Apply, conv, made
from torch import Tensor, nn

from resattn.claims.claims import Subject
from resattn.claims.measured import measure
from resattn.compare.matching import match
from resattn.graph.errors import CaptureError, NeedsValuesError
from resattn.graph.graph import Indices
from resattn.measures import audit as audits
from resattn.measures import captured as module
from resattn.measures import receptive, single_paths
from resattn.measures.audit import audit
from resattn.measures.captured import Captured
from resattn.measures.quantities import QUANTITIES
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import SpecError, override
from resattn.targets import TargetError

SHAPE = (4, 8, 8)
SCHEMA = Path(audits.__file__).with_name("audit.schema.json")


# -- our own networks


@pytest.mark.parametrize("name", ["attention56", "cifar-attention92", "resnet50"])
def test_every_quantity_of_the_vocabulary_is_there(name: str) -> None:
    found = audit(name)
    optional = {"receptive_field_h_px", "receptive_field_w_px"}
    assert set(QUANTITIES) - optional <= set(found.quantities) <= set(QUANTITIES)
    assert list(found.quantities) == [q for q in QUANTITIES if q in found.quantities]
    assert found.status == "complete"
    assert found.unknown_ops == ()
    assert found.notes == ()
    assert found.spec_digest == catalog.named(name).digest
    assert found.quantities["flops"] == 2 * found.quantities["macs"]


def test_the_longest_path_is_named_from_stem_to_head() -> None:
    found = audit("attention56")
    assert len(found.longest_path_layers) == 80
    assert found.longest_path_layers[0] == "stem.conv"
    assert found.longest_path_layers[-1] == "head.fc"
    # Through the whole depth of every mask, and through no skip.
    masked = [layer for layer in found.longest_path_layers if ".mask." in layer]
    assert len(masked) == 20 + 14 + 8
    assert not any(".skip" in layer for layer in masked)


def test_the_modules_of_attention56_are_26_20_and_14_deep() -> None:
    # Claim 2 holds for stage 2 only.
    rows = {row["module"]: row for row in audit("attention56").modules}
    assert [row["longest_path"] for row in rows.values()] == [26, 20, 14]
    assert [row["trunk_path"] for row in rows.values()] == [12, 12, 12]
    assert [row["branch_path"] for row in rows.values()] == [6, 6, 6]
    assert [row["mask_path"] for row in rows.values()] == [20, 14, 8]
    assert [row["mask_layers"] for row in rows.values()] == [26, 17, 8]


def test_a_setting_changes_the_network_and_its_name() -> None:
    found = audit("cifar-attention56", settings={"merge": "naive"})
    assert found.target == "cifar-attention56[merge=naive]"
    assert found.quantities["n_paths"] < audit("cifar-attention56").quantities["n_paths"]


def test_a_larger_input_changes_the_cost_and_not_the_structure() -> None:
    at = {size: audit("attention56", (3, size, size)).quantities for size in (224, 320)}
    assert at[224]["macs"] < at[320]["macs"]
    for quantity in ("params", "n_paths", "longest_path", "receptive_field_px"):
        assert at[224][quantity] == at[320][quantity]


def test_unknown_names_and_fields_are_refused() -> None:
    with pytest.raises(SpecError, match="unknown network 'attention57'"):
        audit("attention57")
    with pytest.raises(SpecError, match="unknown field 'gaet' of attention56"):
        audit("attention56", settings={"gaet": "mixed"})


# -- JSON and tables


@pytest.mark.parametrize("target", ["cifar-attention56", "MiniRAN", "TokensOnly", "Unknown"])
def test_the_json_is_what_the_schema_says(target: str) -> None:
    if target == "MiniRAN":
        found = audit(made("MiniRAN")[0], (3, 32, 32))
    elif target == "TokensOnly":
        found = audit(nn.Linear(8, 2), (5, 8))
    elif target == "Unknown":
        found = audit(nn.Sequential(conv(4, 4), Apply(strange)), SHAPE)
    else:
        found = audit(target)
    text = json.dumps([found.to_json()])
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))


def test_path_lengths_survive_json_however_large() -> None:
    found = audit("attention92")
    again = json.loads(json.dumps(found.to_json()))["path_lengths"]
    assert sum(again.values()) == 51951924412416
    assert {int(k): v for k, v in again.items()} == found.path_lengths


def test_a_network_is_captured_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, passes = [], []
    of, once = Captured.of.__func__, module._captured
    monkeypatch.setattr(Captured, "of", classmethod(lambda *a, **k: made.append(k["name"]) or of(*a, **k)))
    monkeypatch.setattr(module, "_captured", lambda index, *a: passes.append(index.model.spec) or once(index, *a))
    module.captured.cache_clear()
    spec = catalog.named("cifar-attention56")
    for ask in (audit, lambda s: match(s, "longest_path"), lambda s: measure(Subject(s.name), "macs")):
        ask(spec)
    assert audit(spec).to_json() == audit(spec.name).to_json()
    assert made.count(spec.name) == 1
    # The first pass and the one on an enlarged input; the second, which shows whether two are equal, makes no graph.
    assert passes.count(spec) == 2


# -- operators without a rule


@torch.library.custom_op("resattn_tests::strange", mutates_args=())
def strange(x: Tensor) -> Tensor:
    return x * 2


@strange.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("resattn_tests::strange_product", mutates_args=())
def strange_product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("nchw,dc->ndhw", x, weight)


@strange_product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))


LAYERS = {
    "weighted_layers", "conv_layers", "conv_layers_trunk", "trunk_depth", "longest_path", "shortest_path",
    "mean_path_length",
}  # fmt: skip
COSTS = {"macs", "flops"}
FIELDS = set(audits.FIELDS)


def nulls(found: audits.Audit) -> set[str]:
    return {q for q, value in found.quantities.items() if value is None}


def test_an_unknown_operator_without_parameters_touches_costs_and_receptive_field() -> None:
    model = nn.Sequential(conv(4, 4), nn.Sequential(Apply(strange)), conv(4, 4))
    found = audit(model, SHAPE)
    assert found.status == "partial"
    assert found.unknown_ops == ("resattn_tests.strange in 1.0",)
    assert nulls(found) == COSTS | FIELDS
    assert found.quantities["longest_path"] == 2
    assert found.quantities["params"] == 288
    assert any("no rule for resattn_tests.strange in 1.0" in note for note in found.notes)


class StrangeLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return strange_product(x, self.weight)


def test_an_unknown_operator_with_parameters_touches_every_count_of_layers() -> None:
    found = audit(nn.Sequential(conv(4, 4), StrangeLayer()), SHAPE)
    assert nulls(found) == COSTS | FIELDS | LAYERS
    assert found.quantities["params"] == 160
    assert found.quantities["n_paths"] == 1
    assert found.path_lengths == {}
    assert found.longest_path_layers == ()


class StrangeMask(nn.Module):
    def __init__(self, in_mask: bool) -> None:
        super().__init__()
        self.body, self.soft, self.in_mask = conv(4, 4), conv(4, 4), in_mask

    def forward(self, x: Tensor) -> Tensor:
        t, m = self.body(x), self.soft(x)
        return strange(m).sigmoid() * t if self.in_mask else m.sigmoid() * strange(t)


def test_only_the_role_that_is_touched_is_left_open() -> None:
    inside, outside = (audit(StrangeMask(in_mask), SHAPE) for in_mask in (True, False))
    assert nulls(inside) == COSTS | {"macs_mask"} | FIELDS
    assert nulls(outside) == COSTS | FIELDS
    assert outside.quantities["macs_mask"] == 64 * 4 * 36
    assert {row["role"]: row["macs"] for row in outside.roles} == {"trunk": None, "mask": 9216, "shortcut": 0}
    assert {row["role"]: row["macs"] for row in inside.roles} == {"trunk": 9216, "mask": None, "shortcut": 0}


def test_an_unknown_operator_behind_the_last_map_leaves_the_receptive_field() -> None:
    model = nn.Sequential(conv(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Apply(strange), nn.Linear(4, 2))
    found = audit(model, SHAPE)
    assert nulls(found) == COSTS
    assert found.quantities["receptive_field_px"] == 3


# -- what is defined and not run, what changes, what needs values


def test_dead_modules_are_named_with_their_parameters() -> None:
    found = audit(made("DeadProjection")[0], SHAPE)
    assert found.dead_modules == ("projection",)
    assert found.quantities["dead_layers"] == 1
    assert found.quantities["dead_params"] == 16


def test_norms_and_tables_that_are_not_run_are_no_dead_layers() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dead = conv(4, 4), conv(4, 4, 1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.LayerNorm([8, 8]), nn.Embedding(5, 4)])

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    found = audit(Spare(), SHAPE)
    assert found.dead_modules == ("dead",)
    assert found.quantities["dead_params"] == 16 + 8 + 128 + 20


def test_a_port_that_always_defines_the_projection_carries_dead_weight() -> None:
    # 19.92 M defined, 12.17 M alive.
    found = audit("port:tengshaofeng:cifar-attention92")
    alive, dead = found.quantities["params"], found.quantities["dead_params"]
    assert alive == pytest.approx(12.17e6, abs=0.005e6)
    assert alive + dead == pytest.approx(19.92e6, abs=0.005e6)


def test_a_model_that_changes_between_calls_is_said_to() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = conv(4, 4), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            for _ in range(self.calls):
                x = self.conv(x)
            return x

    found = audit(Growing(), SHAPE)
    assert any("two captures differ" in note for note in found.notes)


def test_a_model_that_needs_values_is_measured_on_the_cpu_for_that_input() -> None:
    model = made("DataDependent")[0]
    for device, note in (
        ("cpu", "for this input: the model ran on values"),
        ("meta", "captured on the CPU, for input values drawn from a fixed seed: the forward needs the value"),
    ):
        found = audit(model, SHAPE, device=device)
        assert found.status == "complete"
        assert found.quantities["weighted_layers"] == 2
        assert any(n.startswith(note) for n in found.notes)


@pytest.mark.parametrize(("is_map_after", "sizes"), [(False, {8}), (True, {8, 16})])
def test_values_are_computed_on_a_larger_input_only_where_the_map_needs_them(
    is_map_after: bool, sizes: set[int]
) -> None:
    ran: set[int] = set()

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not x.is_meta:
                ran.add(x.shape[-1])
            y = self.first(x)
            best = int(y.mean((0, 2, 3)).argmax())
            return self.second(y[:, best : best + 1].expand_as(y)) if is_map_after else y[:, best].amax((1, 2))

    found = audit(Detector(), SHAPE).quantities
    assert found["receptive_field_px"] == (5 if is_map_after else 3)
    assert ran == sizes


def test_a_model_without_values_cannot_fall_back_on_them() -> None:
    with torch.device("meta"):
        model = NETS["DataDependent"].make()
    with pytest.raises(NeedsValuesError, match="the model has no values: it was built on the device 'meta'"):
        audit(model, SHAPE)


def test_a_model_too_large_to_run_unasked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resattn.measures.audit.MOST_BYTES", 100)
    with pytest.raises(NeedsValuesError, match="'cpu' .*; its parameters take 0.0 GiB, and up to 0 GiB run on values"):
        audit(made("DataDependent")[0], SHAPE)


def test_an_input_that_the_model_refuses_gets_its_error_and_the_place() -> None:
    with pytest.raises(CaptureError, match=r"\(in 0, input 1x3x8x8\)"):
        audit(nn.Sequential(conv(4, 4)), (3, 8, 8))


def test_a_foreign_model_needs_an_input_shape() -> None:
    with pytest.raises(TargetError, match="Sequential needs an input: example tensors, or a shape"):
        audit(nn.Sequential(conv(4, 4)))


def test_fields_are_for_named_networks() -> None:
    with pytest.raises(TargetError, match="only a named network has fields to set; Sequential is not one"):
        audit(nn.Sequential(conv(4, 4)), SHAPE, settings={"p": "2"})


# -- what it costs

MIB = 2**20

MEASURE = """
import resource, sys
from resattn.measures.audit import audit
import torch
torch.set_num_threads(1)
audit("cifar-resnet20-basic")  # imports and caches
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
audit(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("name", ["attention92", "resnet152"])
def test_an_audit_takes_no_memory_for_weights_or_maps(name: str) -> None:
    # attention92 has 200 MiB of weights. Issue 3: less than 64 MiB for any network.
    done = subprocess.run([sys.executable, "-c", MEASURE, name], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * MIB


def test_an_audit_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is kept for the next audit is bounded in bytes, and full at the first one here.
    monkeypatch.setattr(receptive, "_alike", receptive._Alike())
    monkeypatch.setattr(single_paths, "_kept", single_paths._Kept())
    spec = override(catalog.named("cifar-attention56"), {"width": "8"})
    audit(build(spec, device="meta"), spec.input_shape)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            audit(build(spec, device="meta"), spec.input_shape)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


# -- several inputs, and what the units of a module see


class Captioned(nn.Module):
    """A map gated by token ids: an image and whole numbers as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table, self.fc = conv(4, 8), nn.Embedding(10, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        gate = self.fc(self.table(ids)).mean(1).sigmoid()
        return self.conv(x) * gate[:, :, None, None]


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_model_of_several_inputs(device: str) -> None:
    found = audit(Captioned(), SHAPE, Indices((5,)), device=device)
    assert found.status == "complete"
    assert found.more_inputs == ((1, 5),)
    # The image through the convolution and the ids through the matrix: one layer each.
    assert found.quantities["weighted_layers"] == 2
    assert found.quantities["n_paths"] == 2
    # 36 products in each of 8 * 8 * 8 values, and 8 * 8 for each of 5 ids.
    assert found.quantities["macs"] == 36 * 8 * 64 + 5 * 64
    assert found.quantities["receptive_field_px"] == 3


def test_two_images_grow_together() -> None:
    both = Both()
    found = audit(both, SHAPE, SHAPE)
    assert found.quantities["receptive_field_px"] == 5
    assert found.quantities["weighted_layers"] == 3


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(4, 4), conv(4, 4), conv(8, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(torch.cat([self.first(x), self.second(y)], 1))


def test_the_units_of_a_module_are_told_where_it_is_asked() -> None:
    found = audit("cifar-attention56", at=["stem", "stage1.module1.merge", "stage3"])
    stem, merge, last = found.fields
    # The count by hand has the stem's 3x3 too; the last stage is what the quantities tell.
    assert [stem[name] for name in audits.FIELDS] == [[3, 3]] * 4
    assert merge["receptive_field_narrowest_px"] == [3, 3]
    assert merge["receptive_field_trunk_px"] == [11, 11]  # the stem, p + t units, a 3x3 each
    assert merge["receptive_field_px"] > merge["receptive_field_trunk_px"]
    assert [max(last[name]) for name in audits.FIELDS] == [found.quantities[name] for name in audits.FIELDS]
    jsonschema.validate(json.loads(json.dumps([found.to_json()])), json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_a_module_that_did_not_run_is_refused() -> None:
    with pytest.raises(TargetError, match=r"no module 'stage1.modul1' was executed \(nearest: stage1.module1"):
        audit("cifar-attention56", at=["stage1.modul1"])


def test_behind_global_pooling_a_unit_sees_the_whole_input() -> None:
    (field,) = audit("cifar-resnet20-basic", at=["head"]).fields
    assert [field[name] for name in audits.FIELDS] == [[32, 32]] * 4


def test_without_an_image_no_unit_has_a_field() -> None:
    (field,) = audit(nn.Sequential(nn.Linear(4, 4)), (4,), at=["0"]).fields
    assert [field[name] for name in audits.FIELDS] == [None] * 4
    assert field["notes"] == ["the input is no image"]


def test_a_model_on_values_takes_its_large_input_without() -> None:
    seen: list[tuple[str, int]] = []

    class Witnessed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.device.type, x.shape[-1]))
            return self.conv(x)

    found = audit(Witnessed(), SHAPE, device="cpu")
    assert found.quantities["receptive_field_px"] == 3
    assert {device for device, side in seen if side > 8} == {"meta"}
    assert {device for device, side in seen if side == 8} == {"cpu"}
