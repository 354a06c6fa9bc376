import csv
import re
from dataclasses import replace
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.claims.ledger import REFERENCES, REMOVED, WITNESSES, bibliography, ledger, sources
from resattn.claims import measured
from resattn.claims.claims import (
    COLUMNS,
    Claim,
    ClaimError,
    Subject,
    UnmeasuredError,
    load,
    parse_printed,
    parse_subject,
    parse_tolerance,
)
from resattn.claims.vocabulary import UNITS

ROOT = Path(__file__).parents[2]
BASE = Claim(
    **dict.fromkeys(COLUMNS, ""),
    subjects=(),
    printed=parse_printed("0"),
    allowed=parse_tolerance("exact"),
    formulas={},
)


def claim(value, unit="", tolerance="printed", base=""):
    return replace(BASE, unit=unit, base=base, printed=parse_printed(value), allowed=parse_tolerance(tolerance))


# ------------------------------------------------------------------------------------------------ tolerances

printed_numbers = st.decimals(-(10**6), 10**6, allow_nan=False, allow_infinity=False, places=None).map(
    lambda d: d.quantize(Decimal(1).scaleb(max(d.as_tuple().exponent, -4)))
)


@given(printed_numbers, st.integers(-30, 30))
def test_a_number_within_the_printed_digits_is_one_that_rounds_to_them(number, offset):
    text = f"{number:f}"
    step = Decimal(text).as_tuple().exponent
    # Offsets in tenths of the last digit: those of half a digit meet both ends of the interval exactly.
    measured = Decimal(text) + Decimal(offset).scaleb(step - 1)
    rounded = {measured.quantize(Decimal(1).scaleb(step), rounding=r) for r in (ROUND_HALF_UP, ROUND_HALF_DOWN)}
    assert claim(text).holds(Fraction(measured)) == (Decimal(text) in rounded)


@given(st.integers(1, 10**12), st.sampled_from(["1000", "1024"]), st.sampled_from(["k", "M", "G"]))
def test_the_base_of_thousands_decides_what_a_prefix_means(count, base, unit):
    scale = Fraction(int(base)) ** {"k": 1, "M": 2, "G": 3}[unit]
    row = claim("7.5", unit, "exact", base)
    assert row.number == Fraction(15, 2) * scale
    assert row.holds(Fraction(15, 2) * scale)
    assert not row.holds(Fraction(15, 2) * scale + Fraction(1, count))


def test_half_the_last_printed_digit():
    flops = claim("6.3", "G", base="1000")
    assert flops.holds(Fraction(6_270_836_736))
    assert not claim("6.2", "G", base="1000").holds(Fraction(6_270_836_736))
    assert claim("6.2", "G", base="1000").holds(Fraction(6_250_000_000))
    assert not claim("6.20", "G", base="1000").holds(Fraction(6_250_000_000))
    assert claim("52", "%").holds(Fraction(525, 1000))
    assert not claim("52", "%").holds(Fraction(319, 602))


def test_other_tolerances():
    assert claim("80", tolerance="exact").holds(Fraction(80))
    assert not claim("80", tolerance="exact").holds(Fraction(81))
    assert claim("-10", tolerance="relative:0.1").holds(Fraction(-11))
    assert not claim("-10", tolerance="relative:0.1").holds(Fraction(-112, 10))
    assert claim("< 152").holds(Fraction(80))
    assert not claim("< 152").holds(Fraction(152))
    assert claim("> 0").holds(Fraction(1, 1000))
    assert claim(">= 0").holds(Fraction(0))
    assert claim("\N{LESS-THAN OR EQUAL TO} 1").holds(Fraction(1))
    assert not claim("<= 1").holds(Fraction(1001, 1000))
    assert not claim(">0").holds(Fraction(0))


@pytest.mark.parametrize(
    ("text", "number", "step"),
    [
        ("31.9", Fraction(319, 10), Fraction(1, 10)),
        ("31,810,728", Fraction(31810728), Fraction(1)),
        ("\N{MINUS SIGN}0.40", Fraction(-4, 10), Fraction(1, 100)),
        ("1e-4", Fraction(1, 10000), Fraction(1, 10000)),
        ("< 0", Fraction(0), Fraction(1)),
    ],
)
def test_printed_numbers(text, number, step):
    found = parse_printed(text)
    assert (found.number, found.step) == (number, step)


words = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
settings_ = st.lists(st.tuples(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), words), max_size=3).map(tuple)


