"""Every layer that holds running statistics: estimated again as training records them, kept as it keeps them, or
refused by name."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import examples
from analysis.normalisation import Frozen, Reestimated, can_estimate, has_statistics
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases

CHANNELS, COUNT, BATCH = 3, 22, 5


class Own(nn.Module):
    """A norm of a user's own: torch's convention with a momentum of 0.3, or the reversed one of other libraries."""

    def __init__(self, reverse: bool = False, replaces: bool = False) -> None:
        super().__init__()
        self.momentum, self.reverse, self.replaces = 0.3, reverse, replaces
        self.register_buffer("running_mean", torch.zeros(CHANNELS, 1, 1))
        self.register_buffer("running_var", torch.ones(CHANNELS, 1, 1))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3))[:, None, None], x.var((0, 2, 3))[:, None, None]
            share = 1 - self.momentum if self.reverse else self.momentum
            if self.replaces:
                self.running_mean = (1 - share) * self.running_mean + share * mean.detach()
                self.running_var = (1 - share) * self.running_var + share * var.detach()
            else:
                self.running_mean.lerp_(mean.detach(), share)
                self.running_var.lerp_(var.detach(), share)
        return (x - mean) / (var + 1e-5).sqrt()


class Constant(nn.Module):
    """As `FrozenBatchNorm2d` of detection libraries: the statistics are constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.full((CHANNELS, 1, 1), 0.25))
        self.register_buffer("running_var", torch.full((CHANNELS, 1, 1), 1.5))

    def forward(self, x):
        return (x - self.running_mean) / self.running_var.sqrt()


class Unmoved(nn.BatchNorm2d):
    """Stays in evaluation mode, as fine-tuning recipes do it."""

    def train(self, mode=True):
        return super().train(False)


class Flat(nn.Module):
    """A norm of one dimension over all places of a picture."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.flatten(2)).reshape(x.shape)


class Deep(Flat):
    """A norm of three dimensions over pictures of one slice."""

    def forward(self, x):
        return self.norm(x[:, :, None])[:, :, 0]


class Around(nn.Module):
    """Uses the statistics of a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm2d(CHANNELS)
        self.inner.running_mean += 0.3

    def forward(self, x):
        inner = self.inner
        return nn.functional.batch_norm(x, inner.running_mean, inner.running_var, inner.weight, inner.bias)


def untracked(layer):
    layer.track_running_stats = False
    return layer


RECORDING = {
    "batch 1d": lambda: Flat(nn.BatchNorm1d(CHANNELS)),
    "batch 2d": lambda: nn.BatchNorm2d(CHANNELS),
    "batch 3d": lambda: Deep(nn.BatchNorm3d(CHANNELS)),
    "momentum of 0": lambda: nn.BatchNorm2d(CHANNELS, momentum=0.0),
    "cumulative": lambda: nn.BatchNorm2d(CHANNELS, momentum=None),
    "no weights": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "synchronised": lambda: nn.SyncBatchNorm(CHANNELS),
    "lazy": nn.LazyBatchNorm2d,
    "instance 1d": lambda: Flat(nn.InstanceNorm1d(CHANNELS, track_running_stats=True)),
    "instance 2d": lambda: nn.InstanceNorm2d(CHANNELS, track_running_stats=True),
    "instance 2d with weights": lambda: nn.InstanceNorm2d(CHANNELS, affine=True, track_running_stats=True),
    "instance 3d": lambda: Deep(nn.InstanceNorm3d(CHANNELS, track_running_stats=True)),
    "instance, momentum of 0": lambda: nn.InstanceNorm2d(CHANNELS, momentum=0.0, track_running_stats=True),
    "instance, no momentum": lambda: nn.InstanceNorm2d(CHANNELS, momentum=None, track_running_stats=True),
    "own": Own,
    "own, assigning": lambda: Own(replaces=True),
}
KEEPING = {
    "constants": Constant,
    "left in evaluation mode": lambda: Unmoved(CHANNELS),
    "not tracked": lambda: untracked(nn.BatchNorm2d(CHANNELS)),
    "not called": Around,
}


class Network(nn.Module):
    """A convolution, the norm under test, another batch norm that follows it, and two heads."""

    def __init__(self, norm: nn.Module, twice: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, CHANNELS, 3, padding=1)
        self.norm = norm
        self.twice = twice
        self.last = nn.BatchNorm1d(CHANNELS)
        self.drop = nn.Dropout(0.5)
        self.one, self.two = nn.Linear(CHANNELS, 1), nn.Linear(CHANNELS, 1)

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x)))
        x = torch.tanh(self.norm(2 * x + 1)) if self.twice else x
        x = self.drop(self.last(x.mean((2, 3))))
        return {"one": self.one(x), "two": self.two(x)}


