"""Alternating steps: what theory predicts beside what steps really do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, Alternation, Array
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Points, Scene, Segments, grid
from figures.scenes.scales import finite, log_axis
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look

COLUMNS = 2
MOST = 6
"""At most so many tasks have panels of their own."""
ROOM = 0.06
"""Room around points that are compared with a line, as a share of their range."""
GUIDE = Look(style.FAINT, "dash", width=0.9)
MEASURED = Key("measured", Look(style.INK, marker="circle", width=0.9).hollow)
PREDICTED = Key("predicted", Look(style.INK, width=1.2))
MEAN = Key("mean of orders", Look(style.INK, "dot", width=0.9))


def alternation(records: Sequence[Alternation], order: Sequence[str] = ()) -> Scene:
    """Difference of every loss between a sequential pass and one summed step over rate^2, along training: predicted
    with a band, measured with bars.
    """
    every = looks_of(records, order)
    losses = shown_losses(records)
    panels = tuple(_along(name, records, every) for name in losses)
    caption = sentences(
        "Loss after one step a task in turn minus loss after one step on their sum, both from the snapshot, over the "
        "squared learning rate; below zero alternation helps.",
        what(records),
        "Line: predicted to second order in the order in use, band: its 95 % interval over examples. Markers: "
        "measured, bars: 95 % interval from steps taken anew without each block of examples. Dotted: predicted mean "
        "over all orders.",
        left_out(records),
        unfinished(records),
        excluded(_broken(records), "differences"),
    )
    legend = (*(Key(label, look) for label, look in every.items()), PREDICTED, MEASURED, MEAN)
    return Scene("Alternating against averaged steps along training", caption, grid(panels, COLUMNS, 46.0), legend)


def prediction_and_measurement(records: Sequence[Alternation], order: Sequence[str] = ()) -> Scene:
    """Measured against predicted difference over rate^2 at every snapshot, with the line where they are equal; and the
    relative remainder along training.
    """
    every = looks_of(records, order)
    losses = shown_losses(records)
    panels = tuple(_scatter(name, records, every) for name in losses)
    remainders = tuple(_relative(name, records, every) for name in losses)
    told = [r.above_rounding for r in records]
    signs = [np.sign(r.predicted[t]) == np.sign(r.measured[:, 0][t]) for r, t in zip(records, told, strict=True)]
    same, total = sum(int(s.sum()) for s in signs), sum(s.size for s in signs)
    caption = sentences(
        "Upper rows: measured against predicted difference of each loss over the squared learning rate, one marker a "
        f"snapshot, bars 95 % intervals; on the dashed line both are equal. They have one sign at {same} of "
        f"{total} that are larger than rounding.",
        "Lower rows: |measured \u2212 predicted| / |predicted| on a logarithmic axis; on the dashed line the remainder "
        "is as large as the prediction.",
        what(records),
        left_out(records),
        unfinished(records),
    )
    legend = tuple(Key(label, look) for label, look in every.items())
    rows = (*grid(panels, COLUMNS, 46.0), *grid(remainders, COLUMNS, 34.0))
    return Scene("Prediction and measurement of alternating steps", caption, rows, legend)


def alternation_remainder(records: Sequence[Alternation], order: Sequence[str] = ()) -> Scene:
    """|measured / rate^2 - predicted / rate^2| against the rate, one line a snapshot, both axes logarithmic, with a
    line in proportion to the rate.
    """
    every = looks_of(records, order)
    losses = shown_losses(records)
    panels = tuple(_ladder(name, records, every) for name in losses)
    groups = {mark.group for panel in panels for mark in panel.marks if isinstance(mark, Points)}
    none = [_title(name) for name, panel in zip(losses, panels, strict=True) if not panel.marks]
    powers = finite([r.remainder_order[r.done.astype(bool)] for r in records])
    caption = sentences(
        "|measured \u2212 predicted| over the squared learning rate, against the rate, one line a snapshot; both axes "
        "are logarithmic. Dashed: in proportion to the rate, as a remainder of third order has to fall."
        if groups
        else "",
        f"The remainder falls with the power {np.median(powers):.2f} of the rate at the end of the ladder (median of "
        f"{powers.size}; 3 in theory)."
        if powers.size
        else "",
        "A line that is level, or rises towards small rates, does not follow the theory: kinks of the loss, or "
        "rounding."
        if groups
        else "",
        f"There is no remainder, and nothing is drawn: {listed(none)}." if none else "",
        what(records),
        left_out(records),
    )
    legend = (
        *(Key(label, look.but(marker="")) for label, look in every.items() if label in groups),
        *([Key("in proportion", GUIDE.but(colour=style.INK))] if groups else []),
    )
    return Scene("Remainder of the second-order theory", caption, grid(panels, COLUMNS, 46.0), legend)


def looks_of(records: Sequence[Alternation], order: Sequence[str]) -> dict[str, Look]:
    """The look of every label among the records."""
    every = style.looks([*order, *(record.run.label for record in records)])
    return {record.run.label: every[record.run.label] for record in records}


def shown_losses(records: Sequence[Alternation]) -> tuple[str, ...]:
    """The losses that have a panel: of many tasks those with the largest measured differences, and the average."""
    names = tuple(dict.fromkeys(name for record in records for name in record.losses if name != AVERAGE))
    if len(names) > MOST:
        largest = {name: float(finite(_sizes(name, records)).max(initial=0.0)) for name in names}
        names = tuple(sorted(sorted(names, key=lambda name: -largest[name])[:MOST], key=names.index))
    return (*names, AVERAGE) if records else ()


def _sizes(name: str, records: Sequence[Alternation]) -> list[Array]:
    return [np.abs(record.measured[:, 0, k]) / record.rate**2 for record, k in _present(name, records)]


def left_out(records: Sequence[Alternation]) -> str:
    """A sentence for tasks without a panel."""
    names = {name for record in records for name in record.tasks}
    return f"Of {len(names)} tasks the {MOST} with the largest differences are shown." if len(names) > MOST else ""


def _title(name: str) -> str:
    return "average of the tasks" if name == AVERAGE else name


def _present(name: str, records: Sequence[Alternation]) -> list[tuple[Alternation, int]]:
    return [(record, record.losses.index(name)) for record in records if name in record.losses]


def _along(name: str, records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    back: list[Mark] = []
    front: list[Mark] = []
    for record, k in _present(name, records):
        known, scale, label = record.done.astype(bool), record.rate**2, record.run.label
        look, x = looks[label], record.steps[known]
        value, half = record.predicted[known, k] / scale, record.quantile * record.predicted_stderr[known, k] / scale
        measured = record.measured[known, 0, k] / scale
        low, high = (end[known, k] / scale for end in record.interval)
        back.append(Band(x, value - half, value + half, look.but(opacity=0.18), label))
        front += [
            Line(x, record.predicted_mean[known, k] / scale, look.but(dash="dot", marker="", width=0.9), label),
            Line(x, value, look.but(marker="", dash="solid"), label, _told(record, known, k)),
            Segments(x, low, x, high, look.but(dash="solid", marker="", width=0.9), label),
            Points(x, measured, np.full(x.size, look.size), look.hollow, label, _told(record, known, k)),
        ]
    return Panel(_title(name), Axis("step"), Axis("difference / rate\u00b2"), (*zero_line(records), *back, *front))


def zero_line(records: Sequence[Alternation]) -> tuple[Mark, ...]:
    """A line at zero over all steps."""
    steps = finite([record.steps for record in records])
    if not steps.size:
        return ()
    zero, (first, last) = np.zeros(1), ends_of(steps)
    return (Segments(zero + first, zero, zero + last, zero, GUIDE),)


def ends_of(steps: Array) -> tuple[float, float]:
    """The first and the last step; of one step, half a step to both sides."""
    half = 0.5 * float(steps.min() == steps.max())
    return float(steps.min()) - half, float(steps.max()) + half


def _told(record: Alternation, known: Array, k: int) -> tuple[Column, ...]:
    size, scale = int(known.sum()), record.rate**2
    return (
        Column("run", np.full(size, record.run.name)),
        Column("step", record.steps[known]),
        Column("predicted / rate\u00b2", record.predicted[known, k] / scale),
        Column("standard error", record.predicted_stderr[known, k] / scale),
        Column("measured / rate\u00b2", record.measured[known, 0, k] / scale),
        Column("its standard error", record.measured_stderr[known, k] / scale),
        Column("verdict", record.verdicts[known, k]),
    )


def _scatter(name: str, records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    marks: list[Mark] = []
    ends: list[Array] = []
    for record, k in _present(name, records):
        known, scale, label = record.done.astype(bool), record.rate**2, record.run.label
        look = looks[label].but(dash="solid", width=0.8)
        x, y = record.predicted[known, k] / scale, record.measured[known, 0, k] / scale
        half = record.quantile * record.predicted_stderr[known, k] / scale
        low, high = (end[known, k] / scale for end in record.interval)
        faint = look.but(marker="", opacity=0.45, width=0.7)
        marks += [
            Segments(x - half, y, x + half, y, faint, label),
            Segments(x, low, x, high, faint, label),
            Points(x, y, np.full(x.size, look.size), look, label, _told(record, known, k)),
        ]
        ends += [x, y, x - half, x + half, low, high]
    line, (low_end, high_end) = identity(ends)
    x, y = (Axis(f"{what} / rate\u00b2", range=(low_end, high_end)) for what in ("predicted", "measured"))
    return Panel(_title(name), x, y, (*line, *marks))


def identity(ends: Sequence[Array]) -> tuple[tuple[Mark, ...], tuple[float, float]]:
    """The line where two values are equal, through a range around all of them and zero."""
    values = finite(ends)
    low, high = min(0.0, float(values.min(initial=0.0))), max(0.0, float(values.max(initial=0.0)))
    room = ROOM * (high - low or 1.0)
    low, high = low - room, high + room
    one = np.ones(1)
    return (Segments(low * one, low * one, high * one, high * one, GUIDE),), (low, high)


def _relative(name: str, records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    marks: list[Mark] = []
    values: list[Array] = [np.ones(1)]
    for record, k in _present(name, records):
        known = record.done.astype(bool)
        known = known & np.isfinite(record.relative_remainder[:, k]) & (record.relative_remainder[:, k] > 0)
        look, x, y = looks[record.run.label], record.steps[known], record.relative_remainder[known, k]
        marks += [
            Line(x, y, look.but(marker="", width=0.9), record.run.label),
            Points(x, y, np.full(x.size, look.size), look, record.run.label, _told(record, known, k)),
        ]
        values.append(y)
    steps = finite([record.steps for record in records])
    one = np.ones(1)
    guide: tuple[Mark, ...] = ()
    if steps.size:
        first, last = ends_of(steps)
        guide = (Segments(one * first, one, one * last, one, GUIDE),)
    return Panel(_title(name), Axis("step"), log_axis("relative remainder", *values), (*guide, *marks))


def _ladder(name: str, records: Sequence[Alternation], looks: dict[str, Look]) -> Panel:
    marks: list[Mark] = []
    xs: list[Array] = []
    ys: list[Array] = []
    for record, k in _present(name, records):
        look = looks[record.run.label].but(dash="solid", width=0.8, size=2.6)
        gaps = record.remainder[..., k] / record.rates**2
        for s in np.flatnonzero(record.done):
            seen = np.isfinite(gaps[s]) & (gaps[s] > 0)
            if not seen.any():
                continue
            x, y = record.rates[seen], gaps[s][seen]
            told = (Column("run", np.full(x.size, record.run.name)), Column("step", np.full(x.size, record.steps[s])))
            marks.append(Line(x, y, look.but(marker="", opacity=0.6), record.run.label, told))
            marks.append(Points(x, y, np.full(x.size, look.size), look, record.run.label, told))
            xs.append(x)
            ys.append(y)
    values, rates = finite(ys), finite(xs)
    guide: tuple[Mark, ...] = ()
    if values.size:
        ends = np.array([rates.min(), rates.max()])
        middle = float(np.exp(np.log(values).mean()))
        guide = (Line(ends, middle * ends / np.sqrt(ends[0] * ends[1]), GUIDE.but(colour=style.INK)),)
    title = _title(name) if values.size else f"{_title(name)}: none"
    return Panel(title, log_axis("rate", *xs), log_axis("|remainder| / rate\u00b2", *ys), (*marks, *guide))


def what(records: Sequence[Alternation]) -> str:
    """Rates, preconditioners, examples and seeds, for a caption."""
    rates = listed(dict.fromkeys(f"{record.rate:g}" for record in records))
    kinds = listed(dict.fromkeys(record.preconditioner for record in records))
    numbers = listed(dict.fromkeys(f"{record.examples} {record.split} examples" for record in records))
    return sentences(
        f"Learning rate {rates}; {kinds}; {numbers}, all in double precision; {seeds_of([r.run for r in records])}."
    )


def unfinished(records: Sequence[Alternation]) -> str:
    """A sentence for snapshots that are not done."""
    left = sum(int((~record.done.astype(bool)).sum()) for record in records)
    return f"{count(left, 'snapshot')} not done yet." if left else ""


def _broken(records: Sequence[Alternation]) -> int:
    return sum(int((~np.isfinite(record.measured[record.done.astype(bool), 0])).sum()) for record in records)
