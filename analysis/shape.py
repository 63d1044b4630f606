"""The shape of loss surfaces: their minima, where they are convex, how rough they are and how wide their basins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from analysis.persistence import Minimum, minima
from analysis.results import AVERAGE, Array, Surface, SurfaceShape
from landscape.errors import LandscapeError

RISE = 0.1
"""Share of a view's range at which its basin is measured, unless a rise is given."""
ROUNDING = 16 * np.finfo(np.float64).eps
"""Second differences below this share of the losses that they are made of are rounding."""
SIGNIFICANT = 2.0
"""A minimum counts where it is so many times as deep as its noise."""
ALL_ROUND = np.ones((3, 3), bool)
"""A point of the grid and its eight neighbours."""


def shape(surface: Surface, rise: float | None = None) -> SurfaceShape:
    """The shape of every task's surface and, with several tasks, of their average.

    Minima: those of the grid under its eight-neighbour graph, by 0-dimensional persistence; the depth of one is the
    rise of the loss to where its basin joins that of a deeper one (`analysis.persistence`). Points that are not done or
    not finite are walls. Minima narrower than a grid step are not seen.

    Noise: only errors paired with the centre c are stored, so the standard error of L(join) - L(minimum) is bounded,
    by s(minimum, c) + s(join, c) or by s(minimum) + s(join) with the plain standard errors, whichever is smaller. Both
    hold whatever the correlation (the standard deviation of a difference is at most the sum of both), so a minimum
    deeper than twice its noise is one of the population's losses as well, to two standard errors at least.

    Convexity: the share of inner points at which L_xx > 0 and L_xx L_yy > L_xy^2 beyond rounding, from second
    differences of the nine points around (exact for quadratics on uneven grids, too). The plane's directions need not
    be orthonormal: a linear map keeps the signs. Roughness: root mean square of L minus the mean of its four
    neighbours (on uneven grids, of the straight lines through opposite ones), divided by the range of L; a coarse
    grid's curvature is part of it. Basin: from the deepest minimum up to `rise` above it, by linear interpolation; a
    tenth of the view's range by default. Lengths and areas are those of the parameters that the plane is about, by its
    Gram matrix.

    Cost: no forward pass; n log n for n grid points.

    Raises:
        LandscapeError: a rise that is not above zero.
    """
    if rise is not None and not 0 < rise < np.inf:
        raise LandscapeError(f"expected a rise of the loss above zero, got {rise}")
    grid = _Lattice(surface.x, surface.y, surface.plane.gram)
    views = _views(surface)
    found = [minima(view.loss) for view in views]
    rises = [_rise(view.loss) if rise is None else rise for view in views]
    basins = [_basin(v.loss, grid, m, r) for v, m, r in zip(views, found, rises, strict=True)]
    every = [(k, m) for k, ms in enumerate(found) for m in ms]
    return SurfaceShape(
        views=tuple(view.name for view in views),
        minima=np.array([v.significant(ms) for v, ms in zip(views, found, strict=True)], np.int64),
        convexity=np.array([_convexity(view.loss, grid) for view in views]),
        roughness=np.array([_roughness(view.loss, grid) for view in views]),
        width=np.array([basin.widths for basin in basins]),
        area=np.array([basin.area for basin in basins]),
        rise=np.array(rises),
        of=np.array([k for k, _ in every], np.int64),
        at=np.array([grid.at(m.place) for _, m in every]).reshape(-1, 2),
        value=np.array([m.value for _, m in every]),
        depth=np.array([m.depth for _, m in every]),
        noise=np.array([views[k].noise(m) for k, m in every]),
        edge=np.array([_at_the_edge(views[k].loss, m.place) for k, m in every], bool),
        scale=grid.steps,
    )


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Where the points of the grid lie."""

    x: Array
    y: Array
    gram: Array

    def at(self, place: tuple[int, int]) -> tuple[float, float]:
        return float(self.x[place[1]]), float(self.y[place[0]])

    @property
    def lengths(self) -> Array:
        """Parameter units of one unit along x and along y."""
        return np.asarray(np.sqrt(np.diag(self.gram)))

    @property
    def steps(self) -> Array:
        medians = [float(np.median(np.diff(axis))) if len(axis) > 1 else np.nan for axis in (self.x, self.y)]
        return np.asarray(self.lengths * medians)

    @property
    def cells(self) -> Array:
        """Areas of the cells [ny - 1, nx - 1] in parameter units."""
        unit = np.sqrt(max(float(np.linalg.det(self.gram)), 0.0))
        return np.asarray(unit * np.diff(self.y)[:, None] * np.diff(self.x))


@dataclass(frozen=True, eq=False)
class _View:
    """One loss over the grid, NaN where it is not known, with its plain and its paired standard errors."""

    name: str
    loss: Array
    stderr: Array
    paired: Array

    def noise(self, minimum: Minimum) -> float:
        ends = minimum.place, minimum.joins
        return float(np.fmin(*(sum(errors[place] for place in ends) for errors in (self.stderr, self.paired))))

    def significant(self, found: Sequence[Minimum]) -> int:
        """How many minima are deeper than twice their noise, or as deep as is known."""
        return sum(not m.depth <= SIGNIFICANT * self.noise(m) for m in found)


def _views(surface: Surface) -> tuple[_View, ...]:
    known = np.where(surface.done.astype(bool) & np.isfinite(surface.loss), surface.loss, np.nan)
    rows = zip(surface.tasks, known, surface.stderr, surface.difference_stderr, strict=True)
    tasks = tuple(_View(*row) for row in rows)
    if len(tasks) == 1:
        return tasks
    errors = surface.average_stderr, surface.average_difference_stderr
    return *tasks, _View(AVERAGE, known.mean(0), *errors)


def _rise(loss: Array) -> float:
    finite = loss[np.isfinite(loss)]
    return RISE * float(np.ptp(finite)) if finite.size else np.nan


@dataclass(frozen=True, eq=False)
class _Around:
    """The inner points of a grid with their neighbours, and the steps to them."""

    middle: Array
    left: Array
    right: Array
    below: Array
    above: Array
    cross: Array
    """f(right, above) - f(left, above) - f(right, below) + f(left, below)"""
    largest: Array
    """Of the absolute values of all nine; NaN where one is not known."""
    west: Array
    east: Array
    south: Array
    north: Array

    @classmethod
    def of(cls, f: Array, grid: _Lattice) -> _Around:
        inner, low, high = slice(1, -1), slice(None, -2), slice(2, None)
        nine = [f[j, i] for j in (low, inner, high) for i in (low, inner, high)]
        cross = nine[8] - nine[6] - nine[2] + nine[0]
        x, y = np.diff(grid.x), np.diff(grid.y)[:, None]
        largest = np.max(np.abs(nine), axis=0)
        return cls(nine[4], nine[3], nine[5], nine[1], nine[7], cross, largest, x[:-1], x[1:], y[:-1], y[1:])


def _convexity(loss: Array, grid: _Lattice) -> float:
    """Second derivatives times the steps along their directions, so that all are in units of the loss."""
    p = _Around.of(loss, grid)
    known = np.isfinite(p.largest)
    if not known.any():
        return np.nan
    xx = 2 * ((p.right - p.middle) * p.west - (p.middle - p.left) * p.east) / (p.west + p.east)
    yy = 2 * ((p.above - p.middle) * p.south - (p.middle - p.below) * p.north) / (p.south + p.north)
    xy = p.cross * np.sqrt(p.west * p.east * p.south * p.north) / ((p.west + p.east) * (p.south + p.north))
    smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return float((smallest > ROUNDING * p.largest)[known].mean())


def _roughness(loss: Array, grid: _Lattice) -> float:
    p = _Around.of(loss, grid)
    across = (p.left * p.east + p.right * p.west) / (p.west + p.east)
    along = (p.below * p.north + p.above * p.south) / (p.south + p.north)
    off = p.middle - (across + along) / 2
    off = off[np.isfinite(off)]
    if not off.size:
        return np.nan
    spread = float(np.nanmax(loss) - np.nanmin(loss))
    return float(np.sqrt(np.mean(off**2)) / spread) if spread else 0.0


@dataclass(frozen=True)
class _Basin:
    widths: tuple[float, float, float, float]
    area: float


NOWHERE = _Basin((np.nan, np.nan, np.nan, np.nan), np.nan)


def _basin(loss: Array, grid: _Lattice, found: Sequence[Minimum], rise: float) -> _Basin:
    """The basin of the deepest minimum, below a rise of the loss."""
    if not found or not rise > 0:
        return NOWHERE
    (j, i), level = found[0].place, found[0].value + rise
    (right, above), row, column = grid.lengths, loss[j], loss[:, i]
    return _Basin(
        (
            right * _crossing(grid.x[i::-1], row[i::-1], level),
            right * _crossing(grid.x[i:], row[i:], level),
            above * _crossing(grid.y[j::-1], column[j::-1], level),
            above * _crossing(grid.y[j:], column[j:], level),
        ),
        _area(loss, grid, (j, i), level),
    )


def _crossing(places: Array, values: Array, level: float) -> float:
    """How far from the first place the values first reach a level; NaN where they end, or are not known, before."""
    beyond = np.flatnonzero(~(values < level))
    if not beyond.size or not np.isfinite(values[beyond[0]]):
        return np.nan
    k = beyond[0]
    share = (level - values[k - 1]) / (values[k] - values[k - 1])
    return float(abs(places[k - 1] + share * (places[k] - places[k - 1]) - places[0]))


def _area(loss: Array, grid: _Lattice, place: tuple[int, int], level: float) -> float:
    """Area of the part around a place in which the loss, linear on the four triangles between a cell's corners and
    their mean in its middle, is below a level.

    A cell's four corners are neighbours, so no cell belongs to two basins.
    """
    parts, _ = scipy.ndimage.label(loss < level, ALL_ROUND)
    basin = parts == parts[place]
    if _reaches_the_edge(loss, basin):
        return np.nan
    corners = [loss[:-1, :-1], loss[:-1, 1:], loss[1:, 1:], loss[1:, :-1]]
    touched = basin[:-1, :-1] | basin[:-1, 1:] | basin[1:, 1:] | basin[1:, :-1]
    middle = sum(corners) / 4
    shares = [_share_below(np.stack([corners[k - 1], corners[k], middle]), level) for k in range(4)]
    return float(np.sum(grid.cells * sum(shares) / 4, where=touched))


def _share_below(values: Array, level: float) -> Array:
    """The share of a triangle in which the linear function with these values [3, ...] at its corners is below a
    level.
    """
    low, middle, high = np.sort(values, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rising = (level - low) ** 2 / ((middle - low) * (high - low))
        falling = 1 - (high - level) ** 2 / ((high - low) * (high - middle))
    return np.select([level <= low, level >= high, level <= middle], [0.0, 1.0, rising], falling)


def _at_the_edge(loss: Array, place: tuple[int, int]) -> bool:
    alone = np.zeros(loss.shape, bool)
    alone[place] = True
    return _reaches_the_edge(loss, alone)


def _reaches_the_edge(loss: Array, part: Array) -> bool:
    """Whether some points lie on the grid's edge or beside one that is not known."""
    outside = np.pad(~np.isfinite(loss), 1, constant_values=True)
    return bool((scipy.ndimage.binary_dilation(np.pad(part, 1), ALL_ROUND) & outside).any())
