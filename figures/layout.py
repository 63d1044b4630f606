"""Where the panels of a scene lie on paper, in mm: one plan for both renderers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from figures import style
from figures.marks import Axis, Cells, Contours, Panel, Row, Scene

CHARACTER = 1.35
"""Width of an average character of the text of ticks, in mm."""
DIGIT = 1.46
"""Width of a digit of theirs."""
BESIDE, LABELLED = 3.0, 6.5
"""Room for the marks of ticks on the left of an axis, in mm, and for these with its label."""
NUMBERS = 9
"""Ticks that a renderer chooses by itself, at most."""
TITLE, TICKS, LABEL, GAP, BAR = 5.0, 3.5, 5.5, 4.0, 16.0
LEFT = 13.5
"""Room for ticks and label on the left of a panel, in mm."""
WIDEST = 0.45
"""Texts of ticks take at most this share of the width of the figure, all columns together."""
DEEPEST = 45.0
"""Texts of ticks that stand upright take at most so much height, in mm."""
BOLD = 1.75
"""Width of an average character of a panel's title, in mm."""
JOINTS = (" and ", " / ")
"""Between two names, of which each is shortened."""
APART = 3.4
"""Texts beside a colour bar are at least so far apart, in mm."""
TICK = 4.5
"""Numbers on a vertical axis are at least so far apart, in mm."""
MANY_TICKS = 6
LONG_TEXT = 8


@dataclass(frozen=True)
class Box:
    """A panel's axes in mm, y downwards from the top of the first row; its texts are as long as there is room for."""

    panel: Panel
    left: float
    top: float
    width: float
    height: float

    @property
    def most(self) -> tuple[int, int]:
        """How many ticks that a renderer chooses by itself fit along x and along y without touching, one at least."""
        along = self.width / (DIGIT * (_characters(self.panel, "x") + 1))
        return max(1, min(NUMBERS, int(along))), max(1, min(NUMBERS, int(self.height / TICK)))

    @property
    def bar(self) -> Axis | None:
        """The colour bar that belongs on the right of the axes, if any, with as many ticks as there is room for."""
        bar = colour_bar(self.panel)
        if bar is None:
            return None
        kept = _apart(bar, self.height)
        return replace(
            bar,
            label=bar.label if CHARACTER * len(bar.label) <= self.height + TITLE + TICKS else "",
            ticks=tuple(bar.ticks[k] for k in kept),
            texts=tuple(bar.texts[k] for k in kept),
        )


@dataclass(frozen=True)
class Plan:
    """The boxes of all panels in the order of `Scene.panels`, and the height that they need."""

    boxes: tuple[Box, ...]
    height: float


def colour_bar(panel: Panel) -> Axis | None:
    """The colour bar of a panel that has one."""
    bars = [mark.bar for mark in panel.marks if isinstance(mark, Contours | Cells)]
    return bars[0] if bars and bars[0].ticks else None


def shortened(text: str, room: int) -> str:
    """A text of at most so many characters: the middle of a longer one gives way to an ellipsis."""
    room = max(room, 3)
    if len(text) <= room:
        return text
    for joint in JOINTS:
        first, found, last = text.partition(joint)
        if found and room - len(joint) >= 6:
            half = (room - len(joint)) // 2
            half = max(half, room - len(joint) - min(len(first), len(last)))
            return f"{shortened(first, half)}{joint}{shortened(last, room - len(joint) - min(half, len(first)))}"
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}\u2026{text[len(text) - end :]}"


def _apart(bar: Axis, height: float) -> list[int]:
    """Which ticks of a colour bar of this height to keep: every one, every second, ... with the first."""
    low, high = bar.range or (min(bar.ticks), max(bar.ticks))
    places = [height * abs(tick - low) / (abs(high - low) or 1.0) for tick in bar.ticks]
    for every in range(1, len(places)):
        kept = places[::every]
        if all(b - a >= APART for a, b in itertools.pairwise(kept)):
            return list(range(0, len(places), every))
    return [0]


def upright(axis: Axis, width: float) -> bool:
    """Whether the tick texts of a horizontal axis of this width are too many and too long to stand side by side."""
    count, longest = len(axis.texts), _longest(axis)
    crowded = count > 1 and count * (longest + 1) * CHARACTER > width
    return longest >= LONG_TEXT and (count >= MANY_TICKS or crowded)


def plan(scene: Scene) -> Plan:
    """Place the panels: equal widths within a row, heights reduced to what panels of a fixed aspect need."""
    boxes: list[Box] = []
    top = 0.0
    for row in scene.rows:
        columns = _narrowed([_column(scene, row.columns, k) for k in range(row.columns)])
        placed = _place(row, columns, top)
        boxes.extend(placed)
        below = max(_below(box.panel, box.width) for box in placed)
        top = max(box.top + box.height for box in placed) + below
    return Plan(tuple(boxes), top)


