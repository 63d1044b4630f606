"""Runs: what they count, that they repeat themselves byte for byte, and go on where they were interrupted."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape
from landscape import (
    AdaTask,
    Alternating,
    AtSteps,
    Averaged,
    Every,
    Grouped,
    Independent,
    LandscapeError,
    LogSpaced,
    Optimiser,
    Plan,
    Problem,
    Task,
    TrainingDiverged,
    record,
    train,
)
from landscape.strategies import NextBatch, Shuffled, Size, Strategy
from tests.landscape.examples import Net, data, everything, made, problem, squared, tasks, untouched

ADAM = Optimiser("Adam", lr=0.02)


class Moving(nn.Module):
    """Keeps an average by assigning to a buffer, and counts by writing into one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(5))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.average = 0.9 * self.average + 0.1 * inputs.detach().mean(0)
            self.calls += 1
        return inputs + self.average


def awkward() -> Problem:
    """Dropout, batch norm, and a buffer that is assigned to."""
    return problem(middle=lambda: nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(5), Moving()))


STRATEGIES: dict[str, Strategy] = {
    "averaged": Averaged(ADAM),
    "alternating": Alternating(ADAM, order=Shuffled()),
    "independent": Independent(ADAM, batches=NextBatch()),
    "adatask": AdaTask(ADAM),
    "grouped": Grouped(Size(2), ADAM, redraw=2, order=Shuffled()),
}


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param]


# What is counted


def test_path_lengths_are_those_of_the_snapshots_of_every_step(strategy: Strategy) -> None:
    found = problem(dtype=torch.float64)
    snapshots = list(train(found, strategy, Plan(40, 6, Every(1))))
    shared = np.stack([s.theta for s in snapshots])[:, found.layout.index()]
    lengths = np.sqrt((np.diff(shared, axis=0) ** 2).sum(1))
    # Sums of some 40 float64 numbers, of one sign.
    assert np.allclose([s.path_steps for s in snapshots], np.concatenate([[0], lengths.cumsum()]), rtol=1e-13)
    recorded = np.concatenate([s.history.shared_update_norm for s in snapshots])
    assert np.allclose(recorded, lengths, rtol=1e-13)
    finer = np.concatenate([s.history.shared_path for s in snapshots])
    assert (finer >= recorded * (1 - 1e-12)).all()  # a polygon is no shorter than its chord, but for rounding
    assert np.allclose([s.path_updates for s in snapshots], np.concatenate([[0], finer.cumsum()]), rtol=1e-13)


def test_the_finer_path_is_longer_where_a_step_has_several_updates() -> None:
    found = problem()
    for strategy in STRATEGIES.values():
        *_, last = train(found, strategy, Plan(10, 6))
        if strategy.states(3) > 1 and not isinstance(strategy, AdaTask):
            assert last.path_updates > 1.05 * last.path_steps
    for strategy in (Averaged(ADAM), AdaTask(ADAM)):
        *_, last = train(found, strategy, Plan(10, 6))
        assert last.path_updates == last.path_steps


def test_path_lengths_do_not_depend_on_the_schedule(strategy: Strategy) -> None:
    found = problem()
    ends = [list(train(found, strategy, Plan(60, 6, when)))[-1] for when in (Every(1), Every(7), AtSteps([]))]
    assert len({(s.path_steps, s.path_updates, s.updates, s.gradients, s.theta.tobytes()) for s in ends}) == 1


def test_the_first_and_the_last_step_are_always_there() -> None:
    def steps(when: Any) -> list[int]:
        return [s.step for s in train(problem(), Averaged(ADAM), Plan(30, 6, when))]

    assert steps(AtSteps([])) == [0, 30]
    assert steps(Every(1000)) == [0, 30]
    assert steps(Every(10)) == [0, 10, 20, 30]
    assert steps(LogSpaced(2)) == [0, 1, 3, 10, 30]


