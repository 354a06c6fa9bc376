from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.stats import StatsError, compare, mean_interval, sign_flip_p

VALUES = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=8)


@given(VALUES)
def test_the_sign_flip_test_counts_every_pattern(values):
    x = np.array(values)
    means = [abs(np.dot(signs, x)) for signs in itertools.product((1, -1), repeat=len(x))]
    expected = sum(m >= abs(x.sum()) - 1e-9 for m in means) / len(means)
    assert sign_flip_p(values) == pytest.approx(expected)


@pytest.mark.parametrize("n", range(1, 9))
def test_the_least_p_value_is_two_patterns(n):
    assert sign_flip_p([1.0 + i / 10 for i in range(n)]) == pytest.approx(2 / 2**n)


def test_many_pairs_are_estimated_the_same_each_time():
    x = np.random.default_rng(0).normal(0.5, 1, 20)
    assert sign_flip_p(x) == sign_flip_p(x)
    exact = (
        sum(abs(np.dot(2 * ((k >> np.arange(20)) & 1) - 1, x)) >= abs(x.sum()) for k in range(0, 2**20, 97))
        * 97
        / 2**20
    )
    assert sign_flip_p(x) == pytest.approx(exact, abs=0.01)


def test_six_pairs_get_a_p_value_and_five_a_sentence():
    first = {seed: 10.0 + seed for seed in range(6)}
    second = {seed: 9.0 + 0.9 * seed for seed in range(6)}
    six = compare(first, second)
    assert six.p_value == pytest.approx(2 / 2**6)
    assert six.note == "Sign-flip test, exact, two-sided, 6 pairs: p = 0.0312."
    five = compare({s: first[s] for s in range(5)}, second)
    assert five.p_value is None
    assert five.note == (
        "Left out for want of a partner of the same seed: 1. No p-value: with 5 pairs the sign-flip test cannot give "
        "less than 0.0625; 6 pairs are the fewest that could tell."
    )


def test_pairs_are_made_by_seed_and_not_by_order():
    found = compare({3: 1.0, 1: 5.0, 2: 3.0}, {1: 4.0, 2: 1.0, 3: 0.5, 9: 7.0})
    assert found.seeds == (1, 2, 3)
    assert found.differences == (1.0, 2.0, 0.5)
    assert found.interval.mean == pytest.approx(3.5 / 3)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = mean_interval(rng.exponential(size=30), confidence=0.9, resamples=999)
        covered += found.low <= 1 <= found.high
    # 0.9 of 200 and three standard deviations, and the known shortfall of the bootstrap for skewed small samples.
    assert 0.9 - 3 * math.sqrt(0.09 / 200) - 0.04 < covered / 200 < 0.97


def test_the_interval_is_the_same_each_time_and_holds_its_mean():
    values = [1.0, 2.0, 4.0, 4.5, 7.0, 9.0]
    first = mean_interval(values)
    assert first == mean_interval(values)
    assert first != mean_interval(values, seed=1)
    assert first.low < first.mean < first.high
    assert str(first) == f"4.58 [{first.low:.3g}, {first.high:.3g}] (95% BCa, n=6)"


@pytest.mark.parametrize(
    ("values", "note"), [([2.0], "one run has no spread"), ([0.3, 0.1 + 0.2, 0.3], "all values are equal")]
)
def test_without_spread_there_is_no_interval(values, note):
    found = mean_interval(values)
    assert (found.low, found.high, found.note) == (None, None, note)
    assert note in str(found)
    comparison = compare(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    assert comparison.equivalence(1) == f"The difference has no interval ({note}): nothing is said about a margin of 1."


def test_equivalence_is_an_interval():
    found = compare(dict(enumerate([1.2, 0.8, 1.1, 0.7, 1.0, 1.3])), dict.fromkeys(range(6), 0.0))
    low, high = f"{found.interval.low:.3g}", f"{found.interval.high:.3g}"
    where = f"The 95% interval of the difference, [{low}, {high}],"
    assert found.equivalence(2) == f"{where} lies within +-2: equivalent within that margin."
    assert found.equivalence(0.5) == f"{where} lies outside +-0.5: not equivalent within that margin."
    assert found.equivalence(1) == (
        f"{where} reaches beyond +-1: neither equivalence nor a difference of that size is shown."
    )
    with pytest.raises(StatsError, match="the margin must be above 0, found 0"):
        found.equivalence(0)
    few = compare(dict(enumerate([0.01, 0.02, 0.03])), dict.fromkeys(range(3), 0.0))
    assert few.equivalence(1) == (
        "3 pairs: nothing is said about a margin of 1, since the interval of fewer than 6 is narrower than it should be."
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one value is needed, found \\[0\\]"),
        (lambda: sign_flip_p([1.0, float("nan")]), "value 1 is nan, not a number"),
        (lambda: compare({1: 1.0}, {2: 1.0}), "no seed in common: \\[1\\] and \\[2\\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(StatsError, match=message):
        call()
