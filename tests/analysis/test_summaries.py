"""Shares and effective ranks against dense spectra, their errors against repeated draws, and what checks find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import archive
from analysis.densities import Measurement, Quadrature, Spectrum, Subject, density, moments
from analysis.operators import MatrixOperator, hessians
from analysis.probes import Gaussian
from analysis.results import AVERAGE
from analysis.summaries import (
    entropy,
    gap,
    gap_limit,
    intrinsic,
    jackknife,
    measure,
    negative_mass,
    participation,
    summarise,
    traces_along,
)
from analysis.traces import Hutchinson, HutchPlusPlus, XTrace
from landscape import problems
from landscape.errors import LandscapeError
from tests.analysis import cases
from tests.analysis.matrices import SPECTRA, operator_with
from tests.analysis.test_densities import Moving

SPECTRUM = np.r_[np.linspace(-1, 0.5, 40), 3.0, 8.0]


def truth(spectrum):
    sizes = np.abs(spectrum)
    shares = sizes[sizes > 0] / sizes.sum()
    return {
        "trace": spectrum.sum(),
        "frobenius": np.linalg.norm(spectrum),
        "negative": (spectrum < 0).mean(),
        "negative_mass": sizes[spectrum < 0].sum() / sizes.sum(),
        "intrinsic": spectrum.sum() / sizes.max(),
        "participation": spectrum.sum() ** 2 / (spectrum**2).sum(),
        "entropy": np.exp(-(shares * np.log(shares)).sum()),
    }


def measured(operator, seed=0, degree=42, probes=10, way=XTrace()):
    found = density(operator, Quadrature(probes, degree, block=probes), seed=seed)
    return Spectrum(found, moments(operator, way, 40, seed))


def test_every_number_is_within_its_errors_over_many_draws():
    operator, _ = operator_with(SPECTRUM)
    expected = truth(SPECTRUM)
    found = [summarise([measured(operator, seed)]) for seed in range(40)]
    for name, true in expected.items():
        errors = np.array([getattr(f, name)[0, 0] - true for f in found])
        stderrs = np.array([getattr(f, f"{name}_stderr")[0, 0] for f in found])
        # The mean of 40 within four of its own standard errors and a bias of half a standard error (ratios and roots).
        assert abs(errors.mean()) <= 4 * errors.std(ddof=1) / np.sqrt(40) + 0.5 * stderrs.mean(), name
        # Root mean squares of 40 errors are known to 11 %, with jackknives of 10 rows to 20 % in all; twice that.
        assert 0.6 <= np.sqrt((errors**2).mean() / (stderrs**2).mean()) <= 1.6, name
    assert all(check.passed for f in found for check in f.checks())


@pytest.mark.parametrize("name", SPECTRA)
def test_awkward_spectra_have_numbers(name):
    operator, _ = operator_with(SPECTRA[name])
    one = measured(operator)
    found, expected = summarise([one]), truth(SPECTRA[name]) if SPECTRA[name].any() else {}
    assert abs(found.trace[0, 0] - SPECTRA[name].sum()) <= 4 * found.trace_stderr[0, 0] + 1e-12 * found.norm[0, 0]
    for key in ("negative", "negative_mass", "intrinsic", "participation", "entropy"):
        assert np.isfinite(getattr(found, key)[0, 0]), key
        if key in expected and name in ("1x1", "identity", "zero"):
            assert getattr(found, key)[0, 0] == pytest.approx(expected[key]), key
    assert found.negative_low[0, 0] <= found.negative[0, 0] <= found.negative_high[0, 0]
    assert all(check.passed for check in found.checks())


def test_zero_has_rank_zero_and_nothing_negative():
    found = summarise([measured(operator_with(SPECTRA["zero"])[0])])
    for key in ("trace", "frobenius", "norm", "negative", "negative_mass", "intrinsic", "participation", "entropy"):
        assert getattr(found, key)[0, 0] == 0.0
        assert getattr(found, f"{key}_stderr", np.zeros((1, 1)))[0, 0] == 0.0


@pytest.mark.parametrize("degree", [6, 12, 24, 60])
def test_the_negative_share_lies_where_it_says_although_much_mass_is_near_zero(degree):
    rng = np.random.default_rng(1)
    spectrum = np.r_[rng.standard_normal(180) * 10.0 ** rng.uniform(-4, 0, 180), 50.0, 90.0]
    true = (spectrum < 0).mean()
    found = density(operator_with(spectrum)[0], Quadrature(12, degree, Gaussian()))
    share, low, high = found.negative()
    error = share.std(ddof=1) / np.sqrt(12)
    assert low.mean() - 4 * error <= true <= high.mean() + 4 * error
    # Between the nodes it is read within a few hundredths where the raw weight below zero is off by tenths.
    assert abs(share.mean() - true) <= 0.06
    resolved = found.below(np.array([-found.resolution]))[:, 0].mean()
    assert resolved <= true + 4 * error


def test_rounding_of_a_null_space_is_not_negative():
    spectrum = np.r_[np.linspace(1, 2, 10), np.zeros(90)]
    single = MatrixOperator(operator_with(spectrum)[0].matrix.float())
    for degree in (5, 40):
        found = summarise([measured(single, degree=degree)])
        assert found.negative[0, 0] == found.negative_low[0, 0] == found.resolved[0, 0] == 0.0
        assert found.negative_mass[0, 0] < 1e-6


@settings(max_examples=12)
@given(st.integers(0, 20), st.sampled_from([-3.0, 0.1, 20.0]))
def test_ranks_and_shares_do_not_depend_on_the_scale(seed, scale):
    operator, _ = operator_with(SPECTRUM)
    one, other = measured(operator, seed), measured(MatrixOperator(scale * operator.matrix), seed)
    sign = 1.0 if scale > 0 else -1.0
    assert participation(other.moments).value == pytest.approx(participation(one.moments).value)
    assert entropy(other.density).value == pytest.approx(entropy(one.density).value)
    assert intrinsic(other.moments, other.density.norm).value == pytest.approx(
        sign * intrinsic(one.moments, one.density.norm).value
    )
    mass = negative_mass(one.density).value
    assert negative_mass(other.density).value == pytest.approx(mass if scale > 0 else 1 - mass)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    samples = np.random.default_rng(0).standard_normal((9, 1))
    found = jackknife(samples, lambda mean: float(mean[0]))
    assert found.value == pytest.approx(samples.mean())
    assert found.stderr == pytest.approx(samples.std(ddof=1) / 3)
    assert np.isnan(jackknife(samples[:1], lambda mean: float(mean[0])).stderr)


def test_a_check_fails_where_the_density_is_of_another_operator():
    one = measured(operator_with(SPECTRUM)[0])
    other = measured(operator_with(SPECTRUM + 4)[0])
    assert gap(one.density, one.moments, 1) < 5
    mixed = summarise([Spectrum(one.density, other.moments)])
    assert not mixed.checks()[0].passed
    # A normal variable leaves 3.9 standard errors once in 10,000 times; skewed ones of few probes need more room.
    assert 3.9 < gap_limit(10**6, 1) < 4.6 < gap_limit(10, 1) < gap_limit(10, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["second", AVERAGE])
def test_a_real_networks_numbers_are_within_three_standard_errors(name):
    chosen = {"width": 2, "features": 4, "train": 32, "evaluation": 60}
    problem = problems.load("digits", chosen).to(dtype=torch.float64)
    theta, buffers = problem.initial(0)
    operator = hessians(problem, theta.numpy(), buffers.numpy())[name]
    dense = torch.stack([operator @ row for row in torch.eye(operator.size, dtype=torch.float64)]).numpy()
    spectrum = np.linalg.eigvalsh((dense + dense.T) / 2)
    for way in (Hutchinson(), HutchPlusPlus(), XTrace()):
        found = moments(operator, way, 60)
        for estimate, true in ((found.trace_estimate, spectrum.sum()), (found.frobenius, np.linalg.norm(spectrum))):
            assert abs(estimate.value - true) <= 3 * estimate.stderr, way.label
    whole = density(operator, Quadrature(10, 60))
    assert whole.distance(spectrum) <= whole.discretisation + 3 * whole.sampling
    assert whole.distance(spectrum) <= 0.25 * np.abs(spectrum).mean()


def test_spectra_along_a_run_become_arrays_that_an_archive_keeps(tmp_path):
    problem = cases.make("plain")
    measurement = Measurement(Quadrature(4, 8), trace_products=12)
    kept = []
    whole = measure(problem, Moving(problem), [0, 1, 2], measurement, save=kept.append)
    found, summary = list(whole.spectra), whole.summary
    assert kept == found
    told = []
    again = measure(problem, Moving(problem), [0, 1, 2], measurement, saved=kept[:7], progress=told.append)
    assert again.summary == summary
    assert sum(told) == sum(f.density.products + f.moments.products for f in found[7:])
    assert summary.trace.shape == (3, 3)
    assert summary.operators == ("one", "two", AVERAGE)
    assert summary.steps.tolist() == [0, 10, 20]
    assert summary.products == sum(f.density.products + f.moments.products for f in found)
    dense = hessians(problem, Moving(problem).theta[1], Moving(problem).buffers[1])["two"]
    true = sum(float((dense @ row)[k]) for k, row in enumerate(torch.eye(dense.size, dtype=torch.float64)))
    assert abs(summary.trace[1, 1] - true) <= 4 * summary.trace_stderr[1, 1]
    assert all(check.passed for check in whole.checks)
    records = {"summary": summary, "density": found[0].density, "moments": found[0].moments}
    archive.save(tmp_path / "r.h5", {name: archive.Entry(record) for name, record in records.items()})
    for name, record in records.items():
        assert archive.load(tmp_path / "r.h5", name).record == record


def test_traces_alone_are_those_of_whole_spectra_and_of_dense_matrices(tmp_path):
    problem, told = cases.make("batch norm"), []
    run = Moving(problem)
    whole = measure(problem, run, [0, 2], Measurement(Quadrature(2, 4), trace_products=12)).summary
    found = traces_along(problem, run, [0, 2], XTrace(), 12, progress=told.append)
    for name in ("trace", "frobenius", "participation"):
        for field in (name, f"{name}_stderr"):
            np.testing.assert_array_equal(getattr(found, field), getattr(whole, field))
    assert (found.operators, found.steps.tolist()) == (("one", "two", AVERAGE), [0, 20])
    assert (found.run, found.matrix, found.subset, found.size) == (whole.run, "Hessian", "shared", whole.size)
    assert (found.way, found.trace_quantile, found.data) == (whole.way, whole.trace_quantile, problem.data_hash)
    assert sum(told) == found.products == 2 * 3 * 12
    for row, here in ((0, 0), (1, 2)):
        for k, operator in enumerate(hessians(problem, run.theta[here], run.buffers[here]).values()):
            dense = operator @ torch.eye(operator.size, dtype=torch.float64)
            assert abs(found.trace[row, k] - dense.trace()) <= 5 * found.trace_stderr[row, k]
            assert abs(found.frobenius[row, k] - dense.norm()) <= 5 * found.frobenius_stderr[row, k]
    archive.save(tmp_path / "r.h5", {"trace/a-0": archive.Entry(found)})
    assert archive.load(tmp_path / "r.h5", "trace/a-0").record == found
    (alone,) = traces_along(problem, run, [2], XTrace(), 12, ["two"]).trace.ravel()
    assert alone == found.trace[1, 1]


def test_a_summary_of_nothing_of_half_or_of_two_runs_is_refused():
    operator, _ = operator_with(SPECTRUM)
    one = measured(operator)
    with pytest.raises(LandscapeError, match="expected at least one spectrum to summarise, got none"):
        summarise([])
    other = Spectrum(replace(one.density, operator="b", step=5), one.moments)
    with pytest.raises(LandscapeError, match="the spectrum of b at step 0 is missing"):
        summarise([one, other])
    foreign = density(operator, Quadrature(10, 42), subject=Subject(subset="shared"))
    with pytest.raises(LandscapeError, match="expected spectra of one run, one kind of operator and one way"):
        summarise([one, Spectrum(foreign, one.moments)])


def test_a_snapshot_that_is_not_finite_is_nan_and_harms_no_other():
    operator, _ = operator_with(SPECTRUM)
    broken = MatrixOperator(torch.full((42, 42), torch.nan, dtype=torch.float64))
    pair = measured(operator), measured(broken)
    lost = Spectrum(replace(pair[1].density, step=7), replace(pair[1].moments, step=7))
    found = summarise([pair[0], lost])
    for key in ("trace", "frobenius", "negative", "negative_low", "resolved", "entropy", "participation", "norm"):
        assert np.isfinite(getattr(found, key)[0, 0]), key
        assert np.isnan(getattr(found, key)[1, 0]), key
