"""What a figure is made of, as data. Numpy only.

A *scene* is rows of panels, a panel is axes with marks. Everything that is computed (logarithms, levels, colour limits,
means, masks, the text of special ticks) is already in the marks: a renderer only draws them, so a static and an
interactive figure of one scene show the same numbers. Arrays over a grid are [y, x]. All text is plain text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

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
    """Axes with marks, drawn in their order."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    z: Axis | None = None
    """The third axis, of a panel in three dimensions."""
    aspect: float | None = None
    """Length on paper of one unit of y over that of x; None fills the space there is."""


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
