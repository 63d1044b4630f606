"""Whether backward passes give the derivatives of what forward passes compute, and who is to blame where not."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from analysis.blame import nodes
from analysis.derivatives import Compared, Scalar, Tensors, Verdict, compared
from analysis.kinds import Fisher, Hessian, Kind
from analysis.local import Local, Part, State, Weighted, twice_differentiable
from analysis.products import Block
from landscape.binding import bind
from landscape.errors import LandscapeError
from landscape.modules import flatten
from landscape.problem import Problem
from landscape.randomness import generator

EXAMPLES = 256
"""Examples that derivatives are looked at on, drawn from all of them."""

FEW = 16
"""Examples that modules are looked at on, one module after the other, where something is wrong."""

_KINKS = re.compile(
    r"relu|threshold|hardtanh|(?<!soft)max|(?<!soft)min|abs|clamp|sort|topk|sign|round|hardswish|hardsigmoid|shrink",
    re.I,
)
"""Operations whose derivatives jump: in less than float64 steps are too long to step over none of the kinks."""


FAR = 0.5
"""Derivatives are looked at again where theta has moved by more than this share of its length."""

SAMPLE = 100_000
"""Entries of theta that tell how far it has moved."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What was found right: a kind of curvature, or the gradient alone (None), of weighted tasks on some tensors, at a
    theta, of which some entries are kept.
    """

    kind: Kind | None
    weights: tuple[tuple[int, float], ...]
    names: frozenset[str]
    theta: Tensor

    def covers(self, other: _Known) -> bool:
        """What is right for some tensors is so for a multiple of it, and near it; a gradient is where a curvature is. A
        block of a matrix is looked at by itself: a small one, all wrong, is next to nothing in the whole.
        """
        if other.kind not in (self.kind, None) or self.names != other.names:
            return False
        tasks = tuple(tuple(task for task, _ in one.weights) for one in (self, other))
        same = self.weights == other.weights or (len(tasks[0]) == 1 and tasks[0] == tasks[1])
        return same and float((self.theta - other.theta).norm()) <= FAR * float(self.theta.norm())


_KNOWN: WeakKeyDictionary[Problem, list[_Known]] = WeakKeyDictionary()


def require_derivatives(block: Block) -> list[str]:
    """Holds the gradient of a block's loss, and its curvature, against differences along a random direction; see
    `analysis.derivatives`. Says in words what could not be told.

    They are computed in float64, by a copy of the model where it can be, on at most `EXAMPLES` examples drawn from
    all.
    Once for a problem, a loss and its parameters: not again for a sum of losses of which each was found right, nor at
    another theta unless that has moved by more than half its length. Where there is nothing to compare, as with a zero
    Hessian, nothing is taken as known.

    Cost: 2 gradients and a product of these examples; of Gauss-Newton and Fisher matrices also 2 forward passes and a
    gradient.

    Raises:
        LandscapeError: derivatives that are not those of the loss, with the module at fault where it is found.
    """
    return _required(block, block.kind)


def require_gradient(block: Block) -> list[str]:
    """As `require_derivatives`, of the gradient alone. Cost: 2 gradients of at most `EXAMPLES` examples."""
    return _required(block, None)


def _required(block: Block, kind: Kind | None) -> list[str]:
    loss, known = block.loss, _KNOWN.setdefault(block.problem, [])
    names = frozenset((*loss.rows.names, *loss.columns.names))
    theta = loss.local.theta
    some = theta[:: max(1, len(theta) // SAMPLE)].double().clone()
    asked = _Known(kind, loss.weights, names, some)
    each = [replace(asked, weights=((task, 1.0),)) for task, _ in loss.weights]
    wanted = [[asked]] if isinstance(kind, Fisher) else [[asked], each]
    if any(all(any(one.covers(part) for one in known) for part in parts) for parts in wanted):
        return []
    looked_at, found = _looked_at(_square(block, names), kind is not None)
    if found.gradient.wrong or found.product.wrong:
        return _wrong(looked_at, found)
    if found.gradient.told and (found.product.told or kind is None):
        known.append(asked)
    open_ones = [
        word for word, one in (("gradient", found.gradient), (block.kind.label, found.product)) if not one.passed
    ]
    if not open_ones:
        return []
    return [f"the {' and the '.join(open_ones)} could not be checked against differences, which do not settle"]


def _square(block: Block, names: frozenset[str]) -> Block:
    """The block with all its parameters as rows and as columns, on a sample of the examples."""
    loss, layout = block.loss, block.problem.layout
    slots = [slot for slot in layout.slots if slot.name in names]
    part = Part(*zip(*((slot.name, slot.shape, slot.size, slot.span) for slot in slots), strict=True))
    count = len(loss.data)
    data = loss.data
    if count > EXAMPLES:
        drawn = generator(0, "derivatives").choice(count, EXAMPLES, replace=False)
        data = data[torch.from_numpy(np.sort(drawn)).to(block.problem.device)]
    return replace(block, loss=replace(loss, rows=part, columns=part, data=data))


def _looked_at(block: Block, second: bool) -> tuple[Block, Compared]:
    """The verdicts, and what they are of: the block in float64, where its model can be computed in it.

    In less precision steps are long, and kinks in between tell against no one.
    """
    if block.problem.dtype == torch.float64:
        return block, compared(_Line(block, second))
    with contextlib.suppress(Exception):  # whatever a model that knows one type alone says to another one
        exact = _doubled(block)
        return exact, compared(_Line(exact, second))
    found = compared(_Line(block, second))
    if any(_KINKS.search(type(node).__name__) for node in nodes(block.loss)):
        found = Compared(replace(found.gradient, wrong=False), replace(found.product, wrong=False))
    return block, found


def _doubled(block: Block) -> Block:
    loss = block.loss
    problem = block.problem.to(dtype=torch.float64)
    buffers = loss.local.problem.buffer_layout.pack(loss.local.state)
    local = Local(problem, loss.local.theta.double(), buffers)
    return replace(block, loss=replace(loss, local=local, data=loss.data.to(problem.device, torch.float64)))


class _Line(Scalar):
    """The mean loss of a block along a random direction of its parameters; products are those of its kind."""

    def __init__(self, block: Block, second: bool) -> None:
        self._block, self._state, self._count = block, block.loss.local.state, len(block.loss.data)
        self._batches = list(block.loss.data.pieces(block.problem.micro_batch))
        names = block.loss.columns.names
        super().__init__(self._losses, [self._state[name] for name in names], block.drawn(1), second)

    def _losses(self, leaves: Tensors) -> Iterator[Tensor]:
        state = self._with(leaves)
        for batch in self._batches:
            with twice_differentiable():
                yield self._block.loss.total(state, batch) / self._count

    def difference(self, step: float, ends: tuple[Tensor, Tensor]) -> Tensor:
        kind = self._block.kind
        if isinstance(kind, Hessian):
            return super().difference(step, ends)
        sides = self._with(self._moved(step)), self._with(self._moved(-step))
        with twice_differentiable():
            parts = [kind.differenced(self._block.loss, self._state, sides, step, batch) for batch in self._batches]
        return self._summed(parts)

    def product(self) -> Tensor | None:
        if not self._second:
            return None
        loss = self._block.loss
        with twice_differentiable():
            parts = [self._block.kind.reverse(loss, self._state, b)(self._direction, False) for b in self._batches]
        return self._summed(parts)

    def _with(self, leaves: Tensors) -> State:
        return {**self._state, **dict(zip(self._block.loss.columns.names, leaves, strict=True))}

    def _summed(self, parts: Sequence[Tensors]) -> Tensor:
        total: Tensor = sum(flatten(part).double().cpu() for part in parts) / self._count  # type: ignore[assignment]
        return total


def _wrong(block: Block, found: Compared) -> list[str]:
    """Refuses; or, where a value is detached and nothing else is seen that could be wrong, says so."""
    first = found.gradient.wrong
    apart = found.gradient.apart if first else found.product.apart
    what = "gradient" if first else block.kind.label
    own = sorted({node.name().removesuffix("Backward") for node in nodes(block.loss) if _is_own(node)})
    if not own and _detaches(block.loss):
        return [
            f"the {what} is {apart:.2g} from differences, relative to its length: it is that of a loss whose detached "
            "values are constants"
        ]
    module = _module_at_fault(block.loss)
    functions = f"look at the torch.autograd.Function {', '.join(own)}" if own else "look at the loss functions"
    where = f"the fault lies in module {module}" if module else functions
    other = "" if first or not isinstance(block.kind, Hessian) else ", or take CentralDifferences() of the gradient"
    raise LandscapeError(
        f"the {what} of {block.loss.words} by backward passes is {apart:.2g} from differences along a random "
        f"direction, relative to its length; {where}: expected the derivatives of what the forward pass computes; "
        f"write its backward pass in operations that torch can differentiate{other}"
    )


def _is_own(node: Any) -> bool:
    return issubclass(type(node), BackwardCFunction)


def _module_at_fault(loss: Weighted) -> str:
    """The first module to end its forward pass whose own derivatives are wrong, with its class; empty where none is."""
    local = loss.local
    calls: list[tuple[str, nn.Module, Any, Any]] = []

    def note(name: str) -> Any:
        def hook(part: nn.Module, given: Any, by_name: Any, output: Any) -> None:
            calls.append((name, part, given, by_name))

        return hook

    handles = [
        part.register_forward_hook(note(name), with_kwargs=True) for name, part in local.module.named_modules() if name
    ]
    try:
        with twice_differentiable(), torch.no_grad():
            local.predictions(local.state, loss.data[:FEW].inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name, part, given, by_name in calls:
        if _own_verdict(local.state, name, part, given, by_name):
            return f"{name!r} ({type(part).__name__})"
    return ""


def _own_verdict(state: State, name: str, part: nn.Module, given: Any, by_name: Any) -> bool:
    """Whether derivatives of a module's output by its inputs and parameters are wrong."""
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    leaves, spec = tree_flatten((given, by_name))
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    moved = [key for key, value in own.items() if key in dict(part.named_parameters()) and value.is_floating_point()]
    rng = generator(0, "blame")

    def drawn(like: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(rng.standard_normal(tuple(like.shape)))).to(like)

    seeds: list[Tensor] = []

    def parts(at: Tensors) -> Iterator[Tensor]:
        there = dict(zip(places, at, strict=False))
        args, kwargs = tree_unflatten([there.get(k, leaf) for k, leaf in enumerate(leaves)], spec)
        with twice_differentiable():
            output = bind(part, {**own, **dict(zip(moved, at[len(places) :], strict=True))})(*args, **kwargs)
        ends = [one for one in tree_flatten(output)[0] if isinstance(one, Tensor) and one.is_floating_point()]
        seeds.extend(drawn(one) for one in ends[len(seeds) :])
        yield torch.stack([(seed * end).sum() for seed, end in zip(seeds, ends, strict=True)]).sum()

    try:
        at = [*(leaves[k] for k in places), *(own[key] for key in moved)]
        found = compared(Scalar(parts, at, [drawn(one) for one in at]))
    except Exception:  # a module that cannot be called again by itself is not looked at
        return False
    return found.gradient.wrong or found.product.wrong


def _detaches(loss: Weighted) -> bool:
    """Whether the model's or the losses' own code cuts a value off from its graph."""
    if any(getattr(part, "padding_idx", None) is not None for part in loss.local.module.modules()):
        return True  # the row of an embedding that stands for padding is a constant to torch
    watch = _Cuts()
    with twice_differentiable(), watch:
        loss.total(loss.local.state, loss.data[:2])
    return watch.seen


_CUTS = (Tensor.detach, Tensor.detach_, Tensor.data.__get__, Tensor.item)  # type: ignore[attr-defined]


class _Cuts(TorchFunctionMode):
    seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.partition(".")[0] not in ("torch", "landscape", "analysis"):
            self.seen = self.seen or func in _CUTS or not torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))


__all__ = ["EXAMPLES", "Verdict", "require_derivatives", "require_gradient"]
