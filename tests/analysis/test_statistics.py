"""Estimates and comparisons against scipy, and against what chance does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis import statistics
from analysis.results import BUDGETS, Exploration, Run
from analysis.statistics import at_level, common_level, compare, compare_all, estimate


def exploration(label="averaged", seed=0, net=(0.0, 1.0, 2.0), path=None, scale=1.0, rate=0.1, steps=None):
    net = np.asarray(net, float)
    steps = np.arange(len(net)) * 10 if steps is None else np.asarray(steps)
    path = net * 2 if path is None else np.asarray(path, float)
    return Exploration(
        run=Run(label, f"{label.capitalize()}()", seed),
        steps=steps,
        updates=(scale * steps).astype(np.int64),
        gradients=(3 * steps).astype(np.int64),
        seconds=0.01 * steps,
        movement=rate * scale * steps,
        net=net,
        path_steps=path,
        path_updates=1.5 * path,
        start_norm=1.0,
    )


def pairs(differences, baseline=None, label="independent"):
    """Runs of two strategies whose nets at the end differ by these, one pair a seed."""
    base = np.linspace(1, 2, len(differences)) if baseline is None else baseline
    mine = [exploration(label, s, (0, b + d)) for s, (b, d) in enumerate(zip(base, differences, strict=True))]
    return [*mine, *(exploration("averaged", s, (0, b)) for s, b in enumerate(base))]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_an_estimate_is_scipys_mean_and_standard_error(values):
    found = estimate(np.array(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert found.stderr == pytest.approx(stats.sem(values), rel=1e-12, abs=1e-300)
    assert found.samples == len(values)


def test_a_single_value_has_no_standard_error():
    found = estimate(np.array([3.0]))
    assert found.value == 3.0
    assert np.isnan(found.stderr)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12))
def test_the_interval_is_that_of_scipys_paired_t_test(differences):
    found = compare(pairs(differences), "independent", "averaged", "net", "steps")
    if np.ptp(found.strategy_values - found.baseline_values) < 1e-9:
        assert found.high - found.low < 1e-7
        return
    test = stats.ttest_rel(found.strategy_values, found.baseline_values)
    expected = test.confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low, rel=1e-9, abs=1e-12)
    assert found.high == pytest.approx(expected.high, rel=1e-9, abs=1e-12)
    if abs(test.pvalue - 0.05) > 1e-9:
        assert (found.verdict != "undecided") == (test.pvalue < 0.05), "the interval and the test say the same"


@pytest.mark.parametrize(
    ("measure", "larger", "smaller"),
    [("net", "wider", "narrower"), ("path_steps", "longer", "shorter"), ("path_updates", "longer", "shorter")],
)
def test_verdicts_say_which_way_and_whether_it_is_certain(measure, larger, smaller):
    for differences, verdict in (
        ([1.0, 1.1, 0.9], larger),
        ([-1.0, -1.1, -0.9], smaller),
        ([1.0, -1.0, 0.1], "undecided"),
        ([1.0, 1.0], "too few seeds"),
        ([1.0], "too few seeds"),
        ([], "too few seeds"),
    ):
        found = compare(pairs(differences), "independent", "averaged", measure, "steps")
        assert found.verdict == verdict
        assert len(found.seeds) == len(differences)


def test_one_seed_has_a_difference_and_no_interval():
    found = compare(pairs([0.5]), "independent", "averaged", "net", "steps")
    assert found.difference == pytest.approx(0.5)
    assert np.isnan([found.low, found.high]).all()


def test_pairs_are_made_of_the_seeds_that_both_strategies_have():
    runs = [exploration("averaged", s, (0, 10 + s)) for s in (0, 1, 2, 5)]
    runs += [exploration("independent", s, (0, 20 + s)) for s in (5, 2, 7, 0)]
    found = compare(runs, "independent", "averaged", "net", "steps")
    assert found.seeds.tolist() == [0, 2, 5]
    assert found.strategy_values.tolist() == [20, 22, 25]
    assert found.baseline_values.tolist() == [10, 12, 15]


def test_values_are_read_where_all_runs_still_are_linear_between_snapshots():
    runs = [
        exploration("averaged", 0, (0, 4, 6), steps=(0, 10, 20)),
        exploration("independent", 0, (0, 8), steps=(0, 15)),
    ]
    found = compare(runs, "independent", "averaged", "net", "steps")
    assert found.level == 15
    assert found.strategy_values.tolist() == [8]
    assert found.baseline_values.tolist() == [5]  # half way from 4 to 6


def test_equal_updates_are_another_place_than_equal_steps():
    runs = [exploration("averaged", 0, (0, 1, 2)), exploration("independent", 0, (0, 3, 6), scale=3.0)]
    by_steps, by_updates = (compare(runs, "independent", "averaged", "net", b) for b in ("steps", "updates"))
    assert (by_steps.level, by_steps.difference) == (20, 4)
    assert (by_updates.level, by_updates.difference) == (20, pytest.approx(0))


def test_beyond_its_end_or_before_its_start_a_run_has_no_value():
    run = exploration(net=(0, 1, 2), steps=(0, 10, 20))
    assert at_level(run, "net", "steps", 20) == 2
    assert at_level(run, "net", "steps", 5) == 0.5
    assert np.isnan(at_level(run, "net", "steps", 20.001))
    assert np.isnan(at_level(run, "net", "steps", -1))
    assert common_level([run, exploration(steps=(0, 1, 3))], "steps") == 3
    with pytest.raises(ValueError, match=r"expected a budget among steps, updates, .*, got 'epochs'"):
        at_level(run, "net", "epochs", 1)


def test_runs_that_do_not_know_their_rate_are_not_compared_by_movement():
    runs = [exploration(label, s, rate=r) for label, r in (("averaged", 0.1), ("mine", np.nan)) for s in range(3)]
    assert np.isnan(at_level(runs[-1], "net", "movement", 0.5))
    found = compare_all(runs)
    assert {c.budget for c in found} == set(BUDGETS) - {"movement"}
    alone = compare(runs, "mine", "averaged", "net", "movement")
    assert alone.verdict == "undecided"
    assert np.isnan([alone.difference, alone.low, alone.high]).all()


def test_every_other_strategy_is_compared_in_every_measure_at_every_budget():
    runs = [exploration(label, s) for label in ("b", "averaged", "a") for s in range(3)]
    found = compare_all(runs)
    keys = [(c.strategy, c.measure, c.budget) for c in found]
    assert keys == [(s, m, b) for s in ("b", "a") for m in statistics.MEASURES for b in BUDGETS]
    assert {c.baseline for c in found} == {"averaged"}
    assert compare_all(runs, "missing") == ()


def test_under_no_difference_one_interval_in_twenty_leaves_out_zero():
    # A planted null: 2,000 comparisons of 5 seeds. The count is binomial(2000, 0.05): 100 with a deviation of 9.7.
    rng = np.random.default_rng(11)
    out = 0
    for _ in range(2000):
        found = compare(pairs(rng.standard_normal(5)), "independent", "averaged", "net", "steps")
        out += found.verdict != "undecided"
    low, high = stats.binom.interval(0.999, 2000, 0.05)
    assert low <= out <= high


def test_swapping_strategy_and_baseline_turns_the_interval_round():
    runs = pairs([0.3, 0.4, 0.1, 0.2])
    one, other = (
        compare(runs, "independent", "averaged", "net", "steps"),
        compare(runs, "averaged", "independent", "net", "steps"),
    )
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))
    assert (one.verdict, other.verdict) == ("wider", "narrower")
