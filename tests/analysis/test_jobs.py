"""The pieces of a study: which snapshots, which device, and that a job is a function of its arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import jobs
from analysis.settings import HessianSettings, ProblemName, parse
from landscape.errors import LandscapeError
from tests.analysis.synthetic import write_run


@given(st.integers(1, 300), st.integers(1, 400))
def test_spread_rows_are_as_many_as_wanted_ascending_with_both_ends(count, wanted):
    rows = jobs.spread(count, wanted)
    assert len(rows) == min(count, wanted)
    assert rows == sorted(set(rows))
    assert rows[-1] == count - 1
    assert rows[0] == 0 or wanted == 1
    assert all(0 <= row < count for row in rows)
    if len(rows) > 2:
        assert np.ptp(np.diff(rows)) <= 1, "evenly"


def test_rows_at_named_steps_are_ascending_and_once_each(tmp_path):
    run = write_run(tmp_path / "run.h5", np.zeros((4, 3)), steps=[0, 10, 20, 25])
    assert jobs.chosen_rows(run, HessianSettings(at=[25, 0, 25])) == [0, 3]
    assert jobs.chosen_rows(run, HessianSettings(snapshots=1)) == [3]
    assert jobs.chosen_rows(run, HessianSettings(snapshots=99)) == [0, 1, 2, 3]
    with pytest.raises(LandscapeError, match=r"run\.h5 has no snapshot at step 12; the nearest is at step 10"):
        jobs.chosen_rows(run, HessianSettings(at=[12]))


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    assert jobs.device("cpu").type == "cpu"
    for name in ("cuda:99", "abacus"):
        with pytest.raises(LandscapeError, match=rf"cannot use the device '{name}': expected one of cpu"):
            jobs.device(name)


def test_a_problem_is_made_once_a_process():
    name = ProblemName(name="quadratic", settings={"tasks": 2, "size": 3})
    assert jobs.problem_of(name) is jobs.problem_of(name.model_copy())


def test_a_rate_at_which_training_diverges_has_an_infinite_loss():
    settings = parse(
        {
            "problem": "quadratic",
            "problem_settings": {"tasks": 2, "size": 3},
            "strategies": ["averaged"],
            "training": {"optimiser": "SGD", "batch_size": 8},
            "search": {"steps": 200},
        }
    )
    told = []
    assert jobs.search_rate(settings, 0, 1e6, told.append) == np.inf
    finite = jobs.search_rate(settings, 0, 1e-3, told.append)
    assert 0 < finite < np.inf
    assert finite == jobs.search_rate(settings, 0, 1e-3, told.append), "a function of its arguments"
    assert told == [200, 200, 200]
