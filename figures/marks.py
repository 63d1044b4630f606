"""What a figure is made of, as data. Numpy only.

A *scene* is rows of panels, a panel is axes with marks. Everything that is computed (logarithms, levels, colour limits,
means, masks, the text of special ticks) is already in the marks: a renderer only draws them, so a static and an
interactive figure of one scene show the same numbers. Arrays over a grid are [y, x]. All text is plain text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from analysis.results import Array, Record
from figures.style import Look

Scale: TypeAlias = Literal["linear", "log"]


POINTS, SEGMENTS, X, Y, YX, LEVELS = (
    {"dims": dims} for dims in (("point",), ("segment",), ("x",), ("y",), ("y", "x"), ("level",))
)
"""Named dimensions of the array fields; a mark whose arrays disagree on one is refused."""


@dataclass(frozen=True, eq=False)
class Column(Record):
    """One value a point that is shown when a reader points at it, under a name."""

    name: str
    values: Array = field(metadata=POINTS)


@dataclass(frozen=True, eq=False)
class Line(Record):
    """A line through points, in their order; it is interrupted where a value is not finite."""

    x: Array = field(metadata=POINTS)
    y: Array = field(metadata=POINTS)
    look: Look
    group: str = ""
    """The legend entry that shows and hides this mark; empty for none."""
    hover: tuple[Column, ...] = ()


@dataclass(frozen=True, eq=False)
class Points(Record):
    """Markers, each with its own diameter in points (1/72 inch)."""

    x: Array = field(metadata=POINTS)
    y: Array = field(metadata=POINTS)
    size: Array = field(metadata=POINTS)
    look: Look
    group: str = ""
    hover: tuple[Column, ...] = ()


@dataclass(frozen=True, eq=False)
class Segments(Record):
    """Straight pieces from (x0, y0) to (x1, y1): error bars and reference lines."""

    x0: Array = field(metadata=SEGMENTS)
    y0: Array = field(metadata=SEGMENTS)
    x1: Array = field(metadata=SEGMENTS)
    y1: Array = field(metadata=SEGMENTS)
    look: Look
    group: str = ""


@dataclass(frozen=True, eq=False)
class Band(Record):
    """The area between `low` and `high`."""

    x: Array = field(metadata=POINTS)
    low: Array = field(metadata=POINTS)
    high: Array = field(metadata=POINTS)
    look: Look
    group: str = ""


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit, and, where the scene decides them, its range and ticks."""

    label: str
    scale: Scale = "linear"
    range: tuple[float, float] | None = None
    """First and last value, reversed for an axis that runs backwards; None leaves it to the renderer."""
    ticks: tuple[float, ...] = ()
    """Empty leaves them to the renderer."""
    texts: tuple[str, ...] = ()
    """One text a tick."""


@dataclass(frozen=True, eq=False)
class Contours(Record):
    """Filled contours of `z` over a grid; where `z` is not finite the hatched ground of the panel shows.

    Band k lies between levels[k] and levels[k + 1] and has colours[k]; levels are evenly spaced and enclose all of `z`.
    """

    x: Array = field(metadata=X)
    y: Array = field(metadata=Y)
    z: Array = field(metadata=YX)
    """What is drawn, for instance log10 of the loss."""
    measured: Array = field(metadata=YX)
    """What was measured, shown when a reader points at it."""
    levels: Array = field(metadata=LEVELS)
    colours: tuple[str, ...]
    bar: Axis


@dataclass(frozen=True, eq=False)
class Relief(Record):
    """A surface in three dimensions, `z` over a grid, coloured by `z` over the range of `bar`."""

    x: Array = field(metadata=X)
    y: Array = field(metadata=Y)
    z: Array = field(metadata=YX)
    measured: Array = field(metadata=YX)
    bar: Axis


@dataclass(frozen=True, eq=False)
class Path(Record):
    """A line in three dimensions, beside a `Relief`."""

    x: Array = field(metadata=POINTS)
    y: Array = field(metadata=POINTS)
    z: Array = field(metadata=POINTS)
    look: Look
    group: str = ""
    hover: tuple[Column, ...] = ()


@dataclass(frozen=True, eq=False)
class Cells(Record):
    """A matrix as a heat map: row j and column i are the square around (i, j), coloured over the range of `bar`."""

    z: Array = field(metadata=YX)
    texts: tuple[tuple[str, ...], ...]
    """What is written in each cell, by rows; empty for nothing."""
    inks: tuple[tuple[str, ...], ...]
    """The colour of each text."""
    bar: Axis


Mark: TypeAlias = Line | Points | Segments | Band | Contours | Relief | Path | Cells


