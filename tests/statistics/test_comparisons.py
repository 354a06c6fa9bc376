from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import dunnett
from analysis.statistics.comparisons import compare_networks, difference_error
from analysis.statistics.intervals import StatsError
from analysis.tables.provenance import ROOT

# Two-sided 5 % points for 1, 2, ... comparisons. Source: the R package mixtox, data set DTcv (computed by simulation by
# the package DunnettTests); the last one: the R package PMCMRplus, help page of qDunnett, which quotes a printed table.
PUBLISHED = [(5, k, t, 0.003) for k, t in enumerate((2.571, 3.030, 3.294, 3.474, 3.616, 3.727), start=1)]
PUBLISHED += [(20, 4, 2.65, 0.005)]


@pytest.mark.parametrize(("df", "k", "t", "tolerance"), PUBLISHED)
def test_critical_values_are_the_published_ones(df, k, t, tolerance):
    assert dunnett.critical(k, df) == pytest.approx(t, abs=tolerance)


def test_the_tail_is_that_of_scipys_multivariate_t():
    for k, df, t in ((2, 10, 2.0), (3, 15, 2.6), (3, 21, 1.0)):
        box = stats.multivariate_t(shape=0.5 * (np.eye(k) + 1), df=df, seed=0)
        assert dunnett.tail(t, k, df) == pytest.approx(1 - box.cdf([t] * k, lower_limit=[-t] * k), abs=2e-4)
    assert dunnett.tail(2.228, 1, 10) == pytest.approx(0.05, abs=1e-4)


def reference_runs():
    errors: dict[str, dict[int, float]] = {}
    with (ROOT / "results/reference/61_compare_short/tables/runs.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            errors.setdefault(row["network"], {})[int(row["seed"])] = float(row["test_error_pct"])
    return errors


def test_the_kept_runs_under_the_model_and_why_they_decide_nothing():
    # As computed independently (means, residual of the two-way table, simulated Dunnett distribution).
    found = {c.network: c for c in compare_networks(reference_runs(), "cifar-attention56", least=6)}
    plain, equal_cost = found["cifar-resnet56"], found["cifar-resnet56[width=19]"]
    assert (plain.mean, plain.low, plain.high) == pytest.approx((-1.78, -3.04, -0.53), abs=0.006)
    assert plain.p_value == pytest.approx(0.006, abs=5e-4)
    assert (equal_cost.mean, equal_cost.low, equal_cost.high) == pytest.approx((-1.08, -2.34, 0.17), abs=0.006)
    assert equal_cost.p_value == pytest.approx(0.10, abs=5e-3)
    assert (plain.df, plain.order, equal_cost.order) == (15, "lower", "")
    few = compare_networks(reference_runs(), "cifar-attention56")
    assert {c.note for c in few} == {"all networks share 6 seeds, and 3 comparisons need at least 7"}
    assert {(c.low, c.high, c.p_value, c.order) for c in few} == {(None, None, None, "")}


def two(differences, base=10.0):
    return {
        "a": {s: base + s + d for s, d in enumerate(differences)},
        "b": {s: base + s for s in range(len(differences))},
    }


def test_two_networks_are_the_paired_t_test():
    errors = two([-1.0, -0.5, -1.5, 0.2, -0.8, -1.1])
    (found,) = compare_networks(errors, "a")
    test = stats.ttest_rel(list(errors["a"].values()), list(errors["b"].values()))
    assert found.p_value == pytest.approx(test.pvalue, abs=1e-5)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()), abs=1e-4)
    assert found.order == "lower"
    (back,) = compare_networks(errors, "b")
    assert (back.order, back.p_value) == ("higher", found.p_value)


def test_a_pair_has_one_p_value_whichever_network_is_the_reference():
    rng = np.random.default_rng(0)
    errors = {name: dict(enumerate(rng.normal(40, 1, 7))) for name in "abcd"}
    by_pair: dict[frozenset[str], set[float]] = {}
    for reference in errors:
        for c in compare_networks(errors, reference):
            by_pair.setdefault(frozenset((c.reference, c.network)), set()).add(round(c.p_value, 12))
    assert {len(values) for values in by_pair.values()} == {1}


def test_an_effect_of_the_seed_changes_nothing():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 7))
    assert difference_error(table + rng.normal(size=7)) == pytest.approx(float(difference_error(table)))


def test_seeds_that_not_all_networks_share_are_left_out():
    errors = two([-1.0, -0.5, -1.5, 0.2, -0.8, -1.1, 3.0])
    del errors["b"][2]
    (found,) = compare_networks(errors, "a")
    assert (found.seeds, found.left_out) == ((0, 1, 3, 4, 5, 6), (2,))
    (none,) = compare_networks({"a": {0: 1.0}, "b": {1: 2.0}}, "a")
    assert (none.n, none.left_out, none.note) == (
        0,
        (0, 1),
        "all networks share 0 seeds, and 1 comparison needs at least 6",
    )


@pytest.mark.parametrize(("base", "said"), [(70.0, "first (71.7 %) is near"), (30.0, "")])
def test_networks_near_chance_level_decide_nothing(base, said):
    (found,) = compare_networks(two([-1.0, -0.5, -1.5, 0.2, -0.8, -1.1], base), "a", chance=90)
    assert said in found.note
    assert bool(found.order) == (not said)


def test_equal_differences_have_no_interval():
    (found,) = compare_networks(two([-1.0] * 6), "a")
    assert found.note == "the differences have no spread"


def test_equivalence_is_two_one_sided_tests():
    differences = [0.1, -0.2, 0.15, 0.0, -0.1, 0.05]
    (found,) = compare_networks(two(differences), "a")
    reach = stats.t.ppf(0.95, 5) * np.std(differences, ddof=1) / 6**0.5
    assert found.equivalence(reach + 0.001).startswith("Equivalent within")
    assert found.equivalence(reach - 0.001).startswith("Equivalence within")
    assert (
        found.equivalence(1) == f"Equivalent within 1 (90 % interval of the difference: {-reach:.2f} to {reach:.2f})."
    )
    with pytest.raises(StatsError, match="the margin must be above 0, found 0"):
        found.equivalence(0)
    (few,) = compare_networks(two([0.01, 0.02, 0.03]), "a")
    assert few.equivalence(1).startswith("Equivalence within 1 is not judged: all networks share 3 seeds")


def test_a_reference_without_runs_is_refused():
    with pytest.raises(StatsError, match=r"no run of 'c' \(there are runs of: a, b\)"):
        compare_networks(two([1.0]), "c")
