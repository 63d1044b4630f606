"""Scenes and tables of what lies between runs: numbers by hand, one scale, and both renderers."""

from __future__ import annotations

import numpy as np
import pytest

import figures
from analysis.results import Barriers, FunctionDistances, PathLosses, PointDistances, Run, Separation
from figures import report, scenes
from figures.connectivity_tables import barrier_table, disagreement_table, distance_table, separation_table
from figures.marks import Band, Cells, Line, Points
from figures.report import Connection, Contents

POINTS = ("a-0@9", "b-0@9", "b-1@9")


def path_losses(path: str = "straight line", scale: float = 1.0, **more: object) -> PathLosses:
    """Pairs 1-2, 1-3, 2-3; excess of task k + 1 in pair p: scale (p + 1) (k + 1) 4 t (1 - t), ends at 1."""
    t = np.linspace(0, 1, 5)
    hill = 4 * t * (1 - t)
    excess = scale * np.array([[[(p + 1) * (k + 1) * h for h in hill] for k in range(3)] for p in range(3)])
    fields = {
        "path": path,
        "views": ("one", "two", "average"),
        "starts": (POINTS[0], POINTS[0], POINTS[1]),
        "ends": (POINTS[1], POINTS[2], POINTS[2]),
        "t": t,
        "loss": 1 + excess,
        "stderr": np.full(excess.shape, 0.2),
        "excess": excess,
        "excess_stderr": 0.1 * excess,
        "length": np.array([3.0, 4.0, 5.0]),
        "done": np.ones(3, bool),
        "alignment": "none",
        "heads": "interpolated",
        "batch_norm": "none",
        "examples": 50,
        "data": "data",
        "split": "evaluation",
        "engine": "",
    }
    return PathLosses(**{**fields, **more})


def barriers(**more: object) -> Barriers:
    matrix = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]])
    fields = {
        "path": "straight line",
        "points": POINTS,
        "views": ("one", "two", "average"),
        "barrier": np.stack([matrix, 2 * matrix, 3 * matrix]),
        "stderr": np.full((3, 3, 3), 0.05),
        "at": np.full((3, 3, 3), 0.5),
        "loss": np.ones((3, 3)),
        "length": np.full((3, 3), 4.0),
        "samples": 5,
        "alignment": "none",
        "heads": "interpolated",
        "batch_norm": "none",
        "examples": 50,
        "data": "data",
        "split": "evaluation",
    }
    return Barriers(**{**fields, **more})


def separation(parted: int = 20) -> Separation:
    return Separation(
        first=Run("a", "A()", 0),
        second=Run("b", "B()", 0),
        subset="shared",
        steps=np.array([0, 10, 20]),
        distance=np.array([0.0, 1.0, 4.0]),
        first_net=np.array([0.0, 3.0, 4.0]),
        second_net=np.array([0.0, 3.0, 3.0]),
        threshold=0.5,
        parted=parted,
        angles=np.array([10.0, 60.0]),
        null_angles=np.array([88.0, 89.0]),
        overlap=0.6,
        null_overlap=0.02,
        null_high=0.05,
        dimension=100,
        draws=1000,
        seed=0,
    )


def functions() -> FunctionDistances:
    matrix = np.array([[0, 0.1, 0.2], [0.1, 0, 0.4], [0.2, 0.4, 0.0]])
    both = np.stack([matrix, 10 * matrix])
    return FunctionDistances(
        points=POINTS,
        tasks=("one", "two"),
        rules=("share of examples with another argmax", "root mean square difference of predictions"),
        shares=np.array([True, False]),
        disagreement=both,
        disagreement_stderr=0.1 * both,
        prediction=both,
        prediction_stderr=0.1 * both,
        loss=2 * both,
        loss_stderr=0.1 * both,
        examples=50,
        data="data",
        split="evaluation",
    )


def points(aligned: bool = True) -> PointDistances:
    far = np.array([[0, 4, 6], [4, 0, 8], [6, 8, 0.0]])
    return PointDistances(
        points=POINTS,
        labels=("a", "b", "b"),
        seeds=np.array([0, 0, 1]),
        steps=np.full(3, 9),
        distance=far,
        aligned=far / 2 if aligned else np.full((3, 3), np.nan),
        subset="shared",
        alignment="matched" if aligned else "none",
    )


def cells(panel: object) -> Cells:
    return next(mark for mark in panel.marks if isinstance(mark, Cells))  # type: ignore[attr-defined]


def test_all_barriers_have_one_scale_and_every_value_is_there() -> None:
    scene = scenes.barriers(barriers())
    assert [panel.title for panel in scene.panels] == ["one", "two", "average of 2 tasks"]
    bars = [cells(panel).bar for panel in scene.panels]
    assert bars[0] == bars[1] == bars[2]
    assert bars[0].range is not None
    assert bars[0].range[0] == 0
    assert bars[0].range[1] >= 9
    np.testing.assert_array_equal(cells(scene.panels[1]).z, 2 * cells(scene.panels[0]).z)
    assert cells(scene.panels[0]).texts[1] == ("1", "0", "3")
    assert "50 evaluation examples" in scene.caption
    assert scene.panels[0].y.texts[0] == "a-0@9  1"


def test_barriers_on_other_paths_share_the_scale() -> None:
    low = barriers(path="Bezier curve", barrier=0.1 * np.array(barriers().barrier))
    both = [scenes.barriers(one, (barriers(), low)) for one in (barriers(), low)]
    assert cells(both[0].panels[0]).bar == cells(both[1].panels[0]).bar
    assert "with those of the other paths" in both[0].caption


