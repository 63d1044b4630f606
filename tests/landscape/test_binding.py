"""A bound module is the user's with other tensors in it, until the last backward pass that needs it is over."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset

import landscape
from landscape import Averaged, Every, LandscapeError, Optimiser, Plan, Problem, Task
from landscape.binding import bind, copied, with_own_hooks
from landscape.modules import buffers_of, parameters_of
from tests.landscape.examples import fingerprint
from tests.recomputing import RECOMPUTING, Plain, problem


def gradients(found: Problem, theta: Tensor, *others: Tensor) -> Tensor:
    """The gradient of every task's loss at theta, [T, P], taken after losses at other thetas were computed."""
    at = theta.clone().requires_grad_()
    losses = found.losses(at, found.evaluation).mean(1)
    kept = [found.losses(other.clone().requires_grad_(), found.evaluation) for other in others]
    rows = [torch.autograd.grad(loss, at, retain_graph=True)[0] for loss in losses]
    assert len(kept) == len(others)
    return torch.stack(rows)


@pytest.mark.parametrize("kind", RECOMPUTING.values(), ids=RECOMPUTING)
def test_gradients_are_those_at_the_theta_of_the_forward_pass(kind: Callable[[], nn.Module]) -> None:
    plain, recomputing = problem(Plain), problem(kind)
    theta = plain.initial(0)[0]
    places = (1.5 * theta, -theta, 0.3 * theta)
    expected = gradients(plain, places[0])
    assert expected.norm() > 0.1
    # The same operations on the same numbers, run a second time: rounding at most.
    torch.testing.assert_close(gradients(recomputing, *places), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", RECOMPUTING.values(), ids=RECOMPUTING)
@pytest.mark.parametrize("strategy", [Averaged, landscape.Independent, landscape.AdaTask], ids=lambda s: s.__name__)
def test_training_is_that_of_the_network_without_recomputing(kind: Callable[[], nn.Module], strategy: Any) -> None:
    chosen, plan = strategy(Optimiser("Adam", lr=1e-2)), Plan(40, 16, Every(40))
    (*_, expected), (*_, found) = (landscape.train(problem(make), chosen, plan) for make in (Plain, kind))
    assert expected.losses.sum() < 0.8 * problem(Plain).evaluate(problem(Plain).initial(0)[0]).losses.sum()
    assert found.theta == pytest.approx(expected.theta, rel=1e-9, abs=1e-9)  # float64, 40 steps


def test_a_bound_module_is_not_the_users_and_leaves_it_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = fingerprint(module)
    state = {name: 2 * p.detach() for name, p in (parameters_of(module) | buffers_of(module)).items()}
    bound = with_own_hooks(bind(module, state)).train()
    bound.mark = 1
    bound[1].register_forward_hook(lambda *_: None)
    bound(torch.ones(5, 3)).sum()
    assert fingerprint(module) == before
    assert not hasattr(module, "mark")
    assert not module[1]._forward_hooks
    assert bound[0].weight is state["0.weight"]


class Roundabout(nn.Module):
    """Reaches its layers and parameters by every other way than by registration."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.plain_list = [self.first, {"then": (self.second,)}]
        self.closure = lambda x: x * self.scale
        self.method = self.second.forward
        self.partial = functools.partial(torch.nn.functional.linear, weight=self.second.weight)
        self.helper = Helper(self)
        self.second.parent = weakref.ref(self)
        self.second.weights = [self.first.bias, self.second.bias]

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain_list[0](x)
        x = self.plain_list[1]["then"][0](x)
        x = self.partial(self.method(self.closure(x))) + self.helper.shift()
        return x + sum(self.second.weights) + self.second.parent().scale


class Helper:
    """No module, and it knows one."""

    def __init__(self, of: Roundabout) -> None:
        self.of = of

    def shift(self) -> Tensor:
        return self.of.scale.square()


def test_what_leads_back_to_a_module_leads_to_the_bound_one() -> None:
    module, x = Roundabout().double(), torch.ones(2, 3, dtype=torch.float64)
    state = {name: (1.3 * p.detach() + 0.1).requires_grad_() for name, p in parameters_of(module).items()}
    found = torch.autograd.grad(bind(module, state)(x).square().sum(), list(state.values()))
    original = module(x).detach()
    with torch.no_grad():
        for name, parameter in parameters_of(module).items():
            parameter.copy_(state[name])
    expected = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    assert not torch.allclose(module(x), original)
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-14, atol=0.0)  # the same operations


def test_a_copy_has_tensors_of_its_own_and_shares_what_cannot_be_copied() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    module.lock = threading.Lock()
    module.features = module[0](torch.ones(1, 3))
    module[0].requires_grad_(False)
    own = copied(module, dtype=torch.float64)
    assert own.lock is module.lock
    assert [p.requires_grad for p in own.parameters()] == [p.requires_grad for p in module.parameters()]
    assert own[0].weight.dtype == torch.float64
    assert own[1].num_batches_tracked.dtype == torch.int64
    with torch.no_grad():
        own[0].weight.zero_()
    assert module[0].weight.any()


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 2


def pair() -> list[Task]:
    return [Task("a", squared), Task("b", squared)]


def data(examples: int = 24) -> TensorDataset:
    x = torch.randn(examples, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.sum(1).sin(), x[:, 0] * x[:, 1])


class Net(nn.Module):
    def __init__(self, trunk: Callable[[], nn.Module] = lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh())) -> None:
        super().__init__()
        self.trunk, self.a, self.b = trunk(), nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Any:
        h = self.trunk(x)
        return self.a(h)[:, 0], self.b(h)[:, 0]


def drawn(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh())


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "parallel": lambda: nn.DataParallel(Net()),
    "averaged": lambda: AveragedModel(Net()),
    "compiled": lambda: torch.compile(Net(), backend="eager"),
    "compiled in place": lambda: compiled_in_place(Net()),
    "parallel inside": lambda: Net(lambda: nn.DataParallel(layers())),
    "compiled inside": lambda: Net(lambda: torch.compile(layers(), backend="eager")),
    "compiled and parallel": lambda: torch.compile(nn.DataParallel(Net()), backend="eager"),
}


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_are_looked_through(wrapped: Callable[[], nn.Module]) -> None:
    plain, found = Problem(drawn(Net), pair(), data(), data()), Problem(drawn(wrapped), pair(), data(), data())
    assert found.layout == plain.layout
    theta = 1.7 * plain.initial(0)[0]
    assert torch.equal(found.evaluate(theta).losses, plain.evaluate(theta).losses)
    # Wrapped for training after the problem was made: read by the same names, and the reverse.
    assert torch.equal(plain.read(found.model)[0], found.read(plain.model)[0])
    assert torch.equal(plain.read(found.model)[0], plain.initial(0)[0])


def test_names_under_a_wrapper_of_the_users_own_are_understood_and_others_refused() -> None:
    class Own(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    found = Problem(drawn(Net), pair(), data(), data())
    assert torch.equal(found.read(Own(found.model))[0], found.initial(0)[0])
    with pytest.raises(LandscapeError, match=r"the module has no parameter 'trunk.0.weight', which the pro"):
        found.read(nn.Sequential(nn.Linear(2, 2)))


def test_lazy_modules_are_made_whole_by_the_evaluation_examples() -> None:
    def lazy() -> nn.Module:
        return Net(lambda: nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Tanh()))

    found = Problem(lazy, pair(), data(), data())
    sizes = {slot.name: slot.shape for slot in found.layout.slots}
    assert sizes["trunk.0.weight"] == (6, 4)
    assert sizes["trunk.1.weight"] == (6,)
    assert not torch.equal(found.initial(0)[0], found.initial(1)[0])
    assert torch.equal(found.initial(1)[0], found.initial(1)[0])


def test_a_lazy_module_that_evaluation_does_not_reach_is_refused_by_name() -> None:
    class Aside(Net):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.LazyLinear(3)

    with pytest.raises(LandscapeError, match=r"'aside.weight' has no shape yet after two examples"):
        Problem(drawn(Aside), pair(), data(), data())


def test_scripted_modules_are_refused_by_name() -> None:
    with pytest.raises(LandscapeError, match=r"module 'trunk' \(RecursiveScriptModule\) is compiled by TorchScript"):
        Problem(drawn(lambda: Net(lambda: scripted(layers()))), pair(), data(), data())
    with pytest.raises(LandscapeError, match=r"the model \(RecursiveScriptModule\) is compiled by TorchScript"):
        Problem(drawn(lambda: scripted(Net())), pair(), data(), data())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def scripted(module: nn.Module) -> nn.Module:
    return torch.jit.script(module)


class Held(Net):
    """Keeps what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Any:
        self.features = self.trunk(x)
        with self.lock:
            return self.a(self.features)[:, 0], self.b(self.features)[:, 0]


class Padded(Net):
    """A transformer whose examples have lengths of their own."""

    def __init__(self) -> None:
        super().__init__(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 1))
        self.into = nn.Linear(1, 6)

    def forward(self, x: Tensor) -> Any:
        padding = torch.arange(4) >= 2 + 2 * (x[:, :1] > 0)
        h = self.trunk(self.into(x[..., None]), src_key_padding_mask=padding)
        h = h.masked_fill(padding[..., None], 0.0).sum(1)
        return self.a(h)[:, 0], self.b(h)[:, 0]


