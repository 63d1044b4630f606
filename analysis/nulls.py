"""The random walk with a path's step lengths in its dimension: what every measure is where there is no direction.

theta_i = sum over k <= i of l_k u_k, with u_k independent and uniform on the unit sphere. E||theta_j - theta_i||^2 is
the sum of l_k^2 between them in every dimension; every angle between increments is 90 degrees on average, with the
cosine's law (1 + cos) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2). In very many dimensions the directions are orthogonal, and
every measure is that of one fixed set of distances, which is the expectation given here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy

from analysis import paths, walks
from analysis.diffusion import Lags
from analysis.results import Array
from landscape.randomness import generator

QUANTILES = (0.025, 0.5, 0.975)
POINTS = 20
"""Snapshots at which the walks are measured: evenly spread, with the last."""
MOST_DIMENSIONS = 1 << 40

Measures: TypeAlias = Callable[[Array], dict[str, Array]]
"""Measures of squared distances, each at every snapshot."""


@dataclass(frozen=True, eq=False)
class Walks:
    """Which walks are drawn: step lengths [S - 1], dimension, number and seed."""

    lengths: Array
    dimension: int
    draws: int
    seed: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """What random walks measure at some snapshots."""

    points: Array
    """[N] rows"""
    quantiles: tuple[dict[str, Array], dict[str, Array], dict[str, Array]]
    """2.5 %, 50 % and 97.5 % of every measure [N]; empty where nothing was drawn."""
    expected: dict[str, Array]
    msd: Array
    """[3, L] the same quantiles of the mean-squared displacement"""
    expected_msd: Array
    draws: int
    seed: int


def draw(asked: Walks, lags: Lags, measures: Measures, directions: int) -> Drawn:
    """Draws walks and measures each as the path was measured. Cost: draws x S^3 operations."""
    count = len(asked.lengths) + 1
    points = paths.leading_points(count, POINTS)

    def measured(squares: Array) -> dict[str, Array]:
        found = measures(squares) | {"volume": paths.volume(squares, directions, points)}
        return {name: values[points] for name, values in found.items()}

    flat = orthogonal(asked.lengths)
    expected, expected_msd = measured(flat), lags.curve(flat)
    rows, curves = [], []
    rng = generator(asked.seed, "random walks")
    for _ in range(asked.draws):
        squares = one(asked, rng)
        rows.append(measured(squares))
        curves.append(lags.curve(squares))
    quantiles = [{name: _quantile([row[name] for row in rows], q) for name in expected if rows} for q in QUANTILES]
    msd = [_quantile(curves, q) if rows else np.full(len(lags.values), np.nan) for q in QUANTILES]
    return Drawn(
        points,
        (quantiles[0], quantiles[1], quantiles[2]),
        expected,
        np.stack(msd),
        expected_msd,
        asked.draws,
        asked.seed,
    )


def orthogonal(lengths: Array) -> Array:
    """Squared distances [S, S] of a walk whose directions are orthogonal; their expectation in any dimension."""
    return paths.from_increments(np.diag(lengths**2))


def one(asked: Walks, rng: np.random.Generator) -> Array:
    """Squared distances [S, S] of one walk."""
    dimension = int(min(max(asked.dimension, 1), MOST_DIMENSIONS))
    return paths.of_points(walks.walk(walks.Paces(np.zeros((1, 1)), (asked.lengths,), dimension), rng))


def angle_quantiles(dimension: int) -> tuple[float, float]:
    """Quantiles 0.025 and 0.975 in degrees of the angle between two independent directions."""
    if dimension < 2:
        return 0.0, 180.0
    half = (dimension - 1) / 2
    cosine = 2 * float(scipy.stats.beta.ppf(QUANTILES[2], half, half)) - 1
    low = float(np.degrees(np.arccos(cosine)))
    return low, 180.0 - low


def _quantile(rows: list[Array], quantile: float) -> Array:
    """Order statistics, which minus infinity does not spoil."""
    return np.asarray(np.quantile(np.stack(rows), quantile, axis=0, method="closest_observation"))
