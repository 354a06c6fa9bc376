"""Names and numbers as readers know them."""

from __future__ import annotations

import pytest

from analysis.tables.formats import anchor, display_name, duration, listed, number, part_name, short


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("attention56", "Attention-56"),
        ("attentionnext92", "AttentionNeXt-92"),
        ("attentioninception56", "AttentionInception-56"),
        ("cifar-resnet110-basic", "CIFAR ResNet-110 basic"),
        ("cifar-attention56[merge=naive]", "CIFAR Attention-56 (merge=naive)"),
        ("port:somebody:attention56", "port:somebody:attention56"),
        ("<script>", "<script>"),
    ],
)
def test_a_network_has_the_name_of_its_paper(name: str, shown: str) -> None:
    assert display_name(name) == shown


@pytest.mark.parametrize(
    ("path", "shown"),
    [("stage1", "stage 1"), ("stage1.module2", "stage 1, module 2"), ("stage12", "stage 12"), ("stem", "stem")],
)
def test_a_part_of_a_network_has_its_words(path: str, shown: str) -> None:
    assert part_name(path) == shown


def test_several_are_listed() -> None:
    assert [listed(values) for values in ([26, 20, 14], ["a", "b"], ["a"], [])] == ["26, 20 and 14", "a and b", "a", ""]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31_810_728, "31,810,728"),
        (41.72, "41.7"),
        (0.01234, "0.0123"),
        (None, "–"),
        (float("nan"), "–"),
        (2.0, "2"),
        ("x", "x"),
        (0.5, "0.500"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31_810_728, "31.8 M"),
        (6_270_836_736, "6.27 G"),
        (999, "999"),
        (1_125_899_906_842_624, "1.1 × 10¹⁵"),
        (-1_500, "-1.50 k"),
        (None, "–"),
    ],
)
def test_short_numbers(value: object, text: str) -> None:
    assert short(value).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (12.5, "12 s"), (90, "1 min 30 s"), (7260, "2 h 1 min"), (None, "–"),
        (float("inf"), "–"), (float("nan"), "–"), (10**400, "–"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


def test_lists_and_anchors() -> None:
    assert anchor('a"><b') == "a-b"
    assert anchor("<>") == "x"
