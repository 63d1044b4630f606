"""Permutation tests of many differences at once: what chance alone would do with these very numbers.

If a strategy made no difference, exchanging it with the baseline for any one seed would change nothing, so each seed's
differences could as well have the other sign: all of them together, in every measure at every budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from analysis.results import Array

ENUMERATED = 16
"""Up to so many seeds all 2^n patterns of signs are gone through; beyond, some are drawn."""
AT_ONCE = 1 << 21
"""Numbers held at once, which bounds the memory."""
SAME = 1e-9
"""Statistics that differ by less, relative, are equal but for rounding."""


@dataclass(frozen=True, eq=False)
class Flipped:
    """What flipping signs gave, all [row]."""

    p_value: Array
    """Of each row alone."""
    p_family: Array
    """Of each row as one of the family: the chance that any true null of the family would come out so small."""
    smallest: float
    """The smallest p there can be with so many seeds."""
    patterns: int
    exact: bool


def smallest_p(seeds: int, resamples: int) -> float:
    """2 / 2^n where all patterns of n signs are gone through, 1 / (1 + resamples) where some are drawn; 1 for n = 0."""
    if seeds == 0:
        return 1.0
    return 2.0 ** (1 - seeds) if seeds <= ENUMERATED else 1 / (1 + resamples)


def sign_flips(differences: Array, resamples: int, rng: np.random.Generator) -> Flipped:
    """Two-sided sign-flip tests of paired differences [row, n]; NaN is left out of its row, and stays out when flipped.

    u = |sum_i d_i| / sqrt(n sum_i d_i^2), which orders patterns as |t| does. p = share of all 2^n patterns of signs
    with u at least the observed one, or (1 + count) / (1 + resamples) for drawn patterns (Phipson and Smyth, 2010).
    The family's p is the step-down maximum of Westfall and Young (1993): the same signs flip the whole seed in all
    rows, so that measures which go together count less than as many separate tests.

    Cost: min(2^(n - 1), resamples) x rows x n operations; memory is bounded.
    """
    rows, seeds = differences.shape
    finite = np.isfinite(differences)
    filled = np.where(finite, differences, 0.0)
    scale = np.sqrt(finite.sum(1) * (filled**2).sum(1))
    known = np.flatnonzero(finite.any(1))
    p_value, p_family = np.full(rows, np.nan), np.full(rows, np.nan)
    exact = seeds <= ENUMERATED
    patterns = 2 ** max(seeds - 1, 0) if exact else resamples
    if len(known):
        unit = (filled[known] / np.where(scale[known] > 0, scale[known], 1.0)[:, None]).T
        order = np.argsort(-np.abs(unit.sum(0)), kind="stable")
        unit = unit[:, order]
        observed = np.abs(unit.sum(0)) * (1 - SAME)
        alone, together = np.zeros(len(known)), np.zeros(len(known))
        for signs in _signs(seeds, patterns, exact, max(1, AT_ONCE // (len(known) + seeds)), rng):
            flipped = np.abs(signs @ unit)
            alone += (flipped >= observed).sum(0)
            largest = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
            together += (largest >= observed).sum(0)
        extra = 0 if exact else 1
        alone, together = ((extra + count) / (extra + patterns) for count in (alone, together))
        p_value[known[order]] = alone
        p_family[known[order]] = np.maximum.accumulate(together)
    return Flipped(p_value, p_family, smallest_p(seeds, resamples), patterns, exact)


def _signs(seeds: int, patterns: int, exact: bool, most: int, rng: np.random.Generator) -> Iterator[Array]:
    """Patterns of signs [pattern, n], the first sign always plus where all are gone through: its mirror image counts
    the same.
    """
    for start in range(0, patterns, most):
        count = min(most, patterns - start)
        if exact:
            bits = np.arange(start, start + count)[:, None] >> np.arange(max(seeds - 1, 0)) & 1
            yield np.hstack([np.ones((count, min(seeds, 1))), 1.0 - 2.0 * bits])
        else:
            yield 1.0 - 2.0 * rng.integers(0, 2, (count, seeds))


def exchanged(ones: Array, others: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Two-sided permutation p [row] of the difference of means of independent samples [row, n] and [row, m].

    Runs are dealt out anew to both sides: all C(n + m, n) ways where there are at most `resamples` of them, else so
    many drawn ones. By `scipy.stats.permutation_test`.
    """

    def difference(x: Array, y: Array, axis: int = -1) -> Array:
        return np.asarray(x.mean(axis=axis) - y.mean(axis=axis))

    found = scipy.stats.permutation_test(
        (ones, others),
        difference,
        permutation_type="independent",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, AT_ONCE // max(1, ones.size + others.size)),
        alternative="two-sided",
        axis=-1,
        random_state=rng,
    )
    return np.asarray(found.pvalue)


def smallest_exchange_p(n: int, m: int, resamples: int) -> float:
    """The smallest p that dealing out n + m runs anew can give: 2 / C(n + m, n), or 1 where that is more."""
    ways = math.comb(n + m, n)
    return min(1.0, 2 / ways) if ways <= resamples else 2 / (1 + resamples)
