"""Curvature of one task, of the average or of any weighted sum of tasks at one theta, on any subset of parameters."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from analysis import memory, subsets
from analysis.backward import require_derivatives, require_gradient
from analysis.blame import blamed, no_second_derivative, non_finite, require_second_derivative
from analysis.kinds import Fisher, GaussNewton, Hessian, Kind, gradient
from analysis.linear import Operator, applied, numpy_type
from analysis.local import Local, Part, Weighted, twice_differentiable
from analysis.precision import at_least_single, sufficient
from analysis.product_choice import AUTO, Auto
from analysis.products import Block, CentralDifferences, Running, Way
from analysis.results import AVERAGE, Array
from analysis.subsets import Shared, Subset
from analysis.working import opened, smaller
from landscape.data import Batch
from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem

Weights: TypeAlias = str | Sequence[float] | Mapping[str, float]
"""A task's name, `average`, a weight for every task in order, or weights by name (the others zero)."""


class Location:
    """A problem at one theta [P] with its buffers [Q], on its evaluation set or on other examples.

    Heads, buffers and all parameters that are not asked for are constants. Nothing here changes the problem. One in
    half precision is computed in float32, and `notes` says so.

    Args:
        theta, buffers: arrays as a trajectory holds them, or tensors.
        data: examples on the problem's device; the evaluation set by default.

    Raises:
        LandscapeError: theta of another length than the problem's layout.
    """

    @torch.inference_mode(False)
    def __init__(
        self, problem: Problem, theta: Array | Tensor, buffers: Array | Tensor, data: Batch | None = None
    ) -> None:
        self.problem, self.notes = sufficient(problem)
        self.data = self.problem.evaluation if data is None else data.to(self.problem.device, self.problem.dtype)
        there, state = (_plain(given) for given in (theta, buffers))
        self.local = Local(self.problem, there, state.to(problem.device))

    def operator(
        self, of: Weights = AVERAGE, on: Subset = Shared(), kind: Kind = Hessian(), product: Way | Auto = AUTO
    ) -> CurvatureOperator:
        """The curvature of a task, the average or a weighted sum on some of the parameters."""
        return CurvatureOperator(self, of, on, kind, product)

    def operators(
        self, on: Subset = Shared(), kind: Kind = Hessian(), product: Way | Auto = AUTO
    ) -> dict[str, CurvatureOperator]:
        """The operator of every task, then of the average, by name."""
        return {name: self.operator(name, on, kind, product) for name in (*self.problem.names, AVERAGE)}

    def cross(
        self,
        rows: Subset,
        columns: Subset,
        of: Weights = AVERAGE,
        kind: Kind = Hessian(),
        product: Way | Auto = AUTO,
    ) -> CrossBlock:
        """The block of the whole matrix with these rows and columns."""
        return CrossBlock(self, of, (rows, columns), kind, product)

    @torch.inference_mode(False)
    def require_gradients(self, on: Subset = Shared()) -> None:
        """Raises where a task's gradient is not that of its loss; see `analysis.backward.require_derivatives`."""
        for name in self.problem.names:
            require_gradient(self.block(name, on, on, Hessian()))

    @torch.inference_mode(False)
    def gradient(self, of: Weights = AVERAGE, on: Subset = Shared()) -> Tensor:
        """Gradient [n] of the weighted loss, in float64, held against differences once. Cost: one gradient of all
        examples.
        """
        block = self.block(of, on, on, Hessian())
        require_gradient(block)
        total = torch.zeros(block.loss.rows.size, dtype=torch.float64, device=self.problem.device)
        for batch in block.pieces(self.problem.micro_batch):
            with twice_differentiable():
                found = gradient(block.loss, self.local.state, batch)
            total += torch.cat([part.reshape(-1) for part in found])
        return total / len(self.data)

    def block(self, of: Weights, rows: Subset, columns: Subset, kind: Kind) -> Block:
        """What products are made of; see `analysis.products`."""
        layout = self.problem.layout
        weights = tuple((t, w) for t, w in enumerate(weights_of(self.problem, of)) if w)
        loss = Weighted(self.local, weights, Part.of(layout, rows), Part.of(layout, columns), self.data)
        return Block(kind, loss)


