"""How far runs explored and whether strategies differ, in one results file: movements, random walks, contrasts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis import archive, movement, subsets
from analysis.advance import Advance
from analysis.archive import OTHERWISE, Entry, Provenance, distinct_name
from analysis.belonging import listed, may_be_of_a_study, runs_of
from analysis.beside import beside_walks
from analysis.contrasts import Question, contrasts
from analysis.desk import Desk, group_of
from analysis.forms import Filterwise, Form, Invariant, Raw, Relative
from analysis.invariance import followed
from analysis.movement import Measuring, Moved
from analysis.pairing import Apart, BySeed, Pairing, WhereSeedsMatch
from analysis.readings import require_budget
from analysis.results import FAIR_BUDGETS, BesideWalk, Contrast, Displacements, Movement, WalkNull
from analysis.settings import ExploreSettings
from analysis.subsets import Subset, WithoutNorms
from landscape.errors import unknown
from landscape.problem import Problem
from landscape.trajectory import Trajectory

OF_RUNS = ("movement", "displacements", "walks", "beside-walks")
"""Kinds of results that belong to one run."""
OF_EXPLORATIONS = ("exploration", "training", "comparison", "distances", "contrast", *OF_RUNS)
"""Kinds of results that an exploration makes of all its runs together."""
PARTS = 1000
"""Of a run's measurement, for the progress."""
PAIRINGS: dict[str, Pairing] = {"auto": WhereSeedsMatch(), "seed": BySeed(), "none": Apart()}


@dataclass(frozen=True, eq=False)
class Explored:
    """What is known of the runs: run by run, subset by subset, form by form; and of the strategies."""

    moved: tuple[Moved, ...]
    walks: tuple[BesideWalk, ...]
    """Empty where no walk was asked for."""
    contrasts: tuple[Contrast, ...]


def explore(desk: Desk, chosen: ExploreSettings) -> Explored:
    """Measures the runs that are not known yet, compares the strategies, and saves both.

    What was measured of a run is kept for it alone: another run costs one pass over its file.

    Raises:
        LandscapeError: an unknown baseline, subset, measure or budget, before anything is measured.
    """
    baseline = require(desk, chosen)
    require_whole(desk)
    asked = Measuring(
        subsets=_subsets(chosen, desk.runs[0]),
        forms=tuple(form(word, desk.problem) for word in dict.fromkeys(chosen.forms)),
        draws=chosen.null,
        seed=chosen.seed,
    )
    question = _question(chosen, desk.problem)
    moved = _measured(desk, asked)
    walks = _beside(desk, moved, asked)
    return Explored(tuple(moved), tuple(walks), _compared(desk, moved, baseline, question, chosen))


def require(desk: Desk, chosen: ExploreSettings) -> str:
    """Raises where there is no such baseline, subset, measure or budget; else the baseline's label."""
    labels = list(dict.fromkeys(run.provenance.label for run in desk.runs))
    baseline = chosen.baseline or labels[0]
    if baseline not in labels:
        raise unknown("label of a baseline", baseline, labels)
    _subsets(chosen, desk.runs[0])
    _question(chosen, desk.problem)
    return baseline


def require_whole(desk: Desk) -> None:
    """Raises if the file holds explorations of runs that are not here: comparisons of these would take their place.

    A study's own go with the runs that it had.
    """
    path = desk.results.path
    for group, made in archive.provenances(path).items():
        missing = [name for name in runs_of(made) if name not in desk.hashes]
        if group.split("/")[0] in OF_EXPLORATIONS and missing and not (desk.study and may_be_of_a_study(made)):
            raise archive.ArchiveError(
                f"{path} holds {group}, of which {listed(missing)} is not among the runs given, and whose place this "
                f"exploration would take: expected these runs too; name them, or {OTHERWISE}"
            )


def form(word: str, problem: Problem) -> Form:
    """A form of distances from its name."""
    match word:
        case "relative":
            return Relative()
        case "filterwise":
            return Filterwise()
        case "invariant":
            return Invariant(followed(problem))
    return Raw()


