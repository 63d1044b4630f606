"""Scenes of conflict maps and the table of a surface's shape hold the numbers of the records."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import contourpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import figures
from analysis.results import ConflictMap, SurfaceShape
from figures import scenes, style
from figures.marks import Contours, Line, Mark, Panel, Points, Segments
from figures.scenes.levels import level_line
from figures.shape_tables import shape_table
from tests.figures import records


def conflict(tasks=("one", "two"), nx=5, ny=4, done=None) -> ConflictMap:
    """Pair k's cosine is (x - 2) / 2 - k / 10, ratio 2^(x - y) (k + 1), gap 10^-y, all norms 1 + x; noise 1.5."""
    x, y = np.arange(nx, dtype=float), np.arange(ny, dtype=float)
    pairs = list(combinations(tasks, 2))
    xs, ys = np.meshgrid(x, y)
    done = np.ones((ny, nx), bool) if done is None else done
    count = len(tasks)

    def known(*layers):
        return np.where(done, np.array(layers, float).reshape(-1, ny, nx), np.nan)

    return ConflictMap(
        tasks=tasks,
        pairs=tuple(f"{a} and {b}" for a, b in pairs),
        x=x,
        y=y,
        cosine=known(*(np.clip((xs - 2) / 2 - k / 10, -1, 1) for k in range(len(pairs)))),
        ratio=known(*(2.0 ** (xs - ys) * (k + 1) for k in range(len(pairs)))),
        norm=known(*[1 + xs] * count),
        noise=known(*[np.full_like(xs, 1.5)] * count),
        gap=known(10.0**-ys)[0],
        gap_noise=known(np.full_like(xs, 0.05))[0],
        weights=known(*[np.full_like(xs, 1 / count)] * count),
        loss=known(*((t + 1) * (xs + 10 * ys) for t in range(count))),
        pareto=done & (xs == 1) & (ys <= 1),
        done=done,
        plane=records.plane(),
        examples=500,
        data="data",
        pieces=8,
        seed=0,
    )


def of(panel: Panel, kind: type[Mark]) -> list[Mark]:
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def dots(panel: Panel, group: str, colour: str = style.INK) -> set[tuple[float, float]]:
    """Where the dots of one legend entry are."""
    found = [m for m in of(panel, Points) if m.group == group and m.look.colour == colour]
    return {(float(x), float(y)) for m in found for x, y in zip(m.x, m.y, strict=True)}


def test_panels_hold_cosine_gap_and_ratio_at_y_x() -> None:
    record = conflict()
    scene = scenes.conflict_map(record)
    assert [panel.title for panel in scene.panels] == ["one and two", "Pareto gap", "one / two"]
    cosine, gap, ratio = (of(panel, Contours)[0] for panel in scene.panels)
    np.testing.assert_array_equal(cosine.z, record.cosine[0])
    np.testing.assert_array_equal(cosine.measured, record.cosine[0])
    np.testing.assert_allclose(10**gap.z, record.gap)
    np.testing.assert_allclose(10**ratio.z, record.ratio[0])
    np.testing.assert_array_equal(ratio.measured, record.ratio[0])
    assert [c.bar.label for c in (cosine, gap, ratio)] == ["cosine", "loss per parameter unit", "ratio of norms"]


@pytest.mark.parametrize("largest", [0.003, 0.13, 0.5, 0.97, 1.0])
def test_diverging_colours_lie_even_around_zero_and_within_the_range_of_a_cosine(largest: float) -> None:
    record = conflict()
    record = replace(record, cosine=np.full_like(record.cosine, -largest) * np.linspace(0, 1, 5))
    (contours,) = of(scenes.conflict_map(record).panels[0], Contours)
    levels = contours.levels
    np.testing.assert_allclose(levels, -levels[::-1], atol=1e-15)
    np.testing.assert_allclose(np.diff(levels), levels[1] - levels[0])
    assert abs(levels).min() < 1e-15, "zero is a level"
    assert largest <= levels[-1] <= 1 + 1e-12
    assert len(contours.colours) == levels.size - 1
    assert contours.bar.range == (levels[0], levels[-1])
    assert min(abs(np.array(contours.bar.ticks))) < 1e-15
    assert "0" in contours.bar.texts


