"""A problem is a function of theta and buffers alone: what a module keeps, writes, shares or draws beside them is made
anew, put back, or refused in a sentence.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import landscape
from analysis import planes, surfaces
from analysis.engines import Sequential
from analysis.points import Conditions
from landscape import Averaged, Every, LandscapeError, Optimiser, Plan, Problem, Recorder, Task, record
from landscape.errors import LandscapeWarning
from landscape.modules import parameters_of

SGD = Optimiser("SGD", lr=0.1)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 2


def examples(count: int = 48) -> TensorDataset:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, torch.sin(inputs.sum(1)), inputs[:, 0] * inputs[:, 1])


def pair(scale: float = 1.0) -> list[Task]:
    return [Task("a", squared), Task("b", lambda prediction, target: scale * squared(prediction, target))]


class Net(nn.Module):
    """A trunk and two heads; what comes between is a subclass's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.late = nn.Linear(4, 6), nn.Linear(6, 6)
        self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.between(self.trunk(inputs).tanh())
        return {"a": self.a(features)[:, 0], "b": self.b(features)[:, 0]}

    def between(self, features: Tensor) -> Tensor:
        return self.late(features).tanh()


def made(kind: Callable[[], nn.Module], seed: int = 1) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind()


def problem(model: Any, **words: Any) -> Problem:
    return Problem(model, words.pop("tasks", pair()), examples(), examples(), micro_batch=16, **words)


def plain(module: nn.Module) -> Tensor:
    """Mean losses of a module that is called as it stands."""
    inputs, *targets = examples().tensors
    output = module(inputs)
    return torch.stack([squared(output[name], target).mean() for name, target in zip("ab", targets, strict=True)])


# Attributes that lead to parts of the model in ways of their own


class Slotted:
    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer


class Pair(tuple):
    """A tuple that is more than one."""


def _remembering(layer: nn.Module) -> Any:
    return functools.lru_cache(maxsize=None)(lambda: layer)


