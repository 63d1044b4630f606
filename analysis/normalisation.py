"""What is done with batch-norm statistics at the points of a plane: choices, as objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from analysis.examples import training
from landscape.binding import bind, copied, plain_kernels, with_own_hooks
from landscape.data import Batch
from landscape.errors import LandscapeError
from landscape.modules import buffers_of, joined, parameters_of, parts, unflatten
from landscape.problem import Problem

STATISTICS = ("running_mean", "running_var")
"""What torch calls running statistics; a layer of the user's own with such buffers has them too."""
STARTS = ((0.125, 1.375), (-0.25, 2.5))
"""Two means and variances to start from: what a layer records, with a momentum of 1, depends on neither."""
SOME = 0.5
"""A momentum for layers whose own is 0 or None: with it they record."""

Restate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(theta [P], buffers [Q]) -> buffers with other statistics [Q]."""


class Statistics(Protocol):
    """Where the running statistics of normalisation layers come from at each point."""

    def words(self, problem: Problem) -> str:
        """What a surface says of it."""
        ...

    def build(self, problem: Problem) -> Restate | None:
        """The function that gives a point its buffers, or None where they are the plane's."""
        ...


@dataclass(frozen=True)
class Frozen:
    """Those of the plane's origin, everywhere. Far from it they no longer belong to the weights."""

    def words(self, problem: Problem) -> str:
        return "frozen" if uses_statistics(problem) else "none"

    def build(self, problem: Problem) -> Restate | None:
        return None


