"""Whom each tensor of theta belongs to: what the user states, and what gradients over all examples show."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import Tensor

from landscape.data import Batch
from landscape.errors import LandscapeError, LandscapeWarning, failures_of, unknown
from landscape.purity import require_no_reentrant_checkpoint
from landscape.randomness import generator
from landscape.trajectory import SHARED, UNUSED

Leaves: TypeAlias = dict[str, Tensor]
Losses: TypeAlias = Callable[[Leaves, Batch], Sequence[Tensor]]
"""(tensors of theta by name, examples) -> the losses of every task, [B] each."""

HALF = (torch.float16, torch.bfloat16)
RAISED = (1.0, 4096.0)
"""Multiples of losses in half precision whose gradients are looked at: small ones would be rounded to zero."""

NOISE = 0.1
"""How far a tensor of the second theta is from the first, relative to its root mean square."""


@dataclass(frozen=True)
class Stated:
    """What the user says: glob patterns of names that count as shared, and those of each task's head."""

    shared: tuple[str, ...]
    heads: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, shared: Sequence[str], heads: Mapping[str, Sequence[str] | str]) -> Stated:
        """A pattern alone counts as one."""
        alone = {task: (given,) if isinstance(given, str) else tuple(given) for task, given in heads.items()}
        return cls((shared,) if isinstance(shared, str) else tuple(shared), alone)

    def require(self, names: Sequence[str], tasks: Sequence[str]) -> None:
        """Raises for an unknown task, a pattern that matches no parameter, or a parameter that has two owners."""
        for task in self.heads:
            if task not in tasks:
                raise unknown("task in heads", task, tasks)
        for pattern in (*self.shared, *(pattern for patterns in self.heads.values() for pattern in patterns)):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise LandscapeError(
                    f"the pattern {pattern!r} matches no trainable parameter: expected names such as {names[0]!r} or "
                    f"{names[-1]!r}, with * for any characters"
                )
        for name in names:
            owners = self._owners(name)
            if len(owners) > 1:
                raise LandscapeError(
                    f"parameter {name!r} is stated to be {' and '.join(owners)}: expected one owner; narrow a pattern"
                )

    def owner(self, name: str) -> str | None:
        """The owner that is stated, if any."""
        owners = self._owners(name)
        return owners[0] if owners else None

    def _owners(self, name: str) -> list[str]:
        stated = {SHARED: self.shared, **self.heads}
        return [owner for owner, patterns in stated.items() if any(fnmatchcase(name, p) for p in patterns)]


def second_theta(leaves: Leaves, seed: int = 0) -> Leaves:
    """Tensors a tenth off, in which nothing is zero: where an adapter or a branch starts at zero, the gradients of
    what stands before it are zero as well, and say nothing.
    """
    rng, moved = generator(seed, "second theta"), {}
    for name, tensor in leaves.items():
        size = float(tensor.detach().double().square().mean().sqrt()) if tensor.numel() else 0.0
        noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape))).to(tensor.device, tensor.dtype)
        moved[name] = tensor.detach() + NOISE * (size or NOISE) * noise
    return moved


def find_owners(
    tasks: Sequence[str], leaves: Leaves, losses: Losses, few: Batch, batches: Iterable[Batch], stated: Stated
) -> tuple[list[str], Tensor]:
    """The owner of every tensor, and the losses [T, n] of all batches that were looked at, at the second theta.

    Owners are as stated; else `shared` where the losses of several tasks depend on it, the one task
    where those of one do, `unused` where none does.

    A loss depends on a tensor if its gradient is not zero, on a few examples at this theta or on some batch at a theta
    near it. A gradient that is there and zero counts only where no loss depends on the tensor, or the loss on none; so
    does one that is never finite. A single task shares all. Cost: a gradient of the few examples, and one forward pass
    of all batches: tensors that all tasks were seen to depend on need no gradient any more.

    Warns of tensors on which losses depend and that no gradient reaches.

    Raises:
        LandscapeError: a task that no tensor reaches; gradients that cannot be taken; a tensor of several tasks that
            none of the patterns given matches.
    """
    names = list(leaves)
    stated.require(names, tasks)
    seen, moved = _Seen(tasks, names), second_theta(leaves)
    seen.look(leaves, losses, few)
    for batch in batches:
        if seen.certain:
            break
        seen.look(moved, losses, batch)
    seen.require_each_reaches()
    _warn_of_lost(leaves, moved, [name for name in names if not seen.reached_by(name)], losses, few)
    owners = [stated.owner(name) or _found(name, seen.reached_by(name), tasks, stated) for name in names]
    none = seen.losses[0][:, :0]
    return owners, torch.cat([none, *seen.losses[1:]], 1)


