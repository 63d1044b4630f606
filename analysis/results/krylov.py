"""Eigenvalue searches on their way, and the intervals of what they found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, array


@dataclass(frozen=True, eq=False, kw_only=True)
class LanczosState(Record):
    """An eigenvalue search on its way: H Q' = Q' T + F' B with all that decides what it does next.

    Whoever goes on from it with the same operator ends with the same bytes as a search that was never stopped.
    """

    basis: Array = array("direction", "coordinate")
    """Q, orthonormal rows in the operator's precision."""
    ahead: Array = array("next direction", "coordinate")
    """F, orthonormal rows: where products of Q lead outside Q."""
    projected: Array = array("direction", "other direction", units="loss / parameter^2")
    """T, the operator in the basis Q."""
    coupling: Array = array("next direction", "direction", units="loss / parameter^2")
    """B"""
    exhausted: Array = array("pair", units="loss / parameter^2")
    """Values that the last exhausted space gave; empty where none was exhausted."""
    count: int
    end: str
    block: int
    room: int
    """The largest basis."""
    seed: int
    products: int
    draws: int
    """Random vectors drawn so far."""
    scale: float
    """Length of the longest product so far."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EigenvalueIntervals(Record):
    """Eigenvalues with two intervals kept apart: numerical, value +- error, and sampling, low to high.

    Sampling: how much the value would change with other evaluation examples, by resampling those there are, in the
    space of the vectors found.
    """

    values: Array = array("pair", units="loss / parameter^2")
    error: Array = array("pair", units="loss / parameter^2")
    """Numerical: some eigenvalue of the Hessian over the evaluation set lies within it; the residual."""
    gap_error: Array = array("pair", units="loss / parameter^2")
    """Numerical as well, mostly tighter, if no eigenvalue was missed: see `Eigenpairs.gap_error`."""
    low: Array = array("pair", units="loss / parameter^2")
    high: Array = array("pair", units="loss / parameter^2")
    resampled: Array = array("resample", "pair", units="loss / parameter^2")
    """The values of every resample, matched to the pairs by their order."""
    level: float
    """Confidence that the sampling intervals are made for, each for itself."""
    rule: str
    """How they are made of the resampled values: `basic` or `percentile`."""
    method: str
    """How the forms of single examples were computed."""
    examples: int
    seed: int

    @property
    def computed(self) -> Array:
        """Whether numerical error alone leaves a value apart from its neighbours among those found [pair]."""
        return apart(self.values, self.values - self.error, self.values + self.error)

    @property
    def resolved(self) -> Array:
        """Whether a value's sampling interval, widened by its numerical error, is apart from its neighbours' [pair]."""
        return apart(self.values, self.low - self.error, self.high + self.error)

    @property
    def words(self) -> tuple[str, ...]:
        """A line for every pair."""
        verdicts = np.where(
            self.resolved, "", np.where(self.computed, ", not resolved by these examples", ", not resolved")
        )
        rows = zip(self.values, self.error, self.low, self.high, verdicts, strict=True)
        return tuple(f"{v:.4g} (numerical +-{e:.1g}; sampling {a:.4g} to {b:.4g}){w}" for v, e, a, b, w in rows)


def apart(values: Array, low: Array, high: Array) -> Array:
    """Whether the interval of each value is apart from those of its neighbours [pair]."""
    order = np.argsort(values, kind="stable")
    gaps = low[order][1:] > high[order][:-1]
    apart = np.zeros(len(values), bool)
    apart[order] = np.concatenate([[True], gaps]) & np.concatenate([gaps, [True]])
    return apart
