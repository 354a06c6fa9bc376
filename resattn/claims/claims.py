"""A claim is a row: what was printed, where, about which network, and how it was counted. Its verdict is computed.

This module does not measure: `judge` takes a function that does. Standard library only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from resattn.claims.expressions import Expression, parse
from resattn.claims.vocabulary import DEFINITIONS, FOREIGN, MEASURABLE, TRAINING_RESULTS, UNITS, Definition, Reading

T = TypeVar("T")


class ClaimError(ValueError):
    """Invalid rows. The message has one line for each, with file, line, column and the allowed values."""


class UnmeasuredError(Exception):
    """A number that cannot be measured here; the message says why."""


# ---------------------------------------------------------------------------------------------- what a row says


@dataclass(frozen=True)
class Subject:
    """The network that a claim is about, its settings (fields that differ from the default), and a part of it.

    An empty `part` is the whole network.
    As text: `attention56`, `resnet152 stride_on=1x1`, `attention56 @stage1.module1`. A model of one's own is named as
    on the command line, with its input: `my_net.py:net input=3,32,32`, `timm:resnet50 input=3,224,224`.
    """

    network: str
    settings: tuple[tuple[str, str], ...] = ()
    part: str = ""

    def __str__(self) -> str:
        words = [self.network, *(f"{field}={value}" for field, value in self.settings)]
        return " ".join(words + [f"@{self.part}"] * bool(self.part))

    def read(self, reading: Reading | None, source: str = "") -> Subject:
        """The subject under a reading; unchanged if that is not open for it, or if the row fixes one of its fields."""
        fixed = {field for field, _ in self.settings}
        if (
            reading is None
            or not reading.is_open(self.network, source)
            or fixed & {field for field, _ in reading.settings}
        ):
            return self
        return Subject(self.network, (*self.settings, *reading.settings), self.part)


Measure = Callable[[Subject, str], int | float | Fraction | None]
Runs = Callable[[Subject, str], Mapping[int, float]]


def parse_subject(text: str) -> Subject:
    """The subject that a text describes. Raises: ValueError if the text does not have the form of a subject."""
    if not (match := SUBJECT.fullmatch(text.strip())):
        raise ValueError(f"{text!r} is no subject (network field=value ... @part)")
    settings = (tuple(pair.split("=", 1)) for pair in match["settings"].split())
    return Subject(match["network"], tuple((field, value) for field, value in settings), match["part"] or "")


SUBJECT = re.compile(r"(?P<network>[\w:./-]+)(?P<settings>(?:\s+\w+=\S+)*)(?:\s+@(?P<part>[\w.]+))?")


@dataclass(frozen=True)
class Printed:
    """A number as printed: its relation to the true value (=, <, ...), its value, and one step of its last digit."""

    relation: str
    number: Fraction
    step: Fraction


def parse_printed(text: str) -> Printed:
    """The printed number in a text: `31.9`, `-0.4`, `31,810,728`, `< 152`, `>= 0`.

    Raises: ValueError for any other text.
    """
    match = PRINTED.fullmatch(text.strip().translate(SIGNS))
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


SIGNS = {ord("\N{MINUS SIGN}"): "-", ord("\N{LESS-THAN OR EQUAL TO}"): "<=", ord("\N{GREATER-THAN OR EQUAL TO}"): ">="}
PRINTED = re.compile(r"(?P<relation>[<>]=?)?\s*(?P<number>[+-]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?([eE][+-]?\d+)?)")
LARGEST_EXPONENT = 100


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference from print: none, half of the last digit, a fraction, or the spread of runs."""

    kind: str
    share: Fraction = Fraction(0)

    def slack(self, printed: Printed) -> Fraction:
        """Half the width of the interval of values that agree with the printed number, in the printed unit."""
        return SLACK[self.kind](self, printed)


SLACK: Mapping[str, Callable[[Tolerance, Printed], Fraction]] = {
    "exact": lambda tolerance, printed: Fraction(0),
    "printed": lambda tolerance, printed: printed.step / 2,
    "relative": lambda tolerance, printed: tolerance.share * abs(printed.number),
    "statistical": lambda tolerance, printed: printed.step / 2,
}


