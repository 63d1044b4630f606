"""Lanczos: an orthonormal basis in which a symmetric operator is tridiagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.operators import SymmetricOperator


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """After m products: H Q = Q T + beta_m q_{m+1} e_m', Q [n, m] orthonormal, T tridiagonal with alpha and beta."""

    basis: Tensor
    """Rows are the Lanczos vectors, [m, n]."""
    alpha: Tensor
    """[m], float64"""
    beta: Tensor
    """[m], float64; the last one couples to the next vector, and is 0 when the space is exhausted."""

    def matrix(self) -> Tensor:
        """T [m, m] in float64."""
        off = self.beta[:-1]
        return torch.diag(self.alpha) + torch.diag(off, 1) + torch.diag(off, -1)


def lanczos(
    operator: SymmetricOperator, start: Tensor, steps: int, restart: np.random.Generator | None = None
) -> Iterator[Tridiagonal]:
    """Yields the factorisation after 1, 2, ..., `steps` products.

    When the space that `start` reaches is exhausted (fewer eigenvectors have a part in it than there are), this ends,
    or, given `restart`, goes on with a random vector orthogonal to that space; T then falls into blocks, beta = 0
    between them, so that further copies of a multiple eigenvalue are found as well.

    Every new vector is made orthogonal to all earlier ones twice (Parlett: twice is enough), so no ghost eigenvalues.
    Cost: one product and 4 m n multiplications at step m; memory of (steps + 1) n numbers.
    """
    size = min(steps, operator.size)
    basis = torch.zeros(size + 1, operator.size, dtype=operator.dtype, device=operator.device)
    alpha = torch.zeros(size, dtype=torch.float64)
    beta = torch.zeros(size, dtype=torch.float64)
    basis[0] = start / start.norm()
    scale = 0.0
    for m in range(size):
        vector = operator @ basis[m]
        alpha[m] = float(vector.double() @ basis[m].double())
        scale = max(scale, float(vector.norm()))
        vector = _orthogonal(vector, basis[: m + 1])
        length = float(vector.norm())
        exhausted = m + 1 == operator.size or length <= 100 * torch.finfo(operator.dtype).eps * scale
        beta[m] = 0.0 if exhausted else length
        yield Tridiagonal(basis[: m + 1], alpha[: m + 1], beta[: m + 1])
        if exhausted and (restart is None or m + 1 == operator.size):
            return
        if exhausted and restart is not None:
            drawn = torch.from_numpy(restart.standard_normal(operator.size)).to(operator.device, operator.dtype)
            vector = _orthogonal(drawn, basis[: m + 1])
            length = float(vector.norm())
        basis[m + 1] = vector / length


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """The part of a vector that is orthogonal to the rows of an orthonormal basis."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector
