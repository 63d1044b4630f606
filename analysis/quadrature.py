"""Gauss quadrature of the spectral measure that a vector sees, by Lanczos on several vectors at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from analysis.operators import SymmetricOperator
from analysis.probes import block_product
from analysis.results import Array


@dataclass(frozen=True, eq=False)
class Rule:
    """Nodes and weights of one vector's quadrature: integral f d mu_v = v' f(H) v = sum_k weights[k] f(nodes[k]) for
    polynomials f of degree up to 2 m - 1, ||v|| = 1, m nodes.
    """

    nodes: Array
    """[m], ascending; NaN where a product was not finite."""
    weights: Array
    """[m], above zero, with sum 1."""
    exact: bool
    """Whether the vector's Krylov space was exhausted, so that the rule is the measure itself."""
    products: int


def rules(operator: SymmetricOperator, starts: Tensor, degree: int) -> list[Rule]:
    """One quadrature rule for every column of `starts` [n, k], with at most `degree` nodes each.

    T is the Lanczos matrix of the column, its eigenvalues are the nodes, the squared first entries of its eigenvectors
    are the weights (Golub and Welsch 1969; Golub and Meurant 1994). Every new Lanczos vector is made orthogonal to all
    earlier ones twice. A column whose space is exhausted (low rank, few distinct eigenvalues, m = n) ends with fewer
    nodes and without error.

    Cost: at most k min(degree, n) products, `degree` blocks of k; memory of k (degree + 1) n numbers.
    """
    size, count = min(degree, operator.size), starts.shape[1]
    basis = torch.zeros(count, size + 1, operator.size, dtype=starts.dtype, device=operator.device)
    alpha, beta = (np.zeros((count, size)) for _ in range(2))
    basis[:, 0] = (starts / torch.linalg.vector_norm(starts, dim=0)).T
    scale, length, exact = np.zeros(count), np.zeros(count, int), np.zeros(count, bool)
    going = np.arange(count)
    for m in range(size):
        here = torch.from_numpy(going).to(operator.device)
        block = block_product(operator, basis[here, m].T).T
        alpha[going, m] = (block.double() * basis[here, m].double()).sum(1).cpu().numpy()
        scale[going] = np.maximum(scale[going], torch.linalg.vector_norm(block.double(), dim=1).cpu().numpy())
        block = _orthogonal(block, basis, going, m + 1)
        beta[going, m] = torch.linalg.vector_norm(block.double(), dim=1).cpu().numpy()
        length[going] = m + 1
        small = beta[going, m] <= 100 * torch.finfo(operator.dtype).eps * scale[going]
        exact[going] = small | (m + 1 == operator.size)
        stays = ~exact[going] & np.isfinite(alpha[going, m] + beta[going, m])
        block, going = block[torch.from_numpy(stays).to(operator.device)], going[stays]
        if not going.size:
            break
        here = torch.from_numpy(going).to(operator.device)
        basis[here, m + 1] = block / torch.linalg.vector_norm(block, dim=1, keepdim=True)
    return [_rule(alpha[k, : length[k]], beta[k, : length[k]], bool(exact[k])) for k in range(count)]


def _orthogonal(block: Tensor, basis: Tensor, rows: Array, count: int) -> Tensor:
    """Rows [k, n], each without its parts along the first `count` vectors of its own basis."""
    cleaned = []
    for vector, row in zip(block, rows.tolist(), strict=True):
        own, rest = basis[row, :count], vector
        for _ in range(2):
            rest = rest - own.T @ (own @ rest)
        cleaned.append(rest)
    return torch.stack(cleaned)


def _rule(alpha: Array, beta: Array, exact: bool) -> Rule:
    if not np.isfinite(alpha + beta).all():
        nothing = np.full(alpha.size, np.nan)
        return Rule(nothing, nothing, False, alpha.size)
    nodes, vectors = eigh_tridiagonal(alpha, beta[:-1])
    weights = vectors[0] ** 2
    return Rule(nodes, weights / weights.sum(), exact, alpha.size)
