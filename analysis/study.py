"""A study: several strategies and seeds trained, analysed and checked, in one folder that can be gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from analysis import archive, checks, distances, jobs, operators, planes, statistics, surfaces
from analysis.archive import Entry, Provenance
from analysis.pool import run_all
from analysis.results import Plane, RateSearch, Record, Surface
from analysis.settings import Settings
from landscape import store
from landscape.errors import LandscapeError
from landscape.provenance import now, versions
from landscape.trajectory import Trajectory


class Progress(Protocol):
    """Told of the stages of a study: their beginning with the amount of work, every piece done, and their end."""

    def begin(self, stage: str, amount: int) -> None: ...
    def tell(self, amount: int) -> None: ...
    def end(self, note: str) -> None: ...


class Study:
    """A study in its folder: `runs/STRATEGY-SEED.h5`, `results.h5`. Every stage skips what is there already.

    What is reused is known by the hashes of its inputs and by its settings, which stand in the results file.
    """

    def __init__(self, settings: Settings, folder: Path, workers: int = 1) -> None:
        self.settings, self.folder, self.workers = settings, folder, workers
        self.results = folder / "results.h5"
        self.problem = jobs.problem_of(settings)
        if not self.problem.layout.count():
            raise LandscapeError("the problem has no shared parameters: expected some that several tasks' gradients reach")
        for strategy in settings.strategies:
            strategy.strategy(settings.training.optimiser, 1.0).states(len(self.problem.tasks))
        self._began = time.perf_counter()

    def run(self, progress: Progress) -> None:
        """All stages, in order."""
        rates = self._search(progress)
        trajectories = self._train(rates, progress)
        hashes = {t.name: trajectory_hash(t) for t in trajectories}
        plane = self._plane(trajectories, hashes, progress)
        self._surface(plane, progress)
        self._eigenvalues(trajectories, hashes, progress)
        self._explore(trajectories, hashes, progress)
        self._check(trajectories, hashes, plane, progress)

    def _search(self, progress: Progress) -> list[float]:
        chosen, todo = [s.rate for s in self.settings.strategies], []
        made = self._made({}, {"search": self.settings.search.model_dump(), "training": self.settings.training.model_dump(exclude={"steps", "every"})})
        for number, strategy in enumerate(self.settings.strategies):
            known = self._known(f"search/{strategy.title}", self._of(made, strategy=strategy.model_dump()))
            if isinstance(known, RateSearch):
                chosen[number] = known.chosen
            elif not strategy.rate:
                todo.append(number)
        if not todo:
            return chosen
        rates = self.settings.search.rates
        grid = [(self.settings, number, rate) for number in todo for rate in rates]
        with self._stage(progress, "search of learning rates", len(grid) * self.settings.search.steps) as note:
            losses = np.array(run_all(jobs.search_rate, grid, self.workers, progress.tell)).reshape(len(todo), len(rates))
            for number, row in zip(todo, losses, strict=True):
                strategy = self.settings.strategies[number]
                if not np.isfinite(row).any():
                    raise LandscapeError(f"every learning rate of {strategy.title} diverged: expected one of {rates} to train; give smaller ones")
                chosen[number] = float(rates[int(np.argmin(row))])
                record = RateSearch(strategy.title, np.array(rates), row, chosen[number], self.settings.search.steps, self.settings.search.seed)
                self._save({f"search/{strategy.title}": Entry(record, self._of(made, strategy=strategy.model_dump()))})
            note(", ".join(f"{self.settings.strategies[n].title} {chosen[n]:g}" for n in todo))
        return chosen

    def _train(self, rates: Sequence[float], progress: Progress) -> list[Trajectory]:
        grid = [
            (self.settings, number, rates[number], seed, self.folder)
            for number in range(len(self.settings.strategies))
            for seed in self.settings.seeds
        ]
        with self._stage(progress, "training", len(grid) * self.settings.training.steps) as note:
            paths = run_all(jobs.train_run, grid, self.workers, progress.tell)
            note(f"{len(paths)} runs")
        return [store.open(path) for path in paths]

    def _plane(self, trajectories: Sequence[Trajectory], hashes: Mapping[str, str], progress: Progress) -> Plane:
        made = self._made(hashes, {"plane": "principal"})
        known = self._known("plane", made)
        if isinstance(known, Plane):
            return known
        with self._stage(progress, "plane and shadows", len(trajectories)) as note:
            plane = planes.principal(trajectories)
            entries = {"plane": Entry(plane, made)}
            for trajectory in trajectories:
                entries[f"shadow/{trajectory.name}"] = Entry(planes.shadow(trajectory, plane), made)
                progress.tell(1)
            self._save(entries)
            note(f"{100 * plane.explained.sum():.0f} % of the variance")
        return plane

    def _surface(self, plane: Plane, progress: Progress) -> None:
        chosen = self.settings.surface
        made = self._made({"plane": record_hash(plane), "data": self.problem.data_hash}, {"surface": chosen.model_dump()})
        known = self._known("surface", made)
        if isinstance(known, Surface) and known.done.all():
            return
        shadows = [e.record for g, e in archive.load_all(self.results).items() if g.startswith("shadow/")]
        grid = surfaces.Grid.around(shadows, chosen.nx, chosen.ny, chosen.margin)  # type: ignore[arg-type]
        before = known if isinstance(known, Surface) else None
        with self._stage(progress, "surface", chosen.nx * chosen.ny) as note:
            saved = time.monotonic()
            progress.tell(0 if before is None else int(before.done.sum()))
            for surface in surfaces.measuring(self.problem, plane, grid, before):
                progress.tell(chosen.nx)
                if time.monotonic() - saved > 10 or surface.done.all():
                    self._save({"surface": Entry(surface, made)})
                    saved = time.monotonic()
            note(f"{chosen.nx} x {chosen.ny} points, {len(self.problem.evaluation)} examples, {len(self.problem.tasks)} tasks")

    def _eigenvalues(self, trajectories: Sequence[Trajectory], hashes: Mapping[str, str], progress: Progress) -> None:
        runs = [t for t in trajectories if t.provenance.seed == self.settings.seeds[0]]
        chosen = {"hessian": self.settings.hessian.model_dump()}
        made = {t.name: self._made({t.name: hashes[t.name], "data": self.problem.data_hash}, chosen) for t in runs}
        todo = [t for t in runs if self._known(f"eigenvalues/{t.name}", made[t.name]) is None]
        if not todo:
            return
        operators_each = len(self.problem.tasks) + 1
        amount = sum(len(jobs.spread(len(t), self.settings.hessian.snapshots)) for t in todo) * operators_each
        with self._stage(progress, "Hessian eigenvalues", amount) as note:
            found = run_all(jobs.eigenvalues, [(self.settings, t.path) for t in todo], self.workers, progress.tell)
            self._save({f"eigenvalues/{t.name}": Entry(history, made[t.name]) for t, history in zip(todo, found, strict=True)})
            note(f"{sum(history.products for history in found)} products")

    def _explore(self, trajectories: Sequence[Trajectory], hashes: Mapping[str, str], progress: Progress) -> None:
        made = self._made(hashes, {"baseline": self.settings.strategies[0].title})
        with self._stage(progress, "exploration", len(trajectories)) as note:
            entries: dict[str, Entry] = {}
            for trajectory in trajectories:
                entries[f"exploration/{trajectory.name}"] = Entry(distances.exploration(trajectory), made)
                entries[f"training/{trajectory.name}"] = Entry(distances.training(trajectory), made)
                progress.tell(1)
            explored = [e.record for g, e in entries.items() if g.startswith("exploration/")]
            compared = statistics.compare_all(explored, self.settings.strategies[0].title)  # type: ignore[arg-type]
            for c in compared:
                entries[f"comparison/{c.strategy}/{c.measure}/{c.budget}"] = Entry(c, made)
            entries["distances"] = Entry(distances.between_last(trajectories), made)
            self._save(entries)
            note(f"{len(compared)} comparisons")

    def _check(self, trajectories: Sequence[Trajectory], hashes: Mapping[str, str], plane: Plane, progress: Progress) -> None:
        with self._stage(progress, "checks", 1) as note:
            surface = archive.load(self.results, "surface").record
            assert isinstance(surface, Surface)
            last = trajectories[0]
            ops = operators.hessians(self.problem, last.theta[-1], last.buffers[-1])
            found = [
                checks.recorded_losses(self.problem, trajectories),
                checks.plain_loop(self.problem, surface),
                checks.point_and_shadow(plane),
                checks.same_start(trajectories),
                checks.path_bounds(trajectories),
                *(operators.probe(operator, name) for name, operator in ops.items()),
                operators.linearity(ops),
            ]
            made = self._made(hashes, {})
            self._save({f"check/{n:02d}": Entry(check, made) for n, check in enumerate(found)})
            note(f"{sum(check.passed for check in found)} of {len(found)} passed")

    @contextlib.contextmanager
    def _stage(self, progress: Progress, name: str, amount: int) -> Iterator[Callable[[str], None]]:
        """Begins and ends a stage; the body says in a few words what came of it."""
        self._began, said = time.perf_counter(), [""]
        progress.begin(name, amount)
        yield lambda text: said.__setitem__(0, text)
        progress.end(said[0])

    def _made(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Provenance:
        problem = {"problem": self.settings.problem, "problem_settings": self.settings.problem_settings}
        return Provenance(inputs, {**problem, **settings}, versions(), 0.0, self.settings.device, now())

    @staticmethod
    def _of(made: Provenance, **settings: Any) -> Provenance:
        return replace(made, settings={**made.settings, **settings})

    def _known(self, group: str, made: Provenance) -> Record | None:
        """What the results file holds of this group, if it was made from the same inputs with the same settings."""
        if not self.results.exists() or group not in archive.groups(self.results):
            return None
        entry = archive.load(self.results, group)
        same = dict(entry.provenance.inputs) == dict(made.inputs) and dict(entry.provenance.settings) == dict(made.settings)
        return entry.record if same else None

    def _save(self, entries: Mapping[str, Entry]) -> None:
        seconds = time.perf_counter() - self._began
        timed = {g: replace(e, provenance=replace(e.provenance, seconds=seconds)) for g, e in entries.items()}
        archive.save(self.results, timed)


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
