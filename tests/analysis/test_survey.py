"""A survey of a plane or a line: what it leaves in the file, what it does not do again, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis import archive, estimates, planes, recipes, survey
from analysis.desk import Desk
from analysis.results import (
    ConflictMap,
    Faithfulness,
    Feet,
    Interpolation,
    Plane,
    PlaneStability,
    Profile,
    Surface,
    SurfaceEnsemble,
    SurfaceShape,
)
from analysis.settings import ProblemName, SurfaceSettings
from landscape import problems, store, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged, Independent
from tests.analysis.synthetic import EverySecond, Told, with_another_loss

SMALL = {"width": 4, "features": 12, "norm": "batch", "train": 64, "evaluation": 32}
DIGITS = ProblemName(name="digits", settings=SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two strategies from one start, on small digits with batch norm."""
    folder = tmp_path_factory.mktemp("runs")
    problem = problems.load("digits", SMALL)
    plan = training.Plan(6, 16, Every(2))
    for strategy in (Averaged(Optimiser("Adam", lr=0.01)), Independent(Optimiser("Adam", lr=0.01))):
        training.record(problem, strategy, plan, folder / f"{strategy.label}-0.h5")
    return [store.open(folder / f"{name}-0.h5") for name in ("averaged", "independent")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Engines that were timed are kept for the machine: not for the user's, in a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def desk(runs, tmp_path):
    return Desk(DIGITS, runs, tmp_path / "results.h5", Told())


def settings(**changes):
    return SurfaceSettings(**{"nx": 4, "ny": 3, "engine": "sequential:16", **changes})


def test_a_principal_survey_leaves_every_answer_beside_the_surface(desk, runs):
    surface = survey.survey(desk, settings(conflict=True))
    found = archive.load_all(desk.results.path)
    kinds = {group: type(entry.record) for group, entry in found.items()}
    assert kinds["surface/principal"] is Surface
    assert kinds["shape/principal"] is SurfaceShape
    assert kinds["faithfulness/principal"] is Faithfulness
    assert kinds["stability/principal"] is PlaneStability
    assert kinds["conflict/principal"] is ConflictMap
    assert {g for g, kind in kinds.items() if kind is Feet} == {
        "feet/principal/averaged-0",
        "feet/principal/independent-0",
    }
    assert found["surface/principal"].record == surface
    checks = [check for entry in found.values() for check in entry.checks]
    assert len(checks) >= 3
    assert all(check.passed for check in checks), [c for c in checks if not c.passed]
    assert found["conflict/principal"].record.x.tolist() == surface.x.tolist()
    np.testing.assert_allclose(found["conflict/principal"].record.loss, surface.loss, rtol=1e-5)  # float32
    assert surface.engine == "Sequential(micro_batch=16)"


def test_what_is_known_is_not_done_again_and_what_changed_is(desk):
    survey.survey(desk, settings(conflict=True))
    first = list(desk.progress.stages)
    again = survey.survey(desk, settings(conflict=True))
    assert desk.progress.stages == first
    survey.survey(desk, settings(nx=5))
    assert desk.progress.stages == [*first, "surface"]
    other = archive.load(desk.results.path, "surface/principal").record
    assert len(other.x) == 5 != len(again.x)


def test_progress_adds_up_and_the_plan_is_said_before(desk):
    survey.survey(desk, settings())
    amounts = dict(zip(desk.progress.stages, zip(desk.progress.amounts, desk.progress.told, strict=True), strict=True))
    assert all(amount == told for amount, told in amounts.values()), amounts
    assert amounts["surface"][0] == 12
    said, trust = desk.progress.said
    assert "of the runs' variance (the best plane of random walks: " in trust
    assert said.startswith("12 points, about ")
    assert "MiB beyond model and data, by Sequential(micro_batch=16)" in said


def test_training_data_and_other_statistics_stand_beside_the_first_surface(desk):
    words = settings(data=["evaluation", "training"], batch_norm=["frozen", "reestimated"], examples=48)
    first = survey.survey(desk, words)
    there = {
        group: entry.record
        for group, entry in archive.load_all(desk.results.path).items()
        if group.startswith("surface/")
    }
    assert set(there) == {
        "surface/principal",
        "surface/principal-training",
        "surface/principal-reestimated",
        "surface/principal-training-reestimated",
    }
    assert there["surface/principal"] == first
    assert (first.split, first.batch_norm) == ("evaluation", "frozen")
    other = there["surface/principal-training-reestimated"]
    assert (other.split, other.examples) == ("training", 48)
    assert other.batch_norm.startswith("estimated again")
    assert len({record.loss.tobytes() for record in there.values()}) == 4


@pytest.mark.parametrize(
    ("words", "group"),
    [
        ({}, "surface/principal"),
        ({"plane": "line"}, "profile/line"),
        ({"nx": 15, "ny": 15, "adaptive": 0.05, "budget": 0.6}, "interpolation/principal"),
    ],
    ids=["surface", "line", "adaptive"],
)
def test_what_is_measured_is_held_to_a_plain_loop_and_an_engines_error_is_said(desk, words, group):
    survey.survey(desk, settings(**words))
    exact = archive.load(desk.results.path, group)
    assert [check.limit for check in exact.checks] == [1e-5, 1e-5]
    assert all(check.passed for check in exact.checks)
    assert not [text for text in desk.progress.said if "losses are off" in text]

    survey.survey(desk, settings(**words, bfloat16=True))
    rounded = archive.load(desk.results.path, group)
    error = rounded.checks[0]
    assert error.name.startswith(f"{group}: ")
    assert 1e-4 < error.value <= error.limit == 0.25
    assert (
        f"{group}: losses are off by up to {100 * error.value:.2g} % at points looked at (rounding of bfloat16"
        in " ".join(desk.progress.said)
    )


def test_a_plane_of_other_settings_takes_everything_of_the_old_one_with_it(desk):
    survey.survey(desk, settings(data=["evaluation", "training"], conflict=True, label="mine"))
    survey.survey(desk, settings(plane="random", reach=0.5, label="mine"))
    there = archive.groups(desk.results.path)
    assert "surface/mine" in there
    assert "shadow/mine/averaged-0" in there
    assert not {"surface/mine-training", "conflict/mine", "stability/mine"} & set(there)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({"plane": "through"}, marks=pytest.mark.slow),
        {"plane": "through", "through": ["averaged-0@first", "averaged-0@4", "independent-0@last"]},
        {"plane": "eigenvectors", "tasks": ["first", "picture"]},
        {"plane": "gradients", "subset": "trunk.*", "tasks": ["first", "picture"]},
        pytest.param(
            {"plane": "eigenvectors", "subset": "shared", "heads": "refitted", "examples": 32}, marks=pytest.mark.slow
        ),
        {"plane": "local", "centre": "independent-0@4"},
        pytest.param({"plane": "local", "subset": "trunk.*"}, marks=pytest.mark.slow),
        {"plane": "random", "centre": "averaged-0@first", "seed": 3},
        pytest.param(
            {"plane": "principal", "subset": "shared", "heads": "interpolated", "centre": "averaged-0@first"},
            marks=pytest.mark.slow,
        ),
        {"plane": "principal", "subset": "shared", "heads": "refitted", "examples": 32},
    ],
    ids=lambda words: " ".join(map(str, words.values())),
)
def test_every_kind_of_plane_is_measured_over_its_origin(desk, words):
    surface = survey.survey(desk, settings(**words, rise=2.0))
    assert isinstance(surface, Surface)
    assert surface.done.all()
    j, i = list(surface.y).index(0.0), list(surface.x).index(0.0)
    problem = desk.problem
    if surface.heads == "as the plane's":
        expected = problem.evaluate(*tensors(surface.plane, problem)).losses
        np.testing.assert_allclose(surface.loss[:, j, i], expected, rtol=1e-5)
    assert surface.plane.subset == words.get("subset", "all")


