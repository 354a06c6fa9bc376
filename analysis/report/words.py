"""Numbers and names as a reader wants them: digits grouped, magnitudes named."""

from __future__ import annotations

import math
import re
from numbers import Real
from typing import Any

MAGNITUDES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def number(value: Any) -> str:
    """Whole numbers with their digits grouped, others with three or four significant digits; a dash for none."""
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


def short(value: Any, digits: int = 3) -> str:
    """31,810,728 -> 31.8 M. Whole numbers beyond every magnitude are written as a power: 1.13e15 -> 1.1 x 10^15."""
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
            return f"{scaled:.{max(0, digits - 1 - math.floor(math.log10(abs(scaled))))}f}\N{NO-BREAK SPACE}{letter}"
    return number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)  # NumPy's too


def percent(share: float) -> str:
    """0.278 -> 28 %."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """90 -> 1 min 30 s."""
    if seconds is None or seconds != seconds:
        return "\N{EN DASH}"
    if seconds < 10:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}\N{NO-BREAK SPACE}{unit}" for value, unit in parts if value) or "0 s"


def anchor(text: str) -> str:
    """A word that serves as an id and in an address, whatever the text holds."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-") or "x"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(
        str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
