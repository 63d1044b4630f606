"""Panels and lines of many losses or pairs, so that a figure stays on one page and is legible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import AVERAGE, Array
from figures.layout import LABEL, TICKS, TITLE
from figures.marks import Panel, Row, grid
from figures.scenes.scales import finite

PAGE = 200.0
"""Height of all panels with their frames, in mm: a page of 23 cm less title, legend and caption."""
FRAME = TITLE + TICKS + LABEL
"""Height of what stands around a panel, in mm."""
MOST = 12
"""So many panels of losses, or lines of pairs, are legible in one figure."""
SEPARATORS = " _-./"


@dataclass(frozen=True)
class Most:
    """Which of many losses are drawn: those of the largest number, and what that is, in words."""

    numbers: Sequence[float]
    words: str

    @classmethod
    def varied(cls, values: Sequence[Array]) -> Most:
        """Those whose values reach over the largest range."""
        return cls([_known(one, lambda v: float(np.ptp(v))) for one in values], "whose values range furthest")

    @classmethod
    def large(cls, values: Sequence[Array]) -> Most:
        """Those whose values are the largest, whatever their signs."""
        return cls([_known(one, lambda v: float(np.abs(v).max())) for one in values], "of the largest values")


def _known(values: Array, of: Callable[[Array], float]) -> float:
    there = finite([values])
    return of(there) if there.size else -1.0


def on_a_page(
    panels: Sequence[Panel], most: Most, columns: int, height: float, room: float = PAGE
) -> tuple[tuple[Row, ...], str]:
    """Rows of panels, one a loss, that are no higher than `room`, and a sentence on those that are left out.

    Of more than `MOST` those are drawn that `most` chooses, and the average; rows of three, and lower ones, take the
    place of those asked for where these do not fit.
    """
    kept = tuple(panels[k] for k in _chosen(panels, most.numbers))
    if _high(len(kept), columns, height) > room:
        columns = max(columns, 3)
        height = min(height, room / -(-len(kept) // columns) - FRAME)
    words = (
        f"Of {len(panels)} losses {len(kept)} are drawn: those {most.words}, and the average."
        if len(kept) < len(panels)
        else ""
    )
    return grid(kept, columns, height), words


def _high(count: int, columns: int, height: float) -> float:
    return -(-count // max(1, min(columns, count))) * (height + FRAME) if count else 0.0


def _chosen(panels: Sequence[Panel], numbers: Sequence[float]) -> list[int]:
    """The places of the panels that are drawn, in their order."""
    if len(panels) <= MOST:
        return list(range(len(panels)))
    first = sorted(range(len(panels)), key=lambda k: (not panels[k].title.startswith(AVERAGE), -numbers[k]))
    return sorted(first[:MOST])


def spread(values: Array) -> tuple[Array, Array, Array]:
    """The least, the middle and the largest finite value of every row; NaN where there is none."""
    rows = [finite([row]) for row in values]
    ends = [(row.min(), np.median(row), row.max()) if row.size else (np.nan,) * 3 for row in rows]
    low, middle, high = np.array(ends, float).reshape(-1, 3).T
    return low, middle, high


def extremes(values: Array) -> list[int]:
    """Which columns are least and largest on average over the rows; fewer where fewer are known."""
    means = np.array([known.mean() if (known := finite([column])).size else np.nan for column in values.T])
    order = [int(k) for k in np.argsort(means, kind="stable") if np.isfinite(means[k])]
    return list(dict.fromkeys([*order[:1], *order[-1:]]))


def told_apart(names: Sequence[str], room: int) -> tuple[dict[str, str], str]:
    """Each name without what all begin with, where one is longer than `room` characters, and what that is, else
    nothing; the average keeps its name.
    """
    tasks = [name for name in names if name != AVERAGE]
    same = 0
    while len(tasks) > 1 and same < min(map(len, tasks)) and len({name[same] for name in tasks}) == 1:
        same += 1
    common = tasks[0][:same] if tasks else ""
    common = common[: max(common.rfind(mark) for mark in SEPARATORS) + 1]
    if max(map(len, tasks), default=0) <= room or len(common) < 2:
        return {name: name for name in names}, ""
    return {name: name if name == AVERAGE else f"\u2026{name[len(common) :]}" for name in names}, common
