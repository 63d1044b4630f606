"""Random groups of tasks, one step a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.randomness import generator
from landscape.strategies.base import Reduction, Sum, require_weights
from landscape.strategies.sequential import Fixed, Order, SameBatch, Serving, pass_over
from landscape.workspace import Workspace


class Partition(Protocol):
    """How many tasks each group has."""

    def sizes(self, tasks: int) -> list[int]: ...


@dataclass(frozen=True)
class Count:
    """`groups` groups whose sizes differ by at most one."""

    groups: int

    def sizes(self, tasks: int) -> list[int]:
        if not 1 <= self.groups <= tasks:
            raise LandscapeError(f"expected 1 to {tasks} groups for {tasks} tasks, got {self.groups}")
        return [tasks // self.groups + (g < tasks % self.groups) for g in range(self.groups)]


@dataclass(frozen=True)
class Size:
    """ceil(T / size) groups of `size` tasks, the last one perhaps smaller, as in the authors' code."""

    size: int

    def sizes(self, tasks: int) -> list[int]:
        if not 1 <= self.size <= tasks:
            raise LandscapeError(f"expected groups of 1 to {tasks} of the {tasks} tasks, got {self.size}")
        return [min(self.size, tasks - start) for start in range(0, tasks, self.size)]


class States(Protocol):
    """Which optimiser state of theta serves each group."""

    def numbers(self, groups: int) -> Sequence[int]: ...


@dataclass(frozen=True)
class OwnStates:
    """One optimiser state a group, kept by the group's number when groups are drawn again."""

    def numbers(self, groups: int) -> Sequence[int]:
        return range(groups)


@dataclass(frozen=True)
class SharedState:
    """One optimiser state for all groups."""

    def numbers(self, groups: int) -> Sequence[int]:
        return [0] * groups


@dataclass(frozen=True)
class Grouped:
    """Tasks in random groups; for each group g: theta, phi_g <- Opt_g(theta, phi_g; gradient of sum_{t in g} L_t).

    The authors' random grouping (arXiv 2109.11678): drawn once, without replacement, and kept (`redraw = 0`), or drawn
    again every `redraw` steps. The draw has a generator of its own, seeded by `seed`, so that runs with other seeds
    share the groups; groups of one task stand in task order. Heads keep their own state whichever group they are in.
    One group is `Averaged`; as many groups as tasks is `Independent` with `OwnStates()`, `Alternating` with
    `SharedState()`. Cost of a step: one forward, one backward and one update a group.
    """

    partition: Partition = Count(2)
    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))
    states_of_theta: States = OwnStates()
    redraw: int = 0
    seed: int = 0
    order: Order = Fixed()
    batches: Serving = SameBatch()
    reduction: Reduction = Sum()

    label = "grouped"

    def __post_init__(self) -> None:
        if self.redraw < 0:
            raise LandscapeError(f"expected redraw every 1 or more steps, or 0 for never, got {self.redraw}")

    def groups(self, tasks: int, number: int) -> list[tuple[int, ...]]:
        """The groups of step `number`: task numbers, ascending inside a group."""
        sizes = self.partition.sizes(tasks)
        if max(sizes) == 1:
            return [(t,) for t in range(tasks)]
        drawn = generator(self.seed, "groups", number // self.redraw if self.redraw else 0).permutation(tasks)
        ends = [sum(sizes[: g + 1]) for g in range(len(sizes))]
        return [tuple(sorted(int(t) for t in drawn[end - size : end])) for size, end in zip(sizes, ends, strict=True)]

    def states(self, tasks: int) -> int:
        require_weights(self.reduction, tasks)
        return 1 + max(self.states_of_theta.numbers(len(self.partition.sizes(tasks))))

    def updates(self, tasks: int) -> int:
        return len(self.partition.sizes(tasks))

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        groups = self.groups(len(run.tasks), number)
        own = self.states_of_theta.numbers(len(groups))
        order = self.order.arrange(len(groups), number, seed)
        batches = [self.batches.batch(number, place, len(groups)) for place in range(len(groups))]
        return pass_over(run, [groups[g] for g in order], [own[g] for g in order], batches, self.reduction)
