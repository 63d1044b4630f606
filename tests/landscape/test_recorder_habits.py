"""What people do in notebooks and in loops of their own: run a cell again, go on, change the rate, name the step."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import landscape
from landscape import Every, LandscapeError, Overwrite, Problem, Projected, Recorder, Resume
from tests.landscape.examples import Net, data, everything, made, problem, tasks


def move(found: Problem, by: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.add_(by)


def steps(found: Problem, path: Path, count: int, **choices: object) -> landscape.Trajectory:
    with Recorder(found, path, Every(2), **choices) as recorder:
        for _ in range(count):
            move(found)
            recorder.update()
            move(found, -0.5)
            recorder.update(gradients=3)
            recorder.step(torch.ones(3))
    return landscape.open(path)


@pytest.mark.parametrize("keep", [landscape.Whole(), Projected(8, seed=2)])
def test_a_resumed_recording_is_the_one_that_was_never_left(keep: landscape.Whole | Projected, tmp_path: Path) -> None:
    whole = steps(problem(dtype=torch.float64), tmp_path / "whole.h5", 6, keep=keep)
    found = problem(dtype=torch.float64)
    first = steps(found, tmp_path / "parts.h5", 4, keep=keep)
    assert first.complete
    there = steps(found, tmp_path / "parts.h5", 2, keep=keep, existing=Resume())
    assert there.complete
    assert there.steps.tolist() == whole.steps.tolist() == [0, 2, 4, 6]
    assert (there.updates.tolist(), there.gradients.tolist()) == (whole.updates.tolist(), whole.gradients.tolist())
    assert there.history.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert there.provenance.start == whole.provenance.start != ""
    # Sums of the same numbers, begun anew from a float64 in the file.
    np.testing.assert_allclose(there.path_steps, whole.path_steps, rtol=1e-14)
    np.testing.assert_allclose(there.path_updates, whole.path_updates, rtol=1e-14)
    assert (np.diff(there.seconds) > 0).all()
    rows = [run.theta if run.sketch is None else run.sketch.rows for run in (there, whole)]
    assert rows[0][:].tobytes() == rows[1][:].tobytes()


def test_a_recording_is_resumed_from_where_it_ends_only(tmp_path: Path) -> None:
    path, found = tmp_path / "a.h5", problem()
    before = everything(steps(found, path, 2))
    move(found)
    message = r"the model is not where .*a\.h5 ends: expected the state of step 2, got other theta, .* away; load that"
    with pytest.raises(LandscapeError, match=message), Recorder(found, path, Every(2), existing=Resume()):
        pass
    there = landscape.open(path)
    assert there.complete
    assert everything(there) == before
    state = found.module(torch.tensor(there.theta[-1]), torch.tensor(there.buffers[-1])).state_dict()
    found.model.load_state_dict(state)
    assert steps(found, path, 2, existing=Resume()).steps.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"seed": 1}, "holds a run with seed 0, expected 1 to go on with it"),
        ({"label": "other"}, "holds a run with strategy recorded, expected other"),
        ({"keep": Projected(8)}, "holds a run with training"),
    ],
)
def test_another_run_is_not_resumed(choices: dict[str, object], message: str, tmp_path: Path) -> None:
    found = problem()
    before = everything(steps(found, tmp_path / "a.h5", 2))
    with pytest.raises(LandscapeError, match=message):
        steps(found, tmp_path / "a.h5", 1, existing=Resume(), **choices)
    assert everything(landscape.open(tmp_path / "a.h5")) == before


def test_resuming_without_a_file_begins_one(tmp_path: Path) -> None:
    assert steps(problem(), tmp_path / "a.h5", 2, existing=Resume()).steps.tolist() == [0, 2]


def test_overwriting_keeps_the_old_file_until_the_new_one_has_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = tmp_path / "a.h5", problem()
    old = steps(found, path, 4)
    before = everything(old)

    def fails(*_: object) -> None:
        raise LandscapeError("no evaluation today")

    with monkeypatch.context() as patched:
        patched.setattr(Problem, "evaluate", fails)
        with pytest.raises(LandscapeError, match="no evaluation today"):
            steps(found, path, 1, existing=Overwrite())
    assert everything(landscape.open(path)) == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    there = steps(found, path, 2, existing=Overwrite())
    assert there.steps.tolist() == [0, 2]
    assert there.provenance.start != old.provenance.start
    with pytest.raises(LandscapeError, match="holds another run than when it was opened: expected the file to stay"):
        old.theta[0]


def test_a_recorder_that_was_never_closed_does_not_keep_its_file(tmp_path: Path) -> None:
    path, found = tmp_path / "a.h5", problem()
    old = Recorder(found, path, Every(1)).__enter__()
    old.step()
    with pytest.raises(LandscapeError, match=r"exists already: .* existing=landscape\.Overwrite\(\)"):
        Recorder(found, path).__enter__()
    old.step()  # still at work: refusing has taken nothing from it
    with Recorder(found, path, Every(1), existing=Resume()) as recorder:
        recorder.step()
        with pytest.raises(LandscapeError, match=r"the recorder of .*a\.h5 is not open: expected steps inside"):
            old.step()
        assert old.__exit__(None, None, None) is None
        recorder.step()
    assert landscape.open(path).steps.tolist() == [0, 1, 2, 3, 4]
    again = Recorder(found, path, existing=Overwrite()).__enter__()
    path.unlink()
    with Recorder(found, path) as recorder:
        pass
    assert landscape.open(path).complete
    with pytest.raises(LandscapeError, match="is not open"):
        again.update()


def test_steps_have_the_numbers_that_they_are_given(tmp_path: Path) -> None:
    with Recorder(problem(), tmp_path / "a.h5", Every(10)) as recorder:
        stored = [recorder.step(torch.ones(3), step=number) for number in (4, 8, 12, 13, 40)]
        assert not recorder.step()
        with pytest.raises(LandscapeError, match="expected a step number above 41, the last one, got 41"):
            recorder.step(step=41)
    there = landscape.open(tmp_path / "a.h5")
    assert stored == [False, False, True, False, True], "10 and 20 were passed on the way"
    assert there.steps.tolist() == [0, 12, 40, 41]
    assert there.history.step.tolist() == [4, 8, 12, 13, 40, 41]
    assert there.updates.tolist() == [0, 3, 5, 6]


@pytest.mark.parametrize("before", [True, False])
def test_the_rate_of_every_step_is_the_optimiser_s_wherever_a_scheduler_steps(before: bool, tmp_path: Path) -> None:
    found = problem()
    own = torch.optim.SGD(found.model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(own, 0.5)
    with Recorder(found, tmp_path / "a.h5", Every(2), optimizer=own) as recorder:
        for _ in range(4):
            own.step()
            if before:
                schedule.step()
            recorder.step()
            if not before:
                schedule.step()
    there = landscape.open(tmp_path / "a.h5")
    rates = [0.5, 0.25, 0.125, 0.0625]
    assert there.history.rate.tolist() == rates
    assert there.provenance.rate == 0.5
    assert there.rates == (0.0625, 0.5)
    assert there.movement.tolist() == [0, 0.75, 0.9375], "sums of rates, exact in binary"
    assert len(own._optimizer_step_post_hooks) == 0


def test_rates_are_given_or_constant_or_not_known(tmp_path: Path) -> None:
    found = problem()
    with Recorder(found, tmp_path / "a.h5", Every(2), rate=0.5) as recorder:
        recorder.step()
        recorder.step(rate=0.25)
        with pytest.raises(LandscapeError, match="expected a learning rate of 0 or more, got -1"):
            recorder.step(rate=-1)
    there = landscape.open(tmp_path / "a.h5")
    assert there.history.rate.tolist() == [0.5, 0.25]
    assert there.movement.tolist() == [0, 0.75]
    with Recorder(found, tmp_path / "b.h5") as recorder:
        recorder.step()
    assert np.isnan(landscape.open(tmp_path / "b.h5").history.rate).all()
    assert np.isnan(landscape.open(tmp_path / "b.h5").movement).all()
    with pytest.raises(LandscapeError, match="expected an optimizer with param_groups, got float"):
        Recorder(found, tmp_path / "c.h5", optimizer=0.1)


def test_groups_of_several_rates_have_that_of_the_shared_parameters_or_none(tmp_path: Path) -> None:
    found = problem()
    trunk, heads = found.model.trunk.parameters(), found.model.heads.parameters()
    own = torch.optim.SGD([{"params": trunk, "lr": 0.5}, {"params": heads, "lr": 0.1}], lr=1.0)
    layers = [{"params": [p], "lr": 0.1 * k} for k, p in enumerate(found.model.parameters(), 1)]
    for name, optimiser, expected in (("a", own, 0.5), ("b", torch.optim.SGD(layers, lr=1.0), np.nan)):
        with Recorder(found, tmp_path / f"{name}.h5", optimizer=optimiser) as recorder:
            optimiser.step()
            recorder.step()
        np.testing.assert_array_equal(landscape.open(tmp_path / f"{name}.h5").history.rate, [expected])


def test_files_of_older_versions_have_no_rates_and_state_no_start(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    new = steps(problem(), path, 2, rate=0.5)
    start = new.start
    with h5py.File(path, "r+", libver="latest") as file:
        del file["history/rate"], file["snapshots/rate_checksum"], file.attrs["start"]
    old = landscape.open(path)
    assert np.isnan(old.history.rate).all()
    assert len(old.history.rate) == 2
    assert old.provenance.start == ""
    assert old.start == start, "computed from theta and buffers"
    assert old.rates == (0.5, 0.5)
    assert old.movement.tolist() == (0.5 * old.updates).tolist()
    found = problem()
    found.model.load_state_dict(found.module(torch.tensor(old.theta[-1])).state_dict())
    assert steps(found, path, 2, rate=0.5, existing=Resume()).steps.tolist() == [0, 2, 4]


def test_a_damaged_rate_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    steps(problem(), path, 4, rate=0.5)
    with h5py.File(path, "r+", libver="latest") as file:
        file["history/rate"][3] = 0.25
    assert landscape.open(path).steps.tolist() == [0, 2]


def test_recording_inside_and_across_inference_mode(tmp_path: Path) -> None:
    found = problem()
    with torch.inference_mode(), Recorder(found, tmp_path / "a.h5", Every(1)) as recorder:
        recorder.step(torch.ones(3))
    with Recorder(found, tmp_path / "b.h5", Every(1)) as recorder:
        with torch.inference_mode():
            recorder.step(torch.ones(3))
        move(found)
        recorder.step(torch.ones(3))
        with torch.no_grad():
            recorder.step()
    there = landscape.open(tmp_path / "b.h5")
    assert landscape.open(tmp_path / "a.h5").losses[1].tobytes() == there.losses[1].tobytes()
    # 25 shared entries moved by one in float32.
    assert there.path_steps == pytest.approx([0, 0, 5, 5], rel=1e-6)


def test_training_data_go_into_a_plain_data_loader() -> None:
    named = [(x, {"red": r, "green": g, "blue": b}) for x, r, g, b in zip(*data().tensors, strict=True)]
    for train in (data(), named):
        found = Problem(made(Net), tasks(), train, data(23, 3, 2))
        batches = list(DataLoader(found.train, batch_size=8))
        expected = found.train.take(np.arange(8, 16))
        inputs, targets = batches[1]
        assert torch.equal(inputs, expected.inputs)
        assert all(torch.equal(mine, its) for mine, its in zip(targets, expected.targets, strict=True))
        assert sum(len(inputs) for inputs, _ in batches) == 23
        assert torch.equal(found.train[-1][0], found.train[22][0])
        with pytest.raises(IndexError, match="example 23 of 23"):
            found.train[23]
    assert isinstance(found.train[0][1], tuple)
    assert isinstance(data(), TensorDataset)


def test_a_seed_has_one_start_in_a_loop_of_one_s_own_and_in_ours(tmp_path: Path) -> None:
    def seeded() -> Net:
        return Net()

    found = Problem(seeded, tasks(), data(), data(23, 3, 2))
    hashes = set()
    for seed in range(3):
        model = found.model_for(seed)
        theta, buffers = found.initial(seed)
        assert torch.equal(found.read(model)[0], theta)
        assert torch.equal(found.read(model)[1], buffers)
        with Recorder(found, tmp_path / f"own-{seed}.h5", seed=seed, model=model) as recorder:
            recorder.step()
        own = landscape.open(tmp_path / f"own-{seed}.h5")
        plan = landscape.Plan(1, 8)
        ours = landscape.record(found, landscape.Averaged(), plan, tmp_path / f"ours-{seed}.h5", seed=seed)
        assert own.start == own.provenance.start == ours.provenance.start
        assert own.theta[0].tobytes() == ours.theta[0].tobytes()
        hashes.add(own.start)
        assert found.model_for(seed) is not model
    assert len(hashes) == 3


def test_a_problem_of_a_module_has_one_start_for_all_seeds() -> None:
    found = problem()
    first, second = found.model_for(0), found.model_for(1)
    assert torch.equal(found.read(first)[0], found.read(second)[0])
    move(found)
    assert not torch.equal(found.read(first)[0], found.read(found.model)[0]), "a copy, with weights of its own"
