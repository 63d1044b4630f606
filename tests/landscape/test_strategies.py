"""What the strategies do: theorems about them, and loops written by hand in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape import (
    AdaTask,
    Alternating,
    Averaged,
    Every,
    Grouped,
    Independent,
    LandscapeError,
    Optimiser,
    Plan,
    Problem,
    Snapshot,
    Task,
    train,
)
from landscape.strategies import (
    Count,
    Fixed,
    Mean,
    NextBatch,
    OwnStates,
    Reversed,
    SharedState,
    Shuffled,
    Size,
    Strategy,
    Weights,
    named,
)
from landscape.workspace import Batches, Workspace
from tests.landscape.examples import NAMES, data, made, parameters_of, problem, sine, squared, tasks

BATCH, STEPS = 6, 9  # 23 examples: three batches an epoch, so three epochs
OPTIMISERS = {
    "Adam": Optimiser("Adam", lr=0.03),
    "SGD": Optimiser("SGD", lr=0.02, momentum=0.9),
    "AdamW": Optimiser("AdamW", lr=0.03, weight_decay=0.1),
}
PLAIN = Optimiser("SGD", lr=0.02)


@pytest.fixture(params=OPTIMISERS)
def optimiser(request: pytest.FixtureRequest) -> Optimiser:
    return OPTIMISERS[request.param]


def run(found: Problem, strategy: Strategy, seed: int = 0, steps: int = STEPS, size: int = BATCH) -> list[Snapshot]:
    return list(train(found, strategy, Plan(steps, size, Every(1)), seed))


def thetas(snapshots: Sequence[Snapshot]) -> Any:
    return np.stack([snapshot.theta for snapshot in snapshots])


def assert_bit_equal(found: Problem, first: Strategy, *others: Strategy, seed: int = 0) -> None:
    expected = run(found, first, seed)
    assert not np.array_equal(expected[0].theta, expected[-1].theta)
    for other in others:
        snapshots = run(found, other, seed)
        assert thetas(snapshots).tobytes() == thetas(expected).tobytes()
        assert [s.losses.tobytes() for s in snapshots] == [s.losses.tobytes() for s in expected]
        assert [s.path_steps for s in snapshots] == [s.path_steps for s in expected]


# Theorems


def test_one_group_is_bit_equal_to_averaged(optimiser: Optimiser) -> None:
    groups = [Count(1), Size(3)]
    others = [Grouped(p, optimiser, states) for p in groups for states in (OwnStates(), SharedState())]
    assert_bit_equal(problem(), Averaged(optimiser), *others)


def test_with_one_task_all_strategies_are_bit_equal(optimiser: Optimiser) -> None:
    others = [Alternating(optimiser), Independent(optimiser), AdaTask(optimiser), Grouped(Count(1), optimiser)]
    assert_bit_equal(problem(1), Averaged(optimiser), *others)


def test_without_optimiser_state_alternating_is_bit_equal_to_independent() -> None:
    assert_bit_equal(problem(), Alternating(PLAIN), Independent(PLAIN))


def test_with_optimiser_state_alternating_differs_from_independent(optimiser: Optimiser) -> None:
    a, b = (run(problem(), strategy(optimiser))[-1].theta for strategy in (Alternating, Independent))
    assert np.abs(a - b).max() > 1e-3


def test_groups_of_one_task_with_own_states_are_independent(optimiser: Optimiser) -> None:
    others = [Grouped(p, optimiser, OwnStates()) for p in (Size(1), Count(3))]
    assert_bit_equal(problem(), Independent(optimiser), *others, Grouped(Size(1), optimiser, redraw=2))


def test_groups_of_one_task_with_one_state_are_alternating(optimiser: Optimiser) -> None:
    assert_bit_equal(problem(), Alternating(optimiser), Grouped(Size(1), optimiser, SharedState()))


def test_without_optimiser_state_adatask_is_averaged_to_rounding() -> None:
    ours, expected = (run(problem(dtype=torch.float64), s(PLAIN)) for s in (AdaTask, Averaged))
    # Plain gradient steps add up: only the order of three additions in float64 differs.
    assert np.allclose(thetas(ours), thetas(expected), rtol=1e-12, atol=1e-14)


class Apart(nn.Module):
    """Both tasks are told to share `vectors`, of which each reads a row of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(3, 4))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        return [(inputs * row).sum(1, keepdim=True) for row in self.vectors]


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_with_disjoint_supports_the_order_does_not_matter(name: str) -> None:
    # Own states: with one state, a task's moments would decay at the other tasks' sub-steps, in another order.
    found = Problem(made(Apart), tasks(), data(), data())
    assert found.layout.count() == 12
    orders = [Fixed(), Fixed(2, 0, 1), Reversed(), Shuffled()]
    first, *others = (Independent(OPTIMISERS[name], order=order) for order in orders)
    for other in others:
        # Adam moves entries whose gradient is exactly zero by exactly zero.
        assert thetas(run(found, other)).tobytes() == thetas(run(found, first)).tobytes()


