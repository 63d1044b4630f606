"""The theory of alternating steps along some runs, each saved as it grows under `alternation/RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis import alternation, checks, examples
from analysis.alternation import Trial, Work, usual_trial
from analysis.archive import Entry
from analysis.desk import Desk, group_of, named
from analysis.examples import Examples
from analysis.jobs import spread
from analysis.passes import DrawnOrders, EveryOrder, NoOrders, Orders, Usual
from analysis.preconditioners import named as preconditioner
from analysis.results import Alternation, Check
from analysis.settings import AlternationSettings
from analysis.stated import stated
from landscape.problem import Problem
from landscape.trajectory import Trajectory

ORDERS: dict[str, Orders] = {"usual": Usual(), "all": EveryOrder(), "none": NoOrders()}


def along_all(desk: Desk, chosen: AlternationSettings) -> list[Alternation]:
    """A record for every run: as the file knows it, gone on with where it is unfinished, or made."""
    checks.require_recorded(desk.problem, desk.runs)
    data = _examples(desk.problem, chosen)
    trials = [trial_of(chosen, run) for run in desk.runs]
    rows = [_rows(run, chosen) for run in desk.runs]
    for trial in trials:
        trial.turn(len(desk.problem.tasks))
        trial.orders.drawn(len(desk.problem.tasks), chosen.seed)
    return [
        _along(desk, chosen, run, trial, places, data)
        for run, trial, places in zip(desk.runs, trials, rows, strict=True)
    ]


def trial_of(chosen: AlternationSettings, run: Trajectory) -> Trial:
    """The steps that the settings stand for: rate and order are the run's own where they are not given."""
    orders = ORDERS[chosen.orders] if chosen.orders in ORDERS else DrawnOrders(int(chosen.orders))
    own = Trial(chosen.rate, stated(run.provenance.strategy).order) if chosen.rate else usual_trial(run)
    return replace(
        own,
        order=tuple(chosen.order) or own.order,
        rungs=chosen.ladder,
        orders=orders,
        preconditioner=preconditioner(chosen.preconditioner),
    )


def _examples(problem: Problem, chosen: AlternationSettings) -> Examples:
    if chosen.data == "evaluation":
        return examples.evaluation(problem)
    return examples.training(problem, chosen.examples, chosen.seed)


def _rows(run: Trajectory, chosen: AlternationSettings) -> list[int]:
    if chosen.at:
        return sorted({run.at(step) for step in chosen.at})
    return spread(len(run), chosen.snapshots)


def _along(
    desk: Desk, chosen: AlternationSettings, run: Trajectory, trial: Trial, rows: Sequence[int], data: Examples
) -> Alternation:
    group, results = f"alternation/{group_of(run)}", desk.results
    inputs = {run.name: desk.hashes[run.name], "data": data.hash}
    made = desk.made(inputs, chosen.model_dump())
    known = results.known(group, made, Alternation)
    if known is not None and known.done.all():
        return known
    todo = len(rows) - (0 if known is None else int(known.done.sum()))
    one = alternation.work(len(desk.problem.tasks), len(data), trial, chosen.seed)
    desk.progress.say(_plan(run, todo, one, len(data)))
    with results.stage(f"alternating steps at {run.name}, products and gradients", todo * one.counted) as note:
        steps = alternation.along(desk.problem, run, rows, trial, data, known, chosen.seed, desk.progress.tell)
        found = results.growing(group, made, steps, lambda record: 0)
        results.save({group: Entry(found, made, _checks(group, run, found))})
        note(f"{len(rows)} snapshots, {todo * one.products} products, {todo * one.gradients} gradients")
    return found


def _plan(run: Trajectory, snapshots: int, one: Work, count: int) -> str:
    return (
        f"{run.name}: {snapshots} snapshots, each {one.products} Hessian products, {one.gradients} gradients and "
        f"{one.forwards} forward passes over {count} examples in float64"
    )


def _checks(group: str, run: Trajectory, found: Alternation) -> tuple[Check, ...]:
    """The losses at the snapshots against those that were recorded in training, in that type's precision."""
    if found.split != "evaluation":
        return ()
    rows = [run.at(int(step)) for step in found.steps]
    recorded = run.losses[rows]
    gap = float(np.max(np.abs(found.loss[:, :-1] - recorded) / np.maximum(np.abs(recorded), 1e-12)))
    check = Check(
        "losses at the snapshots equal those recorded in training", gap, 1e-3, "float64 against the run's type"
    )
    return (named(group, check),)
