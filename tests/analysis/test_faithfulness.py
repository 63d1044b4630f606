"""What a plane leaves out of trajectories: losses against a plain loop, shares against closed forms and brute force."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.linalg
import torch

from analysis import gram, planes, walks
from analysis.engines import Sequential
from analysis.examples import training as some_training
from analysis.faithfulness import TOGETHER, faithfulness, feet, stability
from analysis.normalisation import Reestimated
from analysis.planes import AtPlace
from analysis.points import Conditions, Meter
from analysis.subsets import Shared
from analysis.subspaces import Frame, Place
from landscape import problems, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged
from landscape.trajectory import SHARED, Rows
from tests.analysis import cases
from tests.analysis.synthetic import layout_of, plane_of, write_run


def plane_for(problem, seed=0, size=0.3):
    """An oblique plane through the problem's start, of directions that also move the heads."""
    rng = np.random.default_rng(seed)
    theta, state = problem.initial(0)
    first, second = rng.standard_normal((2, problem.layout.size))
    basis = size * np.stack([first, 0.8 * first + 0.5 * second])
    return replace(
        plane_of(basis, theta.double().numpy(), state.double().numpy()), layout=problem.layout.hash, recipe="sheared"
    )


def run_of(problem, path, theta, buffers=None):
    state = problem.initial(0)[1].double().numpy()
    buffers = np.tile(state, (len(theta), 1)) if buffers is None else buffers
    return write_run(path, theta, problem.layout, buffers=buffers, tasks=problem.names)


def feet_of(problem, plane, run, conditions=Conditions()):
    return feet(problem, plane, planes.shadow(run, plane), run, conditions)


def each_loss(problem, theta, buffers):
    """The losses of every example [T, N], one example at a time through a module with the weights set."""
    module = problem.module(torch.tensor(theta, dtype=problem.dtype), torch.tensor(buffers)).eval()
    rows = []
    with torch.no_grad():
        for n in range(len(problem.evaluation)):
            one = problem.evaluation[n : n + 1]
            output = module(one.inputs)
            pairs = zip(problem.tasks, one.targets, strict=True)
            rows.append([float(task.loss(output[task.name], target)) for task, target in pairs])
    return np.array(rows).T


@pytest.mark.parametrize("kind", cases.KINDS)
def test_true_and_foot_losses_are_those_of_a_plain_loop_and_errors_are_paired(tmp_path, kind):
    problem, rng = cases.make(kind), np.random.default_rng(1)
    plane = plane_for(problem)
    theta = plane.origin + 0.3 * rng.standard_normal((4, problem.layout.size))
    states = np.abs(plane.buffers + 0.2 * rng.random((4, len(plane.buffers))))  # other statistics than the plane's
    run = run_of(problem, tmp_path / "run.h5", theta, states)
    found = feet_of(problem, plane, run)
    for s in range(4):
        x = np.linalg.lstsq(plane.basis.T, theta[s] - plane.origin, rcond=None)[0]
        true = each_loss(problem, theta[s], states[s])
        foot = each_loss(problem, plane.origin + x @ plane.basis, plane.buffers)
        # float64 throughout; the roundings of a forward pass, of sums over 13 examples, and of the coordinates.
        np.testing.assert_allclose(found.true[s], true.mean(1), rtol=1e-12)
        np.testing.assert_allclose(found.foot[s], foot.mean(1), rtol=1e-11)
        gap = true - foot
        np.testing.assert_allclose(found.gap_stderr[s], gap.std(1, ddof=1) / np.sqrt(13), rtol=1e-10)
        assert found.average_gap_stderr[s] == pytest.approx(gap.mean(0).std(ddof=1) / np.sqrt(13), rel=1e-10)
    assert (found.tasks, found.examples, found.split) == (problem.names, 13, "evaluation")
    np.testing.assert_array_equal(found.off_plane, planes.shadow(run, plane).off_plane)


def test_the_true_losses_of_a_recorded_run_are_those_that_it_recorded(tmp_path):
    problem = problems.load("digits", {"norm": "batch", "width": 2, "features": 8, "train": 64, "evaluation": 33})
    plan = training.Plan(6, 16, Every(2))
    run = training.record(problem, Averaged(Optimiser("Adam", lr=0.01)), plan, tmp_path / "run.h5")
    plane = planes.principal([run])
    found = feet_of(problem, plane, run, Conditions(Sequential(10)))
    # float32 losses of examples that are in other micro-batches.
    np.testing.assert_allclose(found.true, run.losses, rtol=1e-6)
    assert found.batch_norm == "frozen"
    np.testing.assert_array_equal(found.steps, [0, 2, 4, 6])


