"""The records that travel: the layout of theta, a snapshot, and a trajectory read lazily from its file. Numpy only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from landscape.errors import LandscapeError

Array: TypeAlias = npt.NDArray[Any]

SHARED = "shared"
UNUSED = "unused"
"""Owners of a tensor other than a task: reached by several tasks' gradients, or by none."""


@dataclass(frozen=True)
class Slot:
    """One tensor's place in a flat vector: entries `offset` to `offset + size`, in row-major order."""

    name: str
    shape: tuple[int, ...]
    owner: str
    """`shared`, the name of the one task whose gradient reaches it, or `unused`."""
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """Names, shapes and owners of the tensors that make theta, in order; theta has `size` = P entries."""

    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        return sum(slot.size for slot in self.slots)

    def spans(self, owner: str = SHARED) -> tuple[slice, ...]:
        """The slices of theta that belong to one owner, neighbours merged."""
        return self.merged(slot for slot in self.slots if slot.owner == owner)

    def merged(self, slots: Iterable[Slot]) -> tuple[slice, ...]:
        """The slices of theta that some of the slots take, in order, neighbours merged."""
        merged: list[slice] = []
        for slot in slots:
            if not slot.size:
                continue
            if merged and merged[-1].stop == slot.offset:
                merged[-1] = slice(merged[-1].start, slot.span.stop)
            else:
                merged.append(slot.span)
        return tuple(merged)

    def count(self, owner: str = SHARED) -> int:
        """How many entries of theta belong to one owner."""
        return sum(slot.size for slot in self.slots if slot.owner == owner)

    def index(self, owner: str = SHARED) -> Array:
        """The positions in theta of one owner's entries, ascending [count]."""
        return np.concatenate([np.arange(s.start, s.stop) for s in self.spans(owner)] or [np.arange(0)])

    @property
    def hash(self) -> str:
        """Twelve hex digits of a SHA-256 over names, shapes and owners."""
        rows = [[slot.name, list(slot.shape), slot.owner] for slot in self.slots]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """A short description for messages: entries, tensors, and the first and last name."""
        if not self.slots:
            return "0 entries"
        names = self.slots[0].name + (f" ... {self.slots[-1].name}" if len(self.slots) > 1 else "")
        return f"{self.size} entries in {len(self.slots)} tensors ({names}), {self.count()} shared [{self.hash}]"

    def require(self, other: Layout, who: str) -> None:
        """Raises `LandscapeError` naming both layouts unless `other` is the same one."""
        if self != other:
            raise LandscapeError(
                f"expected theta with {self.describe()}, but {who} has "
                f"{other.describe()}{_first_difference(self, other)}; "
                "use the problem that it was recorded with"
            )


def _first_difference(a: Layout, b: Layout) -> str:
    for mine, theirs in zip(a.slots, b.slots, strict=False):
        if mine != theirs:
            return (
                f"; the first difference is {mine.name!r} {list(mine.shape)} ({mine.owner}) "
                f"against {theirs.name!r} {list(theirs.shape)} ({theirs.owner})"
            )
    return ""


class _Frozen:
    """Arrays are copied in and are read-only; one that nobody can write to any more is taken as it is."""

    def __post_init__(self) -> None:
        for spec in fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, spec.name, _frozen(value))


def _frozen(array: Array) -> Array:
    if not _immutable(array):
        array = array.copy()
        array.setflags(write=False)
    return array.view()


def _immutable(array: Any) -> bool:
    if not isinstance(array, np.ndarray) or array.flags.writeable:
        return False
    return array.base is None or _immutable(array.base)


