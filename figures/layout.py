"""Where the panels of a scene lie on paper, in mm: one plan for both renderers."""

from __future__ import annotations

from dataclasses import dataclass

from figures import style
from figures.marks import Axis, Cells, Contours, Panel, Row, Scene

CHARACTER = 1.35
"""Width of an average character of the text of ticks, in mm."""
TITLE, TICKS, LABEL, GAP, BAR = 5.0, 3.5, 5.5, 4.0, 16.0
LEFT = 13.5
"""Room for ticks and label on the left of a panel, in mm."""
WIDEST = 0.45
"""Texts of ticks take at most this share of the width of the figure."""
MANY_TICKS = 6
LONG_TEXT = 8


@dataclass(frozen=True)
class Box:
    """A panel's axes in mm, y downwards from the top of the first row."""

    panel: Panel
    left: float
    top: float
    width: float
    height: float

    @property
    def bar(self) -> Axis | None:
        """The colour bar that belongs on the right of the axes, if any."""
        return colour_bar(self.panel)


@dataclass(frozen=True)
class Plan:
    """The boxes of all panels in the order of `Scene.panels`, and the height that they need."""

    boxes: tuple[Box, ...]
    height: float


def colour_bar(panel: Panel) -> Axis | None:
    """The colour bar of a panel that has one."""
    bars = [mark.bar for mark in panel.marks if isinstance(mark, Contours | Cells)]
    return bars[0] if bars and bars[0].ticks else None


def upright(axis: Axis) -> bool:
    """Whether the tick texts of a horizontal axis are too many and too long to be written side by side."""
    return len(axis.texts) >= MANY_TICKS and _longest(axis) >= LONG_TEXT


def plan(scene: Scene) -> Plan:
    """Place the panels: equal widths within a row, heights reduced to what panels of a fixed aspect need."""
    boxes: list[Box] = []
    top = 0.0
    for row in scene.rows:
        columns = [_column(scene, row.columns, k) for k in range(row.columns)]
        placed = _place(row, columns, top)
        boxes.extend(placed)
        below = max(_below(panel) for panel in row.panels)
        top = max(box.top + box.height for box in placed) + below
    return Plan(tuple(boxes), top)


def _column(scene: Scene, columns: int, k: int) -> tuple[float, float]:
    """Room on the left and on the right of a column, the same in all rows of as many columns."""
    panels = [row.panels[k] for row in scene.rows if row.columns == columns and k < len(row.panels)]
    return max(map(_left, panels), default=LEFT), max(map(_right, panels), default=GAP)


def _place(row: Row, columns: list[tuple[float, float]], top: float) -> list[Box]:
    width = (style.WIDTH - sum(left + right for left, right in columns)) / row.columns
    sizes = [_size(panel, width, row.height) for panel in row.panels]
    tallest = max(height for _, height in sizes)
    boxes = []
    start = 0.0
    for panel, (wide, high), (left, right) in zip(row.panels, sizes, columns, strict=False):
        place = start + left + (width - wide) / 2
        boxes.append(Box(panel, place, top + TITLE + (tallest - high) / 2, wide, high))
        start += left + width + right
    return boxes


def _size(panel: Panel, width: float, height: float) -> tuple[float, float]:
    if panel.aspect is None or panel.x.range is None or panel.y.range is None:
        return width, height
    x, y = (abs(axis.range[1] - axis.range[0]) for axis in (panel.x, panel.y) if axis.range)
    wanted = panel.aspect * y / x
    return (width, width * wanted) if width * wanted <= height else (height / wanted, height)


def _left(panel: Panel) -> float:
    if panel.z is not None:
        return GAP
    if panel.y.ticks and not any(panel.y.texts):
        return LABEL
    wanted = CHARACTER * _longest(panel.y) + (5.0 if panel.y.label else 2.0)
    return min(max(LEFT, wanted), WIDEST * style.WIDTH)


def _right(panel: Panel) -> float:
    if panel.z is not None:
        return 2 * LABEL
    return BAR if colour_bar(panel) else GAP


def _below(panel: Panel) -> float:
    if panel.z is not None:
        return LABEL
    return LABEL + (CHARACTER * _longest(panel.x) if upright(panel.x) else TICKS)


def _longest(axis: Axis) -> int:
    return max((len(text) for text in axis.texts), default=0)
