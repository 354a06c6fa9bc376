import csv
import io
import json

import pytest
from claims.conftest import ROW

from analysis.claims.ledger import LEDGER, REFERENCES, ledger
from resattn.claims.claims import COLUMNS, ClaimError, Subject, load, parse_subject
from resattn.claims.forms import FORMS, TABLE_COLUMNS, to_json, verdict_table, verdict_text
from resattn.claims.measured import measure as counted
from resattn.claims.verdicts import Finding, judge
from resattn.claims.vocabulary import DEFINITIONS, REASONS
from resattn.cli import main

# Counted by others from the released prototxts, but for resnet152: the two strides.
COUNTED = {
    ("attention56", "params"): 31_810_728,
    ("attention56", "params_norm"): 73_000,
    ("attention56", "norm_statistics"): 73_000,
    ("attention56", "dead_params"): 0,
    ("attention56", "macs"): 6_270_836_736,
    ("attention56", "macs_linear"): 2_048_000,
    ("attention56", "trunk_depth"): 56,
    ("attention56", "longest_path"): 80,
    ("attention92", "params"): 52_466_344,
    ("attention92", "params_norm"): 134_000,
    ("attention92", "norm_statistics"): 134_000,
    ("attention92", "dead_params"): 0,
    ("attention92", "macs"): 10_533_789_696,
    ("attention92", "macs_linear"): 2_048_000,
    ("attention92", "trunk_depth"): 92,
    ("attention92", "longest_path"): 128,
    ("resnet152", "macs"): 11_513_626_624,
    ("resnet152", "macs_linear"): 2_048_000,
    ("resnet152 stride_on=1x1", "macs"): 11_282_415_616,
    ("attention56 @stage1.module1", "module_longest_path"): 26,
    ("attention56 @stage2.module1", "module_longest_path"): 20,
    ("attention56 @stage3.module1", "module_longest_path"): 14,
    ("attention56 @stage1.module1", "module_trunk_path"): 12,
    ("attention56 @stage2.module1", "module_trunk_path"): 12,
    ("attention56 @stage3.module1", "module_trunk_path"): 12,
}


def measure(subject, quantity):
    return COUNTED.get((str(subject), quantity))


@pytest.fixture(scope="module")
def verdicts():
    return {v.claim.id: v for v in judge(ledger(), measure)}


@pytest.mark.parametrize(
    ("id", "finding", "measured"),
    [
        ("t7.attention56.flops", Finding.CONFIRMED, 6_270_836_736),
        ("t2.attention56.flops", Finding.OFF, 6_270_836_736),
        ("t7.attention56.params", Finding.OTHER_DEFINITION, 31_883_728),
        ("t7.attention92.params", Finding.OFF, 52_466_344),
        ("t7.attention92.flops", Finding.OFF, 10_533_789_696),
        ("t2.attention92.depth", Finding.CONFIRMED, 92),
        ("t7.resnet152.flops", Finding.READING, 11_282_415_616),
        ("article.3.depth", Finding.CONFIRMED, 80),
        ("article.3.below152", Finding.CONFIRMED, 80),
        ("article.2.module.stage1", Finding.OFF, 26),
        ("article.2.module.stage2", Finding.CONFIRMED, 20),
        ("article.2.module.stage3", Finding.OFF, 14),
        ("article.1.sum", Finding.CONFIRMED, 56),
        ("article.6.foreground", Finding.NOT_TESTABLE, None),
        ("article.7.degradation", Finding.NOT_TESTABLE, None),
        ("t3.attention56.nal", Finding.NOT_TESTABLE, None),
        ("t7.attentioninception56.params", Finding.NOT_TESTABLE, None),
        ("s41.recipe.batch", Finding.NOT_TESTABLE, None),
        ("abstract.flops", Finding.CONFIRMED, pytest.approx(10.4 / 15)),
        ("s42.params_share", Finding.CONTRADICTS, pytest.approx(31.9 / 60.2)),
        ("s42.flops_share", Finding.CONFIRMED, pytest.approx(6.3 / 11.3)),
        ("s42.resnet200_more", Finding.CONTRADICTS, pytest.approx(64.7 / 51.3 - 1)),
        ("t4.margin", Finding.CONTRADICTS, pytest.approx(0.0096)),
        ("section5.c100", Finding.CONTRADICTS, pytest.approx(0.2045)),
        ("check.half_of_1001", Finding.CONFIRMED, pytest.approx(5.1 / 10.3)),
        ("t3.nal_degrades.56to92", Finding.CONTRADICTS, pytest.approx(-0.0054)),
        ("check.beats_all", Finding.SUPERSEDED, pytest.approx(0.012)),
        ("t6.wrn28.c10", Finding.SUPERSEDED, pytest.approx(0.04)),
        ("t6.wrn16.c100", Finding.SUPERSEDED, pytest.approx(0.2043)),
        ("wrn2016.t4.wrn28.c100", Finding.SUPERSEDED, pytest.approx(0.1925)),
        ("t6.resnet1001.c10", Finding.MISQUOTES, pytest.approx(0.0492)),
        ("t7.resnet152.top1", Finding.MISQUOTES, pytest.approx(0.2143)),
        ("sknet.attentionnext56.top1", Finding.MISQUOTES, pytest.approx(0.212)),
        ("t6.resnet164.c10", Finding.NOT_TESTABLE, None),  # quoted as its source prints it
        ("t2.attention56.depth", Finding.CONFIRMED, 56),
    ],
)
def test_verdicts_of_known_rows(verdicts, id, finding, measured):
    found = verdicts[id]
    assert found.finding is finding
    assert (None if found.decisive.measured is None else float(found.decisive.measured)) == measured


