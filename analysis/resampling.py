"""How much eigenvalues would change with other examples: bootstrap in the space of the vectors found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analysis.example_forms import per_example_forms
from analysis.results import Array, Eigenpairs, EigenvalueIntervals
from analysis.subsets import Shared, Subset
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator

NUMBERS_AT_ONCE = 1 << 22
"""Counts of resamples that are held at a time."""

MISMATCH = 1e-2
"""How far the mean of the examples' forms may be from the values, relative to the largest: float32 leaves some 1e-4."""


class IntervalKind(Protocol):
    """How an interval is made of a value [k] and its resampled ones [R, k]."""

    @property
    def label(self) -> str: ...
    def limits(self, values: Array, resampled: Array, level: float) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Percentile:
    """Between the (1 - level) / 2 and the (1 + level) / 2 quantile of the resampled values."""

    label = "percentile"

    def limits(self, values: Array, resampled: Array, level: float) -> tuple[Array, Array]:
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


@dataclass(frozen=True)
class Basic:
    """Twice the value less the quantiles (Davison & Hinkley 1997, 5.2): what resampling adds to a value, as it does to
    the largest one, is taken off.
    """

    label = "basic"

    def limits(self, values: Array, resampled: Array, level: float) -> tuple[Array, Array]:
        low, high = Percentile().limits(values, resampled, level)
        return 2 * values - high, 2 * values - low


def intervals(
    problem: Problem,
    theta: Array,
    buffers: Array,
    weights: Sequence[float],
    pairs: Eigenpairs,
    on: Subset = Shared(),
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    kind: IntervalKind = Basic(),
) -> EigenvalueIntervals:
    """Numerical and sampling intervals of eigenvalues of the Hessian of sum_t w_t L_t on some parameters.

    With M_n = V H_n V' [k, k] for the vectors V [k, n] found and the Hessian H_n of one example's loss, a resample of N
    examples with replacement has the values of the matrix mean of M_n over it: Rayleigh-Ritz in the space found. They
    are matched to the pairs by their order.

    What this leaves out: directions outside the space. The largest value of a resample is at least the one in the space
    (the smallest at most), and with more parameters than examples the largest value of a sample lies above that of the
    population, for noise bends the vector towards it; the interval says how the curvature along the directions found
    varies, not how far such directions were fitted to these examples.

    Args:
        weights: one a task; those of `pairs`' operator, as `on` are its parameters.
        resamples, seed, level: how many, their generator, and the confidence of each interval for itself.
        kind: `Basic()` or `Percentile()`.

    Cost: k (k + 1) / 2 second directional derivatives of the evaluation set, about 4 forward passes each; resamples N
    k^2 multiplications. Memory: N k^2 numbers, and resamples in pieces.

    Raises:
        LandscapeError: pairs that are not finite, or not of the Hessian with these weights on these parameters; fewer
            than 2 resamples or examples; a level outside (0, 1).
    """
    if resamples < 2 or not 0 < level < 1 or len(problem.evaluation) < 2:
        raise LandscapeError(
            f"expected 2 or more resamples of 2 or more examples and a level between 0 and 1, got {resamples} of "
            f"{len(problem.evaluation)} and {level}"
        )
    if not np.isfinite(pairs.values).all():
        raise LandscapeError("expected finite eigenpairs, got NaN: no interval can be given for what was not found")
    forms, method = per_example_forms(problem, theta, buffers, weights, pairs.vectors, on)
    _require_match(forms.mean(0), np.asarray(pairs.values))
    order = np.argsort(-pairs.values, kind="stable")
    resampled = np.empty((resamples, len(order)))
    resampled[:, order] = resampled_values(forms, resamples, seed)[:, ::-1]
    low, high = kind.limits(np.asarray(pairs.values, np.float64), resampled, level)
    return EigenvalueIntervals(
        values=np.asarray(pairs.values, np.float64),
        error=np.asarray(pairs.residuals, np.float64),
        gap_error=pairs.gap_error,
        low=low,
        high=high,
        resampled=resampled,
        level=level,
        rule=kind.label,
        method=method,
        examples=len(forms),
        seed=seed,
    )


def resampled_values(forms: Array, resamples: int, seed: int) -> Array:
    """Ascending eigenvalues [R, k] of the mean of the forms [N, k, k] over every resample of N of them."""
    count, size = len(forms), forms.shape[1]
    rng = generator(seed, "bootstrap")
    flat = forms.reshape(count, size * size)
    made = []
    for start in range(0, resamples, max(1, NUMBERS_AT_ONCE // count)):
        rows = min(max(1, NUMBERS_AT_ONCE // count), resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1 / count), rows)
        made.append(np.linalg.eigvalsh((drawn @ flat / count).reshape(rows, size, size)))
    return np.concatenate(made)


def _require_match(mean: Array, values: Array) -> None:
    scale = max(float(np.abs(values).max()), float(np.finfo(np.float64).tiny))
    apart = float(np.abs(mean - np.diag(values)).max()) / scale
    if not apart <= MISMATCH:
        raise LandscapeError(
            f"the examples' curvature along the vectors differs from the eigenvalues by {apart:.1g} of the largest, "
            f"expected {MISMATCH:.1g} at most: give the weights and parameters of the operator that they were found for"
        )