def test_a_trajectory_inside_the_plane_has_no_gap(tmp_path):
    problem = cases.make()
    plane = plane_for(problem)
    theta = plane.origin + np.array([[0.0, 0.0], [1.0, -0.5], [-0.3, 2.0]]) @ plane.basis
    found = feet_of(problem, plane, run_of(problem, tmp_path / "run.h5", theta))
    # Coordinates come back to about 1e-15 of themselves, which moves losses of about 1 by as much.
    np.testing.assert_allclose(found.true, found.foot, rtol=1e-13)
    assert found.gap_stderr.max() < 1e-13
    assert found.off_plane.max() < 1e-13


def test_buffers_alone_make_a_gap(tmp_path):
    problem = cases.make("batch norm")
    plane = plane_for(problem)
    other = plane.buffers.copy()
    other[5:10] *= 4
    run = run_of(problem, tmp_path / "run.h5", np.tile(plane.origin, (2, 1)), np.stack([plane.buffers, other]))
    found = feet_of(problem, plane, run)
    assert found.off_plane.max() == 0.0
    np.testing.assert_array_equal(found.true[0], found.foot[0])
    np.testing.assert_array_equal(found.gap_stderr[0], 0.0)
    np.testing.assert_allclose(
        found.true[1] - found.foot[1],
        cases.plain_losses(problem, plane.origin, torch.tensor(other)) - found.foot[1],
        rtol=1e-12,
    )
    assert (np.abs(found.true[1] - found.foot[1]) > 1e-3).all()


def test_parameters_outside_the_subset_make_a_gap_but_no_distance_off_the_plane(tmp_path):
    problem = cases.make()
    layout, rng = problem.layout, np.random.default_rng(2)
    start, state = problem.initial(0)
    frame = Frame(start.numpy(), state.numpy(), layout, Shared())
    plane = planes.spanned(frame, rng.standard_normal((2, layout.size)), "by hand", ("x", "y"))
    theta = np.tile(plane.origin, (3, 1)) + np.array([[0, 0], [0.2, 0], [0, 0.1]]) @ plane.basis
    theta[:, layout.index("two")] += np.arange(3)[:, None]
    run = run_of(problem, tmp_path / "run.h5", theta)
    found = feet_of(problem, plane, run)
    assert found.off_plane.max() < 1e-14
    np.testing.assert_allclose(found.true[:, 0], found.foot[:, 0], rtol=1e-13)  # the head of "one" is the centre's
    assert (np.abs(found.true - found.foot)[1:, 1] > 1e-2).all()
    shown = faithfulness([run], plane, draws=2)
    assert shown.dimension == layout.count()
    np.testing.assert_allclose(shown.variance.sum(1), 1.0, rtol=1e-13)
    np.testing.assert_allclose(shown.distance, 1.0, rtol=1e-13)


def test_feet_are_measured_as_a_surface_is_under_the_same_conditions(tmp_path):
    problem, rng = cases.make("batch norm"), np.random.default_rng(3)
    plane = plane_for(problem)
    run = run_of(problem, tmp_path / "run.h5", plane.origin + 0.2 * rng.standard_normal((3, problem.layout.size)))
    conditions = Conditions(statistics=Reestimated(13, 5), examples=some_training(problem, 6))
    found = feet_of(problem, plane, run, conditions)
    meter = Meter(problem, plane, conditions)
    below = meter.measure(planes.shadow(run, plane).coordinates.copy()).loss
    # Means of the same float64 values, summed in another order.
    np.testing.assert_allclose(found.foot, below.T, rtol=1e-14)
    assert (found.examples, found.split) == (6, "training")
    assert found.batch_norm.startswith("estimated again")
    # The true losses keep the snapshots' own statistics, whatever is done in the plane.
    kept = feet_of(problem, plane, run, replace(conditions, statistics=Conditions().statistics))
    np.testing.assert_array_equal(found.true, kept.true)
    assert np.abs(found.foot - kept.foot).min() > 1e-4


@dataclass(frozen=True)
class Threes:
    """Three points in a launch, evaluated one by one."""

    micro_batch: int = 4
    together = 3
    at_once = 4

    def build(self, problem):
        one = Sequential(self.micro_batch).build(problem)

        def run(thetas, buffers):
            assert len(thetas) == len(buffers) <= 3

            def rows(batch):
                pairs = zip(thetas, buffers, strict=True)
                return torch.cat([one(theta[None], state[None])(batch) for theta, state in pairs])

            return rows

        return run


