"""Where over a plane the task gradients on the shared parameters agree, where they conflict, and where neither task can
gain without another's loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from analysis.curvature import Location
from analysis.pareto import min_norm, pareto_set
from analysis.precision import sufficient
from analysis.results import Array, ConflictMap, Plane
from analysis.subspaces import require_layout
from analysis.surfaces import Grid
from landscape.errors import LandscapeError
from landscape.modules import index_tensor
from landscape.problem import Problem
from landscape.randomness import generator

PIECES = 8
"""Standard errors come from at least so many pieces of the examples, where there are so many examples."""
COLUMNS = 1 << 18
"""Parameters at which the gradients of all tasks are held in float64 at once, beside their sums."""


def measure(
    problem: Problem, plane: Plane, grid: Grid, before: ConflictMap | None = None, seed: int = 0
) -> ConflictMap:
    """The whole conflict map; see `mapping`, of which this is the last word."""
    *_, found = mapping(problem, plane, grid, before, seed)
    return found


def mapping(
    problem: Problem, plane: Plane, grid: Grid, before: ConflictMap | None = None, seed: int = 0
) -> Iterator[ConflictMap]:
    """Measures a conflict map row by row and yields it after each row, its mask saying what is done.

    g_t(x, y) = (1 / N) sum_n grad L_t(example n; origin + x basis[0] + y basis[1]) with respect to the shared
    parameters, over the whole evaluation set: gradients of micro-batches in the model's precision, their sum in
    float64. The gap is the norm of the smallest convex combination of the g_t (Desideri 2012). Evaluation mode; heads
    and buffers are the plane's.

    Standard errors: the examples are cut into K pieces in an order that the seed draws, since data sets are often
    sorted; with the pieces' sizes n_k and mean gradients m_k,

        noise_t^2 = sum_k n_k ||m_kt - g_t||^2 / ((K - 1) N),

    an unbiased estimate of E ||g_t - E g_t||^2 for pieces of any sizes; the gap's is the same of sum_t a_t m_kt. A
    piece is a micro-batch, or smaller so that K is at least 8.

    A point whose loss or gradient of a task is not finite is done, and all that this gradient enters is NaN. A zero
    gradient has no cosine. With one task there are no pairs, and the gap is the norm. The Pareto set is among the
    points done so far.

    Gradients are held against differences at the plane's origin, and at the corners of the grid where these are far
    from it; see `analysis.backward`.

    Cost a point: one forward pass of the evaluation set, T backward passes. Memory: T shared gradients in float64 and
    in the model's precision, and one micro-batch's graph. `before`, an unfinished map of the same plane, grid, data
    and seed, is gone on with, to the same bytes. The module, its mode, gradient flags and the global generators stay
    as they were.

    Raises:
        LandscapeError: a plane of another model, a problem without shared parameters, or a map of something else to go
            on with.
    """
    gauge = _Gauge(problem, plane, seed)
    found = _Found.nothing(len(problem.tasks), grid.shape)
    empty = found.record(problem, plane, grid, gauge)
    if before is not None:
        found = _taken_over(before, empty)
    todo = [(j, np.flatnonzero(~row).tolist()) for j, row in enumerate(found.done) if not row.all()]
    if todo:
        gauge.require_gradients([(0.0, 0.0), *product((grid.x[0], grid.x[-1]), (grid.y[0], grid.y[-1]))])
    for j, row in todo:
        for i in row:
            found.put(j, i, gauge.at(grid.x[i], grid.y[j]))
        yield found.record(problem, plane, grid, gauge)
    if not todo:
        yield found.record(problem, plane, grid, gauge)


def require_shared(problem: Problem) -> None:
    """Raises where there is nothing that gradients of several tasks reach."""
    if not problem.layout.count():
        raise LandscapeError(
            "the problem has no shared parameters: expected some that several tasks' gradients reach, for gradients "
            "that can conflict"
        )


@dataclass(frozen=True, eq=False)
class _Agreement:
    """What is known of one point."""

    cosine: Array
    ratio: Array
    norm: Array
    noise: Array
    gap: Array
    gap_noise: Array
    weights: Array
    loss: Array


@dataclass(frozen=True, eq=False)
class _Found:
    """What is known of all points, [..., ny, nx]."""

    known: _Agreement
    done: Array

    @classmethod
    def nothing(cls, tasks: int, shape: tuple[int, int]) -> _Found:
        pairs = tasks * (tasks - 1) // 2
        sizes = [(pairs,), (pairs,), (tasks,), (tasks,), (), (), (tasks,), (tasks,)]
        return cls(_Agreement(*(np.full((*size, *shape), np.nan) for size in sizes)), np.zeros(shape, bool))

    def put(self, j: int, i: int, point: _Agreement) -> None:
        for name, value in vars(point).items():
            getattr(self.known, name)[..., j, i] = value
        self.done[j, i] = True

    def record(self, problem: Problem, plane: Plane, grid: Grid, gauge: _Gauge) -> ConflictMap:
        losses = np.where(self.done, self.known.loss, np.nan)
        return ConflictMap(
            tasks=problem.names,
            pairs=tuple(f"{a} and {b}" for a, b in combinations(problem.names, 2)),
            x=np.array(grid.x),
            y=np.array(grid.y),
            **{name: values.copy() for name, values in vars(self.known).items()},
            pareto=pareto_set(losses.reshape(len(losses), -1)).reshape(self.done.shape),
            done=self.done.copy(),
            plane=plane,
            examples=len(problem.evaluation),
            data=problem.data_hash,
            pieces=len(gauge.pieces),
            seed=gauge.seed,
        )


def _taken_over(before: ConflictMap, empty: ConflictMap) -> _Found:
    """What an earlier map knows, if it is of the same things as a fresh, empty one."""
    for name in ("tasks", "x", "y", "plane", "examples", "data", "pieces", "seed"):
        mine, theirs = getattr(empty, name), getattr(before, name)
        same = np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
        if not same:
            raise LandscapeError(
                f"the conflict map to go on with has another {'grid' if name in ('x', 'y') else name}: expected the "
                "same plane, grid, data and seed; measure anew"
            )
    names = _Agreement.__dataclass_fields__
    return _Found(_Agreement(*(getattr(before, name).copy() for name in names)), before.done.astype(bool))


class _Gauge:
    """Measures how the task gradients agree at points of one plane."""

    def __init__(self, problem: Problem, plane: Plane, seed: int) -> None:
        require_layout(plane, problem.layout)
        require_shared(problem)
        positions = problem.layout.index()
        problem, _ = sufficient(problem)
        self.seed = seed
        self._problem, self._index = problem, index_tensor(positions, problem.device)
        self._origin, self._basis, self._buffers = (
            torch.tensor(np.ascontiguousarray(v), dtype=torch.float64, device=problem.device)
            for v in (plane.origin, plane.basis, plane.buffers)
        )
        count = len(problem.evaluation)
        order = torch.from_numpy(generator(seed, "conflicts").permutation(count)).to(problem.device)
        self.pieces = torch.split(order, max(1, min(problem.micro_batch, count // PIECES)))

    def at(self, x: float, y: float) -> _Agreement:
        return _agreement(self._moments(self._theta(x, y)))

    def require_gradients(self, points: Iterable[tuple[float, float]]) -> None:
        """Raises where a task's gradient at one of the points is not that of its loss."""
        for point in points:
            Location(self._problem, self._theta(*point), self._buffers).require_gradients()

    def _theta(self, x: float, y: float) -> Tensor:
        return (self._origin + x * self._basis[0] + y * self._basis[1]).to(self._problem.dtype)

    def _moments(self, theta: Tensor) -> _Moments:
        moments = _Moments(len(self._problem.tasks), len(self._index), self._problem.device)
        for rows in self.pieces:
            moments.add(*self._gradients(theta, rows), len(rows))
        return moments

    def _gradients(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Summed losses [T] in float64, and their T gradients [P_shared], on some of the examples."""
        batch = self._problem.evaluation[rows]
        with torch.enable_grad():
            shared = theta[self._index].requires_grad_()
            moved = theta.index_copy(0, self._index, shared)
            losses = [loss.sum(dtype=torch.float64) for loss in self._problem.task_losses(moved, batch, self._buffers)]
        gradients = [
            torch.autograd.grad(loss, shared, retain_graph=loss is not losses[-1], materialize_grads=True)[0]
            for loss in losses
        ]
        return torch.stack([loss.detach() for loss in losses]), gradients


class _Moments:
    """Sums over examples that come in pieces, and the spread of the pieces (Chan, Golub and LeVeque, 1983).

    spread[s, t] = sum_k n_k (m_ks - g_s)'(m_kt - g_t), with the pieces' sizes n_k and mean gradients m_k.
    """

    def __init__(self, tasks: int, size: int, device: torch.device) -> None:
        self.losses, self.gradients, self.spread = (
            torch.zeros(shape, dtype=torch.float64, device=device)
            for shape in ((tasks,), (tasks, size), (tasks, tasks))
        )
        self.examples = self.pieces = 0

    def add(self, losses: Tensor, gradients: Sequence[Tensor], count: int) -> None:
        """Takes in sums over `count` examples."""
        self.losses += losses
        for first in range(0, self.gradients.shape[1], COLUMNS):
            part = torch.stack([gradient[first : first + COLUMNS].double() for gradient in gradients])
            before = self.gradients[:, first : first + COLUMNS]
            if self.examples:
                change = part / count - before / self.examples
                self.spread += change @ change.T * (self.examples * count / (self.examples + count))
            before += part
        self.examples, self.pieces = self.examples + count, self.pieces + 1


def _agreement(moments: _Moments) -> _Agreement:
    """What the sums of all examples say; it takes the sums' memory for itself."""
    losses, gradients = moments.losses / moments.examples, moments.gradients.div_(moments.examples)
    sound = gradients.isfinite().all(1) & losses.isfinite()
    gradients.masked_fill_(~sound[:, None], 0.0)
    peak = gradients.abs().max()
    gradients.div_(torch.where(peak > 0, peak, 1.0))  # so that no square is too large or too small
    gram, known = np.asarray((gradients @ gradients.T).cpu()), np.asarray(sound.cpu())
    covariance = np.asarray(moments.spread.cpu()) / moments.examples
    covariance = covariance / (moments.pieces - 1) if moments.pieces > 1 else np.full_like(covariance, np.nan)
    gap, weights = _gap(gradients, gram) if known.all() else (np.nan, np.full(len(gram), np.nan))
    norm = np.where(known, np.sqrt(np.diag(gram)), np.nan)
    i, j = np.triu_indices(len(gram), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _Agreement(
            cosine=np.clip(gram[i, j] / (norm[i] * norm[j]), -1, 1),
            ratio=norm[i] / norm[j],
            norm=norm * float(peak),
            noise=np.where(known, np.sqrt(np.diag(covariance)), np.nan),
            gap=np.asarray(gap * float(peak)),
            gap_noise=np.sqrt(np.maximum(weights @ covariance @ weights, 0.0)),
            weights=weights,
            loss=np.asarray(losses.cpu()),
        )


def _gap(gradients: Tensor, gram: Array) -> tuple[float, Array]:
    """The norm of the smallest convex combination with the weights; taken of the combination itself, it has more
    digits than the Gram matrix gives it.
    """
    weights = min_norm(gram)[1]
    return float((torch.from_numpy(weights).to(gradients.device) @ gradients).norm()), weights
