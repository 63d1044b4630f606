"""Squared distances between all snapshots of a run, for many subsets and forms at once, in one pass over the file.

Rows of a block of columns become increments in float64, which float32 snapshots allow without any rounding, and their
inner products are added up: with the start in the row that the first increment would have, one symmetric product a
block holds the distances, the norms and the start's norm of a tensor. Output units that are wide enough are multiplied
apart, so that the filter-wise form costs no second product. Blocks are as wide as the file's own chunks, the next one
is read while the present one is multiplied.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.accounts import Accounts, Distances
from analysis.forms import Form, TensorPath, any_by_units, tensor_path
from analysis.gram import COLUMNS
from analysis.results import Array
from analysis.subsets import Subset, slots_of
from landscape.errors import LandscapeError
from landscape.trajectory import Rows, Slot, Trajectory

PIECE = 2048
"""Columns multiplied at once, so that rows in float64 stay in a processor's cache."""
APART = 50_000
"""Entries (snapshots x inputs of a unit) from which a unit is multiplied by itself: below, adding up its product would
take longer than multiplying all units once more."""
WIDEST = 1 << 28
"""Bytes of a block beyond which a wider one reads no faster."""


@dataclass(frozen=True, eq=False)
class Passed:
    """What one pass over a file brought."""

    rows: Array
    """The rows of the snapshots that are finite."""
    from_start: bool
    """Whether the first of them is the start of the run, step 0."""
    found: tuple[Distances, ...]
    """For every subset every form, in their order."""
    error: float = 0.0
    """Relative standard error of a distance: 0 where theta itself was kept."""


class _NotFinite(Exception):
    def __init__(self, rows: Array) -> None:
        self.rows = rows


