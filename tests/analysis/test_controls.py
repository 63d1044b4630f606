"""Control runs that take another strategy's movement, single tasks in a study, and what settings refuse."""

from __future__ import annotations

import pytest

from analysis import archive, controls
from analysis.desk import Desk
from analysis.exploring import explore
from analysis.results import Contrast, Movement
from analysis.settings import ExploreSettings, parse
from analysis.study import Study
from landscape import Averaged, Grouped, Independent, LandscapeError, Optimiser, store
from landscape.strategies import Count
from tests.analysis.synthetic import Told

SMALL = {
    "problem": "quadratic",
    "problem_settings": {"tasks": 3, "size": 4, "heads": 1, "spread": 0.3, "examples": 12},
    "seeds": [0, 1, 2],
    "strategies": [
        {"name": "averaged", "rate": 0.02},
        {"name": "independent", "rate": 0.01},
        {"name": "averaged", "label": "control", "movement_of": "independent"},
        {"name": "single", "task": "task2", "rate": 0.02},
    ],
    "training": {"steps": 8, "every": 2, "batch_size": 4},
    "surface": {"nx": 3, "ny": 3},
}
RATE = 0.01


def test_the_rate_of_a_control_makes_rate_times_updates_equal():
    other = Independent(Optimiser("Adam", lr=RATE))
    assert controls.matched_rate(Averaged(), other, 5) == pytest.approx(5 * RATE)
    assert controls.matched_rate(Grouped(Count(2)), other, 6) == pytest.approx(3 * RATE)
    assert controls.matched_rate(other, Averaged(Optimiser("Adam", lr=RATE)), 4) == pytest.approx(RATE / 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The runs of a study with a control and a single task, trained only."""
    folder = tmp_path_factory.mktemp("controls")
    study = Study(parse(SMALL), folder, Told())
    return folder, study.train(study.rates())


def test_a_control_has_the_movement_of_the_other_at_every_snapshot(trained):
    _, runs = trained
    by_name = {run.name: run for run in runs}
    for seed in (0, 1, 2):
        control, other = by_name[f"control-{seed}"], by_name[f"independent-{seed}"]
        assert control.provenance.rate == pytest.approx(3 * RATE)
        ours, theirs = (run.provenance.rate * run.updates for run in (control, other))
        assert ours.tolist() == pytest.approx(theirs.tolist())
        assert (control.theta[0] == other.theta[0]).all()


@pytest.mark.parametrize(
    "others", [("control",), pytest.param(("independent", "control", "single"), marks=pytest.mark.slow)], ids=len
)
def test_runs_are_compared_from_the_file_once_and_again_for_nothing(trained, tmp_path, others):
    runs = [run for run in trained[1] if run.provenance.seed < 2 and run.provenance.label in ("averaged", *others)]
    settings = parse(SMALL)
    chosen = ExploreSettings(on=["shared", "head:task1"], forms=["raw", "relative"], null=5, resamples=99)
    told = Told()
    desk = Desk(settings.named_problem, runs, tmp_path / "results.h5", told)
    first = explore(desk, chosen)
    assert told.stages == ["movement", "comparison"]
    assert told.told == told.amounts
    assert len(first.moved) == len(runs) * 4
    assert {(c.strategy, c.subset, c.form) for c in first.contrasts} == {
        (s, on, form) for s in others for on in ("shared", "head of task1") for form in ("raw", "relative")
    }
    assert {c.baseline for c in first.contrasts} == {"averaged"}
    again = explore(desk, chosen)
    assert told.stages == ["movement", "comparison"], "nothing was done again"
    assert again.contrasts == first.contrasts
    assert again.walks == first.walks
    assert [m.movement for m in again.moved] == [m.movement for m in first.moved]
    kept = [entry.record for entry in archive.load_all(tmp_path / "results.h5").values()]
    assert sum(isinstance(record, Contrast) for record in kept) == len(first.contrasts)
    assert sum(isinstance(record, Movement) for record in kept) == len(first.moved)


def test_a_run_more_is_measured_alone_and_other_measures_only_compared(trained, tmp_path):
    _, runs = trained
    settings, chosen = parse(SMALL), ExploreSettings(null=0, resamples=99)
    few = [run for run in runs if run.provenance.seed < 2 and run.provenance.label != "control"]
    explore(Desk(settings.named_problem, few, tmp_path / "results.h5", Told()), chosen)
    told = Told()
    desk = Desk(
        settings.named_problem, [*few, next(r for r in runs if r.name == "control-0")], tmp_path / "results.h5", told
    )
    explore(desk, chosen)
    assert told.notes[0] == "1 run, 1 subset, 1 form"
    only = explore(desk, ExploreSettings(null=0, resamples=99, measures=["net"], budgets=["steps", "loss:task2"]))
    assert told.stages == ["movement", "comparison", "comparison"]
    assert {(c.measures, c.budgets) for c in only.contrasts} == {(("net",), ("steps", "loss:task2"))}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"baseline": "mean"}, "unknown label of a baseline 'mean'"),
        ({"on": ["head:nobody"]}, "unknown head 'nobody'"),
        ({"measures": ["nett"]}, "unknown measure 'nett': .*did you mean 'net'"),
        ({"budgets": ["loss:task9"]}, "unknown budget 'loss:task9'"),
    ],
)
def test_unknown_words_are_refused_before_anything_is_written(trained, tmp_path, words, match):
    _, runs = trained
    desk = Desk(parse(SMALL).named_problem, runs[:2], tmp_path / "results.h5", Told())
    with pytest.raises(LandscapeError, match=match):
        explore(desk, ExploreSettings(**words))
    assert not (tmp_path / "results.h5").exists()


@pytest.mark.parametrize(
    ("strategies", "match"),
    [
        ([{"name": "averaged", "movement_of": "nobody"}], "unknown strategy in movement_of 'nobody'"),
        (
            ["independent", {"name": "averaged", "rate": 0.1, "movement_of": "independent"}],
            "averaged has a rate and a movement_of: expected one of them",
        ),
        (
            [
                "independent",
                {"name": "averaged", "label": "one", "movement_of": "independent"},
                {"name": "averaged", "label": "two", "movement_of": "one"},
            ],
            "two takes the movement of one, which takes another's",
        ),
        ([{"name": "single"}], "expected the name of a task for the strategy single"),
    ],
)
def test_controls_that_cannot_be_are_refused(strategies, match):
    with pytest.raises(LandscapeError, match=match):
        parse({**SMALL, "strategies": strategies})


def test_a_single_task_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(LandscapeError, match="unknown task 'task9': expected one of task1"):
        Study(parse({**SMALL, "strategies": [{"name": "single", "task": "task9"}]}), tmp_path / "new", Told())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [{"forms": ["rwa"]}, {"pairing": "seeds"}, {"resamples": 3}, {"on": []}])
def test_settings_of_exploration_are_checked(words):
    with pytest.raises(LandscapeError, match=r"explore"):
        parse({**SMALL, "explore": words})


def test_a_control_of_a_searched_strategy_follows_its_rate(tmp_path):
    strategies = ["independent", {"name": "averaged", "label": "control", "movement_of": "independent"}]
    chosen = parse({**SMALL, "strategies": strategies, "search": {"rates": [0.003, 0.03], "steps": 2}})
    study = Study(chosen, tmp_path, Told())
    own, control = study.rates()
    assert control == pytest.approx(3 * own)
    assert store.open(study.train([own, control])[-1].path).provenance.label == "control"
