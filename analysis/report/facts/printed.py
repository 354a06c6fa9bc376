"""The tables of the paper, cell by cell, with the verdict of each: read from the ledger's places and quotes."""

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
    """What a cell prints, and the claim about it: a row of the ledger."""

    words: str
    claim: Mapping[str, str]


@dataclass(frozen=True)
class Printed:
    """A table of the paper. `cells`: row -> column -> what stands there, of a cell with several lines one each.

    `data`: what its results were measured on.
    """

    name: str
    data: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[str, Mapping[str, tuple[Cell, ...]]]

    @property
    def verdicts(self) -> list[str]:
        return [cell.claim["verdict"] for row in self.cells.values() for cells in row.values() for cell in cells]


def printed_tables(claims: Sequence[Mapping[str, str]]) -> tuple[Printed, ...]:
    """The tables of the paper in their order; those of which the ledger holds no cell are left out.

    `claims`: rows of the ledger with their verdicts. A claim with no quote of the form `31.9 (row R, column C)` is not
    about one cell, and stands in the ledger alone. A number that several tables print has a quote for each of them.
    """
    found: dict[str, list[tuple[str, str, Cell]]] = {}
    for claim in claims:
        for place, quote in places_and_quotes(claim) if claim["source"] == PAPER else ():
            if TABLE.fullmatch(place) and (met := CELL.fullmatch(quote)):
                found.setdefault(place, []).append((met["row"], met["column"], Cell(met["words"], claim)))
    return tuple(_table(name, cells) for name, cells in sorted(found.items(), key=lambda table: _number(table[0])))


def places_and_quotes(claim: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each place of a claim that has a quote of its own, with it: `31.9 (row R, column C); 31.9 (row S, column D)`."""
    places, quotes = claim["place"].split("; "), re.split(r"(?<=\)); (?=\S+ \(row )", claim["quote"])
    return list(zip(places, quotes, strict=False))


def _number(table: str) -> int:
    return int(table.split()[1])


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
