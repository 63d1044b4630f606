"""Whom the tensors of theta belong to: the user's word, and what gradients over all examples show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import landscape
from landscape import Averaged, Every, LandscapeError, Optimiser, Plan, Problem, Task
from landscape.errors import LandscapeWarning

LATE = 40


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target) ** 2


def flagged(first: int = LATE, examples: int = 60) -> TensorDataset:
    """Inputs [4] with a flag that no example before `first` sets, and two targets."""
    own = torch.Generator().manual_seed(0)
    x = torch.randn(examples, 4, generator=own)
    flag = (torch.arange(examples) >= first).float()[:, None]
    return TensorDataset(torch.cat([x, flag], 1), x.sum(1).sin(), x[:, 0] * x[:, 1])


class Branching(nn.Module):
    """A branch that only flagged examples go through."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.branch = nn.Linear(4, 6), nn.Linear(4, 6)
        self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        x, flag = inputs[:, :4], inputs[:, 4] > 0
        features = self.trunk(x)
        if flag.any():
            features = features.index_add(0, flag.nonzero()[:, 0], self.branch(x[flag]))
        features = features.tanh()
        return self.a(features)[:, 0], self.b(features)[:, 0]


def made(make: Callable[[], nn.Module], seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def pair(loss: Callable[[Any, Any], Tensor] = squared) -> list[Task]:
    return [Task("a", squared), Task("b", loss)]


def owners(problem: Problem) -> dict[str, str]:
    return {slot.name: slot.owner for slot in problem.layout.slots}


def test_a_branch_that_a_late_example_is_the_first_to_take_is_shared_and_trained() -> None:
    problem = Problem(made(Branching), pair(), flagged(), flagged(), micro_batch=16)
    assert owners(problem)["branch.weight"] == owners(problem)["branch.bias"] == "shared"
    start = problem.initial(0)[0]
    *_, last = landscape.train(problem, Averaged(Optimiser("SGD", lr=0.1)), Plan(5, 60, Every(5)))
    span = next(slot.span for slot in problem.layout.slots if slot.name == "branch.weight")
    assert abs(torch.tensor(last.theta)[span] - start[span]).max() > 1e-3


def test_a_branch_of_no_example_is_unused_unless_the_user_says_whose_it_is() -> None:
    data = flagged(first=60)
    assert owners(Problem(made(Branching), pair(), data, data))["branch.weight"] == "unused"
    stated = Problem(made(Branching), pair(), data, data, shared=["trunk.*", "branch.*"], heads={"b": ["b.*"]})
    assert owners(stated) == {
        **dict.fromkeys(["trunk.weight", "trunk.bias", "branch.weight", "branch.bias"], "shared"),
        **{"a.weight": "a", "a.bias": "a", "b.weight": "b", "b.bias": "b"},
    }


@pytest.mark.parametrize("strategy", [Averaged(), landscape.Independent(), landscape.AdaTask()], ids=repr)
def test_the_first_gradient_that_reaches_an_unused_parameter_in_training_is_warned_of(strategy: Any) -> None:
    problem = Problem(made(Branching), pair(), flagged(), flagged(first=60))
    with pytest.warns(LandscapeWarning, match=r"'branch.weight', 'branch.bias'.*not trained.*heads=") as caught:
        list(landscape.train(problem, strategy, Plan(3, 60, Every(3))))
    assert len(caught) == 1


def test_a_gradient_of_the_losses_that_reaches_an_unused_parameter_is_warned_of() -> None:
    problem, other = (Problem(made(Branching), pair(), flagged(), flagged(first=first)) for first in (60, LATE))
    theta = problem.initial(0)[0].requires_grad_()
    loss = problem.losses(theta, other.evaluation).sum()
    with pytest.warns(LandscapeWarning, match=r"a gradient reaches 'branch\."):
        torch.autograd.grad(loss, theta)


def test_a_label_that_no_early_example_has_is_no_frozen_task() -> None:
    def masked(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.where(target[:, 1] > 0, (prediction - target[:, 0]) ** 2, 0.0)

    data = flagged()
    x, a, b = data.tensors
    labelled = TensorDataset(x, a, torch.stack([b, x[:, 4]], 1))
    problem = Problem(made(Branching), pair(masked), labelled, labelled)
    assert owners(problem)["b.weight"] == "b"
    assert owners(problem)["trunk.weight"] == "shared"


class Concatenated(nn.Module):
    """Two heads whose outputs are joined before they are parted: a graph leads from each to both."""

    def __init__(self, part: Callable[[Tensor], Sequence[Tensor]] = lambda joined: joined.unbind(1)) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(2))
        self.part = part

    def forward(self, inputs: Tensor) -> Any:
        features = self.trunk(inputs[:, :4]).tanh()
        return tuple(self.part(torch.cat([head(features) for head in self.heads], 1)))


PARTED: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "unbind": lambda joined: joined.unbind(1),
    "columns": lambda joined: [joined[:, 0], joined[:, 1]],
    "mask": lambda joined: [(joined * torch.eye(2)[t]).sum(1) for t in range(2)],
    "one-hot product": lambda joined: [joined @ torch.eye(2)[t] for t in range(2)],
}


