"""The documentation site as `make site` builds it, from disk: its pages, its table, and nothing from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pytest

pytestmark = pytest.mark.browser
MADE_HERE = ("index.html", "explorer.html", "named.html", "reference/python.html", "reference/bench.html")


def test_every_page_opens_quietly_and_every_link_leads_somewhere(site: Path, open_page: Any) -> None:
    watched = open_page("about:blank")
    ids, links = {}, {}
    for path in sorted(p for p in site.rglob("*.html") if "report" not in p.parts and p.name != "404.html"):
        watched.page.goto(path.as_uri())
        assert not watched.errors, path.name
        ids[path.as_uri()] = set(watched.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)"))
        links[path.as_uri()] = set(
            watched.page.evaluate("[...document.querySelectorAll('a[href]')].map((e) => e.getAttribute('href'))")
        )
    assert not [url for url in watched.requests if not url.startswith(("file:", "data:", "about:"))]
    assert {(site / name).as_uri() for name in MADE_HERE} <= set(ids)
    for page, found in links.items():
        for link in found:
            target, fragment = urldefrag(urljoin(page, link))
            if target.startswith("file:"):
                assert Path(target.removeprefix("file://")).is_file(), (page, link)
                assert not fragment or target not in ids or fragment in ids[target], (page, link)


def test_the_table_of_names_is_searched_and_the_search_stands_in_the_address(site: Path, open_page: Any) -> None:
    url = (site / "named.html").as_uri()
    page = open_page(url).page
    shown = (
        "[...document.querySelectorAll('#named tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)"
    )
    row = page.evaluate(
        "[...document.querySelectorAll('#named tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert next(cells for cells in row if cells[0] == "Attention-56") == [
        "Attention-56", "this study", "56", "80", "111", "31,810,728", "6,270,836,736", "1,155",
    ]  # fmt: skip
    page.locator(".search input").fill("STUDY attention-9")
    assert page.evaluate(shown) == [cells[0] for cells in row if "Attention-9" in cells[0] and cells[1] == "this study"]
    again = open_page(page.url).page
    assert again.evaluate(shown) == page.evaluate(shown)
    page.locator(".search input").fill("no such model")
    assert page.locator(".search output").inner_text().startswith("none of ")


def test_the_explorer_and_the_report_are_in_the_site(site: Path, open_page: Any) -> None:
    page = open_page((site / "index.html").as_uri()).page
    page.locator(".doors a").first.click()
    assert page.locator("h1").inner_text().startswith("What does the 56")
    page.goto((site / "explorer.html").as_uri())
    page.locator('[data-e="s-t"]').fill("3")
    assert page.locator('[data-quantity="trunk_depth"]').inner_text() == "65"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(site: Path, open_page: Any, violations: Any, scheme: str) -> None:
    page = open_page("about:blank", color_scheme=scheme, viewport={"width": 1440, "height": 900}).page
    for name in (*MADE_HERE, "how-to/audit-your-model.html", "reference/counters.html"):
        page.goto((site / name).as_uri())
        assert violations(page) == [], name


@pytest.mark.parametrize("width", [360, 1440])
def test_no_page_is_wider_than_the_screen(site: Path, open_page: Any, width: int) -> None:
    page = open_page("about:blank", viewport={"width": width, "height": 900}).page
    for name in MADE_HERE:
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_code_in_a_table_of_a_narrow_page_breaks_between_its_words(site: Path, open_page: Any) -> None:
    page = open_page("about:blank", viewport={"width": 390, "height": 900}).page
    page.goto((site / "reference/tables.html").as_uri())
    broken = """() => [...document.querySelectorAll('td code')].flatMap((code) => {
      const text = code.firstChild, range = document.createRange();
      range.setStart(text, 0);
      range.setEnd(text, text.data.length);
      return /^[\\w.]+$/.test(text.data) && range.getClientRects().length > 1 ? [text.data] : [];
    })"""
    assert page.evaluate(broken) == []
    assert page.locator("td code:has(wbr)").count() > 100
