"""The forest of contrasts, and what report and tables say of them."""

from __future__ import annotations

import numpy as np
import pytest

from figures import report, scenes
from figures.exploration_tables import contrast_table, verdict_table, walk_counts, walk_table, words_table
from figures.marks import Points, Segments
from figures.report import Contents
from tests.figures import records


def marks(scene, panel, kind):
    return [mark for mark in scene.panels[panel].marks if isinstance(mark, kind)]


def test_one_panel_a_measure_and_one_line_a_budget():
    scene = scenes.contrasts([records.contrast()])
    assert [panel.title for panel in scene.panels] == ["net distance", "path / net"]
    assert scene.panels[0].y.texts == ("steps", "movement", "loss")
    assert scene.panels[1].y.texts == ("", "", "")
    assert scene.panels[0].x.label == "parameter"
    points = marks(scene, 0, Points)
    assert [float(p.x[0]) for p in points] == [1.0, 0.0, 0.5]
    zero, *intervals = marks(scene, 0, Segments)
    assert zero.x0[0] == zero.x1[0] == 0
    assert [(float(s.x0[0]), float(s.x1[0])) for s in intervals] == [(0.5, 1.5), (-1.0, 1.0), pytest.approx((0.1, 0.9))]


def test_only_what_survives_the_correction_is_filled():
    scene = scenes.contrasts([records.contrast()])
    assert [p.look.fill != "" for p in marks(scene, 0, Points)] == [False, True, True], "hollow has a fill of paper"
    assert "corrected for 6 tests of each pair of strategies, is at most 0.05" in scene.caption
    assert "independent: 6 seeds in pairs." in scene.caption


def test_strategies_share_panels_and_are_named_in_the_lines():
    scene = scenes.contrasts([records.contrast(), records.contrast("grouped", -1.0)], order=["averaged"])
    assert scene.panels[0].y.texts[2:4] == ("independent, loss", "grouped, steps")
    assert [key.label for key in scene.legend] == ["independent", "grouped"]
    assert len({p.look.colour for p in marks(scene, 0, Points)}) == 2


def test_without_intervals_there_are_points_and_it_is_said():
    scene = scenes.contrasts([records.contrast(seeds=1)])
    assert len(marks(scene, 0, Segments)) == 1
    assert len(marks(scene, 0, Points)) == 3
    assert "6 differences without an interval: too few seeds." in scene.caption


def test_what_is_drawn_together_is_of_one_subset_in_one_form():
    both = [records.contrast(), records.contrast(form="relative")]
    with pytest.raises(ValueError, match="expected contrasts of one subset in one form, got 2"):
        scenes.contrasts(both)
    assert [len(group) for group in report.by_form(both)] == [1, 1]


def test_the_report_prints_the_verdict_and_what_it_rests_on():
    found = report.claims([records.contrast()])
    assert found == (
        "net: independent against averaged, said in words.",
        "independent against averaged is corrected by some correction.",
    )
    page = report.render(Contents("Study", contrasts=(records.contrast(),), walks=(records.beside_walk(),))).decode()
    assert "said in words" in page
    assert "Verdicts in words" in page
    assert "Runs beyond random walks" in page
    assert "Differences at equal budgets: shared, raw" in page


def test_the_report_refuses_a_verdict_from_fewer_than_three_seeds():
    found = report.claims([records.contrast(seeds=2), records.contrast(seeds=2, form="relative")])
    assert found == (
        "independent against averaged: no verdict from 2 seeds, expected at least 3; train with more seeds.",
    )
    table = verdict_table([records.contrast(seeds=2)])
    assert {cell.text for row in table.rows for cell in row[1:]} == {"too few seeds"}


def test_tables_have_every_number_and_every_outcome():
    table = contrast_table([records.contrast()])
    assert len(table.rows) == 6
    rows = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [row["outcome"].text for row in rows[:3]] == ["larger", "undecided", "not after correction"]
    assert rows[0]["difference"].value == 1.0
    assert (rows[0]["level"].value, rows[0]["tests"].text, rows[0]["samples"].text) == (20.0, "6", "6")
    assert verdict_table([records.contrast()], ("net",)).rows[0][1].note == "+1.00\n[0.500, 1.50]"
    assert "some correction" in words_table([records.contrast()]).note


def test_runs_beyond_their_walks_are_counted():
    walks = [records.beside_walk(seed=s, above=a) for s, a in enumerate((0.01, 0.02, 0.5))]
    (row,) = walk_counts(walks).rows
    assert [cell.text for cell in row] == ["independent", "shared", "raw", "2 above of 3", "\u2013"]
    cell = walk_table(walks).rows[0][3]
    assert (cell.text, cell.note) == ("2", "walks 1, 0.01 above")


def test_a_measure_without_values_has_no_panel():
    empty = records.contrast()
    difference = empty.difference.copy()
    difference[1] = np.nan
    scene = scenes.contrasts([type(empty)(**{**vars(empty), "difference": difference})])
    assert [panel.title for panel in scene.panels] == ["net distance"]
