"""A surface from fewer points than its grid has: measured where interpolation is worst, checked where it was not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from analysis import interpolants
from analysis.interpolants import Fit, Ranges, with_average
from analysis.points import Conditions, Measured, Meter
from analysis.results import Array, Interpolation, Plane, Surface
from analysis.surfaces import Grid, fields_of, taken_over
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator

SIDE = 7
"""Points along each axis of the coarse lattice that refining begins with, or fewer where the budget is small."""
FEWEST = 18
"""Points that a fit needs: twice the smallest coarse lattice, of three by three."""
GROWTH, LEAST = 0.1, 6
"""A round adds this share of the points used so far, and at least so many."""
QUIET = 2
"""Rounds in a row that have to be foretold within the tolerance before the points held out are looked at."""
COVERAGE = 0.95
"""Share of the points that the stated error is about."""


@dataclass(frozen=True)
class Adaptive:
    """How closely a surface is interpolated, and at what cost.

    Raises:
        LandscapeError: a tolerance, budget or number of points held out that is none.
    """

    tolerance: float = 0.01
    """Largest error asked for, as a share of the range: of every task's loss and of their average, and of the logarithm
    where it spans a large range.
    """
    budget: float = 0.2
    """At most this share of the grid's points is measured, those held out among them."""
    held_out: int = 90
    """Points that only judge the fit; 90 give 99 % confidence for 95 % of the points: 0.95^90 < 0.01."""
    seed: int = 0
    """It draws the points held out."""

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < math.inf and 0 < self.budget <= 1 and self.held_out >= 1):
            raise LandscapeError(
                f"expected a tolerance above 0, a budget above 0 and at most 1, and 1 or more points held out, got "
                f"{self.tolerance:g}, {self.budget:g} and {self.held_out}"
            )

    def most(self, nx: int, ny: int) -> int:
        """Points of a grid of nx by ny that are measured at most, those held out among them.

        Raises:
            LandscapeError: too few for a fit that is judged.
        """
        most = int(self.budget * nx * ny + 1e-9)
        if most < FEWEST + self.held_out:
            raise LandscapeError(
                f"a budget of {self.budget:.0%} of {nx} by {ny} points allows {most} evaluations: expected "
                f"{FEWEST + self.held_out} or more, {self.held_out} held out and {FEWEST} for the fit; give a larger "
                "budget, or measure every point"
            )
        return most


def refine(
    problem: Problem,
    plane: Plane,
    grid: Grid,
    choice: Adaptive = Adaptive(),
    conditions: Conditions = Conditions(),
    before: Interpolation | None = None,
) -> Interpolation:
    """The last word of `refining`."""
    *_, found = refining(problem, plane, grid, choice, conditions, before)
    return found


def refining(
    problem: Problem,
    plane: Plane,
    grid: Grid,
    choice: Adaptive = Adaptive(),
    conditions: Conditions = Conditions(),
    before: Interpolation | None = None,
) -> Iterator[Interpolation]:
    """Measures a coarse lattice with the grid's edges and centre, then, round by round, the points where the fit is
    expected to be worst, and yields what is known after each round.

    The fit goes through all points used, by cubic radial basis functions of the loss or of its logarithm. At a point
    its error is expected to be e (d / s)^2, with e the residual that the nearest point used has when it is left out
    (the largest share of the range over the tasks and their average), s that point's distance to the next one and d
    the distance to it. Where losses stop being finite, half of a round goes along that border, until the points on both
    sides are measured.

    Refining ends when two rounds in a row were foretold within the tolerance before they were measured, and the points
    held out, which no fit uses, agree; or when the budget is spent. A tolerance that was not met is no error: `reached`
    says so, and the record what was reached. How far the stated error holds: see `analysis.results.Interpolation`.

    Cost: one forward pass of the examples a point measured, and one for the centre; for each round and task m^3
    operations for m points used (0.01 s for 200). `before`, an unfinished record of the same plane, grid, conditions
    and choice, is gone on with: its rounds are gone through again without measuring, and end in the same values.

    Raises:
        LandscapeError: a plane of another model, a budget that leaves too few points, or a record of something else to
            go on with.
    """
    lattice = _Lattice.of(grid, choice)
    sheet = _Sheet(problem, plane, grid, conditions)
    if before is not None:
        _require_same(before, choice)
        sheet.know(before.surface)
    used, new, fit = np.zeros(0, np.int64), lattice.coarse, None
    quiet = checks = 0
    while True:
        told = sheet.measure(new)
        quiet = quiet + 1 if fit is not None and _misses(fit, new, sheet).max() <= choice.tolerance else 0
        used = np.concatenate([used, new])
        fit = interpolants.fit(lattice.points, used, sheet.loss(used))
        new = lattice.worst(fit, used, 0.5 if quiet < QUIET else 1.0)
        checking = not new.size or (quiet >= QUIET and not lattice.border(fit, used).any())
        if checking:
            told, checks, quiet = sheet.measure(lattice.held_out) or told, checks + 1, 0
        verdict = _judged(fit, lattice, used, sheet, checks)
        finished = checking and (not new.size or verdict.within(choice.tolerance))
        if told or finished:
            yield _record(sheet, lattice, (used, fit), choice, verdict, finished)
        if finished:
            return


