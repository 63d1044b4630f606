"""The immutable records that analyses return, archives store and figures draw. Numpy only.

Every array field states its named dimensions and its unit beside it; `analysis.archive` writes both into the file.
A record never changes a measured value: logarithms, clipping and smoothing happen when a scene is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

AVERAGE = "average"
"""The name that the averaged loss carries beside the task names; no task may be called so."""

BUDGETS = ("steps", "updates", "gradients", "seconds", "movement")
"""What a comparison can be drawn against; `movement` is learning rate times updates of the shared parameters."""


def _array(*dims: str, units: str = "1") -> Any:
    """A dataclass field that holds an array with these named dimensions and this unit."""
    return field(metadata={"dims": dims, "units": units})


def _names(dim: str) -> Any:
    """A dataclass field that holds a tuple of strings, the labels along one dimension."""
    return field(metadata={"labels": dim})


@dataclass(frozen=True, eq=False)
class Record:
    """Base of all records: two are equal when every field is, arrays bit by bit (NaN equals NaN)."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for spec, array in self.arrays():
            dims = spec.metadata["dims"]
            if array.ndim != len(dims):
                raise ValueError(f"{type(self).__name__}.{spec.name} needs dimensions {dims}, got shape {array.shape}")
            for dim, size in zip(dims, array.shape, strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"{type(self).__name__}.{spec.name} has {size} entries along {dim!r}, others have {sizes[dim]}"
                    )
            array.setflags(write=False)
        for spec in fields(self):
            dim = spec.metadata.get("labels")
            if dim is not None and len(getattr(self, spec.name)) != sizes.get(dim, 0):
                raise ValueError(
                    f"{type(self).__name__}.{spec.name} has {len(getattr(self, spec.name))} labels along {dim!r}, "
                    f"its arrays have {sizes.get(dim, 0)} entries"
                )

    def arrays(self) -> Iterator[tuple[Field[Any], Array]]:
        """The array fields with their values."""
        for spec in fields(self):
            if "dims" in spec.metadata:
                value = np.asarray(getattr(self, spec.name))
                if value is getattr(self, spec.name):
                    value = value.view()
                object.__setattr__(self, spec.name, value)
                yield spec, value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        numeric = a.dtype.kind in "fc" and b.dtype.kind in "fc"
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=numeric))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (np.isnan(a) and np.isnan(b))
    return bool(a == b)


@dataclass(frozen=True, eq=False)
class Run(Record):
    """Which trajectory a number belongs to."""

    label: str
    """Short name of the strategy for legends, for instance `independent`."""
    strategy: str
    """The strategy in full, its repr."""
    seed: int

    @property
    def name(self) -> str:
        """`LABEL-SEED`, the name of the run's file in a study."""
        return f"{self.label}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Estimate(Record):
    """A mean over samples: `value` and its standard error."""

    value: float
    stderr: float
    samples: int


@dataclass(frozen=True, eq=False)
class Check(Record):
    """A test that a study makes on its own numbers: it passes when `value <= limit`."""

    name: str
    """What is compared with what, in one line."""
    value: float
    limit: float
    reason: str
    """Why the limit is what it is."""

    @property
    def passed(self) -> bool:
        return bool(self.value <= self.limit)


