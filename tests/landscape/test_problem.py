"""A problem is a pure function of theta, and refuses what would make it another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape import Independent, LandscapeError, Plan, Problem, Task, train
from landscape.errors import LandscapeWarning
from landscape.problem import Evaluation
from tests.landscape.examples import (
    NAMES,
    Listed,
    Net,
    data,
    fingerprint,
    made,
    problem,
    squared,
    tasks,
    tensors,
    untouched,
)

# Layout


def test_theta_is_the_trainable_parameters_in_the_modules_order() -> None:
    found = problem()
    assert [(slot.name, slot.shape) for slot in found.layout.slots] == [
        (name, tuple(p.shape)) for name, p in found.model.named_parameters()
    ]
    ends = np.cumsum([slot.size for slot in found.layout.slots])
    assert [slot.offset for slot in found.layout.slots] == [0, *ends[:-1]]
    theta, _ = found.read(found.model)
    for slot in found.layout.slots:
        assert torch.equal(theta[slot.span].reshape(slot.shape), found.model.get_parameter(slot.name))


def test_what_several_tasks_reach_is_shared_and_what_one_reaches_is_its_head() -> None:
    class Tree(nn.Module):
        """`low` is reached by all, `high` by green and blue, `unread` by nobody."""

        def __init__(self) -> None:
            super().__init__()
            self.low, self.high, self.unread = (nn.Linear(4, 4) for _ in range(3))
            self.red, self.green, self.blue = (nn.Linear(4, t + 1) for t in range(3))

        def forward(self, inputs: Tensor) -> list[Tensor]:
            low = self.low(inputs)
            high = self.high(low)
            return [self.red(low), self.green(high), self.blue(high)]

    found = Problem(made(Tree), tasks(), data(), data())
    owners = {slot.name.split(".")[0]: slot.owner for slot in found.layout.slots}
    assert owners == {
        "low": "shared",
        "high": "shared",
        "unread": "unused",
        **{name: name for name in NAMES},
    }
    index = np.concatenate([found.layout.index(owner) for owner in ("shared", "unused", *NAMES)])
    assert sorted(index) == list(range(found.layout.size))
    assert found.layout.count() == 2 * (16 + 4)


def test_patterns_decide_what_is_shared() -> None:
    found = problem(shared=["trunk.*", "heads.1.bias"])
    owners = {slot.name: slot.owner for slot in found.layout.slots}
    assert owners["heads.1.bias"] == owners["trunk.0.weight"] == "shared"
    assert owners["heads.1.weight"] == "green"


def test_patterns_that_leave_out_what_several_tasks_reach_are_refused() -> None:
    message = (
        r"parameter 'trunk.0.weight' is reached by the tasks red, green, blue but matches none of the shared patterns "
        r"trunk.\*.bias: add a pattern that matches it"
    )
    with pytest.raises(LandscapeError, match=message):
        problem(shared=["trunk.*.bias"])


def test_with_a_single_task_everything_is_shared() -> None:
    assert {slot.owner for slot in problem(1).layout.slots} == {"shared"}


def test_tasks_may_share_nothing() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.red, self.green = nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> list[Tensor]:
            return [self.red(inputs), self.green(inputs)]

    found = Problem(made(Apart), tasks(2), data(23, 2), data(23, 2))
    assert found.layout.count() == 0
    *_, last = train(found, Independent(), Plan(steps=3, batch_size=4))
    assert last.path_steps == 0.0


def test_tied_weights_are_there_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, inputs: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(inputs)))[:, :1]

    module = made(Tied)
    found = Problem(module, tasks(1), data(23, 1), data(23, 1))
    assert [slot.name for slot in found.layout.slots] == ["first.weight", "first.bias", "second.bias"]
    theta = torch.linspace(-1, 1, found.layout.size)
    weight, first, second = theta[:16].reshape(4, 4), theta[16:20], theta[20:]
    batch = found.evaluation
    expected = torch.tanh(batch.inputs @ weight.T + first) @ weight.T + second
    # One product of three terms in float32: a few roundings of numbers of order one.
    assert torch.allclose(found.losses(theta, batch), squared(expected[:, :1], batch.targets[0]), atol=1e-5)
    copy = found.module(theta)
    assert copy.first.weight is copy.second.weight
    assert torch.equal(found.read(copy)[0], theta)


def test_frozen_parameters_are_left_out_and_hashed() -> None:
    def frozen(value: float) -> Problem:
        module = made(Net)
        module.trunk[0].weight.requires_grad_(False)
        module.trunk[0].weight[0, 0] = value
        return Problem(module, tasks(), data(), data())

    first, same, other = frozen(0.5), frozen(0.5), frozen(0.25)
    assert "trunk.0.weight" not in {slot.name for slot in first.layout.slots}
    assert first.frozen_hash == same.frozen_hash != other.frozen_hash
    assert first.frozen_hash != problem().frozen_hash


def test_a_parameter_without_entries_and_one_of_a_single_number_have_their_places() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.empty = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(0, 3))
            self.shift = nn.Parameter(torch.zeros(2))

        def forward(self, inputs: Tensor) -> list[Tensor]:
            nothing = self.empty.sum()
            return [self.scale * inputs[:, :1] + nothing, self.scale * inputs[:, :2] + self.shift]

    found = Problem(made(Odd), tasks(2), data(23, 2), data(23, 2))
    assert [(s.name, s.shape, s.owner, s.offset) for s in found.layout.slots] == [
        ("scale", (), "shared", 0),
        ("empty", (0, 3), "red", 1),
        ("shift", (2,), "green", 1),
    ]
    *_, last = train(found, Independent(), Plan(steps=3, batch_size=4))
    assert last.theta.shape == (3,)


# Losses and evaluation


def test_losses_are_those_of_a_plain_loop() -> None:
    found = problem(middle=lambda: nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5)))
    theta = torch.linspace(-1, 1, found.layout.size)
    losses = found.losses(theta, found.evaluation)
    module = found.module(theta).eval()
    x, *ys = tensors(23, seed=2)
    for i in range(23):
        predictions = module(x[i : i + 1])
        for t, name in enumerate(NAMES):
            expected = ((predictions[name][0] - ys[t][i]) ** 2).sum()
            # Sums of at most five terms in float32, in another order where examples are stacked.
            assert torch.allclose(losses[t, i], expected, rtol=1e-5)
    assert losses.shape == (3, 23)


def test_a_gradient_of_the_losses_is_that_of_the_module() -> None:
    found = problem(dtype=torch.float64)
    theta = found.initial(0)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(found.losses(theta, found.evaluation).sum(), theta)
    module = found.module(theta).eval()
    x, *ys = (leaf.double() for leaf in tensors(23, seed=2))
    sum(squared(p, y).sum() for p, y in zip(module(x).values(), ys, strict=True)).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    # The same operations in float64: 1e-12 leaves room for another order of sums.
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-12)


def test_evaluation_weighs_examples_alike_not_batches() -> None:
    # Three examples in micro-batches of two, losses 0, 0, 3: the mean is 1, the mean of batch means 1.5.
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + self.zero

    points = TensorDataset(torch.tensor([[0.0], [0.0], [3.0]]), torch.zeros(3, 1))
    task = Task("red", lambda p, _: p.sum(1), {"twice": lambda p, _: 2 * p.sum(1)})
    found = Problem(Point(), [task], points, points, micro_batch=2)
    means = found.evaluate(found.initial(0)[0])
    assert means.losses.tolist() == [1.0]
    assert means.metrics.tolist() == [2.0]
    assert found.metric_names == ("red.twice",)


def test_evaluation_sums_in_float64() -> None:
    # In float32, 2^24 + 1 = 2^24: a sum in float32 loses every one of the small losses.
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * self.one

    values = torch.ones(1001, 1)
    values[0] = 2.0**24
    points = TensorDataset(values, torch.zeros(1001, 1))
    found = Problem(Scale(), [Task("red", lambda p, _: p[:, 0])], points, points, micro_batch=1001)
    assert found.evaluate(found.initial(0)[0]).losses.item() == (2.0**24 + 1000) / 1001


def test_evaluation_does_not_depend_on_the_micro_batch() -> None:
    def evaluated(size: int) -> Evaluation:
        found = problem(micro_batch=size, dtype=torch.float64)
        return found.evaluate(found.initial(0)[0])

    expected = evaluated(23).losses
    for size in (1, 5, 22, 100):
        # Float64 sums of 23 terms: a few units in the last place.
        assert torch.allclose(evaluated(size).losses, expected, rtol=1e-14)


def test_batch_norm_uses_the_buffers_given() -> None:
    found = problem(middle=lambda: nn.BatchNorm1d(5), dtype=torch.float64)
    theta, buffers = found.initial(0)
    moved = buffers.clone()
    moved[:5] += 0.5  # running means
    x = found.evaluation.inputs
    module = found.model
    features = torch.tanh(module.trunk[0](x))
    norm = module.trunk[2]
    normed = (features - 0.5) / np.sqrt(1 + norm.eps) * norm.weight + norm.bias  # running variances are 1
    expected = squared(module.heads[1](normed), found.evaluation.targets[1])
    # Float64, another order of a few operations.
    assert torch.allclose(found.losses(theta, found.evaluation, moved)[1], expected, rtol=1e-12)


def test_a_non_finite_loss_stays_non_finite() -> None:
    found = problem()
    theta = torch.full((found.layout.size,), torch.inf)
    assert not torch.isfinite(found.evaluate(theta).losses).any()


# Nothing is touched


class Counting(nn.Module):
    """Counts its calls in buffers, one of which is not saved, by writing into them and by assigning to them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("assigned", torch.zeros(()))
        self.register_buffer("unsaved", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.unsaved += 1
        self.assigned = self.assigned + 1
        return inputs


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "nothing": nn.Identity,
    "dropout and batch norm": lambda: nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5)),
    "counters": Counting,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)),
}


