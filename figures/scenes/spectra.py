"""Eigenvalues of the Hessians along training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, Array, EigenvalueHistory
from figures import style
from figures.marks import Axis, Column, Key, Line, Mark, Panel, Points, Scene, Segments
from figures.scenes.many import Most, on_a_page
from figures.scenes.scales import finite, loss_axis, scale_of
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look


def eigenvalues(histories: Sequence[EigenvalueHistory], pairs: int = 1, order: Sequence[str] = ()) -> Scene:
    """The `pairs` first eigenvalues of every task's Hessian, and of the average's, against the step.

    One line a run. Bars reach from value - residual to value + residual: for a symmetric operator and unit vectors an
    eigenvalue lies inside. Values whose solver did not converge are drawn hollow.
    """
    every = style.looks([*order, *(history.run.label for history in histories)])
    looks = {history.run.label: every[history.run.label] for history in histories}
    operators = tuple(dict.fromkeys(task for history in histories for task in history.tasks))
    panels = tuple(_panel(operator, histories, pairs, looks) for operator in operators)
    of = [np.concatenate([h.values[:, h.tasks.index(o)].ravel() for h in histories if o in h.tasks]) for o in operators]
    rows, few = on_a_page(panels, Most.large(of), 2, 48.0)
    legend = tuple(Key(label, look) for label, look in looks.items())
    values = np.concatenate([np.ravel(h.values[..., :pairs]) for h in histories]) if histories else np.empty(0)
    loose = sum(int((~h.converged[..., :pairs].astype(bool)).sum()) for h in histories)
    logs = [p.title for p in panels if p.y.scale == "log"]
    caption = sentences(
        f"{'Largest eigenvalue' if pairs == 1 else f'First {pairs} eigenvalues'} of the Hessian of each loss on the "
        f"shared parameters, in loss per squared parameter unit, over {_examples(histories)}.",
        f"One line a run, {seeds_of([h.run for h in histories])}; bars are residuals.",
        few,
        f"Logarithmic axis: {listed(logs)}." if logs else "",
        f"Hollow: {count(loose, 'value')} that did not converge." if loose else "All values converged.",
        _cut_words(panels, histories, pairs),
        excluded(int((~np.isfinite(values)).sum()), "eigenvalues"),
    )
    if loose:
        legend += (Key("not converged", Look(style.FAINT, marker="circle", width=0.9).hollow),)
    return Scene("Largest eigenvalues along training", caption, rows, legend)


def _examples(histories: Sequence[EigenvalueHistory]) -> str:
    numbers = sorted({history.examples for history in histories})
    return listed(str(number) for number in numbers) + " evaluation examples"


def _panel(operator: str, histories: Sequence[EigenvalueHistory], pairs: int, looks: dict[str, Look]) -> Panel:
    present = [history for history in histories if operator in history.tasks]
    values = [history.values[:, history.tasks.index(operator), :pairs] for history in present]
    scale = scale_of(*values)
    kept = finite(values)
    floor = float(kept.min()) / 2 if scale == "log" else -np.inf
    marks: list[Mark] = []
    for history in present:
        for pair in range(min(pairs, history.values.shape[2])):
            marks += _line(history, history.tasks.index(operator), pair, looks[history.run.label], floor)
    title = "average of the tasks" if operator == AVERAGE else operator
    return Panel(title, Axis("step"), loss_axis("eigenvalue", *values), tuple(marks))


def _line(history: EigenvalueHistory, operator: int, pair: int, look: Look, floor: float) -> list[Mark]:
    label = history.run.label
    value, residual = history.values[:, operator, pair], history.residuals[:, operator, pair]
    converged = history.converged[:, operator, pair].astype(bool)
    look = look.but(width=1.0, size=3.2, opacity=1.0 if pair == 0 else 0.5)
    low, high = np.maximum(value - residual, floor), value + residual
    told = _hover(history, value, residual, pair)
    marks: list[Mark] = [
        Segments(history.steps, low, history.steps, high, look.but(dash="solid", marker=""), label),
        Line(history.steps, value, look, label, told),
    ]
    for chosen, one in ((converged, look), (~converged, look.hollow)):
        if chosen.any():
            x, y = history.steps[chosen], value[chosen]
            marks.append(Points(x, y, np.full(x.size, look.size), one, label))
    return marks


def _hover(history: EigenvalueHistory, value: Array, residual: Array, pair: int) -> tuple[Column, ...]:
    size = value.size
    return (
        Column("strategy", np.full(size, history.run.label)),
        Column("seed", np.full(size, history.run.seed)),
        Column("step", history.steps),
        Column(f"eigenvalue {pair + 1}", value),
        Column("residual", residual),
    )


def _cut_words(panels: Sequence[Panel], histories: Sequence[EigenvalueHistory], pairs: int) -> str:
    logs = {panel.title for panel in panels if panel.y.scale == "log"}
    cut = 0
    for history in histories:
        for k, task in enumerate(history.tasks):
            if ("average of the tasks" if task == AVERAGE else task) in logs:
                values, residuals = history.values[:, k, :pairs], history.residuals[:, k, :pairs]
                cut += int((values - residuals <= 0).sum())
    return f"{count(cut, 'bar')} that would reach zero or less end at the lower edge of the panel." if cut else ""
