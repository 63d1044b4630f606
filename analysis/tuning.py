"""The engine for the machine at hand: chosen by timing a few points, within a bound on memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from analysis import memory
from analysis.engines import Engine, Sequential, Together, piece_by_piece
from analysis.examples import evaluation
from analysis.heads import AsThePlanes
from analysis.normalisation import Frozen
from analysis.points import Conditions, Meter
from analysis.results import Subspace
from analysis.runners import PLAIN, Rows, Runner, Ways
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem

LEAST = 8
"""Examples in the smallest micro-batch that is tried, unless memory allows only fewer."""

GROUPS = (4, 8, 16, 32, 64)
"""Numbers of points together that are tried, each if the one before was of use."""

BRIEF = 1e-3
"""Seconds in which a CPU evaluates 8 examples, at most, of a model that is tried with several points in one launch."""

NOISE = 0.03
"""By which share another engine has to be faster to be preferred to one that was tried before it."""

WASTE = 1.25
"""Bytes for every byte of tensors, for what lies between them."""

PER_TIMING = 120
"""Timings that fill the budget."""

REPEATS = 4
"""Timings of each engine, in turn with the best so far; the least counts, since other work only adds to them."""


@dataclass(frozen=True)
class Budget:
    """What may be used: bytes beyond model and data while a surface is measured (None: whatever there is), and about
    how many seconds for choosing.
    """

    memory: int | None = None
    seconds: float = 6.0


@dataclass(frozen=True)
class Trial:
    """What an engine needs: seconds a point, and bytes at the peak, beyond model and data."""

    engine: Engine
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Choice:
    """The engine to use, the seconds a point and the bytes that it is expected to need, and all that was tried."""

    engine: Engine
    seconds: float
    bytes: int
    tried: tuple[Trial, ...]


def choose(problem: Problem, space: Subspace, conditions: Conditions, budget: Budget = Budget()) -> Choice:
    """The fastest engine within a budget, of those tried; the engine of the conditions does not count.

    Micro-batches are powers of two from 8 to the number of examples, and this number; points go one after another, and,
    on a GPU or where 8 examples take less than a millisecond, 4, 8, ..., 64 together. An engine is timed on some
    examples, four times in turn with the best so far, and the least is scaled to all of them. It is preferred to one
    tried before if it is faster by more than 3 %; two in a row that are not end the search, and so does the time. What
    the conditions' statistics and heads take at each point is in the seconds and the bytes.

    Bytes are the peak of all tensors held while a point is measured, of the sums over examples and of the preparation
    of a point, with an allowance for what cannot be seen, libraries' scratch memory and the allocator's waste: a
    quarter more, and on a CPU five times as much for what grows with the micro-batch.

    Cost: `budget.seconds`, or a few points, whichever is more.

    Raises:
        LandscapeError: one example at a time needs more memory than the budget allows, with what it needs.
    """
    bench = _Bench(problem, space, conditions, budget)
    alone = bench.workplace(Sequential())
    best = bench.climb(alone, Sequential, None)
    for points in GROUPS if problem.device.type != "cpu" or bench.brief else ():
        if points * alone.fixed > bench.room:
            break
        found = bench.climb_together(points, best)
        if found is best:
            break
        best = found
    return Choice(best.engine, best.seconds, best.bytes, tuple(bench.tried))


def allowance(device: torch.device) -> float:
    """Bytes to be set aside for every byte of tensors that grows with the micro-batch.

    On a CPU, convolutions hold their tensors a second time in another order, and the holes that they leave are a little
    too small for the next: 1 to 3.5 times as much was seen.
    """
    return 5.0 if device.type == "cpu" else WASTE


def trial(engine: Engine, problem: Problem, space: Subspace, conditions: Conditions) -> Trial:
    """What one engine needs under these conditions, found as in `choose`. Cost: a few points, or a second."""
    bench = _Bench(problem, space, conditions, Budget())
    one = bench.contender(bench.workplace(engine), engine)
    if one is None:
        raise LandscapeError(f"memory runs out with the engine {engine!r}: expected room for it; choose a smaller one")
    one.run()  # what is compiled is compiled here
    return Trial(engine, min(one.run() for _ in range(REPEATS)), one.bytes)


@dataclass(frozen=True, eq=False)
class _Workplace:
    """So many points together, ready to be evaluated, with what they take apart from the model's activations."""

    points: int
    runner: Runner
    seconds: float
    """A group of points, besides evaluating the model."""
    fixed: float
    """Bytes whatever the micro-batch."""
    need: memory.Need
    """Bytes of evaluating so many examples."""


