"""How figures look, as data: colours, dashes, markers, sizes and fonts. Renderers apply it to their own figure only.

Colours are those of Okabe and Ito (2008), told apart by readers with any colour vision; because strategies differ in
dash and marker as well, a figure printed in grey stays legible. Surfaces use cividis (Nunez, Anderton and Renslow,
2018), which is perceptually uniform and keeps its order in grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "hexagon")
SURFACE = (
    *("#00224e", "#003170", "#2a3f6d", "#434e6c", "#575d6d", "#6a6c71", "#7d7c78"),
    *("#918b78", "#a59c74", "#bcae6c", "#d2c060", "#e9d34e", "#fee838"),
)
DIVERGING = (
    *("#721500", "#7b2b09", "#833d21", "#8a4f37", "#8e614e", "#8f7368", "#868686"),
    *("#8596a7", "#83a6c6", "#81b6e2", "#87c5f9", "#96d4ff", "#a9e3ff"),
)
"""From brown over grey to blue, an axis that all colour vision tells apart; its lightness rises all the way, so that a
sign is not lost in grey.
"""

PAPER = "#ffffff"
INK = "#1a1a1a"
FAINT = "#8c8c8c"
GRID = "#e3e3e3"
BLANK = "#d4d4d4"
"""Ground of what was not measured: neither a colour of `SURFACE` nor paper."""

FONT_STATIC = "DejaVu Sans"
"""Comes with matplotlib, so the same figure has the same bytes on every machine."""
FONT_SCREEN = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

WIDTH = 180.0
"""Width of a figure in mm: two columns of a journal."""
TEXT = 7.0
"""Size of text in a static figure, in points; panel titles and the title are one and two points larger."""
SCREEN_TEXT = 12
"""Size of text in an interactive figure, in pixels."""
PIXELS_PER_MM = 5.0
"""Scale of an interactive figure: 180 mm are 900 pixels."""
DPI, SCREEN_DPI = 300, 144
"""Resolution of PNG files and of what is drawn as pixels inside others: in files, and on pages."""


@dataclass(frozen=True)
class Look:
    """How a mark is drawn. Widths and sizes are in points (1/72 inch)."""

    colour: str
    dash: str = "solid"
    marker: str = ""
    """One of `MARKERS`, or empty for none."""
    width: float = 1.2
    size: float = 4.0
    opacity: float = 1.0
    fill: str = ""
    """Colour inside the marker; empty for the colour of the mark."""

    def but(self, **changes: float | str) -> Look:
        """The same look with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def hollow(self) -> Look:
        """The same look with a marker that is only an outline."""
        return replace(self, fill=PAPER)


NEUTRAL = Look(INK, width=0.8)
CASING = Look(PAPER, width=2.2, opacity=0.75)
"""Drawn under a trajectory, so that it stands out from any colour of the surface."""


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """One look for each distinct label, in order of first appearance: the same labels in the same order look the same.

    Colours, dashes and markers have 7, 5 and 7 entries, so 35 labels differ in at least one of them.
    """
    distinct = dict.fromkeys(labels)
    return {
        label: Look(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, label in enumerate(distinct)
    }


def shades(count: int, palette: Sequence[str] = SURFACE) -> tuple[str, ...]:
    """`count` colours of a palette, evenly spaced from its dark to its light end."""
    stops = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in palette], dtype=float)
    where = np.linspace(0.0, len(palette) - 1.0, count)
    channels = [np.interp(where, np.arange(len(palette)), stops[:, k]) for k in range(3)]
    return tuple("#" + "".join(f"{round(float(v)):02x}" for v in rgb) for rgb in zip(*channels, strict=True))