@dataclass(frozen=True, eq=False)
class History(_Frozen):
    """What every step since the previous snapshot left behind; N rows."""

    step: Array
    """[N] step numbers, counted from 1."""
    losses: Array
    """[N, T] training loss of each task on its mini-batch, where its gradient was taken."""
    shared_update_norm: Array
    """[N] ||theta_shared after the step - before||, float64."""
    shared_path: Array
    """[N] sum of the same norm over the step's updates, float64; at least `shared_update_norm`."""
    rate: Array = field(default_factory=lambda: np.zeros(0))
    """[N] learning rate of the shared parameters in the step; NaN where it is not known, by default everywhere."""

    def __post_init__(self) -> None:
        if not len(self.rate):
            object.__setattr__(self, "rate", np.full(len(self.step), np.nan))
        super().__post_init__()

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, eq=False)
class Snapshot(_Frozen):
    """The state of a run after `step` steps."""

    step: int
    updates: int
    """How many times the shared parameters were changed."""
    gradients: int
    """How many gradients were computed, each one backward pass through the shared parameters."""
    seconds: float
    """Seconds spent training (evaluation and recording not counted)."""
    path_steps: float
    """Path length of the shared parameters: sum over steps of ||theta_shared after - before||, float64."""
    path_updates: float
    """The same summed over updates, the finer path inside each step."""
    theta: Array
    """[P]"""
    buffers: Array
    """[Q] non-trainable state, float64."""
    losses: Array
    """[T] mean loss of each task on the evaluation set, float64."""
    metrics: Array
    """[M] mean of each metric on the evaluation set, float64."""
    history: History
    state: bytes = b""
    """What training needs beside theta and buffers to go on exactly: optimiser states, as safetensors."""


@dataclass(frozen=True)
class Provenance:
    """What a trajectory says of its own making."""

    strategy: str
    """The strategy's repr."""
    label: str
    """The strategy's short name."""
    seed: int
    rate: float
    """Learning rate of the shared parameters; NaN where a user's own loop did not say."""
    problem: str
    """Name of a built-in problem, or where the user's own was made."""
    settings: Mapping[str, Any]
    """Settings of a built-in problem."""
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    """`task.metric` names."""
    data: str
    """Content hash of the evaluation set."""
    frozen: str
    """Content hash of the parameters that do not train."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Number of steps, batch size, schedule: what must agree for a run to be resumed."""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """UTC time, ISO 8601."""
    start: str = ""
    """Content hash of the first snapshot's theta and buffers, see `start_hash`; empty in files of older versions."""


def start_hash(theta: Array, buffers: Array) -> str:
    """Sixteen hex digits of a SHA-256 over theta [P] and buffers [Q] of a start, theta as a file stores it."""
    digest = hashlib.sha256(np.ascontiguousarray(theta).tobytes())
    digest.update(np.ascontiguousarray(buffers, np.float64).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an array in a file, read only when sliced: `theta[10:20]` reads ten rows, `theta[10:20, index]` their
    columns.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Any, slice], Array]
    """Reads the rows that one index or slice selects, and of them a slice of neighbouring columns."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        rows = _within(rows, self.shape[0])
        if isinstance(columns, slice) and (columns.step or 1) == 1:
            return self.read(rows, slice(*columns.indices(self.shape[1])[:2]))
        return np.asarray(self.read(rows, slice(0, self.shape[1]))[..., columns])

    def blocks(self, budget: int = 1 << 26) -> Iterator[Array]:
        """All rows in order, a few at a time: as many as fit into `budget` bytes, at least one."""
        count = max(1, budget // max(1, self.shape[1] * self.dtype.itemsize))
        for first in range(0, len(self), count):
            yield self[first : first + count]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype=dtype)


def _within(rows: Any, count: int) -> Any:
    """The same rows, negative numbers counted from the rows that are there rather than from the file's end."""
    if isinstance(rows, slice):
        return slice(*rows.indices(count)) if (rows.step or 1) > 0 else np.arange(count)[rows]
    if isinstance(rows, int | np.integer):
        if not -count <= rows < count:
            raise IndexError(f"row {rows} of {count}")
        return int(rows) % count
    index = np.asarray(rows)
    if index.dtype == bool and index.shape == (count,):
        return np.flatnonzero(index)
    if not index.size:
        return slice(0, 0)
    if not np.issubdtype(index.dtype, np.integer) or index.ndim != 1 or index.min() < -count or index.max() >= count:
        raise IndexError(f"expected row numbers from {-count} to {count - 1} or {count} booleans, got {rows!r}")
    return index % count


