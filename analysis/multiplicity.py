"""Correcting p-values for how many tests were made."""

from __future__ import annotations

import numpy as np
import scipy

from analysis.results import Array


def holm(p_values: Array) -> Array:
    """Holm's (1979) step-down correction: the chance that any true null is rejected stays below the level.

    With p_(1) <= ... <= p_(m): corrected p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)). Needs no independence. NaN is
    no test: it stays, and is not counted in m.
    """
    corrected = np.full(np.shape(p_values), np.nan)
    known = np.isfinite(p_values)
    tests = np.asarray(p_values)[known]
    order = np.argsort(tests, kind="stable")
    steps = np.maximum.accumulate(tests[order] * (len(tests) - np.arange(len(tests))))
    back = np.empty(len(tests))
    back[order] = np.minimum(steps, 1.0)
    corrected[known] = back
    return corrected


def benjamini_hochberg(p_values: Array) -> Array:
    """Benjamini and Hochberg's (1995) correction: the expected share of errors among rejections stays below the level.

    By `scipy.stats.false_discovery_control`; for tests that are independent or positively dependent. NaN as in `holm`.
    """
    corrected = np.full(np.shape(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        corrected[known] = scipy.stats.false_discovery_control(np.asarray(p_values)[known], method="bh")
    return corrected
