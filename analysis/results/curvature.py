"""Spectra of symmetric operators, at a snapshot and along a run."""

from __future__ import annotations

from dataclasses import dataclass

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