def _plain(given: Array | Tensor) -> Tensor:
    """A tensor that autograd takes, also of one that was made in inference mode."""
    tensor = given if isinstance(given, Tensor) else torch.tensor(np.asarray(given))
    return tensor.clone() if tensor.is_inference() else tensor


def weights_of(problem: Problem, of: Weights) -> list[float]:
    """One weight for every task.

    Raises:
        LandscapeError: an unknown task, another number of weights, or all zero.
    """
    names = problem.names
    if isinstance(of, str):
        if of != AVERAGE and of not in names:
            raise unknown("task", of, [*names, AVERAGE])
        return [1 / len(names) if of == AVERAGE else float(name == of) for name in names]
    if isinstance(of, Mapping):
        for name in of:
            if name not in names:
                raise unknown("task", name, names)
        of = [of.get(name, 0.0) for name in names]
    weights = [float(weight) for weight in of]
    if len(weights) != len(names) or not any(weights):
        raise LandscapeError(f"expected one weight for each of the {len(names)} tasks, not all zero, got {list(of)}")
    return weights


class _Working:
    """Products with a block of vectors, by a way that is found when the first one is asked for."""

    def __init__(self, block: Block, asked: Way | Auto) -> None:
        self.block, self._asked = block, asked
        self._running: Running | None = None
        self.notes: list[str] = []

    @torch.inference_mode(False)
    def running(self) -> Running:
        if self._running is None:
            with no_second_derivative(self.block):
                if isinstance(self._asked, CentralDifferences):
                    unsure = require_gradient(self.block)
                else:
                    require_second_derivative(self.block)
                    unsure = require_derivatives(self.block)
                self._running, notes = opened(self.block, self._asked)
                self.notes = [*unsure, *notes]
        return self._running

    @torch.inference_mode(False)
    def product(self, given: Tensor) -> Tensor:
        problem = self.block.problem
        vectors = (given.clone() if given.is_inference() else given).to(problem.device, problem.dtype)
        while True:
            running = self.running()
            try:
                with no_second_derivative(self.block):
                    found = running.products(vectors.reshape(len(vectors), -1)) / len(self.block.loss.data)
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                reason = str(error).partition("\n")[0]
            self._running = None
            self._asked = smaller(running, reason)
        if not bool(torch.isfinite(found).all()) and bool(torch.isfinite(vectors).all()):
            raise non_finite(self.block)
        return found.to(problem.dtype).reshape(len(found), *vectors.shape[1:])


class CurvatureOperator(Operator):
    """A symmetric curvature matrix of sum_t w_t L_t, L_t the mean loss over all examples, known by its products.

    Products are summed over micro-batches in float64 and divided by the number of examples. They run in evaluation mode
    and are pure functions of theta.

    `product` is the way that computes them, once it has been found: at the first product, or when it is asked for. A
    way other than reverse-over-reverse and central differences is used only after its product has met that of
    reverse-over-reverse, to 1e4 roundings; where it does not, or cannot run, reverse-over-reverse is used, and `notes`
    says why. Attention is computed by the mathematical kernel, since fused ones have no second derivative.

    Cost of a product: 2 or 3 gradients, see `analysis.products`.

    Raises:
        LandscapeError: no such task, a subset without parameters, a loss without second derivative (with the
            operation), a product that is not finite (with task and micro-batch).
    """

    def __init__(
        self,
        location: Location,
        of: Weights = AVERAGE,
        on: Subset = Shared(),
        kind: Kind = Hessian(),
        product: Way | Auto = AUTO,
    ) -> None:
        self.location, self.of, self.on, self.kind = location, of, on, kind
        self._working = _Working(location.block(of, on, on, kind), product)

    @property
    def size(self) -> int:
        return self._working.block.loss.rows.size

    @property
    def dtype(self) -> torch.dtype:
        return self.location.problem.dtype

    @property
    def device(self) -> torch.device:
        return self.location.problem.device

    @property
    def product(self) -> Way:
        """The way that runs; found now where it has not been."""
        return self._working.running().way

    @property
    def block(self) -> Block:
        """Kind, loss and parameters, as `analysis.products` takes them."""
        return self._working.block

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """What was done otherwise than asked for."""
        self._working.running()
        attention = ("attention by the mathematical kernel: fused ones have no second derivative",)
        return (
            *self.location.notes,
            *(attention if self.location.local.uses_attention() else ()),
            *self._working.notes,
        )

    def gradient(self) -> Tensor:
        """Gradient [n] of the same loss with respect to the same parameters, in float64. Cost: one gradient."""
        return self.location.gradient(self.of, self.on)

    def culprit(self) -> str:
        return blamed(self)

    def _product(self, vector: Tensor) -> Tensor:
        return self._working.product(vector)

    def _products(self, block: Tensor) -> Tensor:
        return self._working.product(block)

    def __repr__(self) -> str:
        return (
            f"{self.kind.label} of {_words(self.of)} on {self.on.label} ({self.size} parameters), by "
            f"{self._working.running().way!r}"
        )