def parse_tolerance(text: str) -> Tolerance:
    """The tolerance in a text: `exact`, `printed`, `relative:0.05`, `statistical`.

    Raises: ValueError for another kind, or a share that is not a number between 0 and 1.
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
    """One row of the ledger: its text, and the values parsed from the text."""

    id: str
    source: str
    place: str
    quote: str
    translation: str
    subject: str
    quantity: str
    definition: str
    value: str
    unit: str
    base: str
    mac_or_flop: str
    tolerance: str
    cites: str
    superseded_by: str
    note: str
    subjects: tuple[Subject, ...]
    printed: Printed
    allowed: Tolerance
    formulas: Mapping[str, Expression]  # by definition: the printed one first, then the others; none if untestable
    where: str = ""  # file and line

    @property
    def places(self) -> tuple[str, ...]:
        """Every place in the source where the number is printed."""
        return tuple(place.strip() for place in self.place.split(";"))

    @property
    def scale(self) -> Fraction:
        """The factor that converts the printed number into the unit in which it is compared."""
        unit = UNITS[self.unit]
        return Fraction(int(self.base or 1) ** unit.power) * unit.factor

    @property
    def number(self) -> Fraction:
        """The printed number without its unit: 31.9 M is 31,900,000."""
        return self.printed.number * self.scale

    def holds(self, measured: Fraction, slack: Fraction | None = None) -> bool:
        """Whether a measured number agrees with the printed one. `slack`: replaces the tolerance's, in the printed
        unit.
        """
        difference = measured / self.scale - self.printed.number
        match self.printed.relation:
            case "<":
                return difference < 0
            case ">":
                return difference > 0
            case "<=":
                return difference <= 0
            case ">=":
                return difference >= 0
        return abs(difference) <= (self.allowed.slack(self.printed) if slack is None else slack)

    def prints_as(self, other: Claim) -> bool:
        """Whether two rows print the same number, to the digits of the one with fewer digits."""
        slack = max(claim.printed.step * claim.scale for claim in (self, other)) / 2
        return self.printed.relation == other.printed.relation and abs(self.number - other.number) <= slack


# In this order in the ledger; a table of one's own may leave out those that may be empty.
COLUMNS = (
    "id", "source", "place", "quote", "translation", "subject", "quantity", "definition", "value", "unit", "base",
    "mac_or_flop", "tolerance", "cites", "superseded_by", "note",
)  # fmt: skip
MAY_BE_EMPTY = {"translation", "subject", "unit", "base", "mac_or_flop", "cites", "superseded_by", "note"}


# ---------------------------------------------------------------------------------------------- reading the ledger


def check_subject(subject: Subject) -> None:
    """Checks that a subject is known: by the catalog, the classic networks or the foreign networks, or as a model with
    input.

    Raises: ValueError (from the catalog) with the nearest names.
    """
    from resattn.networks.catalog import UnknownNetworkError, is_name, named
    from resattn.networks.spec import override

    if not is_name(subject.network):
        if [field for field, _ in subject.settings] != [INPUT]:
            raise ValueError(
                f"{subject.network} needs its input and nothing else ({subject.network} {INPUT}=3,224,224)"
            )
        where = subject.network.rpartition(":")[0]
        if where.endswith(".py") and not Path(where).is_file():
            raise ValueError(f"no file {where}")
        return
    try:
        override(named(subject.network), dict(subject.settings))
    except UnknownNetworkError:
        if subject.network not in FOREIGN and not is_classic(subject.network):
            raise


INPUT = "input"


def is_classic(network: str) -> bool:
    """Whether a name is the name of a classic network, such as vgg16."""
    from resattn.networks.classic import ZOO

    return network in ZOO


def load(
    path: Path, references: Path | None = None, *, check_subject: Callable[[Subject], None] = check_subject
) -> tuple[Claim, ...]:
    """The claims in a CSV file, in file order. The format is that of `COLUMNS` or of one of `ADAPTERS`.

    `references`: a BibTeX file; claims may cite its keys only. Without it every source is accepted. `check_subject`:
    raises ValueError for an unknown subject.
    Raises: ClaimError with file, line and column of every invalid row.
    """
    return _Loader(path, None if references is None else bib_keys(references), check_subject).claims()


def bib_keys(path: Path) -> frozenset[str]:
    """The keys of the entries of a BibTeX file."""
    return frozenset(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", path.read_text(encoding="utf-8"), re.MULTILINE))


Row = dict[str, str]


@dataclass
class _Loader:
    path: Path
    sources: frozenset[str] | None
    check_subject: Callable[[Subject], None]
    problems: list[tuple[int, str]] = field(default_factory=list)
    checked: dict[Subject, str] = field(default_factory=dict)  # and what is wrong with it

    def claims(self) -> tuple[Claim, ...]:
        rows = self._rows()
        lines: dict[str, int] = {}
        for line, row in rows:
            if row["id"] in lines:
                self._bad(line, "id", f"{row['id']!r} is already used on line {lines[row['id']]}")
            lines.setdefault(row["id"], line)
        found = [self._claim(line, row, lines) for line, row in rows]
        if self.problems:
            raise ClaimError("\n".join(text for _, text in sorted(self.problems, key=lambda problem: problem[0])))
        return tuple(claim for claim in found if claim is not None)

    def _rows(self) -> list[tuple[int, Row]]:
        """Each row with its first line; those that are no rows of the table become problems."""
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ClaimError(f"{self.path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ClaimError(f"{self.path.name}: not UTF-8 text at byte {error.start}") from None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows: list[tuple[int, Row]] = []
        line = 1
        try:
            header = [name.strip() for name in next(reader, [])]
            adapter = ADAPTERS.get(tuple(header))
            if adapter is None:
                self._check_header(header)
            line = reader.line_num + 1
            for cells in reader:
                here, line = line, reader.line_num + 1
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    self._bad(here, "", f"{len(cells)} cells, expected {len(header)}")
                    continue
                cells = [cell.strip() for cell in cells]
                row = dict(zip(header, cells, strict=True))
                if adapter is not None:
                    rows += [(here, {**dict.fromkeys(COLUMNS, ""), **made}) for made in adapter(row)]
                    continue
                row = {**dict.fromkeys(COLUMNS, ""), **row}
                if empty := [c for c in COLUMNS if not row[c] and c not in MAY_BE_EMPTY]:
                    for column in empty:
                        self._bad(here, column, "empty")
                    continue
                rows.append((here, row))
        except csv.Error as error:
            self._bad(line, "", str(error))
        return rows

    def _check_header(self, header: Sequence[str]) -> None:
        missing = [c for c in COLUMNS if c not in header and c not in MAY_BE_EMPTY]
        unknown = [c for c in header if c not in COLUMNS]
        twice = sorted({c for c in header if header.count(c) > 1})
        for words, columns in (("lacks", missing), ("does not know", unknown), ("has twice", twice)):
            if columns:
                raise ClaimError(
                    f"{self.path.name}, line 1: the table {words} {', '.join(map(repr, columns))} "
                    f"(found: {', '.join(header) or 'nothing'}; columns: {', '.join(COLUMNS)}; "
                    f"may be left out: {', '.join(sorted(MAY_BE_EMPTY))})"
                )

    def _claim(self, line: int, row: Row, ids: Mapping[str, int]) -> Claim | None:
        """The claim of a row; None where it has problems, each of which is kept."""
        before = len(self.problems)

        def parsed(column: str, parser: Callable[[str], T]) -> T | None:
            try:
                return parser(row[column])
            except ValueError as error:
                self._bad(line, column, str(error))
                return None

        def known(choices: Iterable[str]) -> Callable[[str], str]:
            return lambda text: _one_of(text, choices)

        parsed("id", _row_id)
        if self.sources is not None:
            parsed("source", known(self.sources))
        subjects = parsed(
            "subject", lambda text: tuple(self._subject(part) for part in text.split("|") if part.strip())
        )
        printed, allowed = parsed("value", parse_printed), parsed("tolerance", parse_tolerance)
        parsed("unit", known(UNITS))
        for column in ("cites", "superseded_by"):
            if row[column]:
                parsed(column, known([id for id in ids if id != row["id"]]))
        quantity = "=" if row["quantity"].startswith("=") else row["quantity"]
        ways = {d.id: d for d in DEFINITIONS if d.quantity == quantity}
        if not ways:
            parsed("quantity", lambda _: _one_of(quantity, {d.quantity for d in DEFINITIONS}))
        elif parsed("definition", known(ways)) is not None:
            way = ways[row["definition"]]
            if row["unit"] in UNITS:
                parsed("base", known(("1000", "1024") if UNITS[row["unit"]].power else ("",)))
            parsed("mac_or_flop", known(("", "mac", "flop") if quantity == "=" else (way.counts,)))
            formulas = (
                None
                if subjects is None
                else parsed("quantity", lambda _: self._formulas(row, way, ways, subjects, ids))
            )
            if allowed is not None and formulas is not None:
                if (allowed.kind == "statistical") != _is_trained(formulas.get(way.id)):
                    wrong = f"{row['tolerance']!r}: statistical is for training results, and for them alone"
                    self._bad(line, "tolerance", wrong)
                elif len(self.problems) == before:
                    assert printed is not None
                    assert subjects is not None
                    where = f"{self.path.name}, line {line}"
                    return Claim(
                        **row, subjects=subjects, printed=printed, allowed=allowed, formulas=formulas, where=where
                    )  # fmt: skip
        return None

    def _formulas(
        self, row: Row, way: Definition, ways: Mapping[str, Definition], subjects: Sequence[Subject],
        ids: Mapping[str, int],
    ) -> dict[str, Expression]:  # fmt: skip
        if row["quantity"].startswith("="):
            texts = {way.id: row["quantity"][1:]}
        else:
            order = [way, *(d for d in ways.values() if d is not way)] if way.formula else []
            texts = {d.id: d.formula for d in order}
        formulas = {id: parse(text) for id, text in texts.items()}
        for expression in formulas.values():
            for reference in expression.references:
                self._check_reference(reference, row, ids, subjects)
        return formulas

    def _subject(self, text: str) -> Subject:
        found = parse_subject(text)
        if found not in self.checked:
            try:
                self.check_subject(found)
                self.checked[found] = ""
            except ValueError as error:
                self.checked[found] = str(error)
        if self.checked[found]:
            raise ValueError(self.checked[found])
        return found

    def _check_reference(
        self, reference: str, row: Mapping[str, str], ids: Mapping[str, int], subjects: Sequence[Subject]
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
            self._subject(named)

    def _bad(self, line: int, column: str, text: str) -> None:
        where = f"{self.path.name}, line {line}" + (f", column {column}" if column else "")
        self.problems.append((line, f"{where}: {text}"))


# ---------------------------------------------------------------------------------------------- public tables


def _timm_rows(row: Row) -> Iterator[Row]:
    """Two claims for each model of timm's table of benchmarks, whose columns have no unit in their values."""
    subject = f"timm:{row['model']} {INPUT}=3,{row['img_size']},{row['img_size']}"
    shared = {
        "source": "timm", "subject": subject, "base": "1000", "tolerance": "printed",
        "note": "counted there by DeepSpeed or fvcore, whichever was installed",
    }  # fmt: skip
    for column, quantity, definition, unit, counted in (
        ("params_m", "params", "learnable", "M", ""), ("gmacs", "cost", "multiply_adds", "G", "mac"),
    ):  # fmt: skip
        yield {
            **shared, "id": f"timm.{row['model'].replace('.', '-')}.{row['img_size']}.{quantity}",
            "place": f"row {row['model']}, {row['img_size']} px", "quote": row[column], "quantity": quantity,
            "definition": definition, "value": row[column], "unit": unit, "mac_or_flop": counted,
        }  # fmt: skip


# The header of a public table -> its rows as claims. A number of activations has no quantity here.
ADAPTERS: Mapping[tuple[str, ...], Callable[[Row], Iterable[Row]]] = {
    ("model", "img_size", "gmacs", "macts", "params_m"): _timm_rows
}


def is_row_id(reference: str) -> bool:
    """Whether a name in a formula is the `id` of another row. Every other name is `subject:quantity`."""
    return "." in reference and ":" not in reference


def split_reference(reference: str) -> tuple[str, str]:
    """Subject and quantity of a name in a formula. The subject may be empty, or the position of one in the row."""
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
