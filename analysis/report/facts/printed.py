"""The tables of the paper, cell by cell, with the verdict of each, from the places and quotes in the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAPER = "wang2017"
# How the quote of a cell ends; the words before it are what the cell prints.
CELL = re.compile(r"(?P<words>.+) \(row (?P<row>.+), column (?P<column>.+)\)", re.DOTALL)
TABLE = re.compile(r"Table \d+")
DATA = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}  # how a result's quantity begins


@dataclass(frozen=True)
class Cell:
    """The printed text of a cell, and the claim about it, a row of the ledger."""

    words: str
    claim: Mapping[str, str]


@dataclass(frozen=True)
class Printed:
    """A table of the paper. `cells`: row -> column -> the lines of the cell. `data`: the dataset of its results."""

    name: str
    data: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[str, Mapping[str, tuple[Cell, ...]]]

    @property
    def verdicts(self) -> list[str]:
        return [cell.claim["verdict"] for row in self.cells.values() for cells in row.values() for cell in cells]


def printed_tables(claims: Sequence[Mapping[str, str]]) -> tuple[Printed, ...]:
    """The tables of the paper in order; tables without a cell in the ledger are left out.

    `claims`: rows of the ledger with verdicts. A claim is about one cell if its quote has the form `31.9 (row R, column
    C)`. A number printed in several tables has a quote for each.
    """
    found: dict[str, list[tuple[str, str, Cell]]] = {}
    for claim in claims:
        for place, quote in places_and_quotes(claim) if claim["source"] == PAPER else ():
            if TABLE.fullmatch(place) and (met := CELL.fullmatch(quote)):
                found.setdefault(place, []).append((met["row"], met["column"], Cell(met["words"], claim)))
    return tuple(_table(name, cells) for name, cells in sorted(found.items(), key=lambda t: int(t[0].split()[1])))


def places_and_quotes(claim: Mapping[str, str]) -> list[tuple[str, str]]:
    """The places of a claim that have a quote, with the quote: `31.9 (row R, column C); 31.9 (row S, column D)`."""
    places, quotes = claim["place"].split("; "), re.split(r"(?<=\)); (?=\S+ \(row )", claim["quote"])
    return list(zip(places, quotes, strict=False))


def _table(name: str, found: Sequence[tuple[str, str, Cell]]) -> Printed:
    rows = {row for row, _, _ in found}
    cells: dict[str, dict[str, list[Cell]]] = {}
    for row, column, cell in found:
        # Rows of one name are told apart by the size of their map, which is the cell of the column with the sizes.
        sized = f"{row}, {cell.words}"
        cells.setdefault(sized if sized in rows else row, {}).setdefault(column, []).append(cell)
    columns = dict.fromkeys(column for _, column, _ in found)
    fixed = {row: {column: tuple(parts) for column, parts in own.items()} for row, own in cells.items()}
    quantities = [cell.claim["quantity"] for _, _, cell in found]
    data = [DATA[known] for q in quantities if (known := next((d for d in DATA if q.startswith(f"{d}_")), ""))]
    return Printed(name, tuple(dict.fromkeys(data)), tuple(columns), fixed)
