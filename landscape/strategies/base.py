"""What every strategy is, and how the losses of several tasks become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.workspace import Workspace


class Strategy(Protocol):
    """A frozen description whose repr is stored in the trajectory.

    `states(T)` is how many optimiser states the shared parameters have, `updates(T)` how often a step changes them.
    `step(run, n, seed)` carries out step n (counted from 0) and returns the training loss of every task, [T], where its
    gradient was taken.
    """

    @property
    def optimiser(self) -> Optimiser: ...

    @property
    def label(self) -> str: ...

    def states(self, tasks: int) -> int: ...

    def updates(self, tasks: int) -> int: ...

    def step(self, run: Workspace, number: int, seed: int) -> Tensor: ...


class Reduction(Protocol):
    """How the losses of several tasks become one; `tasks` are their numbers."""

    def reduce(self, losses: Sequence[Tensor], tasks: Sequence[int]) -> Tensor: ...


@dataclass(frozen=True)
class Sum:
    """sum_t L_t, the authors' choice."""

    def reduce(self, losses: Sequence[Tensor], tasks: Sequence[int]) -> Tensor:
        return torch.stack(list(losses)).sum()


@dataclass(frozen=True)
class Mean:
    """(1 / n) sum_t L_t over the n tasks that are reduced together."""

    def reduce(self, losses: Sequence[Tensor], tasks: Sequence[int]) -> Tensor:
        return torch.stack(list(losses)).mean()


@dataclass(frozen=True, init=False)
class Weights:
    """sum_t w_t L_t with one weight a task, in task order: `Weights(1.0, 0.5, 2.0)`.

    Raises:
        LandscapeError: weights that are not finite, or all of them zero.
    """

    values: tuple[float, ...]

    def __init__(self, *values: float) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in values))
        if not all(map(math.isfinite, self.values)) or not any(self.values):
            raise LandscapeError(f"expected finite weights, not all of them 0, got {list(self.values)}")

    def reduce(self, losses: Sequence[Tensor], tasks: Sequence[int]) -> Tensor:
        if max(tasks) >= len(self.values):
            raise LandscapeError(
                f"expected a weight for each task, got {len(self.values)} for at least {max(tasks) + 1}"
            )
        return torch.stack([self.values[t] * loss for t, loss in zip(tasks, losses, strict=True)]).sum()

    def __repr__(self) -> str:
        return f"Weights({', '.join(map(repr, self.values))})"


def require_weights(reduction: Reduction, tasks: int) -> None:
    """Raises where a reduction has weights, but not one a task."""
    if isinstance(reduction, Weights) and len(reduction.values) != tasks:
        raise LandscapeError(f"expected a weight for each of the {tasks} tasks, got {len(reduction.values)}")


@runtime_checkable
class OfSomeTasks(Protocol):
    """A strategy that names tasks: `require(names)` raises where the problem has no such task."""

    def require(self, names: Sequence[str]) -> None: ...


def require_fit(strategy: Strategy, names: Sequence[str]) -> None:
    """Raises where a strategy does not fit the tasks of these names, before anything is trained or written."""
    strategy.states(len(names))
    if isinstance(strategy, OfSomeTasks):
        strategy.require(names)


def serve(run: Workspace, batch: int, tasks: Sequence[int], state: int, reduction: Reduction) -> list[Tensor]:
    """One forward, one backward and one update for some tasks together; their losses before it.

    Cost: one forward and one backward pass.
    """
    losses = run.losses(run.batches[batch], tasks)
    run.update(state, tasks, run.gradient(reduction.reduce(losses, tasks), tasks))
    return [loss.detach() for loss in losses]
