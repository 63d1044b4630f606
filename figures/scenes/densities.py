"""Spectral densities of every task: at a snapshot with their bands and exact ends, and along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis.results import AVERAGE, Array, Density, Eigenpairs
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Points, Scene, Segments, grid
from figures.scenes.scales import log_axis
from figures.scenes.warps import Symmetric, Warp, around
from figures.scenes.words import count, listed, sentences
from figures.style import Look

CURVE = Look(style.COLOURS[0], width=1.0)
STEPS = Look(style.COLOURS[1], width=1.0)
EXACT = Look(style.INK, marker="triangle-down", size=3.6, width=0.6)
FEWEST = 0.005
"""The kernel is at least this share of the width of the axis."""
WIDEST = 0.3
"""The kernel is at most so many decades wide: over gaps twice as wide it ripples by 1 %."""
MOST_SNAPSHOTS = 8
HEIGHT = 1.7
"""Height of the highest ridge, in distances between ridges."""
DECADES = 4.0
"""Ridges are at most so many decades high."""
UNIT = "loss / parameter\u00b2"


def density(
    records: Sequence[Density], pairs: Mapping[str, Eigenpairs] | None = None, warp: Warp | None = None
) -> Scene:
    """The density of the eigenvalues of every operator at one snapshot, one panel each, with 95 % bands over probes.

    Eigenvalues are on a scale that is even near zero and logarithmic further out (`warp` chooses another), heights are
    logarithmic: what a share of one eigenvalue is, is seen as well as where most of them are. Triangles mark converged
    eigenvalues of `pairs`, by the operator's name, at the height that one eigenvalue has.
    """
    shown = [record for record in records if record.defined]
    warp = warp or around([record.resolution for record in shown])
    drawn = [_warped(record, warp) for record in shown]
    panels = tuple(
        _density_panel(record, one, _axis(shown, drawn, warp), warp, (pairs or {}).get(record.operator))
        for record, one in zip(shown, drawn, strict=True)
    )
    marked = any(len(panel.marks) > len(_curve_marks(one)) for panel, one in zip(panels, drawn, strict=True))
    exact = (Key("eigenvalue with its residual, by Lanczos", EXACT),) if marked else ()
    legend = (Key("mean over probes, with its 95 % interval", CURVE), *exact)
    caption = sentences(
        _what(records),
        _how(records),
        f"Density of the share of eigenvalues per {warp.unit} of the axis.",
        "Bands: pointwise 95 % intervals over probes.",
        warp.words,
        _kernel_words(shown, drawn, warp),
        "Heights are logarithmic and end below at a tenth of that of one eigenvalue.",
        _errors(shown),
        _left_out(records),
    )
    return Scene("Spectral density", caption, grid(panels, 2, 48.0), legend)


def cumulative(records: Sequence[Density], warp: Warp | None = None) -> Scene:
    """The share of eigenvalues at or below each value, without a kernel, with its two errors apart: bands over probes,
    and between dotted lines where the finite degree leaves it.
    """
    shown = [record for record in records if record.defined]
    warp = warp or around([record.resolution for record in shown])
    axis = _axis(shown, [_warped(record, warp) for record in shown], warp)
    panels = tuple(_cumulative_panel(record, axis, warp) for record in shown)
    caption = sentences(
        _what(records),
        _how(records),
        "Share of eigenvalues at or below a value, mean over probes; bands: pointwise 95 % intervals over probes.",
        "Dotted: what the number of nodes leaves open for these probes, by the inequalities of Chebyshev, Markov and "
        "Stieltjes.",
        warp.words,
        _errors(shown),
        _left_out(records),
    )
    bounds = Key("bounds of the degree", STEPS.but(dash="dot"))
    legend = (Key("mean over probes, with its 95 % interval", CURVE), bounds)
    return Scene("Cumulative share of eigenvalues", caption, grid(panels, 2, 48.0), legend)


def densities_along(records: Sequence[Density], warp: Warp | None = None) -> Scene:
    """Densities along a run, one panel an operator and one ridge a snapshot, each with its 95 % band over probes."""
    shown = [record for record in records if record.defined]
    warp = warp or around([record.resolution for record in shown])
    steps = _some(sorted({record.step for record in shown}))
    operators = tuple(dict.fromkeys(record.operator for record in shown))
    chosen = [record for record in shown if record.step in steps]
    drawn = [_warped(record, warp) for record in chosen]
    floor, top = _heights(drawn)
    looks = {
        step: Look(c, width=0.9) for step, c in zip(steps, style.shades(len(steps), style.SURFACE[:9]), strict=True)
    }
    panels, x = [], _axis(chosen, drawn, warp)
    for operator in operators:
        mine = [(r, d) for r, d in zip(chosen, drawn, strict=True) if r.operator == operator]
        marks = [
            m for r, d in sorted(mine, key=lambda two: -two[0].step) for m in _ridge(r, d, steps, looks, floor, top)
        ]
        texts = tuple(str(step) for step in steps)
        y = Axis(
            "step", range=(-0.15, len(steps) - 0.7 + HEIGHT), ticks=tuple(map(float, range(len(steps)))), texts=texts
        )
        panels.append(Panel(_title(operator), x, y, tuple(marks)))
    decades = np.log10(top / floor) if drawn else 0.0
    caption = sentences(
        _what(records),
        _how(records),
        f"One ridge a snapshot ({len(steps)} of {len({r.step for r in shown})}): the logarithm of the density per "
        f"{warp.unit}, {decades:.1f} decades high where highest, above a line at {floor:.2g}, which is a tenth of the "
        "height of one eigenvalue or more; bands: pointwise 95 % intervals over probes.",
        warp.words,
        _kernel_words(chosen, drawn, warp),
        "The same probes at every snapshot.",
        _left_out(records),
    )
    return Scene("Spectral density along training", caption, grid(tuple(panels), 2, 22.0 + 8.0 * len(steps)))


def _title(operator: str) -> str:
    return "average of the tasks" if operator == AVERAGE else operator


def _warped(record: Density, warp: Warp) -> Density:
    """The density over the axis as it is drawn, with a kernel for the distances of nodes there."""
    nodes = warp(record.nodes)
    if not isinstance(warp, Symmetric):
        return record
    gaps = [w[:n] @ np.gradient(x[:n]) for x, w, n in zip(nodes, record.weights, record.degrees, strict=True) if n > 1]
    spread = float(np.ptp(nodes)) or 1.0
    return replace(record, nodes=nodes, width=max(min(float(np.mean(gaps or [0.0])), WIDEST), FEWEST * spread))


def _one(drawn: Density) -> float:
    """The height of the kernel of one eigenvalue."""
    return float(1 / (drawn.size * drawn.width * np.sqrt(2 * np.pi)))


def _floor(drawn: Density) -> float:
    """Where logarithmic heights end."""
    return _one(drawn) / 10


def _curve_marks(drawn: Density) -> list[Mark]:
    curve, floor = drawn.curve(drawn.grid()), _floor(drawn)
    seen = curve.mean >= floor
    mean = np.where(seen, curve.mean, np.nan)
    low, high = np.maximum(curve.low, floor), np.where(seen, curve.high, floor)
    known = np.isfinite(curve.stderr).any()
    told = (Column("density", curve.mean), Column("standard error", curve.stderr))
    band: list[Mark] = [Band(curve.x, low, np.maximum(high, floor), CURVE)] if known else []
    return [*band, Line(curve.x, mean, CURVE, "", told)]


def _axis(records: Sequence[Density], drawn: Sequence[Density], warp: Warp) -> Axis:
    """One axis for panels that are compared."""
    made = warp.axis(f"eigenvalue ({UNIT})", *(record.nodes for record in records))
    ends = [end for one in drawn for end in (one.nodes.min() - 3 * one.width, one.nodes.max() + 3 * one.width)]
    return replace(made, range=(float(min(ends)), float(max(ends)))) if ends else made


def _density_panel(record: Density, drawn: Density, x: Axis, warp: Warp, pairs: Eigenpairs | None) -> Panel:
    marks = _curve_marks(drawn)
    one = _one(drawn)
    if pairs is not None and pairs.converged.any():
        good = pairs.converged.astype(bool)
        values, error = pairs.values[good], pairs.residuals[good]
        height = np.full(values.size, one)
        told = (Column("eigenvalue", values), Column("residual", error))
        marks.append(Segments(warp(values - error), height, warp(values + error), height, EXACT.but(marker="")))
        marks.append(Points(warp(values), height, np.full(values.size, EXACT.size), EXACT, "", told))
    heights = np.concatenate([m.y[np.isfinite(m.y)] for m in marks if isinstance(m, Line)])
    y = log_axis(f"density per {warp.unit}", np.r_[heights, _floor(drawn)])
    top = max([float(heights.max()), *(float(np.nanmax(m.high)) for m in marks if isinstance(m, Band))])
    return Panel(_title(record.operator), x, replace(y, range=(_floor(drawn), 1.5 * top)), tuple(marks))


def _cumulative_panel(record: Density, axis: Axis, warp: Warp) -> Panel:
    x = np.unique(record.nodes)
    before, at = record.cumulative(np.r_[x[0], x[:-1]]), record.cumulative(x)
    low, high = _open(record, x)
    double = np.repeat(warp(x), 2)

    def steps(first: Array, second: Array) -> Array:
        return np.asarray(np.clip(np.stack([first, second], 1).ravel(), 0.0, 1.0))

    start = np.zeros(1)
    mean = steps(np.r_[start, before.mean[1:]], at.mean)
    marks: list[Mark] = []
    if np.isfinite(at.stderr).any():
        band_low = steps(np.r_[start, before.low[1:]], at.low)
        marks.append(Band(double, band_low, steps(np.r_[start, before.high[1:]], at.high), CURVE))
    marks += [Line(warp(x), one, STEPS.but(dash="dot"), "") for one in (low, high)]
    marks.append(Line(double, mean, CURVE, "", (Column("eigenvalue", np.repeat(x, 2)), Column("share", mean))))
    return Panel(_title(record.operator), axis, Axis("share of eigenvalues", range=(0.0, 1.0)), tuple(marks))


def _open(record: Density, x: Array) -> tuple[Array, Array]:
    """Bounds of the share at or below x for these probes: without the last node below, with the next one above."""
    lows, highs = [], []
    for nodes, weights, degree, exact in zip(record.nodes, record.weights, record.degrees, record.exact, strict=True):
        sums = np.r_[0.0, np.cumsum(weights[:degree])]
        place = np.searchsorted(nodes[:degree], x, side="right")
        lows.append(sums[place if exact else np.maximum(place - 1, 0)])
        highs.append(sums[place if exact else np.minimum(place + 1, degree)])
    return np.stack(lows).mean(0), np.stack(highs).mean(0)


def _heights(drawn: Sequence[Density]) -> tuple[float, float]:
    """From where to where ridges reach: a tenth of one eigenvalue, but no more than `DECADES` below the highest."""
    if not drawn:
        return 1.0, 1.0
    top = max(float(one.curve(one.grid()).mean.max()) for one in drawn)
    return max(min(_floor(one) for one in drawn), top * 10.0**-DECADES), top


def _ridge(
    record: Density, drawn: Density, steps: Sequence[int], looks: Mapping[int, Look], floor: float, top: float
) -> list[Mark]:
    curve, base, look = drawn.curve(drawn.grid()), float(steps.index(record.step)), looks[record.step]

    def height(values: Array) -> Array:
        return np.asarray(base + HEIGHT * np.log10(np.maximum(values, floor) / floor) / np.log10(top / floor))

    told = (Column("step", np.full(curve.x.size, record.step)), Column("density", curve.mean))
    marks: list[Mark] = [Line(curve.x, height(curve.mean), look, "", told)]
    if np.isfinite(curve.stderr).any():
        marks.insert(0, Band(curve.x, height(curve.low), np.minimum(height(curve.high), base + 1.2 * HEIGHT), look))
    return marks


def _some(steps: list[int]) -> list[int]:
    """At most `MOST_SNAPSHOTS` steps, evenly over all, first and last among them."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_SNAPSHOTS)).round().astype(int))
    return [steps[k] for k in places] if steps else []


