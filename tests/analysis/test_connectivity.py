"""Barriers of wells in closed form, curves around a ring, and statistics on the way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from analysis import connectivity, curves
from analysis.connectivity import Way, barriers, measure, measuring, positions
from analysis.curves import CurvePlan
from analysis.engines import Sequential, Together
from analysis.normalisation import Reestimated
from analysis.points import Conditions
from analysis.routes import Bezier, Point, StraightLine
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from tests.analysis import cases
from tests.analysis.valleys import WEIGHTS, double_well, point, ring

LEFT, RIGHT, UP = point("left", -1, 0), point("right", 1, 0), point("up", 0, 1)


def way(first: Point, last: Point) -> Way:
    return Way(first.name, last.name, lambda: StraightLine(first, last))


def test_the_barrier_of_a_double_well_is_its_height_above_the_line_between_its_ends():
    found = measure(double_well(), [way(LEFT, RIGHT)], positions(5))
    x = np.linspace(-1, 1, 5)
    well, slope = (x**2 - 1) ** 2 + x / 2, 2 + x
    assert found.views == ("well", "slope", "average")
    # Closed forms in float64, summed over five examples: a few roundings.
    np.testing.assert_allclose(found.loss[0], [well, slope, (well + slope) / 2], rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.excess[0, 0], (x**2 - 1) ** 2, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.excess[0, 1], 0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.barrier[0], [1, 0, 0.5], rtol=0, atol=1e-14)
    assert found.t[found.summit[0, 0]] == 0.5
    # The summit is w and the ends are w (x^2 - 1)^2 = 0: the error is that of the weights.
    error = np.std(WEIGHTS, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found.excess_stderr[0, :, 2], [error, 0, error / 2], rtol=1e-12, atol=1e-15)
    assert found.length[0] == 2.0
    assert found.path == "straight line"


def test_what_examples_share_is_in_the_loss_error_and_not_in_the_excess_error():
    found = measure(double_well(), [way(LEFT, RIGHT)], positions(3))
    assert found.stderr[0, 1, 0] > 0.1
    assert found.excess_stderr[0, 1].max() < 1e-15


def test_the_ends_have_no_excess_bit_by_bit():
    found = measure(double_well(), [way(LEFT, RIGHT)], positions(7))
    assert (found.excess[..., [0, -1]] == 0).all()
    assert (found.excess_stderr[..., [0, -1]] == 0).all()
    assert (found.barrier >= 0).all()


def test_a_matrix_holds_both_ways_and_leaves_unmeasured_pairs_open():
    found = measure(double_well(), [way(LEFT, RIGHT), way(UP, LEFT)], positions(9))
    matrix = barriers(found, ("left", "right", "up"))
    np.testing.assert_array_equal(matrix.barrier, matrix.barrier.transpose(0, 2, 1))
    assert (matrix.barrier[:, [0, 1, 2], [0, 1, 2]] == 0).all()
    assert matrix.barrier[0, 0, 1] == pytest.approx(1, abs=1e-14)
    assert np.isnan(matrix.barrier[:, 1, 2]).all()
    np.testing.assert_allclose(matrix.at + matrix.at.transpose(0, 2, 1) - 1, matrix.at * 0 - np.eye(3), atol=1e-15)
    np.testing.assert_allclose(matrix.loss[0], [-0.5, 0.5, 1], atol=1e-14)
    np.testing.assert_allclose(matrix.length[0], [0, 2, np.sqrt(2)])


def test_an_unfinished_record_is_gone_on_with_to_the_same_bytes():
    ways = [way(a, b) for a, b in itertools.combinations((LEFT, RIGHT, UP), 2)]
    steps = list(measuring(double_well(), ways, positions(5)))
    assert [int(step.done.sum()) for step in steps] == [1, 2, 3]
    assert measure(double_well(), ways, positions(5), before=steps[0]) == steps[-1]
    assert measure(double_well(), ways, positions(5), before=steps[-1]) == steps[-1]
    with pytest.raises(LandscapeError, match="have other t: expected the same pairs, positions, data and conditions"):
        measure(double_well(), ways, positions(7), before=steps[0])


def test_engines_agree():
    conditions = [Conditions(Sequential(3)), Conditions(Together(4, 2))]
    one, other = (measure(double_well(), [way(LEFT, UP)], positions(7), c) for c in conditions)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-14)
    assert other.engine == "Together(points=4, micro_batch=2)"


def test_one_task_has_no_average_and_one_example_no_error():
    problem = double_well((1.0,))
    found = measure(problem, [way(LEFT, RIGHT)], positions(3))
    assert np.isnan(found.excess_stderr).all()
    assert found.barrier[0, 0] == 1


def test_a_loss_that_is_not_finite_makes_a_barrier_that_is_not():
    broken = point("nowhere", np.inf, 0)
    found = measure(double_well(), [way(LEFT, broken), way(LEFT, RIGHT)], positions(3))
    assert not np.isfinite(found.barrier[0, 0])
    assert np.isfinite(found.barrier[1]).all()


@pytest.mark.parametrize("t", [[0, 0.5], [0, 0.5, 0.5, 1], [0.1, 0.5, 1]])
def test_positions_that_do_not_rise_from_0_to_1_are_refused(t):
    with pytest.raises(LandscapeError, match="expected 3 or more positions that rise from 0 to 1"):
        measure(double_well(), [way(LEFT, RIGHT)], np.array(t))
    with pytest.raises(LandscapeError, match="expected 3 or more points on a path, the two ends among them, got 2"):
        positions(2)
    with pytest.raises(LandscapeError, match="expected at least one pair of points to connect, got none"):
        measure(double_well(), [], positions(3))


def test_a_bezier_curve_goes_around_the_hill_that_the_straight_line_goes_over():
    problem, plan = ring(), CurvePlan(500, Optimiser("Adam", lr=0.02), batch_size=5)
    curve = curves.train(problem, RIGHT, UP, plan)
    path = curves.path_of(curve, RIGHT, UP)
    both = [
        measure(problem, [Way("right", "up", lambda chosen=chosen: chosen)], positions(41))
        for chosen in (StraightLine(RIGHT, UP), path)
    ]
    # The chord passes at 1 / sqrt 2 from the centre: w (1/2 - 1)^2 = 1/4.
    np.testing.assert_allclose(both[0].barrier[0, 0], 0.25, atol=1e-12)
    # The best parabola through both ends stays within 1.2 % of the quarter circle: losses of (2 x 0.012)^2.
    assert both[1].barrier[0, 0] < 1e-3
    assert both[1].path == "Bezier curve"
    assert both[1].length[0] == pytest.approx(np.pi / 2, rel=0.01)


def test_a_curve_leaves_a_line_about_which_the_landscape_is_symmetric():
    plan = CurvePlan(300, Optimiser("Adam", lr=0.02), batch_size=5)
    curve = curves.train(ring(), RIGHT, LEFT, plan)
    assert abs(curve.middle[1]) > 1
    assert curve.losses[-50:].mean() < 0.5 * curve.losses[:50].mean()


def test_a_curve_gone_on_with_is_the_same_curve():
    problem, plan = ring(), CurvePlan(60, Optimiser("Adam", lr=0.02), batch_size=2, seed=3)
    steps = list(curves.training(problem, RIGHT, UP, plan))
    assert [len(step.losses) for step in steps] == [25, 50, 60]
    assert [step.finished for step in steps] == [False, False, True]
    assert curves.train(problem, RIGHT, UP, plan, before=steps[0]) == steps[-1]
    assert curves.train(problem, RIGHT, UP, plan, before=steps[-1]) == steps[-1]
    with pytest.raises(LandscapeError, match="the curve to go on with is another one"):
        curves.train(problem, RIGHT, LEFT, plan, before=steps[0])


def test_a_curve_that_diverges_says_where():
    with pytest.raises(LandscapeError, match=r"the loss on the curve from right to up became .* at step .*: expected"):
        curves.train(ring(), RIGHT, UP, CurvePlan(400, Optimiser("SGD", lr=1e9)))


def test_the_length_of_a_bezier_curve_is_that_of_many_chords():
    path = Bezier(RIGHT, UP, np.array([1.3, 0.7]))
    points = np.stack([path.theta(float(t)) for t in np.linspace(0, 1, 20001)])
    assert path.length == pytest.approx(np.linalg.norm(np.diff(points, axis=0), axis=1).sum(), rel=1e-8)
    np.testing.assert_array_equal(path.theta(0.0), RIGHT.theta)
    np.testing.assert_array_equal(path.theta(1.0), UP.theta)


def test_statistics_are_mixed_on_the_way_or_estimated_again():
    problem = cases.make("batch norm")
    theta, buffers = (t.numpy() for t in problem.read(problem.model))
    far = buffers.copy()
    far[:10] += 1.0
    ends = Point("here", theta, buffers), Point("there", theta + 0.1, far)
    frozen = measure(problem, [way(*ends)], positions(3))
    middle = cases.plain_losses(problem, theta + 0.05, torch.from_numpy((buffers + far) / 2))
    np.testing.assert_allclose(frozen.loss[0, :2, 1], middle, rtol=1e-12)
    assert frozen.batch_norm == "interpolated"
    again = measure(problem, [way(*ends)], positions(3), Conditions(statistics=Reestimated(13)))
    assert again.batch_norm.startswith("estimated again at each point")
    restated = Reestimated(13).build(problem)(torch.from_numpy(theta), torch.from_numpy(buffers))
    np.testing.assert_allclose(again.loss[0, :2, 0], cases.plain_losses(problem, theta, restated), rtol=1e-12)


def test_a_curve_uses_the_batch_statistics_and_leaves_the_module_as_it_was():
    problem = cases.make("batch norm")
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    theta, buffers = (t.numpy() for t in problem.read(problem.model))
    first, last = Point("here", theta, buffers), Point("there", theta + 0.3, buffers + 5)
    curve = curves.train(problem, first, last, CurvePlan(5, batch_size=13))
    other = curves.train(problem, Point("here", theta, buffers + 9), last, CurvePlan(5, batch_size=13))
    np.testing.assert_array_equal(curve.losses, other.losses)
    for name, tensor in problem.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_connectivity_needs_no_place_to_be_held_twice():
    made = []

    def path():
        made.append(1)
        return StraightLine(LEFT, RIGHT)

    connectivity.measure(double_well(), [Way("left", "right", path)], positions(3))
    assert made == [1]
