"""What every record is, and the records that others hold.

Every array field states its named dimensions and its unit beside it; `analysis.archive` writes both into the file.
A record never changes a measured value: logarithms, clipping and smoothing happen when a scene is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

AVERAGE = "average"
"""The name that the averaged loss carries beside the task names; no task may be called so."""


def array(*dims: str, units: str = "1") -> Any:
    """A dataclass field that holds an array with these named dimensions and this unit."""
    return field(metadata={"dims": dims, "units": units})


def names(dim: str) -> Any:
    """A dataclass field that holds a tuple of strings, the labels along one dimension."""
    return field(metadata={"labels": dim})


@dataclass(frozen=True, eq=False)
class Record:
    """Base of all records: two are equal when every field is, arrays bit by bit (NaN equals NaN).

    Arrays are copied in and are read-only. One that nobody can write to any more is taken as it is: that of another
    record, or one that its maker handed over, see `handed_over`.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for spec, given in self.arrays():
            dims, array = spec.metadata["dims"], frozen(given)
            object.__setattr__(self, spec.name, array)
            if array.ndim != len(dims):
                raise ValueError(f"{type(self).__name__}.{spec.name} needs dimensions {dims}, got shape {array.shape}")
            for dim, size in zip(dims, array.shape, strict=True):
                if sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"{type(self).__name__}.{spec.name} has {size} entries along {dim!r}, others have {sizes[dim]}"
                    )
        for spec in fields(self):
            dim = spec.metadata.get("labels")
            if dim is not None:
                object.__setattr__(self, spec.name, tuple(getattr(self, spec.name)))
            if dim is not None and len(getattr(self, spec.name)) != sizes.get(dim, 0):
                raise ValueError(
                    f"{type(self).__name__}.{spec.name} has {len(getattr(self, spec.name))} labels along {dim!r}, "
                    f"its arrays have {sizes.get(dim, 0)} entries"
                )

    def arrays(self) -> Iterator[tuple[Field[Any], Array]]:
        """The array fields with their values."""
        for spec in fields(self):
            if "dims" in spec.metadata:
                yield spec, np.asarray(getattr(self, spec.name))


def frozen(array: Array) -> Array:
    """A read-only view of a copy; of the array itself where neither it nor what it is a view of can be written to."""
    if not _immutable(array):
        array = handed_over(array.copy())
    return array.view()


def handed_over(array: Array) -> Array:
    """The same array, read-only from now on: a record takes it without a copy. For who has just made a large one."""
    array.setflags(write=False)
    return array


def _immutable(array: Any) -> bool:
    if not isinstance(array, np.ndarray) or array.flags.writeable:
        return False
    return array.base is None or _immutable(array.base)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        numeric = a.dtype.kind in "fc" and b.dtype.kind in "fc"
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=numeric))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (np.isnan(a) and np.isnan(b))
    return bool(a == b)


@dataclass(frozen=True, eq=False)
class Run(Record):
    """Which trajectory a number belongs to."""

    label: str
    """Short name of the strategy for legends, for instance `independent`."""
    strategy: str
    """The strategy in full, its repr."""
    seed: int
    start: str = ""
    """Hash of theta and buffers at step 0, where they are known: seeds are told apart by it."""

    @property
    def name(self) -> str:
        """`LABEL-SEED`, the name of the run's file in a study."""
        return f"{self.label}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Estimate(Record):
    """A mean over samples: `value` and its standard error."""

    value: float
    stderr: float
    samples: int


@dataclass(frozen=True, eq=False)
class Check(Record):
    """A test that a study makes on its own numbers: it passes when `value <= limit`."""

    name: str
    """What is compared with what, in one line."""
    value: float
    limit: float
    reason: str
    """Why the limit is what it is."""

    @property
    def passed(self) -> bool:
        return bool(self.value <= self.limit)
