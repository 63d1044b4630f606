"""Paths between two points of parameter space, and the losses of every example along them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
import torch

from analysis.engines import BackingOff, Engine, Sequential
from analysis.examples import Examples, evaluation
from analysis.points import Conditions
from analysis.results import Array
from analysis.subspaces import Place
from landscape.problem import Problem


@dataclass(frozen=True, eq=False)
class Point:
    """A point with its non-trainable state, and its name."""

    name: str
    theta: Array
    """[P] in float64"""
    buffers: Array
    """[Q]"""

    @classmethod
    def at(cls, place: Place) -> Point:
        """A snapshot of a trajectory."""
        return cls(name_of(place), place.theta, place.buffers)


def name_of(place: Place) -> str:
    """`RUN@STEP`, as commands take it."""
    return f"{place.run.name}@{place.run.steps[place.row]}"


class Path(Protocol):
    """A way from one point, at t = 0, to another, at t = 1; buffers are mixed linearly between the ends' own."""

    @property
    def kind(self) -> str: ...

    @property
    def length(self) -> float:
        """In theta."""
        ...

    def theta(self, t: float) -> Array:
        """[P] in float64; the ends exactly at 0 and 1."""
        ...

    def buffers(self, t: float) -> Array:
        """[Q] in float64"""
        ...


@dataclass(frozen=True, eq=False)
class StraightLine:
    """theta(t) = (1 - t) first + t last, of all parameters, heads included."""

    first: Point
    last: Point

    kind = "straight line"

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.last.theta - self.first.theta))

    def theta(self, t: float) -> Array:
        return _mixed(self.first.theta, self.last.theta, t)

    def buffers(self, t: float) -> Array:
        return _mixed(self.first.buffers, self.last.buffers, t)


@dataclass(frozen=True, eq=False)
class Bezier:
    """theta(t) = (1 - t)^2 first + 2 t (1 - t) middle + t^2 last (Garipov et al., arXiv 1802.10026)."""

    first: Point
    last: Point
    middle: Array

    kind = "Bezier curve"

    @property
    def length(self) -> float:
        """The integral of ||theta'(t)||, theta' = p + t q, from the three inner products of p and q."""
        p = 2 * (self.middle - self.first.theta)
        q = 2 * (self.first.theta - 2 * self.middle + self.last.theta)
        pp, pq, qq = float(p @ p), float(p @ q), float(q @ q)
        return float(scipy.integrate.quad(lambda t: np.sqrt(max(pp + 2 * pq * t + qq * t * t, 0.0)), 0, 1)[0])

    def theta(self, t: float) -> Array:
        ends = (1 - t) ** 2 * self.first.theta + t**2 * self.last.theta
        return np.asarray(ends + 2 * t * (1 - t) * self.middle)

    def buffers(self, t: float) -> Array:
        return _mixed(self.first.buffers, self.last.buffers, t)


def _mixed(first: Array, last: Array, t: float) -> Array:
    return np.asarray((1 - t) * first + t * last)


class EachLoss:
    """Losses of every example at given points, under some conditions.

    Cost: one forward pass of the examples a point, and what statistics and heads cost. Memory of one micro-batch's
    activations, and of the losses that are returned.
    """

    def __init__(self, problem: Problem, conditions: Conditions) -> None:
        self._problem = problem
        self._examples: Examples = conditions.examples or evaluation(problem)
        self._runner = BackingOff(conditions.engine or Sequential(problem.micro_batch), problem)
        self._restate, self._refit = conditions.statistics.build(problem), conditions.heads.build(problem)

    @property
    def engine(self) -> Engine:
        """What points are evaluated with now."""
        return self._runner.engine

    def along(self, path: Path, t: Array) -> Iterator[Array]:
        """[T, N] in float64 at each position of a path, in groups of as many points as the engine takes together."""
        together = self.engine.together
        for first in range(0, len(t), together):
            group = [float(place) for place in t[first : first + together]]
            yield from self.at(
                np.stack([path.theta(place) for place in group]), np.stack([path.buffers(place) for place in group])
            )

    def at(self, thetas: Array, buffers: Array) -> Array:
        """[K, T, N] in float64 at parameters [K, P] with buffers [K, Q], at most `together` of them."""
        problem = self._problem
        points = torch.tensor(thetas, dtype=problem.dtype, device=problem.device)
        states = torch.tensor(buffers, dtype=torch.float64, device=problem.device)
        if self._restate is not None:
            states = torch.stack([self._restate(p, s) for p, s in zip(points, states, strict=True)])
        if self._refit is not None:
            points = torch.stack([self._refit(p, s) for p, s in zip(points, states, strict=True)])
        rows = self._runner(points, states)
        tasks = len(problem.tasks)
        pieces = self._examples.batch.pieces(self.engine.at_once)
        found = torch.cat([rows(piece)[:, :tasks].double().cpu() for piece in pieces], 2)
        return np.asarray(found.numpy())
