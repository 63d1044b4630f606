"""Calling a user's module as a pure function of its parameters and buffers, and putting back whatever a call
touches.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from landscape.errors import LandscapeError, failures_of
from landscape.trajectory import SHARED, Layout, Slot

EXACT = 1 << 53
_WIDE = (torch.int64, torch.uint64)

PREFIXES = ("module", "_orig_mod")
"""What wrappers put before the names of a module's tensors: parallel and averaged ones, and compiled ones."""


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `DataParallel`, `DistributedDataParallel`, `AveragedModel` and compiled modules."""
    while (key := _wrapper(type(module))) is not None:  # type: ignore[arg-type]
        module = module._modules[key]  # type: ignore[assignment]
    return module


@functools.cache
def _wrapper(kind: type[nn.Module]) -> str | None:
    """Under which name a wrapper has its module; None of what is no wrapper."""
    if issubclass(kind, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        return "module"
    return "_orig_mod" if kind.__name__ == "OptimizedModule" else None


def parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every submodule once, by name, as `named_modules` gives them, wrappers left out of modules and names."""
    seen: set[int] = set()
    pending = [("", module)]
    while pending:
        name, part = pending.pop()
        part = unwrapped(part)
        if id(part) not in seen:
            seen.add(id(part))
            yield name, part
            inside = [(joined(name, key), child) for key, child in part._modules.items() if child is not None]
            pending += reversed(inside)


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, tied ones once, wrappers left out of the names."""
    return _once(((part._parameters, name) for name, part in parts(module)))


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """Buffers by name, each once, wrappers left out of the names."""
    return _once(((part._buffers, name) for name, part in parts(module)))


def persistent(module: nn.Module) -> set[str]:
    """Names of the buffers that a module saves with its state."""
    return {
        joined(name, key)
        for name, part in parts(module)
        for key in part._buffers
        if key not in part._non_persistent_buffers_set
    }


def without_prefixes(name: str) -> str:
    """A tensor's name without what wrappers put before its parts."""
    return ".".join(part for part in name.split(".") if part not in PREFIXES)


_Kind = TypeVar("_Kind", bound=Tensor)


def by_name(tensors: Mapping[str, _Kind], names: Sequence[str], what: str) -> Mapping[str, _Kind]:
    """Tensors under the names asked for, where a wrapper's prefix is all that may differ.

    Raises:
        LandscapeError: one of the names is missing.
    """
    bare = tensors if all(name in tensors for name in names) else {without_prefixes(n): t for n, t in tensors.items()}
    missing = [name for name in names if name not in bare]
    if missing:
        raise LandscapeError(f"the module has no {what} {missing[0]!r}, which the problem's layout expects")
    return bare


def materialise(module: nn.Module, inputs: Any) -> None:
    """Runs a module once, in evaluation mode, if it has parameters or buffers whose shapes its first inputs decide.

    Raises:
        LandscapeError: one that has none afterwards either.
    """
    if _unmade(module):
        with (
            torch.no_grad(),
            mode(module, False),
            failures_of("the first call of the lazy model", "expected it to run"),
        ):
            module(inputs)
    for name in _unmade(module):
        raise LandscapeError(
            f"{name!r} has no shape yet after two examples have gone through the model: expected its module to be "
            "reached in evaluation mode; run the model once before"
        )


def _unmade(module: nn.Module) -> list[str]:
    tensors: dict[str, Any] = {**parameters_of(module), **buffers_of(module)}
    return [name for name, tensor in tensors.items() if is_lazy(tensor)]


def joined(name: str, key: str) -> str:
    """The name of what a part of this name has under a key."""
    return f"{name}.{key}" if name else key


def _once(groups: Iterable[tuple[Mapping[str, Any], str]]) -> dict[str, Any]:
    seen: set[int] = set()
    found = {}
    for tensors, name in groups:
        for key, tensor in tensors.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found[joined(name, key)] = tensor
    return found


