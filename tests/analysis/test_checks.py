"""Every check passes on right numbers and fails when they are spoiled."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis import checks, directions, planes, surfaces
from analysis.engines import Bfloat16, Compiled, Sequential, Together
from analysis.points import Conditions
from analysis.subspaces import Place
from analysis.surfaces import Grid
from landscape import problems, training
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Independent
from tests.analysis import cases
from tests.analysis.synthetic import plane_of, write_run
from tests.analysis.test_surfaces import plane_for


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    problem = problems.load("digits", {"norm": "batch", "width": 2, "features": 4, "train": 64, "evaluation": 30})
    strategy = Independent(Optimiser("Adam", lr=0.01))
    plan = training.Plan(6, 16, Every(2))
    folder = tmp_path_factory.mktemp("checks")
    runs = [training.record(problem, strategy, plan, folder / f"{seed}.h5", seed) for seed in (0, 1)]
    plane = planes.principal(runs)
    grid = Grid.around([planes.shadow(run, plane) for run in runs], 5, 4)
    return problem, runs, surfaces.measure(problem, plane, grid)


def test_recorded_losses_agree_and_a_changed_one_does_not(trained):
    problem, runs, _ = trained
    assert checks.recorded_losses(problem, runs).passed
    for factor in (1 + 1e-4, np.nan, np.inf):
        losses = runs[1].losses.copy()
        losses[-1, 2] *= factor
        assert not checks.recorded_losses(problem, [runs[0], replace(runs[1], losses=losses)]).passed


def test_recorded_losses_need_the_runs_own_statistics(trained):
    problem, runs, _ = trained
    assert not checks.recorded_losses(problem, [replace(runs[0], buffers=runs[1].buffers)]).passed


def test_a_surface_agrees_with_a_plain_loop_and_a_spoiled_one_does_not(trained):
    problem, _, surface = trained
    assert checks.plain_loop(problem, surface).passed
    points = surface.loss.shape[1] * surface.loss.shape[2]
    spoiled = {
        "tasks changed round": surface.loss[::-1],
        "x turned round": surface.loss[:, :, ::-1],
        "y turned round": surface.loss[:, ::-1],
        "axes swapped": surface.loss.transpose(0, 2, 1).reshape(surface.loss.shape),
        "a mean of batch means": surface.loss * (1 + 1e-4),
        "not measured": np.full_like(surface.loss, np.nan),
    }
    for how, loss in spoiled.items():
        assert not checks.plain_loop(problem, replace(surface, loss=loss)).passed, how
    assert checks.plain_loop(problem, surface, points=points).passed
    other = replace(surface.plane, basis=surface.plane.basis[::-1])
    assert not checks.plain_loop(problem, replace(surface, plane=other)).passed
    other = replace(surface.plane, buffers=surface.plane.buffers + 0.1)
    assert not checks.plain_loop(problem, replace(surface, plane=other)).passed


def test_a_line_agrees_with_a_plain_loop_and_a_spoiled_one_does_not(trained):
    problem, runs, _ = trained
    line = directions.between(Place(runs[0]), Place(runs[1]))
    profile = surfaces.profile(problem, line, [-0.3, 0.0, 0.4, 1.0])
    assert checks.plain_loop(problem, profile, points=4).passed
    assert checks.recomposed_average(problem, profile).passed
    for loss in (profile.loss[:, ::-1], profile.loss[::-1], profile.loss * (1 + 1e-4)):
        assert not checks.plain_loop(problem, replace(profile, loss=loss), points=4).passed
    assert not checks.recomposed_average(problem, replace(profile, loss=profile.loss * (1 + 1e-4))).passed


def test_the_least_loss_is_among_the_points_that_are_looked_at(trained):
    problem, _, surface = trained
    least = np.unravel_index(surface.loss.mean(0).argmin(), surface.done.shape)
    loss = surface.loss.copy()
    loss[(1, *least)] *= 1.001
    for seed in range(4):
        check = checks.plain_loop(problem, replace(surface, loss=loss), points=1, seed=seed)
        assert check.value == pytest.approx(1e-3, rel=1e-2)  # the roundings of float32 are 1e-7
        assert not check.passed


def test_losses_that_are_not_finite_alike_are_no_difference(trained):
    problem, _, surface = trained
    first, *others = problem.tasks
    broken = copy.copy(problem)
    broken.tasks = (replace(first, loss=lambda p, y: first.loss(p, y) * torch.nan), *others)
    loss = surface.loss.copy()
    loss[0] = np.nan
    assert checks.plain_loop(broken, replace(surface, loss=loss)).passed
    assert checks.plain_loop(broken, surface).value == np.inf


@pytest.mark.parametrize("outer", [Bfloat16, pytest.param(Compiled, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_the_error_of_an_engines_arithmetic_is_that_on_the_surface_itself(outer):
    problem = cases.make("plain", torch.float32)
    plane, grid = plane_for(problem), Grid(5, 4, 0.7)
    plain, found = (
        surfaces.measure(problem, plane, grid, Conditions(engine)) for engine in (Sequential(8), outer(Sequential(8)))
    )
    expected = np.abs(found.loss / plain.loss - 1).max()
    check = checks.plain_loop(problem, found)
    assert check.name == "surface at 20 points, against a module with these weights in a plain loop", "all of them"
    assert check.value == pytest.approx(expected, abs=1e-6)  # roundings of float32
    assert check.passed
    assert checks.recomposed_average(problem, found).passed
    if outer is Bfloat16:
        assert 2**-12 < check.value < 2**-3  # weights are off by up to 2^-9, and there are four layers
        assert check.limit == 0.25
        assert not checks.plain_loop(problem, replace(found, loss=found.loss * 1.3)).passed
    else:
        assert check.value < 1e-5
        assert not checks.plain_loop(problem, replace(found, loss=found.loss * (1 + 2e-4))).passed


@pytest.mark.parametrize(("engine", "most"), [(Sequential(7), 7), (Sequential(30), 12), (Together(2, 3), 3)], ids=repr)
def test_no_more_examples_at_once_than_the_engine_takes_or_the_problem(monkeypatch, engine, most):
    problem = cases.make("plain", examples=40)
    problem.micro_batch = 12
    surface = surfaces.measure(problem, plane_for(problem), Grid(3, 3, 0.5), Conditions(engine))
    seen = []

    def watch(problem, module, batch, run=checks._set_and_run):
        seen.append(len(batch))
        return run(problem, module, batch)

    monkeypatch.setattr(checks, "_set_and_run", watch)
    assert checks.plain_loop(problem, surface).passed
    assert max(seen) == most
    assert sum(seen) == 3 * len(problem.evaluation)


class Alone(torch.nn.Linear):
    """One task, whose prediction is the output itself."""


def test_the_plain_loop_takes_outputs_by_name_in_order_and_alone():
    data = torch.utils.data.TensorDataset(torch.randn(6, 3), torch.randn(6, 2))
    alone = problems.quadratic.Problem(Alone(3, 2), [problems.quadratic.Task("only", cases.squared_error)], data, data)
    for problem in (
        alone,
        cases.make("plain"),
        problems.load("quadratic", {"tasks": 2, "size": 3}),
        problems.load("toy"),
    ):
        theta, buffers = problem.initial(0)
        basis = np.random.default_rng(0).standard_normal((2, theta.numel()))
        plane = replace(
            plane_of(basis), origin=theta.double().numpy(), buffers=buffers.numpy(), layout=problem.layout.hash
        )
        surface = surfaces.measure(problem, plane, Grid(3, 4, 0.3))
        assert checks.plain_loop(problem, surface).passed
        assert not checks.plain_loop(problem, replace(surface, loss=surface.loss + 0.01)).passed


def test_points_and_shadows_agree_and_a_gram_matrix_of_another_basis_does_not():
    plane = plane_of(np.random.default_rng(1).standard_normal((2, 30)))
    assert checks.point_and_shadow(plane).passed
    for gram in (np.eye(2), plane.gram[::-1, ::-1], np.diag(np.diag(plane.gram)), plane.gram * (1 + 1e-6)):
        assert not checks.point_and_shadow(replace(plane, gram=gram)).passed


def test_runs_of_one_seed_start_at_the_same_bytes(tmp_path):
    theta = np.random.default_rng(2).standard_normal((3, 6))
    one = write_run(tmp_path / "one.h5", theta)
    same = write_run(tmp_path / "same.h5", theta + np.arange(3)[:, None], label="other")
    elsewhere = write_run(tmp_path / "elsewhere.h5", theta + 1e-9, label="other")
    another_seed = write_run(tmp_path / "seed.h5", theta + 1.0, seed=1)
    assert checks.same_start([one, same, another_seed]).passed
    assert not checks.same_start([one, elsewhere]).passed
    assert not checks.same_start([elsewhere, one]).passed


def test_paths_are_no_shorter_than_they_can_be(tmp_path):
    theta = np.zeros((3, 4))
    theta[1], theta[2] = 1.0, 2.0  # net 4 in two steps

    def run(name, steps, updates):
        return write_run(tmp_path / name, theta, paths=([0, 2, steps], [0, 2, updates]))

    assert checks.path_bounds([run("line.h5", 4.0, 4.0)]).passed
    assert checks.path_bounds([run("detour.h5", 5.0, 7.0)]).passed
    assert not checks.path_bounds([run("short.h5", 3.99, 7.0)]).passed
    assert not checks.path_bounds([run("coarser.h5", 5.0, 4.9)]).passed
    assert checks.path_bounds([run("again.h5", 4.0, 4.0)]).value == 0.0


def test_a_run_that_did_not_move_has_a_path_of_zero(tmp_path):
    still = write_run(tmp_path / "still.h5", np.ones((3, 4)))
    assert checks.path_bounds([still]).passed
    moved_on_paper = write_run(tmp_path / "paper.h5", np.ones((3, 4)), paths=([0, 1, 2], [0, 0, 0]))
    assert not checks.path_bounds([moved_on_paper]).passed


def test_a_path_that_is_not_a_number_does_not_pass(tmp_path):
    run = write_run(tmp_path / "nan.h5", np.arange(12.0).reshape(3, 4), paths=([0, 1, np.nan], [0, 1, np.nan]))
    assert not checks.path_bounds([run]).passed


def test_infinite_losses_agree_only_with_infinite_losses():
    a = np.array([1.0, np.inf, np.nan])
    assert checks._apart(a, a) == 0.0
    assert checks._apart(a, np.array([1.0, 2.0, np.nan])) == np.inf
    assert checks._apart(np.array([1.0, np.inf, np.nan]), np.array([1.0, np.nan, np.nan])) == np.inf
    assert checks._apart(np.array([np.inf]), np.array([-np.inf])) == np.inf
    assert checks._apart(np.array([1.0 + 1e-6]), np.array([1.0])) == pytest.approx(1e-6, rel=1e-9)
