"""Gram matrices in blocks of columns, against numpy at once."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import gram
from tests.analysis.synthetic import write_run


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((count, 31)) for count in (4, 1, 7)]
    return rows, [write_run(tmp_path / f"{i}.h5", theta, seed=i) for i, theta in enumerate(rows)]


@pytest.mark.parametrize("columns", [1, 5, 30, 31, 1000])
def test_gram_matrix_does_not_depend_on_the_width_of_a_block(monkeypatch, runs, columns):
    monkeypatch.setattr(gram, "COLUMNS", columns)
    rows, trajectories = runs
    weights = np.random.default_rng(1).dirichlet(np.ones(12))
    found, centre = gram.centred_gram([t.theta for t in trajectories], weights)
    stacked = np.concatenate(rows)
    expected_centre = np.average(stacked, axis=0, weights=weights)
    # Sums of 31 products of order one in another order: a few roundings.
    np.testing.assert_allclose(centre, expected_centre, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        found, (stacked - expected_centre) @ (stacked - expected_centre).T, rtol=1e-13, atol=1e-13
    )


def test_blocks_cover_every_column_once_and_in_order(monkeypatch, runs):
    monkeypatch.setattr(gram, "COLUMNS", 7)
    rows, trajectories = runs
    blocks = list(gram.column_blocks([t.theta for t in trajectories]))
    assert [b.shape[1] for _, b in blocks] == [7, 7, 7, 7, 3]
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks], axis=1), np.concatenate(rows))
    assert [(c.start, c.stop) for c, _ in blocks] == [(0, 7), (7, 14), (14, 21), (21, 28), (28, 31)]


def test_snapshots_that_differ_by_a_ten_thousandth_of_their_norm_keep_nine_digits(monkeypatch, tmp_path):
    # Uncentred products would lose twice four digits; in float32 they would lose all. The reference is exact: theta is
    # an integer multiple of a power of two, so are the differences, and Python's integers do the sums.
    monkeypatch.setattr(gram, "COLUMNS", 64)
    rng = np.random.default_rng(2)
    base = rng.integers(2**20, 2**21, 500)
    moves = rng.integers(-150, 150, (6, 500))
    theta = (base + moves).astype(np.float64)
    distance = np.linalg.norm(theta[0] - theta[1]) / np.linalg.norm(theta[0])
    assert distance < 1.1e-4
    trajectory = write_run(tmp_path / "run.h5", theta, dtype=np.float32)
    found, _ = gram.centred_gram([trajectory.theta], np.full(6, 1 / 6))
    total = [sum(int(m[i]) for m in moves) for i in range(500)]
    exact = [
        [sum((6 * int(a[i]) - total[i]) * (6 * int(b[i]) - total[i]) for i in range(500)) / 36 for b in moves]
        for a in moves
    ]
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    # Entries of size 1e6 in float64 hold differences of size 100 to 1e-12 of their size.
    assert np.max(np.abs(found - exact) / scale) < 1e-9


def test_a_centre_of_ones_own_replaces_the_mean(runs):
    rows, trajectories = runs
    stacked = np.concatenate(rows)
    found, centre = gram.centred_gram([t.theta for t in trajectories], np.full(12, 1 / 12), lambda block: block[0])
    np.testing.assert_array_equal(centre, stacked[0])
    np.testing.assert_allclose(found, (stacked - stacked[0]) @ (stacked - stacked[0]).T, rtol=1e-13, atol=1e-13)


def test_squared_distances_are_those_of_the_rows_and_never_negative(runs):
    rows, trajectories = runs
    stacked = np.concatenate(rows)
    found, _ = gram.centred_gram([t.theta for t in trajectories], np.full(12, 1 / 12))
    squares = gram.squared_distances(found)
    expected = ((stacked[:, None] - stacked[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squares, expected, atol=1e-12)  # values of order 60, roundings of 1e-14
    assert (np.diag(squares) == 0).all()
    assert (squares >= 0).all()
    np.testing.assert_array_equal(squares, squares.T)


def test_equal_rows_have_distance_exactly_zero(tmp_path):
    theta = np.tile(np.random.default_rng(3).standard_normal(20), (3, 1))
    trajectory = write_run(tmp_path / "run.h5", theta)
    found, _ = gram.centred_gram([trajectory.theta], np.full(3, 1 / 3))
    assert (gram.squared_distances(found) >= 0).all()
    assert gram.squared_distances(found).max() < 1e-28  # the centre is rounded once, by 1e-16 an entry


def test_rows_that_nearly_coincide_far_from_the_centre_keep_all_their_digits(monkeypatch, tmp_path):
    # Two clusters 2e3 apart, inside of which rows are 1e-6 apart: their products alone know distances to 1e-5.
    monkeypatch.setattr(gram, "COLUMNS", 7)
    rng = np.random.default_rng(4)
    theta = rng.standard_normal((2, 30)) * 200
    theta = np.concatenate([theta[[k]] + 1e-7 * rng.standard_normal((3, 30)) for k in (0, 1)])
    trajectory = write_run(tmp_path / "run.h5", theta)
    found = gram.distances([trajectory.theta], np.full(6, 1 / 6))
    expected = np.linalg.norm(theta[:, None] - theta[None], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
