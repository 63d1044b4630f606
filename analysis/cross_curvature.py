"""How the step of one task changes the gradient of the next, seen by every loss: C_ijk, with errors over examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.preconditioners import Ground, Preconditioner
from analysis.task_losses import TaskLosses
from landscape.modules import index_tensor
from landscape.problem import Problem


@dataclass(frozen=True, eq=False)
class CrossCurvature:
    """C_ijk and E_ij at one theta, what each block of examples says of them, and where the second-order part of a pass
    leads.

    C_ijk = (P_i g_i)' H_j (P_j g_k) on the shared parameters; E_ij = (P_i g_i)' M_j' (P_j h_j), with M_j the mixed
    second derivatives of loss j, its own head by shared. Influences are first-order: with I_b that of block b and s_b
    its share of the examples, sum_b s_b I_b^2 / (B - 1) is the square of an estimate's standard error.
    """

    shared: Tensor
    """[T, T, T]"""
    head: Tensor
    """[T, T]"""
    shared_influence: Tensor
    """[B, T, T, T]"""
    head_influence: Tensor
    """[B, T, T]"""
    steps: Tensor
    """P_t times the gradient of task t over its head and the shared parameters, [T, P]."""
    diagonals: Tensor | None
    gradients: Tensor
    """[T, P]"""
    blocks: Tensor
    """Gradients on every block, [B, T, P]."""
    agreement_gradient: Tensor
    """Gradient of A = sum_{i<j} g_i'g_j over all of theta, [P]: sum_j H_j sum_{i != j} g_i."""
    turns: tuple[Tensor, Tensor]
    """sum_j P_j H_j sum_{i before j} P_i g_i over all of theta, [P], for the order in use; and with i != j."""
    products: Tensor
    """g_i'g_j on the shared parameters, [T, T]."""
    agreement_influence: Tensor
    """[B]"""

    def contracted(self, before: Tensor) -> Tensor:
        """sum_ij before_ij C_ijk + sum_i before_ik E_ik for every k, [T]."""
        return _contracted(self.shared, self.head, before)

    def contracted_influence(self, before: Tensor) -> Tensor:
        """The same of the influences, [B, T]."""
        return _contracted(self.shared_influence, self.head_influence, before)


def _contracted(shared: Tensor, head: Tensor, before: Tensor) -> Tensor:
    return torch.einsum("ij,...ijk->...k", before, shared) + torch.einsum("ik,...ik->...k", before, head)


def products_needed(tasks: int, plain: bool) -> int:
    """Hessian products of one `cross_curvature`: T^2 + T, and as many again with a preconditioner."""
    return (tasks**2 + tasks) * (1 if plain else 2)


def cross_curvature(
    problem: Problem,
    losses: TaskLosses,
    theta: Tensor,
    before: Tensor,
    ground: Callable[[Tensor], Ground],
    preconditioner: Preconditioner,
) -> CrossCurvature:
    """The tensor C_ijk at one theta [P] with its head part and the influence of every block.

    For every task j the products H_j (P_i g_i) for all i, and one with the step of its own head, which the errors
    need; with a preconditioner also H_j (P_j g_k) for all k, and H_j sum_{i != j} g_i. With C = a' H b of means over
    examples,

        I_b = a_b' H b + a' H_b b + a' H b_b - 3 C,

    P held fixed. `before` [T, T] is 1 where i comes before j in the order in use.

    Cost: T gradients and T^2 + T Hessian products over all examples, with a preconditioner twice as many products.
    Memory: B T vectors [P] in float64 for the blocks' gradients, some 6 T more, and one micro-batch's graph.
    """
    parts = _Parts(problem, losses, theta)
    squares = torch.tensordot(losses.shares, parts.blocks**2, 1)
    diagonals = preconditioner.diagonals(ground(squares))
    tasks = len(problem.tasks)
    shape = (tasks, tasks, tasks)
    shared, head = theta.new_zeros(shape), theta.new_zeros(shape[:2])
    influence, of_head = theta.new_zeros(len(parts.blocks), *shape), theta.new_zeros(len(parts.blocks), *shape[:2])
    agreement, in_order, every = theta.new_zeros(len(theta)), theta.new_zeros(len(theta)), theta.new_zeros(len(theta))
    for j in range(tasks):
        found = _of_task(parts, losses, theta, j, diagonals)
        shared[:, j], head[:, j] = found.shared, found.head
        influence[:, :, j], of_head[:, :, j] = found.shared_influence, found.head_influence
        agreement += found.agreement
        in_order += before[:, j] @ found.turns
        every += found.turns.sum(0) - found.turns[j]
    gram = parts.gradients[:, parts.index] @ parts.gradients[:, parts.index].T
    return CrossCurvature(
        shared=shared,
        head=head,
        shared_influence=influence,
        head_influence=of_head,
        steps=parts.gradients if diagonals is None else diagonals * parts.gradients,
        diagonals=diagonals,
        gradients=parts.gradients,
        blocks=parts.blocks,
        agreement_gradient=agreement,
        turns=(in_order, every),
        products=gram,
        agreement_influence=_agreement_influence(parts, gram),
    )


