"""Generators of their own for every place, and global ones put back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from landscape import LandscapeError
from landscape.randomness import generator, seeded
from tests.landscape.examples import fingerprint, untouched

NOTHING = nn.Module()


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_seeded_puts_the_global_generators_back() -> None:
    with untouched(NOTHING), seeded(3, "here"):
        draws()


def test_seeded_puts_the_global_generators_back_after_an_exception() -> None:
    before = fingerprint(NOTHING)
    with pytest.raises(ZeroDivisionError, match="division"), seeded(3, "here"):
        draws()[0] / 0
    assert fingerprint(NOTHING) == before


def test_seeded_draws_depend_on_seed_and_place_alone() -> None:
    found = []
    for seed, place in ((3, ("step", 1)), (3, ("step", 1)), (4, ("step", 1)), (3, ("step", 2)), (3, ("order", 1))):
        draws()  # moves the global generators on, which must not matter
        with seeded(seed, *place):
            found.append(draws())
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_seeded_can_be_nested() -> None:
    with seeded(1):
        first = draws()
        expected = draws()
    with seeded(1):
        assert draws() == first
        with seeded(2):
            draws()
        assert draws() == expected


def test_a_generator_is_a_function_of_seed_and_place() -> None:
    def numbers(seed: int, *place: str | int) -> bytes:
        return generator(seed, *place).standard_normal(4).tobytes()

    assert numbers(5, "batches", 2) == numbers(5, "batches", 2)
    assert (
        len({numbers(5, "batches", 2), numbers(6, "batches", 2), numbers(5, "batches", 3), numbers(5, "order", 2)}) == 4
    )


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(LandscapeError, match="expected a seed of 0 or more, got -1"):
        generator(-1)
    with pytest.raises(LandscapeError, match="expected a seed of 0 or more, got -1"), seeded(-1):
        pass
