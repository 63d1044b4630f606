"""Eigenvalues at the ends of a spectrum, with true residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from analysis.eigensearch import Accuracy, Aim, Search
from analysis.krylov import multiplied
from analysis.operators import SymmetricOperator
from analysis.results import Array, Eigenpairs, LanczosState
from landscape.randomness import generator


@dataclass(frozen=True, eq=False)
class Found:
    """Pairs as a search has them: values [k], orthonormal rows [k, n], and H v - value v as rows [k, n]."""

    values: Array
    vectors: Tensor
    beyond: Tensor


class ResidualCheck(Protocol):
    """How residuals are measured by fresh products once a search has ended."""

    def products(self, count: int) -> int:
        """What it takes for so many pairs."""
        ...

    def measured(self, operator: SymmetricOperator, found: Found) -> tuple[Array, Array]:
        """Values [k] and lengths of the residuals [k]."""
        ...


@dataclass(frozen=True)
class CheckEach:
    """A fresh product a pair: value = v' H v and residual = ||H v - value v||. Cost: k products."""

    def products(self, count: int) -> int:
        return count

    def measured(self, operator: SymmetricOperator, found: Found) -> tuple[Array, Array]:
        pushed, vectors = multiplied(operator, found.vectors).double(), found.vectors.double()
        values = (vectors * pushed).sum(1)
        residuals = (pushed - values[:, None] * vectors).norm(dim=1)
        return values.cpu().numpy(), residuals.cpu().numpy()


@dataclass(frozen=True)
class CheckSum:
    """One fresh product for all pairs, of s = (v_1 +- v_2 +- ... +- v_k) / sqrt(k) with random signs.

    The search knows every H v_i - value_i v_i; let d_i be what is wrong with it. The fresh product shows D = sum_i +-
    d_i, with ||D||^2 = sum_i ||d_i||^2 in the mean over signs. Each residual is what the search knows and ||D||
    more: stated too long rather than too short. Cost: 1 product.
    """

    seed: int = 0

    def products(self, count: int) -> int:
        return 1

    def measured(self, operator: SymmetricOperator, found: Found) -> tuple[Array, Array]:
        count = len(found.values)
        signs = torch.from_numpy(generator(self.seed, "check").choice([-1.0, 1.0], count)).to(found.vectors.device)
        vectors, beyond = found.vectors.double(), found.beyond.double()
        known = torch.from_numpy(found.values).to(vectors)[:, None] * vectors + beyond
        asked = (signs @ vectors / np.sqrt(count)).to(found.vectors.dtype)
        wrong = float((multiplied(operator, asked[None])[0].double() * np.sqrt(count) - signs @ known).norm())
        return found.values, beyond.norm(dim=1).cpu().numpy() + wrong


@dataclass(frozen=True)
class Saving:
    """Hands the state of a search to `to` after every `every` products, and when it ends."""

    to: Callable[[LanczosState], None]
    every: int = 10


