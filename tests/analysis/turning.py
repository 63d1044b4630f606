"""A problem whose Hessians on the shared parameters turn and change as a clock in each head says: all is known."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import ortho_group
from torch import nn
from torch.utils.data import TensorDataset

from landscape.problem import Problem, Task
from tests.analysis.synthetic import write_run


class Turning(nn.Module):
    """Shared theta [n] and a clock for each task; predicts theta beside the task's clock, a row an example."""

    def __init__(self, size: int, tasks: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(size, dtype=torch.float64))
        self.clocks = nn.ParameterList([nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(tasks)])

    def forward(self, inputs):
        points = self.theta + inputs
        return [torch.cat([points, clock.expand(len(points), 1)], 1) for clock in self.clocks]


class Law:
    """A(c) = Q exp(c S) diag(start + c change) exp(-c S) Q' with S a turn in the planes (a, b) at a rate."""

    def __init__(self, start, change, turns=(), seed=0):
        self.start, self.change = np.asarray(start, float), np.asarray(change, float)
        size = len(self.start)
        self.basis = ortho_group.rvs(size, random_state=seed)
        self.skew = np.zeros((size, size))
        for a, b, rate in turns:
            self.skew[a, b], self.skew[b, a] = -rate, rate

    def vectors(self, clock):
        """The eigenvectors as columns, in the order of `start`."""
        turned = torch.matrix_exp(torch.from_numpy(self.skew) * float(clock)).numpy()
        return self.basis @ turned

    def values(self, clock):
        return self.start + clock * self.change

    def matrix(self, clock):
        vectors = self.vectors(clock)
        return vectors @ np.diag(self.values(clock)) @ vectors.T

    def loss(self, prediction, _):
        theta, clock = prediction[:, :-1], prediction[:, -1]
        turned = torch.matrix_exp(torch.from_numpy(self.skew)[None] * clock[:, None, None])
        inner = torch.einsum("bi,bij->bj", theta @ torch.from_numpy(self.basis), turned)
        values = torch.from_numpy(self.start) + clock[:, None] * torch.from_numpy(self.change)
        return 0.5 * (values * inner**2).sum(1)


def make(*laws: Law) -> Problem:
    size = len(laws[0].start)
    inputs = torch.zeros(4, size, dtype=torch.float64)
    data = TensorDataset(inputs, *[torch.zeros(4, 1)] * len(laws))
    tasks = [Task(f"task{t + 1}", law.loss) for t, law in enumerate(laws)]
    return Problem(Turning(size, len(laws)), tasks, data, data)


def run(path, problem, clocks, theta=None, **settings):
    """A trajectory whose snapshots have these clocks, the same for all tasks."""
    size = len(problem.model.theta)
    there = np.ones(size) if theta is None else np.asarray(theta)
    rows = np.stack([np.concatenate([there, np.full(len(problem.tasks), clock)]) for clock in clocks])
    return write_run(path, rows, problem.layout, tasks=problem.names, **settings)
