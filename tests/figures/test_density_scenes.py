"""Scenes and the table of spectral densities: their numbers, their bands, and what their captions say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from analysis.results import AVERAGE, Density, Eigenpairs, SpectrumSummary, Traces
from figures import interactive, scenes, static, style
from figures.density_tables import spectrum_table, traces_table
from figures.marks import Band, Line, Panel, Points, Segments
from figures.scenes.spectrum_numbers import QUANTITIES, interval
from figures.scenes.warps import Straight, Symmetric, around
from tests.figures import records


def spectral(operator: str = "one", step: int = 20, probes: int = 3, scale: float = 1.0, **changes) -> Density:
    """Three nodes a probe at -1, 0.1 p and 10 (times scale) with weights 0.1, 0.85 and 0.05: in closed form."""
    nodes = scale * np.stack([[-1.0, 0.1 * p, 10.0] for p in range(probes)])
    values = {
        "run": records.run(),
        "operator": operator,
        "matrix": "Hessian",
        "subset": "shared",
        "step": step,
        "size": 1000,
        "nodes": nodes,
        "weights": np.tile([0.1, 0.85, 0.05], (probes, 1)),
        "degrees": np.full(probes, 3),
        "exact": np.zeros(probes, bool),
        "width": 0.5 * scale,
        "width_rule": "given",
        "probe": "Rademacher",
        "quantile": 4.3,
        "precision": 1.2e-7,
        "seed": 0,
        "products": 3 * probes,
        "examples": 500,
        "data": "data",
    }
    return Density(**{**values, **changes})


def lost(operator: str = "one", step: int = 20) -> Density:
    nothing = np.full((3, 3), np.nan)
    return spectral(operator, step, nodes=nothing, weights=nothing, width=float("nan"))


def summary(label: str = "averaged", operators: tuple[str, ...] = ("one", AVERAGE), **changes) -> SpectrumSummary:
    """Every number is 100, 10, 1 along three snapshots times 1, 2 for the operators, a tenth of it its error."""
    base = np.array([100.0, 10.0, 1.0])[:, None] * np.arange(1, len(operators) + 1)
    shares = np.tile([0.2], base.shape)
    fields = ("trace", "frobenius", "intrinsic", "participation", "entropy")
    values = {
        "run": records.run(label),
        "operators": operators,
        "matrix": "Hessian",
        "subset": "shared",
        "steps": np.array([0, 10, 20]),
        "size": 1000,
        **dict.fromkeys(fields, base),
        **{f"{name}_stderr": base / 10 for name in fields},
        "norm": base,
        **dict.fromkeys(("negative", "resolved", "negative_mass"), shares),
        **{f"{name}_stderr": shares / 10 for name in ("negative", "resolved", "negative_mass")},
        "negative_low": shares / 2,
        "negative_high": shares * 2,
        **dict.fromkeys(("resolution", "sampling", "discretisation", "trace_gap", "square_gap"), shares),
        "gap_limit": 8.0,
        "way": "XTrace, Gaussian",
        "density_quantile": 2.0,
        "trace_quantile": 3.0,
        "seed": 0,
        "products": 4200,
        "examples": 500,
        "data": "data",
    }
    return SpectrumSummary(**{**values, **changes})


def pairs(converged: tuple[bool, bool] = (True, False)) -> Eigenpairs:
    return Eigenpairs(
        values=np.array([10.0, 5.0]),
        vectors=np.zeros((2, 1000)),
        residuals=np.array([0.5, 3.0]),
        converged=np.array(converged),
        end="largest",
        products=20,
    )


def of(panel: Panel, kind: type) -> list:
    return [mark for mark in panel.marks if isinstance(mark, kind)]


def test_the_curve_is_the_records_own_on_a_straight_axis() -> None:
    record = spectral()
    (panel,) = scenes.density([record], warp=Straight()).panels
    (line,), (band,) = of(panel, Line), of(panel, Band)
    curve = record.curve(line.x)
    seen = np.isfinite(line.y)
    np.testing.assert_allclose(line.y[seen], curve.mean[seen])
    floor = 1 / (1000 * 0.5 * np.sqrt(2 * np.pi)) / 10
    assert (curve.mean[~seen] < floor).all()
    np.testing.assert_allclose(band.low, np.maximum(curve.low, floor))
    np.testing.assert_allclose(line.hover[0].values, curve.mean)
    assert panel.y.scale == "log"
    assert panel.y.range is not None
    assert panel.y.range[0] == pytest.approx(floor)
    assert panel.x.label == "eigenvalue (loss / parameter²)"


def test_the_density_over_decades_has_mass_one_there() -> None:
    record = spectral(probes=1)
    scene = scenes.density([record])
    (line,) = of(scene.panels[0], Line)
    # All but what is below a tenth of one eigenvalue's height, of 1,000.
    assert np.trapezoid(np.nan_to_num(line.y), line.x) == pytest.approx(1, abs=2e-3)
    assert not of(scene.panels[0], Band), "one probe has no interval"
    assert "1 Rademacher probe with 3 nodes" in scene.caption
    assert "per decade" in scene.caption


def test_converged_eigenvalues_stand_at_the_height_of_one_with_their_residuals() -> None:
    record, warp = spectral(), Straight()
    scene = scenes.density([record, spectral("two")], {"one": pairs()}, warp)
    (points,), (bars,) = of(scene.panels[0], Points), of(scene.panels[0], Segments)
    assert points.x.tolist() == [10.0]
    assert points.y == pytest.approx(1 / (1000 * 0.5 * np.sqrt(2 * np.pi)))
    assert (bars.x0.tolist(), bars.x1.tolist()) == ([9.5], [10.5])
    assert not of(scene.panels[1], Points)
    assert [key.label for key in scene.legend][1] == "eigenvalue with its residual, by Lanczos"
    assert len(scenes.density([record], {"one": pairs((False, False))}).legend) == 1


def test_panels_that_are_compared_share_their_axis_and_the_caption_has_both_errors() -> None:
    shown = [spectral("one"), spectral(AVERAGE, scale=3.0)]
    scene = scenes.density(shown)
    assert [panel.title for panel in scene.panels] == ["one", "average of the tasks"]
    assert scene.panels[0].x == scene.panels[1].x
    for record in shown:
        assert f"{record.sampling:.2g} and {record.discretisation:.2g}" in scene.caption
    assert "Hessian on shared, 1000 parameters, 500 evaluation examples" in scene.caption
    assert "averaged-0 at step 20" in scene.caption


def test_the_cumulative_share_has_its_bands_and_the_bounds_of_the_degree() -> None:
    record = spectral()
    scene = scenes.cumulative([record], Straight())
    low, high, mean = of(scene.panels[0], Line)
    (band,) = of(scene.panels[0], Band)
    x = low.x
    np.testing.assert_allclose(mean.y[1::2], record.cumulative(x).mean)
    assert mean.y[-1] == 1.0
    assert ((band.low >= 0) & (band.high <= 1)).all()
    # At the largest node all is below but the last weight, 0.05, may be above; at the first all but 0.95 is above.
    assert (low.y[-1], high.y[-1]) == pytest.approx((0.95, 1.0))
    assert (low.y[0], high.y[0]) == pytest.approx((0.0, 0.95))
    exact = scenes.cumulative([replace(record, exact=np.ones(3, bool))], Straight())
    one, other, line = of(exact.panels[0], Line)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_allclose(one.y, line.y[1::2])


def test_ridges_stand_at_their_snapshots_in_the_order_of_steps() -> None:
    shown = [spectral(name, step) for step in (0, 10, 20) for name in ("one", AVERAGE)]
    scene = scenes.densities_along(shown)
    assert [panel.title for panel in scene.panels] == ["one", "average of the tasks"]
    for panel in scene.panels:
        assert panel.y.texts == ("0", "10", "20")
        lines = of(panel, Line)
        assert [float(line.y.min()) for line in lines] == pytest.approx([2.0, 1.0, 0.0])
        assert len(of(panel, Band)) == 3
        assert max(float(line.y.max() - line.y.min()) for line in lines) == pytest.approx(1.7)
    assert "One ridge a snapshot (3 of 3)" in scene.caption
    many = scenes.densities_along([spectral("one", step) for step in range(30)])
    assert many.panels[0].y.texts[0] == "0"
    assert many.panels[0].y.texts[-1] == "29"
    assert "(8 of 30)" in many.caption


def test_what_is_not_finite_is_left_out_and_named() -> None:
    for make in (scenes.density, scenes.cumulative, scenes.densities_along):
        scene = make([spectral(), lost("two", 30)])
        assert len(scene.panels) == 1
        assert "Left out because products were not finite: two at step 30." in scene.caption
        assert "nan" not in scene.caption
        assert make([lost()]).panels == ()


@pytest.mark.parametrize("value", [-300.0, -1.0, -1e-3, 0.0, 1e-3, 2.0, 1e5])
def test_the_symmetric_scale_is_a_logarithm_far_out_and_even_near_zero(value: float) -> None:
    place = float(Symmetric(0.1)(np.array(value)))
    assert place == pytest.approx(-float(Symmetric(0.1)(np.array(-value))))
    if abs(value) >= 1:
        assert place == pytest.approx(np.sign(value) * np.log10(abs(value) / 0.1), abs=5e-3)
    if abs(value) <= 1e-3:
        assert place == pytest.approx(value / 0.2 / np.log(10), rel=1e-4)


def test_ticks_of_the_symmetric_scale_are_powers_of_ten_at_their_places() -> None:
    warp = Symmetric(0.05)
    axis = warp.axis("x", np.array([-2.0, 150.0]))
    assert axis.texts == ("−1", "0", "1", "10", "100")
    np.testing.assert_allclose(axis.ticks, warp(np.array([-1.0, 0, 1, 10, 100])))
    assert len(warp.axis("x", np.array([-1e9, 1e12])).ticks) <= 12
    # Within a decade there are ticks between powers of ten, at their places as well.
    within = warp.axis("x", np.array([0.4, 9.0]))
    assert within.texts == ("0.5", "1", "2", "5")
    np.testing.assert_allclose(within.ticks, warp(np.array([0.5, 1, 2, 5])))
    assert warp.axis("x", np.array([-0.3, 0.4])).texts == ("−0.2", "0", "0.2")
    assert around([np.nan, 0.0]) == Straight()
    assert around([0.1, 0.2, 0.3]) == Symmetric(0.2)


def test_numbers_along_training_have_a_line_a_loss_and_their_intervals() -> None:
    record = summary()
    scene = scenes.spectrum_numbers(record)
    assert len(scene.panels) == 6
    trace, negative = scene.panels[0], scene.panels[2]
    for k, (line, bars) in enumerate(zip(of(trace, Line), of(trace, Segments), strict=True)):
        np.testing.assert_array_equal(line.y, record.trace[:, k])
        np.testing.assert_allclose(line.x, record.steps + 20 * 0.008 * (k - 0.5))
        np.testing.assert_array_equal(line.hover[1].values, record.steps)
        # Three standard errors of a tenth each.
        np.testing.assert_allclose(bars.y0, 0.7 * record.trace[:, k])
        np.testing.assert_allclose(bars.y1, 1.3 * record.trace[:, k])
    assert trace.y.scale == "log"
    (bars, _) = of(negative, Segments)
    np.testing.assert_allclose(bars.y0, 0.1)
    np.testing.assert_allclose(bars.y1, 0.4)
    assert [key.label for key in scene.legend] == ["one", "average of the tasks"]
    assert "Logarithmic axis: Trace" in scene.caption
    assert "where it can lie for the number of nodes" in scene.caption
    value, low, high = interval(record, QUANTITIES[5], 0)
    np.testing.assert_allclose(high - value, 2.0 * record.entropy_stderr[:, 0])
    np.testing.assert_allclose(value - low, 2.0 * record.entropy_stderr[:, 0])


def test_runs_are_compared_one_panel_a_loss_in_the_look_of_their_strategy() -> None:
    both = [summary("averaged"), summary("independent", trace=-summary().trace)]
    scene = scenes.spectrum_compared(both, order=("independent",))
    assert [panel.title for panel in scene.panels] == ["one", "average of the tasks"]
    looks = style.looks(["independent", "averaged"])
    assert {key.label: key.look for key in scene.legend} == looks
    assert scene.panels[0].y.scale == "linear"
    assert [float(line.y[0]) for line in of(scene.panels[0], Line)] == [100.0, -100.0]
    broken = np.full((3, 2), np.nan)
    holes = scenes.spectrum_compared([summary(trace=broken, trace_stderr=broken)])
    assert "6 values of spectra not finite and left out." in holes.caption


def test_the_table_has_every_number_with_its_error() -> None:
    made = spectrum_table(summary())
    assert made.title == "Spectra of averaged-0 at step 20"
    assert [row[0].text for row in made.rows] == ["one", "average of the tasks"]
    assert made.rows[0][1].text == "1.00 ± 0.10"
    assert (made.rows[0][4].text, made.rows[0][4].note) == ("20.0%", "10 to 40 %, surely 20 %")
    assert "4200 products in all." in made.note
    assert "step 0" in spectrum_table(summary(), 0).title
    nothing = np.full((3, 2), np.nan)
    assert spectrum_table(summary(trace=nothing, trace_stderr=nothing)).rows[0][1].text == "–"


def test_traces_alone_have_their_panels_intervals_and_table() -> None:
    whole = summary()
    record = Traces(**{spec.name: getattr(whole, spec.name) for spec in fields(Traces)})
    scene = scenes.spectrum_numbers(record)
    assert [panel.title for panel in scene.panels] == ["Trace", "Frobenius norm", "Effective rank tr(H)² / ‖H‖²"]
    every = scenes.spectrum_numbers(whole).panels
    assert [p.marks for p in scene.panels] == [every[k].marks for k in (0, 1, 4)], "the same marks as with a density"
    assert "Trace and norm: XTrace, Gaussian." in scene.caption
    assert "quadrature" not in scene.caption
    table = traces_table(record)
    assert table.head == ("step", "loss", "trace", "Frobenius norm", "tr² / ‖H‖²")
    assert [[cell.text for cell in row] for row in table.rows[:2]] == [
        ["0", "one", "100 ± 10", "100 ± 10", "100 ± 10"],
        ["0", "average of the tasks", "200 ± 20", "200 ± 20", "200 ± 20"],
    ]


@pytest.mark.parametrize("name", ["density", "cumulative", "along", "numbers", "compared", "lost"])
def test_both_renderers_draw_every_scene(name: str) -> None:
    shown = [spectral("one"), spectral(records.NASTY, scale=1e-6)]
    scene = {
        "density": lambda: scenes.density(shown, {"one": pairs()}),
        "cumulative": lambda: scenes.cumulative(shown),
        "along": lambda: scenes.densities_along(shown),
        "numbers": lambda: scenes.spectrum_numbers(summary()),
        "compared": lambda: scenes.spectrum_compared([summary()]),
        "lost": lambda: scenes.density([lost()]),
    }[name]()
    assert static.render(scene, ".png", dpi=40)[:4] == b"\x89PNG"
    assert interactive.figure(scene)["data"] or name == "lost"
