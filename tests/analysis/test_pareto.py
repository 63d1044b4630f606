"""The smallest convex combination and the Pareto set against brute force, closed forms and optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.pareto import min_norm, pareto_set

CASES = [(tasks, size, seed) for tasks, size in ((1, 3), (2, 5), (3, 4), (3, 2), (6, 9), (40, 12)) for seed in range(4)]


def drawn(tasks, size, seed):
    """Gradients of different lengths, half of the draws pulled to one side so that their hull misses the origin."""
    rng = np.random.default_rng(seed)
    away = 1.5 * (seed % 2) * np.eye(size)[0]
    return (rng.standard_normal((tasks, size)) + away) * 10.0 ** rng.uniform(-2, 2, (tasks, 1))


@pytest.mark.parametrize(("tasks", "size", "seed"), CASES)
def test_every_gradient_has_at_least_the_combinations_square_along_it(tasks, size, seed):
    g = drawn(tasks, size, seed)
    gap, weights = min_norm(g @ g.T)
    d = weights @ g
    scale = np.linalg.norm(g, axis=1).max()
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-15 * tasks)
    # These conditions are necessary and sufficient for the minimum; the Gram matrix rounds to 1e-16 of the square.
    assert (g @ d >= d @ d - 1e-14 * scale**2).all()
    assert gap == pytest.approx(np.linalg.norm(d), abs=2e-8 * scale)


def simplex(tasks, steps):
    first = np.stack(np.meshgrid(*[np.arange(steps + 1)] * (tasks - 1), indexing="ij"), -1).reshape(-1, tasks - 1)
    first = first[first.sum(1) <= steps]
    return np.column_stack([first, steps - first.sum(1)]) / steps


@pytest.mark.parametrize(("tasks", "steps"), [(2, 4000), (3, 150)])
@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_fine_simplex_is_smaller_and_the_nearest_is_as_small(tasks, steps, seed):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((tasks, 4)) + (seed % 2) * np.eye(4)[0]
    gap, _ = min_norm(g @ g.T)
    least = np.linalg.norm(simplex(tasks, steps) @ g, axis=1).min()
    assert gap <= least + 1e-12
    # The nearest point of the mesh is at most T / steps away in the weights (sum of absolute differences).
    assert least <= gap + tasks / steps * np.linalg.norm(g, axis=1).max()


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_have_the_closed_form(seed):
    g1, g2 = g = drawn(2, 6, seed)
    first = np.clip((g2 - g1) @ g2 / ((g1 - g2) @ (g1 - g2)), 0, 1)
    gap, weights = min_norm(g @ g.T)
    np.testing.assert_allclose(weights, [first, 1 - first], rtol=1e-9, atol=1e-14)
    # Here gap is well above 1e-8 of the longest, so that its square has lost no more than half of the digits.
    assert gap == pytest.approx(np.linalg.norm(first * g1 + (1 - first) * g2), rel=1e-8)


@pytest.mark.parametrize("factor", [1e-150, 1e-9, 1.0, 1e9, 1e150])
def test_scaling_all_gradients_scales_the_norm_and_keeps_the_weights(factor):
    g = drawn(4, 7, 1)
    gap, weights = min_norm(g @ g.T)
    scaled, same = min_norm(factor * (g @ g.T) * factor)
    assert scaled == pytest.approx(factor * gap, rel=1e-12)
    np.testing.assert_allclose(same, weights, rtol=1e-10, atol=1e-14)


def test_a_permutation_of_the_tasks_permutes_the_weights():
    g, order = drawn(5, 8, 3), [3, 0, 4, 1, 2]
    gap, weights = min_norm(g @ g.T)
    permuted, of_them = min_norm(g[order] @ g[order].T)
    assert permuted == pytest.approx(gap, rel=1e-10)
    np.testing.assert_allclose(of_them, weights[order], atol=1e-12)


def test_a_short_gradient_keeps_its_digits_beside_a_long_one():
    long, short = np.array([1e9, 1e9]), np.array([-1.0, 0.0])
    gap, weights = min_norm(np.array([long, short]) @ np.array([long, short]).T)
    # The foot of the origin on the line through both: it has the weights [1, 2e9 + 1] / (2e9 + 2 + 1e-9) to 1e-9.
    assert weights[0] == pytest.approx(1 / 2e9, rel=1e-8)
    assert gap == pytest.approx(np.sqrt(0.5), rel=1e-8)


def test_degenerate_gram_matrices():
    g = np.array([3.0, 4.0])
    for rows, gap in (([g, g], 5.0), ([g, 2 * g], 5.0), ([g, -g], 0.0), ([g, -2 * g, g], 0.0), ([g] * 40, 5.0)):
        found, weights = min_norm(np.array(rows) @ np.array(rows).T)
        assert found == pytest.approx(gap, abs=1e-7)  # the root of the rounding of a square of 25
        assert np.linalg.norm(weights @ np.array(rows)) == pytest.approx(gap, abs=1e-12)
        assert weights.sum() == pytest.approx(1)
    found, weights = min_norm(np.array([g, -2 * g]) @ np.array([g, -2 * g]).T)
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3])


def test_a_zero_gradient_takes_all_the_weight():
    found, weights = min_norm(np.diag([4.0, 0.0, 1.0]))
    assert found == 0
    np.testing.assert_array_equal(weights, [0, 1, 0])
    np.testing.assert_array_equal(min_norm(np.zeros((4, 4)))[1], [0.25] * 4)


def test_one_task_has_its_own_norm():
    gap, weights = min_norm(np.array([[9.0]]))
    assert gap == pytest.approx(3.0, rel=1e-15)
    np.testing.assert_array_equal(weights, [1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_combination(bad):
    gap, weights = min_norm(np.array([[1.0, bad], [bad, 1.0]]))
    assert np.isnan(gap)
    assert np.isnan(weights).all()


def brute(losses):
    """By the definition, over all pairs of points."""
    finite = np.isfinite(losses).all(0)
    count = losses.shape[1]
    return np.array(
        [
            finite[j]
            and not any(
                finite[i] and (losses[:, i] <= losses[:, j]).all() and (losses[:, i] < losses[:, j]).any()
                for i in range(count)
            )
            for j in range(count)
        ],
        bool,
    )


# Few distinct values, so that ties and equal points are common.
value = st.sampled_from([0.0, 1.0, 1.0 + 1e-15, 2.0, 3.0, np.nan, np.inf, -np.inf])


@given(st.integers(1, 4).flatmap(lambda t: st.lists(st.lists(value, min_size=t, max_size=t), min_size=1, max_size=12)))
def test_the_pareto_set_is_that_of_all_pairs(rows):
    losses = np.array(rows).T
    np.testing.assert_array_equal(pareto_set(losses), brute(losses))


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_the_pareto_set_of_random_points_is_that_of_all_pairs_in_any_order(tasks):
    rng = np.random.default_rng(tasks)
    losses = rng.standard_normal((tasks, 60))
    kept = pareto_set(losses)
    np.testing.assert_array_equal(kept, brute(losses))
    order = rng.permutation(60)
    np.testing.assert_array_equal(pareto_set(losses[:, order]), kept[order])
    np.testing.assert_array_equal(pareto_set(np.exp(losses[::-1])), kept)


def test_equal_points_are_all_kept():
    np.testing.assert_array_equal(pareto_set(np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 1.0]])), [True, True, False])


def test_no_points_have_an_empty_set():
    assert pareto_set(np.zeros((2, 0))).shape == (0,)
