"""Eigenvalues along a trajectory, each followed by its eigenvector through crossings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from analysis.matching import Followed, Matching, begin, follow
from analysis.neighbourhood import Neighbourhood
from analysis.operators import SymmetricOperator, hessians
from analysis.results import AVERAGE, Array, Eigenpairs, EigenvalueTracks
from analysis.scaling import ScaledOperator
from analysis.spectra import Accuracy, top_eigenpairs
from analysis.stability import step_line
from analysis.subsets import Everything, Shared, Subset, layers
from analysis.subspaces import run_of
from landscape.problem import Problem
from landscape.trajectory import Layout, Trajectory

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Spectrum:
    """Which eigenpairs are computed at every snapshot, on which parameters and how well."""

    count: int = 3
    end: str = "largest"
    on: Subset = Shared()
    accuracy: Accuracy = Accuracy()
    seed: int = 0

    def size(self, layout: Layout) -> int:
        """How many pairs there are: no more than parameters."""
        entries: int = sum(span.stop - span.start for span in self.on.spans(layout))
        return min(self.count, entries)


@dataclass(frozen=True, eq=False)
class Preconditioned:
    """Steps theta <- theta - rate P g see the curvature P^(1/2) H P^(1/2): `diagonals` gives P at a row of the
    trajectory for every task and then the average, [T + 1, n] on the parameters of the spectrum.
    """

    diagonals: Callable[[int], Array]
    words: str
    """What P is, for captions."""


@dataclass(frozen=True, eq=False)
class Here:
    """The operators and their eigenpairs at one snapshot, by operator name."""

    row: int
    operators: Mapping[str, SymmetricOperator]
    pairs: Mapping[str, Eigenpairs]


def pairs_along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Spectrum,
    tell: Tell = lambda products: None,
    preconditioned: Preconditioned | None = None,
) -> Iterator[Here]:
    """The eigenpairs of every task's Hessian and of the average at some snapshots, one snapshot after the other.

    Each Lanczos run starts from the vectors found at the snapshot before, whose sum it takes, and a little of a random
    one; residuals are from fresh products all the same. A loss that is not finite at a snapshot has pairs of NaN there.
    `tell` is told the products of every operator as it is done.

    Cost: (T + 1) runs of `top_eigenpairs` and a forward pass a snapshot.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    size = chosen.size(problem.layout)
    warm: dict[str, torch.Tensor] = {}
    for row in rows:
        operators: Mapping[str, SymmetricOperator] = hessians(
            problem, trajectory.theta[row], trajectory.buffers[row], chosen.on
        )
        if preconditioned is not None:
            roots = torch.from_numpy(np.sqrt(preconditioned.diagonals(row)))
            operators = {n: ScaledOperator(op, root) for (n, op), root in zip(operators.items(), roots, strict=True)}
        losses = Neighbourhood(problem, trajectory.theta[row], trajectory.buffers[row], chosen.on).losses()
        pairs: dict[str, Eigenpairs] = {}
        for (name, operator), loss in zip(operators.items(), losses, strict=True):
            if not np.isfinite(loss):
                pairs[name] = _unknown(size, operator.size, chosen.end)
                continue
            found = top_eigenpairs(operator, size, chosen.end, chosen.accuracy, chosen.seed, warm.get(name))
            if np.isfinite(found.values).all():
                warm[name] = torch.from_numpy(found.vectors.sum(0))
            pairs[name] = found
            tell(found.products)
        yield Here(row, operators, pairs)