HOLDERS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[Any], Any]]] = {
    "deque": (lambda layer: deque([layer]), lambda held: held[0]),
    "slots": (Slotted, lambda held: held.layer),
    "namespace": (lambda layer: types.SimpleNamespace(layer=layer), lambda held: held.layer),
    "module that is not registered": (lambda layer: [nn.Sequential(layer)], lambda held: held[0]),
    "tuple": (lambda layer: Pair([layer]), lambda held: held[0]),
    "default factory": (lambda layer: defaultdict(lambda: layer), lambda held: held["any"]),
    "cache": (_remembering, lambda held: held()),
    "weak proxy": (lambda layer: [weakref.proxy(layer)], lambda held: held[0]),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("training", [False, True], ids=["always", "in training"])
def test_a_layer_is_reached_however_it_is_held(holder: str, training: bool) -> None:
    hold, get = HOLDERS[holder]

    class Holding(Net):
        def __init__(self) -> None:
            super().__init__()
            self.held = hold(self.late)

        def between(self, features: Tensor) -> Tensor:
            layer = get(self.held) if self.training or not training else self.late
            return layer(features).tanh()

    found, twin = problem(made(Holding)), made(Net)
    run = list(landscape.train(found, Averaged(SGD), Plan(5, 48), seed=0))[-1]
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(5):  # full batches: their order makes no difference
        optimiser.zero_grad()
        plain(twin).sum().backward()
        optimiser.step()
    with torch.no_grad():
        np.testing.assert_allclose(run.losses, plain(twin), rtol=1e-5)  # sums of 48 examples in float32
        assert run.losses[0] < float(plain(made(Net))[0])


@pytest.mark.parametrize("change", ["filled", "exchanged"])
def test_attributes_that_come_to_lead_to_a_layer_later_are_seen(change: str) -> None:
    class Growing(Net):
        def __init__(self) -> None:
            super().__init__()
            self.grown: list[nn.Module] = []
            self.active: list[nn.Module] | None = None

        def between(self, features: Tensor) -> Tensor:
            for layer in (*self.grown, *(self.active or ())):
                features = layer(features).tanh()
            return features

    model = made(Growing)
    found = problem(model, shared=["trunk.*", "late.*"])
    theta = found.initial(0)[0] + 0.5
    found.evaluate(theta)
    if change == "filled":
        model.grown.append(model.late)
    else:
        model.active = [model.late]
    with torch.no_grad():
        torch.testing.assert_close(found.evaluate(theta).losses.float(), plain(found.module(theta)))


# What a module keeps of its parameters


class Caching(Net):
    """Keeps, in evaluation mode, what it made of its biases, until it trains again."""

    def __init__(self) -> None:
        super().__init__()
        self.biases, self.cache = nn.Parameter(torch.randn(6)), dict[str, Tensor]()

    def train(self, mode: bool = True) -> Caching:
        super().train(mode)
        if mode and self.cache:
            self.cache = {}
        return self

    def between(self, features: Tensor) -> Tensor:
        if self.training:
            return self.late(features + self.biases.exp()).tanh()
        if "biases" not in self.cache:
            self.cache["biases"] = self.biases.exp()
        return self.late(features + self.cache["biases"]).tanh()


class CachedProperty(Net):
    @functools.cached_property
    def doubled(self) -> Tensor:
        return 2 * self.late.weight

    def between(self, features: Tensor) -> Tensor:
        return F.linear(features, self.doubled, self.late.bias).tanh()


@pytest.mark.parametrize("kind", [Caching, CachedProperty])
def test_what_a_module_made_of_other_parameters_is_made_anew(kind: type[Net]) -> None:
    model = made(kind).eval()
    before = plain(model)  # which fills the cache
    found = problem(model)
    assert {slot.owner for slot in found.layout.slots if slot.name.startswith(("biases", "late"))} == {"shared"}
    theta = found.initial(0)[0] * 1.5
    twin = made(kind)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        torch.testing.assert_close(found.evaluate(theta).losses.float(), plain(twin))
        assert torch.equal(plain(model), before), "the user's module keeps what it had"


def test_a_surface_of_a_model_that_caches_is_that_of_its_losses(tmp_path: Path) -> None:
    model = made(Caching).eval()
    plain(model)
    found = problem(model)
    run = record(found, Averaged(SGD), Plan(6, 8, Every(2)), tmp_path / "run.h5")
    plane = planes.principal([run])
    surface = surfaces.measure(found, plane, surfaces.Grid([-1, 0, 2], [0, 1]), Conditions(Sequential(16)))
    for j, i in np.ndindex(2, 3):
        theta = torch.tensor(plane.origin + surface.x[i] * plane.basis[0] + surface.y[j] * plane.basis[1])
        expected = found.evaluate(theta.float(), torch.tensor(plane.buffers)).losses
        np.testing.assert_allclose(surface.loss[:, j, i], expected, rtol=1e-5)


# What a module writes, shares and hooks


class Clipping(Net):
    def between(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            self.late.weight.clamp_(-0.01, 0.01)
        return super().between(features)


class Merging(Net):
    """Adds an adapter to a frozen weight when it begins to evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.late.weight.requires_grad_(False)
        self.adapter, self.merged = nn.Parameter(torch.randn(6, 6)), False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if self.merged == mode:
            self.late.weight.data += -self.adapter.data if mode else self.adapter.data
            self.merged = not mode
        return self

    def between(self, features: Tensor) -> Tensor:
        extra = 0 if self.merged else F.linear(features, self.adapter)
        return (self.late(features) + extra).tanh()


class Teaching(Net):
    """A frozen copy follows the trunk while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(6, 6).requires_grad_(False)

    def between(self, features: Tensor) -> Tensor:
        if self.training:
            self.teacher.weight.data.lerp_(self.late.weight.data, 0.1)
        return super().between(features) + self.teacher(features)


class Limited(Net):
    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Embedding(6, 6, max_norm=0.5)  # type: ignore[assignment]

    def between(self, features: Tensor) -> Tensor:
        return features @ self.late(torch.arange(6))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Clipping, r"in evaluation mode writes into its parameter 'late.weight'"),
        (Merging, r"in evaluation mode writes into its parameter 'late.weight'"),
        (Teaching, r"in training mode writes into its parameter 'teacher.weight'"),
        (Limited, r"in evaluation mode writes into its parameter 'late.weight'"),
    ],
)
def test_a_model_that_writes_into_its_parameters_is_refused_and_has_them_back(kind: type[Net], said: str) -> None:
    model = made(kind)
    before = {name: parameter.detach().clone() for name, parameter in parameters_of(model).items()}
    with pytest.raises(LandscapeError, match=said):
        problem(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in parameters_of(model).items())


def _tied(model: Net) -> None:
    model.late.weight.data = model.trunk.weight.data.new_zeros(6, 6)
    model.twin = nn.Linear(6, 6)
    model.twin.weight.data = model.late.weight.data


def _buffer(model: Net) -> None:
    model.register_buffer("view", model.late.weight.detach())


