"""Analyses of some trajectories, saved into one results file. What is there already is not made again."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from analysis import archive, checks, directions, distances, jobs, operators, planes, statistics, surfaces
from analysis.archive import Entry, Provenance
from analysis.pool import run_all
from analysis.results import (
    Check,
    Comparison,
    DistanceMatrix,
    EigenvalueHistory,
    Exploration,
    Plane,
    Record,
    Shadow,
    Surface,
)
from analysis.subspaces import Place
from analysis.settings import HessianSettings, ProblemName, SurfaceSettings
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.provenance import now, versions
from landscape.trajectory import Trajectory

Kind = TypeVar("Kind", bound=Record)
SAVE_EVERY = 10.0
"""Seconds after which an unfinished surface is saved."""


class Progress(Protocol):
    """Told of every stage: its beginning with the amount of work, every piece done, and its end with a few words."""

    def begin(self, stage: str, amount: int) -> None: ...
    def tell(self, amount: int) -> None: ...
    def end(self, note: str) -> None: ...


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
        entry = archive.find(self.path, group)
        if entry is None:
            return None
        same = dict(entry.provenance.inputs) == dict(made.inputs) and dict(entry.provenance.settings) == dict(
            made.settings
        )
        return entry.record if same and isinstance(entry.record, kind) else None

    def save(self, entries: Mapping[str, Entry], drop: Sequence[str] = ()) -> None:
        """Saves entries with the seconds since their stage began, and takes out the groups in `drop`."""
        seconds = time.perf_counter() - self._began
        timed = {g: replace(e, provenance=replace(e.provenance, seconds=seconds)) for g, e in entries.items()}
        archive.save(self.path, timed, drop)


class Workbench:
    """Some trajectories of one problem, and the analyses that can be made of them.

    Raises:
        LandscapeError: trajectories of another model or of other evaluation data than the problem's.
    """

    def __init__(
        self, name: ProblemName, runs: Sequence[Trajectory], results: Path, progress: Progress, workers: int = 1
    ) -> None:
        self._name, self._runs, self._progress, self._workers = name, runs, progress, workers
        self._results = Results(results, progress)
        self._problem: Problem = jobs.problem_of(name)
        if not runs:
            raise LandscapeError("expected at least one trajectory, got none")
        for run in runs:
            _require_same(self._problem, run)
        names = [_group(run) for run in runs]
        for name_of_run in names:
            if names.count(name_of_run) > 1:
                raise LandscapeError(
                    f"two trajectories are called {name_of_run}: expected another label or seed for each"
                )
        self._hashes = {run.name: trajectory_hash(run) for run in runs}

    def surface(self, chosen: SurfaceSettings) -> Surface:
        """The plane, the shadows of all runs and the surface of every task; an unfinished surface is gone on with."""
        plane, shadows = self._plane(chosen)
        made = self._made({"plane": record_hash(plane), "data": self._problem.data_hash}, chosen.model_dump())
        group = f"surface/{chosen.title}"
        known = self._results.known(group, made, Surface)
        if known is not None and known.done.all():
            return known
        with self._results.stage("surface", chosen.nx * chosen.ny) as note:
            found = self._measured(group, made, (plane, _grid(chosen, shadows)), known)
            examples, tasks = len(self._problem.evaluation), ", ".join(self._problem.names)
            note(f"{chosen.title}: {chosen.nx} x {chosen.ny} points, {examples} examples, tasks {tasks}")
        return found

    def _measured(
        self, group: str, made: Provenance, where: tuple[Plane, surfaces.Grid], before: Surface | None
    ) -> Surface:
        """Measures a surface, saving it now and then, when it is done, and when something stops it."""
        surface, saved, told = before, time.monotonic(), 0
        try:
            for surface in surfaces.measuring(self._problem, *where, before=before):
                done = int(surface.done.sum())
                self._progress.tell(done - told)
                told = done
                if time.monotonic() - saved > SAVE_EVERY:
                    self._results.save({group: Entry(surface, made)})
                    saved = time.monotonic()
        except BaseException:
            if surface is not None:
                self._results.save({group: Entry(surface, made)})
            raise
        assert surface is not None
        self._results.save({group: Entry(surface, made, (_of(group, checks.plain_loop(self._problem, surface)),))})
        return surface

    def _plane(self, chosen: SurfaceSettings) -> tuple[Plane, list[Shadow]]:
        recipe = {"plane": chosen.plane, "seed": chosen.seed}
        made, title = self._made(self._hashes, recipe), chosen.title
        plane = self._results.known(f"plane/{title}", made, Plane)
        shadows = [self._results.known(f"shadow/{title}/{_group(run)}", made, Shadow) for run in self._runs]
        if plane is not None and all(shadow is not None for shadow in shadows):
            return plane, [shadow for shadow in shadows if shadow is not None]
        with self._results.stage("plane and shadows", len(self._runs)) as note:
            principal = chosen.plane == "principal"
            plane = planes.principal(self._runs) if principal else directions.random(Place(self._runs[0]), chosen.seed)
            found = []
            for run in self._runs:
                found.append(planes.shadow(run, plane))
                self._progress.tell(1)
            entries = {
                f"shadow/{title}/{_group(run)}": Entry(shadow, made)
                for run, shadow in zip(self._runs, found, strict=True)
            }
            self._results.save(
                {
                    f"plane/{title}": Entry(plane, made, (_of(f"plane/{title}", checks.point_and_shadow(plane)),)),
                    **entries,
                },
                drop=self._of_another_plane(title, plane),
            )
            note(f"{100 * plane.explained.sum():.0f} % of the variance" if principal else plane.recipe)
        return plane, found

    def _of_another_plane(self, title: str, plane: Plane) -> list[str]:
        """What would otherwise stand beside a new plane: the old one's shadows, also those of runs that are no longer
        here, and its surface.
        """
        surface = archive.find(self._results.path, f"surface/{title}")
        other = surface is not None and isinstance(surface.record, Surface) and surface.record.plane != plane
        return [f"shadow/{title}", *([f"surface/{title}"] if other else [])]

    def eigenvalues(self, chosen: HessianSettings) -> list[EigenvalueHistory]:
        """Top eigenvalues of every task and of the average along every run."""
        made = {
            run.name: self._made(
                {run.name: self._hashes[run.name], "data": self._problem.data_hash}, chosen.model_dump()
            )
            for run in self._runs
        }
        known = {
            run.name: self._results.known(f"eigenvalues/{_group(run)}", made[run.name], EigenvalueHistory)
            for run in self._runs
        }
        todo = [run for run in self._runs if known[run.name] is None]
        if todo:
            amount = sum(len(jobs.chosen_rows(run, chosen)) for run in todo) * (len(self._problem.tasks) + 1)
            with self._results.stage("Hessian eigenvalues", amount) as note:
                arguments = [(self._name, run.path, chosen) for run in todo]
                found = run_all(jobs.eigenvalues, arguments, self._workers, self._progress.tell)
                checked = self._operator_checks(todo[0])
                self._results.save(
                    {
                        f"eigenvalues/{archive.safe_name(h.run.name)}": Entry(
                            h, made[h.run.name], checked if h is found[0] else ()
                        )
                        for h in found
                    }
                )
                note(f"{sum(history.products for history in found)} products")
            known |= {history.run.name: history for history in found}
        return [history for history in known.values() if history is not None]

    def _operator_checks(self, run: Trajectory) -> tuple[Any, ...]:
        ops = operators.hessians(self._problem, run.theta[-1], run.buffers[-1])
        return (*(operators.probe(op, name) for name, op in ops.items()), operators.linearity(ops))

    def explore(self, baseline: str) -> tuple[list[Exploration], tuple[Comparison, ...]]:
        """Exploration of every run, distances between their ends, and every strategy against the baseline."""
        made = self._made(self._hashes, {"baseline": baseline})
        known = [self._results.known(f"exploration/{_group(run)}", made, Exploration) for run in self._runs]
        there = [exploration for exploration in known if exploration is not None]
        if len(there) == len(known) and self._results.known("distances/last", made, DistanceMatrix) is not None:
            return there, statistics.compare_all(there, baseline)
        with self._results.stage("exploration", len(self._runs)) as note:
            explored: list[Exploration] = []
            entries: dict[str, Entry] = {}
            for run in self._runs:
                explored.append(distances.exploration(run))
                entries[f"exploration/{_group(run)}"] = Entry(explored[-1], made)
                entries[f"training/{_group(run)}"] = Entry(distances.training(run), made)
                self._progress.tell(1)
            compared = statistics.compare_all(explored, baseline)
            for c in compared:
                entries[f"comparison/{archive.safe_name(c.strategy)}/{c.measure}/{c.budget}"] = Entry(c, made)
            checked = (
                checks.recorded_losses(self._problem, self._runs),
                checks.same_start(self._runs),
                checks.path_bounds(self._runs),
            )
            entries["distances/last"] = Entry(distances.between_last(self._runs), made, checked)
            self._results.save(entries, drop=["exploration", "training", "comparison"])
            note(f"{len(explored)} runs, {len(compared)} comparisons")
        return explored, compared

    def _made(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Provenance:
        problem = {"problem": self._name.name, "problem_settings": self._name.settings}
        return Provenance(dict(inputs), {**problem, **settings}, versions(), 0.0, self._name.device, now())


def _group(run: Trajectory) -> str:
    """A run's name in the results file, whatever its user called it."""
    return archive.safe_name(run.name)


def _of(what: str, check: Check) -> Check:
    """The same check, saying of what it is."""
    return replace(check, name=f"{what}: {check.name}")


def _grid(chosen: SurfaceSettings, shadows: Sequence[Shadow]) -> surfaces.Grid:
    if chosen.plane == "principal":
        return surfaces.Grid.around(shadows, chosen.nx, chosen.ny, chosen.margin)
    return surfaces.Grid(chosen.nx, chosen.ny, chosen.reach)


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
    """Sixteen hex digits of a SHA-256 over strategy, layout, steps, theta and buffers. Cost: one pass over the file."""
    digest = hashlib.sha256((trajectory.layout.hash + trajectory.provenance.strategy).encode())
    digest.update(trajectory.steps.tobytes())
    for rows in (trajectory.theta, trajectory.buffers):
        for block in rows.blocks():
            digest.update(np.ascontiguousarray(block).tobytes())
    return digest.hexdigest()[:16]


def record_hash(record: Record) -> str:
    """Sixteen hex digits of a SHA-256 over a record's arrays."""
    digest = hashlib.sha256(type(record).__name__.encode())
    for spec, array in record.arrays():
        digest.update(spec.name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
