"""Planes and lines, trajectories seen in them, and how far the picture can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from analysis.results.base import Array, Record, Run, array, names


@dataclass(frozen=True, eq=False, kw_only=True)
class Subspace(Record):
    """The points theta = origin + sum_k x_k basis[k]; the basis need not be orthonormal.

    Coordinates of a point are least squares over the parameters that the subspace is about, its *subset* S:
    x = gram^-1 basis_S (theta - origin)_S, gram = basis_S basis_S^T. Outside S the basis is zero, unless the heads
    are interpolated: then they follow the coordinates that the subset gives.
    """

    origin: Array = array("parameter", units="parameter")
    basis: Array = array("axis", "parameter", units="parameter")
    gram: Array = array("axis", "axis_", units="parameter^2")
    buffers: Array = array("buffer")
    """Non-trainable state (batch-norm statistics) at the origin."""
    recipe: str
    """How it was made, in words."""
    axes: tuple[str, ...] = names("axis")
    """What each axis is, for labels."""
    seed: int
    """Seed of random directions, -1 where nothing was drawn."""
    layout: str
    """Hash of the layout of theta, so that a plane is not used with another model."""
    subset: str = "all"
    """The parameters that it is about, in words: `all`, `shared`, a task's head, or patterns."""
    spans: Array = field(
        default_factory=lambda: np.zeros((0, 2), np.int64), metadata={"dims": ("span", "end"), "units": "1"}
    )
    """First and past-the-last position in theta of the subset's neighbouring entries; empty for all of theta."""
    heads: str = "centre"
    """What the heads do over a plane of the shared parameters: `centre`, `interpolated`; see `analysis.heads`."""

    DIMENSIONS: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.basis) != self.DIMENSIONS:
            raise ValueError(
                f"{type(self).__name__}.basis needs {self.DIMENSIONS} directions, got shape {self.basis.shape}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Plane(Subspace):
    """The points theta = origin + x basis[0] + y basis[1]."""

    explained: Array = array("axis")
    """Share of the variance of the trajectories along each axis; NaN where the recipe has no such share."""

    DIMENSIONS: ClassVar[int] = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Line(Subspace):
    """The points theta = origin + x basis[0]."""

    DIMENSIONS: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Shadow(Record):
    """A trajectory seen in a plane: least-squares coordinates and the distance off the plane of each snapshot."""

    run: Run
    steps: Array = array("snapshot", units="step")
    coordinates: Array = array("snapshot", "axis")
    off_plane: Array = array("snapshot", units="parameter")
    """||theta - (origin + x basis[0] + y basis[1])||, over the plane's subset of the parameters."""
    from_origin: Array = array("snapshot", units="parameter")
    """||theta - origin|| over the same, to set the distance off the plane against."""
    elsewhere: Array = array("snapshot", units="parameter")
    """The distance from the plane's point below over the parameters outside the subset; zero where it is all."""
    losses: Array = array("snapshot", "task", units="loss")
    """The true loss of every task at the snapshot, which is not the plane's loss below it."""
    tasks: tuple[str, ...] = names("task")


@dataclass(frozen=True, eq=False, kw_only=True)
class Feet(Record):
    """The true loss of a run's snapshots beside the plane's loss at their feet, the nearest points of the plane.

    gap = true - foot; its standard error is paired over examples. It is the effect of being off the plane. True is
    with the snapshot's own heads and buffers, the foot with what a surface of the plane has there.
    """

    run: Run
    tasks: tuple[str, ...] = names("task")
    steps: Array = array("snapshot", units="step")
    true: Array = array("snapshot", "task", units="loss")
    foot: Array = array("snapshot", "task", units="loss")
    gap_stderr: Array = array("snapshot", "task", units="loss")
    average_gap_stderr: Array = array("snapshot", units="loss")
    """Of the average over tasks of each example's gaps."""
    off_plane: Array = array("snapshot", units="parameter")
    subset: str
    """The parameters that the plane is about, see `Subspace`; what is outside makes a gap but no distance."""
    examples: int
    split: str
    """Which examples: `evaluation` or `training`."""
    batch_norm: str
    """What was done with normalisation statistics at the feet, see `Values`."""
    heads: str
    """What was done with the heads at the feet, see `Values`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Faithfulness(Record):
    """How much of some runs a plane shows, beside what it would show of random walks with the same steps.

    Runs are rows, the last one all of them together. Variance is about the plane's origin, runs weighted equally;
    distance is path length, sum_s ||projected step|| / sum_s ||step||, over the stored snapshots. The walks have the
    runs' starts and step lengths, and are seen in their own best plane: mean and standard deviation over draws.
    """

    runs: tuple[str, ...] = names("run")
    axes: tuple[str, ...] = names("axis")
    """The orthonormal axes that variance is counted along: where the plane's are oblique, the second one is made
    orthogonal to the first.
    """
    variance: Array = array("run", "axis")
    """Share of the variance along each axis."""
    walk_variance: Array = array("run", "axis")
    walk_variance_spread: Array = array("run", "axis")
    distance: Array = array("run")
    """Share of the distance travelled that the plane shows; NaN for a run that does not move."""
    walk_distance: Array = array("run")
    walk_distance_spread: Array = array("run")
    dimension: int
    """Parameters that the walks move in, those of the plane's subset."""
    draws: int
    seed: int

    @property
    def null_variance(self) -> Array:
        """What the walks show of their variance, all runs together, [axis]."""
        return np.asarray(self.walk_variance[-1])

    @property
    def null_spread(self) -> Array:
        """The standard deviation of `null_variance` over draws, [axis]."""
        return np.asarray(self.walk_variance_spread[-1])

    @property
    def null_distance(self) -> float:
        """What the walks show of their distance, all runs together."""
        return float(self.walk_distance[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaneStability(Record):
    """How a principal plane turns when snapshots or runs are left out: principal angles to the plane of all."""

    left_out: tuple[str, ...] = names("case")
    """What each case lacks: a run, by its name, or a share of the snapshots of every run."""
    angles: Array = array("case", "angle", units="degree")
    """The smaller and the larger principal angle; 90 where the two planes share no direction, NaN where what is left
    spans no plane.
    """
