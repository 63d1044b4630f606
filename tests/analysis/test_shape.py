"""The shape of surfaces against connected components at every level, closed forms and symmetries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from analysis import archive
from analysis.persistence import minima
from analysis.results import Plane, Surface
from analysis.shape import shape
from landscape.errors import LandscapeError

EIGHT = np.ones((3, 3))


def surface_of(loss, x=None, y=None, gram=((1.0, 0.0), (0.0, 1.0)), done=None, errors=np.nan):
    """A surface with these losses, [ny, nx] for one task or [T, ny, nx]; `errors` are all its standard errors."""
    loss = np.asarray(loss, float)
    loss = loss[None] if loss.ndim == 2 else loss
    tasks, ny, nx = loss.shape
    gram = np.asarray(gram, float)
    plane = Plane(
        origin=np.zeros(2),
        basis=np.linalg.cholesky(gram),
        gram=gram,
        buffers=np.empty(0),
        explained=np.full(2, np.nan),
        recipe="by hand",
        axes=("first", "second"),
        seed=-1,
        layout="layout",
    )
    errors = np.broadcast_to(errors, loss.shape)
    return Surface(
        tasks=tuple(f"task{t + 1}" for t in range(tasks)),
        x=np.arange(nx, dtype=float) if x is None else np.asarray(x, float),
        y=np.arange(ny, dtype=float) if y is None else np.asarray(y, float),
        loss=loss,
        stderr=errors,
        difference_stderr=errors,
        average_stderr=errors[0],
        average_difference_stderr=errors[0],
        metrics=(),
        scores=np.zeros((0, ny, nx)),
        score_stderr=np.zeros((0, ny, nx)),
        done=np.ones((ny, nx), bool) if done is None else done,
        plane=plane,
        examples=100,
        data="data",
        split="evaluation",
        batch_norm="none",
        heads="as the plane's",
        engine="Sequential(micro_batch=128)",
    )


# Few distinct values, so that plateaus and equal minima are common.
grids = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: arrays(float, shape, elements=st.sampled_from([0.0, 1, 2, 3, 4, 5, 6, 7, np.nan, np.inf]))
)


@given(grids)
def test_at_every_level_there_are_as_many_basins_as_components_of_the_sublevel_set(values):
    found = minima(values)
    finite = np.isfinite(values)
    known = np.where(finite, values, np.inf)
    for level in np.arange(-0.5, known[finite].max(initial=0.0)):
        _, components = ndimage.label(known <= level, EIGHT)
        assert sum(m.value <= level < m.value + m.depth for m in found) == components


@given(grids)
def test_the_deepest_is_the_least_value_and_every_part_between_walls_has_a_minimum(values):
    found = minima(values)
    finite = np.isfinite(values)
    parts, count = ndimage.label(finite, EIGHT)
    assert {int(parts[m.place]) for m in found} == set(range(1, count + 1))
    if found:
        assert found[0].value == values[finite].min()
        assert found[0].depth == values[finite].max() - values[finite].min()
    assert [m.depth for m in found] == sorted((m.depth for m in found), reverse=True)
    for m in found:
        assert values[m.place] == m.value
        assert values[m.joins] == m.value + m.depth


@given(grids, st.sampled_from([np.exp, np.cbrt, lambda v: v**3 + 2 * v, lambda v: -np.exp(-v)]))
def test_a_monotone_map_keeps_the_minima_and_where_they_join(values, rising):
    mapped = np.where(np.isfinite(values), rising(np.where(np.isfinite(values), values, 0.0)), np.nan)
    before, after = minima(values), minima(mapped)
    assert {(m.place, m.joins) for m in before} == {(m.place, m.joins) for m in after}


@given(grids)
def test_transposing_or_turning_a_grid_keeps_the_depths(values):
    pairs = [(m.value, m.depth) for m in minima(values)]
    for other in (values.T, values[::-1], values[:, ::-1], np.rot90(values)):
        assert [(m.value, m.depth) for m in minima(other)] == pairs


@pytest.mark.parametrize("seed", range(5))
def test_transposing_a_grid_without_ties_transposes_the_minima(seed):
    values = np.random.default_rng(seed).standard_normal((9, 13))
    turned = {(m.place[::-1], m.joins[::-1], m.value, m.depth) for m in minima(values.T)}
    assert turned == {(m.place, m.joins, m.value, m.depth) for m in minima(values)}


def test_two_wells_are_as_deep_as_the_barrier_between_them():
    """(x^2 - 1)^2 + x / 4 + 2 y^2: wells near -1 and 1, a pass near 0, found by a fine scan of the line y = 0."""
    x, y = np.linspace(-1.5, 1.5, 301), np.linspace(-1, 1, 41)
    line = (x**2 - 1) ** 2 + x / 4
    left, right, ridge = line[:150].argmin(), 150 + line[150:].argmin(), 100 + line[100:200].argmax()
    found = shape(surface_of(line + 2 * y[:, None] ** 2, x, y))
    assert found.minima == [2]
    np.testing.assert_allclose(found.at, [[x[left], 0], [x[right], 0]], atol=1e-12)
    np.testing.assert_allclose(found.value, [line[left], line[right]], rtol=1e-14)
    assert found.depth[1] == pytest.approx(line[ridge] - line[right], rel=1e-12)
    assert found.depth[0] == pytest.approx(line.max() + 2 - line[left], rel=1e-12)
    assert not found.edge.any()


@pytest.mark.parametrize("walls", ["not done", "not finite"])
def test_points_without_a_loss_are_walls(walls):
    loss, done = np.array([[1.0, 5, 2], [3, 5, 4], [3, 5, 4]]), np.ones((3, 3), bool)
    assert shape(surface_of(loss)).depth.tolist() == [4, 3]
    if walls == "not done":
        done[:, 1], loss[:, 1] = False, 0.0
    else:
        loss[:, 1] = [np.inf, np.nan, np.inf]
    found = shape(surface_of(loss, done=done))
    np.testing.assert_array_equal(found.value, [1, 2])
    # Neither basin ends: both reach the largest loss that there is.
    np.testing.assert_array_equal(found.depth, [3, 2])
    assert np.isnan(found.convexity).all()
    np.testing.assert_allclose(found.width, [[np.nan, np.nan, np.nan, 0.15]])  # a tenth of 3, on a slope of 2
    assert np.isnan(found.area).all()
    assert found.edge.all()


def test_the_noise_of_a_minimum_bounds_the_standard_error_of_its_depth_whatever_the_correlation():
    """Losses of 200 examples at five points: the true paired error of a depth is known, the stored ones bound it."""
    rng = np.random.default_rng(0)
    for common in (0.0, 0.9, -0.9):
        one = rng.standard_normal((200, 1))
        each = common * one * np.array([1.0, -1.0, 1.0, 1.0, -1.0]) + rng.standard_normal((200, 5))
        each = each - each.mean(0) + np.array([0.0, 3, 1, 4, 0.5])
        paired = (each - each[:, [2]]).std(0, ddof=1) / np.sqrt(200)
        surface = surface_of(each.mean(0)[None])
        errors = {"difference_stderr": paired[None, None], "stderr": each.std(0, ddof=1)[None, None] / np.sqrt(200)}
        found = shape(replace(surface, **errors))
        np.testing.assert_allclose(found.value, [0, 0.5, 1], atol=1e-12)
        for k, (low, joins) in enumerate([(0, 3), (4, 3), (2, 1)]):
            true = (each[:, joins] - each[:, low]).std(ddof=1) / np.sqrt(200)
            assert true <= found.noise[k] * (1 + 1e-12)
            bounds = [errors[name][0, 0, [low, joins]].sum() for name in errors]
            assert found.noise[k] == pytest.approx(min(bounds), rel=1e-12)


def test_minima_count_where_they_are_deeper_than_twice_their_noise():
    # Depths 8 (to the largest), 2.5, 1.5 and 0.5; each minimum's noise is 1, half from each end.
    row = [[0.0, 6, 3.5, 6, 4.5, 6, 5.5, 8]]
    assert shape(surface_of(row)).minima == [4], "no error is known: all count"
    found = shape(surface_of(row, errors=0.5))
    np.testing.assert_allclose(found.depth, [8, 2.5, 1.5, 0.5])
    np.testing.assert_allclose(found.noise, 1)
    assert found.minima == [2]
    assert shape(surface_of(row, errors=0.1)).minima == [4]
    assert shape(surface_of(row, errors=10.0)).minima == [0]


UNEVEN_X = np.array([-2.0, -1.7, -1.0, -0.4, 0.0, 0.1, 0.9, 2.2])
UNEVEN_Y = np.array([-1.0, -0.2, 0.0, 0.7, 1.1])


def quadratic(xx, xy, yy, x=UNEVEN_X, y=UNEVEN_Y):
    return 0.5 * xx * x**2 + xy * x * y[:, None] + 0.5 * yy * y[:, None] ** 2 + 3 * x - y[:, None] + 7


@pytest.mark.parametrize(
    ("hessian", "share"),
    [
        ((2, 0, 1), 1.0),
        ((2, 1.4, 1), 1.0),
        ((2, 1.5, 1), 0.0),
        ((-2, 0, 1), 0.0),
        ((-2, 0, -1), 0.0),
        ((2, 0, 0), 0.0),
        ((0, 0, 0), 0.0),
        ((4, 2, 1), 0.0),
    ],
)
def test_second_differences_on_an_uneven_grid_are_exact_for_quadratics(hessian, share):
    """Definite by the determinant xx yy - xy^2; a valley's flat direction and a plane's rounding are not convex."""
    found = shape(surface_of(quadratic(*hessian), UNEVEN_X, UNEVEN_Y))
    assert found.convexity == [share]


def test_the_convex_share_of_a_wave_is_where_its_second_derivative_is_positive():
    """-cos x + y^2 is convex where cos x > 0, which is where its second difference is positive."""
    x, y = np.linspace(-4, 4, 65), np.linspace(-1, 1, 9)
    found = shape(surface_of(-np.cos(x) + y[:, None] ** 2, x, y))
    assert found.convexity.item() == pytest.approx((np.cos(x[1:-1]) > 0).mean(), abs=1e-15)


def test_the_hessian_of_rough_losses_is_that_of_parabolas_through_three_points_and_of_the_corners():
    loss = np.random.default_rng(1).standard_normal((5, 8)) + 2 * quadratic(1, 0, 1)
    loss[1, 2], loss[4, 7] = np.nan, np.inf
    known, convex = [], []
    for j in range(1, 4):
        for i in range(1, 7):
            nine = loss[j - 1 : j + 2, i - 1 : i + 2]
            known.append(np.isfinite(nine).all())
            if known[-1]:
                xx = 2 * np.polyfit(UNEVEN_X[i - 1 : i + 2], nine[1], 2)[0]
                yy = 2 * np.polyfit(UNEVEN_Y[j - 1 : j + 2], nine[:, 1], 2)[0]
                room = (UNEVEN_X[i + 1] - UNEVEN_X[i - 1]) * (UNEVEN_Y[j + 1] - UNEVEN_Y[j - 1])
                xy = (nine[2, 2] - nine[2, 0] - nine[0, 2] + nine[0, 0]) / room
                convex.append(np.linalg.eigvalsh([[xx, xy], [xy, yy]]).min() > 0)
    assert sum(known) == 18 - 6 - 1, "beside the hole and beside the infinite corner"
    assert 0 < sum(convex) < len(convex)
    assert shape(surface_of(loss, UNEVEN_X, UNEVEN_Y)).convexity.item() == pytest.approx(np.mean(convex), abs=1e-15)


def test_roughness_of_a_checkerboard_and_of_a_plane():
    j, i = np.indices((6, 9))
    # Alternating +-1: every inner point differs by 2 from the mean of its neighbours, the range is 2.
    assert shape(surface_of((-1.0) ** (i + j))).roughness == [1.0]
    plane = 3 * UNEVEN_X - 2 * UNEVEN_Y[:, None]
    assert shape(surface_of(plane, UNEVEN_X, UNEVEN_Y)).roughness.item() < 1e-15
    assert shape(surface_of(np.ones((4, 4)))).roughness == [0.0]
    # (x^2 + y^2) / 2 on unit steps differs by 1/2 everywhere; its range over [-3, 3] x [-2, 2] is 6.5.
    x, y = np.arange(-3.0, 4), np.arange(-2.0, 3)
    bowl = (x**2 + y[:, None] ** 2) / 2
    assert shape(surface_of(bowl, x, y)).roughness.item() == pytest.approx(0.5 / 6.5, rel=1e-14)
    assert shape(surface_of(9 * bowl - 4, x, y)).roughness.item() == pytest.approx(0.5 / 6.5, rel=1e-14)


@pytest.mark.parametrize("rise", [0.05, 0.4])
def test_basins_of_paraboloids_are_as_wide_and_as_large_as_the_closed_forms(rise):
    """a x^2 / 2 + b y^2 / 2 with lengths 2 and 3 of the axes: half-widths 2 sqrt(2 r / a) and 3 sqrt(2 r / b)."""
    a, b = 1.0, 4.0
    x, y = np.linspace(-1.5, 1.25, 111), np.linspace(-0.8, 1.0, 91)
    gram = np.array([[4.0, 1.2], [1.2, 9.0]])
    found = shape(surface_of(a * x**2 / 2 + b * y[:, None] ** 2 / 2 + 5, x, y, gram), rise)
    along, across = np.sqrt(2 * rise / a), np.sqrt(2 * rise / b)
    # A chord of a parabola over a step h lies at most a h^2 / 8 above it: the crossing is that / slope too near.
    short = 0.025**2 / 8 / along, 0.02**2 / 8 / across
    np.testing.assert_allclose(found.width[0, :2], 2 * along, atol=2 * short[0] * 1.05)
    np.testing.assert_allclose(found.width[0, 2:], 3 * across, atol=3 * short[1] * 1.05)
    ellipse = np.pi * along * across * np.sqrt(np.linalg.det(gram))
    assert found.area.item() == pytest.approx(ellipse, rel=2 * (short[0] / along + short[1] / across))
    assert found.rise == [rise]
    np.testing.assert_allclose(found.scale, [2 * 0.025, 3 * 0.02])
    np.testing.assert_allclose(found.at, [[0, 0]], atol=1e-12)


def test_each_direction_has_its_own_width():
    """Cones with other slopes on each side: exact under linear interpolation, on an uneven grid."""
    x, y = np.array([-3.0, -1, 0, 2, 3, 10]), np.array([-4.0, 0, 0.5, 2, 9])
    loss = np.where(x < 0, -2 * x, x / 2) + np.where(y < 0, -y, 4 * y)[:, None]
    found = shape(surface_of(loss, x, y, [[4, 0], [0, 9]]), rise=1.5)
    np.testing.assert_allclose(found.width, [[2 * 0.75, 2 * 3.0, 3 * 1.5, 3 * 0.375]])
    edges = shape(surface_of(loss, x, y), rise=4.5)
    np.testing.assert_allclose(edges.width, [[2.25, 9.0, np.nan, 1.125]])
    assert np.isnan(edges.area).all(), "the basin reaches y = -4"


def test_the_default_rise_is_a_tenth_of_each_views_range():
    loss = np.stack([quadratic(1, 0, 1), 10 * quadratic(1, 0.5, 3)])
    found = shape(surface_of(loss, UNEVEN_X, UNEVEN_Y))
    np.testing.assert_allclose(found.rise, [0.1 * np.ptp(v) for v in (*loss, loss.mean(0))])


def test_the_area_is_linear_on_triangles():
    """One low corner inside: four cells, each with the corner's triangles cut at a known place."""
    loss = np.ones((3, 3))
    loss[1, 1] = 0.0
    # Each cell's middle is 3/4. Below 1/2: triangles (0, 1, 3/4) have the share (1/2)^2 / (3/4) = 1/3, two of four.
    assert shape(surface_of(loss), rise=0.5).area.item() == pytest.approx(4 * 2 / 4 / 3, rel=1e-14)
    # Below 7/8: those two but for (1/8)^2 / (1 * 1/4) at their third corner, and (1/8)^2 / (1/4)^2 of (3/4, 1, 1).
    shares = 2 * (1 - 1 / 16) + 2 * (1 / 4)
    assert shape(surface_of(loss), rise=7 / 8).area.item() == pytest.approx(4 * shares / 4, rel=1e-14)
    scaled = shape(surface_of(loss, [0, 2, 4], [0, 5, 10], [[1, 0.6], [0.6, 1]]), rise=0.5)
    assert scaled.area.item() == pytest.approx(10 * 0.8 * 2 / 3, rel=1e-14)


