"""The curvature at which the steps of a run's optimiser become unstable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from analysis.results import Array
from analysis.stated import parse_strategy
from landscape.strategies import (
    AdaTask,
    Alternating,
    Averaged,
    Grouped,
    Mean,
    OwnStates,
    Reduction,
    SingleTask,
    Strategy,
    Sum,
    Weights,
)
from landscape.trajectory import Provenance, Trajectory


@dataclass(frozen=True, eq=False)
class StepLine:
    """For every task and the average the curvature beyond which full-batch steps on that loss diverge, [T + 1]; NaN
    where no such line is known, and why in words.
    """

    values: Array
    words: str


def line_of(run: Trajectory, preconditioned: bool = False) -> StepLine:
    """The step-size line of a run, see `step_line`; none where its history says that the learning rate changed."""
    least, largest = run.rates
    if least < largest:
        words = f"No step-size line: the learning rate changed along the run, between {least:g} and {largest:g}."
        return _none(len(run.tasks), words)
    return step_line(run.provenance, preconditioned)


@dataclass(frozen=True)
class _Limit:
    """The curvature at which an optimiser's steps diverge, less `decay` for every decay of the weights in a step."""

    value: float
    decay: float
    momentum: float
    formula: str


def step_line(who: Provenance, preconditioned: bool = False) -> StepLine:
    """The step-size line of a run.

    SGD's steps theta <- theta - rate v, v <- m v + (1 - d) g, on a quadratic with curvature lambda diverge where lambda
    is beyond 2 (1 + m) / (rate (1 - d)), without momentum and dampening 2 / rate; with Nesterov's momentum beyond
    2 (1 + m) / (rate (1 + 2 m)). Weight decay, a curvature of its own, lowers it.

    Optimisers that scale the gradient by a diagonal P have a line for the preconditioned Hessian P^(1/2) H P^(1/2), P
    held fixed: Adam 2 (1 + b) / (rate (1 - b)) with its first decay b (Cohen et al., arXiv 2207.14484), AdamW (1 + b)
    (2 - rate decay) / (rate (1 - b)), NAdam 2 (1 + b) / (rate (1 - b) (1 + 2 b)) once its momentum has settled, RMSprop
    2 (1 + m) / rate, Adagrad 2 / rate. There is none for other optimisers, nor for those with a weight decay that is
    scaled by P as well, nor for steps that climb.

    The line of a task is that of steps on this loss alone. The average's is that of steps on the sum, at a T-th of it,
    or on the mean, at the whole; AdaTask decays the weights once a task. Sub-steps in turn have no line of the average,
    for they multiply instead of adding up; nor have they one of a task where momentum goes from one task to the next.
    Of a single task only that one has one. A problem of one task has that of its weighted loss, where it has a weight.
    """
    count = len(who.tasks)
    strategy = parse_strategy(who.strategy)
    if strategy is None:
        return _none(count, "No step-size line: the run does not say which optimiser it was trained with.")
    name, settings = strategy.optimiser.name, strategy.optimiser.whole
    rate = float(settings["lr"])
    if not (math.isfinite(rate) and rate > 0) or settings.get("maximize"):
        return _none(count, f"No step-size line: the run's rate is {rate:g}, or it climbs.")
    known = (_PRECONDITIONED if preconditioned else _PLAIN).get(name)
    limit = known(settings) if known is not None else None
    if limit is None:
        what = "the preconditioned Hessian" if preconditioned else "the Hessian itself"
        words = f"trained with {_called(name, settings)}, for which none is known that concerns {what}."
        return _none(count, f"No step-size line: {words}")
    values, remark = _lines(strategy, limit, who.tasks)
    if np.isnan(values).all():
        return _none(count, f"No step-size line:{remark}")
    words = f"Step-size line: {limit.formula}, for full-batch steps on that loss alone; rate {rate:g}.{remark}"
    return StepLine(values, words)


def _none(count: int, words: str) -> StepLine:
    return StepLine(np.full(count + 1, np.nan), words)


def _called(name: str, settings: Mapping[str, Any]) -> str:
    decay = float(settings.get("weight_decay", 0.0))
    return f"{name} with a weight decay of {decay:g}" if decay and name in _PRECONDITIONED else name


def _lines(strategy: Strategy, limit: _Limit, tasks: tuple[str, ...]) -> tuple[Array, str]:
    """The lines [T + 1] of a strategy's steps, and what is to be said of them."""
    count, alone = len(tasks), limit.value - limit.decay
    if count == 1:
        return _of_one_task(strategy, alone)
    if isinstance(strategy, SingleTask):
        values = [alone if name == strategy.task else math.nan for name in tasks]
        return np.array([*values, math.nan]), f" Of {strategy.task!r} only: no step is on another loss."
    in_turn = strategy.updates(count) > 1
    if in_turn and limit.momentum and not _keeps_its_own(strategy):
        return np.full(count + 1, np.nan), " momentum goes from one task's steps to the next one's."
    if in_turn:
        return np.array([alone] * count + [math.nan]), " The average has none: sub-steps are taken in turn."
    average, remark = _of_the_average(strategy, limit, count)
    return np.array([alone] * count + [average]), remark


