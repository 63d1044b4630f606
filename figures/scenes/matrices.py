"""Small matrices as heat maps with their values written in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import Array
from figures import style
from figures.marks import Axis, Cells, Panel
from figures.scenes.scales import even_levels, finite, tick_texts

WRITTEN = 10
"""Matrices with more rows or columns have no values written in."""
HALF = 0.55
"""Text is light on colours below this share of the range."""
TICKS = 6


def matrix_panel(title: str, unit: str, values: Array, rows: Sequence[str], columns: Sequence[str]) -> Panel:
    """One panel with equal cells, row 0 at the top; what is not finite is blank."""
    kept = finite([values])
    low, high = (min(0.0, float(kept.min())), max(0.0, float(kept.max()))) if kept.size else (0.0, 1.0)
    levels = even_levels(low, high if high > low else low + 1.0)
    ticks = levels[:: int(np.ceil(levels.size / TICKS))]
    first, last = float(levels[0]), float(levels[-1])
    bar = Axis(unit, "linear", (first, last), tuple(ticks.tolist()), tick_texts(ticks))
    z = np.where(np.isfinite(values), values, np.nan)
    small = max(z.shape) <= WRITTEN
    texts = tuple(tuple(_written(v) for v in row) for row in z) if small else ()
    inks = tuple(tuple(_ink(v, first, last) for v in row) for row in z) if small else ()
    x = Axis("", range=(-0.5, len(columns) - 0.5), ticks=tuple(map(float, range(len(columns)))), texts=tuple(columns))
    y = Axis("", range=(len(rows) - 0.5, -0.5), ticks=tuple(map(float, range(len(rows)))), texts=tuple(rows))
    return Panel(title, x, y, (Cells(z, texts, inks, bar),), aspect=1.0)


def _written(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212") if np.isfinite(value) else ""


def _ink(value: float, low: float, high: float) -> str:
    return style.PAPER if (value - low) < HALF * (high - low) else style.INK
