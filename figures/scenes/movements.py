"""How one run after the other moved: displacement against lag, turning angles, measures along training; with walks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from analysis.results import BUDGETS, LOSS, Array, Displacements, Movement, WalkNull, measure_name
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Points, Row, Scene, Segments, grid
from figures.scenes.explorations import BUDGET_UNITS
from figures.scenes.scales import log_axis, loss_axis
from figures.scenes.seeds import Spread, band_words, by_label, curve, interpolation, over_seeds
from figures.scenes.words import count, estimated, seeds_of, sentences
from figures.style import Look

FORMULAS = {
    "net": "||theta_s \u2212 theta_0||",
    "to_end": "||theta_end \u2212 theta_s||",
    "path_snapshots": "the sum of ||change|| over stored snapshots",
    "path_steps": "the sum of ||change|| over steps",
    "path_updates": "the sum of ||change|| over single updates",
    "ratio": "path over snapshots / net distance, 1 for a straight line",
    "speed_steps": "the length of the last increment / its steps",
    "speed_updates": "the length of the last increment / its updates",
    "turning": "the mean angle between neighbouring increments so far",
    "exponent": "the slope of log mean-squared displacement over log lag so far",
    "radius": "the root mean square distance from the mean of the snapshots so far",
    "dimension": "the participation ratio of the covariance of the snapshots so far",
    "volume": "the log-determinant of that covariance in its leading directions",
}
"""Formula of every measure."""
WALK = Look(style.FAINT, "dot", width=0.9)
GUIDES = {1: Look(style.FAINT, "dash", width=0.7), 2: Look(style.FAINT, "dashdot", width=0.7)}
"""Slopes: 1 of a random walk, 2 of a straight line."""
BINS = 18
"""Of the histogram of angles, 10 degrees each."""
ANGLES = tuple(float(k) for k in range(0, 181, 30))
ANGLE_TEXTS = tuple(f"{k:g}" for k in ANGLES)
MARGIN = 0.04
ROOM = 1.3


def displacement(items: Sequence[Displacements], order: Sequence[str] = ()) -> Scene:
    """Mean-squared displacement against lag on logarithmic axes, and its exponent run by run.

    All items are of one subset and one form. Dotted: random walks with the same step lengths.
    """
    groups = by_label(items, [item.run for item in items])
    every = style.looks([*order, *groups])
    marks: list[Mark] = [*_guides(items)]
    spreads: list[Spread | None] = []
    walked = False
    for label, group in groups.items():
        walk = over_seeds([(item.lags, item.walk_msd) for item in group])
        low, high = (over_seeds([(i.lags, getattr(i, k)) for i in group]) for k in ("walk_low", "walk_high"))
        if walk and low and high and np.isfinite(walk.mean).any():
            marks += _walk(walk.x, walk.mean, low.low, high.high, every[label], label)
            walked = True
        spread = over_seeds([(item.lags, item.msd) for item in group])
        marks += curve(spread, every[label], label, ("lag", "msd")) if spread else ()
        spreads.append(spread)
    unit = items[0].unit
    values = [array for item in items for array in (item.msd, item.walk_msd)]
    curves = Panel(
        "mean-squared displacement",
        log_axis("lag (steps)", *(item.lags for item in items)),
        log_axis(f"mean-squared displacement ({_squared(unit)})", *values),
        tuple(marks),
    )
    exponents = _exponents(items, every)
    first = items[0]
    caption = sentences(
        "Mean over pairs of snapshots of ||theta_j \u2212 theta_i||\u00b2 against how many steps they are apart; "
        f"{_of(first)}; {seeds_of([item.run for item in items])}.",
        "Right: least-squares slopes between the lags that each fit covers, with jackknife standard errors; 1 for a "
        "random walk, 2 along a straight line.",
        _walk_words(first.draws) if walked else "",
        band_words(groups),
        interpolation(spreads),
    )
    legend = (
        *(Key(label, every[label]) for label in groups),
        *((Key("random walk", WALK),) if walked else ()),
        *(Key(f"slope {slope}", look) for slope, look in GUIDES.items()),
    )
    return Scene("Displacement against lag", caption, (Row((curves, exponents), 2, 62.0),), legend)


def turning(items: Sequence[Displacements], order: Sequence[str] = ()) -> Scene:
    """Histogram of the turning angles between neighbouring increments, one outline a strategy, seeds together."""
    groups = by_label(items, [item.run for item in items])
    every = style.looks([*order, *groups])
    edges = np.linspace(0.0, 180.0, BINS + 1)
    marks: list[Mark] = []
    top, missing = 0.0, 0
    for label, group in groups.items():
        angles = np.concatenate([item.angles for item in group])
        missing += int(np.isnan(angles).sum())
        known = angles[np.isfinite(angles)]
        share = np.histogram(known, edges)[0] / max(len(known), 1)
        x, y = np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        hover = (Column("strategy", np.full(x.size, label)), Column("angle", x), Column("share of turns", y))
        marks.append(Line(x, y, every[label], label, hover))
        top = max(top, float(share.max(initial=0.0)))
    low, high = min(item.angle_low for item in items), max(item.angle_high for item in items)
    ends = np.array([low, high])
    null = Band(ends, np.zeros(2), np.full(2, ROOM * top or 1.0), WALK)
    right = np.full(1, 90.0)
    middle = Segments(right, np.zeros(1), right, np.full(1, ROOM * top or 1.0), WALK)
    panel = Panel(
        "turning angles",
        Axis("angle between neighbouring increments (degrees)", "linear", (0.0, 180.0), ANGLES, ANGLE_TEXTS),
        Axis("share of turns", range=(0.0, ROOM * top or 1.0)),
        (null, middle, *marks),
    )
    caption = sentences(
        f"Angles between the increments from one snapshot to the next, 0 straight on and 180 back; {_of(items[0])}; "
        f"{seeds_of([item.run for item in items])}, seeds together; bins of {180 // BINS} degrees.",
        f"Grey: where 95 % of the angles between independent directions lie, {low:.3g} to {high:.3g} degrees."
        if np.isfinite([low, high]).all()
        else "",
        f"{count(missing, 'angle')} beside an increment without length left out." if missing else "",
    )
    known = bool(np.isfinite([low, high]).all())
    legend = (*(Key(label, every[label]) for label in groups), *((Key("random walk", WALK),) if known else ()))
    return Scene("Turning angles", caption, grid((panel,), 1, 62.0), legend)


def movement(
    items: Sequence[Movement], walks: Sequence[WalkNull] = (), measure: str = "net", order: Sequence[str] = ()
) -> Scene:
    """A measure along training against every budget and at equal loss, one panel a budget, one line a strategy.

    All items are of one subset and one form. Dotted with a band: what random walks with the step lengths of the runs
    measure, least to largest seed of the quantiles 2.5 and 97.5 %.
    """
    first = items[0]
    if measure not in first.measures:
        raise ValueError(
            f"expected a measure among {', '.join(first.measures)}, got {measure!r}: choose what to draw against the "
            "budgets"
        )
    groups = by_label(items, [item.run for item in items])
    every = style.looks([*order, *groups])
    name, formula = measure_name(measure), FORMULAS.get(measure, "")
    unit = first.units[first.measures.index(measure)]
    nulls = {walk.run.name: walk for walk in walks}
    panels: list[Panel] = []
    spreads: list[Spread | None] = []
    walked = False
    for k, budget in enumerate((*BUDGETS, LOSS)):
        marks: list[Mark] = []
        for label, group in groups.items():
            null = _null_marks(group, nulls, budget, measure, every[label], label)
            walked = walked or bool(null)
            marks += null
            spread = over_seeds([_known(item.budget(budget), item.of(measure)) for item in group])
            marks += curve(_shown(spread, budget), every[label], label, (budget, name)) if spread else ()
            spreads.append(spread)
        shown = f"{name} ({unit})" if unit != "1" else name
        x = Axis(BUDGET_UNITS[budget]) if budget != LOSS else _loss(items)
        panels.append(Panel(f"at equal {budget}", x, Axis(shown if k % 3 == 0 else ""), tuple(marks)))
    caption = sentences(
        f"{name.capitalize()}, {formula}; {_of(first)}; {seeds_of([item.run for item in items])}.",
        band_words(groups),
        _walk_words(walks[0].draws) if walked else "",
        estimated(items),
        interpolation(spreads),
        "At equal loss: where each run first reached an average evaluation loss.",
    )
    legend = (*(Key(label, every[label]) for label in groups), *((Key("random walk", WALK),) if walked else ()))
    return Scene(f"Movement: {name}", caption, grid(tuple(panels), 3, 46.0), legend)


def _guides(items: Sequence[Displacements]) -> Iterable[Line]:
    """Slopes through the middle of what is drawn at the shortest lag."""
    lags = np.concatenate([item.lags for item in items])
    shortest = [item.msd[0] for item in items if len(item.msd) and item.msd[0] > 0]
    start = float(np.exp(np.mean(np.log(shortest or [1.0]))))
    ends = np.array([lags.min(), lags.max()])
    for slope, look in GUIDES.items():
        yield Line(ends, start * (ends / ends[0]) ** slope, look)


def _exponents(items: Sequence[Displacements], looks: Mapping[str, Look]) -> Panel:
    rows = sorted(items, key=lambda item: (list(looks).index(item.run.label), item.run.seed))
    marks: list[Mark] = []
    edge = np.array([-0.5]), np.array([len(rows) - 0.5])
    for slope, look in GUIDES.items():
        marks.append(Segments(np.full(1, float(slope)), edge[0], np.full(1, float(slope)), edge[1], look))
    for place, item in enumerate(rows):
        look = looks[item.run.label].but(dash="solid")
        where, value, error = np.array([float(place)]), np.array([item.exponent]), item.exponent_error
        if np.isfinite(error):
            marks.append(Segments(value - error, where, value + error, where, look.but(marker=""), item.run.label))
        told = tuple(
            Column(name, np.array([entry]))
            for name, entry in (
                ("run", item.run.name),
                ("exponent", item.exponent),
                ("standard error", error),
                ("fitted from lag", item.fit_low),
                ("to lag", item.fit_high),
            )
        )
        marks.append(Points(value, where, np.full(1, 4.5), look, item.run.label, told))
    names = tuple(item.run.name for item in rows)
    y = Axis("", range=(len(rows) - 0.5, -0.5), ticks=tuple(float(k) for k in range(len(rows))), texts=names)
    return Panel("exponent", Axis("slope of log displacement over log lag"), y, tuple(marks))


def _walk(x: Array, middle: Array, low: Array, high: Array, look: Look, group: str) -> tuple[Mark, ...]:
    thin = look.but(dash=WALK.dash, width=WALK.width, marker="")
    band = (Band(x, low, high, thin, group),) if np.isfinite([low, high]).all() else ()
    return *band, Line(x, middle, thin, group)


def _null_marks(
    group: Sequence[Movement], nulls: Mapping[str, WalkNull], budget: str, measure: str, look: Look, label: str
) -> tuple[Mark, ...]:
    found = [(item, nulls[item.run.name]) for item in group if item.run.name in nulls]
    if not found:
        return ()
    column = found[0][1].measures.index(measure)

    def spread(key: str) -> Spread | None:
        rows = [
            _known(item.budget(budget)[np.searchsorted(item.steps, walk.steps)], getattr(walk, key)[:, column])
            for item, walk in found
        ]
        return over_seeds(rows) if all(len(x) > 1 for x, _ in rows) else None

    low, middle, high = (spread(key) for key in ("low", "median", "high"))
    if not (low and middle and high):
        return ()
    if not np.isfinite(middle.mean).any():
        return ()
    x = -middle.x if budget == LOSS else middle.x
    return _walk(x, middle.mean, low.low, high.high, look, label)


def _known(x: Array, y: Array) -> tuple[Array, Array]:
    """A curve from its first finite value to its last."""
    there = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
    inside = slice(there[0], there[-1] + 1) if len(there) else slice(0, 0)
    return np.asarray(x[inside], float), np.asarray(y[inside], float)


def _shown(spread: Spread, budget: str) -> Spread:
    """At equal loss a curve runs over the loss itself."""
    if budget != LOSS:
        return spread
    return Spread(-spread.x, spread.mean, spread.low, spread.high, spread.seeds, spread.interpolated)


def _loss(items: Sequence[Movement]) -> Axis:
    reached = [-item.budget(LOSS) for item in items]
    axis = loss_axis("average loss reached", *reached)
    values = np.concatenate(reached)
    values = values[np.isfinite(values)]
    wide = values.size > 0 and values.max() > values.min()
    room = MARGIN * (values.max() - values.min()) if wide and axis.scale == "linear" else 0.0
    ends = (float(values.max() + room), float(values.min() - room)) if wide else None
    return Axis(axis.label, axis.scale, ends, axis.ticks if axis.scale == "log" else (), axis.texts)


def _of(item: Displacements | Movement) -> str:
    form = {"raw": "", "relative": ", relative to the start's norm"}.get(item.form, f", {item.form} form")
    return f"parameters: {item.subset}{form}"


def _squared(unit: str) -> str:
    return f"{unit}\u00b2" if unit.isalpha() else f"({unit})\u00b2"


def _walk_words(draws: int) -> str:
    words = "Dotted, in the colour of the strategy: random walks with its step lengths and dimension"
    return f"{words}, with a band from 2.5 to 97.5 % of {draws} draws." if draws else f"{words}, on average."