@given(words, settings_, st.just("") | words.map(lambda w: f"stage1.{w.replace('-', '_')}"))
def test_a_subject_survives_text(network, settings, part):
    subject = Subject(network, settings, part)
    assert parse_subject(str(subject)) == subject


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"id": "t1"}, "id", "'t1' is no id (words joined by dots)"),
        ({"source": "wang2071"}, "source", "unknown 'wang2071' (nearest: wang2017)"),
        ({"quote": ""}, "quote", "empty"),
        ({"subject": "attention65"}, "subject", "unknown network 'attention65'"),
        ({"subject": "attention56 stride"}, "subject", "'attention56 stride' is no subject"),
        ({"quantity": "parms"}, "quantity", "unknown 'parms' (nearest: params"),
        ({"definition": "learnible"}, "definition", "unknown 'learnible' (nearest: learnable"),
        ({"value": "about 32"}, "value", "'about 32' is no printed number"),
        ({"value": "1,23"}, "value", "'1,23' is no printed number"),
        ({"value": "nan"}, "value", "'nan' is no printed number"),
        ({"value": "1e999"}, "value", "'1e999' is out of range"),
        ({"unit": "Mio"}, "unit", "unknown 'Mio'"),
        ({"base": "1042"}, "base", "unknown '1042' (nearest: 1024"),
        ({"base": ""}, "base", "unknown ''"),
        ({"unit": "", "base": "1000"}, "base", "unknown '1000' (nearest: '')"),
        ({"mac_or_flop": "mac"}, "mac_or_flop", "unknown 'mac' (nearest: '')"),
        ({"quantity": "cost", "definition": "multiply_adds", "mac_or_flop": "flop"}, "mac_or_flop", "unknown 'flop'"),
        ({"tolerance": "roughly"}, "tolerance", "unknown tolerance 'roughly' (one of: exact, printed, relative:SHARE"),
        ({"tolerance": "relative"}, "tolerance", "unknown tolerance 'relative'"),
        ({"tolerance": "exact:1"}, "tolerance", "unknown tolerance 'exact:1'"),
        ({"tolerance": "relative:lots"}, "tolerance", "the share of tolerance 'relative:lots' is no number"),
        ({"tolerance": "relative:1.5"}, "tolerance", "is not between 0 and 1"),
        ({"tolerance": "statistical"}, "tolerance", "statistical is for training results, and for them alone"),
        ({"quantity": "cifar10_error", "definition": "final_epoch"}, "tolerance", "and for them alone"),
        ({"quantity": "= {a.1} / 2", "definition": "arithmetic"}, "quantity", "'a.1' refers to itself"),
        ({"quantity": "= {a.0} / 2", "definition": "arithmetic"}, "quantity", "unknown 'a.0' (nearest: a.1)"),
        ({"quantity": "= {param}", "definition": "counted"}, "quantity", "unknown 'param' (nearest: params"),
        ({"quantity": "= {2:params}", "definition": "counted"}, "quantity", "{2:params} asks for subject 2 of 1"),
        ({"quantity": "= {resnet125:params}", "definition": "counted"}, "quantity", "unknown network 'resnet125'"),
        ({"quantity": "= 1 +", "definition": "counted"}, "quantity", "is no expression"),
        ({"quantity": "= 1", "definition": "learnable"}, "definition", "unknown 'learnable' (nearest: arithmetic"),
        ({"subject": ""}, "quantity", "{params} asks for subject 1 of 0"),
        ({"cites": "a.0"}, "cites", "unknown 'a.0' (nearest: a.good)"),
        ({"cites": "a.1"}, "cites", "unknown 'a.1' (nearest: a.good)"),  # itself
        ({"superseded_by": "b"}, "superseded_by", "unknown 'b'"),
    ],
)
def test_a_bad_row_names_file_line_and_column(ledger, row, column, message):
    with pytest.raises(ClaimError) as raised:
        ledger({"id": "a.good"}, {"unit": "M", **row})
    assert str(raised.value).startswith(f"ledger.csv, line 3, column {column}: ")
    assert message in str(raised.value)


def test_all_bad_rows_are_named_at_once(ledger):
    bad = [
        {"id": "a.2", "subject": "attention65"}, {"id": "a.1"}, {"id": "a.3", "value": "about 32", "unit": "Mio"},
        {"id": "a.4", "quote": ""}, {"id": "a.5", "subject": "attention65"}, {"id": "a.6", "note": "two\nlines"},
        {"id": "a.7", "tolerance": "roughly"},
    ]  # fmt: skip
    with pytest.raises(ClaimError) as raised:
        ledger({}, *bad)
    assert [line.partition(": ")[0].removeprefix("ledger.csv, ") for line in str(raised.value).splitlines()] == [
        "line 3, column subject", "line 4, column id", "line 5, column value", "line 5, column unit",
        "line 6, column quote", "line 7, column subject",
        "line 10, column tolerance",  # row a.6 has two lines
    ]  # fmt: skip


