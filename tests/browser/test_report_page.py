"""The report as a person meets it: from disk and from a server, in light and in dark, on a phone and on paper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "report"))

import studies  # noqa: E402

from analysis.report.build import build_report  # noqa: E402

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}}
LEAST_CONTRAST = 4.5


def _whole(folder: Path) -> Path:
    return build_report(studies.complete(folder)).parent


def _failed(folder: Path) -> Path:
    for name in (*studies.ANALYSES, "50_train/cifar-attention56-s0"):
        studies.failed(folder, name)
    return build_report(folder).parent


def _quick(folder: Path) -> Path:
    """The report of `make report`, with its real figures, if that has run."""
    report = ROOT / "results" / "quick" / "report"
    if not (report / "index.html").is_file():
        pytest.skip("no results/quick/report: make report writes it")
    return report


@pytest.fixture(scope="module", params=[_whole, _failed, _quick], ids=["whole", "failed", "quick"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("report"))


@pytest.fixture
def index(report: Path) -> str:
    return (report / "index.html").as_uri()


def _pages(report: Path) -> Iterator[Path]:
    yield from sorted(report.rglob("*.html"))


def _walk(report: Path, open_page: Any, **options: Any) -> Iterator[tuple[Path, Any]]:
    """Every page of a report, one after another in one window."""
    page = None
    for path in _pages(report):
        page = page or open_page("about:blank", **options).page
        page.goto(path.as_uri())
        yield path, page


@pytest.mark.parametrize("where", ["disk", "server"])
def test_it_opens_quietly_and_asks_for_nothing(report: Path, where: str, open_page: Any, serve: Any) -> None:
    base = report.as_uri() + "/" if where == "disk" else serve(report)
    urls = [base + path.relative_to(report).as_posix() for path in _pages(report)]
    opened = [open_page(url) for url in urls]
    for url, seen in zip(urls, opened, strict=True):
        seen.page.wait_for_load_state("networkidle")
        # Not even for an icon: the address of the page itself is all.
        assert seen.requests == [url]
        assert not seen.errors, url


def test_its_weight(report: Path) -> None:
    weight = sum(path.stat().st_size for path in report.rglob("*") if path.is_file())
    page = (report / "index.html").stat().st_size
    print(f"\nreport {report.parent.name}: {weight / 1e6:.2f} MB, opening page {page / 1e6:.2f} MB")
    assert weight < 5_000_000


def test_every_figure_has_words_in_its_place(report: Path, open_page: Any) -> None:
    for path, page in _walk(report, open_page):
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('svg, img, canvas')]
              .filter((e) => !e.closest('[aria-hidden="true"]'))
              .map((e) => e.getAttribute('alt') || e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '')
                .split(' ').map((id) => document.getElementById(id)?.textContent || '').join(' '))
              .filter((words) => words.trim().length < 12)"""
        )
        assert unnamed == [], path.name


def test_every_link_leads_somewhere(report: Path, open_page: Any) -> None:
    ids: dict[str, set[str]] = {}
    links: dict[str, list[str]] = {}
    for path, page in _walk(report, open_page):
        ids[path.as_uri()] = set(page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)"))
        links[path.as_uri()] = page.evaluate(
            "[...document.querySelectorAll('a[href]')].map((e) => e.getAttribute('href'))"
        )
    for url, found in links.items():
        for link in found:
            target, fragment = urldefrag(urljoin(url, link))
            if target.startswith("https://"):  # references leave the report; a test of the pages' text says which
                continue
            assert target in ids, (url, link)
            assert not fragment or fragment.partition("?")[0] in ids[target], (url, link)


def test_a_phone_shows_the_page_without_sideways_scrolling(report: Path, open_page: Any) -> None:
    for path, page in _walk(report, open_page, **PHONE):
        wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room, path.name


def test_paper_shows_every_row_and_no_controls(report: Path, index: str, open_page: Any) -> None:
    page = open_page(index).page
    if page.locator("#ledger").count():
        page.locator("#filters [name=words]").fill("no such words")
    page.emulate_media(media="print")
    assert not page.locator("nav.top").is_visible()
    assert page.evaluate("[...document.querySelectorAll('#ledger tbody tr')].every((r) => r.getClientRects().length)")
    assert len(page.pdf()) > 20_000


