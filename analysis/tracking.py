"""Eigenvalues along a trajectory, each followed by its eigenvector through crossings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from analysis import subsets
from analysis.curvature import weights_of
from analysis.curves_kept import Kept
from analysis.eigenpairs import CheckSum, ResidualCheck, top_eigenpairs
from analysis.eigensearch import Accuracy
from analysis.kinds import Hessian, Kind
from analysis.matching import Matching
from analysis.neighbourhood import Neighbourhood
from analysis.operators import SymmetricOperator, hessians
from analysis.product_choice import AUTO, Auto
from analysis.products import Way
from analysis.resampling import intervals
from analysis.results import AVERAGE, Array, Eigenpairs, EigenvalueIntervals, EigenvalueTracks, TracksUnderway
from analysis.scaling import ScaledOperator
from analysis.spectra import averaged_start
from analysis.stability import line_of
from analysis.subsets import Everything, Shared, Subset, layers
from analysis.subspaces import run_of
from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem
from landscape.trajectory import Layout, Trajectory

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Spectrum:
    """Which eigenpairs are computed at every snapshot, of which matrices, on which parameters and how well.

    `tasks` are names of tasks and `average`, all by default. `check` measures the residuals; `resamples` of the
    examples give sampling intervals, 0 none.
    """

    count: int = 3
    end: str = "largest"
    on: Subset = Shared()
    accuracy: Accuracy = Accuracy()
    seed: int = 0
    tasks: tuple[str, ...] = ()
    kind: Kind = Hessian()
    product: Way | Auto = AUTO
    check: ResidualCheck = CheckSum()
    resamples: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples and not isinstance(self.kind, Hessian):
            raise LandscapeError(
                f"expected Hessians for sampling intervals, got {self.kind.label}: leave the intervals out"
            )

    def size(self, layout: Layout) -> int:
        """How many pairs there are: no more than parameters."""
        return min(self.count, subsets.size(self.on, layout))

    def names(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The operators in order: tasks, then the average."""
        known = (*tasks, AVERAGE)
        for name in self.tasks:
            if name not in known:
                raise unknown("task", name, known)
        return tuple(name for name in known if not self.tasks or name in self.tasks)


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
    chosen: Spectrum = Spectrum(),
    tell: Tell = lambda products: None,
    preconditioned: Preconditioned | None = None,
    before: Mapping[str, Tensor] | None = None,
) -> Iterator[Here]:
    """The eigenpairs of every task's matrix and of the average's at some snapshots, one snapshot after the other.

    Each Lanczos run starts from the vectors found at the snapshot before (at the first one from those in `before`) and
    a little of a random one, which saves products where the leading directions turn slowly; that of the average from
    what the tasks' own pairs at the same snapshot say of it. Residuals are measured by fresh products all the same, as
    `chosen.check` has it: by default one for all pairs of an operator. A loss that is not finite at a snapshot has
    pairs of NaN there. `tell` is told the products of every operator as it is done.

    Cost: a run of `top_eigenpairs` for each operator, and a forward pass, a snapshot. Memory: the vectors of all
    operators, and those of one run.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    size, names = chosen.size(problem.layout), chosen.names(problem.names)
    warm = dict(before or {})
    for row in rows:
        there = trajectory.theta[row], trajectory.buffers[row]
        every = hessians(problem, *there, chosen.on, chosen.kind, chosen.product)
        operators: dict[str, SymmetricOperator] = {name: every[name] for name in names}
        if preconditioned is not None:
            roots = dict(zip(every, torch.from_numpy(np.sqrt(preconditioned.diagonals(row))), strict=True))
            operators = {name: ScaledOperator(operator, roots[name]) for name, operator in operators.items()}
        losses = dict(zip(every, Neighbourhood(problem, *there, chosen.on).losses(), strict=True))
        pairs: dict[str, Eigenpairs] = {}
        for name, operator in operators.items():
            if not np.isfinite(losses[name]):
                pairs[name] = _unknown(size, operator.size, chosen.end)
                continue
            start = warm.get(name)
            if name == AVERAGE and len(names) > len(problem.names) and chosen.end == "largest":
                start = averaged_start(list(pairs.values()), size)
            found = top_eigenpairs(operator, size, chosen.end, chosen.accuracy, chosen.seed, start, check=chosen.check)
            if np.isfinite(found.values).all():
                warm[name] = torch.from_numpy(found.vectors.astype(np.float64))
            pairs[name] = found
            tell(found.products)
        yield Here(row, operators, pairs)


def most_products(trajectory: Trajectory, rows: Sequence[int], chosen: Spectrum) -> int:
    """The products that `along` takes at most, for an estimate beforehand."""
    each = chosen.accuracy.products + chosen.check.products(chosen.size(trajectory.layout))
    return len(rows) * len(chosen.names(trajectory.tasks)) * each


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Spectrum = Spectrum(),
    how: Matching = Matching(),
    tell: Tell = lambda products: None,
    preconditioned: Preconditioned | None = None,
) -> EigenvalueTracks:
    """The curves of `following` at the last one of the rows, at least one."""
    *_, last = following(problem, trajectory, rows, chosen, how, tell, preconditioned)
    return last.tracks


def following(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Spectrum = Spectrum(),
    how: Matching = Matching(),
    tell: Tell = lambda products: None,
    preconditioned: Preconditioned | None = None,
    before: TracksUnderway | None = None,
) -> Iterator[TracksUnderway]:
    """Eigenvalues of every task's matrix and of the average's along a run, followed by the overlap of their vectors.

    Yields the curves after every snapshot; given what was yielded `before`, it goes on behind it to the same bytes. See
    `analysis.matching` for when a curve goes on and when it ends. At a snapshot where a loss is not finite all its
    curves end. The step-size line is that of `analysis.stability`; with Adam there is one for the `preconditioned`
    Hessian only.

    Cost: that of `pairs_along`, and with sampling intervals that of `resampling.intervals` for every operator; T + 1
    products of [k, n] and [n, k] beside it, and 3 k (T + 1) vectors in float64.
    """
    names, size = chosen.names(problem.names), chosen.size(problem.layout)
    kept = Kept(len(rows), len(names), size)
    done = 0 if before is None else len(before.tracks.steps)
    if before is not None:
        kept.take_up(before)
    products = 0 if before is None else before.tracks.products
    line = line_of(trajectory, preconditioned is not None)
    whole = isinstance(chosen.on, Shared | Everything) and isinstance(chosen.kind, Hessian)
    at = [(*problem.names, AVERAGE).index(name) for name in names]
    warm = None if before is None else kept.warm_starts(names)
    for place, here in enumerate(
        pairs_along(problem, trajectory, rows[done:], chosen, tell, preconditioned, warm), start=done
    ):
        for number, name in enumerate(names):
            sampled = _intervals(problem, trajectory, here, name, chosen, preconditioned)
            kept.put(place, number, here.pairs[name], how, sampled)
            products += here.pairs[name].products
        tracks = EigenvalueTracks(
            run=run_of(trajectory),
            tasks=names,
            steps=trajectory.steps[list(rows[: place + 1])],
            **kept.until(place + 1),
            line=line.values[at] if whole else np.full(len(names), np.nan),
            line_words=line.words if whole else "No step-size line: it concerns all parameters that a step moves.",
            threshold=how.overlap,
            closeness=how.closeness,
            subset=chosen.on.label,
            preconditioner="" if preconditioned is None else preconditioned.words,
            end=chosen.end,
            matrix=chosen.kind.label,
            level=chosen.level if chosen.resamples else float("nan"),
            products=products,
            examples=len(problem.evaluation),
            data=problem.data_hash,
        )
        yield kept.underway(tracks)


def _intervals(
    problem: Problem,
    trajectory: Trajectory,
    here: Here,
    name: str,
    chosen: Spectrum,
    preconditioned: Preconditioned | None,
) -> EigenvalueIntervals | None:
    """Sampling intervals of one operator's values, where they are asked for and known."""
    pairs = here.pairs[name]
    if not chosen.resamples or preconditioned is not None or not np.isfinite(pairs.values).all():
        return None
    return intervals(
        problem,
        trajectory.theta[here.row],
        trajectory.buffers[here.row],
        weights_of(problem, name),
        pairs,
        chosen.on,
        resamples=chosen.resamples,
        seed=chosen.seed,
        level=chosen.level,
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
