"""Recording in anybody's training loop, with any optimiser."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from landscape import store
from landscape.data import in_order, outline
from landscape.errors import LandscapeError
from landscape.existing import Existing, Now, Refuse
from landscape.problem import Problem
from landscape.projection import Kept, Whole
from landscape.provenance import of_problem
from landscape.purity import Reference
from landscape.rates import OfOptimiser
from landscape.schedules import Every, Schedule, due_since
from landscape.trajectory import Array, History, Provenance, Snapshot, Trajectory, start_hash
from landscape.watch import Watch

_REFUSE = Refuse()


class Recorder:
    """Writes the trajectory of a loop that you own.

        model = problem.model_for(seed=3)
        with Recorder(problem, "run.h5", when=Every(50), label="mine", seed=3, model=model) as recorder:
            for batch in loader:
                ...                      # your forward, backward and optimizer.step() on `model`
                recorder.step(losses)    # once a training step; `losses`, one a task, are optional

    Where a step changes the shared parameters several times, call `recorder.update()` after each change, so that
    updates and the finer path length are counted; otherwise a step counts as one update and one gradient.

    `model` is the module that you train, by default `problem.model`. `problem.model_for(seed)` makes one with the start
    of a seed; runs of several seeds that all train `problem.model` do not have starts of their own. The module is only
    read: evaluations run another one with its parameters. These are looked up by name at every step, so
    `load_state_dict(..., assign=True)` and layers that are replaced are seen; `DataParallel`, `torch.compile` and other
    wrappers are looked through.
    Theta is what was trainable when the problem was made: at a snapshot where a parameter was added, removed, replaced
    by another shape or type, or where one outside theta trains or moves, recording ends with an error that names it.

    The first state and the last are always stored. If the loop ends with an exception, what was acknowledged stays and
    the file is marked as not complete.

    Args:
        rate: learning rate of the shared parameters, where it is the same in all steps.
        optimizer: where it changes: any object with `param_groups`, read when it makes a step. Parameter groups of
            several rates have none in common: NaN.
        keep: what the file holds of theta: `Whole()`, or `Projected(dimensions=512, seed=0)` for a model too large to
            store many times. Distances can be had from a projection with a stated error (`analysis.movement`), theta
            cannot.
        existing: what happens to a file that is there: `Refuse()`, `Overwrite()` or `Resume()`.

    Cost: a copy of the shared parameters a step (a change); a pass over the parameters outside theta, one evaluation
    and one write a snapshot.

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
        optimizer: Any = None,
        keep: Kept = Whole(),
        existing: Existing = _REFUSE,
    ) -> None:
        self._problem, self._path, self._when = problem, Path(path), when or Every(50)
        self._model, self._keep, self._existing = model, keep, existing
        self._watch = Watch(problem, self._module, self._moment)
        self._rate = None
        if optimizer is not None:
            self._rate = OfOptimiser(optimizer, self._watch.parameters, self._watch.every)
        training = {"when": repr(self._when), **({"keep": repr(keep)} if keep.settings() else {})}
        self._who = Provenance(label, label, seed, rate, training=training, **of_problem(problem))  # type: ignore[arg-type]
        self._step = 0
        self._open: contextlib.ExitStack | None = None

    def __enter__(self) -> Recorder:
        where = self._path.resolve()
        with _ordinary_tensors():
            self._step = self._updates = self._gradients = self._stored = self._counted = 0
            self._seconds = 0.0
            self._pending: list[tuple[int, Tensor, Tensor, Tensor, float]] = []
            self._nothing = torch.zeros((), dtype=torch.float64, device=self._problem.device)
            self._unknown = self._nothing.new_full((len(self._problem.tasks),), torch.nan)
            self._path_steps = self._path_updates = self._finer = self._nothing
            self._watch.begin()
            if self._rate is not None and math.isnan(self._who.rate):
                self._who = replace(self._who, rate=self._rate.now())
            here = self._problem.read(self._module())
            self._reference = Reference(self._problem, *here)
            self._reference.require(self._module(), self._moment)
            theta, buffers = self._exact(*here)
            row = self._keep.row(self._problem.layout, theta)
            now = Now(self._who, self._problem.layout, row, buffers)
            there = self._existing.continued(self._path, now) if self._path.exists() else None
            unclosed = _OPEN.get(where)
            if unclosed is not None:  # of a cell that was interrupted: nothing else can let go of its file
                unclosed._close()
            self._at_step = self._at_update = self._watch.shared()
            self._since = time.perf_counter()
            with contextlib.ExitStack() as stack:
                self._writer = stack.enter_context(self._opened(start_hash(theta, buffers)))
                if self._rate is not None:
                    stack.enter_context(self._rate.watching())
                if there is None:
                    self._store()
                else:
                    self._go_on(there)
                self._open = stack.pop_all()
        _OPEN[where] = self
        self._since = time.perf_counter()
        return self

    def update(self, gradients: int = 1) -> None:
        """Counts one change of the shared parameters inside the current step."""
        self._require_open()
        with _ordinary_tensors():
            self._update(gradients)

    def step(self, losses: Any = None, *, step: int | None = None, rate: float | None = None) -> bool:
        """Counts one training step; stores a snapshot when the schedule says so, and returns whether it did.

        Args:
            losses: one a task, for the history: a tensor [T], or numbers in task order or by task name.
            step: the step's number, larger than the one before; by default the next one. A snapshot is stored where
                any number since the one before was due.
            rate: the learning rate that this step was made with, for the history.

        Raises:
            LandscapeError: losses of another shape, a number that does not grow, a rate below zero; at a snapshot, a
                model that is no longer the problem's.
        """
        self._require_open()
        number = self._step + 1 if step is None else step
        if not hasattr(number, "__index__") or number <= self._step:
            raise LandscapeError(
                f"expected a step number above {self._step}, the last one, got {number}: give numbers that "
                "grow, or none"
            )
        with _ordinary_tensors():
            self._watch.look_at_unused()
            self._count(number, self._row(losses), self._rate_of(rate))
            due = due_since(self._when, self._before, number)
            if due:
                self._store()
        return due

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is None:
            return
        try:
            if kind is None:
                with _ordinary_tensors():
                    if self._stored < self._step:
                        self._store()
                self._writer.finish()
        finally:
            self._close()

    def _close(self) -> None:
        """Lets go of the file, without a word on whether the run is complete."""
        stack, self._open = self._open, None
        where = self._path.resolve()
        if _OPEN.get(where) is self:
            del _OPEN[where]
        if stack is not None:
            stack.close()

    def _require_open(self) -> None:
        if self._open is None:
            raise LandscapeError(
                f"the recorder of {self._path} is not open: expected steps inside `with Recorder(...) as recorder:`, "
                "and one recorder a file; begin a new one"
            )

    @property
    def last_step(self) -> int:
        """The number of the last step that was counted, 0 before the first."""
        return self._step

    def _module(self) -> nn.Module:
        return self._problem.model if self._model is None else self._model

    def _moment(self) -> str:
        return f"at step {self._step} ({self._path} keeps what was recorded up to step {self._stored})"

    def _opened(self, start: str) -> contextlib.AbstractContextManager[store.Writer]:
        problem, who = self._problem, replace(self._who, start=start)
        precise = np.dtype(np.float64 if problem.dtype == torch.float64 else np.float32)
        kept = self._keep, self._existing.replaces
        return store.writer(self._path, who, problem.layout, problem.buffer_layout, precise, *kept)

    def _go_on(self, there: Trajectory) -> None:
        """Takes over the counters of the last snapshot."""
        self._step = self._stored = int(there.steps[-1])
        self._updates, self._gradients = int(there.updates[-1]), int(there.gradients[-1])
        self._seconds = float(there.seconds[-1])
        self._path_steps = torch.full_like(self._path_steps, there.path_steps[-1])
        self._path_updates = torch.full_like(self._path_updates, there.path_updates[-1])

    def _row(self, losses: Any) -> Tensor:
        if losses is None:
            return self._unknown
        names = self._problem.names
        if not isinstance(losses, Tensor):
            numbers = in_order(losses.tolist() if isinstance(losses, np.ndarray) else losses, names)
            if numbers is not None:
                with contextlib.suppress(TypeError, ValueError, RuntimeError):
                    plain = [number.detach() if isinstance(number, Tensor) else number for number in numbers]
                    losses = torch.tensor([float(number) for number in plain], dtype=torch.float64)
        if not isinstance(losses, Tensor) or losses.shape != (len(names),):
            got = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else outline(losses)
            raise LandscapeError(f"expected one loss for each of the {len(names)} tasks, got {got}")
        return losses.detach().to(self._problem.device, torch.float64, copy=True)

    def _rate_of(self, given: float | None) -> float:
        if given is None:
            return self._who.rate if self._rate is None else self._rate.taken()
        if not (math.isfinite(given) and given >= 0):
            raise LandscapeError(f"expected a learning rate of 0 or more, got {given}")
        return float(given)

    def _update(self, gradients: int) -> None:
        now = self._watch.shared()
        self._finer = self._finer + _norm(now, self._at_update)
        self._at_update = now
        self._updates += 1
        self._gradients += gradients
        self._counted += 1

    def _count(self, number: int, row: Tensor, rate: float) -> None:
        self._before, self._step = self._step, number
        if self._counted:
            self._at_update = self._watch.shared()
            moved = _norm(self._at_update, self._at_step)
        else:
            self._update(1)
            moved = self._finer
        self._at_step = self._at_update
        self._path_steps = self._path_steps + moved
        self._path_updates = self._path_updates + self._finer
        self._pending.append((number, row, moved, self._finer, rate))
        self._finer, self._counted = self._nothing, 0

    def _exact(self, theta: Tensor, buffers: Tensor) -> tuple[Array, Array]:
        """Theta and buffers as a file stores them."""
        precise = torch.float64 if theta.dtype == torch.float64 else torch.float32
        return theta.cpu().to(precise).numpy(), buffers.cpu().numpy()

    def _store(self) -> None:
        if self._problem.device.type == "cuda":
            torch.cuda.synchronize(self._problem.device)
        self._seconds += time.perf_counter() - self._since if self._step else 0.0
        if self._step:
            self._watch.require()
            self._reference.require(self._module(), self._moment)
        theta, buffers = self._problem.read(self._module())
        means = self._problem.evaluate(theta, buffers)
        exact, states = self._exact(theta, buffers)
        self._writer.append(
            Snapshot(
                self._step,
                self._updates,
                self._gradients,
                self._seconds,
                float(self._path_steps),
                float(self._path_updates),
                self._keep.row(self._problem.layout, exact),
                states,
                means.losses.cpu().numpy(),
                means.metrics.cpu().numpy(),
                self._history(),
            )
        )
        self._stored, self._pending = self._step, []
        self._since = time.perf_counter()

    def _history(self) -> History:
        count = len(self._problem.tasks)
        if not self._pending:
            return History(np.zeros(0, np.int64), np.zeros((0, count)), np.zeros(0), np.zeros(0))
        steps, *columns, rates = zip(*self._pending, strict=True)
        losses, moved, finer = (torch.stack(column).cpu().numpy() for column in columns)
        return History(np.array(steps, np.int64), losses, moved, finer, np.array(rates, np.float64))


_OPEN: WeakValueDictionary[Path, Recorder] = WeakValueDictionary()
"""Recorders of this process that hold a file."""


def _ordinary_tensors() -> contextlib.AbstractContextManager[object]:
    """Inside `torch.inference_mode` too, tensors that can be used outside of it."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()


def _norm(now: Tensor, before: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(now - before.to(now.device), dtype=torch.float64)
    return norm
