"""The measures of sharpness along training, and curvature of each loss along each update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, Array, Sharpness
from figures import style
from figures.marks import Axis, Key, Mark, Panel, Row, Scene, grid
from figures.scenes.barred import DOUBT, Series, broken, level, marks, operator_looks, title_of, value_axis
from figures.scenes.matrices import matrix_panel
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look

ONE_STEP = Key("after one step along the gradient", Look(style.FAINT, dash="dot", width=1.0))
UNSURE = Key("not converged", DOUBT)


def sharpness(found: Sharpness) -> Scene:
    """Every measure of one run against the step, one panel a measure and one line a loss.

    Bars: residuals of eigenvalues, standard errors of the trace and of mean rises, the bracket of the critical rate.
    A worst case is a lower bound; beside it, dotted, the rise after one step along the gradient.
    """
    looks = operator_looks(found.tasks)
    panels: list[Panel] = []
    for place, form in enumerate(found.forms):
        eigen = [_series(found, found.eigenvalue, found.residual, place, o) for o in range(len(found.tasks))]
        sure = [
            Series(s.steps, s.value, s.low, s.high, found.converged[:, o, place].astype(bool))
            for o, s in enumerate(eigen)
        ]
        panels.append(_panel(f"largest eigenvalue, {form}", "loss / move\u00b2", found, sure, looks))
        worst = [_series(found, found.worst, None, place, o) for o in range(len(found.tasks))]
        first = [_series(found, found.one_step, None, place, o) for o in range(len(found.tasks))]
        panels.append(_panel(f"worst case, {form}", "rise of the loss", found, worst, looks, first))
        mean = [_series(found, found.mean_rise, found.mean_rise_stderr, place, o) for o in range(len(found.tasks))]
        panels.append(_panel(f"mean rise, {form}", "rise of the loss", found, mean, looks))
    if np.isfinite(found.trace).any():
        traces = [Series.of(found.steps, found.trace[:, o], found.trace_stderr[:, o]) for o in range(len(found.tasks))]
        panels.append(_panel("trace", "loss / parameter\u00b2", found, traces, looks))
    panels.append(_critical(found, looks))
    loose = int((~found.converged.astype(bool)).sum())
    caption = sentences(
        f"Sharpness of each loss on these parameters: {found.subset}; over "
        f"{count(found.examples, 'evaluation example')}; run {found.run.name}.",
        "Eigenvalues with residuals; a worst case is the largest rise that ascents found, a lower bound, and dotted "
        "that after one step along the gradient; mean rises with standard errors over "
        f"{count(found.pairs, 'pair')} of draws, the same at every snapshot.",
        f"Radius and standard deviation of the noise: {_sizes(found)}.",
        "Adaptive forms move each parameter relative to its own size (elementwise) or to its unit's (per unit).",
        "Critical sharpness: 2 / the rate at which the loss along its own gradient is back at its start; bars are its "
        "bracket.",
        "Dashed: the step-size line of the loss in that colour, where within reach."
        if np.isfinite(found.line).any()
        else "",
        found.line_words,
        f"{count(loose, 'eigenvalue')} did not converge." if loose else "",
        _log_words(panels),
        excluded(broken(found.eigenvalue, found.worst, found.mean_rise), "measures"),
    )
    legend = (*(Key(title_of(name), look) for name, look in looks.items()), ONE_STEP)
    legend += (UNSURE,) if loose else ()
    return Scene(f"Sharpness along training: {found.run.name}", caption, grid(tuple(panels), 3, 40.0), legend)


def _sizes(found: Sharpness) -> str:
    sizes = zip(found.forms, found.radius, found.sigma, strict=True)
    return listed(f"{radius:.3g} and {sigma:.2g} ({form})" for form, radius, sigma in sizes)


def _series(found: Sharpness, values: Array, errors: Array | None, form: int, operator: int) -> Series:
    return Series.of(found.steps, values[:, operator, form], None if errors is None else errors[:, operator, form])


def _panel(
    title: str,
    label: str,
    found: Sharpness,
    lines: list[Series],
    looks: dict[str, Look],
    dotted: list[Series] | None = None,
) -> Panel:
    axis = value_axis(label, [*lines, *(dotted or [])])
    drawn: list[Mark] = []
    for name, series in zip(found.tasks, dotted or [], strict=False):
        shown = marks(series, looks[name].but(dash="dot"), title_of(name), "after one step", axis.scale)
        drawn.append(shown[1])
    for name, series in zip(found.tasks, lines, strict=True):
        drawn += marks(series, looks[name], title_of(name), title, axis.scale)
    return Panel(title, Axis("step"), axis, tuple(drawn))


def _critical(found: Sharpness, looks: dict[str, Look]) -> Panel:
    """Of each loss along its own gradient, with the lines that are within the panel's range."""
    own = np.arange(len(found.tasks))
    with np.errstate(divide="ignore"):
        low, high = 2 / found.critical_high[:, own, own], 2 / found.critical_low[:, own, own]
    middle = found.critical_sharpness[:, own, own]
    lines = []
    for number in own:
        known = np.isfinite(middle[:, number]) & np.isfinite(high[:, number])
        value, first, last = (np.where(known, part[:, number], np.nan) for part in (middle, low, high))
        lines.append(Series(np.asarray(found.steps), value, first, last, np.ones(len(known), bool)))
    top = max((float(np.nanmax(one.value, initial=0.0)) for one in lines), default=0.0)
    levels = {name: float(line) for name, line in zip(found.tasks, found.line, strict=True) if line < 20 * top}
    axis = value_axis("loss / parameter\u00b2", lines, list(levels.values()))
    drawn: list[Mark] = [
        level(found.steps, height, looks[name].but(dash="longdash", width=0.9, marker=""), title_of(name))
        for name, height in levels.items()
    ]
    for name, series in zip(found.tasks, lines, strict=True):
        drawn += marks(series, looks[name], title_of(name), "critical sharpness", axis.scale)
    return Panel("critical sharpness, own gradient", Axis("step"), axis, tuple(drawn))


