"""How large a step along an update may be before a loss rises, and the curvature along it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from analysis.neighbourhood import Neighbourhood
from analysis.results import Array
from landscape.errors import LandscapeError


@dataclass(frozen=True)
class LineSearch:
    """How the critical rate is looked for: over `octaves` doublings up and down from the first guess, then between two
    neighbouring rates `halvings` times; the bracket that is left is 2^(2^-halvings) wide, 2.2 % for 5.
    """

    halvings: int = 5
    octaves: int = 40

    def __post_init__(self) -> None:
        if self.halvings < 0 or self.octaves < 1:
            raise LandscapeError(
                f"expected 0 or more halvings and 1 or more octaves, got {self.halvings} and {self.octaves}"
            )


def critical_rates(
    near: Neighbourhood, update: Tensor, slopes: Array, curvatures: Array, how: LineSearch = LineSearch()
) -> tuple[Array, Array]:
    """For every task and the average the rate at which L(theta - rate u) comes up to L(theta) again, between a low and
    a high one, [T + 1] each.

    2 / rate is the critical sharpness (Kalra et al., arXiv 2601.16979): on a quadratic u'Hu / (g'u), the rate itself
    2 g'u / (u'Hu). A loss of which u is no descent direction rises at once: rate 0. One that
    does not depend on the move, as with a zero u, has none: NaN. One that is not above its start
    after all octaves has an infinite upper bound. `slopes` are g'u and `curvatures` u'Hu, [T + 1] each, which only say
    where to begin: with them a search takes about 2 + `halvings` forward passes, shared by all losses. A loss that
    first rises and falls again between two rates of the ladder of powers of 2 is not seen to do so; one that is not
    finite counts as risen.

    Cost: forward passes, at most 2 (T + 1) (octaves + halvings).
    """
    line = _Line(near, update.to(near.device, torch.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        guesses = 2 * slopes / curvatures
    sound = guesses[np.isfinite(guesses) & (guesses > 0)]
    line.unit = float(sound[-1]) if len(sound) else 1.0 / max(float(update.norm()), 1e-30)
    found = [_bracket(line, j, slopes[j], guesses[j], how) for j in range(len(slopes))]
    low, high = np.array(found).T
    return low, high


@dataclass(eq=False)
class _Line:
    """Losses at rates unit 2^q, each measured once."""

    near: Neighbourhood
    update: Tensor
    unit: float = 1.0
    known: dict[float, Array] = field(default_factory=dict)

    def risen(self, loss: int, power: float) -> bool:
        """Whether a loss is above its start, or not finite."""
        return not bool(self._losses(power)[loss] <= self._losses(-np.inf)[loss])

    def stands(self, loss: int, power: float) -> bool:
        """Whether a loss is what it was at its start: the update is zero, or the loss does not depend on it."""
        return bool(self._losses(power)[loss] == self._losses(-np.inf)[loss])

    def _losses(self, power: float) -> Array:
        """All losses at a rate of 2^power units, evaluated once; the start's at minus infinity."""
        if power not in self.known:
            moved = () if power == -np.inf else (-self.rate(power) * self.update,)
            self.known[power] = self.near.losses(*moved)
        return self.known[power]

    def rate(self, power: float) -> float:
        return float(self.unit * 2.0**power)


def _bracket(line: _Line, loss: int, slope: float, guess: float, how: LineSearch) -> tuple[float, float]:
    if not np.isfinite(slope):
        return np.nan, np.nan
    begin = float(np.round(np.log2(guess / line.unit))) if np.isfinite(guess) and guess > 0 else 0.0
    if slope == 0 and line.stands(loss, begin):
        return np.nan, np.nan
    if slope <= 0:
        return 0.0, 0.0
    up = not line.risen(loss, begin)
    for octave in range(1, how.octaves + 1):
        power = begin + octave if up else begin - octave
        if line.risen(loss, power) == up:
            low, high = (power - 1, power) if up else (power, power + 1)
            break
    else:
        return (line.rate(begin + how.octaves), np.inf) if up else (0.0, line.rate(begin - how.octaves))
    for _ in range(how.halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if line.risen(loss, middle) else (middle, high)
    return line.rate(low), line.rate(high)


def line_curvature(near: Neighbourhood, update: Tensor) -> tuple[Array, Array]:
    """u'H u / ||u||^2 for every task and the average from second differences of the loss, and their errors, [T + 1].

    With v = u / ||u||, (L(h v) - 2 L(0) + L(-h v)) / h^2 at h / 2, where h is the fourth root of the precision. The
    error is the change against h, and what rounding losses can do. It shares nothing with an exact product.
    Beyond the error, it sees what derivatives do not: the kinks of piecewise-linear activations between two steps. NaN
    along an update of length 0, which has no direction.

    Cost: 5 forward passes.
    """
    length = update.norm()
    if not length > 0:
        return np.full(len(near.names), np.nan), np.full(len(near.names), np.nan)
    unit = update.to(near.device, torch.float64) / length
    rounding = torch.finfo(near.problem.dtype).eps
    base, coarse = near.losses(), float(rounding**0.25)

    def second(h: float) -> Array:
        return np.asarray((near.losses(h * unit) + near.losses(-h * unit) - 2 * base) / h**2)

    wide, fine = second(coarse), second(coarse / 2)
    return fine, np.abs(wide - fine) + 4 * rounding * np.abs(base) / (coarse / 2) ** 2
