"""Distances of straight lines, circles and random walks, whose lengths are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import ortho_group

from analysis import distances
from landscape import problems, training
from landscape.errors import LandscapeError
from landscape.strategies import Averaged
from tests.analysis.synthetic import layout_of, write_run


def test_on_a_straight_line_net_is_path_and_the_ratio_is_one(tmp_path):
    direction = np.array([3.0, 0.0, 4.0, 0.0])
    run = write_run(tmp_path / "line.h5", 1.0 + np.arange(6)[:, None] * direction)
    found = distances.exploration(run)
    np.testing.assert_allclose(found.net, 5.0 * np.arange(6), rtol=1e-14)
    np.testing.assert_allclose(found.path_steps, found.net, rtol=1e-14)
    assert np.isnan(found.ratio[0])
    np.testing.assert_allclose(found.ratio[1:], 1.0, rtol=1e-14)
    assert found.start_norm == 2.0


def test_on_a_circle_the_path_is_n_chords_and_the_net_one_returns_to_zero(tmp_path):
    count, radius = 40, 3.0
    angle = 2 * np.pi * np.arange(count + 1) / count
    theta = np.zeros((count + 1, 6))
    theta[:, 1], theta[:, 4] = radius * np.cos(angle), radius * np.sin(angle)
    found = distances.exploration(write_run(tmp_path / "circle.h5", theta))
    chord = 2 * radius * np.sin(np.pi / count)
    np.testing.assert_allclose(found.net, 2 * radius * np.abs(np.sin(angle / 2)), atol=1e-14)
    np.testing.assert_allclose(found.path_steps, chord * np.arange(count + 1), rtol=1e-13)
    half = count // 2
    assert found.ratio[half] == pytest.approx(half * chord / (2 * radius), rel=1e-13)


def test_a_random_walk_goes_as_the_square_root_of_its_path(tmp_path):
    # n steps of unit length in P dimensions: net^2 / n has mean 1 and standard deviation sqrt(2 (n - 1) / (n P)), here
    # 0.045; path = n exactly.
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200, 1000))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    theta = np.concatenate([np.zeros((1, 1000)), np.cumsum(steps, axis=0)])
    found = distances.exploration(write_run(tmp_path / "walk.h5", theta))
    assert found.path_steps[-1] == pytest.approx(200, rel=1e-12)
    assert abs(found.net[-1] ** 2 / 200 - 1) < 4 * 0.045


def test_path_lengths_are_those_of_training_and_not_of_the_stored_snapshots(tmp_path):
    theta = np.zeros((3, 4))
    theta[1], theta[2] = 1.0, 0.0
    run = write_run(
        tmp_path / "run.h5",
        theta,
        paths=([0.0, 5.0, 9.0], [0.0, 7.0, 12.0]),
        steps=[0, 4, 8],
        updates=[0, 12, 24],
        rate=0.25,
    )
    found = distances.exploration(run)
    assert found.path_steps.tolist() == [0, 5, 9]
    assert found.path_updates.tolist() == [0, 7, 12]
    assert found.net.tolist() == [0, 2, 0]
    assert np.isposinf(found.ratio[2])
    assert found.steps.tolist() == [0, 4, 8]
    assert found.updates.tolist() == [0, 12, 24]
    assert found.gradients.tolist() == [0, 24, 48]
    assert found.movement.tolist() == [0, 3, 6]
    assert found.run.name == "walk-0"


SPLIT = layout_of(("a", (3,), "shared"), ("head", (2,), "one"), ("b", (2, 2), "shared"), ("idle", (1,), "unused"))


def test_heads_and_idle_parameters_do_not_count(tmp_path):
    theta = np.zeros((3, SPLIT.size))
    theta[1, 0], theta[2, 5] = 3.0, 4.0  # both shared
    theta[:, 3:5] = [[0, 0], [100, 0], [0, 1e6]]
    theta[:, 9] = [0, 50, -50]
    run = write_run(tmp_path / "run.h5", theta, SPLIT)
    assert distances.exploration(run).net.tolist() == [0, 3, 4]
    np.testing.assert_allclose(distances.between_snapshots(run).distance, [[0, 3, 4], [3, 0, 5], [4, 5, 0]], atol=1e-12)
    other = write_run(tmp_path / "other.h5", np.full((1, SPLIT.size), 0.0), SPLIT, label="still")
    found = distances.between_last([run, other])
    assert found.labels == ("walk-0", "still-0")
    np.testing.assert_allclose(found.distance, [[0, 4], [4, 0]], atol=1e-12)


def test_matrices_are_scipys_and_have_the_properties_of_a_metric(tmp_path):
    rng = np.random.default_rng(1)
    theta = 100.0 + rng.standard_normal((7, 50))  # far from zero: the centre has to be taken off first
    run = write_run(tmp_path / "run.h5", theta)
    found = distances.between_snapshots(run)
    matrix = found.distance
    np.testing.assert_allclose(matrix, squareform(pdist(theta)), rtol=1e-12)
    assert (np.diag(matrix) == 0).all()
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (matrix[:, None, :] <= matrix[:, :, None] + matrix[None, :, :] + 1e-12).all()
    assert found.labels == tuple(f"step {s}" for s in range(7))


def test_distances_between_ends_of_runs_of_unequal_length_are_scipys(tmp_path):
    rng = np.random.default_rng(2)
    ends = []
    runs = []
    for number, count in enumerate((2, 5, 1, 9)):
        theta = rng.standard_normal((count, 12))
        ends.append(theta[-1])
        runs.append(write_run(tmp_path / f"{number}.h5", theta, seed=number, dtype=np.float32))
    stored = np.asarray(ends, np.float32).astype(np.float64)
    np.testing.assert_allclose(distances.between_last(runs).distance, cdist(stored, stored), atol=1e-12)
    assert distances.between_last(runs[:1]).distance.tolist() == [[0.0]]


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_rotations_and_translations_change_no_distance(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((5, 8))
    turned = theta @ ortho_group.rvs(8, random_state=seed % 1000).T + rng.standard_normal(8)
    folder = tmp_path_factory.mktemp("turned")
    one, other = write_run(folder / "one.h5", theta), write_run(folder / "other.h5", turned)
    mine, its = distances.exploration(one), distances.exploration(other)
    np.testing.assert_allclose(its.net, mine.net, atol=1e-13)
    np.testing.assert_allclose(its.path_steps, mine.path_steps, rtol=1e-13)
    a, b = (distances.between_snapshots(run).distance for run in (one, other))
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_scaling_theta_scales_every_distance(tmp_path):
    theta = np.random.default_rng(3).standard_normal((5, 8))
    one, other = write_run(tmp_path / "one.h5", theta), write_run(tmp_path / "other.h5", 4 * theta)
    np.testing.assert_allclose(
        distances.between_snapshots(other).distance, 4 * distances.between_snapshots(one).distance, rtol=1e-12
    )


def test_runs_of_other_layouts_or_without_a_start_are_refused(tmp_path):
    one = write_run(tmp_path / "one.h5", np.zeros((2, 4)))
    other = write_run(tmp_path / "other.h5", np.zeros((2, 6)))
    with pytest.raises(LandscapeError, match=r"expected theta with 4 entries.* but .*other\.h5 has 6 entries"):
        distances.between_last([one, other])
    late = write_run(tmp_path / "late.h5", np.zeros((2, 4)), steps=[10, 20])
    with pytest.raises(LandscapeError, match=r"late\.h5 begins at step 10: expected its start, step 0"):
        distances.exploration(late)
    heads = write_run(tmp_path / "heads.h5", np.zeros((2, 4)), layout_of(("head", (4,), "one")))
    for function in (distances.exploration, distances.between_snapshots, lambda run: distances.between_last([run])):
        with pytest.raises(LandscapeError, match=r"heads\.h5 has no shared parameters"):
            function(heads)
    with pytest.raises(LandscapeError, match=r"at least one trajectory, got none"):
        distances.between_last([])


def test_a_training_record_is_what_the_file_holds(tmp_path):
    problem = problems.load("digits", {"width": 2, "features": 4, "train": 64, "evaluation": 20})
    run = training.record(problem, Averaged(), training.Plan(5, 16, training.Every(2)), tmp_path / "run.h5")
    found = distances.training(run)
    assert found.tasks == problem.names
    assert found.metrics == problem.metric_names
    assert found.scores.shape == (4, 3)
    np.testing.assert_array_equal(found.losses, run.losses)
    np.testing.assert_array_equal(found.scores, run.metrics)
    np.testing.assert_array_equal(found.batch_steps, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found.batch_losses, run.history.losses)
    # Training summed every step, the file stores every second one: the path is at least as long as between snapshots.
    explored = distances.exploration(run)
    shared = run.shared[:].astype(np.float64)
    between = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(shared, axis=0), axis=1))])
    assert (explored.path_steps >= between * (1 - 1e-6)).all()


def test_small_moves_far_from_the_start_keep_their_digits(tmp_path):
    # Snapshots 1e-7 apart at 1e3 from the first: from products about the mean they would be 1e-5 apart, or 0.
    rng = np.random.default_rng(5)
    theta = np.concatenate([np.zeros((1, 30)), 200 + np.cumsum(1e-8 * rng.standard_normal((5, 30)), axis=0)])
    found = distances.between_snapshots(write_run(tmp_path / "run.h5", theta)).distance
    np.testing.assert_allclose(found, cdist(theta, theta), rtol=1e-12)
    ends = [write_run(tmp_path / f"{k}.h5", np.stack([theta[0], theta[k]]), seed=k) for k in range(1, 6)]
    ends.append(write_run(tmp_path / "far.h5", np.stack([theta[0], -theta[1]]), seed=9))
    last = np.stack([*theta[1:], -theta[1]])
    np.testing.assert_allclose(distances.between_last(ends).distance, cdist(last, last), rtol=1e-12)
