"""Which parameters a plane, a line or an operator is about, as objects."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from landscape.errors import LandscapeError, unknown
from landscape.trajectory import SHARED, UNUSED, Layout, Slot


class Subset(Protocol):
    """Some of the entries of theta. `label` says in words which."""

    @property
    def label(self) -> str: ...

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        """Slices of theta, ascending, neighbours merged; at least one entry, or a `LandscapeError`."""
        ...


@dataclass(frozen=True)
class Everything:
    """All of theta."""

    label = "all"

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        return (slice(0, layout.size),)


@dataclass(frozen=True)
class Shared:
    """The parameters that several tasks' gradients reach."""

    label = "shared"

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        return _some(layout.spans(SHARED), "the model has no shared parameters: expected some that several tasks reach")


@dataclass(frozen=True)
class Head:
    """The parameters that only one task's gradient reaches."""

    task: str

    @property
    def label(self) -> str:
        return f"head of {self.task}"

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        tasks = [head.task for head in heads(layout)]
        if not tasks:
            raise LandscapeError(
                f"no task of the model has a head of its own: expected shared or all, got the head of {self.task!r}"
            )
        if self.task not in tasks:
            raise unknown("head", self.task, tasks)
        return layout.spans(self.task)


@dataclass(frozen=True, init=False)
class Named:
    """The tensors whose names match one of some glob patterns: `Named("trunk.0.*", "*.bias")`."""

    patterns: tuple[str, ...]

    def __init__(self, *patterns: str) -> None:
        object.__setattr__(self, "patterns", tuple(patterns))

    @property
    def label(self) -> str:
        text = ", ".join(self.patterns)
        return f"patterns {text}" if text in (Everything.label, Shared.label) or text.startswith(_OTHERS) else text

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        names = [slot.name for slot in layout.slots]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise _no_match(pattern, names)
        return layout.merged(slot for slot in layout.slots if self._has(slot))

    def _has(self, slot: Slot) -> bool:
        return any(fnmatchcase(slot.name, pattern) for pattern in self.patterns)


_OTHERS = ("head of ", "layer ", "patterns ")
"""How labels of other kinds begin."""


@dataclass(frozen=True)
class Tensors:
    """Some tensors by their exact names: `Tensors(("trunk.0.weight",))`."""

    names: tuple[str, ...]
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", ", ".join(self.names))

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        there = [slot.name for slot in layout.slots]
        for name in self.names:
            if name not in there:
                raise _no_match(name, there)
        return _some(
            layout.merged(slot for slot in layout.slots if slot.name in self.names),
            f"the tensors {self.label!r} have no entries: expected at least one",
        )


@dataclass(frozen=True)
class Layer:
    """The tensors of one module, as `layers` lists them: `trunk.0` has `trunk.0.weight` and `trunk.0.bias`."""

    name: str

    @property
    def label(self) -> str:
        return f"layer {self.name or '(the model itself)'}"

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        modules = list(dict.fromkeys(module_of(slot.name) for slot in layout.slots))
        return _some(
            layout.merged(slot for slot in layout.slots if module_of(slot.name) == self.name),
            f"no layer is called {self.name!r}: expected one of {_few(modules)}",
        )


@dataclass(frozen=True)
class WithoutNorms:
    """A subset without the parameters of normalisation layers.

    Such a layer is a module whose tensor called `weight` has fewer than two dimensions; `patterns` of tensor names take
    the place of this rule.
    """

    inner: Subset
    patterns: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.inner.label} without norm layers"

    def spans(self, layout: Layout) -> tuple[slice, ...]:
        norms = {
            module_of(slot.name)
            for slot in layout.slots
            if slot.name.rpartition(".")[2] == "weight" and len(slot.shape) < 2
        }

        def is_norm(slot: Slot) -> bool:
            if self.patterns:
                return any(fnmatchcase(slot.name, pattern) for pattern in self.patterns)
            return module_of(slot.name) in norms

        kept = [slot for slot in slots_of(self.inner, layout) if not is_norm(slot)]
        return _some(layout.merged(kept), f"nothing is left of the subset {self.inner.label!r} without norm layers")


def size(subset: Subset, layout: Layout) -> int:
    """How many parameters a subset has."""
    return sum(span.stop - span.start for span in subset.spans(layout))


def module_of(name: str) -> str:
    """The name of the module that a tensor belongs to."""
    return name.rpartition(".")[0]


def slots_of(subset: Subset, layout: Layout) -> tuple[Slot, ...]:
    """The tensors of a subset, in order; one that the subset cuts through is refused."""
    spans = subset.spans(layout)
    found = []
    for slot in layout.slots:
        inside = sum(max(0, min(s.stop, slot.span.stop) - max(s.start, slot.span.start)) for s in spans)
        if 0 < inside < slot.size:
            raise LandscapeError(
                f"the subset {subset.label!r} takes {inside} of the {slot.size} entries of {slot.name!r}: expected "
                "whole tensors"
            )
        if inside:
            found.append(slot)
    return tuple(found)


def tensors(layout: Layout, within: Subset = Everything()) -> dict[str, Tensors]:
    """Every tensor of a subset as a subset of its own, by name, in the layout's order."""
    return {slot.name: Tensors((slot.name,)) for slot in slots_of(within, layout)}


def layers(layout: Layout, within: Subset = Everything()) -> dict[str, Tensors]:
    """The tensors of a subset by the module that has them (weight and bias together), in the layout's order.

    A layer of which the subset has some tensors only is called after these too.
    """
    parts, whole = _by_module(tensors(layout, within)), _by_module(tensors(layout))
    found = {}
    for module, names in parts.items():
        some = [name.removeprefix(f"{module}.") for name in names] if names != whole[module] else []
        found[module] = Tensors(tuple(names), f"layer {module}" + (f" ({', '.join(some)})" if some else ""))
    return found


def _by_module(names: Iterable[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(module_of(name) or name, []).append(name)
    return parts


def heads(layout: Layout) -> tuple[Head, ...]:
    """The heads of a model, in order."""
    owners = dict.fromkeys(slot.owner for slot in layout.slots if slot.size)
    return tuple(Head(owner) for owner in owners if owner not in (SHARED, UNUSED))


def parse(text: str) -> Subset:
    """A subset from a word: `all`, `shared`, `head:TASK`, or patterns of parameter names with commas between them."""
    if text in ("all", "shared"):
        return Everything() if text == "all" else Shared()
    if text == "head":
        raise LandscapeError("expected the task whose head is meant, as head:TASK, got 'head'")
    if text.startswith("head:"):
        return Head(text.removeprefix("head:"))
    patterns = [part.strip() for part in text.split(",") if part.strip()]
    if not patterns:
        raise LandscapeError("expected all, shared, head:TASK or patterns of parameter names, got nothing")
    return Named(*patterns)


def _some(spans: Iterable[slice], otherwise: str) -> tuple[slice, ...]:
    found = tuple(spans)
    if not found:
        raise LandscapeError(otherwise)
    return found


def _no_match(pattern: str, names: list[str]) -> LandscapeError:
    """An asterisk stands for anything, so the nearest name is looked for without it."""
    near = difflib.get_close_matches(pattern.replace("*", ""), names, n=1, cutoff=0.3)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    return LandscapeError(
        f"no parameter matches {pattern!r}: expected a pattern of one of {_few(names)}{nearest}; patterns are globs, "
        "as 'trunk.*'"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, ... {names[-1]} ({len(names)} tensors)"
