"""What planes and lines have in common: their points, and the coordinates of points beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from analysis.heads import CentreHeads, PlaneHeads
from analysis.results import Array, Line, Plane, Run, Subspace
from analysis.subsets import Everything, Subset
from landscape.errors import LandscapeError
from landscape.trajectory import Layout, Trajectory

Space = TypeVar("Space", Plane, Line)


@dataclass(frozen=True, eq=False)
class Place:
    """A snapshot of a trajectory, by its row."""

    run: Trajectory
    row: int = -1

    @property
    def theta(self) -> Array:
        """[P] in float64"""
        return np.asarray(self.run.theta[self.row], np.float64)

    @property
    def buffers(self) -> Array:
        """[Q]"""
        return np.asarray(self.run.buffers[self.row])

    @property
    def words(self) -> str:
        """`step 600 of independent-0`"""
        return f"step {self.run.steps[self.row]} of {self.run.name}"


@dataclass(frozen=True, eq=False)
class Frame:
    """What a subspace has beside its directions: where it begins, and which parameters it is about."""

    origin: Array
    buffers: Array
    layout: Layout
    subset: Subset = Everything()
    heads: PlaneHeads = CentreHeads()

    @classmethod
    def at(cls, place: Place, subset: Subset = Everything(), heads: PlaneHeads = CentreHeads()) -> Frame:
        """A frame that begins at a snapshot."""
        return cls(place.theta, place.buffers, place.run.layout, subset, heads)

    @property
    def spans(self) -> tuple[slice, ...]:
        """The subset's slices of theta."""
        return self.subset.spans(self.layout)


def build(kind: type[Space], frame: Frame, directions: Array, recipe: str, **more: Any) -> Space:
    """A plane or a line from directions [k, P]; outside the subset the head policy decides what is left of them.

    Raises:
        LandscapeError: a direction without length, or two that lie on one line (with their cosine).
    """
    spans = frame.spans
    inner = restricted(directions, spans)
    whole = sum(span.stop - span.start for span in spans) == frame.layout.size
    basis = directions if whole else frame.heads.follow(directions, spans)
    with np.errstate(over="ignore", invalid="ignore"):
        gram = inner @ inner.T
    _require_independent(gram, recipe)
    return kind(
        origin=frame.origin,
        basis=basis,
        gram=gram,
        buffers=frame.buffers,
        recipe=recipe if whole else f"{recipe}, of the parameters: {frame.subset.label}",
        layout=frame.layout.hash,
        subset=frame.subset.label,
        spans=np.zeros((0, 2), np.int64) if whole else np.array([[s.start, s.stop] for s in spans], np.int64),
        heads=frame.heads.label,
        **{"seed": -1, **more},
    )


def _require_independent(gram: Array, recipe: str) -> None:
    lengths = np.sqrt(np.diag(gram))
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise LandscapeError(
            f"a direction of the {recipe} has the length {float(lengths.min()):g}: expected directions with a finite "
            "length above zero; choose others"
        )
    if len(gram) == 2:
        cosine = float(gram[0, 1] / lengths.prod())
        if abs(cosine) > 1 - 1e-10:
            raise LandscapeError(
                f"the two directions of the {recipe} lie on one line: expected two that span a plane, got the cosine "
                f"{cosine:.12g}; choose others"
            )


def restricted(vectors: Array, spans: Sequence[slice]) -> Array:
    """The entries of some slices side by side, [..., n] from [..., P]; no copy where one slice holds all."""
    if len(spans) == 1:
        return vectors[..., spans[0]]
    return np.concatenate([vectors[..., span] for span in spans], axis=-1)


def spans_of(space: Subspace) -> tuple[slice, ...]:
    """The slices of theta that a subspace is about."""
    if not len(space.spans):
        return (slice(0, space.origin.size),)
    return tuple(slice(int(start), int(stop)) for start, stop in space.spans)


def point(space: Subspace, *coordinates: float) -> Array:
    """Theta [P] at some coordinates, in float64."""
    return np.asarray(space.origin + np.asarray(coordinates, np.float64) @ space.basis)


@dataclass(frozen=True, eq=False)
class Beside:
    """Some points seen from a subspace; see `analysis.results.Shadow`."""

    coordinates: Array
    off: Array
    away: Array
    elsewhere: Array


def beside(space: Subspace, thetas: Array) -> Beside:
    """Least-squares coordinates [n, k] of points [n, P], and their distances off the subspace, from its origin, and
    from the subspace's point below in the parameters outside the subset, all in float64.
    """
    moved = np.asarray(thetas, np.float64) - space.origin
    spans = spans_of(space)
    inner, basis = restricted(moved, spans), restricted(space.basis, spans)
    coordinates = inner @ basis.T @ inverse_gram(space.gram)
    off = np.linalg.norm(inner - coordinates @ basis, axis=1)
    outer = np.delete(np.arange(space.origin.size), np.r_[spans])
    left = moved[:, outer] - coordinates @ space.basis[:, outer]
    return Beside(coordinates, off, np.linalg.norm(inner, axis=1), np.linalg.norm(left, axis=1))


def inverse_gram(gram: Array) -> Array:
    """The inverse of a Gram matrix, scaled to unit lengths first."""
    lengths = np.sqrt(np.diag(gram))
    if not lengths.all() or (len(gram) == 2 and not abs(gram[0, 1]) < (1 - 1e-13) * lengths.prod()):
        raise LandscapeError(
            f"the plane's directions lie on one line: expected two that span a plane, got the Gram matrix "
            f"{gram.tolist()}"
        )
    return np.asarray(np.linalg.inv(gram / np.outer(lengths, lengths)) / np.outer(lengths, lengths))


def require_layout(space: Subspace, layout: Layout) -> None:
    """Raises unless a plane or a line was made for this layout."""
    if space.layout != layout.hash:
        raise LandscapeError(
            f"the {type(space).__name__.lower()} belongs to another model: expected layout {layout.hash} "
            f"({layout.describe()}), got {space.layout} with {space.origin.size} entries"
        )


def run_of(trajectory: Trajectory) -> Run:
    """The label that results carry for a trajectory."""
    who = trajectory.provenance
    return Run(who.label, who.strategy, who.seed, trajectory.start)


def require_one_layout(trajectories: Sequence[Trajectory]) -> None:
    """Raises unless there is a trajectory, and all of them are of one model."""
    if not trajectories:
        raise LandscapeError("expected at least one trajectory, got none")
    for other in trajectories[1:]:
        trajectories[0].layout.require(other.layout, str(other.path))
