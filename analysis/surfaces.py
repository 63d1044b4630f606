"""The loss of every task over a grid of plane coordinates, or along a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.points import Conditions, Measured, Meter
from analysis.results import Array, Line, Plane, Profile, Shadow, Surface, Values
from landscape.errors import LandscapeError
from landscape.problem import Problem


@dataclass(frozen=True, init=False)
class Grid:
    """Coordinates of a grid, ascending along both axes, each with a zero, so that the plane's origin is a point.

    `Grid(41)`, `Grid(41, 31, reach=2.0)`: so many points from -reach to reach (a little further where a count is
    even). `Grid([-1, 0, 2], [0, 1])`: at these coordinates.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __init__(
        self, x: int | Sequence[float] = 25, y: int | Sequence[float] | None = None, reach: float = 1.0
    ) -> None:
        for name, given in (("x", x), ("y", x if y is None else y)):
            along = _axis(-reach, reach, given) if isinstance(given, int) else _required_axis(name, given)
            object.__setattr__(self, name, along)

    @classmethod
    def around(cls, shadows: Sequence[Shadow], nx: int = 25, ny: int | None = None, margin: float = 0.15) -> Grid:
        """Wide enough for all shadows and a margin, a share of their extent, on every side."""
        if not shadows:
            raise LandscapeError("expected at least one shadow to lay the grid around, got none")
        points = np.concatenate([shadow.coordinates for shadow in shadows])
        low, high = np.minimum(points.min(0), 0), np.maximum(points.max(0), 0)
        room = margin * (high - low)
        return cls.between(low - room, high + room, nx, ny)

    @classmethod
    def between(cls, low: Sequence[float] | Array, high: Sequence[float] | Array, nx: int, ny: int | None) -> Grid:
        """From low or below to high or above, [x, y] each."""
        ny = nx if ny is None else ny
        x, y = (_axis(float(a), float(b), n) for a, b, n in zip(low, high, (nx, ny), strict=True))
        return cls(x, y)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)"""
        return len(self.y), len(self.x)

    @property
    def points(self) -> Array:
        """All coordinates [ny nx, 2], row by row: x runs fastest."""
        x, y = np.meshgrid(self.x, self.y)
        return np.stack([x.ravel(), y.ravel()], 1)


def _required_axis(name: str, values: Sequence[float]) -> tuple[float, ...]:
    axis = tuple(float(value) for value in values)
    if 0.0 not in axis or not (np.diff(axis) > 0).all():
        raise LandscapeError(
            f"expected {name} coordinates in ascending order with zero among them, got {_few(axis)}: add zero, the "
            "plane's origin"
        )
    return axis


def _few(axis: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in axis[:6]) + (", ..." if len(axis) > 6 else "") if axis else "none"


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


def measure(
    problem: Problem, plane: Plane, grid: Grid, conditions: Conditions = Conditions(), before: Surface | None = None
) -> Surface:
    """The surface of every task; see `measuring`, of which this is the last word."""
    *_, surface = measuring(problem, plane, grid, conditions, before)
    return surface


def measuring(
    problem: Problem, plane: Plane, grid: Grid, conditions: Conditions = Conditions(), before: Surface | None = None
) -> Iterator[Surface]:
    """Measures a surface row by row and yields it after each row, its mask saying what is done.

    loss[t, j, i] = (1 / N) sum_n L_t(example n; origin + x_i basis[0] + y_j basis[1]) over all N examples, per-example
    losses in the model's precision, their sum in float64. Standard errors are the standard deviation over examples
    (N - 1), divided by sqrt N, of the losses and of their differences from the plane's origin, example by example; NaN
    for one example. All tasks and metrics come from one forward pass. A loss that is not finite stays so. Buffers are
    the plane's, everywhere, or what the conditions make of them.

    Cost: one forward pass of the examples a point, and one for the centre. `before`, an unfinished surface of the same
    plane, grid and conditions, is gone on with. The module, its mode, gradient flags and the global generators stay as
    they were.

    Raises:
        LandscapeError: a plane of another model, or a surface of another plane, grid, data or conditions to go on with.
    """

    meter, x, y = Meter(problem, plane, conditions), np.array(grid.x), np.array(grid.y)

    def record(found: Measured, done: Array) -> Surface:
        return Surface(x=x, y=y, plane=plane, **fields_of(problem, meter, found, done, grid.shape))

    yield from _measuring(_Whole(grid.points, grid.shape, len(grid.x)), meter, record, before)


def profile(problem: Problem, line: Line, x: Sequence[float], conditions: Conditions = Conditions()) -> Profile:
    """The loss of every task along a line, at coordinates `x`; see `measuring` for what is measured.

    Cost: one forward pass of the examples a point, and one for the centre.
    """
    *_, found = profiling(problem, line, x, conditions)
    return found


def profiling(
    problem: Problem,
    line: Line,
    x: Sequence[float],
    conditions: Conditions = Conditions(),
    before: Profile | None = None,
) -> Iterator[Profile]:
    """As `measuring`, along a line, a few points at a time."""
    meter, points = Meter(problem, line, conditions), np.asarray(x, np.float64)

    def record(found: Measured, done: Array) -> Profile:
        return Profile(x=points, line=line, **fields_of(problem, meter, found, done, points.shape))

    yield from _measuring(_Whole(points[:, None], points.shape, STRETCH), meter, record, before)


STRETCH = 16
"""Points of a line after which what is done is reported."""


@dataclass(frozen=True, eq=False)
class _Whole:
    """All points to be measured, flat, the shape that they have together, and after how many the work is reported."""

    points: Array
    shape: tuple[int, ...]
    stretch: int


def _measuring(whole: _Whole, meter: Meter, record: Callable[[Measured, Array], Any], before: Any) -> Iterator[Any]:
    """Groups of points are the same whatever is done already, so that each group's numbers are."""
    found, done = meter.nothing(len(whole.points)), np.zeros(len(whole.points), bool)
    if before is not None:
        found, done = taken_over(before, record(found, done.copy()))
    groups = np.split(np.arange(len(done)), np.arange(meter.together, len(done), meter.together))
    todo = [group for group in groups if not done[group].all()]
    per = max(1, whole.stretch // meter.together)
    for first in range(0, len(todo), per):
        places = np.concatenate(todo[first : first + per])
        found.put(places, meter.measure(whole.points[places]))
        done[places] = True
        yield record(found.copy(), done.copy())
    if not todo:
        yield record(found, done)


def fields_of(problem: Problem, meter: Meter, found: Measured, done: Array, shape: tuple[int, ...]) -> dict[str, Any]:
    """The fields that a surface and a profile have in common, from what was measured of points in a certain shape."""

    def shaped(rows: Array) -> Array:
        return rows.reshape(*rows.shape[:-1], *shape)

    return {
        "tasks": problem.names,
        "metrics": problem.metric_names,
        "loss": shaped(found.loss),
        "stderr": shaped(found.stderr[:-1]),
        "difference_stderr": shaped(found.difference_stderr[:-1]),
        "average_stderr": shaped(found.stderr[-1]),
        "average_difference_stderr": shaped(found.difference_stderr[-1]),
        "scores": shaped(found.scores),
        "score_stderr": shaped(found.score_stderr),
        "done": shaped(done),
        **meter.words,
    }


def taken_over(before: Any, fresh: Any) -> tuple[Measured, Array]:
    """What an earlier record knows, if it is of the same points under the same conditions as a fresh, empty one."""
    fixed = [name for name in ("x", "y", "plane", "line") if hasattr(fresh, name)]
    for name in (*fixed, *(spec for spec in Values.__dataclass_fields__)):
        mine, theirs = getattr(fresh, name), getattr(before, name)
        same = np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
        if not same:
            kind = type(fresh).__name__.lower()
            raise LandscapeError(
                f"the {kind} to go on with has another {'grid' if name in 'xy' else name}: expected the same plane, "
                "grid, data and conditions; measure anew"
            )
    both = [np.concatenate([getattr(before, name), getattr(before, f"average_{name}")[None]]) for name in ERRORS]
    rows = [
        rows.reshape(len(rows), before.done.size).copy()
        for rows in (before.loss, *both, before.scores, before.score_stderr)
    ]
    return Measured(*rows), before.done.ravel().copy()


ERRORS = ("stderr", "difference_stderr")
"""Known of every task and, under `average_...`, of their average."""
ERROR_FIELDS = (*ERRORS, *(f"average_{name}" for name in ERRORS), "score_stderr")
