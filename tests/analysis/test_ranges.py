"""Ranges from a rise of the loss, against paraboloids whose reach is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.ranges import rising
from landscape.errors import LandscapeError
from tests.analysis.test_surfaces import axes_plane, function_of_theta


def bowl(p):
    """1 at the origin; 1 + x^2 to the right, 1 + 4 x^2 to the left, 1 + 9 y^2 above, 1 + y^2 / 4 below."""
    x, y = p[:, 0], p[:, 1]
    return 1 + torch.where(x > 0, 1.0, 4.0) * x**2 + torch.where(y > 0, 9.0, 0.25) * y**2


@pytest.mark.parametrize("rise", [1.0, 9.0])
def test_every_direction_ends_where_the_loss_has_risen(rise):
    problem = function_of_theta(bowl)
    grid = rising(problem, axes_plane(problem), rise, 9, 7)
    assert grid.shape == (7, 9)
    reach = np.sqrt(rise) * np.array([1 / 2, 1.0, 2.0, 1 / 3])  # left, right, below, above
    for axis, (low, high) in zip((grid.x, grid.y), (reach[:2], reach[2:]), strict=True):
        step = axis[1] - axis[0]
        # The distance is met to 1/32 of itself from above, and the grid goes on to the next whole step.
        assert -low * (1 + 1 / 16) - step <= axis[0] <= -low * (1 - 1e-9)
        assert high * (1 - 1e-9) <= axis[-1] <= high * (1 + 1 / 16) + step


def test_lengths_of_the_axes_do_not_matter():
    problem = function_of_theta(bowl)
    plane = axes_plane(problem)
    long = replace(plane, basis=np.diag([100.0, 0.01]), gram=np.diag([1e4, 1e-4]))
    near, far = (rising(problem, p, 1.0, 5) for p in (plane, long))
    assert far.x[-1] * 100 == pytest.approx(near.x[-1], rel=0.05)
    assert far.y[-1] * 0.01 == pytest.approx(near.y[-1], rel=0.05)


def test_a_wall_of_losses_that_are_not_finite_ends_the_range():
    problem = function_of_theta(lambda p: torch.where(p[:, 0] > 0.7, torch.inf, bowl(p)))
    grid = rising(problem, axes_plane(problem), 9.0, 21)
    assert 0.7 <= grid.x[-1] < 0.9


@pytest.mark.parametrize(
    ("loss", "rise", "message"),
    [
        (lambda p: 1 + p[:, 0] ** 2, 1.0, r"does not rise to 2 along minus second up to .*give the range as --reach"),
        (lambda p: p.square().sum(1), 1.0, r"the averaged loss at the plane's origin is 0: expected a finite one"),
        (bowl, 0.0, r"expected a rise above zero, as a multiple of the loss at the origin, got 0"),
    ],
)
def test_a_loss_that_cannot_rise_is_refused(loss, rise, message):
    problem = function_of_theta(loss)
    with pytest.raises(LandscapeError, match=message):
        rising(problem, axes_plane(problem), rise, 5)
