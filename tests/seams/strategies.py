"""Every strategy with its options, each with what a step of it is, as a table of sub-steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from landscape import Alternating, Averaged, Grouped, Independent, Optimiser, SingleTask
from landscape.strategies import (
    AdaTask,
    Count,
    Fixed,
    Mean,
    NextBatch,
    Reversed,
    SharedState,
    Shuffled,
    Size,
    Strategy,
    Weights,
)

SEED = 4
TASKS = ("red", "green", "blue")
COUNT = len(TASKS)


@dataclass(frozen=True)
class Sub:
    """One update inside a step: the weights of the tasks whose losses are added up, by task number, which optimiser
    state of the shared parameters it uses, and the number of the mini-batch.
    """

    weights: dict[int, float]
    state: int
    batch: int


@dataclass(frozen=True)
class Case:
    """A strategy and its steps; `curved` is how many times the averaged loss a step is on, NaN where it is on another
    mixture or the sub-steps multiply instead of adding up; `whole` whether every task is stepped on with weight one;
    `order` the fixed order of tasks that it states, `mean` whether it steps on their mean.
    """

    name: str
    make: Callable[[Optimiser], Strategy]
    step: Callable[[Strategy, int], Sequence[Sub]]
    curved: float = float("nan")
    whole: bool = True
    at_one_theta: bool = False
    order: tuple[int, ...] = ()
    mean: bool = False


def _together(weights: Sequence[float]) -> Callable[[Strategy, int], Sequence[Sub]]:
    return lambda strategy, number: [Sub(dict(enumerate(weights)), 0, number)]


def _in_turn(
    order: Callable[[Strategy, int], Sequence[int]], own: bool, following: bool = False
) -> Callable[[Strategy, int], Sequence[Sub]]:
    def step(strategy: Strategy, number: int) -> list[Sub]:
        tasks = order(strategy, number)
        batches = [COUNT * number + place if following else number for place in range(COUNT)]
        return [Sub({t: 1.0}, t if own else 0, batch) for t, batch in zip(tasks, batches, strict=True)]

    return step


def _grouped(own: bool, mean: bool = False) -> Callable[[Strategy, int], Sequence[Sub]]:
    def step(strategy: Grouped, number: int) -> list[Sub]:
        groups = strategy.groups(COUNT, number)
        assert sorted(t for group in groups for t in group) == list(range(COUNT))
        found = [
            Sub({t: 1 / len(group) if mean else 1.0 for t in group}, g if own else 0, number)
            for g, group in enumerate(groups)
        ]
        return [found[g] for g in strategy.order.arrange(len(groups), number, SEED)]

    return step


def _as_listed(strategy: Strategy, number: int) -> range:
    return range(COUNT)


def _there_and_back(strategy: Strategy, number: int) -> range:
    return range(COUNT)[:: -1 if number % 2 else 1]


def _drawn(strategy: Strategy, number: int) -> Sequence[int]:
    order: Sequence[int] = Shuffled().arrange(COUNT, number, SEED)
    assert sorted(order) == list(range(COUNT))
    return order


CASES = (
    Case("averaged", Averaged, _together([1, 1, 1]), curved=COUNT),
    Case("averaged, mean", lambda o: Averaged(o, Mean()), _together([1 / 3] * 3), curved=1.0, whole=False, mean=True),
    Case("averaged, weights", lambda o: Averaged(o, Weights(1.0, 0.5, 2.0)), _together([1, 0.5, 2]), whole=False),
    Case("alternating", Alternating, _in_turn(_as_listed, own=False)),
    Case(
        "alternating, fixed order",
        lambda o: Alternating(o, order=Fixed(2, 0, 1)),
        _in_turn(lambda s, n: (2, 0, 1), own=False),
        order=(2, 0, 1),
    ),
    Case("alternating, reversed", lambda o: Alternating(o, order=Reversed()), _in_turn(_there_and_back, own=False)),
    Case(
        "alternating, next batch",
        lambda o: Alternating(o, batches=NextBatch()),
        _in_turn(_as_listed, own=False, following=True),
    ),
    Case("independent", Independent, _in_turn(_as_listed, own=True)),
    Case("independent, shuffled", lambda o: Independent(o, order=Shuffled()), _in_turn(_drawn, own=True)),
    Case(
        "independent, fixed order, next batch",
        lambda o: Independent(o, Fixed(1, 2, 0), NextBatch()),
        _in_turn(lambda s, n: (1, 2, 0), own=True, following=True),
        order=(1, 2, 0),
    ),
    Case("adatask", AdaTask, _in_turn(_as_listed, own=True), curved=COUNT, at_one_theta=True),
    Case("grouped", lambda o: Grouped(optimiser=o), _grouped(own=True)),
    Case(
        "grouped, one state, redrawn, shuffled",
        lambda o: Grouped(Size(2), o, SharedState(), redraw=2, seed=1, order=Shuffled()),
        _grouped(own=False),
    ),
    Case(
        "grouped, mean",
        lambda o: Grouped(Count(2), o, reduction=Mean()),
        _grouped(own=True, mean=True),
        whole=False,
    ),
    Case("single task", lambda o: SingleTask("green", o), lambda s, n: [Sub({1: 1.0}, 0, n)], whole=False),
)

OPTIMISERS = {
    "SGD": Optimiser("SGD", lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": Optimiser("Adam", betas=(0.8, 0.9), lr=0.03),
    "RMSprop": Optimiser("RMSprop", lr=0.01, centered=True, momentum=0.5),
}
