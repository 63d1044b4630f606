"""Values along training with error bars: the marks that several scenes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.results import AVERAGE, Array
from figures import style
from figures.marks import Axis, Column, Line, Mark, Points, Segments
from figures.scenes.scales import even_levels, finite, log_axis, scale_of, tick_texts
from figures.style import Look

DOUBT = Look(style.FAINT, marker="circle", width=0.9).hollow
"""How a value that is not sure is drawn in a legend."""
SMALL = 1e-2
"""Values that are all smaller have their ticks written in full: a common factor would stand in the title."""
TICKS = 6
APART = 0.012
"""Series that are drawn side by side are this share of the range of steps apart."""


@dataclass(frozen=True, eq=False)
class Series:
    """Values [n] at steps, each between a low and a high end, and whether it is sure; others are drawn hollow."""

    steps: Array
    value: Array
    low: Array
    high: Array
    sure: Array

    @classmethod
    def of(cls, steps: Array, value: Array, error: Array | None = None, sure: Array | None = None) -> Series:
        """A series with symmetric errors; without any, the bars have no length."""
        half = np.zeros(value.shape) if error is None else np.where(np.isfinite(error), error, 0.0)
        known = np.ones(value.shape, bool) if sure is None else np.asarray(sure, bool)
        return cls(np.asarray(steps), value, value - half, value + half, known)


def marks(series: Series, look: Look, group: str, name: str, scale: str = "linear") -> list[Mark]:
    """A line with bars and markers. On a logarithmic scale bars that reach zero or less end just below the value."""
    value = np.where(series.value > 0, series.value, np.nan) if scale == "log" else series.value
    low = np.where(series.low > 0, series.low, value / 2) if scale == "log" else series.low
    told = (
        Column("of", np.full(value.size, group)),
        Column("step", series.steps),
        Column(name, series.value),
        Column("low", series.low),
        Column("high", series.high),
    )
    drawn: list[Mark] = [
        Segments(series.steps, low, series.steps, series.high, look.but(dash="solid", marker="", width=0.8), group),
        Line(series.steps, value, look.but(width=1.0, marker=""), group, told),
    ]
    for chosen, one in ((series.sure, look), (~series.sure, look.hollow)):
        if chosen.any():
            x, y = series.steps[chosen], value[chosen]
            drawn.append(Points(x, y, np.full(x.size, 3.2), one.but(size=3.2), group))
    return drawn


def side_by_side(all_series: Sequence[Series]) -> list[Series]:
    """The same series a little apart, so that their bars can be told apart; at one step as over one step's range."""
    middle = (len(all_series) - 1) / 2
    return [
        replace(one, steps=one.steps + (k - middle) * APART * (np.ptp(one.steps) or 1.0))
        for k, one in enumerate(all_series)
    ]


def value_axis(label: str, all_series: Sequence[Series], lines: Sequence[float] = ()) -> Axis:
    """An axis for some series: logarithmic where all values are positive and their range is large."""
    values = [one.value for one in all_series]
    if scale_of(*values, np.array(lines)) == "log":
        return log_axis(label, *values, np.array(lines))
    kept = finite([*values, *(end for one in all_series for end in (one.low, one.high)), np.array(lines)])
    if not kept.size or np.abs(kept).max() >= SMALL:
        return Axis(label)
    if kept.min() == kept.max():
        return Axis(label, "linear", None, (float(kept[0]),), tick_texts(kept[:1]))
    levels = even_levels(float(kept.min()), float(kept.max()))
    every = int(np.ceil(levels.size / TICKS))
    zero = int(np.argmin(np.abs(levels))) % every
    ticks = np.where(np.abs(levels) < 1e-9 * np.abs(levels).max(), 0.0, levels)[zero::every]
    return Axis(label, "linear", None, tuple(ticks.tolist()), tick_texts(ticks))


def level(steps: Array, height: float, look: Look, group: str = "") -> Line:
    """A horizontal line over all of the steps."""
    ends = np.array([steps.min(), steps.max()], float)
    return Line(ends, np.full(2, height), look, group)


def operator_looks(operators: Sequence[str]) -> dict[str, Look]:
    """Tasks look as `style.looks` has them; the average is black and wide."""
    tasks = [name for name in operators if name != AVERAGE]
    looks = style.looks(tasks)
    return {name: looks.get(name, Look(style.INK, "solid", "hexagon", width=1.6)) for name in operators}


def title_of(operator: str) -> str:
    """The name of an operator as a panel's title."""
    return "average of the tasks" if operator == AVERAGE else operator


def broken(*arrays: Array) -> int:
    """How many values are not finite."""
    return sum(int(np.size(a)) for a in arrays) - finite(arrays).size
