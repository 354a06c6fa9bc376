"""The claims of the report: the verdict table, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.report.gaps import MissingError
from analysis.report.reading import Study
from analysis.tables import schemas
from analysis.tables.formats import anchor
from analysis.tables.quantities import quantity_label

NOT_TESTABLE = "not testable"
WRONG = ("off", "contradicts itself", "misquotes")  # verdicts that say that print does not hold
SIGNS = {  # verdict -> its sign and its style
    "confirmed": ("\N{CHECK MARK}", "confirmed"),
    "built so": ("\N{IDENTICAL TO}", "built"),
    "other definition": ("\N{ALMOST EQUAL TO}", "other"),
    "by reading": ("\N{CIRCLE WITH LEFT HALF BLACK}", "reading"),
    "off": ("\N{BALLOT X}", "off"),
    "contradicts itself": ("\N{NOT EQUAL TO}", "off"),
    "misquotes": ("\N{RIGHT DOUBLE QUOTATION MARK}", "off"),
    "superseded": ("\N{ANTICLOCKWISE OPEN CIRCLE ARROW}", "other"),
    NOT_TESTABLE: ("\N{EN DASH}", "none"),
}


@dataclass(frozen=True)
class Claims:
    """The verdict table, row by row, and its sources."""

    rows: tuple[Mapping[str, str], ...]
    sources: tuple[Mapping[str, str], ...] = ()

    def values(self, column: str) -> list[str]:
        return sorted({row[column] for row in self.rows})

    @property
    def n_testable(self) -> int:
        return sum(row["verdict"] != NOT_TESTABLE for row in self.rows)

    @property
    def reasons(self) -> dict[str, int]:
        """reason -> number of claims that are not testable for it."""
        given = [row["reason"] for row in self.rows if row["reason"]]
        return {reason: given.count(reason) for reason in sorted(set(given), key=lambda r: -given.count(r))}

    @property
    def networks(self) -> list[str]:
        return sorted({network for row in self.rows for network in networks_of(row["subject"])})

    @property
    def tally(self) -> dict[str, dict[str, int]]:
        """source -> verdict -> number of claims."""
        counts: dict[str, dict[str, int]] = {}
        for row in self.rows:
            of_source = counts.setdefault(row["source"], {})
            of_source[row["verdict"]] = of_source.get(row["verdict"], 0) + 1
        return counts

    @property
    def verdicts(self) -> dict[str, int]:
        """verdict -> number of claims, in the order of the vocabulary, then others."""
        of_rows = [row["verdict"] for row in self.rows]
        return {v: of_rows.count(v) for v in dict.fromkeys([*SIGNS, *sorted(of_rows)]) if v in of_rows}


def claims(study: Study) -> Claims:
    """Every claim with its own id for links, and its subject in words. Raises: MissingError."""
    rows: list[Mapping[str, str]] = []
    taken: set[str] = set()
    for row in study.rows(schemas.CLAIMS):
        place = f"claim-{anchor(row['id'])}"
        while place in taken:
            place += "-2"
        taken.add(place)
        counted = row["quantity"].startswith("=")  # a formula, whose names say what is counted
        what = [] if counted else [quantity_label(row["quantity"])]
        off = f" by {row['off_pct']} %" if row["off_pct"] else ""
        rows.append(
            {**row, "off": off, "anchor": place, "about": ", ".join([*what, row["definition"].replace("_", " ")])}
        )
    if not rows:
        raise study.no_rows(schemas.CLAIMS)
    try:
        sources = tuple(study.rows(schemas.SOURCES))
    except MissingError:  # a study of an older version
        sources = ()
    return Claims(tuple(rows), sources)


def networks_of(subject: str) -> list[str]:
    """`attention56 gate=channel | resnet152 @stem` -> attention56, resnet152."""
    return [part.split()[0] for part in subject.split("|") if part.split()]
