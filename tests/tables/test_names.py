"""Names of networks as readers know them."""

from __future__ import annotations

import pytest

from analysis.tables.names import display_name, listed, part_name


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
def test_a_part_of_a_network_is_said_in_words(path: str, shown: str) -> None:
    assert part_name(path) == shown


def test_several_are_listed() -> None:
    assert [listed(values) for values in ([26, 20, 14], ["a", "b"], ["a"], [])] == ["26, 20 and 14", "a and b", "a", ""]
