"""A problem of one's own: two regressions from one small network, on data made on the spot.

landscape study --problem examples/own_problem.py:make --steps 200 --out own
"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from landscape import Problem, Task


class Net(nn.Module):
    """A trunk that both tasks share, and a head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
        self.heads = nn.ModuleDict({"sine": nn.Linear(16, 1), "product": nn.Linear(16, 1)})

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        shared = self.trunk(inputs)
        return {name: head(shared)[:, 0] for name, head in self.heads.items()}


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One value an example: the toolkit averages, so that it can also tell the error of the average."""
    return (prediction - target) ** 2


def data(count: int, seed: int) -> TensorDataset:
    """Inputs, then one target for each task, in task order."""
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, torch.sin(inputs.sum(1)), inputs[:, 0] * inputs[:, 1])


def make() -> Problem:
    """What the command line calls. `Net` itself is given, not a network: each seed gets weights of its own."""
    tasks = [Task("sine", squared_error), Task("product", squared_error)]
    return Problem(Net, tasks, train=data(1000, 0), evaluation=data(300, 1))
