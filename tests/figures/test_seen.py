"""What is there can be seen: few points, one snapshot, thin panels, long names; and what is announced is drawn."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import combinations, pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis.movement import MEASURES
from figures import interactive, scenes, static, style
from figures.layout import APART, BOLD, CHARACTER, colour_bar, plan, shortened
from figures.marks import Band, Contours, Line, Path, Points, Relief, lone
from tests.figures import curvature, records
from tests.figures.test_alternation_scenes import record
from tests.figures.test_conflict_scenes import conflict
from tests.figures.test_connection_scenes import path_losses
from tests.figures.test_faithfulness_scenes import feet
from tests.figures.test_movement_scenes import displacements, moved, walk

FEW = [(0, 0), (3, 3), (6, 6), (2, 5), (5, 1)]
LONG = ("depth_estimation_of_indoor_scenes_task", "surface_normals_of_the_whole_room_task", "everything_else_there_is")


def few():
    done = np.zeros((7, 7), bool)
    for j, i in FEW:
        done[j, i] = True
    return done


def at_one_snapshot(made):
    dims = {spec.name: spec.metadata.get("dims", ()) for spec in fields(made)}
    return replace(made, **{name: getattr(made, name)[:1] for name, of in dims.items() if of[:1] == ("snapshot",)})


@pytest.mark.parametrize(
    "scene",
    [
        lambda: scenes.surface(records.surface(nx=7, ny=7, done=few())),
        lambda: scenes.conflict_map(conflict(nx=7, ny=7, done=few())),
    ],
    ids=["surface", "conflict"],
)
def test_finite_points_of_a_grid_without_whole_cells_are_squares_in_the_colour_of_their_value(scene):
    made = scene()
    for panel in made.panels:
        (contours,) = [mark for mark in panel.marks if isinstance(mark, Contours)]
        there = {(float(i), float(j)) for j, i in FEW if np.isfinite(contours.z[j, i])}
        squares = [m for m in panel.marks if isinstance(m, Points) and m.look.size == m.size[0] == 5.0 and m.hover]
        assert {place for mark in squares for place in zip(mark.x.tolist(), mark.y.tolist(), strict=True)} == there
        for mark in squares:
            band = contours.colours.index(mark.look.colour)
            values = contours.z[mark.y.astype(int), mark.x.astype(int)]
            assert (values >= contours.levels[band] - 1e-9).all()
            assert (values <= contours.levels[band + 1] + 1e-9).all()
    assert "Squares: points that no contour reaches" in made.caption


def test_points_in_whole_cells_need_no_square():
    scene = scenes.surface(records.surface())
    assert not any(isinstance(mark, Points) for panel in scene.panels for mark in panel.marks)
    assert "Squares" not in scene.caption
    grid = np.zeros((3, 4))
    grid[2, 3] = np.nan
    assert [tuple(place) for place in np.argwhere(lone(grid))] == []
    grid[1, 2] = np.nan  # of the last column only the first two points are finite, and in no whole cell
    assert [tuple(place) for place in np.argwhere(lone(grid))] == [(0, 2), (0, 3), (1, 3), (2, 2)]


def test_a_panel_made_again_has_the_same_marks():
    for scene in (scenes.surface(records.surface(nx=7, ny=7, done=few())), ONE["theory"](), ONE["shares"]()):
        for panel in scene.panels:
            assert replace(panel, title="another").marks == panel.marks


def test_a_relief_of_few_points_shows_them_too():
    scene = scenes.surface_relief(records.surface(nx=7, ny=7, done=few()))
    for panel in scene.panels:
        assert any(isinstance(mark, Relief) for mark in panel.marks)
        assert {(float(m.x[0]), float(m.y[0])) for m in panel.marks if isinstance(m, Path)} == {
            (float(i), float(j)) for j, i in FEW
        }


ONE = {
    "angles": lambda: scenes.principal_angles(at_one_snapshot(curvature.agreement())),
    "shares": lambda: scenes.eigenvalue_shares(at_one_snapshot(curvature.agreement())),
    "gradients": lambda: scenes.gradient_agreement(at_one_snapshot(curvature.agreement())),
    "theory": lambda: scenes.alternation([record(snapshots=1)]),
    "prediction": lambda: scenes.prediction_and_measurement([record(snapshots=1)]),
    "growth": lambda: scenes.agreement_growth([record(snapshots=1)]),
    "tracks": lambda: scenes.tracked_eigenvalues(at_one_snapshot(curvature.tracks())),
    "sharpness": lambda: scenes.sharpness(at_one_snapshot(curvature.sharpness())),
    "eigenvalues": lambda: scenes.eigenvalues([at_one_snapshot(records.history())]),
}


def visible(mark, others):
    """Whether a line has two neighbouring points apart from each other, or markers at each of its points."""
    x, y = np.asarray(mark.x, float), np.asarray(mark.y, float)
    there = np.isfinite(x) & np.isfinite(y)
    if not there.any():
        return True
    if ((there[:-1] & there[1:]) & ((np.diff(x) != 0) | (np.diff(y) != 0))).any():
        return True
    more = [one for one in others if one is not mark and isinstance(one, Points | Line) and one.group == mark.group]
    return any(x[there][0] in np.asarray(m.x) or abs(np.asarray(m.x) - x[there][0]).max() == 0.5 for m in more)


@pytest.mark.parametrize("name", ONE)
def test_one_snapshot_is_seen_in_every_panel(name):
    scene = ONE[name]()
    for panel in scene.panels:
        drawn = [m for m in panel.marks if isinstance(m, Line | Points)]
        assert drawn, panel.title
        assert all(visible(mark, panel.marks) for mark in panel.marks if isinstance(mark, Line)), panel.title
        for mark in panel.marks:
            assert not isinstance(mark, Band) or mark.x.min() < mark.x.max()
    assert static.render(scene, ".png", 40)[:4] == b"\x89PNG"


NO_WALK = {key: np.full((3, 3), np.nan) for key in ("low", "median", "high")}


def test_the_legend_announces_no_walk_that_is_not_drawn():
    shown = scenes.movement([moved()], [walk()], "net")
    assert "random walk" in [key.label for key in shown.legend]
    assert "Dotted" in shown.caption
    for without in (
        scenes.movement([moved()], [replace(walk(), **NO_WALK)], "net"),
        scenes.movement([moved("independent")], [walk("averaged")], "net"),
        scenes.displacement([replace(displacements(), walk_msd=np.full(3, np.nan))]),
        scenes.turning([replace(displacements(), angle_low=np.nan, angle_high=np.nan)]),
    ):
        assert "random walk" not in [key.label for key in without.legend]
        assert "andom walks with" not in without.caption
        assert "Grey" not in without.caption


def every_measure(strategy):
    one, rng = records.contrast(strategy=strategy), np.random.default_rng(1)
    shape, scale = (13, 6), np.logspace(-4, 2, 13)[:, None]
    changes = {}
    for spec in fields(one):
        dims = spec.metadata.get("dims", ())
        if dims[:2] == ("measure", "budget"):
            changes[spec.name] = np.ones((*shape, *getattr(one, spec.name).shape[2:]))
    difference, half = rng.standard_normal(shape) * scale, np.abs(rng.standard_normal(shape)) * scale
    changes |= {"difference": difference, "low": difference - half, "high": difference + half, "levels": np.ones(6)}
    changes |= {"measures": MEASURES, "units": ("parameter",) * 13, "verdicts": ("words",) * 13}
    budgets = ("steps", "updates", "gradients", "seconds", "movement", "loss")
    return replace(one, budgets=budgets, **changes)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_contrasts_fit_a_page_and_their_ticks_do_not_overlap(count):
    scene = scenes.contrasts([every_measure(f"strategy{k}") for k in range(count)])
    placed = plan(scene)
    assert placed.height < 240
    assert scene.panels[0].title == "net distance"
    assert ("measures are drawn; all of them stand in the tables" in scene.caption) is (len(scene.panels) < 13)
    for box in placed.boxes:
        low, high = box.panel.x.range
        places = [box.width * (tick - low) / (high - low) for tick in box.panel.x.ticks]
        assert len(places) >= 2
        widest = CHARACTER * max(map(len, box.panel.x.texts))
        assert all(b - a >= widest for a, b in pairwise(places)), box.panel.x.texts


@pytest.mark.parametrize("high", [1.0, 0.3, 3.0])
def test_texts_of_a_colour_bar_stay_apart_in_thin_panels(high):
    thin = replace(records.surface(nx=9, ny=5), x=np.linspace(-7, 7, 9), y=np.linspace(-high, high, 5))
    scene = scenes.surface(thin)
    for box in plan(scene).boxes:
        low, top = box.bar.range
        places = [box.height * (tick - low) / (top - low) for tick in box.bar.ticks]
        assert all(b - a >= APART for a, b in pairwise(places))
        assert len(box.bar.ticks) <= len(colour_bar(box.panel).ticks)
        assert len(box.bar.ticks) == len(box.bar.texts) >= 1
    ticks = [trace.colorbar.tickvals for trace in interactive.figure(scene).data if trace.type == "contour"]
    assert ticks == [box.bar.ticks for box in plan(scene).boxes]


@pytest.mark.parametrize(
    "scene",
    [
        lambda: scenes.conflict_map(conflict(tasks=LONG)),
        lambda: scenes.curvature_tensor(record(tasks=LONG[:2], snapshots=1)),
        lambda: scenes.cross_curvature(replace(curvature.agreement(), tasks=(*LONG[:2], "average"))),
        lambda: scenes.displacement(
            [displacements(label="a_strategy_whose_name_has_forty_chars_012", seed=k) for k in (0, 1)]
        ),
    ],
    ids=["conflict", "tensor", "cross", "displacement"],
)
def test_labels_are_no_longer_than_their_panels(scene):
    boxes = plan(scene()).boxes
    for box in boxes:
        assert box.width > 15
        beside = [b.left - box.left for b in boxes if b.top == box.top and b.left > box.left]
        assert BOLD * len(box.panel.title) <= min(beside, default=style.WIDTH - box.left)
        assert CHARACTER * len(box.panel.x.label) <= box.width + 16
        assert CHARACTER * max(map(len, box.panel.y.texts), default=0) <= box.left


@pytest.mark.parametrize(
    ("text", "room", "short"),
    [
        ("short", 5, "short"),
        ("abcdefghij", 5, "ab\u2026ij"),
        ("abcdefghij and klmnopqrst", 15, "ab\u2026ij and kl\u2026st"),
        ("one and klmnopqrstuvw", 15, "one and klm\u2026uvw"),
    ],
)
def test_long_texts_lose_their_middle_and_of_two_names_both_stay(text, room, short):
    found = shortened(text, room)
    assert len(found) <= max(room, 3)
    assert found == short


MANY = tuple(f"a rather long task name {k}" for k in range(20))


def agreement_of_many(snapshots=4):
    """Every cosine of pair k is (k - 95) / 100; of the 190 the first is the least and the last the largest."""
    cosine = np.tile((np.arange(190) - 95) / 100, (snapshots, 1))
    couples = tuple(f"{a} and {b}" for a, b in combinations(MANY, 2))
    norms = np.tile(np.arange(1.0, 22.0), (snapshots, 1))
    return curvature.agreement(
        tasks=(*MANY, "average"),
        steps=10 * np.arange(snapshots),
        couples=couples,
        pairs=tuple(f"{a} and {b}" for a, b in combinations((*MANY, "average"), 2)),
        angles=np.full((snapshots, 210, 2), 45.0),
        space_error=np.zeros((snapshots, 21)),
        cosine=cosine,
        cosine_stderr=0 * cosine,
        **dict.fromkeys(("conflict", "conflict_low", "conflict_high"), 0.5 - cosine / 2),
        norm=norms,
        norm_stderr=0 * norms,
        **{name: np.ones((snapshots, 21, 2)) for name in ("values", "residuals")},
        converged=np.ones((snapshots, 21, 2), bool),
        gap=np.ones((snapshots, 21)),
        cross=np.ones((snapshots, 21, 21, 2)),
    )


def tracks_of_many():
    one = curvature.tracks()
    every = [0] * 20 + [2]
    values = {name: getattr(one, name)[:, every] for name in VALUES}
    values["values"] = values["values"] * np.arange(21)[:, None]
    return replace(one, tasks=(*MANY, "average"), line=one.line[every], **values)


VALUES = ("values", "residuals", "converged", "track", "match", "grouped", "overlaps", "low", "high", "resolved")
SHADOWS = [records.shadow(tasks=MANY)]
PAGES = {
    "surface": lambda: scenes.surface(records.surface(MANY), SHADOWS),
    "significant": lambda: scenes.significant(records.surface(MANY), SHADOWS),
    "relief": lambda: scenes.surface_relief(records.surface(MANY), SHADOWS),
    "gap": lambda: scenes.gap([feet(tasks=MANY)]),
    "differences": lambda: scenes.difference(
        records.surface(MANY), replace(records.surface(MANY), loss=2 * records.surface(MANY).loss, split="training")
    ),
    "tracks": lambda: scenes.tracked_eigenvalues(tracks_of_many()),
    "layers": lambda: scenes.layer_eigenvalues({"first": tracks_of_many(), "second": tracks_of_many()}),
    "eigenvalues": lambda: scenes.eigenvalues([records.history(tasks=MANY)]),
}


@pytest.mark.parametrize("name", PAGES)
def test_of_many_tasks_those_that_differ_most_fit_a_page_with_the_average(name):
    scene = PAGES[name]()
    assert static.size(scene)[1] < 240
    titles = [panel.title for panel in scene.panels if panel.title != "distance off the plane"]
    assert len(titles) == 12
    assert titles[-1].startswith("average of ")
    if name not in ("eigenvalues", "differences"):  # of which all are equal
        assert titles[:-1] == list(MANY[9:])
    assert re.search(
        "Of 21 losses 12 are drawn: those (whose values range furthest|of the largest values)", scene.caption
    )
    assert all(box.height > 18 and box.width > 18 for box in plan(scene).boxes)


def test_few_tasks_are_drawn_all_as_they_were():
    scene = scenes.surface(records.surface(), [records.shadow()])
    assert [(row.columns, row.height) for row in scene.rows] == [(2, 66.0), (2, 66.0), (1, 22.0)]
    assert "are drawn: those" not in scene.caption


def test_of_many_pairs_of_gradients_the_median_the_range_and_the_ends_are_drawn():
    scene = scenes.gradient_agreement(agreement_of_many())
    first, last = f"{MANY[0]} and {MANY[1]}", f"{MANY[18]} and {MANY[19]}"
    keys = [key.label for key in scene.legend]
    assert keys == ["average of the tasks", first, last, "median", "least to largest"]
    assert static.size(scene)[1] < 130
    norm, cosine, conflict = scene.panels
    for panel, (low, middle, high) in (
        (norm, (1, 10.5, 20)),
        (cosine, (-0.95, -0.005, 0.94)),
        (conflict, (3.0, 50.25, 97.5)),
    ):
        (band,) = [mark for mark in panel.marks if isinstance(mark, Band)]
        np.testing.assert_allclose([band.low, band.high], [[low] * 4, [high] * 4])
        (line,) = [mark for mark in panel.marks if isinstance(mark, Line) and mark.group == "median"]
        np.testing.assert_allclose(line.y, middle)
        assert {mark.group for mark in panel.marks if mark.group} <= set(keys)
    drawn = {mark.group: mark.y[0] for mark in cosine.marks if isinstance(mark, Line)}
    assert (drawn[first], drawn[last]) == (-0.95, 0.94)
    assert "Of 20 tasks and 190 pairs the median and the range are drawn, and the pairs of the least" in scene.caption
    assert f"cosine on average: {first} and {last}." in scene.caption


def test_pairs_are_apart_at_one_snapshot_too():
    one, couples = at_one_snapshot(curvature.agreement()), ("one and two", "one and three", "two and three")
    names = ("cosine", "cosine_stderr", "conflict", "conflict_low", "conflict_high")
    changes = {name: np.repeat(getattr(one, name), 3, axis=1) for name in names}
    scene = scenes.gradient_agreement(replace(one, couples=couples, **changes))
    assert "Pairs are drawn a little apart." in scene.caption
    for panel in scene.panels[1:]:
        places = {mark.group: float(mark.x[0]) for mark in panel.marks if isinstance(mark, Points)}
        assert [places[name] for name in couples] == pytest.approx([-0.012, 0.0, 0.012])


def test_titles_of_pairs_leave_out_what_all_names_begin_with():
    scene = scenes.principal_angles(agreement_of_many())
    assert [panel.title for panel in scene.panels] == [f"\u20260 and \u2026{k}" for k in range(1, 7)]
    assert "\u2026 stands for what the names of all tasks begin with, 'a rather long task name '." in scene.caption
    assert scenes.principal_angles(curvature.agreement()).panels[0].title == "one and two"


def clear(scene):
    """Whether on every axis no text of a tick touches the next one, and every label is on the paper."""
    with matplotlib.rc_context(static.RC):
        figure = static.figure(scene)
        FigureCanvasAgg(figure).draw()
        paper = figure.bbox
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                texts = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
                texts = [box for box in texts if box.width and paper.fully_overlaps(box)]
                assert not any(a.overlaps(b) for a, b in pairwise(texts)), [t.get_text() for t in axis.get_ticklabels()]
                label = axis.get_label().get_window_extent()
                assert not axis.get_label_text() or (label.x0 >= paper.x0 and label.x1 <= paper.x1)
    return True


def thin():
    """A plane whose second axis shows nothing of the runs."""
    wide = records.surface(("one",), nx=5, ny=3)
    return replace(wide, x=np.linspace(-1.6, 1.6, 5), y=np.linspace(-0.04, 0.04, 3))


def zero_sharpness():
    one = at_one_snapshot(curvature.sharpness())
    return replace(one, eigenvalue=0 * one.eigenvalue, residual=0 * one.residual, mean_rise=1e-13 * one.mean_rise)


def short_run():
    return replace(moved(), seconds=1e-3 * np.asarray(moved().seconds))


TIGHT = {
    "thin plane": lambda: scenes.surface(thin()),
    "sharpness of zero": lambda: scenes.sharpness(zero_sharpness()),
    "seconds": lambda: scenes.movement([short_run()], [], "net"),
    "six characters": lambda: scenes.gradient_agreement(
        replace(curvature.agreement(), norm=-0.0256 - 1e-4 * np.arange(12.0).reshape(4, 3))
    ),
}


@pytest.mark.parametrize("name", TIGHT)
def test_ticks_do_not_touch_and_labels_are_on_the_paper(name):
    assert clear(TIGHT[name]())


@pytest.mark.parametrize(("tasks", "pairs", "views"), [(1, 4, 1), (3, 4, 4), (7, 2, 8), (20, 1, 16)])
def test_paths_of_many_tasks_fit_a_page(tasks, pairs, views):
    names = (*MANY[:tasks], "average") if tasks > 1 else MANY[:1]
    excess = np.tile(np.arange(1.0, len(names) + 1)[:, None] * np.array([0.0, 1.0, 2.0, 1.0, 0.0]), (6, 1, 1))
    ends = {"starts": ("a",) * 6, "ends": tuple("bcdefg"), "length": np.ones(6), "done": np.ones(6, bool)}
    arrays = {"loss": 1 + excess, "stderr": excess, "excess": excess, "excess_stderr": excess}
    scene = scenes.paths([path_losses(views=names, **ends, **arrays)])
    assert static.size(scene)[1] < 260
    assert len(scene.panels) == pairs * views
    assert scene.panels[-1].title == f"{pairs}: {names[-1]}"
    assert ("Of 21 losses the 16 that range furthest" in scene.caption) == (tasks == 20)
    if tasks == 20:
        assert [panel.title for panel in scene.panels] == [f"1: {name}" for name in names[5:]]
