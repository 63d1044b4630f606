"""How the sharpest directions and the gradients of the tasks agree along training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.results import AVERAGE, Array, TaskAgreement
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Row, Scene, grid
from figures.scenes.barred import (
    DOUBT,
    Series,
    broken,
    level,
    marks,
    operator_looks,
    side_by_side,
    title_of,
    value_axis,
)
from figures.scenes.many import MOST as MANY
from figures.scenes.many import extremes, spread, told_apart
from figures.scenes.matrices import matrix_panel
from figures.scenes.words import count, excluded, listed, sentences
from figures.style import Look

NULL = Key("random spaces, 95 %", Look(style.FAINT, opacity=0.8))
SETTLED = 10.0
"""Angles between spaces whose errors sum to more degrees are drawn hollow."""
UNSETTLED = Key(f"spaces not known to {SETTLED:g}\u00b0", DOUBT)
MOST = 6
"""At most so many panels of pairs."""
NAME = 10
"""Names of so many characters stand in the titles of pairs as they are."""
MIDDLE = Key("median", Look(style.COLOURS[0], marker="diamond", width=1.6))
EXTREMES = (Look(style.COLOURS[1], "dash", "square"), Look(style.COLOURS[2], "dot", "triangle-up"))
RANGE = Key("least to largest", Look(style.FAINT, opacity=0.35))
RESIDUAL = Key("sum: eigenvalue of the average", Look(style.INK, marker="circle", width=1.4))


def principal_angles(found: TaskAgreement) -> Scene:
    """The principal angles between the eigenspaces of every two operators along one run, with those of random spaces.

    Tasks with each other first, then each with the average; of many, the first six.
    """
    order = sorted(range(len(found.pairs)), key=lambda k: _with_average(found)[k])
    shown = order[:MOST]
    angles = [f"angle {k + 1}" for k in range(found.angles.shape[2])]
    looks = style.looks(angles)
    short, common = told_apart(found.tasks, NAME)
    pairs = [" and ".join(short[name] for name in pair) for pair in combinations(found.tasks, 2)]
    panels = tuple(_angle_panel(found, k, pairs[k], looks) for k in shown)
    loose = int(sum((_space_error(found, k) > SETTLED).sum() for k in shown))
    caption = sentences(
        f"Principal angles between the spaces of the {count(len(angles), 'sharpest direction')} of two losses, on "
        f"{found.size} parameters ({found.subset}); run {found.run.name}; 0\u00b0: a direction that both share.",
        f"Band: 95 % of the angles between random spaces of this dimension, means {_degrees(found.null)}.",
        f"Hollow: at {count(loose, 'snapshot')} the two spaces are not known to {SETTLED:g}\u00b0 together: the gap "
        "below them is small beside the residuals."
        if loose
        else "",
        f"{len(order) - len(shown)} further pairs are not drawn." if len(order) > len(shown) else "",
        f"\u2026 stands for what the names of all tasks begin with, '{common}'." if common else "",
        excluded(broken(found.angles), "angles"),
    )
    legend = (*(Key(name, look) for name, look in looks.items()), NULL, *((UNSETTLED,) if loose else ()))
    return Scene("How far the sharp directions of the tasks agree", caption, grid(panels, 3, 44.0), legend)


def _with_average(found: TaskAgreement) -> list[bool]:
    return [AVERAGE in pair for pair in combinations(found.tasks, 2)]


def _space_error(found: TaskAgreement, pair: int) -> Array:
    a, b = list(combinations(range(len(found.tasks)), 2))[pair]
    return np.asarray(found.space_error[:, a] + found.space_error[:, b])


def _angle_panel(found: TaskAgreement, pair: int, title: str, looks: dict[str, Look]) -> Panel:
    ends = np.array([found.steps.min(), found.steps.max()], float)
    low, high = float(found.null_low.min()), float(found.null_high.max())
    drawn: list[Mark] = [Band(ends, np.full(2, low), np.full(2, high), NULL.look, NULL.label)]
    drawn += [level(found.steps, float(mean), NULL.look.but(width=0.7, dash="dot"), NULL.label) for mean in found.null]
    sure = ~(_space_error(found, pair) > SETTLED)
    for k, (name, look) in enumerate(looks.items()):
        drawn += marks(Series.of(found.steps, found.angles[:, pair, k], None, sure), look, name, "angle")
    ticks = (0.0, 30.0, 60.0, 90.0)
    axis = Axis("angle (degrees)", "linear", (-3.0, 93.0), ticks, tuple(f"{t:g}" for t in ticks))
    return Panel(title, Axis("step"), axis, tuple(drawn))


def _degrees(values: Array) -> str:
    return listed(f"{v:.1f}\u00b0" for v in values)


def cross_curvature(found: TaskAgreement, snapshot: int = -1, vector: int = 0) -> Scene:
    """At one snapshot, the curvature of each loss (columns) along the sharpest direction of each (rows); and as a share
    of that loss's own largest eigenvalue.
    """
    names = tuple(found.tasks)
    values = found.cross[snapshot, :, :, vector]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = 100 * values / found.values[snapshot, :, 0][None, :]
    panels = (
        matrix_panel("curvature", "loss / parameter\u00b2", values, names, names),
        matrix_panel("share of the loss's largest eigenvalue", "%", shares, names, names),
    )
    caption = sentences(
        f"u_i' H_j u_i for the unit vector u_i of eigenvalue {vector + 1} of loss i (rows) and the Hessian of loss j "
        f"(columns), on these parameters: {found.subset}; step {int(found.steps[snapshot])} of {found.run.name}.",
        "Right: of the largest eigenvalue of loss j; 100 % where u_i is its own sharpest direction.",
    )
    return Scene("Curvature of each loss along the sharpest direction of each", caption, (Row(panels, 2, 70.0),))


def eigenvalue_shares(found: TaskAgreement, vector: int = 0) -> Scene:
    """What each task adds to an eigenvalue of the average, u' H_t u / T, stacked along training; positive parts above
    zero and negative ones below.
    """
    looks = operator_looks(found.tasks)
    tasks = found.tasks[:-1]
    shares = found.shares[:, :, vector]
    above, below = np.cumsum(np.maximum(shares, 0), 1), np.cumsum(np.minimum(shares, 0), 1)
    drawn: list[Mark] = []
    for number, task in enumerate(tasks):
        for ends, part in ((above, shares >= 0), (below, shares < 0)):
            if not part[:, number].any():
                continue
            inner = ends[:, number - 1] if number else np.zeros(len(shares))
            look = looks[task].but(opacity=1.0, marker="")
            drawn.append(Band(np.asarray(found.steps, float), inner, ends[:, number], look, task))
            told = (Column("task", np.full(len(shares), task)), Column("share", shares[:, number]))
            drawn.append(Line(np.asarray(found.steps, float), ends[:, number], look.but(width=0.8), task, told))
    total = Series.of(
        found.steps, found.values[:, -1, vector], found.residuals[:, -1, vector], found.converged[:, -1, vector]
    )
    drawn += marks(total, RESIDUAL.look, RESIDUAL.label, "eigenvalue")
    if (shares < 0).any():
        drawn.append(level(found.steps, 0.0, style.NEUTRAL))
    with np.errstate(invalid="ignore", divide="ignore"):
        percent = shares / found.values[:, -1, vector][:, None] * 100
    relative = [Series.of(found.steps, percent[:, t]) for t in range(len(tasks))]
    even = 100 / len(tasks)
    lines: list[Mark] = [level(found.steps, even, style.NEUTRAL.but(dash="dot"))]
    for task, series in zip(tasks, relative, strict=True):
        lines += marks(series, looks[task], task, "share")
    panels = (
        Panel("stacked", Axis("step"), Axis("loss / parameter\u00b2"), tuple(drawn)),
        Panel("as a share", Axis("step"), Axis("share (%)"), tuple(lines)),
    )
    caption = sentences(
        f"What each task adds to eigenvalue {vector + 1} of the average on these parameters: {found.subset}; run "
        f"{found.run.name}: u' H_t u / {len(tasks)} with the average's unit vector u.",
        "Bars of the sum are residuals. Dotted: equal shares.",
        "Negative shares are stacked below zero." if (shares < 0).any() else "",
        excluded(broken(shares), "shares"),
    )
    legend = (*(Key(task, looks[task]) for task in tasks), RESIDUAL)
    return Scene("What each task adds to the curvature of the average", caption, (Row(panels, 2, 60.0),), legend)


def gradient_agreement(found: TaskAgreement) -> Scene:
    """Gradient norms of every loss, and the cosine of every two tasks with the share of mini-batches in conflict, along
    one run. Of many losses, or pairs, the median and the range, and the pairs of the least and the largest cosine.
    """
    every = style.looks([*found.tasks[:-1], *found.couples])
    few = [found.couples[k] for k in _shown_pairs(found)]
    couples = {name: EXTREMES[k] if len(found.couples) > MANY else every[name] for k, name in enumerate(few)}
    norms, axis, losses = _norms(found)
    panels = [norms]
    if found.couples:
        panels += [_cosines(found, couples), _conflicts(found, couples)]
    caption = sentences(
        f"Gradients of the losses on {found.size} parameters ({found.subset}) over "
        f"{count(found.examples, 'evaluation example')}; run {found.run.name}.",
        f"Bars: standard errors by the jackknife over {count(found.pieces, 'piece')} of the examples; in the last "
        f"panel Wilson's 95 % intervals of the share of these pieces, of at most {count(found.piece, 'example')}, on "
        "which the cosine is negative."
        if found.couples
        else f"Bars: standard errors by the jackknife over {count(found.pieces, 'piece')} of the examples.",
        _spread_words(found, list(couples)),
        "Pairs are drawn a little apart." if len(couples) > 1 else "",
        "Logarithmic axis: gradient norm." if axis == "log" else "",
        excluded(broken(found.norm, found.cosine), "values"),
    )
    legend = (*losses, *(Key(name, look) for name, look in couples.items()))
    spreads = (MIDDLE, RANGE) if len(found.tasks) - 1 > MANY or len(found.couples) > MANY else ()
    return Scene("How far the gradients of the tasks agree", caption, grid(tuple(panels), 3, 50.0), (*legend, *spreads))


def _shown_pairs(found: TaskAgreement) -> list[int]:
    """The pairs that have lines of their own: all, or of many those whose cosines are least and largest on average."""
    return extremes(found.cosine) if len(found.couples) > MANY else list(range(len(found.couples)))


def _norms(found: TaskAgreement) -> tuple[Panel, str, tuple[Key, ...]]:
    """The panel of the norms, the kind of its axis, and the losses in its legend."""
    looks = operator_looks(found.tasks)
    every = [Series.of(found.steps, found.norm[:, o], found.norm_stderr[:, o]) for o in range(len(found.tasks))]
    axis = value_axis("norm (loss / parameter unit)", every)
    many = len(found.tasks) - 1 > MANY
    shown = [len(every) - 1] if many else range(len(every))
    drawn = _spread(found.steps, found.norm[:, :-1], "norm", axis.scale) if many else []
    for o in shown:
        name = found.tasks[o]
        drawn += marks(every[o], looks[name], title_of(name), "norm", axis.scale)
    keys = tuple(Key(title_of(found.tasks[o]), looks[found.tasks[o]]) for o in shown)
    return Panel("gradient norm", Axis("step"), axis, tuple(drawn)), axis.scale, keys


def _spread(steps: Array, values: Array, name: str, scale: str = "linear") -> list[Mark]:
    """The range of many values at every step, and their median."""
    low, middle, high = spread(values)
    band = Band(np.asarray(steps, float), low, high, RANGE.look, RANGE.label)
    return [band, *marks(Series.of(steps, middle), MIDDLE.look, MIDDLE.label, name, scale)]


def _spread_words(found: TaskAgreement, named: Sequence[str]) -> str:
    tasks, pairs = len(found.tasks) - 1, len(found.couples)
    what = [f"{number} {noun}" for number, noun in ((tasks, "tasks"), (pairs, "pairs")) if number > MANY]
    ends = f", and the pairs of the least and of the largest cosine on average: {listed(named)}" if named else ""
    return f"Of {listed(what)} the median and the range are drawn{ends if pairs > MANY else ''}." if what else ""


def _cosines(found: TaskAgreement, looks: dict[str, Look]) -> Panel:
    drawn: list[Mark] = [level(found.steps, 0.0, style.NEUTRAL)]
    drawn += _spread(found.steps, found.cosine, "cosine") if len(found.couples) > MANY else []
    shown = [found.couples.index(name) for name in looks]
    bars = [Series.of(found.steps, found.cosine[:, k], found.cosine_stderr[:, k]) for k in shown]
    for series, (name, look) in zip(side_by_side(bars), looks.items(), strict=True):
        drawn += marks(series, look, name, "cosine")
    return Panel("cosine of two gradients", Axis("step"), Axis("cosine"), tuple(drawn))


def _conflicts(found: TaskAgreement, looks: dict[str, Look]) -> Panel:
    drawn: list[Mark] = [level(found.steps, 50.0, style.NEUTRAL.but(dash="dot"))]
    drawn += _spread(found.steps, 100 * found.conflict, "conflict (%)") if len(found.couples) > MANY else []
    bars = []
    for k in (found.couples.index(name) for name in looks):
        share, low, high = (100 * v[:, k] for v in (found.conflict, found.conflict_low, found.conflict_high))
        bars.append(Series(np.asarray(found.steps), share, low, high, np.ones(len(found.steps), bool)))
    for series, (name, look) in zip(side_by_side(bars), looks.items(), strict=True):
        drawn += marks(series, look, name, "conflict (%)")
    axis = Axis("mini-batches in conflict (%)", "linear", (-4.0, 104.0))
    return Panel("conflict", Axis("step"), axis, tuple(drawn))
