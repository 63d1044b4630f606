"""Kinds of curvature: the Hessian, the generalised Gauss-Newton matrix, the empirical Fisher matrix.

Each is a sum over examples of matrices whose product with a vector is made by differentiation, in reverse mode alone or
with forward mode inside. Rows and columns may be different tensors: then it is a block of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils._pytree import tree_flatten, tree_unflatten

from analysis.local import State, Weighted
from landscape.data import Batch
from landscape.errors import LandscapeError

Tensors: TypeAlias = list[Tensor]
Pull: TypeAlias = Callable[[Sequence[Tensor], bool], Tensors]
"""From the tensors of a vector to those of its product; whether the graph is to be kept for another one."""


class Kind(Protocol):
    """A kind of curvature. Products are sums over the examples of a micro-batch, not divided by their number."""

    @property
    def label(self) -> str:
        """In words, as `Hessian`."""
        ...

    def reverse(self, loss: Weighted, state: State, batch: Batch) -> Pull:
        """The product at this state, in reverse mode alone: the graph is made here, each call goes back through it."""
        ...

    def forward(self, loss: Weighted, state: State, batch: Batch, vector: Sequence[Tensor]) -> Tensors:
        """The product with one vector, with forward mode over or beside reverse mode."""
        ...

    def differenced(
        self, loss: Weighted, state: State, ends: tuple[State, State], step: float, batch: Batch
    ) -> Tensors:
        """The product at this state with the vector v by differences between the two `ends`, `step` times v to either
        side of it.
        """
        ...


@dataclass(frozen=True)
class Hessian:
    """Second derivatives, d2 L / d theta2 of L = (1 / N) sum_n sum_t w_t l_tn."""

    label = "Hessian"

    def reverse(self, loss: Weighted, state: State, batch: Batch) -> Pull:
        given, rows, columns = _leaves(loss, state)
        gradient = _back([loss.total(given, batch)], columns, create_graph=True)

        def product(vector: Sequence[Tensor], keep: bool) -> Tensors:
            return _filled(_back(gradient, rows, vector, retain_graph=keep), rows)

        return product

    def forward(self, loss: Weighted, state: State, batch: Batch, vector: Sequence[Tensor]) -> Tensors:
        def gradient(columns: Tensors) -> Tensors:
            around = {**state, **dict(zip(loss.columns.names, columns, strict=True))}

            def value(rows: Tensors) -> Tensor:
                return loss.total({**around, **dict(zip(loss.rows.names, rows, strict=True))}, batch)

            return _tensors(grad(value)([around[name] for name in loss.rows.names]))

        return _tensors(jvp(gradient, (_at(state, loss.columns.names),), (list(vector),))[1])

    def differenced(
        self, loss: Weighted, state: State, ends: tuple[State, State], step: float, batch: Batch
    ) -> Tensors:
        high, low = (gradient(loss, end, batch) for end in ends)
        return [(a.double() - b.double()) / (2 * step) for a, b in zip(high, low, strict=True)]


@dataclass(frozen=True)
class GaussNewton:
    """The generalised Gauss-Newton matrix (1 / N) sum_n sum_t w_t J_tn' H_tn J_tn: J the Jacobian of the prediction of
    task t, H the Hessian of its loss with respect to it (Schraudolph 2002, doi.org/10.1162/08997660260028683).

    Exact, and positive semi-definite where losses are convex in the predictions and weights positive. Predictions may
    be nested tuples, lists and dicts of tensors.
    """

    label = "Gauss-Newton matrix"

    def reverse(self, loss: Weighted, state: State, batch: Batch) -> Pull:
        given, rows, columns = _leaves(loss, state)
        outputs, rebuild = _outputs(loss, given, batch)
        ends = [output.detach().requires_grad_() for output in outputs]
        slope = _back([rebuild(ends).sum()], ends, create_graph=True)
        seeds = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        adjoint = _back(outputs, columns, seeds, create_graph=True)

        def product(vector: Sequence[Tensor], keep: bool) -> Tensors:
            moved = _filled(_back(adjoint, seeds, vector, retain_graph=keep), seeds)
            bent = _filled(_back(slope, ends, moved, retain_graph=keep), ends)
            return _filled(_back(outputs, rows, bent, retain_graph=keep), rows)

        return product

    def forward(self, loss: Weighted, state: State, batch: Batch, vector: Sequence[Tensor]) -> Tensors:
        built: list[Callable[[Tensors], Tensor]] = []

        def predicted(around: State) -> Tensors:
            outputs, rebuild = _outputs(loss, around, batch)
            built.append(rebuild)
            return outputs

        outputs, pull, moved = _pushed(loss, state, vector, predicted)
        at = [output.detach() for output in outputs]

        def summed(ends: Tensors) -> Tensor:
            return built[-1](ends).sum()

        bent = jvp(grad(summed), (at,), (moved,))[1]
        return _tensors(pull(bent)[0])

    def differenced(
        self, loss: Weighted, state: State, ends: tuple[State, State], step: float, batch: Batch
    ) -> Tensors:
        slopes = []
        for end in ends:
            outputs, rebuild = _outputs(loss, end, batch)
            there = [output.detach().requires_grad_() for output in outputs]
            slopes.append(_filled(_back([rebuild(there).sum()], there), there))
        given, rows, _ = _leaves(loss, state)
        bent = [(a - b) / (2 * step) for a, b in zip(*slopes, strict=True)]
        return _filled(_back(_outputs(loss, given, batch)[0], rows, bent), rows)


@dataclass(frozen=True)
class Fisher:
    """The empirical Fisher matrix (1 / N) sum_n g_n g_n', g_n the gradient of sum_t w_t l_tn of one example.

    It is quadratic in the weights: the matrix of the average is not the average of the tasks' matrices.
    """

    label = "empirical Fisher matrix"

    def reverse(self, loss: Weighted, state: State, batch: Batch) -> Pull:
        given, rows, columns = _leaves(loss, state)
        values = [_values(loss, given, batch)]
        seeds = [torch.zeros_like(values[0], requires_grad=True)]
        adjoint = _back(values, columns, seeds, create_graph=True)

        def product(vector: Sequence[Tensor], keep: bool) -> Tensors:
            moved = _filled(_back(adjoint, seeds, vector, retain_graph=keep), seeds)
            return _filled(_back(values, rows, moved, retain_graph=keep), rows)

        return product

    def forward(self, loss: Weighted, state: State, batch: Batch, vector: Sequence[Tensor]) -> Tensors:
        _, pull, moved = _pushed(loss, state, vector, lambda around: [_values(loss, around, batch)])
        return _tensors(pull(moved)[0])

    def differenced(
        self, loss: Weighted, state: State, ends: tuple[State, State], step: float, batch: Batch
    ) -> Tensors:
        with torch.no_grad():
            high, low = (_values(loss, end, batch) for end in ends)
        given, rows, _ = _leaves(loss, state)
        return _filled(_back([_values(loss, given, batch)], rows, [(high - low) / (2 * step)]), rows)


def gradient(loss: Weighted, state: State, batch: Batch) -> Tensors:
    """Gradient of a micro-batch's sum with respect to the rows."""
    given, rows, _ = _leaves(loss, state)
    return _filled(_back([loss.total(given, batch)], rows), rows)


