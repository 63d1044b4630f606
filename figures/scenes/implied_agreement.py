"""What a step of one task does to the step of another, and whether task gradients come to agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import Alternation, Array
from figures import style
from figures.marks import Axis, Cells, Column, Key, Line, Mark, Panel, Points, Scene, grid
from figures.scenes.alternation import COLUMNS, identity, left_out, looks_of, shown_losses, unfinished, what, zero_line
from figures.scenes.scales import even_levels, finite, tick_texts
from figures.scenes.words import count, listed, sentences
from figures.style import Look

PAIRS = 6
"""At most so many pairs of tasks have a panel for their cosine."""
WRITTEN = 6
"""Of at most so many tasks the values are written in the cells."""


def curvature_tensor(record: Alternation, snapshot: int = -1) -> Scene:
    """C_ijk = (P_i g_i)' H_j (P_j g_k) at one snapshot as a heat map for every task k, rows i (earlier), columns j
    (later), with the head part added where j = k; what the order in use adds up carries a star.
    """
    known = np.flatnonzero(record.done)
    row = int(known[snapshot]) if known.size else 0
    tasks = len(record.tasks)
    total = record.curvature[row].copy()
    for k in range(tasks):
        total[:, k, k] += record.head_curvature[row, :, k]
    total[np.arange(tasks), np.arange(tasks)] = np.nan
    reach = float(np.abs(finite([total])).max(initial=0.0)) or 1.0
    levels = even_levels(-reach, reach)
    middle = levels.size // 2
    every = max(1, int(np.ceil(middle / 3)))
    ticks = levels[middle % every :: every]
    bar = Axis(
        "loss / rate\u00b2", range=(float(levels[0]), float(levels[-1])), ticks=tuple(ticks), texts=tick_texts(ticks)
    )
    rank, shown = np.argsort(record.order), shown_losses((record,))
    panels = tuple(
        _cells(record, total[:, :, k], name, bar, rank) for k, name in enumerate(record.tasks) if name in shown
    )
    caption = sentences(
        "What a step of one task (row) does, through the change that it makes to the step of a later one (column), to "
        "the loss of the panel's task: C = (P_i g_i)' H_j (P_j g_k), with the part of the panel's own head in its "
        f"column, at step {int(record.steps[row])} of {record.run.name}. Below zero it helps.",
        f"Starred cells count in the order in use, {listed(record.tasks[t] for t in record.order)}; their sum times "
        "rate\u00b2 is the predicted difference. No task comes before itself.",
        f"{record.preconditioner[:1].upper()}{record.preconditioner[1:]}; {count(record.examples, 'example')}.",
        left_out((record,)),
    )
    return Scene("How one task's step turns another's", caption, grid(panels, 2, 56.0))


def agreement_growth(records: Sequence[Alternation], order: Sequence[str] = ()) -> Scene:
    """Does gradient agreement A = sum_{i<j} g_i'g_j grow as predicted? Its change over one pass, predicted and
    measured, for averaged and sequential steps; the difference between them; cosines along training.
    """
    every = looks_of(records, order)
    total = max((len(r.tasks) * (len(r.tasks) - 1) // 2 for r in records), default=0)
    panels = [_changes(records, every), _gains(records, every), *_cosines(records, every)]
    caption = sentences(
        "A is the sum of the inner products of the task gradients on the shared parameters.",
        "First panel: change of A over one averaged step (filled) and one sequential pass (open) against the change "
        "predicted to first order, the same for both. Second: sequential minus averaged, in the order in use (filled) "
        "and on the mean over orders (open), against the prediction to second order. On the dashed line both are "
        "equal.",
        "Cosines of task gradients along training: one line a run.",
        f"Of {total} pairs the first {PAIRS} are shown." if total > PAIRS else "",
        what(records),
        unfinished(records),
    )
    legend = tuple(Key(label, look) for label, look in every.items())
    return Scene("Agreement of task gradients", caption, grid(tuple(panels), COLUMNS, 50.0), legend)


def _cells(record: Alternation, values: Array, name: str, bar: Axis, rank: Array) -> Panel:
    tasks, texts, inks = len(record.tasks), [], []
    low, high = bar.range or (0.0, 1.0)
    for i in range(tasks):
        row, ink = [], []
        for j in range(tasks):
            star = "*" if rank[i] < rank[j] else ""
            row.append(_short(float(values[i, j])) + star)
            ink.append(style.PAPER if values[i, j] < low + 0.45 * (high - low) else style.INK)
        texts.append(tuple(row))
        inks.append(tuple(ink))
    few = tasks <= WRITTEN
    places = tuple(float(i) for i in range(tasks))
    x = Axis("later task", range=(-0.5, tasks - 0.5), ticks=places, texts=record.tasks)
    y = Axis("earlier task", range=(tasks - 0.5, -0.5), ticks=places, texts=record.tasks)
    marks = (Cells(values, tuple(texts) if few else (), tuple(inks) if few else (), bar),)
    return Panel(f"loss of {name}", x, y, marks, aspect=1.0)


def _short(value: float) -> str:
    """A value to two digits, as short as it can be."""
    return f"{float(f'{value:.2g}'):g}".replace("-", "\u2212") if np.isfinite(value) else ""


def _changes(records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    pairs = [
        (record, record.agreement_slope, (record.agreement_averaged, record.agreement_sequential)) for record in records
    ]
    return _compared("change of A over a step or pass", [(r, (x, x), ys) for r, x, ys in pairs], looks)


def _gains(records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    rows = [
        (
            r,
            (r.agreement_gain, r.agreement_gain_mean),
            (r.agreement_sequential - r.agreement_averaged, r.agreement_shuffled - r.agreement_averaged),
        )
        for r in records
    ]
    return _compared("sequential minus averaged", rows, looks)


def _compared(
    title: str,
    rows: Sequence[tuple[Alternation, tuple[Array, Array], tuple[Array, Array]]],
    looks: dict[str, Look],
) -> Panel:
    marks: list[Mark] = []
    ends: list[Array] = []
    for record, xs, ys in rows:
        known, label = record.done.astype(bool), record.run.label
        look = looks[label].but(dash="solid", width=0.9)
        for one, x, y in zip((look.but(size=look.size + 3).hollow, look), xs[::-1], ys[::-1], strict=True):
            seen = known & np.isfinite(x) & np.isfinite(y)
            told = (
                Column("run", np.full(int(seen.sum()), record.run.name)),
                Column("step", record.steps[seen]),
                Column("predicted", x[seen]),
                Column("measured", y[seen]),
            )
            marks.append(Points(x[seen], y[seen], np.full(int(seen.sum()), one.size), one, label, told))
            ends += [x[seen], y[seen]]
    line, (low, high) = identity(ends)
    return Panel(title, Axis("predicted", range=(low, high)), Axis("measured", range=(low, high)), (*line, *marks))


def _cosines(records: Sequence[Alternation], looks: dict[str, Look]) -> list[Panel]:
    tasks = records[0].tasks if records else ()
    i, j = np.triu_indices(len(tasks), 1)
    panels = []
    for pair, (a, b) in list(enumerate(zip(i, j, strict=True)))[:PAIRS]:
        marks: list[Mark] = []
        for record in records:
            if record.tasks == tasks:
                known, look = record.done.astype(bool), looks[record.run.label]
                told = (Column("run", np.full(int(known.sum()), record.run.name)),)
                marks.append(Line(record.steps[known], record.cosines[known, pair], look, record.run.label, told))
        panels.append(Panel(f"{tasks[a]} and {tasks[b]}", Axis("step"), Axis("cosine"), (*zero_line(records), *marks)))
    return panels
