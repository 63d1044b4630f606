"""How much a loss rises at most, and on average, when the parameters are moved a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.neighbourhood import Neighbourhood
from analysis.results import Array, Estimate
from landscape.errors import LandscapeError
from landscape.randomness import generator

HALVINGS = 8
"""A step of the ascent that does not rise is halved so often before the ascent ends."""


@dataclass(frozen=True)
class Ascent:
    """How the largest rise is looked for: `steps` of ascent at most from every start, fewer once a step raises the loss
    by less than `tolerance` of the rise; `random` starts beside those of the gradient and of the sharpest direction.
    """

    steps: int = 15
    tolerance: float = 1e-3
    random: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.random < 0 or not self.tolerance >= 0:
            raise LandscapeError(
                f"expected 1 or more steps, 0 or more random starts and a tolerance of 0 or more, got {self.steps}, "
                f"{self.random} and {self.tolerance}"
            )


@dataclass(frozen=True, eq=False)
class Rise:
    """The largest rise found, the move [n] that makes it, and the rise after one step along the gradient."""

    value: float
    move: Tensor
    one_step: float


def worst_case(
    near: Neighbourhood,
    weights: Sequence[float],
    radius: float,
    scale: Tensor,
    directions: Sequence[Tensor] = (),
    how: Ascent = Ascent(),
    seed: int = 0,
) -> Rise:
    """max over ||e|| <= radius of L(theta + D e) - L(theta), for L = sum_t w_t L_t and the diagonal D = `scale` [n].

    The maximum of a loss over a ball is not found with certainty: the value is a lower bound of it, that of the best of
    several ascents. Each goes from e to the point of the ball that lies farthest along the gradient D g, to which
    projected gradient steps tend as they get longer, or part of the way there where the loss would not rise
    (conditional gradient, Frank and Wolfe 1956): on convex losses every step rises. The first starts from the
    gradient's own such point, whose rise is `one_step` (the move of SAM, Foret et al., arXiv 2010.01412; with
    D = |theta| of ASAM, arXiv 2102.11600), the others from the better end of each of the `directions` [n] in e, and of
    random ones. Not moving is a move, so the value is at least 0; where a loss is not finite it is NaN.

    At a minimum of a quadratic it is radius^2 / 2 times the largest eigenvalue of D H D.

    Cost: at most 1 + (starts) (2 + steps) gradients, more where steps have to be halved.
    """
    if not radius > 0:
        raise LandscapeError(f"expected a radius above 0, got {radius}")
    scale = scale.to(near.device, torch.float64)
    climb = _Climb(near, list(weights), radius, scale)
    base, slope = climb.at(torch.zeros_like(scale))
    best, one_step = (0.0, torch.zeros_like(scale)), 0.0
    rng = generator(seed, "worst case")
    drawn = [torch.from_numpy(rng.standard_normal(near.size)).to(near.device) for _ in range(how.random)]
    starts = [(slope,), *((d, -d) for d in (*directions, *drawn))]
    for number, ends in enumerate(starts):
        tried = [(point, *climb.at(point)) for point in map(climb.outwards, ends) if point is not None]
        if number == 0 and tried:
            one_step = tried[0][1] - base
        if not all(np.isfinite(value) for _, value, _ in tried) or not np.isfinite(base):
            return Rise(np.nan, torch.full_like(scale, np.nan), np.nan)
        if tried:
            value, point = climb.ascend(*max(tried, key=lambda one: one[1]), base, how)
            best = max(best, (value - base, point), key=lambda one: one[0])
    return Rise(best[0], scale * best[1], one_step)


class _Climb:
    """A loss over the ball ||e|| <= radius."""

    def __init__(self, near: Neighbourhood, weights: list[float], radius: float, scale: Tensor) -> None:
        self._near, self._weights, self._radius, self._scale = near, weights, radius, scale

    def at(self, point: Tensor) -> tuple[float, Tensor]:
        """The loss at e and its gradient with respect to e."""
        value, gradient = self._near.gradient(self._weights, self._scale * point)
        return value, self._scale * gradient

    def outwards(self, direction: Tensor) -> Tensor | None:
        """The point of the ball that lies farthest along a direction; none where it has no direction."""
        length = direction.to(self._scale).norm()
        return self._radius * direction.to(self._scale) / length if length > 0 and length.isfinite() else None

    def ascend(self, point: Tensor, value: float, slope: Tensor, base: float, how: Ascent) -> tuple[float, Tensor]:
        for _ in range(how.steps):
            goal = self.outwards(slope)
            moved = None if goal is None else self._risen(point, goal, value)
            if moved is None:
                break
            gain, (point, value, slope) = moved[1] - value, moved
            if gain <= how.tolerance * abs(value - base):
                break
        return value, point

    def _risen(self, point: Tensor, goal: Tensor, value: float) -> tuple[Tensor, float, Tensor] | None:
        """The first point on the way back from the goal at which the loss is higher."""
        for halving in range(HALVINGS):
            there = point + 0.5**halving * (goal - point)
            risen, slope = self.at(there)
            if risen > value:
                return there, risen, slope
        return None


def mean_rise(near: Neighbourhood, sigma: float, scale: Tensor, pairs: int = 16, seed: int = 0) -> tuple[Estimate, ...]:
    """E L(theta + D z) - L(theta) for z normal of standard deviation sigma, for every task and the average.

    Draws come in pairs z and -z, which takes away the odd part of the rise; the standard error is over pairs, and does
    not say how other examples would change it. All tasks see the same draws. To second order it is
    sigma^2 / 2 tr(D H D).

    Cost: 2 `pairs` + 1 forward passes.
    """
    if not sigma > 0 or pairs < 1:
        raise LandscapeError(f"expected a sigma above 0 and 1 or more pairs of draws, got {sigma} and {pairs}")
    base, rng = near.losses(), generator(seed, "average case")
    rises: list[Array] = []
    for _ in range(pairs):
        move = sigma * scale.to(near.device) * torch.from_numpy(rng.standard_normal(near.size)).to(near.device)
        rises.append((near.losses(move) + near.losses(-move)) / 2 - base)
    table = np.stack(rises)
    errors = table.std(0, ddof=1) / np.sqrt(pairs) if pairs > 1 else np.full(table.shape[1], np.nan)
    return tuple(Estimate(float(m), float(e), pairs) for m, e in zip(table.mean(0), errors, strict=True))
