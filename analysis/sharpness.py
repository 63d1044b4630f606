"""The measures of sharpness in use, for every task and the average along a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from analysis import subsets
from analysis.critical import LineSearch, critical_rates, line_curvature
from analysis.neighbourhood import Neighbourhood
from analysis.operators import SymmetricOperator, hessians
from analysis.perturbations import Ascent, mean_rise, worst_case
from analysis.product_choice import AUTO, Auto
from analysis.products import Way
from analysis.results import Array, Estimate, Sharpness
from analysis.scaling import Elementwise, Plain, Scale, ScaledOperator, scale_on
from analysis.spectra import Accuracy, top_eigenpairs
from analysis.stability import line_of
from analysis.subsets import Everything, Shared, Subset
from analysis.subspaces import run_of
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.trajectory import Trajectory

Trace = Callable[[SymmetricOperator], Estimate]
"""An estimate of an operator's trace."""


@dataclass(frozen=True)
class Form:
    """A scale of the parameters with the radius of the worst case; noise has the standard deviation `sigma`, by default
    radius / sqrt(n), so that its typical length is the radius.
    """

    scale: Scale = Plain()
    radius: float = 0.05
    sigma: float | None = None

    def noise(self, size: int) -> float:
        """Standard deviation of the noise for n parameters."""
        return self.radius / size**0.5 if self.sigma is None else self.sigma


@dataclass(frozen=True)
class Measures:
    """What is measured, on which parameters and how well. Forms differ in their scale."""

    forms: tuple[Form, ...] = (Form(), Form(Elementwise(), 0.5))
    on: Subset = Shared()
    accuracy: Accuracy = Accuracy()
    ascent: Ascent = Ascent()
    pairs: int = 16
    search: LineSearch = LineSearch()
    seed: int = 0
    product: Way | Auto = AUTO

    def __post_init__(self) -> None:
        labels = [form.scale.label for form in self.forms]
        if not labels or len(set(labels)) < len(labels):
            raise LandscapeError(f"expected one or more forms with different scales, got {', '.join(labels) or 'none'}")


@dataclass(frozen=True)
class Cost:
    """The most that something costs: operator products, gradients and forward passes of the evaluation set."""

    products: int
    gradients: int
    passes: int


