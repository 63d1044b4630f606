"""The minima of a function on a grid by 0-dimensional persistence: how deep each is before its basin joins a deeper
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results import Array


@dataclass(frozen=True)
class Minimum:
    """A local minimum and the lowest point over which its basin is left for a deeper one; places are (j, i)."""

    place: tuple[int, int]
    joins: tuple[int, int]
    value: float
    depth: float
    """The rise from the one to the other, its persistence."""


def minima(values: Array) -> tuple[Minimum, ...]:
    """The minima of values [ny, nx], deepest first: the branches of the merge tree.

    Points join those of their eight neighbours that are there already, in the order of their values, equal ones by
    position; where basins meet, the ones with the higher minima end (the elder rule; Edelsbrunner, Letscher and
    Zomorodian 2002). Points that are not finite are walls. A basin that never ends is as deep as the largest finite
    value is high. Minima of no depth are left out unless their basin never ends, so that a plateau counts once.

    Cost: n log n for n points.
    """
    padded = np.pad(np.asarray(values, np.float64), 1, constant_values=np.nan)
    width, flat = padded.shape[1], padded.ravel()
    around = [dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    finite = np.flatnonzero(np.isfinite(flat))
    order = finite[np.argsort(flat[finite], kind="stable")].tolist()
    rank = {point: k for k, point in enumerate(order)}
    lower: dict[int, int] = {}  # a point of the same basin that joined before; the minimum itself at its root

    def root(point: int) -> int:
        while lower[point] != point:
            lower[point] = point = lower[lower[point]]
        return point

    ends: dict[int, int] = {}
    for point in order:
        met = sorted({root(point + step) for step in around if point + step in lower}, key=rank.__getitem__)
        lower[point] = met[0] if met else point
        for younger in met[1:]:
            lower[younger] = met[0]
            ends[younger] = point
    lasting = {point: order[-1] for point in order if lower[point] == point}
    pairs = [(p, q) for p, q in ends.items() if flat[q] > flat[p]] + list(lasting.items())
    pairs.sort(key=lambda pair: (flat[pair[0]] - flat[pair[1]], rank[pair[0]]))

    def place(point: int) -> tuple[int, int]:
        return point // width - 1, point % width - 1

    return tuple(Minimum(place(p), place(q), float(flat[p]), float(flat[q] - flat[p])) for p, q in pairs)
