"""What is known from samples: a surface from some of its points, and ensembles of random planes and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.results import AVERAGE, Array, Interpolation, ProfileEnsemble, Shadow, Surface, SurfaceEnsemble
from figures import style
from figures.marks import Axis, Band, Column, Contours, Key, Line, Mark, Panel, Points, Row, Scene, grid
from figures.scenes.landscapes import flat
from figures.scenes.scales import common_scale, height, log_axis, scale_of
from figures.scenes.trajectories import views
from figures.scenes.words import count, listed, lone_words, sentences
from figures.style import Look

USED = Look(style.PAPER, marker="circle", size=2.2, fill=style.INK, width=0.3)
HELD_OUT = Look(style.INK, marker="circle", size=2.6, fill=style.PAPER, width=0.4)
"""Dark and light together, so that both are seen on any colour of a surface."""
MEDIAN = Look(style.COLOURS[0])
COLUMNS = 2
FEW = 8
"""So many seeds are named one by one."""


def interpolation(record: Interpolation, shadows: Sequence[Shadow] = (), order: Sequence[str] = ()) -> Scene:
    """Filled contours of the fit of every task's loss and of their average, with the points that were measured.

    Dots: points that the fit goes through; open circles: points held out, from which its error is known. Trajectories
    as in `surface`.
    """
    fitted = replace(record.surface, loss=record.loss, done=np.asarray(np.isfinite(record.loss).all(0)))
    scene, shown = flat(fitted, shadows, order, views(fitted), _without_fit), views(record.surface)
    dots = {view.title: _dots(record, view.title, view.loss) for view in shown}
    rows = tuple(replace(row, panels=tuple(_with(panel, dots) for panel in row.panels)) for row in scene.rows)
    keys = (Key("measured, used for the fit", USED), Key("measured, held out", HELD_OUT))
    caption = sentences(_error_words(record), scene.caption)
    return replace(scene, title=f"{scene.title}, interpolated", caption=caption, rows=rows, legend=keys + scene.legend)


def _without_fit(fitted: Surface) -> str:
    missing = int((~fitted.done).sum())
    return f"Blank: {count(missing, 'point')} next to measured losses that are not finite." if missing else ""


def _with(panel: Panel, dots: Mapping[str, list[Mark]]) -> Panel:
    """A panel with dots between its contours and what lies above them, if it has contours."""
    if not isinstance(panel.marks[0], Contours):
        return panel
    return replace(panel, marks=(panel.marks[0], *dots[panel.title], *panel.marks[1:]))


def _dots(record: Interpolation, name: str, measured: Array) -> list[Mark]:
    x, y = np.meshgrid(record.x, record.y)
    marks: list[Mark] = []
    for look, mask in ((USED, record.used), (HELD_OUT, record.held_out)):
        here = (mask & record.surface.done).astype(bool)
        told = (Column("x", x[here]), Column("y", y[here]), Column(f"measured loss, {name}", measured[here]))
        marks.append(Points(x[here], y[here], np.full(int(here.sum()), look.size), look, "", told))
    return marks


def _error_words(record: Interpolation) -> str:
    used, held = int(record.used.sum()), int((record.held_out & record.surface.done).sum())
    logarithmic = [task for task, yes in zip(record.tasks, record.logarithmic, strict=True) if yes]
    inside = f", in the logarithm of the loss for {listed(logarithmic)}" if logarithmic else ""
    measured = (
        f"Interpolated from {used} of {count(record.used.size, 'grid point')} (dots){inside}; with {held} held out "
        f"(open circles) {record.surface.done.mean():.1%} of the points were measured."
    )
    if not held:
        return sentences(measured, "The error is not known yet: the points held out are measured last.")
    views = [*zip(record.tasks, record.error, record.error_share, strict=True)]
    if len(record.tasks) > 1:
        views.append((AVERAGE, record.average_error, record.average_error_share))
    worst = max(share for _, _, share in views)
    errors = "; ".join(f"{name} {error:.2g} ({share:.2%} of the range)" for name, error, share in views)
    reached = (
        f"The tolerance of {record.tolerance:.2%} was reached."
        if record.reached
        else f"The tolerance of {record.tolerance:.2%} was NOT reached"
        + (f" with a budget of {record.budget:.0%} of the points." if record.finished else " yet.")
    )
    return sentences(
        measured,
        f"Largest error at the points held out, as a share of the range of the loss or of its logarithm: {errors}.",
        f"With {record.confidence:.1%} confidence it is at most {worst:.2%} in every panel at {record.coverage:.0%} or "
        "more of the points not used.",
        f"{count(record.exceptions, 'point')} held out where the loss is finite and no fit is, or the reverse."
        if record.exceptions
        else "",
        reached,
    )


def surface_ensemble(record: SurfaceEnsemble) -> Scene:
    """Filled contours over several random planes: the median, and beside it how far apart the draws are.

    The spread is the ratio of the two quantiles where losses are drawn on a logarithmic scale, else their difference.
    """
    scale = common_scale(_every(record))
    with np.errstate(all="ignore"):
        spreads = record.high / record.low if scale == "log" else record.high - record.low
    low, high = (f"{100 * q:g}%" for q in record.quantiles)
    word = f"{high} quantile / {low} quantile" if scale == "log" else f"{high} \u2212 {low} quantile of the loss"
    x, y = (
        Axis(f"{name} random direction", range=(float(axis.min()), float(axis.max())))
        for name, axis in (("first", record.x), ("second", record.y))
    )
    rows = []
    for name, median, spread in zip(_titles(record.tasks), record.median, spreads, strict=True):
        drawn = ((f"{name}: median", median, "loss", scale), (f"{name}: spread", spread, word, scale_of(spread)))
        rows.append(Row(tuple(Panel(t, x, y, (_contours(record, v, label, s),)) for t, v, label, s in drawn), 2, 44.0))
    wide = f"the {high} quantile {'divided by' if scale == 'log' else 'minus'} the {low} quantile"
    caption = sentences(
        _draws(record, "planes"),
        f"Left: median. Right: {wide}. Levels are evenly spaced in {'log10 of ' if scale == 'log' else ''}the median.",
        "Each panel has colours of its own; the axes of every draw are its own, so shapes are comparable and "
        "directions are not.",
        _missing(record),
        lone_words(record.median),
    )
    return Scene("Loss over random planes", caption, tuple(rows))


def _contours(record: SurfaceEnsemble, values: Array, label: str, scale: str) -> Contours:
    shown = height(label, "log" if scale == "log" else "linear", values)
    colours = style.shades(max(shown.levels.size - 1, 0))
    return Contours(record.x, record.y, shown(values), values, shown.levels, colours, shown.axis)


def profile_ensemble(record: ProfileEnsemble) -> Scene:
    """The median loss along several random lines, with a band between the two quantiles."""
    logarithmic = common_scale(_every(record)) == "log"
    axis = Axis("random direction")
    low, high = (f"{100 * q:g}%" for q in record.quantiles)
    panels = []
    for name, *curves in zip(_titles(record.tasks), record.median, record.low, record.high, strict=True):
        median, bottom, top = curves
        told = (
            Column("coordinate", record.x),
            Column("median", median),
            Column(f"{low} quantile", bottom),
            Column(f"{high} quantile", top),
        )
        marks = (Band(record.x, bottom, top, MEDIAN), Line(record.x, median, MEDIAN, "", told))
        panels.append(Panel(name, axis, log_axis("loss", *curves) if logarithmic else Axis("loss"), marks))
    caption = sentences(
        _draws(record, "lines"),
        f"Line: median. Band: from the {low} to the {high} quantile.",
        _missing(record),
    )
    return Scene("Loss along random lines", caption, grid(tuple(panels), COLUMNS, 44.0))


def _titles(names: Sequence[str]) -> list[str]:
    """Titles of the views: the average says of how many tasks it is."""
    return [f"{AVERAGE} of {count(len(names) - 1, 'task')}" if name == AVERAGE else name for name in names]


def _draws(record: SurfaceEnsemble | ProfileEnsemble, what: str) -> str:
    seeds = [str(seed) for seed in record.seeds.tolist()]
    named = f"seeds {listed(seeds)}" if len(seeds) <= FEW else f"{len(seeds)} seeds from {min(record.seeds)} to "
    named += "" if len(seeds) <= FEW else str(max(record.seeds))
    average = "The average over tasks is taken in each draw." if AVERAGE in record.tasks else ""
    return sentences(
        f"Loss over {count(record.examples, f'{record.split} example')}, point by point over {len(seeds)} {what} drawn "
        f"by {named}: {record.recipe}.",
        average,
    )


def _every(record: SurfaceEnsemble | ProfileEnsemble) -> list[Array]:
    """Median and quantiles of each view."""
    return list(np.stack([record.median, record.low, record.high], 1))


def _missing(record: SurfaceEnsemble | ProfileEnsemble) -> str:
    broken = ~np.isfinite(_every(record)).all((0, 1))
    if not broken.any():
        return ""
    return f"{int(broken.sum())} of {count(broken.size, 'point')} where a draw is not measured or not finite."
