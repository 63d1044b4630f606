"""Scenes and tables of faithfulness hold the numbers of the records and say what they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import figures
from analysis.results import Faithfulness, Feet, PlaneStability
from figures import scenes, style
from figures.faithfulness_tables import faithfulness_table, stability_table
from figures.marks import Band, Line, Mark, Panel, Points, Segments
from figures.scenes.faithfulness import APART, NORMAL
from tests.figures import records


def feet(label: str = "averaged", seed: int = 0, tasks: tuple[str, ...] = ("one", "two")) -> Feet:
    """Task t's true loss is 10, 5, 2 times t + 1; at the feet it is a tenth more, with an error of 0.1 (t + 1)."""
    true = np.array([10.0, 5.0, 2.0])[:, None] * np.arange(1, len(tasks) + 1)
    return Feet(
        run=records.run(label, seed),
        tasks=tasks,
        steps=np.array([0, 10, 20]),
        true=true,
        foot=1.1 * true,
        gap_stderr=0.1 * np.ones((3, 1)) * np.arange(1, len(tasks) + 1),
        average_gap_stderr=np.full(3, 0.05),
        off_plane=np.array([0.0, 1.0, 2.0]),
        subset="all",
        examples=500,
        split="evaluation",
        batch_norm="none",
        heads="as the plane's",
    )


def faithfulness(runs: tuple[str, ...] = ("averaged-0", "independent-0")) -> Faithfulness:
    """Run r shows 0.1 (r + 1) along the first axis, half of it along the second, and 0.2 (r + 1) of the distance."""
    rows = (*runs, "all runs")
    first = 0.1 * np.arange(1, len(rows) + 1)
    return Faithfulness(
        runs=rows,
        axes=("first principal axis", "second principal axis"),
        variance=np.stack([first, first / 2], 1),
        walk_variance=np.tile([0.61, 0.15], (len(rows), 1)),
        walk_variance_spread=np.tile([0.02, 0.01], (len(rows), 1)),
        distance=2 * first,
        walk_distance=np.full(len(rows), 0.25),
        walk_distance_spread=np.full(len(rows), 0.03),
        dimension=3556,
        draws=20,
        seed=0,
    )


def stability() -> PlaneStability:
    return PlaneStability(
        left_out=("averaged-0", "first quarter", "last quarter"),
        angles=np.array([[3.0, 80.0], [np.nan, np.nan], [0.5, 12.0]]),
    )


def of(panel: Panel, kind: type[Mark]) -> list[Mark]:
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def lines(panel: Panel, dash: str) -> list[Line]:
    return [line for line in of(panel, Line) if line.look.dash == dash]


def test_the_true_loss_is_solid_and_the_foot_dashed_for_every_task_and_their_average() -> None:
    scene = scenes.gap([feet()])
    assert [p.title for p in scene.panels] == ["one", "two", "average of 2 tasks", "distance off the plane"]
    for panel, times in zip(scene.panels, (1, 2, 1.5), strict=False):
        (true,), (foot,) = lines(panel, "solid"), lines(panel, "dash")
        np.testing.assert_allclose(true.y, np.array([10, 5, 2]) * times, rtol=1e-15)
        np.testing.assert_allclose(foot.y, np.array([11, 5.5, 2.2]) * times, rtol=1e-15)
        np.testing.assert_array_equal(true.x, [0, 10, 20])
    assert [p.title for p in scenes.gap([feet(tasks=("only",))]).panels] == ["only", "distance off the plane"]


def test_bands_are_the_paired_interval_around_the_foot() -> None:
    for panel, error in zip(scenes.gap([feet()]).panels, (0.1, 0.2, 0.05), strict=False):
        (band,) = of(panel, Band)
        (foot,) = lines(panel, "dash")
        np.testing.assert_allclose(band.high - foot.y, NORMAL * error, rtol=1e-12)
        np.testing.assert_allclose(foot.y - band.low, NORMAL * error, rtol=1e-12)
    # A gap of 0.2 against a half width of 0.196 counts as one beyond it, in both tasks.
    assert "6 of 6 gaps of the tasks exceed their interval. The median gap is 10.0% of the true loss." in (
        scenes.gap([feet()]).caption
    )
    wide = replace(feet(), gap_stderr=np.full((3, 2), 0.3))
    assert "3 of 6 gaps of the tasks exceed" in scenes.gap([wide]).caption  # 1, 2 and 1 do, 0.5, 0.2 and 0.4 < 0.588


def test_runs_without_an_error_have_no_band() -> None:
    alone = replace(feet(), gap_stderr=np.full((3, 2), np.nan), average_gap_stderr=np.full(3, np.nan))
    scene = scenes.gap([alone])
    assert not any(of(panel, Band) for panel in scene.panels)
    assert "exceed" not in scene.caption


def test_losses_over_decades_are_logarithmic_and_bands_end_above_zero() -> None:
    steep = replace(feet(), true=feet().true * [[1], [0.1], [0.001]], foot=feet().foot * [[1], [0.1], [0.001]])
    scene = scenes.gap([steep])
    assert [p.y.scale for p in scene.panels] == ["log", "log", "log", "linear"]
    (band,) = of(scene.panels[0], Band)
    np.testing.assert_allclose(band.low, [11 - 0.196, 0.55 - 0.196, 0.001])  # 0.0022 - 0.196 ends at 0.002 / 2
    assert "Logarithmic loss axes. 3 band edges that would reach zero or less end at half the least" in scene.caption
    assert "Logarithmic" not in scenes.gap([feet()]).caption


