"""Hessians, Gauss-Newton and Fisher matrices of tasks, averages and weighted sums on any subset, against matrices made
by definition and against closed forms; and what is said when they cannot be had.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from analysis import curvature, subsets
from analysis.blame import NonFiniteProduct
from analysis.curvature import Fisher, GaussNewton, Hessian, Location
from analysis.products import ReverseOverReverse
from analysis.results import AVERAGE
from analysis.subsets import Everything, Head, Named, Shared
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases, dense
from tests.analysis.by_hand import by_hand

KINDS = {Hessian(): dense.hessian, GaussNewton(): dense.gauss_newton, Fisher(): dense.fisher}
ROUNDING = 1e-12
"""Both sides are float64 and differ in the order of sums of some dozens of terms."""


def at(problem):
    theta, buffers = problem.initial(0)
    return Location(problem, theta, buffers), theta, buffers


def eye(size):
    return torch.eye(size, dtype=torch.float64)


def assert_close(found, expected):
    assert (found - expected).norm() <= ROUNDING * max(float(expected.norm()), 1e-3)


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        # The Hessian of every case and every kind of matrix of one; all of them together are among the slow tests.
        pytest.param(
            kind,
            case,
            id=f"{type(kind).__name__}-{case}",
            marks=[pytest.mark.slow] * (kind != Hessian() and case != "batch norm"),
        )
        for kind in KINDS
        for case in cases.KINDS
    ],
)
def test_products_with_a_block_are_those_of_the_matrix_made_by_definition(case, kind):
    problem = cases.make(case)  # micro-batches of 5, 5 and 3 examples
    here, theta, buffers = at(problem)
    count = len(problem.tasks)
    weights = {AVERAGE: [1 / count] * count, "one": [1.0, *[0.0] * (count - 1)]}
    uneven = tuple(0.5 + t for t in range(count))
    weights[uneven] = list(uneven)
    for of, numbers in weights.items():
        matrix = KINDS[kind](problem, theta, buffers, numbers)
        for on in (Shared(), Everything(), Head("two"), Named("second.*", "one.bias")):
            index = dense.positions(problem, on)
            operator = here.operator(of, on, kind)
            assert operator.size == len(index)
            assert_close(operator @ eye(len(index)), matrix[index][:, index])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_cross_blocks_are_those_of_the_whole_matrix_and_transpose(kind):
    problem = cases.make("batch norm")
    here, theta, buffers = at(problem)
    matrix = KINDS[kind](problem, theta, buffers, [0.5, 0.5])
    for rows, columns in ((Shared(), Head("one")), (Head("one"), Head("two")), (Named("first.*"), Everything())):
        i, j = dense.positions(problem, rows), dense.positions(problem, columns)
        block = here.cross(rows, columns, kind=kind)
        assert block.shape == (len(i), len(j))
        assert_close(block @ eye(len(j)), matrix[i][:, j])
        assert_close(block.T @ eye(len(i)), matrix[j][:, i])
        assert_close(block @ eye(len(j))[0], matrix[i][:, j[0]])
        linear = block.to_scipy()
        assert linear.shape == block.shape
        np.testing.assert_allclose(linear.T @ np.ones(len(i)), matrix[i][:, j].numpy().sum(0), atol=1e-12)


def test_the_gradient_is_that_of_the_same_loss_on_the_same_parameters():
    problem = cases.make("tied weights")
    here, theta, buffers = at(problem)
    whole = dense.gradient(problem, theta, buffers, [2.0, -1.0])
    for on in (Shared(), Head("one"), Everything()):
        found = here.operator({"one": 2.0, "two": -1.0}, on).gradient()
        assert found.dtype == torch.float64
        assert_close(found, whole[dense.positions(problem, on)])


def test_other_examples_can_be_given():
    problem = cases.make("plain")
    theta, buffers = problem.initial(0)
    few = problem.evaluation[:4]
    found = Location(problem, theta, buffers, few).operator("one")
    small = cases.make("plain", examples=13)
    small.evaluation = few
    index = dense.positions(problem, Shared())
    assert_close(found @ eye(found.size), dense.hessian(small, theta, buffers, [1.0, 0.0])[index][:, index])


def test_layers_are_the_diagonal_blocks():
    problem = cases.make("plain")
    here, theta, buffers = at(problem)
    matrix = dense.hessian(problem, theta, buffers, [0.5, 0.5])
    found = curvature.layers(here)
    assert list(found) == ["first", "second"]
    for name, operator in found.items():
        index = dense.positions(problem, Named(f"{name}.*"))
        assert_close(operator @ eye(len(index)), matrix[index][:, index])
    assert list(subsets.tensors(problem.layout, Head("one"))) == ["one.weight", "one.bias"]


class Nested(nn.Module):
    """Predictions that are a dict of a tuple of tensors of different shapes, and an integer among them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.scale, self.shift = nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, inputs):
        h = torch.tanh(self.body(inputs))
        pair = (self.scale(h), self.shift(h))
        return {"one": {"pair": pair, "count": 2}, "two": [pair[0]]}


