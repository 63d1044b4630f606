"""What lies between runs, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from analysis.results import Barriers, FunctionDistances, PointDistances, Separation
from figures.scenes.connections import conditions_of, matrix_title
from figures.tables import Cell, Table, number, table, with_error

ROWS = 60
"""Pairs that a table shows: those of the largest barriers."""


def barrier_table(barriers: Barriers) -> Table:
    """The barrier of every task between every two points, with its standard error and where it is."""
    pairs = list(combinations(range(len(barriers.points)), 2))
    height = np.nan_to_num(barriers.barrier[-1], nan=-np.inf)
    shown = sorted(pairs, key=lambda pair: -height[pair])[:ROWS] if len(pairs) > ROWS else pairs
    rows = [
        [Cell(f"{barriers.points[i]} to {barriers.points[j]}", f"length {number(float(barriers.length[i, j]), 3)}")]
        + [_barrier(barriers, view, i, j) for view in range(len(barriers.views))]
        for i, j in shown
    ]
    some = f" Of {len(pairs)} pairs the {ROWS} with the largest are shown." if len(pairs) > ROWS else ""
    note = (
        f"The largest height of the loss above the straight line between the ends' losses, on {barriers.samples} "
        f"points of the {barriers.path}, \u00b1 its standard error over examples, and the t where it is; "
        f"{conditions_of(barriers)}. A maximum of noisy values is too large on average: a barrier of about its error "
        f"is none.{some}"
    )
    return table(f"Barriers: {matrix_title(barriers)}", ("pair", *barriers.views), rows, note)


def _barrier(barriers: Barriers, view: int, i: int, j: int) -> Cell:
    value, error = float(barriers.barrier[view, i, j]), float(barriers.stderr[view, i, j])
    if np.isnan(value):
        return Cell("\u2013")
    if value == 0:
        return Cell("0")
    text = with_error(value, error) if np.isfinite(error) else number(value)
    return Cell(text, f"at t = {number(float(barriers.at[view, i, j]), 2)}")


def separation_table(separations: Sequence[Separation]) -> Table:
    """Where runs of one seed part, how far they are apart at the end, and how far their subspaces overlap."""
    head = ("runs", "parted at step", "distance at the end", "relative", "cosine", "overlap", "random: mean", "97.5 %")
    rows = []
    for one in separations:
        last = (one.distance[-1], one.relative[-1], one.cosine[-1]) if one.steps.size else (np.nan,) * 3
        rows.append(
            [
                Cell(f"{one.first.name} and {one.second.name}"),
                Cell(str(one.parted) if one.parted >= 0 else "never"),
                *(Cell(number(float(value), 3)) for value in last),
                *(Cell(number(value, 3)) for value in (one.overlap, one.null_overlap, one.null_high)),
            ]
        )
    thresholds = " or ".join(dict.fromkeys(f"{one.threshold:g}" for one in separations))
    directions = max((one.angles.size for one in separations), default=0)
    note = (
        "Relative distance: ||u \u2212 v|| / sqrt(||u||\u00b2 + ||v||\u00b2) of the displacements u, v from the common "
        f"start, 1 at a right angle; parted: the first snapshot above {thresholds}. Overlap: mean squared cosine of "
        f"the principal angles between the {directions} leading directions of the increments, random subspaces beside."
    )
    return table("Where runs of one seed part", head, rows, note)


def disagreement_table(found: FunctionDistances) -> Table:
    """What every two points compute differently, task by task."""
    pairs = list(combinations(range(len(found.points)), 2))[:ROWS]
    rows = [
        [Cell(f"{found.points[i]} and {found.points[j]}")]
        + [_difference(found, task, i, j) for task in range(len(found.tasks))]
        for i, j in pairs
    ]
    rules = "; ".join(f"{task}: {rule}" for task, rule in zip(found.tasks, found.rules, strict=True))
    note = (
        f"{rules}; \u00b1 standard errors over {found.examples} {found.split} examples. Below: the root mean square "
        "difference of the losses of each example."
    )
    return table("What the points compute differently", ("pair", *found.tasks), rows, note)


def _difference(found: FunctionDistances, task: int, i: int, j: int) -> Cell:
    value, error = (float(m[task, i, j]) for m in (found.disagreement, found.disagreement_stderr))
    text = with_error(value, error) if np.isfinite(error) and error > 0 else number(value)
    return Cell(text, f"loss {number(float(found.loss[task, i, j]), 3)}")


def distance_table(found: PointDistances) -> Table:
    """Distances between points, as they are and with hidden units matched."""
    pairs = list(combinations(range(len(found.points)), 2))[:ROWS]
    aligned = bool(np.isfinite(found.aligned).any())
    head = ("pair", "distance", *(("hidden units matched", "share left") if aligned else ()))
    rows = []
    for i, j in pairs:
        far, near = float(found.distance[i, j]), float(found.aligned[i, j])
        row = [Cell(f"{found.points[i]} and {found.points[j]}"), Cell(number(far))]
        if aligned:
            row += [Cell(number(near)), Cell(f"{near / far:.1%}" if far else "\u2013")]
        rows.append(row)
    note = f"Over the parameters: {found.subset}; in parameter units."
    return table("Distances in weights", head, rows, note if not aligned else f"{note} Matched: {found.alignment}.")
