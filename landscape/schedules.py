"""When to store a snapshot. The first and the last step are always stored, whatever the schedule says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from landscape.errors import LandscapeError


@runtime_checkable
class Schedule(Protocol):
    """Says of every step, counted from 1, whether its snapshot is stored."""

    def due(self, step: int) -> bool: ...


@dataclass(frozen=True)
class Every:
    """Every `steps` steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LandscapeError(f"expected Every(1) or more steps, got {self.steps}")

    def due(self, step: int) -> bool:
        return step % self.steps == 0


@dataclass(frozen=True)
class LogSpaced:
    """About `per_decade` snapshots between a step and ten times that step: steps round(10^(k / per_decade))."""

    per_decade: int = 10

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise LandscapeError(f"expected LogSpaced(1) or more snapshots a decade, got {self.per_decade}")

    def due(self, step: int) -> bool:
        nearest = round(self.per_decade * len(str(step)))
        return any(round(10 ** (k / self.per_decade)) == step for k in range(nearest - self.per_decade, nearest + 1))


def due_since(when: Schedule, before: int, step: int) -> bool:
    """Whether a schedule stores a snapshot for any step after `before` up to `step`."""
    return when.due(step) or any(when.due(number) for number in range(before + 1, step))


@dataclass(frozen=True, init=False)
class AtSteps:
    """At the steps named."""

    steps: frozenset[int]

    def __init__(self, steps: Iterable[int]) -> None:
        object.__setattr__(self, "steps", frozenset(steps))
        if any(step < 0 for step in self.steps):
            raise LandscapeError(f"expected steps of 0 or more, got {min(self.steps)}")

    def due(self, step: int) -> bool:
        return step in self.steps

    def __repr__(self) -> str:
        return f"AtSteps({sorted(self.steps)})"
