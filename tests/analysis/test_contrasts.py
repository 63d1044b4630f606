"""Comparisons over seeds: designs, families, verdicts, and what they do when there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis import verdicts
from analysis.contrasts import Question, contrast, contrasts
from analysis.movement import MEASURES
from analysis.pairing import Apart, BySeed, WhereSeedsMatch
from analysis.results import FEW, LARGER, MEASURE_NAMES, SMALLER, UNCORRECTED, UNDECIDED, UNKNOWN, measure_name
from landscape.errors import LandscapeError
from tests.analysis.movements import movement, paired

QUICK = Question(budgets=("steps",), resamples=199)


def one(runs, question=QUICK, **choices):
    (found,) = contrast(runs, "independent", "averaged", question, **choices)
    return found


def test_numbers_are_those_of_the_tests_on_the_differences():
    apart = np.array([0.3, 0.5, 0.2, 0.9, 0.4, 0.6, 0.1])
    found = one(paired(apart))
    test = stats.ttest_1samp(apart, 0)
    assert found.difference[0, 0] == pytest.approx(apart.mean())
    assert found.p_value[0, 0] == pytest.approx(test.pvalue)
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p_permutation[0, 0] == found.p_corrected[0, 0] == 2**-6
    assert found.superiority[0, 0] == 1
    assert found.samples[0, 0] == 7
    assert found.outcome(0, 0) == LARGER
    assert found.bootstrap_low[0, 0] < apart.mean() < found.bootstrap_high[0, 0]


def test_a_difference_at_equal_steps_can_be_none_at_equal_movement():
    # Independent goes three times as far a step with three updates: the same way, walked faster.
    rng = np.random.default_rng(0)
    runs = []
    for seed in range(10):
        way = np.linspace(0, 3, 31) * (1 + 0.1 * rng.standard_normal())
        for label, speed in (("averaged", 1), ("independent", 3)):
            noise = 1 + 0.01 * rng.standard_normal()
            runs.append(movement(label, seed, (speed * way * noise)[:, None], updates=speed))
    found = one(runs, Question(budgets=("steps", "movement"), resamples=199))
    assert found.outcome(0, 0) == LARGER
    assert found.outcome(0, 1) == UNDECIDED
    assert found.verdicts[0].startswith(
        "net distance of shared (raw): independent against averaged, 10 seeds: wider at equal steps (+"
    )
    assert "; not at equal movement (" in found.verdicts[0]
    assert "interval" in found.verdicts[0]


def test_fewer_than_three_seeds_are_refused_a_verdict():
    for count in (1, 2):
        found = one(paired(np.full(count, 5.0) + np.arange(count)))
        assert found.outcome(0, 0) == FEW
        assert found.verdicts[0].endswith(
            f"no verdict from {count} seed{'s' * (count > 1)}, expected at least 3; train with more seeds"
        )
        assert found.difference[0, 0] > 0, "the number is there all the same"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_where_flipping_can_show_nothing_the_verdict_says_what_it_rests_on(count):
    found = one(paired(10 + 0.01 * np.arange(count)))
    assert found.smallest_p == 2.0 ** (1 - count)
    assert found.p_permutation[0, 0] == found.smallest_p > 0.05
    assert found.correction.startswith("t tests, which assume normal differences, by Holm over 1 tests")
    assert found.correction.endswith(f"no permutation test gives p below {found.smallest_p:.2g}")
    np.testing.assert_array_equal(found.p_corrected, found.p_holm)
    assert found.outcome(0, 0) == LARGER


def test_what_is_clear_alone_may_not_be_among_many():
    rng = np.random.default_rng(5)
    apart = rng.standard_normal((8, 40))
    apart[:, 0] = [1, 1.2, 0.1, 1.1, 0.9, 1.0, -0.05, 1.3]
    alone, among = one(paired(apart[:, :1])), one(paired(apart))
    assert alone.outcome(0, 0) == LARGER
    assert among.outcome(0, 0) == UNCORRECTED
    assert (alone.tests, among.tests) == (1, 40)
    assert among.p_value[0, 0] == pytest.approx(alone.p_value[0, 0])
    assert "larger, but only without the correction, at equal steps" in among.verdicts[0]


def test_the_family_reaches_over_subsets_and_forms():
    apart = np.random.default_rng(1).standard_normal((7, 3)) + 0.5
    runs = [replace(run, subset=subset) for subset in ("shared", "head of one") for run in paired(apart)]
    found = contrast(runs, "independent", "averaged", QUICK)
    assert [c.subset for c in found] == ["shared", "head of one"]
    assert {c.tests for c in found} == {6}
    assert {c.correction for c in found} == {
        "sign flips of whole seeds, step-down maximum (Westfall and Young) over 6 tests: all measures, budgets, "
        "subsets and forms of this pair of strategies"
    }
    # The second subset has the same numbers: its signs flip together, so nothing is lost by looking at it too.
    np.testing.assert_array_equal(found[0].p_corrected, one(paired(apart)).p_corrected)


def test_swapping_the_strategies_turns_every_number_round():
    apart = np.random.default_rng(2).standard_normal((8, 4)) + np.array([0.2, 0.9, -0.7, 3.0])
    (forth,) = contrast(paired(apart), "independent", "averaged", QUICK)
    (back,) = contrast(paired(apart), "averaged", "independent", QUICK)
    np.testing.assert_allclose(forth.difference, -back.difference, rtol=1e-12)
    np.testing.assert_allclose(forth.low, -back.high, rtol=1e-12)
    np.testing.assert_allclose(forth.effect, -back.effect, rtol=1e-9)
    np.testing.assert_array_equal(forth.p_corrected, back.p_corrected)
    turned = {LARGER: SMALLER, SMALLER: LARGER}
    for m in range(4):
        assert back.outcome(m, 0) == turned.get(forth.outcome(m, 0), forth.outcome(m, 0))


def test_the_order_of_runs_and_the_unit_of_a_measure_change_no_verdict():
    apart = np.random.default_rng(3).standard_normal((6, 3)) + 1
    runs = paired(apart)
    again = one(runs[::-1])
    scaled = one([replace(run, values=run.values * [1.0, 1000.0, 1e-6]) for run in runs])
    np.testing.assert_array_equal(again.p_corrected, one(runs).p_corrected)
    np.testing.assert_allclose(scaled.p_corrected, one(runs).p_corrected, rtol=1e-12)
    np.testing.assert_allclose(scaled.effect, one(runs).effect, rtol=1e-9)


def test_the_same_seed_gives_the_same_record():
    runs = paired(np.random.default_rng(4).standard_normal((18, 2)))
    assert one(runs) == one(runs)
    assert one(runs) != one(runs, replace(QUICK, seed=1))


def test_values_that_are_missing_are_left_out_and_counted():
    runs = paired(np.array([[1.0, 1.0], [1.2, 1.1], [0.9, 1.3], [1.1, 0.9]]))
    spoilt = [
        replace(r, values=np.where([False, r.run.seed == 2], np.nan, r.values)) if r.run.label == "averaged" else r
        for r in runs
    ]
    found = one(spoilt)
    assert found.samples.ravel().tolist() == [4, 3]
    assert "1 seed without a value" in found.verdicts[1]
    nothing = one([replace(r, values=np.full_like(r.values, np.nan)) for r in runs])
    assert nothing.outcome(0, 0) == UNKNOWN
    assert nothing.tests == 0
    assert nothing.verdicts[0].endswith("no verdict, at no budget has it a value in the runs")


def test_infinite_values_are_left_out_as_missing_ones_are():
    runs = paired(np.array([[1.0, 1.0], [1.2, 1.1], [0.9, 1.3], [1.1, 0.9]]))
    empty = [replace(r, values=np.where([False, r.run.seed == 2], -np.inf, r.values)) for r in runs]
    found = one(empty)
    assert found.samples.ravel().tolist() == [4, 3]
    assert np.isfinite(found.difference).all()


def test_runs_that_do_not_know_their_rate_have_no_verdict_at_equal_movement():
    runs = [replace(run, movement=np.full(2, np.nan)) for run in paired(np.arange(1.0, 7))]
    found = one(runs, replace(QUICK, budgets=("steps", "movement")))
    assert [found.outcome(0, b) for b in (0, 1)] == [LARGER, UNKNOWN]
    assert found.tests == 1


# Designs


def unmatched(shift=3.0, seeds=((0, 1, 2, 3), (10, 11, 12))):
    rng = np.random.default_rng(6)
    return [
        movement(label, seed, [[0.0], [float(rng.standard_normal()) + shift * (label == "independent")]])
        for label, side in zip(("independent", "averaged"), seeds, strict=True)
        for seed in side
    ]


def test_without_seeds_in_common_the_comparison_is_welchs_and_says_so():
    found = one(unmatched())
    ends = [[r.values[-1, 0] for r in unmatched() if r.run.label == label] for label in ("independent", "averaged")]
    test = stats.ttest_ind(*ends, equal_var=False)
    assert found.design == "unpaired"
    assert found.note == "Unpaired, by Welch's t test: independent and averaged have no seed in common."
    assert found.p_value[0, 0] == pytest.approx(test.pvalue)
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.strategy_values.shape == (1, 1, 4)
    assert found.baseline_values.shape == (1, 1, 3)
    assert "4 and 3 seeds, unpaired" in found.verdicts[0]


def test_pairs_are_kept_where_there_are_enough_and_the_others_named():
    found = one(unmatched(seeds=((0, 1, 2, 7), (0, 1, 2, 3))))
    assert (found.design, found.seeds.tolist()) == ("paired", [0, 1, 2])
    assert found.note == "Seeds of one side only are left out: 7 of independent and 3 of averaged."


def test_two_shared_seeds_of_many_are_not_enough_for_pairs():
    found = one(unmatched(seeds=((0, 1, 4, 5), (0, 1, 2, 3))))
    assert found.design == "unpaired"
    assert "have 2 seeds in common" in found.note


STARTS = {(label, seed): f"start {seed}" for label in ("averaged", "independent") for seed in range(10)}


def test_runs_that_start_apart_are_no_pairs():
    runs = paired(np.arange(1.0, 5))
    apart = STARTS | {("averaged", s): f"other {s}" for s in range(4)}
    assert one(runs, starts=STARTS).design == "paired"
    found = one(runs, starts=apart)
    assert found.note == "Unpaired, by Welch's t test: runs of the same seed do not start alike (seed 0)."
    partly = one(runs, starts=STARTS | {("averaged", 3): "other"})
    assert partly.seeds.tolist() == [0, 1, 2]
    assert partly.note == "Seeds that do not start alike are left out: 3."


def test_pairing_that_was_asked_for_and_cannot_be_is_one_sentence():
    runs = paired(np.arange(1.0, 5))
    with pytest.raises(
        LandscapeError, match=r"independent and averaged with seed 2 do not start alike: expected the same"
    ):
        one(runs, replace(QUICK, pairing=BySeed()), starts=STARTS | {("averaged", 2): "other"})
    with pytest.raises(LandscapeError, match=r"have no seed in common: expected runs with the same seeds to pair"):
        one(unmatched(), replace(QUICK, pairing=BySeed()))
    assert one(runs, replace(QUICK, pairing=Apart())).design == "unpaired"
    assert WhereSeedsMatch().sides(("a", "b"), ([0], [0]), {}).design == "paired"


@pytest.mark.parametrize(
    ("strategy", "baseline", "question", "match"),
    [
        ("indep", "averaged", QUICK, "unknown label of a strategy 'indep'.*did you mean 'independent'"),
        ("independent", "mean", QUICK, "unknown label of a strategy 'mean'"),
        ("averaged", "averaged", QUICK, "expected two strategies to compare, got 'averaged' twice"),
        ("independent", "averaged", Question(budgets=("epochs",)), "unknown budget 'epochs': expected one of .*steps"),
        ("independent", "averaged", Question(measures=("nte",)), "unknown measure 'nte': expected one of net"),
    ],
)
def test_unknown_names_are_refused(strategy, baseline, question, match):
    with pytest.raises(LandscapeError, match=match):
        contrast(paired(np.arange(1.0, 5)), strategy, baseline, question)


def test_two_runs_of_one_name_are_refused():
    with pytest.raises(LandscapeError, match="two runs are called independent-0"):
        one([*paired(np.arange(1.0, 4)), movement("independent", 0, [[0], [1]])])


def test_every_other_strategy_is_a_family_of_its_own():
    runs = [movement(label, s, [[0], [1 + s]]) for label in ("b", "averaged", "a") for s in range(3)]
    found = contrasts(runs, "averaged", QUICK)
    assert [(c.strategy, c.baseline, c.tests) for c in found] == [("b", "averaged", 1), ("a", "averaged", 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "shift", "least", "most"), [(10, 0.0, 0.0, 0.072), (4, 0.0, 0.0, 0.072), (10, 2.0, 0.9, 1)]
)
def test_verdicts_err_as_seldom_as_they_say_and_see_what_is_there(seeds, shift, least, most):
    # 600 studies of 6 correlated measures: a share of 0.05 has a standard error of 0.009.
    rng = np.random.default_rng(7)
    clear = 0
    for _ in range(600):
        apart = 0.7 * rng.standard_normal((seeds, 1)) + 0.7 * rng.standard_normal((seeds, 6)) + shift
        found = one(paired(apart), replace(QUICK, resamples=99))
        clear += any(found.outcome(m, 0) in (LARGER, SMALLER) for m in range(6))
    assert least <= clear / 600 <= most


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_has_a_name_and_words_of_its_own(measure):
    more, less = verdicts.words(measure)
    assert more != less
    assert "_" not in measure_name(measure)
    runs = [replace(run, measures=(measure,)) for run in paired(np.array([0.3, 0.5, 0.2, 0.9, 0.4, 0.6, 0.1]))]
    found = one(runs)
    assert found.verdicts[0].startswith(
        f"{measure_name(measure)} of shared (raw): independent against averaged, 7 seeds: {more} at equal steps (+"
    )
    assert f": {less} at equal" in contrast(runs, "averaged", "independent", QUICK)[0].verdicts[0]


def test_a_radius_is_wider_or_narrower():
    assert verdicts.words("radius") == ("wider", "narrower")
    assert set(verdicts.WORDS) == set(MEASURES) == set(MEASURE_NAMES)
