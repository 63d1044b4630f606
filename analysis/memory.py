"""How many bytes of tensors a piece of work takes, as a function of its size, and how to know that they ran out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that were held at once, at most, beyond those that were there before the work began.

    On CUDA what its allocator counts, so that workspaces are in it; the device's peak statistics begin anew. Elsewhere
    every storage that an operation returns, from then until it is freed: neither what an operation takes for itself
    while it runs nor what compiled code allocates (transformer layers that torch evaluates as one operation are taken
    apart to be seen). The work runs once, on a CPU with some 20 microseconds more an
    operation.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _counted(work).peak


def held(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that are still held when the work is done, counted as by `peak`. The work runs once."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.memory_allocated(device) - before
    return _counted(work).now


def _counted(work: Callable[[], object]) -> _Storages:
    storages, fused = _Storages(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with storages:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return storages


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of some work with n items: constant + each n."""

    constant: float
    each: float

    def at(self, items: int) -> float:
        """Bytes with so many items."""
        return self.constant + self.each * items


def need(work: Callable[[int], object], device: torch.device, sizes: tuple[int, int] = (2, 4)) -> Need:
    """The line through the peaks of work with two small numbers of items.

    A peak is the largest of sums that each grow linearly, so the line lies below it where another sum takes over.
    """
    small, large = sizes
    first, second = (peak(partial(work, size), device) for size in sizes)
    each = max(0.0, (second - first) / (large - small))
    return Need(first - each * small, each)


def keep_freed() -> None:
    """Has glibc's allocator keep up to 64 MiB of freed memory, rather than give it back to the system and fetch it
    again for every micro-batch, which can take as long as the arithmetic.

    glibc takes the largest block that was freed, up to 32 MiB, for the size of blocks worth keeping, and keeps twice as
    much. This one is just below, and nobody writes into it, so it takes no memory. Other allocators do not mind.
    """
    torch.UntypedStorage((32 << 20) - (64 << 10))  # type: ignore[no-untyped-call]


MARKS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "cannot allocate memory")
"""By which the allocators' plain RuntimeErrors are known, in lower case."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, on the CPU, in Python or in a library's workspace."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in MARKS)


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.now = 0
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: the first use would else import the compiler, which takes a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(found):
            if storage._cdata not in given and storage._cdata not in self._held:
                self._hold(storage)
        return found

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def freed(_: object) -> None:
            self.now -= size
            del self._held[key]

        self._held[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
