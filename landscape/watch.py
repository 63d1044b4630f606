"""A module that somebody else trains, read by name: where theta is in it now, and whether it is still the problem's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from landscape.content import fingerprint, hash_of
from landscape.errors import LandscapeError, LandscapeWarning
from landscape.modules import buffer_layout, flatten, parameters_of, unwrapped, without_prefixes
from landscape.trajectory import SHARED, UNUSED, Slot

if TYPE_CHECKING:
    from landscape.problem import Problem

NAMED = 4
"""So many names stand in a message."""
_TRAIN = "make the problem with everything trainable that will ever train, freeze afterwards what does not yet"
_SAME = "give the module that the problem was made with"
_FROZEN = "load weights before the problem is made, and make what moves without a gradient a buffer"


class Watch:
    """Reads the shared parameters and says what is no longer as the problem has it; keeps no reference to a tensor.

    `module` is asked for the module at every reading, so that one that was replaced is seen; `when` for the moment, in
    words, where something is to be said.
    """

    def __init__(self, problem: Problem, module: Callable[[], nn.Module], when: Callable[[], str]) -> None:
        self._problem, self._module, self._when = problem, module, when
        self._slots = {slot.name: slot for slot in problem.layout.slots}
        self._shared = [slot for slot in problem.layout.slots if slot.owner == SHARED]
        self._unused = [slot.name for slot in problem.layout.slots if slot.owner == UNUSED]
        self._size = problem.layout.count()
        self._places: list[tuple[list[str], str]] = []
        self._dtypes: dict[str, torch.dtype] = {}
        self._outside: dict[str, Tensor] | None = None
        self._resting: set[str] = set()

    def begin(self) -> None:
        """Finds the parameters.

        Raises:
            LandscapeError: the module has other parameters than the problem, or other weights that do not train.
        """
        self._outside, self._resting = None, set()
        found = self._found()
        self._dtypes = {name: p.dtype for name, p in found.items()}
        trained = [name for name, p in found.items() if p.requires_grad]
        for why, advice in self._differences(found):
            raise LandscapeError(
                f"the model has other trainable parameters than the problem: expected {len(self._slots)} "
                f"({self._problem.layout.describe()}), got {len(trained)}; {advice}: {why}"
            )
        frozen = {name: p for name, p in found.items() if name not in self._slots}
        if hash_of(frozen) != self._problem.frozen_hash:
            raise LandscapeError(
                f"the model's frozen parameters ({_few(frozen)}) are not those that the problem was made with: "
                f"expected the hash {self._problem.frozen_hash}, got {hash_of(frozen)}; {_FROZEN}"
            )
        self._outside = {name: fingerprint(p).cpu() for name, p in frozen.items()}
        self._say_what_rests(found)

    def shared(self) -> Tensor:
        """A copy of the shared parameters as they are now. Cost: a look-up a tensor, and the copy."""
        try:
            now = flatten(self.parameters())
        except (KeyError, AttributeError, TypeError):
            self.require()
            raise
        if now.numel() != self._size:
            self.require()
        return now

    def parameters(self) -> list[Tensor]:
        """The shared parameters themselves, as they are now."""
        module = self._module()
        return [_at(module, place) for place in self._places]

    def every(self) -> list[nn.Parameter]:
        """All parameters of the module, as they are now."""
        return list(self._found().values())

    def look_at_unused(self) -> None:
        """Warns at the first gradient that reaches a parameter of which no evaluation example has one."""
        if self._unused and not self._problem.warned:
            found = self._found()
            self._problem.warn_of_unused(self._unused, [found[name].grad for name in self._unused])

    def require(self) -> None:
        """Raises unless the module still has the problem's parameters, and the others are what they were.

        Cost: one pass over the parameters that are not part of theta.

        Raises:
            LandscapeError: with the names of what was added, taken away, replaced by another shape or type, or moved.
        """
        found = self._found()
        for why, advice in self._differences(found):
            raise LandscapeError(
                f"the model is no longer the problem's {self._when()}: {why}; {advice}, and record anew"
            )
        self._say_what_rests(found)

    def _found(self) -> dict[str, nn.Parameter]:
        """The module's parameters, by the layout's names where they have wrappers' prefixes."""
        own = parameters_of(self._module())
        plain = own if own.keys() >= self._slots.keys() else {without_prefixes(name): p for name, p in own.items()}
        names = dict(zip(plain, own, strict=True)) if len(plain) == len(own) else dict(zip(own, own, strict=True))
        whole = [names.get(slot.name, slot.name).split(".") for slot in self._shared]
        self._places = [(parts, name) for *parts, name in whole]
        return plain

    def _differences(self, found: Mapping[str, nn.Parameter]) -> Iterable[tuple[str, str]]:
        """What is not as it was, with what to do about it."""
        missing = [name for name in self._slots if name not in found]
        added = [name for name, p in found.items() if name not in self._slots and p.requires_grad]
        if missing:
            new = f" ({_few(added)} instead)" if added else ""
            yield f"{_few(missing)} {_is(missing)} not there{new}", _SAME
        if added:
            yield f"{_few(added)} {'trains' if len(added) == 1 else 'train'} and {_is(added)} not part of theta", _TRAIN
        for name, p in found.items():
            slot, dtype = self._slots.get(name, Slot(name, tuple(p.shape), "", 0)), self._dtypes.get(name, p.dtype)
            if tuple(p.shape) != slot.shape:
                yield f"{name} has the shape {list(p.shape)}, not {list(slot.shape)}", _SAME
            if p.dtype != dtype:
                yield f"{name} is of type {p.dtype}, not {dtype}", _SAME
        yield from self._of_buffers()
        if self._outside is not None and (moved := self._moved(found, self._outside)):
            yield f"{_few(moved)} changed and {_is(moved)} not part of theta", _FROZEN

    def _moved(self, found: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> list[str]:
        now = {name: fingerprint(p).cpu() for name, p in found.items() if name not in self._slots}
        every = dict.fromkeys((*before, *now))
        return [n for n in every if n not in now or n not in before or not torch.equal(now[n], before[n])]

    def _of_buffers(self) -> Iterable[tuple[str, str]]:
        mine, theirs = self._problem.buffer_layout, buffer_layout(self._module())
        before, now = ([(s.name, s.shape, d) for s, d in zip(b.slots, b.dtypes, strict=True)] for b in (mine, theirs))
        if mine == theirs or before == [(without_prefixes(name), shape, dtype) for name, shape, dtype in now]:
            return
        others = dict.fromkeys(name for name, *_ in set(before) ^ set(now))
        yield (
            f"the {'buffer' if len(others) == 1 else 'buffers'} {_few(sorted(others))} {_is(others)} not as before",
            _SAME,
        )

    def _say_what_rests(self, found: Mapping[str, nn.Parameter]) -> None:
        """Parameters of theta that do not train now stay part of it: right, but worth a word, once."""
        resting = {name for name in self._slots if not found[name].requires_grad}
        new = sorted(resting - self._resting, key=list(self._slots).index)
        self._resting = resting
        if new:
            warnings.warn(
                f"{_few(new)} {_is(new)} part of theta and {'does' if len(new) == 1 else 'do'} not require a gradient "
                "now: recording goes on, and the distances count what moves",
                LandscapeWarning,
                stacklevel=4,
            )


def _at(module: Any, place: tuple[Sequence[str], str]) -> Tensor:
    parts, name = place
    module = unwrapped(module)
    for part in parts:
        module = unwrapped(module._modules[part])
    found: Tensor = module._parameters[name]
    return found


def _few(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _is(names: Iterable[str]) -> str:
    return "is" if len(list(names)) == 1 else "are"
