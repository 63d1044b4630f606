"""The Lanczos factorisation against its defining equation and numpy's eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.lanczos import lanczos
from analysis.operators import MatrixOperator
from tests.analysis.matrices import SPECTRA, operator_with


def last(operator, start, steps, restart=None):
    found = None
    for found in lanczos(operator, start, steps, restart):  # noqa: B007
        pass
    return found


def start(size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size))


@pytest.mark.parametrize("name", SPECTRA)
def test_every_factorisation_satisfies_its_defining_equation(name):
    operator, matrix = operator_with(SPECTRA[name])
    scale = max(np.abs(SPECTRA[name]).max(), 1e-300)
    begun = start(len(matrix))
    for m, found in enumerate(lanczos(operator, begun, 20), 1):
        q, t = found.basis.numpy(), found.matrix().numpy()
        assert q.shape == (m, len(matrix))
        # Orthonormal to a few roundings, because every vector is orthogonalised twice.
        np.testing.assert_allclose(q @ q.T, np.eye(m), atol=1e-13)
        remainder = matrix @ q.T - q.T @ t
        # H Q - Q T has its last column alone, and it is as long as beta.
        assert np.abs(remainder[:, :-1]).max(initial=0.0) <= 1e-12 * scale
        assert abs(np.linalg.norm(remainder[:, -1]) - found.beta[-1].item()) <= 1e-12 * scale


@pytest.mark.parametrize("name", SPECTRA)
def test_an_exhausted_space_holds_every_distinct_eigenvalue_once(name):
    values = np.unique(SPECTRA[name])
    operator, matrix = operator_with(SPECTRA[name])
    found = last(operator, start(len(matrix)), len(matrix))
    ritz = np.linalg.eigvalsh(found.matrix().numpy())
    scale = max(np.abs(values).max(), 1e-300)
    for value in values:
        assert np.abs(ritz - value).min() <= 1e-10 * scale
    if len(values) < 10 and np.diff(values).min(initial=1.0) > 1e-3:
        assert len(found.alpha) == len(values)
        assert found.beta[-1].item() == 0.0


def test_with_a_restart_every_copy_of_a_multiple_eigenvalue_is_found():
    spectrum = SPECTRA["multiple"]
    operator, matrix = operator_with(spectrum)
    found = last(operator, start(len(matrix)), len(matrix), np.random.default_rng(1))
    assert len(found.alpha) == len(matrix)
    np.testing.assert_allclose(np.linalg.eigvalsh(found.matrix().numpy()), np.sort(spectrum), atol=1e-12 * 7)
    q = found.basis.numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(len(q)), atol=1e-13)


def test_no_ghosts_appear_long_after_the_ends_have_converged():
    # Without reorthogonalisation a converged outlier comes back as copies after some dozens of products.
    spectrum = np.concatenate([np.linspace(0, 1, 199), [1e6]])
    operator, matrix = operator_with(spectrum)
    found = last(operator, start(len(matrix)), 150)
    ritz = np.linalg.eigvalsh(found.matrix().numpy())
    assert (ritz > 2).sum() == 1


def test_moments_of_the_tridiagonal_matrix_are_those_of_the_operator():
    operator, matrix = operator_with(np.linspace(-1, 2, 30))
    begun = start(30)
    found = last(operator, begun, 6)
    v = begun.numpy() / np.linalg.norm(begun.numpy())
    for power in range(2 * 6):  # Gauss quadrature of 6 nodes is exact up to degree 11
        expected = v @ np.linalg.matrix_power(matrix, power) @ v
        mine = np.linalg.matrix_power(found.matrix().numpy(), power)[0, 0]
        assert mine == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_single_precision_stays_orthonormal_to_its_own_rounding():
    _, matrix = operator_with(np.geomspace(1e-6, 1e3, 80))
    found = last(MatrixOperator(torch.from_numpy(matrix).float()), start(80), 40)
    q = found.basis.double().numpy()
    np.testing.assert_allclose(q @ q.T, np.eye(len(q)), atol=2e-6)  # some roundings of 6e-8


def test_a_start_of_any_length_gives_the_same_factorisation():
    operator, _ = operator_with(np.linspace(0, 1, 12))
    one, other = last(operator, start(12), 5), last(operator, 1e-8 * start(12), 5)
    np.testing.assert_allclose(one.alpha, other.alpha, atol=1e-12)