def test_snapshots_go_through_the_engine_in_its_groups(tmp_path):
    problem, rng = cases.make("batch norm"), np.random.default_rng(4)
    plane = plane_for(problem)
    theta = plane.origin + 0.2 * rng.standard_normal((7, problem.layout.size))  # 3, 3 and 1
    run = run_of(problem, tmp_path / "run.h5", theta, np.tile(plane.buffers, (7, 1)) + 0.1 * np.arange(7)[:, None])
    one, three = (feet_of(problem, plane, run, Conditions(engine)) for engine in (Sequential(4), Threes()))
    assert one == three


def test_one_example_has_no_error_and_a_loss_that_is_not_finite_stays(tmp_path):
    problem = cases.make(examples=1)
    plane = plane_for(problem)
    theta = np.tile(plane.origin, (2, 1))
    theta[1] = np.inf
    run = run_of(problem, tmp_path / "run.h5", theta)
    shadow = replace(planes.shadow(run_of(problem, tmp_path / "b.h5", theta[[0, 0]]), plane))
    found = feet(problem, plane, shadow, run)
    assert np.isfinite(found.true[0]).all()
    assert not np.isfinite(found.true[1]).any()
    assert np.isfinite(found.foot).all()
    assert np.isnan(found.gap_stderr).all()
    assert np.isnan(found.average_gap_stderr).all()


def test_a_shadow_of_another_run_is_refused(tmp_path):
    problem = cases.make()
    plane = plane_for(problem)
    theta = np.tile(plane.origin, (3, 1))
    run, other = run_of(problem, tmp_path / "a.h5", theta), run_of(problem, tmp_path / "b.h5", theta[:2])
    with pytest.raises(LandscapeError, match=r"shadow is of walk-0 with 2 snapshots: expected that of walk-0 with 3"):
        feet(problem, plane, planes.shadow(other, plane), run)


def test_a_trajectory_of_another_model_is_refused(tmp_path):
    problem = cases.make()
    run = write_run(tmp_path / "run.h5", np.eye(4))
    plane = plane_of(np.eye(2, 4))
    with pytest.raises(LandscapeError, match="use the problem that it was recorded with"):
        feet(problem, plane, planes.shadow(run, plane), run)
    with pytest.raises(LandscapeError, match="the plane belongs to another model"):
        faithfulness([run], plane_for(problem))


def test_inside_the_plane_all_is_shown_and_at_a_right_angle_to_it_nothing(tmp_path):
    origin = np.arange(5.0)
    inside, across = np.zeros((4, 5)), np.zeros((4, 5))
    inside[:, :2], across[:, 3] = [[0, 0], [1, 2], [-3, 1], [2, 2]], [0, 1, 3, 2]
    runs = [write_run(tmp_path / f"{k}.h5", origin + t, seed=k) for k, t in enumerate((inside, across))]
    found = faithfulness(runs, plane_of(np.eye(2, 5), origin), draws=2)
    assert found.runs == ("walk-0", "walk-1", TOGETHER)
    # Sums of squares 14 and 9 inside, of 23 in all; 14 across; four snapshots each.
    np.testing.assert_allclose(found.variance, [[14 / 23, 9 / 23], [0, 0], [14 / 37, 9 / 37]], rtol=1e-14, atol=1e-30)
    steps = np.sqrt([5, 17, 26]).sum()
    np.testing.assert_allclose(found.distance, [1, 0, steps / (steps + 4)], rtol=1e-14, atol=1e-30)


def test_a_straight_line_along_an_axis_and_one_between_axes(tmp_path):
    times = np.arange(-3.0, 4.0)[:, None]
    along = write_run(tmp_path / "a.h5", times * [2, 0, 0, 0])
    between = write_run(tmp_path / "b.h5", times * [3, 0, 4, 0], seed=1)
    found = faithfulness([along, between], plane_of(np.eye(2, 4)), draws=2)
    np.testing.assert_allclose(found.variance[:2], [[1, 0], [0.36, 0]], atol=1e-15)
    np.testing.assert_allclose(found.distance[:2], [1, 0.6], rtol=1e-14)
    assert found.distance[2] == pytest.approx((2 + 3) / (2 + 5), rel=1e-14)
    assert found.variance[2, 0] == pytest.approx((4 + 9) / (4 + 25), rel=1e-14)