@dataclass(frozen=True, eq=False)
class Sketch:
    """What a file keeps in the place of theta: of every tensor a random projection, and its exact norm."""

    dimensions: int
    """k, the numbers a tensor; one that has no more entries is kept as it is."""
    seed: int
    rows: Rows
    """[S, W] projections of all tensors side by side."""
    norms: Array
    """[S, tensors] squared norms"""

    @staticmethod
    def columns(layout: Layout, dimensions: int) -> int:
        """W, how many numbers the projections of all tensors have."""
        return sum(min(slot.size, dimensions) for slot in layout.slots)

    def spans(self, layout: Layout) -> dict[str, slice]:
        """The columns of every tensor by name."""
        found, offset = {}, 0
        for slot in layout.slots:
            found[slot.name] = slice(offset, offset + min(slot.size, self.dimensions))
            offset = found[slot.name].stop
        return found


@dataclass(frozen=True, eq=False)
class Trajectory(_Frozen):
    """The snapshots of one run, as they were in its file when it was opened; large arrays are read by slices."""

    path: Path
    provenance: Provenance
    layout: Layout
    steps: Array
    """[S]"""
    updates: Array
    gradients: Array
    seconds: Array
    path_steps: Array
    path_updates: Array
    losses: Array
    """[S, T] on the evaluation set"""
    metrics: Array
    """[S, M]"""
    theta: Rows
    """[S, P]"""
    buffers: Rows
    """[S, Q]"""
    history: History
    complete: bool
    """Whether the run reached its end; False while it is being written or after it was interrupted."""
    sketch: Sketch | None = None
    """Where the file keeps a random projection: that; reading theta is then refused."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.provenance.tasks

    @property
    def name(self) -> str:
        """`LABEL-SEED`."""
        return f"{self.provenance.label}-{self.provenance.seed}"

    @cached_property
    def start(self) -> str:
        """The hash of the start, `start_hash` of the first snapshot: runs with the same one begin at the same theta and
        buffers. Empty where the file does not begin at step 0, or keeps a projection and does not state it.
        """
        if self.steps[0] != 0:
            return ""
        if self.provenance.start or self.sketch is not None:
            return self.provenance.start
        return start_hash(self.theta[0], self.buffers[0])

    @property
    def rates(self) -> tuple[float, float]:
        """The least and the largest learning rate of the history; the run's own twice where the history has none."""
        known = self.history.rate[np.isfinite(self.history.rate)]
        own = self.provenance.rate
        return (float(known.min()), float(known.max())) if len(known) else (own, own)

    @property
    def movement(self) -> Array:
        """[S] cumulative learning rate: the sum over updates of the shared parameters of the rate that they were made
        with, which is rate x updates where it never changed. Between two snapshots, the mean rate of the steps counts
        for each update. NaN from where a rate is not known.
        """
        own, (low, high) = self.provenance.rate, self.rates
        if low == high == own or not np.isfinite(low):
            return np.asarray(own * self.updates)
        ends = np.searchsorted(self.history.step, self.steps, side="right")
        parts = [self.history.rate[a:b] for a, b in pairwise(ends)]
        mean = np.array([part.mean() if len(part) else np.nan for part in parts])
        made = np.diff(self.updates)
        before = np.where(self.updates[0], (low if low == high else np.nan) * self.updates[0], 0.0)
        return np.cumsum(np.concatenate([before[None], np.where(made, mean * made, 0.0)]))

    @property
    def shared(self) -> Rows:
        """Theta restricted to the shared parameters [S, P_shared]."""
        return self.part(self.layout.spans())

    def part(self, spans: Sequence[slice]) -> Rows:
        """Theta restricted to some of its slices, side by side."""

        def read(rows: Any, columns: slice) -> Array:
            parts, offset = [], 0
            for span in spans:
                size = span.stop - span.start
                first, last = max(columns.start - offset, 0), min(columns.stop - offset, size)
                if first < last:
                    parts.append(self.theta.read(rows, slice(span.start + first, span.start + last)))
                offset += size
            return np.concatenate(parts, axis=-1) if parts else self.theta.read(rows, slice(0, 0))

        return Rows((len(self), sum(span.stop - span.start for span in spans)), self.theta.dtype, read)

    def at(self, step: int) -> int:
        """The row of the snapshot taken at `step`, or the error that names the nearest one."""
        found = np.flatnonzero(self.steps == step)
        if not len(found):
            nearest = int(self.steps[np.argmin(np.abs(self.steps - step))])
            raise LandscapeError(f"{self.path} has no snapshot at step {step}; the nearest is at step {nearest}")
        return int(found[0])
