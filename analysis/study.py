"""A study: several strategies and seeds trained and analysed in one folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis import controls, examining, jobs
from analysis.archive import Entry, distinct_name, find, require_problem
from analysis.archive import Provenance as Made
from analysis.desk import Progress, Results, identity, record_hash, trajectory_hash
from analysis.estimates import Left, everything, points_of
from analysis.pool import run_all
from analysis.recipes import array_hash, most_points
from analysis.results import Interpolation, Profile, RateSearch, Record, Surface
from analysis.settings import LINES, Settings, StrategySettings, SurfaceSettings
from analysis.survey import draws_of, pairs_of, suffix_of
from analysis.workbench import Workbench
from landscape import store
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.provenance import now, provenance, versions
from landscape.strategies import require_fit
from landscape.trajectory import Provenance, Trajectory


class Study:
    """A study in its folder: `runs/STRATEGY-SEED.h5` and `results.h5`. Every stage skips what is there already.

    Raises:
        LandscapeError: settings that do not fit the problem, or any of the errors of the stages.
    """

    def __init__(self, settings: Settings, folder: Path, progress: Progress, workers: int = 1) -> None:
        self._settings, self._folder, self._progress, self._workers = settings, folder, progress, workers
        self._results = Results(folder / "results.h5", progress)
        problem = jobs.problem_of(settings.named_problem)
        if not problem.layout.count():
            raise LandscapeError(
                "the problem has no shared parameters: expected some that several tasks' gradients reach"
            )
        most_points(settings.surface)  # a budget that is too small is refused before anything is trained
        for strategy in settings.strategies:
            require_fit(strategy.strategy(settings.training.optimiser, 1.0), problem.names)
        self._data, self._layout = problem.data_hash, problem.layout
        require_problem(folder / "results.h5", identity(problem))
        self._require_same_runs(problem)

    def _require_same_runs(self, problem: Problem) -> None:
        """Raises, before anything is written, if the folder's runs were made with other settings."""
        chosen = self._settings
        for strategy, seed, path in self._runs():
            if path.exists():
                rate = strategy.rate or store.open(path).provenance.rate
                made = strategy.strategy(chosen.training.optimiser, rate)
                who = provenance(problem, made, seed, chosen.training.plan(), strategy.shown)
                store.require_same(path, who, problem.layout)

    def _runs(self) -> list[tuple[StrategySettings, int, Path]]:
        return [
            (strategy, seed, jobs.run_path(self._folder, strategy.title, seed))
            for strategy in self._settings.strategies
            for seed in self._settings.seeds
        ]

    def left(self) -> Left:
        """What is still to be done, the drawing aside. Cost: one pass over the runs that are there."""
        chosen, whole = self._settings, everything(self._settings)
        searches = self._searches()
        there = [store.open(path) if path.exists() else None for _, _, path in self._runs()]
        steps = [chosen.training.steps - (0 if run is None else int(run.steps[-1])) for run in there]
        complete = [run for run in there if run is not None and run.complete]
        hashes = {run.name: trajectory_hash(run) for run in complete} if self._results.path.exists() else {}
        first = [run for run in complete if run.provenance.seed == chosen.seeds[0]]
        points, feet = whole.points, whole.feet
        for runs, surface in self._planes(complete, first):
            measured, evaluated = self._measured({run.name: hashes.get(run.name, "") for run in runs}, surface)
            points, feet = points - measured, feet - evaluated
        known = [run for run in first if self._has_curvature(run, hashes.get(run.name, ""))]
        seeds = len(chosen.seeds)
        return Left(
            rates=tuple(int((~searches[n].done).sum()) if n in searches else 0 for n in range(len(chosen.strategies))),
            steps=tuple(tuple(steps[n * seeds : (n + 1) * seeds]) for n in range(len(chosen.strategies))),
            points=points,
            feet=feet,
            spectra=whole.spectra - len(known),
        )

    def _planes(
        self, runs: Sequence[Trajectory], first: Sequence[Trajectory]
    ) -> list[tuple[Sequence[Trajectory], SurfaceSettings]]:
        """Which runs lie on which plane, of the planes all of whose runs are here."""
        settings, found = self._settings, []
        if len(runs) == len(self._runs()):
            found.append((runs, settings.surface))
        if len(settings.seeds) > 1 and len(first) == len(settings.strategies):
            found.append((first, self._of_first(settings.surface)))
        return found

    def _of_first(self, surface: SurfaceSettings) -> SurfaceSettings:
        return surface.model_copy(update={"label": f"seed-{self._settings.seeds[0]}"})

    def _measured(self, runs: Mapping[str, str], chosen: SurfaceSettings) -> tuple[int, int]:
        """Of the planes, or lines, of these runs, given with their hashes: points that are measured, runs with true
        losses.
        """
        each = [self._measured_on(runs, one) for one in draws_of(chosen)]
        points, feet = (sum(numbers) for numbers in zip(*each, strict=True))
        return min(points, points_of(chosen)), feet

    def _measured_on(self, runs: Mapping[str, str], chosen: SurfaceSettings) -> tuple[int, int]:
        space, kind = ("line", "profile") if chosen.plane in LINES else ("plane", "surface")
        title, data, asked = chosen.title, {"data": self._data}, chosen.model_dump()
        vectors = {"vectors": array_hash(chosen.vectors)} if chosen.vectors else {}
        there = self._as_chosen(f"{space}/{title}", {**runs, **data, **vectors}, asked)
        if there is None:
            return 0, 0
        within = {space: record_hash(there), **data}
        names = {pair: f"{title}{suffix_of(pair)}" for pair in pairs_of(chosen)}
        first = next(iter(names.values()))
        found = [
            self._as_chosen(f"{kind}/{name}", within, {**asked, "on": on, "statistics": norm})
            for (on, norm), name in names.items()
        ]
        measured = sum(int(one.done.sum()) for one in found if isinstance(one, Surface | Profile))
        if chosen.adaptive:
            fit = self._as_chosen(f"interpolation/{first}", within, asked)
            measured = int(fit.surface.done.sum()) if isinstance(fit, Interpolation) else 0
            measured = points_of(chosen) if isinstance(fit, Interpolation) and fit.reached else measured
        feet = [self._as_chosen(f"feet/{first}/{distinct_name(name)}", {**runs, **within}, {}) for name in runs]
        return measured, sum(record is not None for record in feet)

    def _has_curvature(self, run: Trajectory, its_hash: str) -> bool:
        """Whether all that is asked of a run's curvature is known, on every subset."""
        inputs, chosen = {run.name: its_hash, "data": self._data}, self._settings.hessian
        return all(
            self._as_chosen(task.group(run), inputs, examining.settings_of(chosen, run, task)) is not None
            for task in examining.tasks_of(chosen, self._layout)
        )

    def _as_chosen(self, group: str, inputs: Mapping[str, str], chosen: Mapping[str, Any]) -> Record | None:
        """What the results hold of a group, if it was made from these inputs and no setting of it is another now."""
        entry = find(self._results.path, group)
        if entry is None or {k: v for k, v in entry.provenance.inputs.items() if k != "training"} != dict(inputs):
            return None  # which training examples are drawn follows from the problem and the settings
        now = {"problem": self._settings.problem, "problem_settings": self._settings.problem_settings, **chosen}
        same = all(now.get(key, value) == value for key, value in entry.provenance.settings.items())
        return entry.record if same else None

    def run(self) -> None:
        """All stages: rate search, training, surfaces, eigenvalues and exploration.

        One surface lies in the principal plane of all runs. Runs of one seed share their start, which most of that
        plane's extent separates from the other seeds', so a second one lies in the plane of the first seed's runs;
        eigenvalues are those of the first seed's runs as well.
        """
        settings = self._settings
        runs = self.train(self.rates())
        first = [run for run in runs if run.provenance.seed == settings.seeds[0]]
        self._bench(runs).surface(settings.surface)
        if len(first) < len(runs):
            self._bench(first).surface(self._of_first(settings.surface))
        self._bench(first).eigenvalues(settings.hessian)
        bench = self._bench(runs)
        bench.explore(settings.explore.baseline or settings.strategies[0].shown)
        bench.contrast(settings.explore)

    def _bench(self, runs: Sequence[Trajectory]) -> Workbench:
        chosen = self._settings.named_problem
        return Workbench(chosen, runs, self._results.path, self._progress, self._workers, study=True)

    def rates(self) -> list[float]:
        """The learning rate of every strategy: given, searched before, searched now, or such that a control's movement
        is another's.

        Every rate tried is saved at once, so that an interrupted search goes on with those that are missing.
        """
        found = self._searches()
        todo = [(number, int(k)) for number, record in found.items() for k in np.flatnonzero(~record.done)]
        if todo:
            self._search(found, todo)
        for record in found.values():
            if not np.isfinite(record.losses).any():
                raise LandscapeError(
                    f"{record.label} diverged at every learning rate: expected one of {record.rates.tolist()} to "
                    "train; give smaller ones"
                )
        own = [
            found[number].chosen if strategy.searched else strategy.rate
            for number, strategy in enumerate(self._settings.strategies)
        ]
        return controls.rates(self._settings, own, jobs.problem_of(self._settings.named_problem))

    def _searches(self) -> dict[int, RateSearch]:
        """The searches that the study needs, by the strategy's number, with what is known of them."""
        chosen, found = self._settings.search, {}
        for number, strategy in enumerate(self._settings.strategies):
            if not strategy.searched:
                continue
            known = self._results.known(f"search/{strategy.title}", self._made(strategy), RateSearch)
            found[number] = known or RateSearch(
                label=strategy.shown,
                rates=np.array(chosen.rates),
                losses=np.full(len(chosen.rates), np.nan),
                done=np.zeros(len(chosen.rates), bool),
                chosen=float("nan"),
                steps=chosen.steps,
                seed=chosen.seed,
            )
        return found

    def _search(self, found: dict[int, RateSearch], todo: Sequence[tuple[int, int]]) -> None:
        """Tries the rates that are missing, and puts them into the records as they come."""
        chosen = self._settings.search

        def keep(index: int, loss: float) -> None:
            number, k = todo[index]
            strategy = self._settings.strategies[number]
            found[number] = _tried(found[number], k, loss)
            self._results.save({f"search/{strategy.title}": Entry(found[number], self._made(strategy))})

        with self._results.stage("search of learning rates", len(todo) * chosen.steps) as note:
            arguments = [(self._settings, number, chosen.rates[k]) for number, k in todo]
            run_all(jobs.search_rate, arguments, self._workers, self._progress.tell, keep)
            note(", ".join(f"{record.label} {record.chosen:g}" for record in found.values()))

    def train(self, rates: Sequence[float]) -> list[Trajectory]:
        """Every strategy with every seed, each into its file; finished runs are left alone."""
        settings = self._settings
        grid = [
            (settings, number, rate, seed, self._folder) for number, rate in enumerate(rates) for seed in settings.seeds
        ]
        with self._results.stage("training", len(grid) * settings.training.steps) as note:
            here: list[tuple[Settings, int, float, int, Path]] = []
            there: list[tuple[Settings, int, float, int, Path]] = []
            for arguments in grid:
                path = jobs.run_path(self._folder, settings.strategies[arguments[1]].title, arguments[3])
                (here if path.exists() and store.open(path).complete else there).append(arguments)
            paths = run_all(jobs.train_run, here, 1, self._progress.tell)
            paths += run_all(jobs.train_run, there, self._workers, self._progress.tell)
            note(f"{len(paths)} runs of {settings.training.steps} steps")
        return sorted((store.open(path) for path in paths), key=lambda run: self._place(run.provenance))

    def _place(self, who: Provenance) -> tuple[int, int]:
        """Where a run stands in the settings: the strategy's place, then the seed's."""
        labels = [s.shown for s in self._settings.strategies]
        return labels.index(who.label), self._settings.seeds.index(who.seed)

    def _made(self, strategy: StrategySettings) -> Made:
        settings = {
            "problem": self._settings.problem,
            "problem_settings": self._settings.problem_settings,
            "search": self._settings.search.model_dump(),
            "training": self._settings.training.model_dump(include={"batch_size", "optimiser"}),
            "strategy": strategy.model_dump(),
        }
        of = identity(jobs.problem_of(self._settings.named_problem))
        return Made({"data": self._data}, settings, versions(), 0.0, self._settings.device, now(), of, {}, True)


def _tried(record: RateSearch, k: int, loss: float) -> RateSearch:
    """A search with one rate more; when it is the last one, the best is chosen."""
    losses, done = record.losses.copy(), record.done.copy()
    losses[k], done[k] = loss, True
    finished = done.all() and np.isfinite(losses).any()
    best = float(record.rates[int(np.argmin(losses))]) if finished else float("nan")
    return replace(record, losses=losses, done=done, chosen=best)
