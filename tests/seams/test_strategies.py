"""Every strategy with everything that is done with a run of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import landscape
from analysis import alternation, movement
from analysis.alternation import usual_trial
from analysis.forms import Raw
from analysis.passes import NoOrders
from analysis.stability import step_line
from analysis.stated import stated
from landscape import Every, LandscapeError, Optimiser, Plan, Problem, Task
from landscape.provenance import provenance
from landscape.strategies import Strategy
from landscape.workspace import Batches
from tests.landscape.examples import everything, problem
from tests.seams.strategies import CASES, COUNT, OPTIMISERS, SEED, TASKS, Case

BATCH, STEPS = 6, 5
ROUNDED = 1e-10  # some tens of sums in another order, each off by 1e-16, over five steps

strategies = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def with_optimisers(*quick: str) -> pytest.MarkDecorator:
    """Each of the optimisers, all but these in the slow tests."""
    every = [
        pytest.param(kind, id=name, marks=[] if name in quick else [pytest.mark.slow])
        for name, kind in OPTIMISERS.items()
    ]
    return pytest.mark.parametrize("optimiser", every)


optimisers = with_optimisers("SGD", "Adam")


def small() -> Problem:
    """Three tasks in float64."""
    return problem(dtype=torch.float64)


# Training, against a loop in torch alone


class Loop:
    """Plain modules and optimisers: one for every state of the shared parameters, one for every head."""

    def __init__(self, start: Problem, kind: Optimiser) -> None:
        self.problem, self.kind = start, kind
        self.module = copy.deepcopy(start.model).train()
        self.shared = list(self.module.trunk.parameters())
        self.heads = [list(head.parameters()) for head in self.module.heads]
        self.states: dict[int, torch.optim.Optimizer] = {}
        self.of_heads = [self._made(head) for head in self.heads]

    def _made(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.kind.name)(parameters, **dict(self.kind.settings))

    def losses(self, batch: int) -> dict[int, Tensor]:
        given = Batches(self.problem, BATCH, SEED)[batch]
        made = self.module(given.inputs)
        return {t: ((made[TASKS[t]] - given.targets[t]) ** 2).sum(1).mean() for t in range(COUNT)}

    def update(self, weights: dict[int, float], state: int, losses: dict[int, Tensor]) -> None:
        self.module.zero_grad(set_to_none=True)
        sum(weight * losses[t] for t, weight in weights.items()).backward(retain_graph=True)
        self.states.setdefault(state, self._made(self.shared)).step()
        for t in weights:
            self.of_heads[t].step()

    def step(self, case: Case, strategy: Strategy, number: int) -> None:
        subs = case.step(strategy, number)
        if not case.at_one_theta:
            for sub in subs:
                self.update(sub.weights, sub.state, self.losses(sub.batch))
            return
        start = [p.detach().clone() for p in self.shared]
        total = [torch.zeros_like(p) for p in self.shared]
        for sub in subs:
            self.update(sub.weights, sub.state, self.losses(sub.batch))
            with torch.no_grad():
                total = [t + (p - at) for t, p, at in zip(total, self.shared, start, strict=True)]
                torch._foreach_copy_(self.shared, start)
        with torch.no_grad():
            torch._foreach_add_(self.shared, total)

    @property
    def theta(self) -> np.ndarray:
        return torch.cat([p.detach().reshape(-1) for p in self.module.parameters()]).numpy()


@strategies
@optimisers
def test_training_is_a_plain_loop(case: Case, optimiser: Optimiser) -> None:
    found, strategy = small(), case.make(optimiser)
    loop, shared = Loop(found, optimiser), found.layout.index()
    (_, *after) = landscape.train(found, strategy, Plan(STEPS, BATCH, Every(1)), SEED)
    path, before = 0.0, loop.theta
    for number, snapshot in enumerate(after):
        loop.step(case, strategy, number)
        np.testing.assert_allclose(snapshot.theta, loop.theta, rtol=ROUNDED, atol=ROUNDED)
        path += np.linalg.norm((loop.theta - before)[shared])
        assert snapshot.path_steps == pytest.approx(path, rel=1e-8)
        before = loop.theta
        subs = len(case.step(strategy, number))
        assert snapshot.updates == (number + 1) * (1 if case.at_one_theta else subs)
        assert snapshot.gradients == (number + 1) * subs


# Going on


class Stopped(BaseException):
    """As Ctrl-C: no Exception."""


@strategies
@with_optimisers("Adam")  # the one with most state
def test_a_run_resumed_in_the_middle_has_the_same_bytes(case: Case, optimiser: Optimiser, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 2:
            raise Stopped

    plan, strategy = Plan(STEPS, BATCH, Every(2)), case.make(optimiser)
    whole = landscape.record(small(), strategy, plan, tmp_path / "whole.h5", SEED)
    with pytest.raises(Stopped):
        landscape.record(small(), strategy, plan, tmp_path / "cut.h5", SEED, progress=stop)
    cut = landscape.open(tmp_path / "cut.h5")
    assert (cut.complete, list(cut.steps)) == (False, [0, 2])
    resumed = landscape.record(small(), case.make(optimiser), plan, tmp_path / "cut.h5", SEED)
    assert everything(resumed) == everything(whole)
    assert resumed.provenance.strategy == whole.provenance.strategy == repr(strategy)


@pytest.mark.parametrize(("case", "other"), list(pairwise(CASES)), ids=lambda case: case.name)
def test_a_run_is_not_gone_on_with_by_another_strategy(case: Case, other: Case, tmp_path: Path) -> None:
    plan, adam, path = Plan(2, BATCH), OPTIMISERS["Adam"], tmp_path / "run.h5"
    landscape.record(small(), case.make(adam), plan, path, SEED)
    kept = path.read_bytes()
    with pytest.raises(LandscapeError, match=r"holds a run with strategy .* to go on with it; choose another file"):
        landscape.record(small(), other.make(adam), plan, path, SEED)
    assert path.read_bytes() == kept


# What is read back from the text


@strategies
@optimisers
def test_what_a_strategy_prints_is_read_back(case: Case, optimiser: Optimiser) -> None:
    strategy = case.make(optimiser)
    found = stated(repr(strategy))
    assert found.name == type(strategy).__name__
    assert found.optimiser == optimiser.name
    assert dict(optimiser.settings).items() <= found.settings.items()
    assert (found.order, found.mean) == (case.order, case.mean)


# Stability lines, against steps really taken


class Number(nn.Module):
    """One shared number, which is every task's prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {name: self.theta.expand(len(inputs), 1) for name in TASKS}