def _column(scene: Scene, columns: int, k: int) -> tuple[float, float]:
    """Room on the left and on the right of a column, the same in all rows of as many columns."""
    panels = [row.panels[k] for row in scene.rows if row.columns == columns and k < len(row.panels)]
    return max(map(_left, panels), default=LEFT), max(map(_right, panels), default=GAP)


def _narrowed(columns: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same with less room on the left where texts of ticks would leave too little for the panels."""
    beyond = sum(left for left, _ in columns) - WIDEST * style.WIDTH
    long = sum(max(left - LEFT, 0.0) for left, _ in columns)
    if beyond <= 0 or not long:
        return columns
    share = max(1 - beyond / long, 0.0)
    return [(left if left <= LEFT else LEFT + share * (left - LEFT), right) for left, right in columns]


def _place(row: Row, columns: list[tuple[float, float]], top: float) -> list[Box]:
    width = (style.WIDTH - sum(left + right for left, right in columns)) / row.columns
    sizes = [_size(panel, width, row.height) for panel in row.panels]
    tallest = max(height for _, height in sizes)
    boxes = []
    start = 0.0
    for panel, (wide, high), (left, right) in zip(row.panels, sizes, columns, strict=False):
        place = start + left + (width - wide) / 2
        boxes.append(
            Box(_fitted(panel, (wide, high), (left, right)), place, top + TITLE + (tallest - high) / 2, wide, high)
        )
        start += left + width + right
    return boxes


def _size(panel: Panel, width: float, height: float) -> tuple[float, float]:
    if panel.aspect is None or panel.x.range is None or panel.y.range is None:
        return width, height
    x, y = (abs(axis.range[1] - axis.range[0]) for axis in (panel.x, panel.y) if axis.range)
    wanted = panel.aspect * y / x
    return (width, width * wanted) if width * wanted <= height else (height / wanted, height)


def _fitted(panel: Panel, size: tuple[float, float], beside: tuple[float, float]) -> Panel:
    """The panel with texts that fit its axes of this size, with so much room on both sides."""
    wide, high = size
    return replace(
        panel,
        title=shortened(panel.title, int((wide + beside[1] - GAP / 2) / BOLD)),
        x=_fitted_axis(panel.x, wide + beside[1], DEEPEST),
        y=_fitted_axis(panel.y, high + TITLE + TICKS + LABEL, beside[0] - 2.0 - 3.0 * bool(panel.y.label)),
    )


def _fitted_axis(axis: Axis, length: float, across: float) -> Axis:
    texts = tuple(shortened(text, math.ceil(across / CHARACTER)) for text in axis.texts)
    return replace(axis, label=shortened(axis.label, int(length / CHARACTER)), texts=texts)


def _left(panel: Panel) -> float:
    if panel.z is not None:
        return GAP
    if panel.y.ticks and not any(panel.y.texts):
        return LABEL
    beside = LABELLED if panel.y.label else BESIDE
    if panel.y.texts:
        return max(LEFT, CHARACTER * _longest(panel.y) + beside)
    return max(LEFT, DIGIT * _characters(panel, "y") + beside)


def _right(panel: Panel) -> float:
    if panel.z is not None:
        return 2 * LABEL
    return BAR if colour_bar(panel) else GAP


def _below(panel: Panel, width: float) -> float:
    if panel.z is not None:
        return LABEL
    return LABEL + (min(CHARACTER * _longest(panel.x), DEEPEST) if upright(panel.x, width) else TICKS)


def _characters(panel: Panel, name: str) -> int:
    """Characters of the longest text of a tick along x or y: of the scene's own, or of those a renderer will choose."""
    axis = panel.x if name == "x" else panel.y
    if axis.ticks or axis.scale == "log":
        return _longest(axis)
    low, high = axis.range or _extent(panel, name)
    size, step = max(abs(low), abs(high)), abs(high - low) / MANY_TICKS
    if not step:
        return len(f"{low:g}")
    if not 1e-4 <= size < 1e5:
        return 4  # a few digits, with a factor of all beside the axis
    digits = max(0, 1 - math.floor(math.log10(step)))
    return max(len(f"{value:.{digits}f}".rstrip("0")) for value in (low, high, low + step))


def _extent(panel: Panel, name: str) -> tuple[float, float]:
    """The least and the largest finite coordinate of what is drawn along x or y."""
    ends = {"x": ("x", "x0", "x1"), "y": ("y", "y0", "y1", "low", "high")}[name]
    arrays = [getattr(mark, end) for mark in panel.marks for end in ends if hasattr(mark, end)]
    values = np.concatenate([*(np.ravel(np.asarray(array, float)) for array in arrays), np.zeros(0)])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _longest(axis: Axis) -> int:
    return max((len(text) for text in axis.texts), default=0)
