"""Mean-squared displacement against lag, and the exponent with which it grows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results import Array

LAGS = 24
"""At most so many lags, evenly spread over the logarithm."""
SHARE = 0.25
"""The fit goes up to this share of the time covered: longer lags are averaged over few, overlapping pairs."""
FEWEST = 3
"""Lags that a fit needs; it goes up to the third lag where a share of the time holds fewer."""
BLOCKS = 10
"""Blocks of neighbouring snapshots that the jackknife leaves out in turn."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A straight line through log msd over log lag, and the lags that it was fitted to."""

    exponent: float
    error: float
    intercept: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Lags:
    """Which pairs of snapshots belong to which lag. Made by `lags`."""

    steps: Array
    values: Array
    """[L] ascending"""
    place: Array
    """[S, S] the lag's number for i < j, and L where a pair is not used."""

    @property
    def pairs(self) -> Array:
        """[L]"""
        return self._sums(np.ones_like(self.place, np.float64))

    def curve(self, squares: Array) -> Array:
        """Mean-squared displacement [L]."""
        return np.asarray(self._sums(squares) / self.pairs)

    def curves(self, squares: Array) -> Array:
        """Of the path up to each snapshot [S, L]; NaN where it has no pair of that lag."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._up_to(squares) / self._up_to(np.ones_like(squares)))

    def exponents(self, squares: Array) -> Array:
        """Slope of log msd over log lag of the path up to each snapshot [S]; NaN with fewer than three lags."""
        return self._fitted(self.curves(squares), self.steps - self.steps[0])[0]

    def fit(self, squares: Array) -> Fit:
        """The fit to the whole path, its standard error from a delete-one-block jackknife.

        The snapshots are cut into at most ten blocks; each is left out with every pair that ends in it; error^2 =
        (B - 1) / B sum (alpha_b - mean alpha)^2. NaN with fewer than four snapshots or three lags.
        """
        spans = np.array([self.steps[-1] - self.steps[0]])
        slope, intercept, used = self._fitted(self.curve(squares)[None], spans)
        if not np.isfinite(slope[0]):
            nothing = float("nan")
            return Fit(nothing, nothing, nothing, nothing, nothing)
        inside = self.values[used[0]]
        error = self._jackknife(squares, used)
        return Fit(float(slope[0]), error, float(intercept[0]), float(inside[0]), float(inside[-1]))

    def _jackknife(self, squares: Array, used: Array) -> float:
        count, lags = len(squares), len(self.values)
        blocks = min(BLOCKS, count // 2)
        block = np.arange(count) * blocks // count
        key = ((block[:, None] * blocks + block[None, :]) * (lags + 1) + self.place).ravel()

        def without(weights: Array) -> Array:
            size = blocks * blocks * (lags + 1)
            sums = np.bincount(key, weights.ravel(), size).reshape(blocks, blocks, lags + 1)[..., :lags]
            own = sums[np.arange(blocks), np.arange(blocks)]
            return np.asarray(sums.sum((0, 1)) - sums.sum(0) - sums.sum(1) + own)

        with np.errstate(invalid="ignore", divide="ignore"):
            curves = without(squares) / np.round(without(np.ones_like(squares)))
        slopes = _slopes(self.values, curves, np.broadcast_to(used, curves.shape))[0]
        slopes = slopes[np.isfinite(slopes)]
        if len(slopes) < 3:
            return float("nan")
        return float(np.sqrt((len(slopes) - 1) * np.var(slopes)))

    def _fitted(self, curves: Array, spans: Array) -> tuple[Array, Array, Array]:
        """Slopes and intercepts of curves [S, L] over the lags up to a share of each span [S], and which those are."""
        with np.errstate(invalid="ignore"):
            there = np.isfinite(curves) & (curves > 0)
        few = np.cumsum(there, axis=1) <= FEWEST
        used = there & (few | (self.values[None] <= SHARE * spans[:, None]))
        return (*_slopes(self.values, curves, used), used)

    def _sums(self, weights: Array) -> Array:
        count = len(self.values)
        return np.bincount(self.place.ravel(), weights.ravel(), count + 1)[:count]

    def _up_to(self, weights: Array) -> Array:
        size, count = len(self.steps), len(self.values)
        key = (np.arange(size)[None, :] * (count + 1) + self.place).ravel()
        sums = np.bincount(key, weights.ravel(), size * (count + 1)).reshape(size, count + 1)
        return np.asarray(np.cumsum(sums[:, :count], axis=0))


def lags(steps: Array) -> Lags:
    """The lags between snapshots at these steps [S].

    Where the snapshots are nearly evenly spaced, lags are exact differences of steps, thinned to at most `LAGS` evenly
    over the logarithm. Otherwise all pairs fall into `LAGS` bins of equal width in the logarithm, each with the root
    mean square of its lags, for which a straight line has the exponent 2 exactly.
    """
    steps = np.asarray(steps, np.float64)
    upper = np.triu_indices(len(steps), 1)
    apart = steps[upper[1]] - steps[upper[0]]
    distinct = np.unique(apart)
    place = np.full((len(steps), len(steps)), 0)
    if len(distinct) <= 2 * len(steps):
        values = distinct[_thinned(distinct)] if len(distinct) else distinct
        at = np.minimum(np.searchsorted(values, apart), max(len(values) - 1, 0))
        number = np.where(values[at] == apart, at, len(values)) if len(values) else at
    else:
        edges = np.geomspace(distinct[0], distinct[-1] * (1 + 1e-12), LAGS + 1)
        bins = np.clip(np.searchsorted(edges, apart, "right") - 1, 0, LAGS - 1)
        there, number = np.unique(bins, return_inverse=True)
        values = np.sqrt(np.bincount(number, apart**2, len(there)) / np.bincount(number))
    place[:] = len(values)
    place[upper] = number
    return Lags(steps, values, place)


def _thinned(distinct: Array) -> Array:
    """Which of the lags to keep: about evenly over the logarithm, with the first."""
    wanted = np.geomspace(distinct[0], distinct[-1], LAGS)
    return np.unique(np.abs(np.log(distinct)[None, :] - np.log(wanted)[:, None]).argmin(axis=1))


def _slopes(values: Array, curves: Array, used: Array) -> tuple[Array, Array]:
    """Least squares of log curves [S, L] over log lags where `used`; NaN with fewer than three."""
    weights = used.astype(np.float64)
    number = weights.sum(1)
    enough = number >= FEWEST
    x = np.log(values)[None, :] if len(values) else np.zeros((1, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.where(used, np.log(np.where(used, curves, 1.0)), 0.0)
        middle, height = (weights * x).sum(1) / number, (weights * y).sum(1) / number
        away = weights * (x - middle[:, None])
        slope = np.where(enough, (away * (y - height[:, None])).sum(1) / (away**2).sum(1), np.nan)
        return slope, height - slope * middle
