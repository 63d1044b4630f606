"""One step on a reduction of the task losses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from landscape.optimisers import Optimiser
from landscape.strategies.base import Reduction, Sum, require_weights, serve
from landscape.workspace import Workspace


@dataclass(frozen=True)
class Averaged:
    """theta, phi <- Opt(theta, phi; gradient of sum_t L_t): all tasks in one step, one optimiser state.

    The authors' simultaneous update step (arXiv 2109.11678) uses the sum; `Mean()` and `Weights(...)` are choices.
    Cost of a step: 1 forward, 1 backward, 1 update.
    """

    optimiser: Optimiser = field(default_factory=lambda: Optimiser("Adam", lr=1e-3))
    reduction: Reduction = Sum()

    label = "averaged"

    def states(self, tasks: int) -> int:
        require_weights(self.reduction, tasks)
        return 1

    def updates(self, tasks: int) -> int:
        return 1

    def step(self, run: Workspace, number: int, seed: int) -> Tensor:
        return torch.stack(serve(run, number, run.tasks, 0, self.reduction))
