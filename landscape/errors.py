"""Errors that a user can act on: one sentence that says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LandscapeError(ValueError):
    """Input that cannot be used. The command line prints its text on one line and ends with status 2."""


class TrainingDiverged(LandscapeError):
    """A training loss was no longer finite. The snapshots recorded before are kept.

    Attributes: `step`, the step at which it happened; `task`, the first task it happened to.
    """

    def __init__(self, step: int, task: str, value: float) -> None:
        self.step, self.task, self.value = step, task, value
        super().__init__(
            f"the training loss of task {task!r} became {value} at step {step}; the snapshots before it are kept: "
            "try a smaller learning rate, or look at that batch"
        )

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[int, str, float]]:
        return type(self), (self.step, self.task, self.value)


def unknown(kind: str, given: str, valid: Iterable[str]) -> LandscapeError:
    """The error for a name that is not among the valid ones, with the nearest valid one."""
    names = sorted(valid)
    by_fold = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(given.casefold(), by_fold, n=1, cutoff=0.5)
    nearest = f"; did you mean {by_fold[close[0]]!r}?" if close else ""
    return LandscapeError(f"unknown {kind} {given!r}: expected one of {', '.join(names)}{nearest}")
