"""Seeds that are none: starts that several seeds share, or that one seed does not have alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from analysis import archive, distances, exploring, movement
from analysis.alternation import usual_trial
from analysis.archive import Entry
from analysis.contrasts import Question, contrast
from analysis.desk import trajectory_hash
from analysis.results import Run, said_of_starts, starts_counted, starts_of
from analysis.stability import line_of
from analysis.statistics import compare
from figures.scenes.words import seeds_of
from landscape.errors import LandscapeError
from landscape.trajectory import History, start_hash
from tests.analysis.movements import paired
from tests.analysis.synthetic import write_run
from tests.analysis.test_statistics import pairs

OWN = {(label, seed): f"s{seed}" for label in ("averaged", "independent") for seed in range(4)}
ONE = dict.fromkeys(OWN, "s")
SHARED = r"Seeds 0, 1, 2 and 3 begin at one start: they differ in what is drawn on the way alone, .* that start only\."


def runs(starts):
    return [Run(label, "", seed, start) for (label, seed), start in starts.items()]


def test_words_count_starts_where_seeds_do_not_have_their_own():
    assert said_of_starts(OWN) == starts_counted(OWN) == ""
    assert said_of_starts({}) == starts_counted({}) == ""
    assert starts_counted(ONE) == " from one start"
    assert seeds_of(runs(ONE)) == "4 seeds of each strategy from one start"
    assert seeds_of(runs(OWN)) == "4 seeds of each strategy"
    two = {key: "a" if key[1] < 3 else "b" for key in OWN}
    assert starts_counted(two) == " from 2 starts"
    assert said_of_starts(two).startswith("Seeds 0, 1 and 2 begin at one start: ")
    apart = OWN | {("averaged", 2): "x"}
    assert said_of_starts(apart) == "Runs of seed 2 begin at different starts: they are no pairs."
    assert seeds_of(runs(apart)).endswith("4 seeds of each strategy, those of one seed from different starts")
    assert starts_of([Run("a", "", 0)]) == {}, "what is not known is not said"


def test_a_verdict_over_seeds_of_one_start_says_so():
    question = Question(budgets=("steps",), resamples=199)
    values = 10 + 0.01 * np.arange(4)
    (plain,) = contrast(paired(values), "independent", "averaged", question, OWN)
    (found,) = contrast(paired(values), "independent", "averaged", question, ONE)
    assert (plain.starts, found.starts) == (4, 1)
    assert "independent against averaged, 4 seeds: wider" in plain.verdicts[0]
    assert "independent against averaged, 4 seeds of one start: " in found.verdicts[0]
    assert plain.note == ""
    assert re.search(SHARED, found.note)
    assert (found.low[0, 0], found.high[0, 0]) == (plain.low[0, 0], plain.high[0, 0]), "the numbers hold, for one start"


def test_an_unpaired_side_says_of_its_own_seeds_only():
    starts = {("averaged", s): "a" for s in range(4)} | {("independent", s): f"b{s}" for s in range(4)}
    question = Question(budgets=("steps",), resamples=199)
    (found,) = contrast(paired(np.arange(1.0, 5)), "independent", "averaged", question, starts)
    assert found.design == "unpaired"
    assert found.starts == 1
    assert found.note.startswith(
        "Unpaired, by Welch's t test: runs of the same seed do not start alike (seed 0). Seeds 0"
    )
    assert "no pairs" not in found.note


def test_paired_differences_leave_out_seeds_that_start_apart():
    explored = [
        replace(
            one,
            run=replace(one.run, start="x" if (one.run.label, one.run.seed) == ("averaged", 1) else f"s{one.run.seed}"),
        )
        for one in pairs([1.0, 50.0, 1.1, 0.9])
    ]
    found = compare(explored, "independent", "averaged", "net", "steps")
    assert found.seeds.tolist() == [0, 2, 3]
    assert found.difference == pytest.approx(1.0)
    assert found.note == "Runs of seed 1 begin at different starts: they are no pairs."


def test_runs_that_are_one_over_again_are_counted_once(tmp_path):
    rng = np.random.default_rng(0)
    walk, other = (np.cumsum(rng.standard_normal((5, 4)), 0) for _ in range(2))
    made = [
        write_run(tmp_path / "a0.h5", walk, label="a", seed=0),
        write_run(tmp_path / "a1.h5", walk, label="a", seed=1, seconds=[0, 2, 3, 4, 5]),
        write_run(tmp_path / "a2.h5", other, label="a", seed=2),
        write_run(tmp_path / "b0.h5", walk, label="b", seed=1),
    ]
    repeated = exploring.repetitions(made)
    assert repeated == {("a", 1): 0}
    said = exploring.said_of_repetitions(repeated, ["a", "b"])
    assert said.startswith("Seed 1 of a is its seed 0 over again, to the byte, and left out: train it from a start")
    assert exploring.said_of_repetitions(repeated, ["b"]) == ""


def test_a_start_is_theta_and_buffers_of_step_0(tmp_path):
    theta, buffers = np.ones((2, 4)), np.array([[1.0], [2.0]])
    run = write_run(tmp_path / "a.h5", theta, buffers=buffers)
    assert run.start == start_hash(theta[0], buffers[0]) != start_hash(theta[0], buffers[1])
    assert movement.run_of(run).start == run.start
    later = write_run(tmp_path / "b.h5", theta, buffers=buffers, steps=[5, 6])
    assert later.start == "", "a file that begins later does not hold the start"


def test_results_of_versions_without_starts_are_read(tmp_path):
    record = compare(pairs([1.0, 2.0, 3.0]), "independent", "averaged", "net", "steps")
    archive.save(tmp_path / "r.h5", {"c": Entry(record)})
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        fields = json.loads(file["c"].attrs["fields"])
        del fields["note"]
        file["c"].attrs["fields"] = json.dumps(fields)
    assert archive.load(tmp_path / "r.h5", "c").record == record


CHANGED = {
    "updates": lambda run: replace(run, updates=run.updates + 1),
    "gradients": lambda run: replace(run, gradients=run.gradients + 1),
    "seconds": lambda run: replace(run, seconds=run.seconds + 1),
    "path_steps": lambda run: replace(run, path_steps=run.path_steps + 1),
    "path_updates": lambda run: replace(run, path_updates=run.path_updates + 1),
    "losses": lambda run: replace(run, losses=run.losses + 1),
    "steps": lambda run: replace(run, steps=run.steps + 1),
    "history": lambda run: replace(run, history=replace(run.history, rate=run.history.rate + 1)),
    "rate": lambda run: replace(run, provenance=replace(run.provenance, rate=0.2)),
    "seed": lambda run: replace(run, provenance=replace(run.provenance, seed=9)),
    "label": lambda run: replace(run, provenance=replace(run.provenance, label="other")),
    "strategy": lambda run: replace(run, provenance=replace(run.provenance, strategy="Other()")),
    "data": lambda run: replace(run, provenance=replace(run.provenance, data="1" * 16)),
    "frozen": lambda run: replace(run, provenance=replace(run.provenance, frozen="1" * 16)),
}


def with_history(run):
    rows = np.arange(1, 5)
    return replace(run, history=History(rows, np.ones((4, 2)), np.ones(4), np.ones(4), np.full(4, 0.1)))


@pytest.mark.parametrize("field", CHANGED)
def test_the_hash_of_a_run_is_of_everything_that_a_result_can_depend_on(field, tmp_path):
    run = with_history(write_run(tmp_path / "a.h5", np.arange(20.0).reshape(5, 4)))
    assert trajectory_hash(run) == trajectory_hash(replace(run))
    assert trajectory_hash(CHANGED[field](run)) != trajectory_hash(run)


def test_the_hash_of_a_run_does_not_know_where_and_when_it_was_written(tmp_path):
    one, other = (write_run(tmp_path / name, np.arange(20.0).reshape(5, 4)) for name in ("a.h5", "b.h5"))
    later = replace(other, provenance=replace(other.provenance, created="2030", versions={"torch": "9"}))
    assert trajectory_hash(one) == trajectory_hash(later)
    moved = write_run(tmp_path / "c.h5", np.arange(20.0).reshape(5, 4)[::-1])
    assert trajectory_hash(moved) != trajectory_hash(one)


def test_movement_sums_the_rates_that_changed(tmp_path):
    run = write_run(tmp_path / "a.h5", np.arange(12.0).reshape(3, 4), steps=[0, 2, 4], updates=[0, 4, 8], rate=0.5)
    rates = np.array([0.5, 0.25, 0.25, 0.125])
    changed = replace(run, history=History(np.arange(1, 5), np.ones((4, 2)), np.ones(4), np.ones(4), rates))
    # Two updates a step: 2 (0.5 + 0.25), then 2 (0.25 + 0.125); exact in binary.
    assert changed.movement.tolist() == [0, 1.5, 2.25]
    assert run.movement.tolist() == [0, 2, 4]
    assert distances.exploration(changed).movement.tolist() == [0, 1.5, 2.25]
    (moved,) = movement.measure([changed], movement.Measuring(draws=0, forms=(movement.Raw(),)))
    assert moved.movement.movement.tolist() == [0, 1.5, 2.25]
    partly = replace(changed, history=replace(changed.history, rate=np.array([0.5, 0.25, np.nan, 0.125])))
    assert np.isnan(partly.movement).tolist() == [False, False, True]
    with pytest.raises(
        LandscapeError, match=r"was trained at learning rates from 0\.125 to 0\.5: expected one for all"
    ):
        usual_trial(changed)
    assert usual_trial(run).rate == 0.5
    assert "the learning rate changed along the run, between 0.125 and 0.5" in line_of(changed).words
    assert np.isnan(line_of(changed).values).all()
