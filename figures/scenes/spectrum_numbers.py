"""Numbers of whole spectra along training: traces, norms, negative shares and effective ranks, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import AVERAGE, Array, SpectrumSummary, Traces
from figures import style
from figures.marks import Axis, Column, Key, Line, Mark, Panel, Points, Scene, Segments, grid
from figures.scenes.barred import operator_looks
from figures.scenes.scales import finite, log_axis, scale_of
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look

ASIDE = 0.008
"""Distance between lines at one step, as a share of the axis."""
CURVATURE = "loss / parameter\u00b2"


@dataclass(frozen=True)
class Quantity:
    """A number of a `SpectrumSummary`: its field, its title, the label of its axis, and where its interval is from."""

    field: str
    title: str
    label: str
    sampled: bool = False
    """Whether it comes from the samples of the trace, not from the density."""


QUANTITIES = (
    Quantity("trace", "Trace", f"tr H ({CURVATURE})", True),
    Quantity("frobenius", "Frobenius norm", f"\u2016H\u2016 ({CURVATURE})", True),
    Quantity("negative", "Share of eigenvalues below zero", "share"),
    Quantity("negative_mass", "Negative share of \u03a3|\u03bb|", "share"),
    Quantity("participation", "Effective rank tr(H)\u00b2 / \u2016H\u2016\u00b2", "parameters", True),
    Quantity("entropy", "Effective rank by entropy", "parameters"),
    Quantity("intrinsic", "Effective rank tr H / \u03bb of largest size", "parameters", True),
)


def spectrum_numbers(record: Traces, quantities: Sequence[Quantity] = QUANTITIES[:6]) -> Scene:
    """One panel a number, one line a task and one for the average, along one run, with 95 % intervals; those of the
    quantities that the record has.

    The interval of the negative share is where it can lie for the number of nodes; all others are over probes.
    """
    quantities = [quantity for quantity in quantities if hasattr(record, quantity.field)]
    looks = operator_looks(record.operators)
    panels = tuple(
        _panel(q.title, q, [(record, k, looks[name], name) for k, name in enumerate(record.operators)])
        for q in quantities
    )
    caption = sentences(
        _what([record]), f"{record.run.name}: one line a loss.", _bars(quantities), _how([record], panels)
    )
    legend = tuple(Key("average of the tasks" if n == AVERAGE else n, look) for n, look in looks.items())
    return Scene("Spectra along training", caption, grid(panels, 2, 40.0), legend)


def spectrum_compared(
    records: Sequence[SpectrumSummary], quantity: Quantity = QUANTITIES[0], order: Sequence[str] = ()
) -> Scene:
    """One number of several runs: one panel an operator, one line a run in the look of its strategy."""
    every = style.looks([*order, *(record.run.label for record in records)])
    looks = {record.run.label: every[record.run.label] for record in records}
    operators = tuple(dict.fromkeys(name for record in records for name in record.operators))
    panels = []
    for name in operators:
        rows = [(r, r.operators.index(name), looks[r.run.label], r.run.label) for r in records if name in r.operators]
        panels.append(_panel("average of the tasks" if name == AVERAGE else name, quantity, rows))
    shown = tuple(panels)
    runs = f"One line a run, {seeds_of([r.run for r in records])}."
    caption = sentences(_what(records), f"{quantity.title}.", runs, _bars([quantity]), _how(records, shown))
    legend = tuple(Key(label, look) for label, look in looks.items())
    return Scene(f"{quantity.title} along training", caption, grid(shown, 2, 44.0), legend)


def interval(record: Traces, quantity: Quantity, operator: int) -> tuple[Array, Array, Array]:
    """Value, lower and upper end of one number along training, [snapshot] each: 95 % over probes by Student's t; of the
    negative share the bounds that the number of nodes leaves.
    """
    value = getattr(record, quantity.field)[:, operator]
    if quantity.field == "negative" and isinstance(record, SpectrumSummary):
        return value, record.negative_low[:, operator], record.negative_high[:, operator]
    of_density = isinstance(record, SpectrumSummary) and not quantity.sampled
    half = getattr(record, "density_quantile" if of_density else "trace_quantile")
    half = half * getattr(record, f"{quantity.field}_stderr")[:, operator]
    return value, value - half, value + half


def _panel(title: str, quantity: Quantity, rows: Sequence[tuple[Traces, int, Look, str]]) -> Panel:
    values = [interval(record, quantity, k)[0] for record, k, _, _ in rows]
    scale = "linear" if quantity.label == "share" else scale_of(*values)
    kept = finite(values)
    floor = float(kept.min()) / 2 if scale == "log" and kept.size else -np.inf
    aside = _aside(rows)
    marks = [
        mark
        for (record, k, look, group), move in zip(rows, aside, strict=True)
        for mark in _marks(record, quantity, k, look, group, floor, move)
    ]
    axis = log_axis(quantity.label, *values) if scale == "log" else Axis(quantity.label)
    return Panel(title, Axis("step"), axis, tuple(marks))


def _aside(rows: Sequence[tuple[Traces, int, Look, str]]) -> list[float]:
    """How many steps each line is moved sideways, so that bars at one step do not hide each other."""
    reach = max((float(np.ptp(record.steps)) for record, _, _, _ in rows), default=0.0)
    return [ASIDE * reach * (n - (len(rows) - 1) / 2) for n in range(len(rows))]


def _marks(
    record: Traces, quantity: Quantity, operator: int, look: Look, group: str, floor: float, aside: float
) -> list[Mark]:
    value, low, high = interval(record, quantity, operator)
    group = "average of the tasks" if group == AVERAGE else group
    look = look.but(width=1.0, size=3.2)
    told = (
        Column("of", np.full(value.size, group)),
        Column("step", record.steps),
        Column(quantity.title, value),
        Column("from", low),
        Column("to", high),
    )
    steps = np.asarray(record.steps + aside, dtype=float)
    marks: list[Mark] = [Line(steps, value, look, group, told)]
    if np.isfinite([low, high]).any():
        bars = look.but(dash="solid", marker="", opacity=0.7)
        marks.insert(0, Segments(steps, np.maximum(low, floor), steps, np.maximum(high, floor), bars, group))
    return [*marks, Points(steps, value, np.full(value.size, look.size), look, group, told)]


def _what(records: Sequence[Traces]) -> str:
    if not records:
        return "There is no spectrum to draw."
    first = records[0]
    return (
        f"{first.matrix} of each loss on {first.subset} ({count(first.size, 'parameter')}, "
        f"{count(first.examples, 'evaluation example')})."
    )


def _bars(quantities: Sequence[Quantity]) -> str:
    fields = [quantity.field for quantity in quantities]
    ranged = "negative" in fields
    others = "Bars: 95 % intervals over probes" if len(fields) > ranged else ""
    share = "of the share below zero, where it can lie for the number of nodes" if ranged else ""
    parts = [part for part in (others, ("Bars " if not others else "") + share if share else "") if part]
    return sentences(
        "; ".join(parts) + ".",
        "Lines stand side by side, a little left and right of their step.",
        "Probes are the same at every step, so changes are known better than values.",
    )


def _how(records: Sequence[Traces], panels: Sequence[Panel]) -> str:
    logs = [panel.title for panel in panels if panel.y.scale == "log"]
    lost = sum(int((~np.isfinite(record.trace)).sum()) for record in records)
    ways = listed(dict.fromkeys(record.way for record in records))
    traces_alone = not any(isinstance(record, SpectrumSummary) for record in records)
    return sentences(
        f"Trace and norm: {ways}{'' if traces_alone else '; shares and entropy: stochastic Lanczos quadrature'}."
        if records
        else "",
        f"Logarithmic axis: {listed(logs)}; bars end at half of the least value." if logs else "",
        excluded(lost, "spectra"),
    )
