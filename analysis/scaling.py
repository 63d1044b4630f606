"""Scales of the parameters, for measures of sharpness that do not change when a network is written in another way, and
operators seen in scaled parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from analysis.operators import Operator, SymmetricOperator
from analysis.results import Array
from landscape.errors import LandscapeError
from landscape.trajectory import Layout


class Scale(Protocol):
    """A positive diagonal D [P] that depends on theta; moves are d = D e with a bound on ||e||."""

    @property
    def label(self) -> str: ...

    def of(self, layout: Layout, theta: Array) -> Array:
        """The diagonal at theta, [P] in float64."""
        ...


@dataclass(frozen=True)
class Plain:
    """D = 1: moves are bounded in parameter units."""

    label = "plain"

    def of(self, layout: Layout, theta: Array) -> Array:
        return np.ones(layout.size)


@dataclass(frozen=True)
class Elementwise:
    """D_i = |theta_i|, so that a move is relative to each parameter (Kwon et al., arXiv 2102.11600).

    Measures do not change when the layers of a ReLU network are rescaled without changing its function. A parameter
    that is zero does not move.
    """

    label = "elementwise"

    def of(self, layout: Layout, theta: Array) -> Array:
        return np.asarray(np.abs(np.asarray(theta, np.float64)))


@dataclass(frozen=True)
class PerUnit:
    """D_i is the root mean square of the weights of i's output unit (index 0 of a tensor with two or more dimensions),
    and |theta_i| in other tensors.

    Kwon et al. use the unit's norm; the root mean square, smaller by the square root of the unit's size, makes a radius
    mean the same relative size as in `Elementwise`. Unchanged by rescaling as that is.
    """

    label = "per unit"

    def of(self, layout: Layout, theta: Array) -> Array:
        scale = np.abs(np.asarray(theta, np.float64))
        for slot in layout.slots:
            if len(slot.shape) > 1 and slot.size:
                units = scale[slot.span].reshape(slot.shape[0], -1)
                units[:] = np.sqrt((units**2).mean(1, keepdims=True))
        return scale


@dataclass(frozen=True, eq=False)
class ScaledOperator(Operator):
    """D A D for an operator A and a diagonal D [n]: A in the parameters e, theta = D e. One product of A a product."""

    operator: SymmetricOperator
    diagonal: Tensor

    def __post_init__(self) -> None:
        if self.diagonal.shape != (self.operator.size,):
            raise LandscapeError(
                f"expected a diagonal with {self.operator.size} entries, got {list(self.diagonal.shape)}: take it on "
                "the parameters that the operator is on"
            )

    @property
    def size(self) -> int:
        return self.operator.size

    @property
    def dtype(self) -> torch.dtype:
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        return self.operator.device

    def _product(self, vector: Tensor) -> Tensor:
        scale = self.diagonal.to(self.device, self.dtype)
        return scale * (self.operator @ (scale * vector))

    def _products(self, block: Tensor) -> Tensor:
        scale = self.diagonal.to(self.device, self.dtype)[:, None]
        return scale * (self.operator @ (scale * block))


def scale_on(scale: Scale, layout: Layout, theta: Array, spans: Sequence[slice]) -> Tensor:
    """A scale's diagonal on some slices of theta, side by side, [n] in float64."""
    whole = scale.of(layout, theta)
    return torch.from_numpy(np.concatenate([whole[span] for span in spans]))
