"""Rows that a user adds for one audit: what they complete, what stays unknown, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resattn import Rule, audit
from resattn.measures.audit import Audit
from resattn.rules import spreads
from resattn.rules.rule import RuleError
from resattn.rules.table import RULES

NAME = "resattn_user_tests::scan"


@torch.library.custom_op(NAME, mutates_args=())
def scan(x: Tensor) -> Tensor:
    return x.clone()


@scan.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Scan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return scan(x)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Scan(), nn.Conv2d(4, 2, 3, padding=1))


def found(row: Rule | None = None) -> Audit:
    return audit(net(), (3, 16, 16), rules=None if row is None else {NAME: row})


CONVOLUTIONS = 16 * 16 * 9 * (3 * 4 + 4 * 2)


def test_without_a_row_the_audit_is_partial_and_names_the_operator() -> None:
    without = found()
    assert without.status == "partial"
    assert without.unknown_ops == ("resattn_user_tests.scan in 1",)
    assert without.quantities["macs"] is None


def test_a_row_with_a_cost_alone_leaves_the_receptive_field_unknown() -> None:
    with_cost = found(Rule(macs=lambda op: 2 * op.shape[1]))
    assert with_cost.unknown_ops == ()
    assert with_cost.quantities["macs"] == CONVOLUTIONS + 2 * 4
    assert with_cost.quantities["longest_path"] == 2
    assert with_cost.quantities["receptive_field_px"] is None
    assert with_cost.statuses["receptive_field_px"] == "unavailable"
    assert with_cost.status == "complete"
    assert any(note.startswith("receptive field:") and "scan" in note for note in with_cost.notes)


def test_a_row_with_a_spread_makes_the_audit_complete() -> None:
    whole = found(Rule(macs=lambda op: 0, spread=spreads.pointwise))
    assert (whole.status, whole.quantities["receptive_field_px"]) == ("complete", 5)


def test_a_row_holds_for_one_call_alone() -> None:
    before = dict(RULES)
    found(Rule(macs=lambda op: 0, spread=spreads.pointwise))
    assert before == RULES
    assert found().status == "partial"


def test_a_row_replaces_the_one_of_the_table_for_one_call() -> None:
    model = nn.Conv2d(3, 4, 3, padding=1)
    row = Rule("convolution", spreads.pointwise, lambda op: 7)
    assert audit(model, (3, 8, 8), rules={"aten::convolution": row}).quantities["macs"] == 7
    assert audit(model, (3, 8, 8)).quantities["macs"] == 8 * 8 * 9 * 3 * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resattn_user_tests::scam", r"no operator 'resattn_user_tests::scam' \(nearest: resattn_user_tests::scan"),
        ("nothing_of_the_kind_at_all::x", "no operator 'nothing_of_the_kind_at_all::x'"),
        ("scan", "no operator 'scan'"),
    ],
)
def test_a_name_that_is_no_operator_is_refused(name: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        audit(net(), (3, 16, 16), rules={name: Rule()})


def test_a_value_that_is_no_row_is_refused() -> None:
    with pytest.raises(RuleError, match=f"the rule for {NAME} is a int, not a resattn.Rule"):
        audit(net(), (3, 16, 16), rules={NAME: 3})  # type: ignore[dict-item]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RuleError, match=r"unknown kind 'convolutoin' of a rule \(one of: input, convolution, matmul"):
        Rule("convolutoin")  # type: ignore[arg-type]


def _raises(*args: object) -> int:
    raise KeyError("weights")


@pytest.mark.parametrize("function", ["macs", "is_layer", "spread"])
def test_a_function_that_raises_is_named_with_its_operator(function: str) -> None:
    with pytest.raises(
        RuleError, match=rf"{function} of the rule for {NAME.replace('::', '.')} raised KeyError: 'weights' \(in 1\)"
    ):
        found(Rule(**{function: _raises}))  # type: ignore[arg-type]
