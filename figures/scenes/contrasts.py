"""Differences between strategies in every measure at every equal budget, marked by what correction leaves of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import ERROR_RATE, LARGER, SMALLER, Contrast, measure_name
from figures import style
from figures.marks import Axis, Key, Mark, Panel, Points, Scene, Segments, grid
from figures.marks import Column as Told
from figures.scenes.scales import even_levels, finite, tick_texts
from figures.scenes.words import count, sentences
from figures.style import Look

LINE = 4.6
"""Height of one comparison in mm."""
COLUMNS = 3
FRAME = 22.0
"""Height around the comparisons of a panel in mm: title, ticks and label."""
TALLEST = 215.0
"""Panels fit a page of this height in mm; comparisons stand closer together, and then measures are left out."""
CLOSEST = 2.9
"""Height of one comparison in mm where there are many."""
FIRST = ("net", "path_steps", "path_updates", "ratio", "radius", "dimension")
"""Measures that are drawn first where not all of them fit."""
TICKS = 4
ROOM = 0.08
"""Room on both sides of the intervals, as a share of the range."""


def contrasts(contrasts: Sequence[Contrast], order: Sequence[str] = ()) -> Scene:
    """Forest plot: differences strategy - baseline with 95 % intervals, one panel a measure, one line a budget.

    A marker is filled where the interval leaves out zero and p, corrected for all tests of the pair of strategies, is
    at most 0.05. Measures without a value at any budget are left out. All contrasts are of one subset in one form.
    """
    abouts = {(c.subset, c.form) for c in contrasts}
    if len(abouts) != 1:
        raise ValueError(f"expected contrasts of one subset in one form, got {len(abouts)}: draw them one by one")
    ((subset, form),) = abouts
    every = style.looks([*order, *(c.baseline for c in contrasts), *(c.strategy for c in contrasts)])
    rows = tuple((c, k) for c in contrasts for k in range(len(c.budgets)))
    measures = [
        name
        for name in dict.fromkeys(name for c in contrasts for name in c.measures)
        if any(np.isfinite(c.difference[c.measures.index(name)]).any() for c in contrasts if name in c.measures)
    ]
    known = len(measures)
    line, measures = _fitting(measures, len(rows))
    several = len({c.strategy for c in contrasts}) > 1
    texts = tuple(f"{c.strategy}, {c.budgets[k]}" if several else c.budgets[k] for c, k in rows)
    blank = ("",) * len(rows)
    panels = tuple(_panel(name, rows, blank if n % COLUMNS else texts, every) for n, name in enumerate(measures))
    drawn = dict.fromkeys(c.strategy for c in contrasts)
    keys = tuple(Key(label, every[label].but(dash="solid", width=1.4)) for label in drawn)
    title = f"Differences at equal budgets: {subset}, {form}"
    caption = sentences(
        _caption(contrasts),
        f"{len(measures)} of {known} measures are drawn; all of them stand in the tables."
        if len(measures) < known
        else "",
    )
    return Scene(title, caption, grid(panels, COLUMNS, line * len(rows) + 6.0), keys)


def _fitting(measures: Sequence[str], rows: int) -> tuple[float, list[str]]:
    """The height of a comparison, and as many of the measures as fit a page, in their order."""
    wanted = -(-len(measures) // COLUMNS)
    line = min(LINE, max(CLOSEST, (TALLEST / max(wanted, 1) - FRAME) / rows))
    count = max(1, int(TALLEST / (line * rows + FRAME))) * COLUMNS
    first = [*(m for m in FIRST if m in measures), *(m for m in measures if m not in FIRST)][:count]
    return line, [m for m in measures if m in first]


def _caption(contrasts: Sequence[Contrast]) -> str:
    baselines = ", ".join(dict.fromkeys(c.baseline for c in contrasts))
    designs = "; ".join(
        dict.fromkeys(
            f"{c.strategy}: {count(len(c.seeds), 'seed')} in pairs"
            if c.design == "paired"
            else f"{c.strategy}: {len(c.seeds)} and {len(c.baseline_seeds)} seeds, unpaired"
            for c in contrasts
        )
    )
    missing = sum(int((np.isfinite(c.difference) & ~np.isfinite(c.low)).sum()) for c in contrasts)
    return sentences(
        f"Strategy minus {baselines} with 95 % intervals (Student's t; Welch's where unpaired), read where all runs "
        "have spent the same, or first reach the same loss; right of zero the strategy has more.",
        f"Filled: the interval leaves out zero and p, corrected for {_tests(contrasts)}, is at most {ERROR_RATE:g}. "
        "Hollow: not so.",
        f"{designs}.",
        *dict.fromkeys(c.note for c in contrasts if c.note),
        f"{count(missing, 'difference')} without an interval: too few seeds." if missing else "",
    )


def _tests(contrasts: Sequence[Contrast]) -> str:
    return " and ".join(dict.fromkeys(count(c.tests, "test") for c in contrasts)) + " of each pair of strategies"


def _panel(measure: str, rows: Sequence[tuple[Contrast, int]], texts: tuple[str, ...], looks: dict[str, Look]) -> Panel:
    zero = np.zeros(1)
    marks: list[Mark] = [Segments(zero, zero - 0.5, zero, zero + len(rows) - 0.5, Look(style.FAINT, "dash", width=0.8))]
    ends, unit = [np.zeros(1)], ""
    for place, (c, budget) in enumerate(rows):
        if measure in c.measures:
            at = (c.measures.index(measure), budget)
            unit = c.units[at[0]]
            marks += _row(c, at, float(place), looks[c.strategy])
            ends.append(np.array([c.low[at], c.high[at], c.difference[at]]))
    spread = finite(ends)
    low, high = float(spread.min()), float(spread.max())
    room = ROOM * (high - low or 1.0)
    places = tuple(float(k) for k in range(len(rows)))
    y = Axis("", range=(len(rows) - 0.5, -0.5), ticks=places, texts=texts)
    name = measure_name(measure)
    return Panel(name, _axis("" if unit == "1" else unit, low - room, high + room), y, tuple(marks))


def _axis(label: str, low: float, high: float) -> Axis:
    """With a few round ticks, zero among them."""
    levels = even_levels(low, high)
    levels = levels[(levels >= low) & (levels <= high)]
    every = max(1, -(-levels.size // TICKS))
    zero = int(np.argmin(np.abs(levels))) if levels.size else 0
    ticks = np.where(np.abs(levels) < 1e-9 * (high - low), 0.0, levels)[zero % every :: every]
    return Axis(label, range=(low, high), ticks=tuple(ticks.tolist()), texts=tick_texts(ticks))


def _row(c: Contrast, at: tuple[int, int], place: float, look: Look) -> list[Mark]:
    if not np.isfinite(c.difference[at]):
        return []
    look = look.but(dash="solid", width=1.4)
    where, value = np.array([place]), np.array([c.difference[at]])
    low, high = np.array([c.low[at]]), np.array([c.high[at]])
    outcome, budget = c.outcome(*at), c.budgets[at[1]]
    told = tuple(
        Told(name, np.array([entry]))
        for name, entry in (
            ("strategy", c.strategy),
            ("baseline", c.baseline),
            (f"at equal {budget}", c.levels[at[1]]),
            ("difference", c.difference[at]),
            ("low", c.low[at]),
            ("high", c.high[at]),
            ("p, corrected", c.p_corrected[at]),
            ("Hedges' g", c.effect[at]),
            ("seeds", int(c.samples[at])),
            ("outcome", outcome),
        )
    )
    marks: list[Mark] = []
    if np.isfinite([low, high]).all():
        marks.append(Segments(low, where, high, where, look.but(marker=""), c.strategy))
    clear = outcome in (LARGER, SMALLER)
    marks.append(Points(value, where, np.array([5.0]), look if clear else look.hollow, c.strategy, told))
    return marks
