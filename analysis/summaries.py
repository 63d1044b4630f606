"""What densities and traces come down to: shares, effective ranks and checks, with errors by the jackknife."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.densities import (
    HESSIANS,
    Measurement,
    Operators,
    Spectrum,
    Subject,
    along,
    moments,
    names_of,
    quantile,
)
from analysis.operators import hessians
from analysis.results import Array, Check, Density, Estimate, Moments, SpectrumSummary, Traces
from analysis.results.densities import mean_over_probes
from analysis.subspaces import run_of
from analysis.traces import Way, XTrace
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.trajectory import Trajectory

CHANCE = 1e-4
"""How often the checks of one summary fail although nothing is wrong."""
ROUNDINGS = 100.0
"""An error of so many roundings of a product's length is taken to be none."""


def jackknife(samples: Array, statistic: Callable[[Array], float]) -> Estimate:
    """A smooth function of the mean of `samples` [k, features], with the jackknife's standard error over the k rows:
    sqrt((k - 1) / k sum_i (s_i - mean s)^2), s_i the value without row i (Quenouille, Tukey). NaN for one row.
    """
    count = len(samples)
    value = statistic(samples.mean(0))
    if count < 2:
        return Estimate(value, float("nan"), count)
    without = np.array([statistic(one) for one in (samples.sum(0) - samples) / (count - 1)])
    return Estimate(value, float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())), count)


def resolved(density: Density) -> Estimate:
    """The share of eigenvalues whose sign is sure to be negative: those below minus the resolution."""
    return mean_over_probes(density.below(np.array([-density.resolution]))[:, 0])


def negative_mass(density: Density) -> Estimate:
    """sum of |lambda_i| over negative eigenvalues / sum of all |lambda_i|; 0 where all are zero."""
    sizes = np.abs(density.nodes) * density.weights
    below = np.where(density.nodes < 0, sizes, 0.0) if density.defined else sizes
    return jackknife(np.stack([below.sum(1), sizes.sum(1)], 1), lambda mean: _ratio(float(mean[0]), float(mean[1])))


def intrinsic(moments: Moments, norm: float) -> Estimate:
    """Effective rank tr H / ||H||_2 (the stable dimension of a positive semidefinite H; Tropp 2015): how many
    eigenvalues as large as the largest make the trace. The norm's own error, that of Lanczos, is not in the stderr.
    """
    found = moments.trace_estimate
    return Estimate(_ratio(found.value, norm), _ratio(found.stderr, norm), found.samples)


def participation(moments: Moments) -> Estimate:
    """Effective rank tr(H)^2 / ||H||_F^2, the participation ratio: n for a multiple of the identity, the rank for equal
    eigenvalues, small where few are large or where signs cancel. Jackknife over the samples.
    """
    samples = np.stack([moments.trace, moments.square], 1)
    return jackknife(samples, lambda mean: _ratio(float(mean[0]) ** 2, float(mean[1])))


def entropy(density: Density) -> Estimate:
    """Effective rank exp(-sum_i p_i log p_i), p_i = |lambda_i| / sum_j |lambda_j| (Roy and Vetterli 2007), 0 for zero.

    With a = mean |lambda| and b = mean |lambda| log |lambda| of the density it is exp(log(n a) - b / a). Jackknife.
    """
    sizes = np.abs(density.nodes)
    logs = sizes * np.log(np.where(sizes > 0, sizes, 1.0))
    samples = np.stack([(density.weights * part).sum(1) for part in (sizes, logs)], 1)

    def rank(mean: Array) -> float:
        a, b = float(mean[0]), float(mean[1])
        return float(np.exp(np.log(density.size * a) - b / a)) if a else 0.0

    return jackknife(samples, rank)


