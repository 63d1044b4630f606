"""How a module's attributes lead back to its parts and tensors otherwise than by registration, and the same attributes
with other parts and tensors in their place: lists of layers, closures over `self`, bound methods, helper objects.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Named: TypeAlias = Sequence[tuple[str, nn.Module]]

_PLAIN = (
    *(int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size),
    *(type, types.ModuleType, types.BuiltinFunctionType),
)
_FOREIGN = ("torch", "numpy", "lightning", "pytorch_lightning", "accelerate", "logging", "threading", "_thread")
"""Packages whose objects are left as they are: a forward pass does not go through them."""
_MANY = 100_000
"""Objects that are looked at, at most, in the search for those that lead back to a module."""


@dataclass(frozen=True)
class Ways:
    """How a module's attributes lead to its parts and tensors otherwise than by registration."""

    key: tuple[tuple[int, int], ...]
    attributes: Mapping[int, tuple[str, ...]]
    """Of each part, by its `id`."""
    objects: frozenset[int]
    """The `id` of everything on such a way."""


_KNOWN: WeakKeyDictionary[nn.Module, Ways] = WeakKeyDictionary()


def ways_back(root: nn.Module, named: Named) -> Ways:
    """As found the last time, unless a part or an attribute has come or gone since."""
    key = tuple((id(part), len(part.__dict__)) for _, part in named)
    known = _KNOWN.get(root)
    if known is None or known.key != key:
        known = _KNOWN[root] = _search(key, named)
    return known


def _search(key: tuple[tuple[int, int], ...], named: Named) -> Ways:
    goals = {id(part) for _, part in named}
    goals |= {id(tensor) for _, part in named for own in (part._parameters, part._buffers) for tensor in own.values()}
    starts = [
        (part, name, value)
        for _, part in named
        for name, value in part.__dict__.items()
        if name not in ("_parameters", "_buffers", "_modules") and not isinstance(value, _PLAIN)
    ]
    holders: dict[int, list[int]] = {}
    seen: set[int] = set()
    pending = [value for _, _, value in starts]
    while pending and len(seen) < _MANY:
        value = pending.pop()
        if id(value) in seen or id(value) in goals:
            continue
        seen.add(id(value))
        for inner in _held(value):
            if not isinstance(inner, _PLAIN):
                holders.setdefault(id(inner), []).append(id(value))
                pending.append(inner)
    leading: set[int] = set()
    reached = [place for goal in goals for place in holders.get(goal, ())]
    while reached:
        place = reached.pop()
        if place not in leading:
            leading.add(place)
            reached += holders.get(place, ())
    attributes: dict[int, tuple[str, ...]] = {}
    for part, name, value in starts:
        if id(value) in leading or id(value) in goals:
            attributes[id(part)] = (*attributes.get(id(part), ()), name)
    return Ways(key, attributes, frozenset(leading))


def _held(value: Any) -> Iterable[Any]:
    """What an object of a kind that `Carry` can build anew holds."""
    if isinstance(value, Tensor | nn.Module):
        return ()
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, weakref.ref):
        return (value(),)
    foreign = type(value).__module__.partition(".")[0] in _FOREIGN or hasattr(type(value), "__del__")
    return () if foreign else list(getattr(value, "__dict__", {}).values())


class Carry:
    """Objects anew, with other parts and tensors in the place of those that they hold; all else as it is."""

    def __init__(self, exchanged: dict[int, Any], leading: frozenset[int]) -> None:
        self._made, self._leading = dict(exchanged), leading

    def __call__(self, value: Any) -> Any:
        if id(value) not in self._made:
            if id(value) not in self._leading:
                return value
            self._made[id(value)] = value  # where a tuple or a set holds itself
            self._made[id(value)] = self._anew(value)
        return self._made[id(value)]

    def _anew(self, value: Any) -> Any:
        if isinstance(value, tuple):
            items = [self(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, set | frozenset):
            return type(value)(self(item) for item in value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self(value.__func__), self(value.__self__))
        if isinstance(value, functools.partial):
            words = {key: self(item) for key, item in value.keywords.items()}
            return functools.partial(self(value.func), *(self(item) for item in value.args), **words)
        if isinstance(value, weakref.ref):
            return weakref.ref(self(value()))
        return self._function(value) if isinstance(value, types.FunctionType) else self._holder(value)

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        cells = tuple(types.CellType() for _ in value.__closure__ or ())
        made = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
        self._made[id(value)] = made
        for new, old in zip(cells, value.__closure__ or (), strict=True):
            if old != types.CellType():
                new.cell_contents = self(old.cell_contents)
        made.__dict__.update(value.__dict__)
        made.__defaults__ = None if value.__defaults__ is None else tuple(map(self, value.__defaults__))
        made.__kwdefaults__ = {key: self(item) for key, item in (value.__kwdefaults__ or {}).items()} or None
        return made

    def _holder(self, value: Any) -> Any:
        made: Any = copy.copy(value) if isinstance(value, dict | list) else object.__new__(type(value))
        self._made[id(value)] = made
        if isinstance(value, dict):
            made.update({key: self(item) for key, item in value.items()})
        elif isinstance(value, list):
            made[:] = map(self, value)
        if hasattr(value, "__dict__"):
            made.__dict__.update({key: self(item) for key, item in value.__dict__.items()})
        return made
