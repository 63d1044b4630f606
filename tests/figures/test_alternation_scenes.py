"""Scenes, table and words of alternating steps hold the numbers of the records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import figures
from analysis.results import AVERAGE, Alternation
from figures import report, scenes
from figures.alternation_tables import STUDENT, alternation_table, verdict_words
from figures.marks import Band, Cells, Line, Points, Segments
from figures.report import Contents
from tests.figures.records import NASTY, run

RATE, QUANTILE = 0.1, 2.0


def record(tasks=("one", "two"), label="independent", seed=0, snapshots=4, rungs=3) -> Alternation:
    """Predicted (k + 1) (s - 1.5) rate^2, measured that plus 0.2 rate^3 at each rate; standard errors 0.1 rate^2."""
    count = len(tasks)
    rates = RATE / 2.0 ** np.arange(rungs)
    slope = (np.arange(snapshots) - 1.5)[:, None] * np.append(1.0 + np.arange(count), (count + 1) / 2)
    predicted = RATE**2 * slope
    measured = rates[:, None] ** 2 * slope[:, None] + 0.2 * rates[:, None] ** 3
    error = np.full_like(slope, 0.1 * RATE**2)
    gram = np.broadcast_to(np.eye(count) + 0.25, (snapshots, count, count))
    ones = np.ones(snapshots)
    return Alternation(
        run=run(label, seed),
        tasks=tasks,
        losses=(*tasks, AVERAGE),
        order=np.arange(count)[::-1].copy(),
        rates=rates,
        steps=10 * np.arange(snapshots),
        done=np.ones(snapshots, bool),
        loss=np.ones_like(slope),
        curvature=np.arange(snapshots * count**3, dtype=float).reshape(snapshots, count, count, count),
        head_curvature=np.full((snapshots, count, count), 1000.0),
        predicted=predicted,
        predicted_stderr=error,
        predicted_mean=predicted / 2,
        predicted_mean_stderr=error,
        measured=measured,
        measured_stderr=error,
        measured_mean=measured[:, 0] / 2,
        measured_mean_stderr=0 * error,
        rounding=0 * error,
        products=gram.copy(),
        agreement=ones,
        agreement_stderr=ones,
        agreement_slope=-ones,
        agreement_averaged=-0.9 * ones,
        agreement_sequential=-0.8 * ones,
        agreement_shuffled=-0.7 * ones,
        agreement_gain=0.11 * ones,
        agreement_gain_mean=0.22 * ones,
        orders=2,
        every_order=True,
        preconditioner="plain gradient steps",
        quantile=QUANTILE,
        blocks=10,
        examples=100,
        split="evaluation",
        data="data",
        seed=0,
    )


def marks(panel, kind):
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def test_a_record_knows_its_remainder_its_order_and_its_limit():
    found = record()
    np.testing.assert_allclose(found.remainder, 0.2 * found.rates[:, None] ** 3 + 0 * found.remainder)
    np.testing.assert_allclose(found.remainder_order, 3)
    np.testing.assert_allclose(found.extrapolated * RATE**2, found.predicted, atol=1e-12)
    low, high = found.interval
    np.testing.assert_allclose((high - low) / 2, QUANTILE * 0.1 * RATE**2)
    assert found.verdicts[0].tolist() == ["helps"] * 3
    assert found.verdicts[3].tolist() == ["hurts"] * 3
    np.testing.assert_allclose(found.cosines, 0.2)
    assert np.isnan(replace(found, rounding=found.predicted_stderr).remainder_order).all(), "rounding hides it"
    alone = record(rungs=1)
    assert np.isnan(alone.remainder_order).all()


def test_predictions_have_bands_and_measurements_bars():
    found = record()
    scene = scenes.alternation([found])
    assert [panel.title for panel in scene.panels] == ["one", "two", "average of the tasks"]
    panel = scene.panels[1]
    (band,), (points,) = marks(panel, Band), marks(panel, Points)
    np.testing.assert_allclose((band.high - band.low) / 2, QUANTILE * 0.1)
    np.testing.assert_allclose((band.high + band.low) / 2, 2 * (np.arange(4) - 1.5))
    np.testing.assert_allclose(points.y, 2 * (np.arange(4) - 1.5) + 0.2 * RATE)
    bars = marks(panel, Segments)[-1]
    np.testing.assert_allclose(bars.y1 - bars.y0, 2 * QUANTILE * 0.1)
    dotted = next(line for line in marks(panel, Line) if line.look.dash == "dot")
    np.testing.assert_allclose(dotted.y, np.arange(4) - 1.5)


def test_a_prediction_is_compared_with_its_measurement_on_equal_axes():
    scene = scenes.prediction_and_measurement([record(), record(label="averaged")])
    panel = scene.panels[0]
    assert panel.x.range == panel.y.range
    guide, *_ = marks(panel, Segments)
    np.testing.assert_array_equal(guide.x0, guide.y0)
    (points, _) = marks(panel, Points)
    np.testing.assert_allclose(points.y - points.x, 0.2 * RATE)
    assert "They have one sign at 24 of 24 that are larger than rounding." in scene.caption
    relative = marks(scene.panels[3], Line)[0]
    np.testing.assert_allclose(relative.y, 0.2 * RATE / np.abs(np.arange(4) - 1.5))


def test_the_remainder_is_drawn_against_the_rate_beside_a_line_in_proportion():
    scene = scenes.alternation_remainder([record()])
    panel = scene.panels[0]
    assert (panel.x.scale, panel.y.scale) == ("log", "log")
    *lines, guide = marks(panel, Line)
    np.testing.assert_allclose(guide.y[1] / guide.y[0], guide.x[1] / guide.x[0])
    assert len(lines) == 4
    np.testing.assert_allclose(lines[0].y, 0.2 * lines[0].x)
    assert "power 3.00 of the rate" in scene.caption


def test_where_there_is_no_remainder_nothing_is_announced_and_it_is_said():
    exact = record()
    exact = replace(exact, measured=exact.rates[:, None] ** 2 * (exact.predicted / exact.rate**2)[:, None])
    scene = scenes.alternation_remainder([exact])
    assert scene.legend == ()
    assert [panel.title for panel in scene.panels] == ["one: none", "two: none", "average of the tasks: none"]
    assert not any(panel.marks or panel.x.label or any(panel.y.texts) for panel in scene.panels)
    assert all(axis.ticks and axis.scale == "linear" for panel in scene.panels for axis in (panel.x, panel.y))
    assert "There is no remainder, and nothing is drawn: one, two and average of the tasks." in scene.caption
    nothing = replace(exact, measured=0 * exact.measured, predicted=0 * exact.predicted)
    cells = [row[-2].text for row in alternation_table([nothing]).rows]
    assert cells == ["\u2013"] * 3


def test_cells_hold_the_tensor_with_the_heads_part_and_star_what_counts():
    found = record(("one", "two", "three"))
    scene = scenes.curvature_tensor(found, 1)
    assert [panel.title for panel in scene.panels] == ["loss of one", "loss of two", "loss of three"]
    (cells,) = marks(scene.panels[1], Cells)
    expected = found.curvature[1, :, :, 1].copy()
    expected[:, 1] += 1000
    expected[np.arange(3), np.arange(3)] = np.nan
    np.testing.assert_array_equal(cells.z, expected)
    starred = [[text.endswith("*") for text in row] for row in cells.texts]
    assert starred == [[False, False, False], [True, False, False], [True, True, False]], "the order is reversed"
    assert cells.texts[0][1] == "1000"


def test_agreement_is_compared_with_its_prediction():
    changes, gains, cosine = scenes.agreement_growth([record()]).panels
    sequential, averaged = marks(changes, Points)
    assert (sequential.x[0], sequential.y[0], averaged.y[0]) == (-1, -0.8, -0.9)
    mean, used = marks(gains, Points)
    np.testing.assert_allclose([mean.x[0], mean.y[0], used.x[0], used.y[0]], [0.22, 0.2, 0.11, 0.1])
    np.testing.assert_allclose(marks(cosine, Line)[0].y, 0.2)


def test_of_many_tasks_those_that_differ_most_are_shown():
    tasks = tuple(f"t{k}" for k in range(9))
    scene = scenes.alternation([record(tasks)])
    assert [panel.title for panel in scene.panels] == [*tasks[3:], "average of the tasks"]
    assert "Of 9 tasks the 6 with the largest differences are shown." in scene.caption
    assert len(scenes.curvature_tensor(record(tasks)).panels) == 6


def test_what_is_not_done_is_left_out_and_said():
    found = record()
    done = np.array([True, True, False, False])
    broken = {
        name: np.where(done.reshape(-1, *[1] * (getattr(found, name).ndim - 1)), getattr(found, name), np.nan)
        for name in (
            "predicted",
            "predicted_stderr",
            "measured",
            "measured_stderr",
            "curvature",
            "agreement_sequential",
        )
    }
    part = replace(found, done=done, **broken)
    for scene in (scenes.alternation([part]), scenes.prediction_and_measurement([part])):
        assert "2 snapshots not done yet." in scene.caption
    assert marks(scenes.alternation([part]).panels[0], Points)[0].x.tolist() == [0, 10]
    scenes.alternation_remainder([part])
    scenes.agreement_growth([part])
    scenes.curvature_tensor(part)
    nothing = replace(part, done=np.zeros(4, bool))
    assert verdict_words([nothing]) == ()
    scenes.curvature_tensor(nothing)


def test_the_table_counts_verdicts_and_names_the_remainder():
    rows = alternation_table([record()]).rows
    texts = [[cell.text for cell in row] for row in rows]
    assert texts[0][1:4] == ["2", "2", "0"]
    assert texts[0][4:7] == ["0", "0", "0.0200"]
    assert [row[0].note for row in rows] == ["one", "two", "average of the tasks"]
    assert texts[0][8] == "3.00"


def test_words_say_where_it_helps_whether_theory_holds_and_how_many_runs_there_are():
    one, three = verdict_words([record()]), verdict_words([record(seed=k) for k in range(3)])
    text = " ".join(one)
    assert "independent, steps at rate 0.1, plain gradient steps: of 4 snapshots" in text
    assert "leaves one lower at 2 and higher at 2, two lower at 2 and higher at 2 and the average" in text
    assert "From 1 run there is no interval over seeds; one needs 3 or more." in text
    assert (
        "has the sign of the measurement in 8 of 8 differences of single tasks, and is within 50% of itself in 8"
        in text
    )
    assert "falls with the third power of the rate in 8 of 8." in text
    assert "agree more than after the averaged step at 4 of 4 snapshots, with the predicted sign at 4" in text
    assert "Over 3 runs the average loss differs by +2.00e-04" in " ".join(three)


def test_quantiles_are_those_of_students_t():
    np.testing.assert_allclose(STUDENT, stats.t.ppf(0.975, np.arange(2, 16)), atol=5e-4)


def test_words_say_where_theory_fails():
    found = record()
    kinked = replace(found, measured=found.measured + 0.5 * found.rates[:, None] ** 2)
    text = " ".join(verdict_words([kinked]))
    assert "falls with the third power of the rate in 0 of 8: elsewhere the rate is too large" in text
    assert "kinks (ReLU, max pooling)" in text


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_both_renderers_draw_all_of_it(tmp_path, suffix):
    found = [record(("one", NASTY)), record(("one", NASTY), "averaged")]
    for k, scene in enumerate(
        (
            scenes.alternation(found),
            scenes.prediction_and_measurement(found),
            scenes.alternation_remainder(found),
            scenes.agreement_growth(found),
            scenes.curvature_tensor(found[0]),
        )
    ):
        assert figures.draw(scene, tmp_path / f"{k}{suffix}").stat().st_size > 1000


def test_a_report_has_a_section_of_its_own():
    found = Contents("a study", alternations=(record(),))
    (section,) = report.sections(found)
    assert (section.title, len(section.scenes), len(section.tables)) == ("Is alternation helping?", 5, 1)
    page = report.render(found).decode()
    assert section.words[0] in page
    assert report.sections(Contents("a study")) == ()


def test_what_rounding_alone_could_make_counts_for_nothing():
    usual = record()
    largest = np.abs(usual.measured[:, 0]).max()
    some = usual.rounding.copy()
    some[0, 0] = largest
    words = " ".join(verdict_words([replace(usual, rounding=some)]))
    assert "has the sign of the measurement in 7 of 7 differences of single tasks" in words
    assert "Left out: 1 difference no larger than rounding, or not finite." in words
    scene = scenes.prediction_and_measurement([replace(usual, rounding=some)])
    assert "They have one sign at 11 of 11 that are larger than rounding." in scene.caption
    none = " ".join(verdict_words([replace(usual, rounding=np.full_like(some, 2 * largest))]))
    assert "No difference of a single task is finite and larger than rounding" in none
    assert "within 50%" not in none
