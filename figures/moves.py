"""The figures of how some runs moved, on one subset of the parameters in one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import Displacements, Movement, WalkNull
from figures import scenes
from figures.marks import Scene

DRAWN = ("net", "path_steps", "path_updates", "ratio", "radius", "dimension")
"""The measures that are drawn against the budgets; all of them stand in the tables."""


@dataclass(frozen=True)
class Moves:
    """Runs on one subset in one form, each with its displacements and random walks where they were measured."""

    movements: tuple[Movement, ...]
    displacements: tuple[Displacements, ...] = ()
    walks: tuple[WalkNull, ...] = ()


def together(
    movements: Iterable[Movement], displacements: Iterable[Displacements], walks: Iterable[WalkNull]
) -> tuple[Moves, ...]:
    """What is of one subset and one form together, in the order of the movements."""
    shown, lags, nulls = tuple(movements), tuple(displacements), tuple(walks)
    abouts = dict.fromkeys((one.subset, one.form) for one in shown)
    return tuple(
        Moves(
            tuple(one for one in shown if (one.subset, one.form) == about),
            tuple(one for one in lags if (one.subset, one.form) == about),
            tuple(one for one in nulls if (one.subset, one.form) == about),
        )
        for about in abouts
    )


def move_scenes(one: Moves, order: Sequence[str] = ()) -> dict[str, Scene]:
    """A figure for each measure that is known, by its name, then displacement against lag and turning angles."""
    known = [
        measure
        for measure in DRAWN
        if any(measure in item.measures and np.isfinite(item.of(measure)).any() for item in one.movements)
    ]
    drawn = {measure: scenes.movement(one.movements, one.walks, measure, order) for measure in known}
    if one.displacements:
        drawn["displacement"] = scenes.displacement(one.displacements, order)
        drawn["turning"] = scenes.turning(one.displacements, order)
    return drawn
