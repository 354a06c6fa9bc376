"""Specs: what they refuse and how they say it, the round trip through JSON, digests, and changed fields."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resattn.networks import catalog
from resattn.networks.spec import NetworkSpec, SpecError, override

ATTENTION = catalog.named("attention56")
RESNET = catalog.named("resnet50")
BASIC = catalog.named("cifar-resnet20-basic")


def changed(spec: NetworkSpec, **changes: Any) -> NetworkSpec:
    return replace(spec, **changes)


# -- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gate": "chanel"}, "unknown gate 'chanel' in attention56 (one of: mixed, channel, spatial)"),
        ({"merge": "dense"}, "unknown merge 'dense' in attention56 (one of: residual, naive)"),
        ({"stem": 3}, "unknown stem 3 in attention56 (one of: imagenet, cifar)"),
        ({"units": (1, 1, 1)}, "attention56 has 4 entries for 3 stages"),
        ({"poolings": (3, 2, 1)}, "poolings of attention56 has 3 entries for 4 stages"),
        ({"modules": (1, 1, -1, 0)}, "modules of attention56 must be integers of at least 0"),
        ({"modules": (1, 1, 1.0, 0)}, "modules of attention56 must be integers of at least 0"),
        ({"units": 3}, "units of attention56 must be integers of at least 0, one for each stage, found 3"),
        ({"units": "1,1"}, "units of attention56 must be integers"),
        ({"units": None}, "units of attention56 must be integers"),
        ({"input_shape": (3, 224)}, "input_shape of attention56 must be channels, height, width, found (3, 224)"),
        ({"input_shape": None}, "input_shape of attention56 must be channels, height, width, found None"),
        ({"input_shape": (3, 0, 224)}, "input_shape of attention56 must be channels, height, width"),
        ({"classes": 0}, "classes of attention56 must be an integer of at least 1, found 0"),
        ({"classes": True}, "classes of attention56 must be an integer of at least 1, found True"),
        ({"p": -1}, "p of attention56 must be an integer of at least 0, found -1"),
        ({"t": 0}, "t of attention56 must be an integer of at least 1, found 0"),
        ({"r": 1.5}, "r of attention56 must be an integer of at least 1, found 1.5"),
        ({"width": float("nan")}, "width of attention56 must be a number of at least 1, found nan"),
        ({"width": "wide"}, "width of attention56 must be a number of at least 1, found 'wide'"),
        ({"width": True}, "width of attention56 must be a number of at least 1, found True"),
        (
            {"shortcut": "zero-pad"},
            "shortcut 'zero-pad' of attention56 is not defined for bottleneck units (one of: projection, convolution)",
        ),
        ({"modules": (1, 1, 1, 1), "units": (1, 1, 1, 0), "p": 0}, "stage4 of attention56 begins with an attention"),
        ({"width": 1e12}, "width of attention56 may be at most 1,000,000, found 1000000000000"),
        ({"widen": 10**400}, "widen of attention56 may be at most 1,000,000, found 1000"),
        ({"width": 1e5}, "attention56 would have 3,200,000 channels; at most 1,000,000 are built"),
        ({"modules": (1, 10**5, 1, 0)}, "residual units; at most 10,000 are built"),
        ({"input_shape": (3, 10**6, 224)}, "attention56 would have 1,000,000 pixels or poolings on a side"),
        ({"units": (1, 1, 1, 0)}, "stage4 of attention56 is empty: give it units, modules or a tail"),
        ({"units": (), "tail": (), "modules": (), "poolings": ()}, "attention56 has no stage"),
    ],
)
def test_says_what_was_found_and_what_would_do(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        changed(ATTENTION, **change)
    assert said in str(error.value)


def test_a_mask_with_more_poolings_than_the_map_allows_says_which_stage_and_why() -> None:
    with pytest.raises(SpecError) as error:
        override(ATTENTION, {"poolings": "3,2,4,0"})
    said = str(error.value)
    assert said.startswith("stage3 of attention56")
    assert "4 poolings in the mask of a 14x14 map, which allows at most 3 (14 -> 7 -> 3 -> 1)" in said


def test_padded_poolings_leave_other_sizes() -> None:
    # 7 -> 4 -> 2 -> 1 with padding, 7 -> 3 -> 1 in ceil mode: one more is possible.
    padded = override(ATTENTION, {"poolings": "3,2,4,0", "pool_padding": "padded"})
    assert padded.poolings == (3, 2, 4, 0)
    with pytest.raises(SpecError, match="14 -> 7 -> 4 -> 2 -> 1"):
        override(ATTENTION, {"poolings": "3,2,5,0", "pool_padding": "padded"})


def test_an_input_that_the_stem_pools_away_is_refused() -> None:
    with pytest.raises(SpecError, match="input_shape of attention56"):
        override(ATTENTION, {"input_shape": "3,2,2"})


@pytest.mark.parametrize("name", ["merge", "gate", "p", "t", "r", "mask", "corners"])
def test_a_field_of_masks_means_nothing_without_masks(name: str) -> None:
    value = {"merge": "naive", "gate": "channel", "mask": "local", "corners": "half-pixel"}.get(name, "2")
    with pytest.raises(SpecError, match=f"{name} of resnet50 has no meaning: the network has no attention module"):
        override(RESNET, {name: value})


@pytest.mark.parametrize("gate", ["channel", "spatial"])
def test_a_constant_mask_has_the_gate_of_single_values(gate: str) -> None:
    with pytest.raises(SpecError, match=f"gate '{gate}' of .*: a constant mask has one value per channel"):
        override(ATTENTION, {"mask": "constant", "gate": gate})
    assert override(ATTENTION, {"mask": "constant"}).digest != ATTENTION.digest


def test_the_stride_of_a_last_unit_is_for_residual_units_alone() -> None:
    with pytest.raises(SpecError, match="stride_at 'last' of attention56.* is for networks of residual units alone"):
        override(ATTENTION, {"stride_at": "last"})
    first, last = (override(RESNET, {"stride_at": at}).stages for at in ("first", "last"))
    assert [stage.size for stage in first] == [56, 28, 14, 7]
    assert [stage.size for stage in last] == [28, 14, 7, 7]


def test_a_basic_unit_has_no_1x1_to_stride_on() -> None:
    with pytest.raises(SpecError, match="stride_on '1x1' of .* is not defined for basic units .one of: 3x3."):
        override(BASIC, {"stride_on": "1x1"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mergee": "naive"}, "unknown field 'mergee' of attention56 (nearest: merge"),
        ({"zzz": "1"}, "unknown field 'zzz' of attention56 (nearest: name, claimed_depth"),
        ({"p": "two"}, "p of attention56 takes numbers, found 'two'"),
        ({"p": "1,2"}, "p of attention56 must be an integer"),
        ({"p": "1.5"}, "p of attention56 takes numbers, found '1.5'"),
        ({"modules": "1,x,1,0"}, "modules of attention56 takes numbers, found '1,x,1,0'"),
        ({"modules": ""}, "modules of attention56 takes numbers, found ''"),
        ({"merge": "naiv"}, "unknown merge 'naiv' in attention56 (one of: residual, naive)"),
    ],
)
def test_overriding_says_what_was_found_and_what_would_do(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError) as error:
        override(ATTENTION, settings)
    assert said in str(error.value)


# -- what is taken


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("modules", "2", (2, 2, 2, 0)),  # every stage that has any
        ("modules", "1,2,3,0", (1, 2, 3, 0)),
        ("modules", [1, 2, 3, 0], (1, 2, 3, 0)),
        ("r", "2", 2),
        ("r", 2, 2),
        ("width", "32", 32),
        ("width", "12.5", 12.5),
        ("merge", "naive", "naive"),
        ("input_shape", "3,320,320", (3, 320, 320)),
    ],
)
def test_a_field_is_given_as_text_or_as_a_value(field: str, text: Any, value: Any) -> None:
    assert getattr(override(ATTENTION, {field: text}), field) == value


def test_a_variant_says_in_its_name_what_was_changed() -> None:
    assert override(ATTENTION, {"merge": "naive", "r": "2"}).name == "attention56[merge=naive, r=2]"
    assert override(ATTENTION, {}) == ATTENTION
    assert override(ATTENTION, {"name": "mine", "r": 2}).name == "mine"


def test_lists_become_tuples_and_whole_widths_integers() -> None:
    spec = changed(ATTENTION, units=[1, 1, 1, 3], width=64.0)
    assert spec == ATTENTION
    assert hash(spec) == hash(ATTENTION)
    assert type(spec.width) is int


# -- JSON and digest

SPECS = [catalog.named(name) for name in catalog.names()]


@st.composite
def specs(draw: Any) -> NetworkSpec:
    """A spec from the catalog with some of its fields changed, where that is a network."""
    spec = draw(st.sampled_from(SPECS))
    changes: dict[str, Any] = {"classes": draw(st.integers(1, 50)), "width": draw(st.sampled_from([8, 12.5, 16]))}
    for f in fields(NetworkSpec):
        if "choices" in f.metadata and draw(st.booleans()):
            changes[f.name] = draw(st.sampled_from(f.metadata["choices"]))
    for name in ("p", "t", "r"):
        changes[name] = draw(st.integers(1, 3))
    try:
        return changed(spec, **changes)
    except SpecError:
        return spec


@given(specs())
def test_a_spec_survives_json(spec: NetworkSpec) -> None:
    text = json.dumps(spec.to_json())
    again = NetworkSpec.from_json(json.loads(text))
    assert again == spec
    assert again.digest == spec.digest


@given(specs(), st.data())
def test_the_digest_names_the_structure_and_nothing_else(spec: NetworkSpec, data: st.DataObject) -> None:
    assert changed(spec, name="other", claimed_depth=7).digest == spec.digest
    assert changed(spec, classes=spec.classes + 1).digest != spec.digest
    assert len(spec.digest) == 16
    assert int(spec.digest, 16) >= 0
    other = data.draw(specs())
    same = {k: v for k, v in spec.to_json().items() if k not in ("name", "claimed_depth")}
    if {k: v for k, v in other.to_json().items() if k not in ("name", "claimed_depth")} != same:
        assert other.digest != spec.digest


def test_json_with_a_wrong_or_a_missing_field_is_refused() -> None:
    record = ATTENTION.to_json()
    with pytest.raises(SpecError, match=r"unknown field 'gatee' of attention56 \(nearest: gate"):
        NetworkSpec.from_json({**record, "gatee": "mixed"})
    with pytest.raises(SpecError, match="the spec of attention56 lacks units"):
        NetworkSpec.from_json({k: v for k, v in record.items() if k != "units"})
    with pytest.raises(SpecError, match="must be integers"):
        NetworkSpec.from_json({**record, "units": 3})


def test_every_field_says_what_it_is() -> None:
    assert all(f.metadata["doc"] for f in fields(NetworkSpec))
