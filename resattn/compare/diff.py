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
        try:
            return self.after - self.before
        except OverflowError:  # a number of paths that no float holds, beside a float
            return None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference}


def read_audits(path: Path) -> dict[str, Mapping[str, Number]]:
    """The quantities of each target in a file that `resattn audit --json` wrote.

    Raises: AuditFileError.
    """
    try:
        if not path.is_file():
            raise AuditFileError(f"{path} cannot be read: no such file, or not a regular one")
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditFileError(f"{path} cannot be read: {error.strerror}") from None
    except AuditFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise AuditFileError(f"{path} is no JSON: {error}") from None
    if not isinstance(records, list) or not all(map(_is_audit, records)):
        raise AuditFileError(f"{path} holds no audits; `resattn audit TARGET --json` writes them")
    audits: dict[str, Mapping[str, Number]] = {}
    for record in records:
        name, number = str(record["target"]), 1
        while name in audits:  # the same target with another input
            number += 1
            name = f"{record['target']} ({number})"
        audits[name] = record["quantities"]
    return audits


def _is_audit(record: Any) -> bool:
    quantities = record.get("quantities") if isinstance(record, dict) and "target" in record else None
    return isinstance(quantities, dict) and all(isinstance(n, int | float | None) for n in quantities.values())


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