def tensors(plane, problem):
    import torch

    return torch.tensor(plane.origin, dtype=problem.dtype), torch.tensor(plane.buffers)


def test_given_vectors_are_read_as_numbers_and_never_unpickled(desk, tmp_path, runs):
    size = runs[0].layout.size
    vectors = np.random.default_rng(0).standard_normal((2, size))
    np.save(tmp_path / "v.npy", vectors)
    surface = survey.survey(desk, settings(plane="given", vectors=str(tmp_path / "v.npy"), reach=0.1))
    np.testing.assert_array_equal(surface.plane.basis, vectors)
    np.save(tmp_path / "v.npy", vectors[::-1])
    turned = survey.survey(desk, settings(plane="given", vectors=str(tmp_path / "v.npy"), reach=0.1))
    np.testing.assert_array_equal(turned.plane.basis, vectors[::-1])  # known by its numbers, not by its name
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, message in (
        ("pickled.npy", "cannot read .*pickled.npy: expected an array of numbers"),
        ("text.npy", "cannot read .*text.npy: expected an array of numbers"),
        ("none.npy", "there is no file .*none.npy: expected directions"),
    ):
        with pytest.raises(LandscapeError, match=message):
            survey.survey(desk, settings(plane="given", vectors=str(tmp_path / name)))


