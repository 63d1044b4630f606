"""Alternating steps along recorded runs: what a run states of itself, going on, stored moments, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import landscape
from analysis import alternation, archive, examples, task_losses
from analysis.alternation import Trial, usual_trial, work
from analysis.passes import NoOrders
from analysis.preconditioners import Plain, SquaredGradients, StoredMoments
from analysis.stated import stated
from landscape import Averaged, Every, Independent, Optimiser, Plan
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from landscape.strategies import Alternating, Fixed, Mean
from landscape.workspace import Batches, Workspace
from tests.analysis import cases

SGD = Optimiser("SGD", lr=0.05)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(task_losses, "BLOCKS", 3)


def recorded(tmp_path, strategy, problem=None, steps=4):
    problem = problem or cases.make()
    path = tmp_path / "run.h5"
    return problem, landscape.record(problem, strategy, Plan(steps, 6, Every(1)), path)


def last(problem, run, rows, trial=None, **words):
    *_, found = alternation.along(problem, run, rows, trial, **words)
    return found


def test_the_steps_compared_are_by_default_the_runs_own(tmp_path):
    _, run = recorded(tmp_path, Independent(SGD, Fixed(1, 0)))
    assert usual_trial(run) == Trial(0.05, (1, 0))
    who = run.provenance
    mean = replace(run, provenance=replace(who, strategy=repr(Averaged(SGD, Mean()))))
    assert usual_trial(mean) == Trial(0.025), "a step on the mean of two losses is one on their sum at half the rate"
    mine = replace(run, provenance=replace(who, strategy="my loop", rate=float("nan")))
    with pytest.raises(LandscapeError, match=r"states no learning rate above 0, got nan: give one, as --rate 1e-3"):
        usual_trial(mine)


def test_a_strategy_is_read_and_never_run():
    found = stated("Grouped(optimiser=AdamW(betas=(0.8, 0.99), lr=0.001), order=Fixed(1, 0), reduction=Sum())")
    assert (found.name, found.optimiser) == ("Grouped", "AdamW")
    assert (
        found.settings.items() >= {"betas": (0.8, 0.99), "lr": 0.001, "weight_decay": 0.01}.items()
    )  # torch's default
    assert found.order == (), "an order of groups is none of tasks"
    for text in ("my loop, lr 0.1", "", "__import__('os').getcwd()", "Independent(optimiser=exec('1'))", "(" * 2000):
        assert stated(text).settings == {}


def test_steps_taken_are_those_of_the_strategies(tmp_path):
    """A pass over the whole data as one batch, by the strategies' own code, from the same snapshot."""
    problem = cases.make()
    theta, buffers = problem.initial(0)
    trial = Trial(0.05, rungs=1, orders=NoOrders())
    ours = alternation.at(problem, theta.numpy(), buffers.numpy(), trial).measured[0, 0]
    ends = []
    for strategy in (Alternating(SGD), Averaged(SGD)):
        *_, end = landscape.training.train(problem, strategy, Plan(1, 13, Every(1)))
        ends.append(np.append(end.losses, end.losses.mean()))
    # Without dropout or batch norm training and evaluation mode agree; losses of about one in double precision.
    np.testing.assert_allclose(ours, ends[0] - ends[1], rtol=1e-8, atol=1e-15)


def test_along_a_run_every_snapshot_is_that_of_one_alone(tmp_path):
    problem, run = recorded(tmp_path, Independent(SGD))
    told = []
    trial = usual_trial(run)
    found = last(problem, run, [0, -1], told=told.append)
    alone = alternation.at(problem, run.theta[-1], run.buffers[-1], trial)
    np.testing.assert_array_equal(found.steps, [0, 4])
    for name in ("curvature", "predicted", "measured", "predicted_stderr", "agreement", "measured_mean"):
        np.testing.assert_array_equal(getattr(found, name)[1], getattr(alone, name)[0])
    np.testing.assert_allclose(found.loss[:, :2], run.losses[[0, -1]], rtol=1e-12)
    assert sum(told) == 2 * work(2, 13, trial).counted
    assert found.done.all()


