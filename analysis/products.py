"""Ways to compute the product of a curvature matrix with vectors: choices, as objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from analysis import memory
from analysis.kinds import Hessian, Kind, Pull, Tensors, gradient
from analysis.local import Weighted, twice_differentiable
from analysis.recorded import Recording, kept_bytes, record, shapes
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator

ROUNDINGS = 1e4
"""By how many roundings of the number type a way's product may differ from the reference's, relative to its length."""

OfPiece: TypeAlias = Callable[[int, Sequence[Tensors]], list[Tensors]]
"""Products with some vectors, summed over the examples of the micro-batch with this number."""


@dataclass(frozen=True, eq=False)
class Block:
    """What is multiplied: a kind of curvature of a weighted loss, rows by columns."""

    kind: Kind
    loss: Weighted

    def pieces(self, size: int) -> list[Batch]:
        return list(self.loss.data.pieces(size))

    def on(self, data: Batch) -> Block:
        """The same of other examples."""
        return replace(self, loss=replace(self.loss, data=data))

    @property
    def problem(self) -> Problem:
        return self.loss.local.problem

    def drawn(self, seed: int = 0) -> Tensors:
        """A random vector of the columns, about as long as their number's root."""
        vector = torch.from_numpy(generator(seed, "product").standard_normal(self.loss.columns.size))
        return self.loss.columns.split(vector.to(self.problem.device, self.problem.dtype))


@dataclass(frozen=True, eq=False)
class Running:
    """A way at work at one theta."""

    way: Way
    block: Block
    pieces: list[Batch]
    piece: OfPiece
    held: int = 0
    """Bytes kept from one product to the next."""

    def products(self, given: Tensor) -> Tensor:
        """Sums over all examples of the products with the columns of [n, k], [m, k] in float64."""
        rows, columns = self.block.loss.rows, self.block.loss.columns
        vectors = [columns.split(column) for column in given.T.contiguous()]
        device = self.block.problem.device
        totals = [[torch.zeros(s, dtype=torch.float64, device=device) for s in rows.shapes] for _ in vectors]
        with twice_differentiable():
            for number in range(len(self.pieces)):
                for total, part in zip(totals, self.piece(number, vectors), strict=True):
                    torch._foreach_add_(total, part)
        return torch.stack([torch.cat([part.reshape(-1) for part in total]) for total in totals], 1)

    def of_piece(self, number: int, vector: Tensors) -> Tensor:
        """The product summed over one micro-batch, [m]."""
        with twice_differentiable():
            return torch.cat([part.reshape(-1) for part in self.piece(number, [vector])[0]])


class Way(Protocol):
    """A way to compute products. Its repr is what results state."""

    @property
    def micro_batch(self) -> int | None:
        """Examples that go through the model at once; None: as many as the problem says."""
        ...

    def begin(self, block: Block) -> Running: ...


@dataclass(frozen=True)
class ReverseOverReverse:
    """H v = d(g' v) / d theta: reverse mode through the graph of the gradient. It always works: the reference.

    Cost: 3 gradients; of a block of k vectors 1 + 2 k. Memory of one micro-batch's graph.
    """

    micro_batch: int | None = None

    def begin(self, block: Block) -> Running:
        pieces, state = _pieces(self, block), block.loss.local.state

        def piece(number: int, vectors: Sequence[Tensors]) -> list[Tensors]:
            product = block.kind.reverse(block.loss, state, pieces[number])
            return [product(vector, k + 1 < len(vectors)) for k, vector in enumerate(vectors)]

        return Running(self, block, pieces, piece)


@dataclass(frozen=True)
class ForwardOverReverse:
    """H v = d g(theta + t v) / dt: forward mode through the computation of the gradient (Pearlmutter 1994,
    doi.org/10.1162/neco.1994.6.1.147).

    Cost: 3 gradients by arithmetic, some more by the transforms' own work. Memory of a micro-batch's graph, twice.
    """

    micro_batch: int | None = None

    def begin(self, block: Block) -> Running:
        pieces, state = _pieces(self, block), block.loss.local.state

        def piece(number: int, vectors: Sequence[Tensors]) -> list[Tensors]:
            return [block.kind.forward(block.loss, state, pieces[number], vector) for vector in vectors]

        return Running(self, block, pieces, piece)


