"""Prints the module tree in a terminal, with its width and colours, or in a format for papers and programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resattn.views import shown
from resattn.views.shown import Line
from resattn.views.table import Coloured, Table, plain
from resattn.views.tree import FUNCTIONAL

if TYPE_CHECKING:
    from resattn.measures.audit import Audit

# One colour for a role, of the sixteen that every terminal has and its owner has chosen.
COLOURS = {"mask": "magenta", "shortcut": "cyan", "dead": "red"}


def print_trees(audits: Sequence[Audit], form: str, *, depth: int | None = None, explain: bool = False) -> None:
    """Prints the trees to stdout; as CSV one table of all audits, with every module and number."""
    if form == "csv":
        tables = [shown.table(a.tree, depth=depth) for a in audits]
        rows = [(a.target, *row) for a, table in zip(audits, tables, strict=True) for row in table.rows]
        print(Table.of(("target", *tables[0].header), rows).to_csv())
    elif form in ("md", "tex"):
        levels = [shown.chosen_depth(a.tree)[0] if depth is None else depth for a in audits]
        tables = [shown.paper_table(a.tree, depth=level) for a, level in zip(audits, levels, strict=True)]
        print("\n\n".join(table.to_format(form) for table in tables))
    else:
        for k, audit in enumerate(audits):
            parts = shown.parts(audit, width=shown.terminal_width(), depth=depth)
            _print([*([""] * (k > 0)), *(plain(part) if isinstance(part, str) else part for part in parts)])
    if explain:
        definitions = Table.of(("column", "definition"), list(shown.DEFINITIONS.items()))
        print(f"\n{definitions.to_format(form if form != 'csv' else 'text')}",
              file=sys.stderr if form == "csv" else sys.stdout)  # fmt: skip


def _print(lines: Sequence[str | Line]) -> None:
    """In colour where rich is installed and the output is a terminal; NO_COLOR and FORCE_COLOR are respected."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ModuleNotFoundError:
        print("\n".join(map(str, lines)))
        return
    console = Console(highlight=False, soft_wrap=True)
    if console.no_color or not console.is_terminal:
        print("\n".join(map(str, lines)))
        return
    with console.capture() as captured:
        for line in lines:
            if isinstance(line, str) or line.node is None:
                console.print(Text(str(line), style="bold" if isinstance(line, Line) else ""))
                continue
            colour = COLOURS.get(line.node.role, "")
            name = "italic" if line.node.kind == FUNCTIONAL else colour or "bold"
            console.print(Text.assemble((line.name, name), (line.kind, "dim"), (line.cells, colour)))
    sys.stdout.write(Coloured(captured.get()))