def test_what_was_interrupted_is_gone_on_with_to_the_same_bytes(tmp_path):
    problem, run = recorded(tmp_path, Independent(SGD))
    whole = last(problem, run, [0, 2, 4])
    first = next(alternation.along(problem, run, [0, 2, 4]))
    assert first.done.tolist() == [True, False, False]
    assert np.isnan(first.predicted[1:]).all()
    assert set(first.verdicts[1:].ravel()) == {"undecided"}
    told = []
    assert last(problem, run, [0, 2, 4], before=first, told=told.append) == whole
    assert sum(told) == 2 * work(2, 13, usual_trial(run)).counted
    assert last(problem, run, [0, 2, 4], before=whole) == whole
    with pytest.raises(LandscapeError, match=r"the record to go on with has another rates: expected the same run"):
        last(problem, run, [0, 2, 4], Trial(0.1), before=first)
    archive.save(tmp_path / "results.h5", {"alternation/run": archive.Entry(whole)})
    assert archive.load(tmp_path / "results.h5", "alternation/run").record == whole


@pytest.mark.parametrize("strategy", [Independent, Alternating, Averaged])
@pytest.mark.parametrize(
    ("name", "settings"),
    [("Adam", {}), ("Adam", {"amsgrad": True}), ("RMSprop", {}), ("RMSprop", {"centered": True})],
    ids=str,
)
def test_stored_moments_are_those_of_the_runs_own_optimisers(tmp_path, strategy, name, settings):
    optimiser = Optimiser(name, lr=1e-2, **settings)
    problem, run = recorded(tmp_path, strategy(optimiser))
    states = strategy(optimiser).states(2)
    snapshot = list(landscape.training.train(problem, strategy(optimiser), Plan(4, 6, Every(1))))[-1]
    space = Workspace(problem, optimiser, states, Batches(problem, 6, 0), snapshot)
    seen = []

    class Spy(StoredMoments):
        def diagonals(self, ground):
            seen.append(super().diagonals(ground))
            return seen[-1]

    last(problem, run, [-1], Trial(1e-2, preconditioner=Spy(), rungs=1, orders=NoOrders()))
    (found,) = seen
    for task in (0, 1):
        for which, parameters in (
            (space.optimisers[task if states > 1 else 0], space.shared),
            (space.optimisers[-1], space.heads[task]),
        ):
            for parameter in parameters:
                state = which.state[parameter]
                if name == "Adam":
                    moment = state["max_exp_avg_sq" if settings else "exp_avg_sq"] / (1 - 0.999 ** float(state["step"]))
                else:
                    moment = state["square_avg"] - (state["grad_avg"] ** 2 if settings else 0.0)
                slot = next(s for s in problem.layout.slots if space.parameters[s.name] is parameter)
                expected = torch.where(moment > 0, 1 / (moment.sqrt() + 1e-8), 0.0)
                torch.testing.assert_close(found[task, slot.span], expected.reshape(-1), rtol=1e-12, atol=0)


def test_moments_that_are_not_there_are_said_to_be_missing(tmp_path):
    problem, run = recorded(tmp_path, Independent(Optimiser("Adam")))
    trial = Trial(1e-3, preconditioner=StoredMoments())
    with pytest.raises(
        LandscapeError, match=r"keeps no optimiser state of step 1: expected the last snapshot, at step 4"
    ):
        last(problem, run, [1], trial)
    with pytest.raises(LandscapeError, match="belong to a run: expected a trajectory"):
        alternation.at(problem, run.theta[-1], run.buffers[-1], trial)
    (tmp_path / "other").mkdir()
    problem, run = recorded(tmp_path / "other", Independent(SGD))
    with pytest.raises(LandscapeError, match=r"keeps no second moments: expected a run with Adam.*got 'SGD'"):
        last(problem, run, [-1], trial)


def test_squared_gradients_leave_out_what_a_task_does_not_reach():
    problem = cases.make("shallow task")
    theta, buffers = problem.initial(0)
    for preconditioner in (Plain(), SquaredGradients()):
        trial = Trial(1e-3, preconditioner=preconditioner, rungs=4, orders=NoOrders())
        found = alternation.at(problem, theta.numpy(), buffers.numpy(), trial)
        np.testing.assert_allclose(found.extrapolated * trial.rate**2, found.predicted, rtol=1e-3)


