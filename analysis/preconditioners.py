"""Diagonal preconditioners of task steps: what an optimiser like Adam multiplies a gradient with, held fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from analysis.stated import stated
from landscape import store
from landscape.errors import LandscapeError, unknown
from landscape.optimisers import read_states
from landscape.problem import Problem
from landscape.trajectory import UNUSED, Trajectory

EPSILON = 1e-8
KEEPS = {"Adam": "exp_avg_sq", "AdamW": "exp_avg_sq", "RMSprop": "square_avg"}
"""Optimisers that divide by the root of a running mean of squared gradients, and what their state calls it."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What a preconditioner may look at: a snapshot (row -1 and no run: only theta is known), and the mean squares of
    the tasks' gradients over blocks of examples, [T, P].
    """

    problem: Problem
    squares: Tensor
    run: Trajectory | None = None
    row: int = -1


class Preconditioner(Protocol):
    """A diagonal for every task: task t moves theta by -rate P_t g_t."""

    @property
    def word(self) -> str:
        """What it is, for captions and provenance."""
        ...

    def diagonals(self, ground: Ground) -> Tensor | None:
        """[T, P] in float64, or None for the identity."""
        ...


@dataclass(frozen=True)
class Plain:
    """P_t = 1: gradient steps."""

    word = "plain gradient steps"

    def diagonals(self, ground: Ground) -> Tensor | None:
        return None


@dataclass(frozen=True, eq=False)
class Given:
    """Diagonals [T, P] over all of theta, or one [P] for all tasks."""

    values: Tensor
    word: str = "given diagonals"

    def diagonals(self, ground: Ground) -> Tensor | None:
        tasks, size = ground.squares.shape
        values = self.values.to(ground.squares)
        if values.shape not in ((size,), (tasks, size)) or not bool(torch.isfinite(values).all()):
            raise LandscapeError(
                f"expected finite diagonals [{tasks}, {size}] or [{size}], got {list(self.values.shape)}"
            )
        return values.expand(tasks, size)


@dataclass(frozen=True)
class SquaredGradients:
    """P_t = 1 / (sqrt(v_t) + epsilon), v_t the mean over blocks of examples of the squared gradient of task t at the
    snapshot: where Adam's second moment settles at a fixed theta with batches of that size. 0 where v_t is 0.

    Every task has its own, as with one optimiser state a task.
    """

    epsilon: float = EPSILON

    @property
    def word(self) -> str:
        return f"Adam's 1 / (sqrt(v) + {self.epsilon:g}), v from gradients on blocks of examples there"

    def diagonals(self, ground: Ground) -> Tensor | None:
        return _inverse_root(ground.squares, self.epsilon)


@dataclass(frozen=True)
class StoredMoments:
    """P_t = 1 / (sqrt(v_t) + epsilon) with the second moments that the run's own optimisers had at the snapshot, bias
    corrected: of Adam, AdamW and RMSprop; of a centred RMSprop less the squared mean gradient. A strategy with one
    state for theta has one P for all tasks.

    A trajectory keeps the states of its last snapshot only.
    """

    word = "1 / (sqrt(v) + epsilon), v the run's stored second moments"

    def diagonals(self, ground: Ground) -> Tensor | None:
        if ground.run is None:
            raise LandscapeError("stored second moments belong to a run: expected a trajectory, got theta alone")
        said = stated(ground.run.provenance.strategy)
        if said.optimiser not in KEEPS:
            raise LandscapeError(
                f"{ground.run.path} keeps no second moments: expected a run with {', '.join(KEEPS)}, got "
                f"{said.optimiser or ground.run.provenance.strategy!r}; choose the preconditioner adam or none"
            )
        states = read_states(store.state(ground.run.path, ground.row))
        key, beta = KEEPS[said.optimiser], _beta(said.optimiser, said.settings)
        epsilon = float(said.settings.get("eps", EPSILON))
        layout, names = ground.problem.layout, ground.problem.names
        of_theta = [slot for slot in layout.slots if slot.owner not in (*names, UNUSED)]
        of_heads = [slot for name in names for slot in layout.slots if slot.owner == name]
        groups = [of_theta] * (len(states) - bool(of_heads)) + [of_heads] * bool(of_heads)
        shared = groups.count(of_theta)
        if shared not in (1, len(names)):
            raise LandscapeError(
                f"{ground.run.path} keeps {shared} optimiser states for {len(names)} tasks: expected one for all or "
                "one for each; choose the preconditioner adam or none"
            )
        found = torch.zeros_like(ground.squares)
        for number, (slots, state) in enumerate(zip(groups, states, strict=True)):
            rows = slice(number, number + 1) if slots is of_theta and shared > 1 else slice(None)
            for place, slot in enumerate(slots):
                if place in state:
                    value = _second_moment(state[place], key).to(ground.squares).reshape(-1)
                    correction = 1 - beta ** float(state[place]["step"]) if beta else 1.0
                    found[rows, slot.span] = _inverse_root(value / correction, epsilon)
        return found


NAMED: dict[str, type[Plain] | type[SquaredGradients] | type[StoredMoments]] = {
    "none": Plain,
    "adam": SquaredGradients,
    "stored": StoredMoments,
}


def named(word: str) -> Preconditioner:
    """A preconditioner from a word: `none`, `adam` (from the gradients at the snapshot) or `stored`."""
    if word not in NAMED:
        raise unknown("preconditioner", word, NAMED)
    return NAMED[word]()


def _inverse_root(values: Tensor, epsilon: float) -> Tensor:
    return torch.where(values > 0, 1 / (values.sqrt() + epsilon), 0.0)


def _second_moment(state: Mapping[str, Tensor], key: str) -> Tensor:
    """What an optimiser takes the root of: its running mean square, the largest so far where it keeps that (amsgrad),
    or the variance where it keeps the mean too (centred).
    """
    value = state.get(f"max_{key}", state[key]).double()
    return value - state["grad_avg"].double() ** 2 if "grad_avg" in state else value


def _beta(optimiser: str, settings: dict[str, object]) -> float:
    """The decay that is corrected for; RMSprop corrects for none."""
    if optimiser == "RMSprop":
        return 0.0
    betas = settings.get("betas", (0.9, 0.999))
    assert isinstance(betas, Sequence)
    return float(betas[1])