def test_a_tilted_circle(tmp_path):
    angle, tilt = np.arange(64) * 2 * np.pi / 64, 0.6
    circle = np.zeros((64, 6))
    circle[:, 0], circle[:, 1], circle[:, 2] = np.cos(angle), np.sin(angle) * np.cos(tilt), np.sin(angle) * np.sin(tilt)
    found = faithfulness([write_run(tmp_path / "run.h5", circle)], plane_of(np.eye(2, 6)), draws=2)
    np.testing.assert_allclose(found.variance[0], [0.5, 0.5 * np.cos(tilt) ** 2], rtol=1e-13)
    # A chord from angle a to a + h points along a + (h + pi) / 2; its shadow is shorter by the tilted share.
    direction = angle[:-1] + np.pi / 64 + np.pi / 2
    shown = np.hypot(np.cos(direction), np.sin(direction) * np.cos(tilt)).mean()
    assert found.distance[0] == pytest.approx(shown, rel=1e-12)


@pytest.mark.parametrize("columns", [3, 1 << 18])
def test_an_oblique_plane_is_counted_along_orthonormal_axes_and_says_so(monkeypatch, tmp_path, columns):
    monkeypatch.setattr(gram, "COLUMNS", columns)
    rng = np.random.default_rng(5)
    rows = [rng.standard_normal((n, 8)) for n in (3, 6)]
    runs = [write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate(rows)]
    first, second = rng.standard_normal((2, 8))
    plane = plane_of([3 * first, first + 0.1 * second], rng.standard_normal(8))
    found = faithfulness(runs, plane, draws=2)
    axes = np.linalg.qr(plane.basis.T)[0]
    means = []
    for k, own in enumerate(rows):
        moved, change = own - plane.origin, np.diff(own, axis=0)
        means.append([*((moved @ axes) ** 2).mean(0), (moved**2).sum(1).mean()])
        np.testing.assert_allclose(found.variance[k], ((moved @ axes) ** 2).sum(0) / (moved**2).sum(), rtol=1e-11)
        shown = np.linalg.norm(change @ axes, axis=1).sum() / np.linalg.norm(change, axis=1).sum()
        assert found.distance[k] == pytest.approx(shown, rel=1e-11)
    together = np.mean(means, axis=0)  # runs weighted equally
    np.testing.assert_allclose(found.variance[-1], together[:2] / together[2], rtol=1e-11)
    assert found.axes == ("first", "second, made orthogonal to the first")
    assert faithfulness(runs, plane_of(np.eye(2, 8)), draws=2).axes == ("first", "second")


def test_the_shares_of_a_principal_plane_are_the_planes_own(tmp_path):
    rng = np.random.default_rng(6)
    runs = [write_run(tmp_path / f"{k}.h5", rng.standard_normal((n, 30)), seed=k) for k, n in enumerate((4, 9, 1))]
    plane = planes.principal(runs)
    found = faithfulness(runs, plane, draws=2)
    np.testing.assert_allclose(found.variance[-1], plane.explained, rtol=1e-12)
    assert np.isnan(found.distance[2])  # one snapshot
    assert found.distance[-1] < 1


def counting(run, read):
    """The same run, which adds the entries that are read of theta to `read`."""

    def reading(rows, columns):
        found = run.theta.read(rows, columns)
        read.append(found.size)
        return found

    return replace(run, theta=Rows(run.theta.shape, run.theta.dtype, reading))


def test_one_pass_over_the_files(monkeypatch, tmp_path):
    monkeypatch.setattr(gram, "COLUMNS", 7)
    rng, read = np.random.default_rng(7), []
    rows = [rng.standard_normal((n, 30)) for n in (5, 8)]
    runs = [counting(write_run(tmp_path / f"{k}.h5", r, seed=k), read) for k, r in enumerate(rows)]
    plane = planes.principal(runs)
    read.clear()
    faithfulness(runs, plane, draws=2)
    assert sum(read) == 13 * 30
    read.clear()
    stability(runs)
    assert sum(read) == 13 * 30


def centred_walk_shares(count):
    """Of the variance of a walk with `count` points and orthonormal steps about its mean: that of the second difference
    matrix' inverse, 1 / (4 sin^2(pi k / 2 count)), over their sum (count^2 - 1) / 6. For many, 6 / (pi k)^2.
    """
    k = np.arange(1, 3)
    return 1 / (4 * np.sin(np.pi * k / (2 * count)) ** 2) / ((count**2 - 1) / 6)


def test_a_long_walk_in_high_dimension_shows_what_theory_says():
    count = 300
    paces = walks.Paces(np.zeros((1, 1)), (np.ones(count - 1),), 10**9)
    weights = np.full(count, 1 / count)
    found = walks.shown(paces, weights, weights, np.random.default_rng(0)).variance[-1]
    # Directions overlap by 1e9 ** -0.5 = 3e-5 each, at random.
    np.testing.assert_allclose(found, centred_walk_shares(count), atol=1e-4)
    np.testing.assert_allclose(found, 6 / (np.pi * np.arange(1, 3)) ** 2, atol=1e-3)


def equal_steps(count, size, seed):
    steps = np.random.default_rng(seed).standard_normal((count - 1, size))
    return np.cumsum(np.vstack([np.zeros(size), steps / np.linalg.norm(steps, axis=1, keepdims=True)]), axis=0)


def test_a_run_that_is_a_random_walk_shows_as_much_as_its_null(tmp_path):
    theta = equal_steps(60, 20_000, 1)
    run = write_run(tmp_path / "run.h5", theta)
    found = faithfulness([run], planes.principal([run]), draws=10)
    assert found.dimension == 20_000
    # Directions overlap by 20,000 ** -0.5 = 0.7 %: the null's spread says how much that matters.
    assert (np.abs(found.variance[-1] - found.null_variance) < 4 * found.null_spread).all()
    assert found.null_spread.max() < 0.005
    np.testing.assert_allclose(found.null_variance, centred_walk_shares(60), atol=0.005)
    np.testing.assert_array_equal(found.walk_variance[0], found.walk_variance[1])  # one run is all runs
    assert abs(found.distance[-1] - found.null_distance) < 4 * found.walk_distance_spread[-1]


def test_a_walk_about_its_start_is_compared_with_walks_about_their_start(tmp_path):
    run = write_run(tmp_path / "run.h5", 5.0 + equal_steps(60, 20_000, 2))
    found = faithfulness([run], planes.principal([run], centre=AtPlace(Place(run, 0))), draws=4)
    # About its start, the Gram matrix is min(i, j): eigenvalues 1 / (4 sin^2((2 k - 1) pi / (4 n + 2))), n steps.
    values = 1 / (4 * np.sin((2 * np.arange(1, 60) - 1) * np.pi / (4 * 59 + 2)) ** 2)
    np.testing.assert_allclose(found.null_variance, values[:2] / values.sum(), atol=0.005)  # 81 % and 9 %


@pytest.mark.parametrize("size", [40, 150], ids=["dense", "Lanczos"])
def test_leading_axes_are_those_of_a_weighted_svd(size):
    rng = np.random.default_rng(19)
    points, weights = rng.standard_normal((60, size)) * np.geomspace(3, 0.1, size), rng.random(60)
    values, axes = walks.leading(points, weights)
    _, singular, right = np.linalg.svd(points * np.sqrt(weights)[:, None], full_matrices=False)
    np.testing.assert_allclose(values, singular[:2] ** 2, rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(axes * right[:2].T, axis=0)), 1.0, rtol=1e-12)


@pytest.mark.parametrize("size", [4, 150])
def test_points_that_are_all_zero_have_no_variance(size):
    values, axes = walks.leading(np.zeros((5, size)), np.full(5, 0.2))
    np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-15)


LENGTHS = (np.array([1.0, 0.2, 2.0]), np.array([0.5, 0.5]), np.array([]))


def test_in_high_dimension_walks_have_the_known_inner_products():
    rng = np.random.default_rng(8)
    starts = rng.standard_normal((3, 5)) @ rng.standard_normal((5, 5))
    points = walks.walk(walks.Paces(starts @ starts.T, LENGTHS, 10**14), rng)
    owner, place = np.repeat([0, 1, 2], [4, 3, 1]), np.array([0, 1, 2, 3, 0, 1, 2, 0])
    expected = (starts @ starts.T)[np.ix_(owner, owner)]
    for i in range(8):
        for j in range(8):
            if owner[i] == owner[j]:
                expected[i, j] += (LENGTHS[owner[i]][: min(place[i], place[j])] ** 2).sum()
    # Overlaps of 1e14 ** -0.5 = 1e-7 with vectors of length up to about 5.
    np.testing.assert_allclose(points @ points.T, expected, atol=1e-5)


