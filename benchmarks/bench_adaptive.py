"""Adaptive surfaces of trained networks against exact ones: points measured, errors, whether what is stated holds."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from analysis import adaptive, directions, planes, surfaces
from analysis.adaptive import Adaptive
from analysis.interpolants import Ranges, with_average
from analysis.results import Array, Interpolation, Plane, Surface
from analysis.subspaces import Place
from analysis.surfaces import Grid
from landscape import Every, Plan, Problem, Task, Trajectory, problems, record
from landscape.strategies import Averaged

SIDE, STEPS, EXAMPLES = 41, 400, 256
SEEDS = (0, 1, 2)
"""Of the points held out."""


@dataclass(frozen=True)
class Case:
    """A network trained from a seed, and the planes that are looked at: random ones by their seed, or the principal."""

    name: str
    make: Callable[[], Problem]
    seed: int
    planes: tuple[int | None, ...]


class _Pair(nn.Module):
    """Two regressions on one trunk of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh())
        self.one, self.two = nn.Linear(24, 1), nn.Linear(24, 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        shared = self.trunk(inputs)
        return {"one": self.one(shared), "two": self.two(shared)}


def _pair() -> Problem:
    rng = torch.Generator().manual_seed(0)

    def data(count: int) -> TensorDataset:
        x = torch.randn(count, 6, generator=rng)
        first = torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
        return TensorDataset(x, first, torch.stack([torch.cos(x[:, 3]) * x[:, 4], x[:, 5].abs()], 1))

    tasks = [Task(name, lambda p, y: ((p - y) ** 2).mean(1)) for name in ("one", "two")]
    return Problem(_Pair, tasks, data(2000), data(EXAMPLES))


def _digits(**settings: Any) -> Callable[[], Problem]:
    return lambda: problems.load("digits", {"evaluation": EXAMPLES, **settings})


CASES = (
    Case("digits, group norm", _digits(), 0, (0, None)),
    Case("digits, group norm", _digits(), 3, (0, None)),
    Case("digits, batch norm", _digits(norm="batch"), 0, (0, 1, None)),
    Case("digits, no norm", _digits(norm="none"), 0, (0, None)),
    Case("digits, width 4", _digits(width=4, features=32), 0, (0, None)),
    Case("two regressions, MLP", _pair, 0, (0, None)),
)


def run() -> list[dict[str, Any]]:
    """A 41x41 surface of every network and plane at the default choice, for several draws of the points held out.

    `measured` is the share of the grid's points. Errors are the largest over the tasks and their average, as a share of
    the range of the loss or of its logarithm. `stated true on` is the share of all points not used at which it is at
    most the largest one stated.
    """
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            problem = case.make()
            trained = record(problem, Averaged(), Plan(STEPS, 64, Every(20)), Path(folder) / "run.h5", case.seed)
            for seed in case.planes:
                rows.append(_row(case, problem, seed, *_plane(trained, seed)))
    return rows


def _plane(trained: Trajectory, seed: int | None) -> tuple[Plane, Grid]:
    if seed is not None:
        return directions.random(Place(trained), seed), Grid(SIDE)
    plane = planes.principal([trained])
    return plane, Grid.around([planes.shadow(trained, plane)], SIDE)


def _row(case: Case, problem: Problem, seed: int | None, plane: Plane, grid: Grid) -> dict[str, Any]:
    begin = time.perf_counter()
    exact = surfaces.measure(problem, plane, grid)
    seconds = time.perf_counter() - begin
    found, took = [], []
    for held in SEEDS:
        begin = time.perf_counter()
        found.append(adaptive.refine(problem, plane, grid, Adaptive(seed=held)))
        took.append(time.perf_counter() - begin)
    true = [_errors(one, exact) for one in found]
    stated = [max(*one.error_share, one.average_error_share) for one in found]
    return {
        "network": f"{case.name}, seed {case.seed}",
        "plane": "principal" if seed is None else f"random {seed}",
        "measured, %": [100 * one.surface.done.mean() for one in found],
        "stated error, %": [100 * value for value in stated],
        "95 % within, %": [100 * np.quantile(error, 0.95) for error in true],
        "largest error, %": [100 * error.max() for error in true],
        "stated true on, %": [100 * (e <= s).mean() for e, s in zip(true, stated, strict=True)],
        "confidence, %": [100 * one.confidence for one in found],
        "reached": all(one.reached for one in found),
        "seconds": took,
        "exact, seconds": seconds,
    }


def _errors(found: Interpolation, exact: Surface) -> Array:
    """The error at every point not used, [n]."""
    fit, true = (with_average(loss.reshape(len(loss), -1)) for loss in (found.loss, exact.loss))
    used = found.used.ravel()
    return np.asarray(Ranges.of(true[:, used]).shares(fit, true).max(0)[~used])
