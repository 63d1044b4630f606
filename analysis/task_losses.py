"""Losses, gradients and Hessian products of every task in double precision, over examples that are cut into blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor

from analysis.backward import require_derivatives, require_gradient
from analysis.curvature import Location
from analysis.examples import Examples
from analysis.kinds import Hessian
from analysis.local import twice_differentiable
from analysis.products import Block
from analysis.subsets import Everything
from landscape.errors import LandscapeError, failures_of
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Array

BLOCKS = 10
"""Into so many blocks the examples are cut for standard errors, or into one each where there are fewer."""


def block_count(examples: int) -> int:
    """How many blocks so many examples are cut into."""
    return min(BLOCKS, examples)


Requirement: TypeAlias = Callable[[Block], list[str]]
"""What is held against differences before it is used."""


class TaskLosses:
    """The task losses as functions of all of theta [P], in float64, heads included; buffers are constants.

    The examples are cut into blocks of nearly equal size, in an order that the seed draws since data sets are often
    sorted; means are over all examples, or over all `without` one block. A block goes through the model in
    micro-batches. Evaluation mode; the problem's module stays as it is.

    `told` hears of every gradient and every product over the examples.
    """

    @torch.inference_mode(False)
    def __init__(
        self, problem: Problem, buffers: Array, examples: Examples, seed: int, told: Callable[[int], None]
    ) -> None:
        self._given = problem
        self._problem = problem.to(dtype=torch.float64)
        self._buffers = torch.tensor(buffers, device=problem.device)
        self._batch = examples.batch.to(problem.device, torch.float64)
        self._told = told
        self._trusted: set[tuple[int, Requirement]] = set()
        self.examples = len(self._batch)
        order = torch.from_numpy(generator(seed, "alternation").permutation(self.examples)).to(problem.device)
        self._blocks = torch.tensor_split(order, block_count(self.examples))
        self.shares = torch.tensor(
            [len(rows) / self.examples for rows in self._blocks], dtype=torch.float64, device=problem.device
        )
        """Share of the examples that each block has, [B]."""

    def values(self, theta: Tensor, without: int = -1) -> tuple[Tensor, float]:
        """Loss of every task on every example, [T, N], and the rounding unit of the type that they came in."""
        with torch.no_grad():
            parts = [self._losses(theta, rows) for block in self._kept(without) for rows in self._pieces(block)]
        unit = max(torch.finfo(loss.dtype).eps for losses in parts for loss in losses)
        return torch.cat([torch.stack([loss.double() for loss in losses]) for losses in parts], 1), unit

    @torch.inference_mode(False)
    def gradient(self, theta: Tensor, task: int, without: int = -1) -> Tensor:
        """The gradient of one task's mean loss, [P]. One forward and one backward pass."""
        self._require(require_gradient, theta, task)
        total, kept = torch.zeros_like(theta), self._kept(without)
        for block in kept:
            for rows in self._pieces(block):
                total += self._first(theta, rows, task, block, False)[1]
        self._told(1)
        return total / sum(len(self._blocks[block]) for block in kept)

    def gradients(self, theta: Tensor) -> Tensor:
        """Of every task, [T, P]. One forward and T backward passes."""
        found: Tensor = torch.tensordot(self.shares, self.block_gradients(theta), 1)
        return found

    @torch.inference_mode(False)
    def block_gradients(self, theta: Tensor) -> Tensor:
        """Of every task on every block, [B, T, P]. One forward and T backward passes."""
        tasks = range(len(self._problem.tasks))
        for t in tasks:
            self._require(require_gradient, theta, t)
        found = theta.new_zeros(len(self._blocks), len(tasks), len(theta))
        for block, rows_of_block in enumerate(self._blocks):
            for rows in self._pieces(block):
                leaf = theta.detach().clone().requires_grad_()
                with twice_differentiable():
                    losses = [loss.sum() for loss in self._losses(leaf, rows)]
                for t in tasks:
                    keep = t < tasks[-1]
                    (part,) = torch.autograd.grad(losses[t], leaf, retain_graph=keep, materialize_grads=True)
                    found[block, t] += part
            for t in tasks:
                self._require_finite(found[block, t], "gradient", t, block)
            found[block] /= len(rows_of_block)
        self._told(len(tasks))
        return found

    def without(self, blocks: Tensor, block: int) -> Tensor:
        """The mean of block means [B, ...] over all blocks but one."""
        share, whole = self.shares[block], torch.tensordot(self.shares, blocks, 1)
        left: Tensor = (whole - share * blocks[block]) / (1 - share)
        return left

    @torch.inference_mode(False)
    def products(self, theta: Tensor, task: int, vectors: Tensor, duals: Tensor) -> tuple[Tensor, Tensor]:
        """H v of one task over all of theta, for each of m vectors [m, P], and d' H v on every block, [B, m, d], for
        duals [d, P]. m products by reverse mode over reverse mode, on one graph a micro-batch. Derivatives are held
        against differences first, see `analysis.backward`.
        """
        self._require(require_derivatives, theta, task)
        total, paired = torch.zeros_like(vectors), vectors.new_zeros(len(self._blocks), len(vectors), len(duals))
        for block, rows_of_block in enumerate(self._blocks):
            mean = torch.zeros_like(vectors)
            for rows in self._pieces(block):
                leaf, gradient = self._first(theta, rows, task, block, True)
                mean += torch.stack([_second(gradient, leaf, v) for v in vectors])
            self._require_finite(mean, "product", task, block)
            mean /= len(rows_of_block)
            total += self.shares[block] * mean
            paired[block] = mean @ duals.T
        self._told(len(vectors))
        return total, paired

    def stderr(self, influences: Tensor) -> Tensor:
        """Standard error of a statistic from its influence of every block, [B, ...]: sum_b s_b I_b^2 / (B - 1), with
        the blocks' shares s_b.
        """
        if len(influences) < 2:
            return torch.full_like(influences[0], torch.nan)
        squares: Tensor = torch.tensordot(self.shares, influences**2, 1)
        return (squares / (len(influences) - 1)).sqrt()

    def _require(self, requirement: Requirement, theta: Tensor, task: int) -> None:
        if (task, requirement) not in self._trusted:
            self._trusted.add((task, requirement))
            here = Location(self._given, theta, self._buffers, self._batch)
            with _twice():
                requirement(here.block(self._given.names[task], Everything(), Everything(), Hessian()))

    def _kept(self, without: int) -> list[int]:
        return [block for block in range(len(self._blocks)) if block != without]

    def _pieces(self, block: int) -> tuple[Tensor, ...]:
        return torch.split(self._blocks[block], self._problem.micro_batch)

    def _losses(self, theta: Tensor, rows: Tensor) -> list[Tensor]:
        return self._problem.task_losses(theta, self._batch[rows], self._buffers)

    def _first(self, theta: Tensor, rows: Tensor, task: int, block: int, again: bool) -> tuple[Tensor, Tensor]:
        """theta as a leaf, and the gradient of one task's summed loss, to be differentiated again or not."""
        leaf = theta.detach().clone().requires_grad_()
        with twice_differentiable():
            loss = self._losses(leaf, rows)[task].sum()
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=again, materialize_grads=True)
        self._require_finite(gradient, "gradient", task, block)
        return leaf, gradient

    def _require_finite(self, found: Tensor, what: str, task: int, block: int) -> None:
        if not bool(torch.isfinite(found).all()):
            raise LandscapeError(
                f"the {what} of task {self._problem.names[task]!r} is not finite on block {block} of "
                f"{len(self._blocks)}: expected finite ones; leave this snapshot out, or look at its losses"
            )


def _second(gradient: Tensor, leaf: Tensor, vector: Tensor) -> Tensor:
    if not gradient.requires_grad:
        return torch.zeros_like(vector)
    with _twice():
        found = torch.autograd.grad(gradient, leaf, vector, retain_graph=True, materialize_grads=True)
    return found[0]


def _twice() -> AbstractContextManager[None]:
    expected = "expected a model and losses that can be differentiated twice"
    return failures_of("a second derivative of a loss", expected, (RuntimeError,))