class _Parts:
    """Gradients at one theta, and which entries of theta belong to whom."""

    def __init__(self, problem: Problem, losses: TaskLosses, theta: Tensor) -> None:
        layout = problem.layout
        self.index = index_tensor(layout.index(), theta.device)
        self.blocks = losses.block_gradients(theta)
        self.gradients = torch.tensordot(losses.shares, self.blocks, 1)
        self.shared = torch.zeros_like(theta).index_fill(0, self.index, 1.0)
        self.heads = torch.stack(
            [
                torch.zeros_like(theta).index_fill(0, index_tensor(layout.index(name), theta.device), 1.0)
                for name in problem.names
            ]
        )


@dataclass(frozen=True, eq=False)
class _OfTask:
    shared: Tensor
    head: Tensor
    shared_influence: Tensor
    head_influence: Tensor
    agreement: Tensor
    turns: Tensor
    """P_j H_j P_i g_i over all of theta for every i, [T, P]."""


def _of_task(parts: _Parts, losses: TaskLosses, theta: Tensor, j: int, diagonals: Tensor | None) -> _OfTask:
    """All that the products of task j's Hessian say."""
    tasks = len(parts.gradients)
    one = torch.ones_like(parts.gradients)
    p = one if diagonals is None else diagonals
    first = parts.shared * p * parts.gradients
    second = parts.shared * p[j] * parts.gradients
    own_head = (parts.heads[j] * p[j] * parts.gradients[j])[None]
    others = parts.shared * (parts.gradients.sum(0) - parts.gradients[j])
    vectors = [first, own_head] + ([] if diagonals is None else [second, others[None]])
    duals = torch.cat([second, own_head])
    found, paired = losses.products(theta, j, torch.cat(vectors), duals)
    moved, from_head = found[:tasks], found[tasks]
    seen = moved if diagonals is None else found[tasks + 1 : -1]
    agreement = moved.sum(0) - moved[j] if diagonals is None else found[-1]
    shared, head = moved @ second.T, moved @ own_head[0]
    by_later = _dots(parts.blocks, parts.shared * p[j] * moved).transpose(1, 2)
    by_earlier = torch.stack(
        [_dots(parts.blocks[:, i : i + 1], parts.shared * p[i] * seen)[:, 0] for i in range(tasks)], 1
    )
    by_head = _dots(parts.blocks[:, j : j + 1], parts.heads[j] * p[j] * moved)[:, 0]
    by_step = torch.stack(
        [_dots(parts.blocks[:, i : i + 1], (parts.shared * p[i] * from_head)[None])[:, 0, 0] for i in range(tasks)], 1
    )
    return _OfTask(
        shared=shared,
        head=head,
        shared_influence=by_earlier + paired[:, :tasks, :tasks] + by_later - 3 * shared,
        head_influence=by_step + paired[:, :tasks, tasks] + by_head - 3 * head,
        agreement=agreement,
        turns=p[j] * moved,
    )


def _dots(blocks: Tensor, vectors: Tensor) -> Tensor:
    """g_b,t' v_m for blocks [B, t, P] and vectors [m, P]: [B, t, m]."""
    return blocks @ vectors.T


def _agreement_influence(parts: _Parts, gram: Tensor) -> Tensor:
    """Influence of every block on A = sum_{i<j} g_i'g_j, [B]."""
    total = parts.gradients.sum(0)
    others = parts.shared * (total - parts.gradients)
    return torch.stack([(block * others).sum() for block in parts.blocks]) - (gram.sum() - gram.trace())
