"""A claim is a row: what was printed, where, about which network, counted how. A verdict is computed from the row.

Nothing here knows how a number is measured: `judge` is given a function. Standard library only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from resattn.claims.expressions import Expression, parse
from resattn.claims.vocabulary import DEFINITIONS, FOREIGN, MEASURABLE, TRAINING_RESULTS, UNITS, Reading

T = TypeVar("T")


class ClaimError(ValueError):
    """An invalid row; the message names file, line and column, and the allowed values."""


# ---------------------------------------------------------------------------------------------- what a row says


@dataclass(frozen=True)
class Subject:
    """A network, the fields set apart from its default reading, and the part that is meant (all of it, if empty).

    As text: `attention56`, `resnet152 stride_on=1x1`, `attention56 @stage1.module1`.
    """

    network: str
    settings: tuple[tuple[str, str], ...] = ()
    part: str = ""

    def __str__(self) -> str:
        words = [self.network, *(f"{field}={value}" for field, value in self.settings)]
        return " ".join(words + [f"@{self.part}"] * bool(self.part))

    def read(self, reading: Reading | None) -> Subject:
        """The subject under a reading; itself, where the reading is not open or the row fixes one of its fields."""
        fixed = {field for field, _ in self.settings}
        if reading is None or not reading.is_open(self.network) or fixed & {field for field, _ in reading.settings}:
            return self
        return Subject(self.network, (*self.settings, *reading.settings), self.part)


Measure = Callable[[Subject, str], int | float | Fraction | None]
Runs = Callable[[Subject, str], Mapping[int, float]]


def parse_subject(text: str) -> Subject:
    """The subject of a text.

    Raises: ValueError where it has not that form.
    """
    if not (match := SUBJECT.fullmatch(text.strip())):
        raise ValueError(f"{text!r} is no subject (network field=value ... @part)")
    settings = (tuple(pair.split("=", 1)) for pair in match["settings"].split())
    return Subject(match["network"], tuple((field, value) for field, value in settings), match["part"] or "")


SUBJECT = re.compile(r"(?P<network>[\w:.-]+)(?P<settings>(?:\s+\w+=\S+)*)(?:\s+@(?P<part>[\w.]+))?")


@dataclass(frozen=True)
class Printed:
    """A number as printed: its relation to the truth, its value, and one step of its last digit."""

    relation: str
    number: Fraction
    step: Fraction


def parse_printed(text: str) -> Printed:
    """The printed number of a text: `31.9`, `-0.4`, `31,810,728`, `< 152`.

    Raises: ValueError where it does not parse.
    """
    match = PRINTED.fullmatch(text.strip().replace("\N{MINUS SIGN}", "-"))
    if not match:
        raise ValueError(f"{text!r} is no printed number")
    try:
        number = Decimal(match["number"].replace(",", ""))
    except InvalidOperation:
        raise ValueError(f"{text!r} is no printed number") from None
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if abs(exponent) > LARGEST_EXPONENT:
        raise ValueError(f"{text!r} is out of range")
    return Printed(match["relation"] or "=", Fraction(number), Fraction(10) ** exponent)


PRINTED = re.compile(r"(?P<relation>[<>])?\s*(?P<number>[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?([eE][+-]?\d+)?)")
LARGEST_EXPONENT = 100


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference from print: none, half of the last printed digit, a fraction, or the scatter of runs."""

    kind: str
    share: Fraction = Fraction(0)

    def slack(self, printed: Printed) -> Fraction:
        """Half the width of the interval that agrees with print, in the printed unit."""
        return SLACK[self.kind](self, printed)


SLACK: Mapping[str, Callable[[Tolerance, Printed], Fraction]] = {
    "exact": lambda tolerance, printed: Fraction(0),
    "printed": lambda tolerance, printed: printed.step / 2,
    "relative": lambda tolerance, printed: tolerance.share * abs(printed.number),
    "statistical": lambda tolerance, printed: printed.step / 2,
}


def parse_tolerance(text: str) -> Tolerance:
    """The tolerance of a text: `exact`, `printed`, `relative:0.05`, `statistical`.

    Raises: ValueError for another kind, or a share that is no number between 0 and 1.
    """
    kind, colon, share = text.partition(":")
    if kind not in SLACK or bool(colon) != (kind == "relative"):
        raise ValueError(f"unknown tolerance {text!r} (one of: exact, printed, relative:SHARE, statistical)")
    try:
        value = Fraction(share or 0)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"the share of tolerance {text!r} is no number") from None
    if not 0 <= value < 1 or (colon and not value):
        raise ValueError(f"the share of tolerance {text!r} is not between 0 and 1")
    return Tolerance(kind, value)


