"""Strategies and optimisers read back from their reprs, and step-size lines against steps that really diverge."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from analysis.stability import step_line
from analysis.stated import parse_strategy, stated
from landscape import problems, training
from landscape.optimisers import _WITHOUT_CLOSURE, Optimiser
from landscape.strategies import (
    AdaTask,
    Alternating,
    Averaged,
    Count,
    Fixed,
    Grouped,
    Independent,
    Mean,
    NextBatch,
    Reversed,
    SharedState,
    Shuffled,
    SingleTask,
    Size,
    Weights,
)
from landscape.trajectory import Provenance

MADE = [
    Averaged,
    lambda o: Averaged(o, Mean()),
    lambda o: Averaged(o, Weights(1.0, -0.5, 1e-3)),
    lambda o: Alternating(o, Fixed(2, 0, 1)),
    lambda o: Alternating(o, Reversed(), NextBatch()),
    AdaTask,
    lambda o: Independent(o, Shuffled()),
    lambda o: Grouped(optimiser=o),
    lambda o: Grouped(Size(2), o, SharedState(), redraw=3, seed=7, order=Shuffled(), reduction=Mean()),
    lambda o: Grouped(Count(1), o, reduction=Weights(1.0, 2.0, 3.0)),
    lambda o: SingleTask("t1", o),
    lambda o: SingleTask("a (b, c)='d', lr=9", o),
]
SETTINGS = {
    "Adam": {"betas": (0.8, 0.9), "lr": 0.1},
    "SGD": {"lr": 1e-05, "momentum": 0.5, "nesterov": True, "maximize": False},
    "NAdam": {"betas": [0.8, 0.9], "lr": np.float64(0.1)},
    "RMSprop": {"centered": True, "lr": 3, "alpha": np.float32(0.5)},
    "Adafactor": {"eps": (None, 1e-3)},
}
TASKS = ("t0", "t1", "t2")


def said(strategy, tasks=TASKS):
    return Provenance(repr(strategy), strategy.label, 0, strategy.optimiser.rate, "", {}, tasks, (), "", "")


@pytest.mark.parametrize("name", sorted(_WITHOUT_CLOSURE))
def test_every_strategy_with_every_optimiser_is_read_back_equal(name):
    for make, settings in itertools.product(MADE, ({}, SETTINGS.get(name, {"lr": 0.25}))):
        if name == "Muon" and "lr" not in settings:
            continue
        strategy = make(Optimiser(name, **settings))
        assert parse_strategy(repr(strategy)) == strategy
        parts = stated(repr(strategy))
        assert (parts.name, parts.optimiser) == (type(strategy).__name__, name)
        assert parts.settings["lr"] == strategy.optimiser.rate
        line = step_line(said(strategy))
        assert line.values.shape == (4,)
        if name != "SGD":
            assert np.isnan(line.values).all()
            assert line.words.startswith(f"No step-size line: trained with {name}")


def test_numbers_of_numpy_in_earlier_files_are_read():
    text = "Averaged(optimiser=Adam(betas=(np.float32(0.5), 0.9), lr=np.float64(0.1)), reduction=Sum())"
    assert parse_strategy(text) == Averaged(Optimiser("Adam", betas=(0.5, 0.9), lr=0.1))


@pytest.mark.parametrize(
    "text",
    [
        "my loop",
        "SGD(lr=0.1)",
        "Averaged(optimiser=SGD(lr=0.1)",
        "Averaged(optimiser=Own(lr=0.1), reduction=Sum())",
        "Averaged(optimiser=SGD(lr=open('x')), reduction=Sum())",
        "Averaged(optimiser=SGD(lr=(lambda: 1)()), reduction=Sum())",
        "__import__('os').getcwd()",
        "(" * 5000 + ")" * 5000,
        "\0",
        "",
    ],
)
def test_what_is_no_strategy_is_none_and_nothing_of_it_is_run(text):
    assert parse_strategy(text) is None
    assert stated(text).name == ""
    line = step_line(Provenance(text, "own", 0, 0.1, "", {}, TASKS, (), "", ""))
    assert np.isnan(line.values).all()
    assert "does not say which optimiser" in line.words


def diverges(strategy, curvatures, steps=400):
    """Whether steps on quadratics of these curvatures with their minima at 0 end far from it."""
    count = len(curvatures)
    settings = {
        "hessians": np.reshape(curvatures, (-1, 1, 1)).tolist(),
        "minima": [[0.0]] * count,
        "heads": 0,
        "examples": 2,
    }
    *_, last = training.train(problems.load("quadratic", settings), strategy, training.Plan(steps, 2), seed=0)
    assert np.isfinite(last.theta).all()
    return bool(abs(last.theta[0]) > 10)


PLAIN = [{}, {"momentum": 0.9}, {"momentum": 0.5, "dampening": 0.3}, {"momentum": 0.8, "nesterov": True}]
DECAYING = [{**settings, "weight_decay": 0.7} for settings in PLAIN[:2]]


STRATEGIES = {
    "averaged": Averaged,
    "adatask": AdaTask,
    "alternating": Alternating,
    "independent": Independent,
    "grouped": lambda o: Grouped(optimiser=o),
    "one group": lambda o: Grouped(Count(1), o),
}


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        # Each strategy once and each of the settings once; all of them together are among the slow tests.
        pytest.param(
            make, settings, id=f"{name}-{settings}", marks=[pytest.mark.slow] * (number != k % len(STRATEGIES))
        )
        for number, (name, make) in enumerate(STRATEGIES.items())
        for k, settings in enumerate(PLAIN + DECAYING)
    ],
)
def test_the_lines_of_a_task_and_of_the_average_are_where_steps_diverge_or_none_is_stated(make, settings):
    """With the other losses flat, steps of these strategies are steps on one loss alone; with all of them equal, steps
    on all at once are steps on T times the average.
    """
    strategy = make(Optimiser("SGD", lr=0.05, **settings))
    line = step_line(said(strategy))
    in_turn = strategy.updates(3) > 1
    own = settings.get("weight_decay", 0.0)
    if in_turn and settings.get("momentum") and isinstance(strategy, Alternating):
        assert np.isnan(line.values).all()
        assert "momentum goes from one task's steps to the next" in line.words
        return
    assert np.isnan(line.values[-1]) == in_turn
    assert ("in turn" in line.words) == in_turn
    for factor, far in ((0.97, False), (1.03, True)):
        if not own:  # weight decay is a curvature of every step, whosever it is
            assert diverges(strategy, [0.0, line.values[1] * factor, 0.0]) == far
        if not in_turn:
            assert diverges(strategy, [line.values[-1] * factor] * 3) == far


@pytest.mark.parametrize("name", ["AdamW", "Adam"])
@pytest.mark.parametrize(("decay", "momentum", "stated"), [(5.0, 0.9, 95 / 3), (0.0, 0.9, 380 / 3), (3.0, 0.5, 11.0)])
def test_adatask_decays_the_weights_once_a_task(name, decay, momentum, stated):
    """A step is theta <- (1 - T rate decay) theta - rate v, v <- b v + (1 - b) T lambda theta, which is linear; torch's
    own steps of three optimisers grow where its largest eigenvalue does.
    """
    settings = {"weight_decay": decay} | ({"decoupled_weight_decay": True} if name == "Adam" else {})
    optimiser = Optimiser(name, lr=0.1, betas=(momentum, KEPT), **settings)
    line = step_line(said(AdaTask(optimiser)), preconditioned=True)
    np.testing.assert_allclose(line.values[-1], stated)
    np.testing.assert_allclose(line.values[0], step_line(said(Averaged(optimiser)), True).values[0])
    assert ("3 weight decays, one a task" in line.words) == bool(decay)
    for factor, far in ((0.97, False), (1.03, True)):
        pull = 3 * (1 - momentum) * stated * factor
        step = [[1 - 0.3 * decay - 0.1 * pull, -0.1 * momentum], [pull, momentum]]
        assert (max(abs(np.linalg.eigvals(step))) > 1) == far
        assert grows(optimiser, stated * factor, count=3) == far


@pytest.mark.parametrize(
    ("weight", "decay"),
    [(0.5, 0.7), (3.0, 0.0), *(pytest.param(*more, marks=pytest.mark.slow) for more in ((0.5, 0.0), (3.0, 0.7)))],
)
def test_the_line_of_one_task_alone_is_that_of_its_weighted_loss(weight, decay):
    optimiser = Optimiser("SGD", lr=0.1, weight_decay=decay)
    for strategy in (Averaged(optimiser, Weights(weight)), Grouped(Count(1), optimiser, reduction=Weights(weight))):
        line = step_line(said(strategy, ("t0",)))
        assert line.values.tolist() == [(20 - decay) / weight] * 2
        assert line.words.endswith(f" The loss has the weight {weight:g}: the line is at 1/{weight:g} of that.")
        for factor, far in ((0.97, False), (1.03, True)):
            assert diverges(strategy, [line.values[0] * factor]) == far
    climbing = step_line(said(Averaged(optimiser, Weights(-weight)), ("t0",)))
    assert np.isnan(climbing.values).all()
    assert climbing.words == f"No step-size line: the loss has the weight {-weight:g}, so steps climb."


def test_the_averages_curvature_says_nothing_of_steps_in_turn():
    """Equal tasks diverge at 2 / rate, not at a T-th of it; one task with all of the curvature at T-th of that."""
    strategy = Alternating(Optimiser("SGD", lr=0.05))
    assert not diverges(strategy, [20.0] * 3)
    assert diverges(strategy, [0.0, 0.0, 60.0])
    assert np.isnan(step_line(said(strategy)).values[-1])


@pytest.mark.parametrize(
    "settings",
    [*PLAIN[:2], *(pytest.param(settings, marks=pytest.mark.slow) for settings in PLAIN[2:] + DECAYING)],
    ids=str,
)
def test_a_single_task_has_the_line_of_its_own_steps_and_no_other(settings):
    strategy = SingleTask("task2", Optimiser("SGD", lr=0.05, **settings))
    line = step_line(said(strategy, ("task1", "task2", "task3")))
    assert np.isfinite(line.values).tolist() == [False, True, False, False]
    assert line.words.endswith("Of 'task2' only: no step is on another loss.")
    for factor, far in ((0.97, False), (1.03, True)):
        assert diverges(strategy, [1e3, line.values[1] * factor, 1e3]) == far
    alone = step_line(said(SingleTask("task1", strategy.optimiser), ("task1",))).values
    assert alone.tolist() == [line.values[1]] * 2


def test_without_momentum_or_decay_the_lines_are_the_textbooks():
    sgd = Optimiser("SGD", lr=0.1)
    np.testing.assert_allclose(step_line(said(Averaged(sgd))).values, [20, 20, 20, 20 / 3])
    np.testing.assert_allclose(step_line(said(Averaged(sgd, Mean()))).values, [20] * 4)
    np.testing.assert_allclose(step_line(said(Independent(sgd))).values, [20, 20, 20, np.nan])
    climbing = step_line(said(Averaged(Optimiser("SGD", lr=0.1, maximize=True))))
    assert np.isnan(climbing.values).all()
    assert "it climbs" in climbing.words


KEPT = 1 - 1e-15
"""A second decay with which second moments stay as they are."""
FROZEN = [
    ("Adam", {"betas": (0.5, KEPT)}),
    ("Adam", {"betas": (0.0, KEPT), "amsgrad": True}),
    ("AdamW", {"betas": (0.8, KEPT), "weight_decay": 3.0}),
    ("Adam", {"betas": (0.8, KEPT), "weight_decay": 3.0, "decoupled_weight_decay": True}),
    ("NAdam", {"betas": (0.7, KEPT)}),
    ("RMSprop", {"alpha": 1.0}),
    ("RMSprop", {"alpha": 1.0, "momentum": 0.6, "centered": True}),
    ("Adagrad", {}),
]


@pytest.mark.parametrize(("name", "settings"), FROZEN, ids=str)
def test_preconditioned_lines_are_where_steps_diverge_with_the_preconditioner_held(name, settings):
    optimiser = Optimiser(name, lr=0.02, **settings)
    line = step_line(said(Averaged(optimiser), ("t0",)), preconditioned=True).values[0]
    for factor, far in ((0.97, False), (1.03, True)):
        assert grows(optimiser, line * factor) == far


def grows(optimiser, curvature, p=4.0, count=1):
    """Whether torch's own steps grow on a quadratic with P^(1/2) H P^(1/2) = `curvature`, P = 1 / sqrt(v) held at p: so
    near the minimum that gradients do not change v, and so late that nothing is corrected for a bias. Several
    optimisers add up what each does from the same place.
    """
    near = 1e-12
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    several = [_held(optimiser, theta, p) for _ in range(count)]
    with torch.no_grad():
        theta.fill_(near)
    furthest = 0.0
    for _ in range(600):
        start = theta.detach().clone()
        theta.grad, moved = curvature / p * start, -(count - 1) * start
        for made in several:
            with torch.no_grad():
                theta.copy_(start)
            made.step()
            moved = moved + theta.detach()
        with torch.no_grad():
            theta.copy_(moved)
        furthest = max(furthest, abs(float(theta.detach())))
    return furthest > 1e3 * near


def _held(optimiser, theta, p):
    """Torch's optimiser whose second moments make the preconditioner p, and are not changed by small gradients."""
    made = optimiser.build([theta])
    theta.grad = torch.zeros_like(theta)
    made.step()
    state = made.state[theta]
    for key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"):
        if key in state:
            state[key].fill_(p**-2)
    if "exp_avg" in state:
        state["step"] = torch.tensor(1e17, dtype=torch.float64)
    return made


@pytest.mark.parametrize(
    "optimiser",
    [
        Optimiser("Adam", lr=0.1, weight_decay=0.1),
        Optimiser("RMSprop", lr=0.1, weight_decay=0.1),
        Optimiser("Adagrad", lr_decay=0.1),
        Optimiser("NAdam", momentum_decay=0.0),
        Optimiser("RAdam"),
        Optimiser("Adamax"),
        Optimiser("SGD"),
    ],
    ids=repr,
)
def test_where_no_preconditioned_line_is_known_none_is_stated(optimiser):
    line = step_line(said(Averaged(optimiser)), preconditioned=True)
    assert np.isnan(line.values).all()
    assert optimiser.name in line.words
    assert line.words.endswith("for which none is known that concerns the preconditioned Hessian.")