def test_the_keyboard_reaches_the_content_and_the_ledger(report: Path, index: str, open_page: Any) -> None:
    page = open_page(index).page
    page.bring_to_front()  # no ring is drawn in a window behind another one
    page.keyboard.press("Tab")
    first = page.evaluate("[document.activeElement.tagName, document.activeElement.getAttribute('href')]")
    assert first[0] == "A"
    assert first[1].startswith("#"), "the first stop skips the navigation"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{first[1]}")  # the address follows the key, but not at once
    outlined = page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, select, [tabindex="0"]')]
          .filter((e) => { if (!e.getClientRects().length) return false; e.focus(); const s = getComputedStyle(e);
            return e === document.activeElement && s.outlineStyle === 'none' && s.boxShadow === 'none'; })
          .map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert outlined == []
    if page.locator("#ledger").count():
        button = page.locator("#ledger thead button").first
        button.focus()
        page.keyboard.press("Enter")
        assert page.locator("#ledger th[aria-sort]").count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 360)])
def test_axe_finds_nothing_wrong(report: Path, open_page: Any, violations: Any, scheme: str, width: int) -> None:
    page = open_page("about:blank", color_scheme=scheme, viewport={"width": width, "height": 900}).page
    for path in (report / "index.html", next((report / "pages").glob("20_depth*"))):
        page.goto(path.as_uri())
        assert violations(page) == [], path.name


# --- the ledger -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(report: Path, index: str, open_page: Any) -> Any:
    seen = open_page(index)
    if not seen.page.locator("#ledger").count():
        pytest.skip("this report has no claims")
    seen.page.locator("#filters [type=reset]").click()  # it starts with the paper, where that is among the sources
    yield seen.page
    assert not seen.errors


def _shown(page: Any) -> list[str]:
    rows = "[...document.querySelectorAll('#ledger tbody tr')].filter((r) => !r.hidden)"
    return page.evaluate(f"{rows}.map((r) => r.textContent.toLowerCase())")


def test_the_ledger_is_searched(ledger: Any) -> None:
    everything = _shown(ledger)
    word = max(set(everything[0].split()), key=len)
    ledger.locator("#filters [name=words]").fill(word.upper())
    assert _shown(ledger) == [row for row in everything if word in row]
    assert ledger.locator("#count").text_content().startswith(f"{len(_shown(ledger))} of {len(everything)} ")
    ledger.locator("#filters [name=words]").fill("no such words")
    assert _shown(ledger) == []
    ledger.locator("#filters [type=reset]").click()
    ledger.wait_for_function(f"document.getElementById('count').textContent.startsWith('{len(everything)} of')")
    assert _shown(ledger) == everything


def test_the_filters_stand_in_the_address_and_come_back_from_it(ledger: Any, index: str, open_page: Any) -> None:
    verdict = ledger.locator("#filters [name=verdict] option").nth(1).get_attribute("value")
    ledger.locator("#filters [name=verdict]").select_option(verdict)
    ledger.locator("#filters [name=words]").fill("a")
    address, shown = ledger.evaluate("location.href"), _shown(ledger)
    assert "#claims?" in address
    again = open_page(address).page
    assert again.locator("#filters [name=verdict]").input_value() == verdict
    assert again.locator("#filters [name=words]").input_value() == "a"
    assert _shown(again) == shown
    strange = open_page(f"{index}#claims?verdict=no%20such&source=%F0%9F&x=1").page
    assert strange.locator("#filters [name=verdict]").input_value() == ""
    assert len(_shown(strange)) > 0


def test_what_nothing_fits_is_said_and_left_by_one_button(ledger: Any) -> None:
    n_all = len(_shown(ledger))
    none = ledger.locator("#no-claims")
    assert not none.is_visible()
    ledger.locator("#filters [name=words]").fill("no such words")
    assert none.is_visible()
    assert ledger.locator("#count").text_content().startswith("0 of ")
    none.locator("button").click()
    assert len(_shown(ledger)) == n_all
    assert not none.is_visible()


def test_the_ledger_starts_with_the_paper(report: Path, index: str, open_page: Any) -> None:
    page = open_page(index).page
    if not page.locator("#filters [data-first]").count():
        pytest.skip("this report has no claim of the paper")
    assert page.locator("#filters [name=source]").input_value() == "wang2017"
    sources = "[...document.querySelectorAll('#ledger tbody tr')].filter((r) => !r.hidden).map((r) => r.dataset.source)"
    assert set(page.evaluate(sources)) == {"wang2017"}


@pytest.mark.parametrize("width", [360, 768, 1024, 1440, 1920])
def test_nothing_is_cut_off_at_any_width(report: Path, index: str, width: int, open_page: Any) -> None:
    page = open_page(index, viewport={"width": width, "height": 900}).page
    wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room
    if width >= 1024:
        cut = page.evaluate(
            """() => [...document.querySelectorAll('section:not(#masks) .scroll')].filter((e) => e.clientWidth &&
              e.scrollWidth > e.clientWidth + 1).map((e) => e.getAttribute('aria-label'))"""
        )
        assert cut == []


