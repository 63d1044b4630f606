"""How far to look: the range of a grid from a target rise of the loss."""

from __future__ import annotations

import numpy as np

from analysis.points import Conditions, Meter
from analysis.results import Array, Plane, Subspace
from analysis.subspaces import restricted, spans_of
from analysis.surfaces import Grid
from landscape.errors import LandscapeError
from landscape.problem import Problem

FIRST = 1e-3
"""The first distance that is tried, as a share of the norm of the origin."""
DOUBLINGS = 40
HALVINGS = 5
"""Halvings of the last doubling, so that a distance is known to 1 / 2^5 of itself."""


def rising(
    problem: Problem,
    plane: Plane,
    rise: float,
    nx: int = 25,
    ny: int | None = None,
    conditions: Conditions = Conditions(),
) -> Grid:
    """The grid that ends where the averaged loss has risen by `rise` times its value at the origin, in each of the four
    directions by itself.

    Distances are doubled until |L - L_0| >= rise |L_0| with L above L_0, or L is not finite, then halved into: the
    first rise on that scale counts, narrower ones before it are not seen.
    Cost: about 15 forward passes a direction.

    Raises:
        LandscapeError: a loss of zero or not finite at the origin, or one that does not rise in some direction.
    """
    meter = Meter(problem, plane, conditions)
    reached = [distances(meter, plane, rise, axis) for axis in (0, 1)]
    low, high = np.array([[-back, forth] for back, forth in reached]).T
    return Grid.between(low, high, nx, ny)


def distances(meter: Meter, space: Subspace, rise: float, axis: int) -> tuple[float, float]:
    """How far backwards and forwards along one axis of a plane or a line the averaged loss rises, in coordinates."""
    if not rise > 0:
        raise LandscapeError(f"expected a rise above zero, as a multiple of the loss at the origin, got {rise}")
    start = _average(meter, space, axis, 0.0)
    if not np.isfinite(start) or start == 0:
        raise LandscapeError(
            f"the averaged loss at the plane's origin is {start:g}: expected a finite one other than zero to rise "
            "from; give the range as --reach"
        )
    target = start + rise * abs(start)
    backwards, forwards = (_distance(meter, space, (axis, sign), target) for sign in (-1.0, 1.0))
    return backwards, forwards


def _distance(meter: Meter, space: Subspace, where: tuple[int, float], target: float) -> float:
    axis, sign = where
    spans = spans_of(space)
    scale = float(np.linalg.norm(restricted(space.origin, spans))) or 1.0
    last, here = 0.0, FIRST * scale / float(np.sqrt(space.gram[axis, axis]))
    for _ in range(DOUBLINGS):
        if _beyond(_average(meter, space, axis, sign * here), target):
            break
        last, here = here, 2 * here
    else:
        raise LandscapeError(
            f"the averaged loss does not rise to {target:.4g} along {'minus' if sign < 0 else 'plus'} "
            f"{space.axes[axis]} up to {here:.3g}: expected a smaller rise there; give the range as --reach"
        )
    for _ in range(HALVINGS):
        middle = (last + here) / 2
        last, here = (last, middle) if _beyond(_average(meter, space, axis, sign * middle), target) else (middle, here)
    return here


def _beyond(loss: float, target: float) -> bool:
    return not np.isfinite(loss) or loss >= target


def _average(meter: Meter, space: Subspace, axis: int, distance: float) -> float:
    coordinates: Array = np.zeros((1, len(space.basis)))
    coordinates[0, axis] = distance
    return float(meter.measure(coordinates).loss[:, 0].mean())
