"""A table as text, Markdown, LaTeX, CSV and HTML. Standard library only."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from textwrap import wrap
from typing import Any

GAP, LEAST_WRAPPED = 2, 20  # characters between columns; of a column whose words are wrapped

INDENT = "\N{EM SPACE}"  # of a name below another one: Markdown and HTML drop ordinary spaces

# What LaTeX does not print as it is.
TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "|": "\\textbar{}", INDENT: "\\quad{}",
}  # fmt: skip


# What Markdown does not print as it is: marks, tags, entities, links, and underscores that no letters enclose.
MARKED = re.compile(r"[\\`*|<]|&(?=[#\w]+;)|\[(?=[^\]]*\]\()|(?<![^\W_])_|_(?![^\W_])")


class Coloured(str):
    """A text whose control characters are our own colours and may pass to a terminal."""

    __slots__ = ()


def plain(text: str) -> str:
    """The text with control characters escaped, except newline, tab, and a carriage return that overwrites nothing of
    this text: at its start or beside a newline.
    """
    return re.sub("(?<=[^\n])\r+(?=[^\r\n])", lambda met: "\\x0d" * len(met[0]), text).translate(_CONTROLS)


# C0, C1 and delete, and the marks that turn the direction of writing.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t\r"
}


@dataclass(frozen=True)
class Table:
    """Rows of values under a header. Numbers are aligned to the right; None is a value that cannot be given.

    `shown`: for some columns a function from the value to the displayed text; CSV keeps the value.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, header: Sequence[str], rows: Sequence[Sequence[Any]], shown: Mapping[str, Any] | None = None) -> Table:
        return cls(tuple(header), tuple(tuple(row) for row in rows), shown or {})

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        """The values of a column. Raises: KeyError."""
        if name not in self.header:
            raise KeyError(f"no column {name!r} (one of: {', '.join(self.header)})")
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    @property
    def _is_right(self) -> list[bool]:
        columns = zip(*self.rows, strict=True)
        found = [all(isinstance(v, int | float | None) and not isinstance(v, bool) for v in c) for c in columns]
        return found or [False] * len(self.header)

    def _texts(self) -> list[list[str]]:
        how = [self.shown.get(name, number) for name in self.header]
        return [[show(value) for show, value in zip(how, row, strict=True)] for row in self.rows]

    def to_text(self, width: int = 0) -> str:
        """The table as text. If it is wider than `width`, its last column is wrapped if that is text; otherwise its
        columns are printed in blocks below each other, each block with the first column.
        """
        texts = [list(self.header), *self._texts()]
        widths = [max(len(row[k]) for row in texts) for k in range(len(self.header))]
        if not width or sum(widths) + GAP * (len(widths) - 1) <= width:
            return "\n".join(self._lines(texts, widths, range(len(widths))))
        rest = width - sum(widths[:-1]) - GAP * (len(widths) - 1)
        if not self._is_right[-1] and rest >= LEAST_WRAPPED:
            return "\n".join(self._lines(texts, [*widths[:-1], rest], range(len(widths))))
        blocks: list[list[int]] = [[0]]
        for k in range(1, len(widths)):
            if len(blocks[-1]) > 1 and sum(widths[i] + GAP for i in blocks[-1]) + widths[k] > width:
                blocks.append([0])
            blocks[-1].append(k)
        widths = [w if k == 0 else min(w, max(width - widths[0] - GAP, LEAST_WRAPPED)) for k, w in enumerate(widths)]
        return "\n\n".join("\n".join(self._lines(texts, widths, block)) for block in blocks)

    def _lines(self, texts: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[int]) -> Iterator[str]:
        right = self._is_right
        for row in texts:
            cells = [wrap(row[k], widths[k], break_on_hyphens=False) if len(row[k]) > widths[k] else [row[k]]
                     for k in columns]  # fmt: skip
            for line in zip_longest(*cells, fillvalue=""):
                aligned = [t.rjust(widths[k]) if right[k] else t.ljust(widths[k])
                           for k, t in zip(columns, line, strict=True)]  # fmt: skip
                yield (" " * GAP).join(aligned).rstrip()

    def __str__(self) -> str:
        return self.to_text()

    def to_markdown(self) -> str:
        rule = ["---:" if right else "---" for right in self._is_right]
        rows = [[MARKED.sub(r"\\\g<0>", " ".join(cell.splitlines())) for cell in row] for row in self._texts()]
        return "\n".join("| " + " | ".join(row) + " |" for row in [list(self.header), rule, *rows])

    def to_latex(self) -> str:
        """A `tabular` with the rules of the package booktabs."""
        columns = "".join("r" if right else "l" for right in self._is_right)
        head, *body = [" & ".join(map(_tex, row)) + r" \\" for row in [list(self.header), *self._texts()]]
        lines = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
        return "\n".join([*lines, r"\end{tabular}"])

    def to_csv(self) -> str:
        """The values; one that cannot be given is empty."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue().rstrip("\n")

    def to_html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        style = [f' style="text-align:{"right" if right else "left"}"' for right in self._is_right]
        body = "".join(
            "<tr>" + "".join(f"<td{s}>{escape(t)}</td>" for t, s in zip(row, style, strict=True)) + "</tr>"
            for row in self._texts()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    _repr_html_ = to_html

    def to_format(self, name: str) -> str:
        """The table as text, md, csv or tex."""
        return {"text": self.to_text, "md": self.to_markdown, "csv": self.to_csv, "tex": self.to_latex}[name]()


def number(value: Any) -> str:
    """A value for a reader: grouped thousands, two decimals."""
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def brief(value: int) -> str:
    """A value with three significant digits and K, M, G, T or P: 6.27G."""
    if value < 1000:
        return str(value)
    for unit in "KMGTP":
        value_in = value / 1000 ** ("KMGTP".index(unit) + 1)
        if value_in < 999.5:
            return f"{value_in:.{2 if value_in < 9.995 else 1 if value_in < 99.95 else 0}f}{unit}"
    return f"{value:.1e}"


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in " ".join(text.splitlines()))
