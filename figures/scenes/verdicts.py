"""Paired differences between strategies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import Comparison
from figures import style
from figures.marks import Axis, Key, Mark, Panel, Points, Scene, Segments, grid
from figures.marks import Column as Told
from figures.scenes.explorations import MEASURES
from figures.scenes.scales import finite
from figures.scenes.words import count, sentences
from figures.style import Look

LINE = 6.0
"""Height of one comparison in mm."""
COLUMNS = 3
ROOM = 0.08
"""Room on both sides of the intervals, as a share of the range."""


def comparisons(comparisons: Sequence[Comparison], order: Sequence[str] = ()) -> Scene:
    """Forest plot: mean of the paired differences strategy - baseline with its 95 % interval, one panel a measure.

    interval = mean +- t(0.975, n - 1) standard error over seeds. A marker is filled where the interval excludes zero.
    """
    baselines = [c.baseline for c in comparisons]
    every = style.looks([*order, *baselines, *(c.strategy for c in comparisons)])
    rows = tuple(dict.fromkeys((c.strategy, c.baseline, c.budget) for c in comparisons))
    measures = tuple(dict.fromkeys(c.measure for c in comparisons))
    texts = tuple(f"{strategy} \u2212 {baseline}, equal {budget}" for strategy, baseline, budget in rows)
    blank = ("",) * len(rows)
    panels = tuple(
        _panel(measure, comparisons, rows, blank if k % COLUMNS else texts, every) for k, measure in enumerate(measures)
    )
    numbers = sorted({c.seeds.size for c in comparisons})
    seeds = " to ".join(dict.fromkeys(str(n) for n in (numbers[:1] + numbers[-1:])))
    few = sum(not np.isfinite([c.low, c.high]).all() for c in comparisons)
    caption = sentences(
        f"Mean of the paired differences, strategy minus baseline, at equal budget over {seeds} seeds, with 95 % "
        "intervals (Student's t); right of zero the strategy has the larger value.",
        "Filled markers: the interval excludes zero.",
        f"{count(few, 'difference')} without an interval: too few seeds." if few else "",
        *dict.fromkeys(c.note for c in comparisons if c.note),
    )
    legend = tuple(Key(label, every[label].but(width=1.4)) for label in dict.fromkeys(c.strategy for c in comparisons))
    height = LINE * len(rows) + 4.0
    return Scene("Paired differences at equal budgets", caption, grid(panels, COLUMNS, height), legend)


def _panel(
    measure: str,
    comparisons: Sequence[Comparison],
    rows: tuple[tuple[str, str, str], ...],
    texts: tuple[str, ...],
    looks: dict[str, Look],
) -> Panel:
    zero = np.zeros(1)
    marks: list[Mark] = [Segments(zero, zero - 0.5, zero, zero + len(rows) - 0.5, Look(style.FAINT, "dash", width=0.8))]
    for c in comparisons:
        if c.measure == measure:
            place = float(rows.index((c.strategy, c.baseline, c.budget)))
            marks += _row(c, place, looks[c.strategy])
    places = tuple(float(k) for k in range(len(rows)))
    name, unit = MEASURES[measure][:2] if measure in MEASURES else (measure, "")
    ends = finite([np.array([c.low, c.high, c.difference]) for c in comparisons if c.measure == measure])
    low, high = min(0.0, float(ends.min(initial=0.0))), max(0.0, float(ends.max(initial=0.0)))
    room = ROOM * (high - low or 1.0)
    y = Axis("", range=(len(rows) - 0.5, -0.5), ticks=places, texts=texts)
    return Panel(name, Axis("" if measure == "ratio" else unit, range=(low - room, high + room)), y, tuple(marks))


def _row(c: Comparison, place: float, look: Look) -> list[Mark]:
    look = look.but(dash="solid", width=1.4)
    where, value = np.array([place]), np.array([c.difference])
    low, high = np.array([c.low]), np.array([c.high])
    told = tuple(
        Told(name, np.array([entry]))
        for name, entry in (
            ("strategy", c.strategy),
            ("baseline", c.baseline),
            (f"at equal {c.budget}", c.level),
            ("difference", c.difference),
            ("low", c.low),
            ("high", c.high),
            ("seeds", c.seeds.size),
            ("verdict", c.verdict),
        )
    )
    decided = c.low > 0 or c.high < 0
    marks: list[Mark] = []
    if np.isfinite([c.low, c.high]).all():
        marks.append(Segments(low, where, high, where, look.but(marker=""), c.strategy))
    marks.append(Points(value, where, np.array([5.5]), look if decided else look.hollow, c.strategy, told))
    return marks
