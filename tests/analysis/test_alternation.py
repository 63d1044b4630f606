"""The theory of alternating steps against closed forms, dense Hessians and steps taken by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analysis import alternation, task_losses
from analysis.alternation import Trial
from analysis.examples import Examples
from analysis.operators import hessians
from analysis.passes import DrawnOrders, EveryOrder, NoOrders
from analysis.preconditioners import Given, SquaredGradients
from analysis.task_losses import TaskLosses
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.test_operators import dense_hessian

ALONE = Trial(0.01, orders=NoOrders())


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch, request):
    """Errors take most of the time; where they are not asked about, three blocks will do."""
    if "error" not in request.node.name:
        monkeypatch.setattr(task_losses, "BLOCKS", 3)


class Scalars(torch.nn.Module):
    """Holds theta [n] and shows it to every task."""

    def __init__(self, theta):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, inputs):
        return [self.theta + 0 * inputs] * self.tasks


def of_functions(theta, *functions, examples=4):
    """A problem whose task t has the loss functions[t](theta) on every example."""
    model = Scalars(theta)
    model.tasks = len(functions)
    inputs = torch.zeros(examples, len(theta), dtype=torch.float64)
    data = TensorDataset(inputs, *[torch.zeros(examples, 1)] * len(functions))
    tasks = [Task(f"task{k + 1}", lambda p, _, f=f: f(p.unbind(1))) for k, f in enumerate(functions)]
    return Problem(model, tasks, data, data)


def found_at(problem, trial, **words):
    theta, buffers = problem.initial(0)
    return alternation.at(problem, theta.numpy(), buffers.numpy(), trial, **words)


def quadratic(spread=0.0, **words):
    problem = problems.load("quadratic", {"tasks": 3, "size": 6, "spread": spread, **words})
    problem.micro_batch = 500
    theta, _ = problem.initial(0)
    model = problem.model
    a, c = model.hessians.numpy(), model.minima.numpy()
    return problem, a, c, theta[problem.layout.index()].numpy()


def test_on_quadratics_the_tensor_the_prediction_and_the_measurement_have_closed_forms():
    problem, a, c, theta = quadratic()
    g = np.einsum("tij,tj->ti", a, theta - c)
    tensor = np.einsum("ia,jab,kb->ijk", g, a, g)
    order, rate = (2, 0, 1), 0.03
    found = found_at(problem, Trial(rate, order, orders=NoOrders()))
    np.testing.assert_allclose(found.curvature[0], tensor, rtol=1e-12, atol=1e-12 * np.abs(tensor).max())
    pairs = [(2, 0), (2, 1), (0, 1)]
    predicted = rate**2 * sum(tensor[i, j] for i, j in pairs)
    np.testing.assert_allclose(found.predicted[0], [*predicted, predicted.mean()], rtol=1e-12)
    np.testing.assert_allclose(
        found.predicted_mean[0, :3], rate**2 / 2 * (tensor.sum((0, 1)) - np.einsum("iik->k", tensor)), rtol=1e-12
    )
    for rung, eta in enumerate((rate, rate / 2, rate / 4)):
        turned = theta.copy()
        for t in order:
            turned -= eta * a[t] @ (turned - c[t])
        joint = theta - eta * g.sum(0)
        losses = [0.5 * np.einsum("ti,tij,tj->t", p - c, a, p - c) for p in (turned, joint)]
        # Heads move alike in both; losses of some tens have roundings of some 1e-14.
        np.testing.assert_allclose(found.measured[0, rung, :3], losses[0] - losses[1], rtol=1e-9, atol=1e-13)
    np.testing.assert_array_equal(found.head_curvature, 0), "heads of quadratics do not feel the shared parameters"
    np.testing.assert_allclose(found.products[0], g @ g.T, rtol=1e-12)


def test_a_cubic_has_the_remainder_that_its_third_derivative_gives():
    alpha, beta, gamma, start = 0.7, 1.3, -2.1, 0.4
    problem = of_functions([start], lambda p: alpha * p[0], lambda p: beta * p[0] ** 2 / 2 + gamma * p[0] ** 3 / 6)
    rate = 0.1
    found = found_at(problem, Trial(rate, orders=NoOrders()))
    curvature = beta + gamma * start
    np.testing.assert_allclose(found.predicted[0, 0], rate**2 * alpha**2 * curvature, rtol=1e-13)
    # theta_2 - theta' = -rate (L2'(theta - rate alpha) - L2'(theta)), exactly to third order for a cubic.
    np.testing.assert_allclose(
        found.measured[0, 0, 0] - found.predicted[0, 0], -(rate**3) * alpha**3 * gamma / 2, rtol=1e-11
    )
    np.testing.assert_allclose(found.remainder_order[0, 0], 3.0, atol=1e-9)
    np.testing.assert_allclose(found.extrapolated[0, 0], alpha**2 * curvature, rtol=1e-10)


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "Adam-like"])
def test_as_the_rate_falls_the_measured_difference_meets_the_prediction_in_proportion(kind, adaptive):
    trial = replace(ALONE, rate=0.001 if adaptive else 0.02, rungs=5 if adaptive else 7)
    trial = replace(trial, preconditioner=SquaredGradients()) if adaptive else trial
    found = found_at(cases.make(kind), trial)
    gaps = found.remainder[0] / found.rates[:, None] ** 2
    scale = np.abs(found.predicted[0]).max() / found.rate**2
    # Halving the rate halves the gap, the more exactly the smaller it is; rounding is a thousandth of it at most.
    np.testing.assert_allclose(gaps[-2] / gaps[-1], 2.0, rtol=0.1)
    # Four halvings extrapolated leave terms of rate^4 (measured: below 1e-5 of the largest difference).
    np.testing.assert_allclose(
        found.extrapolated[0] * found.rate**2, found.predicted[0], atol=1e-4 * scale * found.rate**2
    )


def test_the_head_of_a_task_that_comes_later_adds_a_term_of_second_order():
    problem = cases.make("batch norm")
    found = found_at(problem, replace(ALONE, rungs=5))
    of_head = found.rate**2 * found.head_curvature[0, 0, 1]
    assert found.head_curvature[0, 0, 1] == pytest.approx(mixed_by_hand(problem), rel=1e-10)
    assert abs(of_head) > 0.5 * abs(found.predicted[0, 1]), "here it is most of the difference"
    shared_only = found.predicted[0, 1] - of_head
    assert abs(found.extrapolated[0, 1] * found.rate**2 - shared_only) > 0.5 * abs(found.predicted[0, 1])
    # Heads that do not move take the term away, from the prediction and from the steps.
    still = torch.zeros(problem.layout.size)
    still[problem.layout.index()] = 1.0
    frozen = found_at(problem, replace(ALONE, rungs=5, preconditioner=Given(still)))
    np.testing.assert_array_equal(frozen.head_curvature, 0)
    np.testing.assert_allclose(frozen.predicted[0, 1], shared_only, rtol=1e-10)
    np.testing.assert_allclose(frozen.extrapolated * frozen.rate**2, frozen.predicted, rtol=1e-4)


def mixed_by_hand(problem):
    """g_1' (d2 L_2 / d theta d phi_2) h_2 from a dense Hessian over all of theta."""
    theta, buffers = problem.initial(0)
    shared, head = problem.layout.index(), problem.layout.index("two")
    batch = problem.evaluation

    def loss(t):
        return lambda x: problem.task_losses(x, batch, buffers)[t].mean()

    g = [torch.autograd.functional.jacobian(loss(t), theta).numpy() for t in (0, 1)]
    whole = torch.autograd.functional.hessian(loss(1), theta).numpy()
    return g[0][shared] @ whole[np.ix_(shared, head)] @ g[1][head]


