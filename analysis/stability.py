"""The curvature at which the steps of a run's optimiser become unstable."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from analysis.results import Array
from landscape.trajectory import Provenance, Trajectory

ADAMS = ("Adam", "AdamW")


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


def step_line(who: Provenance, preconditioned: bool = False) -> StepLine:
    """The step-size line of a run.

    SGD's steps theta <- theta - rate v, v <- m v + (1 - d) g, on a quadratic with curvature lambda diverge where lambda
    is beyond 2 (1 + m) / (rate (1 - d)), without momentum and dampening 2 / rate; with Nesterov's momentum beyond
    2 (1 + m) / (rate (1 + 2 m)). Weight decay, a curvature of its own, lowers it. The line of a task is that of steps
    on this loss alone, as alternating and independent steps take them. The average's is that of steps on the sum, at a
    T-th of it; a pass of sub-steps over the tasks is such a step to first order in the rate. A mean is stepped on at
    the whole.

    Adam's line concerns the preconditioned Hessian P^(1/2) H P^(1/2): 2 (1 + b) / (rate (1 - b)) with its first decay b
    (Cohen et al., arXiv 2207.14484). There is none for other optimisers.
    """
    count = len(who.tasks)
    found = re.search(r"optimiser=(\w+)\((.*?)\)(?=,|\)|$)", who.strategy)
    if found is None:
        return _none(count, "No step-size line: the run does not say which optimiser it was trained with.")
    name, settings = found[1], _numbers(found[2])
    rate = settings.get("lr", who.rate)
    if not (math.isfinite(rate) and rate > 0) or "maximize=True" in found[2]:
        return _none(count, f"No step-size line: the run's rate is {rate:g}, or it climbs.")
    if name in ADAMS and preconditioned:
        momentum = settings.get("first", 0.9)
        formula, decay = f"2 (1 + b) / (rate (1 - b)), b = {momentum:g}", 0.0
        limit = 2 * (1 + momentum) / (rate * (1 - momentum))
    elif name == "SGD" and not preconditioned:
        momentum, decay = settings.get("momentum", 0.0), settings.get("weight_decay", 0.0)
        effective = rate * (1 - settings.get("dampening", 0.0) * (momentum > 0))
        nesterov = "nesterov=True" in found[2]
        limit = 2 * (1 + momentum) / (effective * (1 + 2 * momentum if nesterov else 1))
        formula = "2 / rate" if not (momentum or decay) else f"SGD's with momentum {momentum:g} and decay {decay:g}"
    else:
        what = "the preconditioned Hessian" if preconditioned else "the Hessian itself"
        return _none(count, f"No step-size line: trained with {name}, for which none is known that concerns {what}.")
    share = _weight_of_the_average(who, count)
    average = (limit - decay) / share if who.strategy.startswith("Averaged") else limit / share - decay
    words = f"Step-size line: {formula}, for full-batch steps on that loss alone; rate {rate:g}."
    if math.isnan(share):
        words += " The average has none: the tasks are weighted."
    elif share != 1:
        words += f" The average's is 1/{share:g} of it: steps are on the sum."
    return StepLine(np.array([limit - decay] * count + [average]), words)


def _none(count: int, words: str) -> StepLine:
    return StepLine(np.full(count + 1, np.nan), words)


def _numbers(text: str) -> dict[str, float]:
    """Numbers among an optimiser's settings; of its two decays the first one."""
    found = re.findall(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)(?=,|$)", text)
    decays = re.search(r"betas=[(\[]([\d.e+-]+)", text)
    return {name: float(value) for name, value in found} | ({"first": float(decays[1])} if decays else {})


def _weight_of_the_average(who: Provenance, count: int) -> float:
    """How many times the averaged gradient a step takes; NaN where it is another mixture."""
    reduction = re.search(r"reduction=(\w+)\(", who.strategy)
    kind = reduction[1] if reduction else "Sum"
    whole = who.strategy.startswith("Averaged")
    return {"Sum": float(count), "Mean": 1.0 if whole else math.nan}.get(kind, math.nan)