@dataclass(frozen=True)
class KeptGraph:
    """Reverse mode through graphs of the gradient that are made once for a theta and kept, one for each micro-batch.

    Cost: 2 gradients a product, and one gradient at the start. Memory of the graphs of all examples.
    """

    micro_batch: int | None = None

    def begin(self, block: Block) -> Running:
        pieces, state = _pieces(self, block), block.loss.local.state
        pulls: list[Pull] = []
        with twice_differentiable():
            first = memory.held(
                lambda: pulls.append(block.kind.reverse(block.loss, state, pieces[0])), block.problem.device
            )
            pulls += [block.kind.reverse(block.loss, state, batch) for batch in pieces[1:]]

        def piece(number: int, vectors: Sequence[Tensors]) -> list[Tensors]:
            return [pulls[number](vector, True) for vector in vectors]

        return Running(self, block, pieces, piece, first * len(pieces))


@dataclass(frozen=True)
class Recorded:
    """Another way's operations written down once for a problem and a size of micro-batch, then run as they are.

    Cost: that of the way inside, less what autograd takes to find out what to do; recording takes about a tenth of a
    second, once.
    """

    inner: ReverseOverReverse | ForwardOverReverse = field(default_factory=ForwardOverReverse)

    @property
    def micro_batch(self) -> int | None:
        return self.inner.micro_batch

    def begin(self, block: Block) -> Running:
        return _running(self, self.inner, block, keep=False, compiled=False)


@dataclass(frozen=True)
class Linearised:
    """A kept linearisation of the gradient: the recorded operations that depend on the vector are run for each vector,
    all others once for a theta.

    Cost: 2 gradients a product by arithmetic, and one at the start; recording takes about a tenth of a second, once for
    a problem and a size of micro-batch. Memory of what is kept of all examples.
    """

    inner: ReverseOverReverse | ForwardOverReverse = field(default_factory=ForwardOverReverse)

    @property
    def micro_batch(self) -> int | None:
        return self.inner.micro_batch

    def begin(self, block: Block) -> Running:
        return _running(self, self.inner, block, keep=True, compiled=False)


@dataclass(frozen=True)
class CompiledProduct:
    """A recorded or linearised way with its operations compiled by `torch.compile`.

    Cost: that of the way inside, with fewer launches and less memory traffic; compiling takes up to a minute, once.
    """

    inner: Recorded | Linearised = field(default_factory=Linearised)

    @property
    def micro_batch(self) -> int | None:
        return self.inner.micro_batch

    def begin(self, block: Block) -> Running:
        return _running(self, self.inner.inner, block, keep=isinstance(self.inner, Linearised), compiled=True)


@dataclass(frozen=True)
class CentralDifferences:
    """(g(theta + h u) - g(theta - h u)) ||v|| / 2 h with u = v / ||v|| and h = `step` max(1, ||theta||), ||theta|| of
    the columns; `step` is eps^(1/3) of the number type where none is given.

    Needs no second derivatives. Its error is c h^2 and a rounding in proportion to eps / h: see `halving`. Of Hessians
    only, and it is not held to the reference. Cost: 2 gradients.
    """

    step: float | None = None
    micro_batch: int | None = None

    def begin(self, block: Block) -> Running:
        if not isinstance(block.kind, Hessian):
            raise LandscapeError(
                f"expected a Hessian for central differences of the gradient, got a {block.kind.label}: choose another "
                "way, such as ReverseOverReverse()"
            )
        if self.step is not None and not self.step > 0:
            raise LandscapeError(f"expected a step above 0 for central differences, got {self.step}")
        pieces, state, names = _pieces(self, block), block.loss.local.state, block.loss.columns.names
        step = self.step or torch.finfo(block.problem.dtype).eps ** (1 / 3)
        step *= max(1.0, float(_norm([state[name] for name in names])))

        def piece(number: int, vectors: Sequence[Tensors]) -> list[Tensors]:
            return [product(vector, pieces[number]) for vector in vectors]

        def product(vector: Tensors, batch: Batch) -> Tensors:
            length = _norm(vector)
            scale = torch.where(length > 0, length, torch.ones_like(length))
            ends = []
            for side in (step, -step):
                moved = {n: state[n] + (side / scale).to(v.dtype) * v for n, v in zip(names, vector, strict=True)}
                ends.append(gradient(block.loss, {**state, **moved}, batch))
            return [(a.double() - b.double()) * (scale / (2 * step)) for a, b in zip(*ends, strict=True)]

        return Running(self, block, pieces, piece)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt()


def _pieces(way: Way, block: Block) -> list[Batch]:
    size = way.micro_batch or block.problem.micro_batch
    if size < 1:
        raise LandscapeError(f"expected micro-batches of 1 or more examples, got {size}")
    return block.pieces(size)


_RECORDINGS: WeakKeyDictionary[Problem, dict[Any, Recording]] = WeakKeyDictionary()


