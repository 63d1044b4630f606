"""Spectra of symmetric operators, at a snapshot and along a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names


@dataclass(frozen=True, eq=False, kw_only=True)
class Eigenpairs(Record):
    """Eigenvalues of a symmetric operator with unit vectors and true residuals ||H v - value v||."""

    values: Array = array("pair", units="loss / parameter^2")
    vectors: Array = array("pair", "coordinate")
    residuals: Array = array("pair", units="loss / parameter^2")
    converged: Array = array("pair")
    end: str
    """Which end of the spectrum: `largest`, `smallest`, `both` or `magnitude`."""
    products: int
    outcome: str = ""
    """What was reached, in words."""

    @property
    def gap_error(self) -> Array:
        """What a value is off by, if no eigenvalue was missed [pair]: residual^2 / gap (Kato & Temple; Parlett, The
        Symmetric Eigenvalue Problem, 11.7) where that is less than the residual.

        The gap is the distance to the nearest interval, value +- residual, of the others. It is known for a value
        between others or at the spectrum's end; the last values, beyond which nothing is known, keep the residual. A
        search with one start vector can miss a neighbour that is nearer than its residuals, and copies: then, the
        residual alone holds.
        """
        return _gap_bound(self.values, self.residuals, self.end)


@dataclass(frozen=True, eq=False, kw_only=True)
class EigenvalueHistory(Record):
    """Top eigenvalues of every task's Hessian, and of the averaged loss, on the shared parameters along one run.

    Each |value - true eigenvalue| is at most its residual (Hessian symmetric, unit vectors).
    """

    run: Run
    tasks: tuple[str, ...] = names("operator")
    """Task names, then `average`."""
    steps: Array = array("snapshot", units="step")
    values: Array = array("snapshot", "operator", "pair", units="loss / parameter^2")
    residuals: Array = array("snapshot", "operator", "pair", units="loss / parameter^2")
    converged: Array = array("snapshot", "operator", "pair")
    products: int
    """Hessian-vector products in all."""
    examples: int
    data: str


def _gap_bound(values: Array, residuals: Array, end: str) -> Array:
    """`both` and `magnitude` leave a gap unknown in the middle, where values of the two signs face each other."""
    bounds = np.array(residuals, np.float64)
    order = np.argsort(-np.asarray(values, np.float64), kind="stable")
    v, r = np.asarray(values, np.float64)[order], np.asarray(residuals, np.float64)[order]
    known = _gap_known(v, end)
    apart = np.concatenate([[np.inf], v[:-1] - v[1:], [np.inf]])
    for place in range(len(v)):
        if not known[place] or not known[place + 1]:
            continue
        above = apart[place] - r[place - 1] if place else np.inf
        below = apart[place + 1] - r[place + 1] if place + 1 < len(v) else np.inf
        gap = min(above, below)
        if gap > r[place]:
            bounds[order[place]] = r[place] ** 2 / gap
    return bounds


def _gap_known(descending: Array, end: str) -> Array:
    """Whether all eigenvalues between neighbours are among the values [pair + 1]; the outermost stand for the ends."""
    count = len(descending)
    known = np.ones(count + 1, bool)
    upper = {"largest": count, "smallest": 0, "both": (count + 1) // 2, "magnitude": int((descending > 0).sum())}
    known[upper[end]] = False
    return known
