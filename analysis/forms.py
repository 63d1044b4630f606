"""In which form distances are taken: raw, relative, filter-wise relative, or blind to the scale of normed layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np

from analysis import paths
from analysis.results import Array
from landscape.trajectory import Slot


@dataclass(frozen=True, eq=False)
class TensorPath:
    """What one pass over a file learns of one tensor: inner products of its start and its S - 1 increments."""

    slot: Slot
    start: float
    """||theta_0||^2"""
    squares: Array
    """[S, S] squared distances"""
    radial: Array
    """[S] ||theta_i||^2"""
    unit_squares: Array | None
    """[S, S] sum over output units of squared distances divided by the unit's ||theta_0||^2; None where not asked for
    or not known."""
    units: int
    """Output units with a start that has length."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one tensor adds to a form's squared distances: sum of `squares`, over sum of `weight` where there is one."""

    squares: Array | None
    """None where nothing can be said without the start."""
    weight: float | None
    entries: int


class Form(Protocol):
    """How the tensors of a subset make one squared distance."""

    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def by_units(self) -> bool:
        """Whether it needs the output units apart."""
        ...

    def refusal(self, names: Iterable[str]) -> str:
        """Why the form says nothing of a subset with these tensors; empty where it does."""
        ...

    def part(self, tensor: TensorPath, from_start: bool) -> Part | None:
        """What a tensor adds; None where it is left out. `from_start`: whether the first snapshot is the run's."""
        ...


class _Any:
    """Says something of every subset."""

    def refusal(self, names: Iterable[str]) -> str:
        return ""


@dataclass(frozen=True)
class Raw(_Any):
    """||theta_i - theta_j||."""

    label, unit, by_units = "raw", "parameter", False

    def part(self, tensor: TensorPath, from_start: bool) -> Part | None:
        return Part(tensor.squares, None, tensor.slot.size)


@dataclass(frozen=True)
class Relative(_Any):
    """||theta_i - theta_j|| / ||theta_0||, norms of the whole subset."""

    label, unit, by_units = "relative", "||theta_0||", False

    def part(self, tensor: TensorPath, from_start: bool) -> Part | None:
        return Part(tensor.squares if from_start else None, tensor.start, tensor.slot.size)


@dataclass(frozen=True)
class Filterwise(_Any):
    """Root mean square over output units u of ||theta_i,u - theta_j,u|| / ||theta_0,u||.

    A unit is an index of the first dimension of a tensor with two or more (Li et al., arXiv 1712.09913). Biases and
    norm layers (tensors with fewer dimensions) are left out, and so are units that start at zero.
    """

    label, unit, by_units = "filterwise", "rms of units", True

    def part(self, tensor: TensorPath, from_start: bool) -> Part | None:
        if len(tensor.slot.shape) < 2:
            return None
        return Part(tensor.unit_squares if from_start else None, tensor.units, tensor.slot.size)


@dataclass(frozen=True)
class Invariant:
    """Blind to the scale of tensors that a norm follows, whose scale changes no loss: root mean square over tensors.

    `followed` are patterns of those tensors' names (`analysis.invariance.followed` finds them from a problem). Each of
    them counts as a direction: the chord between theta_i / ||theta_i|| and theta_j / ||theta_j||, 2 sin(angle / 2).
    From (||theta_i - theta_j||^2 - (r_i - r_j)^2) / (r_i r_j), r the norms, which keeps the digits of small angles.
    Every other tensor with two or more dimensions counts relative to the norm of its start. Tensors with fewer
    dimensions are left out, and so are those that start at zero.
    """

    followed: tuple[str, ...] = ()
    label, unit, by_units = "invariant", "rms of tensors", False

    def refusal(self, names: Iterable[str]) -> str:
        if any(self.has(name) for name in names):
            return ""
        return "no tensor of the subset is known to be followed by a norm"

    def has(self, name: str) -> bool:
        """Whether a tensor is one of those that a norm follows."""
        return any(fnmatchcase(name, pattern) for pattern in self.followed)

    def part(self, tensor: TensorPath, from_start: bool) -> Part | None:
        if len(tensor.slot.shape) < 2 or not tensor.start:
            return None
        if not self.has(tensor.slot.name):
            return Part(tensor.squares / tensor.start if from_start else None, 1.0, tensor.slot.size)
        return Part(chords(tensor.squares, tensor.radial), 1.0, tensor.slot.size)


def chords(squares: Array, radial: Array) -> Array:
    """Squared chords between directions, from squared distances [S, S] and squared norms [S]."""
    norms = np.sqrt(radial)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (squares - (norms[:, None] - norms[None, :]) ** 2) / np.outer(norms, norms)
    return np.asarray(np.maximum(found, 0.0))


def tensor_path(slot: Slot, gram: Array, by_units: Array | None, units: int, norms: Array | None = None) -> TensorPath:
    """From the inner products [S, S] of theta_0 (row 0) and the increments (the others), and the same summed over
    output units that are divided by their start's norm. `norms` [S] are ||theta_i||^2 where the products are estimates.
    """
    squares = paths.from_increments(gram[1:, 1:])
    along = np.concatenate([[0.0], 2 * np.cumsum(gram[0, 1:])])
    radial = np.maximum(gram[0, 0] + along + squares[0], 0.0) if norms is None else norms
    shares = None if by_units is None else paths.from_increments(by_units[1:, 1:])
    return TensorPath(slot, float(radial[0]), squares, radial, shares, units)


def any_by_units(forms: Iterable[Form]) -> bool:
    """Whether one of the forms needs the output units apart."""
    return any(form.by_units for form in forms)