class Sparse(Net):
    def __init__(self) -> None:
        super().__init__(lambda: nn.Embedding(8, 6, sparse=True))
        self.bag = nn.EmbeddingBag(8, 6, mode="sum", sparse=True)

    def forward(self, x: Tensor) -> Any:
        rows = (4 * x.abs()).long().clamp(max=7)
        h = (self.trunk(rows).mean(1) + self.bag(rows)).tanh()
        return self.a(h)[:, 0], self.b(h)[:, 0]


UNUSUAL: dict[str, Callable[[], nn.Module]] = {"held": Held, "padded": Padded, "sparse": Sparse}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_modules_have_the_losses_and_gradients_of_a_plain_call(make: Callable[[], nn.Module]) -> None:
    module = drawn(make)
    found = Problem(module, pair(), data(), data(), micro_batch=5)
    theta, there = 1.3 * found.initial(0)[0], drawn(make)
    with torch.no_grad():
        for name, parameter in there.named_parameters():
            slot = next(slot for slot in found.layout.slots if slot.name == name)
            parameter.copy_(theta[slot.span].reshape(slot.shape))
    there.eval()
    x, *targets = data().tensors
    losses = [squared(out, target) for out, target in zip(there(x), targets, strict=True)]
    # Rows of a product may be summed in another order in another batch.
    expected = torch.stack([loss.mean() for loss in losses]).detach()
    torch.testing.assert_close(found.evaluate(theta).losses.float(), expected, rtol=1e-5, atol=1e-6)
    given = torch.autograd.grad(losses[0].sum() + losses[1].sum(), list(there.parameters()))
    at = theta.clone().requires_grad_()
    (mine,) = torch.autograd.grad(found.losses(at, found.evaluation).sum(), at)
    flat = torch.cat([g.to_dense().reshape(-1) for g in given])
    torch.testing.assert_close(mine, flat, rtol=1e-4, atol=1e-5)
    (*_, last) = landscape.train(found, Averaged(), Plan(3, 8, Every(3)))
    assert (last.theta != found.initial(0)[0].numpy()).any()


