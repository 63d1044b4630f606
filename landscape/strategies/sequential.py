"""One step a task, one after the other, each at the theta that the one before it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.randomness import generator
from landscape.strategies.base import Reduction, Sum, serve
from landscape.workspace import Workspace


class Order(Protocol):
    """In which order `count` sub-steps are taken in step `number`."""

    def arrange(self, count: int, number: int, seed: int) -> Sequence[int]: ...


@dataclass(frozen=True, init=False)
class Fixed:
    """Always the same order: 0, 1, ..., or the one given, `Fixed(2, 0, 1)`."""

    order: tuple[int, ...]

    def __init__(self, *order: int) -> None:
        object.__setattr__(self, "order", tuple(order))

    def arrange(self, count: int, number: int, seed: int) -> Sequence[int]:
        if self.order and sorted(self.order) != list(range(count)):
            raise LandscapeError(f"expected an order of the numbers 0 to {count - 1}, got {self.order}")
        return self.order or range(count)

    def __repr__(self) -> str:
        return f"Fixed({', '.join(map(str, self.order))})"


@dataclass(frozen=True)
class Shuffled:
    """A new random order every step, drawn from the run's seed."""

    def arrange(self, count: int, number: int, seed: int) -> Sequence[int]:
        return [int(i) for i in generator(seed, "order", number).permutation(count)]


@dataclass(frozen=True)
class Reversed:
    """0, 1, ..., T-1 in one step and T-1, ..., 1, 0 in the next, and so on."""

    def arrange(self, count: int, number: int, seed: int) -> Sequence[int]:
        return range(count)[:: 1 if number % 2 == 0 else -1]


class Serving(Protocol):
    """Which mini-batch serves sub-step `place` of `count` in step `number`."""

    def batch(self, number: int, place: int, count: int) -> int: ...


@dataclass(frozen=True)
class SameBatch:
    """One mini-batch serves every task of a step, as in the authors' code."""

    def batch(self, number: int, place: int, count: int) -> int:
        return number


@dataclass(frozen=True)
class NextBatch:
    """Every sub-step takes the next mini-batch, so that a step of T sub-steps reads T of them."""

    def batch(self, number: int, place: int, count: int) -> int:
        return number * count + place


def pass_over(
    run: Workspace,
    groups: Sequence[Sequence[int]],
    states: Sequence[int],
    batches: Sequence[int],
    reduction: Reduction,
) -> Tensor:
    """One sub-step a group, one after the other; the loss of every task at its own sub-step, [T].

    Cost: as many forwards, backwards and updates as groups.
    """
    losses: list[Tensor | None] = [None] * len(run.tasks)
    for group, state, batch in zip(groups, states, batches, strict=True):
        for task, loss in zip(group, serve(run, batch, group, state, reduction), strict=True):
            losses[task] = loss
    return torch.stack([loss for loss in losses if loss is not None])


def _one_by_one(run: Workspace, number: int, seed: int, order: Order, serving: Serving, own: Sequence[int]) -> Tensor:
    count = len(run.tasks)
    tasks = order.arrange(count, number, seed)
    batches = [serving.batch(number, place, count) for place in range(count)]
    return pass_over(run, [(t,) for t in tasks], [own[t] for t in tasks], batches, Sum())


@dataclass(frozen=True)
class Alternating:
    """For t = 1..T: theta, phi_t <- Opt(theta, phi_t; gradient of L_t), with one optimiser state for theta.

    The authors' individual update steps (arXiv 2109.11678). A sub-step moves the shared parameters and the task's own
    head only. Cost of a step: T forwards, T backwards, T updates.
    """

    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))
    order: Order = Fixed()
    batches: Serving = SameBatch()

    label = "alternating"

    def states(self, tasks: int) -> int:
        return 1

    def updates(self, tasks: int) -> int:
        return tasks

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        return _one_by_one(run, number, seed, self.order, self.batches, [0] * len(run.tasks))


@dataclass(frozen=True)
class Independent:
    """For t = 1..T: theta, phi_t <- Opt_t(theta, phi_t; gradient of L_t), each task with its own optimiser state for
    theta.

    The authors' independent optimisers (arXiv 2109.11678): every sub-step takes fresh gradients at the theta that the
    task before it left. Cost of a step: T forwards, T backwards, T updates; memory: T optimiser states of theta.
    """

    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))
    order: Order = Fixed()
    batches: Serving = SameBatch()

    label = "independent"

    def states(self, tasks: int) -> int:
        return tasks

    def updates(self, tasks: int) -> int:
        return tasks

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        return _one_by_one(run, number, seed, self.order, self.batches, range(len(run.tasks)))
