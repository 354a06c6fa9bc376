"""Depth, as the report shows it: every notion of depth, and where the longest path gains on the trunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.report.facts.subject import PEER, subject_of
from analysis.report.reading import Study
from analysis.tables import schemas
from analysis.tables.formats import display_name, listed, part_name, percent
from analysis.tables.quantities import DEPTHS, quantity_label


@dataclass(frozen=True)
class Module:
    """An attention module: weighted layers on its longest path, and on the longest path through its trunk."""

    name: str
    longest: int
    trunk: int
    mask: int  # of `longest`, those in the mask branch; 0 if the trunk is the longer way

    @property
    def extra(self) -> int:
        return self.longest - self.trunk


@dataclass(frozen=True)
class Depth:
    """The notions of depth of every network."""

    subject: str
    table: Mapping[str, Mapping[str, int | None]]  # network -> notion -> layers

    def of(self, notion: str) -> int | None:
        return self.table[self.subject].get(notion)

    @property
    def notions(self) -> list[str]:
        """The notions that any network has, without the trunk's if it equals the number in every name."""
        shown = [notion for notion in DEPTHS if any(row.get(notion) is not None for row in self.table.values())]
        return [notion for notion in shown if notion != "trunk_depth" or not self.names_are_trunks]

    @property
    def names_are_trunks(self) -> bool:
        """Whether the number in the name is the trunk depth, in every network."""
        return all(row.get("claimed_depth") == row.get("trunk_depth") for row in self.table.values())

    @property
    def peer_words(self) -> str:
        """The subject's depth as a share of its peer's, by notion; empty if the peer was not counted."""
        peer = self.table.get(PEER, {})
        shares = [
            f"{percent(ours / theirs)} of the {quantity_label(notion).lower()}"
            for notion in DEPTHS[1:]
            if (ours := self.of(notion)) and (theirs := peer.get(notion))
        ]
        if not shares:
            return ""
        return f"{display_name(self.subject)} has {listed(shares)} of {display_name(PEER)}."


def depth(study: Study) -> Depth:
    """Every notion of depth of every network. Raises: MissingError."""
    table: dict[str, dict[str, int | None]] = {}
    for row in study.rows(schemas.DEPTH):
        table.setdefault(row["network"], {})[row["quantity"]] = row["value"]
    return Depth(subject_of(table, study, schemas.DEPTH), table)


@dataclass(frozen=True)
class Modules:
    """The subject's modules, and its layers outside them if modules and these sum to the longest path, else None."""

    modules: tuple[Module, ...]
    outside: int | None


def modules(study: Study) -> Modules:
    """The modules of the subject. Raises: MissingError."""
    of = depth(study)
    rows = [row for row in study.rows(schemas.MODULES) if row["network"] == of.subject]
    stages = [row["module"].partition(".")[0] for row in rows]
    alone = len(set(stages)) == len(stages)  # one module in each stage needs no number of its own
    of_subject = tuple(
        Module(part_name(stage if alone else row["module"]), row["longest_path"], row["trunk_path"], _in_mask(row))
        for stage, row in zip(stages, rows, strict=True)
    )
    trunk, longest = of.of("trunk_depth"), of.of("longest_path")
    if not of_subject or trunk is None or longest is None:
        return Modules(of_subject, None)
    outside = trunk - sum(m.trunk for m in of_subject)
    return Modules(of_subject, outside if 0 <= outside == longest - sum(m.longest for m in of_subject) else None)


def _in_mask(row: Mapping[str, Any]) -> int:
    return row["mask_path"] if row["mask_path"] > row["branch_path"] else 0
