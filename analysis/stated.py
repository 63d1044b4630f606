"""What a run's strategy says of itself, read from the text that its file holds. Nothing in the text is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stated:
    """Name and optimiser of a strategy; `order` is a fixed order of tasks, empty where none is stated; `mean` whether
    it steps on the losses' mean rather than their sum.
    """

    name: str = ""
    optimiser: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    mean: bool = False


def stated(strategy: str) -> Stated:
    """The parts of `Independent(optimiser=Adam(lr=0.001), order=Fixed(2, 0, 1), ...)`; an empty answer to a text that
    is no such thing, as a user's own description of a training loop.
    """
    try:
        whole = ast.parse(strategy, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return Stated()
    name, parts = _call(whole)
    optimiser, settings = _call(parts.get("optimiser"))
    order = parts.get("order")
    fixed = isinstance(order, ast.Call) and _call(order)[0] == "Fixed" and name in ("Alternating", "Independent")
    return Stated(
        name,
        optimiser,
        {key: _literal(value) for key, value in settings.items()},
        tuple(_literal(value) for value in order.args) if fixed and isinstance(order, ast.Call) else (),
        name == "Averaged" and _call(parts.get("reduction"))[0] == "Mean",
    )


def _call(node: ast.expr | None) -> tuple[str, dict[str, ast.expr]]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return "", {}
    return node.func.id, {word.arg: word.value for word in node.keywords if word.arg}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
