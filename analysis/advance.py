"""How far a measurement of several runs is, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Advance:
    """How far a long measurement is."""

    done: float
    """Share of the work, from 0 to 1."""
    seconds: float
    """Since it began."""

    @property
    def left(self) -> float:
        """Seconds left at the rate so far; infinite at the beginning."""
        return self.seconds * (1 - self.done) / self.done if self.done > 0 else float("inf")


class Clock:
    """Adds up what several runs have done."""

    def __init__(self, amounts: Sequence[float], progress: Callable[[Advance], None]) -> None:
        self._amounts, self._progress = amounts, progress
        self._done, self._began, self._lock = [0.0] * len(amounts), time.perf_counter(), Lock()

    def of(self, number: int) -> Callable[[int], None]:
        """What one run tells of an amount done; of nothing, where it begins again."""

        def tell(amount: int) -> None:
            self._set(number, min(self._done[number] + amount, self._amounts[number]) if amount else 0.0)

        return tell

    def end(self, number: int) -> None:
        """One run is done."""
        self._set(number, self._amounts[number])

    def _set(self, number: int, done: float) -> None:
        with self._lock:
            self._done[number] = done
            share = sum(self._done) / max(sum(self._amounts), 1.0)
            self._progress(Advance(share, time.perf_counter() - self._began))
