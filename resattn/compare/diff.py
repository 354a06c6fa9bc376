"""What changed between two audits. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Number = int | float | None


class AuditFileError(ValueError):
    """A file that holds no audits; the message says what was found."""


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity of one target in both audits; None where it is unknown or absent."""

    target: str
    quantity: str
    before: Number
    after: Number

    @property
    def difference(self) -> Number:
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference}


def read_audits(path: Path) -> dict[str, Mapping[str, Number]]:
    """The quantities of each target in a file that `resattn audit --json` wrote.

    Raises: AuditFileError.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise AuditFileError(f"{path} is no JSON: {error}") from None
    if not isinstance(records, list) or not all(isinstance(r, dict) and "quantities" in r for r in records):
        raise AuditFileError(f"{path} holds no audits; `resattn audit TARGET --json` writes them")
    return {str(r["target"]): r["quantities"] for r in records}


def diff(before: Mapping[str, Mapping[str, Number]], after: Mapping[str, Mapping[str, Number]]) -> list[Change]:
    """Every quantity that differs, by target. One audit on each side is compared whatever the targets' names."""
    if len(before) == len(after) == 1:
        (a,), (b,) = before, after
        pairs = [(a if a == b else f"{a} -> {b}", before[a], after[b])]
    else:
        pairs = [(t, before.get(t, {}), after.get(t, {})) for t in dict.fromkeys([*before, *after])]
    return [
        Change(target, quantity, old.get(quantity), new.get(quantity))
        for target, old, new in pairs
        for quantity in dict.fromkeys([*old, *new])
        if old.get(quantity) != new.get(quantity)
    ]
