"""What every analysis of some trajectories needs at hand: the problem, the runs, the results file, the progress."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from analysis import archive, jobs
from analysis.archive import Entry, Provenance
from analysis.results import Check, Record
from analysis.settings import ProblemName
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.provenance import now, versions
from landscape.trajectory import Trajectory

Kind = TypeVar("Kind", bound=Record)
SAVE_EVERY = 10.0
"""Seconds after which something unfinished is saved."""


class Progress(Protocol):
    """Told of every stage: its beginning with the amount of work, every piece done, and its end with a few words; and
    of what is worth saying in between.
    """

    def begin(self, stage: str, amount: int) -> None: ...
    def tell(self, amount: int) -> None: ...
    def end(self, note: str) -> None: ...
    def say(self, text: str) -> None: ...


class Results:
    """One results file as a cache: entries are known by the hashes of their inputs and by their settings."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self._progress = path, progress
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str, amount: int) -> Iterator[Callable[[str], None]]:
        """Begins and ends a stage; the body says in a few words what came of it."""
        self._began, said = time.perf_counter(), [""]
        self._progress.begin(name, amount)
        yield lambda text: said.__setitem__(0, text)
        self._progress.end(said[0])

    def known(self, group: str, made: Provenance, kind: type[Kind]) -> Kind | None:
        """What the file holds of this group, if it was made from the same inputs with the same settings."""
        return made_alike(archive.find(self.path, group), made, kind)

    def save(self, entries: Mapping[str, Entry], drop: Sequence[str] = ()) -> None:
        """Saves entries with the seconds since their stage began, and takes out the groups in `drop`."""
        seconds = time.perf_counter() - self._began
        timed = {g: replace(e, provenance=replace(e.provenance, seconds=seconds)) for g, e in entries.items()}
        archive.save(self.path, timed, drop)

    def growing(
        self, group: str, made: Provenance, steps: Iterator[Kind], done: Callable[[Kind], int], already: int = 0
    ) -> Kind:
        """The last of some ever more complete records, saved now and then and when something stops them.

        `done` counts what a record has; the progress is told of what was added to `already`.
        """
        found: Kind | None = None
        saved, told = time.monotonic(), already
        try:
            for found in steps:
                count = done(found)
                self._progress.tell(count - told)
                told = count
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save({group: Entry(found, made)})
                    saved = time.monotonic()
        except BaseException:
            if found is not None:
                self.save({group: Entry(found, made)})
            raise
        assert found is not None
        return found


def made_alike(entry: Entry | None, made: Provenance, kind: type[Kind]) -> Kind | None:
    """The record of an entry, if it was made from the same inputs with the same settings as `made` says."""
    if entry is None or not isinstance(entry.record, kind):
        return None
    mine, theirs = ((dict(one.inputs), dict(one.settings)) for one in (made, entry.provenance))
    return entry.record if mine == theirs else None


class Desk:
    """Some trajectories of one problem, and the results file that belongs to them.

    Raises:
        LandscapeError: no trajectory, two of one name, or one of another model or of other evaluation data.
    """

    def __init__(self, name: ProblemName, runs: Sequence[Trajectory], results: Path, progress: Progress) -> None:
        self.name, self.runs, self.progress = name, runs, progress
        self.results = Results(results, progress)
        self.problem: Problem = jobs.problem_of(name)
        if not runs:
            raise LandscapeError("expected at least one trajectory, got none")
        for run in runs:
            _require_same(self.problem, run)
        names = [group_of(run) for run in runs]
        for name_of_run in names:
            if names.count(name_of_run) > 1:
                raise LandscapeError(
                    f"two trajectories are called {name_of_run}: expected another label or seed for each"
                )
        self.hashes = {run.name: trajectory_hash(run) for run in runs}

    def made(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Provenance:
        """The provenance of a result of these inputs, made with these settings."""
        problem = {"problem": self.name.name, "problem_settings": self.name.settings}
        return Provenance(dict(inputs), {**problem, **settings}, versions(), 0.0, self.name.device, now())


def group_of(run: Trajectory) -> str:
    """A run's name in the results file, whatever its user called it."""
    return archive.safe_name(run.name)


def named(what: str, check: Check) -> Check:
    """The same check, saying of what it is."""
    return replace(check, name=f"{what}: {check.name}")


def _require_same(problem: Problem, run: Trajectory) -> None:
    problem.layout.require(run.layout, str(run.path))
    for what, mine, theirs in (
        ("evaluation data", problem.data_hash, run.provenance.data),
        ("frozen parameters", problem.frozen_hash, run.provenance.frozen),
    ):
        if mine != theirs:
            raise LandscapeError(
                f"{run.path} was recorded with other {what}: expected the hash {mine} of the problem "
                f"given, got {theirs}; "
                "use the problem that it was recorded with"
            )


def trajectory_hash(trajectory: Trajectory) -> str:
    """Sixteen hex digits of a SHA-256 over everything in a file that a result can depend on: who made it (without
    versions and time), layout, all budgets, path lengths, losses, metrics and history of the snapshots, buffers, and
    theta or what the file keeps in its place. Cost: one pass over the file.
    """
    who = {**vars(trajectory.provenance), "versions": {}, "created": "", "layout": trajectory.layout.hash}
    digest = hashlib.sha256(json.dumps(who, sort_keys=True).encode())
    sketch = trajectory.sketch
    if sketch is not None:
        digest.update(f"projection on {sketch.dimensions} with seed {sketch.seed}".encode())
    arrays = {name: getattr(trajectory, name) for name in _BY_SNAPSHOT}
    arrays |= {f"history {name}": column for name, column in vars(trajectory.history).items()}
    arrays |= {} if sketch is None else {"norms": sketch.norms}
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for rows in (trajectory.theta if sketch is None else sketch.rows, trajectory.buffers):
        for block in rows.blocks():
            digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()[:16]


_BY_SNAPSHOT = ("steps", "updates", "gradients", "seconds", "path_steps", "path_updates", "losses", "metrics")


def record_hash(record: Record) -> str:
    """Sixteen hex digits of a SHA-256 over a record's arrays."""
    digest = hashlib.sha256(type(record).__name__.encode())
    for spec, array in record.arrays():
        digest.update(spec.name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
