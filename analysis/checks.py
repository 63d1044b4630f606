"""Tests that a study makes on its own numbers, against something that cannot share their mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis import engines
from analysis.engines import Bfloat16, Compiled, Engine
from analysis.examples import evaluation
from analysis.points import Conditions
from analysis.results import Array, Check, PathLosses, Plane, Profile, Surface
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem, arrange
from landscape.randomness import generator
from landscape.trajectory import Trajectory

OTHER = 0.01
"""Relative difference from which a loss is taken for another one."""
FEW, SEVERAL = 3, 25
"""Points that are looked at, and where an engine's arithmetic causes an error of its own."""


def recorded_losses(problem: Problem, trajectories: Sequence[Trajectory]) -> Check:
    """The evaluation losses in the files against a new evaluation of the last snapshots. One evaluation a run."""
    worst = 0.0
    for trajectory in trajectories:
        worst = max(worst, _apart(_last_losses(problem, trajectory), trajectory.losses[-1]))
    return Check(
        "losses of the last snapshots, recorded and evaluated again", worst, 1e-5, "rounding of the model's precision"
    )


def require_recorded(problem: Problem, trajectories: Sequence[Trajectory]) -> None:
    """Refuses runs whose last losses this problem does not give: its loss, its settings or its code is another one.

    Less than 1 % may come of another device or library. Cost: one evaluation a run.

    Raises:
        LandscapeError: a run with other losses, and how far they are off.
    """
    for trajectory in trajectories:
        again = _last_losses(problem, trajectory)
        every = np.abs(np.asarray(trajectory.losses, np.float64))
        recorded, largest = trajectory.losses[-1], float(every[np.isfinite(every)].max(initial=0.0))
        if _apart(recorded, again, least=1e-4 * largest) > OTHER:
            words = ", ".join(
                f"{name} {a:.4g}, not {b:.4g}" for name, a, b in zip(problem.names, again, recorded, strict=True)
            )
            raise LandscapeError(
                f"{trajectory.path} was recorded with other losses than the problem gives at its last snapshot "
                f"({words}): expected the problem, data and settings of the recording; give them as --problem and --set"
            )


def _last_losses(problem: Problem, trajectory: Trajectory) -> Array:
    """The losses of a run's last snapshot, evaluated now [T]."""
    theta = torch.tensor(trajectory.theta[-1], dtype=problem.dtype, device=problem.device)
    return np.asarray(problem.evaluate(theta, torch.tensor(trajectory.buffers[-1])).losses.cpu().numpy())


def plain_loop(
    problem: Problem,
    found: Surface | Profile,
    points: int | None = None,
    seed: int = 0,
    conditions: Conditions = Conditions(),
) -> Check:
    """Some points of a surface or a profile against a module whose weights are set and that is called in a plain loop.

    The point of the least averaged loss, where a relative change is largest, and others at random. Where the engine
    computes in other arithmetic, this is the error that it causes, and what passes is what is to be expected of that.
    Cost: one forward pass of the examples a point: 3 points, or 25 with such an engine.
    """
    arithmetic = arithmetic_of(engines.parse(found.engine))
    count = min(points or (FEW if arithmetic.usual else SEVERAL), int(found.done.sum()))
    worst = 0.0
    for measured, each in _at_some_points(problem, found, count, seed, conditions):
        worst = max(worst, _apart(measured, each.mean(1)))
    return Check(
        f"{_kind(found)} at {count} points, against a module with these weights in a plain loop",
        worst,
        arithmetic.limit,
        arithmetic.words,
    )


def path_ends(found: PathLosses, recorded: Array) -> Check:
    """The losses at the ends of paths against those that training recorded, [pair, 2, T]."""
    measured = found.loss[:, : recorded.shape[2]][..., [0, -1]].transpose(0, 2, 1)
    worst = max((_apart(m, r) for m, r in zip(measured, recorded, strict=True)), default=0.0)
    return Check(
        "losses at the ends of paths, against those that training recorded",
        worst,
        1e-4,
        "rounding of the model's precision, in another order where units were exchanged",
    )