@contextlib.contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Runs the body with the module in training or evaluation mode; afterwards every submodule's own mode is back."""
    before = [(part, part.training) for part in module.modules()]
    try:
        module.train(training)
        yield
    finally:
        for part, flag in before:
            part.training = flag


@dataclass(frozen=True)
class BufferLayout:
    """Names, shapes and types of a module's persistent buffers, which a snapshot stores as one float64 vector [Q].

    float64 holds every float32 and every integer below 2^53 exactly; a complex number is two entries, in a last
    dimension of its own. Buffers that a module does not save with its state (masks, position numbers) are constants and
    stay out.
    """

    slots: tuple[Slot, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def size(self) -> int:
        return sum(slot.size for slot in self.slots)

    def pack(self, buffers: Mapping[str, Tensor]) -> Tensor:
        """One float64 vector [Q] on the buffers' device."""
        if not self.slots:
            return torch.zeros(0, dtype=torch.float64)
        return torch.cat([_real(buffers[slot.name].detach()).reshape(-1).to(torch.float64) for slot in self.slots])

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors of their own (no views) by name."""
        if vector.shape != (self.size,):
            raise LandscapeError(f"expected buffers with {self.size} entries, got {tuple(vector.shape)}")
        return {
            slot.name: _of_type(vector[slot.span].reshape(slot.shape), dtype)
            for slot, dtype in zip(self.slots, self.dtypes, strict=True)
        }


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _of_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.view_as_complex(values).to(dtype, copy=True) if dtype.is_complex else values.to(dtype, copy=True)


def buffer_layout(module: nn.Module) -> BufferLayout:
    """The layout of a module's persistent buffers, in the module's order."""
    saved = persistent(module)
    slots, dtypes, offset = [], [], 0
    for name, buffer in buffers_of(module).items():
        if name in saved:
            if buffer.dtype in _WIDE and buffer.numel() and int(buffer.abs().max()) > EXACT:
                raise LandscapeError(
                    f"the buffer {name!r} holds integers above 2^53, which a snapshot cannot store: expected smaller "
                    "ones, or a constant that is not saved; register it with persistent=False"
                )
            shape = tuple(_real(buffer).shape)
            slots.append(Slot(name, shape, SHARED, offset))
            dtypes.append(buffer.dtype)
            offset += math.prod(shape)
    return BufferLayout(tuple(slots), tuple(dtypes))


def own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers by name, for a call that may change them."""
    return {name: buffer.detach().clone() for name, buffer in buffers_of(module).items()}


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name, tied ones once; all of one floating-point type."""
    found = {name: p for name, p in parameters_of(module).items() if p.requires_grad}
    if not found:
        raise LandscapeError("the model has no trainable parameter: expected at least one with requires_grad")
    types = sorted({str(p.dtype) for p in found.values()})
    if len(types) > 1 or not next(iter(found.values())).is_floating_point():
        raise LandscapeError(f"expected trainable parameters of one floating-point type, got {', '.join(types)}")
    return found


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector with copies of all entries, in order."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]) if tensors else torch.zeros(0)


def unflatten(layout: Layout, theta: Tensor) -> dict[str, Tensor]:
    """The tensors of theta by name, as views that gradients pass through (one split, so one concatenation
    backwards).
    """
    if theta.shape != (layout.size,):
        raise LandscapeError(
            f"theta has shape {list(theta.shape)}, the layout expects [{layout.size}] ({len(layout.slots)} tensors); "
            "was it recorded from another model?"
        )
    parts = torch.split(theta, [slot.size for slot in layout.slots])
    return {slot.name: part.reshape(slot.shape) for slot, part in zip(layout.slots, parts, strict=True)}


def index_tensor(index: np.ndarray[tuple[int], np.dtype[np.int64]], device: torch.device) -> Tensor:
    """Positions as a tensor for `index_select`."""
    return torch.from_numpy(np.ascontiguousarray(index)).to(device)
