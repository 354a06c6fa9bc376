"""From made-up runs to one conclusion, everywhere it is shown."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import made_up
import pandas as pd
import pytest
import studies

from analysis.claims.ledger import ledger
from analysis.claims.trained import judge_study, measured_runs
from analysis.docs import _differences
from analysis.report.build import build_report
from analysis.report.facts import training as report
from analysis.report.reading import read_study
from analysis.statistics import conclusions
from analysis.tables import schemas
from analysis.tables.files import FrameError
from analysis.tables.runs import run_frame
from resattn.claims.measured import measure
from resattn.claims.verdicts import Finding

COPY = "CIFAR-10 (JPEG q75 copy)"
MIXED, CHANNEL, SPATIAL = (
    "cifar-attention56[width=8]", "cifar-attention56[gate=channel][width=8]", "cifar-attention56[gate=spatial][width=8]",
)  # fmt: skip
WIGGLE = [0.0, 0.4, -0.3, 0.2, -0.4, 0.1, -0.1, 0.3, -0.2]


def run(network: str, seed: int, error: float, **changes: Any) -> dict[str, Any]:
    return made_up.run(network, seed, error, **{"dataset": COPY} | changes)


def runs(means: dict[str, float], seeds: int, **changes: Any) -> pd.DataFrame:
    return pd.DataFrame(
        [
            run(name, seed, mean + seed / 10 + WIGGLE[(seed + 3 * k) % 9], **changes)
            for k, (name, mean) in enumerate(means.items())
            for seed in range(seeds)
        ]
    )


CASES = {
    # errors of (mixed, channel, spatial), seeds -> order of mixed beside channel, and beside spatial
    "clear": ((40.0, 44.0, 37.0), 7, ("lower", "higher")),
    "equal": ((40.0, 40.1, 39.9), 7, ("", "")),
    "too few seeds": ((40.0, 44.0, 37.0), 6, ("", "")),
    "near chance": ((80.0, 84.0, 77.0), 7, ("", "")),
    "one near chance": ((40.0, 84.0, 37.0), 7, ("", "higher")),
}
FINDINGS = {"lower": Finding.CONFIRMED, "higher": Finding.OFF, "": Finding.NOT_TESTABLE}


@pytest.mark.parametrize("case", CASES)
def test_page_report_docs_and_ledger_never_disagree_about_an_order(tmp_path: Path, case: str) -> None:
    means, seeds, orders = CASES[case]
    made = runs(dict(zip((MIXED, CHANNEL, SPATIAL), means, strict=True)), seeds)
    differences = conclusions.difference_frame(made)  # twins, as the study of gates compares them
    by = differences.set_index("network")
    assert (by.loc[CHANNEL, "order"], by.loc[SPATIAL, "order"]) == orders
    assert differences.drop(columns="equivalence").equals(
        conclusions.difference_frame(made, MIXED).drop(columns="equivalence")
    )

    tables = {schemas.RUNS: made.to_dict("records"), schemas.DIFFERENCES: differences.to_dict("records")}
    studies.done(tmp_path, "60_compare", tables)
    study = read_study(tmp_path)
    rows = report.differences(study)
    answer, docs = report.pays(report.training(study), rows), _differences(rows)
    page = html.unescape(build_report(tmp_path).read_text(encoding="utf-8"))

    claims = [claim for claim in ledger() if claim.id in ("article.8.f1_below_f2", "article.8.f1_below_f3")]
    found = judge_study(claims, measure, measured_runs(made), conclusions.every_order(made))
    for verdict, network, order in zip(found, (CHANNEL, SPATIAL), orders, strict=True):
        row = by.loc[network]
        assert verdict.finding == FINDINGS[order], verdict.why
        for text in (verdict.why, answer, page):
            assert row["conclusion"] in text
        assert row["scope"] in verdict.why
        # The page states the scope of intervals, where there are any.
        has_interval = row["scope"] in {other.scope for other in rows if other.low is not None}
        assert (row["scope"] in answer, row["scope"] in page) == (has_interval, has_interval)
        if order:
            assert f"points {order} than" in row["conclusion"]
            assert f"adjusted p = {row['p_value']:.2g}" in row["conclusion"]
            assert f"{row['mean']:+.2f} | {row['low']:.2f} to {row['high']:.2f} | {row['p_value']:.2g}" in docs
        else:
            assert "points lower" not in row["conclusion"]
            assert "points higher" not in row["conclusion"]


def test_a_sentence_says_what_by_how_much_and_for_what() -> None:
    found = conclusions.difference_frame(runs({MIXED: 40.0, CHANNEL: 44.0}, 7).iloc[:-1], MIXED).iloc[0]
    said = found["conclusion"]
    assert said.startswith("CIFAR Attention-56 (width=8)'s test error is ")
    assert f"95 % simultaneous interval {found['low']:+.2f} to {found['high']:+.2f}, adjusted p = " in said
    assert found["scope"] == (
        "Model: test error ~ network + seed, 2 networks, 6 seeds (left out, as not every network has them: 6), corrected "
        "for 1 comparison. It holds for training 4 epochs on the first 2,000 images of CIFAR-10 (JPEG q75 copy). All "
        "runs share the test images, whose sampling is not part of the intervals."
    )


def test_runs_of_another_budget_are_not_compared_and_named() -> None:
    mixed = pd.concat([runs({MIXED: 40.0}, 6), runs({CHANNEL: 44.0}, 6, epochs=1)])
    found = conclusions.difference_frame(mixed, MIXED).iloc[0]
    assert (found["n"], found["order"]) == (0, "")
    assert found["conclusion"] == (
        "CIFAR Attention-56 (width=8) and CIFAR Attention-56 (gate=channel, width=8) are not compared: no runs of both "
        "with the same data and budget."
    )
    assert conclusions.pair_frame(mixed, MIXED).empty


def test_label_noise_is_part_of_the_budget() -> None:
    both = pd.concat([runs({"ours": 40.0, "theirs": 41.0}, n, label_noise=noise) for n, noise in ((7, 0.0), (6, 0.3))])
    found = conclusions.difference_frame(both, "ours")
    assert list(found["n"]) == [7, 6]
    assert "with 30 % label noise" in found["conclusion"].iloc[1]
    assert set(conclusions.pair_frame(both, "ours").groupby("label_noise").size()) == {7, 6}


def test_a_run_that_is_there_twice_is_refused() -> None:
    twice = pd.concat([runs({"ours": 40.0, "theirs": 41.0}, 2)] * 2)
    with pytest.raises(FrameError, match="two runs of ours with seed 0 and one budget"):
        conclusions.difference_frame(twice, "ours")


def test_without_a_reference_each_network_meets_the_one_without_its_setting() -> None:
    names = ("a[width=8]", "a[gate=channel][width=8]", "b[width=8]", "b[merge=naive][width=8]", "c[width=8]")
    pairs = conclusions.pair_frame(pd.DataFrame([run(name, 0, 10.0 + k) for k, name in enumerate(names)]))
    found = {row.network: (row.reference, row.difference) for row in pairs.itertuples()}
    assert found == {names[1]: (names[0], -1.0), names[3]: (names[2], -1.0)}
    with pytest.raises(FrameError, match="no network has a twin without its settings"):
        conclusions.pair_frame(runs({"ours": 1.0, "theirs": 2.0}, 1))
    with pytest.raises(FrameError, match=r"no run of 'other' \(there are runs of: ours\)"):
        conclusions.pair_frame(runs({"ours": 1.0}, 1), "other")


def test_a_mean_keeps_its_range_and_needs_six_runs() -> None:
    for seeds, has in ((6, True), (5, False)):
        row = conclusions.comparison_frame(runs({"ours": 40.0}, seeds)).set_index("quantity").loc["test_error_pct"]
        assert pd.notna(row["low"]) == pd.notna(row["high"]) == has
        assert row["least"] < row["mean"] < row["largest"]
    assert "peak_memory_bytes" not in set(conclusions.comparison_frame(runs({"ours": 40.0}, 1))["quantity"])


@pytest.mark.parametrize(
    ("dataset", "chance"),
    [(COPY, 90), ("CIFAR-100 (official binary)", 99), ("cluttered-digits", 90), ("something", None)],
)
def test_the_chance_level_is_that_of_the_dataset(dataset: str, chance: float | None) -> None:
    assert conclusions.chance_pct(dataset) == (chance if chance is None else pytest.approx(chance))


def test_the_runs_in_the_repository_are_short_of_one_seed() -> None:
    kept = run_frame(Path(__file__).parents[2] / "results" / "reference" / "50_train")
    found = conclusions.difference_frame(kept, "cifar-attention56")
    assert set(found["conclusion"]) == {
        "No order is claimed: all networks share 6 seeds, and 3 comparisons need at least 7."
    }