def test_a_line_between_two_ends_has_both_on_it(desk, runs):
    profile = survey.survey(desk, settings(plane="line", nx=7))
    assert isinstance(profile, Profile)
    for at, run in zip((0.0, 1.0), runs, strict=True):
        k = list(profile.x).index(at)
        if at == 0.0:  # at the other end the statistics are still those of the first
            np.testing.assert_allclose(profile.loss[:, k], run.losses[-1], rtol=1e-5)
    assert archive.load(desk.results.path, "profile/line").record == profile


def test_draws_make_an_ensemble_and_keep_every_member(desk):
    survey.survey(desk, settings(plane="random", draws=3, seed=5, reach=0.5))
    found = archive.load_all(desk.results.path)
    ensemble = found["ensemble/random"].record
    assert isinstance(ensemble, SurfaceEnsemble)
    assert ensemble.seeds.tolist() == [5, 6, 7]
    members = np.stack([found[f"surface/random-{seed}"].record.loss for seed in (5, 6, 7)])
    np.testing.assert_array_equal(ensemble.median[:3], np.median(members, 0))


def test_an_adaptive_survey_keeps_measured_and_interpolated_points_apart(desk):
    survey.survey(desk, settings(nx=13, ny=11, adaptive=0.05, budget=0.8))
    found = archive.load(desk.results.path, "interpolation/principal").record
    assert isinstance(found, Interpolation)
    assert np.isnan(found.surface.loss[:, ~found.surface.done]).all()
    assert np.isfinite(found.loss).all()
    assert "surface/principal" not in archive.groups(desk.results.path)
    assert archive.load(desk.results.path, "shape/principal").record.minima.size == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"centre": "avreaged-0@last"}, r"unknown run 'avreaged-0': .*did you mean 'averaged-0'"),
        ({"centre": "averaged-0@3"}, r"has no snapshot at step 3; the nearest is at step (2|4)"),
        ({"centre": "averaged-0@end"}, r"expected a snapshot as RUN@STEP, RUN@first or RUN@last, got 'averaged-0@end'"),
        ({"plane": "through", "through": ["averaged-0@last"]}, r"expected 3 places for the plane 'through', got 1"),
        ({"plane": "gradients", "tasks": ["first"]}, r"expected two tasks for a plane of gradients, got 1 \(first\)"),
        ({"plane": "given"}, r"expected a file of two directions for the plane 'given'"),
        ({"subset": "trunck.*"}, r"no parameter matches 'trunck\.\*'.*the nearest is 'trunk"),
        (
            {"plane": "random", "subset": "shared", "heads": "interpolated"},
            r"expected interpolated heads with a plane that mixes snapshots",
        ),
        ({"engine": "sequentail:16"}, r"unknown engine|expected .*sequential"),
        ({"max_memory": "many"}, r"expected an amount of memory above zero, such as 2GiB or 500MiB, got 'many'"),
        (
            {"nx": 13, "ny": 13, "adaptive": 0.05},
            r"a budget of 20% of 13 by 13 points allows 33 evaluations: expected 108 or more, 90 held out and 18 for",
        ),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_written_also_by_the_plan(desk, words, message):
    for make in (survey.plan, survey.survey):
        with pytest.raises(LandscapeError, match=message):
            make(desk, settings(**words))
    assert not desk.results.path.exists()


def test_gradients_of_no_shared_parameters_are_refused_before_anything_is_written(desk, monkeypatch):
    slots = tuple(replace(slot, owner=desk.problem.names[0]) for slot in desk.problem.layout.slots)
    monkeypatch.setattr(desk.problem, "layout", replace(desk.problem.layout, slots=slots))
    for make in (survey.plan, survey.survey):
        with pytest.raises(LandscapeError, match="the problem has no shared parameters: expected some that several"):
            make(desk, settings(plane="random", conflict=True))
    assert not desk.results.path.exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("2GiB", 2 << 30), ("500MiB", 500 << 20), ("1.5g", 3 << 29), ("3M", 3 << 20), ("1KiB", 1 << 10)),
        *(("2GB", 2 * 10**9), ("500MB", 500 * 10**6), ("64 kB", 64_000), ("1tb", 10**12), ("1TiB", 1 << 40)),
        *(("1e9", 10**9), ("100 B", 100), ("100", 100)),
    ],
)
def test_amounts_of_memory_are_read(text, size):
    assert recipes.memory(text) == size


