"""What a run's strategy says of itself, read from the text that its file holds. Nothing in the text is run."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
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
    OwnStates,
    Reversed,
    SameBatch,
    SharedState,
    Shuffled,
    SingleTask,
    Size,
    Strategy,
    Sum,
    Weights,
)

_STRATEGIES = (AdaTask, Alternating, Averaged, Grouped, Independent, SingleTask)
_PARTS = (Count, Fixed, Mean, NextBatch, OwnStates, Reversed, SameBatch, SharedState, Shuffled, Size, Sum, Weights)
_KINDS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (*_STRATEGIES, *_PARTS)}


def parse_strategy(text: str) -> Strategy | None:
    """The strategy whose repr this is, equal to the one that was stored; None for anything else, as a user's own
    description of a training loop.

    Only strategies, their parts and optimisers of `torch.optim` are made, of literals.
    """
    try:
        found = _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):  # a LandscapeError is a ValueError
        return None
    return found if isinstance(found, _STRATEGIES) else None


def _read(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=given):
            settings = {str(one.arg): _read(one.value) for one in given}
            if name in _KINDS:
                return _KINDS[name](*(_read(one) for one in args), **settings)
            if args:
                raise LandscapeError(f"expected the settings of {name} by their names")
            return Optimiser(name, **settings)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "numpy")), args=[number], keywords=[]):
            return ast.literal_eval(number)  # numbers of numpy wrote themselves as np.float64(0.1) in earlier files
        case ast.Tuple(elts=parts):
            return tuple(_read(part) for part in parts)
    return ast.literal_eval(node)


@dataclass(frozen=True)
class Stated:
    """Name and optimiser of a strategy with all its settings, torch's defaults among them; `order` is a fixed order of
    tasks, empty where none is stated; `mean` whether it steps on the losses' mean rather than their sum.
    """

    name: str = ""
    optimiser: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    mean: bool = False


def stated(strategy: str) -> Stated:
    """The parts of `Independent(optimiser=Adam(lr=0.001), order=Fixed(2, 0, 1), ...)`; an empty answer to a text that
    is no such thing.
    """
    found = parse_strategy(strategy)
    if found is None:
        return Stated()
    order: tuple[int, ...] = ()
    if isinstance(found, Alternating | Independent) and isinstance(found.order, Fixed):
        order = found.order.order
    return Stated(
        type(found).__name__,
        found.optimiser.name,
        found.optimiser.whole,
        order,
        isinstance(found, Averaged) and isinstance(found.reduction, Mean),
    )
