"""Curvature along runs into a results file: interrupted and gone on with, known and not made again, refused."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import archive, examining, tracking
from analysis.desk import Desk
from analysis.examining import examine, joined
from analysis.settings import HessianSettings, ProblemName
from analysis.tracking import Spectrum
from landscape import Averaged, Every, Optimiser, Plan, problems, record
from landscape.errors import LandscapeError

NAME = ProblemName(name="quadratic", settings={"tasks": 2, "size": 6, "spread": 0.3})
FULL = HessianSettings(
    snapshots=3,
    top=2,
    density=True,
    agreement=True,
    sharpness=True,
    intervals=20,
    probes=2,
    degree=6,
    trace=12,
    pairs=2,
)


class Quiet:
    def __init__(self, stop_at: int = 0) -> None:
        self.told, self.said, self._stop_at = 0, [], stop_at

    def begin(self, stage: str, amount: int) -> None:
        self.said.append(stage)

    def tell(self, amount: int) -> None:
        self.told += amount
        if self._stop_at and self.told >= self._stop_at:
            raise KeyboardInterrupt

    def end(self, note: str) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    problem = problems.load(NAME.name, NAME.settings)
    strategy = Averaged(Optimiser("SGD", lr=0.01))
    return record(problem, strategy, Plan(4, 8, Every(2)), tmp_path_factory.mktemp("run") / "run.h5")


def desk(run, path, **words):
    return Desk(NAME, [run], path, Quiet(**words))


def records(path):
    return {group: entry.record for group, entry in archive.load_all(path).items()}


@pytest.mark.parametrize("every", [1000, pytest.param(250, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_to_the_same_records_and_leaves_nothing_beside_them(
    run, tmp_path, monkeypatch, every
):
    monkeypatch.setattr(examining, "SAVE_EVERY", 0.0)
    whole = desk(run, tmp_path / "whole.h5")
    examine(whole, FULL)
    expected = records(tmp_path / "whole.h5")
    assert len(expected) == 1 + 1 + 2 * 3 * 3 + 2
    products = 0
    for stop_at in range(15, 20_000, every):
        again = desk(run, tmp_path / "parts.h5", stop_at=stop_at)
        try:
            examine(again, FULL)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "parts.h5").exists(), "what is underway stands in a file of its own"
        products += again.progress.told
    assert products > 0
    assert records(tmp_path / "parts.h5") == expected
    assert not list(tmp_path.glob(".*"))


def test_what_is_known_is_not_made_again_and_what_is_added_is(run, tmp_path):
    chosen = HessianSettings(snapshots=2, top=2)
    (first,) = examine(desk(run, tmp_path / "r.h5"), chosen)
    again = desk(run, tmp_path / "r.h5")
    assert examine(again, chosen) == [first]
    assert again.progress.said == []
    more = desk(run, tmp_path / "r.h5")
    assert examine(more, chosen.model_copy(update={"agreement": True})) == [first]
    assert set(records(tmp_path / "r.h5")) == {"eigenvalues/averaged-0", "agreement/averaged-0"}


def test_every_subset_layer_and_matrix_has_a_group_of_its_own(run, tmp_path):
    examine(desk(run, tmp_path / "r.h5"), HessianSettings(snapshots=1, top=1, on=["shared", "all"], layers=True))
    examine(desk(run, tmp_path / "r.h5"), HessianSettings(snapshots=1, top=1, matrix="fisher"))
    found = records(tmp_path / "r.h5")
    assert set(found) == {
        "eigenvalues/averaged-0",
        "eigenvalues-all/averaged-0",
        "eigenvalues-fisher/averaged-0",
        "eigenvalues-layer-theta/averaged-0",
        "eigenvalues-layer-heads/averaged-0",
    }
    assert found["eigenvalues-fisher/averaged-0"].matrix == "empirical Fisher matrix"
    assert found["eigenvalues-all/averaged-0"].subset == "all"
    # The shared parameters are one layer here, so that its block is the whole matrix: the same search.
    np.testing.assert_array_equal(
        found["eigenvalues-layer-theta/averaged-0"].values, found["eigenvalues/averaged-0"].values
    )


def test_densities_of_former_settings_go_with_their_spectrum_and_those_of_other_subsets_stay(run, tmp_path):
    chosen = HessianSettings(at=[4], top=1, density=True, probes=3, degree=4, trace=6)
    examine(desk(run, tmp_path / "results.h5"), chosen)
    examine(desk(run, tmp_path / "results.h5"), chosen.model_copy(update={"on": ["all"]}))
    kinds, operators = ("density", "moments"), ("task1", "task2", "average")
    every = {f"{kind}{suffix}/averaged-0/{name}/4" for kind in kinds for suffix in ("", "-all") for name in operators}
    assert {group for group in records(tmp_path / "results.h5") if group.startswith(kinds)} == every
    examine(
        desk(run, tmp_path / "results.h5"),
        HessianSettings(at=[0], top=1, density=True, probes=5, degree=6, trace=6, tasks=["task1"]),
    )
    found = records(tmp_path / "results.h5")
    left = {group for group in every if "-all/" in group}
    assert {group for group in found if group.startswith(kinds)} == left | {f"{k}/averaged-0/task1/0" for k in kinds}
    assert (found["spectrum/averaged-0"].steps.tolist(), found["spectrum-all/averaged-0"].steps.tolist()) == ([0], [4])


def test_records_of_single_snapshots_join_to_that_of_all(run):
    problem = problems.load(NAME.name, NAME.settings)
    compared = examining.agreement.Compared(2, draws=50)
    parts = [examining.agreement.along(problem, run, [row], compared) for row in range(3)]
    whole = joined(parts)
    assert whole.steps.tolist() == [0, 2, 4]
    assert whole.products == sum(part.products for part in parts)
    assert whole.gradients == sum(part.gradients for part in parts)
    np.testing.assert_array_equal(whole.norm[1], parts[1].norm[0])


def test_curves_go_on_behind_those_that_are_given_to_the_same_bytes(run):
    problem = problems.load(NAME.name, NAME.settings)
    chosen = Spectrum(2, resamples=10)
    whole = list(tracking.following(problem, run, range(3), chosen))
    for place in range(2):
        rest = list(tracking.following(problem, run, range(3), chosen, before=whole[place]))
        assert rest == whole[place + 1 :]


def test_some_tasks_alone(run):
    problem = problems.load(NAME.name, NAME.settings)
    one = tracking.along(problem, run, [0], Spectrum(1, tasks=("task2",)))
    assert one.tasks == ("task2",)
    expected = np.linalg.eigvalsh(problem.model.hessians[1].numpy())[-1]
    # The residual bounds the error of a value; the tolerance of the search is 1e-3 of it.
    assert abs(one.values[0, 0, 0] - expected) <= one.residuals[0, 0, 0] <= 1e-3 * expected
    average = tracking.along(problem, run, [0, 1], Spectrum(1, tasks=("average",)))
    mean = np.linalg.eigvalsh(problem.model.hessians.mean(0).numpy())[-1]
    np.testing.assert_allclose(average.values[:, 0, 0], mean, rtol=1e-3)
    with pytest.raises(LandscapeError, match="unknown task 'task3': expected one of average, task1, task2"):
        tracking.along(problem, run, [0], Spectrum(1, tasks=("task3",)))


def test_sampling_intervals_are_of_hessians():
    with pytest.raises(LandscapeError, match="expected Hessians for sampling intervals, got empirical Fisher matrix"):
        Spectrum(resamples=10, kind=examining.KINDS["fisher"])


def test_more_eigenpairs_than_parameters_are_refused_where_they_are_asked_for(run, tmp_path):
    with pytest.raises(LandscapeError, match=r"expected at most 6 eigenvalues on shared, got 7: ask for fewer"):
        examining.require(desk(run, tmp_path / "r.h5"), HessianSettings(top=7))


def test_the_plan_counts_what_is_asked_for(run, tmp_path):
    text = examining.whole_plan(desk(run, tmp_path / "r.h5"), HessianSettings(snapshots=2, top=2, products=9))
    # Three operators at two snapshots, nine products each and one for the residuals.
    assert text == "eigenvalues: snapshots 2, runs 1, subsets of the parameters 1; at most 60 products over 16 examples"
