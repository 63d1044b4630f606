"""Every optimiser of torch that needs no closure can be chosen, saved and continued exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from landscape import LandscapeError, Optimiser
from landscape.optimisers import load_states, save_states

NEED_MORE = ("Optimizer", "LBFGS", "SparseAdam")  # a closure, or sparse gradients
NAMES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in NEED_MORE
)
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "nesterov": True}],
    "Adam": [{}, {"amsgrad": True}],
    "RMSprop": [{}, {"momentum": 0.5, "centered": True}],
}
CASES = [(name, settings) for name in NAMES for settings in SETTINGS.get(name, [{}])]


def parameters(dtype: torch.dtype, name: str) -> list[nn.Parameter]:
    own = torch.Generator().manual_seed(1)
    shapes = [(3, 2), (2, 4)] if name == "Muon" else [(3, 2), (4,), ()]
    return [nn.Parameter(torch.randn(shape, generator=own).to(dtype)) for shape in shapes]


def step(optimiser: torch.optim.Optimizer, own: Sequence[nn.Parameter], number: int) -> None:
    """Gradients of any kind, a function of the step; the last parameter has none at first."""
    for place, parameter in enumerate(own):
        draws = torch.Generator().manual_seed(100 * number + place)
        parameter.grad = torch.randn(parameter.shape, generator=draws).to(parameter.dtype)
    if number < 2:
        own[-1].grad = None
    optimiser.step()


def flat(states: Any) -> dict[tuple[int, str], Any]:
    return {
        (place, name): (value.dtype, value.tolist()) if isinstance(value, Tensor) else value
        for place, state in states.items()
        for name, value in state.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_states_are_put_back_bit_by_bit_and_training_goes_on_identically(
    name: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    choice, own = Optimiser(name, **settings), parameters(dtype, name)
    optimisers = [choice.build(own), choice.build(own)]
    for number in range(3):
        step(optimisers[number % 2], own, number)
    saved = save_states(optimisers)
    copies = [nn.Parameter(p.detach().clone()) for p in own]
    fresh = [choice.build(copies), choice.build(copies)]
    load_states(fresh, saved)
    for mine, other in zip(fresh, optimisers, strict=True):
        assert flat(mine.state_dict()["state"]) == flat(other.state_dict()["state"])
    assert save_states(fresh) == saved
    for number in range(3, 9):
        step(optimisers[number % 2], own, number)
        step(fresh[number % 2], copies, number)
    for mine, other in zip(copies, own, strict=True):
        assert torch.equal(mine, other)


def test_saved_states_do_not_change_with_the_optimiser() -> None:
    own = parameters(torch.float32, "Adam")
    optimiser = Optimiser("Adam").build(own)
    step(optimiser, own, 3)
    saved = save_states([optimiser])
    copy = bytes(bytearray(saved))
    step(optimiser, own, 4)
    assert saved == copy
    assert save_states([optimiser]) != saved


def test_an_optimiser_prints_itself_and_knows_its_rate() -> None:
    choice = Optimiser("Adam", lr=0.001, betas=(0.8, 0.9))
    assert repr(choice) == "Adam(betas=(0.8, 0.9), lr=0.001)"
    assert choice.rate == 0.001
    assert choice.at_rate(0.5) == Optimiser("Adam", betas=(0.8, 0.9), lr=0.5)
    assert Optimiser("SGD").rate == torch.optim.SGD([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Adm", {}, "unknown optimiser 'Adm': expected one of .*; did you mean 'Adam'"),
        ("adam", {}, "unknown optimiser 'adam': .*; did you mean 'Adam'"),
        ("LBFGS", {}, "unknown optimiser 'LBFGS'"),
        ("SparseAdam", {}, "unknown optimiser 'SparseAdam'"),
        (
            "Adam",
            {"rate": 0.1},
            r"Adam\(rate=0.1\) cannot be made \(.*rate.*\): expected the settings of torch",
        ),
        ("Adam", {"lr": -1}, r"Adam\(lr=-1\) cannot be made \(Invalid learning rate: -1\)"),
        ("Adam", {"lr": float("nan")}, r"expected finite settings of Adam, got lr=nan"),
        ("Adam", {"lr": "fast"}, r"Adam\(lr='fast'\) cannot be made"),
        ("Adam", {"fused": True, "foreach": True}, "cannot be made .*fused"),
    ],
)
def test_an_optimiser_that_cannot_be_made_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        Optimiser(name, **settings)


def test_an_optimiser_that_cannot_take_these_parameters_is_refused() -> None:
    with pytest.raises(LandscapeError, match=r"Muon\(\) cannot be made .*2D"):
        Optimiser("Muon").build([nn.Parameter(torch.zeros(3))])


def test_an_optimiser_is_given_by_its_name() -> None:
    message = r"expected the name of an optimiser of torch\.optim, as 'Adam', got <class 'torch.*Adam'>: give its name"
    with pytest.raises(LandscapeError, match=message):
        Optimiser(torch.optim.Adam)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_settings_that_are_not_finite_are_refused(value: float) -> None:
    for key in ("lr", "weight_decay"):
        with pytest.raises(LandscapeError, match=rf"^expected finite settings of SGD, got {key}=-?(inf|nan)$"):
            Optimiser("SGD", **{key: value})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"lr": torch.tensor(0.125)}, "lr=0.125"),
        ({"lr": torch.tensor([0.125], requires_grad=True)}, "lr=0.125"),
        ({"lr": np.float64(0.1)}, "lr=0.1"),
        ({"lr": np.array(0.1), "amsgrad": np.bool_(True)}, "amsgrad=True, lr=0.1"),
        ({"betas": (torch.tensor(0.75), np.float32(0.5))}, "betas=(0.75, 0.5)"),
        ({"betas": torch.tensor([0.75, 0.5])}, "betas=(0.75, 0.5)"),
        ({"betas": [np.float64(0.9), 0.99]}, "betas=[0.9, 0.99]"),
    ],
    ids=str,
)
def test_settings_that_are_tensors_or_numbers_of_numpy_are_kept_as_plain_ones(given: dict[str, Any], kept: str) -> None:
    optimiser = Optimiser("Adam", **given)
    assert repr(optimiser) == f"Adam({kept})"
    assert optimiser.rate == dict(optimiser.settings).get("lr", 1e-3)
    assert eval(repr(optimiser), {"Adam": lambda **settings: Optimiser("Adam", **settings)}) == optimiser


@pytest.mark.parametrize("given", [{"lr": torch.tensor(float("nan"))}, {"eps": np.float32("inf")}], ids=str)
def test_settings_that_are_not_finite_are_refused_however_they_are_given(given: dict[str, Any]) -> None:
    with pytest.raises(LandscapeError, match=r"expected finite settings of Adam, got (lr=nan|eps=inf)"):
        Optimiser("Adam", **given)


def test_several_rates_are_refused_in_one_sentence() -> None:
    with pytest.raises(LandscapeError, match=r"Adam\(lr=\(.*\)\) cannot be made .*: expected the settings of torch"):
        Optimiser("Adam", lr=torch.tensor([0.1, 0.2]))