@pytest.mark.parametrize("middle", MIDDLES)
def test_module_and_global_generators_stay_byte_for_byte(middle: str) -> None:
    module = made(lambda: Net(3, MIDDLES[middle]))
    module.trunk[0].eval()
    module.heads[2].bias.requires_grad_(False)
    module.heads[0].weight.grad = torch.ones(1, 5)
    with untouched(module):
        found = Problem(module, tasks(), data(), data())
        theta, buffers = found.initial(3)
        found.losses(theta.requires_grad_(), found.evaluation).sum().backward()
        found.losses(theta, found.evaluation, buffers)
        found.evaluate(theta, buffers)
        found.evaluate(theta)
        found.module(theta.detach(), buffers).eval()(found.evaluation.inputs)
        found.read(module)
        found.to(dtype=torch.float64).evaluate(theta.detach().double())
        list(train(found, Independent(), Plan(steps=4, batch_size=8)))


def test_a_module_is_put_back_when_the_model_raises() -> None:
    module = made(lambda: Net(3, lambda: nn.Dropout(0.5)))
    found = Problem(module, tasks(), data(), data())
    before = fingerprint(module)
    with pytest.raises(RuntimeError, match="shape"):
        found.losses(found.initial(0)[0], type(found.evaluation)(torch.zeros(2, 3), found.evaluation.targets))
    assert fingerprint(module) == before


