"""Scenes hold the numbers of the records, and captions say what was done to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.results import BUDGETS
from figures import scenes, style
from figures.marks import Band, Cells, Contours, Line, Mark, Panel, Path, Points, Relief, Segments
from figures.scenes.learning import running_median, window
from figures.scenes.scales import even_levels, round_values, scale_of
from tests.figures import records


def of(panel: Panel, kind: type[Mark]) -> list[Mark]:
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def test_contours_hold_the_loss_at_y_x() -> None:
    panels = scenes.surface(records.surface()).panels
    assert [panel.title for panel in panels] == ["one", "two", "average of 2 tasks"]
    for task, panel in enumerate(panels[:2]):
        (contours,) = of(panel, Contours)
        assert contours.measured.shape == (3, 4)
        assert contours.measured[2, 1] == (task + 1) * (1 + 1 + 20)
        np.testing.assert_allclose(10**contours.z, contours.measured)


def test_the_average_is_recomposed_from_the_tasks() -> None:
    (contours,) = of(scenes.surface(records.surface()).panels[2], Contours)
    assert contours.measured[1, 3] == 1.5 * (1 + 3 + 10)


def test_one_task_has_no_average() -> None:
    assert [p.title for p in scenes.surface(records.surface(("only",))).panels] == ["only"]


def test_levels_are_even_and_enclose_all_values() -> None:
    for panel in scenes.surface(records.surface()).panels:
        (contours,) = of(panel, Contours)
        gaps = np.diff(contours.levels)
        np.testing.assert_allclose(gaps, gaps[0])
        assert contours.levels[0] <= contours.z.min()
        assert contours.z.max() <= contours.levels[-1]
        assert len(contours.colours) == contours.levels.size - 1
        assert contours.bar.range == (contours.levels[0], contours.levels[-1])


def test_losses_with_a_small_range_have_linear_levels() -> None:
    surface = records.surface()
    shifted = replace(surface, loss=surface.loss + 100)
    scene = scenes.surface(shifted)
    (contours,) = of(scene.panels[0], Contours)
    np.testing.assert_array_equal(contours.z, shifted.loss[0])
    assert "evenly spaced in the loss." in scene.caption
    assert "evenly spaced in log10 of the loss." in scenes.surface(surface).caption


def test_a_loss_that_is_not_positive_is_never_drawn_on_a_logarithmic_scale() -> None:
    surface = records.surface()
    (contours,) = of(scenes.surface(replace(surface, loss=surface.loss - 1)).panels[0], Contours)
    assert contours.z[0, 0] == 0.0


def test_blank_points_are_not_painted_and_counted() -> None:
    done = np.ones((3, 4), bool)
    done[2, 3] = done[0, 1] = False
    surface = records.surface(done=done)
    loss = surface.loss.copy()
    loss[0, 1, 1] = np.inf
    loss[:, 2, 3] = 5.0
    scene = scenes.surface(replace(surface, loss=loss))
    one, two, average = (of(panel, Contours)[0] for panel in scene.panels)
    assert np.isnan(one.z[2, 3])
    assert np.isnan(one.z[0, 1])
    assert np.isnan(one.z[1, 1])
    assert np.isfinite(two.z[1, 1])
    assert np.isnan(average.z[1, 1])
    assert "2 of 12 grid points not measured. 1 of 12 grid points with a loss that is not finite." in scene.caption


def test_a_surface_without_any_value_is_a_scene_too() -> None:
    scene = scenes.surface(records.surface(done=np.zeros((3, 4), bool)))
    assert all(of(panel, Contours)[0].levels.size == 0 for panel in scene.panels)


def test_trajectories_lie_at_their_coordinates_and_off_the_plane() -> None:
    scene = scenes.surface(records.surface(), [records.shadow()])
    casing, line = of(scene.panels[0], Line)
    np.testing.assert_array_equal(line.x, [3, 1, 0])
    np.testing.assert_array_equal(line.y, [2, 1, 0])
    np.testing.assert_array_equal(casing.x, line.x)
    circles = of(scene.panels[0], Points)[0]
    np.testing.assert_allclose(circles.size, [0, 4, 8])
    strip = scene.panels[-1]
    assert strip.title == "distance off the plane"
    np.testing.assert_array_equal(of(strip, Line)[0].y, [0, 1, 2])
    assert "at most 2 parameter units" in scene.caption
    assert "off the plane by 100% of their distance from its origin" in scene.caption


def test_axes_reach_as_far_as_trajectories() -> None:
    shadow = records.shadow()
    far = replace(shadow, coordinates=shadow.coordinates * 2)
    x, y = (getattr(scenes.surface(records.surface(), [far]).panels[0], name) for name in "xy")
    assert x.range[0] == 0.0
    assert x.range[1] > 6.0
    assert y.range[1] > 4.0


def test_axes_name_the_explained_share() -> None:
    panel = scenes.surface(records.surface()).panels[0]
    assert (panel.x.label, panel.y.label) == ("PC 1 (71.0% of variance)", "PC 2 (18.0% of variance)")


@pytest.mark.parametrize(
    ("gram", "aspect", "words"),
    [
        (np.eye(2), 1.0, "in parameter units, to equal scale"),
        (4 * np.eye(2), 1.0, "multiples of 2 parameter units"),
        (np.diag([1.0, 9.0]), 3.0, "not orthonormal: one unit is 1 parameter units along x and 3 along y"),
        (np.array([[1.0, 0.5], [0.5, 1.0]]), None, "not orthonormal (lengths 1 and 1 parameter units, angle 60.0"),
    ],
)
def test_aspect_follows_the_gram_matrix(gram: np.ndarray, aspect: float | None, words: str) -> None:
    scene = scenes.surface(records.surface(gram=gram))
    assert scene.panels[0].aspect == (aspect if aspect is None else pytest.approx(aspect))
    assert words in scene.caption


def test_relief_draws_trajectories_at_their_true_losses() -> None:
    scene = scenes.surface_relief(records.surface(), [records.shadow()])
    path = of(scene.panels[1], Path)[0]
    np.testing.assert_allclose(10**path.z, [20, 10, 4])
    (relief,) = of(scene.panels[1], Relief)
    assert relief.measured[1, 2] == 2 * 13
    assert relief.bar.range[0] <= path.z.min()
    assert path.z.max() <= relief.bar.range[1]
    assert "true losses" in scene.caption


def test_a_trajectory_of_other_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected losses of one, two along averaged-0, got only depth"):
        scenes.surface(records.surface(), [records.shadow(tasks=("depth",))])


def test_strategies_look_the_same_in_every_figure() -> None:
    runs = [records.exploration(label) for label in ("b", "a", "b")]
    first = scenes.exploration(runs).legend
    assert [(key.label, key.look.colour) for key in first] == [("b", style.COLOURS[0]), ("a", style.COLOURS[1])]
    ordered = scenes.exploration(runs[1:2], order=("b", "a")).legend
    assert ordered[0].look == first[1].look


def test_strategies_differ_in_dash_and_marker() -> None:
    looks = list(style.looks("abcde").values())
    assert len({look.dash for look in looks}) == len({look.marker for look in looks}) == 5
    assert len({(k.colour, k.dash, k.marker) for k in style.looks(map(str, range(35))).values()}) == 35


def test_exploration_is_the_mean_over_seeds_with_the_range() -> None:
    seeds = [records.exploration(seed=0), records.exploration(seed=1, net=np.array([0.0, 3.0, 4.0]))]
    scene = scenes.exploration(seeds)
    assert [panel.title for panel in scene.panels] == [f"at equal {budget}" for budget in BUDGETS]
    for panel in scene.panels:
        (band,), (line,) = of(panel, Band), of(panel, Line)
        np.testing.assert_array_equal(line.y, [0, 2, 3])
        np.testing.assert_array_equal(band.low, [0, 1, 2])
        np.testing.assert_array_equal(band.high, [0, 3, 4])
    assert "means over seeds, bands reach from the least to the largest seed" in scene.caption
    assert "2 seeds" in scene.caption
    assert "interpolated" not in scene.caption


def test_seeds_are_interpolated_inside_the_range_they_share() -> None:
    scene = scenes.exploration([records.exploration(seed=0), records.exploration(seed=1, updates=2)])
    (line,) = of(scene.panels[BUDGETS.index("updates")], Line)
    assert (line.x[0], line.x[-1]) == (0.0, 20.0)
    assert line.y[-1] == pytest.approx((2.0 + 1.0) / 2)
    assert "interpolated linearly onto a common grid inside the range that they share" in scene.caption


def test_one_seed_has_no_band() -> None:
    scene = scenes.exploration([records.exploration()])
    assert not any(of(panel, Band) for panel in scene.panels)
    assert "One seed: no band." in scene.caption


def test_the_ratio_has_a_gap_at_the_start() -> None:
    (line,) = of(scenes.exploration([records.exploration()], "ratio").panels[0], Line)
    np.testing.assert_array_equal(line.y, [np.nan, 2, 2])


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a measure among net, path_steps, path_updates, ratio, got 'speed'"):
        scenes.exploration([records.exploration()], "speed")


def test_eigenvalues_carry_their_residuals_and_hollow_ones_are_counted() -> None:
    scene = scenes.eigenvalues([records.history()])
    assert [panel.title for panel in scene.panels] == ["one", "two", "average of the tasks"]
    panel = scene.panels[1]
    assert panel.y.scale == "log"
    (bars,) = of(panel, Segments)
    np.testing.assert_allclose(bars.y0, [99, 9.9, 0.99])
    np.testing.assert_allclose(bars.y1, [101, 10.1, 1.01])
    solid, hollow = of(scene.panels[0], Points)
    np.testing.assert_array_equal(hollow.x, [20])
    assert hollow.look.fill == style.PAPER
    assert solid.look.fill == ""
    assert "Hollow: 1 value that did not converge." in scene.caption
    assert "1 bar that would reach zero or less" in scene.caption


def test_negative_eigenvalues_have_a_linear_axis() -> None:
    scene = scenes.eigenvalues([records.history(sign=-1.0)])
    assert {panel.y.scale for panel in scene.panels} == {"linear"}
    assert "Logarithmic" not in scene.caption


def test_several_pairs_are_drawn_on_request() -> None:
    assert len(of(scenes.eigenvalues([records.history()], pairs=2).panels[1], Line)) == 2


def test_training_means_and_running_median() -> None:
    scene = scenes.training([records.training(seed=0), records.training(seed=1, shift=1.0)])
    assert [panel.title for panel in scene.panels] == ["one", "two", "one.accuracy", "two.accuracy"]
    faint, mean = of(scene.panels[1], Line)
    np.testing.assert_allclose(mean.y, [7, 5, 3])
    assert faint.look.opacity < 1
    assert faint.x.size == 100
    np.testing.assert_allclose(of(scene.panels[2], Line)[0].y, [0.15, 0.55, 0.85])
    assert "running median over 3 steps" in scene.caption


def test_running_median_by_hand() -> None:
    np.testing.assert_array_equal(running_median(np.array([5.0, 1.0, np.nan, 2.0, 9.0]), 3), [3.0, 3.0, 1.5, 5.5, 5.5])
    assert [window(n) for n in (0, 99, 100, 2000)] == [1, 1, 3, 41]


def test_a_loss_that_is_not_finite_leaves_a_gap_and_is_counted() -> None:
    run = records.training()
    losses = run.losses.copy()
    losses[1, 0] = np.nan
    scene = scenes.training([replace(run, losses=losses)])
    assert np.isnan(of(scene.panels[0], Line)[1].y[1])
    assert "1 value of the evaluation losses not finite and left out." in scene.caption


def test_rates_that_diverged_stand_at_the_top_edge() -> None:
    scene = scenes.rate_search([records.search()])
    (panel,) = scene.panels
    points, ring, diverged = of(panel, Points)
    np.testing.assert_array_equal(points.x, [1e-3, 1e-2, 1e-1])
    np.testing.assert_array_equal((ring.x[0], ring.y[0]), (1e-2, 0.5))
    np.testing.assert_array_equal((diverged.x[0], diverged.y[0]), (1.0, panel.y.range[1]))
    assert panel.x.scale == "log"
    assert "1 rate diverged" in scene.caption


def test_a_search_where_everything_diverged_is_drawn() -> None:
    search = replace(records.search(), losses=np.full(4, np.inf))
    points, ring, diverged = of(scenes.rate_search([search]).panels[0], Points)
    assert (points.x.size, ring.x.size, diverged.x.size) == (0, 0, 4)


def test_a_search_that_is_not_finished_shows_what_was_tried_and_chooses_nothing() -> None:
    done = np.array([True, False, True, True])
    losses = np.where(done, records.search().losses, np.nan)
    search = replace(records.search(), losses=losses, done=done, chosen=np.nan)
    scene = scenes.rate_search([search])
    (panel,) = scene.panels
    points, ring, diverged = of(panel, Points)
    np.testing.assert_array_equal(points.x, [1e-3, 1e-1])
    assert ring.x.size == 0
    np.testing.assert_array_equal(diverged.x, [1.0])
    np.testing.assert_array_equal(of(panel, Line)[0].x, [1e-3, 1e-1, 1.0])
    assert "Not finished, nothing is chosen yet: averaged, 3 of 4 rates tried." in scene.caption
    assert "1 rate diverged" in scene.caption
    assert "Not finished" not in scenes.rate_search([records.search()]).caption


def test_comparisons_are_filled_only_where_the_interval_excludes_zero() -> None:
    wide = records.comparison()
    open_ = records.comparison(budget="updates", interval=(-1.0, 1.0), verdict="undecided")
    few = records.comparison(budget="movement", interval=(np.nan, np.nan), verdict="too few seeds")
    scene = scenes.comparisons([wide, open_, few])
    (panel,) = scene.panels
    points = of(panel, Points)
    assert [p.look.fill for p in points] == ["", style.PAPER, style.PAPER]
    assert [float(p.x[0]) for p in points] == [1.0, 0.0, 1.0]
    _, *bars = of(panel, Segments)
    assert [(float(b.x0[0]), float(b.x1[0])) for b in bars] == [(0.5, 1.5), (-1.0, 1.0)]
    assert panel.y.texts[1] == "independent \u2212 averaged, equal updates"
    assert "1 difference without an interval: too few seeds." in scene.caption


def test_matrix_cells_hold_the_distances() -> None:
    (cells,) = of(scenes.distance_matrix(records.distances()).panels[0], Cells)
    assert cells.z[0, 2] == 3.5
    assert cells.texts[2] == ("3.5", "1.75", "0")
    assert scenes.distance_matrix(records.distances()).panels[0].aspect == 1.0


def test_large_matrices_have_no_texts() -> None:
    assert of(scenes.distance_matrix(records.distances(12)).panels[0], Cells)[0].texts
    assert not of(scenes.distance_matrix(records.distances(13)).panels[0], Cells)[0].texts


def test_scenes_are_pure() -> None:
    assert scenes.surface(records.surface(), [records.shadow()]) == scenes.surface(
        records.surface(), [records.shadow()]
    )
    assert scenes.surface(records.surface()) != scenes.surface(records.surface(nx=5))


def test_marks_refuse_arrays_that_disagree() -> None:
    with pytest.raises(ValueError, match="has 2 entries along 'point', others have 3"):
        Line(np.zeros(3), np.zeros(2), style.NEUTRAL)


def test_scales_by_hand() -> None:
    assert scale_of(np.array([1.0, 20.0, np.nan])) == "log"
    assert scale_of(np.array([1.0, 19.0])) == scale_of(np.array([0.0, 100.0])) == scale_of(np.empty(0)) == "linear"
    np.testing.assert_allclose(even_levels(0.0, 16.0), np.arange(17))
    assert even_levels(3.0, 3.0).size >= 2
    np.testing.assert_allclose(round_values(0.09, 12), [0.1, 1, 10])
    np.testing.assert_allclose(round_values(0.9, 12), [1, 3, 10])
