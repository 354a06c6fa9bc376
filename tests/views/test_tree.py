"""The module tree: every number adds up to the total, and a person can read it."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from resattn import Audit, audit
from resattn.measures.captured import Captured, PartError
from resattn.networks.classic import ZOO
from resattn.views import shown
from resattn.views.table import Table
from resattn.views.tree import DEAD, FUNCTIONAL, Node, tree
from tests.authors import UNet, ViT
from tests.instruments.printed_by_tools import TIMM
from tests.nets import NETS, made

CATALOG = ("attention56", "cifar-attention92", "attentioninception56", "resnet200", "cifar-resnet20-basic")


def on_meta(make: Callable[[], nn.Module], *shape: int) -> Audit:
    with torch.device("meta"):
        return audit(make(), shape)


def sums_up(node: Node) -> None:
    for child in node.children:
        sums_up(child)
    if not node.children:
        return
    for number in ("params", "macs", "layers", "unread"):
        below = sum(child.times * getattr(child, number) for child in node.children)
        assert getattr(node, number) == below, (node.path, number)


@pytest.mark.parametrize("name", NETS)
def test_every_number_of_a_subtree_is_the_sum_over_its_children(name: str) -> None:
    model, shapes = made(name)
    device = "cpu" if name in ("DataDependent", "ConstantItem") else "meta"
    network = Captured.of(model.eval(), *shapes, device=device)
    root = tree(network)
    sums_up(root)
    sums_up(root.folded())
    assert root.params == network.params()
    assert root.macs == sum(network.macs)
    assert root.layers == sum(network.is_layer)
    assert root.params + root.unread == sum(network.graph.params.values())


@pytest.mark.parametrize("name", [*CATALOG, *ZOO])
def test_the_root_has_the_totals_of_the_audit(name: str) -> None:
    found = on_meta(ZOO[name].make, *ZOO[name].input_shape) if name in ZOO else audit(name)
    sums_up(found.tree)
    sums_up(found.tree.folded())
    for number, quantity in (
        ("params", "params"),
        ("macs", "macs"),
        ("layers", "weighted_layers"),
        ("depth", "longest_path"),
    ):
        assert getattr(found.tree, number) == found.quantities[quantity]


def test_the_trees_of_public_models_add_up_to_the_totals_and_to_the_defined_parameters() -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    for name in TIMM:
        found = audit(f"timm:{name}")
        sums_up(found.tree)
        assert (found.tree.params, found.tree.macs) == (found.quantities["params"], found.quantities["macs"]), name
        defined = sum(p.numel() for p in timm.create_model(name).parameters())
        assert found.tree.params + found.tree.unread == defined, name


def test_fields_behind_a_position_table_are_those_of_the_given_input() -> None:
    root = on_meta(lambda: ViT(32, 2, 2, 8, 32, 10), 3, 32, 32).tree
    seen = {n.path: n.height for _, n in root.walk() if n.height and n.kind != FUNCTIONAL}
    # A token is a patch until the first attention, which joins all.
    before = ("patch", "blocks.0.norm1", "blocks.0.attn.qkv")
    assert {seen[path].side_px for path in before} == {8}
    assert all(field.is_whole for path, field in seen.items() if path not in before)
    assert len(seen) == 25  # every module


def test_a_list_of_modules_has_depth_and_no_count_of_runs() -> None:
    text = str(on_meta(lambda: UNet(8, 2), 3, 32, 32)).splitlines()
    (header,) = (line.split() for line in text if line.startswith("module "))
    assert "runs" not in header
    (up,) = (line.split() for line in text if line.startswith("  up "))
    assert up[-1] == "10"  # the depth, of a list that is never called


def test_a_module_that_returns_its_input_is_as_deep_as_what_it_returns() -> None:
    root = on_meta(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 2, 3)), 3, 16, 16).tree
    assert [child.depth for child in root.children] == [1, 1, 2]


def test_the_tree_of_a_u_net_has_the_fields_that_its_authors_count_by_hand() -> None:
    root = on_meta(UNet, 3, 256, 256).tree
    # Two 3x3 convolutions on each level, and a 2x2 pooling between: 5, 14, 32, 68, 140.
    seen = [root.find(f"encoder.{k}").height for k in range(5)]
    assert [(s.side_px, s.stride) for s in seen if s] == [(5, 1), (14, 2), (32, 4), (68, 8), (140, 16)]
    assert [s.offset for s in seen if s] == [-2, -6, -14, -30, -62]
    assert [c.name for c in root.children][-1] == "(max_pool2d, cat)"


@pytest.mark.parametrize(("make", "paths"), [
    (UNet, ["encoder.2", "up.1", "decoder.1", "decoder.3.0", "head"]),
    (lambda: UNet(mode="bilinear", depth=2), ["decoder.0", "head"]),
    (lambda: UNet(mode="nearest", depth=2), ["decoder.0.3", "head"]),
])  # fmt: skip
def test_the_field_of_a_module_is_that_of_the_audit_at_it(make: Callable[[], nn.Module], paths: list[str]) -> None:
    with torch.device("meta"):
        found = audit(make(), (3, 128, 128), at=paths)
    for path, field in zip(paths, found.fields, strict=True):
        node = found.tree.find(path)
        assert node.height is not None
        assert node.width is not None
        assert [node.height.side_px, node.width.side_px] == field["receptive_field_px"]


def test_the_tree_of_a_vision_transformer() -> None:
    found = on_meta(ViT, 3, 224, 224)
    root = found.tree
    assert root.params == 86_567_656  # torchvision, vit_b_16: num_params
    assert round(root.macs / 1e9, 2) == 17.56  # the same page: 17.56 GFLOPS
    (blocks,) = [c for c in root.folded().children if c.name == "blocks"]
    assert [(c.times, c.name) for c in blocks.children] == [(12, "0..11")]
    # The position table and the class token are parameters of the model itself.
    work = root.children[-1]
    assert (work.name, work.kind, work.params) == ("(cat, add)", FUNCTIONAL, 768 + 197 * 768)
    scores = [n for _, n in root.walk() if n.path == "blocks.3.attn" and n.kind == FUNCTIONAL]
    assert [n.macs for n in scores] == [2 * 197 * 197 * 768]
    assert "12 x 0..11" in str(found)


@torch.library.custom_op("resattn_tests::unheard_of", mutates_args=())
def unheard_of(x: Tensor) -> Tensor:
    return x.clone()


@unheard_of.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Repeated(nn.Module):
    """One module in two places, one that never runs, and an operator without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.again = self.conv
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return unheard_of(self.again(self.conv(x)))


