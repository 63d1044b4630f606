"""Spectral densities by stochastic Lanczos quadrature, of one operator and along a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import scipy
import torch

from analysis import traces
from analysis.operators import SymmetricOperator, hessians
from analysis.probes import Probe, Rademacher, drawn
from analysis.quadrature import Rule, rules
from analysis.results import AVERAGE, Array, Density, Moments, Run
from analysis.subspaces import run_of
from analysis.traces import Way, XTrace
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Trajectory

Operators = Callable[[Problem, Array, Array], Mapping[str, SymmetricOperator]]
"""From a problem, theta [P] and buffers [Q] to operators by name, as `analysis.operators.hessians`."""


@dataclass(frozen=True)
class Quadrature:
    """How many probes, and how many Lanczos products each: the two errors of a density.

    `block` probes go through the operator at once; memory is block (degree + 1) n numbers.
    """

    probes: int = 10
    degree: int = 80
    probe: Probe = Rademacher()
    block: int = 1

    def __post_init__(self) -> None:
        if self.probes < 1 or self.degree < 1 or self.block < 1:
            raise LandscapeError(
                f"expected 1 or more probes, nodes and probes a block, got {self.probes}, {self.degree} and "
                f"{self.block}: raise them"
            )

    def cost(self, size: int) -> int:
        """Products, at most."""
        return self.probes * min(self.degree, size)


class Width(Protocol):
    """How wide the kernel is that makes a smooth density of nodes and weights."""

    @property
    def label(self) -> str: ...
    def of(self, found: Sequence[Rule]) -> float:
        """The kernel's standard deviation in loss / parameter^2."""
        ...


@dataclass(frozen=True)
class Spacing:
    """The distance between neighbouring nodes, mean over the mass (each node's is half of that between its two
    neighbours) and over probes, so that the kernel bridges the gaps where most eigenvalues are; at least `share` of the
    range of all nodes, which a figure can still show (of the largest |node| where all are one; 1 where that is 0).
    """

    share: float = 0.002

    @property
    def label(self) -> str:
        return f"mean distance of nodes, at least {self.share:.1%} of the range"

    def of(self, found: Sequence[Rule]) -> float:
        nodes = np.concatenate([rule.nodes for rule in found])
        largest, spread = float(np.abs(nodes).max()), float(np.ptp(nodes))
        spread = spread if spread > 1e-6 * largest else largest or 1 / self.share
        gaps = [rule.weights @ np.gradient(rule.nodes) if rule.nodes.size > 1 else 0.0 for rule in found]
        return max(float(np.mean(gaps)), self.share * spread)


@dataclass(frozen=True)
class Fixed:
    """A width of one's own, for densities that are compared."""

    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < np.inf:
            raise LandscapeError(f"expected a width of the kernel above 0, got {self.width}: choose one")

    @property
    def label(self) -> str:
        return "given"

    def of(self, found: Sequence[Rule]) -> float:
        return self.width


@dataclass(frozen=True)
class Subject:
    """What a density or a trace is of, for its record."""

    run: Run = field(default_factory=lambda: Run("operator", "", 0))
    operator: str = "operator"
    matrix: str = "operator"
    subset: str = "all"
    step: int = 0
    examples: int = 0
    data: str = ""


HESSIANS = Subject(matrix="Hessian", subset="shared")
"""Of what `along` measures by itself."""


@dataclass(frozen=True)
class Measurement:
    """What is measured of every operator: its density, and, with products of their own, trace and Frobenius norm."""

    quadrature: Quadrature = Quadrature()
    width: Width = Spacing()
    way: Way = XTrace()
    trace_products: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        traces.require_enough(self.way, self.trace_products)

    def cost(self, size: int) -> int:
        """Products of one operator of this size, at most."""
        return self.quadrature.cost(size) + self.way.cost(self.trace_products, size)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What was measured of one operator at one snapshot."""

    density: Density
    moments: Moments


def probe_rules(
    operator: SymmetricOperator, quadrature: Quadrature = Quadrature(), seed: int = 0, first: int = 0
) -> Iterator[Rule]:
    """The quadrature rule of every probe from number `first` on, one after the other, so that a caller can save each.

    Probe number p depends on the seed and p alone: a run that goes on where another stopped finds what one run would.
    Once a product is not finite, the rules that follow are NaN without further products.
    Cost: at most min(degree, n) products a probe.
    """
    broken = False
    for start in range(first, quadrature.probes, quadrature.block):
        numbers = range(start, min(start + quadrature.block, quadrature.probes))
        if broken:
            yield from [Rule(np.full(1, np.nan), np.full(1, np.nan), False, 0)] * len(numbers)
            continue
        columns = [drawn(quadrature.probe, 1, operator, generator(seed, "density", p)) for p in numbers]
        for rule in rules(operator, torch.cat(columns, 1), quadrature.degree):
            broken = broken or not bool(np.isfinite(rule.nodes).all())
            yield rule


def density(
    operator: SymmetricOperator,
    quadrature: Quadrature = Quadrature(),
    width: Width = Spacing(),
    seed: int = 0,
    subject: Subject = Subject(),
    progress: Callable[[int], None] = lambda products: None,
) -> Density:
    """How the eigenvalues of an operator are distributed, by stochastic Lanczos quadrature.

    phi(x) = (1 / n) tr delta(x - H), estimated as the mean over probes v = z / ||z|| of sum_k w_k delta(x - node_k),
    the Gauss quadrature of v' delta(x - H) v (Lin, Saad, Yang 2016; Ubaru, Chen, Saad 2017; Ghorbani, Krishnan, Xiao
    2019). Its expectation is right for all polynomials up to degree 2 `degree` - 1. Two errors are left, and kept
    apart: of the probes (`Density.sampling`, falls as 1 / sqrt(probes n)), and of the degree
    (`Density.discretisation`, falls as range / degree).

    `progress` is told the products of every probe as it is done. Where a product is not finite, nodes and weights are
    NaN. Cost: at most probes x degree products.
    """
    found = []
    for rule in probe_rules(operator, quadrature, seed):
        found.append(rule)
        progress(rule.products)
    return assembled(found, operator, quadrature, width, seed, subject)


def assembled(
    found: Sequence[Rule],
    operator: SymmetricOperator,
    quadrature: Quadrature,
    width: Width = Spacing(),
    seed: int = 0,
    subject: Subject = Subject(),
) -> Density:
    """The record of some probes' rules, those of `probe_rules` or the first of them. Cost: no product."""
    if not found:
        raise LandscapeError("expected the rule of at least one probe, got none: measure one first")
    longest = max(rule.nodes.size for rule in found)
    nodes, weights = np.zeros((len(found), longest)), np.zeros((len(found), longest))
    for row, rule in enumerate(found):
        nodes[row], weights[row, : rule.nodes.size] = rule.nodes[-1], rule.weights
        nodes[row, : rule.nodes.size] = rule.nodes
    defined = bool(np.isfinite(nodes).all())
    return Density(
        run=subject.run,
        operator=subject.operator,
        matrix=subject.matrix,
        subset=subject.subset,
        step=subject.step,
        size=operator.size,
        nodes=nodes if defined else np.full(nodes.shape, np.nan),
        weights=weights if defined else np.full(nodes.shape, np.nan),
        degrees=np.array([rule.nodes.size for rule in found]),
        exact=np.array([rule.exact for rule in found]),
        width=width.of(found) if defined else float("nan"),
        width_rule=width.label,
        probe=quadrature.probe.label,
        quantile=quantile(len(found)),
        precision=float(torch.finfo(operator.dtype).eps),
        seed=seed,
        products=sum(rule.products for rule in found),
        examples=subject.examples,
        data=subject.data,
    )


