"""Mean-squared displacement: which pairs make a lag, the fitted exponent, and whether its error is one."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import diffusion, paths
from landscape import LogSpaced


def walk(rng, count, size=100, hurst=0.5):
    """Fractional Gaussian noise summed up: E||x_j - x_i||^2 = |j - i|^(2 hurst), from its covariance's root."""
    lag = np.abs(np.subtract.outer(np.arange(count - 1), np.arange(count - 1)))
    cov = (np.abs(lag + 1.0) ** (2 * hurst) + np.abs(lag - 1.0) ** (2 * hurst) - 2 * lag ** (2 * hurst)) / 2
    moved = np.linalg.cholesky(cov) @ rng.standard_normal((count - 1, size)) / np.sqrt(size)
    return np.vstack([np.zeros(size), np.cumsum(moved, axis=0)])


def test_lags_of_even_steps_are_exact_and_every_pair_is_counted_once():
    lags = diffusion.lags(np.arange(0, 60, 10))
    assert lags.values.tolist() == [10, 20, 30, 40, 50]
    assert lags.pairs.tolist() == [5, 4, 3, 2, 1]
    points = np.random.default_rng(0).standard_normal((6, 3))
    expected = [np.mean([((points[i + k] - points[i]) ** 2).sum() for i in range(6 - k)]) for k in range(1, 6)]
    np.testing.assert_allclose(lags.curve(paths.of_points(points)), expected, rtol=1e-12)


def test_a_last_snapshot_off_the_schedule_does_not_blur_the_lags():
    lags = diffusion.lags(np.array([0, 10, 20, 30, 33]))
    assert set(lags.values) <= {3, 10, 13, 20, 23, 30, 33}
    assert {10, 20, 30} <= set(lags.values)
    assert lags.pairs[list(lags.values).index(10)] == 3


@pytest.mark.parametrize("steps", [np.arange(0, 500, 5), np.unique(np.geomspace(1, 4000, 90).astype(int))])
def test_a_straight_line_has_exponent_two_whatever_the_schedule(steps):
    squares = np.subtract.outer(steps, steps).astype(float) ** 2
    fit = diffusion.lags(steps).fit(squares)
    assert fit.exponent == pytest.approx(2, abs=1e-12)  # lags are exact, or root mean squares, for which it is too
    assert fit.error == pytest.approx(0, abs=0.02)  # bins lose pairs in turn, and with them a little of their lag


def test_a_log_spaced_schedule_gives_a_walk_its_exponent():
    steps = np.array([step for step in range(4001) if step == 0 or LogSpaced().due(step)])
    squares = np.abs(np.subtract.outer(steps, steps)).astype(float)
    # Bins are a quarter of an octave wide: mean lag over root mean square lag is about the same in all of them.
    assert diffusion.lags(steps).fit(squares).exponent == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("hurst", [0.3, 0.5, 0.8])
def test_fractional_walks_have_twice_their_hurst_exponent(hurst):
    rng = np.random.default_rng(1)
    lags = diffusion.lags(np.arange(120))
    fits = [lags.fit(paths.of_points(walk(rng, 120, hurst=hurst))) for _ in range(20)]
    spread = np.std([fit.exponent for fit in fits], ddof=1)
    assert np.mean([fit.exponent for fit in fits]) == pytest.approx(2 * hurst, abs=4 * spread / np.sqrt(20) + 0.005)
    # A jackknife over ten blocks is itself uncertain by a quarter, and cuts long lags: half to twice the truth.
    assert 0.5 < np.mean([fit.error for fit in fits]) / spread < 2


def test_the_fit_goes_up_to_a_quarter_of_the_time_and_has_three_lags():
    squares = paths.of_points(walk(np.random.default_rng(2), 101))
    fit = diffusion.lags(10 * np.arange(101)).fit(squares)
    assert fit.low == 10
    assert 200 <= fit.high <= 250
    short = diffusion.lags(10 * np.arange(5)).fit(squares[:5, :5])
    assert (short.low, short.high) == (10, 30)


def test_exponents_of_prefixes_are_those_of_shorter_runs():
    squares = paths.of_points(walk(np.random.default_rng(3), 20))
    steps = 7 * np.arange(20)
    found = diffusion.lags(steps).exponents(squares)
    assert np.isnan(found[:3]).all()
    for last in range(3, 20):
        alone = diffusion.lags(steps[: last + 1]).fit(squares[: last + 1, : last + 1]).exponent
        assert found[last] == pytest.approx(alone, rel=1e-10)


def test_too_few_snapshots_have_a_curve_and_no_exponent():
    for count in (1, 2, 3):
        lags = diffusion.lags(np.arange(count))
        fit = lags.fit(np.ones((count, count)))
        assert len(lags.values) == count - 1
        assert np.isnan([fit.exponent, fit.error, fit.low, fit.high]).all()