@dataclass(frozen=True, eq=False, kw_only=True)
class Subspace(Record):
    """The points theta = origin + sum_k x_k basis[k]; the basis need not be orthonormal.

    Coordinates of a point are least squares over the parameters that the subspace is about, its *subset* S:
    x = gram^-1 basis_S (theta - origin)_S, gram = basis_S basis_S^T. Outside S the basis is zero, unless the heads
    are interpolated: then they follow the coordinates that the subset gives.
    """

    origin: Array = _array("parameter", units="parameter")
    basis: Array = _array("axis", "parameter", units="parameter")
    gram: Array = _array("axis", "axis_", units="parameter^2")
    buffers: Array = _array("buffer")
    """Non-trainable state (batch-norm statistics) at the origin."""
    recipe: str
    """How it was made, in words."""
    axes: tuple[str, ...] = _names("axis")
    """What each axis is, for labels."""
    seed: int
    """Seed of random directions, -1 where nothing was drawn."""
    layout: str
    """Hash of the layout of theta, so that a plane is not used with another model."""
    subset: str = "all"
    """The parameters that it is about, in words: `all`, `shared`, a task's head, or patterns."""
    spans: Array = field(
        default_factory=lambda: np.zeros((0, 2), np.int64), metadata={"dims": ("span", "end"), "units": "1"}
    )
    """First and past-the-last position in theta of the subset's neighbouring entries; empty for all of theta."""
    heads: str = "centre"
    """What the heads do over a plane of the shared parameters: `centre`, `interpolated`; see `analysis.heads`."""

    DIMENSIONS: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.basis) != self.DIMENSIONS:
            raise ValueError(
                f"{type(self).__name__}.basis needs {self.DIMENSIONS} directions, got shape {self.basis.shape}"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Plane(Subspace):
    """The points theta = origin + x basis[0] + y basis[1]."""

    explained: Array = _array("axis")
    """Share of the variance of the trajectories along each axis; NaN where the recipe has no such share."""

    DIMENSIONS: ClassVar[int] = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Line(Subspace):
    """The points theta = origin + x basis[0]."""

    DIMENSIONS: ClassVar[int] = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Shadow(Record):
    """A trajectory seen in a plane: least-squares coordinates and the distance off the plane of each snapshot."""

    run: Run
    steps: Array = _array("snapshot", units="step")
    coordinates: Array = _array("snapshot", "axis")
    off_plane: Array = _array("snapshot", units="parameter")
    """||theta - (origin + x basis[0] + y basis[1])||, over the plane's subset of the parameters."""
    from_origin: Array = _array("snapshot", units="parameter")
    """||theta - origin|| over the same, to set the distance off the plane against."""
    elsewhere: Array = _array("snapshot", units="parameter")
    """The distance from the plane's point below over the parameters outside the subset; zero where it is all."""
    losses: Array = _array("snapshot", "task", units="loss")
    """The true loss of every task at the snapshot, which is not the plane's loss below it."""
    tasks: tuple[str, ...] = _names("task")


@dataclass(frozen=True, eq=False, kw_only=True)
class Feet(Record):
    """The true loss of a run's snapshots beside the plane's loss at their feet, the nearest points of the plane.

    gap = true - foot; its standard error is paired over examples. It is the effect of being off the plane. True is
    with the snapshot's own heads and buffers, the foot with what a surface of the plane has there.
    """

    run: Run
    tasks: tuple[str, ...] = _names("task")
    steps: Array = _array("snapshot", units="step")
    true: Array = _array("snapshot", "task", units="loss")
    foot: Array = _array("snapshot", "task", units="loss")
    gap_stderr: Array = _array("snapshot", "task", units="loss")
    average_gap_stderr: Array = _array("snapshot", units="loss")
    """Of the average over tasks of each example's gaps."""
    off_plane: Array = _array("snapshot", units="parameter")
    subset: str
    """The parameters that the plane is about, see `Subspace`; what is outside makes a gap but no distance."""
    examples: int
    split: str
    """Which examples: `evaluation` or `training`."""
    batch_norm: str
    """What was done with normalisation statistics at the feet, see `Values`."""
    heads: str
    """What was done with the heads at the feet, see `Values`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Faithfulness(Record):
    """How much of some runs a plane shows, beside what it would show of random walks with the same steps.

    Runs are rows, the last one all of them together. Variance is about the plane's origin, runs weighted equally;
    distance is path length, sum_s ||projected step|| / sum_s ||step||, over the stored snapshots. The walks have the
    runs' starts and step lengths, and are seen in their own best plane: mean and standard deviation over draws.
    """

    runs: tuple[str, ...] = _names("run")
    axes: tuple[str, ...] = _names("axis")
    """The orthonormal axes that variance is counted along: where the plane's are oblique, the second one is made
    orthogonal to the first.
    """
    variance: Array = _array("run", "axis")
    """Share of the variance along each axis."""
    walk_variance: Array = _array("run", "axis")
    walk_variance_spread: Array = _array("run", "axis")
    distance: Array = _array("run")
    """Share of the distance travelled that the plane shows; NaN for a run that does not move."""
    walk_distance: Array = _array("run")
    walk_distance_spread: Array = _array("run")
    dimension: int
    """Parameters that the walks move in, those of the plane's subset."""
    draws: int
    seed: int

    @property
    def null_variance(self) -> Array:
        """What the walks show of their variance, all runs together, [axis]."""
        return np.asarray(self.walk_variance[-1])

    @property
    def null_spread(self) -> Array:
        """The standard deviation of `null_variance` over draws, [axis]."""
        return np.asarray(self.walk_variance_spread[-1])

    @property
    def null_distance(self) -> float:
        """What the walks show of their distance, all runs together."""
        return float(self.walk_distance[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaneStability(Record):
    """How a principal plane turns when snapshots or runs are left out: principal angles to the plane of all."""

    left_out: tuple[str, ...] = _names("case")
    """What each case lacks: a run, by its name, or a share of the snapshots of every run."""
    angles: Array = _array("case", "angle", units="degree")
    """The smaller and the larger principal angle; 90 where the two planes share no direction, NaN where what is left
    spans no plane.
    """


@dataclass(frozen=True, eq=False, kw_only=True)
class Values(Record):
    """What is measured at the points of a surface or of a line, and under which conditions.

    loss = mean over the examples, summed in float64; stderr = standard deviation over examples / sqrt(examples);
    difference_stderr = the same of the paired differences, each example's loss minus its loss at the centre (the
    origin), in which the noise that both have in common cancels. The average is the mean over tasks of each example's
    losses. Where a point is not done, all are NaN.
    """

    tasks: tuple[str, ...] = _names("task")
    metrics: tuple[str, ...] = _names("metric")
    """`task.metric` names."""
    examples: int
    data: str
    """Content hash of the examples."""
    split: str
    """Which examples: `evaluation` or `training`."""
    batch_norm: str
    """What was done with normalisation statistics: `none`, `frozen`, or how they were estimated again."""
    heads: str
    """What was done with the heads: `as the plane's`, or how they were fitted again at each point."""
    engine: str
    """How the points were evaluated, its repr."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Surface(Values):
    """Loss of every task over a grid of plane coordinates, with standard errors and a completion mask.

    loss[t, j, i] is task t's loss at (x[i], y[j]).
    """

    x: Array = _array("x")
    y: Array = _array("y")
    loss: Array = _array("task", "y", "x", units="loss")
    stderr: Array = _array("task", "y", "x", units="loss")
    difference_stderr: Array = _array("task", "y", "x", units="loss")
    average_stderr: Array = _array("y", "x", units="loss")
    average_difference_stderr: Array = _array("y", "x", units="loss")
    scores: Array = _array("metric", "y", "x")
    score_stderr: Array = _array("metric", "y", "x")
    done: Array = _array("y", "x")
    plane: Plane


@dataclass(frozen=True, eq=False, kw_only=True)
class Profile(Values):
    """Loss of every task along a line, with standard errors and a completion mask."""

    x: Array = _array("x")
    loss: Array = _array("task", "x", units="loss")
    stderr: Array = _array("task", "x", units="loss")
    difference_stderr: Array = _array("task", "x", units="loss")
    average_stderr: Array = _array("x", units="loss")
    average_difference_stderr: Array = _array("x", units="loss")
    scores: Array = _array("metric", "x")
    score_stderr: Array = _array("metric", "x")
    done: Array = _array("x")
    line: Line


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfaceEnsemble(Record):
    """Surfaces over several random planes through one point, point by point: median and quantiles over the planes.

    Losses of the tasks, then of their average over tasks, member by member. Where `low` and `high` agree, all draws
    show the same; where they do not, one draw shows itself.
    """

    tasks: tuple[str, ...] = _names("view")
    """Task names, then `average` where there are several tasks."""
    x: Array = _array("x")
    y: Array = _array("y")
    median: Array = _array("view", "y", "x", units="loss")
    low: Array = _array("view", "y", "x", units="loss")
    high: Array = _array("view", "y", "x", units="loss")
    quantiles: Array = _array("bound")
    """Of `low` and of `high`."""
    seeds: Array = _array("member")
    """Those that drew the directions."""
    recipe: str
    examples: int
    data: str
    """Content hash of the examples."""
    split: str
    """Which examples: `evaluation` or `training`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ProfileEnsemble(Record):
    """The same along several random lines through one point."""

    tasks: tuple[str, ...] = _names("view")
    x: Array = _array("x")
    median: Array = _array("view", "x", units="loss")
    low: Array = _array("view", "x", units="loss")
    high: Array = _array("view", "x", units="loss")
    quantiles: Array = _array("bound")
    seeds: Array = _array("member")
    recipe: str
    examples: int
    data: str
    split: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Interpolation(Record):
    """A surface from fewer points than its grid has, with an error from measured points that the fit did not use.

    `surface` holds what was measured, and nothing else; `loss` is the fit, equal to it at the points used. `error` is
    the largest |fit - measured| at the points held out, a random sample: with the stated confidence, at least the share
    `coverage` of all points not used have an error of at most that. It holds for each task and the average by itself,
    and for all of them together for the largest `error_share`.
    """

    tasks: tuple[str, ...] = _names("task")
    x: Array = _array("x")
    y: Array = _array("y")
    loss: Array = _array("task", "y", "x", units="loss")
    """NaN where the nearest measured point used, or one of several, has no finite loss."""
    held_out: Array = _array("y", "x")
    """Points kept from the fit; measured when the rounds have come within the tolerance or to their end."""
    used: Array = _array("y", "x")
    error: Array = _array("task", units="loss")
    """NaN before the points held out are measured, or where none has a finite loss."""
    error_share: Array = _array("task")
    """Largest error at the points held out as a share of the range, of the loss or of its logarithm (where positive
    losses span a factor of 20 or more), whichever is larger. The range is that of the points used.
    """
    average_error: float
    average_error_share: float
    """The same of the average over tasks of the fits."""
    logarithmic: Array = _array("task")
    """Whether the task's loss was fitted in its logarithm."""
    tolerance: float
    budget: float
    """At most this share of the grid's points was to be measured."""
    seed: int
    """It drew the points held out."""
    coverage: float
    confidence: float
    exceptions: int
    """Points held out where a fit is missing and the loss is finite, or the reverse: not in `error`, but counted as
    errors in the confidence. Where a border of finite losses is measured point by point, held-out points on it are not
    counted: they stand for no other.
    """
    checks: int
    """How often the points held out were looked at to decide whether to go on; each look lowers the confidence."""
    reached: bool
    """Whether every `error_share`, and the average's, is within the tolerance."""
    finished: bool
    """Whether the tolerance is reached or the budget spent; else there are rounds to come."""
    surface: Surface


@dataclass(frozen=True, eq=False, kw_only=True)
class ConflictMap(Record):
    """How the task gradients on the shared parameters agree, over the grid of a surface.

    Pairs are task pairs (i, j), i < j: cosine = g_i'g_j / (||g_i|| ||g_j||), NaN where one of them is zero; ratio =
    ||g_i|| / ||g_j||. gap = min over convex weights a of ||sum_t a_t g_t||, zero where the point is Pareto stationary.
    The standard error of a gradient is that of a vector, sqrt(trace of its covariance): a norm or a gap below it is
    not told from zero. Where a task's loss or gradient is not finite, all that its gradient enters is NaN.
    """

    tasks: tuple[str, ...] = _names("task")
    pairs: tuple[str, ...] = _names("pair")
    """`i and j`, in the order (1, 2), (1, 3), ..., (2, 3), ..."""
    x: Array = _array("x")
    y: Array = _array("y")
    cosine: Array = _array("pair", "y", "x")
    ratio: Array = _array("pair", "y", "x")
    norm: Array = _array("task", "y", "x", units="loss / parameter")
    noise: Array = _array("task", "y", "x", units="loss / parameter")
    """Standard error of each task's gradient, from its spread over `pieces`; NaN for a single example."""
    gap: Array = _array("y", "x", units="loss / parameter")
    gap_noise: Array = _array("y", "x", units="loss / parameter")
    """Standard error of the gradient sum_t a_t g_t with the gap's weights, which the tasks' errors enter together."""
    weights: Array = _array("task", "y", "x")
    """The convex weights of the gap."""
    loss: Array = _array("task", "y", "x", units="loss")
    pareto: Array = _array("y", "x")
    """Grid points that no other grid point beats in one task without losing in another."""
    done: Array = _array("y", "x")
    plane: Plane
    examples: int
    data: str
    """Content hash of the examples."""
    pieces: int
    """Into how many pieces, drawn at random, the examples are cut for the standard errors."""
    seed: int
    """It draws the pieces."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfaceShape(Record):
    """The shape of every task's surface, and of their average, at the scale of its grid.

    Minima are those of the merge tree: a minimum's depth is its persistence, the rise of the loss at which its basin
    joins that of a deeper one (for one that never does, up to the largest loss of the grid).
    """

    views: tuple[str, ...] = _names("view")
    """Task names, then `average` where there are several tasks."""
    minima: Array = _array("view")
    """How many minima are deeper than twice their noise; all where it is unknown."""
    convexity: Array = _array("view")
    """Share of the inner grid points at which the 2x2 Hessian is positive definite."""
    roughness: Array = _array("view")
    """Root mean square of the loss minus the mean of its four neighbours, as a share of the range."""
    width: Array = _array("view", "direction", units="parameter")
    """Distance from the deepest minimum to where the loss has risen by `rise`, to the left, right, below and above;
    NaN where the grid, or what is known of it, ends before.
    """
    area: Array = _array("view", units="parameter^2")
    """Area of the basin around the deepest minimum below that rise; NaN where it reaches the edge of what is known."""
    rise: Array = _array("view", units="loss")
    of: Array = _array("minimum")
    """The view that each minimum belongs to, a number; deepest first in each view."""
    at: Array = _array("minimum", "axis")
    """Plane coordinates (x, y)."""
    value: Array = _array("minimum", units="loss")
    depth: Array = _array("minimum", units="loss")
    noise: Array = _array("minimum", units="loss")
    """At most so large is the standard error of the loss at the point where the basin joins, minus the minimum's; NaN
    where unknown.
    """
    edge: Array = _array("minimum")
    """Whether it lies at the edge of what is known, beyond which the loss may fall further."""
    scale: Array = _array("axis", units="parameter")
    """Length of a grid step along each axis, the median where steps differ."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Eigenpairs(Record):
    """Eigenvalues of a symmetric operator with unit vectors and true residuals ||H v - value v||."""

    values: Array = _array("pair", units="loss / parameter^2")
    vectors: Array = _array("pair", "coordinate")
    residuals: Array = _array("pair", units="loss / parameter^2")
    converged: Array = _array("pair")
    end: str
    """Which end of the spectrum: `largest`, `smallest`, `both` or `magnitude`."""
    products: int


@dataclass(frozen=True, eq=False, kw_only=True)
class EigenvalueHistory(Record):
    """Top eigenvalues of every task's Hessian, and of the averaged loss, on the shared parameters along one run.

    Each |value - true eigenvalue| is at most its residual (Hessian symmetric, unit vectors).
    """

    run: Run
    tasks: tuple[str, ...] = _names("operator")
    """Task names, then `average`."""
    steps: Array = _array("snapshot", units="step")
    values: Array = _array("snapshot", "operator", "pair", units="loss / parameter^2")
    residuals: Array = _array("snapshot", "operator", "pair", units="loss / parameter^2")
    converged: Array = _array("snapshot", "operator", "pair")
    products: int
    """Hessian-vector products in all."""
    examples: int
    data: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Exploration(Record):
    """How far one run moved the shared parameters, against every budget.

    net = ||theta_s - theta_0||; path = sum of ||change|| over steps, or over the finer updates inside them; ratio =
    path / net.
    """

    run: Run
    steps: Array = _array("snapshot", units="step")
    updates: Array = _array("snapshot", units="update")
    gradients: Array = _array("snapshot", units="gradient")
    seconds: Array = _array("snapshot", units="s")
    movement: Array = _array("snapshot", units="rate x update")
    net: Array = _array("snapshot", units="parameter")
    path_steps: Array = _array("snapshot", units="parameter")
    path_updates: Array = _array("snapshot", units="parameter")
    start_norm: float
    """||theta_0|| of the shared parameters, to make distances relative."""

    @property
    def ratio(self) -> Array:
        """path_steps / net, NaN at the start: 1 for a straight line, larger for a winding path."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.path_steps / self.net)

    def budget(self, name: str) -> Array:
        """The snapshots' position on one of `BUDGETS`."""
        if name not in BUDGETS:
            raise ValueError(f"expected a budget among {', '.join(BUDGETS)}, got {name!r}")
        return np.asarray(getattr(self, name))


@dataclass(frozen=True, eq=False, kw_only=True)
class DistanceMatrix(Record):
    """Distances ||theta_i - theta_j|| between points of one or several runs, on the shared parameters."""

    labels: tuple[str, ...] = _names("point")
    distance: Array = _array("point", "point_", units="parameter")
    what: str
    """Which points they are, for instance `last snapshots`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Training(Record):
    """What a run recorded about its own learning: evaluation losses and metrics, and mini-batch losses of every
    step.
    """

    run: Run
    tasks: tuple[str, ...] = _names("task")
    metrics: tuple[str, ...] = _names("metric")
    """`task.metric` names."""
    steps: Array = _array("snapshot", units="step")
    updates: Array = _array("snapshot", units="update")
    gradients: Array = _array("snapshot", units="gradient")
    seconds: Array = _array("snapshot", units="s")
    losses: Array = _array("snapshot", "task", units="loss")
    scores: Array = _array("snapshot", "metric")
    batch_steps: Array = _array("step", units="step")
    batch_losses: Array = _array("step", "task", units="loss")


@dataclass(frozen=True, eq=False, kw_only=True)
class RateSearch(Record):
    """A search of the learning rate for one strategy: the evaluation loss that each rate reached; the least one
    wins. It may be unfinished.
    """

    label: str
    rates: Array = _array("rate")
    losses: Array = _array("rate", units="loss")
    """Averaged evaluation loss at the end of a short run with a seed of its own; infinite where the run diverged, NaN
    where it was not done.
    """
    done: Array = _array("rate")
    """Which rates were tried."""
    chosen: float
    """The rate with the least loss; NaN until all rates are done, and where all diverged."""
    steps: int
    seed: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Record):
    """One measure of two strategies at one equal budget: paired differences over seeds with a 95 % interval.

    interval = mean +- t(0.975, n - 1) standard error; NaN with fewer than two seeds.
    """

    measure: str
    budget: str
    strategy: str
    baseline: str
    seeds: Array = _array("seed")
    strategy_values: Array = _array("seed", units="parameter")
    baseline_values: Array = _array("seed", units="parameter")
    level: float
    """The value of the budget at which both are read."""
    difference: float
    low: float
    high: float
    verdict: str
    """`wider` or `narrower` (`longer` or `shorter` for a path), `undecided`, or `too few seeds`."""
