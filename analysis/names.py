"""How a network's name stands in figures and on pages. Standard library only."""

from __future__ import annotations

import re

FAMILIES = {"attention": "Attention", "attentionnext": "AttentionNeXt", "attentioninception": "AttentionInception",
            "resnet": "ResNet", "resnext": "ResNeXt"}  # fmt: skip


def name_and_settings(network: str) -> tuple[str, frozenset[str]]:
    """`cifar-attention56[gate=channel][width=8]` is cifar-attention56 with {gate=channel, width=8}."""
    name, _, rest = network.partition("[")
    inside = rest.removesuffix("]").replace("][", ",")
    return name, frozenset(item.strip() for item in re.split(r",\s*(?=[a-z_]+=)", inside) if item)


def display_name(network: str) -> str:
    """`cifar-resnet56-basic[width=8]` is CIFAR ResNet-56 basic (width=8); a name of no known family stays as it is."""
    match = re.fullmatch(r"(cifar-)?([a-z]+)(\d+)(-basic)?(?:\[(.*)\])?", network, re.DOTALL)
    if not match or match[2] not in FAMILIES:
        return network
    name = f"{'CIFAR ' if match[1] else ''}{FAMILIES[match[2]]}-{match[3]}{' basic' if match[4] else ''}"
    return f"{name} ({match[5].replace('][', ', ')})" if match[5] else name  # settings may be given on settings
