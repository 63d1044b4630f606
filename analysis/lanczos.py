"""Lanczos: an orthonormal basis in which a symmetric operator is tridiagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


def lanczos(operator: SymmetricOperator, start: Tensor, steps: int) -> Iterator[Tridiagonal]:
    """Yields the factorisation after 1, 2, ..., `steps` products; ends early when the space is exhausted.

    Every new vector is made orthogonal to all earlier ones twice (Parlett: twice is enough), so no ghost eigenvalues.
    Cost: one product and 4 m n multiplications at step m; memory of (steps + 1) n numbers.
    """
    size = min(steps, operator.size)
    basis = torch.zeros(size + 1, operator.size, dtype=operator.dtype, device=operator.device)
    alpha = torch.zeros(size, dtype=torch.float64)
    beta = torch.zeros(size, dtype=torch.float64)
    basis[0] = start / start.norm()
    for m in range(size):
        vector = operator @ basis[m]
        alpha[m] = float(vector.double() @ basis[m].double())
        scale = float(vector.norm())
        for _ in range(2):
            vector = vector - basis[: m + 1].T @ (basis[: m + 1] @ vector)
        length = float(vector.norm())
        exhausted = m + 1 == operator.size or length <= 100 * torch.finfo(operator.dtype).eps * scale
        beta[m] = 0.0 if exhausted else length
        yield Tridiagonal(basis[: m + 1], alpha[: m + 1], beta[: m + 1])
        if exhausted:
            return
        basis[m + 1] = vector / length