def brute_force(starts, weights, mixture, rng):
    """One draw with vectors of the full size, its plane by a singular value decomposition."""
    tracks = []
    for start, lengths in zip(starts, LENGTHS, strict=True):
        points = [start]
        for length in lengths:
            step = rng.standard_normal(start.size)
            points.append(points[-1] + length * step / np.linalg.norm(step))
        tracks.append(np.array(points))
    points = np.concatenate(tracks)
    centre = mixture @ points
    axes = np.linalg.svd((points - centre) * np.sqrt(weights)[:, None], full_matrices=False)[2][:2]
    means = np.array([(((track - centre) @ axes.T) ** 2).mean(0) for track in tracks])
    totals = np.array([((track - centre) ** 2).sum(1).mean() for track in tracks])
    shown = sum(np.linalg.norm(np.diff(track @ axes.T, axis=0), axis=1).sum() for track in tracks)
    return [*(means[0] / totals[0]), *(means.mean(0) / totals.mean()), shown / sum(own.sum() for own in LENGTHS)]


@pytest.mark.parametrize("size", [2, 3, 10, 40], ids=lambda n: f"P = {n}")
@pytest.mark.parametrize("about", ["mean", "snapshot", "fixed point"])
def test_walks_are_distributed_as_vectors_of_the_full_size(size, about):
    starts = 0.7 * np.random.default_rng(9).standard_normal((3, size))
    counts = [len(own) + 1 for own in LENGTHS]
    weights = np.concatenate([np.full(n, 1 / (3 * n)) for n in counts])
    mixture = {"mean": weights, "snapshot": np.eye(8)[2], "fixed point": np.zeros(8)}[about]
    draws, rng = 700, np.random.default_rng(10)
    expected = np.array([brute_force(starts, weights, mixture, rng) for _ in range(draws)])
    paces = walks.Paces(starts @ starts.T, LENGTHS, size)
    drawn = [walks.shown(paces, weights, mixture, rng) for _ in range(draws)]
    found = np.array([[*one.variance[0], *one.variance[-1], one.distance[-1]] for one in drawn])
    error = np.sqrt((expected.var(0) + found.var(0)) / draws) + 1e-12
    # Five numbers in twelve cases: 4.5 standard errors are passed by chance once in 2,500 such tests.
    assert (np.abs(found.mean(0) - expected.mean(0)) < 4.5 * error).all()
    # A standard deviation has a relative error of (kurtosis - 1)^0.5 / (2 draws^0.5), about 3 to 5 % here.
    np.testing.assert_allclose(found.std(0), expected.std(0), rtol=0.2, atol=1e-7)
    if size == 2:
        np.testing.assert_allclose(found[:, 2:].sum(1) - found[:, 4], 1.0)
        np.testing.assert_allclose(found[:, 4], 1.0)


@pytest.mark.parametrize("rest", [3, 12], ids=["drawn whole", "by Bartlett's factor"])
def test_directions_are_uniform(rest):
    rng, size = np.random.default_rng(11), 2 + rest
    drawn = np.stack([walks._directions(4, 2, size, rng) for _ in range(4000)])
    np.testing.assert_allclose((drawn**2).sum(-1), 1.0, rtol=1e-13)
    first, second = np.triu_indices(4, 1)
    products = np.einsum("nid,njd->nij", drawn, drawn)[:, first, second]
    # u'v of uniform unit vectors has mean 0 and variance 1 / P, as has u'e; 24,000 or more values with fourth moments
    # below 3 / P^2.
    for values in (products, drawn[:, :, :2]):
        assert abs(values.mean()) < 4 / np.sqrt(values.size * size)
        assert (values**2).mean() == pytest.approx(1 / size, rel=4 * np.sqrt(2 / values.size))


def test_the_null_of_several_runs_is_that_of_their_starts_lengths_and_weights(tmp_path):
    rng = np.random.default_rng(12)
    rows = [rng.standard_normal(5_000) / 20 + equal_steps(n, 5_000, n) * length for n, length in ((9, 1), (5, 3))]
    runs = [write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate(rows)]
    found = faithfulness(runs, planes.principal(runs), draws=5)
    starts = np.stack([r[0] for r in rows])
    counts, scale = np.array([9, 5]), np.array([1, 3])
    owner, place = np.repeat([0, 1], counts), np.concatenate([np.arange(n) for n in counts])
    same = owner[:, None] == owner
    known = (starts @ starts.T)[np.ix_(owner, owner)] + same * np.minimum(place[:, None], place) * scale[owner] ** 2
    weights = 1 / (2 * counts[owner])
    centring = np.eye(14) - weights
    values = np.linalg.eigvalsh(centring @ known @ centring.T * np.sqrt(np.outer(weights, weights)))[::-1]
    # Overlaps of 5,000 ** -0.5 = 1.4 %, of which a tenth or less reaches the shares.
    np.testing.assert_allclose(found.null_variance, values[:2] / values.sum(), atol=0.01)


