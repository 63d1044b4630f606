"""Loss surfaces with trajectories, flat and in relief."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from analysis.results import Array, Shadow, Surface
from figures import style
from figures.marks import Axis, Column, Contours, Line, Mark, Panel, Path, Points, Relief, Row, Scene
from figures.scenes.conditions import causes_of_relief, conditions, in_bfloat16
from figures.scenes.many import FRAME, PAGE, Most, on_a_page
from figures.scenes.scales import finite
from figures.scenes.seeds import sparse
from figures.scenes.trajectories import (
    START,
    View,
    axis_words,
    blanks,
    explained_words,
    geometry,
    hover,
    identity,
    keys,
    plane_axes,
    true_losses,
    view_count,
    views,
)
from figures.scenes.words import count, lone_words, seeds_of, sentences
from figures.style import Look

CIRCLES = 5
"""About how many circles along a trajectory show its distance off the plane."""
LARGEST = 8.0
"""Diameter of the circle at the largest distance off the plane, in points."""
COLUMNS = 2
NORMAL = 1.96
"""Standard errors on each side of a 95 % interval."""


def surface(surface: Surface, shadows: Sequence[Shadow] = (), order: Sequence[str] = ()) -> Scene:
    """Filled contours of every task's loss and of their average over a plane, with trajectories on top.

    A trajectory is drawn at its least-squares coordinates in the plane; open circles along it have a diameter
    proportional to ||theta - (origin + x basis[0] + y basis[1])||, and a strip below shows that distance against the
    step. `order` names strategies whose looks come first, so that several figures agree.
    """
    return flat(surface, shadows, order, views(surface))


def _only_significant(surface: Surface) -> tuple[View, ...]:
    kept = [np.where(mask, np.nan, view.loss) for view, mask in zip(views(surface), noise_mask(surface), strict=True)]
    return tuple(replace(view, loss=loss) for view, loss in zip(views(surface), kept, strict=True))


def noise_mask(surface: Surface) -> Array:
    """Where the loss of every task, and of their average, is not told from the centre's at 95 %, [view, y, x].

    |L - L(0, 0)| <= 1.96 standard errors of the paired difference; false where that error is unknown, and at the centre
    itself.
    """
    j, i = int(np.argmin(np.abs(surface.y))), int(np.argmin(np.abs(surface.x)))
    loss = np.concatenate([surface.loss, surface.loss.mean(0)[None]])
    error = np.concatenate([surface.difference_stderr, surface.average_difference_stderr[None]])
    with np.errstate(invalid="ignore"):
        mask = np.abs(loss - loss[:, j, i][:, None, None]) <= NORMAL * error
    mask[:, j, i] = False
    return np.asarray(mask[: view_count(surface)])


def flat(
    surface: Surface,
    shadows: Sequence[Shadow],
    order: Sequence[str],
    shown: Sequence[View],
    gaps: Callable[[Surface], str] = blanks,
) -> Scene:
    """Filled contours of some views of a surface; `gaps` says in the caption where nothing is shown, and why."""
    looks = _looks(shadows, order)
    aspect, words = geometry(surface.plane)
    x, y = plane_axes(surface, shadows)
    panels = tuple(
        Panel(
            view.title, x, y, (_contours(surface, view), *_tracks(surface, shadows, looks, k, view.title)), None, aspect
        )
        for k, view in enumerate(shown)
    )
    strip = _strip(shadows, looks)
    tall = 66.0 if len(panels) > 1 else 95.0
    room = PAGE - sum(row.height + FRAME for row in strip)
    rows, few = on_a_page(panels, Most.varied([view.loss for view in shown]), COLUMNS, tall, room)
    caption = sentences(
        few,
        _loss_words(surface, shown),
        axis_words(surface.plane, (x, y)),
        explained_words(surface.plane) if "of variance" not in y.label else "",
        words,
        gaps(surface),
        lone_words(view.loss for view in shown),
        _shadow_words(shadows),
        _off_words(shadows),
    )
    title = "Loss surface and trajectories" if shadows else "Loss surface"
    return Scene(title, caption, (*rows, *strip), keys(looks))


def significant(surface: Surface, shadows: Sequence[Shadow] = (), order: Sequence[str] = ()) -> Scene:
    """The surfaces, left blank where the loss is not told from the centre's at 95 %, point by point.

    Blank: |L(x, y) - L(0, 0)| <= 1.96 times its standard error, paired over examples. Contours inside would be noise.
    Raises `ValueError` for a surface in bfloat16: its rounding is in no standard error, and can be larger.
    """
    if in_bfloat16(surface):
        raise ValueError(
            "expected losses in the model's own numbers, got a surface in bfloat16, whose rounding is in no standard "
            "error: measure it without --bfloat16"
        )
    scene = flat(surface, shadows, order, _only_significant(surface))
    blank = int(noise_mask(surface)[-1].sum())
    words = (
        f"Blank where the loss differs from the centre's by less than {NORMAL} standard errors, paired over examples "
        f"({blank} of {count(surface.done.size, 'grid point')} of the last panel), or was not measured."
    )
    return replace(scene, title="Where the loss differs from the centre's", caption=f"{words} {scene.caption}")


def surface_relief(surface: Surface, shadows: Sequence[Shadow] = (), order: Sequence[str] = ()) -> Scene:
    """The surfaces in three dimensions, with each trajectory at its TRUE losses.

    A trajectory that leaves the plane has other losses than the plane below or above it: the vertical gap between
    line and surface is the effect of being off the plane, and of what else the surface was measured with: other
    examples, statistics or heads, which the caption names. Without them it is zero where the trajectory lies in the
    plane.
    """
    looks = _looks(shadows, order)
    true = [true_losses(surface, shadow) for shadow in shadows]
    reach = [np.concatenate([t[k] for t in true]) for k in range(view_count(surface))] if true else []
    x, y = (
        replace(axis, label=name) for axis, name in zip(plane_axes(surface, shadows), surface.plane.axes, strict=True)
    )
    shown = views(surface, reach)
    panels = tuple(
        Panel(
            view.title,
            x,
            y,
            (
                Relief(surface.x, surface.y, view(view.loss), view.loss, view.height.axis),
                *(mark for s, t in zip(shadows, true, strict=True) for mark in _path(s, t[k], view, looks)),
            ),
            view.height.axis,
        )
        for k, view in enumerate(shown)
    )
    gap = (
        f"Trajectories are drawn at their true losses over evaluation examples; the vertical gap to the surface is the "
        f"effect of {causes_of_relief(surface)}."
        if shadows
        else ""
    )
    caption = sentences(_loss_words(surface, shown), geometry(surface.plane)[1].replace(", to equal scale", ""))
    rows, few = on_a_page(panels, Most.varied([view.loss for view in shown]), COLUMNS, 74.0)
    caption = sentences(
        few,
        caption,
        explained_words(surface.plane),
        blanks(surface),
        _shadow_words(shadows),
        gap,
        _off_words(shadows, drawn=""),
    )
    title = "Loss surface in relief, with trajectories at their true losses" if shadows else "Loss surface in relief"
    return Scene(title, caption, rows, keys(looks)[:-1])


def _looks(shadows: Sequence[Shadow], order: Sequence[str]) -> dict[str, Look]:
    present = dict.fromkeys(shadow.run.label for shadow in shadows)
    every = style.looks([*order, *present])
    return {label: every[label] for label in present}


def _contours(surface: Surface, view: View) -> Contours:
    levels = view.height.levels
    colours = style.shades(max(levels.size - 1, 0))
    return Contours(surface.x, surface.y, view(view.loss), view.loss, levels, colours, view.height.axis)


def _tracks(
    surface: Surface, shadows: Sequence[Shadow], looks: dict[str, Look], k: int, title: str
) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    largest = finite([s.off_plane for s in shadows]).max(initial=0.0)
    for shadow in shadows:
        marks += _track(shadow, true_losses(surface, shadow)[k], looks[shadow.run.label], float(largest), title)
    return (*marks, *_ends(shadows, looks))


def _track(shadow: Shadow, losses: Array, look: Look, largest: float, title: str) -> list[Mark]:
    x, y = shadow.coordinates[:, 0], shadow.coordinates[:, 1]
    group = shadow.run.label
    told = hover(shadow, losses, title)
    shown = sparse(shadow.steps.size, CIRCLES)
    shown = shown[np.isfinite(shadow.off_plane[shown])]
    size = LARGEST * shadow.off_plane[shown] / (largest or 1.0)
    circle = look.but(marker="circle", fill="none", width=0.8, dash="solid")
    return [
        Line(x, y, style.CASING, group),
        Line(x, y, look.but(width=1.3), group, told),
        Points(x[shown], y[shown], size, circle, group, _taken(told, shown)),
    ]


def _taken(columns: tuple[Column, ...], index: Array) -> tuple[Column, ...]:
    return tuple(Column(column.name, column.values[index]) for column in columns)


def _ends(shadows: Sequence[Shadow], looks: dict[str, Look]) -> list[Mark]:
    """Starts and ends above all lines: runs of one seed share their start."""
    ends: list[Mark] = []
    for shadow in shadows:
        look, group = looks[shadow.run.label], shadow.run.label
        for index, marker in ((0, START), (-1, look.but(fill=look.colour, colour=style.PAPER, width=0.6))):
            where = shadow.coordinates[[index]]
            ends.append(Points(where[:, 0], where[:, 1], np.array([START.size]), marker, group))
    return ends


def _strip(shadows: Sequence[Shadow], looks: dict[str, Look]) -> tuple[Row, ...]:
    if not shadows:
        return ()
    marks = tuple(
        Line(
            shadow.steps,
            shadow.off_plane,
            looks[shadow.run.label],
            shadow.run.label,
            identity(shadow),
        )
        for shadow in shadows
    )
    top = float(finite([shadow.off_plane for shadow in shadows]).max(initial=0.0))
    panel = Panel(
        "distance off the plane", Axis("step"), Axis("parameter units", range=(0.0, 1.08 * top or 1.0)), marks
    )
    return (Row((panel,), 1, 22.0),)


def _path(shadow: Shadow, losses: Array, view: View, looks: dict[str, Look]) -> tuple[Mark, ...]:
    x, y = shadow.coordinates[:, 0], shadow.coordinates[:, 1]
    look, group = looks[shadow.run.label], shadow.run.label
    z = view(losses)
    ends = look.but(marker="circle", fill=look.colour, size=START.size, width=0.0)
    return (
        Path(x, y, z, look.but(width=1.6), group, hover(shadow, losses, view.title)),
        Path(x[:1], y[:1], z[:1], START, group),
        Path(x[-1:], y[-1:], z[-1:], ends, group),
    )


def _loss_words(surface: Surface, shown: Sequence[View]) -> str:
    logarithmic = shown[0].height.scale == "log"
    scale = f"Levels are evenly spaced in {'log10 of ' if logarithmic else ''}the loss."
    average = "The average is the mean of the task losses at each point." if len(surface.tasks) > 1 else ""
    return sentences(
        f"Loss over {count(surface.examples, f'{surface.split} example')} on a grid of {surface.x.size} by "
        f"{surface.y.size} points of the plane: {surface.plane.recipe}.",
        conditions(surface),
        average,
        scale,
        "Each panel has colours of its own." if len(shown) > 1 else "",
        _error_words(surface),
    )


def _error_words(surface: Surface) -> str:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = finite([np.abs(surface.stderr / surface.loss)])
    return f"Standard error over examples: {np.median(shares):.1%} of the loss (median)." if shares.size else ""


def _shadow_words(shadows: Sequence[Shadow]) -> str:
    return (
        f"{count(len(shadows), 'trajectory', 'trajectories')}, {seeds_of([s.run for s in shadows])}." if shadows else ""
    )


def _off_words(shadows: Sequence[Shadow], drawn: str = "open circles along a trajectory have a diameter") -> str:
    off = finite([shadow.off_plane for shadow in shadows])
    if off.size == 0:
        return ""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = finite([np.asarray(s.off_plane[-1:] / s.from_origin[-1:]) for s in shadows])
    circles = f"; {drawn} proportional to it" if drawn else ""
    ends = (
        f" At their ends trajectories lie off the plane by {_span(share)} of their distance from its origin."
        if share.size
        else ""
    )
    return f"Distance off the plane: at most {off.max():.3g} parameter units{circles}.{ends}"


def _span(share: Array) -> str:
    low, high = f"{share.min():.0%}", f"{share.max():.0%}"
    return low if low == high else f"{low} to {high}"
