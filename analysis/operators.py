"""Symmetric operators on the shared parameters, known by their products with vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from analysis.results import AVERAGE, Array, Check
from landscape.errors import LandscapeError
from landscape.modules import index_tensor
from landscape.problem import Problem
from landscape.randomness import generator


class SymmetricOperator(Protocol):
    """A symmetric linear map of R^size, known by `operator @ vector`."""

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def __matmul__(self, vector: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class MatrixOperator:
    """A symmetric matrix [n, n] as an operator, for tests and small problems."""

    matrix: Tensor

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def __matmul__(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector


class HessianOperator:
    """Hessian of sum_t w_t L_t with respect to the shared parameters, L_t the mean over the whole evaluation set.

    Product: H v = d/d theta (g(theta)' v), reverse mode over reverse mode, summed over micro-batches and divided by the
    number of examples. Heads and buffers are constants. Runs in evaluation mode and is a pure function of theta.

    Cost of a product: one forward pass and about three backward passes of the evaluation set; memory of one
    micro-batch's graph.
    """

    def __init__(self, problem: Problem, theta: Tensor, buffers: Tensor, weights: Sequence[float]) -> None:
        if theta.shape != (problem.layout.size,):
            raise LandscapeError(
                f"theta has shape {list(theta.shape)}, the problem's layout expects {problem.layout.describe()}"
            )
        if len(weights) != len(problem.tasks) or not any(weights):
            raise LandscapeError(
                f"expected one weight for each of the {len(problem.tasks)} tasks, not all zero, got {list(weights)}"
            )
        self._problem, self._theta, self._buffers = problem, theta.detach(), buffers
        self._weights = [(t, w) for t, w in enumerate(weights) if w]
        self._index = index_tensor(problem.layout.index(), problem.device)
        if not len(self._index):
            raise LandscapeError(
                "the problem has no shared parameters: expected some that several tasks' gradients reach"
            )

    @property
    def size(self) -> int:
        return len(self._index)

    @property
    def dtype(self) -> torch.dtype:
        return self._theta.dtype

    @property
    def device(self) -> torch.device:
        return self._theta.device

    def __matmul__(self, vector: Tensor) -> Tensor:
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        for batch in self._problem.evaluation.pieces(self._problem.micro_batch):
            with torch.enable_grad():
                shared = self._theta[self._index].requires_grad_()
                theta = self._theta.index_copy(0, self._index, shared)
                losses = self._problem.task_losses(theta, batch, self._buffers)
                summed = torch.stack([w * losses[t].sum() for t, w in self._weights]).sum()
                (gradient,) = torch.autograd.grad(summed, shared, create_graph=True, allow_unused=True)
                if gradient is None or not gradient.requires_grad:  # type: ignore[redundant-expr]
                    continue
                (product,) = torch.autograd.grad(gradient, shared, grad_outputs=vector, allow_unused=True)
            if product is not None:
                total += product
        return (total / len(self._problem.evaluation)).to(self.dtype)


def hessians(problem: Problem, theta: Array, buffers: Array) -> dict[str, HessianOperator]:
    """The Hessian of every task and of the averaged loss (1 / T) sum_t L_t on the shared parameters, by name.

    `theta` [P] and `buffers` [Q] as a trajectory holds them. The averaged one is called `average`.
    """
    there = torch.tensor(theta, dtype=problem.dtype, device=problem.device)
    state = torch.tensor(buffers, device=problem.device)
    count = len(problem.tasks)
    unit = {name: [float(i == t) for i in range(count)] for t, name in enumerate(problem.names)}
    return {
        name: HessianOperator(problem, there, state, w) for name, w in {**unit, AVERAGE: [1 / count] * count}.items()
    }


def probe(operator: SymmetricOperator, name: str, seed: int = 0) -> Check:
    """How far an operator is from symmetric and deterministic, on two random unit vectors. Cost: 3 products.

    value = max(|u'Hv - v'Hu|, ||Hu - (Hu again)||) / max(||Hu||, ||Hv||).

    Raises:
        LandscapeError: beyond the limit, which is 1e4 roundings of the operator's precision.
    """
    rng = generator(seed, "probe")
    u, v = (_unit(rng.standard_normal(operator.size), operator) for _ in range(2))
    hu, hv, again = operator @ u, operator @ v, operator @ u
    scale = max(float(hu.norm()), float(hv.norm()), float(np.finfo(np.float64).tiny))
    asymmetry, change = (
        abs(float(u.double() @ hv.double()) - float(v.double() @ hu.double())),
        float((hu - again).norm()),
    )
    limit = 1e4 * torch.finfo(operator.dtype).eps
    check = Check(
        f"Hessian of {name}: symmetric and deterministic", max(asymmetry, change) / scale, limit, "1e4 roundings"
    )
    if not check.passed:
        raise LandscapeError(
            f"the operator of {name} is not symmetric and deterministic: expected {limit:.1g}, got "
            f"{check.value:.1g} relative; "
            "look for randomness or a non-differentiable operation in the model"
        )
    return check


def linearity(operators: dict[str, HessianOperator], seed: int = 0) -> Check:
    """||H_average v - (1 / T) sum_t H_t v|| / ||H_average v|| for a random v: tasks and average must agree. T + 1
    products.
    """
    average = operators[AVERAGE]
    v = _unit(generator(seed, "linearity").standard_normal(average.size), average)
    tasks = [operator @ v for name, operator in operators.items() if name != AVERAGE]
    whole, mean = (average @ v).double(), torch.stack(tasks).double().mean(0)
    scale = max(float(whole.norm()), float(np.finfo(np.float64).tiny))
    limit = 1e4 * torch.finfo(average.dtype).eps
    name = "Hessian product of the average equals the mean of the task products"
    return Check(name, float((whole - mean).norm()) / scale, limit, "1e4 roundings")


def to_scipy(operator: SymmetricOperator) -> LinearOperator:
    """The operator for scipy's solvers, in its own precision."""
    kind = np.dtype(str(operator.dtype).removeprefix("torch."))

    def product(vector: Array) -> Array:
        given = torch.from_numpy(np.ascontiguousarray(vector.ravel())).to(operator.device, operator.dtype)
        return np.asarray((operator @ given).cpu().numpy())

    return LinearOperator((operator.size, operator.size), matvec=product, rmatvec=product, dtype=kind)


def _unit(vector: Array, operator: SymmetricOperator) -> Tensor:
    return torch.from_numpy(vector / np.linalg.norm(vector)).to(operator.device, operator.dtype)
