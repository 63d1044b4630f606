"""Random vectors that estimate sums over a spectrum, and products of an operator with several of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from analysis.operators import MatrixOperator, SymmetricOperator
from analysis.precision import at_least_single
from analysis.results import Array


class Probe(Protocol):
    """A law of vectors z of R^n with E z z' = I and ||z||^2 = n, so that E z' H z = tr H and E ||H z||^2 = ||H||_F^2.

    `round` says whether the law has no preferred direction.
    """

    @property
    def label(self) -> str: ...
    @property
    def round(self) -> bool: ...
    def draw(self, size: int, rng: np.random.Generator) -> Array:
        """One vector [size] in float64."""
        ...


@dataclass(frozen=True)
class Rademacher:
    """Independent signs, +1 or -1: z' H z has variance 2 (||H||_F^2 - sum_i H_ii^2), the least of independent entries;
    none for a diagonal H.
    """

    label = "Rademacher"
    round = False

    def draw(self, size: int, rng: np.random.Generator) -> Array:
        return np.asarray(2.0 * rng.integers(0, 2, size) - 1.0)


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian vector scaled to length sqrt(n), so uniform on a sphere: z' H z has variance
    2 n / (n + 2) (||H||_F^2 - tr(H)^2 / n), whatever the basis; none for a multiple of the identity.
    """

    label = "Gaussian"
    round = True

    def draw(self, size: int, rng: np.random.Generator) -> Array:
        vector = rng.standard_normal(size)
        return np.asarray(vector * np.sqrt(size) / np.linalg.norm(vector))


def drawn(probe: Probe, count: int, operator: SymmetricOperator, rng: np.random.Generator) -> Tensor:
    """`count` probes as columns [n, count], in the operator's precision, at least float32, and on its device."""
    columns = [probe.draw(operator.size, rng) for _ in range(count)]
    block = np.stack(columns, 1) if columns else np.zeros((operator.size, 0))
    return torch.from_numpy(block).to(operator.device, at_least_single(operator.dtype))


def block_product(operator: SymmetricOperator, block: Tensor, width: int = 0) -> Tensor:
    """H V for a block V [n, k], `width` columns at once (0: all), one at a time where the operator takes only vectors.

    Cost: k products.
    """
    if not block.shape[1]:
        return torch.zeros_like(block)
    given = block.to(operator.dtype)
    if isinstance(operator, MatrixOperator) or hasattr(operator, "to_scipy"):
        parts = range(0, block.shape[1], width or block.shape[1])
        return torch.cat([operator @ given[:, k : k + (width or block.shape[1])] for k in parts], 1).to(block.dtype)
    return torch.stack([operator @ column for column in given.T], 1).to(block.dtype)