def _subsets(chosen: ExploreSettings, run: Trajectory) -> tuple[Subset, ...]:
    found: dict[str, Subset] = {}
    for text in chosen.on:
        subset = subsets.parse(text)
        subset = WithoutNorms(subset) if chosen.without_norm else subset
        subset.spans(run.layout)
        found[subset.label] = subset
    parts = [subsets.layers(run.layout, subset).values() for subset in found.values()] if chosen.layers else []
    found |= {layer.label: layer for part in parts for layer in part}
    return tuple(found.values())


def _question(chosen: ExploreSettings, problem: Problem) -> Question:
    for budget in chosen.budgets:
        require_budget(budget, problem.names)
    for measure in chosen.measures:
        if measure not in movement.MEASURES:
            raise unknown("measure", measure, movement.MEASURES)
    budgets = tuple(dict.fromkeys(chosen.budgets)) or FAIR_BUDGETS
    measures = tuple(dict.fromkeys(chosen.measures))
    return Question(budgets, measures, PAIRINGS[chosen.pairing], chosen.resamples, chosen.seed)


def _measured(desk: Desk, asked: Measuring) -> list[Moved]:
    """Every run in every subset and form, from the file where it is known."""
    known = {run.name: _known(desk, run, asked) for run in desk.runs}
    todo = [run for run in desk.runs if not known[run.name]]
    if todo:
        with desk.results.stage("movement", PARTS) as note:
            told = 0

            def progress(advance: Advance) -> None:
                nonlocal told
                parts = int(advance.done * PARTS)
                desk.progress.tell(parts - told)
                told = parts

            found = movement.measure(todo, asked, progress)
            each = len(asked.subsets) * len(asked.forms)
            for number, run in enumerate(todo):
                known[run.name] = found[number * each : (number + 1) * each]
                desk.results.save(_entries(desk, run, known[run.name], asked), drop=_gone(desk))
            counts = (len(todo), "run"), (len(asked.subsets), "subset"), (len(asked.forms), "form")
            note(", ".join(_count(*count) for count in counts))
    return [item for run in desk.runs for item in known[run.name]]


def _known(desk: Desk, run: Trajectory, asked: Measuring) -> list[Moved]:
    """What the file holds of a run, if it holds all of it; else nothing."""
    found = []
    for subset in asked.subsets:
        for each in asked.forms:
            made, end = _made(desk, run, subset.label, repr(each), asked), _end(run, subset.label, each.label)
            there = desk.results.known(f"movement/{end}", made, Movement)
            if there is None:
                return []
            displacements = desk.results.known(f"displacements/{end}", made, Displacements)
            found.append(Moved(there, displacements, desk.results.known(f"walks/{end}", made, WalkNull)))
    return found


def _entries(desk: Desk, run: Trajectory, items: Sequence[Moved], asked: Measuring) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    by_label = {each.label: each for each in asked.forms}
    for item in items:
        subset, each = item.movement.subset, by_label[item.movement.form]
        made, end = _made(desk, run, subset, repr(each), asked), _end(run, subset, each.label)
        kinds = (("movement", item.movement), ("displacements", item.displacements), ("walks", item.null))
        entries |= {f"{kind}/{end}": Entry(record, made) for kind, record in kinds if record is not None}
    return entries


def _beside(desk: Desk, moved: Sequence[Moved], asked: Measuring) -> list[BesideWalk]:
    """Every run beside random walks, from the file where it is known."""
    by_name = {run.name: run for run in desk.runs}
    by_label = {each.label: each for each in asked.forms}
    found: list[BesideWalk] = []
    fresh: dict[str, Entry] = {}
    for item in moved if asked.draws else ():
        about, run = item.movement, by_name[item.movement.run.name]
        made = _made(desk, run, about.subset, repr(by_label[about.form]), asked)
        group = f"beside-walks/{_end(run, about.subset, about.form)}"
        there = desk.results.known(group, made, BesideWalk)
        if there is None:
            there = beside_walks(item, asked.draws, asked.seed)
            fresh |= {group: Entry(there, made)} if there is not None else {}
        found += [there] if there is not None else []
    if fresh:
        desk.results.save(fresh)
    return found


