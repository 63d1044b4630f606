"""What a trajectory says of its own making."""

from __future__ import annotations

import datetime
import platform
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from landscape.problem import Problem
from landscape.trajectory import Provenance

if TYPE_CHECKING:
    from landscape.strategies.base import Strategy
    from landscape.training import Plan


def versions() -> dict[str, str]:
    """What numbers depend on beside their inputs: versions of Python and of the libraries, and torch's threads."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "threads": str(torch.get_num_threads()),
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance(problem: Problem, strategy: Strategy, seed: int, plan: Plan, label: str) -> Provenance:
    """The provenance of a run of our own training."""
    return Provenance(
        strategy=repr(strategy),
        label=label or strategy.label,
        seed=seed,
        rate=strategy.optimiser.rate,
        training={"steps": plan.steps, "batch_size": plan.batch_size, "when": repr(plan.when)},
        **of_problem(problem),  # type: ignore[arg-type]
    )


def of_problem(problem: Problem) -> dict[str, object]:
    """The fields of a provenance that describe the problem and the machine."""
    return {
        "problem": problem.origin.name,
        "settings": dict(problem.origin.settings),
        "tasks": problem.names,
        "metrics": problem.metric_names,
        "data": problem.data_hash,
        "frozen": problem.frozen_hash,
        "versions": versions(),
        "created": now(),
    }
