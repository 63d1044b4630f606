"""Examples: nested tensors with one leading dimension, read from a user's data set, checked, hashed and cut into
batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path, tree_leaves, tree_map
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

from landscape.errors import LandscapeError

Tree: TypeAlias = Any
"""A tensor, or a nested tuple, list or dict of tensors."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples: `inputs` is what the model takes, `targets[t]` what task t's loss compares its prediction with."""

    inputs: Tree
    targets: tuple[Tree, ...]

    def __len__(self) -> int:
        return len(tree_leaves(self.inputs)[0])

    def _map(self, function: Any) -> Batch:
        return Batch(tree_map(function, self.inputs), tuple(tree_map(function, target) for target in self.targets))

    def __getitem__(self, rows: Any) -> Batch:
        return self._map(lambda leaf: leaf[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The same examples on a device, floating-point leaves in the model's dtype."""
        return self._map(lambda leaf: leaf.to(device, dtype if leaf.is_floating_point() else leaf.dtype))

    def pieces(self, size: int) -> Iterator[Batch]:
        """Consecutive micro-batches of `size` examples, the last one perhaps smaller."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def hash(self) -> str:
        """Sixteen hex digits of a SHA-256 over every leaf's place, dtype, shape and bytes; the device does not
        matter.
        """
        digest = hashlib.sha256()
        for path, leaf in tree_flatten_with_path((self.inputs, self.targets))[0]:
            digest.update(repr((path, str(leaf.dtype), tuple(leaf.shape))).encode())
            digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class Source:
    """A user's map-style data set, read as `Batch`es whose targets stand in task order.

    An example is `(inputs, targets)` with targets a dict by task name or a sequence in task order, or flat,
    `(inputs, target of task 1, ..., target of task T)`. A `TensorDataset` is indexed directly; any other is collated.
    """

    def __init__(self, dataset: Dataset[Any], tasks: Sequence[str], what: str) -> None:
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise LandscapeError(
                f"expected the {what} data as a map-style data set with a length, got {type(dataset).__name__}: "
                "wrap the tensors in torch.utils.data.TensorDataset, or give __getitem__ and __len__"
            )
        self._dataset: Any = dataset
        self._tasks = tuple(tasks)
        self._what = what
        self._whole = self._arrange(dataset.tensors) if _is_plain(dataset) else None
        if not len(self):
            raise LandscapeError(f"the {what} data set is empty: expected at least one example")
        if self._whole is not None:
            self._require_no_nan(self._whole, np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tree, tuple[Tree, ...]]:
        """One example, `(inputs, targets in task order)`, so that a plain `DataLoader` gives batches of them."""
        if not hasattr(index, "__index__"):
            raise LandscapeError(
                f"expected the number of one example, got {type(index).__name__}: take(numpy.arange(first, last)) "
                "gives several"
            )
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        batch = self.take(np.array([index % len(self)]))
        inputs, targets = tree_map(lambda leaf: leaf[0], (batch.inputs, batch.targets))
        return inputs, targets

    def freeze(self) -> Batch:
        """Every example once, in order; a data set that changes from one reading to the next is refused."""
        some = spread(len(self), 16)
        if self.take(some).hash() != self.take(some).hash():
            raise LandscapeError(
                f"the {self._what} data set returns other examples when it is read again: expected the "
                "same example for "
                "the same index; take shuffling and random augmentation out of it"
            )
        return self.take(np.arange(len(self)))

    def take(self, index: np.ndarray[Any, Any]) -> Batch:
        """The examples at these positions."""
        if self._whole is not None:
            return self._whole[torch.from_numpy(index)]
        batch = self._collate(index.tolist())
        self._require_no_nan(batch, index)
        return batch

    def _collate(self, index: Sequence[int]) -> Batch:
        try:
            return self._arrange(default_collate([self._dataset[i] for i in index]))
        except (TypeError, RuntimeError, KeyError) as error:
            raise LandscapeError(
                f"the {self._what} examples cannot be stacked into a batch ("
                f"{type(error).__name__}: {str(error).splitlines()[0]}): "
                "expected tensors, arrays or numbers of one shape"
            ) from error

    def _arrange(self, example: Any) -> Batch:
        batch = Batch(*self._split(example))
        for leaf in tree_leaves((batch.inputs, batch.targets)):
            if not isinstance(leaf, Tensor):
                raise LandscapeError(
                    f"the {self._what} examples hold {type(leaf).__name__}: expected tensors, arrays or numbers; "
                    "leave anything else out"
                )
        return batch

    def _split(self, example: Any) -> tuple[Tree, tuple[Tree, ...]]:
        count = len(self._tasks)
        named = by_field(example) if isinstance(example, tuple) else None
        if named is not None and set(named) & set(self._tasks):
            rest = [name for name in named if name not in self._tasks]
            if len(rest) == 1 and len(named) == count + 1:
                return named[rest[0]], tuple(named[name] for name in self._tasks)
        elif isinstance(example, tuple | list):
            targets = in_order(example[1], self._tasks) if len(example) == 2 else None
            if targets is not None:
                return example[0], tuple(targets)
            if len(example) == count + 1:
                return example[0], tuple(example[1:])
        raise LandscapeError(
            f"the {self._what} examples do not match the {count} tasks {', '.join(self._tasks)}: expected "
            "(inputs, targets by "
            f"task name or in task order) or (inputs, target of each task), got {outline(example)}"
        )

    def _require_no_nan(self, batch: Batch, index: np.ndarray[Any, Any]) -> None:
        places = ["inputs", *(f"targets of task {name!r}" for name in self._tasks)]
        for where, tree in zip(places, (batch.inputs, *batch.targets), strict=True):
            for leaf in tree_leaves(tree):
                broken = torch.isnan(leaf).reshape(len(leaf), math.prod(leaf.shape[1:])).any(1)
                if bool(broken.any()):
                    row = int(broken.nonzero()[0])
                    raise LandscapeError(
                        f"NaN in the {self._what} data, in the {where} of example {int(index[row])}: "
                        "expected numbers; clean or leave out that example"
                    )


def _is_plain(dataset: Any) -> TypeGuard[TensorDataset]:
    """Whether its tensors are its examples: a subclass may give something else."""
    return isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__


def spread(count: int, most: int) -> np.ndarray[Any, Any]:
    """Positions of at most so many examples, from the first to the last at even distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def fresh(inputs: Tree) -> Tree:
    """Inputs in containers of their own, out of which a model may take something."""
    return inputs if isinstance(inputs, Tensor) else tree_map(lambda leaf: leaf, inputs)


def by_field(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a dict, a named tuple or a data class by name; None of anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    return None


def in_order(value: Any, names: Sequence[str]) -> list[Any] | None:
    """One part for each name: by name where the value has any of them, else by position; None where none fit."""
    named = by_field(value)
    if named is not None and set(named) & set(names):
        return [named[name] for name in names] if set(named) >= set(names) else None
    return list(value) if isinstance(value, tuple | list) and len(value) == len(names) else None


def outline(value: Any) -> str:
    """What something is made of, for messages."""
    named = by_field(value)
    if named is not None:
        return f"{'a dict' if isinstance(value, Mapping) else type(value).__name__} with {', '.join(map(str, named))}"
    if isinstance(value, tuple | list):
        return f"{len(value)} parts ({', '.join(type(part).__name__ for part in value)})"
    return type(value).__name__
