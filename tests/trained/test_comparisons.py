"""Comparisons of runs. The numbers are made up: only their arithmetic is tested."""

from __future__ import annotations

import pandas as pd
import pytest
from made_up import run, runs

from analysis.tables.files import FrameError
from analysis.tables.runs import budget
from analysis.trained.comparisons import comparison_frame, difference_frame, pair_frame


def test_pairs_are_those_of_one_seed_and_budget() -> None:
    more = pd.concat([runs(), pd.DataFrame([run("theirs", 7, 50.0), run("theirs", 0, 60.0, epochs=1)])])
    pairs = pair_frame(more, "ours")
    assert dict(zip(pairs["seed"], pairs["difference"], strict=True)) == {0: -3.0, 1: -0.5, 2: -1.0}
    differences = difference_frame(pairs).iloc[0]
    assert (differences["n"], differences["mean"]) == (3, pytest.approx(-1.5))
    assert pd.isna(differences["p_value"])
    assert "6 pairs" in differences["note"]
    assert differences["equivalence"].startswith("3 pairs: nothing is said about a margin of 1")


def test_runs_with_other_label_noise_are_no_pair() -> None:
    noisy = [run(n, seed, 40.0 + (n == "theirs"), label_noise=0.3) for n in ("ours", "theirs") for seed in (0, 1)]
    pairs = pair_frame(pd.concat([runs(), pd.DataFrame(noisy)]), "ours")
    assert dict(pairs.groupby("label_noise")["difference"].mean()) == {0.0: pytest.approx(-1.5), 0.3: -1.0}
    assert list(difference_frame(pairs)["n"]) == [3, 2]
    assert "0 % or 30 % label noise" in budget(pd.concat([runs(), pd.DataFrame(noisy)]))


def test_without_a_reference_each_network_meets_the_one_without_its_setting() -> None:
    names = ("a[width=8]", "a[gate=channel][width=8]", "b[width=8]", "b[merge=naive][width=8]", "c[width=8]")
    pairs = pair_frame(pd.DataFrame([run(name, 0, 10.0 + k) for k, name in enumerate(names)]))
    found = {row.network: (row.reference, row.difference) for row in pairs.itertuples()}
    assert found == {names[1]: (names[0], -1.0), names[3]: (names[2], -1.0)}
    with pytest.raises(FrameError, match="no network has a twin without its settings"):
        pair_frame(runs())


def test_a_reference_that_was_not_trained() -> None:
    with pytest.raises(FrameError, match=r"no run of 'other' \(there are runs of: ours, theirs\)"):
        pair_frame(runs(), "other")


def test_comparison_keeps_the_range_and_the_mean() -> None:
    comparison = comparison_frame(runs()).set_index(["network", "quantity"])
    ours = comparison.loc["ours", "test_error_pct"]
    assert (ours["n"], ours["mean"], ours["least"], ours["largest"]) == (3, 11.0, 10.0, 12.0)
    assert ours["least"] <= ours["low"] <= ours["mean"] <= ours["high"] <= ours["largest"]
