"""Eigenvalues at the ends of a spectrum: where to find what searches for them, and how the average's search starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.eigenpairs import CheckEach, CheckSum, Saving, top_eigenpairs
from analysis.eigensearch import END_ORDER, Accuracy
from analysis.results import Eigenpairs

__all__ = ["END_ORDER", "Accuracy", "CheckEach", "CheckSum", "Saving", "averaged_start", "top_eigenpairs"]


def averaged_start(tasks: Sequence[Eigenpairs], count: int) -> Tensor | None:
    """Top eigenvectors [count, n] of (1 / T) sum_t V_t' diag(values_t) V_t, what the tasks' own pairs say of the
    averaged Hessian; None where a task's are not finite. No products; about 2 (T k)^2 n multiplications.
    """
    if not all(np.isfinite(pairs.values).all() for pairs in tasks):
        return None
    vectors = torch.from_numpy(np.concatenate([pairs.vectors for pairs in tasks])).double()
    values = torch.from_numpy(np.concatenate([pairs.values for pairs in tasks])).double()
    # V' D V has the values other than 0 of R D R' where V' = U R; its vectors are V' R^-1 times those.
    upper, turn = torch.linalg.eigh(vectors @ vectors.T)
    kept = upper > 1e-10 * upper[-1]
    root = turn[:, kept] * upper[kept].sqrt()
    small, weights = torch.linalg.eigh(root.T @ (values[:, None] * root))
    best = weights[:, torch.argsort(-small)[:count]]
    start: Tensor = (turn[:, kept] / upper[kept].sqrt() @ best).T @ vectors
    return start
