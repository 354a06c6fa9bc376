"""The style of all figures: readable on light and dark, one look for a network, one title for several panels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from analysis.figures import claims, style

LIGHT, DARK = "#ffffff", "#111111"


def _luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, "relative luminance"."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    bright, dim = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


COLOURS = {*style.ROLES.values(), *(colour for colour, _ in style.NETWORKS.values()), *claims.FINDINGS.values()}


@pytest.mark.parametrize("colour", sorted(COLOURS))
def test_colours_show_on_light_and_dark(colour: str) -> None:
    # WCAG 2.2, criterion 1.4.11: 3 to 1 for graphics; 2.8 leaves room for the two lightest, which have markers too.
    assert _contrast(colour, LIGHT) >= 2.8
    assert _contrast(colour, DARK) >= 3


@pytest.mark.parametrize("role", style.ROLES)
def test_words_on_a_role_can_be_read(role: str) -> None:
    assert _contrast(style.ON_ROLE[role], style.ROLES[role]) >= 4.5


def test_ink_alone_reads_on_both() -> None:
    assert _contrast(style.INK, LIGHT) >= 4.5
    assert _contrast(style.INK, DARK) >= 4


def test_a_network_looks_the_same_everywhere() -> None:
    assert style.network_style("cifar-resnet56") == style.network_style("resnet56") == style.NETWORKS["resnet56"]
    assert style.network_style("attention56[merge=naive]") == style.NETWORKS["attention56"]
    assert style.network_style("somebody-elses") == style.network_style("somebody-elses")


def test_variants_of_a_network_are_distinct() -> None:
    names = ["cifar-attention56[gate=channel]", "cifar-attention56", "cifar-resnet56[width=19]", "cifar-resnet56"]
    styles = style.network_styles(names)
    assert len(set(styles.values())) == 4
    assert styles == style.network_styles(names[::-1])
    assert styles["cifar-attention56"] == style.NETWORKS["attention56"]
    many = style.network_styles([f"cifar-attention56[width={n}]" for n in range(4, 40)])
    assert len(many) == 36  # more than there are styles


def test_labels_and_units_come_from_the_quantities() -> None:
    assert style.axis_label("receptive_field_px") == "Receptive field (px)"
    assert style.axis_label("params") == "Parameters"
    assert style.axis_label("test_error_pct") == "Test error (%)"


def test_labels_are_moved_apart_and_no_further() -> None:
    assert style.apart([1.0, 5.0], 1.0) == [1.0, 5.0]
    a, b, c = style.apart([1.0, 1.1, 9.0], 1.0)
    assert b - a == pytest.approx(1.0)
    assert (a + b) / 2 == pytest.approx(1.05)
    assert c == 9.0


@pytest.mark.parametrize(
    ("sentences", "title"),
    [
        (["One panel."], "One panel."),
        (
            ["Error against depth, every run.", "Error against cost, every run."],
            "Error against depth and cost, every run.",
        ),
        (["What a unit sees, alone.", "What a unit sees, with masks."], "What a unit sees, alone and with masks."),
        (["The same words here.", "The same words here."], "The same words here."),
        (["Quite this.", "And that."], "Quite this. And that."),
    ],
)
def test_a_figure_of_several_panels_has_one_title(sentences: list[str], title: str) -> None:
    assert style.joint_title(sentences) == title


def test_the_words_of_every_panel_are_kept(tmp_path: Path) -> None:
    fig, _ = style.figure(2.0, 1, 2)
    drawn = style.save(fig, tmp_path / "two.svg", alt=["It goes up here. By 3.", "It goes down here. By 4."])
    root = ET.fromstring(drawn.svg)
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "It goes up and down here."
    assert root.findtext("{http://www.w3.org/2000/svg}desc") == "It goes up here. By 3. It goes down here. By 4."
