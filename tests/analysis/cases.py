"""Small problems that are awkward in one way each, with the same tasks seen through a plain loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from landscape.problem import Problem, Task


class Trunk(nn.Module):
    """Two linear layers shared by two heads; `kind` makes it awkward."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5) if kind == "batch norm" else nn.Identity()
        self.one = nn.Linear(5, 3)
        self.two = nn.Linear(5, 1)
        if kind == "frozen layer":
            self.first.requires_grad_(False)
        if kind == "tied weights":
            self.second.weight = nn.Parameter(torch.randn(5, 5))
            self.third = nn.Linear(5, 5)
            self.third.weight = self.second.weight

    def forward(self, inputs):
        early = self.norm(torch.tanh(self.first(inputs)))
        late = torch.tanh(self.second(early))
        if self.kind == "tied weights":
            late = torch.tanh(self.third(late))
        # The second task of "shallow" leaves `second` to the first one and to a third.
        shallow = early if self.kind == "shallow task" else late
        outputs = {"one": self.one(late), "two": self.two(shallow)}
        if self.kind == "shallow task":
            outputs["three"] = late.sum(1, keepdim=True)
        return outputs


def cross_entropy(prediction, target):
    return F.cross_entropy(prediction, target, reduction="none")


def squared_error(prediction, target):
    return ((prediction - target) ** 2).mean(1)


KINDS = ("plain", "frozen layer", "tied weights", "shallow task", "batch norm")


def make(kind: str = "plain", dtype: torch.dtype = torch.float64, micro_batch: int = 5, examples: int = 13) -> Problem:
    """A problem with 13 examples in micro-batches of 5, 5 and 3, and batch-norm statistics away from their start."""
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randn(examples, 4, generator=rng)
    targets = [torch.randint(0, 3, (examples,), generator=rng), torch.randn(examples, 1, generator=rng)]
    tasks = [Task("one", cross_entropy), Task("two", squared_error)]
    if kind == "shallow task":
        targets.append(torch.randn(examples, 1, generator=rng))
        tasks.append(Task("three", squared_error))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Trunk(kind)
    if kind == "batch norm":
        model.norm.running_mean.copy_(torch.linspace(-0.5, 0.5, 5))
        model.norm.running_var.copy_(torch.linspace(0.5, 2.0, 5))
    data = TensorDataset(inputs, *targets)
    return Problem(model, tasks, data, data, micro_batch=micro_batch).to(dtype=dtype)


def plain_losses(problem: Problem, theta, buffers=None):
    """Mean loss of every task with the weights set into a module and one pass over all the data, [T] in float64."""
    module = problem.module(torch.tensor(theta, dtype=problem.dtype), buffers)
    module.eval()
    with torch.no_grad():
        output = module(problem.evaluation.inputs)
    pairs = zip(problem.tasks, problem.evaluation.targets, strict=True)
    return torch.stack([task.loss(output[task.name], target).double().mean() for task, target in pairs]).numpy()
