"""Passes really taken from a snapshot: one step a task in turn, and one step on the sum of the losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

import torch
from torch import Tensor

from analysis.task_losses import TaskLosses
from landscape.errors import LandscapeError
from landscape.randomness import generator

FEW = 4
"""Of at most so many tasks every order is tried by default."""
DRAWN = 8
"""How many orders are tried of more tasks by default."""


class Orders(Protocol):
    """Which orders are tried for the random-order mean."""

    def drawn(self, tasks: int, seed: int) -> list[tuple[int, ...]]: ...


@dataclass(frozen=True)
class EveryOrder:
    """All T! orders: the mean has no error."""

    def drawn(self, tasks: int, seed: int) -> list[tuple[int, ...]]:
        if tasks > 2 * FEW:
            raise LandscapeError(
                f"expected every order of at most {2 * FEW} tasks, got {tasks} tasks, which have "
                f"{math.factorial(tasks)}; draw some"
            )
        return list(permutations(range(tasks)))


@dataclass(frozen=True)
class DrawnOrders:
    """`count` orders, an even number, in pairs of a random order and the same reversed.

    In a pair every task comes once before and once after every other, so that to second order the mean of a pair is the
    mean over all orders: what is left of chance is of third order.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 2 or self.count % 2:
            raise LandscapeError(
                f"expected an even number of orders, 2 or more, since each is also taken in reverse, got {self.count}"
            )

    def drawn(self, tasks: int, seed: int) -> list[tuple[int, ...]]:
        rng = generator(seed, "alternation", "orders")
        orders = [tuple(int(t) for t in rng.permutation(tasks)) for _ in range(self.count // 2)]
        return [either for order in orders for either in (order, order[::-1])]


@dataclass(frozen=True)
class NoOrders:
    """Only the order in use."""

    def drawn(self, tasks: int, seed: int) -> list[tuple[int, ...]]:
        return []


@dataclass(frozen=True)
class Usual:
    """Every order of up to four tasks, eight drawn ones of more."""

    def drawn(self, tasks: int, seed: int) -> list[tuple[int, ...]]:
        chosen: Orders = EveryOrder() if tasks <= FEW else DrawnOrders(DRAWN)
        return chosen.drawn(tasks, seed)


def sequential(
    losses: TaskLosses,
    theta: Tensor,
    order: Sequence[int],
    rate: float,
    first: Tensor,
    diagonals: Tensor | None,
    without: int = -1,
) -> Tensor:
    """Where one step a task in this order leads from theta: theta <- theta - rate P_t grad L_t(theta), [P].

    A step moves the shared parameters and the task's own head, as the strategies do; the gradient is over all examples,
    or all `without` one block, at the theta that the step before left. `first` [P] is P times the gradient of the first
    task at theta. T - 1 gradients.
    """
    moved = theta - rate * first
    for task in order[1:]:
        gradient = losses.gradient(moved, task, without)
        moved = moved - rate * (gradient if diagonals is None else diagonals[task] * gradient)
    return moved


def averaged(theta: Tensor, steps: Tensor, rate: float) -> Tensor:
    """Where one step on the sum of the losses leads: theta - rate sum_t P_t g_t, every head by its own task's, [P]."""
    return theta - rate * steps.sum(0)


def difference(after: tuple[Tensor, float], beside: tuple[Tensor, float]) -> tuple[Tensor, Tensor]:
    """Mean over examples of losses [T, N] at one point minus those at another, example by example: of every task and
    of their average, [T + 1], with what rounding could make of it.
    """
    (one, unit), (other, _) = after, beside
    size = with_average(one.abs() + other.abs())
    return with_average(one - other).mean(1), unit * size.mean(1)


def with_average(rows: Tensor) -> Tensor:
    """Rows of tasks, and their mean below them."""
    return torch.cat([rows, rows.mean(0, keepdim=True)])


def agreement(gradients: Tensor, shared: Tensor) -> float:
    """A = sum_{i<j} g_i'g_j over the shared entries of gradients [T, P]."""
    kept = gradients[:, shared]
    gram = kept @ kept.T
    return float((gram.sum() - gram.trace()) / 2)