def test_predictions_may_be_nested():
    def loss(prediction, target):
        mean, spread = prediction["pair"][0].sum(1), prediction["pair"][1].square().sum(1)
        return (mean - target) ** 2 * torch.exp(-spread) + spread * prediction["count"]

    def other(prediction, target):
        return torch.cosh(prediction[0]).sum(1) - target

    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(*(torch.randn(7, *s, generator=rng) for s in ((4,), (), ())))
    torch.manual_seed(0)
    problem = Problem(Nested(), [Task("one", loss), Task("two", other)], data, data, micro_batch=3)
    problem = problem.to(dtype=torch.float64)
    here, theta, buffers = at(problem)

    plain = problem.model
    assert isinstance(plain(data.tensors[0].double())["one"]["count"], int)
    operator = here.operator("one", Everything(), GaussNewton(), ReverseOverReverse())
    by_forward = here.operator("one", Everything(), GaussNewton(), curvature_forward())

    class Flat(Nested):
        def forward(self, inputs):
            output = super().forward(inputs)
            return {"one": output["one"]["pair"], "two": output["two"]}

    flat = Problem(Flat(), [Task("one", lambda p, y: loss({"pair": p, "count": 2}, y)), Task("two", other)], data, data)
    matrix = dense.gauss_newton(flat.to(dtype=torch.float64), theta, buffers, [1.0, 0.0])
    assert_close(operator @ eye(len(theta)), matrix)
    assert_close(by_forward @ eye(len(theta)), matrix)
    assert not by_forward.notes


def curvature_forward():
    from analysis.products import ForwardOverReverse

    return ForwardOverReverse()


class Linear(nn.Module):
    """x' theta."""

    def __init__(self, size):
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(-0.5, 0.7, size, dtype=torch.float64))

    def forward(self, inputs):
        return inputs @ self.theta


def regression(loss, targets, inputs):
    data = TensorDataset(inputs, targets)
    return Problem(Linear(inputs.shape[1]), [Task("y", loss)], data, data, micro_batch=4)


def test_linear_regression_has_x_x_over_n():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((11, 5)))
    y = torch.from_numpy(np.random.default_rng(1).standard_normal(11))
    here, theta, _ = at(regression(lambda p, t: 0.5 * (p - t) ** 2, y, x))
    r = x @ theta - y
    assert_close(here.operator("y") @ eye(5), x.T @ x / 11)
    assert_close(here.operator("y", kind=GaussNewton()) @ eye(5), x.T @ x / 11)
    assert_close(here.operator("y", kind=Fisher()) @ eye(5), x.T @ torch.diag(r**2) @ x / 11)
    assert_close(here.gradient("y"), x.T @ r / 11)


def test_logistic_regression_has_x_s_x_over_n():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((11, 5)))
    y = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 11).astype(float))
    loss = F.binary_cross_entropy_with_logits
    here, theta, _ = at(regression(lambda p, t: loss(p, t, reduction="none"), y, x))
    p = torch.sigmoid(x @ theta)
    for kind in (Hessian(), GaussNewton()):
        assert_close(here.operator("y", kind=kind) @ eye(5), x.T @ torch.diag(p * (1 - p)) @ x / 11)
    assert_close(here.operator("y", kind=Fisher()) @ eye(5), x.T @ torch.diag((p - y) ** 2) @ x / 11)


def test_a_linear_layer_with_one_input_has_a_kronecker_product():
    """Squared error of W x with the same x for all examples: H = I (x) x x'."""
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    data = TensorDataset(x.repeat(6, 1), torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double())
    model = nn.Linear(3, 2, bias=False).double()
    problem = Problem(model, [Task("y", lambda p, t: 0.5 * ((p - t) ** 2).sum(1))], data, data, micro_batch=4)
    here, *_ = at(problem)
    assert_close(here.operator("y") @ eye(6), torch.kron(eye(2), torch.outer(x, x)))


