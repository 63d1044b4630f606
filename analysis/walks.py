"""Random walks that take over the starts and the step lengths of runs: what a plane shows where there is no direction.

A walk needs no vector of the model's size. N directions and R starts span at most N + R dimensions, and Gaussian
directions seen in an orthonormal frame of their span are Gaussian again: the inner products of those in the rest of
the space are a Wishart matrix, whose Cholesky factor is drawn entry by entry (Bartlett, 1933).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from analysis.results import Array

SMALL = 100
"""Up to so many dimensions a dense eigensolver is faster."""


@dataclass(frozen=True, eq=False)
class Paces:
    """What random walks take over from R runs."""

    starts: Array
    """[R, R] inner products of the runs' starts, about a fixed point."""
    lengths: tuple[Array, ...]
    """The step lengths of each run, [S_r - 1]."""
    dimension: int
    """Of the space that they walk in."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What two orthonormal axes show of runs; rows are the runs, the last one all of them together."""

    variance: Array
    """[R + 1, 2]"""
    distance: Array
    """[R + 1]"""


def shares(coordinates: Array, squares: Array, lengths: Sequence[Array]) -> Shares:
    """Shares of the variance along each axis and of the distance travelled.

    From all snapshots' coordinates [S, 2], their squared distances from the origin [S] and each run's step lengths;
    NaN where there is nothing to share. Together, runs weigh equally in the variance, and by length in the distance.
    """
    cuts = np.cumsum([len(steps) + 1 for steps in lengths])[:-1]
    tracks = np.split(coordinates, cuts)
    seen = np.stack([(track**2).mean(0) for track in tracks])
    whole = np.array([part.mean() for part in np.split(squares, cuts)])
    shown = np.array([np.linalg.norm(np.diff(track, axis=0), axis=1).sum() for track in tracks])
    walked = np.array([steps.sum() for steps in lengths])
    with np.errstate(invalid="ignore", divide="ignore"):
        return Shares(
            np.vstack([seen, seen.mean(0)]) / np.append(whole, whole.mean())[:, None],
            np.append(shown, shown.sum()) / np.append(walked, walked.sum()),
        )


def walk(paces: Paces, rng: np.random.Generator) -> Array:
    """Snapshots [S, d] of one random walk a run, in an orthonormal frame of their span, about the starts' fixed point.

    theta_(r, i) = start_r + sum_{k <= i} l_k u_k, with u_k uniform on the unit sphere. In high dimension the u_k are
    orthogonal to each other and to the starts, so that the inner products of the walks are those of the starts plus,
    within a run, sum_{k <= min(i, j)} l_k^2. Memory: S x (S + R).
    """
    starts = _factor(paces.starts, paces.dimension)
    lengths = np.concatenate(paces.lengths)
    steps = lengths[:, None] * _directions(len(lengths), starts.shape[1], paces.dimension, rng)
    cuts = np.cumsum([len(own) for own in paces.lengths])[:-1]
    starts = np.pad(starts, ((0, 0), (0, steps.shape[1] - starts.shape[1])))
    return np.concatenate(
        [np.cumsum(np.vstack([start, own]), axis=0) for start, own in zip(starts, np.split(steps, cuts), strict=True)]
    )


def leading(points: Array, weights: Array) -> tuple[Array, Array]:
    """The two largest variances [2] of points [S, d] about zero, with weights [S], and the unit axes along them [d, 2].

    The largest comes first. By Lanczos' method above `SMALL` dimensions, where what it does not find is found densely.
    Cost: S d^2 operations.
    """
    scatter = (points * weights[:, None]).T @ points
    size = len(scatter)
    if size > SMALL:
        try:
            values, axes = scipy.sparse.linalg.eigsh(scatter, 2, which="LA", v0=np.ones(size))
        except scipy.sparse.linalg.ArpackError:
            return _dense(scatter)
        order = np.argsort(values)[::-1]
        return values[order], axes[:, order]
    return _dense(scatter)


def _dense(scatter: Array) -> tuple[Array, Array]:
    size = len(scatter)
    values, axes = scipy.linalg.eigh(scatter, subset_by_index=(size - 2, size - 1))
    return values[::-1], axes[:, ::-1]


def shown(paces: Paces, weights: Array, mixture: Array, rng: np.random.Generator) -> Shares:
    """What the best plane shows of one draw of random walks: the two leading axes with weights [S] for the snapshots.

    The plane goes through the mixture [S] of the walks' snapshots, or through the starts' fixed point where that is
    zero.
    """
    points = walk(paces, rng)
    points = points - mixture @ points
    _, axes = leading(points, weights)
    return shares(points @ axes, (points**2).sum(1), paces.lengths)


def _factor(gram: Array, dimension: int) -> Array:
    """Vectors [R, min(R, dimension)] with these inner products."""
    values, vectors = np.linalg.eigh(gram)
    kept = min(len(gram), dimension)
    return np.asarray(vectors[:, -kept:] * np.sqrt(np.maximum(values[-kept:], 0.0)))


def _directions(count: int, axes: int, dimension: int, rng: np.random.Generator) -> Array:
    """Independent uniform unit vectors in a space of this dimension, in an orthonormal frame of which the first `axes`
    are given: [count, min(dimension, axes + count)].
    """
    rest = dimension - axes
    if rest <= count:
        drawn = rng.standard_normal((count, dimension))
    else:
        beyond = np.tril(rng.standard_normal((count, count)), -1)
        beyond[np.diag_indices(count)] = np.sqrt(rng.chisquare(rest - np.arange(count)))
        drawn = np.hstack([rng.standard_normal((count, axes)), beyond])
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
