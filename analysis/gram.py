"""Inner products between all snapshots of several trajectories, in one pass over the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from analysis.results import Array
from landscape.errors import LandscapeError
from landscape.trajectory import Rows

COLUMNS = 1 << 18
"""Columns read at once, the width of a stored chunk: memory is bounded by snapshots x COLUMNS x 8 bytes."""

CLOSE = 1e-6
"""Squared distances below this share of those from the centre have lost more than six of their sixteen digits."""


def column_blocks(arrays: Sequence[Rows]) -> Iterator[tuple[slice, Array]]:
    """The rows of all arrays stacked, [S_1 + S_2 + ..., columns] in float64, block by block over the columns."""
    width = arrays[0].shape[1]
    for start in range(0, width, COLUMNS):
        columns = slice(start, min(start + COLUMNS, width))
        yield columns, np.concatenate([np.asarray(rows[:, columns], np.float64) for rows in arrays])


def centred_gram(
    arrays: Sequence[Rows], weights: Array, centre: Callable[[Array], Array] | None = None
) -> tuple[Array, Array]:
    """Gram matrix of the centred rows, G_ij = (theta_i - c)' (theta_j - c) in float64, and the centre c [P].

    c is the weighted mean of the rows (weights [S] sum to one), or what `centre` makes of a block of columns. The rows
    are centred before they are multiplied, so that snapshots that differ by little keep their digits.
    Cost: one pass over the files.
    """
    total = sum(len(rows) for rows in arrays)
    gram, middle = np.zeros((total, total)), np.zeros(arrays[0].shape[1])
    for columns, block in column_blocks(arrays):
        middle[columns] = weights @ block if centre is None else centre(block)
        centred = block - middle[columns]
        gram += centred @ centred.T
    return gram, middle


def squared_distances(gram: Array) -> Array:
    """||theta_i - theta_j||^2 = G_ii + G_jj - 2 G_ij, with rounding below zero removed."""
    diagonal = np.diag(gram)
    squares: Array = np.maximum(diagonal[:, None] + diagonal[None, :] - 2 * gram, 0.0)
    return squares


def distances(arrays: Sequence[Rows], weights: Array, centre: Callable[[Array], Array] | None = None) -> Array:
    """||theta_i - theta_j|| between all rows, from their centred Gram matrix; see `apart`."""
    gram, _ = centred_gram(arrays, weights, centre)
    first, second = np.triu_indices(len(gram), 1)
    found = np.zeros(gram.shape)
    found[first, second] = found[second, first] = np.sqrt(apart(gram, arrays, first, second))
    return found


def apart(gram: Array, arrays: Sequence[Rows], first: Array, second: Array) -> Array:
    """||theta_i - theta_j||^2 of some pairs of rows, from the centred Gram matrix of all.

    Pairs that lie so close together, set against their distance from the centre, that this loses their digits are
    subtracted. Cost: another pass over the files where there are such pairs.
    """
    squares, diagonal = squared_distances(gram)[first, second], np.diag(gram)
    with np.errstate(invalid="ignore"):
        near = np.flatnonzero(squares < CLOSE * (diagonal[first] + diagonal[second]))
    if len(near):
        found = np.zeros(len(near))
        for _, block in column_blocks(arrays):
            found += [np.square(block[first[k]] - block[second[k]]).sum() for k in near]
        squares[near] = found
    return np.asarray(squares)


def require_finite(gram: Array) -> None:
    """Refuses the products of snapshots that are not finite."""
    if not np.isfinite(gram).all():
        raise LandscapeError(
            "some snapshots are not finite: expected finite parameters for a principal plane; leave out the runs that "
            "diverged"
        )