def gap(density: Density, moments: Moments, power: int) -> float:
    """|tr(H^power) of the density - the independent estimate| over the standard error of the difference, power 1 or 2.

    That of the density is at most sqrt(2 / probes) ||H^power||_F, ||H^2||_F <= ||H||_2 ||H||_F; with few probes it is a
    better scale than the one they show themselves, because samples that one eigenvalue dominates are skewed. Rounding
    counts as an error: 100 of a product's precision times ||H||_F sqrt(n), or ||H||_F^2.
    """
    theirs = mean_over_probes(moments.trace if power == 1 else moments.square)
    norm, size = moments.frobenius.value, density.size
    mine = float(np.sqrt(2 / len(density.nodes))) * norm * (1.0 if power == 1 else density.norm)
    rounding = ROUNDINGS * density.precision * (norm * size**0.5 if power == 1 else norm**2)
    error = float(np.sqrt(mine**2 + theirs.stderr**2 + rounding**2))
    return _ratio(abs(density.moment(power).value - theirs.value), error)


def gap_limit(probes: int, gaps: int) -> float:
    """What `gaps` gaps may be: one of them is larger by chance at most once in 1 / CHANCE times (Bonferroni).

    The mean z' A z of p Gaussian probes leaves tr A by more than 2 ||A||_F sqrt(t / p) + 2 ||A||_2 t / p with a chance
    of at most 2 exp(-t) (Laurent and Massart 2000); in standard errors sqrt(2 / p) ||A||_F that is at most
    sqrt(2 t) + t sqrt(2 / p).
    """
    t = float(np.log(2 * gaps / CHANCE))
    return float(np.sqrt(2 * t) + t * np.sqrt(2 / probes))


@dataclass(frozen=True, eq=False)
class RunSpectra:
    """Everything that was measured of one run's spectra."""

    spectra: tuple[Spectrum, ...]
    summary: SpectrumSummary

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.summary.checks()


def measure(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    measurement: Measurement = Measurement(),
    names: Sequence[str] = (),
    operators: Operators = hessians,
    subject: Subject = HESSIANS,
    saved: Sequence[Spectrum] = (),
    save: Callable[[Spectrum], None] = lambda spectrum: None,
    progress: Callable[[int], None] = lambda products: None,
) -> RunSpectra:
    """Densities, traces and all numbers read from them, of every operator at some snapshots of a run.

    `save` is given every spectrum as it is done, `saved` takes those of an interrupted run, which are not measured
    again; `progress` is told products as they are done. Other arguments and costs as `densities.along`;
    `densities.products` says beforehand how many products it takes at most.
    """
    had = {(one.density.step, one.density.operator): one for one in saved}
    for one in along(problem, trajectory, rows, measurement, names, operators, subject, had.keys(), progress):
        had[one.density.step, one.density.operator] = one
        save(one)
    steps = [int(trajectory.steps[row]) for row in rows]
    wanted = [had[step, name] for step in steps for name in names_of(problem, names)]
    return RunSpectra(tuple(wanted), summarise(wanted))