def test_the_area_is_that_of_the_deepest_basin_alone():
    x, y = np.linspace(-2, 2, 201), np.linspace(-1, 1, 101)
    line = (x**2 - 1) ** 2 + x / 4
    loss = line + 3 * y[:, None] ** 2
    both, one = shape(surface_of(loss, x, y), rise=0.7), shape(surface_of(loss[:, :110], x[:110], y), rise=0.7)
    assert both.minima == [2]
    assert both.area.item() == pytest.approx(one.area.item(), rel=1e-12)
    fine = np.linspace(-2, 0.2, 4001)
    below = fine[(fine**2 - 1) ** 2 + fine / 4 < line.min() + 0.7]
    heights = 2 * np.sqrt((line.min() + 0.7 - (below**2 - 1) ** 2 - below / 4) / 3)
    # The interpolant lies above the loss by at most 12 h^2 / 8, some 1e-3 of the rise.
    assert both.area.item() == pytest.approx(np.trapezoid(heights, below), rel=5e-3)


def test_transposing_a_surface_swaps_its_axes():
    x, y = np.linspace(-1, 1.5, 26), np.linspace(-2, 1, 19)
    loss = (x - 0.2) ** 2 + 0.5 * (y[:, None] + 0.4) ** 4 + 0.3 * np.sin(3 * x) * y[:, None]
    gram = np.array([[4.0, 0.5], [0.5, 1.0]])
    here = shape(surface_of(loss, x, y, gram))
    there = shape(surface_of(loss.T, y, x, gram[::-1, ::-1]))
    np.testing.assert_allclose(there.width, here.width[:, [2, 3, 0, 1]], rtol=1e-12)
    np.testing.assert_allclose(there.area, here.area, rtol=1e-12)
    np.testing.assert_allclose(there.roughness, here.roughness, rtol=1e-12)
    np.testing.assert_array_equal(there.convexity, here.convexity)
    np.testing.assert_array_equal(there.depth, here.depth)
    np.testing.assert_array_equal(there.at, here.at[:, ::-1])
    np.testing.assert_allclose(there.scale, here.scale[::-1])


