"""Runs that part at known angles, spaces that they share by construction, and random ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.spatial.distance import cdist

from analysis import separation
from analysis.separation import Parting
from analysis.subsets import Everything, Named
from analysis.subspaces import Place
from landscape.errors import LandscapeError
from tests.analysis.synthetic import layout_of, write_run


def walk(tmp_path, moves, label="a", seed=0, start=1.0, **more):
    """A run from the point (start, start, ...) by these moves [S - 1, P]."""
    moves = np.asarray(moves, float)
    theta = start + np.concatenate([np.zeros((1, moves.shape[1])), np.cumsum(moves, axis=0)])
    return write_run(tmp_path / f"{label}-{seed}.h5", theta, label=label, seed=seed, **more)


def test_runs_at_a_right_angle_have_the_relative_distance_1_and_part_where_they_do(tmp_path):
    first = np.zeros((6, 8))
    first[:, 0] = 1.0
    second = first.copy()
    second[3:] = 0
    second[3:, 1] = 1.0
    (found,) = separation.separation([walk(tmp_path, first), walk(tmp_path, second, "b")])
    np.testing.assert_allclose(found.first_net, np.arange(7), rtol=1e-14)
    np.testing.assert_allclose(found.distance, [0, 0, 0, 0, 2**0.5, 8**0.5, 18**0.5], rtol=1e-14)
    u, v = 6.0, np.array([3.0, 3.0])
    assert found.relative[-1] == pytest.approx(18**0.5 / np.sqrt(u**2 + v @ v), rel=1e-14)
    assert np.isnan(found.relative[0])
    assert found.cosine[-1] == pytest.approx(3 * 6 / (6 * 18**0.5), rel=1e-14)
    # relative: sqrt 2 / sqrt(16 + 10) = 0.28, sqrt 8 / sqrt(25 + 13) = 0.46, sqrt 18 / sqrt(36 + 18) = 0.58.
    assert found.parted == 6
    (other,) = separation.separation(
        [walk(tmp_path, first), walk(tmp_path, second, "b")], parting=Parting(threshold=0.25)
    )
    assert other.parted == 4


@pytest.mark.parametrize(("other", "relative"), [([0, 1, 0, 0], 1.0), ([-1, 0, 0, 0], 2**0.5), ([1, 0, 0, 0], 0.0)])
def test_the_relative_distance_tells_right_opposite_and_same_directions(tmp_path, other, relative):
    runs = [walk(tmp_path, [[1, 0, 0, 0]] * 3), walk(tmp_path, [other] * 3, "b")]
    (found,) = separation.separation(runs)
    np.testing.assert_allclose(found.relative[1:], relative, rtol=1e-14)
    assert found.parted == (1 if relative else -1)


def test_principal_angles_are_scipys_and_distances_are_those_of_the_snapshots(tmp_path):
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((2, 40))
    moves = [rng.standard_normal((9, 2)) @ shared + 0.3 * rng.standard_normal((9, 40)) for _ in range(2)]
    runs = [walk(tmp_path, m, label) for m, label in zip(moves, "ab", strict=True)]
    (found,) = separation.separation(runs, Everything(), Parting(directions=3))
    leading = [np.linalg.svd(m, full_matrices=False)[2][:3].T for m in moves]
    expected = np.sort(np.degrees(subspace_angles(*leading)))
    np.testing.assert_allclose(found.angles, expected, rtol=1e-7, atol=1e-5)
    np.testing.assert_allclose(
        found.distance, np.linalg.norm(runs[0].theta[:] - runs[1].theta[:], axis=1), rtol=1e-12, atol=1e-13
    )
    assert found.overlap == pytest.approx(np.mean(np.cos(np.radians(expected)) ** 2), rel=1e-9)
    assert found.null_overlap == 3 / 40
    assert found.overlap > found.null_high > found.null_overlap


@pytest.mark.parametrize(("size", "directions"), [(4, 3), (9, 4), (60, 3)])
def test_random_subspaces_have_the_angles_of_subspaces_drawn_in_full(size, directions):
    found = separation.random_cosines(size, directions, 4000, 0)
    rng = np.random.default_rng(1)
    full = np.stack(
        [
            np.linalg.svd(
                np.linalg.qr(rng.standard_normal((size, directions)))[0].T
                @ np.linalg.qr(rng.standard_normal((size, directions)))[0],
                compute_uv=False,
            )
            for _ in range(4000)
        ]
    )
    # Two means of 4,000 draws with a standard deviation of at most 0.25: 4 standard errors are 0.022.
    np.testing.assert_allclose(found.mean(0), full.mean(0), atol=0.022)
    np.testing.assert_allclose((found**2).mean(), directions / size, atol=0.01)


def test_the_overlap_of_random_walks_is_that_of_random_subspaces(tmp_path):
    inside = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        runs = [walk(tmp_path, rng.standard_normal((12, 50)), label, seed) for label in "ab"]
        (found,) = separation.separation(runs)
        inside += found.overlap < found.null_high
    assert inside >= 6  # 97.5 % of 8, binomially: 6 or more with a probability of 0.999


def test_only_steps_that_both_runs_have_are_compared(tmp_path):
    rng = np.random.default_rng(0)
    one = walk(tmp_path, rng.standard_normal((4, 6)), steps=[0, 2, 4, 6, 8])
    other = walk(tmp_path, rng.standard_normal((3, 6)), "b", steps=[0, 4, 8, 12])
    (found,) = separation.separation([one, other])
    assert found.steps.tolist() == [0, 4, 8]
    expected = np.linalg.norm(one.theta[:][[0, 2, 4]] - other.theta[:][:3], axis=1)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-12)


def test_a_snapshot_that_is_not_finite_is_open_and_the_rest_stands(tmp_path):
    moves = np.random.default_rng(0).standard_normal((5, 6))
    broken = moves.copy()
    one = walk(tmp_path, moves)
    theta = 1.0 + np.concatenate([np.zeros((1, 6)), np.cumsum(broken, axis=0)])
    theta[3] = np.nan
    (found,) = separation.separation([one, write_run(tmp_path / "b.h5", theta, label="b")])
    assert np.isnan(found.distance[3])
    np.testing.assert_allclose(np.delete(found.distance, 3), 0, atol=1e-12)
    assert found.parted == -1
    assert np.isfinite(found.angles).all()


def test_runs_that_do_not_move_have_no_angles(tmp_path):
    runs = [walk(tmp_path, np.zeros((3, 6)), label) for label in "ab"]
    (found,) = separation.separation(runs)
    assert found.angles.size == 0
    assert np.isnan(found.overlap)
    assert (found.distance == 0).all()


def test_different_starts_are_refused_with_their_distance(tmp_path):
    runs = [walk(tmp_path, np.ones((2, 4))), walk(tmp_path, np.ones((2, 4)), "b", start=2.0)]
    with pytest.raises(LandscapeError, match="a-0 and b-0 have different starts, 2 apart: expected one start"):
        separation.separation(runs)
    late = walk(tmp_path, np.ones((2, 4)), "c", steps=[1, 2, 3])
    with pytest.raises(LandscapeError, match=r"c-0.h5 begins at step 1: expected runs to be paired from their start"):
        separation.separation([runs[0], late])
    with pytest.raises(LandscapeError, match="expected two or more runs of one seed, got 1"):
        separation.separation(runs[:1])
    with pytest.raises(LandscapeError, match="expected a threshold between 0 and the square root of 2"):
        Parting(threshold=2)


def test_runs_of_one_seed_and_start_go_together_and_the_others_are_told_of(tmp_path):
    runs = [walk(tmp_path, np.ones((1, 4)), label, seed) for label in "abc" for seed in (0, 1)]
    runs += [walk(tmp_path, np.ones((1, 4)), "d", 0, start=3.0), walk(tmp_path, np.ones((1, 4)), "e", 2)]
    told = []
    groups = [[run.name for run in group] for group in separation.one_start(runs, told.append)]
    assert groups == [["a-0", "b-0", "c-0"], ["a-1", "b-1", "c-1"]]
    assert [str(error).partition(",")[0] for error in told] == ["a-0 and d-0 have different starts"]


LAYOUT = layout_of(("trunk", (3,), "shared"), ("head", (2,), "one"))


def test_distances_over_strategies_seeds_and_time_are_scipys(tmp_path):
    rng = np.random.default_rng(0)
    runs = [
        walk(tmp_path, rng.standard_normal((3, 5)), label, seed, layout=LAYOUT) for label in "ab" for seed in (0, 1)
    ]
    places = [Place(run, row) for run in runs for row in (1, -1)]
    found = separation.distances(places)
    points = np.stack([place.theta for place in places])
    # From a Gram matrix, so off by roundings of squares: 1e-12 relative where points are as far apart as long.
    np.testing.assert_allclose(found.distance, cdist(points[:, :3], points[:, :3]), rtol=1e-12, atol=1e-7)
    assert found.points[:2] == ("a-0@1", "a-0@3")
    assert (found.labels[2], found.seeds[2], found.steps[2]) == ("a", 1, 1)
    assert np.isnan(found.aligned).all()
    whole = separation.distances(places, Named("head"))
    np.testing.assert_allclose(whole.distance, cdist(points[:, 3:], points[:, 3:]), rtol=1e-12, atol=1e-7)


def test_a_snapshot_that_is_not_finite_leaves_the_other_distances_as_they_are(tmp_path):
    theta = np.random.default_rng(0).standard_normal((4, 6))
    theta[2, 1] = np.inf
    run = write_run(tmp_path / "broken.h5", theta)
    found = separation.distances([Place(run, row) for row in range(4)])
    kept = [0, 1, 3]
    np.testing.assert_allclose(found.distance[np.ix_(kept, kept)], cdist(theta[kept], theta[kept]), atol=1e-7)
    assert np.isnan(found.distance[2, kept]).all()


def test_runs_of_other_models_are_refused(tmp_path):
    runs = [walk(tmp_path, np.ones((1, 4))), walk(tmp_path, np.ones((1, 6)), "b")]
    for call in (separation.separation, lambda both: separation.distances([Place(run) for run in both])):
        with pytest.raises(LandscapeError, match=r"expected theta with 4 entries .* but .*b-0.h5 has 6 entries"):
            call(runs)


def test_runs_that_stay_close_together_far_from_their_start_keep_the_digits_of_their_distance(tmp_path):
    rng = np.random.default_rng(6)
    theta = np.concatenate([np.zeros((1, 30)), 200 + rng.standard_normal((3, 30))])
    other = theta.copy()
    other[1:] += 1e-7 * rng.standard_normal((3, 30))
    runs = [write_run(tmp_path / f"{k}.h5", rows, label=f"run{k}") for k, rows in enumerate((theta, other))]
    (found,) = separation.separation(runs)
    np.testing.assert_allclose(found.distance, np.linalg.norm(theta - other, axis=1), rtol=1e-12)
