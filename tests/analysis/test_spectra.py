"""Eigenpairs against numpy's dense solver, and along trajectories against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis import operators, spectra, tracking
from analysis.operators import MatrixOperator
from analysis.spectra import Accuracy, top_eigenpairs
from analysis.tracking import Spectrum
from landscape import problems, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged
from tests.analysis.matrices import SPECTRA, operator_with

ENDS = ("largest", "smallest", "both", "magnitude")
TIGHT = Accuracy(1e-9, 200)


def ordered(values, end):
    """The values at one end, in the order in which they are reported: written anew, by plain sorting."""
    up = sorted(values)
    down = up[::-1]
    if end == "both":
        return [v for pair in zip(down, up, strict=True) for v in pair][: len(up)]
    return {"largest": down, "smallest": up, "magnitude": sorted(up, key=abs)[::-1]}[end]


class Counting:
    """An operator that counts its products."""

    def __init__(self, operator):
        self._operator, self.products = operator, 0
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __matmul__(self, vector):
        self.products += 1
        return self._operator @ vector


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", SPECTRA)
def test_pairs_have_true_residuals_unit_vectors_and_eigenvalues_within_them(name, end):
    operator, matrix = operator_with(SPECTRA[name])
    counting = Counting(operator)
    count = min(3, len(matrix))
    found = top_eigenpairs(counting, count, end, TIGHT)
    exact = np.linalg.eigvalsh(matrix)
    scale = max(np.abs(exact).max(), 1e-300)
    assert found.values.shape == (count,)
    assert found.products == counting.products
    vectors = found.vectors
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(count), atol=1e-12)
    fresh = np.linalg.norm(vectors @ matrix - found.values[:, None] * vectors, axis=1)
    # numpy's product and torch's differ by roundings of the matrix' norm.
    np.testing.assert_allclose(found.residuals, fresh, atol=1e-14 * scale * len(matrix))
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.abs(exact - value).min() <= residual + 1e-13 * scale
    zeros = np.abs(found.values).max() < 1e-12  # what rounding makes of zeros meets no tolerance relative to itself
    assert found.converged.all() or (zeros and "limited by the rounding" in found.outcome)
    assert (found.residuals <= 1e-9 * scale).all()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", SPECTRA)
def test_the_end_of_the_spectrum_is_chosen_by_sign(name, end):
    operator, matrix = operator_with(SPECTRA[name])
    count = min(3, len(matrix))
    found = top_eigenpairs(operator, count, end, TIGHT)
    exact = ordered(np.linalg.eigvalsh(matrix), end)[:count]
    scale = max(np.abs(SPECTRA[name]).max(), 1e-300)
    np.testing.assert_allclose(np.abs(found.values), np.abs(exact), atol=1e-9 * scale)
    if end != "magnitude":  # where two values have one magnitude, either may come first
        np.testing.assert_allclose(found.values, exact, atol=1e-9 * scale)


def test_more_pairs_than_distinct_eigenvalues_are_all_found():
    # Rank two in 22 dimensions: a Krylov space has three dimensions, five pairs are asked for.
    operator, _ = operator_with(SPECTRA["rank deficient"])
    found = top_eigenpairs(operator, 5, accuracy=TIGHT)
    assert found.products < 15, "not the whole space"
    np.testing.assert_allclose(found.values, [5, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), atol=1e-12)
    whole = top_eigenpairs(operator, 22, accuracy=TIGHT)
    np.testing.assert_allclose(whole.values, np.sort(SPECTRA["rank deficient"])[::-1], atol=1e-12)


def test_a_budget_too_small_is_admitted():
    spectrum = np.linspace(0, 1, 200)  # no gaps: 8 products cannot resolve three pairs
    operator, matrix = operator_with(spectrum)
    found = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-6, 8))
    assert not found.converged.any()
    assert found.products == 8 + 3
    exact = np.linalg.eigvalsh(matrix)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert residual > 1e-6 * found.values.max()
        assert np.abs(exact - value).min() <= residual


def test_convergence_is_told_apart_pair_by_pair():
    spectrum = np.array([100.0, *np.linspace(0, 1, 150)])
    operator, _ = operator_with(spectrum)
    found = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-5, 9))
    assert found.converged.tolist() == [True, False, False]


def test_products_stop_as_soon_as_the_tolerance_is_met():
    operator, _ = operator_with(np.array([50.0, 20.0, *np.linspace(0, 1, 100)]))
    loose, tight = (top_eigenpairs(operator, 2, accuracy=Accuracy(t, 100)).products for t in (1e-2, 1e-8))
    assert loose < tight < 30


def test_the_same_seed_gives_the_same_bytes_and_another_seed_the_same_values():
    operator, _ = operator_with(SPECTRA["spread"])
    one, again, other = (top_eigenpairs(operator, 3, accuracy=TIGHT, seed=s) for s in (1, 1, 2))
    assert one == again
    np.testing.assert_allclose(other.values, one.values, rtol=1e-9)


def test_a_warm_start_saves_products():
    operator, _ = operator_with(np.array([9.0, 5.0, 4.0, *np.linspace(-1, 1, 300)]))
    cold = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-6, 200))
    warm = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-3, 200), start=torch.from_numpy(cold.vectors.sum(0)))
    assert warm.products < top_eigenpairs(operator, 3, accuracy=Accuracy(1e-3, 200)).products
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_a_warm_start_next_to_an_invariant_space_still_finds_a_larger_eigenvalue_outside_it(noise):
    # The three vectors of the start span a space that the operator maps into itself; 5 has overtaken them.
    values = np.array([5.0, 4.0, 3.0, 2.0, *np.linspace(0, 1, 200)])
    operator = MatrixOperator(torch.diag(torch.from_numpy(values)))
    start = torch.zeros(len(values), dtype=torch.float64)
    start[1:4] = 1.0
    start += noise * torch.from_numpy(np.random.default_rng(0).standard_normal(len(values)))
    found = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-2, 100), start=start)
    np.testing.assert_allclose(found.values, [5, 4, 3], rtol=1e-2)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_operator_that_is_not_finite_has_no_eigenvalues_rather_than_wrong_ones(broken):
    matrix = np.eye(5)
    matrix[1, 1] = broken
    found = top_eigenpairs(MatrixOperator(torch.from_numpy(matrix)), 2)
    assert np.isnan(found.values).all()
    assert np.isnan(found.residuals).all()
    assert not found.converged.any()
    assert found.vectors.shape == (2, 5)


def test_unknown_ends_and_counts_are_refused():
    operator, _ = operator_with(np.arange(4.0))
    with pytest.raises(LandscapeError, match=r"unknown end 'top': expected one of largest, smallest, both, magnitude"):
        top_eigenpairs(operator, 1, "top")
    for count in (0, 5):
        with pytest.raises(
            LandscapeError, match=rf"expected 1 to 4 eigenpairs of an operator of that size, got {count}"
        ):
            top_eigenpairs(operator, count)
    with pytest.raises(LandscapeError, match=r"tolerance above 0 and 1 or more products, got 0.0 and 10"):
        Accuracy(0.0, 10)
    with pytest.raises(LandscapeError, match=r"got 0.1 and 0"):
        Accuracy(0.1, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    problem = problems.load("quadratic", {"tasks": 2, "size": 30, "heads": 2, "spread": 0.3})
    plan = training.Plan(30, 8, Every(10))
    path = tmp_path_factory.mktemp("along") / "run.h5"
    return problem, training.record(problem, Averaged(Optimiser("Adam", lr=0.05)), plan, path)


def test_along_a_run_on_quadratics_the_eigenvalues_are_those_of_its_matrices(run):
    problem, trajectory = run
    told = []
    history = tracking.along(problem, trajectory, range(4), Spectrum(3, accuracy=Accuracy(1e-6, 100)), tell=told.append)
    a = problem.model.hessians.numpy()
    expected = [np.sort(np.linalg.eigvalsh(m))[::-1][:3] for m in (*a, a.mean(0))]
    assert history.tasks == ("task1", "task2", "average")
    np.testing.assert_array_equal(history.steps, [0, 10, 20, 30])
    # An error of a value is at most the square of the relative residual 1e-6, over the gap; 1e-8 leaves room.
    np.testing.assert_allclose(history.values, np.broadcast_to(expected, (4, 3, 3)), rtol=1e-8)
    assert history.converged.all()
    assert (history.residuals <= 1e-6 * np.abs(history.values).max(-1, keepdims=True)).all()
    assert sum(told) == history.products
    assert len(told) == 4 * 3
    # A_t is the same at every snapshot, so every run after the first is warm; the average is so from the first on.
    assert all(later < told[t] for t in range(2) for later in told[3 + t :: 3])


def test_pairs_along_a_run_carry_the_vectors_of_the_curves(run):
    problem, trajectory = run
    found = [here.pairs for here in tracking.pairs_along(problem, trajectory, [3, 1], Spectrum(2))]
    history = tracking.along(problem, trajectory, [3, 1], Spectrum(2))
    assert [tuple(pairs) for pairs in found] == [("task1", "task2", "average")] * 2
    for place, pairs in enumerate(found):
        for number, one in enumerate(pairs.values()):
            np.testing.assert_array_equal(one.values, history.values[place, number])
            np.testing.assert_array_equal(one.residuals, history.residuals[place, number])
    matrix = problem.model.hessians.numpy()[0]
    product = found[0]["task1"].vectors @ matrix
    # Stopped at residuals of 1e-3 of the largest value.
    np.testing.assert_allclose(product, found[0]["task1"].values[:, None] * found[0]["task1"].vectors, atol=1e-2)


def test_the_average_starts_from_the_eigenvectors_of_what_the_tasks_say():
    rng = np.random.default_rng(0)
    tasks, low = [], np.zeros((40, 40))
    for _ in range(3):
        operator, matrix = operator_with(np.array([9.0, -4.0, 2.0, *np.zeros(37)]), seed=int(rng.integers(100)))
        tasks.append(top_eigenpairs(operator, 3, "magnitude", TIGHT))
        low += matrix / 3
    _, vectors = np.linalg.eigh(low)
    start = spectra.averaged_start(tasks, 3).numpy()
    np.testing.assert_allclose(np.abs(start @ vectors[:, -1:-4:-1]), np.eye(3), atol=1e-7)
    same = spectra.averaged_start([tasks[0]] * 3, 3).numpy()
    np.testing.assert_allclose(np.abs(same @ tasks[0].vectors[[0, 2]].T), np.eye(3)[:, :2], atol=1e-7)
    assert spectra.averaged_start([replace(tasks[0], values=np.full(3, np.nan))], 2) is None


def test_eigenvalues_at_chosen_rows_stand_in_the_order_of_the_rows(run):
    problem, trajectory = run
    history = tracking.along(problem, trajectory, [3, 1], Spectrum(1))
    np.testing.assert_array_equal(history.steps, [30, 10])
    assert history.values.shape == (2, 3, 1)


def test_more_eigenvalues_than_parameters_are_as_many_as_there_are(tmp_path):
    problem = problems.load("quadratic", {"tasks": 1, "size": 2, "heads": 0})
    run = training.record(problem, Averaged(), training.Plan(2, 4), tmp_path / "run.h5")
    history = tracking.along(problem, run, [0], Spectrum(5))
    assert history.values.shape == (1, 2, 2)
    np.testing.assert_allclose(history.values[0, 0], history.values[0, 1], rtol=1e-12)  # one task is its own average


def test_tasks_with_multiple_eigenvalues_have_each_of_their_own(tmp_path):
    hessians = [np.diag([5.0, 1.0, 1.0, 1.0]).tolist(), np.zeros((4, 4)).tolist()]
    problem = problems.load("quadratic", {"heads": 0, "hessians": hessians, "minima": np.zeros((2, 4)).tolist()})
    run = training.record(problem, Averaged(), training.Plan(2, 4), tmp_path / "run.h5")
    history = tracking.along(problem, run, [0, 1], Spectrum(3))
    for row in history.values:
        np.testing.assert_allclose(row, [[5, 1, 1], [0, 0, 0], [2.5, 0.5, 0.5]], atol=1e-9)


def test_a_run_of_another_model_is_refused(run):
    _, trajectory = run
    with pytest.raises(LandscapeError, match=r"expected theta with .* but .*run.h5 has"):
        tracking.along(problems.load("quadratic", {"tasks": 2, "size": 5}), trajectory, [0])


def test_eigenvalues_of_a_network_are_those_of_its_dense_hessian():
    problem = problems.load("digits", {"width": 2, "features": 4, "train": 32, "evaluation": 40}).to(
        dtype=torch.float64
    )
    theta, buffers = problem.initial(0)
    operator = operators.hessians(problem, theta.numpy(), buffers.numpy())["average"]
    dense = np.stack([(operator @ e).numpy() for e in torch.eye(operator.size, dtype=torch.float64)])
    exact = np.linalg.eigvalsh((dense + dense.T) / 2)
    for end in ("largest", "smallest"):
        found = top_eigenpairs(operator, 3, end, Accuracy(1e-7, 150))
        assert found.converged.all()
        np.testing.assert_allclose(found.values, ordered(exact, end)[:3], rtol=1e-6)
