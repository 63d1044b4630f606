"""Intervals of eigenvalues over examples: against closed forms, and how often they hold the population's value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

from analysis import operators
from analysis.eigenpairs import top_eigenpairs
from analysis.eigensearch import Accuracy
from analysis.example_forms import ForwardTwice, ReverseThrice, Weighted, per_example_forms
from analysis.resampling import Basic, Percentile, intervals, resampled_values
from analysis.results import Eigenpairs
from analysis.subsets import Everything, Head, Named, Shared
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis.by_hand import by_hand
from tests.analysis.cases import KINDS, make

TIGHT = Accuracy(1e-10, 300)


class Linear(nn.Module):
    """One weight vector for every task, no bias."""

    def __init__(self, size, tasks):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.tasks = tasks

    def forward(self, inputs):
        return {f"task{t}": inputs[:, t] @ self.weight for t in range(self.tasks)}


def half_square(prediction, target):
    return 0.5 * (prediction - target) ** 2


def logistic(prediction, target):
    return F.softplus(prediction) - target * prediction


def regression(x, loss=half_square, micro_batch=64):
    """Tasks with one linear prediction each, x [N, T, d]: of half the squared error H_n = x_n x_n'."""
    count, tasks, size = x.shape
    data = TensorDataset(torch.from_numpy(x), *(torch.linspace(0, 1, count, dtype=torch.float64) for _ in range(tasks)))
    names = [f"task{t}" for t in range(tasks)]
    made = Problem(Linear(size, tasks), [Task(name, loss) for name in names], data, data, micro_batch=micro_batch)
    return made.to(dtype=torch.float64)


def pairs_of(matrix, count, end="largest"):
    """Exact eigenpairs, by numpy."""
    values, vectors = np.linalg.eigh(matrix)
    order = {"largest": np.argsort(-values), "smallest": np.argsort(values)}[end][:count]
    nothing = np.zeros(count)
    return Eigenpairs(
        values=values[order],
        vectors=vectors[:, order].T.copy(),
        residuals=nothing,
        converged=nothing == 0,
        end=end,
        products=0,
    )


def draw(seed, count, scales, tasks=1):
    return np.random.default_rng(seed).standard_normal((count, tasks, len(scales))) * np.sqrt(scales)


def test_forms_of_a_linear_regression_are_products_of_projections():
    x = draw(0, 50, [4.0, 2.0, 1.0, 0.5], tasks=2)
    problem = regression(x, micro_batch=16)
    vectors = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0][:3]
    weights = [0.3, -1.7]
    forms, method = per_example_forms(problem, np.ones(4), np.zeros(0), weights, vectors)
    projected = np.einsum("kd,ntd->ntk", vectors, x)
    expected = np.einsum("t,nti,ntj->nij", weights, projected, projected)
    np.testing.assert_allclose(forms, expected, atol=1e-12)
    assert method == "forward mode over forward mode"


def test_forms_of_a_logistic_regression_carry_the_variance_of_each_example():
    x = draw(2, 40, [4.0, 2.0, 1.0])
    theta = np.array([0.5, -1.0, 0.2])
    forms, _ = per_example_forms(regression(x, logistic), theta, np.zeros(0), [1.0], np.eye(3)[:2])
    p = 1 / (1 + np.exp(-x[:, 0] @ theta))
    expected = (p * (1 - p))[:, None, None] * np.einsum("ni,nj->nij", x[:, 0, :2], x[:, 0, :2])
    np.testing.assert_allclose(forms, expected, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on", [Shared(), Everything(), Head("one"), Named("second.*")])
def test_forward_and_reverse_mode_agree_and_their_mean_is_the_finite_difference_of_gradients(kind, on):
    problem = make(kind)
    theta, buffers = problem.initial(0)
    spans = on.spans(problem.layout)
    index = np.concatenate([np.arange(s.start, s.stop) for s in spans])
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((len(index), 2)))[0].T
    rows = torch.zeros(2, len(theta), dtype=torch.float64)
    rows[:, index] = torch.from_numpy(vectors)
    weights = np.linspace(0.5, -1.0, len(problem.tasks))
    weighted = Weighted(problem, buffers, weights)
    forward, reverse = (m.forms(weighted, theta, problem.evaluation, rows) for m in (ForwardTwice(), ReverseThrice()))
    # Both are exact: roundings of a few dozen operations on numbers of order one.
    torch.testing.assert_close(forward, reverse, atol=1e-12, rtol=1e-10)
    forms, _ = per_example_forms(problem, theta.numpy(), buffers.numpy(), weights, vectors, on)
    np.testing.assert_allclose(forms, forward.numpy(), atol=1e-12)
    h = 1e-4  # central differences of gradients in float64: error h^2, here 1e-8 and less

    def gradient(there):
        there = there.detach().requires_grad_()
        return torch.autograd.grad(weighted.losses(there, problem.evaluation).mean(), there)[0]

    for i in range(2):
        product = (gradient(theta + h * rows[i]) - gradient(theta - h * rows[i])) / (2 * h)
        np.testing.assert_allclose(forms.mean(0)[i], (rows @ product).numpy(), atol=1e-7)


