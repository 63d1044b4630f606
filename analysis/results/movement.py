"""How one run moved through some of the parameters, in many measures against every budget, beside random walks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from analysis.results.base import Array, Record, Run, array, names
from analysis.results.exploration import BUDGETS

LOSS = "loss"
"""The budget that compares at equal loss, see `Movement.budget`."""


def _none(dim: str, units: str) -> Array:
    found: Array = field(default_factory=lambda: np.zeros(0, np.int64), metadata={"dims": (dim,), "units": units})
    return found


MEASURE_NAMES = {
    "net": "net distance",
    "to_end": "distance to the end",
    "path_snapshots": "path over snapshots",
    "path_steps": "path over steps",
    "path_updates": "path over updates",
    "ratio": "path / net",
    "speed_steps": "speed per step",
    "speed_updates": "speed per update",
    "turning": "mean turning angle",
    "exponent": "exponent",
    "radius": "radius of gyration",
    "dimension": "effective dimension",
    "volume": "log-volume",
}
"""What the measures of a movement are called in figures, tables and verdicts."""


def measure_name(measure: str) -> str:
    """A measure's name in words."""
    return MEASURE_NAMES.get(measure, measure.replace("_", " "))


@dataclass(frozen=True, eq=False, kw_only=True)
class Movement(Record):
    """Measures of one run on one subset of the parameters in one form, each as a function of the snapshot reached.

    Measures of the whole path (exponent, radius, dimension, volume) are those of the path up to that snapshot. Only
    snapshots that are finite on the subset are in it.
    """

    run: Run
    subset: str
    """The parameters in words, for instance `shared`."""
    form: str
    """`raw`, `relative` (to the start's norm), `filterwise` or `invariant`."""
    measures: tuple[str, ...] = names("measure")
    units: tuple[str, ...] = names("measure")
    steps: Array = array("snapshot", units="step")
    updates: Array = array("snapshot", units="update")
    gradients: Array = array("snapshot", units="gradient")
    seconds: Array = array("snapshot", units="s")
    movement: Array = array("snapshot", units="rate x update")
    tasks: tuple[str, ...] = names("task")
    losses: Array = array("snapshot", "task", units="loss")
    """Of every task on the evaluation set."""
    values: Array = array("snapshot", "measure")
    """NaN where a measure is not defined; `notes` says why."""
    parameters: int = 0
    """How many entries of theta the distances are made of."""
    start_norm: float = float("nan")
    """||theta_0|| of the subset, in raw units."""
    directions: int = 0
    """How many leading directions the volume is of."""
    error: float = 0.0
    """Relative standard error of a distance: 0 where theta was kept, sqrt(1 / (2 k)) for a projection on k."""
    left_out: Array = _none("left_out", "step")
    """Steps of the snapshots that are not finite and not in it."""
    notes: str = ""
    """What is missing or left out, and why, in sentences."""

    def budget(self, name: str) -> Array:
        """The snapshots' position on one of `BUDGETS`, or on `loss`: minus the least average loss reached so far, which
        ascends, so that runs are compared where each first reached a loss.
        """
        if name == LOSS:
            return np.asarray(-np.minimum.accumulate(self.losses.mean(axis=1)))
        if name not in BUDGETS:
            raise ValueError(f"expected a budget among {', '.join((*BUDGETS, LOSS))}, got {name!r}")
        return np.asarray(getattr(self, name))

    def of(self, measure: str) -> Array:
        """One measure at every snapshot [snapshot]."""
        if measure not in self.measures:
            raise ValueError(f"expected a measure among {', '.join(self.measures)}, got {measure!r}")
        return np.asarray(self.values[:, self.measures.index(measure)])


@dataclass(frozen=True, eq=False, kw_only=True)
class Displacements(Record):
    """Mean-squared displacement against lag, turning angles and all distances of one path, beside random walks.

    msd(lag) = mean over the pairs of snapshots that are `lag` steps apart of ||theta_j - theta_i||^2. Its exponent is
    the least-squares slope of log msd over log lag between `fit_low` and `fit_high`: 2 along a straight line, 1 for a
    random walk. Walks take over the step lengths and the dimension of the space.
    """

    run: Run
    subset: str
    form: str
    unit: str
    """Of a distance."""
    lags: Array = array("lag", units="step")
    pairs: Array = array("lag", units="pair")
    msd: Array = array("lag", units="unit^2")
    walk_msd: Array = array("lag", units="unit^2")
    """Expectation for random walks, exact in every dimension: sums of squared step lengths."""
    walk_low: Array = array("lag", units="unit^2")
    walk_high: Array = array("lag", units="unit^2")
    """Quantiles 0.025 and 0.975 over the draws."""
    fit_low: float
    fit_high: float
    exponent: float
    exponent_error: float
    """Block jackknife over snapshots."""
    intercept: float
    """Of the fit: log msd = intercept + exponent x log lag."""
    angle_steps: Array = array("turn", units="step")
    angles: Array = array("turn", units="degree")
    """Between neighbouring increments, at the snapshot between them: 0 straight on, 180 back."""
    angle_low: float
    angle_high: float
    """Quantiles 0.025 and 0.975 of one angle between independent directions in the same dimension."""
    steps: Array = array("snapshot", units="step")
    squares: Array = array("snapshot", "snapshot_", units="unit^2")
    """||theta_i - theta_j||^2"""
    draws: int
    seed: int

    @property
    def gram(self) -> Array:
        """(theta_i - theta_0)' (theta_j - theta_0), about the first snapshot."""
        first = self.squares[0]
        return np.asarray((first[:, None] + first[None, :] - self.squares) / 2)


@dataclass(frozen=True, eq=False, kw_only=True)
class WalkNull(Record):
    """The measures of random walks with a path's step lengths in its dimension, at some of its snapshots."""

    run: Run
    subset: str
    form: str
    measures: tuple[str, ...] = names("measure")
    steps: Array = array("point", units="step")
    low: Array = array("point", "measure")
    median: Array = array("point", "measure")
    high: Array = array("point", "measure")
    """Quantiles 0.025, 0.5 and 0.975 over the draws; NaN where a walk has no such measure."""
    expected: Array = array("point", "measure")
    """Of walks in a space of very many dimensions, where no draw differs from another."""
    draws: int
    dimension: int
    seed: int
