"""Both renderers draw the numbers of the scene, safely, reproducibly, and without touching anything global."""

from __future__ import annotations

from pathlib import Path as File

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.contour import ContourSet

import figures
from figures import interactive, scenes, static
from figures.marks import Band, Cells, Contours, Line, Path, Points, Relief, Scene, Segments
from tests.figures import records
from tests.figures.records import NASTY

SCENES = {
    "surface": lambda: scenes.surface(records.surface(), [records.shadow(), records.shadow("independent")]),
    "relief": lambda: scenes.surface_relief(records.surface(), [records.shadow()]),
    "eigenvalues": lambda: scenes.eigenvalues([records.history(), records.history("independent")]),
    "exploration": lambda: scenes.exploration([records.exploration(seed=0), records.exploration(seed=1, updates=2)]),
    "distances": lambda: scenes.distance_matrix(records.distances()),
    "training": lambda: scenes.training([records.training(), records.training("independent", shift=1.0)]),
    "rates": lambda: scenes.rate_search([records.search()]),
    "comparisons": lambda: scenes.comparisons([records.comparison()]),
}


def nasty() -> Scene:
    tasks = (NASTY, "_two")
    return scenes.surface(records.surface(tasks), [records.shadow(NASTY, tasks=tasks)])


def drawn(scene: Scene) -> matplotlib.figure.Figure:
    with matplotlib.rc_context(static.RC):
        return static.figure(scene)


def marks(scene: Scene, kind: type) -> list:
    return [mark for panel in scene.panels for mark in panel.marks if isinstance(mark, kind)]


@pytest.mark.parametrize("name", SCENES)
def test_plotly_shows_the_numbers_of_the_scene(name: str) -> None:
    scene = SCENES[name]()
    traces = [t for t in interactive.figure(scene).data if t.x is None or len(t.x) == 0 or t.x[0] is not None]
    for mark in (m for panel in scene.panels for m in panel.marks):
        match mark:
            case Line() | Points():
                assert any(same(t.x, mark.x) and same(t.y, mark.y) for t in traces)
            case Path():
                assert any(t.type == "scatter3d" and same(t.z, mark.z) and same(t.x, mark.x) for t in traces)
            case Band():
                assert any(same(t.y, mark.low) for t in traces)
                assert any(same(t.y, mark.high) for t in traces)
            case Contours() | Relief():
                assert any(
                    same(t.z, mark.z) and same(t.customdata, mark.measured) for t in traces if t.type != "scatter"
                )
            case Cells():
                assert any(t.type == "heatmap" and same(t.z, mark.z) for t in traces)
            case Segments():
                assert any(same(t.x[::3], mark.x0) and same(t.y[1::3], mark.y1) for t in traces if t.x is not None)


def same(found: object, expected: np.ndarray) -> bool:
    if found is None or np.shape(found) != expected.shape:
        return False
    return bool(np.array_equal(np.asarray(found, dtype=float), np.asarray(expected, dtype=float), equal_nan=True))


@pytest.mark.parametrize("name", SCENES)
def test_matplotlib_shows_the_numbers_of_the_scene(name: str) -> None:
    scene = SCENES[name]()
    axes = [axes for axes in drawn(scene).axes if axes.get_title("left")] or drawn(scene).axes[:1]
    assert len(axes) == len(scene.panels)
    for panel, one in zip(scene.panels, axes, strict=True):
        lines = [line.get_data_3d() if panel.z else line.get_data() for line in one.lines]
        offsets = [np.asarray(c.get_offsets()) for c in one.collections if isinstance(c, PathCollection)]
        for mark in panel.marks:
            match mark:
                case Line():
                    assert any(same(x, mark.x) and same(y, mark.y) for x, y in lines)
                case Path():
                    assert any(same(x, mark.x) and same(z, mark.z) for x, _, z in lines)
                case Points():
                    assert any(same(o, np.column_stack([mark.x, mark.y])) for o in offsets)
                case Contours():
                    (filled, _) = (c for c in one.collections if isinstance(c, ContourSet))
                    np.testing.assert_array_equal(filled.levels, mark.levels)
                case Cells():
                    np.testing.assert_array_equal(one.images[0].get_array(), mark.z)


def test_both_renderers_paint_the_same_bands_in_the_same_colours() -> None:
    scene = SCENES["surface"]()
    contours = marks(scene, Contours)[0]
    trace = next(t for t in interactive.figure(scene).data if t.type == "contour")
    lines = np.arange(trace.contours.start, trace.contours.end + trace.contours.size / 2, trace.contours.size)
    np.testing.assert_allclose(lines, contours.levels[1:-1])
    assert [colour for _, colour in trace.colorscale] == list(contours.colours)
    assert trace.colorbar.ticktext == contours.bar.texts


