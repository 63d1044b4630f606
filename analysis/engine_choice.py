"""The engine that the settings ask for, with what it will cost.

An engine that was chosen by timing is kept for the machine, in the user's cache folder, by the hash of all that the
timing depends on: chosen anew each time, the same command could give other last digits.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from analysis import engines, kept_choices, recipes, tuning
from analysis.engines import Bfloat16, Compiled, Engine, Sequential
from analysis.examples import evaluation
from analysis.points import Conditions
from analysis.results import Subspace
from analysis.settings import SurfaceSettings
from analysis.tuning import Budget
from landscape.errors import LandscapeError
from landscape.problem import Problem


@dataclass(frozen=True)
class Chosen:
    """An engine with the seconds that a point takes and the bytes that it needs beyond model and data."""

    engine: Engine
    seconds: float
    bytes: int

    def plan(self, points: int) -> str:
        """What is going to be done, in words."""
        return (
            f"{points} points, about {_duration(points * self.seconds)}, {self.bytes / 2**20:.0f} MiB beyond model and "
            f"data, by {self.engine!r}"
        )


WORDS = ("auto", "problem")
"""What settings call an engine that is timed, and the problem's own micro-batches."""


def chosen_engine(
    chosen: SurfaceSettings, problem: Problem, space: Subspace, conditions: Conditions, before: str | None = None
) -> Chosen:
    """The engine that the settings ask for; `before` is that of an unfinished record, which goes on with it.

    Cost: `auto` times a few points of some engines once for a machine; any other a few points of itself.
    """
    allowed = recipes.memory(chosen.max_memory)
    if before is not None:
        return _timed(engines.parse(before), problem, space, conditions)
    if chosen.engine == "auto":
        base = _kept(problem, space, conditions, allowed)
    else:
        by_name = chosen.engine == "problem"
        given = Sequential(problem.micro_batch) if by_name else engines.parse(chosen.engine, WORDS)
        copies = 2 * given.together * problem.layout.size * problem.dtype.itemsize
        _require_within(Chosen(given, 0.0, copies), allowed, chosen.max_memory)  # before it is tried
        base = _timed(given, problem, space, conditions)
        _require_within(base, allowed, chosen.max_memory)
    if not (chosen.compiled or chosen.bfloat16):
        return base
    engine = Bfloat16(base.engine) if chosen.bfloat16 else base.engine
    engine = Compiled(engine) if chosen.compiled else engine
    found = _timed(engine, problem, space, conditions)
    while chosen.engine == "auto" and found.bytes > allowed and (smaller := found.engine.smaller()) is not None:
        found = _timed(smaller, problem, space, conditions)
    _require_within(found, allowed, chosen.max_memory)
    return found


def _require_within(base: Chosen, allowed: int, text: str) -> None:
    if base.bytes > allowed:
        raise LandscapeError(
            f"the engine {base.engine!r} needs {base.bytes / 2**20:.0f} MiB beyond model and data, more than the "
            f"{text} allowed: expected a smaller micro-batch, --engine auto, or neither --compile nor --bfloat16"
        )


def _timed(engine: Engine, problem: Problem, space: Subspace, conditions: Conditions) -> Chosen:
    """What an engine takes, compiling not counted; see `analysis.tuning.trial`."""
    found = tuning.trial(engine, problem, space, conditions)
    return Chosen(found.engine, found.seconds, found.bytes)


def _kept(problem: Problem, space: Subspace, conditions: Conditions, allowed: int) -> Chosen:
    """The engine kept for this machine, or one chosen now and kept."""
    key = _key(problem, conditions, allowed)
    known = kept_choices.find("engines", key)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return Chosen(engines.parse(str(known["engine"])), float(known["seconds"]), int(known["bytes"]))
    found = tuning.choose(problem, space, conditions, Budget(allowed))
    kept_choices.keep("engines", key, {"engine": repr(found.engine), "seconds": found.seconds, "bytes": found.bytes})
    return Chosen(found.engine, found.seconds, found.bytes)


def _key(problem: Problem, conditions: Conditions, allowed: int) -> str:
    """All that a timing depends on, hashed."""
    return kept_choices.key_of(
        problem,
        {
            "examples": [(conditions.examples or evaluation(problem)).hash, problem.micro_batch],
            "conditions": [conditions.statistics.words(problem), conditions.heads.words(problem)],
            "memory": allowed,
        },
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