@dataclass(frozen=True)
class Claim:
    """One row of the ledger, as text and as what the text means."""

    id: str
    source: str
    place: str
    quote: str
    subject: str
    quantity: str
    definition: str
    value: str
    unit: str
    base: str
    mac_or_flop: str
    tolerance: str
    note: str
    subjects: tuple[Subject, ...]
    printed: Printed
    allowed: Tolerance
    formulas: Mapping[str, Expression]  # by definition: the printed one first, then the others; none if untestable

    @property
    def scale(self) -> Fraction:
        """What the printed number is multiplied by to be compared."""
        unit = UNITS[self.unit]
        return Fraction(int(self.base or 1) ** unit.power) * unit.factor

    @property
    def number(self) -> Fraction:
        """The printed number without its unit: 31.9 M is 31,900,000."""
        return self.printed.number * self.scale

    def holds(self, measured: Fraction, slack: Fraction | None = None) -> bool:
        """Does a measured number agree with print? `slack` (in the printed unit) replaces the tolerance's."""
        difference = measured / self.scale - self.printed.number
        match self.printed.relation:
            case "<":
                return difference < 0
            case ">":
                return difference > 0
        return abs(difference) <= (self.allowed.slack(self.printed) if slack is None else slack)


COLUMNS = (
    "id", "source", "place", "quote", "subject", "quantity", "definition", "value", "unit", "base", "mac_or_flop",
    "tolerance", "note",
)  # fmt: skip
MAY_BE_EMPTY = {"subject", "unit", "base", "mac_or_flop", "note"}


# ---------------------------------------------------------------------------------------------- reading the ledger


def check_subject(subject: Subject) -> None:
    """Nothing, if the catalog or the list of foreign networks knows the subject and it can be built.

    Raises: ValueError (the catalog's own) with the nearest names.
    """
    from resattn.networks.catalog import UnknownNetworkError, named
    from resattn.networks.spec import override

    try:
        override(named(subject.network), dict(subject.settings))
    except UnknownNetworkError:
        if subject.network not in FOREIGN:
            raise


def load(
    path: Path,
    references: Path | None = None,
    *,
    check_subject: Callable[[Subject], None] = check_subject,
) -> tuple[Claim, ...]:
    """The claims of a ledger, in its order.

    `references`: the BibTeX file whose keys the claims may cite; without it any source may be cited.
    `check_subject` raises a ValueError for a subject that is unknown.
    Raises: ClaimError naming file, line and column.
    """
    return tuple(_Loader(path, None if references is None else bib_keys(references), check_subject).claims())


