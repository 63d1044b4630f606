"""Which hidden units a model lets one exchange, and how its parameters and buffers follow.

Exchanging hidden units of one layer, and the inputs of the layers that read them in the same way, leaves what a network
computes as it was. `analysis.tracing` finds the groups of such units from the flow of data; a user can name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.results import Array
from landscape.errors import LandscapeError, unknown
from landscape.modules import BufferLayout
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Layout

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest relative change of an example's loss when units are exchanged: sums in another order, layer upon layer."""
EXAMPLES = 32


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor that runs over the units of a group, `repeat` neighbouring entries for each unit."""

    tensor: str
    axis: int
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """Hidden units that can be exchanged with each other, and every axis of a parameter or buffer that follows.

    With `blocks` (groups of a group norm) only such exchanges are allowed that keep blocks together: blocks with each
    other, and units within a block.
    """

    name: str
    size: int
    axes: tuple[Axis, ...]
    blocks: int = 1


def named_groups(problem: Problem, given: Mapping[str, Sequence[Sequence[object]]]) -> tuple[Group, ...]:
    """Groups of a user: a name, and pairs of a tensor's name and an axis; a third number is the count of blocks.

    The units are as many as the shortest of the axes has entries; a longer one, as after a flattened convolution, has
    several neighbouring entries a unit.

    Raises:
        LandscapeError: an unknown tensor, an axis that it does not have, or lengths that are no multiple of the units.
    """
    shapes = _shapes(problem)
    found = []
    for name, pairs in given.items():
        axes = [_pair(name, pair, shapes) for pair in pairs]
        if not axes:
            raise LandscapeError(f"the group {name!r} has no axes: expected pairs of a tensor's name and an axis")
        size = min(length for _, _, length in axes)
        for tensor, axis, length in axes:
            if length % size:
                raise LandscapeError(
                    f"the group {name!r} has {size} units: expected a multiple of that along every axis, got {length} "
                    f"along axis {axis} of {tensor!r}"
                )
        found.append(Group(name, size, tuple(Axis(tensor, axis, length // size) for tensor, axis, length in axes)))
    return tuple(found)


def _pair(group: str, pair: Sequence[object], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int, int]:
    match list(pair):
        case [str(tensor), int(axis)]:
            if tensor not in shapes:
                raise unknown(f"tensor in the group {group!r}", tensor, shapes)
            if not 0 <= axis < len(shapes[tensor]):
                raise LandscapeError(
                    f"{tensor!r} has the shape {list(shapes[tensor])}: expected one of its axes, got {axis}"
                )
            return tensor, axis, shapes[tensor][axis]
    raise LandscapeError(f"expected a tensor's name and an axis in the group {group!r}, got {pair!r}")


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    return {slot.name: slot.shape for slot in (*problem.layout.slots, *problem.buffer_layout.slots)}


Orders = Mapping[str, Array]
"""For each group, by its name, which unit comes to each place [size]."""


def permuted(vector: Array, layout: Layout | BufferLayout, groups: Sequence[Group], orders: Orders) -> Array:
    """Theta [P] (or buffers [Q]) with the units of all groups in another order; no number is changed, only moved."""
    tensors = {slot.name: vector[slot.span].reshape(slot.shape) for slot in layout.slots}
    for group in groups:
        for axis in group.axes:
            if axis.tensor in tensors:
                tensors[axis.tensor] = np.take(
                    tensors[axis.tensor], expanded(orders[group.name], axis.repeat), axis.axis
                )
    return np.concatenate([tensors[slot.name].ravel() for slot in layout.slots]) if layout.slots else vector[:0]


def expanded(order: Array, repeat: int) -> Array:
    """The order of neighbouring entries, `repeat` a unit."""
    return np.asarray((order[:, None] * repeat + np.arange(repeat)).ravel())


def drawn(groups: Sequence[Group], seed: int) -> dict[str, Array]:
    """A random allowed order of every group."""
    rng = generator(seed, "permutations")
    found = {}
    for group in groups:
        inside = group.size // group.blocks
        blocks = [block * inside + rng.permutation(inside) for block in rng.permutation(group.blocks)]
        found[group.name] = np.concatenate(blocks)
    return found


def require_unchanged(problem: Problem, theta: Array, buffers: Array, groups: Sequence[Group], seed: int = 0) -> None:
    """Raises unless random exchanges of units leave the losses of a few examples as they were.

    Cost: two forward passes of a few examples.
    """
    orders, few = drawn(groups, seed), problem.evaluation[:EXAMPLES]
    both = []
    for vector, state in (
        (theta, buffers),
        (permuted(theta, problem.layout, groups, orders), permuted(buffers, problem.buffer_layout, groups, orders)),
    ):
        point = torch.tensor(vector, dtype=problem.dtype, device=problem.device)
        with torch.no_grad():
            both.append(problem.losses(point, few, torch.tensor(state)).double())
    scale = both[0].abs().max()
    change = float((both[1] - both[0]).abs().max() / scale) if scale else 0.0
    limit = TOLERANCES.get(problem.dtype, 0.05)
    if not change <= limit:
        raise LandscapeError(
            f"exchanging hidden units of {', '.join(group.name for group in groups)} changes losses by {change:.2g} of "
            f"the largest: expected at most {limit:g}, as rounding does; name the groups of units yourself"
        )