MANY = SurfaceSettings(nx=21, ny=20, engine="auto")
"""More points than any engine takes together, whichever the timing prefers."""


def test_an_interrupted_survey_goes_on_with_the_same_engine_and_ends_with_the_same_numbers(runs, tmp_path, monkeypatch):
    whole = survey.survey(Desk(DIGITS, runs, tmp_path / "whole.h5", Told()), MANY)

    class Stop(Told):
        def tell(self, amount):
            super().tell(amount)
            if self.stages[-1] == "surface" and self.told[-1] >= 15:
                raise KeyboardInterrupt

    results = tmp_path / "results.h5"
    with pytest.raises(KeyboardInterrupt):
        survey.survey(Desk(DIGITS, runs, results, Stop()), MANY)
    half = archive.load(results, "surface/principal").record
    assert 0 < half.done.sum() < half.done.size
    desk = Desk(DIGITS, runs, results, Told())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    found = survey.survey(desk, MANY)
    assert found == whole
    assert desk.progress.told[desk.progress.stages.index("surface")] == half.done.size - half.done.sum()


def test_the_plane_of_a_survey_is_the_one_of_the_functions(desk, runs):
    surface = survey.survey(desk, settings())
    assert surface.plane == planes.principal(runs)
    assert archive.load(desk.results.path, "plane/principal").record == surface.plane
    assert isinstance(surface.plane, Plane)


@pytest.mark.slow
def test_other_training_examples_are_measured_anew(desk, runs, tmp_path, monkeypatch):
    both = settings(data=["training"], batch_norm=["reestimated"], subset="shared", heads="refitted", examples=32)
    first = survey.survey(desk, both)
    monkeypatch.setattr(desk.problem, "train", EverySecond(desk.problem.train))
    moved = survey.survey(desk, both)
    assert moved != first
    assert moved == survey.survey(Desk(DIGITS, runs, tmp_path / "fresh.h5", Told()), both)
    known = list(desk.progress.stages)
    assert survey.survey(desk, both) == moved
    assert desk.progress.stages == known


def test_the_order_of_runs_decides_where_planes_and_lines_begin(desk, runs):
    turned = Desk(DIGITS, runs[::-1], desk.results.path, Told())
    for words, start in (({"plane": "random", "reach": 0.5}, "origin"), ({"plane": "line"}, "origin")):
        for which, first in ((desk, runs[0]), (turned, runs[1])):
            found = survey.survey(which, settings(**words))
            space = found.plane if isinstance(found, Surface) else found.line
            np.testing.assert_array_equal(getattr(space, start), first.theta[-1])


def test_a_run_of_another_loss_is_refused(desk, monkeypatch):
    monkeypatch.setattr(desk.problem, "tasks", with_another_loss(desk.problem))
    with pytest.raises(LandscapeError, match=r"averaged-0\.h5 was recorded with other losses .*\(first .*--set"):
        survey.survey(desk, settings())
    assert not desk.results.path.exists()


@pytest.mark.parametrize("plane", ["principal", "line"])
def test_what_stood_beside_a_surface_of_other_settings_goes_with_it(desk, plane):
    kind = "profile" if plane == "line" else "surface"

    def beside():
        return {group for group in archive.groups(desk.results.path) if group.startswith(f"{kind}/")}

    survey.survey(desk, settings(plane=plane, data=["evaluation", "training"]))
    survey.survey(desk, settings(plane=plane))
    assert beside() == {f"{kind}/{plane}", f"{kind}/{plane}-training"}, "the same grid: still right"
    survey.survey(desk, settings(plane=plane, nx=5))
    assert beside() == {f"{kind}/{plane}"}
    survey.survey(desk, settings(plane=plane, nx=5, data=["training", "evaluation"]))
    assert beside() == {f"{kind}/{plane}", f"{kind}/{plane}-training"}, "called by its conditions, in whatever order"


def test_the_range_of_a_rise_is_found_under_the_surfaces_own_conditions(desk):
    words = {"plane": "random", "rise": 3.0, "nx": 3, "ny": 3, "batch_norm": ["reestimated"], "data": ["training"]}
    surface = survey.survey(desk, settings(**words))
    loss = surface.loss.mean(0)
    j, i = list(surface.y).index(0.0), list(surface.x).index(0.0)
    ends = np.array([loss[j, 0], loss[j, -1], loss[0, i], loss[-1, i]])
    assert (ends >= 4 * loss[j, i] * (1 - 1e-4)).all(), "each end has risen by three times the centre's loss"


