"""The way to compute products that is fastest on the machine at hand, within a bound on memory."""

from __future__ import annotations

import ast
import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from analysis import kept_choices, memory
from analysis.products import (
    Block,
    CentralDifferences,
    CompiledProduct,
    ForwardOverReverse,
    KeptGraph,
    Linearised,
    Recorded,
    ReverseOverReverse,
    Running,
    Way,
    apart,
    tolerance,
)
from analysis.recorded import shapes
from analysis.tuning import allowance
from landscape.errors import LandscapeError
from landscape.problem import Problem

LEAST = 16
"""Examples in the smallest micro-batch that is tried, where memory allows it."""

NOISE = 0.03
"""By which share another way has to be faster to be preferred to one that was tried before it."""

REPEATS = 3
"""Timings of each way, in turn with the best so far; the least counts, since other work only adds to them."""

RECORDING = 0.1
"""Seconds that recording takes, about: ways that need it are tried where they can save as much."""

WORTH = 0.5
"""Seconds for all products that are expected, below which nothing is timed: the problem's micro-batch will do."""

BRIEF = 0.03
"""Seconds of a timing, about: as many examples are taken."""


@dataclass(frozen=True)
class Auto:
    """The fastest of the ways that meet the reference and fit into memory, found by timing, once for a problem, a kind
    and a machine; the choice is kept in the user's cache folder, so that the same command gives the same bytes.

    Args:
        max_memory: bytes beyond model and data, of one micro-batch and of all that is kept; None: whatever there is.
        products: how many products are expected at a theta and over the thetas of a run: what recording has to pay for.
        compiled: whether `torch.compile` is tried as well; None: on a GPU alone.
        micro_batch: examples at once, where it is not to be chosen.
    """

    max_memory: int | None = 2 << 30
    products: int = 200
    compiled: bool | None = None
    micro_batch: int | None = None


AUTO = Auto()


@dataclass
class _Trial:
    """A way that can be timed again and again, on some of the examples."""

    way: Way
    run: Callable[[], float]
    seconds: float = field(default=float("inf"))

    def beats(self, holder: _Trial) -> bool:
        """Whether it is faster by more than noise, timed in turn with the other."""
        for _ in range(REPEATS):
            self.seconds = min(self.seconds, self.run())
            holder.seconds = min(holder.seconds, holder.run())
        return self.seconds < (1 - NOISE) * holder.seconds


_CHOSEN: WeakKeyDictionary[Problem, dict[str, Way]] = WeakKeyDictionary()


def chosen(block: Block, auto: Auto) -> Way:
    """The way kept for this machine, or one chosen now and kept. Cost: about a hundred products of a small model; a few
    seconds and some tens of products where recording is tried.
    """
    known = _CHOSEN.setdefault(block.problem, {})
    key = _key(block, auto)
    if key not in known:
        memory.keep_freed()
        with kept_choices.one_at_a_time("products"):
            entry = kept_choices.find("products", key)
            with contextlib.suppress(KeyError, ValueError, TypeError):
                known[key] = parse(str(entry["way"]))
            if key not in known:
                best = _Bench(block, auto).best()
                known[key] = best.way
                kept_choices.keep("products", key, {"way": repr(best.way), "seconds": best.seconds})
    return known[key]


def _key(block: Block, auto: Auto) -> str:
    loss = block.loss
    return kept_choices.key_of(
        block.problem,
        {
            "block": [repr(block.kind), loss.rows.names, loss.columns.names],
            "examples": [len(loss.data), repr(shapes((loss.data.inputs, loss.data.targets)))],
            "auto": repr(auto),
        },
    )


