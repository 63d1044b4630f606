"""One task alone: the baseline that says what sharing costs or gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.errors import unknown
from landscape.optimisers import Optimiser
from landscape.workspace import Workspace


@dataclass(frozen=True)
class SingleTask:
    """theta, phi_t <- Opt(theta, phi_t; gradient of L_t), for one task t by its name; the other heads never move.

    The shared parameters are those of the whole problem, so that distances compare with the other strategies'. Losses
    of all tasks are recorded; those of the others are of heads that were never trained.
    Cost of a step: 1 forward, 1 backward, 1 update.
    """

    task: str
    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))

    @property
    def label(self) -> str:
        return f"only-{self.task}"

    def states(self, tasks: int) -> int:
        return 1

    def updates(self, tasks: int) -> int:
        return 1

    def require(self, names: Sequence[str]) -> None:
        """Raises where there is no task of this name."""
        if self.task not in names:
            raise unknown("task", self.task, names)

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        self.require(run.problem.names)
        own = run.problem.names.index(self.task)
        losses = run.losses(run.batches[number], run.tasks)
        run.update(0, (own,), run.gradient(losses[own], (own,)))
        return torch.stack([loss.detach() for loss in losses])