@dataclass(frozen=True)
class Panel:
    """Axes with marks, drawn in their order.

    Where a line has one point alone, as at one snapshot, or a grid a point that is in no whole cell, a marker shows it;
    a band, or a level, that begins and ends at the same x reaches half a unit to both sides.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    z: Axis | None = None
    """The third axis, of a panel in three dimensions."""
    aspect: float | None = None
    """Length on paper of one unit of y over that of x; None fills the space there is."""

    def __post_init__(self) -> None:
        wide = tuple(_widened(mark) for mark in self.marks)
        shown: list[Mark] = []
        for mark in wide:
            dots = _dots(mark, wide, self.x.scale)
            shown += [mark, *(dot for dot in dots if not any(dot == other for other in wide))]
        object.__setattr__(self, "marks", tuple(shown))


ALONE, SQUARE = 3.4, 5.0
"""Diameter of the marker of a point that stands alone: of a line, and of a grid; in points."""


def lone(z: Array) -> Array:
    """Which points of a grid [y, x] are finite and are in no cell whose four corners are: no contour reaches them."""
    there = np.isfinite(z)
    whole = there[:-1, :-1] & there[:-1, 1:] & there[1:, :-1] & there[1:, 1:]
    reached = np.zeros(there.shape, bool)
    for j in (slice(None, -1), slice(1, None)):
        for i in (slice(None, -1), slice(1, None)):
            reached[j, i] |= whole
    return np.asarray(there & ~reached)


def _dots(mark: Mark, others: tuple[Mark, ...], scale: Scale) -> tuple[Mark, ...]:
    """What shows the points of a mark that stand alone."""
    if isinstance(mark, Contours) and mark.colours:
        return _squares(mark)
    if isinstance(mark, Relief):
        look = Look("#000000", marker="circle", size=ALONE)
        return tuple(Path(mark.x[[i]], mark.y[[j]], mark.z[j, [i]], look) for j, i in np.argwhere(lone(mark.z)))
    return _alone(mark, others, scale) if isinstance(mark, Line) else ()


def _squares(mark: Contours) -> tuple[Mark, ...]:
    """Squares in the colours of the bands, one mark a band."""
    j, i = np.nonzero(lone(mark.z))
    band = np.clip(np.searchsorted(mark.levels, mark.z[j, i], "right") - 1, 0, len(mark.colours) - 1)
    marks = []
    for k in np.unique(band):
        rows, columns = j[band == k], i[band == k]
        told = (Column(mark.bar.label or "value", mark.measured[rows, columns]),)
        look = Look(mark.colours[k], marker="square", size=SQUARE)
        marks.append(Points(mark.x[columns], mark.y[rows], np.full(rows.size, SQUARE), look, "", told))
    return tuple(marks)


def _widened(mark: Mark) -> Mark:
    """A band, or a level line, without any extent in x as one that has some."""
    if isinstance(mark, Band) and mark.x.size and mark.x.min() == mark.x.max():
        low, high = np.full(2, mark.low.min()), np.full(2, mark.high.max())
        return replace(mark, x=mark.x[0] + np.array([-0.5, 0.5]), low=low, high=high)
    if isinstance(mark, Line) and not mark.hover and mark.x.size == 2 and np.ptp([mark.x, mark.y], axis=1).max() == 0:
        return replace(mark, x=mark.x + np.array([-0.5, 0.5]))
    return mark


def _alone(mark: Line, others: tuple[Mark, ...], scale: Scale) -> tuple[Mark, ...]:
    """What shows the points of a line that have no neighbour to be joined with, unless they have a marker already: a
    marker, or, of the one point of a line whose look has none, a level half a unit to both sides.
    """
    there = np.isfinite(np.asarray(mark.x, float)) & np.isfinite(np.asarray(mark.y, float))
    joined = there[:-1] & there[1:]
    alone = there & ~np.append(joined, False) & ~np.append(False, joined)
    shown = {
        place
        for other in others
        if isinstance(other, Points) and other.group == mark.group
        for place in zip(other.x.tolist(), other.y.tolist(), strict=True)
    }
    kept = [k for k in np.flatnonzero(alone) if (mark.x[k].item(), mark.y[k].item()) not in shown]
    if not kept:
        return ()
    if there.sum() == 1 and scale == "linear" and not mark.look.marker:
        both = np.repeat(kept, 2)
        hover = tuple(Column(column.name, column.values[both]) for column in mark.hover)
        return (Line(mark.x[both] + np.array([-0.5, 0.5]), mark.y[both], mark.look, mark.group, hover),)
    look = mark.look.but(marker=mark.look.marker or "circle", dash="solid")
    hover = tuple(Column(column.name, column.values[kept]) for column in mark.hover)
    return (Points(mark.x[kept], mark.y[kept], np.full(len(kept), ALONE), look, mark.group, hover),)


@dataclass(frozen=True)
class Row:
    """Panels side by side, `columns` of them where the row is full, and at most `height` mm high."""

    panels: tuple[Panel, ...]
    columns: int
    height: float


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    label: str
    look: Look


@dataclass(frozen=True)
class Scene:
    """A whole figure as data."""

    title: str
    caption: str
    """Units, number of seeds, smoothing, logarithms and clipping: what a reader needs to read the numbers right."""
    rows: tuple[Row, ...]
    legend: tuple[Key, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, row by row."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def bare(self) -> Scene:
        """The same drawing without title and caption, for a journal that sets its own."""
        return replace(self, title="", caption="")


def grid(panels: tuple[Panel, ...], columns: int, height: float) -> tuple[Row, ...]:
    """Panels in rows of at most `columns`, each row at most `height` mm high."""
    columns = max(1, min(columns, len(panels)))
    return tuple(Row(panels[i : i + columns], columns, height) for i in range(0, len(panels), columns))