def most(trajectory: Trajectory, rows: Sequence[int], chosen: Measures = Measures()) -> Cost:
    """What `along` takes at most, the trace's products and steps that have to be halved not counted."""
    count, forms, starts = len(trajectory.tasks), len(chosen.forms), 2 + chosen.ascent.random
    products = (count + 1) * forms * (chosen.accuracy.products + 1) + count**2
    gradients = (count + 1) * forms * (1 + starts * (2 + chosen.ascent.steps)) + count
    passes = 1 + forms * (2 * chosen.pairs + 1) + (count + 1) * (6 + 2 * (count + 1) * chosen.search.octaves)
    return Cost(len(rows) * products, len(rows) * gradients, len(rows) * passes)


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    chosen: Measures = Measures(),
    trace: Trace | None = None,
    tell: Callable[[int], None] = lambda products: None,
) -> Sharpness:
    """Every measure of `Sharpness` at some snapshots of a run.

    Draws and random starts are the same at every snapshot, so that a curve does not jump for their sake. Each Lanczos
    run starts from the vector of the snapshot before. `trace` estimates the trace of each loss's Hessian. `tell` is
    told the products as they are done, those of the trace left out.

    Cost: see `most`; the matrix of curvatures of all losses along all updates takes T^2 products a snapshot, since the
    averaged gradient and Hessian are means.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    spots: list[_Spot] = []
    warm: dict[tuple[str, str], Tensor] = {}
    for row in rows:
        spots.append(_measured(problem, trajectory.theta[row], trajectory.buffers[row], chosen, trace, warm, tell))
    size = subsets.size(chosen.on, problem.layout)
    line = line_of(trajectory)
    whole = isinstance(chosen.on, Shared | Everything)
    names = tuple(_Spot.__dataclass_fields__)[3:]
    return Sharpness(
        run=run_of(trajectory),
        tasks=(*problem.names, "average"),
        forms=tuple(form.scale.label for form in chosen.forms),
        steps=trajectory.steps[list(rows)],
        **{name: np.stack([getattr(spot, name) for spot in spots]) for name in names},
        radius=np.array([form.radius for form in chosen.forms]),
        sigma=np.array([form.noise(size) for form in chosen.forms]),
        pairs=chosen.pairs,
        line=line.values if whole else np.full(len(problem.names) + 1, np.nan),
        line_words=line.words if whole else "No step-size line: it concerns all parameters that a step moves.",
        subset=chosen.on.label,
        products=sum(spot.products for spot in spots),
        gradients=sum(spot.gradients for spot in spots),
        passes=sum(spot.passes for spot in spots),
        examples=len(problem.evaluation),
        data=problem.data_hash,
        seed=chosen.seed,
    )


@dataclass(eq=False)
class _Spot:
    """What is known of one snapshot: arrays over operators, forms and updates."""

    products: int
    gradients: int
    passes: int
    eigenvalue: Array
    residual: Array
    converged: Array
    trace: Array
    trace_stderr: Array
    worst: Array
    one_step: Array
    mean_rise: Array
    mean_rise_stderr: Array
    curvature: Array = field(default_factory=lambda: np.zeros(0))
    line_curvature: Array = field(default_factory=lambda: np.zeros(0))
    line_curvature_error: Array = field(default_factory=lambda: np.zeros(0))
    critical_low: Array = field(default_factory=lambda: np.zeros(0))
    critical_high: Array = field(default_factory=lambda: np.zeros(0))


def _measured(
    problem: Problem,
    theta: Array,
    buffers: Array,
    chosen: Measures,
    trace: Trace | None,
    warm: dict[tuple[str, str], Tensor],
    tell: Callable[[int], None],
) -> _Spot:
    near = Neighbourhood(problem, theta, buffers, chosen.on)
    operators = hessians(problem, theta, buffers, chosen.on, product=chosen.product)
    shape = (len(operators), len(chosen.forms))
    nothing = [np.full(size, np.nan) for size in (shape, shape, shape, shape[:1], shape[:1], *[shape] * 4)]
    spot = _Spot(0, 0, 0, *nothing)
    spot.converged = np.zeros(shape, bool)
    finite = np.isfinite(near.losses())
    for number, (name, weights) in enumerate(zip(near.names, near.weights(), strict=True)):
        if not finite[number]:
            continue
        if trace is not None:
            estimate = trace(operators[name])
            spot.trace[number], spot.trace_stderr[number] = estimate.value, estimate.stderr
        for place, form in enumerate(chosen.forms):
            at, key = (number, place), (name, form.scale.label)
            scale = scale_on(form.scale, problem.layout, theta, near.spans)
            scaled = ScaledOperator(operators[name], scale)
            top = top_eigenpairs(scaled, 1, "largest", chosen.accuracy, chosen.seed, warm.get(key))
            spot.eigenvalue[at], spot.residual[at], spot.converged[at] = (
                top.values[0],
                top.residuals[0],
                top.converged[0],
            )
            sharpest = [torch.tensor(top.vectors[0], dtype=torch.float64)] if np.isfinite(top.values[0]) else []
            if sharpest:
                warm[key] = sharpest[0]
            rise = worst_case(near, weights.tolist(), form.radius, scale, sharpest, chosen.ascent, chosen.seed)
            spot.worst[at], spot.one_step[at] = rise.value, rise.one_step
            spot.products += top.products
            tell(top.products)
    for place, form in enumerate(chosen.forms):
        scale = scale_on(form.scale, problem.layout, theta, near.spans)
        rises = mean_rise(near, form.noise(near.size), scale, chosen.pairs, chosen.seed)
        spot.mean_rise[:, place] = [rise.value for rise in rises]
        spot.mean_rise_stderr[:, place] = [rise.stderr for rise in rises]
    turned = _along_updates(near, operators, finite, chosen.search, spot)
    tell(turned)
    spot.products += turned
    spot.gradients, spot.passes = near.gradients, near.passes
    return spot


def _along_updates(
    near: Neighbourhood, operators: Mapping[str, SymmetricOperator], finite: Array, search: LineSearch, spot: _Spot
) -> int:
    """Curvatures and critical rates of every loss along the gradient of every task and of the average; the number of
    products, none for losses that are not finite.
    """
    tasks = near.every_gradient()
    gradients = torch.cat([tasks, tasks.mean(0, keepdim=True)])
    given = tasks.T.to(operators["average"].dtype)
    unknown = torch.full(given.shape, torch.nan, dtype=torch.float64, device=near.device)
    turned = torch.stack(
        [
            (operators[name] @ given).double() if known else unknown
            for name, known in zip(near.problem.names, finite, strict=False)
        ]
    )  # [loss, n, task]
    turned = torch.cat([turned, turned.mean(0, keepdim=True)])
    turned = torch.cat([turned, turned.mean(2, keepdim=True)], 2)
    bent = np.asarray(torch.einsum("in,jni->ij", gradients, turned).cpu())
    slopes = np.asarray((gradients @ gradients.T).cpu())
    with np.errstate(invalid="ignore", divide="ignore"):
        spot.curvature = bent / np.diag(slopes)[:, None]
    found = [
        (*line_curvature(near, u), *critical_rates(near, u, slopes[i], bent[i], search))
        for i, u in enumerate(gradients)
    ]
    spot.line_curvature, spot.line_curvature_error, spot.critical_low, spot.critical_high = (
        np.stack(column) for column in zip(*found, strict=True)
    )
    return int(finite[:-1].sum()) * len(tasks)
