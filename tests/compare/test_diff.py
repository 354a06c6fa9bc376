"""Differences of two audits: totals, and which module moved."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from resattn import audit
from resattn.compare.diff import AuditFileError, Change, diff, read_audits


def model(*widths: int, kernel: int = 3) -> nn.Sequential:
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*[nn.Conv2d(i, o, kernel, padding=kernel // 2) for i, o in pairs])


def record(made: nn.Module, *shape: int) -> dict[str, Any]:
    found = json.loads(json.dumps(audit(made, shape).to_json(tree=True)))
    return {found["target"]: found}


def test_equal_models_do_not_differ() -> None:
    assert diff(record(model(3, 8, 8), 3, 16, 16), record(model(3, 8, 8), 3, 16, 16)) == []


def test_the_module_that_moved_is_named_with_each_of_its_numbers() -> None:
    changes = diff(record(model(3, 8, 8), 3, 16, 16), record(model(3, 8, 12), 3, 16, 16))
    by_module = {(c.module, c.quantity): (c.before, c.after) for c in changes}
    assert by_module["1", "output"] == ("1x8x16x16", "1x12x16x16")
    assert by_module["1", "params"] == (8 * 9 * 8 + 8, 8 * 9 * 12 + 12)
    assert by_module["1", "macs"] == (8 * 9 * 8 * 256, 8 * 9 * 12 * 256)
    assert {c.module for c in changes} == {"", "1"}
    # What the modules differ by is what the totals differ by.
    for quantity in ("params", "macs"):
        total, *rest = (c.difference for c in changes if c.quantity == quantity)
        assert total == sum(n for n in rest if n is not None)


def test_a_module_with_another_name_is_the_same_module() -> None:
    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.add_module(name, nn.Conv2d(3, 8, 3))

        def forward(self, x: Any) -> Any:
            return next(self.children())(x)

    (change,) = diff(record(Named("stem"), 3, 16, 16), record(Named("first"), 3, 16, 16))
    assert change == Change("Named", "module", "stem", "first", "stem")
    assert str(change) == "stem: module stem -> first"


def test_a_module_that_is_new_or_gone_is_named() -> None:
    changes = diff(record(model(3, 8), 3, 16, 16), record(model(3, 8, 8), 3, 16, 16))
    new = {c.quantity: (c.before, c.after) for c in changes if c.module == "1"}
    assert new["kind"] == (None, "Conv2d")
    assert new["params"] == (None, 584)
    assert "unread" not in new


def test_audits_of_different_inputs_are_named_as_such() -> None:
    first, *_ = diff(record(model(3, 8), 3, 16, 16), record(model(3, 8), 3, 32, 32))
    assert (first.quantity, first.before, first.after) == ("input_shape", "1x3x16x16", "1x3x32x32")


def test_audits_without_modules_are_compared_in_total() -> None:
    old = {"x": {"target": "x", "quantities": {"macs": 1}}}
    assert [str(c) for c in diff(old, record(model(3, 8), 3, 16, 16)) if c.quantity == "macs"] == [
        "total: macs 1 -> 55,296 (+55,295)"
    ]


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[1]", '[{"quantities": {}}]', '[{"target": "x", "quantities": []}]',
                                  '[{"target": "x", "quantities": {}, "tree": [3]}]',
                                  '[{"target": "x", "quantities": {}, "tree": [{"module": [1]}]}]',
                                  '[{"target": "x", "quantities": {}, "input_shape": 5}]',
                                  '[{"target": "x", "quantities": {}, "more_inputs": [5]}]',
                                  '[{"target": "x", "quantities": {"macs": 1e999}}]',
                                  '[{"target": "x", "quantities": {"macs": NaN}}]'])  # fmt: skip
def test_what_is_no_audit_gets_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AuditFileError) as error:
        read_audits(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_the_command_ends_with_1_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from resattn.cli import main

    run: Callable[..., int] = lambda *words: main(["diff", *words])  # noqa: E731
    assert run("cifar-resnet20-basic", "cifar-resnet32-basic") == 0
    assert "stage1.unit4.conv1" in capsys.readouterr().out.replace("branch.", "")
    assert run("cifar-resnet20-basic", "cifar-resnet32-basic", "--exit-code") == 1
    assert run("cifar-resnet20-basic", "cifar-resnet20-basic", "--exit-code") == 0
    assert "no difference" in capsys.readouterr().err
    assert run("torch.nn:Identity", "torch.nn:Flatten", "--input", "3,8,8") == 0


def test_files_without_modules_are_compared_in_total_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resattn.cli import main

    for name, more in (("short", ()), ("long", ("--tree",))):
        assert main(["audit", "cifar-resnet20-basic", "--json", *more]) == 0
        (tmp_path / f"{name}.json").write_text(capsys.readouterr().out)
    short, long = (read_audits(tmp_path / f"{name}.json") for name in ("short", "long"))
    assert "tree" not in short["cifar-resnet20-basic"]
    assert (
        sum(row["macs"] for row in long["cifar-resnet20-basic"]["tree"])
        == audit("cifar-resnet20-basic").quantities["macs"]
    )
    assert main(["diff", str(tmp_path / "short.json"), "cifar-resnet32-basic"]) == 0
    assert "compared in total: a file of `resattn audit TARGET --json --tree`" in capsys.readouterr().err
