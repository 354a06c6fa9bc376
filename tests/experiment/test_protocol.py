"""The experiment: its protocol as data, its plan, what is kept, and what follows from it. Tiny runs stand in for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training.conftest import N_TEST, N

from analysis.experiment import protocol
from analysis.experiment.protocol import Protocol, ProtocolError, describe, read_protocol, run_protocol, state_of
from analysis.statistics.dunnett import critical as dunnett_critical
from analysis.statistics.protocol import detectable, sweep_of
from analysis.trained.experiment import experiment
from resattn.training import kept, record
from resattn.training.config import DATASETS, ConfigError
from resattn.training.kept import KeptRunError, read_all, read_kept
from resattn.training.loop import train
from resattn.training.run import packed, read_runs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


# ---- the protocol itself


def test_the_protocol_is_the_one_that_was_asked_for() -> None:
    found = read_protocol()
    assert found.digest == hashlib.sha256((ROOT / "docs" / "protocol.json").read_bytes()).hexdigest()
    assert len(found.sweep) == 4 * 4 * 2
    runs = found.budgets({"attention56": 0.05, "constant": 0.1, "resnet74": 0.025, "resnet83": 0.0125})
    assert found.n_runs == 128 == len(found.sweep) + len(runs)
    for run in found.sweep:
        assert (run.config.steps, run.config.n_images, run.config.n_test_images) == (1562, 45_000, 5_000)
    assert {run.config.steps for run in runs} == {1562, 2 * 1562, 4 * 1562}
    assert {run.config.n_images for run in runs} == {50_000}
    assert {run.config.n_test_images for run in runs} == {10_000}
    # Seeds outermost: whole blocks come first.
    assert [run.config.seed for run in runs] == sorted(run.config.seed for run in runs)
    assert {run.config.seed for run in runs}.isdisjoint(run.config.seed for run in found.sweep)
    for run in (*found.sweep, *runs):
        c = run.config
        assert (c.batch_size, c.precision, c.augment, c.weight_decay, c.momentum) == (32, "bf16", "standard", 1e-4, 0.9)
        assert (c.schedule, c.warmup, c.spec.width) == ("linear", 0.05, 8)
    assert len({run.id for run in (*found.sweep, *runs)}) == 128


def test_the_page_says_what_the_data_say() -> None:
    from resattn.measures.audit import audit

    data = read_protocol().data
    assert data["question"] in PAGE
    assert data["dataset"]["label"] in PAGE
    for short, name in data["networks"].items():
        q = audit(name).quantities
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{short}` |"))
        assert f"| {q['longest_path']} | {q['params']:,} | {q['macs']:,} |" in row
    numbers = [f"{lr:g}" for lr in data["sweep"]["lr"]]
    assert f"chosen from {', '.join(numbers[:-1])} and {numbers[-1]}" in PAGE
    for text in (
        "two seeds each (1000 and 1001", "50,000 presentations (1,562 steps) of the first 45,000", "the other 5,000",
        "batches of 32, bf16", "weight decay 1e-4", "Nesterov momentum 0.9", "first 5 % of the steps",
        "1, 2 and 4 epochs of all 50,000", "Eight seeds, 0 to 7", "there are 128 runs", "All at width 8",
        "The primary comparison is `attention56` minus `resnet83` at 4 epochs", "with 21 degrees of freedom",
        "within 0.5 points", "counts as 90 % error", "else 0.05 for all",
    ):  # fmt: skip
        assert text in PAGE, text
    primary = data["comparisons"]["primary"]
    assert (data["comparisons"]["first"], primary["minus"], primary["epochs"]) == ("attention56", "resnet83", 4)


def test_the_page_states_the_power_that_is_computed() -> None:
    # Dunnett 1964, New tables for multiple comparisons with a control, table II (two-sided, 5 %): p = 3.
    assert [round(dunnett_critical(3, df), 2) for df in (10, 15, 20)] == [2.76, 2.61, 2.54]
    assert dunnett_critical(1, 10) == pytest.approx(2.228, abs=1e-3)  # one comparison: Student's t
    assert f"a true difference of {detectable(8):.2f} residual standard deviations" in PAGE
    for sd in (0.3, 0.5, 0.8):
        assert f"| {sd:g} | {detectable(8, sd=sd):.2f} |" in PAGE


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    import numpy as np

    rng, n, runs = np.random.default_rng(0), 8, 20_000
    error = rng.normal(size=(runs, 4, n))
    error[:, 0] += detectable(n)
    error += 3 * rng.normal(size=(runs, 1, n))  # what a seed has in all networks changes nothing
    rest = error - error.mean(2, keepdims=True) - error.mean(1, keepdims=True) + error.mean((1, 2), keepdims=True)
    t = (error[:, 0].mean(1) - error[:, 3].mean(1)) / np.sqrt((rest**2).sum((1, 2)) / 21 * 2 / n)
    assert (abs(t) > dunnett_critical(3, 21)).mean() == pytest.approx(0.8, abs=0.01)


# ---- what is committed


def _committed() -> list[kept.Kept]:
    folders = [folder for folder in protocol.RESULTS.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return [run for folder in folders if folder.is_dir() for run in read_all(folder)]


def test_every_committed_run_has_the_digest_of_the_protocol() -> None:
    found = read_protocol()
    for run in _committed():
        assert run.about["protocol"] == found.digest, run.folder
        assert run.about["training_version"] == record.TRAINING_VERSION
        name = run.id.rpartition("-")[0]
        assert run.id == found.run_id(name, run.config), run.folder
        if run.run:
            assert run.run.dataset_digest == found.data["dataset"]["sha256"]
            assert run.run.dataset_label == found.data["dataset"]["label"]
            assert not Path(run.run.out_dir).is_absolute()


def test_the_stated_runs_of_width_16_are_those_that_are_kept() -> None:
    rows = json.loads((protocol.RESULTS / "width16.json").read_text())
    stated = protocol.extra_runs(read_protocol(), rows, {}, Path("none"))
    made = {run.config.digest for run in read_all(protocol.RESULTS / protocol.ACCELERATOR)}
    assert {run.config.digest for run in stated} == made


def test_the_protocol_is_older_than_the_first_run() -> None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    if not _committed() or not git("rev-parse", "HEAD") or git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("no kept run, or no history")
    fixed = git("log", "-1", "--format=%H", "--", "docs/protocol.json")
    first = git("log", "--diff-filter=A", "--format=%H", "--", "results/protocol/*/*/run.json").splitlines()[-1:]
    if not fixed or not first:
        pytest.skip("not committed yet")
    base = git("merge-base", fixed, first[0])
    assert base == fixed, "a run was committed before the protocol that it names"
    if fixed != first[0]:
        started = min(run.about["start"] for run in _committed())
        assert git("log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%S", "--format=%ad", fixed) <= started


# ---- tiny runs of a protocol


@pytest.fixture
def tiny(digits) -> Protocol:
    """Two networks, two rates, two seeds: 2 x 2 x 2 runs of the sweep and 2 x 2 x 2 of the budgets, each of a second."""
    return _tiny(digits)


def _tiny(digits) -> Protocol:
    data = json.loads((ROOT / "docs" / "protocol.json").read_text())
    data["dataset"] = {"name": "cluttered-digits", "label": "cluttered-digits", "sha256": digits.digest}
    data["recipe"] |= {"batch_size": 20, "precision": "fp32", "images": N - 20, "test_images": 0}
    data["networks"] = {
        "attention56": "cifar-attention56[width=2]", "resnet74": "cifar-resnet20-basic[width=2]",
    }  # fmt: skip
    data["sweep"] |= {"lr": [0.01, 0.05], "seeds": [1000, 1001], "holdout": 20, "epochs": 2, "presentations": 140}
    data["budgets"] |= {"epochs": [1, 2], "seeds": [0, 1]}
    data["comparisons"]["minus"] = ["resnet74"]
    data["weights"] = {"epochs": 2, "seeds": [0]}
    return Protocol(data, hashlib.sha256(json.dumps(data).encode()).hexdigest())


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    """The whole test set of the small digits."""
    monkeypatch.setitem(DATASETS, "cluttered-digits", DATASETS["cluttered-digits"]._replace(train=N, test=N_TEST))


@pytest.fixture(scope="module")
def told() -> list[str]:
    """The lines that making it prints."""
    return []


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory, told) -> Path:
    """The whole tiny experiment. To be read only."""
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "cluttered-digits", DATASETS["cluttered-digits"]._replace(train=N, test=N_TEST))
        assert run_protocol(out=out, protocol=_tiny(digits), dataset=digits, say=told.append) == 0
    return out


@pytest.fixture
def done(made, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "done")
    return tmp_path / "done"


def same(a: kept.Kept, b: kept.Kept) -> None:
    assert a.id == b.id
    assert a.run
    assert b.run
    assert (a.run.rows, a.run.weights_digest) == (b.run.rows, b.run.weights_digest)
    for name in ("metrics.csv", "correct.bin"):
        assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()


def test_it_makes_the_runs_in_the_order_of_the_protocol_and_keeps_small_files(tiny, made, told) -> None:
    kept_lines = [line for line in told if "kept after" in line]
    names_made = [line.partition(":")[0] for line in kept_lines]
    state = state_of(made / "runs", tiny)
    assert state.is_complete
    assert names_made == [run.id for run in state.planned]
    assert [name.rpartition("-")[0] for name in names_made[:3]] == [
        "sweep-attention56-lr0.01-s1000", "sweep-resnet74-lr0.01-s1000", "sweep-attention56-lr0.05-s1000",
    ]  # fmt: skip
    assert not any("%" in line for line in kept_lines)  # errors are not shown on the way
    for run in read_all(made / "runs"):
        assert run.about["protocol"] == tiny.digest
        assert run.about["cpu_s"] > 0
        assert run.about["resumed"] is False
        wants = run.about["part"] == "budget" and run.config.seed == 0 and run.config.epochs == 2
        names = ["correct.bin", "metrics.csv", "run.json"] + ["weights.pt"] * wants
        assert sorted(p.name for p in run.folder.iterdir()) == names
        assert (run.folder / "correct.bin").stat().st_size == -(-run.config.n_test_images // 8)
        assert sum(p.stat().st_size for p in run.folder.iterdir() if p.suffix != ".pt") < 12_000
        assert str(made) not in (run.folder / "run.json").read_text()
    assert len(read_runs(made / "runs")) == tiny.n_runs
    assert [p for p in (made / ".work").iterdir() if p.is_dir()] == []
    weights = next(made.glob("runs/*attention56-e2-s0*/weights.pt"))
    assert {v.dtype for v in torch.load(weights, weights_only=True).values()} == {torch.bfloat16, torch.int64}
    # Once more: there is nothing to do, and no data are read.
    assert run_protocol(out=made, protocol=tiny, dataset=None, say=lambda line: None) == 0


def test_rates_come_from_the_sweep_by_the_rule(done, tiny) -> None:
    state = state_of(done / "runs", tiny)
    errors = state.errors("sweep")
    for short in tiny.networks:
        means = {lr: sum(errors[short, lr, s] for s in (1000, 1001)) / 2 for lr in (0.01, 0.05)}
        assert state.rates[short] == min(sorted(means), key=means.__getitem__)
        assert {r.config.lr for r in state.planned if (r.part, r.network) == ("budget", short)} == {state.rates[short]}
    found = sweep_of(state)
    assert found
    assert found.df == 3
    assert found.sd_points >= 0
    assert found.detectable_points == pytest.approx(found.sd_points * detectable(2, k=1, n_networks=2))


def test_a_cpu_goes_on_with_the_rates_of_a_complete_sweep_of_another_device(done, tiny) -> None:
    tiny.data["comparisons"]["primary"]["epochs"] = 2
    own = protocol.state_on_cpu(done, tiny)
    swept = done / "whole" / "runs"
    swept.mkdir(parents=True)
    for run in (done / "runs").iterdir():
        if run.name.startswith("sweep") or "-e1-" in run.name:
            run.rename(swept / run.name)
    state = protocol.state_on_cpu(done, tiny)
    assert state.rates == own.rates
    order = [(run.config.epochs, run.config.seed) for run in state.planned if run.part == "budget"]
    assert order == [(e, s) for e in (2, 1) for s in (0, 1) for _ in tiny.networks]  # the primary comparison's first
    # The runs at one epoch on the other device are not this one's: no comparison mixes the two.
    assert {run.config.epochs for run in state.missing} == {1}
    found = experiment(done, tiny)
    assert found.device == "an accelerator (2 epochs: a CPU)"
    assert found.complete_epochs == [1, 2]
    one = next(swept.glob("budget-*-e1-*"))
    one.rename(done / "runs" / one.name)
    found = experiment(done, tiny)  # each device has a part of one epoch
    assert found.complete_epochs == [2]
    assert len(found.state.errors("budget", 1)) == 3
    # A sweep that is not complete gives no rates.
    next(swept.glob("sweep-*")).rename(done / "elsewhere")
    assert protocol.state_on_cpu(done, tiny).rates == {}


def test_of_equal_means_the_lower_rate_is_taken_and_a_rate_that_diverges_is_out(done, tiny) -> None:
    state = state_of(done / "runs", tiny)
    equal = {id: replace(k, run=replace(k.run, rows=({"test_error_pct": 50.0},))) for id, k in state.kept.items()}
    assert protocol.chosen_rates(tiny, equal) == {"attention56": 0.01, "resnet74": 0.01}
    gone = tiny.sweep[0]  # attention56 at 0.01
    assert protocol.chosen_rates(tiny, equal | {gone.id: replace(equal[gone.id], run=None)})["attention56"] == 0.05
    assert protocol.chosen_rates(tiny, {k: v for k, v in equal.items() if k != gone.id}) == {}
    none = {id: replace(k, run=None) for id, k in equal.items()}
    with pytest.raises(ProtocolError, match="attention56 diverged at every rate of the sweep"):
        protocol.chosen_rates(tiny, none)


def test_a_run_that_diverges_is_kept_as_such_and_not_made_again(tiny, digits, tmp_path) -> None:
    tiny.data["sweep"]["lr"][1] = 1e30
    tiny.data["budgets"] |= {"epochs": [1], "seeds": [0]}
    wild = Protocol(tiny.data, "wild")
    lines: list[str] = []
    run_protocol(out=tmp_path, protocol=wild, dataset=digits, say=lines.append)
    state = state_of(tmp_path / "runs", wild)
    assert state.is_complete
    assert set(state.rates.values()) == {0.01}
    diverged = [run for run in state.kept.values() if run.run is None]
    assert len(diverged) == 4
    assert "training loss is " in diverged[0].about["diverged"]
    assert str(tmp_path) not in json.dumps(dict(diverged[0].about))
    assert sum("diverged" in line for line in lines) == 4


KILLED = """
import json, os, signal, sys
from analysis.experiment import protocol
from resattn.training import config, data, kept, loop
from analysis.experiment.protocol import Protocol, run_protocol

