"""One optimiser state a task, all gradients at the same theta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.optimisers import Optimiser
from landscape.workspace import Workspace


@dataclass(frozen=True)
class AdaTask:
    """theta <- theta + sum_t d_t, where d_t is what task t's own optimiser would do with g_t at this theta.

    For Adam: theta <- theta - rate sum_t m_t / (sqrt(v_t) + eps) with bias-corrected moments of each task (arXiv
    2211.15055); heads take the ordinary step on their own loss. Equals `Independent` without the sequential effect.
    Cost of a step: 1 forward, T backwards, 1 update; memory: T optimiser states of theta.
    """

    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))

    label = "adatask"

    def states(self, tasks: int) -> int:
        return tasks

    def updates(self, tasks: int) -> int:
        return 1

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        losses = run.losses(run.batches[number], run.tasks)
        gradients = run.gradients_at_one_theta(losses)
        before = run.shared_theta()
        start = [parameter.detach().clone() for parameter in run.shared]
        total: list[Tensor] = []
        for task in run.tasks:
            run.move(task, (task,), gradients[task])
            total = _add_change(total, start, run.shared)
            _set(run.shared, total if task == run.tasks[-1] else start)
        run.count_update(before)
        return torch.stack([loss.detach() for loss in losses])


def _add_change(total: list[Tensor], start: Sequence[Tensor], now: Sequence[Tensor]) -> list[Tensor]:
    """The first task's end point, then plus every other task's change: with one task, exactly its own step."""
    if not total:
        return [end.detach().clone() for end in now]
    return [t + (end.detach() - origin) for t, origin, end in zip(total, start, now, strict=True)]


def _set(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
