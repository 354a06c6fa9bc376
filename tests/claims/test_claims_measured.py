from fractions import Fraction

import pandas as pd
import pytest
from golden_rows import BY_HAND, GOLDEN, rows

from analysis.claims.ledger import REFERENCES, ledger
from analysis.claims.ledger import measure as study_measure
from resattn.claims.claims import ClaimError, Subject, load, parse_printed, parse_subject
from resattn.claims.measured import GATE, PART, measure, runs_of_table
from resattn.claims.verdicts import Finding, judge, subjects
from resattn.claims.vocabulary import COUNTED_BESIDES, DEFINITIONS, FOREIGN, READINGS, REASONS, STATED, TRAINED, UNITS
from resattn.measures.quantities import QUANTITIES, SPLITS
from resattn.networks.catalog import UnknownNetworkError, named
from resattn.networks.spec import override

PUBLISHED = rows("published.csv")


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['subject']} {row['quantity']}")
def test_counts_agree_with_what_others_published(row):
    printed, scale = parse_printed(row["value"]), Fraction(1000) ** UNITS[row["unit"]].power
    measured = Fraction(measure(parse_subject(row["subject"]), row["quantity"])) / scale
    # A whole number without a unit is exact; other numbers hold to their printed digits.
    assert abs(measured - printed.number) <= (printed.step / 2 if row["unit"] else 0)


def test_every_measured_quantity_has_a_published_number():
    golden = {row["quantity"] for row in PUBLISHED}
    assert set(COUNTED_BESIDES) - golden - BY_HAND - set(GATE) == {"macs_linear"}
    # 2048 features, 1000 classes (wang2017, table 2).
    assert measure(Subject("attention56"), "macs_linear") == 2048 * 1000


def test_the_tables_of_measures_are_those_that_formulas_may_name():
    assert (set(SPLITS) | set(PART) | set(GATE)) - set(QUANTITIES) == COUNTED_BESIDES


@pytest.mark.parametrize(
    ("gate", "least", "most", "norm", "spread"),
    # By hand: a sigmoid is in (0, 1); a component of a unit vector in [-1, 1]; the sigmoid again, of what has mean 0 and
    # deviation 1 (in 64 x 64 positions one value is at most 64 deviations from the mean, whose sigmoid rounds to 1).
    [("mixed", 0, 1, None, None), ("channel", -1, 1, 1, None), ("spatial", 0, 1, None, 1)],
)
def test_the_range_and_the_axis_of_a_gate(gate, least, most, norm, spread):
    about = Subject("cifar-attention56", (("gate", gate),))
    assert [measure(about, quantity) for quantity in GATE] == [least, most, norm, spread]


def test_what_is_not_measured_is_none():
    assert measure(Subject("inception-resnet-v1"), "params") is None
    assert measure(Subject("resnet50"), "mask_least") is None
    assert measure(Subject("attention56", (), "stage1"), "params") is None
    assert measure(Subject("attention56"), "poolings") is None
    assert measure(Subject("attention56"), "cifar10_error_final_epoch") is None


@pytest.mark.parametrize("quantity", sorted(PART))
def test_an_unknown_part_is_named_with_its_nearest(quantity):
    with pytest.raises(ClaimError, match=r"no module 'stage1.modul1.*' was executed \(nearest: .*stage1.module1"):
        measure(Subject("attention56", (), "stage1.modul1"), quantity)


# ------------------------------------------------------------------------------------------------ the vocabulary


def test_what_cannot_be_counted_is_not_in_the_catalog():
    def is_known(name):
        try:
            return bool(named(name))
        except UnknownNetworkError:
            return False

    # The catalog builds a reading of ours, which says nothing about the numbers of its authors.
    assert {name for name in FOREIGN if is_known(name)} <= {"attentioninception56"}


def test_every_foreign_network_is_spoken_of():
    assert set(FOREIGN) <= {s.network for claim in ledger() for s in subjects(claim)}


def test_definitions_are_told_apart():
    assert len({(d.quantity, d.id) for d in DEFINITIONS}) == len(DEFINITIONS)
    # What is counted serves any table; what is not serves the ledger alone, which must ask for it.
    formulas = [f for c in ledger() for f in c.formulas.values()]
    asked = {reference.rpartition(":")[2] for f in formulas for reference in f.references} | {
        c.quantity for c in ledger()
    }
    assert not {q for q in (*TRAINED, *STATED) if not any(name.startswith(q) for name in asked)}


def test_every_reading_builds_another_network():
    for reading in READINGS:
        for name in ("cifar-attention56", "resnet50"):
            if reading.is_open(name):
                assert override(named(name), dict(reading.settings)).digest != named(name).digest


# ------------------------------------------------------------------------------------------------ training runs

RUNS = pd.DataFrame(
    {
        "subject": ["cifar-attention56", "cifar-attention56", "cifar-attention56 merge=naive"],
        "quantity": "cifar10_error_final_epoch",
        "seed": [0, 1, 0],
        "value": [0.055, 0.056, 0.059],
    }
)