def _at(state: State, names: Sequence[str]) -> Tensors:
    return [state[name] for name in names]


def _tensors(found: Any) -> Tensors:
    return list(found)


def _leaves(loss: Weighted, state: State) -> tuple[State, Tensors, Tensors]:
    """The state with rows and columns as leaves of a graph, and these."""
    names = dict.fromkeys((*loss.rows.names, *loss.columns.names))
    leaves = {name: state[name].detach().requires_grad_() for name in names}
    return {**state, **leaves}, _at(leaves, loss.rows.names), _at(leaves, loss.columns.names)


def _back(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor] | None = None,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> list[Tensor | None]:
    """Reverse mode through those outputs that have a graph; None for inputs that none of them reaches."""
    given = vectors if vectors is not None else [None] * len(outputs)
    there = [(o, v) for o, v in zip(outputs, given, strict=True) if o is not None and o.requires_grad]
    if not there:
        return [None] * len(inputs)
    ends, seeds = [o for o, _ in there], [v for _, v in there]
    return list(
        torch.autograd.grad(
            ends, inputs, seeds, create_graph=create_graph, retain_graph=retain_graph or create_graph, allow_unused=True
        )
    )


def _filled(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensors:
    return [torch.zeros_like(one) if part is None else part for part, one in zip(found, like, strict=True)]


def _values(loss: Weighted, state: Mapping[str, Tensor], batch: Batch) -> Tensor:
    return loss.per_example(loss.local.predictions(state, batch.inputs), batch.targets)


def _outputs(loss: Weighted, state: Mapping[str, Tensor], batch: Batch) -> tuple[Tensors, Callable[[Tensors], Tensor]]:
    """The floating-point tensors of the predictions that count, and the losses [B] as a function of them."""
    predictions = loss.local.predictions(state, batch.inputs)
    leaves, spec = tree_flatten([predictions[task] for task in loss.tasks])
    for leaf in leaves:
        if not isinstance(leaf, Tensor | int | float | str | None):
            raise LandscapeError(
                f"a prediction of {loss.words} holds {type(leaf).__name__}: expected nested tuples, lists and dicts of "
                "tensors; take the Hessian or the Fisher matrix instead"
            )
    moving = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def rebuild(ends: Tensors) -> Tensor:
        moved = dict(zip(moving, ends, strict=True))
        whole = [moved.get(k, leaf) for k, leaf in enumerate(leaves)]
        return _of_tasks(loss, tree_unflatten(whole, spec), batch)

    return [leaves[k] for k in moving], rebuild


def _of_tasks(loss: Weighted, parts: Sequence[Any], batch: Batch) -> Tensor:
    by_task = dict(zip(loss.tasks, parts, strict=True))
    return loss.per_example([by_task.get(task) for task in range(len(batch.targets))], batch.targets)


def _pushed(
    loss: Weighted, state: State, vector: Sequence[Tensor], function: Callable[[State], Tensors]
) -> tuple[Tensors, Callable[..., Any], Tensors]:
    """A function's values, the map back from them to the rows, and how they move along a vector of the columns."""

    def of_rows(rows: Tensors) -> tuple[Tensors, Tensors]:
        around = {**state, **dict(zip(loss.rows.names, rows, strict=True))}

        def of_columns(columns: Tensors) -> Tensors:
            return function({**around, **dict(zip(loss.columns.names, columns, strict=True))})

        found: Any = jvp(of_columns, (_at(around, loss.columns.names),), (list(vector),))
        values, moved = found
        return values, moved

    found: Any = vjp(of_rows, _at(state, loss.rows.names), has_aux=True)
    values, pull, moved = found
    return values, pull, moved