cube = by_hand("Cube", lambda x: x**3, lambda slope, x: slope * 3 * x**2).apply
"""x^3, twice differentiable in reverse mode, without a forward derivative."""


def test_where_forward_mode_fails_reverse_mode_does_it():
    x = draw(3, 12, [1.0, 1.0])
    problem = regression(x, lambda p, y: cube(p))
    theta = np.array([0.3, -0.4])
    forms, method = per_example_forms(problem, theta, np.zeros(0), [2.0], np.eye(2))
    assert method == "reverse mode three times"
    expected = 2 * 6 * (x[:, 0] @ theta)[:, None, None] * np.einsum("ni,nj->nij", x[:, 0], x[:, 0])
    np.testing.assert_allclose(forms, expected, atol=1e-12)


def test_a_loss_without_curvature_has_forms_of_zero():
    x = draw(3, 12, [1.0, 1.0])
    problem = regression(x, lambda p, y: p + y)
    weighted = Weighted(problem, torch.zeros(0), [1.0])
    for method in (ForwardTwice(), ReverseThrice()):
        forms = method.forms(weighted, torch.ones(2, dtype=torch.float64), problem.evaluation, torch.eye(2).double())
        assert (forms == 0).all()


def test_one_value_is_resampled_as_a_mean_is():
    forms = np.random.default_rng(0).exponential(size=(200, 1, 1))
    values = resampled_values(forms, 4000, seed=0)
    # A bootstrap mean has the standard deviation s / sqrt(N); 4,000 resamples show it to 1 / sqrt(8000), 1.1 %.
    assert values.std() == pytest.approx(forms.std() / np.sqrt(200), rel=0.05)
    np.testing.assert_array_equal(values, resampled_values(forms, 4000, seed=0))
    assert (values != resampled_values(forms, 4000, seed=1)).any()


def test_resamples_in_pieces_are_those_at_once(monkeypatch):
    forms = np.random.default_rng(0).standard_normal((50, 2, 2))
    forms = forms + forms.transpose(0, 2, 1)
    whole = resampled_values(forms, 33, seed=5)
    monkeypatch.setattr("analysis.resampling.NUMBERS_AT_ONCE", 500)
    np.testing.assert_array_equal(resampled_values(forms, 33, seed=5), whole)


@pytest.mark.parametrize("end", ["largest", "smallest", "both"])
def test_values_of_a_task_that_every_example_shares_have_no_sampling_error(end):
    problem = problems.load("quadratic", {"tasks": 2, "size": 12, "heads": 0})
    theta, buffers = (part.double().numpy() for part in problem.initial(0))
    problem = problem.to(dtype=torch.float64)
    operator = operators.hessians(problem, theta, buffers)["average"]
    pairs = top_eigenpairs(operator, 4, end, TIGHT)
    found = intervals(problem, theta, buffers, [0.5, 0.5], pairs, resamples=20)
    np.testing.assert_allclose(found.low, pairs.values, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.high, pairs.values, rtol=1e-8, atol=1e-10)
    assert found.resampled.shape == (20, 4)


