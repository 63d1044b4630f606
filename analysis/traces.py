"""Trace and Frobenius norm of a symmetric operator from products with random vectors, with standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from analysis.operators import SymmetricOperator
from analysis.probes import Gaussian, Probe, Rademacher, block_product, drawn
from analysis.results import Array, Estimate
from analysis.results.densities import mean_over_probes, root_of
from analysis.sketches import Sketch, rescaled
from landscape.errors import LandscapeError
from landscape.randomness import generator


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples [k] whose means estimate tr H and ||H||_F^2, and the products that they took."""

    trace: Array
    square: Array
    products: int


class Way(Protocol):
    """How the products of an estimate are spent."""

    @property
    def label(self) -> str: ...
    @property
    def least(self) -> int:
        """Fewest products with which there is a standard error."""
        ...

    def cost(self, products: int, size: int) -> int:
        """Products that are taken of those allowed; fewer where the rank turns out to be low."""
        ...

    def samples(self, operator: SymmetricOperator, products: int, rng: np.random.Generator, block: int) -> Samples: ...


@dataclass(frozen=True)
class Hutchinson:
    """Samples z' H z and ||H z||^2, one a product (Girard 1989, Hutchinson 1990).

    The standard error falls as 1 / sqrt(products) whatever the spectrum.
    """

    probe: Probe = Rademacher()
    least = 2

    @property
    def label(self) -> str:
        return f"Hutchinson, {self.probe.label}"

    def cost(self, products: int, size: int) -> int:
        return products

    def samples(self, operator: SymmetricOperator, products: int, rng: np.random.Generator, block: int) -> Samples:
        probes = drawn(self.probe, products, operator, rng)
        found = block_product(operator, probes, block).double()
        return _numbers((probes.double() * found).sum(0), (found**2).sum(0), products)


