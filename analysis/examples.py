"""The examples that losses are measured on: frozen, hashed, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.problem import Problem
from landscape.randomness import generator


@dataclass(frozen=True, eq=False)
class Examples:
    """Some examples on the problem's device, with their content hash."""

    batch: Batch
    hash: str
    split: str
    """`evaluation` or `training`."""

    def __len__(self) -> int:
        return len(self.batch)


def evaluation(problem: Problem) -> Examples:
    """The problem's frozen evaluation set."""
    return Examples(problem.evaluation, problem.data_hash, "evaluation")


def training(problem: Problem, count: int = 1024, seed: int = 0) -> Examples:
    """`count` examples of the training set, or all where it has fewer: a random choice that the seed draws once."""
    if count < 1:
        raise LandscapeError(f"expected 1 or more training examples, got {count}")
    drawn = generator(seed, "training examples").permutation(len(problem.train))[:count]
    batch = problem.train.take(np.sort(drawn)).to(problem.device, problem.dtype)
    return Examples(batch, batch.hash(), "training")