def test_points_that_are_not_finite_are_never_painted() -> None:
    done = np.ones((3, 4), bool)
    done[2, 3] = False
    scene = scenes.surface(records.surface(done=done))
    trace = next(t for t in interactive.figure(scene).data if t.type == "contour")
    assert np.isnan(trace.z[2][3])
    assert trace.connectgaps is False
    filled = next(c for c in drawn(scene).axes[0].collections if isinstance(c, ContourSet))
    assert not any(path.contains_point((2.9, 1.9)) for path in filled.get_paths())
    assert any(path.contains_point((1.5, 1.5)) for path in filled.get_paths())


def test_user_text_is_plain_text_in_plotly() -> None:
    json = interactive.figure(nasty()).to_json()
    assert "<b>&" not in json
    assert "$x_1$" not in json
    assert "%{x}<" not in json
    figure = interactive.figure(nasty())
    assert figure.layout.annotations[0].text.startswith("<b>&lt;b&gt;&amp;")
    assert any(trace.name and trace.name.startswith("&lt;b&gt;") for trace in figure.data)


def test_user_text_is_not_tex_in_matplotlib() -> None:
    with matplotlib.rc_context(static.RC):
        titles = [axes._left_title for axes in static.figure(nasty()).axes]
    assert titles[0].get_text() == NASTY
    assert not titles[0].get_parse_math()


def test_labels_with_an_underscore_stay_in_the_legend() -> None:
    scene = scenes.exploration([records.exploration("_hidden")])
    assert [text.get_text() for text in drawn(scene).legends[0].get_texts()] == ["\u200b_hidden"]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".html"])
def test_the_same_scene_gives_the_same_bytes(suffix: str, tmp_path: File) -> None:
    one, two = (figures.draw(SCENES["surface"](), tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert one == two
    assert len(one) > 1000
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


@pytest.mark.parametrize("name", [name for name in SCENES if name != "surface"])
def test_every_scene_is_drawn(name: str, tmp_path: File) -> None:
    assert figures.draw(SCENES[name](), tmp_path / "figure.svg").stat().st_size > 5000


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_a_surface_without_values_is_drawn(suffix: str, tmp_path: File) -> None:
    scene = scenes.surface(records.surface(done=np.zeros((3, 4), bool)))
    assert figures.draw(scene, tmp_path / f"empty{suffix}").exists()
    assert figures.draw(
        scenes.surface_relief(records.surface(done=np.zeros((3, 4), bool))), tmp_path / "r.svg"
    ).exists()


def test_pdf_embeds_truetype_fonts_and_carries_the_caption(tmp_path: File) -> None:
    pdf = figures.draw(SCENES["rates"](), tmp_path / "rates.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/Subject" in pdf
    assert b"/CreationDate" not in pdf


def test_bare_scenes_have_no_title_and_caption() -> None:
    texts = [text.get_text() for text in drawn(SCENES["rates"]().bare()).texts]
    assert texts == []


def test_settings_of_matplotlib_are_left_alone(tmp_path: File) -> None:
    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        figures.draw(SCENES["rates"](), tmp_path / "rates.svg")
        assert dict(matplotlib.rcParams) == before


def test_settings_of_the_user_do_not_change_a_figure(tmp_path: File) -> None:
    plain = figures.draw(SCENES["rates"](), tmp_path / "a.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 31.0, "lines.linewidth": 9.0, "axes.grid": True}):
        assert figures.draw(SCENES["rates"](), tmp_path / "b.svg").read_bytes() == plain


def test_an_unknown_suffix_is_refused_in_one_sentence(tmp_path: File) -> None:
    with pytest.raises(ValueError, match=r"expected a file that ends with \.png, .*, got 'figure\.bmp': choose one"):
        figures.draw(SCENES["rates"](), tmp_path / "figure.bmp")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused_and_not_made(tmp_path: File) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected an existing folder, got .*missing': make it first"):
        figures.draw(SCENES["rates"](), tmp_path / "missing" / "figure.svg")
    assert not (tmp_path / "missing").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    path = figures.draw(SCENES["rates"](), tmp_path / "rates.svg")
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        figures.draw(SCENES["surface"](), path)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["rates.svg"]


def test_a_script_cannot_be_closed_from_inside(tmp_path: File) -> None:
    html = figures.draw(nasty(), tmp_path / "nasty.html").read_text()
    assert "</script>&" not in html
    assert NASTY not in html
    assert html.count("<script") == html.count("</script>") == 4
