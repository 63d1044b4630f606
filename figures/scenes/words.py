"""The words that captions are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis.results import Array, Movement, Run, starts_counted, starts_of
from figures.marks import lone


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentences(*parts: str) -> str:
    """The parts that are not empty, one after the other."""
    return " ".join(part for part in parts if part)


def seeds_of(runs: Sequence[Run]) -> str:
    """How many seeds each strategy has: `3 seeds of each strategy`, or `averaged 3 and independent 2 seeds`; with the
    number of their starts where that is another one.
    """
    seeds: dict[str, set[int]] = {}
    for run in runs:
        seeds.setdefault(run.label, set()).add(run.seed)
    numbers = {label: len(values) for label, values in seeds.items()}
    starts = starts_counted(starts_of(runs))
    if len(set(numbers.values())) <= 1:
        number = next(iter(numbers.values()), 0)
        return count(number, "seed") + (" of each strategy" if len(numbers) > 1 else "") + starts
    return listed(f"{label} {number}" for label, number in numbers.items()) + " seeds" + starts


def excluded(number: int, what: str) -> str:
    """A sentence for values that cannot be drawn; nothing where there are none."""
    return f"{count(number, 'value')} of {what} not finite and left out." if number else ""


def lone_words(grids: Iterable[Array]) -> str:
    """A sentence for grid points that are drawn as squares; empty where there are none."""
    if not any(lone(np.asarray(z, float)).any() for z in grids):
        return ""
    return "Squares: points that no contour reaches, since a neighbour in every cell around them has no value."


def estimated(movements: Sequence[Movement]) -> str:
    """A sentence where files keep a projection in the place of theta; else nothing."""
    error = max((one.error for one in movements), default=0.0)
    few = f"{sum(one.error > 0 for one in movements)} of {count(len(movements), 'run')}"
    return (
        f"Distances of {few} are estimated from a random projection, with a relative standard error of {error:.2g}."
        if error
        else ""
    )
