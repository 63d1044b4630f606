"""Traces and Frobenius norms against closed forms: means, standard errors, exactness, invariances, variances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.operators import MatrixOperator
from analysis.probes import Gaussian, Rademacher, block_product, drawn
from analysis.traces import WAYS, Hutchinson, HutchPlusPlus, XTrace, frobenius, samples, trace
from landscape.errors import LandscapeError
from landscape.randomness import generator
from tests.analysis.matrices import SPECTRA, operator_with

EVERY = (
    Hutchinson(),
    Hutchinson(Gaussian()),
    HutchPlusPlus(),
    HutchPlusPlus(Rademacher()),
    XTrace(),
    XTrace(Rademacher()),
)
CLOSED = {
    "flat": np.linspace(1, 3, 60),
    "indefinite": np.linspace(-1, 1.5, 60),
    "power": np.arange(1, 61.0) ** -1.5,
    "step": np.r_[np.ones(30), 1e-3 * np.ones(30)],
}


def label(way):
    return way.label


def many(way, spectrum, products, seeds):
    """Errors of trace and squared norm over their standard errors, and the errors themselves, for many seeds."""
    operator, _ = operator_with(spectrum)
    rows = []
    for seed in range(seeds):
        found = samples(operator, way, products, seed)
        for values, true in ((found.trace, spectrum.sum()), (found.square, (spectrum**2).sum())):
            rows.append((values.mean() - true, values.std(ddof=1) / np.sqrt(values.size)))
    errors, stderrs = np.array(rows).reshape(seeds, 2, 2).transpose(2, 1, 0)
    return errors, stderrs


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("way", [Hutchinson(), HutchPlusPlus(), XTrace(), XTrace(Rademacher())], ids=label)
def test_estimates_are_unbiased_and_their_errors_honest(way, name):
    seeds = 120
    errors, stderrs = many(way, CLOSED[name], 48, seeds)
    for error, stderr in zip(errors, stderrs, strict=True):
        # The mean of 120 errors is within four of its own standard errors of zero (chance 6e-5).
        assert abs(error.mean()) <= 4 * error.std(ddof=1) / np.sqrt(seeds)
        # The root mean square of 120 errors is known to 6.5 %, that of the standard errors to about as much for 16
        # samples each; four times both together is 37 %.
        ratio = np.sqrt((error**2).mean() / (stderr**2).mean())
        assert 0.73 <= ratio <= 1.37
        # Student's t with 15 degrees of freedom has a standard deviation of 1.07.
        assert 0.75 <= (error / stderr).std() <= 1.45


@pytest.mark.parametrize("rank", [0, 1, 6, 15])
@pytest.mark.parametrize("way", EVERY[2:], ids=label)
def test_sketches_are_exact_on_low_rank(way, rank):
    spectrum = np.r_[np.linspace(-3, 5, rank), np.zeros(80 - rank)]
    operator, _ = operator_with(spectrum)
    found = trace(operator, way, 48, seed=1)
    norm = frobenius(operator, way, 48, seed=1)
    # Rounding of sums of some dozens of terms of size 5 n.
    assert found.value == pytest.approx(spectrum.sum(), abs=1e-11)
    assert norm.value == pytest.approx(np.linalg.norm(spectrum), abs=1e-11)
    assert found.stderr <= 1e-11


@pytest.mark.parametrize("way", EVERY[2:], ids=label)
@pytest.mark.parametrize("name", ["multiple", "1x1", "zero", "identity"])
def test_with_products_enough_for_the_whole_space_they_are_exact(way, name):
    operator, matrix = operator_with(SPECTRA[name])
    found = samples(operator, way, 200)
    assert found.products <= way.cost(200, len(matrix)) <= 3 * len(matrix) + 1
    if isinstance(way.probe, Gaussian):  # vectors of few signs can be equal, and then do not span the space
        assert found.trace.mean() == pytest.approx(np.trace(matrix), abs=1e-12)
        assert found.trace.std() <= 1e-12


def test_the_range_found_first_is_worth_its_products_where_the_spectrum_decays():
    def error(way, spectrum):
        return np.sqrt((many(way, spectrum, 48, 60)[0][0] ** 2).mean())

    steep, flat = 0.8 ** np.arange(60.0), np.linspace(1, 1.2, 60)
    plain, plus, ex = (error(way, steep) for way in (Hutchinson(), HutchPlusPlus(), XTrace()))
    # Meyer et al.: 1 / m against 1 / sqrt(m) and better on exponential decay; Epperly et al.: XTrace better still.
    assert ex < plus / 3
    assert plus < plain / 5
    assert error(HutchPlusPlus(Rademacher()), flat) > error(Hutchinson(), flat)


def test_the_variance_is_that_of_the_closed_form():
    operator, matrix = operator_with(np.linspace(-1, 3, 40))
    square, seeds = (matrix**2).sum(), 400
    for probe, expected in (
        (Rademacher(), 2 * (square - (np.diag(matrix) ** 2).sum())),
        (Gaussian(), 2 * 40 / 42 * (square - np.trace(matrix) ** 2 / 40)),
    ):
        values = np.concatenate([samples(operator, Hutchinson(probe), 10, s).trace for s in range(seeds)])
        # A variance from 4,000 nearly normal samples is known to 2.2 %.
        assert values.var() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("probe", [Rademacher(), Gaussian()], ids=label)
def test_probes_have_length_root_n_and_covariance_one(probe):
    operator = MatrixOperator(torch.eye(4, dtype=torch.float64))
    block = drawn(probe, 20_000, operator, generator(0, "x")).numpy()
    np.testing.assert_allclose((block**2).sum(0), 4)
    np.testing.assert_allclose(block @ block.T / 20_000, np.eye(4), atol=5 / np.sqrt(20_000))


def test_signs_see_a_diagonal_matrix_and_spheres_a_multiple_of_one_without_error():
    diagonal = MatrixOperator(torch.diag(torch.linspace(-1, 5, 20, dtype=torch.float64)))
    assert trace(diagonal, Hutchinson(Rademacher()), 5).stderr == pytest.approx(0, abs=1e-13)
    assert trace(operator_with(2 * np.ones(20))[0], Hutchinson(Gaussian()), 5).stderr == pytest.approx(0, abs=1e-13)


@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-5, 5),
    scale=st.floats(-4, 4).filter(lambda x: abs(x) > 1e-2),
    way=st.sampled_from([Hutchinson(Gaussian()), HutchPlusPlus(), XTrace()]),
)
def test_scaling_scales_and_a_shift_of_hutchinson_on_spheres_adds_exactly(seed, shift, scale, way):
    spectrum = np.linspace(-1, 2, 25)
    operator, _ = operator_with(spectrum, seed % 7)
    scaled = MatrixOperator(scale * operator.matrix)
    one, other = samples(operator, way, 18, seed), samples(scaled, way, 18, seed)
    np.testing.assert_allclose(other.trace, scale * one.trace, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other.square, scale**2 * one.square, rtol=1e-9, atol=1e-9)
    if isinstance(way, Hutchinson):
        moved = MatrixOperator(operator.matrix + shift * torch.eye(25, dtype=torch.float64))
        np.testing.assert_allclose(samples(moved, way, 18, seed).trace, one.trace + 25 * shift, atol=1e-9)


@pytest.mark.parametrize("way", EVERY, ids=label)
def test_a_seed_gives_the_same_bytes_and_blocks_of_any_width_the_same_numbers(way):
    operator, _ = operator_with(SPECTRA["spread"])
    one, same, other = samples(operator, way, 18, 3), samples(operator, way, 18, 3), samples(operator, way, 18, 4)
    assert one.trace.tobytes() == same.trace.tobytes()
    assert not np.array_equal(one.trace, other.trace)
    for block in (1, 5):
        np.testing.assert_allclose(samples(operator, way, 18, 3, block).trace, one.trace, atol=1e-10)


class Counted:
    """An operator that takes only vectors, and counts."""

    def __init__(self, operator):
        self.operator, self.count = operator, 0
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device

    def __matmul__(self, vector):
        assert vector.dim() == 1
        self.count += 1
        return self.operator @ vector


@pytest.mark.parametrize("products", [4, 5, 17, 40])
@pytest.mark.parametrize("way", EVERY, ids=label)
def test_products_are_counted_and_within_what_is_allowed(way, products):
    operator = Counted(operator_with(SPECTRA["spread"])[0])
    found = samples(operator, way, products)
    assert operator.count == found.products <= way.cost(products, 30) <= products
    assert np.isfinite(trace(operator, way, products).stderr)


def test_a_block_is_the_columns_products_in_any_protocol():
    operator, matrix = operator_with(SPECTRA["spread"])
    block = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 4)))
    for one in (operator, Counted(operator)):
        np.testing.assert_allclose(block_product(one, block), matrix @ block.numpy(), atol=1e-12)
        assert block_product(one, block[:, :0]).shape == (30, 0)


@pytest.mark.parametrize("way", EVERY, ids=label)
def test_where_products_are_not_finite_nothing_is(way):
    found = trace(MatrixOperator(torch.full((9, 9), torch.nan)), way, 12)
    assert np.isnan([found.value, found.stderr]).all()
    assert np.isnan(frobenius(MatrixOperator(torch.full((9, 9), torch.inf)), way, 12).value)


@pytest.mark.parametrize(
    ("way", "products", "least"), [(Hutchinson(), 1, 2), (HutchPlusPlus(), 3, 4), (XTrace(), 3, 4)]
)
def test_too_few_products_for_an_error_are_refused(way, products, least):
    operator, _ = operator_with(SPECTRA["spread"])
    with pytest.raises(LandscapeError, match=f"expected {least} or more products for a standard error of .*, got"):
        trace(operator, way, products)


def test_ways_have_names():
    assert [make().label for make in WAYS.values()] == [
        "Hutchinson, Rademacher",
        "Hutch++, Gaussian",
        "XTrace, Gaussian",
    ]


@pytest.mark.parametrize("way", EVERY, ids=label)
def test_single_precision_costs_its_rounding_only(way):
    operator, matrix = operator_with(SPECTRA["spread"])
    single = MatrixOperator(operator.matrix.float())
    one, other = samples(operator, way, 18, 3), samples(single, way, 18, 3)
    # Some roundings of 6e-8 of the norm of a product times the length of a probe.
    np.testing.assert_allclose(other.trace, one.trace, atol=1e-5 * np.linalg.norm(matrix) * 30**0.5)
