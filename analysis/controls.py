"""Control runs: a strategy at the rate at which it moves as far, nominally, as another one.

T sub-steps a batch at one rate move the shared parameters up to T times as far. A control keeps the strategy of the
baseline and takes the movement of the other: what is left of a difference is not a matter of the rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.settings import Settings
from landscape.problem import Problem
from landscape.strategies import Strategy


def matched_rate(control: Strategy, other: Strategy, tasks: int) -> float:
    """The rate at which `control` has the movement of `other`: rate' updates' = rate updates in every step.

    Exact for the budget `movement`, learning rate x updates of the shared parameters. How far theta really moves with
    it is the optimiser's affair: by about the rate a coordinate with Adam, by rate x gradient with SGD.
    """
    return other.optimiser.rate * other.updates(tasks) / control.updates(tasks)


def rates(settings: Settings, own: Sequence[float], problem: Problem) -> list[float]:
    """The rates of a study's strategies, given their own ones, of which those of controls count as nothing."""
    chosen, titles = settings.strategies, [strategy.shown for strategy in settings.strategies]
    found = list(own)
    for number, strategy in enumerate(chosen):
        if strategy.movement_of:
            source = titles.index(strategy.movement_of)
            other = chosen[source].strategy(settings.training.optimiser, own[source])
            mine = strategy.strategy(settings.training.optimiser, own[source])
            found[number] = matched_rate(mine, other, len(problem.tasks))
    return found