def test_the_tensor_is_that_of_dense_hessians_and_of_hessian_products():
    problem = cases.make("shallow task")
    theta, buffers = problem.initial(0)
    generator = torch.Generator().manual_seed(2)
    p = torch.rand(3, problem.layout.size, generator=generator, dtype=torch.float64) + 0.5
    losses = TaskLosses(problem, buffers.numpy(), whole(problem), 0, lambda amount: None)
    index = problem.layout.index()
    for diagonals, trial in ((torch.ones_like(p), ALONE), (p, replace(ALONE, preconditioner=Given(p)))):
        found = found_at(problem, trial)
        g, d = losses.gradients(theta)[:, index].numpy(), diagonals[:, index].numpy()
        ops = hessians(problem, theta.numpy(), buffers.numpy())
        for j, name in enumerate(problem.names):
            dense = dense_hessian(problem, theta, buffers, [float(t == j) for t in range(3)]).numpy()
            expected = (d * g) @ dense @ (d[j] * g).T
            np.testing.assert_allclose(found.curvature[0, :, j], expected, rtol=1e-9, atol=1e-13)
            for i in range(3):
                product = ops[name] @ torch.from_numpy(d[i] * g[i])
                mine = np.array([product.numpy() @ (d[j] * g[k]) for k in range(3)])
                np.testing.assert_allclose(found.curvature[0, i, j], mine, rtol=1e-9, atol=1e-13)


