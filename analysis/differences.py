"""What a sample of differences shows: intervals, effect sizes, and the smallest difference it could have shown.

Every function takes many samples at once, one a row, none with values that are not finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from analysis.results import ERROR_RATE, Array

POWER = 0.8
"""The chance with which a difference should be found that is called detectable."""
HALVINGS = 80
"""Of the range in which a noncentral t distribution's parameter is sought: to the last digits."""
EDGE, TAIL = 5.0, 1e-6
"""A parameter below -EDGE or above t sqrt(chi^2(1 - TAIL) / m) + EDGE leaves next to nothing on one side of t >= 0."""
VAST = 1e3
"""Beyond this t the normal part of a noncentral t value is next to nothing beside the parameter."""
RESAMPLED_AT_ONCE = 1 << 22
"""Numbers that the bootstrap draws at once, which bounds its memory."""


@dataclass(frozen=True, eq=False)
class Shift:
    """Differences of means with their standard errors and degrees of freedom, all [row]."""

    mean: Array
    stderr: Array
    freedom: Array

    @property
    def t(self) -> Array:
        """mean / standard error; infinite where there is no spread, 0 where there is no difference either."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.mean == 0, 0.0, self.mean / self.stderr)

    @property
    def p_value(self) -> Array:
        """Two-sided p of the t test; NaN without degrees of freedom."""
        return np.asarray(2 * scipy.stats.t.sf(np.abs(self.t), _positive(self.freedom)))

    def interval(self, confidence: float = 1 - ERROR_RATE) -> tuple[Array, Array]:
        """mean -+ t((1 + confidence) / 2; freedom) stderr."""
        half = scipy.stats.t.ppf((1 + confidence) / 2, _positive(self.freedom)) * self.stderr
        return self.mean - half, self.mean + half


def paired(differences: Array) -> Shift:
    """The mean of paired differences [row, n]: stderr = s / sqrt(n), n - 1 degrees of freedom; NaN for n = 1."""
    count = differences.shape[1]
    spread = _variances(differences)
    return Shift(differences.mean(1), np.sqrt(spread / count), np.full(len(differences), count - 1.0))


def welch(ones: Array, others: Array) -> Shift:
    """The difference of the means of two independent samples [row, n] and [row, m] of unequal variances (Welch, 1947).

    stderr^2 = s^2 / n + s'^2 / m, with Satterthwaite's degrees of freedom.
    """
    parts = [_variances(side) / side.shape[1] for side in (ones, others)]
    total = parts[0] + parts[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = total**2 / sum(
            part**2 / (side.shape[1] - 1) for part, side in zip(parts, (ones, others), strict=True)
        )
    fewest = min(ones.shape[1], others.shape[1]) - 1.0
    freedom = np.where(total > 0, freedom, fewest)
    return Shift(ones.mean(1) - others.mean(1), np.sqrt(total), freedom)


@dataclass(frozen=True, eq=False)
class Effect:
    """Standardised differences with their 95 % intervals, all [row]."""

    size: Array
    low: Array
    high: Array


def paired_effect(differences: Array) -> Effect:
    """Hedges' g of paired differences [row, n]: (mean / s) J(n - 1), J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)).

    J removes the bias of a standardised difference (Hedges, 1981). The interval holds every delta for which the
    observed t is not in the tails of the noncentral t distribution with parameter sqrt(n) delta: exact for normal
    differences.
    Infinite without an interval where the differences are all the same. Two differences have no effect size and no
    interval, NaN: J(1) = 0, nothing removes the bias there.
    """
    count = differences.shape[1]
    shift = paired(differences)
    return _effect(shift.t, shift.freedom, 1 / np.sqrt(count))


def unpaired_effect(ones: Array, others: Array) -> Effect:
    """As `paired_effect`, of two independent samples [row, n] and [row, m], by their pooled standard deviation."""
    n, m = ones.shape[1], others.shape[1]
    freedom = n + m - 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.sqrt(((n - 1) * _variances(ones) + (m - 1) * _variances(others)) / freedom)
        shift = Shift(ones.mean(1) - others.mean(1), pooled * np.sqrt(1 / n + 1 / m), np.full(len(ones), freedom))
    return _effect(shift.t, shift.freedom, np.sqrt(1 / n + 1 / m))


def _effect(t: Array, freedom: Array, scale: float) -> Effect:
    low, high = (noncentrality(t, freedom, share) * scale for share in (1 - ERROR_RATE / 2, ERROR_RATE / 2))
    with np.errstate(invalid="ignore"):
        size = np.where(freedom > 1, t * scale * hedges(freedom), np.nan)
    return Effect(size, *(np.where(freedom > 1, end, np.nan) for end in (low, high)))


def hedges(freedom: Array) -> Array:
    """J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m - 1)/2)), which makes a standardised difference unbiased; J(1) = 0."""
    half = np.asarray(freedom, np.float64) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            half > 0.5, np.exp(scipy.special.gammaln(half) - scipy.special.gammaln(half - 0.5)) / np.sqrt(half), 0.0
        )


def noncentrality(t: Array, freedom: Array, share: float) -> Array:
    """The parameter of the noncentral t distribution that puts this share of it below t [row]; NaN for infinite t.

    P(T < t) = P(Z + lambda < t sqrt(V / m)) with Z normal and V of chi-square with m degrees of freedom. For t beyond
    `VAST`, where the distribution's function is not to be had for every lambda, Z is left out: an error of 1e-6 in the
    share.
    """
    known = np.isfinite(t) & (freedom > 0)
    there, of, turned = np.where(known, np.abs(t), 0.0), np.where(known, freedom, 1.0), t < 0
    wanted = np.where(turned, 1 - share, share)
    vast = there * np.sqrt(scipy.stats.chi2.isf(wanted, of) / of)
    beyond, there = there > VAST, np.minimum(there, VAST)
    most = there * np.sqrt(scipy.stats.chi2.isf(TAIL, of) / of) + EDGE
    found = _root(
        lambda parameter: scipy.stats.nct.cdf(there, of, parameter) - wanted, np.full(len(there), -EDGE), most
    )
    found = np.where(beyond, vast, found)
    return np.asarray(np.where(known, np.where(turned, -found, found), np.nan))


def detectable(shift: Shift, power: float = POWER) -> Array:
    """The smallest true difference that the t test finds with this power at the 5 % level, at this spread [row].

    lambda stderr, where the noncentral t distribution with parameter lambda lies beyond the critical value with the
    chance `power`. Uncorrected: one test alone.
    """
    known = np.isfinite(shift.freedom) & (shift.freedom > 0)
    distinct, back = np.unique(np.where(known, shift.freedom, 1.0), return_inverse=True)
    critical = scipy.stats.t.ppf(1 - ERROR_RATE / 2, distinct)
    zero = np.zeros(len(distinct))

    def missing(parameter: Array) -> Array:
        return np.asarray(
            power
            - scipy.stats.nct.sf(critical, distinct, parameter)
            - scipy.stats.nct.cdf(-critical, distinct, parameter)
        )

    needed = _root(missing, zero, critical * np.sqrt(scipy.stats.chi2.isf(TAIL, distinct) / distinct) + EDGE)
    return np.where(known, needed[back] * shift.stderr, np.nan)


def superiority(differences: Array) -> Array:
    """Share of pairs with a positive difference, ties counted half [row]."""
    return np.asarray((differences > 0).mean(1) + (differences == 0).mean(1) / 2)


def superiority_of_all(ones: Array, others: Array) -> Array:
    """Share of all pairs of one run and another in which the first has more, ties counted half: U / (n m) [row]."""
    return superiority((ones[:, :, None] - others[:, None, :]).reshape(len(ones), -1))


def bootstrap(samples: tuple[Array, ...], resamples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """95 % interval of the mean of one sample [row, n], or of the difference of two samples' means, over resamples.

    Bias-corrected and accelerated (Efron, 1987), by `scipy.stats.bootstrap`; NaN where a sample has fewer than two
    values or no spread. With few seeds it is too narrow: see docs/exploration.md.
    """
    rows = len(samples[0])
    low, high = np.full(rows, np.nan), np.full(rows, np.nan)
    if min(sample.shape[1] for sample in samples) < 2:
        return low, high
    spread = np.flatnonzero(np.max([np.ptp(sample, axis=1) for sample in samples], axis=0) > 0)
    if not len(spread):
        return low, high

    def statistic(*drawn: Array, axis: int = -1) -> Array:
        first, *rest = (each.mean(axis=axis) for each in drawn)
        return np.asarray(first - rest[0] if rest else first)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        found = scipy.stats.bootstrap(
            tuple(sample[spread] for sample in samples),
            statistic,
            vectorized=True,
            axis=-1,
            n_resamples=resamples,
            batch=max(1, RESAMPLED_AT_ONCE // max(sample[spread].size for sample in samples)),
            method="BCa",
            random_state=rng,
        ).confidence_interval
    low[spread], high[spread] = found.low, found.high
    return low, high


def _variances(samples: Array) -> Array:
    """s^2 with n - 1; NaN for a single value. Values all the same have none, whatever the rounding of their mean."""
    if samples.shape[1] < 2:
        return np.full(len(samples), np.nan)
    return np.where(np.ptp(samples, axis=1) == 0, 0.0, samples.var(axis=1, ddof=1))


def _positive(freedom: Array) -> Array:
    return np.where(freedom > 0, freedom, np.nan)


def _root(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a falling function crosses zero, by halving."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
