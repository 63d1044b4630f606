"""Strategies from plain words and numbers, as a command line or a settings file gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from landscape.errors import LandscapeError, unknown
from landscape.optimisers import Optimiser
from landscape.strategies.adatask import AdaTask
from landscape.strategies.averaged import Averaged
from landscape.strategies.base import Mean, Reduction, Strategy, Sum, Weights
from landscape.strategies.grouped import Count, Grouped, OwnStates, SharedState, Size
from landscape.strategies.sequential import Alternating, Fixed, Independent, NextBatch, Reversed, SameBatch, Shuffled
from landscape.strategies.single import SingleTask

STRATEGIES: dict[str, Callable[..., Any]] = {
    "averaged": Averaged,
    "alternating": Alternating,
    "adatask": AdaTask,
    "independent": Independent,
    "grouped": Grouped,
    "single": SingleTask,
}
_WORDS: dict[str, dict[str, Callable[[], Any]]] = {
    "order": {"fixed": Fixed, "shuffled": Shuffled, "reversed": Reversed},
    "batches": {"same": SameBatch, "next": NextBatch},
    "states": {"own": OwnStates, "shared": SharedState},
}
_TAKES = {
    "averaged": {"reduction"},
    "alternating": {"order", "batches"},
    "adatask": set[str](),
    "independent": {"order", "batches"},
    "grouped": {"order", "batches", "reduction", "groups", "size", "states", "redraw", "group_seed"},
    "single": {"task"},
}


def named(name: str, optimiser: Optimiser, choices: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy by name, with the choices that it takes; those that are None count as not given.

    Choices: `reduction` (`sum`, `mean` or a list of weights), `order` (`fixed`, `shuffled`, `reversed`), `batches`
    (`same`, `next`); of `grouped` also `groups` or `size`, `states` (`own`, `shared`), `redraw` (steps, 0: never) and
    `group_seed`; of `single` its `task`.

    Raises:
        LandscapeError: an unknown name or word, with the nearest valid one; a choice that the strategy does not take.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    given = {key: value for key, value in (choices or {}).items() if value is not None}
    for key in given:
        if key not in _TAKES[name]:
            takers = [other for other, keys in _TAKES.items() if key in keys]
            if not takers:
                raise unknown("choice of a strategy", key, set().union(*_TAKES.values()))
            raise LandscapeError(
                f"the strategy {name} takes no {key}: expected it with {' or '.join(takers)}; leave it out"
            )
    fields = {
        _FIELDS.get(key, key): _object(key, value) for key, value in given.items() if key not in ("groups", "size")
    }
    if name == "single" and not given.get("task"):
        raise LandscapeError("expected the name of a task for the strategy single, got none: name it as task")
    if "groups" in given and "size" in given:
        raise LandscapeError("expected the number of groups or their size, got both: leave one out")
    if "groups" in given:
        fields["partition"] = Count(_whole("groups", given["groups"]))
    if "size" in given:
        fields["partition"] = Size(_whole("size", given["size"]))
    made: Strategy = STRATEGIES[name](optimiser=optimiser, **fields)
    return made


_FIELDS = {"states": "states_of_theta", "group_seed": "seed"}


def _object(key: str, value: Any) -> Any:
    if key == "reduction":
        return _reduction(value)
    if key == "task":
        return str(value)
    if key not in _WORDS:
        return _whole(key, value)
    if str(value) not in _WORDS[key]:
        raise unknown(key, str(value), _WORDS[key])
    return _WORDS[key][str(value)]()


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise LandscapeError(f"expected {key} as a whole number, got {value!r}")
    return value


def _reduction(value: Any) -> Reduction:
    if isinstance(value, list | tuple):
        if not all(isinstance(weight, int | float) for weight in value):
            raise LandscapeError(f"expected weights as numbers, got {list(value)}")
        return Weights(*value)
    words: dict[str, Callable[[], Reduction]] = {"sum": Sum, "mean": Mean}
    if str(value) not in words:
        raise unknown("reduction", str(value), [*words, "a list of weights"])
    return words[str(value)]()
