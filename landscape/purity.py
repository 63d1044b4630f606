"""A model as a function of its parameters: what speaks against it, looked at once when a problem is made."""

from __future__ import annotations

import contextlib
import copy
import itertools
import operator
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from landscape.binding import draws_of, forget, plain_kernels, uncompiled
from landscape.data import Batch, fresh
from landscape.errors import LandscapeError, LandscapeWarning, failures_of
from landscape.modules import buffers_of, joined, parameters_of, parts, unwrapped
from landscape.randomness import seeded

if TYPE_CHECKING:
    from landscape.problem import Problem


def require_separate(module: nn.Module) -> None:
    """Raises for two tensors of a module that share memory and are not one, of which one trains: they are not tied for
    anything that goes by names.
    """
    tensors = {**parameters_of(module), **buffers_of(module)}
    for place, part in parts(module):
        tensors |= {joined(place, name): value for name, value in part.__dict__.items() if isinstance(value, Tensor)}
    spans = sorted((*_memory(tensor), name) for name, tensor in tensors.items() if _has_memory(tensor))
    for (_, end, one), (begin, _, other) in itertools.pairwise(spans):
        if begin < end and (tensors[one].requires_grad or tensors[other].requires_grad):
            raise LandscapeError(
                f"{one!r} and {other!r} share their memory and are two tensors: expected one parameter under both "
                "names (second.weight = first.weight), or memory of their own; tie them so, or clone one of them"
            )


def _has_memory(tensor: Tensor) -> bool:
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() > 0 and tensor.is_contiguous()


