"""Conflict maps against closed forms, and against a plain loop that sets weights and differentiates each task."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import archive, conflicts
from analysis.results import Plane
from analysis.surfaces import Grid
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from landscape.problems.toy import toy_losses
from tests.analysis import cases

GRID = Grid(x=(-1.0, -0.25, 0.0, 0.5, 2.0), y=(-0.5, 0.0, 1.5))


def plane_for(problem, origin=None, basis=None, buffers=None):
    """A sheared plane through the problem's start, of directions that also move the heads, or a given one."""
    theta, state = problem.initial(0)
    if basis is None:
        first, second = np.random.default_rng(0).standard_normal((2, problem.layout.size))
        basis = 0.3 * np.stack([first, 0.8 * first + 0.5 * second])
    basis = np.asarray(basis, float)
    return Plane(
        origin=theta.double().numpy() if origin is None else np.asarray(origin, float),
        basis=basis,
        gram=basis @ basis.T,
        buffers=state.numpy() if buffers is None else np.asarray(buffers),
        explained=np.full(2, np.nan),
        recipe="by hand",
        axes=("first", "second"),
        seed=-1,
        layout=problem.layout.hash,
    )


def quadratic(tasks=3, examples=14, spread=0.6, micro_batch=4):
    problem = problems.load("quadratic", {"tasks": tasks, "size": 7, "spread": spread, "examples": examples})
    problem.micro_batch = micro_batch
    return problem, problem.model.hessians.numpy(), problem.model.minima.numpy()


def points(plane, grid=GRID):
    """(j, i, theta) of every grid point."""
    for j, y in enumerate(grid.y):
        for i, x in enumerate(grid.x):
            yield j, i, plane.origin + x * plane.basis[0] + y * plane.basis[1]


def least(gradients, steps=400):
    """Norm of the smallest convex combination of two gradients, by trying many."""
    a = np.linspace(0, 1, steps + 1)[:, None]
    return np.linalg.norm(a * gradients[0] + (1 - a) * gradients[1], axis=1).min()


@pytest.mark.parametrize("tasks", [2, 3])
def test_gradients_of_quadratics_are_the_closed_forms(tasks):
    problem, a, c = quadratic(tasks)
    plane = plane_for(problem)
    found = conflicts.measure(problem, plane, GRID)
    pairs = list(combinations(range(tasks), 2))
    assert found.cosine.shape == (len(pairs), 3, 5)
    assert found.pairs == tuple(f"task{i + 1} and task{j + 1}" for i, j in pairs)
    for j, i, theta in points(plane):
        g = np.stack([a[t] @ (theta[:7] - c[t]) for t in range(tasks)])
        norms = np.linalg.norm(g, axis=1)
        np.testing.assert_allclose(found.norm[:, j, i], norms, rtol=1e-13)
        for k, (s, t) in enumerate(pairs):
            assert found.cosine[k, j, i] == pytest.approx(g[s] @ g[t] / norms[s] / norms[t], abs=1e-14)
            assert found.ratio[k, j, i] == pytest.approx(norms[s] / norms[t], rel=1e-13)
        d = found.weights[:, j, i] @ g
        # The conditions of the minimum, necessary and sufficient; the Gram matrix rounds to 1e-16 of a square.
        assert (g @ d >= d @ d - 1e-14 * norms.max() ** 2).all()
        assert found.gap[j, i] == pytest.approx(np.linalg.norm(d), abs=1e-14 * norms.max())
        if tasks == 2:
            assert found.gap[j, i] == pytest.approx(least(g), abs=norms.max() / 400)
    assert found.done.all()
    assert (found.examples, found.data, found.tasks) == (14, problem.data_hash, problem.names)


