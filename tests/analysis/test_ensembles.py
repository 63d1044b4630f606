"""Ensembles of random planes and lines against quantiles taken by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import archive, ensembles, surfaces
from analysis.archive import Entry
from analysis.directions import random, random_line
from analysis.subsets import Shared
from analysis.subspaces import Place
from analysis.surfaces import Grid
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.synthetic import write_run

GRID = Grid(5, 4, 0.7)
X = (-1.0, 0.0, 0.5)
SEEDS = (3, 1, 4, 15, 9)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A problem of two tasks, and a random point of it."""
    problem = cases.make("plain")
    theta = np.random.default_rng(0).standard_normal((2, problem.layout.size))
    path = tmp_path_factory.mktemp("run") / "walk.h5"
    return problem, Place(write_run(path, theta, problem.layout, tasks=problem.names))


@pytest.fixture(scope="module")
def planes(place):
    return tuple(ensembles.surfaces_of(*place, SEEDS, GRID))


@pytest.fixture(scope="module")
def lines(place):
    return tuple(ensembles.profiles_of(*place, SEEDS, X))


def by_hand(values, quantile):
    """Linear between the sorted values, at position (n - 1) q."""
    values = sorted(values)
    position = (len(values) - 1) * quantile
    k = int(position)
    return values[k] + (position - k) * (values[min(k + 1, len(values) - 1)] - values[k])


def test_members_are_the_surfaces_of_the_planes_that_the_seeds_draw(place, planes):
    problem, at = place
    assert [member.plane.seed for member in planes] == list(SEEDS)
    for member, seed in zip(planes, SEEDS, strict=True):
        assert member == surfaces.measure(problem, random(at, seed), GRID)
        assert member.plane.basis.any()


def test_members_are_the_profiles_of_the_lines_that_the_seeds_draw(place, lines):
    problem, at = place
    for member, seed in zip(lines, SEEDS, strict=True):
        assert member == surfaces.profile(problem, random_line(at, seed), X)


def test_directions_of_a_subset_move_nothing_else(place):
    problem, at = place
    (member,) = ensembles.surfaces_of(problem, at, (0,), Grid(3), subset=Shared())
    moved = np.flatnonzero(member.plane.basis.any(0))
    assert set(moved) <= set(problem.layout.index())


def test_median_and_quantiles_are_those_over_the_draws_at_every_point(planes):
    found = ensembles.summary(planes, (0.1, 0.75))
    assert found.tasks == (*planes[0].tasks, "average")
    assert found.median.shape == (3, 4, 5)
    assert found.seeds.tolist() == list(SEEDS)
    assert found.quantiles.tolist() == [0.1, 0.75]
    for view, j, i in np.ndindex(3, 4, 5):
        losses = [m.loss[view, j, i] if view < 2 else sum(m.loss[:, j, i]) / 2 for m in planes]
        for name, quantile in (("median", 0.5), ("low", 0.1), ("high", 0.75)):
            assert getattr(found, name)[view, j, i] == pytest.approx(by_hand(losses, quantile), rel=1e-13)


def test_all_draws_agree_at_their_common_point(planes):
    found = ensembles.summary(planes)
    j, i = list(GRID.y).index(0.0), list(GRID.x).index(0.0)
    np.testing.assert_allclose(found.low[:, j, i], found.high[:, j, i], rtol=1e-14)
    np.testing.assert_allclose(found.median[:2, j, i], planes[0].loss[:, j, i], rtol=1e-14)
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()


