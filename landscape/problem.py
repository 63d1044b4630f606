"""A problem: a model, its tasks, training data and a frozen evaluation set, as pure functions of theta."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from landscape.binding import bind, copied, plain_kernels, require_bindable, without_autocast
from landscape.checks import find_culprit, require_alike, require_per_example
from landscape.content import fingerprint, hash_of
from landscape.data import Batch, Source, Tree, fresh, in_order, outline, spread
from landscape.errors import LandscapeError, LandscapeWarning
from landscape.modules import (
    BufferLayout,
    buffer_layout,
    buffers_of,
    by_name,
    flatten,
    materialise,
    own_buffers,
    parameters_of,
    trainable,
    unflatten,
    without_prefixes,
)
from landscape.owners import Stated, find_owners, second_theta
from landscape.purity import (
    require_no_hooks,
    require_same_as_plain,
    require_separate,
    warn_of_draws,
)
from landscape.randomness import seeded
from landscape.trajectory import SHARED, UNUSED, Layout, Slot

PerExample: TypeAlias = Callable[[Any, Any], Tensor]
"""(prediction [B, ...], target [B, ...]) -> one value an example [B]."""

FEW = 16
"""Examples that are looked at once, in many ways."""
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
        shared: glob patterns of names of parameters that are shared; empty: found by which losses depend on them.
        heads: for some tasks, glob patterns of names of the parameters that are this task's alone.
        device: where everything is computed.
        micro_batch: how many evaluation examples go through the model at once.

    A parameter is what the user says it is, in `shared` and `heads`. Of the rest, one on which the losses of several
    tasks depend is shared, one on which those of exactly one task depend belongs to that task's head; with a single
    task all are shared. All evaluation examples are looked at, in one forward pass and next to no gradients, at a theta
    near the start in which nothing is zero. One on which no loss depends is unused: no strategy trains it, and a
    `LandscapeWarning` says so at the first gradient that reaches it all the same.

    Wrappers (`DataParallel`, `DistributedDataParallel`, `torch.compile`, `AveragedModel`) are looked through, and lazy
    modules are run once. Nothing else here changes the module: parameters are arguments, and every call is made on
    another module that shares the rest with it.

    Raises:
        LandscapeError: outputs that do not match the tasks, a loss that is not per example, a task that reaches no
            parameter, patterns that match nothing or contradict each other, an empty data set, NaN in the data, an
            evaluation that is not a function of theta or a gradient that is not of this function (with the name of the
            module at fault), a module whose tensors cannot be exchanged.
    """

    @without_autocast()
    @torch.inference_mode(False)
    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        tasks: Sequence[Task],
        train: Dataset[Any],
        evaluation: Dataset[Any],
        *,
        shared: Sequence[str] = (),
        heads: Mapping[str, Sequence[str]] | None = None,
        device: torch.device | str = "cpu",
        micro_batch: int = 128,
    ) -> None:
        if micro_batch < 1:
            raise LandscapeError(f"expected micro-batches of 1 or more examples, got {micro_batch}")
        self.tasks = _distinct(tasks)
        self.device = torch.device(device)
        self.micro_batch = micro_batch
        self.origin = Origin()
        self.train = Source(train, self.names, "training")
        frozen = Source(evaluation, self.names, "evaluation").freeze()
        self.data_hash = frozen.hash()
        self._make = None if isinstance(model, nn.Module) else model
        self._first = frozen[:2]
        self.model = self._ready(model) if isinstance(model, nn.Module) else self._made(model, 0)
        self._prints, self._seeded = _prints(self.model), False
        parameters = trainable(self.model)
        self.dtype = next(iter(parameters.values())).dtype
        self.buffer_layout: BufferLayout = buffer_layout(self.model)
        self.evaluation: Batch = frozen.to(self.device, self.dtype)
        self.frozen_hash = hash_of({n: p for n, p in parameters_of(self.model).items() if not p.requires_grad})
        self.layout = _layout(parameters, [SHARED] * len(parameters))
        self._unused: tuple[str, ...] = ()
        self.warned = False
        few = self.few
        output = find_culprit(self.model, few.inputs)
        require_per_example(self.tasks, arrange(output, self.names), few)
        leaves = unflatten(self.layout, self._start())
        pieces = self.evaluation.pieces(self.micro_batch)
        stated = Stated.of(shared, heads or {})
        owners, losses = find_owners(self.names, leaves, self._losses_of, few, pieces, stated)
        second = second_theta(leaves)
        among_few = require_same_as_plain(self.model, second, few, self._losses_of, self._each_loss_of)
        rows = torch.from_numpy(spread(len(self.evaluation), FEW)).to(self.device)
        looked_at = rows < losses.shape[1]
        require_alike(self.tasks, losses[:, rows[looked_at]], among_few[:, looked_at])
        warn_of_draws(self.model)
        self.layout = _layout(parameters, owners)
        self._unused = tuple(slot.name for slot in self.layout.slots if slot.owner == UNUSED)

    @property
    def names(self) -> tuple[str, ...]:
        """Task names, in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def few(self) -> Batch:
        """Some evaluation examples, from the first to the last: what is found out once is found out from these."""
        rows = torch.from_numpy(spread(len(self.evaluation), FEW)).to(self.device)
        return self.evaluation[rows]

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
        other.model = copied(self.model, other.device, other.dtype)
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
        have starts of their own; `record` with the same seed starts there too. Frozen parameters, and buffers that are
        not saved, are those of `problem.model`: they are part of the problem. Of a problem made from a module: a copy
        with the weights that `problem.model` has now, so that all seeds have one start.

        Raises:
            LandscapeError: a function that returns a module again, or other weights for the same seed, which is looked
                at once.
        """
        if self._make is None:
            return copied(self.model, self.device, self.dtype)
        if not self._seeded:
            self._require_seeded(self._make)
            self._seeded = True
        module = self._made(self._make, seed)
        with torch.no_grad():
            for name, own in self._constants(module).items():
                theirs = self._constants(self.model).get(name)
                if theirs is not None and theirs.shape == own.shape:
                    own.copy_(theirs)
        return module.to(self.device, self.dtype)

    def _constants(self, module: nn.Module) -> dict[str, Tensor]:
        """What is neither part of theta nor stored: frozen parameters, and buffers that a module does not save."""
        stored = {slot.name for slot in (*self.layout.slots, *self.buffer_layout.slots)}
        every: dict[str, Tensor] = {**parameters_of(module), **buffers_of(module)}
        return {name: tensor for name, tensor in every.items() if name not in stored}

    def _require_seeded(self, make: Callable[[], nn.Module]) -> None:
        again = self._made(make, 0)
        mine = {id(tensor) for tensor in parameters_of(self.model).values()}
        if any(id(tensor) in mine for tensor in parameters_of(again).values()):
            raise LandscapeError(
                "the model function returned a module that it had returned before: expected a new one at every call, "
                "so that every seed has a start of its own; make the module inside the function, or give the module "
                "itself"
            )
        if _prints(again) != self._prints:
            raise LandscapeError(
                "the model function makes other weights for the same seed: expected all random numbers from the global "
                "generators of torch, numpy or Python, which are seeded before it is called; make no generator of its "
                "own in it"
            )

    def read(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Copies of the theta [P] and buffers [Q] of a module of this problem's architecture, which may be wrapped."""
        parameters = by_name(parameters_of(module), [slot.name for slot in self.layout.slots], "parameter")
        buffers = by_name(buffers_of(module), [slot.name for slot in self.buffer_layout.slots], "buffer")
        theta = flatten([parameters[slot.name] for slot in self.layout.slots])
        return theta.to(self.device, self.dtype), self.buffer_layout.pack(buffers)

    def module(self, theta: Tensor, buffers: Tensor | None = None) -> nn.Module:
        """A module of its own like the model, with these parameters and buffers, for use outside the toolkit."""
        module = copied(self.model)
        own = parameters_of(module)
        for name, tensor in unflatten(self.layout, theta).items():
            own[name].data = tensor.detach().clone()
        for name, tensor in ({} if buffers is None else self.buffer_layout.unpack(buffers)).items():
            buffers_of(module)[name].copy_(tensor)
        return module

    def losses_by(self, module: nn.Module, theta: Tensor, batch: Batch, buffers: Tensor) -> Tensor:
        """As `losses`, by another module of this problem's architecture, which may be wrapped, on another device or in
        another type.
        """
        state: dict[str, Tensor] = {**unflatten(self.layout, theta), **self.buffer_layout.unpack(buffers)}
        own = {**parameters_of(module), **buffers_of(module)}
        if not state.keys() <= own.keys():
            state = {name: state[bare] for name in own if (bare := without_prefixes(name)) in state}
        kind = {True: self.dtype, False: None}
        others = {
            name: tensor.detach().to(self.device, kind[tensor.is_floating_point()], copy=True)
            for name, tensor in own.items()
            if name not in state
        }
        bound = bind(module, {**others, **state}).eval()
        with without_autocast():
            return torch.stack(self._each_loss(self.run(bound, batch.inputs), batch))

    def bound(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
        """The model in evaluation mode with these tensors in the place of its own, for as long as anything refers to it
        (`landscape.binding.bind`). It may write into the buffers.
        """
        return bind(self.model, {**parameters, **buffers}).eval()

    def run(self, module: nn.Module, inputs: Tree) -> list[Any]:
        """Predictions in task order of a bound module, in the mode that it is in."""
        with plain_kernels(module):
            return arrange(module(fresh(inputs)), self.names)

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

    def predictions(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tree) -> list[Any]:
        """Predictions in task order, in evaluation mode; the module may write into the buffers."""
        with without_autocast():
            return self.run(self.bound(parameters, buffers), inputs)

    def warn_of_unused(self, names: Sequence[str], gradients: Sequence[Tensor | None]) -> None:
        """Warns once of unused parameters of which a gradient is not zero."""
        if self.warned:
            return
        rows = zip(names, gradients, strict=True)
        reached = [name for name, gradient in rows if gradient is not None and bool(gradient.any())]
        if reached:
            self.warned = True
            warnings.warn(
                f"a gradient reaches {', '.join(map(repr, reached))}, but no evaluation example's loss depends on it: "
                "it counts as unused, is not trained, and is missing in results on shared parameters; expected "
                "evaluation examples that use it, or its owner in the problem's shared=[...] or heads={...}",
                LandscapeWarning,
                stacklevel=2,
            )

    def _look_at(self, name: str, gradient: Tensor) -> None:
        with contextlib.suppress(RuntimeError):  # inside vmap, where no value can be looked at
            self.warn_of_unused([name], [gradient])

    def _predict(self, theta: Tensor, buffers: Tensor | None, batch: Batch) -> list[Any]:
        parameters = unflatten(self.layout, theta)
        if theta.requires_grad and torch.is_grad_enabled():
            for name in self._unused:
                parameters[name].register_hook(functools.partial(self._look_at, name))  # type: ignore[no-untyped-call]
        return self.predictions(parameters, self.buffers(buffers), batch.inputs)

    def _each_loss_of(self, output: Any, batch: Batch) -> list[Tensor]:
        return self._each_loss(arrange(output, self.names), batch)

    def _losses_of(self, parameters: Mapping[str, Tensor], batch: Batch, training: bool = False) -> list[Tensor]:
        bound = self.bound(parameters, self.buffers()).train(training)
        return self._each_loss(self.run(bound, batch.inputs), batch)

    def _each_loss(self, predictions: Sequence[Any], batch: Batch) -> list[Tensor]:
        rows = zip(self.tasks, predictions, batch.targets, strict=True)
        with without_autocast():
            return [task.loss(prediction, target) for task, prediction, target in rows]

    def _metrics(self, predictions: Sequence[Any], batch: Batch) -> list[Tensor]:
        rows = zip(self.tasks, predictions, batch.targets, strict=True)
        return [metric(p, target) for task, p, target in rows for metric in task.metrics.values()]

    def _start(self) -> Tensor:
        return self.read(self.model)[0]

    def _made(self, make: Callable[[], nn.Module], seed: int) -> nn.Module:
        with seeded(seed, "model"):
            module = make()
            if not isinstance(module, nn.Module):
                raise LandscapeError(
                    f"expected the model function to return a torch.nn.Module, got {type(module).__name__}"
                )
            return self._ready(module)

    def _ready(self, module: nn.Module) -> nn.Module:
        """The module on the problem's device, its lazy parts made whole by two examples."""
        require_bindable(module)
        require_no_hooks(module)
        require_separate(module)
        module.to(self.device)
        dtype = next(iter(trainable(module).values())).dtype
        materialise(module, self._first.to(self.device, dtype).inputs)
        return module


def _prints(module: nn.Module) -> dict[str, list[int]]:
    """What parameters and buffers hold, as short numbers."""
    every: dict[str, Tensor] = {**parameters_of(module), **buffers_of(module)}
    return {name: fingerprint(tensor).tolist() for name, tensor in every.items()}


def arrange(output: Any, names: Sequence[str]) -> list[Any]:
    """A model's output as predictions in task order."""
    found = in_order(output, names)
    if found is not None:
        return found
    if isinstance(output, Tensor) and len(names) == 1:
        return [output]
    raise LandscapeError(
        f"the model's output does not match the {len(names)} tasks: expected a dict by the names {', '.join(names)} "
        f"or a sequence in that order, got {outline(output)}"
    )


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


def _layout(parameters: Mapping[str, Tensor], owners: Sequence[str]) -> Layout:
    slots, offset = [], 0
    for (name, tensor), owner in zip(parameters.items(), owners, strict=True):
        slots.append(Slot(name, tuple(tensor.shape), owner, offset))
        offset += tensor.numel()
    return Layout(tuple(slots))
