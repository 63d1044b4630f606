"""What a study will do and how long it will take, from timing a few pieces of the work before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from analysis.operators import hessians
from analysis.settings import Settings
from landscape import training
from landscape.problem import Problem
from landscape.schedules import AtSteps
from landscape.training import Plan

PRODUCTS_A_PAIR = 6
"""Lanczos products that a top eigenpair usually takes, for the estimate only."""


@dataclass(frozen=True)
class Stage:
    """One line of the plan of a study: how many pieces of work of which kind, and the seconds they should take."""

    name: str
    amount: int
    unit: str
    seconds: float


def plan(settings: Settings, problem: Problem, workers: int) -> list[Stage]:
    """The stages of a study from its start. Cost: three steps of each strategy, two evaluations, one product.

    Workers share the jobs of search, training and Hessians; each is taken to be as fast as one alone.
    """
    step = [_step_seconds(settings, problem, number) for number in range(len(settings.strategies))]
    theta, buffers = problem.initial(settings.seeds[0])
    evaluation = _seconds(lambda: problem.evaluate(theta, buffers))
    average = hessians(problem, theta.cpu().numpy(), buffers.cpu().numpy())["average"]
    product = _seconds(lambda: average @ torch.ones(average.size, dtype=average.dtype, device=average.device))
    chosen, count = settings.training, len(settings.strategies)
    searched = [n for n, s in enumerate(settings.strategies) if not s.rate]
    search_runs = len(searched) * len(settings.search.rates)
    search = sum(step[n] for n in searched) * len(settings.search.rates) * settings.search.steps
    snapshots = -(-chosen.steps // chosen.every) + 1
    train = sum(step) * chosen.steps + count * snapshots * evaluation
    planes = 1 if len(settings.seeds) == 1 else 2
    runs_on_planes = count * (len(settings.seeds) + planes - 1)
    feet = 2 * snapshots * runs_on_planes
    points = planes * settings.surface.nx * settings.surface.ny
    at = len(set(settings.hessian.at)) or min(snapshots, settings.hessian.snapshots)
    pairs = count * at * (len(problem.tasks) + 1) * settings.hessian.top
    return [
        Stage("search of learning rates", search_runs, "short runs", _shared(search, search_runs, workers)),
        Stage(
            "training",
            count * len(settings.seeds),
            "runs",
            _shared(train * len(settings.seeds), count * len(settings.seeds), workers),
        ),
        Stage("surface", points, "points", points * evaluation),
        Stage("true losses beside the plane's", feet // 2, "snapshots", feet * evaluation),
        Stage("Hessian eigenvalues", pairs, "pairs", _shared(pairs * PRODUCTS_A_PAIR * product, count, workers)),
    ]


def _shared(seconds: float, pieces: int, workers: int) -> float:
    return seconds / max(1, min(workers, pieces))


def _step_seconds(settings: Settings, problem: Problem, number: int) -> float:
    strategy = settings.strategies[number].strategy(settings.training.optimiser, settings.search.rates[0])
    start = training.start(problem, settings.seeds[0])
    short = Plan(2, settings.training.batch_size, AtSteps([]))
    *_, last = training.train(problem, strategy, short, settings.seeds[0], start)
    return last.seconds / 2


def _seconds(work: Callable[[], object]) -> float:
    work()
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