def cores() -> int:
    """Processor cores that this process may use, at most four: beyond, reading is what takes the time."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, there)


def distances(
    trajectory: Trajectory,
    subsets: Sequence[Subset],
    forms: Sequence[Form],
    max_memory: int,
    tell: Callable[[int], None] = lambda count: None,
    threads: int = 0,
) -> Passed:
    """Squared distances [S, S] for every subset in every form.

    Snapshots that are not finite in one of the subsets are left out of all; where one is found late, the pass begins
    again without it. `max_memory` bounds what is held at once in bytes: two blocks of the file, and S x S numbers for
    every subset and form. Blocks narrower than a chunk of the file (1 MiB a snapshot) read its chunks several times.
    Cost: one pass over the subsets' columns, and S^2 P operations. `tell` is given the bytes passed.

    Raises:
        LandscapeError: a subset that is not there, no finite snapshot, or more memory needed than allowed.
    """
    members = [slots_of(subset, trajectory.layout) for subset in subsets]
    wanted = [slot for slot in trajectory.layout.slots if any(slot in slots for slots in members)]
    source = _source(trajectory)
    reserve = _reserve(len(trajectory), len(subsets), len(forms), max_memory)
    rows = np.arange(len(trajectory))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads or cores()) as pool:
        while len(rows):
            try:
                made = Accounts(subsets, members, forms, bool(trajectory.steps[rows[0]] == 0))
                for tensor in _tensors(source, wanted, rows, any_by_units(forms), reserve, pool, tell):
                    made.add(tensor)
                return Passed(rows, made.from_start, made.close(), error_of(trajectory))
            except _NotFinite as error:
                rows = np.setdiff1d(rows, error.rows)
                tell(0)
    raise LandscapeError(
        f"{trajectory.path} holds no snapshot that is finite in {', '.join(s.label for s in subsets)}: expected at "
        "least one; train with a smaller rate, or choose other parameters"
    )


def error_of(trajectory: Trajectory) -> float:
    """Relative standard error of a distance, at most: sqrt(1 / (2 k)) from a projection on k dimensions, or 0."""
    return 0.0 if trajectory.sketch is None else float(np.sqrt(0.5 / trajectory.sketch.dimensions))


def _reserve(count: int, subsets: int, forms: int, max_memory: int) -> int:
    """Bytes that are left for blocks."""
    matrices = 8 * count**2 * (subsets * forms + 12)
    left = max_memory - matrices
    if left < matrices // 4 or left < 1 << 20:
        raise LandscapeError(
            f"distances between {count} snapshots for {subsets} subsets in {forms} forms take {matrices:,} bytes "
            f"beside the blocks: expected at most {max_memory:,} in all; ask for fewer subsets, or allow more memory"
        )
    return left


@dataclass(frozen=True, eq=False)
class _Source:
    """Where the rows of a tensor are, and what else is known of it."""

    rows: Rows
    span: Callable[[Slot], slice]
    norms: Callable[[Slot], Array] | None = None
    """Exact ||theta||^2 of a tensor at every snapshot, where its rows are only a projection."""


def _source(trajectory: Trajectory) -> _Source:
    sketch = trajectory.sketch
    if sketch is None:
        return _Source(trajectory.theta, lambda slot: slot.span)
    spans = sketch.spans(trajectory.layout)
    place = {slot.name: number for number, slot in enumerate(trajectory.layout.slots)}
    return _Source(sketch.rows, lambda slot: spans[slot.name], lambda slot: sketch.norms[:, place[slot.name]])


def _tensors(
    source: _Source,
    slots: Sequence[Slot],
    rows: Array,
    by_units: bool,
    memory: int,
    pool: Executor,
    tell: Callable[[int], None],
) -> Iterator[TensorPath]:
    """Every tensor in the order of the file, when its last column has been read."""
    count = len(rows)
    by_units = by_units and source.norms is None
    scales = {s.name: _scales(source, s, int(rows[0])) for s in slots if by_units and len(s.shape) > 1}
    sums = _Sums(count, False), _Sums(count, False)
    for slot, last, columns, block in _blocks(source, slots, rows, memory, tell):
        scale = scales.get(slot.name)
        if columns.start == 0:
            sums = _Sums(count, True), _Sums(count, scale is not None)
        for one, other in _products(block, columns.start, slot, scale, pool):
            _require_finite(one, block, rows)
            sums[0].add(one)
            sums[1].add(other)
        if last:
            apart = None if scale is None else sums[1].total
            norms = None if source.norms is None else source.norms(slot)[rows]
            yield tensor_path(slot, sums[0].total, apart, 0 if scale is None else int(np.count_nonzero(scale)), norms)


class _Sums:
    def __init__(self, count: int, there: bool) -> None:
        self.total = np.zeros((count, count)) if there else np.zeros((0, 0))

    def add(self, more: Array | None) -> None:
        if more is not None:
            self.total += more


def _scales(source: _Source, slot: Slot, row: int) -> Array:
    """1 / ||theta_0,u||^2 of every output unit, 0 where it starts at zero; read a few million columns at a time."""
    units, fan = slot.shape[0], slot.size // max(slot.shape[0], 1)
    span, some = source.span(slot), max(1, (1 << 22) // max(fan, 1))
    squares = np.zeros(units)
    for first in range(0, units, some):
        last = min(first + some, units)
        part = source.rows.read(row, slice(span.start + first * fan, span.start + last * fan))
        squares[first:last] = (part.reshape(last - first, fan).astype(np.float64) ** 2).sum(1)
    with np.errstate(divide="ignore"):
        return np.where(squares > 0, 1 / squares, 0.0)


def _blocks(
    source: _Source, slots: Sequence[Slot], rows: Array, memory: int, tell: Callable[[int], None]
) -> Iterator[tuple[Slot, bool, slice, Array]]:
    """A tensor, whether these are its last columns, which of its columns they are, and the rows of them."""
    whole = len(rows) == rows[-1] - rows[0] + 1
    item = source.rows.dtype.itemsize
    stored = len(source.rows) * item

    def read(columns: slice) -> Array:
        if whole:
            return source.rows.read(slice(int(rows[0]), int(rows[-1]) + 1), columns)
        return source.rows.read(slice(0, len(source.rows)), columns)[rows]

    cuts = list(_cuts([source.span(slot) for slot in slots], _width(stored, memory)))
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, cuts[0]) if cuts else None
        waiting = [(slot, source.span(slot)) for slot in slots if slot.size]
        for number, columns in enumerate(cuts):
            assert ahead is not None
            block = ahead.result()
            ahead = reader.submit(read, cuts[number + 1]) if number + 1 < len(cuts) else None
            while waiting and waiting[0][1].start < columns.stop:
                slot, span = waiting[0]
                first, last = max(span.start, columns.start), min(span.stop, columns.stop)
                inside = slice(first - span.start, last - span.start)
                yield slot, last == span.stop, inside, block[:, first - columns.start : last - columns.start]
                if last < span.stop:
                    break
                waiting.pop(0)
            tell(block.nbytes)


def _width(stored: int, memory: int) -> int:
    """Columns of a block: whole chunks of the file where memory allows, at least one piece."""
    room = min(memory // 2, WIDEST) // max(stored, 1)
    if room >= COLUMNS:
        return room // COLUMNS * COLUMNS
    return max(PIECE, 1 << max(room.bit_length() - 1, 0))


def _cuts(spans: Sequence[slice], width: int) -> Iterator[slice]:
    """Neighbouring spans merged and cut at multiples of the width."""
    merged: list[list[int]] = []
    for span in spans:
        if merged and merged[-1][1] == span.start:
            merged[-1][1] = span.stop
        elif span.stop > span.start:
            merged.append([span.start, span.stop])
    for first, last in merged:
        edges = [first, *range((first // width + 1) * width, last, width), last]
        yield from (slice(a, b) for a, b in itertools.pairwise(edges))


def _require_finite(gram: Array, block: Array, rows: Array) -> None:
    """Looks at the rows only where their products are not finite, which is dear."""
    if not np.isfinite(np.diag(gram)).all():
        found = np.array([not np.isfinite(row).all() for row in block])
        if found.any():
            raise _NotFinite(rows[found])


def _products(
    block: Array, offset: int, slot: Slot, scale: Array | None, pool: Executor
) -> Iterator[tuple[Array, Array | None]]:
    """Inner products of start and increments over some columns of a tensor, and the same of its scaled units, in as
    many sums as there are threads.
    """
    width = block.shape[1]
    fan = slot.size // slot.shape[0] if scale is not None else 0
    apart = scale is not None and fan * len(block) >= APART
    edges = np.arange(0, width, PIECE)
    if apart:
        starts = np.arange(-(offset % fan), width, fan)
        edges = np.unique(np.concatenate([edges, starts[starts >= 0]]))
    pieces = list(zip(edges.tolist(), [*edges[1:].tolist(), width], strict=True))

    def multiply(mine: Sequence[tuple[int, int]]) -> tuple[Array, Array | None]:
        total = np.zeros((len(block), len(block)))
        units = None if scale is None else np.zeros_like(total)
        room = np.empty((3, len(block), max(last - first for first, last in mine)))
        gram = np.empty_like(total)
        with np.errstate(invalid="ignore", over="ignore"):
            for first, last in mine:
                wide, moved, scaled = room[:, :, : last - first]
                _increments(block[:, first:last], wide, moved)
                total += np.matmul(moved, moved.T, out=gram)
                if scale is None or units is None:
                    continue
                if apart:
                    gram *= scale[(offset + first) // fan]
                else:
                    np.multiply(moved, np.sqrt(scale[(offset + np.arange(first, last)) // fan]), out=scaled)
                    np.matmul(scaled, scaled.T, out=gram)
                units += gram
        return total, units

    share = -(-len(pieces) // max(1, min(len(pieces), getattr(pool, "_max_workers", 1))))
    parts = [pieces[k : k + share] for k in range(0, len(pieces), share)]
    return iter([multiply(parts[0])]) if len(parts) == 1 else pool.map(multiply, parts)


def _increments(rows: Array, wide: Array, moved: Array) -> None:
    """Puts the first row and the differences of neighbouring ones into `moved`, in float64; `wide` is room for rows."""
    wide[:] = rows
    moved[0] = wide[0]
    np.subtract(wide[1:], wide[:-1], out=moved[1:])