def test_runs_are_found_by_the_network_and_not_by_its_spelling():
    runs = runs_of_table(RUNS)
    assert runs(parse_subject("cifar-attention56 merge=residual"), "cifar10_error_final_epoch") == {0: 0.055, 1: 0.056}
    assert runs(parse_subject("cifar-attention56 merge=naive"), "cifar10_error_final_epoch") == {0: 0.059}
    assert runs(parse_subject("cifar-attention56"), "cifar10_error_best_epoch") == {}
    assert runs(parse_subject("inception-resnet-v1"), "cifar10_error_final_epoch") == {}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (RUNS.drop(columns="seed"), "the table of runs lacks seed (columns: subject, quantity, seed, value)"),
        (RUNS.assign(quantity="cifar10_eror_final_epoch"), "row 1 of the table of runs: unknown quantity"),
        (RUNS.assign(subject="vgg16"), "row 1 of the table of runs: no network 'vgg16' in the catalog"),
        (RUNS.assign(value=[0.055, 5.6, 0.059]), "row 2 of the table of runs: value 5.6 of cifar10_error_final_epoch"),
        (RUNS.assign(value=float("nan")), "row 1 of the table of runs: value nan"),
    ],
)
def test_a_bad_table_of_runs(frame, message):
    with pytest.raises(ClaimError) as raised:
        runs_of_table(frame)
    assert message in str(raised.value)


# ------------------------------------------------------------------------------------------------ the real verdicts


HEADLINES = {
    Finding.CONFIRMED: """
        t7.attention56.flops t7.resnet152.params t6.resnet1001.params article.1.depth article.2.mask_convs.stage2
        article.2.module.stage2 article.3.depth article.3.outweighs article.4.port_units article.5.three_by_three
        abstract.trunk_depth imgclsmob.attention452 araujo.vgg-16 araujo.inception-v3 araujo.inception-v4
        araujo.inception-resnet-v2 araujo.mobilenet-v1 araujo.alexnet-v2 s31.mask_range.f1_least article.8.f2_axis
        """,
    Finding.BUILT_SO: """
        section3.depth452 s41.depth.92 t2.attention92.modules.stage3 s41.default.r t4.same_flops s42.poolings.stage1
        """,
    Finding.OFF: """
        t2.attention56.flops t7.attention92.params t7.attention92.flops t6.attention452.params article.4.paper_units
        article.3.outweighs.layers article.3.outweighs.cost article.3.outweighs.params s31.mask_range.f2_least
        article.2.mask_convs.stage1 article.2.mask_convs.stage3 article.2.module.stage1 article.2.module.stage3
        """,
    Finding.OTHER_DEFINITION: "t7.attention56.params he2016identity.resnet1001.params",
    Finding.READING: """
        t7.resnet152.flops t6.attention92.params t6.attention236.params he2016.resnet152.flops araujo.slim-resnet50
        araujo.slim-resnet101 araujo.slim-resnet152 araujo.slim-resnet200 araujo.resnet152.flops
        araujo.slim-resnet50.flops araujo.slim-resnet101.flops araujo.slim-resnet200.flops
        """,
    Finding.NOT_TESTABLE: """
        article.6.foreground article.7.degradation article.8.f1_below_f2 t7.attentioninception56.params
        dir.arl_below_nal.m4 dir.nal_vanishes senet.attention92.top1 facexzoo.attention92.params
        """,
}
BY_PRINT = (Finding.MISQUOTES, Finding.CONTRADICTS, Finding.SUPERSEDED)


@pytest.mark.slow
def test_numbers_that_were_counted_by_hand_hold():
    """Nobody prints them: they were counted from files that anyone can open, before this suite existed."""
    for verdict in judge(load(GOLDEN / "counted.csv", REFERENCES), measure):
        assert verdict.finding in (Finding.CONFIRMED, Finding.OTHER_DEFINITION, Finding.BUILT_SO), verdict.why


# One test, so that one process measures the hundred networks once.
@pytest.mark.slow
def test_the_verdicts_on_what_is_counted():
    verdicts = {verdict.claim.id: verdict for verdict in judge(ledger(), study_measure)}
    for finding, ids in HEADLINES.items():
        assert {id: verdicts[id].finding for id in ids.split()} == dict.fromkeys(ids.split(), finding)
    for verdict in verdicts.values():
        claim = verdict.claim
        assert verdict.why
        if verdict.finding is Finding.CONFIRMED:
            assert verdict.decisive.definition == claim.definition
        foreign = any(s.network in FOREIGN for s in subjects(claim))
        trained_or_stated = claim.allowed.kind == "statistical" or not claim.formulas
        assert (verdict.finding is Finding.NOT_TESTABLE) == (verdict.reason in REASONS)
        if verdict.finding not in BY_PRINT:
            assert (verdict.finding is Finding.NOT_TESTABLE) == (
                (foreign and claim.definition != "arithmetic") or trained_or_stated
            ), claim.id
    # The reading that holds is that of TF-slim, cost included.
    assert verdicts["araujo.slim-resnet200.flops"].decisive.reading == "stride_at=last"
