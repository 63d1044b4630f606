"""T quadratic tasks with chosen Hessians and minima: every number that the toolkit computes is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from landscape.randomness import generator
from landscape.trajectory import Array


class Quadratic(nn.Module):
    """Holds theta [n] and a head [h] a task; predicts theta + input and the head, one row an example."""

    def __init__(self, hessians: Array, minima: Array, heads: int) -> None:
        super().__init__()
        self.hessians, self.minima = torch.as_tensor(hessians), torch.as_tensor(minima)
        self.theta = nn.Parameter(torch.randn(self.minima.shape[1], dtype=torch.float64))
        self.heads = nn.ParameterList(
            [nn.Parameter(torch.randn(heads, dtype=torch.float64)) for _ in minima] if heads else []
        )

    def forward(self, inputs: Tensor) -> list[Tensor]:
        points = self.theta + inputs
        if not len(self.heads):
            return [points] * len(self.minima)
        return [torch.cat([points, head.expand(len(inputs), -1)], 1) for head in self.heads]


def make(
    tasks: int = 3,
    size: int = 10,
    heads: int = 2,
    spread: float = 0.0,
    examples: int = 16,
    seed: int = 0,
    hessians: Sequence[Sequence[Sequence[float]]] | None = None,
    minima: Sequence[Sequence[float]] | None = None,
) -> Problem:
    """T quadratic tasks in float64.

    On example i, L_t = 1/2 (theta + e_i - c_t)' A_t (theta + e_i - c_t) + 1/2 ||phi_t||^2, with sum_i e_i = 0, so
    that the mean over examples is 1/2 (theta - c_t)' A_t (theta - c_t) + 1/2 ||phi_t||^2 + 1/2 mean_i e_i' A_t e_i; the
    Hessian on the shared parameters is A_t everywhere. The start is standard normal, drawn for each seed.

    Args:
        tasks, size, heads: T, n, and the entries of each head (0: no heads).
        spread: scale of the e_i; 0 makes all examples alike and mini-batches exact.
        examples: how many, even; the training set is the evaluation set.
        seed: draws A_t (eigenvalues between 0.1 and 10) and c_t where they are not given.
        hessians, minima: A_t [T, n, n], symmetric, and c_t [T, n], given together.

    The model has `hessians` and `minima` as attributes.
    """
    if (hessians is None) != (minima is None):
        raise LandscapeError("expected hessians and minima together, got only one of them: give both, or neither")
    a, c = _drawn(tasks, size, seed) if hessians is None or minima is None else _given(hessians, minima)
    if examples < 2 or examples % 2:
        raise LandscapeError(f"expected an even number of examples, got {examples}")
    half = spread * generator(seed, "quadratic", "examples").standard_normal((examples // 2, a.shape[1]))
    inputs = torch.from_numpy(np.concatenate([half, -half]))
    nothing = [torch.zeros(examples, 1)] * len(a)
    data = TensorDataset(inputs, *nothing)
    tasks_of_all = [_task(t, a[t], c[t]) for t in range(len(a))]
    return Problem(lambda: Quadratic(a, c, heads), tasks_of_all, data, data, shared=["theta"])


def _task(number: int, hessian: Array, minimum: Array) -> Task:
    a, c = torch.from_numpy(hessian), torch.from_numpy(minimum)

    def loss(prediction: Tensor, _: Tensor) -> Tensor:
        offset, head = prediction[:, : len(c)] - c.to(prediction), prediction[:, len(c) :]
        return 0.5 * ((offset @ a.to(prediction)) * offset).sum(1) + 0.5 * (head**2).sum(1)

    return Task(f"task{number + 1}", loss)


def _drawn(tasks: int, size: int, seed: int) -> tuple[Array, Array]:
    if tasks < 1 or size < 1:
        raise LandscapeError(f"expected 1 or more tasks and a size of 1 or more, got {tasks} and {size}")
    rng = generator(seed, "quadratic")
    turns = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(tasks)]
    scales = 10.0 ** rng.uniform(-1, 1, (tasks, size))
    a = np.stack([q @ np.diag(s) @ q.T for q, s in zip(turns, scales, strict=True)])
    return (a + a.transpose(0, 2, 1)) / 2, rng.standard_normal((tasks, size))


def _given(hessians: Sequence[Sequence[Sequence[float]]], minima: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    a, c = np.array(hessians, np.float64), np.array(minima, np.float64)
    if a.ndim != 3 or c.shape != a.shape[:2] or a.shape[1] != a.shape[2] or not np.allclose(a, a.transpose(0, 2, 1)):
        raise LandscapeError(
            f"expected symmetric hessians [T, n, n] and minima [T, n], got {list(a.shape)} and {list(c.shape)}"
        )
    return a, c
