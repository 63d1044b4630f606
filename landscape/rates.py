"""The learning rate that somebody else's optimiser steps with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from landscape.errors import LandscapeError


class OfOptimiser:
    """The rate of an optimiser's last step: of all parameter groups, or of those that hold `wanted` parameters where
    groups differ, or where it holds `others` alone; NaN where these differ too, or there are none.

    Any object with `param_groups`. One of torch tells of its steps, so that a scheduler may step before or after the
    recorder; of another the rate is read when it is asked for.
    """

    def __init__(
        self, optimiser: Any, wanted: Callable[[], Collection[Any]], others: Callable[[], Collection[Any]]
    ) -> None:
        if not hasattr(optimiser, "param_groups"):
            raise LandscapeError(
                f"expected an optimizer with param_groups, got {type(optimiser).__name__}: give that of your loop, or "
                "each step's rate as recorder.step(rate=...)"
            )
        self._optimiser, self._wanted, self._others = optimiser, wanted, others
        self._last: float | None = None
        self._has_others_alone = False

    def now(self) -> float:
        """The rate at this moment."""
        groups = self._optimiser.param_groups
        rates = {float(group["lr"]) for group in groups}
        if len(rates) > 1 or self._has_others_alone:
            rates = {float(group["lr"]) for group in groups if _holds(group, self._wanted())}
        return rates.pop() if len(rates) == 1 else float("nan")

    def taken(self) -> float:
        """The rate of the last step since this was asked; the present one where there was none."""
        last, self._last = self._last, None
        return self.now() if last is None else last

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Listens to the optimiser's steps."""
        groups = self._optimiser.param_groups
        shared, heads = (any(_holds(group, some()) for group in groups) for some in (self._wanted, self._others))
        self._has_others_alone = heads and not shared
        listen = getattr(self._optimiser, "register_step_post_hook", None)
        handle = listen(lambda *_: setattr(self, "_last", self.now())) if listen else None
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()


def _holds(group: Mapping[str, Any], some: Collection[Any]) -> bool:
    wanted = {id(parameter) for parameter in some}
    return any(id(parameter) in wanted for parameter in group["params"])
