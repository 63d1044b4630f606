"""Permuted networks come back exactly; permutations that a model does not admit are refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import alignment, permutations, tracing
from analysis.alignment import Aligner
from analysis.permutations import Axis, Group, drawn, named_groups, permuted
from analysis.routes import Point
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases


class Heads(nn.Module):
    """A trunk that is given, and two linear heads."""

    def __init__(self, trunk: nn.Module, features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.one, self.two = nn.Linear(features, 3), nn.Linear(features, 1)

    def forward(self, inputs):
        hidden = self.trunk(inputs)
        return {"one": self.one(hidden), "two": self.two(hidden)}


class Residual(nn.Module):
    """A block whose output is added to its input, then batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.back, self.norm = nn.Linear(width, 7), nn.Linear(7, width), nn.BatchNorm1d(width)

    def forward(self, inputs):
        return self.norm(inputs + self.back(torch.relu(self.inner(inputs))))


def mlp() -> nn.Module:
    return Heads(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.LayerNorm(10), nn.Tanh()), 10)


def convolutions(norm: str) -> nn.Module:
    layers = {"group": lambda n: nn.GroupNorm(n // 4, n), "batch": nn.BatchNorm2d, "none": lambda n: nn.Identity()}
    trunk = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), layers[norm](8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), layers[norm](12), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(12 * 4, 9), nn.ReLU()),
    )
    return Heads(trunk, 9)


def depthwise() -> nn.Module:
    trunk = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5), nn.GELU()),
    )
    return Heads(trunk, 5)


MODELS = {
    "mlp": (mlp, (6,)),
    "conv, group norm": (lambda: convolutions("group"), (1, 4, 4)),
    "conv, batch norm": (lambda: convolutions("batch"), (1, 4, 4)),
    "conv, no norm": (lambda: convolutions("none"), (1, 4, 4)),
    "residual": (lambda: Heads(nn.Sequential(nn.Linear(6, 8), Residual(8), Residual(8)), 8), (6,)),
    "depthwise": (depthwise, (1, 4, 4)),
}


def make(kind: str) -> Problem:
    model, shape = MODELS[kind]
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(24, *shape, generator=rng), torch.randint(0, 3, (24,), generator=rng), torch.randn(24, 1)
    )
    tasks = [Task("one", cases.cross_entropy), Task("two", cases.squared_error)]
    return Problem(model, tasks, data, data).to(dtype=torch.float64)


def point(problem: Problem, seed: int = 0) -> Point:
    """Random numbers everywhere, also in norm layers and statistics, so that nothing is hidden by ones and zeros."""
    rng = np.random.default_rng(seed)
    theta, buffers = (v.numpy() for v in problem.initial(seed))
    theta = theta + 0.3 * rng.standard_normal(theta.shape)
    return Point(f"p{seed}", theta, np.where(buffers == 0, 0.1, buffers) * rng.uniform(0.5, 2, buffers.shape))


def losses(problem: Problem, at: Point):
    return problem.losses(torch.tensor(at.theta), problem.evaluation, torch.tensor(at.buffers)).numpy()


def moved(problem: Problem, groups, at: Point, seed: int = 1) -> Point:
    orders = drawn(groups, seed)
    theta = permuted(at.theta, problem.layout, groups, orders)
    return Point("moved", theta, permuted(at.buffers, problem.buffer_layout, groups, orders))


@pytest.mark.parametrize("kind", MODELS)
def test_a_permuted_network_computes_the_same_and_comes_back_to_distance_zero(kind):
    problem = make(kind)
    groups = tracing.groups_of(problem)
    here = point(problem)
    there = moved(problem, groups, here)
    assert np.abs(there.theta - here.theta).max() > 0.1
    np.testing.assert_allclose(losses(problem, there), losses(problem, here), rtol=1e-10)
    found = Aligner(problem, groups)(here, there)
    assert found.after == 0.0
    assert found.before == pytest.approx(np.linalg.norm(there.theta - here.theta))
    np.testing.assert_array_equal(found.point.theta, here.theta)
    np.testing.assert_array_equal(found.point.buffers, here.buffers)


def test_groups_follow_the_flow_of_data_through_flattening_into_every_head():
    groups = tracing.groups_of(make("conv, group norm"))
    assert [(g.name, g.size, g.blocks) for g in groups] == [("trunk.0", 8, 2), ("trunk.4", 12, 3), ("trunk.8", 9, 1)]
    assert Axis("trunk.8.weight", 1, 4) in groups[1].axes
    assert set(groups[2].axes) == {
        *(Axis("trunk.8.weight", 0), Axis("trunk.8.bias", 0), Axis("one.weight", 1), Axis("two.weight", 1)),
    }


def test_a_residual_stream_is_one_group():
    groups = tracing.groups_of(make("residual"))
    assert [group.size for group in groups] == [8, 7, 7]
    assert {axis.tensor for axis in groups[0].axes} >= {"trunk.0.weight", "trunk.1.back.bias", "trunk.2.norm.weight"}