def test_a_pair_without_a_barrier_is_blank_and_said() -> None:
    matrix = np.array(barriers().barrier)
    matrix[:, 0, 1] = matrix[:, 1, 0] = np.nan
    scene = scenes.barriers(barriers(barrier=matrix))
    assert cells(scene.panels[0]).texts[0][1] == ""
    assert "1 pair without a barrier left blank" in scene.caption


def test_paths_are_drawn_over_each_other_the_highest_barrier_first() -> None:
    scene = scenes.paths([path_losses(), path_losses("Bezier curve", 0.1)])
    assert [panel.title for panel in scene.panels[:3]] == ["1: one", "1: two", "1: average"]
    assert "1: from b-0@9 (t = 0) to b-1@9 (t = 1)" in scene.caption
    marks = scene.panels[0].marks
    lines = [mark for mark in marks if isinstance(mark, Line) and mark.group]
    assert [line.group for line in lines] == ["straight lines", "Bezier curves"]
    np.testing.assert_allclose(lines[0].y, 1 + 3 * np.array([0, 0.75, 1, 0.75, 0]))
    np.testing.assert_allclose(lines[1].y, 1 + 0.3 * np.array([0, 0.75, 1, 0.75, 0]))
    band = next(mark for mark in marks if isinstance(mark, Band))
    np.testing.assert_allclose(band.high - band.low, 2 * 1.96 * 0.1 * 3 * np.array([0, 0.75, 1, 0.75, 0]))
    assert lines[0].look.colour != lines[1].look.colour
    assert lines[0].look.dash != lines[1].look.dash
    assert [key.label for key in scene.legend] == ["straight lines", "Bezier curves"]


def test_conditions_tell_paths_apart_in_words() -> None:
    told = path_losses(alignment="matched by weights", batch_norm="estimated again at each point", heads="fitted again")
    assert scenes.connections.matrix_title(told) == (
        "straight lines, hidden units matched, statistics estimated again, heads fitted again"
    )
    assert "heads interpolated" in scenes.connections.conditions_of(path_losses())


def test_separation_shows_the_relative_distance_the_threshold_and_random_subspaces() -> None:
    scene = scenes.separation([separation()])
    lines = [mark for mark in scene.panels[1].marks if isinstance(mark, Line)]
    np.testing.assert_allclose(lines[0].y, [np.nan, 1 / 18**0.5, 0.8])
    angles = [mark for mark in scene.panels[2].marks if isinstance(mark, Points)]
    assert [mark.y.tolist() for mark in angles] == [[10, 60], [88, 89]]
    assert "a-0 and b-0 at step 20" in scene.caption
    assert "never" in scenes.separation([separation(-1)]).caption


def test_disagreement_has_one_scale_for_shares_and_its_own_for_the_rest() -> None:
    scene = scenes.disagreement(functions())
    assert [panel.title for panel in scene.panels] == [
        *("one: predictions", "one: losses", "two: predictions", "two: losses"),
    ]
    assert cells(scene.panels[0]).bar.label == "share of examples"
    assert cells(scene.panels[2]).bar.label == "RMS of predictions"
    assert "one: share of examples with another argmax." in scene.caption


def test_distances_stand_beside_those_with_units_matched_on_one_scale() -> None:
    scene = scenes.point_distances(points())
    assert [panel.title for panel in scene.panels] == ["as they are", "hidden units matched"]
    assert cells(scene.panels[0]).bar == cells(scene.panels[1]).bar
    assert len(scenes.point_distances(points(aligned=False)).panels) == 1


def test_tables_state_every_number_with_its_error() -> None:
    made = barrier_table(barriers())
    assert made.head == ("pair", "one", "two", "average")
    assert made.rows[0][0].text == "a-0@9 to b-0@9"
    assert (made.rows[0][1].text, made.rows[0][1].note) == ("1.000 ± 0.050", "at t = 0.50")
    assert "5 points of the straight line" in made.note
    disagree = disagreement_table(functions())
    assert (disagree.rows[0][1].text, disagree.rows[0][1].note) == ("0.100 ± 0.010", "loss 0.200")
    near = distance_table(points())
    assert [cell.text for cell in near.rows[0]] == ["a-0@9 and b-0@9", "4", "2", "50.0%"]
    assert distance_table(points(aligned=False)).head == ("pair", "distance")
    parted = separation_table([separation(), separation(-1)])
    assert [row[1].text for row in parted.rows] == ["20", "never"]
    assert parted.rows[0][3].text == "0.800"


def test_the_report_asks_whether_the_ends_are_connected() -> None:
    one = Connection("ends", (barriers(),), ((path_losses(), path_losses("Bezier curve", 0.1)),), functions(), points())
    contents = Contents("title", connections=(one,), separations=(separation(),))
    (section,) = [s for s in report.sections(contents) if s.name == "connection"]
    assert section.title == "Are the ends connected?"
    assert len(section.scenes) == 5
    assert len(section.tables) == 4
    assert not [s for s in report.sections(Contents("title")) if s.name == "connection"]


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_both_renderers_draw_them(tmp_path, suffix: str) -> None:
    drawn = {
        "barriers": scenes.barriers(barriers()),
        "paths": scenes.paths([path_losses(), path_losses("Bezier curve", 0.1)]),
        "separation": scenes.separation([separation()]),
        "disagreement": scenes.disagreement(functions()),
        "points": scenes.point_distances(points()),
    }
    for name, scene in drawn.items():
        figures.draw(scene, tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"{name}.{suffix}").stat().st_size > 5000
