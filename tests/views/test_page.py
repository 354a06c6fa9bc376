"""The page of a network: one file that loads nothing, to scale, and no name in it is code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resattn import Audit, audit
from resattn.cli import main
from resattn.measures.captured import Captured
from resattn.views.drawing import Drawing, drawing
from resattn.views.page import MOST_BYTES, page
from tests.authors import UNet
from tests.nets import NETS


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = Reader()
    reader.feed(text)
    return reader.tags


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def of(model: nn.Module, *shape: int) -> Audit:
    return audit(model, shape)


BAD = ("<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<!--<script>", "{{script}}")


def test_names_are_text() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in BAD:
                self.add_module(name, nn.Conv2d(3, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            for name in BAD:
                x = self._modules[name](x)
            return x

    Named.__name__ = BAD[0]
    text = page(of(Named(), 3, 8, 8))
    assert [tag for tag, _ in tags(text)].count("script") == 2
    assert "img" not in {tag for tag, _ in tags(text)}
    paths = {row[0] for row in data(text)["modules"]}
    assert {*BAD} <= paths


def test_nothing_is_loaded() -> None:
    text = page(audit("cifar-attention56"))
    loading = {"src", "href", "srcset", "action", "data", "poster"}
    assert not [attrs for _, attrs in tags(text) if loading & attrs.keys()]
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text
    assert len(text.encode()) < MOST_BYTES


NETWORKS: dict[str, Callable[[], Captured]] = {
    "attention56": lambda: audit("attention56").captured,
    "resnet152": lambda: audit("resnet152").captured,
    "U-Net": lambda: Captured.of(UNet(4, 3), (1, 3, 64, 64)),
    **{name: (lambda name=name: Captured.of(NETS[name].make(), *NETS[name].shapes)) for name in
       ("MiniRAN", "RunTwice", "SeveralInputs", "DeadProjection", "CBAM")},
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_drawing_is_to_scale(name: str) -> None:
    network = NETWORKS[name]()
    found = drawing(network)
    assert network.longest is not None
    assert found.length == network.longest.n_layers
    layers = [m for m in found.marks if m.is_layer]
    reached = {i for output in network.graph.outputs for i in network.graph.ancestors(output)}
    assert {m.op for m in layers} == {i for i in reached if network.is_layer[i]}
    assert sum(m.macs for m in layers if m.is_on_longest) == sum(
        network.macs[i] for i in network.longest.ops if network.is_layer[i]
    )
    ordered(found)


def ordered(found: Drawing) -> None:
    """Data runs from left to right, and no layer lies on another."""
    for mark in found.marks:
        for i in mark.before:
            before = found.marks[i]
            assert before.x + before.is_layer <= mark.x + 0.3 * mark.is_layer + 1e-9
    places = [(m.x, m.lane) for m in found.marks if m.is_layer]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(("name", "times"), [("resnet152", {2, 7, 35}), ("attention56", {2})])
def test_repeated_blocks_are_drawn_once(name: str, times: set[int]) -> None:
    found = audit(name)
    folded = drawing(found.captured, found.tree)
    ordered(folded)
    assert {b.times for b in folded.blocks} == times
    # he2016, table 1: 3, 8, 36 and 3 units of three layers, of which one of each row of equals is drawn.
    if name == "resnet152":
        assert folded.length == 152 - 3 * (1 + 6 + 34 + 1)


def test_the_numbers_of_the_page_are_the_audits() -> None:
    found = audit("cifar-attention56")
    shown = data(page(found))
    lengths = dict(shown["lengths"])
    mean = found.quantities["mean_path_length"]
    assert sum(lengths.values()) == pytest.approx(1)
    assert sum(k * share for k, share in lengths.items()) == pytest.approx(mean)
    assert shown["used"] is None
    assert shown["modules"][0][0] == "cifar-attention56"
    paths = {node.path for _, node in found.tree.walk()}
    assert paths - {""} <= {row[0] for row in shown["modules"]}
    for drawn in shown["drawings"].values():
        n = len(drawn["marks"]) // 7
        assert all(0 <= i < n for i in drawn["edges"])
        assert all(0 <= row < len(shown["modules"]) for row in drawn["marks"][4::7])


def test_depth_that_is_used_only_where_asked() -> None:
    found = audit(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), (3, 12, 12))
    assert data(found.to_html())["used"] is None
    assert data(found.to_html(found.used()))["used"] == [[2, pytest.approx(1)]]


class Long(nn.Module):
    """Blocks that are all different, so that none is folded, each with a branch."""

    def __init__(self, n: int) -> None:
        super().__init__()
        sizes = [1 + 2 * (k % 3) for k in range(n)]
        self.block_with_a_long_name = nn.ModuleList([nn.Conv2d(2, 2, s, padding=s // 2) for s in sizes])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block_with_a_long_name:
            x = torch.tanh(block(x)) + x
        return x


def test_a_page_that_would_be_too_large_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        found = of(Long(60), 2, 8, 8)
    whole = page(found)
    monkeypatch.setattr("resattn.views.page.MOST_BYTES", len(whole.encode()) - 1)
    less = page(found)
    assert len(less) < len(whole)
    assert "this page holds" in data(less)["notes"][-1]


def test_the_command_writes_one_file_and_prints_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"{'p' * 250}.html"  # a name as long as a name can be
    assert main(["audit", "cifar-resnet20", "--html", str(file)]) == 0
    assert capsys.readouterr().out.strip() == str(file)
    assert list(tmp_path.iterdir()) == [file]
    assert main(["audit", "cifar-resnet20", "cifar-resnet29", "--html", str(file)]) == 2
    assert "--html takes one target" in capsys.readouterr().err
    assert main(["audit", "cifar-resnet20", "--html", str(tmp_path / "no" / "page.html")]) == 1


def test_commands_of_forecasts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "cifar-resnet20", "--scaling", "H=40,W=48", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["macs"] == audit("cifar-resnet20", (3, 40, 48)).quantities["macs"]
    assert main(["audit", "cifar-resnet20", "--scaling", "H:40"]) == 2
    assert "--scaling takes sizes" in capsys.readouterr().err
    assert main(["audit", "cifar-resnet20", "--scaling", "Q=40"]) == 1
    assert "no size Q (one of: B, H, W)" in capsys.readouterr().err
    assert main(["audit", "cifar-resnet20", "--training", "adamw", "--json"]) == 0
    (step,) = json.loads(capsys.readouterr().out)
    assert step["macs"]["backward"] == step["flopcounter"]["backward"]