def moments(
    operator: SymmetricOperator,
    way: Way = XTrace(),
    products: int = 60,
    seed: int = 0,
    block: int = 0,
    subject: Subject = Subject(),
) -> Moments:
    """The samples of trace and squared Frobenius norm as a record. Cost and errors as `traces.samples`."""
    found = traces.samples(operator, way, products, seed, block)
    return Moments(
        run=subject.run,
        operator=subject.operator,
        matrix=subject.matrix,
        subset=subject.subset,
        step=subject.step,
        size=operator.size,
        trace=found.trace,
        square=found.square,
        way=way.label,
        quantile=quantile(found.trace.size),
        seed=seed,
        products=found.products,
        examples=subject.examples,
        data=subject.data,
    )


def quantile(count: int) -> float:
    """Half a 95 % interval of a mean of `count` samples, in standard errors: t(0.975; count - 1); NaN for one."""
    return float(scipy.stats.t.ppf(0.975, count - 1)) if count > 1 else float("nan")


def along(
    problem: Problem,
    trajectory: Trajectory,
    rows: Sequence[int],
    measurement: Measurement = Measurement(),
    names: Sequence[str] = (),
    operators: Operators = hessians,
    subject: Subject = HESSIANS,
    done: Collection[tuple[int, str]] = (),
    progress: Callable[[int], None] = lambda products: None,
) -> Iterator[Spectrum]:
    """Density, trace and Frobenius norm of every operator at some snapshots of a run, one after the other.

    Args:
        rows: which snapshots, by their place in the trajectory.
        names: which operators, task names and `average`; empty for all.
        operators: what is looked at, by default Hessians on the shared parameters; `subject` says so in words.
        done: pairs of step and operator that are left out, because an earlier run has them.
        progress: told products as they are done, `products` of them in all or fewer.

    Every operator gets the same probes, so that what differs between tasks and snapshots is not the draw.
    Cost: `Measurement.cost` products for each snapshot and operator.
    """
    problem.layout.require(trajectory.layout, str(trajectory.path))
    chosen = names_of(problem, names)
    where = replace(subject, run=run_of(trajectory), examples=len(problem.evaluation), data=problem.data_hash)
    for row in rows:
        step = int(trajectory.steps[row])
        left = [name for name in chosen if (step, name) not in done]
        if not left:
            continue
        found = operators(problem, trajectory.theta[row], trajectory.buffers[row])
        for name in left:
            here = replace(where, operator=name, step=step)
            yield _spectrum(found[name], measurement, here, progress)


def _spectrum(
    operator: SymmetricOperator, measurement: Measurement, subject: Subject, progress: Callable[[int], None]
) -> Spectrum:
    chosen, seed = measurement.quadrature, measurement.seed
    whole = density(operator, chosen, measurement.width, seed, subject, progress)
    sampled = moments(operator, measurement.way, measurement.trace_products, seed, chosen.block, subject)
    progress(sampled.products)
    return Spectrum(whole, sampled)


def products(
    problem: Problem, snapshots: int, measurement: Measurement, names: Sequence[str] = (), size: int = 0
) -> int:
    """Products that `along` takes at most; `size`: parameters of an operator, by default the shared ones."""
    return snapshots * len(names_of(problem, names)) * measurement.cost(size or problem.layout.count())


def names_of(problem: Problem, names: Sequence[str]) -> tuple[str, ...]:
    """The operators asked for, by default every task and the average."""
    known = (*problem.names, AVERAGE)
    for name in names:
        if name not in known:
            raise LandscapeError(f"there is no operator {name!r}: expected one of {', '.join(known)}")
    return tuple(names) or known
