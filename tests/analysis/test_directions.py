"""Planes and lines against closed forms on quadratics, finite differences and the definition of each."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from analysis import directions, planes
from analysis.heads import CentreHeads, InterpolatedHeads
from analysis.planes import AtPlace
from analysis.spectra import Accuracy
from analysis.subsets import Everything, Head, Named, Shared
from analysis.subspaces import Frame, Place, beside, point
from landscape import problems, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged
from tests.analysis import cases
from tests.analysis.synthetic import layout_of, write_run

LAYOUT = layout_of(("trunk", (6,), "shared"), ("one", (2,), "one"), ("tail", (3,), "shared"), ("two", (2,), "two"))
SHARED = np.r_[0:6, 8:11]
HEADS = np.r_[6:8, 11:13]


def walk(tmp_path, seed=0, count=5, name="run.h5", label="walk"):
    theta = np.random.default_rng(seed).standard_normal((count, LAYOUT.size)).cumsum(0)
    return write_run(tmp_path / name, theta, LAYOUT, label=label, seed=seed)


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory):
    """A problem of known Hessians, and a run of it in float64."""
    problem = problems.load("quadratic", {"tasks": 3, "size": 8, "heads": 2})
    plan = training.Plan(6, 16, Every(2))
    path = tmp_path_factory.mktemp("quadratic") / "run.h5"
    return problem, training.record(problem, Averaged(Optimiser("SGD", lr=0.01)), plan, path)


def test_a_plane_through_three_snapshots_has_their_true_distances(tmp_path):
    run = walk(tmp_path)
    a, b, c = (Place(run, row) for row in (0, 2, 4))
    plane = planes.through(a, b, c)
    np.testing.assert_allclose(plane.gram, np.eye(2), atol=1e-14)  # orthonormal, a few roundings
    seen = beside(plane, np.stack([a.theta, b.theta, c.theta]))
    np.testing.assert_allclose(seen.off, 0, atol=1e-13)
    for i, p in enumerate((a, b, c)):
        for j, q in enumerate((a, b, c)):
            flat = np.linalg.norm(seen.coordinates[i] - seen.coordinates[j])
            assert flat == pytest.approx(np.linalg.norm(p.theta - q.theta), abs=1e-13)
    np.testing.assert_allclose(seen.coordinates[1], [np.linalg.norm(b.theta - a.theta), 0], atol=1e-13)
    assert seen.coordinates[2, 1] > 0
    assert "step 2 of walk-0" in plane.axes[0]
    assert "step 4 of walk-0" in plane.axes[1]


def test_three_snapshots_on_a_line_are_refused_with_their_cosine(tmp_path):
    theta = np.outer([0.0, 1.0, -2.0], np.arange(1, 14.0))
    run = write_run(tmp_path / "run.h5", theta, LAYOUT)
    with pytest.raises(LandscapeError, match=r"lie on one line: expected two that span a plane, got the cosine -1"):
        planes.through(Place(run, 0), Place(run, 1), Place(run, 2))
    with pytest.raises(LandscapeError, match=r"has the length 0: expected directions with a finite length above zero"):
        planes.through(Place(run, 0), Place(run, 1), Place(run, 0))


def test_the_heads_of_a_shared_plane_stay_or_follow(tmp_path):
    run = walk(tmp_path)
    places = [Place(run, row) for row in (0, 2, 4)]
    frozen = planes.through(*places, Shared(), CentreHeads())
    moving = planes.through(*places, Shared(), InterpolatedHeads())
    np.testing.assert_array_equal(frozen.gram, moving.gram)
    np.testing.assert_allclose(frozen.gram, np.eye(2), atol=1e-14)
    assert not frozen.basis[:, HEADS].any()
    for plane, follows in ((frozen, False), (moving, True)):
        seen = beside(plane, np.stack([p.theta for p in places]))
        np.testing.assert_allclose(seen.off, 0, atol=1e-13)
        for place, coordinates, elsewhere in zip(places, seen.coordinates, seen.elsewhere, strict=True):
            there = point(plane, *coordinates)
            np.testing.assert_allclose(there[SHARED], place.theta[SHARED], atol=1e-13)
            heads = place.theta if follows else places[0].theta
            np.testing.assert_allclose(there[HEADS], heads[HEADS], atol=1e-13)
            gap = 0.0 if follows else np.linalg.norm(place.theta[HEADS] - places[0].theta[HEADS])
            assert elsewhere == pytest.approx(gap, abs=1e-13)
    assert (frozen.heads, moving.heads) == ("centre", "interpolated")
    assert frozen.subset == "shared"


@pytest.mark.parametrize("heads", [CentreHeads(), InterpolatedHeads()])
def test_a_principal_plane_of_a_subset_is_that_of_its_columns_alone(tmp_path, heads):
    runs = [walk(tmp_path, seed, count, f"{seed}.h5") for seed, count in ((0, 5), (1, 9))]
    plane = planes.principal(runs, Shared(), heads)
    rows = np.concatenate([run.theta[:] for run in runs])
    weights = np.r_[np.full(5, 1 / 10), np.full(9, 1 / 18)]
    inner = rows[:, SHARED] - weights @ rows[:, SHARED]
    _, singular, right = np.linalg.svd(inner * np.sqrt(weights)[:, None], full_matrices=False)
    np.testing.assert_allclose(plane.explained, (singular**2 / (singular**2).sum())[:2], rtol=1e-12)
    np.testing.assert_allclose(np.abs((plane.basis[:, SHARED] * right[:2]).sum(1)), 1, rtol=1e-12)
    shadow = planes.shadow(runs[0], plane)
    found = (rows[:5][:, SHARED] - weights @ rows[:, SHARED]) @ plane.basis[:, SHARED].T
    np.testing.assert_allclose(shadow.coordinates, found, atol=1e-12)


def test_a_principal_plane_centred_on_a_snapshot_holds_it_and_counts_variance_about_it(tmp_path):
    run = walk(tmp_path, 3, 6)
    plane = planes.principal([run], centre=AtPlace(Place(run, -1)))
    np.testing.assert_allclose(plane.origin, run.theta[-1], rtol=1e-15)
    moved = run.theta[:] - run.theta[-1]
    singular = np.linalg.svd(moved, compute_uv=False) ** 2
    np.testing.assert_allclose(plane.explained, singular[:2] / singular.sum(), rtol=1e-12)
    assert "centred on step 5 of walk-3" in plane.recipe
    other = walk(tmp_path, 4, 6, "other.h5")
    with pytest.raises(LandscapeError, match=r"the centre, step 5 of walk-4, is not a snapshot of the plane's traj"):
        planes.principal([run], centre=AtPlace(Place(other, -1)))


def test_given_directions_keep_their_lengths_and_their_angle(tmp_path):
    frame = Frame.at(Place(walk(tmp_path)), Named("trunk"))
    given = np.random.default_rng(5).standard_normal((2, LAYOUT.size))
    plane = planes.spanned(frame, given, "by hand", ("a", "b"))
    np.testing.assert_allclose(plane.gram, given[:, :6] @ given[:, :6].T, rtol=1e-14)
    assert not plane.basis[:, 6:].any()
    assert plane.recipe == "by hand, of the parameters: trunk"
    with pytest.raises(
        LandscapeError, match=r"two directions of theta with 13 entries.*got an array of shape \[2, 12\]"
    ):
        planes.spanned(frame, given[:, 1:], "by hand", ("a", "b"))
    with pytest.raises(LandscapeError, match="got the cosine 1"):
        planes.spanned(frame, np.stack([given[0], 3 * given[0]]), "by hand", ("a", "b"))


def test_a_line_between_two_snapshots_has_them_at_0_and_1(tmp_path):
    run = walk(tmp_path)
    line = directions.between(Place(run, 1), Place(run, 3))
    np.testing.assert_array_equal(point(line, 0.0), run.theta[1])
    np.testing.assert_allclose(point(line, 1.0), run.theta[3], rtol=1e-14, atol=1e-15)
    assert line.gram[0, 0] == pytest.approx(((run.theta[3] - run.theta[1]) ** 2).sum())
    shared = directions.between(Place(run, 1), Place(run, 3), Shared(), CentreHeads())
    np.testing.assert_array_equal(point(shared, 1.0)[HEADS], run.theta[1][HEADS])


def test_a_random_line_is_the_first_axis_of_the_random_plane(tmp_path):
    layout = layout_of(("w", (4, 5), "shared"), ("b", (4,), "shared"), ("head", (3, 4), "one"))
    run = write_run(tmp_path / "net.h5", np.random.default_rng(1).standard_normal((2, layout.size)), layout)
    for subset in (Everything(), Named("head")):
        line, plane = directions.random_line(Place(run), 7, subset), directions.random(Place(run), 7, subset)
        np.testing.assert_array_equal(line.basis[0], plane.basis[0])
    assert not plane.basis[:, :24].any()
    with pytest.raises(LandscapeError, match="at least one tensor with two or more dimensions"):
        directions.random(Place(run), 7, Named("b"))


def test_eigenvector_planes_of_quadratics_hold_the_leading_vectors(quadratic):
    problem, run = quadratic
    hessians = problem.model.hessians.numpy()
    shared = problem.layout.index()
    for name, matrix in (("average", hessians.mean(0)), ("task2", hessians[1])):
        plane = directions.eigenvectors(problem, Place(run), (name,), accuracy=Accuracy(1e-9))
        vectors = np.linalg.eigh(matrix)[1][:, ::-1][:, :2]
        overlap = np.abs(plane.basis[:, shared] @ vectors)
        np.testing.assert_allclose(overlap, np.eye(2), atol=1e-7)  # residual 1e-9 over gaps above 1e-2
        assert not np.delete(plane.basis, shared, 1).any()
    both = directions.eigenvectors(problem, Place(run), ("task1", "task3"), accuracy=Accuracy(1e-9))
    first, third = (np.linalg.eigh(hessians[t])[1][:, -1] for t in (0, 2))
    assert abs(both.basis[0, shared] @ first) == pytest.approx(1, abs=1e-7)
    assert np.linalg.norm(both.basis[:, shared] @ third) == pytest.approx(1, abs=1e-7), "the third's lies in the plane"
    with pytest.raises(LandscapeError, match=r"unknown task 'task4'.*did you mean 'task\d'"):
        directions.eigenvectors(problem, Place(run), ("task4",))


SHORT = Accuracy(1e-9, products=3)
WITH_A_HEAD = Named("theta", "heads.1")


def test_planes_of_curvature_are_about_the_subset_asked_for(quadratic):
    problem, run = quadratic
    theta = torch.tensor(run.theta[-1], dtype=torch.float64)
    buffers = torch.tensor(run.buffers[-1])

    def task2(at):
        return problem.losses(at, problem.evaluation, buffers)[1].mean()

    matrix = torch.autograd.functional.hessian(task2, theta).numpy()
    kept = np.concatenate([problem.layout.index(), problem.layout.index("task2")])
    values, vectors = np.linalg.eigh(matrix[np.ix_(kept, kept)])
    plane = directions.eigenvectors(problem, Place(run), ("task2",), WITH_A_HEAD, accuracy=Accuracy(1e-9))
    assert values[-1] - values[-3] > 1e-2, "two leading values apart from the others, or the plane is not defined"
    overlap = np.linalg.svd(plane.basis[:, kept] @ vectors[:, -2:])[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-7)  # residual 1e-9 over gaps above 1e-2
    assert not np.delete(plane.basis, kept, 1).any()
    assert plane.subset == "theta, heads.1"

    local = directions.local(problem, Place(run), Head("task2"), accuracy=Accuracy(1e-9))
    head = problem.layout.index("task2")
    update = (run.theta[-1] - run.theta[-2])[head]
    np.testing.assert_allclose(local.basis[0, head], update / np.linalg.norm(update), rtol=1e-12)
    assert not np.delete(local.basis, head, 1).any()


def test_a_plane_of_no_curvature_is_refused(quadratic):
    problem, run = quadratic
    with pytest.raises(LandscapeError, match=r"Hessian of task1 at .* no curvature in some direction .*head of task2"):
        directions.eigenvectors(problem, Place(run), ("task1",), Head("task2"))


def test_a_plane_says_where_its_eigenvectors_did_not_converge(quadratic):
    problem, run = quadratic
    plane = directions.eigenvectors(problem, Place(run), accuracy=SHORT)
    assert re.search(
        r"not converged \(average: 0 of 2 eigenpairs met the tolerance 1e-09 after \d+ products", plane.recipe
    )
    local = directions.local(problem, Place(run), accuracy=SHORT)
    assert "not converged (average: 0 of 1 eigenpairs" in local.recipe
    assert "converged" not in directions.local(problem, Place(run)).recipe


def test_gradient_planes_of_quadratics_are_the_closed_form(quadratic):
    problem, run = quadratic
    shared = problem.layout.index()
    theta = run.theta[-1][shared]
    a, c = problem.model.hessians.numpy(), problem.model.minima.numpy()
    plane = directions.gradients(problem, Place(run), ("task1", "task3"))
    unit = [a[t] @ (theta - c[t]) for t in (0, 2)]
    unit = np.stack([g / np.linalg.norm(g) for g in unit])
    np.testing.assert_allclose(plane.basis[:, shared], unit, rtol=1e-12, atol=1e-14)
    assert plane.gram[0, 1] == pytest.approx(unit[0] @ unit[1])
    everything = directions.gradients(problem, Place(run), ("task1", "task3"), Everything())
    assert everything.basis[0, problem.layout.index("task1")].any()
    with pytest.raises(LandscapeError, match="unknown task 'task9'"):
        directions.gradients(problem, Place(run), ("task1", "task9"))


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_full_gradient_is_that_of_one_backward_pass_over_all_examples(kind, tmp_path):
    problem = cases.make(kind)
    theta, buffers = problem.initial(0)
    run = write_run(
        tmp_path / "run.h5", theta[None].numpy(), problem.layout, buffers=buffers[None].numpy(), tasks=problem.names
    )
    there = theta.clone().requires_grad_()
    for number in range(len(problem.tasks)):
        loss = problem.losses(there, problem.evaluation, buffers)[number].mean()
        (expected,) = torch.autograd.grad(loss, there)
        found = directions.full_gradient(problem, Place(run), number)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-15)


def test_the_local_plane_holds_the_update_and_the_sharpest_direction(quadratic):
    problem, run = quadratic
    shared = problem.layout.index()
    sharpest = np.linalg.eigh(problem.model.hessians.numpy().mean(0))[1][:, -1]
    for row, ends in ((-1, (-2, -1)), (0, (0, 1))):
        plane = directions.local(problem, Place(run, row), accuracy=Accuracy(1e-9))
        update = (run.theta[ends[1]] - run.theta[ends[0]])[shared]
        np.testing.assert_allclose(plane.basis[0, shared], update / np.linalg.norm(update), rtol=1e-12)
        np.testing.assert_allclose(plane.gram, np.eye(2), atol=1e-12)
        assert np.linalg.norm(plane.basis[:, shared] @ sharpest) == pytest.approx(1, abs=1e-7)
        np.testing.assert_array_equal(plane.origin, run.theta[row])


def test_a_local_plane_needs_a_second_snapshot(tmp_path):
    run = walk(tmp_path, count=1)
    with pytest.raises(LandscapeError, match="has one snapshot only: expected a second one for the update's direction"):
        directions.local(problems.load("toy"), Place(run))


def test_a_snapshot_that_is_not_finite_is_no_centre_and_no_part_of_a_principal_plane(tmp_path):
    theta = np.random.default_rng(0).standard_normal((4, LAYOUT.size))
    theta[-1, 3] = np.nan
    run = write_run(tmp_path / "run.h5", theta, LAYOUT)
    with pytest.raises(LandscapeError, match=r"step \d+ of .* is not finite: expected finite parameters at the centre"):
        directions.random(Place(run), 0)
    with pytest.raises(LandscapeError, match="some snapshots are not finite: expected finite parameters"):
        planes.principal([run])
