"""What a recorder keeps of theta: all of it, or a seeded random projection where it is too large to store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from landscape.errors import LandscapeError
from landscape.randomness import generator
from landscape.trajectory import Array, Layout, Sketch

BLOCK = 1 << 20
"""Entries projected at once: memory is bounded by some ten bytes times this."""


class Kept(Protocol):
    """What a snapshot's row in the file is made of."""

    def width(self, layout: Layout) -> int:
        """Numbers a snapshot."""
        ...

    def dtype(self, theta: np.dtype[Any]) -> np.dtype[Any]:
        """Their type, where theta has this one."""
        ...

    def row(self, layout: Layout, theta: Array) -> Array:
        """The row [width] of a theta [P]."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """What the file says of it; empty for all of theta."""
        ...


@dataclass(frozen=True)
class Whole:
    """Theta as it is."""

    def width(self, layout: Layout) -> int:
        return layout.size

    def dtype(self, theta: np.dtype[Any]) -> np.dtype[Any]:
        return theta

    def row(self, layout: Layout, theta: Array) -> Array:
        return theta

    def settings(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class Projected:
    """Of every tensor a random projection on k = `dimensions` numbers, and its exact norm.

    Entry i of a tensor is added with a random sign to one of k sums, both drawn from the seed (Charikar, Chen and
    Farach-Colton 2002; a sparse sign matrix with one entry a column). Squared distances between projections are right
    on average, with a relative standard error of at most sqrt(2 / k); for differences that no few entries make up, k
    times estimate over truth follows the chi-square law with k degrees of freedom. A tensor of at most k entries is
    kept as it is. All in float64.

    Cost: P random integers and additions a snapshot. Size: at most k + 1 numbers of 8 bytes a tensor.
    """

    dimensions: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimensions < 8:
            raise LandscapeError(
                f"expected a projection on 8 or more dimensions a tensor, got {self.dimensions}: fewer say next to "
                "nothing; give more"
            )

    def width(self, layout: Layout) -> int:
        return Sketch.columns(layout, self.dimensions) + len(layout.slots)

    def dtype(self, theta: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def row(self, layout: Layout, theta: Array) -> Array:
        parts = [self._tensor(number, theta[slot.span]) for number, slot in enumerate(layout.slots)]
        norms = [float(np.linalg.norm(theta[slot.span].astype(np.float64))) ** 2 for slot in layout.slots]
        return np.concatenate([*parts, np.array(norms)])

    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def _tensor(self, number: int, entries: Array) -> Array:
        if len(entries) <= self.dimensions:
            return entries.astype(np.float64)
        sums = np.zeros(self.dimensions)
        for block, first in enumerate(range(0, len(entries), BLOCK)):
            some = entries[first : first + BLOCK].astype(np.float64)
            rng = generator(self.seed, "projection", number, block)
            drawn = rng.integers(0, 2 * self.dimensions, len(some), np.uint32)
            np.negative(some, out=some, where=(drawn & 1).astype(bool))
            sums += np.bincount(drawn >> 1, some, self.dimensions)
        return sums
