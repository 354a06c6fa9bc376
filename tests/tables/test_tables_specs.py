"""Networks side by side, and how a frame is shown."""

from __future__ import annotations

import pandas as pd

from analysis.tables.specs import by_input_side, differing, spec_frame, summary_frame, with_masks
from analysis.tables.styling import shown


def test_specs_side_by_side_show_only_what_differs() -> None:
    wide = differing(spec_frame(["attention56", "attention92"]))
    assert list(wide.index) == ["attention56", "attention92"]
    assert set(wide.columns) == {"claimed_depth", "modules"}
    assert wide.loc["attention92", "modules"] == "1, 2, 3, 0"


def test_networks_by_the_side_of_their_input() -> None:
    groups = by_input_side(["resnet50", "cifar-resnet56", "attention56"])
    assert groups == {224: ["resnet50", "attention56"], 32: ["cifar-resnet56"]}
    assert with_masks(["resnet50", "attention56"]) == ["attention56"]


def test_torchinfo_finds_the_same_parameters() -> None:
    summary = summary_frame(["attention56", "cifar-resnet56"])
    assert (summary["params"] == summary["params_torchinfo"]).all()
    assert (summary["macs_torchinfo"] > summary["macs"]).all()


def test_a_shown_frame_is_the_same_each_time() -> None:
    frame = pd.DataFrame({"word": ["a"], "number": [1234567]})
    markup = shown(frame).to_html()
    assert markup == shown(frame.copy()).to_html()
    assert "1,234,567" in markup