HIDDEN: list[Tensor] = []


class Aside(Net):
    """Multiplies by a copy of its weights that nothing leads to."""

    def __init__(self) -> None:
        super().__init__()
        HIDDEN[:] = [self.trunk[0].weight]

    def forward(self, x: Tensor) -> Any:
        h = (x @ HIDDEN[0].T).tanh() + self.trunk(x)
        return self.a(h)[:, 0], self.b(h)[:, 0]


def test_a_model_that_reaches_its_parameters_where_nothing_can_follow_is_refused_and_left_as_it_was() -> None:
    module = drawn(Aside)
    before = fingerprint(module)
    with pytest.raises(
        LandscapeError, match=r"the model is no function of its parameters in evaluation mode: at other parameters"
    ):
        Problem(module, pair(), data(), data())
    assert fingerprint(module) == before


def test_a_problem_made_under_inference_mode_has_gradients() -> None:
    expected = Problem(drawn(Net), pair(), data(), data())
    module = drawn(Net)
    with torch.inference_mode():
        found = Problem(module, pair(), data(), data())
        theta = found.initial(0)[0]
        assert torch.equal(found.evaluate(theta).losses, expected.evaluate(expected.initial(0)[0]).losses)
    assert found.layout == expected.layout
    steps = landscape.train(found, Averaged(), Plan(3, 8, Every(3)))
    assert list(steps)[-1].theta == pytest.approx(
        list(landscape.train(expected, Averaged(), Plan(3, 8, Every(3))))[-1].theta
    )


