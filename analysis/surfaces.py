"""The loss of every task over a grid of plane coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.planes import require_layout
from analysis.results import Array, Plane, Shadow, Surface
from landscape.errors import LandscapeError
from landscape.problem import Problem


@dataclass(frozen=True)
class Grid:
    """Coordinates of a grid: `x` [nx] and `y` [ny], ascending, both with a zero, so that the plane's origin is a
    point.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def square(cls, nx: int = 25, ny: int | None = None, reach: float = 1.0) -> Grid:
        """From -reach to reach (a little further where a count is even)."""
        return cls(_axis(-reach, reach, nx), _axis(-reach, reach, nx if ny is None else ny))

    @classmethod
    def around(cls, shadows: Sequence[Shadow], nx: int = 25, ny: int | None = None, margin: float = 0.15) -> Grid:
        """Wide enough for all shadows and a margin, a share of their extent, on every side."""
        if not shadows:
            raise LandscapeError("expected at least one shadow to lay the grid around, got none")
        points = np.concatenate([shadow.coordinates for shadow in shadows])
        low, high = np.minimum(points.min(0), 0), np.maximum(points.max(0), 0)
        room = margin * (high - low)
        low, high = low - room, high + room
        return cls(_axis(low[0], high[0], nx), _axis(low[1], high[1], nx if ny is None else ny))

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)"""
        return len(self.y), len(self.x)


def _axis(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` equal steps from low or below to high or above (to a billionth of a step), one of them exactly zero."""
    if count < 3 or not low < high:
        raise LandscapeError(
            f"expected 3 or more grid points and a range above zero, got {count} points from {low} to {high}"
        )
    symmetric = count % 2 == 1 and low == -high
    step = (high - low) / (count - 1 if symmetric else count - 2)
    zero = (count - 1) // 2 if symmetric else int(np.ceil(-low / step - 1e-9))
    return tuple(float(k * step) for k in np.arange(count) - zero)


def measure(problem: Problem, plane: Plane, grid: Grid, before: Surface | None = None) -> Surface:
    """The surface of every task; see `measuring`, of which this is the last word."""
    surface = before
    for surface in measuring(problem, plane, grid, before):  # noqa: B007
        pass
    assert surface is not None
    return surface


def measuring(problem: Problem, plane: Plane, grid: Grid, before: Surface | None = None) -> Iterator[Surface]:
    """Measures a surface row by row and yields it after each row, its mask saying what is done.

    loss[t, j, i] = (1 / N) sum_n L_t(example n; origin + x_i basis[0] + y_j basis[1]) over the whole evaluation set,
    per- example losses in the model's precision, their sum and their standard error (standard deviation with N - 1,
    divided by sqrt N; NaN for one example) in float64. All tasks come from one forward pass. A loss that is not
    finite stays so. Buffers are the plane's, everywhere (frozen statistics).

    Cost: one forward pass of the evaluation set a point. `before`, an unfinished surface of the same plane and grid, is
    gone on with. The module, its mode, gradient flags and the global generators stay as they were.

    Raises:
        LandscapeError: a plane of another model, or a surface of another plane, grid or data to go on with.
    """
    require_layout(plane, problem.layout)
    shape = (len(problem.tasks), *grid.shape)
    loss, stderr, done = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(grid.shape, bool)
    if before is not None:
        _require_same(before, problem, plane, grid)
        loss, stderr, done = before.loss.copy(), before.stderr.copy(), before.done.copy()
    points = _Points(problem, plane)
    for j, y in enumerate(grid.y):
        todo = np.flatnonzero(~done[j])
        if len(todo):
            values = torch.stack([points.losses(grid.x[i], y) for i in todo]).cpu().numpy()
            loss[:, j, todo], stderr[:, j, todo], done[j, todo] = values[:, 0].T, values[:, 1].T, True
        if len(todo) or j == len(grid.y) - 1:
            yield _surface(problem, plane, grid, (loss.copy(), stderr.copy(), done.copy()))


class _Points:
    """Evaluates points of a plane that lies on the device."""

    def __init__(self, problem: Problem, plane: Plane) -> None:
        self._problem = problem
        self._origin, self._first, self._second, self._buffers = (
            torch.tensor(v, dtype=torch.float64, device=problem.device)
            for v in (plane.origin, *plane.basis, plane.buffers)
        )

    def losses(self, x: float, y: float) -> torch.Tensor:
        """Means and standard errors of all tasks at one point, [2, T] in float64."""
        problem = self._problem
        theta = (self._origin + x * self._first + y * self._second).to(problem.dtype)
        with torch.no_grad():
            pieces = problem.evaluation.pieces(problem.micro_batch)
            each = torch.cat([problem.losses(theta, batch, self._buffers) for batch in pieces], 1).to(torch.float64)
        return torch.stack([each.mean(1), standard_error(each)])


def standard_error(values: torch.Tensor) -> torch.Tensor:
    """Standard error of the mean over the last dimension; NaN for a single value."""
    count = values.shape[-1]
    if count == 1:
        return torch.full(values.shape[:-1], torch.nan, dtype=values.dtype, device=values.device)
    return torch.std(values, -1) / math.sqrt(count)


def _surface(problem: Problem, plane: Plane, grid: Grid, arrays: tuple[Array, Array, Array]) -> Surface:
    loss, stderr, done = arrays
    return Surface(
        tasks=problem.names,
        x=np.array(grid.x),
        y=np.array(grid.y),
        loss=loss,
        stderr=stderr,
        done=done,
        plane=plane,
        examples=len(problem.evaluation),
        data=problem.data_hash,
        batch_norm="frozen" if problem.buffer_layout.size else "none",
    )


def _require_same(before: Surface, problem: Problem, plane: Plane, grid: Grid) -> None:
    same = (
        before.plane == plane
        and before.data == problem.data_hash
        and np.array_equal(before.x, grid.x)
        and np.array_equal(before.y, grid.y)
    )
    if not same:
        raise LandscapeError(
            "the surface to go on with has another plane, grid or data: expected the same ones; measure anew"
        )