def whole(problem):
    return Examples(problem.evaluation, problem.data_hash, "evaluation")


def test_one_task_has_no_difference():
    problem = of_functions([0.3, -0.2], lambda p: p[0] ** 3 + p[0] * p[1])
    found = found_at(problem, Trial(0.1))
    for name in ("predicted", "predicted_mean", "measured", "measured_mean", "predicted_stderr", "measured_stderr"):
        np.testing.assert_array_equal(getattr(found, name), 0)
    assert set(found.verdicts.ravel()) == {"undecided"}


def test_two_tasks_in_the_other_order():
    problem = cases.make()
    one, other = (found_at(problem, replace(ALONE, order=order)) for order in ((0, 1), (1, 0)))
    np.testing.assert_array_equal(one.curvature, other.curvature)
    np.testing.assert_allclose(one.predicted + other.predicted, 2 * one.predicted_mean, rtol=1e-12)
    assert not np.allclose(one.predicted, other.predicted)
    np.testing.assert_allclose(other.extrapolated * other.rate**2, other.predicted, rtol=1e-3)


def test_tasks_on_disjoint_parameters_do_not_feel_each_other():
    problem = of_functions([0.5, -0.3], lambda p: p[0] ** 4 + 0 * p[1], lambda p: (p[1] - 1) ** 4 + 0 * p[0])
    found = found_at(problem, Trial(0.05))
    np.testing.assert_array_equal(found.predicted, 0)
    np.testing.assert_allclose(found.measured, 0, atol=1e-15)
    np.testing.assert_array_equal(found.agreement, 0)


def test_the_random_order_mean_is_the_mean_over_all_orders():
    problem = cases.make("shallow task")
    trial = Trial(0.003, rungs=1, orders=EveryOrder())
    found = found_at(problem, trial)
    each = [found_at(problem, replace(trial, order=o, orders=NoOrders())) for o in permutations(range(3))]
    np.testing.assert_allclose(np.mean([f.predicted for f in each], 0), found.predicted_mean, rtol=1e-10)
    np.testing.assert_allclose(np.mean([f.measured[:, 0] for f in each], 0), found.measured_mean, rtol=1e-9)
    half = found_at(problem, replace(trial, rate=trial.rate / 2))
    gap = [np.abs(f.measured_mean - f.predicted_mean) for f in (found, half)]
    np.testing.assert_allclose(gap[0] / gap[1], 8.0, rtol=0.1)  # of third order
    assert found.every_order
    assert found.orders == 6
    np.testing.assert_array_equal(found.measured_mean_stderr, 0)


def test_drawn_orders_come_with_their_reverse_and_an_error():
    problem, *_ = quadratic()
    seed = next(s for s in range(9) if len(set(DrawnOrders(4).drawn(3, s))) == 4)
    trials = [replace(ALONE, orders=orders) for orders in (EveryOrder(), DrawnOrders(4))]
    every, drawn = (found_at(problem, trial, seed=seed) for trial in trials)
    pairs = DrawnOrders(4).drawn(3, seed)
    assert pairs[1] == pairs[0][::-1]
    assert not drawn.every_order
    difference = np.abs(drawn.measured_mean - every.measured_mean)
    single = np.abs(drawn.measured[:, 0] - every.measured_mean)
    assert difference.max() < 0.1 * single.max(), "what is left of chance in a pair is of third order"
    assert (drawn.measured_mean_stderr > 0).all()


