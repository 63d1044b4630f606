"""What is done with batch-norm statistics at the points of a plane: choices, as objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from analysis.examples import training
from landscape.binding import bind, copied
from landscape.errors import LandscapeError
from landscape.modules import buffers_of, parts, unflatten
from landscape.problem import Problem

Restate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(theta [P], buffers [Q]) -> buffers with other statistics [Q]."""


class Statistics(Protocol):
    """Where the running statistics of normalisation layers come from at each point."""

    def words(self, problem: Problem) -> str:
        """What a surface says of it."""
        ...

    def build(self, problem: Problem) -> Restate | None:
        """The function that gives a point its buffers, or None where they are the plane's."""
        ...


@dataclass(frozen=True)
class Frozen:
    """Those of the plane's origin, everywhere. Far from it they no longer belong to the weights."""

    def words(self, problem: Problem) -> str:
        return "frozen" if uses_statistics(problem) else "none"

    def build(self, problem: Problem) -> Restate | None:
        return None


@dataclass(frozen=True)
class Reestimated:
    """Estimated again at each point from training examples, as `torch.optim.swa_utils.update_bn` does.

    Running mean and variance are the plain means over mini-batches of each mini-batch's mean and (unbiased) variance,
    layer by layer in one pass. Mini-batches differ by at most one example, and have at most `batch_size`. Only the
    normalisation layers are in training mode; dropout stays off.

    Cost a point: one forward pass of `examples` training examples.
    """

    examples: int = 1024
    batch_size: int = 128
    seed: int = 0

    def words(self, problem: Problem) -> str:
        words = f"estimated again at each point, from {min(self.examples, len(problem.train))} training examples"
        return f"{words}, {self.batch_size} at a time at most"

    def build(self, problem: Problem) -> Restate | None:
        if self.batch_size < 2:
            raise LandscapeError(f"expected mini-batches of 2 or more examples for statistics, got {self.batch_size}")
        if min(self.examples, len(problem.train)) < 2:
            raise LandscapeError("expected 2 or more training examples for statistics, got 1: one has no variance")
        module = copied(problem.model).eval()
        layers = {name: part for name, part in parts(module) if has_statistics(part)}
        if not layers:
            raise LandscapeError(
                "the model has no normalisation layer with running statistics: expected one to estimate again; use the "
                "frozen statistics"
            )
        for layer in layers.values():
            layer.train()
            layer.momentum = None  # type: ignore[assignment]
        batch = training(problem, self.examples, self.seed).batch
        ends = np.linspace(0, len(batch), -(-len(batch) // self.batch_size) + 1).astype(int)
        pieces = [batch[first:last] for first, last in itertools.pairwise(ends)]

        def restate(theta: Tensor, buffers: Tensor) -> Tensor:
            state = {**unflatten(problem.layout, theta), **problem.buffers(buffers)}
            for name in layers:
                state[f"{name}.running_mean"].zero_()
                state[f"{name}.running_var"].fill_(1)
                state[f"{name}.num_batches_tracked"].zero_()
            bound = bind(module, state)
            with torch.no_grad():
                for piece in pieces:
                    problem.run(bound, piece.inputs)
            return problem.buffer_layout.pack(buffers_of(bound))

        return restate


def uses_statistics(problem: Problem) -> bool:
    """Whether a problem's model has normalisation layers with running statistics."""
    return any(has_statistics(part) for _, part in parts(problem.model))


def with_batch_statistics(module: nn.Module) -> nn.Module:
    """The same module, its normalisation layers in training mode: they go by the examples that they are given."""
    for _, part in parts(module):
        if has_statistics(part):
            part.train()
    return module


def has_statistics(part: nn.Module) -> bool:
    """Whether a module is a normalisation layer with running statistics."""
    return isinstance(part, _NormBase) and part.running_mean is not None
