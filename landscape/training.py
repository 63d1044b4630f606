"""Training as a generator of snapshots; recording is its reader."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from landscape import store
from landscape.errors import LandscapeError, TrainingDiverged, failures_of
from landscape.problem import Problem
from landscape.provenance import provenance
from landscape.purity import Reference
from landscape.randomness import seeded
from landscape.schedules import Every, Schedule
from landscape.strategies.base import Strategy, require_fit
from landscape.trajectory import History, Snapshot, Trajectory, start_hash
from landscape.workspace import Batches, Workspace

LOOK = 25
"""Every so many steps the losses are looked at for values that are not finite; a look waits for the device."""


@dataclass(frozen=True)
class Plan:
    """How long and on what a run trains: `steps` mini-batches of `batch_size` examples, recorded at `when`."""

    steps: int = 1000
    batch_size: int = 64
    when: Schedule = field(default_factory=lambda: Every(50))

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise LandscapeError(f"expected 1 or more steps, got {self.steps}")


def start(problem: Problem, seed: int) -> Snapshot:
    """The snapshot at step 0, before any training."""
    theta, buffers = problem.initial(seed)
    return _snapshot(problem, theta, buffers, _Counters(), _empty_history(len(problem.tasks)), b"")


def train(
    problem: Problem, strategy: Strategy, plan: Plan, seed: int = 0, after: Snapshot | None = None
) -> Iterator[Snapshot]:
    """Trains, and yields the snapshots that the plan's schedule asks for, the first and the last always.

    Every random choice is a function of the seed and the step (batches, orders, groups, dropout), so a run that goes on
    `after` one of its own snapshots yields the same bytes as one that was never interrupted (`seconds` aside). The
    problem's module is not changed.

    Cost: what one step of the strategy costs, times `plan.steps`; one evaluation a snapshot.

    Raises:
        TrainingDiverged: a training loss was not finite; names the step and the task.
        LandscapeError: the model or a loss raised an error; names the step and the line.
    """
    if after is None:
        after = start(problem, seed)
        yield after
    run = Workspace(
        problem, strategy.optimiser, strategy.states(len(problem.tasks)), Batches(problem, plan.batch_size, seed), after
    )
    reference = Reference(problem, run.theta, run.flat_buffers())
    watch, pending = _Watch(after.seconds), _Pending(run, after.step, strategy.optimiser.rate)
    for step in range(after.step + 1, plan.steps + 1):
        before = run.shared_theta()
        finer = run.path_updates.clone()
        with _failures_at(step), seeded(seed, "step", step):
            losses = strategy.step(run, step - 1, seed)
        pending.add(
            step,
            losses,
            torch.linalg.vector_norm(run.shared_theta() - before, dtype=torch.float64),
            run.path_updates - finer,
        )
        due = step == plan.steps or plan.when.due(step)
        if due or len(pending) >= LOOK:
            pending.look(problem.names)
        if due:
            with watch.paused(problem.device):
                counters = _Counters(
                    step, run.updates, run.gradients, watch.seconds, float(run.path_steps), float(run.path_updates)
                )
                reference.require(run.module, functools.partial("at step {}".format, step))
                yield _snapshot(problem, run.theta, run.flat_buffers(), counters, pending.take(), run.saved_state())


def _failures_at(step: int) -> contextlib.AbstractContextManager[None]:
    expected = "expected the model and the losses to take every batch and the evaluation set; mend that line"
    return failures_of(f"training at step {step}", expected)


def record(
    problem: Problem,
    strategy: Strategy,
    plan: Plan,
    path: Path | str,
    seed: int = 0,
    label: str = "",
    progress: Callable[[int], None] = lambda step: None,
) -> Trajectory:
    """Trains into a trajectory file. A file that holds an interrupted run of the same settings is continued.

    `label` is the run's short name, by default the strategy's; `progress` is called with the step of every stored
    snapshot. A finished run is returned as it is.

    Raises:
        LandscapeError: the file holds a run of other settings, or is not a trajectory, or is being written.
        TrainingDiverged: as `train`; the snapshots before are kept.
    """
    require_fit(strategy, problem.names)  # one that does not fit is refused before anything is written
    who = provenance(problem, strategy, seed, plan, label)
    path = Path(path)
    if path.exists():
        there = store.require_same(path, who, problem.layout)
        if there.complete:
            return there
    first = None if path.exists() else start(problem, seed)
    if first is not None:
        who = replace(who, start=start_hash(first.theta, first.buffers))
    with store.writer(path, who, problem.layout, problem.buffer_layout, _numpy_type(problem.dtype)) as writer:
        there_already = writer.last
        fresh = [first] if there_already is None and first is not None else []
        for snapshot in itertools.chain(fresh, train(problem, strategy, plan, seed, there_already or first)):
            writer.append(snapshot)
            progress(snapshot.step)
        writer.finish()
    return store.open(path)


def _numpy_type(dtype: torch.dtype) -> np.dtype[np.floating]:
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


@dataclass(frozen=True)
class _Counters:
    step: int = 0
    updates: int = 0
    gradients: int = 0
    seconds: float = 0.0
    path_steps: float = 0.0
    path_updates: float = 0.0


def _snapshot(
    problem: Problem, theta: Tensor, buffers: Tensor, counters: _Counters, history: History, state: bytes
) -> Snapshot:
    with _failures_at(counters.step):
        means = problem.evaluate(theta, buffers)
    precise = torch.float64 if problem.dtype == torch.float64 else torch.float32
    return Snapshot(
        **vars(counters),
        theta=theta.detach().to("cpu", precise).numpy(),
        buffers=buffers.cpu().numpy(),
        losses=means.losses.cpu().numpy(),
        metrics=means.metrics.cpu().numpy(),
        history=history,
        state=state,
    )


def _empty_history(tasks: int) -> History:
    return History(np.zeros(0, np.int64), np.zeros((0, tasks)), np.zeros(0), np.zeros(0))


class _Pending:
    """What the steps since the last snapshot left behind, on the device until it is looked at."""

    def __init__(self, run: Workspace, step: int, rate: float) -> None:
        self._run, self._rate = run, rate
        self._rows: list[Tensor] = []
        self._looked: list[Tensor] = []
        self._first = step + 1

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, step: int, losses: Tensor, moved: Tensor, path: Tensor) -> None:
        self._run.path_steps += moved
        self._rows.append(torch.cat([losses.to(torch.float64), moved.reshape(1), path.reshape(1)]))

    def look(self, names: Sequence[str]) -> None:
        """Brings the rows to the host and raises at the first loss that is not finite."""
        if not self._rows:
            return
        block = torch.stack(self._rows).cpu()
        losses = block[:, :-2]
        if not bool(torch.isfinite(losses).all()):
            row, task = (int(i) for i in (~torch.isfinite(losses)).nonzero()[0])
            step = self._first + sum(len(b) for b in self._looked) + row
            raise TrainingDiverged(step, names[task], float(losses[row, task]))
        self._looked.append(block)
        self._rows = []

    def take(self) -> History:
        block = torch.cat(self._looked).numpy()
        steps = np.arange(self._first, self._first + len(block), dtype=np.int64)
        self._first += len(block)
        self._looked = []
        return History(steps, block[:, :-2], block[:, -2], block[:, -1], np.full(len(block), self._rate))


class _Watch:
    """Seconds of training, the pauses left out."""

    def __init__(self, already: float) -> None:
        self._start = time.perf_counter() - already

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def paused(self, device: torch.device) -> Iterator[None]:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        since = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - since
