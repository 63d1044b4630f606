"""Settings, trajectories and results from the words of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from analysis import settings as reading
from analysis.exploring import Explored
from analysis.results import (
    Alternation,
    Barriers,
    Comparison,
    EigenvalueTracks,
    Exploration,
    Profile,
    Surface,
    Traces,
)
from analysis.settings import (
    AlternationSettings,
    ConnectSettings,
    ExploreSettings,
    HessianSettings,
    ProblemName,
    Settings,
    SurfaceSettings,
)
from analysis.workbench import Workbench
from cli.console import Stages
from cli.errors import FULL
from figures import files
from landscape import store
from landscape.errors import LandscapeError
from landscape.problems import BUILT_IN
from landscape.trajectory import Trajectory


def chosen_settings(
    file: Path | None,
    folder: Path,
    *,
    problem: str,
    problem_settings: dict[str, Any],
    strategies: Sequence[str],
    seeds: Sequence[int],
    steps: int | None,
    device: str,
) -> Settings:
    """The settings named, or else those in the study's folder, or else the built-in ones; then what the command
    says.
    """
    there = folder / "study.toml"
    read = reading.read(file) if file is not None else reading.read(there) if there.exists() else Settings()
    plain = read.model_dump()
    if problem:
        plain |= {"problem": problem, "problem_settings": {}}
    plain["problem_settings"] |= problem_settings
    plain |= {"strategies": list(strategies)} if strategies else {}
    plain |= {"seeds": list(seeds)} if seeds else {}
    plain |= {"device": device} if device else {}
    plain["training"] |= {"steps": steps} if steps else {}
    return reading.parse(plain, "the command line")


def write_settings(chosen: Settings, folder: Path) -> None:
    """`study.toml`, whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "study.toml", reading.write(chosen).encode())
    except OSError as error:
        if error.errno in FULL:
            raise
        raise LandscapeError(
            f"cannot write into {folder} ({error.strerror}): expected a folder that can be written; choose "
            "another with --out"
        ) from error


class Bench:
    """A workbench over the trajectories that a command names."""

    def __init__(self, work: Workbench, labels: Sequence[str]) -> None:
        self._work, self.labels = work, labels

    def surface(self, chosen: SurfaceSettings) -> Surface | Profile:
        """As `Workbench.surface`."""
        return self._work.surface(chosen)

    def plan(self, chosen: SurfaceSettings) -> str:
        """As `Workbench.plan`."""
        return self._work.plan(chosen)

    def connect(self, chosen: ConnectSettings) -> list[Barriers]:
        """As `Workbench.connect`."""
        return self._work.connect(chosen)

    def plan_connection(self, chosen: ConnectSettings) -> str:
        """As `Workbench.plan_connection`."""
        return self._work.plan_connection(chosen)

    def eigenvalues(self, chosen: HessianSettings) -> list[EigenvalueTracks]:
        """As `Workbench.eigenvalues`."""
        return self._work.eigenvalues(chosen)

    def traces(self, chosen: HessianSettings) -> list[Traces]:
        """As `Workbench.traces`."""
        return self._work.traces(chosen)

    def require_curvature(self, chosen: HessianSettings) -> None:
        """As `Workbench.require_curvature`."""
        self._work.require_curvature(chosen)

    def plan_curvature(self, chosen: HessianSettings) -> str:
        """As `Workbench.plan_curvature`."""
        return self._work.plan_curvature(chosen)

    def alternation(self, chosen: AlternationSettings) -> list[Alternation]:
        """As `Workbench.alternation`."""
        return self._work.alternation(chosen)

    def require(self, chosen: ExploreSettings) -> None:
        """As `Workbench.require`."""
        self._work.require(chosen)

    def contrast(self, chosen: ExploreSettings) -> Explored:
        """As `Workbench.contrast`."""
        return self._work.contrast(chosen)

    def explore(self, baseline: str) -> tuple[list[Exploration], tuple[Comparison, ...]]:
        """As `Workbench.explore`."""
        return self._work.explore(baseline)


@contextlib.contextmanager
def bench(
    paths: Sequence[Path],
    out: Path,
    problem: str,
    settings: dict[str, Any],
    device: str,
    threads: int,
    workers: int,
    shown: Stages,
) -> Iterator[Bench]:
    """The trajectories opened, their problem made, the results file at hand; the progress bar goes whatever happens."""
    torch.set_num_threads(threads)
    runs = [store.open(path) for path in paths]
    name = _problem_of(runs[0], problem, settings, device)
    try:
        yield Bench(Workbench(name, runs, out, shown, workers), [run.provenance.label for run in runs])
    finally:
        shown.close()


def _problem_of(run: Trajectory, given: str, settings: dict[str, Any], device: str) -> ProblemName:
    """The problem given, or the built-in one that the file names. What a file names is never imported."""
    who = run.provenance
    if given:
        return ProblemName(name=given, settings=settings, device=device)
    if who.problem not in BUILT_IN:
        raise LandscapeError(
            f"{run.path} was recorded with a problem of your own ({who.problem}): expected it as --problem "
            "FILE.py:FUNCTION, "
            "since code that a file names is never run"
        )
    return ProblemName(name=who.problem, settings={**who.settings, **settings}, device=device)


def snapshots_at(text: str) -> dict[str, Any]:
    """The settings that `--at` stands for: `n=5`, `all`, `last`, or steps `0,100,600`; for each run its own."""
    if text == "all":
        return {"snapshots": 10**9}
    if text == "last":
        return {"snapshots": 1}
    with contextlib.suppress(ValueError):
        if text.startswith("n=") and int(text[2:]) > 0:
            return {"snapshots": int(text[2:])}
        return {"at": [int(step) for step in text.split(",")]}
    raise LandscapeError(f"expected --at as n=COUNT, all, last or steps such as 0,100,600, got {text!r}")
