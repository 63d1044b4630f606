"""Hessian products against dense Hessians of the plain mean loss, and the probes against operators that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch.func import functional_call
from torch.utils.data import TensorDataset

from analysis.operators import Location, MatrixOperator, hessians, linearity, probe, to_scipy
from analysis.products import ReverseOverReverse
from analysis.results import AVERAGE
from analysis.subsets import Everything
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.by_hand import by_hand


def dense_hessian(problem, theta, buffers, weights):
    """Second derivatives of sum_t w_t mean_n loss, by autograd's own `hessian` of a module in one pass."""
    index = torch.from_numpy(problem.layout.index())
    module = problem.module(theta, buffers).eval()
    constants = dict(module.named_buffers())

    def loss(shared):
        whole = theta.index_copy(0, index, shared)
        parameters = {s.name: whole[s.span].reshape(s.shape) for s in problem.layout.slots}
        output = functional_call(module, {**parameters, **constants}, (problem.evaluation.inputs,))
        parts = [output[name] for name in problem.names] if isinstance(output, dict) else output
        rows = zip(weights, problem.tasks, parts, problem.evaluation.targets, strict=True)
        return sum(w * task.loss(part, target).mean() for w, task, part, target in rows)

    return torch.autograd.functional.hessian(loss, theta[index]).detach()


def weights_by_name(problem):
    count = len(problem.tasks)
    each = {name: [float(i == t) for i in range(count)] for t, name in enumerate(problem.names)}
    return {**each, AVERAGE: [1 / count] * count}


def assert_equals_dense(problem, theta, buffers, names=None, vectors=None):
    ops = hessians(problem, theta.numpy(), buffers.numpy())
    rng = torch.Generator().manual_seed(0)
    known = {}
    for name in names or ops:
        if name == AVERAGE and len(known) == len(problem.tasks):
            dense = sum(known.values()) / len(known)
        else:
            dense = known[name] = dense_hessian(problem, theta, buffers, weights_by_name(problem)[name])
        operator = ops[name]
        assert operator.size == len(dense)
        given = torch.eye(len(dense), dtype=theta.dtype) if vectors is None else None
        rows = given if given is not None else torch.randn(vectors, len(dense), generator=rng, dtype=theta.dtype)
        found = torch.stack([operator @ v for v in rows])
        expected = rows @ dense
        # Both are float64 and differ in the order of their sums alone.
        assert (found - expected).norm() <= 1e-12 * max(float(expected.norm()), 1e-3)


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("micro_batch", [5, 13, 100])
def test_products_are_those_of_the_dense_hessian(kind, micro_batch):
    problem = cases.make(kind, micro_batch=micro_batch)
    theta, buffers = problem.initial(0)
    assert_equals_dense(problem, theta, buffers)


def test_only_parameters_that_train_and_are_shared_have_second_derivatives():
    assert hessians_size("plain") == 5 * 4 + 5 + 5 * 5 + 5
    assert hessians_size("frozen layer") == 5 * 5 + 5
    assert hessians_size("tied weights") == 5 * 4 + 5 + 5 * 5 + 5 + 5  # the tied matrix counts once


def hessians_size(kind):
    problem = cases.make(kind)
    theta, buffers = problem.initial(0)
    return hessians(problem, theta.numpy(), buffers.numpy())[AVERAGE].size


def test_a_task_that_does_not_reach_some_shared_parameters_has_zeros_there():
    problem = cases.make("shallow task")
    theta, buffers = problem.initial(0)
    operator = hessians(problem, theta.numpy(), buffers.numpy())["two"]
    product = operator @ torch.ones(operator.size, dtype=torch.float64)
    assert not product[5 * 4 + 5 :].any(), "`second` lies behind the second task's head"
    assert product[: 5 * 4].any()


def test_the_statistics_of_batch_norm_are_constants_of_the_operator():
    problem = cases.make("batch norm")
    theta, buffers = problem.initial(0)
    other = buffers.clone()
    other[:5] += 1.0
    v = torch.ones(hessians_size("batch norm"), dtype=torch.float64)
    mine, its = (hessians(problem, theta.numpy(), b.numpy())[AVERAGE] @ v for b in (buffers, other))
    assert (mine - its).norm() > 1e-3 * mine.norm(), "statistics matter"
    assert_equals_dense(problem, theta, other)


