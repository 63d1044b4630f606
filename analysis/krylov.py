"""A growing orthonormal basis with the matrix that a symmetric operator is in it: block Lanczos with thick restart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.operators import SymmetricOperator
from analysis.precision import at_least_single
from analysis.results import Array, LanczosState
from landscape.randomness import generator

ROWS_AT_ONCE = 8
COLUMNS_AT_ONCE = 1 << 16
"""How much of the basis is held in float64 at a time."""

DEPENDENT = 1e-6
"""A start of unit length that has less than this outside the others adds nothing to them."""

NOISE = 100
"""Roundings of the operator's precision below which what is left of a product is taken for rounding."""


class Krylov:
    """H Q' = Q' T + F' B, with Q [m, n] and F [p, n] orthonormal rows, Q F' = 0, T [m, m] symmetric, B [p, m].

    F holds the directions in which products of Q have left Q: one start vector gives the Lanczos recurrence (p = 1), p
    vectors the block one. For a Ritz pair T y = value y the residual of Q' y is F' B y, so its length costs nothing.
    Replacing Q by Ritz vectors (`restart`) leaves the relation as it is: thick restart (Wu & Simon 2000, SIAM J. Matrix
    Anal. Appl. 22, 602).

    Every new direction is made orthogonal to all rows twice. Rows are kept in the operator's precision, at least
    float32, projections and lengths are taken in float64, T and B are float64. Memory: (room + p) n numbers, and a few
    rows in float64.
    """

    def __init__(self, operator: SymmetricOperator, room: int, seed: int) -> None:
        self.operator, self.room, self.seed = operator, room, seed
        dtype = at_least_single(operator.dtype)
        self._rows = torch.zeros(room, operator.size, dtype=dtype, device=operator.device)
        self.size = 0
        self.projected = np.zeros((0, 0))
        self.coupling = np.zeros((0, 0))
        self.ahead = self._rows[:0].clone()
        self.products = self.draws = 0
        self.scale = 0.0
        self.finite = True

    @property
    def basis(self) -> Tensor:
        """Q [m, n]"""
        return self._rows[: self.size]

    @property
    def noise(self) -> float:
        """NOISE roundings of the longest product so far: what a residual is not expected to fall below."""
        return float(NOISE * torch.finfo(self.operator.dtype).eps * self.scale)

    def put(self, state: LanczosState) -> None:
        """Goes on from a relation that was saved."""
        self.size = len(state.basis)
        self._rows[: self.size] = torch.from_numpy(np.array(state.basis))
        self.ahead = torch.from_numpy(np.array(state.ahead)).to(self._rows)
        self.projected, self.coupling = np.array(state.projected), np.array(state.coupling)
        self.products, self.draws, self.scale = state.products, state.draws, state.scale

    def turn_to(self, vectors: Tensor) -> None:
        """Makes F of what the vectors [k, n] have outside Q, whatever their lengths; Q is taken to be exhausted."""
        rows = vectors.to(self._rows.device, torch.float64)
        outside, _ = _outside(rows / rows.norm(dim=1, keepdim=True), [self.basis])
        self.ahead, _ = self._independent(outside, [self.basis], DEPENDENT, self.operator.size - self.size)
        self.coupling = np.zeros((len(self.ahead), self.size))

    def draw(self, count: int) -> Tensor:
        """Random unit vectors [count, n], others at every call."""
        drawn = []
        for _ in range(count):
            values = generator(self.seed, "lanczos", self.draws).standard_normal(self.operator.size)
            drawn.append(torch.from_numpy(values / np.linalg.norm(values)))
            self.draws += 1
        return torch.stack(drawn).to(self._rows)

    def expand(self, count: int) -> None:
        """Takes the first rows of F into Q. Cost: `count` products, and about 8 count (m + p) n multiplications.

        Where a product is not finite, `finite` turns false and nothing else changes.
        """
        taken, rest, m = self.ahead[:count], self.ahead[count:], self.size
        pushed = multiplied(self.operator, taken)
        self.products += count
        if not bool(torch.isfinite(pushed).all()):
            self.finite = False
            return
        self.scale = max(self.scale, float(pushed.double().norm(dim=1).max()))
        inner = _products(taken, pushed)
        across = (self.coupling[:count].T + _products(self.basis, pushed)) / 2
        self.projected = np.block([[self.projected, across], [across.T, (inner + inner.T) / 2]])
        self._rows[m : m + count] = taken
        self.size = m + count
        outside, parts = _outside(pushed.double(), [self.basis, rest])
        free = self.operator.size - self.size - len(rest)
        new, lengths = self._independent(outside, [self.basis, rest], self.noise, free)
        self.ahead = torch.cat([rest, new])
        none = np.zeros((len(new), m))
        self.coupling = np.block([[self.coupling[count:], parts[1]], [none, lengths]])

    def ritz(self) -> tuple[Array, Array]:
        """Eigenvalues of T, ascending [m], and its eigenvectors as columns [m, m]."""
        values, vectors = np.linalg.eigh(self.projected)
        return values, vectors

    def vectors(self, weights: Array) -> Tensor:
        """Q' y for every column y of the weights [m, k], as unit rows [k, n]."""
        rows = _combined(weights.T, self.basis)
        lengths: Tensor = rows.double().norm(dim=1, keepdim=True)
        return (rows / lengths).to(rows.dtype)

    def residuals(self, weights: Array) -> Tensor:
        """F' B y for every column y of the weights [m, k], as rows [k, n]: what is left of H Q' y - value Q' y."""
        return _combined((self.coupling @ weights).T, self.ahead)

    def restart(self, values: Array, weights: Array) -> None:
        """Keeps some Ritz pairs [k], [m, k] alone, with what has been learnt of their residuals."""
        kept = len(values)
        self._rows[:kept] = _combined(weights.T, self.basis)
        self.size, self.projected, self.coupling = kept, np.diag(values), self.coupling @ weights

    def exhausted(self) -> bool:
        """Whether products of Q stay in Q, up to rounding."""
        return not len(self.ahead) or bool(np.linalg.norm(self.coupling) <= self.noise)

    def _independent(self, vectors: Tensor, spaces: Sequence[Tensor], least: float, most: int) -> tuple[Tensor, Array]:
        """Orthonormal rows [r, n] for the parts of the vectors [b, n] outside the spaces, parts shorter than `least`
        left out, and the triangle [r, b] with parts = triangle' rows.
        """
        found = self._rows[:0]
        triangle = np.zeros((len(vectors), len(vectors)))
        for number, vector in enumerate(vectors):
            part, inside = _outside(vector[None].double(), [found])
            triangle[: len(found), number] = inside[0][:, 0]
            length = float(part.norm())
            if not length > least or len(found) == most:
                continue
            triangle[len(found), number] = length
            clean, _ = _outside(part / length, [*spaces, found])
            found = torch.cat([found, (clean / clean.norm()).to(self._rows.dtype)])
        return found, triangle[: len(found)]


