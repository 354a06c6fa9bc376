"""How names stand in figures and on pages: of networks, of their parts, and several in a row. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def part_name(path: str) -> str:
    """`stage1.module2` is stage 1, module 2."""
    return ", ".join(re.sub(r"(\D)(\d+)$", r"\1 \2", part) for part in path.split("."))


def listed(values: Iterable[object]) -> str:
    """26, 20 and 14."""
    words = [str(value) for value in values]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
