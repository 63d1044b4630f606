"""Scenes of interpolated surfaces and of ensembles: their numbers, their dots, and what their captions say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.results import Interpolation, ProfileEnsemble, SurfaceEnsemble
from figures import interactive, scenes, static, style
from figures.marks import Band, Contours, Line, Panel, Points, Scene
from tests.figures import records


def interpolation(tasks: tuple[str, ...] = ("one", "two"), **changes) -> Interpolation:
    """3 by 4 points: the first column and (2, 3) used, two held out; the fit is a hundredth above the loss."""
    used = np.zeros((3, 4), bool)
    used[:, 0] = used[2, 3] = True
    held_out = np.zeros((3, 4), bool)
    held_out[0, 2] = held_out[1, 1] = True
    whole = records.surface(tasks)
    values = {
        "tasks": tasks,
        "x": whole.x,
        "y": whole.y,
        "loss": np.where(used, whole.loss, whole.loss + 0.01),
        "used": used,
        "held_out": held_out,
        "error": np.full(len(tasks), 0.01),
        "error_share": np.linspace(0.004, 0.002, len(tasks)),
        "average_error": 0.02,
        "average_error_share": 0.003,
        "logarithmic": np.arange(len(tasks)) == 0,
        "tolerance": 0.01,
        "budget": 0.5,
        "seed": 0,
        "coverage": 0.95,
        "confidence": 0.955,
        "exceptions": 0,
        "checks": 1,
        "reached": True,
        "finished": True,
        "surface": records.surface(tasks, done=used | held_out),
    }
    return Interpolation(**{**values, **changes})


def ensemble(kind=SurfaceEnsemble, factor: float = 4.0, seeds=(3, 1, 4), tasks=("one", "two", "average"), **changes):
    """View v's median is (v + 1) (1 + x + 10 y); the quantiles are half and twice that for the factor 4."""
    x, y = np.arange(4.0), np.arange(3.0)
    plane = 1 + x + (10 * y[:, None] if kind is SurfaceEnsemble else 0)
    median = np.stack([(v + 1) * plane for v in range(len(tasks))])
    values = {
        "tasks": tasks,
        "x": x,
        **({"y": y} if kind is SurfaceEnsemble else {}),
        "median": median,
        "low": median / factor**0.5,
        "high": median * factor**0.5,
        "quantiles": np.array([0.1, 0.9]),
        "seeds": np.array(seeds),
        "recipe": "random filter-normalised plane through step 20 of averaged-0",
        "examples": 500,
        "data": "data",
        "split": "evaluation",
    }
    return kind(**{**values, **changes})


def of(panel: Panel, kind: type) -> list:
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def test_contours_are_the_fit_and_the_average_is_the_fits() -> None:
    record = interpolation()
    panels = scenes.interpolation(record).panels
    assert [panel.title for panel in panels] == ["one", "two", "average of 2 tasks"]
    for loss, panel in zip([*record.loss, record.loss.mean(0)], panels, strict=True):
        (contours,) = of(panel, Contours)
        np.testing.assert_array_equal(contours.measured, loss)
        np.testing.assert_allclose(10**contours.z, loss)


def test_dots_are_the_points_measured_with_their_measured_losses() -> None:
    record = interpolation()
    for k, panel in enumerate(scenes.interpolation(record).panels):
        used, held = of(panel, Points)
        assert sorted(zip(used.x, used.y, strict=True)) == [(0, 0), (0, 1), (0, 2), (3, 2)]
        assert sorted(zip(held.x, held.y, strict=True)) == [(1, 1), (2, 0)]
        for dots in (used, held):
            measured = dots.hover[2]
            assert measured.name == f"measured loss, {panel.title}"
            np.testing.assert_array_equal(measured.values, (k + 1 if k < 2 else 1.5) * (1 + dots.x + 10 * dots.y))
        assert used.look.fill == style.INK
        assert held.look.fill == style.PAPER


def test_dots_lie_between_the_contours_and_the_trajectories() -> None:
    scene = scenes.interpolation(interpolation(), [records.shadow()])
    kinds = [type(mark).__name__ for mark in scene.panels[0].marks]
    assert kinds[:4] == ["Contours", "Points", "Points", "Line"]
    assert [key.label for key in scene.legend][:3] == [
        "measured, used for the fit",
        "measured, held out",
        "averaged",
    ]
    assert scene.panels[-1].title == "distance off the plane"
    assert not of(scene.panels[-1], Points)


def test_the_caption_says_what_was_measured_and_how_far_the_fit_is_off() -> None:
    caption = scenes.interpolation(interpolation()).caption
    assert (
        "Interpolated from 4 of 12 grid points (dots), in the logarithm of the loss for one; with 2 held out" in caption
    )
    assert "50.0% of the points were measured." in caption
    assert "one 0.01 (0.40% of the range); two 0.01 (0.20% of the range); average 0.02 (0.30% of the range)." in caption
    assert "With 95.5% confidence it is at most 0.40% in every panel at 95% or more of the points not used." in caption
    assert "The tolerance of 1.00% was reached." in caption
    assert "500 evaluation examples" in caption
    assert "not measured" not in caption


def test_the_caption_says_what_was_not_reached() -> None:
    missed = interpolation(reached=False, average_error_share=0.03, exceptions=2)
    caption = scenes.interpolation(missed).caption
    assert "it is at most 3.00% in every panel" in caption
    assert "The tolerance of 1.00% was NOT reached with a budget of 50% of the points." in caption
    assert "2 points held out where the loss is finite and no fit is, or the reverse." in caption
    assert "NOT reached yet." in scenes.interpolation(replace(missed, finished=False)).caption


