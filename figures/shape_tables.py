"""The shape of surfaces as a table."""

from __future__ import annotations

import numpy as np

from analysis.results import SurfaceShape
from figures.tables import Cell, Table, number, table, with_error

DEEPEST = 2
"""Minima of a view whose depths are written."""


def shape_table(shape: SurfaceShape, title: str) -> Table:
    """Minima with their depths and noise, convex share, roughness and basin of every view of a surface."""
    head = (
        "loss",
        "minima",
        "deepest: loss",
        "its depth",
        "second depth",
        "convex share",
        "roughness",
        "basin width, left to right",
        "below to above",
        "basin area",
    )
    rows = [[Cell(name), *_row(shape, k)] for k, name in enumerate(shape.views)]
    steps = " by ".join(number(float(step), 3) for step in shape.scale)
    note = (
        f"On a grid with steps of {steps} parameter units. A minimum's depth is the rise of the loss to where its "
        "basin joins that of a deeper one (the deepest: to the largest loss of the grid); \u00b1 an upper bound of "
        "that difference's standard error over examples, and minima count where they are deeper than twice that. "
        "Convex share: inner points with a positive definite 2\u00d72 Hessian. Roughness: root mean square of the loss "
        "minus the mean of its four neighbours, by the range. Basin: around the deepest minimum, below the rise "
        "stated, in parameter units; a dash where the grid ends before."
    )
    if shape.edge.any():
        note += " Where a minimum lies at the edge, the loss may fall further outside."
    return table(f"Shape of the surface: {title}" if title else "Shape of the surface", head, rows, note)


def _row(shape: SurfaceShape, view: int) -> list[Cell]:
    mine = np.flatnonzero(shape.of == view)
    depths = [Cell(_depth(shape, int(m))) for m in mine[:DEEPEST]]
    left, right, below, above = (float(w) for w in shape.width[view])
    kept = int(shape.minima[view])
    return [
        Cell(str(kept), f"of {mine.size} found" if mine.size > kept else ""),
        _deepest(shape, mine),
        *depths,
        *[Cell("\u2013")] * (DEEPEST - len(depths)),
        Cell(_percent(float(shape.convexity[view]))),
        Cell(_percent(float(shape.roughness[view]))),
        Cell(f"{number(left, 3)} | {number(right, 3)}", f"rise {number(float(shape.rise[view]), 3)}"),
        Cell(f"{number(below, 3)} | {number(above, 3)}"),
        Cell(number(float(shape.area[view]), 3)),
    ]


def _deepest(shape: SurfaceShape, mine: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Cell:
    if not mine.size:
        return Cell("\u2013")
    x, y = (number(float(v), 3) for v in shape.at[mine[0]])
    return Cell(number(float(shape.value[mine[0]])), f"at ({x}, {y})" + (", the edge" if shape.edge[mine[0]] else ""))


def _depth(shape: SurfaceShape, minimum: int) -> str:
    depth, noise = float(shape.depth[minimum]), float(shape.noise[minimum])
    return with_error(depth, noise) if np.isfinite(noise) and noise > 0 else number(depth)


def _percent(share: float) -> str:
    return f"{share:.1%}" if np.isfinite(share) else "\u2013"