def test_the_same_seed_gives_the_same_walks(tmp_path):
    run = write_run(tmp_path / "run.h5", equal_steps(8, 50, 3))
    plane = planes.principal([run])
    assert faithfulness([run], plane, 3, seed=1) == faithfulness([run], plane, 3, seed=1)
    assert (faithfulness([run], plane, 3, 1).null_variance != faithfulness([run], plane, 3, 2).null_variance).all()


def test_snapshots_that_are_not_finite_leave_no_shares(tmp_path):
    theta = equal_steps(6, 10, 4)
    broken = theta.copy()
    broken[4:] = np.nan
    runs = [write_run(tmp_path / f"{k}.h5", t, seed=k) for k, t in enumerate((theta, broken))]
    found = faithfulness(runs, plane_of(np.eye(2, 10)), draws=2)
    assert np.isfinite(found.variance[0]).all()
    assert np.isfinite(found.distance[0])
    for rows in (found.variance[1:], found.distance[1:], found.walk_variance, found.walk_distance):
        assert np.isnan(rows).all()


def test_runs_of_one_snapshot_have_travelled_nowhere(tmp_path):
    run = write_run(tmp_path / "run.h5", np.ones((1, 6)))
    with pytest.raises(LandscapeError, match=r"expected a run with two or more snapshots .*, got one snapshot of each"):
        faithfulness([run], plane_of(np.eye(2, 6)))


def test_one_draw_has_no_spread(tmp_path):
    run = write_run(tmp_path / "run.h5", np.eye(6))
    with pytest.raises(LandscapeError, match="expected 2 or more draws of random walks for their spread, got 1"):
        faithfulness([run], plane_of(np.eye(2, 6)), draws=1)


def spread_rows(rng, count, size):
    return rng.standard_normal((count, size)) * np.geomspace(3, 0.1, size) + rng.standard_normal(size)


