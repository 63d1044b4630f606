"""A plane or a line over some runs and all that is asked about it, each piece saved as soon as it is done.

Groups of the results file: `plane/T`, `shadow/T/RUN`, `faithfulness/T`, `stability/T`, `conflict/T`, `line/T`, with T
the title that the settings give; and `surface/M`, `shape/M`, `feet/M/RUN`, `interpolation/M`, `ensemble/M`,
`profile/M`, with M the title where losses are of evaluation examples with frozen statistics, else `T-training`,
`T-reestimated` or `T-training-reestimated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Generic, TypeVar

import numpy as np

from analysis import (
    adaptive,
    archive,
    checks,
    conflicts,
    engines,
    ensembles,
    faithfulness,
    planes,
    recipes,
    subsets,
    surfaces,
)
from analysis import shape as shapes
from analysis.archive import Entry, Provenance
from analysis.desk import Desk, group_of, named, record_hash
from analysis.engine_choice import WORDS, Chosen, chosen_engine
from analysis.engines import Engine
from analysis.examples import training
from analysis.normalisation import Reestimated
from analysis.points import Conditions
from analysis.results import (
    Check,
    ConflictMap,
    Faithfulness,
    Feet,
    Interpolation,
    Line,
    Plane,
    PlaneStability,
    Profile,
    ProfileEnsemble,
    Shadow,
    Surface,
    SurfaceEnsemble,
    SurfaceShape,
)
from analysis.settings import LINES, SurfaceSettings

NOT_OF_THE_NUMBERS = {"conflict", "max_memory", "data", "batch_norm", "adaptive", "budget", "draws"}
"""Settings that decide what is measured besides, and change no number of a surface."""


USUAL = ("evaluation", "frozen")
"""Data and statistics of measurements that are called by their title alone."""
OF_CONDITIONS = ("surface", "shape", "feet", "interpolation")
"""Kinds of results on a plane that data and statistics decide."""
VARIANTS = tuple(
    data + norm
    for data, norm in product(("", "-training", "-evaluation"), ("", "-reestimated", "-frozen"))
    if data or norm
)
"""What a measurement on a plane or line can be called after its title, in files of earlier versions too."""
ON_A_PLANE = ("plane", "surface", "faithfulness", "stability", "shape", "conflict", "interpolation", "line", "profile")
"""Kinds of results that are called after a plane or a line."""
NAMED = f"give it a name of its own with --label, or {archive.OTHERWISE}"
"""What to do where the results of other runs have the name."""
Measurement = TypeVar("Measurement", bound=Surface | Profile)


def survey(desk: Desk, chosen: SurfaceSettings) -> Surface | Profile:
    """The plane or line, the surface (profile) on it, and what goes with it; returns the measured one.

    Several draws: one after the other, each with a seed of its own, then their ensemble; the first is returned.
    """
    _require(desk, chosen)
    checks.require_recorded(desk.problem, desk.runs)
    surveys = [_Survey(desk, one) for one in draws_of(chosen)]
    for one in surveys:
        one.require_places()
    if chosen.draws > 1:
        for title in (f"{_ensemble_title(chosen)}{suffix_of(pair)}" for pair in pairs_of(chosen)):
            desk.require_places([f"ensemble/{title}"], desk.made({}, {"title": title}), NAMED)
    members = [one.run() for one in surveys]
    if chosen.draws > 1:
        for pair in pairs_of(chosen):
            _ensemble(desk, chosen, suffix_of(pair))
    return members[0]


def _require(desk: Desk, chosen: SurfaceSettings) -> None:
    """Raises for what could not be measured once the plane is saved."""
    recipes.most_points(chosen)
    recipes.memory(chosen.max_memory)
    if chosen.engine not in WORDS:
        engines.parse(chosen.engine, WORDS)
    if "reestimated" in chosen.batch_norm:
        Reestimated(chosen.examples, seed=chosen.seed).layers(desk.problem)
    if chosen.conflict:
        conflicts.require_shared(desk.problem)


def plan(desk: Desk, chosen: SurfaceSettings) -> str:
    """What a survey would measure: points, time, memory, engine. Makes the plane, times the engine, saves nothing.

    Raises:
        LandscapeError: what the survey would be refused for.
    """
    _require(desk, chosen)
    space = recipes.plane(chosen, desk.problem, desk.runs)
    conditions = recipes.conditions(chosen, desk.problem, chosen.data[0], chosen.batch_norm[0])
    engine = chosen_engine(chosen, desk.problem, space, conditions)
    points = len(recipes.along(chosen, desk.problem, space)) if isinstance(space, Line) else recipes.most_points(chosen)
    words = engine.plan(points * chosen.draws * len(pairs_of(chosen)))
    whole, tasks = chosen.nx * chosen.ny * chosen.draws, len(desk.problem.tasks)
    return f"{words}; and {whole} points with {tasks} gradients each" if chosen.conflict else words


def draws_of(chosen: SurfaceSettings) -> list[SurfaceSettings]:
    """The settings of every draw, each with a seed and a title of its own."""
    label = chosen.label

    def one(k: int) -> SurfaceSettings:
        seed = chosen.seed + k
        named_so = {"label": f"{label}-{seed}"} if label and chosen.draws > 1 else {}
        return chosen.model_copy(update={"seed": seed, "draws": 1, **named_so})

    return [one(k) for k in range(chosen.draws)]


def pairs_of(chosen: SurfaceSettings) -> list[tuple[str, str]]:
    """Every choice of data and of statistics, the first one first."""
    return [(data, norm) for data in chosen.data for norm in chosen.batch_norm]


def suffix_of(pair: tuple[str, str]) -> str:
    """What a measurement is called after its title: by its conditions, whichever else are measured."""
    return "".join(f"-{word}" for word, usual in zip(pair, USUAL, strict=True) if word != usual)


def _ensemble(desk: Desk, chosen: SurfaceSettings, suffix: str) -> None:
    """The median of all draws under the same conditions."""
    kind = "profile" if chosen.plane in LINES else "surface"
    entries = [archive.find(desk.results.path, f"{kind}/{one.title}{suffix}") for one in draws_of(chosen)]
    members = [entry.record for entry in entries if entry is not None]
    summary: SurfaceEnsemble | ProfileEnsemble
    if chosen.plane in LINES:
        summary = ensembles.summary_of_profiles([m for m in members if isinstance(m, Profile)])
    else:
        summary = ensembles.summary([m for m in members if isinstance(m, Surface)])
    title = _ensemble_title(chosen) + suffix
    inputs = {f"member {k}": record_hash(member) for k, member in enumerate(members)}
    others = [] if suffix else [f"ensemble/{title}{variant}" for variant in VARIANTS]  # of earlier settings
    desk.results.save({f"ensemble/{title}": Entry(summary, desk.made(inputs, {"title": title}))}, drop=others)


def _titled(desk: Desk, title: str, groups: Iterable[str]) -> list[str]:
    """Those of some groups, or of groups of groups, that are there, but for what another label named so."""
    there = archive.provenances(desk.results.path)

    def titles(group: str) -> set[Any]:
        inside = [made for name, made in there.items() if name == group or name.startswith(f"{group}/")]
        return {made.settings.get("title", title) for made in inside}

    return [group for group in groups if titles(group) == {title}]


def _ensemble_title(chosen: SurfaceSettings) -> str:
    return archive.distinct_name(chosen.label or chosen.plane)


@dataclass(frozen=True, eq=False)
class _Work(Generic[Measurement]):
    """How a surface or a profile is measured, checked and spoken of."""

    name: str
    kind: str
    """Of the group, before the slash."""
    axes: tuple[Sequence[float], ...]
    steps: Callable[[Conditions, Measurement | None], Iterator[Measurement]]
    words: Callable[[Measurement], str]

    @property
    def points(self) -> int:
        return math.prod(map(len, self.axes))


class _Survey:
    """One plane or line, and its title."""

    def __init__(self, desk: Desk, chosen: SurfaceSettings) -> None:
        self._desk, self._chosen, self._title = desk, chosen, chosen.title
        self._problem = desk.problem
        self._first = f"{chosen.title}{suffix_of(pairs_of(chosen)[0])}"

    def run(self) -> Surface | Profile:
        """Everything that the settings ask for."""
        if self._chosen.plane in LINES:
            return self._profiles()
        plane, shadows = self._plane()
        grid = recipes.grid(self._chosen, self._problem, plane, shadows)
        if self._chosen.adaptive:
            found = self._interpolation(plane, grid)
            surface, whole = found.surface, _as_surface(found)
        else:
            surface = whole = self._surfaces(plane, grid)
        self._shape(whole)
        self._faithful(plane, shadows, engines.plain(self._problem, surface.engine))
        if self._chosen.conflict:
            self._conflicts(plane, grid)
        return surface

    def require_places(self) -> None:
        """Raises where results of other runs, or of another plane's title, stand under this one's name."""
        measured = "profile" if self._chosen.plane in LINES else "surface"
        groups = [f"{kind}/{self._title}" for kind in ON_A_PLANE]
        groups += [f"{measured}/{self._title}{suffix_of(pair)}" for pair in pairs_of(self._chosen)]
        names = [f"{self._title}{suffix}" for suffix in VARIANTS]
        groups += _titled(self._desk, self._title, (f"{kind}/{name}" for kind in ON_A_PLANE for name in names))
        self._desk.require_places(groups, self._made({}, {}), NAMED)

    def _made(self, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> Provenance:
        return self._desk.made(inputs, {"title": self._title, **settings})

    def _recipe(self) -> dict[str, Any]:
        """The settings that a plane or a line follows from."""
        keys = ("plane", "subset", "heads", "centre", "through", "tasks", "seed")
        recipe = {key: getattr(self._chosen, key) for key in keys}
        if self._chosen.vectors:
            recipe["vectors"] = self._chosen.vectors
        if self._chosen.plane != "principal":
            recipe["order"] = [run.name for run in self._desk.runs]  # the first ones are the default places
        return recipe

    def _data(self, pair: tuple[str, str]) -> dict[str, str]:
        """Hashes of the examples that a measurement depends on: those for evaluation, and for training where losses,
        statistics or heads are of such.
        """
        hashes = {"data": self._problem.data_hash}
        if self._uses_training(pair):
            hashes["training"] = self._training_hash
        return hashes

    def _uses_training(self, pair: tuple[str, str]) -> bool:
        return pair != ("evaluation", "frozen") or self._chosen.heads == "refitted"

    @cached_property
    def _training_hash(self) -> str:
        return training(self._problem, self._chosen.examples, self._chosen.seed).hash

    def _inputs(self) -> dict[str, str]:
        inputs = {**self._desk.hashes, "data": self._problem.data_hash}
        if self._chosen.vectors:
            inputs["vectors"] = recipes.array_hash(self._chosen.vectors)
        return inputs

    def _plane(self) -> tuple[Plane, list[Shadow]]:
        desk, title = self._desk, self._title
        made = self._made(self._inputs(), self._recipe())
        plane = desk.results.known(f"plane/{title}", made, Plane)
        known = [desk.results.known(f"shadow/{title}/{group_of(run)}", made, Shadow) for run in desk.runs]
        shadows = [shadow for shadow in known if shadow is not None]
        if plane is not None and len(shadows) == len(known):
            return plane, shadows
        with desk.results.stage("plane and shadows", len(desk.runs)) as note:
            made_now = recipes.plane(self._chosen, self._problem, desk.runs)
            assert isinstance(made_now, Plane)
            plane, shadows = made_now, []
            for run in desk.runs:
                shadows.append(planes.shadow(run, plane))
                desk.progress.tell(1)
            checked = named(f"plane/{title}", checks.point_and_shadow(plane))
            entries = {f"plane/{title}": Entry(plane, made, (checked,))}
            for run, shadow in zip(desk.runs, shadows, strict=True):
                entries[f"shadow/{title}/{group_of(run)}"] = Entry(shadow, made)
            desk.results.save(entries, drop=self._of_another_plane(plane))
            share = plane.explained.sum()
            note(f"{100 * share:.0f} % of the variance" if np.isfinite(share) else plane.recipe)
        return plane, shadows

    def _of_another_plane(self, plane: Plane) -> list[str]:
        """What would otherwise stand beside a new plane: the old one's shadows, also those of runs that are no longer
        here, and all that was measured on it.
        """
        title, results = self._title, self._desk.results
        before = archive.find(results.path, f"plane/{title}")
        names = [f"{title}{suffix}" for suffix in ("", *VARIANTS)]
        if before is None or before.record == plane:
            return [f"shadow/{title}", *_titled(self._desk, title, (f"feet/{name}" for name in names))]
        once = [f"{kind}/{title}" for kind in ("shadow", "faithfulness", "stability", "conflict")]
        return [*once, *_titled(self._desk, title, (f"{kind}/{name}" for kind in OF_CONDITIONS for name in names))]

    def _surfaces(self, plane: Plane, grid: surfaces.Grid) -> Surface:
        """A surface for every choice of data and statistics; the first is returned."""
        found = [self._surface(plane, grid, pair) for pair in pairs_of(self._chosen)]
        return found[0]

    def _conditions_of(self, pair: tuple[str, str]) -> dict[str, Any]:
        """The settings that conditions follow from."""
        drawn = {name: getattr(self._chosen, name) for name in ("examples", "seed") if self._uses_training(pair)}
        return {"on": pair[0], "statistics": pair[1], "heads": self._chosen.heads, **drawn}

    def _settings(self, data: str, norm: str) -> dict[str, Any]:
        return {**self._chosen.model_dump(exclude=NOT_OF_THE_NUMBERS), "on": data, "statistics": norm}

    def _surface(self, plane: Plane, grid: surfaces.Grid, pair: tuple[str, str]) -> Surface:
        name, tasks = f"{self._title}{suffix_of(pair)}", ", ".join(self._problem.names)
        shape = f"{len(grid.x)} x {len(grid.y)} points"
        work = _Work(
            "surface",
            "surface",
            (grid.x, grid.y),
            lambda conditions, known: surfaces.measuring(self._problem, plane, grid, conditions, known),
            lambda found: f"{name}: {shape}, {found.examples} examples, tasks {tasks}",
        )
        return self._measured(Surface, plane, pair, work)

    def _measured(
        self, kind: type[Measurement], space: Plane | Line, pair: tuple[str, str], work: _Work[Measurement]
    ) -> Measurement:
        """A record as the file knows it, or measured, or what was begun gone on with."""
        desk, group = self._desk, f"{work.kind}/{self._title}{suffix_of(pair)}"
        made = self._made({type(space).__name__.lower(): record_hash(space), **self._data(pair)}, self._settings(*pair))
        known = desk.results.known(group, made, kind)
        if known is not None and known.done.all():
            return known
        if known is None:
            self._drop_others(group, space, work)
        conditions = recipes.conditions(self._chosen, self._problem, *pair)
        engine = self._engine(space, conditions, known)
        conditions = replace(conditions, engine=engine.engine)
        already = 0 if known is None else int(known.done.sum())
        desk.progress.say(engine.plan(work.points - already))
        with desk.results.stage(work.name, work.points - already) as note:
            steps = work.steps(conditions, known)
            found = desk.results.growing(group, made, steps, lambda record: int(record.done.sum()), already)
            desk.results.save({group: Entry(found, made, self._checked(group, found, conditions))})
            note(work.words(found))
        return found

    def _drop_others(self, group: str, space: Plane | Line, work: _Work[Measurement]) -> None:
        """What was measured under other conditions on another plane or grid would be taken for this one's."""
        names = [f"{self._title}{suffix}" for suffix in ("", *VARIANTS)]
        others = [f"{work.kind}/{name}" for name in names if f"{work.kind}/{name}" != group]
        old = [other for other in _titled(self._desk, self._title, others) if not self._is_beside(other, space, work)]
        if old:
            kinds = ("shape", "feet") if work.kind == "surface" else ()
            beside = [f"{kind}/{other.partition('/')[2]}" for kind in kinds for other in old]
            self._desk.results.save({}, drop=[*old, *beside])

    def _is_beside(self, group: str, space: Plane | Line, work: _Work[Measurement]) -> bool:
        """Whether a measurement lies on the same plane and grid, or line and points."""
        record = archive.load(self._desk.results.path, group).record
        assert isinstance(record, Surface | Profile)
        mine = (record.plane, (record.x, record.y)) if isinstance(record, Surface) else (record.line, (record.x,))
        return mine[0] == space and all(map(np.array_equal, mine[1], work.axes))

    def _checked(self, group: str, found: Surface | Profile, conditions: Conditions) -> tuple[Check, ...]:
        """What was measured against a plain loop; where an engine computes in other arithmetic, its error is said."""
        against = checks.plain_loop(self._problem, found, conditions=conditions)
        average = checks.recomposed_average(self._problem, found, conditions=conditions)
        if not checks.arithmetic_of(engines.parse(found.engine)).usual:
            self._desk.progress.say(
                f"{group}: losses are off by up to {100 * against.value:.2g} % at points looked at ({against.reason})"
            )
        return named(group, against), named(group, average)

    def _engine(self, space: Plane | Line, conditions: Conditions, known: Surface | Profile | None) -> Chosen:
        before = None if known is None else known.engine
        return chosen_engine(self._chosen, self._problem, space, conditions, before)

    def _interpolation(self, plane: Plane, grid: surfaces.Grid) -> Interpolation:
        desk, group = self._desk, f"interpolation/{self._first}"
        pair = pairs_of(self._chosen)[0]
        settings = {**self._settings(*pair), "adaptive": self._chosen.adaptive, "budget": self._chosen.budget}
        made = self._made({"plane": record_hash(plane), **self._data(pair)}, settings)
        choice = recipes.refinement(self._chosen)
        known = desk.results.known(group, made, Interpolation)
        if known is not None and adaptive.is_finished(known, choice):
            return known
        conditions = recipes.conditions(self._chosen, self._problem, *pair)
        engine = self._engine(plane, conditions, None if known is None else known.surface)
        conditions = replace(conditions, engine=engine.engine)
        points = recipes.most_points(self._chosen)
        desk.progress.say(engine.plan(points))
        already = 0 if known is None else int(known.surface.done.sum())
        with desk.results.stage("adaptive surface, points at most", points - already) as note:
            steps = adaptive.refining(self._problem, plane, grid, choice, conditions, known)
            found = desk.results.growing(group, made, steps, lambda i: int(i.surface.done.sum()), already)
            desk.results.save({group: Entry(found, made, self._checked(group, found.surface, conditions))})
            reached = "within" if found.reached else "NOT within"
            worst = float(np.max([*found.error_share, found.average_error_share]))
            share = found.surface.done.mean()
            note(f"{share:.0%} of the points, largest error {worst:.2%} of the range, {reached} the tolerance")
        if not found.reached:
            desk.progress.say(
                f"the tolerance of {choice.tolerance:.2%} of the range was not met within {choice.budget:.0%} of the "
                f"points: {worst:.2%} was reached; give a larger --budget or --adaptive"
            )
        return found

    def _shape(self, surface: Surface) -> None:
        made = self._made({"surface": record_hash(surface)}, {})
        group = f"shape/{self._first}"
        if self._desk.results.known(group, made, SurfaceShape) is None:
            self._desk.results.save({group: Entry(shapes.shape(surface), made)})

    def _faithful(self, plane: Plane, shadows: Sequence[Shadow], engine: Engine) -> None:
        """True losses beside the plane's under the surface's conditions, and what the plane shows of the runs."""
        desk, title, pair = self._desk, self._title, pairs_of(self._chosen)[0]
        of_plane = {**desk.hashes, "plane": record_hash(plane)}
        made = self._made({**of_plane, **self._data(pair)}, self._conditions_of(pair))
        groups = {
            f"feet/{self._first}/{group_of(run)}": (run, shadow) for run, shadow in zip(desk.runs, shadows, strict=True)
        }
        todo = {g: pair for g, pair in groups.items() if desk.results.known(g, made, Feet) is None}
        if todo:
            with desk.results.stage("true losses beside the plane's", len(todo)) as note:
                conditions = recipes.conditions(self._chosen, self._problem, *pair, engine)
                entries = {}
                for group, (run, shadow) in todo.items():
                    feet = faithfulness.feet(self._problem, plane, shadow, run, conditions)
                    entries[group] = Entry(feet, made)
                    desk.progress.tell(1)
                desk.results.save(entries)
                note(f"{len(todo)} runs")
        made = self._made({**of_plane, "data": self._problem.data_hash}, {"seed": self._chosen.seed})
        if not any(len(run) > 1 for run in desk.runs):
            return
        if desk.results.known(f"faithfulness/{title}", made, Faithfulness) is None:
            found = faithfulness.faithfulness(desk.runs, plane, seed=self._chosen.seed)
            desk.results.save({f"faithfulness/{title}": Entry(found, made)})
            desk.progress.say(_trust_words(title, found))
        if self._chosen.plane == "principal":
            self._stability(made)

    def _stability(self, made: Provenance) -> None:
        group, results = f"stability/{self._title}", self._desk.results
        if results.known(group, made, PlaneStability) is None:
            subset = subsets.parse(self._chosen.subset)
            found = faithfulness.stability(self._desk.runs, subset, recipes.centre(self._chosen, self._desk.runs))
            results.save({group: Entry(found, made)})

    def _conflicts(self, plane: Plane, grid: surfaces.Grid) -> None:
        desk, group = self._desk, f"conflict/{self._title}"
        made = self._made(
            {"plane": record_hash(plane), "data": self._problem.data_hash},
            {"x": list(grid.x), "y": list(grid.y), "seed": self._chosen.seed},
        )
        known = desk.results.known(group, made, ConflictMap)
        if known is not None and known.done.all():
            return
        already = 0 if known is None else int(known.done.sum())
        with desk.results.stage("conflict map", grid.shape[0] * grid.shape[1] - already) as note:
            steps = conflicts.mapping(self._problem, plane, grid, known, self._chosen.seed)
            found = desk.results.growing(group, made, steps, lambda c: int(c.done.sum()), already)
            desk.results.save({group: Entry(found, made)})
            note(f"{len(found.pairs)} pairs of tasks, {int(found.pareto.sum())} points in the grid's Pareto set")

    def _profiles(self) -> Profile:
        """A line and the losses along it, for every choice of data and statistics; the first is returned."""
        desk, title = self._desk, self._title
        made = self._made(self._inputs(), self._recipe())
        line = desk.results.known(f"line/{title}", made, Line)
        if line is None:
            found = recipes.plane(self._chosen, self._problem, desk.runs)
            assert isinstance(found, Line)
            line = found
            old = _titled(desk, title, [f"profile/{title}{suffix}" for suffix in ("", *VARIANTS)])
            desk.results.save({f"line/{title}": Entry(line, made)}, drop=old)
        x = recipes.along(self._chosen, self._problem, line)
        profiles = [self._profile(line, x, pair) for pair in pairs_of(self._chosen)]
        return profiles[0]

    def _profile(self, line: Line, x: Sequence[float], pair: tuple[str, str]) -> Profile:
        name = f"{self._title}{suffix_of(pair)}"
        work = _Work[Profile](
            "line",
            "profile",
            (x,),
            lambda conditions, known: surfaces.profiling(self._problem, line, x, conditions, known),
            lambda found: f"{name}: {len(x)} points, {line.recipe}",
        )
        return self._measured(Profile, line, pair, work)


def _trust_words(title: str, found: Faithfulness) -> str:
    """What a plane shows of all runs together, beside random walks."""
    variance, walks = found.variance[-1].sum(), found.null_variance.sum()
    return (
        f"{title}: shows {variance:.0%} of the runs' variance (the best plane of random walks: {walks:.0%}) and "
        f"{found.distance[-1]:.0%} of the distance travelled ({found.null_distance:.0%})"
    )


def _as_surface(found: Interpolation) -> Surface:
    """The fit as if it had been measured, without errors: for its shape only."""
    finite = np.asarray(np.isfinite(found.loss).all(0))
    nothing = {name: np.full_like(getattr(found.surface, name), np.nan) for name in surfaces.ERROR_FIELDS}
    return replace(found.surface, loss=found.loss, done=finite, **nothing)