def problem_of(norm, twice=False):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(COUNT, 2, 5, 5, generator=rng, dtype=torch.float64) * 3 + 1
    targets = [torch.randn(COUNT, 1, generator=rng, dtype=torch.float64) for _ in range(2)]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Network(norm, twice).double()
        model(inputs)  # lazy layers get their shapes; the others statistics away from their start
    data = TensorDataset(inputs, *targets)
    return Problem(model, [Task(name, cases.squared_error) for name in ("one", "two")], data, data, micro_batch=7)


def plain_loop(problem, theta, buffers):
    """Mean over mini-batches of the statistics that one pass in training mode with a momentum of 1 leaves behind."""
    inputs = examples.training(problem, COUNT).batch.inputs
    ends = np.linspace(0, COUNT, -(-COUNT // BATCH) + 1).astype(int)
    seen = []
    for first, last in itertools.pairwise(ends):
        module = problem.module(theta, buffers).train()
        module.drop.eval()
        for part in module.modules():
            if hasattr(part, "momentum"):
                part.momentum = 1.0
        with torch.no_grad():
            module(inputs[first:last])
        seen.append({name: value.clone() for name, value in module.named_buffers() if value.is_floating_point()})
    return {name: torch.stack([one[name] for one in seen]).mean(0) for name in seen[0]}


def moved(problem):
    theta, buffers = problem.initial(0)
    rng = torch.Generator().manual_seed(1)
    return theta + 0.3 * torch.randn(theta.shape, dtype=theta.dtype, generator=rng), buffers


@pytest.mark.parametrize("kind", [*RECORDING, *KEEPING])
def test_statistics_estimated_again_are_what_passes_in_training_mode_record(kind):
    problem = problem_of((RECORDING | KEEPING)[kind]())
    theta, buffers = moved(problem)
    chosen = Reestimated(COUNT, BATCH)
    found = problem.buffers(chosen.build(problem)(theta, buffers))
    expected = plain_loop(problem, theta, buffers)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13, err_msg=name)  # float64, five means
    began = problem.buffers(buffers)
    changed = [bool((found[name] != began[name]).any()) for name in expected if name.startswith("norm.")]
    assert changed == [kind in RECORDING] * 2
    assert bool(re.search(r"; those of norm(\.inner)? are kept$", chosen.words(problem))) is (kind in KEEPING)
    assert Frozen().words(problem) == "frozen"


def test_instance_norm_gets_the_mean_over_examples_of_their_own_mean_and_unbiased_variance():
    problem = problem_of(nn.InstanceNorm2d(CHANNELS, track_running_stats=True))
    theta, buffers = problem.initial(0)
    state = problem.buffers(Reestimated(COUNT, COUNT).build(problem)(theta, buffers))
    early = problem.model.first(examples.training(problem, COUNT).batch.inputs).detach()
    np.testing.assert_allclose(state["norm.running_mean"], early.mean((2, 3)).mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["norm.running_var"], early.var((2, 3)).mean(0), rtol=1e-12)


@pytest.mark.parametrize("kind", ["batch 2d", "instance 2d", "own"])
def test_a_layer_that_is_called_twice_gets_the_mean_over_all_calls(kind):
    problem = problem_of(RECORDING[kind](), twice=True)
    theta, buffers = problem.initial(0)
    state = problem.buffers(Reestimated(COUNT, COUNT).build(problem)(theta, buffers))
    module = problem.module(theta, buffers).train()
    means, inputs = [], examples.training(problem, COUNT).batch.inputs
    module.norm.register_forward_pre_hook(lambda _, args: means.append(args[0].detach().mean((0, 2, 3))))
    with torch.no_grad():
        module(inputs)
    assert len(means) == 2
    np.testing.assert_allclose(state["norm.running_mean"].flatten(), torch.stack(means).mean(0), rtol=1e-12)


def test_statistics_that_were_not_finite_are_forgotten():
    problem = problem_of(nn.InstanceNorm2d(CHANNELS, track_running_stats=True))
    theta, buffers = problem.initial(0)
    restate = Reestimated(COUNT, BATCH).build(problem)
    torch.testing.assert_close(restate(theta, torch.full_like(buffers, torch.nan)), restate(theta, buffers))


def test_a_layer_whose_records_hang_on_what_it_held_is_refused_by_name():
    with pytest.raises(
        LandscapeError, match=r"the layer 'norm' \(Own\) records depends on what it held before: expected running"
    ):
        Reestimated(COUNT, BATCH).build(problem_of(Own(reverse=True)))


def test_a_model_that_keeps_all_of_its_statistics_is_refused_with_their_names():
    problem = problem_of(Constant())
    problem.model.last.track_running_stats = False
    with pytest.raises(LandscapeError, match=r"statistics, norm, last record nothing in training: expected one"):
        Reestimated(COUNT, BATCH).build(problem)
    assert not can_estimate(problem)
    assert can_estimate(problem_of(nn.BatchNorm2d(CHANNELS)))


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3), nn.GroupNorm(1, 3)]
)
def test_layers_without_running_statistics_have_none(layer):
    assert not has_statistics(layer)
