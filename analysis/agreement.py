"""How the sharpest directions and the gradients of the tasks agree along a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from scipy.linalg import subspace_angles

from analysis import subsets
from analysis.gradients import Gradients, gradients_at, pieces_of
from analysis.neighbourhood import Neighbourhood
from analysis.operators import SymmetricOperator
from analysis.product_choice import AUTO, Auto
from analysis.products import Way
from analysis.results import AVERAGE, Array, Check, Eigenpairs, TaskAgreement
from analysis.spectra import Accuracy
from analysis.subsets import Shared, Subset
from analysis.subspaces import run_of
from analysis.tracking import Spectrum, Tell, pairs_along
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Trajectory


@dataclass(frozen=True)
class Compared:
    """What is compared: the `count` sharpest directions of every operator, and gradients over mini-batches of `batch`
    examples; `draws` pairs of random spaces say what chance would give.
    """

    count: int = 3
    batch: int = 64
    on: Subset = Shared()
    accuracy: Accuracy = Accuracy()
    draws: int = 1000
    seed: int = 0
    product: Way | Auto = AUTO

    def __post_init__(self) -> None:
        if min(self.count, self.batch, self.draws) < 1:
            raise LandscapeError(
                f"expected 1 or more directions, examples in a mini-batch and draws, got {self.count}, {self.batch} "
                f"and {self.draws}"
            )


def most_products(trajectory: Trajectory, rows: Sequence[int], chosen: Compared = Compared()) -> int:
    """The products that `along` takes at most, for an estimate beforehand."""
    tasks, spectrum = len(trajectory.tasks), Spectrum(chosen.count + 1, on=chosen.on)
    size = spectrum.size(trajectory.layout)
    return len(rows) * (tasks + 1) * (chosen.accuracy.products + size + tasks * min(chosen.count, size))


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Compared = Compared(),
    tell: Tell = lambda products: None,
) -> TaskAgreement:
    """Every number of `TaskAgreement` at some snapshots of a run.

    One more eigenpair than the space has is computed, for the gap below it: without one the space is arbitrary, and so
    are its angles. `tell` is told the products as they are done.

    Cost a snapshot: T + 1 runs of `top_eigenpairs`, T (T + 1) k products for the cross-curvature (that of the average
    is the mean of the tasks'), and T gradients over the pieces of the examples, of which all are held in the model's
    precision at once: at most `gradients.MOST` T n numbers.
    """
    spectrum = Spectrum(chosen.count + 1, "largest", chosen.on, chosen.accuracy, chosen.seed, product=chosen.product)
    size = subsets.size(chosen.on, problem.layout)
    count = min(chosen.count, size)
    pieces = pieces_of(problem, chosen.batch, chosen.seed)
    names = (*problem.names, AVERAGE)
    spaces: list[_Spaces] = []
    gradients: list[Gradients] = []
    for here in pairs_along(problem, trajectory, rows, spectrum, tell):
        spaces.append(spaces_at(here.operators, here.pairs, count))
        tell(spaces[-1].extra)
        near = Neighbourhood(problem, trajectory.theta[here.row], trajectory.buffers[here.row], chosen.on)
        gradients.append(gradients_at(near, pieces))
    null, low, high = random_angles(size, count, chosen.draws, chosen.seed)

    def table(of: Sequence[object], name: str) -> Array:
        return np.stack([np.asarray(getattr(one, name)) for one in of])

    return TaskAgreement(
        run=run_of(trajectory),
        tasks=names,
        steps=trajectory.steps[list(rows)],
        **{name: table(spaces, name) for name in _MEASURED},
        pairs=tuple(f"{a} and {b}" for a, b in combinations(names, 2)),
        null=null,
        null_low=low,
        null_high=high,
        **{name: table(gradients, name) for name in Gradients.__dataclass_fields__},
        couples=tuple(f"{a} and {b}" for a, b in combinations(problem.names, 2)),
        pieces=len(pieces),
        piece=max(map(len, pieces)),
        size=size,
        subset=chosen.on.label,
        products=sum(one.products for one in spaces),
        gradients=len(rows) * len(problem.names),
        examples=len(problem.evaluation),
        data=problem.data_hash,
        seed=chosen.seed,
    )


_MEASURED = ("values", "residuals", "converged", "gap", "space_error", "angles", "cross")


@dataclass(frozen=True, eq=False)
class _Spaces:
    """What eigenpairs say of one snapshot."""

    values: Array
    residuals: Array
    converged: Array
    gap: Array
    space_error: Array
    angles: Array
    cross: Array
    products: int
    extra: int


def spaces_at(operators: Mapping[str, SymmetricOperator], pairs: Mapping[str, Eigenpairs], count: int) -> _Spaces:
    """Angles and cross-curvature of the `count` sharpest directions of every operator, tasks first and the average
    last; the pairs hold one more where there is one.

    Cost: T (T + 1) `count` products.
    """
    kept = {
        name: replace(
            found,
            values=found.values[:count],
            vectors=found.vectors[:count],
            residuals=found.residuals[:count],
            converged=found.converged[:count],
        )
        for name, found in pairs.items()
    }
    gaps = np.array(
        [f.values[count - 1] - f.values[count] if len(f.values) > count else np.inf for f in pairs.values()]
    )
    lengths = np.array([np.linalg.norm(found.residuals) for found in kept.values()])
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.degrees(np.arcsin(np.minimum(lengths / gaps, 1.0)))
    tasks = [name for name in operators if name != AVERAGE]
    known_losses = [task for task in tasks if np.isfinite(kept[task].values).all()]
    cross = np.stack([_cross(found, {t: operators[t] for t in known_losses}, tasks) for found in kept.values()])
    extra = len(known_losses) * sum(count for found in kept.values() if np.isfinite(found.vectors).all())
    return _Spaces(
        values=np.stack([found.values for found in kept.values()]),
        residuals=np.stack([found.residuals for found in kept.values()]),
        converged=np.stack([found.converged for found in kept.values()]),
        gap=gaps,
        space_error=np.where(gaps > 0, known, np.where(np.isnan(gaps), np.nan, 90.0)),
        angles=np.stack([angles_between(a.vectors, b.vectors) for a, b in combinations(kept.values(), 2)]),
        cross=cross,
        products=sum(found.products for found in pairs.values()) + extra,
        extra=extra,
    )


def _cross(pairs: Eigenpairs, operators: Mapping[str, SymmetricOperator], tasks: Sequence[str]) -> Array:
    """u' H_j u for the unit vectors u of one operator, [T + 1, k], the average last; NaN for tasks without one."""
    vectors = torch.tensor(pairs.vectors)
    if not bool(torch.isfinite(vectors).all()):
        return np.full((len(tasks) + 1, len(vectors)), np.nan)
    rows = []
    for task in tasks:
        if task not in operators:
            rows.append(torch.full((len(vectors),), torch.nan, dtype=torch.float64))
            continue
        given = vectors.T.to(operators[task].device, operators[task].dtype)
        turned = (operators[task] @ given).double()
        rows.append(((given.double() * turned).sum(0) / (given.double() ** 2).sum(0)).cpu())
    found = np.asarray(torch.stack(rows))
    return np.concatenate([found, found.mean(0, keepdims=True)])


def angles_between(first: Array, second: Array) -> Array:
    """Principal angles between the spaces of the rows [k, n] of two matrices, in degrees, ascending; NaN where a row is
    not finite.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return np.full(len(first), np.nan)
    angles = subspace_angles(first.T.astype(np.float64), second.T.astype(np.float64))
    return np.asarray(np.degrees(angles)[::-1])


def random_angles(size: int, count: int, draws: int = 1000, seed: int = 0) -> tuple[Array, Array, Array]:
    """Mean, 2.5 and 97.5 % of the principal angles between two random `count`-dimensional spaces of R^size, [count]
    each, in degrees and ascending.

    The squared cosines are the eigenvalues of a matrix-variate beta variable, (A + B)^-1/2 A (A + B)^-1/2 with Wishart
    matrices A of k and B of n - k degrees of freedom, so that no vector of n entries is drawn.
    """
    rng = generator(seed, "random spaces")
    cosines = np.empty((draws, count))
    for draw in range(draws):
        inside, outside = _wishart(rng, count, count), _wishart(rng, size - count, count)
        root = np.linalg.inv(np.linalg.cholesky(inside + outside))
        cosines[draw] = np.linalg.eigvalsh(root @ inside @ root.T)[::-1]
    angles = np.degrees(np.arccos(np.sqrt(np.clip(cosines, 0, 1))))
    low, high = np.quantile(angles, [0.025, 0.975], axis=0)
    return angles.mean(0), low, high


def _wishart(rng: np.random.Generator, freedom: int, size: int) -> Array:
    """A draw of Z'Z, Z [freedom, size] normal; by Bartlett's decomposition where it is not singular."""
    if freedom < size:
        drawn = rng.standard_normal((freedom, size))
        return np.asarray(drawn.T @ drawn)
    lower = np.tril(rng.standard_normal((size, size)), -1)
    lower[np.diag_indices(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size)))
    return np.asarray(lower @ lower.T)


def shares_check(found: TaskAgreement) -> Check:
    """The tasks' shares of the average's eigenvalues must sum to them: the largest difference at converged values,
    relative to the largest value or share at that snapshot; 0 where all of them are 0.
    """
    differences = np.abs(found.shares.sum(1) - found.values[:, -1])
    sizes = np.maximum(np.abs(found.values[:, -1]).max(1), np.abs(found.shares).max((1, 2)))
    gaps = np.divide(differences, sizes[:, None], out=differences.copy(), where=sizes[:, None] != 0)
    kept = gaps[found.converged[:, -1].astype(bool)]
    limit = 1e-4
    return Check(
        f"{found.run.name}: shares of the tasks sum to the average's eigenvalues",
        float(kept.max(initial=0.0)),
        limit,
        "float32 products; the residual enters by its square",
    )
