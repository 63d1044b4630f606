"""What `connect` knows of earlier results, nothing that other points, examples, groups or losses would change; and how
it calls what it finds.
"""

from __future__ import annotations

from itertools import product

import pytest

from analysis import archive, connecting, tracing
from analysis.desk import Desk, pair_of
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


def held(desk, *kinds):
    return {group for group in archive.groups(desk.results.path) if group.startswith(kinds)}


def test_between_other_points_nothing_of_the_former_ones_stays_under_their_title(desk):
    chosen = settings(align=True, curve=True, curve_steps=3, batch_size=8)
    connecting.connect(desk, chosen)
    kinds, suffixes = ("paths", "barriers"), ("", "-aligned", "-curve")
    every = {f"{kind}/ends{s}{norm}" for kind, s, norm in product(kinds, suffixes, ("", "-reestimated"))}
    assert held(desk, *kinds) == every
    connecting.connect(desk, settings(label="others", align=True, batch_norm=["frozen"]))
    connecting.connect(desk, settings(at=[0, 4], batch_norm=["frozen"]))
    others = {f"{kind}/others{s}" for kind in kinds for s in ("", "-aligned")}
    assert held(desk, *kinds) == others | {"paths/ends", "barriers/ends"}
    names = {"averaged-0@0", "averaged-0@4", "averaged-1@0", "averaged-1@4"}
    found = numbers(desk)
    assert {*found["barriers/ends"].points} == {*found["points/ends"].points} == names
    assert {*found["barriers/others-aligned"].points} == {"averaged-0@4", "averaged-1@4"}


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({"points": 5}, False),
        ({"data": "training"}, False),
        ({"heads": "refitted"}, False),
        ({"engine": "sequential:8"}, True),
    ],
    ids=str,
)
def test_lines_beside_each_other_are_of_the_same_places_and_conditions(desk, changes, stays):
    connecting.connect(desk, settings(align=True, batch_norm=["frozen"]))
    connecting.connect(desk, settings(batch_norm=["frozen"], **changes))
    assert ("paths/ends-aligned" in numbers(desk)) == stays


def test_where_two_runs_part_is_kept_once_in_whatever_order_they_are_given(desk, runs):
    strategy, plan = Averaged(Optimiser("SGD", lr=0.01)), training.Plan(4, 16, Every(2))
    other = training.record(desk.problem, strategy, plan, desk.results.path.with_name("b-0.h5"), label="b")
    for order in ([runs[0], other], [other, runs[0]]):
        connecting.connect(Desk(desk.name, order, desk.results.path, Told()), settings(batch_norm=["frozen"]))
    assert held(desk, "separation") == {"separation/b-0-averaged-0"}


NAMES = ("m-0", "m-0-n-0", "m-0-m-0", "n-0", "-0", "-0-b-1", "b-1-c-0", "c-0", "a-1", "lr-0.1-0", "x_-0-0a1b2c3d")


@pytest.mark.parametrize("ending", ["", "_20"])
def test_no_two_pairs_have_one_name_and_ordinary_ones_are_joined(ending):
    every = [(one + ending, other + ending) for one, other in product(NAMES, NAMES)]
    assert len({pair_of(*pair) for pair in every}) == len(every)
    for ordinary in (("averaged-0", "averaged-1"), ("lr-0.1-0", "independent-12"), ("a_b-1", "m-0")):
        pair = [name + ending for name in ordinary]
        assert pair_of(*pair) == "-".join(pair)


@pytest.mark.parametrize("labels", [("m", "m-0-n", "m-0-m", "n"), ("p", "p-0_4-q", "p-0_4-p", "q")], ids=str)
def test_runs_whose_names_joined_coincide_have_separations_and_curves_of_their_own(labels, tmp_path):
    problem, made = problems.load("quadratic"), []
    for number, label in enumerate(labels):
        strategy = Averaged(Optimiser("SGD", lr=1e-3 * (number + 1)))
        path, plan = tmp_path / f"{label}.h5", training.Plan(4, 8, Every(2))
        made.append(training.record(problem, strategy, plan, path, label=label))
    desk = Desk(ProblemName(name="quadratic"), made, tmp_path / "results.h5", Told())
    connecting.connect(desk, settings(curve=True, curve_steps=3, batch_size=8, examples=16))
    pairs = {frozenset((one, other)) for one in labels for other in labels if one != other}
    found = numbers(desk)
    parted = [record for group, record in found.items() if group.startswith("separation/")]
    assert len(parted) == 6
    assert {frozenset((record.first.label, record.second.label)) for record in parted} == pairs
    entries = archive.load_all(tmp_path / "results.h5")
    bent = [entries[group].provenance.runs for group in held(desk, "curve/")]
    assert {frozenset(name.rpartition("-")[0] for name in runs) for runs in bent} == pairs
    stages = list(desk.progress.stages)
    connecting.connect(desk, settings(curve=True, curve_steps=3, batch_size=8, examples=16))
    assert desk.progress.stages == stages, "all is known"