class _Bench:
    def __init__(self, block: Block, auto: Auto) -> None:
        self._block, self._auto = block, auto
        self._count = len(block.loss.data)
        self._room = float("inf") if auto.max_memory is None else float(auto.max_memory)
        self._vector = block.drawn()
        self._some = self._count

    def best(self) -> _Trial:
        plain = self._plain()
        if plain is not None and self._auto.products * plain.seconds < WORTH:
            return plain
        holder = self._climb()
        reference = holder.seconds
        for size in self._larger(holder):
            holder = self._better(KeptGraph(size), holder)[0]
        if self._auto.products * reference / 3 < RECORDING:
            return holder
        return self._of_recorded(holder)

    def _plain(self) -> _Trial | None:
        """The reference with the micro-batch that is asked for, or the problem's; None where it does not fit."""
        size = min(self._auto.micro_batch or self._block.problem.micro_batch, self._count)
        found = self._contender(ReverseOverReverse(size)) if self._bytes(size) <= self._room else None
        if found is not None:
            found.seconds = found.run()
        return found

    def _better(self, way: Way, holder: _Trial) -> tuple[_Trial, bool]:
        """The better of a way and the best so far, and whether the way can be used at all."""
        new = self._contender(way)
        if new is None:
            return holder, False
        return (new if new.beats(holder) else holder), True

    def _of_recorded(self, holder: _Trial) -> _Trial:
        """One way that works is enough, with the best micro-batch so far and with half of it: what is kept is much."""
        size = holder.way.micro_batch or self._count
        compiled = self._auto.compiled
        if compiled is None:
            compiled = self._block.problem.device.type == "cuda"
        for inner in (ForwardOverReverse, ReverseOverReverse):
            for kind in (Linearised, Recorded):
                holder, works = self._better(kind(inner(size)), holder)
                if not works:
                    continue
                if size > 1 and not self._auto.micro_batch:
                    holder, _ = self._better(kind(inner(size // 2)), holder)
                if compiled:
                    best = holder.way if isinstance(holder.way, Linearised | Recorded) else kind(inner(size))
                    holder, _ = self._better(CompiledProduct(best), holder)
                return holder
        return holder

    def _climb(self) -> _Trial:
        """The reference with the best micro-batch, from small to large; two in a row that are worse end the search."""
        holder, worse = None, 0
        for size in self._sizes():
            new = self._contender(ReverseOverReverse(size))
            if new is None:
                break
            if holder is None:
                taken = min(new.run() for _ in range(REPEATS)) / self._count * size
                self._some = max(size, int(BRIEF / max(taken, 1e-9)) * size)
                holder = self._contender(ReverseOverReverse(size)) or new
                holder.seconds = min(holder.run() for _ in range(REPEATS))
            elif new.beats(holder):
                holder, worse = new, 0
            else:
                worse += 1
            if worse == 2:
                break
        if holder is None:
            raise LandscapeError(
                f"a product of one example at a time needs more than the {self._room / 2**20:.3g} MiB allowed: "
                "expected more memory, or a smaller model"
            )
        return holder

    def _sizes(self) -> list[int]:
        if self._auto.micro_batch:
            return [self._auto.micro_batch]
        sizes = [size for size in (LEAST << k for k in range(self._count.bit_length())) if size < self._count]
        fitting = [size for size in [*sizes, self._count] if self._bytes(size) <= self._room]
        return fitting or [size for size in (8, 4, 2, 1) if self._bytes(size) <= self._room][:1]

    def _bytes(self, size: int) -> float:
        """Bytes of a product of so many examples, an allowance for what is not seen included."""
        return 0.0 if self._room == float("inf") else self._of_one * size

    @functools.cached_property
    def _of_one(self) -> float:
        small = min(2, self._count)
        running = ReverseOverReverse(small).begin(self._block.on(self._block.loss.data[:small]))
        used = memory.peak(lambda: running.of_piece(0, self._vector), self._block.problem.device)
        return allowance(self._block.problem.device) * used / small

    def _larger(self, holder: _Trial) -> list[int]:
        """The reference's best micro-batch, and a larger one: what is kept comes from memory, not from a cache."""
        best = holder.way.micro_batch or self._count
        return [best] if self._auto.micro_batch or best == self._count else [best, min(4 * best, self._count)]

    def _contender(self, way: Way) -> _Trial | None:
        """None where it does not work, does not fit, or does not meet the reference."""
        size = way.micro_batch or self._count
        data = self._block.loss.data[: max(size, self._some // size * size)]
        some = self._block.on(data)
        try:
            running = way.begin(some)
            if running.held / len(data) * self._count > self._room:
                return None
            if not isinstance(way, ReverseOverReverse):
                expected = ReverseOverReverse(way.micro_batch).begin(some).of_piece(0, self._vector)
                if not apart(running, {0: expected}, self._vector) <= tolerance(self._block.problem.dtype):
                    return None
            else:
                running.of_piece(0, self._vector)
        except Exception as error:
            if isinstance(way, ReverseOverReverse) and not memory.ran_out(error):
                raise
            return None
        vector = torch.cat([part.reshape(-1) for part in self._vector])[:, None]

        def run() -> float:
            return _seconds(running, vector) / len(data) * self._count

        return _Trial(way, run)


def _seconds(running: Running, vector: torch.Tensor) -> float:
    device = running.block.problem.device
    start = time.perf_counter()
    running.products(vector)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


_KINDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        ReverseOverReverse,
        ForwardOverReverse,
        KeptGraph,
        Recorded,
        Linearised,
        CompiledProduct,
        CentralDifferences,
    )
}


def parse(text: str) -> Way:
    """The way whose repr this is, as results state it.

    Raises:
        LandscapeError: anything else.
    """

    def read(node: ast.expr) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[], keywords=given) if name in _KINDS:
                return _KINDS[name](**{str(one.arg): read(one.value) for one in given})
            case ast.Constant(value=int() | float() | None as number):
                return number
        raise ValueError

    try:
        way: Way = read(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise LandscapeError(
            f"expected a way to compute products as results state it, for instance {Linearised()!r}, got {text!r}"
        ) from error
    return way
