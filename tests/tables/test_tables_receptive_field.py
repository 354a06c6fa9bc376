"""Receptive fields against the released prototxts, and intervals against gradients."""

from __future__ import annotations

import pytest

from analysis.tables.receptive_field import gradient_frame, receptive_frame

# Side in px at the end of each stage, from the prototxts: trunk alone, and through the masks.
SEEN = {
    "attention56": {"trunk": [51, 123, 267, 427], "mask": [387, 707, 995, 1155]},
    "attention92": {"trunk": [51, 187, 587, 747], "mask": [387, 1027, 1827, 1987]},
}


@pytest.mark.parametrize("network", SEEN)
def test_receptive_fields_of_the_release(network: str) -> None:
    fields = receptive_frame([network])
    for branch, sides in SEEN[network].items():
        assert list(fields.loc[fields["branch"] == branch, "value"]) == sides
    first = fields[(fields["branch"] == "mask") & (fields["stage"] == "stage1")].iloc[0]
    assert first["least"] == 355  # "355 or 387 by position"
    assert first["high_px"] - first["low_px"] in (355, 387)


def test_a_network_without_masks_has_one_branch() -> None:
    assert set(receptive_frame(["cifar-resnet20-basic"])["branch"]) == {"trunk"}


@pytest.mark.parametrize("network", ["attention56", "cifar-attention56", "cifar-resnet20-basic"])
def test_the_gradient_sees_what_the_intervals_say(network: str) -> None:
    fields = gradient_frame([network])
    assert fields["agrees"].all()
    assert (fields["central_low_px"] >= fields["low_px"]).all()
    assert (fields["central_high_px"] <= fields["high_px"]).all()
