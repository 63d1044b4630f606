"""Eigenvalues along training, each followed through crossings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.results import EigenvalueTracks
from figures import style
from figures.marks import Axis, Key, Mark, Panel, Points, Scene
from figures.scenes.barred import DOUBT, Series, broken, level, marks, title_of, value_axis
from figures.scenes.many import Most, on_a_page
from figures.scenes.scales import finite
from figures.scenes.words import count, excluded, listed, sentences
from figures.style import Look

LINE = Key("step-size line", Look(style.INK, dash="longdash", width=1.1))
LOST = Key("curve lost after", Look(style.INK, marker="diamond", size=5.5, width=0.8, fill="none"))
ONCE = Key("seen at one snapshot", Look(style.FAINT, marker="circle", size=3.0, width=0.8, fill=style.FAINT))
GROUP = Key("in a group", Look(style.FAINT, marker="square", width=0.9).hollow)
UNSURE = Key("not converged", DOUBT)
FAR = 20.0
"""A step-size line this many times above all values, or more, is named in the caption and not drawn."""


def tracked_eigenvalues(tracks: EigenvalueTracks) -> Scene:
    """The followed eigenvalues of every operator along one run: one colour a curve, from its beginning to its end.

    Bars are residuals; a hollow square is a value in a group that cannot be told apart, a diamond the last place of a
    curve that could not be followed. The step-size line is drawn where there is one within reach.
    """
    panels = tuple(_panel(tracks, number) for number in range(len(tracks.tasks)))
    rows, few = on_a_page(panels, Most.large([tracks.values[:, o] for o in range(len(tracks.tasks))]), 2, 48.0)
    curves = sum(len(tracks.numbers(o)) for o in range(len(tracks.tasks)))
    lost = sum(len(tracks.lost(o)) for o in range(len(tracks.tasks)))
    grouped, loose = int(tracks.grouped.sum()), int((~tracks.converged.astype(bool)).sum())
    drawn = [_line(tracks, number) is not None for number in range(len(tracks.tasks))]
    once = sum(_single(tracks, o, n) for o in range(len(tracks.tasks)) for n in tracks.numbers(o))
    there = ((LINE, any(drawn)), (LOST, lost > once), (ONCE, once), (GROUP, grouped), (UNSURE, loose))
    ends = {"largest": "Largest", "smallest": "Smallest", "both": "Largest and smallest", "magnitude": "Largest |.|"}
    what = f"P^(1/2) H P^(1/2), P {tracks.preconditioner}," if tracks.preconditioner else f"the {tracks.matrix}"
    caption = sentences(
        f"{ends.get(tracks.end, tracks.end)} {count(tracks.values.shape[2], 'eigenvalue')} of {what} of each loss on "
        f"these parameters: {tracks.subset}; in loss per squared parameter unit, over "
        f"{count(tracks.examples, 'evaluation example')}; run {tracks.run.name}. Bars are residuals.",
        f"{count(curves, 'curve')}, each followed by the overlap of its vector with the next snapshot's, at least "
        f"{tracks.threshold:.2f}; {count(lost, 'curve')} lost before the end, {once} of all seen at one "
        "snapshot only.",
        few,
        f"Squares: {count(grouped, 'value')} closer to another than {tracks.closeness:.1%} of the largest, or than "
        "residuals tell: the space of the group is followed."
        if grouped
        else "",
        f"{count(loose, 'value')} did not converge." if loose else "All values converged.",
        tracks.line_words,
        _far_words(tracks),
        _log_words(panels),
        excluded(broken(tracks.values), "eigenvalues"),
    )
    title = f"Eigenvalues followed along training: {tracks.run.name}{_other(tracks)}"
    return Scene(title, caption, rows, tuple(key for key, seen in there if seen))


def layer_eigenvalues(by_layer: Mapping[str, EigenvalueTracks]) -> Scene:
    """The first eigenvalue of every layer's own block along one run, a panel a loss, a line a layer."""
    first = next(iter(by_layer.values()))
    looks = style.looks(by_layer)
    panels = []
    for operator, name in enumerate(first.tasks):
        series = {
            layer: Series.of(
                t.steps, t.values[:, operator, 0], t.residuals[:, operator, 0], t.converged[:, operator, 0]
            )
            for layer, t in by_layer.items()
        }
        axis = value_axis("eigenvalue", list(series.values()))
        drawn = [m for layer, one in series.items() for m in marks(one, looks[layer], layer, "eigenvalue", axis.scale)]
        panels.append(Panel(title_of(name), Axis("step"), axis, tuple(drawn)))
    loose = int(sum((~t.converged[..., 0].astype(bool)).sum() for t in by_layer.values()))
    seen = [np.concatenate([t.values[:, o, 0] for t in by_layer.values()]) for o in range(len(first.tasks))]
    rows, few = on_a_page(panels, Most.large(seen), 2, 48.0)
    caption = sentences(
        f"First eigenvalue of the {first.matrix} of each loss on the parameters of one layer, the others held fixed; "
        f"over {count(first.examples, 'evaluation example')}; run {first.run.name}. Bars are residuals.",
        few,
        f"{count(loose, 'value')} did not converge." if loose else "All values converged.",
        _log_words(tuple(panels)),
        excluded(broken(*(t.values[..., 0] for t in by_layer.values())), "eigenvalues"),
    )
    legend = (*(Key(layer, look) for layer, look in looks.items()), *((UNSURE,) if loose else ()))
    return Scene(f"Eigenvalues layer by layer: {first.run.name}{_other(first)}", caption, rows, legend)


