"""Measures of sharpness against closed forms on quadratics, dense Hessians, scipy, and networks written in two ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.utils.data import TensorDataset

from analysis import archive, sharpness
from analysis.archive import Entry
from analysis.critical import LineSearch, critical_rates, line_curvature
from analysis.neighbourhood import Neighbourhood
from analysis.perturbations import Ascent, mean_rise, worst_case
from analysis.results import Estimate
from analysis.scaling import Elementwise, PerUnit, Plain, scale_on
from analysis.sharpness import Form, Measures
from analysis.spectra import Accuracy
from analysis.subsets import Everything, Head, Named, Shared
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.synthetic import write_run

SIZE = 6
SPECTRA = np.array([[8.0, 3.0, 1.0, 0.5, 0.2, 0.1], [5.0, 4.0, 0.0, -0.5, -1.0, -2.0]])
NONE = np.zeros(0)


def quadratic(minima=None, spread=0.0):
    """Two tasks, the second one indefinite, and their matrices."""
    rng = np.random.default_rng(4)
    turns = [np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in SPECTRA]
    matrices = np.stack([q @ np.diag(s) @ q.T for q, s in zip(turns, SPECTRA, strict=True)])
    matrices = (matrices + matrices.transpose(0, 2, 1)) / 2
    minima = np.zeros((2, SIZE)) if minima is None else minima
    settings = {"hessians": matrices.tolist(), "minima": minima.tolist(), "heads": 0, "spread": spread, "examples": 4}
    return problems.load("quadratic", settings), matrices


def trust_region(matrix, gradient, radius):
    """max of g'd + d'Hd / 2 over the ball, by its secular equation."""
    values, vectors = np.linalg.eigh(matrix)
    b = vectors.T @ gradient
    length = lambda mu: np.linalg.norm(b / (mu - values)) - radius  # noqa: E731
    mu = brentq(length, values[-1] + 1e-12 * abs(values[-1]), values[-1] + np.linalg.norm(b) / radius + 10, xtol=1e-14)
    d = vectors @ (b / (mu - values))
    return gradient @ d + d @ matrix @ d / 2


def starts_of(matrix):
    return [torch.from_numpy(np.linalg.eigh(matrix)[1][:, -1].copy())]


@pytest.mark.parametrize("task", [0, 1])
def test_the_worst_case_at_a_minimum_is_half_radius_squared_times_the_largest_eigenvalue(task):
    problem, matrices = quadratic()
    near = Neighbourhood(problem, np.zeros(SIZE), NONE)
    weights = np.eye(2)[task].tolist()
    rise = worst_case(near, weights, 0.3, torch.ones(SIZE), starts_of(matrices[task]))
    assert rise.value == pytest.approx(0.3**2 / 2 * SPECTRA[task].max(), rel=1e-12)
    assert rise.one_step == 0, "the gradient has no direction there"
    assert float(rise.move.norm()) == pytest.approx(0.3)
    # Without the eigenvector a random start gets there as power iteration does, to the tolerance of its last step.
    alone = worst_case(near, weights, 0.3, torch.ones(SIZE), (), Ascent(200, 1e-12))
    assert alone.value == pytest.approx(0.3**2 / 2 * SPECTRA[task].max(), rel=1e-6)


@pytest.mark.parametrize("radius", [0.01, 0.5, 5.0])
@pytest.mark.parametrize("task", [0, 1])
def test_the_worst_case_of_a_quadratic_is_the_trust_region_solution(task, radius):
    problem, matrices = quadratic()
    theta = np.linspace(-1, 1, SIZE)
    near = Neighbourhood(problem, theta, NONE)
    gradient = matrices[task] @ theta
    exact = trust_region(matrices[task], gradient, radius)
    rise = worst_case(
        near, np.eye(2)[task].tolist(), radius, torch.ones(SIZE), starts_of(matrices[task]), Ascent(500, 1e-13)
    )
    assert rise.value == pytest.approx(exact, rel=1e-8)
    step = radius * gradient / np.linalg.norm(gradient)
    assert rise.one_step == pytest.approx(gradient @ step + step @ matrices[task] @ step / 2, rel=1e-10)
    assert rise.one_step <= rise.value * (1 + 1e-12)


def test_a_scaled_worst_case_is_that_of_the_scaled_matrix():
    problem, matrices = quadratic(minima=np.tile(np.linspace(0.5, 3, SIZE), (2, 1)))
    theta = np.linspace(0.5, 3, SIZE)
    near = Neighbourhood(problem, theta, NONE)
    d = scale_on(Elementwise(), problem.layout, theta, near.spans)
    np.testing.assert_array_equal(d, theta)
    scaled = np.diag(theta) @ matrices.mean(0) @ np.diag(theta)
    rise = worst_case(near, [0.5, 0.5], 0.1, d, starts_of(scaled))
    assert rise.value == pytest.approx(0.005 * np.linalg.eigvalsh(scaled)[-1], rel=1e-10)
    assert float((rise.move / d).norm()) == pytest.approx(0.1)


def test_the_rise_is_never_below_that_of_any_move_that_was_tried_by_brute_force():
    problem = cases.make()
    theta, buffers = (part.numpy() for part in problem.initial(0))
    near = Neighbourhood(problem, theta, buffers)
    rise = worst_case(near, [1, 0], 0.5, torch.ones(near.size, dtype=torch.float64))
    moved = near.losses(rise.move)[0] - near.losses()[0]
    assert rise.value == pytest.approx(moved, rel=1e-12)
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((200, near.size))
    drawn *= 0.5 / np.linalg.norm(drawn, axis=1, keepdims=True)
    assert max(near.losses(torch.from_numpy(d))[0] for d in drawn) - near.losses()[0] < rise.value


def test_the_mean_rise_of_a_quadratic_is_half_sigma_squared_times_the_trace():
    problem, matrices = quadratic()
    near = Neighbourhood(problem, np.linspace(-1, 1, SIZE), NONE)
    few, many = (mean_rise(near, 0.2, torch.ones(SIZE), pairs, seed=1) for pairs in (20, 2000))
    traces = [*np.trace(matrices, axis1=1, axis2=2), np.trace(matrices.mean(0))]
    for number, trace in enumerate(traces):
        exact = 0.02 * trace
        assert abs(many[number].value - exact) < 4 * many[number].stderr  # 4 standard errors: one in 16,000
        assert many[number].stderr < 0.2 * few[number].stderr
        # Standard deviation of z'Hz / 2 is sigma^2 ||H||_F / sqrt(2).
        h = matrices[number] if number < 2 else matrices.mean(0)
        assert many[number].stderr == pytest.approx(0.04 * np.linalg.norm(h) / np.sqrt(2 * 2000), rel=0.15)
    again = mean_rise(near, 0.2, torch.ones(SIZE), 20, seed=1)
    assert again == few
    assert near.passes == 2 * 41 + 4001


def rescaled_pair():
    """A ReLU network, and the same function with one layer four times as large and the next a fourth."""

    class Net(nn.Module):
        def __init__(self, factor):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 5)
                self.one, self.two = nn.Linear(5, 2), nn.Linear(5, 1)
            with torch.no_grad():
                self.first.weight.mul_(factor)
                self.first.bias.mul_(factor)
                self.second.weight.div_(factor)

        def forward(self, inputs):
            late = torch.relu(self.second(torch.relu(self.first(inputs))))
            return self.one(late), self.two(late)

    rng = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(12, 4, generator=rng), torch.randn(12, 3, generator=rng)
    data = TensorDataset(inputs, targets[:, :2], targets[:, 2:])
    tasks = [Task(name, cases.squared_error) for name in ("one", "two")]
    return [Problem(Net(factor), tasks, data, data).to(dtype=torch.float64) for factor in (1.0, 4.0)]


@pytest.mark.parametrize("scale", [Elementwise(), PerUnit(), Plain()], ids=lambda scale: scale.label)
def test_adaptive_forms_do_not_change_when_the_layers_of_a_relu_network_are_rescaled(scale, tmp_path):
    found = []
    for number, problem in enumerate(rescaled_pair()):
        theta = problem.initial(0)[0].numpy()
        run = write_run(tmp_path / f"{number}.h5", theta[None], problem.layout, tasks=problem.names)
        chosen = Measures((Form(scale, 0.1),), Everything(), Accuracy(1e-8), Ascent(4, 0, random=0), pairs=3)
        found.append(sharpness.along(problem, run, [0], chosen))
    one, other = found
    for name in ("eigenvalue", "worst", "one_step"):
        mine, its = getattr(one, name), getattr(other, name)
        if scale == Plain():
            assert np.abs(mine / its - 1).min() > 0.01, name
        else:
            # Float64 networks whose sums differ in rounding; the eigenvalue to 1e-8 of its residual.
            np.testing.assert_allclose(mine, its, rtol=1e-6, err_msg=name)
    if scale != Plain():
        np.testing.assert_allclose(one.mean_rise, other.mean_rise, rtol=1e-9)


def test_the_unit_scale_is_the_root_mean_square_of_a_units_weights():
    layout = cases.make().layout
    theta = np.arange(float(layout.size)) - 7
    found = PerUnit().of(layout, theta)
    for slot in layout.slots:
        values = theta[slot.span].reshape(slot.shape)
        expected = (
            np.abs(values)
            if values.ndim < 2
            else np.repeat(np.sqrt((values**2).mean(1, keepdims=True)), values.shape[1], 1)
        )
        np.testing.assert_allclose(found[slot.span].reshape(slot.shape), expected)


def test_critical_rates_and_curvatures_of_a_quadratic_are_in_closed_form(tmp_path):
    problem, matrices = quadratic(minima=np.array([[0.0] * SIZE, [0.3] * SIZE]))
    theta = np.array([1.0, -0.5, 0.3, 0.8, -0.2, 0.4])
    run = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    found = sharpness.along(problem, run, [0], Measures(search=LineSearch(halvings=8)))
    hessians = [*matrices, matrices.mean(0)]
    gradients = [matrices[0] @ theta, matrices[1] @ (theta - 0.3)]
    gradients.append((gradients[0] + gradients[1]) / 2)
    for i, u in enumerate(gradients):
        for j, h in enumerate(hessians):
            bent, slope = u @ h @ u, gradients[j] @ u
            assert found.curvature[0, i, j] == pytest.approx(bent / (u @ u), rel=1e-10)
            assert abs(found.line_curvature[0, i, j] - bent / (u @ u)) <= found.line_curvature_error[0, i, j]
            low, high = found.critical_low[0, i, j], found.critical_high[0, i, j]
            if slope <= 0:
                assert (low, high) == (0, 0)
                assert found.critical_sharpness[0, i, j] == np.inf
            elif bent <= 0:
                assert high == np.inf
                assert found.critical_sharpness[0, i, j] == 0
            else:
                assert low <= 2 * slope / bent * (1 + 1e-12)
                assert high >= 2 * slope / bent * (1 - 1e-12)
                assert high / low == pytest.approx(2 ** (2**-8), rel=1e-9)


def test_the_critical_rate_of_a_network_is_where_a_dense_scan_first_rises():
    problem = cases.make()
    theta, buffers = (part.numpy() for part in problem.initial(0))
    near = Neighbourhood(problem, theta, buffers)
    gradients = near.every_gradient()
    update = gradients[0]
    slopes = np.append((gradients @ update).numpy(), float(gradients.mean(0) @ update))
    unknown = np.full(3, np.nan)
    near.passes = 0
    low, high = critical_rates(near, update, slopes, unknown)
    assert near.passes < 40
    base = near.losses()
    rates = np.linspace(0, 1.05 * high[0], 2000)[1:]
    scan = np.array([near.losses(-rate * update)[0] for rate in rates]) > base[0]
    first = rates[int(np.argmax(scan))]
    assert low[0] <= first
    assert first <= high[0] + rates[0]


def test_exact_products_and_second_differences_agree_on_a_network_in_both_precisions(tmp_path):
    for dtype, limit in ((torch.float64, 1e-4), (torch.float32, 0.3)):
        problem = cases.make("batch norm", dtype=dtype)
        theta, buffers = (part.numpy() for part in problem.initial(0))
        run = write_run(
            tmp_path / f"{dtype}.h5", theta[None], problem.layout, buffers=buffers[None], tasks=problem.names
        )
        found = sharpness.along(problem, run, [0], Measures((Form(),), ascent=Ascent(1), pairs=2))
        gap = np.abs(found.line_curvature - found.curvature)
        # The stated error is that of the wider of two steps, about four times what is left.
        assert (gap <= found.line_curvature_error).all()
        assert (found.line_curvature_error <= limit * np.abs(found.curvature).max()).all()


def test_gradients_and_losses_of_a_neighbourhood_are_autograds_of_the_plain_loss():
    problem = cases.make("shallow task")
    theta, buffers = problem.initial(0)
    near = Neighbourhood(problem, theta.numpy(), buffers.numpy(), Named("second.*"))
    move = torch.linspace(-0.1, 0.1, near.size, dtype=torch.float64)
    whole = theta.clone()
    whole[near.spans[0]] += move
    np.testing.assert_allclose(near.losses(move)[:3], cases.plain_losses(problem, whole.numpy(), buffers), rtol=1e-13)
    assert near.losses(move)[3] == pytest.approx(near.losses(move)[:3].mean())
    value, gradient = near.gradient([0.2, 0.3, 0.5], move)
    steps = 1e-6 * np.eye(near.size)[[0, 7, 29]]
    for step, entry in zip(steps, (0, 7, 29), strict=True):
        up, down = (near.losses(move + sign * torch.from_numpy(step))[:3] @ [0.2, 0.3, 0.5] for sign in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(float(gradient[entry]), abs=1e-8)
    assert value == pytest.approx(near.losses(move)[:3] @ [0.2, 0.3, 0.5])
    assert not near.every_gradient()[1].any(), "task two does not reach `second`"


@pytest.mark.parametrize("kind", cases.KINDS)
def test_losses_and_gradients_are_those_of_the_module_whatever_is_awkward_about_it(kind):
    problem = cases.make(kind)
    theta, buffers = problem.initial(0)
    near = Neighbourhood(problem, theta.numpy(), buffers.numpy())
    np.testing.assert_allclose(near.losses()[:-1], cases.plain_losses(problem, theta.numpy(), buffers), rtol=1e-13)
    direction = torch.linspace(-1, 1, near.size, dtype=torch.float64)
    slopes = (near.every_gradient() @ direction).numpy()
    rise = (near.losses(1e-5 * direction) - near.losses(-1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(slopes, rise[:-1], atol=1e-8)  # central differences: 1e-10 of third derivatives


def test_a_record_has_all_measures_counts_them_and_comes_back_from_a_file(tmp_path):
    problem, _ = quadratic(spread=0.5)
    run = write_run(
        tmp_path / "run.h5", np.linspace(1, 2, 2 * SIZE).reshape(2, SIZE), problem.layout, tasks=problem.names
    )
    told: list[int] = []
    chosen = Measures(pairs=4)
    found = sharpness.along(problem, run, [0, 1], chosen, lambda op: Estimate(float(op.size), 0.5, 3), told.append)
    assert found.trace.tolist() == [[SIZE] * 3] * 2
    assert found.trace_stderr.tolist() == [[0.5] * 3] * 2
    assert found.forms == ("plain", "elementwise")
    np.testing.assert_allclose(found.eigenvalue[:, 0, 0], 8, rtol=1e-6)
    np.testing.assert_allclose(found.sigma * np.sqrt(SIZE), found.radius)
    assert (found.one_step <= found.worst + 1e-15).all()
    assert sum(told) == found.products
    limit = sharpness.most(run, [0, 1], chosen)
    assert found.products <= limit.products
    assert found.gradients <= limit.gradients
    assert found.passes <= limit.passes
    archive.save(tmp_path / "results.h5", {"sharpness": Entry(found)})
    assert archive.load(tmp_path / "results.h5", "sharpness").record == found


def test_a_loss_that_is_not_finite_has_no_sharpness_and_spoils_no_other(tmp_path):
    problem = cases.make()
    theta = problem.initial(0)[0].numpy()
    theta[problem.layout.slots[4].span] = np.nan  # the head of task one
    run = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    found = sharpness.along(problem, run, [0], Measures((Form(),), pairs=2, ascent=Ascent(2)))
    for name in ("eigenvalue", "worst", "one_step", "mean_rise"):
        assert np.isfinite(getattr(found, name)[0, :, 0]).tolist() == [False, True, False], name
    assert np.isfinite(found.curvature[0]).tolist() == [[False] * 3, [False, True, False], [False] * 3]
    assert np.isfinite(found.critical_low[0, 1]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Ascent(0), "expected 1 or more steps"),
        (lambda: LineSearch(-1), "expected 0 or more halvings"),
        (lambda: Measures(()), "expected one or more forms with different scales, got none"),
        (lambda: Measures((Form(), Form())), "got plain, plain"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, text):
    with pytest.raises(LandscapeError, match=text):
        make()


def test_a_radius_or_noise_of_zero_and_another_models_theta_are_refused():
    problem, _ = quadratic()
    near = Neighbourhood(problem, np.zeros(SIZE), NONE, Shared())
    with pytest.raises(LandscapeError, match="a radius above 0, got 0"):
        worst_case(near, [1, 0], 0.0, torch.ones(SIZE))
    with pytest.raises(LandscapeError, match=r"a sigma above 0 and 1 or more pairs of draws, got 0\.0 and 3"):
        mean_rise(near, 0.0, torch.ones(SIZE), 3)
    with pytest.raises(LandscapeError, match=r"theta has shape \[3\]"):
        Neighbourhood(problem, np.zeros(3), NONE)
    assert np.isnan(line_curvature(near, torch.zeros(SIZE))).all(), "no direction"


def test_a_loss_that_does_not_depend_on_the_parameters_has_no_critical_rate():
    problem = cases.make()
    theta, buffers = (part.numpy() for part in problem.initial(0))
    near = Neighbourhood(problem, theta, buffers, Head(problem.names[0]))
    gradients = near.every_gradient()
    assert not gradients[1].any()
    for update in gradients:
        slopes = np.append((gradients @ update).numpy(), float(gradients.mean(0) @ update))
        low, high = critical_rates(near, update, slopes, np.full(3, np.nan))
        still = [not update.any(), True, not update.any()]
        np.testing.assert_array_equal(np.isnan(low), still)
        np.testing.assert_array_equal(np.isnan(high), still)
