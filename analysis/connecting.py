"""Are the ends connected? Everything between some points of runs, each piece saved as soon as it is done.

Groups of the results file, with T the title that the settings give: `points/T`, `functions/T`, `separation/RUN-RUN`,
`paths/T` and `barriers/T` for straight lines (with the suffixes `-reestimated` and `-aligned`), `curve/T/POINT-POINT`,
`paths/T-curve` and `barriers/T-curve` for trained curves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from analysis import archive, checks, connectivity, curves, function_space, jobs, recipes, separation, subsets, tracing
from analysis.alignment import Aligner
from analysis.archive import OTHERWISE, Entry, Provenance
from analysis.connectivity import Way
from analysis.curves import CurvePlan
from analysis.desk import Desk, group_of, named, pair_of, record_hash
from analysis.engine_choice import Chosen, chosen_engine
from analysis.examples import training
from analysis.normalisation import can_estimate
from analysis.permutations import named_groups
from analysis.points import Conditions
from analysis.results import (
    Array,
    Barriers,
    Check,
    FunctionDistances,
    Line,
    PathLosses,
    PointDistances,
    Separation,
    TrainedCurve,
)
from analysis.routes import Path, Point, StraightLine, name_of
from analysis.settings import ConnectSettings, HessianSettings, SurfaceSettings
from analysis.subspaces import Frame, Place, build
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.trajectory import Trajectory

OF_THE_PATHS = ("points", "data", "examples", "heads", "seed", "engine")
OF_A_TITLE = ("points", "functions", "paths", "barriers")
"""Kinds of results that are of all points together."""
OF_THE_CURVES = ("curve_steps", "rate", "batch_size", "seed")
NEARBY = 1e-3


def connect(desk: Desk, chosen: ConnectSettings) -> list[Barriers]:
    """Distances, disagreement, separation, barriers and curves between the points that the settings name.

    Raises:
        LandscapeError: fewer than two points; and at the end, when all that can be computed is saved, a run without a
            snapshot that was asked for, or runs of one seed with different starts where one was asked for.
    """
    return _Connection(desk, chosen).run()


def plan(desk: Desk, chosen: ConnectSettings) -> str:
    """What `connect` would measure: pairs, points, time, memory. Times the engine and two steps of a curve, saves
    nothing.
    """
    return _Connection(desk, chosen).plan()


class _Connection:
    def __init__(self, desk: Desk, chosen: ConnectSettings) -> None:
        self._desk, self._chosen, self._title = desk, chosen, chosen.title
        self._problem = desk.problem
        self._missing: list[LandscapeError] = []
        self._places = self._found()
        self._names = [name_of(place) for place in self._places]
        self._pairs = list(combinations(range(len(self._places)), 2))
        self._norms = chosen.batch_norm or (["frozen", "reestimated"] if self._restated else ["frozen"])

    @property
    def _restated(self) -> bool:
        return can_estimate(self._problem)

    def _found(self) -> list[Place]:
        """The points, and what of them is missing."""
        chosen, desk = self._chosen, self._desk
        if chosen.between:
            places = [recipes.place(text, desk.runs) for text in chosen.between]
            if name_of(places[0]) == name_of(places[1]):
                raise LandscapeError(f"expected two different points, got {name_of(places[0])} twice: name another one")
            return places
        places = []
        for run in desk.runs:
            places += [Place(run, row) for row in self._rows(run)]
        if len(places) < 2:
            if self._missing:
                raise self._missing[0]
            raise LandscapeError(
                f"expected two or more points to connect, got {len(places)}: give more runs, more snapshots with --at, "
                "or two with --between"
            )
        return places

    def _rows(self, run: Trajectory) -> list[int]:
        if not self._chosen.at:
            return jobs.chosen_rows(run, HessianSettings(snapshots=self._chosen.snapshots))
        rows = []
        for step in sorted(set(self._chosen.at)):
            try:
                rows.append(run.at(step))
            except LandscapeError as error:
                self._missing.append(error)
        return rows

    def plan(self) -> str:
        conditions = self._conditions(self._norms[0])
        paths = len(self._norms) * (1 + self._chosen.align + self._chosen.curve)
        points = len(self._pairs) * self._chosen.points * paths
        text = f"{len(self._places)} points, {len(self._pairs)} pairs; {self._engine(conditions, None).plan(points)}"
        if self._chosen.curve:
            began = time.perf_counter()
            first, last = (Point.at(place) for place in self._places[:2])
            curves.train(self._problem, first, last, self._curve_plan(2))
            seconds = (time.perf_counter() - began) / 2 * self._chosen.curve_steps * len(self._pairs)
            text += f"; {len(self._pairs)} curves of {self._chosen.curve_steps} steps, about {seconds:.0f} s"
        return text

    def run(self) -> list[Barriers]:
        checks.require_recorded(self._problem, list(dict.fromkeys(place.run for place in self._places)))
        self._require_places()
        aligner = self._aligner() if self._chosen.align else None
        self._drop_others()
        self._distances(aligner)
        self._functions()
        self._separations()
        found = []
        for norm in self._norms:
            found.append(self._barriers(norm, "", "none", self._line))
            if aligner is not None:
                groups = {"groups": hashlib.sha256(repr(aligner.groups).encode()).hexdigest()[:16]}
                found.append(self._barriers(norm, "-aligned", aligner.words, _Lines(aligner), groups))
        if self._chosen.curve:
            trained = self._curves()
            inputs = {f"curve {number}": record_hash(curve) for number, curve in enumerate(trained.values())}

            def along(first: Place, last: Place) -> Path:
                pair = (self._place(first), self._place(last))
                return curves.path_of(trained[pair], Point.at(first), Point.at(last))

            norms = self._norms if trained else []
            found += [self._barriers(norm, "-curve", "none", along, inputs, list(trained)) for norm in norms]
        if self._missing:
            raise LandscapeError(f"{self._missing[0]}; what could be computed is saved in {self._desk.results.path}")
        return found

    def _require_places(self) -> None:
        """Raises where what lies between points of other runs, or of another title, stands under this one's name."""
        suffixes = ["", *(["-aligned"] if self._chosen.align else []), *(["-curve"] if self._chosen.curve else [])]
        names = [self._name(suffix, norm) for suffix in suffixes for norm in self._norms]
        groups = [f"{kind}/{name}" for kind in ("paths", "barriers") for name in names]
        groups += [f"{kind}/{self._title}" for kind in ("points", "functions")]
        advice = f"give it a name of its own with --label, or {OTHERWISE}"
        self._desk.require_places(groups, self._made({}), advice)

    def _drop_others(self) -> None:
        """What was measured between other points, or at other places and under other conditions, would be taken for
        what this title is of now.
        """
        now = {"places": self._names, **self._settings(*(name for name in OF_THE_PATHS if name != "engine"))}
        old = [
            group
            for group, made in archive.provenances(self._desk.results.path).items()
            if group.split("/")[0] in OF_A_TITLE and made.settings.get("title") == self._title
            if any(made.settings.get(key, value) != value for key, value in now.items())
        ]
        if old:
            self._desk.results.save({}, drop=old)

    def _name(self, suffix: str, norm: str) -> str:
        """The title with what tells one measurement between the points from another one, whichever are made."""
        return f"{self._title}{suffix}{'' if norm == 'frozen' else f'-{norm}'}"

    def _line(self, first: Place, last: Place) -> Path:
        return StraightLine(Point.at(first), Point.at(last))

    def _place(self, place: Place) -> int:
        return self._names.index(name_of(place))

    def _aligner(self) -> Aligner:
        given = self._chosen.groups
        groups = named_groups(self._problem, given) if given else tracing.groups_of(self._problem)
        return Aligner(self._problem, groups, seed=self._chosen.seed)

    def _made(self, settings: dict[str, Any], inputs: dict[str, str] | None = None) -> Provenance:
        used = {place.run.name for place in self._places}
        hashes = {name: digest for name, digest in self._desk.hashes.items() if name in used}
        all_inputs = {**hashes, "data": self._problem.data_hash, **(inputs or {})}
        return self._desk.made(all_inputs, {"title": self._title, "places": self._names, **settings}, list(used))

    def _training(self, norm: str) -> dict[str, str]:
        """The hash of the training examples that a measurement depends on, if it does."""
        chosen = self._chosen
        drawn = norm == "reestimated" or chosen.heads == "refitted" or chosen.data == "training"
        return {"training": self._training_hash} if drawn else {}

    @cached_property
    def _training_hash(self) -> str:
        """Of all training examples, or of as many as the settings say."""
        return training(self._problem, self._chosen.examples, self._chosen.seed).hash

    def _settings(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self._chosen, name) for name in names}

    def _distances(self, aligner: Aligner | None) -> None:
        results, group = self._desk.results, f"points/{self._title}"
        made = self._made(self._settings("subset", "align", "groups", "seed"))
        if results.known(group, made, PointDistances) is not None:
            return
        with results.stage("distances", len(self._pairs) if aligner is not None else 1) as note:
            subset, tell = subsets.parse(self._chosen.subset), self._desk.progress.tell
            found = separation.distances(self._places, subset, aligner, tell)
            results.save({group: Entry(found, made)})
            note(f"{len(self._places)} points, {found.subset} parameters")

    def _functions(self) -> None:
        desk, group = self._desk, f"functions/{self._title}"
        inputs = self._training("frozen") if self._chosen.data == "training" else {}
        made = self._made(self._settings("data", "examples", "seed"), inputs)
        if desk.results.known(group, made, FunctionDistances) is not None:
            return
        on = self._conditions("frozen").examples
        amount = len(self._places) * function_space.blocks(self._problem, self._places, on)
        with desk.results.stage("predictions", amount) as note:
            found = function_space.measure(self._problem, self._places, {}, on, desk.progress.tell)
            desk.results.save({group: Entry(found, made)})
            note(f"{found.examples} examples, tasks {', '.join(found.tasks)}")

    def _separations(self) -> None:
        """Of the runs that the points are of, those of one seed with one start."""
        results, runs = self._desk.results, list(dict.fromkeys(place.run for place in self._places))
        for group in separation.one_start(runs, self._refuse):
            made = {
                f"separation/{pair_of(group_of(a), group_of(b))}": self._desk.made(
                    {run.name: self._desk.hashes[run.name] for run in (a, b)},
                    self._settings("subset", "threshold", "seed"),
                )
                for a, b in combinations(group, 2)
            }
            if all(results.known(name, one, Separation) is not None for name, one in made.items()):
                continue
            with results.stage("separation", 1) as note:
                parting = separation.Parting(self._chosen.threshold, seed=self._chosen.seed)
                found = separation.separation(group, subsets.parse(self._chosen.subset), parting)
                entries = {name: Entry(one, made[name]) for name, one in zip(made, found, strict=True)}
                turned = [f"separation/{pair_of(group_of(b), group_of(a))}" for a, b in combinations(group, 2)]
                results.save(entries, drop=[*self._desk.outgrown(["separation"]), *turned])
                note(f"{len(group)} runs of seed {group[0].provenance.seed}")

    def _refuse(self, error: LandscapeError) -> None:
        self._desk.progress.say(f"not paired: {error}")
        if self._chosen.paired:
            self._missing.append(error)

    def _surface_settings(self, norm: str) -> SurfaceSettings:
        """What conditions and engines are made from."""
        chosen = self._chosen
        return SurfaceSettings(
            plane="line",
            subset="shared" if chosen.heads == "refitted" else "all",
            heads="refitted" if chosen.heads == "refitted" else "centre",
            data=[chosen.data],
            batch_norm=[norm],
            examples=chosen.examples,
            seed=chosen.seed,
            engine=chosen.engine,
            max_memory=chosen.max_memory,
        )

    def _conditions(self, norm: str) -> Conditions:
        return recipes.conditions(self._surface_settings(norm), self._problem, self._chosen.data, norm)

    def _engine(self, conditions: Conditions, before: PathLosses | None) -> Chosen:
        """Timed on a line near the first point, since two points may be one."""
        frame = Frame.at(self._places[0])
        nearby = NEARBY * np.ones((1, frame.layout.size))
        space = build(Line, frame, nearby, "line to time the engine on", axes=("t",))
        engine = None if before is None else before.engine
        return chosen_engine(self._surface_settings("frozen"), self._problem, space, conditions, engine)

    def _barriers(
        self,
        norm: str,
        suffix: str,
        alignment: str,
        path: Callable[[Place, Place], Path],
        inputs: dict[str, str] | None = None,
        pairs: Sequence[tuple[int, int]] = (),
    ) -> Barriers:
        """The losses along the paths between all pairs, and the barriers that follow."""
        desk, results = self._desk, self._desk.results
        name = self._name(suffix, norm)
        settings = {**self._settings(*OF_THE_PATHS), "statistics": norm, "alignment": alignment}
        made = self._made(settings, {**self._training(norm), **(inputs or {})})
        known = results.known(f"paths/{name}", made, PathLosses)
        barriers = results.known(f"barriers/{name}", made, Barriers)
        if known is not None and known.done.all() and barriers is not None:
            return barriers
        conditions = self._conditions(norm)
        engine = self._engine(conditions, known)
        conditions = Conditions(engine.engine, conditions.statistics, conditions.heads, conditions.examples)
        t = connectivity.positions(self._chosen.points)
        pairs = pairs or self._pairs
        ways = [self._way(i, j, path) for i, j in pairs]
        already = 0 if known is None else int(known.done.sum()) * len(t)
        desk.progress.say(engine.plan(len(ways) * len(t) - already))
        with results.stage("paths", len(ways) * len(t) - already) as note:
            steps = connectivity.measuring(self._problem, ways, t, conditions, alignment, known)
            found = results.growing(f"paths/{name}", made, steps, lambda p: int(p.done.sum()) * len(t), already)
            barriers = connectivity.barriers(found, self._names)
            tests = tuple(named(f"paths/{name}", test) for test in self._checks(found, norm, pairs))
            results.save({f"paths/{name}": Entry(found, made, tests), f"barriers/{name}": Entry(barriers, made)})
            pairs_words = "1 pair" if len(ways) == 1 else f"{len(ways)} pairs"
            note(f"{name}: {pairs_words}, largest barrier {_largest(barriers)}")
        return barriers

    def _way(self, i: int, j: int, path: Callable[[Place, Place], Path]) -> Way:
        first, last = self._places[i], self._places[j]
        return Way(self._names[i], self._names[j], lambda: path(first, last))

    def _checks(self, found: PathLosses, norm: str, pairs: Sequence[tuple[int, int]]) -> tuple[Check, ...]:
        """Both ends against the losses that training recorded, where they were measured under its conditions."""
        if norm != "frozen" or self._chosen.data != "evaluation" or self._chosen.heads != "interpolated":
            return ()
        recorded = np.stack([place.run.losses[place.row] for place in self._places])
        return (checks.path_ends(found, recorded[np.array(pairs)]),)

    def _curve_plan(self, steps: int) -> CurvePlan:
        chosen = self._chosen
        return CurvePlan(steps, Optimiser("Adam", lr=chosen.rate), chosen.batch_size, chosen.seed)

    def _curves(self) -> dict[tuple[int, int], TrainedCurve]:
        """The curves that could be trained, by pair."""
        trained = {}
        for pair in self._pairs:
            try:
                trained[pair] = self._curve(*pair)
            except LandscapeError as error:
                self._desk.progress.say(f"no curve: {error}")
                self._missing.append(error)
        return trained

    def _curve(self, i: int, j: int) -> TrainedCurve:
        desk, name = self._desk, f"{self._names[i]}-{self._names[j]}"
        ends = [f"{group_of(place.run)}_{place.run.steps[place.row]}" for place in (self._places[i], self._places[j])]
        group = f"curve/{self._title}/{pair_of(*ends)}"
        hashes = {place.run.name: desk.hashes[place.run.name] for place in (self._places[i], self._places[j])}
        settings = {"title": self._title, "ends": name, **self._settings(*OF_THE_CURVES)}
        made = desk.made({**hashes, "training": self._training_hash}, settings)
        known = desk.results.known(group, made, TrainedCurve)
        if known is not None and known.finished:
            return known
        already, steps = 0 if known is None else known.losses.size, self._chosen.curve_steps
        with desk.results.stage("curve, steps", steps - already) as note:
            first, last = Point.at(self._places[i]), Point.at(self._places[j])
            bent = curves.training(self._problem, first, last, self._curve_plan(steps), known)
            found = desk.results.growing(group, made, bent, lambda curve: curve.losses.size, already)
            desk.results.save({group: Entry(found, made)})
            note(f"from {first.name} to {last.name}")
        return found


@dataclass(frozen=True, eq=False)
class _Lines:
    """Straight lines to ends whose hidden units are matched with the start's."""

    aligner: Aligner

    def __call__(self, first: Place, last: Place) -> Path:
        start = Point.at(first)
        return StraightLine(start, self.aligner(start, Point.at(last)).point)


def _largest(barriers: Barriers) -> str:
    """The largest barrier of each loss, in words."""

    def most(matrix: Array) -> float:
        return float(np.nanmax(matrix)) if np.isfinite(matrix).any() else float("nan")

    return ", ".join(
        f"{view} {most(matrix):.3g}" for view, matrix in zip(barriers.views, barriers.barrier, strict=True)
    )
