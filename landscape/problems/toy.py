"""The two-parameter, two-task problem on which CAGrad was introduced (arXiv 2110.14048)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape.errors import LandscapeError
from landscape.problem import Problem, Task

STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
"""The three start points of the paper's figure."""


def toy_losses(x: Tensor) -> Tensor:
    """Both losses at points x [..., 2], shape [..., 2].

    With f1 = ln max(|(-x1 - 7) / 2 - tanh(-x2)|, 5e-6) + 6, f2 = ln max(|(-x1 + 3) / 2 + tanh(-x2) + 2|, 5e-6) + 6,
    q1 = ((-x1 + 7)^2 + 0.1 (-x2 - 8)^2) / 10 - 20, q2 = ((-x1 - 7)^2 + 0.1 (-x2 - 8)^2) / 10 - 20,
    c1 = max(tanh(x2 / 2), 0), c2 = max(tanh(-x2 / 2), 0): L_i = f_i c1 + q_i c2.
    """
    x1, x2 = x[..., 0], x[..., 1]
    floor = torch.tensor(5e-6, dtype=x.dtype, device=x.device)
    f1 = torch.log(torch.maximum((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), floor)) + 6
    f2 = torch.log(torch.maximum((0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs(), floor)) + 6
    q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c1, c2 = torch.tanh(0.5 * x2).clamp(min=0), torch.tanh(-0.5 * x2).clamp(min=0)
    return torch.stack([f1 * c1 + q1 * c2, f2 * c1 + q2 * c2], -1)


class Toy(nn.Module):
    """Predicts the point itself, once for each example."""

    def __init__(self, point: tuple[float, float]) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor(point, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        points = self.point.expand(len(inputs), 2)
        return points, points


def make(start: int = 0) -> Problem:
    """The toy problem from one of its three start points, in float64. Theta is the point [2], all of it shared."""
    if start not in range(len(STARTS)):
        raise LandscapeError(f"expected start 0, 1 or 2, got {start}")
    tasks = [_task(number, name) for number, name in enumerate(("first", "second"))]
    nothing = TensorDataset(*[torch.zeros(1, 1)] * 3)
    return Problem(Toy(STARTS[start]), tasks, nothing, nothing)


def _task(number: int, name: str) -> Task:
    return Task(name, lambda prediction, _: toy_losses(prediction)[..., number])
