"""Measures of a path from the squared distances between its points, each as a function of the point reached.

Every measure here is a function of D_ij = ||x_i - x_j||^2 alone, so that rotations and permutations of the space change
nothing, and whatever gives squared distances (theta, directions of layers, a projection, a random walk) is measured by
the same code.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from analysis.results import Array

PREFIXES = 256
"""The volume is computed for at most so many points of a path: each costs an eigenvalue problem."""
SMALL = 64
"""Up to so many points all eigenvalues take less time than looking for the largest."""
FLAT = 1e-12
"""A variance below this share of the largest is rounding: there the path has no extent."""


def from_increments(gram: Array) -> Array:
    """Squared distances [S, S] from the inner products of the S - 1 increments.

    D_ij = sum of H_kl over i <= k, l < j, summed outwards from the diagonal: neighbours keep every digit however far
    from the start they are. Cost: S^2 operations.
    """
    count = len(gram)
    beside = np.cumsum(np.triu(gram, 1)[::-1], axis=0)[::-1]
    own = np.triu(np.broadcast_to(np.diag(gram), (count, count)))
    upper = np.zeros((count + 1, count + 1))
    upper[:-1, 1:] = np.maximum(np.triu(np.cumsum(2 * beside + own, axis=1)), 0.0)
    squares: Array = upper + upper.T
    return squares


def of_points(points: Array) -> Array:
    """Squared distances of points [S, d]."""
    moved = np.diff(points, axis=0)
    return from_increments(moved @ moved.T)


def lengths(squares: Array) -> Array:
    """Lengths of the increments [S - 1]."""
    return np.asarray(np.sqrt(np.diag(squares, 1)))


def path(squares: Array) -> Array:
    """Length of the polygon up to each point [S]."""
    return np.concatenate([[0.0], np.cumsum(lengths(squares))])


def angles(squares: Array) -> Array:
    """Turning angles between neighbouring increments in degrees [S - 2]; NaN where one has no length.

    cos = (||x_{i+2} - x_i||^2 - a^2 - b^2) / (2 a b), a and b the lengths of the two increments.
    """
    own = np.diag(squares, 1)
    across = np.diag(squares, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (across - own[:-1] - own[1:]) / (2 * np.sqrt(own[:-1] * own[1:]))
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


def mean_angle(squares: Array) -> Array:
    """Mean turning angle up to each point [S], in degrees; NaN before the third."""
    found = angles(squares)
    known = np.isfinite(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.cumsum(np.where(known, found, 0.0)) / np.cumsum(known)
    return np.concatenate([np.full(min(2, len(squares)), np.nan), means])


def radius(squares: Array) -> Array:
    """Radius of gyration of the points up to each [S]: sqrt(sum over i, j of D_ij / (2 n^2))."""
    return np.asarray(np.sqrt(_totals(squares) / 2) / _counts(squares))


def dimension(squares: Array) -> Array:
    """Participation ratio of the covariance of the points up to each [S]: tr(C)^2 / tr(C^2), from 1 to n - 1.

    tr(C) n = sum D / (2 n); tr(C^2) n^2 = (sum D^2 - 2 sum_i r_i^2 / n + (sum D / n)^2) / 4, r_i the sum of row i: the
    Frobenius norm of the doubly centred D. NaN where all points are one. Cost: S^2 operations.
    """
    counts, totals = _counts(squares), _totals(squares)
    inside = np.triu(np.cumsum(squares, axis=1))
    trace = totals / (2 * counts)
    frobenius = (_totals(squares**2) - 2 * (inside**2).sum(0) / counts + (totals / counts) ** 2) / 4
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(trace > 0, trace**2 / frobenius, np.nan)


def volume(squares: Array, directions: int, points: Array) -> Array:
    """Log-determinant of the covariance in its leading directions, of the path up to some points [S]; NaN elsewhere.

    sum of ln lambda_i over the `directions` largest eigenvalues of the centred Gram matrix / n, minus infinity where
    the path has no extent along one of them, NaN before point `directions` + 1. Cost: an eigenvalue problem a point.
    """
    found = np.full(len(squares), np.nan)
    for last in points:
        if last >= directions:
            found[last] = _log_volume(squares[: last + 1, : last + 1], directions)
    return found


def leading_points(count: int, most: int = PREFIXES) -> Array:
    """At most so many of the points 0 ... count - 1, evenly spread, with the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def centred(squares: Array) -> Array:
    """Inner products about the mean: -J D J / 2 with J = 1 - 11'/n."""
    rows = squares.mean(axis=1)
    return np.asarray(-(squares - rows[:, None] - rows[None, :] + rows.mean()) / 2)


def _log_volume(squares: Array, directions: int) -> float:
    count = len(squares)
    gram = centred(squares) / count
    if count <= SMALL:
        values = np.linalg.eigvalsh(gram)[-directions:]
    else:
        values = scipy.linalg.eigvalsh(gram, subset_by_index=(count - directions, count - 1), check_finite=False)
    if not values[-1] > 0 or values[0] <= FLAT * values[-1]:
        return -np.inf if np.isfinite(values).all() else np.nan
    return float(np.log(values).sum())


def _counts(squares: Array) -> Array:
    return np.arange(1, len(squares) + 1)


def _totals(squares: Array) -> Array:
    """Sums over all pairs of the points up to each."""
    return np.asarray(np.cumsum(2 * np.triu(squares, 1).sum(0)))