def test_a_product_leaves_the_module_and_its_statistics_alone():
    problem = cases.make("batch norm")
    problem.model.train()
    problem.model.norm.eval()
    before = {name: t.clone() for name, t in problem.model.state_dict().items()}
    flags = [(p.requires_grad, p.grad is None) for p in problem.model.parameters()]
    modes = [part.training for part in problem.model.modules()]
    drawn = torch.get_rng_state()
    theta, buffers = problem.initial(0)
    with torch.no_grad():
        operator = hessians(problem, theta.numpy(), buffers.numpy())[AVERAGE]
        first = operator @ torch.ones(operator.size, dtype=torch.float64)
    assert torch.equal(first, operator @ torch.ones(operator.size, dtype=torch.float64))
    assert all(torch.equal(t, before[name]) for name, t in problem.model.state_dict().items())
    assert flags == [(p.requires_grad, p.grad is None) for p in problem.model.parameters()]
    assert modes == [part.training for part in problem.model.modules()]
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_products_of_a_convolutional_network_are_those_of_its_dense_hessian(norm):
    settings = {"norm": norm, "width": 2, "features": 4, "train": 32, "evaluation": 30}
    problem = problems.load("digits", settings).to(dtype=torch.float64)
    problem.micro_batch = 16
    theta, buffers = problem.initial(0)
    assert_equals_dense(problem, theta, buffers, ["second", AVERAGE], vectors=5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_products_of_a_network_of_two_thousand_parameters_are_those_of_its_dense_hessian(norm):
    settings = {"norm": norm, "width": 4, "features": 16, "train": 32, "evaluation": 64}
    problem = problems.load("digits", settings).to(dtype=torch.float64)
    problem.micro_batch = 48
    theta, buffers = problem.initial(0)
    assert problem.layout.count() > 1500
    assert_equals_dense(problem, theta, buffers, vectors=10)


def test_single_precision_agrees_with_double_to_its_rounding():
    problem = cases.make("plain")
    theta, buffers = problem.initial(0)
    single = cases.make("plain", dtype=torch.float32)
    v = torch.randn(hessians_size("plain"), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact = hessians(problem, theta.numpy(), buffers.numpy())[AVERAGE] @ v
    found = hessians(single, theta.numpy(), buffers.numpy())[AVERAGE] @ v.float()
    assert found.dtype == torch.float32
    assert (found.double() - exact).norm() < 1e-5 * exact.norm()  # some dozens of roundings of 6e-8


def test_on_quadratics_the_product_is_the_matrix_times_the_vector_at_every_theta():
    problem = problems.load("quadratic", {"tasks": 3, "size": 12, "spread": 0.7, "examples": 14})
    problem.micro_batch = 4
    a = problem.model.hessians.numpy()
    rng = np.random.default_rng(0)
    for scale in (0.0, 1.0, 100.0):
        theta = scale * rng.standard_normal(problem.layout.size)
        ops = hessians(problem, theta, np.zeros(0))
        v = rng.standard_normal(12)
        for t, name in enumerate((*problem.names, AVERAGE)):
            exact = (a[t] if t < 3 else a.mean(0)) @ v
            found = (ops[name] @ torch.from_numpy(v)).numpy()
            assert np.linalg.norm(found - exact) <= 1e-10 * np.linalg.norm(exact)


def test_a_task_linear_in_theta_has_a_hessian_of_zeros():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(torch.arange(3.0, dtype=torch.float64))

        def forward(self, inputs):
            return inputs * self.theta, (inputs * self.theta**2)

    data = torch.utils.data.TensorDataset(torch.ones(4, 3, dtype=torch.float64), torch.zeros(4, 1), torch.zeros(4, 1))
    tasks = [problems.quadratic.Task(name, lambda prediction, _: prediction.sum(1)) for name in ("linear", "square")]
    problem = problems.quadratic.Problem(Linear(), tasks, data, data)
    ops = hessians(problem, np.arange(3.0), np.zeros(0))
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert (ops["linear"] @ v).tolist() == [0, 0, 0]
    assert (ops["square"] @ v).tolist() == [2, 4, 6]
    assert (ops[AVERAGE] @ v).tolist() == [1, 2, 3]


def test_probe_and_linearity_pass_on_a_network_and_on_zeros():
    problem = cases.make("batch norm", dtype=torch.float32)
    theta, buffers = problem.initial(0)
    ops = hessians(problem, theta.numpy(), buffers.numpy())
    assert all(probe(op, name).passed for name, op in ops.items())
    assert linearity(ops).passed
    assert probe(MatrixOperator(torch.zeros(4, 4)), "nothing").value == 0.0


def test_probe_measures_the_antisymmetric_part():
    rng = np.random.default_rng(1)
    half = rng.standard_normal((6, 6))
    symmetric, skew = half + half.T, half - half.T
    for size in (1e-13, 1e-4):
        operator = MatrixOperator(torch.from_numpy(symmetric + size * skew))
        if size < 1e-12:
            value = probe(operator, "nearly").value
            assert 1e-14 < value < 1e-12
        else:
            with pytest.raises(
                LandscapeError, match=r"operator of bent is not symmetric and deterministic.*got \d.*e-05"
            ):
                probe(operator, "bent")


class Restless:
    """A symmetric operator whose every product is off by a little."""

    size, dtype, device = 4, torch.float64, torch.device("cpu")

    def __init__(self):
        self._rng = torch.Generator().manual_seed(0)

    def __matmul__(self, vector):
        return 2 * vector + 1e-6 * torch.randn(4, generator=self._rng, dtype=torch.float64)


@pytest.mark.parametrize("bad", [Restless(), MatrixOperator(torch.full((4, 4), torch.nan))], ids=["random", "NaN"])
def test_probe_refuses_an_operator_that_draws_or_is_not_a_number(bad):
    with pytest.raises(LandscapeError, match=r"not symmetric and deterministic.*look for randomness"):
        probe(bad, "odd")


def test_linearity_fails_where_the_average_is_not_the_mean():
    problem = problems.load("quadratic", {"tasks": 2, "size": 5})
    theta, buffers = problem.initial(0)
    ops = hessians(problem, theta.numpy(), buffers.numpy())
    wrong = {**ops, AVERAGE: Location(problem, theta, buffers).operator([0.5, 0.5 + 1e-6])}
    assert linearity(ops).passed
    assert not linearity(wrong).passed


def test_scipy_finds_the_same_eigenvalues_through_the_operator():
    problem = cases.make("plain")
    theta, buffers = problem.initial(0)
    operator = hessians(problem, theta.numpy(), buffers.numpy())[AVERAGE]
    exact = np.linalg.eigvalsh(dense_hessian(problem, theta, buffers, [0.5, 0.5]).numpy())
    linear = to_scipy(operator)
    assert linear.dtype == np.float64
    np.testing.assert_allclose(np.sort(eigsh(linear, 4, which="LA", return_eigenvectors=False)), exact[-4:], rtol=1e-9)
    single = to_scipy(MatrixOperator(torch.eye(3)))
    assert single.dtype == np.float32, "the operator's own precision, not one that it does not have"
    np.testing.assert_array_equal(single @ np.array([1.0, 2.0, 3.0]), [1, 2, 3])


def test_theta_of_another_length_is_refused():
    problem = cases.make("plain")
    with pytest.raises(LandscapeError, match=r"theta has shape \[3\], the problem's layout expects"):
        Location(problem, torch.zeros(3), torch.zeros(0))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 1.0], [0.0, 0.0]])
