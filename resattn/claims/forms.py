"""Verdicts as JSON, data frame, text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Any

from resattn.claims.claims import COLUMNS
from resattn.claims.verdicts import MEANING, Finding, Verdict, definition_of, measured_text, printed_text

if TYPE_CHECKING:
    from pandas import DataFrame


def to_json(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Every field of every row, with what was measured and how. `measured` is in the base unit, without M or G."""
    return [_record(verdict) for verdict in verdicts]


def _record(verdict: Verdict) -> dict[str, Any]:
    claim, decisive = verdict.claim, verdict.decisive
    return {
        **{column: getattr(claim, column) for column in COLUMNS},
        "verdict": str(verdict.finding),
        "off_pct": verdict.off_pct,
        "reason": verdict.reason or None,
        "printed": _number(claim.number),
        "measured": _number(decisive.measured),
        "measured_text": "" if decisive.measured is None else measured_text(claim, decisive.measured),
        "slack": _number(claim.allowed.slack(claim.printed) * claim.scale),
        "definition_used": decisive.definition if decisive.holds else None,
        "definition_text": definition_of(claim, decisive.definition).text,
        "reading": decisive.reading if decisive.measured is not None else None,
        "why": verdict.why,
        "trials": [
            {"reading": t.reading, "definition": t.definition, "measured": _number(t.measured), "holds": t.holds}
            for t in verdict.trials
        ],
    }


def _number(number: Fraction | None) -> int | float | None:
    if number is None:
        return None
    return int(number) if number.denominator == 1 else float(number)


TABLE_COLUMNS = (
    "id", "source", "place", "quote", "translation", "subject", "quantity", "definition", "printed", "measured",
    "verdict", "off_pct", "reason", "definition_used", "reading", "why", "note",
)  # fmt: skip


def verdict_table(verdicts: Iterable[Verdict]) -> DataFrame:
    """One row per claim, `printed` and `measured` as text in the printed unit.

    The columns are `TABLE_COLUMNS`; `off_pct` is text such as `-2.2`.
    """
    from pandas import DataFrame

    return DataFrame(table_rows(verdicts), columns=list(TABLE_COLUMNS))


def table_rows(verdicts: Iterable[Verdict]) -> list[dict[str, str]]:
    """The cells of `TABLE_COLUMNS` as text, one row for each claim."""
    rows = []
    for verdict in verdicts:
        record = _record(verdict)
        cells = {**record, "printed": printed_text(verdict.claim), "measured": record["measured_text"]}
        cells["off_pct"] = off_text(verdict)
        rows.append({column: "" if cells[column] is None else str(cells[column]) for column in TABLE_COLUMNS})
    return rows


def off_text(verdict: Verdict) -> str:
    """The printed number minus the measured one in per cent, with sign and two digits (`-2.2`); empty if not off."""
    if verdict.off_pct is None:
        return ""
    return f"{verdict.off_pct:+.2g}" if abs(verdict.off_pct) < 100 else f"{verdict.off_pct:+,.0f}"


def verdict_text(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as text for a terminal, sorted by source and verdict, with printed and measured number."""
    return "\n".join(_lines(verdicts))


def summary(verdicts: Sequence[Verdict]) -> str:
    """The number of claims with each verdict and what the verdict means; then the sources with the most claims."""
    n = Counter(verdict.finding for verdict in verdicts)
    by_source = Counter(verdict.claim.source for verdict in verdicts)
    width = max(map(len, n))
    lines = []
    for finding in filter(n.__contains__, Finding):
        lines.append(f"{n[finding]:5}  {finding:{width}}  {MEANING[finding]}")
    named = [f"{source} {number}" for source, number in by_source.most_common(MOST_SOURCES)]
    rest = len(by_source) - len(named)
    lines += ["", f"{len(verdicts)} claims of {len(by_source)} sources: {', '.join(named)}"
              + (f" and {rest} more" if rest > 0 else "")]  # fmt: skip
    return "\n".join(lines)


MOST_SOURCES = 8  # named in a summary


def _lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    order = list(Finding)
    ranked = sorted(verdicts, key=lambda v: (v.claim.source, order.index(v.finding)))
    for source, of_source in groupby(ranked, key=lambda v: v.claim.source):
        yield source
        for finding, found in groupby(of_source, key=lambda v: v.finding):
            group = list(found)
            yield f"  {finding} ({len(group)})"
            for verdict in group:
                about = f" of {verdict.claim.subject}" if verdict.claim.subject else ""
                more = verdict.reason or (f"{off_text(verdict)} %" if off_text(verdict) else "")
                yield f"    {verdict.claim.id}: {verdict.claim.quantity}{about} is {printed_text(verdict.claim)}"
                yield f"      {more}: {verdict.why}" if more else f"      {verdict.why}"


# What a table for readers shows; a CSV file has every column.
SHOWN = ("Claim", "Source", "Network", "Quantity", "Printed", "Measured", "Verdict")


def _shown(verdict: Verdict) -> tuple[str, ...]:
    claim, (row,) = verdict.claim, table_rows([verdict])
    off = row["off_pct"] and f" by {row['off_pct']} %"
    result = f"{verdict.finding}{off}" + (f" ({verdict.reason})" if verdict.reason else "")
    quantity = claim.definition if claim.quantity.startswith("=") else claim.quantity
    return claim.id, f"{claim.source}, {claim.place}", claim.subject, quantity, row["printed"], row["measured"], result


def markdown(verdicts: Iterable[Verdict]) -> str:
    """A Markdown table."""
    lines = [SHOWN, ("---",) * len(SHOWN), *map(_shown, verdicts)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def csv_text(verdicts: Iterable[Verdict]) -> str:
    """A CSV table with the columns `TABLE_COLUMNS`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(verdicts))
    return text.getvalue().rstrip("\n")


LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", **{c: f"\\{c}" for c in "&%$#_{}"},
})  # fmt: skip


def latex(verdicts: Iterable[Verdict]) -> str:
    """A LaTeX `tabular`; it needs the package booktabs."""
    rows = [" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in (SHOWN, *map(_shown, verdicts))]
    table = [
        r"\begin{tabular}{llllrrl}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(table)


FORMS: Mapping[str, Callable[[Iterable[Verdict]], str]] = {
    "text": verdict_text, "md": markdown, "csv": csv_text, "tex": latex
}  # fmt: skip