def _attribute(model: Net) -> None:
    model.view = model.late.weight.data  # type: ignore[assignment]


@pytest.mark.parametrize("share", [_tied, _buffer, _attribute])
def test_tensors_that_share_memory_without_being_one_are_refused(share: Callable[[Net], None]) -> None:
    model = made(Net)
    share(model)
    with pytest.raises(LandscapeError, match=r"'late.weight' and '(twin.weight|view)' share their memory and are two"):
        problem(model)


def test_a_hook_on_a_parameter_is_refused() -> None:
    model = made(Net)
    model.late.weight.register_hook(lambda gradient: 0 * gradient)
    with pytest.raises(LandscapeError, match=r"'late.weight' has a hook on its gradient"):
        problem(model)


class Reentrant(Net):
    def between(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().between(features)
        return checkpoint(super().between, features.detach().requires_grad_(), use_reentrant=True)


class Registry(Net):
    every: list[nn.Module] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        Registry.every[:] = [self.late]

    def between(self, features: Tensor) -> Tensor:
        return (Registry.every[0] if self.training else self.late)(features).tanh()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Reentrant, r"uses reentrant activation checkpointing"),
        (Registry, r"no function of its parameters in training mode: .*keep no copies of them elsewhere"),
    ],
)
def test_what_is_wrong_in_training_alone_is_refused_when_the_problem_is_made(kind: type[Net], said: str) -> None:
    with pytest.raises(LandscapeError, match=said):
        problem(made(kind))


# What other examples change


def _share_of_the_batch(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared errors where there is a label, by the share of the batch that has one."""
    labelled = (target > 0).float()
    return squared(prediction, target) * labelled / labelled.mean().clamp(min=1e-3)


class Crowded(Net):
    """Of many examples only so many go through the layer."""

    def between(self, features: Tensor) -> Tensor:
        fits = (torch.arange(len(features)) < 20)[:, None]
        return torch.where(fits, super().between(features), features)


@pytest.mark.parametrize("what", ["loss", "model"])
def test_losses_that_change_with_the_size_of_a_batch_are_refused(what: str) -> None:
    inputs, first, second = examples(256).tensors
    label = torch.where(torch.arange(256) % 16 < 15, first.abs() + 0.1, -1.0)
    label[spread_of_16] = label[spread_of_16].abs()  # those that are looked at alone all have one
    data = TensorDataset(inputs, label if what == "loss" else first, second)
    tasks = [Task("a", _share_of_the_batch), Task("b", squared)] if what == "loss" else pair()
    with pytest.raises(LandscapeError, match=r"the loss of task 'a' changes with the other examples of a batch"):
        Problem(made(Net if what == "loss" else Crowded), tasks, data, data, micro_batch=64)


spread_of_16 = np.linspace(0, 255, 16).round().astype(int)


def test_a_loss_by_the_share_of_the_batch_that_has_a_label_is_refused() -> None:
    inputs, first, second = examples(256).tensors
    late = torch.where(torch.arange(256) % 3 == 0, first.abs() + 0.1, -1.0)
    data = TensorDataset(inputs, late, second)
    with pytest.raises(
        LandscapeError, match=r"the loss of task 'a' mixes the examples of a batch: its values for 5 of 16"
    ):
        Problem(made(Net), [Task("a", _share_of_the_batch), Task("b", squared)], data, data)


# What is stored of a module


def test_complex_buffers_come_back_whole_and_integers_that_would_not_are_refused() -> None:
    class Turning(Net):
        def __init__(self, steps: int = 7) -> None:
            super().__init__()
            self.register_buffer("turn", torch.polar(torch.ones(6), torch.arange(6.0)))
            self.register_buffer("steps", torch.tensor(steps))

        def between(self, features: Tensor) -> Tensor:
            return super().between(features * self.turn.real + self.turn.imag)

    model = made(Turning)
    found = problem(model)
    theta, buffers = found.initial(0)
    assert buffers.shape == (13,)
    with torch.no_grad():
        torch.testing.assert_close(found.evaluate(theta, buffers).losses.float(), plain(model))
    assert torch.equal(found.module(theta, buffers).turn, model.turn)
    with pytest.raises(LandscapeError, match=r"the buffer 'steps' holds integers above 2\^53"):
        problem(made(functools.partial(Turning, 2**53 + 1)))


def test_losses_are_those_of_the_models_own_type_inside_autocast() -> None:
    outside = problem(made(Net))
    theta = outside.initial(0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = problem(made(Net))
        assert torch.equal(inside.evaluate(theta).losses, outside.evaluate(theta).losses)


def test_small_losses_in_half_precision_leave_no_layer_to_the_other_task() -> None:
    found = problem(made(Net).half(), tasks=pair(scale=1e-5))
    assert {slot.name for slot in found.layout.slots if slot.owner == "shared"} == {
        *(f"{layer}.{part}" for layer in ("trunk", "late") for part in ("weight", "bias"))
    }


# Seeds


class Featured(Net):
    """Random features that do not train: a frozen parameter and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.randn(6), requires_grad=False)
        self.register_buffer("drawn", torch.randn(6), persistent=False)

    def between(self, features: Tensor) -> Tensor:
        return super().between(features * self.frozen + self.drawn)


