"""What other tools print, computed from our graph by their rules, beside what they print."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from resattn import audit
from resattn.cli import main
from resattn.instruments.counters import TOOLS, ToolError, counted_like
from resattn.measures.captured import Captured
from tests.instruments.printed_by_tools import models

TABLE = Path(__file__).with_name("printed_by_tools.csv")
PRINTED: dict[str, dict[str, int]] = defaultdict(dict)
for row in csv.DictReader(TABLE.open(encoding="utf-8")):
    PRINTED[row["model"]][row["tool"]] = int(row["printed"])

MODELS = models()

# Where a tool's number cannot be told from a graph, and the table says so; the reason for each.
CALLED_BY_NAME = "torch.add and torch.mul by their names, not as + and *"
ROUNDED = "einsum: the tool reads a rounded text of NumPy's"
NOT_EQUAL = {
    ("OutArgument", "ptflops"): CALLED_BY_NAME, ("OutArgument", "deepspeed"): CALLED_BY_NAME,
    ("Einsum", "deepspeed"): ROUNDED, ("EinsumWeight", "deepspeed"): ROUNDED,
    ("timm:convnext_atto", "ptflops"): CALLED_BY_NAME, ("timm:convnext_atto", "deepspeed"): CALLED_BY_NAME,
}  # fmt: skip


def test_the_table_holds_every_tool() -> None:
    assert {tool for tools in PRINTED.values() for tool in tools} == set(TOOLS)
    # One model, six tools, six answers; its multiply-adds are 2,695,488.
    assert len(set(PRINTED["MiniRAN"].values())) == len(TOOLS)


@pytest.mark.parametrize("name", PRINTED)
def test_our_number_is_the_one_that_the_tool_prints(name: str) -> None:
    if name not in MODELS:
        pytest.skip(f"{name} needs timm and a torchvision that fits torch")
    make, shapes = MODELS[name]
    network = Captured.of(make().eval(), *shapes, name=name)
    for tool, printed in PRINTED[name].items():
        counted = counted_like(network, tool)
        if counted.value is None:
            assert counted.reasons
        elif (name, tool) in NOT_EQUAL:
            assert counted.value != printed
        elif counted.doubts:
            assert counted.value <= printed <= counted.value + sum(counted.doubts.values())
        else:
            assert (tool, counted.value) == (tool, printed)
            assert sum(counted.parts.values()) == printed


def test_most_numbers_are_exact_and_the_table_of_the_docs_is_of_the_same_numbers() -> None:
    n = sum(len(tools) for tools in PRINTED.values())
    assert n > 600
    assert len(NOT_EQUAL) < n / 40
    for row in csv.DictReader(TABLE.with_name("compared.csv").open(encoding="utf-8")):
        known = int(row["equal"]), int(row["in_range"]), int(row["refused"]), int(row["different"])
        assert int(row["numbers"]) == sum(known) == sum(row["tool"] in tools for tools in PRINTED.values())
        assert int(row["different"]) == sum(tool == row["tool"] for _, tool in NOT_EQUAL)


def test_a_tool_that_is_installed_prints_what_the_table_says() -> None:
    from tests.instruments import printed_by_tools as tools

    for name in ("MiniRAN", "ViT-S"):
        for tool in (tools.fvcore, tools.torchinfo, tools.flopcounter):
            assert tools.printed(MODELS[name], tool) == PRINTED[name][tool.__name__]


def test_the_sentence_names_definition_tool_and_version() -> None:
    found = audit("cifar-resnet20-basic").counted_like("thop")
    assert str(found) == found.sentence
    for words in (f"{found.value:,} multiply-adds as thop 0.1.1.post2209072238 counts them", "1x3x32x32", "40,551,040"):
        assert words in found.sentence


def test_what_cannot_be_followed_says_why() -> None:
    with torch.device("meta"):
        model = nn.LSTM(4, 4, batch_first=True)
    found = audit(model, torch.empty(1, 5, 4)).counted_like("ptflops")
    assert found.value is None
    assert "LSTM (the model) has a rule of its own in this tool" in found.sentence


def test_the_command_ends_with_1_where_a_tool_cannot_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "torch.nn:Identity", "--input", "4", "--counted-like", "thop", "fvcore"]) == 0
    assert "as thop 0.1.1.post2209072238 counts them" in " ".join(capsys.readouterr().out.split())
    words = (
        "audit",
        "tests.instruments.test_counters:recurrent",
        "--input",
        "5,4",
        "--counted-like",
        "fvcore",
        "ptflops",
    )
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "unknown" in printed.out
    assert printed.err.count("\n") == 1
    assert "ptflops 0.7.5 cannot be followed" in printed.err


def recurrent() -> nn.Module:
    return nn.LSTM(4, 4, batch_first=True)


def test_an_unknown_tool_names_those_that_are_known() -> None:
    with pytest.raises(ToolError, match="one of: fvcore, thop, ptflops, torchinfo, deepspeed, flopcounter"):
        audit("cifar-resnet20-basic").counted_like("x")
