"""Curves of low loss between two points: a quadratic Bezier curve whose middle point is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from analysis.normalisation import uses_statistics, with_batch_statistics
from analysis.results import Array, TrainedCurve
from analysis.routes import Bezier, Point
from landscape.errors import LandscapeError
from landscape.modules import unflatten
from landscape.optimisers import Optimiser, load_states, save_states
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.workspace import Batches

STRETCH = 25
"""Steps after which what is done is reported."""
SHAKE = 1e-3
"""How far the middle begins from the mean of the ends, as a share of their distance."""


@dataclass(frozen=True)
class CurvePlan:
    """How a curve is trained."""

    steps: int = 400
    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=3e-3))
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LandscapeError(f"expected 1 or more steps for a curve, got {self.steps}")


def train(
    problem: Problem, first: Point, last: Point, plan: CurvePlan, before: TrainedCurve | None = None
) -> TrainedCurve:
    """The trained curve; see `training`, of which this is the last word."""
    *_, found = training(problem, first, last, plan, before)
    return found


def training(
    problem: Problem, first: Point, last: Point, plan: CurvePlan, before: TrainedCurve | None = None
) -> Iterator[TrainedCurve]:
    """Trains the middle m of theta(t) = (1 - t)^2 first + 2 t (1 - t) m + t^2 last, and yields it now and then.

    Minimises E_t mean_tasks L(theta(t)) over training mini-batches, t uniform on [0, 1], one draw a step (Garipov,
    Izmailov, Podoprikhin, Vetrov and Wilson, 2018, arXiv 1802.10026); the ends stay fixed. m begins at the mean of the
    ends, moved by a thousandth of their distance in a random direction: where a landscape is symmetric about the line,
    no gradient leads away from it. Normalisation layers use the mini-batch's statistics, dropout is off. Every draw is
    a function of the seed and the step, so that going on with `before` gives the same bytes.

    Cost: one gradient of a mini-batch a step.

    Raises:
        LandscapeError: a loss that is not finite, a curve of another plan or model to go on with, or mini-batches of
            one example for a model whose statistics need two.
    """
    if plan.batch_size < 2 and uses_statistics(problem):
        raise LandscapeError(
            "expected mini-batches of 2 or more examples for a curve of a model with statistics, got 1"
        )
    layout, dtype = problem.layout, problem.dtype
    ends = [torch.tensor(end.theta, dtype=torch.float64, device=problem.device) for end in (first, last)]
    start = _start(first, last, plan.seed) if before is None else _taken_over(problem, first, last, plan, before)
    middle = nn.Parameter(torch.tensor(start, dtype=dtype, device=problem.device))
    optimiser = plan.optimiser.build([middle])
    losses: list[float] = []
    if before is not None:
        losses = [float(loss) for loss in before.losses]
        load_states([optimiser], before.state.tobytes())
    loss_of, batches = _Loss(problem, first), Batches(problem, plan.batch_size, plan.seed)

    def record() -> TrainedCurve:
        return TrainedCurve(
            start=first.name,
            end=last.name,
            middle=np.asarray(middle.detach().cpu().numpy()).copy(),
            losses=np.array(losses),
            steps=plan.steps,
            optimiser=repr(plan.optimiser),
            batch_size=plan.batch_size,
            seed=plan.seed,
            state=np.frombuffer(save_states([optimiser]), np.uint8),
            layout=layout.hash,
        )

    if len(losses) >= plan.steps:
        yield record()
    for step in range(len(losses), plan.steps):
        t = float(generator(plan.seed, "curve", step).uniform())
        fixed = ((1 - t) ** 2 * ends[0] + t**2 * ends[1]).to(dtype)
        loss = loss_of(fixed + 2 * t * (1 - t) * middle, step, batches)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise LandscapeError(
                f"the loss on the curve from {first.name} to {last.name} became {losses[-1]:g} at step {step + 1}: "
                "expected a finite one; try a smaller --rate"
            )
        (middle.grad,) = torch.autograd.grad(loss, [middle])
        optimiser.step()
        if len(losses) % STRETCH == 0 or len(losses) == plan.steps:
            yield record()


def path_of(curve: TrainedCurve, first: Point, last: Point) -> Bezier:
    """The curve as a path."""
    return Bezier(first, last, np.asarray(curve.middle, np.float64))


class _Loss:
    """The average over tasks of a mini-batch's mean losses, with the mini-batch's statistics in norm layers."""

    def __init__(self, problem: Problem, point: Point) -> None:
        self._problem = problem
        self._buffers = torch.tensor(point.buffers, dtype=torch.float64)

    def __call__(self, theta: Tensor, step: int, batches: Batches) -> Tensor:
        problem, batch = self._problem, batches[step]
        bound = problem.bound(unflatten(problem.layout, theta), problem.buffers(self._buffers))
        predicted = problem.run(with_batch_statistics(bound), batch.inputs)
        rows = zip(problem.tasks, predicted, batch.targets, strict=True)
        return torch.stack([task.loss(prediction, target).mean() for task, prediction, target in rows]).mean()


def _start(first: Point, last: Point, seed: int) -> Array:
    between = (first.theta + last.theta) / 2
    noise = generator(seed, "curve", "middle").standard_normal(len(between))
    distance = float(np.linalg.norm(last.theta - first.theta))
    return np.asarray(between + SHAKE * distance / np.linalg.norm(noise) * noise)


def _taken_over(problem: Problem, first: Point, last: Point, plan: CurvePlan, before: TrainedCurve) -> Array:
    mine = (first.name, last.name, repr(plan.optimiser), plan.batch_size, plan.seed, problem.layout.hash)
    theirs = (before.start, before.end, before.optimiser, before.batch_size, before.seed, before.layout)
    if mine != theirs:
        raise LandscapeError(f"the curve to go on with is another one: expected {mine}, got {theirs}; train anew")
    return np.asarray(before.middle)
