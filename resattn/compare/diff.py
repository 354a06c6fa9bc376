"""The differences between two audits, in total and module by module. Standard library only."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Value = int | float | str | None
Record = Mapping[str, Any]  # one audit, as `resattn audit --json` writes it

# Of a row of an audit's `tree`; what a module is, first.
OF_A_MODULE = ("kind", "output", "params", "macs", "layers", "runs", "unread")


class AuditFileError(ValueError):
    """A file without audits; the message says what it contains."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value of a target or of one of its modules in both audits; None if it is unknown or absent there.

    A renamed module is a change of its `module`.
    """

    target: str
    quantity: str
    before: Value
    after: Value
    module: str = ""

    @property
    def difference(self) -> int | float | None:
        if not (isinstance(self.before, int | float) and isinstance(self.after, int | float)):
            return None
        try:
            return self.after - self.before
        except OverflowError:  # a number of paths that no float holds, beside a float
            return None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference}

    def __str__(self) -> str:
        by = "" if self.difference is None else f" ({self.difference:+,})"
        shown = [f"{v:,}" if isinstance(v, int | float) else v or "none" for v in (self.before, self.after)]
        return f"{self.module or 'total'}: {self.quantity} {shown[0]} -> {shown[1]}{by}"


def read_audits(path: Path) -> dict[str, Record]:
    """The audit of each target in a file written by `resattn audit --json`. Raises: AuditFileError."""
    try:
        if not path.is_file():
            raise AuditFileError(f"{path} cannot be read: no such file, or not a regular one")
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AuditFileError(f"{path} cannot be read: {error.strerror}") from None
    except AuditFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise AuditFileError(f"{path} is not JSON: {error}") from None
    if not isinstance(records, list) or not records or not all(map(_is_audit, records)):
        raise AuditFileError(f"{path} holds no audits; `resattn audit TARGET --json` writes them")
    audits: dict[str, Record] = {}
    for record in records:
        name, number = str(record["target"]), 1
        while name in audits:  # the same target with another input
            number += 1
            name = f"{record['target']} ({number})"
        audits[name] = record
    return audits


def _is_audit(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("target"), str)
        and isinstance(quantities := record.get("quantities"), dict)
        and all(map(_is_number, quantities.values()))
        and all(isinstance(record.get(name) or [], list) for name in ("input_shape", "more_inputs"))
        and all(isinstance(shape, list) for shape in record.get("more_inputs") or [])
        and isinstance(record.get("tree", []), list)
        and all(isinstance(row, dict) and isinstance(row.get("module"), str) for row in record.get("tree", []))
    )


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or unknown. JSON has no infinity; Python reads 1e999 as one."""
    return isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value))


def diff(before: Mapping[str, Record], after: Mapping[str, Record]) -> list[Change]:
    """Every value that differs, by target: inputs, then quantities, then modules.

    If each side has one audit, the two are compared whatever their targets' names. Modules are matched by path; the
    remaining ones by equal content, in order.
    """
    if len(before) == len(after) == 1:
        (a,), (b,) = before, after
        pairs = [(a if a == b else f"{a} -> {b}", before[a], after[b])]
    else:
        nothing: Record = {"quantities": {}}
        pairs = [(t, before.get(t, nothing), after.get(t, nothing)) for t in dict.fromkeys([*before, *after])]
    return [change for target, old, new in pairs for change in _changes(target, old, new)]


def _changes(target: str, old: Record, new: Record) -> Iterator[Change]:
    inputs = [_inputs(record) for record in (old, new)]
    if all(inputs) and inputs[0] != inputs[1]:
        yield Change(target, "input_shape", *inputs)
    a, b = old["quantities"], new["quantities"]
    for quantity in dict.fromkeys([*a, *b]):
        if a.get(quantity) != b.get(quantity):
            yield Change(target, quantity, a.get(quantity), b.get(quantity))
    if "tree" in old and "tree" in new:
        yield from _modules(target, old["tree"], new["tree"])


def _inputs(record: Record) -> str:
    shapes = [record.get("input_shape") or [], *(record.get("more_inputs") or [])]
    return " and ".join("x".join(map(str, shape)) for shape in shapes if shape)


def _modules(target: str, before: Sequence[Record], after: Sequence[Record]) -> Iterator[Change]:
    old, new = ({row["module"]: row for row in rows} for rows in (before, after))
    renamed = _renamed([r for p, r in old.items() if p not in new], [r for p, r in new.items() if p not in old])
    for path, row in old.items():
        other = new.get(renamed.get(path, path))
        if path in renamed:
            yield Change(target, "module", path, renamed[path], path)
        yield from _rows(target, path, row, other)
    for path, row in new.items():
        if path not in old and path not in renamed.values():
            yield from _rows(target, path, None, row)


def _renamed(gone: Sequence[Record], come: Sequence[Record]) -> dict[str, str]:
    """Old to new paths of modules that are equal in everything else, in order."""
    waiting: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in come:
        waiting[_signature(row)].append(row["module"])
    return {row["module"]: waiting[_signature(row)].pop(0) for row in gone if waiting[_signature(row)]}


def _signature(row: Record) -> tuple[Any, ...]:
    return tuple(str(row.get(key)) for key in OF_A_MODULE)


def _rows(target: str, path: str, old: Record | None, new: Record | None) -> Iterator[Change]:
    a, b = ({key: _value(row.get(key)) for key in OF_A_MODULE} if row else {} for row in (old, new))
    for key in OF_A_MODULE:
        # A module that is new or gone has no zeros to tell.
        if a.get(key) != b.get(key) and not (None in (old, new) and not (a.get(key) or b.get(key))):
            yield Change(target, key, a.get(key), b.get(key), path)


def _value(value: Any) -> Value:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else value
