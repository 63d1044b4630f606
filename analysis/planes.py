"""Planes in parameter space, and the shadows that trajectories throw on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analysis.gram import centred_gram, column_blocks, require_finite
from analysis.heads import CentreHeads, PlaneHeads
from analysis.results import Array, Plane, Shadow, handed_over
from analysis.subsets import Everything, Subset
from analysis.subspaces import Beside, Frame, Place, beside, build, require_layout, require_one_layout, run_of
from landscape.errors import LandscapeError
from landscape.trajectory import Trajectory


class Centre(Protocol):
    """Where a principal plane has its origin, and about which variance is counted."""

    @property
    def words(self) -> str: ...

    def weights(self, trajectories: Sequence[Trajectory], weights: Array) -> Array:
        """The centre as a mixture of all snapshots, [S] summing to one; `weights` are those of the runs' mean."""
        ...


@dataclass(frozen=True)
class AtMean:
    """The mean of all snapshots, runs weighted equally."""

    words = "their mean"

    def weights(self, trajectories: Sequence[Trajectory], weights: Array) -> Array:
        return weights


@dataclass(frozen=True, eq=False)
class AtPlace:
    """A snapshot of one of the trajectories."""

    place: Place

    @property
    def words(self) -> str:
        return self.place.words

    def weights(self, trajectories: Sequence[Trajectory], weights: Array) -> Array:
        starts = np.cumsum([0, *(len(t) for t in trajectories)])
        for start, trajectory in zip(starts, trajectories, strict=False):
            if trajectory.path == self.place.run.path:
                chosen = np.zeros_like(weights)
                chosen[start + range(len(trajectory))[self.place.row]] = 1.0
                return chosen
        raise LandscapeError(
            f"the centre, {self.place.words}, is not a snapshot of the plane's trajectories: expected one of them"
        )


def principal(
    trajectories: Sequence[Trajectory],
    subset: Subset = Everything(),
    heads: PlaneHeads = CentreHeads(),
    centre: Centre = AtMean(),
) -> Plane:
    """The plane of largest variance of several trajectories together, each run weighted equally however many snapshots.

    With weights w_i = 1 / (R S_r) for the snapshots of run r of R, centre c = sum_i w_i theta_i (or one snapshot) and
    K_ij = sqrt(w_i w_j) (theta_i - c)' (theta_j - c) (float64, over the subset), axis k is sum_i u_ik sqrt(w_i)
    (theta_i - c) / sqrt(lambda_k) for the two largest eigenpairs (lambda_k, u_k) of K. The axes are orthonormal on the
    subset, so coordinates are distances in parameter space; lambda_k / trace K is the share of variance (about the
    centre) explained. Buffers are mixed as the centre is.

    A large share says little by itself: the first axis of a plain random walk explains 61 % (Antognini and
    Sohl-Dickstein, arXiv 1806.08805); `analysis.faithfulness` sets the two side by side.

    Cost: two passes over the files; memory of S x S and S x 2^18 doubles.

    Raises:
        LandscapeError: trajectories of different layouts, or whose snapshots do not span two dimensions.
    """
    require_one_layout(trajectories)
    layout = trajectories[0].layout
    spans = subset.spans(layout)
    weights = run_weights(trajectories)
    middle = centre.weights(trajectories, weights)
    gram, about = centred_gram([t.part(spans) for t in trajectories], middle)
    require_finite(gram)
    values, mixing = principal_mixing(gram, weights)
    if len(values) < 2 or not values[1] > _variance_of_rounding(trajectories, values, about):
        raise LandscapeError(
            f"the {len(weights)} snapshots lie on one line to rounding: expected at least three that span a plane; "
            "record more of them"
        )
    directions, origin = np.zeros((2, layout.size)), np.zeros(layout.size)
    for columns, block in column_blocks([t.theta for t in trajectories]):
        origin[columns] = middle @ block
        directions[:, columns] = mixing @ (block - origin[columns])
    buffers = middle @ np.concatenate([t.buffers[:] for t in trajectories])
    words = f"principal plane of {len(trajectories)} runs ({len(weights)} snapshots), runs weighted equally"
    return build(
        Plane,
        Frame(handed_over(origin), np.asarray(buffers), layout, subset, heads),
        handed_over(directions),
        f"{words}, centred on {centre.words}",
        explained=values[:2] / values.sum(),
        axes=("first principal axis", "second principal axis"),
    )


