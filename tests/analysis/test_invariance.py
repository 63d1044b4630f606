"""Tensors that a norm follows are found by scaling them; nothing else passes for one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import landscape
from analysis.invariance import followed
from landscape import LandscapeError, Problem, Task


class Net(nn.Module):
    """Every way in which a tensor may or may not be followed by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.batch = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.second, self.group = nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6)
        self.linear, self.layer = nn.Linear(96, 8), nn.LayerNorm(8)
        self.zero, self.dead = nn.Linear(8, 8), nn.Linear(8, 8)
        self.a, self.b = nn.Linear(8, 2), nn.Linear(8, 1)
        nn.init.zeros_(self.zero.weight)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.batch(torch.relu(self.conv(x)))
        x = self.layer(self.linear(torch.relu(self.group(self.second(x))).flatten(1)))
        x = x + self.zero(x)
        return self.a(x), self.b(x) + 0 * self.dead(x).sum(1, keepdim=True)


def squared(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((prediction - target) ** 2).mean(1)


def problem(model: nn.Module, count: int = 40) -> Problem:
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(count, 1, 8, 8), torch.randn(count, 2), torch.randn(count, 1))
    return Problem(model, [Task("a", squared), Task("b", squared)], data, data)


def test_each_kind_of_norm_is_found_and_what_matters_to_no_loss_is_not() -> None:
    torch.manual_seed(1)
    found = problem(Net())
    state = {name: value.clone() for name, value in found.model.state_dict().items()}
    assert followed(found) == ("conv.weight", "second.weight", "linear.weight")
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_place_on_a_trajectory_can_be_given() -> None:
    found = problem(Net())
    theta, buffers = found.initial(0)
    assert followed(found, 1.5 * theta.numpy(), buffers.numpy()) == ("conv.weight", "second.weight", "linear.weight")


def test_a_model_without_norms_has_none() -> None:
    assert followed(landscape.problems.load("quadratic")) == ()


def test_too_few_examples_for_batch_statistics_are_named() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.a, self.b = (
                nn.Linear(64, 4),
                nn.BatchNorm1d(4),
                nn.Linear(4, 2),
                nn.Linear(4, 1),
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.norm(self.first(x.flatten(1)))
            return self.a(x), self.b(x)

    with pytest.raises(LandscapeError, match="the model on 1 examples with their own batch statistics failed with"):
        followed(problem(Flat(), 1))