def test_a_function_is_called_anew_for_every_seed() -> None:
    found = Problem(Net, tasks(), data(), data())
    assert torch.equal(found.initial(1)[0], found.initial(1)[0])
    assert not torch.equal(found.initial(1)[0], found.initial(2)[0])
    with untouched(found.model):
        found.initial(5)


def test_a_module_of_ones_own_is_the_start_of_every_seed() -> None:
    found = problem()
    assert torch.equal(found.initial(1)[0], found.initial(2)[0])
    assert torch.equal(found.initial(1)[0], torch.cat([p.detach().reshape(-1) for p in found.model.parameters()]))


def test_another_type_leaves_the_original_as_it_was() -> None:
    found = problem(middle=lambda: nn.BatchNorm1d(5))
    with untouched(found.model):
        double = found.to(dtype=torch.float64)
        assert double.model is not found.model
        theta, buffers = double.initial(0)
        assert double.evaluate(theta, buffers).losses.dtype == theta.dtype == torch.float64
    assert found.dtype == next(found.model.parameters()).dtype == found.evaluation.inputs.dtype == torch.float32
    assert (double.data_hash, double.layout) == (found.data_hash, found.layout)
    # The float32 problem's losses are those of the float64 one to the roundings of three layers.
    expected = double.evaluate(theta).losses
    assert torch.allclose(found.evaluate(found.initial(0)[0]).losses, expected, rtol=1e-5)