def test_a_model_made_under_inference_mode_is_refused_and_a_function_that_makes_one_is_taken() -> None:
    with torch.inference_mode():
        with pytest.raises(LandscapeError, match=r"'trunk.0.weight' was made under torch.inference_mode, so that"):
            Problem(drawn(Net), pair(), data(), data())
        assert Problem(Net, pair(), data(), data()).layout.count() > 0


class Reversed(NamedTuple):
    b: Tensor
    a: Tensor


@dataclass
class Output:
    extra: int
    b: Tensor
    a: Tensor


class Unnamed(NamedTuple):
    first: Tensor
    second: Tensor


class Partly(NamedTuple):
    b: Tensor
    c: Tensor


class Named(Net):
    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        a, b = super().forward(x)
        return self.form(a, b)


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "named tuple in another order": lambda a, b: Reversed(b=b, a=a),
    "data class": lambda a, b: Output(extra=3, b=b, a=a),
    "dict in another order": lambda a, b: {"b": b, "other": 1, "a": a},
    "names of its own: by position": Unnamed,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_predictions_go_by_name_where_an_output_has_the_tasks_names(form: Callable[[Tensor, Tensor], Any]) -> None:
    found = Problem(drawn(lambda: Named(form)), pair(), data(), data())
    plain = Problem(drawn(Net), pair(), data(), data())
    theta = plain.initial(0)[0]
    assert torch.equal(found.evaluate(theta).losses, plain.evaluate(theta).losses)


def test_an_output_with_the_names_of_some_tasks_is_refused() -> None:
    with pytest.raises(LandscapeError, match=r"expected a dict by the names a, b or a sequence .*got Partly with b, c"):
        Problem(drawn(lambda: Named(Partly)), pair(), data(), data())


class Example(NamedTuple):
    b: Tensor
    a: Tensor
    x: Tensor


class Targets(NamedTuple):
    b: Tensor
    a: Tensor


@pytest.mark.parametrize("form", [lambda x, a, b: Example(b, a, x), lambda x, a, b: (x, Targets(b, a))])
def test_targets_go_by_name_where_an_example_has_the_tasks_names(form: Callable[..., Any]) -> None:
    rows = [form(*row) for row in data()]
    found, plain = Problem(drawn(Net), pair(), rows, rows), Problem(drawn(Net), pair(), data(), data())
    theta = plain.initial(0)[0]
    assert torch.equal(found.evaluate(theta).losses, plain.evaluate(theta).losses)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weights_that_hooks_compute_follow_theta(norm: Callable[[nn.Module], nn.Module]) -> None:
    found = Problem(drawn(lambda: Net(lambda: nn.Sequential(norm(nn.Linear(4, 6)), nn.Tanh()))), pair(), data(), data())
    theta = found.initial(0)[0].double()
    found = found.to(dtype=torch.float64)
    direction = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found.losses(at, found.evaluation).mean(), at)
    ahead, behind = (found.losses(theta + s * 1e-5 * direction, found.evaluation).mean() for s in (1, -1))
    # Central difference: an error of 1e-10 times the third derivative, and rounding of 1e-16 / 1e-5.
    assert float(gradient @ direction) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_buffers_of_a_bound_module_are_its_own() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3))
    bound = bind(module, {name: b.clone() for name, b in buffers_of(module).items()}).train()
    bound(torch.ones(4, 3) * 5)
    assert float(bound[0].running_mean[0]) == pytest.approx(0.5)  # momentum 0.1 towards 5
    assert not module[0].running_mean.any()