def test_a_gap_of_zero_is_zero_to_rounding():
    """On the segment between two round bowls' centres the gradients are opposite."""
    options = {"hessians": [np.eye(3).tolist()] * 2, "minima": [[-1, 0, 0], [2, 0, 0]], "heads": 0}
    problem = problems.load("quadratic", options)
    plane = plane_for(problem, np.zeros(3), [[1, 0, 0], [0, 1, 0]])
    found = conflicts.measure(problem, plane, Grid((-2.0, -0.5, 0.0, 1.25, 3.0), (0.0, 0.7)))
    # Outside the segment the nearer bowl's gradient is the smallest combination; beside it, what points towards it.
    np.testing.assert_allclose(found.gap[0], [1, 0, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(found.gap[1], [np.hypot(1, 0.7), 0.7, 0.7, 0.7, np.hypot(1, 0.7)], rtol=1e-13)
    np.testing.assert_allclose(found.cosine[0, 0], [1, -1, -1, -1, 1], rtol=1e-15)
    np.testing.assert_allclose(found.weights[0, 0, 1:4], [2.5 / 3, 2 / 3, 0.75 / 3], rtol=1e-13)
    np.testing.assert_array_equal(found.pareto, [[False, True, True, True, False], [False] * 5])


def test_the_gap_of_the_toy_problem_vanishes_on_its_pareto_segment_alone():
    problem = problems.load("toy", {})
    plane = plane_for(problem, [0.0, -8.355], [[1, 0], [0, 1]])
    grid = Grid((-9.0, -6.9, -3.0, 0.0, 5.0, 6.9, 9.5), (-3.0, 0.0, 2.0))
    found = conflicts.measure(problem, plane, grid)
    # x2 = -8.355 is that of the middle, rounded; towards the ends the segment bends by a tenth, at a curvature of 0.02.
    assert found.gap[1, 3] < 1e-5
    assert (found.gap[1, 1:6] < 3e-3).all()
    assert found.gap[1, [0, 6]].min() > 0.3
    assert found.gap[[0, 2]].min() > 0.02
    # The shorter gradient at the ends is 0.02: an angle of 0.1.
    np.testing.assert_allclose(found.cosine[0, 1, 1:6], -1, atol=1e-2)
    assert (found.cosine[0, 1, [0, 6]] > 0.9).all()
    for j, i, theta in points(plane, grid):
        jacobian = torch.autograd.functional.jacobian(toy_losses, torch.tensor(theta)).numpy()
        np.testing.assert_allclose(found.norm[:, j, i], np.linalg.norm(jacobian, axis=1), rtol=1e-13)
        assert found.gap[j, i] == pytest.approx(least(jacobian), abs=np.abs(jacobian).max() / 200)
    assert found.pareto[1, 1:6].all()
    assert np.isnan(found.noise).all(), "one example has no spread"
    assert np.isnan(found.gap_noise).all()


def plain_gradients(problem, theta, buffers):
    """Gradients of every task's mean loss on the shared parameters, with the weights set and all data in one go."""
    module = problem.module(torch.tensor(theta, dtype=problem.dtype), torch.tensor(buffers))
    module.eval()
    shared = {slot.name for slot in problem.layout.slots if slot.owner == "shared"}
    rows = []
    for task, target in zip(problem.tasks, problem.evaluation.targets, strict=True):
        module.zero_grad()
        task.loss(module(problem.evaluation.inputs)[task.name], target).mean().backward()
        found = [
            p.grad if p.grad is not None else torch.zeros_like(p)
            for name, p in module.named_parameters()
            if name in shared
        ]
        rows.append(torch.cat([g.reshape(-1) for g in found]).double().numpy())
    return np.stack(rows)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("kind", cases.KINDS)
def test_gradients_are_those_of_a_module_with_the_weights_set(kind, dtype, bound):
    problem = cases.make(kind, dtype)
    buffers = problem.initial(0)[1].numpy().copy()
    if kind == "batch norm":
        buffers[:5], buffers[5:10] = 1.0, 4.0  # the plane's statistics, not the model's
    plane = plane_for(problem, buffers=buffers)
    found = conflicts.measure(problem, plane, GRID)
    for j, i, theta in points(plane):
        g = plain_gradients(problem, theta, buffers)
        norms = np.linalg.norm(g, axis=1)
        # Roundings of a few layers, relative to the longest gradient, of which a cosine's are multiples.
        np.testing.assert_allclose(found.norm[:, j, i], norms, rtol=bound)
        for k, (s, t) in enumerate(combinations(range(len(g)), 2)):
            assert found.cosine[k, j, i] == pytest.approx(g[s] @ g[t] / norms[s] / norms[t], abs=bound)
        assert found.gap[j, i] == pytest.approx(np.linalg.norm(found.weights[:, j, i] @ g), abs=bound * norms.max())
        np.testing.assert_allclose(
            found.loss[:, j, i], cases.plain_losses(problem, theta, torch.tensor(buffers)), bound
        )


def test_a_task_that_reaches_less_of_the_shared_parameters_has_zeros_there():
    problem = cases.make("shallow task")
    plane = plane_for(problem)
    g = plain_gradients(problem, plane.origin, plane.buffers)
    assert (g[1] == 0).any(), "the case is what it claims"
    found = conflicts.measure(problem, plane, Grid(3))
    np.testing.assert_allclose(found.norm[:, 1, 1], np.linalg.norm(g, axis=1), rtol=1e-12)


def test_standard_errors_of_single_examples_are_those_of_the_gradients_of_every_example():
    problem, a, _ = quadratic()
    found = conflicts.measure(problem, plane_for(problem), GRID)
    e = problem.evaluation.inputs.numpy()
    assert found.pieces == 14, "14 examples give 8 pieces or more only one by one"
    # The gradient on example i is the mean plus A e_i, with sum_i e_i = 0, everywhere.
    errors = np.stack([e @ a[t] for t in range(3)])
    expected = np.sqrt((errors**2).sum((1, 2)) / 13 / 14)
    np.testing.assert_allclose(found.noise, np.broadcast_to(expected[:, None, None], (3, 3, 5)), rtol=1e-10)
    for j, i, _ in points(found.plane):
        together = np.tensordot(found.weights[:, j, i], errors, 1)
        assert found.gap_noise[j, i] == pytest.approx(np.sqrt((together**2).sum() / 13 / 14), rel=1e-10)


def test_standard_errors_from_pieces_of_unequal_sizes_are_unbiased():
    """Over all orders, the mean of noise^2 is the gradients' variance over N, whatever the sizes: 8 times 8, and 2."""
    problem, a, _ = quadratic(tasks=1, examples=66, micro_batch=8)
    plane, one = plane_for(problem), Grid((0.0,), (0.0,))
    e = problem.evaluation.inputs.numpy()
    exact = ((e @ a[0]) ** 2).sum() / 65 / 66
    found = [conflicts.measure(problem, plane, one, seed=seed) for seed in range(60)]
    assert found[0].pieces == 9
    squares = np.array([f.noise.item() ** 2 for f in found])
    error = squares.std(ddof=1) / np.sqrt(60)
    # Four standard errors over 60 orders. Pieces of one weight each: (8 / 8 + 1 / 2) / 72 for 1 / 66, 37 % more.
    assert squares.mean() == pytest.approx(exact, abs=4 * error)
    assert 4 * error < 0.3 * exact


def test_examples_in_order_of_their_class_do_not_make_the_noise_larger():
    problem, a, _ = quadratic(tasks=1, examples=64, micro_batch=8)
    order = np.argsort(problem.evaluation.inputs[:, 0].numpy())
    problem.evaluation = problem.evaluation[torch.from_numpy(order)]
    e = problem.evaluation.inputs.numpy()
    plane, one = plane_for(problem), Grid((0.0,), (0.0,))
    squares = np.array([conflicts.measure(problem, plane, one, seed=seed).noise.item() ** 2 for seed in range(30)])
    exact = ((e @ a[0]) ** 2).sum() / 63 / 64
    in_order = 8 * ((e.reshape(8, 8, 7).mean(1) @ a[0]) ** 2).sum() / 7 / 64
    error = squares.std(ddof=1) / np.sqrt(30)
    assert in_order > exact + 10 * error, "the case is what it claims"
    assert squares.mean() == pytest.approx(exact, abs=4 * error)


def test_examples_that_are_all_alike_have_no_noise():
    problem, _, _ = quadratic(spread=0.0)
    found = conflicts.measure(problem, plane_for(problem), GRID)
    assert (found.noise <= 1e-14 * found.norm).all()


@pytest.mark.parametrize("micro_batch", [1, 4, 13, 50])
def test_the_size_of_micro_batches_does_not_matter(micro_batch):
    problem = cases.make("plain")
    plane = plane_for(problem)
    whole = conflicts.measure(problem, plane, GRID)
    problem.micro_batch = micro_batch
    cut = conflicts.measure(problem, plane, GRID)
    for name in ("cosine", "ratio", "norm", "gap", "weights", "loss"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-11, atol=1e-12)


def test_a_piece_is_a_micro_batch_at_most_and_there_are_eight_where_there_can_be():
    for examples, micro_batch, pieces in ((14, 50, 14), (16, 50, 8), (26, 50, 9), (40, 4, 10), (4, 50, 4)):
        problem, _, _ = quadratic(tasks=2, examples=examples, micro_batch=micro_batch)
        assert conflicts.measure(problem, plane_for(problem), Grid((0.0,), (0.0,))).pieces == pieces


def test_the_order_of_tasks_permutes_what_is_found():
    problem, _, _ = quadratic()
    plane = plane_for(problem)
    found = conflicts.measure(problem, plane, GRID)
    problem.tasks = tuple(problem.tasks[k] for k in (2, 0, 1))
    problem.model.register_forward_hook(lambda _, __, out: [out[k] for k in (2, 0, 1)])
    turned = conflicts.measure(problem, plane, GRID)
    # Pairs (3, 1), (3, 2), (1, 2) of the first order.
    np.testing.assert_allclose(turned.cosine, found.cosine[[1, 2, 0]], rtol=1e-12)
    np.testing.assert_allclose(turned.ratio, [1 / found.ratio[1], 1 / found.ratio[2], found.ratio[0]], rtol=1e-12)
    np.testing.assert_allclose(turned.gap, found.gap, rtol=1e-10)
    np.testing.assert_allclose(turned.weights, found.weights[[2, 0, 1]], atol=1e-10)
    np.testing.assert_array_equal(turned.pareto, found.pareto)


def test_one_task_has_no_pairs_and_its_norm_for_a_gap():
    problem, _, _ = quadratic(tasks=1)
    plane = plane_for(problem)
    found = conflicts.measure(problem, plane, GRID)
    assert found.cosine.shape == found.ratio.shape == (0, 3, 5)
    np.testing.assert_allclose(found.gap, found.norm[0], rtol=1e-14)
    np.testing.assert_allclose(found.gap_noise, found.noise[0], rtol=1e-14)
    np.testing.assert_array_equal(found.weights, np.ones((1, 3, 5)))
    j, i = np.unravel_index(found.loss[0].argmin(), (3, 5))
    assert found.pareto.sum() == 1
    assert found.pareto[j, i]


class Point(nn.Module):
    """Predicts theta itself for every task, one row an example."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks
        self.theta = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, inputs):
        return [self.theta.expand(len(inputs), 2)] * self.tasks


def functions_of_theta(*losses, examples=2):
    nothing = TensorDataset(*[torch.zeros(examples, 1)] * (1 + len(losses)))
    tasks = [Task(f"f{k}", lambda prediction, _, f=f: f(prediction)) for k, f in enumerate(losses)]
    return Problem(Point(len(losses)), tasks, nothing, nothing)


def over_the_axes(problem):
    return plane_for(problem, np.zeros(2), np.eye(2))


def test_x_runs_along_the_last_axis_and_y_along_the_one_before():
    problem = functions_of_theta(lambda p: 0.5 * p[:, 0] ** 2 + p[:, 1], lambda p: p[:, 0] + 5 * p[:, 1] ** 2)
    found = conflicts.measure(problem, over_the_axes(problem), Grid(5, 4))
    assert found.gap.shape == (4, 5)
    x, y = np.meshgrid(found.x, found.y)
    np.testing.assert_allclose(found.norm, [np.hypot(x, 1), np.hypot(1, 10 * y)], rtol=1e-14)
    np.testing.assert_allclose(found.cosine[0], (x + 10 * y) / np.hypot(x, 1) / np.hypot(1, 10 * y), atol=1e-14)
    np.testing.assert_allclose(found.loss, [0.5 * x**2 + y, x + 5 * y**2], atol=1e-14)


def test_a_gradient_that_is_not_finite_leaves_the_other_tasks_alone():
    def steep(p):  # the root has an infinite slope at x = 0, and no value to the left of it
        return torch.sqrt(p[:, 0]) + p[:, 1]

    problem = functions_of_theta(lambda p: p[:, 0] + 2 * p[:, 1], steep, lambda p: p[:, 0] - p[:, 1])
    found = conflicts.measure(problem, over_the_axes(problem), Grid(3, 3))
    assert found.done.all(), "measured, though not finite"
    for name in ("norm", "noise"):
        assert np.isfinite(getattr(found, name)[[0, 2]]).all()
        assert np.isnan(getattr(found, name)[1, :, :2]).all()
    assert np.isfinite(found.cosine[1]).all(), "of the first and the third"
    for rows in (*found.cosine[[0, 2]], *found.ratio[[0, 2]], found.gap, found.gap_noise, *found.weights):
        assert np.isnan(rows[:, :2]).all()
        assert np.isfinite(rows[:, 2]).all()
    np.testing.assert_array_equal(np.isnan(found.loss[1]), [[True, False, False]] * 3)
    assert not found.pareto[:, 0].any()


def test_an_infinite_loss_of_zero_slope_is_no_stationary_point():
    def loss(p):
        return torch.where(p[:, 0] > 0.5, torch.inf, p[:, 0] - p[:, 1])

    problem = functions_of_theta(loss, lambda p: p[:, 0] + p[:, 1])
    found = conflicts.measure(problem, over_the_axes(problem), Grid(3, 3))
    assert np.isposinf(found.loss[0, :, 2]).all()
    assert np.isnan(found.gap[:, 2]).all()
    assert np.isfinite(found.gap[:, :2]).all()
    assert not found.pareto[:, 2].any()


def test_a_zero_gradient_has_no_cosine_and_no_gap():
    problem = functions_of_theta(lambda p: p[:, 0] ** 2 + p[:, 1] ** 2, lambda p: p[:, 0] + p[:, 1])
    found = conflicts.measure(problem, over_the_axes(problem), Grid(3, 3))
    assert np.isnan(found.cosine[0, 1, 1])
    assert np.isnan(found.cosine).sum() == 1
    assert found.norm[0, 1, 1] == found.gap[1, 1] == found.ratio[0, 1, 1] == 0
    np.testing.assert_array_equal(found.weights[:, 1, 1], [1, 0])


@pytest.mark.parametrize("factor", [1e-170, 1e170])
def test_gradients_whose_squares_leave_the_range_of_numbers_are_compared_all_the_same(factor):
    problem = functions_of_theta(lambda p: factor * (p[:, 0] + p[:, 1]), lambda p: factor * 3 * p[:, 0])
    found = conflicts.measure(problem, over_the_axes(problem), Grid((0.0,), (0.0,)))
    assert found.cosine.item() == pytest.approx(np.sqrt(0.5), rel=1e-14)
    assert found.gap.item() == pytest.approx(np.sqrt(2) * factor, rel=1e-14)
    np.testing.assert_allclose(found.norm.ravel(), [np.sqrt(2) * factor, 3 * factor], rtol=1e-14)


class Apart(nn.Module):
    """Two tasks with nothing in common."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, inputs):
        return self.one(inputs), self.two(inputs)


def test_tasks_without_shared_parameters_are_refused():
    data = TensorDataset(*[torch.ones(3, 1)] * 3)
    problem = Problem(Apart(), [Task(n, cases.squared_error) for n in ("one", "two")], data, data)
    with pytest.raises(LandscapeError, match="has no shared parameters: expected some that several tasks' gradients"):
        conflicts.measure(problem, plane_for(problem), GRID)


def test_a_plane_of_another_model_is_refused():
    plane = plane_for(cases.make("plain"))
    with pytest.raises(LandscapeError, match=r"the plane belongs to another model: expected layout"):
        conflicts.measure(cases.make("tied weights"), plane, GRID)


def test_every_row_is_reported_with_what_is_done_so_far_and_stays_as_it_was_reported():
    problem, _, _ = quadratic()
    rows = list(conflicts.mapping(problem, plane_for(problem), GRID))
    assert len(rows) == 3
    for number, found in enumerate(rows, 1):
        assert found.done[:number].all()
        assert not found.done[number:].any()
        for name in ("cosine", "ratio", "norm", "noise", "gap", "gap_noise", "weights", "loss"):
            assert np.isnan(getattr(found, name)[..., number:, :]).all()
            assert np.isfinite(getattr(found, name)[..., :number, :]).all()
        assert not found.pareto[number:].any()
        losses = found.loss[:, :number].reshape(3, -1)
        beaten = [((losses <= p).all(0) & (losses < p).any(0)).any() for p in losses.T[..., None]]
        np.testing.assert_array_equal(found.pareto[:number].ravel(), np.logical_not(beaten))


def test_a_map_half_done_is_gone_on_with_to_the_same_bytes_and_nothing_is_measured_twice():
    problem = cases.make("plain")
    calls = []
    problem.model.register_forward_hook(lambda *_: calls.append(1))
    plane = plane_for(problem)
    conflicts.measure(problem, plane, GRID)  # derivatives are looked at once, which is not counted here
    calls.clear()
    whole = conflicts.measure(problem, plane, GRID, seed=3)
    assert len(calls) == 15 * whole.pieces
    done = np.zeros((3, 5), bool)
    done[0], done[1, [1, 4]] = True, True
    holes = np.where(done, 1.0, np.nan)
    names = ("cosine", "ratio", "norm", "noise", "gap", "gap_noise", "weights", "loss")
    half = replace(whole, **{name: getattr(whole, name) * holes for name in names}, done=done, pareto=done & False)
    calls.clear()
    rows = list(conflicts.mapping(problem, plane, GRID, half, seed=3))
    assert len(calls) == (15 - 7) * whole.pieces
    assert rows[-1] == whole
    assert len(rows) == 2, "the row that was done is not reported again"
    calls.clear()
    assert conflicts.measure(problem, plane, GRID, whole, seed=3) == whole
    assert not calls


@pytest.mark.parametrize("what", ["plane", "grid", "data", "seed", "pieces"])
def test_a_map_of_something_else_is_not_gone_on_with(what):
    problem = cases.make("plain")
    plane = plane_for(problem)
    before = next(iter(conflicts.mapping(problem, plane, GRID)))
    grid, seed = GRID, 0
    if what == "plane":
        plane = replace(plane, origin=plane.origin + 1e-12)
    if what == "grid":
        grid = Grid(GRID.x, (-0.5, 0.0, 1.6))
    if what == "data":
        before = replace(before, data="other")
    if what == "seed":
        seed = 1
    if what == "pieces":
        before = replace(before, pieces=5)
    with pytest.raises(LandscapeError, match=rf"has another {what}: expected the same plane, grid, data and seed"):
        conflicts.measure(problem, plane, grid, before, seed)


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
    with torch.no_grad():
        found = conflicts.measure(problem, plane_for(problem), GRID)
    assert conflicts.measure(problem, plane_for(problem), GRID) == found, "the same bytes"
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert flags == {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    assert modes == {name: part.training for name, part in model.named_modules()}
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_many_columns_are_taken_a_few_at_a_time(monkeypatch):
    problem, _, _ = quadratic()
    plane = plane_for(problem)
    whole = conflicts.measure(problem, plane, GRID)
    monkeypatch.setattr(conflicts, "COLUMNS", 3)  # 3, 3 and 1 of the 7 shared parameters
    cut = conflicts.measure(problem, plane, GRID)
    np.testing.assert_allclose(cut.noise, whole.noise, rtol=1e-12)
    np.testing.assert_array_equal(cut.cosine, whole.cosine)


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_map_comes_back_from_the_archive_as_it_was(tmp_path, tasks):
    problem, _, _ = quadratic(tasks)
    found = next(iter(conflicts.mapping(problem, plane_for(problem), GRID)))
    archive.save(tmp_path / "results.h5", {"conflict/plane": archive.Entry(found)})
    again = archive.load(tmp_path / "results.h5", "conflict/plane").record
    assert again == found
    assert conflicts.measure(problem, found.plane, GRID, again) == conflicts.measure(problem, found.plane, GRID)