def bent(task: int, curvature: float) -> Problem:
    """Three tasks of one number: the loss of one is a parabola, those of the others are straight."""

    def parabola(prediction: Tensor, target: Tensor) -> Tensor:
        return curvature / 2 * prediction.square()[:, 0]

    def straight(prediction: Tensor, target: Tensor) -> Tensor:
        return 0.01 * prediction[:, 0]

    tasks = [Task(name, parabola if t == task else straight) for t, name in enumerate(TASKS)]
    data = TensorDataset(torch.zeros(2, 1), *(torch.zeros(2, 1) for _ in TASKS))
    return Problem(Number(), tasks, data, data)


def grows(strategy: Strategy, task: int, curvature: float, steps: int = 60) -> bool:
    """Whether the longest of the last steps is longer than that of the steps before them: at 3 % beyond the line a
    step is at least 6 % longer than the one before, so 20 steps later three times as long; what the straight tasks add
    is the same every step, or every other one.
    """
    (_, last) = landscape.train(bent(task, curvature), strategy, Plan(steps, 2, Every(steps)), SEED)
    norms = last.history.shared_update_norm
    return bool(norms[-20:].max() > 2 * norms[-40:-20].max())


RATE = 0.1
PLAIN = Optimiser("SGD", lr=RATE)
SGDS = {
    "plain": PLAIN,
    "momentum": Optimiser("SGD", lr=RATE, momentum=0.5),
    "dampening": Optimiser("SGD", lr=RATE, momentum=0.5, dampening=0.4),
    "Nesterov": Optimiser("SGD", lr=RATE, momentum=0.5, nesterov=True),
    "decay": Optimiser("SGD", lr=RATE, weight_decay=2.0),
}
STEPPED = [(case, "plain") for case in CASES if case.name != "single task"] + [
    (case, kind) for case in CASES if case.name.startswith("averaged") for kind in SGDS if kind != "plain"
]


def lines(strategy: Strategy) -> list[float]:
    """The stability line of every task, then that of the average."""
    who = provenance(bent(0, 1.0), strategy, SEED, Plan(), "")
    return list(step_line(who).values)


