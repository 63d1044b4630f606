"""Several objectives at once: the smallest convex combination of their gradients, and what no other point beats."""

from __future__ import annotations

import numpy as np
import scipy

from analysis.results import Array


def min_norm(gram: Array) -> tuple[float, Array]:
    """min of ||sum_t a_t g_t|| over a >= 0, sum_t a_t = 1, with the weights a [T], from the Gram matrix g_s'g_t [T, T].

    Zero where the point is Pareto stationary; elsewhere minus the combination lowers all losses at once (Desideri 2012,
    MGDA). Exact, by non-negative least squares: with R'R = gram, the minimum of ||R a||^2 + (sum_t a_t - 1)^2 over
    a >= 0 lies on the ray of the weights. A Gram matrix knows the norm to about 1e-8 of the largest gradient's, the
    root of its rounding. Zero gradients share all the weight. NaN where the matrix is not finite.
    """
    gram = np.asarray(gram, np.float64)
    count = len(gram)
    if not np.isfinite(gram).all():
        return np.nan, np.full(count, np.nan)
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    zero = norms == 0
    if zero.any():
        return 0.0, zero / zero.sum()
    # Cosines are decomposed, so that a short gradient keeps its digits beside a long one.
    values, vectors = np.linalg.eigh(gram / np.outer(norms, norms))
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T * (norms / norms.max())
    found, _ = scipy.optimize.nnls(np.vstack([root, np.ones(count)]), np.r_[np.zeros(count), 1.0], maxiter=100 * count)
    weights = found / found.sum()
    return float(norms.max() * np.linalg.norm(root @ weights)), weights


def pareto_set(losses: Array) -> Array:
    """Which of n points with losses [T, n] no other one dominates, [n].

    Point i dominates j where it is nowhere larger and somewhere smaller; of equal points none dominates. A point with
    a loss that is not finite neither dominates nor belongs to the set.
    Cost: n log n, and n comparisons with the points of the set.
    """
    losses = np.asarray(losses, np.float64)
    kept = np.zeros(losses.shape[1], bool)
    finite = np.flatnonzero(np.isfinite(losses).all(axis=0))
    # What dominates a point precedes it in this order, and is in the set or dominated by a point of the set.
    order = finite[np.lexsort(losses[::-1, finite])]
    front = np.empty((len(order), len(losses)))
    size = 0
    for i in order:
        point, before = losses[:, i], front[:size]
        if not ((before <= point).all(axis=1) & (before < point).any(axis=1)).any():
            front[size] = point
            size, kept[i] = size + 1, True
    return kept
