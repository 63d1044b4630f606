"""How far runs moved, and how strategies compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names

BUDGETS = ("steps", "updates", "gradients", "seconds", "movement")
"""What a comparison can be drawn against; `movement` is learning rate times updates of the shared parameters."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Exploration(Record):
    """How far one run moved the shared parameters, against every budget.

    net = ||theta_s - theta_0||; path = sum of ||change|| over steps, or over the finer updates inside them; ratio =
    path / net.
    """

    run: Run
    steps: Array = array("snapshot", units="step")
    updates: Array = array("snapshot", units="update")
    gradients: Array = array("snapshot", units="gradient")
    seconds: Array = array("snapshot", units="s")
    movement: Array = array("snapshot", units="rate x update")
    net: Array = array("snapshot", units="parameter")
    path_steps: Array = array("snapshot", units="parameter")
    path_updates: Array = array("snapshot", units="parameter")
    start_norm: float
    """||theta_0|| of the shared parameters, to make distances relative."""

    @property
    def ratio(self) -> Array:
        """path_steps / net, NaN at the start: 1 for a straight line, larger for a winding path."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.path_steps / self.net)

    def budget(self, name: str) -> Array:
        """The snapshots' position on one of `BUDGETS`."""
        if name not in BUDGETS:
            raise ValueError(f"expected a budget among {', '.join(BUDGETS)}, got {name!r}")
        return np.asarray(getattr(self, name))


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceMatrix(Record):
    """Distances ||theta_i - theta_j|| between points of one or several runs, on the shared parameters."""

    labels: tuple[str, ...] = names("point")
    distance: Array = array("point", "point_", units="parameter")
    what: str
    """Which points they are, for instance `last snapshots`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Record):
    """One measure of two strategies at one equal budget: paired differences over seeds with a 95 % interval.

    interval = mean +- t(0.975, n - 1) standard error; NaN with fewer than two seeds.
    """

    measure: str
    budget: str
    strategy: str
    baseline: str
    seeds: Array = array("seed")
    strategy_values: Array = array("seed", units="parameter")
    baseline_values: Array = array("seed", units="parameter")
    level: float
    """The value of the budget at which both are read."""
    difference: float
    low: float
    high: float
    verdict: str
    """`wider` or `narrower` (`longer` or `shorter` for a path), `undecided`, or `too few seeds`."""
    note: str = ""
    """Which seeds are no pairs, or share a start; else empty."""
