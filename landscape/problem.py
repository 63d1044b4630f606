"""A problem: a model, its tasks, training data and a frozen evaluation set, as pure functions of theta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset

from landscape.checks import find_culprit, require_per_example
from landscape.content import hash_of
from landscape.data import Batch, Source, Tree
from landscape.errors import LandscapeError
from landscape.modules import BufferLayout, buffer_layout, flatten, mode, own_buffers, trainable, unflatten
from landscape.randomness import seeded
from landscape.trajectory import SHARED, UNUSED, Layout, Slot

PerExample: TypeAlias = Callable[[Any, Any], Tensor]
"""(prediction [B, ...], target [B, ...]) -> one value an example [B]."""

RESERVED = (SHARED, UNUSED, "average")


@dataclass(frozen=True)
class Task:
    """A task: a name, a loss with one value an example, and metrics of the same form (higher or lower is better, as
    named).

    Example: `Task("digit", lambda p, y: F.cross_entropy(p, y, reduction="none"))`.
    """

    name: str
    loss: PerExample
    metrics: Mapping[str, PerExample] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a problem comes from: the name of a built-in one with its settings, or the place of a user's own."""

    name: str = "in Python"
    settings: Mapping[str, Any] = field(default_factory=dict)
    built_in: bool = False


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Means over the whole evaluation set, summed in float64: losses [T] and metrics [M]."""

    losses: Tensor
    metrics: Tensor


class Problem:
    """A model, its tasks, training data and a frozen evaluation set.

    Args:
        model: a module, or a function without arguments that makes one. A module's own weights are the start of every
            run; a function is called anew for every seed, with the global generators seeded, so that seeds have starts
            of their own. It maps inputs to predictions: a dict by task name or a sequence in task order (one task: the
            prediction itself will do).
        tasks: at least one; names are distinct.
        train, evaluation: map-style data sets, see `landscape.data.Source`. The evaluation set is read once, hashed and
            kept on the device.
        shared: glob patterns of parameter names that count as shared; empty: found by which gradients reach them.
        device: where everything is computed.
        micro_batch: how many evaluation examples go through the model at once.

    A parameter reached by the gradients of several tasks is shared, one reached by exactly one task belongs to that
    task's head; with a single task all are shared. One forward pass and T gradients of a few examples find this out.

    Nothing here changes the module: parameters are arguments, its mode and flags are put back after every call.

    Raises:
        LandscapeError: outputs that do not match the tasks, a loss that is not per example, a task that reaches no
            parameter, an empty data set, NaN in the data, an evaluation that is not a function of theta (with the
            name of the module at fault).
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        tasks: Sequence[Task],
        train: Dataset[Any],
        evaluation: Dataset[Any],
        *,
        shared: Sequence[str] = (),
        device: torch.device | str = "cpu",
        micro_batch: int = 128,
    ) -> None:
        if micro_batch < 1:
            raise LandscapeError(f"expected micro-batches of 1 or more examples, got {micro_batch}")
        self.tasks = _distinct(tasks)
        self.device = torch.device(device)
        self.micro_batch = micro_batch
        self.origin = Origin()
        self._make = None if isinstance(model, nn.Module) else model
        self.model = model if isinstance(model, nn.Module) else _made(model, 0)
        self.model.to(self.device)
        parameters = trainable(self.model)
        self.dtype = next(iter(parameters.values())).dtype
        self.buffer_layout: BufferLayout = buffer_layout(self.model)
        self.train = Source(train, self.names, "training")
        self.evaluation: Batch = Source(evaluation, self.names, "evaluation").freeze().to(self.device, self.dtype)
        self.data_hash = self.evaluation.hash()
        self.frozen_hash = hash_of({n: p for n, p in self.model.named_parameters() if not p.requires_grad})
        plain = tuple((name, tuple(p.shape), p) for name, p in parameters.items())
        self.layout = _layout(plain, [SHARED] * len(plain))
        few = self.evaluation[:16]
        find_culprit(self.model, few.inputs)
        require_per_example(self.tasks, self._predict(self._start(), None, few), few)
        self.layout = _layout(plain, self._owners(few, tuple(shared)))

    @property
    def names(self) -> tuple[str, ...]:
        """Task names, in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """`task.metric` for every metric, in order."""
        return tuple(f"{task.name}.{metric}" for task in self.tasks for metric in task.metrics)

    def came_from(self, origin: Origin) -> Problem:
        """The same problem with its origin stated, as trajectories will record it."""
        other = copy.copy(self)
        other.origin = origin
        return other

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Problem:
        """The same problem on another device or in another floating-point type; this one and its module stay as they
        are.
        """
        other = copy.copy(self)
        other.device = self.device if device is None else torch.device(device)
        other.dtype = dtype or self.dtype
        other.model = copy.deepcopy(self.model).to(other.device, other.dtype)
        other.buffer_layout = buffer_layout(other.model)
        other.evaluation = self.evaluation.to(other.device, other.dtype)
        return other

    def initial(self, seed: int) -> tuple[Tensor, Tensor]:
        """Theta [P] and buffers [Q] at the start of a run with this seed: those of `model_for(seed)`."""
        return self.read(self.model if self._make is None else self.model_for(seed))

    def model_for(self, seed: int) -> nn.Module:
        """A module of its own at the start of a run with this seed, to be trained in a loop of your own and recorded:
        `Recorder(problem, path, seed=seed, model=module)`.

        Of a problem made from a function: what the function makes with the global generators seeded, so that seeds
        have starts of their own; `record` with the same seed starts there too. Of a problem made from a module: a copy
        with the weights that `problem.model` has now, so that all seeds have one start.
        """
        module = copy.deepcopy(self.model) if self._make is None else _made(self._make, seed)
        return module.to(self.device, self.dtype)

    def read(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Copies of a module's theta [P] and buffers [Q], for a module of this problem's architecture."""
        parameters = dict(module.named_parameters())
        missing = [slot.name for slot in self.layout.slots if slot.name not in parameters]
        if missing:
            raise LandscapeError(f"the module has no parameter {missing[0]!r}, which the problem's layout expects")
        theta = flatten([parameters[slot.name] for slot in self.layout.slots])
        return theta.to(self.device, self.dtype), self.buffer_layout.pack(dict(module.named_buffers()))

    def module(self, theta: Tensor, buffers: Tensor | None = None) -> nn.Module:
        """A copy of the model with these parameters and buffers, for use outside the toolkit."""
        module = copy.deepcopy(self.model)
        state = {name: t.detach().clone() for name, t in unflatten(self.layout, theta).items()}
        state |= {} if buffers is None else self.buffer_layout.unpack(buffers)
        module.load_state_dict(state, strict=False)
        return module

    def losses(self, theta: Tensor, batch: Batch, buffers: Tensor | None = None) -> Tensor:
        """Loss of every task on every example, [T, B]: a pure, differentiable function of theta [P].

        Runs in evaluation mode; `buffers` [Q] default to the model's own. Cost: one forward pass of the batch.
        """
        return torch.stack(self.task_losses(theta, batch, buffers))

    def task_losses(self, theta: Tensor, batch: Batch, buffers: Tensor | None = None) -> list[Tensor]:
        """As `losses`, the tasks apart: T tensors [B], so that a gradient of one does not run through the others'
        heads.
        """
        return self._each_loss(self._predict(theta, buffers, batch), batch)

    def per_example(self, output: Any, batch: Batch) -> Tensor:
        """Losses, then metrics, of every example, [T + M, B], from what the model made of a batch's inputs."""
        predictions = arrange(output, self.names)
        return torch.stack([*self._each_loss(predictions, batch), *self._metrics(predictions, batch)])

    def evaluate(self, theta: Tensor, buffers: Tensor | None = None) -> Evaluation:
        """Mean losses and metrics on the evaluation set. Cost: one forward pass of the set, without gradients."""
        sums = torch.zeros(len(self.tasks) + len(self.metric_names), dtype=torch.float64, device=self.device)
        with torch.no_grad():
            for batch in self.evaluation.pieces(self.micro_batch):
                predictions = self._predict(theta, buffers, batch)
                rows = [*self._each_loss(predictions, batch), *self._metrics(predictions, batch)]
                sums += torch.stack([row.to(torch.float64) for row in rows]).sum(1)
        means = sums / len(self.evaluation)
        return Evaluation(means[: len(self.tasks)], means[len(self.tasks) :])

    def buffers(self, vector: Tensor | None = None) -> dict[str, Tensor]:
        """Every buffer by name, as copies: those of a vector [Q], the others, and all by default, of the model."""
        return own_buffers(self.model) | ({} if vector is None else self.buffer_layout.unpack(vector.to(self.device)))

    def predictions(self, parameters: Mapping[str, Tensor], buffers: dict[str, Tensor], inputs: Tree) -> list[Any]:
        """Predictions in task order with the module in whatever mode it is in; what the module makes of its buffers,
        in place or by assigning to them, is left in `buffers`.
        """
        state = {**parameters, **buffers}
        predicted = arrange(functional_call(self.model, state, (inputs,)), self.names)
        buffers.update({name: state[name].detach() for name in buffers})
        return predicted

    def _predict(self, theta: Tensor, buffers: Tensor | None, batch: Batch) -> list[Any]:
        with mode(self.model, False):
            return self.predictions(unflatten(self.layout, theta), self.buffers(buffers), batch.inputs)

    def _each_loss(self, predictions: Sequence[Any], batch: Batch) -> list[Tensor]:
        rows = zip(self.tasks, predictions, batch.targets, strict=True)
        return [task.loss(prediction, target) for task, prediction, target in rows]

    def _metrics(self, predictions: Sequence[Any], batch: Batch) -> list[Tensor]:
        rows = zip(self.tasks, predictions, batch.targets, strict=True)
        return [metric(p, target) for task, p, target in rows for metric in task.metrics.values()]

    def _start(self) -> Tensor:
        return self.read(self.model)[0]

    def _owners(self, few: Batch, patterns: tuple[str, ...]) -> list[str]:
        with torch.enable_grad():
            leaves = {name: t.detach().requires_grad_() for name, t in unflatten(self.layout, self._start()).items()}
            with mode(self.model, False):
                losses = self._each_loss(self.predictions(leaves, self.buffers(), few.inputs), few)
            reached = [
                _reached(task.name, loss, list(leaves.values())) for task, loss in zip(self.tasks, losses, strict=True)
            ]
        return [self._owner(name, [r[i] for r in reached], patterns) for i, name in enumerate(leaves)]

    def _owner(self, name: str, reached: Sequence[bool], patterns: tuple[str, ...]) -> str:
        by = [task for task, hit in zip(self.names, reached, strict=True) if hit]
        if not by:
            return UNUSED
        if len(self.tasks) == 1 or any(fnmatchcase(name, pattern) for pattern in patterns):
            return SHARED
        if len(by) == 1:
            return by[0]
        if patterns:
            raise LandscapeError(
                f"parameter {name!r} is reached by the tasks {', '.join(by)} but matches none of the shared patterns "
                f"{', '.join(patterns)}: add a pattern that matches it"
            )
        return SHARED


