"""How the curvature and the gradients of the tasks agree along a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskAgreement(Record):
    """How the sharpest directions and the gradients of the tasks, and of the averaged loss, agree along one run.

    The k sharpest directions of an operator are the vectors u_1 ... u_k of its largest eigenvalues; they span its
    *eigenspace*.
    """

    run: Run
    tasks: tuple[str, ...] = names("operator")
    """Task names, then `average`."""
    steps: Array = array("snapshot", units="step")
    values: Array = array("snapshot", "operator", "vector", units="loss / parameter^2")
    residuals: Array = array("snapshot", "operator", "vector", units="loss / parameter^2")
    converged: Array = array("snapshot", "operator", "vector")
    gap: Array = array("snapshot", "operator", units="loss / parameter^2")
    """Eigenvalue k minus eigenvalue k + 1; infinite where the space is everything."""
    space_error: Array = array("snapshot", "operator", units="degree")
    """The numerical eigenspace is within this angle of the true one, asin(||residuals|| / gap); 90 where the gap is no
    larger.
    """
    pairs: tuple[str, ...] = names("couple")
    """`a and b` for every two of the operators."""
    angles: Array = array("snapshot", "couple", "angle", units="degree")
    """Principal angles between the eigenspaces of two operators, ascending."""
    null: Array = array("angle", units="degree")
    """Mean principal angles of random spaces of this dimension."""
    null_low: Array = array("angle", units="degree")
    null_high: Array = array("angle", units="degree")
    """2.5 and 97.5 % of them."""
    cross: Array = array("snapshot", "operator", "operator_", "vector", units="loss / parameter^2")
    """u' H_j u for the vectors u of operator i, [snapshot, i, j, vector]."""
    norm: Array = array("snapshot", "operator", units="loss / parameter")
    """||g||"""
    norm_stderr: Array = array("snapshot", "operator", units="loss / parameter")
    """By the jackknife over pieces of the examples, and so the cosine's."""
    couples: tuple[str, ...] = names("task_pair")
    """`a and b` for every two tasks."""
    cosine: Array = array("snapshot", "task_pair")
    """Of the two gradients on the whole evaluation set."""
    cosine_stderr: Array = array("snapshot", "task_pair")
    conflict: Array = array("snapshot", "task_pair")
    """Share of the pieces of the examples, taken as mini-batches, on which the cosine is negative."""
    conflict_low: Array = array("snapshot", "task_pair")
    conflict_high: Array = array("snapshot", "task_pair")
    """Wilson's 95 % interval."""
    pieces: int
    piece: int
    """How many pieces, and examples in the largest."""
    size: int
    """Parameters of the subset."""
    subset: str
    """The parameters that everything is on, in words."""
    products: int
    gradients: int
    examples: int
    data: str
    seed: int

    @property
    def shares(self) -> Array:
        """u' H_t u / T for the average's vectors u, [snapshot, task, vector]: what each task adds to its eigenvalue."""
        return np.asarray(self.cross[:, -1, :-1] / (len(self.tasks) - 1))
