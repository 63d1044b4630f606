"""What a plane shows of trajectories, and how it turns, as tables."""

from __future__ import annotations

import numpy as np

from analysis.results import Faithfulness, PlaneStability
from figures.scenes.faithfulness import columns, runs
from figures.scenes.words import count
from figures.tables import Cell, Table, number, table, with_error


def faithfulness_table(found: Faithfulness, title: str) -> Table:
    """Shares of variance and of distance of every run and of all, each above that of random walks; `title` names the
    plane.
    """
    rows: list[list[Cell | str]] = [
        [name, *(_share(*(float(values[row]) for values in shown)) for shown in columns(found))]
        for row, name in enumerate(runs(found))
    ]
    note = (
        "Below each share, that of random walks with the same starts and step lengths in their own best plane, mean "
        f"\u00b1 standard deviation over {count(found.draws, 'draw')}, with directions in {found.dimension} "
        "dimensions. Variance about the plane's origin; distance between stored snapshots."
    )
    head = ("run", *(f"variance, {axis}" for axis in found.axes), "distance travelled")
    return table(f"What the plane shows of the trajectories: {title}", head, rows, note)


def _share(mine: float, walk: float, spread: float) -> Cell:
    return Cell(f"{number(100 * mine, 3)} %", f"walks {with_error(100 * walk, 100 * spread)} %")


def stability_table(stability: PlaneStability, title: str) -> Table:
    """The principal angles between the plane of all snapshots and the plane of what is left, case by case."""
    rows: list[list[Cell | str]] = [
        [case, *(_angle(float(angle)) for angle in pair)]
        for case, pair in zip(stability.left_out, stability.angles, strict=True)
    ]
    note = "Principal angles to the plane of all snapshots: 0\u00b0 is the same plane, 90\u00b0 shares no direction."
    head = ("without", "smaller angle", "larger angle")
    return table(f"How the plane turns when something is left out: {title}", head, rows, note)


def _angle(degrees: float) -> Cell:
    return Cell(f"{number(degrees, 3)}\u00b0") if np.isfinite(degrees) else Cell("no plane", "", "open")
