"""What runs recorded of their own learning."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.results.base import Array, Record, Run, array, names


@dataclass(frozen=True, eq=False, kw_only=True)
class Training(Record):
    """What a run recorded about its own learning: evaluation losses and metrics, and mini-batch losses of every
    step.
    """

    run: Run
    tasks: tuple[str, ...] = names("task")
    metrics: tuple[str, ...] = names("metric")
    """`task.metric` names."""
    steps: Array = array("snapshot", units="step")
    updates: Array = array("snapshot", units="update")
    gradients: Array = array("snapshot", units="gradient")
    seconds: Array = array("snapshot", units="s")
    losses: Array = array("snapshot", "task", units="loss")
    scores: Array = array("snapshot", "metric")
    batch_steps: Array = array("step", units="step")
    batch_losses: Array = array("step", "task", units="loss")


@dataclass(frozen=True, eq=False, kw_only=True)
class RateSearch(Record):
    """A search of the learning rate for one strategy: the evaluation loss that each rate reached; the least one
    wins. It may be unfinished.
    """

    label: str
    rates: Array = array("rate")
    losses: Array = array("rate", units="loss")
    """Averaged evaluation loss at the end of a short run with a seed of its own; infinite where the run diverged, NaN
    where it was not done.
    """
    done: Array = array("rate")
    """Which rates were tried."""
    chosen: float
    """The rate with the least loss; NaN until all rates are done, and where all diverged."""
    steps: int
    seed: int