# Refusals


class Noise(nn.Module):
    """Noise of a kind of its own, in every mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 0.1 * torch.randn_like(inputs)


class Forced(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.dropout(inputs, 0.5, training=True)


class Keyword(nn.Module):
    """The noise is this module's; the inner one, called by keyword, only passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(input=inputs + np.random.rand())  # noqa: NPY002


class Centred(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean(0)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (Noise, r"module 'trunk.2' \(Noise\) draws random numbers in evaluation mode"),
        (Forced, r"module 'trunk.2' \(Forced\) draws random numbers in evaluation mode"),
        (
            lambda: nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.Tanh(), Forced())),
            r"module 'trunk.2.1.1' \(Forced\) draws",
        ),
        (Keyword, r"module 'trunk.2' \(Keyword\) draws"),
        (
            lambda: nn.BatchNorm1d(5, track_running_stats=False),
            r"module 'trunk.2' \(BatchNorm1d\) mixes the examples of a batch in evaluation mode \(batch statistics\)",
        ),
        (lambda: nn.Sequential(nn.Tanh(), Centred()), r"module 'trunk.2.1' \(Centred\) mixes the examples"),
    ],
)
def test_an_evaluation_that_is_no_function_of_theta_is_refused_by_its_modules_name(
    middle: Callable[[], nn.Module], message: str
) -> None:
    module = made(lambda: Net(3, middle))
    with untouched(module), pytest.raises(LandscapeError, match=message):
        Problem(module, tasks(), data(), data())


def test_noise_in_the_models_own_forward_is_refused() -> None:
    class Own(Net):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return super().forward(F.dropout(inputs, 0.5, training=True))

    with pytest.raises(LandscapeError, match=r"module 'the model itself' \(Own\) draws random numbers"):
        Problem(made(Own), tasks(), data(), data())


@pytest.mark.parametrize("middle", [nn.Dropout, lambda: nn.BatchNorm1d(5), lambda: nn.LayerNorm(5), Counting])
def test_what_is_still_in_evaluation_mode_is_accepted(middle: Callable[[], nn.Module]) -> None:
    assert problem(middle=middle).layout.count() >= 25


