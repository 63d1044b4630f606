"""Where over a plane the task gradients conflict, with trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.results import Array, ConflictMap, Shadow, Surface
from figures import style
from figures.marks import Axis, Contours, Key, Line, Mark, Panel, Points, Scene, Segments, grid
from figures.scenes.landscapes import surface
from figures.scenes.levels import level_line
from figures.scenes.scales import even_levels, finite, height, round_values, tick_texts
from figures.scenes.trajectories import axis_words, explained_words, geometry, narrow
from figures.scenes.words import count, lone_words, seeds_of, sentences
from figures.style import Look

PAIRS, RATIOS = 6, 2
"""At most so many pairs of tasks have a panel for their cosine, and for their ratio: rows of three are full."""
COLUMNS = 3
DEPTH = 1e-4
"""Gaps below this share of the largest are drawn as that."""
DECADES = 3.0
"""Ratios further from 1 than this are drawn as that."""
LEAST = 0.01
"""Colours reach at least so far to both sides, of a cosine and of the logarithm of a ratio."""

ZERO = Look(style.INK, width=0.9)
PARETO = Key("Pareto set of the grid", Look(style.INK, marker="circle", size=1.8, fill=style.PAPER, width=0.5))
UNCERTAIN = Key("not told from zero", Look(style.INK, marker="square", size=4.2, fill="none", width=0.6))

CASING = Key(UNCERTAIN.label, UNCERTAIN.look.but(colour=style.PAPER, width=1.6, opacity=0.6))
"""Under it, so that it stands out from dark colours too."""


def conflict_map(record: ConflictMap, shadows: Sequence[Shadow] = (), order: Sequence[str] = ()) -> Scene:
    """Cosine of task gradients, Pareto gap and ratio of norms over a plane, with the grid's Pareto set.

    One panel a pair for the cosine, with a line where it is zero, and one for the ratio; of many pairs those that
    conflict most, by their mean cosine over the grid. Open squares: points where a norm, or the gap, is no larger than
    its standard error. Trajectories are drawn as over a loss surface.
    """
    tasks = list(combinations(range(len(record.tasks)), 2))
    shown = _most(record)
    losses = _losses(record)
    base = surface(losses, shadows, order)
    ground = [panel for panel in base.panels if isinstance(panel.marks[0], Contours)][-1]
    tracks = (m for m in ground.marks if isinstance(m, Line | Points) and m.group)
    above = (*tracks, *_dots(record, record.pareto, PARETO))
    x, y = narrow(record.plane, (ground.x, ground.y))
    short = record.norm <= record.noise
    doubtful = [np.any(short[list(tasks[k])], axis=0) for k in shown]
    doubtful.append(np.asarray(record.gap <= record.gap_noise))

    def panel(title: str, drawn: Sequence[Mark], doubt: Array) -> Panel:
        marks = (*drawn, *_dots(record, doubt, CASING), *_dots(record, doubt, UNCERTAIN), *above)
        return Panel(title, x, y, marks, None, ground.aspect)

    first = shown[:RATIOS]
    cosines, ratios = _cosines(record, shown), _ratios(record, first)
    panels = (
        *(panel(record.pairs[k], cosines[n], doubtful[n]) for n, k in enumerate(shown)),
        panel("Pareto gap" if tasks else f"gradient of {record.tasks[0]}", (_gap(record),), doubtful[-1]),
        *(panel(" / ".join(record.tasks[t] for t in tasks[k]), ratios[n], doubtful[n]) for n, k in enumerate(first)),
    )
    caption = sentences(
        f"Gradients of the task losses on the shared parameters, over {count(record.examples, 'evaluation example')}, "
        f"on a grid of {record.x.size} by {record.y.size} points of the plane: {record.plane.recipe}.",
        "Buffers, such as normalisation statistics, of the plane's origin." if record.plane.buffers.size else "",
        "Heads as the plane's." if record.plane.subset != "all" else "",
        _pair_words(record, len(shown)),
        _gap_words(record),
        _noise_words(record),
        _pareto_words(record),
        axis_words(record.plane, (x, y)),
        explained_words(record.plane),
        geometry(record.plane)[1],
        _blanks(record),
        lone_words([record.gap]),
        _shadow_words(shadows),
    )
    there = ((PARETO, record.pareto.any()), (UNCERTAIN, (record.done & np.any(doubtful, axis=0)).any()))
    legend = (*base.legend, *(key for key, seen in there if seen))
    rows = (*grid(panels, COLUMNS, 50.0 if len(panels) > 1 else 80.0), *(base.rows[-1:] if shadows else ()))
    return Scene("Where task gradients agree and conflict", caption, rows, legend)


def _losses(record: ConflictMap) -> Surface:
    """The map's losses as a surface of which nothing else is known."""
    unknown = np.full(record.loss.shape, np.nan)
    return Surface(
        tasks=record.tasks,
        x=record.x,
        y=record.y,
        loss=record.loss,
        stderr=unknown,
        difference_stderr=unknown,
        average_stderr=unknown[0],
        average_difference_stderr=unknown[0],
        metrics=(),
        scores=unknown[:0],
        score_stderr=unknown[:0],
        done=record.done,
        plane=record.plane,
        examples=record.examples,
        data=record.data,
        split="evaluation",
        batch_norm="",
        heads="",
        engine="",
    )


