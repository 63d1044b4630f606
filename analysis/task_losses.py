"""Losses, gradients and Hessian products of every task in double precision, over examples that are cut into blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.examples import Examples
from landscape.data import Batch
from landscape.errors import LandscapeError, failures_of
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Array

BLOCKS = 16
"""Standard errors come from at least so many blocks of the examples, where there are so many examples."""


def block_size(problem: Problem, examples: int) -> int:
    """How many examples a block has: a micro-batch, or fewer so that there are at least 16 blocks."""
    return max(1, min(problem.micro_batch, examples // BLOCKS))


class TaskLosses:
    """The task losses as functions of all of theta [P], in float64, heads included; buffers are constants.

    The examples are cut into blocks in an order that the seed draws; a block is a micro-batch, or smaller so that there
    are at least 16. Means are over all examples. Evaluation mode; the problem's module stays as it is.

    `told` hears of every gradient and every product over all the examples.
    """

    def __init__(
        self, problem: Problem, buffers: Array, examples: Examples, seed: int, told: Callable[[int], None]
    ) -> None:
        self._problem = problem.to(dtype=torch.float64)
        self._buffers = torch.tensor(buffers, device=problem.device)
        self._batch = examples.batch.to(problem.device, torch.float64)
        self._told = told
        self.examples = len(self._batch)
        order = torch.from_numpy(generator(seed, "alternation").permutation(self.examples)).to(problem.device)
        self.blocks = torch.split(order, block_size(problem, self.examples))
        self.shares = torch.tensor([len(rows) for rows in self.blocks], dtype=torch.float64, device=problem.device)
        """Examples of each block."""

    @property
    def block(self) -> int:
        """Examples of the first block: of every one but perhaps the last."""
        return len(self.blocks[0])

    def values(self, theta: Tensor) -> tuple[Tensor, float]:
        """Loss of every task on every example, [T, N], and the rounding unit of the type that they came in."""
        with torch.no_grad():
            parts = [self._losses(theta, self._batch[rows]) for rows in self.blocks]
        unit = max(torch.finfo(loss.dtype).eps for losses in parts for loss in losses)
        return torch.cat([torch.stack([loss.double() for loss in losses]) for losses in parts], 1), unit

    def gradient(self, theta: Tensor, task: int) -> Tensor:
        """The gradient of one task's mean loss, [P]. One forward and one backward pass."""
        total = torch.zeros_like(theta)
        for number, rows in enumerate(self.blocks):
            total += self._first(theta, rows, task, number, False)[1]
        self._told(1)
        return total / self.examples

    def gradients(self, theta: Tensor) -> Tensor:
        """Of every task, [T, P]. One forward and T backward passes."""
        return self._every_gradient(theta, lambda block: None)

    def block_gradients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of every task, [T, P], and its mean on every block, [B, T, P], in single precision to save
        memory. One forward and T backward passes.
        """
        kept: list[Tensor] = []
        total = self._every_gradient(theta, lambda block: kept.append(block.float()))
        return total, torch.stack(kept)

    def products(self, theta: Tensor, task: int, vectors: Tensor, duals: Tensor) -> tuple[Tensor, Tensor]:
        """H v of one task over all of theta, for each of m vectors [m, P], and d' H v on every block, [B, m, d], for
        duals [d, P]. m products by reverse mode over reverse mode, on one graph a block.
        """
        total, paired = torch.zeros_like(vectors), []
        for number, rows in enumerate(self.blocks):
            leaf, gradient = self._first(theta, rows, task, number, True)
            found = torch.stack([self._second(gradient, leaf, v) for v in vectors])
            self._require_finite(found, "product", task, number)
            total += found
            paired.append(found @ duals.T / len(rows))
        self._told(len(vectors))
        return total / self.examples, torch.stack(paired)

    def stderr(self, influences: Tensor) -> Tensor:
        """Standard error of a statistic from its influence on every block, [B, ...]: sum_b n_b I_b^2 / ((B - 1) N)."""
        if len(influences) < 2:
            return torch.full_like(influences[0], torch.nan)
        squares = torch.tensordot(self.shares, influences**2, 1)
        return (squares / ((len(influences) - 1) * self.examples)).sqrt()

    def _losses(self, theta: Tensor, batch: Batch) -> list[Tensor]:
        return self._problem.task_losses(theta, batch, self._buffers)

    def _every_gradient(self, theta: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
        tasks = range(len(self._problem.tasks))
        total = theta.new_zeros(len(tasks), len(theta))
        for number, rows in enumerate(self.blocks):
            leaf = theta.detach().clone().requires_grad_()
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                losses = [loss.sum() for loss in self._losses(leaf, self._batch[rows])]
            found = torch.stack(
                [
                    torch.autograd.grad(losses[t], leaf, retain_graph=t < tasks[-1], materialize_grads=True)[0]
                    for t in tasks
                ]
            )
            for t in tasks:
                self._require_finite(found[t], "gradient", t, number)
            total += found
            keep(found / len(rows))
        self._told(len(tasks))
        return total / self.examples

    def _first(self, theta: Tensor, rows: Tensor, task: int, number: int, again: bool) -> tuple[Tensor, Tensor]:
        """theta as a leaf, and the gradient of one task's summed loss on a block, to be differentiated again or not."""
        leaf = theta.detach().clone().requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            loss = self._losses(leaf, self._batch[rows])[task].sum()
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=again, materialize_grads=True)
        self._require_finite(gradient, "gradient", task, number)
        return leaf, gradient

    def _second(self, gradient: Tensor, leaf: Tensor, vector: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(vector)
        with failures_of(
            "a second derivative of a loss",
            "expected a model and losses that can be differentiated twice",
            (RuntimeError,),
        ):
            (product,) = torch.autograd.grad(gradient, leaf, vector, retain_graph=True, materialize_grads=True)
        return product

    def _require_finite(self, found: Tensor, what: str, task: int, number: int) -> None:
        if not bool(torch.isfinite(found).all()):
            raise LandscapeError(
                f"the {what} of task {self._problem.names[task]!r} is not finite on block {number} of "
                f"{len(self.blocks)}: expected finite ones; leave this snapshot out, or look at its losses"
            )
