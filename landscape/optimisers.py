"""The optimiser as a choice: a name from `torch.optim` with its settings, built anew for each state that a strategy
keeps.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from landscape.errors import LandscapeError, unknown

_WITHOUT_CLOSURE = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and name not in ("LBFGS", "SparseAdam")
}


@dataclass(frozen=True, init=False)
class Optimiser:
    """An optimiser of `torch.optim` by name, with its settings: `Optimiser("Adam", lr=1e-3)`.

    Its repr, `Adam(lr=0.001)`, is part of the strategy's and is stored in the trajectory, so numbers are kept as plain
    ones, whether they are given as such, as tensors or as numpy's.

    Raises:
        LandscapeError: no such optimiser, or settings that it does not take or that are not finite.
    """

    name: str
    settings: tuple[tuple[str, Any], ...]

    def __init__(self, name: str = "Adam", **settings: Any) -> None:
        given: object = name
        if not isinstance(given, str):
            raise LandscapeError(
                f"expected the name of an optimiser of torch.optim, as 'Adam', got {given!r}: give its name as a text"
            )
        if name not in _WITHOUT_CLOSURE:
            raise unknown("optimiser", name, _WITHOUT_CLOSURE)
        plain = {key: _plain_setting(value) for key, value in settings.items()}
        for key, value in plain.items():
            parts = value if isinstance(value, tuple | list) else [value]
            if not all(math.isfinite(part) for part in parts if isinstance(part, float)):
                raise LandscapeError(f"expected finite settings of {name}, got {key}={value}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "settings", tuple(sorted(plain.items())))
        self.build([nn.Parameter(torch.zeros(1, 1))])

    @property
    def rate(self) -> float:
        """The learning rate, torch's default where none was given."""
        return float(self.whole["lr"])

    @property
    def whole(self) -> dict[str, Any]:
        """All settings by name, torch's defaults where none were given."""
        group = self.build([nn.Parameter(torch.zeros(1, 1))]).param_groups[0]
        return {name: value for name, value in group.items() if name != "params"}

    def at_rate(self, rate: float) -> Optimiser:
        """The same optimiser with another learning rate."""
        return Optimiser(self.name, **{**dict(self.settings), "lr": rate})

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """A fresh `torch.optim.Optimizer` over these parameters."""
        try:
            return _WITHOUT_CLOSURE[self.name](list(parameters), **dict(self.settings))
        except (TypeError, ValueError, RuntimeError) as error:
            raise LandscapeError(
                f"{self!r} cannot be made ({error}): expected the settings of torch.optim.{self.name}"
            ) from error

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.settings)})"


def _plain_setting(value: Any) -> Any:
    """A setting without tensors and numbers of numpy; several in an array are a tuple."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        numbers = value.reshape(-1).tolist()
        return numbers[0] if len(numbers) == 1 else tuple(numbers)
    if isinstance(value, tuple | list):
        parts = [_plain_setting(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def save_states(optimisers: Sequence[torch.optim.Optimizer]) -> bytes:
    """The states of several optimisers as safetensors bytes: tensors by `optimiser/parameter/name`, plain numbers as
    JSON.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, float | int | bool | str | None] = {}
    for number, optimiser in enumerate(optimisers):
        for parameter, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                where = f"{number}/{parameter}/{name}"
                if isinstance(value, Tensor):
                    tensors[where] = value.detach().contiguous().clone()
                else:
                    plain[where] = value
    return bytes(save_tensors(tensors, {"plain": json.dumps(plain)}))


def read_states(data: bytes) -> list[dict[int, dict[str, Any]]]:
    """What `save_states` saved: for each optimiser, by the number of a parameter, its tensors and plain numbers."""
    states: list[dict[int, dict[str, Any]]] = []
    for where, value in {**load_tensors(data), **_plain(data)}.items():
        number, parameter, name = where.split("/", 2)
        states += [{} for _ in range(len(states), int(number) + 1)]
        states[int(number)].setdefault(int(parameter), {})[name] = value
    return states


def load_states(optimisers: Sequence[torch.optim.Optimizer], data: bytes) -> None:
    """Puts states saved by `save_states` back into fresh optimisers over the same parameters."""
    states = read_states(data)
    states += [{} for _ in range(len(states), len(optimisers))]
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        _put_back(optimiser, state)


def _put_back(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """The values as they were: `load_state_dict` turns some into the parameter's type, and rounding would differ."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, values in state.items():
        own = optimiser.state[parameters[number]]
        own.update({k: v.to(own[k].device) if isinstance(v, Tensor) else v for k, v in values.items()})


def _plain(data: bytes) -> Mapping[str, Any]:
    size = int.from_bytes(data[:8], "little")
    found: Mapping[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["plain"])
    return found
