"""Several random planes or lines through one point: what all draws show, and what only one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from analysis import directions, surfaces
from analysis.points import Conditions
from analysis.results import AVERAGE, Array, Line, Plane, Profile, ProfileEnsemble, Surface, SurfaceEnsemble
from analysis.subsets import Everything, Subset
from analysis.subspaces import Place
from landscape.errors import LandscapeError
from landscape.problem import Problem

Kind = TypeVar("Kind", Surface, Profile)

BOUNDS = (0.1, 0.9)
"""The quantiles that are kept beside the median."""


def surfaces_of(
    problem: Problem,
    place: Place,
    seeds: Sequence[int],
    grid: surfaces.Grid,
    conditions: Conditions = Conditions(),
    subset: Subset = Everything(),
) -> Iterator[Surface]:
    """The surfaces over the random filter-normalised planes through a snapshot that these seeds draw, one by one.

    Cost: one forward pass of the examples a point of each, and one for each centre.
    """
    for seed in seeds:
        yield surfaces.measure(problem, directions.random(place, seed, subset), grid, conditions)


def profiles_of(
    problem: Problem,
    place: Place,
    seeds: Sequence[int],
    x: Sequence[float],
    conditions: Conditions = Conditions(),
    subset: Subset = Everything(),
) -> Iterator[Profile]:
    """The same along random filter-normalised lines, at coordinates `x`."""
    for seed in seeds:
        yield surfaces.profile(problem, directions.random_line(place, seed, subset), x, conditions)


def summary(members: Sequence[Surface], quantiles: tuple[float, float] = BOUNDS) -> SurfaceEnsemble:
    """Median and two quantiles over the draws, at every point, of each task's loss and of the average of the tasks.

    All follow numpy's rules, quantiles linear between the sorted losses: a point that one member lacks, or where its
    loss is NaN, is NaN in all three; an infinite loss leaves the median alone where most members are finite, and makes
    a quantile beside it infinite or NaN.

    Raises:
        LandscapeError: fewer than two members, two of one seed, or members of different grids, tasks, places, data or
            conditions.
    """
    first = _alike(members)
    return SurfaceEnsemble(x=first.x, y=first.y, **_summary(members, quantiles))


def summary_of_profiles(members: Sequence[Profile], quantiles: tuple[float, float] = BOUNDS) -> ProfileEnsemble:
    """The same along lines."""
    return ProfileEnsemble(x=_alike(members).x, **_summary(members, quantiles))


def _summary(members: Sequence[Surface] | Sequence[Profile], quantiles: tuple[float, float]) -> dict[str, Any]:
    low, high = quantiles
    if not 0 <= low <= 0.5 <= high <= 1:
        raise LandscapeError(f"expected a quantile of at most and one of at least one half, got {low:g} and {high:g}")
    views = np.stack([_views(member) for member in members])
    with np.errstate(invalid="ignore"):  # infinite losses
        middle, (bottom, top) = np.median(views, axis=0), np.quantile(views, quantiles, axis=0)
    tasks, one = members[0].tasks, members[0]
    return {
        "tasks": (*tasks, AVERAGE) if len(tasks) > 1 else tasks,
        "median": middle,
        "low": bottom,
        "high": top,
        "quantiles": np.array(quantiles, np.float64),
        "seeds": np.array([_space(member).seed for member in members], np.int64),
        "recipe": _space(one).recipe,
        "examples": one.examples,
        "data": one.data,
        "split": one.split,
    }


def _alike(members: Sequence[Kind]) -> Kind:
    """The first member, if the others are of the same points and conditions."""
    if len(members) < 2:
        raise LandscapeError(f"expected two or more draws for an ensemble, got {len(members)}; draw more")
    first = _common(members[0])
    for other in map(_common, members[1:]):
        for what, mine in first.items():
            if not all(map(np.array_equal, mine, other[what])):
                raise LandscapeError(
                    f"the members of an ensemble have different {what}: expected several draws through one snapshot, "
                    "measured on one grid under the same conditions"
                )
    seeds = [_space(member).seed for member in members]
    if len(set(seeds)) < len(seeds):
        raise LandscapeError(f"expected a seed of its own for every draw, got {', '.join(map(str, seeds))}")
    return members[0]


def _common(member: Surface | Profile) -> dict[str, tuple[Any, ...]]:
    """What all members have to have in common."""
    space = _space(member)
    return {
        "tasks": (member.tasks,),
        "grids": (member.x, member.y) if isinstance(member, Surface) else (member.x,),
        "places": (space.layout, space.origin, space.buffers),
        "kinds of directions": (space.subset, space.recipe),
        "examples": (member.data, member.examples),
        "conditions": (member.batch_norm, member.heads),
    }


def _space(member: Surface | Profile) -> Plane | Line:
    return member.plane if isinstance(member, Surface) else member.line


def _views(member: Surface | Profile) -> Array:
    """Losses of the tasks and of their average [V, ...]; NaN where a point is not done."""
    loss = np.where(member.done, member.loss, np.nan)
    return loss if len(loss) == 1 else np.concatenate([loss, loss.mean(0, keepdims=True)])
