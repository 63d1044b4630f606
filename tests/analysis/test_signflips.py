"""Permutation tests against scipy's, by enumeration, and against what chance does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis import signflips
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.signflips import exchanged, sign_flips, smallest_exchange_p, smallest_p
from landscape.randomness import generator

RNG = generator(0, "not drawn from")


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_p_is_that_of_scipys_exact_permutation_test(seeds):
    rows = np.random.default_rng(seeds).standard_normal((6, seeds)) + 0.5
    found = sign_flips(rows, 99, RNG)
    expected = stats.permutation_test(
        (rows,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        axis=1,
        n_resamples=10**6,
    )
    np.testing.assert_allclose(found.p_value, expected.pvalue, rtol=1e-12)
    assert found.exact
    assert found.patterns == 2 ** (seeds - 1)


@pytest.mark.parametrize(("seeds", "p"), [(1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (16, 2**-15)])
def test_the_smallest_p_is_reached_where_all_differences_agree(seeds, p):
    rows = np.arange(1.0, seeds + 1)[None]
    found = sign_flips(rows, 99, RNG)
    assert found.p_value == [p]
    assert found.smallest == smallest_p(seeds, 99) == p


def test_beyond_sixteen_seeds_signs_are_drawn_and_p_is_never_zero():
    rows = np.vstack([np.full(17, 1.0), np.random.default_rng(0).standard_normal(17)])
    found = sign_flips(rows, 999, generator(3, "flips"))
    assert not found.exact
    assert found.p_value[0] == found.smallest == 1 / 1000
    exact = (
        sum(abs(np.dot(signs, rows[1])) >= abs(rows[1].sum()) for signs in itertools.product((-1, 1), repeat=17))
        / 2**17
    )
    assert found.p_value[1] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 999))
    np.testing.assert_array_equal(found.p_value, sign_flips(rows, 999, generator(3, "flips")).p_value)


def by_hand(rows: np.ndarray) -> np.ndarray:
    """Step-down maximum over all sign patterns, written out: for every row, the largest p of those before it."""
    count = rows.shape[1]
    u = lambda x: np.abs(x.sum(1)) / np.sqrt(count * (x**2).sum(1))  # noqa: E731
    observed = u(rows)
    order = np.argsort(-observed)
    found, worst = np.empty(len(rows)), 0.0
    for place, row in enumerate(order):
        later = order[place:]
        hits = [
            u(rows[later] * signs).max() >= observed[row] - 1e-12
            for signs in itertools.product((-1.0, 1.0), repeat=count)
        ]
        worst = max(worst, float(np.mean(hits)))
        found[row] = worst
    return found


def test_the_familys_p_is_the_step_down_maximum_written_out():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((7, 6)) + np.array([2.0, 1, 0.5, 0, 0, 0, -1])[:, None]
    rows[3] = 2 * rows[1]  # the same measure in another unit
    np.testing.assert_allclose(sign_flips(rows, 99, RNG).p_family, by_hand(rows), atol=1e-12)


def test_memory_bounds_change_nothing(monkeypatch):
    rows = np.random.default_rng(1).standard_normal((9, 10)) + 0.6
    whole = sign_flips(rows, 99, RNG)
    monkeypatch.setattr(signflips, "AT_ONCE", 100)
    pieces = sign_flips(rows, 99, RNG)
    np.testing.assert_array_equal(whole.p_family, pieces.p_family)
    np.testing.assert_array_equal(whole.p_value, pieces.p_value)


def test_what_says_the_same_costs_nothing():
    # Thirty copies of one measure are one test; Holm would multiply by thirty.
    row = np.random.default_rng(4).standard_normal(8) + 2
    found = sign_flips(np.outer(np.arange(1, 31), row), 99, RNG)
    np.testing.assert_allclose(found.p_family, found.p_value)
    assert holm(found.p_value).max() == min(1.0, 30 * found.p_value[0])


def test_missing_values_stay_out_of_their_row():
    rows = np.array([[1.0, 2.0, np.nan, 3.0], [1.0, 2.0, 3.0, 4.0], [np.nan] * 4])
    found = sign_flips(rows, 99, RNG)
    assert found.p_value[0] == 0.25  # three values: 2 / 2^3
    assert found.p_value[1] == 0.125
    assert np.isnan(found.p_value[2])
    assert np.isnan(found.p_family[2])


def test_no_difference_at_all_is_no_evidence():
    assert sign_flips(np.zeros((2, 6)), 99, RNG).p_family.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed pair"])
def test_p_values_are_uniform_under_the_null(kind):
    # 4,000 data sets of 12 seeds. With 2^11 distinct patterns p is discrete in steps of 1/2048, which the tolerance of
    # Kolmogorov and Smirnov (1.95 / sqrt(4000) = 0.031 at 0.1 %) swallows. `skewed pair`: both sides are exponential,
    # so that differences are symmetric though the values are not.
    rng = np.random.default_rng(8)
    rows = {
        "normal": lambda: rng.standard_normal((4000, 12)),
        "heavy": lambda: rng.standard_t(2, (4000, 12)),
        "skewed pair": lambda: rng.exponential(size=(4000, 12)) - rng.exponential(size=(4000, 12)),
    }[kind]()
    p = sign_flips(rows, 99, RNG).p_value
    assert stats.kstest(p, "uniform").statistic < 1.95 / np.sqrt(4000) + 1 / 2048


def test_the_family_errs_as_seldom_as_it_says_and_sees_more_than_holm():
    # 400 families of 20 correlated measures on 10 seeds without any effect, then with one in half of them.
    rng = np.random.default_rng(9)
    errs, found_by_flips, found_by_holm = 0, 0, 0
    for _ in range(400):
        common = rng.standard_normal(10)
        rows = 0.8 * common + 0.6 * rng.standard_normal((20, 10))
        errs += sign_flips(rows, 99, RNG).p_family.min() <= 0.05
        with_effect = rows + 1.3 * (np.arange(20) < 10)[:, None]
        flipped = sign_flips(with_effect, 99, RNG)
        found_by_flips += int((flipped.p_family[:10] <= 0.05).sum())
        found_by_holm += int((holm(stats.ttest_1samp(with_effect, 0, axis=1).pvalue)[:10] <= 0.05).sum())
    low, high = stats.binom.interval(0.999, 400, 0.05)
    assert errs <= high
    assert errs >= low / 2, "not needlessly careful"
    assert found_by_flips > found_by_holm
    assert found_by_flips > 2000, "of 4,000 planted effects of 1.3 standard deviations"


def test_dealing_out_runs_anew_is_exact_for_few():
    ones, others = np.array([[3.0, 4.0, 5.0]]), np.array([[0.0, 1.0, 2.0]])
    assert exchanged(ones, others, 9999, generator(0, "x"))[0] == pytest.approx(2 / math.comb(6, 3))
    assert smallest_exchange_p(3, 3, 9999) == 2 / 20
    assert smallest_exchange_p(20, 20, 999) == 2 / 1000
    assert smallest_exchange_p(1, 1, 999) == 1.0


def test_holm_by_hand():
    # m = 4, sorted 0.01, 0.02, 0.03, 0.5 -> 4 x 0.01, 3 x 0.02, max(0.06, 2 x 0.03), 0.5.
    found = holm(np.array([0.03, 0.01, np.nan, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.5, 0.06])
    assert holm(np.array([0.4, 0.9])).tolist() == [0.8, 0.9]
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_benjamini_hochberg_by_hand():
    # m = 4: 0.01 x 4/1, 0.02 x 4/2, 0.03 x 4/3, 0.5 -> running minimum from above: 0.04, 0.04, 0.04, 0.5.
    found = benjamini_hochberg(np.array([0.03, 0.01, np.nan, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.04, 0.04, np.nan, 0.5, 0.04])
    assert np.isnan(benjamini_hochberg(np.array([np.nan, np.nan]))).all()


def test_corrections_keep_the_order_and_never_lower_p():
    p = np.random.default_rng(1).uniform(size=50)
    for correct in (holm, benjamini_hochberg):
        found = correct(p)
        assert (found >= p).all()
        assert (np.diff(found[np.argsort(p)]) >= 0).all()
    assert (holm(p) >= benjamini_hochberg(p)).all()