def _what(records: Sequence[Density]) -> str:
    if not records:
        return "There is no density to draw."
    first = records[0]
    kinds = listed(dict.fromkeys(f"{r.matrix} on {r.subset}" for r in records))
    steps = sorted({r.step for r in records})
    when = f"at step {steps[0]}" if len(steps) == 1 else f"from step {steps[0]} to {steps[-1]}"
    return (
        f"Eigenvalues of each loss ({kinds}, {count(first.size, 'parameter')}, "
        f"{count(first.examples, 'evaluation example')}), {first.run.name} {when}."
    )


def _how(records: Sequence[Density]) -> str:
    ways = dict.fromkeys(
        f"{count(len(r.nodes), f'{r.probe} probe')} with {int(r.degrees.max())} nodes" for r in records if r.defined
    )
    return f"Stochastic Lanczos quadrature, {listed(ways)}." if ways else ""


def _kernel_words(records: Sequence[Density], drawn: Sequence[Density], warp: Warp) -> str:
    if not records:
        return ""
    widths = [one.width for one in drawn]
    low, high = f"{min(widths):.2g}", f"{max(widths):.2g}"
    wide = low if low == high else f"{low} to {high}"
    if isinstance(warp, Symmetric):
        wide = f"{wide} {warp.unit}s"
        return f"Gaussian kernel, standard deviation {wide}: the mean distance of nodes there, at most {WIDEST}."
    return f"Gaussian kernel, standard deviation {wide} {UNIT}: {listed(dict.fromkeys(r.width_rule for r in records))}."


def _errors(records: Sequence[Density]) -> str:
    if not records:
        return ""
    few = listed(f"{_title(r.operator)} {r.sampling:.2g} and {r.discretisation:.2g}" for r in records)
    return f"Error as a Wasserstein-1 distance, of few probes and at most of few nodes: {few} {UNIT}."


def _left_out(records: Sequence[Density]) -> str:
    lost = [f"{_title(r.operator)} at step {r.step}" for r in records if not r.defined]
    return f"Left out because products were not finite: {listed(lost)}." if lost else ""