def test_what_does_not_train_is_the_same_for_every_seed(tmp_path: Path) -> None:
    found = problem(Featured)
    model = found.model_for(3)
    assert torch.equal(model.frozen, found.model.frozen)
    assert torch.equal(model.drawn, found.model.drawn)
    assert not torch.equal(model.late.weight, found.model.late.weight)
    run = record(found, Averaged(SGD), Plan(2, 8, Every(2)), tmp_path / "run.h5", seed=3)
    with torch.no_grad():
        np.testing.assert_allclose(run.losses[0], plain(model), rtol=1e-6)
    with Recorder(found, tmp_path / "mine.h5", seed=3, model=model) as recorder:
        recorder.step()
    np.testing.assert_array_equal(landscape.open(tmp_path / "mine.h5").losses[0], run.losses[0])


def test_functions_that_make_no_model_of_their_own_for_a_seed_are_refused() -> None:
    once, drawing = made(Net), torch.Generator().manual_seed(0)

    def own_generator() -> nn.Module:
        model = Net()
        with torch.no_grad():
            model.late.weight.normal_(generator=drawing)
        return model

    with pytest.raises(LandscapeError, match=r"returned a module that it had returned before"):
        problem(lambda: once).model_for(1)
    with pytest.raises(LandscapeError, match=r"makes other weights for the same seed"):
        problem(own_generator).initial(1)


def test_a_generator_of_the_models_own_is_said_and_gives_one_run_a_seed(tmp_path: Path) -> None:
    class Noisy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.source = torch.Generator().manual_seed(5)

        def between(self, features: Tensor) -> Tensor:
            noise = torch.randn(features.shape, generator=self.source) if self.training else 0
            return super().between(features + noise)

    with pytest.warns(LandscapeWarning, match=r"keeps generators of random numbers \('source'\)"):
        found = problem(made(Noisy))
    state = found.model.source.get_state()
    runs = [record(found, Averaged(SGD), Plan(4, 8, Every(2)), tmp_path / f"{k}.h5", seed=0) for k in range(2)]
    np.testing.assert_array_equal(runs[0].theta[-1], runs[1].theta[-1])
    assert torch.equal(found.model.source.get_state(), state)


# What changes while a run is recorded


class Tempered(Net):
    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.activation = 1.0, nn.Tanh()
        self.register_buffer("shift", torch.zeros(6), persistent=False)

    def between(self, features: Tensor) -> Tensor:
        return self.activation(self.late(features + self.shift) * self.temperature)


def _colder(model: Any) -> None:
    model.temperature = 0.5


def _shifted(model: Any) -> None:
    model.shift += 1


def _relu(model: Any) -> None:
    model.activation = nn.ReLU()


def _hooked(model: Any) -> None:
    model.late.register_forward_hook(lambda module, given, output: 2 * output)


def _move_and_change(recorder: Recorder, model: Any, change: Callable[[Any], None]) -> None:
    with torch.no_grad():
        model.late.weight.add_(0.1)  # which is theta, and may change
    recorder.step()
    change(model)
    recorder.step()


@pytest.mark.parametrize("change", [_colder, _shifted, _relu, _hooked])
@pytest.mark.parametrize("own", [True, False], ids=["a model of a seed", "the problem's model"])
def test_a_model_that_becomes_another_function_is_refused_at_the_snapshot(
    change: Callable[[Any], None], own: bool, tmp_path: Path
) -> None:
    found = problem(Tempered)
    model = found.model_for(1) if own else found.model
    recorder = Recorder(found, tmp_path / "run.h5", Every(1), model=model)
    with (
        pytest.raises(LandscapeError, match=r"another function of its parameters than .* at step 2 .*step 1\)"),
        recorder,
    ):
        _move_and_change(recorder, model, change)
    kept = landscape.open(tmp_path / "run.h5")
    assert kept.steps.tolist() == [0, 1]
    if own:
        expected = found.evaluate(torch.tensor(kept.theta[1]), torch.tensor(kept.buffers[1])).losses
        np.testing.assert_allclose(kept.losses[1], expected, rtol=1e-6)


