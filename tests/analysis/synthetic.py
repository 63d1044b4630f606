"""Trajectory files with chosen snapshots, so that every distance, plane and spectrum has a known answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.results import Plane
from landscape import store
from landscape.modules import BufferLayout
from landscape.trajectory import SHARED, History, Layout, Provenance, Slot, Snapshot, Trajectory


def layout_of(*tensors: tuple[str, tuple[int, ...], str]) -> Layout:
    """A layout of tensors (name, shape, owner), one after the other."""
    slots, offset = [], 0
    for name, shape, owner in tensors:
        slots.append(Slot(name, shape, owner, offset))
        offset += slots[-1].size
    return Layout(tuple(slots))


def flat_layout(size: int) -> Layout:
    """One shared matrix of two columns, or a shared vector where the size is odd."""
    return layout_of(("weight", (size // 2, 2) if size % 2 == 0 else (size,), SHARED))


def write_run(
    path: Path,
    theta: Any,
    layout: Layout | None = None,
    *,
    buffers: Any = None,
    losses: Any = None,
    label: str = "walk",
    seed: int = 0,
    rate: float = 0.1,
    steps: Sequence[int] | None = None,
    updates: Sequence[int] | None = None,
    seconds: Sequence[float] | None = None,
    paths: tuple[Any, Any] | None = None,
    tasks: tuple[str, ...] = ("one", "two"),
    dtype: type = np.float64,
) -> Trajectory:
    """Writes snapshots theta [S, P] through the toolkit's own writer and opens the file.

    Path lengths default to the sums over the snapshots' shared parts, as if every step had been stored.
    """
    theta = np.asarray(theta, dtype)
    count, layout = len(theta), flat_layout(theta.shape[1]) if layout is None else layout
    buffers = np.zeros((count, 0)) if buffers is None else np.asarray(buffers, np.float64)
    losses = np.zeros((count, len(tasks))) if losses is None else np.asarray(losses, np.float64)
    steps = list(range(count)) if steps is None else list(steps)
    updates = steps if updates is None else list(updates)
    seconds = [0.5 * step for step in steps] if seconds is None else list(seconds)
    moved = np.linalg.norm(np.diff(theta[:, layout.index()].astype(np.float64), axis=0), axis=1)
    path_lengths = np.concatenate([[0.0], np.cumsum(moved)])
    over_steps, over_updates = (path_lengths, path_lengths) if paths is None else paths
    states = BufferLayout(
        (Slot("norm.running_mean", (buffers.shape[1],), SHARED, 0),) if buffers.shape[1] else (),
        (torch.float64,) if buffers.shape[1] else (),
    )
    who = Provenance(
        strategy=f"{label.capitalize()}()",
        label=label,
        seed=seed,
        rate=rate,
        problem="made up",
        settings={},
        tasks=tasks,
        metrics=(),
        data="0" * 16,
        frozen="0" * 16,
    )
    with store.writer(path, who, layout, states, np.dtype(dtype)) as writer:
        for row in range(count):
            writer.append(
                Snapshot(
                    step=steps[row],
                    updates=updates[row],
                    gradients=2 * updates[row],
                    seconds=seconds[row],
                    path_steps=float(over_steps[row]),
                    path_updates=float(over_updates[row]),
                    theta=theta[row],
                    buffers=buffers[row],
                    losses=losses[row],
                    metrics=np.zeros(0),
                    history=History(np.zeros(0, np.int64), np.zeros((0, len(tasks))), np.zeros(0), np.zeros(0)),
                )
            )
        writer.finish()
    return store.open(path)


def plane_of(basis: Any, origin: Any = None, buffers: Any = ()) -> Plane:
    """A plane with this basis, of theta in `flat_layout`."""
    basis = np.asarray(basis, np.float64)
    return Plane(
        origin=np.zeros(basis.shape[1]) if origin is None else np.asarray(origin, np.float64),
        basis=basis,
        gram=basis @ basis.T,
        buffers=np.asarray(buffers, np.float64),
        explained=np.full(2, np.nan),
        recipe="by hand",
        axes=("first", "second"),
        seed=-1,
        layout=flat_layout(basis.shape[1]).hash,
    )


class Told:
    """A `Progress` that remembers what it was told: stages in order, each with its amount and what was done of it."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.amounts: list[int] = []
        self.told: list[int] = []
        self.notes: list[str] = []
        self.said: list[str] = []

    def begin(self, stage: str, amount: int) -> None:
        self.stages.append(stage)
        self.amounts.append(amount)
        self.told.append(0)

    def tell(self, amount: int) -> None:
        self.told[-1] += amount

    def end(self, note: str) -> None:
        self.notes.append(note)

    def say(self, text: str) -> None:
        self.said.append(text)


class EverySecond:
    """A training set of every second example of another one."""

    def __init__(self, whole):
        self.whole = whole

    def __len__(self):
        return len(self.whole) // 2

    def take(self, rows):
        return self.whole.take(2 * np.asarray(rows))


def with_another_loss(problem):
    """The problem's tasks, the first with a loss of 1.05 times as much."""
    first, *others = problem.tasks
    return (replace(first, loss=lambda p, y: 1.05 * first.loss(p, y)), *others)
