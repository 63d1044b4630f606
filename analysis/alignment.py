"""Matching the hidden units of two networks: which unit of one stands for which of the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from analysis.permutations import Axis, Group, Orders, expanded, permuted, require_unchanged
from analysis.results import Array
from analysis.routes import Point
from landscape.errors import LandscapeError
from landscape.modules import BufferLayout
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Layout

ROUNDS = 100
NOTHING = 1e-13
"""Gains below this share of the inner product are rounding."""
WORDS = "hidden units of the second point permuted to match the first's by weights"


@dataclass(frozen=True, eq=False)
class Aligned:
    """A point whose hidden units were permuted to match another's."""

    point: Point
    orders: dict[str, Array]
    """For each group, the unit of the point as it was that comes to each place."""
    before: float
    """||theta - reference|| as it was."""
    after: float
    """The same with the units permuted; no larger."""


class Aligner:
    """Matches hidden units of points of one problem.

    Raises:
        LandscapeError: groups whose exchange changes the losses: permutations that the model does not admit.
    """

    def __init__(self, problem: Problem, groups: Sequence[Group], restarts: int = 3, seed: int = 0) -> None:
        if not groups:
            raise LandscapeError("expected at least one group of exchangeable units, got none")
        self.groups = tuple(groups)
        self._problem, self._restarts, self._seed = problem, restarts, seed
        self._known: dict[bytes, dict[str, Array]] = {}

    @property
    def words(self) -> str:
        """What records say of it."""
        units = ", ".join(f"{group.name} {group.size}" for group in self.groups)
        return f"{WORDS} (groups: {units})"

    def __call__(self, reference: Point, other: Point) -> Aligned:
        """`other` with its hidden units permuted so that theta comes as near to the reference's as was found.

        Maximises sum over tensors <W_reference, W_other permuted>, which is to minimise the distance, by weight
        matching (Ainsworth, Hayase and Srinivasa, 2023, arXiv 2209.04836): with all other groups held, the best order
        of one group is a linear assignment (`scipy.optimize.linear_sum_assignment`; within and between the blocks of a
        group norm, one each), groups in turn until nothing is gained. That is a local maximum: it is sought from the
        order as it is, from one made layer after layer in the flow of data, and with random turns of the groups; the
        best is kept, so the distance is never larger than before. Buffers follow and do not enter the match.

        A pair that was matched before is remembered by the hash of both points; one that is not finite stays as it is.

        Cost: for a group of n units with m entries each, n^2 m for the products and at most n^3 for the assignment, a
        few times over.
        """
        problem = self._problem
        if not (np.isfinite(reference.theta).all() and np.isfinite(other.theta).all()):
            return Aligned(other, {group.name: np.arange(group.size) for group in self.groups}, np.nan, np.nan)
        if not self._known:
            require_unchanged(problem, reference.theta, reference.buffers, self.groups, self._seed)
        identity = {group.name: np.arange(group.size) for group in self.groups}
        key = hashlib.sha256(reference.theta.tobytes() + other.theta.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._orders(reference.theta, other.theta, identity)
        orders = self._known[key]
        theta = permuted(other.theta, problem.layout, self.groups, orders)
        buffers = permuted(other.buffers, problem.buffer_layout, self.groups, orders)
        before, after = (float(np.linalg.norm(t - reference.theta)) for t in (other.theta, theta))
        if not after < before:
            return Aligned(other, identity, before, before)
        return Aligned(replace(other, theta=theta, buffers=buffers), orders, before, after)

    def _orders(self, reference: Array, other: Array, identity: Orders) -> dict[str, Array]:
        match = _Match(self._problem.layout, self.groups, reference, other)
        starts = [identity, match.forward()] + [identity] * self._restarts
        rng = generator(self._seed, "alignment")
        return max((match.climbed(start, rng if k > 1 else None) for k, start in enumerate(starts)), key=match.score)


class _Match:
    """The inner product of one network's tensors with another's permuted ones, and how to raise it."""

    def __init__(self, layout: Layout | BufferLayout, groups: Sequence[Group], first: Array, second: Array) -> None:
        self._groups = groups
        self._axes: dict[str, list[tuple[Group, Axis]]] = {}
        for group in groups:
            for axis in group.axes:
                self._axes.setdefault(axis.tensor, []).append((group, axis))
        self._twice = {
            group.name
            for along in self._axes.values()
            for group, axis in along
            if any(other is group and one != axis for other, one in along)
        }
        """Groups on two axes of one tensor, of which an assignment sees one at a time: these need not gain."""
        self._first, self._second = (
            {s.name: vector[s.span].reshape(s.shape) for s in layout.slots if s.name in self._axes}
            for vector in (first, second)
        )

    def score(self, orders: Orders) -> float:
        """The sum over tensors of the inner product."""
        return sum(
            float(np.vdot(mine, self._moved(name, orders, lambda *_: True))) for name, mine in self._first.items()
        )

    def forward(self) -> dict[str, Array]:
        """Orders made group after group, each from the tensors whose other axes are decided."""
        decided: dict[str, Array] = {}
        for group in self._groups:
            known = [a for a in group.axes if self._others(a) <= set(decided)]
            decided[group.name] = _assigned(self._gains(group, decided, known), group.blocks)
        return decided

    def climbed(self, start: Orders, rng: np.random.Generator | None) -> dict[str, Array]:
        """Orders from which no group alone can gain; groups take turns in their order, or in one drawn each round."""
        orders, best = dict(start), self.score(start)
        for _ in range(ROUNDS):
            before = best
            turns = range(len(self._groups)) if rng is None else rng.permutation(len(self._groups))
            for k in turns:
                group = self._groups[int(k)]
                gains = self._gains(group, orders, group.axes)
                trial = {**orders, group.name: _assigned(gains, group.blocks)}
                score = self.score(trial) if group.name in self._twice else best + _change(gains, orders, trial, group)
                if score > best + NOTHING * abs(best):
                    orders, best = trial, score
            if not best > before:
                break
        return orders

    def _others(self, axis: Axis) -> set[str]:
        """The groups along the other axes of a tensor, the same one perhaps among them."""
        return {group.name for group, other in self._axes[axis.tensor] if other != axis}

    def _gains(self, group: Group, orders: Orders, axes: Sequence[Axis]) -> Array:
        """What is gained by putting unit j in place i, [n, n]."""
        gains = np.zeros((group.size, group.size))
        for axis in axes:
            if axis.tensor not in self._first:
                continue
            moved = self._moved(axis.tensor, orders, lambda _, a, own=axis: a != own)
            rows = (np.moveaxis(t, axis.axis, 0).reshape(group.size, -1) for t in (self._first[axis.tensor], moved))
            mine, theirs = rows
            gains += mine @ theirs.T
        return gains

    def _moved(self, name: str, orders: Mapping[str, Array], wanted: Callable[..., bool]) -> Array:
        tensor = self._second[name]
        for group, axis in self._axes[name]:
            if group.name in orders and wanted(group, axis):
                tensor = np.take(tensor, expanded(orders[group.name], axis.repeat), axis.axis)
        return tensor


def _change(gains: Array, before: Orders, after: Orders, group: Group) -> float:
    """What a group's new order gains over its old one."""
    places = np.arange(group.size)
    return float(gains[places, after[group.name]].sum() - gains[places, before[group.name]].sum())


def _assigned(gains: Array, blocks: int) -> Array:
    """The order of largest gain, [n]; with blocks, the best that keeps each together."""
    inside = len(gains) // blocks
    if blocks == 1 or inside == 1:
        return np.asarray(scipy.optimize.linear_sum_assignment(gains, maximize=True)[1])
    worth, order = np.zeros((blocks, blocks)), np.zeros((blocks, blocks, inside), np.int64)
    for i in range(blocks):
        for j in range(blocks):
            part = gains[i * inside : (i + 1) * inside, j * inside : (j + 1) * inside]
            order[i, j] = scipy.optimize.linear_sum_assignment(part, maximize=True)[1]
            worth[i, j] = part[np.arange(inside), order[i, j]].sum()
    chosen = scipy.optimize.linear_sum_assignment(worth, maximize=True)[1]
    return np.concatenate([j * inside + order[i, j] for i, j in enumerate(chosen)])
