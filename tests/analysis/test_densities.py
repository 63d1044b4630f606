"""Spectral densities against exact spectra: mass, moments, distances, bands, errors, and runs along a trajectory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis import densities
from analysis.densities import Fixed, Measurement, Quadrature, Spacing, along, assembled, density, probe_rules
from analysis.operators import MatrixOperator, hessians
from analysis.probes import Gaussian, Rademacher
from analysis.results import AVERAGE
from analysis.results.densities import wasserstein
from analysis.traces import Hutchinson, HutchPlusPlus
from landscape.errors import LandscapeError
from landscape.randomness import generator
from tests.analysis import cases
from tests.analysis.matrices import SPECTRA, operator_with

SIZE = 200
KNOWN = {
    "uniform": np.linspace(-1, 1, SIZE),
    "semicircle": stats.semicircular.ppf((np.arange(SIZE) + 0.5) / SIZE),
    "two clusters": np.r_[-1 + 0.05 * np.linspace(-1, 1, 150), 1 + 0.05 * np.linspace(-1, 1, 50)],
}


@pytest.fixture(scope="module")
def known():
    return {name: operator_with(spectrum)[0] for name, spectrum in KNOWN.items()}


@pytest.mark.parametrize("probe", [Rademacher(), Gaussian()])
@pytest.mark.parametrize("name", KNOWN)
def test_a_density_is_as_near_to_the_exact_one_as_it_says(known, name, probe):
    found = density(known[name], Quadrature(10, 40, probe))
    assert found.distance(KNOWN[name]) <= found.discretisation + 3 * found.sampling
    # Width 2 and 10 probes of 200 entries: the largest error of a share is some 1 / sqrt(2,000).
    assert found.distance(KNOWN[name]) <= 0.03
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", KNOWN)
def test_more_nodes_and_more_probes_each_lower_their_own_error(known, name):
    coarse, fine, many = (density(known[name], Quadrature(*two)) for two in ((8, 10), (8, 60), (64, 10)))
    assert fine.discretisation < coarse.discretisation / 3
    assert 0.7 < fine.sampling / coarse.sampling < 1.3
    assert 0.7 < many.discretisation / coarse.discretisation < 1.3
    # 1 / sqrt(8); the standard deviations of 8 probes are known to a quarter.
    assert 0.7 < coarse.sampling / many.sampling / np.sqrt(8) < 1.4


def test_the_bound_of_the_degree_holds_for_every_probe(known):
    operator = known["uniform"]
    for degree in (3, 6, 12, 24):
        found = density(operator, Quadrature(6, degree))
        exact = density(operator, Quadrature(6, SIZE))
        assert exact.exact.all()
        assert exact.discretisation == 0.0
        for k in range(6):
            one = replace(found, **{f: getattr(found, f)[k : k + 1] for f in ("nodes", "weights", "degrees", "exact")})
            tails = (found.nodes[k].min() + 1) + (1 - found.nodes[k].max())
            # Beyond the outermost nodes the share is at most that of such a node.
            allowed = one.discretisation + tails * found.weights[k, [0, -1]].max()
            assert wasserstein(*one.pooled(), exact.nodes[k], exact.weights[k]) <= allowed


def test_at_full_degree_the_mean_over_probes_is_the_spectrum_up_to_sampling():
    spectrum = SPECTRA["spread"]
    found = density(operator_with(spectrum)[0], Quadrature(600, 30, Gaussian(), block=100))
    at = np.linspace(-6, 21, 40)
    curve = found.cumulative(at)
    true = (spectrum[:, None] <= at).mean(0)
    # 40 points, 4 standard errors each.
    assert (np.abs(curve.mean - true) <= 4 * curve.stderr + 1e-12).all()


def test_intervals_hold_the_true_share_19_times_in_20():
    spectrum = np.linspace(-1, 1, 40)
    operator, _ = operator_with(spectrum)
    at = np.array([-0.51, 0.01, 0.51])
    true, hits = (spectrum[:, None] <= at).mean(0), []
    for seed in range(150):
        curve = density(operator, Quadrature(8, 40, block=8), seed=seed).cumulative(at)
        hits.append((curve.low <= true) & (true <= curve.high))
    # 150 draws: 95 % within four standard errors of 1.8 %.
    assert (np.mean(hits, 0) > 0.88).all()
    assert (np.mean(hits, 0) < 1.0).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_awkward_spectra_have_mass_one_and_their_moments(name):
    spectrum = SPECTRA[name]
    operator, matrix = operator_with(spectrum)
    found = density(operator, Quadrature(5, 60))
    scale = np.abs(spectrum).max() or 1.0
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=0, atol=1e-15)
    assert found.width > 0
    assert found.products == found.degrees.sum() <= Quadrature(5, 60).cost(len(matrix))
    for power in (1, 2):
        samples = []
        for p in range(5):
            rng = generator(0, "density", p)
            z = Rademacher().draw(len(matrix), rng)
            samples.append(z @ np.linalg.matrix_power(matrix / scale, power) @ z)
        assert found.moment(power).value / scale**power == pytest.approx(np.mean(samples), abs=1e-10)
    grid = found.grid()
    curve = found.curve(grid)
    # Trapezoids a quarter of a width apart integrate a Gaussian to far less than this; 4 widths hold all but 6e-5.
    assert np.trapezoid(curve.mean, grid) == pytest.approx(1, abs=1e-4)


@settings(max_examples=30)
@given(seed=st.integers(0, 50), shift=st.floats(-3, 3), scale=st.sampled_from([-2.0, -0.5, 0.3, 4.0]))
def test_shifting_and_scaling_an_operator_moves_its_density(seed, shift, scale):
    operator, _ = operator_with(np.linspace(-1, 2, 25))
    moved = MatrixOperator(scale * operator.matrix + shift * torch.eye(25, dtype=torch.float64))
    one, other = (density(o, Quadrature(3, 8), seed=seed) for o in (operator, moved))
    order = slice(None) if scale > 0 else slice(None, None, -1)
    np.testing.assert_allclose(other.nodes, (scale * one.nodes + shift)[:, order], atol=1e-9)
    np.testing.assert_allclose(other.weights, one.weights[:, order], atol=1e-9)
    assert other.width == pytest.approx(abs(scale) * one.width)
    assert other.distance(*moved_pool(one, scale, shift)) <= 1e-8


def moved_pool(found, scale, shift):
    nodes, weights = found.pooled()
    return scale * nodes + shift, weights


def test_the_smooth_density_is_the_sum_of_kernels_and_has_the_width_asked_for():
    operator, _ = operator_with(SPECTRA["spread"])
    found = density(operator, Quadrature(4, 12), Fixed(0.7))
    at = np.linspace(-8, 25, 50)
    rows = [stats.norm.pdf(at[:, None], n, 0.7) @ w for n, w in zip(found.nodes, found.weights, strict=True)]
    curve = found.curve(at)
    np.testing.assert_allclose(curve.mean, np.mean(rows, 0), atol=1e-14)
    error = stats.sem(rows)
    np.testing.assert_allclose(curve.stderr, error, atol=1e-14)
    np.testing.assert_allclose(curve.high, curve.mean + stats.t.ppf(0.975, 3) * error, atol=1e-13)
    np.testing.assert_allclose(found.curve(at, 1.4).mean.max(), max(found.curve(at, 1.4).mean))
    wide = density(operator, Quadrature(4, 12), Spacing(0.1))
    assert wide.width == pytest.approx(0.1 * np.ptp(wide.nodes))


def test_the_distance_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b, c = rng.standard_normal(7), rng.standard_normal(5), rng.dirichlet(np.ones(7))
        expected = stats.wasserstein_distance(a, b, c)
        assert wasserstein(a, c, b, np.full(5, 0.2)) == pytest.approx(expected)


def test_probes_can_be_saved_one_by_one_and_taken_up_again():
    operator, _ = operator_with(SPECTRA["spread"])
    quadrature = Quadrature(7, 9, block=3)
    told = []
    whole = density(operator, quadrature, seed=5, progress=told.append)
    assert sum(told) == whole.products == 63
    begun = [rule for rule, _ in zip(probe_rules(operator, quadrature, 5), range(4), strict=False)]
    taken_up = assembled([*begun, *probe_rules(operator, quadrature, 5, first=4)], operator, quadrature, seed=5)
    np.testing.assert_allclose(taken_up.nodes, whole.nodes, atol=1e-12)
    again = density(operator, quadrature, seed=5)
    assert again == whole
    assert density(operator, quadrature, seed=6) != whole


def test_where_products_are_not_finite_nothing_is_and_no_more_are_made():
    operator = MatrixOperator(torch.full((5, 5), torch.nan, dtype=torch.float64))
    found = density(operator, Quadrature(4, 3))
    assert not found.defined
    assert found.products == 1
    assert np.isnan(found.weights).all()
    assert np.isnan([found.width, found.norm, found.resolution, found.sampling]).all()
    assert np.isnan(found.curve(np.zeros(2)).mean).all()
    assert np.isnan(found.cumulative(np.zeros(2)).mean).all()
    assert found.grid().size == 0


def test_one_probe_has_no_interval():
    found = density(operator_with(SPECTRA["spread"])[0], Quadrature(1, 9))
    curve = found.curve(np.zeros(3))
    assert np.isfinite(curve.mean).all()
    assert np.isnan([curve.stderr, curve.low, curve.high]).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Quadrature(probes=0), "expected 1 or more probes, nodes and probes a block, got 0, 80 and 1"),
        (lambda: Fixed(0.0), "expected a width of the kernel above 0, got 0.0"),
        (lambda: Measurement(trace_products=3), "expected 4 or more products for a standard error of XTrace, Gaussian"),
        (lambda: assembled([], operator_with([1.0])[0], Quadrature()), "expected the rule of at least one probe"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(make, text):
    with pytest.raises(LandscapeError, match=text):
        make()


class Moving:
    """A trajectory in memory of three snapshots along a random direction."""

    def __init__(self, problem):
        theta, buffers = problem.initial(0)
        self.layout, self.path, self.steps = problem.layout, "memory", np.array([0, 10, 20])
        move = np.random.default_rng(0).standard_normal(theta.numel())
        self.theta = theta.numpy() + np.outer([0.0, 0.1, 0.2], move)
        self.buffers = np.tile(buffers.numpy(), (3, 1))
        self.provenance = type("Provenance", (), {"label": "averaged", "strategy": "Averaged()", "seed": 3})()
        self.start = "its hash"


def test_along_a_trajectory_every_snapshot_and_operator_is_measured_and_can_be_left_out():
    problem = cases.make("batch norm")
    run, told = Moving(problem), []
    measurement = Measurement(Quadrature(3, 6), way=Hutchinson(), trace_products=5)
    found = list(along(problem, run, [0, 2], measurement, progress=told.append))
    assert [(f.density.step, f.density.operator) for f in found] == [
        (step, name) for step in (0, 20) for name in ("one", "two", AVERAGE)
    ]
    made = sum(f.density.products + f.moments.products for f in found)
    assert sum(told) == made == densities.products(problem, 2, measurement)
    for one in found:
        assert one.density.run.name == "averaged-3"
        assert (one.density.matrix, one.density.subset) == ("Hessian", "shared")
        assert one.moments.step == one.density.step
        assert one.density.data == problem.data_hash
    alone = density(hessians(problem, run.theta[2], run.buffers[2])["two"], Quadrature(3, 6))
    np.testing.assert_array_equal(found[4].density.nodes, alone.nodes)
    left = list(along(problem, run, [0, 2], measurement, ["two"], done={(0, "two")}))
    assert [(f.density.step, f.density.operator) for f in left] == [(20, "two")]
    assert left[0].density == found[4].density
    with pytest.raises(LandscapeError, match="there is no operator 'three': expected one of one, two, average"):
        next(along(problem, run, [0], measurement, ["three"]))
    with_sketch = Measurement(Quadrature(3, 6), way=HutchPlusPlus(), trace_products=6)
    assert densities.products(problem, 1, with_sketch, ["one"]) == 18 + 6


def test_the_trace_of_the_average_is_the_mean_of_the_tasks_because_probes_are_the_same():
    problem = cases.make("plain")
    found = {
        f.density.operator: f
        for f in along(problem, Moving(problem), [1], Measurement(Quadrature(2, 4), way=Hutchinson()))
    }
    mean = (found["one"].moments.trace + found["two"].moments.trace) / 2
    np.testing.assert_allclose(found[AVERAGE].moments.trace, mean, atol=1e-11)