def test_weights_that_do_not_fit_the_tasks_are_refused(weights):
    problem = cases.make("plain")
    theta, buffers = problem.initial(0)
    with pytest.raises(LandscapeError, match=r"one weight for each of the 2 tasks, not all zero, got"):
        Location(problem, theta, buffers).operator(weights)


def test_a_model_without_shared_parameters_has_no_operator():
    class Apart(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))

        def forward(self, inputs):
            return inputs * self.a, inputs * self.b

    data = torch.utils.data.TensorDataset(torch.ones(4, 2), torch.zeros(4, 1), torch.zeros(4, 1))
    tasks = [problems.quadratic.Task(name, lambda prediction, _: prediction.sum(1)) for name in ("a", "b")]
    problem = problems.quadratic.Problem(Apart(), tasks, data, data)
    with pytest.raises(LandscapeError, match=r"no shared parameters: expected some that several tasks reach"):
        hessians(problem, np.ones(4), np.zeros(0))


bent = by_hand("Bent", torch.square, lambda slope, x: slope * x.roll(1, 1)).apply
"""x^2 with a backward pass, differentiable as often as one likes, that is of no function: slope_i x_(i - 1)."""


class Chain(torch.nn.Module):
    """Three linear layers with something between the second and the third."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(3, 3) for _ in range(3))
        self.between = between

    def forward(self, inputs):
        return [self.third(self.between(self.second(torch.tanh(self.first(inputs)))))]


class Wrong(torch.nn.Module):
    def forward(self, inputs):
        return bent(inputs)


class Drawing(torch.nn.Module):
    def forward(self, inputs):
        return inputs + 1e-3 * torch.randn_like(inputs)


def chain(between):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(*(torch.randn(9, 3, generator=rng, dtype=torch.float64) for _ in range(2)))
    torch.manual_seed(0)
    model = Chain(torch.nn.Tanh()).double()
    problem = Problem(model, [Task("one", cases.squared_error)], data, data)
    problem.model.between = between
    return Location(problem, *problem.initial(0)).operator(on=Everything(), product=ReverseOverReverse())


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (Wrong(), r"by backward passes.*the fault lies in module 'between' \(Wrong\)"),
        (Drawing(), r"not symmetric and deterministic.*between"),
    ],
    ids=["not symmetric", "random"],
)
def test_the_module_that_makes_an_operator_not_symmetric_or_random_is_named(between, said):
    with pytest.raises(LandscapeError, match=said):
        probe(chain(between), "one")
    probe(chain(torch.nn.Tanh()), "one")
