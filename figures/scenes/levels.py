"""Where a function over a grid has one value, as straight pieces."""

from __future__ import annotations

import numpy as np

from analysis.results import Array


def level_line(x: Array, y: Array, z: Array, level: float) -> tuple[Array, Array, Array, Array]:
    """The line z = level over a grid as pieces x0, y0, x1, y1, one or two a cell (marching squares; Lorensen, Cline).

    Linear along the edges of cells; where all four edges are crossed, the mean of the corners says which are joined. A
    cell with a corner that is not finite has none.
    """
    corners = np.stack([z[:-1, :-1], z[:-1, 1:], z[1:, 1:], z[1:, :-1]])
    places = np.meshgrid(x, y)
    around = [np.stack([p[:-1, :-1], p[:-1, 1:], p[1:, 1:], p[1:, :-1]]) for p in places]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (level - corners) / (np.roll(corners, -1, 0) - corners)
        cross = [a + share * (np.roll(a, -1, 0) - a) for a in around]
        inside = corners >= level
    crossed = (inside != np.roll(inside, -1, 0)) & np.isfinite(corners).all(0)
    pieces: list[list[float]] = []
    for j, i in np.argwhere(crossed.any(0)):
        edges = np.flatnonzero(crossed[:, j, i])
        if len(edges) == 4 and (corners[:, j, i].mean() >= level) != inside[0, j, i]:
            edges = np.roll(edges, -1)  # the middle goes with corners 1 and 3: the pieces cut off 2 and 0
        pieces += [[float(c[e, j, i]) for e in pair for c in cross] for pair in edges.reshape(-1, 2)]
    x0, y0, x1, y1 = np.array(pieces).reshape(-1, 4).T
    return x0, y0, x1, y1