def test_a_shared_a_dead_and_an_unknown_module() -> None:
    found = audit(Repeated(), (3, 8, 8))
    root = found.tree
    conv, unused = root.find("conv"), root.find("unused")
    assert (conv.runs, conv.params, conv.macs, conv.layers) == (2, 84, 2 * 81 * 64, 2)
    assert (unused.role, unused.params, unused.unread) == (DEAD, 0, 12)
    assert root.unknown == ("resattn_tests.unheard_of",)
    text = str(found)
    assert ">10.4K" in text
    assert "(12)" in text
    assert "never executed: unused" in text
    (row,) = found.by_module(depth=0).rows
    record = dict(zip(found.by_module().header, row, strict=True))
    assert (record["macs"], record["macs_at_least"]) == (None, 2 * 81 * 64)


def test_a_module_that_does_not_exist_has_nearest_names() -> None:
    with pytest.raises(PartError, match="no module 'stage5' \\(nearest: stage"):
        audit("cifar-resnet20-basic").by_module(within="stage5")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("make", ["attention56", "UNet", "ViT"])
def test_lines_fit_the_terminal(make: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = audit(make) if make == "attention56" else on_meta({"UNet": UNet, "ViT": ViT}[make], 3, 224, 224)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(" ") for line in lines) <= shown.LINES + 10
    if width >= 80:
        (header,) = (line for line in lines if line.startswith("module "))
        assert {"output", "params", "MACs", "depth", "field"} <= set(header.split())


def test_equal_modules_in_a_row_are_one_line() -> None:
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(3)], nn.Linear(8, 4), *[nn.Linear(4, 4) for _ in range(2)])
    folded = audit(model, torch.empty(1, 8)).tree.folded()
    assert [(c.times, c.name) for c in folded.children] == [(3, "0..2"), (1, "3"), (2, "4..5")]
    assert [c.depth for c in folded.children] == [3, 4, 6]  # after the last of them


# -- tables and pages


def test_the_table_has_every_module_and_every_form() -> None:
    found = audit("cifar-resnet20-basic")
    table = found.by_module(depth=2)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(rows) == len(table) == sum(1 for _ in found.tree.walk(2))
    level1 = found.by_module(depth=1)
    assert sum(level1.column("macs")[1:]) == level1.column("macs")[0] == found.quantities["macs"]
    assert table.to_markdown().count("\n") == len(table) + 1
    assert r"\toprule" in table.to_latex()
    assert "cifar-resnet20-basic" in str(table)
    assert ET.fromstring(table.to_html()).tag == "table"
    with pytest.raises(KeyError, match="no column 'mac'"):
        table.column("mac")


def test_a_page_folds_and_shows_markup_as_text() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<script>alert(1)</script>", nn.Sequential(nn.Linear(4, 4), nn.ReLU()))

        def forward(self, x: Tensor) -> Tensor:
            return next(self.children())(x)

    found = audit(Named(), torch.empty(1, 4))
    page = ET.fromstring(f"<div>{found._repr_html_()}</div>")
    assert not list(page.iter("script"))
    assert "<script>alert(1)</script>" in " ".join(page.itertext())
    assert len(list(page.iter("details"))) == 3  # the model, its one block, the quantities
    assert found.by_module().to_latex().count("<") == 0


def test_a_name_is_text_in_markdown_and_latex() -> None:
    names = ("<b>", "a|b", "`c`", "l\nn", "[x](y)", "__d__", "own_e", "\\", "&lt;")
    table = Table.of(("name",), [(name,) for name in names])
    shown = table.to_markdown().splitlines()[2:]
    escaped = (r"\<b>", r"a\|b", r"\`c\`", "l n", r"\[x](y)", r"\_\_d\_\_", "own_e", r"\\", r"\&lt;")
    assert shown == [f"| {text} |" for text in escaped]
    assert len(table.to_latex().splitlines()) == len(names) + 6


def test_the_name_of_a_module_cannot_drive_a_terminal() -> None:
    model = nn.Sequential()
    model.add_module("c\x1b]0;title\x07", nn.Conv2d(3, 4, 3))
    printed = str(audit(model, (3, 8, 8)))
    assert "\x1b" not in printed
    assert "c\\x1b]0;title\\x07" in printed