def traces_along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    way: Way = XTrace(),
    products: int = 60,
    names: Sequence[str] = (),
    operators: Operators = hessians,
    subject: Subject = HESSIANS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda products: None,
) -> Traces:
    """Trace, Frobenius norm and tr(H)^2 / ||H||_F^2 of every operator at some snapshots of a run, without densities.

    The samples are those that `measure` takes with the same way, products and seed, so the numbers are the same. Other
    arguments as `densities.along`. Cost: `way.cost` products for each snapshot and operator.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    chosen = names_of(problem, names)
    table: list[list[Moments]] = []
    for row in rows:
        found = operators(problem, trajectory.theta[row], trajectory.buffers[row])
        table.append([])
        for name in chosen:
            table[-1].append(moments(found[name], way, products, seed, 1))
            progress(table[-1][-1].products)
    return Traces(
        run=run_of(trajectory),
        operators=chosen,
        matrix=subject.matrix,
        subset=subject.subset,
        steps=trajectory.steps[list(rows)],
        size=table[0][0].size,
        **_arrays([[_with_errors(_of_moments(one)) for one in line] for line in table]),
        way=way.label,
        trace_quantile=quantile(table[0][0].trace.size),
        seed=seed,
        products=sum(one.products for line in table for one in line),
        examples=len(problem.evaluation),
        data=problem.data_hash,
    )


def summarise(spectra: Sequence[Spectrum]) -> SpectrumSummary:
    """The numbers of all spectra of one run as arrays [snapshot, operator]; NaN where a product was not finite.

    Raises:
        LandscapeError: none, spectra of several runs or settings, or a snapshot that lacks an operator.
    """
    if not spectra:
        raise LandscapeError("expected at least one spectrum to summarise, got none: measure one first")
    first, sampled = spectra[0].density, spectra[0].moments
    steps = sorted({one.density.step for one in spectra})
    operators = tuple(dict.fromkeys(one.density.operator for one in spectra))
    by = {(one.density.step, one.density.operator): one for one in spectra}
    _require_one_kind(spectra)
    for step in steps:
        for name in operators:
            if (step, name) not in by:
                raise LandscapeError(f"the spectrum of {name} at step {step} is missing: measure it first")
    table = [[_numbers(by[step, name]) for name in operators] for step in steps]
    gaps = 2 * len(steps) * len(operators)
    return SpectrumSummary(
        run=first.run,
        operators=operators,
        matrix=first.matrix,
        subset=first.subset,
        steps=np.array(steps),
        size=first.size,
        **_arrays(table),
        gap_limit=gap_limit(len(first.nodes), gaps),
        way=sampled.way,
        density_quantile=first.quantile,
        trace_quantile=quantile(sampled.trace.size),
        seed=first.seed,
        products=sum(one.density.products + one.moments.products for one in by.values()),
        examples=first.examples,
        data=first.data,
    )


def _require_one_kind(spectra: Sequence[Spectrum]) -> None:
    kinds = {
        (d.run.name, d.run.strategy, d.matrix, d.subset, d.size, d.data, d.seed, d.probe, len(d.nodes), m.way, m.seed)
        for d, m in ((one.density, one.moments) for one in spectra)
    }
    if len(kinds) > 1:
        raise LandscapeError(
            f"expected spectra of one run, one kind of operator and one way of measuring, got {len(kinds)}: summarise "
            "each by itself"
        )


def _arrays(table: Sequence[Sequence[dict[str, float]]]) -> dict[str, Array]:
    """[snapshot, operator] of every number."""
    return {key: np.array([[cell[key] for cell in row] for row in table]) for key in table[0][0]}


def _of_moments(sampled: Moments) -> dict[str, Estimate]:
    return {
        "trace": sampled.trace_estimate,
        "frobenius": sampled.frobenius,
        "participation": participation(sampled),
    }


def _with_errors(found: dict[str, Estimate]) -> dict[str, float]:
    errors = {f"{name}_stderr": estimate.stderr for name, estimate in found.items()}
    return {**{name: estimate.value for name, estimate in found.items()}, **errors}


def _numbers(one: Spectrum) -> dict[str, float]:
    density, sampled = one.density, one.moments
    share, low, high = density.negative()
    found = {
        **_of_moments(sampled),
        "negative": mean_over_probes(share),
        "resolved": resolved(density),
        "negative_mass": negative_mass(density),
        "intrinsic": intrinsic(sampled, density.norm),
        "entropy": entropy(density),
    }
    return {
        **_with_errors(found),
        "norm": density.norm,
        "negative_low": float(low.mean()),
        "negative_high": float(high.mean()),
        "resolution": density.resolution,
        "sampling": density.sampling,
        "discretisation": density.discretisation,
        "trace_gap": gap(density, sampled, 1),
        "square_gap": gap(density, sampled, 2),
    }


def _ratio(top: float, bottom: float) -> float:
    """top / bottom, with 0 / 0 = 0 for an operator that is zero."""
    return top / bottom if bottom or np.isnan(top) else 0.0
