"""A user's own file of problems, as the command line reads it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape import Problem, Task


class Net(nn.Module):
    """A shared layer with statistics, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh())
        self.up, self.down = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.body(inputs)
        return {"up": self.up(features), "down": self.down(features)}


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(1)


def data(count: int, seed: int) -> TensorDataset:
    own = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(count, 3, generator=own), torch.randn(count, 1, generator=own)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long(), targets)


def make() -> Problem:
    return Problem(Net, [Task("up", cross_entropy), Task("down", squared)], data(24, 0), data(10, 1), micro_batch=4)


def make_double() -> Problem:
    tasks = [Task("up", cross_entropy), Task("down", squared)]
    return Problem(lambda: Net().double(), tasks, data(24, 0), data(10, 1), micro_batch=4)
