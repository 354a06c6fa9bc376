"""The page of an audit, as a person uses it: the tree by keyboard, a large network, what skips a part of the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resattn import audit

pytestmark = pytest.mark.browser
N_BLOCKS = 700
MOST_ROWS = 120  # in the page at a time, of a thousand


class Skipped(nn.Module):
    """Convolutions of two sizes in turn, so that none is folded, each with a sum around it."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(2, 2, 1 + 2 * (k % 2), padding=k % 2) for k in range(n)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    with torch.device("meta"):
        text = audit(Skipped(N_BLOCKS), (2, 16, 16)).to_html()
    file = tmp_path_factory.mktemp("page") / "audit.html"
    file.write_text(text, encoding="utf-8")
    return file.as_uri()


def test_a_large_tree_holds_the_lines_in_view_and_is_walked_by_keys(open_page: Any, large: str) -> None:
    watched = open_page(large)
    page = watched.page
    rows = page.locator("#tree [role=treeitem]")
    rows.first.focus()
    assert rows.first.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")  # opens the list of blocks
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused.startswith("29 Conv2d")
    assert page.locator("#module b").inner_text() == "blocks.29"
    assert 30 < rows.count() < MOST_ROWS
    page.evaluate("window.scrollTo(0, document.body.scrollHeight / 2)")
    page.wait_for_function(
        "[...document.querySelectorAll('#tree [role=treeitem]')].some((r) => +r.textContent.split(' ')[0] > 200)"
    )
    assert rows.count() < MOST_ROWS
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert watched.errors == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 360)])
def test_axe_finds_nothing_wrong(tmp_path: Path, open_page: Any, violations: Any, scheme: str, width: int) -> None:
    file = tmp_path / "audit.html"
    file.write_text(audit("cifar-attention56").to_html(), encoding="utf-8")
    watched = open_page(file.as_uri(), color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(watched.page) == []
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    assert not watched.errors
    assert not [url for url in watched.requests if not url.startswith(("file:", "data:"))]