def test_ratios_lie_as_far_to_one_side_of_one_as_to_the_other_and_one_is_a_tick() -> None:
    record = conflict()
    (contours,) = of(scenes.conflict_map(record).panels[2], Contours)
    low, high = contours.bar.range
    assert low == pytest.approx(-high)
    assert high >= np.log10(16)
    assert contours.bar.texts[contours.bar.ticks.index(0.0)] == "1"
    far = scenes.conflict_map(replace(record, ratio=record.ratio * 1e5))
    (contours,) = of(far.panels[2], Contours)
    assert contours.z.max() == 3.0
    assert contours.measured.max() == 16e5
    assert "20 ratios beyond a factor of 1000 drawn as that." in far.caption


def test_zero_ratios_and_their_inverse_are_drawn_and_zero_over_zero_is_not() -> None:
    record = conflict()
    ratio = record.ratio.copy()
    ratio[0, 0, :3] = 0.0, np.inf, np.nan
    (contours,) = of(scenes.conflict_map(replace(record, ratio=ratio)).panels[2], Contours)
    np.testing.assert_array_equal(contours.z[0, :3], [-3, 3, np.nan])


def test_gaps_far_below_the_largest_are_drawn_at_a_bound_and_counted() -> None:
    record = conflict()
    gap = record.gap.copy()
    gap[3] = 0.0, 1e-17, 1e-5, 1e-4, 1e-3
    scene = scenes.conflict_map(replace(record, gap=gap))
    (contours,) = of(scene.panels[1], Contours)
    np.testing.assert_allclose(contours.z[3], [-4, -4, -4, -4, -3])
    np.testing.assert_array_equal(contours.measured, gap)
    assert "3 points below 0.0001 of the largest drawn as that." in scene.caption
    assert "drawn as that" not in scenes.conflict_map(record).caption


def test_a_gap_that_is_zero_everywhere_is_a_scene_too() -> None:
    record = conflict()
    scene = scenes.conflict_map(replace(record, gap=np.zeros_like(record.gap)))
    (contours,) = of(scene.panels[1], Contours)
    np.testing.assert_array_equal(contours.z, 0.0)
    assert contours.levels[0] <= 0 <= contours.levels[-1]


def test_points_at_or_below_their_noise_are_marked() -> None:
    record = conflict()
    norm = record.norm.copy()
    norm[1, 2, 3] = 1.5
    scene = scenes.conflict_map(replace(record, norm=norm))
    # Norms are 1 + x, noise is 1.5: the points at x = 0, and the second task's at (3, 2); gaps of 10^-2 and 10^-3.
    pair = {(0.0, float(j)) for j in range(4)} | {(3.0, 2.0)}
    assert dots(scene.panels[0], "not told from zero") == pair
    assert dots(scene.panels[2], "not told from zero") == pair
    assert dots(scene.panels[1], "not told from zero") == {(float(i), float(j)) for i in range(5) for j in (2, 3)}
    assert dots(scene.panels[0], "not told from zero", style.PAPER) == pair, "a light ground under each"
    assert "the gap at 10 points" in scene.caption
    assert [key.label for key in scene.legend] == ["Pareto set of the grid", "not told from zero"]


def test_the_pareto_set_is_on_every_panel_and_counted() -> None:
    scene = scenes.conflict_map(conflict(("a", "b", "c")))
    for panel in scene.panels:
        assert dots(panel, "Pareto set of the grid") == {(1.0, 0.0), (1.0, 1.0)}
    assert "the grid's Pareto set, 2 points" in scene.caption


def test_the_zero_line_is_where_the_cosine_is_zero() -> None:
    scene = scenes.conflict_map(conflict(("a", "b", "c")))
    for k, panel in enumerate(scene.panels[:3]):
        (line,) = of(panel, Segments)
        pair = ("a and b", "a and c", "b and c").index(panel.title)
        np.testing.assert_allclose([*line.x0, *line.x1], 2 + pair / 5)
        assert {*line.y0, *line.y1} == {0.0, 1.0, 2.0, 3.0}
        assert k + pair == 2, "the pair that conflicts most comes first"