def _most(record: ConflictMap) -> list[int]:
    """Pairs whose cosine is least on average over the grid, the least first; those without any cosine last."""
    known = np.isfinite(record.cosine)
    with np.errstate(invalid="ignore"):
        means = np.where(known, record.cosine, 0.0).sum((1, 2)) / known.sum((1, 2))
    return [int(k) for k in np.argsort(means, kind="stable")[:PAIRS]]


@dataclass(frozen=True, eq=False)
class _Balance:
    """Even levels to both sides of zero, with diverging colours."""

    levels: Array

    @classmethod
    def around(cls, values: Array) -> _Balance:
        reach = float(np.abs(finite([values])).max(initial=LEAST))
        return cls(even_levels(-reach, reach))

    @property
    def range(self) -> tuple[float, float]:
        return float(self.levels[0]), float(self.levels[-1])

    @property
    def colours(self) -> tuple[str, ...]:
        return style.shades(self.levels.size - 1, style.DIVERGING)

    @property
    def ticks(self) -> Array:
        """A few of the levels, zero among them."""
        middle = self.levels.size // 2
        every = int(np.ceil(middle / 3))
        return np.asarray(self.levels[middle % every :: every])


def _cosines(record: ConflictMap, shown: Sequence[int]) -> list[tuple[Mark, ...]]:
    """All on one scale, which reaches as far as the largest of them."""
    scale = _Balance.around(record.cosine[shown])
    bar = Axis("cosine", range=scale.range, ticks=tuple(scale.ticks.tolist()), texts=tick_texts(scale.ticks))
    return [
        (
            Contours(record.x, record.y, cosine, cosine, scale.levels, scale.colours, bar),
            Segments(*level_line(record.x, record.y, cosine, 0.0), ZERO),
        )
        for cosine in record.cosine[shown]
    ]