def multiplied(operator: SymmetricOperator, rows: Tensor) -> Tensor:
    """H v for every row v of a block [k, n]."""
    return torch.stack([(operator @ row.to(operator.dtype)).to(rows.dtype) for row in rows])


def _outside(vectors: Tensor, spaces: Sequence[Tensor]) -> tuple[Tensor, list[Array]]:
    """What float64 rows have outside the spaces of orthonormal rows, taken out twice (Parlett: twice is enough), and
    what they have in each of them.
    """
    parts = [np.zeros((len(space), len(vectors))) for space in spaces]
    for _ in range(2):
        for space, part in zip(spaces, parts, strict=True):
            for start in range(0, len(space), ROWS_AT_ONCE):
                rows = space[start : start + ROWS_AT_ONCE].double()
                inside = rows @ vectors.T
                vectors = vectors - inside.T @ rows
                part[start : start + ROWS_AT_ONCE] += inside.cpu().numpy()
    return vectors, parts


def _products(rows: Tensor, vectors: Tensor) -> Array:
    """rows @ vectors' in float64, [m, b]."""
    found = [
        rows[start : start + ROWS_AT_ONCE].double() @ vectors.double().T for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return np.concatenate([part.cpu().numpy() for part in found] or [np.zeros((0, len(vectors)))])


def _combined(weights: Array, rows: Tensor) -> Tensor:
    """weights [k, m] @ rows [m, n] in the rows' precision, summed in float64."""
    made = torch.empty(len(weights), rows.shape[1], dtype=rows.dtype, device=rows.device)
    there = torch.from_numpy(np.ascontiguousarray(weights)).to(rows.device)
    for start in range(0, rows.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        made[:, columns] = (there @ rows[:, columns].double()).to(rows.dtype)
    return made
