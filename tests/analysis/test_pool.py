"""Jobs side by side: order, progress, and what happens when one fails."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time

import pytest
import torch

from analysis import pool
from analysis.pool import run_all
from landscape.errors import LandscapeError, TrainingDiverged


def square(number, told, tell):
    time.sleep(0.05 * (3 - number % 3))  # later jobs end first
    for amount in told:
        tell(amount)
    return number**2, os.getpid(), torch.get_num_threads()


def fail(kind, tell):
    if kind == "input":
        raise LandscapeError("expected this, got that; do so")
    if kind == "diverged":
        raise TrainingDiverged(7, "depth", float("nan"))
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


class EndedMeanwhile:
    """A SIGTERM comes while it is taken away, where Python can raise nothing."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def end_where_nothing_is_raised(tell):
    kept = [EndedMeanwhile()]
    kept.clear()
    time.sleep(3600)


@pytest.mark.slow
def test_a_worker_that_is_ended_where_nothing_can_be_raised_ends_without_a_word(capfd):
    before = time.monotonic()
    with pytest.raises(LandscapeError, match="a worker process was killed"):
        run_all(end_where_nothing_is_raised, [(), ()], 2, lambda amount: None)
    assert time.monotonic() - before < 1800, "nobody waited for an hour"
    assert "Traceback" not in capfd.readouterr().err


def never_end(path, tell):
    """Drops whatever ends it, as a library may."""
    path.touch()
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(3600)


def fail_when_it_is_there(path, tell):
    while not path.exists():
        time.sleep(0.01)
    raise LandscapeError("expected this")


def either(job, path, tell):
    return job(path, tell)


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_GRACE", 0.2)
    path = tmp_path / "begun"
    before = time.monotonic()
    with pytest.raises(LandscapeError, match=r"^expected this$"):
        run_all(either, [(never_end, path), (fail_when_it_is_there, path)], 2, lambda amount: None)
    assert time.monotonic() - before < 1800, "nobody waited for an hour"
    assert not multiprocessing.active_children()


def test_one_worker_runs_everything_here():
    told = []
    found = run_all(square, [(n, [n]) for n in range(3)], 1, told.append)
    assert [value for value, _, _ in found] == [0, 1, 4]
    assert {process for _, process, _ in found} == {os.getpid()}
    assert told == [0, 1, 2]
    assert run_all(square, [], 4, told.append) == []


def test_results_stand_in_order_and_every_amount_is_told():
    told = []
    jobs = [(n, [n] * 3000) for n in range(6)]  # told at the very end, faster than they are read
    found = run_all(square, jobs, 2, told.append)
    assert [value for value, _, _ in found] == [n**2 for n in range(6)]
    processes = {process for _, process, _ in found}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2
    assert {threads for _, _, threads in found} == {1}
    assert sorted(told) == sorted(amount for _, amounts in jobs for amount in amounts)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        pytest.param("input", LandscapeError, r"^expected this, got that; do so$", marks=pytest.mark.slow),
        ("diverged", TrainingDiverged, r"training loss of task 'depth' became nan at step 7"),
        ("killed", LandscapeError, r"a worker process was killed: .*fewer jobs"),
    ],
)
def test_the_first_error_ends_all_workers(kind, error, text):
    before = time.monotonic()
    with pytest.raises(error, match=text) as caught:
        run_all(fail, [("sleep",), (kind,)], 2, lambda amount: None)
    assert time.monotonic() - before < 1800, "nobody waited for the job that sleeps an hour"
    assert not multiprocessing.active_children()
    if kind == "diverged":
        assert (caught.value.step, caught.value.task) == (7, "depth")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_result_is_given_out_once_as_soon_as_it_is_there(workers):
    given = []
    jobs = [(n, []) for n in range(4)]
    found = run_all(square, jobs, workers, lambda amount: None, lambda *pair: given.append((*pair, time.monotonic())))
    assert sorted(index for index, _, _ in given) == [0, 1, 2, 3]
    assert all(found[index] == result for index, result, _ in given)
    if workers == 1:
        assert given[-1][2] - given[0][2] > 0.2, "the first was given out before the last was begun"


def fail_last(number, folder, tell):
    if number == 2:
        while not all((folder / str(n)).exists() for n in (0, 1)):
            time.sleep(0.01)
        raise LandscapeError("expected this")
    return number


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_results_before_an_error_are_given_out(workers, tmp_path):
    given = []

    def give(*pair):
        given.append(pair)
        (tmp_path / str(pair[0])).touch()

    with pytest.raises(LandscapeError, match=r"^expected this$"):
        run_all(fail_last, [(n, tmp_path) for n in range(3)], workers, lambda amount: None, give)
    assert sorted(given) == [(0, 0), (1, 1)]


def test_with_one_worker_an_error_is_raised_as_it_is():
    with pytest.raises(TrainingDiverged, match=r"became nan at step 7"):
        run_all(fail, [("diverged",), ("sleep",)], 1, lambda amount: None)
