"""Measures of paths whose answers are known: lines, circles, spirals, random walks and Levy flights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import movement, paths

MEASURES = ("net", "to_end", "path_snapshots", "ratio", "turning", "exponent", "radius", "dimension", "volume")


def measures(points, directions=2):
    points = np.asarray(points, np.float64)
    steps = np.arange(len(points))
    return movement.of_squares(paths.of_points(points), steps, 2 * steps, directions)


def test_a_straight_line_has_no_turns_one_dimension_and_exponent_two():
    found = measures(np.outer(np.arange(21.0), [3.0, 4.0, 0.0]))
    places = 5 * np.arange(21.0)
    # Whole numbers: sums and roots are exact but for the last digit.
    np.testing.assert_allclose(found["net"], places, rtol=1e-14)
    np.testing.assert_allclose(found["to_end"], places[::-1], rtol=1e-14)
    np.testing.assert_allclose(found["path_snapshots"], places, rtol=1e-14)
    np.testing.assert_allclose(found["ratio"][1:], 1, rtol=1e-14)
    np.testing.assert_allclose(found["speed_steps"][1:], 5, rtol=1e-14)
    np.testing.assert_allclose(found["speed_updates"][1:], 2.5, rtol=1e-14)
    np.testing.assert_allclose(found["turning"][2:], 0, atol=1e-6)  # the arc cosine takes 1e-16 beside 1 to 1e-8
    np.testing.assert_allclose(found["exponent"][4:], 2, rtol=1e-12)
    # n evenly spaced points at distance a have the variance a^2 (n^2 - 1) / 12.
    counts = np.arange(1, 22)
    np.testing.assert_allclose(found["radius"], 5 * np.sqrt((counts**2 - 1) / 12), rtol=1e-12)
    np.testing.assert_allclose(found["dimension"][1:], 1, rtol=1e-10)
    assert np.isneginf(found["volume"][2:]).all()
    one = measures(np.outer(np.arange(21.0), [3.0, 4.0]), directions=1)["volume"]
    np.testing.assert_allclose(one[1:], np.log(25 * (counts[1:] ** 2 - 1) / 12), rtol=1e-10)
    for name in ("ratio", "speed_steps", "turning", "exponent", "dimension"):
        assert np.isnan(found[name][0])


def test_a_whole_circle_turns_evenly_and_comes_home():
    count, radius = 40, 7.0
    angle = 2 * np.pi * np.arange(count + 1) / count
    found = measures(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    chord = 2 * radius * np.sin(angle / 2)
    # The last point is the first one: nothing to divide by, and the distance is the rounding of the sum of 40 chords.
    np.testing.assert_allclose(found["net"], chord, atol=1e-6)
    np.testing.assert_allclose(found["path_snapshots"][-1], count * 2 * radius * np.sin(np.pi / count), rtol=1e-13)
    np.testing.assert_allclose(found["turning"][2:], 360 / count, rtol=1e-10)
    # Without the point that is there twice, mean 0 and variance r^2 / 2 along both axes.
    np.testing.assert_allclose(found["radius"][-2], radius, rtol=1e-12)
    np.testing.assert_allclose(found["dimension"][-2], 2, rtol=1e-12)
    np.testing.assert_allclose(found["volume"][-2], 2 * np.log(radius**2 / 2), rtol=1e-10)


def test_a_logarithmic_spiral_has_the_ratio_of_its_pitch():
    # r = e^(b t): arc length from the centre = r sqrt(1 + b^2) / b, so path / net tends to it divided by r.
    pitch = 0.4
    t = np.linspace(-30, 3, 60001)
    grown = np.exp(pitch * t)
    points = (grown[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1))[::100]
    exact = np.sqrt(1 + pitch**2) / pitch
    fine = paths.of_points((grown[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1))[-2001:])
    # 0.055 rad a step: a chord is shorter than its arc by 0.055^2 / 24, so 1e-4 at most.
    assert measures(points)["ratio"][-1] == pytest.approx(exact, rel=2e-4)
    assert np.nanmean(paths.angles(fine)) == pytest.approx(np.degrees(t[1] - t[0]), rel=1e-6)


def test_random_walks_double_their_square_with_time():
    # Mean over 200 walks of 64 steps in 300 dimensions: E||x_n||^2 = n; the standard error of one walk's square is
    # n sqrt(2 / 300 / 2), of the mean a two-hundredth of a per cent at most; four of them.
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200, 64, 300)) / np.sqrt(300)
    found = [measures(np.vstack([np.zeros(300), np.cumsum(s, axis=0)])) for s in steps]
    squares = np.mean([f["net"] ** 2 for f in found], axis=0)
    np.testing.assert_allclose(squares[1:] / np.arange(1, 65), 1, atol=4 * np.sqrt(2 / 300 / 200) * 1.5)
    assert np.mean([f["exponent"][-1] for f in found]) == pytest.approx(1, abs=0.02)
    assert np.mean([f["turning"][-1] for f in found]) == pytest.approx(90, abs=4 * 58 / np.sqrt(300 * 63 * 200))
    # E radius^2 of a walk of n points with unit steps: (n^2 - 1) / (6 n).
    assert np.mean([f["radius"][-1] ** 2 for f in found]) == pytest.approx((65**2 - 1) / 390, rel=0.03)


def test_the_dimension_of_a_long_high_dimensional_walk_is_five_halves():
    # Antognini and Sohl-Dickstein (2018): shares (6 / pi^2) / k^2 of the variance, so (sum s)^2 / sum s^2 =
    # (pi^2 / 6)^2 / (pi^4 / 90) = 2.5. 400 points of orthogonal steps: the rest is of order 1 / n^2.
    squares = paths.from_increments(np.eye(399))
    assert paths.dimension(squares)[-1] == pytest.approx(2.5, rel=1e-3)


def test_a_levy_flight_is_ruled_by_its_longest_jump():
    # Steps with tail index 1.2 have no variance: the longest of 400 carries most of the squared displacement, and a
    # cloud of two clusters has one dimension.
    rng = np.random.default_rng(1)
    lengths = rng.pareto(0.7, 400) + 1
    directions = rng.standard_normal((400, 50))
    jumps = lengths[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = measures(np.vstack([np.zeros(50), np.cumsum(jumps, axis=0)]))
    path = found["path_snapshots"]
    np.testing.assert_allclose(path[-1], lengths.sum(), rtol=1e-12)
    assert lengths.max() ** 2 > 0.5 * (lengths**2).sum()
    assert found["net"][-1] ** 2 == pytest.approx((lengths**2).sum(), rel=0.35)  # cross terms, sqrt(2/50) of it
    gaussian = measures(np.vstack([np.zeros(50), np.cumsum(directions, axis=0)]))
    assert found["dimension"][-1] < gaussian["dimension"][-1]


def test_every_prefix_agrees_with_numpy():
    rng = np.random.default_rng(2)
    points = np.cumsum(rng.standard_normal((17, 6)), axis=0)
    found = measures(points, directions=3)
    for last in range(4, 17):
        part = points[: last + 1]
        away = part - part.mean(0)
        values = np.linalg.eigvalsh(away.T @ away / len(part))[::-1]
        # numpy's covariance of six columns against the centred distances: conditioned by 1e3 at most.
        assert found["radius"][last] == pytest.approx(np.sqrt((away**2).sum(1).mean()), rel=1e-12)
        assert found["dimension"][last] == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-10)
        assert found["volume"][last] == pytest.approx(np.log(values[:3]).sum(), rel=1e-9, abs=1e-9)
        moved = np.diff(part, axis=0)
        cosines = (moved[1:] * moved[:-1]).sum(1) / np.prod(
            [np.linalg.norm(m, axis=1) for m in (moved[1:], moved[:-1])], 0
        )
        assert found["turning"][last] == pytest.approx(np.degrees(np.arccos(cosines)).mean(), rel=1e-10)


def test_squared_distances_of_neighbours_far_from_the_start_keep_their_digits():
    # Neighbours 1e-6 apart, a million from the start: from products about the start they would have no digit left.
    rng = np.random.default_rng(3)
    moved = rng.standard_normal((12, 40)) * 1e-6
    moved[0] *= 1e12
    squares = paths.from_increments(moved @ moved.T)
    exact = [[float((np.sum(moved[i:j], axis=0) ** 2).sum()) for j in range(i, 13)] for i in range(13)]
    for i in range(1, 13):
        np.testing.assert_allclose(squares[i, i:], exact[i], rtol=1e-12)


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.integers(4, 12), st.integers(3, 9))
def test_rotation_permutation_shift_and_scale(seed, scale, count, size):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, size))
    rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]
    before = measures(points)
    for moved, factor in (
        (points @ rotation, 1.0),
        (points[:, rng.permutation(size)], 1.0),
        (points + 10 * rng.standard_normal(size), 1.0),
        (scale * points, scale),
    ):
        after = measures(moved)
        for name in MEASURES:
            power = factor if name in ("net", "to_end", "path_snapshots", "radius") else 1.0
            shift = 2 * 2 * np.log(factor) if name == "volume" else 0.0
            # Points of order 1 to 10 in float64; angles and logarithms of small variances lose half of the digits.
            np.testing.assert_allclose(after[name], power * before[name] + shift, rtol=1e-6, atol=1e-6)


def test_points_that_stand_still_have_no_angle_and_no_dimension():
    found = measures(np.zeros((6, 3)))
    assert np.isnan(found["turning"]).all()
    assert np.isnan(found["dimension"]).all()
    assert np.isnan(found["exponent"]).all()
    assert np.isnan(found["ratio"]).all()
    assert (found["radius"] == 0).all()


def test_the_volume_is_computed_at_so_many_points_with_the_last():
    assert paths.leading_points(5).tolist() == [0, 1, 2, 3, 4]
    points = paths.leading_points(1000, 10)
    assert len(points) == 10
    assert points[-1] == 999
    assert paths.leading_points(1).tolist() == [0]
