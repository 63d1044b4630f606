"""How a module's attributes lead back to its parts and tensors otherwise than by registration, and the same attributes
with other parts and tensors in their place: lists of layers, closures over `self`, bound methods, helper objects,
modules that are not registered. Generators of random numbers are exchanged as well, for one in the same state.
"""

from __future__ import annotations

import copy
import functools
import random
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
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
_FEW = 1000
"""Entries of a list up to which it is looked at whether they are still the same."""
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_SIMPLE = frozenset((int, float, bool, str, type(None)))
_CHANGING = (list, dict, set, deque)
_EVERY_MODULES = frozenset(nn.Module().__dict__)
_CACHED = type(functools.lru_cache(lambda: None))


@dataclass(frozen=True)
class Ways:
    """How a module's attributes lead to its parts and tensors otherwise than by registration."""

    key: tuple[tuple[int, ...], ...]
    attributes: Mapping[int, tuple[str, ...]]
    """Of each part, by its `id`."""
    objects: frozenset[int]
    """The `id` of everything on such a way."""
    draws: tuple[str, ...]
    """Attributes that lead to a generator of random numbers, by the names of their parts."""
    keeps: bool
    """Whether a part can keep what it made of its weights."""


_KNOWN: WeakKeyDictionary[nn.Module, Ways] = WeakKeyDictionary()


def ways_back(root: nn.Module, named: Named) -> Ways:
    """As found the last time, unless a part, an attribute or an entry of a list has come, gone or changed since."""
    key = tuple(_outline(part) for _, part in named)
    known = _KNOWN.get(root)
    if known is None or known.key != key:
        known = _KNOWN[root] = _search(key, named)
    return known


def _outline(part: nn.Module) -> tuple[int, ...]:
    """The `id` of a part, of its own attributes and of what is in them."""
    found = [id(part)]
    for name, value in part.__dict__.items():
        if type(value) not in _SIMPLE and name not in _EVERY_MODULES:
            found.append(id(value))
            if isinstance(value, _CHANGING) and len(value) <= _FEW:
                found += map(id, value.values() if isinstance(value, dict) else value)
    return tuple(found)


def _search(key: tuple[tuple[int, ...], ...], named: Named) -> Ways:
    goals = {id(part) for _, part in named}
    goals |= {id(tensor) for _, part in named for own in (part._parameters, part._buffers) for tensor in own.values()}
    starts = [
        (part, f"{place}.{name}" if place else name, value)
        for place, part in named
        for name, value in part.__dict__.items()
        if name not in ("_parameters", "_buffers", "_modules") and not isinstance(value, _PLAIN)
    ]
    holders: dict[int, list[int]] = {}
    seen: set[int] = set()
    generators: set[int] = set()
    pending = [value for _, _, value in starts]
    while pending and len(seen) < _MANY:
        value = pending.pop()
        if id(value) in seen or id(value) in goals:
            continue
        seen.add(id(value))
        if isinstance(value, GENERATORS):
            generators.add(id(value))
        for inner in _held(value):
            if not isinstance(inner, _PLAIN):
                holders.setdefault(id(inner), []).append(id(value))
                pending.append(inner)
    drawing = _leading(generators, holders) | generators
    leading = _leading(goals, holders) | drawing
    attributes: dict[int, tuple[str, ...]] = {}
    for part, name, value in starts:
        if id(value) in leading or id(value) in goals:
            attributes[id(part)] = (*attributes.get(id(part), ()), name.rpartition(".")[2])
    draws = tuple(name for _, name, value in starts if id(value) in drawing)
    keeps = any(type(part).train is not nn.Module.train or remembered(type(part)) for _, part in named)  # type: ignore[arg-type]
    return Ways(key, attributes, frozenset(leading), draws, keeps)


@functools.cache
def remembered(kind: type[nn.Module]) -> tuple[str, ...]:
    """Properties that a class computes once."""
    every = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    return tuple(name for name, value in every.items() if isinstance(value, functools.cached_property))


def _leading(goals: set[int], holders: Mapping[int, Sequence[int]]) -> set[int]:
    """Whatever leads to some objects."""
    found: set[int] = set()
    reached = [place for goal in goals for place in holders.get(goal, ())]
    while reached:
        place = reached.pop()
        if place not in found:
            found.add(place)
            reached += holders.get(place, ())
    return found


def _held(value: Any) -> Iterable[Any]:
    """What an object of a kind that `Carry` can build anew holds."""
    if type(value) in weakref.ProxyTypes:  # which says that it is an object of the other's class
        return (_behind(value),)
    if isinstance(value, Tensor):
        return ()
    if isinstance(value, nn.Module):  # one that is not registered
        own = value.__dict__
        inside = [entry for name in _REGISTERED for entry in own[name].values()]
        return [*inside, *(entry for name, entry in own.items() if name not in _EVERY_MODULES)]
    if isinstance(value, dict):
        return [*value.values(), getattr(value, "default_factory", None)]
    if isinstance(value, list | tuple | set | frozenset | deque):
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
    if isinstance(value, _CACHED):
        return (value.__wrapped__,)
    foreign = type(value).__module__.partition(".")[0] in _FOREIGN or hasattr(type(value), "__del__")
    return (
        () if foreign else [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in _slots(value))]
    )


_REGISTERED = ("_parameters", "_buffers", "_modules")


def _behind(proxy: Any) -> Any:
    return proxy.__repr__.__self__


def _slots(value: Any) -> Iterator[str]:
    """The slots of an object that hold something."""
    for kind in type(value).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name


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
        if type(value) in weakref.ProxyTypes:
            return weakref.proxy(self(_behind(value)))
        if isinstance(value, GENERATORS):
            return value.clone_state() if isinstance(value, torch.Generator) else copy.deepcopy(value)
        if isinstance(value, tuple):
            return tuple.__new__(type(value), [self(item) for item in value])
        if isinstance(value, set | frozenset):
            return type(value)(self(item) for item in value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self(value.__func__), self(value.__self__))
        if isinstance(value, functools.partial):
            words = {key: self(item) for key, item in value.keywords.items()}
            return functools.partial(self(value.func), *(self(item) for item in value.args), **words)
        if isinstance(value, weakref.ref):
            return weakref.ref(self(value()))
        if isinstance(value, _CACHED):
            return functools.lru_cache(**value.cache_parameters())(self(value.__wrapped__))
        if isinstance(value, nn.Module):
            return self._module(value)
        return self._function(value) if isinstance(value, types.FunctionType) else self._holder(value)

    def _module(self, value: nn.Module) -> nn.Module:
        made: nn.Module = object.__new__(type(value))
        self._made[id(value)] = made
        own = {name: entry if name in _EVERY_MODULES else self(entry) for name, entry in value.__dict__.items()}
        made.__dict__.update(own)
        for name in _REGISTERED:
            made.__dict__[name] = {key: self(entry) for key, entry in value.__dict__[name].items()}
        return made

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
        """A shallow copy with other contents; what cannot be copied stays, and is found out by who compares."""
        try:
            made: Any = copy.copy(value)
        except Exception:
            return value
        self._made[id(value)] = made
        if isinstance(value, dict):
            made.update({key: self(item) for key, item in value.items()})
            if isinstance(value, defaultdict):
                made.default_factory = self(value.default_factory)
        elif isinstance(value, list | deque):
            made.clear()
            made.extend(map(self, value))
        if hasattr(value, "__dict__"):
            made.__dict__.update({key: self(item) for key, item in value.__dict__.items()})
        for name in _slots(value):
            object.__setattr__(made, name, self(getattr(value, name)))
        return made