def _running(
    way: Way, inner: ReverseOverReverse | ForwardOverReverse, block: Block, keep: bool, compiled: bool
) -> Running:
    pieces, state = _pieces(way, block), list(block.loss.local.state.values())
    with twice_differentiable():
        recordings = [_recording(inner, block, batch, compiled and batch is pieces[0]) for batch in pieces]
        given = [[*state, *_leaves(batch)] for batch in pieces]
        kept = [one.begun(each) for one, each in zip(recordings, given, strict=True)] if keep else None

    def piece(number: int, vectors: Sequence[Tensors]) -> list[Tensors]:
        one = recordings[number]
        begun = kept[number] if kept is not None else one.begun(given[number])
        return [one.product(vector, begun) for vector in vectors]

    held = 0 if kept is None else sum(kept_bytes(k, g) for k, g in zip(kept, given, strict=True))
    return Running(way, block, pieces, piece, held)


def _recording(inner: ReverseOverReverse | ForwardOverReverse, block: Block, batch: Batch, compiled: bool) -> Recording:
    """Recorded once for a problem: state and examples are arguments, so it holds at every theta."""
    loss, state = block.loss, block.loss.local.state
    known = _RECORDINGS.setdefault(block.problem, {})
    names = (loss.rows.names, loss.columns.names)
    about = (type(inner), block.kind, loss.weights, names, shapes(state), shapes((batch.inputs, batch.targets)))
    key = (*about, compiled)
    if key not in known:
        plain = known.get((*about, False)) or _written(inner, block, batch)
        known[(*about, False)] = plain
        known[key] = _compiled(plain) if compiled else plain
    return known[key]


def _written(inner: ReverseOverReverse | ForwardOverReverse, block: Block, batch: Batch) -> Recording:
    loss, names = block.loss, list(block.loss.local.state)
    leaves, spec = tree_flatten((batch.inputs, batch.targets))

    def function(vector: Tensors, given: Tensors) -> Tensors:
        state = dict(zip(names, given[: len(names)], strict=True))
        inputs, targets = tree_unflatten(given[len(names) :], spec)
        here = Batch(inputs, targets)
        if isinstance(inner, ForwardOverReverse):
            return block.kind.forward(loss, state, here, vector)
        return block.kind.reverse(loss, state, here)(vector, False)

    return record(function, block.drawn(), [*loss.local.state.values(), *leaves])


def _compiled(plain: Recording) -> Recording:
    prepare, rest = (torch.compile(part, dynamic=False) for part in (plain.prepare, plain.rest))
    return Recording(prepare, rest, plain.operations)


def _leaves(batch: Batch) -> Tensors:
    return list(tree_flatten((batch.inputs, batch.targets))[0])


def apart(running: Running, expected: Mapping[int, Tensor], vector: Tensors) -> float:
    """||product - expected|| / ||expected||, the largest of some micro-batches; infinite where one
    of the two is not finite.
    """
    worst = 0.0
    for number, there in expected.items():
        found = running.of_piece(number, vector).double()
        error, scale = float((found - there.double()).norm()), float(there.double().norm())
        worst = max(worst, error / scale if scale else error) if math.isfinite(error) else math.inf
    return worst


class _HasBlock(Protocol):
    @property
    def product(self) -> Way: ...
    @property
    def block(self) -> Block: ...


def halving(operator: _HasBlock, vector: Tensor) -> tuple[Tensor, float]:
    """A better value and the error of a product by central differences, from a second one with half the step: with D(h)
    = H v + c h^2 + ..., (4 D(h/2) - D(h)) / 3 and 4/3 ||D(h) - D(h/2)||.

    The error says nothing of rounding, which grows as the step shrinks: where it grows with a smaller step, that rules.
    Cost: 4 gradients.

    Raises:
        LandscapeError: an operator whose products are computed in another way.
    """
    way = operator.product
    if not isinstance(way, CentralDifferences):
        raise LandscapeError(f"expected central differences, got {way!r}: other ways have no step to be halved")
    step = way.step or torch.finfo(operator.block.problem.dtype).eps ** (1 / 3)
    wide, narrow = (
        replace(way, step=h).begin(operator.block).products(vector[:, None])[:, 0] / len(operator.block.loss.data)
        for h in (step, step / 2)
    )
    return (4 * narrow - wide) / 3, 4 / 3 * float((wide - narrow).norm())


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative difference from the reference with which a way is used: 1e4 roundings."""
    return ROUNDINGS * float(torch.finfo(dtype).eps)
