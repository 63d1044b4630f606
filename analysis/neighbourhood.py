"""Losses and gradients of every task around a snapshot, as functions of how far some of the parameters are moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.curvature import Location
from analysis.precision import sufficient
from analysis.results import AVERAGE, Array
from analysis.subsets import Shared, Subset
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.modules import index_tensor
from landscape.problem import Problem


class Neighbourhood:
    """A snapshot and its surroundings: L_t(theta + d) for moves d [n] of a subset of the parameters, and of their
    average, over the whole evaluation set.

    Everything is a pure function of the move, in evaluation mode; other parameters and buffers are constants. Sums over
    examples are float64, and a problem in half precision is computed in float32. `passes` and `gradients` count what
    was done: a forward pass of the set, and a forward with the backward passes of one gradient.

    Raises:
        LandscapeError: theta of another model, or a subset that matches nothing.
    """

    @torch.inference_mode(False)
    def __init__(self, problem: Problem, theta: Array, buffers: Array, on: Subset = Shared()) -> None:
        if theta.shape != (problem.layout.size,):
            raise LandscapeError(
                f"theta has shape {list(theta.shape)}, the problem's layout expects {problem.layout.describe()}"
            )
        problem, _ = sufficient(problem)
        self.problem, self.spans = problem, on.spans(problem.layout)
        self._on, self._trusted = on, False
        self._index = index_tensor(np.r_[self.spans], problem.device)
        self._theta = torch.tensor(theta, dtype=problem.dtype, device=problem.device)
        self._buffers = torch.tensor(buffers, device=problem.device)
        self.passes = self.gradients = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Task names, then `average`: what losses and gradients stand for."""
        return (*self.problem.names, AVERAGE)

    @property
    def size(self) -> int:
        """n"""
        return len(self._index)

    @property
    def device(self) -> torch.device:
        return self._theta.device

    @property
    def origin(self) -> Tensor:
        """The subset's entries of theta, [n] in float64."""
        return self._theta[self._index].double()

    def losses(self, move: Tensor | None = None) -> Array:
        """Losses of every task and of the average at theta + move, [T + 1] in float64. One forward pass."""
        self.passes += 1
        losses = np.asarray(self.problem.evaluate(self._moved(move), self._buffers).losses.cpu())
        return np.append(losses, losses.mean())

    @torch.inference_mode(False)
    def gradient(self, weights: Sequence[float], move: Tensor | None = None) -> tuple[float, Tensor]:
        """sum_t w_t L_t at theta + move, and its gradient [n], both in float64. One gradient."""
        self.gradients += 1
        self._require_gradients()
        value, total = 0.0, torch.zeros(self.size, dtype=torch.float64, device=self.device)
        chosen = [(t, w) for t, w in enumerate(weights) if w]
        for batch in self.problem.evaluation.pieces(self.problem.micro_batch):
            losses, there = self._losses(batch, move)
            with torch.enable_grad():
                summed = torch.stack([w * losses[t].sum(dtype=torch.float64) for t, w in chosen]).sum()
            value += float(summed.detach())
            total += _gradient(summed, there, retain=False)
        count = len(self.problem.evaluation)
        return value / count, total / count

    @torch.inference_mode(False)
    def every_gradient(self, rows: Tensor | None = None) -> Tensor:
        """Gradients of the mean loss of every task on all, or on some of the examples, [T, n] in float64. T gradients
        with one forward pass.
        """
        self.gradients += len(self.problem.tasks) if rows is None else 0
        self._require_gradients()
        chosen = self.problem.evaluation if rows is None else self.problem.evaluation[rows]
        total = torch.zeros(len(self.problem.tasks), self.size, dtype=torch.float64, device=self.device)
        for batch in chosen.pieces(self.problem.micro_batch):
            losses, there = self._losses(batch, None)
            for t, loss in enumerate(losses):
                total[t] += _gradient(loss.sum(dtype=torch.float64), there, retain=t + 1 < len(losses))
        return total / len(chosen)

    def weights(self) -> Array:
        """The weights of the tasks in every loss of `names`, [T + 1, T]."""
        count = len(self.problem.tasks)
        return np.concatenate([np.eye(count), np.full((1, count), 1 / count)])

    def _require_gradients(self) -> None:
        if not self._trusted:
            Location(self.problem, self._theta, self._buffers).require_gradients(self._on)
            self._trusted = True

    def _losses(self, batch: Batch, move: Tensor | None) -> tuple[list[Tensor], Tensor]:
        with torch.enable_grad():
            there = self._moved(move)[self._index].detach().requires_grad_()
            theta = self._theta.index_copy(0, self._index, there)
            return self.problem.task_losses(theta, batch, self._buffers), there

    def _moved(self, move: Tensor | None) -> Tensor:
        if move is None:
            return self._theta
        there = (self.origin + move.to(self.device, torch.float64)).to(self._theta.dtype)
        return self._theta.index_copy(0, self._index, there)


def _gradient(summed: Tensor, there: Tensor, retain: bool) -> Tensor:
    """Zero where the loss does not depend on these parameters."""
    if not summed.requires_grad:
        return torch.zeros_like(there)
    (found,) = torch.autograd.grad(summed, there, retain_graph=retain, materialize_grads=True)
    return found
