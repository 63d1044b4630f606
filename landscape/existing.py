"""What a recorder does with a file that is there already: choices, as objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from landscape import store
from landscape.errors import LandscapeError
from landscape.trajectory import Array, Layout, Provenance, Trajectory


@dataclass(frozen=True, eq=False)
class Now:
    """The state that a recording is about to begin with: theta as the file keeps it, and buffers."""

    who: Provenance
    layout: Layout
    row: Array
    buffers: Array


class Existing(Protocol):
    """Decides on a file that is there: what it holds is continued, or replaced, or neither."""

    replaces: ClassVar[bool]

    def continued(self, path: Path, now: Now) -> Trajectory | None:
        """The recording in the file, where it is the one to go on with."""
        ...


@dataclass(frozen=True)
class Refuse:
    """An error, and the file is left alone."""

    replaces: ClassVar[bool] = False

    def continued(self, path: Path, now: Now) -> Trajectory | None:
        raise LandscapeError(
            f"{path} exists already: expected a new file; choose another name or remove it, or give "
            "existing=landscape.Overwrite() or landscape.Resume()"
        )


@dataclass(frozen=True)
class Overwrite:
    """A new recording takes the file's place when its first snapshot is on the disk, not before."""

    replaces: ClassVar[bool] = True

    def continued(self, path: Path, now: Now) -> Trajectory | None:
        return None


@dataclass(frozen=True)
class Resume:
    """The recording goes on where the file ends, complete or interrupted: steps, updates, gradients, seconds and path
    lengths are counted on.

    The model has to be where the file ends. One that has moved on since the last snapshot, as after an interruption,
    is refused: load that snapshot's weights, or record into another file.
    """

    replaces: ClassVar[bool] = False

    def continued(self, path: Path, now: Now) -> Trajectory | None:
        there = store.require_same(path, now.who, now.layout)
        last = len(there) - 1
        rows = there.theta if there.sketch is None else there.sketch.rows
        theta, buffers = rows[last], there.buffers[last]
        moved = float(np.linalg.norm(np.asarray(now.row[: len(theta)], np.float64) - theta))
        what = f"theta, {moved:.3g} away" if moved else "buffers"
        if moved or not np.array_equal(buffers, now.buffers, equal_nan=True):
            raise LandscapeError(
                f"the model is not where {path} ends: expected the state of step {there.steps[last]}, got other {what}"
                "; load that state to go on, record into another file, or give existing=landscape.Overwrite()"
            )
        return there