def _ratios(record: ConflictMap, shown: Sequence[int]) -> list[tuple[Mark, ...]]:
    """Logarithms, all on one scale, as far to one side of 1 as to the other."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.clip(np.log10(record.ratio[shown]), -DECADES, DECADES)
    scale = _Balance.around(logs)
    low, high = scale.range
    ticks = round_values(10.0**low, 10.0**high)
    places = tuple(np.clip(np.log10(ticks), low, high).tolist())
    bar = Axis("ratio of norms", range=scale.range, ticks=places, texts=tick_texts(ticks))
    return [
        (Contours(record.x, record.y, drawn, ratio, scale.levels, scale.colours, bar),)
        for drawn, ratio in zip(logs, record.ratio[shown], strict=True)
    ]


def _gap(record: ConflictMap) -> Contours:
    floor = _floor(record)
    drawn = np.maximum(record.gap, floor)
    scaled = height("loss per parameter unit", "log" if floor > 0 else "linear", drawn)
    colours = style.shades(max(scaled.levels.size - 1, 0))
    return Contours(record.x, record.y, scaled(drawn), record.gap, scaled.levels, colours, scaled.axis)


def _floor(record: ConflictMap) -> float:
    return DEPTH * float(finite([record.gap]).max(initial=0.0))


def _dots(record: ConflictMap, where: Array, key: Key) -> tuple[Mark, ...]:
    j, i = np.nonzero(where & record.done.astype(bool))
    return (Points(record.x[i], record.y[j], np.full(i.size, key.look.size), key.look, key.label),) if i.size else ()


def _pair_words(record: ConflictMap, shown: int) -> str:
    total = len(record.pairs)
    if not total:
        return ""
    some = (
        f"Of {total} pairs the {shown} whose cosine is least on average over the grid are shown, the least first."
        if shown < total
        else ""
    )
    first = f" (of the first {RATIOS} pairs)" if shown > RATIOS else ""
    with np.errstate(divide="ignore", invalid="ignore"):
        far = int((np.abs(np.log10(record.ratio[_most(record)[:RATIOS]])) > DECADES).sum())
    return sentences(
        "Cosine of each pair: 1 where gradients agree, \u22121 where they are opposite; the dark line is at 0.",
        some,
        f"Ratio of the norms{first} on a logarithmic scale.",
        f"{count(far, 'ratio')} beyond a factor of {10**DECADES:g} drawn as that." if far else "",
    )


def _gap_words(record: ConflictMap) -> str:
    lowest = int((finite([record.gap]) < _floor(record)).sum())
    what = (
        "Pareto gap: norm of the smallest convex combination of the task gradients, in loss per parameter unit, 0 "
        "where no direction lowers all losses; on a logarithmic scale."
        if record.pairs
        else "Norm of the gradient in loss per parameter unit, on a logarithmic scale."
    )
    return sentences(
        what,
        f"{count(lowest, 'point')} below {DEPTH:g} of the largest drawn as that." if lowest else "",
    )


def _noise_words(record: ConflictMap) -> str:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = finite([record.noise / record.norm])
    if not shares.size:
        return "Standard errors are unknown."
    below = count(int((record.gap <= record.gap_noise).sum()), "point")
    what, where = ("a norm, or the gap,", f"the gap at {below}") if record.pairs else ("the norm", below)
    return (
        f"Standard error of a gradient, from {record.pieces} pieces of the examples: {np.median(shares):.1%} of its "
        f"norm (median). Open squares: {what} is no larger than its standard error ({where})."
    )


def _pareto_words(record: ConflictMap) -> str:
    if not record.pairs:
        return "Dot: the grid point of the least loss." if record.pareto.any() else ""
    return (
        f"Dots: the grid's Pareto set, {count(int(record.pareto.sum()), 'point')} that no other point of the grid "
        "beats in one task without losing in another."
    )


def _blanks(record: ConflictMap) -> str:
    done = record.done.astype(bool)
    total = count(done.size, "grid point")
    undone, broken = int((~done).sum()), int((done & ~np.isfinite(record.gap)).sum())
    return sentences(
        f"{undone} of {total} not measured." if undone else "",
        f"{broken} of {total} with a loss or a gradient that is not finite." if broken else "",
        "They are left blank." if undone or broken else "",
    )


def _shadow_words(shadows: Sequence[Shadow]) -> str:
    if not shadows:
        return ""
    off = finite([shadow.off_plane for shadow in shadows]).max(initial=0.0)
    return (
        f"{count(len(shadows), 'trajectory', 'trajectories')}, {seeds_of([s.run for s in shadows])}; open circles "
        f"along them have a diameter proportional to the distance off the plane, at most {off:.3g} parameter units."
    )
