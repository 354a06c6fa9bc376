"""Output on stdout: JSON, tables, and text wrapped to the width of the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

from resattn.views.table import plain

MOST_DIGITS = 15  # of a number of paths that is printed in full


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(rows: Sequence[Sequence[Any]], header: Sequence[str], form: str = "text") -> None:
    from resattn.views.table import Table

    table = Table.of(header, rows)
    print(table.to_text(columns()) if form == "text" else table.to_format(form))


def columns() -> int:
    return get_terminal_size().columns


def wrapped(text: str) -> str:
    """Text wrapped to the terminal; a line continues below its last column, or else two spaces further in."""
    lines = []
    for line in plain(text).splitlines():
        start = re.match(r".*\S {2,}(?=\S)", line)
        indent = start.end() if start and 2 * start.end() < columns() else len(line) - len(line.lstrip()) + 2
        lines += wrap(line, columns(), subsequent_indent=" " * indent, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def brief(value: Any) -> Any:
    if value is None:
        return "-"
    return f"{Decimal(value):.2e}" if isinstance(value, int) and value >= 10**MOST_DIGITS else value
