"""How a spec and an audit show themselves in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from resattn.measures.audit import audit
from resattn.networks.catalog import named

HOSTILE = '<script>alert("x")</script>'


def shown(value: object) -> ET.Element:
    """The markup, which has to be whole."""
    return ET.fromstring(f"<div>{value._repr_html_()}</div>")  # type: ignore[attr-defined]


def words(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def test_a_spec_shows_its_stages_and_what_is_not_at_its_default() -> None:
    page = shown(replace(named("attention92"), merge="naive"))
    rows = [[cell.text for cell in row] for row in page.iter("tr")]
    assert rows[0] == ["stage", "map", "channels", "units", "modules", "tail", "poolings"]
    assert [row[4] for row in rows[1:]] == ["1", "2", "3", "0"]
    assert [row[1] for row in rows[1:]] == ["56 px", "28 px", "14 px", "7 px"]
    assert "merge = naive" in words(page)
    assert "gate" not in words(page)


def test_an_audit_shows_each_number_with_its_definition() -> None:
    found = audit("cifar-attention56")
    page = shown(found)
    rows = {row[0].text: (row[1].text, row[2].text) for row in page.iter("tr")}
    assert len(rows) == len(found.quantities)
    assert rows["Longest path"] == ("74", "most weighted layers on any path from input to output")
    assert "complete; input 1 x 3 x 32 x 32" in words(page)


@pytest.mark.parametrize("make", ["spec", "audit"])
def test_a_name_with_markup_shows_as_text(make: str) -> None:
    spec = replace(named("cifar-resnet20-basic"), name=HOSTILE)
    page = shown(spec if make == "spec" else replace(audit("cifar-resnet20-basic"), target=HOSTILE))
    assert not list(page.iter("script"))
    assert HOSTILE in words(page)
