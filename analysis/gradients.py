"""Norms, cosines and conflicts of the task gradients at a snapshot, with errors over pieces of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from analysis.neighbourhood import Neighbourhood
from analysis.results import Array
from landscape.problem import Problem
from landscape.randomness import generator

LEAST, MOST = 8, 64
"""Errors come from so many pieces of the examples, where there are so many examples."""
COLUMNS = 1 << 14
"""Parameters that are held in float64 at once."""
NORMAL = 1.96


@dataclass(frozen=True, eq=False)
class Gradients:
    """See `analysis.results.TaskAgreement`: norms [T + 1], the average's last, and cosines of every two tasks."""

    norm: Array
    norm_stderr: Array
    cosine: Array
    cosine_stderr: Array
    conflict: Array
    conflict_low: Array
    conflict_high: Array


def pieces_of(problem: Problem, batch: int, seed: int) -> tuple[Tensor, ...]:
    """The evaluation examples in pieces of about `batch`, at least 8 and at most 64 of them, in an order that the seed
    draws: data sets are often sorted.
    """
    count = len(problem.evaluation)
    number = min(max(count // batch, LEAST), MOST, count)
    order = generator(seed, "pieces").permutation(count)
    return tuple(torch.from_numpy(part).to(problem.device) for part in np.array_split(order, number))


def gradients_at(near: Neighbourhood, pieces: Sequence[Tensor]) -> Gradients:
    """How the gradients of the tasks agree on all examples, and how sure that is.

    Standard errors of norms and cosines are the jackknife's: K values, each without one of K pieces of nearly equal
    size, v_k, give se^2 = (K - 1) / K sum_k (v_k - mean v)^2. The conflict is the share of the pieces, taken as
    mini-batches, on which the cosine is negative, with Wilson's 95 % interval. A gradient that is zero or not finite
    has no cosine: NaN.

    Cost: T gradients. Memory: all pieces' gradients, K T n numbers in the model's precision.
    """
    near.gradients += len(near.problem.tasks)
    found = torch.stack([near.every_gradient(rows).to(near.problem.dtype) for rows in pieces])
    sizes = np.array([len(rows) for rows in pieces], float)
    inner = _Inner.of(found, sizes / sizes.sum())
    norm, cosine = _norms_and_cosines(inner.whole)
    count = len(pieces)
    without = [_norms_and_cosines(inner.without(k)) for k in range(count)] if count > 1 else []
    alone = [_norms_and_cosines(own)[1] for own in inner.alone]
    known = np.isfinite(np.array(alone))
    low, high = _wilson((np.array(alone) < 0).sum(0), known.sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        conflict = (np.array(alone) < 0).sum(0) / known.sum(0)
    return Gradients(
        norm=norm,
        norm_stderr=_jackknife([one[0] for one in without], len(norm)),
        cosine=cosine,
        cosine_stderr=_jackknife([one[1] for one in without], len(cosine)),
        conflict=conflict,
        conflict_low=low,
        conflict_high=high,
    )


@dataclass(frozen=True, eq=False)
class _Inner:
    """Inner products between the gradients of the tasks and of their average in float64: of their mean m over all
    examples, of every piece's own, and of the pieces' distances d_k from the mean; NaN where one is not finite.

    Means are taken before they are multiplied: where pieces or tasks cancel, as near a minimum, they keep their digits.
    """

    whole: Array
    """m'm [T + 1, T + 1]"""
    alone: Array
    """[K, T + 1, T + 1]"""
    across: Array
    """m'd_k [K, T + 1, T + 1]"""
    apart: Array
    """d_k'd_k [K, T + 1, T + 1]"""
    shares: Array
    """Of all examples [K]."""

    @classmethod
    def of(cls, found: Tensor, shares: Array) -> _Inner:
        """Of gradients [K, T, n]."""
        pieces, rows, size = len(found), found.shape[1] + 1, found.shape[2]
        weights = torch.as_tensor(shares, device=found.device)
        sums = torch.zeros(4, pieces, rows, rows, dtype=torch.float64, device=found.device)
        for first in range(0, size, COLUMNS):
            own = found[:, :, first : first + COLUMNS].double()
            own = torch.cat([own, own.mean(1, keepdim=True)], 1)
            mean = torch.tensordot(weights, own, 1)
            apart = own - mean
            pairs = ((mean[None], mean[None]), (own, own), (mean[None], apart), (apart, apart))
            for k, (one, other) in enumerate(pairs):
                sums[k] += one @ other.mT
        whole, alone, across, distances = np.asarray(sums.cpu())
        return cls(whole[0], alone, across, distances, shares)

    def without(self, piece: int) -> Array:
        """Of the mean over all pieces but one, m - s / (1 - s) d_k, with the share s of piece k."""
        share = self.shares[piece] / (1 - self.shares[piece])
        mixed = self.across[piece] + self.across[piece].T
        return np.asarray(self.whole - share * mixed + share**2 * self.apart[piece])


def _norms_and_cosines(inner: Array) -> tuple[Array, Array]:
    """Norms [T + 1] and cosines of every two tasks, from inner products [T + 1, T + 1]."""
    squares = np.diag(inner)
    norm = np.sqrt(np.where(np.isnan(squares), np.nan, np.maximum(squares, 0.0)))
    pairs = list(combinations(range(len(inner) - 1), 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = [np.clip(inner[a, b] / (norm[a] * norm[b]), -1, 1) for a, b in pairs]
    return norm, np.array(cosine)


def _jackknife(values: Sequence[Array], size: int) -> Array:
    if not values:
        return np.full(size, np.nan)
    table = np.stack(values)
    return np.asarray(np.sqrt((len(table) - 1) / len(table) * ((table - table.mean(0)) ** 2).sum(0)))


def _wilson(hits: Array, count: Array) -> tuple[Array, Array]:
    """Wilson's 95 % interval of a share."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share, z = hits / count, NORMAL**2 / count
        middle = (share + z / 2) / (1 + z)
        half = np.sqrt(z * share * (1 - share) + z**2 / 4) / (1 + z)
        return np.where(hits == 0, 0.0, middle - half), np.where(hits == count, 1.0, middle + half)
