"""Random numbers as pure functions of a seed and a place: nothing to save, nothing global to disturb."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Iterator

import numpy as np
import torch

from landscape.errors import LandscapeError


def _sequence(seed: int, place: tuple[str | int, ...]) -> np.random.SeedSequence:
    if seed < 0:
        raise LandscapeError(f"expected a seed of 0 or more, got {seed}")
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) for p in place]
    return np.random.SeedSequence([seed, *words])


def generator(seed: int, *place: str | int) -> np.random.Generator:
    """A generator of its own for one place, for instance `generator(seed, "batches", epoch)`.

    The same seed and place give the same numbers on every machine, whatever was drawn before elsewhere.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, place)))


@contextlib.contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Runs the body with the global generators of torch, numpy and Python seeded for one place, then puts them back.

    For code that is not ours and draws from global generators: dropout, weight initialisation, a data set's
    augmentation.
    """
    word = int(_sequence(seed, place).generate_state(1, np.uint32)[0])
    python, legacy, states = random.getstate(), np.random.get_state(), [g.get_state() for g in _torch_generators()]  # noqa: NPY002
    try:
        for own in _torch_generators():
            own.manual_seed(word)
        random.seed(word)
        np.random.seed(word)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        for own, state in zip(_torch_generators(), states, strict=False):
            own.set_state(state)


def _torch_generators() -> list[torch.Generator]:
    """The CPU's default generator, and those of the GPUs where one is in use."""
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]  # type: ignore[no-untyped-call]