def test_two_rows_with_one_id(ledger):
    with pytest.raises(ClaimError, match=r"ledger.csv, line 4, column id: 'a.1' is already used on line 2"):
        ledger({}, {"id": "a.2"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"id,source\n", "ledger.csv, line 1: the table lacks 'place', 'quote', 'quantity'"),
        (b"", "ledger.csv, line 1: the table lacks 'id', 'source'"),
        (",".join([*COLUMNS, "colour"]).encode(), "ledger.csv, line 1: the table does not know 'colour' (found: id"),
        (",".join([*COLUMNS, "id"]).encode(), "ledger.csv, line 1: the table has twice 'id'"),
        (",".join(COLUMNS).encode() + b"\na,b\n", f"ledger.csv, line 2: 2 cells, expected {len(COLUMNS)}"),
        (",".join(COLUMNS).encode() + b'\n"a"b,c\n', "ledger.csv, line 2: "),
        (b"\xff\xfe", "ledger.csv: not UTF-8 text at byte 0"),
    ],
)
def test_a_file_that_is_no_ledger(tmp_path, text, message):
    path = tmp_path / "ledger.csv"
    path.write_bytes(text)
    with pytest.raises(ClaimError) as raised:
        load(path, REFERENCES)
    assert message in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ClaimError, match=r"absent.csv: No such file"):
        load(tmp_path / "absent.csv", REFERENCES)


def test_the_catalog_checks_a_subject(tmp_path, ledger):
    ledger({})
    path = tmp_path / "ledger.csv"
    path.write_text(path.read_text().replace("attention56", "attention65"))
    with pytest.raises(ClaimError, match=r"line 2, column subject: .*attention65.*attention56"):
        load(path, tmp_path / "references.bib")
    path.write_text(path.read_text().replace("attention65", "attention56 wdith=8"))
    with pytest.raises(ClaimError, match=r"line 2, column subject: unknown field 'wdith' .*width"):
        load(path, tmp_path / "references.bib")


# ------------------------------------------------------------------------------------------------ the ledger itself


@pytest.fixture(scope="module")
def literature():
    return ledger()


def test_the_ledger_is_complete_and_sourced(literature):
    assert {c.source for c in literature} <= sources()
    for section in ("article.1.", "article.2.", "article.3.", "article.4.", "article.5.", "article.6.", "article.7.",
                    "article.8.", "abstract.", "t1.", "t2.", "t3.", "f4.", "t4.", "t5.", "t6.", "t7.", "dir.", "s31.",
                    "sknet.", "senet.", "facexzoo."):  # fmt: skip
        assert any(c.id.startswith(section) for c in literature), section


def test_a_stranger_can_open_every_source(literature):
    known = bibliography()
    for key in {c.source for c in literature}:
        # The note that this suite starts from has no address: its title, site and date find it.
        assert known[key].url.startswith("https://") or key == "article2021", key
    assert "2021-10-15" in known["article2021"].text


def test_every_unit_of_the_ledger_is_known(literature):
    assert {c.unit for c in literature} <= set(UNITS)
    assert all(len(c.quote) <= 200 for c in literature), "a quote is short"


def test_a_quote_in_another_language_is_translated(literature):
    for claim in literature:
        assert bool(claim.translation) == (not claim.quote.isascii() and claim.source == "article2021"), claim.id


def test_two_tables_that_print_alike_are_one_row(literature):
    seen = {}
    for claim in literature:
        if claim.quantity.startswith("=") or claim.definition == "stated":
            continue
        key = (claim.source, claim.subject, claim.quantity, claim.definition, claim.value, claim.note)
        if claim.source != "article2021":  # which says one thing of all modules
            assert seen.setdefault(key, claim.id) == claim.id


def test_every_removed_row_is_accounted_for(literature):
    with REMOVED.open(encoding="utf-8", newline="") as file:
        removed = list(csv.DictReader(file))
    ids = {claim.id for claim in literature}
    assert len({row["id"] for row in removed}) == len(removed) >= 300
    for row in removed:
        assert row["id"] not in ids
        assert row["reason"]
        for place in filter(None, row["into"].split(", ")):
            assert place in ids or (ROOT / place).exists() or any(r["id"] == place for r in removed), row
    page = (ROOT / "docs" / "removed-claims.md").read_text(encoding="utf-8")
    assert f"{len(removed)} rows have left" in page
    for reason in {row["reason"] for row in removed}:
        counts = [int(n) for n in re.findall(rf"^\| (\d+) \| {re.escape(reason)} \|", page, re.MULTILINE)]
        assert sum(counts) == sum(row["reason"] == reason for row in removed), reason


def test_the_counts_of_public_libraries_are_those_that_are_kept():
    """Measured again where a library is installed; the number of its version."""
    with WITNESSES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["quantity"], int(r["value"])) for r in rows if r["library"] == "pytorchcv"} == {
        ("params", 31_810_728), ("macs", 6_270_836_736), ("trunk_depth", 56), ("longest_path", 80),
        ("receptive_field_trunk_px", 427), ("receptive_field_px", 1123),
    }  # fmt: skip
    # The release is its twin but for the pooling's padding, which its field shows, and the added skips, which no
    # number but a field could show.
    port = parse_subject("port:imgclsmob:attention56")
    for row in rows:
        if row["library"] == "pytorchcv":
            assert measured.measure(port, row["quantity"]) == int(row["value"])
        try:
            ours = measured.measure(parse_subject(row["subject"]), row["quantity"])
        except (UnmeasuredError, ClaimError):
            continue  # not installed
        assert ours == int(row["value"]), row
