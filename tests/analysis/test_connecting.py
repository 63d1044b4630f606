"""What `connect` knows of earlier results: nothing that other training examples, groups or losses would change."""

from __future__ import annotations

import pytest

from analysis import archive, connecting, tracing
from analysis.desk import Desk
from analysis.settings import ConnectSettings, ProblemName
from landscape import problems, store, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged
from tests.analysis.synthetic import EverySecond, Told, with_another_loss

SMALL = {"width": 4, "features": 12, "norm": "batch", "train": 64, "evaluation": 32}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    problem, plan = problems.load("digits", SMALL), training.Plan(4, 16, Every(2))
    for seed in (0, 1):
        training.record(problem, Averaged(Optimiser("Adam", lr=0.01)), plan, folder / f"averaged-{seed}.h5", seed)
    return [store.open(folder / f"averaged-{seed}.h5") for seed in (0, 1)]


@pytest.fixture
def desk(runs, tmp_path):
    return Desk(ProblemName(name="digits", settings=SMALL), runs, tmp_path / "results.h5", Told())


def settings(**changes):
    return ConnectSettings(**{"points": 3, "engine": "sequential:16", "examples": 32, **changes})


def numbers(desk):
    return {group: entry.record for group, entry in archive.load_all(desk.results.path).items()}


def test_other_training_examples_are_connected_anew(desk, monkeypatch):
    chosen = settings(curve=True, curve_steps=3, batch_size=8)
    connecting.connect(desk, chosen)
    first, stages = numbers(desk), list(desk.progress.stages)
    connecting.connect(desk, chosen)
    assert desk.progress.stages == stages
    monkeypatch.setattr(desk.problem, "train", EverySecond(desk.problem.train))
    connecting.connect(desk, chosen)
    changed = {group for group, record in numbers(desk).items() if record != first[group]}
    assert changed == {
        *("paths/ends-reestimated", "barriers/ends-reestimated"),
        *("paths/ends-curve", "barriers/ends-curve", "paths/ends-curve-reestimated", "barriers/ends-curve-reestimated"),
        "curve/ends/averaged-0_4-averaged-1_4",
    }, "frozen statistics on evaluation examples are as they were"


@pytest.mark.parametrize("words", [{"data": "training"}, {"heads": "refitted"}], ids=str)
def test_losses_and_heads_of_other_training_examples_are_measured_anew(desk, monkeypatch, words):
    chosen = settings(batch_norm=["frozen"], **words)
    connecting.connect(desk, chosen)
    first = numbers(desk)["paths/ends"]
    monkeypatch.setattr(desk.problem, "train", EverySecond(desk.problem.train))
    connecting.connect(desk, chosen)
    assert numbers(desk)["paths/ends"] != first


def test_other_groups_of_the_same_name_and_size_are_matched_anew(desk, runs, tmp_path):
    traced = {
        group.name: [[axis.tensor, axis.axis] for axis in group.axes] for group in tracing.groups_of(desk.problem)
    }
    one, other = (
        settings(align=True, batch_norm=["frozen"], groups={"hidden": traced[n]}) for n in ("trunk.3", "trunk.6")
    )
    connecting.connect(desk, one)
    first = numbers(desk)["paths/ends-aligned"]
    connecting.connect(desk, other)
    second = numbers(desk)["paths/ends-aligned"]
    assert second.alignment == first.alignment, "the words are the same: hidden 8"
    assert second != first
    fresh = Desk(desk.name, runs, tmp_path / "fresh.h5", Told())
    connecting.connect(fresh, other)
    assert second == numbers(fresh)["paths/ends-aligned"]


def test_runs_of_another_loss_are_refused(desk, monkeypatch):
    monkeypatch.setattr(desk.problem, "tasks", with_another_loss(desk.problem))
    with pytest.raises(LandscapeError, match=r"averaged-0\.h5 was recorded with other losses than the problem gives"):
        connecting.connect(desk, settings())


def test_one_example_is_no_mini_batch_for_statistics(desk):
    with pytest.raises(LandscapeError, match="2 or more examples for a curve of a model with statistics, got 1"):
        connecting.connect(desk, settings(curve=True, curve_steps=3, batch_size=1))
    assert "barriers/ends" in archive.groups(desk.results.path), "what could be computed is saved"
