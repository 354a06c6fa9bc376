"""The study's ledger as claims, and its sources."""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from resattn.claims import measured
from resattn.claims.claims import Claim, Measure, Subject, UnmeasuredError, bib_keys, load

LEDGER = Path(__file__).with_name("literature.csv")
REFERENCES = Path(__file__).with_name("references.bib")
# What audits of public libraries gave, by version: these libraries need not be installed to judge the ledger.
WITNESSES = Path(__file__).with_name("witnesses.csv")
# Rows that the ledger once held, each with the row or the test that has taken its place, and the reason.
REMOVED = Path(__file__).with_name("removed.csv")


def ledger() -> tuple[Claim, ...]:
    """The claims of the study, in the order of the file. Raises: ClaimError naming file, line and column."""
    return load(LEDGER, REFERENCES)


def sources() -> frozenset[str]:
    """The keys of the study's bibliography."""
    return bib_keys(REFERENCES)


def measure(subject: Subject, quantity: str, count: Measure = measured.measure) -> int | float | Fraction | None:
    """The counted number, or that of `witnesses.csv` if a library is not installed.

    `count`: counts the numbers of networks. Raises: as `resattn.claims.measured.measure`.
    """
    try:
        return count(subject, quantity)
    except UnmeasuredError:
        if (kept := _witnesses().get((str(subject), quantity))) is None:
            raise
        return kept


@functools.cache
def _witnesses() -> dict[tuple[str, str], int]:
    with WITNESSES.open(encoding="utf-8", newline="") as file:
        return {(row["subject"], row["quantity"]): int(row["value"]) for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Source:
    """A source for a reader: its text, and its web address if it has one."""

    key: str
    text: str
    url: str


def bibliography() -> dict[str, Source]:
    """The sources of the study by key, in the order of the file."""
    entries = re.findall(r"^@\w+\{([^,\s]+),\n(.*?)^\}", REFERENCES.read_text(encoding="utf-8"), re.M | re.S)
    return {key: _source(key, body) for key, body in entries}


ADDRESSES = {"url": "{}", "doi": "https://doi.org/{}", "eprint": "https://arxiv.org/abs/{}"}


def _source(key: str, body: str) -> Source:
    fields = {name: _plain(value) for name, value in re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", body, re.M)}
    authors = fields.get("author", "").split(" and ")
    parts = [
        authors[0].partition(",")[0] + (" et al." if len(authors) > 1 else ""), fields["title"],
        fields.get("booktitle", fields.get("journal", fields.get("howpublished", ""))),
        fields.get("year", fields.get("date", "")), fields.get("note", ""),
    ]  # fmt: skip
    url = next((form.format(fields[name]) for name, form in ADDRESSES.items() if name in fields), "")
    return Source(key, ". ".join(part.rstrip(".") for part in parts if part) + ".", url)


def _plain(text: str) -> str:
    return (
        re.sub(r"\\['\"](\w)", r"\1", text.replace("{\\'e}", "é").replace("\\_", "_")).replace("{", "").replace("}", "")
    )