def test_the_reason_says_what_was_found(verdicts):
    assert verdicts["t7.attention56.params"].why.startswith("31.811 M as printed (learnable parameters")
    assert "running mean and variance" in verdicts["t7.attention56.params"].why
    assert verdicts["t7.attention92.params"].why.endswith("printed 51.3 M ± 0.05")
    assert verdicts["t7.resnet152.flops"].why.startswith("default gives 11.514 G (no); stride_on=1x1 gives 11.282 G")
    assert verdicts["t7.attentioninception56.params"].why.startswith("its structure was never published")
    assert "at least 3 runs" in verdicts["t3.attention56.nal"].why
    assert "26, 20 and 14 deep" in verdicts["article.3.depth"].claim.note


def test_without_a_measure_nothing_counted_is_judged():
    for verdict in judge(ledger(), lambda subject, quantity: None):
        counted = not verdict.claim.quantity.startswith("=") or verdict.claim.definition == "counted"
        if counted and verdict.claim.subjects and not (verdict.claim.cites or verdict.claim.superseded_by):
            assert verdict.finding is Finding.NOT_TESTABLE
        assert verdict.why


def test_all_readings_agree_or_the_verdict_depends_on_them(ledger):
    row = {"subject": "cifar-attention92", "value": "1.9"}
    default, padded = 1_932_000, 1_841_000

    def first(subject, quantity):
        return default if not subject.settings else padded

    (verdict,) = judge(ledger(row), first)
    assert verdict.finding is Finding.READING
    assert [trial.holds for trial in verdict.trials] == [True, False, False, False]
    (verdict,) = judge(ledger(row), lambda subject, quantity: default)
    assert verdict.finding is Finding.CONFIRMED
    (verdict,) = judge(ledger({**row, "value": "8.6"}), first)
    assert verdict.finding is Finding.OFF
    fixed = {"subject": "cifar-attention92 poolings=2,2,1 units=1,1,1 tail=0,0,3", "value": "1.9"}
    (verdict,) = judge(ledger(fixed), lambda subject, quantity: default)
    assert len(verdict.trials) == 1, "what a row fixes is not open"


def test_a_reading_that_cannot_be_measured_does_not_count(ledger):
    (verdict,) = judge(
        ledger({"subject": "cifar-attention92", "value": "1.9"}),
        lambda subject, quantity: None if subject.settings else 1_932_000,
    )
    assert verdict.finding is Finding.CONFIRMED


def test_an_inequality_is_not_saved_by_another_definition(ledger):
    row = {"quantity": "depth", "definition": "longest_path", "value": "< 60", "unit": "", "base": ""}
    (verdict,) = judge(ledger(row), measure)
    assert verdict.finding is Finding.OFF
    (verdict,) = judge(ledger({**row, "value": "56", "tolerance": "exact"}), measure)
    assert verdict.finding is Finding.OTHER_DEFINITION
    assert verdict.decisive.definition == "trunk"


