"""How far runs moved the shared parameters, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import gram, paths
from analysis.results import DistanceMatrix, Exploration, Training
from analysis.subspaces import run_of
from landscape.errors import LandscapeError
from landscape.trajectory import Rows, Trajectory


def exploration(trajectory: Trajectory) -> Exploration:
    """Net distance from the start, path length and their ratio, on the shared parameters, against every budget.

    net_s = ||theta_s - theta_0|| in float64; path lengths are those that training summed after every step and every
    update (all of them, not only the stored ones). Cost: one pass over the file, in blocks of bounded memory.

    Raises:
        LandscapeError: no shared parameters, or the trajectory does not begin at step 0.
    """
    _require_shared(trajectory)
    if trajectory.steps[0] != 0:
        raise LandscapeError(
            f"{trajectory.path} begins at step {trajectory.steps[0]}: expected its start, step 0, to measure from"
        )
    start = np.asarray(trajectory.shared[0], np.float64)
    blocks = trajectory.shared.blocks()
    net = np.concatenate([np.linalg.norm(np.asarray(block, np.float64) - start, axis=1) for block in blocks])
    return Exploration(
        run=run_of(trajectory),
        steps=trajectory.steps,
        updates=trajectory.updates,
        gradients=trajectory.gradients,
        seconds=trajectory.seconds,
        movement=trajectory.movement,
        net=net,
        path_steps=trajectory.path_steps,
        path_updates=trajectory.path_updates,
        start_norm=float(np.linalg.norm(start)),
    )


def between_last(trajectories: Sequence[Trajectory]) -> DistanceMatrix:
    """Distances between the last snapshots of several runs, on the shared parameters.

    From one float64 Gram matrix of the centred rows, see `analysis.gram.distances`. Cost: one pass over the rows
    concerned, two where some of them nearly coincide.
    """
    if not trajectories:
        raise LandscapeError("expected at least one trajectory, got none")
    _require_shared(trajectories[0])
    for other in trajectories[1:]:
        trajectories[0].layout.require(other.layout, str(other.path))
    last = [_row(t, len(t) - 1) for t in trajectories]
    labels = tuple(t.name for t in trajectories)
    distance = gram.distances(last, np.full(len(last), 1 / len(last)))
    return DistanceMatrix(labels=labels, distance=distance, what="last snapshots, shared parameters")


def between_snapshots(trajectory: Trajectory) -> DistanceMatrix:
    """Distances between all snapshots of one run, on the shared parameters, from the inner products of its increments:
    neighbours keep their digits however far they have come. Cost: one pass over the file.
    """
    _require_shared(trajectory)
    products = np.zeros((len(trajectory) - 1, len(trajectory) - 1))
    for _, block in gram.column_blocks([trajectory.shared]):
        moved = np.diff(block, axis=0)
        products += moved @ moved.T
    labels = tuple(f"step {step}" for step in trajectory.steps)
    return DistanceMatrix(
        labels=labels,
        distance=np.sqrt(paths.from_increments(products)),
        what=f"snapshots of {trajectory.name}, shared parameters",
    )


def training(trajectory: Trajectory) -> Training:
    """What a run recorded about its own learning, as a record for figures."""
    return Training(
        run=run_of(trajectory),
        tasks=trajectory.tasks,
        metrics=trajectory.provenance.metrics,
        steps=trajectory.steps,
        updates=trajectory.updates,
        gradients=trajectory.gradients,
        seconds=trajectory.seconds,
        losses=trajectory.losses,
        scores=trajectory.metrics,
        batch_steps=trajectory.history.step,
        batch_losses=trajectory.history.losses,
    )


def _require_shared(trajectory: Trajectory) -> None:
    if not trajectory.layout.count():
        raise LandscapeError(
            f"{trajectory.path} has no shared parameters: expected some that several tasks' gradients reach"
        )


def _row(trajectory: Trajectory, row: int) -> Rows:
    shared = trajectory.shared
    return Rows((1, shared.shape[1]), shared.dtype, lambda _, columns: shared.read(slice(row, row + 1), columns))
