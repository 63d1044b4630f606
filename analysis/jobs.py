"""The pieces of a study that run side by side. Plain values in, records or nothing out: they cross between
processes.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.pool import Tell
from analysis.settings import HessianSettings, ProblemName, Settings
from landscape import problems, training
from landscape.errors import LandscapeError, TrainingDiverged
from landscape.problem import Problem
from landscape.schedules import AtSteps
from landscape.training import Plan
from landscape.trajectory import Trajectory


@lru_cache(maxsize=1)
def _loaded(text: str) -> Problem:
    name = ProblemName.model_validate_json(text)
    return problems.load(name.name, name.settings).to(device(name.device))


def problem_of(name: ProblemName) -> Problem:
    """The problem on its device, made once a process."""
    return _loaded(name.model_dump_json())


def device(name: str) -> torch.device:
    """A device by name, or the error that says which there are."""
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).item()  # one that cannot be read, as `meta`, will not do
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise LandscapeError(f"cannot use the device {name!r}: expected one of {', '.join(there)}") from error
    return found


def search_rate(settings: Settings, number: int, rate: float, tell: Tell) -> float:
    """Averaged evaluation loss of strategy `number` after a short run at one rate; infinity where it diverged."""
    problem, strategy = (
        problem_of(settings.named_problem),
        settings.strategies[number].strategy(settings.training.optimiser, rate),
    )
    plan = Plan(settings.search.steps, settings.training.batch_size, AtSteps([]))
    try:
        *_, last = training.train(problem, strategy, plan, settings.search.seed)
    except TrainingDiverged:
        return float("inf")
    finally:
        tell(settings.search.steps)
    return float(np.mean(last.losses)) if np.isfinite(last.losses).all() else float("inf")


def train_run(settings: Settings, number: int, rate: float, seed: int, folder: Path, tell: Tell) -> Path:
    """Trains one run into its file, or goes on with it."""
    chosen = settings.strategies[number]
    path = run_path(folder, chosen.title, seed)
    strategy = chosen.strategy(settings.training.optimiser, rate)
    last = 0

    def progress(step: int) -> None:
        nonlocal last
        tell(step - last)
        last = step

    training.record(
        problem_of(settings.named_problem), strategy, settings.training.plan(), path, seed, chosen.shown, progress
    )
    tell(settings.training.steps - last)
    return path


def run_path(folder: Path, title: str, seed: int) -> Path:
    """`runs/STRATEGY-SEED.h5` of a study."""
    return folder / "runs" / f"{title}-{seed}.h5"


def chosen_rows(trajectory: Trajectory, chosen: HessianSettings) -> list[int]:
    """The snapshots at which eigenvalues are computed, ascending."""
    return (
        sorted({trajectory.at(step) for step in chosen.at}) if chosen.at else spread(len(trajectory), chosen.snapshots)
    )


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` rows, evenly spread, the last one always and the first one where there are two."""
    places: Any = np.linspace(0, count - 1, min(wanted, count)) if wanted > 1 else [count - 1]
    return sorted({round(float(place)) for place in places})
