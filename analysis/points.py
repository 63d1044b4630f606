"""Losses and metrics, with their errors, at points of a plane or of a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from analysis.engines import BackingOff, Engine, Sequential
from analysis.examples import Examples, evaluation
from analysis.heads import AsThePlanes, MeasuredHeads
from analysis.normalisation import Frozen, Statistics
from analysis.results import Array, Subspace
from analysis.subspaces import require_layout
from landscape.data import Batch
from landscape.problem import Problem

BLOCK = 1 << 16
"""Examples whose losses are held in float64 at once, to be summed."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """Under which conditions points are measured; `examples` default to the evaluation set, the engine to one point
    after another in the problem's own micro-batches.
    """

    engine: Engine | None = None
    statistics: Statistics = field(default_factory=Frozen)
    heads: MeasuredHeads = field(default_factory=AsThePlanes)
    examples: Examples | None = None

    def words(self, problem: Problem) -> dict[str, str | int]:
        """What a surface says of its conditions, by field."""
        on = self.examples or evaluation(problem)
        return {
            "examples": len(on),
            "data": on.hash,
            "split": on.split,
            "batch_norm": self.statistics.words(problem),
            "heads": self.heads.words(problem),
            "engine": repr(self.engine or Sequential(problem.micro_batch)),
        }


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of n points; tasks first, then their average, metrics last. Rows are [n]."""

    loss: Array
    """[T, n]"""
    stderr: Array
    """[T + 1, n] of the losses and of their average."""
    difference_stderr: Array
    """[T + 1, n] paired with the centre."""
    scores: Array
    """[M, n]"""
    score_stderr: Array
    """[M, n]"""

    def copy(self) -> Measured:
        """The same in arrays of its own."""
        return Measured(*(rows.copy() for rows in vars(self).values()))

    def put(self, places: Array, other: Measured) -> None:
        """Writes what is known of some points into their places."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[:, places] = theirs


class Meter:
    """Measures points of one plane or line; the centre's losses are measured first, for paired errors.

    Cost: one forward pass of the examples a point, and what statistics and heads cost; memory of one micro-batch's
    activations, of the centre's losses of every example, and of 2^16 examples' losses in float64.
    """

    def __init__(self, problem: Problem, space: Subspace, conditions: Conditions) -> None:
        require_layout(space, problem.layout)
        self._conditions, engine = conditions, conditions.engine or Sequential(problem.micro_batch)
        self._problem = problem
        self._examples = conditions.examples or evaluation(problem)
        self._origin, self._basis, self._state = (
            torch.tensor(np.ascontiguousarray(v), dtype=torch.float64, device=problem.device)
            for v in (space.origin, space.basis, space.buffers)
        )
        self._restate = conditions.statistics.build(problem)
        self._refit = conditions.heads.build(problem, space.spans)
        self._runner = BackingOff(engine, problem)
        self._pieces: list[Batch] = []
        self._centre: Tensor | None = None
        tasks, metrics = len(problem.tasks), len(problem.metric_names)
        self._rows = np.cumsum([tasks, tasks + 1, tasks + 1, metrics, metrics])

    @property
    def engine(self) -> Engine:
        """What points are evaluated with now: the one asked for, or a smaller one since memory ran out."""
        return self._runner.engine

    @property
    def words(self) -> dict[str, str | int]:
        """What a surface says of its conditions, by field, with the engine that is used now."""
        return {**self._conditions.words(self._problem), "engine": repr(self.engine)}

    @property
    def together(self) -> int:
        """Points in one launch; the same points have to be given together for the same bytes."""
        return self.engine.together

    def nothing(self, count: int) -> Measured:
        """So many points of which nothing is known: NaN everywhere."""
        return Measured(*np.split(np.full((self._rows[-1], count), np.nan), self._rows[:-1]))

    def measure(self, coordinates: Array) -> Measured:
        """Points by their coordinates [n, k], `together` at a time in their order."""
        there = torch.tensor(np.ascontiguousarray(coordinates), dtype=torch.float64, device=self._problem.device)
        return self._gathered(self._theta(group) for group in torch.split(there, self.together))

    def at(self, thetas: Iterable[Array]) -> Measured:
        """Points by their parameters [P], with the plane's buffers."""
        return self._gathered(
            torch.tensor(theta, dtype=self._problem.dtype, device=self._problem.device)[None] for theta in thetas
        )

    def each_below(self, coordinates: Array) -> Tensor:
        """Losses of every example [K, T, N] at coordinates [K, k], at most `together` of them; on the device."""
        there = torch.tensor(coordinates, dtype=torch.float64, device=self._problem.device)
        return self._each_loss(*self._prepared(self._theta(there)))

    def each_at(self, thetas: Array, buffers: Array) -> Tensor:
        """Losses of every example [K, T, N] at parameters [K, P] with buffers [K, Q] as they are, at most `together`
        of them; on the device.
        """
        device = self._problem.device
        return self._each_loss(
            torch.tensor(thetas, dtype=self._problem.dtype, device=device),
            torch.tensor(buffers, dtype=torch.float64, device=device),
        )

    def _each_loss(self, thetas: Tensor, states: Tensor) -> Tensor:
        return self._whole(thetas, states)[:, : len(self._problem.tasks)]

    def _whole(self, thetas: Tensor, states: Tensor) -> Tensor:
        """Losses and metrics of every example, [K, T + M, N]."""
        (rows,) = self._blocks(thetas, states, len(self._examples))
        return rows

    def _gathered(self, groups: Iterable[Tensor]) -> Measured:
        if self._centre is None:
            centre = self._theta(self._origin.new_zeros(1, len(self._basis)))
            self._centre = self._whole(*self._prepared(centre))[0]
        found = torch.cat([self._summed(*self._prepared(group)) for group in groups]).cpu().numpy().T
        return Measured(*np.split(found, self._rows[:-1]))

    def _theta(self, coordinates: Tensor) -> Tensor:
        """Parameters [K, P] at coordinates [K, k], computed in float64 and rounded once."""
        theta = self._origin.expand(len(coordinates), -1)
        for k, direction in enumerate(self._basis):
            theta = theta + coordinates[:, k, None] * direction
        return theta.to(self._problem.dtype)

    def _prepared(self, thetas: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and buffers as the conditions want them."""
        states = self._state.expand(len(thetas), -1)
        if self._restate is not None:
            states = torch.stack([self._restate(theta, self._state) for theta in thetas])
        if self._refit is not None:
            thetas = torch.stack([self._refit(theta, state) for theta, state in zip(thetas, states, strict=True)])
        return thetas, states

    def _blocks(self, thetas: Tensor, states: Tensor, size: int) -> Iterator[Tensor]:
        """Losses and metrics of all examples, [K, T + M, B], `size` or a little more at a time; a block holds until the
        next. It is one tensor from the start: small ones of many micro-batches would lie between the activations and
        leave holes that the next activations do not fit into.
        """
        rows, left = self._runner(thetas, states), len(self._examples)
        if not self._pieces or len(self._pieces[0]) > self.engine.at_once:
            self._pieces = list(self._examples.batch.pieces(self.engine.at_once))
        block, held = None, 0
        for piece in self._pieces:
            found = rows(piece)
            if block is None:
                block = found.new_empty(*found.shape[:2], min(left, size + len(piece) - 1))
            block[:, :, held : held + len(piece)] = found
            held, left = held + len(piece), left - len(piece)
            if held >= size or not left:
                yield block[:, :, :held]
                held = 0

    def _summed(self, thetas: Tensor, states: Tensor) -> Tensor:
        """Everything that is known of K points, [K, 3 T + 2 + 2 M] in float64, on the device."""
        tasks, centre = len(self._problem.tasks), self._centre
        assert centre is not None
        sums, first = _Moments(), 0
        for block in self._blocks(thetas, states, max(1, BLOCK // len(thetas))):
            sums.add(_with_average(block, centre[:, first : first + block.shape[2]], tasks))
            first += block.shape[2]
        mean, error = sums.mean, sums.standard_error
        plain, paired = slice(0, tasks + 1), slice(tasks + 1, 2 * tasks + 2)
        return torch.cat(
            [mean[:, :tasks], error[:, plain], error[:, paired], mean[:, 2 * tasks + 2 :], error[:, 2 * tasks + 2 :]], 1
        )


def _with_average(rows: Tensor, centre: Tensor, tasks: int) -> Tensor:
    """Losses and their average, the same minus the centre's, then metrics, [K, 2 (T + 1) + M, B] in float64."""
    rows, centre = rows.double(), centre.double()
    losses, base = rows[:, :tasks], centre[:tasks]
    losses, base = (torch.cat([part, part.mean(-2, keepdim=True)], -2) for part in (losses, base))
    return torch.cat([losses, losses - base, rows[:, tasks:]], 1)


class _Moments:
    """Mean and variance over examples that come in blocks (Chan, Golub and LeVeque, 1983)."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._square: Tensor | float = 0.0

    def add(self, block: Tensor) -> None:
        """Takes in a block [K, R, B]."""
        count, total = block.shape[2], block.sum(2)
        self._square = self._square + (block - (total / count)[:, :, None]).square().sum(2)
        if self._count:
            change = total / count - self._sum / self._count
            self._square = self._square + change.square() * (self._count * count / (self._count + count))
        self._sum, self._count = self._sum + total, self._count + count

    @property
    def mean(self) -> Tensor:
        """[K, R]"""
        return torch.as_tensor(self._sum / self._count)

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, n - 1 in the variance; NaN for a single example."""
        if self._count == 1:
            return torch.full_like(self.mean, torch.nan)
        return (torch.as_tensor(self._square) / (self._count - 1) / self._count).sqrt()
