"""A surface against the forward passes it is made of."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from analysis import surfaces
from analysis.results import Plane
from landscape import Problem, problems

POINTS, REPEATS = 5, 5


def run() -> list[dict[str, Any]]:
    """Milliseconds a point of a surface of all tasks, and of a bare forward pass of the module over the same data."""
    torch.set_num_threads(1)
    rows = []
    for micro_batch in (64, 128, 512):
        problem = problems.load("digits")
        problem.micro_batch = micro_batch
        plane, grid = _plane(problem), surfaces.Grid(POINTS, POINTS, 0.1)
        bare = [_seconds(_forward, problem) * 1e3 for _ in range(REPEATS)]
        measured = [_seconds(surfaces.measure, problem, plane, grid) / POINTS**2 * 1e3 for _ in range(REPEATS)]
        rows.append(
            {
                "micro-batch": micro_batch,
                "examples": len(problem.evaluation),
                "bare forward, ms": bare,
                "surface, ms a point": measured,
                "share of the bare rate, %": [100 * b / m for b, m in zip(bare, measured, strict=True)],
            }
        )
    return rows


def _plane(problem: Problem) -> Plane:
    theta, buffers = problem.initial(0)
    basis = np.random.default_rng(0).standard_normal((2, theta.numel()))
    return Plane(
        origin=theta.double().numpy(),
        basis=basis,
        gram=basis @ basis.T,
        buffers=buffers.numpy(),
        explained=np.full(2, np.nan),
        recipe="random",
        axes=("x", "y"),
        seed=0,
        layout=problem.layout.hash,
    )


def _forward(problem: Problem) -> None:
    with torch.no_grad():
        problem.model.eval()
        for batch in problem.evaluation.pieces(problem.micro_batch):
            problem.model(batch.inputs)


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start
