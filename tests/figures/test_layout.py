"""The plan of a figure: panels inside the page, apart from each other, aligned, and of the aspect they ask for."""

from __future__ import annotations

import pytest

from figures import scenes, style
from figures.layout import Box, plan
from figures.marks import Scene
from tests.figures import records, study

SCENES = {
    "surface": lambda: scenes.surface(study.surface(), study.shadows()),
    "exploration": lambda: scenes.exploration(study.explorations()),
    "comparisons": lambda: scenes.comparisons(study.comparisons()),
    "distances": lambda: scenes.distance_matrix(study.distances()),
}


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]()


def test_panels_stay_inside_the_page(scene: Scene) -> None:
    placed = plan(scene)
    assert len(placed.boxes) == len(scene.panels)
    for box in placed.boxes:
        assert box.width > 10
        assert box.height > 10
        assert box.left > 0
        assert box.left + box.width < style.WIDTH
        assert box.top > 0
        assert box.top + box.height < placed.height


def test_panels_do_not_overlap(scene: Scene) -> None:
    boxes = plan(scene).boxes
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


def overlap(a: Box, b: Box) -> bool:
    beside = a.left + a.width <= b.left or b.left + b.width <= a.left
    above = a.top + a.height <= b.top or b.top + b.height <= a.top
    return not (beside or above)


def test_columns_are_aligned_over_rows() -> None:
    boxes = plan(scenes.exploration(study.explorations())).boxes
    assert (boxes[0].left, boxes[1].left) == (boxes[3].left, boxes[4].left)
    assert len({round(box.width, 9) for box in boxes}) == 1


def test_a_unit_of_parameter_space_is_equally_long_in_both_directions() -> None:
    box = plan(scenes.surface(records.surface())).boxes[0]
    assert box.width / 3 == pytest.approx(box.height / 2)


def test_long_names_leave_room_for_the_panel() -> None:
    scene = scenes.comparisons([records.comparison("a strategy with a name that is far too long for any legend " * 2)])
    assert plan(scene).boxes[0].width > 50