@pytest.mark.parametrize(("case", "kind"), STEPPED, ids=lambda value: getattr(value, "name", value))
def test_steps_diverge_beyond_the_average_s_stability_line(case: Case, kind: str) -> None:
    strategy = case.make(SGDS[kind])
    line = lines(strategy)[-1]
    if math.isnan(case.curved):
        assert math.isnan(line)
        return
    # One task alone has curvature, which is T times that of the average.
    assert not grows(strategy, 0, 0.97 * COUNT * line)
    assert grows(strategy, 0, 1.03 * COUNT * line)


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case, kind in STEPPED if case.whole],
    ids=lambda value: getattr(value, "name", value),
)
def test_steps_diverge_beyond_the_stability_line_of_a_task_that_they_take_whole(case: Case, kind: str) -> None:
    strategy = case.make(SGDS[kind])
    found = lines(strategy)
    assert found[:-1] == [found[0]] * COUNT
    assert not grows(strategy, 1, 0.97 * found[1])
    assert grows(strategy, 1, 1.03 * found[1])


def test_a_task_that_is_never_stepped_on_has_no_stability_line() -> None:
    (single,) = [case for case in CASES if case.name == "single task"]
    found = lines(single.make(PLAIN))
    assert [math.isnan(line) for line in found] == [True, False, True, True]
    assert not grows(single.make(PLAIN), 1, 0.97 * found[1])
    assert grows(single.make(PLAIN), 1, 1.03 * found[1])


# Theory, against steps taken by hand


def in_float64(module: nn.Module, given: Problem) -> list[Tensor]:
    made = module(given.evaluation.inputs)
    return [((made[name] - y) ** 2).sum(1).mean() for name, y in zip(TASKS, given.evaluation.targets, strict=True)]


def after_passes(given: Problem, theta: Tensor, order: Sequence[int], rate: float) -> list[list[float]]:
    """Losses after one step a task in turn, and after one step on their sum."""
    ends = []
    for groups in ([(t,) for t in order], [tuple(order)]):
        module = given.module(theta).eval()
        for group in groups:
            module.zero_grad(set_to_none=True)
            losses = in_float64(module, given)
            sum(losses[t] for t in group).backward()
            with torch.no_grad():
                for p in module.parameters():
                    if p.grad is not None:
                        p.sub_(rate * p.grad)
        ends.append([float(loss.detach()) for loss in in_float64(module, given)])
    return ends


TELLING = [case.mean or bool(case.order) or not case.whole for case in CASES]
"""Cases whose steps the theory could mistake for others; the rest take the usual ones."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if telling else [pytest.mark.slow])
        for case, telling in zip(CASES, TELLING, strict=True)
    ],
)
def test_the_theory_s_measured_difference_is_that_of_steps_taken_by_hand(case: Case, tmp_path: Path) -> None:
    given, rate = small(), 0.02
    run = landscape.record(given, case.make(Optimiser("SGD", lr=rate)), Plan(3, BATCH), tmp_path / "run.h5", SEED)
    trial = replace(usual_trial(run), rungs=1, orders=NoOrders())
    *_, found = alternation.along(given, run, [-1], trial)
    taken = rate / COUNT if case.mean else rate
    order = case.order or tuple(range(COUNT))
    assert list(found.rates) == [pytest.approx(taken)]
    assert tuple(found.order) == tuple(TASKS[t] for t in order) or tuple(found.order) == order
    in_turn, at_once = after_passes(given, torch.tensor(run.theta[-1]), order, taken)
    expected = np.subtract(in_turn, at_once)
    # Differences of losses of order one, to 1e-16 each.
    np.testing.assert_allclose(found.measured[0, 0], [*expected, expected.mean()], rtol=1e-7, atol=1e-13)


# Exploration, against distances between snapshots of every step


@strategies
def test_exploration_measures_are_those_of_the_snapshots(case: Case, tmp_path: Path) -> None:
    given, strategy = small(), case.make(OPTIMISERS["Adam"])
    run = landscape.record(given, strategy, Plan(6, BATCH, Every(1)), tmp_path / "run.h5", SEED)
    (found,) = movement.measure([run], movement.Measuring(forms=(Raw(),), draws=0))
    theta = run.theta[:][:, given.layout.index()]
    moves = np.linalg.norm(np.diff(theta, axis=0), axis=1)
    net, path = np.linalg.norm(theta - theta[0], axis=1), np.cumsum([0.0, *moves])
    # Squared distances from a Gram matrix: half the digits where theta hardly moves.
    np.testing.assert_allclose(found.movement.of("net"), net, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.movement.of("path_snapshots"), path, rtol=1e-6)
    np.testing.assert_allclose(found.movement.of("path_steps"), path, rtol=1e-6)
    updates = np.arange(7) * strategy.updates(COUNT)
    assert list(found.movement.budget("updates")) == list(updates)
    np.testing.assert_allclose(found.movement.budget("movement"), updates * 0.03)
    assert (found.movement.of("path_updates") >= found.movement.of("path_steps") * (1 - 1e-12)).all()
