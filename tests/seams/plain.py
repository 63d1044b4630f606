"""A network in no library's hands: weights are set into the module, torch is called, and that is all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from landscape import Batch
from tests.seams.layers import TASKS


@contextlib.contextmanager
def operation_by_operation() -> Iterator[None]:
    """Transformers without their fused evaluation, which is another function where a mask leaves positions out."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those that train, in order, tied ones once."""
    return [p for p in module.parameters() if p.requires_grad]


def flat(module: nn.Module) -> Tensor:
    """Theta [P] of a module."""
    return torch.cat([p.detach().reshape(-1) for p in parameters(module)])


def flat_buffers(module: nn.Module) -> Tensor:
    """Every buffer [Q] in float64, in order."""
    found = [b.detach().reshape(-1).double() for b in module.buffers()]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def put(module: nn.Module, theta: Tensor, buffers: Tensor) -> nn.Module:
    """The module with these weights and buffers in place, in evaluation mode."""
    with torch.no_grad():
        for vector, tensors in ((theta, parameters(module)), (buffers, list(module.buffers()))):
            start = 0
            for tensor in tensors:
                tensor.copy_(vector[start : start + tensor.numel()].reshape(tensor.shape))
                start += tensor.numel()
            assert start == len(vector)
    return module.eval()


def losses(module: nn.Module, batch: Batch) -> Tensor:
    """Mean loss of each task [T] in the module's present mode, differentiable."""
    with operation_by_operation():
        output = module(batch.inputs)
    rows = zip(TASKS, batch.targets, strict=True)
    return torch.stack([task.loss(output[task.name], target).mean() for task, target in rows])


def gradients(module: nn.Module, batch: Batch) -> Tensor:
    """Gradient [T, P] of each task's mean loss."""
    rows = []
    for task in range(len(TASKS)):
        module.zero_grad(set_to_none=True)
        losses(module, batch)[task].backward()
        found = parameters(module)
        rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in found]))
    module.zero_grad(set_to_none=True)
    return torch.stack(rows)
