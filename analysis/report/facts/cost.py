"""Cost, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from analysis.report.facts.subject import PEER, subject_of
from analysis.report.reading import Study
from analysis.tables import schemas


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds by role, and their sums."""

    subject: str
    table: Mapping[str, Mapping[str, Mapping[str, int]]]  # network -> quantity -> role -> number

    def total(self, quantity: str, network: str | None = None) -> int:
        return sum(self.table[network or self.subject][quantity].values())

    def share(self, quantity: str, network: str | None = None) -> float:
        name = network or self.subject
        return self.table[name][quantity].get("mask", 0) / self.total(quantity, name)

    @cached_property
    def peer(self) -> str | None:
        return PEER if PEER in self.table and self.subject != PEER else None


def cost(study: Study) -> Cost:
    """Parameters and multiply-adds of every network by role. Raises: MissingError."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in study.rows(schemas.COST):
        table.setdefault(row["network"], {}).setdefault(row["quantity"], {})[row["role"]] = row["value"]
    complete = {
        name: rows for name, rows in table.items() if all(sum(rows.get(q, {}).values()) for q in ("params", "macs"))
    }
    return Cost(subject_of(complete, study, schemas.COST), complete)
