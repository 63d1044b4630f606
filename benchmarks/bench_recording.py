"""What a recorder costs a training loop: the same loop with and without, a snapshot every 100 steps."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from landscape import Every, Problem, Recorder, problems

STEPS, REPEATS, BATCH = 300, 5, 64


def run() -> list[dict[str, Any]]:
    """Seconds a step of a plain loop, of the same with a recorder, and the difference as a share; median of pairs."""
    torch.set_num_threads(1)
    rows = []
    for width in (12, 32):
        problem = problems.load("digits", {"width": width})
        plain, recorded = [], []
        for repeat in range(REPEATS + 1):
            pair = _loop(problem, None), _loop(problem, Every(100))
            if repeat:
                plain.append(pair[0] / STEPS * 1e3)
                recorded.append(pair[1] / STEPS * 1e3)
        overhead = [100 * (b - a) / a for a, b in zip(plain, recorded, strict=True)]
        rows.append(
            {
                "parameters": problem.layout.size,
                "plain loop, ms a step": plain,
                "with a recorder, ms a step": recorded,
                "overhead, %": overhead,
            }
        )
    return rows


def _loop(problem: Problem, when: Every | None) -> float:
    model = problem.model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = problem.evaluation[:BATCH]
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(problem, Path(folder) / "run.h5", when).__enter__() if when else None
        start = time.perf_counter()
        for _ in range(STEPS):
            output = model(batch.inputs)
            losses = [t.loss(output[t.name], y).mean() for t, y in zip(problem.tasks, batch.targets, strict=True)]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if recorder is not None:
                recorder.step(torch.stack(losses))
        seconds = time.perf_counter() - start
        if recorder is not None:
            recorder.__exit__(None, None, None)
    return seconds
