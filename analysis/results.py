"""The immutable records that analyses return, archives store and figures draw. Numpy only.

Every array field states its named dimensions and its unit beside it; `analysis.archive` writes both into the file.
A record never changes a measured value: logarithms, clipping and smoothing happen when a scene is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeAlias

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
class Plane(Record):
    """The points theta = origin + x basis[0] + y basis[1]; the basis need not be orthonormal.

    Coordinates of a point are least squares: [x, y] = gram^-1 basis (theta - origin), gram = basis basis^T.
    """

    origin: Array = _array("parameter", units="parameter")
    basis: Array = _array("axis", "parameter", units="parameter")
    gram: Array = _array("axis", "axis_", units="parameter^2")
    buffers: Array = _array("buffer")
    """Non-trainable state (batch-norm statistics) at the origin, used frozen all over the plane."""
    explained: Array = _array("axis")
    """Share of the variance of the trajectories along each axis; NaN where the recipe has no such share."""
    recipe: str
    """How the plane was made, in words."""
    axes: tuple[str, ...] = _names("axis")
    """What each axis is, for labels."""
    seed: int
    """Seed of a random plane, -1 where nothing was drawn."""
    layout: str
    """Hash of the layout of theta, so that a plane is not used with another model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shadow(Record):
    """A trajectory seen in a plane: least-squares coordinates and the distance off the plane of each snapshot."""

    run: Run
    steps: Array = _array("snapshot", units="step")
    coordinates: Array = _array("snapshot", "axis")
    off_plane: Array = _array("snapshot", units="parameter")
    """||theta - (origin + x basis[0] + y basis[1])||, over the same parameters as the plane."""
    from_origin: Array = _array("snapshot", units="parameter")
    """||theta - origin||, to set the distance off the plane against."""
    losses: Array = _array("snapshot", "task", units="loss")
    """The true loss of every task at the snapshot, which is not the plane's loss below it."""
    tasks: tuple[str, ...] = _names("task")


@dataclass(frozen=True, eq=False, kw_only=True)
class Surface(Record):
    """Loss of every task over a grid of plane coordinates, with standard errors and a completion mask.

    loss[t, j, i] = mean over the evaluation examples of task t's loss at (x[i], y[j]), summed in float64;
    stderr = standard deviation over examples / sqrt(examples). Where `done` is false, both are NaN.
    """

    tasks: tuple[str, ...] = _names("task")
    x: Array = _array("x")
    y: Array = _array("y")
    loss: Array = _array("task", "y", "x", units="loss")
    stderr: Array = _array("task", "y", "x", units="loss")
    done: Array = _array("y", "x")
    plane: Plane
    examples: int
    data: str
    """Content hash of the evaluation set."""
    batch_norm: str
    """What was done with normalisation statistics: `none`, `frozen` or `batch`."""


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
    wins.
    """

    label: str
    rates: Array = _array("rate")
    losses: Array = _array("rate", units="loss")
    """Averaged evaluation loss at the end of a short run with a seed of its own; not finite where the run diverged."""
    chosen: float
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