def test_the_history_has_every_step_once_whatever_the_schedule(strategy: Strategy) -> None:
    found = problem()
    every, few = (list(train(found, strategy, Plan(60, 6, when))) for when in (Every(1), AtSteps([3, 59])))
    for key in ("step", "losses", "shared_update_norm", "shared_path"):
        fine = np.concatenate([getattr(s.history, key) for s in every])
        coarse = np.concatenate([getattr(s.history, key) for s in few])
        assert fine.tobytes() == coarse.tobytes()
    assert np.concatenate([s.history.step for s in few]).tolist() == list(range(1, 61))
    assert [len(s.history) for s in few] == [0, 3, 56, 1]


def test_training_losses_are_taken_where_the_gradient_was() -> None:
    # One batch is the whole set, and nothing is random: the loss of a step is the evaluation at the theta before it.
    points = data()
    found = Problem(made(Net, dtype=torch.float64), tasks(), points, points)
    snapshots = list(train(found, Averaged(ADAM), Plan(5, 23, Every(1))))
    for before, after in itertools.pairwise(snapshots):
        # Another order of 23 examples in a float64 mean.
        assert np.allclose(after.history.losses[0], before.losses, rtol=1e-13)


def test_an_evaluation_at_a_snapshot_is_that_of_its_theta_and_buffers() -> None:
    found = awkward()
    *_, last = train(found, Independent(ADAM), Plan(5, 6))
    module = found.module(torch.tensor(last.theta), torch.tensor(last.buffers)).eval()
    predictions = module(found.evaluation.inputs)
    pairs = zip(predictions.values(), found.evaluation.targets, strict=True)
    expected = torch.stack([squared(p, y).double().mean() for p, y in pairs]).detach().numpy()
    # Float32 forward passes of other batch sizes.
    assert np.allclose(last.losses, expected, rtol=1e-5)


def test_buffers_follow_a_plain_training_loop() -> None:
    found = problem(middle=lambda: nn.Sequential(nn.BatchNorm1d(5), Moving()), dtype=torch.float64)
    *_, last = train(found, Averaged(Optimiser("SGD", lr=0.01)), Plan(7, 6))
    module = found.module(*found.initial(0)).train()
    own = torch.optim.SGD(module.parameters(), lr=0.01)
    batches = landscape.workspace.Batches(found, 6, 0)
    for number in range(7):
        own.zero_grad()
        predictions = module(batches[number].inputs)
        sum(squared(p, y).mean() for p, y in zip(predictions.values(), batches[number].targets, strict=True)).backward()
        own.step()
    theta, buffers = found.read(module)
    # The same float64 operations.
    assert np.allclose(last.theta, theta.numpy(), rtol=0, atol=1e-13)
    assert np.allclose(last.buffers, buffers.numpy(), rtol=0, atol=1e-13)
    assert {7.0} <= set(last.buffers)  # both counters


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    ends = [list(train(problem(), Averaged(ADAM), Plan(5, size)))[-1].theta for size in (23, 24, 1000)]
    assert ends[0].tobytes() == ends[1].tobytes() == ends[2].tobytes()


@pytest.mark.parametrize("steps", [0, -3])
def test_a_plan_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(LandscapeError, match=f"expected 1 or more steps, got {steps}"):
        Plan(steps)


# Same command, same bytes


def test_the_same_command_gives_the_same_bytes(strategy: Strategy, tmp_path: Path) -> None:
    first, again, other = (
        record(awkward(), strategy, Plan(12, 6, Every(4)), tmp_path / f"{number}.h5", seed=seed)
        for number, seed in enumerate((3, 3, 4))
    )
    assert everything(first) == everything(again)
    assert everything(first)["theta"] != everything(other)["theta"]


def test_the_state_of_global_generators_does_not_matter() -> None:
    def ends() -> bytes:
        return list(train(awkward(), Independent(ADAM), Plan(5, 6)))[-1].theta.tobytes()

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = ends()
        torch.manual_seed(2)
        assert ends() == first


def test_dropout_draws_anew_in_every_sub_step_and_for_every_seed() -> None:
    masks: list[bytes] = []

    class Listening(nn.Dropout):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(inputs)
            if self.training:
                masks.append((outputs == 0).numpy().tobytes())
            return outputs

    found = problem(middle=lambda: Listening(0.5))
    masks.clear()
    for seed in (0, 1, 0):
        list(train(found, Independent(ADAM), Plan(4, 6), seed))
    assert len(masks) == 3 * 12  # three sub-steps a step, of 30 bits each, so no two are alike by chance
    assert len(set(masks)) == 24
    assert masks[:12] == masks[24:]