def most_products(trajectory: Trajectory, rows: Sequence[int], chosen: Spectrum) -> int:
    """The products that `along` takes at most, for an estimate beforehand."""
    return len(rows) * (len(trajectory.tasks) + 1) * (chosen.accuracy.products + chosen.size(trajectory.layout))


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Spectrum = Spectrum(),
    how: Matching = Matching(),
    tell: Tell = lambda products: None,
    preconditioned: Preconditioned | None = None,
) -> EigenvalueTracks:
    """Eigenvalues of every task's Hessian and of the average along a run, followed by the overlap of their vectors.

    See `analysis.matching` for when a curve goes on and when it ends. At a snapshot where a loss is not finite all its
    curves end. The step-size line is that of `analysis.stability`; with Adam there is one for the
    `preconditioned` Hessian only.

    Cost: that of `pairs_along`; T + 1 products of [k, n] and [n, k] beside it, and k (T + 1) vectors in float64.
    """
    names, size = (*problem.names, AVERAGE), chosen.size(problem.layout)
    kept = _Kept(len(rows), len(names), size)
    products = 0
    for place, here in enumerate(pairs_along(problem, trajectory, rows, chosen, tell, preconditioned)):
        for number, name in enumerate(names):
            kept.put(place, number, here.pairs[name], how)
            products += here.pairs[name].products
    line = step_line(trajectory.provenance, preconditioned is not None)
    whole = isinstance(chosen.on, Shared | Everything)
    return EigenvalueTracks(
        run=run_of(trajectory),
        tasks=names,
        steps=trajectory.steps[list(rows)],
        **kept.arrays,
        line=line.values if whole else np.full(len(names), np.nan),
        line_words=line.words if whole else "No step-size line: it concerns all parameters that a step moves.",
        threshold=how.overlap,
        closeness=how.closeness,
        subset=chosen.on.label,
        preconditioner="" if preconditioned is None else preconditioned.words,
        end=chosen.end,
        products=products,
        examples=len(problem.evaluation),
        data=problem.data_hash,
    )


def by_layer(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Spectrum = Spectrum(),
    how: Matching = Matching(),
    tell: Tell = lambda products: None,
) -> dict[str, EigenvalueTracks]:
    """As `along` for the parameters of every module by itself, by the module's name: those that `chosen.on` has.

    A layer's Hessian is a block on the diagonal of the whole one, whose largest eigenvalue it cannot exceed.
    Cost: that of `along` for each of the modules.
    """
    return {
        module: along(problem, trajectory, rows, replace(chosen, on=subset), how, tell)
        for module, subset in layers(problem.layout, chosen.on).items()
    }


def _unknown(count: int, size: int, end: str) -> Eigenpairs:
    nothing = np.full(count, np.nan)
    vectors = np.full((count, size), np.nan)
    return Eigenpairs(
        values=nothing, vectors=vectors, residuals=nothing, converged=np.zeros(count, bool), end=end, products=0
    )


class _Kept:
    """The arrays of a record in the making, and the curves at the snapshot before."""

    def __init__(self, snapshots: int, operators: int, pairs: int) -> None:
        shape = (snapshots, operators, pairs)
        self.arrays: dict[str, Array] = {
            "values": np.full(shape, np.nan),
            "residuals": np.full(shape, np.nan),
            "converged": np.zeros(shape, bool),
            "track": np.full(shape, -1),
            "match": np.full(shape, np.nan),
            "grouped": np.zeros(shape, bool),
            "overlaps": np.full((*shape, pairs), np.nan),
        }
        self._curves: list[Followed | None] = [None] * operators
        self._vectors: list[Array | None] = [None] * operators
        self._begun = [0] * operators

    def put(self, place: int, number: int, pairs: Eigenpairs, how: Matching) -> None:
        at = (place, number)
        for key in ("values", "residuals", "converged"):
            self.arrays[key][at] = getattr(pairs, key)
        if not np.isfinite(pairs.values).all():
            self._curves[number] = self._vectors[number] = None
            return
        before, earlier = self._curves[number], self._vectors[number]
        vectors = pairs.vectors.astype(np.float64)
        if before is None or earlier is None:
            curves = begin(pairs.values, vectors, pairs.residuals, how, self._begun[number])
        else:
            curves = follow(before, pairs.values, vectors, pairs.residuals, how)
            self.arrays["overlaps"][at] = vectors @ earlier.T
        for key in ("track", "match", "grouped"):
            self.arrays[key][at] = getattr(curves, key)
        self._curves[number], self._vectors[number], self._begun[number] = curves, vectors, curves.begun
