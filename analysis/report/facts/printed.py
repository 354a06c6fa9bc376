"""The tables of the paper, cell by cell, with the verdict of each: read from the ledger's places and quotes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAPER = "wang2017"
# How a quote of a cell ends; the words before it are what the cell prints.
CELL = re.compile(r"(?P<words>.+) \(row (?P<row>.+), column (?P<column>.+)\)", re.DOTALL)
# Cells of other tables with the number of a claim: table -> (row, column, claim). Source: wang2017, tables 2, 3, 4, 6.
REPEATED: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "Table 2": (
        ("params×10^6", "Attention-56", "t7.attention56.params"),
        ("params×10^6", "Attention-92", "t7.attention92.params"),
        ("FLOPs×10^9", "Attention-92", "t7.attention92.flops"),
    ),
    "Table 3": (("Attention-56", "ARL", "t1.f1.c10"),),
    "Table 4": (("Encoder and Decoder", "Top-1 err. (%)", "t1.f1.c10"),),
    "Table 6": (("Attention-92", "CIFAR-10", "t3.attention92.arl"),),
}
ABOUT = {
    "Table 1": "three kinds of gate, Attention-56, CIFAR-10",
    "Table 2": "the networks for ImageNet, layer by layer",
    "Table 3": "residual (ARL) and naive (NAL) merge, CIFAR-10, error in %",
    "Table 4": "two kinds of mask, CIFAR-10",
    "Table 5": "share of wrong labels, CIFAR-10",
    "Table 6": "CIFAR-10 and CIFAR-100, error in %",
    "Table 7": "ImageNet, one crop",
}


@dataclass(frozen=True)
class Cell:
    """What a cell prints, and the claim about it: a row of the ledger."""

    words: str
    claim: Mapping[str, str]


@dataclass(frozen=True)
class Printed:
    """A table of the paper. `cells`: row -> column -> what stands there, of a cell with several lines one each."""

    name: str
    about: str
    columns: tuple[str, ...]
    cells: Mapping[str, Mapping[str, tuple[Cell, ...]]]

    @property
    def verdicts(self) -> list[str]:
        return [cell.claim["verdict"] for row in self.cells.values() for cells in row.values() for cell in cells]


def printed_tables(claims: Sequence[Mapping[str, str]]) -> tuple[Printed, ...]:
    """The tables of the paper in their order; those of which the ledger holds no cell are left out.

    `claims`: rows of the ledger with their verdicts. A claim with no quote of the form `31.9 (row R, column C)` is not
    about one cell, and stands in the ledger alone.
    """
    by_id = {claim["id"]: claim for claim in claims if claim["source"] == PAPER}
    tables = []
    for name, about in ABOUT.items():
        found = [
            (met["row"], met["column"], Cell(met["words"], claim))
            for claim in by_id.values()
            if claim["place"].partition(";")[0] == name and (met := CELL.fullmatch(claim["quote"]))
        ]
        found += [
            (row, column, Cell(_words(by_id[id]), by_id[id]))
            for row, column, id in REPEATED.get(name, ())
            if id in by_id
        ]
        if found:
            tables.append(_table(name, about, found))
    return tuple(tables)


def _words(claim: Mapping[str, str]) -> str:
    met = CELL.fullmatch(claim["quote"])
    return met["words"] if met else claim["printed"]


def _table(name: str, about: str, found: Sequence[tuple[str, str, Cell]]) -> Printed:
    rows = {row for row, _, _ in found}
    cells: dict[str, dict[str, list[Cell]]] = {}
    for row, column, cell in found:
        # Rows of one name are told apart by the size of their map, which is the cell of the column with the sizes.
        sized = f"{row}, {cell.words}"
        cells.setdefault(sized if sized in rows else row, {}).setdefault(column, []).append(cell)
    columns = dict.fromkeys(column for _, column, _ in found)
    fixed = {row: {column: tuple(parts) for column, parts in own.items()} for row, own in cells.items()}
    return Printed(name, about, tuple(columns), fixed)
