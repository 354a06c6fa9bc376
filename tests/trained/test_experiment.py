"""The experiment's page: nothing of a budget before it is complete, and then the protocol's model. Errors are made up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest

from analysis.experiment.protocol import BUDGET, SWEEP, Planned, State, chosen_rates, read_protocol
from analysis.figures.experiment import error_by_budget, rate_sweep
from analysis.statistics.comparisons import compare_networks
from analysis.tables import schemas
from analysis.tables.files import FrameError, check_frame
from analysis.tables.provenance import ROOT
from analysis.trained.experiment import (
    Experiment,
    budget_frame,
    comparisons,
    expected_frame,
    experiment,
    outcome_words,
    progress_words,
    replaced_masks,
    replaced_summary,
    slope,
    sweep_frame,
    sweep_words,
)

PROTOCOL = read_protocol()
RUNS, WHOLE_RUNS = ROOT / "results" / "protocol" / "runs", ROOT / "results" / "protocol" / "whole" / "runs"
BEST = {"attention56": 0.05, "constant": 0.1, "resnet74": 0.025, "resnet83": 0.025}
SHIFT = {"attention56": 0.0, "constant": 2.0, "resnet74": 0.0, "resnet83": 0.5}


def error_of(run: Planned) -> float | None:
    """Of the sweep least at BEST; of the budgets falling with the epochs, with a seed's part and a run's own."""
    c = run.config
    if run.part == SWEEP:
        return 50 + 10 * abs(c.lr - BEST[run.network]) + 0.01 * (c.seed % 7)
    own = 0.1 * ((7 * c.seed + len(run.network)) % 5 - 2)
    return 60 - 10 * c.epochs**0.5 + 0.3 * c.seed + SHIFT[run.network] * (1 + c.epochs / 4) + own


def made(keep: Callable[[Planned], bool], error: Callable[[Planned], float | None] = error_of) -> Experiment:
    def kept(run: Planned) -> Any:
        value = error(run)
        speed = {"resnet74": 103.0, "attention56": 100.0}.get(run.network, 90.0)
        ran = SimpleNamespace(test_error_pct=value, images_per_s=speed, elapsed_s=10.0 * run.config.epochs)
        return SimpleNamespace(run=None if value is None else ran)

    runs = {run.id: kept(run) for run in PROTOCOL.sweep if keep(run)}
    rates = chosen_rates(PROTOCOL, runs)
    planned = PROTOCOL.sweep + (PROTOCOL.budgets(rates) if rates else ())
    runs |= {run.id: kept(run) for run in planned if run.part == BUDGET and keep(run)}
    return Experiment(State(protocol=PROTOCOL, kept=runs, others=(), rates=rates, planned=planned), "a CPU")


WHOLE = made(lambda run: True)


def test_before_the_sweep_is_complete_there_is_no_rate() -> None:
    found = made(lambda run: run.config.seed == 1000)
    assert progress_words(found) == (
        "16 of the protocol's 128 runs are kept; they were made on a CPU. The sweep of learning rates has 16 of its 32 "
        "runs; no rate is chosen."
    )
    frame = sweep_frame(found)
    check_frame(frame, schemas.SWEEP)
    assert not frame["chosen"].any()
    assert sweep_words(found) == outcome_words(found, budget_frame(found)) == ""
    assert budget_frame(found).empty


def test_a_budget_is_compared_when_all_its_seeds_are_there_and_not_before() -> None:
    last = ("resnet83", 4, 7)
    found = made(lambda run: (run.network, run.config.epochs, run.config.seed) != last)
    assert found.complete_epochs == [1, 2]
    assert "127 of the protocol's 128" in progress_words(found)
    assert "4 epochs: 7 of 8 seeds are complete, so nothing is compared yet." in progress_words(found)
    budgets = budget_frame(found)
    assert set(budgets["epochs"]) == {1, 2}
    assert "Primary" not in outcome_words(found, budgets)
    assert slope(found, budgets) == ()
    assert WHOLE.complete_epochs == [1, 2, 4]
    assert "Primary comparison, 4 epochs" in outcome_words(WHOLE, budget_frame(WHOLE))


def test_the_comparisons_are_those_of_the_one_rule() -> None:
    budgets = budget_frame(WHOLE)
    check_frame(budgets, schemas.BUDGETS)
    assert len(budgets) == 96
    names = PROTOCOL.networks
    by_hand = {
        names[s]: {r.config.seed: error_of(r) for r in WHOLE.state.planned if (r.network, r.config.epochs, r.part) == (s, 4, BUDGET)}
        for s in names
    }  # fmt: skip
    for ours, theirs in zip(comparisons(WHOLE, budgets)[4], compare_networks(by_hand, names["attention56"], chance=90), strict=True):  # fmt: skip
        assert (ours.network, ours.df) == (theirs.network, 21)
        assert (ours.mean, ours.low, ours.p_value) == pytest.approx((theirs.mean, theirs.low, theirs.p_value))
    # attention56 - resnet83 is -0.5 (1 + epochs / 4), and each run's own part: its slope over 0, 1, 2 doublings.
    own = [0.1 * ((7 * s + 11) % 5 - (7 * s + 8) % 5) for s in range(8)]
    for seed, found in enumerate(slope(WHOLE, budgets)):
        values = [own[seed] - 0.5 * (1 + e / 4) for e in (1, 2, 4)]
        assert found == pytest.approx((values[2] - values[0]) / 2)


def test_a_run_that_diverged_counts_as_chance_level() -> None:
    bad = ("constant", 1, 3)
    found = made(
        lambda run: True,
        lambda run: None if (run.network, run.config.epochs, run.config.seed) == bad else error_of(run),
    )
    budgets = budget_frame(found)
    row = budgets[
        (budgets["network"] == PROTOCOL.networks["constant"]) & (budgets["epochs"] == 1) & (budgets["seed"] == 3)
    ]
    assert row["test_error_pct"].tolist() == [90.0]
    check_frame(budgets, schemas.BUDGETS)


def test_the_rates_are_those_of_the_rule_and_an_edge_is_named() -> None:
    words = sweep_words(WHOLE)
    for short, lr in BEST.items():
        assert WHOLE.state.rates[short] == lr
    assert "At the edge of the grid: CIFAR Attention-56 (mask=constant, width=8)." in words
    assert "is also the twin of equal training time: 1.03 of the images per second." in words


def test_what_came_out_stands_beside_what_was_expected_and_no_comparison_comes_early(tmp_path) -> None:
    frame = expected_frame(WHOLE, budget_frame(WHOLE))
    check_frame(frame, schemas.EXPECTED)
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").replace("`", "")
    assert all(f"- {said}\n" in text for said in frame["expected"])
    below, primary, shrinks, rates = frame["came_out"]
    by = {c.network: c for c in comparisons(WHOLE, budget_frame(WHOLE))[4]}
    c = by[PROTOCOL.networks["resnet83"]]
    assert primary == f"4 epochs: {c.mean:+.2f} points ({c.low:+.2f} to {c.high:+.2f})."
    assert below.count(" points (") == 3
    assert shrinks in outcome_words(WHOLE, budget_frame(WHOLE))
    assert rates == (
        "They lie between 0.025 and 0.1; that of CIFAR Attention-56 (width=8) is not lower than that of CIFAR ResNet-83 "
        "(width=8). 0.1 is the edge of the grid."
    )
    early = made(lambda run: run.part == SWEEP or run.config.seed < 4)
    below, primary, shrinks, _ = expected_frame(early, budget_frame(early))["came_out"]
    assert primary == "4 epochs: 4 of 8 seeds are complete."
    assert below == shrinks == "1 epoch: 4 of 8 seeds are complete; 2 epochs: 4 of 8 seeds are complete; " + primary
    (tmp_path / "protocol.md").write_text(text.replace("- The chosen rates", "The chosen rates"))
    with pytest.raises(FrameError, match="protocol.md lists 3 expectations, 4 outcomes are known"):
        expected_frame(WHOLE, budget_frame(WHOLE), tmp_path / "protocol.md")


def test_the_figures_say_what_they_show() -> None:
    _, axes = plt.subplots(1, 2)
    assert "CIFAR ResNet-74 (width=8)" in rate_sweep(axes[0], sweep_frame(WHOLE))
    for id in ("epochs", "training_macs", "elapsed_s"):
        assert "at 4 epochs" in error_by_budget(axes[1], budget_frame(WHOLE), id)
    plt.close()


def test_the_kept_runs_of_the_repository_are_read() -> None:
    found = experiment()
    assert found.protocol.digest == PROTOCOL.digest
    of_kinds = [{run.name for run in folder.iterdir()} for folder in (RUNS, WHOLE_RUNS)]
    for part in [
        SWEEP,
        *(rf"{BUDGET}-\w+-e{n}-" for n in (1, 2, 4)),
    ]:  # all of a part from one kind of device, the larger
        own = [{name for name in names if re.match(part, name)} for names in of_kinds]
        assert {name for name in found.state.kept if re.match(part, name)} == max(own[::-1], key=len)
    check_frame(sweep_frame(found), schemas.SWEEP)


def test_a_damaged_run_is_named(tmp_path) -> None:
    one = next(RUNS.iterdir())
    place = tmp_path / "runs" / one.name
    place.mkdir(parents=True)
    (place / "run.json").write_text("{")
    with pytest.raises(FrameError, match="run.json"):
        experiment(tmp_path)


def test_masks_replaced_beside_the_protocol(tmp_path: Path) -> None:
    assert list(replaced_summary(replaced_masks(tmp_path), tmp_path)) == schemas.REPLACED_MASKS.names
    kept = replaced_masks()
    means = replaced_summary(kept)
    check_frame(means, schemas.REPLACED_MASKS)
    assert set(means["epochs"]) == {1}
    assert dict(zip(means["network"], means["n"], strict=True)) == dict(kept.groupby("network")["seed"].nunique())
