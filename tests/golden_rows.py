"""The rows of tests/golden: numbers from outside, each with its source."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def rows(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found
    assert all(row["source"].strip() for row in found), f"{name}: every number has its source"
    return found


def settings(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.split(" ") if part)


def tolerance(printed: str, scale: str) -> Decimal:
    """Half of the last printed digit; none for an exact integer."""
    exponent = Decimal(printed).as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(0) if scale == "1" and exponent >= 0 else Decimal(scale) * Decimal(10) ** exponent / 2