@dataclass(frozen=True)
class Reestimated:
    """Estimated again at each point from training examples, as `torch.optim.swa_utils.update_bn` does.

    Running mean and variance are the plain means over mini-batches of what each mini-batch would leave behind: for
    batch norm its mean and (unbiased) variance, for instance norm the mean of these over its examples. All layers in
    one pass, each call of a layer counted. Mini-batches differ by at most one example, and have at most `batch_size`.
    Only layers with statistics are in training mode; dropout stays off. Layers that record nothing in training, since
    the model froze them, keep their statistics.

    Cost a point: one forward pass of `examples` training examples; three of one mini-batch to begin with.
    """

    examples: int = 1024
    batch_size: int = 128
    seed: int = 0

    def words(self, problem: Problem) -> str:
        words = f"estimated again at each point, from {min(self.examples, len(problem.train))} training examples"
        words = f"{words}, {self.batch_size} at a time at most"
        kept = self.layers(problem).kept
        return f"{words}; those of {', '.join(kept)} are kept" if kept else words

    def build(self, problem: Problem) -> Restate | None:
        layers = self.layers(problem)
        pieces = self._pieces(problem)

        def restate(theta: Tensor, buffers: Tensor) -> Tensor:
            state = {**unflatten(problem.layout, theta), **problem.buffers(buffers)}
            layers.record(state, pieces)
            return problem.buffer_layout.pack(state)

        return restate

    def layers(self, problem: Problem) -> Layers:
        """The layers to estimate again, each known to record; a `LandscapeError` where there are none."""
        if self.batch_size < 2:
            raise LandscapeError(f"expected mini-batches of 2 or more examples for statistics, got {self.batch_size}")
        most = min(self.examples, len(problem.train))
        if most < 2:
            raise LandscapeError("expected 2 or more training examples for statistics, got 1: one has no variance")
        few = problem.train.take(np.arange(min(most, self.batch_size))).to(problem.device, problem.dtype)
        return Layers.of(problem.model).tried(problem, few)

    def _pieces(self, problem: Problem) -> list[Batch]:
        batch = training(problem, self.examples, self.seed).batch
        ends = np.linspace(0, len(batch), -(-len(batch) // self.batch_size) + 1).astype(int)
        return [batch[first:last] for first, last in itertools.pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a copy of the model that record statistics when they are called."""

    module: nn.Module
    parts: Mapping[str, nn.Module]
    kept: tuple[str, ...]
    """Layers that record nothing in training, or are not called."""

    @classmethod
    def of(cls, model: nn.Module) -> Layers:
        """Those of a model; layers that it leaves in evaluation mode when it trains are kept."""
        module = copied(model).train()
        holding = {name: part for name, part in parts(module) if has_statistics(part)}
        training = {name: part for name, part in holding.items() if part.training}
        module.eval()
        for part in training.values():
            part.training = True
        return cls(module, training, tuple(name for name in holding if name not in training))

    def tried(self, problem: Problem, few: Batch) -> Layers:
        """The same, with layers that record nothing when the model is called, or are not called themselves, among those
        that are kept.

        Raises:
            LandscapeError: no layer is left, or what a layer records depends on what it held before.
        """
        calls, after = self._trial(problem, few, STARTS[0], lambda _, own: own or SOME)
        still = {name for name in self.parts if not calls[name] or _unmoved(after[name], STARTS[0])}
        recording = {name: part for name, part in self.parts.items() if name not in still}
        found = Layers(self.module, recording, (*self.kept, *(name for name in self.parts if name in still)))
        if not recording:
            but = f", {', '.join(found.kept)} record nothing in training" if found.kept else ""
            raise LandscapeError(
                f"the model has no normalisation layer with running statistics{but}: expected one to estimate again; "
                "use the frozen statistics"
            )
        (_, one), (_, other) = (found._trial(problem, few, start, lambda n, _: 1 / n) for start in STARTS)
        for name, part in recording.items():
            if not all(map(_same, one[name].values(), other[name].values())):
                raise LandscapeError(
                    f"what the layer {name!r} ({type(part).__name__}) records depends on what it held before: "
                    "expected running = (1 - momentum) * running + momentum * batch; use the frozen statistics"
                )
        return found

    def record(self, state: dict[str, Tensor], pieces: Sequence[Batch]) -> None:
        """Put into `state` the mean over a layer's calls of what each call alone would leave behind."""

        def before(_: str, part: nn.Module, count: int) -> None:
            if count == 1:
                for name, value in statistics(part).items():
                    value.fill_(name == STATISTICS[1])
                if isinstance(counted := getattr(part, "num_batches_tracked", None), Tensor):
                    counted.zero_()
            part.momentum = 1 / count  # type: ignore[assignment]

        self._call(state, pieces, before)

    def _trial(
        self, problem: Problem, few: Batch, start: tuple[float, float], momentum: Callable[[int, Any], float]
    ) -> tuple[dict[str, int], dict[str, dict[str, Tensor]]]:
        """How often each layer was called, and its statistics after a call of the model from others at the start."""
        own = {name: getattr(part, "momentum", None) for name, part in self.parts.items()}
        state: dict[str, Tensor] = {**parameters_of(problem.model), **problem.buffers()}

        def before(layer: str, part: nn.Module, count: int) -> None:
            if count == 1:
                for name, value in statistics(part).items():
                    value.fill_(start[STATISTICS.index(name)])
            part.momentum = momentum(count, own[layer])  # type: ignore[assignment]

        calls = self._call(state, [few], before)
        names = {name: [key for key in STATISTICS if joined(name, key) in state] for name in self.parts}
        return calls, {name: {key: state[joined(name, key)] for key in keys} for name, keys in names.items()}

    def _call(
        self, state: dict[str, Tensor], pieces: Sequence[Batch], before: Callable[[str, nn.Module, int], None]
    ) -> dict[str, int]:
        """Call the model on each of the pieces; `before` hears of every call of a layer, counted from 1. What the calls
        leave in the buffers is then in `state`.
        """
        calls = dict.fromkeys(self.parts, 0)
        bound = with_own_hooks(bind(self.module, state))
        for name, part in parts(bound):
            if name in self.parts:

                def told(part: nn.Module, _: object, name: str = name) -> None:
                    calls[name] += 1
                    before(name, part, calls[name])

                part.register_forward_pre_hook(told)
        with torch.no_grad(), plain_kernels(bound):
            for piece in pieces:
                bound(piece.inputs)
        state.update(buffers_of(bound))
        return calls


def can_estimate(problem: Problem) -> bool:
    """Whether the model has statistics that `Reestimated` can estimate again."""
    try:
        Reestimated().layers(problem)
    except LandscapeError:
        return False
    return True


def uses_statistics(problem: Problem) -> bool:
    """Whether a problem's model has layers with running statistics."""
    return any(has_statistics(part) for _, part in parts(problem.model))


def with_batch_statistics(module: nn.Module) -> nn.Module:
    """The same module, its layers with statistics in training mode: they go by the examples that they are given."""
    for _, part in parts(module):
        if has_statistics(part):
            part.train()
    return module


def has_statistics(part: nn.Module) -> bool:
    """Whether a module is a normalisation layer with running statistics, of torch or of the user's own."""
    return bool(statistics(part))


def statistics(part: nn.Module) -> dict[str, Tensor]:
    """The running statistics that a module itself holds, by their short names."""
    held = dict(part.named_buffers(recurse=False))
    return {name: held[name] for name in STATISTICS if name in held and held[name].is_floating_point()}


def _unmoved(values: Mapping[str, Tensor], start: tuple[float, float]) -> bool:
    return all(bool((value == start[STATISTICS.index(name)]).all()) for name, value in values.items())


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-2, equal_nan=True)
