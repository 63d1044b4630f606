"""Losses over planes and lines, and what was found in them."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.results.base import Array, Record, array, names
from analysis.results.planes import Line, Plane


@dataclass(frozen=True, eq=False, kw_only=True)
class Values(Record):
    """What is measured at the points of a surface or of a line, and under which conditions.

    loss = mean over the examples, summed in float64; stderr = standard deviation over examples / sqrt(examples);
    difference_stderr = the same of the paired differences, each example's loss minus its loss at the centre (the
    origin), in which the noise that both have in common cancels. The average is the mean over tasks of each example's
    losses. Where a point is not done, all are NaN.
    """

    tasks: tuple[str, ...] = names("task")
    metrics: tuple[str, ...] = names("metric")
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

    x: Array = array("x")
    y: Array = array("y")
    loss: Array = array("task", "y", "x", units="loss")
    stderr: Array = array("task", "y", "x", units="loss")
    difference_stderr: Array = array("task", "y", "x", units="loss")
    average_stderr: Array = array("y", "x", units="loss")
    average_difference_stderr: Array = array("y", "x", units="loss")
    scores: Array = array("metric", "y", "x")
    score_stderr: Array = array("metric", "y", "x")
    done: Array = array("y", "x")
    plane: Plane


@dataclass(frozen=True, eq=False, kw_only=True)
class Profile(Values):
    """Loss of every task along a line, with standard errors and a completion mask."""

    x: Array = array("x")
    loss: Array = array("task", "x", units="loss")
    stderr: Array = array("task", "x", units="loss")
    difference_stderr: Array = array("task", "x", units="loss")
    average_stderr: Array = array("x", units="loss")
    average_difference_stderr: Array = array("x", units="loss")
    scores: Array = array("metric", "x")
    score_stderr: Array = array("metric", "x")
    done: Array = array("x")
    line: Line


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfaceEnsemble(Record):
    """Surfaces over several random planes through one point, point by point: median and quantiles over the planes.

    Losses of the tasks, then of their average over tasks, member by member. Where `low` and `high` agree, all draws
    show the same; where they do not, one draw shows itself.
    """

    tasks: tuple[str, ...] = names("view")
    """Task names, then `average` where there are several tasks."""
    x: Array = array("x")
    y: Array = array("y")
    median: Array = array("view", "y", "x", units="loss")
    low: Array = array("view", "y", "x", units="loss")
    high: Array = array("view", "y", "x", units="loss")
    quantiles: Array = array("bound")
    """Of `low` and of `high`."""
    seeds: Array = array("member")
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

    tasks: tuple[str, ...] = names("view")
    x: Array = array("x")
    median: Array = array("view", "x", units="loss")
    low: Array = array("view", "x", units="loss")
    high: Array = array("view", "x", units="loss")
    quantiles: Array = array("bound")
    seeds: Array = array("member")
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

    tasks: tuple[str, ...] = names("task")
    x: Array = array("x")
    y: Array = array("y")
    loss: Array = array("task", "y", "x", units="loss")
    """NaN where the nearest measured point used, or one of several, has no finite loss."""
    held_out: Array = array("y", "x")
    """Points kept from the fit; measured when the rounds have come within the tolerance or to their end."""
    used: Array = array("y", "x")
    error: Array = array("task", units="loss")
    """NaN before the points held out are measured, or where none has a finite loss."""
    error_share: Array = array("task")
    """Largest error at the points held out as a share of the range, of the loss or of its logarithm (where positive
    losses span a factor of 20 or more), whichever is larger. The range is that of the points used.
    """
    average_error: float
    average_error_share: float
    """The same of the average over tasks of the fits."""
    logarithmic: Array = array("task")
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

    tasks: tuple[str, ...] = names("task")
    pairs: tuple[str, ...] = names("pair")
    """`i and j`, in the order (1, 2), (1, 3), ..., (2, 3), ..."""
    x: Array = array("x")
    y: Array = array("y")
    cosine: Array = array("pair", "y", "x")
    ratio: Array = array("pair", "y", "x")
    norm: Array = array("task", "y", "x", units="loss / parameter")
    noise: Array = array("task", "y", "x", units="loss / parameter")
    """Standard error of each task's gradient, from its spread over `pieces`; NaN for a single example."""
    gap: Array = array("y", "x", units="loss / parameter")
    gap_noise: Array = array("y", "x", units="loss / parameter")
    """Standard error of the gradient sum_t a_t g_t with the gap's weights, which the tasks' errors enter together."""
    weights: Array = array("task", "y", "x")
    """The convex weights of the gap."""
    loss: Array = array("task", "y", "x", units="loss")
    pareto: Array = array("y", "x")
    """Grid points that no other grid point beats in one task without losing in another."""
    done: Array = array("y", "x")
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

    views: tuple[str, ...] = names("view")
    """Task names, then `average` where there are several tasks."""
    minima: Array = array("view")
    """How many minima are deeper than twice their noise; all where it is unknown."""
    convexity: Array = array("view")
    """Share of the inner grid points at which the 2x2 Hessian is positive definite."""
    roughness: Array = array("view")
    """Root mean square of the loss minus the mean of its four neighbours, as a share of the range."""
    width: Array = array("view", "direction", units="parameter")
    """Distance from the deepest minimum to where the loss has risen by `rise`, to the left, right, below and above;
    NaN where the grid, or what is known of it, ends before.
    """
    area: Array = array("view", units="parameter^2")
    """Area of the basin around the deepest minimum below that rise; NaN where it reaches the edge of what is known."""
    rise: Array = array("view", units="loss")
    of: Array = array("minimum")
    """The view that each minimum belongs to, a number; deepest first in each view."""
    at: Array = array("minimum", "axis")
    """Plane coordinates (x, y)."""
    value: Array = array("minimum", units="loss")
    depth: Array = array("minimum", units="loss")
    noise: Array = array("minimum", units="loss")
    """At most so large is the standard error of the loss at the point where the basin joins, minus the minimum's; NaN
    where unknown.
    """
    edge: Array = array("minimum")
    """Whether it lies at the edge of what is known, beyond which the loss may fall further."""
    scale: Array = array("axis", units="parameter")
    """Length of a grid step along each axis, the median where steps differ."""
