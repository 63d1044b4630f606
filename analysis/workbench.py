"""Analyses of some trajectories, saved into one results file. What is there already is not made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analysis import alternations, archive, checks, connecting, distances, examining, exploring, statistics
from analysis.archive import Entry
from analysis.desk import Desk, Progress, group_of
from analysis.exploring import Explored
from analysis.results import (
    Alternation,
    Barriers,
    Comparison,
    DistanceMatrix,
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
    SurfaceSettings,
)
from analysis.survey import plan, survey
from landscape.trajectory import Trajectory


class Workbench:
    """Some trajectories of one problem, and the analyses that can be made of them.

    Raises:
        LandscapeError: trajectories of another model or of other evaluation data than the problem's.
        ArchiveError: results of another problem, or of another run of the same name.
    """

    def __init__(
        self,
        name: ProblemName,
        runs: Sequence[Trajectory],
        results: Path,
        progress: Progress,
        workers: int = 1,
        study: bool = False,
    ) -> None:
        self._desk, self._workers = Desk(name, runs, results, progress, study), workers

    def surface(self, chosen: SurfaceSettings) -> Surface | Profile:
        """A plane or a line and all that is asked about it; what was begun is gone on with. See `analysis.survey`."""
        return survey(self._desk, chosen)

    def plan(self, chosen: SurfaceSettings) -> str:
        """What `surface` would measure, in words."""
        return plan(self._desk, chosen)

    def connect(self, chosen: ConnectSettings) -> list[Barriers]:
        """Barriers between points, and all that lies between them; see `analysis.connecting`."""
        return connecting.connect(self._desk, chosen)

    def plan_connection(self, chosen: ConnectSettings) -> str:
        """What `connect` would measure, in words."""
        return connecting.plan(self._desk, chosen)

    def eigenvalues(self, chosen: HessianSettings) -> list[EigenvalueTracks]:
        """Eigenvalues along every run, and what else is asked of the curvature; see `analysis.examining`."""
        return examining.examine(self._desk, chosen, self._workers)

    def traces(self, chosen: HessianSettings) -> list[Traces]:
        """What `eigenvalues` has found of traces and norms; see `examining.traces`."""
        return examining.traces(self._desk, chosen)

    def require_curvature(self, chosen: HessianSettings) -> None:
        """Raises where the settings do not fit the problem; see `examining.require`."""
        examining.require(self._desk, chosen)

    def plan_curvature(self, chosen: HessianSettings) -> str:
        """What `eigenvalues` would compute at most, in words."""
        return examining.whole_plan(self._desk, chosen)

    def alternation(self, chosen: AlternationSettings) -> list[Alternation]:
        """The theory of alternating steps beside steps taken, along every run. See `analysis.alternations`."""
        return alternations.along_all(self._desk, chosen)

    def require(self, chosen: ExploreSettings) -> None:
        """Raises where the runs are not those that the settings name; see `exploring.require`."""
        exploring.require(self._desk, chosen)

    def contrast(self, chosen: ExploreSettings) -> Explored:
        """Every measure of every run, beside random walks, and every strategy against the baseline."""
        return exploring.explore(self._desk, chosen)

    def explore(self, baseline: str) -> tuple[list[Exploration], tuple[Comparison, ...]]:
        """Exploration of every run, distances between their ends, and every strategy against the baseline.

        A run whose file begins later than at step 0 has no start to measure from, and one that keeps a projection has
        no exact distances: it is said and left out of these.
        """
        whole = [run for run in self._desk.runs if run.sketch is None]
        begun = [run for run in whole if run.steps[0] == 0]
        for run in self._desk.runs:
            if run.sketch is not None:
                self._desk.progress.say(
                    f"{run.path} keeps a random projection of theta: its distances are estimates, with their errors, "
                    "and exact ones are left out"
                )
            elif run.steps[0] != 0:
                self._desk.progress.say(
                    f"{run.path} begins at step {run.steps[0]}, not at its start: what is measured from the start is "
                    "left out"
                )
        exploring.require_whole(self._desk)
        made = self._desk.made(self._desk.hashes, {"baseline": baseline})
        known = [self._desk.results.known(f"exploration/{group_of(run)}", made, Exploration) for run in begun]
        there = [exploration for exploration in known if exploration is not None]
        repeated = exploring.repetitions(self._desk.runs)
        between = self._desk.results.known("distances/last", made, DistanceMatrix)
        if len(there) == len(known) and (between is not None or not whole):
            return there, _compared(there, baseline, repeated)
        with self._desk.results.stage("exploration", len(self._desk.runs)) as note:
            explored: list[Exploration] = []
            entries: dict[str, Entry] = {}
            for run in self._desk.runs:
                if run in begun:
                    explored.append(distances.exploration(run))
                    entries[f"exploration/{group_of(run)}"] = Entry(explored[-1], made)
                entries[f"training/{group_of(run)}"] = Entry(distances.training(run), made)
                self._desk.progress.tell(1)
            compared = _compared(explored, baseline, repeated)
            for c in compared:
                entries[f"comparison/{archive.distinct_name(c.strategy)}/{c.measure}/{c.budget}"] = Entry(c, made)
            if whole:
                checked = (
                    checks.recorded_losses(self._desk.problem, whole),
                    *([checks.same_start(begun)] if begun else []),
                    checks.path_bounds(whole),
                )
                entries["distances/last"] = Entry(distances.between_last(whole), made, checked)
            self._desk.results.save(entries, drop=["exploration", "training", "comparison"])
            note(f"{len(explored)} runs, {len(compared)} comparisons")
        return explored, compared


def _compared(
    explored: Sequence[Exploration], baseline: str, repeated: Mapping[tuple[str, int], int]
) -> tuple[Comparison, ...]:
    """Every strategy against the baseline, without runs that are another one over again."""
    counted = [one for one in explored if (one.run.label, one.run.seed) not in repeated]
    said = exploring.said_of_repetitions(repeated, [one.run.label for one in explored])
    found = statistics.compare_all(counted, baseline)
    return tuple(replace(one, note=f"{said} {one.note}".strip()) for one in found) if said else found
