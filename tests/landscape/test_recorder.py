"""Recording a loop of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import AtSteps, Averaged, Every, LandscapeError, Optimiser, Plan, Recorder, record
from landscape.workspace import Batches
from tests.landscape.examples import Net, everything, fingerprint, made, problem, squared

RATE, STEPS, SIZE = 0.02, 9, 6


def middle() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(5))


def test_a_plain_loop_records_what_averaged_training_records(tmp_path: Path) -> None:
    found = problem(middle=middle)
    ours = record(found, Averaged(Optimiser("SGD", lr=RATE)), Plan(STEPS, SIZE, Every(2)), tmp_path / "ours.h5")
    module, batches = found.model, Batches(found, SIZE, 0)
    own = torch.optim.SGD(module.parameters(), lr=RATE)
    module.train()
    with Recorder(found, tmp_path / "own.h5", Every(2), label="own", seed=4, rate=RATE) as recorder:
        for step in range(STEPS):
            batch = batches[step]
            predictions = module(batch.inputs).values()
            losses = torch.stack([squared(p, y).mean() for p, y in zip(predictions, batch.targets, strict=True)])
            own.zero_grad()
            losses.sum().backward()
            own.step()
            recorder.step(losses)
    there = landscape.open(tmp_path / "own.h5")
    assert there.complete
    assert (there.name, there.provenance.rate) == ("own-4", RATE)
    assert there.steps.tolist() == ours.steps.tolist() == [0, 2, 4, 6, 8, 9]
    assert there.layout == ours.layout
    assert there.updates.tolist() == ours.updates.tolist()
    assert there.gradients.tolist() == ours.gradients.tolist()
    # The same float32 operations; a hundred roundings at most between the two ways of calling the module.
    for key in ("losses", "path_steps", "path_updates"):
        assert np.allclose(getattr(there, key), getattr(ours, key), rtol=1e-5)
    assert np.allclose(there.theta[:], ours.theta[:], atol=1e-5)
    assert np.allclose(there.buffers[:], ours.buffers[:], atol=1e-5)
    for key, value in vars(there.history).items():
        assert np.allclose(value, getattr(ours.history, key), rtol=1e-4)
    assert there.theta[-1].tobytes() == found.read(module)[0].numpy().tobytes()


def test_updates_inside_a_step_are_counted_and_measured(tmp_path: Path) -> None:
    found = problem(dtype=torch.float64)
    shared = [p for name, p in found.model.named_parameters() if name.startswith("trunk")]
    count = sum(p.numel() for p in shared)

    def move(by: float) -> None:
        with torch.no_grad():
            for parameter in shared:
                parameter.add_(by)

    with Recorder(found, tmp_path / "a.h5", Every(1)) as recorder:
        for _ in range(3):  # there and half of the way back
            move(1.0)
            recorder.update()
            move(-0.5)
            recorder.update(gradients=4)
            recorder.step()
        move(2.0)
        recorder.step()
    there = landscape.open(tmp_path / "a.h5")
    assert there.updates.tolist() == [0, 2, 4, 6, 7]
    assert there.gradients.tolist() == [0, 5, 10, 15, 16]
    unit = np.sqrt(count)
    # Additions of halves to float64 numbers of order one: errors of 1e-16 in each of 25 entries.
    assert np.allclose(there.path_steps, unit * np.array([0, 0.5, 1, 1.5, 3.5]), rtol=1e-12)
    assert np.allclose(there.path_updates, unit * np.array([0, 1.5, 3, 4.5, 6.5]), rtol=1e-12)
    assert np.allclose(there.history.shared_path, unit * np.array([1.5, 1.5, 1.5, 2]), rtol=1e-12)
    assert np.isnan(there.history.losses).all()


def test_heads_do_not_lengthen_the_path(tmp_path: Path) -> None:
    found = problem()
    with Recorder(found, tmp_path / "a.h5") as recorder:
        with torch.no_grad():
            for head in found.model.heads:
                head.weight += 1
        recorder.step()
    there = landscape.open(tmp_path / "a.h5")
    assert there.path_steps.tolist() == [0, 0]
    assert (there.theta[1] != there.theta[0]).sum() == 5 + 10 + 15


def test_the_first_and_the_last_state_are_stored_once(tmp_path: Path) -> None:
    for number, (when, steps) in enumerate([(AtSteps([]), [0, 5]), (Every(5), [0, 5]), (Every(2), [0, 2, 4, 5])]):
        path = tmp_path / f"{number}.h5"
        with Recorder(problem(), path, when) as recorder:
            for _ in range(5):
                recorder.step()
        there = landscape.open(path)
        assert there.steps.tolist() == steps
        assert there.history.step.tolist() == [1, 2, 3, 4, 5]
    with Recorder(problem(), tmp_path / "none.h5"):
        pass
    assert landscape.open(tmp_path / "none.h5").steps.tolist() == [0]


def test_an_exception_leaves_a_file_that_can_be_read_and_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    def loop() -> None:
        with Recorder(problem(), path, Every(2)) as recorder:
            for step in range(9):
                recorder.step()
                if step == 4:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    there = landscape.open(path)
    assert there.steps.tolist() == [0, 2, 4]
    assert not there.complete
    assert os.listdir(tmp_path) == ["a.h5"]


def test_recording_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    found = problem(middle=lambda: nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5)))
    found.model.train()
    found.model.trunk[2][1].eval()
    found.model.heads[0].weight.grad = torch.ones(1, 5)
    before = fingerprint(found.model)
    with Recorder(found, tmp_path / "a.h5", Every(1)) as recorder:
        for _ in range(3):
            recorder.step(torch.ones(3, requires_grad=True))
    assert fingerprint(found.model) == before


def test_another_module_of_the_same_architecture_can_be_recorded(tmp_path: Path) -> None:
    found, other = problem(), made(Net, seed=9)
    with Recorder(found, tmp_path / "a.h5", model=other) as recorder:
        recorder.step()
    there = landscape.open(tmp_path / "a.h5")
    assert there.theta[0].tobytes() == torch.cat([p.detach().reshape(-1) for p in other.parameters()]).numpy().tobytes()
    expected = found.evaluate(torch.tensor(there.theta[0])).losses.numpy()
    assert there.losses[0].tobytes() == expected.tobytes()


def test_a_model_of_another_architecture_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    message = r"the model has other trainable parameters than the problem: expected 8 \(.*\), got 2; give the module"
    with pytest.raises(LandscapeError, match=message), Recorder(problem(), tmp_path / "a.h5", model=nn.Linear(2, 2)):
        pass
    wider = made(lambda: Net(width=7))
    shape = r"trunk\.0\.weight has the shape \[7, 4\], not \[5, 4\]"
    with pytest.raises(LandscapeError, match=shape), Recorder(problem(), tmp_path / "b.h5", model=wider):
        pass
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with Recorder(problem(), path) as recorder:
        recorder.step()
    before = everything(landscape.open(path))
    message = r"a\.h5 exists already: expected a new file; choose another name or remove it"
    with pytest.raises(LandscapeError, match=message), Recorder(problem(), path):
        pass
    assert everything(landscape.open(path)) == before


def test_losses_of_another_shape_are_refused(tmp_path: Path) -> None:
    with Recorder(problem(), tmp_path / "a.h5") as recorder:
        with pytest.raises(LandscapeError, match=r"expected one loss for each of the 3 tasks, got shape \[\]"):
            recorder.step(torch.ones(()))
        recorder.step(torch.ones(3))
    assert landscape.open(tmp_path / "a.h5").steps.tolist() == [0, 1]


def test_a_finished_recording_is_not_taken_for_a_run_of_our_own(tmp_path: Path) -> None:
    with Recorder(problem(), tmp_path / "a.h5") as recorder:
        recorder.step()
    with pytest.raises(LandscapeError, match="holds a run with strategy recorded, expected Averaged"):
        record(problem(), Averaged(), Plan(2, 6), tmp_path / "a.h5")