def test_a_formula_without_a_value_names_its_row(ledger):
    row = {"quantity": "= 1 / ({params} - 31810728)", "definition": "counted", "unit": "", "base": ""}
    with pytest.raises(ClaimError, match=r"^ledger\.csv, line 2, column quantity: .* divides by zero"):
        judge(ledger(row), measure)


# ------------------------------------------------------------------------------------------------ training results

TRAINED = {
    "quantity": "cifar10_error", "definition": "final_epoch", "value": "5.5", "unit": "%", "base": "",
    "tolerance": "statistical",
}  # fmt: skip


def runs_of(*values):
    return lambda subject, quantity: dict(enumerate(values)) if quantity == "cifar10_error_final_epoch" else {}


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ((0.054, 0.056, 0.055), Finding.CONFIRMED),
        ((0.061, 0.062, 0.063), Finding.OFF),
        ((0.055, 0.055), Finding.NOT_TESTABLE),
        ((0.0551, 0.0551, 0.0551), Finding.CONFIRMED),  # no scatter: the printed digits still have a width
        ((0.0561, 0.0561, 0.0561), Finding.OFF),
    ],
)
def test_a_printed_training_result(ledger, values, finding):
    (verdict,) = judge(ledger(TRAINED), measure, runs_of(*values))
    assert verdict.finding is finding


def test_the_interval_is_where_one_more_run_is_expected(ledger):
    # Student's t for 2 degrees of freedom is 4.303 (a printed table); mean 6 %, standard deviation 0.1 %.
    reach = 4.303 * 0.1 * (1 + 1 / 3) ** 0.5
    for printed, finding in ((6 + reach - 0.001, Finding.CONFIRMED), (6 + reach + 0.001, Finding.OFF)):
        (verdict,) = judge(ledger({**TRAINED, "value": f"{printed:.4f}"}), measure, runs_of(0.059, 0.06, 0.061))
        assert verdict.finding is finding


def test_runs_that_scatter_widely_confirm_nothing(ledger):
    (verdict,) = judge(ledger(TRAINED), measure, runs_of(0.04, 0.06, 0.07))
    assert verdict.finding is Finding.NOT_TESTABLE
    assert verdict.why == "3 runs do not decide: their spread is too large"


@pytest.mark.parametrize(
    ("first", "second", "finding"),
    [
        ((0.05, 0.051, 0.052), (0.07, 0.072, 0.071), Finding.CONFIRMED),
        ((0.07, 0.072, 0.071), (0.05, 0.051, 0.052), Finding.OFF),
        ((0.05, 0.06, 0.07), (0.06, 0.05, 0.075), Finding.NOT_TESTABLE),
    ],
)
def test_a_difference_of_training_results_pairs_seeds(ledger, first, second, finding):
    row = {
        **TRAINED,
        "quantity": "= {attention56:cifar10_error_final_epoch} - {attention92:cifar10_error_final_epoch}",
        "definition": "counted",
        "value": "< 0",
    }

    def runs(subject, quantity):
        return dict(enumerate(first if subject.network == "attention56" else second))

    (verdict,) = judge(ledger(row), measure, runs)
    assert verdict.finding is finding
    if finding is Finding.NOT_TESTABLE:
        assert verdict.why == "3 runs do not decide: their spread is too large"


# ------------------------------------------------------------------------------------------------ forms


def test_json_has_every_field_and_survives(verdicts):
    records = to_json(verdicts.values())
    assert json.loads(json.dumps(records)) == records
    for record in records:
        assert set(COLUMNS) < set(record)
        assert record["verdict"] in set(Finding)
        holds = record["verdict"] in ("confirmed", "built so", "other definition", "by reading")
        assert (record["definition_used"] is None) == (not holds)
        if record["verdict"] == "confirmed":
            assert record["definition_used"] == record["definition"]
        assert (record["reason"] in REASONS) == (record["verdict"] == "not testable")
        assert (record["off_pct"] is None) or record["verdict"] == "off"
    by_id = {record["id"]: record for record in records}
    params = by_id["t7.attention56.params"]
    assert (params["definition"], params["definition_used"]) == ("learnable", "learnable_and_statistics")
    assert (params["printed"], params["slack"], params["measured"]) == (31_900_000, 50_000, 31_883_728)
    assert by_id["t7.resnet152.flops"]["reading"] == "stride_on=1x1"


