"""The range of an operator as random products show it, each probe left out in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1_000_000
"""Numbers of an intermediate array, at most about."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """Y = H Z = Q diag(s) V' with H Q, all in float64, for the estimates of `analysis.traces.XTrace`."""

    basis: Tensor
    """Q [n, r]"""
    inside: Tensor
    """H Q [n, r]"""
    probes: Tensor
    """Z [n, k]"""
    products: Tensor
    """Y [n, k]"""
    values: Tensor
    """s [r]"""
    right: Tensor
    """V' [r, k]"""
    round: bool
    """Whether probes are scaled to the dimension that a sketch leaves."""

    def samples(self) -> tuple[Tensor, Tensor]:
        """Samples [k] of tr H and ||H||_F^2: their means are XTrace's estimates, their standard errors honest.

        t_i, the estimate with z_i left out of the sketch, depends on the other probes through the sketch. With t_i|j,
        the same with z_j left out as well, Cov(t_i, t_j) = E (t_i - t_i|j) (t_j - t_j|i), because t_i is unbiased
        whatever the other probes are; so var(t) / k + mean of these products over pairs is an unbiased estimate of the
        variance of the mean. The samples are the t_i with their deviations scaled to that, where it is the larger.

        Cost: 6 n r k and some k^4 multiplications. Where Y has less than full rank, which happens where the estimate is
        exact, and where Q spans everything, the samples are the t_i.
        """
        found = self._left_out()
        rank, count = self.right.shape
        if rank < count or rank == len(self.basis):
            return found
        both = self._two_left_out()
        traces, squares = (_widened(one, pair) for one, pair in zip(found, both, strict=True))
        return traces, squares

    def _duals(self) -> tuple[Tensor, Tensor]:
        """For each column i of diag(s) V' the unit vector of R^r orthogonal to all the others, [r, k], and whether
        there is one, [k]: not where the others span column i as well.

        It is s^-1 V' e_i scaled to length 1, and there is one where (V V')_ii = 1.
        """
        alone = (self.right**2).sum(0) > 1 - 1e-6
        dual = self.right / self.values[:, None] * alone
        length = torch.linalg.vector_norm(dual, dim=0)
        return dual / torch.where(alone, length, torch.ones_like(length)), alone

    def _left_out(self) -> tuple[Tensor, Tensor]:
        """For each i, tr(Q_i' H Q_i) + g_i' H g_i and ||H Q_i||_F^2 + ||H g_i||^2."""
        out, alone = self._duals()
        seen = self.basis.T @ self.probes
        coefficients = seen - out * (out * seen).sum(0)
        rest = self.probes - self.basis @ coefficients
        found = self.products - self.inside @ coefficients
        if self.round:
            scale = rescaled(rest, len(self.basis) - len(self.values) + alone.double())
            rest, found = rest * scale, found * scale
        lost = self.inside @ out
        trace = (self.basis * self.inside).sum() - ((self.basis @ out) * lost).sum(0) + (rest * found).sum(0)
        return trace, (self.inside**2).sum() - (lost**2).sum(0) + (found**2).sum(0)

    def _two_left_out(self) -> tuple[Tensor, Tensor]:
        """Both estimates from probe j with neither i nor j in the sketch, [i, j]; the diagonal means nothing."""
        out, _ = self._duals()
        small = Small(
            inner=self.basis.T @ self.inside,
            gram=self.inside.T @ self.inside,
            seen=self.basis.T @ self.probes,
            own=(self.probes * self.products).sum(0),
            across=self.basis.T @ self.products,
            lengths=(self.products**2).sum(0),
            wide=self.inside.T @ self.products,
        )
        left = len(self.basis) - len(self.values) + 2 if self.round else 0
        step = max(1, CHUNK // out.numel())
        parts = [out.T[k : k + step] for k in range(0, out.shape[1], step)]
        found = [small.estimates(part, out, len(self.basis), left) for part in parts]
        return torch.cat([one for one, _ in found]), torch.cat([two for _, two in found])


@dataclass(frozen=True, eq=False)
class Small:
    """All inner products between Z, Y, Q and H Q that the estimates need: `inner` Q' H Q, `gram` (H Q)' H Q, `seen`
    Q' Z, `own` diag(Z' Y), `across` Q' Y, `lengths` diag(Y' Y), `wide` (H Q)' Y.
    """

    inner: Tensor
    gram: Tensor
    seen: Tensor
    own: Tensor
    across: Tensor
    lengths: Tensor
    wide: Tensor

    def estimates(self, ones: Tensor, out: Tensor, size: int, left: int) -> tuple[Tensor, Tensor]:
        """Estimates [i, j] of trace and square from probe j in a sketch without `ones` [i, r] and `out` [r, j]; probes
        scaled to the dimension `left` (0: not at all).
        """
        one = ones[:, :, None]
        two = out - one * (ones @ out)[:, None]
        two = two / torch.linalg.vector_norm(two, dim=1, keepdim=True).clamp(min=torch.finfo(two.dtype).tiny)
        c = self.seen - one * (ones @ self.seen)[:, None] - two * (two * self.seen).sum(1, keepdim=True)
        scale = left / (size - (c**2).sum(1)) if left else torch.ones_like(self.own)
        rest = self.own - 2 * (c * self.across).sum(1) + _quadratic(self.inner, c)
        long = self.lengths - 2 * (c * self.wide).sum(1) + _quadratic(self.gram, c)
        trace = self.inner.trace() - _quadratic(self.inner, one) - _quadratic(self.inner, two) + scale * rest
        square = self.gram.trace() - _quadratic(self.gram, one) - _quadratic(self.gram, two) + scale * long
        return trace, square


def _quadratic(matrix: Tensor, columns: Tensor) -> Tensor:
    """c' M c for every column of [i, r, j]: [i, j]."""
    return (columns * (matrix @ columns)).sum(1)


def _widened(values: Tensor, pairs: Tensor) -> Tensor:
    """Values [k] with their deviations scaled by what their dependence adds to the variance of their mean."""
    count = len(values)
    change = values - pairs
    change = change - torch.diag(torch.diag(change))
    covariance = (change * change.T).sum() / (count * (count - 1))
    alone = values.var() / count
    factor = (1 + (covariance / alone).clamp(min=0)).sqrt() if alone > 0 else torch.ones_like(alone)
    return values.mean() + (values - values.mean()) * factor


def rescaled(rest: Tensor, dimension: Tensor | int) -> Tensor:
    """Factors that give columns in a space of this dimension the length sqrt(dimension); 0 for what is only rounding.

    A uniform direction in a space stays one when projected, and its length says nothing of the operator.
    """
    length = torch.linalg.vector_norm(rest, dim=0)
    whole = torch.as_tensor(dimension, dtype=rest.dtype, device=rest.device).clamp(min=0).sqrt()
    there = (length > 1e-10 * rest.shape[0] ** 0.5) & (whole > 0)
    return torch.where(there, whole / torch.where(there, length, torch.ones_like(length)), torch.zeros_like(length))
