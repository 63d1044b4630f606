"""Who is to blame when a product fails: the operation, the task and micro-batch, the module."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from analysis import subsets
from analysis.kinds import gradient
from analysis.local import Weighted, twice_differentiable
from analysis.products import Block, ReverseOverReverse
from landscape.binding import bind
from landscape.checks import find_culprit
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator

if TYPE_CHECKING:
    from analysis.curvature import CurvatureOperator

_NAMED = re.compile(r"derivative for '?([\w:]+)'? is not implemented|@(once_differentiable)")


class NonFiniteProduct(LandscapeError):
    """A product that is infinite or not a number, of a vector that is finite."""


@contextlib.contextmanager
def no_second_derivative(block: Block) -> Iterator[None]:
    """Turns what torch says of an operation that cannot be differentiated twice into a sentence with its name."""
    try:
        yield
    except LandscapeError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        found = _NAMED.search(str(error))
        if found is None:
            raise
        raise _lacking(block, _first_task(block), found[1]) from error


def require_second_derivative(block: Block) -> None:
    """Raises where the gradient goes through a function that can be differentiated only once: torch leaves such a part
    out of a second derivative without a word. Cost: a gradient of two examples for every task, once for a problem.
    """
    known = _TWICE.setdefault(block.problem, set())
    for task, _ in block.loss.weights:
        if (task, block.loss.columns.names) in known:
            continue
        loss = _of_one_task(block.loss, task)
        if any(type(node).__name__ == "Error" for node in nodes(loss, of_gradient=True)):
            raise _lacking(block, loss.words, None)
        known.add((task, block.loss.columns.names))


_TWICE: WeakKeyDictionary[Problem, set[tuple[int, tuple[str, ...]]]] = WeakKeyDictionary()


def _lacking(block: Block, task: str, operation: str | None) -> LandscapeError:
    functions = (node for node in nodes(block.loss) if issubclass(type(node), BackwardCFunction))
    names = dict.fromkeys(node.name().removesuffix("Backward") for node in functions)
    named = operation or ", ".join(names) or "of a torch.autograd.Function"
    return LandscapeError(
        f"the loss of {task} has no second derivative: the operation {named} is not differentiable twice; expected a "
        f"loss that is, for a {block.kind.label}: replace that operation, or take CentralDifferences() of the gradient"
    )


def _first_task(block: Block) -> str:
    """The first task whose product fails, or all."""
    few = block.loss.data[:2]
    for task, _ in block.loss.weights if len(block.loss.weights) > 1 else ():
        alone = Block(block.kind, _of_one_task(block.loss, task)).on(few)
        try:
            ReverseOverReverse().begin(alone).of_piece(0, block.drawn())
        except (RuntimeError, NotImplementedError):
            return alone.loss.words
    return block.loss.words


def _of_one_task(loss: Weighted, task: int) -> Weighted:
    return Weighted(loss.local, ((task, 1.0),), loss.rows, loss.columns, loss.data)


def nodes(loss: Weighted, of_gradient: bool = False) -> list[Any]:
    """All nodes of the graph of a loss of two examples, or of its gradient."""
    leaves = {name: loss.local.state[name].detach().requires_grad_() for name in loss.columns.names}
    with twice_differentiable():
        ends = [loss.total({**loss.local.state, **leaves}, loss.data[:2])]
        if of_gradient and ends[0].requires_grad:
            found: Sequence[Tensor | None] = torch.autograd.grad(
                ends, list(leaves.values()), create_graph=True, allow_unused=True
            )
            ends = [one for one in found if one is not None]
    todo: list[Any] = [one.grad_fn for one in ends]
    seen: dict[Any, None] = {}
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen[node] = None
            todo += [following for following, _ in node.next_functions]
    return list(seen)


def non_finite(block: Block) -> NonFiniteProduct:
    """The error for a product that is not finite: the first task and micro-batch with one, and what else is not finite
    there. Cost: a product of every task at most, and a gradient.
    """
    reference = ReverseOverReverse().begin(block)
    drawn = block.drawn()
    where = ""
    for task, _ in block.loss.weights:
        one = ReverseOverReverse().begin(Block(block.kind, _of_one_task(block.loss, task)))
        for number, batch in enumerate(reference.pieces):
            if bool(torch.isfinite(one.of_piece(number, drawn)).all()):
                continue
            with twice_differentiable(), torch.no_grad():
                loss = one.block.loss.total(block.loss.local.state, batch)
            with twice_differentiable():
                slope = gradient(one.block.loss, block.loss.local.state, batch)
            if not bool(torch.isfinite(loss)):
                what = f"and so is its loss, {float(loss)}"
            elif not all(bool(torch.isfinite(part).all()) for part in slope):
                what = "and so is its gradient, though the loss is finite"
            else:
                what = "though its loss and gradient are finite"
            first = number * (reference.way.micro_batch or block.problem.micro_batch)
            where = f" of {one.block.loss.words} in examples {first} to {first + len(batch) - 1}, {what}"
            break
        if where:
            break
    return NonFiniteProduct(
        f"a product of the {block.kind.label} is not finite{where}: expected finite numbers; look at these examples "
        "and at theta, or choose another snapshot"
    )


def blamed(operator: CurvatureOperator) -> str:
    """The module that makes an operator random or not symmetric, in words; empty where it is not found.

    Random, or mixing examples: found by watching modules in repeated forward passes. Not symmetric: a backward pass
    that is not that of its forward pass spoils the blocks of all layers before it, so it lies in or behind the last
    layer whose own block is not symmetric. Cost: some forward passes, and 2 products of every layer.
    """
    location = operator.location
    module = bind(location.local.module, location.local.state)
    for batch in location.data.pieces(location.problem.micro_batch):
        try:
            find_culprit(module, batch.inputs)
        except LandscapeError as error:
            return str(error)
        break
    last = ""
    for name, subset in subsets.layers(location.problem.layout, operator.on).items():
        part = location.operator(operator.of, subset, operator.kind, ReverseOverReverse())
        u, v = (
            torch.from_numpy(generator(seed, "blame").standard_normal(part.size)).to(part.device, part.dtype)
            for seed in (0, 1)
        )
        hu, hv = (part @ u).double(), (part @ v).double()
        scale = float(u.double().norm() * hv.norm() + v.double().norm() * hu.norm())
        if abs(float(u.double() @ hv - v.double() @ hu)) > 1e4 * torch.finfo(part.dtype).eps * scale:
            last = name
    return f"the derivative of what lies in or behind module {last!r} is not that of what it computes" if last else ""
