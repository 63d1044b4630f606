"""Which eigenpair of one snapshot is which of the next: by the overlap of vectors, and of spaces where values are too
close to be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from analysis.results import Array
from landscape.errors import LandscapeError


@dataclass(frozen=True)
class Matching:
    """When a curve goes on from one snapshot to the next.

    `overlap` is the least |u' v|, or cosine of the largest angle to the space of a group. At least sqrt(1/2), so that
    no other vector of an orthonormal set can meet it. `closeness`: two neighbouring values are a group where their
    difference is at most this share of the largest |value|, or `residual_gaps` times the sum of their residuals (a
    vector is known to an angle of about residual / gap).
    """

    overlap: float = 0.5**0.5
    closeness: float = 0.01
    residual_gaps: float = 2.0

    def __post_init__(self) -> None:
        if not 0.5**0.5 <= self.overlap <= 1:
            raise LandscapeError(
                f"expected an overlap between 0.7071 and 1, with which no second vector can compete, got {self.overlap}"
            )
        if not (self.closeness >= 0 and self.residual_gaps >= 0):
            raise LandscapeError(
                f"expected a closeness and residual gaps of 0 or more, got {self.closeness} and {self.residual_gaps}"
            )

    def groups(self, values: Array, residuals: Array) -> list[Array]:
        """The numbers of the pairs that cannot be told apart, group by group; most groups have one."""
        order = np.argsort(-values, kind="stable")
        near = self.closeness * float(np.abs(values).max())
        groups: list[list[int]] = []
        for place, pair in enumerate(order):
            before = order[place - 1]
            limit = max(near, self.residual_gaps * float(residuals[pair] + residuals[before]))
            if place and values[before] - values[pair] <= limit:
                groups[-1].append(int(pair))
            else:
                groups.append([int(pair)])
        return [np.array(group) for group in groups]


@dataclass(frozen=True, eq=False)
class Followed:
    """The curves at one snapshot: a number, the overlap that it was continued by, and whether it is in a group, for
    each pair; and the directions [k, n] that the next snapshot is compared with.
    """

    track: Array
    match: Array
    grouped: Array
    directions: Array
    begun: int
    """How many curves there have been."""


def begin(values: Array, vectors: Array, residuals: Array, how: Matching, begun: int = 0) -> Followed:
    """New curves for all pairs of a snapshot."""
    count = len(values)
    grouped = _in_groups(how.groups(values, residuals), count)
    track = np.arange(begun, begun + count)
    return Followed(track, np.full(count, np.nan), grouped, vectors.astype(np.float64), begun + count)


def follow(before: Followed, values: Array, vectors: Array, residuals: Array, how: Matching) -> Followed:
    """The curves of the next snapshot, from its unit vectors [k, n].

    A single value continues the curve whose direction its vector overlaps most, if enough. Of a group, every curve
    whose direction lies enough in its space comes in, if all together do: the least singular value of their products
    with the group's vectors is the overlap. Inside the group a curve's direction is the orthonormal one nearest to what
    it was (the polar factor), so that a curve keeps its identity through a crossing; which value it is given is the
    best guess and marked as such. What continues nothing begins.
    """
    count = len(values)
    groups = how.groups(values, residuals)
    vectors = vectors.astype(np.float64)
    products = before.directions @ vectors.T
    track, match = np.full(count, -1), np.full(count, np.nan)
    directions = vectors.copy()
    for curves, group in _joined(products, groups, how.overlap):
        if not len(curves):
            continue
        left, cosines, right = np.linalg.svd(products[np.ix_(curves, group)], full_matrices=False)
        if cosines[-1] < how.overlap:
            continue
        turned = left @ right
        own, slots = scipy.optimize.linear_sum_assignment(-np.abs(turned))
        chosen = group[slots]
        track[chosen], match[chosen] = before.track[curves[own]], min(float(cosines[-1]), 1.0)
        if len(group) > 1:
            directions[group] = _completed(turned[own], slots, len(group)) @ vectors[group]
        else:
            directions[chosen] *= np.sign(turned[own, slots])[:, None]
    fresh = np.flatnonzero(track < 0)
    track[fresh] = before.begun + np.arange(len(fresh))
    return Followed(track, match, _in_groups(groups, count), directions, before.begun + len(fresh))


def _joined(products: Array, groups: list[Array], overlap: float) -> list[tuple[Array, Array]]:
    """The curves that go into each group: one a place at most, the best together."""
    into = np.stack([np.linalg.norm(products[:, group], axis=1) for group in groups], 1)
    places = np.concatenate([np.full(len(group), g) for g, group in enumerate(groups)])
    curves, taken = scipy.optimize.linear_sum_assignment(-(into[:, places] ** 2))
    reached = into[curves, places[taken]] >= overlap
    return [(curves[reached & (places[taken] == g)], group) for g, group in enumerate(groups)]


def _completed(rows: Array, slots: Array, size: int) -> Array:
    """An orthonormal matrix [size, size] whose rows at `slots` are given."""
    whole = np.zeros((size, size))
    whole[slots] = rows
    rest = np.setdiff1d(np.arange(size), slots)
    if len(rest):
        whole[rest] = np.linalg.svd(rows, full_matrices=True)[2][len(rows) :]
    return whole


def _in_groups(groups: list[Array], count: int) -> Array:
    grouped = np.zeros(count, bool)
    for group in groups:
        grouped[group] = len(group) > 1
    return grouped
