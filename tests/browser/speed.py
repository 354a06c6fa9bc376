"""How fast the pages are in headless Chromium, as a table: the explorer's sliders, the first paint, a large audit.

    python -m tests.browser.speed results/reference/report > tests/browser/speed.csv

Processor time is that of the page's main thread, which other programs on the machine do not lengthen; time by the
clock they do. docs/reference/bench.md shows the table.
"""

from __future__ import annotations

import csv
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import sync_playwright

from analysis.explore.page import SLIDERS
from resattn import audit
from tests.browser.conftest import FLAGS, executable
from tests.browser.test_audit_page import Skipped
from tests.browser.test_explorer_page import alone

N, SEED = 100, 19
SCROLLED_PX = 240  # a frame
LARGE = 10_000  # operators: half of them convolutions, half of them sums

DRAWN = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
SLIDE = """async ([name, value]) => {
  const slider = document.querySelector(`[data-e="s-${name}"]`), begun = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  return await (DRAWN)() - begun;
}""".replace("DRAWN", DRAWN)
SCROLL = """async (px) => { const begun = performance.now(); window.scrollBy({ top: px, behavior: "instant" });
  return await (DRAWN)() - begun; }""".replace("DRAWN", DRAWN)
HOVER = """async (k) => {
  const rows = document.querySelectorAll("[role=treeitem]"), begun = performance.now();
  rows[k % rows.length].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  return await (DRAWN)() - begun;
}""".replace("DRAWN", DRAWN)


class Timed:
    """A page, and the processor time of its main thread."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1440, "height": 900})
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(url)

    def spent_ms(self) -> float:
        metrics = {m["name"]: m["value"] for m in self.session.send("Performance.getMetrics")["metrics"]}
        return 1000 * float(metrics["TaskDuration"])

    def each(self, what: str, script: str, arguments: Iterator[Any]) -> dict[str, object]:
        clock, processor = [], []
        for argument in arguments:
            before = self.spent_ms()
            clock.append(self.page.evaluate(script, argument))
            processor.append(self.spent_ms() - before)
        return row(what, clock, processor)

    def painted_ms(self) -> float:
        self.page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        return float(self.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def row(what: str, clock: list[float], processor: list[float]) -> dict[str, object]:
    both = [(statistics.median(times), max(times)) for times in (processor, clock)]
    times = (f"{t:.0f}" for pair in both for t in pair)
    return {"what": what, "n": len(clock), **dict(zip(COLUMNS[2:], times, strict=True))}


COLUMNS = ("what", "n", "processor_median_ms", "processor_worst_ms", "clock_median_ms", "clock_worst_ms")


def measured(report: Path, folder: Path) -> Iterator[Callable[[Any], dict[str, object]]]:
    """Each row of the table, to be measured in a browser."""
    explorer, large = folder / "explorer.html", folder / "audit.html"
    explorer.write_text(alone(), encoding="utf-8")
    with torch.device("meta"):
        large.write_text(audit(Skipped(LARGE // 2), (2, 16, 16)).to_html(), encoding="utf-8")
    print(f"the page of {LARGE} operators: {large.stat().st_size / 1e6:.2f} MB", file=sys.stderr)
    draw = random.Random(SEED)
    changes = [(name, str(draw.randint(*SLIDERS[name][1:]))) for name in draw.choices(list(SLIDERS), k=N)]
    yield lambda browser: Timed(browser, explorer.as_uri()).each(
        "a slider of the explorer, changed", SLIDE, iter(changes)
    )
    for name, page in (("the report", report / "index.html"), ("the page of a large audit", large)):
        yield lambda browser, name=name, page=page: row(
            f"first paint of {name}", *zip(*(first_paint(browser, page) for _ in range(5)), strict=True)
        )
    for what, script, arguments in (
        ("a large audit, scrolled", SCROLL, [SCROLLED_PX] * N), ("a large audit, a module pointed at", HOVER, range(N)),
    ):  # fmt: skip
        yield lambda browser, what=what, script=script, arguments=arguments: opened(browser, large).each(
            what, script, iter(arguments)
        )


def first_paint(browser: Any, page: Path) -> tuple[float, float]:
    """Milliseconds by the clock until the first words are drawn, and of the processor until all is."""
    timed = Timed(browser, page.as_uri())
    clock, processor = timed.painted_ms(), timed.spent_ms()
    timed.page.close()
    return clock, processor


def opened(browser: Any, page: Path) -> Timed:
    """The page of an audit with its list of modules unfolded."""
    timed = Timed(browser, page.as_uri())
    timed.page.locator("#tree [role=treeitem]").first.focus()
    for key in ("ArrowDown", "ArrowRight"):
        timed.page.keyboard.press(key)
    return timed


if __name__ == "__main__":
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        for measure in measured(Path(sys.argv[1]).resolve(), Path(folder)):
            writer.writerow(measure(browser))
            sys.stdout.flush()
        browser.close()
