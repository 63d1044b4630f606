"""Gauss quadrature of one vector's spectral measure, against eigenvalues, moments and the plain Lanczos run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.lanczos import lanczos
from analysis.operators import MatrixOperator
from analysis.quadrature import rules
from tests.analysis.matrices import SPECTRA, operator_with


def starts(size, count=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((size, count)))


def measure_of(matrix, vector):
    """Eigenvalues and the squared parts of a unit vector along the eigenvectors."""
    values, vectors = np.linalg.eigh(matrix)
    return values, (vectors.T @ (vector / np.linalg.norm(vector))) ** 2


@pytest.mark.parametrize("name", SPECTRA)
def test_at_full_degree_a_rule_is_the_vectors_measure(name):
    operator, matrix = operator_with(SPECTRA[name])
    given = starts(len(matrix))
    scale = max(np.abs(SPECTRA[name]).max(), 1e-300)
    for k, rule in enumerate(rules(operator, given, len(matrix))):
        values, parts = measure_of(matrix, given[:, k].numpy())
        assert rule.exact
        assert rule.weights.sum() == pytest.approx(1, abs=1e-15)
        assert (rule.weights >= 0).all()
        for function in (np.sin, np.abs, lambda x: x**3, lambda x: 1 / (1 + x**2)):
            # Both are exact but for rounding of the eigenvalues; the clustered ones are 1e-5 of the range apart.
            found, expected = rule.weights @ function(rule.nodes / scale), parts @ function(values / scale)
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 5, 9])
def test_polynomials_up_to_twice_the_degree_are_integrated_exactly(degree):
    operator, matrix = operator_with(np.linspace(-1, 1, 30))
    given = starts(30)
    for k, rule in enumerate(rules(operator, given, degree)):
        values, parts = measure_of(matrix, given[:, k].numpy())
        assert not rule.exact
        assert rule.nodes.size == rule.products == degree
        for power in range(2 * degree):
            assert rule.weights @ rule.nodes**power == pytest.approx(parts @ values**power, abs=1e-13)
        missed = abs(rule.weights @ rule.nodes ** (2 * degree) - parts @ values ** (2 * degree))
        assert missed > 1e-12, "one degree more is not integrated exactly"


def test_several_vectors_at_once_are_each_as_alone_and_as_the_plain_lanczos_run():
    operator, _ = operator_with(SPECTRA["spread"])
    given = starts(30, 4)
    together = rules(operator, given, 12)
    for k, rule in enumerate(together):
        (alone,) = rules(operator, given[:, k : k + 1], 12)
        np.testing.assert_allclose(rule.nodes, alone.nodes, atol=1e-12 * 20)
        np.testing.assert_allclose(rule.weights, alone.weights, atol=1e-12)
        *_, plain = lanczos(operator, given[:, k], 12)
        values, vectors = np.linalg.eigh(plain.matrix().numpy())
        np.testing.assert_allclose(rule.nodes, values, atol=1e-12 * 20)
        np.testing.assert_allclose(rule.weights, vectors[0] ** 2, atol=1e-12)


def test_a_vector_whose_space_is_exhausted_ends_while_others_go_on():
    operator, _ = operator_with(SPECTRA["spread"])
    own = torch.linalg.eigh(operator.matrix)[1][:, 3]
    short, long = rules(operator, torch.stack([own, starts(30, 1)[:, 0]], 1), 10)
    assert short.exact
    assert short.nodes.tolist() == pytest.approx([SPECTRA["spread"][3]])
    assert short.products == 1
    assert not long.exact
    assert long.products == 10


@pytest.mark.parametrize(("name", "distinct"), [("zero", 1), ("identity", 1), ("rank one", 2), ("rank deficient", 3)])
def test_there_are_as_many_nodes_as_distinct_eigenvalues(name, distinct):
    operator, matrix = operator_with(SPECTRA[name])
    for rule in rules(operator, starts(len(matrix)), len(matrix)):
        assert rule.nodes.size == distinct
        assert rule.exact


def test_a_product_that_is_not_finite_leaves_nothing_and_harms_no_other():
    class Half(MatrixOperator):
        def __matmul__(self, vector):
            found = super().__matmul__(vector)
            return torch.where(vector.abs() > 0.9, torch.nan, found)

    operator = Half(torch.diag(torch.linspace(1, 2, 20, dtype=torch.float64)))
    axis = torch.eye(20, dtype=torch.float64)[:, 0]
    broken, whole = rules(operator, torch.stack([axis, torch.ones(20, dtype=torch.float64)], 1), 5)
    assert np.isnan(broken.nodes).all()
    assert np.isnan(broken.weights).all()
    assert broken.products == 1
    assert np.isfinite(whole.nodes).all()


def test_single_precision_has_the_measures_moments():
    spectrum = np.geomspace(1e-4, 1e3, 80)
    _, matrix = operator_with(spectrum)
    given = starts(80)
    single = MatrixOperator(torch.from_numpy(matrix).float())
    for k, rule in enumerate(rules(single, given.float(), 40)):
        values, parts = measure_of(matrix, given[:, k].numpy())
        assert rule.weights.sum() == pytest.approx(1, abs=1e-14)
        # Some roundings of 6e-8 relative to the largest eigenvalue.
        assert rule.weights @ rule.nodes == pytest.approx(parts @ values, abs=1e-5 * 1e3)


def test_a_run_without_second_orthogonalisation_would_have_ghosts_and_this_has_none():
    spectrum = np.concatenate([np.linspace(0, 1, 199), [1e6]])
    operator, _ = operator_with(spectrum)
    (rule,) = rules(operator, starts(200, 1), 150)
    assert (rule.nodes > 2).sum() == 1
