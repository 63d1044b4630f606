"""A tiny study: what it leaves, what it does not do again, and that what is stale is never used."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis import archive, desk, estimates, jobs
from analysis.archive import ArchiveError
from analysis.desk import record_hash, trajectory_hash
from analysis.results import Comparison, Contrast, EigenvalueHistory, Exploration, Surface
from analysis.settings import HessianSettings, SurfaceSettings, parse
from analysis.study import Study
from analysis.workbench import Workbench
from landscape import store
from landscape.errors import LandscapeError
from tests.analysis.synthetic import Told

TINY = {
    "problem": "quadratic",
    "problem_settings": {"tasks": 2, "size": 4, "heads": 1, "spread": 0.3, "examples": 12},
    "seeds": [0, 1],
    "strategies": [{"name": "averaged", "rate": 0.05}, "independent", "adatask"],
    "training": {"steps": 9, "every": 4, "batch_size": 4},
    "search": {"rates": [0.01, 0.05], "steps": 3},
    "surface": {"nx": 5, "ny": 4},
    "hessian": {"snapshots": 2, "top": 2, "tolerance": 1e-6},
    "explore": {"null": 9, "resamples": 99},
}
RUNS = [f"{label}-{seed}" for label in ("averaged", "independent", "adatask") for seed in (0, 1)]


def settings(**changes):
    return parse({**TINY, **changes})


def run(folder, chosen=None, workers=1):
    told = Told()
    Study(chosen or settings(), folder, told, workers).run()
    return told


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, run(folder)


@pytest.fixture
def study(finished, tmp_path):
    """A copy of the finished study."""
    shutil.copytree(finished[0], tmp_path / "study")
    return tmp_path / "study"


def opened(folder, names=RUNS):
    return [store.open(folder / "runs" / f"{name}.h5") for name in names]


ON_A_PLANE = ["plane and shadows", "surface", "true losses beside the plane's"]


def bench(folder, names=RUNS, results="again.h5", told=None, name=None):
    chosen = settings().named_problem if name is None else name
    return Workbench(chosen, opened(folder, names), folder / results, told or Told())


def numbers(folder, results="results.h5"):
    """Every record of a file, seconds of training and what was compared by them left out."""
    found = {}
    for group, entry in archive.load_all(folder / results).items():
        record = entry.record
        if isinstance(record, Comparison) and record.budget == "seconds":
            continue
        if isinstance(record, Contrast):
            record = without_seconds(record)
        if hasattr(record, "seconds"):
            record = replace(record, seconds=np.zeros_like(record.seconds))
        found[group] = record
    return found


def without_seconds(found):
    """The numbers of a contrast that neither seconds nor the correction for them has a part in."""
    kept = [k for k, budget in enumerate(found.budgets) if budget != "seconds"]
    names = ("strategy_values", "baseline_values", "difference", "low", "high", "p_value", "p_permutation", "effect")
    return {name: getattr(found, name)[:, kept].tobytes() for name in names}


def test_a_study_leaves_a_group_for_everything(finished):
    folder, told = finished
    groups = set(archive.groups(folder / "results.h5"))
    expected = {"search/independent", "search/adatask", "distances/last"}
    expected |= {f"{plane}/{title}" for plane in ("plane", "surface") for title in ("principal", "seed-0")}
    expected |= {f"shadow/principal/{name}" for name in RUNS}
    expected |= {f"shadow/seed-0/{name}" for name in RUNS if name.endswith("-0")}
    expected |= {
        f"{what}/{title}" for what in ("shape", "faithfulness", "stability") for title in ("principal", "seed-0")
    }
    expected |= {f"feet/principal/{name}" for name in RUNS}
    expected |= {f"feet/seed-0/{name}" for name in RUNS if name.endswith("-0")}
    expected |= {f"eigenvalues/{name}" for name in RUNS if name.endswith("-0")}
    expected |= {f"{what}/{name}" for what in ("exploration", "training") for name in RUNS}
    budgets = ("steps", "updates", "gradients", "seconds", "movement")
    expected |= {
        f"comparison/{label}/{measure}/{budget}"
        for label in ("independent", "adatask")
        for measure in ("net", "path_steps", "path_updates")
        for budget in budgets
    }
    kinds = ("movement", "displacements", "walks", "beside-walks")
    expected |= {f"{what}/{name}/shared/raw" for what in kinds for name in RUNS}
    expected |= {f"contrast/{label}/shared/raw" for label in ("independent", "adatask")}
    assert groups == expected
    assert sorted(p.name for p in (folder / "runs").iterdir()) == sorted(f"{name}.h5" for name in RUNS)
    assert told.stages == [
        "search of learning rates",
        "training",
        *ON_A_PLANE * 2,
        "Hessian eigenvalues",
        "exploration",
        "movement",
        "comparison",
    ]
    assert told.told == told.amounts, "every stage said in the end that all of its work was done"
    assert len(told.notes) == len(told.stages)


def test_every_check_of_a_study_passes_and_says_of_what_it_is(finished):
    folder, _ = finished
    found = [check for entry in archive.load_all(folder / "results.h5").values() for check in entry.checks]
    assert len(found) == 2 + 2 * 2 + 4 + 3  # planes, surfaces and averages, one operator each and their mean, the rest
    assert all(check.passed for check in found), [check for check in found if not check.passed]
    assert len({check.name for check in found}) == len(found)


def test_provenance_says_what_went_in(finished):
    folder, _ = finished
    problem = jobs.problem_of(settings().named_problem)
    entry = archive.load(folder / "results.h5", "surface/principal")
    assert entry.provenance.inputs["data"] == problem.data_hash == entry.record.data
    assert entry.provenance.inputs["plane"] == record_hash(
        archive.load(folder / "results.h5", "plane/principal").record
    )
    assert entry.provenance.settings["problem"] == "quadratic"
    assert entry.provenance.settings["nx"] == 5
    assert {"torch", "numpy"} <= set(entry.provenance.versions)
    explored = archive.load(folder / "results.h5", "exploration/adatask-1").provenance.inputs
    assert explored == {name: trajectory_hash(t) for name, t in zip(RUNS, opened(folder), strict=True)}


def test_numbers_of_a_study_are_those_of_its_files(finished):
    folder, _ = finished
    problem = jobs.problem_of(settings().named_problem)
    a = problem.model.hessians.numpy()
    for name in RUNS[::2]:
        history = archive.load(folder / "results.h5", f"eigenvalues/{name}").record
        exact = [np.linalg.eigvalsh(m)[::-1][:2] for m in (*a, a.mean(0))]
        np.testing.assert_allclose(history.values, np.broadcast_to(exact, history.values.shape), rtol=1e-9)
        np.testing.assert_array_equal(history.steps, [0, 9])
    for name, trajectory in zip(RUNS, opened(folder), strict=True):
        explored = archive.load(folder / "results.h5", f"exploration/{name}").record
        shared = trajectory.shared[:]
        np.testing.assert_allclose(explored.net, np.linalg.norm(shared - shared[0], axis=1), atol=1e-14)


def marks(folder):
    return {p: p.stat().st_mtime_ns for p in [folder / "results.h5", *(folder / "runs").iterdir()]}


def test_a_second_run_does_nothing_again(study):
    before = marks(study)
    told = run(study)
    assert told.stages == ["training"]
    assert told.told == told.amounts
    assert marks(study) == before


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"surface": {"nx": 6, "ny": 4}}, ["surface", "surface"]),
        pytest.param({"surface": {"nx": 5, "ny": 4, "margin": 0.3}}, ["surface", "surface"], marks=pytest.mark.slow),
        pytest.param({"hessian": {"snapshots": 3, "top": 2}}, ["Hessian eigenvalues"], marks=pytest.mark.slow),
        pytest.param(
            {"strategies": TINY["strategies"][:2]},
            ON_A_PLANE * 2 + ["exploration", "comparison"],
            marks=pytest.mark.slow,
        ),
        pytest.param({"seeds": [0]}, [*ON_A_PLANE, "exploration", "comparison"], marks=pytest.mark.slow),
        ({"strategies": TINY["strategies"][1:] + TINY["strategies"][:1]}, ["exploration", "comparison"]),
    ],
    ids=["grid", "margin", "snapshots", "fewer strategies", "fewer seeds", "another baseline"],
)
def test_a_changed_setting_makes_again_what_depends_on_it(study, change, stages):
    runs = {p: m for p, m in marks(study).items() if p.name != "results.h5"}
    chosen = settings(**change)
    assert run(study, chosen).stages == ["training", *stages]
    assert runs.items() <= marks(study).items(), "no run was touched"
    assert run(study, chosen).stages == ["training"], "and now it is there"


@pytest.mark.slow
def test_results_after_a_detour_are_those_of_the_straight_way(study, finished):
    run(study, settings(surface={"nx": 7, "ny": 3}, strategies=TINY["strategies"][:2]))
    run(study)
    assert numbers(study) == numbers(finished[0])


def test_nothing_of_runs_that_are_left_out_stays_beside_the_new_results(study):
    run(study, settings(strategies=TINY["strategies"][:2]))
    left = archive.groups(study / "results.h5")
    of_runs = ("movement/", "displacements/", "walks/", "beside-walks/", "contrast/")
    for family in ("shadow/", "feet/", "exploration/", "training/", "comparison/", *of_runs):
        assert not [g for g in left if g.startswith(family) and "adatask" in g]
    plane = archive.load(study / "results.h5", "plane/principal").record
    assert archive.load(study / "results.h5", "surface/principal").record.plane == plane


def test_runs_of_other_settings_are_refused_rather_than_overwritten(study):
    before = marks(study)
    with pytest.raises(LandscapeError, match=r"averaged-0\.h5 holds a run with training .*choose another file"):
        run(study, settings(training={"steps": 12, "every": 4, "batch_size": 4}))
    assert marks(study) == before


@pytest.mark.slow
def test_redone_by_hand_the_results_are_the_same_bit_by_bit(study):
    by_hand = bench(study)
    by_hand.surface(settings().surface)
    by_hand.explore("averaged")
    by_hand.contrast(settings().explore)
    first = bench(study, RUNS[::2])
    first.surface(SurfaceSettings(**{**TINY["surface"], "label": "seed-0"}))
    first.eigenvalues(settings().hessian)
    mine, its = numbers(study, "again.h5"), numbers(study)
    assert set(its) - set(mine) == {"search/independent", "search/adatask"}
    assert all(mine[group] == its[group] for group in mine)


def test_what_is_known_is_returned_as_it_was_first_returned(study):
    work = bench(study, RUNS[::-1])
    first = work.explore("averaged")
    again = bench(study, RUNS[::-1]).explore("averaged")
    assert first == again
    assert [e.run.name for e in again[0]] == RUNS[::-1], "in the order of the runs"
    assert {c.baseline for c in again[1]} == {"averaged"}


def test_comparisons_with_another_baseline_replace_the_old_ones(study):
    bench(study).explore("averaged")
    bench(study).explore("adatask")
    _, found = bench(study).explore("adatask")
    assert {c.baseline for c in found} == {"adatask"}
    kept = [e.record for e in archive.load_all(study / "again.h5").values() if isinstance(e.record, Comparison)]
    assert {c.baseline for c in kept} == {"adatask"}
    assert {c.strategy for c in kept} == {"averaged", "independent"}


def test_a_surface_is_never_used_for_other_runs_nor_replaced_by_theirs(study):
    chosen = SurfaceSettings(nx=4, ny=3, label="mine", engine="problem")
    one = bench(study, RUNS[:2]).surface(chosen)
    told = Told()
    with pytest.raises(
        ArchiveError,
        match=r"again\.h5 holds plane/mine of averaged-0, averaged-1, and a result of independent-0, independent-1, "
        r"adatask-0 would take its place: .*--label",
    ):
        bench(study, RUNS[2:5], told=told).surface(chosen)
    assert told.stages == [], "before anything is measured"
    assert archive.load(study / "again.h5", "surface/mine").record == one
    other = bench(study, RUNS[2:5]).surface(chosen.model_copy(update={"label": "theirs"}))
    assert one.plane != other.plane
    assert archive.load(study / "again.h5", "surface/mine").record == one


def test_a_random_plane_needs_filters_and_says_so(study):
    with pytest.raises(LandscapeError, match=r"at least one tensor with two or more dimensions"):
        bench(study).surface(SurfaceSettings(plane="random"))  # theta of `quadratic` is a vector


class Stopping(Told):
    """Progress that is interrupted in a stage after so much of it."""

    def __init__(self, stage, after, error):
        super().__init__()
        self._stage, self._after, self._error = stage, after, error

    def tell(self, amount):
        super().tell(amount)
        if self.stages[-1] == self._stage and self.told[-1] >= self._after:
            raise self._error


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), pytest.param(RuntimeError("the device is gone"), marks=pytest.mark.slow)],
    ids=["Ctrl-C", "an error"],
)
def test_an_interrupted_surface_is_gone_on_with_and_comes_out_the_same(study, error):
    chosen = SurfaceSettings(nx=6, ny=5, engine="problem")
    whole = bench(study, results="whole.h5").surface(chosen)
    with pytest.raises(type(error)):
        bench(study, told=Stopping("surface", 12, error)).surface(chosen)
    half = archive.load(study / "again.h5", "surface/principal")
    assert half.record.done.sum() == 12
    assert not half.checks, "nothing is vouched for before it is whole"
    told = Told()
    assert bench(study, told=told).surface(chosen) == whole
    assert told.told[told.stages.index("surface")] == 30 - 12, "nothing is measured twice"
    assert archive.load(study / "again.h5", "surface/principal").checks[0].passed


def test_a_surface_is_saved_while_it_is_measured(study, monkeypatch):
    monkeypatch.setattr(desk, "SAVE_EVERY", -1.0)
    seen = []
    original = archive.save

    def save(path, entries, drop=()):
        seen.extend(int(e.record.done.sum()) for e in entries.values() if isinstance(e.record, Surface))
        original(path, entries, drop)

    monkeypatch.setattr(archive, "save", save)
    bench(study).surface(SurfaceSettings(nx=4, ny=3, engine="problem"))
    assert seen == [4, 8, 12, 12]


@pytest.mark.slow
def test_an_unfinished_run_is_finished_and_the_study_comes_out_the_same(study, finished):
    path = study / "runs" / "adatask-1.h5"
    path.unlink()
    (study / "results.h5").unlink()
    told = run(study)
    assert told.stages[0] == "search of learning rates"
    mine, its = numbers(study), numbers(finished[0])
    assert set(mine) == set(its)
    assert all(mine[group] == its[group] for group in mine)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": 5}, r"expected theta with .* but .*averaged-0\.h5 has"),
        ({"spread": 0.4}, r"averaged-0\.h5 was recorded with other evaluation data: expected the hash"),
    ],
    ids=["another model", "other data"],
)
def test_trajectories_of_something_else_are_refused(study, change, text):
    name = settings(problem_settings={**TINY["problem_settings"], **change}).named_problem
    with pytest.raises(LandscapeError, match=text):
        bench(study, name=name)


def test_runs_of_one_name_and_no_runs_are_refused(study):
    with pytest.raises(LandscapeError, match=r"two trajectories are called averaged-0: expected another label or seed"):
        bench(study, ["averaged-0", "averaged-0"])
    with pytest.raises(LandscapeError, match=r"at least one trajectory, got none"):
        bench(study, [])


def test_labels_with_slashes_and_spaces_make_flat_groups(study):
    odd = []
    for number, trajectory in enumerate(opened(study, RUNS[:3])):
        who = replace(trajectory.provenance, label=f"a/../b c{number}\n")
        odd.append(replace(trajectory, provenance=who))
    work = Workbench(settings().named_problem, odd, study / "odd.h5", Told())
    work.surface(SurfaceSettings(nx=3, ny=3))
    work.explore(odd[0].provenance.label)
    found = archive.load_all(study / "odd.h5")
    group = next(group for group in found if group.startswith("exploration/a_.._b_c0_-0-"))
    assert found[group].record.run.label == "a/../b c0\n"
    assert all(group.count("/") <= 3 for group in found)


def test_the_hash_of_a_trajectory_follows_its_numbers(study):
    one, other = opened(study, ["averaged-0", "averaged-1"])
    assert trajectory_hash(one) == trajectory_hash(opened(study, ["averaged-0"])[0])
    assert trajectory_hash(one) != trajectory_hash(other)
    assert trajectory_hash(one) != trajectory_hash(replace(one, steps=one.steps + 1))


def test_a_search_keeps_every_rate_and_takes_the_least_loss(finished):
    folder, _ = finished
    for label in ("independent", "adatask"):
        found = archive.load(folder / "results.h5", f"search/{label}").record
        np.testing.assert_array_equal(found.rates, [0.01, 0.05])
        assert found.chosen == found.rates[np.argmin(found.losses)]
        number = [s.title for s in settings().strategies].index(label)
        again = [jobs.search_rate(settings(), number, rate, lambda _: None) for rate in found.rates]
        np.testing.assert_array_equal(found.losses, again)
        assert opened(folder, [f"{label}-0"])[0].provenance.rate == found.chosen


def test_a_strategy_that_diverges_at_every_rate_is_an_error(tmp_path):
    chosen = settings(
        strategies=["averaged"], training={"optimiser": "SGD", "steps": 5}, search={"rates": [1e8, 1e9], "steps": 60}
    )
    with pytest.raises(LandscapeError, match=r"averaged diverged at every learning rate: .*give smaller ones"):
        run(tmp_path, chosen)


def test_a_problem_without_shared_parameters_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    problem = jobs.problem_of(settings().named_problem)
    slots = tuple(replace(slot, owner="task1") for slot in problem.layout.slots)
    monkeypatch.setattr(problem, "layout", replace(problem.layout, slots=slots))
    with pytest.raises(LandscapeError, match=r"the problem has no shared parameters"):
        Study(settings(), tmp_path / "new", Told())
    assert not (tmp_path / "new").exists()


def test_a_budget_that_is_too_small_is_refused_before_anything_is_trained(tmp_path):
    chosen = settings(surface={"nx": 13, "ny": 13, "adaptive": 0.05})
    with pytest.raises(LandscapeError, match="allows 33 evaluations: expected 108 or more"):
        Study(chosen, tmp_path / "new", Told())
    assert not (tmp_path / "new").exists()


def test_eigenvalues_at_named_steps_replace_those_at_others(study):
    work = bench(study, RUNS[:1])
    (spread,) = work.eigenvalues(HessianSettings(snapshots=2, top=1))
    (named,) = work.eigenvalues(HessianSettings(at=[4, 8], top=1))
    assert (spread.steps.tolist(), named.steps.tolist()) == ([0, 9], [4, 8])
    assert isinstance(archive.load(study / "again.h5", "eigenvalues/averaged-0").record, EigenvalueHistory)
    assert bench(study, RUNS[:1]).eigenvalues(HessianSettings(at=[4, 8], top=1)) == [named]


def test_explorations_in_the_file_are_those_returned(study):
    explored, compared = bench(study).explore("averaged")
    kept = [e.record for e in archive.load_all(study / "again.h5").values()]
    assert sorted(e.run.name for e in kept if isinstance(e, Exploration)) == sorted(e.run.name for e in explored)
    assert sum(isinstance(e, Comparison) for e in kept) == len(compared) == 2 * 3 * 5


SEARCHED = ("search/independent", "search/adatask")


@pytest.mark.parametrize("done", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interrupted_search_tries_only_what_is_missing_and_ends_the_same(tmp_path, monkeypatch, done):
    whole = Study(settings(), tmp_path / "whole", Told())
    chosen = whole.rates()
    told = Stopping("search of learning rates", 3 * (done + 1), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Study(settings(), tmp_path / "half", told).rates()  # interrupted in the job after those that are done
    half = {g: e.record for g, e in archive.load_all(tmp_path / "half" / "results.h5").items()}
    tried = [flag for group in SEARCHED if group in half for flag in half[group].done]
    assert sum(tried) == done
    for record in half.values():
        assert np.isnan(record.losses[~record.done]).all()
        assert np.isfinite(record.losses[record.done]).all()
        assert np.isnan(record.chosen) == (not record.done.all())
    again = Study(settings(), tmp_path / "half", Told())
    assert again.left().rates == (0, max(2 - done, 0), min(4 - done, 2))
    jobs_done = []
    original = jobs.search_rate
    monkeypatch.setattr(jobs, "search_rate", lambda *given: jobs_done.append(given) or original(*given))
    assert again.rates() == chosen
    assert len(jobs_done) == 4 - done
    assert Study(settings(), tmp_path / "half", Told()).rates() == chosen
    assert len(jobs_done) == 4 - done, "and now all is known"
    for group in SEARCHED:
        mine, its = (archive.load(tmp_path / name / "results.h5", group).record for name in ("half", "whole"))
        assert mine == its


def test_a_search_in_which_everything_diverged_is_not_made_again(tmp_path):
    chosen = settings(
        strategies=["averaged"], training={"optimiser": "SGD", "steps": 5}, search={"rates": [1e8, 1e9], "steps": 60}
    )
    for stages in (["search of learning rates"], []):
        told = Told()
        with pytest.raises(LandscapeError, match=r"^averaged diverged at every learning rate: expected one of \[1000"):
            Study(chosen, tmp_path, told).rates()
        assert told.stages == stages
    record = archive.load(tmp_path / "results.h5", "search/averaged").record
    assert record.done.all()
    assert np.isinf(record.losses).all()
    assert np.isnan(record.chosen)


def left(folder, **changes):
    return Study(settings(**changes), folder, Told()).left()


def test_what_is_left_of_a_study_is_all_of_it_at_first_and_nothing_in_the_end(finished, tmp_path):
    assert left(tmp_path / "new") == estimates.everything(settings())
    assert not (tmp_path / "new").exists()
    assert left(finished[0]) == estimates.Left((0, 0, 0), ((0, 0),) * 3, 0, 0, 0)


def test_what_is_left_follows_what_is_there(study):
    points = 5 * 4
    assert left(study, surface={"nx": 6, "ny": 4}).points == 2 * 6 * 4
    assert left(study, hessian={"snapshots": 3, "top": 2}).spectra == 3
    other = left(study, problem_settings=TINY["problem_settings"], search={"rates": [0.01, 0.05, 0.1], "steps": 3})
    assert other.rates == (0, 3, 3)
    (study / "runs" / "adatask-1.h5").unlink()
    found = left(study)
    assert found.steps == ((0, 0), (0, 0), (0, 9))
    assert (found.points, found.feet, found.spectra) == (points, 6, 0), "the first seed's plane and eigenvalues stay"
    (study / "runs" / "adatask-0.h5").unlink()
    found = left(study)
    assert found.steps == ((0, 0), (0, 0), (9, 9))
    assert (found.points, found.feet, found.spectra) == (2 * points, 6 + 3, 1)
    (study / "results.h5").unlink()
    found = left(study)
    assert (found.rates, found.spectra) == ((0, 2, 2), 3)


def test_points_that_an_interrupted_surface_has_are_not_left(study):
    with pytest.raises(KeyboardInterrupt):
        Study(settings(surface={"nx": 7, "ny": 6}), study, Stopping("surface", 1, KeyboardInterrupt())).run()
    done = int(archive.load(study / "results.h5", "surface/principal").record.done.sum())
    assert done > 0
    found = left(study, surface={"nx": 7, "ny": 6})
    assert (found.points, found.feet) == (2 * 7 * 6 - done, 0)


@pytest.mark.slow
def test_two_workers_make_the_same_bytes_as_one(finished, tmp_path):
    run(tmp_path / "two", workers=2)
    mine, its = numbers(tmp_path / "two"), numbers(finished[0])
    assert set(mine) == set(its)
    assert all(mine[group] == its[group] for group in mine)
    for a, b in zip(opened(tmp_path / "two"), opened(finished[0]), strict=True):
        assert a.theta[:].tobytes() == b.theta[:].tobytes()
        assert a.history.losses.tobytes() == b.history.losses.tobytes()