def test_the_average_is_a_view_of_its_own_and_every_minimum_knows_its_view():
    x, y = np.linspace(-2, 2, 41), np.linspace(-1, 1, 21)
    first, second = (x - 1) ** 2 + y[:, None] ** 2, (x + 1) ** 2 + 3 * y[:, None] ** 2
    surface = surface_of([first, second], x, y)
    surface = replace(surface, average_difference_stderr=np.full(first.shape, 0.25))
    found = shape(surface)
    assert found.views == ("task1", "task2", "average")
    np.testing.assert_array_equal(found.of, [0, 1, 2])
    np.testing.assert_allclose(found.at, [[1, 0], [-1, 0], [0, 0]], atol=1e-15)
    np.testing.assert_allclose(found.value, [0, 0, 1], atol=1e-15)
    np.testing.assert_array_equal(found.minima, [1, 1, 1])
    np.testing.assert_array_equal(found.noise, [np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(found.convexity, [1, 1, 1])


def test_the_average_is_unknown_where_one_task_is():
    loss = np.stack([quadratic(1, 0, 1), quadratic(1, 0, 1)])
    loss[1] = np.nan
    found = shape(surface_of(loss, UNEVEN_X, UNEVEN_Y))
    np.testing.assert_array_equal(found.minima, [1, 0, 0])
    np.testing.assert_array_equal(found.of, [0])
    for values in (found.convexity, found.roughness, found.area, found.rise, *found.width.T):
        assert np.isnan(values[1:]).all()


def test_a_minimum_at_the_edge_is_said_to_be_there():
    slope = np.add.outer(np.arange(4.0), np.arange(5.0))
    found = shape(surface_of(slope))
    assert found.minima == [1]
    assert found.edge.tolist() == [True]
    assert found.convexity == [0.0]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_grids_without_inner_points_have_minima_but_no_hessian(size):
    found = shape(surface_of(np.arange(float(np.prod(size))).reshape(size)))
    assert found.minima == [1]
    assert np.isnan(found.convexity).all()
    assert np.isnan(found.roughness).all()
    assert np.isnan(found.area).all()


def test_a_flat_surface_has_one_minimum_without_depth_and_no_basin():
    found = shape(surface_of(np.full((4, 5), 2.0)))
    np.testing.assert_array_equal(found.depth, [0.0])
    assert found.convexity == [0.0]
    assert np.isnan(found.width).all()


@pytest.mark.parametrize("rise", [0.0, -1.0, np.nan, np.inf])
def test_a_rise_that_is_none_is_refused(rise):
    with pytest.raises(LandscapeError, match="expected a rise of the loss above zero, got"):
        shape(surface_of(np.ones((3, 3))), rise)


def test_a_shape_comes_back_from_the_archive_as_it_was(tmp_path):
    rough = np.random.default_rng(0).standard_normal((2, 6, 7))
    for name, surface in (("some", surface_of(rough)), ("none", surface_of(rough, done=np.zeros((6, 7), bool)))):
        found = shape(surface)
        archive.save(tmp_path / "results.h5", {name: archive.Entry(found)})
        assert archive.load(tmp_path / "results.h5", name).record == found
