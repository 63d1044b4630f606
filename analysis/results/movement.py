"""What one run's way through some of the parameters looks like, in many measures against every budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names
from analysis.results.exploration import BUDGETS


@dataclass(frozen=True, eq=False, kw_only=True)
class Movement(Record):
    """Measures of one run on one subset of the parameters in one form, each as a function of the snapshot reached."""

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
    """NaN where a measure is not defined."""

    def budget(self, name: str) -> Array:
        """The snapshots' position on one of `BUDGETS`."""
        if name not in BUDGETS:
            raise ValueError(f"expected a budget among {', '.join(BUDGETS)}, got {name!r}")
        return np.asarray(getattr(self, name))