@pytest.mark.parametrize(
    ("layer", "notes"), [("attention", 1), ("transformer", 1), ("none", 0)], ids=["attention", "transformer", "none"]
)
def test_attention_uses_the_mathematical_kernel_and_says_so(layer, notes):
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = {
                "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
                "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
                "none": lambda: nn.Linear(4, 4),
            }[layer]()
            self.head = nn.Linear(4, 1)

        def forward(self, inputs):
            h = self.body(inputs, inputs, inputs, need_weights=False)[0] if layer == "attention" else self.body(inputs)
            return self.head(h.mean(1))

    rng = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(5, 3, 4, generator=rng), torch.randn(5, 1, generator=rng))
    model = Model()
    problem = Problem(model, [Task("y", lambda p, t: ((p - t) ** 2).sum(1))], data, data, micro_batch=2)
    problem = problem.to(dtype=torch.float64)
    fast = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    theta, buffers = problem.initial(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            matrix = dense.hessian(problem, theta, buffers, [1.0])
        torch.backends.mha.set_fastpath_enabled(fast[0])
    operator = Location(problem, theta, buffers).operator("y")
    assert_close(operator @ eye(len(theta)), matrix)
    assert len(operator.notes) == notes
    assert all("mathematical kernel" in note for note in operator.notes)
    assert fast == (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled())


def test_a_task_that_does_not_reach_the_parameters_has_zeros():
    here, *_ = at(cases.make("plain"))
    for kind in KINDS:
        operator = here.operator("two", Head("one"), kind)
        assert not (operator @ eye(operator.size)).any()
        assert not operator.gradient().any()


def test_what_does_not_fit_is_refused_in_one_sentence():
    problem = cases.make("plain")
    here, _, buffers = at(problem)
    with pytest.raises(
        LandscapeError, match=r"unknown task 'ones': expected one of average, one, two; did you mean 'one'"
    ):
        here.operator("ones")
    with pytest.raises(LandscapeError, match=r"unknown task 'three'"):
        here.operator({"three": 1.0})
    with pytest.raises(LandscapeError, match=r"one weight for each of the 2 tasks, not all zero, got \[1.0\]"):
        here.operator([1.0])
    with pytest.raises(LandscapeError, match=r"no parameter matches 'secnd.*'.*the nearest is 'second"):
        here.operator("one", Named("secnd.*"))
    with pytest.raises(LandscapeError, match=r"theta has shape \[3\], the problem's layout expects"):
        Location(problem, torch.zeros(3), buffers)
    with pytest.raises(LandscapeError, match=r"expected a vector \[55\] or a block \[55, k\].*got \[3\]"):
        here.operator("one") @ torch.zeros(3)


def _problem_of(model, loss=lambda p, t: ((p - t) ** 2).sum(1), rows=6):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(*(torch.rand(rows, n, generator=rng) for n in (3, 1, 1)))
    return Problem(model, [Task("a", loss), Task("b", lambda p, t: p.sum(1))], data, data, micro_batch=2)


square_once = by_hand("Once", torch.square, lambda slope, x: 2 * slope * x, once=True).apply
"""A square that can be differentiated once."""


class Two(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.body, self.function = nn.Linear(3, 3), function

    def forward(self, inputs):
        h = self.body(inputs)
        return {"a": self.function(h), "b": h}


def test_a_loss_without_second_derivative_is_refused_with_the_operation_and_the_task():
    here, *_ = at(_problem_of(Two(square_once)))
    with pytest.raises(LandscapeError, match=r"loss of task 'a' has no second derivative: the operation Once"):
        here.operator() @ torch.ones(12)
    here, *_ = at(_problem_of(Two(lambda h: torch.cdist(h[:, None], torch.ones(1, 2, 3), p=3)[:, 0])))
    with pytest.raises(LandscapeError, match=r"'a' has no second derivative: the operation _cdist_backward is not"):
        here.operator() @ torch.ones(12)


def test_a_product_that_is_not_finite_names_task_and_examples():
    problem = _problem_of(Two(lambda h: torch.sqrt(torch.relu(h) * 0)))  # the slope of a root at zero
    here, *_ = at(problem)
    with pytest.raises(
        NonFiniteProduct, match=r"Hessian is not finite of task 'a' in examples 0 to 1, and so is its grad"
    ):
        here.operator() @ torch.ones(12)
    assert torch.isfinite(here.operator("b") @ torch.ones(12)).all()