def test_training_leaves_the_module_as_it_was(strategy: Strategy) -> None:
    found = awkward()
    with untouched(found.model):
        for _ in train(found, strategy, Plan(5, 6, Every(2))):
            pass


def test_snapshots_do_not_change_as_training_goes_on(strategy: Strategy) -> None:
    kept = []
    for snapshot in train(awkward(), strategy, Plan(6, 6, Every(2))):
        kept.append((snapshot, snapshot.theta.tobytes(), snapshot.buffers.tobytes(), snapshot.state))
    for snapshot, *then in kept:
        assert [snapshot.theta.tobytes(), snapshot.buffers.tobytes(), snapshot.state] == then
    assert len({theta for _, theta, _, _ in kept}) == 4


# Going on


class Interrupted(BaseException):
    """As Ctrl-C: no Exception."""


def stop_after(step: int) -> Callable[[int], None]:
    def progress(at: int) -> None:
        if at == step:
            raise Interrupted

    return progress


def test_a_run_interrupted_at_any_snapshot_ends_with_the_same_bytes(strategy: Strategy, tmp_path: Path) -> None:
    found, plan = awkward(), Plan(5, 6, Every(2))
    expected = record(found, strategy, plan, tmp_path / "whole.h5", seed=5)
    for step in (0, 2, 4, 5):
        path = tmp_path / f"{step}.h5"
        with untouched(found.model), pytest.raises(Interrupted):
            record(found, strategy, plan, path, seed=5, progress=stop_after(step))
        there = landscape.open(path)
        assert not there.complete
        assert there.steps[-1] == step
        told: list[int] = []
        resumed = record(awkward(), strategy, plan, path, seed=5, progress=told.append)
        assert everything(resumed) == everything(expected)
        assert resumed.complete
        assert told == [s for s in (2, 4, 5) if s > step]
        assert (np.diff(resumed.seconds) > 0).all()