def test_the_caption_says_where_a_gap_can_come_from() -> None:
    assert "the effect of the distance off the plane." in scenes.gap([feet()]).caption
    part = replace(feet(), subset="shared", batch_norm="frozen", heads="fitted again at each point")
    caption = scenes.gap([part]).caption
    assert (
        "the effect of the distance off the plane, parameters outside the plane's subset (shared), normalisation "
        "statistics of the plane's origin and heads fitted again at each point." in caption
    )
    assert "over 500 evaluation examples" in caption


def test_strategies_differ_in_marker_and_keep_their_dash_for_true_and_foot() -> None:
    scene = scenes.gap([feet(), feet("independent"), feet("independent", 1)], order=["other"])
    colours = {key.label: key.look for key in scene.legend}
    assert list(colours) == ["averaged", "independent", "true loss", "loss at the foot, in the plane"]
    assert colours["averaged"].colour == style.COLOURS[1]
    assert colours["averaged"].marker != colours["independent"].marker
    assert len(lines(scene.panels[0], "solid")) == len(lines(scene.panels[0], "dash")) == 3
    assert "averaged 1 and independent 2 seeds" in scene.caption
    filled = [p.look.fill for p in of(scene.panels[0], Points)]
    assert filled == [style.PAPER, ""] * 3  # the foot hollow, the truth filled


def test_the_distance_off_the_plane_has_a_row_of_its_own() -> None:
    strip = scenes.gap([feet()]).panels[-1]
    np.testing.assert_array_equal(of(strip, Line)[0].y, [0, 1, 2])
    assert strip.y.range == (0.0, 2.16)


def test_losses_that_are_not_finite_leave_a_gap_and_are_counted() -> None:
    true = feet().true.copy()
    true[1, 0] = np.inf
    scene = scenes.gap([replace(feet(), true=true)])
    assert "1 value of the losses not finite and left out." in scene.caption
    assert "of 5 gaps" in scene.caption


def test_shares_stand_beside_those_of_random_walks() -> None:
    scene = scenes.shares(faithfulness())
    assert [p.title for p in scene.panels] == ["variance, first axis", "variance, second axis", "distance travelled"]
    expected = (([0.1, 0.2, 0.3], 0.61, 0.02), ([0.05, 0.1, 0.15], 0.15, 0.01), ([0.2, 0.4, 0.6], 0.25, 0.03))
    for panel, (mine, walk, spread) in zip(scene.panels, expected, strict=True):
        hollow, filled = of(panel, Points)
        (bars,) = of(panel, Segments)
        np.testing.assert_allclose(filled.x, mine)
        np.testing.assert_allclose(hollow.x, walk)
        np.testing.assert_allclose((bars.x0, bars.x1), np.outer([walk - spread, walk + spread], np.ones(3)))
        np.testing.assert_allclose(filled.y, np.arange(3) - APART)
        assert hollow.look.fill == style.PAPER
    assert scene.panels[0].y.texts == ("averaged-0", "independent-0", "all runs")
    assert scene.panels[1].y.texts == ("", "", "")
    assert "in 3556 dimensions: mean and standard deviation over 20 draws" in scene.caption


def test_one_run_is_all_runs() -> None:
    scene = scenes.shares(faithfulness(("averaged-0",)))
    assert scene.panels[0].y.texts == ("averaged-0",)
    assert "each run weighs equally" not in scene.caption
    assert len(faithfulness_table(faithfulness(("averaged-0",)), "p").rows) == 1


def test_a_run_without_a_distance_is_counted() -> None:
    found = faithfulness()
    distance = found.distance.copy()
    distance[1] = np.nan
    assert "1 value of the shares not finite" in scenes.shares(replace(found, distance=distance)).caption


def test_angles_are_drawn_and_cases_without_a_plane_are_named() -> None:
    scene = scenes.shares(faithfulness(), stability())
    panel = scene.panels[-1]
    larger, smaller = of(panel, Points)
    np.testing.assert_array_equal(smaller.x, [3, np.nan, 0.5])
    np.testing.assert_array_equal(larger.x, [80, np.nan, 12])
    assert panel.y.texts == ("averaged-0", "first quarter: no plane", "last quarter")
    assert "1 case in which no plane is left." in scene.caption


def test_the_table_has_runs_as_rows_and_the_numbers_of_the_scene() -> None:
    table = faithfulness_table(faithfulness(), "principal")
    assert table.title == "What the plane shows of the trajectories: principal"
    assert table.head[1:] == (
        "variance, first principal axis",
        "variance, second principal axis",
        "distance travelled",
    )
    assert [row[0].text for row in table.rows] == ["averaged-0", "independent-0", "all runs"]
    assert [cell.text for cell in table.rows[2][1:]] == ["30.0 %", "15.0 %", "60.0 %"]
    assert [cell.note for cell in table.rows[2][1:]] == [
        "walks 61.0 \u00b1 2.0 %",
        "walks 15.0 \u00b1 1.0 %",
        "walks 25.0 \u00b1 3.0 %",
    ]


def test_the_table_of_angles_names_what_spans_no_plane() -> None:
    rows = stability_table(stability(), "principal").rows
    assert [cell.text for cell in rows[0]] == ["averaged-0", "3\u00b0", "80\u00b0"]
    assert [(cell.text, cell.tone) for cell in rows[1][1:]] == [("no plane", "open")] * 2


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_both_renderers_draw_them(tmp_path, suffix: str) -> None:
    for name, scene in (
        ("gap", scenes.gap([feet(), feet(records.NASTY)])),
        ("shares", scenes.shares(faithfulness((records.NASTY, "b-1")), stability())),
    ):
        assert figures.draw(scene, tmp_path / f"{name}.{suffix}").stat().st_size > 10_000