def top_eigenpairs(
    operator: SymmetricOperator,
    count: int = 3,
    end: str = "largest",
    accuracy: Accuracy = Accuracy(),
    seed: int = 0,
    start: Tensor | None = None,
    *,
    block: int = 1,
    max_basis: int | None = None,
    check: ResidualCheck = CheckEach(),
    saving: Saving | None = None,
    resume: LanczosState | None = None,
) -> Eigenpairs:
    """The `count` eigenpairs at one end of the spectrum, by Lanczos with thick restart (Wu & Simon 2000).

    Stops when the residuals, which the search knows without a product, of all pairs are below tolerance times the
    largest |value| asked for, or below the rounding of a product, 100 eps times its length, or when `accuracy.products`
    are used up; then `check` measures them by fresh products, and a pair is called converged when what was measured
    meets the tolerance. Where rounding is in the way of that, `outcome` says so. Some eigenvalue lies within the
    residual of every value; `Eigenpairs.gap_error` is tighter where neighbours are known. Where products are not
    finite, nothing is: NaN, not converged.

    Args:
        start: [n] or [k, n], vectors that are near those looked for: they warm the search. In a block of b they are
            shared out among b - 1 start vectors (one, where b is 1) and summed: one Krylov space that improves all of
            them at once takes about half the products of one that begins with a product for each. A random share, and
            in a block a random vector, guards against a start in a space that the operator never leaves.
        block: products at a time. A search with blocks of b shows b copies of a multiple eigenvalue; with one vector it
            shows one, and others only where it exhausts the space that it reaches, as on small or simple operators.
        max_basis: how many vectors are kept at once, at least count + block + 1; 2 count + 20 + block and no fewer
            than 40 + block by default. When they are full, the best half goes on.
        check: `CheckEach()`, `count` fresh products, or `CheckSum()`, one.
        saving: hands out states to go on from.
        resume: goes on from such a state, of the same search on the same operator, and ends with the same bytes as one
            that was never stopped; `accuracy` may be another, `start` is not looked at.

    Cost: the Lanczos products, at most `accuracy.products` (or `count`), and those of the check. Memory: (max_basis +
    block) n numbers in the operator's precision.

    Precision: basis in the operator's type, all sums in float64. The floor of a residual is the rounding of a product,
    some roundings of the operator's norm: about 1e-6 of the largest |value| in float32, 1e-15 in float64.

    Raises:
        LandscapeError: more pairs than parameters, an unknown end, a basis that is too small, a start of another size,
            a state of another search.
    """
    aim = Aim.at(operator.size, count, end, block, max_basis, seed)
    search = Search(operator, aim, accuracy)
    if resume is None:
        search.begin(start)
    else:
        search.go_on(resume)
    saved = search.krylov.products
    for _ in search.steps():
        if saving is not None and search.krylov.products - saved >= saving.every and search.krylov.finite:
            saved = search.krylov.products
            saving.to(search.state())
    if not search.krylov.finite:
        return _undefined(operator.size, aim, search.krylov.products)
    if saving is not None:
        saving.to(search.state())
    return _measured(search, check)


def _measured(search: Search, check: ResidualCheck) -> Eigenpairs:
    krylov, aim = search.krylov, search.aim
    values, weights, _ = search.pairs()
    vectors = krylov.vectors(weights)
    found = Found(values, vectors, krylov.residuals(weights))
    values, residuals = check.measured(krylov.operator, found)
    converged = residuals <= search.bound(values)
    return Eigenpairs(
        values=values,
        vectors=vectors.cpu().numpy(),
        residuals=residuals,
        converged=converged,
        end=aim.end,
        products=krylov.products + check.products(aim.count),
        outcome=_outcome(search, values, residuals, converged),
    )


def _outcome(search: Search, values: Array, residuals: Array, converged: Array) -> str:
    scale = max(float(np.abs(values).max()), float(np.finfo(np.float64).tiny))
    reached = f"{int(converged.sum())} of {len(values)} eigenpairs met the tolerance {search.accuracy.tolerance:.1g}"
    found = f"{reached} after {search.krylov.products} products: residuals up to {residuals.max() / scale:.1e} of the "
    rounded = int((~converged).sum())
    if not rounded or search.krylov.noise <= search.bound(values):
        return f"{found}largest value"
    dtype = str(search.krylov.operator.dtype).removeprefix("torch.")
    return f"{found}largest value; {rounded} limited by the rounding of products in {dtype}"


def _undefined(size: int, aim: Aim, products: int) -> Eigenpairs:
    nothing = np.full(aim.count, np.nan)
    return Eigenpairs(
        values=nothing,
        vectors=np.full((aim.count, size), np.nan),
        residuals=nothing,
        converged=np.zeros(aim.count, bool),
        end=aim.end,
        products=products,
        outcome=f"a product was not finite, the {products}th: the operator has no eigenvalues there",
    )
