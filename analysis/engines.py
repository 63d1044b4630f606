"""Ways to evaluate a model at many parameter vectors: choices, as objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem


Rows: TypeAlias = Callable[[Batch], Tensor]
"""Losses, then metrics, of every example of a batch at each of K points, [K, T + M, B]."""


class Runner(Protocol):
    """Evaluates one problem. Nothing of the user's module is touched: what is called is a copy."""

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        """The function of a batch at points thetas [K, P] with buffers [K, Q], K at most the engine's `together`, in
        evaluation mode and without gradients. It holds until the next call.
        """
        ...


class Engine(Protocol):
    """How points are evaluated. Its repr is stored with what was measured."""

    @property
    def micro_batch(self) -> int:
        """Examples that go through the model at once."""
        ...

    @property
    def together(self) -> int:
        """Points that are evaluated in one launch."""
        ...

    def build(self, problem: Problem) -> Runner: ...


@dataclass(frozen=True)
class Sequential:
    """One parameter vector after another, `micro_batch` examples at a time.

    The weights of a private copy of the module are views into one vector, so a point costs one copy of theta and
    plain calls of the module.
    """

    micro_batch: int = 128

    together = 1

    def __post_init__(self) -> None:
        if self.micro_batch < 1:
            raise LandscapeError(f"expected micro-batches of 1 or more examples, got {self.micro_batch}")

    def build(self, problem: Problem) -> Runner:
        return _OneByOne(problem)


class _OneByOne:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._module: nn.Module = copy.deepcopy(problem.model).eval().requires_grad_(False)
        self._theta = torch.empty(problem.layout.size, dtype=problem.dtype, device=problem.device)
        parameters = dict(self._module.named_parameters())
        for slot in problem.layout.slots:
            parameters[slot.name].data = self._theta[slot.span].view(slot.shape)
        self._buffers = dict(self._module.named_buffers())

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        self._theta.copy_(thetas[0])
        given = [(self._buffers[name], value) for name, value in self._problem.buffers(buffers[0]).items()]

        def rows(batch: Batch) -> Tensor:
            with torch.no_grad():
                for own, value in given:  # each time: a module may change them while it is called
                    own.copy_(value)
                return self._problem.per_example(self._module(batch.inputs), batch)[None]

        return rows
