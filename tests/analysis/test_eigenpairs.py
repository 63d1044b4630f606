"""Searches for eigenpairs against scipy's dense solver: restarts, blocks, warm starts, saved states, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from analysis import archive, operators
from analysis.archive import Entry
from analysis.eigenpairs import CheckEach, CheckSum, Saving, top_eigenpairs
from analysis.eigensearch import Accuracy
from analysis.operators import MatrixOperator
from analysis.results import Eigenpairs
from landscape import problems
from landscape.errors import LandscapeError
from tests.analysis.matrices import SPECTRA, operator_with

ENDS = ("largest", "smallest", "both", "magnitude")
TIGHT = Accuracy(1e-9, 2000)
GRADED = np.concatenate([np.geomspace(1e-8, 1e2, 60), -np.geomspace(1e-8, 1e1, 60)])


class Noisy:
    """A matrix whose products are counted, stopped after some, and answered with NaN from some on."""

    def __init__(self, operator, stop=None, broken=None):
        self._operator, self.products, self.stop, self.broken = operator, 0, stop, broken
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __matmul__(self, vector):
        self.products += 1 if vector.ndim == 1 else vector.shape[1]
        if self.stop is not None and self.products > self.stop:
            raise KeyboardInterrupt
        product = self._operator @ vector
        return product * np.nan if self.broken is not None and self.products >= self.broken else product


def dense(matrix, count, end):
    """By scipy's dense solver, ordered anew."""
    up = sorted(scipy.linalg.eigh(matrix, eigvals_only=True))
    down = up[::-1]
    if end == "both":
        return np.array([v for pair in zip(down, up, strict=True) for v in pair][:count])
    return np.array({"largest": down, "smallest": up, "magnitude": sorted(up, key=abs)[::-1]}[end][:count])


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_tiny_basis_with_restarts_equals_a_full_one(end, block):
    operator, matrix = operator_with(GRADED)
    found = top_eigenpairs(operator, 4, end, TIGHT, block=block, max_basis=4 + 3 * block)
    whole = top_eigenpairs(operator, 4, end, TIGHT, block=block, max_basis=120)
    assert found.products > 4 + 3 * block + 4, "it restarted"
    assert found.converged.all()
    exact = dense(matrix, 4, end)
    for values in (found.values, whole.values):
        np.testing.assert_allclose(values, exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.abs((found.vectors * whole.vectors).sum(1)), 1, atol=1e-8)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("block", [1, 2])
def test_a_restarted_search_finds_the_ends_of_awkward_spectra(name, block):
    operator, matrix = operator_with(SPECTRA[name])
    count = min(2, len(matrix))
    block = min(block, len(matrix))
    found = top_eigenpairs(operator, count, accuracy=TIGHT, block=block, max_basis=min(len(matrix), count + block + 8))
    scale = max(np.abs(SPECTRA[name]).max(), 1e-300)
    np.testing.assert_allclose(found.values, dense(matrix, count, "largest"), atol=1e-8 * scale)
    assert found.converged.all()


def test_a_block_finds_the_copies_of_a_multiple_eigenvalue_that_one_vector_does_not():
    values = np.array([5.0, 5.0, 5.0, 4.0, *np.linspace(0, 1, 300)])
    operator = MatrixOperator(torch.diag(torch.from_numpy(values)))
    block = top_eigenpairs(operator, 4, accuracy=Accuracy(1e-6, 300), block=3)
    np.testing.assert_allclose(block.values, [5, 5, 5, 4], rtol=1e-6)
    np.testing.assert_allclose(block.vectors[:3, 3:], 0, atol=1e-5)
    np.testing.assert_allclose(top_eigenpairs(operator, 2).values, [5, 4], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_clusters_closer_than_the_tolerance_are_still_a_right_space(dtype):
    # Gaps of 1e-5 of the largest value, residuals of 1e-4 of it: vectors within the cluster are not told apart.
    values = np.array([1.0, 1 - 1e-5, 1 - 2e-5, *np.linspace(0, 0.5, 200)])
    operator, matrix = operator_with(values)
    found = top_eigenpairs(MatrixOperator(operator.matrix.to(dtype)), 3, accuracy=Accuracy(1e-4, 300), block=3)
    assert found.converged.all()
    upper = scipy.linalg.eigh(matrix)[1][:, -3:]
    np.testing.assert_allclose(np.linalg.svd(upper.T @ found.vectors.T)[1], 1, atol=1e-6)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("block", [1, 4])
def test_warm_and_cold_starts_meet_at_the_same_pairs(end, block):
    operator, _ = operator_with(np.concatenate([GRADED, np.linspace(-1, 1, 80)]))
    cold = top_eigenpairs(operator, 4, end, TIGHT)
    turned = torch.from_numpy(cold.vectors + 0.02 * np.random.default_rng(0).standard_normal(cold.vectors.shape))
    warm = top_eigenpairs(operator, 4, end, TIGHT, seed=3, start=turned, block=block)
    np.testing.assert_allclose(warm.values, cold.values, rtol=1e-9)
    np.testing.assert_allclose(np.abs((warm.vectors * cold.vectors).sum(1)), 1, atol=1e-8)


@pytest.mark.parametrize("block", [1, 3])
def test_a_warm_block_in_an_invariant_space_finds_what_has_overtaken_it(block):
    values = np.array([5.0, 4.0, 3.0, 2.0, *np.linspace(0, 1, 200)])
    operator = MatrixOperator(torch.diag(torch.from_numpy(values)))
    start = torch.eye(len(values), dtype=torch.float64)[1:4]
    found = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-2, 100), start=start, block=block)
    np.testing.assert_allclose(found.values, [5, 4, 3], rtol=1e-2)


