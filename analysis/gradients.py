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
COLUMNS = 1 << 16
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
    gram = _gram(found)
    shares = sizes / sizes.sum()
    norm, cosine = _norms_and_cosines(gram, shares)
    count = len(pieces)
    without = [_norms_and_cosines(gram, _left_out(sizes, k)) for k in range(count)] if count > 1 else []
    alone = [_norms_and_cosines(gram, np.eye(count)[k])[1] for k in range(count)]
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


def _gram(found: Tensor) -> Array:
    """Inner products of the pieces' gradients [K, T, n], [K, T, K, T] in float64; NaN where one is not finite."""
    pieces, tasks, size = found.shape
    flat = found.reshape(-1, size)
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=found.device)
    for first in range(0, size, COLUMNS):
        part = flat[:, first : first + COLUMNS].double()
        total += part @ part.T
    return np.asarray(total.cpu()).reshape(pieces, tasks, pieces, tasks)


def _left_out(sizes: Array, piece: int) -> Array:
    kept = np.where(np.arange(len(sizes)) == piece, 0.0, sizes)
    return np.asarray(kept / kept.sum())


def _norms_and_cosines(gram: Array, shares: Array) -> tuple[Array, Array]:
    """Of sum_k share_k m_k over the pieces with a share, m_k their mean gradients: norms [T + 1] and cosines."""
    there = np.flatnonzero(shares)
    part, weights = gram[there][:, :, there], shares[there]
    inner = np.einsum("k,katb,t->ab", weights, part, weights)
    squares = np.append(np.diag(inner), inner.mean())
    norm = np.sqrt(np.where(np.isnan(squares), np.nan, np.maximum(squares, 0.0)))
    pairs = list(combinations(range(len(inner)), 2))
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
