"""Symmetric linear maps known by their products: the protocol, a base class, matrices, sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from analysis.precision import at_least_single
from analysis.results import Array
from landscape.errors import LandscapeError


class SymmetricOperator(Protocol):
    """A symmetric linear map of R^size: `operator @ v` of a vector [n], or of a block [n, k], column by column."""

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    def __matmul__(self, vector: Tensor) -> Tensor: ...


class Operator(ABC):
    """A `SymmetricOperator` from its product with one vector: blocks, sums, multiples and scipy's form come with it.

    `a + b` and `2.0 * a` are operators whose products are those of their parts, so a sum costs a product of each.
    """

    @property
    @abstractmethod
    def size(self) -> int: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def _product(self, vector: Tensor) -> Tensor:
        """The product with one vector [n]."""

    def _products(self, block: Tensor) -> Tensor:
        """The products with the columns of a block [n, k]; override where they are cheaper together."""
        return torch.stack([self._product(column) for column in block.T.contiguous()], 1)

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with a vector [n], or with every column of a block [n, k].

        Raises:
            LandscapeError: another shape.
        """
        return applied(vector, self.size, self._product, self._products)

    def __add__(self, other: SymmetricOperator) -> Operator:
        return WeightedSum((*_terms(self), *_terms(other)))

    def __sub__(self, other: SymmetricOperator) -> Operator:
        return WeightedSum((*_terms(self), *((-weight, one) for weight, one in _terms(other))))

    def __mul__(self, factor: float) -> Operator:
        return WeightedSum(tuple((factor * weight, one) for weight, one in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Operator:
        return self * -1.0

    def to_scipy(self) -> LinearOperator:
        """As scipy's solvers take it, in the operator's own precision."""
        return to_scipy(self)

    def culprit(self) -> str:
        """Who is to blame where the operator is not symmetric and deterministic, in words; empty where unknown."""
        return ""


class MatrixOperator(Operator):
    """A symmetric matrix [n, n] as an operator, for tests and small problems."""

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise LandscapeError(f"expected a square matrix [n, n], got {list(matrix.shape)}")
        self.matrix = matrix

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def _product(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector

    def _products(self, block: Tensor) -> Tensor:
        return self.matrix @ block


class WeightedSum(Operator):
    """sum_i w_i A_i of operators of one size, accumulated in float64. Cost of a product: one of each."""

    def __init__(self, terms: tuple[tuple[float, SymmetricOperator], ...]) -> None:
        sizes = sorted({one.size for _, one in terms})
        if len(sizes) != 1:
            raise LandscapeError(f"expected operators of one size in a sum, got sizes {', '.join(map(str, sizes))}")
        self.terms = terms

    @property
    def size(self) -> int:
        return self.terms[0][1].size

    @property
    def dtype(self) -> torch.dtype:
        return self.terms[0][1].dtype

    @property
    def device(self) -> torch.device:
        return self.terms[0][1].device

    def _product(self, vector: Tensor) -> Tensor:
        return self._products(vector)

    def _products(self, block: Tensor) -> Tensor:
        total = torch.zeros_like(block, dtype=torch.float64)
        for weight, one in self.terms:
            total += weight * (one @ block).double()
        return total.to(self.dtype)

    def culprit(self) -> str:
        return next((found for _, one in self.terms if (found := culprit(one))), "")

    def __repr__(self) -> str:
        return " + ".join(f"{weight:g} {one!r}" for weight, one in self.terms)


def applied(given: Tensor, size: int, one: ProductOfOne, many: ProductOfOne) -> Tensor:
    """A product with a vector [size] by `one`, with a block [size, k] by `many`."""
    if given.dim() not in (1, 2) or len(given) != size:
        raise LandscapeError(
            f"expected a vector [{size}] or a block [{size}, k] for an operator of that size, got {list(given.shape)}"
        )
    if given.dim() == 1:
        return one(given)
    return many(given) if given.shape[1] else torch.zeros_like(given)


class ProductOfOne(Protocol):
    """What makes a product of a vector or a block."""

    def __call__(self, given: Tensor, /) -> Tensor: ...


def to_scipy(operator: SymmetricOperator) -> LinearOperator:
    """The operator for scipy's solvers, in its own precision, or float32 where that is more."""
    kind = numpy_type(operator.dtype)

    def product(given: Array) -> Array:
        flat = given.ravel() if given.ndim == 2 and given.shape[1] == 1 else given
        there = torch.from_numpy(np.ascontiguousarray(flat)).to(operator.device, operator.dtype)
        return np.asarray((operator @ there).to(at_least_single(operator.dtype)).cpu().numpy())

    shape = (operator.size, operator.size)
    return LinearOperator(shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=kind)


def numpy_type(dtype: torch.dtype) -> np.dtype[np.floating]:
    """numpy's name of a type; float32 for half precision, which its solvers do not know."""
    return np.dtype(str(at_least_single(dtype)).removeprefix("torch."))


def culprit(operator: SymmetricOperator) -> str:
    """Who is to blame in an operator that is wrong, in words; empty where unknown."""
    return operator.culprit() if isinstance(operator, Operator) else ""


def _terms(operator: SymmetricOperator) -> tuple[tuple[float, SymmetricOperator], ...]:
    return operator.terms if isinstance(operator, WeightedSum) else ((1.0, operator),)
