"""How names and numbers are written in figures and on pages. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

FAMILIES = {"attention": "Attention", "attentionnext": "AttentionNeXt", "attentioninception": "AttentionInception",
            "resnet": "ResNet", "resnext": "ResNeXt"}  # fmt: skip
MAGNITUDES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def name_and_settings(network: str) -> tuple[str, frozenset[str]]:
    """Name and settings: `cifar-attention56[gate=channel][width=8]` is cifar-attention56, {gate=channel, width=8}."""
    name, _, rest = network.partition("[")
    inside = rest.removesuffix("]").replace("][", ",")
    return name, frozenset(item.strip() for item in re.split(r",\s*(?=[a-z_]+=)", inside) if item)


def display_name(network: str) -> str:
    """`cifar-resnet56-basic[width=8]` as CIFAR ResNet-56 basic (width=8); a name of no known family is unchanged."""
    match = re.fullmatch(r"(cifar-)?([a-z]+)(\d+)(-basic)?(?:\[(.*)\])?", network, re.DOTALL)
    if not match or match[2] not in FAMILIES:
        return network
    name = f"{'CIFAR ' if match[1] else ''}{FAMILIES[match[2]]}-{match[3]}{' basic' if match[4] else ''}"
    settings = ", ".join(sorted(name_and_settings(network)[1]))
    return f"{name} ({settings})" if settings else name


def part_name(path: str) -> str:
    """`stage1.module2` is stage 1, module 2."""
    return ", ".join(re.sub(r"(\D)(\d+)$", r"\1 \2", part) for part in path.split("."))


def listed(values: Iterable[object], word: str = "and") -> str:
    """A list as text: 26, 20 and 14."""
    words = [str(value) for value in values]
    return f" {word} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def counted(n: int, what: str) -> str:
    """1 seed, 8 seeds."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def number(value: Any) -> str:
    """Whole numbers with grouped digits, others with three or four significant digits; a dash for none."""
    if value is None or value != value or value == "":
        return "\N{EN DASH}"
    if not _is_number(value):
        return str(value)
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    if float(value).is_integer():
        return f"{int(value):,}"
    size = abs(float(value))
    return f"{float(value):,.{max(0, min(4, 2 - math.floor(math.log10(size))) if size < 100 else 1)}f}"


def short(value: Any) -> str:
    """31,810,728 as 31.8 M. Whole numbers above every prefix are written as a power: 1.13e15 as 1.1 x 10^15."""
    if not _is_number(value) or value != value:
        return "\N{EN DASH}"
    size = abs(value)
    if size >= 10**15:
        exponent = len(str(int(size))) - 1
        mantissa = int(size) * 10 // 10**exponent / 10
        return f"{mantissa} \N{MULTIPLICATION SIGN} 10{_superscript(exponent)}"
    for factor, letter in MAGNITUDES:
        if size >= factor:
            scaled = float(value) / factor
            return f"{scaled:.{max(0, 2 - math.floor(math.log10(abs(scaled))))}f}\N{NO-BREAK SPACE}{letter}"
    return number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)  # NumPy's too


def signed(value: float) -> str:
    """0.123 as +0.12; a value that rounds to zero has no minus sign."""
    return f"{round(value, 2) + 0.0:+.2f}"


def percent(share: float) -> str:
    """0.278 -> 28 %."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


LONGEST_S = 1e12  # longer is a slip of whoever wrote it


def duration(seconds: float | None) -> str:
    """90 -> 1 min 30 s; a dash for what is no number, or of no time."""
    if seconds is None or not -LONGEST_S < seconds < LONGEST_S:
        return "\N{EN DASH}"
    if seconds < 10:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    rounded = round(seconds)
    hours, minutes, rest = rounded // 3600, rounded % 3600 // 60, rounded % 60
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}\N{NO-BREAK SPACE}{unit}" for value, unit in parts if value) or "0 s"


def anchor(text: str) -> str:
    """A word that can be an id and part of an address, for any text."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-") or "x"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(
        str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown and an empty line; "None." if there are no rows."""
    if not rows:
        return "None.\n\n"
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"
