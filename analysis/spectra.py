"""Eigenvalues at the ends of a spectrum, with true residuals, for one operator and along a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.lanczos import Tridiagonal, lanczos
from analysis.operators import SymmetricOperator, hessians
from analysis.results import AVERAGE, Array, Eigenpairs, EigenvalueHistory
from analysis.subspaces import run_of
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Trajectory

END_ORDER: dict[str, Callable[[Array], Array]] = {
    "largest": lambda values: np.argsort(-values, kind="stable"),
    "smallest": lambda values: np.argsort(values, kind="stable"),
    "both": lambda values: _from_both_ends(np.argsort(-values, kind="stable")),
    "magnitude": lambda values: np.argsort(-np.abs(values), kind="stable"),
}
"""Ends of the spectrum, each with the order in which its values are reported (`both`: largest, smallest, second
largest, ...); the sign counts except for `magnitude`.
"""

FRESH = 0.1
"""Share of a random direction in a warm start: without it, a Lanczos run that starts in a space which the operator maps
into itself would never learn of an eigenvalue outside it, however large.
"""


@dataclass(frozen=True)
class Accuracy:
    """When a Lanczos run stops: relative residual `tolerance` for every pair asked for, or `products` products."""

    tolerance: float = 1e-3
    products: int = 100

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.products < 1:
            raise LandscapeError(
                f"expected a tolerance above 0 and 1 or more products, got {self.tolerance} and {self.products}"
            )


def top_eigenpairs(
    operator: SymmetricOperator,
    count: int = 3,
    end: str = "largest",
    accuracy: Accuracy = Accuracy(),
    seed: int = 0,
    start: Tensor | None = None,
) -> Eigenpairs:
    """The `count` eigenpairs at one end of the spectrum, by Lanczos.

    Stops when the estimated residuals |beta_m s_mk| of all pairs are below tolerance times the largest |value|
    asked for (or the rounding of a product, where that is more); then computes the true ones, ||H v - value v||
    with ||v|| = 1, by a fresh product each, and calls a pair converged when its true residual meets the tolerance.
    |value - nearest eigenvalue| <= residual. `start` warms the run. Where products are not finite, nothing is: NaN,
    not converged. Of a multiple eigenvalue a Lanczos run shows one copy; the others are found where it exhausts the
    space that its start reaches, as it does on small or simple operators.

    Cost: the Lanczos products, at most `accuracy.products`, and `count` more.
    """
    if end not in END_ORDER:
        raise LandscapeError(f"unknown end {end!r}: expected one of {', '.join(END_ORDER)}")
    if not 1 <= count <= operator.size:
        raise LandscapeError(f"expected 1 to {operator.size} eigenpairs of an operator of that size, got {count}")
    rng = generator(seed, "lanczos")
    first = torch.from_numpy(rng.standard_normal(operator.size)).to(operator.device, operator.dtype)
    if start is not None:
        warm = start.to(operator.device, operator.dtype)
        first = warm / warm.norm() + FRESH * first / first.norm()
    found = _factorised(lanczos(operator, first, max(accuracy.products, count), rng), count, end, accuracy.tolerance)
    if not bool(torch.isfinite(found.alpha + found.beta).all()):
        return _undefined(operator.size, count, end, len(found.alpha))
    values, weights = _ritz(found, count, end)
    vectors = torch.from_numpy(weights.T.copy()).to(operator.device, operator.dtype) @ found.basis
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    pairs = zip(values, vectors, strict=True)
    residuals = np.array([float((operator @ v - float(value) * v).double().norm()) for value, v in pairs])
    return Eigenpairs(
        values=values,
        vectors=vectors.cpu().numpy(),
        residuals=residuals,
        converged=residuals <= _bound(found, values, accuracy.tolerance),
        end=end,
        products=len(found.alpha) + len(values),
    )


def _factorised(steps: Iterator[Tridiagonal], count: int, end: str, tolerance: float) -> Tridiagonal:
    """The first factorisation that is good enough, or the last.

    Where the space was exhausted, further copies of a value may lie outside it. It goes on with another start until
    that one's space is exhausted as well, and has changed nothing.
    """
    found: Tridiagonal | None = None
    exhausted: Array | None = None
    for found in steps:
        if not bool(torch.isfinite(found.alpha[-1] + found.beta[-1])):
            break
        if found.beta[-1] == 0:
            values, _ = _ritz(found, count, end)
            same = exhausted is not None and len(exhausted) == count
            if same and np.abs(values - exhausted).max() <= _bound(found, values, tolerance):
                break
            exhausted = values
        elif exhausted is None and _settled(found, count, end, tolerance):
            break
    assert found is not None
    return found


def _undefined(size: int, count: int, end: str, products: int) -> Eigenpairs:
    nothing = np.full(count, np.nan)
    return Eigenpairs(
        values=nothing,
        vectors=np.full((count, size), np.nan),
        residuals=nothing,
        converged=np.zeros(count, bool),
        end=end,
        products=products,
    )


def _from_both_ends(descending: Array) -> Array:
    return np.stack([descending, descending[::-1]], 1).ravel()[: len(descending)]


def _ritz(found: Tridiagonal, count: int, end: str) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(found.matrix().numpy())
    chosen = END_ORDER[end](values)[:count]
    return values[chosen], vectors[:, chosen]


def _settled(found: Tridiagonal, count: int, end: str, tolerance: float) -> bool:
    if len(found.alpha) < count:
        return False
    values, vectors = _ritz(found, count, end)
    estimates = found.beta[-1].item() * np.abs(vectors[-1])
    return bool((estimates <= 0.5 * _bound(found, values, tolerance)).all())


def _bound(found: Tridiagonal, values: Array, tolerance: float) -> float:
    """What a residual may be: `tolerance` of the largest |value| asked for, but no less than the rounding of a product,
    100 eps ||T||.
    """
    rounding = 100 * torch.finfo(found.basis.dtype).eps * float(found.alpha.abs().max() + 2 * found.beta.max())
    return max(tolerance * float(np.abs(values).max()), rounding)


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    count: int = 3,
    accuracy: Accuracy = Accuracy(),
    progress: Callable[[int], None] = lambda products: None,
) -> EigenvalueHistory:
    """Largest eigenvalues of every task's Hessian and of the average on the shared parameters, at some snapshots of a
    run.

    Each Lanczos run starts from the sum of the vectors found at the snapshot before and a little of a random one, which
    saves products where the leading directions turn slowly; residuals are from fresh products all the same. `progress`
    is told the products of every operator as it is done.

    Cost: (T + 1) runs of `top_eigenpairs` a snapshot.
    """
    names = (*problem.names, AVERAGE)
    problem.layout.require(trajectory.layout, str(trajectory.path))
    size = min(count, problem.layout.count())
    shape = (len(rows), len(names), size)
    values, residuals, converged = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    warm: dict[str, Tensor] = {}
    products = 0
    for place, row in enumerate(rows):
        operators = hessians(problem, trajectory.theta[row], trajectory.buffers[row])
        for number, name in enumerate(names):
            pairs = top_eigenpairs(operators[name], size, accuracy=accuracy, start=warm.get(name))
            values[place, number], residuals[place, number], converged[place, number] = (
                pairs.values,
                pairs.residuals,
                pairs.converged,
            )
            if np.isfinite(pairs.values).all():
                warm[name] = torch.from_numpy(pairs.vectors.sum(0))
            products += pairs.products
            progress(pairs.products)
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
