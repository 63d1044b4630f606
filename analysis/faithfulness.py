"""How far a plane can be trusted about the trajectories that are drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from analysis import walks
from analysis.gram import centred_gram, column_blocks, require_finite
from analysis.planes import AtMean, Centre, run_weights
from analysis.points import Conditions, Meter
from analysis.results import Array, Faithfulness, Feet, Plane, PlaneStability, Shadow
from analysis.subsets import Everything, Subset
from analysis.subspaces import inverse_gram, require_layout, require_one_layout, restricted, run_of, spans_of
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Trajectory

TOGETHER = "all runs"
MEAN = AtMean()
QUARTERS = ("1, 5, 9, ...", "2, 6, 10, ...", "3, 7, 11, ...", "4, 8, 12, ...")


def feet(
    problem: Problem, plane: Plane, shadow: Shadow, trajectory: Trajectory, conditions: Conditions = Conditions()
) -> Feet:
    """The true loss of every task at a run's snapshots beside the loss at their feet, the plane's points below them.

    True: theta, heads and buffers as they are stored. Foot: the plane's point at the shadow's coordinates, with the
    plane's heads and buffers, or with what the conditions make of them, as a surface is measured. Both on the same
    examples with the same engine; the gap is true - foot, its standard error the standard deviation over examples
    (N - 1) of the differences example by example, divided by sqrt N; NaN for one example. So a gap is the effect of
    what the plane leaves out: the distance off it, parameters outside its subset, and buffers of its own.

    Cost: two forward passes of the examples a snapshot, and what the conditions cost; memory of all examples' losses
    at twice as many points as the engine evaluates together.

    Raises:
        LandscapeError: a plane or a trajectory of another model, or a shadow of another run.
    """
    require_layout(plane, trajectory.layout)
    problem.layout.require(trajectory.layout, str(trajectory.path))
    if shadow.run != run_of(trajectory) or not np.array_equal(shadow.steps, trajectory.steps):
        raise LandscapeError(
            f"the shadow is of {shadow.run.name} with {len(shadow.steps)} snapshots: expected that of "
            f"{trajectory.name} with {len(trajectory)}; project the trajectory again"
        )
    meter = Meter(problem, plane, conditions)
    parts = []
    for first in range(0, len(trajectory), meter.together):
        rows = slice(first, first + meter.together)
        true = meter.each_at(trajectory.theta[rows], trajectory.buffers[rows])
        parts.append(_compared(true, meter.each_below(shadow.coordinates[rows])))
    found, tasks = np.concatenate(parts), len(problem.tasks)
    true_mean, foot_mean, error = np.split(found, [tasks, 2 * tasks], axis=1)
    words = conditions.words(problem)
    return Feet(
        run=shadow.run,
        tasks=problem.names,
        steps=shadow.steps,
        true=true_mean,
        foot=foot_mean,
        gap_stderr=error[:, :tasks],
        average_gap_stderr=error[:, tasks],
        off_plane=shadow.off_plane,
        subset=plane.subset,
        examples=int(words["examples"]),
        split=str(words["split"]),
        batch_norm=str(words["batch_norm"]),
        heads=str(words["heads"]),
    )


def _compared(true: Tensor, foot: Tensor) -> Array:
    """Mean losses of both and the standard errors of their differences, the last one of the average, [K, 3 T + 1]."""
    return torch.stack([_one_compared(*pair) for pair in zip(true, foot, strict=True)]).cpu().numpy()


def _one_compared(true: Tensor, foot: Tensor) -> Tensor:
    """From the losses of every example, [T, N] each."""
    true, foot, count = true.double(), foot.double(), true.shape[1]
    gap = true - foot
    gap = torch.cat([gap, gap.mean(0, keepdim=True)])
    square = (gap - gap.mean(1, keepdim=True)).square().sum(1)
    return torch.cat([true.mean(1), foot.mean(1), (square / (count - 1) / count).sqrt()])


def faithfulness(trajectories: Sequence[Trajectory], plane: Plane, draws: int = 20, seed: int = 0) -> Faithfulness:
    """How much of some runs a plane shows, beside what the best plane would show of random walks with the same steps.

    Over the plane's subset of the parameters, about its origin c and along orthonormal axes a_k (where the basis is
    oblique, the second made orthogonal to the first): variance = sum_i w_i (a_k' (theta_i - c))^2 / sum_i w_i
    ||theta_i - c||^2, with runs weighted equally; distance = sum_i ||A (theta_i - theta_(i-1))|| / sum_i ||theta_i -
    theta_(i-1)|| over the steps between stored snapshots.

    The walks have the runs' starts, numbers of snapshots and step lengths, with directions uniform in the subset's
    dimension; each draw gets its own principal plane, runs weighted equally. It is centred as the plane is: on the
    mean of all snapshots or on the same snapshot where the plane's origin is that of these runs, and otherwise on the
    origin itself. A single long walk with equal steps in high dimension shows 6 / (pi k)^2 of its variance along
    axis k: 61 %, 15 %, 7 % (Antognini and Sohl-Dickstein, arXiv 1806.08805). A plane that was not fitted to the runs,
    a random one for instance, can show less than that.

    Cost: one pass over the files; a draw, about S^3 operations and S x S doubles.

    Raises:
        LandscapeError: a plane of another model, fewer than two draws, or no run with two snapshots.
    """
    require_one_layout(trajectories)
    require_layout(plane, trajectories[0].layout)
    if draws < 2:
        raise LandscapeError(f"expected 2 or more draws of random walks for their spread, got {draws}")
    if all(len(t) < 2 for t in trajectories):
        raise LandscapeError(
            f"expected a run with two or more snapshots to measure distances travelled, got one snapshot of each of "
            f"{', '.join(t.name for t in trajectories)}; record more of them"
        )
    weights = run_weights(trajectories)
    tracks = _tracks(trajectories, plane, weights)
    mine = walks.shares(tracks.coordinates, tracks.squares, tracks.paces.lengths)
    theirs = _walked(tracks, weights, draws, seed)
    return Faithfulness(
        runs=(*(t.name for t in trajectories), TOGETHER),
        axes=_axis_names(plane),
        variance=mine.variance,
        walk_variance=np.mean([one.variance for one in theirs], axis=0),
        walk_variance_spread=np.std([one.variance for one in theirs], axis=0, ddof=1),
        distance=mine.distance,
        walk_distance=np.mean([one.distance for one in theirs], axis=0),
        walk_distance_spread=np.std([one.distance for one in theirs], axis=0, ddof=1),
        dimension=tracks.paces.dimension,
        draws=draws,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Runs seen from a plane's origin, in its subset."""

    coordinates: Array
    """[S, 2] along orthonormal axes"""
    squares: Array
    """[S] squared distances from the origin"""
    mean_square: float
    """Of the mean of all snapshots."""
    paces: walks.Paces


def _tracks(trajectories: Sequence[Trajectory], plane: Plane, weights: Array) -> _Tracks:
    spans = spans_of(plane)
    origin, basis = restricted(plane.origin, spans), restricted(plane.basis, spans)
    counts = [len(t) for t in trajectories]
    cuts, first = np.cumsum(counts)[:-1], np.cumsum([0, *counts[:-1]])
    along, squares, mean_square = np.zeros((sum(counts), 2)), np.zeros(sum(counts)), 0.0
    starts, steps = np.zeros((len(counts), len(counts))), np.zeros(sum(counts) - 1)
    for columns, block in column_blocks([t.part(spans) for t in trajectories]):
        moved = block - origin[columns]
        along += moved @ basis[:, columns].T
        squares += np.einsum("ij,ij->i", moved, moved)
        mean_square += float(np.square(weights @ moved).sum())
        starts += moved[first] @ moved[first].T
        change = np.diff(moved, axis=0)
        steps += np.einsum("ij,ij->i", change, change)
    within = np.split(np.append(np.sqrt(steps), np.nan), cuts)
    turn = inverse_gram(plane.gram) @ np.linalg.cholesky(plane.gram)  # basis = cholesky(gram) @ orthonormal axes
    paces = walks.Paces(starts, tuple(own[:-1] for own in within), origin.size)
    return _Tracks(along @ turn, squares, mean_square, paces)


def _walked(tracks: _Tracks, weights: Array, draws: int, seed: int) -> list[walks.Shares]:
    """What the walks' own planes show, draw by draw; NaN where a run is not finite."""
    if not np.isfinite(tracks.squares).all():
        blank = np.full((len(tracks.paces.lengths) + 1, 3), np.nan)
        return [walks.Shares(blank[:, :2], blank[:, 2])] * draws
    mixture = _origin_of(tracks, weights)
    return [walks.shown(tracks.paces, weights, mixture, generator(seed, "random walks", k)) for k in range(draws)]


def _origin_of(tracks: _Tracks, weights: Array) -> Array:
    """The plane's origin as a mixture of the snapshots [S], their mean or one of them; zeros where it is neither."""
    rounding = 1e-12 * tracks.squares.max()
    if tracks.mean_square <= rounding:
        return weights
    nearest = tracks.squares.argmin()
    return np.asarray((np.arange(len(weights)) == nearest) & (tracks.squares[nearest] <= rounding), np.float64)


def _axis_names(plane: Plane) -> tuple[str, ...]:
    gram = plane.gram
    if abs(gram[0, 1]) <= 1e-9 * np.sqrt(gram[0, 0] * gram[1, 1]):
        return plane.axes
    return plane.axes[0], f"{plane.axes[1]}, made orthogonal to the first"


def stability(
    trajectories: Sequence[Trajectory], subset: Subset = Everything(), centre: Centre = MEAN
) -> PlaneStability:
    """How the principal plane of runs turns when runs or snapshots are left out: its principal angles to that of all.

    Left out: each run, where there are several; every fourth snapshot of all runs, from the first, second, third and
    fourth; the first and the last quarter of all runs. Each time the plane is that of `analysis.planes.principal` of
    what is left (runs weighted equally; a snapshot that is the centre stays the centre). All planes lie in the span of
    the snapshots, so one Gram matrix holds all that their angles depend on; NaN where what is left spans no plane.

    The angles of two planes with orthonormal axes A and B are the arccosines of the singular values of A B'. Large
    ones say that the picture depends on which snapshots happened to be there; a large second angle alone often says
    that the second and the third axis explain nearly the same.

    Cost: one pass over the files; memory of S x S and S x 2^18 doubles.

    Raises:
        LandscapeError: trajectories of different layouts, not finite, or whose snapshots do not span two dimensions.
    """
    require_one_layout(trajectories)
    spans = subset.spans(trajectories[0].layout)
    gram, mean = centred_gram([t.part(spans) for t in trajectories], run_weights(trajectories))
    require_finite(gram)
    points = _embedded(gram)
    half = max(float(np.finfo(t.theta.dtype).eps) for t in trajectories) / 2

    def axes(weights: Array) -> Array | None:
        """The plane's unit axes [d, 2]; None where rounding alone could make the second."""
        if points.shape[1] < 2:
            return None
        left = points - centre.weights(trajectories, weights) @ points
        values, found = walks.leading(left, weights)
        stored = half**2 * (mean @ mean + weights @ np.square(left).sum(1))
        return found if values[1] > max(stored, 1e-14 * values[0]) else None

    whole = axes(run_weights(trajectories))
    if whole is None:
        raise LandscapeError(
            f"the {len(gram)} snapshots lie on one line to rounding: expected at least three that span a plane; "
            "record more of them"
        )
    cases = _cases(trajectories)
    return PlaneStability(
        left_out=tuple(name for name, _ in cases),
        angles=np.stack([_angles(whole, axes(_weights(masks))) for _, masks in cases]),
    )


def _embedded(gram: Array) -> Array:
    """Points [S, d] with these inner products, in as few dimensions as they need to rounding."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-14 * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _angles(first: Array, second: Array | None) -> Array:
    """In degrees, the smaller one first."""
    if second is None:
        return np.full(2, np.nan)
    return np.asarray(np.degrees(scipy.linalg.subspace_angles(first, second))[::-1])


def _cases(trajectories: Sequence[Trajectory]) -> list[tuple[str, list[Array]]]:
    """What is left out, and a mask for each run of the snapshots that are left."""
    rows = [np.arange(len(t)) for t in trajectories]
    runs = [(t.name, [np.full(len(own), k != r) for r, own in enumerate(rows)]) for k, t in enumerate(trajectories)]
    return [
        *(runs if len(runs) > 1 else []),
        *((f"snapshots {words}", [own % 4 != k for own in rows]) for k, words in enumerate(QUARTERS)),
        ("first quarter", [own >= len(own) / 4 for own in rows]),
        ("last quarter", [own[::-1] >= len(own) / 4 for own in rows]),
    ]


def _weights(masks: Sequence[Array]) -> Array:
    """Equal for all runs of which something is left, and for the snapshots of each."""
    runs = sum(bool(mask.any()) for mask in masks)
    return np.concatenate([mask / max(1, mask.sum()) for mask in masks]) / max(1, runs)