class _Contender:
    """An engine that can be timed again and again."""

    def __init__(self, engine: Engine, size: int, run: Callable[[], float]) -> None:
        self.engine, self.bytes, self.run = engine, size, run
        self.seconds = float("inf")

    def beats(self, holder: _Contender) -> bool:
        """Whether it is faster by more than noise, timed in turn with the other."""
        mine, theirs = zip(*((self.run(), holder.run()) for _ in range(REPEATS)), strict=True)
        self.seconds, holder.seconds = min(mine), min(theirs)
        return self.seconds < (1 - NOISE) * holder.seconds


class _Bench:
    """Times engines; everything that is the same for all of them is found once."""

    def __init__(self, problem: Problem, space: Subspace, conditions: Conditions, budget: Budget) -> None:
        self._problem, self._space, self._budget = problem, space, budget
        self._batch = (conditions.examples or evaluation(problem)).batch
        self._plain = replace(conditions, statistics=Frozen(), heads=AsThePlanes())
        self.room = float("inf") if budget.memory is None else budget.memory
        self._some, self.brief = len(self._batch), False
        self._theta = torch.tensor(space.origin, dtype=problem.dtype, device=problem.device)
        self._state = torch.tensor(space.buffers, dtype=torch.float64, device=problem.device)
        self._extra = 0.0, 0
        if (conditions.statistics, conditions.heads) != (self._plain.statistics, self._plain.heads):
            with_all, without = self._around(conditions, 1), self._around(self._plain, 1)
            self._extra = max(0.0, with_all[0] - without[0]), max(0, with_all[1] - without[1])
        self.tried: list[Trial] = []
        self._end = time.perf_counter() + budget.seconds

    def workplace(self, engine: Engine) -> _Workplace:
        """Cost: a point's preparation and sums, whatever building costs, and six examples."""
        problem, points = self._problem, engine.together
        seconds, size = self._around(self._plain, points)
        built: list[Runner] = []
        size += memory.peak(lambda: built.append(engine.build(problem)), problem.device) + self._extra[1]
        size += memory.peak(lambda: self._begun(built[0], points), problem.device)
        rows = self._begun(built[0], points)
        several = engine.at_once // engine.micro_batch

        def evaluated(count: int) -> Tensor:
            return rows(self._examples(count * several), count) if several > 1 else rows(self._examples(count))

        need = memory.need(evaluated, problem.device)
        return _Workplace(points, built[0], seconds + points * self._extra[0], size, need)

    def climb(self, there: _Workplace, engine_of: Callable[[int], Engine], holder: _Contender | None) -> _Contender:
        """The best of micro-batches from small to large, and of what was best before, if anything was."""
        worse = 0
        for size in self._sizes(there, holder):
            if holder is not None and (worse == 2 or time.perf_counter() > self._end):
                break
            new = self.contender(there, engine_of(size))
            if new is None:
                break
            if holder is None:
                holder, new.seconds = new, min(new.run() for _ in range(REPEATS))
            elif new.beats(holder):
                holder, worse = new, 0
            else:
                worse += 1
            self.tried.append(Trial(new.engine, new.seconds, new.bytes))
        if holder is None:
            raise self._too_little(self._bytes(there, there.need.at(1)))
        return holder

    def climb_together(self, points: int, holder: _Contender) -> _Contender:
        """As `climb`, with so many points in one launch, where the model allows it and memory does."""
        try:
            return self.climb(self.workplace(Together(points)), partial(Together, points), holder)
        except LandscapeError:  # it cannot be vectorised
            return holder
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            return holder

    def _sizes(self, there: _Workplace, holder: _Contender | None) -> list[int]:
        """Those that fit; with a holder, from as many evaluations at once as it has."""
        count = len(self._batch)
        sizes = [size for size in (LEAST << k for k in range(count.bit_length())) if size < count] + [count]
        least = 0 if holder is None else holder.engine.together * holder.engine.micro_batch // there.points
        fitting = [size for size in sizes if self._bytes(there, there.need.at(size)) <= self.room]
        if not fitting and holder is None:
            smaller = [size for size in (4, 2, 1) if size < sizes[0]]
            fitting = [size for size in smaller if self._bytes(there, there.need.at(size)) <= self.room][:1]
        return [size for size in fitting if size >= least]

    def _bytes(self, there: _Workplace, evaluating: float) -> int:
        """Bytes to be set aside, from those of tensors."""
        growing = max(0.0, evaluating - there.need.constant)
        return int(WASTE * (there.fixed + there.need.constant) + allowance(self._problem.device) * growing)

    def contender(self, there: _Workplace, engine: Engine) -> _Contender | None:
        """None where more memory is needed than there is."""
        size, device = engine.micro_batch, self._problem.device

        def all_at_once() -> None:
            piece_by_piece(rows, self._examples(max(size, min(engine.at_once, len(self._batch)))), engine)

        try:
            rows = self._begun(there.runner, there.points)
            used = self._bytes(there, memory.peak(all_at_once, device))
            if used > self.room:
                return None
            if not self.tried:
                taken = min(_seconds(lambda: rows(self._examples(size)), device) for _ in range(REPEATS))
                self._some, self.brief = int(self._budget.seconds / PER_TIMING / taken * size), taken < BRIEF
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            return None
        some = self._batch[: max(size, self._some // there.points // size * size)]
        pieces = list(some.pieces(engine.at_once))
        examples = len(some)

        def evaluate() -> None:
            rows = self._begun(there.runner, there.points)
            for piece in pieces:
                piece_by_piece(rows, piece, engine)

        def run() -> float:
            return (_seconds(evaluate, device) / examples * len(self._batch) + there.seconds) / there.points

        return _Contender(engine, used, run)

    def _begun(self, runner: Runner, points: int) -> Rows:
        return runner(self._theta.repeat(points, 1), self._state.repeat(points, 1))

    def _examples(self, count: int) -> Batch:
        return self._batch[:count] if count <= len(self._batch) else self._batch[[0] * count]

    def _around(self, conditions: Conditions, points: int) -> tuple[float, int]:
        """Seconds of a group of points, and bytes, of all that is done besides evaluating the model."""
        meters: list[Meter] = []
        at = np.zeros((points, len(self._space.basis)))

        def first() -> None:
            meters.append(Meter(self._problem, self._space, replace(conditions, engine=_Idle(points))))
            meters[0].measure(at)

        used = memory.peak(first, self._problem.device)
        return _seconds(lambda: meters[0].measure(at), self._problem.device), used

    def _too_little(self, needed: int) -> LandscapeError:
        return LandscapeError(
            f"one example at a time needs {_words(needed)} beyond model and data, more than the "
            f"{_words(self.room)} allowed: allow at least as much, or use a smaller model"
        )


def _words(size: float) -> str:
    """Rounded up, so that what is said to be enough is."""
    if size < 2**10:
        return f"{math.ceil(size)} bytes"
    return f"{math.ceil(size / 2**20)} MiB" if size >= 100 * 2**20 else f"{math.ceil(size / 2**10)} KiB"


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Idle:
    """An engine that gives zeros: what is left is the work around it."""

    together: int
    micro_batch: int = 128
    at_once: int = 128

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        count = len(problem.tasks) + len(problem.metric_names)

        def begin(thetas: Tensor, buffers: Tensor) -> Rows:
            return lambda batch: thetas.new_zeros(len(thetas), count, len(batch))

        return begin

    def smaller(self) -> Engine | None:
        return None
