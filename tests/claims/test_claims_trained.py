"""What training runs say of the ledger: print is tested by its own recipe alone, a direction by any budget."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.claims import background
from analysis.claims.ledger import ledger
from analysis.claims.trained import (
    PRINTED,
    judge_study,
    measured_background,
    measured_depth,
    measured_runs,
    published_beside,
    subject_of,
)
from analysis.statistics.conclusions import every_order
from analysis.trained.comparisons import printed_responses
from resattn.claims.claims import Claim
from resattn.claims.measured import measure
from resattn.claims.verdicts import Finding, Verdict

OFFICIAL, COPY = "CIFAR-10 (official binary)", "CIFAR-10 (JPEG q75 copy)"
RECIPE = {**PRINTED, "epochs": 205, "images": 50_000, "dataset": OFFICIAL}
SHORT = {**PRINTED, "lr": 0.05, "epochs": 4, "images": 2_000, "batch_size": 16, "dataset": COPY}


def runs(network: str, errors: list[float], *, noise: float = 0.0, **budget: object) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"network": network, "seed": seed, "test_error_pct": error, "label_noise": noise, **budget}
            for seed, error in enumerate(errors)
        ]
    )


@pytest.fixture(scope="module")
def claims() -> tuple[Claim, ...]:
    """The ledger's rows about training, and those that give the recipe."""
    return tuple(c for c in ledger() if c.allowed.kind == "statistical" or c.id.startswith("s41.recipe"))


def verdicts(claims: tuple[Claim, ...], measured: pd.DataFrame) -> dict[str, Verdict]:
    return {verdict.claim.id: verdict for verdict in judge_study(claims, measure, measured)}


def test_nothing_trained_leaves_every_training_claim_open(claims: tuple[Claim, ...]) -> None:
    found = verdicts(claims, measured_runs())
    assert list(found) == [claim.id for claim in claims]
    by_print = {Finding.MISQUOTES, Finding.CONTRADICTS, Finding.SUPERSEDED}  # what other rows print decides these
    for verdict in found.values():
        if verdict.claim.allowed.kind == "statistical" and verdict.finding not in by_print:
            assert (verdict.finding, bool(verdict.reason)) == (Finding.NOT_TESTABLE, True)


def test_a_printed_error_is_tested_by_its_recipe_alone(claims: tuple[Claim, ...]) -> None:
    whole = measured_runs(runs("cifar-attention56", [5.4, 5.5, 5.6], **RECIPE))
    found = verdicts(claims, whole)
    assert found["t1.f1.c10"].finding == Finding.CONFIRMED  # 5.52
    assert found["t1.f2.c10"].finding == Finding.NOT_TESTABLE  # another gate
    far = verdicts(claims, measured_runs(runs("cifar-attention56", [8.4, 8.5, 8.6], **RECIPE)))
    assert far["t1.f1.c10"].finding == Finding.OFF
    changes = {
        "lr": 1e-5, "momentum": 0.5, "weight_decay": 0.0, "milestones": "[0.6, 0.85]", "decay": 0.2, "augment": "none",
        "normalise": "channel", "precision": "bf16", "test_images": 1000, "schedule": "linear", "warmup": 0.1, "holdout": 10, "presentations": 10, "batch_size": 32, "epochs": 8, "images": 10_000,
        "dataset": COPY,
    }  # fmt: skip
    assert set(PRINTED) <= set(changes)
    for change in [{name: value} for name, value in changes.items()] + [{"epochs": 300}, {"lr": None}]:
        short = measured_runs(runs("cifar-attention56", [8.4, 8.5, 8.6], **{**RECIPE, **change}))
        assert verdicts(claims, short)["t1.f1.c10"].finding == Finding.NOT_TESTABLE, change
    narrow = measured_runs(runs("cifar-attention56[width=8]", [5.4, 5.5, 5.6], **RECIPE))
    assert verdicts(claims, narrow)["t1.f1.c10"].finding == Finding.NOT_TESTABLE