def _compared(
    desk: Desk, moved: Sequence[Moved], baseline: str, question: Question, chosen: ExploreSettings
) -> tuple[Contrast, ...]:
    """Every other strategy against the baseline, from the file where nothing has changed."""
    made = desk.made(desk.hashes, {**chosen.model_dump(), "baseline": baseline})
    about = dict.fromkeys((item.movement.subset, item.movement.form) for item in moved)
    others = [label for label in dict.fromkeys(item.movement.run.label for item in moved) if label != baseline]
    groups = [
        f"contrast/{distinct_name(other)}/{distinct_name(subset)}/{each}" for other in others for subset, each in about
    ]
    known = [desk.results.known(group, made, Contrast) for group in groups]
    there = tuple(found for found in known if found is not None)
    contrasted = [group for group in archive.groups(desk.results.path) if group.startswith("contrast/")]
    if len(there) == len(groups):
        gone = [*_gone(desk), *(group for group in contrasted if group not in groups)]
        if gone:
            desk.results.save({}, drop=gone)
        return there
    with desk.results.stage("comparison", 1) as note:
        starts = {_key(run): run.start for run in desk.runs if run.start}
        repeated = repetitions(desk.runs)
        counted = [item.movement for item in moved if (item.movement.run.label, item.movement.run.seed) not in repeated]
        found = tuple(_noting(record, repeated) for record in contrasts(counted, baseline, question, starts))
        entries = {group: Entry(record, made) for group, record in zip(groups, found, strict=True)}
        desk.results.save(entries, drop=[*_gone(desk), *contrasted])
        desk.progress.tell(1)
        note(f"{_count(sum(record.tests for record in found[:: len(about)]), 'test')}")
    return found


def _gone(desk: Desk) -> list[str]:
    """What the file holds of other runs than those compared, and of these before they had grown."""
    kinds, names = ("contrast", *OF_RUNS), {group_of(run) for run in desk.runs}
    others = [
        group
        for group in archive.provenances(desk.results.path)
        if group.split("/")[0] in OF_RUNS and group.split("/")[1] not in names
    ]
    return [*others, *desk.outgrown(kinds)]


def _made(desk: Desk, run: Trajectory, subset: str, form: str, asked: Measuring) -> Provenance:
    settings = {
        "subset": subset,
        "form": form,
        "directions": asked.directions,
        "draws": asked.draws,
        "walk_seed": asked.seed,
    }
    return desk.made({run.name: desk.hashes[run.name]}, settings)


def _end(run: Trajectory, subset: str, form: str) -> str:
    return f"{group_of(run)}/{distinct_name(subset)}/{form}"


def _key(run: Trajectory) -> tuple[str, int]:
    return run.provenance.label, run.provenance.seed


def repetitions(runs: Sequence[Trajectory]) -> dict[tuple[str, int], int]:
    """Runs that are another one of their label over again, under another seed: the seed of that one, by label and seed.

    They have its losses and paths at every snapshot and its last theta, to the byte. Cost: one row read a run.
    """
    first: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, int], int] = {}
    for run in runs:
        if run.steps[-1] == 0:
            continue
        rows = run.theta if run.sketch is None else run.sketch.rows
        digest = hashlib.sha256(np.ascontiguousarray(rows[-1]).tobytes())
        for array in (run.steps, run.updates, run.path_steps, run.path_updates, run.losses):
            digest.update(np.ascontiguousarray(array).tobytes())
        seed = first.setdefault((run.provenance.label, digest.hexdigest()), run.provenance.seed)
        if seed != run.provenance.seed:
            found[_key(run)] = seed
    return found


def said_of_repetitions(repeated: Mapping[tuple[str, int], int], labels: Sequence[str]) -> str:
    """A sentence for each run that is left out as a repetition; else empty."""
    return " ".join(
        f"Seed {seed} of {label} is its seed {of} over again, to the byte, and left out: train it from a start and "
        "with batches of its own."
        for (label, seed), of in repeated.items()
        if label in labels
    )


def _noting(record: Contrast, repeated: Mapping[tuple[str, int], int]) -> Contrast:
    said = said_of_repetitions(repeated, (record.strategy, record.baseline))
    return replace(record, note=f"{said} {record.note}".strip()) if said else record


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
