"""Spectral densities with their two errors, traces, and what is read from both along a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Check, Estimate, Record, Run, array, names

MOST_POINTS = 2500
"""Points of an evenly spaced grid on which a density is drawn, at most."""
ROUNDINGS = 10.0
REACH = 4.0
"""A kernel is drawn this many widths to each side of its node."""


@dataclass(frozen=True, eq=False)
class Curve(Record):
    """A mean over probes at some points, with its standard error and its 95 % interval at each (Student's t)."""

    x: Array = array("point", units="loss / parameter^2")
    mean: Array = array("point")
    stderr: Array = array("point")
    low: Array = array("point")
    high: Array = array("point")


@dataclass(frozen=True, eq=False, kw_only=True)
class Density(Record):
    """How the eigenvalues of a symmetric operator of size n are distributed: mu = (1 / n) sum_i delta(lambda_i).

    Each probe z, ||z||^2 = n, sees the measure sum_i (u_i' z)^2 / n delta(lambda_i), whose mean over probes is mu; its
    Gauss quadrature with `degrees` nodes is a row here. Rows with fewer nodes than others end with copies of the last
    one and weight 0. NaN where products were not finite.
    """

    run: Run
    operator: str
    """A task's name or `average`."""
    matrix: str
    """What the operator is, for instance `Hessian`."""
    subset: str
    """The parameters that it is about, in words."""
    step: int
    size: int
    """n, the number of parameters."""
    nodes: Array = array("probe", "node", units="loss / parameter^2")
    weights: Array = array("probe", "node")
    """Share of the eigenvalues that a node stands for; the sum over nodes is 1."""
    degrees: Array = array("probe")
    """How many nodes a probe has."""
    exact: Array = array("probe")
    """Whether a probe's Krylov space was exhausted: then its row is its measure, without an error of the degree."""
    width: float
    """Standard deviation of the Gaussian kernel that makes a smooth density, in loss / parameter^2."""
    width_rule: str
    probe: str
    """The law of the probes."""
    quantile: float
    """Half a 95 % interval over probes, in standard errors: t(0.975; probes - 1), NaN for one probe."""
    precision: float
    """Relative rounding of the products' numbers."""
    seed: int
    products: int
    examples: int
    data: str

    @property
    def defined(self) -> bool:
        """Whether every product was finite."""
        return bool(np.isfinite(self.nodes).all())

    @property
    def norm(self) -> float:
        """Largest |node|, which is at most ||H||_2 and nearly that after some dozens of products."""
        return float(np.abs(self.nodes).max())

    def pooled(self) -> tuple[Array, Array]:
        """Nodes and weights of the mean measure over probes, ascending; the weights' sum is 1."""
        order = np.argsort(self.nodes, axis=None, kind="stable")
        return np.ravel(self.nodes)[order], np.ravel(self.weights)[order] / len(self.nodes)

    def grid(self) -> Array:
        """Points on which the smooth density misses nothing: a quarter of a width apart over the whole range, and where
        that is too many, evenly spaced with a few more around every node.
        """
        if not self.defined:
            return np.zeros(0)
        low, high = self.nodes.min() - REACH * self.width, self.nodes.max() + REACH * self.width
        count = int(np.ceil(4 * (high - low) / self.width)) + 1
        if count <= MOST_POINTS:
            return np.linspace(low, high, count)
        around = np.arange(-REACH, REACH + 1)[:, None] * self.width
        return np.unique(np.r_[np.linspace(low, high, MOST_POINTS), np.ravel(np.unique(self.nodes) + around)])

    def curve(self, x: Array, width: float = 0.0) -> Curve:
        """The density phi(x) = sum_k w_k exp(-(x - node_k)^2 / (2 s^2)) / (s sqrt(2 pi)), in parameter^2 / loss, for a
        kernel of width s (0: the record's own).
        """
        s = width or self.width
        rows = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            kept = weights > 0
            kernel = np.exp(-0.5 * ((x[:, None] - nodes[kept]) / s) ** 2) / (s * np.sqrt(2 * np.pi))
            rows.append(kernel @ weights[kept] if self.defined else np.full(x.size, np.nan))
        return self._over_probes(x, np.stack(rows))

    def cumulative(self, x: Array) -> Curve:
        """The share of eigenvalues at or below x; it needs no kernel."""
        return self._over_probes(x, self.below(x, True))

    def below(self, x: Array, included: bool = False) -> Array:
        """For every probe the share of eigenvalues below x (`included`: or at x), [probe, point]."""
        sums = np.concatenate([np.zeros((len(self.nodes), 1)), np.cumsum(self.weights, 1)], 1)
        places = np.stack([np.searchsorted(nodes, x, "right" if included else "left") for nodes in self.nodes])
        shares = np.take_along_axis(sums, places, 1)
        return shares if self.defined else np.full(shares.shape, np.nan)

    @property
    def rounding(self) -> float:
        """Below this size a node is not told from zero: 10 roundings of the largest."""
        return ROUNDINGS * self.precision * self.norm

    @property
    def resolution(self) -> float:
        """How near to zero a node has a sign: the distance between the two nodes around zero, mean over probes with
        nodes on both sides and spaces not exhausted, but no less than the rounding.
        """
        gaps = [0.0]
        for nodes, exact in zip(self.nodes, self.exact, strict=True):
            below, above = nodes[nodes < 0], nodes[nodes >= 0]
            gaps += [float(above[0] - below[-1])] if below.size and above.size and not exact else []
        return max(sum(gaps) / max(len(gaps) - 1, 1), self.rounding) if self.defined else float("nan")

    def negative(self) -> tuple[Array, Array, Array]:
        """For every probe the share of eigenvalues below zero (below minus the rounding), and where it can lie.

        A node stands for what is around it: half of its weight counts as below it, half as above, spread evenly to the
        nodes beside it. What is certain of a probe's measure: the share below a point is at least the weight of the
        nodes below it but the last, at most that of them all and of the next one above (Chebyshev, Markov, Stieltjes).
        Where the Krylov space was exhausted the weight below is the share. All [probe].
        """
        shares = np.full((3, len(self.nodes)), np.nan)
        for row in range(len(self.nodes) if self.defined else 0):
            count = int(self.degrees[row])
            nodes, weights = self.nodes[row, :count], self.weights[row, :count]
            place = int((nodes < -self.rounding).sum())
            sums = np.r_[0.0, np.cumsum(weights)]
            middle = sums[place]
            if not self.exact[row] and 0 < place < count:
                middle = np.interp(-self.rounding, nodes, sums[:-1] + weights / 2)
            around = (sums[place],) * 2 if self.exact[row] else (sums[max(place - 1, 0)], sums[min(place + 1, count)])
            shares[:, row] = middle, *around
        share, low, high = shares
        return share, low, high

    def moment(self, power: int) -> Estimate:
        """tr(H^power): n times the mean over probes of sum_k w_k node_k^power; exact for every probe up to
        2 degrees - 1.
        """
        return mean_over_probes(self.size * (self.weights * self.nodes**power).sum(1))

    @property
    def sampling(self) -> float:
        """The error of having few probes as a distance: the integral of the standard error of the cumulative share, at
        least the mean Wasserstein-1 distance between the measure found and that of infinitely many probes.
        """
        x = np.unique(self.nodes)
        errors = self._over_probes(x, self.below(x, True)).stderr
        return float((errors[:-1] * np.diff(x)).sum()) if self.defined else float("nan")

    @property
    def discretisation(self) -> float:
        """The error of having few nodes as a distance: a bound of the Wasserstein-1 distance between a probe's rule and
        its measure between the outermost nodes, mean over probes; 0 for exhausted spaces.

        Between two nodes the measure's distribution function leaves the rule's by at most the weight of either
        (Chebyshev, Markov, Stieltjes): sum_k (node_k+1 - node_k) max(w_k, w_k+1).
        """
        steps = np.diff(self.nodes, axis=1) * np.maximum(self.weights[:, 1:], self.weights[:, :-1])
        return float(np.where(self.exact, 0.0, steps.sum(1)).mean())

    def distance(self, values: Array, weights: Array | None = None) -> float:
        """Wasserstein-1 distance to a discrete measure, by default equal weights at `values`: the integral of
        |F - G| over the two distribution functions, closed form, in the unit of the eigenvalues.
        """
        mine, my_weights = self.pooled()
        theirs = np.full(values.size, 1 / values.size) if weights is None else weights
        return wasserstein(mine, my_weights, values, theirs)

    def _over_probes(self, x: Array, rows: Array) -> Curve:
        found, count = rows.mean(0), len(rows)
        error = rows.std(0, ddof=1) / np.sqrt(count) if count > 1 else np.full(x.size, np.nan)
        half = self.quantile * error
        return Curve(x, found, error, found - half, found + half)


def wasserstein(values: Array, weights: Array, others: Array, other_weights: Array) -> float:
    """Integral of |F - G| for the step functions F, G that rise by `weights` at `values`, `other_weights` at `others`;
    NaN where anything is.
    """
    places = np.concatenate([np.ravel(values), np.ravel(others)])
    rises = np.concatenate([np.ravel(weights), -np.ravel(other_weights)])
    order = np.argsort(places, kind="stable")
    return float((np.abs(np.cumsum(rises[order]))[:-1] * np.diff(places[order])).sum())


def mean_over_probes(samples: Array) -> Estimate:
    """Mean and standard error (n - 1 in the variance); the error of one sample is NaN."""
    count = samples.size
    error = float(samples.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return Estimate(float(samples.mean()), error, count)


def root_of(squared: Estimate) -> Estimate:
    """The root of an estimate of a square, with standard error stderr / (2 root), the delta method."""
    value = float(np.sqrt(max(squared.value, 0.0))) if np.isfinite(squared.value) else float("nan")
    return Estimate(value, squared.stderr / (2 * value) if value else 0.0 * squared.stderr, squared.samples)


@dataclass(frozen=True, eq=False, kw_only=True)
class Moments(Record):
    """Samples whose means are tr H and ||H||_F^2, with the way that they were drawn; see `analysis.traces`."""

    run: Run
    operator: str
    matrix: str
    subset: str
    step: int
    size: int
    trace: Array = array("sample", units="loss / parameter^2")
    square: Array = array("sample", units="(loss / parameter^2)^2")
    """Samples of ||H||_F^2, from the same products as those of the trace."""
    way: str
    quantile: float
    """Half a 95 % interval, in standard errors: t(0.975; samples - 1), NaN for one sample."""
    seed: int
    products: int
    examples: int
    data: str

    @property
    def trace_estimate(self) -> Estimate:
        """tr H with its standard error."""
        return mean_over_probes(self.trace)

    @property
    def frobenius(self) -> Estimate:
        """||H||_F = sqrt(mean of `square`), standard error by the delta method: that of the mean over 2 ||H||_F."""
        return root_of(mean_over_probes(self.square))


@dataclass(frozen=True, eq=False, kw_only=True)
class Traces(Record):
    """Trace, Frobenius norm and an effective rank along one run, each with its standard error, for every operator.

    Definitions are in `analysis.summaries`. The same probes are used for every operator and snapshot.
    """

    run: Run
    operators: tuple[str, ...] = names("operator")
    """Task names, then `average`."""
    matrix: str
    subset: str
    steps: Array = array("snapshot", units="step")
    size: int
    trace: Array = array("snapshot", "operator", units="loss / parameter^2")
    trace_stderr: Array = array("snapshot", "operator", units="loss / parameter^2")
    frobenius: Array = array("snapshot", "operator", units="loss / parameter^2")
    frobenius_stderr: Array = array("snapshot", "operator", units="loss / parameter^2")
    participation: Array = array("snapshot", "operator")
    """Effective rank tr(H)^2 / ||H||_F^2."""
    participation_stderr: Array = array("snapshot", "operator")
    way: str
    trace_quantile: float
    """Half a 95 % interval in standard errors, of what comes from the trace."""
    seed: int
    products: int
    examples: int
    data: str


@dataclass(frozen=True, eq=False, kw_only=True)
class SpectrumSummary(Traces):
    """Numbers that describe whole spectra along one run, each with its standard error, for every operator.

    Definitions are in `analysis.summaries`. The same probes are used for every operator and snapshot, so differences
    along training are known better than each value alone.
    """

    norm: Array = array("snapshot", "operator", units="loss / parameter^2")
    """Largest |node| of the density, a lower bound of ||H||_2."""
    negative: Array = array("snapshot", "operator")
    """Share of the eigenvalues below zero."""
    negative_stderr: Array = array("snapshot", "operator")
    negative_low: Array = array("snapshot", "operator")
    negative_high: Array = array("snapshot", "operator")
    """Where that share can lie for these probes, because nodes stand for what is around them."""
    resolved: Array = array("snapshot", "operator")
    """Share of the eigenvalues below minus the resolution."""
    resolved_stderr: Array = array("snapshot", "operator")
    resolution: Array = array("snapshot", "operator", units="loss / parameter^2")
    """Distance between the nodes on both sides of zero, or the rounding of products where that is more."""
    negative_mass: Array = array("snapshot", "operator")
    """Share of sum |lambda_i| that negative eigenvalues make."""
    negative_mass_stderr: Array = array("snapshot", "operator")
    intrinsic: Array = array("snapshot", "operator")
    """Effective rank tr H / ||H||_2."""
    intrinsic_stderr: Array = array("snapshot", "operator")
    entropy: Array = array("snapshot", "operator")
    """Effective rank exp(-sum p_i log p_i), p_i = |lambda_i| / sum |lambda_j|."""
    entropy_stderr: Array = array("snapshot", "operator")
    sampling: Array = array("snapshot", "operator", units="loss / parameter^2")
    discretisation: Array = array("snapshot", "operator", units="loss / parameter^2")
    """The two errors of the density, see `Density`."""
    trace_gap: Array = array("snapshot", "operator")
    square_gap: Array = array("snapshot", "operator")
    """|first (second) moment of the density - the independent estimate|, in standard errors of the difference."""
    gap_limit: float
    """What a gap may be: any of them is larger at most once in 10,000 times by chance."""
    density_quantile: float
    """As `trace_quantile`, of what comes from the density."""

    def checks(self) -> tuple[Check, ...]:
        """The largest gap between moments of the densities and independent estimates, over snapshots and operators.

        The limit is one for all of them together (Bonferroni).
        """
        reason = "standard errors; more happens at most once in 10,000 times by chance"
        return tuple(
            Check(f"{what} of the density against an independent estimate", float(gap.max()), self.gap_limit, reason)
            for what, gap in (("trace", self.trace_gap), ("squared Frobenius norm", self.square_gap))
        )