@pytest.mark.parametrize("by", ["source", "verdict", "subject"])
def test_the_ledger_is_filtered(ledger: Any, by: str) -> None:
    n_all = len(_shown(ledger))
    control = ledger.locator(f"#filters [name={by}]")
    values = [v for v in control.evaluate("(e) => [...e.options].map((o) => o.value)") if v]
    counts = []
    for value in values:
        control.select_option(value)
        counts.append(len(_shown(ledger)))
    assert min(counts) >= 1
    if by != "subject":  # a claim can be about several networks
        assert sum(counts) == n_all


KEYS = """(k) => [...document.querySelectorAll('#ledger tbody tr')]
  .map((r) => r.cells[k].dataset.key ?? r.cells[k].textContent.trim())"""


def test_the_ledger_is_sorted_both_ways(ledger: Any) -> None:
    heads = ledger.locator("#ledger thead button")
    for k in range(heads.count()):
        heads.nth(k).click()
        up = ledger.evaluate(KEYS, k)
        heads.nth(k).click()
        down = ledger.evaluate(KEYS, k)
        assert sorted(up) == sorted(down)
        named = [key for key in up if key]  # nothing to sort by comes last, either way
        assert [key for key in down if key][::-1] == named or len(set(named)) < len(named)
        assert (up != down) is (len(set(named)) > 1)
        assert ledger.locator("#ledger th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_each_row_has_a_link_that_finds_it_again(ledger: Any) -> None:
    rows = ledger.locator("#ledger tbody tr")
    last = rows.last
    anchor = last.get_attribute("id")
    assert ledger.locator(f'#ledger a[href="#{anchor}"]').count() >= 1
    ledger.locator("#filters [name=words]").fill("no such words")
    assert not last.is_visible()
    ledger.evaluate(f"location.hash = '#{anchor}'")
    ledger.locator(f"[id='{anchor}']").wait_for(state="visible")
    assert ledger.evaluate(f"document.getElementById('{anchor}').matches(':target')")


# --- can it be read? ------------------------------------------------------------------------------------------------

# Every word that is drawn, with the colour beneath it: the grounds of the elements around it, and inside of a drawing
# the shapes under it. Opacity counts on both sides.
CONTRASTS = """async () => {
  const parse = (c) => { const m = c.match(/rgba?\\(([^)]+)\\)/); if (!m) return null;
    const v = m[1].split(/[ ,\\/]+/).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const colour = (text) => parse(text) ?? (() => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; })();
  const over = (top, under) => [0, 1, 2].map((k) => top[k] * top[3] + under[k] * (1 - top[3])).concat(1);
  const light = (c) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const veil = (e) => { let a = 1; for (; e; e = e.parentElement) a *= Number(getComputedStyle(e).opacity); return a; };
  const ground = (e) => { const all = []; for (; e; e = e.parentElement) all.push(colour(getComputedStyle(e).backgroundColor));
    return all.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]); };
  for (const d of document.querySelectorAll('details')) d.open = true;
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement, words = node.textContent.trim();
    if (!words || ['SCRIPT', 'STYLE', 'TITLE', 'title', 'desc', 'OPTION', 'style'].includes(e.tagName)) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    if (![...range.getClientRects()].some((r) => r.width > 1 && r.height > 1)) continue;
    const s = getComputedStyle(e), drawing = e.closest('svg');
    let ink, under = ground(drawing ?? e);
    if (drawing) {
      e.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
      const box = e.getBoundingClientRect();
      const beneath = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2)
        .filter((x) => drawing.contains(x) && ['rect', 'path', 'polygon', 'circle', 'ellipse'].includes(x.tagName)).reverse();
      for (const shape of beneath) {
        const t = getComputedStyle(shape);
        if (t.fill === 'none') continue;
        const c = colour(t.fill); c[3] *= Number(t.fillOpacity) * veil(shape);
        under = over(c, under);
      }
      ink = colour(s.fill); ink[3] *= Number(s.fillOpacity) * veil(e);
    } else { ink = colour(s.color); ink[3] *= veil(e); }
    if (ink[3] === 0 || s.visibility === 'hidden') continue;
    found.push([ratio(over(ink, under), under), words.slice(0, 40), e.tagName, e.closest('[id]')?.id ?? '', s.color]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(report: Path, scheme: str, open_page: Any) -> None:
    for path, page in _walk(report, open_page, color_scheme=scheme):
        found = page.evaluate(CONTRASTS)
        assert len(found) > 20
        pale = [row for row in found if row[0] < LEAST_CONTRAST]
        assert pale == [], path.name
        is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in is_dark[4:-1].split(",")) < 200) is (scheme == "dark")
