"""Calling a user's module as a pure function of its parameters and buffers, and putting back whatever a call
touches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from landscape.errors import LandscapeError
from landscape.trajectory import SHARED, Layout, Slot


@contextlib.contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Runs the body with the module in training or evaluation mode, its embeddings with dense gradients, as parts of
    one theta have; afterwards every submodule's own mode is back.
    """
    before = [(part, part.training) for part in module.modules()]
    sparse = [part for part in module.modules() if isinstance(part, _EMBEDDINGS) and part.sparse]
    try:
        module.train(training)
        dense_gradients(module)
        yield
    finally:
        for part in sparse:
            part.sparse = True
        for part, flag in before:
            part.training = flag


_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def dense_gradients(module: nn.Module) -> None:
    """Makes embeddings give dense gradients: sparse ones cannot go through a view of theta, nor be differentiated."""
    for part in module.modules():
        if isinstance(part, _EMBEDDINGS):
            part.sparse = False


@dataclass(frozen=True)
class BufferLayout:
    """Names, shapes and types of a module's persistent buffers, which a snapshot stores as one float64 vector [Q].

    float64 holds every float32 and every integer below 2^53 exactly. Buffers that a module does not save with its
    state (masks, position numbers) are constants and stay out.
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
        return torch.cat([buffers[slot.name].detach().reshape(-1).to(torch.float64) for slot in self.slots])

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors of their own (no views) by name."""
        if vector.shape != (self.size,):
            raise LandscapeError(f"expected buffers with {self.size} entries, got {tuple(vector.shape)}")
        return {
            slot.name: vector[slot.span].reshape(slot.shape).to(dtype, copy=True)
            for slot, dtype in zip(self.slots, self.dtypes, strict=True)
        }


def buffer_layout(module: nn.Module) -> BufferLayout:
    """The layout of a module's persistent buffers, in the module's order."""
    saved = module.state_dict(keep_vars=True)
    slots, dtypes, offset = [], [], 0
    for name, buffer in module.named_buffers():
        if name in saved:
            slots.append(Slot(name, tuple(buffer.shape), SHARED, offset))
            dtypes.append(buffer.dtype)
            offset += buffer.numel()
    return BufferLayout(tuple(slots), tuple(dtypes))


def own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers by name, for a call that may change them."""
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers()}


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name, tied ones once; all of one floating-point type."""
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
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
