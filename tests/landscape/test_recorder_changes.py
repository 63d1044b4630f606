"""Recording a module whose tensors, layers and flags change while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import Every, LandscapeError, Problem, Recorder, Trajectory
from landscape.content import fingerprint
from tests.landscape.examples import Net, data, made, problem, tasks

Change = Callable[[Problem], object]


def loop(found: Problem, path: Path, change: Change, before: int = 1) -> Trajectory:
    """Steps without a change, the change, and one more step."""
    with Recorder(found, path, Every(1)) as recorder:
        for _ in range(before):
            recorder.step()
        change(found)
        recorder.step()
    return landscape.open(path)


def with_frozen_trunk() -> Problem:
    """A problem whose theta is three heads; one bias of the trunk trains, so that something is shared."""
    module = made(Net)
    module.trunk[0].weight.requires_grad_(False)
    return Problem(module, tasks(), data(), data(23, 3, 2))


def distance(one: nn.Module, other: nn.Module) -> float:
    """Between the shared parameters of two nets, in float64."""
    pairs = zip(one.trunk.parameters(), other.trunk.parameters(), strict=True)
    return float(sum(((a.detach().double() - b.detach().double()) ** 2).sum() for a, b in pairs)) ** 0.5


def assigned(found: Problem) -> None:
    found.model.load_state_dict(made(Net, seed=5).state_dict(), assign=True)


def put_into_data(found: Problem) -> None:
    for old, new in zip(found.model.parameters(), made(Net, seed=5).parameters(), strict=True):
        old.data = new.detach().clone()


def layers_replaced(found: Problem) -> None:
    other = made(Net, seed=5)
    found.model.trunk[0] = other.trunk[0]
    found.model.heads = other.heads


def model_replaced(found: Problem) -> None:
    found.model = made(Net, seed=5)


@pytest.mark.parametrize("change", [assigned, put_into_data, layers_replaced, model_replaced])
def test_new_tensors_under_the_old_names_are_read(change: Change, tmp_path: Path) -> None:
    found = problem()
    expected = distance(made(Net), made(Net, seed=5))
    there = loop(found, tmp_path / "a.h5", change)
    # One subtraction of float32 numbers of order one an entry: 1e-7 relative.
    assert there.path_steps == pytest.approx([0, 0, expected], rel=1e-6)
    assert there.path_updates == pytest.approx([0, 0, expected], rel=1e-6)
    assert there.history.shared_update_norm == pytest.approx([0, expected], rel=1e-6)
    assert np.linalg.norm(there.shared[2].astype(np.float64) - there.shared[0]) == pytest.approx(expected, rel=1e-6)
    theta = torch.cat([p.detach().reshape(-1) for p in made(Net, seed=5).parameters()])
    assert there.theta[2].tobytes() == theta.numpy().tobytes()
    assert there.losses[2].tobytes() == problem().evaluate(theta).losses.numpy().tobytes()


def test_updates_inside_a_step_see_new_tensors_too(tmp_path: Path) -> None:
    found = problem()
    expected = distance(made(Net), made(Net, seed=5))
    with Recorder(found, tmp_path / "a.h5", Every(1)) as recorder:
        assigned(found)
        recorder.update()
        found.model.load_state_dict(made(Net).state_dict(), assign=True)
        recorder.update()
        recorder.step()
    there = landscape.open(tmp_path / "a.h5")
    assert there.path_updates[1] == pytest.approx(2 * expected, rel=1e-6)
    assert there.path_steps[1] == 0, "there and back"


def weights_of_norm(found: Problem) -> None:
    nn.utils.parametrizations.weight_norm(found.model.trunk[0])


REFUSED = {
    "unfrozen": (
        lambda found: found.model.trunk.requires_grad_(True),
        r"trunk\.0\.weight trains and is not part of theta; make the problem with everything trainable that will ever "
        r"train",
    ),
    "added": (
        lambda found: found.model.trunk.append(nn.Linear(5, 5)),
        r"trunk\.3\.weight, trunk\.3\.bias train and are not part of theta",
    ),
    "added and frozen": (
        lambda found: found.model.trunk.append(nn.Linear(5, 5).requires_grad_(False)),
        r"trunk\.3\.weight, trunk\.3\.bias changed and are not part of theta; load weights before the problem is made",
    ),
    "removed": (lambda found: setattr(found.model.trunk[0], "bias", None), r"trunk\.0\.bias is not there"),
    "head removed": (lambda found: found.model.heads.pop(2), r"heads\.2\.weight, heads\.2\.bias are not there"),
    "another shape": (
        lambda found: setattr(found.model.trunk, "0", nn.Linear(4, 6)),
        r"trunk\.0\.weight has the shape \[6, 4\], not \[5, 4\]|trunk\.0\.bias has the shape \[6\], not \[5\]",
    ),
    "another type": (
        lambda found: found.model.heads.double(),
        r"heads\.0\.weight is of type torch\.float64, not torch\.float32",
    ),
    "tied": (
        lambda found: setattr(found.model.heads[1], "weight", nn.Parameter(torch.zeros(2, 5))) or tie(found),
        r"heads\.2\.weight is not there",
    ),
    "reparametrised": (
        weights_of_norm,
        r"trunk\.0\.weight is not there \(trunk\.0\.parametrizations\.weight\.original0, .*original1 instead\)",
    ),
    "new buffer": (
        lambda found: found.model.register_buffer("scale", torch.zeros(3)),
        r"the buffer scale is not as before",
    ),
    "frozen and moved": (
        lambda found: found.model.trunk[0].weight.data.mul_(1.01),
        r"trunk\.0\.weight changed and is not part of theta; .* make what moves without a gradient a buffer",
    ),
}


def tie(found: Problem) -> None:
    found.model.heads[2].weight = found.model.heads[1].weight


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_trainable_or_frozen_must_stay_so_and_is_named(kind: str, tmp_path: Path) -> None:
    change, message = REFUSED[kind]
    found = with_frozen_trunk() if kind in ("unfrozen", "frozen and moved") else problem()
    path = tmp_path / "a.h5"
    whole = (
        rf"the model is no longer the problem's at step 3 \(.*a\.h5 keeps what was recorded up to step 2\): ({message})"
    )
    with pytest.raises(LandscapeError, match=whole):
        loop(found, path, change, before=2)
    there = landscape.open(path)
    assert there.steps.tolist() == [0, 1, 2], "what was acknowledged is kept"
    assert not there.complete
    assert there.theta[2].tobytes() == there.theta[0].tobytes()
    with Recorder(problem(), path, existing=landscape.Overwrite()):
        pass  # the file is free again


def test_a_change_that_is_taken_back_before_a_snapshot_is_no_change(tmp_path: Path) -> None:
    found = with_frozen_trunk()
    with Recorder(found, tmp_path / "a.h5", Every(3)) as recorder:
        for _ in range(3):
            found.model.trunk[0].weight.requires_grad_(True)
            found.model.trunk[0].weight.requires_grad_(False)
            recorder.step()
    assert landscape.open(tmp_path / "a.h5").complete


def test_the_loop_may_catch_the_error_but_the_run_is_never_complete(tmp_path: Path) -> None:
    found = problem()
    recorder = Recorder(found, tmp_path / "a.h5", Every(1)).__enter__()
    found.model.trunk.append(nn.Linear(5, 5))
    with pytest.raises(LandscapeError, match="train and are not part of theta"):
        recorder.step()
    with pytest.raises(LandscapeError, match="train and are not part of theta"):
        recorder.__exit__(None, None, None)
    assert not landscape.open(tmp_path / "a.h5").complete


def test_parameters_of_theta_may_rest_and_that_is_said_once_with_their_names(tmp_path: Path) -> None:
    found = problem()
    found.model.trunk.requires_grad_(False)
    resting = r"trunk\.0\.weight, trunk\.0\.bias are part of theta and do not require a gradient now"
    recorder = Recorder(found, tmp_path / "a.h5", Every(1))
    with pytest.warns(UserWarning, match=resting):
        recorder.__enter__()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder.step()
        found.model.trunk.requires_grad_(True)
        with torch.no_grad():
            found.model.trunk[0].weight.add_(1.0)
        recorder.step()
        recorder.__exit__(None, None, None)
    there = landscape.open(tmp_path / "a.h5")
    # Twenty entries moved by one; float32 sums of order one.
    assert there.path_steps[2] == pytest.approx(np.sqrt(20), rel=1e-6)
    evaluated = problem().evaluate(torch.tensor(there.theta[2])).losses.numpy()
    assert there.losses[2].tobytes() == evaluated.tobytes()


def test_frozen_weights_other_than_the_problem_s_are_refused_at_the_start(tmp_path: Path) -> None:
    found = with_frozen_trunk()
    with torch.no_grad():
        found.model.trunk[0].weight.add_(1.0)
    message = (
        r"the model's frozen parameters \(trunk\.0\.weight\) are not those that the problem was made with: expected"
    )
    with pytest.raises(LandscapeError, match=message), Recorder(found, tmp_path / "a.h5"):
        pass
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int8, torch.complex64])
def test_a_fingerprint_sees_every_entry_and_their_values(dtype: torch.dtype) -> None:
    whole = torch.arange(1, 8).to(dtype)
    known = fingerprint(whole)
    assert torch.equal(fingerprint(whole.clone()), known)
    for place in range(7):
        other = whole.clone()
        other[place] += 1
        assert not torch.equal(fingerprint(other), known)
    apart = whole.clone()
    apart[0], apart[4] = apart[0] + 1, apart[4] - 1
    assert not torch.equal(fingerprint(apart), known), "changes that cancel in the sum"
    assert torch.equal(fingerprint(whole.reshape(7, 1).t()), known)