def _other(tracks: EigenvalueTracks) -> str:
    """For titles, the matrix, where it is not the Hessian."""
    return "" if tracks.matrix == "Hessian" else f", {tracks.matrix}"


def _panel(tracks: EigenvalueTracks, operator: int) -> Panel:
    curves = {number: _series(tracks, operator, number) for number in tracks.numbers(operator)}
    line = _line(tracks, operator)
    axis = value_axis("eigenvalue", list(curves.values()), [] if line is None else [line])
    looks = style.looks(str(number) for number in curves if not _single(tracks, operator, number))
    drawn: list[Mark] = [] if line is None else [level(tracks.steps, line, LINE.look, LINE.label)]
    for number, series in sorted(curves.items(), key=lambda curve: not _single(tracks, operator, curve[0])):
        single = _single(tracks, operator, number)
        look = ONCE.look if single else looks[str(number)].but(marker="circle")
        rows, pairs = tracks.curve(operator, number)
        grouped = tracks.grouped[rows, operator, pairs].astype(bool)
        drawn += marks(series, look, f"curve {number + 1}", "eigenvalue", axis.scale)
        if grouped.any():
            at = (series.steps[grouped], series.value[grouped], np.full(int(grouped.sum()), 3.6))
            drawn.append(Points(*at, look.but(marker="square").hollow, f"curve {number + 1}"))
        if number in tracks.lost(operator) and not single:
            drawn.append(Points(series.steps[-1:], series.value[-1:], np.array([6.0]), LOST.look, LOST.label))
    return Panel(title_of(tracks.tasks[operator]), Axis("step"), axis, tuple(drawn))


def _single(tracks: EigenvalueTracks, operator: int, number: int) -> bool:
    """Whether a curve was seen at one of several snapshots only."""
    return len(tracks.curve(operator, number)[0]) == 1 < len(tracks.steps)


def _series(tracks: EigenvalueTracks, operator: int, number: int) -> Series:
    rows, pairs = tracks.curve(operator, number)
    value, residual = tracks.values[rows, operator, pairs], tracks.residuals[rows, operator, pairs]
    return Series.of(tracks.steps[rows], value, residual, tracks.converged[rows, operator, pairs])


def _line(tracks: EigenvalueTracks, operator: int) -> float | None:
    """The step-size line of an operator where it is within reach of its values."""
    line, values = float(tracks.line[operator]), finite([tracks.values[:, operator]])
    return line if np.isfinite(line) and values.size and line < FAR * np.abs(values).max() else None


def _far_words(tracks: EigenvalueTracks) -> str:
    far = [
        f"{title_of(name)} {float(tracks.line[number]):.3g}"
        for number, name in enumerate(tracks.tasks)
        if np.isfinite(tracks.line[number]) and _line(tracks, number) is None
    ]
    return f"Step-size lines far above the values are not drawn: {listed(far)}." if far else ""


def _log_words(panels: tuple[Panel, ...]) -> str:
    logs = [panel.title for panel in panels if panel.y.scale == "log"]
    return f"Logarithmic axis: {listed(logs)}." if logs else ""
