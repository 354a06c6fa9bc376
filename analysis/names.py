"""How a network's name stands in figures and on pages. Standard library only."""

from __future__ import annotations

import re

FAMILIES = {"attention": "Attention", "attentionnext": "AttentionNeXt", "attentioninception": "AttentionInception",
            "resnet": "ResNet", "resnext": "ResNeXt"}  # fmt: skip


def display_name(network: str) -> str:
    """`cifar-resnet56-basic[width=8]` is CIFAR ResNet-56 basic (width=8); a name of no known family stays as it is."""
    match = re.fullmatch(r"(cifar-)?([a-z]+)(\d+)(-basic)?(?:\[(.*)\])?", network, re.DOTALL)
    if not match or match[2] not in FAMILIES:
        return network
    name = f"{'CIFAR ' if match[1] else ''}{FAMILIES[match[2]]}-{match[3]}{' basic' if match[4] else ''}"
    return f"{name} ({match[5]})" if match[5] else name
