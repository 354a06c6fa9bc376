"""Names of networks as readers know them."""

from __future__ import annotations

import pytest

from analysis.names import display_name


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
