"""Receptive fields, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.report.facts.subject import subject_of
from analysis.report.reading import Study
from analysis.tables import schemas


@dataclass(frozen=True)
class ReceptiveField:
    """Side of the receptive field at each stage's end, with and without the masks."""

    subject: str
    table: Mapping[str, Mapping[str, Mapping[str, int]]]  # network -> stage -> branch -> side in px

    @property
    def last(self) -> Mapping[str, int]:
        """The side at the end of the subject's last stage, by branch."""
        return list(self.table[self.subject].values())[-1]

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for rows in self.table.values() for stage in rows))


def receptive_field(study: Study) -> ReceptiveField:
    """The receptive fields of the subject. Raises: MissingError."""
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in study.rows(schemas.RECEPTIVE_FIELD):
        table.setdefault(row["network"], {}).setdefault(row["stage"], {})[row["branch"]] = row["value"]
    return ReceptiveField(subject_of(table, study, schemas.RECEPTIVE_FIELD), table)
