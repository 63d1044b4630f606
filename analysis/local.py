"""A problem's losses around one theta, as functions of some of its tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from analysis.subsets import Subset
from analysis.unfused import unfused
from landscape.binding import bind, copied
from landscape.data import Batch, Tree
from landscape.errors import LandscapeError
from landscape.modules import parameters_of, unflatten
from landscape.problem import Problem
from landscape.trajectory import Layout

State: TypeAlias = dict[str, Tensor]
"""Parameters, frozen ones too, and buffers by name."""


@dataclass(frozen=True)
class Part:
    """The tensors of theta that a subset has, side by side in one vector [size]."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    spans: tuple[slice, ...]

    @classmethod
    def of(cls, layout: Layout, subset: Subset) -> Part:
        """Raises `LandscapeError` where the subset is empty or cuts a tensor in two."""
        spans = subset.spans(layout)
        inside = [slot for slot in layout.slots if any(_within(slot.span, span) for span in spans) and slot.size]
        if sum(slot.size for slot in inside) != sum(span.stop - span.start for span in spans):
            raise LandscapeError(
                f"the parameters {subset.label!r} begin or end within a tensor: expected whole tensors of theta"
            )
        names, shapes, sizes = zip(*((slot.name, slot.shape, slot.size) for slot in inside), strict=True)
        return cls(names, shapes, sizes, spans)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector [size] as tensors, in order."""
        parts = torch.split(vector, list(self.sizes))
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def of_theta(self, theta: Tensor) -> Tensor:
        """This part of a vector [P]."""
        return torch.cat([theta[span] for span in self.spans])


def _within(inner: slice, outer: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


class Local:
    """A problem at one theta with its buffers: predictions and losses as functions of the tensors, by a private copy
    of the module in evaluation mode.
    """

    def __init__(self, problem: Problem, theta: Tensor, buffers: Tensor) -> None:
        if theta.shape != (problem.layout.size,):
            raise LandscapeError(
                f"theta has shape {list(theta.shape)}, the problem's layout expects {problem.layout.describe()}"
            )
        self.problem = problem
        self.module: nn.Module = copied(problem.model).eval().requires_grad_(False)
        self.theta = theta.detach().to(problem.device, problem.dtype)
        frozen = {name: parameter.detach() for name, parameter in parameters_of(self.module).items()}
        own = {name: value.clone() for name, value in unflatten(problem.layout, self.theta).items()}
        self._buffers = problem.buffers(buffers)
        self.state: State = {**frozen, **own, **self._buffers}

    def predictions(self, state: Mapping[str, Tensor], inputs: Tree) -> list[Any]:
        """Predictions in task order. Buffers are copied, so that a module may write into them."""
        fresh = {name: state[name].clone() for name in self._buffers}
        return self.problem.run(bind(self.module, {**state, **fresh}), inputs)

    def losses(self, predictions: Sequence[Any], targets: Sequence[Tree], tasks: Sequence[int]) -> list[Tensor]:
        """Losses [B] of some tasks, from the predictions of all."""
        return [self.problem.tasks[t].loss(predictions[t], targets[t]) for t in tasks]

    def uses_attention(self) -> bool:
        """Whether the model calls the attention that torch has fused kernels for. One forward pass of two examples."""
        watch = _Watch()
        with twice_differentiable(), torch.no_grad(), watch:
            self.predictions(self.state, self.problem.evaluation[:2].inputs)
        return watch.seen


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Gradients wherever the caller stands, and no fused operations whose second derivatives are missing or wrong."""
    with torch.inference_mode(False), torch.enable_grad(), unfused():
        yield


_ATTENTION = (torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.multi_head_attention_forward)


class _Watch(TorchFunctionMode):
    seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen = self.seen or func in _ATTENTION
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, eq=False)
class Weighted:
    """sum_t w_t L_t at one place: the tasks that count, and the tensors that it is differentiated with respect to."""

    local: Local
    weights: tuple[tuple[int, float], ...]
    """(task, weight) of those whose weight is not zero."""
    rows: Part
    columns: Part
    data: Batch

    @property
    def tasks(self) -> tuple[int, ...]:
        return tuple(task for task, _ in self.weights)

    @property
    def words(self) -> str:
        """The tasks that count, by name."""
        names = [repr(self.local.problem.names[task]) for task in self.tasks]
        return f"task {names[0]}" if len(names) == 1 else f"tasks {', '.join(names)}"

    def per_example(self, predictions: Sequence[Any], targets: Sequence[Tree]) -> Tensor:
        """sum_t w_t l_t of every example, [B]."""
        values = self.local.losses(predictions, targets, self.tasks)
        return torch.stack([weight * value for (_, weight), value in zip(self.weights, values, strict=True)]).sum(0)

    def total(self, state: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """sum_n sum_t w_t l_tn of a micro-batch."""
        values = self.local.losses(self.local.predictions(state, batch.inputs), batch.targets, self.tasks)
        parts = [weight * value.sum() for (_, weight), value in zip(self.weights, values, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