def test_of_many_pairs_those_that_conflict_most_are_shown_and_counted() -> None:
    scene = scenes.conflict_map(conflict(tuple("abcde")))
    titles = [panel.title for panel in scene.panels]
    # The tenth pair has the least cosines.
    assert titles == ["d and e", "c and e", "c and d", "b and e", "b and d", "b and c", "Pareto gap", "d / e", "c / e"]
    assert "Of 10 pairs the 6 whose cosine is least on average over the grid are shown" in scene.caption
    assert "Ratio of the norms (of the first 2 pairs) on a logarithmic scale" in scene.caption
    assert [len(row.panels) for row in scene.rows] == [3, 3, 3]


def test_forty_tasks_are_no_more_panels_than_five() -> None:
    scene = scenes.conflict_map(conflict(tuple(f"t{k}" for k in range(40))))
    assert len(scene.panels) == 9
    assert "Of 780 pairs the 6" in scene.caption


def test_a_pair_without_any_cosine_comes_last() -> None:
    record = conflict(("a", "b", "c"))
    cosine = record.cosine.copy()
    cosine[2] = np.nan
    scene = scenes.conflict_map(replace(record, cosine=cosine))
    assert [panel.title for panel in scene.panels[:3]] == ["a and c", "a and b", "b and c"]
    assert of(scene.panels[2], Segments)[0].x0.size == 0


def test_one_task_has_its_norm_alone() -> None:
    scene = scenes.conflict_map(conflict(("only",)))
    assert [panel.title for panel in scene.panels] == ["gradient of only"]
    assert "Norm of the gradient in loss per parameter unit" in scene.caption
    assert "pair" not in scene.caption
    assert "Dot: the grid point of the least loss." in scene.caption


def test_trajectories_are_drawn_as_over_a_loss_surface() -> None:
    record, shadow = conflict(), records.shadow()
    scene = scenes.conflict_map(record, [shadow], ["independent", "averaged"])
    flat = scenes.surface(records.surface(), [shadow], ["independent", "averaged"])
    for panel in scene.panels[:-1]:
        assert of(panel, Line) == [
            replace(m, hover=n.hover) for m, n in zip(of(flat.panels[0], Line), of(panel, Line), strict=True)
        ]
        np.testing.assert_array_equal(of(panel, Line)[1].x, [3, 1, 0])
    assert scene.panels[-1] == flat.panels[-1], "the strip of the distance off the plane"
    assert scene.legend[: len(flat.legend)] == flat.legend
    assert "1 trajectory, 1 seed; open circles along them have a diameter proportional to the distance off" in (
        scene.caption
    )
    assert "at most 2 parameter units" in scene.caption


def test_the_caption_states_units_noise_examples_and_grid() -> None:
    caption = scenes.conflict_map(conflict()).caption
    assert "over 500 evaluation examples, on a grid of 5 by 4 points of the plane: principal components" in caption
    assert "in loss per parameter unit" in caption
    # noise / norm is 1.5 / (1 + x) over x = 0 to 4: the median is a half.
    assert "Standard error of a gradient, from 8 pieces of the examples: 50.0% of its norm (median)" in caption
    assert "on the shared parameters" in caption
    assert "in parameter units, to equal scale" in caption


def test_what_is_not_known_is_blank_and_counted() -> None:
    done = np.ones((4, 5), bool)
    done[3] = False
    record = conflict(done=done)
    gap = record.gap.copy()
    gap[0, 4] = np.nan
    scene = scenes.conflict_map(replace(record, gap=gap))
    for panel in scene.panels:
        assert np.isnan(of(panel, Contours)[0].z[3]).all()
        assert all(y < 3 for _, y in dots(panel, "not told from zero"))
    assert "5 of 20 grid points not measured. 1 of 20 grid points with a loss or a gradient that is not finite." in (
        scene.caption
    )
    unknown = replace(record, noise=np.full_like(record.noise, np.nan), gap_noise=np.full_like(gap, np.nan))
    scene = scenes.conflict_map(unknown)
    assert "Standard errors are unknown." in scene.caption
    assert "not told from zero" not in [key.label for key in scene.legend]


