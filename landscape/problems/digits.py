"""Two overlapping handwritten digits: which is the first, which is the second, and what the first looked like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem, Task
from landscape.randomness import generator
from landscape.trajectory import Array

SIDE = 8
CLASSES = 10
EVALUATION_SCANS = 500
"""Of the 1,797 scans, how many are kept for the evaluation set alone."""


class DigitsNet(nn.Module):
    """Three convolutions and a layer shared by all tasks, and one linear head a task."""

    def __init__(self, width: int, features: int, norm: str, canvas: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_block(1, width, 1, norm),
            *_block(width, 2 * width, 2, norm),
            *_block(2 * width, 2 * width, 2, norm),
            nn.Flatten(),
            nn.Linear(2 * width * ((canvas + 3) // 4) ** 2, features),
            nn.ReLU(),
        )
        self.first = nn.Linear(features, CLASSES)
        self.second = nn.Linear(features, CLASSES)
        self.picture = nn.Linear(features, SIDE * SIDE)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        shared = self.trunk(inputs)
        return {"first": self.first(shared), "second": self.second(shared), "picture": self.picture(shared)}


def _block(before: int, after: int, stride: int, norm: str) -> list[nn.Module]:
    layers: dict[str, Any] = {
        "group": lambda: [nn.GroupNorm(max(1, after // 4), after)],
        "batch": lambda: [nn.BatchNorm2d(after)],
        "none": list,
    }
    if norm not in layers:
        raise unknown("norm", norm, layers)
    return [nn.Conv2d(before, after, 3, stride, 1), *layers[norm](), nn.ReLU()]


def make(
    norm: str = "group",
    width: int = 12,
    features: int = 64,
    offset: int = 4,
    train: int = 4000,
    evaluation: int = 512,
    seed: int = 0,
) -> Problem:
    """Three tasks on pictures of two overlapping digits, composed from scikit-learn's 1,797 real 8x8 scans.

    The first digit lies at the top left of a canvas of (8 + offset)^2 pixels, the second `offset` pixels further down
    and right; where they overlap the brighter pixel is kept. Tasks: `first` and `second`, the class of each digit
    (cross- entropy, accuracy); `picture`, the first digit's clean scan (half the summed squared error of its 64
    pixels in [0, 1], mean absolute error). No scan is in both the training and the evaluation set.

    Args:
        norm: `group`, `batch` or `none`.
        width, features: channels of the first convolution (twice as many later) and width of the last shared layer;
            the defaults give 27,412 parameters.
        offset: 0 (on top of each other) to 8 (apart).
        train, evaluation: how many pictures are composed.
        seed: draws the split of the scans and the pairs; the weights follow the seed of the run.
    """
    if not 0 <= offset <= SIDE:
        raise LandscapeError(f"expected an offset of 0 to {SIDE} pixels, got {offset}")
    if min(width, features, train, evaluation) < 1:
        raise LandscapeError("expected width, features, train and evaluation of 1 or more")
    from sklearn.datasets import load_digits  # takes as long to import as torch, which every command would wait for

    scans = load_digits()
    images, labels = (scans.images / 16).astype(np.float32), scans.target.astype(np.int64)
    order = generator(seed, "digits", "split").permutation(len(labels))
    pools = {"evaluation": order[:EVALUATION_SCANS], "train": order[EVALUATION_SCANS:]}
    train_set, evaluation_set = (
        _compose(images, labels, pools[name], count, offset, generator(seed, "digits", name))
        for name, count in (("train", train), ("evaluation", evaluation))
    )
    tasks = [
        Task("first", _cross_entropy, {"accuracy": _accuracy}),
        Task("second", _cross_entropy, {"accuracy": _accuracy}),
        Task("picture", _half_squared_error, {"absolute error": _absolute_error}),
    ]
    return Problem(lambda: DigitsNet(width, features, norm, SIDE + offset), tasks, train_set, evaluation_set)


def _compose(
    images: Array, labels: Array, pool: Array, count: int, offset: int, rng: np.random.Generator
) -> TensorDataset:
    first, second = rng.choice(pool, count), rng.choice(pool, count)
    canvas = np.zeros((2, count, 1, SIDE + offset, SIDE + offset), np.float32)
    canvas[0, :, 0, :SIDE, :SIDE] = images[first]
    canvas[1, :, 0, offset:, offset:] = images[second]
    parts = (canvas.max(0), labels[first], labels[second], images[first].reshape(count, -1))
    return TensorDataset(*map(torch.from_numpy, parts))


def _cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


def _accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.argmax(1) == target).to(prediction.dtype)


def _half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    return 0.5 * ((prediction - target) ** 2).sum(1)


def _absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().mean(1)
