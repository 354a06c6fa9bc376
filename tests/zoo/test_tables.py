"""Verdicts of the zoo from rows made by hand, and the tables and the page that are in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.tables.files import read_table
from analysis.tables.provenance import ROOT
from analysis.zoo import tables
from analysis.zoo.models import FAMILIES
from analysis.zoo.page import text
from analysis.zoo.tables import PRODUCTS, cause, field_verdict, macs_verdict, named_depth, params_verdict, write_tables
from analysis.zoo.worker import append

FOLDER = ROOT / "results" / "zoo"


def row(**changes: Any) -> dict[str, Any]:
    made = {
        "family": "timm", "model": "seresnet50", "digest": "d", "outcome": "measured", "status": "complete",
        "input": "1x3x224x224", "device": "meta", "macs": 4_091_699_200, "macs_torch": 4_091_699_200, "macs_causes": {},
        "params": 28_088_024, "params_torch": 28_088_024, "numel": 28_088_024, "longest_path": 82, "weighted_layers": 86,
        "n_paths": 10**40, "fvcore": 4_114_000_000, "audit_s": 0.2, "incomplete": {}, "unknown_ops": [],
        "fvcore_parts": {"convolutions and matrix products": 4_091_699_200, "batch norms": 22_300_800},
    }  # fmt: skip
    return made | changes


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "equal"),
        ({"macs_causes": {"torch has no formula for mv": 8}}, "torch has no formula for mv: 8"),
        ({"macs_causes": {"torch has no formula for mv": 8, "": 1}}, "unexplained"),
        ({"macs_causes": {"": 1}, "notes": ["the model changes between calls: x"]}, "the model changes between calls"),
        ({"macs": None}, "partial"),
        ({"outcome": "failed"}, ""),
    ],
)
def test_multiply_adds_against_torch(changes: dict[str, Any], verdict: str) -> None:
    assert macs_verdict(row(**changes)) == verdict


def test_a_count_that_failed_is_named() -> None:
    failed = row(torch_error="RuntimeError: no")
    del failed["macs_torch"], failed["params_torch"]
    assert macs_verdict(failed) == params_verdict(failed) == "no count: RuntimeError: no"


def test_parameters_against_torch_and_all_of_them() -> None:
    assert params_verdict(row()) == "equal"
    assert params_verdict(row(numel=28_088_034)) == "no operator takes 10"
    assert params_verdict(row(params_torch=1)) == "unexplained"
    idle = row(params_torch=28_088_026, params_met=28_088_024)
    assert params_verdict(idle) == "work on parameters alone that nothing reads takes 2"


def test_the_sum_of_the_modules() -> None:
    assert tables.tree_verdict(row(tree_off={})) == "exact"
    assert tables.tree_verdict(row(tree_off={"macs": 3})) == "macs: 3 more or less"
    assert tables.tree_verdict(row()) == ""


@pytest.mark.parametrize(
    ("value", "changes", "expected"),
    [
        (4.09e9, {}, "equal"),
        (4.114e9, {"fvcore": 4_114_000_000}, "counted by fvcore: with batch norms"),
        (4.2e9, {}, "unexplained"),
        (4.0e9, {"fused": {"macs": 4_000_000_000}}, "branches fused before publishing"),
        (
            4.0e9,
            {"fvcore": 4 * 10**9, "fvcore_parts": {PRODUCTS: 4 * 10**9}, "padded_by_name": 91_699_200},
            "counted by fvcore: convolutions with padding by name not counted",
        ),
        (
            4.0e9,
            {"fvcore": 4 * 10**9, "fvcore_parts": {PRODUCTS: 4 * 10**9}},
            "counted by fvcore: fused attention not counted",
        ),
    ],
)
def test_a_published_number(value: float, changes: dict[str, Any], expected: str) -> None:
    assert cause("macs", value, 5e6, 4_091_699_200, row(**changes)) == expected


def test_printed_digits_of_a_small_number_are_no_difference() -> None:
    assert cause("macs", 0.03e9, 5e6, 34_000_000, row()) == "equal"
    assert cause("macs", 0.03e9, 5e6, 36_000_000, row()) == "unexplained"


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet50", 50), ("seresnet50", 50), ("legacy_senet154", 154), ("resnext101_32x4d", 101), ("densenet121", 121),
        ("vgg16_bn", 16), ("wide_resnet50_2", 50), ("resnetv2_50x1_bit", 50), ("darknet53", 53), ("dpn92", 92),
        ("vit_base_patch16_224", None), ("efficientnet_b0", None), ("hrnet_w18", None), ("bagnet9", None),
        ("mobilenetv3_large_100", None), ("regnetx_002", None), ("fcn_resnet50", None), ("inception_resnet_v2", None),
        ("squeezenet1_0", None), ("resnetblur50", 50), ("ese_vovnet19b_dw", 19), ("nf_resnet50", 50),
    ],
)  # fmt: skip
def test_the_depth_in_a_name(name: str, depth: int | None) -> None:
    assert named_depth(name) == depth


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ((427, 427, False, False), "equal"),
        ((427, 425, False, False), "different"),
        ((224, None, True, True), "equal: the whole input"),
        ((427, None, False, True), "different"),
        ((None, None, False, False), "different"),
    ],
)
def test_a_field_against_gradients(found: tuple[Any, ...], verdict: str) -> None:
    field, gradient, is_whole, of_gradient = found
    measured = {"field": field, "gradient": gradient, "is_whole": is_whole, "gradient_is_whole": of_gradient}
    assert field_verdict({"outcome": "measured", **measured}) == verdict


def test_tables_and_page_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text(
        "family,model,side,quantity,value,unit,source\n"
        "timm,seresnet50.a1_in1k,224,macs,4.11,10^9,a table\n"
        "timm,seresnet50.a1_in1k,288,macs,6.8,10^9,a table\n"
        "timm,seresnet50.a1_in1k,224,params,28.09,10^6,a table\n"
    )
    rows = tmp_path / ".rows.jsonl"
    append(rows, row())
    append(
        rows, {"family": "timm", "model": "broken", "digest": "d", "outcome": "failed", "message": "OSError: no|thing"}
    )
    append(rows, {"family": "timm", "model": "of an earlier version", "digest": "d", "outcome": "measured"})
    write_tables(tmp_path, rows, {"timm": ["seresnet50", "broken", "not run"]})
    assert tables.published(tmp_path) == pytest.approx({("timm", "seresnet50"): 4.11e9})
    judged = read_table(tmp_path / "judged.csv", tables.JUDGED)
    assert [*judged["cause"]] == ["equal", "equal"]
    (total,) = read_table(tmp_path / "totals.csv", tables.TOTALS).to_dict("records")
    assert [total[c] for c in ("models", "run", "measured", "complete", "failed", "macs_equal")] == [3, 2, 1, 1, 1, 1]
    page = text(tmp_path)
    assert "| timm:seresnet50 | 50 | 82 | 86 |" in page
    assert "| timm:broken | OSError: no\\|thing |" in page
    assert read_table(tmp_path / "models.csv", tables.ALL)["n_paths"][1] == "1.000e40"


# -- what the repository holds


def test_every_public_model_that_was_measured_is_right() -> None:
    """No number differs from torch's without a named cause, and no field from the gradient's."""
    models = read_table(FOLDER / "models.csv", tables.ALL)
    assert len(models)
    assert set(models["family"]) <= set(FAMILIES)
    for column in ("macs_verdict", "params_verdict"):
        assert not [*models.loc[models[column] == "unexplained", "model"]]
    assert set(models.loc[models["outcome"] == "measured", "tree"]) <= {"exact", ""}  # "": of an earlier run
    fields = read_table(FOLDER / "fields.csv", tables.FIELDS)
    assert not [*fields.loc[fields["verdict"] == "different", "target"]]


def test_every_published_number_names_its_source() -> None:
    printed = read_table(FOLDER / "published.csv", tables.PUBLISHED)
    assert printed["source"].map(bool).all()