def test_the_order_of_the_members_does_not_matter(planes):
    one, other = ensembles.summary(planes), ensembles.summary(planes[::-1])
    for name in ("median", "low", "high"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_profiles_are_summed_up_alike(lines):
    found = ensembles.summary_of_profiles(lines)
    assert found.median.shape == (3, 3)
    np.testing.assert_array_equal(found.x, X)
    for view, i in np.ndindex(3, 3):
        losses = [m.loss[view, i] if view < 2 else sum(m.loss[:, i]) / 2 for m in lines]
        assert found.median[view, i] == pytest.approx(by_hand(losses, 0.5), rel=1e-13)
        assert found.low[view, i] == pytest.approx(by_hand(losses, 0.1), rel=1e-13)
        assert found.high[view, i] == pytest.approx(by_hand(losses, 0.9), rel=1e-13)


def changed(member, places, value):
    loss = member.loss.copy()
    loss[0][places] = value
    return replace(member, loss=loss)


def test_a_point_that_a_member_lacks_is_missing(planes):
    done = np.ones(GRID.shape, bool)
    done[1, 2] = False
    half = replace(planes[2], done=done)
    found = ensembles.summary([planes[0], half, planes[1]])
    whole = ensembles.summary([planes[0], planes[2], planes[1]])
    for name in ("median", "low", "high"):
        values = getattr(found, name)
        assert np.isnan(values[:, 1, 2]).all()
        np.testing.assert_array_equal(values[:, done], getattr(whole, name)[:, done])


def test_nan_propagates_and_an_infinite_loss_leaves_the_median_alone(planes):
    broken = changed(changed(planes[0], (0, 0), np.nan), (1, 1), np.inf)
    found = ensembles.summary([broken, *planes[1:]])
    assert np.isnan([found.median[0, 0, 0], found.low[0, 0, 0], found.high[0, 0, 0]]).all()
    assert np.isnan(found.median[2, 0, 0]), "the average too"
    assert np.isfinite(found.median[1, 0, 0]), "but not the other task"
    assert found.median[0, 1, 1] == np.median([np.inf, *(m.loss[0, 1, 1] for m in planes[1:])])
    assert not np.isfinite(found.high[0, 1, 1])


def test_one_task_has_no_average(tmp_path):
    data = TensorDataset(torch.arange(12.0).reshape(6, 2), torch.arange(6.0)[:, None])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        problem = Problem(nn.Linear(2, 1), [Task("only", cases.squared_error)], data, data)
    at = Place(write_run(tmp_path / "one.h5", np.ones((1, problem.layout.size)), problem.layout, tasks=problem.names))
    found = ensembles.summary(list(ensembles.surfaces_of(problem, at, (0, 1), Grid(3))))
    assert found.tasks == ("only",)
    assert found.median.shape == (1, 3, 3)


def test_summaries_are_kept_in_a_results_file(planes, lines, tmp_path):
    found = ensembles.summary(planes), ensembles.summary_of_profiles(lines)
    archive.save(tmp_path / "results.h5", {"planes": Entry(found[0]), "lines": Entry(found[1])})
    assert archive.load(tmp_path / "results.h5", "planes").record == found[0]
    assert archive.load(tmp_path / "results.h5", "lines").record == found[1]


def plane_with(member, **changes):
    return replace(member, plane=replace(member.plane, **changes))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: replace(m, tasks=("a", "b")), r"different tasks: expected several draws through one snapshot"),
        (lambda m: replace(m, x=m.x + 1e-9), r"different grids"),
        (lambda m: plane_with(m, origin=m.plane.origin + 1e-12), r"different places"),
        (lambda m: plane_with(m, layout="other"), r"different places"),
        (lambda m: plane_with(m, recipe="principal plane"), r"different kinds of directions"),
        (lambda m: plane_with(m, subset="shared"), r"different kinds of directions"),
        (lambda m: replace(m, data="other"), r"different examples"),
        (lambda m: replace(m, batch_norm="re-estimated"), r"different conditions: .* under the same conditions"),
        (lambda m: plane_with(m, seed=3), r"a seed of its own for every draw, got 3, 3"),
    ],
)
def test_members_that_cannot_be_compared_are_refused(planes, change, text):
    with pytest.raises(LandscapeError, match=text):
        ensembles.summary([planes[0], change(planes[1])])


def test_surfaces_on_smaller_grids_are_refused(place, planes):
    (small,) = ensembles.surfaces_of(*place, (1,), Grid(3))
    with pytest.raises(LandscapeError, match=r"different grids"):
        ensembles.summary([planes[0], small])


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_members_are_refused(planes, lines, count):
    with pytest.raises(LandscapeError, match=rf"two or more draws for an ensemble, got {count}; draw more"):
        ensembles.summary(planes[:count])
    with pytest.raises(LandscapeError, match=rf"two or more draws for an ensemble, got {count}"):
        ensembles.summary_of_profiles(lines[:count])


@pytest.mark.parametrize("quantiles", [(0.6, 0.9), (0.1, 0.4), (-0.1, 0.9), (0.1, 1.1)])
def test_quantiles_lie_on_both_sides_of_the_median(planes, quantiles):
    with pytest.raises(LandscapeError, match=r"a quantile of at most and one of at least one half"):
        ensembles.summary(planes, quantiles)