def test_a_run_interrupted_inside_a_step_goes_on_from_the_snapshot_before(tmp_path: Path) -> None:
    calls = 0

    class Stops(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            nonlocal calls
            if self.training:
                calls += 1
                if calls == 20:
                    raise Interrupted
            return inputs

    def build() -> Problem:
        return problem(middle=lambda: nn.Sequential(nn.Dropout(0.3), Stops()))

    found, plan, path = build(), Plan(9, 6, Every(2)), tmp_path / "run.h5"
    calls = 0
    with untouched(found.model), pytest.raises(Interrupted):
        record(found, Independent(ADAM), plan, path)
    assert landscape.open(path).steps.tolist() == [0, 2, 4, 6]
    resumed = record(build(), Independent(ADAM), plan, path)
    assert everything(resumed) == everything(record(build(), Independent(ADAM), plan, tmp_path / "whole.h5"))


@pytest.mark.parametrize("name", ["SGD", "NAdam", "ASGD", "Adafactor", "Rprop"])
def test_a_run_with_any_optimiser_goes_on_exactly(name: str, tmp_path: Path) -> None:
    found, plan, choice = problem(dtype=torch.float64), Plan(8, 6, Every(3)), Optimiser(name, lr=0.01)
    with pytest.raises(Interrupted):
        record(found, Independent(choice), plan, tmp_path / "a.h5", progress=stop_after(3))
    resumed = record(found, Independent(choice), plan, tmp_path / "a.h5")
    assert everything(resumed) == everything(record(found, Independent(choice), plan, tmp_path / "b.h5"))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    first = record(problem(), Averaged(ADAM), Plan(4, 6), path)
    content = path.read_bytes()
    again = record(problem(), Averaged(ADAM), Plan(4, 6), path, progress=stop_after(4))
    assert path.read_bytes() == content
    assert everything(first) == everything(again)


# Divergence


@pytest.mark.parametrize("when", [Every(1), Every(1000), Every(26)])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(when: Every, tmp_path: Path) -> None:
    # Constant gradients: with plain steps of 1 on L = -x, x is the number of the step.
    class Count(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: Tensor) -> list[Tensor]:
            return [self.x.expand(len(inputs), 1)] * 2

    def limited(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.where(prediction[:, 0] < 29.5, -prediction[:, 0], torch.nan)

    points = data(8, 2)
    found = Problem(Count(), [Task("red", lambda p, _: 0 * p[:, 0]), Task("green", limited)], points, points)
    path = tmp_path / "run.h5"
    with pytest.raises(
        TrainingDiverged, match=r"training loss of task 'green' became nan at step 31; the snapshots"
    ) as e:
        record(found, Averaged(Optimiser("SGD", lr=1.0)), Plan(60, 8, when), path)
    assert (e.value.step, e.value.task) == (31, "green")
    there = landscape.open(path)
    assert there.steps.tolist() == {1: list(range(31)), 1000: [0], 26: [0, 26]}[when.steps]
    assert not there.complete
    assert there.theta[:, 0].tolist() == there.steps.tolist()


def test_a_divergence_survives_pickling() -> None:
    error = TrainingDiverged(7, "depth", float("inf"))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.step, copy.task, copy.value, str(copy)) == (7, "depth", float("inf"), str(error))
    assert isinstance(copy, LandscapeError)


# Provenance


def test_a_trajectory_says_how_it_was_made(tmp_path: Path) -> None:
    found, strategy = problem(), Independent(ADAM, order=Shuffled())
    who = record(found, strategy, Plan(4, 6, Every(2)), tmp_path / "run.h5", seed=8, label="mine").provenance
    assert who.strategy == repr(strategy)
    assert (who.label, who.seed, who.rate, who.tasks) == ("mine", 8, 0.02, ("red", "green", "blue"))
    assert who.training == {"steps": 4, "batch_size": 6, "when": "Every(steps=2)"}
    assert (who.data, who.frozen) == (found.data_hash, found.frozen_hash)
    assert who.versions["torch"] == torch.__version__


class Fails:
    """A loss that raises at its n-th call in training."""

    def __init__(self, error: BaseException, call: int) -> None:
        self.error, self.left = error, call

    def __call__(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if prediction.requires_grad and torch.is_grad_enabled():
            self.left -= 1
            if self.left < 0:
                raise self.error
        return squared(prediction, target)


def failing(error: BaseException, call: int) -> Any:
    loss = Fails(error, 10**9)
    found = problem(2, loss=loss)
    loss.left = call
    return found


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("the sizes\ndo not fit"), r"RuntimeError at .*test_training\.py:\d+ \(the sizes do not fit\)"),
        (KeyError(), r"KeyError at .*test_training\.py:\d+ \(without a text\)"),
    ],
)
def test_an_error_of_the_users_loss_names_type_text_step_and_line(error: Exception, text: str, tmp_path: Path) -> None:
    found, path = failing(error, 2 * 3), tmp_path / "run.h5"  # two tasks a step: the fourth step fails
    with pytest.raises(LandscapeError, match=rf"^training at step 4 failed with {text}: expected the model") as caught:
        record(found, Averaged(), Plan(9, 5, Every(2)), path)
    assert caught.value.__cause__ is error
    assert landscape.open(path).steps.tolist() == [0, 2], "what was recorded before is kept"


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError("x"), OutOfMemoryError("CUDA")])
def test_interruptions_and_too_little_memory_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        list(train(failing(error, 1), Averaged(), Plan(3, 5)))
    assert caught.value is error


def test_an_error_of_the_backward_pass_names_the_step() -> None:
    def in_place(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wave = prediction.exp()
        value = (wave * wave).sum(1)
        if len(prediction) == 5 and torch.is_grad_enabled():
            wave.add_(1.0)
        return value

    with pytest.raises(
        LandscapeError, match=r"^training at step 1 failed with RuntimeError at .* \(.*inplace operation"
    ):
        list(train(problem(1, loss=in_place), Averaged(), Plan(3, 5)))
