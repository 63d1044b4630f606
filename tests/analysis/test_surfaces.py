"""Surfaces against closed forms and against a plain loop that sets weights and runs the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from analysis import surfaces
from analysis.engines import Together
from analysis.points import Conditions, Meter
from analysis.results import Line, Plane, Run, Shadow
from analysis.surfaces import Grid
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases


def plane_for(problem, seed=0, size=0.3, buffers=None):
    """A sheared plane through the problem's start, of directions that also move the heads."""
    rng = np.random.default_rng(seed)
    theta, state = problem.initial(0)
    first, second = rng.standard_normal((2, problem.layout.size))
    basis = size * np.stack([first, 0.8 * first + 0.5 * second])
    return Plane(
        origin=theta.double().numpy(),
        basis=basis,
        gram=basis @ basis.T,
        buffers=state.numpy() if buffers is None else np.asarray(buffers),
        explained=np.full(2, np.nan),
        recipe="sheared",
        axes=("first", "second"),
        seed=-1,
        layout=problem.layout.hash,
    )


GRID = Grid(x=(-1.0, -0.25, 0.0, 0.5, 2.0), y=(-0.5, 0.0, 1.5))


@pytest.mark.parametrize("spread", [0.0, 0.6])
@pytest.mark.parametrize("tasks", [1, 3])
def test_mean_and_standard_error_on_quadratics_are_the_closed_forms(spread, tasks):
    problem = problems.load("quadratic", {"tasks": tasks, "size": 7, "spread": spread, "examples": 14})
    problem.micro_batch = 4  # 4, 4, 4 and 2
    plane = plane_for(problem)
    surface = surfaces.measure(problem, plane, GRID)
    a, c = problem.model.hessians.numpy(), problem.model.minima.numpy()
    e = problem.evaluation.inputs.numpy()
    assert surface.loss.shape == (tasks, 3, 5)
    for t in range(tasks):
        head = problem.layout.index(f"task{t + 1}") if tasks > 1 else problem.layout.index()[7:]
        for j, y in enumerate(GRID.y):
            for i, x in enumerate(GRID.x):
                theta = plane.origin + x * plane.basis[0] + y * plane.basis[1]
                offset, phi = theta[:7] - c[t], theta[head]
                # L(e_i) = mean + d_i with d_i = e_i' A offset + e_i' A e_i / 2 - its mean; the first sums to zero.
                mean = 0.5 * offset @ a[t] @ offset + 0.5 * phi @ phi + 0.5 * np.mean([v @ a[t] @ v for v in e])
                d = [v @ a[t] @ offset + 0.5 * v @ a[t] @ v for v in e]
                d = np.array(d) - 0.5 * np.mean([v @ a[t] @ v for v in e])
                error = np.sqrt((d @ d) / 13 / 14)
                assert surface.loss[t, j, i] == pytest.approx(mean, rel=1e-10)
                assert surface.stderr[t, j, i] == pytest.approx(error, rel=1e-10, abs=1e-13 * mean)
    assert surface.done.all()
    assert surface.examples == 14


