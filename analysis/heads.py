"""What the heads do while the shared parameters move over a plane: choices, as objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from analysis.examples import Examples, training
from analysis.results import Array
from landscape.errors import LandscapeError
from landscape.modules import index_tensor
from landscape.problem import Problem

Refit: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(theta [P], buffers [Q]) -> theta with other heads [P]."""
NOTHING = np.zeros((0, 2), np.int64)


class PlaneHeads(Protocol):
    """What is left of a plane's directions outside the subset of parameters that the plane is about."""

    @property
    def label(self) -> str: ...

    def follow(self, directions: Array, spans: Sequence[slice]) -> Array:
        """Directions [k, P] with the entries outside `spans` as they are to move."""
        ...


@dataclass(frozen=True)
class CentreHeads:
    """Everything outside the subset stays as it is at the centre."""

    label = "centre"

    def follow(self, directions: Array, spans: Sequence[slice]) -> Array:
        kept = np.zeros_like(directions)
        for span in spans:
            kept[:, span] = directions[:, span]
        return kept


@dataclass(frozen=True)
class InterpolatedHeads:
    """Everything outside the subset follows: where a point of the plane mixes snapshots, its heads mix theirs alike.

    For planes and lines whose directions are mixtures of snapshots.
    """

    label = "interpolated"

    def follow(self, directions: Array, spans: Sequence[slice]) -> Array:
        return directions


class MeasuredHeads(Protocol):
    """What is done with the heads at each point before its losses are measured."""

    def words(self, problem: Problem) -> str:
        """What a surface says of it."""
        ...

    def build(self, problem: Problem, moved: Array = NOTHING) -> Refit | None:
        """The function that gives a point its heads, or None where they are the plane's. `moved` has the first and last
        positions of what a plane of some parameters is about [k, 2]: heads in there are its own.
        """
        ...


@dataclass(frozen=True)
class AsThePlanes:
    """The heads that the point of the plane has."""

    def words(self, problem: Problem) -> str:
        return "as the plane's"

    def build(self, problem: Problem, moved: Array = NOTHING) -> Refit | None:
        return None


@dataclass(frozen=True)
class RefittedHeads:
    """Heads fitted again at each point: phi_t <- argmin L_t(theta, phi_t) on frozen training examples.

    Those that a plane of some parameters moves itself stay as it has them.

    By L-BFGS with a strong Wolfe line search, from the point's own heads; shared parameters and statistics stay.
    `iterations` bounds it, so a fit may stop short of its minimum: then the surface is an upper bound of the one of
    the best heads, on the examples it was fitted on. Losses are measured on the surface's examples, not on these.

    Cost a point: about 1.25 gradients of `examples` training examples an iteration.
    """

    iterations: int = 20
    examples: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise LandscapeError(f"expected 1 or more iterations of fitting heads, got {self.iterations}")

    def words(self, problem: Problem) -> str:
        examples = min(self.examples, len(problem.train))
        return f"fitted again at each point, {self.iterations} iterations on {examples} training examples"

    def build(self, problem: Problem, moved: Array = NOTHING) -> Refit | None:
        positions = np.concatenate([problem.layout.index(name) for name in problem.names])
        if not positions.size:
            raise LandscapeError("the model has no heads to fit again: expected parameters that one task alone reaches")
        for first, last in moved:
            positions = positions[(positions < first) | (positions >= last)]
        if not positions.size:
            raise LandscapeError(
                "the plane moves all heads itself: expected some outside its subset to fit again; take the shared "
                "parameters, or the heads as the plane's"
            )
        index = index_tensor(np.sort(positions), problem.device)
        fitted = training(problem, self.examples, self.seed)

        def refit(theta: Tensor, buffers: Tensor) -> Tensor:
            return _fitted(problem, (theta, buffers), index, fitted, self.iterations)

        return refit


def _fitted(
    problem: Problem, start: tuple[Tensor, Tensor], index: Tensor, examples: Examples, iterations: int
) -> Tensor:
    """Theta with the heads at `index` fitted. Where a loss is not finite, the heads stay as they are."""
    theta, buffers = start
    heads = theta[index].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([heads], max_iter=iterations, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=problem.device)
        with torch.enable_grad():
            for batch in examples.batch.pieces(problem.micro_batch):
                moved = theta.index_copy(0, index, heads)
                loss = problem.losses(moved, batch, buffers).sum() / len(examples)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        return total

    before = closure()
    optimiser.step(closure)  # type: ignore[no-untyped-call]
    after = closure()
    if not bool(torch.isfinite(after)) or bool(after > before):
        return theta
    return theta.index_copy(0, index, heads.detach())