def is_finished(found: Interpolation, choice: Adaptive) -> bool:
    """Whether refining with this choice would measure nothing more."""
    return found.finished and _choice_of(found) == choice


def _choice_of(found: Interpolation) -> Adaptive:
    return Adaptive(found.tolerance, found.budget, int(found.held_out.sum()), found.seed)


def _require_same(before: Interpolation, choice: Adaptive) -> None:
    if _choice_of(before) != choice:
        raise LandscapeError(
            f"the interpolation to go on with was made with {_choice_of(before)}: expected {choice}; refine anew"
        )


@dataclass(frozen=True, eq=False)
class _Lattice:
    """The grid's points, which of them refining begins with, which it keeps from the fit, and how many it may use."""

    points: Array
    shape: tuple[int, int]
    coarse: Array
    held_out: Array
    most: int

    @classmethod
    def of(cls, grid: Grid, choice: Adaptive) -> _Lattice:
        ny, nx = grid.shape
        most = choice.most(nx, ny) - choice.held_out
        side = min(SIDE, math.isqrt(most // 2))
        columns, rows = (np.unique(np.linspace(0, n - 1, min(side, n)).round().astype(int)) for n in (nx, ny))
        centre = grid.y.index(0.0) * nx + grid.x.index(0.0)
        coarse = np.unique([*(rows[:, None] * nx + columns).ravel(), centre])
        others = np.setdiff1d(np.arange(nx * ny), coarse)
        held = generator(choice.seed, "held out").choice(others, choice.held_out, replace=False)
        return cls(interpolants.axes_of(grid.x, grid.y), (ny, nx), coarse, np.sort(held), most)

    def worst(self, fit: Fit, used: Array, along: float) -> Array:
        """The points of the next round, as many as the budget leaves; up to the share `along` of them on the border."""
        free = self._free(used)
        count = min(max(LEAST, int(GROWTH * len(used))), self.most - len(used), int(free.sum()))
        border = self._spread(fit, np.where(self.border(fit, used), fit.distance, 0.0), math.ceil(along * count))
        free[border] = False
        rest = self._spread(fit, np.where(free, _expected(fit), 0.0), count - len(border))
        return np.sort(np.concatenate([border, rest]))

    def _free(self, used: Array) -> Array:
        """The points that may still be measured for the fit, [N]."""
        free = np.ones(len(self.points), bool)
        free[used] = free[self.held_out] = False
        return free

    def border(self, fit: Fit, used: Array) -> Array:
        """Those of them on the border where the fit of some task begins or ends, [N]."""
        return self._edge(fit) & self._free(used)

    def judges(self, fit: Fit, used: Array) -> Array:
        """The points held out that stand for points not used: where the border is measured point by point, those on it
        stand for none.
        """
        edge = self._edge(fit)
        settled = not (edge & self._free(used)).any()
        return self.held_out[~edge[self.held_out]] if settled else self.held_out

    def _edge(self, fit: Fit) -> Array:
        """Points with a neighbour at which another task's fit, or none, is missing, [N]."""
        missing = np.isnan(fit.loss).reshape(-1, *self.shape)
        up = (missing[:, 1:] != missing[:, :-1]).any(0)
        along = (missing[:, :, 1:] != missing[:, :, :-1]).any(0)
        edge = np.zeros(self.shape, bool)
        edge[1:] |= up
        edge[:-1] |= up
        edge[:, 1:] |= along
        edge[:, :-1] |= along
        return edge.ravel()

    def _spread(self, fit: Fit, score: Array, count: int) -> Array:
        """Up to `count` points of the largest scores above zero, where each one taken lowers the scores around it, as
        far as the nearest point used was.
        """
        taken: list[int] = []
        while len(taken) < count and score.max() > 0:
            best = int(score.argmax())
            away = np.linalg.norm(self.points - self.points[best], axis=1) / fit.distance[best]
            score = score * np.minimum(away, 1.0) ** 2
            taken.append(best)
        return np.array(taken, np.int64)


def _expected(fit: Fit) -> Array:
    """The error that the fit is expected to have at every point, as a share of the range, [N]."""
    shares = Ranges.of(fit.measured).shares(fit.left_out, fit.measured)
    shares = np.clip(np.where(np.isfinite(fit.measured), shares, 0.0).max(0), 1e-12, 1.0)
    return np.asarray(shares[fit.nearest] * (fit.distance / fit.spacing[fit.nearest]) ** 2)


class _Sheet:
    """The grid's points as far as they are measured; those that an earlier record has are taken from it."""

    def __init__(self, problem: Problem, plane: Plane, grid: Grid, conditions: Conditions) -> None:
        self._problem, self._plane, self._grid = problem, plane, grid
        self._meter = Meter(problem, plane, conditions)
        self._found, self._done = self._nothing()
        self._known, self._there = self._nothing()

    def _nothing(self) -> tuple[Measured, Array]:
        count = len(self._grid.points)
        return self._meter.nothing(count), np.zeros(count, bool)

    def know(self, before: Surface) -> None:
        """Raises unless the earlier surface is of the same points under the same conditions."""
        self._known, self._there = taken_over(before, self.surface())

    def measure(self, places: Array) -> bool:
        """Whether some of the points were not known yet; a round is measured whole or not at all."""
        fresh = not self._there[places].all()
        if fresh:
            self._found.put(places, self._meter.measure(self._grid.points[places]))
        else:
            self._found.put(places, Measured(*(rows[:, places] for rows in vars(self._known).values())))
        self._done[places] = True
        return fresh

    def loss(self, places: Array) -> Array:
        """[T, k]; NaN where a point is not measured."""
        return self._found.loss[:, places]

    def surface(self) -> Surface:
        """What is measured so far."""
        fields = fields_of(self._problem, self._meter, self._found.copy(), self._done.copy(), self._grid.shape)
        return Surface(x=np.array(self._grid.x), y=np.array(self._grid.y), plane=self._plane, **fields)


def _misses(fit: Fit, places: Array, sheet: _Sheet) -> Array:
    """How wrong the fit was about points that it did not use, as shares of the range [V, k]; zero where there is no fit
    or no finite loss.
    """
    measured = with_average(sheet.loss(places))
    shares = Ranges.of(fit.measured).shares(fit.loss[:, places], measured)
    return np.where(np.isfinite(measured) & ~fit.wrong_kind(places, measured), shares, 0.0)


@dataclass(frozen=True, eq=False)
class _Verdict:
    """What the points held out say of a fit; see `analysis.results.Interpolation`."""

    error: Array
    share: Array
    exceptions: int
    confidence: float
    checks: int

    def within(self, tolerance: float) -> bool:
        """Whether the largest error of every view is."""
        return bool((self.share <= tolerance).all())


def _judged(fit: Fit, lattice: _Lattice, used: Array, sheet: _Sheet, checks: int) -> _Verdict:
    """What a sample of n of the U points not used says: with m of them where the fit or the loss is missing, and not
    both, and the error stated that of the rest, the statement that it holds for a share c of the U points is false only
    where more than (1 - c) U of them are worse; then m or fewer of a sample are with a probability of at most p,
    hypergeometric. Each look at the sample can mislead, so after k looks the confidence is 1 - k p.
    """
    if not checks:
        nothing = np.full(len(fit.loss), np.nan)
        return _Verdict(nothing, nothing, 0, 0.0, 0)
    held = lattice.judges(fit, used)
    measured, shares = with_average(sheet.loss(held)), _misses(fit, held, sheet)
    wrong = fit.wrong_kind(held, measured).any(0)
    right = np.isfinite(measured) & ~wrong
    error = _largest(np.abs(fit.loss[:, held] - np.where(right, measured, 0.0)), right)
    unused = len(lattice.points) - len(used) - (len(lattice.held_out) - len(held))
    worse = unused - math.ceil(COVERAGE * unused - 1e-9) + 1
    misled = float(scipy.stats.hypergeom.cdf(wrong.sum(), unused, worse, len(held)))
    return _Verdict(error, _largest(shares, right), int(wrong.sum()), max(0.0, 1.0 - checks * misled), checks)


def _largest(values: Array, counted: Array) -> Array:
    """The largest of each row's counted values; NaN where there are none."""
    return np.where(counted.any(1), np.where(counted, values, 0.0).max(1, initial=0.0), np.nan)


def _record(
    sheet: _Sheet, lattice: _Lattice, used: tuple[Array, Fit], choice: Adaptive, verdict: _Verdict, finished: bool
) -> Interpolation:
    surface, (places, fit) = sheet.surface(), used
    tasks = len(surface.tasks)

    def mask(where: Array) -> Array:
        chosen = np.zeros(len(lattice.points), bool)
        chosen[where] = True
        return chosen.reshape(lattice.shape)

    return Interpolation(
        tasks=surface.tasks,
        x=surface.x,
        y=surface.y,
        loss=fit.loss[:tasks].reshape(tasks, *lattice.shape),
        held_out=mask(lattice.held_out),
        used=mask(places),
        error=verdict.error[:tasks],
        error_share=verdict.share[:tasks],
        average_error=float(verdict.error[-1]),
        average_error_share=float(verdict.share[-1]),
        logarithmic=fit.logarithmic,
        tolerance=choice.tolerance,
        budget=choice.budget,
        seed=choice.seed,
        coverage=COVERAGE,
        confidence=verdict.confidence,
        exceptions=verdict.exceptions,
        checks=verdict.checks,
        reached=verdict.checks > 0 and verdict.within(choice.tolerance),
        finished=finished,
        surface=surface,
    )