def recomposed_average(
    problem: Problem,
    found: Surface | Profile,
    points: int = 3,
    seed: int = 1,
    conditions: Conditions = Conditions(),
) -> Check:
    """The average of the tasks' losses at some points, against the mean over examples of each example's average."""
    arithmetic = arithmetic_of(engines.parse(found.engine))
    worst = 0.0
    for measured, each in _at_some_points(problem, found, points, seed, conditions):
        worst = max(worst, _apart(measured.mean(), each.mean(0).mean()))
    return Check(
        f"average of the task losses at {points} points, against the averaged loss evaluated directly",
        worst,
        arithmetic.limit,
        arithmetic.words,
    )


@dataclass(frozen=True)
class Arithmetic:
    """What a loss may change by, relative, for the numbers that an engine computes with."""

    limit: float
    words: str
    usual: bool = False
    """Whether they are those of a plain loop."""


def arithmetic_of(engine: Engine) -> Arithmetic:
    """That of the model's number type, unless an engine is compiled, or computes in bfloat16."""
    if isinstance(engine, Compiled):
        inner = arithmetic_of(engine.inner)
        return Arithmetic(max(inner.limit, 1e-4), f"{inner.words}, with operations fused by compiling")
    if isinstance(engine, Bfloat16):
        return Arithmetic(0.25, "rounding of bfloat16, eight bits of every number")
    return Arithmetic(1e-5, "rounding of the model's precision", usual=True)


def _at_some_points(
    problem: Problem, found: Surface | Profile, points: int, seed: int, conditions: Conditions
) -> Iterator[tuple[Array, Array]]:
    """Losses of measured points [T], each with every example's losses [T, N] from a plain module there."""
    rng, device = generator(seed, "plain loop"), problem.device
    space, axes = (found.plane, (found.y, found.x)) if isinstance(found, Surface) else (found.line, (found.x,))
    done, losses = np.argwhere(found.done), np.moveaxis(found.loss, 0, -1)
    average = np.nan_to_num(found.loss.mean(0)[found.done], nan=np.inf)
    chosen = list(dict.fromkeys([int(average.argmin()), *map(int, rng.permutation(len(done)))]))[:points]
    restate, refit = conditions.statistics.build(problem), conditions.heads.build(problem, space.spans)
    batch = (conditions.examples or evaluation(problem)).batch
    at_once = engines.plain(problem, found.engine).micro_batch
    for row in done[chosen]:
        at = tuple(int(index) for index in row)
        where = np.array([axis[index] for axis, index in zip(axes, at, strict=True)])[::-1]
        theta = space.origin + where @ space.basis
        there = torch.tensor(theta, dtype=problem.dtype, device=device)
        buffers = torch.tensor(space.buffers, device=device)
        buffers = buffers if restate is None else restate(there, buffers)
        there = there if refit is None else refit(there, buffers)
        module = problem.module(there, buffers)
        yield losses[at], np.concatenate([_set_and_run(problem, module, piece) for piece in batch.pieces(at_once)], 1)


def _kind(found: Surface | Profile) -> str:
    return "surface" if isinstance(found, Surface) else "line"


def _set_and_run(problem: Problem, module: torch.nn.Module, batch: Batch) -> Array:
    """Losses of every example [T, N] in float64."""
    with torch.no_grad():
        output = module.eval()(batch.inputs)
    rows = zip(problem.tasks, arrange(output, problem.names), batch.targets, strict=True)
    return np.stack(
        [task.loss(prediction, target).detach().double().cpu().numpy() for task, prediction, target in rows]
    )


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


def _apart(a: Array, b: Array, least: float = 1e-12) -> float:
    """Largest relative difference; infinite where one of the two is not finite and the other is not the same."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~both], b[~both], equal_nan=True):
        return float("inf")
    return float(np.max(np.abs(a[both] - b[both]) / np.maximum(np.abs(b[both]), max(least, 1e-12)), initial=0.0))
