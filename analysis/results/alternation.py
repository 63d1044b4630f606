"""What one step a task, in turn, does to every loss beside one step on their sum: predicted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analysis.results.base import Array, Record, Run, array, names
from analysis.results.comparison import UNDECIDED

HELPS, HURTS = "helps", "hurts"


@dataclass(frozen=True, eq=False, kw_only=True)
class Alternation(Record):
    """The second-order theory of alternating steps at some snapshots of one run, beside steps really taken there.

    With task gradients g_t and Hessians H_t on the shared parameters, head gradients h_t, mixed blocks M_t (head by
    shared), and a fixed diagonal P_t for each task (the identity for plain gradient steps),

        curvature[s, i, j, k] = (P_i g_i)' H_j (P_j g_k)        head_curvature[s, i, j] = (P_i g_i)' M_j' (P_j h_j)
        predicted[s, k] = rate^2 (sum_{i before j} curvature[i, j, k] + sum_{i before k} head_curvature[i, k])

    and measured[s, r, k] is the loss of task k after a sequential pass minus that after one summed step, both really
    taken from the snapshot at rate rates[r]. Losses are the tasks' and, last, their average. A pass helps a loss where
    the difference is below zero. Where `done` is false, nothing was computed and values are NaN.
    """

    run: Run
    tasks: tuple[str, ...] = names("task")
    losses: tuple[str, ...] = names("objective")
    """Task names, then `average`: what a step can help or hurt."""
    order: Array = array("place")
    """Task numbers in the order in use."""
    rates: Array = array("rung", units="rate")
    """The learning rate, and the same halved again and again."""
    steps: Array = array("snapshot", units="step")
    done: Array = array("snapshot")
    loss: Array = array("snapshot", "objective", units="loss")
    curvature: Array = array("snapshot", "earlier", "later", "task", units="loss / rate^2")
    head_curvature: Array = array("snapshot", "earlier", "later", units="loss / rate^2")
    predicted: Array = array("snapshot", "objective", units="loss")
    predicted_stderr: Array = array("snapshot", "objective", units="loss")
    """From blocks of examples: how much another draw of the data would change the prediction."""
    predicted_mean: Array = array("snapshot", "objective", units="loss")
    """Mean over all orders, rate^2 / 2 times the sum over i != j."""
    predicted_mean_stderr: Array = array("snapshot", "objective", units="loss")
    measured: Array = array("snapshot", "rung", "objective", units="loss")
    measured_stderr: Array = array("snapshot", "objective", units="loss")
    """Of the first rate, by a jackknife: both steps are taken anew without each block of examples."""
    measured_mean: Array = array("snapshot", "objective", units="loss")
    """Mean over the orders that were tried; NaN without any."""
    measured_mean_stderr: Array = array("snapshot", "objective", units="loss")
    """Over drawn orders; 0 where every order was tried."""
    rounding: Array = array("snapshot", "objective", units="loss")
    """What rounding alone could make of a measured difference."""
    products: Array = array("snapshot", "task", "task_", units="(loss / parameter)^2")
    """Inner products g_i'g_j on the shared parameters."""
    agreement: Array = array("snapshot", units="(loss / parameter)^2")
    """A = sum_{i < j} g_i'g_j."""
    agreement_stderr: Array = array("snapshot", units="(loss / parameter)^2")
    agreement_slope: Array = array("snapshot", units="(loss / parameter)^2")
    """Change of A over one pass, predicted to first order: the same for both strategies."""
    agreement_averaged: Array = array("snapshot", units="(loss / parameter)^2")
    """Change of A measured over one summed step."""
    agreement_sequential: Array = array("snapshot", units="(loss / parameter)^2")
    """Change of A measured over one sequential pass in the order in use."""
    agreement_shuffled: Array = array("snapshot", units="(loss / parameter)^2")
    """Mean of that change over the orders that were tried."""
    agreement_gain: Array = array("snapshot", units="(loss / parameter)^2")
    """Sequential minus averaged, predicted to second order."""
    agreement_gain_mean: Array = array("snapshot", units="(loss / parameter)^2")
    """Its mean over all orders: rate^2 / 2 ||grad A||^2 for plain steps, never below zero."""
    orders: int
    """How many orders were tried for the means."""
    every_order: bool
    preconditioner: str
    """What the P_t are, in words."""
    quantile: float
    """Student's t for 95 % intervals from so many blocks of examples; NaN with fewer than two."""
    blocks: int
    examples: int
    split: str
    """`evaluation` or `training`."""
    data: str
    seed: int
    """Draws the blocks of examples, and the orders where not all are tried."""

    @property
    def rate(self) -> float:
        """The learning rate of the steps."""
        return float(self.rates[0])

    @property
    def remainder(self) -> Array:
        """|measured - predicted| at every rate of the ladder, [snapshot, rung, loss]."""
        scale = (self.rates / self.rate) ** 2
        return np.asarray(np.abs(self.measured - scale[:, None] * self.predicted[:, None]))

    @property
    def relative_remainder(self) -> Array:
        """|measured - predicted| / |predicted| at the learning rate, [snapshot, loss]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.remainder[:, 0] / np.abs(self.predicted))

    @property
    def remainder_order(self) -> Array:
        """Power of the rate with which the remainder shrinks at the end of the ladder, [snapshot, loss]; 3 in theory.

        NaN with one rate, and where rounding is more than a hundredth of the smallest remainder.
        """
        if len(self.rates) < 2:
            return np.full(self.predicted.shape, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            power = np.log(self.remainder[:, -2] / self.remainder[:, -1]) / np.log(self.rates[-2] / self.rates[-1])
        return np.asarray(np.where(self.remainder[:, -1] > 100 * self.rounding, power, np.nan))

    @property
    def extrapolated(self) -> Array:
        """measured / rate^2 as the rate goes to 0, by Richardson's rule over the whole ladder, [snapshot, loss].

        Knows nothing of gradients and Hessians; predicted / rate^2 is what it has to meet.
        """
        table = list(np.moveaxis(self.measured / self.rates[:, None] ** 2, 1, 0))
        for level in range(1, len(table)):
            table = [(2**level * fine - coarse) / (2**level - 1) for coarse, fine in pairwise(table)]
        return np.asarray(table[0])

    @property
    def above_rounding(self) -> Array:
        """Which measured differences rounding alone could not make [snapshot, objective]; false where not done."""
        return np.asarray((np.abs(self.measured[:, 0]) > self.rounding) & self.done.astype(bool)[:, None])

    @property
    def interval(self) -> tuple[Array, Array]:
        """The measured difference at the learning rate -+ quantile times its standard error, two arrays [snapshot,
        loss].
        """
        half = self.quantile * self.measured_stderr + self.rounding
        return np.asarray(self.measured[:, 0] - half), np.asarray(self.measured[:, 0] + half)

    @property
    def verdicts(self) -> Array:
        """`helps`, `hurts` or `undecided` for every snapshot and loss; the last where nothing is known as well."""
        low, high = self.interval
        return np.where(high < 0, HELPS, np.where(low > 0, HURTS, UNDECIDED))

    @property
    def cosines(self) -> Array:
        """Cosines of task gradients on the shared parameters, [snapshot, pair], pairs in the order of numpy's triu."""
        norms = np.sqrt(np.diagonal(self.products, axis1=1, axis2=2))
        i, j = np.triu_indices(len(self.tasks), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.clip(self.products[:, i, j] / (norms[:, i] * norms[:, j]), -1, 1))