def with_output(change: Callable[[dict[str, Tensor]], Any]) -> nn.Module:
    class Changed(Net):
        def forward(self, inputs: Tensor) -> Any:
            return change(super().forward(inputs))

    return made(Changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"red": p["red"]}, "does not match the 3 tasks: expected a dict by .* got a dict with red"),
        (lambda p: list(p.values())[:2], "does not match the 3 tasks: .* got 2 parts"),
        (lambda p: p["red"], "does not match the 3 tasks: .* got Tensor"),
        (lambda p: {**p, "green": p["green"].detach()}, "task 'green' reaches no trainable parameter: expected its"),
    ],
)
def test_outputs_that_do_not_match_the_tasks_are_refused(change: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        Problem(with_output(change), tasks(), data(), data())


def test_outputs_may_be_in_any_of_the_accepted_forms() -> None:
    forms: list[Callable[[Any], Any]] = [
        dict,
        lambda p: {"more": p["red"], **dict(reversed(p.items()))},
        lambda p: list(p.values()),
        lambda p: tuple(p.values()),
    ]
    found = [Problem(with_output(form), tasks(), data(), data()) for form in forms]
    theta = found[0].initial(0)[0]
    losses = [p.losses(theta, p.evaluation) for p in found]
    assert all(torch.equal(losses[0], other) for other in losses[1:])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            F.mse_loss,
            r"loss of task 'red' is not per example: expected shape \[16\] for 16 examples, got \[\]; use",
        ),
        (
            lambda p, y: (p - y) ** 2,
            r"loss of task 'red' is not per example: expected shape \[16\] for 16 examples, got \[16, 1\]",
        ),
        (lambda p, y: 1.0, r"is not per example: .* got float"),
        (lambda p, y: F.cross_entropy(p, y, reduction="none"), r"loss of task 'red' failed on a batch of 16 examples"),
    ],
)
def test_a_loss_that_is_not_per_example_is_refused(loss: Callable[..., Any], message: str) -> None:
    classes = TensorDataset(
        torch.zeros(23, 4), torch.zeros(23, 1) if "failed" not in message else torch.zeros(23, 3, 7)
    )
    with pytest.raises(LandscapeError, match=message):
        Problem(made(lambda: Net(1)), [Task("red", loss)], classes, classes)


