"""What a study will do and how long it will take, from timing a few pieces of the work before it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from analysis.examining import tasks_of
from analysis.operators import hessians
from analysis.product_choice import Auto
from analysis.recipes import memory, most_points
from analysis.settings import LINES, Settings, SurfaceSettings
from landscape import training
from landscape.problem import Problem
from landscape.schedules import AtSteps
from landscape.training import Plan

PRODUCTS_A_PAIR = 6
"""Lanczos products that a top eigenpair usually takes, for the estimate only."""
START_SECONDS = 5.0
"""What a worker usually takes to start: a fresh process imports torch and makes the problem; once for each stage."""
FIGURES, FIGURES_A_PLANE = 13, 5
"""How many figures a study usually has, and how many more for every plane; each strategy's eigenvalues are one more."""
FIGURE_SECONDS = 1.7
"""What drawing a figure usually takes: once for the report and in three formats."""
DRAWING_SECONDS = 4.0
"""What the start of the drawing usually takes."""


@dataclass(frozen=True)
class Stage:
    """One line of the plan of a study: how many pieces of work of which kind, and the seconds they should take."""

    name: str
    amount: int
    unit: str
    seconds: float


@dataclass(frozen=True)
class Left:
    """What a study still has to do, the drawing aside."""

    rates: tuple[int, ...]
    """For every strategy, how many learning rates are still to be tried."""
    steps: tuple[tuple[int, ...], ...]
    """For every strategy and every seed, how many training steps are still to be made."""
    points: int
    """Points of surfaces that are still to be measured."""
    feet: int
    """Runs on planes whose true losses are still to be evaluated."""
    spectra: int
    """Runs whose eigenvalues are still to be computed."""


def everything(settings: Settings) -> Left:
    """What a study has to do from its start."""
    seeds, count = len(settings.seeds), len(settings.strategies)
    planes = planes_of(settings)
    return Left(
        rates=tuple(len(settings.search.rates) if s.searched else 0 for s in settings.strategies),
        steps=((settings.training.steps,) * seeds,) * count,
        points=planes * points_of(settings.surface),
        feet=0 if settings.surface.plane in LINES else count * (seeds + planes - 1) * settings.surface.draws,
        spectra=count,
    )


def planes_of(settings: Settings) -> int:
    """How many planes a study has: that of all runs, and that of the first seed's where there are others."""
    return 1 if len(settings.seeds) == 1 else 2


def points_of(chosen: SurfaceSettings) -> int:
    """How many points are measured on one plane or line, at most, all draws, data and statistics counted."""
    once = chosen.nx if chosen.plane in LINES else most_points(chosen)
    return once * chosen.draws * len(chosen.data) * len(chosen.batch_norm)


def snapshots_of(settings: Settings) -> int:
    """How many snapshots a run has: at 0, every so many steps, and at the last one."""
    return -(-settings.training.steps // settings.training.every) + 1


def plan(settings: Settings, problem: Problem, workers: int, left: Left | None = None) -> list[Stage]:
    """The stages of what is left of a study, by default all of it.

    Cost: three steps of each strategy that is still to be trained, two evaluations, two products; nothing is timed that
    no stage needs. Workers share the jobs of search, training and Hessians; each is taken to be as fast as one alone,
    once it has started.
    """
    left = left or everything(settings)
    chosen, count = settings.training, len(settings.strategies)
    trained = [sum(steps) for steps in left.steps]
    step = [_step_seconds(settings, problem, n) if left.rates[n] or trained[n] else 0.0 for n in range(count)]
    runs = sum(steps > 0 for row in left.steps for steps in row)
    evaluation = _evaluation_seconds(problem, settings) if runs or left.points or left.feet else 0.0
    product = _product_seconds(problem, settings) if left.spectra else 0.0
    search = sum(step[n] * left.rates[n] for n in range(count)) * settings.search.steps
    train = sum(step[n] * trained[n] for n in range(count)) + evaluation * (sum(trained) / chosen.every + runs)
    feet = left.feet * snapshots_of(settings)
    at = len(set(settings.hessian.at)) or min(snapshots_of(settings), settings.hessian.snapshots)
    operators = len(settings.hessian.tasks) or len(problem.tasks) + 1
    asked = [task for task in tasks_of(settings.hessian, problem.layout) if task.what == "eigenvalues"]
    pairs = left.spectra * at * operators * settings.hessian.top * len(asked)
    figures = FIGURES + FIGURES_A_PLANE * planes_of(settings) + count
    return [
        Stage("search of learning rates", sum(left.rates), "short runs", _shared(search, sum(left.rates), workers)),
        Stage("training", runs, "runs", _shared(train, runs, workers)),
        Stage("surface", left.points, "points", left.points * evaluation),
        Stage("true losses beside the plane's", feet, "snapshots", 2 * feet * evaluation),
        Stage("Hessian eigenvalues", pairs, "pairs", _shared(pairs * PRODUCTS_A_PAIR * product, left.spectra, workers)),
        Stage("figures and report", figures, "figures", DRAWING_SECONDS + FIGURE_SECONDS * figures),
    ]


def _shared(seconds: float, pieces: int, workers: int) -> float:
    """Seconds of some pieces that workers share, with their start; those beyond the cores wait for each other."""
    together = max(1, min(workers, pieces))
    started = START_SECONDS * max(1.0, together / (os.cpu_count() or 1)) if together > 1 else 0.0
    return seconds / together + started


def _step_seconds(settings: Settings, problem: Problem, number: int) -> float:
    strategy = settings.strategies[number].strategy(settings.training.optimiser, settings.search.rates[0])
    start = training.start(problem, settings.seeds[0])
    short = Plan(2, settings.training.batch_size, AtSteps([]))
    *_, last = training.train(problem, strategy, short, settings.seeds[0], start)
    return last.seconds / 2


def _evaluation_seconds(problem: Problem, settings: Settings) -> float:
    theta, buffers = problem.initial(settings.seeds[0])
    return _seconds(lambda: problem.evaluate(theta, buffers))


def _product_seconds(problem: Problem, settings: Settings) -> float:
    theta, buffers = problem.initial(settings.seeds[0])
    product = Auto(memory(settings.hessian.max_memory))
    average = hessians(problem, theta.cpu().numpy(), buffers.cpu().numpy(), product=product)["average"]
    return _seconds(lambda: average @ torch.ones(average.size, dtype=average.dtype, device=average.device))


def _seconds(work: Callable[[], object]) -> float:
    work()
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