def test_gradient_agreement_grows_as_predicted():
    problem = cases.make("shallow task")
    found, half = (found_at(problem, Trial(rate, rungs=1)) for rate in (0.001, 0.0005))
    for name, slope in (("agreement_averaged", 2), ("agreement_sequential", 2), ("agreement_shuffled", 2)):
        gaps = [abs(getattr(f, name) - f.agreement_slope) for f in (found, half)]
        np.testing.assert_allclose(gaps[0] / gaps[1], 2.0**slope, rtol=0.1)  # first order is right
    for name, gain in (("agreement_sequential", "agreement_gain"), ("agreement_shuffled", "agreement_gain_mean")):
        gaps = [abs(getattr(f, name) - f.agreement_averaged - getattr(f, gain)) for f in (found, half)]
        np.testing.assert_allclose(gaps[0] / gaps[1], 8.0, rtol=0.1)  # and so is second order
    assert found.agreement_gain_mean > 0, "half the squared length of a gradient"
    assert found.agreement_stderr > 0


def test_the_measured_error_is_a_jackknife_of_whole_passes(monkeypatch):
    problem = cases.make(examples=13, micro_batch=13)
    theta, buffers = problem.initial(0)
    trial = replace(ALONE, rungs=1)
    found = found_at(problem, trial, seed=4)
    losses = TaskLosses(problem, buffers.numpy(), whole(problem), 4, lambda amount: None)
    monkeypatch.setattr(task_losses, "BLOCKS", 1)
    left = []
    for block in range(found.blocks):
        rows = torch.cat([b for k, b in enumerate(losses._blocks) if k != block])
        batch = problem.evaluation[rows]
        without = alternation.at(
            problem, theta.numpy(), buffers.numpy(), trial, Examples(batch, batch.hash(), "evaluation")
        )
        left.append(without.measured[0, 0])
    count = len(left)
    expected = np.sqrt((count - 1) / count * ((left - np.mean(left, 0)) ** 2).sum(0))
    np.testing.assert_allclose(found.measured_stderr[0], expected, rtol=1e-7)


def test_the_predicted_error_is_that_of_drawing_the_examples_anew():
    problem, a, c, theta = quadratic(spread=0.2, examples=200)
    found = found_at(problem, replace(ALONE, rate=0.1))
    points = theta + problem.evaluation.inputs.numpy()
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(400):
        mean = points[rng.integers(0, len(points), len(points))].mean(0)
        g = np.einsum("tij,tj->ti", a, mean - c)
        draws.append(0.01 * sum(g[i] @ a[j] @ g.T for i, j in ((0, 1), (0, 2), (1, 2))))
    # Ten blocks know their spread to some 24 %; draws of the inputs' pairs e, -e in one block would bring it down.
    np.testing.assert_allclose(found.predicted_stderr[0, :3], np.std(draws, 0), rtol=0.6)


def test_single_precision_would_drown_the_difference_and_does_not():
    double, single = cases.make(), cases.make(dtype=torch.float32)
    theta, buffers = single.initial(0)
    trial = replace(ALONE, rate=1e-4, rungs=1)
    mine, exact = (alternation.at(p, theta.numpy(), buffers.numpy(), trial) for p in (single, double))
    np.testing.assert_allclose(mine.measured, exact.measured, rtol=1e-3)  # data of the single problem are rounded
    assert (np.abs(mine.measured[:, 0]) > 1e3 * mine.rounding).all()
    unit = np.finfo(np.float32).eps * mine.loss
    assert (np.abs(mine.measured[:, 0]) < unit).all(), "one rounding of the loss in single precision is more"


@pytest.mark.parametrize(
    ("trial", "match"),
    [
        (lambda: Trial(0.0), "expected a rate above 0"),
        (lambda: Trial(float("nan")), "expected a rate above 0"),
        (lambda: Trial(0.1, rungs=0), "ladder of 1 or more rates"),
        (lambda: Trial(0.1, order=(0, 0)), r"expected an order of the task numbers 0 to 1, got \[0, 0\]"),
        (lambda: Trial(0.1, orders=DrawnOrders(3)), "expected an even number of orders, 2 or more"),
        (lambda: Trial(0.1, preconditioner=Given(torch.ones(3))), r"expected finite diagonals \[2, 79\] or \[79\]"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(trial, match):
    with pytest.raises(LandscapeError, match=match):
        found_at(cases.make(), trial())