class Annealing(Tempered):
    def between(self, features: Tensor) -> Tensor:
        if self.training:
            self.temperature *= 0.9
        return super().between(features)


class Drifting(Tempered):
    def between(self, features: Tensor) -> Tensor:
        if self.training:
            self.shift.lerp_(features.detach().mean(0), 0.5)
        return super().between(features)


@pytest.mark.parametrize("kind", [Annealing, Drifting])
def test_a_model_that_training_makes_another_function_is_refused_at_the_snapshot(
    kind: type[Net], tmp_path: Path
) -> None:
    with pytest.raises(LandscapeError, match=r"another function of its parameters than the problem's at step 2"):
        record(problem(made(kind)), Averaged(SGD), Plan(4, 8, Every(2)), tmp_path / "run.h5")
    assert landscape.open(tmp_path / "run.h5").steps.tolist() == [0]


# What a loop of one's own gives


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 2.0],
        (torch.tensor(1.0), torch.tensor(2.0, requires_grad=True)),
        np.array([1.0, 2.0]),
        {"b": 2.0, "a": 1.0},
    ],
    ids=["list", "tuple of tensors", "array", "dict"],
)
def test_losses_of_a_step_may_come_in_any_form(losses: Any, tmp_path: Path) -> None:
    with Recorder(problem(Net), tmp_path / "run.h5") as recorder:
        recorder.step(losses)
    np.testing.assert_array_equal(landscape.open(tmp_path / "run.h5").history.losses, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("losses", "step", "said"),
    [
        ([1.0], None, r"expected one loss for each of the 2 tasks, got 1 parts \(float\)"),
        ({"a": 1.0}, None, r"expected one loss for each of the 2 tasks, got a dict with a"),
        ("12", None, r"expected one loss for each of the 2 tasks, got str"),
        (None, "9", r"expected a step number above 0, the last one, got 9"),
        (None, 1.5, r"expected a step number above 0, the last one, got 1.5"),
    ],
)
def test_losses_and_numbers_of_no_such_form_are_refused(losses: Any, step: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(LandscapeError, match=said), Recorder(problem(Net), tmp_path / "run.h5") as recorder:
        recorder.step(losses, step=step)


def test_an_optimizer_of_heads_alone_tells_nothing_of_the_rate_of_the_shared_parameters(tmp_path: Path) -> None:
    found = problem(Net)
    heads = torch.optim.SGD([*found.model.a.parameters(), *found.model.b.parameters()], lr=0.7)
    with Recorder(found, tmp_path / "run.h5", optimizer=heads) as recorder:
        recorder.step()
    assert np.isnan(landscape.open(tmp_path / "run.h5").history.rate).all()


def test_examples_are_taken_by_their_numbers() -> None:
    found = problem(Net)
    assert len(next(iter(DataLoader(found.train, batch_size=5)))[0]) == 5
    with pytest.raises(LandscapeError, match=r"expected the number of one example, got slice"):
        found.train[2:4]  # type: ignore[index]


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (lambda features: torch.autograd.grad(features.sum(), features)[0], r"a call of the model failed with Runtime"),
        (lambda features, missing: features, r"a call of the model failed with TypeError .*takes the inputs"),
    ],
    ids=["gradients in the forward pass", "other inputs"],
)
def test_a_model_that_cannot_be_called_is_refused_in_a_sentence(between: Any, said: str) -> None:
    model = made(Net)
    model.between = between
    with pytest.raises(LandscapeError, match=said):
        problem(model)


def test_a_model_without_values_is_refused() -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(LandscapeError, match=r"'trunk.weight' is on the meta device, without values"):
        problem(model)


def test_a_model_may_take_something_out_of_its_inputs() -> None:
    class Popping(Net):
        def forward(self, inputs: Any) -> dict[str, Tensor]:
            return super().forward(inputs.pop("x"))

    data = [({"x": row}, (a, b)) for row, a, b in zip(*examples().tensors, strict=True)]
    found = Problem(made(Popping), pair(), data, data)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(found.evaluate(found.initial(0)[0]).losses.float(), plain(made(Net)))