def run_weights(trajectories: Sequence[Trajectory]) -> Array:
    """A weight for each snapshot, [S] summing to one: equal for all runs, and for the snapshots of each."""
    return np.concatenate([np.full(len(t), 1 / (len(trajectories) * len(t))) for t in trajectories])


def principal_mixing(gram: Array, weights: Array) -> tuple[Array, Array]:
    """Variances [S], descending, and the mixtures [2, S] of the centred snapshots that are the two leading unit axes.

    `gram` [S, S] is of the centred snapshots. An axis has the sign that makes its largest weight positive.
    """
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(gram * np.outer(root, root))
    values, vectors = values[::-1], vectors[:, ::-1]
    leading = vectors[:, :2] * np.sign(vectors[np.abs(vectors[:, :2]).argmax(0), np.arange(len(vectors[0, :2]))])
    with np.errstate(divide="ignore", invalid="ignore"):
        return values, (leading * root[:, None] / np.sqrt(values[:2])).T


def _variance_of_rounding(trajectories: Sequence[Trajectory], values: Array, centre: Array) -> float:
    """What rounding alone can give an axis: half a unit in the last place of every stored entry, sum_i w_i
    ||theta_i||^2 (eps / 2)^2 = (||c||^2 + trace K) (eps / 2)^2; and the rounding of the eigenvalues themselves.
    """
    half = max(float(np.finfo(t.theta.dtype).eps) for t in trajectories) / 2
    return float(max(half**2 * (centre @ centre + values.sum()), 1e-14 * values[0]))


def shadow(trajectory: Trajectory, plane: Plane) -> Shadow:
    """A trajectory's least-squares coordinates in a plane, and how far off the plane each snapshot lies.

    [x, y] = gram^-1 basis_S (theta - origin)_S; off_plane = ||theta - origin - x basis[0] - y basis[1]|| over the
    plane's subset S, from the residual itself, in float64. Cost: one pass over the file, in blocks of bounded memory.

    Raises:
        LandscapeError: a plane of another model, or one whose two directions lie on one line.
    """
    require_layout(plane, trajectory.layout)
    parts = [beside(plane, block) for block in trajectory.theta.blocks()]
    seen = Beside(*(np.concatenate(columns) for columns in zip(*(vars(p).values() for p in parts), strict=True)))
    return Shadow(
        run=run_of(trajectory),
        steps=trajectory.steps,
        coordinates=seen.coordinates,
        off_plane=seen.off,
        from_origin=seen.away,
        elsewhere=seen.elsewhere,
        losses=trajectory.losses,
        tasks=trajectory.tasks,
    )


def through(
    first: Place, second: Place, third: Place, subset: Subset = Everything(), heads: PlaneHeads = CentreHeads()
) -> Plane:
    """The plane through three snapshots in true distances, for instance a common start and the ends of two strategies.

    The origin is the first, x runs towards the second, y at a right angle to it towards the third; both axes have unit
    length on the subset. Cost: three rows read.

    Raises:
        LandscapeError: snapshots of different models, or three on one line (with the cosine).
    """
    places = (first, second, third)
    require_one_layout([place.run for place in places])
    frame = Frame.at(first, subset, heads)
    directions = np.stack([place.theta - frame.origin for place in places[1:]])
    recipe = f"plane through {', '.join(place.words for place in places)}"
    oblique = build(Plane, frame, directions, recipe, explained=np.full(2, np.nan), axes=("x", "y"))
    lengths = np.linalg.cholesky(oblique.gram)  # directions = lengths @ axes
    axes = np.linalg.solve(lengths, directions)
    names = (f"towards {second.words}", f"at a right angle to it, towards {third.words}")
    return build(Plane, frame, axes, recipe, explained=np.full(2, np.nan), axes=names)


def spanned(frame: Frame, directions: Array, recipe: str, axes: tuple[str, str], seed: int = -1) -> Plane:
    """The plane of two given directions [2, P]; they need not be orthonormal, the Gram matrix is stored.

    Raises:
        LandscapeError: directions of another length than theta, not finite, zero, or on one line (with the cosine).
    """
    directions = np.asarray(directions, np.float64)
    if directions.shape != (2, frame.layout.size):
        raise LandscapeError(
            f"expected two directions of theta with {frame.layout.describe()}, got an array of shape "
            f"{list(directions.shape)}; were they made for another model?"
        )
    return build(Plane, frame, directions, recipe, explained=np.full(2, np.nan), axes=axes, seed=seed)