def bib_keys(path: Path) -> frozenset[str]:
    """The keys of a BibTeX file."""
    return frozenset(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", path.read_text(encoding="utf-8"), re.MULTILINE))


@dataclass(frozen=True)
class _Loader:
    path: Path
    sources: frozenset[str] | None
    check_subject: Callable[[Subject], None]

    def claims(self) -> Iterator[Claim]:
        rows = list(self._rows())
        lines: dict[str, int] = {}
        for line, row in rows:
            if row["id"] in lines:
                raise self._error(line, "id", f"{row['id']!r} is already used on line {lines[row['id']]}")
            lines[row["id"]] = line
        checked: set[Subject] = set()
        for line, row in rows:
            yield self._claim(line, row, lines, checked)

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        try:
            text = self.path.read_bytes().decode("utf-8")
        except OSError as error:
            raise ClaimError(f"{self.path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ClaimError(f"{self.path.name}: not UTF-8 text at byte {error.start}") from None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(reader, [])
            if tuple(header) != COLUMNS:
                raise ClaimError(f"{self.path.name}, line 1: columns {header}, expected {list(COLUMNS)}")
            for cells in reader:
                if len(cells) != len(COLUMNS):
                    raise ClaimError(
                        f"{self.path.name}, line {reader.line_num}: {len(cells)} cells, expected {len(COLUMNS)}"
                    )
                row = dict(zip(COLUMNS, (cell.strip() for cell in cells), strict=True))
                for column in COLUMNS:
                    if not row[column] and column not in MAY_BE_EMPTY:
                        raise self._error(reader.line_num, column, "empty")
                yield reader.line_num, row
        except csv.Error as error:
            raise ClaimError(f"{self.path.name}, line {reader.line_num}: {error}") from None

    def _claim(self, line: int, row: dict[str, str], ids: Mapping[str, int], checked: set[Subject]) -> Claim:
        def parsed(column: str, parser: Callable[[str], T]) -> T:
            try:
                return parser(row[column])
            except ValueError as error:
                raise self._error(line, column, str(error)) from None

        def known_subject(text: str) -> Subject:
            found = parse_subject(text)
            if found not in checked:
                self.check_subject(found)
                checked.add(found)
            return found

        def known_formula(text: str) -> Expression:
            expression = parse(text)
            for reference in expression.references:
                self._check_reference(reference, row, ids, subjects, known_subject)
            return expression

        def known(choices: Iterable[str]) -> Callable[[str], str]:
            return lambda text: _one_of(text, choices)

        parsed("id", _row_id)
        if self.sources is not None:
            parsed("source", known(self.sources))
        subjects = parsed("subject", lambda text: tuple(known_subject(part) for part in text.split("|") if part))
        quantity = "=" if row["quantity"].startswith("=") else row["quantity"]
        parsed("quantity", lambda _: _one_of(quantity, sorted({d.quantity for d in DEFINITIONS})))
        ways = {d.id: d for d in DEFINITIONS if d.quantity == quantity}
        parsed("definition", known(ways))
        way = ways[row["definition"]]
        if quantity == "=":
            formulas = {way.id: parsed("quantity", lambda text: known_formula(text[1:]))}
        else:
            order = [way, *(d for d in ways.values() if d is not way)] if way.formula else []
            formulas = parsed("quantity", lambda _: {d.id: known_formula(d.formula) for d in order})
        parsed("unit", known(UNITS))
        parsed("base", known(("1000", "1024") if UNITS[row["unit"]].power else ("",)))
        parsed("mac_or_flop", known(("", "mac", "flop") if quantity == "=" else (way.counts,)))
        allowed = parsed("tolerance", parse_tolerance)
        if (allowed.kind == "statistical") != _is_trained(formulas.get(way.id)):
            raise self._error(
                line, "tolerance", f"{row['tolerance']!r}: statistical is for training results, and for them alone"
            )
        return Claim(
            **row, subjects=subjects, printed=parsed("value", parse_printed), allowed=allowed, formulas=formulas
        )

    def _check_reference(
        self,
        reference: str,
        row: Mapping[str, str],
        ids: Mapping[str, int],
        subjects: Sequence[Subject],
        known_subject: Callable[[str], Subject],
    ) -> None:
        if is_row_id(reference):
            if reference == row["id"]:
                raise ValueError(f"{reference!r} refers to itself")
            _one_of(reference, ids)
            return
        named, quantity = split_reference(reference)
        _one_of(quantity, MEASURABLE)
        if named.isdigit() or not named:
            if not 1 <= int(named or 1) <= len(subjects):
                raise ValueError(f"{{{reference}}} asks for subject {named or 1} of {len(subjects)}")
        else:
            known_subject(named)

    def _error(self, line: int, column: str, text: str) -> ClaimError:
        return ClaimError(f"{self.path.name}, line {line}, column {column}: {text}")


def is_row_id(reference: str) -> bool:
    """Whether a name in a formula is the `id` of another row. All other names are `subject:quantity`."""
    return "." in reference and ":" not in reference


def split_reference(reference: str) -> tuple[str, str]:
    """Subject and quantity of a name in a formula; the subject may be empty, or the number of one in the row."""
    named, _, quantity = reference.rpartition(":")
    return named.strip(), quantity.strip()


def _is_trained(formula: Expression | None) -> bool:
    references = formula.references if formula else ()
    return any(split_reference(r)[1] in TRAINING_RESULTS for r in references if not is_row_id(r))


def _row_id(text: str) -> str:
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+", text):
        raise ValueError(f"{text!r} is no id (words joined by dots)")
    return text


def _one_of(text: str, choices: Iterable[str]) -> str:
    choices = sorted(choices)
    if text not in choices:
        near = get_close_matches(text, choices, n=3) or choices[:8]
        would_do = ", ".join(c or repr(c) for c in near)
        raise ValueError(f"unknown {text!r} (nearest: {would_do})")
    return text
