"""Eigenvalues followed along a run, and how sharp the losses are there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names
from analysis.results.curvature import EigenvalueHistory


@dataclass(frozen=True, eq=False, kw_only=True)
class EigenvalueTracks(EigenvalueHistory):
    """Eigenvalues of every task's Hessian, and of the averaged loss's, each followed along one run by its eigenvector.

    At every snapshot the pairs stand in the order of the spectrum's end; `track` says which curve each belongs to. A
    curve goes on where its vector's overlap with a vector of the next snapshot, or with the space of a group of values
    too close to be told apart, is at least `threshold`. Elsewhere it ends, and another one begins.
    """

    track: Array = array("snapshot", "operator", "pair")
    """Number of the curve, counted from 0 for each operator in order of its beginning; -1 where no pair was found."""
    match: Array = array("snapshot", "operator", "pair")
    """The overlap by which the curve was continued to here, between 0 and 1; NaN where it begins."""
    grouped: Array = array("snapshot", "operator", "pair")
    """Whether the value is one of a group: the group's space is followed, which of its values is whose is not known."""
    overlaps: Array = array("snapshot", "operator", "pair", "before")
    """v_pair' u_before with the vectors of the snapshot before, NaN at the first one; signs are arbitrary, and the
    singular values are the cosines between the two spaces.
    """
    line: Array = array("operator", units="loss / parameter^2")
    """The curvature at which full-batch steps on this loss become unstable; NaN where there is no such line."""
    line_words: str
    """What the line is, or why there is none."""
    threshold: float
    """The least overlap with which a curve goes on."""
    closeness: float
    """Values closer than this share of the largest |value| are a group, and so are those that residuals join."""
    subset: str
    """The parameters that the Hessians are on, in words."""
    preconditioner: str
    """What P is where the values are those of P^(1/2) H P^(1/2), in units of loss per squared move; else empty."""
    end: str
    """Which end of the spectrum: `largest`, `smallest`, `both` or `magnitude`."""
    matrix: str
    """`Hessian`, `Gauss-Newton` or `Fisher`."""
    low: Array = array("snapshot", "operator", "pair", units="loss / parameter^2")
    high: Array = array("snapshot", "operator", "pair", units="loss / parameter^2")
    """The sampling intervals of `EigenvalueIntervals`; NaN where they were not asked for."""
    resolved: Array = array("snapshot", "operator", "pair")
    """Whether a value is apart from its neighbours: by residuals, and by sampling intervals where there are any."""
    level: float
    """Confidence of the sampling intervals; NaN where there are none."""

    def curve(self, operator: int, number: int) -> tuple[Array, Array]:
        """Snapshots and pairs, [m] each, that belong to one curve of an operator."""
        rows, pairs = np.nonzero(self.track[:, operator] == number)
        return rows, pairs

    def numbers(self, operator: int) -> tuple[int, ...]:
        """The curves of an operator, in order of their beginning."""
        return tuple(int(n) for n in np.unique(self.track[:, operator]) if n >= 0)

    def lost(self, operator: int) -> tuple[int, ...]:
        """The curves of an operator that end before the last snapshot."""
        return tuple(n for n in self.numbers(operator) if self.curve(operator, n)[0][-1] < len(self.steps) - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class TracksUnderway(Record):
    """Curves as far as they have been followed, with all that decides how they go on."""

    tracks: EigenvalueTracks
    vectors: Array = array("operator", "pair", "parameter")
    """Those of the last snapshot; NaN where none were found."""
    warm: Array = array("operator", "pair", "parameter")
    """The last ones that were found, from which the next searches start."""
    directions: Array = array("operator", "pair", "parameter")
    """What the next vectors are compared with."""
    begun: Array = array("operator")
    """How many curves there have been."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sharpness(Record):
    """How sharp every task's loss and the averaged one are along a run, by the measures in use.

    A *form* scales the parameters by D before anything is measured: `plain` has D = 1. Moves are D e with ||e|| at most
    `radius`, or D z with z normal of standard deviation `sigma`; eigenvalues are those of D H D.
    """

    run: Run
    tasks: tuple[str, ...] = names("operator")
    """Task names, then `average`."""
    forms: tuple[str, ...] = names("form")
    steps: Array = array("snapshot", units="step")
    eigenvalue: Array = array("snapshot", "operator", "form", units="loss / move^2")
    """Largest eigenvalue of D H D."""
    residual: Array = array("snapshot", "operator", "form", units="loss / move^2")
    converged: Array = array("snapshot", "operator", "form")
    trace: Array = array("snapshot", "operator", units="loss / parameter^2")
    """Of H; NaN where it was not asked for."""
    trace_stderr: Array = array("snapshot", "operator", units="loss / parameter^2")
    worst: Array = array("snapshot", "operator", "form", units="loss")
    """The largest rise found within the radius: a lower bound of the true one."""
    one_step: Array = array("snapshot", "operator", "form", units="loss")
    """The rise at the end of one step along the gradient, the move of sharpness-aware minimisation."""
    mean_rise: Array = array("snapshot", "operator", "form", units="loss")
    """Mean of L(theta + D z) - L(theta)."""
    mean_rise_stderr: Array = array("snapshot", "operator", "form", units="loss")
    """Standard error over pairs of draws z and -z."""
    radius: Array = array("form", units="move")
    sigma: Array = array("form", units="move")
    pairs: int
    """Pairs of draws."""
    curvature: Array = array("snapshot", "operator", "operator_", units="loss / parameter^2")
    """g_i' H_j g_i / ||g_i||^2 for the update of operator i and the loss of operator j, by exact products."""
    line_curvature: Array = array("snapshot", "operator", "operator_", units="loss / parameter^2")
    """The same from second differences of the loss along the update."""
    line_curvature_error: Array = array("snapshot", "operator", "operator_", units="loss / parameter^2")
    """Change of the second difference when its step is halved, and its rounding."""
    critical_low: Array = array("snapshot", "operator", "operator_", units="rate")
    """Along -g_i, loss j was last seen no higher than at the start at this rate; 0 where it rises at once."""
    critical_high: Array = array("snapshot", "operator", "operator_", units="rate")
    """And first seen higher at this one; infinite where it never was."""
    line: Array = array("operator", units="loss / parameter^2")
    """As of `EigenvalueTracks`."""
    line_words: str
    subset: str
    """The parameters that move, in words."""
    products: int
    gradients: int
    passes: int
    """Forward passes of the evaluation set, those of gradients and products not counted."""
    examples: int
    data: str
    seed: int

    @property
    def critical_sharpness(self) -> Array:
        """2 / critical rate, [snapshot, operator, operator_]: infinite where loss j rises at once along update i."""
        with np.errstate(divide="ignore"):
            return np.asarray(2.0 / np.sqrt(self.critical_low * self.critical_high))
