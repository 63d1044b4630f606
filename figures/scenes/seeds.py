"""Curves of several seeds as one: their mean, and the range from the least to the largest seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from analysis.results import Array, Run
from figures.marks import Band, Column, Line, Mark, Points
from figures.style import Look

POINTS = 201
"""Points of the common grid, where seeds were not measured at the same positions."""
MARKERS = 7
"""About how many markers a curve carries."""

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Mean over seeds with the least and the largest seed, all [point]."""

    x: Array
    mean: Array
    low: Array
    high: Array
    seeds: int
    interpolated: bool


def by_label(items: Iterable[T], runs: Iterable[Run]) -> dict[str, list[T]]:
    """Items by the label of their run, in order of first appearance."""
    groups: dict[str, list[T]] = {}
    for item, run in zip(items, runs, strict=True):
        groups.setdefault(run.label, []).append(item)
    return groups


def over_seeds(curves: Sequence[tuple[Array, Array]]) -> Spread | None:
    """Combine the seeds' (x, y), linearly interpolated onto a common grid of x unless all have the same x.

    The grid spans only the range that all seeds share; None where they share none. A value that is not finite makes
    the mean not finite there, so that the curve has a gap.
    """
    xs = [np.asarray(x, dtype=float) for x, _ in curves]
    ys = [np.asarray(y, dtype=float) for _, y in curves]
    same = all(np.array_equal(x, xs[0]) for x in xs)
    if same:
        grid, rows = xs[0], np.stack(ys)
    else:
        start, end = max(x.min() for x in xs), min(x.max() for x in xs)
        if end <= start:
            return None
        grid = np.linspace(start, end, POINTS)
        rows = np.stack([np.interp(grid, x, y) for x, y in zip(xs, ys, strict=True)])
    return Spread(grid, rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0), len(curves), not same)


def curve(spread: Spread, look: Look, label: str, names: tuple[str, str]) -> tuple[Mark, ...]:
    """Line of the mean with a few markers, above a band from least to largest where there are two seeds or more.

    `names` are the names of x and y, for readers who point at the line.
    """
    hover: tuple[Column, ...] = (
        Column("strategy", np.full(spread.x.size, label)),
        Column(names[0], spread.x),
        Column(f"{names[1]}, mean", spread.mean),
    )
    if spread.seeds > 1:
        hover += (Column("least seed", spread.low), Column("largest seed", spread.high))
    band = (Band(spread.x, spread.low, spread.high, look, label),) if spread.seeds > 1 else ()
    return *band, Line(spread.x, spread.mean, look, label, hover), *markers(spread.x, spread.mean, look, label)


def markers(x: Array, y: Array, look: Look, group: str) -> tuple[Mark, ...]:
    """A few of the points, so that a strategy is known by its marker too."""
    shown = sparse(x.size)
    return (Points(x[shown], y[shown], np.full(shown.size, look.size), look, group),)


def sparse(size: int, most: int = MARKERS) -> Array:
    """At most `most` indices, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int)) if size else np.arange(0)


def interpolation(spreads: Iterable[Spread | None]) -> str:
    """Sentences for the caption about interpolation and missing overlap."""
    spreads = list(spreads)
    moved = any(spread.interpolated for spread in spreads if spread)
    missing = sum(spread is None for spread in spreads)
    return " ".join(
        ["Seeds are interpolated linearly onto a common grid inside the range that they share."] * moved
        + [f"{missing} curves are left out because their seeds share no range."] * bool(missing)
    )


def band_words(groups: Mapping[str, Sequence[object]]) -> str:
    """What line and band show."""
    if max((len(group) for group in groups.values()), default=0) > 1:
        return "Lines are means over seeds, bands reach from the least to the largest seed."
    return "One seed: no band."
