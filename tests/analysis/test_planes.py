"""Planes against numpy's SVD and closed forms; shadows against points made in known planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis import directions, gram, planes
from analysis.planes import AtPlace
from analysis.subspaces import Place
from landscape import problems, store, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged
from tests.analysis.synthetic import flat_layout, layout_of, plane_of, write_run

finite = st.floats(-3, 3, width=64)


def weighted_svd(rows, weights):
    """Principal axes and shares of variance, straight from their definition."""
    stacked, w = np.concatenate(rows), np.concatenate(weights)
    centre = w @ stacked
    _, singular, right = np.linalg.svd((stacked - centre) * np.sqrt(w)[:, None], full_matrices=False)
    return centre, right[:2], singular**2 / (singular**2).sum()


def equal_weights(rows):
    return [np.full(len(r), 1 / (len(rows) * len(r))) for r in rows]


@pytest.mark.parametrize(
    ("counts", "size"),
    [((5,), 40), ((3, 9, 4), 40), ((30, 12), 7), ((1, 1, 1), 6), ((2, 40), 3)],
    ids=["one run", "runs of unequal length", "more snapshots than parameters", "one snapshot each", "S much above P"],
)
def test_principal_plane_is_that_of_a_weighted_svd(monkeypatch, tmp_path, counts, size):
    monkeypatch.setattr(gram, "COLUMNS", 5)
    rng = np.random.default_rng(sum(counts))
    scales = np.geomspace(3, 0.1, size)
    rows = [rng.standard_normal((n, size)) * scales + rng.standard_normal(size) for n in counts]
    runs = [write_run(tmp_path / f"{i}.h5", r, seed=i) for i, r in enumerate(rows)]
    plane = planes.principal(runs)
    centre, axes, shares = weighted_svd(rows, equal_weights(rows))
    # The eigenvalues of K are squared singular values: vectors keep about half of float64's digits where they are
    # well apart, as these are.
    np.testing.assert_allclose(plane.origin, centre, atol=1e-14)
    np.testing.assert_allclose(plane.explained, shares[:2], rtol=1e-11)
    np.testing.assert_allclose(np.abs(np.sum(plane.basis * axes, axis=1)), 1.0, rtol=1e-11)
    np.testing.assert_allclose(plane.gram, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.gram, plane.basis @ plane.basis.T, atol=0)


def test_the_shares_are_those_of_the_spread_along_the_axes(tmp_path):
    theta = np.zeros((4, 6))
    theta[:, 0], theta[:, 1], theta[:, 2] = [3, -3, 0, 0], [0, 0, 2, -2], [1, 1, -1, -1]
    plane = planes.principal([write_run(tmp_path / "run.h5", theta)])
    np.testing.assert_allclose(plane.explained, [18 / 30, 8 / 30], rtol=1e-12)  # sums of squares 18, 8, 4


@settings(max_examples=20)
@given(arrays(np.float64, (6, 5), elements=finite), st.integers(2, 4))
def test_a_run_written_more_densely_leaves_the_plane_unchanged(tmp_path_factory, theta, times):
    spread = np.linalg.svd(theta[:3] - theta[:3].mean(0), compute_uv=False)
    both = np.concatenate([theta[:3], theta[3:]])
    singular = np.linalg.svd(both - both.mean(0), compute_uv=False)
    # Axes are defined only where eigenvalues are apart.
    assume(singular[0] > 1.1 * singular[1] > 1.21 * singular[2] and singular[1] > 0.1 and spread[0] > 0)
    folder = tmp_path_factory.mktemp("dense")
    first = write_run(folder / "first.h5", theta[:3])
    second = write_run(folder / "second.h5", theta[3:], seed=1)
    dense = write_run(folder / "dense.h5", np.repeat(theta[3:], times, axis=0), seed=1)
    plane, again = planes.principal([first, second]), planes.principal([first, dense])
    # Differences of rounding size are magnified by the gap between eigenvalues, at least a tenth of the first.
    np.testing.assert_allclose(again.origin, plane.origin, atol=1e-13)
    np.testing.assert_allclose(again.explained, plane.explained, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(again.basis * plane.basis, axis=1)), 1.0, atol=1e-10)


def test_the_signs_of_the_axes_do_not_depend_on_the_order_of_the_runs(tmp_path):
    rng = np.random.default_rng(5)
    runs = [write_run(tmp_path / f"{i}.h5", rng.standard_normal((4, 20)), seed=i) for i in range(3)]
    plane, turned = planes.principal(runs), planes.principal(runs[::-1])
    np.testing.assert_allclose(turned.basis, plane.basis, atol=1e-12)
    again = planes.principal(runs)
    assert again == plane


@pytest.mark.parametrize(("run", "row"), [(0, 2), (1, 0), (1, 3), (2, -1)])
def test_a_plane_about_a_snapshot_of_any_run_is_that_of_the_weighted_svd_about_it(tmp_path, run, row):
    rng = np.random.default_rng(8)
    rows = [rng.standard_normal((n, 20)) * np.geomspace(3, 0.1, 20) for n in (4, 5, 3)]
    states = [rng.standard_normal((len(r), 2)) for r in rows]
    runs = [
        write_run(tmp_path / f"{i}.h5", r, buffers=s, seed=i) for i, (r, s) in enumerate(zip(rows, states, strict=True))
    ]
    plane = planes.principal(runs, centre=AtPlace(Place(runs[run], row)))
    weights = np.concatenate(equal_weights(rows))
    _, singular, right = np.linalg.svd((np.concatenate(rows) - rows[run][row]) * np.sqrt(weights)[:, None])
    np.testing.assert_array_equal(plane.origin, rows[run][row])
    np.testing.assert_array_equal(plane.buffers, states[run][row])
    np.testing.assert_allclose(plane.explained, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-11)
    np.testing.assert_allclose(np.abs(np.sum(plane.basis * right[:2], axis=1)), 1.0, rtol=1e-11)


def test_a_centre_of_another_run_is_refused_by_name(tmp_path):
    rng = np.random.default_rng(9)
    runs = [write_run(tmp_path / f"{i}.h5", rng.standard_normal((4, 8)), seed=i) for i in range(3)]
    message = r"^the centre, step \d+ of .*-2, is not a snapshot of the plane's trajectories: expected one of them$"
    with pytest.raises(LandscapeError, match=message):
        planes.principal(runs[:2], centre=AtPlace(Place(runs[2], -1)))


def test_buffers_are_averaged_with_the_runs_weighted_equally(tmp_path):
    rng = np.random.default_rng(6)
    states = [rng.standard_normal((n, 3)) for n in (2, 6)]
    runs = [
        write_run(tmp_path / f"{i}.h5", rng.standard_normal((len(s), 8)), buffers=s, seed=i)
        for i, s in enumerate(states)
    ]
    expected = (states[0].mean(0) + states[1].mean(0)) / 2
    np.testing.assert_allclose(planes.principal(runs).buffers, expected, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_snapshots_on_one_line_are_refused_also_when_rounding_bends_the_line(tmp_path, dtype):
    rng = np.random.default_rng(7)
    start, step = rng.standard_normal(1000), 0.01 * rng.standard_normal(1000)
    theta = start + np.arange(8)[:, None] * step
    with pytest.raises(LandscapeError, match=r"the 8 snapshots lie on one line"):
        planes.principal([write_run(tmp_path / "run.h5", theta, dtype=dtype)])


def test_a_slight_bend_well_above_rounding_makes_a_plane(tmp_path):
    rng = np.random.default_rng(7)
    start, step, bend = rng.standard_normal((3, 1000))
    times = np.arange(8)[:, None]
    theta = start + 0.01 * times * step + 1e-5 * times**2 * bend
    plane = planes.principal([write_run(tmp_path / "run.h5", theta, dtype=np.float32)])
    across = bend - (bend @ step) / (step @ step) * step
    # float32 rounds each of the 1,000 entries by up to 6e-8, against a bend of 1e-4 along the second axis.
    assert abs(plane.basis[1] @ across) / np.linalg.norm(across) > 0.999


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_snapshots_span_no_plane(tmp_path, count):
    theta = np.random.default_rng(8).standard_normal((count, 10))
    with pytest.raises(LandscapeError, match=rf"the {count} snapshots lie on one line"):
        planes.principal([write_run(tmp_path / "run.h5", theta)])


def test_snapshots_that_never_move_span_no_plane(tmp_path):
    theta = np.ones((5, 10))
    with pytest.raises(LandscapeError, match=r"the 5 snapshots lie on one line"):
        planes.principal([write_run(tmp_path / "run.h5", theta)])


def test_runs_of_other_layouts_are_refused_and_both_layouts_named(tmp_path):
    rng = np.random.default_rng(9)
    first = write_run(tmp_path / "first.h5", rng.standard_normal((4, 6)))
    other = layout_of(("weight", (2, 2), "shared"), ("head", (2,), "one"))
    second = write_run(tmp_path / "second.h5", rng.standard_normal((4, 6)), other)
    with pytest.raises(LandscapeError, match=rf"{first.layout.hash}.*second\.h5.*{other.hash}.*first difference"):
        planes.principal([first, second])
    with pytest.raises(LandscapeError, match=r"at least one trajectory, got none"):
        planes.principal([])


NET = layout_of(
    ("conv.weight", (4, 3, 2, 2), "shared"),
    ("conv.bias", (4,), "shared"),
    ("norm.weight", (4,), "shared"),
    ("head.weight", (5, 4), "one"),
    ("head.bias", (5,), "one"),
)


def net_run(tmp_path, dead=False):
    theta = np.random.default_rng(10).standard_normal((3, NET.size))
    if dead:
        theta[:, :12] = 0.0  # the first filter of the convolution
    return write_run(tmp_path / "net.h5", theta, NET, buffers=np.arange(6.0).reshape(3, 2))


def test_random_directions_have_the_norm_of_every_unit_and_leave_vectors_alone(tmp_path):
    run = net_run(tmp_path)
    plane = directions.random(Place(run), seed=4)
    theta = run.theta[-1]
    np.testing.assert_array_equal(plane.origin, theta)
    np.testing.assert_array_equal(plane.buffers, run.buffers[-1])
    for slot in NET.slots:
        for direction in plane.basis:
            mine, its = direction[slot.span].reshape(slot.shape), theta[slot.span].reshape(slot.shape)
            if len(slot.shape) < 2:
                assert not mine.any()
                continue
            axes = tuple(range(1, len(slot.shape)))
            norms = np.sqrt((mine**2).sum(axes)), np.sqrt((its**2).sum(axes))
            np.testing.assert_allclose(*norms, rtol=1e-14)  # scaled once
    np.testing.assert_array_equal(plane.gram, plane.basis @ plane.basis.T)
    assert 0 < abs(plane.gram[0, 1]) < 0.5 * plane.gram[0, 0], "independent, and not made orthogonal"
    assert plane.seed == 4


def test_random_directions_follow_from_their_seed(tmp_path):
    run = net_run(tmp_path)
    assert directions.random(Place(run), 3) == directions.random(Place(run), 3)
    assert not np.allclose(directions.random(Place(run), 3).basis, directions.random(Place(run), 4).basis)


def test_random_directions_are_isotropic_inside_a_unit(tmp_path):
    # A unit vector of 12 entries: squares of mean 1/12 and variance 2 * 11 / (12^2 14); 1,600 of them: error 0.0026.
    run = net_run(tmp_path)
    slot = NET.slots[0]
    norms = np.linalg.norm(run.theta[-1][slot.span].reshape(4, 12), axis=1)
    draws = np.stack([directions.random(Place(run), seed).basis[:, slot.span].reshape(2, 4, 12) for seed in range(200)])
    unit = draws / norms[:, None]
    assert abs((unit**2).mean(axis=(0, 1, 2)) - 1 / 12).max() < 5 * 0.0026
    assert abs(unit.mean()) < 5 / np.sqrt(unit.size)


def test_a_filter_of_zeros_gets_a_direction_of_zeros(tmp_path):
    plane = directions.random(Place(net_run(tmp_path, dead=True)))
    assert not plane.basis[:, :12].any()
    assert np.isfinite(plane.basis).all()


def test_a_model_of_vectors_alone_has_no_filter_normalised_direction(tmp_path):
    run = write_run(tmp_path / "run.h5", np.ones((3, 5)), layout_of(("bias", (5,), "shared")))
    with pytest.raises(LandscapeError, match=r"at least one tensor with two or more dimensions.*principal plane"):
        directions.random(Place(run))


@pytest.mark.parametrize("value", [0.0, 2.0], ids=["no weights", "one weight"])
def test_two_random_directions_that_span_no_plane_are_refused(tmp_path, value):
    theta = np.array([[value, 1.0, 1.0]])
    run = write_run(tmp_path / "run.h5", theta, layout_of(("w", (1, 1), "shared"), ("b", (2,), "shared")))
    with pytest.raises(LandscapeError, match=r"do not span a plane here.*principal plane"):
        directions.random(Place(run))


def test_a_shadow_recovers_the_coordinates_of_points_in_a_sheared_plane(tmp_path):
    basis = np.array([[2.0, 0.0, 0.0, 0.0], [1.5, 0.5, 0.0, 0.0]])  # an angle of 18 degrees
    origin = np.array([1.0, -2.0, 3.0, 0.0])
    given_ones = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-3.0, 7.0]])
    run = write_run(tmp_path / "run.h5", origin + given_ones @ basis)
    shadow = planes.shadow(run, plane_of(basis, origin))
    # The Gram matrix has a condition number of 60: two digits less than float64 has.
    np.testing.assert_allclose(shadow.coordinates, given_ones, atol=1e-12)
    np.testing.assert_allclose(shadow.off_plane, 0.0, atol=1e-12)
    np.testing.assert_allclose(shadow.from_origin, np.linalg.norm(given_ones @ basis, axis=1), rtol=1e-13)


def test_off_plane_and_coordinates_obey_pythagoras_in_an_orthonormal_plane(tmp_path):
    theta = np.random.default_rng(11).standard_normal((6, 10))
    run = write_run(tmp_path / "run.h5", theta)
    shadow = planes.shadow(run, planes.principal([run]))
    squares = (shadow.coordinates**2).sum(1) + shadow.off_plane**2
    np.testing.assert_allclose(squares, shadow.from_origin**2, rtol=1e-12)


@settings(max_examples=30)
@given(
    arrays(np.float64, (2, 5), elements=finite),
    arrays(np.float64, (4, 5), elements=finite),
    arrays(np.float64, (2, 2), elements=finite),
)
def test_shadows_are_least_squares_whatever_the_basis_of_the_plane(tmp_path_factory, basis, theta, change):
    assume(np.linalg.norm(basis) > 0.1 and np.linalg.cond(basis) < 50)
    assume(np.linalg.norm(change) > 0.1 and np.linalg.cond(change) < 50)
    run = write_run(tmp_path_factory.mktemp("shadow") / "run.h5", theta, flat_layout(5))
    origin = np.arange(5.0)
    shadow = planes.shadow(run, plane_of(basis, origin))
    moved = theta - origin
    expected, *_ = np.linalg.lstsq(basis.T, moved.T, rcond=None)
    scale = np.linalg.norm(moved, axis=1).max()
    # Normal equations square the condition numbers: 2,500 times the rounding of the largest move, and its multiples.
    bound = 1e-9 * (1 + scale) / np.linalg.svd(basis, compute_uv=False)[-1]
    np.testing.assert_allclose(shadow.coordinates, expected.T, atol=bound)
    off = np.linalg.norm(moved - expected.T @ basis, axis=1)
    np.testing.assert_allclose(shadow.off_plane, off, atol=1e-9 * (1 + scale))
    other = planes.shadow(run, plane_of(change @ basis, origin))
    np.testing.assert_allclose(other.off_plane, shadow.off_plane, atol=1e-7 * (1 + scale))
    np.testing.assert_allclose(other.from_origin, shadow.from_origin, atol=0)


def test_a_plane_whose_axes_differ_by_ten_orders_of_magnitude_keeps_its_coordinates(tmp_path):
    basis = np.array([[1e10, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    run = write_run(tmp_path / "run.h5", np.array([[2.0, -3.0]]) @ basis)
    found = planes.shadow(run, plane_of(basis)).coordinates
    np.testing.assert_allclose(found, [[2.0, -3.0]], rtol=1e-5)  # the move's first entry rounds off ten digits of y


@pytest.mark.parametrize("second", [[0.0] * 4, [2.0, 4.0, 0.0, 0.0]], ids=["zero", "parallel"])
def test_directions_on_one_line_make_no_shadow(tmp_path, second):
    run = write_run(tmp_path / "run.h5", np.ones((3, 4)))
    with pytest.raises(LandscapeError, match=r"directions lie on one line: expected two that span a plane"):
        planes.shadow(run, plane_of([[1.0, 2.0, 0.0, 0.0], second]))


def test_a_shadow_carries_the_run_and_its_true_losses(tmp_path):
    losses = np.array([[1.0, 2.0], [3.0, np.nan], [np.inf, 4.0]])
    rng = np.random.default_rng(12)
    run = write_run(
        tmp_path / "r.h5", rng.standard_normal((3, 4)), losses=losses, label="mine", seed=7, steps=[0, 5, 9]
    )
    shadow = planes.shadow(run, planes.principal([run]))
    assert shadow.run.name == "mine-7"
    assert shadow.tasks == ("one", "two")
    np.testing.assert_array_equal(shadow.steps, [0, 5, 9])
    np.testing.assert_array_equal(shadow.losses, losses)


def test_a_plane_of_another_model_is_refused_and_both_layouts_named(tmp_path):
    run = write_run(tmp_path / "run.h5", np.ones((3, 4)))
    plane = plane_of(np.eye(2, 6))
    with pytest.raises(LandscapeError, match=rf"another model.*{run.layout.hash}.*{plane.layout}.*6 entries"):
        planes.shadow(run, plane)


def test_blocks_of_one_row_give_the_same_shadow(monkeypatch, tmp_path):
    theta = np.random.default_rng(13).standard_normal((5, 8))
    run = write_run(tmp_path / "run.h5", theta)
    plane = planes.principal([run])
    whole = planes.shadow(run, plane)
    cut = planes.shadow(replace(run, theta=_RowByRow(run.theta)), plane)
    np.testing.assert_allclose(cut.coordinates, whole.coordinates, atol=1e-14)
    np.testing.assert_allclose(cut.off_plane, whole.off_plane, atol=1e-14)


class _RowByRow:
    def __init__(self, rows):
        self._rows = rows

    def __getitem__(self, key):
        return self._rows[key]

    def blocks(self):
        return self._rows.blocks(budget=1)


def test_frozen_layers_and_batch_norm_statistics_stay_out_of_the_plane(tmp_path):
    problem = problems.load("digits", {"norm": "batch", "width": 2, "features": 8, "train": 64, "evaluation": 32})
    plan = training.Plan(4, 16, Every(1))
    run = training.record(problem, Averaged(Optimiser("SGD", lr=0.1)), plan, tmp_path / "run.h5")
    plane = planes.principal([run])
    assert plane.origin.size == problem.layout.size
    assert plane.buffers.size == problem.buffer_layout.size > 0
    np.testing.assert_allclose(plane.buffers, store.open(run.path).buffers[:].mean(0), rtol=1e-14)