def _of_one_task(strategy: Strategy, alone: float) -> tuple[Array, str]:
    """The line of the only task, and of the average, which is the same, where steps are on a multiple of its loss."""
    reduction = _reduction(strategy)
    if not isinstance(reduction, Weights):
        return np.array([alone, alone]), ""
    weight = reduction.values[0]
    if weight < 0:
        return np.full(2, np.nan), f" the loss has the weight {weight:g}, so steps climb."
    return np.full(2, alone / weight), f" The loss has the weight {weight:g}: the line is at 1/{weight:g} of that."


def _reduction(strategy: Strategy) -> Reduction:
    """What steps on all losses at once are on."""
    return strategy.reduction if isinstance(strategy, Averaged | Grouped) else Sum()


def _keeps_its_own(strategy: Strategy) -> bool:
    """Whether each task's sub-steps have a momentum of their own."""
    if isinstance(strategy, Grouped):
        return isinstance(strategy.states_of_theta, OwnStates) and not strategy.redraw
    return not isinstance(strategy, Alternating)


def _of_the_average(strategy: Strategy, limit: _Limit, count: int) -> tuple[float, str]:
    """The line of steps on all losses at once."""
    reduction = _reduction(strategy)
    if isinstance(reduction, Mean):
        return limit.value - limit.decay, ""
    if not isinstance(reduction, Sum):
        return math.nan, " The average has none: the tasks are weighted."
    if limit.decay and isinstance(strategy, AdaTask):
        remark = f" The average's is that of steps on the sum, with {count} weight decays, one a task."
        return limit.value / count - limit.decay, remark
    return (limit.value - limit.decay) / count, f" The average's is 1/{count} of it: steps are on the sum."


_Rule: TypeAlias = Callable[[Mapping[str, Any]], _Limit | None]


def _sgd(settings: Mapping[str, Any]) -> _Limit:
    rate, momentum, decay = (float(settings[key]) for key in ("lr", "momentum", "weight_decay"))
    effective = rate * (1 - settings["dampening"] * (momentum > 0))
    limit = 2 * (1 + momentum) / (effective * (1 + 2 * momentum if settings["nesterov"] else 1))
    formula = "2 / rate" if not (momentum or decay) else f"SGD's with momentum {momentum:g} and decay {decay:g}"
    return _Limit(limit, decay, momentum, formula)


def _adam(settings: Mapping[str, Any]) -> _Limit | None:
    if settings.get("decoupled_weight_decay"):
        return _adamw(settings)
    return None if settings["weight_decay"] else _adamw(settings)


def _adamw(settings: Mapping[str, Any]) -> _Limit:
    rate, momentum, decay = float(settings["lr"]), float(settings["betas"][0]), float(settings["weight_decay"])
    factor = (1 + momentum) / (1 - momentum)
    top = "2" if not decay else f"(2 - rate {decay:g})"
    formula = f"{top} (1 + b) / (rate (1 - b)), b = {momentum:g}"
    return _Limit(2 / rate * factor, decay * factor, momentum, formula)


def _nadam(settings: Mapping[str, Any]) -> _Limit | None:
    if settings["weight_decay"] or not settings["momentum_decay"]:
        return None
    rate, momentum = float(settings["lr"]), float(settings["betas"][0])
    limit = 2 * (1 + momentum) / (rate * (1 - momentum) * (1 + 2 * momentum))
    return _Limit(limit, 0.0, momentum, f"2 (1 + b) / (rate (1 - b) (1 + 2 b)), b = {momentum:g}")


def _rmsprop(settings: Mapping[str, Any]) -> _Limit | None:
    if settings["weight_decay"]:
        return None
    rate, momentum = float(settings["lr"]), float(settings["momentum"])
    formula = f"2 (1 + m) / rate, m = {momentum:g}" if momentum else "2 / rate"
    return _Limit(2 * (1 + momentum) / rate, 0.0, momentum, formula)


def _adagrad(settings: Mapping[str, Any]) -> _Limit | None:
    if settings["weight_decay"] or settings["lr_decay"]:
        return None
    return _Limit(2 / float(settings["lr"]), 0.0, 0.0, "2 / rate")


_PLAIN: dict[str, _Rule] = {"SGD": _sgd}
_PRECONDITIONED: dict[str, _Rule] = {
    "Adam": _adam,
    "AdamW": _adamw,
    "NAdam": _nadam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}
