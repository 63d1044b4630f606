"""Tests that a study makes on its own numbers, against something that cannot share their mistake."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from analysis.results import Array, Check, Plane, Surface
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Trajectory


def recorded_losses(problem: Problem, trajectories: Sequence[Trajectory]) -> Check:
    """The evaluation losses in the files against a new evaluation of the last snapshots. One evaluation a run."""
    worst = 0.0
    for trajectory in trajectories:
        theta = torch.tensor(trajectory.theta[-1], dtype=problem.dtype, device=problem.device)
        again = problem.evaluate(theta, torch.tensor(trajectory.buffers[-1])).losses.cpu().numpy()
        worst = max(worst, _apart(again, trajectory.losses[-1]))
    return Check(
        "losses of the last snapshots, recorded and evaluated again", worst, 1e-5, "rounding of the model's precision"
    )


def plain_loop(problem: Problem, surface: Surface, points: int = 3, seed: int = 0) -> Check:
    """Some points of a surface against a module whose weights are set and that is called in a plain loop."""
    rng, worst = generator(seed, "plain loop"), 0.0
    for _ in range(points):
        j, i = int(rng.integers(len(surface.y))), int(rng.integers(len(surface.x)))
        theta = surface.plane.origin + surface.x[i] * surface.plane.basis[0] + surface.y[j] * surface.plane.basis[1]
        module = problem.module(
            torch.tensor(theta, dtype=problem.dtype, device=problem.device), torch.tensor(surface.plane.buffers)
        )
        worst = max(worst, _apart(_set_and_run(problem, module), surface.loss[:, j, i]))
    return Check(
        f"surface at {points} points, against a module with these weights in a plain loop",
        worst,
        1e-5,
        "rounding of the model's precision",
    )


def _set_and_run(problem: Problem, module: torch.nn.Module) -> Array:
    module.eval()
    with torch.no_grad():
        output = module(problem.evaluation.inputs)
    parts = (
        list(output.values())
        if isinstance(output, dict)
        else list(output)
        if isinstance(output, tuple | list)
        else [output]
    )
    by_name = output if isinstance(output, dict) else dict(zip(problem.names, parts, strict=True))
    rows = zip(problem.tasks, problem.evaluation.targets, strict=True)
    return np.array([float(task.loss(by_name[task.name], target).detach().double().mean()) for task, target in rows])


def point_and_shadow(plane: Plane, seed: int = 0) -> Check:
    """Coordinates of a point that was made from coordinates: the plane's Gram matrix and basis belong together."""
    given = generator(seed, "shadow").standard_normal(2)
    theta = plane.origin + given @ plane.basis
    found = np.linalg.solve(plane.gram, plane.basis @ (theta - plane.origin))
    return Check(
        "coordinates of a point made from coordinates",
        _apart(found, given),
        1e-9,
        "float64, Gram matrix well conditioned",
    )


def same_start(trajectories: Sequence[Trajectory]) -> Check:
    """Largest distance between the starts of runs with the same seed: strategies are compared from one place."""
    starts = {t.provenance.seed: np.asarray(t.theta[0], np.float64) for t in trajectories}
    worst = max(float(np.linalg.norm(t.theta[0] - starts[t.provenance.seed])) for t in trajectories)
    return Check("distance between the starts of runs with the same seed", worst, 0.0, "the same bytes")


def path_bounds(trajectories: Sequence[Trajectory]) -> Check:
    """net <= path over steps <= path over updates (triangle inequality), by how much it is violated at most,
    relative.
    """
    beyond, tiny = [0.0], float(np.finfo(np.float64).tiny)
    for t in trajectories:
        net = float(np.linalg.norm(np.asarray(t.shared[-1], np.float64) - t.shared[0]))
        steps, updates = float(t.path_steps[-1]), float(t.path_updates[-1])
        beyond += [(net - steps) / max(net, tiny), (steps - updates) / max(steps, tiny)]
    return Check(
        "net distance <= path over steps <= path over updates", float(np.max(beyond)), 1e-5, "rounding of stored theta"
    )


def _apart(a: Array, b: Array) -> float:
    """Largest relative difference; infinite where one of the two is not finite and the other is not the same."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~both], b[~both], equal_nan=True):
        return float("inf")
    return float(np.max(np.abs(a[both] - b[both]) / np.maximum(np.abs(b[both]), 1e-12), initial=0.0))