settings = json.loads(sys.argv[1])
config.DATASETS["cluttered-digits"] = config.DATASETS["cluttered-digits"]._replace(train=settings["size"][0], test=settings["size"][1])
moment, count = settings["moment"], 0
name, module = {"epoch": ("train_epoch", loop), "keep": ("write_whole", kept), "after": ("bf16_weights", protocol)}[moment]
whole = getattr(module, name)

def die_at_the_third(*args, **kwargs):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)

setattr(module, name, die_at_the_third)
digits = data.digits(train=settings["size"][0], test=settings["size"][1])
run_protocol(out=__import__("pathlib").Path(sys.argv[2]), protocol=Protocol(settings["data"], settings["digest"]), dataset=digits)
"""


def test_an_experiment_that_is_killed_at_three_moments_resumes_to_the_same_bits(done, tiny, digits, tmp_path) -> None:
    out = tmp_path / "killed"
    tiny.data["weights"]["seeds"] = [0, 1]  # so that a third run keeps its weights
    for moment in ("epoch", "keep", "after"):
        settings = {"data": tiny.data, "digest": tiny.digest, "size": [N, N_TEST, 10], "moment": moment}
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, json.dumps(settings), str(out)], capture_output=True, text=True, check=False
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(list(out.glob("runs/[!.]*"))) < tiny.n_runs
    run_protocol(out=out, protocol=tiny, dataset=digits, say=lambda line: None)
    ours, theirs = read_all(out / "runs"), read_all(done / "runs")
    assert len(ours) == tiny.n_runs
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)


def test_two_calls_share_the_work(tiny, digits, tmp_path) -> None:
    first = tiny.sweep[0]
    with protocol._claimed(tmp_path / ".work" / f"{first.id}.lock") as ours:
        assert ours
        with protocol._claimed(tmp_path / ".work" / f"{first.id}.lock") as theirs:
            assert not theirs
        assert protocol._make_one(state_of(tmp_path / "runs", tiny), tmp_path, digits, lambda line: None)
        assert [p.name for p in (tmp_path / "runs").iterdir()] == [tiny.sweep[1].id]
    assert protocol._make_one(state_of(tmp_path / "runs", tiny), tmp_path, digits, lambda line: None)
    assert (tmp_path / "runs" / first.id).is_dir()


def test_a_run_of_another_protocol_is_shown_and_never_counted(done, tiny) -> None:
    other = Protocol(tiny.data, "0" * 64)
    state = state_of(done / "runs", other)
    assert (len(state.kept), len(state.others), state.rates) == (0, tiny.n_runs, {})
    assert "of another protocol or training version, not counted: budget-attention56-e1-s0-" in describe(state)
    assert len(state.missing) == len(other.sweep)
    assert {run.id for run in state.missing}.isdisjoint(run.id for run in state.others)


def test_a_run_of_another_training_version_is_not_counted(done, tiny, monkeypatch) -> None:
    monkeypatch.setattr(record, "TRAINING_VERSION", 2)
    assert not state_of(done / "runs", tiny).kept


def test_the_state_names_how_many_seeds_are_complete(done, tiny) -> None:
    shutil.rmtree(next(done.glob("runs/budget-resnet74-e2-s1-*")))
    words = describe(state_of(done / "runs", tiny))
    assert "15 of 16 runs are kept" in words
    assert "1 x 50,000 presentations: 2 of 2 seeds complete" in words
    assert "2 x 50,000 presentations: 1 of 2 seeds complete" in words
    assert "next: budget-resnet74-e2-s1-" in words


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("run.json", lambda raw: raw[:100], "run.json: not readable as a kept run"),
        ("run.json", lambda raw: raw.replace(b'"seed": 0', b'"seed": 7'), "its config has the digest"),
        ("correct.bin", lambda raw: raw[:-1], "bytes do not hold"),
        ("correct.bin", lambda raw: bytes(255 - b for b in raw), "images right, the record says"),
    ],
)
def test_a_damaged_record_is_refused(done, tiny, file, change, message) -> None:
    path = next(done.glob("runs/budget-resnet74-e2-s0-*")) / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(KeptRunError, match=re.escape(message)):
        state_of(done / "runs", tiny)


def test_other_data_are_refused(tiny, digits, tmp_path, monkeypatch) -> None:
    from resattn.training import data

    monkeypatch.setattr(data, "load", lambda name: data.digits(1, train=N, test=N_TEST))
    with pytest.raises(ProtocolError, match="the protocol is about cluttered-digits, sha256 .* found cluttered-digits"):
        run_protocol(out=tmp_path, protocol=tiny, say=lambda line: None)
    with pytest.raises(ConfigError, match="the protocol needs at least 1 core, not 0"):
        run_protocol(out=tmp_path, protocol=tiny, cores=0)


def test_a_broken_protocol_is_refused(tmp_path) -> None:
    with pytest.raises(ProtocolError, match="no protocol; `study protocol` needs a clone"):
        read_protocol(tmp_path / "protocol.json")
    for text in ("{", "{}", json.dumps(json.loads(Path(protocol.PROTOCOL).read_text()) | {"networks": {"a": "resnt"}})):
        (tmp_path / "protocol.json").write_text(text)
        with pytest.raises(ProtocolError, match="not readable as a protocol"):
            read_protocol(tmp_path / "protocol.json")


def test_the_command_shows_the_plan_and_refuses_what_the_protocol_fixes(tmp_path, capsys) -> None:
    from resattn.cli import main

    assert main(["study", "protocol", "--dry-run", "--out", str(tmp_path)]) == 0
    assert "0 of 128 runs are kept\nnext: sweep-attention56-lr0.0125-s1000-" in capsys.readouterr().out
    assert main(["study", "protocol", "--dry-run", "--dataset", "cifar10"]) == 2
    assert "--dataset is not for the protocol" in capsys.readouterr().err


def test_a_run_of_the_loop_can_be_kept_by_itself(tiny, digits, tmp_path) -> None:
    run = train(tiny.sweep[1].config, tmp_path / "run", dataset=digits, say=lambda line: None)
    bits = (tmp_path / "run" / "correct.bin").read_bytes()
    kept.keep(tmp_path / "kept" / "one", run, bits, {"protocol": "p"})
    found = read_kept(tmp_path / "kept" / "one")
    assert found.run == replace(run, out_dir="one")
    assert len(packed(torch.ones(20, dtype=torch.bool))) == len(bits) == 3
    assert not [p for p in os.listdir(tmp_path / "kept") if p.startswith(".")]