def test_the_order_matters_where_supports_overlap() -> None:
    a, b = (run(problem(), Alternating(PLAIN, order=order))[-1].theta for order in (Fixed(), Fixed(2, 1, 0)))
    assert np.abs(a - b).max() > 1e-5


@pytest.mark.parametrize(
    ("strategy", "updates", "gradients"),
    [
        (Averaged(), 1, 1),
        (Alternating(), 3, 3),
        (Independent(), 3, 3),
        (AdaTask(), 1, 3),
        (Grouped(Count(2)), 2, 2),
        (Grouped(Size(3)), 1, 1),
    ],
)
def test_counters_grow_by_updates_and_gradients_a_step(strategy: Strategy, updates: int, gradients: int) -> None:
    snapshots = run(problem(), strategy, steps=4)
    assert [s.updates for s in snapshots] == [updates * n for n in range(5)]
    assert [s.gradients for s in snapshots] == [gradients * n for n in range(5)]
    assert [s.step for s in snapshots] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", [Alternating(), Independent(), Grouped(Size(2), seed=3), Averaged()])
def test_a_sub_step_moves_shared_parameters_and_own_heads_only(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, served = problem(), []
    layout, inner = found.layout, Workspace.update

    def watched(self: Workspace, state: int, group: Sequence[int], gradients: Any) -> None:
        before = self.theta.clone()
        inner(self, state, group, gradients)
        moved = (self.theta != before).numpy()
        owners = {owner for owner in ("shared", *NAMES) if moved[layout.index(owner)].any()}
        assert owners == {"shared", *(NAMES[t] for t in group)}
        served.append(tuple(group))

    monkeypatch.setattr(Workspace, "update", watched)
    run(found, strategy, steps=2)
    assert sorted(t for group in served for t in group) == [0, 0, 1, 1, 2, 2]


# By hand


def by_hand(
    found: Problem, step: Callable[[nn.Module, Callable[[int], list[Tensor]], int], None], seed: int = 0
) -> list[Tensor]:
    """Theta after every step of a loop on a module: `step(module, losses, number)`, `losses(batch)` afresh."""
    module, batches = found.module(found.initial(seed)[0]), Batches(found, BATCH, seed)
    module.train()

    def losses(number: int) -> list[Tensor]:
        batch = batches[number]
        predictions = module(batch.inputs)
        pairs = zip(found.tasks, batch.targets, strict=True)
        return [task.loss(predictions[task.name], target).mean() for task, target in pairs]

    path = [found.read(module)[0]]
    for number in range(STEPS):
        step(module, losses, number)
        path.append(found.read(module)[0])
    return path


def assert_same_path(snapshots: Sequence[Snapshot], path: Sequence[Tensor]) -> None:
    # The same operations in float64. Adam divides by a root of the second moment, which enlarges a rounding of 1e-16
    # by at most the rate over the smallest gradient, some 1e3, in each of nine steps.
    assert np.allclose(thetas(snapshots), torch.stack(list(path)).numpy(), rtol=0, atol=1e-12)


def smooth() -> Problem:
    return problem(dtype=torch.float64, loss=sine)


def own_parameters(found: Problem, module: nn.Module, task: int) -> list[nn.Parameter]:
    wanted = ("shared", NAMES[task])
    return parameters_of(module, [slot.name for slot in found.layout.slots if slot.owner in wanted])


@pytest.mark.parametrize(
    ("reduction", "weights"), [(None, (1, 1, 1)), (Mean(), (1 / 3,) * 3), (Weights(2.0, 0.5, 0.0), (2, 0.5, 0))]
)
def test_averaged_is_a_plain_loop_on_the_weighted_sum(
    optimiser: Optimiser, reduction: Any, weights: tuple[float, ...]
) -> None:
    found, kept = smooth(), {}

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        own = kept.setdefault(0, optimiser.build(list(module.parameters())))
        own.zero_grad()
        sum(w * loss for w, loss in zip(weights, losses(number), strict=True)).backward()
        own.step()

    strategy = Averaged(optimiser) if reduction is None else Averaged(optimiser, reduction)
    assert_same_path(run(found, strategy), by_hand(found, step))


def test_independent_is_a_plain_loop_with_an_optimiser_for_each_task(optimiser: Optimiser) -> None:
    found, kept = smooth(), {}

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        if not kept:
            kept.update({t: optimiser.build(own_parameters(found, module, t)) for t in range(3)})
        for t in range(3):
            module.zero_grad()
            losses(number)[t].backward()
            kept[t].step()

    assert_same_path(run(found, Independent(optimiser)), by_hand(found, step))


@pytest.mark.parametrize("serving", ["same", "next"])
def test_alternating_is_a_plain_loop_with_one_optimiser(optimiser: Optimiser, serving: str) -> None:
    found, kept = smooth(), {}

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        own = kept.setdefault(0, optimiser.build(list(module.parameters())))
        for t in range(3):
            own.zero_grad(set_to_none=True)  # so that the heads of other tasks stay, momentum or not
            losses(number if serving == "same" else 3 * number + t)[t].backward()
            own.step()

    strategy = named("alternating", optimiser, {"batches": serving})
    assert_same_path(run(found, strategy), by_hand(found, step))


def test_adatask_is_adam_with_moments_for_each_task() -> None:
    # arXiv 2211.15055: all gradients at one theta, moments of each task, steps added at the full rate.
    found, rate, b1, b2, eps = smooth(), 0.03, 0.9, 0.999, 1e-8
    moments: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        parameters = dict(module.named_parameters())
        change = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for t, loss in enumerate(losses(number)):
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    m, v = moments.get((t, name), (torch.zeros_like(g), torch.zeros_like(g)))
                    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                    moments[t, name] = m, v
                    k = number + 1
                    change[name] -= rate * (m / (1 - b1**k)) / ((v / (1 - b2**k)).sqrt() + eps)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.add_(change[name])

    assert_same_path(run(found, AdaTask(Optimiser("Adam", lr=rate))), by_hand(found, step))


def test_groups_are_a_plain_loop_with_an_optimiser_for_each_group() -> None:
    found, adam, kept = smooth(), OPTIMISERS["Adam"], {}
    strategy = Grouped(Size(2), adam, seed=5)
    (groups,) = {tuple(strategy.groups(3, number)) for number in range(STEPS)}
    assert sorted(map(len, groups)) == [1, 2]

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        for g, group in enumerate(groups):
            if g not in kept:
                own = [p for t in group for p in own_parameters(found, module, t)]
                kept[g] = adam.build(list(dict.fromkeys(own)))
            module.zero_grad()
            every = losses(number)
            sum(every[t] for t in group).backward()
            kept[g].step()

    assert_same_path(run(found, strategy), by_hand(found, step))


def test_the_second_order_difference_of_alternating_steps_is_that_of_theory() -> None:
    # L_k(one pass) - L_k(one averaged step) = eta^2 sum_{i<j} g_i' H_j g_k + O(eta^3), heads included.
    module, points = made(lambda: problem().model, dtype=torch.float64), data()
    found = Problem(module, tasks(3, sine), points, points)
    theta = found.initial(0)[0]

    def loss(task: int) -> Callable[[Tensor], Tensor]:
        return lambda at: found.losses(at, found.evaluation)[task].mean()

    g = [torch.func.grad(loss(t))(theta) for t in range(3)]
    h = [torch.autograd.functional.hessian(loss(t), theta) for t in range(3)]
    predicted = torch.stack([sum(g[i] @ h[j] @ g[k] for j in range(3) for i in range(j)) for k in range(3)]).numpy()
    errors = []
    for eta in (1e-2, 1e-3):
        sgd = Optimiser("SGD", lr=eta)
        one, all_at_once = (run(found, s, steps=1, size=23)[-1].losses for s in (Alternating(sgd), Averaged(sgd)))
        errors.append(np.abs((one - all_at_once) / eta**2 - predicted))
    assert (errors[1] < 0.05 * np.abs(predicted)).all()
    # The error is c eta + O(eta^2), so a tenth of eta gives a tenth of it; rounding adds 1e-16 / eta^2 = 1e-10.
    assert np.allclose(errors[0] / errors[1], 10, rtol=0.25)


# Orders, batches, groups


@given(st.integers(1, 12), st.integers(0, 1000), st.integers(0, 100))
def test_shuffled_is_a_permutation_and_a_function_of_seed_and_step(count: int, number: int, seed: int) -> None:
    order = Shuffled().arrange(count, number, seed)
    assert sorted(order) == list(range(count))
    assert order == Shuffled().arrange(count, number, seed)


def test_shuffled_takes_every_order_about_equally_often() -> None:
    orders = [tuple(Shuffled().arrange(3, number, 0)) for number in range(1200)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    # 200 expected of each, standard deviation sqrt(1200 * 5 / 36) = 13: five of them.
    assert max(abs(count - 200) for count in counts) < 65
    assert orders != [tuple(Shuffled().arrange(3, number, 1)) for number in range(1200)]


def test_reversed_turns_the_order_round_at_every_other_step() -> None:
    assert [list(Reversed().arrange(3, number, 0)) for number in range(3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_a_fixed_order_is_kept_and_has_to_be_a_permutation() -> None:
    assert list(Fixed(2, 0, 1).arrange(3, 7, 0)) == [2, 0, 1]
    with pytest.raises(LandscapeError, match=r"expected an order of the numbers 0 to 2, got \(0, 1\)"):
        run(problem(), Alternating(order=Fixed(0, 1)), steps=1)


@pytest.mark.parametrize(
    ("strategy", "numbers"),
    [
        (Alternating(batches=NextBatch()), [[0, 1, 2], [3, 4, 5]]),
        (Independent(batches=NextBatch(), order=Reversed()), [[0, 1, 2], [3, 4, 5]]),
        (Grouped(Count(2), batches=NextBatch()), [[0, 1], [2, 3]]),
        (Alternating(), [[0, 0, 0], [1, 1, 1]]),
        (Grouped(Count(2)), [[0, 0], [1, 1]]),
        (Averaged(), [[0], [1]]),
        (AdaTask(), [[0], [1]]),
    ],
)
def test_sub_steps_read_the_batches_that_they_should(
    strategy: Strategy, numbers: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, inner = [], Batches.__getitem__
    monkeypatch.setattr(Batches, "__getitem__", lambda self, n: (read.append(n), inner(self, n))[1])
    run(problem(), strategy, steps=2)
    assert read == [n for step in numbers for n in step]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 50), st.integers(0, 5))
def test_groups_cover_all_tasks_without_overlap(count: int, size: int, number: int, redraw: int) -> None:
    size = min(size, count)
    for partition, sizes in (
        (Size(size), [size] * (count // size) + [count % size] * (count % size > 0)),
        (Count(size), sorted((len(part) for part in np.array_split(range(count), size)), reverse=True)),
    ):
        groups = Grouped(partition, redraw=redraw).groups(count, number)
        assert sorted(t for group in groups for t in group) == list(range(count))
        assert [len(group) for group in groups] == sizes


def test_groups_are_drawn_once_or_every_n_steps() -> None:
    kept = [Grouped(Count(4)).groups(12, number) for number in range(100)]
    assert all(groups == kept[0] for groups in kept)
    redrawn = [Grouped(Count(4), redraw=5).groups(12, number) for number in range(100)]
    assert all(redrawn[n] == redrawn[5 * (n // 5)] for n in range(100))
    assert len({str(groups) for groups in redrawn}) == 20


def test_groups_follow_their_own_seed_and_not_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Grouped(Count(4), seed=1).groups(12, 0) != Grouped(Count(4), seed=2).groups(12, 0)
    found, served, inner = problem(), [], Workspace.gradient
    monkeypatch.setattr(Workspace, "gradient", lambda self, total, g: (served.append(g), inner(self, total, g))[1])
    for seed in (0, 1):
        run(found, Grouped(Size(2), seed=4), seed=seed, steps=2)
    assert len(served) == 8
    assert served[:4] == served[4:]


def test_tasks_are_drawn_into_groups_alike() -> None:
    together = np.zeros((6, 6))
    for seed in range(600):
        for group in Grouped(Size(2), seed=seed).groups(6, 0):
            together[np.ix_(group, group)] += 1
    # Each pair with probability 1/5: 120 expected, standard deviation sqrt(600 * 4 / 25) = 9.8; five of them.
    assert np.abs(together[np.triu_indices(6, 1)] - 120).max() < 49


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grouped(Count(4)).states(3), "expected 1 to 3 groups for 3 tasks, got 4"),
        (lambda: Grouped(Count(0)).states(3), "expected 1 to 3 groups for 3 tasks, got 0"),
        (lambda: Grouped(Size(0)).states(3), "expected groups of 1 to 3 of the 3 tasks, got 0"),
        (lambda: Grouped(redraw=-1), "expected redraw every 1 or more steps, or 0 for never, got -1"),
        (lambda: run(problem(), Averaged(reduction=Weights(1, 2))), "a weight for each of the 3 tasks, got 2"),
        (lambda: run(problem(), Averaged(reduction=Weights(1, 2, 3, 4))), "a weight for each of the 3 tasks, got 4"),
    ],
)
def test_choices_that_do_not_fit_the_tasks_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        make()


def test_a_task_that_reaches_only_part_of_what_is_shared_leaves_the_rest() -> None:
    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high, self.heads = (
                nn.Linear(4, 4),
                nn.Linear(4, 4),
                nn.ModuleList([nn.Linear(4, t + 1) for t in range(3)]),
            )

        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            low = torch.tanh(self.low(inputs))
            at = [low, self.high(low), self.high(low)]
            return {name: head(a) for name, head, a in zip(NAMES, self.heads, at, strict=True)}

    found, kept = Problem(made(Tree, dtype=torch.float64), tasks(), data(), data()), {}
    adam = OPTIMISERS["AdamW"]  # its weight decay would move what has a gradient of zero, not what has none

    def step(module: nn.Module, losses: Callable[[int], list[Tensor]], number: int) -> None:
        if not kept:
            kept.update({t: adam.build(own_parameters(found, module, t)) for t in range(3)})
        for t in range(3):
            module.zero_grad(set_to_none=True)
            losses(number)[t].backward()
            kept[t].step()

    assert_same_path(run(found, Independent(adam)), by_hand(found, step))


# By name


def test_every_choice_has_a_name() -> None:
    adam = OPTIMISERS["Adam"]
    assert named("averaged", adam, {"reduction": "mean"}) == Averaged(adam, Mean())
    assert named("averaged", adam, {"reduction": [1, 0.5]}) == Averaged(adam, Weights(1, 0.5))
    assert named("alternating", adam, {"order": "reversed", "batches": "next"}) == Alternating(
        adam, Reversed(), NextBatch()
    )
    assert named("independent", adam, {"order": "shuffled", "batches": None}) == Independent(adam, Shuffled())
    assert named("adatask", adam) == AdaTask(adam)
    assert named("grouped", adam, {"size": 3, "states": "shared", "redraw": 7, "group_seed": 9}) == Grouped(
        Size(3), adam, SharedState(), 7, 9
    )
    assert named("grouped", adam, {"groups": 4}) == Grouped(Count(4), adam)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("avreaged", {}, "unknown strategy 'avreaged': expected one of adatask, .*; did you mean 'averaged'"),
        ("grouped", {"sise": 2}, "unknown choice of a strategy 'sise': expected one of .*; did you mean 'size'"),
        ("averaged", {"order": "fixed"}, "the strategy averaged takes no order: expected it with alternating or"),
        ("adatask", {"reduction": "sum"}, "the strategy adatask takes no reduction: .* averaged or grouped; leave it"),
        ("alternating", {"order": "shufled"}, "unknown order 'shufled': .*; did you mean 'shuffled'"),
        ("alternating", {"order": ["fixed"]}, "unknown order"),
        ("independent", {"batches": "nxt"}, "unknown batches 'nxt': .*; did you mean 'next'"),
        ("grouped", {"states": "owned"}, "unknown states 'owned': .*; did you mean 'own'"),
        ("averaged", {"reduction": "meen"}, "unknown reduction 'meen': .*; did you mean 'mean'"),
        ("averaged", {"reduction": {"a": 1}}, "unknown reduction"),
        ("averaged", {"reduction": ["one"]}, r"expected weights as numbers, got \['one'\]"),
        ("grouped", {"groups": 2, "size": 2}, "expected the number of groups or their size, got both: leave one out"),
        ("grouped", {"groups": 2.5}, "expected groups as a whole number, got 2.5"),
        ("grouped", {"redraw": "often"}, "expected redraw as a whole number, got 'often'"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(name: str, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        named(name, PLAIN, choices)


def test_a_strategy_prints_itself_as_it_was_made() -> None:
    import landscape
    from landscape import strategies

    names = {**vars(strategies), "Adam": lambda **s: Optimiser("Adam", **s)}
    assert landscape.Averaged is strategies.Averaged
    for strategy in (
        Averaged(reduction=Weights(1.0, 0.25)),
        Alternating(order=Fixed(1, 0), batches=NextBatch()),
        Grouped(Size(3), states_of_theta=SharedState(), redraw=4, seed=2, order=Shuffled()),
    ):
        assert eval(repr(strategy), names) == strategy


# Batches


def test_an_epoch_is_a_permutation_cut_into_batches() -> None:
    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + self.zero

    rows = TensorDataset(torch.arange(23.0)[:, None], torch.arange(23.0)[:, None])
    found = Problem(Row(), [Task("red", squared)], rows, rows)
    batches = Batches(found, 5, 0)
    read = [[int(v) for v in batches[n].inputs[:, 0]] for n in range(12)]
    for epoch in (read[:4], read[4:8], read[8:]):
        drawn = [row for batch in epoch for row in batch]
        assert [len(batch) for batch in epoch] == [5] * 4
        assert len(set(drawn)) == 20
        assert set(drawn) < set(range(23))
    assert len({tuple(sorted(batch)) for batch in read}) == 12
    assert {row for batch in read for row in batch} == set(range(23))  # another one is left out every time
    again = Batches(found, 5, 0)
    assert [int(v) for v in again[7].inputs[:, 0]] == read[7]
    assert [int(v) for v in Batches(found, 5, 1)[0].inputs[:, 0]] != read[0]


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    batches = Batches(problem(), 1000, 0)
    assert [len(batches[n]) for n in range(3)] == [23, 23, 23]
    assert torch.equal(batches[0].inputs.sort(0).values, batches[1].inputs.sort(0).values)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(LandscapeError, match="expected a batch size of 1 or more, got 0"):
        run(problem(), Averaged(), size=0)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, np.inf), (np.nan, 1.0), (0, -np.inf), ()])
def test_weights_that_lead_nowhere_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(LandscapeError, match=r"^expected finite weights, not all of them 0, got \["):
        Weights(*weights)
    with pytest.raises(LandscapeError, match=r"^expected finite weights, not all of them 0, got \["):
        named("averaged", Optimiser("SGD", lr=0.1), {"reduction": list(weights)})
    assert Weights(0.0, 1.0).values == (0.0, 1.0)
