"""Tensor by tensor, the squared distances of several subsets in several forms are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.forms import Form, TensorPath
from analysis.results import Array
from analysis.subsets import Subset
from landscape.trajectory import Slot


@dataclass(frozen=True, eq=False)
class Distances:
    """Squared distances of one subset in one form. The units are the form's."""

    subset: Subset
    form: Form
    squares: Array | None
    """[S, S], or None where nothing can be said; `why` says so."""
    entries: int
    """Entries of theta that they are made of."""
    start_norm: float
    """||theta_0|| of the whole subset."""
    why: str = ""
    left_out: tuple[str, ...] = ()
    """Tensors of the subset that this form leaves out."""
    units: int = 0
    """Output units of the subset that start at zero, and that the filter-wise form leaves out."""


class Accounts:
    """Sums over tensors for every subset and form."""

    def __init__(
        self, subsets: Sequence[Subset], members: Sequence[Sequence[Slot]], forms: Sequence[Form], from_start: bool
    ) -> None:
        self.from_start = from_start
        self._accounts = [
            _Account(subset, frozenset(slot.name for slot in slots), form)
            for subset, slots in zip(subsets, members, strict=True)
            for form in forms
        ]

    def add(self, tensor: TensorPath) -> None:
        """Counts a tensor where it belongs."""
        for account in self._accounts:
            if tensor.slot.name in account.names:
                account.add(tensor, self.from_start)

    def close(self) -> tuple[Distances, ...]:
        """What came of them: for every subset every form, in their order."""
        return tuple(account.close(self.from_start) for account in self._accounts)


class _Account:
    def __init__(self, subset: Subset, names: frozenset[str], form: Form) -> None:
        self.names, self._subset, self._form = names, subset, form
        self._squares: Array | None = None
        self._known, self._weight, self._divided = True, 0.0, False
        self._entries, self._start, self._units = 0, 0.0, 0
        self._left_out: list[str] = []

    def add(self, tensor: TensorPath, from_start: bool) -> None:
        self._start += tensor.start
        part = self._form.part(tensor, from_start)
        if part is None:
            self._left_out.append(tensor.slot.name)
            return
        if self._form.by_units and tensor.unit_squares is not None:
            self._units += tensor.slot.shape[0] - tensor.units
        self._entries += part.entries
        if part.weight is not None:
            self._weight += part.weight
            self._divided = True
        if part.squares is None:
            self._known = False
        elif self._squares is None:
            self._squares = part.squares.copy()
        else:
            self._squares += part.squares

    def close(self, from_start: bool) -> Distances:
        squares, why = self._squares, self._form.refusal(self.names)
        if why:
            squares = None
        elif not self._known:
            squares = None
            why = "the start is missing" if not from_start else "a projection keeps no output units"
        elif squares is None:
            why = "no tensor of the subset has a place in this form"
        elif self._divided and not self._weight > 0:
            squares, why = None, "the subset starts at zero"
        elif self._divided:
            squares = squares / self._weight
        return Distances(
            self._subset,
            self._form,
            squares,
            self._entries,
            float(np.sqrt(self._start)),
            why,
            tuple(self._left_out),
            self._units,
        )
