"""The explorer in a page: its counts against those of the captured network, and what a person does with it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "explore"))

import counted  # noqa: E402

from analysis.explore.page import block  # noqa: E402

pytestmark = pytest.mark.browser
N, SEED = 200, 19

COUNTS = """(specs) => specs.map((spec) => {
  const { quantities, lengths, stages } = Count.count(spec);
  return { ...quantities, n_paths: String(quantities.n_paths), fields: stages.map((s) => [s.all, s.bare]),
    path_lengths: lengths.map((n, k) => `${k}:${n}`).filter((pair) => !pair.endsWith(":0")).join(",") };
})"""


def alone() -> str:
    """The explorer as a page of its own."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark"><title>Explorer</title><style>:root{--ink:#1b1f24;--paper:#fff}'
        "@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#111}}"
        "body{background:var(--paper);margin:0 auto;max-width:1100px;padding:0 16px}</style>"
        f"<main><h1>Explorer</h1><h2>What the sliders change</h2>{block().whole}</main></html>"
    )


@pytest.fixture
def explorer(tmp_path: Path) -> str:
    (tmp_path / "explorer.html").write_text(alone(), encoding="utf-8")
    return (tmp_path / "explorer.html").as_uri()


def test_its_counts_are_those_of_the_captured_network(open_page: Any, explorer: str) -> None:
    specs = list(counted.specs(N, SEED))
    found = open_page(explorer).page.evaluate(COUNTS, [counted.as_page(spec) for spec in specs])
    for spec, page in zip(specs, found, strict=True):
        page["path_lengths"] = hashlib.sha256(page["path_lengths"].encode()).hexdigest()
        wanted = counted.counts(spec)
        assert {name: page[name] for name in wanted} == wanted, spec
        counted.captured.cache_clear()


def number(page: Any, quantity: str) -> str:
    return str(page.locator(f'[data-quantity="{quantity}"]').inner_text())


def slide(page: Any, name: str, value: int) -> None:
    page.locator(f'[data-e="s-{name}"]').fill(str(value))


def test_sliders_presets_and_links_lead_to_the_numbers_of_the_command_line(open_page: Any, explorer: str) -> None:
    watched = open_page(explorer)
    page = watched.page
    assert (number(page, "longest_path"), number(page, "n_paths")) == ("80", "176,160,768")
    drawn = page.locator(".e-net").inner_html()
    slide(page, "t", 3)
    assert page.locator(".e-net").inner_html() != drawn
    assert page.locator('[data-e="changed"]').inner_text() == "Changed: t 2 → 3"
    assert page.locator('tr[data-q="trunk_depth"] .e-change').inner_text() == "+9"
    page.get_by_role("button", name="Attention-92", exact=True).click()
    assert (number(page, "longest_path"), number(page, "n_paths")) == ("128", "51,951,924,412,416")
    slide(page, "modules", 0)
    assert number(page, "longest_path") == number(page, "trunk_depth")
    address = page.url
    assert "modules=0,0,0" in address
    other = open_page(address).page
    assert number(other, "params") == number(page, "params")
    page.get_by_role("button", name="Back to the last state").click()
    assert number(page, "longest_path") == "128"
    assert not watched.errors
    assert not [url for url in watched.requests if not url.startswith(("file:", "data:"))]


@pytest.mark.parametrize(
    "words", ["x=none;p=1", "x=attention56;p=99;t=2;r=1;modules=1,1,1;poolings=3,2,1", "%3Cscript%3E", "x=attention56"]
)
def test_an_address_that_is_no_state_shows_the_first_preset(open_page: Any, explorer: str, words: str) -> None:
    watched = open_page(f"{explorer}#{words}")
    assert number(watched.page, "longest_path") == "80"
    assert not watched.errors


def test_a_unit_shows_its_field_and_a_number_its_definition(open_page: Any, explorer: str) -> None:
    page = open_page(explorer).page
    assert "1,155 px through the masks" in page.locator('[data-e="seen"]').inner_text()
    page.locator(".e-net rect[fill='var(--mask)']").first.hover()
    assert "mask" in page.locator('[data-e="seen"]').inner_text()
    page.locator('tr[data-q="macs"]').hover()
    what = page.locator('[data-e="what"]').inner_text()
    assert what.startswith("Multiply-adds: ")
    assert what.endswith("resattn audit attention56")


@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(open_page: Any, explorer: str, width: int, scheme: str) -> None:
    page = open_page(explorer, viewport={"width": width, "height": 900}, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