def quarters(count):
    """Masks of what is left, straight from their words."""
    rows = np.arange(count)
    size = -(-count // 4)
    return {
        "snapshots 1, 5, 9, ...": np.isin(rows, rows[0::4], invert=True),
        "snapshots 2, 6, 10, ...": np.isin(rows, rows[1::4], invert=True),
        "snapshots 3, 7, 11, ...": np.isin(rows, rows[2::4], invert=True),
        "snapshots 4, 8, 12, ...": np.isin(rows, rows[3::4], invert=True),
        "first quarter": rows >= size,
        "last quarter": rows < count - size,
    }


def left(rows):
    """What is left of each run in each case, by the case's name; runs of which nothing is left are gone."""
    found = {f"walk-{k}": [r for j, r in enumerate(rows) if j != k] for k in range(len(rows))} if len(rows) > 1 else {}
    for case in quarters(4):
        kept = [r[quarters(len(r))[case]] for r in rows]
        found[case] = [r for r in kept if len(r)]
    return found


@pytest.mark.parametrize("counts", [(14,), (9, 6), (7, 1)], ids=["one run", "two runs", "one snapshot"])
def test_angles_are_those_of_planes_made_anew_from_what_is_left(monkeypatch, tmp_path, counts):
    monkeypatch.setattr(gram, "COLUMNS", 7)
    rng = np.random.default_rng(13)
    rows = [spread_rows(rng, n, 20) for n in counts]

    def plane(name, kept):
        return planes.principal([write_run(tmp_path / f"{name}-{k}.h5", r, seed=k) for k, r in enumerate(kept)])

    runs = [write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate(rows)]
    found, whole, expected = stability(runs), planes.principal(runs), left(rows)
    assert found.left_out == tuple(expected)
    for case, angles in zip(expected, found.angles, strict=True):
        if sum(map(len, expected[case])) < 3:
            assert np.isnan(angles).all()
            continue
        other = plane(case.replace(", ", "-"), expected[case])
        by_scipy = np.degrees(scipy.linalg.subspace_angles(whole.basis.T, other.basis.T))[::-1]
        # Axes from eigenvectors of two Gram matrices, exact to about 1e-13 where eigenvalues are well apart.
        np.testing.assert_allclose(angles, by_scipy, atol=1e-8)
    assert np.nanmax(found.angles) > 1


def test_a_snapshot_as_the_centre_stays_the_centre_when_it_is_left_out(tmp_path):
    rng = np.random.default_rng(14)
    rows = [spread_rows(rng, n, 12) for n in (8, 11)]
    runs = [write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate(rows)]
    found = stability(runs, centre=AtPlace(Place(runs[0], -1)))

    def axes(kept):
        weighted = np.concatenate([(r - rows[0][-1]) / np.sqrt(len(r)) for r in kept])
        return np.linalg.svd(weighted, full_matrices=False)[2][:2].T

    for kept, angles in zip(left(rows).values(), found.angles, strict=True):
        by_scipy = np.degrees(scipy.linalg.subspace_angles(axes(rows), axes(kept)))[::-1]
        np.testing.assert_allclose(angles, by_scipy, atol=1e-8)


def test_a_plane_of_the_shared_parameters_does_not_turn_with_the_heads(tmp_path):
    rng = np.random.default_rng(15)
    layout = layout_of(("trunk", (6,), SHARED), ("one", (9,), "one"))
    theta = spread_rows(rng, 12, 15)
    alone = write_run(tmp_path / "alone.h5", theta[:, :6])
    theta[:, 6:] *= 100
    run = write_run(tmp_path / "run.h5", theta, layout)
    shared, expected = stability([run], Shared()), stability([alone])
    np.testing.assert_allclose(shared.angles, expected.angles, atol=1e-8)
    assert np.abs(stability([run]).angles - expected.angles).max() > 0.1


def circle(axes, radius, size=5):
    angle = np.arange(12) * 2 * np.pi / 12
    rows = np.zeros((12, size))
    rows[:, axes[0]], rows[:, axes[1]] = radius * np.cos(angle), radius * np.sin(angle)
    return rows


def test_a_run_that_decides_the_plane_alone_turns_it_by_a_right_angle(tmp_path):
    # Variances along the axes: 1/2 + 4/2, 1/2, 4/2: the plane is that of the larger circle.
    rows = [circle((0, 1), 1.0), circle((0, 2), 2.0)]
    found = stability([write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate(rows)])
    assert found.left_out[:2] == ("walk-0", "walk-1")
    np.testing.assert_allclose(found.angles[:2], [[0, 0], [0, 90]], atol=1e-6)


def test_what_spans_no_plane_keeps_its_name(tmp_path):
    rows = np.random.default_rng(16).standard_normal((3, 8))
    found = stability([write_run(tmp_path / "run.h5", rows)])
    assert found.left_out == tuple(quarters(3))
    np.testing.assert_array_equal(np.isnan(found.angles).all(1), [True, True, True, False, True, True])
    np.testing.assert_allclose(found.angles[3], 0.0, atol=1e-6)  # no fourth snapshot: nothing is left out
    resting = [write_run(tmp_path / f"{k}.h5", r, seed=k) for k, r in enumerate((circle((0, 1), 1.0), np.ones((4, 5))))]
    assert np.isnan(stability(resting).angles[0]).all()


def test_runs_that_are_gone_when_single_snapshots_are_left_out_leave_no_plane(tmp_path):
    rng = np.random.default_rng(17)
    runs = [write_run(tmp_path / f"{k}.h5", rng.standard_normal((1, 9)), seed=k) for k in range(4)]
    found = stability(runs)
    assert found.left_out[:4] == ("walk-0", "walk-1", "walk-2", "walk-3")
    # The first and the last quarter of one snapshot are that snapshot, and so is every fourth one from the first.
    np.testing.assert_array_equal(np.isnan(found.angles).all(1), np.isin(np.arange(10), [4, 8, 9]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_snapshots_on_one_line_have_no_plane_to_turn(tmp_path, dtype):
    rng = np.random.default_rng(18)
    start, step = rng.standard_normal(1000), 0.01 * rng.standard_normal(1000)
    run = write_run(tmp_path / "run.h5", start + np.arange(8)[:, None] * step, dtype=dtype)
    with pytest.raises(LandscapeError, match=r"the 8 snapshots lie on one line"):
        stability([run])


def test_snapshots_that_are_not_finite_have_no_plane_to_turn(tmp_path):
    theta = equal_steps(6, 10, 5)
    theta[-1, 0] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(LandscapeError, match=r"some snapshots are not finite"):
        stability([write_run(tmp_path / "run.h5", theta)])