def _memory(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size()


@contextlib.contextmanager
def untouched(module: nn.Module, when: str) -> Iterator[None]:
    """Raises if what is done inside writes into the module's parameters, which get their values back.

    Cost: a copy of the parameters meanwhile.
    """
    own = parameters_of(module)
    before = {name: parameter.detach().clone() for name, parameter in own.items()}
    try:
        yield
    finally:
        changed = [name for name, parameter in own.items() if not torch.equal(_bits(parameter), _bits(before[name]))]
        with torch.no_grad():
            for name in changed:
                own[name].copy_(before[name])
    if changed:
        raise _writes(changed[0], when)


def _writes(name: str, when: str) -> LandscapeError:
    return LandscapeError(
        f"a call of the model {when} writes into its parameter {name!r}: expected a function of its parameters that "
        "leaves them alone; take that (merged adapters, max_norm, clipping, moving averages) out of the forward pass, "
        "or make what it writes a buffer"
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().nan_to_num(0.125, 0.25, 0.5) if tensor.is_floating_point() else tensor.detach()


def require_no_hooks(module: nn.Module) -> None:
    """Raises for a parameter with a hook of its own: it changes the gradient of that very tensor, and of no other."""
    for name, parameter in parameters_of(module).items():
        if parameter._backward_hooks:
            raise LandscapeError(
                f"the parameter {name!r} has a hook on its gradient: expected gradients of the losses alone; freeze "
                "parts with requires_grad=False, and mask in the forward pass"
            )


def require_no_reentrant_checkpoint(losses: Sequence[Tensor]) -> None:
    """Raises for a model whose gradients torch.autograd.grad does not give."""
    if any(node.name() == "CheckpointFunctionBackward" for node in _nodes(losses)):
        raise LandscapeError(
            "the model uses reentrant activation checkpointing, which has no gradients by torch.autograd.grad: "
            "expected torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )


def _nodes(losses: Sequence[Tensor]) -> set[Any]:
    """All nodes of the graph of some losses."""
    pending, found = [loss.grad_fn for loss in losses], set[Any]()
    while pending:
        node = pending.pop()
        if node is not None and node not in found:
            found.add(node)
            pending += [before for before, _ in node.next_functions]
    return found


def _warn_of_others(others: Sequence[Tensor]) -> None:
    """Warns where losses depend on something that trains and is no parameter of the model."""
    if others:
        shapes = ", ".join(str(list(other.shape)) for other in others)
        warnings.warn(
            f"the losses depend on trainable tensors that are no parameters of the model, of shape {shapes}: they are "
            "no part of theta, no strategy trains them, and losses at a stored theta are those of their values now; "
            "make them parameters of the model, or constants",
            LandscapeWarning,
            stacklevel=4,
        )


def _others(losses: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """What losses at constant parameters can be differentiated by, the examples left out."""
    given = {leaf.data_ptr() for leaf in tree_leaves((batch.inputs, batch.targets)) if isinstance(leaf, Tensor)}
    found = [node.variable for node in _nodes(losses) if hasattr(node, "variable")]
    return [variable for variable in found if variable.data_ptr() not in given]


def warn_of_draws(module: nn.Module) -> None:
    """Warns of a module that draws random numbers from generators of its own."""
    drawing = draws_of(module)
    if drawing:
        warnings.warn(
            f"the model keeps generators of random numbers ({', '.join(map(repr, drawing))}): every run and evaluation "
            "begins with their state now, and a run that is resumed draws other numbers than one that was never "
            "interrupted; draw from torch's own generator, which is seeded at every step",
            LandscapeWarning,
            stacklevel=3,
        )


def calling() -> contextlib.AbstractContextManager[None]:
    expected = "expected a model that takes the inputs of the examples in evaluation mode, under torch.no_grad"
    return failures_of("a call of the model", expected)


_Losses: TypeAlias = Callable[[Mapping[str, Tensor], Batch, bool], Sequence[Tensor]]
"""(tensors of theta by name, examples, whether in training mode) -> the losses of every task."""


def require_same_as_plain(
    module: nn.Module,
    theta: Mapping[str, Tensor],
    batch: Batch,
    losses: _Losses,
    of_output: Callable[[Any, Batch], Sequence[Tensor]],
) -> Tensor:
    """The losses [T, B] at other parameters. Raises unless these and their gradients are those of the module itself
    that holds the parameters, forward and backward, in evaluation and in training mode. A module that cannot be called
    in training mode here, as one with statistics of a single example, or that draws from generators of its own, is
    compared in evaluation mode alone.

    Cost: four gradients of the batch.
    """
    found, others = _compare_with_plain(module, theta, batch, losses, of_output, training=False)
    with contextlib.suppress(_Unlike):
        _, again = _compare_with_plain(module, theta, batch, losses, of_output, training=True)
        _warn_of_others([other for other in others if any(other is one for one in again)])
    return found


class _Unlike(Exception):
    """A plain call that cannot be made, or that is not like itself when it is made again."""


def _compare_with_plain(
    module: nn.Module,
    theta: Mapping[str, Tensor],
    batch: Batch,
    losses: _Losses,
    of_output: Callable[[Any, Batch], Sequence[Tensor]],
    training: bool,
) -> tuple[Tensor, list[Tensor]]:
    """In one mode: the losses, and what else than theta and the examples they can be differentiated by."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in theta.items()}
    when = "in training mode" if training else "in evaluation mode"
    failing = _unlike if training else contextlib.nullcontext

    def plainly() -> list[Tensor]:
        with _holding(unwrapped(module), theta, training) as plain, plain_kernels(plain), uncompiled(), _drawing():
            own = parameters_of(plain)
            return _with_gradient(of_output(plain(fresh(batch.inputs)), batch), [own[name] for name in theta])

    with torch.enable_grad():
        with untouched(module, when), failing(), _drawing():
            mine = losses(leaves, batch, training)
        require_no_reentrant_checkpoint(mine)
        others = _others(mine, batch)
        with failing():
            found, expected = _with_gradient(mine, list(leaves.values())), plainly()
            unlike = training and not all(map(_alike, found, expected)) and not all(map(_alike, plainly(), expected))
    if unlike:
        raise _Unlike
    for name, here, its in zip(("the losses", *theta), found, expected, strict=True):
        if not _alike(here, its):
            what = "the losses differ" if name == "the losses" else f"the gradient of {name!r} differs"
            raise LandscapeError(
                f"the model is no function of its parameters {when}: at other parameters, {what} from those of the "
                "module itself with these parameters loaded; expected it to reach its parameters through the modules "
                "that hold them, in the forward and in the backward pass; keep no copies of them elsewhere"
            )
    return found[0], [other for other in others if not any(other is leaf for leaf in leaves.values())]


@contextmanager
def _unlike() -> Iterator[None]:
    try:
        yield
    except LandscapeError:
        raise
    except Exception as error:
        raise _Unlike from error


def _drawing() -> contextlib.AbstractContextManager[None]:
    return seeded(0, "plain call")


def _alike(one: Tensor, other: Tensor) -> bool:
    scale = float(other.double().abs().nan_to_num(0.0, 0.0, 0.0).max()) if other.numel() else 0.0
    bound = max(scale, 1e-30) * torch.finfo(other.dtype).eps ** 0.5
    return torch.allclose(one, other, 0.0, bound, equal_nan=True)


def _with_gradient(losses: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The losses of every example, and the gradient of their sum."""
    found: Sequence[Tensor | None] = torch.autograd.grad(torch.cat(list(losses)).sum(), leaves, allow_unused=True)
    filled = [torch.zeros_like(leaf) if g is None else g.to_dense() for leaf, g in zip(leaves, found, strict=True)]
    return [torch.stack(list(losses)).detach(), *(gradient.detach() for gradient in filled)]


@contextmanager
def _holding(module: nn.Module, theta: Mapping[str, Tensor], training: bool) -> Iterator[nn.Module]:
    """The module itself, in one of its modes, with other values in its parameters; then all is as it was."""
    own = parameters_of(module)
    before = {name: own[name].data for name in theta}
    with kept_as_it_is(module):
        try:
            for name, tensor in theta.items():
                own[name].data = tensor.detach().clone()
            module.train(training)
            forget(module, [part for _, part in parts(module)])
            yield module
        finally:
            for name, tensor in before.items():
                own[name].data = tensor


@contextmanager
def kept_as_it_is(module: nn.Module) -> Iterator[None]:
    """Gives a module its attributes back, and its buffers their values."""
    attributes = Attributes(module)
    buffers = [(buffer, buffer.detach().clone()) for buffer in buffers_of(module).values()]
    try:
        yield
    finally:
        for buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.detach().copy_(value)
        attributes.put_back()


class Attributes:
    """What the parts of a module have as attributes, the entries of their lists and the states of their generators, as
    it is now.
    """

    def __init__(self, module: nn.Module) -> None:
        every = [part for _, part in parts(module)]
        self._own = [(part, dict(part.__dict__)) for part in every]
        self._buffers = [(part._buffers, dict(part._buffers)) for part in every]
        self._contents = [(kept, copy.copy(kept)) for part in every for kept in _values_of(part, _CONTAINERS)]
        self._states = [(one, one.get_state()) for part in every for one in _values_of(part, torch.Generator)]

    def put_back(self) -> None:
        """Whatever became of it since."""
        for generator, state in self._states:
            generator.set_state(state)
        for kept, then in (*self._buffers, *self._contents):
            if not (len(kept) == len(then) and all(map(operator.is_, _entries(kept), _entries(then)))):
                kept.clear()
                kept.extend(then) if isinstance(kept, list | deque) else kept.update(then)
        for part, own in self._own:
            part.__dict__.clear()
            part.__dict__.update(own)


_CONTAINERS = (list, dict, set, deque)


def _values_of(part: nn.Module, kinds: Any) -> list[Any]:
    own = part.__dict__.items()
    return [value for name, value in own if isinstance(value, kinds) and not name.startswith("_")]


def _entries(kept: Any) -> Any:
    return kept.values() if isinstance(kept, dict) else kept


class Reference:
    """The losses of a few examples at the theta and the buffers where a run began: they tell whether a module is still
    the problem's function of these, so that losses that are recorded are those of the theta that is stored.

    Cost: a forward pass of the examples each time; a copy of theta.
    """

    def __init__(self, problem: Problem, theta: Tensor, buffers: Tensor) -> None:
        self._problem, self._theta, self._buffers = problem, theta.clone(), buffers.clone()
        self._losses = self._now(problem.model)

    def require(self, module: nn.Module, when: Callable[[], str]) -> None:
        """Raises where the module, whatever its parameters and buffers are now, is another function of them.

        Raises:
            LandscapeError: something else than parameters and persistent buffers has changed.
        """
        if not torch.allclose(self._now(module), self._losses, 0.0, self._bound, equal_nan=True):
            raise LandscapeError(
                f"the model is another function of its parameters than the problem's {when()}: at those of the start "
                "its losses are others, so that what is recorded would not belong to the theta that is stored; "
                "expected all that changes or is drawn to be a parameter or a persistent buffer, not an attribute, a "
                "hook, a layer without parameters or register_buffer(..., persistent=False)"
            )

    @property
    def _bound(self) -> float:
        scale = float(self._losses.abs().nan_to_num(0.0, 0.0, 0.0).max())
        return max(scale, 1e-30) * float(torch.finfo(self._losses.dtype).eps ** 0.75)

    def _now(self, module: nn.Module) -> Tensor:
        with torch.no_grad():
            return self._problem.losses_by(module, self._theta, self._problem.few, self._buffers)
