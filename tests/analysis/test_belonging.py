"""Whose results a file holds: what may stand under a name, and what is refused."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from analysis import archive
from analysis.archive import ArchiveError, Entry, Provenance, distinct_name
from analysis.belonging import difference, may_replace
from analysis.desk import Desk, trajectory_hash
from analysis.results import Estimate
from analysis.settings import ProblemName
from landscape import store
from landscape.trajectory import Layout, Slot
from tests.analysis.synthetic import Told, write_run

DIGITS = {"problem": "digits", "settings": {"width": 4}, "tasks": ["a"], "layout": "l", "frozen": "f", "data": "d"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("problem", "quadratic", "problem digits, not quadratic"),
        ("settings", {"width": 8}, r"settings \{\"width\": 4\}, not \{\"width\": 8\}"),
        ("tasks", ["a", "b"], r"tasks \[\"a\"\], not"),
        ("layout", "m", "layout of the parameters l, not m"),
        ("frozen", "g", "frozen parameters f, not g"),
        ("data", "e", "evaluation data d, not e"),
    ],
)
def test_a_file_of_one_problem_takes_no_result_of_another_and_says_what_differs(tmp_path, key, value, words):
    path = tmp_path / "results.h5"
    archive.save(path, {"one": Entry(Estimate(1.0, 0.0, 1), Provenance(of=DIGITS))})
    before = path.read_bytes()
    other = Entry(Estimate(2.0, 0.0, 1), Provenance(of={**DIGITS, key: value}))
    with pytest.raises(ArchiveError, match=rf"results\.h5 holds results of another problem \({words}.*another file"):
        archive.save(path, {"two": other})
    assert path.read_bytes() == before


def test_the_root_states_the_problem_of_the_first_result(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"stated by nobody": Entry(Estimate(1.0, 0.0, 1))})
    assert archive.problem_of(path) == {}
    archive.save(path, {"one": Entry(Estimate(1.0, 0.0, 1), Provenance(of=DIGITS))})
    assert archive.problem_of(path) == DIGITS
    with h5py.File(path, "r") as file:
        assert (file.attrs["problem"], file.attrs["data_hash"]) == ("digits", "d")
        assert json.loads(file.attrs["problem_settings"]) == {"width": 4}


def test_results_of_an_earlier_version_state_their_problem_by_their_settings(tmp_path):
    path = tmp_path / "results.h5"
    made = Provenance(inputs={"data": "d"}, settings={"problem": "digits", "problem_settings": {"width": 4}})
    archive.save(path, {"one": Entry(Estimate(1.0, 0.0, 1), made)})
    with pytest.raises(ArchiveError, match=r"another problem \(evaluation data d, not e\)"):
        archive.save(path, {"two": Entry(Estimate(2.0, 0.0, 1), Provenance(of={**DIGITS, "data": "e"}))})
    archive.save(path, {"two": Entry(Estimate(2.0, 0.0, 1), Provenance(of=DIGITS))})


def test_the_folder_of_a_users_own_problem_makes_no_difference_and_its_file_does():
    mine = {**DIGITS, "problem": "models/mine.py:make"}
    assert difference(mine, {**DIGITS, "problem": "/home/me/models/mine.py:make"}) == ""
    assert difference(mine, {**DIGITS, "problem": "models/other.py:make"}).startswith("problem other.py:make")
    assert difference(mine, {**DIGITS, "problem": "models/mine.py:other"}).startswith("problem mine.py:other")


def made(runs, title=None, by_study=False):
    return Provenance(settings={} if title is None else {"title": title}, runs=runs, by_study=by_study)


A, A_GROWN, A_OTHER, B = {"a-0": ("1", 4)}, {"a-0": ("2", 6)}, {"a-0": ("3", 4)}, {"b-0": ("4", 4)}


@pytest.mark.parametrize(
    ("new", "old", "may"),
    [
        (made(A), made(A), True),
        (made(A_GROWN), made(A), True),
        (made(A_OTHER), made(A), False),
        (made(B), made(A), False),
        (made({**A, **B}), made(A), True),
        (made(A), made({**A, **B}), False),
        (made(A, by_study=True), made({**A, **B}, by_study=True), True),
        (made(A, by_study=True), made({**A, **B}), False),
        (made(A, "x"), made(A, "x"), True),
        (made(A, "x-training"), made(A, "x"), False),
        (Provenance(), made(A), True),
        (made(A), Provenance(), True),
        (made(A), Provenance(inputs={"b-0": "4", "data": "d"}), False),
    ],
    ids=[
        "the same",
        "grown",
        "other content",
        "another run",
        "more runs",
        "fewer runs",
        "fewer runs of a study",
        "a study's, fewer, in the place of a command's",
        "the same title",
        "another title",
        "nothing stated now",
        "nothing stated then",
        "an earlier version's",
    ],
)
def test_what_may_take_the_place_of_what(tmp_path, new, old, may):
    assert may_replace(new, old) is may
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(Estimate(1.0, 0.0, 1), old)})
    if may:
        archive.save(path, {"group": Entry(Estimate(2.0, 0.0, 1), new)})
    else:
        with pytest.raises(
            ArchiveError, match=r"results\.h5 holds group of .* would take its place: expected the same"
        ):
            archive.save(path, {"group": Entry(Estimate(2.0, 0.0, 1), new)})
    assert archive.load(path, "group").record.value == (2.0 if may else 1.0)


AWKWARD = [
    "lr@0.1",
    "a/b",
    "a:b",
    "a b",
    "größe",
    "..",
    "-x",
    "a'b",
    'a"b',
    "<b>",
    "@@@",
    "::",
    "\u00e9",
    "e\u0301",
    ".h",
]


def test_distinct_names_are_safe_short_and_everybodys_own():
    texts = [*AWKWARD, "x" * 300, "x" * 301, "lr_0.1", "a_b", "_", "", "plain-0"]
    names = [distinct_name(text) for text in texts]
    assert len({name.casefold() for name in names}) == len(texts)
    assert all(archive.safe_name(name) == name and len(name) <= archive.LONGEST + 9 for name in names)
    assert names[-1] == "plain-0"
    assert distinct_name("head_a", reserved=("head_",)) != "head_a"


@pytest.fixture
def problem_and_run(tmp_path):
    """The quadratic problem and a run of it: see `landscape train`."""
    from landscape import problems, training
    from landscape.schedules import Every
    from landscape.strategies import Averaged

    name = ProblemName(name="quadratic", settings={"tasks": 2, "size": 4, "examples": 12})
    problem = problems.load(name.name, name.settings)
    run = training.record(problem, Averaged(), training.Plan(6, 4, Every(2)), tmp_path / "run.h5")
    return name, run


def beginning_of(run, path, problem, count):
    """A file that holds the first snapshots of a run."""
    from dataclasses import replace

    from landscape.trajectory import History, Snapshot

    with store.writer(path, run.provenance, run.layout, problem.buffer_layout, run.theta.dtype) as writer:
        for row in range(count):
            after = run.steps[row - 1] if row else -1
            kept = (run.history.step > after) & (run.history.step <= run.steps[row])
            history = History(*(values[kept] for values in vars(run.history).values()))
            numbers = {
                key: getattr(run, key)[row].item()
                for key in ("steps", "updates", "gradients", "seconds", "path_steps", "path_updates")
            }
            writer.append(
                Snapshot(
                    step=numbers.pop("steps"),
                    **numbers,
                    theta=run.theta[row],
                    buffers=run.buffers[row],
                    losses=run.losses[row],
                    metrics=run.metrics[row],
                    history=history,
                )
            )
    return replace(store.open(path))


def test_a_run_that_has_grown_is_the_same_run_and_one_that_differs_is_not(tmp_path, problem_and_run):
    from dataclasses import replace

    name, run = problem_and_run
    results = tmp_path / "results.h5"
    problem = Desk(name, [run], results, Told()).problem
    young = beginning_of(run, tmp_path / "young.h5", problem, 2)
    first = Desk(name, [young], results, Told())
    first.results.save({"group": Entry(Estimate(1.0, 0.0, 1), first.made(first.hashes, {}))})
    grown = Desk(name, [run], results, Told())
    assert grown.hashes != first.hashes
    grown.results.save({"group": Entry(Estimate(2.0, 0.0, 1), grown.made(grown.hashes, {}))})
    other = replace(run, provenance=replace(run.provenance, strategy="another"))
    assert trajectory_hash(other) != trajectory_hash(run)
    with pytest.raises(
        ArchiveError,
        match=r"results\.h5 holds group of another run called averaged-0: expected one run of a name .*another file",
    ):
        Desk(name, [other], results, Told())
    with pytest.raises(ArchiveError, match="another run called averaged-0"):
        Desk(name, [young], results, Told())  # whether it is the beginning cannot be told from a hash
    assert archive.load(results, "group").record.value == 2.0


def test_layers_cut_by_a_pattern_are_others_than_whole_ones():
    from analysis import subsets
    from analysis.examining import tasks_of
    from analysis.settings import HessianSettings

    names = (("trunk.0.weight", (3, 2)), ("trunk.0.bias", (3,)), ("trunk.1.weight", (1, 3)))
    slots, offset = [], 0
    for tensor, shape in names:
        slots.append(Slot(tensor, shape, "shared", offset))
        offset += int(np.prod(shape))
    layout = Layout(tuple(slots))
    labels = [layer.label for layer in subsets.layers(layout, subsets.Named("*.weight")).values()]
    assert labels == ["layer trunk.0 (weight)", "layer trunk.1"]
    on = ["shared", "*.weight", "*.weigh?", "trunk.?.weight", "trunk.*.weight", "all"]
    tasks = tasks_of(HessianSettings(on=on, layers=True), layout)
    groups = [task.what + task.suffix for task in tasks]
    assert len(set(groups)) == len(on) + 3, groups
    assert len({(task.subset.label, task.what) for task in tasks}) == len(tasks)
    assert {"eigenvalues", "eigenvalues-all", "eigenvalues-layer-trunk.0", "eigenvalues-layer-trunk.1"} <= set(groups)


def test_heads_are_called_as_ever_and_a_pattern_is_not_called_like_a_head():
    from analysis.examining import _title
    from analysis.subsets import Head, Named

    assert _title(Head("depth")) == "head_depth"
    assert _title(Named("head_depth")) != "head_depth"
    assert _title(Head("a/b")) != _title(Head("a_b"))
    assert Named("shared").label != "shared"
    assert _title(Named("fisher")) != "fisher", "which is what groups of Fisher matrices are called"


def test_synthetic_runs_with_awkward_names_have_groups_of_their_own(tmp_path):
    from analysis.desk import group_of

    theta = np.zeros((2, 2))
    runs = [write_run(tmp_path / f"{k}.h5", theta, label=label) for k, label in enumerate(AWKWARD)]
    groups = [group_of(run) for run in runs]
    assert len(set(groups)) == len(runs)
    assert not any("/" in group for group in groups)
