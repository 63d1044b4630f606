"""Ways to evaluate a model at many parameter vectors: choices, as objects that can be put into one another."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from analysis.memory import keep_freed, ran_out
from analysis.runners import (
    PLAIN,
    FilledUp,
    OneByOne,
    Rows,
    Runner,
    Vectorised,
    Ways,
    compiled,
    require_vectorised,
)
from landscape.data import Batch
from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem


class Engine(Protocol):
    """How points are evaluated. Its repr is stored with what was measured."""

    @property
    def micro_batch(self) -> int:
        """Examples that go through the model at once."""
        ...

    @property
    def at_once(self) -> int:
        """Examples that are given to a runner at once: where they are several micro-batches, their losses are computed
        together.
        """
        ...

    @property
    def together(self) -> int:
        """Points that are evaluated in one launch."""
        ...

    def build(self, problem: Problem, ways: Ways = ...) -> Runner: ...

    def smaller(self) -> Engine | None:
        """An engine that needs about half the memory; None where nothing is left to halve."""
        ...


JOINED = 8
"""Micro-batches whose losses are computed together, where predictions are small."""


@dataclass(frozen=True)
class Sequential:
    """One parameter vector after another, `micro_batch` examples at a time.

    A point costs one copy of theta into a private copy of the module, and plain calls of it.
    """

    micro_batch: int = 128

    together = 1

    def __post_init__(self) -> None:
        _require_micro_batch(self.micro_batch)

    @property
    def at_once(self) -> int:
        return JOINED * self.micro_batch

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        return OneByOne(problem, ways)

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
    def at_once(self) -> int:
        return self.micro_batch

    @property
    def together(self) -> int:
        return self.points

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        require_vectorised(problem)
        return Vectorised(problem, ways)

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
    roundings of the number type; `analysis.checks.plain_loop` measures by how much.

    Raises:
        LandscapeError: on the first evaluation, where the model or a loss cannot be compiled, or there is no compiler.
    """

    inner: Engine

    @property
    def micro_batch(self) -> int:
        return self.inner.micro_batch

    @property
    def at_once(self) -> int:
        return self.inner.micro_batch

    @property
    def together(self) -> int:
        return self.inner.together

    def build(self, problem: Problem, ways: Ways = PLAIN) -> Runner:
        return FilledUp(self.inner.build(problem, replace(ways, wrapped=compiled)), self.together)

    def smaller(self) -> Engine | None:
        inner = self.inner.smaller()
        return None if inner is None else Compiled(inner)


@dataclass(frozen=True)
class Bfloat16:
    """Another engine with weights, buffers and activations in bfloat16; losses and metrics are computed from the
    predictions in the problem's number type.

    Half the memory, and faster where the processor has instructions for it. bfloat16 has 8 significant bits: a weight
    is off by up to 0.4 %, a loss by about as much, more where it is small; `analysis.checks.plain_loop` measures it. A
    plane whose points differ by less than that in every weight looks like stairs.
    """

    inner: Engine

    @property
    def micro_batch(self) -> int:
        return self.inner.micro_batch

    @property
    def at_once(self) -> int:
        return self.inner.at_once

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


def parse(text: str, also: Sequence[str] = ()) -> Engine:
    """The engine that a text names: `sequential:64`, `together:8x64` (points x examples), and, in front of either,
    `compiled:` and `bfloat16:`. The repr of an engine, as results state it, is read as well. `also` has further words
    that whoever asks understands.

    Raises:
        LandscapeError: another word, with the nearest of these; other numbers than the word takes.
    """
    if text.endswith(")"):
        return _stated(text)
    word, _, rest = text.partition(":")
    if word in _AROUND:
        return _AROUND[word](parse(rest))
    if word not in _INNERMOST:
        raise unknown("engine", word, [*also, *_INNERMOST, *_AROUND])
    kind, example = _INNERMOST[word]
    numbers = rest.split("x")
    if len(numbers) != len(example.split("x")) or not all(number.isdecimal() for number in numbers):
        raise LandscapeError(f"expected whole numbers with the engine {word!r}, as in {example}, got {text!r}")
    return kind(*map(int, numbers))


def plain(problem: Problem, stated: str) -> Sequential:
    """One point after another in the problem's own numbers, by the problem's micro-batches, or by those of the engine
    that a result states where they are smaller, since it is known what they need.
    """
    return Sequential(min(problem.micro_batch, parse(stated).micro_batch))


def _stated(text: str) -> Engine:
    kinds: dict[str, Callable[..., Engine]] = {
        kind.__name__: kind for kind in (Sequential, Together, Compiled, Bfloat16)
    }

    def read(node: ast.expr) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name in kinds:
                values = {str(one.arg): read(one.value) for one in given}
                if isinstance(values.get("inner"), int):
                    raise ValueError
                return kinds[name](**values)
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
                    return piece_by_piece(begun, batch, self.engine)
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
        return piece_by_piece(self._built()(thetas, buffers), batch, self.engine)

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


def piece_by_piece(rows: Rows, batch: Batch, engine: Engine) -> Tensor:
    """What a runner's function gives for a batch of any size, as its engine takes it."""
    if len(batch) <= engine.micro_batch:
        return rows(batch)
    if engine.at_once > engine.micro_batch:
        rows = partial(rows, micro_batch=engine.micro_batch)
    if len(batch) <= engine.at_once:
        return rows(batch)
    return torch.cat([rows(piece) for piece in batch.pieces(engine.at_once)], 2)