def _warn_of_lost(leaves: Leaves, moved: Leaves, unreached: Sequence[str], losses: Losses, few: Batch) -> None:
    """Warns where losses depend on tensors that no gradient reaches."""
    if not unreached:
        return
    with torch.no_grad():
        before = torch.stack(list(losses(leaves, few)))
        after = torch.stack(list(losses({**leaves, **{name: moved[name] for name in unreached}}, few)))
    if not torch.equal(before.nan_to_num(), after.nan_to_num()):
        warnings.warn(
            f"losses depend on {', '.join(map(repr, unreached))}, but no gradient reaches it: it counts as unused; is "
            "it behind a detach, a no_grad or a checkpoint without use_reentrant=False? If that is meant, give it "
            "requires_grad=False",
            LandscapeWarning,
            stacklevel=4,
        )


def _found(name: str, by: Sequence[str], tasks: Sequence[str], stated: Stated) -> str:
    if not by:
        return UNUSED
    if len(tasks) == 1:
        return SHARED
    if len(by) == 1:
        return by[0]
    if stated.shared:
        raise LandscapeError(
            f"parameter {name!r} is reached by the tasks {', '.join(by)} but matches none of the shared patterns "
            f"{', '.join(stated.shared)}: add a pattern that matches it, or say in heads whose it is"
        )
    return SHARED


class _Seen:
    """Of every task, the tensors that its losses were seen to depend on, and those that a graph leads to."""

    def __init__(self, tasks: Sequence[str], names: Sequence[str]) -> None:
        self._tasks, self._names = tasks, names
        self._depends: list[set[str]] = [set() for _ in tasks]
        self._linked: list[set[str]] = [set() for _ in tasks]
        self._zero: list[set[str]] = [set() for _ in tasks]
        self.losses: list[Tensor] = []

    @property
    def certain(self) -> bool:
        return all(len(found) == len(self._names) for found in self._depends)

    def look(self, leaves: Leaves, losses: Losses, batch: Batch) -> None:
        open_to = {name for name in self._names if any(name not in found for found in self._depends)}
        given = {name: tensor.detach().requires_grad_(name in open_to) for name, tensor in leaves.items()}
        what = "taking gradients of the model's losses"
        expected = "expected a model that torch.autograd.grad takes"
        with torch.enable_grad(), failures_of(what, expected):
            found_losses = losses(given, batch)
            self.losses.append(torch.stack([loss.detach() for loss in found_losses]))
            for number, loss in enumerate(found_losses):
                wanted = [name for name in self._names if name in open_to and name not in self._depends[number]]
                if loss.requires_grad and wanted:
                    require_no_reentrant_checkpoint([loss])
                    for scale in RAISED if loss.dtype in HALF else (1.0,):
                        found = torch.autograd.grad(
                            loss.sum() * scale, [given[name] for name in wanted], retain_graph=True, allow_unused=True
                        )
                        self._note(number, wanted, found)

    def _note(self, number: int, names: Sequence[str], gradients: Sequence[Tensor | None]) -> None:
        there = [(name, gradient) for name, gradient in zip(names, gradients, strict=True) if gradient is not None]
        self._linked[number].update(name for name, _ in there)
        if there:
            sizes = torch.stack([gradient.detach().abs().sum(dtype=torch.float64) for _, gradient in there]).tolist()
            rows = [(name, size) for (name, _), size in zip(there, sizes, strict=True) if math.isfinite(size)]
            self._depends[number].update(name for name, size in rows if size)
            self._zero[number].update(name for name, size in rows if not size)

    def reached_by(self, name: str) -> list[str]:
        sure = [task for task, found in zip(self._tasks, self._depends, strict=True) if name in found]
        return [task for number, task in enumerate(self._tasks) if task in sure or self._may(number, name, not sure)]

    def _may(self, number: int, name: str, alone: bool) -> bool:
        """Whether a graph leads to a tensor, and nothing tells that this means nothing: no gradient that is finite, or
        none of this task or of this tensor that is not zero.
        """
        told = name in self._zero[number] and bool(self._depends[number])
        return name in self._linked[number] and (alone or not told)

    def require_each_reaches(self) -> None:
        for task, depends, linked in zip(self._tasks, self._depends, self._linked, strict=True):
            if not depends and not linked:
                raise LandscapeError(
                    f"task {task!r} reaches no trainable parameter: expected its loss to depend on at least one on "
                    "some evaluation example; is its part of the model frozen or detached?"
                )