@dataclass(frozen=True)
class HutchPlusPlus:
    """The trace inside a sketch of the range exactly, the rest by Hutchinson (Meyer, Musco, Musco, Woodruff 2021).

    With a third of the products, Q = orth(H S); with another, H Q; with the last, samples of g = (I - Q Q') z:
    tr(Q' H Q) + g' H g and ||H Q||_F^2 + ||H g||^2. Given Q they are independent and unbiased, so their standard error
    is all of the error. Exact where the rank is at most a third of the products; on decaying spectra the error falls as
    1 / products. A probe without preferred direction is scaled to the dimension that is left, which takes away the part
    of the error that its length has.
    """

    probe: Probe = Gaussian()
    least = 4

    @property
    def label(self) -> str:
        return f"Hutch++, {self.probe.label}"

    def cost(self, products: int, size: int) -> int:
        return min(products, 2 * size + max(2, size))

    def samples(self, operator: SymmetricOperator, products: int, rng: np.random.Generator, block: int) -> Samples:
        sketch = min(products // 3, operator.size)
        first = block_product(operator, drawn(self.probe, sketch, operator, rng), block)
        if not bool(torch.isfinite(first).all()):
            return _undefined(products - 2 * sketch, sketch)
        basis = _range(first)[0]
        inside = block_product(operator, basis, block).double()
        wide = basis.double()
        left = operator.size - wide.shape[1]
        count = min(products - 2 * sketch, max(2, operator.size))
        trace, square = (wide * inside).sum(), (inside**2).sum()
        if not left:
            return _numbers(trace.expand(count), square.expand(count), sketch + wide.shape[1])
        probes = drawn(self.probe, count, operator, rng).double()
        probes = probes - wide @ (wide.T @ probes)
        probes = probes - wide @ (wide.T @ probes)
        if self.probe.round:
            probes = probes * rescaled(probes, left)
        found = block_product(operator, probes.to(operator.dtype), block).double()
        taken = sketch + wide.shape[1] + count
        return _numbers(trace + (probes * found).sum(0), square + (found**2).sum(0), taken)


@dataclass(frozen=True)
class XTrace:
    """Hutch++ with every probe used for both parts, in turn left out of the sketch (Epperly, Tropp, Webber 2024).

    Half of the products make Y = H Z, the others H Q, Q = orth(Y). For each of the k probes z_i, Q_i spans the other
    columns of Y, and with g_i = (I - Q_i Q_i') z_i the trace is estimated by tr(Q_i' H Q_i) + g_i' H g_i, ||H||_F^2 by
    ||H Q_i||_F^2 + ||H g_i||^2; each is unbiased, their mean is the estimate. Exact where the rank is below half the
    products. Probes are scaled as those of Hutch++.

    The k values depend on each other: their standard deviation over sqrt(k), which the authors propose, is up to 1.7
    times too small on flat spectra. The samples are therefore spread further around the same mean, see
    `analysis.sketches.Sketch.samples`; it takes no further product.
    """

    probe: Probe = Gaussian()
    least = 4

    @property
    def label(self) -> str:
        return f"XTrace, {self.probe.label}"

    def cost(self, products: int, size: int) -> int:
        return 2 * min(products // 2, size)

    def samples(self, operator: SymmetricOperator, products: int, rng: np.random.Generator, block: int) -> Samples:
        count = min(products // 2, operator.size)
        probes = drawn(self.probe, count, operator, rng)
        first = block_product(operator, probes, block)
        if not bool(torch.isfinite(first).all()):
            return _undefined(count, count)
        basis, values, right = _range(first)
        inside = block_product(operator, basis, block).double()
        sketch = Sketch(basis.double(), inside, probes.double(), first.double(), values, right, self.probe.round)
        found, squares = sketch.samples()
        copies = 2 if count == 1 else 1  # a space of one dimension is spanned: there is no error
        return _numbers(found.repeat(copies), squares.repeat(copies), count + basis.shape[1])


def samples(
    operator: SymmetricOperator, way: Way = XTrace(), products: int = 60, seed: int = 0, block: int = 0
) -> Samples:
    """Samples of tr H and of ||H||_F^2 from the same products, at most `products`, `block` at once (0: all).

    Cost: products, and their memory of about 3 x products x n numbers in float64 for the two ways with a sketch.

    Raises:
        LandscapeError: fewer products than a standard error needs.
    """
    require_enough(way, products)
    return way.samples(operator, products, generator(seed, "trace"), block)


def trace(
    operator: SymmetricOperator, way: Way = XTrace(), products: int = 60, seed: int = 0, block: int = 0
) -> Estimate:
    """tr H with its standard error, unbiased; NaN where a product is not finite. Cost and errors as `samples`."""
    return mean_over_probes(samples(operator, way, products, seed, block).trace)


def frobenius(
    operator: SymmetricOperator, way: Way = XTrace(), products: int = 60, seed: int = 0, block: int = 0
) -> Estimate:
    """||H||_F = sqrt(mean of the samples of ||H||_F^2), standard error by the delta method.

    The square is unbiased; the root is too small by about stderr^2 / (2 ||H||_F). Cost and errors as `samples`.
    """
    return root_of(mean_over_probes(samples(operator, way, products, seed, block).square))


def require_enough(way: Way, products: int) -> None:
    """Raises where there would be no standard error."""
    if products < way.least:
        raise LandscapeError(
            f"expected {way.least} or more products for a standard error of {way.label}, got {products}: allow more"
        )


def _range(block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The columns' numerical range as U diag(s) V': U [n, r] in the block's precision, s [r], V' [r, k]."""
    left, values, right = torch.linalg.svd(block.double(), full_matrices=False)
    rank = int((values > max(block.shape) * torch.finfo(block.dtype).eps * values[0]).sum())
    return left[:, :rank].to(block.dtype), values[:rank], right[:rank]


def _numbers(trace: Tensor, square: Tensor, products: int) -> Samples:
    return Samples(trace.cpu().numpy().copy(), square.cpu().numpy().copy(), products)


def _undefined(count: int, products: int) -> Samples:
    nothing = np.full(max(count, 2), np.nan)
    return Samples(nothing, nothing, products)


WAYS: dict[str, Callable[[], Way]] = {"hutchinson": Hutchinson, "hutch++": HutchPlusPlus, "xtrace": XTrace}
"""The ways by the names that a command line gives them."""