def test_the_table_has_a_row_for_every_claim(verdicts):
    frame = verdict_table(verdicts.values())
    assert list(frame["id"]) == list(verdicts)
    assert not frame.isna().any().any()
    row = frame.set_index("id").loc["t7.attention92.params"]
    assert (row["printed"], row["measured"], row["verdict"]) == ("51.3 M", "52.466 M", "off")
    assert row["off_pct"] == "-2.2"


def test_the_text_is_by_source_and_verdict(ledger):
    claims = ledger(
        {"id": "a.1"},
        {"id": "a.2", "value": "31.8"},
        {"id": "b.1", "source": "he2016", "value": "30"},
    )
    assert verdict_text(judge(claims, measure)).splitlines() == [
        "he2016",
        "  off (1)",
        "    b.1: params of attention56 is 30 M",
        "      -5.7 %: 31.81 M: learnable parameters that the execution reads; printed 30 M ± 0.5",
        "wang2017",
        "  confirmed (1)",
        "    a.2: params of attention56 is 31.8 M",
        "      31.811 M: learnable parameters that the execution reads",
        "  other definition (1)",
        "    a.1: params of attention56 is 31.9 M",
        "      31.811 M as printed (learnable parameters that the execution reads); 31.884 M: learnable parameters and "
        "batch norm's running mean and variance (all of Caffe's blobs)",
    ]


def test_the_command_prints_data_on_stdout_and_messages_on_stderr(capsys, monkeypatch):
    monkeypatch.setattr("resattn.claims.measured.measure", measure)
    assert main(["claims", "--json"]) == 0
    printed = capsys.readouterr()
    records = {record["id"]: record for record in json.loads(printed.out)}
    assert records["t7.attention56.flops"]["verdict"] == "confirmed"
    assert printed.err.startswith(f"{len(records)} claims")
    assert main(["claims", "--source", "wang2017", "--all"]) == 0
    assert "    t7.attention56.flops: cost of attention56 is 6.3 G\n" in capsys.readouterr().out


