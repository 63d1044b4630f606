"""Where runs are equal, and what they measure there."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.readings import least_loss, level, place, require_alike, require_budget, values_at
from analysis.results import FAIR_BUDGETS
from landscape.errors import LandscapeError
from tests.analysis.movements import movement


def test_steps_are_read_where_all_runs_still_are_linear_between_snapshots():
    long = movement(values=[[0], [4], [6]], steps=(0, 10, 20))
    short = movement("independent", values=[[0], [8]], steps=(0, 15))
    assert level([long, short], "steps") == 15
    assert place(long, "steps", 15) == 1.5
    assert values_at(long, "steps", 15).tolist() == [5]
    assert values_at(short, "steps", 15).tolist() == [8]


def test_equal_updates_and_equal_movement_are_other_places_than_equal_steps():
    one = movement(values=[[0], [1], [2]])
    three = movement("independent", values=[[0], [3], [6]], updates=3, rate=0.05)
    assert level([one, three], "updates") == 20
    assert values_at(three, "updates", 20) == pytest.approx([2.0])
    assert level([one, three], "movement") == 2.0
    assert values_at(three, "movement", 2.0) == pytest.approx([4.0])


@pytest.mark.parametrize("count", [11, 101])
def test_equal_loss_on_an_exponential_is_where_theory_has_it(count):
    # Loss exp(-r s), net r s: both runs have moved -ln(level) where they reach the level. Between snapshots the loss is
    # taken as linear, which errs by (r ds)^2 / 8 of the net's scale at most: 1/800 and 1/80000 of a unit here.
    s = np.linspace(0, 1, count)
    fast = movement("independent", values=2 * s[:, None], losses=np.exp(-2 * s))
    slow = movement("averaged", values=s[:, None], losses=np.exp(-s))
    at = level([fast, slow], "loss")
    assert at == pytest.approx(np.exp(-1))
    bound = 4 / (count - 1) ** 2 / 8
    for run in (fast, slow):
        assert values_at(run, "loss", at)[0] == pytest.approx(1.0, abs=bound + 1e-12)


def test_the_running_least_loss_counts_not_the_last_one():
    run = movement(values=[[0], [1], [2], [3], [4]], losses=[1.0, 0.6, 0.9, 0.7, 0.2])
    assert least_loss(run).tolist() == [1.0, 0.6, 0.6, 0.6, 0.2]
    assert place(run, "loss", 0.6) == 1
    assert place(run, "loss", 0.4) == pytest.approx(3.5)  # half way from the least so far, 0.6, to 0.2
    assert place(run, "loss", 0.8) == pytest.approx(0.5)
    assert place(run, "loss", 2.0) == 0
    assert np.isnan(place(run, "loss", 0.1))


def test_the_level_of_equal_loss_is_the_smallest_that_all_reach():
    runs = [movement(seed=0, losses=[1, 0.5, 0.4]), movement(seed=1, losses=[1, 0.3, 0.9])]
    assert level(runs, "loss") == 0.4
    assert place(runs[1], "loss", 0.4) == pytest.approx(0.6 / 0.7)


def test_losses_of_one_task_are_a_budget_of_their_own():
    run = movement(losses=[[1.0, 5.0], [0.5, 4.0], [0.1, 9.0]])
    assert least_loss(run, "loss:two").tolist() == [5, 4, 4]
    assert least_loss(run).tolist() == [3, 2.25, 2.25]
    require_budget("loss:two", run.tasks)
    with pytest.raises(LandscapeError, match=r"unknown budget 'loss:tow': expected one of .*did you mean 'loss:two'"):
        require_budget("loss:tow", run.tasks)
    for name in FAIR_BUDGETS:
        require_budget(name, run.tasks)


def test_losses_that_are_not_finite_are_never_reached():
    run = movement(losses=[np.nan, 0.5, np.inf])
    assert np.isnan(least_loss(run)[0])
    assert least_loss(run)[1:].tolist() == [0.5, 0.5]
    assert place(run, "loss", 0.5) == 1
    never = movement(losses=[np.nan, np.nan, np.nan])
    assert np.isnan(level([run, never], "loss"))
    assert np.isnan(values_at(never, "loss", 0.5)).all()


def test_beyond_its_end_or_before_its_first_snapshot_a_run_has_no_value():
    run = movement(steps=(10, 20, 30))
    assert np.isnan(values_at(run, "steps", 30.001)).all()
    assert np.isnan(values_at(run, "steps", 5)).all()
    assert values_at(run, "steps", 10).tolist() == [0]
    assert np.isnan(level([run, movement(rate=np.nan)], "movement"))
    assert np.isnan(level([], "steps"))


def test_a_measure_that_is_missing_at_the_start_is_read_after_it():
    run = movement(values=[[np.nan], [2.0], [3.0]])
    assert values_at(run, "steps", 10).tolist() == [2.0]
    assert values_at(run, "steps", 15).tolist() == [2.5]
    assert np.isnan(values_at(run, "steps", 5)).all()


def test_runs_measured_differently_are_refused():
    with pytest.raises(LandscapeError, match=r"expected runs that are measured alike, got the measures \('net',\) of"):
        require_alike([movement(), movement(values=[[0, 1]], measures=("net", "path"), seed=1)])