def test_orders_keep_the_blocks_of_a_group_norm_together():
    group = Group("g", 12, (), blocks=3)
    for seed in range(5):
        order = drawn([group], seed)["g"].reshape(3, 4)
        assert sorted(order.ravel()) == list(range(12))
        assert (order // 4 == (order // 4)[:, :1]).all()


def test_the_best_order_with_blocks_is_the_best_of_all_that_keep_them():
    gains = np.random.default_rng(4).standard_normal((6, 6))
    found = alignment._assigned(gains, 2)
    inside = list(itertools.permutations(range(3)))
    allowed = [
        [3 * b + i for i in one] + [3 * (1 - b) + i for i in other]
        for b in (0, 1)
        for one in inside
        for other in inside
    ]
    best = max(sum(gains[i, j] for i, j in enumerate(order)) for order in allowed)
    assert gains[np.arange(6), found].sum() == pytest.approx(best, rel=1e-14)


def test_aligning_two_trained_networks_brings_them_nearer_and_changes_no_loss():
    problem = problems.load("digits", {"width": 4, "features": 16, "train": 200, "evaluation": 64})
    groups = tracing.groups_of(problem)
    first, last = (Point(str(seed), *(v.double().numpy() for v in problem.initial(seed))) for seed in (0, 1))
    found = Aligner(problem, groups)(first, last)
    assert found.after < 0.97 * found.before
    one, other = (
        problem.evaluate(torch.tensor(p.theta, dtype=torch.float32)).losses.numpy() for p in (last, found.point)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)  # float32 sums in another order
    np.testing.assert_array_equal(np.sort(found.point.theta), np.sort(last.theta))


def test_aligning_is_the_same_every_time_and_leaves_an_aligned_point_alone():
    problem = make("mlp")
    groups = tracing.groups_of(problem)
    one, other = (Aligner(problem, groups)(point(problem, 0), point(problem, 1)) for _ in range(2))
    np.testing.assert_array_equal(one.point.theta, other.point.theta)
    again = Aligner(problem, groups)(point(problem, 0), one.point)
    assert again.after <= one.after


def test_a_point_that_is_not_finite_stays_as_it_is():
    problem = make("mlp")
    here, broken = point(problem, 0), point(problem, 1)
    broken.theta[3] = np.nan
    found = Aligner(problem, tracing.groups_of(problem))(here, broken)
    assert found.point is broken
    assert np.isnan(found.after)


def test_exchanges_that_change_the_losses_are_refused():
    problem = make("mlp")
    wrong = named_groups(problem, {"hidden": [("trunk.0.weight", 0), ("trunk.0.bias", 0)]})
    with pytest.raises(LandscapeError, match=r"exchanging hidden units of hidden changes losses by .* of the largest"):
        Aligner(problem, wrong)(point(problem, 0), point(problem, 1))
    problem = make("conv, group norm")
    across = [Group(g.name, g.size, g.axes) for g in tracing.groups_of(problem)]
    here = point(problem)
    with pytest.raises(LandscapeError, match="changes losses by"):
        permutations.require_unchanged(problem, here.theta, here.buffers, across)


def test_a_users_own_groups_do_what_traced_ones_do():
    problem = make("conv, batch norm")
    traced = tracing.groups_of(problem)
    given = {group.name: [(axis.tensor, axis.axis) for axis in group.axes] for group in traced}
    assert named_groups(problem, given) == traced


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"h": []}, "the group 'h' has no axes"),
        ({"h": [("trunk.0.wait", 0)]}, "unknown tensor in the group 'h' 'trunk.0.wait'.*did you mean"),
        ({"h": [("trunk.0.weight", 2)]}, r"'trunk.0.weight' has the shape \[12, 6\]: expected one of its axes, got 2"),
        ({"h": [("trunk.0.weight", 0), ("trunk.2.weight", 0)]}, "has 10 units: expected a multiple of that"),
        ({"h": ["trunk"]}, "expected a tensor's name and an axis in the group 'h'"),
    ],
)
def test_groups_that_do_not_fit_are_refused(given, message):
    with pytest.raises(LandscapeError, match=message):
        named_groups(make("mlp"), given)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.one, self.two = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, inputs):
        hidden = self.layer(inputs)
        if hidden.sum() > 1e9:
            hidden = -hidden
        return {"one": self.one(hidden), "two": self.two(hidden)}


class Mixing(Branching):
    def forward(self, inputs):
        hidden = torch.cumsum(self.layer(inputs), 1)
        return {"one": self.one(hidden), "two": self.two(hidden)}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branching, r"cannot follow the flow of data through Branching by torch.fx \(.*\): name the groups"),
        (Mixing, "no hidden units of Mixing can be exchanged by the rules"),
    ],
)
def test_models_that_cannot_be_followed_are_refused_in_one_sentence(model, message):
    data = TensorDataset(torch.randn(8, 6), torch.randint(0, 3, (8,)), torch.randn(8, 1))
    problem = Problem(model(), [Task("one", cases.cross_entropy), Task("two", cases.squared_error)], data, data)
    with pytest.raises(LandscapeError, match=message):
        tracing.groups_of(problem)


@pytest.mark.parametrize("kind", ["tied weights", "frozen layer", "shallow task"])
def test_awkward_models_keep_what_cannot_move(kind):
    problem = cases.make(kind)
    try:
        groups = tracing.groups_of(problem)
    except LandscapeError:
        assert kind == "frozen layer"
        return
    here = Point("here", *(v.numpy() for v in problem.read(problem.model)))
    permutations.require_unchanged(problem, here.theta, here.buffers, groups)
    assert Aligner(problem, groups)(here, moved(problem, groups, here)).after == 0.0