def test_a_network_has_the_intervals_of_its_dense_hessians_of_examples():
    problem = make("plain")
    theta, buffers = (part.numpy() for part in problem.initial(0))
    pairs = top_eigenpairs(operators.hessians(problem, theta, buffers)["average"], 3, accuracy=TIGHT)
    found = intervals(problem, theta, buffers, [0.5, 0.5], pairs, resamples=200, kind=Percentile())
    forms, _ = per_example_forms(problem, theta, buffers, [0.5, 0.5], pairs.vectors)
    np.testing.assert_allclose(forms.mean(0), np.diag(pairs.values), atol=1e-9)
    assert (found.low < found.high).all()
    assert found.error.max() < 1e-9
    assert found.computed.all()
    # Thirteen examples: what numbers of 13 examples say of neighbours is not enough.
    assert "not resolved by these examples" in " ".join(found.words)


def test_neighbours_whose_intervals_overlap_are_not_resolved():
    x = draw(5, 400, [9.0, 4.0, 4.0, 0.5])
    problem = regression(x)
    matrix = np.einsum("ni,nj->ij", x[:, 0], x[:, 0]) / 400
    found = intervals(problem, np.zeros(4), np.zeros(0), [1.0], pairs_of(matrix, 4))
    assert found.resolved.tolist() == [True, False, False, True]
    assert found.computed.all()
    assert found.words[1].endswith("not resolved by these examples")
    unsure = replace(found, error=np.full(4, 10.0))
    assert not unsure.resolved.any()
    assert not unsure.computed.any()
    assert unsure.words[0].endswith("not resolved")


def test_what_cannot_have_intervals_is_refused():
    x = draw(5, 30, [2.0, 1.0])
    problem = regression(x)
    pairs = pairs_of(np.einsum("ni,nj->ij", x[:, 0], x[:, 0]) / 30, 2)
    ask = (problem, np.zeros(2), np.zeros(0))
    with pytest.raises(
        LandscapeError, match=r"differs from the eigenvalues by 1 of the largest, expected 0.01 at most"
    ):
        intervals(*ask, [2.0], pairs)
    with pytest.raises(LandscapeError, match=r"2 or more resamples of 2 or more examples .* got 1 of 30 and 0.95"):
        intervals(*ask, [1.0], pairs, resamples=1)
    with pytest.raises(LandscapeError, match=r"level between 0 and 1, got 1000 of 30 and 1.0"):
        intervals(*ask, [1.0], pairs, level=1.0)
    with pytest.raises(LandscapeError, match=r"one weight for each of the 1 tasks, not all zero, got \[0.0\]"):
        intervals(*ask, [0.0], pairs)
    with pytest.raises(
        LandscapeError, match=r"expected vectors \[k, 2\] on the parameters 'shared', got shape \[1, 3\]"
    ):
        intervals(*ask, [1.0], pairs_of(np.eye(3), 1))
    with pytest.raises(LandscapeError, match=r"expected finite eigenpairs, got NaN"):
        intervals(*ask, [1.0], replace(pairs, values=np.full(2, np.nan)))


def simulated(kind, scales, count, examples, sets=400):
    """How often, over many data sets, the interval of each of the largest values holds the population's."""
    held = np.zeros(count)
    for seed in range(sets):
        x = draw(1000 + seed, examples, scales)[:, 0]
        pairs = pairs_of(x.T @ x / examples, count)
        projected = x @ pairs.vectors.T
        values = resampled_values(np.einsum("ni,nj->nij", projected, projected), 400, seed)[:, ::-1]
        low, high = kind.limits(pairs.values, values, 0.95)
        held += (low <= scales[:count]) & (scales[:count] <= high)
    return held / sets


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Basic(), Percentile()])
def test_intervals_hold_the_populations_value_as_often_as_they_say(kind):
    scales = np.array([8.0, 4.0, 2.0, 0.5, 0.3, 0.2])
    held = simulated(kind, scales, 3, 400)
    # Bootstrap intervals of means of x^2 are a little short at 400 examples: 0.94 or so. The limits leave the binomial
    # spread of 400 data sets, 0.011, room for one failure in 10,000.
    low = stats.binom.ppf(1e-4, 400, 0.92) / 400
    assert (held >= low).all()
    assert (held <= stats.binom.ppf(1 - 1e-4, 400, 0.95) / 400).all()
