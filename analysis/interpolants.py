"""Losses between the measured points of a grid, and how wrong they may be there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from analysis.results import Array

LARGE_RANGE = 20.0
"""Positive losses whose largest is this many times their least are fitted in their logarithm."""
ROUNDING = 1e-5
"""A range below this share of the largest loss counts as this share of it: a hundredth is the rounding of float32."""
SAME = 1e-9
"""Distances that differ by a smaller share are the same."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Losses over all points of a grid from those at some of them, the tasks' and, last, their average's (V views)."""

    loss: Array
    """[V, N]; NaN where the nearest measured point, or one of several, has no finite loss."""
    measured: Array
    """[V, m] at the points used."""
    left_out: Array
    """[V, m] each point used as the others foretell it; NaN where it is not finite, or where they cannot."""
    distance: Array
    """[N] to the nearest point used, in half widths of the grid."""
    nearest: Array
    """[N] which of the points used that is."""
    spacing: Array
    """[m] from each point used to the next one."""
    logarithmic: Array
    """[T] which tasks are fitted in their logarithm."""

    def wrong_kind(self, places: Array, measured: Array) -> Array:
        """[V, k] where a loss is finite and its fit is missing, or the reverse."""
        return np.asarray(np.isnan(self.loss[:, places]) == np.isfinite(measured))


def axes_of(x: Sequence[float], y: Sequence[float]) -> Array:
    """All points of a grid, row by row [N, 2], with both axes from -1 to 1, so that neither counts more than the
    other.
    """
    scaled = [2 * (np.asarray(axis) - axis[0]) / (axis[-1] - axis[0]) - 1 for axis in (x, y)]
    return np.stack([part.ravel() for part in np.meshgrid(*scaled)], 1)


def with_average(losses: Array) -> Array:
    """Losses of the tasks [T, n] with their mean below, [T + 1, n]."""
    return np.concatenate([losses, losses.mean(0, keepdims=True)])


def fit(points: Array, used: Array, losses: Array) -> Fit:
    """Fits the losses [T, m] at the points numbered `used` of the points [N, 2], each task by itself.

    f(p) = sum_i w_i ||p - p_i||^3 + a + b'p through every point, of log(loss) where losses are positive and span a
    large range, else of the loss. Cost: m^3 operations and N m kernel values a task.
    """
    here, tree = points[used], scipy.spatial.KDTree(points[used])
    distance, nearest = tree.query(points)
    fitted = [_fitted(points, used, row, distance) for row in losses]
    loss, left_out, logarithmic = (np.stack(parts) for parts in zip(*fitted, strict=True))
    return Fit(
        with_average(loss),
        with_average(losses),
        with_average(left_out),
        distance,
        nearest,
        tree.query(here, k=2)[0][:, 1],
        logarithmic,
    )


def _fitted(points: Array, used: Array, losses: Array, distance: Array) -> tuple[Array, Array, Array]:
    """One task's fit [N], its values with each point left out [m], and whether they are of the logarithm."""
    kept, everywhere, left_out = np.isfinite(losses), np.full(len(points), np.nan), np.full(len(used), np.nan)
    if not kept.any():
        return everywhere, left_out, np.array(False)
    logarithmic = np.array(losses[kept].min() > 0 and losses[kept].max() >= LARGE_RANGE * losses[kept].min())
    values = np.log(losses[kept]) if logarithmic else losses[kept]
    inside = np.ones(len(points), bool)
    if not kept.all():
        inside = scipy.spatial.KDTree(points[used[~kept]]).query(points)[0] > distance * (1 + SAME)
    with np.errstate(over="ignore"):
        back = np.exp if logarithmic else np.asarray
        everywhere[inside] = back(_through(points[used[kept]], values, points[inside]))
        left_out[kept] = back(_left_out(points[used[kept]], values))
    everywhere[used[kept]] = losses[kept]
    return everywhere, left_out, logarithmic


def _through(points: Array, values: Array, there: Array) -> Array:
    """The interpolant of values [m] at some points, of the nearest value where the points span no plane."""
    if _spans_a_plane(points):
        return np.asarray(scipy.interpolate.RBFInterpolator(points, values, kernel="cubic", degree=1)(there))
    return np.asarray(values[scipy.spatial.KDTree(points).query(there)[1]])


def _left_out(points: Array, values: Array) -> Array:
    """The value at each point of the interpolant of all others, without making it (Rippa, Advances in Computational
    Mathematics 11, 1999): value_i - w_i / (A^-1)_ii, with A the interpolation matrix and w the weights of all points.

    NaN where the others span no plane.
    """
    if not _spans_a_plane(points):
        return np.full(len(values), np.nan)
    tail = _tail(points)
    system = np.block([[scipy.spatial.distance.cdist(points, points) ** 3, tail], [tail.T, np.zeros((3, 3))]])
    inverse = np.linalg.inv(system)[: len(values), : len(values)]
    own = np.diag(inverse)
    needed = np.abs(own) <= 1e-10 * np.abs(own).max(initial=0.0)
    return np.where(needed, np.nan, values - inverse @ values / np.where(needed, 1.0, own))


def _tail(points: Array) -> Array:
    return np.column_stack([np.ones(len(points)), points])


def _spans_a_plane(points: Array) -> bool:
    return bool(np.linalg.matrix_rank(_tail(points)) == 3)


@dataclass(frozen=True, eq=False)
class Ranges:
    """What an error is set against: the range of every view's loss and, where it is large, of its logarithm; [V]."""

    loss: Array
    logarithm: Array
    """Infinite where the logarithm does not count."""

    @classmethod
    def of(cls, losses: Array) -> Ranges:
        """Of measured losses [V, m], those that are finite."""
        plain, logarithm = np.full(len(losses), np.nan), np.full(len(losses), np.inf)
        for view, row in enumerate(losses):
            kept = row[np.isfinite(row)]
            if kept.size:
                plain[view] = max(np.ptp(kept), ROUNDING * np.abs(kept).max(), np.finfo(float).tiny)
                if kept.min() > 0 and kept.max() >= LARGE_RANGE * kept.min():
                    logarithm[view] = np.log(kept.max() / kept.min())
        return cls(plain, logarithm)

    def shares(self, one: Array, other: Array) -> Array:
        """|one - other| [V, n] as a share of the range, of the loss or of its logarithm, whichever is larger; infinite
        where it is not defined.
        """
        with np.errstate(all="ignore"):
            plain = np.abs(one - other) / self.loss[:, None]
            logarithm = np.abs(np.log(one) - np.log(other)) / self.logarithm[:, None]
        counts = np.isfinite(self.logarithm)[:, None]
        largest = np.maximum(plain, np.where(counts, logarithm, 0.0))
        return np.asarray(np.where(np.isnan(largest), np.inf, largest))
