"""Reading measures where runs have spent the same (steps, updates, gradients, seconds, movement) or lost the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from analysis.results import BUDGETS, FAIR_BUDGETS, LOSS, Array, Run
from landscape.errors import LandscapeError, unknown


class Measured(Protocol):
    """One run's measures as functions of the snapshot reached, on some of the parameters in one form.

    `values` [snapshot, measure], `losses` [snapshot, task] on the evaluation set; `budget(name)` gives the snapshots'
    position on one of `BUDGETS`, NaN where the run does not know it. `analysis.results.Movement` is one.
    """

    @property
    def run(self) -> Run: ...
    @property
    def subset(self) -> str: ...
    @property
    def form(self) -> str: ...
    @property
    def measures(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def losses(self) -> Array: ...
    @property
    def values(self) -> Array: ...

    def budget(self, name: str) -> Array: ...


def require_budget(name: str, tasks: Sequence[str]) -> None:
    """Raises unless runs of these tasks can be compared at this budget: one of `FAIR_BUDGETS`, or `loss:TASK`."""
    each = [f"{LOSS}:{task}" for task in tasks]
    if name not in FAIR_BUDGETS and name not in each:
        raise unknown("budget", name, [*FAIR_BUDGETS, *each])


def least_loss(run: Measured, budget: str = LOSS) -> Array:
    """The smallest loss that a run has had up to each snapshot [snapshot]: of the tasks' average, or of `loss:TASK`.

    A loss that is not finite counts as none; NaN before the first finite one.
    """
    _, _, task = budget.partition(":")
    loss = np.asarray(run.losses[:, run.tasks.index(task)] if task else run.losses.mean(1), np.float64)
    return np.fmin.accumulate(np.where(np.isfinite(loss), loss, np.nan))


def known(run: Measured, budget: str) -> bool:
    """Whether a run knows its position on a budget."""
    if budget in BUDGETS:
        return bool(np.isfinite(run.budget(budget)).all())
    return bool(np.isfinite(least_loss(run, budget)[-1]))


def level(runs: Sequence[Measured], budget: str) -> float:
    """Where runs are equal: the largest position on a budget that all reach; of a loss, the smallest that all reach.

    NaN where one of them does not know its position, or there are none.
    """
    if not runs or not all(known(run, budget) for run in runs):
        return float("nan")
    if budget in BUDGETS:
        return float(min(run.budget(budget)[-1] for run in runs))
    return float(max(least_loss(run, budget)[-1] for run in runs))


def place(run: Measured, budget: str, at: float) -> float:
    """The snapshot at which a run is at a level, as a number between snapshots; NaN where it never is.

    Of a loss: where the smallest loss so far first comes down to the level, linear between the snapshots before and
    after. A loss that has been that low at the start puts it at 0.
    """
    if budget not in BUDGETS:
        falling = least_loss(run, budget)
        return 0.0 if falling[0] <= at else _crossing(-falling, -at)
    there = np.asarray(run.budget(budget), np.float64)
    return float("nan") if there[0] > at else _crossing(there, at)


def _crossing(rising: Array, at: float) -> float:
    """Where a sequence that never falls first reaches a value, linear between its entries; NaN where it never does."""
    reached = np.flatnonzero(rising >= at)
    if not len(reached):
        return float("nan")
    after = int(reached[0])
    if after == 0 or not np.isfinite(rising[after - 1]):
        return float(after)
    before = rising[after - 1]
    return after - 1 + float((at - before) / (rising[after] - before))


def values_at(run: Measured, budget: str, at: float) -> Array:
    """All measures of a run at a level [measure], linear between snapshots; NaN where it never is there."""
    where = place(run, budget, at)
    if not np.isfinite(where):
        return np.full(len(run.measures), np.nan)
    before = min(int(where), len(run.values) - 1)
    share = where - before
    values = np.asarray(run.values, np.float64)
    if share == 0:
        return np.asarray(values[before])
    with np.errstate(invalid="ignore"):
        return np.asarray((1 - share) * values[before] + share * values[before + 1])


def require_alike(runs: Sequence[Measured]) -> None:
    """Raises unless all runs have the same measures, tasks, subset and form."""
    first = runs[0]
    for run in runs[1:]:
        for what in ("subset", "form", "measures", "tasks"):
            mine, its = getattr(first, what), getattr(run, what)
            if mine != its:
                raise LandscapeError(
                    f"expected runs that are measured alike, got the {what} {mine!r} of {first.run.name} and {its!r} "
                    f"of {run.run.name}: compare them apart"
                )
