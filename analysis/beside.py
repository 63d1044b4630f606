"""A run's measures beside those of random walks with its step lengths: how often a walk does as much."""

from __future__ import annotations

import numpy as np

from analysis import diffusion, nulls, paths
from analysis.movement import Moved
from analysis.results import Array, BesideWalk
from landscape.randomness import generator

WALKED = ("net", "ratio", "turning", "exponent", "radius", "dimension", "volume")
"""Measures that a walk does not take over from the run: step lengths and so path and speed are the run's own."""


def share_beyond(values: Array, draws: Array) -> tuple[Array, Array]:
    """Shares of draws [draw, measure] at or above and at or below values [measure], the value itself counted in.

    (1 + count) / (1 + draws), which is a p-value and never 0 (Phipson and Smyth, 2010); NaN where a value is.
    """
    known, count = np.isfinite(values) | np.isinf(values), len(draws)
    above, below = ((1 + hits.sum(0)) / (1 + count) for hits in (draws >= values, draws <= values))
    return np.where(known, above, np.nan), np.where(known, below, np.nan)


def beside_walks(moved: Moved, draws: int, seed: int) -> BesideWalk | None:
    """The measures of a whole path beside those of `draws` random walks; None where there is no path or no draw.

    A walk has the run's step lengths between snapshots and the subset's dimension; its directions are independent.
    The walks are those of `nulls.draw` with the same seed. Cost: draws x S^2 operations and an eigenvalue problem a
    draw.
    """
    found = moved.displacements
    if found is None or not draws:
        return None
    lags = diffusion.lags(found.steps)
    directions = moved.movement.directions
    walks = nulls.Walks(paths.lengths(found.squares), moved.movement.parameters, draws, seed)
    rng = generator(seed, "random walks")
    values = _whole(found.squares, lags, directions)
    drawn = np.stack([_whole(nulls.one(walks, rng), lags, directions) for _ in range(draws)])
    above, below = share_beyond(values, drawn)
    names = moved.movement.measures
    return BesideWalk(
        run=moved.movement.run,
        subset=moved.movement.subset,
        form=moved.movement.form,
        measures=WALKED,
        units=tuple(moved.movement.units[names.index(name)] for name in WALKED),
        values=values,
        draws=drawn,
        above=above,
        below=below,
        dimension=moved.movement.parameters,
        seed=seed,
    )


def _whole(squares: Array, lags: diffusion.Lags, directions: int) -> Array:
    """The measures of a whole path [measure] from its squared distances [S, S]."""
    net, last = float(np.sqrt(squares[0, -1])), len(squares) - 1
    found = {
        "net": net,
        "ratio": float(paths.path(squares)[-1]) / net if net > 0 else np.nan,
        "turning": paths.mean_angle(squares)[-1],
        "exponent": lags.exponents(squares)[-1],
        "radius": paths.radius(squares)[-1],
        "dimension": paths.dimension(squares)[-1],
        "volume": paths.volume(squares, directions, np.array([last]))[-1],
    }
    return np.array([found[name] for name in WALKED], np.float64)
