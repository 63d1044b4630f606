"""What every analysis of some trajectories needs at hand: the problem, the runs, the results file, the progress."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from analysis import archive, jobs
from analysis.archive import ArchiveError, Entry, Provenance
from analysis.belonging import may_be_of_a_study, may_replace, runs_of
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

    In one results file a run's name stands for one run, which may have grown since. `study` says that the results are a
    study's own, which go when its runs are others.

    Raises:
        LandscapeError: no trajectory, two of one name, or one of another model or of other evaluation data.
        ArchiveError: results of another problem, or of another run of the same name.
    """

    def __init__(
        self, name: ProblemName, runs: Sequence[Trajectory], results: Path, progress: Progress, study: bool = False
    ) -> None:
        self.name, self.runs, self.progress, self.study = name, runs, progress, study
        self.results = Results(results, progress)
        self.problem: Problem = jobs.problem_of(name)
        if not runs:
            raise LandscapeError("expected at least one trajectory, got none")
        for run in runs:
            _require_same(self.problem, run)
        names = [run.name for run in runs]
        for name_of_run in names:
            if names.count(name_of_run) > 1:
                raise LandscapeError(
                    f"two trajectories are called {name_of_run}: expected another label or seed for each"
                )
        self.of = identity(self.problem)
        archive.require_problem(results, self.of)
        self.hashes = {run.name: trajectory_hash(run) for run in runs}
        self._require_runs_known()

    def made(
        self, inputs: Mapping[str, str], settings: Mapping[str, Any], runs: Sequence[str] | None = None
    ) -> Provenance:
        """The provenance of a result of these inputs, made with these settings: of the runs named, by default of those
        among the inputs, or of all.
        """
        problem = {"problem": self.name.name, "problem_settings": self.name.settings}
        names = [name for name in self.hashes if name in (inputs if runs is None else runs)] or list(self.hashes)
        lengths = {run.name: len(run) for run in self.runs}
        return Provenance(
            dict(inputs),
            {**problem, **settings},
            versions(),
            0.0,
            self.name.device,
            now(),
            self.of,
            {name: (self.hashes[name], lengths[name]) for name in names},
            self.study,
        )

    def require_places(self, groups: Iterable[str], made: Provenance, advice: str) -> None:
        """Raises `ArchiveError` if one of some groups is there and of other runs or of another title, unless it is this
        study's own.
        """
        there = archive.provenances(self.results.path)
        for group in groups:
            if group in there and not (self._may_go(there[group], made) and may_replace(made, there[group])):
                archive.refuse_place(self.results.path, group, made, there[group], advice)

    def outgrown(self, kinds: Sequence[str]) -> list[str]:
        """Groups of these kinds that the file holds of one of these runs before it had grown."""
        return [
            group
            for group, made in archive.provenances(self.results.path).items()
            if group.split("/")[0] in kinds
            and any(self.hashes.get(name, digest) != digest for name, (digest, _) in runs_of(made).items())
        ]

    def _may_go(self, old: Provenance, made: Provenance) -> bool:
        return runs_of(old).keys() in (set(), runs_of(made).keys()) or (self.study and may_be_of_a_study(old))

    def _require_runs_known(self) -> None:
        """Raises if the file holds results of another run that is called as one of these."""
        earlier: dict[tuple[str, str, int], str] = {}
        for group, made in archive.provenances(self.results.path).items():
            earlier |= {(name, *stated): group for name, stated in runs_of(made).items()}
        for run in self.runs:
            for (name, digest, count), group in earlier.items():
                if name == run.name and digest != self.hashes[name] and not _began_as(run, digest, count):
                    raise ArchiveError(
                        f"{self.results.path} holds {group} of another run called {name}: expected one run of a name "
                        f"in a results file; {archive.OTHERWISE}, or remove that one"
                    )


def identity(problem: Problem) -> dict[str, Any]:
    """What tells a problem from another one: name, settings and tasks, hashes of layout, frozen parameters and data."""
    return {
        "problem": problem.origin.name,
        "settings": dict(problem.origin.settings),
        "tasks": list(problem.names),
        "layout": problem.layout.hash,
        "frozen": problem.frozen_hash,
        "data": problem.data_hash,
    }


def group_of(run: Trajectory) -> str:
    """A run's name in the results file, whatever its user called it."""
    return archive.distinct_name(run.name)


_OF_A_RUN = re.compile(r".*-(\d+|[0-9a-f]{8})(_\d+)?")
"""What runs are called in the results file, and runs at a step."""


def pair_of(first: str, second: str) -> str:
    """`FIRST-SECOND` for two runs, or two runs at a step, by their names in the results file; with a checksum where the
    same text could be two others', as `m-0-m-0-n-0`.
    """
    text = f"{first}-{second}"
    dashes = [place for place, letter in enumerate(text) if letter == "-"]
    ways = [d for d in dashes if _OF_A_RUN.fullmatch(text[:d]) and _OF_A_RUN.fullmatch(text[d + 1 :])]
    return text if len(ways) == 1 else f"{text}-{zlib.crc32(f'{first}/{second}'.encode()):08x}"


def _began_as(run: Trajectory, digest: str, count: int) -> bool:
    """Whether the first snapshots of a run, so many, are those of the run with this hash."""
    return 0 < count < len(run) and trajectory_hash(_beginning(run, count)) == digest


def _beginning(run: Trajectory, count: int) -> Trajectory:
    """A run as it was when it had so many snapshots."""
    along = ("steps", "updates", "gradients", "seconds", "path_steps", "path_updates", "losses", "metrics")
    theta, buffers = (replace(rows, shape=(count, rows.shape[1])) for rows in (run.theta, run.buffers))
    kept = run.history.step <= run.steps[count - 1]
    history = replace(run.history, **{name: rows[kept] for name, rows in vars(run.history).items()})
    sketch = run.sketch
    if sketch is not None:
        rows = replace(sketch.rows, shape=(count, sketch.rows.shape[1]))
        sketch = replace(sketch, rows=rows, norms=sketch.norms[:count])
    return replace(
        run,
        **{name: getattr(run, name)[:count] for name in along},
        theta=theta,
        buffers=buffers,
        history=history,
        sketch=sketch,
    )


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
