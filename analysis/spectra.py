"""Eigenvalues at the ends of a spectrum along a trajectory, each search warmed by the snapshot before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.eigenpairs import CheckEach, CheckSum, ResidualCheck, Saving, top_eigenpairs
from analysis.eigensearch import END_ORDER, Accuracy
from analysis.operators import hessians
from analysis.results import AVERAGE, Eigenpairs, EigenvalueHistory
from analysis.subspaces import run_of
from landscape.problem import Problem
from landscape.trajectory import Trajectory

__all__ = ["END_ORDER", "Accuracy", "CheckEach", "CheckSum", "Saving", "along", "pairs_along", "top_eigenpairs"]


def pairs_along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    count: int = 3,
    accuracy: Accuracy = Accuracy(),
    progress: Callable[[int], None] = lambda products: None,
    check: ResidualCheck = CheckSum(),
) -> Iterator[dict[str, Eigenpairs]]:
    """Largest eigenpairs of every task's Hessian and of the average on the shared parameters, snapshot after snapshot.

    Each Lanczos run starts from the vectors found at the snapshot before and a little of a random one, which saves
    products where the leading directions turn slowly; that of the average starts from what the tasks' own pairs at the
    same snapshot say of it. Residuals are measured by fresh products all the same, as `check` has it: by default one
    for all pairs of an operator. `progress` is told the products of every operator as it is done.

    Cost: (T + 1) runs of `top_eigenpairs` a snapshot. Memory: (T + 1) count vectors, and those of one run.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    size = min(count, problem.layout.count())
    warm: dict[str, Tensor] = {}
    for row in rows:
        found: dict[str, Eigenpairs] = {}
        for name, operator in hessians(problem, trajectory.theta[row], trajectory.buffers[row]).items():
            start = averaged_start(list(found.values()), size) if name == AVERAGE else warm.get(name)
            found[name] = top_eigenpairs(operator, size, accuracy=accuracy, start=start, check=check)
            if np.isfinite(found[name].values).all():
                warm[name] = torch.from_numpy(found[name].vectors.copy())
            progress(found[name].products)
        yield found


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    count: int = 3,
    accuracy: Accuracy = Accuracy(),
    progress: Callable[[int], None] = lambda products: None,
    check: ResidualCheck = CheckSum(),
) -> EigenvalueHistory:
    """The eigenvalues of `pairs_along` with their residuals, as curves."""
    names = (*problem.names, AVERAGE)
    shape = (len(rows), len(names), min(count, problem.layout.count()))
    values, residuals, converged = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    products = 0
    snapshots = pairs_along(problem, trajectory, rows, count, accuracy, progress, check)
    for place, found in enumerate(snapshots):
        for number, pairs in enumerate(found.values()):
            values[place, number] = pairs.values
            residuals[place, number] = pairs.residuals
            converged[place, number] = pairs.converged
            products += pairs.products
    return EigenvalueHistory(
        run=run_of(trajectory),
        tasks=names,
        steps=trajectory.steps[list(rows)],
        values=values,
        residuals=residuals,
        converged=converged,
        products=products,
        examples=len(problem.evaluation),
        data=problem.data_hash,
    )


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
