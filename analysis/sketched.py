"""Distances from a recording that keeps a random projection, with the interval that they come with."""

from __future__ import annotations

import numpy as np
import scipy

from analysis.results import Array

LEVEL = 0.98
"""Of the chi-square law: an interval of 98 % for a single pair, because the pairs of one recording share one draw of
the projection, so that in an unlucky recording many of them miss together."""


def interval(squares: Array, dimensions: int) -> tuple[Array, Array]:
    """Least and largest distance, at 95 %, behind estimated squared distances: k estimate / truth ~ chi-square_k.

    d^2 from k s / q(0.99) to k s / q(0.01), q the quantiles of the law with k degrees of freedom; k are the dimensions
    of one tensor's projection. Where several tensors add up, the sum varies less than that, and the interval is wider
    than it need be.
    """
    tail = (1 - LEVEL) / 2
    high, low = (float(scipy.stats.chi2.ppf(p, dimensions)) for p in (tail, 1 - tail))
    return np.sqrt(squares * dimensions / low), np.sqrt(squares * dimensions / high)
