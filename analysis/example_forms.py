"""v_i' H_n v_j for every example n: what the Hessian of one example's loss says of a few directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import jvp

from analysis.local import twice_differentiable
from analysis.precision import sufficient
from analysis.results import Array
from analysis.subsets import Shared, Subset
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem

AGREEMENT = 1e-3
"""How far forward and reverse mode may be apart, relative to the largest entry: float32 leaves some 1e-5."""


class Weighted:
    """sum_t w_t loss_t of every example of a batch, as a function of theta [P]."""

    def __init__(self, problem: Problem, buffers: Tensor, weights: Sequence[float]) -> None:
        self._problem, self._buffers = problem, buffers
        self._weights = [(t, float(w)) for t, w in enumerate(weights) if w]

    def losses(self, theta: Tensor, batch: Batch) -> Tensor:
        """[B]"""
        losses = self._problem.task_losses(theta, batch, self._buffers)
        return torch.stack([w * losses[t] for t, w in self._weights]).sum(0)


class FormMethod(Protocol):
    """A way to compute the forms [B, k, k] of a batch for rows [k, P]."""

    @property
    def label(self) -> str: ...
    def forms(self, weighted: Weighted, theta: Tensor, batch: Batch, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ForwardTwice:
    """Forward mode over forward mode, v_i' H_n v_j = d/da d/db loss_n(theta + a v_i + b v_j). Cost: about 4 forward
    passes an entry, k (k + 1) / 2 entries. Needs a forward derivative of every operation.
    """

    label = "forward mode over forward mode"

    def forms(self, weighted: Weighted, theta: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        def slope(row: Tensor) -> Any:
            return lambda there: jvp(lambda x: weighted.losses(x, batch), (there,), (row,))[1]

        count = len(rows)
        made = torch.zeros(len(batch), count, count, dtype=torch.float64, device=theta.device)
        with torch.no_grad():
            for i in range(count):
                for j in range(i, count):
                    made[:, i, j] = made[:, j, i] = jvp(slope(rows[i]), (theta,), (rows[j],))[1].double()
        return made


@dataclass(frozen=True)
class ReverseThrice:
    """Reverse mode alone: p(w) = v_j' d/dtheta (v_i' d/dtheta sum_n w_n loss_n) is linear in the weights w of the
    examples, so that dp/dw [B] holds v_j' H_n v_i. Cost: k products and k (k + 1) / 2 backward passes through them.
    """

    label = "reverse mode three times"

    def forms(self, weighted: Weighted, theta: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        count = len(rows)
        made = torch.zeros(len(batch), count, count, dtype=torch.float64, device=theta.device)
        with torch.enable_grad():
            there = theta.detach().requires_grad_()
            of_example = torch.ones(len(batch), dtype=theta.dtype, device=theta.device, requires_grad=True)
            total = (of_example * weighted.losses(there, batch)).sum()
            (gradient,) = torch.autograd.grad(total, there, create_graph=True, materialize_grads=True)
            for i in range(count):
                product = _derivative(gradient @ rows[i], there, keep=True)
                for j in range(i, count):
                    entry = _derivative(product @ rows[j], of_example, keep=False)
                    made[:, i, j] = made[:, j, i] = entry.detach().double()
        return made


def _derivative(value: Tensor, of: Tensor, keep: bool) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(of)
    (found,) = torch.autograd.grad(value, of, create_graph=keep, retain_graph=True, materialize_grads=True)
    return found


def per_example_forms(
    problem: Problem,
    theta: Array,
    buffers: Array,
    weights: Sequence[float],
    vectors: Array,
    on: Subset = Shared(),
) -> tuple[Array, str]:
    """v_i' H_n v_j [N, k, k] in float64 for every example n of the evaluation set, and by which method.

    H_n is the Hessian of sum_t w_t loss_t of example n with respect to the entries of theta in `on`, the others and
    the buffers held fixed; `vectors` are rows [k, n] over those entries. Forward mode over forward mode is used where
    it works and meets reverse mode on a few examples, else reverse mode.

    Cost: see the methods; memory of one micro-batch and N k^2 numbers.

    Raises:
        LandscapeError: weights or vectors that do not fit the problem.
    """
    if len(weights) != len(problem.tasks) or not any(weights):
        raise LandscapeError(
            f"expected one weight for each of the {len(problem.tasks)} tasks, not all zero, got {list(weights)}"
        )
    problem, _ = sufficient(problem)
    there = torch.tensor(theta, dtype=problem.dtype, device=problem.device)
    spans = on.spans(problem.layout)
    size = sum(span.stop - span.start for span in spans)
    if vectors.ndim != 2 or vectors.shape[1] != size:
        raise LandscapeError(
            f"expected vectors [k, {size}] on the parameters {on.label!r}, got shape {list(vectors.shape)}"
        )
    rows = torch.zeros(len(vectors), problem.layout.size, dtype=problem.dtype, device=problem.device)
    given, start = torch.tensor(vectors, dtype=problem.dtype, device=problem.device), 0
    for span in spans:
        rows[:, span] = given[:, start : start + span.stop - span.start]
        start += span.stop - span.start
    weighted = Weighted(problem, torch.tensor(buffers, device=problem.device), weights)
    with twice_differentiable():
        method = _choose(weighted, there, problem.evaluation[:2], rows)
        pieces = problem.evaluation.pieces(problem.micro_batch)
        forms = torch.cat([method.forms(weighted, there, batch, rows) for batch in pieces])
    return forms.cpu().numpy(), method.label


def _choose(weighted: Weighted, theta: Tensor, few: Batch, rows: Tensor) -> FormMethod:
    """Forward mode can fail in many ways (an operation without a forward derivative, a custom function), or give wrong
    numbers without a word: it is used only where it meets reverse mode.
    """
    reverse = ReverseThrice().forms(weighted, theta, few, rows[-1:])
    try:
        forward = ForwardTwice().forms(weighted, theta, few, rows[-1:])
    except (RuntimeError, NotImplementedError):
        return ReverseThrice()
    scale = max(float(reverse.abs().max()), torch.finfo(rows.dtype).tiny)
    meets = float((forward - reverse).abs().max()) <= AGREEMENT * scale
    return ForwardTwice() if meets else ReverseThrice()
