"""How far the strategies explore, against every budget, and how far apart they end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import BUDGETS, DistanceMatrix, Exploration
from figures import style
from figures.marks import Axis, Cells, Key, Panel, Scene, grid
from figures.scenes.scales import even_levels, tick_texts
from figures.scenes.seeds import Spread, band_words, by_label, curve, interpolation, over_seeds
from figures.scenes.words import seeds_of, sentences

MEASURES = {
    "net": ("net distance", "parameter units", "||theta_s \u2212 theta_0||"),
    "path_steps": ("path over steps", "parameter units", "the sum of ||change|| over steps"),
    "path_updates": ("path over updates", "parameter units", "the sum of ||change|| over single updates"),
    "ratio": ("path / net", "1: straight", "path over steps / net distance"),
}
"""Name in words, unit and formula of what an exploration measures."""
BUDGET_UNITS = {
    "steps": "steps",
    "updates": "updates of the shared parameters",
    "gradients": "task gradients",
    "seconds": "seconds",
    "movement": "learning rate \u00d7 updates",
}
WRITTEN = 12
"""Matrices of at most this many points have their values written in the cells."""
HALF = 0.55
"""Text is light on colours below this share of the range."""


def exploration(explorations: Sequence[Exploration], measure: str = "net", order: Sequence[str] = ()) -> Scene:
    """A measure of exploration against each budget of `BUDGETS`, one panel a budget, one line a strategy.

    `measure` is `net` (||theta_s - theta_0||), `path_steps`, `path_updates` (sums of ||change||) or `ratio`
    (path_steps / net). A strategy that is ahead at equal steps need not be so at equal updates or equal movement.
    """
    if measure not in MEASURES:
        raise ValueError(
            f"expected a measure among {', '.join(MEASURES)}, got {measure!r}: choose what to draw against the budgets"
        )
    groups = by_label(explorations, [e.run for e in explorations])
    every = style.looks([*order, *groups])
    name, unit, formula = MEASURES[measure]
    panels: list[Panel] = []
    spreads: list[Spread | None] = []
    for k, budget in enumerate(BUDGETS):
        row = {label: _spread(group, budget, measure) for label, group in groups.items()}
        marks = tuple(mark for label, s in row.items() if s for mark in curve(s, every[label], label, (budget, name)))
        label = f"{name} ({unit})" if k % 3 == 0 else ""
        panels.append(Panel(f"at equal {budget}", Axis(BUDGET_UNITS[budget]), Axis(label), marks))
        spreads += row.values()
    caption = sentences(
        f"{name.capitalize()}, {formula}, on the shared parameters ({unit}); "
        f"{seeds_of([e.run for e in explorations])}.",
        band_words(groups),
        interpolation(spreads),
        "The ratio has no value at the start." if measure == "ratio" else "",
    )
    legend = tuple(Key(label, every[label]) for label in groups)
    return Scene(f"Exploration: {name}", caption, grid(tuple(panels), 3, 46.0), legend)


def _spread(group: Sequence[Exploration], budget: str, measure: str) -> Spread | None:
    return over_seeds([(e.budget(budget), np.asarray(getattr(e, measure))) for e in group])


def distance_matrix(matrix: DistanceMatrix) -> Scene:
    """Distances between points as a heat map of equal cells, with the values written where there are few points."""
    size = len(matrix.labels)
    z = np.asarray(matrix.distance, dtype=float)
    kept = z[np.isfinite(z)]
    levels = even_levels(0.0, float(kept.max())) if kept.size else np.array([0.0, 1.0])
    ticks = levels[:: int(np.ceil(levels.size / 6))]
    bar = Axis(
        "distance (parameter units)",
        range=(float(levels[0]), float(levels[-1])),
        ticks=tuple(ticks.tolist()),
        texts=tick_texts(ticks),
    )
    texts = tuple(tuple(_written(v) for v in row) for row in z) if size <= WRITTEN else ()
    inks = tuple(tuple(_ink(v, levels[-1]) for v in row) for row in z) if size <= WRITTEN else ()
    places = tuple(float(i) for i in range(size))
    x = Axis("", range=(-0.5, size - 0.5), ticks=places, texts=matrix.labels)
    y = Axis("", range=(size - 0.5, -0.5), ticks=places, texts=matrix.labels)
    missing = int(np.isnan(z).sum() + np.isinf(z).sum())
    caption = sentences(
        f"||theta_i \u2212 theta_j|| on the shared parameters, in parameter units, between {matrix.what}.",
        f"{missing} distances are not finite and left blank." if missing else "",
        "Values have three significant digits." if texts else f"{size} points: values are not written in the cells.",
    )
    panel = Panel(matrix.what, x, y, (Cells(z, texts, inks, bar),), aspect=1.0)
    return Scene("Distances between points", caption, grid((panel,), 1, 110.0))


def _written(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else ""


def _ink(value: float, top: float) -> str:
    return style.PAPER if value < HALF * top else style.INK
