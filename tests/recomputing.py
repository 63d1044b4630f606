"""Networks that compute the same, and run their modules, or read their parameters, once more in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.data import TensorDataset

from landscape import Problem, Task


class Plain(nn.Module):
    """Two heads over two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.a, self.b = nn.Linear(8, 1), nn.Linear(8, 1)

    def features(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {"a": self.a(features)[:, 0], "b": self.b(features)[:, 0]}


class Checkpointed(Plain):
    def features(self, x: Tensor) -> Tensor:
        return checkpoint(self.trunk, x, use_reentrant=False)


class InTraining(Plain):
    """As most large models: in training mode alone."""

    def features(self, x: Tensor) -> Tensor:
        return checkpoint(self.trunk, x, use_reentrant=False) if self.training else self.trunk(x)


class InParts(Plain):
    def features(self, x: Tensor) -> Tensor:
        return checkpoint_sequential(self.trunk, 2, x, use_reentrant=False)


class ByLambda(Plain):
    """The function that is run again closes over the module."""

    def features(self, x: Tensor) -> Tensor:
        return checkpoint(lambda inputs: self.trunk[2:](self.trunk[:2](inputs)), x, use_reentrant=False)


class Nested(Plain):
    def features(self, x: Tensor) -> Tensor:
        def inner(h: Tensor) -> Tensor:
            return checkpoint(self.trunk[2:], self.trunk[:2](h), use_reentrant=False)

        return checkpoint(inner, x, use_reentrant=False)


class _Again(torch.autograd.Function):
    """Keeps the module and its inputs, and runs it again: gradients of the first order alone."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        return module(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        own = [ctx.module[0].weight, ctx.module[0].bias, ctx.module[2].weight, ctx.module[2].bias]
        with torch.enable_grad():
            again = [tensor.detach().requires_grad_() for tensor in own]
            hidden = torch.tanh(x @ again[0].T + again[1])
            output = torch.tanh(hidden @ again[2].T + again[3])
        return (None, None, *torch.autograd.grad(output, again, gradient))


class OwnFunction(Plain):
    """A custom function that reads the module's parameters in its backward pass."""

    def features(self, x: Tensor) -> Tensor:
        own = [self.trunk[0].weight, self.trunk[0].bias, self.trunk[2].weight, self.trunk[2].bias]
        return _Again.apply(self.trunk, x, *own)


TWICE: dict[str, Callable[[], nn.Module]] = {
    "checkpointed": Checkpointed,
    "in training": InTraining,
    "in parts": InParts,
    "by lambda": ByLambda,
    "nested": Nested,
}
"""Those that can be differentiated twice."""

RECOMPUTING = {**TWICE, "own function": OwnFunction}


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 2


def problem(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float64, micro_batch: int = 16) -> Problem:
    """The same data and weights, whatever the network."""
    own = torch.Generator().manual_seed(0)
    x = torch.randn(48, 4, generator=own, dtype=dtype)
    data = TensorDataset(x, x.sum(1).sin(), x[:, 0] * x[:, 1])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = make().to(dtype)
    return Problem(module, [Task("a", _squared), Task("b", _squared)], data, data, micro_batch=micro_batch)