def test_feet_are_measured_as_the_surface_is(desk):
    words = {"data": ["training"], "batch_norm": ["reestimated"], "subset": "shared", "heads": "refitted"}
    surface = survey.survey(desk, settings(**words, examples=32))
    feet = archive.load(desk.results.path, "feet/principal-training-reestimated/averaged-0").record
    for name in ("split", "examples", "batch_norm", "heads"):
        assert getattr(feet, name) == getattr(surface, name)
    first, second = (
        archive.load(desk.results.path, f"{kind}/principal-training-reestimated{run}").provenance.inputs["training"]
        for kind, run in (("surface", ""), ("feet", "/averaged-0"))
    )
    assert first == second


def test_another_seed_draws_other_random_walks(desk):
    survey.survey(desk, settings())
    first = archive.load(desk.results.path, "faithfulness/principal").record
    survey.survey(desk, settings(seed=7))
    assert archive.load(desk.results.path, "faithfulness/principal").record.seed == 7
    assert archive.load(desk.results.path, "faithfulness/principal").record != first


def test_several_draws_have_a_median_under_every_condition(desk):
    survey.survey(desk, settings(plane="random", draws=2, reach=0.5, data=["evaluation", "training"]))
    there = archive.load_all(desk.results.path)
    for suffix in ("", "-training"):
        middle = there[f"ensemble/random{suffix}"].record
        members = [there[f"surface/random-{seed}{suffix}"].record for seed in (0, 1)]
        np.testing.assert_allclose(middle.median[:3], np.median([m.loss for m in members], axis=0), rtol=1e-12)
        assert middle.split == members[0].split
    survey.survey(desk, settings(plane="random", draws=2, reach=0.4))
    assert {g for g in archive.groups(desk.results.path) if g.startswith(("ensemble", "surface"))} == {
        *("ensemble/random", "surface/random-0", "surface/random-1"),
    }, "what was of another range is gone"


@pytest.mark.parametrize("nx", [5, 27, 53])
def test_a_line_has_every_point_once(desk, nx):
    profile = survey.survey(desk, settings(plane="line", nx=nx))
    assert np.diff(profile.x).min() > 1e-3
    assert {0.0, 1.0} <= set(profile.x)


def test_a_plan_counts_the_conflict_map_and_every_condition(desk):
    words = survey.plan(desk, settings(data=["evaluation", "training"], conflict=True))
    assert words.startswith("24 points, ")
    assert words.endswith("; and 12 points with 3 gradients each")
    assert "gradients" not in survey.plan(desk, settings())


def test_a_plan_of_an_adaptive_surface_counts_what_is_measured_and_the_whole_conflict_map(desk):
    chosen = settings(nx=10, ny=15, adaptive=0.5, budget=0.82, conflict=True)
    words = survey.plan(desk, chosen)
    assert words.startswith("123 points, "), "0.82 x 150 is 122.99999999999999 in floating point"
    assert words.endswith("; and 150 points with 3 gradients each")
    assert estimates.points_of(chosen) == 123
    survey.survey(desk, chosen)
    found = archive.load_all(desk.results.path)
    assert found["interpolation/principal"].record.surface.done.sum() <= 123
    assert found["conflict/principal"].record.done.sum() == 150


def test_vectors_of_anything_but_real_numbers_and_steps_of_other_digits_are_refused(desk, tmp_path):
    size = desk.problem.layout.size
    np.save(tmp_path / "complex.npy", np.ones((2, size)) * 1j)
    with pytest.raises(LandscapeError, match=r"cannot read .*complex\.npy: expected an array of numbers \[2, P\]"):
        survey.survey(desk, settings(plane="given", vectors=str(tmp_path / "complex.npy")))
    np.save(tmp_path / "huge.npy", np.full((2, size), 1e300))
    with pytest.raises(LandscapeError, match="has the length inf: expected directions with a finite length above zero"):
        survey.survey(desk, settings(plane="given", vectors=str(tmp_path / "huge.npy")))
    with pytest.raises(
        LandscapeError, match="expected a snapshot as RUN@STEP, RUN@first or RUN@last, got 'averaged-0@²'"
    ):
        survey.survey(desk, settings(plane="random", centre="averaged-0@²"))
