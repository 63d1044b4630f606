"""Scenes of displacement, turning angles and measures along training show the records' own numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.results import Displacements, Movement, WalkNull
from figures import files, marks, scenes
from figures.moves import Moves, move_scenes, together
from tests.figures.records import NASTY, run

MEASURES = ("net", "exponent", "volume")


def displacements(label="averaged", seed=0, exponent=2.0, draws=9):
    lags = np.array([10.0, 20.0, 40.0])
    return Displacements(
        run=run(label, seed),
        subset="shared",
        form="raw",
        unit="parameter",
        lags=lags,
        pairs=np.array([4, 3, 1]),
        msd=(seed + 1) * lags**exponent / 100,
        walk_msd=lags / 10,
        walk_low=0.5 * lags / 10 if draws else np.full(3, np.nan),
        walk_high=2 * lags / 10 if draws else np.full(3, np.nan),
        fit_low=10.0,
        fit_high=20.0,
        exponent=exponent,
        exponent_error=0.1,
        intercept=0.0,
        angle_steps=np.array([10, 20, 30]),
        angles=np.array([5.0, 95.0, np.nan]),
        angle_low=85.0,
        angle_high=95.0,
        steps=np.array([0, 10, 20, 30, 40]),
        squares=np.zeros((5, 5)),
        draws=draws,
        seed=0,
    )


def moved(label="averaged", seed=0):
    steps = np.arange(5) * 10
    values = np.column_stack([steps * (seed + 1.0), np.full(5, 1.5), np.full(5, -3.0)])
    values[0, 1] = np.nan
    return Movement(
        run=run(label, seed),
        subset="shared",
        form="raw",
        measures=MEASURES,
        units=("parameter", "1", "ln (parameter)^2"),
        steps=steps,
        updates=2 * steps,
        gradients=2 * steps,
        seconds=steps / 4,
        movement=steps / 100,
        tasks=("one",),
        losses=np.array([[5.0], [3.0], [4.0], [2.0], [1.0]]),
        values=values,
    )


def walk(label="averaged", seed=0):
    three = np.ones((3, 3))
    return WalkNull(
        run=run(label, seed),
        subset="shared",
        form="raw",
        measures=MEASURES,
        steps=np.array([10, 20, 40]),
        low=1 * three,
        median=2 * three,
        high=3 * three,
        expected=2 * three,
        draws=9,
        dimension=100,
        seed=0,
    )


def of(scene, kind, group="", panel=0):
    return [mark for mark in scene.panels[panel].marks if isinstance(mark, kind) and mark.group == group]


def test_displacement_shows_the_mean_over_seeds_the_walks_and_two_slopes():
    scene = scenes.displacement(
        [displacements(seed=0), displacements(seed=1), displacements("independent", exponent=1.0)]
    )
    lags = np.array([10.0, 20.0, 40.0])
    walks, mean = of(scene, marks.Line, "averaged")
    np.testing.assert_allclose(mean.y, 1.5 * lags**2 / 100)
    np.testing.assert_allclose(walks.y, lags / 10)
    assert walks.look.dash == "dot"
    bands = of(scene, marks.Band, "averaged")
    np.testing.assert_allclose(bands[0].high, 2 * lags / 10)
    one, two = of(scene, marks.Line)
    assert np.diff(np.log(one.y))[0] == pytest.approx(np.log(4))
    assert np.diff(np.log(two.y))[0] == pytest.approx(2 * np.log(4))
    assert (scene.panels[0].x.scale, scene.panels[0].y.scale) == ("log", "log")
    assert [key.label for key in scene.legend] == ["averaged", "independent", "random walk", "slope 1", "slope 2"]
    assert "band from 2.5 to 97.5 % of 9 draws" in scene.caption


def test_exponents_stand_run_by_run_with_their_errors():
    scene = scenes.displacement([displacements(), displacements("independent", exponent=1.0)])
    assert scene.panels[1].y.texts == ("averaged-0", "independent-0")
    (point,) = of(scene, marks.Points, "independent", panel=1)
    (bar,) = of(scene, marks.Segments, "independent", panel=1)
    assert (point.x[0], bar.x0[0], bar.x1[0]) == (1.0, 0.9, 1.1)
    assert [column.name for column in point.hover] == ["run", "exponent", "standard error", "fitted from lag", "to lag"]


def test_without_draws_the_walks_are_expectations():
    scene = scenes.displacement([displacements(draws=0)])
    assert not of(scene, marks.Band, "averaged")
    assert "dimension, on average." in scene.caption


def test_turning_angles_are_shares_of_those_that_are_known():
    scene = scenes.turning([displacements(seed=0), displacements(seed=1)])
    (line,) = of(scene, marks.Line, "averaged")
    assert line.y[1:3].tolist() == [0.5, 0.5]  # 0 to 10 degrees
    assert line.y[19:21].tolist() == [0.5, 0.5]  # 90 to 100
    assert line.y.sum() == pytest.approx(2)
    (null,) = of(scene, marks.Band)
    assert null.x.tolist() == [85.0, 95.0]
    assert "2 angles beside an increment without length left out." in scene.caption


def test_a_measure_is_shown_against_every_budget_and_at_equal_loss():
    scene = scenes.movement([moved(seed=0), moved(seed=1)], [walk(seed=0), walk(seed=1)])
    assert [panel.title for panel in scene.panels] == [
        *(f"at equal {budget}" for budget in ("steps", "updates", "gradients", "seconds", "movement", "loss"))
    ]
    null, mean = of(scene, marks.Line, "averaged", panel=1)
    np.testing.assert_array_equal(mean.x, 2 * 10 * np.arange(5))
    np.testing.assert_array_equal(mean.y, 1.5 * 10 * np.arange(5))
    np.testing.assert_array_equal(null.x, [20, 40, 80])
    np.testing.assert_array_equal(null.y, [2, 2, 2])
    (_, mean) = of(scene, marks.Line, "averaged", panel=5)
    np.testing.assert_array_equal(mean.x, [5, 3, 3, 2, 1])
    low, high = scene.panels[5].x.range
    assert low > 5
    assert high < 1


def test_values_that_are_not_there_at_first_are_left_out():
    scene = scenes.movement([moved()], measure="exponent")
    (line,) = of(scene, marks.Line, "averaged")
    assert line.x.tolist() == [10, 20, 30, 40]
    assert "random walk" not in [key.label for key in scene.legend]


def test_a_measure_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected a measure among net, exponent, volume, got 'ratio'"):
        scenes.movement([moved()], measure="ratio")


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_both_renderers_draw_them(tmp_path, suffix):
    items = [displacements(NASTY), displacements("independent", 1)]
    drawn = {
        "displacement": scenes.displacement(items),
        "turning": scenes.turning(items),
        "movement": scenes.movement([moved(NASTY)], [walk(NASTY)], "volume"),
    }
    for name, scene in drawn.items():
        path = tmp_path / f"{name}{suffix}"
        files.draw(scene, path)
        assert path.stat().st_size > 1000


def test_what_is_of_one_subset_and_form_is_drawn_together_and_what_is_unknown_left_out() -> None:
    shared, head = moved(), replace(moved(), subset="head:one")
    items = together([shared, head, moved(seed=1)], [displacements(seed=1), displacements()], [])
    assert [[item.run.name for item in one.movements] for one in items] == [
        ["averaged-0", "averaged-1"],
        ["averaged-0"],
    ]
    assert [len(one.displacements) for one in items] == [2, 0]
    assert list(move_scenes(items[0])) == ["net", "displacement", "turning"], "of the measures that these runs have"
    assert list(move_scenes(items[1])) == ["net"]
    nothing = replace(head, values=np.full_like(head.values, np.nan))
    assert move_scenes(Moves((nothing,))) == {}
    assert move_scenes(items[0])["net"] == scenes.movement([moved(), moved(seed=1)], (), "net")
