"""What a study says beforehand that it will do is what it then does."""

from __future__ import annotations

import os

import pytest

from analysis import estimates
from analysis.jobs import problem_of
from analysis.settings import parse

SMALL = {
    "problem": "quadratic",
    "problem_settings": {"tasks": 2, "size": 4, "heads": 1},
    "seeds": [0, 1],
    "strategies": [{"name": "averaged", "rate": 0.05}, "independent", "adatask"],
    "training": {"steps": 10, "every": 4, "batch_size": 8},
    "search": {"rates": [0.01, 0.1], "steps": 3},
    "surface": {"nx": 5, "ny": 4},
    "hessian": {"snapshots": 3, "top": 2},
}


def plan(workers=1, **changes):
    settings = parse({**SMALL, **changes})
    return {stage.name: stage for stage in estimates.plan(settings, problem_of(settings.named_problem), workers)}


def test_amounts_are_those_of_the_settings():
    stages = plan()
    assert list(stages) == [
        "search of learning rates",
        "training",
        "surface",
        "true losses beside the plane's",
        "Hessian eigenvalues",
        "figures and report",
    ]
    # 4 snapshots (steps 0, 4, 8, 10) of 6 runs on the plane of all, and of the first seed's 3 on theirs.
    assert stages["true losses beside the plane's"].amount == 4 * (6 + 3)
    assert stages["search of learning rates"].amount == 2 * 2  # one rate is given
    assert stages["training"].amount == 3 * 2
    assert stages["surface"].amount == 2 * 5 * 4  # the plane of all runs, and that of the first seed's
    assert stages["Hessian eigenvalues"].amount == 3 * 3 * (2 + 1) * 2
    assert all(stage.seconds > 0 for stage in stages.values())


@pytest.mark.parametrize(
    ("hessian", "rows"),
    [({"at": [0, 4, 8, 10], "top": 1}, 4), ({"at": [10, 10], "top": 1}, 1), ({"snapshots": 99, "top": 1}, 4)],
    ids=["at steps", "a step twice", "more than there are"],
)
def test_eigenpairs_are_counted_at_the_snapshots_there_will_be(hessian, rows):
    # Steps 0, 4, 8 and 10: the last is always stored.
    assert plan(hessian=hessian)["Hessian eigenvalues"].amount == 3 * rows * 3


def test_one_seed_has_one_surface_and_rates_that_are_given_no_search():
    stages = plan(seeds=[3], strategies=[{"name": "averaged", "rate": 0.1}])
    assert stages["surface"].amount == 5 * 4
    assert stages["search of learning rates"].amount == 0
    assert stages["search of learning rates"].seconds == 0


def test_workers_share_the_jobs_and_never_more_than_there_are():
    assert estimates._shared(12.0, 6, 3) - started(3) == 4.0
    assert estimates._shared(12.0, 2, 5) - started(2) == 6.0
    assert estimates._shared(0.0, 0, 4) == 0.0


def started(workers):
    """Seconds in which so many workers start side by side on the cores that there are."""
    return estimates.START_SECONDS * max(1.0, workers / os.cpu_count())


def test_a_pool_takes_time_to_start_and_a_single_worker_none():
    assert estimates._shared(1.0, 5, 1) == 1.0
    assert estimates._shared(1.0, 1, 5) == 1.0
    assert estimates._shared(1.0, 64 * os.cpu_count(), 64 * os.cpu_count()) > 64 * estimates.START_SECONDS


def test_drawing_is_there_also_where_nothing_else_is_left():
    settings = parse(SMALL)
    nothing = estimates.Left((0, 0, 0), ((0, 0),) * 3, 0, 0, 0)
    stages = estimates.plan(settings, problem_of(settings.named_problem), 2, nothing)
    assert [stage.amount for stage in stages[:-1]] == [0] * 5
    assert [stage.seconds for stage in stages[:-1]] == [0.0] * 5
    assert stages[-1].seconds > estimates.FIGURE_SECONDS * stages[-1].amount > 0


def test_only_what_is_left_is_counted():
    settings = parse(SMALL)
    left = estimates.Left((0, 1, 0), ((0, 0), (10, 6), (0, 0)), 7, 2, 1)
    stages = estimates.plan(settings, problem_of(settings.named_problem), 1, left)
    amounts = {stage.name: stage.amount for stage in stages}
    assert amounts["search of learning rates"] == 1
    assert amounts["training"] == 2
    assert amounts["surface"] == 7
    assert amounts["true losses beside the plane's"] == 4 * 2
    assert amounts["Hessian eigenvalues"] == 3 * (2 + 1) * 2


@pytest.mark.parametrize(
    ("change", "points"),
    [
        ({"data": ["evaluation", "training"]}, 2 * 5 * 4),
        ({"nx": 25, "ny": 20, "adaptive": 0.1, "budget": 0.5}, 250),
        ({"plane": "random", "draws": 3}, 3 * 5 * 4),
        ({"plane": "random-line"}, 5),
    ],
)
def test_points_are_counted_with_all_that_is_asked_on_a_plane(change, points):
    settings = parse({**SMALL, "surface": {**SMALL["surface"], **change}})
    assert estimates.everything(settings).points == 2 * points


def test_the_plan_leaves_the_problem_as_it_was():
    settings = parse(SMALL)
    problem = problem_of(settings.named_problem)
    before = problem.read(problem.model)[0]
    estimates.plan(settings, problem, 1)
    assert (problem.read(problem.model)[0] == before).all()