# Differences between networks that are judged by `conclusions`: tests/statistics/test_conclusions.py.
def test_a_direction_is_tested_at_one_width_and_by_enough_seeds(claims: tuple[Claim, ...]) -> None:
    def orders(**errors: float) -> dict[str, Verdict]:
        made = pd.concat(
            runs(f"cifar-attention56{name}", [error * (1 + k % 3 / 100) + k for k in range(6)], **SHORT)
            for name, error in errors.items()
        )
        return verdicts_of(made)

    def verdicts_of(made: pd.DataFrame) -> dict[str, Verdict]:
        found = judge_study(claims, measure, measured_runs(made), every_order(made))
        return {verdict.claim.id: verdict for verdict in found}

    # Of another width the networks are no test of the gate.
    unlike = orders(**{"[width=8]": 40.0, "[gate=channel][width=4]": 50.0})
    assert unlike["article.8.f1_below_f2"].finding == Finding.NOT_TESTABLE
    assert "no runs of both networks at one width" in unlike["article.8.f1_below_f2"].why
    alike = orders(**{"[width=8]": 40.0, "[gate=channel][width=8]": 50.0})
    assert alike["article.8.f1_below_f2"].finding == Finding.CONFIRMED
    assert alike["article.8.f1_below_f2"].why.endswith("At width 8.")
    assert alike["t1.f1.c10"].finding == Finding.NOT_TESTABLE
    three = pd.concat(
        [
            runs(f"cifar-attention56{n}[width=8]", [e, e + 1, e + 2.1], **SHORT)
            for n, e in (("", 40.0), ("[gate=channel]", 50.0))
        ]
    )
    assert verdicts_of(three)["article.8.f1_below_f2"].finding == Finding.NOT_TESTABLE


@pytest.mark.parametrize(("naive", "finding"), [(50.0, Finding.CONFIRMED), (30.0, Finding.OFF)])
def test_a_direction_of_the_paper_is_decided_by_the_rule_of_the_comparison_page(
    claims: tuple[Claim, ...], naive: float, finding: Finding
) -> None:
    made = pd.concat(
        runs(f"cifar-attention56{name}[width=8]", [error * (1 + k % 3 / 100) + k for k in range(6)], **SHORT)
        for name, error in (("", 40.0), ("[merge=naive]", naive))
    )
    found = {v.claim.id: v for v in judge_study(claims, measure, measured_runs(made), every_order(made))}
    assert found["dir.arl_below_nal.m1"].finding == finding
    assert found["dir.arl_below_nal.m1"].off_pct is None
    assert found["dir.arl_below_nal.m2"].reason == "needs that recipe"


def test_the_response_of_naive_attention_is_held_against_that_of_residual_attention(claims: tuple[Claim, ...]) -> None:
    networks = {"cifar-attention164": 0.5, "cifar-attention164[merge=naive]": 0.02}
    trained = pd.concat(runs(name, [20.0 + k for k in range(6)], **SHORT) for name in networks)
    responses = pd.DataFrame(
        [
            {"network": name, "dataset": COPY, "seed": seed, "place": "output", "stage": stage, "relative": value + seed / 1000}
            for name, second in networks.items()
            for seed in range(6)
            for stage, value in (("stage1", 1.0), ("stage2", second), ("stage3", 0.3))
        ]
    )  # fmt: skip
    verdict = verdicts(claims, measured_runs(trained, responses=responses))["dir.nal_vanishes"]
    assert verdict.finding == Finding.CONFIRMED
    assert "at a budget of our own" in verdict.why


def test_runs_on_other_data_say_nothing_about_cifar(claims: tuple[Claim, ...]) -> None:
    digits = {**SHORT, "dataset": "cluttered-digits"}
    both = [
        runs("cifar-attention56", [1.0, 2.0, 3.0], **digits),
        runs("cifar-attention56[gate=channel]", [9.0] * 3, **digits),
    ]
    assert measured_runs(pd.concat(both)).empty
    noisy = measured_runs(runs("cifar-attention92", [9.0], noise=0.3, **RECIPE))
    assert set(noisy["quantity"]) == {"cifar10_error_noise30_final_epoch", "cifar10_error_noise30_unstated"}
    assert measured_runs(runs("cifar-attention92", [9.0], noise=0.25, **RECIPE)).empty  # print has no such level


