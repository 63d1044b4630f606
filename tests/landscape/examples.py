"""Small problems, awkward modules and data sets, and the comparison of everything that must stay as it was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from landscape import Problem, Task, Trajectory

NAMES = ("red", "green", "blue")


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).flatten(1).sum(1)


def sine(prediction: Tensor, target: Tensor) -> Tensor:
    """Smooth and not quadratic."""
    return torch.sin(prediction - target).square().sum(1) + 0.1 * prediction.square().sum(1)


class Net(nn.Module):
    """A trunk that `middle` can make awkward, and a linear head a task."""

    def __init__(self, tasks: int = 3, middle: Callable[[], nn.Module] = nn.Identity, width: int = 5) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, width), nn.Tanh(), middle())
        self.heads = nn.ModuleList([nn.Linear(width, t + 1) for t in range(tasks)])

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.trunk(inputs)
        return {name: head(features) for name, head in zip(NAMES, self.heads, strict=False)}


def made(make: Callable[[], nn.Module], seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A module with weights drawn from its own generator, in no global one's debt."""
    own = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        module = make().to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=own, dtype=torch.float64))
    return module


def tensors(examples: int = 23, tasks: int = 3, seed: int = 1) -> list[Tensor]:
    own = torch.Generator().manual_seed(seed)
    return [torch.randn(examples, width, generator=own) for width in (4, *range(1, tasks + 1))]


def data(examples: int = 23, tasks: int = 3, seed: int = 1) -> TensorDataset:
    return TensorDataset(*tensors(examples, tasks, seed))


def tasks(count: int = 3, loss: Callable[[Any, Any], Tensor] = squared) -> list[Task]:
    return [Task(name, loss) for name in NAMES[:count]]


def problem(
    count: int = 3,
    middle: Callable[[], nn.Module] = nn.Identity,
    dtype: torch.dtype = torch.float32,
    loss: Callable[[Any, Any], Tensor] = squared,
    examples: int = 23,
    **options: Any,
) -> Problem:
    """Three tasks, 23 training and 23 evaluation examples, micro-batches of five: the last ones are ragged."""
    module = made(lambda: Net(count, middle), dtype=dtype)
    options = {"micro_batch": 5, **options}
    return Problem(module, tasks(count, loss), data(examples, count), data(23, count, 2), **options)


class Listed(Dataset[Any]):
    """A map-style data set from a list."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


def parameters_of(module: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    found = dict(module.named_parameters())
    return [found[name] for name in names]


def fingerprint(module: nn.Module) -> list[Any]:
    """Bytes, modes, flags and gradients of a module, and the states of the global generators."""
    state = module.state_dict(keep_vars=True).items()
    every = {name: tensor.detach().numpy().tobytes() for name, tensor in (*state, *module.named_buffers())}
    legacy = np.random.get_state()  # noqa: NPY002
    return [
        every,
        [part.training for part in module.modules()],
        [
            (p.requires_grad, None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes()))
            for p in module.parameters()
        ],
        [len(part._forward_hooks) for part in module.modules()],
        torch.random.get_rng_state().numpy().tobytes(),
        (legacy[0], legacy[1].tobytes(), *legacy[2:]),
        random.getstate(),
        torch.is_grad_enabled(),
    ]


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Fails unless the body leaves module and global generators byte for byte as they were."""
    before = fingerprint(module)
    yield
    assert fingerprint(module) == before


def everything(trajectory: Trajectory) -> dict[str, Any]:
    """Every array of a trajectory as bytes, but the seconds."""
    history = trajectory.history
    arrays = {
        "steps": trajectory.steps,
        "updates": trajectory.updates,
        "gradients": trajectory.gradients,
        "path_steps": trajectory.path_steps,
        "path_updates": trajectory.path_updates,
        "losses": trajectory.losses,
        "metrics": trajectory.metrics,
        "theta": trajectory.theta[:],
        "buffers": trajectory.buffers[:],
        **{f"history/{key}": value for key, value in vars(history).items()},
    }
    return {key: (value.dtype.str, value.shape, value.tobytes()) for key, value in arrays.items()}