class Tilted(nn.Module):
    """Predicts theta itself, one row an example."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1, 2, dtype=torch.float64))

    def forward(self, inputs):
        return self.theta.expand(len(inputs), 2)


def function_of_theta(loss, examples=2):
    nothing = TensorDataset(torch.zeros(examples, 1), torch.zeros(examples, 1))
    return Problem(Tilted(), [Task("f", lambda prediction, _: loss(prediction))], nothing, nothing)


def axes_plane(problem):
    return replace(plane_for(problem), origin=np.zeros(2), basis=np.eye(2), gram=np.eye(2))


def test_x_runs_along_the_last_axis_and_y_along_the_one_before():
    problem = function_of_theta(lambda p: p[:, 0] + 10 * p[:, 1])
    surface = surfaces.measure(problem, axes_plane(problem), Grid(5, 4, 1.0))
    assert surface.loss.shape == (1, 4, 5)
    np.testing.assert_allclose(surface.loss[0], surface.x[None, :] + 10 * surface.y[:, None], atol=1e-14)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kind", cases.KINDS)
def test_points_are_those_of_a_module_with_the_weights_set(kind, dtype, bound):
    problem = cases.make(kind, dtype)
    plane = plane_for(problem)
    surface = surfaces.measure(problem, plane, GRID)
    for j, y in enumerate(GRID.y):
        for i, x in enumerate(GRID.x):
            theta = plane.origin + x * plane.basis[0] + y * plane.basis[1]
            expected = cases.plain_losses(problem, theta, torch.tensor(plane.buffers))
            np.testing.assert_allclose(surface.loss[:, j, i], expected, rtol=bound)


def test_the_statistics_of_batch_norm_are_the_planes_and_not_the_models():
    problem = cases.make("batch norm")
    other = problem.initial(0)[1].numpy().copy()
    other[:5], other[5:10] = 1.0, 4.0
    plane = plane_for(problem, buffers=other)
    surface = surfaces.measure(problem, plane, Grid(3, 3, 1.0))
    expected = cases.plain_losses(problem, plane.origin, torch.tensor(other))
    np.testing.assert_allclose(surface.loss[:, 1, 1], expected, rtol=1e-12)
    models_own = cases.plain_losses(problem, plane.origin)
    assert (np.abs(models_own - expected) > 1e-3).all()
    assert surface.batch_norm == "frozen"
    plain = cases.make("plain")
    assert surfaces.measure(plain, plane_for(plain), Grid(3)).batch_norm == "none"


@pytest.mark.parametrize("micro_batch", [1, 4, 13, 50])
def test_the_size_of_micro_batches_does_not_matter(micro_batch):
    problem = cases.make("plain")
    whole = surfaces.measure(problem, plane_for(problem), GRID)
    problem.micro_batch = micro_batch
    cut = surfaces.measure(problem, plane_for(problem), GRID)
    np.testing.assert_allclose(cut.loss, whole.loss, rtol=1e-14)
    np.testing.assert_allclose(cut.stderr, whole.stderr, rtol=1e-13)


def test_losses_that_are_not_finite_stay_so():
    def loss(p):
        x, y = p[:, 0], p[:, 1]
        return torch.where(x > 0.5, torch.inf, torch.where(y > 0.5, torch.nan, x - y))

    problem = function_of_theta(loss)
    surface = surfaces.measure(problem, axes_plane(problem), Grid(3, 3, 1.0))
    np.testing.assert_array_equal(surface.loss[0], [[0, 1, np.inf], [-1, 0, np.inf], [np.nan, np.nan, np.inf]])
    assert surface.done.all(), "measured, though not finite"
    assert np.isnan(surface.stderr[0, 2]).all()


def test_one_infinite_example_makes_the_mean_infinite():
    problem = cases.make("plain")
    tasks = [
        replace(t, loss=lambda p, y, f=t.loss: f(p, y).index_fill(0, torch.tensor([0]), torch.inf))
        for t in problem.tasks
    ]
    problem.tasks = tuple(tasks)
    surface = surfaces.measure(problem, plane_for(problem), Grid(3))
    assert np.isposinf(surface.loss).all()
    assert np.isnan(surface.stderr).all()


def test_one_example_has_no_standard_error():
    problem = function_of_theta(lambda p: p.sum(1), examples=1)
    surface = surfaces.measure(problem, axes_plane(problem), Grid(3))
    assert np.isfinite(surface.loss).all()
    assert np.isnan(surface.stderr).all()


def test_a_surface_half_done_is_gone_on_with_and_nothing_is_measured_twice():
    problem = cases.make("plain")
    calls = []
    problem.model.register_forward_hook(lambda *_: calls.append(1))
    plane = plane_for(problem)
    whole = surfaces.measure(problem, plane, GRID)
    pieces = 3  # 13 examples in micro-batches of 5
    assert len(calls) == (15 + 1) * pieces, "the points and the centre"
    done = np.zeros((3, 5), bool)
    done[0], done[1, [1, 4]] = True, True
    holes = np.where(done, 1.0, np.nan)
    errors = (
        "stderr",
        "difference_stderr",
        "average_stderr",
        "average_difference_stderr",
    )
    rows = {name: getattr(whole, name) * holes for name in ("loss", *errors)}
    half = replace(whole, **rows, done=done)
    calls.clear()
    rows = list(surfaces.measuring(problem, plane, GRID, before=half))
    assert len(calls) == (15 - 7 + 1) * pieces
    assert rows[-1] == whole
    assert len(rows) == 2, "the row that was done is not reported again"
    calls.clear()
    assert surfaces.measure(problem, plane, GRID, before=whole) == whole
    assert not calls


def test_every_row_is_reported_with_what_is_done_so_far_and_stays_as_it_was_reported():
    problem = cases.make("plain")
    rows = list(surfaces.measuring(problem, plane_for(problem), GRID))
    for number, surface in enumerate(rows, 1):
        assert surface.done[:number].all()
        assert not surface.done[number:].any()
        assert np.isnan(surface.loss[:, number:]).all()
        assert np.isfinite(surface.loss[:, :number]).all()


def test_groups_longer_than_a_row_are_reported_one_by_one():
    problem = cases.make("plain")
    rows = list(surfaces.measuring(problem, plane_for(problem), GRID, Conditions(Together(6, 5))))
    assert [int(surface.done.sum()) for surface in rows] == [6, 12, 15]
    exact = surfaces.measure(problem, plane_for(problem), GRID)
    # Sums of thirteen losses of order one in float64, in another order.
    np.testing.assert_allclose(rows[-1].loss, exact.loss, rtol=1e-12)


@pytest.mark.parametrize("what", ["plane", "grid", "data"])
def test_a_surface_of_something_else_is_not_gone_on_with(what):
    problem = cases.make("plain")
    plane = plane_for(problem)
    before = surfaces.measure(problem, plane, GRID)
    grid = GRID
    if what == "plane":
        plane = replace(plane, origin=plane.origin + 1e-12)
    if what == "grid":
        grid = Grid(GRID.x, (-0.5, 0.0, 1.6))
    if what == "data":
        before = replace(before, data="other")
    with pytest.raises(
        LandscapeError, match=rf"has another {what}: expected the same plane, grid, data and conditions"
    ):
        surfaces.measure(problem, plane, grid, before=before)


def test_a_plane_of_another_model_is_refused():
    plane = plane_for(cases.make("plain"))
    with pytest.raises(LandscapeError, match=r"the plane belongs to another model: expected layout"):
        surfaces.measure(cases.make("tied weights"), plane, GRID)


def test_measuring_changes_nothing_of_the_module_or_of_the_generators():
    problem = cases.make("batch norm")
    model = problem.model
    model.train()
    model.first.eval()
    model.second.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    flags = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    modes = {name: part.training for name, part in model.named_modules()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    surface = surfaces.measure(problem, plane_for(problem), GRID)
    assert surfaces.measure(problem, plane_for(problem), GRID) == surface, "the same bytes"
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert flags == {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    assert modes == {name: part.training for name, part in model.named_modules()}
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_the_start_of_the_run_lies_exactly_on_the_grid():
    problem = cases.make("plain")
    surface = surfaces.measure(problem, plane_for(problem), Grid(7, 4, 2.0))
    theta, buffers = problem.initial(0)
    j, i = list(surface.y).index(0.0), list(surface.x).index(0.0)
    expected = problem.evaluate(theta, buffers).losses.numpy()
    np.testing.assert_allclose(surface.loss[:, j, i], expected, rtol=1e-15)


def shadow_of(points):
    points = np.asarray(points, float)
    count = len(points)
    return Shadow(
        run=Run("r", "R()", 0),
        steps=np.arange(count),
        coordinates=points,
        off_plane=np.zeros(count),
        from_origin=np.zeros(count),
        elsewhere=np.zeros(count),
        losses=np.zeros((count, 1)),
        tasks=("one",),
    )


coordinate = st.floats(-1e6, 1e6).map(lambda v: 0.0 if abs(v) < 1e-6 else v)


@given(
    st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6),
    st.integers(3, 40),
    st.integers(3, 40),
    st.sampled_from([0.0, 0.15, 1.0]),
)
def test_a_grid_around_shadows_covers_them_holds_zero_and_has_equal_steps(points, nx, ny, margin):
    both = np.array([*points, (1.0, -2.0)])
    grid = Grid.around([shadow_of(points), shadow_of([(1.0, -2.0)])], nx, ny, margin)
    assert grid.shape == (ny, nx)
    for axis, column in ((grid.x, both[:, 0]), (grid.y, both[:, 1])):
        steps = np.diff(axis)
        assert 0.0 in axis
        assert (steps > 0).all()
        np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
        low, high = min(column.min(), 0), max(column.max(), 0)
        slack = 1e-8 * (high - low)  # a billionth of a step, and the margins
        room = margin * (high - low)
        assert axis[0] <= low - room + slack
        assert axis[-1] >= high + room - slack
        assert axis[-1] - axis[0] <= (1 + 2 * margin) * (high - low) * (len(axis) - 1) / (len(axis) - 2) + slack


@given(st.integers(3, 60), st.integers(3, 60), st.floats(1e-9, 1e9))
def test_a_square_grid_reaches_as_far_as_asked_and_holds_zero(nx, ny, reach):
    grid = Grid(nx, ny, reach)
    assert grid.shape == (ny, nx)
    for axis in (np.array(grid.x), np.array(grid.y)):
        assert 0.0 in axis
        assert (np.diff(axis) > 0).all()
        assert axis[0] == pytest.approx(-reach, rel=1e-12)
        assert axis[-1] >= reach * (1 - 1e-12)
        if len(axis) % 2:
            np.testing.assert_array_equal(axis, -axis[::-1])


def test_as_many_points_both_ways_unless_said_otherwise():
    assert Grid(5).shape == (5, 5)
    assert Grid.around([shadow_of([(1, 1)])], 6).shape == (6, 6)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Grid(2), r"3 or more grid points and a range above zero, got 2 points"),
        (lambda: Grid(5, 0), r"3 or more grid points and a range above zero, got 0 points"),
        (lambda: Grid(5, reach=0.0), r"got 5 points from -0\.0 to 0\.0"),
        (lambda: Grid(5, reach=float("nan")), r"got 5 points from nan to nan"),
        (lambda: Grid.around([]), r"at least one shadow to lay the grid around, got none"),
        (lambda: Grid.around([shadow_of([(1, 0), (2, 0)])]), r"got 25 points from 0\.0 to 0\.0"),
        (lambda: Grid.around([shadow_of([(1, np.nan)])]), r"got 25 points from nan to nan"),
    ],
)
def test_grids_without_points_or_range_are_refused(call, text):
    with pytest.raises(LandscapeError, match=text):
        call()


@given(st.floats(0.0, 6.3), st.floats(0.2, 3.0), st.floats(-0.9, 0.9))
def test_a_point_is_the_same_in_every_basis_of_its_plane(angle, stretch, shear):
    problem = problems.load("quadratic", {"tasks": 2, "size": 5})
    plane = plane_for(problem)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mixing = turn @ np.array([[stretch, 0.0], [shear, 1.0]])
    other = replace(plane, basis=mixing @ plane.basis, gram=mixing @ plane.gram @ mixing.T)
    points = np.array([[0.3, -0.7], [1.0, 2.0], [-1.5, 0.25]])
    seen = points @ np.linalg.inv(mixing)  # x' basis' = x basis
    mine, its = (Meter(problem, p, Conditions()).measure(at).loss for p, at in ((plane, points), (other, seen)))
    np.testing.assert_allclose(its, mine, rtol=1e-9)  # condition of the mixing, at most about 1e3, times rounding


def test_a_network_with_its_hidden_units_permuted_has_the_same_surface():
    problem = cases.make("plain")
    plane = plane_for(problem)
    order = np.random.default_rng(1).permutation(5)
    slots = {slot.name: slot for slot in problem.layout.slots}

    def permuted(vector):
        """Units of the first layer in another order: its rows, its biases, and the columns of what follows."""
        moved = vector.copy()
        for name, axis in (("first.weight", 0), ("first.bias", 0), ("second.weight", 1)):
            slot = slots[name]
            moved[slot.span] = np.take(vector[slot.span].reshape(slot.shape), order, axis).ravel()
        return moved

    other = replace(plane, origin=permuted(plane.origin), basis=np.stack([permuted(b) for b in plane.basis]))
    one, same = surfaces.measure(problem, plane, GRID), surfaces.measure(problem, other, GRID)
    assert (other.basis != plane.basis).any()
    np.testing.assert_allclose(same.loss, one.loss, rtol=1e-12)


def test_a_surface_is_transposed_where_its_axes_are_swapped():
    problem = cases.make("plain")
    plane = plane_for(problem)
    swapped = replace(plane, basis=plane.basis[::-1], gram=plane.gram[::-1, ::-1])
    one, other = surfaces.measure(problem, plane, GRID), surfaces.measure(problem, swapped, Grid(GRID.y, GRID.x))
    np.testing.assert_allclose(other.loss.transpose(0, 2, 1), one.loss, rtol=1e-12)
    np.testing.assert_allclose(other.difference_stderr.transpose(0, 2, 1), one.difference_stderr, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ([0.5, 1.0], r"x coordinates in ascending order with zero among them, got 0\.5, 1: add zero"),
        ([1.0, 0.0], r"in ascending order with zero among them, got 1, 0"),
        ([], r"with zero among them, got none"),
    ],
)
def test_coordinates_without_the_origin_or_out_of_order_are_refused(x, text):
    with pytest.raises(LandscapeError, match=text):
        Grid(x, [0.0, 1.0])


def test_a_profile_is_a_row_of_the_surface():
    problem = cases.make("batch norm")
    plane = plane_for(problem)
    line = Line(
        **{
            **{name: getattr(plane, name) for name in ("origin", "buffers", "recipe", "seed", "layout")},
            "basis": plane.basis[:1],
            "gram": plane.gram[:1, :1],
            "axes": ("first",),
        }
    )
    surface = surfaces.measure(problem, plane, GRID)
    profile = surfaces.profile(problem, line, GRID.x)
    row = GRID.y.index(0.0)
    for name in ("loss", "stderr", "difference_stderr", "average_stderr", "average_difference_stderr", "scores"):
        np.testing.assert_array_equal(getattr(profile, name), getattr(surface, name)[..., row, :])
    half = replace(profile, done=np.arange(5) < 2)
    *_, again = surfaces.profiling(problem, line, GRID.x, before=half)
    assert again == profile
    with pytest.raises(LandscapeError, match="the profile to go on with has another grid"):
        list(surfaces.profiling(problem, line, GRID.x[1:], before=half))