# ---- claim 6 of the article, by its rule


def interventions(differences: list[float], network: str = "cifar-attention56[width=8]") -> pd.DataFrame:
    rows = [
        {"network": network, "dataset": "cluttered-digits", "seed": seed, "intervention": kind, "test_error_pct": error}
        for seed, difference in enumerate(differences)
        for kind, error in ((background.OBJECT, 10 + difference), (background.GROUND, 10.0))
    ]
    return pd.DataFrame(rows)


def masks(n: int, area: float, error: float = 9.0, network: str = "cifar-attention56[width=8]") -> pd.DataFrame:
    rows = [
        {"network": network, "dataset": "cluttered-digits", "seed": seed, "state": state, "map": name, "quantity": "auc",
         "test_error_pct": error, "value": value if state == "after" else 0.9}
        for seed in range(n)
        for state in ("before", "after")
        for name, value in (("mask", area), ("other image", 0.5))
    ]  # fmt: skip
    return pd.DataFrame(rows)


SIX = [4.0, 5.0, 6.0, 5.5, 4.5, 5.2]


@pytest.mark.parametrize(
    ("differences", "area", "error", "words", "finding"),
    [
        (SIX, 0.7, 9.0, "filters the ground", Finding.CONFIRMED),
        (SIX, 0.4, 9.0, "does not filter the ground", Finding.OFF),  # it matters, but it is low on the object
        ([-d for d in SIX], 0.7, 9.0, "does not filter the ground", Finding.OFF),
        ([1.0, -1.0, 2.0, -2.0, 0.5, -0.4], 0.7, 9.0, "not decided", Finding.NOT_TESTABLE),
        ([1.0, -1.0, 2.0, -2.0, 0.5, -0.4], 0.4, 9.0, "does not filter the ground", Finding.OFF),
        (SIX[:3], 0.7, 9.0, "not decided", Finding.NOT_TESTABLE),  # too few seeds
        (SIX, 0.7, 85.0, "not decided, but the network is near chance level", Finding.NOT_TESTABLE),
    ],
)  # fmt: skip
def test_the_rule_for_the_background(claims, differences, area, error, words, finding) -> None:
    tables = interventions(differences), masks(len(differences), area, error)
    (found,) = background.filtering(*tables)
    assert found.why.startswith(words)
    assert list(found.differences.values()) == pytest.approx(differences)
    of_cifar = measured_runs(runs("cifar-attention56", [90.0], **SHORT))  # which have no part in it
    verdict = verdicts(claims, pd.concat([of_cifar, measured_background(*tables)]))["article.6.foreground"]
    assert verdict.finding == finding
    assert verdict.why == f"{found.why}; at a budget of our own: cluttered-digits, width 8"
    naive = "cifar-attention56[merge=naive][width=8]"
    of_another = measured_background(interventions(differences, naive), masks(len(differences), area, error, naive))
    assert verdicts(claims, of_another)["article.6.foreground"].finding == Finding.NOT_TESTABLE


def test_the_rule_is_on_the_page_of_masks() -> None:
    notebook = Path(__file__).parents[2] / "notebooks" / "70_masks.ipynb"
    assert "background.RULE" in notebook.read_text(encoding="utf-8")


# ---- the depth that is used