def test_before_its_check_a_surface_has_no_error_and_no_circles() -> None:
    record = interpolation()
    whole = records.surface(("one", "two"), done=record.used)
    unchecked = replace(record, surface=whole, error=np.full(2, np.nan), error_share=np.full(2, np.nan), checks=0)
    scene = scenes.interpolation(unchecked)
    assert "The error is not known yet: the points held out are measured last." in scene.caption
    assert "nan" not in scene.caption
    assert of(scene.panels[0], Points)[1].x.size == 0


def test_one_task_has_one_panel_and_one_error() -> None:
    scene = scenes.interpolation(interpolation(("only",)))
    assert [panel.title for panel in scene.panels] == ["only"]
    assert "average" not in scene.caption


def test_where_there_is_no_fit_nothing_is_painted() -> None:
    record = interpolation()
    loss = record.loss.copy()
    loss[0, 1, 2:] = np.nan
    scene = scenes.interpolation(replace(record, loss=loss))
    (contours,) = of(scene.panels[0], Contours)
    np.testing.assert_array_equal(np.argwhere(np.isnan(contours.z)), [[1, 2], [1, 3]])
    assert "Blank: 2 points next to measured losses that are not finite." in scene.caption


def test_an_ensemble_has_a_row_of_median_and_spread_for_every_view() -> None:
    record = ensemble()
    scene = scenes.surface_ensemble(record)
    assert [[panel.title for panel in row.panels] for row in scene.rows] == [
        ["one: median", "one: spread"],
        ["two: median", "two: spread"],
        ["average of 2 tasks: median", "average of 2 tasks: spread"],
    ]
    for k, row in enumerate(scene.rows):
        (median,), (spread,) = (of(panel, Contours) for panel in row.panels)
        np.testing.assert_array_equal(median.measured, record.median[k])
        np.testing.assert_allclose(10**median.z, record.median[k])
        np.testing.assert_allclose(spread.measured, 4.0)
        assert spread.bar.label == "90% quantile / 10% quantile"
        assert median.measured.shape == (3, 4)
    assert "the 90% quantile divided by the 10% quantile" in scene.caption
    assert "over 3 planes drawn by seeds 3, 1 and 4: random filter-normalised plane through step 20" in scene.caption


def test_the_spread_of_small_ranges_is_a_difference() -> None:
    record = ensemble()
    flat = replace(record, median=record.median + 100, low=record.median + 99, high=record.median + 102)
    scene = scenes.surface_ensemble(flat)
    (spread,) = of(scene.panels[1], Contours)
    np.testing.assert_allclose(spread.measured, 3.0)
    assert spread.bar.label == "90% − 10% quantile of the loss"
    assert "the 90% quantile minus the 10% quantile" in scene.caption


def test_many_seeds_are_told_by_their_ends() -> None:
    caption = scenes.surface_ensemble(ensemble(seeds=range(5, 17))).caption
    assert "over 12 planes drawn by 12 seeds from 5 to 16:" in caption


def test_lines_have_their_median_and_a_band_between_the_quantiles() -> None:
    record = ensemble(ProfileEnsemble, factor=100.0)
    scene = scenes.profile_ensemble(record)
    assert [panel.title for panel in scene.panels] == ["one", "two", "average of 2 tasks"]
    for k, panel in enumerate(scene.panels):
        (band,), (line,) = of(panel, Band), of(panel, Line)
        np.testing.assert_array_equal(line.y, record.median[k])
        np.testing.assert_array_equal(band.low, record.low[k])
        np.testing.assert_array_equal(band.high, record.high[k])
        assert panel.y.scale == "log"
    assert "Line: median. Band: from the 10% to the 90% quantile." in scene.caption
    assert scenes.profile_ensemble(ensemble(ProfileEnsemble)).panels[0].y.scale == "linear"


@pytest.mark.parametrize("kind", [SurfaceEnsemble, ProfileEnsemble])
def test_points_that_a_draw_lacks_are_counted(kind) -> None:
    record = ensemble(kind)
    high = record.high.copy()
    high[1, ..., 2] = np.nan
    draw = scenes.surface_ensemble if kind is SurfaceEnsemble else scenes.profile_ensemble
    missing = (3, 12) if kind is SurfaceEnsemble else (1, 4)
    words = "{} of {} points where a draw is not measured or not finite."
    assert words.format(*missing) in draw(replace(record, high=high)).caption
    assert "not finite" not in draw(record).caption


SCENES = {
    "interpolation": lambda: scenes.interpolation(interpolation(), [records.shadow()]),
    "nasty names": lambda: scenes.interpolation(interpolation((records.NASTY, "_two"))),
    "surfaces": lambda: scenes.surface_ensemble(ensemble()),
    "nothing finite": lambda: scenes.surface_ensemble(
        ensemble(median=np.full((3, 3, 4), np.nan), low=np.full((3, 3, 4), np.nan), high=np.full((3, 3, 4), np.nan))
    ),
    "lines": lambda: scenes.profile_ensemble(ensemble(ProfileEnsemble)),
    "one task": lambda: scenes.profile_ensemble(ensemble(ProfileEnsemble, tasks=("only",))),
}


@pytest.mark.parametrize("name", SCENES)
def test_both_renderers_draw_every_scene(name: str) -> None:
    scene: Scene = SCENES[name]()
    assert static.render(scene, ".png", dpi=40).startswith(b"\x89PNG")
    shown = interactive.figure(scene)
    for panel in scene.panels:
        for mark in of(panel, Points):
            assert any(
                np.array_equal(t.x, mark.x) and np.array_equal(t.y, mark.y) for t in shown.data if t.x is not None
            )
        for mark in of(panel, Contours):
            if mark.levels.size:
                assert any(np.array_equal(t.z, mark.z, equal_nan=True) for t in shown.data if t.type == "contour")