@pytest.mark.parametrize("suffix", [".png", ".html"])
@pytest.mark.parametrize("tasks", [("only",), ("one", "two"), (records.NASTY, "$2", "%{x}")])
def test_every_kind_of_map_is_drawn(tmp_path, tasks, suffix) -> None:
    done = np.zeros((4, 5), bool)
    for known in (done, ~done):
        figures.draw(scenes.conflict_map(conflict(tasks, done=known)), tmp_path / f"map{suffix}")
        assert (tmp_path / f"map{suffix}").stat().st_size > 1000


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (IEC 61966-2-1)."""
    channels = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_diverging_colours_keep_their_order_in_grey_and_their_sides_in_colour() -> None:
    assert (np.diff([luminance(colour) for colour in style.DIVERGING]) > 0).all()
    red, _, blue = (np.array([int(c[k : k + 2], 16) for c in style.DIVERGING]) for k in (1, 3, 5))
    middle = len(style.DIVERGING) // 2
    assert (red[:middle] > blue[:middle]).all()
    assert red[middle] == blue[middle]
    assert (red[middle + 1 :] < blue[middle + 1 :]).all()
    assert style.shades(13, style.DIVERGING) == style.DIVERGING
    assert style.shades(13) == style.SURFACE


values = st.one_of(st.floats(-3, 3, width=16), st.just(np.nan))


@given(arrays(float, (5, 6), elements=values), st.sampled_from([0.0, 0.3]))
def test_level_lines_are_those_of_contourpy(z, level) -> None:
    """The library that matplotlib draws contours with, whose lines are compared as sets of pieces."""
    x, y = np.array([-2.0, -1, 0.5, 1, 3, 4]), np.array([-1.0, 0, 2, 2.5, 3])
    z = np.where(z == level, level + 0.01, z)  # a corner on the line may have its piece of no length or none
    found = np.stack(level_line(x, y, z, level), -1)
    lines = contourpy.contour_generator(
        x, y, np.ma.masked_invalid(z), name="serial", corner_mask=False, quad_as_tri=False
    ).lines(level)
    expected = [(*line[k], *line[k + 1]) for line in lines for k in range(len(line) - 1)]

    def pieces(rows):
        ends = [sorted([(round(a, 6), round(b, 6)), (round(c, 6), round(d, 6))]) for a, b, c, d in rows]
        return sorted(e for e in ends if e[0] != e[1])

    ours, theirs = pieces(found.tolist()), pieces([[float(v) for v in row] for row in expected])
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-6)


def shape() -> SurfaceShape:
    """Two views: a deep minimum and a shallow one of two; and nothing known."""
    return SurfaceShape(
        views=("depth", "average"),
        minima=np.array([1, 0]),
        convexity=np.array([0.625, np.nan]),
        roughness=np.array([0.0123, np.nan]),
        width=np.array([[1.0, 2.0, np.nan, 4.0], [np.nan] * 4]),
        area=np.array([7.5, np.nan]),
        rise=np.array([0.25, np.nan]),
        of=np.array([0, 0]),
        at=np.array([[0.5, -1.0], [2.0, 3.0]]),
        value=np.array([0.125, 0.5]),
        depth=np.array([2.5, 0.01]),
        noise=np.array([0.12, np.nan]),
        edge=np.array([False, True]),
        scale=np.array([0.1, 0.2]),
    )


def test_the_table_of_a_shape_holds_every_number_with_its_error() -> None:
    found = shape_table(shape(), "principal")
    assert found.title == "Shape of the surface: principal"
    (depth, average) = found.rows
    assert len(depth) == len(average) == len(found.head)
    assert [cell.text for cell in depth] == [
        "depth",
        "1",
        "0.1250",
        "2.50 \u00b1 0.12",
        "0.01000",
        "62.5%",
        "1.2%",
        "1 | 2",
        "\u2013 | 4",
        "7.50",
    ]
    assert depth[1].note == "of 2 found"
    assert depth[2].note == "at (0.500, \u22121)"
    assert depth[7].note == "rise 0.250"
    assert [cell.text for cell in average] == [
        "average",
        "0",
        *["\u2013"] * 5,
        "\u2013 | \u2013",
        "\u2013 | \u2013",
        "\u2013",
    ]
    assert "steps of 0.100 by 0.200 parameter units" in found.note
    assert "may fall further outside" in found.note


def test_scenes_of_conflict_maps_are_pure() -> None:
    assert scenes.conflict_map(conflict()) == scenes.conflict_map(conflict())
