"""Intervals, effect sizes and power against scipy, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from analysis import differences
from analysis.differences import Shift
from landscape.randomness import generator

SOME = np.random.default_rng(3).standard_normal((5, 7)) + 0.4
OTHER = np.random.default_rng(4).standard_normal((5, 4)) * 3


def test_paired_is_scipys_one_sample_t_test():
    shift = differences.paired(SOME)
    test = stats.ttest_1samp(SOME, 0, axis=1)
    np.testing.assert_allclose(shift.t, test.statistic, rtol=1e-12)
    np.testing.assert_allclose(shift.p_value, test.pvalue, rtol=1e-10)
    low, high = shift.interval()
    np.testing.assert_allclose(low, test.confidence_interval(0.95).low, rtol=1e-10)
    np.testing.assert_allclose(high, test.confidence_interval(0.95).high, rtol=1e-10)


def test_unpaired_is_scipys_welch_test():
    shift = differences.welch(SOME, OTHER)
    test = stats.ttest_ind(SOME, OTHER, axis=1, equal_var=False)
    np.testing.assert_allclose(shift.p_value, test.pvalue, rtol=1e-10)
    np.testing.assert_allclose(shift.freedom, test.df, rtol=1e-12)
    low, high = shift.interval()
    np.testing.assert_allclose(low, test.confidence_interval(0.95).low, rtol=1e-10)
    np.testing.assert_allclose(high, test.confidence_interval(0.95).high, rtol=1e-10)


def test_without_spread_a_difference_is_certain_and_none_is_none():
    shift = differences.paired(np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]]))
    assert shift.t.tolist() == [np.inf, 0.0, np.inf]
    assert shift.p_value.tolist() == [0.0, 1.0, 0.0]
    low, high = shift.interval()
    np.testing.assert_array_equal(low, high)


def test_one_pair_has_a_difference_and_nothing_else():
    shift = differences.paired(np.array([[1.5]]))
    low, high = shift.interval()
    assert shift.mean == [1.5]
    assert np.isnan([*low, *high, *shift.p_value, *differences.detectable(shift)]).all()
    assert np.isnan(differences.bootstrap((np.array([[1.5]]),), 99, generator(0, "b"))).all()


def test_hedges_correction_has_its_closed_forms():
    # Gamma(1) / Gamma(1/2) = 1 / sqrt(pi) for m = 2, Gamma(2) / (sqrt(2) Gamma(3/2)) = sqrt(2 / pi) for m = 4; for
    # large m the usual approximation 1 - 3 / (4 m - 1), whose error is of order 1 / m^3.
    found = differences.hedges(np.array([1.0, 2, 4, 30]))
    np.testing.assert_allclose(found[:3], [0, 1 / np.sqrt(np.pi), np.sqrt(2 / np.pi)], rtol=1e-12)
    assert found[3] == pytest.approx(1 - 3 / 119, abs=1e-4)


def test_the_effect_is_unbiased_under_normal_differences():
    # 40,000 samples of 5 at delta = 0.8: the mean of g has a standard error of sd(g) / 200, about 0.003.
    drawn = np.random.default_rng(5).standard_normal((40_000, 5)) + 0.8
    found = differences.paired_effect(drawn[:200])
    g = differences.paired(drawn).t / np.sqrt(5) * differences.hedges(np.array(4.0))
    np.testing.assert_allclose(found.size, g[:200], rtol=1e-12)
    assert g.mean() == pytest.approx(0.8, abs=4 * g.std() / 200)
    assert abs((g / differences.hedges(np.array(4.0))).mean() - 0.8) > 0.1, "without the correction it is not"


def test_the_effects_interval_puts_the_observed_t_into_its_tails():
    found = differences.paired_effect(SOME)
    t, root = differences.paired(SOME).t, np.sqrt(SOME.shape[1])
    np.testing.assert_allclose(stats.nct.sf(t, 6, found.low * root), 0.025, rtol=1e-6)
    np.testing.assert_allclose(stats.nct.cdf(t, 6, found.high * root), 0.025, rtol=1e-6)


def test_differences_that_are_all_the_same_have_no_interval_and_two_of_them_no_effect():
    for count, size in ((2, np.nan), (3, -np.inf)):
        found = differences.paired_effect(np.full((1, count), -1.5))
        np.testing.assert_array_equal([found.size[0], found.low[0], found.high[0]], [size, np.nan, np.nan])
    for found in (  # J(1) = 0: no multiple of the standardised difference is unbiased
        differences.paired_effect(np.array([[1.0, 2.0]])),
        differences.unpaired_effect(np.array([[1.0, 2.0]]), np.array([[4.0]])),
    ):
        np.testing.assert_array_equal([found.size, found.low, found.high], np.full((3, 1), np.nan))


@pytest.mark.parametrize("kind", ["normal", "cauchy", "lognormal", "far"])
@pytest.mark.parametrize(("n", "m"), [(2, 1), (2, 2), (3, 2), (5, 3)])
def test_every_effect_lies_inside_of_its_interval_or_has_none(n, m, kind):
    rng = np.random.default_rng(n + 10 * m)
    draw = {
        "normal": lambda size: rng.standard_normal((4, size)),
        "cauchy": lambda size: rng.standard_cauchy((4, size)),
        "lognormal": lambda size: np.exp(3 * rng.standard_normal((4, size))),
        "far": lambda size: 1e3 + 1e-3 * rng.standard_normal((4, size)),
    }[kind]
    ones, others = draw(n), draw(m)
    for effect, freedom in (
        (differences.paired_effect(ones), n - 1),
        (differences.unpaired_effect(ones, others), n + m - 2),
    ):
        known = np.full(4, freedom > 1)
        for values in (effect.size, effect.low, effect.high):
            np.testing.assert_array_equal(np.isfinite(values), known)
        assert ((effect.low < effect.size) & (effect.size < effect.high))[known].all()


@pytest.mark.parametrize("t", [1e2, 9.9e2, 1.01e3, 1e5, 1e9])
@pytest.mark.parametrize("freedom", [2.0, 9.0])
def test_the_parameter_of_a_vast_t_is_that_of_the_chi_square_alone(t, freedom):
    for share in (0.025, 0.975):
        for sign in (1, -1):
            found = differences.noncentrality(np.array([sign * t]), np.array([freedom]), share)[0]
            of_chi = sign * t * np.sqrt(stats.chi2.isf(share if sign > 0 else 1 - share, freedom) / freedom)
            assert found == pytest.approx(of_chi, rel=20 / t**2 + 1e-9)  # Z moves a share by its variance / lambda^2


def test_the_unpaired_effect_is_by_the_pooled_deviation():
    found = differences.unpaired_effect(SOME, OTHER)
    pooled = np.sqrt((6 * SOME.var(1, ddof=1) + 3 * OTHER.var(1, ddof=1)) / 9)
    expected = (SOME.mean(1) - OTHER.mean(1)) / pooled * differences.hedges(np.array(9.0))
    np.testing.assert_allclose(found.size, expected, rtol=1e-12)
    t = stats.ttest_ind(SOME, OTHER, axis=1).statistic
    np.testing.assert_allclose(stats.nct.sf(t, 9, found.low / np.sqrt(1 / 7 + 1 / 4)), 0.025, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 10])
def test_the_effects_interval_covers_the_truth(count):
    # 4,000 samples; the count of misses is binomial(4000, 0.05).
    drawn = np.random.default_rng(count).standard_normal((4000, count)) + 1.0
    found = differences.paired_effect(drawn)
    missed = int(((found.low > 1.0) | (found.high < 1.0)).sum())
    low, high = stats.binom.interval(0.999, 4000, 0.05)
    assert low <= missed <= high


@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_the_detectable_difference_has_the_power_it_promises(count):
    # Power without the noncentral distribution: the normal mean's chance, integrated over the chi distribution of s;
    # and by simulation, to four standard errors of 20,000 samples.
    of_one = Shift(np.zeros(1), np.array([1 / np.sqrt(count)]), np.array([count - 1.0]))
    found, freedom = float(differences.detectable(of_one)[0]), count - 1
    critical, shift = stats.t.ppf(0.975, freedom), found * np.sqrt(count)

    def beyond(s):
        edge = critical * s / np.sqrt(freedom)
        return (stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)) * stats.chi.pdf(s, freedom)

    assert integrate.quad(beyond, 0, 50)[0] == pytest.approx(0.8, abs=1e-7)
    samples = np.random.default_rng(7).standard_normal((20_000, count))
    power = (stats.ttest_1samp(samples + found, 0, axis=1).pvalue <= 0.05).mean()
    assert power == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 20_000))


def test_superiority_counts_pairs_and_halves_ties():
    assert differences.superiority(np.array([[1.0, -1.0, 0.0, 2.0]])).tolist() == [0.625]
    ones, others = np.array([[1.0, 3.0, 5.0]]), np.array([[1.0, 4.0]])
    u = stats.mannwhitneyu(ones[0], others[0]).statistic
    assert differences.superiority_of_all(ones, others)[0] == pytest.approx(u / 6)


def test_the_bootstrap_moves_with_the_data_and_is_the_same_for_the_same_seed():
    low, high = differences.bootstrap((SOME,), 500, generator(1, "b"))
    again = differences.bootstrap((SOME,), 500, generator(1, "b"))
    np.testing.assert_array_equal((low, high), again)
    moved = differences.bootstrap((3 * SOME + 1,), 500, generator(1, "b"))
    # Resamples whose mean equals the sample's but for rounding, under 1 % of them, move the bias correction a little.
    np.testing.assert_allclose(moved, (3 * low + 1, 3 * high + 1), atol=0.03)
    assert ((low < SOME.mean(1)) & (SOME.mean(1) < high)).all()


def test_a_sample_without_spread_has_no_bootstrap_interval_and_the_others_keep_theirs():
    rows = np.vstack([SOME, np.ones((1, 7))])
    low, _ = differences.bootstrap((rows,), 200, generator(1, "b"))
    assert np.isnan(low).tolist() == [False] * 5 + [True]


def test_two_values_have_a_bootstrap_interval_between_them_and_one_has_none():
    low, high = differences.bootstrap((np.array([[0.0, 1.0]]),), 500, generator(1, "b"))
    assert 0 <= low[0] < 0.5 < high[0] <= 1
    assert np.isnan(differences.bootstrap((np.array([[1.0]]),), 500, generator(1, "b"))).all()


def test_the_bootstrap_of_two_samples_is_of_the_difference_of_means():
    low, high = differences.bootstrap((SOME, OTHER), 2000, generator(2, "b"))
    middle = SOME.mean(1) - OTHER.mean(1)
    assert ((low < middle) & (middle < high)).all()


COVERED = {3: (0.62, 0.80), 5: (0.80, 0.88), 10: (0.88, 0.93), 20: (0.91, 0.95)}
"""What docs/exploration.md says of the bootstrap interval: how often it covers the truth, for normal differences."""


@pytest.mark.slow
@pytest.mark.parametrize("count", COVERED)
def test_the_bootstrap_covers_as_often_as_the_docs_say(count):
    # 2,000 samples: a standard error of at most 0.011.
    drawn = np.random.default_rng(count).standard_normal((2000, count))
    low, high = differences.bootstrap((drawn,), 1999, generator(0, "coverage"))
    covered = float(((low <= 0) & (high >= 0)).mean())
    least, most = COVERED[count]
    assert least <= covered <= most, covered


@settings(max_examples=25)
@given(
    st.lists(st.floats(-100, 100), min_size=3, max_size=9).filter(lambda v: np.ptp(v) > 1e-3),
    st.floats(0.01, 100),
)
def test_effects_do_not_depend_on_the_unit_and_turn_with_the_sign(values, unit):
    row = np.array([values])
    one, other = differences.paired_effect(row), differences.paired_effect(-unit * row)
    scale = max(1.0, abs(float(one.size[0])))
    assert other.size[0] == pytest.approx(-one.size[0], abs=1e-9 * scale)
    assert other.low[0] == pytest.approx(-one.high[0], abs=1e-6 * scale)