def arrange(output: Any, names: Sequence[str]) -> list[Any]:
    """A model's output as predictions in task order."""
    if isinstance(output, Mapping) and set(output) >= set(names):
        return [output[name] for name in names]
    if isinstance(output, tuple | list) and len(output) == len(names):
        return list(output)
    if isinstance(output, Tensor) and len(names) == 1:
        return [output]
    got = (
        f"a dict with {', '.join(map(str, output))}"
        if isinstance(output, Mapping)
        else f"{len(output)} parts"
        if isinstance(output, tuple | list)
        else type(output).__name__
    )
    raise LandscapeError(
        f"the model's output does not match the {len(names)} tasks: expected a dict by the names {', '.join(names)} "
        f"or a sequence in that order, got {got}"
    )


def _made(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with seeded(seed, "model"):
        module = make()
    if not isinstance(module, nn.Module):
        raise LandscapeError(f"expected the model function to return a torch.nn.Module, got {type(module).__name__}")
    return module


def _distinct(tasks: Sequence[Task]) -> tuple[Task, ...]:
    names = [task.name for task in tasks]
    if not names:
        raise LandscapeError("expected at least one task, got none")
    for name in names:
        if names.count(name) > 1:
            raise LandscapeError(f"two tasks are called {name!r}: expected distinct names")
        if name in RESERVED or not name:
            raise LandscapeError(
                f"a task cannot be called {name!r}: that name is reserved ({', '.join(RESERVED)}, empty)"
            )
    return tuple(tasks)


def _layout(parameters: Sequence[tuple[str, tuple[int, ...], Tensor]], owners: Sequence[str]) -> Layout:
    slots, offset = [], 0
    for (name, shape, tensor), owner in zip(parameters, owners, strict=True):
        slots.append(Slot(name, shape, owner, offset))
        offset += tensor.numel()
    return Layout(tuple(slots))


def _reached(task: str, loss: Tensor, leaves: Sequence[Tensor]) -> list[bool]:
    if loss.requires_grad:
        gradients = torch.autograd.grad(loss.sum(), leaves, retain_graph=True, allow_unused=True)
        reached = [gradient is not None for gradient in gradients]
        if any(reached):
            return reached
    raise LandscapeError(
        f"task {task!r} reaches no trainable parameter: expected its loss to depend on at least one; "
        "is its part of the model frozen or detached?"
    )