class CrossBlock:
    """The block of a curvature matrix whose rows and columns are different parameters: shape (m, n), `block @ v` of a
    vector [n] or a block [n, k]; `block.T` is the one with rows and columns changed over.

    Raises as `CurvatureOperator`.
    """

    def __init__(
        self, location: Location, of: Weights, sides: tuple[Subset, Subset], kind: Kind, product: Way | Auto
    ) -> None:
        self._location, self._of, self._sides, self._kind, self._asked = location, of, sides, kind, product
        self._working = _Working(location.block(of, *sides, kind), product)

    @property
    def shape(self) -> tuple[int, int]:
        loss = self._working.block.loss
        return loss.rows.size, loss.columns.size

    @property
    def dtype(self) -> torch.dtype:
        return self._location.problem.dtype

    @property
    def device(self) -> torch.device:
        return self._location.problem.device

    @property
    def product(self) -> Way:
        """The way that runs; found now where it has not been."""
        return self._working.running().way

    @functools.cached_property
    def T(self) -> CrossBlock:
        """The transposed block."""
        rows, columns = self._sides
        return CrossBlock(self._location, self._of, (columns, rows), self._kind, self._asked)

    def __matmul__(self, vector: Tensor) -> Tensor:
        return applied(vector, self.shape[1], self._working.product, self._working.product)

    def to_scipy(self) -> LinearOperator:
        """As scipy's solvers take it, in the block's own precision."""

        def by(block: CrossBlock, given: Array) -> Array:
            there = torch.from_numpy(np.ascontiguousarray(given)).to(block.device, block.dtype)
            return np.asarray((block @ there).to(at_least_single(block.dtype)).cpu().numpy())

        there, back = functools.partial(by, self), functools.partial(by, self.T)
        kind = numpy_type(self.dtype)
        return LinearOperator(self.shape, matvec=there, rmatvec=back, matmat=there, rmatmat=back, dtype=kind)

    def __repr__(self) -> str:
        rows, columns = self._sides
        return (
            f"{self._kind.label} of {_words(self._of)}, rows on {rows.label}, columns on {columns.label} "
            f"({self.shape[0]} x {self.shape[1]}), by {self._working.running().way!r}"
        )


def layers(
    location: Location,
    of: Weights = AVERAGE,
    within: Subset = Shared(),
    kind: Kind = Hessian(),
    product: Way | Auto = AUTO,
) -> dict[str, CurvatureOperator]:
    """One operator for every layer that has parameters in the subset, by the layer's name: the diagonal blocks."""
    found = subsets.layers(location.problem.layout, within)
    return {name: location.operator(of, subset, kind, product) for name, subset in found.items()}


def _words(of: Weights) -> str:
    if isinstance(of, str):
        return of
    if isinstance(of, Mapping):
        return " + ".join(f"{weight:g} {name}" for name, weight in of.items())
    return "weights " + ", ".join(f"{weight:g}" for weight in of)


__all__ = [
    "CrossBlock",
    "CurvatureOperator",
    "Fisher",
    "GaussNewton",
    "Hessian",
    "Kind",
    "Location",
    "Weights",
    "layers",
    "weights_of",
]
