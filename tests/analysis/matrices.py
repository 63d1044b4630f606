"""Random symmetric matrices with chosen spectra."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import ortho_group

from analysis.operators import MatrixOperator

SPECTRA = {
    "spread": np.linspace(-5.0, 20.0, 30),
    "indefinite": np.array([-9.0, -4.0, -1.0, *np.linspace(-0.1, 0.1, 20), 3.0, 8.0]),
    "negative": -np.geomspace(0.1, 10.0, 25),
    "clustered": np.array([10.0, 10.0 - 1e-4, 10.0 - 2e-4, *np.linspace(0, 1, 20)]),
    "multiple": np.array([7.0, 7.0, 7.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, -2.0]),
    "rank deficient": np.array([5.0, -3.0, *np.zeros(20)]),
    "rank one": np.array([2.0, *np.zeros(9)]),
    "identity": np.ones(6),
    "zero": np.zeros(8),
    "1x1": np.array([-3.0]),
    "tiny": 1e-12 * np.linspace(1.0, 2.0, 12),
    "huge": 1e12 * np.linspace(-1.0, 2.0, 12),
}


def operator_with(spectrum, seed=0):
    """An operator with these eigenvalues in a random orthonormal basis, and its matrix, exactly symmetric."""
    size = len(spectrum)
    turn = ortho_group.rvs(size, random_state=seed) if size > 1 else np.eye(1)
    matrix = turn @ np.diag(spectrum) @ turn.T
    matrix = (matrix + matrix.T) / 2
    return MatrixOperator(torch.from_numpy(matrix)), matrix
