"""One task alone, and how often strategies change the shared parameters."""

from __future__ import annotations

import numpy as np
import pytest

from landscape import (
    AdaTask,
    Alternating,
    Averaged,
    Every,
    Grouped,
    Independent,
    LandscapeError,
    Optimiser,
    Plan,
    SingleTask,
    record,
    train,
)
from landscape.strategies import Count, Size, Weights, named
from tests.landscape.examples import NAMES, problem

PLAN = Plan(steps=6, batch_size=6, when=Every(2))


@pytest.mark.parametrize("optimiser", [Optimiser("Adam", lr=0.03), Optimiser("SGD", lr=0.02, momentum=0.9)])
def test_it_is_the_average_with_all_weight_on_one_task(optimiser):
    # With weight 0 a head's gradient is exactly 0, and neither optimiser moves what has only ever had such gradients.
    found = problem()
    for number, task in enumerate(NAMES):
        weights = [float(t == number) for t in range(len(NAMES))]
        alone = list(train(found, SingleTask(task, optimiser), PLAN, 0))
        weighted = list(train(found, Averaged(optimiser, Weights(*weights)), PLAN, 0))
        assert [s.theta.tobytes() for s in alone] == [s.theta.tobytes() for s in weighted]
        assert alone[-1].updates == alone[-1].gradients == PLAN.steps


def test_other_heads_never_move_and_its_own_loss_falls():
    found = problem()
    first, *_, last = train(found, SingleTask(NAMES[0], Optimiser("SGD", lr=0.02)), Plan(40, 6, Every(40)), 0)
    for name in NAMES[1:]:
        index = found.layout.index(name)
        np.testing.assert_array_equal(first.theta[index], last.theta[index])
    own = found.layout.index(NAMES[0])
    assert (first.theta[own] != last.theta[own]).any()
    assert last.losses[0] < first.losses[0]


def test_it_starts_where_the_other_strategies_start():
    found = problem()
    starts = [next(iter(train(found, strategy, PLAN, 3))) for strategy in (SingleTask(NAMES[1]), Independent())]
    assert starts[0].theta.tobytes() == starts[1].theta.tobytes()


def test_a_task_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(LandscapeError, match=r"unknown task 'gren': expected one of .*did you mean"):
        record(problem(), SingleTask("gren"), PLAN, tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


def test_by_name_it_needs_its_task():
    assert named("single", Optimiser(), {"task": "one"}) == SingleTask("one", Optimiser())
    assert named("single", Optimiser(), {"task": "one"}).label == "only-one"
    with pytest.raises(LandscapeError, match=r"expected the name of a task for the strategy single, got none"):
        named("single", Optimiser())
    with pytest.raises(LandscapeError, match=r"the strategy averaged takes no task: expected it with single"):
        named("averaged", Optimiser(), {"task": "one"})


@pytest.mark.parametrize(
    "strategy",
    [
        Averaged(),
        AdaTask(),
        Alternating(),
        Independent(),
        SingleTask(NAMES[0]),
        Grouped(Count(2)),
        Grouped(Size(2)),
        Grouped(Size(1)),
    ],
    ids=repr,
)
def test_a_step_changes_the_shared_parameters_as_often_as_the_strategy_says(strategy):
    *_, last = train(problem(), strategy, PLAN, 0)
    assert last.updates == PLAN.steps * strategy.updates(len(NAMES))