def _row(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss made of the squared errors [B] of a whole batch."""
    return lambda p, y: change(squared(p, y))


@pytest.mark.parametrize(
    "loss",
    [
        _row(lambda e: e.mean().expand(len(e))),
        _row(lambda e: e / e.sum()),
        _row(lambda e: e - e.mean()),
        _row(lambda e: e.cumsum(0)),
        _row(lambda e: e + 0.1 * e.roll(1)),
        _row(lambda e: torch.where(e == e.max(), torch.nan, e)),
    ],
    ids=[
        "a mean given to all",
        "weights of the batch",
        "centred",
        "a running sum",
        "a neighbour's",
        "NaN at the largest",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_or_metric_that_mixes_examples_is_refused(loss: Any, dtype: torch.dtype) -> None:
    module = made(lambda: Net(2), dtype=dtype)
    message = (
        r"^the loss of task 'green' mixes the examples of a batch: its values for (5|11) of 16 examples change when"
    )
    with pytest.raises(LandscapeError, match=message + r".*; expected each to depend on its own .*: take no mean"):
        Problem(module, [Task("red", squared), Task("green", loss)], data(23, 2), data(23, 2))
    with pytest.raises(LandscapeError, match=r"^the metric 'odd' of task 'red' mixes the examples of a batch"):
        Problem(module, [Task("red", squared, {"odd": loss}), Task("green", squared)], data(23, 2), data(23, 2))


@pytest.mark.parametrize(
    "loss",
    [
        _row(lambda e: torch.where(e > 1, torch.inf, e)),
        _row(lambda e: torch.where(e > 1, torch.nan, e)),
        _row(lambda e: e * 1e30),
        lambda p, y: torch.linalg.vector_norm(p - y, dim=1),
        lambda p, y: (p - y).flatten(1).sum(1) < 0,
    ],
    ids=["infinite values", "NaN", "large values", "a norm of each", "booleans"],
)
@pytest.mark.parametrize("examples", [1, 2, 3, 23])
def test_a_metric_of_each_example_alone_is_accepted_whatever_its_values(loss: Any, examples: int) -> None:
    task = Task("red", squared, {"odd": loss})
    assert Problem(made(lambda: Net(1)), [task], data(23, 1), data(examples, 1)).metric_names == ("red.odd",)


def test_a_metric_that_is_not_per_example_is_refused() -> None:
    task = Task("red", squared, {"error": lambda p, y: (p - y).abs().mean()})
    with pytest.raises(LandscapeError, match=r"the metric 'error' of task 'red' is not per example"):
        Problem(made(lambda: Net(1)), [task], data(23, 1), data(23, 1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected at least one task, got none"),
        (["red", "red"], "two tasks are called 'red': expected distinct names"),
        (["red", "shared"], "a task cannot be called 'shared': that name is reserved"),
        (["unused"], "a task cannot be called 'unused'"),
        (["average"], "a task cannot be called 'average'"),
        ([""], "a task cannot be called ''"),
    ],
)
def test_names_that_would_be_confused_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        Problem(made(Net), [Task(name, squared) for name in names], data(), data())


def test_models_without_a_usable_parameter_are_refused() -> None:
    module = made(Net).requires_grad_(False)
    with pytest.raises(LandscapeError, match="the model has no trainable parameter: expected at least one with"):
        Problem(module, tasks(), data(), data())
    mixed = made(Net)
    mixed.heads[0].double()
    with pytest.raises(LandscapeError, match=r"of one floating-point type, got torch.float32, torch.float64"):
        Problem(mixed, tasks(), data(), data())


def test_a_theta_of_another_model_is_refused() -> None:
    found = problem()
    message = rf"theta has shape \[3\], the layout expects \[{found.layout.size}\] \(8 tensors\); was it recorded from"
    with pytest.raises(LandscapeError, match=message):
        found.losses(torch.zeros(3), found.evaluation)
    with pytest.raises(LandscapeError, match=r"the module has no parameter 'trunk\.0\.weight'"):
        found.read(nn.Linear(2, 2))
    with pytest.raises(LandscapeError, match=r"expected buffers with 0 entries, got \(2,\)"):
        found.losses(found.initial(0)[0], found.evaluation, torch.zeros(2))


def test_a_function_that_makes_no_module_is_refused() -> None:
    with pytest.raises(LandscapeError, match=r"expected the model function to return a torch.nn.Module, got int"):
        Problem(lambda: 3, tasks(), data(), data())  # type: ignore[arg-type,return-value]


def test_a_micro_batch_of_nothing_is_refused() -> None:
    with pytest.raises(LandscapeError, match="expected micro-batches of 1 or more examples, got 0"):
        problem(micro_batch=0)


def test_one_example_is_enough() -> None:
    found = Problem(made(Net), tasks(), data(1), data(1))
    assert found.losses(found.initial(0)[0], found.evaluation).shape == (3, 1)


def test_nested_inputs_reach_the_model_as_they_are() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.numbers = nn.Embedding(5, 2), nn.Linear(4, 2)

        def forward(self, inputs: dict[str, Any]) -> Tensor:
            return (self.words(inputs["word"]) + self.numbers(inputs["pair"][1])).sum(1, keepdim=True)

    x = tensors()[0]
    examples = [({"word": i % 5, "pair": (torch.ones(3), x[i])}, torch.zeros(1)) for i in range(23)]
    found = Problem(made(Nested), tasks(1), Listed(examples), Listed(examples), micro_batch=5)
    module = found.model
    expected = (module.words(torch.arange(23) % 5) + module.numbers(x)).sum(1).square().double().mean()
    # Float32 roundings of a handful of additions.
    assert torch.allclose(found.evaluate(found.initial(0)[0]).losses, expected, rtol=1e-5)


def test_a_loss_with_a_parameter_of_its_own_is_taken_and_said_to_be_no_part_of_theta() -> None:
    scale = nn.Parameter(torch.tensor(2.0))
    data = TensorDataset(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(16, 1))

    def scaled(prediction: Tensor, target: Tensor) -> Tensor:
        return scale * ((prediction - target) ** 2).mean(1)

    with pytest.warns(LandscapeWarning, match=r"no parameters of the model, of shape \[\]: .* no strategy trains them"):
        made = Problem(nn.Linear(3, 1), [Task("one", scaled)], data, data)
    assert [slot.name for slot in made.layout.slots] == ["weight", "bias"]
