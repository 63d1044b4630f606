"""Ways to evaluate a model at many parameter vectors: choices, as objects that can be put into one another."""

from __future__ import annotations

import ast
import copy
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils._pytree import tree_map

from analysis.memory import keep_freed, ran_out
from landscape.data import Batch, Tree
from landscape.errors import LandscapeError, unknown
from landscape.modules import own_buffers, unflatten
from landscape.problem import Problem

Rows: TypeAlias = Callable[[Batch], Tensor]
"""Losses, then metrics, of every example of a batch at each of K points, [K, T + M, B]."""


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


class Engine(Protocol):
    """How points are evaluated. Its repr is stored with what was measured."""

    @property
    def micro_batch(self) -> int:
        """Examples that go through the model at once."""
        ...

    @property
    def together(self) -> int:
        """Points that are evaluated in one launch."""
        ...

    def build(self, problem: Problem, ways: Ways = ...) -> Runner: ...

    def smaller(self) -> Engine | None:
        """An engine that needs about half the memory; None where nothing is left to halve."""
        ...


@dataclass(frozen=True)
class Sequential:
    """One parameter vector after another, `micro_batch` examples at a time.

    A point costs one copy of theta into a private copy of the module, and plain calls of it.
    """

    micro_batch: int = 128

    together = 1

    def __post_init__(self) -> None:
        _require_micro_batch(self.micro_batch)

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        return _OneByOne(problem, ways)

    def smaller(self) -> Engine | None:
        return Sequential(self.micro_batch // 2) if self.micro_batch > 1 else None


@dataclass(frozen=True)
class Together:
    """`points` parameter vectors in one launch, `micro_batch` examples at a time, by `torch.vmap`.

    Saves launches where they, and not the arithmetic, take the time: small models, and GPUs. Memory of the activations
    of points x micro_batch examples, and of two copies of as many parameter vectors. The same points in the same
    groups give the same bytes.

    Raises:
        LandscapeError: on building, where the model or a loss cannot be vectorised over parameters.
    """

    points: int = 8
    micro_batch: int = 64

    def __post_init__(self) -> None:
        if self.points < 1:
            raise LandscapeError(f"expected 1 or more points together, got {self.points}")
        _require_micro_batch(self.micro_batch)

    @property
    def together(self) -> int:
        return self.points

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        _require_vectorised(problem)
        return _Vectorised(problem, ways)

    def smaller(self) -> Engine | None:
        if self.micro_batch == self.points == 1:
            return None
        if self.micro_batch >= self.points:
            return replace(self, micro_batch=self.micro_batch // 2)
        return replace(self, points=self.points // 2)


@dataclass(frozen=True)
class Compiled:
    """Another engine with what it calls compiled by `torch.compile`, once: groups of points and micro-batches that are
    too small for it are filled up by repetition, and what comes of that is left out.

    Cost: some seconds to a minute when the first micro-batch is evaluated. Operations are fused, so losses change by
    roundings of the number type; `analysis.tuning.error_of` measures by how much.

    Raises:
        LandscapeError: on the first evaluation, where the model or a loss cannot be compiled, or there is no compiler.
    """

    inner: Engine

    @property
    def micro_batch(self) -> int:
        return self.inner.micro_batch

    @property
    def together(self) -> int:
        return self.inner.together

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        return _FilledUp(self.inner.build(problem, replace(ways, wrapped=_compiled)), self.together)

    def smaller(self) -> Engine | None:
        inner = self.inner.smaller()
        return None if inner is None else Compiled(inner)


@dataclass(frozen=True)
class Bfloat16:
    """Another engine with weights, buffers and activations in bfloat16; losses and metrics are computed from the
    predictions in the problem's number type.

    Half the memory, and faster where the processor has instructions for it. bfloat16 has 8 significant bits: a weight
    is off by up to 0.4 %, a loss by about as much, more where it is small; `analysis.tuning.error_of` measures it. A
    plane whose points differ by less than that in every weight looks like stairs.
    """

    inner: Engine

    @property
    def micro_batch(self) -> int:
        return self.inner.micro_batch

    @property
    def together(self) -> int:
        return self.inner.together

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        return self.inner.build(problem, replace(ways, dtype=torch.bfloat16))

    def smaller(self) -> Engine | None:
        inner = self.inner.smaller()
        return None if inner is None else Bfloat16(inner)


def _require_micro_batch(size: int) -> None:
    if size < 1:
        raise LandscapeError(f"expected micro-batches of 1 or more examples, got {size}")


_INNERMOST: dict[str, tuple[Callable[..., Engine], str]] = {
    "sequential": (Sequential, "sequential:64"),
    "together": (Together, "together:8x64"),
}
_AROUND: dict[str, Callable[[Engine], Engine]] = {"compiled": Compiled, "bfloat16": Bfloat16}


def parse(text: str) -> Engine:
    """The engine that a text names: `sequential:64`, `together:8x64` (points x examples), and, in front of either,
    `compiled:` and `bfloat16:`. The repr of an engine, as results state it, is read as well.

    Raises:
        LandscapeError: another word, with the nearest of these; other numbers than the word takes.
    """
    if text.endswith(")"):
        return _stated(text)
    word, _, rest = text.partition(":")
    if word in _AROUND:
        return _AROUND[word](parse(rest))
    if word not in _INNERMOST:
        raise unknown("engine", word, [*_INNERMOST, *_AROUND])
    kind, example = _INNERMOST[word]
    numbers = rest.split("x")
    if len(numbers) != len(example.split("x")) or not all(number.isdecimal() for number in numbers):
        raise LandscapeError(f"expected whole numbers with the engine {word!r}, as in {example}, got {text!r}")
    return kind(*map(int, numbers))


def _stated(text: str) -> Engine:
    kinds: dict[str, Callable[..., Engine]] = {
        kind.__name__: kind for kind in (Sequential, Together, Compiled, Bfloat16)
    }

    def read(node: ast.expr) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name in kinds:
                return kinds[name](**{str(one.arg): read(one.value) for one in given})
            case ast.Constant(value=int(number)):
                return number
        raise ValueError

    try:
        engine: Engine = read(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise LandscapeError(
            f"expected an engine as results state it, for instance {Compiled(Sequential(64))!r}, got {text!r}"
        ) from error
    return engine


class BackingOff:
    """A runner that goes on with smaller micro-batches, or fewer points together, where memory runs out.

    `engine` is the one that is used now; what it could not do at once is done in parts of what it can.

    Raises:
        LandscapeError: memory runs out with one example of one point.
    """

    def __init__(self, engine: Engine, problem: Problem) -> None:
        keep_freed()
        self.engine = engine
        self._problem = problem
        self._runner: Runner | None = engine.build(problem)

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        begun: Rows | None = None
        by: Engine | None = None

        def rows(batch: Batch) -> Tensor:
            nonlocal begun, by
            while True:
                try:
                    if len(thetas) > self.engine.together:
                        return torch.cat([self._of_one_group(*group, batch) for group in self._groups(thetas, buffers)])
                    if by is not self.engine:
                        begun, by = self._built()(thetas, buffers), self.engine
                    assert begun is not None
                    return _piece_by_piece(begun, batch, self.engine.micro_batch)
                except (RuntimeError, MemoryError) as error:
                    if not ran_out(error):
                        raise
                    reason = str(error).partition("\n")[0]
                begun = by = None
                self._shrink(reason)  # here, where the error no longer holds the tensors that it came from

        return rows

    def _groups(self, thetas: Tensor, buffers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.engine.together
        return zip(torch.split(thetas, size), torch.split(buffers, size), strict=True)

    def _of_one_group(self, thetas: Tensor, buffers: Tensor, batch: Batch) -> Tensor:
        return _piece_by_piece(self._built()(thetas, buffers), batch, self.engine.micro_batch)

    def _built(self) -> Runner:
        if self._runner is None:
            self._runner = self.engine.build(self._problem)
        return self._runner

    def _shrink(self, reason: str) -> None:
        smaller = self.engine.smaller()
        if smaller is None:
            raise LandscapeError(
                f"memory runs out with one example of one point at a time ({reason}): expected room for the "
                "activations of one example; free memory, or use a smaller model or another device"
            )
        self.engine, self._runner = smaller, None


def _piece_by_piece(rows: Rows, batch: Batch, micro_batch: int) -> Tensor:
    if len(batch) <= micro_batch:
        return rows(batch)
    return torch.cat([rows(piece) for piece in batch.pieces(micro_batch)], 2)


class _Scored(nn.Module):
    """Losses, then metrics, of every example, [T + M, B], by a private copy of a problem's model."""

    def __init__(self, problem: Problem, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model: nn.Module = copy.deepcopy(problem.model).eval().requires_grad_(False)
        self._problem, self._dtype = problem, dtype
        if dtype is not None:
            self.model.to(dtype)

    def forward(self, inputs: Tree, targets: tuple[Tree, ...]) -> Tensor:
        if self._dtype is None:
            output = self.model(inputs)
        else:
            output = _in(self.model(_in(inputs, self._dtype)), self._problem.dtype)
        return self._problem.per_example(output, Batch(inputs, targets))


def _in(tree: Tree, dtype: torch.dtype) -> Tree:
    """A tree with its floating-point tensors in another number type."""
    return tree_map(lambda leaf: leaf.to(dtype) if torch.is_tensor(leaf) and leaf.is_floating_point() else leaf, tree)


class _OneByOne:
    def __init__(self, problem: Problem, ways: Ways) -> None:
        self._problem = problem
        scored = _Scored(problem, ways.dtype)
        parameters = dict(scored.model.named_parameters())
        self._parameters = [parameters[slot.name].data for slot in problem.layout.slots]
        self._buffers = dict(scored.model.named_buffers())
        self._constants = own_buffers(scored.model)
        self._places = [
            (part, *named) for part in scored.model.modules() for named in part.named_buffers(recurse=False)
        ]
        self._call = ways.wrapped(scored)

    def __call__(self, thetas: Tensor, buffers: Tensor) -> Rows:
        torch._foreach_copy_(self._parameters, list(unflatten(self._problem.layout, thetas[0]).values()))
        kept = _Kept(self._buffers, self._constants | self._problem.buffer_layout.unpack(buffers[0]))

        def rows(batch: Batch) -> Tensor:
            with torch.no_grad():
                for part, name, buffer in self._places:
                    if getattr(part, name) is not buffer:
                        setattr(part, name, buffer)
                kept.put_back()
                return self._call(batch.inputs, batch.targets)[None]

        return rows


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


class _Vectorised:
    def __init__(self, problem: Problem, ways: Ways) -> None:
        self._problem, self._dtype = problem, ways.dtype or problem.dtype
        scored = _Scored(problem, ways.dtype)
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
            with torch.no_grad():
                kept.put_back()
                return self._call(mine, shared, batch.inputs, batch.targets)

        return rows


def _inside(name: str) -> str:
    """A name of the model's as `_Scored` knows it."""
    return f"model.{name}"


def _require_vectorised(problem: Problem) -> None:
    """Raises unless two points of two examples can be evaluated in one launch, with the losses that each has alone."""
    few = problem.evaluation[:2]
    theta, state = problem.read(problem.model)
    thetas, states = torch.stack([theta, 0.5 * theta]), torch.stack([state, state])
    try:
        found = _Vectorised(problem, PLAIN)(thetas, states)(few)
    except RuntimeError as error:
        if ran_out(error):
            raise
        raise LandscapeError(
            f"the model or a loss cannot be vectorised over parameters ({str(error).partition(chr(10))[0]}): expected "
            "one without `.item()`, without branches on values, and that writes into no constant; use one point after "
            "another, sequential:64"
        ) from error
    alone = _OneByOne(problem, PLAIN)
    expected = torch.cat([alone(thetas[k : k + 1], states[k : k + 1])(few) for k in range(2)])
    losses, bound = slice(0, len(problem.tasks)), torch.finfo(problem.dtype).eps ** 0.5
    if not torch.allclose(found[:, losses], expected[:, losses], bound, bound, equal_nan=True):
        raise LandscapeError(
            "the model vectorised over parameters has other losses than by itself: expected a model whose parameters "
            "are all used through the module that registers them; use one point after another, sequential:64"
        )


class _FilledUp:
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


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    def call(*arguments: Any) -> Tensor:
        return function(*arguments)

    # What has been compiled is kept, and its number limited, by code object; so each engine has one of its own.
    code = call.__code__.replace()
    compiled = torch.compile(types.FunctionType(code, call.__globals__, closure=call.__closure__), dynamic=False)

    def called(*arguments: Any) -> Tensor:
        if is_in_torch_dispatch_mode():  # compiling would be given up for good by torch while operations are watched
            return function(*arguments)
        try:
            found: Tensor = compiled(*arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2])
            raise LandscapeError(
                f"torch.compile cannot compile the model and its losses ({reason}): "
                "expected a model that it can, and a C++ compiler; use the engine inside, which does without"
            ) from error
        return found

    return called
