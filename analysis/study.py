"""A study: several strategies and seeds trained and analysed in one folder that can be gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import jobs
from analysis.archive import Entry
from analysis.archive import Provenance as Made
from analysis.pool import run_all
from analysis.results import RateSearch
from analysis.settings import Settings, StrategySettings
from analysis.desk import Progress, Results
from analysis.workbench import Workbench
from landscape import store
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.provenance import now, provenance, versions
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
        for strategy in settings.strategies:
            strategy.strategy(settings.training.optimiser, 1.0).states(len(problem.tasks))
        self._data = problem.data_hash
        self._require_same_runs(problem)

    def _require_same_runs(self, problem: Problem) -> None:
        """Raises, before anything is written, if the folder's runs were made with other settings."""
        chosen = self._settings
        for strategy, seed, path in self._runs():
            if path.exists():
                rate = strategy.rate or store.open(path).provenance.rate
                made = strategy.strategy(chosen.training.optimiser, rate)
                who = provenance(problem, made, seed, chosen.training.plan(), strategy.title)
                store.require_same(path, who, problem.layout)

    def _runs(self) -> list[tuple[StrategySettings, int, Path]]:
        return [
            (strategy, seed, jobs.run_path(self._folder, strategy.title, seed))
            for strategy in self._settings.strategies
            for seed in self._settings.seeds
        ]

    def missing(self) -> list[Path]:
        """The files of the runs that are still to be made or to be gone on with."""
        return [path for _, _, path in self._runs() if not (path.exists() and store.open(path).complete)]

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
            self._bench(first).surface(settings.surface.model_copy(update={"label": f"seed-{settings.seeds[0]}"}))
        self._bench(first).eigenvalues(settings.hessian)
        self._bench(runs).explore(settings.strategies[0].title)

    def _bench(self, runs: Sequence[Trajectory]) -> Workbench:
        return Workbench(self._settings.named_problem, runs, self._results.path, self._progress, self._workers)

    def rates(self) -> list[float]:
        """The learning rate of every strategy: given, searched before, or searched now."""
        known = {
            s.title: self._results.known(f"search/{s.title}", self._made(s), RateSearch)
            for s in self._settings.strategies
        }
        todo = [n for n, s in enumerate(self._settings.strategies) if not s.rate and known[s.title] is None]
        if todo:
            known |= {record.label: record for record in self._search(todo)}
        found = [(s.rate, known[s.title]) for s in self._settings.strategies]
        return [rate if record is None else record.chosen for rate, record in found]

    def _search(self, numbers: Sequence[int]) -> list[RateSearch]:
        chosen = self._settings.search
        grid = [(self._settings, number, rate) for number in numbers for rate in chosen.rates]
        with self._results.stage("search of learning rates", len(grid) * chosen.steps) as note:
            losses = np.array(run_all(jobs.search_rate, grid, self._workers, self._progress.tell)).reshape(
                len(numbers), -1
            )
            strategies = [self._settings.strategies[number] for number in numbers]
            records = [self._least(strategy, row) for strategy, row in zip(strategies, losses, strict=True)]
            pairs = zip(strategies, records, strict=True)
            self._results.save({f"search/{s.title}": Entry(record, self._made(s)) for s, record in pairs})
            note(", ".join(f"{record.label} {record.chosen:g}" for record in records))
        return records

    def _least(self, strategy: StrategySettings, losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> RateSearch:
        chosen = self._settings.search
        if not np.isfinite(losses).any():
            raise LandscapeError(
                f"{strategy.title} diverged at every learning rate: expected one of {chosen.rates} to "
                "train; give smaller ones"
            )
        best = chosen.rates[int(np.argmin(losses))]
        return RateSearch(
            label=strategy.title,
            rates=np.array(chosen.rates),
            losses=losses,
            chosen=best,
            steps=chosen.steps,
            seed=chosen.seed,
        )

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
        titles = [s.title for s in self._settings.strategies]
        return titles.index(who.label), self._settings.seeds.index(who.seed)

    def _made(self, strategy: StrategySettings) -> Made:
        settings = {
            "problem": self._settings.problem,
            "problem_settings": self._settings.problem_settings,
            "search": self._settings.search.model_dump(),
            "training": self._settings.training.model_dump(include={"batch_size", "optimiser"}),
            "strategy": strategy.model_dump(),
        }
        return Made({"data": self._data}, settings, versions(), 0.0, self._settings.device, now())