def depth_used(shares: list[tuple[float, float]], network: str = "cifar-resnet110-basic") -> pd.DataFrame:
    """`shares`: by seed, of the paths of 36 layers, before and after training; the rest is that of 38."""
    rows = [
        {"network": network, "dataset": COPY, "seed": seed, "n_images": 8, "state": state, "paths": "all",
         "length": length, "share": share if length == 36 else 1 - share}
        for seed, pair in enumerate(shares)
        for state, share in zip(("before", "after"), pair, strict=True)
        for length in (36, 38)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("after", "error", "finding"),
    [([0.6, 0.9, 0.51], 40.0, Finding.CONFIRMED), ([0.1, 0.2, 0.4], 40.0, Finding.OFF),
     ([0.6, 0.2, 0.9], 40.0, Finding.NOT_TESTABLE),  # it is said of any such network
     ([0.6, 0.9], 40.0, Finding.NOT_TESTABLE), ([0.6, 0.9, 0.51], 80.0, Finding.NOT_TESTABLE)],
)  # fmt: skip
def test_the_paths_that_carry_the_gradient(claims, after, error, finding) -> None:
    trained = runs("cifar-resnet110-basic", [error] * len(after), **SHORT)
    measured = measured_depth(trained, depth_used([(0.001, share) for share in after]))
    verdict = verdicts(claims, measured)["veit.range"]
    assert verdict.finding == finding
    if finding in (Finding.CONFIRMED, Finding.OFF):
        assert "an interval needs at least 6" in verdict.why
        assert "0.001, 0.001, 0.001 with their random weights" in verdict.why
        assert "at a budget of our own: 4 epochs of 2,000 images" in verdict.why
    assert measured_depth(trained, depth_used([(0.1, 0.2)], "cifar-attention56[width=8]")).empty


def test_stage_responses_belong_to_their_stage(claims: tuple[Claim, ...]) -> None:
    trained = runs("cifar-resnet164", [5.4, 5.5, 5.6], **RECIPE)
    responses = pd.DataFrame(
        [
            {"network": "cifar-resnet164", "dataset": OFFICIAL, "seed": seed, "place": "output", "stage": stage,
             "relative": value + 0.004 * seed}
            for seed in range(3)
            for stage, value in (("stage1", 1.0), ("stage2", 0.56), ("stage3", 0.9))
        ]
    )  # fmt: skip
    found = verdicts(claims, measured_runs(trained, responses=responses))
    assert found["f4.resnet164.stage2"].finding == Finding.CONFIRMED  # 0.566
    assert found["f4.resnet164.stage3"].finding == Finding.OFF  # 0.302
    assert found["f4.arl.stage2"].finding == Finding.NOT_TESTABLE


def test_print_stands_beside_ours_and_says_what_differs() -> None:
    table = pd.concat(
        [
            runs("cifar-attention56[merge=naive][width=8]", [50.0, 52.0], **SHORT),
            runs("cifar-attention164", [4.3], **RECIPE),
            runs("cifar-resnet56", [6.0], **SHORT),
        ]
    )
    beside = published_beside(table, "wang2017", "Table 3").set_index("id")
    assert list(beside.index) == ["t3.attention56.nal", "t3.attention164.arl"]
    naive = beside.loc["t3.attention56.nal"]
    assert (naive["printed"], naive["ours"], naive["n"]) == (5.89, 51.0, 2)
    assert naive["difference"] == (
        "printed: 204.8 epochs of 50,000 images in batches of 64, full width, CIFAR-10; "
        "ours: 4 epochs of 2,000 images in batches of 16, width 8, CIFAR-10 (JPEG q75 copy); lr 0.05 (printed: 0.1)"
    )
    assert beside.loc["t3.attention164.arl", "difference"] == "the printed recipe"
    noisy = runs("cifar-attention92[width=4]", [60.0], noise=0.7, **SHORT)
    assert list(published_beside(noisy, "wang2017", "Table 5")["printed"]) == [15.75]
    assert published_beside(table, "wang2017", "Table 7").empty


def test_a_width_is_part_of_the_budget_and_no_part_of_the_subject() -> None:
    assert str(subject_of("cifar-attention56[gate=channel][width=8]")) == "cifar-attention56 gate=channel"
    assert str(subject_of("cifar-attention56[width=8, merge=naive]")) == "cifar-attention56 merge=naive"


def test_the_printed_curves_of_figure_4() -> None:
    names = [
        "cifar-attention164[width=4]",
        "cifar-attention164[merge=naive][width=4]",
        "cifar-resnet164",
        "cifar-resnet56",
    ]
    assert printed_responses(names) == {
        names[0]: [1.0, 0.524, 0.299], names[1]: [1.0, 0.016, 0.009], names[2]: [1.0, 0.566, 0.302],
    }  # fmt: skip
