"""Problems in two parameters whose barriers and valleys are known in closed form."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis.routes import Point
from landscape.problem import Problem, Task


class Where(nn.Module):
    """Predicts the point itself for every task, beside the example's weight."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([0.3, 0.2], dtype=torch.float64))
        self.tasks = tasks

    def forward(self, weights):
        return [torch.cat([self.point.expand(len(weights), 2), weights], 1)] * self.tasks


def _problem(losses, weights) -> Problem:
    weights = torch.tensor(weights, dtype=torch.float64)[:, None]
    data = TensorDataset(weights, *[torch.zeros(len(weights), 1)] * len(losses))
    tasks = [Task(name, lambda p, _, loss=loss: loss(p[:, 0], p[:, 1], p[:, 2])) for name, loss in losses.items()]
    return Problem(Where(len(losses)), tasks, data, data, micro_batch=2)


WEIGHTS = (0.4, 0.8, 1.0, 1.2, 1.6)
"""Their mean is 1."""


def double_well(weights=WEIGHTS) -> Problem:
    """`well`: w (x^2 - 1)^2 + x / 2, a barrier of w from x = -1 to x = 1; `slope`: 2 + w x, none."""
    return _problem({"well": lambda x, y, w: w * (x**2 - 1) ** 2 + x / 2, "slope": lambda x, y, w: 2 + w * x}, weights)


def ring(weights=WEIGHTS) -> Problem:
    """`ring`: w (x^2 + y^2 - 1)^2, zero on the unit circle; `same`: twice that."""

    def valley(x, y, w):
        return w * (x**2 + y**2 - 1) ** 2

    return _problem({"ring": valley, "same": lambda *at: 2 * valley(*at)}, weights)


def point(name: str, *theta: float) -> Point:
    return Point(name, torch.tensor(theta, dtype=torch.float64).numpy(), torch.zeros(0, dtype=torch.float64).numpy())