def test_many_claims_are_summed_up_on_one_screen(capsys, monkeypatch):
    monkeypatch.setattr("resattn.claims.measured.measure", measure)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["claims"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    n_claims = int(printed.err.split()[0])
    assert sum(int(line.split()[0]) for line in lines if line[:5].strip().isdigit()) == n_claims
    assert f"{n_claims} claims of " in printed.out


def test_the_command_judges_any_table(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("resattn.claims.measured.measure", measure)
    lines = LEDGER.read_text(encoding="utf-8").splitlines()
    table = tmp_path / "mine.csv"
    row = next(line for line in lines if line.startswith("t7.attention56.flops,"))
    table.write_text("\n".join([lines[0], row.replace(",wang2017,", ",mine2026,")]) + "\n", encoding="utf-8")
    assert main(["claims", str(table), "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["source"], record["verdict"]) == ("mine2026", "confirmed")
    assert main(["claims", str(table), "--references", str(REFERENCES)]) == 1
    assert "line 2, column source" in capsys.readouterr().err
    assert main(["claims", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == f"resattn: no file {tmp_path / 'none.csv'}\n"


def test_the_command_filters_and_has_four_forms(capsys, monkeypatch):
    monkeypatch.setattr("resattn.claims.measured.measure", measure)
    assert main(["claims", "--source", "li2019sknet", "--verdict", "misquotes", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)  # the row that it cites is of another source
    assert (record["id"], record["verdict"]) == ("sknet.attentionnext56.top1", "misquotes")
    printed = {}
    for form in FORMS:
        assert main(["claims", "--source", "li2019sknet", "--format", form]) == 0
        printed[form] = capsys.readouterr().out
    n = sum(claim.source == "li2019sknet" for claim in ledger())
    assert printed["text"].startswith("li2019sknet\n")
    assert printed["md"].count("\n") == printed["md"].count("| li2019sknet") + 2 == n + 2
    assert list(csv.DictReader(io.StringIO(printed["csv"]))) == [
        {column: row[column] for column in TABLE_COLUMNS}
        for row in verdict_table(
            v for v in judge(ledger(), measure) if v.claim.source == "li2019sknet"
        ).to_dict("records")
    ]  # fmt: skip
    body = [line for line in printed["tex"].splitlines() if line.endswith(r"\\")]
    assert len(body) == n + 1
    assert all(line.count(" & ") == 6 for line in body)
    assert r"10.5338 G & off by -0.99 \%" in printed["tex"]
    for wrong in (["--source", "li2091sknet"], ["--verdict", "refuted"]):
        assert main(["claims", *wrong]) == 2
        assert "nearest: " in capsys.readouterr().err


def test_latex_escapes_what_latex_reads(ledger):
    (verdict,) = judge(ledger({"place": r"Table 1 & 2_a^b #3 {50 %} \x ~"}), measure)
    (row,) = [line for line in FORMS["tex"]([verdict]).splitlines() if line.startswith("a.1")]
    assert r"Table 1 \& 2\_a\textasciicircum{}b \#3 \{50 \%\} \textbackslash{}x \textasciitilde{}" in row


# ------------------------------------------------------------------------------------------------ kinds of verdicts


def test_a_field_that_was_typed_from_the_source_confirms_nothing(ledger):
    row = {
        "subject": "attention56 @stage1", "quantity": "modules", "definition": "per_stage", "value": "1", "unit": "",
        "base": "", "tolerance": "exact",
    }  # fmt: skip
    found = judge(
        ledger(row, {**row, "id": "a.2", "source": "he2016"}, {**row, "id": "a.3", "value": "2"}), lambda *_: 1
    )
    assert [v.finding for v in found] == [Finding.BUILT_SO, Finding.CONFIRMED, Finding.OFF]


@pytest.mark.parametrize("way", [d for d in DEFINITIONS if d.reads], ids=lambda way: way.quantity)
def test_a_definition_that_reads_a_field_back_follows_it(way):
    changes = {
        "poolings": ("attention56 poolings=2,2,1,0 @stage1.module1", "attention56 @stage1.module1"),
        "units": ("attention56 units=2,1,1,3 @stage1", "attention56 @stage1"),
        "p": ("attention56 p=2 @stage1.module1.pre", "attention56 @stage1.module1.pre"),
        "modules": ("attention56 modules=2,1,1,0 @stage1", "attention56 @stage1"),
        "input_shape": ("attention56 input_shape=3,256,256 @stem.conv", "attention56 @stem.conv"),
        "width": ("attention56 width=32 @stem.conv", "attention56 @stem.conv"),
    }
    quantity = way.formula.strip("{}")
    first, second = (counted(parse_subject(text), quantity) for text in changes[way.reads[0]])
    assert first != second


def test_per_cent_off_is_signed(ledger):
    found = judge(ledger({"value": "30.0"}, {"id": "a.2", "value": "33.0"}), measure)
    assert [v.off_pct for v in found] == [pytest.approx(100 * (n * 1e6 / 31_810_728 - 1)) for n in (30, 33)]
    (below,) = judge(ledger({"value": "< 30.0", "tolerance": "exact"}), measure)
    assert (below.finding, below.off_pct) == (Finding.OFF, None)


def test_a_quotation_is_held_against_what_it_cites(ledger):
    there = {"id": "b.1", "source": "he2016", "value": "31.81", "place": "Table 9"}
    as_cited = {"id": "a.1", "cites": "b.1", "value": "31.8"}  # as far as its digits go
    (faithful, _) = judge(ledger(as_cited, there), measure)
    assert faithful.finding is Finding.CONFIRMED
    (wrong, _) = judge(ledger({**as_cited, "value": "31.7"}, there), measure)
    assert (wrong.finding, wrong.why) == (Finding.MISQUOTES, "he2016, Table 9 prints 31.81 M")
    (itself, _) = judge(ledger({**as_cited, "value": "31.7"}, {**there, "source": "wang2017"}), measure)
    assert itself.finding is Finding.CONTRADICTS


def test_a_number_gives_way_to_its_successor_and_so_does_what_rests_on_it(ledger):
    old = {"id": "b.1", "source": "he2016", "value": "31.8", "superseded_by": "b.2"}
    new = {"id": "b.2", "source": "he2016", "value": "31.0"}
    quoted = {"id": "a.1", "cites": "b.1", "value": "31.8"}
    formula = {
        "id": "a.2", "quantity": "= {b.1} - {a.1}", "definition": "arithmetic", "value": "0", "tolerance": "exact",
    }  # fmt: skip
    larger = {**formula, "id": "a.3", "quantity": "= {b.1} - 31400000", "value": "> 0"}
    still = {**formula, "id": "a.4", "quantity": "= {b.1} - 30000000", "value": "> 0"}
    found = {v.claim.id: v.finding for v in judge(ledger(old, new, quoted, formula, larger, still), measure)}
    assert found == {
        "b.1": Finding.SUPERSEDED, "b.2": Finding.OFF, "a.1": Finding.SUPERSEDED,
        "a.2": Finding.CONFIRMED,  # both numbers are replaced alike
        "a.3": Finding.SUPERSEDED, "a.4": Finding.CONFIRMED,
    }  # fmt: skip


def test_a_formula_over_the_sources_own_numbers_contradicts_itself(ledger):
    own, other = {"id": "b.1"}, {"id": "b.2", "source": "he2016"}
    sums = [{"id": f"a.{k}", "quantity": f"= {{b.{k}}} * 2", "definition": "arithmetic", "value": "60"} for k in (1, 2)]
    first, second, *_ = judge(ledger(*sums, own, other), measure)
    assert (first.finding, second.finding) == (Finding.CONTRADICTS, Finding.OFF)


# ------------------------------------------------------------------------------------------------ models of one's own


def test_a_model_of_ones_own_is_judged(ledger, tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text("from torch import nn\n\ndef net():\n    return nn.Conv2d(3, 8, 3)\n")
    monkeypatch.chdir(tmp_path)
    row = {"subject": "my_net.py:net input=3,32,32", "value": "224", "unit": "", "base": "", "tolerance": "exact"}
    path = tmp_path / "mine.csv"

    def judged(**more):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROW)
            writer.writeheader()
            writer.writerow({**ROW, **row, **more})
        return judge(load(path), counted)

    assert judged()[0].finding is Finding.CONFIRMED
    (absent,) = judged(subject="timm:no_such_model input=3,32,32")
    assert (absent.finding, absent.reason) == (Finding.NOT_TESTABLE, "another's network")
    with pytest.raises(ClaimError, match="^mine.csv, line 2, column subject: my_net.py has no callable 'nett'"):
        judged(subject="my_net.py:nett input=3,32,32")
    with pytest.raises(ClaimError, match="^mine.csv, line 2, column subject: no file my_nett.py"):
        judged(subject="my_nett.py:net input=3,32,32")
    with pytest.raises(ClaimError, match="^mine.csv, line 2, column subject: .*no module 'stem' was executed"):
        judged(subject="my_net.py:net input=3,32,32 @stem", quantity="channels", definition="out")
    with pytest.raises(ClaimError, match="line 2, column subject: my_net.py:net needs its input"):
        judged(subject="my_net.py:net")


def test_a_public_table_is_judged_through_its_adapter(tmp_path):
    path = tmp_path / "timm.csv"
    path.write_text("model,img_size,gmacs,macts,params_m\nresnet50,224,4.11,11.11,25.56\nbad,224,x,1,2\n")
    with pytest.raises(ClaimError, match=r"^timm.csv, line 3, column value: 'x' is no printed number$"):
        load(path)
    path.write_text("model,img_size,gmacs,macts,params_m\nresnet50,224,4.11,11.11,25.56\n")
    claims = load(path)
    assert [(c.quantity, c.value, str(c.subjects[0])) for c in claims] == [
        ("params", "25.56", "timm:resnet50 input=3,224,224"), ("cost", "4.11", "timm:resnet50 input=3,224,224"),
    ]  # fmt: skip
    resnet50 = Subject("resnet50")  # he2016, with the stride on the 3x3, as timm has it
    assert [v.finding for v in judge(claims, lambda _, quantity: counted(resnet50, quantity))] == [
        Finding.CONFIRMED, Finding.OFF,  # 4.09 G: DeepSpeed counts batch norm too
    ]  # fmt: skip
