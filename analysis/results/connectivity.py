"""What lies between runs: losses along paths, barriers, how far apart runs are in weights and in what they compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names


@dataclass(frozen=True, eq=False, kw_only=True)
class PathLosses(Record):
    """The loss of every task, and of their average, along paths between pairs of points.

    A path is theta(t), t from 0 (the pair's start) to 1 (its end), of all parameters, heads included. excess(t) =
    loss(t) - ((1 - t) loss(0) + t loss(1)), the height above the straight line between the ends' losses; its standard
    error is that of the mean of the same expression example by example, in which what the ends share cancels. The
    average is the mean over tasks of each example's losses. Where a pair is not done, all are NaN.
    """

    path: str
    """`straight line` or `Bezier curve`."""
    views: tuple[str, ...] = names("view")
    """Task names, then `average` where there are several tasks."""
    starts: tuple[str, ...] = names("pair")
    ends: tuple[str, ...] = names("pair")
    t: Array = array("t")
    loss: Array = array("pair", "view", "t", units="loss")
    stderr: Array = array("pair", "view", "t", units="loss")
    excess: Array = array("pair", "view", "t", units="loss")
    excess_stderr: Array = array("pair", "view", "t", units="loss")
    length: Array = array("pair", units="parameter")
    """The path's length in theta, ||theta(1) - theta(0)|| for a straight line."""
    done: Array = array("pair")
    alignment: str
    """What was done with hidden units before: `none`, or how the pair's end was permuted."""
    heads: str
    """What was done with the heads on the way: `interpolated`, or how they were fitted again."""
    batch_norm: str
    """What was done with normalisation statistics: `none`, `interpolated`, or how they were estimated again."""
    examples: int
    data: str
    """Content hash of the examples."""
    split: str
    """Which examples: `evaluation` or `training`."""
    engine: str
    """How the points were evaluated, its repr."""

    @property
    def barrier(self) -> Array:
        """[pair, view], max_t excess(t): zero or more, since the excess is zero at both ends; NaN where it has NaN."""
        return np.asarray(self.excess.max(2))

    @property
    def summit(self) -> Array:
        """[pair, view], the position on the path where the barrier is reached."""
        return np.asarray(self.excess.argmax(2))


@dataclass(frozen=True, eq=False, kw_only=True)
class Barriers(Record):
    """How high the loss of every task rises between points: barrier = max_t excess(t), see `PathLosses`.

    Zero where the excess is nowhere above zero; the diagonal is zero. NaN where a pair was not measured. The standard
    error is the excess's at its summit; it does not know that the summit was chosen as the highest of the points
    measured, which makes a barrier of pure noise positive.
    """

    path: str
    points: tuple[str, ...] = names("point")
    """`RUN@STEP`."""
    views: tuple[str, ...] = names("view")
    barrier: Array = array("view", "point", "point_", units="loss")
    stderr: Array = array("view", "point", "point_", units="loss")
    at: Array = array("view", "point", "point_")
    """The t of the summit on the way from the row's point to the column's."""
    loss: Array = array("view", "point", units="loss")
    """At the points themselves, to set barriers against."""
    length: Array = array("point", "point_", units="parameter")
    samples: int
    """Points measured on every path."""
    alignment: str
    heads: str
    batch_norm: str
    examples: int
    data: str
    split: str


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedCurve(Record):
    """A quadratic Bezier curve of low loss between two points, as far as it is trained.

    theta(t) = (1 - t)^2 theta(0) + 2 t (1 - t) middle + t^2 theta(1).
    """

    start: str
    end: str
    middle: Array = array("parameter", units="parameter")
    losses: Array = array("step", units="loss")
    """The averaged loss of the mini-batch of every step, at that step's t."""
    steps: int
    """How many were asked for; `losses` has those that are done."""
    optimiser: str
    batch_size: int
    seed: int
    state: Array = array("byte")
    """The optimiser's state, to go on exactly."""
    layout: str
    """Hash of the layout of theta."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return bool(self.losses.size >= self.steps)


@dataclass(frozen=True, eq=False, kw_only=True)
class PointDistances(Record):
    """Distances ||theta_i - theta_j|| between snapshots of one or several runs, in weights.

    `aligned`: after the hidden units of the column's snapshot have been permuted to match those of the row's; the
    diagonal is zero. NaN where it was not asked for.
    """

    points: tuple[str, ...] = names("point")
    """`RUN@STEP`."""
    labels: tuple[str, ...] = names("point")
    seeds: Array = array("point")
    steps: Array = array("point", units="step")
    distance: Array = array("point", "point_", units="parameter")
    aligned: Array = array("point", "point_", units="parameter")
    subset: str
    """The parameters that distances are over, in words."""
    alignment: str


@dataclass(frozen=True, eq=False, kw_only=True)
class FunctionDistances(Record):
    """How different what points compute is, task by task, with standard errors over examples.

    disagreement: the mean over examples of whether the rule sees a difference, or the root of the mean of the squared
    differences, as `rules` says; prediction: root mean square difference of predictions, over examples and entries;
    loss: root mean square difference of the losses of each example. The error of a root mean square r is that of the
    mean of squares / (2 r), NaN where r is zero.
    """

    points: tuple[str, ...] = names("point")
    tasks: tuple[str, ...] = names("task")
    rules: tuple[str, ...] = names("task")
    """What `disagreement` is for each task, in words."""
    shares: Array = array("task")
    """Whether `disagreement` is a share of the examples."""
    disagreement: Array = array("task", "point", "point_")
    disagreement_stderr: Array = array("task", "point", "point_")
    prediction: Array = array("task", "point", "point_", units="prediction")
    prediction_stderr: Array = array("task", "point", "point_", units="prediction")
    loss: Array = array("task", "point", "point_", units="loss")
    loss_stderr: Array = array("task", "point", "point_", units="loss")
    examples: int
    data: str
    split: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Separation(Record):
    """How two runs of one seed, from the same start, part: distances at the steps that both have.

    With displacements u_s, v_s from the common start: distance = ||u - v||, nets ||u|| and ||v||, relative =
    ||u - v|| / sqrt(||u||^2 + ||v||^2): 0 together, 1 at a right angle (as independent walks in many dimensions are),
    sqrt 2 opposite. Overlap of the subspaces: mean squared cosine of the principal angles between the leading
    directions of both runs' increments; 1 the same subspace, k / P on average for random ones.
    """

    first: Run
    second: Run
    subset: str
    steps: Array = array("snapshot", units="step")
    distance: Array = array("snapshot", units="parameter")
    first_net: Array = array("snapshot", units="parameter")
    second_net: Array = array("snapshot", units="parameter")
    threshold: float
    parted: int
    """The first common step with a snapshot at which `relative` is above the threshold, -1 where there is none."""
    angles: Array = array("direction", units="degree")
    """Principal angles, ascending, between the leading directions of the increments."""
    null_angles: Array = array("direction", units="degree")
    """Median over draws of the same between random subspaces."""
    overlap: float
    null_overlap: float
    """Mean over random subspaces, k / P."""
    null_high: float
    """What 97.5 % of random subspaces stay below."""
    dimension: int
    """P, parameters in the subset."""
    draws: int
    seed: int

    @property
    def relative(self) -> Array:
        """[snapshot], NaN where neither has moved."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.distance / np.sqrt(self.first_net**2 + self.second_net**2))

    @property
    def cosine(self) -> Array:
        """[snapshot], of the angle between the displacements; NaN where one of them is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            products = (self.first_net**2 + self.second_net**2 - self.distance**2) / 2
            return np.asarray(products / (self.first_net * self.second_net))