def test_a_warm_start_saves_products():
    rng = np.random.default_rng(0)
    operator, matrix = operator_with(np.array([9.0, 7.0, 5.0, 4.0, *np.linspace(-1, 1, 300)]))
    cold = top_eigenpairs(operator, 4)
    bent = rng.standard_normal(matrix.shape) * 0.01
    other = MatrixOperator(torch.from_numpy(matrix + bent + bent.T))
    warm = top_eigenpairs(other, 4, start=torch.from_numpy(cold.vectors.copy()))
    assert warm.products < top_eigenpairs(other, 4).products
    assert warm.converged.all()


@pytest.mark.parametrize("check", [CheckEach(), CheckSum(), CheckSum(3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_measured_residuals_are_those_of_a_dense_product(check, dtype):
    operator, _ = operator_with(GRADED)
    counting = Noisy(MatrixOperator(operator.matrix.to(dtype)))
    found = top_eigenpairs(counting, 5, accuracy=Accuracy(1e-2, 60), check=check)
    assert found.products == counting.products
    matrix = operator.matrix.to(dtype).double().numpy()
    vectors = found.vectors.astype(np.float64)
    fresh = np.linalg.norm(vectors @ matrix - found.values[:, None] * vectors, axis=1)
    roundings = 20 * torch.finfo(dtype).eps * 100  # of a product of a matrix of norm 100
    assert (found.residuals >= fresh - roundings).all()
    assert (found.residuals <= fresh + 10 * roundings).all()


def test_a_check_of_the_sum_sees_an_operator_that_changes():
    class Drifting(Noisy):
        def __matmul__(self, vector):
            return super().__matmul__(vector) * (1.0 if self.products <= 8 else 1.01)

    operator, _ = operator_with(GRADED)
    found = top_eigenpairs(Drifting(operator), 3, accuracy=Accuracy(1e-9, 8), check=CheckSum())
    assert (found.residuals > 0.5).all()  # the product of the sum is 1 % of about 100 too long
    assert not found.converged.any()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_smallest_operators_are_solved_whole(size, block):
    if block > size:
        return
    operator, matrix = operator_with(np.arange(1.0, size + 1))
    for end in ENDS:
        found = top_eigenpairs(operator, size, end, block=block)
        np.testing.assert_allclose(found.values, dense(matrix, size, end), atol=1e-12)
        assert found.products == 2 * size


def test_products_that_turn_nan_on_the_way_leave_nothing():
    operator, _ = operator_with(GRADED)
    states = []
    found = top_eigenpairs(Noisy(operator, broken=7), 3, saving=Saving(states.append, 1))
    assert np.isnan(found.values).all()
    assert not found.converged.any()
    assert found.products == 7
    assert found.outcome.startswith("a product was not finite, the 7th")
    assert [state.products for state in states] == [1, 2, 3, 4, 5, 6]


def test_what_was_reached_is_said_in_words():
    operator, _ = operator_with(np.linspace(0, 1, 200))
    found = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-6, 10))
    assert found.outcome.startswith(
        "0 of 3 eigenpairs met the tolerance 1e-06 after 10 products: residuals up to 8.0e-02 of"
    )


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("stop", [4, 17, 25, 33])
def test_a_killed_search_that_is_gone_on_with_ends_with_the_same_bytes(block, stop, tmp_path):
    operator, _ = operator_with(np.linspace(-1, 1, 80) ** 3)
    operator = MatrixOperator(operator.matrix.float())
    asked = {"count": 4, "accuracy": Accuracy(1e-4, 300), "block": block, "max_basis": 12}
    whole = top_eigenpairs(operator, **asked)
    assert whole.products > 37
    states = []
    with pytest.raises(KeyboardInterrupt):
        top_eigenpairs(Noisy(operator, stop=stop), **asked, saving=Saving(states.append, 3))
    archive.save(tmp_path / "states.h5", {"state": Entry(states[-1])})
    saved = archive.load(tmp_path / "states.h5", "state").record
    assert saved == states[-1]
    assert stop - 3 - block < saved.products <= stop
    counting = Noisy(operator)
    again = top_eigenpairs(counting, **asked, resume=saved)
    assert again == whole
    assert counting.products == whole.products - saved.products


def test_an_exhausted_search_is_gone_on_with_as_well():
    operator, _ = operator_with(SPECTRA["multiple"])
    whole, states = top_eigenpairs(operator, 3, accuracy=TIGHT), []
    top_eigenpairs(operator, 3, accuracy=TIGHT, saving=Saving(states.append, 1))
    assert len(states) > 6
    assert all(top_eigenpairs(operator, 3, accuracy=TIGHT, resume=state) == whole for state in states)


def test_a_finished_search_can_be_sharpened():
    operator, _ = operator_with(GRADED)
    states = []
    rough = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-1, 200), saving=Saving(states.append, 1000))
    sharp = top_eigenpairs(operator, 3, accuracy=Accuracy(1e-8, 200), resume=states[-1])
    assert sharp == top_eigenpairs(operator, 3, accuracy=Accuracy(1e-8, 200))
    assert states[-1].products < rough.products < sharp.products


