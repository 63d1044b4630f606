"""Recording in anybody's training loop, with any optimiser."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from landscape import store
from landscape.errors import LandscapeError
from landscape.modules import flatten, trainable
from landscape.problem import Problem
from landscape.projection import Kept, Whole
from landscape.provenance import of_problem
from landscape.schedules import Every, Schedule
from landscape.trajectory import SHARED, History, Provenance, Snapshot


class Recorder:
    """Writes the trajectory of a loop that you own.

        with Recorder(problem, "run.h5", when=Every(50), label="mine", seed=3) as recorder:
            for batch in loader:
                ...                      # your forward, backward and optimizer.step() on problem.model
                recorder.step(losses)    # once a training step; `losses`, one a task, are optional

    Where a step changes the shared parameters several times, call `recorder.update()` after each change, so that
    updates and the finer path length are counted; otherwise a step counts as one update and one gradient.

    `model` is the module that you train, by default `problem.model`; it is only read, except that an evaluation runs
    it in evaluation mode and then puts every submodule's mode back. The first state and the last are always stored. If
    the loop ends with an exception, what was acknowledged stays and the file is marked as not complete.

    `keep` is what the file holds of theta: `Whole()`, or `Projected(dimensions=512, seed=0)` for a model too large to
    store many times. Distances can be had from a projection with a stated error (`analysis.movement`), theta cannot.

    Cost: a copy of the shared parameters a step (a change), one evaluation and one write a snapshot.

    Raises:
        LandscapeError: the file exists already, or cannot be written; the model is not the problem's.
    """

    def __init__(
        self,
        problem: Problem,
        path: Path | str,
        when: Schedule | None = None,
        *,
        label: str = "recorded",
        seed: int = 0,
        rate: float = float("nan"),
        model: nn.Module | None = None,
        keep: Kept = Whole(),
    ) -> None:
        self._problem, self._path, self._when = problem, Path(path), when or Every(50)
        self._model = problem.model if model is None else model
        self._keep = keep
        training = {"when": repr(self._when), **({"keep": repr(keep)} if keep.settings() else {})}
        self._who = Provenance(label, label, seed, rate, training=training, **of_problem(problem))  # type: ignore[arg-type]
        self._step = self._updates = self._gradients = self._stored = 0
        self._seconds = 0.0
        self._path_steps = self._path_updates = torch.zeros((), dtype=torch.float64, device=problem.device)

    def __enter__(self) -> Recorder:
        if self._path.exists():
            raise LandscapeError(f"{self._path} exists already: expected a new file; choose another name or remove it")
        problem = self._problem
        owners = {slot.name: slot.owner for slot in problem.layout.slots}
        parameters = trainable(self._model)
        if list(parameters) != list(owners):
            raise LandscapeError(
                f"the model has other trainable parameters than the problem: expected {len(owners)} "
                f"({problem.layout.describe()}), "
                f"got {len(parameters)}; give the module that the problem was made with"
            )
        self._shared = [p for name, p in parameters.items() if owners[name] == SHARED]
        self._at_step = self._at_update = flatten(self._shared)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._counted = 0
        self._finer = torch.zeros_like(self._path_steps)
        precise = np.dtype(np.float64 if problem.dtype == torch.float64 else np.float32)
        with contextlib.ExitStack() as stack:
            opened = store.writer(self._path, self._who, problem.layout, problem.buffer_layout, precise, self._keep)
            self._writer = stack.enter_context(opened)
            self._store()
            self._open = stack.pop_all()
        self._since = time.perf_counter()
        return self

    def update(self, gradients: int = 1) -> None:
        """Counts one change of the shared parameters inside the current step."""
        now = flatten(self._shared)
        self._finer = self._finer + _norm(now - self._at_update)
        self._at_update = now
        self._updates += 1
        self._gradients += gradients
        self._counted += 1

    def step(self, losses: Tensor | None = None) -> None:
        """Counts one training step; stores a snapshot when the schedule says so. `losses` [T] go into the history."""
        row = torch.full((len(self._problem.tasks),), torch.nan) if losses is None else losses.detach()
        if row.shape != (len(self._problem.tasks),):
            raise LandscapeError(
                f"expected one loss for each of the {len(self._problem.tasks)} tasks, got shape {list(row.shape)}"
            )
        if self._counted:
            self._at_update = flatten(self._shared)
            moved = _norm(self._at_update - self._at_step)
        else:
            self.update()
            moved = self._finer
        self._at_step = self._at_update
        self._step += 1
        self._path_steps = self._path_steps + moved
        self._path_updates = self._path_updates + self._finer
        self._pending.append((row.to(torch.float64), moved, self._finer))
        self._finer, self._counted = torch.zeros_like(self._finer), 0
        if self._when.due(self._step):
            self._store()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._stored < self._step:
                    self._store()
                self._writer.finish()
        finally:
            self._open.__exit__(kind, error, trace)

    def _store(self) -> None:
        if self._step:
            if self._problem.device.type == "cuda":
                torch.cuda.synchronize(self._problem.device)
            self._seconds += time.perf_counter() - self._since
        theta, buffers = self._problem.read(self._model)
        means = self._problem.evaluate(theta, buffers)
        exact = theta.cpu().to(torch.float64 if theta.dtype == torch.float64 else torch.float32).numpy()
        self._writer.append(
            Snapshot(
                self._step,
                self._updates,
                self._gradients,
                self._seconds,
                float(self._path_steps),
                float(self._path_updates),
                self._keep.row(self._problem.layout, exact),
                buffers.cpu().numpy(),
                means.losses.cpu().numpy(),
                means.metrics.cpu().numpy(),
                self._history(),
            )
        )
        self._stored, self._pending = self._step, []
        self._since = time.perf_counter()

    def _history(self) -> History:
        count = len(self._pending)
        steps = np.arange(self._step - count + 1, self._step + 1, dtype=np.int64)
        if not count:
            return History(steps, np.zeros((0, len(self._problem.tasks))), np.zeros(0), np.zeros(0))
        losses, moved, finer = (torch.stack(column).cpu().numpy() for column in zip(*self._pending, strict=True))
        return History(steps, losses, moved, finer)


def _norm(change: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(change, dtype=torch.float64)
    return norm