def sharpness_of_runs(found: Sequence[Sharpness], form: str = "plain", order: Sequence[str] = ()) -> Scene:
    """Largest eigenvalue, worst case and mean rise of every loss, one row a loss and one line a run: which strategy
    ends in flatter places?
    """
    kept = [one for one in found if form in one.forms]
    if not kept:
        raise ValueError(f"expected records with the form {form!r}, got {len(found)} without: choose another form")
    looks = style.looks([*order, *(one.run.label for one in kept)])
    measures = {
        "largest eigenvalue": ("eigenvalue", "residual"),
        "worst case": ("worst", ""),
        "mean rise": ("mean_rise", "mean_rise_stderr"),
    }
    operators = tuple(dict.fromkeys(name for one in kept for name in one.tasks))
    panels = tuple(
        _runs_panel(name, words, fields, [one for one in kept if name in one.tasks], form, looks)
        for name in operators
        for words, fields in measures.items()
    )
    labels = dict.fromkeys(one.run.label for one in kept)
    caption = sentences(
        f"Sharpness in the form {form} on these parameters: {listed(sorted({one.subset for one in kept}))}; one line a "
        f"run, {seeds_of([one.run for one in kept])}.",
        "Bars: residuals of eigenvalues and standard errors of mean rises. A worst case is a lower bound.",
        f"Logarithmic axes in {sum(p.y.scale == 'log' for p in panels)} of {count(len(panels), 'panel')}.",
        "Runs that were stepped differently have moved differently at equal steps.",
    )
    legend = tuple(Key(label, looks[label]) for label in labels)
    return Scene("Sharpness of several runs", caption, grid(panels, 3, 38.0), legend)


def _runs_panel(
    operator: str,
    words: str,
    fields: tuple[str, str],
    found: Sequence[Sharpness],
    form: str,
    looks: dict[str, Look],
) -> Panel:
    lines = []
    for one in found:
        at = (slice(None), one.tasks.index(operator), one.forms.index(form))
        error = getattr(one, fields[1])[at] if fields[1] else None
        sure = one.converged[at] if fields[0] == "eigenvalue" else None
        lines.append(Series.of(one.steps, getattr(one, fields[0])[at], error, sure))
    axis = value_axis("loss / move\u00b2" if fields[0] == "eigenvalue" else "rise of the loss", lines)
    drawn: list[Mark] = []
    for one, series in zip(found, lines, strict=True):
        drawn += marks(series, looks[one.run.label], one.run.label, words, axis.scale)
    return Panel(f"{words}, {AVERAGE if operator == AVERAGE else operator}", Axis("step"), axis, tuple(drawn))


def along_updates(found: Sharpness, snapshot: int = -1) -> Scene:
    """At one snapshot, for each loss (columns) along the gradient of each (rows): curvature, and critical sharpness."""
    names = tuple(title_of(name) if name != AVERAGE else AVERAGE for name in found.tasks)
    bent, sharp = found.curvature[snapshot], found.critical_sharpness[snapshot]
    gap = np.abs(found.line_curvature[snapshot] - bent) <= found.line_curvature_error[snapshot]
    panels = (
        matrix_panel("curvature along the gradient", "loss / parameter\u00b2", bent, names, names),
        matrix_panel("critical sharpness, 2 / rate", "loss / parameter\u00b2", sharp, names, names),
    )
    rises = int(np.isposinf(sharp).sum())
    caption = sentences(
        f"Rows: the update, the gradient of a loss; columns: the loss that is watched; {found.subset} parameters, "
        f"step {int(found.steps[snapshot])} of {found.run.name}.",
        "Left g_i' H_j g_i / ||g_i||\u00b2 by exact products; second differences of the loss along the update agree "
        f"within their error in {int(gap.sum())} of {gap.size}; they alone see kinks, as of ReLU.",
        "Right 2 / the rate at which loss j along \u2212g_i is back at its start, found by line search.",
        f"{count(rises, 'loss rises', 'losses rise')} at once and {'is' if rises == 1 else 'are'} left blank: the "
        "gradients conflict."
        if rises
        else "",
    )
    return Scene("Curvature of each loss along each update", caption, (Row(panels, 2, 70.0),))


def _log_words(panels: list[Panel]) -> str:
    logs = sum(panel.y.scale == "log" for panel in panels)
    return f"Logarithmic axes in {logs} of {count(len(panels), 'panel')}." if logs else ""
