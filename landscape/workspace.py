"""The moving parts of one run: theta with its parameter views, buffers, optimisers, counters and path lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.modules import buffers_of, unflatten
from landscape.optimisers import Optimiser, load_states, save_states
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import UNUSED, Snapshot


class Batches:
    """Mini-batches by number: a fresh permutation every epoch, a pure function of the seed and the number.

    A last incomplete batch of an epoch is left out (another one next epoch); a set smaller than a batch is one batch.
    """

    def __init__(self, problem: Problem, size: int, seed: int) -> None:
        if size < 1:
            raise LandscapeError(f"expected a batch size of 1 or more, got {size}")
        self._problem, self._seed = problem, seed
        self._size = min(size, len(problem.train))
        self._epoch, self._order = -1, np.arange(0)

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(number, len(self._problem.train) // self._size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = generator(self._seed, "batches", epoch).permutation(len(self._problem.train))
        rows = self._order[place * self._size : (place + 1) * self._size]
        return self._problem.train.take(rows).to(self._problem.device, self._problem.dtype)


class Workspace:
    """What a strategy's step works on.

    Every parameter is a view into one flat theta. The shared parameters have one optimiser per state that the strategy
    keeps; the heads have one of their own, in which a head that was given no gradient is not touched.
    """

    def __init__(self, problem: Problem, optimiser: Optimiser, states: int, batches: Batches, start: Snapshot) -> None:
        self.problem, self.batches = problem, batches
        theta = torch.tensor(start.theta, dtype=problem.dtype, device=problem.device)
        self.theta = theta.clone()
        self.parameters = {n: nn.Parameter(view) for n, view in unflatten(problem.layout, self.theta).items()}
        self.module = problem.bound(self.parameters, problem.buffers(torch.tensor(start.buffers))).train()
        owned = [(slot.owner, self.parameters[slot.name]) for slot in problem.layout.slots if slot.owner != UNUSED]
        self._unused = {s.name: self.parameters[s.name] for s in problem.layout.slots if s.owner == UNUSED}
        self.heads = [[p for owner, p in owned if owner == name] for name in problem.names]
        self.shared = [p for owner, p in owned if owner not in problem.names]
        every_head = [p for head in self.heads for p in head]
        self._of_shared = [optimiser.build(self.shared) for _ in range(states)] if self.shared else []
        self._of_heads = [optimiser.build(every_head)] if every_head else []
        if start.state:
            load_states(self.optimisers, start.state)
        self.updates, self.gradients = start.updates, start.gradients
        self.path_steps, self.path_updates = (
            torch.tensor(length, dtype=torch.float64, device=problem.device)
            for length in (start.path_steps, start.path_updates)
        )
        self._spans = problem.layout.spans()

    @property
    def optimisers(self) -> list[torch.optim.Optimizer]:
        """All optimisers, shared states first."""
        return [*self._of_shared, *self._of_heads]

    @property
    def tasks(self) -> tuple[int, ...]:
        """Task numbers, in order."""
        return tuple(range(len(self.problem.tasks)))

    def saved_state(self) -> bytes:
        """The optimisers' states, for a snapshot."""
        return save_states(self.optimisers)

    def shared_theta(self) -> Tensor:
        """A copy of the shared entries of theta."""
        return torch.cat([self.theta[span] for span in self._spans]) if self._spans else self.theta[:0]

    def losses(self, batch: Batch, tasks: Sequence[int]) -> list[Tensor]:
        """Mean training loss of these tasks on a batch, differentiable. One forward pass in the module's training
        mode.
        """
        predictions = self.problem.run(self.module, batch.inputs)
        return [self.problem.tasks[t].loss(predictions[t], batch.targets[t]).mean() for t in tasks]

    def gradient(self, total: Tensor, tasks: Sequence[int]) -> list[Tensor | None]:
        """d total / d (shared, then the heads of these tasks): one backward pass, counted as one gradient."""
        self.gradients += 1
        return self._gradient(total, tasks, keep=False)

    def gradients_at_one_theta(self, losses: Sequence[Tensor]) -> list[list[Tensor | None]]:
        """The gradient of every task's loss from one forward pass: T backward passes, counted as T gradients."""
        self.gradients += len(losses)
        return [self._gradient(loss, (t,), keep=t + 1 < len(losses)) for t, loss in enumerate(losses)]

    def _gradient(self, loss: Tensor, tasks: Sequence[int], keep: bool) -> list[Tensor | None]:
        moved = self._moved_by(tasks)
        found = torch.autograd.grad(loss, [*moved, *self._unused.values()], retain_graph=keep, allow_unused=True)
        self.problem.warn_of_unused(list(self._unused), found[len(moved) :])
        return list(found[: len(moved)])

    def update(self, state: int, tasks: Sequence[int], gradients: Sequence[Tensor | None]) -> None:
        """One step of shared state number `state` and of these tasks' heads; adds to the finer path length."""
        before = self.shared_theta()
        self.move(state, tasks, gradients)
        self.count_update(before)

    def move(self, state: int, tasks: Sequence[int], gradients: Sequence[Tensor | None]) -> None:
        """The optimisers' steps alone, without counting."""
        for parameter in self.parameters.values():
            parameter.grad = None
        for moved, gradient in zip(self._moved_by(tasks), gradients, strict=True):
            moved.grad = gradient
        for optimiser in [*self._of_shared[state : state + 1], *self._of_heads]:
            optimiser.step()

    def count_update(self, before: Tensor) -> None:
        """Counts one change of the shared parameters from `before` to now."""
        self.updates += 1
        self.path_updates += torch.linalg.vector_norm(self.shared_theta() - before, dtype=torch.float64)

    def flat_buffers(self) -> Tensor:
        """Buffers as one float64 vector [Q]."""
        return self.problem.buffer_layout.pack(buffers_of(self.module))

    def _moved_by(self, tasks: Sequence[int]) -> list[Tensor]:
        return [*self.shared, *(p for t in tasks for p in self.heads[t])]
