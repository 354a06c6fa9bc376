"""Numbers from outside, each with its source (tests/golden), and numbers derived by hand (tests/derived)."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

GOLDEN, DERIVED = (Path(__file__).parent / name for name in ("golden", "derived"))
# Counted by hand in tests/networks/test_by_hand.py and tests/oracles.py: nobody prints them.
BY_HAND = frozenset(
    {"macs_mask", "norm_statistics", "params_conv", "params_conv_mask", "params_mask", "params_norm", "params_linear",
     "mask_longest_path", "mask_units_on_path", "module_longest_path", "module_trunk_path", "receptive_field_least_px"}
)  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    return _rows(GOLDEN / name)


def derived(name: str) -> list[dict[str, str]]:
    return _rows(DERIVED / name)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert found
    return found


def settings(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.split(" ") if part)


def tolerance(printed: str, scale: str) -> Decimal:
    """Half of the last printed digit; none for an exact integer."""
    exponent = Decimal(printed).as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(0) if scale == "1" and exponent >= 0 else Decimal(scale) * Decimal(10) ** exponent / 2
