"""Scenes and tables of followed eigenvalues, sharpness and agreement hold the numbers of the records."""

from __future__ import annotations

import numpy as np
import pytest

import figures
from figures import scenes, style
from figures.curvature_tables import agreement_table, shares_table, sharpness_table, tracks_table
from figures.marks import Band, Cells, Line, Mark, Panel, Points, Segments
from tests.figures import curvature, records


def of(panel: Panel, kind: type[Mark], group: str = "") -> list[Mark]:
    return [mark for mark in panel.marks if isinstance(mark, kind) and (not group or mark.group == group)]


SCENES = {
    "tracks": lambda: scenes.tracked_eigenvalues(curvature.tracks()),
    "sharpness": lambda: scenes.sharpness(curvature.sharpness()),
    "runs": lambda: scenes.sharpness_of_runs(
        [curvature.sharpness(), curvature.sharpness(run=records.run("independent"))], order=("averaged",)
    ),
    "layers": lambda: scenes.layer_eigenvalues({"first": curvature.tracks(), "second": curvature.tracks()}),
    "updates": lambda: scenes.along_updates(curvature.sharpness()),
    "angles": lambda: scenes.principal_angles(curvature.agreement()),
    "cross": lambda: scenes.cross_curvature(curvature.agreement()),
    "shares": lambda: scenes.eigenvalue_shares(curvature.agreement()),
    "gradients": lambda: scenes.gradient_agreement(curvature.agreement()),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_every_scene_is_drawn_by_both_renderers(name, suffix, tmp_path):
    path = tmp_path / f"figure{suffix}"
    figures.draw(SCENES[name](), path)
    assert path.stat().st_size > 1000


def test_a_curve_is_one_line_through_the_crossing():
    panel = scenes.tracked_eigenvalues(curvature.tracks()).panels[0]
    first, second = of(panel, Line, "curve 1"), of(panel, Line, "curve 2")
    assert first[0].y.tolist() == [4.0, 3.5, 3.0, 2.5]
    assert second[0].y.tolist() == [2.0, 2.5, 3.5, 4.0]
    (bars,) = of(panel, Segments, "curve 1")
    np.testing.assert_allclose(bars.y1 - bars.y0, 0.2 * np.array([4.0, 3.5, 3.0, 2.5]))


def test_a_lost_curve_ends_with_a_diamond_and_another_begins():
    one, two, _ = scenes.tracked_eigenvalues(curvature.tracks()).panels
    assert not of(one, Points, "curve lost after")
    (lost,) = of(two, Points, "curve lost after")
    assert (lost.x.tolist(), lost.y.tolist()) == ([10], [25.0])
    assert of(two, Line, "curve 2")[0].x.tolist() == [0, 10]
    assert of(two, Line, "curve 3")[0].x.tolist() == [20, 30]


def test_a_curve_seen_once_is_a_grey_point():
    single = curvature.tracks()
    track = single.track.copy()
    track[3, 1, 0] = 3
    scene = scenes.tracked_eigenvalues(curvature.tracks(track=track))
    (point,) = of(scene.panels[1], Points, "curve 4")
    assert (point.x.tolist(), point.look.colour) == ([30], style.FAINT)
    assert "2 of all seen at one snapshot only" in scene.caption
    assert "seen at one snapshot" in [key.label for key in scene.legend]


def test_groups_and_values_that_did_not_converge_are_hollow():
    one, _, average = scenes.tracked_eigenvalues(curvature.tracks()).panels
    squares = [mark for mark in of(one, Points) if mark.look.marker == "square"]
    assert [mark.x.tolist() for mark in squares] == [[20], [20]]
    hollow = [m for m in of(average, Points, "curve 1") if m.look.fill == style.PAPER]
    assert [m.x.tolist() for m in hollow] == [[30]]


def test_the_step_size_line_is_drawn_within_reach_and_named_elsewhere():
    scene = scenes.tracked_eigenvalues(curvature.tracks())
    for panel, height in zip(scene.panels, (20, 20, 10), strict=True):
        (line,) = of(panel, Line, "step-size line")
        assert line.y.tolist() == [height, height]
    far = scenes.tracked_eigenvalues(curvature.tracks(line=np.array([1e4, np.nan, 10.0])))
    assert not of(far.panels[0], Line, "step-size line")
    assert "far above the values are not drawn: one 1e+04" in far.caption
    none = scenes.tracked_eigenvalues(curvature.tracks(line=np.full(3, np.nan), line_words="No step-size line: Adam."))
    assert "No step-size line: Adam." in none.caption
    assert "step-size line" not in [key.label for key in none.legend]


def test_captions_count_curves_losses_groups_and_failures():
    caption = scenes.tracked_eigenvalues(curvature.tracks()).caption
    for words in (
        "7 curves",
        "at least 0.71",
        "1 curve lost before the end",
        "2 values closer",
        "1 value did not conv",
    ):
        assert words in caption
    values = curvature.tracks().values.copy()
    values[0, 0, 0] = np.nan
    assert "1 value of eigenvalues not finite" in scenes.tracked_eigenvalues(curvature.tracks(values=values)).caption


def test_sharpness_has_a_panel_a_measure_and_a_line_a_loss():
    scene = scenes.sharpness(curvature.sharpness())
    assert [panel.title for panel in scene.panels] == [
        "largest eigenvalue, plain",
        "worst case, plain",
        "mean rise, plain",
        "largest eigenvalue, elementwise",
        "worst case, elementwise",
        "mean rise, elementwise",
        "trace",
        "critical sharpness, own gradient",
    ]
    solid, dotted = (
        [m for m in of(scene.panels[1], Line, "two") if (m.look.dash == "dot") == want] for want in (False, True)
    )
    np.testing.assert_allclose(solid[0].y, 2e-3 * 2 * np.arange(1, 5))
    np.testing.assert_allclose(dotted[0].y, 1e-3 * 2 * np.arange(1, 5))
    (bars,) = of(scene.panels[2], Segments, "one")
    np.testing.assert_allclose(bars.y1 - bars.y0, 2e-5 * np.arange(1, 5))
    assert "a lower bound" in scene.caption
    assert "0.05 and 0.005 (plain) and 0.5 and 0.05 (elementwise)" in scene.caption


def test_critical_sharpness_is_drawn_with_its_bracket_and_lines_within_reach():
    panel = scenes.sharpness(curvature.sharpness()).panels[-1]
    drawn = {m.group: m for m in of(panel, Line) if m.y.size == 4}
    np.testing.assert_allclose(drawn["one"].y, np.arange(1, 5))
    np.testing.assert_allclose(drawn["average of the tasks"].y, 0.75 * 3 * np.arange(1, 5))
    levels = [m.y.tolist() for m in of(panel, Line) if m.y.size == 2]
    assert levels == [[20, 20], [20, 20]], "the average's line is a million and left out"


def test_without_a_trace_there_is_no_panel_of_it():
    nothing = np.full((4, 3), np.nan)
    scene = scenes.sharpness(curvature.sharpness(trace=nothing, trace_stderr=nothing))
    assert "trace" not in [panel.title for panel in scene.panels]


def test_runs_are_compared_measure_by_measure_in_the_looks_of_their_strategies():
    found = [curvature.sharpness(run=records.run(label)) for label in ("averaged", "independent")]
    scene = scenes.sharpness_of_runs(found, "elementwise")
    assert [panel.title for panel in scene.panels[:3]] == [
        "largest eigenvalue, one",
        "worst case, one",
        "mean rise, one",
    ]
    lines = of(scene.panels[3], Line)
    assert [line.group for line in lines] == ["averaged", "independent"]
    np.testing.assert_allclose(lines[0].y, 0.2 * np.arange(1, 5))
    assert [key.label for key in scene.legend] == ["averaged", "independent"]
    with pytest.raises(ValueError, match="expected records with the form 'filter', got 2 without"):
        scenes.sharpness_of_runs(found, "filter")


def test_layers_are_lines_of_their_first_eigenvalue():
    other = curvature.tracks(values=2 * curvature.tracks().values)
    scene = scenes.layer_eigenvalues({"first": curvature.tracks(), "second": other})
    lines = of(scene.panels[0], Line)
    assert [line.group for line in lines] == ["first", "second"]
    assert lines[1].y.tolist() == [8.0, 7.0, 7.0, 8.0]


def test_matrices_have_the_update_in_the_row_and_blanks_where_a_loss_rises_at_once():
    scene = scenes.along_updates(curvature.sharpness())
    (bent,), (sharp,) = (of(panel, Cells) for panel in scene.panels)
    np.testing.assert_allclose(bent.z, 4 * np.outer([1, 2, 3], [1, 0.5, 0.75]))
    assert np.isnan(sharp.z[0, 1])
    assert sharp.texts[0][1] == ""
    assert "1 loss rises at once" in scene.caption
    assert "agree within their error in 9 of 9" in scene.caption


def test_angles_stand_beside_those_of_random_spaces_tasks_first():
    scene = scenes.principal_angles(curvature.agreement())
    assert [panel.title for panel in scene.panels] == ["one and two", "one and average", "two and average"]
    panel = scene.panels[0]
    assert of(panel, Line, "angle 2")[0].y.tolist() == [20.0] * 4
    (band,) = of(panel, Band)
    assert (band.low[0], band.high[0]) == (80, 90)
    assert "means 84.0\u00b0 and 88.0\u00b0" in scene.caption


def test_angles_of_spaces_that_are_not_known_are_hollow():
    scene = scenes.principal_angles(curvature.agreement())
    first, second, _ = scene.panels
    hollow = [m.x.tolist() for m in of(first, Points, "angle 1") if m.look.fill == style.PAPER]
    assert hollow == [[10]], "`two` is known to 30 degrees there"
    assert not [m for m in of(second, Points) if m.look.fill == style.PAPER]
    assert "at 2 snapshots" in scene.caption


def test_cross_curvature_is_in_units_and_in_shares():
    scene = scenes.cross_curvature(curvature.agreement())
    (values,), (shares,) = (of(panel, Cells) for panel in scene.panels)
    assert values.z[2].tolist() == [6.0, -2.0, 2.0]
    np.testing.assert_allclose(shares.z[2], [150, -200 / 3, 100])
    assert values.texts[2][1] == "\u22122"


def test_shares_are_stacked_and_negative_ones_below_zero():
    stacked, relative = scenes.eigenvalue_shares(curvature.agreement()).panels
    one, two = (of(stacked, Band, name)[0] for name in ("one", "two"))
    assert (one.low[0], one.high[0]) == (0, 3)
    assert (two.low[0], two.high[0]) == (0, -1)
    assert of(stacked, Line, "sum: eigenvalue of the average")[0].y.tolist() == [2.0] * 4
    assert of(relative, Line, "two")[0].y.tolist() == [-50.0] * 4


def test_gradients_have_bars_and_conflicts_their_intervals():
    norm, cosine, conflict = scenes.gradient_agreement(curvature.agreement()).panels
    assert of(norm, Line, "two")[0].y.tolist() == [2.0] * 4
    (bars,) = of(cosine, Segments, "one and two")
    np.testing.assert_allclose(bars.y1 - bars.y0, 0.1)
    (bars,) = of(conflict, Segments, "one and two")
    np.testing.assert_allclose(bars.y0, [0, 10, 30, 80])


def test_one_task_has_norms_only():
    nothing = np.zeros((4, 0))
    single = curvature.agreement(
        couples=(),
        **dict.fromkeys(("cosine", "cosine_stderr", "conflict", "conflict_low", "conflict_high"), nothing),
    )
    assert [panel.title for panel in scenes.gradient_agreement(single).panels] == ["gradient norm"]


def test_tables_have_errors_and_say_what_did_not_converge():
    tracked = tracks_table(curvature.tracks())
    assert [row[0].text for row in tracked.rows] == ["one", "two", "average of the tasks"]
    assert tracked.rows[1][3].text == "3"
    assert tracked.rows[1][4].text == "1"
    assert tracked.rows[0][2].text == "20 %"
    sharp = sharpness_table(curvature.sharpness())
    assert "one step 0.004" in sharp.rows[0][2].note
    assert len(sharp.rows[0]) == len(sharp.head)
    agreed = agreement_table(curvature.agreement())
    assert agreed.rows[0][1].note == "random 84\u00b0"
    assert agreed.rows[0][3].note == "80 to 100 %"
    owed = shares_table(curvature.agreement())
    assert [cell.text for cell in owed.rows[0][2:]] == ["3", "\u22121"]
    assert [cell.note for cell in owed.rows[0][2:]] == ["150 %", "-50 %"]


@pytest.mark.parametrize("matrix", ["Hessian", "Gauss-Newton matrix", "empirical Fisher matrix"])
def test_captions_and_tables_name_the_matrix(matrix):
    tracks = curvature.tracks(matrix=matrix)
    followed, by_layer = scenes.tracked_eigenvalues(tracks), scenes.layer_eigenvalues({"first": tracks})
    assert f"of the {matrix} of each loss" in followed.caption
    assert f"First eigenvalue of the {matrix} of each loss" in by_layer.caption
    for scene in (followed, by_layer):
        assert scene.title.endswith(f", {matrix}") == (matrix != "Hessian")
        assert matrix == "Hessian" or "Hessian" not in scene.caption
    assert f"{matrix[:1].upper()}{matrix[1:]} on these parameters: shared." in tracks_table(tracks).to_text()


def test_a_loss_that_rises_at_once_has_no_bound_without_a_warning():
    found = curvature.sharpness()
    low, high = found.critical_low.copy(), found.critical_high.copy()
    low[-1, 0, 0] = high[-1, 0, 0] = 0.0
    text = sharpness_table(curvature.sharpness(critical_low=low, critical_high=high)).to_text()
    assert "infinite to infinite" in text