def test_the_error_of_a_resolved_value_is_the_square_of_its_residual_over_the_gap():
    operator, matrix = operator_with(np.array([20.0, 16.0, 12.0, 8.0, *np.linspace(-1, 1, 100)]))
    for end in ENDS:
        found = top_eigenpairs(operator, 4, end, Accuracy(1e-2, 300))
        exact = dense(matrix, 4, end)
        assert (np.abs(found.values - exact) <= found.gap_error + 1e-12).all()
        assert (found.gap_error <= found.residuals).all()
    found = Eigenpairs(
        values=np.array([20.0, 16.0, 15.0]),
        vectors=np.eye(3),
        residuals=np.array([0.1, 0.2, 0.3]),
        converged=np.ones(3, bool),
        end="largest",
        products=0,
    )
    np.testing.assert_allclose(found.gap_error, [0.1**2 / 3.8, 0.2**2 / 0.7, 0.3])


SETTINGS = {
    "small": {"width": 2, "features": 4, "train": 32, "evaluation": 40},
    "larger": {"width": 6, "features": 16, "train": 32, "evaluation": 40},
}


@pytest.mark.slow
@pytest.mark.parametrize("size", SETTINGS)
def test_eigenvalues_of_a_network_are_those_of_its_dense_float64_hessian(size):
    exact = problems.load("digits", SETTINGS[size]).to(dtype=torch.float64)
    theta, buffers = (part.numpy() for part in exact.initial(0))
    operator = operators.hessians(exact, theta, buffers)["average"]
    assert operator.size < 5000
    matrix = np.stack([(operator @ e).numpy() for e in torch.eye(operator.size, dtype=torch.float64)])
    # An eigenvalue of the exact operator is off by its residual at most; float32 leaves roundings of all operations.
    for dtype, tolerance, close in ((torch.float64, 1e-6, 1e-6), (torch.float32, 1e-4, 1e-4)):
        same = operators.hessians(exact.to(dtype=dtype), theta, buffers)["average"]
        for end in ("largest", "both"):
            found = top_eigenpairs(same, 5, end, Accuracy(tolerance, 200), max_basis=30)
            values = dense((matrix + matrix.T) / 2, 5, end)
            assert found.converged.all()
            np.testing.assert_allclose(found.values, values, rtol=close)


def test_what_cannot_be_searched_is_refused():
    operator, _ = operator_with(GRADED)
    with pytest.raises(LandscapeError, match=r"expected 1 to 120 eigenpairs of an operator of that size, got 121"):
        top_eigenpairs(operator, 121)
    with pytest.raises(LandscapeError, match=r"at least 6 vectors for 3 eigenpairs in blocks of 2, got 5"):
        top_eigenpairs(operator, 3, block=2, max_basis=5)
    with pytest.raises(LandscapeError, match=r"expected a block of 1 to 120 vectors .* got 0"):
        top_eigenpairs(operator, 3, block=0)
    with pytest.raises(LandscapeError, match=r"expected a start \[120\] or \[k, 120\], got shape \[2, 3\]"):
        top_eigenpairs(operator, 3, start=torch.ones(2, 3))
    with pytest.raises(LandscapeError, match=r"expected starts of finite numbers, not all zero"):
        top_eigenpairs(operator, 3, start=torch.zeros(120))
    states = []
    top_eigenpairs(operator, 3, saving=Saving(states.append, 5))
    with pytest.raises(
        LandscapeError, match=r"the saved state is of .*count=3.* expected one of .*count=4.*: start anew"
    ):
        top_eigenpairs(operator, 4, resume=states[0])
    with pytest.raises(LandscapeError, match=r"in 120 parameters of float64, expected one of .* in 120 of float32"):
        top_eigenpairs(MatrixOperator(operator.matrix.float()), 3, resume=states[0])