def test_training_examples_can_be_used_instead(tmp_path):
    problem, run = recorded(tmp_path, Independent(SGD))
    drawn = examples.training(problem, 7)
    found = last(problem, run, [2], examples=drawn)
    assert (found.split, found.examples, found.data) == ("training", 7, drawn.hash)


def test_one_example_has_no_error():
    found = alternation.at(cases.make(examples=16), *start(), Trial(0.1, rungs=1, orders=NoOrders()), one_example())
    assert np.isnan(found.predicted_stderr).all()
    assert np.isnan(found.measured_stderr).all()
    assert np.isfinite(found.measured).all()
    assert set(found.verdicts.ravel()) == {"undecided"}
    assert np.isnan(found.quantile)


def start():
    theta, buffers = cases.make().initial(0)
    return theta.numpy(), buffers.numpy()


def one_example():
    batch = cases.make().evaluation[:1]
    return examples.Examples(batch, batch.hash(), "evaluation")


class Root(torch.nn.Module):
    """Two tasks on theta; `kind` spoils the second."""

    def __init__(self, kind):
        super().__init__()
        self.theta, self.kind = torch.nn.Parameter(torch.tensor([0.5, -0.0])), kind

    def forward(self, inputs):
        rows = self.theta + 0 * inputs
        other = (
            torch.cdist(rows, rows.detach() + 1, p=1)
            if self.kind == "once"
            else (rows - self.theta.detach()).abs() ** 0.25
        )
        return rows, other


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (
            "once",
            r"a second derivative of a loss failed with NotImplementedError at .*_cdist_backward.* is not implemented",
        ),
        (
            "root",
            r"the gradient of task 'b' is not finite on block 0 of 3: expected finite ones; leave this snapshot out",
        ),
    ],
)
def test_losses_that_have_no_such_derivatives_are_named(kind, match):
    data = TensorDataset(torch.zeros(6, 2), torch.zeros(6, 1), torch.zeros(6, 1))
    problem = Problem(Root(kind), [Task(name, lambda p, _: (p * p).sum(1)) for name in ("a", "b")], data, data)
    theta, buffers = problem.initial(0)
    with pytest.raises(LandscapeError, match=match):
        alternation.at(problem, theta.numpy(), buffers.numpy(), Trial(0.1))


def test_a_model_without_shared_parameters_is_refused():
    class Apart(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))

        def forward(self, inputs):
            return inputs * self.a, inputs * self.b

    data = TensorDataset(torch.ones(4, 2), torch.zeros(4, 1), torch.zeros(4, 1))
    problem = Problem(Apart(), [Task(name, lambda p, _: p.sum(1)) for name in ("a", "b")], data, data)
    with pytest.raises(LandscapeError, match="no shared parameters: expected some that several tasks' gradients reach"):
        alternation.at(problem, np.ones(4), np.zeros(0), Trial(0.1))


def test_the_module_and_the_generators_stay_as_they_were():
    problem = cases.make("batch norm", dtype=torch.float32)
    problem.model.train()
    theta, buffers = problem.initial(0)
    before = {name: t.clone() for name, t in problem.model.state_dict().items()}
    drawn = torch.get_rng_state()
    with torch.no_grad():
        one, two = (alternation.at(problem, theta.numpy(), buffers.numpy(), Trial(0.01, rungs=1)) for _ in range(2))
    assert one == two
    assert problem.model.training
    assert problem.dtype == torch.float32
    assert all(torch.equal(t, before[name]) for name, t in problem.model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_attention_that_is_fused_has_products_too():
    class Attends(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.a, self.b = torch.nn.Linear(4, 12), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

        def forward(self, inputs):
            q, k, v = self.mix(inputs).chunk(3, -1)
            seen = torch.nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0].mean(1)
            return self.a(seen), self.b(seen)

    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attends()
    data = TensorDataset(torch.randn(8, 5, 4, generator=rng), *(torch.randn(8, 1, generator=rng) for _ in range(2)))
    problem = Problem(model, [Task(name, cases.squared_error) for name in ("a", "b")], data, data)
    theta, buffers = problem.initial(0)
    found = alternation.at(problem, theta.numpy(), buffers.numpy(), Trial(0.02, rungs=5, orders=NoOrders()))
    np.testing.assert_allclose(found.extrapolated * found.rate**2, found.predicted, rtol=1e-3, atol=1e-12)
