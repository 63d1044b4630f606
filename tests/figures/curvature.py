"""Records of followed eigenvalues, sharpness and agreement with values that tests can say by heart."""

from __future__ import annotations

import numpy as np

from analysis.results import AVERAGE, EigenvalueTracks, Sharpness, TaskAgreement
from tests.figures import records

STEPS = np.array([0, 10, 20, 30])
OPERATORS = ("one", "two", AVERAGE)


def tracks(**changes) -> EigenvalueTracks:
    """Two curves of each operator that change places between the snapshots 1 and 2; the second one of `two` is lost
    after snapshot 1 and followed by a third.
    """
    high, low = np.array([4.0, 3.5, 3.0, 2.5]), np.array([2.0, 2.5, 3.5, 4.0])
    values = np.sort(np.stack([high, low], 1))[:, ::-1][:, None, :] * np.array([1.0, 10.0, 2.0])[:, None]
    track = np.tile(np.array([[0, 1], [0, 1], [1, 0], [1, 0]])[:, None], (1, 3, 1))
    track[2:, 1, 0] = 2
    match = np.where(np.arange(4)[:, None, None] > 0, 0.9, np.nan) * np.ones((4, 3, 2))
    match[2, 1, 0] = np.nan
    grouped, converged = np.zeros((4, 3, 2), bool), np.ones((4, 3, 2), bool)
    grouped[2, 0], converged[3, 2, 1] = True, False
    made = {
        "run": records.run(),
        "tasks": OPERATORS,
        "steps": STEPS,
        "values": values,
        "residuals": 0.1 * values,
        "converged": converged,
        "track": track,
        "match": match,
        "grouped": grouped,
        "overlaps": np.full((4, 3, 2, 2), 0.9),
        "line": np.array([20.0, 20.0, 10.0]),
        "line_words": "Step-size line: 2 / rate.",
        "threshold": 0.5**0.5,
        "closeness": 0.01,
        "subset": "shared",
        "preconditioner": "",
        "end": "largest",
        "matrix": "Hessian",
        "low": 0.8 * values,
        "high": 1.2 * values,
        "resolved": np.ones(values.shape, bool),
        "level": 0.95,
        "products": 100,
        "examples": 500,
        "data": "data",
    }
    return EigenvalueTracks(**(made | changes))


def sharpness(**changes) -> Sharpness:
    """Operator o has values (o + 1) (snapshot + 1), form f a tenth^f of it; `two` rises at once along one's."""
    base = (np.arange(4.0) + 1)[:, None, None] * np.array([1.0, 2.0, 3.0])[:, None] * np.array([1.0, 0.1])
    matrix = base[:, :, :1] * np.array([1.0, 0.5, 0.75])
    low, high = 2 / matrix / 1.01, 2 / matrix * 1.01
    low[:, 0, 1] = high[:, 0, 1] = 0.0
    made = {
        "run": records.run(),
        "tasks": OPERATORS,
        "forms": ("plain", "elementwise"),
        "steps": STEPS,
        "eigenvalue": base,
        "residual": 0.01 * base,
        "converged": np.ones((4, 3, 2), bool),
        "trace": 10 * base[..., 0],
        "trace_stderr": base[..., 0],
        "worst": 2e-3 * base,
        "one_step": 1e-3 * base,
        "mean_rise": 1e-4 * base,
        "mean_rise_stderr": 1e-5 * base,
        "radius": np.array([0.05, 0.5]),
        "sigma": np.array([0.005, 0.05]),
        "pairs": 8,
        "curvature": matrix,
        "line_curvature": matrix * 1.001,
        "line_curvature_error": 0.01 * matrix,
        "critical_low": low,
        "critical_high": high,
        "line": np.array([20.0, 20.0, 1e6]),
        "line_words": "Step-size line: 2 / rate.",
        "subset": "shared",
        "products": 10,
        "gradients": 20,
        "passes": 30,
        "examples": 500,
        "data": "data",
        "seed": 0,
    }
    return Sharpness(**(made | changes))


def agreement(**changes) -> TaskAgreement:
    """Angles 10 and 20 (pair + 1); the average's eigenvalues owe 3, -1 to the tasks; cosines fall to -0.4."""
    shape = (4, 3)
    cross = np.ones((4, 3, 3, 2)) * np.array([4.0, 1.0, 2.5])[:, None]
    cross[:, 2, 0], cross[:, 2, 1], cross[:, 2, 2] = 6.0, -2.0, 2.0
    values = np.ones((4, 3, 2)) * np.array([4.0, 3.0, 2.0])[:, None]
    angles = np.ones((4, 3, 2)) * 10 * np.array([1, 2, 3])[:, None] * np.array([1, 2])
    space_error = np.zeros(shape)
    space_error[1, 1] = 30.0
    cosine = np.array([0.5, 0.2, -0.1, -0.4])[:, None]
    made = {
        "run": records.run(),
        "tasks": OPERATORS,
        "steps": STEPS,
        "values": values,
        "residuals": 0.01 * values,
        "converged": np.ones((4, 3, 2), bool),
        "gap": np.ones(shape),
        "space_error": space_error,
        "pairs": ("one and two", "one and average", "two and average"),
        "angles": angles,
        "null": np.array([84.0, 88.0]),
        "null_low": np.array([80.0, 86.0]),
        "null_high": np.array([87.0, 90.0]),
        "cross": cross,
        "norm": np.ones(shape) * np.array([1.0, 2.0, 1.2]),
        "norm_stderr": np.full(shape, 0.1),
        "couples": ("one and two",),
        "cosine": cosine,
        "cosine_stderr": np.full((4, 1), 0.05),
        "conflict": np.array([0.0, 0.25, 0.5, 1.0])[:, None],
        "conflict_low": np.array([0.0, 0.1, 0.3, 0.8])[:, None],
        "conflict_high": np.array([0.2, 0.4, 0.7, 1.0])[:, None],
        "pieces": 8,
        "piece": 63,
        "size": 1000,
        "subset": "shared",
        "products": 100,
        "gradients": 8,
        "examples": 500,
        "data": "data",
        "seed": 0,
    }
    return TaskAgreement(**(made | changes))
