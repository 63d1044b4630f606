"""Curvature along some runs: eigenvalues, densities, sharpness and agreement, saved into one results file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analysis import agreement, archive, checks, densities, sharpness, subsets, summaries, tracking
from analysis.archive import ArchiveError, Entry, Provenance, distinct_name
from analysis.densities import Measurement, Quadrature, Subject
from analysis.desk import SAVE_EVERY, Desk, group_of, made_alike, named
from analysis.eigensearch import Accuracy
from analysis.jobs import chosen_rows, problem_of
from analysis.kinds import Fisher, GaussNewton, Hessian, Kind
from analysis.operators import hessians, linearity, probe
from analysis.pool import Tell, run_all
from analysis.product_choice import Auto
from analysis.recipes import memory
from analysis.results import (
    Check,
    Density,
    EigenvalueTracks,
    Moments,
    Record,
    Sharpness,
    SpectrumSummary,
    TaskAgreement,
    Traces,
    TracksUnderway,
)
from analysis.scaling import Elementwise
from analysis.settings import HessianSettings, ProblemName
from analysis.subsets import Head, Shared, Subset, Tensors
from landscape import store
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.trajectory import Layout, Trajectory

KINDS: dict[str, Kind] = {"hessian": Hessian(), "gauss-newton": GaussNewton(), "fisher": Fisher()}
_OF_ALL = ("at", "snapshots", "on", "layers", "matrix", "seed", "max_memory")
SETTINGS: dict[str, tuple[str, ...]] = {
    "eigenvalues": ("top", "end", "tolerance", "products", "tasks", "intervals"),
    "spectrum": ("tasks", "probes", "degree", "trace"),
    "trace": ("tasks", "trace"),
    "agreement": ("top", "tolerance", "products", "batch"),
    "sharpness": ("tolerance", "products", "radius", "pairs"),
}
"""What each analysis depends on, beside what all do."""
PARTS = {"spectrum": ("density", "moments")}
"""What else an analysis saves of a run and a subset: for every operator and snapshot a record of its own."""
SUMS = ("products", "gradients", "passes")
"""Fields that add up when records of single snapshots are joined."""

Kept = TypeVar("Kept", bound=Record)


@dataclass(frozen=True)
class Task:
    """One analysis of one run on one subset of the parameters."""

    what: str
    subset: Subset
    suffix: str
    """What the groups' names have behind the analysis' name; empty for Hessians on the shared parameters."""

    def group(self, run: Trajectory, what: str = "") -> str:
        """`WHAT/RUN`, or `WHAT-KIND-SUBSET/RUN`."""
        return f"{what or self.what}{self.suffix}/{group_of(run)}"


@dataclass(frozen=True)
class Part:
    """A file beside the results for what is underway; it is removed when all is done."""

    path: Path
    made: Provenance

    def known(self, group: str, kind: type[Kept]) -> Kept | None:
        """What was saved under the same settings, if anything was."""
        try:
            entry = archive.find(self.path, group)
        except ArchiveError:
            return None
        return made_alike(entry, self.made, kind)

    def save(self, entries: Mapping[str, Record]) -> None:
        archive.save(self.path, {group: Entry(record, self.made) for group, record in entries.items()})


def tasks_of(chosen: HessianSettings, layout: Layout) -> list[Task]:
    """All that the settings ask for, on every subset."""
    wanted = ["eigenvalues"] + [
        what
        for what, asked in (
            ("spectrum", chosen.density),
            ("trace", chosen.traces and not chosen.density),
            ("agreement", chosen.agreement),
            ("sharpness", chosen.sharpness),
        )
        if asked
    ]
    places = [subsets.parse(text) for text in chosen.on]
    found = [Task(what, subset, _suffix(chosen.matrix, subset)) for subset in places for what in wanted]
    if chosen.layers:
        parts = [layer for subset in places for layer in subsets.layers(layout, subset).values()]
        found += [Task("eigenvalues", layer, _suffix(chosen.matrix, layer)) for layer in parts]
    return list({task.suffix + task.what: task for task in found}.values())


def _suffix(kind: str, subset: Subset) -> str:
    parts = ([] if kind == "hessian" else [kind]) + ([] if isinstance(subset, Shared) else [_title(subset)])
    return "".join(f"-{part}" for part in parts)


def _title(subset: Subset) -> str:
    """What groups call a subset, which no other one is called."""
    match subset:
        case Head(task):
            return f"head_{distinct_name(task)}"
        case Tensors(label=label):
            return f"layer-{distinct_name(label.removeprefix('layer '))}"
    return distinct_name(subset.label, reserved=("head_", "layer-", *KINDS))


EIGENVALUES = Task("eigenvalues", Shared(), "")
"""The eigenvalues of Hessians on the shared parameters, which every study has."""


def require(desk: Desk, chosen: HessianSettings) -> None:
    """Raises where a subset is not there, or has fewer parameters than eigenvalues are asked for."""
    for text in chosen.on:
        size = subsets.size(subsets.parse(text), desk.problem.layout)
        if chosen.top > size:
            raise LandscapeError(f"expected at most {size} eigenvalues on {text}, got {chosen.top}: ask for fewer")


def examine(desk: Desk, chosen: HessianSettings, workers: int = 1) -> list[EigenvalueTracks]:
    """Everything that is asked for, along every run: as the file knows it, gone on with, or measured. Returns the
    eigenvalues on the first subset.
    """
    checks.require_recorded(desk.problem, desk.runs)
    for subset in chosen.on:
        subsets.parse(subset).spans(desk.problem.layout)
    _spectrum(chosen, Shared()).names(desk.problem.names)
    tasks = tasks_of(chosen, desk.problem.layout)
    wanted = {run.name: [task for task in tasks if not _is_known(desk, chosen, run, task)] for run in desk.runs}
    todo = [run for run in desk.runs if wanted[run.name]]
    if todo:
        desk.progress.say(plan(desk, chosen, todo, wanted))
        amount = sum(_most(desk.problem, run, chosen, task) for run in todo for task in wanted[run.name])
        with desk.results.stage(_stage(wanted), amount) as note:
            parts = [_part(desk, chosen, run) for run in todo]
            arguments = [
                (desk.name, run.path, chosen, tuple(wanted[run.name]), part)
                for run, part in zip(todo, parts, strict=True)
            ]
            checked = _operator_checks(desk.problem, todo[0], chosen)
            products = 0

            def keep(index: int, found: dict[Task, dict[str, Record]]) -> None:
                nonlocal products
                run, entries, former = todo[index], {}, []
                for task, records in found.items():
                    former += [task.group(run, part) for part in PARTS.get(task.what, ())]
                    made = _made(desk, chosen, run, task)
                    tests = checked if index == 0 and task == EIGENVALUES else ()
                    for group, record in records.items():
                        every = tuple(named(group, test) for test in (*_checks(record), *tests))
                        entries[group] = Entry(record, made, every)
                        products += 0 if isinstance(record, SpectrumSummary) else getattr(record, "products", 0)
                desk.results.save(entries, drop=former)
                parts[index].path.unlink(missing_ok=True)

            run_all(job, arguments, workers, desk.progress.tell, keep)
            note(f"{products} products")
    first = tasks[0]
    known = [
        desk.results.known(first.group(run), _made(desk, chosen, run, first), EigenvalueTracks) for run in desk.runs
    ]
    return [one for one in known if one is not None]


def traces(desk: Desk, chosen: HessianSettings) -> list[Traces]:
    """What the file knows of traces and norms along the runs, on the first subset, where they were asked for."""
    kinds: dict[str, type[Traces]] = {"trace": Traces, "spectrum": SpectrumSummary}
    tasks = [task for task in tasks_of(chosen, desk.problem.layout) if task.what in kinds]
    found: list[Traces | None] = [
        desk.results.known(task.group(run), _made(desk, chosen, run, task), kinds[task.what])
        for task in tasks[:1]
        for run in desk.runs
    ]
    return [one for one in found if one is not None]


def _stage(wanted: Mapping[str, Sequence[Task]]) -> str:
    only = {task.what for tasks in wanted.values() for task in tasks} == {"eigenvalues"}
    return "Hessian eigenvalues" if only else "curvature"


def whole_plan(desk: Desk, chosen: HessianSettings) -> str:
    """What `examine` would compute at most, where nothing is known yet, in words."""
    tasks = tasks_of(chosen, desk.problem.layout)
    return plan(desk, chosen, desk.runs, {run.name: tasks for run in desk.runs})


def plan(desk: Desk, chosen: HessianSettings, runs: Sequence[Trajectory], wanted: Mapping[str, Sequence[Task]]) -> str:
    """What is left to measure, in words."""
    snapshots = sum(len(chosen_rows(run, chosen)) for run in runs)
    most = sum(_most(desk.problem, run, chosen, task) for run in runs for task in wanted[run.name])
    kinds = list(dict.fromkeys(task.what for run in runs for task in wanted[run.name]))
    places = len({task.suffix for run in runs for task in wanted[run.name]})
    return (
        f"{', '.join(kinds)}: snapshots {snapshots}, runs {len(runs)}, subsets of the parameters {places}; at most "
        f"{most} products over {len(desk.problem.evaluation)} examples"
    )


def job(
    name: ProblemName, path: Path, chosen: HessianSettings, tasks: Sequence[Task], part: Part, tell: Tell
) -> dict[Task, dict[str, Record]]:
    """The records of each of some analyses of one run, by group; what is underway is saved now and then."""
    problem, run = problem_of(name), store.open(path)
    rows = chosen_rows(run, chosen)
    found: dict[Task, dict[str, Record]] = {}
    for task in tasks:
        share = _Share(_most(problem, run, chosen, task), tell)
        found[task] = _ANALYSES[task.what](_Work(problem, run, rows, chosen, task, part, share))
        share.end()
    return found


class _Share:
    """Tells of work up to an amount, and in the end of what was not needed of it."""

    def __init__(self, amount: int, tell: Tell) -> None:
        self._left, self._tell = amount, tell

    def __call__(self, amount: int) -> None:
        told = min(amount, self._left)
        self._left -= told
        self._tell(told)

    def end(self) -> None:
        self(self._left)


@dataclass(frozen=True)
class _Work:
    """One analysis of one run, with what it needs."""

    problem: Problem
    run: Trajectory
    rows: Sequence[int]
    chosen: HessianSettings
    task: Task
    part: Part
    tell: Tell

    @property
    def group(self) -> str:
        return self.task.group(self.run)

    @property
    def subject(self) -> Subject:
        return Subject(matrix=KINDS[self.chosen.matrix].label, subset=self.task.subset.label)

    def operators(self, problem: Problem, theta: Any, buffers: Any) -> Any:
        """The matrices of every task and of the average at some parameters, by name."""
        return hessians(problem, theta, buffers, self.task.subset, KINDS[self.chosen.matrix], _product(self.chosen))


def _eigenvalues(work: _Work) -> dict[str, Record]:
    before = work.part.known(work.group, TracksUnderway)
    if before is not None and len(before.tracks.steps) == len(work.rows):
        return {work.group: before.tracks}
    last, saved = before, time.monotonic()
    chosen = _spectrum(work.chosen, work.task.subset)
    for last in tracking.following(work.problem, work.run, work.rows, chosen, tell=work.tell, before=before):
        if time.monotonic() - saved > SAVE_EVERY:
            work.part.save({work.group: last})
            saved = time.monotonic()
    assert last is not None
    work.part.save({work.group: last})
    return {work.group: last.tracks}


def _densities(work: _Work) -> dict[str, Record]:
    problem, run, chosen, task, part = work.problem, work.run, work.chosen, work.task, work.part
    names = densities.names_of(problem, chosen.tasks)

    def groups(step: int, operator: str) -> tuple[str, str]:
        tail = f"{distinct_name(operator)}/{step}"
        return f"{task.group(run, 'density')}/{tail}", f"{task.group(run, 'moments')}/{tail}"

    def placed(one: densities.Spectrum) -> dict[str, Record]:
        return dict(zip(groups(one.density.step, one.density.operator), (one.density, one.moments), strict=True))

    def known() -> Iterator[densities.Spectrum]:
        for row in work.rows:
            for operator in names:
                places = groups(int(run.steps[row]), operator)
                density, moments = part.known(places[0], Density), part.known(places[1], Moments)
                if density is not None and moments is not None:
                    yield densities.Spectrum(density, moments)

    found = summaries.measure(
        problem,
        run,
        work.rows,
        _measurement(chosen),
        names,
        work.operators,
        work.subject,
        tuple(known()),
        lambda one: part.save(placed(one)),
        work.tell,
    )
    records: dict[str, Record] = {work.group: found.summary}
    for one in found.spectra:
        records |= placed(one)
    return records


def _traces(work: _Work) -> dict[str, Record]:
    chosen, way = work.chosen, _measurement(work.chosen).way

    def measured(row: int) -> Traces:
        of = chosen.tasks, work.operators, work.subject
        return summaries.traces_along(work.problem, work.run, [row], way, chosen.trace, *of, chosen.seed, work.tell)

    return _snapshot_by_snapshot(work, Traces, measured)


def _agreement(work: _Work) -> dict[str, Record]:
    compared = _compared(work.chosen, work.task.subset)
    return _snapshot_by_snapshot(
        work, TaskAgreement, lambda row: agreement.along(work.problem, work.run, [row], compared, work.tell)
    )


def _sharpness(work: _Work) -> dict[str, Record]:
    measures = _measures(work.chosen, work.task.subset)
    return _snapshot_by_snapshot(
        work, Sharpness, lambda row: sharpness.along(work.problem, work.run, [row], measures, None, work.tell)
    )


def _snapshot_by_snapshot(work: _Work, kind: type[Kept], measured: Callable[[int], Kept]) -> dict[str, Record]:
    """Every snapshot by itself, so that those of an interrupted run are what they would be in a whole one."""
    found: list[Kept] = []
    for row in work.rows:
        place = f"{work.group}-{work.run.steps[row]}"
        one = work.part.known(place, kind)
        if one is None:
            one = measured(row)
            work.part.save({place: one})
        found.append(one)
    return {work.group: joined(found)}


def joined(parts: Sequence[Kept]) -> Kept:
    """One record of several snapshots from records of the same kind, settings and run; costs add up."""
    changes: dict[str, Any] = {}
    for spec in fields(parts[0]):
        values = [getattr(one, spec.name) for one in parts]
        if spec.metadata.get("dims", ("",))[:1] == ("snapshot",):
            changes[spec.name] = np.concatenate(values)
        elif spec.name in SUMS:
            changes[spec.name] = sum(values)
    return replace(parts[0], **changes)


_ANALYSES: dict[str, Callable[[_Work], dict[str, Record]]] = {
    "eigenvalues": _eigenvalues,
    "spectrum": _densities,
    "trace": _traces,
    "agreement": _agreement,
    "sharpness": _sharpness,
}


def _product(chosen: HessianSettings) -> Auto:
    return Auto(memory(chosen.max_memory))


def _accuracy(chosen: HessianSettings) -> Accuracy:
    return Accuracy(chosen.tolerance, chosen.products)


def _spectrum(chosen: HessianSettings, on: Subset) -> tracking.Spectrum:
    return tracking.Spectrum(
        count=chosen.top,
        end=chosen.end,
        on=on,
        accuracy=_accuracy(chosen),
        seed=chosen.seed,
        tasks=tuple(chosen.tasks),
        kind=KINDS[chosen.matrix],
        product=_product(chosen),
        resamples=chosen.intervals,
    )


def _measurement(chosen: HessianSettings) -> Measurement:
    return Measurement(Quadrature(chosen.probes, chosen.degree), trace_products=chosen.trace, seed=chosen.seed)


def _compared(chosen: HessianSettings, on: Subset) -> agreement.Compared:
    return agreement.Compared(
        chosen.top, chosen.batch, on, _accuracy(chosen), seed=chosen.seed, product=_product(chosen)
    )


def _measures(chosen: HessianSettings, on: Subset) -> sharpness.Measures:
    forms = (sharpness.Form(radius=chosen.radius), sharpness.Form(Elementwise(), 10 * chosen.radius))
    return sharpness.Measures(
        forms, on, _accuracy(chosen), pairs=chosen.pairs, seed=chosen.seed, product=_product(chosen)
    )


def _most(problem: Problem, run: Trajectory, chosen: HessianSettings, task: Task) -> int:
    rows = chosen_rows(run, chosen)
    match task.what:
        case "eigenvalues":
            return tracking.most_products(run, rows, _spectrum(chosen, task.subset))
        case "spectrum":
            return densities.products(
                problem, len(rows), _measurement(chosen), chosen.tasks, subsets.size(task.subset, problem.layout)
            )
        case "trace":
            each = _measurement(chosen).way.cost(chosen.trace, subsets.size(task.subset, problem.layout))
            return len(rows) * len(densities.names_of(problem, chosen.tasks)) * each
        case "agreement":
            return agreement.most_products(run, rows, _compared(chosen, task.subset))
        case _:
            return sharpness.most(run, rows, _measures(chosen, task.subset)).products


def settings_of(chosen: HessianSettings, run: Trajectory, task: Task) -> dict[str, Any]:
    """All settings that an analysis of a run depends on."""
    settings = chosen.model_dump(include={*SETTINGS[task.what], *_OF_ALL})
    settings |= {"on": task.subset.label, "snapshots": [int(run.steps[row]) for row in chosen_rows(run, chosen)]}
    for name in ("at", "layers"):
        settings.pop(name)
    return settings


def _made(desk: Desk, chosen: HessianSettings, run: Trajectory, task: Task) -> Provenance:
    return desk.made(_inputs(desk, run), settings_of(chosen, run, task))


def _inputs(desk: Desk, run: Trajectory) -> dict[str, str]:
    return {run.name: desk.hashes[run.name], "data": desk.problem.data_hash}


def _part(desk: Desk, chosen: HessianSettings, run: Trajectory) -> Part:
    results = desk.results.path
    made = desk.made(_inputs(desk, run), chosen.model_dump())
    return Part(results.with_name(f".{results.name}.{group_of(run)}.part"), made)


def _is_known(desk: Desk, chosen: HessianSettings, run: Trajectory, task: Task) -> bool:
    return desk.results.known(task.group(run), _made(desk, chosen, run, task), Record) is not None


def _checks(record: Record) -> tuple[Check, ...]:
    match record:
        case TaskAgreement():
            return (agreement.shares_check(record),)
        case SpectrumSummary():
            return record.checks()
    return ()


def _operator_checks(problem: Problem, run: Trajectory, chosen: HessianSettings) -> tuple[Check, ...]:
    operators = hessians(problem, run.theta[-1], run.buffers[-1], product=_product(chosen))
    return (*(probe(operator, name) for name, operator in operators.items()), linearity(operators))
