"""Scenes of lines, of what conditions change, and of what is told from the centre: their numbers, masks and words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.results import Line as Straight
from analysis.results import Profile
from figures import scenes
from figures.marks import Band, Contours, Line, Points
from tests.figures import records
from tests.figures.records import shadow, surface


def line() -> Straight:
    return Straight(
        origin=np.zeros(2),
        basis=np.array([[1.0, 1.0]]),
        gram=np.array([[2.0]]),
        buffers=np.empty(0),
        recipe="line from here to there",
        axes=("from here (0) to there (1)",),
        seed=-1,
        layout="layout",
    )


def profile(split: str = "evaluation", scale: float = 1.0, **changes) -> Profile:
    x = np.array([-0.5, 0.0, 0.5, 1.0])
    loss = scale * np.array([[2.0, 1.0, 2.0, 5.0], [8.0, 4.0, 2.0, 1.0]])
    values = {
        "tasks": ("one", "two"),
        "metrics": ("one.accuracy",),
        "x": x,
        "loss": loss,
        "stderr": 0.1 * loss,
        "difference_stderr": 0.1 * loss,
        "average_stderr": np.full(4, 0.25),
        "average_difference_stderr": np.full(4, 0.25),
        "scores": np.array([[0.5, 0.9, 0.8, 0.6]]),
        "score_stderr": np.full((1, 4), 0.05),
        "done": np.ones(4, bool),
        "line": line(),
        "examples": 100,
        "data": "data",
        "split": split,
        "batch_norm": "none",
        "heads": "as the plane's",
        "engine": "Sequential(micro_batch=128)",
    }
    return Profile(**{**values, **changes})


def of_kind(panel, kind):
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def test_a_line_has_a_panel_a_task_one_for_the_average_and_one_a_metric():
    scene = scenes.profile([profile()])
    assert [panel.title for panel in scene.panels] == ["one", "two", "average of 2 tasks", "one.accuracy"]
    assert all(panel.x.label == "from here (0) to there (1)" for panel in scene.panels)
    lines = [of_kind(panel, Line)[0] for panel in scene.panels]
    np.testing.assert_array_equal(lines[0].y, [2, 1, 2, 5])
    np.testing.assert_array_equal(lines[2].y, [5, 2.5, 2, 3])
    np.testing.assert_array_equal(lines[3].y, [0.5, 0.9, 0.8, 0.6])
    bands = [of_kind(panel, Band)[0] for panel in scene.panels]
    np.testing.assert_allclose(bands[0].high - bands[0].low, 2 * 1.96 * 0.1 * lines[0].y)
    np.testing.assert_allclose(bands[2].high - lines[2].y, 1.96 * 0.25)
    assert "95 % intervals over examples" in scene.caption
    assert "evaluation: 100 examples" in scene.caption
    assert not scene.legend


def test_other_data_is_drawn_over_the_first_and_told_apart():
    scene = scenes.profile([profile(), profile("training", 0.5)])
    assert [key.label for key in scene.legend] == ["evaluation", "training"]
    first, second = of_kind(scene.panels[0], Line)
    np.testing.assert_array_equal(second.y, 0.5 * first.y)
    assert first.look.dash != second.look.dash


def test_a_lower_bound_below_zero_is_not_drawn_where_losses_are_positive():
    wide = profile(stderr=np.full((2, 4), 10.0))
    (band,) = of_kind(scenes.profile([wide]).panels[0], Band)
    np.testing.assert_array_equal(band.low, [2, 1, 2, 5])


def test_points_that_are_not_finite_or_not_measured_are_counted():
    broken = np.array([[np.nan, 1.0, np.inf, 5.0], [8.0, 4.0, 2.0, 1.0]])
    done = np.array([False, True, True, True])
    caption = scenes.profile([profile(loss=broken, done=done)]).caption
    assert "1 point with a loss that is not finite, left blank." in caption
    assert "1 point not measured." in caption


def test_what_is_not_told_from_the_centre_is_blank_and_nothing_else():
    record = surface()  # task one: 1 + x + 10 y, its centre at the first point
    record = replace(record, difference_stderr=np.full(record.loss.shape, 1.0))
    scene = scenes.significant(record, [shadow()])
    (drawn,) = of_kind(scene.panels[0], Contours)
    difference = record.loss[0] - record.loss[0, 0, 0]
    np.testing.assert_array_equal(np.isnan(drawn.z), (difference <= 1.96) & (difference > 0))
    assert np.isfinite(drawn.z[0, 0]), "the centre itself"
    (plain,) = of_kind(scenes.surface(record, [shadow()]).panels[0], Contours)
    kept = np.isfinite(drawn.z)
    np.testing.assert_array_equal(drawn.z[kept], plain.z[kept])
    np.testing.assert_array_equal(drawn.levels, plain.levels)
    assert scene.caption.startswith("Blank where the loss differs from the centre's by less than 1.96 standard errors")


def test_an_unknown_error_blanks_nothing():
    record = surface()
    record = replace(
        record,
        difference_stderr=np.full(record.loss.shape, np.nan),
        average_difference_stderr=np.full(record.done.shape, np.nan),
    )
    for panel in scenes.significant(record).panels:
        assert np.isfinite(of_kind(panel, Contours)[0].z).all()


def test_other_conditions_are_drawn_as_a_difference_around_zero():
    one = surface()
    other = replace(one, loss=one.loss + np.array([1.0, -2.0])[:, None, None], split="training", examples=50)
    scene = scenes.difference(one, other)
    for panel, change in zip(scene.panels, (1.0, -2.0, -0.5), strict=True):
        (drawn,) = of_kind(panel, Contours)
        np.testing.assert_allclose(drawn.z, change)
        np.testing.assert_allclose(drawn.levels, -drawn.levels[::-1], atol=1e-12)
        assert len(drawn.colours) % 2 == 0, "zero lies between two colours"
    assert "training data, 50 examples" in scene.caption
    assert "Largest change: one 1 of a range of 23" in scene.caption


def test_losses_over_decades_are_compared_by_their_ratio():
    one = surface(nx=6)
    one = replace(one, loss=10.0 ** (one.loss / 10))
    other = replace(one, loss=100 * one.loss, batch_norm="estimated again")
    scene = scenes.difference(one, other)
    (drawn,) = of_kind(scene.panels[0], Contours)
    np.testing.assert_allclose(drawn.z, 2.0)
    assert "Log10 of the loss with normalisation statistics estimated again" in scene.caption


def test_surfaces_of_different_grids_are_not_compared():
    with pytest.raises(ValueError, match="two surfaces of one plane and grid, got different ones"):
        scenes.difference(surface(), surface(nx=5))


REFITTED = "fitted again at each point, 20 iterations on 512 training examples"
ESTIMATED = "estimated again at each point, from 64 training examples, 32 at a time at most"


BFLOAT16 = "Computed in bfloat16, whose rounding standard errors leave out."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Loss over 500 evaluation examples on a grid of 4 by 3 points of the plane: "),
        ({"split": "training"}, "Loss over 500 training examples on a grid "),
        ({"batch_norm": "frozen"}, "Normalisation statistics of the plane's origin."),
        ({"batch_norm": ESTIMATED}, f"Normalisation statistics {ESTIMATED}."),
        ({"heads": REFITTED}, f"Parameters outside the subset: as at the centre, and of them heads {REFITTED}."),
        ({"engine": "Compiled(inner=Bfloat16(inner=Sequential(micro_batch=8)))"}, BFLOAT16),
    ],
    ids=str,
)
def test_a_caption_says_under_which_conditions_losses_were_measured(changes, words):
    surface = replace(records.surface(), **changes)
    drawn = [scenes.surface, scenes.surface_relief, *([] if words == BFLOAT16 else [scenes.significant])]
    for draw in drawn:
        assert words in draw(surface).caption
    if changes and "split" not in changes:
        assert words not in scenes.surface(records.surface()).caption
        assert words in scenes.profile([profile(**changes)]).caption


def test_losses_in_bfloat16_are_not_told_from_the_centres():
    surface = replace(records.surface(), engine="Bfloat16(inner=Sequential(micro_batch=8))")
    with pytest.raises(ValueError, match="got a surface in bfloat16, whose rounding is in no standard error"):
        scenes.significant(surface)


def test_a_snapshot_that_is_not_finite_has_no_circle():
    broken = replace(records.shadow(), off_plane=np.array([0.0, np.nan, 2.0]))
    points = of_kind(scenes.surface(records.surface(), [broken]).panels[0], Points)
    assert all(np.isfinite(mark.size).all() for mark in points)
    assert sum(mark.size.size for mark in points) == 4  # two circles, a start and an end


def test_a_caption_says_what_the_parameters_outside_a_subset_do():
    surface = records.surface()
    for heads, words in (("centre", "as at the centre"), ("interpolated", "interpolated")):
        part = replace(surface, plane=replace(surface.plane, subset="shared", heads=heads))
        assert f"Parameters outside the subset: {words}." in scenes.surface(part).caption
    assert "outside the subset" not in scenes.surface(surface).caption


def test_lines_under_several_conditions_say_which_has_which_and_common_ones_once():
    both = scenes.profile([profile(batch_norm="frozen"), profile("training", batch_norm="frozen")]).caption
    assert both.count("Normalisation statistics of the plane's origin.") == 1
    apart = scenes.profile([profile(batch_norm="frozen"), profile(batch_norm=ESTIMATED)]).caption
    assert "frozen statistics: Normalisation statistics of the plane's origin." in apart
    assert f"statistics estimated again: Normalisation statistics {ESTIMATED}." in apart


def test_the_gap_of_a_relief_is_put_down_to_all_that_it_comes_from():
    surface = records.surface()
    usual = scenes.surface_relief(surface, [records.shadow()]).caption
    assert "the vertical gap to the surface is the effect of the distance off the plane. " in usual
    plane = replace(surface.plane, subset="shared")
    changes = {"split": "training", "batch_norm": "frozen", "heads": REFITTED, "plane": plane}
    caption = scenes.surface_relief(replace(surface, **changes), [records.shadow()]).caption
    assert (
        "the effect of the distance off the plane, parameters outside the plane's subset (shared), normalisation "
        f"statistics of the plane's origin, heads {REFITTED} and other examples (training ones)."
    ) in caption
