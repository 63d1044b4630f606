"""Evaluating a problem at given parameter vectors: what the choices of `analysis.engines` build."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_map

from analysis.memory import ran_out
from landscape.binding import copied, plain_kernels
from landscape.data import Batch, Tree
from landscape.errors import LandscapeError
from landscape.modules import buffers_of, own_buffers, parameters_of, unflatten
from landscape.problem import Problem, arrange
from landscape.purity import Attributes

Rows: TypeAlias = Callable[..., Tensor]
"""Losses, then metrics, of every example of a batch at each of K points, [K, T + M, B]. `OneByOne`'s also take how many
examples go through the model at once, where that is fewer than there are.
"""

SMALL = 4096
"""Bytes of an example's predictions, at most, that are kept until the losses of several micro-batches are computed."""


class Runner(Protocol):
    """Evaluates one problem. Nothing of the user's module is touched: what is called is a copy."""

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        """The function of a batch at points thetas [K, P] with buffers [K, Q], K at most the engine's `together`, in
        evaluation mode and without gradients. It holds until the next call.
        """
        ...


def _as_it_is(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return function


@dataclass(frozen=True, eq=False)
class Ways:
    """What the engines around another one ask of it: the number type of weights and activations (the problem's where
    none is given), and what becomes of the function that is called for every micro-batch.
    """

    dtype: torch.dtype | None = None
    wrapped: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = _as_it_is


PLAIN = Ways()
"""The problem's number type, and the function itself."""


class _Scored(nn.Module):
    """Losses, then metrics, of every example, [T + M, B], by a private copy of a problem's model."""

    def __init__(self, problem: Problem, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model: nn.Module = copied(problem.model).eval().requires_grad_(False)
        self._problem, self._dtype = problem, dtype
        if dtype is not None:
            self.model.to(dtype)

    def forward(self, inputs: Tree, targets: tuple[Tree, ...]) -> Tensor:
        return self._problem.per_example(self.output(inputs), Batch(inputs, targets))

    def output(self, inputs: Tree) -> Any:
        """What the model makes of the inputs, in the problem's number type."""
        if self._dtype is None:
            return self.model(inputs)
        return _in(self.model(_in(inputs, self._dtype)), self._problem.dtype)


def _in(tree: Tree, dtype: torch.dtype) -> Tree:
    """A tree with its floating-point tensors in another number type."""
    return tree_map(lambda leaf: leaf.to(dtype) if torch.is_tensor(leaf) and leaf.is_floating_point() else leaf, tree)


class OneByOne:
    def __init__(self, problem: Problem, ways: Ways) -> None:
        self._problem = problem
        scored = _Scored(problem, ways.dtype)
        parameters = parameters_of(scored.model)
        self._parameters = [parameters[slot.name].data for slot in problem.layout.slots]
        self._buffers = buffers_of(scored.model)
        self._constants = own_buffers(scored.model)
        self._places = [
            (part, *named) for part in scored.model.modules() for named in part.named_buffers(recurse=False)
        ]
        self._attributes = Attributes(scored)
        self._scored, self._call = scored, ways.wrapped(scored)
        self._joins: bool | None = None

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        self._attributes.put_back()  # nothing that the model made of other parameters is left
        torch._foreach_copy_(self._parameters, list(unflatten(self._problem.layout, thetas[0]).values()))
        kept = _Kept(self._buffers, self._constants | self._problem.buffer_layout.unpack(buffers[0]))

        def rows(batch: Batch, micro_batch: int = 0) -> Tensor:
            with torch.no_grad(), plain_kernels(self._scored):
                if 0 < micro_batch < len(batch):
                    return self._together(list(batch.pieces(micro_batch)), batch, kept)[None]
                self._put_back(kept)
                return self._call(batch.inputs, batch.targets)[None]

        return rows

    def _put_back(self, kept: _Kept) -> None:
        for part, name, buffer in self._places:
            if getattr(part, name) is not buffer:
                setattr(part, name, buffer)
        kept.put_back()

    def _together(self, pieces: Sequence[Batch], batch: Batch, kept: _Kept) -> Tensor:
        """The model micro-batch by micro-batch, the losses of all together: small operations that cost their launch."""
        score, first = self._problem.per_example, pieces[:2]
        if self._joins is False:
            return torch.cat([score(self._predictions(piece, kept), piece) for piece in pieces], 1)
        found = [self._predictions(piece, kept) for piece in first]
        if self._joins is None:
            apart = torch.cat([score(predictions, piece) for predictions, piece in zip(found, first, strict=True)], 1)
            self._joins = self._can_join(first, found, batch[: apart.shape[1]], apart)
            if not self._joins:
                rest = (score(self._predictions(piece, kept), piece) for piece in pieces[2:])
                return torch.cat([apart, *rest], 1)
        return score(_joined([*found, *(self._predictions(piece, kept) for piece in pieces[2:])]), batch)

    def _can_join(self, pieces: Sequence[Batch], predictions: Sequence[list[Any]], batch: Batch, apart: Tensor) -> bool:
        """Whether each task's prediction is one small tensor with a row for every example, so that losses of joined
        predictions are the losses of each.
        """
        for piece, mine in zip(pieces, predictions, strict=True):
            if not all(torch.is_tensor(one) and one.shape[:1] == (len(piece),) for one in mine):
                return False
        if sum(one.nbytes for one in predictions[0]) > SMALL * len(pieces[0]):
            return False
        try:
            found = self._problem.per_example(_joined(predictions), batch)
        except Exception as error:  # of the user's losses: one that has its own idea of how many rows there are
            if ran_out(error):
                raise
            return False
        bound = torch.finfo(self._problem.dtype).eps ** 0.5
        return torch.allclose(found, apart, bound, bound, equal_nan=True)

    def _predictions(self, piece: Batch, kept: _Kept) -> list[Any]:
        self._put_back(kept)
        predictions: list[Any] = arrange(self._scored.output(piece.inputs), self._problem.names)
        return predictions


def _joined(predictions: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(parts) for parts in zip(*predictions, strict=True)]


class _Kept:
    """Tensors that have some values before each call, whatever a call makes of them."""

    def __init__(self, own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        self._pairs = [(own[name], value, -1) for name, value in values.items()]

    def put_back(self) -> None:
        """Copies the values of those that were written into since the last time."""
        for index, (own, value, version) in enumerate(self._pairs):
            if own._version != version:
                own.copy_(value)
                self._pairs[index] = own, value, own._version


class Vectorised:
    def __init__(self, problem: Problem, ways: Ways) -> None:
        self._problem, self._dtype = problem, ways.dtype or problem.dtype
        self._scored = scored = _Scored(problem, ways.dtype)
        self._constants = own_buffers(scored)
        stored = {_inside(slot.name) for slot in problem.buffer_layout.slots}
        self._shared = [name for name in self._constants if name not in stored]

        def one(mine: Mapping[str, Tensor], shared: Mapping[str, Tensor], inputs: Tree, targets: Tree) -> Tensor:
            found: Tensor = functional_call(scored, {**mine, **shared}, (inputs, targets))
            return found

        self._call = ways.wrapped(vmap(one, in_dims=(0, None, None, None)))

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        points, layout = len(thetas), self._problem.layout
        weights = {
            _inside(slot.name): thetas[:, slot.span].reshape(points, *slot.shape).to(self._dtype).contiguous()
            for slot in layout.slots
        }
        states = [self._problem.buffer_layout.unpack(vector) for vector in buffers]
        values = self._constants | {
            _inside(name): torch.stack([state[name].to(self._constants[_inside(name)].dtype) for state in states])
            for name in states[0]
        }
        own = {name: torch.empty_like(value) for name, value in values.items()}
        kept = _Kept(own, values)
        mine = weights | {name: buffer for name, buffer in own.items() if name not in self._shared}
        shared = {name: own[name] for name in self._shared}

        def rows(batch: Batch) -> Tensor:
            with torch.no_grad(), plain_kernels(self._scored):
                kept.put_back()
                return self._call(mine, shared, batch.inputs, batch.targets)

        return rows


def _inside(name: str) -> str:
    """A name of the model's as `_Scored` knows it."""
    return f"model.{name}"


def require_vectorised(problem: Problem) -> None:
    """Raises unless two points of two examples can be evaluated in one launch, with the losses that each has alone."""
    few = problem.evaluation[:2]
    theta, state = problem.read(problem.model)
    thetas, states = torch.stack([theta, 0.5 * theta]), torch.stack([state, state])
    try:
        found = Vectorised(problem, PLAIN)(thetas, states)(few)
    except RuntimeError as error:
        if ran_out(error):
            raise
        raise LandscapeError(
            f"the model or a loss cannot be vectorised over parameters ({str(error).partition(chr(10))[0]}): expected "
            "one without `.item()`, without branches on values, and that writes into no constant; use one point after "
            "another, sequential:64"
        ) from error
    alone = OneByOne(problem, PLAIN)
    expected = torch.cat([alone(thetas[k : k + 1], states[k : k + 1])(few) for k in range(2)])
    losses, bound = slice(0, len(problem.tasks)), torch.finfo(problem.dtype).eps ** 0.5
    if not torch.allclose(found[:, losses], expected[:, losses], bound, bound, equal_nan=True):
        raise LandscapeError(
            "the model vectorised over parameters has other losses than by itself: expected a model whose parameters "
            "are all used through the module that registers them; use one point after another, sequential:64"
        )


class FilledUp:
    """A runner that is always called with as many points, and, from the first micro-batch on, with as many examples."""

    def __init__(self, inner: Runner, together: int) -> None:
        self._inner, self._together, self._size = inner, together, 0

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        points = len(thetas)
        inner = self._inner(_filled_up(thetas, self._together), _filled_up(buffers, self._together))

        def rows(batch: Batch) -> Tensor:
            count = len(batch)
            self._size = max(self._size, count)
            return inner(batch if count == self._size else batch[_repeated(count, self._size)])[:points, :, :count]

        return rows


def _filled_up(vectors: Tensor, size: int) -> Tensor:
    return vectors if len(vectors) == size else vectors[_repeated(len(vectors), size)]


def _repeated(count: int, size: int) -> list[int]:
    """Positions 0, 1, ..., count - 1, and the last one again until there are so many."""
    return [min(position, count - 1) for position in range(size)]


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    def call(*arguments: Any) -> Tensor:
        return function(*arguments)

    # What has been compiled is kept, and its number limited, by code object; so each engine has one of its own.
    code = call.__code__.replace()
    made = torch.compile(types.FunctionType(code, call.__globals__, closure=call.__closure__), dynamic=False)

    def called(*arguments: Any) -> Tensor:
        if is_in_torch_dispatch_mode():  # compiling would be given up for good by torch while operations are watched
            return function(*arguments)
        try:
            found: Tensor = made(*arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2])
            raise LandscapeError(
                f"torch.compile cannot compile the model and its losses ({reason}): "
                "expected a model that it can, and a C++ compiler; use the engine inside, which does without"
            ) from error
        return found

    return called