@pytest.mark.parametrize("part", PARTED.values(), ids=PARTED)
@pytest.mark.parametrize("stated", [{}, {"shared": ["trunk.*"]}, {"shared": "trunk.*", "heads": {"a": "heads.0.*"}}])
def test_heads_that_are_joined_and_parted_again_are_heads(part: Any, stated: dict[str, Any]) -> None:
    problem = Problem(made(lambda: Concatenated(part)), pair(), flagged(), flagged(), **stated)
    assert owners(problem) == {
        **{"trunk.weight": "shared", "trunk.bias": "shared", "heads.0.weight": "a", "heads.0.bias": "a"},
        **{"heads.1.weight": "b", "heads.1.bias": "b"},
    }


class Adapter(nn.Module):
    """A low-rank adapter at its usual start, the second factor zero: the gradient of the first is zero there."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 6).requires_grad_(False)
        self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 6, bias=False)
        nn.init.zeros_(self.up.weight)
        self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        x = inputs[:, :4]
        features = (self.base(x) + self.up(self.down(x))).tanh()
        return self.a(features)[:, 0], self.b(features)[:, 0]


def test_a_gradient_that_is_zero_at_the_start_alone_decides_nothing() -> None:
    problem = Problem(made(Adapter), pair(), flagged(), flagged())
    assert owners(problem)["down.weight"] == owners(problem)["up.weight"] == "shared"


def test_a_loss_without_any_gradient_that_is_not_zero_or_finite_shares_what_it_is_linked_to() -> None:
    for spoilt in (lambda p, y: 0 * (p - y) ** 2, lambda p, y: (0 * (p - y)).sqrt()):
        problem = Problem(made(Branching), pair(spoilt), flagged(), flagged())
        assert owners(problem)["trunk.weight"] == "shared"
        assert owners(problem)["b.weight"] == "b"


class DeadHead(Branching):
    """The second head starts at zero: at the start, its task's gradient of the trunk is zero."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.b.weight)


def test_a_head_that_starts_at_zero_shares_the_trunk_all_the_same() -> None:
    assert owners(Problem(made(DeadHead), pair(), flagged(), flagged()))["trunk.weight"] == "shared"


def test_the_users_word_makes_a_head_of_what_two_losses_use() -> None:
    problem = Problem(made(Branching), pair(), flagged(), flagged(), heads={"a": ["trunk.*"]})
    assert owners(problem)["trunk.weight"] == "a"
    assert owners(problem)["branch.weight"] == "shared"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"shared": ["trunks.*"]}, r"pattern 'trunks.\*' matches no trainable parameter: expected names such as 'tru"),
        ({"heads": {"c": ["a.*"]}}, r"unknown task in heads 'c': expected one of a, b"),
        ({"shared": ["a.*"], "heads": {"a": ["a.w*"]}}, r"parameter 'a.weight' is stated to be shared and a: expected"),
        ({"heads": {"a": ["a.*"], "b": ["a.bias"]}}, r"parameter 'a.bias' is stated to be a and b: expected one owner"),
        ({"shared": ["trunk.*"]}, r"parameter 'branch.weight' is reached by the tasks a, b but matches none"),
    ],
)
def test_words_that_contradict_or_match_nothing_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        Problem(made(Branching), pair(), flagged(), flagged(), **stated)


@pytest.mark.filterwarnings("error")
def test_transforms_of_functions_go_through_a_problem_with_unused_parameters() -> None:
    problem = Problem(made(Branching), pair(), flagged(), flagged(first=60))
    theta = problem.initial(0)[0]

    def loss(at: Tensor) -> Tensor:
        return problem.losses(at, problem.evaluation).mean()

    alone = torch.func.grad(loss)(theta)
    assert alone.norm() > 0
    both = torch.func.vmap(torch.func.grad(loss))(torch.stack([theta, theta]))
    torch.testing.assert_close(both, torch.stack([alone, alone]), rtol=1e-4, atol=1e-6)  # float32, batched products


def test_a_recorded_gradient_that_reaches_an_unused_parameter_is_warned_of(tmp_path: Any) -> None:
    problem, other = (Problem(made(Branching), pair(), flagged(), flagged(first=first)) for first in (60, LATE))
    a, b = problem.model(other.evaluation.inputs)
    with landscape.Recorder(problem, tmp_path / "run.h5") as recorder:
        (a.sum() + b.sum()).backward()
        with pytest.warns(LandscapeWarning, match=r"a gradient reaches 'branch.weight', 'branch.bias'"):
            recorder.step()
        recorder.step()


class Counting(Branching):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool]] = []

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((len(inputs), torch.is_grad_enabled()))
        return super().forward(inputs)


def test_making_a_problem_takes_one_pass_over_the_evaluation_examples_beside_a_few() -> None:
    model = made(Counting)
    Problem(model, pair(), flagged(examples=600), flagged(examples=600), micro_batch=50)
    counts = [count for count, _ in model.seen]
    assert counts.count(50) == 600 // 50
    assert sum(count for count in counts if count != 50) <= 9 * 16


class Detached(Branching):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(inputs[:, :4]).tanh().detach()
        return self.a(features)[:, 0], self.b(features)[:, 0]


def test_what_losses_depend_on_without_a_gradient_is_warned_of() -> None:
    with pytest.warns(LandscapeWarning, match=r"losses depend on 'trunk.weight', .*no gradient reaches it.*detach"):
        problem = Problem(made(Detached), pair(), flagged(), flagged())
    assert owners(problem)["trunk.weight"] == "unused"
